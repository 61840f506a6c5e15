//! The controller's knowledge of AWS, kept current by its own writes.
//!
//! One sweep lists every load balancer and target group of the VPC and every security group of the cluster. Listeners and
//! rules of a load balancer are read when its stack is first observed. From then on the answers to writes are the
//! knowledge, and nothing is read again until an answer is lost or the audit invalidates the stack: then its resources are
//! read by ARN, and resources that a lost answer may have created, by name. Only where a known resource is not found,
//! everything is listed once more.
//!
//! Reads and writes run side by side, so the result of a read must not hide a write that happened meanwhile. Two counters
//! ensure that: `wanted` counts invalidations, and a read counts only if it began after the last of those; `writes` counts
//! the controller's own writes, and a read does not change the resources that were written since it began.

mod certificates;
mod invalidated;
mod record;
mod sweep;
mod targets;
mod unverified_records;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use self::certificates::{CertificateList, Certificates};
use super::{AwsError, AwsReader, convert};
use albatross_core::{
    model::{
        AddOn, Association, LoadBalancerArn, MemberResources, ObservedAddOns, ObservedFrontend, ObservedLoadBalancer,
        ObservedSecurityGroup, ObservedStack, ObservedTargetGroup, ResourceId, SecurityGroupId, StackId, Tags, Target,
        TargetGroupArn, TargetHealth, VpcId, tags,
    },
    plan::Reads,
    record::Clean,
};

/// For how long after a creation without an answer a name that is not found may be found yet.
const UNCERTAIN_FOR: Duration = Duration::from_secs(30);

/// The AWS resources of one cluster in one VPC. Shared by all workers.
pub struct Inventory {
    aws: Arc<AwsReader>,
    cluster: String,
    vpc: VpcId,
    /// Held while a sweep runs, so that all callers that need one share it.
    sweeping: tokio::sync::Mutex<()>,
    certificate_list: CertificateList,
    state: Mutex<State>,
}

/// The age of a part that is read apart from its parent.
#[derive(Clone, Copy, Debug, Default)]
struct ReadState {
    /// `wanted` when the last read of it began, or when the controller created it.
    read: Option<u64>,
    /// `wanted` when it was last invalidated.
    invalidated: u64,
}

impl ReadState {
    fn is_known(self) -> bool {
        self.read.is_some_and(|read| read >= self.invalidated)
    }
}

#[derive(Clone, Debug)]
struct BalancerEntry {
    value: ObservedLoadBalancer,
    tags: ReadState,
    listeners: ReadState,
    written: u64,
}

#[derive(Clone, Debug)]
struct TargetGroupEntry {
    value: ObservedTargetGroup,
    tags: ReadState,
    written: u64,
}

#[derive(Clone, Debug)]
struct SecurityGroupEntry {
    value: ObservedSecurityGroup,
    written: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Counts the times that cached state was invalidated.
    wanted: u64,
    /// The value of `wanted` when the last successful sweep began; `None` before the first.
    swept: Option<u64>,
    /// The value of `wanted` when the list of everything was last invalidated.
    list_invalidated: u64,
    /// The groups that were invalidated, until they are read by a read that has begun later.
    invalidated: BTreeMap<StackId, Invalidated>,
    /// The things that a lost answer may have made and that were not found so far, with the time of the answer.
    uncertain: BTreeMap<StackId, BTreeMap<ResourceName, Instant>>,
    /// Counts the controller's own writes.
    writes: u64,
    load_balancers: BTreeMap<LoadBalancerArn, BalancerEntry>,
    /// The load balancers that were protected from deletion when their attributes were last known; known longer than those.
    protected: BTreeSet<LoadBalancerArn>,
    /// Load balancers of other types: nothing of theirs matters but the security groups they are in.
    others: BTreeMap<String, BTreeSet<SecurityGroupId>>,
    target_groups: BTreeMap<TargetGroupArn, TargetGroupEntry>,
    security_groups: BTreeMap<SecurityGroupId, SecurityGroupEntry>,
    /// Deleted by the controller: ARN or id, and `writes` at the time. Kept while a read runs that began before.
    deleted: BTreeMap<String, u64>,
    /// The values of `writes` when the reads began that are running.
    reading: Vec<u64>,
    targets: BTreeMap<TargetGroupArn, BTreeMap<Target, TargetHealth>>,
    /// The target groups whose targets are being read and were not invalidated since, each with the number of the read.
    target_reads: BTreeMap<u64, TargetGroupArn>,
    /// Counts the reads of targets.
    target_reads_begun: u64,
    /// Target groups whose targets were invalidated and not read since: no checkpoint is trusted for them.
    stale_targets: BTreeSet<TargetGroupArn>,
    /// The resources of each member of a group within its load balancer.
    member_resources: BTreeMap<StackId, Vec<MemberResources>>,
    certificates: Certificates,
    /// Records, until the first sweep shows which of them count.
    unverified_records: BTreeMap<StackId, Clean>,
}

