//! TargetGroupBindings: the pods or nodes behind a Service become the targets of a target group, and the security
//! groups of nodes and pods allow the load balancer's traffic.

mod binding;
mod cloud;
mod cluster;
mod error;
mod gates;
mod network_interfaces;
mod node_rule_state;
mod registering;
mod shared;
mod zones;

#[cfg(test)]
mod fake;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use binding::BindingOutcome;
pub use cloud::{Cloud, LiveCloud};
pub use cluster::{Cluster, ClusterError, LiveCluster};
pub use error::{Problem, Stage, Subject, TargetsError};

use crate::controller::runtime::write_permit::WriteClient;
use albatross_aws::{AwsWriter, DeniedBy, Inventory, WritePermit};
use albatross_core::targets::{TargetGroupFacts, TargetGroupKey, endpoints::SilentNodes, role::Role};
use albatross_core::{
    api::crd::TargetGroupBindingStatus,
    model::{ObjectName, Tags, Target, VpcId},
    snapshot::{GateState, Snapshot},
};

/// The default of `--targetgroupbinding-requeue-duration`.
pub const GATE_PAUSE: Duration = Duration::from_secs(15);

/// The flags that affect targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--cluster-name`
    pub cluster: String,
    /// The opposite of `--disable-restricted-sg-rules`: one rule for all ports of a source, from the lowest to the
    /// highest.
    pub restricted_rules: bool,
    /// `--service-target-eni-security-group-tags`
    pub endpoint_group_tags: Tags,
    /// `--max-targets-per-target-group`; `None` means no limit.
    pub max_targets: Option<usize>,
    /// `--targetgroupbinding-requeue-duration`: the longest time between two queries of AWS for the health of pods that
    /// wait at a readiness gate.
    pub gate_pause: Duration,
    /// The feature gate `EndpointsFailOpen`.
    pub silent_nodes: SilentNodes,
    /// `--propagation-time`
    pub propagation: Duration,
}

/// A planned query for the health of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    /// The time since when the youngest of the waiting pods waits.
    since: tokio::time::Instant,
    next: tokio::time::Instant,
}

/// The end of a pass's deregistrations, after which no target is registered that should not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departed {
    /// The time at which AWS had accepted all of them.
    pub at: tokio::time::Instant,
    /// True if there were any.
    pub any: bool,
}

type KnownGroups = BTreeMap<(Option<Role>, TargetGroupKey), TargetGroupFacts>;

/// The state that is kept for a binding from one pass to the next.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// The hash of the binding's input to the node rules when they were last computed.
    network: Option<u64>,
    /// The generation that needs a fix and for which the node rules were last queued.
    corrected: Option<i64>,
    /// True while the status that reports an error could not be written.
    unwritten: bool,
    /// The UID, and the last written status: the watch may lag behind.
    status: Option<(String, TargetGroupBindingStatus)>,
    /// The UID, and the last written or removed checkpoint.
    checkpoint: Option<(String, Option<String>)>,
    /// The UID, and the last read or written record of a binding whose group is shared.
    recorded: Option<(String, BTreeSet<Target>)>,
    /// The UID, and the targets that a trusted checkpoint has proven to be in the record, while it was not read.
    proven: Option<(String, BTreeSet<Target>)>,
    /// The next query for the health of targets, while a pod waits for it.
    look: Option<Look>,
    /// The time since when each pod waits, also while it is no target in between, with its UID.
    waits: BTreeMap<ObjectName, (String, tokio::time::Instant)>,
    /// The UID, by the reason of each notice about QUIC server ids that was made and still holds.
    notified: BTreeMap<&'static str, String>,
    /// The digest of the desired targets, and those of them that are left out because another one has their QUIC server id.
    rivals: Option<(String, BTreeSet<Target>)>,
    /// The written conditions of pods that the watch does not show yet, by the pod's UID and the condition.
    conditions: BTreeMap<(String, String), GateState>,
    /// The writes of the target type.
    typed: binding::TargetTypeWrites,
    /// The first time that the role of the deleted binding could not be used, by who denied it.
    barred: BTreeMap<DeniedBy, tokio::time::Instant>,
    /// The targets that AWS refused.
    refusals: registering::Refusals,
    /// True if a deregistration was sent, and not all that had to be deregistered is known to be.
    departing: bool,
    /// The end of the deregistrations of the latest pass, even if the pass then failed.
    departed: Option<Departed>,
    /// The generation, and the number of its targets, if all of them were registered at the end of the latest pass.
    registered: Option<(i64, usize)>,
}

/// The controller of the target groups of all bindings. All workers share it; a binding is never reconciled twice at
/// the same time.
pub struct Targets<C: Cloud = LiveCloud, K: Cluster = LiveCluster> {
    cloud: C,
    cluster: K,
    /// The permit that is checked before every write.
    permit: WritePermit,
    snapshot: Arc<RwLock<Snapshot>>,
    settings: Settings,
    memory: Mutex<BTreeMap<ObjectName, Memory>>,
    /// The known target groups, by the role in which they are read.
    groups: Mutex<KnownGroups>,
    vpc_blocks: Mutex<BTreeMap<VpcId, (tokio::time::Instant, zones::Blocks)>>,
    node_rules: tokio::sync::Mutex<node_rule_state::State>,
    node_rules_due: AtomicBool,
    /// The generation of each binding whose targets allow all sources of its spec, or none of whose targets is known.
    opened: Mutex<BTreeMap<ObjectName, i64>>,
    /// The terms of the lease, up to the current one, whose checkpoints count.
    terms: Mutex<RangeInclusive<i32>>,
}

