//! The chart's webhooks for pods, which the lab's API server calls at a port of loopback.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::PostParams;
use serde_json::{Value, json};

use super::cluster::{Cluster, documents, items, put_in_namespace, text};
use super::controller::Controller;
use super::helm::Helm;
use super::processes::free_ports;
use super::{Lab, wait_until};

/// The names that the chart gives to a release `albatross`.
const CONFIGURATION: &str = "albatross-webhook";
const SERVICE: &str = "albatross-webhook-service";
const SECRET: &str = "albatross-certificate";
const NAMESPACE: &str = "kube-system";
const REGISTRATION: &str = "admissionregistration.k8s.io/v1";
/// The lease of a controller that only serves webhooks.
const LEASE: &str = "lab-webhooks";
/// For how long nobody takes the lease, in seconds.
const HELD: u32 = 24 * 3600;
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Applies the objects of the chart that concern pods, and returns the flags of a controller that serves their webhooks. The
/// lab has no network of pods: the API server connects to the address that the Service names, and requires the certificate of
/// the Service, as everywhere.
pub async fn install(lab: &Lab) -> Result<Vec<String>> {
    let [port] = free_ports()?;
    let helm = Helm::find(&lab.program)?;
    let values = json!({"clusterName": "demo", "webhooks": {"enabled": true}});
    let arguments = ["template", "albatross", "charts/albatross", "--show-only=templates/webhooks.yaml"];
    let said = helm.run(&[&arguments[..], &["--namespace", NAMESPACE]].concat(), Some(&values))?;
    ensure!(said.success, "helm template: {}", said.errors);
    let mut objects = documents(&said.output)?;
    objects.retain(|object| ["Secret", "MutatingWebhookConfiguration"].contains(&text(object, "/kind")));
    for object in &mut objects {
        put_in_namespace(object, NAMESPACE);
        let webhooks = object.get_mut("webhooks").and_then(Value::as_array_mut);
        for webhook in webhooks.into_iter().flatten() {
            let service = webhook.pointer_mut("/clientConfig/service").context("a webhook without a Service")?;
            service["port"] = port.into();
        }
    }
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": NAMESPACE, "name": SERVICE},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"},
    }));
    lab.cluster.apply(&objects).await?;
    Ok(vec![
        "--enable-webhooks".to_owned(),
        format!("--webhook-bind-port={port}"),
        format!("--webhook-service-name={SERVICE}"),
        format!("--webhook-secret-name={SECRET}"),
        format!("--webhook-configuration-name={CONFIGURATION}"),
    ])
}

/// Deletes what [`install`] applied.
pub async fn uninstall(cluster: &Cluster) -> Result<()> {
    cluster.delete(REGISTRATION, "MutatingWebhookConfiguration", None, CONFIGURATION).await?;
    cluster.delete("v1", "Service", Some(NAMESPACE), SERVICE).await?;
    cluster.delete("v1", "Secret", Some(NAMESPACE), SECRET).await
}

/// Starts a controller that serves the webhooks next to others and writes nothing: it waits for a lease that is held.
pub async fn start_standby(lab: &Lab) -> Result<Controller> {
    let mut flags = install(lab).await?;
    let at = "2026-01-01T00:00:00.000000Z";
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"namespace": NAMESPACE, "name": LEASE},
        "spec": {"holderIdentity": "lab", "leaseDurationSeconds": HELD, "acquireTime": at, "renewTime": at},
    });
    lab.cluster.apply(&[lease]).await?;
    flags.push("--enable-leader-election=true".to_owned());
    flags.push(format!("--leader-election-namespace={NAMESPACE}"));
    flags.push(format!("--leader-election-id={LEASE}"));
    let mut controller = lab.controller(&flags.iter().map(String::as_str).collect::<Vec<_>>())?;
    controller.ready(READY_WITHIN).await?;
    Ok(controller)
}

/// Ends it, and deletes what it needed.
pub async fn end_standby(lab: &Lab, controller: Controller) -> Result<()> {
    uninstall(&lab.cluster).await?;
    controller.stop().await?;
    lab.cluster.delete("coordination.k8s.io/v1", "Lease", Some(NAMESPACE), LEASE).await
}

/// Returns the pod that would be created. It is not.
pub async fn rehearsed(cluster: &Cluster, namespace: &str, pod: &Value) -> Result<Value> {
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let api = cluster.api("v1", "Pod", Some(namespace));
    Ok(serde_json::to_value(api.create(&parameters, &serde_json::from_value(pod.clone())?).await?)?)
}

/// Waits until pods of a labelled namespace get a sleep.
pub async fn pods_drain(cluster: &Cluster, namespace: &str) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "rehearsal"},
        "spec": {"containers": [{"name": "app", "image": "example.com/app"}]},
    });
    wait_until(READY_WITHIN, "pods to get a sleep", async || {
        Ok(sleeps(&rehearsed(cluster, namespace, &pod).await?).iter().all(Option::is_some))
    })
    .await
}

/// Returns the seconds of the action `sleep` of each container of a pod.
pub fn sleeps(pod: &Value) -> Vec<Option<i64>> {
    let of = |container: &Value| container.pointer("/lifecycle/preStop/sleep/seconds").and_then(Value::as_i64);
    items(pod, "/spec/containers").iter().map(of).collect()
}
