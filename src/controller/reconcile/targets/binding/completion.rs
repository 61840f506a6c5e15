//! The fields that a binding leaves out and its target group says. AWS is asked once for each group.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use albatross_core::{
    api::crd::target_group_binding::TargetType,
    model::{ObjectName, TargetGroupArn},
    snapshot::TargetGroupBinding,
    targets::{TargetGroupFacts, TargetGroupKey, binding_owners::key_of},
};

use super::{
    super::{Cloud, Cluster, Problem, Targets},
    role_of,
};

/// The known groups that are kept beside two for each binding.
const SPARE_GROUPS: usize = 64;

impl<C: Cloud, K: Cluster> Targets<C, K> {
    /// Fills in the fields that a binding leaves out, from its target group.
    pub(super) async fn complete(
        &self,
        binding: &TargetGroupBinding,
    ) -> Result<(TargetGroupBinding, TargetGroupArn), Problem> {
        if let Some(completed) = self.completed(binding)? {
            return Ok(completed);
        }
        let key = key_of(&binding.spec).ok_or(Problem::NoTargetGroup)?;
        let found = self.cloud.target_group(role_of(binding).as_ref(), &key).await?;
        let name = match &key {
            TargetGroupKey::Arn(arn) => arn.as_str(),
            TargetGroupKey::Name(name) => name,
        };
        let facts = found.ok_or_else(|| Problem::TargetGroupMissing(name.to_owned()))?;
        let completed = with_facts(binding.clone(), &facts);
        if completed.is_ok() {
            self.know(binding, key, facts);
            if binding.spec.networking.is_some() {
                self.node_rules_due.store(true, Ordering::Release);
            }
        }
        completed
    }

    /// Keeps what AWS has said about the group that a binding names, and drops what no binding names any more when it is most of
    /// what is kept: a spec can be changed without end.
    fn know(&self, binding: &TargetGroupBinding, key: TargetGroupKey, facts: TargetGroupFacts) {
        let snapshot = self.snapshot();
        let mut groups = self.groups();
        groups.insert((role_of(binding), key), facts);
        let bindings = &snapshot.target_group_bindings;
        if groups.len() > 2 * bindings.len() + SPARE_GROUPS {
            let named = bindings.values().filter_map(|binding| Some((role_of(binding), key_of(&binding.spec)?)));
            let named: BTreeSet<_> = named.collect();
            groups.retain(|known, _| named.contains(known));
        }
    }

    /// Returns the ARN of the group that a binding names, if AWS has said it since the start.
    pub(crate) fn known_arn(&self, binding: &TargetGroupBinding) -> Option<TargetGroupArn> {
        let key = key_of(&binding.spec)?;
        self.groups().get(&(role_of(binding), key)).map(|facts| facts.arn.clone())
    }

    /// Fills in the fields as [`Self::complete`] does, but makes no call: `None` if AWS has not been queried yet.
    pub(crate) fn completed(
        &self,
        binding: &TargetGroupBinding,
    ) -> Result<Option<(TargetGroupBinding, TargetGroupArn)>, Problem> {
        let key = key_of(&binding.spec).ok_or(Problem::NoTargetGroup)?;
        let spec = &binding.spec;
        // A binding that a controller created, or that went through a webhook, has all fields.
        let says_it_all = match spec.target_type {
            Some(TargetType::Instance) => true,
            Some(TargetType::Ip) => spec.ip_address_type.is_some(),
            None => false,
        };
        if let (TargetGroupKey::Arn(arn), true) = (&key, says_it_all) {
            return Ok(Some((binding.clone(), arn.clone())));
        }
        let known = self.groups().get(&(role_of(binding), key)).cloned();
        known.map(|facts| with_facts(binding.clone(), &facts)).transpose()
    }

    /// Invalidates the cached targets of a binding's group and the record of its own targets, so that the next pass finds
    /// what others have changed.
    pub fn invalidate_binding(&self, name: &ObjectName) {
        let Some(binding) = self.snapshot().target_group_bindings.get(name).cloned() else { return };
        if let Ok(Some((_, arn))) = self.completed(&binding) {
            self.cloud.invalidate_targets(role_of(&binding).as_ref(), &arn);
        }
        if let Some(memory) = self.memory().get_mut(name) {
            (memory.recorded, memory.proven) = (None, None);
        }
    }

    /// Invalidates the cached state of a target group that AWS does not find any more.
    pub(super) fn invalidate(&self, binding: &TargetGroupBinding, arn: &TargetGroupArn) {
        self.cloud.invalidate_targets(role_of(binding).as_ref(), arn);
        self.groups().retain(|_, facts| facts.arn != *arn);
    }
}

/// Fills in the fields that a binding leaves out.
fn with_facts(
    mut binding: TargetGroupBinding,
    facts: &TargetGroupFacts,
) -> Result<(TargetGroupBinding, TargetGroupArn), Problem> {
    let Some(target_type) = facts.bindable_type() else {
        return Err(Problem::TargetType { arn: facts.arn.clone(), target_type: facts.target_type.clone() });
    };
    binding.spec.target_type.get_or_insert(target_type);
    binding.spec.ip_address_type.get_or_insert(facts.ip_address_type);
    // What a binding of an ARN says of itself is completed without a read, so its targets may depend on no other protocol.
    let quic = facts.known_protocol().filter(|protocol| protocol.is_quic());
    binding.spec.target_group_protocol = binding.spec.target_group_protocol.or(quic);
    Ok((binding, facts.arn.clone()))
}
