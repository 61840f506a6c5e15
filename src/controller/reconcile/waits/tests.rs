use std::collections::BTreeSet;

use super::*;
use albatross_core::{
    model::{Cause, Listener, ListenerArn, ObjectReference, Rule, Tags},
    plan::ListenerReference,
    testing::{listener, plan_in_spite_of, plan_of},
};

const HOLD: Duration = Duration::from_secs(120);

fn waits_with_holds() -> Waits {
    Waits::new(Holds { load_balancer: HOLD, ..Holds::DEFAULT })
}

fn web() -> StackId {
    StackId::Ingress(ObjectName::new("shop", "web"))
}

fn note(waits: &Waits, wanted: &[Wait]) -> Due {
    waits.note(&web(), &plan_of(Vec::new(), wanted.iter().cloned()), &BTreeSet::new())
}

fn again(after: Duration) -> Due {
    Due { again: Some(after), ..Due::default() }
}

fn ready(name: &str) -> Wait {
    Wait::Ready(ResourceId::of_tag(name))
}

#[tokio::test(start_paused = true)]
async fn an_old_load_balancer_may_go_when_its_time_has_passed() {
    let (waits, old) = (waits_with_holds(), LoadBalancerArn::new("arn:old"));
    let hold = Wait::RetainOld(old.clone());
    assert_eq!(note(&waits, &[Wait::LoadBalancerActive]), again(LOOK));
    // A frozen member needs it: its time does not run, and the member's mending brings the stack back.
    assert_eq!(note(&waits, &[Wait::Mended(old.clone())]), again(DEADLINE));
    tokio::time::advance(HOLD).await;
    assert_eq!(note(&waits, std::slice::from_ref(&hold)), again(HOLD));
    tokio::time::advance(Duration::from_secs(119)).await;
    // Another wait beside it changes nothing of its time.
    let gone = Wait::BindingGone(ObjectName::new("shop", "a"));
    assert_eq!(note(&waits, &[hold.clone(), gone]), again(Duration::from_secs(1)));
    assert_eq!(waits.expired(&web()).load_balancers, BTreeSet::new());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(waits.expired(&web()).load_balancers, BTreeSet::from([old]));
    assert_eq!(note(&waits, &[]), Due::default());
    assert_eq!(waits.expired(&web()).load_balancers, BTreeSet::new());
}

#[tokio::test(start_paused = true)]
async fn a_restart_begins_no_hold_anew() {
    let (waits, hold) = (waits_with_holds(), Wait::RetainOld(LoadBalancerArn::new("arn:old")));
    let gone = Wait::BindingGone(ObjectName::new("shop", "a"));
    note(&waits, &[hold.clone(), ready("a"), Wait::RetainListener(80), gone]);
    tokio::time::advance(Duration::from_secs(29)).await;
    let ages = waits.ages(&web());
    let age = Duration::from_secs(29);
    let timed = [(hold.clone(), age), (ready("a"), age), (Wait::RetainListener(80), age)];
    assert_eq!(ages, BTreeMap::from(timed));
    let after = waits_with_holds();
    after.restore(&web(), ages);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(after.expired(&web()).listeners, BTreeMap::from([(80, true)]));
    assert_eq!(note(&after, &[hold]), again(HOLD - Duration::from_secs(30)));
}

