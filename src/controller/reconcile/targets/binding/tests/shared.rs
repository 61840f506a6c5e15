//! Target groups that other clusters use too.

use super::*;

/// A target of another cluster.
const FOREIGN: &str = "10.9.0.1";

fn at(addresses: &[&str]) -> Vec<albatross_core::model::Registration> {
    addresses.iter().map(|id| Target { id: (*id).to_owned(), port: 8080 }.into()).collect()
}

fn edit(lab: &Lab, change: impl FnOnce(&mut TargetGroupBinding)) {
    lab.change(|snapshot| change(snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap()));
}

fn shares(lab: &Lab, shared: bool) {
    edit(lab, |binding| binding.spec.multi_cluster_target_group = Some(shared));
}

/// Returns a lab like [`lab`] where the group is shared and has the target of another cluster.
fn shared_lab(addresses: &[&str]) -> Lab {
    let lab = lab(addresses);
    shares(&lab, true);
    lab.aws.put_targets(ARN, &at(&[FOREIGN]));
    lab
}

fn record(lab: &Lab) -> Option<String> {
    lab.cluster.records.lock().unwrap().get(&name("tgb")).cloned()
}

fn set_record(lab: &Lab, text: Option<&str>) {
    let mut records = lab.cluster.records.lock().unwrap();
    match text {
        Some(text) => drop(records.insert(name("tgb"), text.to_owned())),
        None => drop(records.remove(&name("tgb"))),
    }
}

/// Reconciles until nothing is left to do.
async fn settle(lab: &Lab) {
    while reconcile(lab, "tgb").await.unwrap().checkpoint_pending {}
    lab.log();
}

fn delete(lab: &Lab) {
    edit(lab, |binding| binding.deleting = true);
}

#[tokio::test]
async fn targets_are_recorded_before_they_come_and_forgotten_after_they_go() {
    let mut lab = shared_lab(&["10.0.0.1", "10.0.0.2"]);
    reconcile(&lab, "tgb").await.unwrap();
    let both = "10.0.0.1:8080,10.0.0.2:8080";
    let register = "register 10.0.0.1:8080 10.0.0.2:8080";
    assert_eq!(lab.log(), ["read record", "finalizer on", &format!("record {both}"), register, READY]);
    settle(&lab).await;
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), [""; 0]);
    // A new process trusts the checkpoint, and reads the record before the next change.
    lab.restart();
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), [""; 0]);
    lab.serve(&["10.0.0.2", "10.0.0.3"]);
    reconcile(&lab, "tgb").await.unwrap();
    let during = "record 10.0.0.1:8080,10.0.0.2:8080,10.0.0.3:8080";
    let after = "record 10.0.0.2:8080,10.0.0.3:8080";
    let change = ["register 10.0.0.3:8080", "deregister 10.0.0.1:8080"];
    assert_eq!(lab.log(), ["read record", "checkpoint off", during, change[0], change[1], after]);
    // A target that only goes costs one write.
    lab.serve(&["10.0.0.2"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["deregister 10.0.0.3:8080", "record 10.0.0.2:8080"]);
    assert_eq!(lab.registered(), ["10.0.0.2:8080", "10.9.0.1:8080"]);
}

#[tokio::test]
async fn without_a_record_nothing_is_deregistered() {
    let lab = shared_lab(&["10.0.0.1"]);
    lab.aws.put_targets(ARN, &at(&["10.0.0.1", "10.0.0.7", FOREIGN]));
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["read record", "finalizer on", "record 10.0.0.1:8080", READY]);
    // Neither if the Service is deleted, nor where there are no pods.
    let lab = shared_lab(&[]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((lab.log(), record(&lab)), (vec!["read record".to_owned(), "finalizer on".into(), READY.into()], None));
    lab.change(|snapshot| snapshot.services.clear());
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.registered(), ["10.9.0.1:8080"]);
}

