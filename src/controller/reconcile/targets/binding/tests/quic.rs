//! Target groups of QUIC: each target has the server id of its pod.

use albatross_core::{
    api::crd::target_group_binding::TargetGroupProtocol, model::QuicServerId, snapshot::ContainerServerId,
};

use super::*;

const FIRST: &str = "10.0.0.1:8080 as 0x0000000000000001";

/// Returns a lab whose target group is of QUIC, with pods that have these ids.
fn quic(pods: &[(&str, Option<u64>)]) -> Lab {
    let lab = Lab::new();
    lab.aws.set_protocol(ARN, "QUIC");
    serve(&lab, pods);
    let mut bound = binding("tgb", Some(TargetType::Ip));
    bound.spec.target_group_protocol = Some(TargetGroupProtocol::Quic);
    lab.change(|snapshot| drop(snapshot.apply(bound)));
    lab
}

/// Replaces the pods of the Service.
fn serve(lab: &Lab, pods: &[(&str, Option<u64>)]) {
    lab.serve(&pods.iter().map(|(address, _)| *address).collect::<Vec<_>>());
    lab.change(|snapshot| {
        for (address, id) in pods {
            let pod = snapshot.pods.get_mut(&name(address)).unwrap();
            let of = |id| ContainerServerId {
                variable: "AWS_LBC_QUIC_SERVER_ID".to_owned(),
                id: QuicServerId::new(id),
                ports: [8080].into(),
            };
            pod.server_ids = id.map(of).into_iter().collect();
        }
    });
}

#[tokio::test]
async fn targets_are_registered_with_their_server_ids_and_deregistered_with_them() {
    let mut lab = quic(&[("10.0.0.1", Some(1)), ("10.0.0.2", Some(2))]);
    reconcile(&lab, "tgb").await.unwrap();
    let second = "10.0.0.2:8080 as 0x0000000000000002";
    assert_eq!(lab.log(), ["finalizer on", &format!("register {FIRST} {second}"), READY]);
    assert_eq!(lab.registered(), [FIRST, second]);
    reconcile(&lab, "tgb").await.unwrap();
    lab.restart();
    lab.log();
    assert!(!reconcile(&lab, "tgb").await.unwrap().changed);
    assert_eq!(lab.log(), [""; 0]);
    serve(&lab, &[("10.0.0.1", Some(1))]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["checkpoint off", &format!("deregister {second}")]);
    // The id is deregistered with the binding, also when only the checkpoint knows the targets.
    reconcile(&lab, "tgb").await.unwrap();
    lab.restart();
    lab.log();
    lab.change(|snapshot| snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap().deleting = true);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), [format!("deregister {FIRST}").as_str(), "finalizer off"]);
}

#[tokio::test]
async fn a_pod_at_the_address_of_another_is_registered_with_its_own_id() {
    let lab = quic(&[("10.0.0.1", Some(1)), ("10.0.0.2", Some(2))]);
    reconcile(&lab, "tgb").await.unwrap();
    reconcile(&lab, "tgb").await.unwrap();
    lab.log();
    let third = "10.0.0.1:8080 as 0x0000000000000003";
    serve(&lab, &[("10.0.0.1", Some(3)), ("10.0.0.2", Some(2))]);
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["checkpoint off", &format!("deregister {FIRST}"), &format!("register {third}")]);
    assert_eq!((outcome.targets, lab.registered().contains(&third.to_owned())), (Some(2), true));
    // Where AWS keeps the old one, the new one is not tried, and everything else goes on.
    serve(&lab, &[("10.0.0.1", Some(4)), ("10.0.0.2", Some(2)), ("10.0.0.5", Some(5))]);
    lab.refuse("DeregisterTargets", "OperationNotPermitted");
    reconcile(&lab, "tgb").await.unwrap_err();
    let fifth = "register 10.0.0.5:8080 as 0x0000000000000005";
    assert_eq!(lab.log()[..2], [format!("deregister {third}"), fifth.to_owned()]);
    reconcile(&lab, "tgb").await.unwrap();
    let fourth = "register 10.0.0.1:8080 as 0x0000000000000004";
    assert_eq!(lab.log()[..2], [format!("deregister {third}"), fourth.to_owned()]);
}

