//! The resources that no member requests any more.

use std::collections::BTreeSet;

use super::Planner;
use crate::model::{
    Attributes, Cause, DELETION_PROTECTION, LoadBalancer, ObservedLoadBalancer, ObservedTargetGroup, TargetGroupArn,
};
use crate::plan::step::{AttributesOf, StepAction, Wait};

impl<'a> Planner<'a> {
    /// Deletes a load balancer. Deletion protection is disabled only if an annotation says so; AWS refuses to delete a
    /// protected load balancer.
    pub(super) fn delete_load_balancer(&mut self, balancer: &ObservedLoadBalancer, unprotect: bool, cause: &Cause) {
        let (arn, name) = (balancer.arn.clone(), balancer.name.clone());
        if unprotect && balancer.is_protected() {
            let off = StepAction::ModifyAttributes {
                of: AttributesOf::LoadBalancer(Some(arn.clone())),
                name: format!("load balancer {name}"),
                attributes: Attributes::from([(DELETION_PROTECTION.to_owned(), "false".to_owned())]),
            };
            self.push(off, cause);
        }
        self.push(StepAction::DeleteLoadBalancer { arn, name }, cause);
    }

    /// Deletes the replaced load balancers whose retention has expired. Returns the target groups of the load balancers that
    /// stay for now.
    pub(super) fn replaced(&mut self, wanted: &'a LoadBalancer) -> BTreeSet<&'a TargetGroupArn> {
        let observed = self.observed;
        let serves = observed.current(wanted).is_some_and(ObservedLoadBalancer::is_active);
        // The new load balancer does not have the resources of frozen members.
        let may_go = serves && self.frozen_resources.none_frozen();
        let unprotected = wanted.attributes.get(DELETION_PROTECTION).is_some_and(|value| value == "false");
        let due = |old: &ObservedLoadBalancer| may_go && observed.expired.contains(&old.arn);
        let stays = |old: &ObservedLoadBalancer| old.is_protected() && !unprotected;
        let (gone, kept): (Vec<_>, Vec<_>) = observed.replaced(wanted).partition(|old| due(old) && !stays(old));
        let cause = self.cause("spec");
        for old in gone {
            self.delete_load_balancer(old, unprotected, &cause);
        }
        if !kept.is_empty() {
            let arns = kept.iter().map(|old| old.arn.clone()).collect();
            self.plan.wait = Some(match serves {
                _ if kept.iter().all(|old| due(old)) => Wait::Protected(arns),
                true => Wait::RetainOld(arns),
                false => Wait::LoadBalancerActive,
            });
        }
        kept.into_iter().flat_map(ObservedLoadBalancer::target_groups).collect()
    }

    /// Deletes the resources that are not wanted any more.
    pub(super) fn removals(&mut self) {
        let gone = self.stack.load_balancer.is_none() && self.frozen_resources.none_frozen();
        let cause = self.cause(if gone { "metadata.deletionTimestamp" } else { "spec" });
        if gone {
            for balancer in &self.observed.load_balancers {
                self.delete_load_balancer(balancer, self.stack.unprotect, &cause);
            }
        }
        let replaced = self.stack.load_balancer.as_ref().map(|wanted| self.replaced(wanted)).unwrap_or_default();
        let kept = self.observed.target_groups.iter().filter(|group| {
            self.frozen_resources.target_group(group.resource().as_ref())
                || self.frozen_target_groups.contains(&group.arn)
        });
        let wanted = self.matched.values().copied().chain(kept).map(|group| &group.arn);
        let wanted: BTreeSet<&TargetGroupArn> = wanted.chain(replaced.iter().copied()).collect();
        let surplus: Vec<&ObservedTargetGroup> =
            self.observed.target_groups.iter().filter(|group| !wanted.contains(&group.arn)).collect();
        let bindings: Vec<_> = self.observed.bindings.iter().filter(|b| !wanted.contains(&b.target_group)).collect();
        for binding in bindings.iter().filter(|binding| !binding.deleting) {
            self.push(StepAction::DeleteBinding(binding.name.clone()), &cause);
        }
        let mut going = std::mem::take(&mut self.going);
        going.extend(bindings.iter().map(|binding| binding.name.clone()));
        if !going.is_empty() && self.plan.wait.is_none() {
            self.plan.wait = Some(Wait::BindingsGone(going));
        }
        let bound: BTreeSet<&TargetGroupArn> = bindings.iter().map(|binding| &binding.target_group).collect();
        let waiting = surplus.iter().map(|group| &group.arn).filter(|arn| bound.contains(arn));
        self.plan.passed_over = replaced.into_iter().chain(waiting).cloned().collect();
        for group in surplus.iter().filter(|group| !bound.contains(&group.arn)) {
            let delete = StepAction::DeleteTargetGroup { arn: group.arn.clone(), name: group.name.clone() };
            self.push(delete, &cause);
        }
        if self.stack.security_group.is_none() && self.plan.wait.is_none() && self.frozen_resources.none_frozen() {
            for group in self.managed_security_groups() {
                self.push(StepAction::DeleteSecurityGroup(group.id.clone()), &cause);
            }
        }
    }
}
