//! Which Ingresses are ours, by their class (reference: ingress §1.1).

use crate::{
    api::{crd, selector::selects},
    build::{BuildConfig, Code, Diagnostic, Severity},
    model::{ObjectName, ObjectReference},
    snapshot::{ClassParameters, Ingress, IngressClass, IngressClassParams, Snapshot},
};

/// `spec.controller` of the classes that are ours.
pub const CONTROLLER: &str = "ingress.k8s.aws/alb";
/// The annotation that named the class before `spec.ingressClassName` did.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Whose an Ingress is.
#[derive(Clone, Debug, PartialEq)]
pub enum Ownership<'a> {
    /// Ours, with the settings of its class where that has any.
    Ours(Option<&'a IngressClassParams>),
    /// Another controller's.
    Foreign,
    /// Its class says something that cannot be followed: whatever it has stays as it is.
    Broken(Box<Diagnostic>),
}

/// The settings that the class of an Ingress of ours has.
#[must_use]
pub fn params_of<'a>(
    ingress: &Ingress,
    snapshot: &'a Snapshot,
    config: &BuildConfig,
) -> Option<&'a IngressClassParams> {
    match ownership(ingress, snapshot, config) {
        Ownership::Ours(params) => params,
        Ownership::Foreign | Ownership::Broken(_) => None,
    }
}

/// The settings that an Ingress may have by its class, whatever else stands against it.
pub(super) fn params_named<'a>(ingress: &Ingress, snapshot: &'a Snapshot) -> Option<&'a IngressClassParams> {
    if ingress.annotations.contains_key(CLASS_ANNOTATION) {
        return None;
    }
    let class = match &ingress.class {
        Some(name) => snapshot.ingress_classes.get(&ObjectName::new("", name)),
        None => snapshot.ingress_classes.values().find(|class| class.default),
    };
    let parameters = class?.parameters.as_ref()?;
    snapshot.ingress_class_params.get(&ObjectName::new("", &parameters.name))
}

/// Tells whose an Ingress is.
#[must_use]
pub fn ownership<'a>(ingress: &Ingress, snapshot: &'a Snapshot, config: &BuildConfig) -> Ownership<'a> {
    if let Some(class) = ingress.annotations.get(CLASS_ANNOTATION) {
        let ours =
            *class == config.ingress_class || (config.ingress_class.is_empty() && matches!(class.as_str(), "alb" | ""));
        return if ours { Ownership::Ours(None) } else { Ownership::Foreign };
    }
    let broken = |field: &str, message: String, fix: &str| {
        Ownership::Broken(Box::new(Diagnostic {
            code: Code::IngressClass,
            severity: Severity::Error,
            object: ObjectReference::ingress(&ingress.name),
            field: field.to_owned(),
            message,
            fix: fix.to_owned(),
        }))
    };
    let class: &IngressClass = match &ingress.class {
        Some(name) => match snapshot.ingress_classes.get(&ObjectName::new("", name)) {
            Some(class) => class,
            None => {
                return broken(
                    "spec.ingressClassName",
                    format!("the IngressClass `{name}` does not exist"),
                    "create it, or name another class",
                );
            }
        },
        None => {
            let mut defaults = snapshot.ingress_classes.values().filter(|class| class.default);
            match (defaults.next(), defaults.next()) {
                (None, _) if config.ingress_class.is_empty() => return Ownership::Ours(None),
                (None, _) => return Ownership::Foreign,
                (Some(class), None) => class,
                (Some(first), Some(second)) => {
                    return broken(
                        "spec.ingressClassName",
                        format!(
                            "no class is named, and several IngressClasses are the default: `{}` and `{}`",
                            first.name.name, second.name.name
                        ),
                        "name the class, or take the annotation `ingressclass.kubernetes.io/is-default-class` from all but one",
                    );
                }
            }
        }
    };
    if class.controller != CONTROLLER {
        return Ownership::Foreign;
    }
    let Some(parameters) = &class.parameters else { return Ownership::Ours(None) };
    match params(ingress, class, parameters, snapshot) {
        Ok(params) => Ownership::Ours(Some(params)),
        Err((message, fix)) => broken("spec.ingressClassName", message, &fix),
    }
}

/// The settings that a class names, if it lets an Ingress of this namespace have them; or what is wrong, and what to do.
fn params<'a>(
    ingress: &Ingress,
    class: &IngressClass,
    parameters: &ClassParameters,
    snapshot: &'a Snapshot,
) -> Result<&'a IngressClassParams, (String, String)> {
    let ClassParameters { group, kind, name } = parameters;
    let class = &class.name.name;
    if group != crd::GROUP || kind != crd::IngressClassParams::KIND {
        let kind = if group.is_empty() { kind.clone() } else { format!("{kind}.{group}") };
        return Err((
            format!("the IngressClass `{class}` has parameters of a kind that is not known: {kind} `{name}`"),
            format!("name an {} of {} in its `spec.parameters`", crd::IngressClassParams::KIND, crd::GROUP),
        ));
    }
    let Some(params) = snapshot.ingress_class_params.get(&ObjectName::new("", name)) else {
        return Err(match snapshot.unreadable.get("IngressClassParams") {
            Some(why) => (
                format!(
                    "the IngressClass `{class}` has parameters (IngressClassParams `{name}`), which cannot be read"
                ),
                why.clone(),
            ),
            None => (
                format!("the IngressClass `{class}` has parameters (IngressClassParams `{name}`), which do not exist"),
                "create them, or name another class".to_owned(),
            ),
        });
    };
    let Some(selector) = &params.spec.namespace_selector else { return Ok(params) };
    let namespace = &ingress.name.namespace;
    let Some(labels) = snapshot.namespaces.get(&ObjectName::new("", namespace)).map(|namespace| &namespace.labels)
    else {
        let message = format!(
            "IngressClassParams `{name}` choose namespaces by their labels, and those of the Namespace `{namespace}` are not known"
        );
        let fix = snapshot.unreadable.get("Namespace").cloned();
        return Err((message, fix.unwrap_or_else(|| "add the Namespace to the manifests".to_owned())));
    };
    match selects(selector, labels) {
        Ok(true) => Ok(params),
        Ok(false) => Err((
            format!(
                "the IngressClass `{class}` is not for the namespace `{namespace}`: the `spec.namespaceSelector` of IngressClassParams `{name}` does not choose its labels"
            ),
            "name another class, or have whoever keeps the class let the namespace in".to_owned(),
        )),
        Err(error) => Err((
            format!("the `spec.namespaceSelector` of IngressClassParams `{name}` cannot be followed: {error}"),
            "correct the IngressClassParams".to_owned(),
        )),
    }
}
