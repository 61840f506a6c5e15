use std::{collections::BTreeSet, io::ErrorKind, net::Ipv4Addr};

use serde_json::{Value, json};

use super::*;
use crate::pods::{
    OnTerm, Pod,
    testing::{OFFSET, SOON, address, answer, connect, container, end, exchange, get, refused, send, start_at},
};

struct World {
    node: IpAddr,
    at: SocketAddr,
    addresses: [IpAddr; 2],
    pods: [Pod; 2],
    ports: NodePorts,
}

/// A node and two pods with a port of TCP and UDP.
fn world() -> World {
    let (node, addresses) = (address(), [address(), address()]);
    let ports = [(8080, Transport::Tcp), (8080, Transport::Udp)];
    let pod = |name, address| start_at(name, address, container("nginx", &ports));
    let at = SocketAddr::from((address::of_vpc(node).unwrap(), 30080 + OFFSET));
    World {
        node,
        at,
        addresses,
        pods: [pod("one", addresses[0]), pod("two", addresses[1])],
        ports: NodePorts::new(OFFSET),
    }
}

impl World {
    fn set(&mut self, backends: &[IpAddr], keeps_client: bool) {
        let port = |transport| NodePort {
            node: self.node,
            port: 30080,
            transport,
            serves: Serves::Forward {
                backends: backends.iter().map(|address| (*address, 8080)).collect(),
                keeps_client,
            },
        };
        let ports = if backends.is_empty() { Vec::new() } else { vec![port(Transport::Tcp), port(Transport::Udp)] };
        self.ports.set(ports);
    }

    /// Returns who answers, with the client that it sees.
    async fn ask(&self) -> (String, String) {
        let answer = get(self.at, "/", "").await.unwrap();
        (answer.header("x-pod").to_owned(), answer.header("x-source").to_owned())
    }
}

#[tokio::test]
async fn connections_go_to_all_backends_from_the_node_or_from_the_client() {
    let mut world = world();
    for (keeps_client, source) in [(false, world.node.to_string()), (true, "198.18.1.9".to_owned())] {
        world.set(&world.addresses.clone(), keeps_client);
        let mut found = BTreeSet::new();
        for _ in 0..64 {
            found.insert(world.ask().await);
        }
        assert_eq!(found, ["one", "two"].map(|pod| (pod.to_owned(), source.clone())).into());
    }
}

#[tokio::test]
async fn what_is_connected_stays_when_backends_change() {
    let mut world = world();
    let [first, second] = world.addresses;
    world.set(&[first], false);
    let mut kept = connect(world.at).await.unwrap();
    send(&mut kept, "/", "").await;
    assert_eq!(answer(&mut kept).await.unwrap().header("x-pod"), "one");
    world.set(&[second], false);
    assert_eq!(world.ask().await.0, "two");
    send(&mut kept, "/", "").await;
    assert_eq!(answer(&mut kept).await.unwrap().header("x-pod"), "one");
    world.set(&[], false);
    refused(world.at).await;
    send(&mut kept, "/", "").await;
    assert_eq!(answer(&mut kept).await.unwrap().header("x-pod"), "one");
    // Opened again at once, be the earlier listener closed or not.
    for _ in 0..10 {
        world.set(&[second], false);
        world.set(&[], false);
    }
    world.set(&[second], false);
    tokio::time::timeout(SOON, async {
        while connect(world.at).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(world.ask().await.0, "two");
    world.pods[0].terminate(OnTerm::Exit, SOON).await;
    assert_eq!(end(&mut kept).await, Err(ErrorKind::ConnectionReset));
    drop(world.ports);
    refused(world.at).await;
}

#[tokio::test]
async fn a_port_that_another_program_had_is_opened_the_next_time() {
    let mut world = world();
    let [first, _] = world.addresses;
    let other = std::net::TcpListener::bind(world.at).unwrap();
    world.set(&[first], false);
    tokio::time::pause();
    world.ports.tasks.join_next().await.unwrap().unwrap();
    tokio::time::resume();
    drop(other);
    world.set(&[first], false);
    assert_eq!(world.ask().await.0, "one");
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_a_reset() {
    let mut world = world();
    let [first, _] = world.addresses;
    world.set(&[first], false);
    world.pods[0].terminate(OnTerm::Exit, SOON).await;
    let mut stream = connect(world.at).await.unwrap();
    assert_eq!(end(&mut stream).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn bytes_are_passed_on_until_both_sides_have_ended() {
    let mut world = world();
    world.set(&world.addresses.clone(), true);
    let mut stream = connect(world.at).await.unwrap();
    assert_eq!(exchange(&mut stream, b"hello", 5).await, b"hello");
    tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
    assert_eq!(end(&mut stream).await, Ok(Vec::new()));
}

#[tokio::test]
async fn datagrams_stay_with_a_backend_until_it_is_gone() {
    let mut world = world();
    let [first, second] = world.addresses;
    world.set(&[first], true);
    let client = UdpSocket::bind((Ipv4Addr::new(127, 40, 1, 9), 0)).await.unwrap();
    let ask = async || {
        let mut buffer = [0; 16];
        // One that is on its way while backends change is lost.
        for _ in 0..50 {
            client.send_to(b"hello", world.at).await.unwrap();
            let received = tokio::time::timeout(Duration::from_millis(200), client.recv_from(&mut buffer)).await;
            if let Ok(Ok((length, from))) = received {
                assert_eq!((buffer.get(..length), from), (Some(b"hello".as_slice()), world.at));
                return true;
            }
        }
        false
    };
    assert!(ask().await);
    world.pods[0].terminate(OnTerm::Exit, SOON).await;
    world.ports.set(vec![NodePort {
        node: world.node,
        port: 30080,
        transport: Transport::Udp,
        serves: Serves::Forward { backends: vec![(second, 8080)], keeps_client: true },
    }]);
    assert!(ask().await);
}

#[tokio::test]
async fn checks_of_a_load_balancer_are_told_how_many_endpoints_are_ready() {
    let mut world = world();
    let health = |ready| NodePort {
        node: world.node,
        port: 30080,
        transport: Transport::Tcp,
        serves: Serves::Health { namespace: "shop".to_owned(), service: "web".to_owned(), ready },
    };
    for (ready, status) in [(0, 503), (2, 200), (1, 200), (0, 503)] {
        world.ports.set(vec![health(ready)]);
        let found = get(world.at, "/any", "").await.unwrap();
        let body = json!({"service": {"namespace": "shop", "name": "web"}, "localEndpoints": ready, "serviceProxyHealthy": true});
        assert_eq!((found.status, serde_json::from_str::<Value>(&found.body).unwrap()), (status, body));
        assert_eq!(found.header("x-load-balancing-endpoint-weight"), ready.to_string());
    }
}
