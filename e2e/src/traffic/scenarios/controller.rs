//! The controller's own troubles.

use anyhow::Result;

use super::rules;
use crate::traffic::client::{Client, pods};
use crate::traffic::manifests::{App, Ingress};
use crate::traffic::stage::Stage;

pub(super) async fn handed_over(stage: &Stage) -> Result<()> {
    rules::replaced(stage).await
}

/// While the API server is away for the controller, a path is added and pods come and go.
pub(super) async fn away(stage: &Stage) -> Result<()> {
    let app = stage.app("web", 4);
    stage.apps(&[app.clone(), stage.app("api", 2)]).await?;
    let ingress = Ingress::new("shop").path("/web", "web");
    stage.apply(&[ingress.clone().path("/api", "web").object()]).await?;
    let clients = vec![
        Client::http("shop", "/web").then(pods(&["web"])),
        Client::http("shop", "/api").then(pods(&["web"])).then(pods(&["api"])),
    ];
    stage.start(clients).await?;
    stage
        .change(async || {
            stage.apply(&[ingress.path("/api", "api").object()]).await?;
            // More pods only: those that end are registered for as long as the controller does not know.
            let more = App { replicas: 6, ..app };
            stage.apply(&[more.deployment()]).await?;
            stage.rolled_out(&more).await
        })
        .await
}
