//! The lab that the tests share, in turns.

use std::future::Future;
use std::ops::Deref;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::lab::controller::Controller;
use e2e::lab::{Lab, Options};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, MutexGuard};

/// Enough for anything that the controller shall do at once, on a slow machine.
pub const SOON: Duration = Duration::from_secs(30);

/// The lab outlives each test, so what runs in it must too.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
static LAB: LazyLock<Mutex<Option<Lab>>> = LazyLock::new(Mutex::default);

/// Runs a test's body.
pub fn run(test: impl Future<Output = Result<()>>) {
    if let Err(error) = RUNTIME.block_on(test) {
        panic!("{error:#}");
    }
}

/// Takes a turn without a lab: whoever holds it runs alone.
pub async fn turn() -> MutexGuard<'static, Option<Lab>> {
    LAB.lock().await
}

/// The lab, and a controller that runs in it. Nobody else has it until this is dropped.
pub struct Stage {
    lab: Option<MutexGuard<'static, Option<Lab>>>,
    pub controller: Option<Controller>,
}

impl Stage {
    /// The shared lab with a fake kubelet, without anything that an earlier test left, and a controller.
    pub async fn shared() -> Result<Self> {
        let mut stage = Self::without_controller().await?;
        stage.start_controller(&[]).await?;
        Ok(stage)
    }

    /// The shared lab with a fake kubelet and no controller.
    pub async fn without_controller() -> Result<Self> {
        Self::take(Options { kubelet: true, ..Options::default() }, false).await
    }

    /// A lab of its own, without kubelet and controller.
    pub async fn fresh() -> Result<Self> {
        Self::take(Options::default(), true).await
    }

    async fn take(options: Options, fresh: bool) -> Result<Self> {
        let mut lab = LAB.lock().await;
        if fresh {
            lab.take();
        }
        if lab.is_none() {
            *lab = Some(Lab::start(Path::new(env!("CARGO_BIN_EXE_e2e")), options).await?);
        }
        Ok(Self { lab: Some(lab), controller: None })
    }

    /// Starts the controller and waits until it says that it is ready.
    pub async fn start_controller(&mut self, flags: &[&str]) -> Result<()> {
        let mut controller = self.controller(flags)?;
        controller.ready(SOON).await?;
        self.controller = Some(controller);
        Ok(())
    }

    /// Ends the controller as a rollout does.
    pub async fn stop_controller(&mut self) -> Result<()> {
        self.controller.take().context("no controller runs")?.stop().await
    }

    /// Keeps the lab for the next test: everything that this one made is gone.
    pub fn leave_clean(mut self) {
        self.controller.take();
        self.lab.take();
    }
}

impl Deref for Stage {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.lab.as_ref().and_then(|lab| lab.as_ref()).expect("the lab is held until the stage is left")
    }
}

impl Drop for Stage {
    /// A test that did not leave the lab clean takes it down, and shows what the controller said.
    fn drop(&mut self) {
        self.controller.take();
        if let Some(lab) = self.lab.as_mut().and_then(|lab| lab.take()) {
            eprintln!("--- the end of the controller's log\n{}", lab.controller_log(60));
            let calls = lab.proxy.log();
            eprintln!("--- the last AWS calls");
            calls.iter().skip(calls.len().saturating_sub(30)).for_each(|call| eprintln!("{call}"));
        }
    }
}
