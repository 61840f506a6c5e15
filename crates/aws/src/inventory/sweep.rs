//! The sweep: everything is listed, and the tags of resources that are not known yet are read.

use std::collections::{BTreeMap, BTreeSet};

use super::{BalancerEntry, Inventory, ReadState, Reading, SecurityGroupEntry, State, TargetGroupEntry, UNCERTAIN_FOR};
use crate::{AwsError, Priority, convert, elb::security_groups_of, with_priority};
use albatross_core::model::{
    ObservedLoadBalancer, ObservedSecurityGroup, ObservedTargetGroup, SecurityGroupId, StackId, Tags, TargetGroupArn,
    tags,
};

/// The result of a sweep. It is complete: a resource that is not in it is not in AWS.
struct SweepResult {
    part: ReadResources,
    others: BTreeMap<String, BTreeSet<SecurityGroupId>>,
    /// Stacks all of whose record is listed.
    trusted: BTreeSet<StackId>,
}

/// The resources that a read has found.
pub(super) struct ReadResources {
    /// `State::wanted` when it began.
    pub(super) wanted: u64,
    /// `State::writes` when it began.
    pub(super) writes: u64,
    pub(super) load_balancers: Vec<ObservedLoadBalancer>,
    pub(super) target_groups: Vec<ObservedTargetGroup>,
    pub(super) security_groups: Vec<ObservedSecurityGroup>,
    /// By ARN, of the resources whose tags were not known.
    pub(super) tags: BTreeMap<String, Tags>,
}

impl Inventory {
    /// Ensures that everything has been listed since the cached state of the group, or of any, was last invalidated.
    pub(super) async fn sweep(&self, group: Option<&StackId>) -> Result<(), AwsError> {
        if !self.state().needs_sweep(group) {
            return Ok(());
        }
        let _one = self.sweeping.lock().await;
        // The callers that waited for another's sweep have what they need, unless something was invalidated meanwhile.
        if !self.state().needs_sweep(group) {
            return Ok(());
        }
        let reading = Reading::begin(self);
        // An edit may come to wait for it, even if another pass began it.
        let found = with_priority(Priority::Edit, self.find(&reading)).await?;
        self.state().merge(found);
        Ok(())
    }

    async fn find(&self, reading: &Reading<'_>) -> Result<SweepResult, AwsError> {
        let cluster = [self.cluster.as_str()];
        let (balancers, groups, security_groups) = tokio::try_join!(
            self.aws.load_balancers(None),
            self.aws.target_groups(),
            self.aws.security_groups_tagged(&self.vpc, tags::CLUSTER, &cluster),
        )?;
        let vpc = Some(self.vpc.as_str());
        let in_vpc: Vec<_> = balancers.into_iter().filter(|b| b.vpc_id() == vpc).collect();
        let load_balancers: Vec<_> = in_vpc.iter().filter_map(convert::load_balancer).collect();
        let mut others = security_groups_of(&in_vpc);
        for balancer in &load_balancers {
            others.remove(balancer.arn.as_str());
        }
        let listed: BTreeSet<&str> = load_balancers
            .iter()
            .map(|b| b.arn.as_str())
            .chain(groups.iter().filter_map(|group| group.target_group_arn()))
            .collect();
        let (trusted, unknown): (BTreeSet<StackId>, Vec<String>) = {
            let state = self.state();
            let trusted = state.trusted(&listed);
            let named = state.arns_of(&trusted);
            let balancers = load_balancers
                .iter()
                .filter(|b| !named.contains(b.arn.as_str()))
                .filter(|b| !state.load_balancers.get(&b.arn).is_some_and(|e| e.tags.is_known()))
                .map(|b| b.arn.as_str());
            let groups = groups
                .iter()
                .filter(|g| g.vpc_id() == vpc)
                .filter_map(convert::target_group)
                .filter(|g| !named.contains(g.arn.as_str()))
                .filter(|g| !state.target_groups.get(&g.arn).is_some_and(|e| e.tags.is_known()))
                .map(|g| g.arn);
            let unknown = balancers.map(str::to_owned).chain(groups.map(|arn| arn.as_str().to_owned())).collect();
            (trusted, unknown)
        };
        let tags = self.aws.tags(&unknown).await?;
        let target_groups = groups.iter().filter_map(convert::target_group).collect();
        tracing::debug!(
            load_balancers = load_balancers.len(),
            target_groups = groups.len(),
            security_groups = security_groups.len(),
            tags_read = unknown.len(),
            "listed what AWS has"
        );
        let Reading { wanted, writes, .. } = *reading;
        let part = ReadResources { wanted, writes, load_balancers, target_groups, security_groups, tags };
        Ok(SweepResult { part, others, trusted })
    }
}

