//! The desired AWS resources of one stack, which a group of Ingresses or a Service asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use indexmap::IndexMap;
use serde::Serialize;

use super::{
    Action, Attributes, Authentication, Cause, CertificateArn, Condition, HealthCheck, IpAddressType, ListenerProtocol,
    LoadBalancerKind, LoadBalancerName, MutualAuthentication, ObjectReference, ProtocolVersion, ResourceId, Scheme,
    SecurityGroupId, SecurityGroupRule, StackId, SubnetId, Tags, TargetGroupArn, TargetGroupName, TargetGroupProtocol,
    TargetType, Transform, TrustStoreArn, VpcId,
};

/// A value that may be known only once AWS or the cluster has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Value<T> {
    /// The value is known now.
    Known(T),
    /// The value is known after apply; the text says what it depends on.
    AfterApply(&'static str),
}

impl<T> Value<T> {
    /// The value, where it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::AfterApply(_) => None,
        }
    }
}

impl<T: fmt::Display> fmt::Display for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(f),
            Self::AfterApply(why) => write!(f, "(known after apply: {why})"),
        }
    }
}

/// The desired AWS resources of a group of Ingresses or a Service. Empty when no object asks for any: then everything is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stack {
    /// Its owner.
    pub id: StackId,
    /// The security group in front, made and deleted with the load balancer.
    pub security_group: Option<ManagedSecurityGroup>,
    /// The load balancer.
    pub load_balancer: Option<LoadBalancer>,
    /// Its target groups, in the order in which rules first name them.
    pub target_groups: IndexMap<ResourceId, TargetGroup>,
    /// Its listeners, by port.
    pub listeners: BTreeMap<u16, Listener>,
    /// Members of a group that it says nothing of.
    pub frozen: FrozenMembers,
    /// Keys of tags that others manage (`--external-managed-tags`): they are never removed. Not in plans that
    /// are written down.
    #[serde(skip)]
    pub external_tags: BTreeSet<String>,
    /// True if everything goes and an object that goes says `deletion_protection.enabled=false`: only then may the protection
    /// that its load balancer has in AWS be switched off.
    pub unprotect: bool,
    /// The members that ask for what the group shares. Left out of serialised plans.
    #[serde(skip)]
    pub requesters: Requesters,
}

/// The members that ask for what the group shares, so that a refusal by AWS is reported on the right one. For anything not listed,
/// the cause of the load balancer, the listener or the security group asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requesters {
    /// By port of the listener.
    pub ssl_policy: BTreeMap<u16, Cause>,
    /// By port of the listener.
    pub mutual_authentication: BTreeMap<u16, Cause>,
    /// By port of the listener.
    pub default_action: BTreeMap<u16, Cause>,
    /// By port of the listener.
    pub default_certificate: BTreeMap<u16, Cause>,
    /// By port: the member that brings a listener which the others do not have yet, where that is known.
    pub listeners: BTreeMap<u16, Cause>,
    /// By port of the listener and identifier of the prefix list.
    pub prefix_lists: BTreeMap<(u16, String), Cause>,
    /// By key: the tags of the load balancer, its listeners and its security group.
    pub tags: BTreeMap<String, Cause>,
    /// The subnets of the load balancer.
    pub subnets: Option<Cause>,
    /// The security groups of the load balancer.
    pub security_groups: Option<Cause>,
    /// The address type of the load balancer.
    pub ip_address_type: Option<Cause>,
}

impl Requesters {
    /// Returns the cause of a listener's setting that AWS refuses, by the code of AWS's error (ELB API: errors of CreateListener and
    /// ModifyListener). `None` for a code that names no setting, or a setting that the listener's cause asks for.
    #[must_use]
    pub fn of_refusal(&self, port: u16, code: &str) -> Option<&Cause> {
        let requesters = match code {
            "SSLPolicyNotFound" => &self.ssl_policy,
            "TrustStoreNotFound" | "TrustStoreNotReady" => &self.mutual_authentication,
            "CertificateNotFound" | "UnsupportedCertificate" => &self.default_certificate,
            "TargetGroupNotFound" | "TargetGroupAssociationLimit" => &self.default_action,
            _ => return None,
        };
        requesters.get(&port)
    }

    /// Returns the cause of a setting that AWS refuses in a new load balancer, by the code of AWS's error (ELB API: errors of
    /// CreateLoadBalancer). `None` for a code that names no setting, or one that no member asks for.
    #[must_use]
    pub fn of_refused_load_balancer(&self, code: &str) -> Option<&Cause> {
        match code {
            "SubnetNotFound" | "InvalidSubnet" | "AvailabilityZoneNotSupported" => {
                self.subnets.as_ref().or(self.ip_address_type.as_ref())
            }
            "InvalidSecurityGroup" => self.security_groups.as_ref(),
            _ => None,
        }
    }

