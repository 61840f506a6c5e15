//! The end of a binding: its targets are deregistered, and it is released.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    time::Duration,
};

use albatross_aws::{AwsErrorKind, DeniedBy};
use albatross_core::{
    model::{QuicServerId, Target, TargetGroupArn, TargetHealth, tags::BINDING_FINALIZER},
    snapshot::TargetGroupBinding,
    targets::{
        binding_owners::Bindings,
        endpoints::{Resolution, TargetOwner, identities, resolve, rivals, target},
        plan::{TargetState, Unregistered, is_draining, plan, safe_to_deregister},
        readiness::OpenGateReason,
        role::Role,
        shared::is_shared,
    },
};

use super::{
    super::{
        Cloud, Cluster, ClusterError, Problem, Stage, Targets,
        registering::names_targets,
        shared::digest,
        zones::{ZoneSource, zone},
    },
    BindingOutcome, Failure, Notice, as_registered, role_of,
};

/// The time for which a deleted binding waits for its role to be let in.
const BARRED_FOR: Duration = Duration::from_secs(300);
/// The time for which it waits for a permission that the controller itself lacks.
const LACKING_FOR: Duration = Duration::from_secs(3600);
/// The time for which it waits for an answer of STS.
const UNANSWERED_FOR: Duration = Duration::from_secs(24 * 3600);
/// The code by which ELB says that text is not the ARN of a target group in its region.
const NO_ARN: &str = "ValidationError";

impl<C: Cloud, K: Cluster> Targets<C, K> {
    /// Releases a deleted binding: its targets, its record, the gates of its pods, and its finalizer.
    pub(super) async fn clean_up(&self, binding: &TargetGroupBinding) -> Result<BindingOutcome, Failure> {
        let mut outcome = BindingOutcome { gone: true, ..BindingOutcome::default() };
        if !binding.finalizers.iter().any(|finalizer| finalizer == BINDING_FINALIZER) {
            return Ok(outcome);
        }
        let released = match Role::of(&binding.spec) {
            Ok(role) => {
                let released = self.release(binding, &mut outcome).await;
                let denied_by = released.as_ref().err().filter(|_| role.is_some()).and_then(denied_by);
                match (released, denied_by) {
                    (Err(failure), Some(by)) => self.give_up(binding, failure, by, &mut outcome),
                    (released, _) => released,
                }
            }
            // Targets that an earlier role has registered cannot be reached.
            Err(invalid) => {
                outcome.notices.push(left_behind(binding, &invalid));
                Ok(())
            }
        };
        released?;
        self.delete_record(binding).await?;
        self.open_gates(&binding.name, OpenGateReason::BindingDeleted, &mut outcome).await?;
        self.permit.check("DeregisterTargets")?;
        let removed = self.cluster.set_finalizer(binding, false).await;
        match removed {
            Ok(()) | Err(ClusterError::Gone) => {}
            Err(error) => return Err(Failure(Some(Stage::RemoveFinalizer), error.into())),
        }
        outcome.changed = true;
        if self.memory().remove(&binding.name).is_some_and(|memory| memory.network.is_some())
            || binding.spec.networking.is_some()
        {
            self.node_rules_due.store(true, Ordering::Release);
        }
        Ok(outcome)
    }

    /// Releases the targets of a deleted binding, if it decides about them.
    async fn release(&self, binding: &TargetGroupBinding, outcome: &mut BindingOutcome) -> Result<(), Failure> {
        match self.complete(binding).await {
            Ok((binding, arn)) => {
                let owner = self.owner(&arn).await.map_err(Problem::from)?;
                // If another binding holds the target group, that one decides about the targets.
                let holds = {
                    let snapshot = self.snapshot();
                    let bindings =
                        Bindings::of(&arn, snapshot.target_group_bindings.values(), &|named| self.known_arn(named));
                    outcome.unblocked = bindings.others(&binding.name).map(|other| other.name.clone()).collect();
                    match &owner {
                        Some(owner) => bindings.holder(owner).is_some_and(|holder| holder.name == binding.name),
                        // Of a shared group, each releases the targets that are its own. Those that wait for a group that is not
                        // shared deregister nothing that they have not registered.
                        None => {
                            let only_shared = bindings.others(&binding.name).all(|other| is_shared(&other.spec));
                            is_shared(&binding.spec) || only_shared && bindings.denied(&binding, None).is_none()
                        }
                    }
                };
                if holds {
                    self.release_targets(&binding, &arn, outcome).await?;
                }
            }
            // Without a target group, there are no targets to release.
            Err(Problem::NoTargetGroup | Problem::TargetGroupMissing(_) | Problem::TargetType { .. }) => {}
            Err(problem) => return Err(problem.into()),
        }
        Ok(())
    }

    /// Has a deleted binding wait for a role that may not be used, but not for ever: then it goes without its targets, which only
    /// the owner of the other account can deregister.
    fn give_up(
        &self,
        binding: &TargetGroupBinding,
        failure: Failure,
        denied_by: DeniedBy,
        outcome: &mut BindingOutcome,
    ) -> Result<(), Failure> {
        let now = tokio::time::Instant::now();
        let since = {
            let mut memory = self.memory();
            // Each reason has a clock of its own, which an error that says nothing about permission does not stop.
            *memory.entry(binding.name.clone()).or_default().barred.entry(denied_by).or_insert(now)
        };
        if now.saturating_duration_since(since) < patience(denied_by) {
            return Err(failure);
        }
        let Failure(_, problem) = failure;
        tracing::warn!(binding = %binding.name, error = %problem, "a deleted binding is released with its targets still registered");
        outcome.notices.push(left_behind(binding, &problem));
        Ok(())
    }

