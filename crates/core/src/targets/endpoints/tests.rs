use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::*;
use crate::{
    api::crd::{TargetGroupBindingSpec, target_group_binding::ServiceReference},
    quic::EnvironmentVariable,
    snapshot::{ContainerServerId, EndpointAddress, EndpointSlice, EndpointSlicePort, Pod},
};

fn binding(port: IntOrString, target_type: TargetType) -> TargetGroupBinding {
    let spec = TargetGroupBindingSpec {
        service_ref: ServiceReference { name: "cart".into(), port },
        target_type: Some(target_type),
        ..TargetGroupBindingSpec::default()
    };
    TargetGroupBinding { spec, ..crate::testing::bare_binding(ObjectName::new("shop", "k8s-shop-cart")) }
}

fn port(name: &str, number: u16, node_port: Option<u16>) -> ServicePort {
    let (name, protocol) = (name.to_owned(), "TCP".to_owned());
    ServicePort { name, port: number, target_port: PortReference::Number(number), node_port, protocol }
}

fn service(kind: &str, ports: Vec<ServicePort>) -> Service {
    Service { kind: kind.to_owned(), ports, ..crate::testing::bare_service(ObjectName::new("shop", "cart")) }
}

fn pod(name: &str, node: &str, containers_ready: Readiness) -> Pod {
    Pod { node: node.to_owned(), addresses: vec![], containers_ready, ..crate::testing::pod(name) }
}

fn node(name: &str, ready: Readiness) -> Node {
    Node { ready, ..crate::testing::node(name) }
}

fn slice(name: &str, family: AddressFamily, ports: &[(&str, u16)], endpoints: Vec<EndpointAddress>) -> EndpointSlice {
    EndpointSlice {
        name: ObjectName::new("shop", name),
        service: "cart".to_owned(),
        family,
        ports: ports.iter().map(|(n, p)| EndpointSlicePort { name: (*n).to_owned(), number: *p }).collect(),
        endpoints,
    }
}

fn endpoint(address: &str, pod: &str, ready: Option<bool>) -> EndpointAddress {
    let pod = Some(PodReference { name: pod.to_owned(), uid: None });
    EndpointAddress { address: address.to_owned(), ready, terminating: false, pod }
}

fn snapshot(service: Service) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.apply(service);
    for (name, ready) in [("n1", Readiness::Ready), ("n2", Readiness::Unknown), ("n3", Readiness::NotReady)] {
        snapshot.apply(node(name, ready));
    }
    snapshot
}

fn found(targets: &[(&str, u16, TargetOwner)]) -> Resolution {
    let targets = targets.iter().map(|(id, port, owner)| (target(id, *port), owner.clone())).collect();
    resolution(targets, vec![])
}

/// Returns targets that have all the server ids that they need.
fn resolution(targets: BTreeMap<Target, TargetOwner>, skipped: Vec<Skipped>) -> Resolution {
    let (without_server_id, with_shared_server_id) = Default::default();
    Resolution::Targets { targets, skipped, without_server_id, with_shared_server_id }
}

fn of_pod(name: &str) -> TargetOwner {
    TargetOwner::Pod { name: ObjectName::new("shop", name), uid: format!("uid-{name}"), quic_server_id: None }
}

fn of_node(name: &str) -> TargetOwner {
    TargetOwner::Node(name.to_owned())
}

#[test]
fn a_missing_service_or_port_is_told() {
    let by_name = |name: &str| IntOrString::String(name.to_owned());
    let with = snapshot(service("ClusterIP", vec![port("http", 80, None)]));
    for (snapshot, reference, what) in [
        (&Snapshot::default(), IntOrString::Int(80), "Service shop/cart"),
        (&with, IntOrString::Int(81), "port 81 of Service shop/cart"),
        (&with, by_name("grpc"), "port grpc of Service shop/cart"),
        (&with, IntOrString::Int(70_000), "port 70000 of Service shop/cart"),
    ] {
        for kind in [TargetType::Ip, TargetType::Instance] {
            let missing = Resolution::BackendMissing { what: what.to_owned() };
            assert_eq!(resolve(snapshot, &binding(reference.clone(), kind), SilentNodes::InNeed), Ok(missing));
        }
    }
    for reference in [IntOrString::Int(80), by_name("http"), by_name("80")] {
        assert_eq!(resolve(&with, &binding(reference, TargetType::Ip), SilentNodes::InNeed), Ok(found(&[])));
    }
}

