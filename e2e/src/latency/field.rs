//! Many TargetGroupBindings, each with a target group, a Service, an EndpointSlice and pods.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, ProtocolEnum, TargetGroupTuple, TargetTypeEnum,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::lab::Lab;
use crate::lab::cluster::items;
use crate::lab::controller::Controller;
use crate::lab::wait_until;

/// The namespace of everything.
pub(super) const NAMESPACE: &str = "latency";
/// The annotation in which the controller keeps what it knows of a binding's targets.
const CHECKPOINT: &str = albatross_core::record::CHECKPOINT;
/// The requests to the API server that are made at a time.
const AT_ONCE: usize = 16;
/// The time within which all bindings are as desired, without a quota.
pub(super) const SETTLED_WITHIN: Duration = Duration::from_secs(900);
/// The time within which the controller is ready.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A pod behind a binding, as its EndpointSlice shows it.
#[derive(Clone, Debug)]
struct Endpoint {
    pod: String,
    address: String,
    ready: bool,
    terminating: bool,
}

/// A binding.
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) arn: String,
    number: usize,
    endpoints: Mutex<Vec<Endpoint>>,
}

impl Binding {
    /// The condition of the readiness gates for it.
    pub(super) fn gate(&self) -> String {
        format!("target-health.elbv2.k8s.aws/{}", self.name)
    }

    fn slice(&self, endpoints: &[Endpoint]) -> Value {
        let endpoint = |endpoint: &Endpoint| {
            json!({
                "addresses": [endpoint.address], "nodeName": "node-0",
                "conditions": {
                    "ready": endpoint.ready, "serving": endpoint.ready || endpoint.terminating,
                    "terminating": endpoint.terminating,
                },
                "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": endpoint.pod},
            })
        };
        json!({"endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>()})
    }
}

/// The lab with its bindings and the controller.
pub(super) struct Field {
    // Dropped first: it talks to the lab.
    controller: Mutex<Option<Controller>>,
    pub(super) lab: Lab,
    pub(super) bindings: Vec<Arc<Binding>>,
}

/// Runs `work` for each binding, some at a time.
pub(super) async fn each<F: Future<Output = Result<()>>>(
    bindings: &[Arc<Binding>],
    work: impl Fn(Arc<Binding>) -> F,
) -> Result<()> {
    stream::iter(bindings.iter().cloned().map(work)).buffer_unordered(AT_ONCE).try_collect().await
}

impl Field {
    /// Creates everything, and waits until the controller has registered the pods.
    pub(super) async fn start(lab: Lab, bindings: usize, pods: usize) -> Result<Self> {
        lab.cluster.namespace(NAMESPACE).await?;
        tracing::info!("making {bindings} target groups behind a load balancer");
        let mut all = Vec::with_capacity(bindings);
        for number in 0..bindings {
            all.push(Arc::new(target_group(&lab, number).await?));
        }
        balance(&lab, &all).await?;
        let field = Self { controller: Mutex::new(None), lab, bindings: all };
        tracing::info!("making {bindings} bindings of {pods} pods each");
        let objects = &field;
        each(&field.bindings, |binding| async move { make_objects(objects, &binding, pods).await }).await?;
        field.start_controller().await?;
        field.settle().await?;
        Ok(field)
    }

    pub(super) async fn start_controller(&self) -> Result<()> {
        let mut controller = self.lab.controller(&["--log-level=warn"])?;
        controller.ready(READY_WITHIN).await?;
        *self.controller.lock().await = Some(controller);
        Ok(())
    }

    pub(super) async fn stop_controller(&self) -> Result<()> {
        let controller = self.controller.lock().await.take();
        controller.context("no controller runs")?.stop().await
    }

    /// Returns the number of keys that wait in the controller's queue. A controller that does not say has none.
    pub(super) async fn queued(&self) -> usize {
        let controller = self.controller.lock().await;
        let Some(controller) = controller.as_ref() else { return 0 };
        let state = controller.state().await.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
        state.map_or(0, |state| items(&state, "/queue/waiting").len())
    }

    /// Waits until nothing is left to do.
    pub(super) async fn settle(&self) -> Result<()> {
        let mut controller = self.controller.lock().await;
        controller.as_mut().context("no controller runs")?.idle(SETTLED_WITHIN).await
    }

