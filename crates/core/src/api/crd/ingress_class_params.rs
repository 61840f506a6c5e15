//! IngressClassParams: settings for all Ingresses of an IngressClass, which win over annotations.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{CustomResource, KubeSchema, Resource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::Written;
pub use super::target_group_binding::TargetType;

// The doc comments of the fields below are the descriptions in the CustomResourceDefinition that `kubectl explain`
// shows, so they address the author of a manifest.

/// Settings for all Ingresses of the IngressClass that names this object. A field that is set wins over the annotation
/// of the same meaning.
#[allow(clippy::duplicated_attributes, reason = "printer columns are alike by nature")]
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "elbv2.k8s.aws",
    version = "v1beta1",
    kind = "IngressClassParams",
    root = "IngressClassParamsDefinition",
    doc = "IngressClassParams holds settings for all Ingresses of an IngressClass.",
    singular = "ingressclassparam",
    plural = "ingressclassparams",
    printcolumn(
        name = "GROUP-NAME",
        type_ = "string",
        json_path = ".spec.group.name",
        description = "The name of the Ingress group"
    ),
    printcolumn(
        name = "SCHEME",
        type_ = "string",
        json_path = ".spec.scheme",
        description = "The scheme of the load balancer"
    ),
    printcolumn(
        name = "IP-ADDRESS-TYPE",
        type_ = "string",
        json_path = ".spec.ipAddressType",
        description = "The address type of the load balancer"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("!(has(self.prefixListsIDs) && has(self.PrefixListsIDs))")
        .message("cannot specify both 'prefixListsIDs' and 'PrefixListsIDs' fields")
)]
#[serde(rename_all = "camelCase")]
pub struct IngressClassParamsSpec {
    /// The name of the load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_name: Option<String>,
    /// The ARNs of the certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_arn: Option<Vec<String>>,
    /// The namespaces whose Ingresses may use the class. All of them when absent or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// The group that all Ingresses of the class belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<IngressGroup>,
    /// The scheme of the load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The CIDRs that may reach the load balancer.
    #[schemars(transform = address_ranges)]
    #[serde(rename = "inboundCIDRs", skip_serializing_if = "Option::is_none")]
    pub inbound_cidrs: Option<Vec<String>>,
    /// The TLS policy of HTTPS listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_policy: Option<String>,
    /// The HTTPS port that plain HTTP listeners redirect to, as a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_redirect_port: Option<String>,
    /// The subnets of the load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnets: Option<SubnetSelector>,
    /// The address type of the load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address_type: Option<IpAddressType>,
    /// Tags of the AWS resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
    /// The target type of the target groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_type: Option<TargetType>,
    /// Attributes of the load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_attributes: Option<Vec<Attribute>>,
    /// Attributes of listeners. An entry does not create a listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listeners: Option<Vec<Listener>>,
    /// The capacity reserved for the load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_load_balancer_capacity: Option<MinimumLoadBalancerCapacity>,
    /// The source of the load balancer's public IPv4 addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam_configuration: Option<IpamConfiguration>,
    /// The prefix lists that may reach the load balancer.
    #[serde(rename = "prefixListsIDs", skip_serializing_if = "Option::is_none")]
    pub prefix_lists_ids: Option<Vec<String>>,
    /// The old spelling of `prefixListsIDs`. Only one of the two may be set.
    #[serde(rename = "PrefixListsIDs", skip_serializing_if = "Option::is_none")]
    pub prefix_lists_ids_legacy: Option<Vec<String>>,
    /// The ARN of the WAFv2 web ACL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wafv2_acl_arn: Option<String>,
    /// The name of the WAFv2 web ACL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wafv2_acl_name: Option<String>,
}

/// An IngressClassParams object as it is read from the API server or a file.
///
/// A missing `spec` reads as an empty one, as the schema allows.
#[derive(Resource, Deserialize, Clone, Debug, Default, PartialEq)]
#[resource(inherit = IngressClassParamsDefinition)]
pub struct IngressClassParams {
    /// Name, labels and so on.
    pub metadata: ObjectMeta,
    /// The settings.
    #[serde(default)]
    pub spec: IngressClassParamsSpec,
}

impl IngressClassParams {
    /// The value of `apiVersion`.
    pub const API_VERSION: &str = super::API_VERSION;
    /// The value of `kind`.
    pub const KIND: &str = "IngressClassParams";
}

impl Serialize for IngressClassParams {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (metadata, spec, status) = (&self.metadata, &self.spec, None::<&()>);
        Written { api_version: Self::API_VERSION, kind: Self::KIND, metadata, spec, status }.serialize(serializer)
    }
}

/// An Ingress group.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct IngressGroup {
    /// The name of the group.
    pub name: String,
}

/// The subnets to use. Exactly one of the two fields must be set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("has(self.ids) != has(self.tags)").message("exactly one of 'ids' and 'tags' must be set"))]
pub struct SubnetSelector {
    /// The ids of the subnets.
    #[schemars(length(min = 1), inner(regex(pattern = "subnet-[0-9a-f]+")), extend("x-kubernetes-list-type" = "set"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// Subnets of the VPC that have, for each key, a tag of that key with one of the values.
    #[schemars(transform = sets_of_values)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, Vec<String>>>,
}

/// Lets the API server refuse what is no address range by its form. Bits behind a prefix are the controller's to report, and the
/// webhook's: the rules with which an API server finds them exist since Kubernetes 1.31, and an older one refuses the whole
/// definition for them.
fn address_ranges(schema: &mut schemars::Schema) {
    if let Some(items) = schema.get_mut("items").and_then(serde_json::Value::as_object_mut) {
        items.insert("pattern".to_owned(), "^[0-9A-Fa-f.:]+/[0-9]{1,3}$".into());
    }
}

/// Lets it check tags as a webhook of aws-load-balancer-controller does: at least one, and no value twice.
fn sets_of_values(schema: &mut schemars::Schema) {
    schema.insert("minProperties".to_owned(), 1.into());
    if let Some(values) = schema.get_mut("additionalProperties").and_then(serde_json::Value::as_object_mut) {
        values.insert("x-kubernetes-list-type".to_owned(), "set".into());
    }
}

/// A tag of an AWS resource.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Tag {
    /// The key of the tag.
    pub key: String,
    /// The value of the tag.
    pub value: String,
}

/// An attribute of a load balancer or listener.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Attribute {
    /// The key of the attribute.
    pub key: String,
    /// The value of the attribute.
    pub value: String,
}

/// Attributes of the listener with this protocol and port.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// The protocol of the listener: HTTP or HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The port of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// The attributes of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_attributes: Option<Vec<Attribute>>,
}

/// Reserved capacity.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MinimumLoadBalancerCapacity {
    /// The capacity, in load balancer capacity units.
    pub capacity_units: i32,
}

/// The source of public addresses.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct IpamConfiguration {
    /// The id of the IPAM pool for IPv4 addresses.
    #[serde(rename = "ipv4IPAMPoolId", skip_serializing_if = "Option::is_none")]
    pub ipv4_ipam_pool_id: Option<String>,
}

/// The scheme of a load balancer.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    Internal,
    InternetFacing,
}

/// The address type of a load balancer.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum IpAddressType {
    Ipv4,
    Dualstack,
    DualstackWithoutPublicIpv4,
}
