//! From a TargetGroupBinding to the desired targets of its group: pods that serve, or nodes that may take traffic.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{
    api::{
        crd::target_group_binding::{IpAddressType, TargetGroupBindingSpec, TargetGroupProtocol, TargetType},
        selector::{UnknownOperator, selects},
    },
    model::{ObjectName, PortReference, QuicServerId, Target, TargetHealth},
    quic::server_id,
    snapshot::{
        AddressFamily, EndpointAddress, EndpointSlice, Node, Pod, PodReference, Readiness, Service, ServicePort,
        Snapshot, TargetGroupBinding, in_namespace,
    },
};

use super::plan::{TargetState, is_draining};

/// Labels of nodes that take no traffic of load balancers, whatever their value.
const EXCLUDING_LABELS: [&str; 3] = [
    "node-role.kubernetes.io/master",
    "node.kubernetes.io/exclude-from-external-load-balancers",
    "alpha.service-controller.kubernetes.io/exclude-balancer",
];
/// The label of Fargate's nodes, which are not instances.
pub const COMPUTE_TYPE: &str = "eks.amazonaws.com/compute-type";

/// A target whose address, if it is one, has its usual form, so that texts can be compared.
pub fn target(id: &str, port: u16) -> Target {
    Target { id: id.parse::<IpAddr>().map_or_else(|_| id.to_owned(), |address| address.to_string()), port }
}

/// The object behind a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetOwner {
    /// A pod, at its own address.
    Pod {
        /// Namespace and name.
        name: ObjectName,
        /// The UID, which distinguishes it from others of its name.
        uid: String,
        /// The server id with which it is registered, behind QUIC.
        quic_server_id: Option<QuicServerId>,
    },
    /// A node, at the Service's node port.
    Node(String),
}

impl TargetOwner {
    /// Returns the pod, where it is one that still exists.
    #[must_use]
    pub fn pod<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Pod> {
        let Self::Pod { name, uid, .. } = self else { return None };
        snapshot.pods.get(name).filter(|pod| pod.uid == *uid)
    }

    /// Returns the server id with which the target is registered.
    #[must_use]
    pub fn quic_server_id(&self) -> Option<QuicServerId> {
        match self {
            Self::Pod { quic_server_id, .. } => *quic_server_id,
            Self::Node(_) => None,
        }
    }
}

/// Returns the texts that distinguish targets from others: of a target with a server id, that belongs to it.
pub fn identities(targets: &BTreeMap<Target, TargetOwner>) -> impl Iterator<Item = String> {
    targets.iter().map(|(target, owner)| match owner.quic_server_id() {
        Some(id) => format!("{target}:{id}"),
        None => target.to_string(),
    })
}

impl fmt::Display for TargetOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { name, .. } => write!(f, "Pod {name}"),
            Self::Node(name) => write!(f, "Node {name}"),
        }
    }
}

/// An endpoint that could have been a target and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// An address, or a node's name.
    pub what: String,
    /// The reason.
    pub why: &'static str,
}

/// The use of targets whose node has fallen silent, so that nobody knows if they serve: the feature gate `EndpointsFailOpen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SilentNodes {
    /// They are targets as long as there is no other one: they may still serve.
    InNeed,
    /// They are never targets.
    Never,
}

impl SilentNodes {
    /// Returns the targets of a binding that has these, and perhaps those on silent nodes.
    fn targets<T, O>(self, serving: BTreeMap<T, O>, silent: BTreeMap<T, O>) -> BTreeMap<T, O> {
        match self {
            Self::InNeed if serving.is_empty() => silent,
            Self::InNeed | Self::Never => serving,
        }
    }
}

/// The result of resolving a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The targets to register, and no others.
    Targets {
        /// The targets, with the object behind each. Of those with one QUIC server id, [`rivals`] are left out.
        targets: BTreeMap<Target, TargetOwner>,
        /// The endpoints that were skipped although no setting requests that; without the pods that are only not ready.
        skipped: Vec<Skipped>,
        /// The pods that are none because they have no QUIC server id, which the target group needs.
        without_server_id: BTreeSet<ObjectName>,
        /// The pods that have the QUIC server id of another pod before them, with that pod: one pod of each id is a target.
        with_shared_server_id: BTreeMap<ObjectName, ObjectName>,
    },
    /// The Service, or its port, does not exist: nothing is registered.
    BackendMissing {
        /// The missing object.
        what: String,
    },
}