#[test]
fn pods_that_serve_are_targets() {
    let ready = Some(true);
    let not = Some(false);
    let terminating =
        |address: &str, pod: &str, ready| EndpointAddress { terminating: true, ..endpoint(address, pod, ready) };
    for (case, endpoints, wanted) in [
        ("ready", vec![endpoint("10.0.0.1", "idle", ready)], vec!["10.0.0.1"]),
        ("ready is not said", vec![endpoint("10.0.0.1", "idle", None)], vec!["10.0.0.1"]),
        ("not ready", vec![endpoint("10.0.0.1", "idle", not)], vec![]),
        ("not ready but for its gate", vec![endpoint("10.0.0.1", "gated", not)], vec!["10.0.0.1"]),
        ("not ready but for its gate, and ending", vec![terminating("10.0.0.1", "gated", not)], vec![]),
        ("ending, and published all the same", vec![terminating("10.0.0.1", "gated", ready)], vec!["10.0.0.1"]),
        ("its node is down", vec![endpoint("10.0.0.1", "down", not)], vec![]),
        ("its node is gone", vec![endpoint("10.0.0.1", "homeless", not)], vec![]),
        ("its node is silent, and nothing better", vec![endpoint("10.0.0.1", "silent", not)], vec!["10.0.0.1"]),
        (
            "its node is silent, and there is better",
            vec![endpoint("10.0.0.1", "silent", not), endpoint("10.0.0.2", "idle", ready)],
            vec!["10.0.0.2"],
        ),
    ] {
        let mut snapshot = snapshot(service("ClusterIP", vec![port("http", 80, None)]));
        for (name, node, containers) in [
            ("idle", "n1", Readiness::NotReady),
            ("gated", "n1", Readiness::Ready),
            ("silent", "n2", Readiness::Ready),
            ("down", "n3", Readiness::Ready),
            ("homeless", "n9", Readiness::Ready),
        ] {
            snapshot.apply(pod(name, node, containers));
        }
        snapshot.apply(slice("cart-1", AddressFamily::Ipv4, &[("http", 8080), ("admin", 9000)], endpoints));
        let targets = match resolve(&snapshot, &binding(IntOrString::Int(80), TargetType::Ip), SilentNodes::InNeed) {
            Ok(Resolution::Targets { targets, skipped, .. }) if skipped.is_empty() => targets,
            other => panic!("{case}: {other:?}"),
        };
        let targets: Vec<Target> = targets.into_keys().collect();
        assert_eq!(targets, wanted.iter().map(|id| target(id, 8080)).collect::<Vec<_>>(), "{case}");
    }
}

