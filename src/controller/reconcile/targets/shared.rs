//! The targets of a binding whose group other clusters use too: only those that the binding's record has are deregistered.

use std::collections::{BTreeMap, BTreeSet};

use albatross_core::{
    model::{ObjectName, Target, TargetGroupArn, TargetHealth},
    record,
    snapshot::TargetGroupBinding,
    targets::{
        binding_owners::Bindings,
        endpoints::{Resolution, resolve},
        plan::TargetPlan,
        role::Role,
        shared::{self, is_shared},
    },
};

use super::{
    Cloud, Cluster, ClusterError, Problem, Stage, Targets,
    binding::{Failure, has_nodes_elsewhere},
};

/// The targets that a binding may deregister, if it does not decide about its whole target group.
#[derive(Debug, Default)]
pub(crate) struct OwnTargets {
    /// The record; `None` if there is none yet.
    recorded: Option<BTreeSet<Target>>,
    /// The desired targets of the cluster's other bindings of the group.
    of_others: BTreeSet<Target>,
    /// Those of them that no other binding has recorded.
    unrecorded: BTreeSet<Target>,
    /// The recorded targets that are left to the other bindings, and stay recorded until one of these records them.
    kept: BTreeSet<Target>,
    /// The targets that are registered again because they have no record.
    unproven: BTreeSet<Target>,
}

impl OwnTargets {
    /// Returns true if the binding has a record.
    pub(crate) fn is_known(&self) -> bool {
        self.recorded.is_some()
    }

    /// Returns true if recorded targets wait until another binding records them.
    pub(crate) fn has_kept(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Adds to a plan the desired targets that only another cluster may have registered.
    pub(crate) fn confirm(&mut self, plan: &mut TargetPlan, desired: &BTreeSet<Target>) {
        self.unproven = shared::confirm(plan, desired, self.recorded.as_ref());
    }

    /// Returns true if all targets that only another cluster may have registered are registered by this one, too.
    pub(crate) fn are_proven(&self, registered: &[Target]) -> bool {
        self.unproven.iter().all(|target| registered.contains(target))
    }

    /// Removes the registered targets that are not the binding's own.
    pub(crate) fn restrict(&mut self, desired: &BTreeSet<Target>, present: &mut BTreeMap<Target, TargetHealth>) {
        self.kept = shared::kept(present, desired, self.recorded.as_ref(), &self.unrecorded);
        shared::restrict(present, desired, self.recorded.as_ref(), &self.of_others);
    }
}

impl<C: Cloud, K: Cluster> Targets<C, K> {
    /// Returns the most targets that a binding may have.
    pub(crate) fn max_targets(&self, binding: &TargetGroupBinding) -> Option<usize> {
        let of_record = is_shared(&binding.spec).then_some(shared::MAX_RECORDED);
        [self.settings.max_targets, of_record].into_iter().flatten().min()
    }

    /// Returns the targets that a binding may deregister; `None` if these are all targets of the group. Deletes the record of a
    /// binding that does not share its group any more.
    pub(crate) async fn own_targets(
        &self,
        binding: &TargetGroupBinding,
        arn: &TargetGroupArn,
    ) -> Result<Option<OwnTargets>, Failure> {
        if !is_shared(&binding.spec) {
            self.delete_record(binding).await?;
            return Ok(None);
        }
        let recorded = match self.remembered(binding) {
            Some(recorded) => Some(recorded),
            None => self.read_record(binding).await?.or_else(|| self.remember_proven(binding)),
        };
        let of_others = self.desired_by_others(&binding.name, arn).await?;
        let unrecorded = of_others.difference(&self.recorded_by_others(&binding.name, arn)).cloned().collect();
        Ok(Some(OwnTargets { recorded, of_others, unrecorded, ..OwnTargets::default() }))
    }

