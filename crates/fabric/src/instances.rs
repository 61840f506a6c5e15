//! Instances: the NodePorts of their Services, as kube-proxy serves them.
//!
//! [`node_ports`] decides which ports each node forwards and has no sockets; [`NodePorts`] binds them.

mod forward;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::pods::Transport;

pub use forward::NodePorts;

/// A Service with NodePorts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// True if its `externalTrafficPolicy` is `Local`.
    pub local: bool,
    /// The ports that have a NodePort.
    pub ports: Vec<ServicePort>,
    /// The `healthCheckNodePort`.
    pub health_check_port: Option<u16>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// The name, empty if it has none.
    pub name: String,
    /// The protocol.
    pub transport: Transport,
    /// The NodePort.
    pub node_port: u16,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The ports.
    pub ports: Vec<SlicePort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the Service's port, empty if it has none.
    pub name: String,
    /// The protocol.
    pub transport: Transport,
    /// The number.
    pub port: u16,
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address in the VPC.
    pub address: IpAddr,
    /// The node's name.
    pub node: Option<String>,
    /// True if it is ready.
    pub ready: bool,
    /// True if it answers, be it ending or not.
    pub serving: bool,
    /// True if it is ending.
    pub terminating: bool,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The name.
    pub name: String,
    /// The address in the VPC.
    pub address: IpAddr,
}

/// A port of a node that is open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodePort {
    /// The node's address in the VPC.
    pub node: IpAddr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub transport: Transport,
    /// The use of the port.
    pub serves: Serves,
}

/// The use of a port of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Serves {
    /// A connection goes to one of these, at random.
    Forward {
        /// Addresses in the VPC and ports; at least one.
        backends: Vec<(IpAddr, u16)>,
        /// True if they see the client's address, false if they see the node's.
        keeps_client: bool,
    },
    /// HTTP that tells how many endpoints of a Service are ready on the node: 503 if there is none.
    Health {
        /// The namespace.
        namespace: String,
        /// The Service's name.
        service: String,
        /// The number.
        ready: usize,
    },
}

/// Returns the ports that nodes have open, in order. A NodePort without any endpoint is closed.
///
/// For each port of a Service, connections go to the endpoints that are ready; if there is none, to those that are ending but
/// still serve. With `Local`, both counts only for those on the node.
#[must_use]
pub fn node_ports(services: &[Service], slices: &[Slice], nodes: &[Node]) -> Vec<NodePort> {
    let mut ports = BTreeMap::new();
    for service in services {
        let own: Vec<&Slice> = slices
            .iter()
            .filter(|slice| (&slice.namespace, &slice.service) == (&service.namespace, &service.name))
            .collect();
        for node in nodes {
            for port in &service.ports {
                let candidates = candidates(&own, port);
                let backends = usable(candidates, service.local.then_some(node.name.as_str()));
                if !backends.is_empty() {
                    let serves = Serves::Forward { backends, keeps_client: service.local };
                    ports.entry((node.address, port.node_port, port.transport)).or_insert(serves);
                }
            }
            if let (true, Some(port)) = (service.local, service.health_check_port) {
                let serves = Serves::Health {
                    namespace: service.namespace.clone(),
                    service: service.name.clone(),
                    ready: ready_on(&own, &node.name),
                };
                ports.entry((node.address, port, Transport::Tcp)).or_insert(serves);
            }
        }
    }
    let port = |((node, port, transport), serves)| NodePort { node, port, transport, serves };
    ports.into_iter().map(port).collect()
}

/// Returns the endpoints of a Service's port, with their own ports.
fn candidates<'a>(slices: &[&'a Slice], port: &ServicePort) -> Vec<(&'a Endpoint, u16)> {
    let of_slice = |slice: &&'a Slice| {
        let same = |own: &&SlicePort| (&own.name, own.transport) == (&port.name, port.transport);
        let number = slice.ports.iter().find(same).map(|own| own.port);
        let endpoints = slice.endpoints.as_slice();
        number.into_iter().flat_map(move |number| endpoints.iter().map(move |endpoint| (endpoint, number)))
    };
    slices.iter().flat_map(of_slice).collect()
}

/// Returns the endpoints that connections go to: on one node, or on all.
fn usable(candidates: Vec<(&Endpoint, u16)>, node: Option<&str>) -> Vec<(IpAddr, u16)> {
    let near = |endpoint: &Endpoint| node.is_none_or(|node| endpoint.node.as_deref() == Some(node));
    let select = |condition: fn(&Endpoint) -> bool| {
        let all = candidates.iter().filter(|(endpoint, _)| near(endpoint) && condition(endpoint));
        // The same endpoint is in two slices while it moves from one to the other.
        all.map(|(endpoint, port)| (endpoint.address, *port)).collect::<BTreeSet<_>>()
    };
    let mut found = select(|endpoint| endpoint.ready);
    if found.is_empty() {
        found = select(|endpoint| endpoint.serving && endpoint.terminating);
    }
    found.into_iter().collect()
}