#[tokio::test]
async fn pods_without_an_id_are_reported_once_and_leave_no_other_out() {
    let mut lab = quic(&[("10.0.0.1", Some(1)), ("10.0.0.2", None), ("10.0.0.3", None)]);
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["finalizer on", &format!("register {FIRST}"), READY]);
    let notices: Vec<_> =
        outcome.notices.iter().map(|notice| format!("{}: {}", notice.reason, notice.message)).collect();
    insta::assert_snapshot!(notices.join("\n"), @"QuicServerIdMissing: AWS takes the targets of this target group only with a QUIC server id each: 2 pods have none, for example Pod shop/10.0.0.2, so they are not registered; label the namespace `elbv2.k8s.aws/quic-server-id-inject=enabled`, name the containers in the pods' annotation `service.beta.kubernetes.io/aws-load-balancer-quic-enabled-containers`, and create the pods again");
    assert_eq!(outcome.without_server_id, 2);
    let again = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((again.notices, again.without_server_id), (vec![], 2));
    // Another process reports it too, even if it changes nothing.
    lab.restart();
    assert_eq!(reconcile(&lab, "tgb").await.unwrap().notices.len(), 1);
    serve(&lab, &[("10.0.0.1", Some(1)), ("10.0.0.2", Some(2))]);
    assert_eq!(reconcile(&lab, "tgb").await.unwrap().without_server_id, 0);
    serve(&lab, &[("10.0.0.1", Some(1)), ("10.0.0.2", None)]);
    let one = reconcile(&lab, "tgb").await.unwrap().notices.remove(0).message;
    assert!(one.contains("Pod shop/10.0.0.2 has none, so it is not registered"), "{one}");
}

#[tokio::test]
async fn a_server_id_is_free_before_another_target_is_registered_with_it() {
    let lab = quic(&[("10.0.0.1", Some(1)), ("10.0.0.2", Some(2))]);
    reconcile(&lab, "tgb").await.unwrap();
    reconcile(&lab, "tgb").await.unwrap();
    lab.log();
    let third = "10.0.0.3:8080 as 0x0000000000000001";
    serve(&lab, &[("10.0.0.3", Some(1)), ("10.0.0.2", Some(2))]);
    // Where AWS keeps the old one, the new one is not tried.
    lab.refuse("DeregisterTargets", "OperationNotPermitted");
    reconcile(&lab, "tgb").await.unwrap_err();
    assert!(!lab.log().concat().contains(third));
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log()[..2], [format!("deregister {FIRST}"), format!("register {third}")]);
}

#[tokio::test]
async fn a_pod_with_the_id_of_another_is_reported_once_and_leaves_no_other_out() {
    let lab = quic(&[("10.0.0.1", Some(1)), ("10.0.0.2", Some(1)), ("10.0.0.3", Some(3))]);
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.registered(), [FIRST, "10.0.0.3:8080 as 0x0000000000000003"]);
    let notices: Vec<_> =
        outcome.notices.iter().map(|notice| format!("{}: {}", notice.reason, notice.message)).collect();
    insta::assert_snapshot!(notices.join("\n"), @"QuicServerIdDuplicate: AWS takes each QUIC server id for one target only, and the one that is registered keeps it: Pod shop/10.0.0.1 and Pod shop/10.0.0.2 have the same, so only one of them is registered; remove the variable of the server id from the pods' template, where each pod gets its own when it is created, and create the pods again");
    let again = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((again.notices, again.targets, again.without_server_id), (vec![], Some(2), 0));
}

