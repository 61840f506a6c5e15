//! Feature gates that a restart of the controller switches.

use anyhow::{Context as _, Result, ensure};
use aws_sdk_elasticloadbalancingv2::types::{Listener, TargetGroup};
use e2e::lab::cluster::text;
use e2e::lab::proxy::is_read;
use e2e::lab::{Lab, wait_until};
use serde_json::{Value, json};

use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, apply, finish, ingress, quiet_writes, run, served, service, stays, warning,
};

const PLANS: &str = "--feature-gates=IngressPlanAnnotation=true";
const PLAN: &str = "alb.ingress.kubernetes.io/dry-run-plan";
const GROUP: (&str, &str) = ("alb.ingress.kubernetes.io/group.name", "gates-plan");
const SERVICES: &str = "service.beta.kubernetes.io/aws-load-balancer";

async fn object(lab: &Lab, namespace: &str, name: &str) -> Result<Value> {
    let object = lab.cluster.get("networking.k8s.io/v1", "Ingress", Some(namespace), name).await?;
    object.context("no Ingress")
}

/// Returns the id and the number of rules in the plan of an Ingress; `-` if it has none, and the text if it is no plan.
async fn plan(lab: &Lab, namespace: &str, name: &str) -> Result<String> {
    let object = object(lab, namespace, name).await?;
    let Some(written) = object["metadata"]["annotations"][PLAN].as_str() else { return Ok("-".to_owned()) };
    let Ok(plan) = serde_json::from_str::<Value>(written) else { return Ok(written.to_owned()) };
    let rules = plan["resources"]["AWS::ElasticLoadBalancingV2::ListenerRule"].as_object().map_or(0, |all| all.len());
    Ok(format!("{} {rules}", text(&plan, "/id")))
}

/// Waits until the Ingresses `a` and `b` have these plans.
async fn plans_become(lab: &Lab, namespace: &str, expected: [&str; 2]) -> Result<()> {
    wait_until(WITH_RETRIES, &format!("the plans to be {expected:?}"), async || {
        let found = [plan(lab, namespace, "a").await?, plan(lab, namespace, "b").await?];
        ensure!(found == expected, "they are {found:?}");
        Ok(true)
    })
    .await
}

async fn write_plan(lab: &Lab, namespace: &str, name: &str, text: &str) -> Result<()> {
    let patch = json!({ "metadata": { "annotations": { PLAN: text } } });
    lab.cluster.merge("networking.k8s.io/v1", "Ingress", Some(namespace), name, &patch).await
}

/// Restarts the controller with these flags, and returns when it has nothing to do.
async fn restart(stage: &mut Stage, flags: &[&str]) -> Result<()> {
    stage.stop_controller().await?;
    stage.start_controller(flags).await?;
    stage.controller.as_mut().context("no controller")?.idle(WITH_RETRIES).await?;
    stage.settle(QUIET, SOON).await
}

