//! Starting and stopping: from flags to running workers, with a clear message about every missing prerequisite.

use std::{
    collections::BTreeSet,
    future::Future,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Config, Resource,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::{
    admin::{self, Addresses, AdminError, Sources},
    flags::{ControllerFlags, FlagError},
    lease::{Candidate, KubernetesLease, Leadership, Tenure, Timing, TokioClock},
    location_discovery::LocationDiscovery,
    metrics::Metrics,
    queue::Queue,
    write_permit::{Term, WriteClient},
};
use crate::controller::reconcile::{apply::Applier, targets::Targets};
use crate::controller::{
    Controller,
    cluster::{
        events::Events,
        kubernetes::{Kubernetes, describe, with_causes},
        records::Records,
        secrets::Secrets,
        watch_activity::WatchActivity,
        watches::{Synced, watch_kind},
    },
    reconcile::{fact_subscribers::FactSubscribers, step_history::StepHistory, unserved::unserved, waits::Waits},
    webhooks::{self, WebhookError, certificates::served::Served},
};
use albatross_aws::facts::FactStore;
use albatross_aws::{
    AwsError, AwsHttp, AwsReader, AwsWriter, ConnectError, ConnectOptions, Inventory, parse_endpoints,
    proxies::{Proxies, ProxyError},
};
use albatross_core::{
    api::{crd, kubernetes as wire},
    desired::BuildConfig,
    facts::secrets::RequiredLabel,
    model::{Tags, VpcId},
    record::{self, Header},
    snapshot::{self, Snapshot},
};

/// The API server ends a watch after 290 s; longer silence, also on a list, is a connection that nobody serves any more.
const SILENCE: Duration = Duration::from_secs(320);
const API_SERVER_DEADLINE: Duration = Duration::from_secs(10);

/// Why the controller cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A flag cannot be used.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// Neither a kubeconfig nor a ServiceAccount.
    #[error("no way to a cluster: {reason}; outside of a cluster set --kubeconfig or KUBECONFIG")]
    NoCluster {
        /// What was tried, and why it failed.
        reason: String,
    },
    /// The API server does not answer.
    #[error(
        "cannot reach the Kubernetes API server at {url}: {reason}; check the address in the kubeconfig, and that nothing blocks the way"
    )]
    ApiServer {
        /// Its address.
        url: String,
        /// What happened.
        reason: String,
    },
    /// AWS cannot be set up.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// AWS refused something that is needed to start.
    #[error("{error}{}", fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default())]
    Aws {
        /// What it said.
        error: AwsError,
        /// What to do.
        fix: Option<String>,
    },
    /// A variable names a proxy that is none.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The region is not known.
    #[error("the AWS region is not known: {reason}; set --aws-region or AWS_REGION")]
    Region {
        /// What was tried.
        reason: String,
    },
    /// The cluster's VPC is not known.
    #[error("the VPC of the cluster is not known: {reason}; set --aws-vpc-id or --aws-vpc-tags")]
    Vpc {
        /// What was tried.
        reason: String,
    },
    /// A port is taken, or an address is none.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The webhooks cannot be served.
    #[error(transparent)]
    Webhooks(#[from] WebhookError),
    /// Another replica may lead now. The process goes on as a standby.
    #[error("the lease was lost, so another replica may act now")]
    LeaseLost,
    /// The election has ended by itself: the process ends, so that a new one takes part.
    #[error("the leader election has ended by a fault of albatross, please report it; the process ends")]
    ElectionEnded,
    /// A task that goes on for as long as the process has ended by itself: the process ends, so that a new one begins it anew.
    #[error("{task} has ended by a fault of albatross, please report it; the process ends")]
    TaskEnded {
        /// Which one.
        task: &'static str,
    },
}

pub(crate) fn aws_error(error: AwsError) -> StartError {
    StartError::Aws { fix: error.fix(), error }
}

/// What goes on from term to term: what the cluster is known to hold, and the keys that its changes bring.
#[derive(Clone)]
pub struct Watched {
    pub snapshot: Arc<RwLock<Snapshot>>,
    pub queue: Arc<Queue>,
    pub synced: Arc<Synced>,
}

impl Watched {
    pub fn new(settings: &Settings) -> Self {
        Self {
            snapshot: Arc::new(RwLock::new(Snapshot::default())),
            queue: Arc::new(Queue::with_max_concurrent(settings.load_balancers_at_once, settings.bindings_at_once)),
            synced: Arc::new(Synced::new(KINDS)),
        }
    }
}

