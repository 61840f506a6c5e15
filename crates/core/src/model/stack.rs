//! The desired AWS resources of one stack, requested by a group of Ingresses or by a Service.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{
    Action, AddOns, AddressPools, Attributes, Authentication, Cause, CertificateArn, Condition, DesiredCertificates,
    HealthCheck, IpAddressType, ListenerProtocol, LoadBalancerArn, LoadBalancerKind, LoadBalancerName,
    MutualAuthentication, NetworkSettings, ObjectReference, ProtocolVersion, ResourceId, Scheme, SecurityGroupId,
    SecurityGroupRule, SourceNatPrefix, StackId, SubnetId, Tags, TargetGroupArn, TargetGroupName, TargetGroupProtocol,
    TargetType, Transform, TrustStoreArn, VpcId,
};

/// A value that may be unknown until AWS or the cluster has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Value<T> {
    /// The value is known now.
    Known(T),
    /// The value is known only after apply; the text says what it depends on.
    AfterApply(&'static str),
}

impl<T> Value<T> {
    /// Returns the value, if it is known.
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

/// The desired AWS resources of a group of Ingresses or of a Service. An empty stack is one whose resources are all
/// deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stack {
    /// The id of the stack.
    pub id: StackId,
    /// The front-end security group, created and deleted with the load balancer.
    pub security_group: Option<ManagedSecurityGroup>,
    /// The load balancer.
    pub load_balancer: Option<LoadBalancer>,
    /// The target groups, in the order in which rules first name them.
    pub target_groups: IndexMap<ResourceId, TargetGroup>,
    /// The listeners by port.
    pub listeners: BTreeMap<u16, Listener>,
    /// The Network Load Balancer in front of the load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frontend: Option<Box<Frontend>>,
    /// The certificates that ACM is to issue.
    #[serde(skip_serializing_if = "DesiredCertificates::is_empty")]
    pub certificates: DesiredCertificates,
    /// The frozen members of the group, whose resources the stack does not describe.
    pub frozen: FrozenMembers,
    /// The keys of tags that other parties manage (`--external-managed-tags`): they are never removed. Left out of
    /// serialised plans.
    #[serde(skip)]
    pub external_tags: BTreeSet<String>,
    /// True if all resources are deleted and a deleted object sets `deletion_protection.enabled=false`: only then may
    /// the deletion protection of the load balancer in AWS be disabled.
    pub unprotect: bool,
    /// True if what stands in front is deleted and an object sets `deletion_protection.enabled=false` for it: only then may its
    /// deletion protection in AWS be disabled.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unprotect_frontend: bool,
    /// True if AWS does not allow all that is requested before the load balancer is as the stack has it: what is built then is another
    /// stack. Left out of serialised plans.
    #[serde(skip)]
    pub interim: bool,
    /// The members that request what the group shares. Left out of serialised plans.
    #[serde(skip)]
    pub requesters: Requesters,
}

/// The members that request what the group shares, so that a refusal by AWS is reported on the right one. A setting
/// without an entry has the cause of its load balancer, listener or security group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requesters {
    /// The TLS policy, by port of the listener.
    pub ssl_policy: BTreeMap<u16, Cause>,
    /// The treatment of client certificates, by port of the listener.
    pub mutual_authentication: BTreeMap<u16, Cause>,
    /// The default action, by port of the listener.
    pub default_action: BTreeMap<u16, Cause>,
    /// The default certificate, by port of the listener.
    pub default_certificate: BTreeMap<u16, Cause>,
    /// The member that adds a listener which the other members do not have yet, by port, if it is known.
    pub listeners: BTreeMap<u16, Cause>,
    /// Prefix lists, by port of the listener and id of the prefix list.
    pub prefix_lists: BTreeMap<(u16, String), Cause>,
    /// The tags of the load balancer, its listeners and its security group, by key.
    pub tags: BTreeMap<String, Cause>,
    /// The subnets of the load balancer.
    pub subnets: Option<Cause>,
    /// The security groups of the load balancer.
    pub security_groups: Option<Cause>,
    /// The address type of the load balancer.
    pub ip_address_type: Option<Cause>,
    /// The IPAM pool of the load balancer.
    pub ipam_pool: Option<Cause>,
}

