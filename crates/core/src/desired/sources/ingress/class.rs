//! The choice of albatross's Ingresses, by their class (reference: ingress §1.1).

use std::fmt;

use super::group::{is_held, is_published, meant_for_us};
use crate::{
    api::{crd, selector::selects},
    desired::BuildConfig,
    diagnostics::{Code, Diagnostic, Severity},
    model::{ObjectName, ObjectReference},
    snapshot::{ClassParameters, Ingress, IngressClass, IngressClassParams, Scope, Snapshot},
};

/// `spec.controller` of the classes that the controller serves.
pub const CONTROLLER: &str = "ingress.k8s.aws/alb";
/// The annotation that named the class before `spec.ingressClassName` did.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// The controller that an Ingress belongs to.
#[derive(Clone, Debug, PartialEq)]
pub enum Ownership<'a> {
    /// This controller's, with the settings of its class if it has any.
    Ours(Option<&'a IngressClassParams>),
    /// Another controller's.
    Foreign,
    /// Its class says something that cannot be followed: whatever it has stays as it is.
    Broken(Box<Diagnostic>),
}

/// Returns the settings of the class of an Ingress that the controller serves.
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

/// The settings that an Ingress may have by its class, with any other mistakes.
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

/// The reason why an Ingress is another controller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Foreign<'i, 's> {
    /// By the annotation.
    Annotated(&'i str),
    /// Neither class nor annotation, and no class is the default.
    NoClass,
    /// The class of another controller.
    OfController { class: &'s str, controller: &'s str },
    /// No file has the class, and nothing else in the Ingress is meant for this controller.
    InNoFile(&'i str),
}

impl fmt::Display for Foreign<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Annotated(class) => {
                write!(f, "its annotation `{CLASS_ANNOTATION}` names the class `{class}` of another controller")
            }
            Self::NoClass => {
                f.write_str("it names no class (`spec.ingressClassName`), and no IngressClass is the default")
            }
            Self::OfController { class, controller } => {
                write!(f, "its class `{class}` is of the controller `{controller}`")
            }
            Self::InNoFile(class) => write!(
                f,
                "its class `{class}` is in none of the files, and it has no annotation `alb.ingress.kubernetes.io/…`"
            ),
        }
    }
}

/// The relation of an Ingress to the controller, and the reason.
enum Decision<'i, 's> {
    Ours(Option<&'s IngressClassParams>),
    /// This controller's, as far as the files show.
    OursWithNote(Option<&'s IngressClassParams>, Box<Diagnostic>),
    Foreign(Foreign<'i, 's>),
    Broken(Box<Diagnostic>),
}

/// Returns the controller that an Ingress belongs to.
#[must_use]
pub fn ownership<'a>(ingress: &Ingress, snapshot: &'a Snapshot, config: &BuildConfig) -> Ownership<'a> {
    match decide(ingress, snapshot, config) {
        Decision::Ours(params) | Decision::OursWithNote(params, _) => Ownership::Ours(params),
        Decision::Foreign(_) => Ownership::Foreign,
        Decision::Broken(diagnostic) => Ownership::Broken(diagnostic),
    }
}

/// Returns why the controller does not serve an Ingress, as the end of a sentence; `None` if it does, or if the Ingress is
/// broken.
#[must_use]
pub fn foreign_because(ingress: &Ingress, snapshot: &Snapshot, config: &BuildConfig) -> Option<String> {
    match decide(ingress, snapshot, config) {
        Decision::Foreign(why) => Some(why.to_string()),
        _ => None,
    }
}

/// Returns why nothing is planned for an Ingress that belongs to no stack, as the end of a sentence.
pub(in crate::desired) fn unplanned_because(ingress: &Ingress, snapshot: &Snapshot, config: &BuildConfig) -> String {
    foreign_because(ingress, snapshot, config).unwrap_or_else(|| match ownership(ingress, snapshot, config) {
        Ownership::Broken(mistake) if !ingress.deleting => mistake.to_string(),
        _ => "it is being deleted".to_owned(),
    })
}

/// Reports the parts of an Ingress's class that the files do not contain.
pub(super) fn note(ingress: &Ingress, snapshot: &Snapshot, config: &BuildConfig) -> Option<Diagnostic> {
    match decide(ingress, snapshot, config) {
        Decision::OursWithNote(_, note) => Some(*note),
        _ => None,
    }
}

