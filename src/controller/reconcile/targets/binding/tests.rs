use super::*;
use crate::controller::reconcile::targets::fake::{ARN, Lab, binding, group, name, node, service, slice};
use albatross_core::snapshot::{EndpointSlice, Node, Pod, Readiness, Service, Snapshot};
use albatross_core::targets::{binding_owners::Denied, endpoints::SilentNodes};

mod binding_owners;
mod checkpoint;
mod gates;
mod quic;
mod roles;
mod shared;
mod zones;

const READY: &str = "status 1 True Reconciled: the endpoints of the Service are registered in the target group";

async fn reconcile(lab: &Lab, called: &str) -> Result<BindingOutcome, TargetsError> {
    lab.targets.reconcile_binding(&name(called)).await
}

/// Returns a lab where `shop/cart` has pods at the addresses and the binding `tgb`, without finalizer and status.
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
    is_send(lab.targets.reconcile_binding(&name("tgb")));
    is_send(lab.targets.reconcile_node_rules());
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
    // The API server's answer shows that the finalizer is there.
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
    lab.aws.put_target_group(group("cart", "instance"));
    lab.change(|snapshot| drop(snapshot.apply(binding("tgb", Some(TargetType::Instance)))));
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["finalizer on", "register i-n1:30080", READY]);
}

#[tokio::test]
async fn what_is_on_silent_nodes_stays_in_need_unless_the_gate_forbids_it() {
    let silent = |snapshot: &mut Snapshot| drop(snapshot.apply(Node { ready: Readiness::Unknown, ..node("n1") }));
    let unready = |snapshot: &mut Snapshot| {
        let mut slice = slice("cart", &["10.0.0.1"]);
        slice.endpoints.iter_mut().for_each(|endpoint| endpoint.ready = Some(false));
        drop(snapshot.apply(slice));
    };
    for (target_type, target) in [("ip", "10.0.0.1:8080"), ("instance", "i-n1:30080")] {
        for (gate, departs) in [(SilentNodes::InNeed, false), (SilentNodes::Never, true)] {
            let mut lab = lab(&["10.0.0.1"]);
            lab.targets.settings.silent_nodes = gate;
            if target_type == "instance" {
                lab.aws.put_target_group(group("cart", "instance"));
                lab.change(|snapshot| drop(snapshot.apply(binding("tgb", Some(TargetType::Instance)))));
            }
            reconcile(&lab, "tgb").await.unwrap();
            assert_eq!(lab.registered(), [target]);
            lab.change(silent);
            lab.change(unready);
            reconcile(&lab, "tgb").await.unwrap();
            let expected = if departs { vec![] } else { vec![target] };
            assert_eq!(lab.registered(), expected, "{target_type} {gate:?}");
        }
    }
}

#[tokio::test]
async fn what_a_binding_leaves_out_comes_from_its_target_group_once() {
    let lab = lab(&["10.0.0.1"]);
    lab.aws.remove_target_group(ARN);
    let mut bound = binding("tgb", None);
    bound.spec.target_group_arn = None;
    bound.spec.target_group_name = Some("cart".into());
    lab.change(|snapshot| drop(snapshot.apply(bound)));
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @"
    FailedReconcile: TargetGroupBinding shop/tgb: there is no target group `cart` in this account and region
    fix: correct the name, or create the target group
    transient: false
    ");
    lab.aws.put_target_group(group("cart", "lambda"));
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @"
    FailedReconcile: TargetGroupBinding shop/tgb: the target group arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1 is of type lambda, which takes neither pods nor nodes
    fix: bind a target group of type instance or ip
    transient: false
    ");
    lab.log();
    // Another target group with the name is created.
    lab.aws.put_target_group(group("cart", "ip"));
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["group Name(\"cart\")", "type Ip", "finalizer on", "register 10.0.0.1:8080", READY]);
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
    // The object stays for a while, held by finalizers of other controllers.
    assert!(reconcile(&lab, "tgb").await.unwrap().gone);
    assert_eq!(lab.log(), [""; 0]);
}

