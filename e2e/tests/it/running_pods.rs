//! Pods that run: what answers, when they are ready, how they end, and how NodePorts follow them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use albatross_fabric::address;
use anyhow::{Context as _, Result, ensure};
use e2e::lab::cluster::{condition_is_true, items, text};
use e2e::lab::kubelet::{FAILING, Kubelet, Runs};
use e2e::lab::wait_until;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{SOON, Stage, run};

const NAMESPACE: &str = "running";
pub(crate) const OFFSET: u16 = 5000;
const NODE_PORT: u16 = 31234;

pub(crate) fn loopback(vpc: &str, port: u16) -> Result<SocketAddr> {
    let address: IpAddr = vpc.parse()?;
    Ok((address::of_vpc(address).context("not in the VPC")?, port + OFFSET).into())
}

/// Makes a request; returns the status line, the header `x-pod`, and the body.
pub(crate) async fn get(to: SocketAddr) -> Result<(String, String, String)> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: lab\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer of HTTP")?;
    let pod = head.lines().find_map(|line| line.strip_prefix("x-pod: ")).unwrap_or_default();
    Ok((head.lines().next().unwrap_or_default().to_owned(), pod.to_owned(), body.to_owned()))
}

/// A Deployment of two pods that are probed each second, with a Secret that is not there yet.
fn deployment() -> Value {
    let container = json!({
        "name": "app",
        "image": "example.com/colorteller:v1",
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [
            {"name": "SERVER_PORT", "value": "8080"},
            {"name": "COLOR", "valueFrom": {"secretKeyRef": {"name": "color", "key": "color"}}},
        ],
        "startupProbe": {"httpGet": {"port": "http"}, "periodSeconds": 1},
        "readinessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 1},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "3"]}}},
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
        },
    })
}

fn others() -> Vec<Value> {
    let template = |name: &str, extra: Value| {
        let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "busybox"}]});
        spec.as_object_mut().expect("an object").extend(extra.as_object().cloned().unwrap_or_default());
        json!({"metadata": {"labels": {"app": name}}, "spec": spec})
    };
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http", "nodePort": NODE_PORT}]},
    });
    let job = |name: &str, command: &[&str]| {
        let mut template = template(name, json!({"restartPolicy": "Never"}));
        template["spec"]["containers"][0]["command"] = json!(command);
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"backoffLimit": 0, "template": template},
        })
    };
    let set = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "set", "namespace": NAMESPACE},
        "spec": {"replicas": 2, "serviceName": "set", "selector": {"matchLabels": {"app": "set"}}, "template": template("set", json!({}))},
    });
    let jobs =
        [job("once", &["true"]), job("failing", &["sh", "-c", "sleep 0.1; exit 3"]), job("long", &["sleep", "3600"])];
    [service, set].into_iter().chain(jobs).collect()
}

async fn pods(stage: &Stage, app: &str) -> Result<Vec<Value>> {
    let pods = stage.cluster.list("v1", "Pod", Some(NAMESPACE)).await?;
    Ok(pods.into_iter().filter(|pod| text(pod, "/metadata/labels/app") == app).collect())
}

async fn pod(stage: &Stage, name: &str) -> Result<Value> {
    stage.cluster.get("v1", "Pod", Some(NAMESPACE), name).await?.context("no such pod")
}

/// The conditions of the endpoint with an address: ready, serving, terminating.
async fn endpoint(stage: &Stage, address: &str) -> Result<Option<[bool; 3]>> {
    let slices = stage.cluster.list("discovery.k8s.io/v1", "EndpointSlice", Some(NAMESPACE)).await?;
    let mut endpoints = slices.iter().flat_map(|slice| items(slice, "/endpoints"));
    let found = endpoints.find(|endpoint| text(endpoint, "/addresses/0") == address);
    let is = |endpoint: &Value, name: &str| endpoint["conditions"][name] == true;
    Ok(found.map(|it| ["ready", "serving", "terminating"].map(|name| is(it, name))))
}

