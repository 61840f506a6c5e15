//! The resources of an account, and the state that a single call sees.

use crate::random::{Random, mixed};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Faults,
    certificates::Certificate,
    network::Network,
    roles::Roles,
    wire::{Answer, Refusal, Request, refusal, text},
};
use albatross_core::model::{Action, Attributes, Condition, SecurityGroupRule, Tags};

pub(super) const VPC: &str = "vpc-1";
pub(super) const REGION: &str = "us-west-2";
pub(super) const ACCOUNT: &str = "123456789012";
/// The error code, unknown to AWS, of a request that is not simulated.
pub(super) const UNSUPPORTED: &str = "NotSimulated";

/// The quotas of the account that affect a load balancer controller.
#[derive(Clone, Debug)]
pub struct Limits {
    pub load_balancers: usize,
    pub target_groups: usize,
    /// Listeners of each load balancer.
    pub listeners: usize,
    /// Rules of each load balancer.
    pub rules: usize,
    /// Target groups of each Application Load Balancer.
    pub unique_target_groups: usize,
    /// Certificates of each listener, without the default one.
    pub certificates: usize,
    /// Targets of each target group.
    pub targets: usize,
    /// Security groups of the VPC.
    pub security_groups: usize,
    /// Rules of each security group.
    pub security_group_rules: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            load_balancers: 50,
            target_groups: 3_000,
            listeners: 50,
            rules: 100,
            unique_target_groups: 100,
            certificates: 25,
            targets: 1_000,
            security_groups: 2_500,
            security_group_rules: 60,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Balancer {
    pub arn: String,
    pub name: String,
    /// The type: `application` or `network`.
    pub kind: String,
    pub scheme: String,
    pub ip_address_type: String,
    /// `EnablePrefixForIpv6SourceNat` of a Network Load Balancer.
    pub source_nat: bool,
    /// `EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic` of a Network Load Balancer with security groups.
    pub private_link_rules: bool,
    /// The reserved capacity units, 0 for none.
    pub capacity: i32,
    pub ipam_pool: Option<String>,
    pub customer_owned_pool: Option<String>,
    /// The subnets, each with the requested addresses.
    pub subnets: BTreeMap<String, SubnetAddresses>,
    pub security_groups: BTreeSet<String>,
    /// True if the load balancer was created with security groups. A Network Load Balancer created without any can
    /// never be given one.
    pub made_in_groups: bool,
    pub attributes: Attributes,
    pub tags: Tags,
    pub listeners: BTreeMap<String, Listener>,
    /// The ARN of the web ACL.
    pub web_acl: Option<String>,
    /// The id and the name of the protection of Shield Advanced.
    pub protection: Option<(String, String)>,
    pub made: Instant,
}

/// The addresses that a load balancer has in a subnet because they were requested.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct SubnetAddresses {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_ipv4: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// The prefix for source NAT, also one that AWS has chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_nat_prefix: Option<String>,
}

impl Balancer {
    pub(super) fn has_ipv6(&self) -> bool {
        self.ip_address_type != "ipv4"
    }

    pub(super) fn is_application(&self) -> bool {
        self.kind == "application"
    }

