//! The guarantees over the life of an Ingress: the controller follows what it depends on, reports errors, survives
//! what AWS does, and leaves nothing behind. Every test ends by deleting its namespace and finding the account empty.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use e2e::lab::proxy::{Calls, Faults, is_read};
use e2e::lab::wait_until;
use e2e::lab::world::NODE_SECURITY_GROUP;
use e2e::symbolic::Snapshot;

use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, account_is_empty, apply, deployment, finish, gone, ingress, node_rules,
    rules_become, run, served, served_within, service, targets_are_the_pods, targets_within, warning,
};

/// The description of the rules that let load balancers reach the nodes.
const NODE_RULE: &str = "elbv2.k8s.aws/targetGroupBinding=shared";

#[test]
fn deleting_an_ingress_leaves_nothing_behind() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "deletion";
        stage.cluster.namespace(namespace).await?;
        ensure!(node_rules(&stage).await?.is_empty(), "the node security group has rules before the test");
        apply(&stage, namespace, &[service("web"), deployment("web", 2), ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        targets_are_the_pods(&stage, namespace, "web", 2).await?;
        wait_until(SOON, "the load balancer to be let in to the nodes", async || {
            let rules = node_rules(&stage).await?;
            let is_it = |rule: &String| rule.ends_with(NODE_RULE) && rule.starts_with("tcp 8080-8080 sg:");
            ensure!(rules.len() == 1 && rules.iter().all(is_it), "the node security group's rules are {rules:?}");
            Ok(true)
        })
        .await?;
        stage.cluster.delete("networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;
        gone(&stage, "networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;
        wait_until(SOON, "the account to be empty", async || account_is_empty(&stage).await).await?;
        let bindings = stage.cluster.list("elbv2.k8s.aws/v1beta1", "TargetGroupBinding", Some(namespace)).await?;
        ensure!(bindings.is_empty(), "TargetGroupBindings are left: {bindings:?}");
        finish(stage, namespace).await
    });
}

#[test]
fn deleting_a_namespace_with_everything_in_it_ends() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "namespace-deletion";
        stage.cluster.namespace(namespace).await?;
        let two = [ingress("one", &[], &["web"]), ingress("two", &[], &["web"])];
        apply(&stage, namespace, &[service("web"), deployment("web", 2)]).await?;
        apply(&stage, namespace, &two).await?;
        served(&stage, namespace, "one").await?;
        served(&stage, namespace, "two").await?;
        finish(stage, namespace).await
    });
}

#[test]
fn a_restart_on_an_unchanged_cluster_writes_nothing() {
    run(async {
        let mut stage = Stage::shared().await?;
        let namespace = "restart";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), service("api"), deployment("web", 2), deployment("api", 1)]).await?;
        apply(&stage, namespace, &[ingress("one", &[], &["web", "api"]), ingress("two", &[], &["missing"])]).await?;
        served(&stage, namespace, "one").await?;
        served(&stage, namespace, "two").await?;
        targets_are_the_pods(&stage, namespace, "web", 2).await?;
        targets_are_the_pods(&stage, namespace, "api", 1).await?;
        stage.settle(QUIET, SOON).await?;
        let before = Snapshot::take(&stage).await?.of_namespace(&stage, namespace, &BTreeSet::new()).await?;

        stage.stop_controller().await?;
        stage.proxy.reset();
        stage.start_controller(&[]).await?;
        stage.settle(QUIET, SOON).await?;
        let log = stage.proxy.log();
        let writes: Vec<&str> = log.iter().map(|call| call.name.as_str()).filter(|name| !is_read(name)).collect();
        ensure!(stage.proxy.counts().writes == 0, "a restart made writing calls: {writes:?}");
        ensure!(!log.is_empty(), "the restarted controller has not looked at AWS at all");

        // And it works: it sees an edit.
        apply(&stage, namespace, &[ingress("one", &[], &["web"])]).await?;
        rules_become(&stage, namespace, "one", &["/web forward"]).await?;
        apply(&stage, namespace, &[ingress("one", &[], &["web", "api"])]).await?;
        rules_become(&stage, namespace, "one", &["/web forward", "/api forward"]).await?;
        targets_are_the_pods(&stage, namespace, "api", 1).await?;
        let after = Snapshot::take(&stage).await?.of_namespace(&stage, namespace, &BTreeSet::new()).await?;
        let lines = e2e::symbolic::diff(&before, &after);
        ensure!(lines.is_empty(), "an edit there and back left differences:\n{}", lines.join("\n"));
        finish(stage, namespace).await
    });
}

#[test]
fn a_service_that_appears_after_its_ingress_is_picked_up() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "late-service";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        rules_become(&stage, namespace, "web", &["/web 503"]).await?;
        apply(&stage, namespace, &[deployment("web", 1), service("web")]).await?;
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;
        for replicas in [1, 3, 0, 2] {
            apply(&stage, namespace, &[deployment("web", replicas)]).await?;
            let what = format!("{replicas} targets");
            targets_are_the_pods(&stage, namespace, "web", replicas).await.context(what)?;
        }
        finish(stage, namespace).await
    });
}

