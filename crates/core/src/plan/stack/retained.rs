//! Listeners that stay for a while after others have taken their place, for clients that have yet to use those.

use std::collections::BTreeSet;

use crate::model::{KnownLimits, ObservedLoadBalancer, ObservedStack, Stack};

/// Returns the ports of the listeners that nobody asks for any more and that stay for now: where the load balancer gets a
/// listener on another port in the same plan, until the time of [`ObservedStack::retained_ports`] has passed. After AWS has
/// refused more of something, none stays.
pub(in crate::plan) fn ports(stack: &Stack, observed: &ObservedStack) -> BTreeSet<u16> {
    let balancer = stack.load_balancer.as_ref().and_then(|wanted| observed.current(wanted));
    let Some(balancer) = balancer else { return BTreeSet::new() };
    if !observed.retains_listeners || observed.room != KnownLimits::default() {
        return BTreeSet::new();
    }
    let gets_another = stack.listeners.keys().any(|port| balancer.listener(*port).is_none());
    let unasked = ObservedLoadBalancer::known_listeners(balancer)
        .map(|listener| listener.port)
        .filter(|port| !stack.listeners.contains_key(port));
    // Its time counts from when the other listener is there.
    let is_running = |port: &u16| observed.retained_ports.get(port).is_some_and(|is_over| !is_over);
    unasked.filter(|port| gets_another || is_running(port)).collect()
}
