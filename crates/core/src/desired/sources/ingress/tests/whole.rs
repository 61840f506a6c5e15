//! One small stack in full, and what a stack waits for.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    facts::{ExistingLoadBalancer, FactQuery},
    model::{Cause, ObjectReference},
};

fn tags(resource: Option<&str>) -> Tags {
    let mut tags = Tags::from([
        ("elbv2.k8s.aws/cluster".to_owned(), "demo".to_owned()),
        ("ingress.k8s.aws/stack".to_owned(), "shop/web".to_owned()),
    ]);
    tags.extend(resource.map(|resource| ("ingress.k8s.aws/resource".to_owned(), resource.to_owned())));
    tags
}

fn cause(field: &str) -> Cause {
    Cause { object: ObjectReference::ingress(&web()), generation: 7, field: field.to_owned() }
}

#[test]
fn an_ingress_with_one_path_in_full() {
    let resource = ResourceId::of_tag("shop/web-web:80");
    let group = TargetGroup {
        resource: resource.clone(),
        name: Value::Known(TargetGroupName::new("k8s-shop-web-0").unwrap()),
        second_name: Value::Known(TargetGroupName::new("k8s-shop-web-0").unwrap()),
        target_type: TargetType::Ip,
        protocol: TargetGroupProtocol::Http,
        protocol_version: Some(ProtocolVersion::Http1),
        ip_address_type: IpAddressType::Ipv4,
        port: Value::Known(8080),
        vpc: Value::Known(VpcId::new("vpc-1")),
        health_check: HealthCheck {
            port: "traffic-port".to_owned(),
            protocol: HealthCheckProtocol::Http,
            path: Some("/".to_owned()),
            interval_seconds: 15,
            timeout_seconds: 5,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
            matcher: Some(Matcher::Http("200".to_owned())),
        },
        attributes: Attributes::new(),
        tags: tags(Some("shop/web-web:80")),
        binding: Binding {
            namespace: "shop".to_owned(),
            labels: BTreeMap::from([
                ("ingress.k8s.aws/stack-name".to_owned(), "web".to_owned()),
                ("ingress.k8s.aws/stack-namespace".to_owned(), "shop".to_owned()),
            ]),
            service: "web".to_owned(),
            service_port: PortReference::Number(80),
            node_labels: BTreeMap::new(),
            multi_cluster: false,
            networking: Some(vec![NetworkingRule {
                from: vec![NetworkingPeer::SecurityGroup(SecurityGroupReference::SharedBackend(Value::Known(
                    SecurityGroupId::new("sg-shared"),
                )))],
                ports: vec![NetworkingPort::tcp(Some(PortReference::Number(8080)))],
            }]),
        },
        cause: cause("spec.rules[0].http.paths[0].backend.service"),
    };
    let listener = Listener {
        port: 80,
        protocol: ListenerProtocol::Http,
        default_action: Action::FixedResponse {
            content_type: Some("text/plain".to_owned()),
            message_body: None,
            status_code: "404".to_owned(),
        },
        default_authentication: None,
        default_certificate: None,
        certificates: BTreeSet::new(),
        certificates_after_apply: None,
        mutual_authentication: None,
        ssl_policy: None,
        alpn_policy: None,
        attributes: Attributes::new(),
        attribute_causes: BTreeMap::new(),
        rules: vec![Rule {
            conditions: vec![
                Condition::HostHeader { values: vec!["a.example.com".to_owned()], regex_values: vec![] },
                Condition::PathPattern { values: vec!["/a".to_owned(), "/a/*".to_owned()], regex_values: vec![] },
            ],
            action: Action::Forward {
                target_groups: vec![WeightedTargetGroup {
                    group: TargetGroupReference::Own(resource.clone()),
                    weight: None,
                }],
                stickiness: None,
            },
            authentication: None,
            transforms: vec![],
            tags: tags(None),
            cause: cause("spec.rules[0].http.paths[0]"),
        }],
        shares: BTreeMap::from([(
            ObjectReference::ingress(&web()),
            ListenerShare { certificates: BTreeSet::new(), default_action: false, cause: cause("spec") },
        )]),
        tags: tags(Some("80")),
        cause: cause("spec"),
    };
    let mut expected = Stack {
        frontend: None,
        certificates: DesiredCertificates::default(),
        id: StackId::Ingress(web()),
        security_group: Some(ManagedSecurityGroup {
            name: Value::Known("k8s-shop-web-0".to_owned()),
            description: "[k8s] Managed SecurityGroup for LoadBalancer",
            ingress: vec![SecurityGroupRule {
                protocol: "tcp".to_owned(),
                from_port: Some(80),
                to_port: Some(80),
                source: Source::Ipv4("0.0.0.0/0".to_owned()),
                description: String::new(),
            }],
            tags: tags(Some("ManagedLBSecurityGroup")),
            cause: cause("spec"),
        }),
        load_balancer: Some(LoadBalancer {
            kind: LoadBalancerKind::Application,
            name: Value::Known(LoadBalancerName::new("k8s-shop-web-0").unwrap()),
            scheme: Scheme::InternetFacing,
            ip_address_type: IpAddressType::Ipv4,
            network: NetworkSettings::default(),
            pools: AddressPools::default(),
            subnets: Value::Known(["subnet-a", "subnet-b"].map(|id| SubnetMapping::plain(SubnetId::new(id))).to_vec()),
            security_groups: vec![
                SecurityGroupReference::Managed,
                SecurityGroupReference::SharedBackend(Value::Known(SecurityGroupId::new("sg-shared"))),
            ],
            attributes: Attributes::new(),
            attribute_causes: BTreeMap::new(),
            add_ons: AddOns::default(),
            tags: tags(Some("LoadBalancer")),
            cause: cause("spec"),
        }),
        target_groups: [(resource.clone(), group)].into_iter().collect(),
        listeners: BTreeMap::from([(80, listener)]),
        frozen: FrozenMembers::default(),
        external_tags: std::collections::BTreeSet::new(),
        unprotect: false,
        unprotect_frontend: false,
        interim: false,
        requesters: Requesters::default(),
    };
    let stack = stack(&ingress(
        &[("target-type", "ip"), ("scheme", "internet-facing")],
        &format!("  rules:\n{}", rules("a.example.com", &[("Prefix", "/a", "web", "80")])),
    ));
    // Names end in hashes, which the vectors of the names' own tests pin; here they are taken over after a look at the rest.
    let same_start = |name: &str| assert!(name.starts_with("k8s-shop-web-") && name.len() == 23, "{name}");
    let security_group = stack.security_group.as_ref().unwrap();
    same_start(security_group.name.known().unwrap());
    expected.security_group.as_mut().unwrap().name = security_group.name.clone();
    let balancer = stack.load_balancer.as_ref().unwrap();
    same_start(balancer.name.known().unwrap().as_str());
    expected.load_balancer.as_mut().unwrap().name = balancer.name.clone();
    let group = &stack.target_groups[&resource];
    same_start(group.name.known().unwrap().as_str());
    expected.target_groups[&resource].name = group.name.clone();
    same_start(group.second_name.known().unwrap().as_str());
    assert_ne!(group.second_name, group.name);
    expected.target_groups[&resource].second_name = group.second_name.clone();
    assert_eq!(stack, expected);
}

