//! Reads an invalidated stack again, by ARN and by name.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{Inventory, Reading, ResourceName, State, UNCERTAIN_FOR, sweep::ReadResources};
use crate::{AwsError, convert};
use albatross_core::model::{LoadBalancerArn, ObservedSecurityGroup, StackId, Tags, TargetGroupArn};

/// The ARNs and names to read.
#[derive(Default)]
struct RereadRequest {
    load_balancers: Vec<LoadBalancerArn>,
    target_groups: Vec<TargetGroupArn>,
    possibly_created: BTreeMap<ResourceName, Instant>,
}

impl Inventory {
    /// Reads the resources of a group if it was invalidated since.
    pub(super) async fn read_invalidated(&self, stack: &StackId) -> Result<(), AwsError> {
        let (reading, wanted) = {
            let reading = Reading::begin(self);
            let state = self.state();
            let Some(invalidated) = state.invalidated.get(stack) else { return Ok(()) };
            let ours = |tags: &Tags| self.group_of(tags).as_ref() == Some(stack);
            let balancers = state.load_balancers.values().filter(|entry| ours(&entry.value.tags));
            let groups = state.target_groups.values().filter(|entry| ours(&entry.value.tags));
            let wanted = RereadRequest {
                load_balancers: balancers.map(|entry| entry.value.arn.clone()).collect(),
                target_groups: groups.map(|entry| entry.value.arn.clone()).collect(),
                possibly_created: invalidated.possibly_created.clone(),
            };
            drop(state);
            (reading, wanted)
        };
        let possibly_created = wanted.possibly_created.clone();
        match self.find_again(stack, wanted, &reading).await {
            Ok(part) => self.state().read_again(self, stack, part, possibly_created),
            Err(error) if error.is_not_found() => {
                if let Some(invalidated) = self.state().invalidated.get_mut(stack) {
                    invalidated.missing = true;
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// # Errors
    /// That it is not found, where something that was there is not, and AWS's.
    async fn find_again(
        &self,
        group: &StackId,
        wanted: RereadRequest,
        reading: &Reading<'_>,
    ) -> Result<ReadResources, AwsError> {
        let name = group.to_string();
        let name = [name.as_str()];
        let (mut balancers, mut groups, security_groups) = tokio::try_join!(
            self.aws.load_balancers_of(&wanted.load_balancers),
            self.aws.target_groups_of(&wanted.target_groups),
            self.aws.security_groups_tagged(&self.vpc, group.stack_key(), &name),
        )?;
        for named in wanted.possibly_created.keys() {
            match named {
                ResourceName::LoadBalancer(name) => balancers.extend(self.aws.load_balancer_named(name).await?),
                ResourceName::TargetGroup(name) => groups.extend(self.aws.target_groups_named(name).await?),
                // They are listed by their tag.
                ResourceName::SecurityGroup(_) => {}
            }
        }
        let vpc = Some(self.vpc.as_str());
        let in_vpc = balancers.iter().filter(|b| b.vpc_id() == vpc);
        let load_balancers: Vec<_> = in_vpc.filter_map(convert::load_balancer).collect();
        let tagged = groups.iter().filter(|group| group.vpc_id() == vpc).filter_map(convert::target_group);
        let arns: BTreeSet<String> = load_balancers
            .iter()
            .map(|balancer| balancer.arn.to_string())
            .chain(tagged.map(|group| group.arn.to_string()))
            .collect();
        let tags = self.aws.tags(&arns.into_iter().collect::<Vec<_>>()).await?;
        let target_groups = groups.iter().filter_map(convert::target_group).collect();
        // Another cluster may have a group of that name.
        let ours = |found: &ObservedSecurityGroup| self.group_of(&found.tags).as_ref() == Some(group);
        let security_groups = security_groups.into_iter().filter(ours).collect();
        let Reading { wanted, writes, .. } = *reading;
        Ok(ReadResources { wanted, writes, load_balancers, target_groups, security_groups, tags })
    }
}

impl State {
    /// Takes over what was read of a group.
    fn read_again(
        &mut self,
        inventory: &Inventory,
        stack: &StackId,
        part: ReadResources,
        possibly_created: BTreeMap<ResourceName, Instant>,
    ) {
        let (wanted, since, found) = (part.wanted, part.writes, part.ids());
        // They are listed by their tag, so one that is not listed was deleted or has another owner now.
        self.security_groups.retain(|id, entry| {
            inventory.group_of(&entry.value.tags).as_ref() != Some(stack)
                || found.contains(id.as_str())
                || entry.written > since
        });
        self.take_over(part);
        self.mark_uncertain(stack, possibly_created);
        if self.invalidated.get(stack).is_some_and(|invalidated| invalidated.at <= wanted) {
            self.invalidated.remove(stack);
        }
    }

    /// Remembers what may have been made of a group and is not found yet, or is not known to be the group's.
    pub(super) fn mark_uncertain(&mut self, stack: &StackId, possibly_created: BTreeMap<ResourceName, Instant>) {
        let open = |(named, since): &(ResourceName, Instant)| !self.knows(named) && since.elapsed() < UNCERTAIN_FOR;
        let open: BTreeMap<ResourceName, Instant> = possibly_created.into_iter().filter(open).collect();
        if !open.is_empty() {
            self.uncertain.entry(stack.clone()).or_default().extend(open);
        }
    }

    /// Returns true if a resource of this name is known with its tags.
    fn knows(&self, named: &ResourceName) -> bool {
        match named {
            ResourceName::LoadBalancer(name) => {
                self.load_balancers.values().any(|entry| entry.value.name == *name && entry.tags.is_known())
            }
            ResourceName::TargetGroup(name) => {
                self.target_groups.values().any(|entry| entry.value.name == *name && entry.tags.is_known())
            }
            ResourceName::SecurityGroup(name) => self.security_groups.values().any(|entry| entry.value.name == *name),
        }
    }
}