#[tokio::test]
async fn a_deleted_binding_is_let_go_when_its_target_group_is_gone() {
    let lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    lab.change(|snapshot| snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap().deleting = true);
    lab.refuse("DeregisterTargets", "TooManyTargets");
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
    lab.refuse("DeregisterTargets", "TargetGroupNotFound");
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
    FailedReconcile: TargetGroupBinding shop/a-younger: the target group arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1 already has the TargetGroupBinding shop/tgb, and each would deregister the targets of the other
    fix: delete one of the two, give each a target group of its own, or set spec.multiClusterTargetGroup on both
    transient: false
    ");
    insta::assert_snapshot!(lab.log().join("\n"), @"status - False FailedReconcile: the target group arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1 already has the TargetGroupBinding shop/tgb, and each would deregister the targets of the other; delete one of the two, give each a target group of its own, or set spec.multiClusterTargetGroup on both");
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["finalizer on", "register 10.0.0.1:8080", READY]);
    // When the older binding is deleted, the younger one decides about the targets.
    lab.change(|snapshot| snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap().deleting = true);
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!((outcome.unblocked, lab.log()), (vec![name("a-younger")], vec!["finalizer off".to_owned()]));
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
async fn a_status_whose_write_was_not_answered_is_written_again() {
    let lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    lab.change(|snapshot| drop(snapshot.remove::<Service>(&name("cart"))));
    *lab.cluster.unanswered.lock().unwrap() = 1;
    reconcile(&lab, "tgb").await.unwrap_err();
    lab.log();
    lab.serve(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["register 10.0.0.1:8080", READY]);
}