/// The names that the same Ingress has under aws-load-balancer-controller in a cluster named `demo`.
#[test]
fn load_balancers_have_the_names_that_they_had() {
    for (namespace, name, scheme, expected) in [
        ("alb-missing", "web", "internet-facing", "k8s-albmissi-web-2ebefdc74d"),
        ("alb-named-ports", "web", "internet-facing", "k8s-albnamed-web-671029402b"),
        ("alb-tags", "web", "internet-facing", "k8s-albtags-web-60ca096ad1"),
    ] {
        let manifests = ingress(&[("scheme", scheme)], "  defaultBackend: {service: {name: x, port: {number: 1}}}\n")
            .replace("namespace: shop", &format!("namespace: {namespace}"));
        let name = ObjectName::new(namespace, name);
        let built = build(
            &snapshot(&manifests),
            &config(),
            &facts(),
            &StackId::Ingress(name.clone()),
            &Membership { members: [name].to_vec(), ..Default::default() },
        );
        let stack = built.stack.unwrap();
        assert_eq!(stack.load_balancer.unwrap().name.to_string(), expected);
    }
}

#[test]
fn a_group_without_members_wants_nothing() {
    let group = StackId::Ingress(web());
    let built = build(&Snapshot::default(), &config(), &facts(), &group, &Membership::default());
    let nothing = Built {
        stack: Some(Stack::empty(group.clone())),
        diagnostics: vec![],
        wants: BTreeSet::new(),
        lacking: false,
        unavailable: vec![],
        frozen: BTreeSet::new(),
        absent: BTreeSet::new(),
    };
    assert_eq!(built, nothing);
}

