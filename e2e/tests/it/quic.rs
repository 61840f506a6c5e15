//! QUIC of Network Load Balancers: the server ids that the chart's webhook gives to pods, and that their targets have.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::cluster::{items, text};
use e2e::lab::{wait_until, webhooks};
use e2e::symbolic::Snapshot;
use serde_json::{Value, json};

use crate::support::{QUIET, SOON, Stage, apply, deployment, gone, leave, run, warnings_are, warnings_become};

const CONTAINERS: &str = "service.beta.kubernetes.io/aws-load-balancer-quic-enabled-containers";
const QUIC_PORTS: &str = "service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports";
const VARIABLE: &str = "AWS_LBC_QUIC_SERVER_ID";

/// A Service with a load balancer of UDP or QUIC in no security group.
fn service(quic: bool) -> Value {
    let mut annotations = json!({
        "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": "ip",
        "service.beta.kubernetes.io/aws-load-balancer-disable-nlb-sg": "true",
    });
    if quic {
        annotations[QUIC_PORTS] = json!("h3");
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "annotations": annotations},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "service.k8s.aws/nlb", "selector": {"app": "web"},
            "ports": [{"name": "h3", "port": 443, "targetPort": 8080, "protocol": "UDP"}],
        },
    })
}

/// A Deployment whose pods ask for server ids, or do not.
fn pods(ask: bool) -> Value {
    let mut deployment = deployment("web", 2);
    if ask {
        deployment["spec"]["template"]["metadata"]["annotations"] = json!({CONTAINERS: " app"});
    }
    deployment
}

/// Returns the server id of each pod of the Deployment that does not end, by address.
async fn server_ids(stage: &Stage, namespace: &str) -> Result<Vec<(String, Option<String>)>> {
    let pods = stage.cluster.list("v1", "Pod", Some(namespace)).await?;
    let living = pods.iter().filter(|pod| text(pod, "/metadata/deletionTimestamp").is_empty());
    let id = |pod: &Value| {
        let variables = items(pod, "/spec/containers/0/env");
        let own = variables.iter().find(|variable| text(variable, "/name") == VARIABLE);
        own.map(|variable| text(variable, "/value").to_owned())
    };
    Ok(living.map(|pod| (text(pod, "/status/podIP").to_owned(), id(pod))).collect())
}

