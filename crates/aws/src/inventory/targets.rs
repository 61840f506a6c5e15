//! The targets of target groups, as far as they are known.

use std::collections::BTreeMap;

use super::Inventory;
use crate::AwsError;
use albatross_core::model::{HealthState, Target, TargetGroupArn, TargetHealth};

/// A read of targets: its answer is kept unless the targets of that group are invalidated before it comes.
struct TargetRead<'a> {
    inventory: &'a Inventory,
    number: u64,
}

impl<'a> TargetRead<'a> {
    fn begin(inventory: &'a Inventory, arn: &TargetGroupArn) -> Self {
        let mut state = inventory.state();
        state.target_reads_begun += 1;
        let number = state.target_reads_begun;
        state.target_reads.insert(number, arn.clone());
        drop(state);
        Self { inventory, number }
    }
}

impl Drop for TargetRead<'_> {
    fn drop(&mut self) {
        self.inventory.state().target_reads.remove(&self.number);
    }
}

impl Inventory {
    /// The targets of a group. Asks AWS unless they are known: by an earlier answer and what was registered since, or
    /// because the group was made by this process. Healths are as old as the answer; [`Self::invalidate_targets`] has them
    /// read again.
    ///
    /// # Errors
    /// AWS's.
    pub async fn targets(&self, arn: &TargetGroupArn) -> Result<BTreeMap<Target, TargetHealth>, AwsError> {
        if let Some(targets) = self.state().targets.get(arn) {
            return Ok(targets.clone());
        }
        self.read_targets(arn).await
    }

    /// The targets of a group, with their healths, as AWS has them at this moment. No other task may register or deregister
    /// meanwhile: one worker at a time reconciles a binding, and a target group has one binding.
    ///
    /// # Errors
    /// AWS's.
    pub async fn read_targets(&self, arn: &TargetGroupArn) -> Result<BTreeMap<Target, TargetHealth>, AwsError> {
        let read = TargetRead::begin(self, arn);
        let targets = self.aws.describe_target_health(arn).await?;
        let mut state = self.state();
        if state.target_reads.remove(&read.number).is_some() {
            state.targets.insert(arn.clone(), targets.clone());
            state.stale_targets.remove(arn);
        }
        drop(state);
        Ok(targets)
    }

    /// Returns the number of healthy targets of a group as AWS has them at this moment (DescribeTargetHealth); none if the
    /// group does not exist. What is known of the targets does not change.
    ///
    /// # Errors
    /// AWS's.
    pub async fn healthy(&self, arn: &TargetGroupArn) -> Result<usize, AwsError> {
        match self.aws.describe_target_health(arn).await {
            Ok(targets) => Ok(targets.values().filter(|health| health.state == HealthState::Healthy).count()),
            Err(error) if error.is_not_found() => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Invalidates the cached state of a target group's targets.
    pub fn invalidate_targets(&self, arn: &TargetGroupArn) {
        self.state().invalidate_targets(arn);
    }
}
