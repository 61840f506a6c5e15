//! TargetGroupBindings: the pods or nodes behind a Service become the targets of a target group, and the security groups
//! of nodes and pods let the load balancer in.

mod binding;
mod cloud;
mod cluster;
mod error;
mod gates;
mod network_interfaces;
mod node_rule_state;
mod registering;
mod zones;

#[cfg(test)]
mod fake;

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use binding::BindingOutcome;
pub(crate) use binding::unsupported;
pub use cloud::{Cloud, LiveCloud};
pub use cluster::{Cluster, ClusterError, LiveCluster};
pub use error::{Problem, Stage, Subject, TargetsError};

use crate::controller::runtime::write_permit::WriteClient;
use albatross_aws::{AwsWriter, Inventory, WritePermit};
use albatross_core::targets::{TargetGroupFacts, TargetGroupKey};
use albatross_core::{
    api::crd::TargetGroupBindingStatus,
    model::{ObjectName, Tags, VpcId},
    snapshot::{GateState, Snapshot},
};

/// The default of `--targetgroupbinding-requeue-duration`.
pub const GATE_PAUSE: Duration = Duration::from_secs(15);

/// The flags that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--cluster-name`
    pub cluster: String,
    /// The opposite of `--disable-restricted-sg-rules`: one rule for all ports of a source, from the lowest to the highest.
    pub restricted_rules: bool,
    /// `--service-target-eni-security-group-tags`
    pub endpoint_group_tags: Tags,
    /// `--max-targets-per-target-group`; `None` is no limit.
    pub max_targets: Option<usize>,
    /// `--targetgroupbinding-requeue-duration`: how long until AWS is asked again whether the pods that wait for it are healthy.
    pub gate_pause: Duration,
}

/// The memory of a binding from one time to the next.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// The hash of the input of its node rules when they were last computed.
    network: Option<u64>,
    /// The generation that has to be corrected and for which the node rules were last made due.
    corrected: Option<i64>,
    /// True while the status could not be written that says what is wrong.
    unwritten: bool,
    /// UID, and the status that was last written: the watch may be behind.
    status: Option<(String, TargetGroupBindingStatus)>,
    /// UID, and the checkpoint that was last written or taken away.
    checkpoint: Option<(String, Option<String>)>,
    /// When AWS is to be asked for the healths of its targets, while a pod waits for that.
    look: Option<tokio::time::Instant>,
    /// The conditions of pods that were written and that the watch does not show yet, by the pod's UID and the condition.
    conditions: BTreeMap<(String, String), GateState>,
    /// When the target type was written.
    typed: binding::TargetTypeWrites,
    /// The targets that AWS refused.
    refusals: registering::Refusals,
}

/// Feeds the target groups of all bindings. Shared by all workers; one binding is never reconciled twice at the same time.
pub struct Targets<C: Cloud = LiveCloud, K: Cluster = LiveCluster> {
    cloud: C,
    cluster: K,
    /// Asked before everything that changes something.
    permit: WritePermit,
    snapshot: Arc<RwLock<Snapshot>>,
    settings: Settings,
    memory: Mutex<BTreeMap<ObjectName, Memory>>,
    groups: Mutex<BTreeMap<TargetGroupKey, TargetGroupFacts>>,
    vpc_blocks: Mutex<BTreeMap<VpcId, (tokio::time::Instant, zones::Blocks)>>,
    node_rules: tokio::sync::Mutex<node_rule_state::State>,
    node_rules_due: AtomicBool,
    /// The generation of each binding whose targets let in whom it lets in, or of whose targets none is known.
    opened: Mutex<BTreeMap<ObjectName, i64>>,
    /// The terms of the lease, up to the present one, whose checkpoints count.
    terms: Mutex<RangeInclusive<i32>>,
}

impl Targets {
    /// Uses AWS and the API server. `endpoint_group_tags` are those of
    /// `--service-target-eni-security-group-tags`; `restricted_rules` is the opposite of `--disable-restricted-sg-rules`.
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
        let settings =
            Settings { cluster, endpoint_group_tags, restricted_rules, max_targets: None, gate_pause: GATE_PAUSE };
        let permit = aws.permit().clone();
        Self::with(LiveCloud::new(aws, inventory), LiveCluster::new(client), permit, snapshot, settings)
    }

    /// `--targetgroupbinding-requeue-duration`
    #[must_use]
    pub fn with_gate_pause(mut self, pause: Duration) -> Self {
        self.settings.gate_pause = pause;
        self
    }

    /// `--max-targets-per-target-group`: 0 is no limit.
    #[must_use]
    pub fn with_max_targets(mut self, most: usize) -> Self {
        self.settings.max_targets = (most > 0).then_some(most);
        self
    }
}

impl<C: Cloud, K: Cluster> Targets<C, K> {
    /// Uses the given stand-ins.
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
            // Rules from before the start may have to go.
            node_rules_due: AtomicBool::new(true),
            opened: Mutex::default(),
            terms: Mutex::new(0..=0),
        }
    }

    /// Begins the last of these terms of the lease. Bindings get checkpoints in it, and those are trusted that were written in
    /// any of them.
    pub fn begin(&self, terms: RangeInclusive<i32>) {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = terms;
    }

    fn terms(&self) -> RangeInclusive<i32> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether the security groups of a binding's targets have the rules that it asks for. Targets that cannot be
    /// determined, because the binding is wrong, are not waited for.
    pub fn allows_sources(&self, binding: &albatross_core::snapshot::TargetGroupBinding) -> bool {
        binding.spec.networking.is_none() || self.opened().get(&binding.name) == Some(&binding.generation)
    }

    /// Returns true if the status of a binding does not say yet what is wrong with it.
    pub fn status_is_unwritten(&self, name: &ObjectName) -> bool {
        self.memory().get(name).is_some_and(|memory| memory.unwritten)
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<ObjectName, i64>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if [`Self::reconcile_node_rules`] would see something that it has not seen yet.
    #[must_use]
    pub fn node_rules_due(&self) -> bool {
        self.node_rules_due.load(Ordering::Acquire)
    }

    fn snapshot(&self) -> RwLockReadGuard<'_, Snapshot> {
        // A task that panicked while writing has left an object as it was, or as it is.
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vpc_blocks(&self) -> MutexGuard<'_, BTreeMap<VpcId, (tokio::time::Instant, zones::Blocks)>> {
        self.vpc_blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<TargetGroupKey, TargetGroupFacts>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
