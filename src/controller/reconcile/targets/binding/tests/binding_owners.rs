//! The choice among several bindings of one target group.

use super::*;
use albatross_core::targets::binding_owners::Denied;
use albatross_core::{model::Tags, targets::binding_owners::precedence};
use albatross_simulation::aws::GivenTargetGroup;

fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Sets the group's tags to those of Ingress `shop/web`, for its Service `cart`.
fn of_ingress(lab: &Lab) {
    let of_stack = tags(&[
        ("elbv2.k8s.aws/cluster", "demo"),
        ("ingress.k8s.aws/stack", "shop/web"),
        ("ingress.k8s.aws/resource", "shop/web-cart:80"),
    ]);
    lab.aws.put_target_group(GivenTargetGroup { tags: of_stack, ..group("cart", "ip") });
}

/// Returns the stack's own binding, which has the name of its target group.
fn own() -> TargetGroupBinding {
    let labels = tags(&[("ingress.k8s.aws/stack-namespace", "shop"), ("ingress.k8s.aws/stack-name", "web")]);
    TargetGroupBinding { labels, created: "2026-06-01T00:00:00Z".into(), ..binding("cart", Some(TargetType::Ip)) }
}

/// Returns an older binding in another namespace, with the stack's labels.
fn foreign() -> TargetGroupBinding {
    TargetGroupBinding { name: ObjectName::new("evil", "cart"), created: "2025-01-01T00:00:00Z".into(), ..own() }
}

#[tokio::test]
async fn a_stacks_target_group_is_held_by_its_own_binding_alone() {
    let lab = Lab::new();
    lab.serve(&["10.0.0.1"]);
    of_ingress(&lab);
    let mut by_name = foreign();
    (by_name.spec.target_group_arn, by_name.spec.target_group_name) = (None, Some("cart".into()));
    by_name.name.name = "by-name".into();
    let neighbour = TargetGroupBinding { name: name("neighbour"), ..foreign() };
    lab.change(|snapshot| {
        for binding in [own(), foreign(), by_name, neighbour] {
            snapshot.apply(binding);
        }
    });
    let error = lab.targets.reconcile_binding(&foreign().name).await.unwrap_err();
    insta::assert_snapshot!(text(&error), @"
    FailedReconcile: TargetGroupBinding evil/cart: the target group arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1 was made for Ingress shop/web and belongs to its TargetGroupBinding shop/cart, so nothing is registered or deregistered for this one
    fix: bind a target group of your own, or route to the Service in Ingress shop/web
    transient: false
    ");
    assert!(lab.log().iter().all(|line| line.starts_with("status - False FailedReconcile")));
    for other in [ObjectName::new("evil", "by-name"), name("neighbour")] {
        let error = lab.targets.reconcile_binding(&other).await.unwrap_err();
        assert!(
            matches!(error.problem, Problem::Denied(albatross_core::targets::binding_owners::Denied::OfStack { .. })),
            "{error}"
        );
    }
    lab.log();
    reconcile(&lab, "cart").await.unwrap();
    assert_eq!(lab.log()[..2], ["finalizer on", "register 10.0.0.1:8080"]);
    // The deletion of another binding, even with the controller's finalizer, does not deregister the targets.
    let deleting = TargetGroupBinding { deleting: true, finalizers: vec![BINDING_FINALIZER.into()], ..foreign() };
    lab.change(|snapshot| drop(snapshot.apply(deleting)));
    lab.targets.reconcile_binding(&foreign().name).await.unwrap();
    assert_eq!(lab.log(), ["finalizer off"]);
    // The stack's own binding releases its targets even while others exist.
    lab.change(|snapshot| snapshot.target_group_bindings.get_mut(&name("cart")).unwrap().deleting = true);
    reconcile(&lab, "cart").await.unwrap();
    assert_eq!(lab.log(), ["deregister 10.0.0.1:8080", "finalizer off"]);
}

#[tokio::test]
async fn the_binding_that_has_held_a_target_group_keeps_it() {
    let lab = lab(&["10.0.0.1"]);
    let of = |called: &str, created: &str| TargetGroupBinding {
        created: created.into(),
        ..binding(called, Some(TargetType::Ip))
    };
    reconcile(&lab, "tgb").await.unwrap();
    // The binding is older and has the controller's finalizer: a user who creates an object can write both, but not its
    // status.
    let squatter = TargetGroupBinding { finalizers: vec![BINDING_FINALIZER.into()], ..of("a", "2020-01-01T00:00:00Z") };
    lab.change(|snapshot| drop(snapshot.apply(squatter)));
    lab.log();
    insta::assert_snapshot!(text(&reconcile(&lab, "a").await.unwrap_err()), @"
    FailedReconcile: TargetGroupBinding shop/a: the target group arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1 already has the TargetGroupBinding shop/tgb, and each would deregister the targets of the other
    fix: delete one of the two, give each a target group of its own, or set spec.multiClusterTargetGroup on both
    transient: false
    ");
    lab.log();
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), [""; 0]);
}

