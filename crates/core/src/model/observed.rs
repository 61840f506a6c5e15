//! The observed AWS resources and TargetGroupBindings of one stack, found by its tags and labels.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Action, AddOn, Attributes, CertificateArn, Condition, Frontend, HealthCheck, IpAddressType, KnownLimits,
    ListenerArn, ListenerProtocol, LoadBalancer, LoadBalancerArn, LoadBalancerKind, LoadBalancerTarget,
    MutualAuthentication, ObjectName, ObjectReference, ObservedAddOns, ObservedCertificate, ObservedNetworkSettings,
    ObservedPools, RecentCertificates, ResourceId, RuleArn, Scheme, SecurityGroupId, SecurityGroupRule, SubnetId,
    TagKeys, Tags, TargetGroupArn, Transform, TrustStoreArn, authentication::carry_over_secret,
};

/// The state of one stack in AWS and in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ObservedStack {
    /// The load balancers with the stack's tags; more than one only while one is being replaced, or after a user has
    /// copied the tags.
    pub load_balancers: Vec<ObservedLoadBalancer>,
    /// The target groups with the stack's tags, sorted by ARN.
    pub target_groups: Vec<ObservedTargetGroup>,
    /// The Network Load Balancers in front of the load balancers, with the stack's tags.
    #[serde(skip_serializing_if = "ObservedFrontend::is_empty")]
    pub frontend: ObservedFrontend,
    /// The security groups with the stack's tags, sorted by id.
    pub security_groups: Vec<ObservedSecurityGroup>,
    /// The certificates that were requested for the stack; `None` while they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Vec<ObservedCertificate>>,
    /// True if a request whose answer was lost may have made certificates.
    #[serde(skip)]
    pub may_have_certificates: bool,
    /// The requests for certificates, by token, the records that prove hosts, by name, and the deletions of certificates, by ARN,
    /// that AWS has refused a while ago.
    #[serde(skip)]
    pub refused_requests: BTreeSet<String>,
    /// The certificates that have not become usable for so long that others are requested in their place.
    #[serde(skip)]
    pub given_up: BTreeSet<CertificateArn>,
    /// The certificates of a short time ago.
    #[serde(skip)]
    pub recent_certificates: RecentCertificates,
    /// The TargetGroupBindings with the stack's labels.
    pub bindings: Vec<ObservedBinding>,
    /// The resources of each member of a group within its load balancer, from the stack's record.
    pub member_resources: Vec<MemberResources>,
    /// The keys of the tags that the controller has set, from the stack's record. `None` without a record: then every
    /// tag counts as set by the controller, except those of earlier controllers.
    pub tag_keys: Option<TagKeys>,
    /// The replaced load balancers whose hold has ended: they may be deleted.
    pub expired: BTreeSet<LoadBalancerArn>,
    /// The ports whose listeners are retained for clients that have yet to use others, each with true if its hold has
    /// ended.
    #[serde(skip)]
    pub retained_ports: BTreeMap<u16, bool>,
    /// The ports of new listeners that redirects wait for.
    #[serde(skip)]
    pub opened_ports: BTreeMap<u16, Opening>,
    /// The members whose status names another load balancer, which serves them until that of the stack is published.
    #[serde(skip)]
    pub arriving: BTreeSet<ObjectReference>,
    /// The stack's load balancers that the status of such a member names.
    #[serde(skip)]
    pub shown: BTreeSet<LoadBalancerArn>,
    /// True if redirects wait until a new listener has had the time to be everywhere.
    #[serde(skip)]
    pub awaits_opening: bool,
    /// The number of healthy targets of the target groups that were asked for this plan; `None` where AWS did not tell.
    #[serde(skip)]
    pub healthy: BTreeMap<TargetGroupArn, Option<usize>>,
    /// True if the states of the load balancers were read for this plan.
    #[serde(skip)]
    pub states_are_read: bool,
    /// True if rules wait until the targets that they are to lead to are healthy.
    #[serde(skip)]
    pub awaits_health: bool,
    /// The target groups that rules have waited for as long as they may.
    #[serde(skip)]
    pub health_overdue: BTreeSet<ResourceId>,
    /// True if a listener stays for a while where another one takes its place.
    #[serde(skip)]
    pub retains_listeners: bool,
    /// The add-ons that the plan leaves as they are: they could not be read, or AWS has not accepted their change.
    #[serde(skip)]
    pub left_out: BTreeSet<AddOn>,
    /// The quotas for which AWS has refused steps of this change.
    #[serde(skip)]
    pub room: KnownLimits,
}

