//! The reconciliation of one binding: its target group gets its desired targets.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::Ordering,
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;

use albatross_aws::AwsError;
use albatross_core::{
    api::crd::target_group_binding::TargetType,
    model::{
        ObjectName, Registration, Target, TargetGroupArn, TargetHealth,
        tags::{self, BINDING_FINALIZER},
    },
    record,
    snapshot::TargetGroupBinding,
};

use super::{
    Cloud, Cluster, Departed, Problem, Stage, Subject, Targets, TargetsError,
    registering::{BoundTargetGroup, Registering},
    shared::{OwnTargets, digest},
};
use albatross_core::targets::{
    binding_owners::{Bindings, Owner},
    endpoints::{self, Resolution, TargetOwner, identities, port_reference, ready_pods, resolve, target, target_state},
    plan::{TargetPlan, batches, blocked, is_draining, plan, safe_to_deregister},
    readiness::OpenGateReason,
    role::{InvalidRole, Role},
    status::{self, Report},
};

/// A notice about a binding that is not an error: a Warning event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The event's reason.
    pub reason: &'static str,
    /// The event's message.
    pub message: String,
}

/// The result of reconciling a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingOutcome {
    /// The targets registered in this pass.
    pub registered: Vec<Target>,
    /// The targets deregistered in this pass.
    pub deregistered: Vec<Target>,
    /// The number of targets, if all are registered.
    pub targets: Option<usize>,
    /// True if anything was registered, deregistered or released.
    pub changed: bool,
    /// The notices to users.
    pub notices: Vec<Notice>,
    /// True if [`Targets::reconcile_node_rules`] must run again.
    pub node_rules: bool,
    /// The other bindings of the target group, which may make progress now.
    pub unblocked: Vec<ObjectName>,
    /// True if the binding is deleted or released.
    pub gone: bool,
    /// True if the binding should be reconciled again soon, so that it gets a checkpoint once its targets are stable.
    pub checkpoint_pending: bool,
    /// The time until the next query for the health of targets, if a pod waits for AWS to report it healthy.
    pub look: Option<Duration>,
    /// The waiting times of the pods that AWS now reports healthy.
    pub became_ready: Vec<Duration>,
    /// The number of pods that are no targets because they have no QUIC server id.
    pub without_server_id: usize,
    /// The reasons of the notices about QUIC server ids that hold, also of those that were made before.
    pub(crate) lacking: Vec<&'static str>,
}

/// The maximum number of pods that are read to prove that a Service has no endpoint.
const MAX_PROOFS: usize = 10;
/// The number of times that the target type of one object is written without a pause.
const PROMPT_WRITES: u32 = 2;
/// The pause after that; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The writes of a binding's target type. If an operator writes the whole spec and so removes the type again and again,
/// the pauses between the writes grow.
#[derive(Clone, Debug, Default)]
pub(crate) struct TargetTypeWrites {
    uid: String,
    version: String,
    times: u32,
    until: Option<tokio::time::Instant>,
}

impl TargetTypeWrites {
    /// Returns true if the type may be written now, and counts the write.
    fn may_write(&mut self, binding: &TargetGroupBinding, now: tokio::time::Instant) -> bool {
        if self.uid != binding.uid {
            *self = Self { uid: binding.uid.clone(), ..Self::default() };
        }
        if self.version == binding.resource_version || self.until.is_some_and(|until| now < until) {
            return false;
        }
        self.version.clone_from(&binding.resource_version);
        self.times = self.times.saturating_add(1);
        let pause = |more: u32| FIRST_PAUSE.saturating_mul(1 << more.min(10)).min(LONGEST_PAUSE);
        self.until = self.times.checked_sub(PROMPT_WRITES).map(|more| now + pause(more));
        true
    }
}

/// A binding whose target group and endpoints are known.
struct Resolved {
    /// The binding, completed from its target group.
    binding: TargetGroupBinding,
    arn: TargetGroupArn,
    resolution: Resolution,
}

/// The registered targets of a group.
struct Registered {
    /// Those that the binding decides about.
    present: BTreeMap<Target, TargetHealth>,
    /// The targets that the binding may deregister, if it does not decide about all.
    own: Option<OwnTargets>,
}

