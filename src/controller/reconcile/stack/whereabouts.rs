//! The load balancers that members publish, and the decision which one they come to publish.

use std::collections::BTreeMap;

use albatross_core::{
    desired::{self, Membership},
    model::{LoadBalancerArn, ObjectName, ObservedLoadBalancer, ObservedStack, Stack, StackId},
    snapshot::{Snapshot, StatusEntry},
};

/// The load balancer that the status of a member names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// None that is known, or the controller does not publish any for the object. One that was deleted serves nobody.
    Nowhere,
    /// The desired one of the stack.
    Here,
    /// One of the stack that another replaces.
    Former(LoadBalancerArn),
    /// Another stack's, or another program's.
    Elsewhere,
}

/// The load balancers that a status may name.
pub(crate) struct LoadBalancers<'a> {
    /// The desired one of the stack, if it is known.
    current: Option<&'a ObservedLoadBalancer>,
    /// All of the stack.
    own: &'a [ObservedLoadBalancer],
    /// True for the host name, in lower case, of any other.
    others: &'a dyn Fn(&str) -> bool,
}

impl LoadBalancers<'_> {
    fn named_by(&self, status: &[StatusEntry]) -> Whereabouts {
        let names = |balancer: &&ObservedLoadBalancer| {
            let host = balancer.dns_name.to_lowercase();
            status.iter().any(|entry| entry.hostname == host)
        };
        if self.current.filter(names).is_some() {
            return Whereabouts::Here;
        }
        match self.own.iter().find(names) {
            Some(former) => Whereabouts::Former(former.arn.clone()),
            None if status.iter().any(|entry| (self.others)(&entry.hostname)) => Whereabouts::Elsewhere,
            None => Whereabouts::Nowhere,
        }
    }
}

impl Whereabouts {
    /// Returns the whereabouts of an object that carries the finalizer of a stack, before its load balancer is known.
    pub(crate) fn of_moving(
        name: &ObjectName,
        stack: &StackId,
        snapshot: &Snapshot,
        observed: &ObservedStack,
        others: &dyn Fn(&str) -> bool,
    ) -> Self {
        let balancers = LoadBalancers { current: None, own: &observed.load_balancers, others };
        balancers.named_by(desired::published(snapshot, stack, name))
    }

    /// Returns the whereabouts of the members that a stack serves.
    pub(crate) fn of_served(
        membership: &Membership,
        stack: &Stack,
        snapshot: &Snapshot,
        observed: &ObservedStack,
        others: &dyn Fn(&str) -> bool,
    ) -> BTreeMap<ObjectName, Self> {
        let current = stack.load_balancer.as_ref().and_then(|wanted| observed.current(wanted));
        let balancers = LoadBalancers { current, own: &observed.load_balancers, others };
        let served = membership.served().filter(|name| !stack.frozen.members.contains(&stack.id.member(name)));
        let of = |name: &ObjectName| balancers.named_by(desired::published(snapshot, &stack.id, name));
        served.map(|name| (name.clone(), of(name))).collect()
    }

    /// Returns true if another load balancer serves the member until that of the stack is published.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Former(_) | Self::Elsewhere)
    }
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
        let (new, old) = (load_balancer("arn:new", "New.elb"), load_balancer("arn:old", "Old.elb"));
        let all = [new.clone(), old];
        let former = Whereabouts::Former(LoadBalancerArn::new("arn:old"));
        for (hosts, known, expected) in [
            (&[][..], true, Whereabouts::Nowhere),
            (&["new.elb"], true, Whereabouts::Here),
            (&["gone.elb", "new.elb"], true, Whereabouts::Here),
            (&["old.elb"], true, former.clone()),
            (&["other.elb"], true, Whereabouts::Elsewhere),
            (&["gone.elb"], true, Whereabouts::Nowhere),
            (&[""], true, Whereabouts::Nowhere),
            // Before a stack is built, all of its load balancers are alike.
            (&["old.elb"], false, former),
            (&["other.elb"], false, Whereabouts::Elsewhere),
        ] {
            let current = Some(&new).filter(|_| known);
            let balancers = LoadBalancers { current, own: &all, others: &|host| host == "other.elb" };
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
