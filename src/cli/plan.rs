//! `albatross plan`: the controller's pipeline from manifests to a plan, without AWS.

#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use serde::{Serialize, Serializer, ser::SerializeSeq as _};

use super::output;
use crate::controller::runtime::flags::BuildFlags;
use albatross_core::{
    desired::{
        self, BuildConfig, Built,
        sources::ingress::class::{CLASS_ANNOTATION, CONTROLLER},
    },
    diagnostics::{Code, Diagnostic, Severity},
    facts::Facts,
    model::{ObjectKind, ObjectName, ObjectReference, ObservedStack, Value},
    plan::{self, Plan},
    snapshot::{self, Backend, IngressClass, Loaded, Problem, Scope, Snapshot, SourceLocation, placeholder},
    targets::role::{InvalidRole, Role},
};

#[derive(Args)]
#[command(after_help = "\
Exit status: 0 when everything is planned or is not the controller's; 1 when something cannot be read (standard error says \
which, and the others are planned), is written twice, or would be refused; 2 when the command line is wrong.")]
pub(super) struct PlanArguments {
    /// Manifests: files, directories with what is below them, or `-` for standard input
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Name of the cluster that they are for; without it, names are known after apply
    #[arg(long, env = "CLUSTER_NAME", default_value = "")]
    cluster_name: String,
    /// The manifests are the whole cluster: an object that is in none of them does not exist
    #[arg(long)]
    complete: bool,
    #[command(flatten)]
    build: BuildFlags,
    /// Output: text for people, or JSON
    #[arg(long, short, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

impl PlanArguments {
    fn scope(&self) -> Scope {
        if self.complete { Scope::CompleteFiles } else { Scope::Files }
    }
}

/// The result for one load balancer, or for one object that gets none.
#[derive(Serialize)]
struct StackPlan {
    /// The object.
    object: String,
    /// The file and line of the object; absent of a group of Ingresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<SourceLocation>,
    group: String,
    plan: Option<Plan>,
    diagnostics: Vec<Diagnostic>,
    /// The reason why the controller does not serve the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_planned: Option<String>,
}

impl StackPlan {
    /// Returns the object with its place in the files.
    fn heading(&self) -> String {
        match &self.place {
            Some(place) => format!("{} ({place})", self.object),
            None => self.object.clone(),
        }
    }
}

pub(super) fn run(arguments: &PlanArguments) -> ExitCode {
    let config = match arguments.build.config(&arguments.cluster_name, Value::AfterApply("the cluster's VPC")) {
        Ok(config) => config,
        Err(error) => return output::wrong_usage(&error.to_string()),
    };
    for gate in arguments.build.gates_without_effect() {
        output::remark(&format!("{gate} has no effect"));
    }
    let loaded = snapshot::from_paths(&arguments.paths, arguments.scope());
    for problem in &loaded.problems {
        output::remark(&format!("error: {problem}"));
    }
    output::streamed(|out| write(out, loaded, &config, arguments.output == "json"))
}

/// Writes the plans of all that was read, one after the other, and returns true if everything could be read and planned.
fn write(out: &mut dyn Write, loaded: Loaded, config: &BuildConfig, json: bool) -> io::Result<bool> {
    let Loaded { mut snapshot, places, other_kinds, problems } = loaded;
    let notes: Vec<String> = assume_class(&mut snapshot, config).into_iter().collect();
    let run = Run { snapshot: &snapshot, config, places: &places, well: Cell::new(problems.is_empty()) };
    if json {
        let report = Report { plans: &run, notes: &notes, problems: &problems, passed_over: &other_kinds };
        serde_json::to_writer_pretty(&mut *out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(run.well.get());
    }
    let (mut planned, mut left_alone) = (0_usize, 0_usize);
    run.each(|plan| {
        if let Some(why) = &plan.not_planned {
            if planned == 0 && left_alone == 0 {
                writeln!(out, "{}\n", run.nothing(&problems, true))?;
            }
            if left_alone == 0 {
                writeln!(out, "Not planned:")?;
            }
            left_alone += 1;
            return writeln!(out, "  {}: {why}", plan.heading());
        }
        planned += 1;
        write_plan(out, &plan)
    })?;
    if planned + left_alone == 0 {
        writeln!(out, "{}", run.nothing(&problems, false))?;
    }
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    let served = |binding: &&snapshot::TargetGroupBinding| Role::of(&binding.spec).is_ok();
    let bindings = snapshot.target_group_bindings.values().filter(served).count();
    if bindings > 0 {
        writeln!(out, "TargetGroupBindings: {bindings}; the controller registers their targets, which no plan shows.")?;
    }
    let kinds: Vec<String> = other_kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if !kinds.is_empty() {
        writeln!(out, "Skipped: {}.", kinds.join(", "))?;
    }
    Ok(run.well.get())
}

/// Adds the class of the controller, which is usually installed with it and is in no manifest; and returns what that leaves
/// open, where an Ingress names it.
fn assume_class(snapshot: &mut Snapshot, config: &BuildConfig) -> Option<String> {
    let name = config.ingress_class.as_str();
    let class = ObjectName::new("", name);
    if name.is_empty() || snapshot.scope == Scope::CompleteFiles || snapshot.ingress_classes.contains_key(&class) {
        return None;
    }
    snapshot.apply(IngressClass { name: class, controller: CONTROLLER.to_owned(), parameters: None, default: false });
    let names_it = |ingress: &snapshot::Ingress| {
        ingress.class.as_deref() == Some(name) && !ingress.annotations.contains_key(CLASS_ANNOTATION)
    };
    snapshot.ingresses.values().any(|ingress| names_it(ingress) && !ingress.deleting).then(|| {
        format!(
            "the IngressClass `{name}` is in none of the files; it is planned without IngressClassParams; add its file"
        )
    })
}

/// All that is printed as JSON.
#[derive(Serialize)]
struct Report<'a> {
    plans: &'a Run<'a>,
    notes: &'a [String],
    problems: &'a [Problem],
    /// The number of objects of other kinds.
    passed_over: &'a BTreeMap<String, usize>,
}

/// The plans of what was read, made one after the other.
struct Run<'a> {
    snapshot: &'a Snapshot,
    config: &'a BuildConfig,
    places: &'a BTreeMap<(&'static str, ObjectName), SourceLocation>,
    /// True if everything until now could be read and planned.
    well: Cell<bool>,
}

