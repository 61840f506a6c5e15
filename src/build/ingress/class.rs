//! Which Ingresses are ours, by their class (reference: ingress §1.1).

use crate::{
    build::{BuildConfig, Code, Diagnostic, Severity},
    model::{ObjectName, ObjectReference},
    snapshot::{Ingress, IngressClass, Snapshot},
};

/// `spec.controller` of the classes that are ours.
pub const CONTROLLER: &str = "ingress.k8s.aws/alb";
/// The annotation that named the class before `spec.ingressClassName` did.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Whose an Ingress is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Ours.
    Ours,
    /// Another controller's.
    Foreign,
    /// Its class says something that cannot be followed: whatever it has stays as it is.
    Broken(Box<Diagnostic>),
}

/// Tells whose an Ingress is.
#[must_use]
pub fn ownership(ingress: &Ingress, snapshot: &Snapshot, config: &BuildConfig) -> Ownership {
    if let Some(class) = ingress.annotations.get(CLASS_ANNOTATION) {
        let ours =
            *class == config.ingress_class || (config.ingress_class.is_empty() && matches!(class.as_str(), "alb" | ""));
        return if ours { Ownership::Ours } else { Ownership::Foreign };
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
                (None, _) if config.ingress_class.is_empty() => return Ownership::Ours,
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
    match &class.parameters {
        Some((kind, name)) => broken(
            "spec.ingressClassName",
            format!("the IngressClass `{}` has parameters ({kind} `{name}`), which are not built yet", class.name.name),
            "use a class without `spec.parameters`; until then nothing of this Ingress changes",
        ),
        None => Ownership::Ours,
    }
}
