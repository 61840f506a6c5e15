//! Pods that wait at a readiness gate.

use std::time::Duration;

use super::*;
use albatross_core::snapshot::{GateState, Readiness, ReadinessGate};

const GATE: &str = "target-health.elbv2.k8s.aws/tgb";
const REGISTERED: &str = "NotReady Elb.RegistrationInProgress Target registration is in progress";

fn gate(lab: &Lab, addresses: &[&str], state: Option<Readiness>) {
    lab.change(|snapshot| {
        for address in addresses {
            let state = state.map(|status| GateState {
                status,
                reason: String::new(),
                message: String::new(),
                since: Some(k8s_openapi::jiff::Timestamp::now()),
            });
            let gates = [ReadinessGate { condition: GATE.to_owned(), state }];
            snapshot.pods.get_mut(&name(address)).unwrap().gates = gates.into();
        }
    });
}

fn healthy(lab: &Lab, address: &str, state: &str) {
    lab.aws.set_health(ARN, &Target { id: address.to_owned(), port: 8080 }, state);
}

fn calls(lab: &Lab) -> Vec<String> {
    lab.log().into_iter().filter(|line| !line.starts_with("status") && !line.starts_with("checkpoint")).collect()
}

#[tokio::test(start_paused = true)]
async fn they_wait_until_aws_finds_them_healthy_and_cost_few_calls() {
    let lab = lab(&["10.0.0.1", "10.0.0.2"]);
    gate(&lab, &["10.0.0.1", "10.0.0.2"], None);
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((outcome.checkpoint_pending, outcome.look), (true, Some(Duration::from_millis(750))));
    let mut written = calls(&lab);
    written[2..].sort();
    assert_eq!(
        written,
        [
            "finalizer on".to_owned(),
            "register 10.0.0.1:8080 10.0.0.2:8080".to_owned(),
            format!("condition shop/10.0.0.1 {REGISTERED}"),
            format!("condition shop/10.0.0.2 {REGISTERED}"),
        ]
    );
    // AWS is not called, however often the binding is reconciled in the meantime.
    ["10.0.0.1", "10.0.0.2"].iter().for_each(|address| healthy(&lab, address, "initial"));
    for _ in 0..3 {
        tokio::time::advance(Duration::from_millis(200)).await;
        reconcile(&lab, "tgb").await.unwrap();
    }
    assert_eq!(calls(&lab), [""; 0]);
    // While they are expected to become healthy, they are looked at every moment; then seldom.
    let mut pauses = Vec::new();
    let mut pause = Duration::from_millis(150);
    while pause < Duration::from_secs(15) {
        tokio::time::advance(pause).await;
        pause = reconcile(&lab, "tgb").await.unwrap().look.unwrap();
        pauses.push(pause.as_secs_f64());
    }
    assert_eq!(pauses.len(), 80);
    pauses.dedup();
    assert_eq!(pauses, [0.75, 15.0]);
    calls(&lab);
    tokio::time::advance(pause).await;
    healthy(&lab, "10.0.0.1", "healthy");
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((outcome.became_ready.len(), outcome.look), (1, Some(Duration::from_secs(15))));
    let mut written = calls(&lab);
    written.sort();
    assert_eq!(written, ["condition shop/10.0.0.1 Ready", "health"]);
    tokio::time::advance(Duration::from_secs(15)).await;
    healthy(&lab, "10.0.0.2", "healthy");
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(calls(&lab), ["health", "condition shop/10.0.0.2 Ready"]);
    assert_eq!(outcome.look, Some(Duration::from_secs(15)));
    // The watch shows the conditions, and no pod waits any more.
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((outcome.look, calls(&lab)), (None, vec![]));
    tokio::time::advance(Duration::from_secs(3600)).await;
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(calls(&lab), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_aws_is_asked_only_where_one_waits() {
    for (state, asked) in
        [(Readiness::Ready, vec![]), (Readiness::NotReady, vec!["health", "condition shop/10.0.0.1 Ready"])]
    {
        let mut lab = lab(&["10.0.0.1"]);
        gate(&lab, &["10.0.0.1"], Some(state));
        reconcile(&lab, "tgb").await.unwrap();
        reconcile(&lab, "tgb").await.unwrap();
        gate(&lab, &["10.0.0.1"], Some(state));
        healthy(&lab, "10.0.0.1", "healthy");
        lab.restart();
        lab.log();
        reconcile(&lab, "tgb").await.unwrap();
        assert_eq!(calls(&lab), asked, "{state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_aws_has_lost_is_registered_again() {
    let mut lab = lab(&["10.0.0.1"]);
    gate(&lab, &["10.0.0.1"], None);
    reconcile(&lab, "tgb").await.unwrap();
    reconcile(&lab, "tgb").await.unwrap();
    lab.aws.put_targets(ARN, &[]);
    lab.restart();
    lab.log();
    assert!(reconcile(&lab, "tgb").await.unwrap().checkpoint_pending);
    // A read takes precedence over the checkpoint.
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(calls(&lab), ["health", "register 10.0.0.1:8080"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_behind_has_nothing_written_twice() {
    let lab = Lab::behind(true);
    lab.serve(&["10.0.0.1"]);
    lab.change(|snapshot| {
        let mut bound = binding("tgb", Some(TargetType::Ip));
        bound.finalizers = vec![BINDING_FINALIZER.to_owned()];
        snapshot.apply(bound);
    });
    gate(&lab, &["10.0.0.1"], None);
    reconcile(&lab, "tgb").await.unwrap();
    healthy(&lab, "10.0.0.1", "healthy");
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(15)).await;
        reconcile(&lab, "tgb").await.unwrap();
    }
    let conditions: Vec<String> = calls(&lab).into_iter().filter(|line| line.starts_with("condition")).collect();
    assert_eq!(
        conditions,
        [format!("condition shop/10.0.0.1 {REGISTERED}"), "condition shop/10.0.0.1 Ready".to_owned()]
    );
}

#[tokio::test(start_paused = true)]
async fn a_target_that_aws_refuses_leaves_no_other_pod_waiting() {
    let lab = lab(&["10.0.0.1", "10.0.0.2"]);
    gate(&lab, &["10.0.0.1", "10.0.0.2"], None);
    lab.aws.refuse_targets(["10.0.0.1"], false);
    reconcile(&lab, "tgb").await.unwrap_err();
    let conditions: Vec<String> = calls(&lab).into_iter().filter(|line| line.starts_with("condition")).collect();
    assert_eq!(conditions, [format!("condition shop/10.0.0.2 {REGISTERED}")]);
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_cannot_be_written_is_told_and_tried_again() {
    let lab = lab(&["10.0.0.1", "10.0.0.2"]);
    gate(&lab, &["10.0.0.1", "10.0.0.2"], None);
    lab.cluster.unwritable.lock().unwrap().insert(name("10.0.0.1"));
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @"
        FailedUpdatePodStatus: TargetGroupBinding shop/tgb: the API server: no
        fix: 
        transient: false
        ");
    assert_eq!(calls(&lab).iter().filter(|line| line.starts_with("condition")).count(), 2);
    lab.cluster.unwritable.lock().unwrap().clear();
    for address in ["10.0.0.1", "10.0.0.2"] {
        healthy(&lab, address, "initial");
    }
    tokio::time::advance(Duration::from_secs(15)).await;
    reconcile(&lab, "tgb").await.unwrap();
    let mut written = calls(&lab);
    written.sort();
    assert_eq!(written, ["condition shop/10.0.0.1 NotReady", "condition shop/10.0.0.2 NotReady", "health"]);
}

#[tokio::test(start_paused = true)]
async fn whose_binding_goes_or_has_no_service_is_let_through() {
    let lab = lab(&["10.0.0.1"]);
    gate(&lab, &["10.0.0.1"], None);
    reconcile(&lab, "tgb").await.unwrap();
    lab.log();
    lab.change(|snapshot| drop(snapshot.remove::<Service>(&name("cart"))));
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(
        calls(&lab),
        [
            "read Service shop/cart",
            "deregister 10.0.0.1:8080",
            "condition shop/10.0.0.1 Ready  the Service of the Target Group Binding is gone"
        ]
    );
    gate(&lab, &["10.0.0.1"], Some(Readiness::NotReady));
    lab.change(|snapshot| snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap().deleting = true);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(calls(&lab), ["condition shop/10.0.0.1 Ready  Target Group Binding is deleted", "finalizer off"]);
}

#[tokio::test(start_paused = true)]
async fn a_pass_in_which_a_target_departs_leaves_the_query_to_the_next() {
    let lab = lab(&["10.0.0.1"]);
    gate(&lab, &["10.0.0.1"], Some(Readiness::NotReady));
    reconcile(&lab, "tgb").await.unwrap();
    tokio::time::advance(Duration::from_secs(4)).await;
    lab.log();
    let urgent = albatross_aws::with_priority(albatross_aws::Priority::Deregister, reconcile(&lab, "tgb"));
    let outcome = urgent.await.unwrap();
    assert_eq!((outcome.look, calls(&lab)), (Some(Duration::ZERO), vec![]));
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(calls(&lab)[0], "health");
}

#[tokio::test(start_paused = true)]
async fn departures_put_a_query_off_for_seconds_only() {
    let lab = lab(&["10.0.0.1", "10.0.0.2"]);
    gate(&lab, &["10.0.0.1"], Some(Readiness::NotReady));
    reconcile(&lab, "tgb").await.unwrap();
    terminate(&lab, "10.0.0.2");
    tokio::time::advance(Duration::from_secs(2)).await;
    lab.log();
    let mut asked = Vec::new();
    for second in 0..20 {
        lab.refuse("DeregisterTargets", "Unexpected");
        let urgent = albatross_aws::with_priority(albatross_aws::Priority::Deregister, reconcile(&lab, "tgb"));
        urgent.await.unwrap_err();
        if calls(&lab).contains(&"health".to_owned()) {
            asked.push(second);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(asked, [4, 10, 16]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_flaps_has_waited_before() {
    let lab = lab(&["10.0.0.1"]);
    gate(&lab, &["10.0.0.1"], None);
    reconcile(&lab, "tgb").await.unwrap();
    healthy(&lab, "10.0.0.1", "unhealthy");
    tokio::time::advance(Duration::from_secs(80)).await;
    let ready = |lab: &Lab, ready| {
        lab.change(|snapshot| {
            snapshot.pods.get_mut(&name("10.0.0.1")).unwrap().containers_ready = ready;
            snapshot.endpoint_slices.get_mut(&name("cart-1")).unwrap().endpoints[0].ready = Some(false);
        });
    };
    for _ in 0..2 {
        ready(&lab, Readiness::NotReady);
        assert_eq!(reconcile(&lab, "tgb").await.unwrap().look, None);
        ready(&lab, Readiness::Ready);
        assert_eq!(reconcile(&lab, "tgb").await.unwrap().look, Some(Duration::from_secs(15)));
    }
    // Another pod of its name waits anew.
    ready(&lab, Readiness::NotReady);
    reconcile(&lab, "tgb").await.unwrap();
    ready(&lab, Readiness::Ready);
    lab.change(|snapshot| {
        snapshot.pods.get_mut(&name("10.0.0.1")).unwrap().uid = "another".to_owned();
        let slice = snapshot.endpoint_slices.get_mut(&name("cart-1")).unwrap();
        slice.endpoints[0].pod.as_mut().unwrap().uid = Some("another".to_owned());
    });
    assert_eq!(reconcile(&lab, "tgb").await.unwrap().look, Some(Duration::from_millis(750)));
}

#[tokio::test(start_paused = true)]
async fn a_binding_whose_pods_wait_no_longer_delays_no_other() {
    type Change = fn(&Lab);
    let changes: [(&str, Change); 3] = [
        ("the Service is gone", |lab| lab.change(|snapshot| drop(snapshot.remove::<Service>(&name("cart"))))),
        ("the target group is gone", |lab| {
            lab.aws.remove_target_group(ARN);
            lab.invalidate();
        }),
        ("the binding names no target group", |lab| {
            lab.change(|snapshot| {
                snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap().spec.target_group_arn = None;
            });
        }),
    ];
    for (case, change) in changes {
        let lab = lab(&["10.0.0.1"]);
        gate(&lab, &["10.0.0.1"], None);
        reconcile(&lab, "tgb").await.unwrap();
        assert!(lab.targets.memory()[&name("tgb")].look.is_some(), "{case}");
        change(&lab);
        drop(reconcile(&lab, "tgb").await);
        assert_eq!(lab.targets.memory()[&name("tgb")].look, None, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_fails_tells_what_it_has_deregistered() {
    let departed = |lab: &Lab| lab.targets.take_departed(&name("tgb")).map(|departed| departed.any);
    let lab = lab(&["10.0.0.1", "10.0.0.2"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(departed(&lab), Some(false));
    // An old target stands in for one that is not registered yet.
    lab.serve(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    gate(&lab, &["10.0.0.3"], None);
    terminate(&lab, "10.0.0.2");
    lab.throttle(0);
    reconcile(&lab, "tgb").await.unwrap_err();
    assert_eq!(departed(&lab), None);
    lab.cluster.unwritable.lock().unwrap().insert(name("10.0.0.3"));
    reconcile(&lab, "tgb").await.unwrap_err();
    assert_eq!((departed(&lab), departed(&lab)), (Some(true), None));
    assert_eq!(lab.registered(), ["10.0.0.1:8080", "10.0.0.3:8080"]);
}

#[tokio::test(start_paused = true)]
async fn a_deregistration_whose_answer_is_lost_is_told_when_it_is_seen() {
    let departed = |lab: &Lab| lab.targets.take_departed(&name("tgb")).map(|departed| departed.any);
    let lab = lab(&["10.0.0.1", "10.0.0.2"]);
    reconcile(&lab, "tgb").await.unwrap();
    departed(&lab);
    lab.serve(&["10.0.0.1"]);
    lab.refuse("DeregisterTargets", "Unexpected");
    reconcile(&lab, "tgb").await.unwrap_err();
    assert_eq!(departed(&lab), None);
    // It has reached AWS.
    healthy(&lab, "10.0.0.2", "draining");
    lab.invalidate();
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(departed(&lab), Some(true));
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(departed(&lab), Some(false));
}

#[tokio::test(start_paused = true)]
async fn pods_that_wait_at_the_start_of_a_process_have_waited_before() {
    let lab = lab(&["10.0.0.1"]);
    gate(&lab, &["10.0.0.1"], Some(Readiness::NotReady));
    lab.change(|snapshot| {
        let pod = snapshot.pods.get_mut(&name("10.0.0.1")).unwrap();
        let mut gates = pod.gates.to_vec();
        gates[0].state.as_mut().unwrap().since = Some(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        pod.gates = gates.into();
    });
    assert_eq!(reconcile(&lab, "tgb").await.unwrap().look, Some(Duration::from_secs(15)));
}
