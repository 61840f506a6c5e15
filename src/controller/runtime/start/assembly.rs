//! The assembly of a controller for one term of the lease.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use kube::Client;
use tokio::sync::watch;

use super::{own_namespace, watches::KINDS};
use crate::controller::{
    Controller,
    cluster::{events::Events, kubernetes::Kubernetes, records::Records, secrets::Secrets, watches::Synced},
    reconcile::{
        Holds, PlanAnnotations, apply::Applier, fact_subscribers::FactSubscribers, step_history::StepHistory,
        targets::Targets, waits::Waits,
    },
    runtime::{
        flags::{ControllerFlags, FlagError},
        lease::{Leadership, Tenure},
        metrics::Metrics,
        queue::Queue,
        write_permit::{Term, WriteClient},
    },
};
use albatross_aws::{AwsReader, AwsWriter, Inventory, facts::FactStore};
use albatross_core::{
    desired::BuildConfig,
    facts::secrets::RequiredLabel,
    model::{Tags, VpcId},
    quic::EnvironmentVariable,
    record::{self, Header},
    snapshot::Snapshot,
    targets::endpoints::SilentNodes,
};

/// The state that outlives terms: the snapshot of the cluster, and the queue of the keys that its changes affect.
#[derive(Clone)]
pub struct Watched {
    pub snapshot: Arc<RwLock<Snapshot>>,
    pub queue: Arc<Queue>,
    pub synced: Arc<Synced>,
}

impl Watched {
    /// Returns the environment variable with the QUIC server ids of pods.
    pub fn server_id_variable(&self) -> EnvironmentVariable {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).server_id_variable.clone()
    }

    pub fn new(settings: &Settings, metrics: &Metrics) -> Self {
        let queue = Queue::with_max_concurrent(settings.load_balancers_at_once, settings.bindings_at_once);
        Self {
            snapshot: Arc::new(RwLock::new(Snapshot {
                server_id_variable: settings.server_id_variable.clone(),
                ..Snapshot::default()
            })),
            queue: Arc::new(queue.observed_by(metrics.of_queue())),
            synced: Arc::new(Synced::new(KINDS)),
        }
    }
}

/// The parts from which a controller is assembled.
#[derive(Clone)]
pub struct Parts {
    pub watched: Watched,
    pub client: Client,
    pub aws: Arc<AwsReader>,
    pub config: BuildConfig,
    pub vpc: VpcId,
    pub metrics: Arc<Metrics>,
    pub leadership: watch::Receiver<Leadership>,
    /// The time until which the lease is held; `None` without leader election.
    pub tenure: Option<Arc<Tenure>>,
    /// The name of this process in the leader election.
    pub identity: String,
}

/// The flags that configure how the controller works, and not the desired state.
#[derive(Clone, Debug)]
pub struct Settings {
    pub watch_namespace: String,
    pub load_balancers_at_once: usize,
    pub bindings_at_once: usize,
    pub node_group_tags: Tags,
    pub max_targets: usize,
    pub gate_pause: Duration,
    pub silent_nodes: SilentNodes,
    pub plan_annotation: bool,
    pub sync_period: Duration,
    pub certificate_poll_interval: Duration,
    /// The durations of waits.
    pub holds: Holds,
    /// The certificate authorities whose ACM certificates are used; all if it is empty.
    pub certificate_authorities: BTreeSet<String>,
    /// The label that a Secret of an identity provider must have to be used.
    pub secrets_label: Option<RequiredLabel>,
    /// The environment variable with the QUIC server ids of pods.
    pub server_id_variable: EnvironmentVariable,
    /// The namespace of the lease and of the records.
    pub lease_namespace: String,
    pub lease: String,
}

impl Settings {
    pub(super) fn of(flags: &ControllerFlags) -> Result<Self, FlagError> {
        let gates = flags.build.controller_gates()?;
        Ok(Self {
            watch_namespace: flags.watch_namespace.clone(),
            load_balancers_at_once: flags.ingress_max_concurrent_reconciles,
            bindings_at_once: flags.targetgroupbinding_max_concurrent_reconciles,
            node_group_tags: flags.node_security_group_tags()?,
            max_targets: flags.max_targets_per_target_group,
            gate_pause: flags.targetgroupbinding_requeue_duration,
            silent_nodes: gates.silent_nodes,
            plan_annotation: gates.plan_annotation,
            sync_period: flags.sync_period,
            certificate_poll_interval: flags.certificate_poll_interval,
            holds: Holds {
                load_balancer: flags.replaced_load_balancer_hold,
                listener: flags.replaced_listener_hold,
                healthy_within: flags.target_health_deadline,
                propagation: flags.propagation_time,
            },
            certificate_authorities: flags.certificate_authorities(),
            secrets_label: flags.secrets_label()?,
            server_id_variable: flags.server_id_variable()?,
            lease_namespace: lease_namespace(flags),
            lease: flags.leader_election_id.clone(),
        })
    }
}

/// Assembles a controller for one term of the lease. It does not rely on state from another term, does nothing yet, and
/// sends no write to AWS outside its term.
pub fn assemble(parts: Parts, settings: &Settings) -> Arc<Controller> {
    let Parts { watched, client, aws, config, vpc, metrics, leadership, tenure, identity } = parts;
    let Watched { snapshot, queue, synced } = watched;
    let header = Header {
        format: record::FORMAT,
        cluster: config.cluster.clone(),
        region: aws.region().to_owned(),
        vpc: vpc.to_string(),
        holder: identity,
        term: 0,
        since: 0,
    };
    let term = Term::new(leadership, tenure);
    let permit = term.permit();
    let writer = AwsWriter::new(Arc::clone(&aws), permit.clone());
    let events = Events::new(client.clone(), Arc::clone(&metrics));
    let writes = WriteClient::new(client, permit.clone());
    let records = Records::new(&writes, &settings.lease_namespace, &settings.lease, header);
    let inventory = Arc::new(Inventory::new(Arc::clone(&aws), config.cluster.clone(), vpc.clone()));
    Arc::new(Controller {
        snapshot: Arc::clone(&snapshot),
        secrets: Secrets::new(writes.client(), Arc::clone(&queue), settings.secrets_label.clone()),
        queue,
        synced,
        kubernetes: Kubernetes::new(&writes),
        events,
        applier: Applier::new(writer.clone(), Arc::clone(&inventory), &writes),
        targets: Targets::new(
            writer,
            Arc::clone(&inventory),
            &writes,
            snapshot,
            config.cluster.clone(),
            settings.node_group_tags.clone(),
            !config.disable_restricted_rules,
        )
        .with_max_targets(settings.max_targets)
        .with_gate_pause(settings.gate_pause)
        .with_silent_nodes(settings.silent_nodes)
        .with_propagation(settings.holds.propagation),
        facts: FactStore::new(aws, config.cluster.clone(), vpc)
            .with_gates(config.subnets)
            .with_certificate_authorities(settings.certificate_authorities.clone())
            .without_requested_certificates(config.manage_certificates),
        fact_subscribers: FactSubscribers::default(),
        records,
        waits: Waits::new(settings.holds),
        step_history: StepHistory::default(),
        plan_annotations: PlanAnnotations::new(settings.plan_annotation),
        inventory,
        config,
        metrics,
        term,
        permit,
        backend_group_gate: tokio::sync::RwLock::new(()),
        watch_namespace: settings.watch_namespace.clone(),
    })
}

fn lease_namespace(flags: &ControllerFlags) -> String {
    if !flags.leader_election_namespace.is_empty() {
        return flags.leader_election_namespace.clone();
    }
    own_namespace()
}
