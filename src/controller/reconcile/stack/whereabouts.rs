//! The load balancers that members publish, and the decision which one they come to publish.

use std::collections::{BTreeMap, BTreeSet};

use albatross_core::{
    desired::{self, Membership},
    model::{LoadBalancerArn, ObjectName, ObservedLoadBalancer, ObservedStack, Stack, StackId},
    snapshot::{Snapshot, StatusEntry},
};

/// The load balancer that the status of a member names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// None, or the controller does not publish any for the object, or one that serves nobody as it was deleted.
    Nowhere,
    /// The desired one of the stack.
    Here,
    /// One of the stack that another replaces.
    Former(LoadBalancerArn),
    /// Another stack's, or another program's, which may be no load balancer that AWS's API for them knows.
    Elsewhere,
}

/// The load balancers that a status may name.
struct LoadBalancers<'a> {
    /// The name of the desired one of the stack.
    name: Option<&'a str>,
    /// The desired one of the stack, if AWS has it.
    current: Option<&'a ObservedLoadBalancer>,
    /// All of the stack that AWS has.
    own: &'a [ObservedLoadBalancer],
}

impl LoadBalancers<'_> {
    fn named_by(&self, status: &[StatusEntry]) -> Whereabouts {
        let names = |balancer: &&ObservedLoadBalancer| {
            status.iter().any(|entry| entry.hostname.eq_ignore_ascii_case(&balancer.dns_name))
        };
        if self.current.filter(names).is_some() {
            return Whereabouts::Here;
        }
        match self.own.iter().find(names) {
            Some(former) => Whereabouts::Former(former.arn.clone()),
            None if status.iter().all(|entry| self.is_gone(&entry.hostname)) => Whereabouts::Nowhere,
            None => Whereabouts::Elsewhere,
        }
    }

    /// Returns true for the host name of an earlier load balancer with the name of the desired one: AWS has only one of a name
    /// in a region and account, and this is not it. A host name begins with `internal-` for a scheme of Application Load
    /// Balancers, the name, and a number (`DNSName` of DescribeLoadBalancers).
    fn is_gone(&self, host: &str) -> bool {
        let label = host.split('.').next().unwrap_or(host);
        let label = label.to_lowercase();
        let Some((name, number)) = label.strip_prefix("internal-").unwrap_or(&label).rsplit_once('-') else {
            return false;
        };
        self.name.is_some_and(|own| own.eq_ignore_ascii_case(name)) && number.bytes().all(|b| b.is_ascii_hexdigit())
    }
}

impl Whereabouts {
    /// Returns the whereabouts of an object that carries the finalizer of a stack, before its load balancer is known.
    pub(crate) fn of_moving(name: &ObjectName, stack: &StackId, snapshot: &Snapshot, observed: &ObservedStack) -> Self {
        let balancers = LoadBalancers { name: None, current: None, own: &observed.load_balancers };
        balancers.named_by(desired::published(snapshot, stack, name))
    }

    /// Returns the whereabouts of the members that a stack serves.
    pub(crate) fn of_served(
        membership: &Membership,
        stack: &Stack,
        snapshot: &Snapshot,
        observed: &ObservedStack,
    ) -> BTreeMap<ObjectName, Self> {
        let wanted = stack.load_balancer.as_ref();
        let current = wanted.and_then(|wanted| observed.current(wanted));
        let name = wanted.and_then(|wanted| wanted.name.known()).map(|name| name.as_str());
        let balancers = LoadBalancers { name, current, own: &observed.load_balancers };
        let served = membership.served().filter(|name| !stack.frozen.members.contains(&stack.id.member(name)));
        let of = |name: &ObjectName| balancers.named_by(desired::published(snapshot, &stack.id, name));
        served.map(|name| (name.clone(), of(name))).collect()
    }

    /// Returns true if another load balancer serves the member until that of the stack is published.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Former(_) | Self::Elsewhere)
    }
}

/// Returns the Network Load Balancers in front that the status of a member names although another one replaces them.
pub(crate) fn shown_in_front(
    membership: &Membership,
    stack: &Stack,
    snapshot: &Snapshot,
    observed: &ObservedStack,
) -> BTreeSet<LoadBalancerArn> {
    let Some(wanted) = &stack.frontend else { return BTreeSet::new() };
    let entries = membership.served().flat_map(|name| desired::published(snapshot, &stack.id, name));
    let hosts: BTreeSet<String> = entries.map(|entry| entry.hostname.to_lowercase()).collect();
    let replaced = observed.frontend.load_balancers.iter().filter(|other| !wanted.load_balancer.can_be(other));
    replaced.filter(|old| hosts.contains(&old.dns_name.to_lowercase())).map(|old| old.arn.clone()).collect()
}

