//! The webhooks, asked by the real API server: what they answer, and what becomes of pods while they are away.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::cluster::{items, text};
use e2e::lab::processes::free_ports;
use e2e::lab::{wait_for, wait_until};
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{SOON, Stage, apply, gone, run, service};

const CONFIGURATION: &str = "albatross-webhook";
const SERVICE: &str = "albatross-webhook-service";
const SECRET: &str = "albatross-tls";
const REGISTRATION: &str = "admissionregistration.k8s.io/v1";
const KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Creates the objects that lead to the webhooks. The lab has no network of pods: the API server connects to the address
/// that the Service names, and requires the certificate of the Service, as everywhere.
async fn install(stage: &Stage, port: u16) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "kube-system", "name": SERVICE},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"},
    });
    let webhook = |name: &str, path: &str, group: &str, version: &str, resource: &str, operations: &[&str]| {
        json!({
            "name": format!("{name}.elbv2.k8s.aws"),
            "clientConfig": {"service": {"namespace": "kube-system", "name": SERVICE, "path": path, "port": port}},
            "rules": [{"apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": operations}],
            "failurePolicy": "Ignore", "sideEffects": "None", "timeoutSeconds": 5, "admissionReviewVersions": ["v1"],
        })
    };
    let mut pods = webhook("mpod", "/mutate-v1-pod", "", "v1", "pods", &["CREATE"]);
    pods["namespaceSelector"] = json!({"matchLabels": {"elbv2.k8s.aws/pod-readiness-gate-inject": "enabled"}});
    let services = webhook("mservice", "/mutate-v1-service", "", "v1", "services", &["CREATE"]);
    let both = ["CREATE", "UPDATE"];
    let ingresses =
        webhook("vingress", "/validate-networking-v1-ingress", "networking.k8s.io", "v1", "ingresses", &both);
    let path = "/validate-elbv2-k8s-aws-v1beta1-targetgroupbinding";
    let bindings = webhook("vtargetgroupbinding", path, "elbv2.k8s.aws", "v1beta1", "targetgroupbindings", &both);
    let path = "/mutate-elbv2-k8s-aws-v1beta1-targetgroupbinding";
    let defaults = webhook("mtargetgroupbinding", path, "elbv2.k8s.aws", "v1beta1", "targetgroupbindings", &["CREATE"]);
    let configuration = |kind: &str, webhooks: &[Value]| json!({"apiVersion": REGISTRATION, "kind": kind, "metadata": {"name": CONFIGURATION}, "webhooks": webhooks});
    stage
        .cluster
        .apply(&[
            service,
            configuration(KINDS[0], &[pods, services, defaults]),
            configuration(KINDS[1], &[ingresses, bindings]),
        ])
        .await
}

fn flags(port: u16, validity: &str) -> Vec<String> {
    vec![
        "--enable-webhooks".to_owned(),
        format!("--webhook-bind-port={port}"),
        format!("--webhook-service-name={SERVICE}"),
        format!("--webhook-secret-name={SECRET}"),
        format!("--webhook-configuration-name={CONFIGURATION}"),
        format!("--webhook-certificate-validity={validity}"),
    ]
}

async fn start(stage: &mut Stage, flags: &[String]) -> Result<()> {
    stage.start_controller(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// A namespace with a Service and a binding of it, where pods get gates.
async fn namespace_with_binding(stage: &Stage, namespace: &str) -> Result<()> {
    let labels = json!({"elbv2.k8s.aws/pod-readiness-gate-inject": "enabled"});
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}});
    stage.cluster.apply(&[object]).await?;
    apply(
        stage,
        namespace,
        &[service("web"), binding("web", "arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/none/1")],
    )
    .await
}

fn binding(name: &str, arn: &str) -> Value {
    json!({
        "apiVersion": "elbv2.k8s.aws/v1beta1", "kind": "TargetGroupBinding", "metadata": {"name": name},
        "spec": {"targetGroupARN": arn, "targetType": "ip", "serviceRef": {"name": "web", "port": 80}},
    })
}

/// The gates that a pod would be created with. It is not.
async fn gates(stage: &Stage, namespace: &str) -> Result<Vec<String>> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "example.com/app"}]},
    });
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let api = stage.cluster.api("v1", "Pod", Some(namespace));
    let made = serde_json::to_value(api.create(&parameters, &serde_json::from_value(pod)?).await?)?;
    Ok(items(&made, "/spec/readinessGates").iter().map(|gate| text(gate, "/conditionType").to_owned()).collect())
}