#[test]
fn an_unknown_annotation_is_named_with_the_key_that_was_meant() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "typo";
        stage.cluster.namespace(namespace).await?;
        let typo = ingress("web", &[("alb.ingress.kubernetes.io/healthcheck-pth", "/healthz")], &["web"]);
        apply(&stage, namespace, &[service("web"), typo]).await?;
        let event = warning(&stage, namespace, "Ingress/web", "healthcheck-pth").await?;
        ensure!(
            event.message.contains("alb.ingress.kubernetes.io/healthcheck-path"),
            "the event does not name the key that was meant: {event:?}"
        );
        served(&stage, namespace, "web").await?;
        finish(stage, namespace).await
    });
}

#[test]
fn a_denied_call_is_told_harms_nobody_else_and_heals() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "denied";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), service("api"), ingress("works", &[], &["web"])]).await?;
        served(&stage, namespace, "works").await?;
        stage.settle(QUIET, SOON).await?;

        let deny = Calls::named("elasticloadbalancing:CreateLoadBalancer");
        stage.proxy.set_faults(Faults { deny: Some(deny), ..Faults::default() });
        apply(&stage, namespace, &[ingress("denied", &[], &["web"])]).await?;
        let event = warning(&stage, namespace, "Ingress/denied", "CreateLoadBalancer").await?;
        ensure!(event.message.contains("elasticloadbalancing:CreateLoadBalancer"), "no permission named: {event:?}");
        apply(&stage, namespace, &[ingress("works", &[], &["web", "api"])]).await?;
        rules_become(&stage, namespace, "works", &["/web forward", "/api forward"]).await?;
        let warnings = stage.cluster.events(namespace).await?;
        let harmed = warnings.iter().find(|event| event.type_ == "Warning" && event.object == "Ingress/works");
        ensure!(harmed.is_none(), "the healthy Ingress has a warning: {harmed:?}");

        stage.proxy.set_faults(Faults::default());
        served_within(&stage, namespace, "denied", WITH_RETRIES).await?;
        finish(stage, namespace).await
    });
}

#[test]
fn throttling_of_half_the_calls_only_delays() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "throttled";
        stage.cluster.namespace(namespace).await?;
        stage.proxy.reset();
        stage.proxy.set_faults(Faults { throttle_rate: 0.5, seed: 1, ..Faults::default() });
        apply(&stage, namespace, &[service("web"), deployment("web", 1), ingress("web", &[], &["web"])]).await?;
        served_within(&stage, namespace, "web", WITH_RETRIES).await?;
        targets_within(&stage, namespace, "web", 1, WITH_RETRIES).await?;
        ensure!(!stage.proxy.counts().throttled.is_empty(), "nothing was throttled");
        stage.proxy.set_faults(Faults::default());
        finish(stage, namespace).await
    });
}

#[test]
fn lost_answers_make_no_duplicates() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "lost-answers";
        stage.cluster.namespace(namespace).await?;
        stage.proxy.reset();
        stage.proxy.set_faults(Faults { lost_rate: 0.3, only: Some(Calls::writes()), seed: 1, ..Faults::default() });
        let services = ["web", "api", "admin"];
        apply(&stage, namespace, &services.map(service)).await?;
        apply(&stage, namespace, &services.map(|name| deployment(name, 1))).await?;
        apply(&stage, namespace, &[ingress("web", &[], &services)]).await?;
        served_within(&stage, namespace, "web", WITH_RETRIES).await?;
        for service in services {
            targets_within(&stage, namespace, service, 1, WITH_RETRIES).await?;
        }
        let failed = stage.proxy.counts().failed;
        ensure!(!failed.is_empty(), "no answer was lost");
        stage.proxy.set_faults(Faults::default());
        rules_become(&stage, namespace, "web", &["/web forward", "/api forward", "/admin forward"]).await?;
        stage.settle(QUIET, WITH_RETRIES).await?;
        let snapshot = Snapshot::take(&stage).await?;
        let names = |kind: &str| -> Vec<String> {
            let stacks = snapshot.stacks.values().filter_map(|stack| stack[kind].as_object());
            stacks.flat_map(|kinds| kinds.keys().cloned()).filter(|name| !name.starts_with("tg:ext-")).collect()
        };
        let (balancers, groups, security) = (names("loadBalancers"), names("targetGroups"), names("securityGroups"));
        let security_of_us = security.iter().filter(|name| *name != NODE_SECURITY_GROUP).count();
        ensure!(
            (balancers.len(), groups.len(), security_of_us) == (1, 3, 2),
            "after losing {failed:?} there are {balancers:?}, {groups:?}, {security:?}"
        );
        finish(stage, namespace).await
    });
}
