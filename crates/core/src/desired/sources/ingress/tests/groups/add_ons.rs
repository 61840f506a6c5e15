//! The web ACL, the protection and the reserved capacity of a group's load balancer.

use super::*;
use crate::{diagnostics::Code, facts::FactQuery, plan::Planned};

const EDGE: &str = "arn:aws:wafv2:us-west-2:111122223333:regional/webacl/edge/1";
const STRICT: &str = "arn:aws:wafv2:us-west-2:111122223333:regional/webacl/strict/2";

fn arn(arn: &str) -> WebAclArn {
    WebAclArn::new(arn).unwrap()
}

/// Facts of an account with the web ACLs `edge` and `strict`, which is subscribed to Shield Advanced.
fn known() -> Facts {
    let absent = || Fact::Absent {
        message: "there is no regional web ACL `lost`".to_owned(),
        fix: "create it, or name another".to_owned(),
    };
    let web_acls = [("edge", Fact::Known(arn(EDGE))), ("strict", Fact::Known(arn(STRICT))), ("lost", absent())];
    Facts {
        web_acls: web_acls.map(|(name, fact)| (name.to_owned(), fact)).into(),
        shield_subscription: Some(Fact::Known(true)),
        ..facts()
    }
}

/// Returns the requested add-ons with their requesters, the frozen members and the diagnostics.
fn requested(built: &Built) -> String {
    let mut text = String::new();
    if let Some(balancer) = built.stack.as_ref().and_then(|stack| stack.load_balancer.as_ref()) {
        let AddOns { web_acl, protection, capacity, .. } = &balancer.add_ons;
        if let Some(Requested { value, cause }) = web_acl {
            let value = value.as_ref().map_or("none".to_owned(), ToString::to_string);
            writeln!(text, "web ACL {value} because of {cause}").unwrap();
        }
        if let Some(Requested { value, cause }) = protection {
            writeln!(text, "protection {value} because of {cause}").unwrap();
        }
        if let Some(Requested { value, cause }) = capacity {
            writeln!(text, "capacity {value} because of {cause}").unwrap();
        }
    }
    for name in &built.frozen {
        writeln!(text, "frozen: {name}").unwrap();
    }
    format!("{text}{}", messages(built))
}

fn of(members: &[(&str, &[(&str, &str)])]) -> String {
    let members: Vec<String> = members.iter().map(|(name, annotations)| member(name, annotations)).collect();
    requested(&built_of(&members, &known()))
}

#[test]
fn nothing_is_asked_where_nothing_is_requested() {
    let built = built_of(&[member("a", &[])], &facts());
    assert!(built.wants.is_empty() && built.stack.unwrap().load_balancer.unwrap().add_ons.is_empty());
    assert_eq!(of(&[("a", &[("wafv2-acl-name", "")])]), "");
}

#[test]
fn names_come_before_arns_and_members_agree() {
    insta::assert_snapshot!(of(&[("a", &[("wafv2-acl-arn", EDGE)]), ("b", &[("wafv2-acl-arn", EDGE)])]), @"web ACL arn:aws:wafv2:us-west-2:111122223333:regional/webacl/edge/1 because of Ingress shop/a generation 7, alb.ingress.kubernetes.io/wafv2-acl-arn");
    // No ARN counts next to a name, not even one that is not valid.
    insta::assert_snapshot!(of(&[("a", &[("wafv2-acl-arn", "?")]), ("b", &[("wafv2-acl-name", "strict"), ("wafv2-acl-arn", EDGE)])]), @"web ACL arn:aws:wafv2:us-west-2:111122223333:regional/webacl/strict/2 because of Ingress shop/b generation 7, alb.ingress.kubernetes.io/wafv2-acl-name");
    insta::assert_snapshot!(of(&[("a", &[("wafv2-acl-arn", EDGE)]), ("b", &[("wafv2-acl-name", "none")])]), @"web ACL none because of Ingress shop/b generation 7, alb.ingress.kubernetes.io/wafv2-acl-name");
    for none in ["none", ""] {
        assert_eq!(
            of(&[("a", &[("wafv2-acl-arn", none)])]),
            "web ACL none because of Ingress shop/a generation 7, alb.ingress.kubernetes.io/wafv2-acl-arn\n"
        );
    }
    insta::assert_snapshot!(of(&[("a", &[("shield-advanced-protection", "true")]), ("b", &[("shield-advanced-protection", "true")])]), @"protection true because of Ingress shop/a generation 7, alb.ingress.kubernetes.io/shield-advanced-protection");
    assert!(of(&[("a", &[("shield-advanced-protection", "false")])]).starts_with("protection false"));
}

