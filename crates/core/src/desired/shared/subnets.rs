//! The subnets of a load balancer, and the existing load balancers on which they depend.

use std::collections::BTreeSet;

use crate::{
    facts::{ExistingLoadBalancer, Facts, SubnetQuery},
    model::{LoadBalancerKind, Scheme, SubnetId},
};

/// Returns the load balancers of the stack, beginning with the one whose host name is published.
pub(in crate::desired) fn all_existing(facts: &Facts) -> impl Iterator<Item = &ExistingLoadBalancer> {
    facts.existing.iter().chain(&facts.other_existing)
}

/// Returns the existing load balancer with a scheme. One with another scheme is replaced, since AWS cannot change the
/// scheme.
pub(in crate::desired) fn existing_of_scheme(facts: &Facts, scheme: Scheme) -> Option<&ExistingLoadBalancer> {
    all_existing(facts).find(|existing| existing.scheme == scheme)
}

/// Returns the load balancer that a new one with this scheme replaces; `None` if no load balancer is created, or none
/// is replaced.
pub(in crate::desired) fn replaced_by(facts: &Facts, scheme: Scheme) -> Option<&ExistingLoadBalancer> {
    all_existing(facts).next().filter(|_| existing_of_scheme(facts, scheme).is_none())
}

/// The subnets of a load balancer for which users choose none.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::desired) enum Unchosen<'f> {
    /// The subnets of the existing load balancer, unchecked.
    Kept(&'f BTreeSet<SubnetId>),
    /// The subnets of the existing load balancer, to be checked.
    Checked(SubnetQuery),
    /// The subnets whose tags mark them for the scheme.
    Discovered(SubnetQuery),
}

/// Returns the subnets of a load balancer for which users choose none. With `check`, the subnets of an existing load
/// balancer are checked too.
pub(in crate::desired) fn unchosen(
    facts: &Facts,
    kind: LoadBalancerKind,
    scheme: Scheme,
    ipv6: bool,
    check: bool,
) -> Unchosen<'_> {
    match existing_of_scheme(facts, scheme) {
        Some(existing) if check => {
            let names = existing.subnets.iter().map(|id| id.as_str().to_owned()).collect();
            Unchosen::Checked(SubnetQuery::Named { kind, names, ipv6 })
        }
        Some(existing) => Unchosen::Kept(&existing.subnets),
        None => Unchosen::Discovered(SubnetQuery::Discovered { kind, scheme, ipv6 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn existing(scheme: Scheme, subnet: &str) -> ExistingLoadBalancer {
        ExistingLoadBalancer {
            kind: LoadBalancerKind::Network,
            scheme,
            has_security_groups: true,
            has_ipv6: false,
            has_quic: false,
            customer_owned_pool: None,
            subnets: [SubnetId::new(subnet)].into(),
        }
    }

    #[test]
    fn subnets_that_nobody_chooses() {
        use Scheme::{Internal, InternetFacing};
        let kind = LoadBalancerKind::Network;
        let named = |name: &str| SubnetQuery::Named { kind, names: vec![name.to_owned()], ipv6: false };
        let (a, b) = (existing(Internal, "subnet-a"), existing(InternetFacing, "subnet-b"));
        let discovered = |scheme| Unchosen::Discovered(SubnetQuery::Discovered { kind, scheme, ipv6: false });
        for (first, others, scheme, check, expected, replaced) in [
            (None, vec![], Internal, true, discovered(Internal), None),
            (Some(&a), vec![], Internal, false, Unchosen::Kept(&a.subnets), None),
            (Some(&a), vec![], Internal, true, Unchosen::Checked(named("subnet-a")), None),
            (Some(&a), vec![], InternetFacing, true, discovered(InternetFacing), Some(&a)),
            (Some(&a), vec![b.clone()], InternetFacing, false, Unchosen::Kept(&b.subnets), None),
        ] {
            let facts = Facts { existing: first.cloned(), other_existing: others, ..Facts::default() };
            assert_eq!(unchosen(&facts, kind, scheme, false, check), expected);
            assert_eq!(replaced_by(&facts, scheme), replaced);
        }
    }
}
