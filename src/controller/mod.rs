//! The controller: watches fill the snapshot, changes fill the queue, workers run the passes from snapshot to AWS.

pub mod cluster;
pub mod reconcile;
pub mod runtime;
mod webhooks;

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use tracing::Instrument as _;

use crate::controller::reconcile::{
    apply::Applier,
    targets::{Problem, Targets, TargetsError},
};
use crate::controller::{
    cluster::{
        events::{EventType, Events, Subject},
        kubernetes::Kubernetes,
        records::Records,
        secrets::Secrets,
        watches::Synced,
    },
    reconcile::{
        PlanAnnotations,
        fact_subscribers::FactSubscribers,
        step_history::StepHistory,
        waits::{self, Waits},
    },
    runtime::{
        metrics::{self, Metrics},
        queue::{Outcome, Queue},
        write_permit::Term,
    },
};
use albatross_aws::facts::FactStore;
use albatross_aws::{Inventory, Priority, WritePermit, current_priority, with_priority, with_urgency};
use albatross_core::dependents::{self, Key};
use albatross_core::{
    desired::{self, BuildConfig},
    facts::{Fact, FactQuery, Facts},
    model::{ObjectKind, ObjectName, StackId},
    snapshot::Snapshot,
};
pub use runtime::start::{StartError, run};

/// The state that workers share, for one term of the lease.
pub struct Controller {
    config: BuildConfig,
    snapshot: Arc<RwLock<Snapshot>>,
    queue: Arc<Queue>,
    synced: Arc<Synced>,
    kubernetes: Kubernetes,
    events: Events,
    inventory: Arc<Inventory>,
    applier: Applier,
    targets: Targets,
    facts: FactStore,
    fact_subscribers: FactSubscribers,
    secrets: Secrets,
    records: Records,
    waits: Waits,
    step_history: StepHistory,
    plan_annotations: PlanAnnotations,
    metrics: Arc<Metrics>,
    term: Arc<Term>,
    permit: WritePermit,
    /// Read while a group may use the shared security group, written while it is deleted.
    backend_group_gate: tokio::sync::RwLock<()>,
    /// The one namespace that is watched; all where it is empty.
    watch_namespace: String,
}