impl Requesters {
    /// Returns the cause of the listener setting that AWS refuses, by the code of its error (ELB API: errors of
    /// CreateListener and ModifyListener). `None` for a code that names no setting, or a setting that the listener's
    /// cause requests.
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

    /// Returns the cause of the setting that AWS refuses in a new load balancer, by the code of its error (ELB API:
    /// errors of CreateLoadBalancer). `None` for a code that names no setting, or a setting that no member requests.
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

    /// Returns true if the cause belongs to a member that requests a setting of the load balancer.
    #[must_use]
    pub fn asks_for_setting(&self, cause: &Cause) -> bool {
        [&self.subnets, &self.security_groups, &self.ip_address_type, &self.ipam_pool]
            .into_iter()
            .flatten()
            .any(|requester| requester == cause)
    }
}

/// The members of a group that the stack does not describe: their resources in AWS stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FrozenMembers {
    /// The frozen members. If there are none, no resources are kept for them.
    pub members: BTreeSet<ObjectReference>,
    /// All members in the group's order, both those of the stack and the frozen ones.
    pub order: Vec<ObjectReference>,
    /// The Services that frozen members may forward to, each with the member that owns the target groups.
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
            frontend: None,
            certificates: DesiredCertificates::default(),
            frozen: FrozenMembers::default(),
            external_tags: BTreeSet::new(),
            unprotect: false,
            unprotect_frontend: false,
            interim: false,
            requesters: Requesters::default(),
        }
    }
}

/// A Network Load Balancer whose only target is the stack's Application Load Balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Frontend {
    /// The load balancer.
    pub load_balancer: LoadBalancer,
    /// The name of the load balancer if another of the stack has the first one: one that is being replaced.
    pub second_name: Value<LoadBalancerName>,
    /// The listeners by port.
    pub listeners: BTreeMap<u16, FrontendListener>,
}

/// A TCP listener of a [`Frontend`] with its target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrontendListener {
    /// The port of the Application Load Balancer that it leads to.
    pub target_port: u16,
    /// All tags of the listener.
    pub tags: Tags,
    /// The target group.
    pub target_group: FrontendTargetGroup,
    /// The cause.
    pub cause: Cause,
}

/// A target group of the type `alb`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrontendTargetGroup {
    /// The id in the stack.
    pub resource: ResourceId,
    /// The name, used only at creation.
    pub name: Value<TargetGroupName>,
    /// The name if another target group of the stack has the first one: AWS takes one target in each, so that another target
    /// needs another target group.
    pub second_name: Value<TargetGroupName>,
    /// The port, that of the listener.
    pub port: u16,
    /// The VPC.
    pub vpc: Value<VpcId>,
    /// The health check. It is changed in place.
    pub health_check: HealthCheck,
    /// All tags.
    pub tags: Tags,
}

/// An Application Load Balancer as the target of a Network Load Balancer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LoadBalancerTarget {
    /// The Application Load Balancer.
    pub load_balancer: LoadBalancerArn,
    /// The port of its listener.
    pub port: u16,
}

/// A security group that the controller creates for the load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManagedSecurityGroup {
    /// The name, hashed from cluster and stack.
    pub name: Value<String>,
    /// The description, a fixed text: EC2 cannot change it later.
    pub description: &'static str,
    /// The rules for incoming traffic.
    pub ingress: Vec<SecurityGroupRule>,
    /// All tags.
    pub tags: Tags,
    /// The cause.
    pub cause: Cause,
}