const GATE: &str = "target-health.elbv2.k8s.aws/web";

async fn gates_come(stage: &Stage, namespace: &str) -> Result<()> {
    wait_until(SOON, "pods to get their gates", async || Ok(gates(stage, namespace).await? == [GATE])).await
}

/// The bundles that all webhooks trust.
async fn bundles(stage: &Stage) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for kind in KINDS {
        let found = stage.cluster.get(REGISTRATION, kind, None, CONFIGURATION).await?.context("no configuration")?;
        all.extend(items(&found, "/webhooks").iter().map(|webhook| text(webhook, "/clientConfig/caBundle").to_owned()));
    }
    Ok(all)
}

/// Waits until all webhooks trust these: those that change objects, which bring the gates, come before the others.
async fn all_trust(stage: &Stage, trusted: &[String]) -> Result<()> {
    wait_until(SOON, "all webhooks to trust the certificate", async || {
        let found = bundles(stage).await?;
        ensure!(found == trusted, "they trust {found:?}");
        Ok(true)
    })
    .await
}

async fn secret(stage: &Stage) -> Result<Value> {
    let found = stage.cluster.get("v1", "Secret", Some("kube-system"), SECRET).await?;
    Ok(found.context("there is no Secret")?["data"].clone())
}

async fn leave(stage: Stage, namespaces: &[&str]) -> Result<()> {
    for kind in KINDS {
        stage.cluster.delete(REGISTRATION, kind, None, CONFIGURATION).await?;
    }
    stage.cluster.delete("v1", "Service", Some("kube-system"), SERVICE).await?;
    stage.cluster.delete("v1", "Secret", Some("kube-system"), SECRET).await?;
    for namespace in namespaces {
        stage.cluster.delete("v1", "Namespace", None, namespace).await?;
        gone(&stage, "v1", "Namespace", None, namespace).await?;
    }
    stage.leave_clean();
    Ok(())
}

