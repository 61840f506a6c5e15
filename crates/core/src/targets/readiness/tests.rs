use super::*;
use crate::testing::{health, name, pod};

const GATE: &str = "target-health.elbv2.k8s.aws/tgb";
const EVERY: Duration = Duration::from_secs(15);

fn said(status: Readiness, reason: &str, message: &str) -> GateState {
    let since = Some(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
    GateState { status, reason: reason.to_owned(), message: message.to_owned(), since }
}

fn waiting() -> GateState {
    said(Readiness::NotReady, "Elb.RegistrationInProgress", "Target registration is in progress")
}

fn gated_pod(address: &str, ports: &[u16], state: Option<GateState>) -> GatedPod {
    GatedPod {
        name: name(address),
        uid: format!("uid-{address}"),
        gate: ReadinessGate { condition: GATE.to_owned(), state },
        targets: ports.iter().map(|port| target(address, *port)).collect(),
    }
}

fn shown(changes: &[Change]) -> Vec<String> {
    let line = |change: &Change| {
        let status = match change.state.status {
            Readiness::Ready => "True",
            Readiness::NotReady => "False",
            Readiness::Unknown => "Unknown",
        };
        let GateState { reason, message, .. } = &change.state;
        let turns = if change.turns { " turns" } else { "" };
        let waited = if change.waited_since.is_some() { " waited" } else { "" };
        format!("{} {status} {reason}: {message}{turns}{waited}", change.pod.name)
    };
    changes.iter().map(line).collect()
}

fn healths(states: &[(&str, u16, &str)]) -> BTreeMap<Target, TargetHealth> {
    states.iter().map(|(id, port, state)| (Target { id: (*id).to_owned(), port: *port }, health(state))).collect()
}

#[test]
fn a_condition_says_what_aws_says() {
    let failing = TargetHealth {
        state: HealthState::Unhealthy,
        reason: Some("Target.ResponseCodeMismatch".to_owned()),
        description: Some("Health checks failed with these codes: [500]".to_owned()),
        zone: None,
        quic_server_id: None,
    };
    let unused = TargetHealth {
        state: HealthState::Unused,
        reason: Some("Target.NotInUse".to_owned()),
        description: Some("Target group is not configured".to_owned()),
        zone: None,
        quic_server_id: None,
    };
    for (case, before, registered, answer, expected) in [
        (
            "registered just now",
            None,
            true,
            None,
            vec!["a False Elb.RegistrationInProgress: Target registration is in progress turns"],
        ),
        ("registered just now, and said so", Some(waiting()), true, None, vec![]),
        ("AWS was not asked", Some(waiting()), false, None, vec![]),
        ("healthy", Some(waiting()), false, Some(health("healthy")), vec!["a True :  turns waited"]),
        ("healthy, and said so", Some(said(Readiness::Ready, "", "")), false, Some(health("healthy")), vec![]),
        ("healthy from the first", None, false, Some(health("healthy")), vec!["a True :  turns"]),
        (
            "still failing, for another reason",
            Some(waiting()),
            false,
            Some(failing.clone()),
            vec!["a False Target.ResponseCodeMismatch: Health checks failed with these codes: [500]"],
        ),
        (
            "failing again",
            Some(said(Readiness::Ready, "", "")),
            false,
            Some(failing),
            vec!["a False Target.ResponseCodeMismatch: Health checks failed with these codes: [500] turns"],
        ),
        (
            "no load balancer",
            Some(waiting()),
            false,
            Some(unused),
            vec!["a False Target.NotInUse: Target group is not configured"],
        ),
        ("no health", Some(waiting()), false, Some(health("unknown")), vec!["a Unknown :  turns"]),
        (
            "healthy after no health",
            Some(said(Readiness::Unknown, "", "")),
            false,
            Some(health("healthy")),
            vec!["a True :  turns waited"],
        ),
        ("draining", Some(waiting()), false, Some(health("draining")), vec![]),
    ] {
        let registered = if registered { BTreeSet::from([target("a", 80)]) } else { BTreeSet::new() };
        let healths: Option<BTreeMap<_, _>> = answer.map(|health| [(target("a", 80), health)].into());
        let changes = conditions(&[gated_pod("a", &[80], before)], &registered, healths.as_ref());
        assert_eq!(shown(&changes), expected, "{case}");
    }
}

#[test]
fn a_pod_of_several_targets_is_as_healthy_as_the_least() {
    let pods = [gated_pod("a", &[80, 81], Some(waiting()))];
    let none = BTreeSet::new();
    for (states, expected) in [
        (vec![("a", 80, "healthy"), ("a", 81, "healthy")], vec!["a True :  turns waited"]),
        (vec![("a", 80, "healthy"), ("a", 81, "unhealthy")], vec!["a False : "]),
        (vec![("a", 80, "unknown"), ("a", 81, "healthy")], vec!["a Unknown :  turns"]),
        (vec![("a", 80, "healthy")], vec![]),
    ] {
        assert_eq!(shown(&conditions(&pods, &none, Some(&healths(&states)))), expected, "{states:?}");
    }
    assert!(is_missing(&pods, &healths(&[("a", 80, "healthy"), ("a", 81, "draining")])));
    assert!(!is_missing(&pods, &healths(&[("a", 80, "healthy"), ("a", 81, "initial")])));
}

#[test]
fn another_spelling_of_an_address_is_the_same_pod() {
    let pods = [gated_pod("2001:db8::1", &[80], Some(waiting()))];
    let answer = healths(&[("2001:DB8:0::1", 80, "healthy")]);
    assert_eq!(shown(&conditions(&pods, &BTreeSet::new(), Some(&answer))), ["2001:db8::1 True :  turns waited"]);
    assert!(!is_missing(&pods, &answer));
}

#[test]
fn aws_is_asked_as_long_as_a_pod_waits() {
    let (new, old) = (gated_pod("a", &[80], None), gated_pod("b", &[80], Some(waiting())));
    let ready = gated_pod("c", &[80], Some(said(Readiness::Ready, "", "")));
    let registered = BTreeSet::from([target("a", 80)]);
    for (case, pods, left, expected) in [
        ("no gates", vec![], None, HealthQuery::Never),
        ("all are ready", vec![ready.clone()], Some(Duration::ZERO), HealthQuery::Never),
        ("registered just now", vec![new.clone(), ready.clone()], None, HealthQuery::In(EVERY)),
        ("one waits from before the start", vec![new.clone(), old.clone()], None, HealthQuery::Now),
        (
            "not yet",
            vec![new.clone(), old.clone()],
            Some(Duration::from_secs(3)),
            HealthQuery::In(Duration::from_secs(3)),
        ),
        ("time is up", vec![old], Some(Duration::ZERO), HealthQuery::Now),
        ("time is up, whoever was registered meanwhile", vec![new], Some(Duration::ZERO), HealthQuery::Now),
    ] {
        assert_eq!(look(&pods, &registered, left, EVERY), expected, "{case}");
    }
}

#[test]
fn the_longer_a_pod_waits_the_less_often_aws_is_asked() {
    let seconds = Duration::from_secs;
    for (case, waited, young, old, longest, expected) in [
        ("registered just now", 0, 1, 0, EVERY, Duration::from_millis(750)),
        ("for some seconds", 45, 1, 0, EVERY, Duration::from_millis(750)),
        ("for a minute", 60, 1, 0, seconds(300), seconds(15)),
        ("for long", 3600, 0, 1, EVERY, EVERY),
        ("for long, with a longer interval", 3600, 0, 1, seconds(300), seconds(300)),
        ("a short interval", 0, 1, 0, Duration::from_millis(500), Duration::from_millis(500)),
        ("many bindings wait", 0, 80, 0, EVERY, seconds(10)),
        ("so many that AWS would throttle", 0, 900, 0, EVERY, Duration::from_millis(112_500)),
        ("no matter how many", 0, 5000, 0, EVERY, seconds(120)),
        ("pods of many others are never healthy", 0, 1, 400, EVERY, Duration::from_millis(6375)),
        ("such a pod", 3600, 1, 400, EVERY, seconds(51)),
    ] {
        let shares = young * share(seconds(0)) + old * share(seconds(3600));
        assert_eq!(pause(seconds(waited), shares, longest), expected, "{case}");
    }
    let (new, old) = (gated_pod("a", &[80], None), gated_pod("b", &[80], Some(waiting())));
    let registered = BTreeSet::from([target("a", 80)]);
    // A pod that was registered just now does not wait for a query that was planned when AWS was asked less often.
    assert_eq!(look(&[new, old], &registered, Some(seconds(14)), seconds(2)), HealthQuery::In(seconds(2)));
}

#[test]
fn only_gates_for_the_binding_count() {
    let mut snapshot = Snapshot::default();
    let gate = |condition: &str| ReadinessGate { condition: condition.to_owned(), state: None };
    let legacy = "target-health.alb.ingress.k8s.aws/tgb";
    for (address, conditions) in
        [("a", vec![GATE, legacy]), ("b", vec!["target-health.elbv2.k8s.aws/other"]), ("c", vec![]), ("d", vec![GATE])]
    {
        let mut pod = pod(address);
        pod.gates = conditions.into_iter().map(gate).collect();
        snapshot.apply(pod);
    }
    // The target of `d` is of another pod, which had the name before.
    let targets: BTreeMap<Target, TargetOwner> = [("a", "uid-a"), ("b", "uid-b"), ("c", "uid-c"), ("d", "another")]
        .map(|(id, uid)| {
            (target(id, 80), TargetOwner::Pod { name: name(id), uid: uid.to_owned(), quic_server_id: None })
        })
        .into();
    let found: Vec<(String, String)> =
        gated(&snapshot, &name("tgb"), &targets).into_iter().map(|pod| (pod.name.name, pod.gate.condition)).collect();
    assert_eq!(found, [("a".to_owned(), legacy.to_owned()), ("a".to_owned(), GATE.to_owned())]);
    // Pods that wait for a deleted binding become ready, registered or not.
    assert_eq!(
        shown(&opened(&snapshot, &name("tgb"), OpenGateReason::BindingDeleted)),
        [
            "a True : Target Group Binding is deleted turns",
            "a True : Target Group Binding is deleted turns",
            "d True : Target Group Binding is deleted turns"
        ]
    );
    snapshot.pods.get_mut(&name("d")).unwrap().gates[0].state = Some(said(Readiness::Ready, "", "healthy"));
    snapshot.pods.get_mut(&name("a")).unwrap().gates = Box::default();
    assert_eq!(shown(&opened(&snapshot, &name("tgb"), OpenGateReason::BackendMissing)), [""; 0]);
}