/// A security group that a load balancer is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum SecurityGroupReference {
    /// The stack's own [`ManagedSecurityGroup`].
    Managed,
    /// The security group that all load balancers of the cluster share, the source in rules for nodes.
    SharedBackend(Value<SecurityGroupId>),
    /// A group that the user manages, with the user's rules.
    Given(Value<SecurityGroupId>),
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadBalancer {
    /// The type. It cannot be changed in place.
    pub kind: LoadBalancerKind,
    /// The name, used only at creation; an existing load balancer is found by its tags.
    pub name: Value<LoadBalancerName>,
    /// The scheme. It cannot be changed in place.
    pub scheme: Scheme,
    /// The address families.
    pub ip_address_type: IpAddressType,
    /// The settings that only a Network Load Balancer has.
    #[serde(skip_serializing_if = "NetworkSettings::is_default")]
    pub network: NetworkSettings,
    /// The pools that its IPv4 addresses come from, only for an Application Load Balancer.
    #[serde(skip_serializing_if = "AddressPools::is_empty")]
    pub pools: AddressPools,
    /// The subnets, one in each zone.
    pub subnets: Value<Vec<SubnetMapping>>,
    /// The security groups, in the requested order. A Network Load Balancer created without any can never be given one.
    pub security_groups: Vec<SecurityGroupReference>,
    /// The requested attributes; all others stay unchanged.
    pub attributes: Attributes,
    /// The causes of attributes, where they differ from the load balancer's cause.
    pub attribute_causes: BTreeMap<String, Cause>,
    /// The settings that other services of AWS hold.
    #[serde(skip_serializing_if = "AddOns::is_empty")]
    pub add_ons: AddOns,
    /// All tags.
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

    /// Returns true if the load balancer must have a web ACL that the existing one is not known to have.
    #[must_use]
    pub fn lacks_web_acl(&self, existing: &super::ObservedLoadBalancer) -> bool {
        let requested = self.add_ons.web_acl.as_ref().and_then(|requested| requested.value.as_ref());
        let is_associated = |web_acl| existing.add_ons.web_acl.as_ref().is_some_and(|known| known.is(web_acl));
        match requested {
            Some(Value::Known(web_acl)) => !is_associated(web_acl),
            Some(Value::AfterApply(_)) => true,
            None => self.add_ons.web_acl_is_unknown,
        }
    }
}

/// A subnet of a load balancer, with the requested addresses in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SubnetMapping {
    /// The subnet.
    pub subnet: SubnetId,
    /// `AllocationId` of an Elastic IP address, only for internet-facing Network Load Balancers.
    pub allocation: Option<String>,
    /// `PrivateIPv4Address`, only for internal Network Load Balancers.
    pub private_ipv4: Option<String>,
    /// `IPv6Address`, only for dualstack Network Load Balancers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// `SourceNatIpv6Prefix`, only for dualstack Network Load Balancers with source NAT; `None` leaves it unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_nat_prefix: Option<SourceNatPrefix>,
}

impl SubnetMapping {
    /// Returns a mapping without addresses: AWS chooses them.
    #[must_use]
    pub fn plain(subnet: SubnetId) -> Self {
        Self { subnet, allocation: None, private_ipv4: None, ipv6: None, source_nat_prefix: None }
    }
}

/// A listener of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// The port, 1 to 65535.
    pub port: u16,
    /// The protocol: HTTP or HTTPS; TCP, UDP, TCP_UDP or TLS on a Network Load Balancer.
    pub protocol: ListenerProtocol,
    /// The action for a request that no rule matches.
    pub default_action: Action<TargetGroupReference>,
    /// The authentication that the default action requires.
    pub default_authentication: Option<Authentication>,
    /// The certificate for clients without SNI. HTTPS requires one.
    pub default_certificate: Option<CertificateArn>,
    /// The other certificates, sorted, without the default one.
    pub certificates: BTreeSet<CertificateArn>,
    /// The reason why the certificates are known only after apply, if they are: in plans that may not query AWS.
    pub certificates_after_apply: Option<&'static str>,
    /// The treatment of client certificates; `None` leaves it unchanged.
    pub mutual_authentication: Option<MutualAuthentication<Value<TrustStoreArn>>>,
    /// The name of the TLS policy.
    pub ssl_policy: Option<String>,
    /// `AlpnPolicy` of a TLS listener.
    pub alpn_policy: Option<String>,
    /// The requested attributes; all others stay unchanged.
    pub attributes: Attributes,
    /// The causes of attributes, where they differ from the listener's cause.
    pub attribute_causes: BTreeMap<String, Cause>,
    /// The rules in order of precedence.
    pub rules: Vec<Rule>,
    /// The parts that each member of a group contributes, other than rules. Left out of serialised plans.
    #[serde(skip)]
    pub shares: BTreeMap<ObjectReference, ListenerShare>,
    /// All tags.
    pub tags: Tags,
    /// The cause.
    pub cause: Cause,
}

/// The parts of a listener, other than rules, that a member of a group contributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenerShare {
    /// The member's certificates.
    pub certificates: BTreeSet<CertificateArn>,
    /// True if the default action belongs to the member.
    pub default_action: bool,
    /// The cause within the member.
    pub cause: Cause,
}

