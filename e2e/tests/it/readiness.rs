//! Pods with readiness gates are ready when AWS finds their targets healthy.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_elasticloadbalancingv2::types::{ProtocolEnum, TargetTypeEnum};
use e2e::lab::cluster::{condition_is_true, items, text};
use e2e::lab::proxy::is_read;
use e2e::lab::wait_until;
use serde_json::{Value, json};

use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, apply, deployment, finish, gone, ingress, run, served, service, stays,
};

const BINDING: (&str, &str) = ("elbv2.k8s.aws/v1beta1", "TargetGroupBinding");
const GATE: &str = "target-health.elbv2.k8s.aws/web";
/// AWS is asked more often than by default, so that the test is quick.
const FLAGS: [&str; 1] = ["--targetgroupbinding-requeue-duration=1s"];

/// A Deployment whose pods wait for the binding `web`.
fn gated(version: &str, replicas: usize) -> Value {
    let mut deployment = deployment("web", replicas);
    let template = &mut deployment["spec"]["template"];
    template["metadata"]["labels"]["version"] = version.into();
    template["spec"]["readinessGates"] = json!([{"conditionType": GATE}]);
    deployment
}

async fn pods(stage: &Stage, namespace: &str) -> Result<Vec<Value>> {
    let pods = stage.cluster.list("v1", "Pod", Some(namespace)).await?;
    Ok(pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect())
}

/// Returns a pod's condition for the gate: status, reason and message.
fn said(pod: &Value) -> String {
    let conditions = items(pod, "/status/conditions");
    let condition = conditions.iter().find(|condition| text(condition, "/type") == GATE);
    condition.map_or_else(String::new, |condition| {
        ["/status", "/reason", "/message"].map(|field| text(condition, field)).join(" ").trim_end().to_owned()
    })
}

/// Returns the conditions, each with the number of pods that have it and whether these are Ready.
fn summary(pods: &[Value]) -> BTreeMap<(String, bool), usize> {
    let mut all = BTreeMap::new();
    for pod in pods {
        *all.entry((said(pod), condition_is_true(pod, "Ready"))).or_default() += 1;
    }
    all
}

async fn pods_become(stage: &Stage, namespace: &str, expected: &[(&str, bool, usize)]) -> Result<()> {
    let expected: BTreeMap<(String, bool), usize> =
        expected.iter().map(|(said, ready, count)| (((*said).to_owned(), *ready), *count)).collect();
    wait_until(SOON, &format!("the pods to be {expected:?}"), async || {
        let found = summary(&pods(stage, namespace).await?);
        ensure!(found == expected, "they are {found:?}");
        Ok(true)
    })
    .await
}

const UNUSED: &str = "False Target.NotInUse Target group is not configured to receive traffic from the load balancer";

async fn reads_of_health(stage: &Stage) -> u64 {
    let counts = stage.proxy.counts();
    counts.actions.get("elasticloadbalancing:DescribeTargetHealth").copied().unwrap_or_default()
}