#[test]
fn what_is_not_known_yet_is_asked_for_all_at_once() {
    let manifests = format!("{SERVICES}\n---\n{}", ingress(&[("scheme", "internet-facing")], &everything()));
    let built = build_with(&manifests, &config(), &Facts::default());
    assert_eq!(built.stack, None);
    assert_eq!(built.diagnostics, []);
    assert_eq!(
        built.wants,
        [FactQuery::Subnets(discovered(Scheme::InternetFacing)), FactQuery::BackendSecurityGroup].into()
    );
}

#[test]
fn what_cannot_be_had_now_keeps_everything_as_it_is() {
    let manifests = format!("{SERVICES}\n---\n{}", ingress(&[], &everything()));
    let mut facts = facts();
    facts.subnets.insert(discovered(Scheme::Internal), Fact::Unavailable("DescribeSubnets: throttled".to_owned()));
    let built = build_with(&manifests, &config(), &facts);
    assert_eq!((built.stack, built.diagnostics), (None, vec![]));
    assert_eq!(built.unavailable, ["DescribeSubnets: throttled"]);
}

#[test]
fn the_shared_security_group_is_not_asked_for_where_it_is_given_or_not_used() {
    let manifests = format!("{SERVICES}\n---\n{}", ingress(&[("target-type", "ip")], &everything()));
    let facts = Facts { backend_security_group: None, ..facts() };
    let given = BuildConfig { backend_security_group: Some(SecurityGroupId::new("sg-given")), ..config() };
    let unused = BuildConfig { enable_backend_security_group: false, ..config() };
    let shared = SecurityGroupReference::SharedBackend(Value::Known(SecurityGroupId::new("sg-given")));
    for (config, groups, source) in [
        (given, vec![SecurityGroupReference::Managed, shared.clone()], shared),
        (unused, vec![SecurityGroupReference::Managed], SecurityGroupReference::Managed),
    ] {
        let stack = build_with(&manifests, &config, &facts).stack.unwrap();
        assert_eq!(stack.load_balancer.unwrap().security_groups, groups);
        assert_eq!(networking(&stack.target_groups[0].binding).0, Some(source));
    }
}

