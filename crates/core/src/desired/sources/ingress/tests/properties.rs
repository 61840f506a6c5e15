//! Building arbitrary Ingresses: it never panics, and the same is built every time.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    api::annotations::{ANNOTATIONS, INGRESS_PREFIX},
    facts::ExistingLoadBalancer,
    model::PortReference,
    snapshot::{Backend, BackendPort, HttpPath, HttpRule, Ingress, Service, ServicePort},
};

fn names() -> impl Strategy<Value = String> {
    prop_oneof![4 => select(vec!["web", "api", "go", "nobody"]).prop_map(str::to_owned), 1 => any::<String>()]
}

fn ports() -> impl Strategy<Value = PortReference> {
    prop_oneof![
        select(vec![80_u16, 81, 0, 65535]).prop_map(PortReference::Number),
        select(vec!["http", "", "80"]).prop_map(|name| PortReference::Name(name.to_owned())),
    ]
}

fn backends() -> impl Strategy<Value = Backend> {
    prop_oneof![
        6 => (names(), ports()).prop_map(|(name, port)| Backend::Service { name, port: BackendPort::Port(port) }),
        2 => names().prop_map(|name| Backend::Service { name, port: BackendPort::UseAnnotation }),
        1 => names().prop_map(|name| Backend::Service { name, port: BackendPort::Missing }),
        1 => (names(), any::<i32>()).prop_map(|(name, n)| Backend::Service { name, port: BackendPort::OutOfRange(n) }),
        1 => (names(), names()).prop_map(|(kind, name)| Backend::Resource(kind, name)),
        1 => Just(Backend::Nothing),
    ]
}

fn values() -> impl Strategy<Value = String> {
    let likely = vec![
        "ip",
        "instance",
        "80",
        "443",
        "true",
        "HTTPS",
        "GRPC",
        "internal",
        "a=b,c=d",
        "deletion_protection.enabled=true",
        "10.1.2.3/8, 10.0.0.0/8, ::/0",
        "::/0",
        "pl-1",
        r#"[{"HTTP":80},{"HTTPS":443}]"#,
        "arn:aws:acm:eu-west-1:1:certificate/a,arn:aws:acm:eu-west-1:1:certificate/b",
        r#"{"type":"redirect","redirectConfig":{"statusCode":"HTTP_301"}}"#,
        r#"{"type":"fixed-response","fixedResponseConfig":{"statusCode":"200"}}"#,
        r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"web","servicePort":"80"}]}}"#,
        r#"{"type":"forward","targetGroupARN":"arn:x"}"#,
        r#"{"type":"forward","targetGroupName":"blue"}"#,
        r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"web","servicePort":80,"weight":1},{"serviceName":"api","servicePort":"http","weight":2}],"targetGroupStickinessConfig":{"enabled":true,"durationSeconds":60}}}"#,
        r#"[{"field":"host-header","hostHeaderConfig":{"values":["a.test","b.test","c.test","d.test","e.test","f.test"]}}]"#,
        r#"[{"field":"path-pattern","pathPatternConfig":{"regexValues":["^/x"]}},{"field":"source-ip","sourceIpConfig":{"values":["10.0.0.0/8"]}}]"#,
        r#"[{"field":"http-header","httpHeaderConfig":{"httpHeaderName":"X-A","values":["*?*?*?*"]}}]"#,
        r#"[{"type":"url-rewrite","urlRewriteConfig":{"rewrites":[{"regex":"^/a","replace":"/"}]}}]"#,
    ];
    prop_oneof![5 => select(likely).prop_map(str::to_owned), 1 => any::<String>()]
}

fn annotations(most: usize) -> impl Strategy<Value = BTreeMap<String, String>> {
    let keys: Vec<String> =
        ANNOTATIONS.iter().filter(|a| a.key.prefix() == INGRESS_PREFIX).map(|a| a.key.to_string()).collect();
    let key = prop_oneof![
        4 => select(keys),
        2 => select(vec!["target-type", "actions.go", "listen-ports", "certificate-arn", "ssl-redirect", "subnets", "security-groups",
            "manage-backend-security-group-rules", "inbound-cidrs", "security-group-prefix-lists", "listener-attributes.HTTP-80",
            "conditions.web", "conditions.api", "conditions.go", "transforms.web", "transforms.api", "use-regex-path-match"])
            .prop_map(|name| format!("{INGRESS_PREFIX}{name}")),
        1 => any::<String>(),
    ];
    prop::collection::btree_map(key, values(), 0..most)
}

fn paths() -> impl Strategy<Value = HttpPath> {
    let path = prop_oneof![4 => select(vec!["/", "", "/a", "/a/", "/*"]).prop_map(str::to_owned), 1 => any::<String>()];
    let kind = prop::option::of(select(vec!["Exact", "Prefix", "ImplementationSpecific", "Other"]));
    (path, kind, backends()).prop_map(|(path, kind, backend)| HttpPath {
        path,
        path_type: kind.map(str::to_owned),
        backend,
    })
}

fn ingresses() -> impl Strategy<Value = Ingress> {
    let rule = (prop_oneof![Just(String::new()), any::<String>()], prop::collection::vec(paths(), 0..4));
    (annotations(5), prop::option::of(backends()), prop::collection::vec(rule, 0..3), any::<i64>()).prop_map(
        |(annotations, default_backend, rules, generation)| Ingress {
            name: web(),
            uid: String::new(),
            generation,
            annotations,
            written_plan: None,
            finalizers: vec![],
            deleting: false,
            class: None,
            default_backend,
            rules: rules
                .into_iter()
                .enumerate()
                .map(|(index, (host, paths))| HttpRule { index, host, paths })
                .collect(),
            hosts: ["www.example.com".to_owned()].into(),
            status: vec![],
        },
    )
}

