//! What the controller promises over the life of an Ingress: it follows what it depends on, tells what is wrong, survives
//! what AWS does, and leaves nothing behind. Every test ends by deleting its namespace and finding the account empty.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::cluster::{EventLine, items, text};
use e2e::lab::proxy::{Calls, Faults, is_read};
use e2e::lab::world::NODE_SECURITY_GROUP;
use e2e::lab::{Lab, wait_for, wait_until};
use e2e::symbolic::Snapshot;
use serde_json::{Map, Value, json};

use crate::support::{SOON, Stage, run};

/// For what has to be tried again, with a delay that grows.
const WITH_RETRIES: Duration = Duration::from_secs(90);
const QUIET: Duration = Duration::from_secs(3);
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
        let rules = node_rules(&stage).await?;
        ensure!(
            rules.len() == 1 && rules[0].ends_with(NODE_RULE) && rules[0].starts_with("tcp 8080-8080 sg:"),
            "the node security group's rules are {rules:?}"
        );
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
        let before = Snapshot::take(&stage).await?.of_namespace(&stage, namespace).await?;

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
        let after = Snapshot::take(&stage).await?.of_namespace(&stage, namespace).await?;
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
fn a_refused_annotation_makes_no_load_balancer() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "refused";
        stage.cluster.namespace(namespace).await?;
        stage.proxy.reset();
        let refused = ingress("web", &[("alb.ingress.kubernetes.io/auth-type", "oidc")], &["web"]);
        apply(&stage, namespace, &[service("web"), refused]).await?;
        warning(&stage, namespace, "Ingress/web", "auth-type").await?;
        stage.settle(QUIET, SOON).await?;
        let counts = stage.proxy.counts();
        ensure!(!counts.actions.contains_key("elasticloadbalancing:CreateLoadBalancer"), "made: {:?}", counts.actions);
        // Without what was refused it is served.
        let accepted = ingress("web", &[("alb.ingress.kubernetes.io/auth-type", "none")], &["web"]);
        apply(&stage, namespace, &[accepted]).await?;
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

// Manifests.

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

fn deployment(name: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    // A namespace's deletion waits for as long as its pods may take to end.
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "app", "image": "example.com/app", "ports": [{"containerPort": 8080}]}],
                },
            },
        },
    })
}

/// An Ingress with a path for each Service, of the Service's name.
fn ingress(name: &str, annotations: &[(&str, &str)], services: &[&str]) -> Value {
    let mut all = Map::new();
    all.insert("alb.ingress.kubernetes.io/scheme".to_owned(), "internet-facing".into());
    all.insert("alb.ingress.kubernetes.io/target-type".to_owned(), "ip".into());
    all.extend(annotations.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))));
    let path = |service: &&str| {
        json!({
            "path": format!("/{service}"),
            "pathType": "Exact",
            "backend": {"service": {"name": service, "port": {"number": 80}}},
        })
    };
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "annotations": all},
        "spec": {
            "ingressClassName": "alb",
            "rules": [{"host": format!("{name}.example.com"), "http": {"paths": services.iter().map(path).collect::<Vec<_>>()}}],
        },
    })
}

async fn apply(lab: &Lab, namespace: &str, objects: &[Value]) -> Result<()> {
    let mut objects = objects.to_vec();
    objects.iter_mut().for_each(|object| object["metadata"]["namespace"] = namespace.into());
    lab.cluster.apply(&objects).await
}

// Conditions.

async fn served(lab: &Lab, namespace: &str, ingress: &str) -> Result<()> {
    served_within(lab, namespace, ingress, SOON).await
}

/// Waits until the Ingress tells the host name of a load balancer that AWS has.
async fn served_within(lab: &Lab, namespace: &str, ingress: &str, deadline: Duration) -> Result<()> {
    let what = format!("Ingress {namespace}/{ingress} to have a load balancer");
    wait_until(deadline, &what, async || {
        let object = lab.cluster.get("networking.k8s.io/v1", "Ingress", Some(namespace), ingress).await?;
        let host = object.map(|object| text(&object, "/status/loadBalancer/ingress/0/hostname").to_owned());
        let host = host.filter(|host| !host.is_empty());
        let balancers = lab.aws.elb.describe_load_balancers().send().await?;
        let mut names = balancers.load_balancers().iter().filter_map(|balancer| balancer.dns_name());
        Ok(host.is_some_and(|host| names.any(|name| name.eq_ignore_ascii_case(&host))))
    })
    .await
}

