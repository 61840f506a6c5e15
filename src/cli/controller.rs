//! `albatross controller`

use std::{io::IsTerminal as _, process::ExitCode};

use tracing_subscriber::EnvFilter;

use super::output;
use crate::controller::{self, flags::ControllerFlags};

pub(super) fn run(flags: ControllerFlags) -> ExitCode {
    if let Err(error) = start_logging(&flags) {
        return output::error(&format!(
            "--log-level: {error}; write `info`, `debug` or a filter such as `albatross=debug`"
        ));
    }
    // Two TLS users with two ideas of a default provider would otherwise panic at the first connection.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is installed already");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::error(&format!("cannot start: {error}")),
    };
    let result = runtime.block_on(controller::run(flags, stop_signal()));
    // Watches and servers have nothing to finish.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::error(&error.to_string()),
    }
}

/// What would log requests and answers whole, and with them what Secrets hold: kube's client those that it cannot read, the
/// SDK's orchestrator all of them at `trace`.
const QUIET: [&str; 2] = ["kube_client::client=error", "aws_smithy_runtime::client::orchestrator=debug"];

fn start_logging(flags: &ControllerFlags) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = match flags.log_level.as_str() {
        // What fails on the way to the API server is told by whoever asked, with the cause.
        "info" => EnvFilter::new("info,kube=warn,kube_client::client::builder=off,aws_config=warn"),
        "debug" => EnvFilter::new(
            "debug,hyper=info,hyper_util=info,h2=info,rustls=info,tower=info,aws=info,kube_client=info,aws_smithy_runtime=info,aws_smithy_runtime_api=info",
        ),
        other => EnvFilter::try_new(other)?,
    };
    let mut filter = filter;
    for directive in QUIET {
        filter = filter.add_directive(directive.parse()?);
    }
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(colours);
    // A second subscriber in one process (tests) keeps the first.
    let _ = if flags.log_format == "json" { subscriber.json().try_init() } else { subscriber.try_init() };
    Ok(())
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