#[test]
fn a_pod_that_is_being_deleted_is_no_target_whatever_its_slice_shows() {
    let bound = binding(IntOrString::Int(80), TargetType::Ip);
    for (published, ready) in [(false, true), (false, false), (true, true)] {
        let service = Service { publishes_not_ready: published, ..service("ClusterIP", vec![port("http", 80, None)]) };
        let mut snapshot = snapshot(service.clone());
        snapshot.apply(Pod { deleting: true, ..pod("ends", "n1", Readiness::Ready) });
        snapshot.apply(pod("stays", "n1", Readiness::Ready));
        let endpoints = vec![endpoint("10.0.0.1", "ends", Some(ready)), endpoint("10.0.0.2", "stays", Some(ready))];
        let slice = slice("cart-1", AddressFamily::Ipv4, &[("http", 8080)], endpoints);
        snapshot.apply(slice.clone());
        let ends = ("10.0.0.1", 8080, of_pod("ends"));
        let stays = ("10.0.0.2", 8080, of_pod("stays"));
        let expected = if published { vec![ends, stays] } else { vec![stays] };
        assert_eq!(resolve(&snapshot, &bound, SilentNodes::InNeed), Ok(found(&expected)), "{published} {ready}");
        let state = if published { TargetState::Living } else { TargetState::Terminating };
        assert_eq!(target_state(&snapshot, &bound, &target("10.0.0.1", 8080)), state);
        let slices = [slice];
        let proofs = ready_pods(&snapshot, &slices, &bound, &service).into_iter().map(|pod| pod.name.as_str());
        let expected = match (ready, published) {
            (false, _) => vec![],
            (true, false) => vec!["stays"],
            (true, true) => vec!["ends", "stays"],
        };
        assert_eq!(proofs.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_pod_that_was_recreated_under_its_name_is_another_pod() {
    use TargetState::{Living, Terminating};
    let bound = binding(IntOrString::Int(80), TargetType::Ip);
    let service = service("ClusterIP", vec![port("http", 80, None)]);
    let (old, new) = ("10.0.0.1", "10.0.0.2");
    for (case, deleting, known, shown, uid, is_target, state, proves) in [
        ("both are of the old one", false, "1", old, Some("1"), true, Living, true),
        ("both are of the old one, which ends", true, "1", old, Some("1"), false, Terminating, false),
        ("the slice still has the old one", false, "2", old, Some("1"), false, Terminating, true),
        ("the slice has the new one, while the old one ends", true, "1", new, Some("2"), false, Terminating, true),
        ("both are of the new one", false, "2", new, Some("2"), true, Living, true),
        ("the slice tells no UID", false, "2", new, None, true, Living, true),
    ] {
        let mut snapshot = snapshot(service.clone());
        snapshot.apply(Pod { uid: known.to_owned(), deleting, ..pod("db-0", "n1", Readiness::Ready) });
        let mut endpoint = endpoint(shown, "db-0", Some(true));
        endpoint.pod = Some(PodReference { name: "db-0".to_owned(), uid: uid.map(str::to_owned) });
        let slices = [slice("cart-1", AddressFamily::Ipv4, &[("http", 8080)], vec![endpoint])];
        snapshot.apply(slices[0].clone());
        let Ok(Resolution::Targets { targets, .. }) = resolve(&snapshot, &bound, SilentNodes::InNeed) else {
            panic!("{case}")
        };
        let owner =
            TargetOwner::Pod { name: ObjectName::new("shop", "db-0"), uid: known.to_owned(), quic_server_id: None };
        let expected = is_target.then(|| (target(shown, 8080), owner));
        assert_eq!(targets, expected.into_iter().collect(), "{case}");
        assert_eq!(target_state(&snapshot, &bound, &target(shown, 8080)), state, "{case}");
        assert_eq!(!ready_pods(&snapshot, &slices, &bound, &service).is_empty(), proves, "{case}");
    }
}

#[test]
fn slices_are_taken_by_service_family_and_port() {
    let mut all = snapshot(service("ClusterIP", vec![port("", 80, None)]));
    for name in ["a", "b"] {
        all.apply(pod(name, "n1", Readiness::Ready));
    }
    let one = |address, pod| vec![endpoint(address, pod, Some(true))];
    all.apply(slice("cart-1", AddressFamily::Ipv4, &[("", 8080)], one("10.0.0.1", "a")));
    all.apply(slice("cart-2", AddressFamily::Ipv4, &[("", 8081)], one("10.0.0.2", "b")));
    all.apply(slice("cart-3", AddressFamily::Ipv6, &[("", 8080)], one("FD00::0:2", "b")));
    all.apply(slice("cart-4", AddressFamily::Other, &[("", 8080)], one("cart.example", "b")));
    all.apply(EndpointSlice {
        service: "other".into(),
        ..slice("other-1", AddressFamily::Ipv4, &[("", 1)], one("10.0.0.3", "a"))
    });
    let mut bound = binding(IntOrString::Int(80), TargetType::Ip);
    let v4 = found(&[("10.0.0.1", 8080, of_pod("a")), ("10.0.0.2", 8081, of_pod("b"))]);
    assert_eq!(resolve(&all, &bound, SilentNodes::InNeed), Ok(v4));
    bound.spec.ip_address_type = Some(IpAddressType::Ipv6);
    assert_eq!(resolve(&all, &bound, SilentNodes::InNeed), Ok(found(&[("fd00::2", 8080, of_pod("b"))])));
}

#[test]
fn endpoints_without_a_known_pod_are_passed_over_and_told() {
    let mut all = snapshot(service("ClusterIP", vec![port("", 80, None)]));
    let external = EndpointAddress { pod: None, ..endpoint("192.0.2.1", "", Some(true)) };
    let endpoints = vec![external, endpoint("10.0.0.1", "fresh", Some(true))];
    all.apply(slice("cart-1", AddressFamily::Ipv4, &[("", 8080)], endpoints));
    let skipped = [("192.0.2.1", "this endpoint has no pod"), ("10.0.0.1", "its pod is not known (yet)")]
        .map(|(what, why)| Skipped { what: what.to_owned(), why });
    let resolved = resolve(&all, &binding(IntOrString::Int(80), TargetType::Ip), SilentNodes::InNeed);
    assert_eq!(resolved, Ok(resolution(BTreeMap::new(), skipped.into())));
}

#[test]
fn nodes_that_may_take_traffic_are_targets() {
    let labelled = |mut node: Node, key: &str, value: &str| {
        node.labels.insert(key.to_owned(), value.to_owned());
        node
    };
    let tainted = |mut node: Node, key: &str, effect: &str| {
        node.taints.push((key.to_owned(), effect.to_owned()));
        node
    };
    let n4 = || node("n4", Readiness::Ready);
    for (case, extra, taken) in [
        ("ordinary", n4(), true),
        ("not ready", node("n4", Readiness::NotReady), false),
        ("silent, and n1 is better", node("n4", Readiness::Unknown), false),
        ("old master label", labelled(n4(), "node-role.kubernetes.io/master", ""), false),
        ("control plane", labelled(n4(), "node-role.kubernetes.io/control-plane", ""), true),
        ("excluded", labelled(n4(), "node.kubernetes.io/exclude-from-external-load-balancers", "false"), false),
        ("excluded of old", labelled(n4(), "alpha.service-controller.kubernetes.io/exclude-balancer", ""), false),
        ("Fargate", labelled(n4(), "eks.amazonaws.com/compute-type", "fargate"), false),
        ("not Fargate", labelled(n4(), "eks.amazonaws.com/compute-type", "auto"), true),
        ("scaled away", tainted(n4(), "ToBeDeletedByClusterAutoscaler", "PreferNoSchedule"), false),
        ("disrupted by Karpenter", tainted(n4(), "karpenter.sh/disrupted", "NoSchedule"), false),
        ("a milder taint of Karpenter", tainted(n4(), "karpenter.sh/disrupted", "NoExecute"), true),
    ] {
        for kind in ["NodePort", "LoadBalancer"] {
            let mut all = snapshot(service(kind, vec![port("http", 80, Some(30_080))]));
            all.apply(extra.clone());
            let mut wanted = vec![("i-n1", 30_080, of_node("n1"))];
            wanted.extend(taken.then(|| ("i-n4", 30_080, of_node("n4"))));
            let resolution = resolve(&all, &binding(IntOrString::Int(80), TargetType::Instance), SilentNodes::InNeed);
            assert_eq!(resolution, Ok(found(&wanted)), "{case}");
        }
    }
}

#[test]
fn silent_nodes_are_better_than_none() {
    let mut all = snapshot(service("NodePort", vec![port("http", 80, Some(30_080))]));
    all.remove::<Node>(&ObjectName::new("", "n1"));
    let on_nodes = binding(IntOrString::Int(80), TargetType::Instance);
    let n2 = found(&[("i-n2", 30_080, of_node("n2"))]);
    for (silent, expected) in [(SilentNodes::InNeed, n2), (SilentNodes::Never, found(&[]))] {
        assert_eq!(resolve(&all, &on_nodes, silent), Ok(expected), "{silent:?}");
    }
}

#[test]
fn pods_on_silent_nodes_are_targets_only_in_need_and_only_under_the_gate() {
    let bound = binding(IntOrString::Int(80), TargetType::Ip);
    let mut all = snapshot(service("ClusterIP", vec![port("http", 80, None)]));
    all.apply(pod("silent", "n2", Readiness::Ready));
    all.apply(pod("serves", "n1", Readiness::Ready));
    let silent = endpoint("10.0.0.1", "silent", Some(false));
    let serves = endpoint("10.0.0.2", "serves", Some(true));
    let (of_silent, of_serving) = (("10.0.0.1", 8080, of_pod("silent")), ("10.0.0.2", 8080, of_pod("serves")));
    for (endpoints, in_need, never) in [
        (vec![silent.clone()], vec![of_silent], vec![]),
        (vec![silent, serves], vec![of_serving.clone()], vec![of_serving]),
    ] {
        all.apply(slice("cart-1", AddressFamily::Ipv4, &[("http", 8080)], endpoints));
        assert_eq!(resolve(&all, &bound, SilentNodes::InNeed), Ok(found(&in_need)));
        assert_eq!(resolve(&all, &bound, SilentNodes::Never), Ok(found(&never)));
    }
}

#[test]
fn a_node_without_an_instance_harms_no_other() {
    let mut all = snapshot(service("NodePort", vec![port("http", 80, Some(30_080))]));
    all.apply(Node { provider_id: "eks-hybrid:///eu-west-1/demo/mi-1".into(), ..node("n4", Readiness::Ready) });
    let why = "its spec.providerID names no EC2 instance (yet)";
    assert_eq!(
        resolve(&all, &binding(IntOrString::Int(80), TargetType::Instance), SilentNodes::InNeed),
        Ok(resolution([(target("i-n1", 30_080), of_node("n1"))].into(), vec![Skipped { what: "n4".into(), why }],))
    );
}

#[test]
fn a_node_selector_chooses() {
    let expression = |key: &str, operator: &str, values: &[&str]| LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
        }]),
        match_labels: None,
    };
    let label = |value: &str| LabelSelector {
        match_labels: Some([("pool".to_owned(), value.to_owned())].into()),
        match_expressions: None,
    };
    let both = LabelSelector { match_labels: label("web").match_labels, ..expression("pool", "NotIn", &["web"]) };
    let mut all = snapshot(service("NodePort", vec![port("http", 80, Some(30_080))]));
    for (name, pool) in [("w", "web"), ("b", "batch")] {
        all.apply(Node { labels: [("pool".into(), pool.into())].into(), ..node(name, Readiness::Ready) });
    }
    for (case, selector, wanted) in [
        ("empty", LabelSelector::default(), vec!["b", "n1", "w"]),
        ("label", label("web"), vec!["w"]),
        ("In", expression("pool", "In", &["web", "batch"]), vec!["b", "w"]),
        ("NotIn takes nodes without the label", expression("pool", "NotIn", &["web"]), vec!["b", "n1"]),
        ("Exists", expression("pool", "Exists", &[]), vec!["b", "w"]),
        ("DoesNotExist", expression("pool", "DoesNotExist", &[]), vec!["n1"]),
        // No target is left, but no silent node either: n2 is not selected.
        ("all must hold", both, vec![]),
    ] {
        let mut bound = binding(IntOrString::Int(80), TargetType::Instance);
        bound.spec.node_selector = Some(selector);
        let ids: Vec<String> = wanted.iter().map(|n| format!("i-{n}")).collect();
        let wanted: Vec<_> = ids.iter().zip(&wanted).map(|(id, n)| (id.as_str(), 30_080, of_node(n))).collect();
        assert_eq!(resolve(&all, &bound, SilentNodes::InNeed), Ok(found(&wanted)), "{case}");
    }
    let mut bound = binding(IntOrString::Int(80), TargetType::Instance);
    bound.spec.node_selector = Some(expression("pool", "Like", &[]));
    assert_eq!(resolve(&all, &bound, SilentNodes::InNeed), Err(UnresolvableBinding::SelectorOperator("Like".into())));
}

