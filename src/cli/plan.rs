//! `albatross plan`: the same road as the controller's, from manifests, against nothing.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use serde::{Serialize, Serializer as _, ser::SerializeSeq as _};

use super::output;
use crate::{
    build::{
        BuildConfig, Built, Code, Diagnostic, Severity,
        ingress::{self, class::CONTROLLER},
        service,
    },
    controller::flags::BuildFlags,
    facts::Facts,
    model::{ObjectName, ObjectReference, ObservedStack, StackId, Value},
    plan::{self, Plan},
    snapshot::{self, Backend, IngressClass, Loaded, Snapshot, placeholder},
};

#[derive(Args)]
#[command(after_help = "\
Exit status: 0 when everything is planned or is not the controller's; 1 when a manifest cannot be read (standard error says \
which, and the others are planned) or an object would be refused; 2 when the command line is wrong.")]
pub(super) struct PlanArguments {
    /// Manifests: files, directories with what is below them, or `-` for standard input
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Name of the cluster that they are for; without it, names are known after apply
    #[arg(long, env = "CLUSTER_NAME", default_value = "")]
    cluster_name: String,
    #[command(flatten)]
    build: BuildFlags,
    /// How to print: for people, or as JSON
    #[arg(long, short, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// The result for one load balancer, or for one object that gets none.
#[derive(Serialize)]
struct StackPlan {
    /// Of which object.
    object: String,
    group: String,
    plan: Option<Plan>,
    diagnostics: Vec<Diagnostic>,
    /// Why the controller leaves the object alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_planned: Option<String>,
}

pub(super) fn run(arguments: &PlanArguments) -> ExitCode {
    let config = match arguments.build.config(&arguments.cluster_name, Value::AfterApply("the cluster's VPC")) {
        Ok(config) => config,
        Err(error) => return output::error(&error.to_string()),
    };
    for gate in arguments.build.gates_without_effect() {
        output::remark(&format!("{gate} has no effect"));
    }
    let loaded = match snapshot::from_paths(&arguments.paths) {
        Ok(loaded) => loaded,
        Err(error) => return output::error(&error.to_string()),
    };
    for problem in &loaded.problems {
        output::remark(&format!("error: {problem}"));
    }
    output::streamed(|out| write(out, loaded, &config, arguments.output == "json"))
}

/// Writes the plans of all that was read, one after the other, and returns whether everything could be read and planned.
fn write(out: &mut dyn Write, loaded: Loaded, config: &BuildConfig, json: bool) -> io::Result<bool> {
    let Loaded { mut snapshot, other_kinds, problems } = loaded;
    // The class is usually installed with the controller and stands in no manifest.
    let class = ObjectName::new("", &config.ingress_class);
    if !config.ingress_class.is_empty() && !snapshot.ingress_classes.contains_key(&class) {
        let controller = CONTROLLER.to_owned();
        snapshot.apply(IngressClass { name: class, controller, parameters: None, default: false });
    }
    let mut well = problems.is_empty();
    let mut judge = |plan: &StackPlan| well &= plan.diagnostics.iter().all(|d| d.severity != Severity::Error);
    if json {
        let mut serializer = serde_json::Serializer::pretty(&mut *out);
        let mut plans = serializer.serialize_seq(None)?;
        each(&snapshot, config, |plan| {
            judge(&plan);
            plans.serialize_element(&plan).map_err(io::Error::from)
        })?;
        plans.end()?;
        writeln!(out)?;
        return Ok(well);
    }
    let (mut planned, mut left_alone) = (0_usize, 0_usize);
    each(&snapshot, config, |plan| {
        judge(&plan);
        if let Some(why) = &plan.not_planned {
            if planned == 0 && left_alone == 0 {
                writeln!(out, "No Ingress and no Service of ours in these manifests: nothing would be made.\n")?;
            }
            if left_alone == 0 {
                writeln!(out, "Not planned:")?;
            }
            left_alone += 1;
            return writeln!(out, "  {}: {why}", plan.object);
        }
        planned += 1;
        write_plan(out, &plan)
    })?;
    if planned + left_alone == 0 {
        writeln!(out, "No Ingress and no Service in these manifests: nothing would be made.")?;
        let kinds: Vec<String> = other_kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        if !kinds.is_empty() {
            writeln!(out, "Passed over: {}.", kinds.join(", "))?;
        }
    }
    Ok(well)
}

/// Calls back with the plan of each group and Service, and then with each Ingress and Service that is left alone.
fn each(
    snapshot: &Snapshot,
    config: &BuildConfig,
    mut done: impl FnMut(StackPlan) -> io::Result<()>,
) -> io::Result<()> {
    let mut told: BTreeSet<ObjectName> = BTreeSet::new();
    let mut groups: BTreeMap<StackId, Vec<&snapshot::Ingress>> = BTreeMap::new();
    for ingress in snapshot.ingresses.values() {
        for group in ingress::groups_of(ingress, snapshot) {
            groups.entry(group).or_default().push(ingress);
        }
    }
    for (group, candidates) in groups {
        let membership = ingress::membership_among(candidates, snapshot, config, &group);
        if membership.members.is_empty() && membership.broken.is_empty() {
            continue;
        }
        let built = ingress::build(snapshot, config, &Facts::offline(), &group, &membership);
        let broken = membership.broken.iter().map(|diagnostic| diagnostic.object.name.clone());
        let concerned: BTreeSet<ObjectName> = membership.members.iter().cloned().chain(broken).collect();
        let diagnostics = [membership.broken, built.diagnostics.clone()].concat();
        let values = concerned.iter().flat_map(|name| values_of_ingress(snapshot, name));
        done(planned(group.object(), group.to_string(), Built { diagnostics, ..built }, values.collect()))?;
        told.extend(concerned);
    }
    let ours = |service: &&snapshot::Service| service::ownership(service, config) == service::Ownership::Ours;
    for owner in snapshot.services.values().filter(ours) {
        let built = service::build(snapshot, config, &Facts::offline(), &owner.name);
        let object = ObjectReference::service(&owner.name);
        let values = values_of_annotations(&object, &owner.annotations).collect();
        done(planned(object, owner.name.to_string(), built, values))?;
    }
    let left_alone = |object: ObjectReference, why: String| StackPlan {
        group: object.name.to_string(),
        object: object.to_string(),
        plan: None,
        diagnostics: Vec::new(),
        not_planned: Some(why),
    };
    for ingress in snapshot.ingresses.values().filter(|ingress| !told.contains(&ingress.name)) {
        let why = match ingress::class::foreign_because(ingress, snapshot, config) {
            Some(why) => why,
            None => "it is being deleted".to_owned(),
        };
        done(left_alone(ObjectReference::ingress(&ingress.name), why))?;
    }
    for service in snapshot.services.values() {
        if let Some(why) = service::foreign_because(service, config) {
            done(left_alone(ObjectReference::service(&service.name), why))?;
        }
    }
    Ok(())
}

fn planned(object: ObjectReference, group: String, built: Built, values: Vec<Written<'_>>) -> StackPlan {
    let mut diagnostics = built.diagnostics;
    name_placeholders(&mut diagnostics, &values);
    let plan = built.stack.and_then(|stack| plan::plan(&stack, &ObservedStack::default()).ready());
    StackPlan { object: object.to_string(), group, plan, diagnostics, not_planned: None }
}

/// A value that is written in an object, and where.
type Written<'a> = (ObjectReference, String, &'a str);

