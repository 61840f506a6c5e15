//! Events, log lines and metrics of a pass, and the outcomes of failures.

use std::{collections::BTreeMap, time::Duration};

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
use albatross_aws::AwsError;
use albatross_core::{
    desired::{self, Built, Membership},
    diagnostics::{Code, Diagnostic, Severity, capped},
    model::{AddOn, Cause, ObjectKind, ObjectName, ObjectReference, Stack, StackId},
};

/// The time after which it is reported that an add-on is not accepted yet. AWS needs minutes for a new load balancer.
const NOT_YET_TIME: Duration = Duration::from_secs(600);
/// The time after which it is reported that the service of an add-on does not answer.
const OUTAGE_TIME: Duration = Duration::from_secs(90);

/// Returns the time after which the failure of an add-on is reported.
fn patience(is_not_yet: bool, is_transient: bool) -> Duration {
    match (is_not_yet, is_transient) {
        (true, _) => NOT_YET_TIME,
        (false, true) => OUTAGE_TIME,
        (false, false) => Duration::ZERO,
    }
}

impl Controller {
    /// Reports the diagnostics of building. Returns the outcome of the pass if there are errors or facts without an
    /// answer.
    pub(super) fn report_built(&self, group: &StackId, membership: &Membership, built: &Built) -> Option<Outcome> {
        for diagnostic in &capped(&built.diagnostics) {
            self.report(diagnostic);
        }
        // A fix in the cluster queues the stack again; a fix in AWS does not.
        let errors = capped(&built.diagnostics).into_iter().filter(|d| d.severity == Severity::Error);
        let mut mistakes = errors.map(|error| error.to_string()).collect::<Vec<_>>().join("; ");
        if mistakes.is_empty() && built.lacking {
            let warnings = built.diagnostics.iter().filter(|d| d.code == Code::NoEffect);
            mistakes = warnings.map(ToString::to_string).collect::<Vec<_>>().join("; ");
        }
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

    /// Reports add-ons that cannot be read, and therefore stay, to the members that request them. Returns the outcome of the
    /// pass.
    pub(super) fn report_unread(
        &self,
        group: &StackId,
        membership: &Membership,
        stack: &Stack,
        unread: &BTreeMap<AddOn, AwsError>,
    ) -> Option<Outcome> {
        if unread.is_empty() {
            return None;
        }
        let add_ons = stack.load_balancer.as_ref().map(|balancer| &balancer.add_ons);
        let mut messages = Vec::new();
        for (add_on, error) in unread {
            let cause = add_ons.and_then(|add_ons| add_ons.cause(*add_on));
            let message = unread_text(*add_on, error, cause);
            tracing::warn!(%group, "{message}; trying again");
            if self.waits.is_late(group, *add_on, patience(false, error.is_transient())) {
                let names = blamed(group, membership, cause);
                self.report_to(group, &names, &message);
            }
            messages.push(message);
        }
        (!messages.is_empty()).then(|| Outcome::Failed(messages.join("; ")))
    }

    /// Reports the failures of add-ons to the members that request them; everything else is in place. Returns the outcome of
    /// the pass.
    pub(super) fn report_left_out(
        &self,
        group: &StackId,
        membership: &Membership,
        left_out: &[ApplyError],
    ) -> Option<Outcome> {
        if left_out.is_empty() {
            return None;
        }
        let mut messages = Vec::new();
        let (kept, left_out): (Vec<_>, Vec<_>) =
            left_out.iter().partition(|error| error.blocked_certificate().is_some());
        // One time for all of them: they are tried again at different times, and each would begin it anew.
        if let Some(error) = kept.first() {
            let patience = error.blocked_certificate().unwrap_or_default();
            if self.waits.blocked(&certificates_of(group), "delete certificates", patience) {
                messages.push(self.report_blocked_deletion(group, membership, error));
            } else {
                tracing::info!(%group, "{error}; trying again soon");
            }
        }
        for error in left_out {
            let patience = patience(error.is_not_yet(), error.is_transient());
            let takes_long = error.add_on.is_some_and(|add_on| self.waits.is_late(group, add_on, patience));
            let message = left_out_text(error);
            tracing::warn!(%group, "{message}; trying again");
            if takes_long {
                self.metrics.reconcile_error(label(group), "deploy_model_error");
                self.report_to(group, &blamed(group, membership, Some(error.blame())), &message);
            }
            if !error.is_not_yet() || takes_long {
                messages.push(message);
            }
        }
        Some(if messages.is_empty() { Outcome::NotYet } else { Outcome::Failed(messages.join("; ")) })
    }

    fn report_to(&self, group: &StackId, names: &[ObjectName], message: &str) {
        for subject in self.subjects(group, names) {
            let message = format!("Failed deploy model due to {message}");
            self.events.record(EventType::Warning, &subject, "FailedDeployModel", &message);
        }
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
            return Outcome::Failed(self.report_blocked_deletion(stack, membership, apply));
        }
        let names: Vec<ObjectName> = membership.members.iter().chain(&membership.leaving).cloned().collect();
        self.report_failure(stack, &names, error)
    }

