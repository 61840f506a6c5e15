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

/// Something that may be known only once AWS or the cluster has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Value<T> {
    /// Known now.
    Known(T),
    /// Known after apply; the text says what it depends on.
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

/// Everything that a group of Ingresses or a Service shall have in AWS. Empty when nobody asks for it: then everything goes.
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
    /// Keys of tags that somebody else looks after (`--external-managed-tags`): they are never removed. Not in plans that
    /// are written down.
    #[serde(skip)]
    pub external_tags: BTreeSet<String>,
    /// True if everything goes and an object that goes says `deletion_protection.enabled=false`: only then may the protection
    /// that its load balancer has in AWS be switched off.
    pub unprotect: bool,
    /// Who asks for what the members of a group have in common. Not in plans that are written down.
    #[serde(skip)]
    pub requesters: Requesters,
}

/// Who asks for what the members of a group have in common, so that a refusal is charged to the right one. What is not in it is asked
/// for by the cause of the load balancer, the listener or the security group.
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
    /// Returns who asks for what AWS refuses in a listener, by the code of AWS's error (ELB API: errors of CreateListener and
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

    /// Returns who asks for what AWS refuses in a load balancer that is to be created, by the code of AWS's error (ELB API: errors of
    /// CreateLoadBalancer). `None` for a code that names no setting, or one that nobody asks for.
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
    /// They. Where there is nobody, nothing is kept.
    pub members: BTreeSet<ObjectReference>,
    /// All members in the group's order, those of the stack and those set aside.
    pub order: Vec<ObjectReference>,
    /// The Services that those set aside may lead to, with the member: whose target groups are theirs.
    pub services: BTreeSet<(ObjectReference, String)>,
}

impl FrozenMembers {
    /// Returns true if everybody is in the stack.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

impl Stack {
    /// A stack that wants nothing: what it has in AWS is to be deleted.
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

/// A security group that the load balancer stands behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManagedSecurityGroup {
    /// Its name, hashed from cluster and group.
    pub name: Value<String>,
    /// Fixed text; EC2 cannot change it later.
    pub description: &'static str,
    /// Who may come in.
    pub ingress: Vec<SecurityGroupRule>,
    /// All its tags.
    pub tags: Tags,
    /// What asks for it.
    pub cause: Cause,
}

/// A security group that a load balancer is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum SecurityGroupReference {
    /// The stack's own [`ManagedSecurityGroup`].
    Managed,
    /// The one that all load balancers of the cluster share, named as source in rules on nodes.
    SharedBackend(Value<SecurityGroupId>),
    /// One that the user keeps, and whose rules are the user's.
    Given(Value<SecurityGroupId>),
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadBalancer {
    /// Cannot be changed in place.
    pub kind: LoadBalancerKind,
    /// Used at creation alone; an existing one is found by its tags.
    pub name: Value<LoadBalancerName>,
    /// Cannot be changed in place.
    pub scheme: Scheme,
    /// Address families.
    pub ip_address_type: IpAddressType,
    /// One a zone.
    pub subnets: Value<Vec<SubnetMapping>>,
    /// In the order of the request. Empty for a Network Load Balancer without any, which can never be given one.
    pub security_groups: Vec<SecurityGroupReference>,
    /// Those that somebody asks for; all others stay as they are.
    pub attributes: Attributes,
    /// Who asks for an attribute, where that is not who asks for the load balancer.
    pub attribute_causes: BTreeMap<String, Cause>,
    /// All its tags.
    pub tags: Tags,
    /// What asks for it.
    pub cause: Cause,
}

impl LoadBalancer {
    /// Returns true if an existing load balancer can become this one in place.
    #[must_use]
    pub fn can_be(&self, existing: &super::ObservedLoadBalancer) -> bool {
        existing.kind == self.kind && existing.scheme == self.scheme
    }
}

/// A subnet of a load balancer, with the addresses that it shall have there.
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
    /// What happens to a request that no rule takes.
    pub default_action: Action<TargetGroupReference>,
    /// What a client has to show before the default action.
    pub default_authentication: Option<Authentication>,
    /// What a client without SNI gets; needed by HTTPS.
    pub default_certificate: Option<CertificateArn>,
    /// The other certificates, sorted; the default is not among them.
    pub certificates: BTreeSet<CertificateArn>,
    /// Why the certificates are known only after apply, where they are: in plans that may not ask AWS.
    pub certificates_after_apply: Option<&'static str>,
    /// Whether and how clients show certificates; absent leaves it as it is.
    pub mutual_authentication: Option<MutualAuthentication<Value<TrustStoreArn>>>,
    /// Name of the TLS policy.
    pub ssl_policy: Option<String>,
    /// `AlpnPolicy` of a TLS listener.
    pub alpn_policy: Option<String>,
    /// Those that somebody asks for; all others stay as they are.
    pub attributes: Attributes,
    /// Who asks for an attribute, where that is not who asks for the listener.
    pub attribute_causes: BTreeMap<String, Cause>,
    /// In order of precedence.
    pub rules: Vec<Rule>,
    /// The part of each member of a group besides rules. Not in plans that are written down.
    #[serde(skip)]
    pub shares: BTreeMap<ObjectReference, ListenerShare>,
    /// All its tags.
    pub tags: Tags,
    /// What asks for it.
    pub cause: Cause,
}

