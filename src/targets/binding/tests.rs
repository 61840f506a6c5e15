use super::*;
use crate::{
    api::crd::target_group_binding::IpAddressType,
    snapshot::Service,
    targets::{
        TargetGroupFacts,
        fake::{ARN, Lab, binding, health, name, not_found, refused, service, slice},
    },
};

const READY: &str = "status 1 True Reconciled: the endpoints of the Service are registered in the target group";

fn yes() -> bool {
    true
}

async fn reconcile(lab: &Lab, called: &str) -> Result<BindingOutcome, TargetsError> {
    lab.targets.reconcile_binding(&name(called), &yes).await
}

/// A lab where `shop/cart` is served at the addresses and bound by `tgb`, without finalizer and status.
fn lab(addresses: &[&str]) -> Lab {
    let lab = Lab::new();
    lab.serve(addresses);
    lab.change(|snapshot| drop(snapshot.apply(binding("tgb", Some(TargetType::Ip)))));
    lab
}

fn text(error: &TargetsError) -> String {
    format!(
        "{}: {error}\nfix: {}\ntransient: {}",
        error.reason(),
        error.fix().unwrap_or_default(),
        error.is_transient()
    )
}

#[test]
fn reconciling_can_be_spawned() {
    fn is_send(_: impl Send) {}
    let lab = Lab::new();
    is_send(lab.targets.reconcile_binding(&name("tgb"), &yes));
    is_send(lab.targets.reconcile_node_rules(&yes));
}

#[tokio::test]
async fn the_finalizer_comes_first_and_nothing_comes_twice() {
    let mut lab = lab(&["10.0.0.1", "10.0.0.2"]);
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert!(outcome.changed && outcome.node_rules && !outcome.gone);
    assert_eq!(lab.log(), ["finalizer on", "register 10.0.0.1:8080 10.0.0.2:8080", READY]);
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((outcome.changed, lab.log()), (false, vec![]));
    lab.restart();
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), [""; 0]);
}

#[tokio::test]
async fn a_watch_that_is_behind_does_not_have_the_status_written_twice() {
    let lab = Lab::behind(true);
    lab.serve(&["10.0.0.1"]);
    lab.change(|snapshot| drop(snapshot.apply(binding("tgb", Some(TargetType::Ip)))));
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["finalizer on", "register 10.0.0.1:8080", READY]);
    reconcile(&lab, "tgb").await.unwrap();
    // The real one sees then that the finalizer is there.
    assert_eq!(lab.log(), ["finalizer on"]);
}

#[tokio::test]
async fn a_rollout_registers_before_it_deregisters() {
    let lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    lab.log();
    lab.serve(&["10.0.0.2"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["register 10.0.0.2:8080", "deregister 10.0.0.1:8080"]);
}

#[tokio::test]
async fn instances_are_registered_at_the_node_port() {
    let lab = lab(&[]);
    lab.change(|snapshot| drop(snapshot.apply(binding("tgb", Some(TargetType::Instance)))));
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["finalizer on", "register i-n1:30080", READY]);
}

#[tokio::test]
async fn what_a_binding_leaves_out_comes_from_its_target_group_once() {
    let lab = lab(&["10.0.0.1"]);
    let facts = |target_type: &str| TargetGroupFacts {
        arn: TargetGroupArn::new(ARN),
        target_type: target_type.to_owned(),
        ip_address_type: IpAddressType::Ipv4,
    };
    let mut bound = binding("tgb", None);
    bound.spec.target_group_arn = None;
    bound.spec.target_group_name = Some("cart".into());
    lab.change(|snapshot| drop(snapshot.apply(bound)));
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @"
    FailedReconcile: TargetGroupBinding shop/tgb: there is no target group `cart` in this account and region
    fix: correct the name, or create the target group
    transient: false
    ");
    lab.cloud.world().groups.push(("cart".into(), facts("lambda")));
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @"
    FailedReconcile: TargetGroupBinding shop/tgb: the target group arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1 is of type lambda, which takes neither pods nor nodes
    fix: bind a target group of type instance or ip
    transient: false
    ");
    lab.log();
    lab.targets.groups().clear();
    lab.cloud.world().groups[0].1 = facts("ip");
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["group Name(\"cart\")", "finalizer on", "register 10.0.0.1:8080", READY]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), [""; 0]);
}