#[test]
fn mistakes_freeze_who_makes_them() {
    insta::assert_snapshot!(of(&[("a", &[("wafv2-acl-name", "edge")]), ("b", &[("wafv2-acl-name", "strict")])]), @"
    web ACL arn:aws:wafv2:us-west-2:111122223333:regional/webacl/edge/1 because of Ingress shop/a generation 7, alb.ingress.kubernetes.io/wafv2-acl-name
    frozen: shop/b
    Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/wafv2-acl-name: the web ACL should be `strict`, but a group has only one: `edge`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    ");
    insta::assert_snapshot!(of(&[("a", &[("wafv2-acl-arn", EDGE)]), ("b", &[("wafv2-acl-arn", "none")])]), @"
    web ACL arn:aws:wafv2:us-west-2:111122223333:regional/webacl/edge/1 because of Ingress shop/a generation 7, alb.ingress.kubernetes.io/wafv2-acl-arn
    frozen: shop/b
    Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/wafv2-acl-arn: the web ACL should be `none`, but a group has only one: `arn:aws:wafv2:us-west-2:111122223333:regional/webacl/edge/1`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    ");
    let cloudfront = "arn:aws:wafv2:us-east-1:111122223333:global/webacl/edge/1";
    insta::assert_snapshot!(of(&[("a", &[("wafv2-acl-arn", cloudfront)]), ("b", &[]), ("c", &[("wafv2-acl-arn", "edge")])]), @"
    frozen: shop/a
    frozen: shop/c
    Error invalid-value on Ingress shop/a: alb.ingress.kubernetes.io/wafv2-acl-arn: `arn:aws:wafv2:us-east-1:111122223333:global/webacl/edge/1` is the ARN of a web ACL for CloudFront, which no load balancer can have; name a web ACL with the scope REGIONAL in the load balancer's region: arn:aws:wafv2:<region>:<account>:regional/webacl/<name>/<id>
    Error invalid-value on Ingress shop/c: alb.ingress.kubernetes.io/wafv2-acl-arn: `edge` is not the ARN of a web ACL (WAFv2); write the ARN of a regional web ACL, arn:aws:wafv2:<region>:<account>:regional/webacl/<name>/<id>, or `none`; a web ACL is named by `wafv2-acl-name`
    ");
    // A name that is not found keeps nobody unprotected.
    insta::assert_snapshot!(of(&[("a", &[("wafv2-acl-name", "lost")]), ("b", &[("wafv2-acl-arn", EDGE)])]), @"
    web ACL arn:aws:wafv2:us-west-2:111122223333:regional/webacl/edge/1 because of Ingress shop/b generation 7, alb.ingress.kubernetes.io/wafv2-acl-arn
    frozen: shop/a
    Error missing-web-acl on Ingress shop/a: alb.ingress.kubernetes.io/wafv2-acl-name: there is no regional web ACL `lost`; create it, or name another
    ");
    // None is weaker than one, whoever comes first.
    insta::assert_snapshot!(of(&[("a", &[("shield-advanced-protection", "false")]), ("b", &[("shield-advanced-protection", "true")])]), @"
    protection true because of Ingress shop/b generation 7, alb.ingress.kubernetes.io/shield-advanced-protection
    frozen: shop/a
    Error conflict on Ingress shop/a: alb.ingress.kubernetes.io/shield-advanced-protection: the protection by Shield Advanced should be `false`, but a group has only one: `true`, requested by Ingress shop/b, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    ");
    for key in ["wafv2-acl-arn", "wafv2-acl-name"] {
        let value = if key == "wafv2-acl-arn" { EDGE } else { "edge" };
        let text = of(&[("a", &[(key, "none")]), ("b", &[(key, value)])]);
        assert!(text.starts_with(&format!("web ACL {EDGE} because of Ingress shop/b")), "{text}");
    }
}

#[test]
fn a_frozen_member_keeps_the_add_ons_that_it_is_served_with() {
    let mistake = ("scheme", "nowhere");
    let protected = |observed: &mut ObservedStack| {
        let protection = Protection::Exists { id: "p".to_owned(), name: PROTECTION_NAME.to_owned() };
        observed.load_balancers[0].add_ons = ObservedAddOns {
            web_acl: Some(Association::WebAcl(EDGE.to_owned())),
            protection: Some(protection),
            capacity: None,
        };
    };
    let with = |frozen: &[(&str, &str)], other: &[(&str, &str)], change: &dyn Fn(&mut ObservedStack)| {
        let facts =
            Facts { web_acls: known().web_acls, shield_subscription: Some(Fact::Known(true)), ..current(change) };
        let built = built_of(&[member("a", &[frozen, &[mistake]].concat()), member("b", other)], &facts);
        assert!(built.frozen.contains(&name("a")), "{}", requested(&built));
        requested(&built)
            .lines()
            .filter(|line| !line.starts_with("Error") && !line.starts_with("frozen"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    insta::assert_snapshot!(with(&[("wafv2-acl-arn", EDGE)], &[("wafv2-acl-arn", "none")], &protected), @"Warning no-effect on Ingress shop/b: alb.ingress.kubernetes.io/wafv2-acl-arn: the web ACL of the load balancer stays as it is while Ingress shop/a has mistakes: it is served as before, and may request another; correct Ingress shop/a, or put this Ingress in another group");
    for (frozen, other) in [
        (("wafv2-acl-name", "edge"), ("wafv2-acl-name", "strict")),
        (("wafv2-acl-name", "edge"), ("wafv2-acl-arn", STRICT)),
        (("wafv2-acl-arn", "?"), ("wafv2-acl-arn", STRICT)),
        (("shield-advanced-protection", "true"), ("shield-advanced-protection", "false")),
    ] {
        let text = with(&[frozen], &[other], &protected);
        assert!(text.starts_with("Warning no-effect on Ingress shop/b") && !text.contains('\n'), "{text}");
    }
    // What it does not have is no reason to keep it.
    let changed = format!("web ACL {STRICT} because of Ingress shop/b");
    for frozen in
        [("wafv2-acl-arn", "none"), ("wafv2-acl-arn", STRICT), ("wafv2-acl-name", "lost"), ("success-codes", "200")]
    {
        let text = with(&[frozen], &[("wafv2-acl-arn", STRICT)], &protected);
        assert!(text.starts_with(&changed) && !text.contains('\n'), "{text}");
    }
    // A member that was never served keeps nothing.
    let elsewhere = |observed: &mut ObservedStack| {
        protected(observed);
        let member = ObjectReference::ingress(&name("b"));
        observed.member_resources = vec![MemberResources { member, ports: Default::default(), rules: BTreeSet::new() }];
    };
    assert!(with(&[("wafv2-acl-arn", EDGE)], &[("wafv2-acl-arn", STRICT)], &elsewhere).starts_with(&changed));
}

#[test]
fn the_web_acl_that_the_load_balancer_has_wins_once_it_is_read() {
    let members = [member("a", &[("wafv2-acl-arn", EDGE)]), member("b", &[("wafv2-acl-arn", STRICT)])];
    let with = |association: Option<Association>, read: bool| {
        let change = |observed: &mut ObservedStack| observed.load_balancers[0].add_ons.web_acl = association;
        let current_add_ons = if read { [AddOn::WebAcl].into() } else { BTreeSet::new() };
        let mut facts = Facts { current_add_ons, ..current(change) };
        facts.web_acls = known().web_acls;
        built_of(&members, &facts)
    };
    assert_eq!(with(None, false).wants, [FactQuery::CurrentAddOn(AddOn::WebAcl)].into());
    let built = with(Some(Association::WebAcl(STRICT.to_owned())), false);
    assert_eq!(built.frozen, [name("a")].into());
    assert!(requested(&built).starts_with(&format!("web ACL {STRICT}")));
    insta::assert_snapshot!(requested(&with(None, true)), @"
    Warning no-effect on Ingress shop/a: alb.ingress.kubernetes.io/wafv2-acl-arn: members of the group request different values, and the web ACL that the load balancer has cannot be read, so that it stays; make them agree, and allow the controller to read it (the log has the error)
    Warning no-effect on Ingress shop/b: alb.ingress.kubernetes.io/wafv2-acl-arn: members of the group request different values, and the web ACL that the load balancer has cannot be read, so that it stays; make them agree, and allow the controller to read it (the log has the error)
    ");
}

#[test]
fn what_cannot_be_had_is_a_warning_and_everything_else_is_served() {
    let members =
        [member("a", &[("wafv2-acl-name", "edge"), ("shield-advanced-protection", "true")]), member("b", &[])];
    let with = |facts: &Facts| built_of(&members, facts);
    assert_eq!(
        with(&facts()).wants,
        [FactQuery::WebAcl("edge".to_owned()), FactQuery::ShieldSubscription].into(),
        "both are requested at once"
    );
    let denied = || Fact::Unavailable("AWS does not allow it; allow the action".to_owned());
    let unavailable = Facts {
        web_acls: [("edge".to_owned(), denied())].into(),
        shield_subscription: Some(Fact::Unavailable("AWS does not answer".to_owned())),
        ..facts()
    };
    let built = with(&unavailable);
    assert!(built.stack.is_some() && built.lacking && built.frozen.is_empty());
    insta::assert_snapshot!(requested(&built), @"
    Warning no-effect on Ingress shop/a: alb.ingress.kubernetes.io/wafv2-acl-name: the web ACL `edge` cannot be looked up, so that the association of the load balancer stays as it is, and a new one is not published before it serves: AWS does not allow it; allow the action; it is looked up again
    Warning no-effect on Ingress shop/a: alb.ingress.kubernetes.io/shield-advanced-protection: it is not known if the account is subscribed to Shield Advanced, so that the protection of the load balancer stays as it is: AWS does not answer; it is asked again
    ");
    let built = with(&Facts { shield_subscription: Some(Fact::Known(false)), ..known() });
    assert!(built.stack.is_some() && !built.lacking);
    insta::assert_snapshot!(requested(&built), @"
    web ACL arn:aws:wafv2:us-west-2:111122223333:regional/webacl/edge/1 because of Ingress shop/a generation 7, alb.ingress.kubernetes.io/wafv2-acl-name
    Warning no-effect on Ingress shop/a: alb.ingress.kubernetes.io/shield-advanced-protection: the account is not subscribed to Shield Advanced, so that it does not protect the load balancer; subscribe the account to Shield Advanced, or remove the annotation
    ");
    assert!(built.diagnostics.iter().all(|diagnostic| diagnostic.code == Code::NoEffect));
    // A load balancer does not take over from another one without its web ACL.
    let existing = Facts {
        web_acls: unavailable.web_acls,
        ..current(|observed| observed.load_balancers[0].scheme = Scheme::InternetFacing)
    };
    let public = [member("a", &[("wafv2-acl-name", "edge"), ("scheme", "internal")])];
    let built = built_of(&public, &existing);
    let wanted = built.stack.unwrap().load_balancer.unwrap();
    let new = crate::testing::load_balancer("arn:new", "new.elb");
    assert!(wanted.add_ons.web_acl.is_none() && wanted.lacks_web_acl(&new));
}

#[test]
fn flags_switch_add_ons_off() {
    let config = BuildConfig { enable_wafv2: false, enable_shield: false, ..config() };
    let annotations = [
        ("wafv2-acl-name", "edge"),
        ("wafv2-acl-arn", "none"),
        ("shield-advanced-protection", "true"),
        ("target-type", "ip"),
    ];
    let built = build_with(&format!("{SERVICES}\n---\n{}", ingress(&annotations, &everything())), &config, &facts());
    assert!(built.wants.is_empty() && built.stack.is_some());
    insta::assert_snapshot!(requested(&built), @"
    Warning no-effect on Ingress shop/web: alb.ingress.kubernetes.io/wafv2-acl-name: the controller runs with `--enable-wafv2=false`, so that the web ACL of the load balancer stays as it is; start the controller with `--enable-wafv2=true`, or remove the setting
    Warning no-effect on Ingress shop/web: alb.ingress.kubernetes.io/wafv2-acl-arn: the controller runs with `--enable-wafv2=false`, so that the web ACL of the load balancer stays as it is; start the controller with `--enable-wafv2=true`, or remove the setting
    Warning no-effect on Ingress shop/web: alb.ingress.kubernetes.io/shield-advanced-protection: the controller runs with `--enable-shield=false`, so that the protection of the load balancer stays as it is; start the controller with `--enable-shield=true`, or remove the annotation
    ");
}

#[test]
fn without_aws_the_web_acl_of_a_name_is_known_after_apply() {
    let built = built_of(
        &[member("a", &[("wafv2-acl-name", "edge"), ("shield-advanced-protection", "true")])],
        &Facts::offline(),
    );
    let stack = built.stack.unwrap();
    let Planned::Ready(plan) = crate::plan::plan(&stack, &ObservedStack::default()) else { panic!("nothing to read") };
    let steps: Vec<String> =
        plan.steps().iter().filter(|step| step.action.add_on().is_some()).map(|step| step.action.to_string()).collect();
    insta::assert_snapshot!(steps.join("\n"), @"
    associate web ACL (known after apply: web ACLs are looked up by name) with load balancer k8s-edge-10ff198b40
    create the protection of Shield Advanced for load balancer k8s-edge-10ff198b40
    ");
}

const CAPACITY: &str = "minimum-load-balancer-capacity";

#[test]
fn members_agree_on_the_reserved_capacity() {
    let (less, more, none) =
        (&[(CAPACITY, "CapacityUnits=1000")], &[(CAPACITY, "CapacityUnits=2500")], &[(CAPACITY, "CapacityUnits=0")]);
    let all = [
        of(&[("a", &[]), ("b", less)]),
        of(&[("a", none), ("b", none)]),
        of(&[("a", less), ("b", more)]),
        of(&[("a", &[(CAPACITY, "")])]),
        of(&[("a", &[(CAPACITY, "CapacityUnits=many")])]),
        of(&[("a", less), ("b", &[(CAPACITY, "CapacityUnits=1,Zones=2")])]),
        of(&[("a", &[(CAPACITY, "1000")])]),
    ];
    insta::assert_snapshot!(all.join("--\n"), @"
    capacity 1000 because of Ingress shop/b generation 7, alb.ingress.kubernetes.io/minimum-load-balancer-capacity
    --
    capacity 0 because of Ingress shop/a generation 7, alb.ingress.kubernetes.io/minimum-load-balancer-capacity
    --
    capacity 1000 because of Ingress shop/a generation 7, alb.ingress.kubernetes.io/minimum-load-balancer-capacity
    frozen: shop/b
    Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/minimum-load-balancer-capacity: the reserved capacity should be `2500`, but a group has only one: `1000`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    --
    --
    frozen: shop/a
    Error invalid-value on Ingress shop/a: alb.ingress.kubernetes.io/minimum-load-balancer-capacity: `many` is not a number of capacity units; write `CapacityUnits=<number>`; 0 ends the reservation
    --
    capacity 1000 because of Ingress shop/a generation 7, alb.ingress.kubernetes.io/minimum-load-balancer-capacity
    frozen: shop/b
    Error invalid-value on Ingress shop/b: alb.ingress.kubernetes.io/minimum-load-balancer-capacity: `Zones` is not an entry of it; write `CapacityUnits=<number>`; 0 ends the reservation
    --
    frozen: shop/a
    Error invalid-value on Ingress shop/a: annotation `alb.ingress.kubernetes.io/minimum-load-balancer-capacity` has the value `1000`: `1000` is not a pair `key=value`; allowed: pairs `key=value` separated by commas; write `CapacityUnits=<number>`; 0 ends the reservation
    ");
    let gate = BuildConfig { capacity_reservation: false, ..config() };
    let snapshot = cluster(&[member("a", less)]);
    let built = build(&snapshot, &gate, &facts(), &edge(), &membership(&snapshot, &gate, &edge()));
    insta::assert_snapshot!(requested(&built), @"Warning no-effect on Ingress shop/a: alb.ingress.kubernetes.io/minimum-load-balancer-capacity: the controller runs with `--feature-gates=LBCapacityReservation=false`, so that the reserved capacity of the load balancer stays as it is; start the controller with `--feature-gates=LBCapacityReservation=true`, or remove the setting");
}

#[test]
fn the_capacity_of_the_load_balancer_wins_where_members_differ_and_a_frozen_member_keeps_it() {
    let less = ("minimum-load-balancer-capacity", "CapacityUnits=1000");
    let more = ("minimum-load-balancer-capacity", "CapacityUnits=2500");
    let mistake = ("scheme", "nowhere");
    let has = |units: Option<i32>| {
        let capacity = units.and_then(CapacityUnits::new);
        current(&|observed: &mut ObservedStack| observed.load_balancers[0].add_ons.capacity = capacity)
    };
    // It has to be read first.
    let two = [member("a", &[less]), member("b", &[more])];
    assert_eq!(built_of(&two, &has(None)).wants, [FactQuery::CurrentAddOn(AddOn::Capacity)].into());
    let all = [
        requested(&built_of(&two, &has(Some(2500)))),
        requested(&built_of(&two, &has(Some(7)))),
        requested(&built_of(&two, &Facts { current_add_ons: [AddOn::Capacity].into(), ..has(None) })),
        requested(&built_of(&[member("a", &[less, mistake]), member("b", &[more])], &has(Some(1000)))),
        requested(&built_of(&[member("a", &[less, mistake]), member("b", &[more])], &has(Some(7)))),
        requested(&built_of(&[member("a", &[mistake]), member("b", &[more])], &has(Some(7)))),
    ];
    let of_interest = |line: &&str| !line.contains("nowhere");
    let all = all.map(|text| text.lines().filter(of_interest).collect::<Vec<_>>().join("\n"));
    insta::assert_snapshot!(all.join("\n--\n"), @"
    capacity 2500 because of Ingress shop/b generation 7, alb.ingress.kubernetes.io/minimum-load-balancer-capacity
    frozen: shop/a
    Error conflict on Ingress shop/a: alb.ingress.kubernetes.io/minimum-load-balancer-capacity: the reserved capacity should be `1000`, but a group has only one: `2500`, which the load balancer of the group has, and Ingress shop/b requests; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    --
    capacity 1000 because of Ingress shop/a generation 7, alb.ingress.kubernetes.io/minimum-load-balancer-capacity
    frozen: shop/b
    Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/minimum-load-balancer-capacity: the reserved capacity should be `2500`, but a group has only one: `1000`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    --
    Warning no-effect on Ingress shop/a: alb.ingress.kubernetes.io/minimum-load-balancer-capacity: members of the group request different values, and the reserved capacity that the load balancer has cannot be read, so that it stays; make them agree, and allow the controller to read it (the log has the error)
    Warning no-effect on Ingress shop/b: alb.ingress.kubernetes.io/minimum-load-balancer-capacity: members of the group request different values, and the reserved capacity that the load balancer has cannot be read, so that it stays; make them agree, and allow the controller to read it (the log has the error)
    --
    frozen: shop/a
    Warning no-effect on Ingress shop/b: alb.ingress.kubernetes.io/minimum-load-balancer-capacity: the reserved capacity of the load balancer stays as it is while Ingress shop/a has mistakes: it is served as before, and may request another; correct Ingress shop/a, or put this Ingress in another group
    --
    capacity 2500 because of Ingress shop/b generation 7, alb.ingress.kubernetes.io/minimum-load-balancer-capacity
    frozen: shop/a
    --
    capacity 2500 because of Ingress shop/b generation 7, alb.ingress.kubernetes.io/minimum-load-balancer-capacity
    frozen: shop/a
    ");
}