fn decide<'i, 's>(ingress: &'i Ingress, snapshot: &'s Snapshot, config: &BuildConfig) -> Decision<'i, 's> {
    let files = snapshot.scope == Scope::Files;
    if let Some(class) = ingress.annotations.get(CLASS_ANNOTATION) {
        let ours =
            *class == config.ingress_class || (config.ingress_class.is_empty() && matches!(class.as_str(), "alb" | ""));
        // The controller keeps serving an Ingress that it served before the flag was set: the flag stops only new ones.
        let held = is_published(ingress) && is_held(ingress);
        return match ours {
            true if config.no_class_annotation && !held => Decision::Broken(Box::new(Diagnostic {
                code: Code::Refused,
                severity: Severity::Error,
                object: ObjectReference::ingress(&ingress.name),
                field: CLASS_ANNOTATION.to_owned(),
                message: format!(
                    "the annotation `{CLASS_ANNOTATION}` is switched off (--disable-ingress-class-annotation), so the Ingress is not served"
                ),
                fix: "name the class in spec.ingressClassName and remove the annotation".to_owned(),
            })),
            true => Decision::Ours(None),
            false => Decision::Foreign(Foreign::Annotated(class)),
        };
    }
    let found = |severity: Severity, field: &str, message: String, fix: &str| {
        Box::new(Diagnostic {
            code: Code::IngressClass,
            severity,
            object: ObjectReference::ingress(&ingress.name),
            field: field.to_owned(),
            message,
            fix: fix.to_owned(),
        })
    };
    let broken =
        |field: &str, message: String, fix: &str| Decision::Broken(found(Severity::Error, field, message, fix));
    let note = |params, message: String, fix: &str| {
        Decision::OursWithNote(params, found(Severity::Note, "spec.ingressClassName", message, fix))
    };
    let class: &IngressClass = match &ingress.class {
        Some(name) => match snapshot.ingress_classes.get(&ObjectName::new("", name)) {
            Some(class) => class,
            None if files && meant_for_us(ingress) => {
                let message = format!(
                    "the IngressClass `{name}` is in none of the files; by its annotations the Ingress is planned for this controller"
                );
                return note(
                    None,
                    message,
                    "add the file of the class, and of its IngressClassParams, to include them",
                );
            }
            None if files => return Decision::Foreign(Foreign::InNoFile(name)),
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
                (None, _) if config.ingress_class.is_empty() => return Decision::Ours(None),
                (None, _) => return Decision::Foreign(Foreign::NoClass),
                (Some(class), None) => class,
                (Some(first), Some(second)) => {
                    return broken(
                        "spec.ingressClassName",
                        format!(
                            "no class is named, and several IngressClasses are the default: `{}` and `{}`",
                            first.name.name, second.name.name
                        ),
                        "name the class, or remove the annotation `ingressclass.kubernetes.io/is-default-class` from all but one",
                    );
                }
            }
        }
    };
    if class.controller != CONTROLLER {
        let (class, controller) = (class.name.name.as_str(), class.controller.as_str());
        return Decision::Foreign(Foreign::OfController { class, controller });
    }
    let Some(parameters) = &class.parameters else { return Decision::Ours(None) };
    if files {
        let (class, name) = (&class.name.name, &parameters.name);
        match snapshot.ingress_class_params.get(&ObjectName::new("", name)) {
            None if parameters.group == crd::GROUP => {
                let message = format!(
                    "the IngressClass `{class}` has parameters (IngressClassParams `{name}`), which are in none of the files; it is planned without them"
                );
                return note(None, message, "add their file to include them");
            }
            Some(params)
                if params.spec.namespace_selector.is_some()
                    && !snapshot.namespaces.contains_key(&ObjectName::new("", &ingress.name.namespace)) =>
            {
                let message = format!(
                    "IngressClassParams `{name}` select namespaces by their labels, and the Namespace `{}` is in none of the files; it is planned as if the selector matched",
                    ingress.name.namespace
                );
                return note(Some(params), message, "add the Namespace's file to check its labels");
            }
            _ => {}
        }
    }
    match params(ingress, class, parameters, snapshot) {
        Ok(params) => Decision::Ours(Some(params)),
        Err((message, fix)) => broken("spec.ingressClassName", message, &fix),
    }
}

/// Returns the settings that a class names, if they allow an Ingress of this namespace; or the error and its fix.
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
            "IngressClassParams `{name}` select namespaces by their labels, and those of the Namespace `{namespace}` are not known"
        );
        let fix = snapshot.unreadable.get("Namespace").cloned();
        return Err((message, fix.unwrap_or_else(|| "add the Namespace to the manifests".to_owned())));
    };
    match selects(selector, labels) {
        Ok(true) => Ok(params),
        Ok(false) => Err((
            format!(
                "the IngressClass `{class}` is not for the namespace `{namespace}`: the `spec.namespaceSelector` of IngressClassParams `{name}` does not match its labels"
            ),
            "name another class, or ask the owner of the class to allow this namespace".to_owned(),
        )),
        Err(error) => Err((
            format!("the `spec.namespaceSelector` of IngressClassParams `{name}` cannot be evaluated: {error}"),
            "correct the IngressClassParams".to_owned(),
        )),
    }
}
