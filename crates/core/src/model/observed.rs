//! The observed AWS resources and bindings, which carry one stack's tags and labels.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Action, Attributes, CertificateArn, Condition, HealthCheck, IpAddressType, KnownLimits, ListenerArn,
    ListenerProtocol, LoadBalancer, LoadBalancerArn, LoadBalancerKind, MutualAuthentication, ObjectName,
    ObjectReference, ResourceId, RuleArn, Scheme, SecurityGroupId, SecurityGroupRule, SubnetId, TagKeys, Tags,
    TargetGroupArn, Transform, TrustStoreArn, authentication::carry_over_secret,
};

/// All that AWS and the cluster have of one stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ObservedStack {
    /// The load balancers with the group's tags; more than one only while one is replaced, or after a user has copied the tags.
    pub load_balancers: Vec<ObservedLoadBalancer>,
    /// Target groups with the group's tags, sorted by ARN.
    pub target_groups: Vec<ObservedTargetGroup>,
    /// Security groups with the group's tags, sorted by id.
    pub security_groups: Vec<ObservedSecurityGroup>,
    /// TargetGroupBindings with the group's labels.
    pub bindings: Vec<ObservedBinding>,
    /// The resources of each member of a group within its load balancer, as far as they are remembered.
    pub member_resources: Vec<MemberResources>,
    /// The tags that are the controller's own, as far as that is remembered. `None` where there is no record of the stack: then
    /// every tag counts as its own.
    pub tag_keys: Option<TagKeys>,
    /// The load balancers whose replacement has served for the whole hold: they may be deleted.
    pub expired: BTreeSet<LoadBalancerArn>,
    /// The quotas that AWS has refused steps of this change for.
    #[serde(skip)]
    pub room: KnownLimits,
}

/// The resources of one member of a group within its load balancer, as of the last time when no changes were left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberResources {
    /// Their owner.
    #[serde(with = "super::object::as_owner")]
    pub member: ObjectReference,
    /// Its rules.
    pub rules: BTreeSet<RuleArn>,
    /// The listeners that it asks for, by port.
    pub ports: BTreeMap<u16, ListenerResources>,
}

/// The parts of a listener, other than rules, that belong to a member of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerResources {
    /// Its certificates.
    pub certificates: BTreeSet<CertificateArn>,
    /// True if the default action is its own.
    pub default_action: bool,
}

impl ObservedStack {
    /// The load balancer of a stack: the oldest-known that can become the wanted one. Others like it are copies.
    #[must_use]
    pub fn current<'a>(&'a self, wanted: &LoadBalancer) -> Option<&'a ObservedLoadBalancer> {
        self.load_balancers.iter().find(|existing| wanted.can_be(existing))
    }

    /// The load balancers that the wanted one replaces.
    pub fn replaced<'a>(&'a self, wanted: &'a LoadBalancer) -> impl Iterator<Item = &'a ObservedLoadBalancer> {
        self.load_balancers.iter().filter(|existing| !wanted.can_be(existing))
    }

    /// Returns the load balancer whose host name is published: the desired one, but not before it serves if another does.
    #[must_use]
    pub fn published<'a>(&'a self, wanted: &'a LoadBalancer) -> Option<&'a ObservedLoadBalancer> {
        let current = self.current(wanted);
        current.filter(|current| current.is_active()).or_else(|| self.replaced(wanted).next()).or(current)
    }

    /// Returns true if no resource is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.load_balancers.is_empty()
            && self.target_groups.is_empty()
            && self.security_groups.is_empty()
            && self.bindings.is_empty()
    }
}

/// `State.Code` of DescribeLoadBalancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadBalancerState {
    /// Serves.
    Active,
    /// Serves, without all the capacity that it needs.
    ActiveImpaired,
    /// Is being set up, for minutes.
    Provisioning,
    /// Could not be set up.
    Failed,
}

/// A load balancer in AWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedLoadBalancer {
    /// Its ARN.
    pub arn: LoadBalancerArn,
    /// Its name.
    pub name: String,
    /// Application or Network.
    pub kind: LoadBalancerKind,
    /// The name as AWS writes it, upper case included.
    pub dns_name: String,
    /// Internal or internet-facing.
    pub scheme: Scheme,
    /// Address families. A word that is not known here counts as `ipv4`.
    #[serde(default = "IpAddressType::unsaid")]
    pub ip_address_type: IpAddressType,
    /// The state of the load balancer.
    pub state: LoadBalancerState,
    /// The subnets, one in each zone.
    pub subnets: BTreeSet<SubnetId>,
    /// The groups it is in.
    pub security_groups: BTreeSet<SecurityGroupId>,
    /// `None` while they have not been read.
    pub attributes: Option<Attributes>,
    /// All its tags.
    pub tags: Tags,
    /// By port. `None` while they have not been read.
    pub listeners: Option<BTreeMap<u16, ObservedListener>>,
}

