//! Resources that a trusted record names are not read.

use std::collections::BTreeSet;

use super::{BalancerEntry, Inventory, ReadState, State, TargetGroupEntry};
use crate::{AwsError, convert};
use albatross_core::{
    model::{ObservedFrontend, StackId, Tags, TargetGroupArn},
    record::{Clean, Remembered},
};

impl State {
    /// The stacks whose records are trusted: all resources in the record are listed, and nothing of the stack was invalidated.
    pub(super) fn trusted(&self, listed: &BTreeSet<&str>) -> BTreeSet<StackId> {
        let counts = |clean: &Clean| clean.arns().all(|arn| listed.contains(arn));
        self.unverified_records.iter().filter(|(_, clean)| counts(clean)).map(|(stack, _)| stack.clone()).collect()
    }

    /// The ARNs that the records of these stacks name.
    pub(super) fn arns_of(&self, trusted: &BTreeSet<StackId>) -> BTreeSet<String> {
        let unverified_records = self.unverified_records.iter().filter(|(stack, _)| trusted.contains(stack));
        unverified_records.flat_map(|(_, clean)| clean.arns()).map(str::to_owned).collect()
    }

    /// Trusts the records of these stacks, except the records that were invalidated since. `began` is what `wanted` was when
    /// the sweep began that lists what they name.
    pub(super) fn load_trusted(&mut self, trusted: &BTreeSet<StackId>, began: u64) {
        let known = ReadState { read: Some(began), invalidated: 0 };
        let unverified_records = std::mem::take(&mut self.unverified_records);
        for (stack, clean) in unverified_records.into_iter().filter(|(stack, _)| trusted.contains(stack)) {
            self.certificates.load(&stack, clean.certificates);
            if !clean.member_resources.is_empty() {
                self.member_resources.insert(stack, clean.member_resources);
            }
            let ObservedFrontend { load_balancers, target_groups, targets } = clean.frontend;
            for (arn, registered) in targets {
                self.targets.entry(arn).or_insert_with(|| convert::registered_load_balancers(registered));
            }
            for value in clean.load_balancers.into_iter().chain(load_balancers) {
                let listeners = value.listeners.as_ref().map_or_else(ReadState::default, |_| known);
                let entry = BalancerEntry { tags: known, listeners, written: 0, value };
                self.load_balancers.entry(entry.value.arn.clone()).or_insert(entry);
            }
            for value in clean.target_groups.into_iter().chain(target_groups) {
                let entry = TargetGroupEntry { tags: known, written: 0, value };
                self.target_groups.entry(entry.value.arn.clone()).or_insert(entry);
            }
        }
    }
}

impl Inventory {
    /// Takes records at their word, as far as the first sweep lists what they name. For the start of a term.
    pub fn add_records(&self, records: impl IntoIterator<Item = (StackId, Clean)>) {
        self.state().unverified_records.extend(records);
    }

    /// Takes over what is remembered of stacks that were not in their desired state. For the start of a term.
    pub fn add_remembered(&self, remembered: impl IntoIterator<Item = (StackId, Remembered)>) {
        let mut state = self.state();
        for (stack, Remembered { member_resources, created }) in remembered {
            state.certificates.load_created(created);
            if !member_resources.is_empty() {
                state.member_resources.insert(stack, member_resources);
            }
        }
    }

    /// The tags of a target group as they were last listed, and with the controller's own writes since; `None` for one of
    /// another VPC, or that others made since.
    ///
    /// # Errors
    /// AWS's, when nothing was listed yet and the sweep fails.
    pub async fn listed_tags(&self, arn: &TargetGroupArn) -> Result<Option<Tags>, AwsError> {
        if self.state().swept.is_none() {
            self.sweep(None).await?;
        }
        Ok(self.state().target_groups.get(arn).map(|group| group.value.tags.clone()))
    }

    /// Returns true if a binding's checkpoint can be trusted for the targets of its group: the group is listed, and nothing about its
    /// targets is known better or was invalidated.
    ///
    /// # Errors
    /// AWS's, when the sweep fails.
    pub async fn checkpoint_is_trusted(&self, arn: &TargetGroupArn) -> Result<bool, AwsError> {
        if !self.knows_nothing_of(arn) {
            return Ok(false);
        }
        if self.state().swept.is_none() {
            self.sweep(None).await?;
        }
        Ok(self.state().target_groups.contains_key(arn))
    }

    /// Returns true if nothing about a group's targets is known from an answer or was invalidated. A group of another account is
    /// not listed, so a checkpoint of its targets can be trusted then.
    #[must_use]
    pub fn knows_nothing_of(&self, arn: &TargetGroupArn) -> bool {
        let state = self.state();
        !state.targets.contains_key(arn) && !state.stale_targets.contains(arn)
    }
}
