//! One pass over a stack as functions over small traits: resolve the facts and build, observe, plan, and carry the plan out. The
//! controller implements the traits, and so can whatever takes the same road without a controller; one that stops before
//! [`carry_out`] changes nothing, as long as its [`FactSource`] creates nothing.
//!
//! There is no clock here: what has become due is part of what a [`StackReader`] answers. Nor is there a permit: who implements
//! [`PlanApplier`] holds one.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

use albatross_aws::AwsError;
use albatross_core::{
    desired::{self, BuildConfig, Built, Membership},
    diagnostics::Severity,
    facts::{ExistingLoadBalancer, Fact, FactQuery, Facts},
    model::{
        KnownLimits, ObjectName, ObjectReference, ObservedLoadBalancer, ObservedStack, SecurityGroupId, Stack, StackId,
    },
    plan::{self, AssumedSecret, Plan, Planned, Reads},
    snapshot::Snapshot,
};

/// Facts may ask for facts; more rounds than this mean that building never ends.
const ROUNDS: usize = 8;

/// The objects of the cluster, and how they are read.
pub(crate) trait ClusterView {
    /// The settings of building.
    fn config(&self) -> &BuildConfig;

    /// Reads the cluster at one instant.
    fn with_snapshot<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T;
}

/// The answers to the questions that building asks.
pub(crate) trait FactSource {
    /// The reason that there is no answer.
    type Error: From<AwsError>;

    /// Answers a question that changes nothing, for a stack.
    fn answer(&self, stack: &StackId, want: &FactQuery, facts: &mut Facts) -> impl Future<Output = ()> + Send;

    /// Returns the security group that all load balancers share. It may be created here, for the members that are not `frozen`.
    fn backend_security_group(
        &self,
        stack: &StackId,
        membership: &Membership,
        frozen: &BTreeSet<ObjectName>,
    ) -> impl Future<Output = Result<Fact<SecurityGroupId>, Self::Error>> + Send;

    /// Takes note of all that building has asked for the stack.
    fn resolved(&self, stack: &StackId, facts: &Facts, asked: &BTreeSet<FactQuery>);
}

/// The resources that AWS has of a stack.
pub(crate) trait StackReader {
    /// Returns what AWS has of a stack; listeners as far as they are known.
    fn observe(&self, stack: &StackId) -> impl Future<Output = Result<ObservedStack, AwsError>> + Send;

    /// Returns what AWS has of a stack, listeners included.
    fn observe_whole(&self, stack: &StackId) -> impl Future<Output = Result<ObservedStack, AwsError>> + Send;

    /// Adds what is known of a stack besides AWS: its bindings, its own tags, what has expired.
    fn complete(&self, _stack: &StackId, observed: ObservedStack) -> ObservedStack {
        observed
    }

    /// Reads what a plan depends on.
    fn read(&self, stack: &StackId, reads: &Reads) -> impl Future<Output = Result<(), AwsError>> + Send;

    /// Reads the states of the load balancers that do not serve yet.
    fn read_states(&self, stack: &StackId) -> impl Future<Output = Result<(), AwsError>> + Send;

    /// Takes AWS to have the client secrets of rules as they are.
    fn assume_secrets(&self, stack: &StackId, assumed: &[AssumedSecret]);
}

/// A stack as it shall be and as it is, with the plan that leads from the one to the other.
pub(crate) struct Change<'a> {
    pub membership: &'a Membership,
    pub stack: &'a Stack,
    /// The members whose part stays as it is.
    pub frozen: &'a BTreeSet<ObjectName>,
    /// The objects that building takes for gone.
    pub absent: &'a BTreeSet<ObjectReference>,
    pub observed: &'a ObservedStack,
    pub plan: &'a Plan,
}

/// The way in which plans are carried out.
pub(crate) trait PlanApplier {
    /// The reason that a plan is not carried out.
    type Error;