#[tokio::test]
async fn the_record_of_the_other_controller_is_taken_over() {
    let lab = shared_lab(&["10.0.0.1"]);
    lab.aws.put_targets(ARN, &at(&["10.0.0.1", "10.0.0.7", FOREIGN]));
    set_record(&lab, Some("10.0.0.7:8080,10.0.0.1:8080"));
    settle(&lab).await;
    assert_eq!(record(&lab).as_deref(), Some("10.0.0.1:8080"));
    assert_eq!(lab.registered(), ["10.0.0.1:8080", "10.9.0.1:8080"]);
}

#[tokio::test]
async fn a_crash_between_record_and_registration_leaves_nothing_behind() {
    // Recorded, and then the process ended: one target is desired still, the other no more, and a third belongs to another cluster.
    let mut lab = shared_lab(&["10.0.0.1"]);
    set_record(&lab, Some("10.0.0.1:8080,10.0.0.2:8080"));
    settle(&lab).await;
    assert_eq!(record(&lab).as_deref(), Some("10.0.0.1:8080"));
    assert_eq!(lab.registered(), ["10.0.0.1:8080", "10.9.0.1:8080"]);
    // Deregistered, and then the process ended before it forgot.
    set_record(&lab, Some("10.0.0.1:8080,10.0.0.5:8080"));
    lab.restart();
    lab.invalidate();
    settle(&lab).await;
    assert_eq!(record(&lab).as_deref(), Some("10.0.0.1:8080"));
}

#[tokio::test]
async fn a_record_that_cannot_be_written_holds_up_the_registration() {
    let lab = shared_lab(&["10.0.0.1"]);
    *lab.cluster.unanswered.lock().unwrap() = 1;
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @"
    FailedRecordTargets: TargetGroupBinding shop/tgb: the API server: no answer
    fix: 
    transient: false
    ");
    assert_eq!(lab.registered(), ["10.9.0.1:8080"]);
    lab.log();
    reconcile(&lab, "tgb").await.unwrap();
    // The write may have taken effect or not.
    assert_eq!(lab.log()[..2], ["read record", "register 10.0.0.1:8080"]);
}

#[tokio::test]
async fn a_target_whose_deregistration_fails_stays_recorded() {
    let lab = shared_lab(&["10.0.0.1", "10.0.0.2"]);
    settle(&lab).await;
    lab.refuse("DeregisterTargets", "InternalFailure");
    lab.serve(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap_err();
    assert_eq!(record(&lab).as_deref(), Some("10.0.0.1:8080,10.0.0.2:8080"));
    settle(&lab).await;
    assert_eq!(record(&lab).as_deref(), Some("10.0.0.1:8080"));
    assert_eq!(lab.registered(), ["10.0.0.1:8080", "10.9.0.1:8080"]);
}

#[tokio::test]
async fn a_record_that_is_deleted_by_hand_comes_back() {
    let lab = shared_lab(&["10.0.0.1", "10.0.0.2"]);
    settle(&lab).await;
    set_record(&lab, None);
    // The audit reads everything again.
    lab.targets.invalidate_binding(&name("tgb"));
    settle(&lab).await;
    assert_eq!(record(&lab).as_deref(), Some("10.0.0.1:8080,10.0.0.2:8080"));
    // A change does not need it, as this process knows its targets.
    set_record(&lab, None);
    lab.serve(&["10.0.0.1"]);
    settle(&lab).await;
    assert_eq!(lab.registered(), ["10.0.0.1:8080", "10.9.0.1:8080"]);
    assert_eq!(record(&lab).as_deref(), Some("10.0.0.1:8080"));
}

#[tokio::test]
async fn a_group_that_comes_to_be_shared_and_is_shared_no_more() {
    let mut lab = lab(&["10.0.0.1"]);
    settle(&lab).await;
    lab.aws.put_targets(ARN, &at(&["10.0.0.1", FOREIGN]));
    lab.invalidate();
    shares(&lab, true);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["read record", "record 10.0.0.1:8080"]);
    settle(&lab).await;
    // Shared no more, also after a restart: the binding has the whole group.
    lab.restart();
    shares(&lab, false);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["record off", "checkpoint off", "deregister 10.9.0.1:8080"]);
    settle(&lab).await;
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((lab.log(), record(&lab)), (vec![], None));
}

