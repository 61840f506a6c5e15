//! Addresses outside the target group's VPC.

use super::*;
use crate::controller::reconcile::targets::{fake::node, registering};
use albatross_simulation::aws::GivenTargetGroup;

/// Moves the target group to a VPC with 10.50.0.0/16.
fn peer(lab: &Lab) {
    lab.aws.put_vpc("vpc-peered", &["10.50.0.0/16"]);
    lab.aws.put_target_group(GivenTargetGroup { vpc: "vpc-peered".to_owned(), ..group("cart", "ip") });
}

fn edit(lab: &Lab, change: impl FnOnce(&mut TargetGroupBinding)) {
    lab.change(|snapshot| change(snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap()));
}

#[tokio::test]
async fn pods_outside_of_the_vpc_are_registered_in_every_zone_and_go_with_their_zone() {
    let lab = lab(&["10.0.0.1", "192.168.77.10"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["finalizer on", "register 10.0.0.1:8080 192.168.77.10:8080 in all", READY]);
    reconcile(&lab, "tgb").await.unwrap();
    let read = lab.aws.calls().iter().filter(|call| call.operation == "DescribeVpcs").count();
    assert_eq!((lab.log(), read), (vec![], 1));
    lab.serve(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["checkpoint off", "deregister 192.168.77.10:8080 in all"]);
}

#[tokio::test]
async fn the_blocks_are_those_of_the_vpc_that_the_binding_names() {
    let lab = lab(&["10.0.0.1", "10.50.0.1"]);
    peer(&lab);
    edit(&lab, |binding| binding.spec.vpc_id = Some("vpc-peered".into()));
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.registered(), ["10.0.0.1:8080 in all", "10.50.0.1:8080"]);
    assert_eq!(lab.log()[1..], ["register 10.0.0.1:8080 in all 10.50.0.1:8080", READY]);
}

#[tokio::test]
async fn where_the_binding_names_no_vpc_aws_tells_the_target_groups() {
    let lab = lab(&["10.0.0.1"]);
    peer(&lab);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.registered(), ["10.0.0.1:8080 in all"]);
    lab.log();
    // The next pass remembers that the cluster's VPC is not that of the target group.
    lab.serve(&["10.0.0.1", "10.0.0.2"]);
    reconcile(&lab, "tgb").await.unwrap();
    let calls = lab.log();
    assert!(calls.contains(&"register 10.0.0.2:8080 in all".to_owned()), "{calls:?}");
    assert!(!calls.contains(&"register 10.0.0.2:8080".to_owned()), "{calls:?}");
}

#[tokio::test]
async fn where_aws_wants_a_zone_inside_of_the_vpc_it_gets_the_nodes() {
    let lab = lab(&["10.0.0.1"]);
    let labels = BTreeMap::from([("topology.kubernetes.io/zone".to_owned(), "us-west-2-lax-1a".to_owned())]);
    lab.change(|snapshot| drop(snapshot.apply(Node { labels, ..node("n1") })));
    lab.aws.put_into_local_zone("10.0.0.1");
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.registered(), ["10.0.0.1:8080 in us-west-2-lax-1a"]);
}

#[tokio::test(start_paused = true)]
async fn a_takeover_does_not_empty_a_group_of_pods_outside_of_the_vpc() {
    let lab = lab(&["192.168.77.10", "192.168.77.11"]);
    // aws-load-balancer-controller has registered these targets.
    let there = ["192.168.77.10", "192.168.77.11"].map(|id| Registration {
        target: Target { id: id.to_owned(), port: 8080 },
        quic_server_id: None,
        zone: Some("all".to_owned()),
    });
    lab.aws.put_targets(ARN, &there);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["finalizer on", READY]);
    // A rollout: each old pod leaves when its successor is ready.
    for (old, new) in [("192.168.77.10", "192.168.77.12"), ("192.168.77.11", "192.168.77.13")] {
        lab.change(|snapshot| drop(snapshot.apply(crate::controller::reconcile::targets::fake::pod(new))));
        lab.change(|snapshot| {
            let slice = snapshot.endpoint_slices.get(&name("cart-1")).cloned();
            let mut slice = slice.unwrap();
            slice.endpoints.retain(|endpoint| endpoint.address != old);
            slice.endpoints.extend(crate::controller::reconcile::targets::fake::slice("cart", &[new]).endpoints);
            snapshot.apply(slice);
        });
        reconcile(&lab, "tgb").await.unwrap();
    }
    assert_eq!(lab.registered(), ["192.168.77.12:8080 in all", "192.168.77.13:8080 in all"]);
}

