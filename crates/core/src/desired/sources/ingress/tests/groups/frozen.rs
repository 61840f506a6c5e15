//! Frozen members of a group: what they may own stays.

use super::*;

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
fn client_certificates_that_a_member_set_aside_may_request_are_not_switched_off() {
    let secure =
        [("listen-ports", r#"[{"HTTPS": 443}]"#), ("certificate-arn", "arn:aws:acm:eu-west-1:1:certificate/a")];
    let config = BuildConfig { resets_listeners: true, ..config() };
    let clients = |scheme: &str| {
        let members = [member("a", &secure), member("b", &[&secure[..], &[("scheme", scheme)]].concat())];
        let snapshot = cluster(&members);
        let facts = current(|observed| {
            let listeners = observed.load_balancers[0].listeners.get_or_insert_default();
            let mut tls = ObservedListener { port: 443, ..listeners.remove(&80).unwrap() };
            tls.protocol = Some(ListenerProtocol::Https);
            tls.mutual_authentication = Some(MutualAuthentication::Passthrough);
            listeners.insert(443, tls);
        });
        let built = build(&snapshot, &config, &facts, &edge(), &membership(&snapshot, &config, &edge()));
        built.stack.unwrap().listeners[&443].mutual_authentication.clone()
    };
    assert_eq!(clients("internal"), Some(MutualAuthentication::Off));
    assert_eq!(clients("internet facing"), None);
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
    insta::assert_snapshot!(warning, @"Warning conflict on Ingress shop/a: alb.ingress.kubernetes.io/security-group-prefix-lists: port 80 also stays open to `10.0.0.0/8`, because these members of the group have errors and may request that: Ingress shop/b; fix those errors; then the port is open only to the sources that members request");
    // Its settings cannot be read.
    let unreadable = built_of(&of(&[("inbound-cidrs", "10.0.0.0")]), &open(&[everywhere, ten]));
    assert_eq!(opened(&unreadable), ["tcp 80 from 10.0.0.0/8", "tcp 80 from pl-1"]);
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
    assert_eq!(crate::desired::sources::ingress::services_of(&snapshot, &web), expected);
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
