//! Listeners that stay for a while after others have taken their place, for clients that have yet to use those.

use std::collections::BTreeSet;

use crate::model::{KnownLimits, ObservedListener, ObservedLoadBalancer, ObservedStack, Stack};
use crate::plan::{frozen::FrozenResources, order};

/// The listeners that nobody asks for any more and that stay for now.
#[derive(Debug, Default)]
pub(in crate::plan) struct Retained {
    /// Their ports.
    pub(in crate::plan) ports: BTreeSet<u16>,
    /// Those of them that listeners which stay redirect to until this plan is carried out.
    pub(in crate::plan) led_to: BTreeSet<u16>,
}

/// Returns the listeners that stay: where the load balancer gets a listener on another port in the same plan, or a listener
/// redirects to it until now and not any more, until the time of [`ObservedStack::retained_ports`] has passed. After AWS has refused more of
/// something, none stays.
pub(in crate::plan) fn of(stack: &Stack, observed: &ObservedStack) -> Retained {
    let balancer = stack.load_balancer.as_ref().and_then(|wanted| observed.current(wanted));
    let Some(balancer) = balancer else { return Retained::default() };
    if !observed.retains_listeners || observed.room != KnownLimits::default() {
        return Retained::default();
    }
    let is_asked = |port: u16| stack.listeners.contains_key(&port);
    let gets_another = stack.listeners.keys().any(|port| balancer.listener(*port).is_none());
    let (asked, unasked): (Vec<_>, Vec<_>) =
        ObservedLoadBalancer::known_listeners(balancer).partition(|listener| is_asked(listener.port));
    let frozen = FrozenResources::new(&stack.frozen, observed);
    let mut led_to = BTreeSet::new();
    for existing in asked {
        // What is to redirect there in the future too is meant for something else, and what is frozen does not change.
        let stays = stack.listeners.get(&existing.port).map(order::redirects).unwrap_or_default();
        let rules = existing.rules.iter().filter(|rule| frozen.frozen_owner_of_rule(&rule.arn).is_none());
        let default = existing.default_actions.iter().filter(|_| !frozen.default_action(existing.port));
        let actions = rules.flat_map(|rule| &rule.actions).chain(default);
        let ports = actions.filter_map(order::redirect).filter(|port| !stays.contains(port) && !is_asked(*port));
        led_to.extend(ports.filter(|port| balancer.listener(*port).is_some()));
    }
    // Its time counts from when the other listener is there.
    let is_running = |port: &u16| observed.retained_ports.get(port).is_some_and(|is_over| !is_over);
    // What AWS does not allow beside a wanted listener cannot stay.
    let may_stay = |listener: &&ObservedListener| !stack.listeners.values().any(|l| order::excludes(l, listener));
    let ports = unasked.into_iter().filter(may_stay).map(|listener| listener.port);
    let ports = ports.filter(|port| gets_another || is_running(port) || led_to.contains(port)).collect();
    Retained { ports, led_to }
}
