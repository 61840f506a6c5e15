//! The resources in AWS of a member that leaves its group: until none is left, its Ingress keeps the group's finalizer.

use super::{
    action::StepAction,
    stack::certificates_are_unknown,
    step::{Plan, Wait},
};
use crate::model::{
    CertificateArn, MemberResources, ObjectName, ObjectReference, ObservedStack, RuleArn, Stack, TargetGroupArn,
};

/// Returns true if the plan still has to remove a resource that is the member's own: a rule, a certificate, a listener that it asks
/// for, a target group or its binding. A resource recorded as another member's, or as all members', delays no release; one that
/// is recorded for no member may be this member's.
#[must_use]
pub fn delays_release(plan: &Plan, stack: &Stack, observed: &ObservedStack, member: &ObjectReference) -> bool {
    let own = MemberOwned { observed, member };
    let waits = plan.waits.iter().any(|wait| match wait {
        Wait::BindingGone(name) => own.binding(name),
        // Deletions are planned after that.
        Wait::LetIn(_) => true,
        // A rule without a known owner stays while a member waits, and it may be this member's.
        Wait::Ready(_) | Wait::Opened(_) => own.observed.has_rule_without_owner(None),
        _ => false,
    });
    // What is not known may be the member's.
    waits || certificates_are_unknown(stack, observed) || plan.steps.iter().any(|step| own.taken_by(&step.action))
}

struct MemberOwned<'a> {
    observed: &'a ObservedStack,
    member: &'a ObjectReference,
}

impl MemberOwned<'_> {
    /// Returns true if the resource that `has` looks for is the member's, or has no known owner.
    fn has(&self, has: impl Fn(&MemberResources) -> bool) -> bool {
        let mut holders = self.observed.member_resources.iter().filter(|resources| has(resources)).peekable();
        holders.peek().is_none() || holders.any(|resources| resources.member == *self.member)
    }

    fn rule(&self, arn: &RuleArn) -> bool {
        self.has(|resources| resources.rules.contains(arn))
    }

    fn listener(&self, port: u16) -> bool {
        self.has(|resources| resources.ports.contains_key(&port))
    }

    fn certificate(&self, port: u16, arn: &CertificateArn) -> bool {
        self.has(|resources| resources.ports.get(&port).is_some_and(|held| held.certificates.contains(arn)))
    }

    fn default_action(&self, port: u16) -> bool {
        self.has(|resources| resources.ports.get(&port).is_some_and(|held| held.default_action))
    }

    /// Returns true if a target group is the member's. One that is not known to be the stack's has no owner: any user may label a binding
    /// of it.
    fn target_group(&self, arn: &TargetGroupArn) -> bool {
        let Some(group) = self.observed.target_groups.iter().find(|group| group.arn == *arn) else { return false };
        let Some(resource) = group.resource() else { return true };
        let bound = self.observed.bindings.iter().find(|binding| binding.target_group == *arn);
        match bound.and_then(|binding| resource.ingress(&binding.spec.service_ref.name)) {
            Some(owner) => owner == *self.member,
            // The resource id begins with the Ingress; where the Service is not known, it may end in other places.
            None => resource.may_be_of(self.member),
        }
    }

    fn binding(&self, name: &ObjectName) -> bool {
        let binding = self.observed.bindings.iter().find(|binding| binding.name == *name);
        // A target group that is gone is no member's any more.
        let is_there = |arn: &TargetGroupArn| self.observed.target_groups.iter().any(|group| group.arn == *arn);
        binding.is_none_or(|b| is_there(&b.target_group) && self.target_group(&b.target_group))
    }

    fn taken_by(&self, action: &StepAction) -> bool {
        match action {
            StepAction::DeleteRule { arn, .. } | StepAction::ModifyRule { arn, .. } => self.rule(arn),
            StepAction::DeleteListener { port, .. } => self.listener(*port),
            StepAction::ModifyListener { port, change, .. } => {
                change.default_action.is_some() && self.default_action(*port)
                    || change.default_certificate.is_some() && self.listener(*port)
            }
            StepAction::RemoveListenerCertificates { port, certificates, .. } => {
                certificates.iter().any(|certificate| self.certificate(*port, certificate))
            }
            StepAction::DeleteTargetGroup { arn, .. } => self.target_group(arn),
            StepAction::DeleteBinding(name) => self.binding(name),
            StepAction::DeleteCertificate { resource, .. } => {
                self.member.as_ingress().is_some_and(|ingress| resource.is_certificate_of(ingress))
            }
            _ => false,
        }
    }
}
