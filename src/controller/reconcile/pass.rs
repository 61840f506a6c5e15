//! One pass over a stack, as functions over small traits: resolve the facts and build, observe, plan, and carry the
//! plan out. The controller implements the traits, and so can a command that runs the same pass without a controller. A
//! caller that stops before [`carry_out`] changes nothing, as long as its [`FactSource`] creates nothing.
//!
//! This module has no clock: a [`StackReader`] returns which waits have expired. It has no permit either: an
//! implementation of [`PlanApplier`] holds one.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    hash::BuildHasher as _,
};

use albatross_aws::AwsError;
use albatross_core::{
    desired::{self, BuildConfig, Built, Membership},
    diagnostics::Severity,
    facts::{ExistingLoadBalancer, Fact, FactQuery, Facts},
    model::{
        AddOn, CertificateStatus, KnownLimits, LoadBalancerArn, ObjectName, ObjectReference, ObservedCertificate,
        ObservedLoadBalancer, ObservedStack, SecurityGroupId, Stack, StackId, TargetGroupArn,
    },
    plan::{self, AssumedSecret, Plan, Planned, Reads},
    snapshot::Snapshot,
};

use super::stack::whereabouts::Whereabouts;

/// The maximum number of rounds of building. Facts may lead to requests for further facts; more rounds mean that
/// building does not end.
const ROUNDS: usize = 8;

/// The most target groups whose health one pass reads; each is a call.
const MOST_LOOKS: usize = 200;

/// The objects of the cluster, and the settings with which they are read.
pub(crate) trait ClusterView {
    /// Returns the settings of building.
    fn config(&self) -> &BuildConfig;

    /// Reads a consistent snapshot of the cluster.
    fn with_snapshot<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T;
}

/// The source of the facts that building requests.
pub(crate) trait FactSource {
    /// The reason why there is no answer.
    type Error: From<AwsError>;

    /// Answers a fact query for a stack without changing anything.
    fn answer(&self, stack: &StackId, want: &FactQuery, facts: &mut Facts) -> impl Future<Output = ()> + Send;

    /// Returns the security group that all load balancers share. It may be created here, after the members that are not
    /// `frozen` have got their finalizer.
    fn backend_security_group(
        &self,
        stack: &StackId,
        membership: &Membership,
        frozen: &BTreeSet<ObjectName>,
    ) -> impl Future<Output = Result<Fact<SecurityGroupId>, Self::Error>> + Send;

    /// Records the queries that [`answer`](Self::answer) was given in this build.
    fn resolved(&self, stack: &StackId, facts: &Facts, asked: &BTreeSet<FactQuery>);
}

/// The reader of a stack's resources in AWS.
pub(crate) trait StackReader {
    /// Returns the resources of a stack in AWS; listeners as far as they are known.
    fn observe(&self, stack: &StackId) -> impl Future<Output = Result<ObservedStack, AwsError>> + Send;

    /// Returns the resources of a stack in AWS, including listeners.
    fn observe_whole(&self, stack: &StackId) -> impl Future<Output = Result<ObservedStack, AwsError>> + Send;

    /// Adds the state of a stack that is not read from AWS: its bindings, its own tags, and the load balancers whose
    /// hold has ended.
    fn complete(&self, _stack: &StackId, observed: ObservedStack) -> ObservedStack {
        observed
    }

    /// Reads the state that a plan depends on.
    fn read(&self, stack: &StackId, reads: &Reads) -> impl Future<Output = Result<(), AwsError>> + Send;

    /// Returns the number of healthy targets of a target group.
    fn healthy(&self, group: &TargetGroupArn) -> impl Future<Output = Result<usize, AwsError>> + Send;

    /// Reads the states of the load balancers that are not active yet.
    fn read_states(&self, stack: &StackId) -> impl Future<Output = Result<(), AwsError>> + Send;

    /// Returns true if this load balancer was protected from deletion when its attributes were last known.
    fn was_protected(&self, load_balancer: &LoadBalancerArn) -> bool;

    /// Assumes that AWS has the current client secrets of these rules.
    fn assume_secrets(&self, stack: &StackId, assumed: &[AssumedSecret]);
}

/// The desired and the observed state of a stack, with the plan from one to the other.
pub(crate) struct Change<'a> {
    pub membership: &'a Membership,
    pub stack: &'a Stack,
    /// The frozen members, whose resources stay as they are.
    pub frozen: &'a BTreeSet<ObjectName>,
    /// The objects that building treats as deleted.
    pub absent: &'a BTreeSet<ObjectReference>,
    pub observed: &'a ObservedStack,
    /// The load balancer that the status of each served member names, except for frozen members.
    pub whereabouts: &'a BTreeMap<ObjectName, Whereabouts>,
    pub plan: &'a Plan,
}

