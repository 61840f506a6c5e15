use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::*;
use crate::controller::reconcile::targets::fake::{
    ARN, Lab, binding as bound, group, instance, interface, name, not_found, refused, security_group, service, slice,
};
use albatross_core::{
    api::crd::target_group_binding::{Networking, NetworkingIngressRule, NetworkingPort, Peer, SecurityGroup},
    model::{Source, StackId, names::NODE_RULE_DESCRIPTION},
    snapshot::TargetGroupBinding,
};
use albatross_simulation::aws::GivenTargetGroup;

const TAG: (&str, &str) = ("kubernetes.io/cluster/demo", "owned");

fn rule(from: i32, to: i32, source: &str) -> SecurityGroupRule {
    SecurityGroupRule {
        protocol: "tcp".into(),
        from_port: Some(from),
        to_port: Some(to),
        source: Source::SecurityGroup(SecurityGroupId::new(source)),
        description: NODE_RULE_DESCRIPTION.into(),
    }
}

/// Returns a binding of `shop/cart` to its own target group that allows `source` at `port`.
fn binding(called: &str, source: &str, port: i32) -> TargetGroupBinding {
    let mut binding = bound(called, Some(TargetType::Ip));
    binding.spec.target_group_arn = Some(format!("{ARN}/{called}"));
    binding.spec.networking = Some(Networking {
        ingress: Some(vec![NetworkingIngressRule {
            from: vec![Peer { ip_block: None, security_group: Some(SecurityGroup { group_id: source.to_owned() }) }],
            ports: vec![NetworkingPort { protocol: None, port: Some(IntOrString::Int(port)) }],
        }]),
    });
    binding
}

/// Returns the binding with the state of one that has had targets.
fn held(binding: TargetGroupBinding) -> TargetGroupBinding {
    let status = albatross_core::api::crd::TargetGroupBindingStatus { observed_generation: Some(1), conditions: None };
    TargetGroupBinding { finalizers: vec![BINDING_FINALIZER.to_owned()], status: Some(status), ..binding }
}

/// Returns a lab with a pod at 10.0.0.1 on an instance in `sg-n`, with these rules and bindings.
fn lab(rules: &[SecurityGroupRule], bindings: Vec<TargetGroupBinding>) -> Lab {
    let lab = Lab::new();
    lab.serve(&["10.0.0.1"]);
    lab.aws.set_instances(vec![instance("n1", vec![interface(0, &["10.0.0.1"], &[], &["sg-n"])])]);
    lab.aws.put_security_group(security_group("sg-n", &[TAG], rules));
    for id in ["sg-other", "sg-lb", "sg-a", "sg-peer"] {
        lab.aws.put_security_group(security_group(id, &[], &[]));
    }
    lab.change(|snapshot| {
        for binding in bindings {
            snapshot.apply(binding);
        }
    });
    lab
}

async fn reconcile(lab: &Lab) -> Vec<String> {
    let result = lab.targets.reconcile_node_rules().await;
    result.err().into_iter().flat_map(|error| error.problems).map(|error| error.to_string()).collect()
}

const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn rules_are_added_and_then_nobody_is_asked_again() {
    let mut lab = lab(&[], vec![binding("a", "sg-lb", 8080), binding("b", "sg-lb", 9090)]);
    assert!(lab.targets.node_rules_due());
    assert_eq!(reconcile(&lab).await, NOTHING);
    assert_eq!(lab.log(), ["sweep", "instances i-n1", "authorize sg-n [tcp 8080-9090 from sg-lb]"]);
    assert!(!lab.targets.node_rules_due());
    reconcile(&lab).await;
    assert_eq!(lab.log(), NOTHING);
    lab.restart();
    reconcile(&lab).await;
    assert_eq!(lab.log(), ["sweep", "instances i-n1"]);
}

#[tokio::test]
async fn a_group_without_the_clusters_tag_is_read_for_its_rules() {
    let lab = lab(&[], vec![binding("a", "sg-lb", 8080)]);
    lab.aws.set_instances(vec![instance("n1", vec![interface(0, &["10.0.0.1"], &[], &["sg-other"])])]);
    assert_eq!(reconcile(&lab).await, NOTHING);
    let calls = ["sweep", "instances i-n1", "groups sg-other", "authorize sg-other [tcp 8080 from sg-lb]"];
    assert_eq!(lab.log(), calls);
}