#[test]
fn the_plan_of_a_group_is_on_its_first_ingress_and_goes_without_the_gate() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let holds = ["--replaced-load-balancer-hold=2s", "--propagation-time=1s"];
        let [with, without] = [[&holds[..], &[PLANS]].concat(), holds.to_vec()];
        stage.start_controller(&with).await?;
        let namespace = "gates-plan";
        stage.cluster.namespace(namespace).await?;
        let order = ("alb.ingress.kubernetes.io/group.order", "1");
        let first = |annotations: &[(&str, &str)]| ingress("a", annotations, &["web"]);
        let second = |services: &[&str]| ingress("b", &[GROUP, order], services);
        let objects = [service("web"), service("api"), first(&[GROUP]), second(&["web"])];
        apply(&stage, namespace, &objects).await?;
        plans_become(&stage, namespace, ["gates-plan 2", "-"]).await?;
        served(&stage, namespace, "a").await?;

        // It follows a change, and what others have written goes with that; by itself that is nobody's business.
        stage.controller.as_mut().context("no controller")?.idle(WITH_RETRIES).await?;
        stage.settle(QUIET, SOON).await?;
        let calls = stage.proxy.counts().total;
        write_plan(&stage, namespace, "b", "mine").await?;
        stays(QUIET, "a text of others is left alone", async || {
            ensure!(plan(&stage, namespace, "b").await? == "mine" && stage.proxy.counts().total == calls, "it is not");
            Ok(())
        })
        .await?;
        apply(&stage, namespace, &[second(&["web", "api"])]).await?;
        plans_become(&stage, namespace, ["gates-plan 3", "-"]).await?;
        quiet_writes(&stage).await?;

        let versions = async |stage: &Stage| -> Result<Vec<String>> {
            let mut versions = Vec::new();
            for name in ["a", "b"] {
                let object = object(stage, namespace, name).await?;
                versions.push(text(&object, "/metadata/resourceVersion").to_owned());
            }
            Ok(versions)
        };
        stage.controller.as_mut().context("no controller")?.idle(WITH_RETRIES).await?;
        let before = versions(&stage).await?;
        stage.proxy.reset();
        restart(&mut stage, &with).await?;
        let actions = stage.proxy.counts().actions;
        let writes: Vec<_> = actions.keys().filter(|action| !is_read(action)).collect();
        ensure!(writes.is_empty(), "a restart writes {writes:?}");
        ensure!(versions(&stage).await? == before, "a restart writes to Ingresses");

        // The first one leaves for a load balancer of its own.
        let patch = json!({ "metadata": { "annotations": { GROUP.0: null } } });
        stage.cluster.merge("networking.k8s.io/v1", "Ingress", Some(namespace), "a", &patch).await?;
        plans_become(&stage, namespace, ["gates-plan/a 1", "gates-plan 2"]).await?;

        restart(&mut stage, &without).await?;
        plans_become(&stage, namespace, ["-", "-"]).await?;
        write_plan(&stage, namespace, "a", "mine").await?;
        apply(&stage, namespace, &[ingress("a", &[(PLAN, "mine")], &["web", "api"])]).await?;
        quiet_writes(&stage).await?;
        plans_become(&stage, namespace, ["mine", "-"]).await?;
        finish(stage, namespace).await
    });
}

/// Returns the only target group of the Services in the lab.
async fn target_group(lab: &Lab) -> Result<TargetGroup> {
    let all = lab.aws.elb.describe_target_groups().send().await?.target_groups.unwrap_or_default();
    let mut ours =
        all.into_iter().filter(|group| group.target_group_name().is_some_and(|name| name.starts_with("k8s-gateshea")));
    ours.next().context("no target group")
}

#[test]
fn details_of_health_checks_count_only_with_the_gate() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let off = "--feature-gates=NLBHealthCheckAdvancedConfig=false";
        stage.start_controller(&[off]).await?;
        let namespace = "gates-health";
        stage.cluster.namespace(namespace).await?;
        let mut object = service("web");
        object["spec"]["type"] = "LoadBalancer".into();
        object["spec"]["loadBalancerClass"] = "service.k8s.aws/nlb".into();
        object["metadata"]["annotations"] = json!({
            format!("{SERVICES}-nlb-target-type"): "ip",
            format!("{SERVICES}-healthcheck-protocol"): "http",
            format!("{SERVICES}-healthcheck-timeout"): "7",
            format!("{SERVICES}-healthcheck-success-codes"): "200",
        });
        apply(&stage, namespace, &[object]).await?;
        let becomes = async |stage: &Stage, timeout: i32, codes: Option<&str>| -> Result<()> {
            wait_until(WITH_RETRIES, &format!("the timeout to be {timeout}"), async || {
                let group = target_group(stage).await?;
                let found = group.matcher().and_then(|matcher| matcher.http_code()).map(str::to_owned);
                ensure!(group.health_check_timeout_seconds() == Some(timeout), "{group:?}");
                ensure!(codes.is_none_or(|codes| found.as_deref() == Some(codes)), "the codes are {found:?}");
                Ok(true)
            })
            .await
        };
        becomes(&stage, 10, None).await?;
        warning(&stage, namespace, "Service/web", "NLBHealthCheckAdvancedConfig=false").await?;
        restart(&mut stage, &[]).await?;
        becomes(&stage, 7, Some("200")).await?;
        restart(&mut stage, &[off]).await?;
        becomes(&stage, 10, Some("200")).await?;
        // Codes that are not requested are no difference.
        stage.proxy.reset();
        restart(&mut stage, &[off]).await?;
        let actions = stage.proxy.counts().actions;
        let writes: Vec<_> = actions.keys().filter(|action| !is_read(action)).collect();
        ensure!(writes.is_empty(), "a restart writes {writes:?}");
        finish(stage, namespace).await
    });
}

