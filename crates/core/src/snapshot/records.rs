//! The objects of the snapshot: parsed once, and reduced to the fields in use.

mod endpoints;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::ObjectMeta, apimachinery::pkg::util::intstr::IntOrString, jiff::Timestamp,
};

use crate::{
    api::{crd, kubernetes as wire, readiness},
    drain,
    dry_run_plan::{self, WrittenPlan},
    model::{ObjectName, PortReference, QuicServerId},
};

pub use endpoints::{AddressFamily, EndpointAddress, EndpointSlice, EndpointSlicePort, PodReference};

fn name_of(metadata: &ObjectMeta) -> ObjectName {
    ObjectName::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn port(value: &IntOrString) -> Option<PortReference> {
    match value {
        IntOrString::Int(number) => u16::try_from(*number).ok().map(PortReference::Number),
        // Decimal text is a number to Kubernetes' clients as well.
        IntOrString::String(text) => Some(match text.parse() {
            Ok(number) => PortReference::Number(number),
            Err(_) => PortReference::Name(text.clone()),
        }),
    }
}

/// Returns true if the API server treats a port as absent.
fn is_unset(port: &IntOrString) -> bool {
    match port {
        IntOrString::Int(number) => *number == 0,
        IntOrString::String(text) => text.is_empty(),
    }
}

/// An Ingress.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingress {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`; empty in files.
    pub uid: String,
    /// `metadata.generation`; 0 in files.
    pub generation: i64,
    /// All annotations but that of the plan, which is an output.
    pub annotations: BTreeMap<String, String>,
    /// The annotation of the plan.
    pub written_plan: Option<WrittenPlan>,
    /// All finalizers.
    pub finalizers: Vec<String>,
    /// True if it is being deleted.
    pub deleting: bool,
    /// `spec.ingressClassName`
    pub class: Option<String>,
    /// `spec.defaultBackend`
    pub default_backend: Option<Backend>,
    /// `spec.rules` that have HTTP paths, in the order of the manifest, with their index there.
    pub rules: Vec<HttpRule>,
    /// The host names in `spec.rules`, with and without paths, and in `spec.tls`: the names that certificates have to cover.
    pub hosts: BTreeSet<String>,
    /// `status.loadBalancer.ingress`
    pub status: Vec<StatusEntry>,
}

/// An entry of `spec.rules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRule {
    /// Its place in `spec.rules`.
    pub index: usize,
    /// Empty means every host.
    pub host: String,
    /// In the order of the manifest.
    pub paths: Vec<HttpPath>,
}

/// A path of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPath {
    /// May be empty.
    pub path: String,
    /// `Exact`, `Prefix`, `ImplementationSpecific`; absent means the last.
    pub path_type: Option<String>,
    /// The destination of requests.
    pub backend: Backend,
}

/// A backend of an Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A Service, or with [`BackendPort::UseAnnotation`] the annotation `actions.<name>`.
    Service {
        /// Its name.
        name: String,
        /// Its port.
        port: BackendPort,
    },
    /// Another kind of object, which no load balancer can serve: kind and name.
    Resource(String, String),
    /// Neither of both.
    Nothing,
}

/// The port of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendPort {
    /// A port of the Service.
    Port(PortReference),
    /// `use-annotation`
    UseAnnotation,
    /// A number that no port has; the API server takes none, files may.
    OutOfRange(i32),
    /// Neither name nor number.
    Missing,
}

/// An entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusEntry {
    /// May be empty.
    pub hostname: String,
    /// In the order of the object.
    pub ports: Vec<i32>,
}

fn backend(wire: wire::IngressBackend) -> Backend {
    if let Some(service) = wire.service {
        let port = match service.port {
            Some(wire::ServiceBackendPort { name: Some(name), .. }) if name == "use-annotation" => {
                BackendPort::UseAnnotation
            }
            Some(wire::ServiceBackendPort { name: Some(name), .. }) if !name.is_empty() => {
                BackendPort::Port(PortReference::Name(name))
            }
            Some(wire::ServiceBackendPort { number: Some(number), .. }) => u16::try_from(number)
                .map_or(BackendPort::OutOfRange(number), |n| BackendPort::Port(PortReference::Number(n))),
            _ => BackendPort::Missing,
        };
        Backend::Service { name: service.name, port }
    } else if let Some(resource) = wire.resource {
        Backend::Resource(resource.kind, resource.name)
    } else {
        Backend::Nothing
    }
}