/// Returns the role in which the calls about a binding's target group are made, if it is not the controller's own. One that is not
/// valid is an error of the whole pass.
pub(crate) fn role_of(binding: &TargetGroupBinding) -> Option<Role> {
    Role::of(&binding.spec).ok().flatten()
}

/// Returns true if a completed binding asks for nodes in another account, where there can be none.
pub(crate) fn has_nodes_elsewhere(binding: &TargetGroupBinding) -> bool {
    role_of(binding).is_some() && binding.spec.target_type == Some(TargetType::Instance)
}

impl TargetsError {
    pub(crate) fn of_binding(binding: &ObjectName, stage: Stage, problem: impl Into<Problem>) -> Self {
        Self { subject: Subject::Binding(binding.clone()), stage, problem: problem.into() }
    }
}

impl<C: Cloud, K: Cluster> Targets<C, K> {
    /// Registers and deregisters targets until a binding's target group has the desired ones, or releases all of them
    /// if the binding is deleted; maintains its finalizer and status. If nothing has changed, the pass calls neither
    /// AWS nor the API server.
    ///
    /// # Errors
    /// Returns an error if a part of the work has failed; the other parts are done.
    pub async fn reconcile_binding(&self, name: &ObjectName) -> Result<BindingOutcome, TargetsError> {
        let binding = self.snapshot().target_group_bindings.get(name).cloned();
        let Some(binding) = binding else {
            let had_rules = self.memory().remove(name).is_some_and(|memory| memory.network.is_some());
            if had_rules {
                self.node_rules_due.store(true, Ordering::Release);
            }
            return Ok(BindingOutcome { node_rules: self.node_rules_due(), gone: true, ..BindingOutcome::default() });
        };
        let stage = if binding.deleting { Stage::Cleanup } else { Stage::Reconcile };
        let result = if binding.deleting { self.clean_up(&binding).await } else { self.sync_targets(&binding).await };
        let registered = result.as_ref().ok().and_then(|outcome| Some((binding.generation, outcome.targets?)));
        // A pass that fails is repeated, and then queries what is due.
        let is_over = match &result {
            Ok(outcome) => outcome.look.is_none(),
            Err(Failure(_, problem)) => problem.needs_correction() || matches!(problem, Problem::TargetGroupMissing(_)),
        };
        {
            let mut memory = self.memory();
            let memory = memory.entry(name.clone()).or_default();
            memory.registered = registered;
            if is_over {
                memory.look = None;
            }
        }
        if matches!(&result, Err(Failure(_, problem)) if problem.needs_correction()) {
            // The node rules that the binding requested are reconciled now, and again when the binding is fixed.
            let mut memory = self.memory();
            let memory = memory.entry(name.clone()).or_default();
            let had_rules = memory.network.take().is_some();
            let is_new = memory.corrected.replace(binding.generation) != Some(binding.generation);
            if had_rules || is_new && binding.spec.networking.is_some() {
                self.node_rules_due.store(true, Ordering::Release);
            }
        }
        match result {
            Ok(mut outcome) => {
                self.remember_notices(&binding, &outcome);
                outcome.node_rules = self.node_rules_due();
                outcome.changed |= !outcome.registered.is_empty() || !outcome.deregistered.is_empty();
                Ok(outcome)
            }
            Err(Failure(stage_of_error, problem)) => {
                let error = TargetsError::of_binding(name, stage_of_error.unwrap_or(stage), problem);
                if !error.is_transient() {
                    let report = Report { ready: false, reason: error.reason(), message: error.text() };
                    // The caller gets the original error, even if it could not be written.
                    let written = self.report(&binding, &report, None).await;
                    if let Err(Failure(_, status)) = &written {
                        tracing::warn!(binding = %name, error = %status, "the status could not be written");
                    }
                    self.memory().entry(name.clone()).or_default().unwritten = written.is_err();
                }
                Err(error)
            }
        }
    }

    /// Returns the stack that a target group was created for, and the namespace of the binding that holds it.
    pub(crate) async fn owner(&self, arn: &TargetGroupArn) -> Result<Option<Owner>, AwsError> {
        let tags = self.cloud.tags(arn).await?.unwrap_or_default();
        let owner = tags::made_for(&self.settings.cluster, &tags);
        Ok(owner.map(|(stack, home)| Owner { stack, home }))
    }