#[test]
fn pods_are_ready_when_aws_finds_them_healthy() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        stage.start_controller(&FLAGS).await?;
        let namespace = "gates";
        stage.cluster.namespace(namespace).await?;
        let request = stage.aws.elb.create_target_group().name("ext-gates").protocol(ProtocolEnum::Http).port(80);
        let made = request.vpc_id(&stage.world.vpc).target_type(TargetTypeEnum::Ip).send().await?;
        let arn = made.target_groups().first().and_then(|group| group.target_group_arn()).context("no ARN")?.to_owned();
        let binding = json!({
            "apiVersion": BINDING.0, "kind": BINDING.1, "metadata": {"name": "web"},
            "spec": {"targetGroupARN": arn, "targetType": "ip", "serviceRef": {"name": "web", "port": 80}},
        });
        // Pods that are not ready only because of the gate are registered, and say what AWS says.
        apply(&stage, namespace, &[service("web"), gated("one", 2), binding]).await?;
        pods_become(&stage, namespace, &[(UNUSED, false, 2)]).await?;

        // A listener leads to the target group now, and AWS finds the targets healthy.
        let forward = json!({"type": "forward", "targetGroupARN": arn}).to_string();
        let mut web = ingress("web", &[("alb.ingress.kubernetes.io/actions.ext", &forward)], &["ext"]);
        web["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] = json!({"name": "use-annotation"});
        apply(&stage, namespace, &[web.clone()]).await?;
        served(&stage, namespace, "web").await?;
        pods_become(&stage, namespace, &[("True", true, 2)]).await?;

        // A rollout goes on as AWS finds the new pods healthy.
        apply(&stage, namespace, &[gated("two", 2)]).await?;
        wait_until(WITH_RETRIES, "the Deployment to have rolled over", async || {
            let found = stage.cluster.get("apps/v1", "Deployment", Some(namespace), "web").await?.context("gone")?;
            let counts =
                ["replicas", "updatedReplicas", "availableReplicas"].map(|count| found["status"][count].as_u64());
            Ok(counts == [Some(2); 3] && found["status"]["observedGeneration"] == found["metadata"]["generation"])
        })
        .await?;
        pods_become(&stage, namespace, &[("True", true, 2)]).await?;
        let metrics = stage.controller.as_ref().context("no controller")?.metrics().await?;
        let measured = format!("awslbc_readiness_gate_ready_seconds_count{{namespace=\"{namespace}\",name=\"web\"}} ");
        ensure!(metrics.contains(&measured), "it is not measured how long pods wait:\n{metrics}");

        // As no pod waits, AWS is asked nothing, nor does a restart cost more than lists.
        stage.settle(QUIET, SOON).await?;
        stage.stop_controller().await?;
        stage.proxy.reset();
        stage.start_controller(&FLAGS).await?;
        stage.controller.as_mut().context("no controller")?.idle(SOON).await?;
        stage.settle(QUIET, SOON).await?;
        let counts = stage.proxy.counts();
        ensure!(reads_of_health(&stage).await == 0, "it asked for healths: {:?}", counts.actions);
        ensure!(counts.actions.keys().all(|name| is_read(name)), "it wrote: {:?}", counts.actions);

        // Without a controller, everything stays as it is, and a new pod waits.
        stage.stop_controller().await?;
        apply(&stage, namespace, &[gated("two", 3)]).await?;
        let waiting = [("", false, 1), ("True", true, 2)];
        pods_become(&stage, namespace, &waiting).await?;
        stays(Duration::from_secs(2), "the pods stay as they are", async || {
            let found = summary(&pods(&stage, namespace).await?);
            ensure!(found.len() == 2 && found.get(&("True".to_owned(), true)) == Some(&2), "they are {found:?}");
            Ok(())
        })
        .await?;
        stage.start_controller(&FLAGS).await?;
        pods_become(&stage, namespace, &[("True", true, 3)]).await?;

        // A pod that waits for a deleted binding becomes ready.
        stage.cluster.delete("networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;
        gone(&stage, "networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;
        apply(&stage, namespace, &[gated("two", 4)]).await?;
        wait_until(SOON, "the new pod to wait", async || {
            Ok(pods(&stage, namespace).await?.iter().any(|pod| said(pod) == UNUSED))
        })
        .await?;
        stage.cluster.delete(BINDING.0, BINDING.1, Some(namespace), "web").await?;
        gone(&stage, BINDING.0, BINDING.1, Some(namespace), "web").await?;
        wait_until(SOON, "all pods to be ready", async || {
            let all = pods(&stage, namespace).await?;
            let let_through = all.iter().filter(|pod| said(pod).ends_with("Target Group Binding is deleted")).count();
            ensure!(let_through > 0, "the pods say {:?}", summary(&all));
            Ok(all.len() == 4 && all.iter().all(|pod| condition_is_true(pod, "Ready")))
        })
        .await?;
        stage.aws.elb.delete_target_group().target_group_arn(&arn).send().await?;
        finish(stage, namespace).await
    });
}