/// A binding that cannot mean any targets as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnresolvableBinding {
    /// Instances are reached at node ports.
    #[error("Service {service} is of type {kind}, which has no node ports for the target type instance")]
    NoNodePorts {
        /// The Service.
        service: ObjectName,
        /// Its type.
        kind: String,
    },
    /// `allocateLoadBalancerNodePorts: false`
    #[error("port {port} of Service {service} has no node port for the target type instance")]
    NoNodePort {
        /// The Service.
        service: ObjectName,
        /// The port.
        port: u16,
    },
    /// A node has no server id.
    #[error("the target group is of QUIC, which takes its targets only with a server id each, and instances have none")]
    QuicToNodes,
    /// The node selector cannot be read.
    #[error("spec.nodeSelector: operator `{0}` is not known")]
    SelectorOperator(String),
}

impl UnresolvableBinding {
    /// Returns the fix.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::NoNodePorts { .. } => "make the Service's type NodePort or LoadBalancer, or use the target type ip",
            Self::NoNodePort { .. } => "set allocateLoadBalancerNodePorts: true, or use the target type ip",
            Self::QuicToNodes => "use a target group of the target type ip, whose pods have server ids",
            Self::SelectorOperator(_) => "use In, NotIn, Exists or DoesNotExist",
        }
    }
}

/// A port as a binding writes it.
pub fn port_reference(port: &IntOrString) -> PortReference {
    match port {
        // A number that no port has names no port, as a name would.
        IntOrString::Int(number) => {
            u16::try_from(*number).map_or_else(|_| PortReference::Name(number.to_string()), PortReference::Number)
        }
        IntOrString::String(text) => {
            text.parse().map_or_else(|_| PortReference::Name(text.clone()), PortReference::Number)
        }
    }
}

/// Finds a binding's targets. A target type that is not written counts as `instance`, an address type as `ipv4`: the
/// caller fills in what AWS says of the group.
///
/// # Errors
/// When the binding or its Service is written so that there cannot be targets.
pub fn resolve(
    snapshot: &Snapshot,
    binding: &TargetGroupBinding,
    silent: SilentNodes,
) -> Result<Resolution, UnresolvableBinding> {
    let reference = &binding.spec.service_ref;
    let name = ObjectName::new(&binding.name.namespace, &reference.name);
    let Some(service) = snapshot.services.get(&name) else {
        return Ok(Resolution::BackendMissing { what: format!("Service {name}") });
    };
    let wanted = port_reference(&reference.port);
    let Some(port) = port_of(service, &wanted, binding.spec.target_group_protocol) else {
        return Ok(Resolution::BackendMissing { what: format!("port {wanted} of Service {name}") });
    };
    match binding.spec.target_type {
        Some(TargetType::Ip) => Ok(pods(snapshot, binding, (service, port), silent)),
        Some(TargetType::Instance) | None if is_quic(&binding.spec) => Err(UnresolvableBinding::QuicToNodes),
        Some(TargetType::Instance) | None => nodes(snapshot, binding, (service, port), silent),
    }
}

/// Returns true if AWS takes the targets of a binding only with a QUIC server id.
#[must_use]
pub fn is_quic(spec: &TargetGroupBindingSpec) -> bool {
    spec.target_group_protocol.is_some_and(TargetGroupProtocol::is_quic)
}

/// Returns the port that a reference means. TCP and UDP may share a number, and have different node ports.
fn port_of<'a>(
    service: &'a Service,
    wanted: &PortReference,
    protocol: Option<TargetGroupProtocol>,
) -> Option<&'a ServicePort> {
    use TargetGroupProtocol::{Http, Https, Quic, Tcp, TcpQuic, TcpUdp, Tls, Udp};
    let first = service.port(wanted)?;
    let transport = match protocol {
        Some(Http | Https | Tcp | Tls) => "TCP",
        Some(Udp | Quic) => "UDP",
        Some(TcpUdp | TcpQuic) | None => return Some(first),
    };
    let fits = |port: &&ServicePort| port.port == first.port && port.protocol == transport;
    // A name means exactly one port.
    let by_number = matches!(wanted, PortReference::Number(_));
    Some(if by_number { service.ports.iter().find(fits).unwrap_or(first) } else { first })
}

