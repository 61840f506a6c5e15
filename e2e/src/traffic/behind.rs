//! The AWS resources behind the objects of a scenario, as the account has them: no node of a load balancer knows them sooner.

use std::collections::{BTreeMap, BTreeSet};

use albatross_fabric::account::{Account, LoadBalancer, SecurityGroup, TargetGroup};
use albatross_fabric::health;
use anyhow::{Result, ensure};

/// The load balancers with certain host names, and what decides where their requests go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Behind {
    /// By ARN.
    pub(super) balancers: BTreeMap<String, LoadBalancer>,
    /// Those that their listeners and rules name, by ARN.
    pub(super) groups: BTreeMap<String, TargetGroup>,
    /// Those of the load balancers, by id.
    security_groups: BTreeMap<String, SecurityGroup>,
}

impl Behind {
    /// Returns what the account has behind host names.
    pub(super) fn new(account: &Account, names: &BTreeSet<String>) -> Self {
        let is_ours = |balancer: &LoadBalancer| names.contains(&balancer.dns_name.to_ascii_lowercase());
        let ours = account.load_balancers.iter().filter(|(_, balancer)| is_ours(balancer));
        let balancers: BTreeMap<_, _> = ours.map(|(arn, balancer)| (arn.clone(), balancer.clone())).collect();
        let arns: BTreeSet<&str> = balancers.values().flat_map(health::groups_of).collect();
        let groups = account.target_groups.iter().filter(|(arn, _)| arns.contains(arn.as_str()));
        let ids: BTreeSet<&String> = balancers.values().flat_map(|balancer| &balancer.security_groups).collect();
        let security_groups = account.security_groups.iter().filter(|(id, _)| ids.contains(id));
        Self {
            groups: groups.map(|(arn, group)| (arn.clone(), group.clone())).collect(),
            security_groups: security_groups.map(|(id, group)| (id.clone(), group.clone())).collect(),
            balancers,
        }
    }

    /// Fails if a target group does not fit, or if there is none.
    pub(super) fn all_groups(&self, what: &str, fits: impl Fn(&TargetGroup) -> bool) -> Result<bool> {
        ensure!(!self.groups.is_empty(), "no target group is behind it");
        let others: Vec<&str> = self.groups.values().filter(|group| !fits(group)).map(|it| it.name.as_str()).collect();
        ensure!(others.is_empty(), "{what} is not so of {}", others.join(", "));
        Ok(true)
    }

    /// Fails if a load balancer does not fit, or if there is none.
    pub(super) fn all_balancers(&self, what: &str, fits: impl Fn(&LoadBalancer) -> bool) -> Result<bool> {
        ensure!(!self.balancers.is_empty(), "there is no load balancer");
        let others = self.balancers.values().filter(|balancer| !fits(balancer));
        let others: Vec<&str> = others.map(|balancer| balancer.name.as_str()).collect();
        ensure!(others.is_empty(), "{what} is not so of {}", others.join(", "));
        Ok(true)
    }

    /// Fails if the targets of a group are not these addresses, or if there is no group.
    pub(super) fn targets_are(&self, addresses: &BTreeSet<String>) -> Result<bool> {
        ensure!(!self.groups.is_empty(), "no target group is behind it");
        for group in self.groups.values() {
            let targets: BTreeSet<String> = group.targets.iter().map(|target| target.id.clone()).collect();
            ensure!(targets == *addresses, "the targets of {} are {targets:?}, the pods {addresses:?}", group.name);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account() -> Account {
        let forward = |arn: &str| json!([{"type": "forward", "targetGroups": [{"arn": arn, "weight": 1}]}]);
        let balancer = |dns_name: &str, group: &str, security_group: &str| {
            json!({
                "name": dns_name.split('.').next(),
                "dnsName": dns_name,
                "kind": "application",
                "active": true,
                "public": true,
                "subnets": [],
                "securityGroups": [security_group],
                "attributes": {},
                "listeners": {"80": {"arn": "li", "protocol": "HTTP", "defaultActions": forward(group)}},
            })
        };
        let group = |name: &str, target: &str| {
            json!({
                "name": name,
                "protocol": "HTTP",
                "targetType": "ip",
                "healthCheck": {
                    "protocol": "HTTP", "port": null, "path": "/", "matcher": "200", "intervalSeconds": 5,
                    "timeoutSeconds": 2, "healthyThreshold": 2, "unhealthyThreshold": 2,
                },
                "attributes": {},
                "targets": [{"id": target, "port": 80}],
            })
        };
        let account = json!({
            "loadBalancers": {
                "one": balancer("One.elb.amazonaws.com", "tg-1", "sg-1"),
                "two": balancer("two.elb.amazonaws.com", "tg-2", "sg-2"),
            },
            "targetGroups": {"tg-1": group("a", "10.0.0.1"), "tg-2": group("b", "10.0.0.2"), "tg-3": group("c", "10.0.0.3")},
            "securityGroups": {"sg-1": {"ingress": []}, "sg-2": {"ingress": []}},
        });
        serde_json::from_value(account).unwrap()
    }

    #[test]
    fn only_what_is_behind_the_names_counts() {
        let behind = |name: &str| Behind::new(&account(), &BTreeSet::from([name.to_owned()]));
        let one = behind("one.elb.amazonaws.com");
        let keys = |behind: &Behind| {
            let balancers: Vec<_> = behind.balancers.keys().cloned().collect();
            let groups: Vec<_> = behind.groups.keys().cloned().collect();
            let security_groups: Vec<_> = behind.security_groups.keys().cloned().collect();
            (balancers, groups, security_groups)
        };
        let owned = |text: &str| vec![text.to_owned()];
        assert_eq!(keys(&one), (owned("one"), owned("tg-1"), owned("sg-1")));
        assert!(one.targets_are(&BTreeSet::from(["10.0.0.1".to_owned()])).unwrap());
        let error = one.targets_are(&BTreeSet::from(["10.0.0.2".to_owned()])).unwrap_err().to_string();
        assert_eq!(error, r#"the targets of a are {"10.0.0.1"}, the pods {"10.0.0.2"}"#);
        assert!(one.all_groups("the port", |group| group.targets.iter().all(|target| target.port == 80)).unwrap());
        let error = one.all_balancers("being internal", |balancer| !balancer.public).unwrap_err().to_string();
        assert_eq!(error, "being internal is not so of One");
        let none = behind("three.elb.amazonaws.com");
        assert_eq!(none, Behind::default());
        assert_eq!(none.all_groups("?", |_| true).unwrap_err().to_string(), "no target group is behind it");
    }
}