/// A rule of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The conditions, all of which a request must meet.
    pub conditions: Vec<Condition>,
    /// The action for a request that the rule matches.
    pub action: Action<TargetGroupReference>,
    /// The rewrites of requests on the way to targets; at most one of each kind.
    pub transforms: Vec<Transform>,
    /// The authentication that the rule requires.
    pub authentication: Option<Authentication>,
    /// The tags without `ingress.k8s.aws/resource`, which repeats the priority that the rule is created with.
    pub tags: Tags,
    /// The path of the Ingress that requests the rule.
    pub cause: Cause,
}

/// A target group that an action names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum TargetGroupReference {
    /// A target group of this stack.
    Own(ResourceId),
    /// Another owner's target group. The controller does not change it.
    Foreign(TargetGroupArn),
    /// Another owner's target group by its name, if AWS is not queried for the ARN: known after apply.
    Named(String),
}

/// A target group with its binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetGroup {
    /// The id in the stack: `<namespace>/<ingress>-<service>:<port>`, or `<namespace>/<service>:<port>` for a Service.
    pub resource: ResourceId,
    /// The name, used only at creation; hashed from the Service's UID among others.
    pub name: Value<TargetGroupName>,
    /// The name if another target group of the stack has the first one: a target group that is being replaced, or one
    /// that serves a load balancer that is being replaced.
    pub second_name: Value<TargetGroupName>,
    /// The target type. It cannot be changed in place.
    pub target_type: TargetType,
    /// The protocol. It cannot be changed in place.
    pub protocol: TargetGroupProtocol,
    /// The protocol version. It cannot be changed in place.
    pub protocol_version: Option<ProtocolVersion>,
    /// The address family: `ipv4` or `ipv6`. It cannot be changed in place.
    pub ip_address_type: IpAddressType,
    /// The port of targets that are registered without one; never compared after creation.
    pub port: Value<u16>,
    /// The VPC of the targets.
    pub vpc: Value<VpcId>,
    /// The health check. It is changed in place.
    pub health_check: HealthCheck,
    /// The requested attributes; all others stay unchanged.
    pub attributes: Attributes,
    /// All tags.
    pub tags: Tags,
    /// The TargetGroupBinding that registers its targets.
    pub binding: Binding,
    /// The cause.
    pub cause: Cause,
}

/// A port by number or by name, as in Services.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum PortReference {
    /// The number, 1 to 65535.
    Number(u16),
    /// The name.
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

/// The TargetGroupBinding of a managed target group. It has the target group's name, type, protocol and VPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// The namespace of the Service.
    pub namespace: String,
    /// The labels, `ingress.k8s.aws/stack…`.
    pub labels: BTreeMap<String, String>,
    /// The name of the Service.
    pub service: String,
    /// The port of the Service, as the Ingress writes it.
    pub service_port: PortReference,
    /// The labels that nodes need to be targets: `spec.nodeSelector.matchLabels`. Empty selects all nodes.
    pub node_labels: BTreeMap<String, String>,
    /// True if other clusters register targets in the same group: `spec.multiClusterTargetGroup`.
    pub multi_cluster: bool,
    /// The peers that can reach the targets; `None` if the controller does not manage the rules for nodes and pods.
    pub networking: Option<Vec<NetworkingRule>>,
}

/// The peers that can reach the targets of a binding, and the ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkingRule {
    /// The peers, any of which can reach the targets.
    pub from: Vec<NetworkingPeer>,
    /// The ports, any of which the peers can reach.
    pub ports: Vec<NetworkingPort>,
}

/// A source of traffic to targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum NetworkingPeer {
    /// The members of a security group.
    SecurityGroup(SecurityGroupReference),
    /// A CIDR block.
    Cidr(String),
}

/// A port of targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkingPort {
    /// True for UDP, false for TCP.
    pub udp: bool,
    /// The port by number or by the pod's name for it; `None` means every port.
    pub port: Option<PortReference>,
}

impl NetworkingPort {
    /// Returns a TCP port.
    #[must_use]
    pub fn tcp(port: Option<PortReference>) -> Self {
        Self { udp: false, port }
    }

    /// Returns a UDP port.
    #[must_use]
    pub fn udp(port: Option<PortReference>) -> Self {
        Self { udp: true, port }
    }
}