impl State {
    /// Takes over what a sweep has found, except what the controller has written or deleted since it began.
    fn merge(&mut self, found: SweepResult) {
        let SweepResult { part, others, trusted } = found;
        let (wanted, since) = (part.wanted, part.writes);
        self.load_trusted(&trusted, wanted);
        let known = part.ids();
        // A resource that is not in it is gone.
        self.load_balancers.retain(|arn, entry| known.contains(arn.as_str()) || entry.written > since);
        self.target_groups.retain(|arn, entry| known.contains(arn.as_str()) || entry.written > since);
        self.security_groups.retain(|id, entry| known.contains(id.as_str()) || entry.written > since);
        self.others = others;
        let read = self.invalidated.extract_if(.., |_, invalidated| invalidated.at <= wanted).collect::<Vec<_>>();
        self.take_over(part);
        for (group, invalidated) in read {
            self.mark_uncertain(&group, invalidated.possibly_created);
        }
        // A complete list decides about what should be listed by now.
        self.uncertain.retain(|_, named| {
            named.retain(|_, since| since.elapsed() < UNCERTAIN_FOR);
            !named.is_empty()
        });
        let listed: BTreeSet<TargetGroupArn> = self.target_groups.keys().cloned().collect();
        self.stale_targets.retain(|arn| listed.contains(arn));
        self.swept = Some(wanted);
    }

    /// Takes over what a read has found, except what the controller has written or deleted since it began.
    pub(super) fn take_over(&mut self, found: ReadResources) {
        let ReadResources { wanted, writes: since, mut tags, .. } = found;
        let mut tags_of = |arn: &str, known: Option<(Tags, ReadState)>| match (tags.remove(arn), known) {
            (Some(tags), known) => {
                let invalidated = known.map_or(0, |(_, knowledge)| knowledge.invalidated);
                (tags, ReadState { read: Some(wanted), invalidated })
            }
            (None, Some(known)) => known,
            // Not read (of another VPC), or AWS did not know it yet: it is read the next time.
            (None, None) => (Tags::new(), ReadState::default()),
        };
        let deleted = &self.deleted;
        let gone = |id: &str| deleted.get(id).is_some_and(|at| *at > since);
        for mut value in found.load_balancers.into_iter().filter(|b| !gone(b.arn.as_str())) {
            let entry = match self.load_balancers.remove(&value.arn) {
                Some(entry) if entry.written > since => entry,
                entry => {
                    let known = entry.as_ref().map(|e| (e.value.tags.clone(), e.tags));
                    let (tags, tags_known) = tags_of(value.arn.as_str(), known);
                    value.tags = tags;
                    value.attributes = entry.as_ref().and_then(|e| e.value.attributes.clone());
                    value.add_ons = entry.as_ref().map(|e| e.value.add_ons.clone()).unwrap_or_default();
                    let (listeners, known) = entry.map(|e| (e.value.listeners, e.listeners)).unwrap_or_default();
                    value.listeners = listeners;
                    BalancerEntry { value, tags: tags_known, listeners: known, written: 0 }
                }
            };
            self.load_balancers.insert(entry.value.arn.clone(), entry);
        }
        for mut value in found.target_groups.into_iter().filter(|t| !gone(t.arn.as_str())) {
            let entry = match self.target_groups.remove(&value.arn) {
                Some(entry) if entry.written > since => entry,
                entry => {
                    value.attributes = entry.as_ref().and_then(|e| e.value.attributes.clone());
                    let known = entry.map(|e| (e.value.tags, e.tags));
                    let (tags, tags_known) = tags_of(value.arn.as_str(), known);
                    value.tags = tags;
                    TargetGroupEntry { value, tags: tags_known, written: 0 }
                }
            };
            self.target_groups.insert(entry.value.arn.clone(), entry);
        }
        for value in found.security_groups.into_iter().filter(|s| !gone(s.id.as_str())) {
            if self.security_groups.get(&value.id).is_none_or(|entry| entry.written <= since) {
                self.security_groups.insert(value.id.clone(), SecurityGroupEntry { value, written: 0 });
            }
        }
    }
}

impl ReadResources {
    /// The ARNs and ids of all that was found.
    pub(super) fn ids(&self) -> BTreeSet<String> {
        let balancers = self.load_balancers.iter().map(|b| b.arn.as_str());
        let groups = self.target_groups.iter().map(|t| t.arn.as_str());
        let security_groups = self.security_groups.iter().map(|s| s.id.as_str());
        balancers.chain(groups).chain(security_groups).map(str::to_owned).collect()
    }
}