impl Controller {
    /// Returns true if every kind has been listed.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.reasons().is_empty()
    }

    /// Returns true if everything is synced, no key is waiting or being reconciled, and every record is written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.is_synced() && self.queue.depth() == 0 && self.records.is_written()
    }

    /// Takes keys from the queue until asked to stop; a key that is being reconciled is finished first.
    async fn work(self: Arc<Self>, mut stopped: tokio::sync::watch::Receiver<bool>) {
        loop {
            let (key, cause) = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                next = self.queue.next() => next,
            };
            let started = std::time::Instant::now();
            let worker = Arc::clone(&self);
            let task_key = key.clone();
            // A separate task, so that a panic costs one key's pass and not the worker.
            let span = tracing::info_span!(target: crate::TRACES, "pass", %key, ?cause);
            let urgency = self.queue.urgency(&key);
            let pass = async move { with_urgency(urgency, worker.reconcile(&task_key)).await };
            let outcome = match tokio::spawn(pass.instrument(span)).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    tracing::error!(%key, %error, "work on the key ended in a panic; this is a fault of albatross, please report it");
                    Outcome::Failed("internal fault, see the log".to_owned())
                }
            };
            let object = object_of(&key);
            let object = object.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
            self.metrics.reconciled(metrics::controller_of(&key), object, started.elapsed(), result_label(&outcome));
            self.queue.done(&key, &outcome);
            self.metrics.queue_depth(self.queue.due());
        }
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        match key {
            Key::Stack(group) => self.reconcile_stack(group).await,
            Key::Binding(name) => self.reconcile_binding(name).await,
            Key::NodeRules => {
                let result = self.targets.reconcile_node_rules().await;
                self.queue.add_all(self.waits.for_targets().into_iter().map(Key::Stack));
                let (again, problems) = match result {
                    Ok(outcome) => (outcome.again, Vec::new()),
                    Err(error) => (error.again, error.problems),
                };
                if let Some(again) = again {
                    self.queue.run_within(key, again);
                }
                let outcomes: Vec<Outcome> = problems.iter().map(|error| self.targets_failed(error)).collect();
                let failed = outcomes.iter().find(|outcome| matches!(outcome, Outcome::Failed(_))).cloned();
                failed.or_else(|| outcomes.into_iter().next()).unwrap_or(Outcome::Done)
            }
            Key::BackendSecurityGroup => self.reconcile_backend_security_group().await,
        }
    }

    async fn reconcile_binding(&self, name: &ObjectName) -> Outcome {
        if self.with_snapshot(|s| !s.target_group_bindings.contains_key(name)) {
            self.metrics.remove_binding(&name.namespace, &name.name);
        }
        let result = self.targets.reconcile_binding(name).await;
        if let Some(departed) = self.targets.take_departed(name)
            && let Some(since) = self.queue.has_departed(&Key::Binding(name.clone()))
            && departed.any
        {
            self.metrics.deregistered(departed.at.saturating_duration_since(since));
        }
        match result {
            Ok(outcome) => {
                if outcome.node_rules {
                    self.queue.add(Key::NodeRules);
                }
                if outcome.changed && current_priority() == Priority::Audit {
                    self.metrics.drift_step("RegisterTargets");
                }
                self.queue.add_all(outcome.unblocked.into_iter().map(Key::Binding));
                if let Some(subject) = self.binding_subject(name) {
                    for notice in &outcome.notices {
                        tracing::warn!(binding = %name, "{}", notice.message);
                        self.events.record(EventType::Warning, &subject, notice.reason, &notice.message);
                    }
                    if outcome.changed {
                        self.events.record(
                            EventType::Normal,
                            &subject,
                            "SuccessfullyReconciled",
                            "Successfully reconciled",
                        );
                    }
                }
                self.metrics.quic_targets_without_server_id(&name.namespace, &name.name, outcome.without_server_id);
                for waited in &outcome.became_ready {
                    self.metrics.readiness_gate_ready(&name.namespace, &name.name, *waited);
                }
                let checkpoint = outcome.checkpoint_pending.then_some(CHECKPOINT_AFTER);
                match (checkpoint, outcome.look) {
                    (Some(checkpoint), look) if look.is_none_or(|look| checkpoint < look) => Outcome::Again(checkpoint),
                    (_, Some(look)) => Outcome::LookAfter(look),
                    (_, None) => Outcome::Done,
                }
            }
            Err(error) => {
                if matches!(error.problem, Problem::TargetGroupMissing(_)) {
                    self.look_for_target_group(name).await;
                }
                if self.targets.node_rules_due() {
                    self.queue.add(Key::NodeRules);
                }
                match self.targets_failed(&error) {
                    // Nothing else brings it back to have its status written.
                    Outcome::NeedsCorrection(what) if self.targets.status_is_unwritten(name) => Outcome::Failed(what),
                    outcome => outcome,
                }
            }
        }
    }

    /// The target group of a binding does not exist, though its stack may think so: it was deleted by others, and the
    /// stack creates it again. The stack is the one that the binding belongs to, and not any that its labels name.
    async fn look_for_target_group(&self, binding: &ObjectName) {
        let Some(binding) = self.with_snapshot(|s| s.target_group_bindings.get(binding).cloned()) else { return };
        let Some(stack) = StackId::of_labels(&binding.labels) else { return };
        // AWS says already what is wrong, where it does not answer.
        let Ok(observed) = self.inventory.observe(&stack).await else { return };
        if self.with_snapshot(|snapshot| dependents::is_binding_of(&stack, &binding, &observed, snapshot)) {
            self.inventory.invalidate(&stack);
            self.queue.add(Key::Stack(stack));
        }
    }

    fn binding_subject(&self, name: &ObjectName) -> Option<Subject> {
        let uid = self.with_snapshot(|s| s.target_group_bindings.get(name).map(|b| b.uid.clone()))?;
        Some(Subject { kind: ObjectKind::TargetGroupBinding, name: name.clone(), uid })
    }

    fn targets_failed(&self, error: &TargetsError) -> Outcome {
        self.metrics.reconcile_error("targetGroupBinding", "reconcile_error");
        let fix = error.fix().map(|fix| format!("; {fix}")).unwrap_or_default();
        if error.is_transient() {
            tracing::warn!("{error}{fix}; trying again");
        } else {
            tracing::error!("{error}{fix}");
            let subject = error.binding().and_then(|name| self.binding_subject(name));
            if let Some(subject) = subject {
                self.events.record(EventType::Warning, &subject, error.reason(), &format!("{error}{fix}"));
            }
        }
        // To try again what an object has to be corrected for would change nothing.
        if error.problem.needs_correction() {
            return Outcome::NeedsCorrection(error.to_string());
        }
        Outcome::Failed(error.to_string())
    }

    /// Returns true if some Ingress or Service has, or will have, a load balancer in the shared security group.
    fn backend_group_needed(&self) -> bool {
        self.with_snapshot(|snapshot| desired::needs_backend_security_group(snapshot, &self.config))
    }

    /// Deletes the shared security group when the last load balancer that could use it is gone.
    async fn reconcile_backend_security_group(&self) -> Outcome {
        if !self.config.enable_backend_security_group || self.config.backend_security_group.is_some() {
            return Outcome::Done;
        }
        // Nearly always it is needed. A pass that waits for the gate delays every group, and may wait as long as the longest
        // pass takes, so that is asked first.
        if self.backend_group_needed() {
            self.waits.unblocked(SHARED_GROUP);
            return Outcome::Done;
        }
        let _unused = self.backend_group_gate.write().await;
        if self.backend_group_needed() {
            return Outcome::Done;
        }
        let deleted = async {
            let Some(group) = self.inventory.backend_security_group().await? else { return Ok(()) };
            if self.inventory.load_balancer_uses(&group).await? {
                // A load balancer that was in it may have left since; if a new one is in it, AWS refuses the deletion.
                self.inventory.invalidate_list();
            }
            self.applier.delete_backend_security_group().await.map(|_| ())
        };
        match deleted.await {
            Ok(()) => {
                self.waits.unblocked(SHARED_GROUP);
                Outcome::Done
            }
            Err(error) if matches!(error.kind, albatross_aws::AwsErrorKind::Dependency { .. }) => {
                let is_stuck = self.waits.blocked(SHARED_GROUP, "delete", waits::DEADLINE);
                if is_stuck {
                    // Another party may have made a rule that names it.
                    self.targets.invalidate_node_rules().await;
                }
                self.queue.add(Key::NodeRules);
                if is_stuck {
                    let message = format!(
                        "the shared backend security group cannot be deleted: {error}; take it off the network interfaces that are \
                         in it, and out of the rules of other security groups that name it"
                    );
                    tracing::warn!("{message}");
                    return Outcome::Failed(message);
                }
                tracing::debug!("the shared backend security group is still in use: {error}");
                Outcome::NotYet
            }
            Err(error) => {
                let fix = error.fix().map(|fix| format!("; {fix}")).unwrap_or_default();
                tracing::warn!("cannot delete the shared backend security group: {error}{fix}");
                Outcome::Failed(error.to_string())
            }
        }
    }

    /// Returns the keys of all stacks, bindings and shared resources.
    fn keys(&self) -> Vec<Key> {
        self.with_snapshot(|snapshot| {
            desired::possible_stacks(snapshot)
                .map(Key::Stack)
                .chain(snapshot.target_group_bindings.keys().cloned().map(Key::Binding))
                .chain([Key::NodeRules, Key::BackendSecurityGroup])
                .collect()
        })
    }

    /// Queues everything, at the start of a term.
    fn queue_everything(&self) {
        self.queue.resync(self.keys());
    }

    /// Lists the certificates of ACM once every `period`, as long as stacks rely on those that are found by host name, and queues
    /// the stacks that would find others. A period of zero is never.
    async fn poll_certificates(self: Arc<Self>, period: Duration) {
        if period.is_zero() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(period).await;
            with_priority(Priority::Audit, self.look_at_certificates()).await;
        }
    }

    /// Asks ACM, with one list for all, which certificates there are for the hosts of the stacks that rely on them.
    async fn look_at_certificates(&self) {
        for hosts in self.fact_subscribers.discovered_hosts() {
            let (want, mut facts) = (FactQuery::Certificates(hosts.clone()), Facts::default());
            self.facts.answer(&want, &mut facts).await;
            // One list answers all, so that without it there is an answer for none; what has been said to stacks stays.
            if matches!(facts.certificates(&hosts), None | Some(Fact::Unavailable(_))) {
                return;
            }
            let stacks = self.fact_subscribers.changed(&want, &facts);
            for stack in &stacks {
                tracing::info!(group = %stack, "the certificates that ACM has for its hosts are others now");
            }
            self.queue.resync(stacks.into_iter().map(Key::Stack));
        }
    }

    /// Compares everything with AWS again, one thing after the other, once every `period`: changes made there by
    /// hand are found and corrected. Each stack is read by its ARNs; AWS is listed at the end, for resources no longer requested.
    async fn audit(self: Arc<Self>, period: Duration) {
        loop {
            let keys = self.keys();
            let pause = period / u32::try_from(keys.len()).unwrap_or(u32::MAX).max(1);
            tracing::debug!(keys = keys.len(), ?pause, "comparing everything with AWS again, one after the other");
            for key in keys {
                tokio::time::sleep(pause).await;
                self.invalidate(&key).await;
                self.queue.audit(key);
            }
            self.inventory.invalidate_list();
            self.report_leftovers().await;
        }
    }

    /// Invalidates the cached state of a key's part of AWS, so that it is read again.
    async fn invalidate(&self, key: &Key) {
        match key {
            Key::Stack(stack) => self.inventory.invalidate(stack),
            Key::Binding(name) => self.targets.invalidate_binding(name),
            Key::NodeRules => self.targets.invalidate_node_rules().await,
            Key::BackendSecurityGroup => self.facts.invalidate(),
        }
    }

    /// Reports the AWS resources of Ingresses and Services that no longer exist. They stay: the controller deletes nothing
    /// without an object that requests it.
    async fn report_leftovers(&self) {
        let Ok(groups) = self.inventory.groups().await else {
            // A pass that needs AWS reports why it does not answer.
            return;
        };
        for stack in self.with_snapshot(|snapshot| dependents::without_object(groups, snapshot, &self.watch_namespace))
        {
            let (object, key) = (stack.object(), stack.stack_key());
            tracing::warn!(
                %stack,
                "AWS has resources of {object}, which is gone, or no longer has its finalizer; the controller does not delete them: \
                 delete them by hand, by their tag {key}={stack}, or create the object again and delete it"
            );
        }
    }

    /// Returns the work in progress and the work waited for, a line each: the answer of `/idle`.
    fn pending(&self) -> Vec<String> {
        let mut pending = self.synced.reasons();
        if !self.permit.holds() {
            pending.push("this process does not hold the lease".to_owned());
        }
        let queue = self.queue.snapshot();
        pending.extend(queue.running.into_iter().chain(queue.waiting));
        pending.extend(queue.pausing.into_iter().map(|(key, seconds)| format!("{key}, in {seconds:.1} s")));
        if !self.records.is_written() {
            pending.push("records that are not written yet".to_owned());
        }
        pending
    }

    /// Updates the metrics that show state, not events.
    fn measure(&self) {
        let infos: Vec<metrics::TargetGroupInfo> = self.with_snapshot(|snapshot| {
            self.metrics.cached("ingress", snapshot.ingresses.len());
            self.metrics.cached("service", snapshot.services.len());
            self.metrics.cached("targetgroupbinding", snapshot.target_group_bindings.len());
            let info = |(name, binding): (&ObjectName, &albatross_core::snapshot::TargetGroupBinding)| {
                let arn = binding.spec.target_group_arn.as_deref()?;
                Some(metrics::TargetGroupInfo {
                    namespace: name.namespace.clone(),
                    service: binding.spec.service_ref.name.clone(),
                    target_group: arn.rsplit(':').next().unwrap_or_default().to_owned(),
                })
            };
            snapshot.target_group_bindings.iter().filter_map(info).collect()
        });
        self.metrics.target_groups(infos);
        self.metrics.deletions_blocked(self.waits.count_blocked());
        self.metrics.queue_depth(self.queue.due());
        self.metrics.of_queue().measured(&self.queue.sizes());
        self.synced.activity.silent().into_iter().for_each(|(kind, silent)| self.metrics.watch_silent(kind, silent));
    }

    /// Returns the answer of `/debug/state`.
    pub fn state(&self) -> serde_json::Value {
        let counts = self.with_snapshot(|s| {
            serde_json::json!({
                "ingresses": s.ingresses.len(), "ingressClasses": s.ingress_classes.len(), "services": s.services.len(),
                "ingressClassParams": s.ingress_class_params.len(), "namespaces": s.namespaces.len(),
                "endpointSlices": s.endpoint_slices.len(), "pods": s.pods.len(), "nodes": s.nodes.len(),
                "targetGroupBindings": s.target_group_bindings.len(),
            })
        });
        let (records, clean) = self.records.counts();
        let (secrets, watched) = self.secrets.counts();
        serde_json::json!({
            "leader": self.permit.holds(),
            "awaited": self.synced.reasons(),
            "watchesSilentSeconds": self.synced.activity.silent().into_iter().map(|(kind, silent)| (kind, silent.as_secs()))
                .collect::<std::collections::BTreeMap<_, _>>(),
            "objects": counts,
            "queue": self.queue.snapshot(),
            "waits": self.waits.all(),
            "secrets": {"inUse": secrets, "watched": watched},
            "records": {"kept": self.records.are_kept(), "written": self.records.is_written(), "stacks": records, "clean": clean},
            "budgets": self.inventory.aws().budgets(),
        })
    }
}

/// The time until a binding whose targets changed gets a checkpoint, if they do not change again.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);
/// The owner of the shared security group, among waiting deletions.
const SHARED_GROUP: &str = "shared backend security group";

/// Returns namespace and name of the object of a key: a group of Ingresses has a name and no namespace.
fn object_of(key: &Key) -> Option<(String, String)> {
    match key {
        Key::Stack(StackId::Group(name)) => Some((String::new(), name.to_string())),
        Key::Stack(StackId::Ingress(name) | StackId::Service(name)) | Key::Binding(name) => {
            Some((name.namespace.clone(), name.name.clone()))
        }
        Key::NodeRules | Key::BackendSecurityGroup => None,
    }
}

/// Returns controller-runtime's label for the end of a pass.
fn result_label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "success",
        Outcome::Again(_) | Outcome::LookAfter(_) | Outcome::NotYet => "requeue_after",
        Outcome::Failed(_) | Outcome::NeedsCorrection(_) => "error",
    }
}

#[cfg(test)]
mod tests;
