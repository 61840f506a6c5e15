//! One process of the controller: put together and led as in production, with the cluster and the AWS of the simulation. It
//! can be killed at any moment, and nothing that it knew is left.

use std::{sync::Arc, time::Duration};

use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    runtime_components::RuntimeComponents,
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::{
    super::{
        Controller,
        lease::Leadership,
        metrics::Metrics,
        start::{Parts, Settings, StartError, Watched, assemble, lead, start_watches},
    },
    aws::SimulatedAws,
    cluster::{Life, SimulatedCluster},
};
use crate::{
    aws::Aws,
    build::BuildConfig,
    model::{Tags, Value, VpcId},
};

/// The way to AWS of a process: none once it is dead.
#[derive(Clone, Debug)]
struct Mortal<T> {
    inner: T,
    life: Life,
}

impl HttpClient for Mortal<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Mortal { inner, life: self.life.clone() })
    }
}

impl HttpConnector for Mortal<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { inner, life } = self.clone();
        HttpConnectorFuture::new(async move {
            if life.is_over() {
                return std::future::pending().await;
            }
            let answer = inner.call(request).await;
            if life.is_over() {
                return std::future::pending().await;
            }
            answer
        })
    }
}

/// A process.
pub(super) struct Process {
    life: Life,
    pub(super) controller: Arc<Controller>,
    parts: Parts,
    settings: Settings,
    leadership: watch::Sender<Leadership>,
    stopping: watch::Sender<bool>,
    leading: JoinHandle<Result<(), StartError>>,
    _watches: JoinSet<()>,
}

impl Process {
    /// Starts one, which leads from the start, in a term of its own. Its number tells it from all others.
    pub(super) fn start(cluster: &SimulatedCluster, aws: &SimulatedAws, number: usize, term: i32) -> Self {
        let life = Life::new();
        let client = cluster.client(&life);
        let to_aws = SharedHttpClient::new(Mortal { inner: aws.client(), life: life.clone() });
        let (leadership, leads) = watch::channel(Leadership::Leader { epoch: term });
        let (stopping, stopped) = watch::channel(false);
        let vpc = VpcId::new("vpc-1");
        let settings = Settings {
            watch_namespace: String::new(),
            load_balancers_at_once: 3,
            bindings_at_once: 3,
            node_group_tags: Tags::new(),
            most_targets: 0,
            gate_pause: crate::targets::GATE_PAUSE,
            // No audit: where all is as it shall be, AWS is asked for nothing.
            sync_period: Duration::from_secs(100 * 86_400),
            hold: Duration::ZERO,
            certificate_authorities: std::collections::BTreeSet::new(),
            lease_namespace: "kube-system".to_owned(),
            lease: "aws-load-balancer-controller-leader".to_owned(),
        };
        let watched = Watched::new(&settings);
        let parts = Parts {
            watched: watched.clone(),
            client: client.clone(),
            aws: Arc::new(Aws::over(to_aws)),
            config: BuildConfig::new("demo", Value::Known(vpc.clone())),
            vpc,
            metrics: Arc::new(Metrics::new()),
            leadership: leads,
            identity: format!("process-{number}"),
        };
        let controller = assemble(parts.clone(), &settings);
        let watches = start_watches(&client, &settings.watch_namespace, &watched);
        let leading = tokio::spawn(leading(Arc::clone(&controller), settings.clone(), stopped));
        Self { life, controller, parts, settings, leadership, stopping, leading, _watches: watches }
    }

    pub(super) fn life(&self) -> &Life {
        &self.life
    }

    /// Whether there is nothing that it waits for or works on.
    pub(super) fn is_idle(&self) -> bool {
        self.controller.synced.reasons().is_empty()
            && self.controller.queue.depth() == 0
            && self.controller.records.is_written()
    }

    /// Kills it. What is on its way to AWS or to the API server may arrive there; no answer comes back.
    pub(super) fn kill(self) {
        self.life.end();
        self.leading.abort();
    }

    /// Takes the lease away from it, whatever it is doing, and gives it some time to do something that it may not do any
    /// more. One that does not lead yet waits for the lease; the others begin anew, as standbys.
    pub(super) async fn lose_lease(&mut self) {
        self.leadership.send_replace(Leadership::Standby);
        let leads = self.controller.synced.reasons().is_empty();
        match tokio::time::timeout(Duration::from_secs(5), &mut self.leading).await {
            Ok(ended) => {
                assert!(matches!(ended.unwrap(), Err(StartError::LeaseLost)));
                self.controller = assemble(self.parts.clone(), &self.settings);
                let controller = Arc::clone(&self.controller);
                self.leading = tokio::spawn(leading(controller, self.settings.clone(), self.stopping.subscribe()));
            }
            Err(_) => assert!(!leads, "it leads without the lease"),
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    /// Gives it the lease once more, for another term.
    pub(super) fn lead_again(&self, term: i32) {
        self.leadership.send_replace(Leadership::Leader { epoch: term });
    }

    /// Asks it to stop, and waits for its end.
    pub(super) async fn stop(mut self) {
        self.stopping.send_replace(true);
        (&mut self.leading).await.unwrap().unwrap();
        self.life.end();
    }
}

async fn leading(
    controller: Arc<Controller>,
    settings: Settings,
    stopped: watch::Receiver<bool>,
) -> Result<(), StartError> {
    lead(controller, &settings, stopped).await
}
