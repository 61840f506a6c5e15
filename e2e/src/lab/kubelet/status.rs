//! The status of pods that run.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::READY;
use super::run::{Container, Progress};
use super::spec;

/// The conditions that a kubelet writes.
const OWN: [&str; 4] = ["PodScheduled", "Initialized", "ContainersReady", "Ready"];

/// Returns a pod's status. A strategic merge patch with it leaves the conditions of others as they are.
pub(super) fn status(pod: &Pod, address: &str, host: &str, progress: &Progress, now: Timestamp) -> Value {
    let may_be_ready = pod.annotations().get(READY).is_none_or(|ready| ready != "false");
    let states: Vec<Container> = match progress {
        Progress::Running(containers) => containers.clone(),
        _ => vec![Container::default(); spec::containers(pod).len()],
    };
    let all_ready = may_be_ready && !states.is_empty() && states.iter().all(|container| container.ready);
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let ready = all_ready && gates.map(|gate| gate.condition_type.as_str()).all(|gate| is_true(pod, gate));
    let phase = match progress {
        Progress::Waiting { .. } => "Pending",
        Progress::Running(_) | Progress::Ended => "Running",
        Progress::Completed { exit_code: 0 } => "Succeeded",
        Progress::Completed { .. } => "Failed",
    };
    let conditions = OWN.map(|kind| {
        let holds = match kind {
            "Ready" => ready,
            "ContainersReady" => all_ready,
            _ => true,
        };
        condition(pod, kind, holds, now)
    });
    let containers = spec::containers(pod).iter().zip(&states);
    let containers = containers.map(|(container, state)| {
        json!({
            "name": container.name,
            "image": container.image,
            "imageID": "",
            "restartCount": 0,
            "started": state.started,
            "ready": state.ready && may_be_ready,
            "state": container_state(pod, progress, now),
        })
    });
    json!({
        "phase": phase,
        "hostIP": host,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": old(pod, "/startTime").unwrap_or_else(|| json!(now.to_string())),
        "conditions": conditions,
        "containerStatuses": containers.collect::<Vec<_>>(),
    })
}

fn is_true(pod: &Pod, kind: &str) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == kind && condition.status == "True")
}

/// Returns what the pod's status has at a JSON pointer.
fn old(pod: &Pod, pointer: &str) -> Option<Value> {
    json!(pod.status).pointer(pointer).filter(|value| !value.is_null()).cloned()
}

/// A condition, with the time since when it has held or not.
fn condition(pod: &Pod, kind: &str, holds: bool, now: Timestamp) -> Value {
    let status = if holds { "True" } else { "False" };
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let same = conditions.find(|old| old.type_ == kind && old.status == status);
    let since = same
        .and_then(|old| old.last_transition_time.as_ref())
        .map_or_else(|| json!(now.to_string()), |time| json!(time));
    json!({"type": kind, "status": status, "lastTransitionTime": since})
}

fn container_state(pod: &Pod, progress: &Progress, now: Timestamp) -> Value {
    let started = old(pod, "/containerStatuses/0/state/running/startedAt").unwrap_or_else(|| json!(now.to_string()));
    match progress {
        Progress::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
        Progress::Running(_) => json!({"running": {"startedAt": started}}),
        Progress::Completed { .. } | Progress::Ended => {
            let code = if let Progress::Completed { exit_code } = progress { *exit_code } else { 0 };
            let reason = if code == 0 { "Completed" } else { "Error" };
            let old = old(pod, "/containerStatuses/0/state/terminated");
            let new = || json!({"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": now});
            json!({"terminated": old.unwrap_or_else(new)})
        }
    }
}

/// Returns true if the pod has this status already.
pub(super) fn is_written(pod: &Pod, status: &Value) -> bool {
    let old = json!(pod.status);
    let mut wanted = status.as_object().into_iter().flatten();
    wanted.all(|(field, value)| match (field.as_str(), value, old.get(field).unwrap_or(&Value::Null)) {
        ("conditions", Value::Array(own), Value::Array(all)) => {
            own.iter().all(|condition| all.iter().any(|old| has(old, condition)))
        }
        (_, value, old) => has(old, value),
    })
}

