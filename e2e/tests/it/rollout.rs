//! A Deployment rolls over behind a load balancer: what is registered never falls below what the Deployment guarantees. It
//! is read from the calls that were made, in the order in which AWS did them, and not from looking now and then.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::cluster::{condition_is_true, text};
use e2e::lab::kubelet::{ENDS_AFTER, READY_AFTER};
use e2e::lab::proxy::{Call, Calls, Faults};
use e2e::lab::wait_until;
use serde_json::{Value, json};

use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, apply, deployment, ingress, leave, run, served, service, stays,
    targets_are_the_pods, targets_within,
};

const REGISTER: &str = "elasticloadbalancing:RegisterTargets";
const DEREGISTER: &str = "elasticloadbalancing:DeregisterTargets";
const PODS: usize = 20;
/// A quarter of [`PODS`] may be unavailable.
const GUARANTEED: usize = 15;

/// A Deployment that may lack five pods and have five more than it requests, whose pods take a moment to start and to end.
fn rolling(version: &str) -> Value {
    let mut deployment = deployment("web", PODS);
    let rolling = json!({"maxUnavailable": "25%", "maxSurge": "25%"});
    deployment["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
    let metadata = &mut deployment["spec"]["template"]["metadata"];
    metadata["labels"]["version"] = version.into();
    metadata["annotations"] = json!({READY_AFTER: "700", ENDS_AFTER: "1200"});
    deployment
}

/// Twenty pods, served and registered, and nothing more to do.
async fn twenty_pods(namespace: &str) -> Result<Stage> {
    let stage = Stage::shared().await?;
    stage.cluster.namespace(namespace).await?;
    apply(&stage, namespace, &[service("web"), rolling("one"), ingress("web", &[], &["web"])]).await?;
    served(&stage, namespace, "web").await?;
    targets_are_the_pods(&stage, namespace, "web", PODS).await?;
    stage.settle(QUIET, SOON).await?;
    stage.proxy.keep_bodies(true);
    stage.proxy.reset();
    Ok(stage)
}

/// The addresses of the pods of a version, as targets.
async fn targets_of(stage: &Stage, namespace: &str, version: &str) -> Result<BTreeSet<String>> {
    let pods = stage.cluster.list("v1", "Pod", Some(namespace)).await?;
    let own = pods.iter().filter(|pod| text(pod, "/metadata/labels/version") == version);
    Ok(own.map(|pod| format!("{}:8080", text(pod, "/status/podIP"))).collect())
}

/// Waits until the Deployment says that it has rolled over.
async fn rolled_over(stage: &Stage, namespace: &str) -> Result<()> {
    wait_until(WITH_RETRIES, "the Deployment to have rolled over", async || {
        let found =
            stage.cluster.get("apps/v1", "Deployment", Some(namespace), "web").await?.context("no Deployment")?;
        let (status, wanted) = (&found["status"], PODS as u64);
        let all = ["replicas", "updatedReplicas", "availableReplicas"].map(|count| status[count].as_u64());
        Ok(all == [Some(wanted); 3] && status["observedGeneration"] == found["metadata"]["generation"])
    })
    .await
}

/// One change of what is registered.
struct Change {
    at: Duration,
    registers: bool,
    targets: BTreeSet<String>,
}

/// Returns the changes in AWS, in order. A registration counts from the time at which AWS had done it, and the end of one from the time
/// at which it was requested, so that where two calls overlap, the fewest targets are seen.
fn changes(log: &[Call]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut groups = BTreeSet::new();
    for call in log.iter().filter(|call| call.name == REGISTER || call.name == DEREGISTER) {
        let Some(done) = call.done else { continue };
        groups.insert(call.field("TargetGroupArn").context("a call that names no target group")?);
        let (ids, ports) = (call.members("Targets.member", "Id"), call.members("Targets.member", "Port"));
        let targets = ids.into_iter().zip(ports);
        let targets = targets.map(|(id, port)| Some(format!("{}:{}", id?, port?))).collect::<Option<_>>();
        let targets = targets.with_context(|| format!("a target without address or port: {call}"))?;
        let registers = call.name == REGISTER;
        changes.push(Change { at: if registers { done } else { call.at }, registers, targets });
    }
    ensure!(groups.len() <= 1, "the calls are for several target groups: {groups:?}");
    changes.sort_by_key(|change| change.at);
    Ok(changes)
}

/// Goes through what AWS did, and fails where fewer than the guaranteed targets are registered. Returns what is at the end.
fn replay(before: &BTreeSet<String>, log: &[Call]) -> Result<BTreeSet<String>> {
    let mut registered = before.clone();
    let mut trace = vec![format!("{:>9} {:>2}", "", registered.len())];
    for change in changes(log)? {
        let list = change.targets.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        if change.registers {
            registered.extend(change.targets);
        } else {
            registered.retain(|target| !change.targets.contains(target));
        }
        let sign = if change.registers { '+' } else { '-' };
        trace.push(format!("{:9.3} {:>2} {sign} {list}", change.at.as_secs_f64(), registered.len()));
        ensure!(
            registered.len() >= GUARANTEED,
            "only {} targets are registered where the Deployment guarantees {GUARANTEED} ready pods:\n{}",
            registered.len(),
            trace.join("\n")
        );
    }
    Ok(registered)
}

/// The first call of each kind, and half of the others: few may be made, and each kind must be struck.
fn first_and_half() -> Calls {
    let dice = Mutex::new((BTreeSet::new(), fastrand::Rng::with_seed(1)));
    Calls::that(move |call| {
        let mut dice = dice.lock().unwrap_or_else(PoisonError::into_inner);
        let half = dice.1.bool();
        dice.0.insert(call.to_owned()) || half
    })
}

#[test]
fn a_rollout_under_throttling_keeps_the_guaranteed_targets_registered() {
    run(async {
        let namespace = "rollout";
        let stage = twenty_pods(namespace).await?;
        let old = targets_of(&stage, namespace, "one").await?;
        ensure!(old.len() == PODS, "there are {} old pods", old.len());

        stage.proxy.set_faults(Faults { throttle_rate: 1.0, only: Some(first_and_half()), ..Faults::default() });
        apply(&stage, namespace, &[rolling("two")]).await?;
        rolled_over(&stage, namespace).await?;
        targets_within(&stage, namespace, "web", PODS, WITH_RETRIES).await?;
        stage.proxy.set_faults(Faults::default());
        stage.settle(QUIET, SOON).await?;

        let new = targets_of(&stage, namespace, "two").await?;
        ensure!(new.is_disjoint(&old), "a pod got the address of an old one");
        let registered = replay(&old, &stage.proxy.log())?;
        ensure!(registered == new, "registered at the end are {registered:?}, the pods are {new:?}");
        let counts = stage.proxy.counts();
        for action in [REGISTER, DEREGISTER] {
            let struck = counts.throttled.get(action).copied().unwrap_or_default();
            ensure!(struck > 0, "no {action} of {:?} was throttled", counts.actions.get(action));
        }
        stage.proxy.keep_bodies(false);
        leave(stage, namespace).await
    });
}

#[test]
fn a_rollout_while_nothing_can_be_registered_takes_nothing_from_the_guaranteed_targets() {
    run(async {
        let namespace = "rollout-without-registering";
        let stage = twenty_pods(namespace).await?;
        let old = targets_of(&stage, namespace, "one").await?;

        let only = Some(Calls::named(REGISTER));
        stage.proxy.set_faults(Faults { error_rate: 1.0, only, ..Faults::default() });
        apply(&stage, namespace, &[rolling("two")]).await?;
        rolled_over(&stage, namespace).await?;
        stays(Duration::from_secs(3), "the guaranteed targets stay registered", async || {
            replay(&old, &stage.proxy.log()).map(drop)
        })
        .await?;
        ensure!(stage.proxy.counts().failed.contains_key(REGISTER), "no registration was tried");
        let pods = stage.cluster.list("v1", "Pod", Some(namespace)).await?;
        let ready = pods.iter().filter(|pod| condition_is_true(pod, "Ready")).count();
        ensure!(ready == PODS, "{ready} pods are ready");

        stage.proxy.set_faults(Faults::default());
        targets_within(&stage, namespace, "web", PODS, WITH_RETRIES).await?;
        let new = targets_of(&stage, namespace, "two").await?;
        let registered = replay(&old, &stage.proxy.log())?;
        ensure!(registered == new, "registered at the end are {registered:?}, the pods are {new:?}");
        stage.proxy.keep_bodies(false);
        leave(stage, namespace).await
    });
}
