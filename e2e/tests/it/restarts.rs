//! Restarts: a stack in its desired state is not read again, a changed one is, and a crash at any moment leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, FixedResponseActionConfig, ProtocolEnum, Tag, TargetTypeEnum,
};
use e2e::lab::{cluster::text, wait_until};
use serde_json::{Value, json};

use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, account_is_empty, apply, deployment, finish, gone, ingress, leave, rules_become,
    run, served_within, service, stack_of, targets_are_the_pods, without_hashes,
};

const INGRESS: (&str, &str) = ("networking.k8s.io/v1", "Ingress");

/// The calls since the last reset, by operation.
fn calls(stage: &Stage) -> BTreeMap<String, u64> {
    let counts = stage.proxy.counts();
    counts
        .actions
        .iter()
        .map(|(action, count)| (action.rsplit(':').next().unwrap_or(action).to_owned(), *count))
        .collect()
}

async fn idle(stage: &mut Stage) -> Result<()> {
    stage.controller.as_mut().context("no controller")?.idle(WITH_RETRIES).await
}

/// Lists of everything with the tags of resources of other owners, and reads that the nodes' rules are computed from: they
/// cost the same however much there is.
fn is_a_list(operation: &str) -> bool {
    let lists = ["DescribeLoadBalancers", "DescribeTargetGroups", "DescribeSecurityGroups", "DescribeTags"];
    lists.contains(&operation) || ["DescribeInstances", "DescribeNetworkInterfaces"].contains(&operation)
}

#[test]
fn a_restart_reads_only_lists_and_what_has_changed_meanwhile() {
    run(async {
        let mut stage = Stage::shared().await?;
        let namespace = "restart";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), service("api"), deployment("web", 2)]).await?;
        let names = ["one", "two", "three"];
        apply(&stage, namespace, &names.map(|name| ingress(name, &[], &["web"]))).await?;
        let mut network = service("network");
        network["spec"]["type"] = json!("LoadBalancer");
        network["spec"]["loadBalancerClass"] = json!("service.k8s.aws/nlb");
        apply(&stage, namespace, &[network]).await?;
        for name in names {
            served_within(&stage, namespace, name, WITH_RETRIES).await?;
            rules_become(&stage, namespace, name, &["/web forward"]).await?;
        }
        targets_are_the_pods(&stage, namespace, "web", 2).await?;
        stage.settle(QUIET, WITH_RETRIES).await?;
        idle(&mut stage).await?;

        // Killed, as nothing is pending: all is written that a restart needs.
        stage.controller.take().context("no controller")?.kill();
        stage.proxy.reset();
        stage.start_controller(&[]).await?;
        stage.settle(QUIET, SOON).await?;
        let made = calls(&stage);
        ensure!(made.keys().all(|operation| is_a_list(operation)), "a restart where nothing changed calls {made:?}");
        ensure!(made.values().sum::<u64>() <= 10, "it calls {made:?}");

        // A trusted record is good enough for an edit, too.
        stage.proxy.reset();
        apply(&stage, namespace, &[ingress("one", &[], &["web", "api"])]).await?;
        rules_become(&stage, namespace, "one", &["/web forward", "/api forward"]).await?;
        idle(&mut stage).await?;
        let made = calls(&stage);
        let read = |operation: &&String| operation.starts_with("Describe") && !is_a_list(operation);
        ensure!(made.keys().find(read).is_none(), "an edit after a restart calls {made:?}");

        // Changes of others while no controller runs are found by the audit.
        stage.stop_controller().await?;
        delete_rules(&stage, namespace, "two").await?;
        delete_load_balancer(&stage, namespace, "three").await?;
        stage.start_controller(&[]).await?;
        // A load balancer that is gone is seen at once, as it is missing in the list.
        served_within(&stage, namespace, "three", WITH_RETRIES).await?;
        rules_become(&stage, namespace, "three", &["/web forward"]).await?;
        idle(&mut stage).await?;
        stage.stop_controller().await?;
        let before = stack_of(&stage, namespace, "one").await?;
        edit_default_action(&stage, namespace, "one").await?;
        deregister_everything(&stage, namespace, "web").await?;
        ensure!(before != stack_of(&stage, namespace, "one").await?, "nothing was edited by hand");
        stage.start_controller(&["--sync-period=10s"]).await?;
        rules_become(&stage, namespace, "two", &["/web forward"]).await?;
        targets_are_the_pods(&stage, namespace, "web", 2).await?;
        wait_until(WITH_RETRIES, "the default action to be as before", async || {
            Ok(stack_of(&stage, namespace, "one").await? == before)
        })
        .await?;
        finish(stage, namespace).await
    });
}