/// Returns true if a value has all that another has. An empty text, like one that is left out, is nothing.
fn has(old: &Value, wanted: &Value) -> bool {
    match (old, wanted) {
        (Value::Object(old), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| has(old.get(key).unwrap_or(&Value::Null), value))
        }
        (Value::Array(old), Value::Array(wanted)) => {
            old.len() == wanted.len() && old.iter().zip(wanted).all(|(old, wanted)| has(old, wanted))
        }
        (Value::Null, Value::String(text)) => text.is_empty(),
        (old, wanted) => old == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-02T03:04:05Z";
    const LATER: &str = "2026-01-02T03:05:00Z";

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [{"name": "a", "image": "x"}], "readinessGates": [{"conditionType": "gate"}]},
            "status": status,
        }))
        .unwrap()
    }

    fn made(pod: &Pod, progress: &Progress, now: &str) -> Value {
        status(pod, "10.0.100.7", "10.0.100.4", progress, at(now))
    }

    /// The conditions that hold, and the state of the container.
    fn summary(status: &Value) -> String {
        let conditions = status["conditions"].as_array().unwrap().iter().filter(|it| it["status"] == "True");
        let names: Vec<_> = conditions.map(|it| it["type"].as_str().unwrap()).collect();
        let container = &status["containerStatuses"][0];
        let state = container["state"].as_object().unwrap().keys().next().unwrap();
        format!("{} {state} {} {}", status["phase"].as_str().unwrap(), container["ready"], names.join(" "))
    }

    #[test]
    fn a_pod_is_ready_when_its_containers_and_gates_are() {
        let running = |ready| Progress::Running(vec![Container { started: true, ready }]);
        let waiting = Progress::Waiting { reason: "ContainerCreating", message: String::new() };
        let none = json!({});
        let gate = json!({"conditions": [{"type": "gate", "status": "True"}]});
        let rows = [
            (&none, waiting, "Pending waiting false PodScheduled Initialized"),
            (&gate, running(false), "Running running false PodScheduled Initialized"),
            (&none, running(true), "Running running true PodScheduled Initialized ContainersReady"),
            (&gate, running(true), "Running running true PodScheduled Initialized ContainersReady Ready"),
            (&gate, Progress::Ended, "Running terminated false PodScheduled Initialized"),
            (&gate, Progress::Completed { exit_code: 0 }, "Succeeded terminated false PodScheduled Initialized"),
            (&gate, Progress::Completed { exit_code: 3 }, "Failed terminated false PodScheduled Initialized"),
        ];
        for (old, progress, expected) in rows {
            assert_eq!(summary(&made(&pod(old), &progress, NOW)), expected, "{progress:?}");
        }
        let failed = made(&pod(&none), &Progress::Completed { exit_code: 3 }, NOW);
        let state = &failed["containerStatuses"][0]["state"]["terminated"];
        assert_eq!((&state["exitCode"], &state["reason"]), (&json!(3), &json!("Error")));
        let mut held = pod(&gate);
        held.annotations_mut().insert(READY.to_owned(), "false".to_owned());
        let expected = "Running running false PodScheduled Initialized";
        assert_eq!(summary(&made(&held, &running(true), NOW)), expected);
    }

    #[test]
    fn a_status_is_written_once_and_keeps_its_times() {
        let running = |ready| Progress::Running(vec![Container { started: true, ready }]);
        for progress in [running(true), Progress::Completed { exit_code: 3 }, Progress::Ended] {
            let first = made(&pod(&json!({})), &progress, NOW);
            let written = pod(&first);
            assert!(!is_written(&pod(&json!({})), &first));
            let second = made(&written, &progress, LATER);
            assert_eq!(second, first, "{progress:?}");
            assert!(is_written(&written, &second), "{progress:?}");
        }
        let written = pod(&made(&pod(&json!({})), &running(false), NOW));
        let changed = made(&written, &running(true), LATER);
        assert!(!is_written(&written, &changed));
        let times = |status: &Value| {
            status["conditions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["lastTransitionTime"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(times(&changed), [NOW, NOW, LATER, NOW]);
    }
}
