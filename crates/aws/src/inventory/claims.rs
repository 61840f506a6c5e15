//! What records vouch for is not read.

use std::collections::BTreeSet;

use super::{BalancerEntry, Inventory, Knowledge, State, TargetGroupEntry};
use crate::AwsError;
use albatross_core::{
    model::{StackId, Tags, TargetGroupArn},
    record::Clean,
};

impl State {
    /// The stacks whose records count: all that a record names is listed, and nothing of the stack was given up.
    pub(super) fn vouched(&self, listed: &BTreeSet<&str>) -> BTreeSet<StackId> {
        let counts = |clean: &Clean| clean.arns().all(|arn| listed.contains(arn));
        self.claims.iter().filter(|(_, clean)| counts(clean)).map(|(stack, _)| stack.clone()).collect()
    }

    /// The ARNs that the records of these stacks name.
    pub(super) fn arns_of(&self, vouched: &BTreeSet<StackId>) -> BTreeSet<String> {
        let claims = self.claims.iter().filter(|(stack, _)| vouched.contains(stack));
        claims.flat_map(|(_, clean)| clean.arns()).map(str::to_owned).collect()
    }

    /// Believes the records of these stacks, but for those that were given up since. `began` is what `wanted` was when the
    /// sweep began that lists what they name.
    pub(super) fn believe(&mut self, vouched: &BTreeSet<StackId>, began: u64) {
        let known = Knowledge { read: Some(began), forgotten: 0 };
        let claims = std::mem::take(&mut self.claims);
        for (stack, clean) in claims.into_iter().filter(|(stack, _)| vouched.contains(stack)) {
            if !clean.holdings.is_empty() {
                self.holdings.insert(stack, clean.holdings);
            }
            for value in clean.load_balancers {
                let listeners = value.listeners.as_ref().map_or_else(Knowledge::default, |_| known);
                let entry = BalancerEntry { tags: known, listeners, written: 0, value };
                self.load_balancers.entry(entry.value.arn.clone()).or_insert(entry);
            }
            for value in clean.target_groups {
                let entry = TargetGroupEntry { tags: known, written: 0, value };
                self.target_groups.entry(entry.value.arn.clone()).or_insert(entry);
            }
        }
    }
}

impl Inventory {
    /// Takes records at their word, as far as the first sweep lists what they name. For the start of a term.
    pub fn claim(&self, records: impl IntoIterator<Item = (StackId, Clean)>) {
        self.state().claims.extend(records);
    }

    /// The tags of a target group as they were last listed, and with our own writes since; `None` for one of another VPC, or
    /// that others made since.
    ///
    /// # Errors
    /// AWS's, when nothing was listed yet and the sweep fails.
    pub async fn listed_tags(&self, arn: &TargetGroupArn) -> Result<Option<Tags>, AwsError> {
        if self.state().swept.is_none() {
            self.sweep(None).await?;
        }
        Ok(self.state().target_groups.get(arn).map(|group| group.value.tags.clone()))
    }

    /// Whether a binding's own word counts for the targets of its group: the group is listed, and nothing about its targets
    /// is known better or was given up.
    ///
    /// # Errors
    /// AWS's, when the sweep fails.
    pub async fn takes_word_for_targets(&self, arn: &TargetGroupArn) -> Result<bool, AwsError> {
        let swept = {
            let state = self.state();
            if state.targets.contains_key(arn) || state.targets_doubted.contains(arn) {
                return Ok(false);
            }
            state.swept.is_some()
        };
        if !swept {
            self.sweep(None).await?;
        }
        Ok(self.state().target_groups.contains_key(arn))
    }
}
