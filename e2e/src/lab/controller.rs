//! The controller under test, as a separate process with the flags of its Deployment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::aws::REGION;
use super::processes::{Process, free_ports};
use super::world::CLUSTER;
use super::{Lab, wait_until};

/// The name of the process and of its log.
pub const NAME: &str = "controller";
/// The hidden subcommand of the lab's program that is the controller's own program.
pub const SUBCOMMAND: &str = "albatross";

/// A running controller. Dropping it kills it.
pub struct Controller {
    process: Process,
    health_port: u16,
    debug_port: u16,
    /// The port of its metrics.
    pub metrics_port: u16,
}

impl Controller {
    pub(super) fn start(lab: &Lab, extra_flags: &[&str]) -> Result<Self> {
        let environment = [
            ("AWS_ACCESS_KEY_ID", "x"),
            ("AWS_SECRET_ACCESS_KEY", "y"),
            ("AWS_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ENDPOINT_URL", &lab.proxy.url),
        ];
        Self::start_in(lab, &environment, extra_flags)
    }

    pub(super) fn start_in(lab: &Lab, environment: &[(&str, &str)], extra_flags: &[&str]) -> Result<Self> {
        let [metrics_port, health_port, debug_port, webhook_port] = free_ports()?;
        let (program, mut arguments): (PathBuf, Vec<OsString>) = match std::env::var_os("ALBATROSS_BIN") {
            Some(program) => (program.into(), Vec::new()),
            None => (lab.program.clone(), vec![SUBCOMMAND.into()]),
        };
        let text = |flag: &str, value: &str| OsString::from(format!("--{flag}={value}"));
        let path = |flag: &str, value: &Path| {
            let mut argument = OsString::from(format!("--{flag}="));
            argument.push(value);
            argument
        };
        arguments.extend([
            "controller".into(),
            path("kubeconfig", &lab.kubeconfig),
            text("cluster-name", CLUSTER),
            text("aws-region", REGION),
            text("aws-vpc-id", &lab.world.vpc),
            text("metrics-bind-addr", &format!("127.0.0.1:{metrics_port}")),
            text("health-probe-bind-addr", &format!("127.0.0.1:{health_port}")),
            text("debug-bind-addr", &format!("127.0.0.1:{debug_port}")),
            text("webhook-bind-port", &webhook_port.to_string()),
            text("enable-leader-election", "false"),
            text("enable-waf", "false"),
        ]);
        // Webhooks that are served have a certificate that the controller makes.
        if !extra_flags.contains(&"--enable-webhooks") {
            arguments.push(path("webhook-cert-dir", lab.directory()));
        }
        // A flag set by a test takes precedence.
        let name = |argument: &OsString| argument.to_str().and_then(|text| text.split('=').next()).map(str::to_owned);
        let said: Vec<String> =
            extra_flags.iter().filter_map(|flag| Some(flag.split('=').next()?.to_owned())).collect();
        arguments.retain(|argument| name(argument).is_none_or(|name| !said.contains(&name)));
        arguments.extend(extra_flags.iter().map(OsString::from));
        let process = lab.processes.spawn(NAME, &program, arguments, environment)?;
        Ok(Self { process, health_port, debug_port, metrics_port })
    }

    /// Waits until its `/readyz` answers 200.
    pub async fn ready(&mut self, deadline: Duration) -> Result<()> {
        wait_until(deadline, "the controller to be ready", async || {
            self.process.check_running()?;
            let (status, reasons) = self.readiness().await?;
            ensure!(status == 200, "/readyz answers {status}: {reasons}");
            Ok(true)
        })
        .await
    }

    /// Returns the answer of its `/readyz`: the status, and the text with the reasons.
    pub async fn readiness(&self) -> Result<(u16, String)> {
        Self::ask_port(self.health_port, "/readyz").await
    }

    /// Waits until its `/idle` says that no work is running or waiting.
    pub async fn idle(&mut self, deadline: Duration) -> Result<()> {
        wait_until(deadline, "the controller to be idle", async || {
            self.process.check_running()?;
            let (status, pending) = Self::ask_port(self.debug_port, "/idle").await?;
            ensure!(status == 200, "/idle answers {status}: {pending}");
            Ok(true)
        })
        .await
    }

    /// Returns the answer of its `/debug/state`.
    pub async fn state(&self) -> Result<String> {
        Ok(Self::ask_port(self.debug_port, "/debug/state").await?.1)
    }

    /// Returns the answer of its `/metrics`.
    pub async fn metrics(&self) -> Result<String> {
        Ok(Self::ask_port(self.metrics_port, "/metrics").await?.1)
    }

    async fn ask_port(port: u16, path: &str) -> Result<(u16, String)> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let answer = client.get(format!("http://127.0.0.1:{port}{path}").parse()?).await?;
        let status = answer.status().as_u16();
        Ok((status, String::from_utf8_lossy(&answer.into_body().collect().await?.to_bytes()).into_owned()))
    }

    /// Returns the path of its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// The process's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Fails when it has ended by itself.
    pub fn check_running(&mut self) -> Result<()> {
        self.process.check_running()
    }

    /// Ends it as a rollout does: SIGTERM, then wait. Fails when it takes longer than a pod is given, or ends
    /// with a failure.
    pub async fn stop(self) -> Result<()> {
        let status = self.process.stop(Duration::from_secs(20)).await?;
        ensure!(status.success(), "the controller ended on SIGTERM with {status}");
        Ok(())
    }

    /// Ends it as a crash does.
    pub fn kill(self) {
        self.process.kill();
    }
}
