//! The limits of a load balancer and of its security group that are known because AWS has refused a step for a quota.

use std::collections::BTreeSet;

use super::{ObservedListener, ObservedLoadBalancer, ObservedStack};

/// A quota that a change can run into although neither its beginning nor its end exceeds it: what comes is made before what
/// goes is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// Listeners of a load balancer.
    Listeners,
    /// Rules of a load balancer, default rules not counted.
    Rules,
    /// Target groups that the listeners and rules of a load balancer name.
    TargetGroups,
    /// Certificates of a load balancer, default certificates not counted.
    Certificates,
    /// Inbound rules of a security group.
    SecurityGroupRules,
}

impl Quota {
    /// Returns the quota that an error of ELB v2 or EC2 names, by its code; `None` for the code of another error.
    #[must_use]
    pub fn of_code(code: &str) -> Option<Self> {
        match code {
            "TooManyListeners" => Some(Self::Listeners),
            "TooManyRules" => Some(Self::Rules),
            "TooManyUniqueTargetGroupsPerLoadBalancer" => Some(Self::TargetGroups),
            "TooManyCertificates" => Some(Self::Certificates),
            "RulesPerSecurityGroupLimitExceeded" => Some(Self::SecurityGroupRules),
            _ => None,
        }
    }

    /// Returns the name of the counted resources, for messages.
    #[must_use]
    pub fn counted(self) -> &'static str {
        match self {
            Self::Listeners => "listeners",
            Self::Rules => "rules",
            Self::TargetGroups => "target groups",
            Self::Certificates => "certificates",
            Self::SecurityGroupRules => "rules of the security group",
        }
    }

    /// Returns how many there are, on the load balancer or in the security group that has most.
    fn count(self, observed: &ObservedStack) -> usize {
        let of = |count: &dyn Fn(&ObservedLoadBalancer) -> usize| observed.load_balancers.iter().map(count).max();
        let sum = |balancer: &ObservedLoadBalancer, count: fn(&ObservedListener) -> usize| -> usize {
            balancer.known_listeners().map(count).sum()
        };
        let count = match self {
            Self::Listeners => of(&|balancer| balancer.known_listeners().count()),
            Self::Rules => of(&|balancer| sum(balancer, |listener| listener.rules.len())),
            Self::Certificates => of(&|balancer| sum(balancer, |listener| listener.certificates.len())),
            Self::TargetGroups => of(&|balancer| balancer.target_groups().collect::<BTreeSet<_>>().len()),
            Self::SecurityGroupRules => observed.security_groups.iter().map(|group| group.ingress.len()).max(),
        };
        count.unwrap_or_default()
    }
}

/// The most that there may be of each, where AWS has refused more; `None` where it has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownLimits {
    /// Listeners of the load balancer.
    pub listeners: Option<usize>,
    /// Rules of the load balancer.
    pub rules: Option<usize>,
    /// Target groups of the load balancer.
    pub target_groups: Option<usize>,
    /// Certificates of the load balancer.
    pub certificates: Option<usize>,
    /// Inbound rules of the security group.
    pub security_group_rules: Option<usize>,
}

impl KnownLimits {
    /// Returns what is known when AWS, in the state `observed`, has refused one more for a quota. `None` where that is nothing
    /// new: then planning again does not help.
    #[must_use]
    pub fn refused(mut self, quota: Quota, observed: &ObservedStack) -> Option<Self> {
        let known = match quota {
            Quota::Listeners => &mut self.listeners,
            Quota::Rules => &mut self.rules,
            Quota::TargetGroups => &mut self.target_groups,
            Quota::Certificates => &mut self.certificates,
            Quota::SecurityGroupRules => &mut self.security_group_rules,
        };
        let most = quota.count(observed);
        if known.is_some_and(|known| known <= most) {
            return None;
        }
        *known = Some(most);
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ObservedSecurityGroup, SecurityGroupId, SecurityGroupRule, Source, Tags};

    fn with_rules(count: u8) -> ObservedStack {
        let rule = |number: u8| SecurityGroupRule {
            protocol: "tcp".to_owned(),
            from_port: Some(80),
            to_port: Some(80),
            source: Source::Ipv4(format!("10.0.{number}.0/24")),
            description: String::new(),
        };
        let group = ObservedSecurityGroup {
            id: SecurityGroupId::new("sg-1"),
            name: "own".to_owned(),
            tags: Tags::new(),
            ingress: (0..count).map(rule).collect(),
        };
        ObservedStack { security_groups: vec![group], ..ObservedStack::default() }
    }

    #[test]
    fn a_refusal_says_how_many_fit_and_one_more_of_them_says_nothing_new() {
        let quota = Quota::SecurityGroupRules;
        let full = KnownLimits::default().refused(quota, &with_rules(60)).unwrap();
        assert_eq!(full, KnownLimits { security_group_rules: Some(60), ..KnownLimits::default() });
        assert_eq!(full.refused(quota, &with_rules(60)), None);
        // A prefix list counts as many times as it has entries.
        assert_eq!(full.refused(quota, &with_rules(50)).unwrap().security_group_rules, Some(50));
        assert_eq!(full.refused(Quota::Rules, &with_rules(60)).unwrap().rules, Some(0));
    }
}