impl Serialize for Run<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut plans = serializer.serialize_seq(None)?;
        self.each(|plan| plans.serialize_element(&plan))?;
        plans.end()
    }
}

impl Run<'_> {
    /// Returns the sentence for manifests of which nothing is planned, with or without Ingresses and Services among them.
    fn nothing(&self, problems: &[Problem], found: bool) -> String {
        if !problems.is_empty() {
            return "No changes are planned until the errors are fixed.".to_owned();
        }
        let ours = if found { " for this controller" } else { "" };
        let what = if self.snapshot.target_group_bindings.is_empty() { "nothing" } else { "no load balancer" };
        format!("No Ingress and no Service{ours} in these manifests: {what} would be created.")
    }

    /// Calls back with the plan of each group and Service, with each binding that the controller refuses, and then with each
    /// Ingress and Service that the controller does not serve.
    fn each<E>(&self, mut done: impl FnMut(StackPlan) -> Result<(), E>) -> Result<(), E> {
        let Self { snapshot, config, .. } = *self;
        let mut planned: BTreeSet<ObjectReference> = BTreeSet::new();
        for (stack, membership) in desired::stacks(snapshot, config) {
            if membership.members.is_empty() && membership.broken.is_empty() {
                continue;
            }
            let built = desired::build(snapshot, config, &Facts::offline(), &stack, &membership);
            let broken = membership.broken.iter().map(|diagnostic| diagnostic.object.name.clone());
            let concerned: BTreeSet<ObjectName> = membership.members.iter().cloned().chain(broken).collect();
            let diagnostics = [membership.broken, built.diagnostics.clone()].concat();
            let values: Vec<_> = concerned.iter().flat_map(|name| values_of(snapshot, &stack.member(name))).collect();
            done(self.planned(stack.object(), stack.to_string(), Built { diagnostics, ..built }, &values))?;
            planned.extend(concerned.iter().map(|name| stack.member(name)));
        }
        for binding in snapshot.target_group_bindings.values() {
            if let Err(error) = Role::of(&binding.spec) {
                done(self.refused_binding(&binding.name, &error))?;
            }
        }
        for (object, why) in desired::unplanned(snapshot, config, &planned) {
            done(self.left_alone(&object, why, &values_of(snapshot, &object)))?;
        }
        Ok(())
    }

    fn place(&self, object: &ObjectReference) -> Option<SourceLocation> {
        self.places.get(&(object.kind.as_str(), object.name.clone())).cloned()
    }

    fn planned(&self, object: ObjectReference, group: String, built: Built, values: &[Written<'_>]) -> StackPlan {
        let mut diagnostics = built.diagnostics;
        name_placeholders(&mut diagnostics, values);
        let nothing = ObservedStack { certificates: Some(Vec::new()), ..ObservedStack::default() };
        let plan = built.stack.and_then(|stack| plan::plan(&stack, &nothing).ready());
        self.judged(&object, group, plan, diagnostics)
    }

    fn refused_binding(&self, name: &ObjectName, error: &InvalidRole) -> StackPlan {
        let object = ObjectReference { kind: ObjectKind::TargetGroupBinding, name: name.clone() };
        let diagnostic = Diagnostic {
            code: Code::InvalidValue,
            severity: Severity::Error,
            object: object.clone(),
            field: format!("spec.{}", error.field()),
            message: error.to_string(),
            fix: error.fix().to_owned(),
        };
        self.judged(&object, name.to_string(), None, vec![diagnostic])
    }

    fn judged(
        &self,
        object: &ObjectReference,
        group: String,
        plan: Option<Plan>,
        diagnostics: Vec<Diagnostic>,
    ) -> StackPlan {
        if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
            self.well.set(false);
        }
        let place = self.place(object);
        StackPlan { object: object.to_string(), place, group, plan, diagnostics, not_planned: None }
    }

    fn left_alone(&self, object: &ObjectReference, why: String, values: &[Written<'_>]) -> StackPlan {
        let found: BTreeSet<&str> = values.iter().filter_map(|(_, _, value)| placeholder(value)).collect();
        let placeholders = found.iter().map(|found| format!("`{found}` is a placeholder; write its value"));
        StackPlan {
            object: object.to_string(),
            place: self.place(object),
            group: object.name.to_string(),
            plan: None,
            diagnostics: Vec::new(),
            not_planned: Some([why].into_iter().chain(placeholders).collect::<Vec<_>>().join("; ")),
        }
    }
}