    /// Registers and deregisters the targets of a binding's target group, and updates the readiness gates of its pods.
    async fn sync_targets(&self, binding: &TargetGroupBinding) -> Result<BindingOutcome, Failure> {
        let mut resolved = self.resolved(binding).await?;
        let Resolved { binding, arn, resolution } = &mut resolved;
        let digest = match resolution {
            Resolution::Targets { targets, .. } => Some(digest(binding, arn, identities(targets))),
            Resolution::BackendMissing { .. } => None,
        };
        let lacking = self.lacking_server_ids(binding, resolution);
        let checkpoint = self.checkpoint(binding);
        let held = binding.finalizers.iter().any(|finalizer| finalizer == BINDING_FINALIZER);
        let counting = digest.as_ref().filter(|digest| held && self.counts(checkpoint.as_deref(), digest));
        let rivals = counting.and_then(|digest| self.known_rivals(binding, digest, resolution));
        if let Some(rivals) = rivals
            && self.cloud.checkpoint_is_trusted(role_of(binding).as_ref(), arn).await.map_err(Problem::from)?
        {
            self.report(binding, &Report::reconciled(), Some(arn)).await?;
            let mut outcome = lacking;
            if let Resolution::Targets { targets, .. } = resolution {
                outcome.targets = Some(targets.len() - endpoints::rivals(targets, &BTreeMap::new()).len());
                targets.retain(|target, _| !rivals.contains(target));
                self.prove(binding, targets.keys());
                self.update_readiness_gates(binding, arn, targets, &mut outcome).await?;
            }
            return Ok(outcome);
        }
        let mut present = self.present_targets(binding, arn).await?;
        if let (Resolution::Targets { targets, .. }, Some(digest)) = (&mut *resolution, &digest) {
            let rivals = endpoints::rivals(targets, &present);
            targets.retain(|target, _| !rivals.contains(target));
            self.memory().entry(binding.name.clone()).or_default().rivals =
                (!rivals.is_empty()).then(|| (digest.clone(), rivals));
        }
        let mut own = self.own_targets(binding, arn).await?;
        if let Some(own) = &mut own {
            own.restrict(&desired(resolution), &mut present);
        }
        if desired(resolution).is_empty() && present.values().any(|health| !is_draining(health)) {
            self.prove_nothing(binding, resolution).await?;
        }
        if !held {
            self.permit.check("RegisterTargets")?;
            let added = self.cluster.set_finalizer(binding, true).await;
            added.map_err(|error| Failure(Some(Stage::AddFinalizer), error.into()))?;
        }
        self.change_targets(resolved, Registered { present, own }, digest, checkpoint, lacking).await
    }

