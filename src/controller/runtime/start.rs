//! Start and stop of the controller: from flags to running workers, with a clear message for each missing prerequisite.

mod assembly;
mod cluster;
mod error;
mod lead;
mod watches;

use std::{
    future::Future,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

pub use assembly::{Parts, Settings, Watched, assemble};
pub use error::StartError;
pub(crate) use error::aws_error;
pub use lead::lead;
pub use watches::start_watches;

use self::{cluster::connect_to_cluster, watches::KINDS};
use super::{
    admin::{self, Addresses, Sources},
    flags::ControllerFlags,
    lease::{Candidate, KubernetesLease, Leadership, Timing, TokioClock},
    location_discovery::LocationDiscovery,
    metrics::Metrics,
};
use crate::controller::{
    Controller,
    cluster::{watch_activity::WatchActivity, watches::Synced},
    reconcile::unserved::unserved,
    webhooks::{self, certificates::served::Served},
};
use albatross_aws::{AwsHttp, AwsReader, ConnectOptions, parse_endpoints, proxies::Proxies};
use albatross_core::model::VpcId;

/// The parts that are set up before the watches and the election start.
struct Prepared {
    settings: Settings,
    parts: Parts,
    candidate: Candidate<KubernetesLease, TokioClock>,
    /// Keeps the channel of leadership open in a process without leader election.
    always: watch::Sender<Leadership>,
    controller: Arc<Controller>,
    present: Arc<RwLock<Arc<Controller>>>,
    serves_webhooks: bool,
}

/// Runs the controller until `stop` is ready or a failure ends it. `stop` may be ready at any time, even while the
/// controller still waits for the cluster or for AWS.
///
/// # Errors
/// Returns an error if the controller cannot start, or must stop.
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
        // The candidate releases the lease, so that the next replica need not wait for it to expire.
        let _ = tokio::time::timeout(Duration::from_secs(5), election).await;
    }
    if serves_webhooks {
        // The API server learns only a moment later that this replica stops.
        tokio::time::sleep(webhooks::LINGER).await;
    }
    tracing::info!("albatross has stopped");
    result
}

/// Returns when the task has ended or panicked; without a task, never returns.
async fn ended(task: Option<&mut JoinHandle<()>>) {
    match task {
        Some(task) => {
            let _ = task.await;
        }
        None => std::future::pending().await,
    }
}

/// Returns when one of the tasks has ended or panicked; without tasks, never returns.
async fn one_ended(tasks: &mut JoinSet<()>) {
    if tasks.join_next().await.is_none() {
        std::future::pending().await
    }
}

/// Sets up all parts, from flags to the servers of metrics and webhooks.
async fn prepare(flags: &ControllerFlags) -> Result<Prepared, StartError> {
    let metrics = Arc::new(Metrics::of_lease(&flags.leader_election_id));
    for flag in flags.without_effect() {
        tracing::warn!("{flag} has no effect in albatross {}", env!("CARGO_PKG_VERSION"));
    }
    for (enabled, what) in [
        (flags.build.enable_wafv2, "web ACLs of load balancers stay as they are (--enable-wafv2=false)"),
        (flags.build.enable_shield, "protections of Shield Advanced stay as they are (--enable-shield=false)"),
    ] {
        if !enabled {
            tracing::info!("{what}");
        }
    }
    // Errors in flags are reported before any wait.
    flags.build_config(VpcId::new(""))?;
    let settings = Settings::of(flags)?;
    let fixed_limits = flags.fixed_limits()?;
    let endpoints = parse_endpoints(flags.aws_api_endpoints.as_deref().unwrap_or_default())?;
    let proxies = Arc::new(Proxies::of_environment()?);
    let http = AwsHttp::new(Arc::clone(&proxies))?;
    let activity = WatchActivity::default();
    let (client, version) = connect_to_cluster(flags.kubeconfig.as_deref(), &proxies, &activity, &metrics).await?;
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
    let watched = Watched { synced, ..Watched::new(&settings, &metrics) };
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
    let (connected, read) = ((&client, &version), (&aws, &vpc));
    let hooked = webhooks::serve(flags, connected, namespace, &watched, &parts.config, read, Arc::clone(&metrics));
    let certificate = hooked.await?;
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

/// Waits until a value is wanted, or its sender is dropped; holds no lock on the value afterwards.
async fn until<T>(receiver: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) {
    let _ = receiver.wait_for(wanted).await;
}

/// Returns the namespace in which the controller runs; outside a cluster, `kube-system`.
fn own_namespace() -> String {
    std::fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
        .map_or_else(|_| "kube-system".to_owned(), |namespace| namespace.trim().to_owned())
}

/// Returns a name that is unique to this process: the host name, which is the pod's name, the process id and the start
/// time.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "albatross".to_owned());
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{host}_{}-{:x}", std::process::id(), started.as_nanos())
}

#[cfg(test)]
mod tests;