impl From<wire::Ingress> for Ingress {
    fn from(wire: wire::Ingress) -> Self {
        let wire::Ingress { metadata, spec, status } = wire;
        let in_tls = spec.tls.iter().flat_map(|tls| &tls.hosts);
        let hosts = spec.rules.iter().filter_map(|rule| rule.host.as_ref()).chain(in_tls);
        let name = name_of(&metadata);
        let mut annotations = metadata.annotations.unwrap_or_default();
        let plan = annotations.remove(dry_run_plan::KEY);
        Self {
            hosts: hosts.filter(|host| !host.is_empty()).cloned().collect(),
            name,
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            annotations,
            written_plan: plan.as_deref().map(WrittenPlan::of),
            finalizers: metadata.finalizers.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            class: spec.ingress_class_name,
            default_backend: spec.default_backend.map(backend),
            rules: spec
                .rules
                .into_iter()
                .enumerate()
                .filter_map(|(index, rule)| {
                    Some(HttpRule {
                        index,
                        host: rule.host.unwrap_or_default(),
                        paths: rule
                            .http?
                            .paths
                            .into_iter()
                            .map(|path| HttpPath {
                                path: path.path.unwrap_or_default(),
                                path_type: path.path_type,
                                backend: backend(path.backend),
                            })
                            .collect(),
                    })
                })
                .collect(),
            status: status_entries(status),
        }
    }
}

fn status_entries(status: wire::LoadBalancedStatus) -> Vec<StatusEntry> {
    let entry = |entry: wire::LoadBalancerIngress| StatusEntry {
        hostname: entry.hostname.unwrap_or_default(),
        ports: entry.ports.into_iter().map(|p| p.port).collect(),
    };
    status.load_balancer.ingress.into_iter().map(entry).collect()
}

/// An IngressClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressClass {
    /// Its name; the namespace is empty.
    pub name: ObjectName,
    /// `spec.controller`
    pub controller: String,
    /// `spec.parameters`
    pub parameters: Option<ClassParameters>,
    /// True if it is the class of Ingresses that name none.
    pub default: bool,
}

/// The object that an IngressClass takes its settings from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassParameters {
    /// The API group; empty where it has none.
    pub group: String,
    /// For example `IngressClassParams`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl From<wire::IngressClass> for IngressClass {
    fn from(wire: wire::IngressClass) -> Self {
        let default = wire.metadata.annotations.as_ref().is_some_and(|annotations| {
            annotations.get("ingressclass.kubernetes.io/is-default-class").is_some_and(|value| value == "true")
        });
        Self {
            name: name_of(&wire.metadata),
            controller: wire.spec.controller.unwrap_or_default(),
            parameters: wire.spec.parameters.map(|p| ClassParameters {
                group: p.api_group.unwrap_or_default(),
                kind: p.kind,
                name: p.name,
            }),
            default,
        }
    }
}

/// An IngressClassParams.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressClassParams {
    /// Its name; the namespace is empty.
    pub name: ObjectName,
    /// `metadata.uid`; empty in files.
    pub uid: String,
    /// Its spec.
    pub spec: crd::IngressClassParamsSpec,
}

impl From<crd::IngressClassParams> for IngressClassParams {
    fn from(wire: crd::IngressClassParams) -> Self {
        let crd::IngressClassParams { metadata, spec } = wire;
        Self { name: name_of(&metadata), uid: metadata.uid.unwrap_or_default(), spec }
    }
}

/// A Namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name; the namespace is empty.
    pub name: ObjectName,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// The annotation [`drain::SECONDS`].
    pub drain_seconds: Option<String>,
}

