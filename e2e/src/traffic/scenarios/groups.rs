//! Members of an Ingress group.

use anyhow::Result;
use serde_json::Value;

use crate::lab::cluster::text;
use crate::traffic::client::{Client, NOT_FOUND, pods};
use crate::traffic::manifests::Ingress;
use crate::traffic::stage::Stage;

/// An annotation with a value that does not parse.
const BROKEN: (&str, &str) = ("healthcheck-interval-seconds", "often");

/// A member that serves a host of its name. Groups are the cluster's, so their names are the namespace's.
fn member(stage: &Stage, group: &str, name: &str, service: &str) -> Ingress {
    let group = format!("{}-{group}", stage.namespace);
    Ingress::new(name).with("group.name", &group).host(&format!("{name}.example.com"), service)
}

/// Starts with three members, of which the last one may be another one than usual.
async fn three(stage: &Stage, last: &Ingress) -> Result<()> {
    stage.apps(&[stage.app("web", 2), stage.app("api", 2)]).await?;
    let others = ["one", "two"].map(|name| member(stage, "g", name, "web").object());
    stage.apply(&others).await?;
    stage.apply(&[last.object()]).await
}

/// Asks for the host of a member, through the load balancer of the member `one`.
fn of(name: &str) -> Client {
    Client::http("one", "/").host(&format!("{name}.example.com"))
}

fn others() -> Vec<Client> {
    ["one", "two"].map(|name| of(name).then(pods(&["web"]))).into()
}

async fn with(stage: &Stage, client: Client) -> Result<()> {
    let mut clients = others();
    clients.push(client);
    stage.start(clients).await
}

pub(super) async fn member_added(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2), stage.app("api", 2)]).await?;
    let first: Vec<Value> = ["one", "two"].map(|name| member(stage, "g", name, "web").object()).into();
    stage.apply(&first).await?;
    with(stage, of("three").then(NOT_FOUND).then(pods(&["api"]))).await?;
    stage.change(async || stage.apply(&[member(stage, "g", "three", "api").object()]).await).await
}

pub(super) async fn member_broken(stage: &Stage) -> Result<()> {
    let three_ = member(stage, "g", "three", "api");
    three(stage, &three_).await?;
    with(stage, of("three").then(pods(&["api"]))).await?;
    break_member(stage, three_).await
}

/// Breaks a member, and waits until it is told so: AWS is to stay as it is.
async fn break_member(stage: &Stage, member: Ingress) -> Result<()> {
    stage
        .change_until(
            async || stage.apply(&[member.with(BROKEN.0, BROKEN.1).object()]).await,
            async || stage.is_warned_of("Ingress", "three").await,
        )
        .await
}

pub(super) async fn member_mended(stage: &Stage) -> Result<()> {
    let three_ = member(stage, "g", "three", "api");
    three(stage, &three_).await?;
    with(stage, of("three").then(pods(&["api"])).then(pods(&["api"])).then(pods(&["web"]))).await?;
    break_member(stage, three_).await?;
    // Mended, it has another backend.
    stage.change(async || stage.apply(&[member(stage, "g", "three", "web").object()]).await).await
}

pub(super) async fn member_deleted(stage: &Stage) -> Result<()> {
    three(stage, &member(stage, "g", "three", "api")).await?;
    with(stage, of("three").then(pods(&["api"])).then(NOT_FOUND)).await?;
    stage.change(async || stage.delete_ingress("three").await).await
}

pub(super) async fn member_moved(stage: &Stage) -> Result<()> {
    three(stage, &member(stage, "g", "three", "api")).await?;
    stage.apply(&[member(stage, "h", "four", "web").object()]).await?;
    let mut clients = others();
    clients.push(Client::http("four", "/").then(pods(&["web"])));
    // Follows the name that the mover publishes.
    clients.push(Client::http("three", "/").kept_for(stage.settings.dns_ttl).then(pods(&["api"])));
    stage.start(clients).await?;
    let hostname = async |name| {
        let ingress = stage.get("networking.k8s.io/v1", "Ingress", name).await?;
        Ok::<_, anyhow::Error>(text(&ingress, "/status/loadBalancer/ingress/0/hostname").to_owned())
    };
    stage
        .change_until(
            async || stage.apply(&[member(stage, "h", "three", "api").object()]).await,
            async || Ok(hostname("three").await? == hostname("four").await?),
        )
        .await
}
