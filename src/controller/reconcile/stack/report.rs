//! Events, log lines and metrics of a pass, and the outcomes of failures.

use std::collections::BTreeMap;

use super::{super::step_history::Repeated, PassError, label};
use crate::controller::{
    Controller,
    cluster::{
        events::{EventType, Subject},
        kubernetes::KubernetesError,
    },
    reconcile::apply::ApplyError,
    runtime::queue::Outcome,
};
use albatross_core::{
    desired::{self, Built, Membership},
    diagnostics::{Code, Diagnostic, Severity, capped},
    model::{ObjectKind, ObjectName, ObjectReference, StackId},
};

impl Controller {
    /// Reports the diagnostics of building. Returns the outcome of the pass if there are errors or facts without an
    /// answer.
    pub(super) fn report_built(&self, group: &StackId, membership: &Membership, built: &Built) -> Option<Outcome> {
        for diagnostic in &capped(&built.diagnostics) {
            self.report(diagnostic);
        }
        // A fix in the cluster queues the stack again; a fix in AWS does not.
        let errors = capped(&built.diagnostics).into_iter().filter(|d| d.severity == Severity::Error);
        let mistakes = errors.map(|error| error.to_string()).collect::<Vec<_>>().join("; ");
        let unavailable = built.unavailable.join("; ");
        if !unavailable.is_empty() {
            tracing::warn!(%group, "{unavailable}; trying again");
            let waiting: Vec<ObjectName> = match &built.stack {
                Some(_) => built.frozen.iter().cloned().collect(),
                None => membership.members.clone(),
            };
            for subject in self.subjects(group, &waiting) {
                let message = format!("Failed build model due to {unavailable}");
                self.events.record(EventType::Warning, &subject, "FailedBuildModel", &message);
            }
        }
        if !unavailable.is_empty() {
            Some(Outcome::Failed(unavailable))
        } else if built.lacking {
            Some(Outcome::Failed(mistakes))
        } else if mistakes.is_empty() {
            None
        } else {
            Some(Outcome::NeedsCorrection(mistakes))
        }
    }

    /// Reports steps that are planned again after they were carried out, on the objects that request them.
    pub(super) fn report_repeats(
        &self,
        stack: &StackId,
        membership: &Membership,
        repeated: &[Repeated],
    ) -> Option<Outcome> {
        for repeat in repeated {
            let (message, blamed) = (repeat.message(), &repeat.step.cause.object.name);
            self.metrics.repeated_step(repeat.step.action.kind());
            tracing::error!(group = %stack, "{message}");
            let names: Vec<ObjectName> = if membership.served().any(|name| name == blamed) {
                vec![blamed.clone()]
            } else {
                membership.members.iter().chain(&membership.leaving).cloned().collect()
            };
            for subject in self.subjects(stack, &names) {
                self.events.record(EventType::Warning, &subject, "ChangeDoesNotLast", &message);
            }
        }
        let messages: Vec<String> = repeated.iter().map(Repeated::message).collect();
        (!messages.is_empty()).then(|| Outcome::Failed(messages.join("; ")))
    }

    /// Reports to members that AWS refuses their request, and adds them to the refused members.
    pub(super) fn failed_members(
        &self,
        stack: &StackId,
        members: &[ObjectName],
        error: &PassError,
        refused: &mut BTreeMap<ObjectName, String>,
    ) {
        if let Outcome::Failed(what) = self.report_failure(stack, members, error) {
            refused.extend(members.iter().map(|member| (member.clone(), what.clone())));
        }
    }

    pub(super) fn failed(&self, stack: &StackId, membership: &Membership, error: &PassError) -> Outcome {
        if let PassError::Apply(apply) = error
            && let Some(patience) = apply.blocked_deletion()
            && self.waits.blocked(&stack.object().to_string(), &apply.step, patience)
            && apply.is_not_yet()
        {
            return self.report_blocked_deletion(stack, membership, apply);
        }
        let names: Vec<ObjectName> = membership.members.iter().chain(&membership.leaving).cloned().collect();
        self.report_failure(stack, &names, error)
    }

    /// Reports a deletion that AWS does not carry out, to the leaving members, or to all members if none leaves.
    fn report_blocked_deletion(&self, stack: &StackId, membership: &Membership, error: &ApplyError) -> Outcome {
        let fix = error.fix().map(|fix| format!("; {fix}")).unwrap_or_default();
        let message = format!("Deletion is blocked: {error}{fix}");
        tracing::warn!(group = %stack, "{message}");
        self.metrics.reconcile_error(label(stack), "deploy_model_error");
        let names = if membership.leaving.is_empty() { &membership.members } else { &membership.leaving };
        for subject in self.subjects(stack, names) {
            self.events.record(EventType::Warning, &subject, "DeletionBlocked", &message);
        }
        Outcome::Failed(message)
    }

