//! The conditions of a binding's pods for their readiness gates, and the time of the next query of AWS. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    api::readiness::binding_of,
    model::{HealthState, ObjectName, Target, TargetHealth},
    snapshot::{GateState, Pod, Readiness, ReadinessGate, Snapshot, in_namespace},
};

use super::{
    endpoints::{TargetOwner, target},
    plan::is_draining,
};

/// The message on a pod whose binding is gone: traffic no longer depends on it.
const BINDING_DELETED: &str = "Target Group Binding is deleted";
/// The message on a pod whose binding has nothing to register.
const BACKEND_MISSING: &str = "the Service of the Target Group Binding is gone";

/// A pod with a readiness gate for a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatedPod {
    /// Namespace and name.
    pub name: ObjectName,
    /// The UID, which distinguishes it from others of its name.
    pub uid: String,
    /// The gate, with what the pod says of it.
    pub gate: ReadinessGate,
    /// The targets that the pod is.
    pub targets: Vec<Target>,
}

impl GatedPod {
    /// The condition that is to be written, where it is not what the pod says already.
    fn to(&self, state: GateState) -> Option<Change> {
        let said = self.gate.state.as_ref();
        if said.is_some_and(|said| says_the_same(said, &state)) {
            return None;
        }
        let turns = said.is_none_or(|said| said.status != state.status);
        let waited_since = said.filter(|said| turns && said.status != Readiness::Ready).and_then(|said| said.since);
        Some(Change {
            pod: self.name.clone(),
            uid: self.uid.clone(),
            condition: self.gate.condition.clone(),
            waited_since: waited_since.filter(|_| state.status == Readiness::Ready),
            turns,
            state,
        })
    }
}

/// Returns true if two states are equal in all fields that are written.
#[must_use]
pub fn says_the_same(one: &GateState, other: &GateState) -> bool {
    (one.status, &one.reason, &one.message) == (other.status, &other.reason, &other.message)
}

/// A condition to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The pod.
    pub pod: ObjectName,
    /// The UID: that pod, and no other of its name.
    pub uid: String,
    /// The condition's type.
    pub condition: String,
    /// The desired state of the gate.
    pub state: GateState,
    /// True if its status changes.
    pub turns: bool,
    /// The time since when it was not true, where it becomes true.
    pub waited_since: Option<k8s_openapi::jiff::Timestamp>,
}

/// Returns the gates of a pod for a binding.
pub fn gates<'a>(pod: &'a Pod, binding: &'a ObjectName) -> impl Iterator<Item = &'a ReadinessGate> {
    pod.gates.iter().filter(|gate| binding_of(&gate.condition) == Some(&binding.name))
}

/// The pods among a binding's targets that have a gate for it.
#[must_use]
pub fn gated(snapshot: &Snapshot, binding: &ObjectName, targets: &BTreeMap<Target, TargetOwner>) -> Vec<GatedPod> {
    let mut found: BTreeMap<(&ObjectName, &str), GatedPod> = BTreeMap::new();
    for (target, owner) in targets {
        // Another pod of the same name is at another target.
        let Some(pod) = owner.pod(snapshot) else { continue };
        let name = &pod.name;
        for gate in gates(pod, binding) {
            let entry = found.entry((name, &gate.condition)).or_insert_with(|| GatedPod {
                name: name.clone(),
                uid: pod.uid.clone(),
                gate: gate.clone(),
                targets: Vec::new(),
            });
            entry.targets.push(target.clone());
        }
    }
    found.into_values().collect()
}

fn state(health: &TargetHealth) -> GateState {
    let status = match health.state {
        HealthState::Healthy => Readiness::Ready,
        HealthState::Unknown => Readiness::Unknown,
        _ => Readiness::NotReady,
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    GateState { status, reason: text(&health.reason), message: text(&health.description), since: None }
}

/// Returns the conditions to write: of the pods that were registered just now and, if the healths of all targets were read
/// from AWS, of the others. A pod that is several targets is as healthy as the least of them.
#[must_use]
pub fn conditions(
    pods: &[GatedPod],
    registered: &BTreeSet<Target>,
    healths: Option<&BTreeMap<Target, TargetHealth>>,
) -> Vec<Change> {
    // AWS may write an IPv6 address in another form than Kubernetes does.
    let healths: BTreeMap<Target, &TargetHealth> = healths
        .into_iter()
        .flatten()
        .filter(|(_, health)| !is_draining(health))
        .map(|(written, health)| (target(&written.id, written.port), health))
        .collect();
    let of = |target: &Target| {
        if registered.contains(target) {
            Some(state(&TargetHealth::registering()))
        } else {
            healths.get(target).map(|health| state(health))
        }
    };
    let worst = |state: &GateState| match state.status {
        Readiness::NotReady => 0,
        Readiness::Unknown => 1,
        Readiness::Ready => 2,
    };
    pods.iter()
        .filter_map(|pod| {
            // Of a target that is not registered there is nothing to say.
            let states: Option<Vec<GateState>> = pod.targets.iter().map(of).collect();
            pod.to(states?.into_iter().min_by_key(worst)?)
        })
        .collect()
}

/// Returns true if a target whose health was read is not registered, though it is desired.
#[must_use]
pub fn is_missing(pods: &[GatedPod], healths: &BTreeMap<Target, TargetHealth>) -> bool {
    let registered: BTreeSet<Target> = healths
        .iter()
        .filter(|(_, health)| !is_draining(health))
        .map(|(written, _)| target(&written.id, written.port))
        .collect();
    pods.iter().flat_map(|pod| &pod.targets).any(|target| !registered.contains(target))
}

/// The reason why no pod waits for a binding any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenGateReason {
    /// The binding is deleted.
    BindingDeleted,
    /// Its Service or the port is not there.
    BackendMissing,
}