    /// Creates another pod of a binding. One that waits at a readiness gate is not ready until AWS finds it healthy.
    /// Returns its name and its address.
    pub(super) async fn add_pod(&self, binding: &Binding, gate: Option<&str>) -> Result<(String, String)> {
        let mut endpoints = binding.endpoints.lock().await;
        let number = endpoints.len();
        ensure!(number < 16, "{} has no address left", binding.name);
        let pod = format!("{}-{number}", binding.name);
        // Sixteen blocks of the VPC, which has 10.0.0.0/16; the first ones are the nodes' subnets.
        let address = format!("10.0.{}.{}", 128 + number * 8 + binding.number / 250, 1 + binding.number % 250);
        let gates: Vec<Value> = gate.iter().map(|gate| json!({"conditionType": gate})).collect();
        let labels = json!({"gate": gate.map_or("no", |_| "yes")});
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod, "namespace": NAMESPACE, "labels": labels},
            "spec": {
                "nodeName": "node-0", "readinessGates": gates,
                "containers": [{"name": "app", "image": "app", "ports": [{"containerPort": 8080}]}],
            },
            "status": {
                "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [
                    {"type": "ContainersReady", "status": "True"},
                    {"type": "Ready", "status": if gate.is_some() { "False" } else { "True" }},
                ],
            },
        });
        self.lab.cluster.apply(&[object]).await?;
        let (ready, terminating) = (gate.is_none(), false);
        endpoints.push(Endpoint { pod: pod.clone(), address: address.clone(), ready, terminating });
        self.write_slice(binding, &endpoints).await?;
        Ok((pod, address))
    }

    async fn write_slice(&self, binding: &Binding, endpoints: &[Endpoint]) -> Result<()> {
        let slice = binding.slice(endpoints);
        self.lab.cluster.merge("discovery.k8s.io/v1", "EndpointSlice", Some(NAMESPACE), &binding.name, &slice).await
    }

    /// Ends the first pod of a binding that does not end yet: the pod is deleted, and as no kubelet runs, it stays
    /// terminating; then its EndpointSlice shows that. Returns its address, and the time of the deletion by the proxy's
    /// clock.
    pub(super) async fn end_pod(&self, binding: &Binding) -> Result<(String, Duration)> {
        let mut endpoints = binding.endpoints.lock().await;
        let endpoint = endpoints.iter_mut().find(|endpoint| !endpoint.terminating).context("no pod is left")?;
        (endpoint.ready, endpoint.terminating) = (false, true);
        let (pod, address) = (endpoint.pod.clone(), endpoint.address.clone());
        self.lab.cluster.delete("v1", "Pod", Some(NAMESPACE), &pod).await?;
        let at = self.lab.proxy.elapsed();
        self.write_slice(binding, &endpoints).await?;
        Ok((address, at))
    }

    /// Changes the Service of a binding, and nothing about its targets.
    pub(super) async fn edit(&self, binding: &Binding, round: usize) -> Result<()> {
        let port = |name: &str, port: usize| json!({"name": name, "port": port, "targetPort": 8080});
        let ports = json!({"spec": {"ports": [port("web", 80), port("other", 1000 + round % 1000)]}});
        self.lab.cluster.merge("v1", "Service", Some(NAMESPACE), &binding.name, &ports).await
    }

    /// Removes the controller's knowledge of a binding's targets.
    pub(super) async fn forget(&self, binding: &Binding) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {CHECKPOINT: null}}});
        let (version, kind) = ("elbv2.k8s.aws/v1beta1", "TargetGroupBinding");
        self.lab.cluster.merge(version, kind, Some(NAMESPACE), &binding.name, &patch).await
    }
}

/// Creates the target group of a binding.
async fn target_group(lab: &Lab, number: usize) -> Result<Binding> {
    let name = format!("b-{number}");
    let request = lab.aws.elb.create_target_group().name(&name).protocol(ProtocolEnum::Http).port(80);
    let made = request.vpc_id(&lab.world.vpc).target_type(TargetTypeEnum::Ip).send().await?;
    let arn = made.target_groups().first().and_then(|group| group.target_group_arn()).context("no ARN")?.to_owned();
    Ok(Binding { name, arn, number, endpoints: Mutex::default() })
}

/// Makes a load balancer lead to all target groups, so that AWS checks the health of their targets.
async fn balance(lab: &Lab, bindings: &[Arc<Binding>]) -> Result<()> {
    let subnet = |name: &str| lab.world.subnets.get(name).context("a zone without a subnet");
    let request = lab.aws.elb.create_load_balancer().name("latency");
    let made = request.subnets(subnet("public-a")?).subnets(subnet("public-b")?).send().await?;
    let arn = made.load_balancers().first().and_then(|balancer| balancer.load_balancer_arn()).context("no ARN")?;
    let tuple = |binding: &Arc<Binding>| TargetGroupTuple::builder().target_group_arn(&binding.arn).weight(1).build();
    let forward = ForwardActionConfig::builder().set_target_groups(Some(bindings.iter().map(tuple).collect())).build();
    let action = Action::builder().r#type(ActionTypeEnum::Forward).forward_config(forward).build();
    let request = lab.aws.elb.create_listener().load_balancer_arn(arn).protocol(ProtocolEnum::Http).port(80);
    request.default_actions(action).send().await?;
    Ok(())
}

/// Creates the objects of a binding.
async fn make_objects(field: &Field, binding: &Binding, pods: usize) -> Result<()> {
    let metadata = json!({
        "name": binding.name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": binding.name},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"ports": [{"name": "web", "port": 80, "targetPort": 8080}]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4", "endpoints": [], "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
    });
    field.lab.cluster.apply(&[service, slice]).await?;
    for _ in 0..pods {
        field.add_pod(binding, None).await?;
    }
    let object = json!({
        "apiVersion": "elbv2.k8s.aws/v1beta1", "kind": "TargetGroupBinding", "metadata": metadata,
        "spec": {
            "targetGroupARN": binding.arn, "targetType": "ip", "ipAddressType": "ipv4",
            "serviceRef": {"name": binding.name, "port": 80},
        },
    });
    field.lab.cluster.apply(&[object]).await
}

/// Waits until the controller's queue has many keys.
pub(super) async fn until_queued(field: &Field, least: usize) -> Result<()> {
    wait_until(Duration::from_secs(60), &format!("{least} keys to be queued"), async || {
        Ok(field.queued().await >= least)
    })
    .await
}
