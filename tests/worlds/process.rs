//! One process of the controller: put together and led as in production, with the cluster and the AWS of the simulation. It
//! can be killed at any moment, and nothing that it knew is left.

use std::{
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use albatross::controller::{
    Controller,
    reconcile::Holds,
    runtime::{
        lease::{Candidate, Clock, KubernetesLease, Leadership, Timing, TokioClock},
        metrics::Metrics,
        start::{Parts, Settings, StartError, Watched, assemble, lead, start_watches},
    },
};
use albatross_aws::AwsReader;
use albatross_core::{
    desired::BuildConfig,
    model::{Tags, Value, VpcId},
    quic::EnvironmentVariable,
};
use albatross_simulation::{
    aws::SimulatedAws,
    cluster::{LEASE, Life, SimulatedCluster},
};

/// The way to AWS of a process: none once it is dead.
#[derive(Clone, Debug)]
struct Mortal<T> {
    inner: T,
    life: Life,
    cluster: Cluster,
}

/// The cluster, which says who holds the lease.
#[derive(Clone)]
struct Cluster(SimulatedCluster);

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cluster")
    }
}

impl HttpClient for Mortal<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Mortal { inner, life: self.life.clone(), cluster: self.cluster.clone() })
    }
}

impl HttpConnector for Mortal<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { inner, life, cluster } = self.clone();
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        HttpConnectorFuture::new(async move {
            if life.is_over() {
                return std::future::pending().await;
            }
            if life.is_frozen() {
                // It would not have asked: what its timers send is lost with the connections that it had.
                life.goes_on().await;
                return Err(ConnectorError::io("the connection was lost".into()));
            }
            // In a protocol of JSON, a header has the operation.
            let target = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
            let is_read = match target {
                Some(operation) => ["Describe", "Get", "List"].iter().any(|word| operation.starts_with(word)),
                None => {
                    let reads = ["Action=Describe", "Action=AssumeRole"];
                    request.method() == "GET" || reads.iter().any(|word| body.contains(word))
                }
            };
            if !is_read {
                cluster.0.judge(&life, &body);
            }
            let answer = inner.call(request).await;
            life.goes_on().await;
            if life.is_over() {
                return std::future::pending().await;
            }
            answer
        })
    }
}

/// The clock of a process that may be frozen: a wait for a moment goes on some time after the process does.
struct FrozenClock(Life);

/// The most time for which a process's election goes on after the rest of it has ended.
const LATE: Duration = Duration::from_millis(500);

impl Clock for FrozenClock {
    fn now(&self) -> Instant {
        TokioClock.now()
    }

    async fn sleep_until(&self, deadline: Instant) {
        TokioClock.sleep_until(deadline).await;
        if self.0.is_frozen() {
            self.0.goes_on().await;
            tokio::time::sleep(LATE.mul_f64(fastrand::f64())).await;
        }
    }
}

/// The way in which a process comes to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Election {
    /// It leads from the start, in this term, until the lease is taken from it.
    Given(i32),
    /// It takes part in an election. A process that is not fenced relies only on the election to decide whether it may
    /// write, and checks no clock.
    Real { fenced: bool },
}

/// A process.
pub(crate) struct Process {
    life: Life,
    present: Arc<RwLock<Arc<Controller>>>,
    parts: Parts,
    settings: Settings,
    leadership: Option<watch::Sender<Leadership>>,
    /// The sender releases the lease; the task takes part in the election.
    electing: Option<(watch::Sender<bool>, JoinHandle<()>)>,
    stopping: watch::Sender<bool>,
    leading: JoinHandle<Result<(), StartError>>,
    _watches: JoinSet<()>,
}

impl Process {
    /// Starts a process that does not retry reads, so that every failure counts. Its number distinguishes it from all others;
    /// `plans` is the feature gate `IngressPlanAnnotation`.
    pub(crate) fn start(
        cluster: &SimulatedCluster,
        aws: &SimulatedAws,
        number: usize,
        election: Election,
        audit: Duration,
        plans: bool,
    ) -> Self {
        Self::start_with(cluster, aws, number, election, (audit, plans), albatross_aws::testing::over)
    }

