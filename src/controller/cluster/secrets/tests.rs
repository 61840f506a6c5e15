use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::*;
use crate::controller::runtime::queue::Outcome;
use albatross_core::model::ClientId;

const LIST_OR_WATCH: &str = "/api/v1/namespaces/shop/secrets";

/// The API server's objects and permissions.
struct Server {
    secret: Mutex<Option<Value>>,
    forbidden: Mutex<BTreeSet<&'static str>>,
    /// Events for the open watches.
    events: broadcast::Sender<Value>,
    /// The verbs `get`, `list` and `watch`, in the order of the requests.
    asked: Mutex<Vec<&'static str>>,
}

impl Server {
    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        let uri = request.uri();
        let query = uri.query().unwrap_or_default();
        let verb = match uri.path() {
            LIST_OR_WATCH => {
                assert!(query.contains("fieldSelector=metadata.name%3Doidc"), "{query}");
                if query.contains("watch=true") { "watch" } else { "list" }
            }
            "/api/v1/namespaces/shop/secrets/oidc" => "get",
            other => panic!("nobody asks for {other}"),
        };
        self.asked.lock().unwrap().push(verb);
        if self.forbidden.lock().unwrap().contains(verb) {
            return refusal(403, "Forbidden");
        }
        let secret = self.secret.lock().unwrap().clone();
        match (verb, secret) {
            ("get", None) => refusal(404, "NotFound"),
            ("get", Some(secret)) => Response::new(Body::from(secret.to_string())),
            ("list", secret) => {
                let items: Vec<Value> = secret.into_iter().collect();
                let list = json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
                Response::new(Body::from(list.to_string()))
            }
            _ => {
                let lines = futures::stream::unfold(self.events.subscribe(), async |mut events| {
                    let event: Value = events.recv().await.ok()?;
                    Some((Ok::<_, std::convert::Infallible>(format!("{event}\n")), events))
                });
                Response::new(Body::from_stream(lines))
            }
        }
    }
}

fn refusal(code: u16, reason: &str) -> Response<Body> {
    let message = format!("secrets \"oidc\" is {reason}");
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message});
    Response::builder().status(code).body(Body::from(status.to_string())).unwrap()
}

/// A Secret as `kubectl apply` leaves it: with all that it holds in an annotation too.
fn secret(version: &str, hush: &str) -> Value {
    let bytes = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
    json!({
        "kind": "Secret", "apiVersion": "v1",
        "metadata": {
            "name": "oidc", "namespace": "shop", "uid": "u-1", "resourceVersion": version,
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": hush},
        },
        "data": {"clientID": bytes("the-client"), "clientSecret": bytes(hush), "broken": 1},
    })
}

struct World {
    server: Arc<Server>,
    secrets: Secrets,
    queue: Arc<Queue>,
}

impl World {
    fn new(has: Option<Value>, forbidden: &[&'static str]) -> Self {
        Self::with_label(has, forbidden, None)
    }

    fn with_label(has: Option<Value>, forbidden: &[&'static str], label: Option<&str>) -> Self {
        let server = Arc::new(Server {
            secret: Mutex::new(has),
            forbidden: Mutex::new(forbidden.iter().copied().collect()),
            events: broadcast::channel(8).0,
            asked: Mutex::default(),
        });
        let answering = Arc::clone(&server);
        let router = Router::new().fallback(move |request: Request<Body>| {
            let answer = answering.answer(&request);
            async move { answer }
        });
        let queue: Arc<Queue> = Arc::default();
        let secrets =
            Secrets::new(Client::new(router, "default"), Arc::clone(&queue), label.and_then(RequiredLabel::parse));
        Self { server, secrets, queue }
    }

    /// Changes the Secret and shows that to the watches.
    fn change(&self, event: &str, object: Value) {
        *self.server.secret.lock().unwrap() = (event != "DELETED").then(|| object.clone());
        let _ = self.server.events.send(json!({"type": event, "object": object}));
    }

    fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.server.asked.lock().unwrap())
    }

    async fn watched(&self) {
        until("the watch", || self.server.events.receiver_count() == 1 && self.secrets.counts() == (1, 1)).await;
    }

