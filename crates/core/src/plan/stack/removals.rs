//! The resources that no member requests any more.

use std::collections::BTreeSet;

use super::{Part, Planner};
use crate::model::{
    Attributes, Cause, DELETION_PROTECTION, LoadBalancer, ObservedListener, ObservedLoadBalancer, ObservedTargetGroup,
    TargetGroupArn,
};
use crate::plan::{
    action::StepAction,
    step::{AttributesOf, Wait},
};

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

    /// Returns the replaced load balancers whose retention has expired, which are to be deleted, and the target groups of those
    /// that stay for now. Waits for the latter.
    fn replaced(
        &mut self,
        wanted: &'a LoadBalancer,
        unprotect: bool,
    ) -> (Vec<&'a ObservedLoadBalancer>, BTreeSet<&'a TargetGroupArn>) {
        let observed = self.observed;
        let serves = observed.current(wanted).is_some_and(ObservedLoadBalancer::is_active);
        let is_protected = observed.current(wanted).is_some_and(|current| !wanted.lacks_web_acl(current));
        // A member that still shows the old one is published after its rules are everywhere.
        let none_waits = self.frozen_resources.none_frozen() && self.pending.is_empty() && is_protected;
        let is_led_to = |old: &ObservedLoadBalancer| observed.frontend.leads_to(&old.arn);
        let is_whole = |old: &ObservedLoadBalancer| none_waits && !observed.shown.contains(&old.arn) && !is_led_to(old);
        let due = |old: &ObservedLoadBalancer| serves && is_whole(old) && observed.expired.contains(&old.arn);
        let stays = |old: &ObservedLoadBalancer| old.is_protected() && !unprotect;
        let (gone, kept): (Vec<_>, Vec<_>) = observed.replaced(wanted).partition(|old| due(old) && !stays(old));
        self.plan.waits.extend(kept.iter().map(|old| match () {
            () if !serves => Wait::LoadBalancerActive,
            // Its time begins when clients may find the other one complete.
            () if !is_whole(old) => Wait::Mended(old.arn.clone()),
            () if due(old) => Wait::Protected(old.arn.clone()),
            () => Wait::RetainOld(old.arn.clone()),
        }));
        (gone, kept.into_iter().flat_map(ObservedLoadBalancer::target_groups).collect())
    }

    /// Deletes the resources that are not wanted any more.
    pub(super) fn removals(&mut self) {
        let gone = self.stack.load_balancer.is_none() && self.frozen_resources.none_frozen();
        let cause = self.cause(if gone { "metadata.deletionTimestamp" } else { "spec" });
        let (going, replaced, unprotect) = match &self.stack.load_balancer {
            Some(wanted) => {
                let unprotect = wanted.attributes.get(DELETION_PROTECTION).is_some_and(|value| value == "false");
                let (going, replaced) = self.replaced(wanted, unprotect);
                (going, replaced, unprotect)
            }
            None if gone => (self.observed.load_balancers.iter().collect(), BTreeSet::new(), self.stack.unprotect),
            None => Default::default(),
        };
        let retained = self.balancer().into_iter().flat_map(|b| b.known_listeners());
        let retained = retained.filter(|listener| self.retained_ports.contains(&listener.port));
        let retained: BTreeSet<&TargetGroupArn> = retained.flat_map(ObservedListener::target_groups).collect();
        let kept = self.observed.target_groups.iter().filter(|group| {
            self.frozen_resources.target_group(group.resource().as_ref())
                || self.frozen_target_groups.contains(&group.arn)
                || retained.contains(&group.arn)
        });
        let wanted = self.matched.values().copied().chain(kept).map(|group| &group.arn);
        let wanted: BTreeSet<&TargetGroupArn> = wanted.chain(replaced.iter().copied()).collect();
        let surplus: Vec<&ObservedTargetGroup> =
            self.observed.target_groups.iter().filter(|group| !wanted.contains(&group.arn)).collect();
        let bindings: Vec<_> = self.observed.bindings.iter().filter(|b| !wanted.contains(&b.target_group)).collect();
        // AWS may not delete a load balancer for a long time, and then nothing after it happens: the target groups that it
        // leads to go after it, the others before it. Of a whole stack everything goes after it.
        let leads_to: BTreeSet<&TargetGroupArn> = going.iter().flat_map(|old| old.target_groups()).collect();
        let is_behind = |arn: &TargetGroupArn| gone || leads_to.contains(arn);
        let bound: BTreeSet<&TargetGroupArn> = bindings.iter().map(|binding| &binding.target_group).collect();
        for behind in [false, true] {
            if behind {
                for balancer in &going {
                    self.delete_load_balancer(balancer, unprotect, &cause);
                }
            }
            for binding in bindings.iter().filter(|b| !b.deleting && is_behind(&b.target_group) == behind) {
                self.push(StepAction::DeleteBinding(binding.name.clone()), &cause);
            }
            let free = surplus.iter().filter(|group| !bound.contains(&group.arn) && is_behind(&group.arn) == behind);
            for group in free {
                let delete = StepAction::DeleteTargetGroup { arn: group.arn.clone(), name: group.name.clone() };
                self.push(delete, &cause);
            }
        }
        let mut unbound = std::mem::take(&mut self.going);
        unbound.extend(bindings.iter().map(|binding| binding.name.clone()));
        self.plan.waits.extend(unbound.into_iter().map(Wait::BindingGone));
        let waiting = surplus.iter().map(|group| &group.arn).filter(|arn| bound.contains(arn));
        // What stays although another one is to take its place has that one's resource id.
        let matched: BTreeSet<&TargetGroupArn> = self.matched.values().map(|group| &group.arn).collect();
        let stays_for_now =
            |arn: &&TargetGroupArn| !matched.contains(arn) && (retained.contains(arn) || !self.pending.is_empty());
        let staying = wanted.iter().copied().filter(stays_for_now);
        self.plan.passed_over = replaced.iter().copied().chain(waiting).chain(staying).cloned().collect();
        let is_owner = self.part == Part::LoadBalancer;
        if is_owner
            && self.stack.security_group.is_none()
            && self.plan.waits.is_empty()
            && self.frozen_resources.none_frozen()
        {
            for group in self.managed_security_groups() {
                self.push(StepAction::DeleteSecurityGroup(group.id.clone()), &cause);
            }
        }
    }
}