fn values_of_annotations<'a>(
    object: &ObjectReference,
    annotations: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = Written<'a>> {
    // What `kubectl apply` remembers there is the object once more.
    let others = annotations.iter().filter(|(key, _)| *key != "kubectl.kubernetes.io/last-applied-configuration");
    others.map(|(key, value)| (object.clone(), key.clone(), value.as_str()))
}

/// The values of an Ingress in which people leave placeholders.
fn values_of_ingress<'a>(snapshot: &'a Snapshot, name: &ObjectName) -> Vec<Written<'a>> {
    let Some(ingress) = snapshot.ingresses.get(name) else { return Vec::new() };
    let object = ObjectReference::ingress(name);
    let mut values: Vec<Written<'a>> = values_of_annotations(&object, &ingress.annotations).collect();
    values
        .extend(ingress.class.iter().map(|class| (object.clone(), "spec.ingressClassName".to_owned(), class.as_str())));
    for rule in &ingress.rules {
        let field = format!("spec.rules[{}]", rule.index);
        values.push((object.clone(), format!("{field}.host"), &rule.host));
        for (index, path) in rule.paths.iter().enumerate() {
            let field = format!("{field}.http.paths[{index}]");
            values.push((object.clone(), format!("{field}.path"), &path.path));
            if let Backend::Service { name, .. } = &path.backend {
                values.push((object.clone(), format!("{field}.backend.service"), name));
            }
        }
    }
    values
}

/// Names the placeholders: in the error that they cause, or else in a note.
fn name_placeholders(diagnostics: &mut Vec<Diagnostic>, values: &[Written<'_>]) {
    for (object, field, value) in values {
        let Some(found) = placeholder(value) else { continue };
        let mut named = false;
        for diagnostic in diagnostics.iter_mut().filter(|d| d.object == *object && d.severity == Severity::Error) {
            if diagnostic.field == *field || diagnostic.message.contains(found) {
                diagnostic.message = format!("{}: `{found}` is a placeholder", diagnostic.message);
                diagnostic.fix = "write its value".to_owned();
                named = true;
            }
        }
        if !named {
            diagnostics.push(Diagnostic {
                code: Code::InvalidValue,
                severity: Severity::Note,
                object: object.clone(),
                field: field.clone(),
                message: format!("`{found}` is a placeholder; it is planned as it stands"),
                fix: "write its value before the manifest is applied".to_owned(),
            });
        }
    }
}

fn write_plan(out: &mut dyn Write, StackPlan { object, plan, diagnostics, .. }: &StackPlan) -> io::Result<()> {
    writeln!(out, "{object}")?;
    for diagnostic in diagnostics {
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        writeln!(out, "  {severity}: {}: {diagnostic}", diagnostic.object)?;
    }
    match plan {
        Some(plan) => {
            out.write_all(plan::render(plan).as_bytes())?;
            writeln!(out, "  {}", plan::summary(plan))?;
        }
        None => writeln!(out, "  nothing is made until the errors are corrected")?,
    }
    writeln!(out)
}