/// The executor of plans.
pub(crate) trait PlanApplier {
    /// The reason why a plan is not carried out.
    type Error;
    /// The reason why a step is left out.
    type LeftOut;

    /// Returns true if the objects that the plan treats as deleted are deleted.
    fn prove(&self, change: &Change<'_>) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Ensures that no member disappears before its resources.
    fn ensure_finalizer(&self, change: &Change<'_>) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Records, before the first write, that the stack is being changed.
    fn mark_dirty(&self, change: &Change<'_>) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Runs the steps. Returns the failures of steps that hold up no other one.
    fn apply(&self, change: &Change<'_>) -> impl Future<Output = Result<Vec<Self::LeftOut>, Self::Error>> + Send;
}

/// The result of [`carry_out`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CarriedOut<L> {
    /// The plan was empty.
    Nothing,
    /// An object that the plan treats as deleted exists: nothing was done.
    Unproved,
    /// Every step was run, except for these failures, which hold up no other step.
    Applied(Vec<L>),
}

/// Builds until building requests no more facts. Returns `None` if that does not end within the maximum number of
/// rounds; the caller tries again.
///
/// # Errors
/// Returns an error if AWS cannot be read, or the shared security group cannot be created.
pub(crate) async fn resolve<S>(
    source: &S,
    stack: &StackId,
    membership: &Membership,
    refused: &BTreeMap<ObjectName, String>,
) -> Result<Option<Built>, S::Error>
where
    S: ClusterView + FactSource + StackReader + Sync,
{
    let mut facts = Facts { refused: refused.keys().cloned().collect(), ..Facts::default() };
    if !membership.is_empty() {
        add_existing(source, stack, &mut facts).await?;
    }
    let mut asked = BTreeSet::new();
    for _ in 0..ROUNDS {
        let built =
            source.with_snapshot(|snapshot| desired::build(snapshot, source.config(), &facts, stack, membership));
        // In a group, an error concerns one member, and building continues for the others.
        let alone = membership.members.len() < 2;
        let broken = built.diagnostics.iter().any(|d| d.severity == Severity::Error);
        if built.wants.is_empty() || alone && (broken || !built.unavailable.is_empty()) {
            // Also recorded if the build fails: an object that is edited repeatedly may request different facts each
            // time.
            source.resolved(stack, &facts, &asked);
            return Ok(Some(built));
        }
        // Facts that are only read come first, so that nothing is created for a stack that then cannot be built.
        let reads = built.wants.iter().any(FactQuery::is_read);
        for want in built.wants.iter().filter(|want| !reads || want.is_read()) {
            match want {
                FactQuery::Current => facts.current = Some(Box::new(source.observe_whole(stack).await?)),
                FactQuery::CurrentAddOn(add_on) => {
                    facts.current = Some(Box::new(observe_with(source, stack, *add_on).await?));
                    facts.current_add_ons.insert(*add_on);
                }
                FactQuery::ManagedCertificates => {
                    facts.managed_certificates = Some(managed_certificates(source, stack).await?);
                }
                FactQuery::Protection => facts.protected = Some(protected(source, stack).await?),
                FactQuery::BackendSecurityGroup => {
                    let group = source.backend_security_group(stack, membership, &built.frozen).await?;
                    facts.backend_security_group = Some(group);
                }
                want => {
                    source.answer(stack, want, &mut facts).await;
                    asked.insert(want.clone());
                }
            }
        }
    }
    Ok(None)
}

/// Returns the resources of a stack in AWS, including listeners and an add-on. That the add-on cannot be read holds up
/// nothing else.
async fn observe_with<R: StackReader>(reader: &R, stack: &StackId, add_on: AddOn) -> Result<ObservedStack, AwsError> {
    let known = reader.observe_whole(stack).await?;
    let is_unread = |balancer: &&ObservedLoadBalancer| !balancer.add_ons.is_known(add_on);
    let unread = known.load_balancers.iter().filter(is_unread);
    let add_ons: BTreeSet<_> = unread.map(|balancer| (add_on, balancer.arn.clone())).collect();
    if add_ons.is_empty() {
        return Ok(known);
    }
    if let Err(error) = reader.read(stack, &Reads { add_ons, ..Reads::default() }).await {
        tracing::warn!(group = %stack, "the {add_on} of the load balancer cannot be read: {error}");
    }
    reader.observe_whole(stack).await
}

/// Returns the certificates that were requested for a stack: those that are not issued as ACM has them now. That they cannot be
/// read holds up nothing else.
async fn managed_certificates<R: StackReader>(
    reader: &R,
    stack: &StackId,
) -> Result<Fact<Vec<ObservedCertificate>>, AwsError> {
    let reads = Reads { certificates: true, ..Reads::default() };
    if let Err(error) = reader.read(stack, &reads).await {
        let fix = error.fix().map(|fix| format!("; {fix}")).unwrap_or_default();
        return Ok(Fact::Unavailable(format!("{error}{fix}")));
    }
    let known = reader.observe(stack).await?.certificates.unwrap_or_default();
    let exists = |certificate: &ObservedCertificate| certificate.status != CertificateStatus::Deleted;
    Ok(Fact::Known(known.into_iter().filter(exists).collect()))
}

/// Adds the existing load balancers of the stack to the facts.
async fn add_existing<S>(source: &S, stack: &StackId, facts: &mut Facts) -> Result<(), AwsError>
where
    S: ClusterView + StackReader + Sync,
{
    let mut observed = source.observe(stack).await?;
    // While one load balancer replaces another, a Service without a scheme keeps the scheme of the one whose host name
    // is published.
    let shown = source.with_snapshot(|snapshot| desired::shown_hosts(snapshot, stack));
    observed.load_balancers.sort_by_key(|balancer| !shown.contains(&balancer.dns_name.to_lowercase()));
    let existing = |balancer: &ObservedLoadBalancer| ExistingLoadBalancer {
        kind: balancer.kind,
        scheme: balancer.scheme,
        has_security_groups: !balancer.security_groups.is_empty(),
        has_ipv6: balancer.ip_address_type.has_ipv6(),
        has_quic: balancer.has_quic(),
        customer_owned_pool: balancer.pools.customer_owned.clone(),
        subnets: balancer.subnets.clone(),
    };
    let mut all_existing = observed.load_balancers.iter().map(existing);
    facts.existing = all_existing.next();
    facts.other_existing = all_existing.collect();
    facts.hostnames = observed.load_balancers.iter().map(|b| b.dns_name.to_lowercase()).collect();
    facts.names = observed.load_balancers.iter().map(|balancer| balancer.name.clone()).collect();
    facts.frontend = observed.frontend.load_balancers.iter().map(existing).collect();
    Ok(())
}

/// Returns the names of the stack's load balancers with deletion protection (DescribeLoadBalancerAttributes).
///
/// AWS itself does not delete a protected load balancer, and deleting it is the first step of a plan, whose failure ends the
/// plan. So one that is not known to be protected is not asked about; several are, because the first of them would be
/// deleted before AWS refuses the second.
async fn protected<R: StackReader>(reader: &R, stack: &StackId) -> Result<BTreeSet<String>, AwsError> {
    let all = |observed: ObservedStack| [observed.frontend.load_balancers, observed.load_balancers].concat();
    let known = all(reader.observe(stack).await?);
    if let [balancer] = known.as_slice()
        && !balancer.is_protected()
        && !reader.was_protected(&balancer.arn)
    {
        return Ok(BTreeSet::new());
    }
    for balancer in known {
        let reads = Reads { load_balancer: Some(balancer.arn), ..Reads::default() };
        reader.read(stack, &reads).await?;
    }
    let observed = all(reader.observe(stack).await?);
    let protected = observed.into_iter().filter(ObservedLoadBalancer::is_protected);
    Ok(protected.map(|balancer| balancer.name).collect())
}

/// Returns the observed state of a stack with the known limits of this change.
async fn observe_within<R: StackReader>(
    reader: &R,
    stack: &StackId,
    room: KnownLimits,
) -> Result<ObservedStack, AwsError> {
    let observed = reader.observe(stack).await?;
    Ok(ObservedStack { room, ..reader.complete(stack, observed) })
}

/// Returns the observed state of a stack before planning: with the states of load balancers while one replaces another,
/// and with the current deletion protection of one that may be deleted.
///
/// # Errors
/// Returns an error if AWS cannot be read.
pub(crate) async fn observe<R: StackReader>(
    reader: &R,
    stack: &StackId,
    room: KnownLimits,
) -> Result<ObservedStack, AwsError> {
    let mut observed = observe_within(reader, stack, room).await?;
    if observed.load_balancers.len() > 1 && observed.load_balancers.iter().any(|balancer| !balancer.is_active()) {
        reader.read_states(stack).await?;
        observed = observe_within(reader, stack, room).await?;
    }
    let stays = |old: &&ObservedLoadBalancer| old.is_protected() && observed.expired.contains(&old.arn);
    let mut all = observed.load_balancers.iter().chain(&observed.frontend.load_balancers);
    if let Some(old) = all.find(stays) {
        // A user may have disabled the protection.
        let reads = Reads { load_balancer: Some(old.arn.clone()), ..Reads::default() };
        reader.read(stack, &reads).await?;
        observed = observe_within(reader, stack, room).await?;
    }
    Ok(observed)
}

/// A plan with the state that it was made from.
pub(crate) struct Planning {
    pub plan: Plan,
    pub observed: ObservedStack,
    /// The add-ons that could not be read, which the plan leaves as they are.
    pub unread: BTreeMap<AddOn, AwsError>,
}

/// Returns the plan and the observed state that it was made from, after reading all unknown state that the plan depends
/// on. That an add-on cannot be read holds up nothing else.
///
/// # Errors
/// Returns an error if AWS cannot be read.
pub(crate) async fn plan<R: StackReader>(
    reader: &R,
    stack: &Stack,
    mut observed: ObservedStack,
) -> Result<Planning, AwsError> {
    let (id, room) = (&stack.id, observed.room);
    let (arriving, shown, left_out) = (observed.arriving.clone(), observed.shown.clone(), observed.left_out.clone());
    // As AWS has it in this pass.
    let (mut healthy, mut states_are_read) = (BTreeMap::new(), false);
    let mut unread = BTreeMap::new();
    loop {
        // The resources of a takeover are trusted once. If the stack has a record, the secret that AWS was given is
        // known, or known to be uncertain.
        if observed.tag_keys.is_none() {
            let assumed = plan::assumed_secrets(stack, &observed);
            if !assumed.is_empty() {
                reader.assume_secrets(id, &assumed);
                observed = observe_within(reader, id, room).await?;
            }
        }
        observed.arriving.clone_from(&arriving);
        observed.shown.clone_from(&shown);
        observed.healthy.clone_from(&healthy);
        observed.states_are_read = states_are_read;
        observed.left_out = unread.keys().chain(&left_out).copied().collect();
        match plan::plan(stack, &observed) {
            Planned::Ready(plan) => return Ok(Planning { plan, observed, unread }),
            Planned::Need(mut reads) => {
                for (add_on, arn) in std::mem::take(&mut reads.add_ons) {
                    let reads = Reads { add_ons: [(add_on, arn)].into(), ..Reads::default() };
                    unread.extend(reader.read(id, &reads).await.err().map(|error| (add_on, error)));
                }
                if std::mem::take(&mut reads.certificates) {
                    let reads = Reads { certificates: true, ..Reads::default() };
                    unread.extend(reader.read(id, &reads).await.err().map(|error| (AddOn::Certificates, error)));
                }
                for group in in_turns(&reads.health) {
                    let count = if healthy.len() < MOST_LOOKS { look(reader, group).await } else { None };
                    healthy.insert(group.clone(), count);
                }
                if reads.states {
                    reader.read_states(id).await?;
                    states_are_read = true;
                }
                reader.read(id, &reads).await?;
            }
        }
        observed = observe_within(reader, id, room).await?;
    }
}

/// Returns target groups in another order each time if one pass does not look at all, so that none is left out for ever.
fn in_turns(groups: &BTreeSet<TargetGroupArn>) -> Vec<&TargetGroupArn> {
    let mut groups: Vec<_> = groups.iter().collect();
    if groups.len() > MOST_LOOKS {
        let order = std::hash::RandomState::new();
        groups.sort_by_cached_key(|group| order.hash_one(group));
    }
    groups
}

/// Returns the number of healthy targets of a target group. That it cannot be read holds nothing else up.
async fn look<R: StackReader>(reader: &R, group: &TargetGroupArn) -> Option<usize> {
    let answer = reader.healthy(group).await;
    answer
        .inspect_err(|error| {
            tracing::warn!(target_group = %group, "the health of its targets cannot be read, so rules wait: {error}");
        })
        .ok()
}

/// Carries a plan out, after proving that everything that it treats as deleted is deleted.
///
/// # Errors
/// Returns an error if the proof, a write to the API server, or a step fails.
pub(crate) async fn carry_out<A: PlanApplier>(
    applier: &A,
    change: &Change<'_>,
) -> Result<CarriedOut<A::LeftOut>, A::Error> {
    if change.plan.steps().is_empty() {
        // A user may have removed the finalizer (`kubectl replace` does), which would leave the resources behind.
        applier.ensure_finalizer(change).await?;
        return Ok(CarriedOut::Nothing);
    }
    if !applier.prove(change).await? {
        return Ok(CarriedOut::Unproved);
    }
    applier.ensure_finalizer(change).await?;
    // The record of a clean stack has the certificates that are left to delete, so that one whose deletion fails writes none.
    let is_deletion = |step: &plan::Step| matches!(step.action, plan::StepAction::DeleteCertificate { .. });
    if !change.plan.steps().iter().all(is_deletion) {
        applier.mark_dirty(change).await?;
    }
    Ok(CarriedOut::Applied(applier.apply(change).await?))
}

#[cfg(test)]
mod tests;