#[test]
fn a_tag_that_leaves_an_annotation_leaves_aws_after_a_restart_too_and_those_of_others_stay() {
    const TAGS: &str = "alb.ingress.kubernetes.io/tags";
    run(async {
        let mut stage = Stage::shared().await?;
        let namespace = "tags";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), ingress("web", &[(TAGS, "keep=1,drop=2")], &["web"])]).await?;
        served_within(&stage, namespace, "web", WITH_RETRIES).await?;
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;
        idle(&mut stage).await?;
        let balancer = balancer_of(&stage, namespace, "web").await?;
        ensure!(tags_of(&stage, &balancer).await? == ["drop=2", "keep=1"], "it was made with other tags");
        let by_hand = Tag::builder().key("by-hand").value("x").build();
        stage.aws.elb.add_tags().resource_arns(&balancer).tags(by_hand).send().await?;
        stage.controller.take().context("no controller")?.kill();
        stage.start_controller(&[]).await?;
        apply(&stage, namespace, &[ingress("web", &[(TAGS, "keep=9")], &["web"])]).await?;
        wait_until(WITH_RETRIES, "the tag to go, and no other", async || {
            let tags = tags_of(&stage, &balancer).await?;
            ensure!(tags == ["by-hand=x", "keep=9"], "the tags are {tags:?}");
            Ok(true)
        })
        .await?;
        finish(stage, namespace).await
    });
}

/// Returns the tags of a load balancer, except the tags that name its owner.
async fn tags_of(stage: &Stage, balancer: &str) -> Result<Vec<String>> {
    let answer = stage.aws.elb.describe_tags().resource_arns(balancer).send().await?;
    let tags = answer.tag_descriptions().iter().flat_map(|description| description.tags());
    let pairs = tags.map(|tag| (tag.key().unwrap_or_default(), tag.value().unwrap_or_default()));
    let of_users = pairs.filter(|(key, _)| !key.contains(".k8s.aws/"));
    let sorted: BTreeSet<String> = of_users.map(|(key, value)| format!("{key}={value}")).collect();
    Ok(sorted.into_iter().collect())
}

async fn balancer_of(stage: &Stage, namespace: &str, name: &str) -> Result<String> {
    let object = stage.cluster.get(INGRESS.0, INGRESS.1, Some(namespace), name).await?.context("no Ingress")?;
    let host = text(&object, "/status/loadBalancer/ingress/0/hostname").to_owned();
    let balancers = stage.aws.elb.describe_load_balancers().send().await?;
    let found =
        balancers.load_balancers().iter().find(|b| b.dns_name().is_some_and(|name| name.eq_ignore_ascii_case(&host)));
    Ok(found.and_then(|b| b.load_balancer_arn()).context("no load balancer")?.to_owned())
}

async fn delete_rules(stage: &Stage, namespace: &str, name: &str) -> Result<()> {
    let balancer = balancer_of(stage, namespace, name).await?;
    let listeners = stage.aws.elb.describe_listeners().load_balancer_arn(balancer).send().await?;
    for listener in listeners.listeners() {
        let arn = listener.listener_arn().unwrap_or_default();
        for rule in stage.aws.elb.describe_rules().listener_arn(arn).send().await?.rules() {
            if rule.is_default() != Some(true) {
                stage.aws.elb.delete_rule().rule_arn(rule.rule_arn().unwrap_or_default()).send().await?;
            }
        }
    }
    Ok(())
}