#[test]
fn instances_need_node_ports() {
    let refusal = |service: Service| {
        let error =
            resolve(&snapshot(service), &binding(IntOrString::Int(80), TargetType::Instance), SilentNodes::InNeed);
        let error = error.expect_err("it was resolved");
        format!("{error}; {}", error.fix())
    };
    insta::assert_snapshot!(refusal(service("ClusterIP", vec![port("http", 80, None)])), @"Service shop/cart is of type ClusterIP, which has no node ports for the target type instance; make the Service's type NodePort or LoadBalancer, or use the target type ip");
    insta::assert_snapshot!(refusal(service("LoadBalancer", vec![port("http", 80, None)])), @"port 80 of Service shop/cart has no node port for the target type instance; set allocateLoadBalancerNodePorts: true, or use the target type ip");
}

#[test]
fn the_port_of_the_target_groups_protocol_is_meant() {
    use crate::api::crd::target_group_binding::TargetGroupProtocol as Protocol;
    let mut udp = port("udp", 53, Some(30_054));
    udp.protocol = "UDP".into();
    let mut snapshot = Snapshot::default();
    snapshot.apply(service("NodePort", vec![port("tcp", 53, Some(30_053)), udp]));
    snapshot.apply(node("n1", Readiness::Ready));
    for (reference, protocol, number) in [
        (IntOrString::Int(53), None, 30_053),
        (IntOrString::Int(53), Some(Protocol::Tcp), 30_053),
        (IntOrString::Int(53), Some(Protocol::Tls), 30_053),
        (IntOrString::Int(53), Some(Protocol::TcpUdp), 30_053),
        (IntOrString::Int(53), Some(Protocol::Udp), 30_054),
        (IntOrString::String("tcp".into()), Some(Protocol::Udp), 30_053),
    ] {
        let mut binding = binding(reference.clone(), TargetType::Instance);
        binding.spec.target_group_protocol = protocol;
        let targets = BTreeMap::from([(target("i-n1", number), TargetOwner::Node("n1".into()))]);
        let expected = resolution(targets, vec![]);
        assert_eq!(resolve(&snapshot, &binding, SilentNodes::InNeed), Ok(expected), "{reference:?} {protocol:?}");
    }
}

