//! Plays scheduler and kubelet: a pod gets a node, an address on the node's network interface, and becomes Ready; a pod that
//! is being deleted goes. Both happen at once, unless the pod's annotations say that they take time. Nothing runs, unless
//! [`Kubelet::start_running`] is told so: then pods are servers at loopback addresses that are probed and ended as their
//! manifests say, and nodes forward NodePorts to them.

mod probes;
mod run;
mod spec;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::aws::Aws;
use super::cluster::Cluster;
use super::node_ports::NodePorts;
use super::world::World;
use run::{Progress, Runner};

pub use run::Runs;
pub use spec::ON_TERM;

/// The last number of the first address for a pod. Lower ones are left to manifests that name their pods' addresses.
const FIRST_HOST: u8 = 150;
/// The pause before a pod that runs is looked at again where something failed.
const AGAIN: Duration = Duration::from_secs(1);

/// The running task. Dropping it ends it; pods stay as they are, but what runs of them is killed.
pub struct Kubelet {
    task: JoinHandle<()>,
    _node_ports: Option<NodePorts>,
}

impl Kubelet {
    /// Watches all pods of the cluster. None of them runs.
    pub fn start(cluster: &Cluster, world: &World, aws: &Aws) -> Self {
        Self::start_with(cluster, world, aws, None)
    }

    /// Watches all pods of the cluster and runs them, and serves the NodePorts of Services.
    pub fn start_running(cluster: &Cluster, world: &World, aws: &Aws, runs: Runs) -> Self {
        Self::start_with(cluster, world, aws, Some(runs))
    }