    async fn release_targets(
        &self,
        binding: &TargetGroupBinding,
        arn: &TargetGroupArn,
        outcome: &mut BindingOutcome,
    ) -> Result<(), Failure> {
        let trusted_targets = self.trusted_targets(binding, arn).await?;
        let of_checkpoint = trusted_targets.as_ref().map(|targets| targets.keys().cloned().collect());
        let own = self.own_targets_at_the_end(binding, arn, of_checkpoint.as_ref()).await?;
        // Only AWS knows the zone with which a target outside the VPC was registered, and deregistration requires that
        // zone.
        let zoned = match &trusted_targets {
            Some(targets) if !targets.is_empty() => {
                let blocks = self.blocks(binding, arn, ZoneSource::Binding).await.map_err(Problem::from)?;
                let snapshot = self.snapshot();
                targets.keys().any(|t| zone(&snapshot, &t.id, None, &blocks, ZoneSource::Binding).is_some())
            }
            _ => false,
        };
        let mut present = match trusted_targets.filter(|_| !zoned) {
            Some(targets) => {
                let registered =
                    |(target, quic_server_id)| (target, TargetHealth { quic_server_id, ..TargetHealth::registering() });
                targets.into_iter().map(registered).collect()
            }
            None => match self.cloud.targets(role_of(binding).as_ref(), arn).await {
                Err(error) if error.is_not_found() || error.is_refused() && error.code() == Some(NO_ARN) => {
                    self.invalidate(binding, arn);
                    return Ok(());
                }
                present => present.map_err(Problem::from)?,
            },
        };
        if let Some(mut own) = own {
            if !own.is_known() && present.values().any(|health| !is_draining(health)) {
                outcome.notices.push(unrecorded(arn));
            }
            own.restrict(&BTreeSet::new(), &mut present);
        } else {
            let of_others = self.desired_by_others(&binding.name, arn).await?;
            present.retain(|written, _| !of_others.contains(&target(&written.id, written.port)));
        }
        let surplus = plan(&BTreeSet::new(), |_| None, &present, None).surplus;
        for batch in safe_to_deregister(surplus, Unregistered::default(), |_| TargetState::Gone) {
            self.permit.check("DeregisterTargets")?;
            match self.cloud.deregister(role_of(binding).as_ref(), arn, &as_registered(&batch, &present)).await {
                Ok(()) => outcome.deregistered.extend(batch),
                Err(error) if error.is_not_found() => {
                    self.invalidate(binding, arn);
                    return Ok(());
                }
                // The call names targets that do not exist any more.
                Err(error) if names_targets(error.code()) && matches!(error.kind, AwsErrorKind::Refused { .. }) => {
                    tracing::warn!(binding = %binding.name, %error, "some targets could not be deregistered");
                }
                Err(error) => return Err(Problem::Aws(error).into()),
            }
        }
        Ok(())
    }

    /// Returns the targets of a binding's checkpoint with their QUIC server ids, if the checkpoint is trusted and matches either no
    /// targets or the current ones of the Service.
    async fn trusted_targets(
        &self,
        binding: &TargetGroupBinding,
        arn: &TargetGroupArn,
    ) -> Result<Option<BTreeMap<Target, Option<QuicServerId>>>, Failure> {
        let Some(checkpoint) = self.checkpoint(binding) else { return Ok(None) };
        if !self.cloud.checkpoint_is_trusted(role_of(binding).as_ref(), arn).await.map_err(Problem::from)? {
            return Ok(None);
        }
        let of_service = match resolve(&self.snapshot(), binding, self.settings.silent_nodes) {
            // AWS says which of those with one server id is registered.
            Ok(Resolution::Targets { targets, .. }) if !rivals(&targets, &BTreeMap::new()).is_empty() => {
                return Ok(None);
            }
            Ok(Resolution::Targets { targets, .. }) => targets,
            Ok(Resolution::BackendMissing { .. }) | Err(_) => BTreeMap::new(),
        };
        let is_of = |targets: &BTreeMap<Target, TargetOwner>| {
            self.counts(Some(&checkpoint), &digest(binding, arn, identities(targets)))
        };
        let targets = [BTreeMap::new(), of_service].into_iter().find(is_of);
        Ok(targets.map(|targets| targets.into_iter().map(|(target, owner)| (target, owner.quic_server_id())).collect()))
    }
}

/// Returns who denied the use of a deleted binding's role; `None` if it is not a matter of permission.
fn denied_by(failure: &Failure) -> Option<DeniedBy> {
    let Failure(_, Problem::Aws(error)) = failure else { return None };
    error.denied_by()
}

/// Returns the time for which a deleted binding waits for its role. What the controller lacks itself is more likely a mistake that
/// is soon put right.
fn patience(denied_by: DeniedBy) -> Duration {
    match denied_by {
        DeniedBy::OtherAccount => BARRED_FOR,
        DeniedBy::OwnAccount => LACKING_FOR,
        DeniedBy::Unanswered => UNANSWERED_FOR,
    }
}

/// Returns the notice about a deleted binding whose role cannot be used.
fn left_behind(binding: &TargetGroupBinding, error: &dyn std::fmt::Display) -> Notice {
    let spec = &binding.spec;
    let group = spec.target_group_arn.as_deref().or(spec.target_group_name.as_deref()).unwrap_or_default();
    let message = format!(
        "its targets may still be registered in {group}, and the binding is released without them: {error}; deregister them in the account of the target group"
    );
    Notice { reason: Stage::Cleanup.reason(), message }
}

/// Returns the notice about a deleted binding of a shared target group whose record is gone.
fn unrecorded(arn: &TargetGroupArn) -> Notice {
    let message = format!(
        "no record says which targets of {arn} are this binding's own, so none is deregistered; deregister those of this cluster by hand"
    );
    Notice { reason: Stage::Cleanup.reason(), message }
}