/// The state of a listener that redirects wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It, or rules of it, may not be on all nodes of the load balancer yet.
    OnItsWay,
    /// It has had the time to be on all of them.
    Everywhere,
    /// Redirects have waited for it, and for what it leads to, as long as they may.
    Overdue,
}

/// The resources of one member of a group within its load balancer, as of the last time when no changes were left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberResources {
    /// The member.
    #[serde(with = "super::object::as_owner")]
    pub member: ObjectReference,
    /// The rules of the member.
    pub rules: BTreeSet<RuleArn>,
    /// The resources of the member on the listeners that it requests, by port.
    pub ports: BTreeMap<u16, ListenerResources>,
}

/// The parts of a listener, other than rules, that belong to a member of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerResources {
    /// The member's certificates.
    pub certificates: BTreeSet<CertificateArn>,
    /// True if the default action belongs to the member.
    pub default_action: bool,
}

impl ObservedStack {
    /// Returns the load balancer of the stack: the first one that can become the wanted one in place. Others that can
    /// are copies.
    #[must_use]
    pub fn current<'a>(&'a self, wanted: &LoadBalancer) -> Option<&'a ObservedLoadBalancer> {
        self.load_balancers.iter().find(|existing| wanted.can_be(existing))
    }

    /// Returns the load balancers that the wanted one replaces.
    pub fn replaced<'a>(&'a self, wanted: &'a LoadBalancer) -> impl Iterator<Item = &'a ObservedLoadBalancer> {
        self.load_balancers.iter().filter(|existing| !wanted.can_be(existing))
    }

    /// Returns the load balancer whose host name is published: the desired one once it is active, and until then one
    /// that it replaces, if there is any.
    #[must_use]
    pub fn published<'a>(&'a self, wanted: &'a LoadBalancer) -> Option<&'a ObservedLoadBalancer> {
        let current = self.current(wanted);
        current.filter(|current| current.is_active()).or_else(|| self.replaced(wanted).next()).or(current)
    }

    /// Returns true if nobody is to be sent to the desired load balancer yet, as it lacks its web ACL: one that takes over is
    /// to have it first, and a new one, with which it is associated when it serves, waits for that at most. Who has been sent
    /// there stays.
    #[must_use]
    pub fn is_exposed(&self, wanted: &LoadBalancer) -> bool {
        let takes_over = self.replaced(wanted).next().is_some();
        let current = self.current(wanted);
        current.is_some_and(|current| (takes_over || !current.is_active()) && wanted.lacks_web_acl(current))
    }

    /// Returns true if a rule, on this port if one is named, may be any member's: none is remembered to have it. Rules that park
    /// target groups are nobody's.
    #[must_use]
    pub fn has_rule_without_owner(&self, port: Option<u16>) -> bool {
        let listeners = self.load_balancers.iter().flat_map(ObservedLoadBalancer::known_listeners);
        let rules = listeners.filter(|listener| port.is_none_or(|port| listener.port == port));
        let is_owned = |rule: &RuleArn| self.member_resources.iter().any(|resources| resources.rules.contains(rule));
        rules.flat_map(|listener| &listener.rules).any(|rule| !rule.is_parking() && !is_owned(&rule.arn))
    }

    /// Returns true if the stack has no resources but certificates, which stay where the controller requests none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.load_balancers.is_empty()
            && self.target_groups.is_empty()
            && self.frontend.is_empty()
            && self.security_groups.is_empty()
            && self.bindings.is_empty()
    }
}

/// The Network Load Balancers in front of a stack's load balancers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedFrontend {
    /// The Network Load Balancers; more than one only while one is being replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancers: Vec<ObservedLoadBalancer>,
    /// Their target groups, sorted by ARN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_groups: Vec<ObservedTargetGroup>,
    /// The targets of each target group whose targets have been read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<TargetGroupArn, BTreeSet<LoadBalancerTarget>>,
}