/// Returns the conditions that open the gates of every pod of the namespace that waits for a binding.
#[must_use]
pub fn opened(snapshot: &Snapshot, binding: &ObjectName, why: OpenGateReason) -> Vec<Change> {
    let message = match why {
        OpenGateReason::BindingDeleted => BINDING_DELETED,
        OpenGateReason::BackendMissing => BACKEND_MISSING,
    };
    let state = GateState { status: Readiness::Ready, reason: String::new(), message: message.to_owned(), since: None };
    let pods = in_namespace(&snapshot.pods, &binding.namespace).map(|(_, pod)| pod);
    pods.flat_map(|pod| pod.gates.iter().map(move |gate| (pod, gate)))
        .filter(|(_, gate)| binding_of(&gate.condition) == Some(&binding.name) && gate.waits())
        .filter_map(|(pod, gate)| {
            let (name, uid) = (pod.name.clone(), pod.uid.clone());
            let change = GatedPod { name, uid, gate: gate.clone(), targets: Vec::new() }.to(state.clone())?;
            // Nothing was found healthy, so nothing is measured.
            Some(Change { waited_since: None, ..change })
        })
        .collect()
}

/// The decision to ask AWS for the health of a binding's targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthQuery {
    /// No pod waits.
    Never,
    /// At once.
    Now,
    /// After this time.
    In(Duration),
}

/// The shortest time between two queries: a pod is to know within a second that it is healthy.
const SHORTEST_PAUSE: Duration = Duration::from_millis(750);
/// The longest time between two queries for a binding with a young pod, however many bindings wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// The queries a second, of all bindings together: most of what AWS gives an account, 10 Describe calls a second.
const QUERIES_A_SECOND: u32 = 8;
/// The time in which a pod is expected to become healthy: a registered one is ready itself, and the checks that AWS wants
/// by default take half of it (`HealthCheckIntervalSeconds`, `HealthyThresholdCount`).
const EXPECTED: Duration = Duration::from_secs(60);
/// The time after which a pod that waits is not expected to become healthy soon.
const YOUNG: Duration = Duration::from_secs(300);
/// The share of a binding with a young pod in the queries, while the share of any other is 1.
const SHARE_OF_YOUNG: u32 = 8;

/// Returns the share in the queries of a binding whose pods have waited for `waited`.
#[must_use]
pub fn share(waited: Duration) -> u32 {
    if waited < YOUNG { SHARE_OF_YOUNG } else { 1 }
}

/// Returns the time between two queries for a binding whose pods have waited for `waited`, while bindings with such pods
/// have `shares` in all. While they are expected to become healthy they learn it at once; then it is a quarter of the time
/// that they have waited, so that one that never becomes healthy costs little, and no longer than `longest`, except if so
/// many bindings wait that AWS would throttle.
#[must_use]
pub fn pause(waited: Duration, shares: u32, longest: Duration) -> Duration {
    let by_age = if waited < EXPECTED { SHORTEST_PAUSE } else { waited / 4 }.min(longest);
    let by_share = Duration::from_secs(1) * shares / (QUERIES_A_SECOND * share(waited));
    by_age.max(if waited < YOUNG { by_share.min(LONGEST_PAUSE) } else { by_share })
}

/// Decides on it. As long as a pod waits, it is once in `every`; a target that was registered just now is not healthy
/// before. `left` is the time until the planned query, where a pod has been waiting; zero when it is due.
#[must_use]
pub fn look(pods: &[GatedPod], registered: &BTreeSet<Target>, left: Option<Duration>, every: Duration) -> HealthQuery {
    let mut waiting = pods.iter().filter(|pod| pod.gate.waits()).peekable();
    if waiting.peek().is_none() {
        return HealthQuery::Never;
    }
    match left {
        Some(Duration::ZERO) => HealthQuery::Now,
        // Pods that have come since it was planned may be healthy sooner.
        Some(left) => HealthQuery::In(left.min(every)),
        None if waiting.all(|pod| pod.targets.iter().all(|target| registered.contains(target))) => {
            HealthQuery::In(every)
        }
        None => HealthQuery::Now,
    }
}

#[cfg(test)]
mod tests;