/// What a controller is made of.
#[derive(Clone)]
pub struct Parts {
    pub watched: Watched,
    pub client: Client,
    pub aws: Arc<AwsReader>,
    pub config: BuildConfig,
    pub vpc: VpcId,
    pub metrics: Arc<Metrics>,
    pub leadership: watch::Receiver<Leadership>,
    /// Until when the lease is held; `None` without election.
    pub tenure: Option<Arc<Tenure>>,
    /// Names this process among those that take turns.
    pub identity: String,
}

/// The flags that say how work is done, and not what building makes of objects.
#[derive(Clone, Debug)]
pub struct Settings {
    pub watch_namespace: String,
    pub load_balancers_at_once: usize,
    pub bindings_at_once: usize,
    pub node_group_tags: Tags,
    pub max_targets: usize,
    pub gate_pause: Duration,
    pub sync_period: Duration,
    /// How long a load balancer that was replaced goes on serving.
    pub replacement_hold: Duration,
    /// The certificate authorities whose certificates in ACM count; all where it is empty.
    pub certificate_authorities: BTreeSet<String>,
    /// The label without which no Secret of an identity provider is used.
    pub secrets_label: Option<RequiredLabel>,
    /// Where the lease is, and the records beside it.
    pub lease_namespace: String,
    pub lease: String,
}

impl Settings {
    fn of(flags: &ControllerFlags) -> Result<Self, FlagError> {
        Ok(Self {
            watch_namespace: flags.watch_namespace.clone(),
            load_balancers_at_once: flags.ingress_max_concurrent_reconciles,
            bindings_at_once: flags.targetgroupbinding_max_concurrent_reconciles,
            node_group_tags: flags.node_security_group_tags()?,
            max_targets: flags.max_targets_per_target_group,
            gate_pause: flags.targetgroupbinding_requeue_duration,
            sync_period: flags.sync_period,
            replacement_hold: flags.replaced_load_balancer_hold,
            certificate_authorities: flags.certificate_authorities(),
            secrets_label: flags.secrets_label()?,
            lease_namespace: lease_namespace(flags),
            lease: flags.leader_election_id.clone(),
        })
    }
}

/// Puts a controller together for one term of the lease, in which it believes nothing that was learnt in another. It does
/// nothing yet, and no write of it leaves for AWS before its term or after it.
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
    let writes = WriteClient::new(client.clone(), permit.clone());
    let records = Records::new(&writes, &settings.lease_namespace, &settings.lease, header);
    let inventory = Arc::new(Inventory::new(Arc::clone(&aws), config.cluster.clone(), vpc.clone()));
    Arc::new(Controller {
        snapshot: Arc::clone(&snapshot),
        secrets: Secrets::new(client, Arc::clone(&queue), settings.secrets_label.clone()),
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
        .with_gate_pause(settings.gate_pause),
        facts: FactStore::new(aws, config.cluster.clone(), vpc)
            .with_gates(config.subnets)
            .with_certificate_authorities(settings.certificate_authorities.clone()),
        fact_subscribers: FactSubscribers::default(),
        records,
        waits: Waits::default(),
        step_history: StepHistory::default(),
        replacement_hold: settings.replacement_hold,
        inventory,
        config,
        metrics,
        term,
        permit,
        backend_group_gate: tokio::sync::RwLock::new(()),
        watch_namespace: settings.watch_namespace.clone(),
    })
}

/// What has been set up before anything is watched or led.
struct Prepared {
    settings: Settings,
    parts: Parts,
    candidate: Candidate<KubernetesLease, TokioClock>,
    /// Keeps the leadership of a process that takes no part in an election.
    always: watch::Sender<Leadership>,
    controller: Arc<Controller>,
    present: Arc<RwLock<Arc<Controller>>>,
    serves_webhooks: bool,
}