#[test]
fn offline_everything_is_known_after_apply_that_aws_or_the_cluster_decides() {
    let manifests = format!("{SERVICES}\n---\n{}", ingress(&[], &everything())).replace("uid: 1", "x: 1");
    let config = BuildConfig::new("", Value::AfterApply("the VPC of the cluster"));
    let stack = build_with(&manifests, &config, &Facts::offline()).stack.unwrap();
    let balancer = stack.load_balancer.unwrap();
    let group = &stack.target_groups[0];
    insta::assert_snapshot!(
        [
            balancer.name.to_string(),
            format!("{:?}", balancer.subnets),
            stack.security_group.unwrap().name.to_string(),
            group.name.to_string(),
            group.vpc.to_string()
        ]
        .join("\n"),
        @r#"
    (known after apply: named after the cluster, see --cluster-name)
    AfterApply("subnets are found by their tags in the VPC")
    (known after apply: named after the cluster, see --cluster-name)
    (known after apply: named after the Service's uid)
    (known after apply: the VPC of the cluster)
    "#
    );
}

#[test]
fn an_existing_load_balancer_keeps_its_subnets_unless_it_is_replaced() {
    let manifests = |scheme: &str| format!("{SERVICES}\n---\n{}", ingress(&[("scheme", scheme)], &everything()));
    let there = |scheme, subnet: &str| ExistingLoadBalancer {
        kind: LoadBalancerKind::Application,
        scheme,
        has_security_groups: true,
        has_ipv6: false,
        has_quic: false,
        customer_owned_pool: None,
        subnets: [SubnetId::new(subnet)].into(),
    };
    let names = ["edge".to_owned()].into();
    let mut facts = Facts { existing: Some(there(Scheme::Internal, "subnet-old")), names, ..Facts::default() };
    let config = BuildConfig { backend_security_group: Some(SecurityGroupId::new("sg-given")), ..config() };
    let kept = build_with(&manifests("internal"), &config, &facts).stack.unwrap().load_balancer.unwrap();
    assert_eq!(kept.subnets, Value::Known(vec![SubnetMapping::plain(SubnetId::new("subnet-old"))]));
    let replaced = build_with(&manifests("internet-facing"), &config, &facts);
    assert_eq!(messages(&replaced), "");
    assert_eq!(replaced.wants, [FactQuery::Subnets(discovered(Scheme::InternetFacing))].into());
    let named = |facts: &Facts| {
        let annotations = [("scheme", "internet-facing"), ("load-balancer-name", "edge")];
        messages(&build_with(&format!("{SERVICES}\n---\n{}", ingress(&annotations, &everything())), &config, facts))
    };
    facts.subnets = super::facts().subnets;
    insta::assert_snapshot!(named(&facts), @"Error replacement-needed on Ingress shop/web: alb.ingress.kubernetes.io/load-balancer-name: the scheme becomes internet-facing, which needs another load balancer, and two cannot have the name `edge` while one takes over from the other; give it another name too, or leave the scheme as it is");
    // Another name makes room for both, and so does the new one that is there already.
    assert_eq!(named(&Facts { names: ["other".to_owned()].into(), ..facts.clone() }), "");
    facts.other_existing.push(there(Scheme::InternetFacing, "subnet-new"));
    assert_eq!(named(&facts), "");
    let taking_over = build_with(&manifests("internet-facing"), &config, &facts).stack.unwrap().load_balancer.unwrap();
    assert_eq!(taking_over.subnets, Value::Known(vec![SubnetMapping::plain(SubnetId::new("subnet-new"))]));
}

#[test]
fn a_member_that_has_vanished_since_gives_no_stack_and_least_of_all_an_empty_one() {
    let mut cluster = snapshot(&format!("{SERVICES}\n---\n{}", ingress(&[], &everything())));
    let built = |snapshot: &Snapshot, members: &[ObjectName]| {
        let group = StackId::Ingress(web());
        build(snapshot, &config(), &facts(), &group, &Membership { members: members.to_vec(), ..Default::default() })
    };
    assert!(built(&cluster, &[web()]).stack.is_some());
    cluster.remove::<crate::snapshot::Ingress>(&web());
    let vanished = built(&cluster, &[web()]);
    assert_eq!((vanished.stack, vanished.diagnostics), (None, vec![]));
    assert_eq!(built(&cluster, &[]).stack, Some(Stack::empty(StackId::Ingress(web()))));
}