    /// Makes the target group have the desired targets, and writes the status and the checkpoint.
    async fn change_targets(
        &self,
        resolved: Resolved,
        mut registered: Registered,
        digest: Option<String>,
        checkpoint: Option<String>,
        mut outcome: BindingOutcome,
    ) -> Result<BindingOutcome, Failure> {
        let Resolved { binding, arn, resolution } = resolved;
        let backend_missing = matches!(resolution, Resolution::BackendMissing { .. });
        let wanted = desired(&resolution);
        let (owners, missing) = desired_targets(&binding.name, resolution);
        let server_id = |target: &Target| owners.get(target).and_then(TargetOwner::quic_server_id);
        let mut plan = plan(&wanted, server_id, &registered.present, self.max_targets(&binding));
        if let Some(own) = &mut registered.own {
            own.confirm(&mut plan, &wanted);
        }
        let (complete, changes) = (plan.left_out.is_empty(), !plan.is_empty());
        let targets = owners.len() - plan.left_out.len();
        let left_out = (!complete).then(|| self.left_out(&binding, plan.left_out.len()));
        let problems = missing.iter().chain(&left_out);
        outcome
            .notices
            .extend(problems.map(|report| Notice { reason: report.reason, message: report.message.clone() }));
        let report = left_out.or(missing).unwrap_or_else(Report::reconciled);
        // The foreign checkpoint must go: if the targets came to match it again, the other controller would skip its
        // own check.
        if changes && (checkpoint.is_some() || binding.foreign_checkpoint) {
            self.write_checkpoint(&binding, None).await?;
        }
        let bound = BoundTargetGroup { binding: &binding, arn: &arn, owners: &owners };
        let carried = self.carry_out_recorded(bound, plan, &registered, &wanted, &mut outcome).await;
        // A problem with some targets must not delay the pods of the others.
        let gates = match &carried {
            Err(Failure(_, Problem::TargetGroupMissing(_))) => Ok(()),
            _ if backend_missing => self.open_gates(&binding.name, OpenGateReason::BackendMissing, &mut outcome).await,
            _ => self.update_readiness_gates(&binding, &arn, &owners, &mut outcome).await,
        };
        carried?;
        outcome.targets = Some(targets);
        gates?;
        self.report(&binding, &report, Some(&arn)).await?;
        // While pods come and go, one checkpoint at the end is enough.
        let waits = registered.own.as_ref().is_some_and(OwnTargets::has_kept);
        outcome.checkpoint_pending |= changes || waits;
        let stands = match &digest {
            Some(digest) => self.counts(checkpoint.as_deref(), digest),
            None => checkpoint.is_none(),
        };
        if !changes && complete && !waits && !stands {
            let digest = digest.map(|digest| record::in_term(*self.terms().end(), &digest));
            self.write_checkpoint(&binding, digest).await?;
        }
        Ok(outcome)
    }

    /// Makes the calls of a plan. If other clusters use the target group too, the targets are recorded before they are
    /// registered, and forgotten after they are deregistered.
    async fn carry_out_recorded(
        &self,
        bound: BoundTargetGroup<'_>,
        plan: TargetPlan,
        registered: &Registered,
        wanted: &BTreeSet<Target>,
        outcome: &mut BindingOutcome,
    ) -> Result<(), Failure> {
        let Registered { present, own } = registered;
        let Some(own) = own else { return self.carry_out(bound, plan, present, outcome).await };
        let record = self.record_before(bound.binding, own, &plan, wanted).await?;
        let carried = self.carry_out(bound, plan, present, outcome).await;
        if !own.are_proven(&outcome.registered) {
            // They have a record now, so only AWS's answer shows whether they are still to be registered.
            self.cloud.invalidate_targets(role_of(bound.binding).as_ref(), bound.arn);
        }
        // One whose server id has changed is registered again, perhaps by a call whose answer is lost.
        let again = |written: &&Target| wanted.contains(&target(&written.id, written.port));
        let gone: Vec<Target> = outcome.deregistered.iter().filter(|written| !again(written)).cloned().collect();
        let recorded = self.record_after(bound.binding, record, &gone).await;
        carried.and(recorded)
    }

    /// Returns the completed binding with its target group and its endpoints. Returns an error for a binding that does
    /// not hold the target group.
    async fn resolved(&self, written: &TargetGroupBinding) -> Result<Resolved, Failure> {
        Role::of(&written.spec).map_err(Problem::from)?;
        let (binding, arn) = self.complete(written).await?;
        if has_nodes_elsewhere(&binding) {
            return Err(Problem::Role(InvalidRole::Nodes).into());
        }
        let owner = self.owner(&arn).await.map_err(Problem::from)?;
        let resolution = {
            let snapshot = self.snapshot();
            let bindings = Bindings::of(&arn, snapshot.target_group_bindings.values(), &|named| self.known_arn(named));
            if let Some(denied) = bindings.denied(&binding, owner.as_ref()) {
                return Err(denied.into());
            }
            resolve(&snapshot, &binding, self.settings.silent_nodes).map_err(Problem::from)?
        };
        self.note_network(&binding, &resolution);
        if let (None, Some(target_type)) = (written.spec.target_type, binding.spec.target_type) {
            self.write_target_type(written, target_type).await;
        }
        Ok(Resolved { binding, arn, resolution })
    }