impl From<wire::Namespace> for Namespace {
    fn from(wire: wire::Namespace) -> Self {
        let name = name_of(&wire.metadata);
        let mut labels = wire.metadata.labels.unwrap_or_default();
        // The API server puts it on every Namespace; in files it may be missing.
        labels.entry("kubernetes.io/metadata.name".to_owned()).or_insert_with(|| name.name.clone());
        let drain_seconds = wire.metadata.annotations.and_then(|mut annotations| annotations.remove(drain::SECONDS));
        Self { name, labels, drain_seconds }
    }
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`; empty in files.
    pub uid: String,
    /// `metadata.generation`; 0 in files, and in clusters that do not count the generations of Services.
    pub generation: i64,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
    /// All finalizers.
    pub finalizers: Vec<String>,
    /// True if it is being deleted.
    pub deleting: bool,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    pub kind: String,
    /// In the order of the manifest.
    pub ports: Vec<ServicePort>,
    /// True if one of its address families is IPv6.
    pub ipv6: bool,
    /// `spec.selector`: the labels of its pods; empty where another controller manages its endpoints.
    pub selector: BTreeMap<String, String>,
    /// `spec.loadBalancerClass`
    pub load_balancer_class: Option<String>,
    /// `spec.loadBalancerSourceRanges`
    pub load_balancer_source_ranges: Vec<String>,
    /// True if `spec.externalTrafficPolicy` is `Local`: nodes without a pod of it answer no traffic.
    pub local_traffic: bool,
    /// `spec.healthCheckNodePort`, which a Service of type LoadBalancer has with the traffic policy `Local`.
    pub health_check_node_port: Option<u16>,
    /// `spec.allocateLoadBalancerNodePorts`; absent is true.
    pub allocate_load_balancer_node_ports: bool,
    /// `spec.publishNotReadyAddresses`: pods that are not ready, or end, count as ready.
    pub publishes_not_ready: bool,
    /// `status.loadBalancer.ingress`
    pub status: Vec<StatusEntry>,
    /// True if it is in no file, and stands for the Service that may be in another: of its ports only the Service's own is known.
    pub assumed: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty where it has none.
    pub name: String,
    /// The Service's own.
    pub port: u16,
    /// The pods'; absent in the manifest it is the same number.
    pub target_port: PortReference,
    /// The nodes', where it has one.
    pub node_port: Option<u16>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

impl Service {
    /// Returns the Service that another file may have, with the port that is asked of it.
    #[must_use]
    pub fn assumed(name: ObjectName, port: &PortReference) -> Self {
        let (port_name, number) = match port {
            PortReference::Number(number) => (String::new(), *number),
            PortReference::Name(name) => (name.clone(), 0),
        };
        let ports = vec![ServicePort {
            name: port_name,
            port: number,
            target_port: PortReference::Number(number),
            node_port: None,
            protocol: "TCP".to_owned(),
        }];
        let metadata = ObjectMeta { namespace: Some(name.namespace), name: Some(name.name), ..ObjectMeta::default() };
        Self { ports, assumed: true, ..Self::from(wire::Service { metadata, ..wire::Service::default() }) }
    }

    /// Returns true if the API server assigns node ports to its ports.
    #[must_use]
    pub fn gets_node_ports(&self) -> bool {
        match self.kind.as_str() {
            "NodePort" => true,
            "LoadBalancer" => self.allocate_load_balancer_node_ports,
            _ => false,
        }
    }

    /// Returns true if it selects pods with these labels. Without a selector it selects none.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The port that a number or a name means.
    #[must_use]
    pub fn port(&self, wanted: &PortReference) -> Option<&ServicePort> {
        self.ports.iter().find(|port| match wanted {
            PortReference::Number(number) => port.port == *number,
            PortReference::Name(name) => port.name == *name,
        })
    }
}

impl From<wire::Service> for Service {
    fn from(wire: wire::Service) -> Self {
        Self {
            name: name_of(&wire.metadata),
            uid: wire.metadata.uid.unwrap_or_default(),
            generation: wire.metadata.generation.unwrap_or_default(),
            annotations: wire.metadata.annotations.unwrap_or_default(),
            finalizers: wire.metadata.finalizers.unwrap_or_default(),
            deleting: wire.metadata.deletion_timestamp.is_some(),
            kind: wire.spec.kind.unwrap_or_else(|| "ClusterIP".to_owned()),
            ports: wire
                .spec
                .ports
                .into_iter()
                .filter_map(|p| {
                    let number = u16::try_from(p.port).ok()?;
                    Some(ServicePort {
                        name: p.name.unwrap_or_default(),
                        port: number,
                        target_port: p
                            .target_port
                            .as_ref()
                            .filter(|port| !is_unset(port))
                            .and_then(port)
                            .unwrap_or(PortReference::Number(number)),
                        node_port: p.node_port.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0),
                        protocol: p.protocol.unwrap_or_else(|| "TCP".to_owned()),
                    })
                })
                .collect(),
            ipv6: wire.spec.ip_families.iter().any(|family| family == "IPv6"),
            selector: wire.spec.selector,
            load_balancer_class: wire.spec.load_balancer_class,
            load_balancer_source_ranges: wire.spec.load_balancer_source_ranges,
            local_traffic: wire.spec.external_traffic_policy.is_some_and(|policy| policy == "Local"),
            health_check_node_port: wire
                .spec
                .health_check_node_port
                .and_then(|n| u16::try_from(n).ok())
                .filter(|n| *n > 0),
            allocate_load_balancer_node_ports: wire.spec.allocate_load_balancer_node_ports.unwrap_or(true),
            publishes_not_ready: wire.spec.publish_not_ready_addresses.unwrap_or(false),
            status: status_entries(wire.status),
            assumed: false,
        }
    }
}

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// `True`
    Ready,
    /// `False`, or no such condition.
    NotReady,
    /// `Unknown`: nothing was heard of it for a while.
    Unknown,
}

fn readiness(conditions: &[wire::Condition], kind: &str) -> Readiness {
    match conditions.iter().find(|c| c.kind == kind).map(|c| c.status.as_str()) {
        Some("True") => Readiness::Ready,
        Some("Unknown") => Readiness::Unknown,
        _ => Readiness::NotReady,
    }
}

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`
    pub uid: String,
    /// True if it is being deleted: it ends, and does not come back.
    pub deleting: bool,
    /// Empty until it is scheduled.
    pub node: String,
    /// `status.podIPs`
    pub addresses: Vec<String>,
    /// `ContainersReady`
    pub containers_ready: Readiness,
    /// The named ports of its containers.
    pub ports: Vec<PodPort>,
    /// The annotation `vpc.amazonaws.com/pod-eni`: the pod's own network interface, as JSON.
    pub network_interface: Option<String>,
    /// Its readiness gates that are about target groups. Most pods have none.
    pub gates: Box<[ReadinessGate]>,
    /// The environment variables of its containers, then of its init containers, whose value may be a QUIC server id. Most pods have
    /// none.
    pub server_ids: Box<[ContainerServerId]>,
}

