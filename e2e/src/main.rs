//! The lab's program: `demo` shows the controller at work, `lab` only starts what it works with, `traffic` measures what
//! clients see of changes, `latency` how soon the controller acts while it has much to do.

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, clippy::disallowed_methods, reason = "an error and the log go to standard error")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use e2e::lab::controller::SUBCOMMAND;
use e2e::lab::processes::{GUARD, guard};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(about = "albatross against a real Kubernetes control plane and an AWS emulator, all on this machine")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the lab and the controller, apply `examples/`, show the load balancers that come of it, and ask them
    Demo(e2e::demo::Arguments),
    /// Start the lab only: a cluster with an AWS account behind it, for a controller or a suite of tests that you run yourself
    Lab(e2e::demo::LabArguments),
    /// Change things under load, and count the requests that are lost or wrongly answered
    Traffic(e2e::traffic::Arguments),
    /// Measure how soon the controller deregisters targets and opens readiness gates while it has much to do
    Latency(e2e::latency::Arguments),
    #[command(name = GUARD, hide = true)]
    Guard { directory: PathBuf },
}

fn main() -> ExitCode {
    // The lab starts this same program as the controller, so that there is one thing to build.
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == SUBCOMMAND) {
        let name = OsString::from(SUBCOMMAND);
        return albatross_main(std::iter::once(name).chain(arguments));
    }
    let arguments = Arguments::parse();
    if let Command::Guard { directory } = &arguments.command {
        guard(directory);
        return ExitCode::SUCCESS;
    }
    match run(&arguments.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The controller's own program.
fn albatross_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    albatross::cli::run(arguments)
}

/// Returns false if the command did what it is for and found a failure.
fn run(command: &Command) -> Result<bool> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("e2e=info,albatross_fabric=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .with_level(false)
        .init();
    let runtime = tokio::runtime::Runtime::new()?;
    let program = std::env::current_exe()?;
    runtime.block_on(async {
        match command {
            Command::Demo(arguments) => e2e::demo::run(&program, arguments).await.map(|()| true),
            Command::Lab(arguments) => e2e::demo::lab(&program, arguments).await.map(|()| true),
            Command::Traffic(arguments) => e2e::traffic::run(&program, arguments).await,
            Command::Latency(arguments) => e2e::latency::run(&program, arguments).await,
            Command::Guard { .. } => Ok(true),
        }
    })
}