/// A pod with a server id in a variable of a container at port 443.
fn server(name: &str, variable: &str, id: u64) -> Pod {
    let of = ContainerServerId { variable: variable.to_owned(), id: QuicServerId::new(id), ports: [443].into() };
    Pod { server_ids: [of].into(), ..pod(name, "n1", Readiness::Ready) }
}

#[test]
fn targets_of_quic_have_server_ids() {
    use crate::api::crd::target_group_binding::TargetGroupProtocol as Protocol;
    let mut all = snapshot(service(
        "ClusterIP",
        vec![port("http", 80, None), ServicePort { protocol: "UDP".into(), ..port("h3", 443, None) }],
    ));
    for pod in [server("a", "AWS_LBC_QUIC_SERVER_ID", 1), server("b", "SERVER_ID", 2), pod("c", "n1", Readiness::Ready)]
    {
        all.apply(pod);
    }
    let endpoints = || ["a", "b", "c"].map(|name| endpoint(&format!("10.0.0.{name}"), name, Some(true))).into();
    all.apply(slice("cart-1", AddressFamily::Ipv4, &[("h3", 443)], endpoints()));
    all.apply(slice("cart-2", AddressFamily::Ipv4, &[("http", 8080)], endpoints()));
    let names = |names: &[&str]| names.iter().map(|name| ObjectName::new("shop", *name)).collect::<BTreeSet<_>>();
    let owner = |name: &str, id: Option<u64>| TargetOwner::Pod {
        name: ObjectName::new("shop", name),
        uid: format!("uid-{name}"),
        quic_server_id: id.map(QuicServerId::new),
    };
    let own = EnvironmentVariable::new("SERVER_ID").unwrap();
    for (protocol, variable, targets, without) in [
        (Protocol::Quic, EnvironmentVariable::default(), vec![("a", Some(1))], vec!["b", "c"]),
        (Protocol::TcpQuic, EnvironmentVariable::default(), vec![("a", Some(1))], vec!["b", "c"]),
        (Protocol::Quic, own, vec![("b", Some(2))], vec!["a", "c"]),
        (Protocol::Udp, EnvironmentVariable::default(), vec![("a", None), ("b", None), ("c", None)], vec![]),
    ] {
        all.server_id_variable = variable;
        let mut bound = binding(IntOrString::Int(443), TargetType::Ip);
        bound.spec.target_group_protocol = Some(protocol);
        let targets: BTreeMap<_, _> =
            targets.into_iter().map(|(name, id)| (target(&format!("10.0.0.{name}"), 443), owner(name, id))).collect();
        let expected = Resolution::Targets {
            targets,
            skipped: vec![],
            without_server_id: names(&without),
            with_shared_server_id: BTreeMap::new(),
        };
        assert_eq!(resolve(&all, &bound, SilentNodes::InNeed), Ok(expected), "{protocol:?}");
        // The absence of the others is explained, and needs no proof.
        let service = all.services.get(&ObjectName::new("shop", "cart")).unwrap();
        let slices: Vec<EndpointSlice> = all.endpoint_slices.values().cloned().collect();
        let ready: BTreeSet<ObjectName> = ready_pods(&all, &slices, &bound, service)
            .into_iter()
            .map(|pod| ObjectName::new("shop", &pod.name))
            .collect();
        assert!(ready.is_disjoint(&names(&without)) && ready.len() + without.len() == 3, "{protocol:?} {ready:?}");
    }
    let nodes = TargetGroupBinding {
        spec: TargetGroupBindingSpec {
            target_group_protocol: Some(Protocol::Quic),
            ..binding(IntOrString::Int(443), TargetType::Instance).spec
        },
        ..binding(IntOrString::Int(443), TargetType::Instance)
    };
    let error = resolve(&all, &nodes, SilentNodes::InNeed).unwrap_err();
    insta::assert_snapshot!(format!("{error}; {}", error.fix()), @"the target group is of QUIC, which takes its targets only with a server id each, and instances have none; use a target group of the target type ip, whose pods have server ids");
}