    /// Starts a process with these clients.
    pub(crate) fn start_with(
        cluster: &SimulatedCluster,
        aws: &SimulatedAws,
        number: usize,
        election: Election,
        (audit, plans): (Duration, bool),
        clients: fn(SharedHttpClient) -> AwsReader,
    ) -> Self {
        let identity = format!("process-{number}");
        let life = Life::new(&identity);
        let client = cluster.client(&life);
        let to_aws = Mortal { inner: aws.client(), life: life.clone(), cluster: Cluster(cluster.clone()) };
        let to_aws = SharedHttpClient::new(to_aws);
        let (stopping, stopped) = watch::channel(false);
        let vpc = VpcId::new("vpc-1");
        let settings = Settings {
            watch_namespace: String::new(),
            server_id_variable: EnvironmentVariable::default(),
            load_balancers_at_once: 3,
            bindings_at_once: 3,
            node_group_tags: Tags::new(),
            max_targets: 0,
            gate_pause: albatross::controller::reconcile::targets::GATE_PAUSE,
            silent_nodes: albatross_core::targets::endpoints::SilentNodes::InNeed,
            plan_annotation: plans,
            sync_period: audit,
            certificate_poll_interval: Duration::from_secs(300),
            holds: Holds { load_balancer: Duration::from_secs(20), ..Holds::DEFAULT },
            certificate_authorities: std::collections::BTreeSet::new(),
            secrets_label: None,
            lease_namespace: LEASE.0.to_owned(),
            lease: LEASE.1.to_owned(),
        };
        let (mut sender, mut electing, mut tenure) = (None, None, None);
        let leads = match election {
            Election::Given(term) => {
                let (leadership, leads) = watch::channel(Leadership::Leader { epoch: term });
                sender = Some(leadership);
                leads
            }
            Election::Real { fenced } => {
                let lease = KubernetesLease::new(kube::Api::namespaced(client.clone(), LEASE.0), LEASE.1);
                let candidate = Candidate::new(lease, FrozenClock(life.clone()), &identity, Timing::default());
                let leads = candidate.leadership();
                tenure = fenced.then(|| candidate.tenure());
                let (release, mut released) = watch::channel(false);
                let running = tokio::spawn(candidate.run(async move {
                    let _ = released.wait_for(|released| *released).await;
                }));
                electing = Some((release, running));
                leads
            }
        };
        let metrics = Arc::new(Metrics::new());
        let watched = Watched::new(&settings, &metrics);
        let parts = Parts {
            watched: watched.clone(),
            client: client.clone(),
            aws: Arc::new(clients(to_aws)),
            config: BuildConfig { manage_certificates: true, ..BuildConfig::new("demo", Value::Known(vpc.clone())) },
            vpc,
            metrics,
            leadership: leads,
            tenure,
            identity,
        };
        let present = Arc::new(RwLock::new(assemble(parts.clone(), &settings)));
        let watches = start_watches(&client, &settings.watch_namespace, &watched);
        let leading =
            tokio::spawn(leading(Arc::clone(&present), parts.clone(), settings.clone(), stopped, electing.is_some()));
        Self { life, present, parts, settings, leadership: sender, electing, stopping, leading, _watches: watches }
    }

    pub(crate) fn life(&self) -> &Life {
        &self.life
    }

    /// Returns the controller of its present term.
    pub(crate) fn controller(&self) -> Arc<Controller> {
        Arc::clone(&self.present.read().unwrap())
    }

    /// The term in which it leads.
    pub(crate) fn term(&self) -> Option<i32> {
        match *self.parts.leadership.borrow() {
            Leadership::Leader { epoch } => Some(epoch),
            Leadership::Standby => None,
        }
    }

    /// Returns true if it neither waits for anything nor works on anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.controller().is_idle()
    }

    /// Kills it. What is on its way to AWS or to the API server may arrive there; no answer comes back.
    pub(crate) fn kill(self) {
        self.life.end();
        self.leading.abort();
        if let Some((_, running)) = self.electing {
            running.abort();
        }
    }

    /// Takes the lease away from it, whatever it is doing, and gives it some time to do something that it may not do any
    /// more. One that does not lead yet waits for the lease; the others start again, as standbys.
    pub(crate) async fn lose_lease(&mut self) {
        let sender = self.leadership.as_ref().expect("a process whose lease is given");
        sender.send_replace(Leadership::Standby);
        let leads = self.controller().is_synced();
        match tokio::time::timeout(Duration::from_secs(5), &mut self.leading).await {
            Ok(ended) => {
                assert!(matches!(ended.unwrap(), Err(StartError::LeaseLost)));
                *self.present.write().unwrap() = assemble(self.parts.clone(), &self.settings);
                let (present, parts) = (Arc::clone(&self.present), self.parts.clone());
                let stopped = self.stopping.subscribe();
                self.leading = tokio::spawn(leading(present, parts, self.settings.clone(), stopped, false));
            }
            Err(_) => assert!(!leads, "it leads without the lease"),
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    /// Gives it the lease once more, for another term.
    pub(crate) fn lead_again(&self, term: i32) {
        let sender = self.leadership.as_ref().expect("a process whose lease is given");
        sender.send_replace(Leadership::Leader { epoch: term });
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) async fn stop(mut self) {
        self.stopping.send_replace(true);
        (&mut self.leading).await.unwrap().unwrap();
        if let Some((release, running)) = self.electing.take() {
            release.send_replace(true);
            running.await.unwrap();
        }
        self.life.end();
    }
}

/// Leads until asked to stop; `again` after each term that ends.
async fn leading(
    present: Arc<RwLock<Arc<Controller>>>,
    parts: Parts,
    settings: Settings,
    stopped: watch::Receiver<bool>,
    again: bool,
) -> Result<(), StartError> {
    loop {
        let controller = Arc::clone(&present.read().unwrap());
        match lead(controller, &settings, stopped.clone()).await {
            Err(StartError::LeaseLost) if again => {
                *present.write().unwrap() = assemble(parts.clone(), &settings);
            }
            ended => return ended,
        }
    }
}