    /// Returns the targets that a deleted binding may deregister. Without a record, its checkpoint names them, if it is trusted.
    pub(crate) async fn own_targets_at_the_end(
        &self,
        binding: &TargetGroupBinding,
        arn: &TargetGroupArn,
        of_checkpoint: Option<&BTreeSet<Target>>,
    ) -> Result<Option<OwnTargets>, Failure> {
        let own = self.own_targets(binding, arn).await?;
        Ok(own.map(|own| OwnTargets { recorded: own.recorded.or_else(|| of_checkpoint.cloned()), ..own }))
    }

    /// Records the targets that a plan is about to register, before it does. Returns the record for the time of the plan.
    pub(crate) async fn record_before(
        &self,
        binding: &TargetGroupBinding,
        own: &OwnTargets,
        plan: &TargetPlan,
        desired: &BTreeSet<Target>,
    ) -> Result<BTreeSet<Target>, Failure> {
        let record = shared::during(plan, desired, &own.kept);
        // What is recorded and gone is forgotten after the plan, in one write with what it deregisters.
        if !own.recorded.as_ref().is_some_and(|recorded| recorded.is_superset(&record)) && !record.is_empty() {
            self.write_record(binding, &record).await?;
        }
        Ok(record)
    }

    /// Forgets the targets that a plan has deregistered.
    pub(crate) async fn record_after(
        &self,
        binding: &TargetGroupBinding,
        during: BTreeSet<Target>,
        deregistered: &[Target],
    ) -> Result<(), Failure> {
        let record = shared::after(during, deregistered);
        let is_current = self.remembered(binding).map_or(record.is_empty(), |known| known == record);
        if is_current { Ok(()) } else { self.write_record(binding, &record).await }
    }

    /// Deletes the record of a binding that is deleted, or that shares its group no more.
    pub(crate) async fn delete_record(&self, binding: &TargetGroupBinding) -> Result<(), Failure> {
        let checkpoint = self.checkpoint(binding);
        let shared = is_shared(&binding.spec) || checkpoint.is_some_and(|checkpoint| record::was_shared(&checkpoint));
        if !shared && self.remembered(binding).is_none() {
            return Ok(());
        }
        self.permit.check("DeleteRecord")?;
        match self.cluster.delete_own_targets(&binding.name).await {
            Ok(()) | Err(ClusterError::Gone) => {}
            Err(error) => return Err(Failure::at(Stage::Record, error)),
        }
        self.remember(binding, None);
        Ok(())
    }

    fn remembered(&self, binding: &TargetGroupBinding) -> Option<BTreeSet<Target>> {
        let recorded = self.memory().get(&binding.name)?.recorded.clone()?;
        (recorded.0 == binding.uid).then_some(recorded.1)
    }

    fn remember(&self, binding: &TargetGroupBinding, record: Option<BTreeSet<Target>>) {
        let mut memory = self.memory();
        let memory = memory.entry(binding.name.clone()).or_default();
        memory.recorded = record.map(|record| (binding.uid.clone(), record));
        memory.proven = None;
    }

    /// Remembers the targets that a trusted checkpoint proves to be recorded. A restart reads no record, which may be gone when it
    /// is needed: the deletion of a namespace deletes it before the binding.
    pub(crate) fn prove<'a>(&self, binding: &TargetGroupBinding, targets: impl Iterator<Item = &'a Target> + Clone) {
        if !is_shared(&binding.spec) || self.remembered(binding).is_some() {
            return;
        }
        let mut memory = self.memory();
        let proven = &mut memory.entry(binding.name.clone()).or_default().proven;
        let is_current =
            |(uid, known): &(String, BTreeSet<Target>)| *uid == binding.uid && known.iter().eq(targets.clone());
        if !proven.as_ref().is_some_and(is_current) {
            *proven = Some((binding.uid.clone(), targets.cloned().collect()));
        }
    }