    fn report_failure(&self, stack: &StackId, names: &[ObjectName], error: &PassError) -> Outcome {
        if !self.permit.holds() {
            // The loss of the lease is reported elsewhere, and is not the fault of the objects.
            tracing::info!(group = %stack, "{error}; the lease is no longer held");
            return Outcome::Failed(error.to_string());
        }
        let (reason, fix, quiet) = match error {
            PassError::Kubernetes(KubernetesError::Refused { source, .. }) => {
                // A write that was withheld, or a connection that broke.
                let is_lost = matches!(source, kube::Error::Service(_) | kube::Error::HyperError(_));
                ("FailedUpdateStatus", None, is_lost)
            }
            PassError::Kubernetes(_) => ("FailedUpdateStatus", None, true),
            PassError::Record(_) => ("FailedWriteRecord", None, false),
            PassError::Aws(aws) => ("FailedDeployModel", aws.fix(), aws.is_transient()),
            PassError::Apply(apply) if apply.is_not_yet() => {
                tracing::info!(group = %stack, "{apply}; trying again soon");
                return Outcome::NotYet;
            }
            PassError::Apply(apply) => ("FailedDeployModel", apply.fix(), apply.is_transient()),
        };
        let category = match reason {
            "FailedUpdateStatus" => "dns_resolve_and_update_status_error",
            "FailedWriteRecord" => "write_record_error",
            _ => "deploy_model_error",
        };
        self.metrics.reconcile_error(label(stack), category);
        let fix = fix.map(|fix| format!("; {fix}")).unwrap_or_default();
        if quiet {
            tracing::warn!(group = %stack, "{error}{fix}; trying again");
        } else {
            tracing::error!(group = %stack, "{error}{fix}");
            let message = match reason {
                "FailedDeployModel" => format!("Failed deploy model due to {error}{fix}"),
                _ => format!("{error}{fix}"),
            };
            for subject in self.subjects(stack, names) {
                self.events.record(EventType::Warning, &subject, reason, &message);
            }
        }
        Outcome::Failed(error.to_string())
    }

    pub(super) fn subjects(&self, stack: &StackId, members: &[ObjectName]) -> Vec<Subject> {
        self.with_snapshot(|snapshot| {
            let subject = |name: &ObjectName| {
                let uid = desired::member(snapshot, stack, name)?.uid.to_owned();
                let ObjectReference { kind, name } = stack.member(name);
                Some(Subject { kind, name, uid })
            };
            members.iter().filter_map(subject).collect()
        })
    }

    /// Reports a diagnostic as an event on its object and in the log.
    pub(super) fn report(&self, diagnostic: &Diagnostic) {
        let object = &diagnostic.object;
        let uid = self.with_snapshot(|snapshot| match object.kind {
            ObjectKind::Ingress => snapshot.ingresses.get(&object.name).map(|o| o.uid.clone()),
            ObjectKind::Service => snapshot.services.get(&object.name).map(|o| o.uid.clone()),
            ObjectKind::TargetGroupBinding => snapshot.target_group_bindings.get(&object.name).map(|o| o.uid.clone()),
            ObjectKind::IngressClassParams => snapshot.ingress_class_params.get(&object.name).map(|o| o.uid.clone()),
            ObjectKind::IngressClass => None,
        });
        let (reason, message) = match diagnostic.severity {
            Severity::Error => {
                tracing::error!(%object, code = ?diagnostic.code, "{diagnostic}");
                let controller = match object.kind {
                    ObjectKind::Service => "service",
                    ObjectKind::Ingress
                    | ObjectKind::IngressClass
                    | ObjectKind::IngressClassParams
                    | ObjectKind::TargetGroupBinding => "ingress",
                };
                self.metrics.reconcile_error(controller, "build_model_error");
                ("FailedBuildModel", format!("Failed build model due to {diagnostic}"))
            }
            Severity::Warning | Severity::Note => {
                tracing::debug!(%object, code = ?diagnostic.code, "{diagnostic}");
                (warning_reason(diagnostic.code), diagnostic.to_string())
            }
        };
        let subject = Subject { kind: object.kind, name: object.name.clone(), uid: uid.unwrap_or_default() };
        self.events.record(EventType::Warning, &subject, reason, &message);
    }
}

/// Returns the event reason of a warning, one for each kind, so that users can filter by it.
fn warning_reason(code: Code) -> &'static str {
    match code {
        Code::UnknownAnnotation => "UnknownAnnotation",
        Code::AnnotationNotBuilt => "AnnotationNotBuilt",
        Code::MissingService => "BackendNotFound",
        Code::MissingAction => "ActionNotFound",
        _ => "FailedBuildModel",
    }
}

/// Returns the message of the event on a binding with a stack's labels that the stack did not create, when the stack is
/// deleted without it.
pub(super) fn foreign_labels(binding: &ObjectName, stack: &StackId) -> String {
    format!(
        "TargetGroupBinding {binding} carries the labels of {}, which did not make it, so that its deletion did not wait for \
         it; remove the labels",
        stack.object()
    )
}