    /// Returns the registered targets of a group.
    async fn present_targets(
        &self,
        binding: &TargetGroupBinding,
        arn: &TargetGroupArn,
    ) -> Result<BTreeMap<Target, TargetHealth>, Failure> {
        match self.cloud.targets(role_of(binding).as_ref(), arn).await {
            Err(error) if error.is_not_found() => {
                self.invalidate(binding, arn);
                Err(Problem::TargetGroupMissing(arn.to_string()).into())
            }
            present => Ok(present.map_err(Problem::from)?),
        }
    }

    /// Writes the target type into a binding without one, as the webhook of aws-load-balancer-controller does: from
    /// then on, pods get readiness gates for the binding. aws-load-balancer-controller requires the field.
    async fn write_target_type(&self, binding: &TargetGroupBinding, target_type: TargetType) {
        let now = tokio::time::Instant::now();
        if !self.permit.holds() || !self.memory().entry(binding.name.clone()).or_default().typed.may_write(binding, now)
        {
            return;
        }
        if let Err(error) = self.cluster.write_target_type(binding, target_type).await {
            tracing::warn!(
                binding = %binding.name, %error,
                "spec.targetType could not be written, and pods get no readiness gates for the binding without; set it"
            );
        }
    }

    /// Returns the report on targets that exceed the maximum number.
    fn left_out(&self, binding: &TargetGroupBinding, count: usize) -> Report {
        let most = self.max_targets(binding).unwrap_or_default();
        let message = if self.settings.max_targets == Some(most) {
            format!("{count} targets are left out: --max-targets-per-target-group allows {most}")
        } else {
            format!("{count} targets are left out: a binding with spec.multiClusterTargetGroup has at most {most}")
        };
        Report { ready: false, reason: "FailedReconcile", message }
    }

    fn counts(&self, checkpoint: Option<&str>, digest: &str) -> bool {
        checkpoint.is_some_and(|checkpoint| record::counts(checkpoint, &self.terms(), digest))
    }

    /// Returns the checkpoint of a binding. The watch may lag behind the last write.
    pub(crate) fn checkpoint(&self, binding: &TargetGroupBinding) -> Option<String> {
        let written = self.memory().get(&binding.name).and_then(|memory| memory.checkpoint.clone());
        let written = written.filter(|(uid, _)| *uid == binding.uid);
        written.map_or_else(|| binding.checkpoint.clone(), |(_, checkpoint)| checkpoint)
    }

    async fn write_checkpoint(&self, binding: &TargetGroupBinding, checkpoint: Option<String>) -> Result<(), Failure> {
        self.permit.check("WriteCheckpoint")?;
        let remember = |checkpoint| {
            self.memory().entry(binding.name.clone()).or_default().checkpoint = Some((binding.uid.clone(), checkpoint));
        };
        // A write without an answer may have taken effect or not, and the watch may lag behind. The empty text stands
        // for an unknown checkpoint, which is removed before any change and written again when there is none.
        remember(Some(String::new()));
        match self.cluster.write_checkpoint(binding, checkpoint.as_deref()).await {
            Ok(()) | Err(super::ClusterError::Gone) => {}
            Err(error) => return Err(Failure(Some(Stage::WriteCheckpoint), error.into())),
        }
        remember(checkpoint);
        Ok(())
    }

