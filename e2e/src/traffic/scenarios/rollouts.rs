//! Pods that come and go behind an Ingress, and behind a Network Load Balancer.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::lab::cluster::text;
use crate::lab::proxy::{Calls, Faults};
use crate::lab::{wait_until, webhooks};
use crate::traffic::client::{Client, Expect, pods};
use crate::traffic::manifests::{App, Balanced, Ingress};
use crate::traffic::stage::{AWAY_AFTER_KILL, Stage};

const REGISTER: &str = "elasticloadbalancing:RegisterTargets";
const MANY: usize = 20;
const FEW: usize = 2;
/// The seconds that a controller which is started again may take until it has read everything.
const RETURN: u64 = 15;
/// For how long nothing can be registered.
const UNREGISTERED: Duration = Duration::from_secs(60);
/// More than a pod that drains may take to end.
const SLEEPS: Duration = Duration::from_secs(120);

/// Serves a Deployment, and lets clients ask.
async fn serve(stage: &Stage, app: &App) -> Result<()> {
    stage.apps(std::slice::from_ref(app)).await?;
    stage.apply(&[Ingress::new("shop").path("/", "web").object()]).await?;
    stage.start(vec![Client::http("shop", "/").then(pods(&["web"]))]).await
}

/// Rolls a Deployment over to a new version.
async fn roll(stage: &Stage, app: App) -> Result<()> {
    let app = App { version: "two", ..app };
    stage.apply(&[app.deployment()]).await?;
    stage.rolled_out(&app).await
}

/// Makes a change after which the targets are the pods, and which clients are not to notice.
async fn unnoticed(stage: &Stage, act: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    stage.change_until(act, async || stage.targets_are_pods().await).await
}

pub(super) async fn plain(stage: &Stage) -> Result<()> {
    let app = stage.app("web", MANY);
    serve(stage, &app).await?;
    unnoticed(stage, async || roll(stage, app).await).await
}

/// The pods outlast the controller: until it is back, nobody takes those that end from the load balancer.
pub(super) async fn outlasting(stage: &Stage) -> Result<()> {
    let app = stage.app("web", MANY);
    let app = App { pre_stop: app.pre_stop + AWAY_AFTER_KILL.as_secs() + RETURN, ..app };
    serve(stage, &app).await?;
    unnoticed(stage, async || roll(stage, app).await).await
}

/// With one pod there is no other to take its requests.
pub(super) async fn single(stage: &Stage) -> Result<()> {
    let app = stage.app("web", 1);
    serve(stage, &app).await?;
    unnoticed(stage, async || roll(stage, app).await).await
}

pub(super) async fn gated(stage: &Stage) -> Result<()> {
    let app = stage.app("web", MANY);
    serve(stage, &app).await?;
    let gates = stage.gates().await?;
    unnoticed(stage, async || roll(stage, App { gates, ..app }).await).await
}

/// The first call of each kind, and half of the others: each kind must be struck.
fn first_and_half(seed: u64) -> Calls {
    let dice = Mutex::new((BTreeSet::new(), fastrand::Rng::with_seed(seed)));
    Calls::that(move |call| {
        let mut dice = dice.lock().unwrap_or_else(PoisonError::into_inner);
        let half = dice.1.bool();
        dice.0.insert(call.to_owned()) || half
    })
}

pub(super) async fn throttled(stage: &Stage) -> Result<()> {
    let app = stage.app("web", MANY);
    serve(stage, &app).await?;
    let only = Some(first_and_half(stage.settings.seed));
    unnoticed(stage, async || {
        stage.lab.proxy.set_faults(Faults { throttle_rate: 1.0, only, ..Faults::default() });
        roll(stage, app).await
    })
    .await
}

