//! The NodePorts of all nodes, which follow Services, EndpointSlices and Nodes as kube-proxy does.

use std::net::IpAddr;

use albatross_fabric::instances::{self, Endpoint, ServicePort, Slice, SlicePort};
use albatross_fabric::pods::Transport;
use futures::{FutureExt as _, StreamExt as _, pin_mut, stream};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, ResourceExt as _};
use tokio::task::JoinHandle;

use super::cluster::Cluster;

/// The running task. Dropping it closes all NodePorts.
pub struct NodePorts {
    task: JoinHandle<()>,
}

impl NodePorts {
    /// Follows the cluster. `port_offset` is added to all ports, where those below 1024 cannot be bound.
    pub fn start(cluster: &Cluster, port_offset: u16) -> Self {
        Self { task: tokio::spawn(follow(cluster.clone(), port_offset)) }
    }
}

impl Drop for NodePorts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(cluster: Cluster, port_offset: u16) {
    macro_rules! watch {
        ($kind:ty) => {{
            let (store, writer) = reflector::store::<$kind>();
            let events = watcher(Api::<$kind>::all(cluster.client.clone()), watcher::Config::default());
            (store, events.default_backoff().reflect(writer).map(|event| event.map(drop)).boxed())
        }};
    }
    let (services, of_services) = watch!(Service);
    let (slices, of_slices) = watch!(EndpointSlice);
    let (nodes, of_nodes) = watch!(Node);
    let events = stream::select_all([of_services, of_slices, of_nodes]);
    pin_mut!(events);
    let mut ports = instances::NodePorts::new(port_offset);
    while let Some(event) = events.next().await {
        if let Err(error) = event {
            tracing::debug!("NodePorts: {error:#}");
        }
        // What has come already is one change.
        while let Some(Some(_)) = events.next().now_or_never() {}
        let services: Vec<_> = services.state().iter().filter_map(|it| service(it)).collect();
        let slices: Vec<_> = slices.state().iter().filter_map(|it| slice(it)).collect();
        let nodes: Vec<_> = nodes.state().iter().filter_map(|it| node(it)).collect();
        ports.set(instances::node_ports(&services, &slices, &nodes));
    }
}

fn transport(protocol: Option<&str>) -> Option<Transport> {
    match protocol {
        Some("UDP") => Some(Transport::Udp),
        Some("SCTP") => None,
        _ => Some(Transport::Tcp),
    }
}

fn service(service: &Service) -> Option<instances::Service> {
    let spec = service.spec.as_ref()?;
    if !matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
        return None;
    }
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(ServicePort {
            name: port.name.clone().unwrap_or_default(),
            transport: transport(port.protocol.as_deref())?,
            node_port: u16::try_from(port.node_port?).ok().filter(|port| *port != 0)?,
        })
    };
    let health_check_port = spec.health_check_node_port.and_then(|port| u16::try_from(port).ok());
    Some(instances::Service {
        namespace: service.namespace().unwrap_or_default(),
        name: service.name_any(),
        local: spec.external_traffic_policy.as_deref() == Some("Local"),
        ports: spec.ports.iter().flatten().filter_map(port).collect(),
        health_check_port: health_check_port.filter(|port| *port != 0),
    })
}

fn slice(slice: &EndpointSlice) -> Option<Slice> {
    if slice.address_type != "IPv4" {
        return None;
    }
    let port = |port: &k8s_openapi::api::discovery::v1::EndpointPort| {
        Some(SlicePort {
            name: port.name.clone().unwrap_or_default(),
            transport: transport(port.protocol.as_deref())?,
            port: u16::try_from(port.port?).ok()?,
        })
    };
    let endpoint = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        // One that is not told is to be read so.
        let ready = conditions.and_then(|it| it.ready).unwrap_or(true);
        Some(Endpoint {
            // All addresses of an endpoint are alike, and the first one is used.
            address: endpoint.addresses.first()?.parse::<IpAddr>().ok()?,
            node: endpoint.node_name.clone(),
            ready,
            serving: conditions.and_then(|it| it.serving).unwrap_or(ready),
            terminating: conditions.and_then(|it| it.terminating).unwrap_or(false),
        })
    };
    Some(Slice {
        namespace: slice.namespace().unwrap_or_default(),
        service: slice.labels().get("kubernetes.io/service-name")?.clone(),
        ports: slice.ports.iter().flatten().filter_map(port).collect(),
        endpoints: slice.endpoints.iter().filter_map(endpoint).collect(),
    })
}

fn node(node: &Node) -> Option<instances::Node> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let mut internal = addresses.filter(|address| address.type_ == "InternalIP");
    let address = internal.find_map(|address| address.address.parse::<IpAddr>().ok().filter(IpAddr::is_ipv4))?;
    Some(instances::Node { name: node.name_any(), address })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_has_its_node_ports() {
        let of = |spec| {
            let object = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
            service(&serde_json::from_value(object).unwrap())
        };
        let port = |name: &str, transport, node_port| ServicePort { name: name.to_owned(), transport, node_port };
        let expected = instances::Service {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            local: true,
            ports: vec![port("", Transport::Tcp, 30080), port("dns", Transport::Udp, 30053)],
            health_check_port: Some(32000),
        };
        let found = of(json!({
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 32000,
            "ports": [
                {"port": 80, "nodePort": 30080},
                {"name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP"},
                {"name": "none", "port": 81},
                {"name": "sctp", "port": 82, "nodePort": 30082, "protocol": "SCTP"},
            ],
        }));
        assert_eq!(found, Some(expected));
        assert_eq!(of(json!({"type": "ClusterIP", "ports": [{"port": 80}]})), None);
    }

    #[test]
    fn what_a_slice_does_not_tell_has_its_default() {
        let of = |kind: &str, endpoints| {
            let object = json!({
                "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": kind,
                "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
                "endpoints": endpoints,
            });
            slice(&serde_json::from_value(object).unwrap())
        };
        let endpoints = json!([
            {"addresses": ["10.0.100.7"], "nodeName": "node-0"},
            {"addresses": ["10.0.100.8"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.100.9"], "conditions": {"ready": false}},
        ]);
        let endpoint = |host: u8, node: Option<&str>, (ready, serving, terminating)| Endpoint {
            address: [10, 0, 100, host].into(),
            node: node.map(str::to_owned),
            ready,
            serving,
            terminating,
        };
        let expected = Slice {
            namespace: "shop".to_owned(),
            service: "web".to_owned(),
            ports: vec![SlicePort { name: String::new(), transport: Transport::Tcp, port: 8080 }],
            endpoints: vec![
                endpoint(7, Some("node-0"), (true, true, false)),
                endpoint(8, None, (false, true, true)),
                endpoint(9, None, (false, false, false)),
            ],
        };
        assert_eq!(of("IPv4", endpoints.clone()), Some(expected));
        assert_eq!(of("IPv6", endpoints), None);
    }

    #[test]
    fn a_node_has_its_internal_address() {
        let of = |addresses| {
            let object = json!({"metadata": {"name": "node-0"}, "status": {"addresses": addresses}});
            node(&serde_json::from_value(object).unwrap())
        };
        let addresses = json!([
            {"type": "Hostname", "address": "node-0"},
            {"type": "InternalIP", "address": "fd00::1"},
            {"type": "InternalIP", "address": "10.0.100.4"},
        ]);
        let expected = instances::Node { name: "node-0".to_owned(), address: [10, 0, 100, 4].into() };
        assert_eq!(of(addresses), Some(expected));
        assert_eq!(of(json!([])), None);
    }
}