/// Returns how many endpoints are ready on a node.
fn ready_on(slices: &[&Slice], node: &str) -> usize {
    let all = slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = all.filter(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node));
    ready.map(|endpoint| endpoint.address).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDING: (bool, bool, bool) = (false, true, true);
    const READY: (bool, bool, bool) = (true, true, false);
    const NOT_READY: (bool, bool, bool) = (false, false, false);
    const ENDED: (bool, bool, bool) = (false, false, true);

    fn endpoint(host: u8, node: &str, (ready, serving, terminating): (bool, bool, bool)) -> Endpoint {
        let address = IpAddr::from([10, 0, 100, host]);
        Endpoint { address, node: Some(node.to_owned()), ready, serving, terminating }
    }

    fn nodes() -> Vec<Node> {
        let node = |(name, host): (&str, u8)| Node { name: name.to_owned(), address: [10, 0, 100, host].into() };
        [("a", 4), ("b", 5)].map(node).into()
    }

    fn service(local: bool) -> Service {
        let port = |name: &str, transport, node_port| ServicePort { name: name.to_owned(), transport, node_port };
        Service {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            local,
            ports: vec![port("http", Transport::Tcp, 30080), port("dns", Transport::Udp, 30053)],
            health_check_port: local.then_some(32000),
        }
    }

    fn slice(service: &str, endpoints: Vec<Endpoint>) -> Slice {
        let port = SlicePort { name: "http".to_owned(), transport: Transport::Tcp, port: 8080 };
        Slice { namespace: "shop".to_owned(), service: service.to_owned(), ports: vec![port], endpoints }
    }

    /// The open ports as lines.
    fn lines(local: bool, endpoints: Vec<Endpoint>) -> Vec<String> {
        let slices = [slice("other", vec![endpoint(200, "a", READY)]), slice("web", endpoints)];
        let line = |port: NodePort| {
            let serves = match port.serves {
                Serves::Forward { backends, keeps_client } => {
                    let hosts: Vec<_> = backends.iter().map(|(address, port)| format!("{address}:{port}")).collect();
                    format!("{}{}", hosts.join(" "), if keeps_client { " as the client" } else { "" })
                }
                Serves::Health { namespace, service, ready } => format!("{ready} of {namespace}/{service}"),
            };
            format!("{}:{} {serves}", port.node, port.port)
        };
        node_ports(&[service(local)], &slices, &nodes()).into_iter().map(line).collect()
    }

    #[test]
    fn each_node_forwards_to_all_endpoints_that_are_ready() {
        let all = vec![endpoint(7, "a", READY), endpoint(8, "b", READY), endpoint(9, "b", NOT_READY)];
        let expected =
            ["10.0.100.4:30080 10.0.100.7:8080 10.0.100.8:8080", "10.0.100.5:30080 10.0.100.7:8080 10.0.100.8:8080"];
        assert_eq!(lines(false, all), expected);
    }

    #[test]
    fn those_that_end_serve_when_no_other_does() {
        let some = vec![endpoint(7, "a", READY), endpoint(8, "b", ENDING)];
        assert_eq!(lines(false, some), ["10.0.100.4:30080 10.0.100.7:8080", "10.0.100.5:30080 10.0.100.7:8080"]);
        let none = vec![endpoint(7, "a", ENDED), endpoint(8, "b", ENDING), endpoint(9, "b", NOT_READY)];
        assert_eq!(lines(false, none), ["10.0.100.4:30080 10.0.100.8:8080", "10.0.100.5:30080 10.0.100.8:8080"]);
        assert_eq!(lines(false, vec![endpoint(9, "b", NOT_READY)]), [""; 0]);
    }

    #[test]
    fn with_local_a_node_has_its_own_endpoints_and_tells_how_many_are_ready() {
        let all = vec![endpoint(7, "a", READY), endpoint(8, "a", ENDING), endpoint(9, "b", ENDING)];
        let expected = [
            "10.0.100.4:30080 10.0.100.7:8080 as the client",
            "10.0.100.4:32000 1 of shop/web",
            "10.0.100.5:30080 10.0.100.9:8080 as the client",
            "10.0.100.5:32000 0 of shop/web",
        ];
        assert_eq!(lines(true, all), expected);
        let away = vec![endpoint(7, "a", READY)];
        let expected = [
            "10.0.100.4:30080 10.0.100.7:8080 as the client",
            "10.0.100.4:32000 1 of shop/web",
            "10.0.100.5:32000 0 of shop/web",
        ];
        assert_eq!(lines(true, away), expected);
    }

    #[test]
    fn an_endpoint_in_two_slices_counts_once() {
        let twice = [slice("web", vec![endpoint(7, "a", READY)]), slice("web", vec![endpoint(7, "a", READY)])];
        let found = node_ports(&[service(true)], &twice, &nodes()[..1]);
        let node = IpAddr::from([10, 0, 100, 4]);
        let backends = vec![(IpAddr::from([10, 0, 100, 7]), 8080)];
        let health = Serves::Health { namespace: "shop".to_owned(), service: "web".to_owned(), ready: 1 };
        let port = |port, serves| NodePort { node, port, transport: Transport::Tcp, serves };
        let expected = [port(30080, Serves::Forward { backends, keeps_client: true }), port(32000, health)];
        assert_eq!(found, expected);
    }
}