    /// Returns the target groups that the listeners and rules name.
    pub(super) fn target_groups(&self) -> BTreeSet<&String> {
        let listeners = self.listeners.values();
        let actions = listeners.flat_map(|l| l.rules.values().map(|r| &r.action).chain([&l.default_action]));
        actions.flat_map(Action::target_groups).collect()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub arn: String,
    pub port: u16,
    pub protocol: String,
    pub default_action: Action<String>,
    pub default_certificate: Option<String>,
    /// The certificates other than the default one, which may be repeated here.
    pub certificates: BTreeSet<String>,
    pub ssl_policy: Option<String>,
    pub alpn_policy: Option<String>,
    pub attributes: Attributes,
    pub tags: Tags,
    pub rules: BTreeMap<String, Rule>,
    pub made: Instant,
}

impl Listener {
    pub(super) fn is_secure(&self) -> bool {
        matches!(self.protocol.as_str(), "HTTPS" | "TLS")
    }
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub arn: String,
    pub priority: u32,
    pub conditions: Vec<Condition>,
    pub action: Action<String>,
    pub tags: Tags,
    pub made: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub enabled: bool,
    pub protocol: String,
    pub port: String,
    pub path: Option<String>,
    pub interval: i32,
    pub timeout: i32,
    pub healthy: i32,
    pub unhealthy: i32,
    /// `HttpCode` or `GrpcCode`, and the codes.
    pub matcher: Option<(String, String)>,
}

impl Check {
    /// Returns the default health check of an HTTP target group.
    pub(super) fn of_http() -> Self {
        Self {
            enabled: true,
            protocol: "HTTP".to_owned(),
            port: "traffic-port".to_owned(),
            path: Some("/".to_owned()),
            interval: 30,
            timeout: 5,
            healthy: 5,
            unhealthy: 2,
            matcher: Some(("HttpCode".to_owned(), "200".to_owned())),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct TargetGroup {
    pub arn: String,
    pub name: String,
    pub vpc: String,
    pub target_type: String,
    pub ip_address_type: String,
    pub protocol: String,
    pub protocol_version: Option<String>,
    pub port: u16,
    pub check: Check,
    pub attributes: Attributes,
    pub tags: Tags,
    /// The targets, with the time of their registration.
    pub targets: BTreeMap<(String, u16), Instant>,
    /// The zones of the targets, if the registration named one.
    pub zones: BTreeMap<(String, u16), String>,
    /// The QUIC server ids of the targets.
    pub server_ids: BTreeMap<(String, u16), String>,
    /// The states that a test has set.
    pub healths: BTreeMap<(String, u16), String>,
    /// The deregistered targets, with the time of their deregistration; each serves its open requests for a while.
    pub draining: BTreeMap<(String, u16), Instant>,
    /// The time at which a listener or rule first named the target group.
    pub used_since: Option<Instant>,
    pub made: Instant,
}

#[derive(Clone, Debug)]
pub(super) struct SecurityGroup {
    pub id: String,
    pub name: String,
    pub description: String,
    pub ingress: BTreeSet<SecurityGroupRule>,
    pub tags: Tags,
    pub made: Instant,
}

/// The state of the account.
#[derive(Debug)]
pub(super) struct Account {
    seed: u64,
    made: u64,
    pub limits: Limits,
    pub network: Network,
    pub balancers: BTreeMap<String, Balancer>,
    pub target_groups: BTreeMap<String, TargetGroup>,
    pub security_groups: BTreeMap<String, SecurityGroup>,
    /// The certificates that ACM was asked for, by ARN.
    pub certificates: BTreeMap<String, Certificate>,
    /// Those that were deleted since. ACM answers the tokens of their requests with them for a while.
    pub deleted_certificates: BTreeMap<String, Certificate>,
    /// The CNAMEs of the hosted zones: value by name.
    pub records: BTreeMap<String, String>,
    /// The security groups of deleted load balancers, each with the time at which the network interfaces disappear.
    pub lingering: Vec<(BTreeSet<String>, Instant)>,
    /// The roles of other accounts that may be assumed, and these accounts.
    pub roles: Roles,
    /// The answer that STS gives to everything.
    pub sts_fails: Option<(u16, String, String)>,
    pub other_accounts: BTreeSet<String>,
    /// The targets whose registration is refused.
    pub refused_targets: BTreeSet<String>,
    /// True if the refusal names the targets.
    pub names_refused_targets: bool,
    /// The requests that are not simulated.
    pub not_simulated: Vec<String>,
}

impl Account {
    pub(super) fn new(seed: u64) -> Self {
        let (network, security_groups) = super::network::start();
        Self {
            seed,
            made: 0,
            limits: Limits::default(),
            network,
            balancers: BTreeMap::new(),
            target_groups: BTreeMap::new(),
            security_groups,
            certificates: BTreeMap::new(),
            deleted_certificates: BTreeMap::new(),
            records: BTreeMap::new(),
            lingering: Vec::new(),
            roles: Roles::new(),
            sts_fails: None,
            other_accounts: BTreeSet::new(),
            refused_targets: BTreeSet::new(),
            names_refused_targets: false,
            not_simulated: Vec::new(),
        }
    }

    /// Returns a new id. Ids do not reveal the order of creation.
    pub(super) fn id(&mut self) -> String {
        self.made += 1;
        format!("{:016x}", mixed(mixed(self.seed).wrapping_add(self.made)))
    }

    /// Returns the load balancers whose listeners or rules name a target group.
    pub(super) fn users<'a>(&'a self, group: &'a String) -> impl Iterator<Item = &'a Balancer> {
        self.balancers.values().filter(move |balancer| balancer.target_groups().contains(group))
    }

    /// Returns a listener by its ARN, which contains its load balancer.
    pub(super) fn listener_mut(&mut self, arn: &str) -> Option<&mut Listener> {
        self.balancers.get_mut(&parent(arn)?)?.listeners.get_mut(arn)
    }

    pub(super) fn rule_mut(&mut self, arn: &str) -> Option<&mut Rule> {
        self.listener_mut(&parent(arn)?)?.rules.get_mut(arn)
    }

    /// Returns the tags of a resource, by ARN or id, and the time of its creation.
    pub(super) fn tags_mut(&mut self, id: &str) -> Option<(&mut Tags, Instant)> {
        if id.starts_with("sg-") {
            return self.security_groups.get_mut(id).map(|group| (&mut group.tags, group.made));
        }
        match kind_of(id)? {
            "loadbalancer" => self.balancers.get_mut(id).map(|balancer| (&mut balancer.tags, balancer.made)),
            "targetgroup" => self.target_groups.get_mut(id).map(|group| (&mut group.tags, group.made)),
            "listener" => self.listener_mut(id).map(|listener| (&mut listener.tags, listener.made)),
            "listener-rule" => self.rule_mut(id).map(|rule| (&mut rule.tags, rule.made)),
            _ => None,
        }
    }
}

/// Returns the kind of an ARN: `loadbalancer`, `listener`, `listener-rule` or `targetgroup`.
pub(super) fn kind_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(5)?.split('/').next()
}

/// Returns the ARN of a listener's load balancer, or of a rule's listener.
pub(super) fn parent(arn: &str) -> Option<String> {
    let (above, _) = arn.rsplit_once('/')?;
    match kind_of(arn)? {
        "listener" => Some(above.replacen(":listener/", ":loadbalancer/", 1)),
        "listener-rule" => Some(above.replacen(":listener-rule/", ":listener/", 1)),
        _ => None,
    }
}

/// Returns the refusal of a request that is not simulated; it is recorded in the state and in the log.
pub(super) fn not_simulated(what: impl Into<String>) -> Refusal {
    refusal(UNSUPPORTED, what)
}

/// Returns the refusal for a resource that does not exist, by the kind of its id.
pub(super) fn not_found(id: &str) -> Refusal {
    if id.starts_with("sg-") {
        return refusal("InvalidGroup.NotFound", format!("The security group '{id}' does not exist"));
    }
    match kind_of(id) {
        Some("loadbalancer") => refusal("LoadBalancerNotFound", format!("Load balancer '{id}' not found")),
        Some("listener") => refusal("ListenerNotFound", format!("One or more listeners not found: '{id}'")),
        Some("listener-rule") => refusal("RuleNotFound", format!("One or more rules not found: '{id}'")),
        Some("targetgroup") => refusal("TargetGroupNotFound", format!("One or more target groups not found: '{id}'")),
        _ => refusal("ValidationError", format!("'{id}' is not a valid ARN")),
    }
}

/// A single call to the account.
pub(super) struct Session<'a> {
    pub account: &'a mut Account,
    pub request: &'a Request,
    pub faults: &'a Faults,
    pub page_size: usize,
    pub now: Instant,
    /// True if the call does not see resources that have just been created.
    pub misses_fresh: bool,
    /// True if a list omits resources that have just been created.
    pub lists_without_fresh: bool,
    pub random: Random,
}

impl Session<'_> {
    /// Returns the response to the call.
    pub(super) fn answer(&mut self) -> Answer {
        let answer = match self.request.operation.as_str() {
            "CreateLoadBalancer" => self.create_load_balancer(),
            "DescribeLoadBalancers" => self.describe_load_balancers(),
            "DeleteLoadBalancer" => self.delete_load_balancer(),
            "SetSecurityGroups" => self.set_security_groups(),
            "SetSubnets" => self.set_subnets(),
            "SetIpAddressType" => self.set_ip_address_type(),
            "ModifyIpPools" => self.modify_ip_pools(),
            "DescribeCapacityReservation" => self.describe_capacity_reservation(),
            "ModifyCapacityReservation" => self.modify_capacity_reservation(),
            "DescribeLoadBalancerAttributes" => self.describe_load_balancer_attributes(),
            "ModifyLoadBalancerAttributes" => self.modify_load_balancer_attributes(),
            "CreateListener" => self.create_listener(),
            "DescribeListeners" => self.describe_listeners(),
            "ModifyListener" => self.modify_listener(),
            "DeleteListener" => self.delete_listener(),
            "DescribeListenerAttributes" => self.describe_listener_attributes(),
            "ModifyListenerAttributes" => self.modify_listener_attributes(),
            "AddListenerCertificates" => self.add_listener_certificates(),
            "RemoveListenerCertificates" => self.remove_listener_certificates(),
            "DescribeListenerCertificates" => self.describe_listener_certificates(),
            "CreateRule" => self.create_rule(),
            "DescribeRules" => self.describe_rules(),
            "ModifyRule" => self.modify_rule(),
            "DeleteRule" => self.delete_rule(),
            "SetRulePriorities" => self.set_rule_priorities(),
            "CreateTargetGroup" => self.create_target_group(),
            "DescribeTargetGroups" => self.describe_target_groups(),
            "ModifyTargetGroup" => self.modify_target_group(),
            "DeleteTargetGroup" => self.delete_target_group(),
            "DescribeTargetGroupAttributes" => self.describe_target_group_attributes(),
            "ModifyTargetGroupAttributes" => self.modify_target_group_attributes(),
            "AssumeRole" => self.assume_role(),
            "RegisterTargets" => self.register_targets(),
            "DeregisterTargets" => self.deregister_targets(),
            "DescribeTargetHealth" => self.describe_target_health(),
            "RequestCertificate" => self.request_certificate(),
            "DescribeCertificate" => self.describe_certificate(),
            "ListCertificates" => self.list_certificates(),
            "ListTagsForCertificate" => self.list_tags_for_certificate(),
            "DeleteCertificate" => self.delete_certificate(),
            "ListHostedZones" => self.list_hosted_zones(),
            "ChangeResourceRecordSets" => self.change_resource_record_sets(),
            "ListWebACLs" => self.list_web_acls(),
            "GetWebACLForResource" => self.get_web_acl_for_resource(),
            "AssociateWebACL" => self.associate_web_acl(),
            "DisassociateWebACL" => self.disassociate_web_acl(),
            "GetSubscriptionState" => self.get_subscription_state(),
            "DescribeProtection" => self.describe_protection(),
            "CreateProtection" => self.create_protection(),
            "DeleteProtection" => self.delete_protection(),
            "DescribeTags" => self.describe_tags(),
            "AddTags" => self.add_tags(),
            "RemoveTags" => self.remove_tags(),
            "CreateTags" => self.create_ec2_tags(),
            "DeleteTags" => self.delete_ec2_tags(),
            "CreateSecurityGroup" => self.create_security_group(),
            "DescribeSecurityGroups" => self.describe_security_groups(),
            "DeleteSecurityGroup" => self.delete_security_group(),
            "AuthorizeSecurityGroupIngress" => self.authorize_ingress(),
            "RevokeSecurityGroupIngress" => self.revoke_ingress(),
            "DescribeVpcs" => self.describe_vpcs(),
            "DescribeSubnets" => self.describe_subnets(),
            "DescribeRouteTables" => self.describe_route_tables(),
            "DescribeAvailabilityZones" => self.describe_availability_zones(),
            "DescribeInstances" => self.describe_instances(),
            "DescribeNetworkInterfaces" => self.describe_network_interfaces(),
            operation => Err(not_simulated(format!("operation '{operation}'"))),
        };
        let unread = self.request.unread();
        let answer = match answer {
            Ok(_) if !unread.is_empty() => Err(not_simulated(format!("parameters {}", unread.join(", ")))),
            answer => answer,
        };
        if let Err(Refusal { code, message, .. }) = &answer
            && code == UNSUPPORTED
        {
            self.account.not_simulated.push(format!("{}: {message}", self.request.operation));
        }
        answer
    }

