//! The Network Load Balancer in front of an Ingress's load balancer.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{facts::ExistingLoadBalancer, facts::FactQuery};

const ON: (&str, &str) = ("enable-frontend-nlb", "true");
const IP: (&str, &str) = ("target-type", "ip");
const PORTS: (&str, &str) = ("listen-ports", r#"[{"HTTP":80},{"HTTP":8080}]"#);

fn network(scheme: Scheme) -> SubnetQuery {
    SubnetQuery::Discovered { kind: LoadBalancerKind::Network, scheme, ipv6: false }
}

fn named(names: &[&str]) -> SubnetQuery {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    SubnetQuery::Named { kind: LoadBalancerKind::Network, names, ipv6: false }
}

fn facts() -> Facts {
    let mut facts = super::facts();
    let both = || Fact::Known(vec![subnet("subnet-a"), subnet("subnet-b")]);
    facts.subnets.extend([Scheme::Internal, Scheme::InternetFacing].map(|scheme| (network(scheme), both())));
    facts.subnets.insert(named(&["public-a", "public-b"]), both());
    facts.security_groups.insert(vec!["front".to_owned()], Fact::Known(vec![SecurityGroupId::new("sg-front")]));
    facts
}

fn built_of(annotations: &[(&str, &str)], facts: &Facts) -> Built {
    let manifest = ingress(&[&[IP], annotations].concat(), &everything());
    build_with(&format!("{SERVICES}\n---\n{manifest}"), &config(), facts)
}

fn pairs(map: &std::collections::BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

fn shown(front: &Frontend) -> String {
    let mut text = String::new();
    let balancer = &front.load_balancer;
    writeln!(text, "{} {} or {}, {}", balancer.name, balancer.scheme, front.second_name, balancer.ip_address_type)
        .unwrap();
    if let Value::Known(subnets) = &balancer.subnets {
        let subnet = |m: &SubnetMapping| {
            format!("{}{}", m.subnet, m.allocation.as_ref().map(|a| format!(" {a}")).unwrap_or_default())
        };
        writeln!(text, "in {}", subnets.iter().map(subnet).collect::<Vec<_>>().join(", ")).unwrap();
    }
    writeln!(text, "groups {:?}", balancer.security_groups).unwrap();
    writeln!(text, "attributes {} tags {}", pairs(&balancer.attributes), pairs(&balancer.tags)).unwrap();
    for (port, listener) in &front.listeners {
        let group = &listener.target_group;
        let check = &group.health_check;
        writeln!(text, "{port} to {} by {} {}:{}", listener.target_port, group.resource, group.name, group.port)
            .unwrap();
        writeln!(
            text,
            "  checked {} {} {:?} every {} in {}, {}/{}, {:?}",
            check.protocol,
            check.port,
            check.path,
            check.interval_seconds,
            check.timeout_seconds,
            check.healthy_threshold,
            check.unhealthy_threshold,
            check.matcher
        )
        .unwrap();
        writeln!(text, "  tags {} and {}", pairs(&listener.tags), pairs(&group.tags)).unwrap();
    }
    text.lines().fold(String::new(), |all, line| all + line.trim_end() + "\n")
}

fn front(annotations: &[(&str, &str)]) -> Frontend {
    let built = built_of(annotations, &facts());
    assert_eq!(messages(&built), "");
    *built.stack.unwrap().frontend.unwrap()
}

fn told(annotations: &[(&str, &str)]) -> String {
    messages(&built_of(annotations, &facts()))
}

#[test]
fn by_its_switch_alone() {
    insta::assert_snapshot!(shown(&front(&[ON, ("scheme", "internet-facing"), ("tags", "team=a")])), @r#"
    k8s-shop-web-17d71bc701-nlb internal or k8s-shop-web-17d71bc-324deb7-nlb, ipv4
    in subnet-a, subnet-b
    groups [Managed, SharedBackend(Known(SecurityGroupId("sg-shared")))]
    attributes  tags elbv2.k8s.aws/cluster=demo ingress.k8s.aws/resource=FrontendNlb ingress.k8s.aws/stack=shop/web team=a
    80 to 80 by FrontendNlb-tg-TCP-80 k8s-shop-web-39db3f47ad:80
      checked HTTP traffic-port Some("/") every 15 in 5, 2/2, Some(Http("200"))
      tags elbv2.k8s.aws/cluster=demo ingress.k8s.aws/resource=FrontendNlb-ls-TCP-80 ingress.k8s.aws/stack=shop/web team=a and elbv2.k8s.aws/cluster=demo ingress.k8s.aws/resource=FrontendNlb-tg-TCP-80 ingress.k8s.aws/stack=shop/web team=a
    "#);
    assert_eq!(built_of(&[("enable-frontend-nlb", "false")], &facts()).stack.unwrap().frontend, None);
}

#[test]
fn with_every_setting() {
    let all = [
        ON,
        PORTS,
        ("tags", "team=a"),
        ("frontend-nlb-scheme", "internet-facing"),
        ("frontend-nlb-subnets", "public-a,public-b"),
        ("frontend-nlb-security-groups", "front"),
        ("frontend-nlb-listener-port-mapping", "81=80,8080=8080"),
        ("frontend-nlb-eip-allocations", "eipalloc-1,eipalloc-2"),
        ("frontend-nlb-healthcheck-port", "8080"),
        ("frontend-nlb-healthcheck-protocol", "HTTPS"),
        ("frontend-nlb-healthcheck-path", "/up"),
        ("frontend-nlb-healthcheck-interval-seconds", "20"),
        ("frontend-nlb-healthcheck-timeout-seconds", "6"),
        ("frontend-nlb-healthcheck-healthy-threshold-count", "4"),
        ("frontend-nlb-healthcheck-unhealthy-threshold-count", "5"),
        ("frontend-nlb-healthcheck-success-codes", "200-299"),
        ("frontend-nlb-attributes", "load_balancing.cross_zone.enabled=true"),
        ("frontend-nlb-tags", "front=nlb"),
    ];
    insta::assert_snapshot!(shown(&front(&all)), @r#"
    k8s-shop-web-63400ea3d5-nlb internet-facing or k8s-shop-web-63400ea-fe0d7c2-nlb, ipv4
    in subnet-a eipalloc-1, subnet-b eipalloc-2
    groups [Given(Known(SecurityGroupId("sg-front")))]
    attributes load_balancing.cross_zone.enabled=true tags elbv2.k8s.aws/cluster=demo front=nlb ingress.k8s.aws/resource=FrontendNlb ingress.k8s.aws/stack=shop/web
    81 to 80 by FrontendNlb-tg-TCP-81 k8s-shop-web-27eb076df6:81
      checked HTTPS 8080 Some("/up") every 20 in 6, 4/5, Some(Http("200-299"))
      tags elbv2.k8s.aws/cluster=demo front=nlb ingress.k8s.aws/resource=FrontendNlb-ls-TCP-81 ingress.k8s.aws/stack=shop/web and elbv2.k8s.aws/cluster=demo front=nlb ingress.k8s.aws/resource=FrontendNlb-tg-TCP-81 ingress.k8s.aws/stack=shop/web
    8080 to 8080 by FrontendNlb-tg-TCP-8080 k8s-shop-web-200a522184:8080
      checked HTTPS 8080 Some("/up") every 20 in 6, 4/5, Some(Http("200-299"))
      tags elbv2.k8s.aws/cluster=demo front=nlb ingress.k8s.aws/resource=FrontendNlb-ls-TCP-8080 ingress.k8s.aws/stack=shop/web and elbv2.k8s.aws/cluster=demo front=nlb ingress.k8s.aws/resource=FrontendNlb-tg-TCP-8080 ingress.k8s.aws/stack=shop/web
    "#);
}

#[test]
fn its_facts_are_asked_for_and_its_subnets_stay() {
    let built = built_of(&[ON], &super::facts());
    assert_eq!(built.wants, [FactQuery::Subnets(network(Scheme::Internal))].into());
    let subnets = ["subnet-x"].map(SubnetId::new).into();
    let kind = LoadBalancerKind::Network;
    let scheme = Scheme::Internal;
    let existing = ExistingLoadBalancer {
        kind,
        scheme,
        has_security_groups: true,
        has_ipv6: false,
        has_quic: false,
        subnets,
        customer_owned_pool: None,
    };
    let facts = Facts { frontend: vec![existing], ..facts() };
    assert_eq!(built_of(&[ON], &facts).wants, [FactQuery::Subnets(named(&["subnet-x"]))].into());
}

#[test]
fn what_is_wrong_with_it() {
    insta::assert_snapshot!(told(&[ON, ("frontend-nlb-subnets", "")]), @"Error subnets on Ingress shop/web: alb.ingress.kubernetes.io/frontend-nlb-subnets: the list of subnets is empty; name subnets by identifier or `Name` tag, or remove the annotation to have them found by their tags");
    insta::assert_snapshot!(told(&[ON, ("frontend-nlb-eip-allocations", "eipalloc-1,eipalloc-2")]), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/frontend-nlb-eip-allocations: elastic addresses are for internet-facing load balancers, and the Network Load Balancer in front is internal; write `alb.ingress.kubernetes.io/frontend-nlb-scheme: internet-facing`, or remove the annotation");
    let public = ("frontend-nlb-scheme", "internet-facing");
    insta::assert_snapshot!(told(&[ON, public, ("frontend-nlb-eip-allocations", "eipalloc-1")]), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/frontend-nlb-eip-allocations: 1 elastic addresses are named for 2 subnets; name one elastic address for each subnet, in their order, or other subnets in `alb.ingress.kubernetes.io/frontend-nlb-subnets`: those that it has are kept");
    insta::assert_snapshot!(told(&[ON, ("frontend-nlb-listener-port-mapping", "http=80,0=80")]), @r"
    Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/frontend-nlb-listener-port-mapping: `0=80` does not map one port to another; write `<port in front>=<port behind>`, with ports from 1 to 65535
    Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/frontend-nlb-listener-port-mapping: `http=80` does not map one port to another; write `<port in front>=<port behind>`, with ports from 1 to 65535
    ");
    insta::assert_snapshot!(told(&[ON, ("frontend-nlb-listener-port-mapping", "443=443,80=80")]), @"Warning no-effect on Ingress shop/web: alb.ingress.kubernetes.io/frontend-nlb-listener-port-mapping: `443=443` has no effect: the Ingress has no listener on port 443; it has `80`; map to one of its listeners, or add the port to `listen-ports`");
    insta::assert_snapshot!(told(&[ON, ("frontend-nlb-listener-port-mapping", "8080=80")]), @"Warning unsupported on Ingress shop/web: alb.ingress.kubernetes.io/frontend-nlb-listener-port-mapping: clients do not reach port 8080 of the Network Load Balancer in front: the security group that the controller manages is only open at the ports of the load balancer behind; name security groups that allow it in `alb.ingress.kubernetes.io/frontend-nlb-security-groups`, or map from a port that has a listener behind");
    insta::assert_snapshot!(told(&[ON, ("frontend-nlb-attributes", "dns_record.client_routing_policy=near")]), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/frontend-nlb-attributes: `dns_record.client_routing_policy=near` is not a policy of AWS; write `any_availability_zone`, `partial_availability_zone_affinity`, `availability_zone_affinity`");
    insta::assert_snapshot!(told(&[ON, ("frontend-nlb-scheme", "public")]), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/frontend-nlb-scheme` has the value `public`; allowed: `internal` or `internet-facing`");
    insta::assert_snapshot!(told(&[("frontend-nlb-scheme", "internal"), ("frontend-nlb-tags", "a=b")]), @r#"
    Warning no-effect on Ingress shop/web: alb.ingress.kubernetes.io/frontend-nlb-scheme: the annotation has no effect: there is no Network Load Balancer in front; write `alb.ingress.kubernetes.io/enable-frontend-nlb: "true"`, or remove the annotation
    Warning no-effect on Ingress shop/web: alb.ingress.kubernetes.io/frontend-nlb-tags: the annotation has no effect: there is no Network Load Balancer in front; write `alb.ingress.kubernetes.io/enable-frontend-nlb: "true"`, or remove the annotation
    "#);
}

fn member(name: &str, annotations: &[(&str, &str)]) -> String {
    let annotations = [&[("group.name", "edge"), IP], annotations].concat();
    let spec = format!("  rules:\n{}", rules("", &[("Exact", &format!("/{name}"), "web", "80")]));
    ingress(&annotations, &spec).replace("  name: web\n  namespace", &format!("  name: {name}\n  namespace"))
}

fn built_group(members: &[String], facts: &Facts) -> Built {
    let snapshot = snapshot(&format!("{SERVICES}\n---\n{}", members.join("\n---\n")));
    let group = StackId::Group("edge".to_owned());
    let membership = super::super::membership(&snapshot, &config(), &group);
    build(&snapshot, &config(), facts, &group, &membership)
}

/// Returns the facts of a group that has one in front, and members that hold resources.
fn fronted(members: &[&str], change: impl FnOnce(&mut ObservedStack)) -> Facts {
    let existing = ExistingLoadBalancer {
        kind: LoadBalancerKind::Network,
        scheme: Scheme::InternetFacing,
        has_security_groups: true,
        has_ipv6: false,
        has_quic: false,
        subnets: ["subnet-a", "subnet-b"].map(SubnetId::new).into(),
        customer_owned_pool: None,
    };
    let mut facts = super::groups::current(|observed| {
        observed.member_resources.extend(members.iter().map(|name| MemberResources {
            member: ObjectReference::ingress(&ObjectName::new("shop", *name)),
            rules: BTreeSet::new(),
            ports: BTreeMap::new(),
        }));
        change(observed);
    });
    let Facts { subnets, security_groups, .. } = self::facts();
    facts.subnets.extend(subnets);
    let kept = vec![subnet("subnet-a"), subnet("subnet-b")];
    facts.subnets.insert(named(&["subnet-a", "subnet-b"]), Fact::Known(kept));
    facts.security_groups.extend(security_groups);
    Facts { frontend: vec![existing], ..facts }
}

/// Its settings are not known, and a default one would move what is in front.
#[test]
fn what_a_frozen_member_may_have_requested_stays() {
    let public = ("frontend-nlb-scheme", "internet-facing");
    let broken = ("listen-ports", "nonsense");
    let members = [member("a", &[ON, public, broken]), member("b", &[ON])];
    for holders in [&["a", "b"][..], &[]] {
        let built = built_group(&members, &fronted(holders, |_| ()));
        assert_eq!(
            built.frozen.iter().map(|name| name.name.as_str()).collect::<Vec<_>>(),
            ["a"],
            "{}",
            messages(&built)
        );
        assert_eq!(built.stack.unwrap().frontend, None);
    }
    // It never had a part of it.
    let built = built_group(&members, &fronted(&["b"], |_| ()));
    assert!(built.stack.unwrap().frontend.is_some());
}

/// The annotation of each load balancer releases that one.
#[test]
fn what_is_protected_in_front_is_released_by_its_own_annotation() {
    let off = |key: &'static str| (key, "deletion_protection.enabled=false");
    let (front, behind) = (off("frontend-nlb-attributes"), off("load-balancer-attributes"));
    let facts = |names: &[&str]| Facts {
        protected: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        names: ["edge".to_owned()].into(),
        ..fronted(&["a"], |_| ())
    };
    let deleted = |annotations: &[(&str, &str)]| {
        let held = "  generation: 7\n  finalizers: [group.ingress.k8s.aws/edge]\n  deletionTimestamp: '2026-01-01T00:00:00Z'\n";
        member("a", annotations).replace("  generation: 7\n", held)
    };
    let released = |annotations: &[(&str, &str)], names: &[&str]| {
        let built = built_group(&[deleted(annotations)], &facts(names));
        built.stack.map(|stack| (stack.unprotect, stack.unprotect_frontend))
    };
    assert_eq!(released(&[ON, behind], &["edge-nlb"]), None);
    assert_eq!(released(&[ON, front], &["edge-nlb"]), Some((false, true)));
    assert_eq!(released(&[ON, front], &["edge"]), None);
    assert_eq!(released(&[ON, front, behind], &["edge", "edge-nlb"]), Some((true, true)));
    let built = built_group(&[deleted(&[ON, behind])], &facts(&["edge-nlb"]));
    insta::assert_snapshot!(messages(&built), @"Error refused on Ingress shop/a: alb.ingress.kubernetes.io/frontend-nlb-attributes: the load balancer `edge-nlb` is protected from deletion in AWS (`deletion_protection.enabled`), so it stays, and the Ingress with it; write `deletion_protection.enabled=false` in the annotation, or switch the protection off in AWS, if the load balancer may be deleted");
    // Switched off.
    let gone = built_group(&[member("a", &[front])], &facts(&[]));
    assert_eq!(messages(&gone), "");
    assert!(gone.stack.unwrap().unprotect_frontend);
    assert!(!built_group(&[member("a", &[behind])], &facts(&[])).stack.unwrap().unprotect_frontend);
}

/// Whoever comes first in the order.
#[test]
fn a_newcomer_does_not_take_over_what_is_in_front() {
    let present = |observed: &mut ObservedStack| {
        let mut front = observed.load_balancers[0].clone();
        (front.kind, front.scheme) = (LoadBalancerKind::Network, Scheme::InternetFacing);
        front.subnets = ["subnet-a", "subnet-b"].map(SubnetId::new).into();
        front.security_groups = [SecurityGroupId::new("sg-front")].into();
        front.attributes = Some([("load_balancing.cross_zone.enabled".to_owned(), "true".to_owned())].into());
        front.tags.insert("front".to_owned(), "nlb".to_owned());
        let listener = front.listeners.as_mut().unwrap().get_mut(&80).unwrap();
        let group = TargetGroupArn::new("arn:t/front");
        let led_to = WeightedTargetGroup { group: group.clone(), weight: None };
        listener.default_actions = vec![Action::Forward { target_groups: vec![led_to], stickiness: None }];
        let target = LoadBalancerTarget { load_balancer: observed.load_balancers[0].arn.clone(), port: 80 };
        observed.frontend.targets.insert(group, [target].into());
        observed.frontend.load_balancers.push(front);
    };
    let mut facts = fronted(&["b"], present);
    facts.security_groups.insert(vec!["sg-front".to_owned()], Fact::Known(vec![SecurityGroupId::new("sg-front")]));
    let both = vec![subnet("subnet-b"), subnet("subnet-a")];
    facts.subnets.insert(named(&["subnet-b", "subnet-a"]), Fact::Known(both));
    for (setting, theirs, newcomers) in [
        ("frontend-nlb-listener-port-mapping", "80=80", "80=8080"),
        ("frontend-nlb-scheme", "internet-facing", "internal"),
        ("frontend-nlb-security-groups", "sg-front", "front"),
        ("frontend-nlb-subnets", "subnet-b,subnet-a", "public-a,public-b"),
        (
            "frontend-nlb-attributes",
            "load_balancing.cross_zone.enabled=true",
            "load_balancing.cross_zone.enabled=false",
        ),
        ("frontend-nlb-tags", "front=nlb", "front=other"),
    ] {
        let members = [member("a", &[ON, PORTS, (setting, newcomers)]), member("b", &[ON, PORTS, (setting, theirs)])];
        let built = built_group(&members, &facts);
        let frozen: Vec<&str> = built.frozen.iter().map(|name| name.name.as_str()).collect();
        assert_eq!(frozen, ["a"], "{setting}: {}", messages(&built));
    }
}

#[test]
fn a_group_has_one_in_front_for_the_ports_of_all_its_members() {
    let built = |members: &[String]| built_group(members, &facts());
    let both = built(&[
        member("a", &[ON, ("frontend-nlb-listener-port-mapping", "81=80"), ("frontend-nlb-security-groups", "front")]),
        member("b", &[("listen-ports", r#"[{"HTTP":8080}]"#)]),
    ]);
    assert_eq!(messages(&both), "");
    let ports: Vec<(u16, u16)> =
        both.stack.unwrap().frontend.unwrap().listeners.iter().map(|(port, l)| (*port, l.target_port)).collect();
    assert_eq!(ports, [(81, 80), (8080, 8080)]);
    let differ = built(&[
        member("a", &[ON, ("frontend-nlb-scheme", "internal"), ("frontend-nlb-listener-port-mapping", "80=80")]),
        member(
            "b",
            &[PORTS, ("frontend-nlb-scheme", "internet-facing"), ("frontend-nlb-listener-port-mapping", "80=8080")],
        ),
    ]);
    insta::assert_snapshot!(messages(&differ), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/frontend-nlb-scheme: the scheme of the Network Load Balancer in front should be `internet-facing`, but a group has only one: `internal`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
}