#[tokio::test(start_paused = true)]
async fn rules_wait_for_healthy_targets_no_longer_than_the_deadline_each_for_its_own() {
    let waits = waits_with_holds();
    let (a, b) = (ready("shop/a-a:80"), ready("shop/b-b:80"));
    assert_eq!(note(&waits, std::slice::from_ref(&a)), again(LOOK_FIRST));
    tokio::time::advance(LOOK * 2).await;
    assert_eq!(note(&waits, std::slice::from_ref(&a)), again(LOOK));
    tokio::time::advance(Duration::from_secs(288)).await;
    assert_eq!(note(&waits, &[a.clone(), b.clone()]), again(LOOK_FIRST));
    assert_eq!(waits.expired(&web()).health, BTreeSet::new());
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(waits.expired(&web()).health, BTreeSet::from([ResourceId::of_tag("shop/a-a:80")]));
    // Its rules come to lead there all the same, in one plan.
    let a = ResourceId::of_tag("shop/a-a:80");
    let due = waits.note(&web(), &plan_in_spite_of([a], [b]), &BTreeSet::new());
    let message = still_unhealthy(due.unhealthy, waits.healthy_within());
    insta::assert_snapshot!(message, @"waiting for the targets of target group shop/a-a:80 to be healthy, until the time for it (`--target-health-deadline`, 300 s) was over; the rules lead there all the same now: look at the targets' health (`kubectl describe targetgroupbinding`, or the target group in AWS), the health check's path and port, and the security groups");
    // A stack that cannot be built waits for no targets.
    waits.end_health(&web());
    assert_eq!((note(&waits, &[]), waits.all()), (Due::default(), vec![]));
}

fn begin(waits: &Waits, wanted: &[Wait]) {
    waits.begin(&web(), &plan_of(Vec::new(), wanted.iter().cloned()), false);
}