/// The part of a member of a group in a listener besides rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenerShare {
    /// Its certificates.
    pub certificates: BTreeSet<CertificateArn>,
    /// Whether the default action is its own.
    pub default_action: bool,
    /// The member.
    pub cause: Cause,
}

/// A rule of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// What happens then.
    pub action: Action<TargetGroupReference>,
    /// How requests are rewritten on their way to targets; at most one of each kind.
    pub transforms: Vec<Transform>,
    /// What a client has to show before that.
    pub authentication: Option<Authentication>,
    /// Its tags without `ingress.k8s.aws/resource`, which repeats the priority it is created with.
    pub tags: Tags,
    /// The path of the Ingress that asks for it.
    pub cause: Cause,
}

/// A target group that an action names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum TargetGroupReference {
    /// One of this stack's.
    Own(ResourceId),
    /// Somebody else's, left as it is.
    Foreign(TargetGroupArn),
    /// Somebody else's by its name, where nobody asks AWS for the ARN: known after apply.
    Named(String),
}

/// A target group with its binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetGroup {
    /// `<namespace>/<ingress>-<service>:<port>`, or `<namespace>/<service>:<port>` of a Service.
    pub resource: ResourceId,
    /// Used at creation alone; hashed from the Service's UID among others.
    pub name: Value<TargetGroupName>,
    /// The name where another target group of the stack has the first: one that is replaced, or that serves a load balancer
    /// that is.
    pub second_name: Value<TargetGroupName>,
    /// Cannot be changed in place.
    pub target_type: TargetType,
    /// Cannot be changed in place.
    pub protocol: TargetGroupProtocol,
    /// Cannot be changed in place.
    pub protocol_version: Option<ProtocolVersion>,
    /// `ipv4` or `ipv6`; cannot be changed in place.
    pub ip_address_type: IpAddressType,
    /// The port of targets that are registered without one; never compared afterwards.
    pub port: Value<u16>,
    /// Where the targets are.
    pub vpc: Value<VpcId>,
    /// Changed in place.
    pub health_check: HealthCheck,
    /// Those that somebody asks for; all others stay as they are.
    pub attributes: Attributes,
    /// All its tags.
    pub tags: Tags,
    /// The TargetGroupBinding that feeds it.
    pub binding: Binding,
    /// What asks for it.
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
    /// Which nodes are targets: `spec.nodeSelector.matchLabels`. Empty is all.
    pub node_labels: BTreeMap<String, String>,
    /// Who may reach the targets; `None` where the rules of nodes and pods are somebody else's.
    pub networking: Option<Vec<NetworkingRule>>,
}

/// Who may reach the targets of a binding, on which ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkingRule {
    /// Any of them.
    pub from: Vec<NetworkingPeer>,
    /// Any of them.
    pub ports: Vec<NetworkingPort>,
}

/// Where traffic to targets comes from.
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
