//! Rules of an Ingress.

use anyhow::Result;

use super::network::{blocked, unblocked_after};
use crate::traffic::client::{Client, Expect, NOT_FOUND, pods};
use crate::traffic::manifests::{App, Ingress};
use crate::traffic::stage::Stage;

/// The number of rules that are replaced.
const MANY: usize = 60;
/// The seconds that pods take to start.
const SLOW: u64 = 15;

pub(super) async fn path_added(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2), stage.app("api", 2)]).await?;
    let ingress = Ingress::new("shop").path("/web", "web");
    stage.apply(&[ingress.object()]).await?;
    let clients = vec![
        Client::http("shop", "/web").then(pods(&["web"])),
        Client::http("shop", "/api").then(NOT_FOUND).then(pods(&["api"])),
    ];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[ingress.path("/api", "api").object()]).await).await
}

pub(super) async fn path_removed(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2), stage.app("api", 2)]).await?;
    let ingress = Ingress::new("shop").path("/web", "web");
    stage.apply(&[ingress.clone().path("/api", "api").object()]).await?;
    let clients = vec![
        Client::http("shop", "/web").then(pods(&["web"])),
        Client::http("shop", "/api").then(pods(&["api"])).then(NOT_FOUND),
    ];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[ingress.object()]).await).await
}

pub(super) async fn path_moved_up(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2), stage.app("api", 2)]).await?;
    // Of this type, paths keep the order of the manifest.
    let kind = "ImplementationSpecific";
    let below = Ingress::new("shop").rule(None, "/*", kind, "web").rule(None, "/api/*", kind, "api");
    let above = Ingress::new("shop").rule(None, "/api/*", kind, "api").rule(None, "/*", kind, "web");
    stage.apply(&[below.object()]).await?;
    let clients = vec![
        Client::http("shop", "/web").then(pods(&["web"])),
        Client::http("shop", "/api/x").then(pods(&["web"])).then(pods(&["api"])),
    ];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[above.object()]).await).await
}

/// Requests that match the rule match the one that takes its place, too.
pub(super) async fn path_widened(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2), stage.app("api", 2)]).await?;
    let with = |kind| Ingress::new("shop").rule(None, "/api", kind, "api").path("/", "web").object();
    stage.apply(&[with("Exact")]).await?;
    let (web, api) = (pods(&["web"]), pods(&["api"]));
    let clients = vec![
        Client::http("shop", "/web").then(web.clone()),
        Client::http("shop", "/api").then(api.clone()),
        Client::http("shop", "/api/x").then(web).then(api),
    ];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[with("Prefix")]).await).await
}

pub(super) async fn host_renamed(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2)]).await?;
    let ingress = Ingress::new("shop").host("stays.example.com", "web");
    stage.apply(&[ingress.clone().host("old.example.com", "web").object()]).await?;
    let clients = vec![
        Client::http("shop", "/").host("stays.example.com").then(pods(&["web"])),
        Client::http("shop", "/").host("old.example.com").then(pods(&["web"])).then(NOT_FOUND),
        Client::http("shop", "/").host("new.example.com").then(NOT_FOUND).then(pods(&["web"])),
    ];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[ingress.host("new.example.com", "web").object()]).await).await
}

pub(super) async fn backend_swapped(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("blue", 2), stage.app("green", 2)]).await?;
    stage.apply(&[Ingress::new("shop").path("/", "blue").object()]).await?;
    stage.start(vec![Client::http("shop", "/").then(pods(&["blue"])).then(pods(&["green"]))]).await?;
    stage.change(async || stage.apply(&[Ingress::new("shop").path("/", "green").object()]).await).await
}

/// Serves one Service with an Ingress, and lets clients ask, who are to get to another one.
async fn serve_blue(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("blue", 2)]).await?;
    stage.apply(&[Ingress::new("shop").path("/", "blue").object()]).await?;
    stage.start(vec![Client::http("shop", "/").then(pods(&["blue"])).then(pods(&["green"]))]).await
}

