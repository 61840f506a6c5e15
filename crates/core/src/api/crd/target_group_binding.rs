//! TargetGroupBinding: keeps an AWS target group's targets equal to the endpoints of a Service's port.

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, LabelSelector, ObjectMeta},
    util::intstr::IntOrString,
};
use kube::{CustomResource, Resource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::Written;

// The doc comments of the fields below are the descriptions in the CustomResourceDefinition that `kubectl explain`
// shows, so they address the author of a manifest.

/// Binds a target group to a port of a Service, and says who can reach the targets.
#[allow(clippy::duplicated_attributes, reason = "printer columns are alike by nature")]
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "elbv2.k8s.aws",
    version = "v1beta1",
    kind = "TargetGroupBinding",
    root = "TargetGroupBindingDefinition",
    doc = "TargetGroupBinding registers the endpoints of a Service's port as the targets of an AWS target group.",
    namespaced,
    status = "TargetGroupBindingStatus",
    printcolumn(
        name = "SERVICE-NAME",
        type_ = "string",
        json_path = ".spec.serviceRef.name",
        description = "The name of the Service"
    ),
    printcolumn(
        name = "SERVICE-PORT",
        type_ = "string",
        json_path = ".spec.serviceRef.port",
        description = "The port of the Service"
    ),
    printcolumn(
        name = "TARGET-TYPE",
        type_ = "string",
        json_path = ".spec.targetType",
        description = "The target type of the target group"
    ),
    printcolumn(
        name = "ARN",
        type_ = "string",
        json_path = ".spec.targetGroupARN",
        description = "The Amazon Resource Name of the target group",
        priority = 1
    ),
    printcolumn(
        name = "NAME",
        type_ = "string",
        json_path = ".spec.targetGroupName",
        description = "The name of the target group",
        priority = 2
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TargetGroupBindingSpec {
    /// The ARN of the target group. It or `targetGroupName` is needed; the ARN wins.
    #[serde(rename = "targetGroupARN", skip_serializing_if = "Option::is_none")]
    pub target_group_arn: Option<String>,
    /// The name of the target group, used to find its ARN when `targetGroupARN` is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_group_name: Option<String>,
    /// True if other clusters register targets in the same target group. Then only targets that this binding
    /// registered are deregistered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multi_cluster_target_group: Option<bool>,
    /// The target type of the target group. Taken from AWS when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_type: Option<TargetType>,
    /// The protocol of the target group. Taken from AWS when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_group_protocol: Option<TargetGroupProtocol>,
    /// The Service, and its port, whose endpoints become targets.
    pub service_ref: ServiceReference,
    /// The peers that can reach the targets. If not set, security groups of nodes and pods are not changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networking: Option<Networking>,
    /// The nodes to register, for target type `instance`. If not set, all suitable nodes are registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// The address type of the target group. `ipv4` when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address_type: Option<IpAddressType>,
    /// The VPC of the target group. The controller's VPC when not set.
    #[serde(rename = "vpcID", skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<String>,
    /// The ARN of the IAM role to assume for calls about this target group, when it is in another AWS account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iam_role_arn_to_assume: Option<String>,
    /// The external id to give when assuming `iamRoleArnToAssume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assume_role_external_id: Option<String>,
}

/// A TargetGroupBinding object as it is read from and written to the API server.
///
/// A missing `spec` reads as an empty one: one odd object must not make a whole list unreadable.
#[derive(Resource, Deserialize, Clone, Debug, Default, PartialEq)]
#[resource(inherit = TargetGroupBindingDefinition)]
pub struct TargetGroupBinding {
    /// Name, namespace, labels, finalizers and so on.
    pub metadata: ObjectMeta,
    /// The desired state.
    #[serde(default)]
    pub spec: TargetGroupBindingSpec,
    /// The state that the controller last reported.
    pub status: Option<TargetGroupBindingStatus>,
}

impl TargetGroupBinding {
    /// The value of `apiVersion`.
    pub const API_VERSION: &str = super::API_VERSION;
    /// The value of `kind`.
    pub const KIND: &str = "TargetGroupBinding";
}

impl Serialize for TargetGroupBinding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (metadata, spec, status) = (&self.metadata, &self.spec, self.status.as_ref());
        Written { api_version: Self::API_VERSION, kind: Self::KIND, metadata, spec, status }.serialize(serializer)
    }
}

/// A port of a Service in the binding's namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ServiceReference {
    /// The name of the Service.
    pub name: String,
    /// The port of the Service, by number or by name.
    pub port: IntOrString,
}

/// The peers that can reach the targets.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Networking {
    /// The traffic let in to the targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<NetworkingIngressRule>>,
}

/// Traffic let in: from any of the peers to any of the ports.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct NetworkingIngressRule {
    /// The sources of the traffic.
    pub from: Vec<Peer>,
    /// The ports that the traffic can reach. A rule without ports allows no traffic.
    pub ports: Vec<NetworkingPort>,
}

/// A source of traffic: exactly one of the two fields is to be set.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// A range of addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
    /// A security group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_group: Option<SecurityGroup>,
}

/// A range of addresses.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct IpBlock {
    /// An IPv4 or IPv6 CIDR.
    pub cidr: String,
}

/// A security group, as the source of traffic.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SecurityGroup {
    /// The id of the security group.
    #[serde(rename = "groupID")]
    pub group_id: String,
}

/// A protocol and port on the targets.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct NetworkingPort {
    /// The protocol. TCP when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<NetworkingProtocol>,
    /// The port: for target type `instance` a number, for `ip` a number or the name of a container's port. All ports
    /// when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
}

/// The type of the targets. A target group of type `alb` or `lambda` cannot be bound.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TargetType {
    Instance,
    Ip,
}

/// The protocol of a target group.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TargetGroupProtocol {
    Http,
    Https,
    Tcp,
    Tls,
    Udp,
    TcpUdp,
    Quic,
    TcpQuic,
}

impl TargetGroupProtocol {
    /// Returns the protocol with a word of AWS's API; `None` if bindings do not have it.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        serde_json::from_value(word.into()).ok()
    }

    /// Returns true if AWS takes only targets with a QUIC server id.
    #[must_use]
    pub fn is_quic(self) -> bool {
        matches!(self, Self::Quic | Self::TcpQuic)
    }
}

/// The address type of a target group.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum IpAddressType {
    Ipv4,
    Ipv6,
}

/// The protocol of traffic let in.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum NetworkingProtocol {
    Tcp,
    Udp,
}

/// The state that the controller last reported.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TargetGroupBindingStatus {
    /// The generation of the object that was last reconciled in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the binding. `Ready` is false when the cleanup of a deleted binding failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
}