    /// Returns true if the call sees a resource created at that time. AWS does not show a new resource everywhere at
    /// once.
    pub(super) fn sees(&self, made: Instant) -> bool {
        !(self.misses_fresh && self.is_younger(made, self.faults.fresh_for))
    }

    /// Returns true if a list that does not name its resources contains one created at that time.
    pub(super) fn lists(&self, made: Instant) -> bool {
        !(self.lists_without_fresh && self.is_younger(made, self.faults.unlisted_for))
    }

    fn is_younger(&self, made: Instant, age: Duration) -> bool {
        self.now.saturating_duration_since(made) < age
    }

    pub(super) fn balancer(&mut self, arn: &str) -> Result<&mut Balancer, Refusal> {
        let made = self.account.balancers.get(arn).map(|balancer| balancer.made);
        let seen = made.is_some_and(|made| self.sees(made));
        self.account.balancers.get_mut(arn).filter(|_| seen).ok_or_else(|| not_found(arn))
    }

    pub(super) fn listener(&mut self, arn: &str) -> Result<&mut Listener, Refusal> {
        let made = self.account.listener_mut(arn).map(|listener| listener.made);
        let seen = made.is_some_and(|made| self.sees(made));
        self.account.listener_mut(arn).filter(|_| seen).ok_or_else(|| not_found(arn))
    }