/// A group that was invalidated.
#[derive(Clone, Debug, Default)]
struct Invalidated {
    /// `wanted` when it was last invalidated.
    at: u64,
    /// True if a part of it is not found by its ARN: it is gone, or was made a moment ago and is not known everywhere yet. Only
    /// a list shows which.
    missing: bool,
    /// The resources that may have been created in addition, with the time of the lost answer.
    possibly_created: BTreeMap<ResourceName, Instant>,
}

/// The name of an AWS resource, which is unique in the account's region, or for a security group in the VPC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceName {
    /// A load balancer.
    LoadBalancer(String),
    /// A target group.
    TargetGroup(String),
    /// A security group of the VPC.
    SecurityGroup(String),
}

impl State {
    /// Returns true if a sweep is needed, for one group or for all of them.
    fn needs_sweep(&self, group: Option<&StackId>) -> bool {
        let needed = match group {
            Some(group) => self.invalidated.get(group).filter(|f| f.missing).map_or(0, |invalidated| invalidated.at),
            None => self.list_invalidated,
        };
        self.swept.is_none_or(|swept| swept < needed)
    }

    /// Forgets the targets of a group, and what running reads of them answer.
    fn invalidate_targets(&mut self, arn: &TargetGroupArn) {
        self.target_reads.retain(|_, read| read != arn);
        self.targets.remove(arn);
        self.stale_targets.insert(arn.clone());
    }

    /// Remembers what the controller deleted, for the running reads that may have seen it before.
    fn remember_deleted(&mut self, id: &str, written: u64) {
        if !self.reading.is_empty() {
            self.deleted.insert(id.to_owned(), written);
        }
    }
}

/// A read that is running.
struct Reading<'a> {
    inventory: &'a Inventory,
    /// `State::wanted` when it began.
    wanted: u64,
    /// `State::writes` when it began.
    writes: u64,
}

impl<'a> Reading<'a> {
    fn begin(inventory: &'a Inventory) -> Self {
        let mut state = inventory.state();
        let (wanted, writes) = (state.wanted, state.writes);
        state.reading.push(writes);
        drop(state);
        Self { inventory, wanted, writes }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = self.inventory.state();
        if let Some(place) = state.reading.iter().position(|began| *began == self.writes) {
            state.reading.swap_remove(place);
        }
        let earliest = state.reading.iter().min().copied().unwrap_or(u64::MAX);
        state.deleted.retain(|_, at| *at > earliest);
    }
}

/// Returns true if a security group with these tags is one in front of a load balancer. A copy with other tags is not deleted by
/// the controller, and does not delay the deletion of an Ingress.
fn is_managed(tags: &Tags) -> bool {
    tags::resource_of(tags) == Some(ResourceId::managed_security_group())
}

impl Inventory {
    /// Knows nothing yet, and asks nothing yet.
    #[must_use]
    pub fn new(aws: Arc<AwsReader>, cluster: impl Into<String>, vpc: VpcId) -> Self {
        Self {
            aws,
            cluster: cluster.into(),
            vpc,
            sweeping: tokio::sync::Mutex::default(),
            certificate_list: CertificateList::default(),
            state: Mutex::default(),
        }
    }

    /// The way to AWS.
    #[must_use]
    pub fn aws(&self) -> &AwsReader {
        &self.aws
    }

