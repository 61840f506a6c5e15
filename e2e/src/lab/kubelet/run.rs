//! Pods that really run: their processes are started, probed and ended as a kubelet does it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use albatross_fabric::pods;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::probes::{self, Place};
use super::spec::{self, End, Sources};

/// The pause before a pod that could not start is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The least time from SIGTERM to SIGKILL when a preStop has used up the grace.
const LEAST: Duration = Duration::from_secs(2);

/// The settings of pods that run.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    /// Added to all ports, where those below 1024 cannot be bound.
    pub port_offset: u16,
    /// The factor for delays and periods of probes.
    pub time_scale: f64,
}

/// The progress of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It cannot start, or not yet.
    Waiting {
        /// As a container's status names it.
        reason: &'static str,
        message: String,
    },
    /// It runs.
    Running(Vec<Container>),
    /// It has done its work, well or not.
    Completed { exit_code: i32 },
    /// Its processes are gone.
    Ended,
}

/// The progress of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) started: bool,
    pub(super) ready: bool,
}

/// All pods that run, by their UIDs.
pub(super) struct Runner {
    runs: Runs,
    client: Client,
    later: mpsc::UnboundedSender<(String, String)>,
    lives: BTreeMap<String, Life>,
}

/// A pod's task. Dropping it kills the pod.
struct Life {
    shared: Arc<Shared>,
    end: watch::Sender<Option<End>>,
    failing: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The state that a pod's task tells.
struct Shared {
    progress: Mutex<Progress>,
    /// The namespace and the name.
    name: (String, String),
    later: mpsc::UnboundedSender<(String, String)>,
}

impl Shared {
    fn set(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let before = progress.clone();
        change(&mut progress);
        if *progress != before {
            // The receiver is gone when the kubelet is gone.
            let _ = self.later.send(self.name.clone());
        }
    }

    fn container(&self, number: usize, change: impl FnOnce(&mut Container)) {
        self.set(|progress| {
            if let Progress::Running(containers) = progress
                && let Some(container) = containers.get_mut(number)
            {
                change(container);
            }
        });
    }
}

impl Runner {
    pub(super) fn new(runs: Runs, client: Client, later: mpsc::UnboundedSender<(String, String)>) -> Self {
        Self { runs, client, later, lives: BTreeMap::new() }
    }