async fn edit_default_action(stage: &Stage, namespace: &str, name: &str) -> Result<()> {
    let balancer = balancer_of(stage, namespace, name).await?;
    let listeners = stage.aws.elb.describe_listeners().load_balancer_arn(balancer).send().await?;
    let response = FixedResponseActionConfig::builder().status_code("500").content_type("text/plain").build();
    let action = Action::builder().r#type(ActionTypeEnum::FixedResponse).fixed_response_config(response).build();
    for listener in listeners.listeners() {
        let edit = stage.aws.elb.modify_listener().listener_arn(listener.listener_arn().unwrap_or_default());
        edit.default_actions(action.clone()).send().await?;
    }
    Ok(())
}

/// Deregisters all targets of the target groups of a Service.
async fn deregister_everything(stage: &Stage, namespace: &str, service: &str) -> Result<()> {
    let bindings = stage.cluster.list("elbv2.k8s.aws/v1beta1", "TargetGroupBinding", Some(namespace)).await?;
    let of_service = bindings.iter().filter(|binding| text(binding, "/spec/serviceRef/name") == service);
    for arn in of_service.map(|binding| text(binding, "/spec/targetGroupARN")) {
        let health = stage.aws.elb.describe_target_health().target_group_arn(arn).send().await?;
        let targets: Vec<_> =
            health.target_health_descriptions().iter().filter_map(|target| target.target().cloned()).collect();
        stage.aws.elb.deregister_targets().target_group_arn(arn).set_targets(Some(targets)).send().await?;
    }
    Ok(())
}

async fn delete_load_balancer(stage: &Stage, namespace: &str, name: &str) -> Result<()> {
    let balancer = balancer_of(stage, namespace, name).await?;
    stage.aws.elb.delete_load_balancer().load_balancer_arn(balancer).send().await?;
    Ok(())
}

