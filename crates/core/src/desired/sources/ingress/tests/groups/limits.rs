//! Quotas of a load balancer: members that would pass them are frozen.

use super::*;

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