/// Runs the controller until `stop` is ready, or something ends it. `stop` may be ready at any moment, also while the
/// controller still waits for the cluster or for AWS.
///
/// # Errors
/// When it cannot start.
pub async fn run(flags: ControllerFlags, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), StartError> {
    let (stopping, mut stopped) = watch::channel(false);
    tokio::spawn(async move {
        stop.await;
        stopping.send_replace(true);
    });
    let prepared = tokio::select! {
        biased;
        () = until(&mut stopped, |stopped| *stopped) => {
            tracing::info!("albatross has stopped before it was ready");
            return Ok(());
        }
        prepared = prepare(&flags) => prepared?,
    };
    let Prepared { settings, parts, candidate, always, mut controller, present, serves_webhooks } = prepared;
    let mut watches = start_watches(&parts.client, &settings.watch_namespace, &parts.watched);

    let (release, mut released) = watch::channel(false);
    let mut election = flags.enable_leader_election.then(|| {
        tokio::spawn(candidate.run(async move {
            let _ = released.wait_for(|released| *released).await;
        }))
    });
    let result = loop {
        let led = tokio::select! {
            ended = lead(Arc::clone(&controller), &settings, stopped.clone()) => ended,
            () = ended(election.as_mut()) => Err(StartError::ElectionEnded),
            () = one_ended(&mut watches) => Err(StartError::TaskEnded { task: "a watch" }),
        };
        match led {
            Err(StartError::LeaseLost) => {
                tracing::warn!("{}; standing by", StartError::LeaseLost);
                controller = assemble(parts.clone(), &settings);
                *present.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&controller);
            }
            ended => break ended,
        }
    };
    drop(always);
    release.send_replace(true);
    if let Some(election) = election.filter(|election| !election.is_finished()) {
        // Gives the lease back, so that the next replica need not wait for it to run out.
        let _ = tokio::time::timeout(Duration::from_secs(5), election).await;
    }
    if serves_webhooks {
        // The API server learns a moment later that this replica is going.
        tokio::time::sleep(webhooks::LINGER).await;
    }
    tracing::info!("albatross has stopped");
    result
}

/// Returns when the task has ended, or was ended by a panic; never without one.
async fn ended(task: Option<&mut JoinHandle<()>>) {
    match task {
        Some(task) => {
            let _ = task.await;
        }
        None => std::future::pending().await,
    }
}

/// Returns when one of the tasks has ended, or was ended by a panic; never without any.
async fn one_ended(tasks: &mut JoinSet<()>) {
    if tasks.join_next().await.is_none() {
        std::future::pending().await
    }
}

/// Sets everything up, from flags to the servers of metrics and webhooks.
async fn prepare(flags: &ControllerFlags) -> Result<Prepared, StartError> {
    let metrics = Arc::new(Metrics::of_lease(&flags.leader_election_id));
    for flag in flags.without_effect() {
        tracing::warn!("{flag} has no effect in albatross {}", env!("CARGO_PKG_VERSION"));
    }
    // Mistakes in flags are told before anything is waited for.
    flags.build_config(VpcId::new(""))?;
    let settings = Settings::of(flags)?;
    let fixed_limits = flags.fixed_limits()?;
    let endpoints = parse_endpoints(flags.aws_api_endpoints.as_deref().unwrap_or_default())?;
    let proxies = Arc::new(Proxies::of_environment()?);
    let http = AwsHttp::new(Arc::clone(&proxies))?;
    let activity = WatchActivity::default();
    let client = connect_to_cluster(flags.kubeconfig.as_deref(), &proxies, &activity).await?;
    let place = LocationDiscovery::new(flags, &client, &http);
    let options = ConnectOptions {
        region: place.region().await?,
        proxies,
        max_attempts: flags.aws_max_retries,
        endpoints,
        fixed_limits,
        observer: Some(Arc::clone(&metrics) as _),
    };
    let aws = Arc::new(AwsReader::connect(&options, &http).await?);
    aws.check_credentials().await.map_err(aws_error)?;
    let vpc = place.vpc(&aws).await?;
    let config = flags.build_config(vpc.clone())?;

    let identity = identity();
    let candidate = Candidate::new(
        KubernetesLease::new(Api::<Lease>::namespaced(client.clone(), &settings.lease_namespace), &settings.lease),
        TokioClock,
        identity.clone(),
        Timing::default(),
    );
    let (always, never_changes) = watch::channel(Leadership::Leader { epoch: 0 });
    let leadership = if flags.enable_leader_election { candidate.leadership() } else { never_changes };
    let tenure = flags.enable_leader_election.then(|| candidate.tenure());
    let synced = Arc::new(Synced::new(KINDS).with_activity(activity));
    let watched = Watched { synced, ..Watched::new(&settings) };
    let parts = Parts {
        watched: watched.clone(),
        client: client.clone(),
        aws: Arc::clone(&aws),
        config,
        vpc: vpc.clone(),
        metrics: Arc::clone(&metrics),
        leadership,
        tenure,
        identity,
    };
    let namespace = own_namespace();
    let certificate = webhooks::serve(flags, &client, namespace, &watched, &parts.config, Arc::clone(&metrics)).await?;
    let serves_webhooks = certificate.is_some();
    let controller = assemble(parts.clone(), &settings);
    let present = Arc::new(RwLock::new(Arc::clone(&controller)));
    serve_admin(flags, &watched.synced, &present, certificate, metrics).await?;
    tracing::info!(cluster = flags.cluster_name, %vpc, region = aws.region(), "albatross {} starts", env!("CARGO_PKG_VERSION"));
    let watched_namespace = flags.watch_namespace.clone();
    tokio::spawn(async move {
        for sentence in unserved(&client, &watched_namespace).await {
            tracing::warn!("{sentence}");
        }
    });
    Ok(Prepared { settings, parts, candidate, always, controller, present, serves_webhooks })
}