#[tokio::test(start_paused = true)]
async fn the_hold_of_a_load_balancer_begins_when_a_plan_has_succeeded_and_ends_with_one() {
    let (waits, old) = (waits_with_holds(), Wait::RetainOld(LoadBalancerArn::new("arn:old")));
    // The new one is not complete, as something fails.
    begin(&waits, std::slice::from_ref(&old));
    tokio::time::advance(HOLD).await;
    begin(&waits, std::slice::from_ref(&old));
    assert_eq!((waits.expired(&web()), waits.all()), (Expired::default(), vec![]));
    assert_eq!(note(&waits, std::slice::from_ref(&old)), again(HOLD));
    tokio::time::advance(HOLD).await;
    // The plan that deletes it fails: it may still go.
    begin(&waits, &[]);
    assert_eq!(waits.expired(&web()).load_balancers.len(), 1);
    note(&waits, &[]);
    assert_eq!(waits.expired(&web()).load_balancers.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_times_of_listeners_begin_when_another_one_is_created_or_gets_rules() {
    let (waits, both) = (waits_with_holds(), [Wait::RetainListener(80), Wait::Opened(443)]);
    let action = StepAction::CreateListener { load_balancer: None, listener: Box::new(listener(443)) };
    let create = [Step::new(action, listener(443).cause)];
    let states = |waits: &Waits| (waits.expired(&web()).listeners[&80], waits.expired(&web()).opened[&443]);
    begin(&waits, &both);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(states(&waits), (true, Opening::Everywhere));
    // Attempts that AWS refuses begin nothing anew, and what they retain goes meanwhile.
    begin(&waits, &both);
    waits.carried_out(&web(), &[]);
    assert_eq!(states(&waits), (true, Opening::Everywhere));
    waits.carried_out(&web(), &create);
    assert_eq!(states(&waits), (false, Opening::OnItsWay));
    // It counts although the rest of the plan failed.
    tokio::time::advance(Duration::from_secs(15)).await;
    begin(&waits, &both);
    assert_eq!(states(&waits), (false, Opening::Everywhere));
    assert_eq!(note(&waits, &both), again(LOOK));
}

/// Returns a step that creates a rule on a listener.
fn rule_on(port: u16) -> Step {
    let Listener { default_action: action, cause, .. } = listener(port);
    let rule = Box::new(Rule {
        conditions: Vec::new(),
        action,
        transforms: Vec::new(),
        authentication: None,
        tags: Tags::new(),
        cause: cause.clone(),
    });
    let listener = ListenerReference::Existing(ListenerArn::new("arn:listener"));
    Step::new(StepAction::CreateRule { listener, port, index: 0, priority: 1, rule }, cause)
}

#[tokio::test(start_paused = true)]
async fn redirects_wait_for_a_listener_no_longer_than_the_deadline_whatever_comes_to_it() {
    let (waits, opened) = (waits_with_holds(), [Wait::Opened(443)]);
    let state = |waits: &Waits| waits.expired(&web()).opened[&443];
    // It could not be created for long: then nothing of the time counts.
    begin(&waits, &opened);
    tokio::time::advance(DEADLINE * 2).await;
    assert_eq!(state(&waits), Opening::Overdue);
    let action = StepAction::CreateListener { load_balancer: None, listener: Box::new(listener(443)) };
    waits.carried_out(&web(), &[Step::new(action, listener(443).cause)]);
    let mut states = Vec::new();
    for _ in 0..33 {
        begin(&waits, &opened);
        waits.carried_out(&web(), &[rule_on(443)]);
        states.push(state(&waits));
        note(&waits, &opened);
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    states.dedup();
    assert_eq!(states, [Opening::OnItsWay, Opening::Everywhere, Opening::Overdue]);
    // A restart does not know what became of the targets meanwhile.
    let after = waits_with_holds();
    after.restore(&web(), [(Wait::Opened(443), DEADLINE * 2)]);
    assert_eq!(state(&after), Opening::Everywhere);
    // Targets have all of the time that a flag gives them.
    let patient = Waits::new(Holds { healthy_within: DEADLINE * 3, ..Holds::DEFAULT });
    begin(&patient, &opened);
    tokio::time::advance(DEADLINE * 3).await;
    assert_eq!(state(&patient), Opening::Everywhere);
    tokio::time::advance(Holds::DEFAULT.propagation).await;
    assert_eq!(state(&patient), Opening::Overdue);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_who_moves_begins_when_another_load_balancer_is_published() {
    let (waits, moved) = (waits_with_holds(), Wait::Moved(ObjectName::new("shop", "a")));
    let kept = BTreeSet::from([moved.clone()]);
    for _ in 0..3 {
        waits.remember(&web(), &moved);
        // Nothing is to be done meanwhile.
        assert_eq!(waits.note(&web(), &plan_of(Vec::new(), []), &kept), Due::default());
        assert_eq!(
            (waits.again(&web()), waits.ages(&web())),
            (None, BTreeMap::from([(moved.clone(), Duration::ZERO)]))
        );
        tokio::time::advance(HOLD).await;
    }
    assert!(waits.runs(&web(), &moved));
    tokio::time::advance(HOLD - Duration::from_secs(1)).await;
    assert!(waits.runs(&web(), &moved));
    assert_eq!(waits.note(&web(), &plan_of(Vec::new(), []), &kept), again(Duration::from_secs(1)));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!waits.runs(&web(), &moved));
}

#[tokio::test(start_paused = true)]
async fn a_stack_that_cannot_be_built_does_not_look_at_who_arrives() {
    let (waits, arrived) = (waits_with_holds(), Wait::Arrived(ObjectName::new("shop", "b")));
    assert!(waits.runs(&web(), &arrived));
    tokio::time::advance(HOLD).await;
    assert_eq!(waits.again(&web()), None);
}

#[tokio::test(start_paused = true)]
async fn what_has_waited_long_enough_and_waits_for_others_is_not_looked_at_all_the_time() {
    let waits = waits_with_holds();
    note(&waits, &[ready("shop/a-a:80")]);
    tokio::time::advance(DEADLINE).await;
    assert_eq!(note(&waits, &[ready("shop/a-a:80"), ready("shop/b-b:80")]), again(LOOK_FIRST));
    // Whatever is due at once has a pause.
    note(&waits, &[Wait::RetainListener(80)]);
    tokio::time::advance(DEADLINE).await;
    assert_eq!(note(&waits, &[Wait::RetainListener(80)]), again(SOONEST));
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_did_not_see_the_end_of_a_wait_comes_again() {
    let (waits, moved) = (waits_with_holds(), Wait::Moved(ObjectName::new("shop", "a")));
    let kept = BTreeSet::from([moved.clone()]);
    assert!(waits.runs(&web(), &moved));
    tokio::time::advance(HOLD).await;
    assert_eq!(waits.note(&web(), &plan_of(Vec::new(), []), &kept), again(SOONEST));
    assert_eq!(waits.again(&web()), Some(SOONEST));
    assert!(!waits.runs(&web(), &moved));
    assert_eq!(waits.again(&web()), None);
    // Who is no longer on the way begins anew another time; who comes waits on.
    let arrived = Wait::Arrived(ObjectName::new("shop", "b"));
    assert!(waits.runs(&web(), &arrived));
    waits.follow(&web(), &BTreeSet::from([ObjectName::new("shop", "a")]));
    assert!(waits.has(&web(), &moved));
    waits.follow(&web(), &BTreeSet::new());
    assert_eq!(waits.ages(&web()), BTreeMap::from([(arrived, Duration::ZERO)]));
}

/// Returns a step that changes the rules of a member.
fn modified(member: &str) -> Step {
    let cause = Cause { object: ObjectReference::ingress(&ObjectName::new("shop", member)), ..listener(80).cause };
    let (arn, port) = (ListenerArn::new("arn:listener"), 80);
    Step::new(StepAction::ModifyListener { arn, port, change: Box::default() }, cause)
}

#[tokio::test(start_paused = true)]
async fn targets_that_come_and_go_keep_nobody_from_arriving_for_ever() {
    let (waits, id) = (waits_with_holds(), ResourceId::of_tag("shop/a-a:80"));
    let kept = BTreeSet::from([ready("shop/a-a:80")]);
    for healthy in [false, true].into_iter().cycle().take(20) {
        let plan = plan_of(Vec::new(), (!healthy).then(|| ready("shop/a-a:80")));
        assert!(!waits.begin(&web(), &plan, true));
        waits.note(&web(), &plan, &kept);
        tokio::time::advance(Duration::from_secs(15)).await;
    }
    assert_eq!(waits.expired(&web()).health, BTreeSet::from([id]));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_targets_to_let_a_load_balancer_in_is_told_once() {
    let (waits, plan) = (waits_with_holds(), plan_of(Vec::new(), [Wait::LetIn(ObjectName::new("shop", "a"))]));
    assert_eq!([waits.begin(&web(), &plan, false), waits.begin(&web(), &plan, false)], [true, false]);
}

#[tokio::test(start_paused = true)]
async fn nobody_begins_the_waits_of_others_anew_for_ever() {
    let (waits, arrived) = (waits_with_holds(), Wait::Arrived(ObjectName::new("shop", "b")));
    assert!(waits.runs(&web(), &arrived));
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(10)).await;
        waits.carried_out(&web(), &[modified("b")]);
    }
    assert!(!waits.runs(&web(), &arrived));
}

#[tokio::test(start_paused = true)]
async fn what_is_led_to_although_it_is_not_healthy_stays_overdue_and_is_told_once() {
    let (waits, a) = (waits_with_holds(), ResourceId::of_tag("shop/a-a:80"));
    note(&waits, &[ready("shop/a-a:80")]);
    tokio::time::advance(DEADLINE).await;
    for told in [1, 0, 0] {
        assert_eq!(waits.expired(&web()).health, BTreeSet::from([a.clone()]));
        let due = waits.note(&web(), &plan_in_spite_of([a.clone()], []), &BTreeSet::new());
        assert_eq!((due.unhealthy.len(), due.again), (told, Some(LOOK)));
    }
    assert_eq!((note(&waits, &[]), waits.all()), (Due::default(), vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_time_alone_ends_runs_once_while_it_is_kept() {
    let waits = Waits::new(Holds { load_balancer: HOLD, ..Holds::DEFAULT });
    let (moved, arrived) = (Wait::Moved(ObjectName::new("shop", "a")), Wait::Arrived(ObjectName::new("shop", "b")));
    let kept = BTreeSet::from([moved.clone(), arrived.clone()]);
    let keep = |waits: &Waits| waits.note(&web(), &plan_of(Vec::new(), []), &kept).again;
    // What has not begun is not kept.
    assert_eq!((keep(&waits), waits.all()), (None, vec![]));
    assert!(waits.runs(&web(), &moved) && waits.runs(&web(), &arrived));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(keep(&waits), Some(Duration::from_secs(5)));
    // The member's rules have changed again, and so have another's.
    waits.carried_out(&web(), &[modified("b")]);
    waits.carried_out(&web(), &[modified("c")]);
    tokio::time::advance(Duration::from_secs(14)).await;
    assert!(waits.runs(&web(), &arrived));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!waits.runs(&web(), &arrived));
    assert_eq!(keep(&waits), Some(HOLD - Duration::from_secs(25)));
    let after = Waits::new(Holds { load_balancer: HOLD, ..Holds::DEFAULT });
    after.restore(&web(), waits.ages(&web()));
    tokio::time::advance(HOLD).await;
    assert!(!waits.runs(&web(), &moved) && !after.runs(&web(), &moved));
    // It is over for as long as it is kept.
    assert_eq!(keep(&waits), None);
    assert!(!waits.runs(&web(), &moved));
    note(&waits, &[]);
    assert!(waits.runs(&web(), &moved));
    assert!(!Waits::new(Holds::NONE).runs(&web(), &moved));
}

#[tokio::test(start_paused = true)]
async fn what_a_plan_no_longer_waits_for_is_forgotten_also_when_it_fails() {
    let waits = waits_with_holds();
    begin(&waits, &[ready("shop/a-a:80"), ready("shop/b-b:80")]);
    tokio::time::advance(DEADLINE).await;
    // Another backend, and one that is led to all the same by this plan.
    let b = ResourceId::of_tag("shop/b-b:80");
    waits.begin(&web(), &plan_in_spite_of([b.clone()], [ready("shop/c-c:80")]), false);
    assert_eq!(waits.expired(&web()).health, BTreeSet::from([b]));
    assert_eq!(waits.all().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_target_groups_are_looked_at_less_often_and_those_that_nobody_looks_at_do_not_count() {
    let waits = waits_with_holds();
    for number in 0..20 {
        let stack = StackId::Ingress(ObjectName::new("shop", format!("web-{number}")));
        waits.note(&stack, &plan_of(Vec::new(), [ready("shop/a-a:80")]), &BTreeSet::new());
    }
    assert_eq!(note(&waits, &[ready("shop/a-a:80")]), again(Duration::from_millis(10_500)));
    for number in 20..1000 {
        let stack = StackId::Ingress(ObjectName::new("shop", format!("web-{number}")));
        waits.note(&stack, &plan_of(Vec::new(), [ready("shop/a-a:80")]), &BTreeSet::new());
    }
    assert_eq!(note(&waits, &[ready("shop/a-a:80")]), again(LONGEST_LOOK));
    tokio::time::advance(DEADLINE).await;
    assert_eq!(note(&waits, &[ready("shop/b-b:80")]).again, Some(LOOK_FIRST));
}

#[tokio::test(start_paused = true)]
async fn a_restart_leaves_time_for_targets_that_nobody_has_registered() {
    let waits = waits_with_holds();
    waits.restore(&web(), [(ready("shop/a-a:80"), Duration::from_secs(3600))]);
    assert_eq!(waits.expired(&web()).health, BTreeSet::new());
    tokio::time::advance(LEFT_AFTER_RESTART).await;
    assert_eq!(waits.expired(&web()).health.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn people_are_told_of_a_deletion_that_aws_does_not_carry_out() {
    let (waits, patience) = (waits_with_holds(), Duration::from_secs(300));
    assert!(!waits.blocked("shop/web", "delete security group sg-1", patience));
    tokio::time::advance(Duration::from_secs(299)).await;
    assert!(!waits.blocked("shop/web", "delete security group sg-1", patience));
    assert_eq!(waits.count_blocked(), 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(waits.blocked("shop/web", "delete security group sg-1", patience));
    assert!(waits.blocked("shop/api", "delete load balancer api", Duration::ZERO));
    assert_eq!(waits.count_blocked(), 2);
    // Another deletion has only begun to wait.
    assert!(!waits.blocked("shop/web", "delete security group sg-2", patience));
    waits.unblocked("shop/api");
    assert_eq!(waits.count_blocked(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_old_load_balancer_that_is_protected_is_told_of_once_and_looked_at_again() {
    let (waits, old) = (waits_with_holds(), LoadBalancerArn::new("arn:old"));
    let protected = [Wait::Protected(old.clone())];
    let due = note(&waits, &protected);
    assert_eq!(due.again, Some(DEADLINE));
    insta::assert_snapshot!(due.reports.join("\n"), @"arn:old, replaced by another load balancer, stays: it is protected from deletion; write `deletion_protection.enabled=false` in the annotation of the load balancer's attributes, or switch the protection off in AWS, if the old load balancer may be deleted");
    assert_eq!(note(&waits, &protected), again(DEADLINE));
    // Its time has come all the same.
    assert_eq!(waits.expired(&web()).load_balancers, BTreeSet::from([old]));
}

#[tokio::test(start_paused = true)]
async fn people_are_told_once_when_a_wait_takes_too_long() {
    let waits = waits_with_holds();
    let wait = |name: &str| Wait::BindingGone(ObjectName::new("shop", name));
    assert_eq!(note(&waits, &[]), Due::default());
    assert_eq!(note(&waits, &[wait("a")]), again(DEADLINE));
    tokio::time::advance(Duration::from_secs(100)).await;
    assert_eq!(note(&waits, &[wait("a"), wait("b")]), again(Duration::from_secs(200)));
    insta::assert_snapshot!(serde_json::to_string(&waits.all()).unwrap(), @r#"[{"stack":"Ingress shop/web","wait":"waiting for TargetGroupBinding shop/a to be gone","seconds":100.0,"seconds_left":200.0},{"stack":"Ingress shop/web","wait":"waiting for TargetGroupBinding shop/b to be gone","seconds":0.0,"seconds_left":300.0}]"#);
    tokio::time::advance(Duration::from_secs(200)).await;
    let due = note(&waits, &[wait("a"), wait("b")]);
    assert_eq!(due.again, Some(Duration::from_secs(100)));
    insta::assert_snapshot!(due.reports.join("\n"), @"waiting for TargetGroupBinding shop/a to be gone for 5 minutes; look at its events and finalizers: the target group, and all that is deleted after it, stay until it is gone");
    // Another wait has its own time.
    assert_eq!(note(&waits, &[wait("a"), wait("b")]), again(Duration::from_secs(100)));
    assert_eq!((note(&waits, &[]), waits.all()), (Due::default(), vec![]));
    // No watch tells the state of a load balancer, so it is looked at again also when it has been told.
    let active = [Wait::LoadBalancerActive];
    assert_eq!(note(&waits, &active), again(LOOK));
    tokio::time::advance(DEADLINE).await;
    let due = note(&waits, &active);
    assert_eq!((due.again, due.reports.len()), (Some(LOOK_SELDOM), 1));
    assert_eq!(note(&waits, &active), again(LOOK_SELDOM));
}

#[tokio::test(start_paused = true)]
async fn each_add_on_that_aws_does_not_accept_yet_has_a_time_of_its_own() {
    let (waits, patience) = (waits_with_holds(), Duration::from_secs(600));
    let late = |add_ons: &[AddOn]| {
        waits.retain_add_ons(&web(), &add_ons.iter().copied().collect());
        add_ons.iter().copied().filter(|add_on| waits.is_late(&web(), *add_on, patience)).collect::<BTreeSet<_>>()
    };
    assert_eq!(late(&[AddOn::WebAcl]), BTreeSet::new());
    tokio::time::advance(patience).await;
    assert_eq!(late(&[AddOn::WebAcl, AddOn::Protection]), BTreeSet::from([AddOn::WebAcl]));
    assert_eq!((late(&[AddOn::Protection]), waits.count_blocked()), (BTreeSet::new(), 0));
    // It was accepted, and another time it is not.
    assert_eq!(late(&[AddOn::WebAcl]), BTreeSet::new());
    waits.end(&web());
    assert!(waits.add_ons.lock().unwrap().is_empty());
}
