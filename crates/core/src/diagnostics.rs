//! A mistake in an object: its field, message and fix. The same value feeds events, logs and `albatross plan`.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::model::ObjectReference;

/// The severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Only for manifests: something that they do not contain, and how it is planned without it.
    Note,
    /// The object is served; something about it has no effect, or is answered differently than written.
    Warning,
    /// The object cannot be built: what it has in AWS stays as it is.
    Error,
}

/// The kind of a mistake: stable words, for programs and documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// An annotation that the controller does not know.
    UnknownAnnotation,
    /// A known annotation that has no effect yet.
    AnnotationNotBuilt,
    /// A setting that concerns identity, access, exposure, membership or matching, and is not built yet.
    Refused,
    /// A value outside its grammar.
    InvalidValue,
    /// The class of an Ingress is not there, or is there twice as default.
    IngressClass,
    /// A Service that an Ingress names is not there.
    MissingService,
    /// A port that its Service does not have.
    MissingPort,
    /// An action annotation that a backend names is not there.
    MissingAction,
    /// No target group of the name that an action gives.
    MissingTargetGroup,
    /// HTTPS without a certificate.
    MissingCertificate,
    /// The web ACL that an Ingress or its class names is not there.
    MissingWebAcl,
    /// A setting without effect: a flag switches it off, or AWS does not offer it to the account or does not answer.
    NoEffect,
    /// The Secret of an identity provider is not there, says too little, or may not be read.
    MissingSecret,
    /// A backend or a path that an Application Load Balancer cannot have.
    Unsupported,
    /// No subnets for the load balancer.
    Subnets,
    /// More than the account may have on one load balancer.
    Quota,
    /// Members of a group request different values where there can be only one.
    Conflict,
    /// A change that AWS does not take in place and that would cut traffic.
    ReplacementNeeded,
}

/// A finding on one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Diagnostic {
    /// The kind of the mistake.
    pub code: Code,
    /// The severity.
    pub severity: Severity,
    /// The object that has to be changed.
    pub object: ObjectReference,
    /// Annotation key or field path within it.
    pub field: String,
    /// The message, without a full stop.
    pub message: String,
    /// The fix.
    pub fix: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.message.contains(&self.field) {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.fix.is_empty() {
            write!(f, "; {}", self.fix)?;
        }
        Ok(())
    }
}

/// The most diagnostics of one severity reported on one object.
const MAX_REPORTED: usize = 10;

/// Returns what of the diagnostics is reported on the objects: at most ten errors and ten warnings an object, in their order, and then
/// one that says how many more there are.
#[must_use]
pub fn capped(diagnostics: &[Diagnostic]) -> Vec<Diagnostic> {
    let mut counts: BTreeMap<(&ObjectReference, Severity), usize> = BTreeMap::new();
    let mut reported = Vec::new();
    for diagnostic in diagnostics {
        let count = counts.entry((&diagnostic.object, diagnostic.severity)).or_default();
        *count += 1;
        if *count <= MAX_REPORTED {
            reported.push(diagnostic.clone());
        }
    }
    for ((object, severity), count) in counts.into_iter().filter(|(_, count)| *count > MAX_REPORTED) {
        let last = diagnostics.iter().rfind(|d| d.object == *object && d.severity == severity);
        let Some(Diagnostic { code, .. }) = last else { continue };
        let what = match (severity, count - MAX_REPORTED) {
            (Severity::Warning, 1) => "warning",
            (Severity::Warning, _) => "warnings",
            (Severity::Error, 1) => "error",
            (Severity::Error, _) => "errors",
            (Severity::Note, 1) => "note",
            (Severity::Note, _) => "notes",
        };
        reported.push(Diagnostic {
            code: *code,
            severity,
            object: object.clone(),
            field: "metadata".to_owned(),
            message: format!("and {} more {what}", count - MAX_REPORTED),
            fix: "run `albatross plan` on the manifest to see all".to_owned(),
        });
    }
    reported
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectName;

    fn diagnostic(object: &str, severity: Severity, field: usize) -> Diagnostic {
        Diagnostic {
            code: Code::UnknownAnnotation,
            severity,
            object: ObjectReference::ingress(&ObjectName::new("shop", object)),
            field: format!("key-{field}"),
            message: "it has no effect".to_owned(),
            fix: "remove it".to_owned(),
        }
    }

    #[test]
    fn ten_warnings_an_object_are_reported_and_the_number_of_the_others() {
        let web = (0..8_700).map(|field| diagnostic("web", Severity::Warning, field));
        let api = (0..11).map(|field| diagnostic("api", Severity::Warning, field));
        let other = [diagnostic("web", Severity::Error, 1), diagnostic("own", Severity::Warning, 1)];
        let all: Vec<Diagnostic> = web.chain(api).chain(other.clone()).collect();
        let reported = capped(&all);
        let mut expected = all[..10].to_vec();
        expected.extend(all[8_700..8_710].iter().cloned());
        expected.extend(other);
        assert_eq!(reported[..22], expected);
        let more: Vec<String> = reported[22..].iter().map(|d| format!("{}: {d}", d.object)).collect();
        assert_eq!(
            more,
            [
                "Ingress shop/api: metadata: and 1 more warning; run `albatross plan` on the manifest to see all",
                "Ingress shop/web: metadata: and 8690 more warnings; run `albatross plan` on the manifest to see all",
            ]
        );
        // Ten are no reason to count.
        assert_eq!(capped(&all[..10]), all[..10]);
    }
}