/// An environment variable of a container whose value may be a QUIC server id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerServerId {
    /// Its name; the controller's flag decides which one counts.
    pub variable: String,
    /// Its value.
    pub id: QuicServerId,
    /// The ports of the container.
    pub ports: Box<[u16]>,
}

/// Returns the variables of containers whose value may be a QUIC server id.
fn server_ids<'a>(containers: impl Iterator<Item = &'a wire::Container>) -> Box<[ContainerServerId]> {
    let of = |container: &'a wire::Container| {
        let ports = || container.ports.iter().filter_map(|port| u16::try_from(port.container_port).ok()).collect();
        container.env.iter().filter_map(move |variable| {
            let id = QuicServerId::from_base64(variable.value.as_deref()?)?;
            Some(ContainerServerId { variable: variable.name.clone(), id, ports: ports() })
        })
    };
    containers.flat_map(of).collect()
}

/// A readiness gate that is about a target group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessGate {
    /// The type of the condition: [`readiness::binding_of`] returns the binding's name.
    pub condition: String,
    /// The condition in the pod's status; absent until it is first written.
    pub state: Option<GateState>,
}

/// A condition of a pod, observed or desired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateState {
    /// The status of the condition.
    pub status: Readiness,
    /// A word for machines; may be empty.
    pub reason: String,
    /// For people; may be empty.
    pub message: String,
    /// Since when it has this status.
    pub since: Option<Timestamp>,
}

impl ReadinessGate {
    /// Returns true if the gate still holds the pod back.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.state.as_ref().is_none_or(|state| state.status != Readiness::Ready)
    }
}

