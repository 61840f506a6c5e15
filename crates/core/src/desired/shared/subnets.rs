//! The subnets of a load balancer, and the existing load balancers on which they depend.

use std::collections::BTreeSet;

use crate::{
    facts::{ExistingLoadBalancer, Facts, SubnetQuery},
    model::{LoadBalancerKind, Scheme, SubnetId},
};

/// Returns the load balancers of the stack, first the one that clients are sent to.
pub(in crate::desired) fn all_existing(facts: &Facts) -> impl Iterator<Item = &ExistingLoadBalancer> {
    facts.existing.iter().chain(&facts.other_existing)
}

/// Returns the existing load balancer of a scheme. One of another scheme is replaced, since AWS cannot change it.
pub(in crate::desired) fn existing_of_scheme(facts: &Facts, scheme: Scheme) -> Option<&ExistingLoadBalancer> {
    all_existing(facts).find(|existing| existing.scheme == scheme)
}

/// Returns the load balancer that one of this scheme is made to replace. `None` where none is made, or none is replaced.
pub(in crate::desired) fn replaced_by(facts: &Facts, scheme: Scheme) -> Option<&ExistingLoadBalancer> {
    all_existing(facts).next().filter(|_| existing_of_scheme(facts, scheme).is_none())
}

/// The subnets where users choose none.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::desired) enum Unchosen<'f> {
    /// Those of the existing load balancer, which are not looked at.
    Kept(&'f BTreeSet<SubnetId>),
    /// Those of the existing load balancer, looked at.
    Checked(SubnetQuery),
    /// Those that their tags name for the scheme.
    Discovered(SubnetQuery),
}

/// Returns the subnets of a load balancer where users choose none. With `check`, those of an existing load balancer are looked
/// at too.
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