    fn start_with(cluster: &Cluster, world: &World, aws: &Aws, runs: Option<Runs>) -> Self {
        let (later, due) = mpsc::unbounded_channel();
        let mut state = State {
            cluster: cluster.clone(),
            world: world.clone(),
            aws: aws.clone(),
            addresses: BTreeMap::new(),
            bound: BTreeMap::new(),
            last_hosts: BTreeMap::new(),
            since: BTreeMap::new(),
            runner: runs.map(|runs| Runner::new(runs, cluster.client.clone(), later.clone())),
            later,
        };
        Self {
            task: tokio::spawn(async move { state.run(due).await }),
            _node_ports: runs.map(|runs| NodePorts::start(cluster, runs.port_offset)),
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct State {
    cluster: Cluster,
    world: World,
    aws: Aws,
    /// Node and address of each pod that was given one, by the pod's UID.
    addresses: BTreeMap<String, (String, String)>,
    /// Node of each pod that runs and was put on one, by the pod's UID.
    bound: BTreeMap<String, String>,
    /// The last number of the address that each node gave last.
    last_hosts: BTreeMap<String, u8>,
    /// Since when a pod, by its UID, has been starting or ending.
    since: BTreeMap<(String, Course), Instant>,
    /// The channel for pods, by namespace and name, that are to be looked at again.
    later: mpsc::UnboundedSender<(String, String)>,
    /// The pods that run, if any do.
    runner: Option<Runner>,
}

/// A phase of a pod's life that takes time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Course {
    Start,
    End,
}

impl Course {
    fn annotation(self) -> &'static str {
        match self {
            Self::Start => READY_AFTER,
            Self::End => ENDS_AFTER,
        }
    }
}

impl State {
    async fn run(&mut self, mut due: mpsc::UnboundedReceiver<(String, String)>) {
        let pods: Api<Pod> = Api::all(self.cluster.client.clone());
        let events = watch(pods, watcher::Config::default()).default_backoff();
        pin_mut!(events);
        loop {
            let (result, again) = tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) => {
                        (self.tend(&pod).await, Some((pod.namespace().unwrap_or_default(), pod.name_any())))
                    }
                    Some(Ok(Event::Delete(pod))) => (self.release(&pod).await, None),
                    Some(Ok(Event::Init | Event::InitDone)) => (Ok(()), None),
                    Some(Err(error)) => (Err(error.into()), None),
                    None => return,
                },
                Some((namespace, name)) = due.recv() => {
                    (self.look_again(&namespace, &name).await, Some((namespace, name)))
                }
            };
            // A pod that changed or went meanwhile gives an error here and another event later. One that runs may have no
            // other event, so it is looked at again.
            if let Err(error) = result {
                tracing::debug!("kubelet: {error:#}");
                if let Some(pod) = again.filter(|_| self.runner.is_some()) {
                    self.look_again_after(AGAIN, pod);
                }
            }
        }
    }

    async fn look_again(&mut self, namespace: &str, name: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), namespace);
        match pods.get_opt(name).await? {
            Some(pod) => self.tend(&pod).await,
            None => Ok(()),
        }
    }

    /// Returns true if the pod has had the time that this phase takes. If not, it is looked at again when it has.
    fn is_through(&mut self, pod: &Pod, course: Course) -> bool {
        let text = pod.annotations().get(course.annotation());
        let time = Duration::from_millis(text.and_then(|text| text.parse().ok()).unwrap_or_default());
        if time.is_zero() {
            return true;
        }
        let key = (pod.uid().unwrap_or_default(), course);
        if let Some(since) = self.since.get(&key) {
            return since.elapsed() >= time;
        }
        self.since.insert(key, Instant::now());
        self.look_again_after(time, (pod.namespace().unwrap_or_default(), pod.name_any()));
        false
    }

    fn look_again_after(&self, time: Duration, pod: (String, String)) {
        let later = self.later.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            // The receiver is gone when the kubelet is gone.
            let _ = later.send(pod);
        });
    }

    async fn tend(&mut self, pod: &Pod) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &pod.namespace().unwrap_or_default());
        if pod.metadata.deletion_timestamp.is_some() {
            return self.end(&pods, pod).await;
        }
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
            return self.bind(&pods, pod).await;
        };
        let has_address = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
        let given = self.addresses.get(&pod.uid().unwrap_or_default()).map(|(_, address)| address.clone());
        let address = match given {
            Some(address) => address,
            // Its manifest gave it one, so its status is the manifest's business too.
            None if has_address => return Ok(()),
            None => self.assign(pod, &node).await?,
        };
        let started = self.is_through(pod, Course::Start);
        let host = self.host(&node).to_owned();
        let Some(runner) = &mut self.runner else {
            return write(&pods, pod, &running(pod, &address, started)).await;
        };
        let progress = if started {
            let failing = pod.annotations().get(FAILING).is_some_and(|failing| failing == "true");
            runner.run(pod, &address, &host, failing)
        } else {
            Progress::Waiting { reason: "ContainerCreating", message: String::new() }
        };
        tell(&pods, pod, &address, &host, &progress).await
    }

    fn host(&self, node: &str) -> &str {
        self.world.nodes.iter().find(|known| known.name == node).map_or("", |node| &node.address)
    }

    /// A pod that runs is gone when its processes are. Until then, it is as ready as its probes say.
    async fn end_running(&mut self, pods: &Api<Pod>, pod: &Pod) -> Result<()> {
        let progress = self.runner.as_mut().and_then(|runner| runner.end(pod));
        let given = self.addresses.get(&pod.uid().unwrap_or_default());
        let status = given.map(|(node, address)| (address.clone(), self.host(node).to_owned()));
        let ended = matches!(progress, None | Some(Progress::Ended | Progress::Completed { .. }));
        if let (Some(progress), Some((address, host))) = (progress, status) {
            // EndpointSlices are to say that it does not serve any more before it is gone.
            tell(pods, pod, &address, &host, &progress).await?;
        }
        if ended {
            pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
        }
        Ok(())
    }

    /// A pod that is being deleted is not ready any more, and is gone when it has ended.
    async fn end(&mut self, pods: &Api<Pod>, pod: &Pod) -> Result<()> {
        if self.runner.is_some() {
            return self.end_running(pods, pod).await;
        }
        if self.is_through(pod, Course::End) {
            pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
            return Ok(());
        }
        match self.addresses.get(&pod.uid().unwrap_or_default()) {
            Some((_, address)) => write(pods, pod, &running(pod, address, false)).await,
            None => Ok(()),
        }
    }

    /// Puts the pod on the node with the fewest pods. Pods that run are not put on nodes that are cordoned.
    async fn bind(&mut self, pods: &Api<Pod>, pod: &Pod) -> Result<()> {
        let (name, uid) = (&pod.name_any(), pod.uid().unwrap_or_default());
        let cordoned = self.cordoned().await?;
        // A pod that was just bound has no address yet.
        let without = self.bound.iter().filter(|(uid, _)| !self.addresses.contains_key(*uid)).map(|(_, node)| node);
        let all: Vec<&String> = self.addresses.values().map(|(node, _)| node).chain(without).collect();
        let count = |node: &str| all.iter().filter(|on| **on == node).count();
        let open = self.world.nodes.iter().filter(|node| !cordoned.contains(&node.name));
        let node = open.min_by_key(|node| count(&node.name)).context("no node")?;
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node.name},
        });
        let _: Value = pods.create_subresource("binding", name, &PostParams::default(), &binding).await?;
        if self.runner.is_some() {
            self.bound.insert(uid, node.name.clone());
        }
        Ok(())
    }

    /// Returns the nodes of the lab that take no new pod: they are cordoned, or no nodes of the cluster any more.
    async fn cordoned(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        if self.runner.is_some() {
            let nodes: Api<Node> = Api::all(self.cluster.client.clone());
            let nodes = nodes.list(&ListParams::default()).await?;
            let takes = |node: &Node| node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true));
            let open: BTreeSet<_> = nodes.iter().filter(|node| takes(node)).map(kube::ResourceExt::name_any).collect();
            names.extend(self.world.nodes.iter().map(|node| node.name.clone()).filter(|name| !open.contains(name)));
        }
        Ok(names)
    }

    async fn assign(&mut self, pod: &Pod, node: &str) -> Result<String> {
        let network = self.world.nodes.iter().find(|known| known.name == node).map(|node| node.network.clone());
        let network = network.context("a pod on a node that the lab does not have")?;
        let taken: BTreeSet<&String> = self.addresses.values().map(|(_, address)| address).collect();
        // One that has just been freed comes last, because the VPC's CNI does not reuse an address at once.
        let next = self.last_hosts.get(node).map_or(FIRST_HOST, |last| last.saturating_add(1));
        let mut hosts = (next..255).chain(FIRST_HOST..next);
        let free = hosts.find(|host| !taken.contains(&format!("{network}.{host}")));
        let host = free.with_context(|| format!("{node} has no address left"))?;
        self.last_hosts.insert(node.to_owned(), host);
        let address = format!("{network}.{host}");
        self.world.assign_address(&self.aws, node, &address).await?;
        self.addresses.insert(pod.uid().unwrap_or_default(), (node.to_owned(), address.clone()));
        Ok(address)
    }

    async fn release(&mut self, pod: &Pod) -> Result<()> {
        let uid = pod.uid().unwrap_or_default();
        self.since.retain(|(of, _), _| *of != uid);
        self.bound.remove(&uid);
        if let Some(runner) = &mut self.runner {
            runner.forget(&uid);
        }
        let Some((node, address)) = self.addresses.remove(&uid) else {
            return Ok(());
        };
        let node = self.world.nodes.iter().find(|known| known.name == node).context("no such node")?;
        let request = self.aws.ec2.unassign_private_ip_addresses().network_interface_id(&node.interface);
        request.private_ip_addresses(address).send().await?;
        Ok(())
    }
}

