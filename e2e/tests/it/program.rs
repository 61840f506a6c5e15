//! The lab's own program, as a person starts it.

use std::fs::File;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// The most that the program may take to clean up.
const CLEAN: Duration = Duration::from_secs(60);

/// A running program, which is killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    /// Its standard output and its standard error.
    output: TempDir,
}

impl Program {
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let output = File::create(directory.path().join("output"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_e2e"));
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
        Ok(Self { child: command.spawn()?, output: directory })
    }

    /// Returns all that it has written until now.
    pub(crate) fn output(&self) -> Result<String> {
        let bytes = std::fs::read(self.output.path().join("output"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits for a condition of its output, as long as it runs.
    pub(crate) async fn until<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        condition: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + deadline;
        loop {
            let ended = self.child.try_wait()?;
            let text = self.output()?;
            if let Some(value) = condition(&text) {
                return Ok(value);
            }
            if let Some(status) = ended {
                bail!("it ended before {what} with {status}:\n{text}");
            }
            ensure!(Instant::now() < end, "waited {} s for {what}:\n{text}", deadline.as_secs());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until it ends, and returns how and all that it has written.
    pub(crate) async fn ended(mut self, deadline: Duration) -> Result<(ExitStatus, String)> {
        let ended = tokio::time::timeout(deadline, self.child.wait()).await;
        let text = self.output()?;
        Ok((ended.with_context(|| format!("it does not end:\n{text}"))??, text))
    }

    /// Waits until it ends with success, and returns all that it has written.
    pub(crate) async fn succeeded(self, deadline: Duration) -> Result<String> {
        let (status, text) = self.ended(deadline).await?;
        ensure!(status.success(), "it ended with {status}:\n{text}");
        Ok(text)
    }

    /// Ends it as Ctrl-C does, and returns all that it has written.
    pub(crate) async fn interrupt(self) -> Result<String> {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(id.context("it has ended already")?, Signal::INT)?;
        self.succeeded(CLEAN).await
    }
}