/// A value that is written in an object, and where.
type Written<'a> = (ObjectReference, String, &'a str);

fn values_of_annotations<'a>(
    object: &ObjectReference,
    annotations: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = Written<'a>> {
    // The annotation in which `kubectl apply` remembers the object is the object once more.
    let others = annotations.iter().filter(|(key, _)| *key != "kubectl.kubernetes.io/last-applied-configuration");
    others.map(|(key, value)| (object.clone(), key.clone(), value.as_str()))
}

/// Namespace and name.
fn values_of_name<'a>(object: &ObjectReference, name: &'a ObjectName) -> [Written<'a>; 2] {
    [("namespace", &name.namespace), ("name", &name.name)]
        .map(|(field, value)| (object.clone(), format!("metadata.{field}"), value.as_str()))
}

/// Returns the values of an object that often contain placeholders.
fn values_of<'a>(snapshot: &'a Snapshot, object: &ObjectReference) -> Vec<Written<'a>> {
    match object.kind {
        ObjectKind::Ingress => values_of_ingress(snapshot, &object.name),
        ObjectKind::Service => snapshot.services.get(&object.name).map(values_of_service).unwrap_or_default(),
        ObjectKind::IngressClass | ObjectKind::IngressClassParams | ObjectKind::TargetGroupBinding => Vec::new(),
    }
}

/// The values of a Service that often contain placeholders.
fn values_of_service(service: &snapshot::Service) -> Vec<Written<'_>> {
    let object = ObjectReference::service(&service.name);
    let mut values: Vec<Written<'_>> = values_of_annotations(&object, &service.annotations).collect();
    values.extend(values_of_name(&object, &service.name));
    values.push((object.clone(), "spec.type".to_owned(), &service.kind));
    let class = service.load_balancer_class.iter();
    values.extend(class.map(|class| (object.clone(), "spec.loadBalancerClass".to_owned(), class.as_str())));
    values
}

/// The values of an Ingress that often contain placeholders.
fn values_of_ingress<'a>(snapshot: &'a Snapshot, name: &ObjectName) -> Vec<Written<'a>> {
    let Some(ingress) = snapshot.ingresses.get(name) else { return Vec::new() };
    let object = ObjectReference::ingress(name);
    let mut values: Vec<Written<'a>> = values_of_annotations(&object, &ingress.annotations).collect();
    values.extend(values_of_name(&object, &ingress.name));
    values
        .extend(ingress.class.iter().map(|class| (object.clone(), "spec.ingressClassName".to_owned(), class.as_str())));
    if let Some(Backend::Service { name, .. }) = &ingress.default_backend {
        values.push((object.clone(), "spec.defaultBackend.service".to_owned(), name));
    }
    // Which of both is not kept.
    let other_hosts = ingress.hosts.iter().filter(|host| ingress.rules.iter().all(|rule| rule.host != **host));
    values.extend(other_hosts.map(|host| (object.clone(), "spec.rules or spec.tls".to_owned(), host.as_str())));
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
                diagnostic.message = format!("{}; `{found}` is a placeholder", diagnostic.message);
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
                message: format!("`{found}` is a placeholder; it is planned unchanged"),
                fix: "write its value before the manifest is applied".to_owned(),
            });
        }
    }
}

fn write_plan(out: &mut dyn Write, of: &StackPlan) -> io::Result<()> {
    let StackPlan { plan, diagnostics, .. } = of;
    writeln!(out, "{}", of.heading())?;
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
        None => writeln!(out, "  no changes until the errors are fixed")?,
    }
    writeln!(out)
}
