//! Building arbitrary Services: it never panics, and the same is built every time.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    api::annotations::{ANNOTATIONS, SERVICE_PREFIX},
    snapshot::{Service, ServicePort},
};

fn values() -> impl Strategy<Value = String> {
    let likely = vec![
        "ip",
        "instance",
        "80",
        "443,http",
        "true",
        "false",
        "on",
        "internal",
        "internet-facing",
        "a=b,c=d",
        "*",
        "ssl",
        "nlb-ip",
        "external",
        "public-a,public-b",
        "eipalloc-1,eipalloc-2",
        "10.0.0.9,10.0.1.9",
        "10.0.0.0/8",
        "::/0",
        "my-sg-1",
        "arn:aws:acm:eu-west-1:1:certificate/a,arn:aws:acm:eu-west-1:1:certificate/b",
        "http",
        "HTTP2Only",
        "preserve_client_ip.enabled=true",
        "proxy_protocol_v2.enabled=",
        r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"other","servicePort":80}]}}"#,
    ];
    prop_oneof![6 => select(likely).prop_map(str::to_owned), 1 => any::<String>()]
}

fn annotations() -> impl Strategy<Value = BTreeMap<String, String>> {
    let suffixes: Vec<String> = ANNOTATIONS
        .iter()
        .filter(|annotation| annotation.key.prefix() == SERVICE_PREFIX)
        .map(|annotation| annotation.key.to_string().replace("<PROTOCOL>-<port>", "TCP-80").replace("<port>", "80"))
        .chain(["service.beta.kubernetes.io/aws-load-balancer-unheard-of".to_owned()])
        .collect();
    prop::collection::btree_map(select(suffixes), values(), 0..6)
}

fn ports() -> impl Strategy<Value = ServicePort> {
    let target = prop_oneof![
        select(vec![0_u16, 80, 8080]).prop_map(PortReference::Number),
        Just(PortReference::Name("web".to_owned())),
    ];
    let name = select(vec!["", "http", "https"]);
    (name, select(vec![80_u16, 443, 0, 65535]), target, any::<Option<u16>>(), select(vec!["TCP", "UDP", "SCTP"]))
        .prop_map(|(name, port, target_port, node_port, protocol)| ServicePort {
            name: name.to_owned(),
            port,
            target_port,
            node_port,
            protocol: protocol.to_owned(),
        })
}

fn services() -> impl Strategy<Value = Service> {
    let spec = (
        select(vec!["LoadBalancer", "LoadBalancer", "NodePort", "ClusterIP"]),
        prop::option::weighted(0.8, Just("service.k8s.aws/nlb".to_owned())),
        prop::collection::vec(ports(), 0..4),
        prop::collection::vec(select(vec!["10.0.0.0/8", "10.1.2.3/16", "::/0", "x"]).prop_map(str::to_owned), 0..2),
        any::<(bool, Option<u16>, bool)>(),
        prop::bool::weighted(0.1),
    );
    let finalizers =
        select(vec![vec![], vec!["service.k8s.aws/resources"], vec!["service.kubernetes.io/load-balancer-cleanup"]]);
    (annotations(), spec, select(vec!["u", ""]), prop::bool::weighted(0.1), finalizers).prop_map(
        |(annotations, (kind, class, ports, ranges, (local, check, allocate), ipv6), uid, deleting, finalizers)| {
            Service {
                uid: uid.to_owned(),
                annotations,
                finalizers: finalizers.into_iter().map(str::to_owned).collect(),
                deleting,
                kind: kind.to_owned(),
                ports,
                ipv6,
                load_balancer_class: class,
                load_balancer_source_ranges: ranges,
                local_traffic: local,
                health_check_node_port: check,
                allocate_load_balancer_node_ports: allocate,
                ..crate::testing::bare_service(web())
            }
        },
    )
}

fn known() -> impl Strategy<Value = Facts> {
    let schemes = select(vec![Scheme::Internal, Scheme::InternetFacing]);
    let there = (schemes, any::<bool>()).prop_map(|(scheme, groups)| existing(scheme, groups));
    prop_oneof![4 => Just(facts()), 1 => Just(Facts::default()), 1 => Just(Facts::offline()), 2 => there]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn building_is_total_and_deterministic(
        service in services(),
        facts in known(),
        cluster in select(vec!["demo", ""]),
        switches in any::<(bool, bool, bool)>(),
    ) {
        let mut snapshot = Snapshot::default();
        let ours = service.clone();
        snapshot.apply(service);
        let config = BuildConfig {
            cluster: cluster.to_owned(),
            enable_backend_security_group: switches.0,
            disable_restricted_rules: switches.1,
            enable_tcp_udp_listener: switches.2,
            ..config()
        };
        let first = build(&snapshot, &config, &facts, &web());
        prop_assert_eq!(&first, &build(&snapshot.clone(), &config, &facts, &web()));
        let failed = first.diagnostics.iter().any(|d| d.severity == Severity::Error);
        let waiting = !first.wants.is_empty() || !first.unavailable.is_empty();
        if ownership(&ours, &config) == Ownership::Ours {
            prop_assert_eq!(first.stack.is_some(), !failed && !waiting, "{:?}", first);
        }
        for (index, diagnostic) in first.diagnostics.iter().enumerate() {
            prop_assert!(!diagnostic.message.is_empty() && !diagnostic.field.is_empty());
            prop_assert!(!first.diagnostics[..index].contains(diagnostic));
        }
        if let Some(stack) = first.stack {
            let managed = |balancer: &LoadBalancer| balancer.security_groups.contains(&SecurityGroupReference::Managed);
            prop_assert_eq!(stack.security_group.is_some(), stack.load_balancer.as_ref().is_some_and(managed));
            prop_assert_eq!(stack.listeners.len(), stack.target_groups.len());
            for listener in stack.listeners.values() {
                prop_assert_eq!(listener.protocol == ListenerProtocol::Tls, listener.default_certificate.is_some());
                prop_assert_eq!(listener.protocol == ListenerProtocol::Tls, listener.ssl_policy.is_some());
                for group in listener.default_action.target_groups() {
                    let TargetGroupReference::Own(id) = group else { panic!("{group:?}") };
                    prop_assert!(stack.target_groups.contains_key(id));
                }
            }
        }
    }
}