    /// Makes the calls of a plan. If some targets could not be registered, [`safe_to_deregister`] limits the
    /// deregistrations.
    async fn carry_out(
        &self,
        bound: BoundTargetGroup<'_>,
        plan: TargetPlan,
        present: &BTreeMap<Target, TargetHealth>,
        outcome: &mut BindingOutcome,
    ) -> Result<(), Failure> {
        let BoundTargetGroup { binding, owners, .. } = bound;
        let mut missing = plan.register.concat();
        let registered = owners.len() - missing.len() - plan.left_out.len();
        let mut departing = plan.replaced.len();
        let kept = self.deregister(bound, batches(plan.replaced.clone()), present, outcome).await?;
        let server_id = |target: &Target| owners.get(target).and_then(TargetOwner::quic_server_id);
        let blocked = blocked(&plan, server_id, present, &outcome.deregistered);
        missing.retain(|target| !blocked.contains(target));
        let Registering { refused, mut failure, mut unregistered } = self.register(bound, missing, outcome).await?;
        unregistered.pending += blocked.len();
        failure = kept.or(failure);
        let full = failure.as_ref().and_then(AwsError::code).is_some_and(|code| code.starts_with("TooMany"));
        unregistered.none_registered = registered + outcome.registered.len() == 0 && !full;
        let pending = unregistered.pending;
        let gone = {
            let snapshot = self.snapshot();
            safe_to_deregister(plan.surplus, unregistered, |target| target_state(&snapshot, binding, target))
        };
        // What stands in for targets that AWS never takes does not depart.
        departing += gone.iter().map(Vec::len).sum::<usize>();
        if let Some(error) = self.deregister(bound, gone, present, outcome).await? {
            failure.get_or_insert(error);
        }
        if outcome.deregistered.len() == departing && pending == 0 {
            let mut memory = self.memory();
            let memory = memory.entry(binding.name.clone()).or_default();
            // An earlier answer may be lost.
            let any = std::mem::take(&mut memory.departing);
            memory.departed = Some(Departed { at: tokio::time::Instant::now(), any });
        }
        match failure {
            Some(error) => Err(Problem::Aws(error).into()),
            None if refused.is_empty() => Ok(()),
            None => Err(Problem::RefusedTargets(refused).into()),
        }
    }

    /// Deregisters targets, one call a batch. Returns the error that stopped it.
    async fn deregister(
        &self,
        bound: BoundTargetGroup<'_>,
        batches: Vec<Vec<Target>>,
        present: &BTreeMap<Target, TargetHealth>,
        outcome: &mut BindingOutcome,
    ) -> Result<Option<AwsError>, Failure> {
        let BoundTargetGroup { binding, arn, .. } = bound;
        if batches.iter().any(|batch| !batch.is_empty()) {
            self.memory().entry(binding.name.clone()).or_default().departing = true;
        }
        for batch in batches {
            self.permit.check("DeregisterTargets")?;
            match self.cloud.deregister(role_of(binding).as_ref(), arn, &as_registered(&batch, present)).await {
                Ok(()) => outcome.deregistered.extend(batch),
                Err(error) if error.is_not_found() => return Err(self.group_is_gone(binding, arn)),
                Err(error) => return Ok(Some(error)),
            }
        }
        Ok(None)
    }

    pub(crate) fn group_is_gone(&self, binding: &TargetGroupBinding, arn: &TargetGroupArn) -> Failure {
        self.invalidate(binding, arn);
        Problem::TargetGroupMissing(arn.to_string()).into()
    }

