//! Target groups of an Ingress.

use anyhow::Result;

use crate::traffic::client::{Client, pods};
use crate::traffic::manifests::Ingress;
use crate::traffic::stage::Stage;

/// Serves with an Ingress, then with another one; clients are to notice nothing.
async fn unnoticed(stage: &Stage, first: &Ingress, changes: &[&Ingress]) -> Result<()> {
    stage.apps(&[stage.app("web", 3)]).await?;
    stage.apply(&[first.object()]).await?;
    stage.start(vec![Client::http("shop", "/").then(pods(&["web"]))]).await?;
    for change in changes {
        stage.change(async || stage.apply(&[change.object()]).await).await?;
    }
    Ok(())
}

fn ingress() -> Ingress {
    Ingress::new("shop").path("/", "web")
}

pub(super) async fn target_type(stage: &Stage) -> Result<()> {
    unnoticed(stage, &ingress(), &[&ingress().with("target-type", "instance"), &ingress()]).await
}

pub(super) async fn backend_protocol(stage: &Stage) -> Result<()> {
    unnoticed(stage, &ingress(), &[&ingress().with("backend-protocol", "HTTPS")]).await
}

pub(super) async fn backend_protocol_version(stage: &Stage) -> Result<()> {
    unnoticed(stage, &ingress(), &[&ingress().with("backend-protocol-version", "HTTP2")]).await
}

pub(super) async fn health_check(stage: &Stage) -> Result<()> {
    let other = ingress()
        .with("healthcheck-path", "/healthz")
        .with("healthcheck-interval-seconds", "10")
        .with("healthy-threshold-count", "3")
        .with("success-codes", "200-299");
    unnoticed(stage, &ingress(), &[&other]).await
}