pub(super) async fn unregistered(stage: &Stage) -> Result<()> {
    let app = stage.app("web", MANY);
    serve(stage, &app).await?;
    let gates = stage.gates().await?;
    unnoticed(stage, async || {
        let only = Some(Calls::named(REGISTER));
        stage.lab.proxy.set_faults(Faults { error_rate: 1.0, only, ..Faults::default() });
        let mend = async {
            tokio::time::sleep(UNREGISTERED).await;
            stage.lab.proxy.set_faults(Faults::default());
            Ok(())
        };
        futures::try_join!(roll(stage, App { gates, ..app }), mend).map(drop)
    })
    .await
}

pub(super) async fn nlb(stage: &Stage) -> Result<()> {
    let app = stage.app("web", MANY);
    stage.apps(std::slice::from_ref(&app)).await?;
    stage.apply(&[Balanced::new("direct", "web").port(7000, "TCP").object()]).await?;
    // A connection that lasts ends with its pod.
    stage.start(vec![Client::tcp("direct", 7000).each_new().then(Expect::Echo)]).await?;
    unnoticed(stage, async || roll(stage, app).await).await
}

pub(super) async fn scaled(stage: &Stage) -> Result<()> {
    let app = stage.app("web", MANY);
    serve(stage, &app).await?;
    for replicas in [FEW, MANY] {
        let app = App { replicas, ..app.clone() };
        unnoticed(stage, async || {
            stage.apply(&[app.deployment()]).await?;
            stage.rolled_out(&app).await
        })
        .await?;
    }
    Ok(())
}

pub(super) async fn node_drained(stage: &Stage) -> Result<()> {
    let app = stage.app("web", 6);
    serve(stage, &app).await?;
    let pods = stage.pods().await?;
    let node = text(pods.first().context("there is no pod")?, "/spec/nodeName").to_owned();
    unnoticed(stage, async || {
        let cordon = json!({"spec": {"unschedulable": true}});
        stage.lab.cluster.merge("v1", "Node", None, &node, &cordon).await?;
        let of_node: Vec<String> = stage
            .pods()
            .await?
            .iter()
            .filter(|pod| text(pod, "/spec/nodeName") == node)
            .map(|pod| text(pod, "/metadata/name").to_owned())
            .collect();
        ensure!(!of_node.is_empty(), "{node} has no pod");
        // One after the other, as a disruption budget has it.
        for pod in of_node {
            stage.delete("v1", "Pod", &pod).await?;
            stage.rolled_out(&app).await?;
        }
        Ok(())
    })
    .await
}

pub(super) async fn exiting(stage: &Stage) -> Result<()> {
    let app = App { pre_stop: 0, drains: false, ..stage.app("web", MANY) };
    serve(stage, &app).await?;
    unnoticed(stage, async || roll(stage, app).await).await
}

pub(super) async fn draining(stage: &Stage) -> Result<()> {
    let app = App { pre_stop: 0, drains: true, ..stage.app("web", MANY) };
    serve(stage, &app).await?;
    unnoticed(stage, async || roll(stage, app).await).await
}

/// The pods of [`exiting`], which the webhook lets sleep before. The controller that is measured serves no webhooks; another
/// one does.
pub(super) async fn labelled(stage: &Stage) -> Result<()> {
    let (lab, namespace) = (&stage.lab, stage.namespace.as_str());
    let controller = webhooks::start_standby(lab).await?;
    let labels = json!({"metadata": {"labels": {"elbv2.k8s.aws/albatross-drain": "enabled"}}});
    lab.cluster.merge("v1", "Namespace", None, namespace, &labels).await?;
    webhooks::pods_drain(&lab.cluster, namespace).await?;
    let app = App { pre_stop: 0, drains: false, ..stage.app("web", MANY) };
    serve(stage, &app).await?;
    unnoticed(stage, async || {
        roll(stage, app).await?;
        // The requests of the last moment of a pod count too.
        wait_until(SLEEPS, "the old pods to be gone", async || Ok(stage.pods().await?.len() == MANY)).await
    })
    .await?;
    webhooks::end_standby(lab, controller).await
}