/// What is being worked on is finished before the lease is given back, within what Kubernetes gives a pod to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(7);
const FLUSH_DEADLINE: Duration = Duration::from_secs(3);

/// Works as long as this process leads and is not asked to stop.
///
/// # Errors
/// [`StartError::LeaseLost`] when the term ends, with which everything ends that the controller was made for.
pub async fn lead(
    controller: Arc<Controller>,
    settings: &Settings,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), StartError> {
    let mut leadership = controller.term.leadership();
    let until_stopped = stopped.clone();
    // The senders live in `run` and in the candidate, for as long as this runs.
    tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
        () = async {
            controller.synced.wait().await;
            tracing::info!("every kind has been listed");
            let _ = leadership.wait_for(|l| matches!(l, Leadership::Leader { .. })).await;
        } => {}
    }
    let Leadership::Leader { epoch: term } = *leadership.borrow() else { return Err(StartError::LeaseLost) };
    let over = |leadership: &Leadership| *leadership != Leadership::Leader { epoch: term };
    controller.term.begin(term);
    let _leads = Leads::begin(&controller.metrics);
    tokio::select! {
        () = until(&mut leadership, over) => return Err(StartError::LeaseLost),
        () = until(&mut stopped, |stopped| *stopped) => return Ok(()),
        clean_records = controller.records.load(term) => controller.inventory.add_records(clean_records),
    }
    controller.targets.begin(controller.records.terms());
    controller.queue.begin_term();
    controller.queue_everything();
    let workers = settings.load_balancers_at_once.max(1) + settings.bindings_at_once.max(1);
    let mut working = JoinSet::new();
    for _ in 0..workers {
        working.spawn(Arc::clone(&controller).work(until_stopped.clone()));
    }
    let mut background = JoinSet::new();
    background.spawn(Arc::clone(&controller).audit(settings.sync_period));
    let keeper = Arc::clone(&controller);
    background.spawn(async move { keeper.records.keep_written().await });
    // It ends by itself, and nothing depends on it.
    let mut reporting = JoinSet::new();
    let reporter = Arc::clone(&controller);
    reporting.spawn(async move { reporter.report_leftovers().await });
    tokio::select! {
        () = until(&mut leadership, over) => {
            // The next term begins with a queue that nobody else takes from. A pass that is under way changes nothing any more.
            working.shutdown().await;
            background.shutdown().await;
            reporting.shutdown().await;
            Err(StartError::LeaseLost)
        }
        () = one_ended(&mut background) => Err(StartError::TaskEnded { task: "the audit, or the writer of records," }),
        () = until(&mut stopped, |stopped| *stopped) => {
            if tokio::time::timeout(DRAIN_DEADLINE, async { while working.join_next().await.is_some() {} }).await.is_err() {
                tracing::warn!("stopping in the middle of work; the next start goes on with it");
            }
            match tokio::time::timeout(FLUSH_DEADLINE, controller.records.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("{error}; the next start reads from AWS what they would have spared"),
                Err(_) => tracing::warn!(
                    "the records are not written: no answer from the API server within {} s; the next start reads from AWS \
                     what they would have spared",
                    FLUSH_DEADLINE.as_secs()
                ),
            }
            Ok(())
        }
    }
}

/// Shows that this process leads, for as long as it is there.
struct Leads<'a>(&'a Metrics);

impl<'a> Leads<'a> {
    fn begin(metrics: &'a Metrics) -> Self {
        metrics.leader(true);
        Self(metrics)
    }
}

