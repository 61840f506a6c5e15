//! The quotas of an account (ELB v2 DescribeAccountLimits).

use std::collections::BTreeSet;

use crate::model::{ObservedLoadBalancer, ObservedStack};

/// The limits of one Application Load Balancer. They can be raised for an account, and are never below AWS's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `rules-per-application-load-balancer`, default rules not counted.
    pub rules: usize,
    /// `target-groups-per-application-load-balancer`
    pub target_groups: usize,
    /// `certificates-per-application-load-balancer`, default certificates not counted.
    pub certificates: usize,
    /// `listeners-per-application-load-balancer`
    pub listeners: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rules: 100, target_groups: 100, certificates: 25, listeners: 50 }
    }
}

impl Limits {
    /// No limit: what stands where the account's limits are not known, and nothing is refused for them.
    pub const UNKNOWN: Self =
        Self { rules: usize::MAX, target_groups: usize::MAX, certificates: usize::MAX, listeners: usize::MAX };

    /// Returns the limits, raised to what the load balancers of a stack have already.
    #[must_use]
    pub fn raised_to_current(self, observed: &ObservedStack) -> Self {
        let of_one = |balancer: &ObservedLoadBalancer| {
            let listeners = || balancer.known_listeners();
            Self {
                rules: listeners().map(|listener| listener.rules.len()).sum(),
                target_groups: balancer.target_groups().collect::<BTreeSet<_>>().len(),
                certificates: listeners().map(|listener| listener.certificates.len()).sum(),
                listeners: listeners().count(),
            }
        };
        observed.load_balancers.iter().map(of_one).fold(self, |most, has| Self {
            rules: most.rules.max(has.rules),
            target_groups: most.target_groups.max(has.target_groups),
            certificates: most.certificates.max(has.certificates),
            listeners: most.listeners.max(has.listeners),
        })
    }

    /// The limits that AWS names; what it does not name has its default.
    #[must_use]
    pub fn of<'a>(named: impl IntoIterator<Item = (&'a str, usize)>) -> Self {
        let mut limits = Self::default();
        for (name, most) in named {
            let limit = match name {
                "rules-per-application-load-balancer" => &mut limits.rules,
                "target-groups-per-application-load-balancer" => &mut limits.target_groups,
                "certificates-per-application-load-balancer" => &mut limits.certificates,
                "listeners-per-application-load-balancer" => &mut limits.listeners,
                _ => continue,
            };
            *limit = most;
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_aws_does_not_name_has_its_default() {
        let named = [("rules-per-application-load-balancer", 200), ("targets-per-network-load-balancer", 3000)];
        assert_eq!(Limits::of(named), Limits { rules: 200, ..Limits::default() });
    }
}
