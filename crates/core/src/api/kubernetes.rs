//! The Kubernetes objects that are read, with the fields that are used and no others: a field that is not named here is
//! dropped while parsing, which is most of a Pod. Every field may be missing, so that no object can fail a whole list.

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// A field that an object may also carry as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads the fields of `metadata` that are used. The rest, `managedFields` above all, is more than half of a Pod, and as many small
/// allocations as all else together.
fn used_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let used: UsedMetadata = or_default(deserializer)?;
    Ok(ObjectMeta {
        annotations: used.annotations,
        creation_timestamp: used.creation_timestamp,
        deletion_timestamp: used.deletion_timestamp,
        finalizers: used.finalizers,
        generation: used.generation,
        labels: used.labels,
        name: used.name,
        namespace: used.namespace,
        resource_version: used.resource_version,
        uid: used.uid,
        ..ObjectMeta::default()
    })
}

macro_rules! slim {
    ($($(#[$attribute:meta])* struct $name:ident { $(@$metadata:ident,)? $($(#[$field_attribute:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[allow(missing_docs)]
        pub struct $name {
            $(#[serde(default, deserialize_with = "used_metadata")] pub $metadata: ObjectMeta,)?
            $($(#[$field_attribute])* #[serde(default, deserialize_with = "or_default")] pub $field: $type),*
        }
    )*};
}

slim! {
    struct UsedMetadata {
        annotations: Option<BTreeMap<String, String>>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        finalizers: Option<Vec<String>>,
        generation: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
        name: Option<String>,
        namespace: Option<String>,
        resource_version: Option<String>,
        uid: Option<String>,
    }

    /// `networking.k8s.io/v1` Ingress
    #[derive(Resource)]
    #[resource(inherit = "k8s_openapi::api::networking::v1::Ingress")]
    struct Ingress { @metadata, spec: IngressSpec, status: LoadBalancedStatus }
    struct IngressSpec {
        ingress_class_name: Option<String>,
        default_backend: Option<IngressBackend>,
        rules: Vec<IngressRule>,
        tls: Vec<IngressTls>,
    }
    struct IngressTls { hosts: Vec<String> }
    struct IngressRule { host: Option<String>, http: Option<HttpIngressRule> }
    struct HttpIngressRule { paths: Vec<HttpIngressPath> }
    struct HttpIngressPath { path: Option<String>, path_type: Option<String>, backend: IngressBackend }
    struct IngressBackend { service: Option<IngressServiceBackend>, resource: Option<ResourceReference> }
    struct ResourceReference { api_group: Option<String>, kind: String, name: String }
    struct IngressServiceBackend { name: String, port: Option<ServiceBackendPort> }
    struct ServiceBackendPort { name: Option<String>, number: Option<i32> }
    struct LoadBalancedStatus { load_balancer: LoadBalancerStatus }
    struct LoadBalancerStatus { ingress: Vec<LoadBalancerIngress> }
    struct LoadBalancerIngress { hostname: Option<String>, ports: Vec<LoadBalancerPort> }
    struct LoadBalancerPort { port: i32 }

    /// `networking.k8s.io/v1` IngressClass
    #[derive(Resource)]
    #[resource(inherit = "k8s_openapi::api::networking::v1::IngressClass")]
    struct IngressClass { @metadata, spec: IngressClassSpec }
    struct IngressClassSpec { controller: Option<String>, parameters: Option<ResourceReference> }

    /// `v1` Namespace, of which labels and annotations count.
    #[derive(Resource)]
    #[resource(inherit = "k8s_openapi::api::core::v1::Namespace")]
    struct Namespace { @metadata, }

    /// `v1` Service
    #[derive(Resource)]
    #[resource(inherit = "k8s_openapi::api::core::v1::Service")]
    struct Service { @metadata, spec: ServiceSpec, status: LoadBalancedStatus }
    struct ServiceSpec {
        #[serde(rename = "type")]
        kind: Option<String>,
        ports: Vec<ServicePort>,
        ip_families: Vec<String>,
        selector: BTreeMap<String, String>,
        load_balancer_class: Option<String>,
        load_balancer_source_ranges: Vec<String>,
        external_traffic_policy: Option<String>,
        health_check_node_port: Option<i32>,
        allocate_load_balancer_node_ports: Option<bool>,
        publish_not_ready_addresses: Option<bool>,
    }
    struct ServicePort {
        name: Option<String>,
        port: i32,
        target_port: Option<IntOrString>,
        node_port: Option<i32>,
        protocol: Option<String>,
    }

    /// `discovery.k8s.io/v1` EndpointSlice
    #[derive(Resource)]
    #[resource(inherit = "k8s_openapi::api::discovery::v1::EndpointSlice")]
    struct EndpointSlice {
        @metadata,
        address_type: String,
        endpoints: Vec<Endpoint>,
        ports: Vec<EndpointPort>,
    }
    struct Endpoint {
        addresses: Vec<String>,
        conditions: EndpointConditions,
        target_ref: Option<ObjectReference>,
    }
    struct EndpointConditions { ready: Option<bool>, terminating: Option<bool> }
    struct ObjectReference { kind: Option<String>, namespace: Option<String>, name: Option<String>, uid: Option<String> }
    struct EndpointPort { name: Option<String>, port: Option<i32> }

    /// `v1` Pod
    #[derive(Resource)]
    #[resource(inherit = "k8s_openapi::api::core::v1::Pod")]
    struct Pod { @metadata, spec: PodSpec, status: PodStatus }
    struct PodSpec {
        node_name: Option<String>,
        containers: Vec<Container>,
        init_containers: Vec<Container>,
        readiness_gates: Vec<PodReadinessGate>,
    }
    struct Container { ports: Vec<ContainerPort>, env: Vec<Environment> }
    struct Environment { name: String, value: Option<String> }
    struct ContainerPort { name: Option<String>, container_port: i32 }
    struct PodReadinessGate { condition_type: String }
    struct PodStatus { conditions: Vec<Condition>, #[serde(rename = "podIPs")] pod_ips: Vec<PodIp>, #[serde(rename = "podIP")] pod_ip: Option<String> }
    struct PodIp { ip: Option<String> }
    struct Condition {
        #[serde(rename = "type")]
        kind: String,
        status: String,
        reason: String,
        message: String,
        last_transition_time: Option<Time>,
    }

    /// `v1` Node
    #[derive(Resource)]
    #[resource(inherit = "k8s_openapi::api::core::v1::Node")]
    struct Node { @metadata, spec: NodeSpec, status: NodeStatus }
    struct NodeSpec { #[serde(rename = "providerID")] provider_id: Option<String>, taints: Vec<Taint> }
    struct Taint { key: String, effect: Option<String> }
    struct NodeStatus { conditions: Vec<Condition> }
}

/// `v1` Secret, as little of it as is used. It can be neither printed nor written down.
#[derive(Clone, Default, Deserialize, Resource)]
#[resource(inherit = "k8s_openapi::api::core::v1::Secret")]
pub struct Secret {
    /// Name, UID and version. Annotations may hold the whole content a second time.
    #[serde(default, deserialize_with = "without_annotations")]
    pub metadata: ObjectMeta,
    /// Bytes by key. What is not as it should be is left out: kube's client would log the text of an object that cannot be read.
    #[serde(default, deserialize_with = "readable")]
    pub data: BTreeMap<String, k8s_openapi::ByteString>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("name", &self.metadata.name).finish_non_exhaustive()
    }
}

fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, k8s_openapi::ByteString>, D::Error> {
    let data: BTreeMap<String, serde_json::Value> = match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Object(data) => data.into_iter().collect(),
        _ => BTreeMap::new(),
    };
    Ok(data.into_iter().filter_map(|(key, value)| Some((key, serde_json::from_value(value).ok()?))).collect())
}

fn without_annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Ok(ObjectMeta { annotations: None, ..used_metadata(deserializer)? })
}
