//! The command line. One file a subcommand; [`output`] is the only place that prints.

mod controller;
mod iam_policy;
mod output;
mod plan;
#[cfg(feature = "opentelemetry")]
mod traces;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "albatross",
    version,
    about = "AWS load balancers for Kubernetes: Ingresses become Application Load Balancers",
    args_override_self = true,
    after_help = "Without a subcommand, the flags run the controller, as aws-load-balancer-controller does"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller against a cluster
    Controller(Box<crate::controller::runtime::flags::ControllerFlags>),
    /// Print what manifests would make in AWS; needs neither a cluster nor AWS
    Plan(Box<plan::PlanArguments>),
    /// Print the CustomResourceDefinitions, for `kubectl apply --server-side -f -`
    Crds,
    /// Print the IAM policy for the controller's role: the least that it needs
    IamPolicy(iam_policy::PolicyArguments),
}

/// Runs the program with its arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(with_subcommand(arguments.into_iter().collect())) {
        Ok(arguments) => arguments,
        Err(error) => return output::usage(&error),
    };
    match arguments.command {
        Command::Controller(flags) => controller::run(*flags),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::IamPolicy(arguments) => iam_policy::run(&arguments),
        Command::Crds => match albatross_core::api::crd::yaml::render() {
            Ok(text) => output::data(&text),
            Err(error) => output::error(&error.to_string()),
        },
    }
}

/// Flags without a subcommand mean the controller, so that a Deployment of aws-load-balancer-controller works with this
/// image.
fn with_subcommand(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let first = arguments.get(1).and_then(|first| first.to_str()).unwrap_or_default();
    let about_the_program = ["-h", "--help", "-V", "--version"].contains(&first);
    if first.starts_with('-') && !about_the_program {
        arguments.insert(1, "controller".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(with_subcommand(line.split(' ').map(OsString::from).collect()))
    }

    #[test]
    fn flags_alone_run_the_controller() {
        let line = "albatross --cluster-name=demo --ingress-class=alb --aws-vpc-id=vpc-1 --aws-region=us-west-2";
        assert!(matches!(parsed(line), Ok(Arguments { command: Command::Controller(_) })));
        assert!(matches!(parsed("albatross plan examples"), Ok(Arguments { command: Command::Plan(_) })));
        // aws-load-balancer-controller takes the last of several, and charts append what users set.
        let Ok(Arguments { command: Command::Controller(flags) }) = parsed(&format!("{line} --ingress-class=mine"))
        else {
            panic!("a flag that is given twice is refused");
        };
        assert_eq!(flags.build.ingress_class, "mine");
        assert!(parsed("albatross --version").is_err_and(|e| e.kind() == clap::error::ErrorKind::DisplayVersion));
    }
}
