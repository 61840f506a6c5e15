//! Several Ingresses, one load balancer.

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
fn current(change: impl FnOnce(&mut ObservedStack)) -> Facts {
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
            state: LoadBalancerState::Active,
            subnets: [SubnetId::new("subnet-a")].into(),
            security_groups: [SecurityGroupId::new("sg-own"), SecurityGroupId::new("sg-shared")].into(),
            attributes: None,
            tags: Tags::new(),
            listeners: Some([(80, listener)].into()),
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
    insta::assert_snapshot!(conflict(&[("scheme", "internet-facing")], &[("scheme", "internal")]), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/scheme: the scheme should be `internal`, but a group has only one: `internet-facing`, requested by Ingress shop/a, the first of the group; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
    insta::assert_snapshot!(conflict(&[("load-balancer-name", "one")], &[("load-balancer-name", "two")]), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/load-balancer-name: the load balancer's name should be `two`, but a group has only one: `one`, requested by Ingress shop/a, the first of the group; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
    insta::assert_snapshot!(conflict(&[("inbound-cidrs", "10.0.0.0/8")], &[("inbound-cidrs", "192.0.2.0/24")]), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/inbound-cidrs: the access to port 80 should be `192.0.2.0/24`, but a group has only one: `10.0.0.0/8`, requested by Ingress shop/a, the first of the group; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
    insta::assert_snapshot!(conflict(&[("tags", "a=1")], &[("tags", "a=2,b=3")]), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/tags: `a` should be `2`, but a group has only one: `1`, requested by Ingress shop/a, the first of the group; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
    insta::assert_snapshot!(conflict(&[], &[("listen-ports", r#"[{"HTTPS": 80}]"#)]), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/listen-ports: the protocol of port 80 should be `HTTPS`, but a group has only one: `HTTP`, requested by Ingress shop/a, the first of the group; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
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
    insta::assert_snapshot!(with(&passthrough), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/mutual-authentication: the mutual authentication on port 443 should be `passthrough`, but a group has only one: `off`, requested by Ingress shop/a, the first of the group; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
    insta::assert_snapshot!(conflict(&[], &[("ssl-redirect", "443")]), @r#"Error invalid-value on Ingress shop/b: alb.ingress.kubernetes.io/ssl-redirect: requests would be redirected to port 443, which is not an HTTPS listener of this group; add {"HTTPS": 443} to `alb.ingress.kubernetes.io/listen-ports`, or name one of its HTTPS ports"#);
    insta::assert_snapshot!(conflict(&[], &[("scheme", "public")]), @"Error invalid-value on Ingress shop/b: annotation `alb.ingress.kubernetes.io/scheme` has the value `public`; allowed: `internal` or `internet-facing`");
    insta::assert_snapshot!(conflict(&[("load-balancer-attributes", "a=1")], &[("load-balancer-attributes", "a=2")]), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/load-balancer-attributes: `a` should be `2`, but a group has only one: `1`, requested by Ingress shop/a, the first of the group; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
}

#[test]
fn two_default_backends_on_one_port() {
    let default = |name: &str| member(name, &[]) + &format!("  defaultBackend: {}\n", backend("api", "http"));
    let built = built_of(&[default("a"), default("b")], &facts());
    insta::assert_snapshot!(shown(&built), @"
    HTTP 80: shop/a-api:http
      /a -> shop/a-web:80
    frozen: shop/b
    Error conflict on Ingress shop/b: spec.defaultBackend: the default backend of port 80 should be that of Ingress shop/b, but a group has only one: that of Ingress shop/a, requested by Ingress shop/a, the first of the group; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
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
fn what_a_member_set_aside_may_have_asked_for_stays() {
    let office = SecurityGroupRule {
        protocol: "tcp".to_owned(),
        from_port: Some(80),
        to_port: Some(80),
        source: Source::Ipv4("192.0.2.0/24".to_owned()),
        description: String::new(),
    };
    let other = SecurityGroupRule { from_port: Some(8080), to_port: Some(8080), ..office.clone() };
    let facts = |balancer: fn(&mut ObservedLoadBalancer)| {
        let rules = [office.clone(), other.clone()];
        current(move |observed| {
            observed.security_groups[0].ingress.extend(rules);
            balancer(&mut observed.load_balancers[0]);
        })
    };
    let members = [member("a", &[]), member("b", &[("scheme", "internet facing")])];
    let stack = built_of(&members, &facts(|_| ())).stack.unwrap();
    let opened: Vec<String> = stack.security_group.unwrap().ingress.iter().map(ToString::to_string).collect();
    assert_eq!(opened, ["tcp 80 from 192.0.2.0/24", "tcp 8080 from 192.0.2.0/24"]);
    let public = built_of(&members, &facts(|balancer| balancer.scheme = Scheme::InternetFacing)).stack.unwrap();
    assert_eq!(public.load_balancer.unwrap().scheme, Scheme::InternetFacing);
    let given =
        built_of(&members, &facts(|balancer| balancer.security_groups = [SecurityGroupId::new("sg-theirs")].into()));
    let given = given.stack.unwrap();
    assert_eq!(given.security_group, None);
    assert_eq!(
        given.load_balancer.unwrap().security_groups,
        [SecurityGroupReference::Given(Value::Known(SecurityGroupId::new("sg-theirs")))]
    );
}

#[test]
fn plain_requests_stay_redirected_though_whoever_redirects_them_is_set_aside() {
    let secure =
        [("listen-ports", r#"[{"HTTPS": 443}]"#), ("certificate-arn", "arn:aws:acm:eu-west-1:1:certificate/a")];
    let broken = member("a", &[&secure[..], &[("ssl-redirect", "443"), ("scheme", "nowhere")]].concat());
    let facts = current(|observed| {
        let listeners = observed.load_balancers[0].listeners.get_or_insert_default();
        let tls = ObservedListener { port: 443, protocol: Some(ListenerProtocol::Https), ..listeners[&80].clone() };
        listeners.insert(443, tls);
        let redirect = crate::desired::sources::ingress::listeners::redirect_to(443).try_map(|_| Err(())).unwrap();
        listeners.get_mut(&80).unwrap().default_actions = vec![redirect];
    });
    let built = built_of(&[broken.clone(), member("b", &[])], &facts);
    assert_eq!(built.frozen, [name("a")].into());
    insta::assert_snapshot!(routes(&built.stack.unwrap()), @"HTTP 80: HTTP_301 HTTPS - 443 - -");
    // Nor does another member that redirects there miss the listener.
    let built = built_of(&[broken, member("b", &[("ssl-redirect", "443")])], &facts);
    assert_eq!(built.frozen, [name("a")].into());
    // Without a frozen member, requests are served where no member redirects them.
    let served = routes(&built_of(&[member("b", &[])], &facts).stack.unwrap());
    insta::assert_snapshot!(served, @r"
    HTTP 80: 404 -
      /b -> shop/b-web:80
    ");
}

/// Returns an observed stack in which port 80 redirects to 443, which answers or does not, and these hold these listeners.
fn redirected(answers: bool, member_resources: &[MemberResources]) -> Facts {
    current(|observed| {
        let listeners = observed.load_balancers[0].listeners.get_or_insert_default();
        if answers {
            let tls = ObservedListener { port: 443, protocol: Some(ListenerProtocol::Https), ..listeners[&80].clone() };
            listeners.insert(443, tls);
        }
        let redirect = crate::desired::sources::ingress::listeners::redirect_to(443).try_map(|_| Err(())).unwrap();
        listeners.get_mut(&80).unwrap().default_actions = vec![redirect];
        observed.member_resources = member_resources.to_vec();
    })
}

#[test]
fn plain_requests_are_redirected_only_for_whoever_is_set_aside_and_to_a_listener_that_stays() {
    const SECURE: (&str, &str) = ("certificate-arn", "arn:aws:acm:eu-west-1:1:certificate/a");
    const PORTS: (&str, &str) = ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#);
    const REDIRECT: (&str, &str) = ("ssl-redirect", "443");
    const BROKEN: (&str, &str) = ("scheme", "nowhere");
    let routes_of = |members: &[String], facts: &Facts| routes(&built_of(members, facts).stack.unwrap());
    let served = "HTTP 80: 404 -\n  /a -> shop/a-web:80\n";
    let redirects = "HTTP 80: HTTP_301 HTTPS - 443 - -\n";
    let plain = member("a", &[]);
    // The member that redirected drops TLS while another member, which requests no redirect, is frozen.
    let other = member("b", &[BROKEN]);
    let both = [resources("a", &[80, 443]), resources("b", &[80])];
    assert_eq!(routes_of(&[plain.clone(), other.clone()], &redirected(true, &both)), served);
    assert_eq!(routes_of(&[plain.clone(), other.clone()], &redirected(true, &[])), served);
    // The frozen member redirects, but the listener is deleted with its only holder.
    let redirecting = member("b", &[BROKEN, REDIRECT]);
    assert_eq!(routes_of(&[plain.clone(), redirecting.clone()], &redirected(true, &both)), served);
    let of_b = [resources("a", &[80]), resources("b", &[80, 443])];
    assert_eq!(routes_of(&[plain.clone(), redirecting.clone()], &redirected(true, &of_b)), redirects);
    // No listener answers there.
    assert_eq!(routes_of(&[plain.clone(), redirecting], &redirected(false, &of_b)), served);
    // The settings of a member whose class is gone are not known.
    let unreadable = published(&member("b", &[])).replace("ingressClassName: alb", "ingressClassName: gone");
    let held = "  generation: 7\n  finalizers: [group.ingress.k8s.aws/edge]\n";
    let unreadable = unreadable.replace("  generation: 7\n", held);
    assert_eq!(routes_of(&[plain, unreadable], &redirected(true, &of_b)), redirects);
    // A member that redirects to a listener that is dropped gets a diagnostic.
    let without = [member("a", &[REDIRECT]), other.clone(), member("c", &[])];
    let built = built_of(&without, &redirected(true, &both));
    assert_eq!(built.frozen, ["a", "b"].map(name).into());
    // As long as the group has the listener, it is redirected.
    let with = [member("a", &[SECURE, PORTS, REDIRECT]), other];
    assert!(routes_of(&with, &redirected(true, &both)).starts_with(redirects));
}

#[test]
fn the_class_of_the_first_member_gives_the_attributes_also_while_that_is_set_aside() {
    let class = |name: &str, timeout: &str, mode: &str| {
        format!(
            r#"
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: {name}}}
spec: {{controller: ingress.k8s.aws/alb, parameters: {{apiGroup: elbv2.k8s.aws, kind: IngressClassParams, name: {name}}}}}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: IngressClassParams
metadata: {{name: {name}}}
spec:
  loadBalancerAttributes: [{{key: idle_timeout.timeout_seconds, value: "{timeout}"}}, {{key: {name}, value: "1"}}]
  listeners: [{{protocol: HTTP, port: 80, listenerAttributes: [{{key: mode, value: {mode}}}]}}]
---
"#
        )
    };
    let of = |class: &str, text: &str| text.replace("ingressClassName: alb", &format!("ingressClassName: {class}"));
    let attributes = |first: String, facts: &Facts| {
        let classes = class("one", "10", "first") + &class("two", "20", "second");
        let second = of("two", &member("b", &[("load-balancer-attributes", "idle_timeout.timeout_seconds=30,own=1")]));
        let snapshot = snapshot(&format!("{SERVICES}\n---\n{classes}{first}\n---\n{second}"));
        let built = build(&snapshot, &config(), facts, &edge(), &membership(&snapshot, &config(), &edge()));
        let stack = built.stack.unwrap();
        let shown = |attributes: &Attributes| {
            attributes.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        };
        (shown(&stack.load_balancer.unwrap().attributes), shown(&stack.listeners[&80].attributes))
    };
    let both = |of_balancer: &str, of_listener: &str| (of_balancer.to_owned(), of_listener.to_owned());
    let sound = of("one", &member("a", &[]));
    let broken = of("one", &member("a", &[("scheme", "nowhere")]));
    let as_first = both("idle_timeout.timeout_seconds=10 one=1 own=1", "mode=first");
    assert_eq!(attributes(sound, &current(|_| ())), as_first);
    // The load balancer's values for those keys stay.
    let stays = both("own=1", "");
    assert_eq!(attributes(broken.clone(), &current(|_| ())), stays);
    let held = current(|observed| observed.member_resources = vec![resources("a", &[80]), resources("b", &[80])]);
    assert_eq!(attributes(broken.clone(), &held), stays);
    // One that has never been served gives nothing.
    let new = current(|observed| observed.member_resources = vec![resources("b", &[80])]);
    let as_second = both("idle_timeout.timeout_seconds=20 own=1 two=1", "mode=second");
    assert_eq!(attributes(broken.clone(), &new), as_second);
    // A load balancer that is to be made gets what the class says.
    assert_eq!(attributes(broken, &facts()), as_first);
}

#[test]
fn with_everybody_set_aside_nothing_changes_unless_somebody_leaves() {
    let broken = member("a", &[("scheme", "x")]);
    let built = built_of(std::slice::from_ref(&broken), &current(|_| ()));
    assert_eq!((built.stack.is_none(), built.frozen), (true, [name("a")].into()));
    let held =
        "  finalizers: [group.ingress.k8s.aws/edge]\n  deletionTimestamp: '2026-01-01T00:00:00Z'\n  annotations:";
    let leaving = member("b", &[]).replace("  annotations:", held);
    let stack = built_of(&[broken, leaving], &current(|_| ())).stack.unwrap();
    assert_eq!(
        (stack.frozen.members, stack.listeners.len(), stack.target_groups.len()),
        ([ObjectReference::ingress(&name("a"))].into(), 0, 0)
    );
    assert_eq!(stack.load_balancer.unwrap().scheme, Scheme::Internal);
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
fn newcomers_without_room_are_set_aside_until_there_is_some() {
    let many = |name: &str, count: usize| {
        let paths: Vec<String> = (0..count).map(|number| format!("/{name}/{number}")).collect();
        let paths: Vec<(&str, &str, &str, &str)> = paths.iter().map(|p| ("Exact", p.as_str(), "web", "80")).collect();
        let spec = format!("  rules:\n{}", rules("", &paths));
        let one = ingress(&[("group.name", "edge"), ("target-type", "ip")], &spec);
        one.replace("  name: web\n  namespace", &format!("  name: {name}\n  namespace"))
    };
    let members = [many("a", 60), many("b", 45), many("c", 40)];
    let limited = |most: usize, facts: Facts| Facts {
        limits: Some(Fact::Known(Limits { rules: most, ..Limits::default() })),
        ..facts
    };
    // The limits are not read while AWS's defaults suffice.
    assert_eq!(built_of(&[many("a", 60), many("c", 40)], &facts()).wants, BTreeSet::new());
    assert_eq!(built_of(&members, &facts()).wants, [FactQuery::Limits].into());
    assert_eq!(built_of(&members, &limited(145, facts())).frozen, BTreeSet::new());
    let built = built_of(&members, &limited(100, facts()));
    assert!(built.lacking && built.stack.as_ref().is_some_and(|stack| stack.listeners[&80].rules.len() == 100));
    insta::assert_snapshot!(messages(&built), @"Error quota on Ingress shop/b: spec.rules: with this Ingress the load balancer would have 105 rules, and the account allows 100 (default rules and certificates are not counted); use fewer rules, put this Ingress in another group, or have the limit raised in Service Quotas; it is served as soon as there is room");
    // An existing member stays, at any place in the order.
    let holds = MemberResources {
        member: ObjectReference::ingress(&name("b")),
        rules: BTreeSet::new(),
        ports: [(80, ListenerResources::default())].into(),
    };
    let there = current(|observed| observed.member_resources.push(holds));
    assert_eq!(built_of(&members, &limited(100, there)).frozen, [name("a")].into());
}

/// A member that is being deleted and carries the group's finalizer.
fn deleted(name: &str, annotations: &[(&str, &str)]) -> String {
    let held =
        "  generation: 7\n  finalizers: [group.ingress.k8s.aws/edge]\n  deletionTimestamp: '2026-01-01T00:00:00Z'\n";
    member(name, annotations).replace("  generation: 7\n", held)
}

fn protection(value: &str) -> String {
    format!("deletion_protection.enabled={value}")
}

fn members_and_leavers(members: &[String]) -> (Vec<String>, Vec<String>, Vec<String>) {
    let found = membership(&cluster(members), &config(), &edge());
    let names = |names: &[ObjectName]| names.iter().map(|name| name.name.clone()).collect();
    (names(&found.members), found.frozen.iter().map(|name| name.name.clone()).collect(), names(&found.leaving))
}

#[test]
fn a_deleted_member_that_protects_the_load_balancer_keeps_its_part() {
    let on = protection("true");
    let on = [("load-balancer-attributes", on.as_str())];
    let kept = ["a".to_owned()];
    // Both deleted at once, and the one that protects before the other.
    let at_once = [deleted("a", &on), deleted("b", &[])];
    assert_eq!(members_and_leavers(&at_once), (kept.to_vec(), kept.to_vec(), vec!["b".to_owned()]));
    let before = [deleted("a", &on), member("b", &[])];
    assert_eq!(members_and_leavers(&before), (vec!["a".to_owned(), "b".to_owned()], kept.to_vec(), vec![]));
    let found = membership(&cluster(&at_once), &config(), &edge());
    let reported: Vec<String> = found.broken.iter().map(|d| format!("{}: {d}", d.object)).collect();
    assert_eq!(
        reported,
        [
            "Ingress shop/a: alb.ingress.kubernetes.io/load-balancer-attributes: the Ingress is deleted, but `deletion_protection.enabled` keeps its load balancer; set `deletion_protection.enabled=false` in the annotation, and the load balancer goes with the Ingress"
        ]
    );
    // The load balancer stays, without what was of the other.
    let built = built_of(&at_once, &current(|_| {}));
    let stack = built.stack.unwrap();
    assert!(stack.load_balancer.is_some() && stack.frozen.members == [ObjectReference::ingress(&name("a"))].into());
}

#[test]
fn a_load_balancer_that_is_protected_in_aws_goes_only_when_an_annotation_lets_it_go() {
    let off = protection("false");
    let both = |a: &[(&str, &str)]| [deleted("a", a), deleted("b", &[])];
    let protected = |names: &[&str]| Facts {
        protected: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..current(|_| {})
    };
    // The build requests it before anything is deleted, but not if there is no load balancer.
    let unknown = built_of(&both(&[]), &current(|_| {}));
    assert_eq!((unknown.stack, unknown.wants), (None, [FactQuery::Protection].into()));
    let empty = Stack::empty(edge());
    assert_eq!(built_of(&both(&[]), &facts()).stack, Some(empty.clone()));
    assert_eq!(built_of(&both(&[]), &protected(&[])).stack, Some(empty.clone()));
    let refused = built_of(&both(&[]), &protected(&["edge"]));
    assert!(refused.stack.is_none() && refused.lacking);
    insta::assert_snapshot!(messages(&refused), @"
    Error refused on Ingress shop/a: alb.ingress.kubernetes.io/load-balancer-attributes: the load balancer `edge` is protected from deletion in AWS (`deletion_protection.enabled`), so it stays, and the Ingress with it; write `deletion_protection.enabled=false` in the annotation, or switch the protection off in AWS, if the load balancer may be deleted
    Error refused on Ingress shop/b: alb.ingress.kubernetes.io/load-balancer-attributes: the load balancer `edge` is protected from deletion in AWS (`deletion_protection.enabled`), so it stays, and the Ingress with it; write `deletion_protection.enabled=false` in the annotation, or switch the protection off in AWS, if the load balancer may be deleted
    ");
    let lets_go = both(&[("load-balancer-attributes", &off)]).map(|text| published(&text));
    let released = built_of(&lets_go, &protected(&["edge"]));
    let unprotected = Some(Stack { unprotect: true, ..empty });
    assert_eq!((messages(&released), released.stack), (String::new(), unprotected.clone()));
    // One that is remembered has a say as well.
    let held = Facts {
        protected: protected(&["edge"]).protected,
        ..current(|observed| observed.member_resources.push(resources("a", &[80])))
    };
    assert_eq!(built_of(&both(&[("load-balancer-attributes", &off)]), &held).stack, unprotected);
    // Only a finalizer, which any user may write, gives none, of whatever class the Ingress is.
    let foreign = |text: String| {
        let text = text.replace("  deletionTimestamp: '2026-01-01T00:00:00Z'\n", "");
        text.replace("ingressClassName: alb", "ingressClassName: nginx")
    };
    let nginx =
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: nginx}\nspec: {controller: nginx}\n";
    let evil = deleted("evil", &[("load-balancer-attributes", &off)]);
    let elsewhere = published(&evil).replace("edge.example.com", "other.example.com");
    for evil in [evil.clone(), elsewhere, foreign(evil)] {
        let built = built_of(&[deleted("a", &[]), evil, nginx.to_owned()], &protected(&["edge"]));
        assert!(built.stack.is_none() && messages(&built).contains("is protected from deletion in AWS"));
    }
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
    insta::assert_snapshot!(messages(&differ), @"Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/security-group-prefix-lists: the access to port 80 should be `pl-2`, but a group has only one: `pl-1`, requested by Ingress shop/a, the first of the group; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes");
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
fn who_says_who_may_come_in_is_followed_though_another_member_is_set_aside() {
    let lists = ("security-group-prefix-lists", "pl-1");
    let open = |sources: &[Source]| {
        let rule = |source: &Source| SecurityGroupRule {
            protocol: "tcp".to_owned(),
            from_port: Some(80),
            to_port: Some(80),
            source: source.clone(),
            description: String::new(),
        };
        current(|observed| observed.security_groups[0].ingress = sources.iter().map(rule).collect())
    };
    let everywhere = Source::Ipv4("0.0.0.0/0".to_owned());
    let ten = Source::Ipv4("10.0.0.0/8".to_owned());
    let broken = ("scheme", "nowhere");
    let of = |asked: &[(&str, &str)]| [member("a", &[lists]), member("b", asked)];
    // The other allows all clients only because it restricts nothing.
    let built = built_of(&of(&[broken]), &open(std::slice::from_ref(&everywhere)));
    assert_eq!(opened(&built), ["tcp 80 from pl-1"]);
    assert!(!messages(&built).contains("stays open"));
    assert_eq!(opened(&built_of(&of(&[broken]), &open(std::slice::from_ref(&ten)))), ["tcp 80 from pl-1"]);
    // Or it requests a range.
    let asks = built_of(&of(&[broken, ("inbound-cidrs", "10.0.0.0/8")]), &open(&[everywhere.clone(), ten.clone()]));
    assert_eq!(opened(&asks), ["tcp 80 from 10.0.0.0/8", "tcp 80 from pl-1"]);
    let reported = messages(&asks);
    let warning = reported.lines().find(|line| line.starts_with("Warning")).unwrap();
    insta::assert_snapshot!(warning, @"Warning conflict on Ingress shop/a: alb.ingress.kubernetes.io/security-group-prefix-lists: port 80 also stays open to `10.0.0.0/8`, which Ingress shop/b may ask for; what that Ingress asks for cannot be built at the moment; fix that Ingress; then the port is open only to the sources that a member asks for");
    // Its settings cannot be read.
    let unreadable = built_of(&of(&[("inbound-cidrs", "10.0.0.0")]), &open(&[everywhere, ten]));
    assert_eq!(opened(&unreadable), ["tcp 80 from 10.0.0.0/8", "tcp 80 from pl-1"]);
}

#[test]
fn rules_that_can_do_nothing_count_for_no_limit_and_an_unknown_limit_refuses_nothing() {
    let paths: Vec<String> = (0..60).map(|number| format!("/{number}")).collect();
    let redirect = r#"{"type": "redirect", "redirectConfig": {"host": "example.com", "statusCode": "HTTP_301"}}"#;
    let of = |name: &str, annotations: &[(&str, &str)], paths: &[(&str, &str, &str, &str)]| {
        let annotations = [&[("group.name", "edge"), ("target-type", "ip")], annotations].concat();
        let spec = format!("  rules:\n{}", rules("", paths));
        ingress(&annotations, &spec).replace("  name: web\n  namespace", &format!("  name: {name}\n  namespace"))
    };
    let paths: Vec<(&str, &str, &str, &str)> = paths.iter().map(|path| ("Exact", path.as_str(), "web", "80")).collect();
    let away = [("Prefix", "/", "away", "use-annotation")];
    let limits = |limits: Limits| Facts { limits: Some(Fact::Known(limits)), ..facts() };
    // A redirect of everything hides the 120 rules behind it.
    let hidden = [of("a", &[("actions.away", redirect)], &away), of("b", &[], &paths), of("c", &[], &paths)];
    let built = built_of(&hidden, &facts());
    assert_eq!((built.wants.is_empty(), built.frozen.len()), (true, 0), "{}", messages(&built));
    assert_eq!(built.stack.unwrap().listeners[&80].rules.len(), 1);
    let many = [of("a", &[], &paths), member("b", &[]), of("c", &[], &paths)];
    assert_eq!(built_of(&many, &limits(Limits::default())).frozen, [name("c")].into());
    assert_eq!(built_of(&many, &limits(Limits::UNKNOWN)).frozen, BTreeSet::new());
    let unavailable = Facts { limits: Some(Fact::Unavailable("throttled".to_owned())), ..facts() };
    assert_eq!(built_of(&many, &unavailable).frozen, BTreeSet::new());
}

#[test]
fn what_a_load_balancer_has_already_is_no_newcomer() {
    let rule = |priority: u32| ObservedRule {
        arn: RuleArn::new(format!("arn:rule/{priority}")),
        priority,
        conditions: vec![],
        transforms: vec![],
        actions: vec![],
        tags: Tags::new(),
    };
    // 120 rules, and no record of whose they are.
    let mut there = current(|observed| {
        let listener = observed.load_balancers[0].listeners.get_or_insert_default().get_mut(&80).unwrap();
        listener.rules = (1..=120).map(rule).collect();
    });
    there.limits = Some(Fact::Known(Limits::default()));
    let many = |name: &str, count: usize| {
        let paths: Vec<String> = (0..count).map(|number| format!("/{name}/{number}")).collect();
        let paths: Vec<(&str, &str, &str, &str)> = paths.iter().map(|p| ("Exact", p.as_str(), "web", "80")).collect();
        let spec = format!("  rules:\n{}", rules("", &paths));
        let one = ingress(&[("group.name", "edge"), ("target-type", "ip")], &spec);
        one.replace("  name: web\n  namespace", &format!("  name: {name}\n  namespace"))
    };
    let served =
        |text: String| format!("{text}status: {{loadBalancer: {{ingress: [{{hostname: edge.example.com}}]}}}}\n");
    assert_eq!(built_of(&[many("a", 60), many("b", 60)], &there).frozen, BTreeSet::new());
    // One more than there are: the newcomer waits, although it is the first of the group.
    let members = [many("a", 1), served(many("b", 60)), served(many("c", 60))];
    assert_eq!(built_of(&members, &there).frozen, [name("a")].into());
}

#[test]
fn annotations_that_a_flag_switches_off_make_no_new_member() {
    let config = BuildConfig { no_class_annotation: true, no_group_annotation: true, ..config() };
    let class = |held: &str| {
        let text = member("a", &[("kubernetes.io/ingress.class", "alb")]).replace("  ingressClassName: alb\n", "");
        text.replace("    alb.ingress.kubernetes.io/group.name: \"edge\"\n", "").replace("  generation: 7\n", held)
    };
    let group = |held: &str| member("a", &[]).replace("  generation: 7\n", held);
    let found = |text: String, stack: &StackId| {
        let found = membership(&cluster(&[text]), &config, stack);
        assert_eq!(found.frozen.len(), found.broken.len());
        (found.served().count(), found.broken.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    };
    let alone = StackId::Ingress(name("a"));
    let (served, reported) = found(class(""), &alone);
    insta::assert_snapshot!(reported, @"the annotation `kubernetes.io/ingress.class` is switched off (--disable-ingress-class-annotation), so the Ingress is not served; name the class in spec.ingressClassName and remove the annotation");
    assert_eq!(served, 0);
    let (served, reported) = found(group(""), &alone);
    insta::assert_snapshot!(reported, @"the annotation `alb.ingress.kubernetes.io/group.name` is switched off (--disable-ingress-group-name-annotation), so the Ingress does not join the group `edge`; remove the annotation, or name a class whose IngressClassParams have the group in spec.group.name");
    assert_eq!(served, 0);
    assert_eq!(found(group(""), &edge()), (0, String::new()));
    // An Ingress that was served before is served.
    let (of_class, of_group) =
        (class("  finalizers: [ingress.k8s.aws/resources]\n"), group("  finalizers: [group.ingress.k8s.aws/edge]\n"));
    assert_eq!(found(published(&of_class), &alone), (1, String::new()));
    assert_eq!(found(published(&of_group), &edge()), (1, String::new()));
    // Neither a finalizer without a status, which every user who writes the Ingress may write, nor a status without a
    // finalizer proves that.
    for (text, stack) in
        [(of_class, &alone), (of_group, &edge()), (published(&class("")), &alone), (published(&group("")), &alone)]
    {
        let (served, reported) = found(text, stack);
        assert!(served == 0 && reported.contains("switched off"), "{reported}");
    }
    // One that another group holds does not move.
    let (served, reported) = found(group("  finalizers: [ingress.k8s.aws/resources]\n"), &alone);
    assert!(served == 0 && reported.contains("switched off"), "{reported}");
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

#[test]
fn a_new_listener_is_charged_to_the_member_that_brings_it() {
    const A: &str = "arn:aws:acm:eu-west-1:111122223333:certificate/a";
    let old = published(&member("a", &[("listen-ports", r#"[{"HTTPS": 443}]"#), ("certificate-arn", A)]));
    let new = member("b", &[("listen-ports", r#"[{"HTTPS": 443}, {"HTTP": 8080}]"#)]);
    let of_host = Facts { hostnames: ["edge.example.com".to_owned()].into(), ..facts() };
    let brings = |facts: &Facts| {
        let listeners = built_of(&[old.clone(), new.clone()], facts).stack.unwrap().requesters.listeners;
        let who = |cause: &Cause| format!("{}: {}", cause.object.name.name, cause.field);
        listeners.iter().map(|(port, cause)| format!("{port} {}", who(cause))).collect::<Vec<_>>()
    };
    let of_b = |port: u16| format!("{port} b: alb.ingress.kubernetes.io/listen-ports");
    assert_eq!(brings(&of_host), [of_b(443), of_b(8080)]);
    let both = Facts {
        current: current(|observed| observed.member_resources = vec![resources("a", &[443]), resources("b", &[443])])
            .current,
        ..of_host
    };
    assert_eq!(brings(&both), Vec::<String>::new());
}

#[test]
fn a_frozen_member_keeps_the_service_whose_name_its_action_escapes() {
    let snapshot = crate::testing::snapshot(
        r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  namespace: shop
  name: web
  annotations:
    alb.ingress.kubernetes.io/actions.a: '{"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": "c\u0061rt", "servicePort": 80}]}}'
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: cart}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: other}
spec: {ports: [{port: 80}]}
"#,
    );
    let web = ObjectName::new("shop", "web");
    let expected = BTreeSet::from([(ObjectReference::ingress(&web), "cart".to_owned())]);
    assert_eq!(super::super::services_of(&snapshot, &web), expected);
}