#[test]
fn pods_that_run_answer_are_probed_and_end_as_their_manifests_say() {
    run(async {
        let stage = Stage::fresh().await?;
        let runs = Runs { port_offset: OFFSET, time_scale: 1.0 };
        let kubelet = Kubelet::start_running(&stage.cluster, &stage.world, &stage.aws, runs);
        stage.cluster.namespace(NAMESPACE).await?;
        stage.cluster.apply(&[deployment()]).await?;
        stage.cluster.apply(&others()).await?;
        wait_until(SOON, "the pods to lack their Secret", async || {
            let pods = pods(&stage, "web").await?;
            let waits = |pod: &Value| text(pod, "/status/containerStatuses/0/state/waiting/message").to_owned();
            Ok(pods.len() == 2 && pods.iter().all(|pod| waits(pod) == "secret \"color\" not found"))
        })
        .await?;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "color", "namespace": NAMESPACE}, "stringData": {"color": "blue"}});
        stage.cluster.apply(&[secret]).await?;
        wait_until(SOON, "two Ready pods", async || {
            Ok(pods(&stage, "web").await?.iter().filter(|pod| condition_is_true(pod, "Ready")).count() == 2)
        })
        .await?;
        let web = pods(&stage, "web").await?;
        let name = |pod: &Value| text(pod, "/metadata/name").to_owned();
        for pod in &web {
            let expected = ("HTTP/1.1 200 OK".to_owned(), name(pod), "blue".to_owned());
            ensure!(get(loopback(text(pod, "/status/podIP"), 8080)?).await? == expected, "{} answers else", name(pod));
        }
        let on: BTreeSet<&str> = web.iter().map(|pod| text(pod, "/spec/nodeName")).collect();
        ensure!(on.len() == 2, "both pods are on {on:?}");
        let names: BTreeSet<String> = web.iter().map(name).collect();
        for node in &stage.world.nodes {
            let at = loopback(&node.address, NODE_PORT)?;
            let mut found = BTreeSet::new();
            wait_until(SOON, "both pods to answer on each node", async || {
                found.insert(get(at).await?.1);
                Ok(found == names)
            })
            .await?;
        }

        let first = web.first().context("no pod")?;
        let (first, ip) = (name(first), text(first, "/status/podIP").to_owned());
        let annotate = async |failing: &str| {
            let patch = json!({"metadata": {"annotations": {FAILING: failing}}});
            stage.cluster.merge("v1", "Pod", Some(NAMESPACE), &first, &patch).await
        };
        annotate("true").await?;
        wait_until(SOON, "the failing pod not to be ready", async || {
            let ready = condition_is_true(&pod(&stage, &first).await?, "Ready");
            Ok(!ready && endpoint(&stage, &ip).await? == Some([false, false, false]))
        })
        .await?;
        annotate("false").await?;
        wait_until(SOON, "the pod to be ready again", async || {
            Ok(endpoint(&stage, &ip).await? == Some([true, true, false]))
        })
        .await?;

        stage.cluster.delete("v1", "Pod", Some(NAMESPACE), &first).await?;
        wait_until(SOON, "the pod to end, while it serves", async || {
            Ok(endpoint(&stage, &ip).await? == Some([false, true, true]))
        })
        .await?;
        ensure!(get(loopback(&ip, 8080)?).await?.1 == first, "it does not answer during its preStop");
        wait_until(SOON, "the pod to be gone", async || {
            Ok(stage.cluster.get("v1", "Pod", Some(NAMESPACE), &first).await?.is_none())
        })
        .await?;
        ensure!(TcpStream::connect(loopback(&ip, 8080)?).await.is_err(), "it still accepts");

        wait_until(SOON, "the Jobs and the StatefulSet", async || {
            let job = async |name| {
                let job = stage.cluster.get("batch/v1", "Job", Some(NAMESPACE), name).await?.context("no Job")?;
                anyhow::Ok(job["status"].clone())
            };
            let (once, failing, long) = (job("once").await?, job("failing").await?, job("long").await?);
            let set = stage.cluster.get("apps/v1", "StatefulSet", Some(NAMESPACE), "set").await?.context("no set")?;
            let jobs = once["succeeded"] == 1 && failing["failed"] == 1 && long["ready"] == 1;
            Ok(jobs && set["status"]["readyReplicas"] == 2)
        })
        .await?;

        let cordon = json!({"spec": {"unschedulable": true}});
        let open = stage.world.nodes.last().context("no node")?.name.clone();
        for node in stage.world.nodes.iter().filter(|node| node.name != open) {
            stage.cluster.merge("v1", "Node", None, &node.name, &cordon).await?;
        }
        let scale = json!({"spec": {"replicas": 5}});
        stage.cluster.merge("apps/v1", "Deployment", Some(NAMESPACE), "web", &scale).await?;
        wait_until(SOON, "new pods on the node that is open", async || {
            let pods = pods(&stage, "web").await?;
            let new = pods.iter().filter(|pod| text(pod, "/spec/nodeName") == open);
            Ok(pods.len() == 5 && new.count() >= 3)
        })
        .await?;

        let at = loopback(&stage.world.nodes.first().context("no node")?.address, NODE_PORT)?;
        drop(kubelet);
        wait_until(Duration::from_secs(5), "all to be closed", async || Ok(TcpStream::connect(at).await.is_err()))
            .await?;
        stage.end_lab();
        Ok(())
    });
}