#[tokio::test]
async fn a_new_range_is_added_before_the_old_one_goes() {
    let old = rule(8080, 8080, "sg-lb");
    let lab = lab(&[old], vec![binding("a", "sg-lb", 8080), binding("b", "sg-lb", 9090)]);
    reconcile(&lab).await;
    let calls = ["authorize sg-n [tcp 8080-9090 from sg-lb]", "revoke sg-n [tcp 8080 from sg-lb]"];
    assert_eq!(lab.log()[2..], calls);
    lab.change(|snapshot| drop(snapshot.remove::<TargetGroupBinding>(&name("a"))));
    lab.change(|snapshot| drop(snapshot.remove::<TargetGroupBinding>(&name("b"))));
    reconcile(&lab).await;
    assert_eq!(lab.log(), ["read a TargetGroupBinding", "revoke sg-n [tcp 8080-9090 from sg-lb]"]);
}

#[tokio::test]
async fn in_a_full_group_what_goes_makes_room() {
    let lab = lab(&[rule(8080, 8080, "sg-lb")], vec![binding("a", "sg-lb", 9090)]);
    lab.refuse("AuthorizeSecurityGroupIngress", "RulesPerSecurityGroupLimitExceeded");
    assert_eq!(reconcile(&lab).await, NOTHING);
    let add = "authorize sg-n [tcp 9090 from sg-lb]";
    assert_eq!(lab.log()[2..], [add, "revoke sg-n [tcp 8080 from sg-lb]", add]);
}

/// Also what would stay open for a while, since the new targets come first.
#[tokio::test(start_paused = true)]
async fn in_a_full_group_the_rules_of_targets_that_left_make_room() {
    let mut lab = lab(&[], vec![binding("a", "sg-lb", 8080)]);
    lab.targets.settings.propagation = Duration::from_secs(15);
    reconcile(&lab).await;
    lab.log();
    lab.change(|snapshot| drop(snapshot.apply(binding("a", "sg-lb", 9090))));
    lab.refuse("AuthorizeSecurityGroupIngress", "RulesPerSecurityGroupLimitExceeded");
    assert_eq!(reconcile(&lab).await, NOTHING);
    let add = "authorize sg-n [tcp 9090 from sg-lb]";
    assert_eq!(lab.log(), [add, "revoke sg-n [tcp 8080 from sg-lb]", add]);
    // A rule that is gone is not made again.
    reconcile(&lab).await;
    assert_eq!(lab.log(), NOTHING);
}

