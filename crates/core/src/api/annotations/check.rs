//! The diagnostics about an object's annotations that follow only from their keys: unknown ones, and ones whose effect is
//! not built.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::registry::{ANNOTATIONS, Annotation, INGRESS_PREFIX, ObjectKind, SERVICE_PREFIX, Status, find};
use super::{choice, shorten};

/// A finding about one annotation of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The full key, as it is written.
    pub key: String,
    pub kind: FindingKind,
    pub message: String,
    pub fix: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindingKind {
    /// The controller does not read the annotation on this object. `nearest` is the key that was probably meant.
    Unknown { nearest: Option<String> },
    /// The annotation is known, not built (or of a service that has ended), and ignored.
    Later,
    /// The annotation is known and not built (or not for this value), and the object is refused because of it.
    Refused,
}

/// The similarity, by Jaro and Winkler's measure, from which a name counts as a misspelling of another.
const ALIKE: f64 = 0.88;
/// Names longer than a key may be are compared with nothing.
const LONGEST_NAME: usize = 317;

/// For how many unknown keys of one object the nearest known one is looked for.
const MAX_COMPARED: usize = 50;

/// Looks at the keys of an object's annotations, in their order. On an Ingress these are the keys under the controller's
/// prefix and under prefixes that look like it; on a Service the same, and keys
/// `service.beta.kubernetes.io/aws-load-balancer-*` that are unknown. All other prefixes belong to others.
pub fn check(kind: ObjectKind, annotations: &BTreeMap<String, String>) -> Vec<Finding> {
    let mut compared = 0;
    annotations.iter().filter_map(|(key, value)| check_one(kind, key, value, &mut compared)).collect()
}

/// `compared` counts the keys that have been compared with the known ones.
fn check_one(kind: ObjectKind, key: &str, value: &str, compared: &mut usize) -> Option<Finding> {
    let finding = |kind, message, fix| Some(Finding { key: key.into(), kind, message, fix });
    if let Some(annotation) = find(key) {
        if !annotation.is_read_on(kind) {
            // Annotations of Services have no effect on an Ingress, but other tools may use them there.
            if annotation.key.prefix() != INGRESS_PREFIX {
                return None;
            }
            return finding(
                FindingKind::Unknown { nearest: None },
                format!("annotation `{key}` has no effect on a {kind}: it is read on an Ingress"),
                format!("set it on the Ingress, or remove it from the {kind}"),
            );
        }
        return match annotation.status {
            // Annotations of these that are not built are reported where the Service is built.
            _ if annotation.key.prefix() == SERVICE_PREFIX => None,
            status if status.refuses(value) => {
                let (kind, message, fix) = refused(key, value, annotation);
                finding(kind, message, fix)
            }
            Status::Later => finding(
                FindingKind::Later,
                format!("annotation `{key}` is known but its effect is not built yet; it is ignored"),
                "leave it if the object can do without its effect for now, otherwise do not rely on it".into(),
            ),
            Status::Ended { service, fix } => finding(
                FindingKind::Later,
                format!("annotation `{key}` has no effect: AWS has ended {service}, so that it protects nothing"),
                fix.into(),
            ),
            _ => None,
        };
    }
    let (prefix, name) = ours(kind, key)?;
    *compared += 1;
    let nearest = if *compared <= MAX_COMPARED { nearest(kind, prefix, name) } else { None };
    let problem = if key.starts_with(prefix) {
        String::new()
    } else {
        format!(": its prefix is not `{}`", prefix.trim_end_matches('/'))
    };
    let fix = match &nearest {
        Some(nearest) => format!("write `{nearest}`, if that is what is meant"),
        None => "look it up in the list of annotations, or remove it".into(),
    };
    let message = format!("annotation `{}` is not known and has no effect{problem}", shorten(key));
    finding(FindingKind::Unknown { nearest }, message, fix)
}

fn refused(key: &str, value: &str, annotation: &Annotation) -> (FindingKind, String, String) {
    let consequence = "the object is refused, because without it access or routing would not be what it asks for";
    let (message, fix) = match annotation.status {
        Status::BuiltFor(values) => {
            // The spellings of a boolean are one value to a reader.
            let values = choice(if values == super::values::FALSE { &["false"] } else { values });
            let message = format!(
                "annotation `{key}` with the value `{}` is known but not built yet, only {values} is; {consequence}",
                shorten(value)
            );
            (message, format!("write {values} or remove the annotation, if the object may be served like that"))
        }
        _ => (
            format!("annotation `{key}` is known but not built yet; {consequence}"),
            "remove the annotation, if the object may be served without it".into(),
        ),
    };
    (FindingKind::Refused, message, fix)
}

/// Returns the prefix that a key has or probably is meant to have, if that is one of the controller's prefixes, and the name
/// after it.
fn ours(kind: ObjectKind, key: &str) -> Option<(&'static str, &str)> {
    let (prefix, name) = key.split_once('/')?;
    let prefix = prefix.to_ascii_lowercase();
    let own = INGRESS_PREFIX.trim_end_matches('/');
    let looks_alike = || {
        let begins = ["alb.", "alb-", "alb_", "albingress"].iter().any(|start| prefix.starts_with(start));
        let belongs = prefix.contains("ingress") && (prefix.contains("kubernetes") || prefix.contains("k8s"));
        (begins && belongs)
            || (prefix.starts_with('a')
                && prefix.len() <= 2 * own.len()
                && strsim::damerau_levenshtein(&prefix, own) <= 2)
    };
    if prefix == own || looks_alike() {
        return Some((INGRESS_PREFIX, name));
    }
    let of_service = kind == ObjectKind::Service && prefix == SERVICE_PREFIX.trim_end_matches('/');
    (of_service && name.to_ascii_lowercase().starts_with("aws-load-balancer-")).then_some((SERVICE_PREFIX, name))
}

/// Returns the known key that is most similar to a name under one of the controller's prefixes, if it is similar enough.
/// Names with a parameter are compared without it.
fn nearest(kind: ObjectKind, prefix: &str, name: &str) -> Option<String> {
    let name = name.trim().trim_matches('/');
    if name.len() > LONGEST_NAME {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    ANNOTATIONS
        .iter()
        .filter(|annotation| annotation.key.prefix() == prefix && annotation.is_read_on(kind))
        .map(|annotation| {
            let key = annotation.key;
            let compared = match key.parameter() {
                Some(_) => lower.split_once('.').map_or(lower.as_str(), |(stem, _)| stem),
                None => &lower,
            };
            (similarity(compared, key.name()), Reverse(strsim::damerau_levenshtein(compared, key.name())), key)
        })
        .filter(|(similarity, ..)| *similarity >= ALIKE)
        // Of equals the first one in the list.
        .rev()
        .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
        .map(|(.., key)| match key.parameter() {
            None => key.to_string(),
            Some(parameter) => {
                let written = name.split_once('.').map(|(_, parameter)| parameter);
                let upper = written.map(str::to_ascii_uppercase);
                match [written, upper.as_deref()].into_iter().flatten().find(|written| parameter.accepts(written)) {
                    Some(written) => format!("{prefix}{}.{written}", key.name()),
                    None => key.to_string(),
                }
            }
        })
}

/// From 0 to 1. A name that is the other one with something before or after it is alike even where much is missing.
fn similarity(name: &str, known: &str) -> f64 {
    let measured = strsim::jaro_winkler(name, known);
    let shorter = name.len().min(known.len());
    if shorter >= 6 && (name.ends_with(known) || known.ends_with(name)) { measured.max(0.92) } else { measured }
}

#[cfg(test)]
mod tests;