    pub(super) fn rule(&mut self, arn: &str) -> Result<&mut Rule, Refusal> {
        let made = self.account.rule_mut(arn).map(|rule| rule.made);
        let seen = made.is_some_and(|made| self.sees(made));
        self.account.rule_mut(arn).filter(|_| seen).ok_or_else(|| not_found(arn))
    }

    pub(super) fn target_group(&mut self, arn: &str) -> Result<&mut TargetGroup, Refusal> {
        self.may_reach(arn)?;
        let made = self.account.target_groups.get(arn).map(|group| group.made);
        let seen = made.is_some_and(|made| self.sees(made));
        self.account.target_groups.get_mut(arn).filter(|_| seen).ok_or_else(|| not_found(arn))
    }

    pub(super) fn security_group(&mut self, id: &str) -> Result<&mut SecurityGroup, Refusal> {
        let made = self.account.security_groups.get(id).map(|group| group.made);
        let seen = made.is_some_and(|made| self.sees(made));
        self.account.security_groups.get_mut(id).filter(|_| seen).ok_or_else(|| not_found(id))
    }

    /// Returns a page of a list sorted by its keys, and the element with the token of the next page.
    pub(super) fn page(&self, items: BTreeMap<String, String>) -> Result<(Vec<String>, String), Refusal> {
        let (size, marker, next) = if self.request.is_ec2() {
            ("MaxResults", "NextToken", "nextToken")
        } else {
            ("PageSize", "Marker", "NextMarker")
        };
        let size = self.request.number(size)?.unwrap_or(usize::MAX).min(self.page_size);
        // The token is the last key of the previous page, so that concurrent creations and deletions displace nothing.
        let after = self.request.text(marker).unwrap_or_default();
        let mut rest = items.into_iter().filter(|(key, _)| key.as_str() > after);
        let page: Vec<_> = rest.by_ref().take(size).collect();
        let token = match (page.last(), rest.next()) {
            (Some((key, _)), Some(_)) => text(next, key),
            _ => String::new(),
        };
        Ok((page.into_iter().map(|(_, item)| item).collect(), token))
    }
}