    /// Returns whether the objects that the plan takes for gone are gone.
    fn prove(&self, change: &Change<'_>) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Makes sure that no member disappears before its resources.
    fn ensure_finalizer(&self, change: &Change<'_>) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Remembers, before the first write, that the stack is being changed.
    fn mark_dirty(&self, change: &Change<'_>) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Runs the steps.
    fn apply(&self, change: &Change<'_>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// The result of [`carry_out`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CarriedOut {
    /// The plan was empty.
    Nothing,
    /// An object that the plan takes for gone is there: nothing was done.
    Unproved,
    /// Every step was run.
    Applied,
}

/// Builds until building asks for nothing more. `None` when that does not come to an end, and should be tried again.
///
/// # Errors
/// AWS cannot be read, or the shared security group cannot be created.
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
        // In a group, a mistake concerns one member, and the others still want to know.
        let alone = membership.members.len() < 2;
        let broken = built.diagnostics.iter().any(|d| d.severity == Severity::Error);
        if built.wants.is_empty() || alone && (broken || !built.unavailable.is_empty()) {
            // Also where nothing comes of it: an object that is edited again and again asks for something else each time.
            source.resolved(stack, &facts, &asked);
            return Ok(Some(built));
        }
        // Facts that only have to be read come first: nothing is created for a stack that then turns out not to be possible.
        let reads = built.wants.iter().any(FactQuery::is_read);
        for want in built.wants.iter().filter(|want| !reads || want.is_read()) {
            match want {
                FactQuery::Current => facts.current = Some(Box::new(source.observe_whole(stack).await?)),
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

/// Adds the load balancers that the stack has to the facts.
async fn add_existing<S>(source: &S, stack: &StackId, facts: &mut Facts) -> Result<(), AwsError>
where
    S: ClusterView + StackReader + Sync,
{
    let mut observed = source.observe(stack).await?;
    // While one replaces another, a Service without a scheme keeps that of the one that clients are sent to.
    let shown = source.with_snapshot(|snapshot| desired::shown_hosts(snapshot, stack));
    observed.load_balancers.sort_by_key(|balancer| !shown.contains(&balancer.dns_name.to_lowercase()));
    let mut all_existing = observed.load_balancers.iter().map(|balancer| ExistingLoadBalancer {
        kind: balancer.kind,
        scheme: balancer.scheme,
        has_security_groups: !balancer.security_groups.is_empty(),
        subnets: balancer.subnets.clone(),
    });
    facts.existing = all_existing.next();
    facts.other_existing = all_existing.collect();
    facts.hostnames = observed.load_balancers.iter().map(|b| b.dns_name.to_lowercase()).collect();
    facts.names = observed.load_balancers.iter().map(|balancer| balancer.name.clone()).collect();
    Ok(())
}

/// Returns the names of the stack's load balancers that AWS says are protected from deletion (DescribeLoadBalancerAttributes).
async fn protected<R: StackReader>(reader: &R, stack: &StackId) -> Result<BTreeSet<String>, AwsError> {
    for balancer in reader.observe(stack).await?.load_balancers {
        let reads = Reads { load_balancer: Some(balancer.arn), ..Reads::default() };
        reader.read(stack, &reads).await?;
    }
    let observed = reader.observe(stack).await?;
    let protected = observed.load_balancers.into_iter().filter(ObservedLoadBalancer::is_protected);
    Ok(protected.map(|balancer| balancer.name).collect())
}

/// Returns what there is of a stack, with the room that AWS has left for it.
async fn observe_within<R: StackReader>(
    reader: &R,
    stack: &StackId,
    room: KnownLimits,
) -> Result<ObservedStack, AwsError> {
    let observed = reader.observe(stack).await?;
    Ok(ObservedStack { room, ..reader.complete(stack, observed) })
}

/// Returns what there is of a stack before it is planned: with the states of load balancers where one replaces another, and with
/// the protection, as it is by now, of one that may go.
///
/// # Errors
/// AWS cannot be read.
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
    if let Some(old) = observed.load_balancers.iter().find(stays) {
        // The protection may be off by now.
        let reads = Reads { load_balancer: Some(old.arn.clone()), ..Reads::default() };
        reader.read(stack, &reads).await?;
        observed = observe_within(reader, stack, room).await?;
    }
    Ok(observed)
}

/// Plans, and reads what the plan depends on until it depends on nothing unknown. Returns the plan with what it was made from.
///
/// # Errors
/// AWS cannot be read.
pub(crate) async fn plan<R: StackReader>(
    reader: &R,
    stack: &Stack,
    mut observed: ObservedStack,
) -> Result<(Plan, ObservedStack), AwsError> {
    let (id, room) = (&stack.id, observed.room);
    loop {
        // The records of a takeover are trusted, once. For a stack that has a record, the content given to AWS is known, or in doubt.
        if observed.tag_keys.is_none() {
            let assumed = plan::assumed_secrets(stack, &observed);
            if !assumed.is_empty() {
                reader.assume_secrets(id, &assumed);
                observed = observe_within(reader, id, room).await?;
            }
        }
        match plan::plan(stack, &observed) {
            Planned::Ready(plan) => return Ok((plan, observed)),
            Planned::Need(reads) => reader.read(id, &reads).await?,
        }
        observed = observe_within(reader, id, room).await?;
    }
}

/// Carries a plan out, once everything that it takes for gone is proved to be.
///
/// # Errors
/// The proof, a write to the API server, or a step has failed.
pub(crate) async fn carry_out<A: PlanApplier>(applier: &A, change: &Change<'_>) -> Result<CarriedOut, A::Error> {
    if change.plan.steps().is_empty() {
        // A user may have removed the finalizer (`kubectl replace` does), and all this would be left behind.
        applier.ensure_finalizer(change).await?;
        return Ok(CarriedOut::Nothing);
    }
    if !applier.prove(change).await? {
        return Ok(CarriedOut::Unproved);
    }
    applier.ensure_finalizer(change).await?;
    applier.mark_dirty(change).await?;
    applier.apply(change).await?;
    Ok(CarriedOut::Applied)
}

#[cfg(test)]
mod tests;
