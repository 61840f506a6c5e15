//! The order in which the listeners of a load balancer change: a redirect leads, at each moment, to a port that serves.

use std::collections::BTreeSet;

use crate::model::{Action, Listener, ObservedListener};

/// Returns the port that an action redirects to, if it names one.
pub(super) fn redirect<T>(action: &Action<T>) -> Option<u16> {
    match action {
        Action::Redirect { port: Some(port), .. } => port.parse().ok(),
        _ => None,
    }
}

/// Returns the other ports that a listener redirects to.
pub(super) fn redirects(listener: &Listener) -> BTreeSet<u16> {
    let actions = std::iter::once(&listener.default_action).chain(listener.rules.iter().map(|rule| &rule.action));
    actions.filter_map(redirect).filter(|port| *port != listener.port).collect()
}

/// Returns the other ports that a listener redirects to now.
pub(super) fn redirects_now(listener: &ObservedListener) -> BTreeSet<u16> {
    let of_rules = listener.rules.iter().flat_map(|rule| &rule.actions);
    let actions = listener.default_actions.iter().chain(of_rules);
    actions.filter_map(redirect).filter(|port| *port != listener.port).collect()
}

/// Returns true if a listener redirects to another now.
pub(super) fn redirects_elsewhere(listener: &ObservedListener) -> bool {
    !redirects_now(listener).is_empty()
}

/// Returns true if a listener authenticates its clients.
pub(super) fn authenticates(listener: &ObservedListener) -> bool {
    let of_rules = listener.rules.iter().flat_map(|rule| &rule.actions);
    listener.default_actions.iter().chain(of_rules).any(|action| {
        matches!(action, Action::AuthenticateCognito(_) | Action::AuthenticateOidc { .. } | Action::JwtValidation(_))
    })
}

/// Returns true if AWS does not allow a wanted listener beside an existing one on another port: a load balancer has one listener of
/// QUIC or TCP_QUIC, and none beside those of UDP or TCP_UDP.
pub(super) fn excludes(wanted: &Listener, existing: &ObservedListener) -> bool {
    let Some(protocol) = existing.protocol.filter(|_| existing.port != wanted.port) else { return false };
    wanted.protocol.is_quic() && protocol.has_udp() || wanted.protocol.has_udp() && protocol.is_quic()
}

/// Returns true if a listener becomes one of QUIC or stops to be one. Its target group changes with it then.
pub(super) fn changes_to_or_from_quic(wanted: &Listener, existing: &ObservedListener) -> bool {
    existing.protocol.is_some_and(|before| before != wanted.protocol && (before.is_quic() || wanted.protocol.is_quic()))
}

/// Returns changes of listeners, each with what there is, in an order in which one that will redirect to another comes after
/// it, and one that redirects to another until now comes before it. Where both cannot be, by port.
pub(super) fn of_changes<'a>(
    mut changes: Vec<(&'a Listener, &'a ObservedListener)>,
) -> Vec<(&'a Listener, &'a ObservedListener)> {
    changes.sort_by_key(|(wanted, _)| wanted.port);
    let mut ordered = Vec::with_capacity(changes.len());
    while !changes.is_empty() {
        let free = changes.iter().enumerate().find(|(at, (wanted, existing))| {
            changes.iter().enumerate().filter(|(other, _)| other != at).all(|(_, (other, before))| {
                // Also one that is there may lack rules, where an earlier plan came to an end in the middle.
                let waits_for = redirects(wanted).contains(&other.port);
                let needed_by = redirects_now(before).contains(&wanted.port)
                    && !redirects(other).contains(&wanted.port)
                    && existing.protocol != Some(wanted.protocol);
                !waits_for && !needed_by
            })
        });
        let next = free.map_or(0, |(at, _)| at);
        ordered.push(changes.remove(next));
    }
    ordered
}