/// Returns the pod of an endpoint. Watches show the pod and its EndpointSlice at different times, so another pod of the same
/// name may be there instead.
fn pod_of<'a>(snapshot: &'a Snapshot, namespace: &str, endpoint: &EndpointAddress) -> Option<&'a Pod> {
    let name = ObjectName::new(namespace, &endpoint.pod.as_ref()?.name);
    snapshot.pods.get(&name).filter(|pod| is_behind(endpoint, pod))
}

/// Returns true if a pod with the name of an endpoint's pod is that pod. One with the endpoint's address is, whatever UID a
/// slice of another writer still names.
fn is_behind(endpoint: &EndpointAddress, pod: &Pod) -> bool {
    let is_it = endpoint.pod.as_ref().is_some_and(|reference| reference.means(&pod.uid));
    is_it || pod.addresses.contains(&endpoint.address)
}

/// Returns true if a pod of a Service is being deleted and so counts as not ready. EndpointSlices show that later than the
/// pod itself: their controller has a queue and a limit of requests.
fn ends(service: Option<&Service>, pod: &Pod) -> bool {
    pod.deleting && !service.is_some_and(|service| service.publishes_not_ready)
}

/// Returns the pods that the slices of a binding's Service show as ready at its port, and that are not known to be ending.
pub fn ready_pods<'a>(
    snapshot: &Snapshot,
    slices: &'a [EndpointSlice],
    binding: &TargetGroupBinding,
    service: &Service,
) -> Vec<&'a PodReference> {
    let wanted = port_reference(&binding.spec.service_ref.port);
    let Some(port) = port_of(service, &wanted, binding.spec.target_group_protocol) else { return Vec::new() };
    let family = family(binding);
    let at_port = |slice: &&EndpointSlice| {
        slice.family == family && slice.ports.iter().any(|p| port.name.is_empty() || p.name == port.name)
    };
    // The ports of a pod's server ids are not looked at: with any of them it can be a target.
    let can_serve = |pod: &Pod| !is_quic(&binding.spec) || server_id(pod, &snapshot.server_id_variable, 0).is_some();
    let may_serve = |pod: Option<&Pod>| pod.is_none_or(|pod| !ends(Some(service), pod) && can_serve(pod));
    let is_ready =
        |e: &&EndpointAddress| e.ready.unwrap_or(true) && may_serve(pod_of(snapshot, &service.name.namespace, e));
    let ready = slices.iter().filter(at_port).flat_map(|slice| &slice.endpoints).filter(is_ready);
    ready.filter_map(|endpoint| endpoint.pod.as_ref()).collect()
}

/// Returns the state of a target that is registered and not desired.
pub fn target_state(snapshot: &Snapshot, binding: &TargetGroupBinding, written: &Target) -> TargetState {
    let usual = target(&written.id, written.port).id;
    let is = |address: &str| address == usual || target(address, written.port).id == usual;
    if binding.spec.target_type != Some(TargetType::Ip) {
        let there = snapshot.nodes.values().any(|node| node.instance_id() == Some(written.id.as_str()));
        return if there { TargetState::Living } else { TargetState::Gone };
    }
    let namespace = &binding.name.namespace;
    let service = &binding.spec.service_ref.name;
    let slices = in_namespace(&snapshot.endpoint_slices, namespace).filter(|(_, slice)| slice.service == *service);
    let mut endpoints = slices.flat_map(|(_, slice)| &slice.endpoints).filter(|endpoint| is(&endpoint.address));
    let service = snapshot.services.get(&ObjectName::new(namespace, service));
    let is_ending = |endpoint: &EndpointAddress| match pod_of(snapshot, namespace, endpoint) {
        Some(pod) => endpoint.terminating || ends(service, pod),
        None => endpoint.terminating || endpoint.pod.is_some(),
    };
    if let Some(first) = endpoints.next() {
        // An address that comes back is listed twice for a while.
        let terminating = is_ending(first) && endpoints.all(is_ending);
        return if terminating { TargetState::Terminating } else { TargetState::Living };
    }
    // Pods that the Service has ceased to select serve on.
    let mut pods = in_namespace(&snapshot.pods, namespace);
    if pods.any(|(_, pod)| pod.addresses.iter().any(|address| is(address))) {
        TargetState::Living
    } else {
        TargetState::Gone
    }
}