/// Returns the secure listener of the lab's only load balancer.
async fn secure_listener(lab: &Lab) -> Result<Listener> {
    for balancer in lab.aws.elb.describe_load_balancers().send().await?.load_balancers() {
        let arn = balancer.load_balancer_arn().unwrap_or_default();
        let listeners = lab.aws.elb.describe_listeners().load_balancer_arn(arn).send().await?;
        let secure = |listener: &Listener| matches!(listener.protocol().map(|it| it.as_str()), Some("HTTPS" | "TLS"));
        if let Some(listener) = listeners.listeners.unwrap_or_default().into_iter().find(secure) {
            return Ok(listener);
        }
    }
    anyhow::bail!("no secure listener")
}

#[test]
fn settings_of_listeners_that_nobody_requests_are_switched_off_with_the_gate() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        stage.start_controller(&[]).await?;
        let on = "--feature-gates=EnhancedDefaultBehavior=true";
        let certificate = stage.world.certificates.get("example.com").context("no certificate")?.clone();
        let namespace = "gates-listener";
        stage.cluster.namespace(namespace).await?;
        let certified = ("alb.ingress.kubernetes.io/certificate-arn", certificate.as_str());
        let clients = ("alb.ingress.kubernetes.io/mutual-authentication", r#"[{"port": 443, "mode": "passthrough"}]"#);
        apply(&stage, namespace, &[service("web"), ingress("web", &[certified, clients], &["web"])]).await?;
        let mode = async |stage: &Stage| -> Result<String> {
            let listener = secure_listener(stage).await?;
            let mode = listener.mutual_authentication().and_then(|it| it.mode());
            Ok(mode.unwrap_or("off").to_owned())
        };
        let mode_becomes = async |stage: &Stage, expected: &str| {
            wait_until(WITH_RETRIES, &format!("the mode to be {expected}"), async || {
                let found = mode(stage).await?;
                ensure!(found == expected, "it is {found}");
                Ok(true)
            })
            .await
        };
        mode_becomes(&stage, "passthrough").await?;
        let patch = json!({ "metadata": { "annotations": { clients.0: null } } });
        stage.cluster.merge("networking.k8s.io/v1", "Ingress", Some(namespace), "web", &patch).await?;
        quiet_writes(&stage).await?;
        mode_becomes(&stage, "passthrough").await?;
        restart(&mut stage, &[on]).await?;
        mode_becomes(&stage, "off").await?;
        stage.cluster.delete("networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;
        crate::support::gone(&stage, "networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;

        let mut object = service("tls");
        object["spec"]["type"] = "LoadBalancer".into();
        object["spec"]["loadBalancerClass"] = "service.k8s.aws/nlb".into();
        object["metadata"]["annotations"] = json!({
            format!("{SERVICES}-nlb-target-type"): "ip",
            format!("{SERVICES}-ssl-cert"): certificate,
            format!("{SERVICES}-alpn-policy"): "HTTP2Preferred",
        });
        apply(&stage, namespace, &[object]).await?;
        let policy_becomes = async |stage: &Stage, expected: &str| {
            wait_until(WITH_RETRIES, &format!("the policy to be {expected}"), async || {
                let found = secure_listener(stage).await?.alpn_policy().first().cloned().unwrap_or_default();
                ensure!(found == expected, "it is {found}");
                Ok(true)
            })
            .await
        };
        policy_becomes(&stage, "HTTP2Preferred").await?;
        let patch = json!({ "metadata": { "annotations": { format!("{SERVICES}-alpn-policy"): null } } });
        stage.cluster.merge("v1", "Service", Some(namespace), "tls", &patch).await?;
        policy_becomes(&stage, "None").await?;
        finish(stage, namespace).await
    });
}
