//! Several Ingresses, one load balancer.

mod add_ons;
mod frozen;
mod limits;
mod pools;

use std::collections::BTreeSet;

use super::*;
use crate::{
    desired::sources::ingress::{groups_of, membership},
    facts::{ExistingLoadBalancer, FactQuery, limits::Limits},
};

fn edge() -> StackId {
    StackId::Group("edge".to_owned())
}

fn name(member: &str) -> ObjectName {
    ObjectName::new("shop", member)
}

/// A member of the group `edge` with one path, `/<name>`, to `web`.
fn member(name: &str, annotations: &[(&str, &str)]) -> String {
    let annotations = [&[("group.name", "edge"), ("target-type", "ip")], annotations].concat();
    let spec = format!("  rules:\n{}", rules("", &[("Exact", &format!("/{name}"), "web", "80")]));
    ingress(&annotations, &spec).replace("  name: web\n  namespace", &format!("  name: {name}\n  namespace"))
}

fn cluster(members: &[String]) -> Snapshot {
    snapshot(&format!("{SERVICES}\n---\n{}", members.join("\n---\n")))
}

fn built_of(members: &[String], facts: &Facts) -> Built {
    let snapshot = cluster(members);
    build(&snapshot, &config(), facts, &edge(), &membership(&snapshot, &config(), &edge()))
}

/// Returns the routes and the diagnostics.
fn shown(built: &Built) -> String {
    let frozen: Vec<String> = built.frozen.iter().map(ToString::to_string).collect();
    let frozen = if frozen.is_empty() { String::new() } else { format!("frozen: {}\n", frozen.join(", ")) };
    format!("{}{frozen}{}", built.stack.as_ref().map(routes).unwrap_or_default(), messages(built))
}

/// Returns the observed stack of the group: an internal load balancer on port 80 that the members hold as given.
pub(super) fn current(change: impl FnOnce(&mut ObservedStack)) -> Facts {
    let listener = ObservedListener {
        arn: ListenerArn::new("arn:listener/80"),
        port: 80,
        protocol: Some(ListenerProtocol::Http),
        default_actions: vec![],
        default_certificate: None,
        certificates: BTreeSet::new(),
        ssl_policy: None,
        alpn_policy: None,
        mutual_authentication: None,
        attributes: None,
        tags: Tags::new(),
        rules: vec![],
    };
    let mut observed = ObservedStack {
        load_balancers: vec![ObservedLoadBalancer {
            arn: LoadBalancerArn::new("arn:lb"),
            name: "edge".to_owned(),
            kind: LoadBalancerKind::Application,
            dns_name: "edge.example.com".to_owned(),
            scheme: Scheme::Internal,
            ip_address_type: IpAddressType::Ipv4,
            network: ObservedNetworkSettings::default(),
            pools: ObservedPools::default(),
            state: LoadBalancerState::Active,
            subnets: [SubnetId::new("subnet-a")].into(),
            security_groups: [SecurityGroupId::new("sg-own"), SecurityGroupId::new("sg-shared")].into(),
            attributes: None,
            tags: Tags::new(),
            listeners: Some([(80, listener)].into()),
            add_ons: ObservedAddOns::default(),
        }],
        security_groups: vec![ObservedSecurityGroup {
            id: SecurityGroupId::new("sg-own"),
            name: "own".to_owned(),
            tags: Tags::new(),
            ingress: BTreeSet::new(),
        }],
        ..ObservedStack::default()
    };
    change(&mut observed);
    let balancer = &observed.load_balancers[0];
    let existing = ExistingLoadBalancer {
        kind: balancer.kind,
        scheme: balancer.scheme,
        has_security_groups: true,
        has_ipv6: false,
        has_quic: false,
        customer_owned_pool: None,
        subnets: balancer.subnets.clone(),
    };
    let hostnames = [balancer.dns_name.clone()].into();
    Facts { existing: Some(existing), current: Some(Box::new(observed)), hostnames, ..facts() }
}

/// An Ingress whose status names the load balancer of [`current`].
fn published(text: &str) -> String {
    format!("{text}status: {{loadBalancer: {{ingress: [{{hostname: edge.example.com}}]}}}}\n")
}

/// Returns what is remembered of a member that has these listeners.
fn resources(member: &str, ports: &[u16]) -> MemberResources {
    let ports = ports.iter().map(|port| (*port, ListenerResources::default())).collect();
    MemberResources { member: ObjectReference::ingress(&name(member)), rules: BTreeSet::new(), ports }
}

