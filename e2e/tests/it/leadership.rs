//! The leader, and its loss of the lease: a crash in the middle of an edit, a rollout, and an API server
//! that is away for a minute.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::cluster::text;
use e2e::lab::controller::Controller;
use e2e::lab::proxy::{Call, Faults, is_read};
use e2e::lab::{wait_for, wait_until};
use tokio::time::Instant;

use crate::support::{
    SOON, Stage, WITH_RETRIES, apply, gone, ingress, kubeconfig_with_port, leave, quiet_writes, rules_become, run,
    served, served_within, service, stays, way_to_api_server,
};

/// Elects, in a namespace that exists by itself.
const ELECTION: [&str; 2] = ["--enable-leader-election=true", "--leader-election-namespace=default"];
const COUNT: usize = 100;
/// The most that a change may take whose leader has crashed in the middle of it: the lease of 15 s has to run out, on a busy machine.
const AFTER_A_CRASH: Duration = Duration::from_secs(30);
/// The most that a change may take that comes as the leader is asked to stop, on a busy machine: the lease
/// does not run out in that time, it has to be released.
const AFTER_A_STOP: Duration = Duration::from_secs(10);

#[test]
fn a_leader_that_crashes_or_stops_is_followed_within_seconds_and_nothing_is_written_twice() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "leaders";
        stage.proxy.set_faults(Faults { latency: Duration::from_millis(50), ..Faults::default() });
        stage.start_controller(&ELECTION).await?;
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), service("api")]).await?;
        let names: Vec<String> = (0..COUNT).map(|number| format!("web-{number}")).collect();
        apply(&stage, namespace, &names.iter().map(|name| ingress(name, &[], &["web"])).collect::<Vec<_>>()).await?;
        for name in &names {
            served_within(&stage, namespace, name, Duration::from_secs(180)).await?;
        }
        let mut leader = stage.controller.take().context("no controller")?;
        leader.idle(WITH_RETRIES).await?;
        let mut standby = stage.controller(&ELECTION)?;
        standby.ready(SOON).await?;
        stage.proxy.keep_bodies(true);

        // The leader is killed when the first write for the edit is on its way.
        let listener = listener_of(&stage, namespace, "web-17").await?;
        stage.proxy.reset();
        apply(&stage, namespace, &[ingress("web-17", &[], &["web", "api"])]).await?;
        let edited = Instant::now();
        wait_until(SOON, "the edit to have begun", async || Ok(stage.proxy.counts().writes > 0)).await?;
        leader.kill();
        let done_before = rules_of(&stage, &listener).await?;
        ensure!(done_before == ["/web"], "the crash came too late: the rules are {done_before:?}");
        rules_are(&stage, &listener, &["/web", "/api"], AFTER_A_CRASH).await?;
        let took = edited.elapsed();
        standby.idle(SOON).await?;
        let log = stage.proxy.log();
        nothing_is_written_twice(&log)?;
        println!("after a crash: the edit is in AWS after {took:?}; then idle after {} calls", log.len());

        // Asked to stop as the edit comes.
        let leader = standby;
        let mut standby = stage.controller(&ELECTION)?;
        standby.ready(SOON).await?;
        let listener = listener_of(&stage, namespace, "web-18").await?;
        stage.proxy.reset();
        let edit = async {
            apply(&stage, namespace, &[ingress("web-18", &[], &["web", "api"])]).await?;
            let edited = Instant::now();
            rules_are(&stage, &listener, &["/web", "/api"], AFTER_A_STOP).await?;
            Ok(edited.elapsed())
        };
        let log_of_leader = leader.log().to_owned();
        let ((), took) = futures::future::try_join(leader.stop(), edit).await?;
        let log_of_leader = std::fs::read_to_string(log_of_leader)?;
        ensure!(
            !log_of_leader.contains("stopping in the middle of work"),
            "the leader did not end its work: {log_of_leader}"
        );
        standby.idle(SOON).await?;
        let log = stage.proxy.log();
        nothing_is_written_twice(&log)?;
        println!("after SIGTERM: the edit is in AWS after {took:?}; then idle after {} calls", log.len());

        stage.proxy.set_faults(Faults::default());
        stage.proxy.keep_bodies(false);
        stage.controller = Some(standby);
        leave(stage, namespace).await
    });
}