#[tokio::test]
async fn a_target_keeps_its_server_id_when_another_pod_comes_with_it() {
    let fifth = "10.0.0.5:8080 as 0x0000000000000001";
    let mut lab = quic(&[("10.0.0.5", Some(1))]);
    reconcile(&lab, "tgb").await.unwrap();
    reconcile(&lab, "tgb").await.unwrap();
    lab.log();
    serve(&lab, &[("10.0.0.2", Some(1)), ("10.0.0.5", Some(1))]);
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((lab.registered(), outcome.targets), (vec![fifth.to_owned()], Some(1)));
    assert_eq!(outcome.notices.first().map(|notice| notice.reason), Some("QuicServerIdDuplicate"));
    let log = lab.log();
    assert!(log.iter().all(|line| !line.contains("register")), "{log:?}");
    // A restart reads and writes nothing.
    reconcile(&lab, "tgb").await.unwrap();
    lab.restart();
    lab.log();
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((lab.log(), outcome.targets, outcome.changed), (vec![], Some(1), false));
    // The other one gets the id when it is free.
    serve(&lab, &[("10.0.0.2", Some(1))]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.registered(), ["10.0.0.2:8080 as 0x0000000000000001"]);
}

/// Returns a lab where others use the target group too, with one target registered.
async fn shared_and_registered() -> Lab {
    let lab = quic(&[("10.0.0.1", Some(1))]);
    lab.change(|snapshot| {
        let bound = snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap();
        bound.spec.multi_cluster_target_group = Some(true);
    });
    reconcile(&lab, "tgb").await.unwrap();
    reconcile(&lab, "tgb").await.unwrap();
    lab
}

#[tokio::test]
async fn the_record_of_a_shared_group_keeps_a_target_whose_id_could_not_be_freed() {
    let lab = shared_and_registered().await;
    serve(&lab, &[("10.0.0.3", Some(1))]);
    lab.refuse("DeregisterTargets", "OperationNotPermitted");
    reconcile(&lab, "tgb").await.unwrap_err();
    assert_eq!(lab.registered(), [FIRST]);
    // It is still known to be the binding's own.
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.registered(), ["10.0.0.3:8080 as 0x0000000000000001"]);
}

/// The registration may have had its effect although it failed.
#[tokio::test]
async fn the_record_of_a_shared_group_keeps_a_target_that_may_be_registered_again() {
    let lab = shared_and_registered().await;
    serve(&lab, &[("10.0.0.1", Some(3))]);
    lab.refuse("RegisterTargets", "OperationNotPermitted");
    reconcile(&lab, "tgb").await.unwrap_err();
    let record = lab.cluster.records.lock().unwrap().get(&name("tgb")).cloned();
    assert_eq!((lab.registered(), record.as_deref()), (vec![], Some("10.0.0.1:8080")));
}

#[tokio::test]
async fn the_last_targets_go_where_all_pods_have_lost_their_ids() {
    let lab = quic(&[("10.0.0.1", Some(1))]);
    reconcile(&lab, "tgb").await.unwrap();
    lab.log();
    lab.cluster.slices.lock().unwrap().push(slice("cart", &["10.0.0.2"]));
    lab.cluster.pods.lock().unwrap().insert(name("10.0.0.2"), "uid-10.0.0.2".to_owned());
    serve(&lab, &[("10.0.0.2", None)]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["read EndpointSlices of shop/cart", &format!("deregister {FIRST}")]);
}

#[tokio::test]
async fn a_binding_without_a_protocol_has_that_of_its_target_group() {
    let lab = Lab::new();
    lab.aws.set_protocol(ARN, "TCP_QUIC");
    serve(&lab, &[("10.0.0.1", Some(1)), ("10.0.0.2", None)]);
    lab.change(|snapshot| drop(snapshot.apply(binding("tgb", None))));
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((lab.registered(), outcome.without_server_id), (vec![FIRST.to_owned()], 1));
}

#[tokio::test]
async fn nodes_are_no_targets() {
    let lab = quic(&[]);
    let mut bound = binding("tgb", Some(TargetType::Instance));
    bound.spec.target_group_protocol = Some(TargetGroupProtocol::Quic);
    lab.change(|snapshot| drop(snapshot.apply(bound)));
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @"
    FailedReconcile: TargetGroupBinding shop/tgb: the target group is of QUIC, which takes its targets only with a server id each, and instances have none
    fix: use a target group of the target type ip, whose pods have server ids
    transient: false
    ");
}