/// The load balancer whose name a stack publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// One that the desired one replaces, which does not serve yet.
    Former,
    /// The desired one.
    Current {
        /// True if it serves.
        active: bool,
    },
}

/// The decision on the status of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publication {
    /// The name is published, if it is not.
    Now,
    /// The status stays as it is.
    Later,
    /// The name is published when the member's rules have had the time to be everywhere.
    Everywhere,
}

/// Returns the decision for a member: clients come with the name. `lacks_rules` is true if not all rules of the member are
/// as desired.
pub(crate) fn publication(whereabouts: &Whereabouts, lacks_rules: bool, published: Published) -> Publication {
    match (published, whereabouts) {
        // Rules are made on the desired one: who comes does not come to the other.
        (Published::Former, Whereabouts::Nowhere | Whereabouts::Elsewhere) => Publication::Later,
        (Published::Former, _) | (_, Whereabouts::Here) => Publication::Now,
        (Published::Current { .. }, _) if lacks_rules => Publication::Later,
        (Published::Current { .. }, Whereabouts::Nowhere) => Publication::Now,
        (Published::Current { active }, _) if active => Publication::Everywhere,
        (Published::Current { .. }, _) => Publication::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use albatross_core::testing::load_balancer;

    fn status(hosts: &[&str]) -> Vec<StatusEntry> {
        hosts.iter().map(|host| StatusEntry { hostname: (*host).to_owned(), ports: Vec::new() }).collect()
    }

    #[test]
    fn a_status_names_the_desired_load_balancer_a_former_one_another_or_none() {
        let (new, old) = (load_balancer("arn:new", "Shop-7.elb"), load_balancer("arn:old", "Old-1.elb"));
        let all = [new.clone(), old];
        let former = Whereabouts::Former(LoadBalancerArn::new("arn:old"));
        for (hosts, known, expected) in [
            (&[][..], true, Whereabouts::Nowhere),
            (&["shop-7.elb"], true, Whereabouts::Here),
            (&["other-2.elb", "SHOP-7.elb"], true, Whereabouts::Here),
            (&["old-1.elb"], true, former.clone()),
            // Another group's, a Classic Load Balancer, another program's address, or one in another network.
            (&["other-2.elb"], true, Whereabouts::Elsewhere),
            (&["a1b2c3d4-5.eu-west-1.elb.amazonaws.com"], true, Whereabouts::Elsewhere),
            (&[""], true, Whereabouts::Elsewhere),
            (&["shop-eu-7.elb"], true, Whereabouts::Elsewhere),
            (&["shop.example.com"], true, Whereabouts::Elsewhere),
            // It was deleted: no other one can have its name.
            (&["shop-1.eu-west-1.elb.amazonaws.com"], true, Whereabouts::Nowhere),
            (&["internal-shop-1.eu-west-1.elb.amazonaws.com"], true, Whereabouts::Nowhere),
            (&["shop-0a1b2c3d4e5f6789.elb.eu-west-1.amazonaws.com"], true, Whereabouts::Nowhere),
            (&["shop-1.elb", "other-2.elb"], true, Whereabouts::Elsewhere),
            // Before a stack is built, all of its load balancers are alike.
            (&["old-1.elb"], false, former),
            (&["other-2.elb"], false, Whereabouts::Elsewhere),
        ] {
            let (name, current) = (Some("Shop").filter(|_| known), Some(&new).filter(|_| known));
            let balancers = LoadBalancers { name, current, own: &all };
            assert_eq!(balancers.named_by(&status(hosts)), expected, "{hosts:?} {known}");
        }
    }

    #[test]
    fn names_are_published_when_clients_find_their_rules_there() {
        use Publication::{Everywhere, Later, Now};
        let places = [
            Whereabouts::Nowhere,
            Whereabouts::Here,
            Whereabouts::Former(LoadBalancerArn::new("arn:old")),
            Whereabouts::Elsewhere,
        ];
        for (published, lacks_rules, expected) in [
            // A new load balancer is published before it serves, as aws-load-balancer-controller does.
            (Published::Current { active: false }, false, [Now, Now, Later, Later]),
            (Published::Current { active: true }, false, [Now, Now, Everywhere, Everywhere]),
            (Published::Current { active: true }, true, [Later, Now, Later, Later]),
            (Published::Former, false, [Later, Now, Now, Later]),
            (Published::Former, true, [Later, Now, Now, Later]),
        ] {
            let decided = places.each_ref().map(|place| publication(place, lacks_rules, published));
            assert_eq!(decided, expected, "{published:?} {lacks_rules}");
        }
    }
}
