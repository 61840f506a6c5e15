//! Pods that drain: what the chart's webhooks make of pods, and that such a pod serves after its deletion.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::cluster::{condition_is_true, text};
use e2e::lab::kubelet::{Kubelet, ON_TERM, Runs};
use e2e::lab::wait_until;
use e2e::lab::webhooks::{self, sleeps};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::running_pods::{OFFSET, get, loopback};
use crate::support::{SOON, Stage, run};

const LABEL: &str = "elbv2.k8s.aws/albatross-drain";
const SECONDS: &str = "elbv2.k8s.aws/albatross-drain-seconds";
const LABELLED: &str = "drains";
const PLAIN: &str = "drains-not";
/// The seconds that a pod of the test sleeps.
const SLEEP: u64 = 3;

fn pod(labels: &Value, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "example.com/app"}, {"name": "log", "image": "example.com/log"}]},
    })
}

/// A Deployment of one pod that exits at once on SIGTERM.
fn deployment() -> Value {
    let container = json!({
        "name": "app",
        "image": "example.com/app",
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    });
    let annotations = json!({ON_TERM: "exit", SECONDS: SLEEP.to_string()});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": LABELLED},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": annotations},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    })
}

fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// Returns the warnings with which the API server would create a pod.
async fn warnings(stage: &Stage, namespace: &str, pod: &Value) -> Result<Vec<String>> {
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let request = hyper::Request::post(path).header("content-type", "application/json");
    let answer = stage.cluster.client.send(request.body(Body::from(serde_json::to_vec(pod)?))?).await?;
    ensure!(answer.status().is_success(), "it answers {}", answer.status());
    let warnings = answer.headers().get_all("warning").iter();
    warnings.map(|warning| Ok(warning.to_str()?.trim_start_matches("299 - ").trim_matches('"').to_owned())).collect()
}

/// The selectors of the chart's webhooks, as the API server reads them.
async fn pods_that_ask_for_it_get_a_sleep(stage: &Stage) -> Result<()> {
    let none = json!({});
    for (namespace, labels, annotations, expected) in [
        (LABELLED, json!({"app": "web"}), &none, Some((25, 55))),
        (LABELLED, json!({LABEL: "enabled"}), &none, Some((25, 55))),
        (LABELLED, json!({LABEL: "disabled"}), &none, None),
        (LABELLED, json!({"app": "direct"}), &none, Some((135, 165))),
        (LABELLED, json!({"app": "web"}), &json!({SECONDS: "7"}), Some((7, 37))),
        (PLAIN, json!({"app": "web"}), &none, None),
        (PLAIN, json!({LABEL: "enabled"}), &none, Some((25, 55))),
        (PLAIN, json!({LABEL: "disabled"}), &none, None),
    ] {
        let made = webhooks::rehearsed(&stage.cluster, namespace, &pod(&labels, annotations)).await?;
        let grace = made["spec"]["terminationGracePeriodSeconds"].as_i64().context("no grace period")?;
        let (sleep, expected_grace) = expected.map_or((None, 30), |(sleep, grace)| (Some(sleep), grace));
        ensure!(sleeps(&made) == [sleep; 2] && grace == expected_grace, "{namespace} {labels} {annotations}: {made}");
    }
    for (namespace, value, of) in [(PLAIN, Some("yes"), "the pod"), ("drains-oddly", None, "Namespace drains-oddly")] {
        let labels = value.map_or(json!({}), |value| json!({ LABEL: value }));
        let expected = format!(
            "the label `{LABEL}` of {of} has the value `yes`, so the pod ends without a wait for its load balancers; allowed: `enabled` or `disabled`"
        );
        let found = warnings(stage, namespace, &pod(&labels, &none)).await?;
        ensure!(found == [expected], "{namespace}: {found:?}");
    }
    Ok(())
}

/// Kubernetes has hooks that sleep since 1.30: before, pods are left as they are, and who creates one is told.
async fn pods_are_left_as_they_are(stage: &Stage) -> Result<()> {
    let pod = pod(&json!({"app": "web"}), &json!({}));
    let told = "the pod ends without a wait for its load balancers: its containers cannot sleep in `preStop` hooks before Kubernetes 1.30; upgrade the cluster, or give them a hook that runs `sleep`";
    wait_until(SOON, "the warning", async || Ok(warnings(stage, LABELLED, &pod).await? == [told])).await?;
    let made = webhooks::rehearsed(&stage.cluster, LABELLED, &pod).await?;
    ensure!(sleeps(&made) == [None; 2] && made["spec"]["terminationGracePeriodSeconds"] == 30, "it is {made}");
    Ok(())
}

async fn pods(stage: &Stage) -> Result<Vec<Value>> {
    stage.cluster.list("v1", "Pod", Some(LABELLED)).await
}

#[test]
fn a_pod_that_drains_serves_after_its_deletion() {
    run(async {
        let mut stage = Stage::fresh().await?;
        let runs = Runs { port_offset: OFFSET, time_scale: 1.0 };
        let kubelet = Kubelet::start_running(&stage.cluster, &stage.world, &stage.aws, runs);
        let direct = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "direct", "namespace": LABELLED,
                "annotations": {"service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": "ip"},
            },
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": "service.k8s.aws/nlb",
                "selector": {"app": "direct"}, "ports": [{"port": 80}],
            },
        });
        let objects = [
            namespace(LABELLED, &json!({LABEL: "enabled"})),
            namespace(PLAIN, &json!({})),
            namespace("drains-oddly", &json!({LABEL: "yes"})),
            direct,
        ];
        stage.cluster.apply(&objects).await?;
        let flags = webhooks::install(&stage).await?;
        stage.start_controller(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        if stage.cluster.minor_version().await? < 30 {
            pods_are_left_as_they_are(&stage).await?;
            drop(kubelet);
            stage.end_lab();
            return Ok(());
        }
        webhooks::pods_drain(&stage.cluster, LABELLED).await?;
        pods_that_ask_for_it_get_a_sleep(&stage).await?;

        stage.cluster.apply(&[deployment()]).await?;
        wait_until(SOON, "a Ready pod", async || {
            Ok(pods(&stage).await?.iter().any(|pod| condition_is_true(pod, "Ready")))
        })
        .await?;
        let pod = pods(&stage).await?.pop().context("no pod")?;
        ensure!(sleeps(&pod) == [Some(SLEEP as i64)], "it is {}", pod["spec"]);
        ensure!(pod["spec"]["terminationGracePeriodSeconds"] == SLEEP, "it is {}", pod["spec"]);
        let (name, at) = (text(&pod, "/metadata/name"), loopback(text(&pod, "/status/podIP"), 8080)?);
        ensure!(get(at).await?.1 == name, "another pod answers");
        let began = Instant::now();
        stage.cluster.delete("v1", "Pod", Some(LABELLED), name).await?;
        let deleted = stage.cluster.get("v1", "Pod", Some(LABELLED), name).await?.context("it is gone at once")?;
        ensure!(!text(&deleted, "/metadata/deletionTimestamp").is_empty(), "it is not deleted");
        ensure!(get(at).await?.1 == name, "it does not answer after its deletion");
        wait_until(SOON, "the pod to have ended", async || Ok(get(at).await.is_err())).await?;
        ensure!(began.elapsed() >= Duration::from_secs(SLEEP), "it served for {:?}", began.elapsed());

        drop(kubelet);
        stage.end_lab();
        Ok(())
    });
}