    /// Returns true if the cause is that of a member which asks for a setting of the load balancer.
    #[must_use]
    pub fn asks_for_setting(&self, cause: &Cause) -> bool {
        [&self.subnets, &self.security_groups, &self.ip_address_type]
            .into_iter()
            .flatten()
            .any(|requester| requester == cause)
    }
}

/// Members of a group that the stack says nothing of: what they have in AWS stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FrozenMembers {
    /// The frozen members. If there are none, nothing is kept for them.
    pub members: BTreeSet<ObjectReference>,
    /// All members in the group's order, both those of the stack and the frozen ones.
    pub order: Vec<ObjectReference>,
    /// The Services that frozen members may lead to, with the member that owns their target groups.
    pub services: BTreeSet<(ObjectReference, String)>,
}

impl FrozenMembers {
    /// Returns true if no member is frozen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

impl Stack {
    /// Returns an empty stack: its resources in AWS are to be deleted.
    #[must_use]
    pub fn empty(id: StackId) -> Self {
        Self {
            id,
            security_group: None,
            load_balancer: None,
            target_groups: IndexMap::new(),
            listeners: BTreeMap::new(),
            frozen: FrozenMembers::default(),
            external_tags: BTreeSet::new(),
            unprotect: false,
            requesters: Requesters::default(),
        }
    }
}

/// A security group of the load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManagedSecurityGroup {
    /// Its name, hashed from cluster and group.
    pub name: Value<String>,
    /// Fixed text; EC2 cannot change it later.
    pub description: &'static str,
    /// The rules for incoming traffic.
    pub ingress: Vec<SecurityGroupRule>,
    /// All its tags.
    pub tags: Tags,
    /// The cause.
    pub cause: Cause,
}

/// A security group that a load balancer is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum SecurityGroupReference {
    /// The stack's own [`ManagedSecurityGroup`].
    Managed,
    /// The one that all load balancers of the cluster share, named as source in rules on nodes.
    SharedBackend(Value<SecurityGroupId>),
    /// A group that the user manages, with the user's rules.
    Given(Value<SecurityGroupId>),
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadBalancer {
    /// The type. It cannot be changed in place.
    pub kind: LoadBalancerKind,
    /// Used only at creation; an existing one is found by its tags.
    pub name: Value<LoadBalancerName>,
    /// The scheme. It cannot be changed in place.
    pub scheme: Scheme,
    /// Address families.
    pub ip_address_type: IpAddressType,
    /// The subnets, one in each zone.
    pub subnets: Value<Vec<SubnetMapping>>,
    /// In the order of the request. Empty for a Network Load Balancer without any, which can never be given one.
    pub security_groups: Vec<SecurityGroupReference>,
    /// The requested attributes; all others stay unchanged.
    pub attributes: Attributes,
    /// The causes of attributes, where they differ from the load balancer's cause.
    pub attribute_causes: BTreeMap<String, Cause>,
    /// All its tags.
    pub tags: Tags,
    /// The cause.
    pub cause: Cause,
}

impl LoadBalancer {
    /// Returns true if an existing load balancer can be changed into this one in place.
    #[must_use]
    pub fn can_be(&self, existing: &super::ObservedLoadBalancer) -> bool {
        existing.kind == self.kind && existing.scheme == self.scheme
    }
}

/// A subnet of a load balancer, with the addresses that it needs there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SubnetMapping {
    /// The subnet.
    pub subnet: SubnetId,
    /// `AllocationId` of an Elastic IP address: internet-facing Network Load Balancers alone.
    pub allocation: Option<String>,
    /// `PrivateIPv4Address`: internal Network Load Balancers alone.
    pub private_ipv4: Option<String>,
}

impl SubnetMapping {
    /// A subnet in which AWS chooses the address.
    #[must_use]
    pub fn plain(subnet: SubnetId) -> Self {
        Self { subnet, allocation: None, private_ipv4: None }
    }
}

/// A listener of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// 1 to 65535
    pub port: u16,
    /// HTTP or HTTPS; TCP, UDP, TCP_UDP or TLS on a Network Load Balancer.
    pub protocol: ListenerProtocol,
    /// The action for a request that no rule matches.
    pub default_action: Action<TargetGroupReference>,
    /// The authentication that the default action requires.
    pub default_authentication: Option<Authentication>,
    /// The certificate for clients without SNI; HTTPS needs it.
    pub default_certificate: Option<CertificateArn>,
    /// The other certificates, sorted; the default is not among them.
    pub certificates: BTreeSet<CertificateArn>,
    /// The reason why the certificates are known only after apply, where they are: in plans that may not ask AWS.
    pub certificates_after_apply: Option<&'static str>,
    /// The treatment of clients' certificates; absent leaves it unchanged.
    pub mutual_authentication: Option<MutualAuthentication<Value<TrustStoreArn>>>,
    /// Name of the TLS policy.
    pub ssl_policy: Option<String>,
    /// `AlpnPolicy` of a TLS listener.
    pub alpn_policy: Option<String>,
    /// The requested attributes; all others stay unchanged.
    pub attributes: Attributes,
    /// The causes of attributes, where they differ from the listener's cause.
    pub attribute_causes: BTreeMap<String, Cause>,
    /// In order of precedence.
    pub rules: Vec<Rule>,
    /// The parts that each member of a group contributes, other than rules. Left out of serialised plans.
    #[serde(skip)]
    pub shares: BTreeMap<ObjectReference, ListenerShare>,
    /// All its tags.
    pub tags: Tags,
    /// The cause.
    pub cause: Cause,
}

