//! `albatross plan`: the same road as the controller's, from manifests, against nothing.

use std::{collections::BTreeSet, fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::output;
use crate::{
    build::{
        BuildConfig, Diagnostic, Severity,
        ingress::{self, class::CONTROLLER},
        service,
    },
    facts::Facts,
    model::{ObjectName, ObjectReference, ObservedStack, Scheme, StackId, TargetType, Value, VpcId},
    plan::{self, Plan},
    snapshot::{self, IngressClass, Snapshot},
};

#[derive(Args)]
pub(super) struct PlanArguments {
    /// Manifests: files, directories with what is below them, or `-` for standard input
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Name of the cluster that they are for; without it, names are known after apply
    #[arg(long, env = "CLUSTER_NAME", default_value = "")]
    cluster_name: String,
    /// Value of the annotation kubernetes.io/ingress.class, and name of the class, that is ours
    #[arg(long, env = "INGRESS_CLASS", default_value = "alb")]
    ingress_class: String,
    /// Target type where no annotation says another
    #[arg(long, env = "DEFAULT_TARGET_TYPE", default_value = "instance", value_parser = ["instance", "ip"])]
    default_target_type: String,
    /// Scheme where no annotation says another
    #[arg(long, env = "DEFAULT_LOAD_BALANCER_SCHEME", default_value = "internal", value_parser = ["internal", "internet-facing"])]
    default_load_balancer_scheme: String,
    /// How to print: for people, or as JSON
    #[arg(long, short, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// The plan of one stack.
#[derive(Serialize)]
struct StackPlan {
    /// Of which object.
    object: String,
    group: String,
    plan: Option<Plan>,
    diagnostics: Vec<Diagnostic>,
}

pub(super) fn run(arguments: &PlanArguments) -> ExitCode {
    let loaded = match snapshot::from_paths(&arguments.paths) {
        Ok(loaded) => loaded,
        Err(error) => return output::error(&error.to_string()),
    };
    let plans = plan_all(loaded.snapshot, arguments);
    let text = if arguments.output == "json" {
        match serde_json::to_string_pretty(&plans) {
            Ok(text) => text + "\n",
            Err(error) => return output::error(&error.to_string()),
        }
    } else {
        render(&plans)
    };
    let printed = output::data(&text);
    let failed = plans.iter().flat_map(|p| &p.diagnostics).any(|d| d.severity == Severity::Error);
    if failed { ExitCode::FAILURE } else { printed }
}

fn plan_all(mut snapshot: Snapshot, arguments: &PlanArguments) -> Vec<StackPlan> {
    let config = BuildConfig {
        ingress_class: arguments.ingress_class.clone(),
        default_target_type: TargetType::from_word(&arguments.default_target_type).unwrap_or(TargetType::Instance),
        default_scheme: Scheme::from_word(&arguments.default_load_balancer_scheme).unwrap_or(Scheme::Internal),
        ..BuildConfig::new(arguments.cluster_name.clone(), Value::<VpcId>::AfterApply("the cluster's VPC"))
    };
    // The class is usually installed with the controller and stands in no manifest.
    let class = ObjectName::new("", &arguments.ingress_class);
    if !arguments.ingress_class.is_empty() && !snapshot.ingress_classes.contains_key(&class) {
        let controller = CONTROLLER.to_owned();
        snapshot.apply(IngressClass { name: class, controller, parameters: None, default: false });
    }
    let services = snapshot.services.values().filter(|s| service::ownership(s, &config) == service::Ownership::Ours);
    let services: Vec<StackPlan> = services
        .map(|owner| {
            let built = service::build(&snapshot, &config, &Facts::offline(), &owner.name);
            StackPlan {
                object: ObjectReference::service(&owner.name).to_string(),
                group: owner.name.to_string(),
                plan: built.stack.and_then(|stack| plan::plan(&stack, &ObservedStack::default()).ready()),
                diagnostics: built.diagnostics,
            }
        })
        .collect();
    let groups: BTreeSet<StackId> =
        snapshot.ingresses.values().flat_map(|ingress| ingress::groups_of(ingress, &snapshot)).collect();
    groups
        .into_iter()
        .filter_map(|group| {
            let membership = ingress::membership(&snapshot, &config, &group);
            if membership.members.is_empty() && membership.broken.is_empty() {
                return None;
            }
            let built = ingress::build(&snapshot, &config, &Facts::offline(), &group, &membership);
            Some(StackPlan {
                object: group.object().to_string(),
                group: group.to_string(),
                plan: built.stack.and_then(|stack| plan::plan(&stack, &ObservedStack::default()).ready()),
                diagnostics: [membership.broken, built.diagnostics].concat(),
            })
        })
        .chain(services)
        .collect()
}

fn render(plans: &[StackPlan]) -> String {
    if plans.is_empty() {
        return "No Ingress and no Service of ours in these manifests: nothing would be made.\n".to_owned();
    }
    let mut out = String::new();
    for StackPlan { object, plan, diagnostics, .. } in plans {
        let _ = writeln!(out, "{object}");
        for diagnostic in diagnostics {
            let severity = match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let _ = writeln!(out, "  {severity}: {}: {diagnostic}", diagnostic.object);
        }
        match plan {
            Some(plan) => {
                out.push_str(&plan::render(plan));
                let _ = writeln!(out, "  {}", plan::summary(plan));
            }
            None => out.push_str("  nothing is made until the errors are mended\n"),
        }
        out.push('\n');
    }
    out
}
