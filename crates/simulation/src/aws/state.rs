//! The resources of the account as plain data that can be compared with another account's: names instead of ARNs and
//! ids, no times, and independent of the order of creation.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    account::{Account, Balancer, Listener, Rule, SecurityGroup, SubnetAddresses, TargetGroup},
    attributes,
};
use albatross_core::model::{
    Action, Attributes, Condition, Source, Tags,
    tags::{INGRESS_RESOURCE, SERVICE_RESOURCE},
};

/// The state of the account, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    pub load_balancers: BTreeMap<String, LoadBalancerState>,
    pub target_groups: BTreeMap<String, TargetGroupState>,
    pub security_groups: BTreeMap<String, SecurityGroupState>,
    /// The certificates that ACM was asked for, by resource and hosts. Records are not compared: a process that ends between the
    /// deletion of a certificate and that of its records leaves them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub certificates: BTreeSet<String>,
    /// The calls that are not simulated, which is always an error of the simulation or of the caller.
    pub not_simulated: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadBalancerState {
    pub kind: String,
    pub scheme: String,
    pub ip_address_type: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub source_nat: bool,
    pub private_link_rules: bool,
    /// The reserved capacity units, 0 for none.
    pub capacity: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam_pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_owned_pool: Option<String>,
    /// The ids of the subnets, which are the same in each simulation, and the requested addresses.
    pub subnets: BTreeMap<String, SubnetAddresses>,
    /// The names of the security groups.
    pub security_groups: BTreeSet<String>,
    /// The attributes that differ from AWS's defaults.
    pub attributes: Attributes,
    pub tags: Tags,
    /// The listeners by port.
    pub listeners: BTreeMap<u16, ListenerState>,
    /// The ARN of the web ACL, which is the same in each simulation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_acl: Option<String>,
    /// The name of the protection of Shield Advanced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protection: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenerState {
    pub protocol: String,
    pub default_action: Action<String>,
    pub default_certificate: Option<String>,
    pub certificates: BTreeSet<String>,
    pub ssl_policy: Option<String>,
    pub alpn_policy: Option<String>,
    pub attributes: Attributes,
    pub tags: Tags,
    /// The rules in order of precedence.
    pub rules: Vec<RuleState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleState {
    pub conditions: Vec<Condition>,
    /// The action, with target groups by name.
    pub action: Action<String>,
    /// The tags, without the priority in `ingress.k8s.aws/resource`, which the rule was created with and keeps when it
    /// is moved.
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetGroupState {
    pub target_type: String,
    pub ip_address_type: String,
    pub protocol: String,
    pub protocol_version: Option<String>,
    pub port: u16,
    /// A description of the health check.
    pub health_check: String,
    /// The attributes that differ from AWS's defaults.
    pub attributes: Attributes,
    pub tags: Tags,
    /// The registered targets as `id:port`, with ` as ` and the QUIC server id if they have one, without draining ones.
    pub targets: BTreeSet<String>,
    /// The names of the load balancers whose listeners or rules name the target group.
    pub used_by: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecurityGroupState {
    pub description: String,
    /// Descriptions of the rules, with names of security groups.
    pub ingress: BTreeSet<String>,
    pub tags: Tags,
}

impl Account {
    pub(super) fn state(&self) -> State {
        State {
            load_balancers: self.balancers.values().map(|b| (b.name.clone(), self.balancer_state(b))).collect(),
            target_groups: self.target_groups.values().map(|g| (g.name.clone(), self.target_group_state(g))).collect(),
            security_groups: self.security_groups.values().map(|g| (g.name.clone(), self.group_state(g))).collect(),
            certificates: self.certificates.keys().map(|arn| self.certificate_name(arn)).collect(),
            not_simulated: self.not_simulated.clone(),
        }
    }

    /// Returns the name of a target group; the ARN of a deleted one, which no comparison should contain.
    fn target_group_name(&self, arn: &str) -> String {
        self.target_groups.get(arn).map_or(arn, |group| &group.name).to_owned()
    }

    /// Returns the name of a load balancer that is a target, and the id of another target.
    fn target_name<'t>(&'t self, id: &'t str) -> &'t str {
        self.balancers.get(id).map_or(id, |balancer| &balancer.name)
    }

    fn security_group_name(&self, id: &str) -> String {
        self.security_groups.get(id).map_or(id, |group| &group.name).to_owned()
    }

    fn action_state(&self, action: &Action<String>) -> Action<String> {
        let named = action.try_map(|arn| Ok::<_, std::convert::Infallible>(self.target_group_name(arn)));
        let Ok(named) = named;
        named
    }

    fn balancer_state(&self, balancer: &Balancer) -> LoadBalancerState {
        let groups = balancer.security_groups.iter().map(|id| self.security_group_name(id));
        LoadBalancerState {
            kind: balancer.kind.clone(),
            scheme: balancer.scheme.clone(),
            ip_address_type: balancer.ip_address_type.clone(),
            source_nat: balancer.source_nat,
            private_link_rules: balancer.private_link_rules,
            capacity: balancer.capacity,
            ipam_pool: balancer.ipam_pool.clone(),
            customer_owned_pool: balancer.customer_owned_pool.clone(),
            subnets: balancer.subnets.clone(),
            security_groups: groups.collect(),
            attributes: attributes::changed(&balancer.attributes, &attributes::of_load_balancer(&balancer.kind)),
            tags: balancer.tags.clone(),
            listeners: balancer.listeners.values().map(|l| (l.port, self.listener_state(l))).collect(),
            web_acl: balancer.web_acl.clone(),
            protection: balancer.protection.as_ref().map(|(_, name)| name.clone()),
        }
    }

    fn listener_state(&self, listener: &Listener) -> ListenerState {
        let mut rules: Vec<_> = listener.rules.values().collect();
        rules.sort_by_key(|rule| rule.priority);
        ListenerState {
            protocol: listener.protocol.clone(),
            default_action: self.action_state(&listener.default_action),
            default_certificate: listener.default_certificate.as_deref().map(|arn| self.certificate_name(arn)),
            // A certificate that became the default one stays on the list, without effect, until it is removed.
            certificates: listener
                .certificates
                .iter()
                .filter(|c| listener.default_certificate.as_ref() != Some(*c))
                .map(|arn| self.certificate_name(arn))
                .collect(),
            ssl_policy: listener.ssl_policy.clone(),
            alpn_policy: listener.alpn_policy.clone(),
            attributes: attributes::changed(&listener.attributes, &attributes::of_listener(&listener.protocol)),
            tags: listener.tags.clone(),
            rules: rules.into_iter().map(|rule| self.rule_state(rule)).collect(),
        }
    }

    fn rule_state(&self, rule: &Rule) -> RuleState {
        let mut tags = rule.tags.clone();
        for key in [INGRESS_RESOURCE, SERVICE_RESOURCE] {
            if let Some((port, _)) = tags.get(key).and_then(|value| value.split_once(':')) {
                let port = format!("{port}:…");
                tags.insert(key.to_owned(), port);
            }
        }
        RuleState { conditions: rule.conditions.clone(), action: self.action_state(&rule.action), tags }
    }

    fn target_group_state(&self, group: &TargetGroup) -> TargetGroupState {
        let check = &group.check;
        let path = check.path.as_deref().unwrap_or_default();
        let codes = check.matcher.as_ref().map(|(kind, codes)| format!(" {kind} {codes}")).unwrap_or_default();
        let health_check = format!(
            "{}{} {}{path}{codes}, every {} s within {} s, up after {}, down after {}",
            if check.enabled { "" } else { "off: " },
            check.protocol,
            check.port,
            check.interval,
            check.timeout,
            check.healthy,
            check.unhealthy
        );
        let defaults = attributes::of_target_group(&group.protocol, &group.target_type);
        let registered = |target: &(String, u16)| {
            let (id, port) = target;
            let server_id = group.server_ids.get(target).map(|id| format!(" as {id}")).unwrap_or_default();
            format!("{}:{port}{server_id}", self.target_name(id))
        };
        TargetGroupState {
            ip_address_type: group.ip_address_type.clone(),
            target_type: group.target_type.clone(),
            protocol: group.protocol.clone(),
            protocol_version: group.protocol_version.clone(),
            port: group.port,
            health_check,
            attributes: attributes::changed(&group.attributes, &defaults),
            tags: group.tags.clone(),
            targets: group.targets.keys().map(registered).collect(),
            used_by: self.users(&group.arn).map(|balancer| balancer.name.clone()).collect(),
        }
    }

    fn group_state(&self, group: &SecurityGroup) -> SecurityGroupState {
        let rules = group.ingress.iter().map(|rule| {
            let mut named = rule.clone();
            if let Source::SecurityGroup(id) = &mut named.source {
                *id = albatross_core::model::SecurityGroupId::new(self.security_group_name(id.as_str()));
            }
            let description =
                if rule.description.is_empty() { String::new() } else { format!(" ({})", rule.description) };
            format!("{named}{description}")
        });
        SecurityGroupState {
            description: group.description.clone(),
            ingress: rules.collect(),
            tags: group.tags.clone(),
        }
    }
}