fn services() -> impl Strategy<Value = Service> {
    let port = (any::<u16>(), ports(), prop::option::of(any::<u16>()), select(vec!["", "http"]), any::<bool>());
    (
        select(vec!["web", "api"]),
        annotations(3),
        prop::collection::vec(port, 0..3),
        select(vec!["", "uid"]),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(name, annotations, ports, uid, ipv6)| Service {
            uid: uid.to_owned(),
            annotations,
            kind: "NodePort".to_owned(),
            ports: ports
                .into_iter()
                .map(|(port, target_port, node_port, name, usual)| ServicePort {
                    name: name.to_owned(),
                    port: if usual { 80 } else { port },
                    target_port,
                    node_port,
                    protocol: "TCP".to_owned(),
                })
                .collect(),
            ipv6,
            ..crate::testing::bare_service(ObjectName::new("shop", name))
        })
}

fn known() -> impl Strategy<Value = Facts> {
    let scheme = select(vec![Scheme::Internal, Scheme::InternetFacing]);
    let existing = scheme.prop_map(|scheme| Facts {
        existing: Some(ExistingLoadBalancer {
            kind: LoadBalancerKind::Application,
            scheme,
            has_security_groups: true,
            has_ipv6: false,
            has_quic: false,
            customer_owned_pool: None,
            subnets: [SubnetId::new("subnet-x")].into(),
        }),
        ..facts()
    });
    prop_oneof![4 => Just(facts()), 1 => Just(Facts::default()), 1 => Just(Facts::offline()), 1 => existing]
}

/// Returns the number of values of a condition, and checks that it has some.
fn values_of(condition: &Condition) -> usize {
    let count = match condition {
        Condition::HostHeader { values, regex_values }
        | Condition::PathPattern { values, regex_values }
        | Condition::HttpHeader { values, regex_values, .. } => {
            assert!(values.is_empty() || regex_values.is_empty(), "{condition:?}");
            values.len() + regex_values.len()
        }
        Condition::HttpRequestMethod { values } | Condition::SourceIp { values } => values.len(),
        Condition::QueryString { values } => values.len(),
        Condition::Other(field) => panic!("nobody asks for {field}"),
    };
    assert!(count > 0, "{condition:?}");
    count
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn building_is_total_and_deterministic(
        ingress in ingresses(),
        services in prop::collection::vec(services(), 0..3),
        facts in known(),
        cluster in select(vec!["demo", ""]),
    ) {
        let mut snapshot = Snapshot::default();
        snapshot.apply(ingress);
        for service in services {
            snapshot.apply(service);
        }
        let config = BuildConfig { cluster: cluster.to_owned(), ..config() };
        let group = StackId::Ingress(web());
        let first = build(&snapshot, &config, &facts, &group, &Membership { members: [web()].to_vec(), ..Default::default() });
        prop_assert_eq!(&first, &build(&snapshot.clone(), &config, &facts, &group, &Membership { members: [web()].to_vec(), ..Default::default() }));
        let failed = first.diagnostics.iter().any(|d| d.severity == Severity::Error);
        prop_assert_eq!(first.stack.is_some(), !failed && first.wants.is_empty() && first.unavailable.is_empty());
        for (index, diagnostic) in first.diagnostics.iter().enumerate() {
            prop_assert!(!diagnostic.message.is_empty() && !diagnostic.field.is_empty());
            prop_assert!(!first.diagnostics[..index].contains(diagnostic));
        }
        if let Some(stack) = first.stack {
            // A rule that was left out for the sake of a redirect may have named more.
            let mut named = std::collections::BTreeSet::new();
            for listener in stack.listeners.values() {
                let https = listener.protocol == ListenerProtocol::Https;
                // Without AWS, the certificates in ACM are not known.
                prop_assert!(listener.default_certificate.is_some() == https || https && facts.offline);
                prop_assert_eq!(https, listener.ssl_policy.is_some());
                for action in listener.rules.iter().map(|rule| &rule.action).chain([&listener.default_action]) {
                    named.extend(action.target_groups().filter_map(|group| match group {
                        TargetGroupReference::Own(id) => Some(id.clone()),
                        TargetGroupReference::Foreign(_) | TargetGroupReference::Named(_) => None,
                    }));
                }
                prop_assert!(listener.rules.iter().all(|rule| !rule.conditions.is_empty()));
                prop_assert!(listener.rules.iter().all(|rule| rule.conditions.iter().map(values_of).sum::<usize>() <= 5));
            }
            let groups = &stack.load_balancer.as_ref().unwrap().security_groups;
            let managed = groups.contains(&SecurityGroupReference::Managed);
            prop_assert_eq!(managed, stack.security_group.is_some());
            prop_assert!(!groups.is_empty());
            for group in stack.target_groups.values() {
                // Targets allow only a group that the load balancer is in, and their rules are left to the user only if the
                // user names the groups.
                match networking(&group.binding).0 {
                    Some(source) => prop_assert!(groups.contains(&source)),
                    None => prop_assert!(!managed),
                }
                prop_assert!(group.target_type == TargetType::Instance || group.binding.node_labels.is_empty());
            }
            if let Some(managed) = &stack.security_group {
                let once: std::collections::BTreeSet<_> = managed.ingress.iter().collect();
                prop_assert_eq!(once.len(), managed.ingress.len());
                prop_assert!(!managed.ingress.is_empty() || stack.listeners.is_empty());
            }
            prop_assert!(named.iter().all(|id| stack.target_groups.contains_key(id)));
        }
    }
}