impl ObservedLoadBalancer {
    /// Returns true if it is known to be protected from deletion.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.attributes
            .as_ref()
            .is_some_and(|known| known.get(super::DELETION_PROTECTION).is_some_and(|value| value == "true"))
    }

    /// The listeners that are known, by ascending port.
    pub fn known_listeners(&self) -> impl Iterator<Item = &ObservedListener> {
        self.listeners.iter().flat_map(BTreeMap::values)
    }

    /// Returns true if it serves traffic.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.state, LoadBalancerState::Active | LoadBalancerState::ActiveImpaired)
    }

    /// The target groups that its listeners and rules name, as far as they are known.
    pub fn target_groups(&self) -> impl Iterator<Item = &TargetGroupArn> {
        self.known_listeners()
            .flat_map(|listener| listener.default_actions.iter().chain(listener.rules.iter().flat_map(|r| &r.actions)))
            .flat_map(Action::target_groups)
    }

    /// The listener on a port, where it is known.
    #[must_use]
    pub fn listener(&self, port: u16) -> Option<&ObservedListener> {
        self.listeners.as_ref()?.get(&port)
    }
}

/// A listener in AWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedListener {
    /// Its ARN.
    pub arn: ListenerArn,
    /// Its port.
    pub port: u16,
    /// `None` for a protocol that is not known here.
    pub protocol: Option<ListenerProtocol>,
    /// In order.
    pub default_actions: Vec<Action<TargetGroupArn>>,
    /// The default certificate.
    pub default_certificate: Option<CertificateArn>,
    /// The certificates besides the default (which may stand here a second time).
    pub certificates: BTreeSet<CertificateArn>,
    /// Name of the TLS policy.
    pub ssl_policy: Option<String>,
    /// `AlpnPolicy`, where it has one.
    pub alpn_policy: Option<String>,
    /// The treatment of clients' certificates; `None` where AWS reports none, which is off.
    pub mutual_authentication: Option<MutualAuthentication<TrustStoreArn>>,
    /// `None` while they have not been read.
    pub attributes: Option<Attributes>,
    /// All its tags.
    pub tags: Tags,
    /// All rules but the default one, by ascending priority.
    pub rules: Vec<ObservedRule>,
}

impl ObservedListener {
    /// Takes over the known versions of Secrets that AWS was given: AWS does not return them.
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

/// A rule in AWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRule {
    /// Its ARN.
    pub arn: RuleArn,
    /// 1 to 50000; the lowest wins.
    pub priority: u32,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// In order.
    pub actions: Vec<Action<TargetGroupArn>>,
    /// The rewrites of requests on their way to targets.
    pub transforms: Vec<Transform>,
    /// All its tags.
    pub tags: Tags,
}

/// A target group in AWS. Words of AWS's that are not known here stay text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedTargetGroup {
    /// Its ARN.
    pub arn: TargetGroupArn,
    /// Its name.
    pub name: String,
    /// `instance`, `ip`, `lambda` or `alb`.
    pub target_type: String,
    /// For example `HTTP`.
    pub protocol: String,
    /// For example `HTTP1`.
    pub protocol_version: Option<String>,
    /// `ipv4` or `ipv6`.
    #[serde(default = "IpAddressType::unsaid")]
    pub ip_address_type: IpAddressType,
    /// `None` where the check is of a kind that no group of ours has.
    pub health_check: Option<HealthCheck>,
    /// `None` while they have not been read.
    pub attributes: Option<Attributes>,
    /// All its tags.
    pub tags: Tags,
}

/// A security group in EC2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObservedSecurityGroup {
    /// Its id.
    pub id: SecurityGroupId,
    /// Its name.
    pub name: String,
    /// All its tags.
    pub tags: Tags,
    /// The rules for incoming traffic.
    pub ingress: BTreeSet<SecurityGroupRule>,
}

/// A TargetGroupBinding that carries the group's labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObservedBinding {
    /// Its name.
    pub name: ObjectName,
    /// Its target group.
    pub target_group: TargetGroupArn,
    /// `metadata.resourceVersion`, so that a change made meanwhile is noticed.
    pub resource_version: String,
    /// All its labels.
    pub labels: BTreeMap<String, String>,
    /// Its spec.
    pub spec: crate::api::crd::TargetGroupBindingSpec,
    /// True if it is being deleted.
    pub deleting: bool,
    /// True if its targets let in all sources of the spec.
    #[serde(skip)]
    pub allows_sources: bool,
}

impl Eq for ObservedBinding {}

/// The security group that all load balancers of the cluster share, where it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendSecurityGroup {
    /// Its id.
    pub id: SecurityGroupId,
    /// True if the controller may delete it (it was not given by flag).
    pub managed: bool,
}

impl ObservedTargetGroup {
    /// Returns the resource's id within its stack, by its tag.
    #[must_use]
    pub fn resource(&self) -> Option<ResourceId> {
        super::tags::resource_of(&self.tags)
    }
}