impl ObservedFrontend {
    /// Returns true if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.load_balancers.is_empty() && self.target_groups.is_empty()
    }

    /// Returns the Network Load Balancer whose host name is published: the desired one, once it has all listeners and
    /// serves, or another one that it replaces. A new one that replaces none has time until it serves.
    #[must_use]
    pub fn published<'a>(&'a self, wanted: &'a Frontend) -> Option<&'a ObservedLoadBalancer> {
        let current = self.load_balancers.iter().find(|existing| wanted.load_balancer.can_be(existing));
        let has_all =
            |balancer: &&ObservedLoadBalancer| wanted.listeners.keys().all(|port| balancer.listener(*port).is_some());
        let whole = current.filter(has_all);
        let replaced = self.load_balancers.iter().find(|existing| !wanted.load_balancer.can_be(existing));
        whole.filter(|balancer| balancer.is_active()).or(replaced).or(whole)
    }

    /// Returns true if a load balancer is a target, as far as targets have been read.
    #[must_use]
    pub fn leads_to(&self, load_balancer: &LoadBalancerArn) -> bool {
        self.targets.values().flatten().any(|target| target.load_balancer == *load_balancer)
    }
}

/// `State.Code` of DescribeLoadBalancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadBalancerState {
    /// The load balancer serves traffic.
    Active,
    /// The load balancer serves traffic, but lacks some of the capacity that it needs.
    ActiveImpaired,
    /// The load balancer is being set up, which takes minutes.
    Provisioning,
    /// The load balancer could not be set up.
    Failed,
}

/// An observed load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedLoadBalancer {
    /// The ARN.
    pub arn: LoadBalancerArn,
    /// The name.
    pub name: String,
    /// The type: application or network.
    pub kind: LoadBalancerKind,
    /// The DNS name as AWS writes it, including upper case.
    pub dns_name: String,
    /// The scheme: internal or internet-facing.
    pub scheme: Scheme,
    /// The address families. A value that the controller does not know counts as `ipv4`.
    #[serde(default = "IpAddressType::unsaid")]
    pub ip_address_type: IpAddressType,
    /// The settings that only a Network Load Balancer has.
    #[serde(default, skip_serializing_if = "ObservedNetworkSettings::is_default")]
    pub network: ObservedNetworkSettings,
    /// The pools that its IPv4 addresses come from.
    #[serde(default, skip_serializing_if = "ObservedPools::is_empty")]
    pub pools: ObservedPools,
    /// The state.
    pub state: LoadBalancerState,
    /// The subnets, one in each zone.
    pub subnets: BTreeSet<SubnetId>,
    /// The security groups that the load balancer is in.
    pub security_groups: BTreeSet<SecurityGroupId>,
    /// The attributes; `None` if they have not been read.
    pub attributes: Option<Attributes>,
    /// All tags.
    pub tags: Tags,
    /// The listeners by port; `None` if they have not been read.
    pub listeners: Option<BTreeMap<u16, ObservedListener>>,
    /// The settings that other services of AWS hold, as far as they have been read.
    #[serde(default, skip_serializing_if = "ObservedAddOns::is_unread")]
    pub add_ons: ObservedAddOns,
}

impl ObservedLoadBalancer {
    /// Returns true if deletion protection is known to be enabled.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.attributes
            .as_ref()
            .is_some_and(|known| known.get(super::DELETION_PROTECTION).is_some_and(|value| value == "true"))
    }

    /// Returns the known listeners by ascending port.
    pub fn known_listeners(&self) -> impl Iterator<Item = &ObservedListener> {
        self.listeners.iter().flat_map(BTreeMap::values)
    }

    /// Returns true if a known listener is of QUIC.
    #[must_use]
    pub fn has_quic(&self) -> bool {
        self.known_listeners().any(|listener| listener.protocol.is_some_and(ListenerProtocol::is_quic))
    }

    /// Returns true if the load balancer serves traffic.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.state, LoadBalancerState::Active | LoadBalancerState::ActiveImpaired)
    }

    /// Returns the target groups that the known listeners and their rules name.
    pub fn target_groups(&self) -> impl Iterator<Item = &TargetGroupArn> {
        self.known_listeners().flat_map(ObservedListener::target_groups)
    }

    /// Returns the listener on a port; `None` if it does not exist or has not been read.
    #[must_use]
    pub fn listener(&self, port: u16) -> Option<&ObservedListener> {
        self.listeners.as_ref()?.get(&port)
    }
}

