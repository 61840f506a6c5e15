//! The readiness gates of pods: the health of their targets in AWS is written to their status.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use albatross_aws::{Priority, current_priority};

use super::{
    BindingOutcome, Cloud, Cluster, ClusterError, Stage, Targets,
    binding::{Failure, role_of},
};
use albatross_core::targets::{
    endpoints::TargetOwner,
    readiness::{
        Change, GatedPod, HealthQuery, OpenGateReason, conditions, gated, gates, is_missing, look, opened, pause,
        says_the_same, share,
    },
};
use albatross_core::{
    api::crd::target_group_binding::TargetType,
    model::{ObjectName, Target, TargetGroupArn},
    snapshot::{ReadinessGate, TargetGroupBinding},
};

/// The number of conditions written concurrently.
const AT_ONCE: usize = 8;
/// The longest time for which a query is put off because targets depart, one after the other or the same again.
const LONGEST_PUT_OFF: Duration = Duration::from_secs(5);

impl<C: Cloud, K: Cluster> Targets<C, K> {
    /// Writes the conditions of the pods that have a gate for the binding. AWS is queried only while one of them waits, at
    /// least once in each [`super::Settings::gate_pause`] unless very many bindings wait. A pass in which a target departs
    /// leaves the query to the next one, for [`LONGEST_PUT_OFF`] at most.
    pub(crate) async fn update_readiness_gates(
        &self,
        binding: &TargetGroupBinding,
        arn: &TargetGroupArn,
        targets: &BTreeMap<Target, TargetOwner>,
        outcome: &mut BindingOutcome,
    ) -> Result<(), Failure> {
        if binding.spec.target_type != Some(TargetType::Ip) {
            return Ok(());
        }
        let pods = gated(&self.snapshot(), &binding.name, targets);
        let registered: BTreeSet<Target> = outcome.registered.iter().cloned().collect();
        let since = self.waits_since(&binding.name, &pods);
        let (is_due, next) = self.plan_look(&binding.name, since, |left, every| look(&pods, &registered, left, every));
        outcome.look = next;
        let healths = match is_due {
            true => match self.cloud.read_targets(role_of(binding).as_ref(), arn).await {
                Err(error) if error.is_not_found() => return Err(self.group_is_gone(binding, arn)),
                healths => Some(healths.map_err(super::Problem::from)?),
            },
            false => None,
        };
        // Targets that AWS has lost are known now; the next pass registers them.
        outcome.checkpoint_pending |= healths.as_ref().is_some_and(|healths| {
            let earlier: Vec<_> = pods
                .iter()
                .filter(|pod| pod.gate.waits() && !pod.targets.iter().any(|target| registered.contains(target)))
                .cloned()
                .collect();
            is_missing(&earlier, healths)
        });
        let changes = conditions(&pods, &registered, healths.as_ref());
        self.write_conditions(&binding.name, changes, outcome).await
    }

    /// Returns the time since when the youngest of the waiting pods waits, if one does. A pod that comes back after it was not
    /// ready has waited before, and so has one whose gate says so already at the start of a process.
    fn waits_since(&self, binding: &ObjectName, pods: &[GatedPod]) -> Option<Instant> {
        let now = Instant::now();
        let mut waits = std::mem::take(&mut self.memory().entry(binding.clone()).or_default().waits);
        {
            let snapshot = self.snapshot();
            waits.retain(|name, (uid, _)| {
                let pod = snapshot.pods.get(name).filter(|pod| pod.uid == *uid);
                pod.is_some_and(|pod| gates(pod, binding).any(ReadinessGate::waits))
            });
        }
        let (said, waiting) = (Timestamp::now(), pods.iter().filter(|pod| pod.gate.waits()));
        let before = |pod: &GatedPod| {
            let since = pod.gate.state.as_ref().and_then(|state| state.since);
            let age = since.and_then(|since| Duration::try_from(said.duration_since(since)).ok());
            now.checked_sub(age.unwrap_or_default()).unwrap_or(now)
        };
        let since =
            waiting.map(|pod| waits.entry(pod.name.clone()).or_insert_with(|| (pod.uid.clone(), before(pod))).1).max();
        self.memory().entry(binding.clone()).or_default().waits = waits;
        since
    }