#[tokio::test]
async fn a_deleted_binding_is_let_go_when_nothing_of_it_is_registered() {
    let lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    lab.log();
    let delete =
        |snapshot: &mut Snapshot| snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap().deleting = true;
    lab.change(delete);
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert!(outcome.gone && outcome.changed);
    assert_eq!(lab.log(), ["deregister 10.0.0.1:8080", "finalizer off"]);
    // It stays a while, held by others' finalizers.
    assert!(reconcile(&lab, "tgb").await.unwrap().gone);
    assert_eq!(lab.log(), [""; 0]);
}

#[tokio::test]
async fn a_deleted_binding_is_let_go_when_its_target_group_is_gone() {
    let lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    lab.change(|snapshot| snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap().deleting = true);
    lab.cloud.world().failures.push(("deregister", refused("DeregisterTargets", "TooManyTargets")));
    lab.log();
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @"
    FailedCleanup: TargetGroupBinding shop/tgb: AWS refuses DeregisterTargets: words (TooManyTargets)
    fix: ask AWS to raise the quota `Targets per Application Load Balancer`, or use fewer
    transient: false
    ");
    insta::assert_snapshot!(lab.log().join("\n"), @"
    deregister 10.0.0.1:8080
    status 1 False FailedCleanup: AWS refuses DeregisterTargets: words (TooManyTargets); ask AWS to raise the quota `Targets per Application Load Balancer`, or use fewer
    ");
    lab.cloud.world().failures.push(("deregister", not_found("DeregisterTargets", "TargetGroupNotFound")));
    assert!(reconcile(&lab, "tgb").await.unwrap().gone);
    assert_eq!(lab.log(), ["deregister 10.0.0.1:8080", "forget", "finalizer off"]);
}

#[tokio::test]
async fn of_two_bindings_the_older_has_the_target_group() {
    let lab = lab(&["10.0.0.1"]);
    let mut younger = binding("a-younger", Some(TargetType::Ip));
    younger.created = "2026-02-01T00:00:00Z".into();
    younger.spec.service_ref.name = "other".into();
    lab.change(|snapshot| {
        snapshot.apply(Service { name: name("other"), ..service("other") });
        snapshot.apply(slice("other", &["10.0.0.1"]));
        snapshot.apply(younger);
    });
    insta::assert_snapshot!(text(&reconcile(&lab, "a-younger").await.unwrap_err()), @"
    FailedReconcile: TargetGroupBinding shop/a-younger: the target group arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1 already has the older TargetGroupBinding shop/tgb, and each would deregister the targets of the other
    fix: delete one of the two, or give each a target group of its own
    transient: false
    ");
    insta::assert_snapshot!(lab.log().join("\n"), @"status - False FailedReconcile: the target group arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1 already has the older TargetGroupBinding shop/tgb, and each would deregister the targets of the other; delete one of the two, or give each a target group of its own");
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["finalizer on", "register 10.0.0.1:8080", READY]);
    // When the older goes, the targets are the younger's to keep or to drop.
    lab.change(|snapshot| snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap().deleting = true);
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((outcome.also, lab.log()), (vec![name("a-younger")], vec!["finalizer off".to_owned()]));
    reconcile(&lab, "a-younger").await.unwrap();
    assert_eq!(lab.log(), ["finalizer on", READY]);
}

#[tokio::test]
async fn a_missing_service_is_proved_before_anything_is_deregistered() {
    let lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    lab.cluster.services.lock().unwrap().push(service("cart"));
    lab.change(|snapshot| drop(snapshot.remove::<Service>(&name("cart"))));
    lab.log();
    let error = reconcile(&lab, "tgb").await.unwrap_err();
    assert_eq!((error.problem.clone(), error.is_transient()), (Problem::Behind("Service shop/cart".into()), true));
    assert_eq!(lab.log(), ["read Service shop/cart"]);
    lab.cluster.services.lock().unwrap().clear();
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    let message = "there is no Service shop/cart, so nothing is registered; create it, or correct spec.serviceRef";
    assert_eq!(outcome.notices, [Notice { reason: "BackendNotFound", message: message.into() }]);
    let status = format!("status 1 False BackendNotFound: {message}");
    assert_eq!(lab.log(), ["read Service shop/cart", "deregister 10.0.0.1:8080", &status]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), [""; 0]);
}