/// An observed listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedListener {
    /// The ARN.
    pub arn: ListenerArn,
    /// The port.
    pub port: u16,
    /// The protocol; `None` if the controller does not know it.
    pub protocol: Option<ListenerProtocol>,
    /// The default actions, in order.
    pub default_actions: Vec<Action<TargetGroupArn>>,
    /// The default certificate.
    pub default_certificate: Option<CertificateArn>,
    /// The certificates other than the default one (which AWS may list here as well).
    pub certificates: BTreeSet<CertificateArn>,
    /// The name of the TLS policy.
    pub ssl_policy: Option<String>,
    /// `AlpnPolicy`, if the listener has one.
    pub alpn_policy: Option<String>,
    /// The treatment of client certificates; `None` if AWS reports none, which means off.
    pub mutual_authentication: Option<MutualAuthentication<TrustStoreArn>>,
    /// The attributes; `None` if they have not been read.
    pub attributes: Option<Attributes>,
    /// All tags.
    pub tags: Tags,
    /// All rules except the default one, by ascending priority.
    pub rules: Vec<ObservedRule>,
}

impl ObservedListener {
    /// Returns the target groups that the listener and its rules name.
    pub fn target_groups(&self) -> impl Iterator<Item = &TargetGroupArn> {
        self.default_actions
            .iter()
            .chain(self.rules.iter().flat_map(|rule| &rule.actions))
            .flat_map(Action::target_groups)
    }

    /// Copies the versions of the Secrets that AWS was given from the known listener, since AWS does not return them.
    pub fn carry_over_secrets(&mut self, known: &Self) {
        if self.arn != known.arn {
            return;
        }
        carry_over_secret(&mut self.default_actions, &known.default_actions);
        for rule in &mut self.rules {
            if let Some(known) = known.rules.iter().find(|known| known.arn == rule.arn) {
                carry_over_secret(&mut rule.actions, &known.actions);
            }
        }
    }
}

/// An observed rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRule {
    /// The ARN.
    pub arn: RuleArn,
    /// The priority, 1 to 50000; the lowest wins.
    pub priority: u32,
    /// The conditions, all of which a request must meet.
    pub conditions: Vec<Condition>,
    /// The actions, in order.
    pub actions: Vec<Action<TargetGroupArn>>,
    /// The rewrites of requests on the way to targets.
    pub transforms: Vec<Transform>,
    /// All tags.
    pub tags: Tags,
}

/// An observed target group. Values that the controller does not know stay text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedTargetGroup {
    /// The ARN.
    pub arn: TargetGroupArn,
    /// The name.
    pub name: String,
    /// The target type: `instance`, `ip`, `lambda` or `alb`.
    pub target_type: String,
    /// The protocol, for example `HTTP`.
    pub protocol: String,
    /// The protocol version, for example `HTTP1`.
    pub protocol_version: Option<String>,
    /// The address family: `ipv4` or `ipv6`.
    #[serde(default = "IpAddressType::unsaid")]
    pub ip_address_type: IpAddressType,
    /// The health check; `None` if it is of a kind that no target group of the controller has.
    pub health_check: Option<HealthCheck>,
    /// The attributes; `None` if they have not been read.
    pub attributes: Option<Attributes>,
    /// All tags.
    pub tags: Tags,
}

/// An observed security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObservedSecurityGroup {
    /// The id.
    pub id: SecurityGroupId,
    /// The name.
    pub name: String,
    /// All tags.
    pub tags: Tags,
    /// The rules for incoming traffic.
    pub ingress: BTreeSet<SecurityGroupRule>,
}

/// A TargetGroupBinding with the stack's labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObservedBinding {
    /// The namespace and name.
    pub name: ObjectName,
    /// The target group that it binds.
    pub target_group: TargetGroupArn,
    /// `metadata.resourceVersion`, so that a concurrent change is detected.
    pub resource_version: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// The spec.
    pub spec: crate::api::crd::TargetGroupBindingSpec,
    /// True if the binding is being deleted.
    pub deleting: bool,
    /// True if the security groups of its targets allow all sources of the spec.
    #[serde(skip)]
    pub allows_sources: bool,
    /// The number of its targets, once all that it has now are registered; `None` before.
    #[serde(skip)]
    pub registered: Option<usize>,
}

impl Eq for ObservedBinding {}

/// The security group that all load balancers of the cluster share, if it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendSecurityGroup {
    /// The id.
    pub id: SecurityGroupId,
    /// True if the controller may delete the group (it is not given by a flag).
    pub managed: bool,
}

impl ObservedTargetGroup {
    /// Returns the id of the target group within its stack, from its tag.
    #[must_use]
    pub fn resource(&self) -> Option<ResourceId> {
        super::tags::resource_of(&self.tags)
    }
}