#[test]
fn ten_crashes_while_twenty_ingresses_come_and_go_leave_nothing_behind() {
    run(async {
        let seed = match std::env::var("E2E_SEED") {
            Ok(seed) => seed.parse()?,
            Err(_) => u64::from(std::process::id()),
        };
        println!("E2E_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut stage = Stage::shared().await?;
        let namespace = "crashes";
        stage.cluster.namespace(namespace).await?;
        let names: Vec<String> = (0..20).map(|number| format!("web-{number}")).collect();
        apply(&stage, namespace, &[service("web"), service("api")]).await?;
        let ingresses: Vec<Value> = names.iter().map(|name| ingress(name, &[], &["web", "api"])).collect();
        apply(&stage, namespace, &ingresses).await?;
        for _ in 0..5 {
            crash(&mut stage, &mut random).await?;
        }
        for name in &names {
            served_within(&stage, namespace, name, WITH_RETRIES).await?;
            rules_become(&stage, namespace, name, &["/web forward", "/api forward"]).await?;
        }
        stage.settle(QUIET, WITH_RETRIES).await?;
        let first = same_for_all(&stage, namespace, &names).await?;
        // One that was made without any crash is no other.
        apply(&stage, namespace, &[ingress("calm", &[], &["web", "api"])]).await?;
        served_within(&stage, namespace, "calm", WITH_RETRIES).await?;
        rules_become(&stage, namespace, "calm", &["/web forward", "/api forward"]).await?;
        stage.settle(QUIET, WITH_RETRIES).await?;
        let calm = without_name(&stack_of(&stage, namespace, "calm").await?, "calm");
        ensure!(first == calm, "after crashes:\n{first}\nwithout:\n{calm}");

        for name in names.iter().map(String::as_str).chain(["calm"]) {
            stage.cluster.delete(INGRESS.0, INGRESS.1, Some(namespace), name).await?;
        }
        for _ in 0..5 {
            crash(&mut stage, &mut random).await?;
        }
        for name in names.iter().map(String::as_str).chain(["calm"]) {
            gone(&stage, INGRESS.0, INGRESS.1, Some(namespace), name).await?;
        }
        wait_until(WITH_RETRIES, "the account to be empty", async || account_is_empty(&stage).await).await?;
        leave(stage, namespace).await
    });
}

/// Kills the controller after a random number of writes, and starts it again.
async fn crash(stage: &mut Stage, random: &mut fastrand::Rng) -> Result<()> {
    let writes = random.u64(..25);
    stage.proxy.reset();
    let mut last = 0;
    // It may have nothing more to write.
    let waited = wait_until(Duration::from_secs(8), "some writes", async || {
        last = stage.proxy.counts().writes;
        Ok(last >= writes)
    })
    .await;
    println!("killed after {last} writes{}", if waited.is_err() { ", at rest" } else { "" });
    stage.controller.take().context("no controller")?.kill();
    stage.start_controller(&[]).await
}

/// Returns the AWS resources of each, which are the same for all of them except the name.
async fn same_for_all(stage: &Stage, namespace: &str, names: &[String]) -> Result<String> {
    let mut all = BTreeSet::new();
    for name in names {
        all.insert(without_name(&stack_of(stage, namespace, name).await?, name));
    }
    ensure!(all.len() == 1, "they differ:\n{}", all.into_iter().collect::<Vec<_>>().join("\n"));
    all.pop_first().context("there is none")
}

fn without_name(stack: &Value, name: &str) -> String {
    let text = serde_json::to_string_pretty(stack).unwrap_or_default();
    // Generated names hold the name without its hyphens.
    without_hashes(&text.replace(name, "NAME").replace(&name.replace('-', ""), "NAME"))
}

#[test]
fn a_crowded_account_is_listed_and_not_described_one_by_one() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "crowd";
        stage.cluster.namespace(namespace).await?;
        let (balancers, groups) = (300_u64, 1000_u64);
        let elb = &stage.aws.elb;
        let subnets = ["public-a", "public-b"].map(|subnet| stage.world.subnets[subnet].clone());
        for number in 0..balancers {
            let made = elb.create_load_balancer().name(format!("foreign-{number}"));
            made.set_subnets(Some(subnets.to_vec())).send().await?;
        }
        for number in 0..groups {
            let made =
                elb.create_target_group().name(format!("foreign-{number}")).protocol(ProtocolEnum::Http).port(80);
            made.vpc_id(&stage.world.vpc).target_type(TargetTypeEnum::Ip).send().await?;
        }
        let before = foreign(&stage).await?;
        ensure!(before.len() as u64 >= balancers + groups, "there are {}", before.len());
        stage.proxy.reset();
        stage.start_controller(&[]).await?;
        apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
        served_within(&stage, namespace, "web", WITH_RETRIES).await?;
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;
        idle(&mut stage).await?;
        let made = calls(&stage);
        let reads: u64 = made.iter().filter(|(name, _)| name.starts_with("Describe")).map(|(_, count)| count).sum();
        println!("calls in a crowded account: {made:?}");
        // Tags come in batches of 20; everything else is a handful.
        ensure!(reads <= (balancers + groups) / 20 + 25, "{reads} reads: {made:?}");

        stage.proxy.reset();
        stage.stop_controller().await?;
        stage.start_controller(&[]).await?;
        idle(&mut stage).await?;
        stage.settle(QUIET, SOON).await?;
        println!("calls of a restart in a crowded account: {:?}", calls(&stage));
        stage.cluster.delete(INGRESS.0, INGRESS.1, Some(namespace), "web").await?;
        gone(&stage, INGRESS.0, INGRESS.1, Some(namespace), "web").await?;
        let after = foreign(&stage).await?;
        ensure!(before == after, "something foreign was touched");
        // Tidying up one by one would take longer than a new lab.
        stage.end_lab();
        Ok(())
    });
}

/// Returns all load balancers and target groups as AWS describes them, without their state.
async fn foreign(stage: &Stage) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let mut balancers = stage.aws.elb.describe_load_balancers().into_paginator().items().send();
    while let Some(balancer) = balancers.next().await {
        let balancer = balancer?;
        all.insert(format!(
            "{:?} {:?} {:?}",
            balancer.load_balancer_arn(),
            balancer.security_groups(),
            balancer.scheme()
        ));
    }
    let mut groups = stage.aws.elb.describe_target_groups().into_paginator().items().send();
    while let Some(group) = groups.next().await {
        all.insert(format!("{:?}", group?));
    }
    Ok(all)
}
