//! Target groups of an Ingress.

use albatross_fabric::account::{Protocol, TargetGroup, TargetType};
use anyhow::Result;

use super::network::{blocked, unblocked_after};
use super::tls::{import, secure};
use crate::traffic::client::{Client, pods};
use crate::traffic::manifests::Ingress;
use crate::traffic::stage::Stage;

fn ingress() -> Ingress {
    Ingress::new("shop").path("/", "web")
}

/// Serves an Ingress, and lets clients ask that are to notice nothing.
async fn serve(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 3)]).await?;
    stage.apply(&[ingress().object()]).await?;
    stage.start(vec![Client::http("shop", "/").then(pods(&["web"]))]).await
}

/// Changes the Ingress until its target groups fit.
async fn change(stage: &Stage, to: &Ingress, what: &str, fits: impl Fn(&TargetGroup) -> bool) -> Result<()> {
    stage
        .change_until(async || stage.apply(&[to.object()]).await, async || stage.behind()?.all_groups(what, &fits))
        .await
}

fn instances() -> Ingress {
    ingress().with("target-type", "instance")
}

pub(super) async fn target_type(stage: &Stage) -> Result<()> {
    serve(stage).await?;
    change(stage, &instances(), "type instance", |group| group.target_type == TargetType::Instance).await?;
    change(stage, &ingress(), "type ip", |group| group.target_type == TargetType::Ip).await
}

/// The group of the instances cannot be healthy at once.
pub(super) async fn target_type_blocked(stage: &Stage) -> Result<()> {
    serve(stage).await?;
    let act = async || {
        blocked(stage);
        stage.apply(&[instances().object()]).await?;
        unblocked_after(stage).await;
        Ok(())
    };
    let is_instance = |group: &TargetGroup| group.target_type == TargetType::Instance;
    stage.change_until(act, async || stage.behind()?.all_groups("type instance", is_instance)).await
}

pub(super) async fn backend_protocol(stage: &Stage) -> Result<()> {
    serve(stage).await?;
    let https = ingress().with("backend-protocol", "HTTPS");
    change(stage, &https, "protocol HTTPS", |group| group.protocol == Protocol::Https).await
}

pub(super) async fn backend_protocol_version(stage: &Stage) -> Result<()> {
    let host = "shop.example.com";
    let certificate = import(stage, host).await?;
    stage.apps(&[stage.app("web", 3)]).await?;
    // AWS wants HTTPS for it, and answers HTTP/1.1 with 464 from then on.
    let first = secure(&certificate);
    stage.apply(&[first.object()]).await?;
    stage.start(vec![Client::https("shop", host, "/").http2().then(pods(&["web"]))]).await?;
    let is_it = |group: &TargetGroup| group.protocol_version.as_deref() == Some("HTTP2");
    change(stage, &first.with("backend-protocol-version", "HTTP2"), "version HTTP2", is_it).await
}

pub(super) async fn health_check(stage: &Stage) -> Result<()> {
    serve(stage).await?;
    let other = ingress()
        .with("healthcheck-path", "/healthz")
        .with("healthcheck-interval-seconds", "10")
        .with("healthy-threshold-count", "3")
        .with("success-codes", "200-299");
    let is_it = |group: &TargetGroup| {
        let check = &group.health_check;
        (check.path.as_deref(), check.interval_seconds, check.healthy_threshold) == (Some("/healthz"), 10, 3)
    };
    change(stage, &other, "the new health check", is_it).await
}