#[tokio::test]
async fn what_may_be_a_bindings_stays_until_it_is_understood() {
    let mut lost = held(binding("lost", "sg-lb", 9090));
    lost.spec.service_ref.name = "lost".into();
    let lab = lab(&[rule(1, 1, "sg-lb")], vec![binding("a", "sg-lb", 8080), lost]);
    lab.change(|snapshot| {
        snapshot.apply(service("lost"));
        snapshot.apply(slice("lost", &["10.0.9.9"]));
        let mut pod = crate::controller::reconcile::targets::fake::pod("10.0.9.9");
        pod.node = "n1".into();
        snapshot.apply(pod);
    });
    // The instance's only interface may not be that of the pods: it is used only because no other is found.
    lab.aws.set_instances(vec![]);
    let reported = reconcile(&lab).await;
    insta::assert_snapshot!(reported.join("\n"), @"
    TargetGroupBinding shop/a: Pod shop/10.0.0.1: no network interface of the VPC has the address 10.0.0.1
    TargetGroupBinding shop/lost: Pod shop/10.0.9.9: no network interface of the VPC has the address 10.0.9.9
    ");
    assert_eq!(lab.log(), ["sweep", "instances i-n1", "interfaces 10.0.0.1 10.0.9.9"]);
    let on_node =
        |second: &[&str]| vec![interface(0, &["10.0.0.1"], &[], &["sg-n"]), interface(1, second, &[], &["sg-other"])];
    lab.aws.set_instances(vec![instance("n1", on_node(&["10.0.1.1"]))]);
    let reported = reconcile(&lab).await;
    insta::assert_snapshot!(reported.join("\n"), @"TargetGroupBinding shop/lost: Pod shop/10.0.9.9: no network interface of the VPC has the address 10.0.9.9");
    assert_eq!(lab.log()[2..], ["authorize sg-n [tcp 8080 from sg-lb]"]);
    lab.aws.set_instances(vec![instance("n1", on_node(&["10.0.1.1", "10.0.9.9"]))]);
    assert_eq!(reconcile(&lab).await, NOTHING);
    let calls = [
        "instances i-n1",
        "groups sg-other",
        "authorize sg-other [tcp 9090 from sg-lb]",
        "revoke sg-n [tcp 1 from sg-lb]",
    ];
    assert_eq!(lab.log(), calls);
}

#[tokio::test]
async fn a_source_that_is_gone_harms_no_other_binding() {
    let lab = lab(&[rule(1, 1, "sg-lb")], vec![binding("a", "sg-lb", 8080), binding("b", "sg-gone", 9090)]);
    let errors = lab.targets.reconcile_node_rules().await.unwrap_err().problems;
    assert!(errors.iter().all(|error| !error.is_transient() && error.fix().is_some()), "somebody has to be told");
    let reported: BTreeSet<_> = errors.iter().map(|error| (error.reason(), error.binding().cloned())).collect();
    assert_eq!(reported, [("FailedNetworkReconcile", Some(name("b")))].into());
    let added = format!("{} ({NODE_RULE_DESCRIPTION})", rule(8080, 8080, "sg-lb"));
    assert!(lab.aws.state().security_groups["sg-n"].ingress.contains(&added));
}

#[tokio::test]
async fn what_was_not_let_in_keeps_its_old_way_in() {
    let old = [rule(1, 1, "sg-lb"), rule(2, 2, "sg-old")];
    let lab = lab(&old, vec![binding("a", "sg-lb", 8080)]);
    let odd = refused("AuthorizeSecurityGroupIngress", "Odd");
    lab.refuse("AuthorizeSecurityGroupIngress", "Odd");
    let reported = reconcile(&lab).await;
    assert_eq!(reported, [format!("TargetGroupBinding shop/a: {odd}")]);
    assert_eq!(lab.log()[3..], ["revoke sg-n [tcp 2 from sg-old]"]);
    assert_eq!(reconcile(&lab).await, NOTHING);
    assert_eq!(lab.log(), ["authorize sg-n [tcp 8080 from sg-lb]", "revoke sg-n [tcp 1 from sg-lb]"]);
}

#[tokio::test]
async fn a_group_is_not_forgotten_when_its_answer_is_lost() {
    let lab = lab(&[rule(1, 1, "sg-lb")], vec![]);
    let lost = || not_found("RevokeSecurityGroupIngress", "InvalidPermission.NotFound");
    lab.aws.refuse("RevokeSecurityGroupIngress", 0, 2, "InvalidPermission.NotFound", "words");
    let reported = reconcile(&lab).await;
    assert_eq!(reported, [format!("security group sg-n: {}", lost())]);
    lab.log();
    assert_eq!(reconcile(&lab).await, NOTHING);
    assert_eq!(lab.log(), ["groups sg-n", "read a TargetGroupBinding", "revoke sg-n [tcp 1 from sg-lb]"]);
}

#[tokio::test]
async fn what_somebody_else_changed_meanwhile_is_read_again() {
    let lab = lab(&[rule(1, 1, "sg-lb")], vec![]);
    lab.refuse("RevokeSecurityGroupIngress", "InvalidPermission.NotFound");
    assert_eq!(reconcile(&lab).await, NOTHING);
    let revoke = "revoke sg-n [tcp 1 from sg-lb]";
    assert_eq!(lab.log(), ["sweep", "read a TargetGroupBinding", revoke, "groups sg-n", revoke]);
}

#[tokio::test]
async fn a_binding_that_is_being_deleted_counts_until_it_is_let_go() {
    let mut ending = binding("a", "sg-lb", 8080);
    (ending.deleting, ending.finalizers) = (true, vec![BINDING_FINALIZER.to_owned()]);
    let lab = lab(&[rule(8080, 8080, "sg-lb")], vec![ending]);
    reconcile(&lab).await;
    assert_eq!(lab.log(), ["sweep", "instances i-n1"]);
    lab.change(|snapshot| snapshot.target_group_bindings.get_mut(&name("a")).unwrap().finalizers.clear());
    reconcile(&lab).await;
    assert_eq!(lab.log(), ["revoke sg-n [tcp 8080 from sg-lb]"]);
}

#[tokio::test]
async fn nothing_is_written_without_the_lease() {
    let lab = lab(&[rule(1, 1, "sg-lb")], vec![binding("a", "sg-lb", 8080)]);
    lab.lose_lease();
    let errors = lab.targets.reconcile_node_rules().await.unwrap_err().problems;
    assert!(errors.len() == 1 && errors[0].is_withheld());
    assert_eq!(lab.log(), ["sweep", "instances i-n1"]);
}

#[tokio::test]
async fn a_list_of_bindings_that_is_falsely_empty_revokes_nothing() {
    let lab = lab(&[rule(8080, 8080, "sg-lb")], vec![]);
    lab.cluster.others.lock().unwrap().1 = true;
    let problem = "rules on the security groups of nodes and pods: a TargetGroupBinding has just appeared";
    assert_eq!(reconcile(&lab).await, [problem]);
    assert_eq!(lab.log(), ["sweep", "read a TargetGroupBinding"]);
    lab.cluster.others.lock().unwrap().1 = false;
    assert_eq!(reconcile(&lab).await, NOTHING);
    assert_eq!(lab.log(), ["read a TargetGroupBinding", "revoke sg-n [tcp 8080 from sg-lb]"]);
}

#[tokio::test]
async fn a_binding_without_targets_is_proved_before_its_rules_go() {
    let lab = lab(&[], vec![binding("a", "sg-lb", 8080)]);
    reconcile(&lab).await;
    lab.log();
    lab.cluster.services.lock().unwrap().push(service("cart"));
    lab.change(|snapshot| drop(snapshot.remove::<albatross_core::snapshot::Service>(&name("cart"))));
    assert_eq!(reconcile(&lab).await, ["TargetGroupBinding shop/a: Service shop/cart has just appeared"]);
    assert_eq!(lab.log(), ["read Service shop/cart"]);
    lab.cluster.services.lock().unwrap().clear();
    assert_eq!(reconcile(&lab).await, NOTHING);
    assert_eq!(lab.log(), ["read Service shop/cart", "revoke sg-n [tcp 8080 from sg-lb]"]);
    // AWS is not called if no rule would be removed.
    assert_eq!(reconcile(&lab).await, NOTHING);
    assert_eq!(lab.log(), NOTHING);
}

/// The times of a binding that has lost its targets: the load balancer goes on to ask if others feed the target group.
#[tokio::test(start_paused = true)]
async fn the_rules_for_targets_of_a_shared_group_outlast_them() {
    let shared = |called: &str| {
        let mut binding = binding(called, "sg-lb", 8080);
        binding.spec.multi_cluster_target_group = Some(called == "shared");
        binding
    };
    for (called, stays) in [("shared", true), ("own", false)] {
        let mut lab = lab(&[], vec![shared(called)]);
        lab.targets.settings.propagation = Duration::from_secs(15);
        reconcile(&lab).await;
        lab.serve(&[]);
        lab.log();
        let outcome = lab.targets.reconcile_node_rules().await.unwrap();
        assert_eq!(outcome.again, stays.then_some(Duration::from_secs(15)));
        assert_eq!(revoked(&lab), usize::from(!stays), "{called}");
        // One that comes back in between begins anew.
        tokio::time::advance(Duration::from_secs(10)).await;
        lab.serve(&["10.0.0.1"]);
        reconcile(&lab).await;
        lab.serve(&[]);
        lab.log();
        for (passed, left) in [(0, 15), (14, 1), (1, 0)] {
            tokio::time::advance(Duration::from_secs(passed)).await;
            let outcome = lab.targets.reconcile_node_rules().await.unwrap();
            let left = Some(Duration::from_secs(left)).filter(|left| stays && !left.is_zero());
            assert_eq!(outcome.again, left, "{called}");
        }
        assert_eq!(revoked(&lab), 1, "{called}");
    }
}

/// Returns the number of revocations in the log.
fn revoked(lab: &Lab) -> usize {
    lab.log().iter().filter(|line| line.starts_with("revoke")).count()
}

/// A load balancer that others feed goes on without the binding, one of a stack goes with it.
#[tokio::test(start_paused = true)]
async fn the_rules_of_a_shared_binding_outlast_it() {
    for is_of_stack in [false, true] {
        let mut binding = binding("shared", "sg-lb", 8080);
        binding.spec.multi_cluster_target_group = Some(true);
        let labels = StackId::Service(name("web")).binding_labels();
        binding.labels.extend(is_of_stack.then_some(labels).into_iter().flatten());
        let mut lab = lab(&[], vec![binding]);
        lab.targets.settings.propagation = Duration::from_secs(15);
        reconcile(&lab).await;
        lab.log();
        lab.change(|snapshot| drop(snapshot.remove::<TargetGroupBinding>(&name("shared"))));
        reconcile(&lab).await;
        assert_eq!(revoked(&lab), usize::from(is_of_stack));
        tokio::time::advance(Duration::from_secs(15)).await;
        reconcile(&lab).await;
        assert_eq!(revoked(&lab), usize::from(!is_of_stack));
    }
}

/// The nodes of the load balancer still send to the targets of before; others are wrong meanwhile.
#[tokio::test(start_paused = true)]
async fn the_old_port_stays_open_for_a_while_whatever_else_is_wrong() {
    let mut wrong = binding("wrong", "sg-peer", 9090);
    wrong.spec.networking.as_mut().unwrap().ingress.as_mut().unwrap()[0].ports[0].port =
        Some(IntOrString::String("unknown".to_owned()));
    let mut lab = lab(&[], vec![binding("a", "sg-lb", 8080), wrong]);
    lab.targets.settings.propagation = Duration::from_secs(15);
    reconcile(&lab).await;
    lab.log();
    lab.change(|snapshot| drop(snapshot.apply(binding("a", "sg-lb", 9090))));
    let failed = lab.targets.reconcile_node_rules().await.unwrap_err();
    assert_eq!(failed.again, Some(Duration::from_secs(15)));
    assert_eq!(lab.log(), ["authorize sg-n [tcp 9090 from sg-lb]"]);
    tokio::time::advance(Duration::from_secs(15)).await;
    reconcile(&lab).await;
    assert_eq!(lab.log(), ["revoke sg-n [tcp 8080 from sg-lb]"]);
}

#[tokio::test]
async fn what_a_refused_binding_lets_in_stays_as_it_is() {
    let mut refused = binding("refused", "sg-peer", 9090);
    refused.spec.iam_role_arn_to_assume = Some("arn:aws:iam::1:role/x".to_owned());
    let rules = [rule(7070, 7070, "sg-peer"), rule(1, 1, "sg-lb")];
    let lab = lab(&rules, vec![binding("a", "sg-lb", 8080), refused]);
    assert_eq!(reconcile(&lab).await, NOTHING);
    let calls = ["authorize sg-n [tcp 8080 from sg-lb]", "revoke sg-n [tcp 1 from sg-lb]"];
    assert_eq!(lab.log()[2..], calls);
}

#[tokio::test]
async fn a_broken_binding_keeps_its_own_rules_and_no_others() {
    let broken = |source: &str| {
        let mut broken = held(binding("broken", source, 9090));
        broken.spec.target_type = Some(TargetType::Instance);
        broken
    };
    let of_cluster_ip = |lab: &Lab| {
        let kind = "ClusterIP".to_owned();
        lab.change(|snapshot| drop(snapshot.apply(albatross_core::snapshot::Service { kind, ..service("cart") })));
    };
    let no_node_ports = "TargetGroupBinding shop/broken: Service shop/cart is of type ClusterIP, which has no node ports for the target type instance";
    // A binding that was never valid: all rules of its source stay, and rules of other sources are removed.
    let rules = [rule(1, 1, "sg-lb"), rule(2, 2, "sg-peer")];
    let lab = lab(&rules, vec![binding("a", "sg-lb", 8080), broken("sg-peer")]);
    of_cluster_ip(&lab);
    assert_eq!(reconcile(&lab).await, [no_node_ports]);
    assert_eq!(lab.log()[2..], ["authorize sg-n [tcp 8080 from sg-lb]", "revoke sg-n [tcp 1 from sg-lb]"]);
    // The error does not trigger another pass without a change.
    assert!(!lab.targets.node_rules_due());
    assert_eq!(reconcile(&lab).await, [no_node_ports]);
    assert_eq!(lab.log(), NOTHING);

    // A binding that was valid: it keeps the rules that it requested then and no others, even if another binding allows
    // the same source.
    let rules = [rule(1, 1, "sg-lb")];
    let lab = self::lab(&rules, vec![binding("a", "sg-lb", 8080), broken("sg-lb")]);
    assert_eq!(reconcile(&lab).await, NOTHING);
    of_cluster_ip(&lab);
    lab.change(|snapshot| drop(snapshot.remove::<TargetGroupBinding>(&name("a"))));
    lab.log();
    assert_eq!(reconcile(&lab).await, [no_node_ports]);
    let calls = ["authorize sg-n [tcp 9090 from sg-lb]", "revoke sg-n [tcp 8080-9090 from sg-lb]"];
    assert_eq!(lab.log(), calls);
    // When the binding is deleted, its rules are removed.
    lab.change(|snapshot| drop(snapshot.remove::<TargetGroupBinding>(&name("broken"))));
    assert_eq!(reconcile(&lab).await, NOTHING);
    assert_eq!(lab.log(), ["read a TargetGroupBinding", "revoke sg-n [tcp 9090 from sg-lb]"]);
}

#[tokio::test]
async fn a_broken_binding_that_names_everybodys_source_stops_no_revoke() {
    let of_cluster_ip = |lab: &Lab| {
        let kind = "ClusterIP".to_owned();
        lab.change(|snapshot| drop(snapshot.apply(albatross_core::snapshot::Service { kind, ..service("cart") })));
    };
    let unreadable = |mut binding: TargetGroupBinding| {
        let rules = binding.spec.networking.as_mut().unwrap().ingress.as_mut().unwrap();
        rules[0].from = vec![Peer { ip_block: None, security_group: None }];
        binding
    };
    let without_node_ports = |mut binding: TargetGroupBinding| {
        binding.spec.target_type = Some(TargetType::Instance);
        binding
    };
    let elsewhere = |mut binding: TargetGroupBinding| {
        binding.spec.service_ref.name = "other".into();
        binding.spec.networking.as_mut().unwrap().ingress.as_mut().unwrap()[0].ports[0].port =
            Some(IntOrString::String("none".into()));
        binding
    };
    let made = || binding("broken", "sg-lb", 9090);
    for (case, broken) in [
        ("a peer that cannot be read", unreadable(held(made()))),
        ("never understood, and without targets", without_node_ports(made())),
        ("its targets are in another group", elsewhere(held(made()))),
    ] {
        let lab = lab(&[rule(1, 1, "sg-lb")], vec![binding("a", "sg-lb", 8080), broken]);
        of_cluster_ip(&lab);
        lab.change(|snapshot| {
            snapshot.apply(service("other"));
            snapshot.apply(slice("other", &["10.0.9.9"]));
            snapshot.apply(crate::controller::reconcile::targets::fake::pod("10.0.9.9"));
        });
        let groups = vec![interface(0, &["10.0.0.1"], &[], &["sg-n"]), interface(1, &["10.0.9.9"], &[], &["sg-other"])];
        lab.aws.set_instances(vec![instance("n1", groups)]);
        lab.aws.put_security_group(security_group("sg-other", &[], &[rule(9090, 9090, "sg-lb")]));
        assert_eq!(reconcile(&lab).await.len(), 1, "{case}");
        let calls = lab.log();
        let changes: Vec<_> = calls.iter().filter(|call| call.contains("sg-n ")).collect();
        let expected = ["authorize sg-n [tcp 8080 from sg-lb]", "revoke sg-n [tcp 1 from sg-lb]"];
        assert_eq!(changes, expected, "{case}");
        assert!(!calls.iter().any(|call| call.starts_with("revoke sg-other")), "{case}: {calls:?}");
    }
}

#[tokio::test]
async fn an_audit_does_not_forget_what_a_broken_binding_asked_for() {
    let lab = lab(&[], vec![binding("a", "sg-lb", 8080), binding("b", "sg-lb", 9090)]);
    assert_eq!(reconcile(&lab).await, NOTHING);
    lab.change(|snapshot| {
        snapshot.target_group_bindings.get_mut(&name("b")).unwrap().spec.target_type = Some(TargetType::Instance);
        drop(snapshot.apply(albatross_core::snapshot::Service { kind: "ClusterIP".to_owned(), ..service("cart") }));
    });
    lab.targets.invalidate_node_rules().await;
    lab.log();
    assert_eq!(reconcile(&lab).await.len(), 1);
    assert_eq!(lab.log(), ["sweep", "instances i-n1"]);
    // The binding keeps the rules that it requested, and not all rules of its source.
    lab.change(|snapshot| drop(snapshot.remove::<TargetGroupBinding>(&name("a"))));
    assert_eq!(reconcile(&lab).await.len(), 1);
    assert_eq!(lab.log(), ["authorize sg-n [tcp 9090 from sg-lb]", "revoke sg-n [tcp 8080-9090 from sg-lb]"]);
}

#[tokio::test]
async fn in_a_full_group_a_wider_rule_takes_the_place_of_one_that_may_be_anothers() {
    let mut refused_binding = binding("refused", "sg-lb", 8080);
    refused_binding.spec.iam_role_arn_to_assume = Some("arn:aws:iam::1:role/x".to_owned());
    let asks = vec![binding("a", "sg-lb", 8080), binding("b", "sg-lb", 9090), refused_binding];
    let lab = lab(&[rule(8080, 8080, "sg-lb"), rule(1, 1, "sg-lb")], asks);
    lab.refuse("AuthorizeSecurityGroupIngress", "RulesPerSecurityGroupLimitExceeded");
    assert_eq!(reconcile(&lab).await, NOTHING);
    let add = "authorize sg-n [tcp 8080-9090 from sg-lb]";
    assert_eq!(lab.log()[2..], [add, "revoke sg-n [tcp 8080 from sg-lb]", add]);
}

#[tokio::test]
async fn the_rules_of_nodes_are_computed_from_what_is_known_and_aws_is_not_asked_about_each_binding() {
    let by_name = |called: &str| {
        let mut bound = held(binding(called, "sg-lb", 8080));
        (bound.spec.target_group_arn, bound.spec.target_group_name) = (None, Some(called.into()));
        bound.spec.target_type = None;
        bound
    };
    let lab = lab(&[rule(1, 1, "sg-lb")], (0..20).map(|n| by_name(&format!("unknown-{n}"))).collect());
    assert_eq!(reconcile(&lab).await, NOTHING);
    // Their rules stay until their own passes have found their target groups.
    assert_eq!(lab.log(), ["sweep"]);
    assert_eq!(reconcile(&lab).await, NOTHING);
    assert_eq!(lab.log(), NOTHING);
    assert!(!lab.targets.allows_sources(&by_name("unknown-1")));
    lab.aws.put_target_group(group("unknown-1", "ip"));
    lab.targets.reconcile_binding(&name("unknown-1")).await.unwrap();
    assert!(lab.targets.node_rules_due(), "what has been found is to be let in");
    lab.log();
    assert_eq!(reconcile(&lab).await, NOTHING);
    assert_eq!(lab.log(), ["instances i-n1", "authorize sg-n [tcp 8080 from sg-lb]"]);
}

#[tokio::test]
async fn until_the_stacks_binding_is_there_the_one_before_keeps_its_rules() {
    let old = || held(binding("old", "sg-lb", 8080));
    let lab = lab(&[rule(8080, 8080, "sg-lb")], vec![old(), binding("a", "sg-a", 7070)]);
    let of_stack = [
        ("elbv2.k8s.aws/cluster", "demo"),
        ("ingress.k8s.aws/stack", "shop/web"),
        ("ingress.k8s.aws/resource", "shop/web-cart:80"),
    ];
    let tags = of_stack.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let old_group = GivenTargetGroup::new(&format!("{ARN}/old"), "old", "ip");
    lab.aws.put_target_group(GivenTargetGroup { tags, ..old_group });
    assert_eq!(reconcile(&lab).await, NOTHING);
    assert_eq!(lab.log()[2..], ["authorize sg-n [tcp 7070 from sg-a]"]);
    // A binding that takes over has the name of the target group, which is `cart` by its ARN.
    let new = TargetGroupBinding { name: name("cart"), ..binding("old", "sg-lb", 9090) };
    lab.change(|snapshot| drop(snapshot.apply(new)));
    assert_eq!(reconcile(&lab).await, NOTHING);
    let calls = ["authorize sg-n [tcp 9090 from sg-lb]", "revoke sg-n [tcp 8080 from sg-lb]"];
    assert_eq!(lab.log(), calls);
}

#[tokio::test]
async fn a_group_whose_rules_cannot_be_taken_away_keeps_no_other_from_losing_its_own() {
    let lab = lab(&[rule(1, 1, "sg-lb")], vec![binding("a", "sg-lb", 8080)]);
    let other = security_group("sg-other", &[TAG], &[rule(2, 2, "sg-lb")]);
    lab.aws.put_security_group(other);
    lab.refuse("RevokeSecurityGroupIngress", "Odd");
    assert_eq!(reconcile(&lab).await.len(), 1);
    assert_eq!(lab.log()[3..], ["revoke sg-n [tcp 1 from sg-lb]", "revoke sg-other [tcp 2 from sg-lb]"]);
}

#[tokio::test]
async fn rules_of_a_binding_that_is_not_understood_stay_also_in_groups_that_were_given_up() {
    let breaks = |lab: &Lab| {
        lab.change(|snapshot| {
            snapshot.target_group_bindings.get_mut(&name("b")).unwrap().spec.target_type = Some(TargetType::Instance);
            drop(snapshot.apply(albatross_core::snapshot::Service { kind: "ClusterIP".to_owned(), ..service("cart") }));
        });
    };
    let both = || vec![binding("a", "sg-lb", 8080), binding("b", "sg-lb", 9090)];
    let no_revoke = |lab: &Lab, case: &str| {
        let calls = lab.log();
        assert!(!calls.iter().any(|call| call.starts_with("revoke")), "{case}: {calls:?}");
    };

    // Two groups of an interface have the cluster's tag, so it is ambiguous which one should get the rules.
    let lab = lab(&[], both());
    assert_eq!(reconcile(&lab).await, NOTHING);
    let other = security_group("sg-other", &[TAG], &[]);
    lab.aws.put_security_group(other);
    lab.aws.set_instances(vec![instance("n1", vec![interface(0, &["10.0.0.1"], &[], &["sg-n", "sg-other"])])]);
    lab.targets.invalidate_node_rules().await;
    lab.log();
    assert!(!reconcile(&lab).await.is_empty());
    no_revoke(&lab, "two tagged groups");

    // The group has no tag, so only the bindings lead to it.
    let lab = self::lab(&[], both());
    lab.aws.put_security_group(security_group("sg-n", &[], &[]));
    assert_eq!(reconcile(&lab).await, NOTHING);
    breaks(&lab);
    lab.targets.invalidate_node_rules().await;
    lab.log();
    assert!(!reconcile(&lab).await.is_empty());
    no_revoke(&lab, "an untagged group");
}

#[tokio::test]
async fn rules_of_two_sources_that_are_not_made_together_count_as_missing_for_both() {
    let asks = || vec![binding("a", "sg-a", 7070), binding("b", "sg-lb", 9090)];
    let lab = lab(&[rule(1, 1, "sg-lb"), rule(1, 1, "sg-a")], asks());
    lab.aws.refuse("AuthorizeSecurityGroupIngress", 0, 3, "Odd", "words");
    let problems = reconcile(&lab).await;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(!lab.log().iter().any(|call| call.starts_with("revoke")));
    assert_eq!(asks().iter().map(|binding| lab.targets.allows_sources(binding)).collect::<Vec<_>>(), [false, false]);
}

#[tokio::test]
async fn each_generation_of_a_binding_has_the_rules_looked_at_also_one_that_has_to_be_corrected() {
    let at = |generation| TargetGroupBinding { generation, ..held(binding("a", "sg-lb", 8080)) };
    let lab = lab(&[], vec![at(1)]);
    lab.aws.put_target_group(GivenTargetGroup::new(&format!("{ARN}/a"), "a", "ip"));
    lab.targets.reconcile_binding(&name("a")).await.unwrap();
    assert_eq!(reconcile(&lab).await, NOTHING);
    assert!(lab.targets.allows_sources(&at(1)) && !lab.targets.allows_sources(&at(2)));
    // The input of the rules is unchanged, but a stack may wait for this generation.
    lab.change(|snapshot| drop(snapshot.apply(at(2))));
    lab.targets.reconcile_binding(&name("a")).await.unwrap();
    assert!(lab.targets.node_rules_due());
    assert_eq!(reconcile(&lab).await, NOTHING);
    assert!(lab.targets.allows_sources(&at(2)));
    let wrong = |generation| {
        let mut wrong = at(generation);
        wrong.spec.target_type = Some(TargetType::Instance);
        wrong
    };
    for generation in [3, 4] {
        lab.change(|snapshot| {
            drop(snapshot.apply(albatross_core::snapshot::Service { kind: "ClusterIP".to_owned(), ..service("cart") }));
            drop(snapshot.apply(wrong(generation)));
        });
        assert!(lab.targets.reconcile_binding(&name("a")).await.is_err());
        assert!(lab.targets.node_rules_due(), "generation {generation}");
        assert_eq!(reconcile(&lab).await.len(), 1);
        assert!(lab.targets.reconcile_binding(&name("a")).await.is_err());
        assert!(!lab.targets.node_rules_due(), "generation {generation} once more");
    }
}