impl Targets {
    /// Creates an instance with AWS and the API server. `endpoint_group_tags` are those of
    /// `--service-target-eni-security-group-tags`; `restricted_rules` is the opposite of
    /// `--disable-restricted-sg-rules`.
    #[must_use]
    pub fn new(
        aws: AwsWriter,
        inventory: Arc<Inventory>,
        client: &WriteClient,
        snapshot: Arc<RwLock<Snapshot>>,
        cluster: String,
        endpoint_group_tags: Tags,
        restricted_rules: bool,
    ) -> Self {
        let settings = Settings {
            cluster,
            endpoint_group_tags,
            restricted_rules,
            max_targets: None,
            gate_pause: GATE_PAUSE,
            silent_nodes: SilentNodes::InNeed,
            propagation: Duration::ZERO,
        };
        let permit = aws.permit().clone();
        Self::with(LiveCloud::new(aws, inventory), LiveCluster::new(client), permit, snapshot, settings)
    }

    /// Sets `--targetgroupbinding-requeue-duration`.
    #[must_use]
    pub fn with_gate_pause(mut self, pause: Duration) -> Self {
        self.settings.gate_pause = pause;
        self
    }

    /// Sets `--propagation-time`.
    #[must_use]
    pub fn with_propagation(mut self, propagation: Duration) -> Self {
        self.settings.propagation = propagation;
        self
    }

    /// Sets the feature gate `EndpointsFailOpen`.
    #[must_use]
    pub fn with_silent_nodes(mut self, silent_nodes: SilentNodes) -> Self {
        self.settings.silent_nodes = silent_nodes;
        self
    }

    /// Sets `--max-targets-per-target-group`; 0 means no limit.
    #[must_use]
    pub fn with_max_targets(mut self, most: usize) -> Self {
        self.settings.max_targets = (most > 0).then_some(most);
        self
    }
}

impl<C: Cloud, K: Cluster> Targets<C, K> {
    /// Creates an instance with the given implementations.
    #[must_use]
    pub fn with(
        cloud: C,
        cluster: K,
        permit: WritePermit,
        snapshot: Arc<RwLock<Snapshot>>,
        settings: Settings,
    ) -> Self {
        Self {
            cloud,
            cluster,
            permit,
            snapshot,
            settings,
            memory: Mutex::default(),
            groups: Mutex::default(),
            vpc_blocks: Mutex::default(),
            node_rules: tokio::sync::Mutex::default(),
            // Rules from before the start may have to be removed.
            node_rules_due: AtomicBool::new(true),
            opened: Mutex::default(),
            terms: Mutex::new(0..=0),
        }
    }

    /// Begins the last of these terms of the lease. New checkpoints are written in that term; checkpoints of all these
    /// terms are trusted.
    pub fn begin(&self, terms: RangeInclusive<i32>) {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = terms;
    }

    fn terms(&self) -> RangeInclusive<i32> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns true if the security groups of a binding's targets have the requested rules. Targets that cannot be
    /// determined because the binding is not valid are not awaited.
    pub fn allows_sources(&self, binding: &albatross_core::snapshot::TargetGroupBinding) -> bool {
        binding.spec.networking.is_none() || self.opened().get(&binding.name) == Some(&binding.generation)
    }

    /// Returns the number of targets of a binding, if the latest pass has found or registered all of them.
    pub fn registered(&self, binding: &albatross_core::snapshot::TargetGroupBinding) -> Option<usize> {
        let (generation, targets) = self.memory().get(&binding.name)?.registered?;
        (generation == binding.generation).then_some(targets)
    }

    /// Returns the end of the deregistrations of a binding's latest pass, once.
    pub fn take_departed(&self, name: &ObjectName) -> Option<Departed> {
        self.memory().get_mut(name)?.departed.take()
    }

    /// Returns true if the status of a binding does not report its current error yet.
    pub fn status_is_unwritten(&self, name: &ObjectName) -> bool {
        self.memory().get(name).is_some_and(|memory| memory.unwritten)
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<ObjectName, i64>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if a change since the last [`Self::reconcile_node_rules`] may affect the node rules.
    #[must_use]
    pub fn node_rules_due(&self) -> bool {
        self.node_rules_due.load(Ordering::Acquire)
    }

    fn snapshot(&self) -> RwLockReadGuard<'_, Snapshot> {
        // A task that panicked while writing has left each object in its old or its new state.
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vpc_blocks(&self) -> MutexGuard<'_, BTreeMap<VpcId, (tokio::time::Instant, zones::Blocks)>> {
        self.vpc_blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups(&self) -> MutexGuard<'_, KnownGroups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