/// The annotation that, with the value `false`, makes a pod's containers not ready.
pub const READY: &str = "lab/ready";
/// The annotation with the milliseconds that a pod's containers take to be ready.
pub const READY_AFTER: &str = "lab/ready-after";
/// The annotation with the milliseconds that a pod takes to end when it is deleted. One that runs ends as it does.
pub const ENDS_AFTER: &str = "lab/ends-after";
/// The annotation that, with the value `true`, makes a pod that runs answer 503.
pub const FAILING: &str = "lab/failing";

/// Writes the status of a pod that runs.
async fn tell(pods: &Api<Pod>, pod: &Pod, address: &str, host: &str, progress: &Progress) -> Result<()> {
    // The API has times in seconds.
    let now = Timestamp::from_second(Timestamp::now().as_second())?;
    let status = status::status(pod, address, host, progress, now);
    if !status::is_written(pod, &status) {
        let patch = Patch::Strategic(json!({ "status": status }));
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

async fn write(pods: &Api<Pod>, pod: &Pod, status: &Value) -> Result<()> {
    if !is_written(pod, status) {
        let patch = Patch::Merge(json!({ "status": status }));
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

/// The status of a pod that runs; Ready as soon as its containers, which may be when they are `up`, and all its readiness
/// gates are.
fn running(pod: &Pod, address: &str, up: bool) -> Value {
    let old = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let is_true = |kind: &str| old.iter().any(|condition| condition.type_ == kind && condition.status == "True");
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let containers = up && pod.annotations().get(READY).is_none_or(|ready| ready != "false");
    let ready = containers && gates.map(|gate| gate.condition_type.as_str()).all(is_true);
    let own = ["Initialized", "ContainersReady", "PodScheduled", "Ready"];
    // A merge patch replaces the list, so the conditions of others are sent along.
    let others =
        old.iter().filter(|condition| !own.contains(&condition.type_.as_str())).map(|condition| json!(condition));
    let state = |kind: &str| {
        let holds = match kind {
            "Ready" => ready,
            "ContainersReady" => containers,
            _ => true,
        };
        if holds { "True" } else { "False" }
    };
    let conditions = own.iter().map(|kind| json!({"type": kind, "status": state(kind)}));
    json!({
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": conditions.chain(others).collect::<Vec<_>>(),
    })
}

/// Returns true if the pod already has this status.
fn is_written(pod: &Pod, status: &Value) -> bool {
    let Some(old) = &pod.status else {
        return false;
    };
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let has = |wanted: &Value| {
        let mut all = old.conditions.iter().flatten();
        all.any(|condition| wanted["type"] == condition.type_.as_str() && wanted["status"] == condition.status.as_str())
    };
    old.phase.as_deref() == Some("Running")
        && old.pod_ip.as_deref() == status["podIP"].as_str()
        && conditions.iter().all(has)
}
