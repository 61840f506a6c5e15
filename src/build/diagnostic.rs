//! What is wrong with an object, where, and what to do about it. The same value feeds events, logs and `albatross plan`.

use std::fmt;

use serde::Serialize;

use crate::model::ObjectReference;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is served; something about it has no effect, or is answered differently than written.
    Warning,
    /// The object cannot be built: what it has in AWS stays as it is.
    Error,
}

/// What kind of mistake it is: stable words, for machines and documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// An annotation that nobody reads.
    UnknownAnnotation,
    /// A known annotation that has no effect yet.
    AnnotationNotBuilt,
    /// Something that concerns identity, access, exposure, membership or matching, and is not built yet.
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
    /// The Secret of an identity provider is not there, says too little, or may not be read.
    MissingSecret,
    /// A backend or a path that an Application Load Balancer cannot have.
    Unsupported,
    /// No subnets for the load balancer.
    Subnets,
    /// More than the account may have on one load balancer.
    Quota,
    /// Members of a group that ask for different things where there can be only one.
    Conflict,
    /// A change that AWS does not take in place and that would cut traffic.
    ReplacementNeeded,
}

/// One finding on one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What kind of mistake.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// The object that has to be changed.
    pub object: ObjectReference,
    /// Annotation key or field path within it.
    pub field: String,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to do.
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