#[tokio::test]
async fn one_bad_target_harms_no_other() {
    let lab = lab(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    lab.cloud
        .world()
        .targets
        .get_mut(&TargetGroupArn::new(ARN))
        .unwrap()
        .insert(Target { id: "10.0.0.9".into(), port: 8080 }, health("healthy"));
    lab.cloud.world().bad_targets.insert("10.0.0.2".into());
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @"
    FailedReconcile: TargetGroupBinding shop/tgb: AWS does not take these targets, all others are registered: 10.0.0.2:8080 (AWS refuses RegisterTargets: words (InvalidTarget))
    fix: instances must run, and addresses be, in the target group's VPC
    transient: false
    ");
    insta::assert_snapshot!(lab.log().join("\n"), @"
    finalizer on
    register 10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080
    register 10.0.0.1:8080
    register 10.0.0.2:8080 10.0.0.3:8080
    register 10.0.0.2:8080
    register 10.0.0.3:8080
    deregister 10.0.0.9:8080
    status - False FailedReconcile: AWS does not take these targets, all others are registered: 10.0.0.2:8080 (AWS refuses RegisterTargets: words (InvalidTarget)); instances must run, and addresses be, in the target group's VPC
    ");
}

#[tokio::test]
async fn what_cannot_be_registered_keeps_nothing_registered() {
    let lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    lab.serve(&["10.0.0.2"]);
    lab.cloud.world().failures.push(("register", refused("RegisterTargets", "TooManyTargets")));
    lab.log();
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @"
    FailedReconcile: TargetGroupBinding shop/tgb: AWS refuses RegisterTargets: words (TooManyTargets)
    fix: ask AWS to raise the quota `Targets per Application Load Balancer`, or use fewer
    transient: false
    ");
    let log = lab.log();
    assert_eq!(log[..2], ["register 10.0.0.2:8080", "deregister 10.0.0.1:8080"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["register 10.0.0.2:8080", READY]);
}

#[tokio::test]
async fn nothing_is_written_without_the_lease() {
    let lab = lab(&["10.0.0.1"]);
    let error = lab.targets.reconcile_binding(&name("tgb"), &|| false).await.unwrap_err();
    assert!(error.is_withheld() && error.is_transient());
    assert_eq!(lab.log(), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused() {
    for (change, field) in [
        (
            (|spec| spec.multi_cluster_target_group = Some(true)) as fn(&mut TargetGroupBindingSpec),
            "multiClusterTargetGroup",
        ),
        (|spec| spec.iam_role_arn_to_assume = Some("arn:aws:iam::1:role/x".into()), "iamRoleArnToAssume"),
    ] {
        let lab = lab(&["10.0.0.1"]);
        lab.change(|snapshot| change(&mut snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap().spec));
        let error = reconcile(&lab, "tgb").await.unwrap_err();
        assert_eq!((error.reason(), error.problem.clone()), ("FailedReconcile", Problem::Unsupported(field)));
        let message =
            format!("spec.{field} is not supported yet, so nothing is registered or deregistered; remove spec.{field}");
        assert_eq!(lab.log(), [format!("status - False FailedReconcile: {message}")]);
    }
}

#[tokio::test]
async fn a_deleted_multi_cluster_binding_lets_go_of_its_own_targets_alone() {
    let lab = lab(&["10.0.0.1"]);
    lab.change(|snapshot| {
        let bound = snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap();
        bound.spec.multi_cluster_target_group = Some(true);
        bound.finalizers = vec![BINDING_FINALIZER.to_owned()];
        bound.deleting = true;
    });
    for id in ["10.0.0.1", "10.9.0.1"] {
        let target = Target { id: id.into(), port: 8080 };
        lab.cloud.world().targets.get_mut(&TargetGroupArn::new(ARN)).unwrap().insert(target, health("healthy"));
    }
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["deregister 10.0.0.1:8080", "finalizer off"]);
}
