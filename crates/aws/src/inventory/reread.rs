//! Reads one group again that was given up, by ARN and by name.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{DOUBT, Inventory, Named, Reading, State, sweep::Part};
use crate::{AwsError, convert};
use albatross_core::model::{LoadBalancerArn, ObservedSecurityGroup, StackId, Tags, TargetGroupArn, tags};

/// The ARNs and names to read.
#[derive(Default)]
struct Wanted {
    load_balancers: Vec<LoadBalancerArn>,
    target_groups: Vec<TargetGroupArn>,
    perhaps: BTreeMap<Named, Instant>,
}

impl Inventory {
    /// Reads what a group has, where it was given up since.
    pub(super) async fn read_forgotten(&self, group: &StackId) -> Result<(), AwsError> {
        let (reading, wanted) = {
            let reading = Reading::begin(self);
            let state = self.state();
            let Some(forgotten) = state.forgotten.get(group) else { return Ok(()) };
            let ours = |tags: &Tags| self.group_of(tags).as_ref() == Some(group);
            let balancers = state.load_balancers.values().filter(|entry| ours(&entry.value.tags));
            let groups = state.target_groups.values().filter(|entry| ours(&entry.value.tags));
            let wanted = Wanted {
                load_balancers: balancers.map(|entry| entry.value.arn.clone()).collect(),
                target_groups: groups.map(|entry| entry.value.arn.clone()).collect(),
                perhaps: forgotten.perhaps.clone(),
            };
            drop(state);
            (reading, wanted)
        };
        let perhaps = wanted.perhaps.clone();
        match self.find_again(group, wanted, &reading).await {
            Ok(part) => self.state().read_again(self, group, part, perhaps),
            Err(error) if error.is_not_found() => {
                if let Some(forgotten) = self.state().forgotten.get_mut(group) {
                    forgotten.missing = true;
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// # Errors
    /// That it is not found, where something that was there is not, and AWS's.
    async fn find_again(&self, group: &StackId, wanted: Wanted, reading: &Reading<'_>) -> Result<Part, AwsError> {
        let name = group.to_string();
        let name = [name.as_str()];
        let (mut balancers, mut groups, security_groups) = tokio::try_join!(
            self.aws.load_balancers_of(&wanted.load_balancers),
            self.aws.target_groups_of(&wanted.target_groups),
            self.aws.security_groups_tagged(&self.vpc, tags::stack_key(group), &name),
        )?;
        for named in wanted.perhaps.keys() {
            match named {
                Named::LoadBalancer(name) => balancers.extend(self.aws.load_balancer_named(name).await?),
                Named::TargetGroup(name) => groups.extend(self.aws.target_groups_named(name).await?),
                // They are listed by their tag.
                Named::SecurityGroup(_) => {}
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
        Ok(Part { wanted, writes, load_balancers, target_groups, security_groups, tags })
    }
}

impl State {
    /// Takes over what was read of a group.
    fn read_again(&mut self, inventory: &Inventory, group: &StackId, part: Part, perhaps: BTreeMap<Named, Instant>) {
        let (wanted, since, found) = (part.wanted, part.writes, part.ids());
        // They are listed by their tag, so that one that is not there is gone, or another's by now.
        self.security_groups.retain(|id, entry| {
            inventory.group_of(&entry.value.tags).as_ref() != Some(group)
                || found.contains(id.as_str())
                || entry.written > since
        });
        self.take_in(part);
        self.doubt(group, perhaps);
        if self.forgotten.get(group).is_some_and(|forgotten| forgotten.at <= wanted) {
            self.forgotten.remove(group);
        }
    }

    /// Remembers what may have been made of a group and is not found yet, or is not known to be the group's.
    pub(super) fn doubt(&mut self, group: &StackId, perhaps: BTreeMap<Named, Instant>) {
        let open = |(named, since): &(Named, Instant)| !self.knows(named) && since.elapsed() < DOUBT;
        let open: BTreeMap<Named, Instant> = perhaps.into_iter().filter(open).collect();
        if !open.is_empty() {
            self.doubted.entry(group.clone()).or_default().extend(open);
        }
    }

    /// Returns whether something of this name is known with its tags.
    fn knows(&self, named: &Named) -> bool {
        match named {
            Named::LoadBalancer(name) => {
                self.load_balancers.values().any(|entry| entry.value.name == *name && entry.tags.is_known())
            }
            Named::TargetGroup(name) => {
                self.target_groups.values().any(|entry| entry.value.name == *name && entry.tags.is_known())
            }
            Named::SecurityGroup(name) => self.security_groups.values().any(|entry| entry.value.name == *name),
        }
    }
}
