//! What records vouch for: whose a load balancer or target group is, without reading its tags.

use super::Inventory;
use crate::{
    aws::AwsError,
    model::{ObservedStack, StackId, TargetGroupArn},
    record::Clean,
};

impl Inventory {
    /// Takes records at their word, until what is known of their stacks is given up. For the start of a term.
    pub fn claim(&self, records: impl IntoIterator<Item = (StackId, Clean)>) {
        let mut state = self.state();
        for (stack, clean) in records {
            state.claims.extend(clean.arns().map(|arn| (arn.to_owned(), stack.clone())));
        }
    }

    /// What is listed of a stack whose record is taken at its word: load balancers without listeners and tags, target groups
    /// without tags. `None` where the record counts for nothing: AWS lists more or less than it names, or what is known of
    /// the stack was given up. Then [`Self::observe`] tells more.
    ///
    /// # Errors
    /// AWS's, when the sweep fails.
    pub async fn listed(&self, stack: &StackId, clean: &Clean) -> Result<Option<ObservedStack>, AwsError> {
        if !clean.arns().all(|arn| self.state().claims.get(arn) == Some(stack)) {
            return Ok(None);
        }
        self.sweep(Some(stack)).await?;
        let state = self.state();
        let listed = self.stack(&state, stack);
        let claimed = clean.arns().all(|arn| state.claims.get(arn) == Some(stack));
        Ok(Some(listed).filter(|listed| claimed && clean.names_all_of(listed)))
    }

    /// Reads the tags of what is a stack's by a record's word alone.
    pub(super) async fn read_claimed(&self, stack: &StackId) -> Result<(), AwsError> {
        let (claimed, listed, began): (Vec<String>, Vec<String>, u64) = {
            let state = self.state();
            let of_stack = state.claims.iter().filter(|(_, claim)| *claim == stack);
            let claimed: Vec<String> = of_stack.map(|(arn, _)| arn.clone()).collect();
            let listed = claimed.iter().filter(|arn| state.knows(arn)).cloned().collect();
            (claimed, listed, state.wanted)
        };
        if claimed.is_empty() {
            return Ok(());
        }
        let mut tags = match self.aws.tags(&listed).await {
            Err(error) if error.is_not_found() => {
                self.forget(stack);
                return Err(error);
            }
            tags => tags?,
        };
        let missing = {
            let mut state = self.state();
            for arn in &claimed {
                state.claims.remove(arn);
            }
            let entries =
                state.load_balancers.values_mut().map(|b| (b.value.arn.as_str(), &mut b.value.tags, &mut b.tags));
            for (arn, known, knowledge) in entries {
                if let Some(tags) = tags.remove(arn) {
                    (*known, knowledge.read) = (tags, Some(began));
                }
            }
            let entries =
                state.target_groups.values_mut().map(|t| (t.value.arn.as_str(), &mut t.value.tags, &mut t.tags));
            for (arn, known, knowledge) in entries {
                if let Some(tags) = tags.remove(arn) {
                    (*known, knowledge.read) = (tags, Some(began));
                }
            }
            listed.iter().any(|arn| !state.tags_known(arn))
        };
        if missing {
            // They went away, or AWS did not know them yet: listed again.
            self.forget(stack);
        }
        Ok(())
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
