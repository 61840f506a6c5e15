use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::*;
use crate::api::crd::target_group_binding::{IpBlock, NetworkingIngressRule, NetworkingPort, SecurityGroup};

fn from_group(id: &str) -> Peer {
    Peer { ip_block: None, security_group: Some(SecurityGroup { group_id: id.to_owned() }) }
}

fn from_block(cidr: &str) -> Peer {
    Peer { ip_block: Some(IpBlock { cidr: cidr.to_owned() }), security_group: None }
}

fn port(protocol: Option<NetworkingProtocol>, port: Option<IntOrString>) -> NetworkingPort {
    NetworkingPort { protocol, port }
}

fn number(number: i32) -> NetworkingPort {
    port(Some(NetworkingProtocol::Tcp), Some(IntOrString::Int(number)))
}

fn name(name: &str) -> NetworkingPort {
    port(None, Some(IntOrString::String(name.to_owned())))
}

fn networking(from: Vec<Peer>, ports: Vec<NetworkingPort>) -> Networking {
    Networking { ingress: Some(vec![NetworkingIngressRule { from, ports }]) }
}

fn place<'a>(group: &str, ports: &'a [PodPort]) -> TargetEndpoint<'a> {
    TargetEndpoint { security_group: SecurityGroupId::new(group), ports }
}

fn pod_port(name: &str, number: u16) -> PodPort {
    PodPort { name: name.to_owned(), number }
}

fn rule(protocol: &str, from: i32, to: i32, source: Source) -> SecurityGroupRule {
    SecurityGroupRule {
        protocol: protocol.to_owned(),
        from_port: Some(from),
        to_port: Some(to),
        source,
        description: NODE_RULE_DESCRIPTION.to_owned(),
    }
}

fn group(id: &str) -> Source {
    Source::SecurityGroup(SecurityGroupId::new(id))
}

fn rules(on: &[(&str, &[SecurityGroupRule])]) -> RulesByGroup {
    on.iter().map(|(id, rules)| (SecurityGroupId::new(*id), rules.iter().cloned().collect())).collect()
}

#[test]
fn a_binding_asks_for_rules_on_the_groups_of_its_targets() {
    let named = [pod_port("http", 8080), pod_port("http", 8081)];
    let later = [pod_port("http", 9090)];
    let udp = port(Some(NetworkingProtocol::Udp), Some(IntOrString::Int(53)));
    let v4 = || Source::Ipv4("10.1.0.0/16".into());
    for (case, from, ports, places, wanted) in [
        (
            "a number, on every group",
            vec![from_group("sg-lb")],
            vec![number(8080)],
            vec![place("sg-1", &[]), place("sg-1", &[]), place("sg-2", &[])],
            rules(&[
                ("sg-1", &[rule("tcp", 8080, 8080, group("sg-lb"))]),
                ("sg-2", &[rule("tcp", 8080, 8080, group("sg-lb"))]),
            ]),
        ),
        (
            "a name, by the pods of each group",
            vec![from_group("sg-lb")],
            vec![name("http")],
            vec![place("sg-1", &named), place("sg-2", &later), place("sg-3", &[])],
            rules(&[
                ("sg-1", &[rule("tcp", 8080, 8080, group("sg-lb")), rule("tcp", 8081, 8081, group("sg-lb"))]),
                ("sg-2", &[rule("tcp", 9090, 9090, group("sg-lb"))]),
            ]),
        ),
        (
            "every port",
            vec![from_group("sg-lb")],
            vec![port(None, None)],
            vec![place("sg-1", &[])],
            rules(&[("sg-1", &[rule("tcp", 0, 65_535, group("sg-lb"))])]),
        ),
        (
            "blocks, one of them with host bits, and UDP",
            vec![from_block("10.1.2.3/16"), from_block("2001:DB8::/32")],
            vec![udp],
            vec![place("sg-1", &[])],
            rules(&[("sg-1", &[rule("udp", 53, 53, v4()), rule("udp", 53, 53, Source::Ipv6("2001:db8::/32".into()))])]),
        ),
        ("no ports let nothing in", vec![from_group("sg-lb")], vec![], vec![place("sg-1", &[])], rules(&[])),
        ("no targets need nothing", vec![from_group("sg-lb")], vec![name("http")], vec![], rules(&[])),
    ] {
        let made = of_binding(&networking(from, ports), &places, true)
            .map(|made| made.into_iter().filter(|(_, rules)| !rules.is_empty()).collect::<RulesByGroup>());
        assert_eq!(made, Ok(wanted), "{case}");
    }
}

#[test]
fn networking_that_means_nothing_is_refused() {
    let lb = || vec![from_group("sg-lb")];
    let both = Peer { ip_block: from_block("10.0.0.0/8").ip_block, ..from_group("sg-lb") };
    for (from, ports, to_pods, error) in [
        (lb(), vec![name("http")], true, InvalidNetworking::UnknownPort("http".into())),
        (lb(), vec![name("http")], false, InvalidNetworking::NamedNodePort("http".into())),
        (vec![both], vec![number(80)], true, InvalidNetworking::Peer),
        (vec![Peer::default()], vec![number(80)], true, InvalidNetworking::Peer),
        (vec![from_block("10.0.0.0")], vec![number(80)], true, InvalidNetworking::Cidr("10.0.0.0".into())),
    ] {
        assert_eq!(of_binding(&networking(from, ports), &[place("sg-1", &[])], to_pods), Err(error));
    }
}