/// The parts of a listener, other than rules, that a member of a group contributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenerShare {
    /// Its certificates.
    pub certificates: BTreeSet<CertificateArn>,
    /// True if the default action is its own.
    pub default_action: bool,
    /// The member.
    pub cause: Cause,
}

/// A rule of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// The action for a request that the rule matches.
    pub action: Action<TargetGroupReference>,
    /// The rewrites of requests on their way to targets; at most one of each kind.
    pub transforms: Vec<Transform>,
    /// The authentication that the rule requires.
    pub authentication: Option<Authentication>,
    /// Its tags without `ingress.k8s.aws/resource`, which repeats the priority it is created with.
    pub tags: Tags,
    /// The path of the Ingress that asks for it.
    pub cause: Cause,
}

/// A target group that an action names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum TargetGroupReference {
    /// A target group of this stack.
    Own(ResourceId),
    /// Another owner's target group, left unchanged.
    Foreign(TargetGroupArn),
    /// Another owner's target group by its name, where AWS is not asked for the ARN: known after apply.
    Named(String),
}

/// A target group with its binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetGroup {
    /// `<namespace>/<ingress>-<service>:<port>`, or `<namespace>/<service>:<port>` of a Service.
    pub resource: ResourceId,
    /// Used only at creation; hashed from the Service's UID among others.
    pub name: Value<TargetGroupName>,
    /// The name where another target group of the stack has the first: one that is replaced, or that serves a load balancer
    /// that is.
    pub second_name: Value<TargetGroupName>,
    /// The target type. It cannot be changed in place.
    pub target_type: TargetType,
    /// The protocol. It cannot be changed in place.
    pub protocol: TargetGroupProtocol,
    /// The protocol version. It cannot be changed in place.
    pub protocol_version: Option<ProtocolVersion>,
    /// `ipv4` or `ipv6`; cannot be changed in place.
    pub ip_address_type: IpAddressType,
    /// The port of targets that are registered without one; never compared afterwards.
    pub port: Value<u16>,
    /// The VPC of the targets.
    pub vpc: Value<VpcId>,
    /// Changed in place.
    pub health_check: HealthCheck,
    /// The requested attributes; all others stay unchanged.
    pub attributes: Attributes,
    /// All its tags.
    pub tags: Tags,
    /// The TargetGroupBinding that feeds it.
    pub binding: Binding,
    /// The cause.
    pub cause: Cause,
}

/// A port by number or by name, as Services write it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum PortReference {
    /// 1 to 65535
    Number(u16),
    /// A port's name.
    Name(String),
}

impl fmt::Display for PortReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The TargetGroupBinding of a target group of ours. It has the target group's name, type, protocol and VPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// The Service's namespace.
    pub namespace: String,
    /// `ingress.k8s.aws/stack…`
    pub labels: BTreeMap<String, String>,
    /// The Service.
    pub service: String,
    /// Its port, as the Ingress writes it.
    pub service_port: PortReference,
    /// The labels of the nodes that are targets: `spec.nodeSelector.matchLabels`. Empty selects all.
    pub node_labels: BTreeMap<String, String>,
    /// The peers that can reach the targets; `None` where the controller does not manage the rules of nodes and pods.
    pub networking: Option<Vec<NetworkingRule>>,
}

/// The peers that can reach the targets of a binding, and the ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkingRule {
    /// Any of them.
    pub from: Vec<NetworkingPeer>,
    /// Any of them.
    pub ports: Vec<NetworkingPort>,
}

/// The source of traffic to targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum NetworkingPeer {
    /// Members of a security group.
    SecurityGroup(SecurityGroupReference),
    /// A block of addresses.
    Cidr(String),
}

/// A port of targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkingPort {
    /// UDP, and not TCP.
    pub udp: bool,
    /// By number or by the pod's name for it; `None` is every port.
    pub port: Option<PortReference>,
}

impl NetworkingPort {
    /// A port of TCP.
    #[must_use]
    pub fn tcp(port: Option<PortReference>) -> Self {
        Self { udp: false, port }
    }

    /// A port of UDP.
    #[must_use]
    pub fn udp(port: Option<PortReference>) -> Self {
        Self { udp: true, port }
    }
}