#[test]
fn who_comes_first_is_told_by_what_nobody_can_write_ahead() {
    let made = |called: &str, by_arn: bool, day: u32, observed: Option<i64>| {
        let mut made = binding(called, Some(TargetType::Ip));
        made.created = format!("2026-01-{day:02}T00:00:00Z");
        if !by_arn {
            (made.spec.target_group_arn, made.spec.target_group_name) = (None, Some("cart".into()));
        }
        if let Some(observed_generation) = observed {
            made.finalizers = vec![BINDING_FINALIZER.into()];
            made.status = Some(albatross_core::api::crd::TargetGroupBindingStatus {
                observed_generation: Some(observed_generation),
                conditions: None,
            });
        }
        made
    };
    // Both were reconciled by an older release; the older one held the target group.
    let mut bindings = [
        made("name-young", false, 4, None),
        made("name-old", false, 1, None),
        made("arn-young", true, 6, None),
        made("arn-old", true, 5, None),
        made("held-old", true, 7, Some(1)),
        made("held-young", true, 8, Some(1)),
        // This one was edited afterwards, and may have named another target group before.
        made("held-by-name-edited", false, 2, Some(0)),
    ];
    let arn = TargetGroupArn::new(ARN);
    bindings.sort_by(|one, other| precedence(one, &arn).cmp(&precedence(other, &arn)));
    let order: Vec<&str> = bindings.iter().map(|binding| binding.name.name.as_str()).collect();
    let expected = ["held-old", "held-young", "arn-old", "arn-young", "name-old", "held-by-name-edited", "name-young"];
    assert_eq!(order, expected);
}

/// Returns the stack's own binding with another name than its target group, as aws-load-balancer-controller names it
/// after the current name of the stack's target group.
fn renamed(called: &str, created: &str) -> TargetGroupBinding {
    let finalizers = vec![BINDING_FINALIZER.into()];
    TargetGroupBinding { name: name(called), uid: called.into(), created: created.into(), finalizers, ..own() }
}

#[tokio::test]
async fn a_stacks_binding_of_another_name_than_its_group_holds_it() {
    let lab = Lab::new();
    lab.serve(&["10.0.0.1"]);
    of_ingress(&lab);
    let mut unlabelled = renamed("a", "2020-01-01T00:00:00Z");
    unlabelled.labels.clear();
    lab.change(|snapshot| {
        for binding in [renamed("made", "2026-01-01T00:00:00Z"), foreign(), unlabelled] {
            snapshot.apply(binding);
        }
    });
    reconcile(&lab, "made").await.unwrap();
    assert_eq!(lab.log()[0], "register 10.0.0.1:8080");
    for other in [foreign().name, name("a")] {
        let error = lab.targets.reconcile_binding(&other).await.unwrap_err();
        assert!(
            matches!(&error.problem, Problem::Denied(Denied::OfStack { holder, .. }) if *holder == name("made")),
            "{error}"
        );
    }
    // The older of two holds the target group, and deregisters the targets when it is deleted.
    lab.change(|snapshot| drop(snapshot.apply(renamed("b", "2026-02-01T00:00:00Z"))));
    reconcile(&lab, "b").await.unwrap_err();
    lab.log();
    lab.change(|snapshot| snapshot.target_group_bindings.get_mut(&name("b")).unwrap().deleting = true);
    reconcile(&lab, "b").await.unwrap();
    assert_eq!(lab.log(), ["finalizer off"]);
    lab.change(|snapshot| drop(snapshot.remove::<TargetGroupBinding>(&name("b"))));
    lab.change(|snapshot| snapshot.target_group_bindings.get_mut(&name("made")).unwrap().deleting = true);
    reconcile(&lab, "made").await.unwrap();
    assert_eq!(lab.log(), ["deregister 10.0.0.1:8080", "finalizer off"]);
}

#[tokio::test]
async fn an_edit_of_an_older_binding_takes_no_target_group_from_its_holder() {
    const OTHER: &str = "arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/other/1";
    let lab = lab(&["10.0.0.1"]);
    lab.aws.put_target_group(GivenTargetGroup::new(OTHER, "other", "ip"));
    let mut older = TargetGroupBinding { created: "2020-01-01T00:00:00Z".into(), ..binding("a", Some(TargetType::Ip)) };
    older.spec.target_group_arn = Some(OTHER.into());
    lab.change(|snapshot| drop(snapshot.apply(older)));
    reconcile(&lab, "tgb").await.unwrap();
    reconcile(&lab, "a").await.unwrap();
    let edit = |lab: &Lab, called: &str, arn: &str| {
        lab.change(|snapshot| {
            let binding = snapshot.target_group_bindings.get_mut(&name(called)).unwrap();
            binding.spec.target_group_arn = Some(arn.into());
            binding.generation += 1;
        });
    };
    edit(&lab, "a", ARN);
    let taken = |result: Result<BindingOutcome, TargetsError>| matches!(result.unwrap_err().problem, Problem::Denied(Denied::Taken { holder, .. }) if holder == name("tgb"));
    assert!(taken(reconcile(&lab, "a").await));
    // Neither an edit of the holder nor an error of the holder passes the target group on.
    edit(&lab, "tgb", ARN);
    assert!(taken(reconcile(&lab, "a").await));
    lab.serve(&["10.0.0.2"]);
    lab.aws.refuse_targets(["10.0.0.2"], false);
    reconcile(&lab, "tgb").await.unwrap_err();
    assert!(taken(reconcile(&lab, "a").await));
}

#[test]
fn who_held_a_group_under_aws_load_balancer_controller_is_told_by_the_present_spec() {
    let arn = TargetGroupArn::new(ARN);
    let made = |called: &str, generation: i64, created: &str| TargetGroupBinding {
        created: created.into(),
        generation,
        finalizers: vec![BINDING_FINALIZER.into()],
        status: Some(albatross_core::api::crd::TargetGroupBindingStatus {
            observed_generation: Some(1),
            conditions: None,
        }),
        ..binding(called, Some(TargetType::Ip))
    };
    let (held, edited) = (made("held", 1, "2026-01-02"), made("edited", 2, "2026-01-01"));
    assert!(precedence(&held, &arn) < precedence(&edited, &arn));
}