impl Drop for Leads<'_> {
    fn drop(&mut self) {
        self.0.leader(false);
    }
}

/// Waits for a value, and holds no lock on it afterwards. The sender has to live as long.
async fn until<T>(receiver: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) {
    let _ = receiver.wait_for(wanted).await;
}

const KINDS: [&str; 9] = [
    "Ingress",
    "IngressClass",
    "IngressClassParams",
    "Namespace",
    "Service",
    "EndpointSlice",
    "Pod",
    "Node",
    "TargetGroupBinding",
];

/// Starts a watch of each kind; they end when what is answered is dropped.
pub fn start_watches(client: &Client, namespace: &str, watched: &Watched) -> JoinSet<()> {
    fn api<W: Resource<Scope = kube::core::NamespaceResourceScope>>(client: &Client, namespace: &str) -> Api<W>
    where
        W::DynamicType: Default,
    {
        if namespace.is_empty() { Api::all(client.clone()) } else { Api::namespaced(client.clone(), namespace) }
    }
    let mut watches = JoinSet::new();
    watched.synced.activity.begin(KINDS);
    watches.spawn(Arc::clone(&watched.synced).report_stalled());
    macro_rules! watch {
        ($kind:literal, $api:expr, $record:ty) => {
            watches.spawn(watch_kind::<_, $record>(
                $kind,
                $api,
                Arc::clone(&watched.snapshot),
                Arc::clone(&watched.queue),
                Arc::clone(&watched.synced),
            ))
        };
    }
    watch!("Ingress", api::<wire::Ingress>(client, namespace), snapshot::Ingress);
    watch!("IngressClass", Api::<wire::IngressClass>::all(client.clone()), snapshot::IngressClass);
    watch!("IngressClassParams", Api::<crd::IngressClassParams>::all(client.clone()), snapshot::IngressClassParams);
    watch!("Namespace", Api::<wire::Namespace>::all(client.clone()), snapshot::Namespace);
    watch!("Service", api::<wire::Service>(client, namespace), snapshot::Service);
    watch!("EndpointSlice", api::<wire::EndpointSlice>(client, namespace), snapshot::EndpointSlice);
    watch!("Pod", api::<wire::Pod>(client, namespace), snapshot::Pod);
    watch!("Node", Api::<wire::Node>::all(client.clone()), snapshot::Node);
    watch!("TargetGroupBinding", api::<crd::TargetGroupBinding>(client, namespace), snapshot::TargetGroupBinding);
    watches
}

async fn serve_admin(
    flags: &ControllerFlags,
    synced: &Arc<Synced>,
    present: &Arc<RwLock<Arc<Controller>>>,
    certificate: Option<Arc<Served>>,
    metrics: Arc<Metrics>,
) -> Result<(), StartError> {
    let (synced, without) = (Arc::clone(synced), Arc::clone(synced));
    let (for_metrics, for_pending, for_state) = (Arc::clone(present), Arc::clone(present), Arc::clone(present));
    let of = |present: &RwLock<Arc<Controller>>| Arc::clone(&present.read().unwrap_or_else(PoisonError::into_inner));
    admin::serve(
        Addresses {
            metrics: &flags.metrics_bind_addr,
            health: &flags.health_probe_bind_addr,
            debug: &flags.debug_bind_addr,
        },
        Sources {
            metrics,
            measure: Arc::new(move || of(&for_metrics).measure()),
            not_ready: Arc::new(move || {
                let mut reasons = synced.reasons();
                if certificate.as_ref().is_some_and(|certificate| certificate.is_empty()) {
                    reasons.push("the webhooks have no certificate yet".to_owned());
                }
                reasons
            }),
            without: Arc::new(move || without.without()),
            pending: Arc::new(move || of(&for_pending).pending()),
            state: Arc::new(move || of(&for_state).state()),
        },
    )
    .await?;
    Ok(())
}