    /// Takes the targets that a checkpoint has proven for the record, which is gone.
    fn remember_proven(&self, binding: &TargetGroupBinding) -> Option<BTreeSet<Target>> {
        let proven = self.memory().get(&binding.name)?.proven.clone()?;
        let proven = (proven.0 == binding.uid).then_some(proven.1)?;
        self.remember(binding, Some(proven.clone()));
        Some(proven)
    }

    async fn read_record(&self, binding: &TargetGroupBinding) -> Result<Option<BTreeSet<Target>>, Failure> {
        let read = self.cluster.own_targets(binding).await;
        let text = read.map_err(|error| Failure::at(Stage::Record, error))?;
        let record = text.map(|text| shared::targets(&text));
        if record.is_some() {
            self.remember(binding, record.clone());
        }
        Ok(record)
    }

    async fn write_record(&self, binding: &TargetGroupBinding, record: &BTreeSet<Target>) -> Result<(), Failure> {
        self.permit.check("WriteRecord")?;
        let before = self.remembered(binding);
        // A write without an answer may have taken effect or not, so that the next pass reads the record.
        self.remember(binding, None);
        let written = self.cluster.write_own_targets(binding, &shared::text(record)).await;
        if let (Err(error), Some(before)) = (&written, before)
            && !matches!(error, ClusterError::Unavailable(_))
        {
            // In a namespace that is being deleted, the record may be gone, and none can be created.
            self.remember(binding, Some(before.union(record).cloned().collect()));
        }
        written.map_err(|error| Failure::at(Stage::Record, error))?;
        self.remember(binding, Some(record.clone()));
        Ok(())
    }

    /// Returns the targets that the cluster's other bindings of a shared group are known to have recorded.
    fn recorded_by_others(&self, name: &ObjectName, arn: &TargetGroupArn) -> BTreeSet<Target> {
        let others: Vec<(ObjectName, String)> = {
            let snapshot = self.snapshot();
            let bindings = Bindings::of(arn, snapshot.target_group_bindings.values(), &|named| self.known_arn(named));
            bindings.others(name).map(|other| (other.name.clone(), other.uid.clone())).collect()
        };
        let memory = self.memory();
        let known = others.iter().filter_map(|(name, uid)| {
            let memory = memory.get(name)?;
            let (of, targets) = memory.recorded.as_ref().or(memory.proven.as_ref())?;
            (of == uid).then_some(targets)
        });
        known.flatten().cloned().collect()
    }

    /// Returns the desired targets of the cluster's other bindings of a shared group that may use it.
    pub(crate) async fn desired_by_others(
        &self,
        name: &ObjectName,
        arn: &TargetGroupArn,
    ) -> Result<BTreeSet<Target>, Failure> {
        let owner = self.owner(arn).await.map_err(Problem::from)?;
        let snapshot = self.snapshot();
        let bindings = Bindings::of(arn, snapshot.target_group_bindings.values(), &|named| self.known_arn(named));
        let may_use = |other: &&TargetGroupBinding| {
            is_shared(&other.spec) && Role::of(&other.spec).is_ok() && bindings.denied(other, owner.as_ref()).is_none()
        };
        let resolved = bindings.others(name).filter(may_use).filter_map(|other| {
            let (completed, _) = self.completed(other).ok()??;
            if has_nodes_elsewhere(&completed) {
                return None;
            }
            resolve(&snapshot, &completed, self.settings.silent_nodes).ok()
        });
        let targets = resolved.flat_map(|resolution| match resolution {
            Resolution::Targets { targets, .. } => targets.into_keys().collect(),
            Resolution::BackendMissing { .. } => Vec::new(),
        });
        Ok(targets.collect())
    }
}

/// Returns the text of a checkpoint about these targets.
pub(crate) fn digest<T: std::fmt::Display>(
    binding: &TargetGroupBinding,
    arn: &TargetGroupArn,
    targets: impl IntoIterator<Item = T>,
) -> String {
    if is_shared(&binding.spec) { record::of_shared_targets(arn, targets) } else { record::of_targets(arn, targets) }
}