#[test]
fn pods_with_one_server_id_are_found() {
    use crate::api::crd::target_group_binding::TargetGroupProtocol as Protocol;
    let mut all = snapshot(service("ClusterIP", vec![ServicePort { protocol: "UDP".into(), ..port("h3", 443, None) }]));
    for (name, id) in [("a", 2), ("b", 1), ("c", 1), ("d", 1), ("e", 3)] {
        all.apply(server(name, "AWS_LBC_QUIC_SERVER_ID", id));
    }
    // The order of the slices and of their endpoints does not count.
    let endpoints = |names: &[&str]| names.iter().map(|n| endpoint(&format!("fd00::{n}"), n, Some(true))).collect();
    for (name, of) in [("cart-1", ["d", "c"].as_slice()), ("cart-2", &["e", "b", "a"])] {
        all.apply(slice(name, AddressFamily::Ipv6, &[("h3", 443)], endpoints(of)));
    }
    // A pod is at two ports while another slice takes the place of one.
    all.apply(slice("cart-3", AddressFamily::Ipv6, &[("h3", 444)], endpoints(&["e"])));
    let mut bound = binding(IntOrString::Int(443), TargetType::Ip);
    bound.spec.ip_address_type = Some(IpAddressType::Ipv6);
    for (protocol, shared, left_out) in [
        (Protocol::Quic, vec![("c", "b"), ("d", "b")], vec![("fd00::c", 443), ("fd00::d", 443), ("fd00::e", 444)]),
        (Protocol::Udp, vec![], vec![]),
    ] {
        bound.spec.target_group_protocol = Some(protocol);
        let resolved = resolve(&all, &bound, SilentNodes::InNeed).unwrap();
        let Resolution::Targets { targets, with_shared_server_id, .. } = resolved else { panic!("{resolved:?}") };
        assert!(["a", "b", "c", "d", "e"].iter().all(|n| targets.contains_key(&target(&format!("fd00::{n}"), 443))));
        let names = |(pod, other)| (ObjectName::new("shop", pod), ObjectName::new("shop", other));
        assert_eq!(with_shared_server_id, shared.into_iter().map(names).collect());
        let left_out: BTreeSet<Target> = left_out.into_iter().map(|(id, port)| target(id, port)).collect();
        assert_eq!(rivals(&targets, &BTreeMap::new()), left_out);
    }
}