#[test]
fn ports_from_one_group_become_one_rule_unless_that_is_turned_off() {
    let block = Source::Ipv4("10.0.0.0/8".into());
    let one = rules(&[("sg-1", &[rule("tcp", 8080, 8080, group("sg-lb")), rule("tcp", 80, 80, block.clone())])]);
    let two = rules(&[
        ("sg-1", &[rule("tcp", 3000, 3000, group("sg-lb")), rule("udp", 53, 53, group("sg-lb"))]),
        ("sg-2", &[rule("tcp", 0, 65_535, group("sg-lb")), rule("tcp", 81, 81, group("sg-lb"))]),
    ]);
    let three = rules(&[("sg-1", &[rule("tcp", 9000, 9000, group("sg-other")), rule("tcp", 443, 443, block.clone())])]);
    let bindings = [one, two, three];
    let collapsed = rules(&[
        (
            "sg-1",
            &[
                rule("tcp", 3000, 8080, group("sg-lb")),
                rule("udp", 53, 53, group("sg-lb")),
                rule("tcp", 9000, 9000, group("sg-other")),
                rule("tcp", 80, 80, block.clone()),
                rule("tcp", 443, 443, block.clone()),
            ],
        ),
        ("sg-2", &[rule("tcp", 0, 65_535, group("sg-lb"))]),
    ]);
    assert_eq!(combine(bindings.clone(), true), collapsed);
    let distinct = rules(&[
        (
            "sg-1",
            &[
                rule("tcp", 8080, 8080, group("sg-lb")),
                rule("tcp", 3000, 3000, group("sg-lb")),
                rule("udp", 53, 53, group("sg-lb")),
                rule("tcp", 9000, 9000, group("sg-other")),
                rule("tcp", 80, 80, block.clone()),
                rule("tcp", 443, 443, block),
            ],
        ),
        ("sg-2", &[rule("tcp", 0, 65_535, group("sg-lb")), rule("tcp", 81, 81, group("sg-lb"))]),
    ]);
    assert_eq!(combine(bindings, false), distinct);
}

#[test]
fn only_our_rules_go() {
    let described = |mut rule: SecurityGroupRule, description: &str| {
        rule.description = description.to_owned();
        rule
    };
    let ours = |port| rule("tcp", port, port, group("sg-lb"));
    let theirs = described(ours(22), "ssh");
    let among_others = described(ours(83), "team=web,elbv2.k8s.aws/targetGroupBinding=shared");
    let like_ours = described(ours(84), "elbv2.k8s.aws/targetGroupBinding=shared2");
    let wanted = [ours(80), ours(81), ours(22)].into();
    let existing = [ours(81), ours(82), theirs, among_others.clone(), like_ours].into();
    let mut change = changes(&wanted, &existing);
    change.revoke.sort_by_key(|rule| rule.from_port);
    assert_eq!(change, RuleChange { authorize: vec![ours(80)], revoke: vec![ours(82), among_others] });
}

#[test]
fn the_endpoint_group_is_the_only_one_or_the_tagged_one() {
    let tags =
        |pairs: &[(&str, &str)]| -> Tags { pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect() };
    let groups = |all: &[(&str, Tags)]| -> BTreeMap<SecurityGroupId, Tags> {
        all.iter().map(|(id, tags)| (SecurityGroupId::new(*id), tags.clone())).collect()
    };
    let own = || tags(&[("kubernetes.io/cluster/demo", "owned")]);
    let both = || tags(&[("kubernetes.io/cluster/demo", "shared"), ("tier", "web")]);
    let none = Tags::new;
    let extra = tags(&[("tier", "web")]);
    for (case, all, extra, wanted) in [
        ("only one, whatever its tags", groups(&[("sg-1", none())]), &extra, "sg-1"),
        ("the cluster's", groups(&[("sg-1", none()), ("sg-2", own())]), &none(), "sg-2"),
        ("the cluster's with more tags", groups(&[("sg-1", own()), ("sg-2", both())]), &extra, "sg-2"),
    ] {
        assert_eq!(endpoint_security_group(&all, "demo", extra), Ok(SecurityGroupId::new(wanted)), "{case}");
    }
    let refusal = |all: &[(&str, Tags)], extra: &Tags| {
        let error = endpoint_security_group(&groups(all), "demo", extra).expect_err("there is one");
        format!("{error}\nfix: {}", error.fix())
    };
    insta::assert_snapshot!(refusal(&[("sg-1", none()), ("sg-2", none())], &extra), @"
    its network interface is in the security groups sg-1, sg-2, and none carries the tag kubernetes.io/cluster/demo, tier=web; exactly one must, for rules are added to it
    fix: add kubernetes.io/cluster/demo and tier=web to one of them
    ");
    insta::assert_snapshot!(refusal(&[("sg-1", own()), ("sg-2", own()), ("sg-3", none())], &none()), @"
    its network interface is in the security groups sg-1, sg-2, sg-3, and sg-1, sg-2 all carry the tag kubernetes.io/cluster/demo; exactly one must, for rules are added to it
    fix: keep kubernetes.io/cluster/demo on one of sg-1, sg-2
    ");
    insta::assert_snapshot!(refusal(&[], &none()), @"
    its network interface is in the security groups (none), and none carries the tag kubernetes.io/cluster/demo; exactly one must, for rules are added to it
    fix: put the network interface into a security group
    ");
}