/// Returns the number of targets in each call of RegisterTargets.
fn calls(log: &[String]) -> Vec<usize> {
    log.iter().filter(|line| line.starts_with("register ")).map(|line| line.split(' ').count() - 1).collect()
}

#[tokio::test(start_paused = true)]
async fn an_error_that_names_no_target_is_the_groups_and_costs_one_call() {
    let addresses: Vec<String> = (0..200).map(|n| format!("10.0.1.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let lab = lab(&addresses);
    lab.refuse("RegisterTargets", "ValidationError");
    let error = reconcile(&lab, "tgb").await.unwrap_err();
    insta::assert_snapshot!(text(&error), @"
    FailedReconcile: TargetGroupBinding shop/tgb: AWS refuses RegisterTargets: words (ValidationError)
    fix: 
    transient: false
    ");
    assert_eq!(calls(&lab.log()), [200]);
    // The next pass reports the same error without a call, until some time has passed or the binding has changed.
    assert_eq!(reconcile(&lab, "tgb").await.unwrap_err(), error);
    assert_eq!(calls(&lab.log()), [0; 0]);
    edit(&lab, |binding| binding.generation = 2);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(calls(&lab.log()), [200]);
}

#[tokio::test(start_paused = true)]
async fn refused_targets_are_found_in_few_calls_and_not_tried_again_at_once() {
    let addresses: Vec<String> = (0..200).map(|n| format!("10.0.1.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let lab = lab(&addresses);
    lab.aws.refuse_targets(addresses.iter().take(100).copied(), false);
    reconcile(&lab, "tgb").await.unwrap_err();
    let first = calls(&lab.log()).len();
    assert!(first <= 2 * registering::MAX_SPLITS + 2, "{first} calls");
    lab.aws.refuse_targets(["10.0.1.7"], false);
    for _ in 0..20 {
        if reconcile(&lab, "tgb").await.is_ok() {
            break;
        }
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    assert_eq!(lab.registered().len(), 199);
    lab.log();
    // The last target is tried after growing pauses, in a separate call.
    let mut tried = 0;
    for _ in 0..720 {
        tokio::time::advance(Duration::from_secs(5)).await;
        let error = reconcile(&lab, "tgb").await.unwrap_err();
        assert!(matches!(&error.problem, Problem::RefusedTargets(targets) if targets.len() == 1), "{error}");
        let calls = calls(&lab.log());
        assert!(calls.iter().all(|size| *size == 1), "{calls:?}");
        tried += calls.len();
    }
    assert!((6..=12).contains(&tried), "{tried} times within an hour");
    // Another pod at that address is tried at once.
    lab.aws.refuse_targets([], false);
    lab.change(|snapshot| {
        drop(snapshot.apply(Pod { uid: "new".into(), ..crate::controller::reconcile::targets::fake::pod("10.0.1.7") }));
        let mut slices = snapshot.endpoint_slices.values_mut();
        let pods = slices.next().unwrap().endpoints.iter_mut().filter_map(|endpoint| endpoint.pod.as_mut());
        pods.filter(|pod| pod.name == "10.0.1.7").for_each(|pod| pod.uid = Some("new".to_owned()));
    });
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.registered().len(), 200);
}

#[tokio::test]
async fn after_a_restart_too_targets_outside_of_the_vpc_go_with_their_zone() {
    let mut lab = lab(&["10.0.0.1", "192.168.77.10"]);
    reconcile(&lab, "tgb").await.unwrap();
    reconcile(&lab, "tgb").await.unwrap();
    lab.restart();
    edit(&lab, |binding| binding.deleting = true);
    lab.log();
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["deregister 10.0.0.1:8080 192.168.77.10:8080 in all", "finalizer off"]);
    assert_eq!(lab.registered(), [""; 0]);
}