/// Returns a value of an environment variable in AWS's form.
fn of_aws(value: &str) -> Result<String> {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(value.into())?;
    ensure!(bytes.0.len() == 8, "it has {} bytes", bytes.0.len());
    Ok(bytes.0.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

/// Waits until the load balancer has one listener and one target group of a protocol, with these targets.
async fn serves(stage: &Stage, namespace: &str, protocol: &str, expected: &BTreeSet<String>) -> Result<()> {
    wait_until(SOON, &format!("a listener of {protocol} with the targets {expected:?}"), async || {
        let mut stacks = Snapshot::take(stage).await?.stacks;
        let stack = stacks.remove(&format!("service:{namespace}/web")).context("no stack")?;
        let parts = |field: &str| stack[field].as_object().into_iter().flat_map(|all| all.values().cloned()).collect();
        let (balancers, groups): (Vec<Value>, Vec<Value>) = (parts("loadBalancers"), parts("targetGroups"));
        let [balancer] = balancers.as_slice() else { anyhow::bail!("{} load balancers", balancers.len()) };
        let [group] = groups.as_slice() else { anyhow::bail!("{} target groups", groups.len()) };
        ensure!(text(balancer, "/listeners/443/protocol") == protocol, "{}", balancer["listeners"]);
        ensure!(text(group, "/Protocol") == protocol, "{group}");
        let found = items(group, "/targets").iter().filter_map(Value::as_str).map(str::to_owned);
        let found: BTreeSet<String> = found.collect();
        ensure!(found == *expected, "the targets are {found:?}");
        Ok(true)
    })
    .await
}

/// Waits for two pods that all have a server id, or have none, and returns the targets that they are to be.
async fn targets(stage: &Stage, namespace: &str, identified: bool) -> Result<BTreeSet<String>> {
    let mut targets = BTreeSet::new();
    wait_until(SOON, "two pods", async || {
        let pods = server_ids(stage, namespace).await?;
        let is_new = |(address, id): &(String, Option<String>)| !address.is_empty() && id.is_some() == identified;
        ensure!(pods.len() == 2 && pods.iter().all(is_new), "they are {pods:?}");
        targets.clear();
        for (address, id) in pods {
            let id = id.map(|id| of_aws(&id)).transpose()?.map(|id| format!(" as {id}")).unwrap_or_default();
            targets.insert(format!("{address}:8080{id}"));
        }
        ensure!(targets.len() == 2, "they are {targets:?}");
        Ok(true)
    })
    .await?;
    Ok(targets)
}

fn without_ids(targets: &BTreeSet<String>) -> BTreeSet<String> {
    let address = |target: &String| target.split(" as ").next().unwrap_or_default().to_owned();
    targets.iter().map(address).collect()
}

/// Deletes the Service, and leaves the lab to the next test.
async fn without_service(stage: Stage, namespace: &str) -> Result<()> {
    stage.cluster.delete("v1", "Service", Some(namespace), "web").await?;
    gone(&stage, "v1", "Service", Some(namespace), "web").await?;
    leave(stage, namespace).await
}

#[test]
fn pods_get_server_ids_and_are_registered_with_them() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "quic";
        let labels = json!({"elbv2.k8s.aws/quic-server-id-inject": "enabled"});
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}});
        stage.cluster.apply(&[object]).await?;
        let flags = webhooks::install(&stage).await?;
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        stage.start_controller(&flags).await?;
        // Until the API server trusts the certificate, no pod is created here: the webhook does not fail open.
        apply(&stage, namespace, &[pods(true), service(true)]).await?;
        let identified = targets(&stage, namespace, true).await?;
        serves(&stage, namespace, "QUIC", &identified).await?;
        let tracker =
            stage.cluster.get("v1", "ConfigMap", Some("kube-system"), "quic-server-id-worker-tracker").await?;
        let next: u32 = text(&tracker.context("no tracker")?, "/data/nextWorkerId").parse()?;
        ensure!(next < 131_071, "the next process has the number {next}");
        warnings_are(&stage, namespace, &[]).await?;
        // A restart writes nothing.
        stage.settle(QUIET, SOON).await?;
        stage.stop_controller().await?;
        stage.proxy.reset();
        stage.start_controller(&flags).await?;
        stage.settle(QUIET, SOON).await?;
        ensure!(stage.proxy.counts().writes == 0, "it wrote {:?}", stage.proxy.counts().actions);

        // The listener changes its protocol and its target group in one call, and back.
        apply(&stage, namespace, &[service(false)]).await?;
        serves(&stage, namespace, "UDP", &without_ids(&identified)).await?;
        let listeners: Vec<String> =
            stage.proxy.log().into_iter().map(|call| call.name).filter(|name| name.ends_with("Listener")).collect();
        ensure!(listeners == ["elasticloadbalancing:ModifyListener"], "the listener was changed by {listeners:?}");
        apply(&stage, namespace, &[service(true)]).await?;
        serves(&stage, namespace, "QUIC", &identified).await?;
        warnings_are(&stage, namespace, &[]).await?;

        // Pods without an id are no targets, and their binding says so.
        apply(&stage, namespace, &[pods(false)]).await?;
        targets(&stage, namespace, false).await?;
        serves(&stage, namespace, "QUIC", &BTreeSet::new()).await?;
        let events = stage.cluster.events(namespace).await?;
        let said: Vec<_> = events.iter().filter(|event| event.reason == "QuicServerIdMissing").collect();
        ensure!(!said.is_empty() && said.iter().all(|event| event.type_ == "Warning"), "the events are {events:?}");
        apply(&stage, namespace, &[pods(true)]).await?;
        let identified = targets(&stage, namespace, true).await?;
        serves(&stage, namespace, "QUIC", &identified).await?;
        webhooks::uninstall(&stage.cluster).await?;
        stage.cluster.delete("v1", "ConfigMap", Some("kube-system"), "quic-server-id-worker-tracker").await?;
        without_service(stage, namespace).await
    });
}

#[test]
fn what_cannot_be_quic_is_refused_and_keeps_what_it_has() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "quic-refused";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[deployment("web", 2), service(false)]).await?;
        let plain = targets(&stage, namespace, false).await?;
        serves(&stage, namespace, "UDP", &plain).await?;
        stage.settle(QUIET, SOON).await?;
        stage.proxy.reset();
        let mut nodes = service(true);
        nodes["metadata"]["annotations"]["service.beta.kubernetes.io/aws-load-balancer-nlb-target-type"] =
            "instance".into();
        apply(&stage, namespace, &[nodes]).await?;
        let expected = "Service/web FailedBuildModel: Failed build model due to service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: port `h3` (UDP/443) becomes QUIC, and AWS takes its targets only with a QUIC server id each, which pods can have and instances cannot; write `service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip`, or remove the port from the annotation";
        warnings_become(&stage, namespace, &[expected]).await?;
        stage.settle(QUIET, SOON).await?;
        ensure!(stage.proxy.counts().writes == 0, "something was changed: {:?}", stage.proxy.counts().actions);
        serves(&stage, namespace, "UDP", &plain).await?;
        without_service(stage, namespace).await
    });
}
