//! moto, the AWS emulator, in a Python virtual environment of the lab's own.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpStream;

use super::processes::{Process, Processes, free_ports};
use super::wait_until;

const VERSION: &str = "5.2.5";
const PROGRAM: &str = include_str!("../../moto/moto_aws.py");

/// A running emulator. Dropping it ends it, and the AWS account in it is gone.
pub struct Moto {
    /// Its endpoint for every AWS service.
    pub url: String,
    process: Mutex<Process>,
}

impl Moto {
    /// Starts it on a free port with an empty account. The virtual environment is kept in `cache`.
    /// `settings` are environment variables of `moto_aws.py`, such as `AWS_PROVISIONING`.
    pub async fn start(processes: &Processes, cache: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let cache = cache.to_owned();
        let python = tokio::task::spawn_blocking(move || environment(&cache)).await??;
        let program = processes.directory().join("moto_aws.py");
        fs::write(&program, PROGRAM)?;
        let [port] = free_ports()?;
        let arguments = [program.into_os_string(), port.to_string().into()];
        let mut process = processes.spawn("moto", &python, arguments, settings)?;
        wait_until(Duration::from_secs(60), "moto to listen", async || {
            process.check_running()?;
            Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok())
        })
        .await?;
        Ok(Self { url: format!("http://127.0.0.1:{port}"), process: Mutex::new(process) })
    }

    /// Fails when it has ended.
    pub(super) fn check_running(&self) -> Result<()> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).check_running()
    }

    /// Has it report these healths of targets, as `moto_aws.py` says.
    pub(super) async fn report_health(&self, healths: &Value) -> Result<()> {
        let request =
            Request::put(format!("{}/albatross/health", self.url)).body(Full::new(Bytes::from(healths.to_string())))?;
        let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
        ensure!(answer.status().is_success(), "the emulator does not take healths: {}", answer.status());
        Ok(())
    }

    /// Lets only these roles be assumed from now on, each with its external id, as `moto_aws.py` says.
    pub(super) async fn trust_roles(&self, roles: &Value) -> Result<()> {
        let request =
            Request::put(format!("{}/albatross/roles", self.url)).body(Full::new(Bytes::from(roles.to_string())))?;
        let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
        ensure!(answer.status().is_success(), "the emulator does not take roles: {}", answer.status());
        Ok(())
    }

    /// Makes it tell these lies from now on, as `moto_aws.py` lists them; none of `{}`.
    pub async fn lie(&self, lies: &Value) -> Result<()> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let request = Request::put(format!("{}/albatross/lies", self.url));
        let answer = client.request(request.body(Full::new(lies.to_string().into()))?).await?;
        let status = answer.status();
        let said = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "the emulator does not lie so: {}", String::from_utf8_lossy(&said));
        Ok(())
    }
}

/// The Python of a virtual environment with moto, made once.
fn environment(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join(format!("venv-{VERSION}"));
    let python = folder.join("bin/python");
    if python.exists() {
        return Ok(python);
    }
    tracing::info!("installing moto {VERSION}; this takes about a minute, and only once");
    fs::create_dir_all(cache)?;
    let work = tempfile::Builder::new().prefix("venv-").tempdir_in(cache)?;
    let made = Command::new("python3").args(["-m", "venv"]).arg(work.path()).stdin(Stdio::null()).output();
    let Ok(made) = made else {
        bail!(
            "the lab's AWS emulator is moto, and there is no `python3` on PATH: install Python 3.9 or newer with its venv module"
        );
    };
    ensure!(
        made.status.success(),
        "`python3 -m venv` failed; install Python's venv module (Debian: python3-venv):\n{}{}",
        String::from_utf8_lossy(&made.stdout),
        String::from_utf8_lossy(&made.stderr)
    );
    let installed = Command::new(work.path().join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .arg(format!("moto[server]=={VERSION}"))
        .stdin(Stdio::null())
        .output()?;
    ensure!(
        installed.status.success(),
        "`pip install moto[server]=={VERSION}` failed (it needs PyPI):\n{}",
        String::from_utf8_lossy(&installed.stderr)
    );
    // Only the interpreter is run, never a script of the environment, so that it may be moved.
    put(work.path(), &folder)
        .with_context(|| format!("cannot move the virtual environment to {}", folder.display()))?;
    Ok(python)
}

/// Moves a virtual environment to a folder. If another lab was faster, its own stays. If the Python of an older one is gone, as
/// an upgrade leaves it, that one is removed.
fn put(work: &Path, folder: &Path) -> io::Result<()> {
    match fs::rename(work, folder) {
        Err(_) if folder.join("bin/python").exists() => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
            fs::remove_dir_all(folder)?;
            fs::rename(work, folder)
        }
        moved => moved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_stays_unless_its_python_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("venv");
        let python = folder.join("bin/python");
        let make = |target: &str| {
            let work = directory.path().join("work");
            fs::create_dir_all(work.join("bin")).unwrap();
            std::os::unix::fs::symlink(target, work.join("bin/python")).unwrap();
            work
        };
        for (target, expected) in [("/none", "/none"), ("/proc", "/proc"), ("/dev", "/proc")] {
            put(&make(target), &folder).unwrap();
            assert_eq!(fs::read_link(&python).unwrap(), Path::new(expected));
        }
    }
}