    /// Decides if AWS is queried now for the health of a binding's targets, and plans the next query; returns both. `decide`
    /// gets the time until the query that was planned, if a pod has been waiting, and the time between two queries.
    fn plan_look(
        &self,
        binding: &ObjectName,
        since: Option<Instant>,
        decide: impl Fn(Option<Duration>, Duration) -> HealthQuery,
    ) -> (bool, Option<Duration>) {
        let (now, mut memory) = (Instant::now(), self.memory());
        let Some(since) = since else {
            memory.entry(binding.clone()).or_default().look = None;
            return (false, None);
        };
        let waited = |since| now.saturating_duration_since(since);
        let looks = memory.values().filter_map(|memory| memory.look);
        let shares = looks.map(|look| share(waited(look.since))).sum();
        let planned = memory.get(binding).and_then(|memory| memory.look);
        let every = pause(waited(since), shares, self.settings.gate_pause);
        let due = planned.map_or(now, |look| look.next.min(now));
        let may_wait = current_priority() == Priority::Deregister && waited(due) < LONGEST_PUT_OFF;
        let (is_due, next) = match decide(planned.map(|look| look.next.saturating_duration_since(now)), every) {
            HealthQuery::Never => (false, None),
            HealthQuery::Now if may_wait => (false, Some(due)),
            HealthQuery::Now => (true, Some(now + every)),
            HealthQuery::In(pause) => (false, Some(now + pause)),
        };
        let look = next.map(|next| super::Look { since, next });
        if planned != look {
            memory.entry(binding.clone()).or_default().look = look;
        }
        (is_due, next.map(|next| next.saturating_duration_since(now)))
    }

    /// Opens the gates of all pods that wait for the binding.
    pub(crate) async fn open_gates(
        &self,
        binding: &ObjectName,
        why: OpenGateReason,
        outcome: &mut BindingOutcome,
    ) -> Result<(), Failure> {
        let changes = opened(&self.snapshot(), binding, why);
        self.write_conditions(binding, changes, outcome).await
    }

    async fn write_conditions(
        &self,
        binding: &ObjectName,
        changes: Vec<Change>,
        outcome: &mut BindingOutcome,
    ) -> Result<(), Failure> {
        let changes = self.without_written(binding, changes);
        if changes.is_empty() {
            return Ok(());
        }
        self.permit.check("UpdatePodStatus")?;
        let now = Timestamp::now();
        let write = |change: Change| async move {
            let answer = self.cluster.write_condition(&change, now).await;
            (change, answer)
        };
        let mut answers = stream::iter(changes.into_iter().map(write)).buffer_unordered(AT_ONCE);
        let mut failure = None;
        while let Some((change, answer)) = answers.next().await {
            match answer {
                Ok(()) => {
                    if let Some(since) = change.waited_since {
                        outcome.became_ready.push(now.duration_since(since).try_into().unwrap_or_default());
                    }
                    let mut memory = self.memory();
                    let written = &mut memory.entry(binding.clone()).or_default().conditions;
                    written.insert((change.uid, change.condition), change.state);
                }
                // The pod was deleted; another one may have its name.
                Err(ClusterError::Gone) => {}
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        failure.map_or(Ok(()), |error| Err(Failure::at(Stage::UpdatePodStatus, error)))
    }

    /// Removes changes that were written already but that the watch does not show yet, and drops the memory of all
    /// others.
    fn without_written(&self, binding: &ObjectName, changes: Vec<Change>) -> Vec<Change> {
        let mut memory = self.memory();
        let Some(memory) = memory.get_mut(binding).filter(|memory| !memory.conditions.is_empty()) else {
            return changes;
        };
        let mut written = std::mem::take(&mut memory.conditions);
        changes
            .into_iter()
            .filter(|change| {
                let key = (change.uid.clone(), change.condition.clone());
                let Some(state) = written.remove(&key) else { return true };
                let same = says_the_same(&state, &change.state);
                if same {
                    memory.conditions.insert(key, state);
                }
                !same
            })
            .collect()
    }
}
