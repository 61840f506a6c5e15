//! The state that a plan depends on and that must be read first.

use super::{generations::can_update_in_place, managed_certificates};
use crate::model::{AddOn, ObservedStack, ObservedTargetGroup, Stack};
use crate::plan::step::Reads;

/// Returns the unknown state that the plan depends on: the listeners of load balancers, unless all of the stack is
/// deleted, and the attributes that the stack requests on existing resources.
pub(super) fn reads(stack: &Stack, observed: &ObservedStack) -> Reads {
    let mut reads = Reads { certificates: managed_certificates::are_needed(stack, observed), ..Reads::default() };
    if let Some(wanted) = &stack.load_balancer {
        let unread = observed.replaced(wanted).filter(|existing| existing.listeners.is_none());
        reads.listeners_of = unread.map(|existing| existing.arn.clone()).collect();
        let mut going = observed.replaced(wanted).filter(|old| observed.expired.contains(&old.arn));
        reads.load_balancer = going.find(|old| old.attributes.is_none()).map(|old| old.arn.clone());
    }
    let current = stack.load_balancer.as_ref().and_then(|wanted| Some((wanted, observed.current(wanted)?)));
    if let Some((wanted, existing)) = current {
        let unread = !wanted.attributes.is_empty() && existing.attributes.is_none();
        reads.load_balancer = unread.then(|| existing.arn.clone()).or(reads.load_balancer);
        reads.listeners_of.extend(Some(existing.arn.clone()).filter(|_| existing.listeners.is_none()));
        let (requested, known) = (&wanted.add_ons, &existing.add_ons);
        let unread = [
            (AddOn::WebAcl, requested.web_acl.is_some() && known.web_acl.is_none()),
            (AddOn::Protection, requested.protection.is_some() && known.protection.is_none()),
            (AddOn::Capacity, requested.capacity.is_some() && known.capacity.is_none() && existing.is_active()),
        ];
        let unread = unread.into_iter().filter(|(add_on, unread)| *unread && !observed.left_out.contains(add_on));
        reads.add_ons = unread.map(|(add_on, _)| (add_on, existing.arn.clone())).collect();
        // The state that is known may be that of its creation.
        let capacity = requested.capacity.as_ref().filter(|_| !observed.left_out.contains(&AddOn::Capacity));
        let differs = capacity.is_some_and(|requested| known.capacity != Some(requested.value));
        reads.states = differs && !existing.is_active() && !observed.states_are_read;
        let listeners = stack.listeners.values().filter(|listener| !listener.attributes.is_empty());
        // The attributes of a listener whose protocol changes do not matter, and a TLS listener has none to read.
        reads.listeners = listeners
            .filter_map(|listener| existing.listener(listener.port).filter(|l| l.protocol == Some(listener.protocol)))
            .filter(|listener| listener.attributes.is_none())
            .map(|listener| listener.arn.clone())
            .collect();
    }
    let target_groups = stack.target_groups.values().filter(|group| !group.attributes.is_empty());
    reads.target_groups = target_groups
        .filter_map(|wanted| {
            let unread = |o: &&ObservedTargetGroup| o.attributes.is_none() && can_update_in_place(wanted, o);
            observed.target_groups.iter().find(|o| o.resource().as_ref() == Some(&wanted.resource) && unread(o))
        })
        .map(|group| group.arn.clone())
        .collect();
    reads
}