#[test]
fn an_api_server_that_is_away_for_a_minute_ends_nobody_and_deletes_nothing() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "away";
        let mut way = way_to_api_server(&stage).await?;
        let kubeconfig = stage.directory().join("kubeconfig-of-minute");
        fs::write(&kubeconfig, kubeconfig_with_port(&stage, way.port)?)?;
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        // All is compared with AWS as long as a process leads, again and again.
        let flags = [ELECTION[0], ELECTION[1], &kubeconfig, "--sync-period=1s"];
        stage.start_controller(&flags).await?;
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), service("api")]).await?;
        apply(&stage, namespace, &[ingress("stays", &[], &["web"]), ingress("goes", &[], &["web"])]).await?;
        for name in ["stays", "goes"] {
            served(&stage, namespace, name).await?;
            rules_become(&stage, namespace, name, &["/web forward"]).await?;
        }
        let mut both = [stage.controller.take().context("no controller")?, stage.controller(&flags)?];
        both[1].ready(SOON).await?;
        quiet_writes(&stage).await?;

        way.cut().await;
        stage.proxy.reset();
        stage.cluster.delete("networking.k8s.io/v1", "Ingress", Some(namespace), "goes").await?;
        apply(&stage, namespace, &[ingress("stays", &[], &["web", "api"])]).await?;
        stays(Duration::from_secs(60), "both controllers wait for the API server", async || {
            both.iter_mut().try_for_each(Controller::check_running)?;
            let counts = stage.proxy.counts();
            ensure!(counts.writes == 0, "AWS is changed: {:?}", counts.actions);
            Ok(())
        })
        .await?;
        for controller in &both {
            ensure!(controller.metrics().await?.contains("\nalbatross_leader 0\n"), "it leads without a lease");
        }

        way.mend().await?;
        rules_become(&stage, namespace, "stays", &["/web forward", "/api forward"]).await?;
        gone(&stage, "networking.k8s.io/v1", "Ingress", Some(namespace), "goes").await?;
        both.iter_mut().try_for_each(Controller::check_running)?;
        let [first, second] = both;
        let leads = async |controller: &Controller| -> Result<bool> {
            let metrics = controller.metrics().await?;
            // What one kind does not show yet is not taken for something that another program undoes.
            ensure!(!metrics.contains("\nalbatross_repeated_steps_total{"), "a step was carried out again and again");
            Ok(metrics.contains("\nalbatross_leader 1\n"))
        };
        ensure!(leads(&first).await? != leads(&second).await?, "just one of the two is to lead");
        stage.controller = Some(if leads(&first).await? { first } else { second });
        leave(stage, namespace).await
    });
}

/// The ARN of the one listener of an Ingress. The whole account is too much to be asked again and again.
async fn listener_of(stage: &Stage, namespace: &str, name: &str) -> Result<String> {
    let object = stage.cluster.get("networking.k8s.io/v1", "Ingress", Some(namespace), name).await?;
    let host = object.map(|object| text(&object, "/status/loadBalancer/ingress/0/hostname").to_owned());
    let host = host.context("no Ingress")?;
    let balancers = stage.aws.elb.describe_load_balancers().into_paginator().items().send();
    let balancers = balancers.collect::<Result<Vec<_>, _>>().await?;
    let balancer = balancers.iter().find(|balancer| balancer.dns_name().is_some_and(|n| n.eq_ignore_ascii_case(&host)));
    let arn = balancer.and_then(|balancer| balancer.load_balancer_arn()).context("no load balancer")?;
    let listeners = stage.aws.elb.describe_listeners().load_balancer_arn(arn).send().await?;
    let listener = listeners.listeners().first().and_then(|listener| listener.listener_arn());
    Ok(listener.context("no listener")?.to_owned())
}

/// The paths of a listener's rules in their order, without the default rule.
async fn rules_of(stage: &Stage, listener: &str) -> Result<Vec<String>> {
    let rules = stage.aws.elb.describe_rules().listener_arn(listener).send().await?;
    let mut rules: Vec<(u32, String)> = rules
        .rules()
        .iter()
        .filter_map(|rule| {
            let paths = rule.conditions().iter().filter_map(|condition| condition.path_pattern_config());
            let paths: Vec<String> = paths.flat_map(|config| config.values().to_vec()).collect();
            Some((rule.priority()?.parse().ok()?, paths.join(",")))
        })
        .collect();
    rules.sort();
    Ok(rules.into_iter().map(|(_, paths)| paths).collect())
}

async fn rules_are(stage: &Stage, listener: &str, expected: &[&str], within: Duration) -> Result<()> {
    wait_for(within, &format!("the rules to be {expected:?}"), async || {
        let found = rules_of(stage, listener).await?;
        ensure!(found == expected, "they are {found:?}");
        Ok(Some(()))
    })
    .await
}

/// Fails if AWS received the same write twice. A write whose sender was killed before the proxy forwarded it does not count;
/// a write that AWS may have executed counts, whether its answer arrived or not.
fn nothing_is_written_twice(log: &[Call]) -> Result<()> {
    let mut seen: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for call in log.iter().filter(|call| !is_read(&call.name) && call.passed_on) {
        *seen.entry((&call.name, call.body.as_deref().context("the bodies are not kept")?)).or_default() += 1;
    }
    ensure!(!seen.is_empty(), "nothing was written at all");
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(twice.is_empty(), "written more than once: {twice:?}");
    Ok(())
}
