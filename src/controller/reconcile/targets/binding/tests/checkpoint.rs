//! A binding with a checkpoint of its targets.

use super::*;

fn checkpoint(lab: &Lab) -> Option<String> {
    lab.targets.snapshot().target_group_bindings[&name("tgb")].checkpoint.clone()
}

fn trusted_checkpoint(targets: &[&str]) -> Option<String> {
    Some(record::in_term(0, &record::of_targets(&TargetGroupArn::new(ARN), targets)))
}

#[tokio::test]
async fn it_vouches_once_its_targets_keep_still_and_takes_it_back_before_they_change() {
    let lab = lab(&["10.0.0.1"]);
    assert!(reconcile(&lab, "tgb").await.unwrap().checkpoint_pending);
    assert_eq!(checkpoint(&lab), None);
    assert!(!reconcile(&lab, "tgb").await.unwrap().checkpoint_pending);
    assert_eq!(checkpoint(&lab), trusted_checkpoint(&["10.0.0.1:8080"]));
    lab.log();
    lab.serve(&["10.0.0.2"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["checkpoint off", "register 10.0.0.2:8080", "deregister 10.0.0.1:8080"]);
    assert_eq!(checkpoint(&lab), None);
    // While pods come and go, no more checkpoints are written.
    lab.serve(&["10.0.0.3"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["register 10.0.0.3:8080", "deregister 10.0.0.2:8080"]);
}

#[tokio::test]
async fn after_a_restart_it_is_believed_where_its_word_counts() {
    let mut lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    reconcile(&lab, "tgb").await.unwrap();
    // Another client has deregistered the target in the meantime.
    lab.aws.put_targets(ARN, &[]);
    lab.restart();
    lab.log();
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((outcome.changed, outcome.checkpoint_pending, lab.log()), (false, false, vec![]));
    lab.invalidate();
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["checkpoint off", "register 10.0.0.1:8080"]);
}

#[tokio::test]
async fn it_is_not_believed_about_other_targets_nor_without_its_finalizer() {
    let mut lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    reconcile(&lab, "tgb").await.unwrap();
    lab.restart();
    lab.log();
    lab.serve(&["10.0.0.1", "10.0.0.2"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["checkpoint off", "register 10.0.0.2:8080"]);
    reconcile(&lab, "tgb").await.unwrap();
    let unheld =
        |snapshot: &mut Snapshot| snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap().finalizers.clear();
    lab.change(unheld);
    lab.log();
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["finalizer on"]);
}

#[tokio::test]
async fn it_counts_for_as_long_as_only_controllers_that_write_it_have_led() {
    let mut lab = lab(&["10.0.0.1"]);
    lab.targets.begin(5..=7);
    reconcile(&lab, "tgb").await.unwrap();
    reconcile(&lab, "tgb").await.unwrap();
    let in_term = |term| Some(record::in_term(term, &record::of_targets(&TargetGroupArn::new(ARN), ["10.0.0.1:8080"])));
    assert_eq!(checkpoint(&lab), in_term(7));
    // Another client has deregistered the target in the meantime.
    lab.aws.put_targets(ARN, &[]);
    for term in [8, 9, 10] {
        lab.restart();
        lab.targets.begin(5..=term);
        lab.log();
        reconcile(&lab, "tgb").await.unwrap();
        assert_eq!((lab.log(), checkpoint(&lab)), (vec![], in_term(7)));
    }
    // In the term between, another controller without these checkpoints may have led.
    lab.restart();
    lab.targets.begin(11..=11);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["checkpoint off", "register 10.0.0.1:8080"]);
}

#[tokio::test]
async fn the_checkpoint_of_the_other_controller_goes_before_targets_change() {
    let lab = lab(&["10.0.0.1"]);
    let of_theirs = |lab: &Lab| lab.targets.snapshot().target_group_bindings[&name("tgb")].foreign_checkpoint;
    reconcile(&lab, "tgb").await.unwrap();
    lab.change(|snapshot| {
        snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap().foreign_checkpoint = true;
    });
    // Nothing changes, so the checkpoint is still true.
    reconcile(&lab, "tgb").await.unwrap();
    assert!(of_theirs(&lab));
    lab.log();
    lab.serve(&["10.0.0.2"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["checkpoint off", "register 10.0.0.2:8080", "deregister 10.0.0.1:8080"]);
    assert!(!of_theirs(&lab));
}
