//! Plays scheduler and kubelet: a pod gets a node, an address on the node's network interface, and becomes Ready; a pod that
//! is being deleted goes. Both happen at once, unless the pod's annotations say that they take time. Nothing runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::aws::Aws;
use super::cluster::Cluster;
use super::world::World;

/// The last number of the first address for a pod. Lower ones are left to manifests that name their pods' addresses.
const FIRST_HOST: u8 = 150;

/// The running task. Dropping it ends it; pods stay as they are.
pub struct Kubelet {
    task: JoinHandle<()>,
}

impl Kubelet {
    /// Watches all pods of the cluster.
    pub fn start(cluster: &Cluster, world: &World, aws: &Aws) -> Self {
        let (later, due) = mpsc::unbounded_channel();
        let mut state = State {
            cluster: cluster.clone(),
            world: world.clone(),
            aws: aws.clone(),
            addresses: BTreeMap::new(),
            last_hosts: BTreeMap::new(),
            since: BTreeMap::new(),
            later,
        };
        Self { task: tokio::spawn(async move { state.run(due).await }) }
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
    /// The last number of the address that each node gave last.
    last_hosts: BTreeMap<String, u8>,
    /// Since when a pod, by its UID, has been starting or ending.
    since: BTreeMap<(String, Course), Instant>,
    /// The channel for pods, by namespace and name, that are to be looked at again.
    later: mpsc::UnboundedSender<(String, String)>,
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
            let result = tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) => self.tend(&pod).await,
                    Some(Ok(Event::Delete(pod))) => self.release(&pod).await,
                    Some(Ok(Event::Init | Event::InitDone)) => Ok(()),
                    Some(Err(error)) => Err(error.into()),
                    None => return,
                },
                Some((namespace, name)) = due.recv() => self.look_again(&namespace, &name).await,
            };
            // A pod that changed or went meanwhile gives an error here and another event later.
            if let Err(error) = result {
                tracing::debug!("kubelet: {error:#}");
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
        let (later, pod) = (self.later.clone(), (pod.namespace().unwrap_or_default(), pod.name_any()));
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            // The receiver is gone when the kubelet is gone.
            let _ = later.send(pod);
        });
        false
    }

    async fn tend(&mut self, pod: &Pod) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        if pod.metadata.deletion_timestamp.is_some() {
            return self.end(&pods, pod).await;
        }
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
            return self.bind(&pods, &name).await;
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
        write(&pods, pod, &running(pod, &address, started)).await
    }

    /// A pod that is being deleted is not ready any more, and is gone when it has ended.
    async fn end(&mut self, pods: &Api<Pod>, pod: &Pod) -> Result<()> {
        if self.is_through(pod, Course::End) {
            pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
            return Ok(());
        }
        match self.addresses.get(&pod.uid().unwrap_or_default()) {
            Some((_, address)) => write(pods, pod, &running(pod, address, false)).await,
            None => Ok(()),
        }
    }

    /// Puts the pod on the node with the fewest pods.
    async fn bind(&self, pods: &Api<Pod>, name: &str) -> Result<()> {
        let count = |node: &str| self.addresses.values().filter(|(on, _)| on == node).count();
        let node = self.world.nodes.iter().min_by_key(|node| count(&node.name)).context("no node")?;
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node.name},
        });
        let _: Value = pods.create_subresource("binding", name, &PostParams::default(), &binding).await?;
        Ok(())
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
/// The annotation with the milliseconds that a pod takes to end when it is deleted.
pub const ENDS_AFTER: &str = "lab/ends-after";

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