/// The pods come with the Ingress that leads to them, as in one `helm upgrade`.
pub(super) async fn backend_slow(stage: &Stage) -> Result<()> {
    serve_blue(stage).await?;
    let starts_in = stage.settings.scaled(SLOW).as_millis().try_into()?;
    let green = App { starts_in, ..stage.app("green", 2) };
    stage
        .change(async || {
            let mut objects = green.objects();
            objects.push(Ingress::new("shop").path("/", "green").object());
            stage.apply(&objects).await?;
            stage.rolled_out(&green).await
        })
        .await
}

/// The pods are there, but nothing reaches them yet.
pub(super) async fn backend_blocked(stage: &Stage) -> Result<()> {
    serve_blue(stage).await?;
    stage.apps(&[App { port: 9090, ..stage.app("green", 2) }]).await?;
    stage
        .change(async || {
            blocked(stage);
            stage.apply(&[Ingress::new("shop").path("/", "green").object()]).await?;
            unblocked_after(stage).await;
            Ok(())
        })
        .await
}

pub(super) async fn action_changed(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2)]).await?;
    let forward = r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"web","servicePort":80}]}}"#;
    let redirect = r##"{"type":"redirect","redirectConfig":{"host":"other.example.com","statusCode":"HTTP_302"}}"##;
    let fixed = r#"{"type":"fixed-response","fixedResponseConfig":{"contentType":"text/plain","statusCode":"200","messageBody":"closed"}}"#;
    let with = |action| Ingress::new("shop").with("actions.go", action).action("/go", "go").path("/web", "web");
    stage.apply(&[with(forward).object()]).await?;
    let clients = vec![
        Client::http("shop", "/web").then(pods(&["web"])),
        Client::http("shop", "/go")
            .then(pods(&["web"]))
            .then(Expect::Redirect(302, "other.example.com"))
            .then(Expect::Fixed(200, "closed")),
    ];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[with(redirect).object()]).await).await?;
    stage.change(async || stage.apply(&[with(fixed).object()]).await).await
}

pub(super) async fn weights(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("blue", 2), stage.app("green", 2)]).await?;
    let with = |blue: u32, green: u32| {
        let group =
            |name: &str, weight: u32| format!(r#"{{"serviceName":"{name}","servicePort":80,"weight":{weight}}}"#);
        let groups = [group("blue", blue), group("green", green)].join(",");
        let action = format!(r#"{{"type":"forward","forwardConfig":{{"targetGroups":[{groups}]}}}}"#);
        Ingress::new("shop").with("actions.split", &action).action("/", "split")
    };
    stage.apply(&[with(100, 0).object()]).await?;
    let client = Client::http("shop", "/").then(pods(&["blue"])).then(pods(&["blue", "green"])).then(pods(&["green"]));
    stage.start(vec![client]).await?;
    stage.change(async || stage.apply(&[with(50, 50).object()]).await).await?;
    stage.change(async || stage.apply(&[with(0, 100).object()]).await).await
}

/// An Ingress with many paths to a Service, above a catch-all to another one.
fn many(prefix: &str) -> Ingress {
    let paths = (0..MANY).map(|number| format!("/{prefix}/{number:02}"));
    let ingress = paths.fold(Ingress::new("shop"), |ingress, path| ingress.rule(None, &path, "Exact", "api"));
    ingress.path("/", "web")
}

pub(super) async fn replaced(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2), stage.app("api", 2)]).await?;
    stage.apply(&[many("old").object()]).await?;
    let (web, api) = (pods(&["web"]), pods(&["api"]));
    let clients = vec![
        Client::http("shop", "/").then(web.clone()),
        Client::http("shop", "/old/00").then(api.clone()).then(web.clone()),
        Client::http("shop", "/old/59").then(api.clone()).then(web.clone()),
        Client::http("shop", "/new/00").then(web.clone()).then(api.clone()),
        Client::http("shop", "/new/59").then(web).then(api),
    ];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[many("new").object()]).await).await
}