    /// Reads from the API server before a binding loses all targets or rules because the watches show none. Returns an
    /// error if the API server does not confirm it.
    pub(crate) async fn prove_nothing(
        &self,
        binding: &TargetGroupBinding,
        resolution: &Resolution,
    ) -> Result<(), Problem> {
        let reference = &binding.spec.service_ref;
        let name = ObjectName::new(&binding.name.namespace, &reference.name);
        match resolution {
            Resolution::BackendMissing { .. } => match self.cluster.service(&name).await? {
                Some(service) if service.port(&port_reference(&reference.port)).is_some() => {
                    Err(Problem::Behind(format!("Service {name}")))
                }
                _ => Ok(()),
            },
            Resolution::Targets { .. } if binding.spec.target_type == Some(TargetType::Ip) => {
                let slices = self.cluster.endpoint_slices(&name).await?;
                let ready = {
                    let snapshot = self.snapshot();
                    let service = snapshot.services.get(&name);
                    service.map_or_else(Vec::new, |service| ready_pods(&snapshot, &slices, binding, service))
                };
                // EndpointSlices of another controller may name many pods that never existed.
                for pod in ready.into_iter().take(MAX_PROOFS) {
                    if self.cluster.has_pod(&name.namespace, pod).await? {
                        return Err(Problem::Behind(format!("Pod {}", ObjectName::new(&name.namespace, &pod.name))));
                    }
                }
                Ok(())
            }
            Resolution::Targets { .. } => {
                let unknown = self.snapshot().nodes.is_empty();
                if unknown && self.cluster.has_nodes().await? {
                    Err(Problem::Behind("a Node".to_owned()))
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Records that the node rules must be computed again, if the binding's input to them has changed.
    fn note_network(&self, binding: &TargetGroupBinding, resolution: &Resolution) {
        let network = binding.spec.networking.as_ref().map(|networking| {
            let mut hasher = DefaultHasher::new();
            // Stacks wait until a generation is carried out, even if it changes no rules.
            binding.generation.hash(&mut hasher);
            serde_json::to_string(networking).unwrap_or_default().hash(&mut hasher);
            if let Resolution::Targets { targets, .. } = resolution {
                targets.hash(&mut hasher);
            }
            hasher.finish()
        });
        let mut memory = self.memory();
        let remembered = &mut memory.entry(binding.name.clone()).or_default().network;
        if *remembered != network {
            *remembered = network;
            self.node_rules_due.store(true, Ordering::Release);
        }
    }

    async fn report(
        &self,
        binding: &TargetGroupBinding,
        report: &Report,
        carried_out: Option<&TargetGroupArn>,
    ) -> Result<(), Failure> {
        let written = self.memory().get(&binding.name).and_then(|memory| memory.status.clone());
        let written = written.filter(|(uid, _)| *uid == binding.uid).map(|(_, status)| status);
        let next = |current| status::next(current, binding.generation, report, carried_out, Timestamp::now());
        // No write is needed if the watched status is current, or the last written one, which the watch will show.
        let Some(status) = next(binding.status.as_ref()) else { return Ok(()) };
        if written.as_ref().is_some_and(|written| next(Some(written)).is_none()) {
            return Ok(());
        }
        self.permit.check("UpdateStatus")?;
        // If a write has no answer, the watch will show if it has taken effect.
        self.memory().entry(binding.name.clone()).or_default().status = None;
        match self.cluster.write_status(binding, &status).await {
            Ok(()) => {}
            Err(super::ClusterError::Gone) => return Ok(()),
            Err(error) => return Err(Failure(Some(Stage::UpdateStatus), error.into())),
        }
        self.memory().entry(binding.name.clone()).or_default().status = Some((binding.uid.clone(), status));
        Ok(())
    }
}

/// Returns the targets that a binding desires, and the report on a backend that does not exist.
fn desired_targets(binding: &ObjectName, resolution: Resolution) -> (BTreeMap<Target, TargetOwner>, Option<Report>) {
    match resolution {
        Resolution::Targets { targets, skipped, without_server_id: _, with_shared_server_id: _ } => {
            for skipped in skipped {
                tracing::debug!(%binding, what = skipped.what, why = skipped.why, "no target");
            }
            (targets, None)
        }
        Resolution::BackendMissing { what } => {
            let message =
                format!("there is no {what}, so nothing is registered; create it, or correct spec.serviceRef");
            (BTreeMap::new(), Some(Report { ready: false, reason: "BackendNotFound", message }))
        }
    }
}

/// Returns the desired targets.
fn desired(resolution: &Resolution) -> BTreeSet<Target> {
    match resolution {
        Resolution::Targets { targets, .. } => targets.keys().cloned().collect(),
        Resolution::BackendMissing { .. } => BTreeSet::new(),
    }
}

/// Returns targets in the form in which AWS deregisters them: with the zone and the server id that they were registered with.
fn as_registered(targets: &[Target], present: &BTreeMap<Target, TargetHealth>) -> Vec<Registration> {
    let registration = |target: &Target| {
        let health = present.get(target);
        let zone = health.and_then(|health| health.zone.clone());
        Registration { target: target.clone(), zone, quic_server_id: health.and_then(|health| health.quic_server_id) }
    };
    targets.iter().map(registration).collect()
}

/// A problem, and its stage if it is not the stage of the whole pass.
pub(crate) struct Failure(Option<Stage>, Problem);

impl Failure {
    pub(crate) fn at(stage: Stage, problem: impl Into<Problem>) -> Self {
        Self(Some(stage), problem.into())
    }
}

impl<P: Into<Problem>> From<P> for Failure {
    fn from(problem: P) -> Self {
        Self(None, problem.into())
    }
}

mod completion;
mod release;
mod server_ids;
#[cfg(test)]
mod tests;