/// Returns the readiness of an endpoint to be a target; unknown if that depends on a node that has fallen silent.
fn readiness(snapshot: &Snapshot, service: Option<&Service>, endpoint: &EndpointAddress, pod: &Pod) -> Readiness {
    if ends(service, pod) {
        return Readiness::NotReady;
    }
    if endpoint.ready.unwrap_or(true) {
        return Readiness::Ready;
    }
    if pod.containers_ready != Readiness::Ready || endpoint.terminating {
        return Readiness::NotReady;
    }
    // Such a pod may wait for its readiness gate, which waits for its registration.
    let node = snapshot.nodes.get(&ObjectName::new("", &pod.node));
    node.map_or(Readiness::NotReady, |node| node.ready)
}

/// Returns the readiness of an endpoint to be a target with this pod, which has the name of the endpoint's pod.
pub(crate) fn readiness_with(
    snapshot: &Snapshot,
    service: Option<&Service>,
    endpoint: &EndpointAddress,
    pod: Option<&Pod>,
) -> Readiness {
    let pod = pod.filter(|pod| is_behind(endpoint, pod));
    pod.map_or(Readiness::NotReady, |pod| readiness(snapshot, service, endpoint, pod))
}

/// Returns true if a target of this readiness departs as it comes to another: one whose node falls silent is a target only
/// where there is no better one.
pub(crate) fn departs(before: Readiness, after: Readiness) -> bool {
    match (before, after) {
        (Readiness::Ready, Readiness::Unknown | Readiness::NotReady) | (Readiness::Unknown, Readiness::NotReady) => {
            true
        }
        (Readiness::Ready, Readiness::Ready) | (Readiness::Unknown, _) | (Readiness::NotReady, _) => false,
    }
}

fn family(binding: &TargetGroupBinding) -> AddressFamily {
    match binding.spec.ip_address_type {
        Some(IpAddressType::Ipv6) => AddressFamily::Ipv6,
        Some(IpAddressType::Ipv4) | None => AddressFamily::Ipv4,
    }
}

fn pods(
    snapshot: &Snapshot,
    binding: &TargetGroupBinding,
    (service, port): (&Service, &ServicePort),
    silent: SilentNodes,
) -> Resolution {
    let family = family(binding);
    let namespace = &service.name.namespace;
    let slices = in_namespace(&snapshot.endpoint_slices, namespace)
        .map(|(_, slice)| slice)
        .filter(|slice| slice.service == service.name.name && slice.family == family);
    let mut targets = BTreeMap::new();
    let mut perhaps = BTreeMap::new();
    let mut skipped = Vec::new();
    let mut without_server_id = BTreeSet::new();
    for slice in slices {
        let numbers = || slice.ports.iter().filter(|p| port.name.is_empty() || p.name == port.name).map(|p| p.number);
        for endpoint in &slice.endpoints {
            let mut skip = |why| skipped.push(Skipped { what: endpoint.address.clone(), why });
            if endpoint.pod.is_none() {
                skip("this endpoint has no pod");
                continue;
            }
            let Some(pod) = pod_of(snapshot, namespace, endpoint) else {
                skip("its pod is not known (yet)");
                continue;
            };
            let bucket = match readiness(snapshot, Some(service), endpoint, pod) {
                Readiness::Ready => &mut targets,
                Readiness::Unknown => &mut perhaps,
                Readiness::NotReady => continue,
            };
            for number in numbers() {
                let id = is_quic(&binding.spec).then(|| server_id(pod, &snapshot.server_id_variable, number));
                if id == Some(None) {
                    without_server_id.insert(pod.name.clone());
                    continue;
                }
                let (name, uid) = (pod.name.clone(), pod.uid.clone());
                let owner = TargetOwner::Pod { name, uid, quic_server_id: id.flatten() };
                bucket.insert(target(&endpoint.address, number), owner);
            }
        }
    }
    let targets = silent.targets(targets, perhaps);
    let with_shared_server_id = with_shared_server_id(&targets);
    Resolution::Targets { targets, skipped, without_server_id, with_shared_server_id }
}

