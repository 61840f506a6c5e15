//! The results that building collects on its way: diagnostics, facts that it needs, facts that it could not get.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexSet;

use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::{
    api::annotations::{self, AnnotationError, FindingKind},
    facts::{Fact, FactQuery, Facts},
    model::{DELETION_PROTECTION, ObjectName, ObjectReference, Stack, Value},
};

/// The result of building.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The desired state. `None` when it cannot be determined: then existing resources stay unchanged.
    pub stack: Option<Stack>,
    /// The diagnostics, errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// The facts that must be known before the stack can be built.
    pub wants: BTreeSet<FactQuery>,
    /// The facts that AWS could not answer right now.
    pub unavailable: Vec<String>,
    /// AWS has answered that a resource which the objects request does not exist, or that it protects one that is to be
    /// deleted. No change in the cluster shows when that ends, so AWS is asked again.
    pub lacking: bool,
    /// Frozen members of a group, which the stack leaves out: their resources stay as they are. The diagnostics say why, or
    /// `unavailable`.
    pub frozen: BTreeSet<ObjectName>,
    /// Objects that the stack treats as not being there; to be proved before anything is answered with 503 for it.
    pub absent: BTreeSet<ObjectReference>,
}

/// A step of building that went wrong; the diagnostics say what.
#[derive(Debug)]
pub(super) struct Failed;

/// Returns the message and the fix for an object that goes while AWS protects its load balancer from deletion.
pub(super) fn protected_in_aws(names: &str, kind: &str) -> (String, &'static str) {
    let message = format!(
        "the load balancer {names} is protected from deletion in AWS (`{DELETION_PROTECTION}`), so it stays, and the {kind} with it"
    );
    let fix = "write `deletion_protection.enabled=false` in the annotation, or switch the protection off in AWS, if the load balancer may be deleted";
    (message, fix)
}

/// The diagnostics and missing facts of a stack that is being built.
#[derive(Debug, Default)]
pub(super) struct DiagnosticSink {
    pub(super) diagnostics: IndexSet<Diagnostic>,
    pub(super) wants: BTreeSet<FactQuery>,
    pub(super) unavailable: Vec<String>,
    pub(super) lacking: bool,
    pub(super) absent: BTreeSet<ObjectReference>,
}

impl DiagnosticSink {
    /// The end of building: the stack counts only where nothing is wrong and nothing is wanted.
    pub(super) fn built(self, stack: Option<Stack>) -> Built {
        let failed = self.diagnostics.iter().any(|d| d.severity == Severity::Error);
        let waiting = !self.wants.is_empty() || !self.unavailable.is_empty();
        Built {
            stack: stack.filter(|_| !failed && !waiting),
            diagnostics: self.diagnostics.into_iter().collect(),
            wants: self.wants,
            unavailable: self.unavailable,
            lacking: self.lacking,
            frozen: BTreeSet::new(),
            absent: self.absent,
        }
    }

    /// The end of building where mistakes concern only frozen members.
    pub(super) fn built_without(self, stack: Option<Stack>, frozen: BTreeSet<ObjectName>) -> Built {
        Built {
            stack: stack.filter(|_| self.wants.is_empty()),
            diagnostics: self.diagnostics.into_iter().collect(),
            wants: self.wants,
            unavailable: self.unavailable,
            lacking: self.lacking,
            frozen,
            absent: self.absent,
        }
    }

    /// Returns the names of the load balancers that keep a stack from going because AWS protects them from deletion, `None` within
    /// where there are none. `None` outside where that has to be read first.
    pub(super) fn protected(&mut self, facts: &Facts) -> Option<Option<String>> {
        if facts.existing.is_none() {
            return Some(None);
        }
        let Some(names) = &facts.protected else {
            self.wants.insert(FactQuery::Protection);
            return None;
        };
        if names.is_empty() {
            return Some(None);
        }
        Some(Some(names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")))
    }

    /// Keeps a diagnostic once, however many ways lead to it.
    pub(super) fn report_diagnostic(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.insert(diagnostic);
    }

    pub(super) fn report(
        &mut self,
        severity: Severity,
        object: ObjectReference,
        code: Code,
        field: &str,
        message: &str,
        fix: &str,
    ) -> Failed {
        let (field, message, fix) = (field.to_owned(), message.to_owned(), fix.to_owned());
        self.report_diagnostic(Diagnostic { code, severity, object, field, message, fix });
        Failed
    }

    /// Reports an invalid value of an annotation. The message has the allowed values, so the fix does not.
    pub(super) fn annotation_error(&mut self, object: ObjectReference, error: &AnnotationError) -> Failed {
        self.report(
            Severity::Error,
            object,
            Code::InvalidValue,
            &error.key,
            &error.to_string(),
            &error.fix.after_allowed(),
        )
    }

    /// Reports annotations that are unknown, not built, or not to be ignored; those fail.
    pub(super) fn check_annotations(
        &mut self,
        object: &ObjectReference,
        kind: annotations::ObjectKind,
        all: &BTreeMap<String, String>,
    ) -> Result<(), Failed> {
        let mut outcome = Ok(());
        for finding in annotations::check(kind, all) {
            let (code, severity) = match finding.kind {
                FindingKind::Unknown { .. } => (Code::UnknownAnnotation, Severity::Warning),
                FindingKind::Later => (Code::AnnotationNotBuilt, Severity::Warning),
                FindingKind::Refused => (Code::Refused, Severity::Error),
            };
            let failed = self.report(severity, object.clone(), code, &finding.key, &finding.message, &finding.fix);
            if severity == Severity::Error {
                outcome = Err(failed);
            }
        }
        outcome
    }

    /// Returns the value of a fact. An unknown one is requested, an unavailable one is recorded, and a missing one is
    /// reported on the object that requests it.
    pub(super) fn resolve<T>(
        &mut self,
        fact: Option<Fact<T>>,
        want: FactQuery,
        object: ObjectReference,
        code: Code,
        field: &str,
    ) -> Result<Value<T>, Failed> {
        match fact {
            Some(Fact::Known(value)) => Ok(Value::Known(value)),
            Some(Fact::AfterApply(why)) => Ok(Value::AfterApply(why)),
            Some(Fact::Absent { message, fix }) => {
                self.lacking = true;
                Err(self.report(Severity::Error, object, code, field, &message, &fix))
            }
            Some(Fact::Unavailable(why)) => {
                if !self.unavailable.contains(&why) {
                    self.unavailable.push(why);
                }
                Err(Failed)
            }
            None => {
                self.wants.insert(want);
                Err(Failed)
            }
        }
    }
}
