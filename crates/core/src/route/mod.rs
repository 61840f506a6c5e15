//! The answer of a listener to a request: the rule that takes it, the actions of that rule, and the target groups of a forward.
//! For the desired listener ([`wanted`]) and for the observed one ([`observed`]), by the rules of AWS's documentation: the first
//! rule of which all conditions hold, else the default action; of a condition's values one is enough.
//!
//! These cannot be known here:
//!
//! - **Regular expressions.** AWS says neither what dialect it takes in detail, nor whether an expression has to match the
//!   whole text, nor whether case counts. So one holds for certain where it matches the whole text exactly, and does not hold
//!   where it is found nowhere, whatever the case. Everything between, and what is no expression to `regex-lite` (it knows no
//!   Unicode classes), is unknown.
//! - **Source addresses** are the addresses that the load balancer sees, which depend on a proxy or a NAT in front of it.
//! - **Fields of conditions that are not known here** may or may not hold.
//! - The form of `Host` with a port, or of a path with an encoded or a doubled slash, before it is matched. Requests are taken as
//!   they are written.
//! - The target group, of several, that a request is led to: only their shares are known, and clients that stick stay.
//! - The health of targets, and the result of authentication that stands before the last action.

mod matching;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use matching::{Match, are_apart};

use crate::model::{Action, Condition, Listener, ObservedListener, TargetGroupArn, TargetGroupReference, Transform};

/// A request as a client sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `Host`, without a port.
    pub host: String,
    /// Path of the URL with its leading slash, without the query.
    pub path: String,
    /// `GET`, `POST` and so on.
    pub method: String,
    /// All headers but `Host`, repeated ones included.
    pub headers: Vec<(String, String)>,
    /// Pairs of the query, as they are decoded; a key without `=` has an empty value.
    pub query: Vec<(String, String)>,
    /// The client's address, where it is known.
    pub source: Option<IpAddr>,
}

impl Request {
    /// A bare GET.
    #[must_use]
    pub fn get(host: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            path: path.into(),
            method: "GET".to_owned(),
            headers: Vec::new(),
            query: Vec::new(),
            source: None,
        }
    }
}

/// The rule, or the default action, that takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit<'a, G> {
    /// The rule's place among the rules of its listener, from 0; `None` for the default action.
    pub rule: Option<usize>,
    /// The actions, in order. The last answers, redirects or forwards.
    pub actions: &'a [Action<G>],
    /// The rewrites of the request on its way to a target.
    pub transforms: &'a [Transform],
}

impl<'a, G> Hit<'a, G> {
    /// The action that ends it.
    #[must_use]
    pub fn action(&self) -> Option<&'a Action<G>> {
        self.actions.last()
    }

    /// The target groups that the request may be led to.
    #[must_use]
    pub fn shares(&self) -> Vec<Share<'a, G>> {
        self.action().map(shares).unwrap_or_default()
    }
}

/// A target group and its share of what a forward takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a, G> {
    /// The target group.
    pub group: &'a G,
    /// Its weight.
    pub weight: i32,
    /// The weights of all together.
    pub of: i32,
}

/// The route of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed<'a, G> {
    /// The rule that takes it for certain, unless one of `perhaps` does.
    pub hit: Hit<'a, G>,
    /// Earlier rules of which it is not known whether they take it, in their order.
    pub perhaps: Vec<Hit<'a, G>>,
}

/// Routes a request by the desired listener.
#[must_use]
pub fn wanted<'a>(listener: &'a Listener, request: &Request) -> Routed<'a, TargetGroupReference> {
    let rules =
        listener.rules.iter().map(|rule| (&*rule.conditions, std::slice::from_ref(&rule.action), &*rule.transforms));
    first(rules, std::slice::from_ref(&listener.default_action), request)
}

/// Routes a request by the observed listener. The listener's rules are in the order of their priorities.
#[must_use]
pub fn observed<'a>(listener: &'a ObservedListener, request: &Request) -> Routed<'a, TargetGroupArn> {
    let rules = listener.rules.iter().map(|rule| (&*rule.conditions, &*rule.actions, &*rule.transforms));
    first(rules, &listener.default_actions, request)
}

/// Conditions, actions and transforms of a rule.
type Parts<'a, G> = (&'a [Condition], &'a [Action<G>], &'a [Transform]);

fn first<'a, G>(
    rules: impl Iterator<Item = Parts<'a, G>>,
    default: &'a [Action<G>],
    request: &Request,
) -> Routed<'a, G> {
    let mut perhaps = Vec::new();
    for (index, (conditions, actions, transforms)) in rules.enumerate() {
        let hit = Hit { rule: Some(index), actions, transforms };
        match matching::all(conditions, request) {
            Match::Yes => return Routed { hit, perhaps },
            Match::No => {}
            Match::Unknown => perhaps.push(hit),
        }
    }
    Routed { hit: Hit { rule: None, actions: default, transforms: &[] }, perhaps }
}

/// The shares of a forward's target groups, without the groups that have no share. A single group gets all requests.
#[must_use]
pub fn shares<G>(action: &Action<G>) -> Vec<Share<'_, G>> {
    let Action::Forward { target_groups, .. } = action else { return Vec::new() };
    if let [alone] = target_groups.as_slice() {
        return vec![Share { group: &alone.group, weight: 1, of: 1 }];
    }
    let weight = |weight: Option<i32>| weight.unwrap_or(1).max(0);
    let of = target_groups.iter().fold(0_i32, |sum, target| sum.saturating_add(weight(target.weight)));
    target_groups
        .iter()
        .map(|target| Share { group: &target.group, weight: weight(target.weight), of })
        .filter(|share| share.weight > 0)
        .collect()
}