    /// Reports a deletion that AWS does not carry out, to the leaving members, or to all members if none leaves. Returns the message.
    fn report_blocked_deletion(&self, stack: &StackId, membership: &Membership, error: &ApplyError) -> String {
        let fix = error.fix().map(|fix| format!("; {fix}")).unwrap_or_default();
        let message = format!("Deletion is blocked: {error}{fix}");
        tracing::warn!(group = %stack, "{message}");
        self.metrics.reconcile_error(label(stack), "deploy_model_error");
        let names = if membership.leaving.is_empty() { &membership.members } else { &membership.leaving };
        for subject in self.subjects(stack, names) {
            self.events.record(EventType::Warning, &subject, "DeletionBlocked", &message);
        }
        message
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

/// Returns the name under which the certificates of a stack are blocked: its other deletions have times of their own.
pub(super) fn certificates_of(stack: &StackId) -> String {
    format!("certificates of {}", stack.object())
}

/// Returns the member that a cause names; all members if it names none.
fn blamed(group: &StackId, membership: &Membership, cause: Option<&Cause>) -> Vec<ObjectName> {
    let named = cause.filter(|cause| membership.served().any(|name| cause.object == group.member(name)));
    match named {
        Some(cause) => vec![cause.object.name.clone()],
        None => membership.members.iter().chain(&membership.leaving).cloned().collect(),
    }
}

/// Returns the message about an add-on that cannot be read.
fn unread_text(add_on: AddOn, error: &AwsError, cause: Option<&Cause>) -> String {
    let requested = cause.map(|cause| format!("; requested by {cause}")).unwrap_or_default();
    let fix = error.fix().map(|fix| format!("; {fix}")).unwrap_or_default();
    format!("the {add_on} of the load balancer cannot be read, so that it stays as it is: {error}{requested}{fix}")
}

/// Returns the message about the failure of an add-on.
fn left_out_text(error: &ApplyError) -> String {
    let fix = error.fix().map(|fix| format!("; {fix}")).unwrap_or_default();
    format!("{error}; requested by {}; everything else is in place{fix}", error.blame())
}

/// Returns the event reason of a warning, one for each kind, so that users can filter by it.
fn warning_reason(code: Code) -> &'static str {
    match code {
        Code::UnknownAnnotation => "UnknownAnnotation",
        Code::AnnotationNotBuilt => "AnnotationNotBuilt",
        Code::MissingService => "BackendNotFound",
        Code::MissingAction => "ActionNotFound",
        Code::NoEffect => "SettingWithoutEffect",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::reconcile::apply::StepError;
    use albatross_aws::AwsErrorKind;

    fn denied(operation: &'static str) -> AwsError {
        let (code, message) = ("AccessDeniedException".to_owned(), "no policy allows it".to_owned());
        AwsError { operation, kind: AwsErrorKind::Denied { code, message, role: None } }
    }

    fn requested() -> Cause {
        let object = ObjectReference::ingress(&ObjectName::new("shop", "web"));
        Cause { object, generation: 3, field: "alb.ingress.kubernetes.io/wafv2-acl-arn".to_owned() }
    }

    #[test]
    fn add_ons_that_are_left_out_name_requester_and_fix() {
        let error = denied("GetWebACLForResource");
        insta::assert_snapshot!(unread_text(AddOn::WebAcl, &error, Some(&requested())), @"the web ACL of the load balancer cannot be read, so that it stays as it is: AWS does not allow GetWebACLForResource: no policy allows it (AccessDeniedException); requested by Ingress shop/web generation 3, alb.ingress.kubernetes.io/wafv2-acl-arn; allow the action `wafv2:GetWebACLForResource` in the IAM policy of the controller's role");
        let error = ApplyError {
            step: "associate web ACL arn with load balancer web".to_owned(),
            cause: requested(),
            port: None,
            of_all: false,
            in_front: false,
            add_on: Some(AddOn::WebAcl),
            carried_out: Vec::new(),
            left_out: Vec::new(),
            source: StepError::Aws(denied("AssociateWebACL")),
        };
        insta::assert_snapshot!(left_out_text(&error), @"associate web ACL arn with load balancer web: AWS does not allow AssociateWebACL: no policy allows it (AccessDeniedException); requested by Ingress shop/web generation 3, alb.ingress.kubernetes.io/wafv2-acl-arn; everything else is in place; allow the action `wafv2:AssociateWebACL` in the IAM policy of the controller's role");
    }

    #[test]
    fn an_outage_is_reported_sooner_than_what_only_takes_its_time() {
        let times =
            [(true, true), (false, true), (false, false)].map(|(not_yet, transient)| patience(not_yet, transient));
        assert_eq!(times.map(|time| time.as_secs()), [600, 90, 0]);
    }

    #[test]
    fn the_requester_is_told_and_all_where_it_is_not_known() {
        let name = |name: &str| ObjectName::new("shop", name);
        let group = StackId::Group("edge".to_owned());
        let membership = Membership { members: vec![name("web"), name("api")], ..Membership::default() };
        assert_eq!(blamed(&group, &membership, Some(&requested())), [name("web")]);
        let other = Cause { object: ObjectReference::ingress(&name("gone")), ..requested() };
        for cause in [None, Some(&other)] {
            assert_eq!(blamed(&group, &membership, cause), membership.members);
        }
    }
}