    /// The stacks that are to be looked at again, which there have to be.
    async fn brought_back(&self, count: usize) -> BTreeSet<String> {
        until("stacks that are brought back", || self.queue.depth() == count).await;
        self.queue.snapshot().waiting.into_iter().collect()
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waited).await.unwrap_or_else(|_| panic!("waited for {what}"));
}

fn oidc() -> ObjectName {
    ObjectName::new("shop", "oidc")
}

fn stack(name: &str) -> StackId {
    StackId::Ingress(ObjectName::new("shop", name))
}

fn known(version: &str, hush: &str) -> Fact<OidcSecret> {
    Fact::Known(OidcSecret {
        version: SecretVersion { uid: "u-1".to_owned(), resource_version: version.to_owned() },
        client_id: ClientId("the-client".to_owned()),
        client_secret: hush.to_owned(),
    })
}

fn absence(fact: Fact<OidcSecret>) -> String {
    match fact {
        Fact::Absent { message, fix } => format!("{message}; {fix}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_secret_is_read_once_and_then_watched() {
    let world = World::new(Some(secret("1", "s3cret")), &[]);
    assert_eq!(world.secrets.answer(&oidc(), &stack("web")).await, known("1", "s3cret"));
    world.watched().await;
    assert_eq!(world.secrets.answer(&oidc(), &stack("api")).await, known("1", "s3cret"));
    assert_eq!(world.asked(), ["get", "list", "watch"]);

    // A different content queues all stacks that use the Secret; the same content under another version does not, and counts
    // as the same.
    world.change("MODIFIED", secret("2", "rotated"));
    let all: BTreeSet<String> = ["web", "api"].map(|name| Key::Stack(stack(name)).to_string()).into();
    assert_eq!(world.brought_back(2).await, all);
    assert_eq!(world.secrets.answer(&oidc(), &stack("web")).await, known("2", "rotated"));
    world.change("MODIFIED", secret("3", "rotated"));
    world.change("MODIFIED", secret("4", "again"));
    until("the last of them", || world.secrets.counts() == (1, 1) && world.queue.depth() == 2).await;
    until("the new content", || {
        futures::FutureExt::now_or_never(world.secrets.answer(&oidc(), &stack("web"))) == Some(known("4", "again"))
    })
    .await;
    assert_eq!(world.asked(), [""; 0]);

    // One that is deleted is missing, and back when it is there again.
    world.change("DELETED", secret("5", "again"));
    until("its absence", || {
        let answer = futures::FutureExt::now_or_never(world.secrets.answer(&oidc(), &stack("web")));
        matches!(answer, Some(Fact::Absent { .. }))
    })
    .await;
    world.change("ADDED", secret("6", "new"));
    until("its return", || {
        futures::FutureExt::now_or_never(world.secrets.answer(&oidc(), &stack("web"))) == Some(known("6", "new"))
    })
    .await;
}

#[tokio::test]
async fn the_same_content_under_another_version_is_the_same() {
    let world = World::new(Some(secret("1", "s3cret")), &["watch", "list"]);
    assert_eq!(world.secrets.answer(&oidc(), &stack("web")).await, known("1", "s3cret"));
    world.change("MODIFIED", secret("2", "s3cret"));
    assert_eq!(world.secrets.answer(&oidc(), &stack("web")).await, known("1", "s3cret"));
    world.change("MODIFIED", secret("3", "rotated"));
    assert_eq!(world.secrets.answer(&oidc(), &stack("api")).await, known("3", "rotated"));
    // Without a watch, the first reader notifies the others.
    assert_eq!(world.brought_back(1).await, BTreeSet::from([Key::Stack(stack("web")).to_string()]));
}

#[tokio::test]
async fn without_the_permission_to_watch_it_is_read_each_time() {
    let world = World::new(Some(secret("1", "s3cret")), &["list"]);
    assert_eq!(world.secrets.answer(&oidc(), &stack("web")).await, known("1", "s3cret"));
    until("the refusal", || world.server.asked.lock().unwrap().len() == 2).await;
    world.change("MODIFIED", secret("2", "rotated"));
    until("the new content", || {
        // The watch is tried again as well, so that a permission that is given later counts.
        world.secrets.shared.entries()[&oidc()].watch.is_none()
    })
    .await;
    world.server.forbidden.lock().unwrap().clear();
    assert_eq!(world.secrets.answer(&oidc(), &stack("web")).await, known("2", "rotated"));
    world.watched().await;
    assert_eq!(world.asked(), ["get", "list", "get", "list", "watch"]);
}

#[tokio::test]
async fn what_stands_against_a_secret_is_told() {
    let world = World::new(None, &["get"]);
    let forbidden = absence(world.secrets.answer(&oidc(), &stack("web")).await);
    assert_eq!(world.asked(), ["get"], "what may not be read is not watched");
    world.server.forbidden.lock().unwrap().clear();
    let missing = absence(world.secrets.answer(&oidc(), &stack("web")).await);
    world.watched().await;
    let mut empty = secret("1", "");
    empty["data"] = json!({"clientId": "aWQ="});
    world.change("ADDED", empty);
    assert_eq!(world.brought_back(1).await.len(), 1);
    let lacking = absence(world.secrets.answer(&oidc(), &stack("web")).await);
    insta::assert_snapshot!([forbidden, missing, lacking].join("\n"), @r#"
    the controller may not read the Secret `shop/oidc`: secrets "oidc" is Forbidden; create in the namespace `shop` a Role that allows get, list and watch on the resource `secrets` with the resourceName `oidc`, and a RoleBinding of it to the controller's ServiceAccount
    the Secret `oidc` does not exist in the namespace `shop`; create it with the keys `clientID` and `clientSecret`, or correct `secretName`
    the Secret `shop/oidc` has no key `clientSecret`, or the key has no value; add it
    "#);
}

#[tokio::test]
async fn a_secret_without_the_required_label_is_not_used_until_it_carries_it() {
    let world = World::with_label(Some(secret("1", "s3cret")), &[], Some("use=oidc"));
    insta::assert_snapshot!(absence(world.secrets.answer(&oidc(), &stack("web")).await), @"the Secret `shop/oidc` does not carry the label `use=oidc`, and --required-secrets-label=use=oidc allows no other to be used; if this Secret is meant for it, `kubectl label secret oidc --namespace shop use=oidc`; otherwise name another");
    world.watched().await;
    let labelled = |version: &str, value: &str| {
        let mut labelled = secret(version, "s3cret");
        labelled["metadata"]["labels"] = json!({"use": value});
        labelled
    };
    world.change("MODIFIED", labelled("2", "other"));
    world.change("MODIFIED", labelled("3", "oidc"));
    assert_eq!(world.brought_back(1).await, BTreeSet::from(["Ingress group shop/web".to_owned()]));
    assert_eq!(world.secrets.answer(&oidc(), &stack("web")).await, known("3", "s3cret"));
    let (key, _) = world.queue.next().await;
    world.queue.done(&key, &Outcome::Done);
    world.change("MODIFIED", secret("4", "s3cret"));
    world.brought_back(1).await;
    assert!(matches!(world.secrets.answer(&oidc(), &stack("web")).await, Fact::Absent { .. }));
}

#[tokio::test]
async fn a_secret_that_nobody_uses_is_let_go() {
    let world = World::new(Some(secret("1", "s3cret")), &[]);
    world.secrets.answer(&oidc(), &stack("web")).await;
    world.secrets.answer(&oidc(), &stack("api")).await;
    world.watched().await;
    world.secrets.used(&stack("web"), &BTreeSet::new());
    world.secrets.used(&stack("api"), &BTreeSet::from([&oidc()]));
    assert_eq!(world.secrets.counts(), (1, 1));
    world.secrets.used(&stack("api"), &BTreeSet::new());
    assert_eq!(world.secrets.counts(), (0, 0));
    until("the end of the watch", || world.server.events.receiver_count() == 0).await;
}

#[tokio::test]
async fn nothing_shows_what_a_secret_holds() {
    let world = World::new(Some(secret("1", "s3cret")), &[]);
    let answer = world.secrets.answer(&oidc(), &stack("web")).await;
    let wire: wire::Secret = serde_json::from_value(secret("1", "s3cret")).unwrap();
    assert_eq!(wire.metadata.annotations, None);
    for text in [format!("{answer:?}"), format!("{wire:?}")] {
        assert!(!text.contains("s3cret") && !text.contains("the-client") && !text.contains("czNjcmV0"), "{text}");
    }
}