#[test]
fn a_target_that_is_registered_with_a_server_id_keeps_it() {
    use crate::model::HealthState;
    let owner = |name: &str, id| TargetOwner::Pod {
        name: ObjectName::new("shop", name),
        uid: name.to_owned(),
        quic_server_id: Some(QuicServerId::new(id)),
    };
    let targets: BTreeMap<Target, TargetOwner> = [("a", 1), ("b", 1), ("c", 1), ("d", 2)]
        .map(|(n, id)| (target(&format!("fd00::{n}"), 443), owner(n, id)))
        .into();
    let (healthy, draining) = (HealthState::Healthy, HealthState::Draining);
    for (case, present, left_out) in [
        ("none is registered: the first address", vec![], vec!["b", "c"]),
        ("one is, as AWS spells it", vec![("FD00:0::B", &healthy, Some(1))], vec!["a", "c"]),
        ("the last is", vec![("fd00::c", &healthy, Some(1))], vec!["a", "b"]),
        ("one drains", vec![("fd00::c", &draining, Some(1))], vec!["b", "c"]),
        ("a predecessor of one is", vec![("fd00::b", &healthy, Some(9))], vec!["b", "c"]),
        ("one is, with an id that AWS does not tell", vec![("fd00::b", &healthy, None)], vec!["a", "c"]),
        (
            "another one is with the id",
            vec![("fd00::b", &healthy, None), ("fd00::c", &healthy, Some(1))],
            vec!["a", "b"],
        ),
    ] {
        let registered = |(id, state, quic_server_id): (&str, &HealthState, Option<u64>)| {
            let health = TargetHealth {
                state: state.clone(),
                quic_server_id: quic_server_id.map(QuicServerId::new),
                ..TargetHealth::registering()
            };
            (Target { id: id.to_owned(), port: 443 }, health)
        };
        let present = present.into_iter().map(registered).collect();
        let expected: BTreeSet<Target> = left_out.iter().map(|n| target(&format!("fd00::{n}"), 443)).collect();
        assert_eq!(rivals(&targets, &present), expected, "{case}");
    }
}

#[test]
fn a_server_id_is_part_of_an_identity() {
    let targets = |id: Option<u64>| {
        let owner = TargetOwner::Pod {
            name: ObjectName::new("shop", "a"),
            uid: "uid-a".to_owned(),
            quic_server_id: id.map(QuicServerId::new),
        };
        BTreeMap::from([(target("10.0.0.1", 443), owner)])
    };
    assert_eq!(identities(&targets(None)).collect::<Vec<_>>(), ["10.0.0.1:443"]);
    assert_eq!(identities(&targets(Some(17))).collect::<Vec<_>>(), ["10.0.0.1:443:0x0000000000000011"]);
}