/// Waits until the rules of the Ingress's listener on port 80 are these, each `path forward` or `path status`.
async fn rules_become(lab: &Lab, namespace: &str, ingress: &str, expected: &[&str]) -> Result<()> {
    let what = format!("the rules of {namespace}/{ingress} to be {expected:?}");
    wait_until(SOON, &what, async || {
        let snapshot = Snapshot::take(lab).await?;
        let stack = snapshot.stacks.get(&format!("ingress:{namespace}/{ingress}")).context("it has no stack")?;
        let balancers = stack["loadBalancers"].as_object().context("it has no load balancer")?;
        ensure!(balancers.len() == 1, "it has {} load balancers", balancers.len());
        let rules = balancers.values().flat_map(|balancer| items(balancer, "/listeners/80/rules"));
        let found: Vec<String> = rules.map(rule_line).collect();
        ensure!(found == expected, "they are {found:?}");
        Ok(true)
    })
    .await
}

fn rule_line(rule: &Value) -> String {
    let conditions = items(rule, "/conditions").iter();
    let paths =
        conditions.flat_map(|condition| items(condition, "/PathPatternConfig/Values")).filter_map(Value::as_str);
    let action = match text(rule, "/actions/0/Type") {
        "fixed-response" => text(rule, "/actions/0/FixedResponseConfig/StatusCode"),
        other => other,
    };
    format!("{} {action}", paths.collect::<Vec<_>>().join(","))
}

async fn targets_are_the_pods(lab: &Lab, namespace: &str, service: &str, count: usize) -> Result<()> {
    targets_within(lab, namespace, service, count, SOON).await
}

/// Waits until there are `count` Ready pods of the Service, and its target group's targets are just they.
async fn targets_within(lab: &Lab, namespace: &str, service: &str, count: usize, deadline: Duration) -> Result<()> {
    let what = format!("the targets of {namespace}/{service} to be its {count} pods");
    wait_until(deadline, &what, async || {
        let pods = lab.cluster.list("v1", "Pod", Some(namespace)).await?;
        let own = pods.iter().filter(|pod| text(pod, "/metadata/labels/app") == service);
        let wanted: BTreeSet<String> = own.map(|pod| format!("{}:8080", text(pod, "/status/podIP"))).collect();
        ensure!(wanted.len() == count, "the pods are {wanted:?}");
        let snapshot = Snapshot::take(lab).await?;
        let groups = snapshot.stacks.values().filter_map(|stack| stack["targetGroups"].as_object()).flatten();
        let end = format!("-{service}:80");
        let mut groups = groups.filter(|(name, _)| name.contains(&format!("|{namespace}/")) && name.ends_with(&end));
        let (_, group) = groups.next().context("there is no target group")?;
        let found: BTreeSet<String> =
            items(group, "/targets").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        ensure!(found == wanted, "the targets are {found:?}, the pods {wanted:?}");
        Ok(true)
    })
    .await
}

/// Waits for a Warning about the object whose message has `part`.
async fn warning(lab: &Lab, namespace: &str, object: &str, part: &str) -> Result<EventLine> {
    wait_for(SOON, &format!("a Warning on {object} about {part}"), async || {
        let events = lab.cluster.events(namespace).await?;
        let wanted =
            |event: &&EventLine| event.type_ == "Warning" && event.object == object && event.message.contains(part);
        match events.iter().find(wanted) {
            Some(event) => Ok(Some(event.clone())),
            None => anyhow::bail!("the events are {events:?}"),
        }
    })
    .await
}

async fn gone(lab: &Lab, api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Result<()> {
    wait_until(WITH_RETRIES, &format!("{kind} {name} to be gone"), async || {
        match lab.cluster.get(api_version, kind, namespace, name).await? {
            None => Ok(true),
            Some(object) => anyhow::bail!("it is still there: {}", object["metadata"]["finalizers"]),
        }
    })
    .await
}

/// The ingress rules of the nodes' security group.
async fn node_rules(lab: &Lab) -> Result<Vec<String>> {
    let snapshot = Snapshot::take(lab).await?;
    let group = &snapshot.stacks["none"]["securityGroups"][NODE_SECURITY_GROUP];
    Ok(items(group, "/ingress").iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Whether AWS has only what the lab made itself; the error says what else there is.
async fn account_is_empty(lab: &Lab) -> Result<bool> {
    let snapshot = Snapshot::take(lab).await?;
    let mut left = Vec::new();
    for (stack, kinds) in &snapshot.stacks {
        for (kind, resources) in kinds.as_object().into_iter().flatten() {
            let names = resources.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
            let ours = names.filter(|name| !name.starts_with("tg:ext-") && *name != NODE_SECURITY_GROUP);
            left.extend(ours.map(|name| format!("{stack} {kind} {name}")));
        }
    }
    left.extend(node_rules(lab).await?);
    ensure!(left.is_empty(), "there are {left:?}");
    Ok(true)
}

/// Deletes the namespace, finds that it goes and that the account is as before, and leaves the lab to the next test.
async fn finish(stage: Stage, namespace: &str) -> Result<()> {
    stage.cluster.delete("v1", "Namespace", None, namespace).await?;
    gone(&stage, "v1", "Namespace", None, namespace).await?;
    wait_until(WITH_RETRIES, "the account to be empty", async || account_is_empty(&stage).await).await?;
    stage.leave_clean();
    Ok(())
}
