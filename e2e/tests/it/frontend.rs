//! A Network Load Balancer in front of an Application Load Balancer, over its life.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::cluster::{items, text};
use e2e::lab::proxy::is_read;
use e2e::lab::{Lab, wait_until};
use serde_json::Value;

use crate::support::{QUIET, SOON, Stage, WITH_RETRIES, apply, finish, ingress, run, service, stack_of, warning};

const ON: (&str, &str) = ("alb.ingress.kubernetes.io/enable-frontend-nlb", "true");
const SCHEME: &str = "alb.ingress.kubernetes.io/frontend-nlb-scheme";
const MAPPING: &str = "alb.ingress.kubernetes.io/frontend-nlb-listener-port-mapping";

/// Returns the host names in the status of an Ingress, in their order.
async fn hosts(lab: &Lab, namespace: &str, name: &str) -> Result<Vec<String>> {
    let object = lab.cluster.get("networking.k8s.io/v1", "Ingress", Some(namespace), name).await?;
    let object = object.context("no Ingress")?;
    let entries = items(&object, "/status/loadBalancer/ingress");
    Ok(entries.iter().map(|entry| text(entry, "/hostname").to_owned()).collect())
}

/// Returns the load balancers of an Ingress as `<type> <scheme>`, and the targets of the target groups in front.
async fn in_aws(lab: &Lab, namespace: &str, name: &str) -> Result<(BTreeSet<String>, Vec<Value>)> {
    let stack = stack_of(lab, namespace, name).await?;
    let balancers = stack["loadBalancers"].as_object().into_iter().flat_map(|all| all.values());
    let balancers = balancers.map(|balancer| format!("{} {}", text(balancer, "/type"), text(balancer, "/scheme")));
    let groups = stack["targetGroups"].as_object().into_iter().flat_map(|all| all.values());
    let groups = groups.filter(|group| group["TargetType"] == "alb").map(|group| group["targets"].clone());
    Ok((balancers.collect(), groups.collect()))
}

async fn becomes(lab: &Lab, namespace: &str, expected: &[&str], targets: usize, names: usize) -> Result<()> {
    wait_until(WITH_RETRIES, &format!("AWS to have {expected:?}"), async || {
        let (balancers, groups) = in_aws(lab, namespace, "web").await?;
        ensure!(balancers.iter().map(String::as_str).eq(expected.iter().copied()), "there are {balancers:?}");
        let registered = groups.iter().filter(|targets| targets.as_array().is_some_and(|all| all.len() == 1)).count();
        ensure!(registered == targets && groups.len() == targets, "the targets are {groups:?}");
        let hosts = hosts(lab, namespace, "web").await?;
        ensure!(hosts.len() == names, "the status names {hosts:?}");
        Ok(true)
    })
    .await
}

#[test]
fn it_is_switched_on_takes_over_is_switched_off_and_goes_before_what_is_behind() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let flags = ["--replaced-load-balancer-hold=2s", "--propagation-time=1s"];
        stage.start_controller(&flags).await?;
        let namespace = "frontend-life";
        stage.cluster.namespace(namespace).await?;
        let with = |annotations: &[(&str, &str)]| ingress("web", annotations, &["web"]);
        apply(&stage, namespace, &[service("web"), with(&[])]).await?;
        becomes(&stage, namespace, &["application internet-facing"], 0, 1).await?;
        let behind = hosts(&stage, namespace, "web").await?;

        apply(&stage, namespace, &[with(&[ON])]).await?;
        becomes(&stage, namespace, &["application internet-facing", "network internal"], 1, 2).await?;
        let internal = hosts(&stage, namespace, "web").await?;
        ensure!(internal[..1] == behind[..], "the status names {internal:?}, and before {behind:?}");

        apply(&stage, namespace, &[with(&[ON, (SCHEME, "internet-facing")])]).await?;
        becomes(&stage, namespace, &["application internet-facing", "network internet-facing"], 1, 2).await?;
        let public = hosts(&stage, namespace, "web").await?;
        ensure!(public[0] == internal[0] && public[1] != internal[1], "the status still names {public:?}");

        // The one behind is replaced too.
        let scheme = ("alb.ingress.kubernetes.io/scheme", "internal");
        apply(&stage, namespace, &[with(&[ON, (SCHEME, "internet-facing"), scheme])]).await?;
        becomes(&stage, namespace, &["application internal", "network internet-facing"], 1, 2).await?;
        let other = hosts(&stage, namespace, "web").await?;
        ensure!(other[0] != public[0] && other[1] == public[1], "the status names {other:?}, and before {public:?}");

        stage.settle(QUIET, SOON).await?;
        stage.stop_controller().await?;
        stage.proxy.reset();
        stage.start_controller(&flags).await?;
        stage.controller.as_mut().context("no controller")?.idle(SOON).await?;
        stage.settle(QUIET, SOON).await?;
        let actions = stage.proxy.counts().actions;
        let writes: Vec<_> = actions.keys().filter(|action| !is_read(action)).collect();
        ensure!(writes.is_empty(), "a restart writes {writes:?}");
        ensure!(!actions.contains_key("elasticloadbalancing:DescribeTargetHealth"), "a restart reads {actions:?}");

        apply(&stage, namespace, &[with(&[scheme])]).await?;
        becomes(&stage, namespace, &["application internal"], 0, 1).await?;
        apply(&stage, namespace, &[with(&[ON, scheme])]).await?;
        becomes(&stage, namespace, &["application internal", "network internal"], 1, 2).await?;
        finish(stage, namespace).await
    });
}

#[test]
fn a_wrong_mapping_is_told_and_leaves_what_serves() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "frontend-wrong";
        stage.cluster.namespace(namespace).await?;
        let with = |mapping: &str| ingress("web", &[ON, (MAPPING, mapping)], &["web"]);
        apply(&stage, namespace, &[service("web"), with("80=80")]).await?;
        becomes(&stage, namespace, &["application internet-facing", "network internal"], 1, 2).await?;
        apply(&stage, namespace, &[with("80=http")]).await?;
        warning(&stage, namespace, "Ingress/web", "`80=http` does not map one port to another").await?;
        becomes(&stage, namespace, &["application internet-facing", "network internal"], 1, 2).await?;
        finish(stage, namespace).await
    });
}