    /// The VPC.
    #[must_use]
    pub fn vpc(&self) -> &VpcId {
        &self.vpc
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Every change of the state is made in one piece, so a panic elsewhere leaves nothing half done behind.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group that tags name, where they are of this cluster.
    fn group_of(&self, tags: &Tags) -> Option<StackId> {
        let ours = tags.get(tags::CLUSTER) == Some(&self.cluster);
        StackId::of_tags(tags).filter(|_| ours)
    }

    /// All that is known of what AWS has of a group, without the bindings, which Kubernetes has. What is read apart from its
    /// parent is there only if it is known; [`Self::read`] reads it.
    ///
    /// # Errors
    /// AWS's, when something has to be read for it.
    pub async fn observe(&self, stack: &StackId) -> Result<ObservedStack, AwsError> {
        loop {
            self.sweep(Some(stack)).await?;
            self.read_invalidated(stack).await?;
            let state = self.state();
            if !state.needs_sweep(Some(stack)) && !state.invalidated.contains_key(stack) {
                return Ok(self.stack(&state, stack));
            }
        }
    }

    fn stack(&self, state: &State, stack: &StackId) -> ObservedStack {
        let of_group = |tags: &Tags| self.group_of(tags).as_ref() == Some(stack);
        let is_of_frontend = |tags: &Tags| tags::resource_of(tags).is_some_and(|resource| resource.is_of_frontend());
        let balancers = state.load_balancers.values().filter(|b| of_group(&b.value.tags)).map(|b| {
            let listeners = b.value.listeners.clone().filter(|_| b.listeners.is_known());
            ObservedLoadBalancer { listeners, ..b.value.clone() }
        });
        let groups = state.target_groups.values().filter(|t| of_group(&t.value.tags)).map(|t| t.value.clone());
        let (in_front, load_balancers) = balancers.partition(|balancer| is_of_frontend(&balancer.tags));
        let (groups_in_front, target_groups): (Vec<_>, _) = groups.partition(|group| is_of_frontend(&group.tags));
        let targets = |arn: &TargetGroupArn| state.targets.get(arn).map(convert::load_balancer_targets);
        ObservedStack {
            load_balancers,
            target_groups,
            frontend: ObservedFrontend {
                targets: groups_in_front.iter().filter_map(|g| Some((g.arn.clone(), targets(&g.arn)?))).collect(),
                load_balancers: in_front,
                target_groups: groups_in_front,
            },
            security_groups: state
                .security_groups
                .values()
                .filter(|s| of_group(&s.value.tags) && is_managed(&s.value.tags))
                .map(|s| s.value.clone())
                .collect(),
            bindings: Vec::new(),
            certificates: state.certificates.of(stack),
            may_have_certificates: state.certificates.is_uncertain(stack),
            refused_requests: state.certificates.refused(stack).collect(),
            recent_certificates: state.certificates.recent(stack),
            given_up: state.certificates.given_up(stack).into_iter().collect(),
            member_resources: state.member_resources.get(stack).cloned().unwrap_or_default(),
            ..ObservedStack::default()
        }
    }

    /// Remembers which member of a group has which resources of its load balancer.
    pub fn remember_member_resources(&self, stack: &StackId, member_resources: Vec<MemberResources>) {
        let mut state = self.state();
        match member_resources.is_empty() {
            true => drop(state.member_resources.remove(stack)),
            false => drop(state.member_resources.insert(stack.clone(), member_resources)),
        }
    }

    /// Reads whether the group's load balancers serve now.
    ///
    /// # Errors
    /// AWS's.
    pub async fn read_states(&self, stack: &StackId) -> Result<(), AwsError> {
        let observed = self.observe(stack).await?;
        let balancers = observed.load_balancers.iter().chain(&observed.frontend.load_balancers);
        let waiting = balancers.filter(|balancer| !balancer.is_active());
        let arns: Vec<String> = waiting.map(|balancer| balancer.arn.to_string()).collect();
        if arns.is_empty() {
            return Ok(());
        }
        let read = self.aws.load_balancers(Some(arns)).await;
        if read.as_ref().is_err_and(AwsError::is_not_found) {
            self.invalidate(stack);
        }
        for read in read?.iter().filter_map(convert::load_balancer) {
            if let Some(entry) = self.state().load_balancers.get_mut(&read.arn) {
                entry.value.state = read.state;
            }
        }
        Ok(())
    }

    /// Returns true if this load balancer is known to serve traffic.
    pub fn is_active(&self, arn: &LoadBalancerArn) -> bool {
        self.state().load_balancers.get(arn).is_some_and(|entry| entry.value.is_active())
    }

    /// Returns true if this load balancer was protected from deletion when its attributes were last known. That outlives the
    /// attributes.
    pub fn was_protected(&self, arn: &LoadBalancerArn) -> bool {
        self.state().protected.contains(arn)
    }

    /// Reads what a plan depends on.
    ///
    /// # Errors
    /// AWS's. What is gone meanwhile is listed again at the next observation.
    pub async fn read(&self, stack: &StackId, reads: &Reads) -> Result<(), AwsError> {
        let mut result = self.read_parts(reads).await;
        if reads.certificates && result.is_ok() {
            result = self.read_certificates(stack).await;
        }
        if result.as_ref().is_err_and(AwsError::is_not_found) {
            self.invalidate(stack);
        }
        result
    }

    async fn read_parts(&self, reads: &Reads) -> Result<(), AwsError> {
        for arn in &reads.listeners_of {
            let began = self.state().wanted;
            let mut listeners = self.aws.listeners(arn).await?;
            if let Some(entry) = self.state().load_balancers.get_mut(arn) {
                for known in entry.value.known_listeners() {
                    if let Some(read) = listeners.get_mut(&known.port) {
                        read.carry_over_secrets(known);
                    }
                }
                entry.value.listeners = Some(listeners);
                entry.listeners.read = Some(began);
            }
        }
        if let Some(arn) = &reads.load_balancer {
            let attributes = self.aws.load_balancer_attributes(arn).await?;
            self.state().set_load_balancer_attributes(arn, attributes);
        }
        for (add_on, arn) in &reads.add_ons {
            self.read_add_on(*add_on, arn).await?;
        }
        for arn in &reads.listeners {
            let attributes = self.aws.listener_attributes(arn).await?;
            let mut state = self.state();
            let listeners = state.load_balancers.values_mut().filter_map(|b| b.value.listeners.as_mut());
            for listener in listeners.flat_map(BTreeMap::values_mut).filter(|listener| listener.arn == *arn) {
                listener.attributes = Some(attributes.clone());
            }
        }
        for arn in &reads.target_groups {
            let attributes = self.aws.target_group_attributes(arn).await?;
            if let Some(entry) = self.state().target_groups.get_mut(arn) {
                entry.value.attributes = Some(attributes);
            }
        }
        for arn in &reads.targets {
            self.read_targets(arn).await?;
        }
        Ok(())
    }

    async fn read_add_on(&self, add_on: AddOn, arn: &LoadBalancerArn) -> Result<(), AwsError> {
        let read = match add_on {
            AddOn::WebAcl => {
                let association = match self.aws.web_acl_of(arn).await {
                    // WAF does not know a load balancer that is being set up, which has none then.
                    Err(error) if error.code() == Some("WAFNonexistentItemException") && !self.is_active(arn) => {
                        Association::None
                    }
                    association => association?,
                };
                ObservedAddOns { web_acl: Some(association), ..ObservedAddOns::default() }
            }
            AddOn::Protection => {
                let protection = Some(self.aws.protection_of(arn).await?);
                ObservedAddOns { protection, ..ObservedAddOns::default() }
            }
            AddOn::Capacity => {
                let capacity = Some(self.aws.reserved_capacity(arn).await?);
                ObservedAddOns { capacity, ..ObservedAddOns::default() }
            }
            // They are read for the stack (`Reads::certificates`).
            AddOn::Certificates => return Ok(()),
        };
        if let Some(entry) = self.state().load_balancers.get_mut(arn) {
            let ObservedAddOns { web_acl, protection, capacity } = &mut entry.value.add_ons;
            *web_acl = read.web_acl.or(web_acl.take());
            *protection = read.protection.or(protection.take());
            *capacity = read.capacity.or(*capacity);
        }
        Ok(())
    }

    /// Returns the AWS resources of a group, without the bindings, and with the listeners, which are read if they are not known.
    ///
    /// # Errors
    /// AWS's.
    pub async fn observe_whole(&self, stack: &StackId) -> Result<ObservedStack, AwsError> {
        loop {
            let observed = self.observe(stack).await?;
            let front = &observed.frontend;
            let mut unread: Vec<_> = observed.load_balancers.iter().chain(&front.load_balancers).collect();
            unread.retain(|balancer| balancer.listeners.is_none());
            let targets = front.target_groups.iter().map(|group| &group.arn);
            let targets = targets.filter(|arn| !front.targets.contains_key(*arn)).cloned().collect();
            let listeners_of = unread.into_iter().map(|balancer| balancer.arn.clone()).collect();
            let reads = Reads { listeners_of, targets, ..Reads::default() };
            if reads.is_empty() {
                return Ok(observed);
            }
            self.read(stack, &reads).await?;
        }
    }

    /// All groups of this cluster that have something in AWS.
    ///
    /// # Errors
    /// AWS's, when a sweep is needed and fails.
    pub async fn groups(&self) -> Result<BTreeSet<StackId>, AwsError> {
        self.sweep(None).await?;
        let state = self.state();
        let tags = state
            .load_balancers
            .values()
            .map(|b| &b.value.tags)
            .chain(state.target_groups.values().map(|t| &t.value.tags))
            .chain(state.security_groups.values().map(|s| &s.value.tags));
        Ok(tags.filter_map(|tags| self.group_of(tags)).collect())
    }

    /// The security group that all load balancers of the cluster share, where it exists.
    ///
    /// # Errors
    /// AWS's, when a sweep is needed and fails.
    pub async fn backend_security_group(&self) -> Result<Option<SecurityGroupId>, AwsError> {
        self.sweep(None).await?;
        let state = self.state();
        let mut found = state.security_groups.values().filter(|s| {
            s.value.tags.get(tags::CLUSTER) == Some(&self.cluster)
                && s.value.tags.get(tags::SHARED_RESOURCE).is_some_and(|r| r == tags::BACKEND_GROUP)
        });
        Ok(found.next().map(|s| s.value.id.clone()))
    }

    /// The tags of a security group of the cluster, as far as they are known.
    pub fn security_group_tags(&self, id: &SecurityGroupId) -> Tags {
        self.state().security_groups.get(id).map(|group| group.value.tags.clone()).unwrap_or_default()
    }

    /// Returns true if any load balancer of the VPC is in the security group, whatever its owner.
    ///
    /// # Errors
    /// AWS's, when a sweep is needed and fails.
    pub async fn load_balancer_uses(&self, group: &SecurityGroupId) -> Result<bool, AwsError> {
        self.sweep(None).await?;
        let state = self.state();
        Ok(state.load_balancers.values().any(|b| b.value.security_groups.contains(group))
            || state.others.values().any(|groups| groups.contains(group)))
    }

    /// Reads what may have been created of a group under a name, and returns the tags of the resource with that name,
    /// whatever its owner.
    ///
    /// # Errors
    /// AWS's.
    pub async fn tags_of_named(&self, stack: &StackId, named: ResourceName) -> Result<Option<Tags>, AwsError> {
        self.invalidate_and_find(stack, Some(named.clone()));
        self.observe(stack).await?;
        let state = self.state();
        Ok(match &named {
            ResourceName::LoadBalancer(name) => {
                state.load_balancers.values().find(|b| b.value.name == *name).map(|b| b.value.tags.clone())
            }
            ResourceName::TargetGroup(name) => {
                state.target_groups.values().find(|t| t.value.name == *name).map(|t| t.value.tags.clone())
            }
            ResourceName::SecurityGroup(name) => {
                state.security_groups.values().find(|s| s.value.name == *name).map(|s| s.value.tags.clone())
            }
        })
    }

    /// Invalidates the cached state of a group: its resources are read again at the next observation. For writes whose answer was
    /// lost, and for answers that show that what is known is wrong.
    pub fn invalidate(&self, stack: &StackId) {
        self.invalidate_and_find(stack, None);
    }

    /// As [`Self::invalidate`], where another resource of that name may have been created.
    pub fn invalidate_and_find(&self, stack: &StackId, possibly_created: Option<ResourceName>) {
        let mut state = self.state();
        state.wanted += 1;
        let wanted = state.wanted;
        let invalidated = state.invalidated.entry(stack.clone()).or_default();
        invalidated.at = wanted;
        invalidated.possibly_created.extend(possibly_created.map(|named| (named, Instant::now())));
        state.unverified_records.remove(stack);
        state.certificates.invalidate(stack);
        let of_group = |tags: &Tags| self.group_of(tags).as_ref() == Some(stack);
        let mut target_groups = Vec::new();
        for entry in state.load_balancers.values_mut().filter(|b| of_group(&b.value.tags)) {
            entry.tags.invalidated = wanted;
            entry.listeners.invalidated = wanted;
            entry.value.attributes = None;
            entry.value.add_ons = ObservedAddOns::default();
        }
        for (arn, entry) in state.target_groups.iter_mut().filter(|(_, t)| of_group(&t.value.tags)) {
            entry.tags.invalidated = wanted;
            entry.value.attributes = None;
            target_groups.push(arn.clone());
        }
        for arn in target_groups {
            state.invalidate_targets(&arn);
        }
    }

    /// Returns how long it is until it is known whether what a lost answer may have made of a group is there: AWS does not find
    /// everywhere at once what it has made. What is due is looked for at the next observation.
    pub fn uncertain_for(&self, stack: &StackId) -> Option<Duration> {
        let mut state = self.state();
        let uncertain = state.uncertain.get_mut(stack)?;
        let (due, later): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(uncertain).into_iter().partition(|(_, since)| since.elapsed() >= UNCERTAIN_FOR);
        *uncertain = later;
        let left = uncertain.values().map(|since| UNCERTAIN_FOR.saturating_sub(since.elapsed())).min();
        if uncertain.is_empty() {
            state.uncertain.remove(stack);
        }
        if due.is_empty() {
            return left;
        }
        state.wanted += 1;
        let wanted = state.wanted;
        let invalidated = state.invalidated.entry(stack.clone()).or_default();
        invalidated.at = wanted;
        invalidated.possibly_created.extend(due);
        Some(Duration::ZERO)
    }

    /// Marks the list as outdated for all callers that ask about more than one group; the parts read one by one stay known.
    pub fn invalidate_list(&self) {
        let mut state = self.state();
        state.wanted += 1;
        state.list_invalidated = state.wanted;
    }

    /// The group's security group in front of its load balancer, as far as it is known.
    pub fn managed_security_group(&self, stack: &StackId) -> Option<SecurityGroupId> {
        let state = self.state();
        let mut found = state
            .security_groups
            .values()
            .filter(|s| self.group_of(&s.value.tags).as_ref() == Some(stack) && is_managed(&s.value.tags));
        found.next().map(|s| s.value.id.clone())
    }

    /// The group's target groups of one resource id, as far as they are known: two while one replaces the other.
    pub fn target_groups_of(&self, stack: &StackId, resource: &ResourceId) -> Vec<ObservedTargetGroup> {
        let state = self.state();
        let entries = state.target_groups.values();
        entries
            .filter(|t| {
                self.group_of(&t.value.tags).as_ref() == Some(stack) && t.value.resource().as_ref() == Some(resource)
            })
            .map(|t| t.value.clone())
            .collect()
    }

    /// The tags of a load balancer or target group that was known before; unread where AWS has not returned them yet.
    pub fn tags_of(&self, arn: &str) -> Option<Tagging> {
        let state = self.state();
        let balancer = state.load_balancers.get(&LoadBalancerArn::new(arn)).map(|b| (&b.value.tags, b.tags));
        let group = state.target_groups.get(&TargetGroupArn::new(arn)).map(|t| (&t.value.tags, t.tags));
        let (tags, knowledge) = balancer.or(group)?;
        Some(if knowledge.is_known() { Tagging::Read(tags.clone()) } else { Tagging::Unread })
    }
}

/// The cached state of an existing resource's tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tagging {
    /// All of them.
    Read(Tags),
    /// The tags are read with the group.
    Unread,
}