    /// Starts a pod if it is not known yet, and returns how far it is.
    pub(super) fn run(&mut self, pod: &Pod, address: &str, host: &str, failing: bool) -> Progress {
        let uid = pod.uid().unwrap_or_default();
        let life = self.lives.entry(uid).or_insert_with(|| {
            let waiting = Progress::Waiting { reason: "ContainerCreating", message: String::new() };
            let shared = Arc::new(Shared {
                progress: Mutex::new(waiting),
                name: (pod.namespace().unwrap_or_default(), pod.name_any()),
                later: self.later.clone(),
            });
            let (end, failing) = (watch::Sender::new(None), watch::Sender::new(failing));
            let task = live(
                pod.clone(),
                (address.to_owned(), host.to_owned()),
                self.runs,
                self.client.clone(),
                shared.clone(),
                end.subscribe(),
                failing.subscribe(),
            );
            Life { shared, end, failing, task: tokio::spawn(task) }
        });
        life.failing.send_if_modified(|old| std::mem::replace(old, failing) != failing);
        life.shared.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends a pod, and returns how far it is; `None` if it does not run.
    pub(super) fn end(&mut self, pod: &Pod) -> Option<Progress> {
        let life = self.lives.get(&pod.uid().unwrap_or_default())?;
        // A shorter grace, as a second deletion may give, counts from the first one's beginning.
        life.end.send_if_modified(|old| {
            let end = spec::end(pod);
            let changed = old.is_none_or(|old| end.grace < old.grace);
            if changed {
                *old = Some(end);
            }
            changed
        });
        Some(life.shared.progress.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Kills a pod if it still runs.
    pub(super) fn forget(&mut self, uid: &str) {
        self.lives.remove(uid);
    }
}

/// The life of a pod, from its start to its end.
async fn live(
    pod: Pod,
    (address, host): (String, String),
    runs: Runs,
    client: Client,
    shared: Arc<Shared>,
    mut end: watch::Receiver<Option<End>>,
    mut failing: watch::Receiver<bool>,
) {
    if let Some(work) = spec::work(&pod) {
        let ready = Container { started: true, ready: true };
        shared.set(|progress| *progress = Progress::Running(vec![ready; spec::containers(&pod).len()]));
        let done = tokio::select! {
            () = tokio::time::sleep(work.time) => Progress::Completed { exit_code: work.exit_code },
            _ = ending(&mut end) => Progress::Ended,
        };
        return shared.set(|progress| *progress = done);
    }
    let process = tokio::select! {
        process = start(&pod, &address, &host, runs, &client, &shared) => process,
        _ = ending(&mut end) => return shared.set(|progress| *progress = Progress::Ended),
    };
    let containers = spec::containers(&pod);
    shared.set(|progress| *progress = Progress::Running(vec![Container::default(); containers.len()]));
    let place = Place { address: process.address(), port_offset: runs.port_offset, time_scale: runs.time_scale };
    let mut probes = JoinSet::new();
    for (number, container) in containers.iter().enumerate() {
        let startup = container.startup_probe.as_ref().map(|probe| probes::plan(container, probe));
        let readiness = container.readiness_probe.as_ref().map(|probe| probes::plan(container, probe));
        let (first, second) = (shared.clone(), shared.clone());
        let started = move || first.container(number, |container| container.started = true);
        let ready = move |ready| second.container(number, |container| container.ready = ready);
        probes.spawn(probes::run(place, startup, readiness, started, ready));
    }
    let first = loop {
        process.set_failing(*failing.borrow_and_update());
        tokio::select! {
            end = ending(&mut end) => break end,
            changed = failing.changed() => if changed.is_err() {
                return;
            },
        }
    };
    // The readiness probes go on until the processes are gone.
    if let Some(first) = first {
        terminate(&process, first, end).await;
    }
    drop(probes);
    shared.set(|progress| *progress = Progress::Ended);
}

/// Waits until a pod is to end, and returns how; `None` if nobody is left who could tell.
async fn ending(end: &mut watch::Receiver<Option<End>>) -> Option<End> {
    end.wait_for(Option::is_some).await.ok().and_then(|end| *end)
}

/// Waits for the preStop, then for the processes to end on SIGTERM, then kills them. A shorter grace may come meanwhile.
async fn terminate(process: &pods::Pod, first: End, mut end: watch::Receiver<Option<End>>) {
    let begin = Instant::now();
    let course = async {
        tokio::time::sleep(first.pre_stop.min(first.grace)).await;
        let left = first.grace.saturating_sub(begin.elapsed());
        process.terminate(first.on_term, if first.pre_stop.is_zero() { left } else { left.max(LEAST) }).await;
    };
    let shorter = async {
        loop {
            let grace = (*end.borrow_and_update()).map_or(first.grace, |end| end.grace);
            if grace < first.grace {
                tokio::time::sleep_until(begin + grace).await;
                return;
            }
            if end.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        () = course => {}
        () = shorter => {
            process.kill();
            process.ended().await;
        }
    }
}

/// Starts a pod as soon as all that it names is there.
async fn start(pod: &Pod, address: &str, host: &str, runs: Runs, client: &Client, shared: &Shared) -> pods::Pod {
    loop {
        let (reason, message) = match sources(pod, client).await {
            Err(error) => ("CreateContainerConfigError", error.to_string()),
            Ok(sources) => match spec::resolve(pod, address, host, &sources) {
                Err(message) => ("CreateContainerConfigError", message),
                Ok(spec) => match pods::Pod::start(&spec, runs.port_offset) {
                    Ok(process) => return process,
                    Err(error) => ("CrashLoopBackOff", error.to_string()),
                },
            },
        };
        tracing::debug!("{}/{}: {message}", shared.name.0, shared.name.1);
        shared.set(|progress| *progress = Progress::Waiting { reason, message });
        tokio::time::sleep(AGAIN).await;
    }
}

async fn sources(pod: &Pod, client: &Client) -> Result<Sources, kube::Error> {
    if !spec::needs_sources(pod) {
        return Ok(Sources::default());
    }
    let namespace = pod.namespace().unwrap_or_default();
    let parameters = ListParams::default();
    let config_maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace).list(&parameters).await?;
    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace).list(&parameters).await?;
    Ok(Sources::new(config_maps.items, secrets.items))
}