#[test]
fn the_api_server_asks_and_nothing_depends_on_the_answer() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let [port] = free_ports()?;
        let (namespace, other) = ("webhooks", "webhooks-not");
        install(&stage, port).await?;
        namespace_with_binding(&stage, namespace).await?;
        stage.cluster.namespace(other).await?;
        apply(
            &stage,
            other,
            &[
                service("web"),
                binding("web", "arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/other/1"),
            ],
        )
        .await?;
        let flags = flags(port, "8760h");
        start(&mut stage, &flags).await?;
        gates_come(&stage, namespace).await?;
        ensure!(gates(&stage, other).await?.is_empty(), "a namespace without the label has gates");
        let made = secret(&stage).await?;
        let trusted = vec![text(&made, "/ca.crt").to_owned(); 5];
        all_trust(&stage, &trusted).await?;

        // A pod of which nothing is a rehearsal.
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "labels": {"app": "web"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "example.com/app"}]},
        });
        apply(&stage, namespace, std::slice::from_ref(&pod)).await?;
        let made_pod = stage.cluster.get("v1", "Pod", Some(namespace), "web-1").await?.context("no pod")?;
        ensure!(text(&made_pod, "/spec/readinessGates/0/conditionType") == GATE, "it is {}", made_pod["spec"]);

        // Services get the controller's class, and impossible objects are denied with the reason.
        let balanced = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "balanced", "namespace": other},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
        });
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        let services = stage.cluster.api("v1", "Service", Some(other));
        let rehearsed = services.create(&parameters, &serde_json::from_value(balanced)?).await?;
        ensure!(rehearsed.data["spec"]["loadBalancerClass"] == "service.k8s.aws/nlb", "it is {}", rehearsed.data);
        // A binding gets what it leaves out from its target group.
        let object = json!({
            "apiVersion": "elbv2.k8s.aws/v1beta1", "kind": "TargetGroupBinding", "metadata": {"name": "named"},
            "spec": {"targetGroupName": "ext-ip", "serviceRef": {"name": "web", "port": 80}},
        });
        let bindings = stage.cluster.api("elbv2.k8s.aws/v1beta1", "TargetGroupBinding", Some(other));
        let rehearsed = bindings.create(&parameters, &serde_json::from_value(object)?).await?;
        let expected = json!({
            "targetGroupName": "ext-ip", "targetGroupARN": stage.world.target_groups["ext-ip"], "targetType": "ip",
            "ipAddressType": "ipv4", "vpcID": stage.world.vpc, "targetGroupProtocol": "HTTP",
            "serviceRef": {"name": "web", "port": 80},
        });
        ensure!(rehearsed.data["spec"] == expected, "it is {}", rehearsed.data["spec"]);
        let denied = async |object: Value| -> Result<String> {
            let answer = apply(&stage, other, &[object]).await;
            Ok(format!("{:#}", answer.err().context("it was admitted")?))
        };
        let why =
            denied(binding("twice", "arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/none/1")).await?;
        let expected = "admission webhook \"vtargetgroupbinding.elbv2.k8s.aws\" denied the request: the target group arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/none/1 already has the TargetGroupBinding webhooks/web; delete that first, or bind another";
        ensure!(why.contains(expected), "it is denied with {why}");
        let conditions = [("alb.ingress.kubernetes.io/conditions.web", r#"[{"field": "host-header"}]"#)];
        let why = denied(crate::support::ingress("web", &conditions, &["web"])).await?;
        let expected = "the annotation `alb.ingress.kubernetes.io/conditions.web` cannot be used: condition 1 on `host-header` needs `hostHeaderConfig`";
        ensure!(why.contains(expected), "it is denied with {why}");

        // What writes over the configurations is made up for after a restart, with the same certificate.
        stage.controller.take().context("no controller")?.kill();
        install(&stage, port).await?;
        for kind in KINDS {
            let patch: Vec<Value> = (0..2)
                .map(|n| json!({"op": "add", "path": format!("/webhooks/{n}/clientConfig/caBundle"), "value": ""}))
                .collect();
            let patch = kube::api::Patch::Json::<()>(serde_json::from_value(Value::Array(patch))?);
            stage
                .cluster
                .api(REGISTRATION, kind, None)
                .patch(CONFIGURATION, &kube::api::PatchParams::default(), &patch)
                .await?;
        }
        // While it is away, pods are created all the same, and at once.
        let began = Instant::now();
        let mut second = pod;
        second["metadata"]["name"] = "web-2".into();
        apply(&stage, namespace, &[second]).await?;
        ensure!(began.elapsed() < Duration::from_secs(5), "a pod took {:?}", began.elapsed());
        ensure!(gates(&stage, namespace).await?.is_empty(), "somebody answers");
        start(&mut stage, &flags).await?;
        gates_come(&stage, namespace).await?;
        ensure!(secret(&stage).await? == made, "the certificate is another");
        all_trust(&stage, &trusted).await?;
        leave(stage, &[namespace, other]).await
    });
}

#[test]
fn while_the_certificate_is_renewed_every_pod_gets_its_gate() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let [port] = free_ports()?;
        let namespace = "webhooks-renewed";
        install(&stage, port).await?;
        namespace_with_binding(&stage, namespace).await?;
        start(&mut stage, &flags(port, "12s")).await?;
        gates_come(&stage, namespace).await?;
        let mut certificates = vec![text(&secret(&stage).await?, "/tls.crt").to_owned()];
        let (mut created, mut fewest, mut most) = (0, usize::MAX, 0);
        wait_for(Duration::from_secs(50), "the certificate to be renewed twice", async || {
            let found = gates(&stage, namespace).await.unwrap_or_default();
            created += 1;
            if found != [GATE] {
                // An error would count as "not yet".
                return Ok(Some(Err(anyhow::anyhow!(
                    "pod {created}, of certificate {}, has the gates {found:?}",
                    certificates.len()
                ))));
            }
            let now = secret(&stage).await?;
            let certificate = text(&now, "/tls.crt").to_owned();
            if certificates.last() != Some(&certificate) {
                certificates.push(certificate);
            }
            for bundle in bundles(&stage).await? {
                (fewest, most) = (fewest.min(bundle.len()), most.max(bundle.len()));
            }
            Ok((certificates.len() == 3).then_some(Ok(())))
        })
        .await??;
        ensure!(created > 50, "only {created} pods were created meanwhile");
        // Two authorities were trusted for a while.
        ensure!(most > fewest * 3 / 2, "two authorities were never trusted: bundles have {fewest} to {most} letters");
        leave(stage, &[namespace]).await
    });
}