/// Returns the pods that have the QUIC server id of another pod whose address is before theirs, with that pod.
fn with_shared_server_id(targets: &BTreeMap<Target, TargetOwner>) -> BTreeMap<ObjectName, ObjectName> {
    let mut first: BTreeMap<QuicServerId, &ObjectName> = BTreeMap::new();
    let mut shared = BTreeMap::new();
    for owner in targets.values() {
        let TargetOwner::Pod { name, quic_server_id: Some(id), .. } = owner else { continue };
        let other = *first.entry(*id).or_insert(name);
        if other != name {
            shared.insert(name.clone(), other.clone());
        }
    }
    shared
}

/// Returns the desired targets that are left out because another one has their QUIC server id: AWS takes each id only once, and
/// might keep out others of the same call. The one that is registered with the id keeps it; where none is, the first gets it.
#[must_use]
pub fn rivals(targets: &BTreeMap<Target, TargetOwner>, present: &BTreeMap<Target, TargetHealth>) -> BTreeSet<Target> {
    if targets.values().all(|owner| owner.quic_server_id().is_none()) {
        return BTreeSet::new();
    }
    let registered = present.iter().filter(|(_, health)| !is_draining(health));
    let ids: BTreeMap<Target, Option<QuicServerId>> =
        registered.map(|(written, health)| (target(&written.id, written.port), health.quic_server_id)).collect();
    let rank = |target: &Target, id| match ids.get(target) {
        Some(Some(has)) if *has == id => 0,
        // AWS does not say with which one.
        Some(None) => 1,
        Some(Some(_)) | None => 2,
    };
    let mut holders: BTreeMap<QuicServerId, (u8, &Target)> = BTreeMap::new();
    let mut rivals = BTreeSet::new();
    for (target, owner) in targets {
        let Some(id) = owner.quic_server_id() else { continue };
        let own = (rank(target, id), target);
        let holder = holders.entry(id).or_insert(own);
        if *holder != own {
            let (kept, (_, left_out)) = if own < *holder { (own, *holder) } else { (*holder, own) };
            *holder = kept;
            rivals.insert(left_out.clone());
        }
    }
    rivals
}

fn nodes(
    snapshot: &Snapshot,
    binding: &TargetGroupBinding,
    (service, port): (&Service, &ServicePort),
    silent: SilentNodes,
) -> Result<Resolution, UnresolvableBinding> {
    if !matches!(service.kind.as_str(), "NodePort" | "LoadBalancer") {
        let (service, kind) = (service.name.clone(), service.kind.clone());
        return Err(UnresolvableBinding::NoNodePorts { service, kind });
    }
    let Some(number) = port.node_port else {
        return Err(UnresolvableBinding::NoNodePort { service: service.name.clone(), port: port.port });
    };
    let mut targets = BTreeMap::new();
    let mut perhaps = BTreeMap::new();
    let mut skipped = Vec::new();
    for node in snapshot.nodes.values() {
        let selected = match &binding.spec.node_selector {
            Some(selector) => selects(selector, &node.labels)
                .map_err(|UnknownOperator(word)| UnresolvableBinding::SelectorOperator(word))?,
            None => true,
        };
        if !selected || !may_take_traffic(node) {
            continue;
        }
        let bucket = match node.ready {
            Readiness::Ready => &mut targets,
            Readiness::Unknown => &mut perhaps,
            Readiness::NotReady => continue,
        };
        match node.instance_id() {
            Some(id) => {
                bucket.insert(target(id, number), TargetOwner::Node(node.name.name.clone()));
            }
            None => skipped
                .push(Skipped { what: node.name.name.clone(), why: "its spec.providerID names no EC2 instance (yet)" }),
        }
    }
    let targets = silent.targets(targets, perhaps);
    let (without_server_id, with_shared_server_id) = Default::default();
    Ok(Resolution::Targets { targets, skipped, without_server_id, with_shared_server_id })
}

/// Returns true if a node may be a target.
pub(crate) fn may_take_traffic(node: &Node) -> bool {
    !EXCLUDING_LABELS.iter().any(|label| node.labels.contains_key(*label))
        && node.labels.get(COMPUTE_TYPE).is_none_or(|kind| kind != "fargate")
        && !node.taints.iter().any(|(key, effect)| {
            key == "ToBeDeletedByClusterAutoscaler" || (key == "karpenter.sh/disrupted" && effect == "NoSchedule")
        })
}

#[cfg(test)]
mod tests;