#[test]
fn members_share_a_load_balancer_in_the_order_of_the_group() {
    let members = [
        member("b", &[("listen-ports", r#"[{"HTTP": 80}, {"HTTP": 8080}]"#), ("tags", "team=b")]),
        member("a", &[("tags", "cost=1")]),
        member("first", &[("group.order", "-1"), ("load-balancer-attributes", "idle_timeout.timeout_seconds=30")]),
    ];
    let built = built_of(&members, &facts());
    insta::assert_snapshot!(shown(&built), @r"
    HTTP 80: 404 -
      /first -> shop/first-web:80
      /a -> shop/a-web:80
      /b -> shop/b-web:80
    HTTP 8080: 404 -
      /b -> shop/b-web:80
    ");
    let stack = built.stack.unwrap();
    let balancer = stack.load_balancer.unwrap();
    assert!(balancer.name.known().unwrap().as_str().starts_with("k8s-edge-"), "{:?}", balancer.name);
    assert_eq!(balancer.attributes["idle_timeout.timeout_seconds"], "30");
    assert_eq!(balancer.attribute_causes["idle_timeout.timeout_seconds"].object.name, name("first"));
    assert_eq!(
        (
            balancer.tags["team"].as_str(),
            balancer.tags["cost"].as_str(),
            balancer.tags["ingress.k8s.aws/stack"].as_str()
        ),
        ("b", "1", "edge")
    );
    assert_eq!(stack.listeners[&8080].tags.get("cost"), None);
    assert_eq!(
        stack.target_groups.keys().map(|id| id.as_str()).collect::<Vec<_>>(),
        ["shop/first-web:80", "shop/a-web:80", "shop/b-web:80"]
    );
}

#[test]
fn certificates_come_together_and_the_first_member_gives_the_default() {
    let arn = |id: &str| format!("arn:aws:acm:eu-west-1:111122223333:certificate/{id}");
    let (b, a) = (format!("{},{}", arn("m"), arn("c")), arn("a"));
    let members = [
        member("b", &[("certificate-arn", &b), ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#)]),
        member("c", &[("certificate-arn", &a), ("ssl-redirect", "443")]),
        member("d", &[]),
    ];
    let built = built_of(&members, &facts());
    insta::assert_snapshot!(shown(&built), @r"
    HTTP 80: HTTP_301 HTTPS - 443 - -
    HTTPS 443: 404 -
      /b -> shop/b-web:80
      /c -> shop/c-web:80
    ");
    let tls = built.stack.unwrap().listeners.remove(&443).unwrap();
    assert_eq!(tls.default_certificate, Some(CertificateArn::new(arn("m"))));
    assert_eq!(tls.certificates, [CertificateArn::new(arn("a")), CertificateArn::new(arn("c"))].into());
    assert_eq!(tls.shares[&ObjectReference::ingress(&name("c"))].certificates, [CertificateArn::new(arn("a"))].into());
}

#[test]
fn among_newcomers_the_order_of_the_group_decides_and_the_loser_alone_is_told() {
    let conflict = |first: &[(&str, &str)], second: &[(&str, &str)]| {
        let built = built_of(&[member("a", first), member("b", second), member("c", &[])], &facts());
        assert_eq!(built.frozen, [name("b")].into());
        let stack = built.stack.as_ref().unwrap();
        assert_eq!(stack.frozen.order, ["a", "b", "c"].map(|member| ObjectReference::ingress(&name(member))));
        assert!(stack.target_groups.keys().all(|id| !id.as_str().starts_with("shop/b-")));
        messages(&built)
    };
    insta::assert_snapshot!(conflict(&[("scheme", "internet-facing")], &[("scheme", "internal")]), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/scheme: the scheme should be `internal`, but a group has only one: `internet-facing`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
    insta::assert_snapshot!(conflict(&[("load-balancer-name", "one")], &[("load-balancer-name", "two")]), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/load-balancer-name: the load balancer's name should be `two`, but a group has only one: `one`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
    insta::assert_snapshot!(conflict(&[("inbound-cidrs", "10.0.0.0/8")], &[("inbound-cidrs", "192.0.2.0/24")]), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/inbound-cidrs: the access to port 80 should be `192.0.2.0/24`, but a group has only one: `10.0.0.0/8`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
    insta::assert_snapshot!(conflict(&[("tags", "a=1")], &[("tags", "a=2,b=3")]), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/tags: `a` should be `2`, but a group has only one: `1`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
    insta::assert_snapshot!(conflict(&[], &[("listen-ports", r#"[{"HTTPS": 80}]"#)]), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/listen-ports: the protocol of port 80 should be `HTTPS`, but a group has only one: `HTTP`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
    let clients = |mode: &str| format!(r#"[{{"port": 443, "mode": "{mode}"}}]"#);
    let (off, passthrough) = (clients("off"), clients("passthrough"));
    let secure = [
        ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#),
        ("certificate-arn", "arn:aws:acm:eu-west-1:111122223333:certificate/a"),
    ];
    let with = |mutual: &str| {
        conflict(
            &[&secure[..], &[("mutual-authentication", off.as_str())]].concat(),
            &[&secure[..], &[("mutual-authentication", mutual)]].concat(),
        )
    };
    insta::assert_snapshot!(with(&passthrough), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/mutual-authentication: the mutual authentication on port 443 should be `passthrough`, but a group has only one: `off`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
    insta::assert_snapshot!(conflict(&[], &[("ssl-redirect", "443")]), @r#"Error invalid-value on Ingress shop/b: alb.ingress.kubernetes.io/ssl-redirect: requests would be redirected to port 443, which is not an HTTPS listener of this group; add {"HTTPS": 443} to `alb.ingress.kubernetes.io/listen-ports`, or name one of its HTTPS ports"#);
    insta::assert_snapshot!(conflict(&[], &[("scheme", "public")]), @"Error invalid-value on Ingress shop/b: annotation `alb.ingress.kubernetes.io/scheme` has the value `public`; allowed: `internal` or `internet-facing`");
    insta::assert_snapshot!(conflict(&[("load-balancer-attributes", "a=1")], &[("load-balancer-attributes", "a=2")]), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/load-balancer-attributes: `a` should be `2`, but a group has only one: `1`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
}

#[test]
fn two_default_backends_on_one_port() {
    let default = |name: &str| member(name, &[]) + &format!("  defaultBackend: {}\n", backend("api", "http"));
    let built = built_of(&[default("a"), default("b")], &facts());
    insta::assert_snapshot!(shown(&built), @"
    HTTP 80: shop/a-api:http
      /a -> shop/a-web:80
    frozen: shop/b
    Error conflict on Ingress shop/b: spec.defaultBackend: the default backend of port 80 should be that of Ingress shop/b, but a group has only one: that of Ingress shop/a, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    ");
    let holds = MemberResources {
        member: ObjectReference::ingress(&name("b")),
        rules: BTreeSet::new(),
        ports: [(80, ListenerResources { default_action: true, ..ListenerResources::default() })].into(),
    };
    let built = built_of(&[default("a"), default("b")], &current(|observed| observed.member_resources.push(holds)));
    insta::assert_snapshot!(shown(&built), @"
    HTTP 80: shop/b-api:http
      /b -> shop/b-web:80
    frozen: shop/a
    Error conflict on Ingress shop/a: spec.defaultBackend: the default backend of port 80 should be that of Ingress shop/a, but a group has only one: that of Ingress shop/b, which the load balancer of the group has, and Ingress shop/b requests; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    ");
}

#[test]
fn what_the_load_balancer_has_wins_as_long_as_somebody_asks_for_it() {
    let members = |first: &str, second: &str| [member("a", &[("scheme", first)]), member("b", &[("scheme", second)])];
    let built = built_of(&members("internet-facing", "internal"), &current(|_| ()));
    insta::assert_snapshot!(shown(&built), @"
    HTTP 80: 404 -
      /b -> shop/b-web:80
    frozen: shop/a
    Error conflict on Ingress shop/a: alb.ingress.kubernetes.io/scheme: the scheme should be `internet-facing`, but a group has only one: `internal`, which the load balancer of the group has, and Ingress shop/b requests; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    ");
    // The build requests the observed state before it reports anything.
    let unknown = Facts { current: None, ..current(|_| ()) };
    let built = built_of(&members("internet-facing", "internal"), &unknown);
    assert_eq!((built.stack, built.diagnostics, built.wants), (None, vec![], [FactQuery::Current].into()));
}

#[test]
fn a_rule_that_another_member_hides_is_told() {
    let same = |name: &str| member(name, &[]).replace(&format!("path: \"/{name}\""), "path: \"/same\"");
    insta::assert_snapshot!(shown(&built_of(&[same("a"), same("b")], &facts())), @"
    HTTP 80: 404 -
      /same -> shop/a-web:80
      /same -> shop/b-web:80
    Warning conflict on Ingress shop/b: on port 80 Ingress shop/a takes the same requests first (spec.rules[0].http.paths[0]), so this rule gets none; remove one of the two, or change their order with `alb.ingress.kubernetes.io/group.order`
    ");
}

#[test]
fn names_that_run_together_are_told_apart() {
    let services = "apiVersion: v1\nkind: Service\nmetadata: {name: x-web, namespace: shop, uid: '3'}\nspec: {ports: [{port: 80}]}\n---\n";
    let other = member("a", &[]).replace("name: web,", "name: x-web,");
    let snapshot = snapshot(&format!("{services}{SERVICES}\n---\n{other}\n---\n{}", member("a-x", &[])));
    let built = build(&snapshot, &config(), &facts(), &edge(), &membership(&snapshot, &config(), &edge()));
    insta::assert_snapshot!(shown(&built), @"
    HTTP 80: 404 -
      /a -> shop/a-x-web:80
    frozen: shop/a-x
    Error conflict on Ingress shop/a-x: metadata.name: its target group would be called `shop/a-x-web:80` within the group, as one of Ingress shop/a is; rename the Ingress or its Service
    ");
}

#[test]
fn who_belongs_to_a_group() {
    let held =
        |group: &str, text: &str| text.replace("  annotations:", &format!("  finalizers: [{group}]\n  annotations:"));
    let members = [
        member("a", &[]),
        held(
            "group.ingress.k8s.aws/edge",
            &member("moved", &[]).replace("group.name: \"edge\"", "group.name: \"other\""),
        ),
        held("group.ingress.k8s.aws/edge", &member("alone", &[]).replace("group.name: \"edge\"", "owner: x")),
        held(
            "group.ingress.k8s.aws/edge",
            &member("misnamed", &[]).replace("group.name: \"edge\"", "group.name: \"Edge!\""),
        ),
        held(
            "group.ingress.k8s.aws/edge",
            &member("classless", &[]).replace("ingressClassName: alb", "ingressClassName: gone"),
        ),
        held("group.ingress.k8s.aws/edge", &member("foreign", &[("kubernetes.io/ingress.class", "nginx")])),
        member("unordered", &[("group.order", "last")]),
    ];
    let snapshot = cluster(&members);
    let found = membership(&snapshot, &config(), &edge());
    let names =
        |names: &mut dyn Iterator<Item = &ObjectName>| names.map(|n| n.name.clone()).collect::<Vec<_>>().join(" ");
    insta::assert_snapshot!(format!(
        "members {}\nkept {}\nleaving {}\nmoving {}\n{}",
        names(&mut found.members.iter()),
        names(&mut found.frozen.iter()),
        names(&mut found.leaving.iter()),
        names(&mut found.moving.iter()),
        found.broken.iter().map(|d| format!("{}: {d}", d.object)).collect::<Vec<_>>().join("\n")
    ), @"
    members a classless misnamed unordered
    kept classless misnamed unordered
    leaving alone foreign moved
    moving alone moved
    Ingress shop/classless: spec.ingressClassName: the IngressClass `gone` does not exist; create it, or name another class
    Ingress shop/misnamed: alb.ingress.kubernetes.io/group.name: `Edge!` is not a valid name of a group; write at most 63 of `a-z`, `0-9`, `-` and `.`, beginning and ending with a letter or digit
    Ingress shop/unordered: annotation `alb.ingress.kubernetes.io/group.order` has the value `last`; allowed: a whole number from -1000 to 1000
    ");
    assert_eq!(
        groups_of(&snapshot.ingresses[&name("moved")], &snapshot),
        [StackId::Group("other".to_owned()), edge(), StackId::Ingress(name("moved"))].into()
    );
    let alone = membership(&snapshot, &config(), &StackId::Ingress(name("alone")));
    assert_eq!(alone.members, [name("alone")]);
}

#[test]
fn equal_orders_follow_namespace_and_name_as_one_text() {
    let of = |namespace: &str| member("web", &[]).replace("namespace: shop", &format!("namespace: {namespace}"));
    let members = membership(&cluster(&[of("team"), of("team-a")]), &config(), &edge()).members;
    let names: Vec<String> = members.iter().map(ToString::to_string).collect();
    // `-` is before `/`.
    assert_eq!(names, ["team-a/web", "team/web"]);
}

fn opened(built: &Built) -> Vec<String> {
    let group = built.stack.as_ref().and_then(|stack| stack.security_group.as_ref()).unwrap();
    let mut rules: Vec<String> = group.ingress.iter().map(ToString::to_string).collect();
    rules.sort();
    rules
}

#[test]
fn ranges_and_prefix_lists_are_compared_apart_and_united() {
    let lists = |list: &'static str| ("security-group-prefix-lists", list);
    let ranges = |range: &'static str| ("inbound-cidrs", range);
    let united = built_of(&[member("a", &[ranges("10.0.0.0/8")]), member("b", &[lists("pl-1")])], &facts());
    assert_eq!(messages(&united), "");
    assert_eq!(opened(&united), ["tcp 80 from 10.0.0.0/8", "tcp 80 from pl-1"]);
    let both = [member("a", &[ranges("10.0.0.0/8"), lists("pl-1")]), member("b", &[lists("pl-1")]), member("c", &[])];
    let both = built_of(&both, &facts());
    assert_eq!((messages(&both), opened(&both)), (String::new(), opened(&united)));
    let differ = [member("a", &[lists("pl-1")]), member("b", &[ranges("10.0.0.0/8"), lists("pl-2")])];
    let differ = built_of(&differ, &current(|_| {}));
    insta::assert_snapshot!(messages(&differ), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/security-group-prefix-lists: the access to port 80 should be `pl-2`, but a group has only one: `pl-1`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
    // The sources that a frozen member may have requested stay open.
    let rule = |source| SecurityGroupRule {
        protocol: "tcp".to_owned(),
        from_port: Some(80),
        to_port: Some(80),
        source,
        description: String::new(),
    };
    let open = current(|observed| {
        let sources = [Source::Ipv4("10.0.0.0/8".to_owned()), Source::PrefixList("pl-1".to_owned())];
        observed.security_groups[0].ingress = sources.map(rule).into();
    });
    let frozen = [member("a", &[lists("pl-1")]), member("b", &[ranges("10.0.0.0/8"), lists("pl-2")])];
    assert_eq!(opened(&built_of(&frozen, &open)), ["tcp 80 from 10.0.0.0/8", "tcp 80 from pl-1"]);
}

#[test]
fn thousands_of_unknown_annotations_are_looked_at_once() {
    let keys: Vec<String> = (0..8_000).map(|number| format!("k{number}")).collect();
    let annotations: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "")).collect();
    let built = built_of(&[member("a", &annotations)], &facts());
    assert_eq!((built.diagnostics.len(), built.stack.is_some()), (8_000, true));
    assert_eq!(crate::diagnostics::capped(&built.diagnostics).len(), 11);
}

#[test]
fn what_members_have_in_common_carries_who_asks_for_it() {
    const A: &str = "arn:aws:acm:eu-west-1:111122223333:certificate/a";
    let secure = ("listen-ports", r#"[{"HTTPS": 443}]"#);
    let members = [
        member("a", &[secure, ("certificate-arn", A)]),
        member("b", &[secure, ("ssl-policy", "Strict"), ("tags", "team=b"), ("security-group-prefix-lists", "pl-bad")]),
    ];
    let built = built_of(&members, &facts());
    assert_eq!(messages(&built), "");
    let stack = built.stack.unwrap();
    let Requesters { ssl_policy, default_certificate, prefix_lists, tags, mutual_authentication, .. } =
        &stack.requesters;
    let who = |cause: &Cause| format!("{}: {}", cause.object.name.name, cause.field);
    assert_eq!(who(&ssl_policy[&443]), "b: alb.ingress.kubernetes.io/ssl-policy");
    assert_eq!(who(&default_certificate[&443]), "a: alb.ingress.kubernetes.io/certificate-arn");
    let list = (443, "pl-bad".to_owned());
    assert_eq!(who(&prefix_lists[&list]), "b: alb.ingress.kubernetes.io/security-group-prefix-lists");
    assert_eq!(who(&tags["team"]), "b: alb.ingress.kubernetes.io/tags");
    assert!(mutual_authentication.is_empty());
    assert_eq!(stack.requesters.of_refusal(443, "SSLPolicyNotFound").map(who), Some(who(&ssl_policy[&443])));
    assert_eq!(stack.requesters.of_refusal(443, "TooManyRules"), None);
}