fn gates(declared: Vec<wire::PodReadinessGate>, conditions: &[wire::Condition]) -> Box<[ReadinessGate]> {
    let ours = declared.into_iter().filter(|gate| readiness::binding_of(&gate.condition_type).is_some());
    ours.map(|gate| {
        let found = conditions.iter().find(|condition| condition.kind == gate.condition_type);
        let state = found.map(|condition| GateState {
            status: readiness(std::slice::from_ref(condition), &gate.condition_type),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: condition.last_transition_time.as_ref().map(|time| time.0),
        });
        ReadinessGate { condition: gate.condition_type, state }
    })
    .collect()
}

/// A named port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPort {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u16,
}

impl From<wire::Pod> for Pod {
    fn from(wire: wire::Pod) -> Self {
        let wire::Pod { metadata, spec, status } = wire;
        let mut addresses: Vec<String> = status.pod_ips.into_iter().filter_map(|a| a.ip).collect();
        if addresses.is_empty() {
            addresses.extend(status.pod_ip);
        }
        let server_ids = server_ids(spec.containers.iter().chain(&spec.init_containers));
        Self {
            name: name_of(&metadata),
            uid: metadata.uid.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            node: spec.node_name.unwrap_or_default(),
            addresses,
            containers_ready: readiness(&status.conditions, "ContainersReady"),
            ports: spec
                .containers
                .into_iter()
                .flat_map(|c| c.ports)
                .filter_map(|p| Some(PodPort { name: p.name?, number: u16::try_from(p.container_port).ok()? }))
                .collect(),
            network_interface: metadata.annotations.and_then(|mut a| a.remove("vpc.amazonaws.com/pod-eni")),
            gates: gates(spec.readiness_gates, &status.conditions),
            server_ids,
        }
    }
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name; the namespace is empty.
    pub name: ObjectName,
    /// `spec.providerID`
    pub provider_id: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// Key and effect of its taints.
    pub taints: Vec<(String, String)>,
    /// `Ready`
    pub ready: Readiness,
}

impl Node {
    /// The id of its EC2 instance: the last part of `spec.providerID` where that starts with `i-`.
    #[must_use]
    pub fn instance_id(&self) -> Option<&str> {
        self.provider_id.rsplit('/').next().filter(|id| id.starts_with("i-"))
    }
}

impl From<wire::Node> for Node {
    fn from(wire: wire::Node) -> Self {
        Self {
            name: name_of(&wire.metadata),
            provider_id: wire.spec.provider_id.unwrap_or_default(),
            labels: wire.metadata.labels.unwrap_or_default(),
            taints: wire.spec.taints.into_iter().map(|t| (t.key, t.effect.unwrap_or_default())).collect(),
            ready: readiness(&wire.status.conditions, "Ready"),
        }
    }
}

/// A TargetGroupBinding.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetGroupBinding {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.generation`
    pub generation: i64,
    /// `metadata.resourceVersion`
    pub resource_version: String,
    /// `metadata.creationTimestamp`, as text that sorts by time.
    pub created: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// All finalizers.
    pub finalizers: Vec<String>,
    /// True if it is being deleted.
    pub deleting: bool,
    /// The annotation [`crate::record::CHECKPOINT`], by which its targets can be trusted.
    pub checkpoint: Option<String>,
    /// True if aws-load-balancer-controller left its checkpoint.
    pub foreign_checkpoint: bool,
    /// Its spec.
    pub spec: crd::TargetGroupBindingSpec,
    /// Its status.
    pub status: Option<crd::TargetGroupBindingStatus>,
}

impl From<crd::TargetGroupBinding> for TargetGroupBinding {
    fn from(wire: crd::TargetGroupBinding) -> Self {
        let crd::TargetGroupBinding { metadata, spec, status } = wire;
        Self {
            name: name_of(&metadata),
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            created: metadata.creation_timestamp.map(|t| t.0.to_string()).unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            finalizers: metadata.finalizers.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            foreign_checkpoint: metadata.annotations.as_ref().is_some_and(|annotations| {
                let has = |key: &str| annotations.get(key).is_some_and(|value| !value.is_empty());
                has(crate::record::FOREIGN_CHECKPOINTS[0])
            }),
            checkpoint: metadata.annotations.and_then(|mut annotations| annotations.remove(crate::record::CHECKPOINT)),
            spec,
            status,
        }
    }
}
