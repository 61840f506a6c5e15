//! `albatross controller`

use std::{io::IsTerminal as _, process::ExitCode};

use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::output;
use crate::controller::{self, runtime::flags::ControllerFlags};

/// The calls of the AWS SDK are deeply nested futures: unoptimised, one that creates a load balancer from
/// within a pass needs more than the 2 MiB a worker thread has by default. Only pages that are used are paid for.
const WORKER_STACK_BYTES: usize = 8 * 1024 * 1024;

pub(super) fn run(flags: ControllerFlags) -> ExitCode {
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().thread_stack_size(WORKER_STACK_BYTES).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return output::error(&format!("cannot start: {error}")),
        };
    // The sender of traces runs there.
    let in_runtime = runtime.enter();
    let telling = match Telemetry::start(&flags) {
        Ok(telling) => telling,
        Err(error) => return output::error(&error),
    };
    drop(in_runtime);
    // Two TLS users with two ideas of a default provider would otherwise panic at the first connection.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is installed already");
    }
    let result = runtime.block_on(controller::run(flags, stop_signal()));
    telling.end();
    // Watches and servers have nothing to finish.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::error(&error.to_string()),
    }
}

/// The log targets that would show whole requests and answers, and with them the content of Secrets: kube's client, which logs those
/// that it cannot read, and the SDK's orchestrator, which logs all of them at `trace`.
const QUIET: [&str; 2] = ["kube_client::client=error", "aws_smithy_runtime::client::orchestrator=info"];

/// Log and traces.
struct Telemetry {
    #[cfg(feature = "opentelemetry")]
    traces: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Telemetry {
    #[expect(clippy::disallowed_methods, reason = "the log goes to standard error")]
    fn start(flags: &ControllerFlags) -> Result<Self, String> {
        let filter = filter(&flags.log_level).map_err(|error| {
            format!("--log-level: {error}; write `info`, `debug` or a filter such as `albatross=debug`")
        })?;
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colours);
        let log = if flags.log_format == "json" { log.json().boxed() } else { log.boxed() };
        let subscriber = tracing_subscriber::registry().with(log.with_filter(filter));
        // A second subscriber in one process (tests) keeps the first.
        #[cfg(feature = "opentelemetry")]
        {
            let traces = super::traces::provider(&flags.cluster_name)?;
            let _ = subscriber.with(traces.as_ref().map(super::traces::layer)).try_init();
            Ok(Self { traces })
        }
        #[cfg(not(feature = "opentelemetry"))]
        {
            let _ = subscriber.try_init();
            Ok(Self {})
        }
    }

    /// Sends what has not been sent yet.
    fn end(self) {
        #[cfg(feature = "opentelemetry")]
        if let Some(traces) = self.traces
            && let Err(error) = traces.shutdown_with_timeout(std::time::Duration::from_secs(2))
        {
            tracing::warn!("cannot send the last traces: {error}");
        }
    }
}

fn filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let mut filter = match level {
        // Failures on the way to the API server are reported by the caller, with the cause.
        "info" => EnvFilter::new("info,kube=warn,kube_client::client::builder=off,aws_config=error"),
        "debug" => EnvFilter::new(
            "debug,hyper=info,hyper_util=info,h2=info,rustls=info,tower=info,aws=info,kube_client=info,aws_smithy_runtime=info,aws_smithy_runtime_api=info",
        ),
        other => EnvFilter::try_new(other)?,
    };
    for directive in QUIET {
        filter = filter.add_directive(directive.parse()?);
    }
    // Lines say what they are about; the spans are for traces.
    Ok(filter.add_directive(format!("{}=off", crate::TRACES).parse()?))
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupted = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => {
            tokio::select! { _ = interrupted => {}, _ = terminated.recv() => {} }
        }
        Err(_) => {
            let _ = interrupted.await;
        }
    }
    tracing::info!("asked to stop");
}