#[tokio::test]
async fn a_deleted_binding_releases_only_its_own_targets_and_its_record() {
    for restarts in [false, true] {
        let mut lab = shared_lab(&["10.0.0.1"]);
        settle(&lab).await;
        if restarts {
            lab.restart();
        }
        delete(&lab);
        reconcile(&lab, "tgb").await.unwrap();
        let read = restarts.then_some("read record");
        let end = ["deregister 10.0.0.1:8080", "record off", "finalizer off"];
        assert_eq!(lab.log(), read.into_iter().chain(end).collect::<Vec<_>>());
        assert_eq!(lab.registered(), ["10.9.0.1:8080"]);
    }
}

#[tokio::test]
async fn a_deleted_binding_without_a_record_releases_what_its_checkpoint_proves() {
    let mut lab = shared_lab(&["10.0.0.1"]);
    settle(&lab).await;
    set_record(&lab, None);
    lab.restart();
    delete(&lab);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["read record", "deregister 10.0.0.1:8080", "record off", "finalizer off"]);
    // And without a checkpoint, it says that it releases nothing.
    let mut lab = shared_lab(&["10.0.0.1"]);
    settle(&lab).await;
    set_record(&lab, None);
    lab.restart();
    edit(&lab, |binding| (binding.deleting, binding.checkpoint) = (true, None));
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["read record", "record off", "finalizer off"]);
    let notices: Vec<_> =
        outcome.notices.iter().map(|notice| format!("{}: {}", notice.reason, notice.message)).collect();
    insta::assert_snapshot!(notices.join("\n"), @"FailedCleanup: no record says which targets of arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1 are this binding's own, so none is deregistered; deregister those of this cluster by hand");
}

#[tokio::test]
async fn two_bindings_that_share_a_group_in_one_cluster_leave_each_other_their_targets() {
    let lab = shared_lab(&["10.0.0.1", "10.0.0.2"]);
    let mut second = binding("other", Some(TargetType::Ip));
    second.spec.multi_cluster_target_group = Some(true);
    lab.change(|snapshot| drop(snapshot.apply(second)));
    settle(&lab).await;
    reconcile(&lab, "other").await.unwrap();
    // Both have the same Service, so the targets are the other's after one is deleted.
    delete(&lab);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.registered(), ["10.0.0.1:8080", "10.0.0.2:8080", "10.9.0.1:8080"]);
    lab.change(|snapshot| {
        snapshot.target_group_bindings.remove(&name("tgb"));
        snapshot.target_group_bindings.get_mut(&name("other")).unwrap().deleting = true;
    });
    reconcile(&lab, "other").await.unwrap();
    assert_eq!(lab.registered(), ["10.9.0.1:8080"]);
}

#[tokio::test]
async fn a_binding_that_does_not_share_keeps_the_group_for_itself() {
    let lab = lab(&["10.0.0.1"]);
    settle(&lab).await;
    let mut second = binding("other", Some(TargetType::Ip));
    second.spec.multi_cluster_target_group = Some(true);
    lab.change(|snapshot| drop(snapshot.apply(second)));
    let error = reconcile(&lab, "other").await.unwrap_err();
    assert!(matches!(error.problem, Problem::Denied(Denied::Taken { .. })), "{error}");
}

#[test]
fn more_targets_than_a_record_has_room_for_are_left_out() {
    let lab = shared_lab(&[]);
    let most = |lab: &Lab| {
        let bound = lab.targets.snapshot().target_group_bindings[&name("tgb")].clone();
        (lab.targets.max_targets(&bound), lab.targets.left_out(&bound, 2).message)
    };
    let message = "2 targets are left out: a binding with spec.multiClusterTargetGroup has at most 9000";
    assert_eq!(most(&lab), (Some(9000), message.to_owned()));
    shares(&lab, false);
    assert_eq!(most(&lab).0, None);
    let mut lab = lab;
    lab.targets.settings.max_targets = Some(10);
    shares(&lab, true);
    let message = "2 targets are left out: --max-targets-per-target-group allows 10";
    assert_eq!(most(&lab), (Some(10), message.to_owned()));
}