async fn connect_to_cluster(
    kubeconfig: Option<&Path>,
    proxies: &Proxies,
    activity: &WatchActivity,
) -> Result<Client, StartError> {
    let mut named = None;
    let mut config = match kubeconfig.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => {
            let unusable = |error: KubeconfigError| StartError::NoCluster {
                reason: format!(
                    "the kubeconfig `{}` cannot be used: {}",
                    path.display(),
                    describe_kubeconfig_error(&error)
                ),
            };
            let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
            named = proxy_of(&kubeconfig);
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(unusable)?
        }
        None => match Config::from_kubeconfig(&KubeConfigOptions::default()).await {
            Ok(config) => {
                named = Kubeconfig::read().ok().as_ref().and_then(proxy_of);
                config
            }
            Err(kubeconfig) => Config::incluster().map_err(|in_cluster| StartError::NoCluster {
                reason: format!(
                    "there is neither a default kubeconfig ({}) nor a ServiceAccount ({})",
                    describe_kubeconfig_error(&kubeconfig),
                    with_causes(&in_cluster)
                ),
            })?,
        },
    };
    (config.read_timeout, config.reset_reader_on_write) = (Some(SILENCE), true);
    let url = config.cluster_url.to_string();
    // kube compares NO_PROXY with the proxy's own address, and not with the API server's.
    let proxy = named.or_else(|| proxies.for_url(&url).map(|proxy| proxy.secret_url().to_owned()));
    config.proxy_url = proxy.and_then(|proxy| proxy.parse().ok());
    let failed = |reason: String| StartError::ApiServer { url: url.clone(), reason };
    let builder = ClientBuilder::try_from(config).map_err(|error| failed(describe(&error)))?;
    let client = builder.with_layer(activity).build();
    match tokio::time::timeout(API_SERVER_DEADLINE, client.apiserver_version()).await {
        Ok(Ok(version)) => {
            tracing::debug!(version = version.git_version, "the API server answers");
            Ok(client)
        }
        Ok(Err(error)) => Err(failed(describe(&error))),
        Err(_) => Err(failed(format!("no answer within {} s", API_SERVER_DEADLINE.as_secs()))),
    }
}

/// The proxy that a kubeconfig itself names for the cluster of its current context.
fn proxy_of(kubeconfig: &Kubeconfig) -> Option<String> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == *current)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

fn describe_kubeconfig_error(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        // What follows the first line is the place in the file, with the secrets that stand near it.
        error => with_causes(error).lines().next().unwrap_or_default().to_owned(),
    }
}

fn lease_namespace(flags: &ControllerFlags) -> String {
    if !flags.leader_election_namespace.is_empty() {
        return flags.leader_election_namespace.clone();
    }
    own_namespace()
}

/// Where the controller runs; outside of a cluster where it usually would.
fn own_namespace() -> String {
    std::fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
        .map_or_else(|_| "kube-system".to_owned(), |namespace| namespace.trim().to_owned())
}

/// Unique to this process: the pod's name, and a part that tells two processes of one name apart.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "albatross".to_owned());
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{host}_{}-{:x}", std::process::id(), started.as_nanos())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use tokio::{net::TcpListener, sync::oneshot};

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        flags: ControllerFlags,
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_the_process_and_one_that_goes_on_does_not() {
        let within = Duration::from_secs(5);
        let mut election = tokio::spawn(async { panic!("by test") });
        assert_eq!(tokio::time::timeout(within, ended(Some(&mut election))).await, Ok(()));
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        assert!(futures::poll!(std::pin::pin!(one_ended(&mut tasks))).is_pending());
        assert!(futures::poll!(std::pin::pin!(one_ended(&mut JoinSet::new()))).is_pending());
        assert!(futures::poll!(std::pin::pin!(ended(None))).is_pending());
        tasks.spawn(async { panic!("by test") });
        assert_eq!(tokio::time::timeout(within, one_ended(&mut tasks)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_stop_while_the_api_server_has_not_answered_yet_ends_the_start() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubeconfig = std::env::temp_dir().join(format!("albatross-{}-silent.yaml", std::process::id()));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
             users: [{{name: a, user: {{}}}}]\nclusters: [{{name: a, cluster: {{server: \"http://{}\"}}}}]\n",
            server.local_addr().unwrap()
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let path = kubeconfig.to_str().unwrap();
        let flags = Line::parse_from(["albatross", "--cluster-name", "demo", "--kubeconfig", path]).flags;
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(run(flags, async move {
            let _ = stopped.await;
        }));
        let accepted = tokio::time::timeout(Duration::from_secs(20), server.accept()).await;
        assert!(matches!(accepted, Ok(Ok(_))), "{accepted:?}");
        assert!(!running.is_finished());
        stop.send(()).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(2), running).await;
        let _ = std::fs::remove_file(&kubeconfig);
        assert!(matches!(ended, Ok(Ok(Ok(())))), "{ended:?}");
    }
}