#[tokio::test]
async fn a_checkpoint_whose_write_was_not_answered_is_taken_back_before_anything_changes() {
    let lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    reconcile(&lab, "tgb").await.unwrap();
    lab.serve(&["10.0.0.2"]);
    reconcile(&lab, "tgb").await.unwrap();
    *lab.cluster.unanswered.lock().unwrap() = 1;
    reconcile(&lab, "tgb").await.unwrap_err();
    lab.log();
    lab.serve(&["10.0.0.3"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["checkpoint off", "register 10.0.0.3:8080", "deregister 10.0.0.2:8080", READY]);
}

#[tokio::test]
async fn one_bad_target_harms_no_other() {
    let lab = lab(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    lab.aws.put_targets(ARN, &[Target { id: "10.0.0.9".into(), port: 8080 }.into()]);
    lab.aws.refuse_targets(["10.0.0.2"], false);
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @"
    FailedReconcile: TargetGroupBinding shop/tgb: AWS does not accept these targets; all others are registered: 10.0.0.2:8080 (AWS refuses RegisterTargets: words (InvalidTarget))
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
    status - False FailedReconcile: AWS does not accept these targets; all others are registered: 10.0.0.2:8080 (AWS refuses RegisterTargets: words (InvalidTarget)); instances must run, and addresses be, in the target group's VPC
    ");
}

#[tokio::test]
async fn bad_targets_that_aws_names_cost_one_call_more() {
    let lab = lab(&["10.0.0.1", "10.0.0.2", "10.0.0.22"]);
    lab.aws.refuse_targets(["10.0.0.2"], true);
    let error = reconcile(&lab, "tgb").await.unwrap_err();
    assert!(matches!(&error.problem, Problem::RefusedTargets(targets) if targets.len() == 1));
    let calls = ["register 10.0.0.1:8080 10.0.0.2:8080 10.0.0.22:8080", "register 10.0.0.1:8080 10.0.0.22:8080"];
    assert_eq!(lab.log()[1..3], calls);
}

/// Removes the pod at an address and its endpoint.
fn vanish(lab: &Lab, address: &str) {
    lab.change(|snapshot| {
        snapshot.remove::<Pod>(&name(address));
        let slice = snapshot.endpoint_slices.get(&name("cart-1")).cloned();
        let mut slice = slice.unwrap();
        slice.endpoints.retain(|endpoint| endpoint.address != address);
        snapshot.apply(slice);
    });
}

/// Terminates the pod at an address.
fn terminate(lab: &Lab, address: &str) {
    lab.change(|snapshot| {
        let slice = snapshot.endpoint_slices.get(&name("cart-1")).cloned();
        let mut slice = slice.unwrap();
        let endpoint = slice.endpoints.iter_mut().find(|endpoint| endpoint.address == address).unwrap();
        (endpoint.ready, endpoint.terminating) = (Some(false), true);
        snapshot.apply(slice);
    });
}

#[tokio::test(start_paused = true)]
async fn while_aws_throttles_old_targets_wait_for_the_new_ones() {
    for leave in [terminate, vanish] {
        let lab = lab(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        reconcile(&lab, "tgb").await.unwrap();
        lab.log();
        // Two new pods are ready and all old ones leave: three registered targets for two that are wanted.
        lab.serve(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
        for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
            leave(&lab, address);
        }
        lab.throttle(0);
        assert!(reconcile(&lab, "tgb").await.unwrap_err().is_transient());
        assert_eq!(lab.log(), ["register 10.0.0.4:8080 10.0.0.5:8080", "deregister 10.0.0.1:8080"]);
        lab.throttle(0);
        reconcile(&lab, "tgb").await.unwrap_err();
        assert_eq!(lab.log(), ["register 10.0.0.4:8080 10.0.0.5:8080"]);
        reconcile(&lab, "tgb").await.unwrap();
        let calls = ["register 10.0.0.4:8080 10.0.0.5:8080", "deregister 10.0.0.2:8080 10.0.0.3:8080"];
        assert_eq!(lab.log(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_throttled_holds_only_what_it_replaces() {
    let address = |n: u32| format!("10.{}.{}.1", n / 250, n % 250);
    let all: Vec<String> = (0..402).map(address).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let old = &all[..201];
    let lab = lab(old);
    reconcile(&lab, "tgb").await.unwrap();
    lab.log();
    lab.serve(&all);
    old.iter().for_each(|address| terminate(&lab, address));
    // The first batch succeeds; the second one, of a single target, fails.
    lab.throttle(1);
    reconcile(&lab, "tgb").await.unwrap_err();
    let sizes = |log: Vec<String>| -> Vec<(String, usize)> {
        let words = log.iter().map(|line| line.split(' ').collect::<Vec<_>>());
        words.map(|words| (words[0].to_owned(), words.len() - 1)).collect()
    };
    let call = |name: &str, size| (name.to_owned(), size);
    assert_eq!(sizes(lab.log()), [call("register", 200), call("register", 1), call("deregister", 200)]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(sizes(lab.log()), [call("register", 1), call("deregister", 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_holds_only_what_lives() {
    for (leave, goes) in [(Some(terminate as fn(&Lab, &str)), true), (Some(vanish), true), (None, false)] {
        let lab = lab(&["10.0.0.1", "10.0.0.8"]);
        reconcile(&lab, "tgb").await.unwrap();
        lab.serve(&["10.0.0.1", "10.0.0.2", "10.0.0.8"]);
        match leave {
            Some(leave) => leave(&lab, "10.0.0.1"),
            // The Service selects other pods now, and the old pod lives on.
            None => lab.serve(&["10.0.0.2", "10.0.0.8"]),
        }
        lab.aws.refuse_targets(["10.0.0.2"], false);
        lab.log();
        reconcile(&lab, "tgb").await.unwrap_err();
        assert_eq!(lab.log().contains(&"deregister 10.0.0.1:8080".to_owned()), goes);
        // Once AWS accepts the target, no old target replaces it any more.
        lab.aws.refuse_targets([], false);
        tokio::time::advance(Duration::from_secs(5)).await;
        reconcile(&lab, "tgb").await.unwrap();
        assert_eq!(lab.registered().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_is_never_emptied_while_aws_refuses_what_comes() {
    for leave in [terminate as fn(&Lab, &str), vanish] {
        let lab = lab(&["10.0.0.1", "10.0.0.2"]);
        reconcile(&lab, "tgb").await.unwrap();
        lab.serve(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
        leave(&lab, "10.0.0.1");
        leave(&lab, "10.0.0.2");
        lab.aws.refuse_targets(["10.0.0.3", "10.0.0.4"], false);
        reconcile(&lab, "tgb").await.unwrap_err();
        reconcile(&lab, "tgb").await.unwrap_err();
        assert_eq!(lab.registered(), ["10.0.0.2:8080"]);
        lab.aws.refuse_targets([], false);
        tokio::time::advance(Duration::from_secs(5)).await;
        reconcile(&lab, "tgb").await.unwrap();
        assert_eq!(lab.registered(), ["10.0.0.3:8080", "10.0.0.4:8080"]);
    }
}

#[tokio::test]
async fn a_full_quota_lets_what_is_gone_make_room() {
    let lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    lab.serve(&["10.0.0.1", "10.0.0.2"]);
    vanish(&lab, "10.0.0.1");
    lab.refuse("RegisterTargets", "TooManyTargets");
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
async fn watches_that_show_no_endpoints_are_not_believed_at_once() {
    let lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    lab.cluster.slices.lock().unwrap().push(slice("cart", &["10.0.0.1"]));
    lab.cluster.pods.lock().unwrap().insert(name("10.0.0.1"), "uid-10.0.0.1".to_owned());
    lab.log();
    let reads = ["read EndpointSlices of shop/cart", "read Pod shop/10.0.0.1"];
    // A list of EndpointSlices or of pods may be empty by mistake.
    lab.change(|snapshot| drop(snapshot.remove::<EndpointSlice>(&name("cart-1"))));
    for _ in 0..2 {
        let error = reconcile(&lab, "tgb").await.unwrap_err();
        assert_eq!((error.problem.clone(), error.is_transient()), (Problem::Behind("Pod shop/10.0.0.1".into()), true));
        assert_eq!(lab.log(), reads);
        lab.serve(&["10.0.0.1"]);
        lab.change(|snapshot| drop(snapshot.remove::<Pod>(&name("10.0.0.1"))));
    }
    // A pod that the slices name and that does not exist is not a target; another one of its name may exist.
    *lab.cluster.slices.lock().unwrap() = vec![slice("cart", &["10.0.0.1", "10.0.0.2"])];
    lab.cluster.pods.lock().unwrap().insert(name("10.0.0.1"), "another".to_owned());
    lab.cluster.pods.lock().unwrap().insert(name("10.0.0.2"), "uid-10.0.0.2".to_owned());
    let error = reconcile(&lab, "tgb").await.unwrap_err();
    assert_eq!(error.problem, Problem::Behind("Pod shop/10.0.0.2".into()));
    assert_eq!(lab.log(), [reads[0], reads[1], "read Pod shop/10.0.0.2"]);
    lab.cluster.pods.lock().unwrap().remove(&name("10.0.0.2"));
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), [reads[0], reads[1], "read Pod shop/10.0.0.2", "deregister 10.0.0.1:8080"]);
    // Without registered targets, AWS is not called.
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), [""; 0]);
}

#[tokio::test]
async fn a_service_scaled_to_nothing_is_proved_with_one_read() {
    let lab = lab(&["10.0.0.1"]);
    reconcile(&lab, "tgb").await.unwrap();
    lab.log();
    terminate(&lab, "10.0.0.1");
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["read EndpointSlices of shop/cart", "deregister 10.0.0.1:8080"]);
}

#[tokio::test]
async fn a_cluster_without_nodes_is_not_believed_at_once() {
    let lab = lab(&[]);
    lab.aws.put_target_group(group("cart", "instance"));
    lab.change(|snapshot| drop(snapshot.apply(binding("tgb", Some(TargetType::Instance)))));
    reconcile(&lab, "tgb").await.unwrap();
    lab.log();
    lab.change(|snapshot| drop(snapshot.remove::<Node>(&ObjectName::new("", "n1"))));
    lab.cluster.others.lock().unwrap().0 = true;
    let error = reconcile(&lab, "tgb").await.unwrap_err();
    assert_eq!((error.problem, lab.log()), (Problem::Behind("a Node".into()), vec!["read a Node".to_owned()]));
    lab.cluster.others.lock().unwrap().0 = false;
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["read a Node", "deregister i-n1:30080"]);
}

#[tokio::test]
async fn a_name_that_was_written_ahead_of_its_target_group_takes_it_from_nobody() {
    let lab = lab(&["10.0.0.1"]);
    let mut older = binding("older", Some(TargetType::Ip));
    older.created = "2025-01-01T00:00:00Z".into();
    older.spec.target_group_arn = None;
    older.spec.target_group_name = Some("cart".into());
    lab.change(|snapshot| drop(snapshot.apply(older)));
    let error = reconcile(&lab, "older").await.unwrap_err();
    assert_eq!(error.problem, Problem::Denied(Denied::Taken { arn: TargetGroupArn::new(ARN), holder: name("tgb") }));
    lab.log();
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["finalizer on", "register 10.0.0.1:8080", READY]);
}

#[tokio::test]
async fn a_binding_whose_targets_are_left_out_is_not_ready() {
    let mut lab = lab(&["10.0.0.1", "10.0.0.2"]);
    lab.targets.settings.max_targets = Some(1);
    let message = "1 targets are left out: --max-targets-per-target-group allows 1";
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(outcome.notices, [Notice { reason: "FailedReconcile", message: message.into() }]);
    let status = format!("status 1 False FailedReconcile: {message}");
    assert_eq!(lab.log(), ["finalizer on", "register 10.0.0.1:8080", &status]);
}

#[tokio::test]
async fn nothing_is_written_without_the_lease() {
    let lab = lab(&["10.0.0.1"]);
    lab.lose_lease();
    let error = lab.targets.reconcile_binding(&name("tgb")).await.unwrap_err();
    assert!(error.is_withheld() && error.is_transient());
    assert_eq!(lab.log(), [""; 0]);
}

#[tokio::test]
async fn a_binding_without_target_type_gets_it_so_that_pods_get_readiness_gates() {
    let lab = Lab::behind(true);
    lab.serve(&["10.0.0.1"]);
    lab.change(|snapshot| drop(snapshot.apply(binding("tgb", None))));
    let types = |lab: &Lab| lab.log().into_iter().filter(|line| line.starts_with("type")).collect::<Vec<_>>();
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(types(&lab), ["type Ip"]);
    // While the watch shows the old state, the type is not written again.
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(types(&lab), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_target_type_that_an_operator_takes_out_again_is_written_ever_more_rarely() {
    let lab = lab(&["10.0.0.1"]);
    let mut written = 0;
    for round in 0..600 {
        lab.change(|snapshot| {
            let binding = snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap();
            binding.spec.target_type = None;
            binding.resource_version = format!("taken out {round}");
        });
        reconcile(&lab, "tgb").await.unwrap();
        written += lab.log().iter().filter(|line| line.starts_with("type ")).count();
        if round == 10 {
            assert_eq!(written, 2);
        }
        tokio::time::advance(Duration::from_secs(6)).await;
    }
    assert!((4..=8).contains(&written), "{written} times within an hour");
    // A new object with the same name starts without pauses.
    lab.change(|snapshot| {
        let binding = snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap();
        (binding.spec.target_type, binding.uid) = (None, "new".into());
    });
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log().iter().filter(|line| line.starts_with("type ")).count(), 1);
}
