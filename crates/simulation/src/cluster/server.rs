//! The way from HTTP to the store and back, with faults.

use std::{future::pending, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{Request as HttpRequest, Response, Uri},
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    Inner, Life, Request, State, Stream,
    store::{Answer, Kind, Part, Refusal},
    watch::Watch,
};

pub(super) fn client(cluster: Arc<Inner>, life: Life) -> kube::Client {
    let router = Router::new().fallback(move |request: HttpRequest<Body>| {
        let (cluster, life) = (Arc::clone(&cluster), life.clone());
        async move { answer(cluster, life, request).await }
    });
    kube::Client::new(router, "default")
}

/// The time after which the real client closes a silent connection (`start::SILENCE`).
const SILENCE: Duration = Duration::from_secs(320);

/// The object or collection of a path.
#[derive(Debug)]
struct Target {
    kind: &'static Kind,
    namespace: String,
    name: Option<String>,
    part: Part,
}

fn target(path: &str) -> Option<Target> {
    let mut words = path.trim_matches('/').split('/');
    let group = match words.next()? {
        "api" => "",
        "apis" => words.next()?,
        _ => return None,
    };
    let version = words.next()?;
    let mut rest: Vec<&str> = words.collect();
    let namespace = match rest.as_slice() {
        ["namespaces", namespace, _, ..] => {
            let namespace = (*namespace).to_owned();
            rest.drain(..2);
            namespace
        }
        _ => String::new(),
    };
    let (plural, name, part) = match rest.as_slice() {
        [plural] => (*plural, None, Part::Main),
        [plural, name] => (*plural, Some((*name).to_owned()), Part::Main),
        [plural, name, "status"] => (*plural, Some((*name).to_owned()), Part::Status),
        _ => return None,
    };
    let kind = Kind::of(plural).filter(|kind| kind.group == group && kind.version == version)?;
    Some(Target { kind, namespace, name, part })
}

/// Returns a parameter of a query. Only label selectors contain characters that a URI escapes.
fn parameter(uri: &Uri, key: &str) -> Option<String> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(name, _)| *name == key).map(|(_, value)| {
        let value = value.replace('+', " ");
        [("%3D", "="), ("%2C", ","), ("%2F", "/"), ("%3d", "="), ("%2c", ","), ("%2f", "/")]
            .iter()
            .fold(value, |value, (escaped, character)| value.replace(escaped, character))
    })
}

fn response(code: u16, body: impl Into<Body>) -> Response<Body> {
    let response = Response::builder().status(code).header("content-type", "application/json").body(body.into());
    response.expect("a status of HTTP and a header that is one")
}

fn refused(refusal: &Refusal) -> Response<Body> {
    response(refusal.code, refusal.to_json().to_string())
}

/// The outcome chosen for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    FailsBefore,
    FailsAfter,
    LostBefore,
    LostAfter,
}

fn fate(state: &mut State, is_write: bool) -> Fate {
    let (faults, random) = (state.faults.clone(), &mut state.random);
    let fates = [
        (Fate::FailsBefore, faults.fails_before),
        (Fate::LostBefore, faults.lost_before),
        (Fate::FailsAfter, if is_write { faults.fails_after } else { 0.0 }),
        (Fate::LostAfter, if is_write { faults.lost_after } else { 0.0 }),
    ];
    fates.into_iter().find(|(_, chance)| random.chance(*chance)).map_or(Fate::Answered, |(fate, _)| fate)
}

async fn answer(cluster: Arc<Inner>, life: Life, request: HttpRequest<Body>) -> Response<Body> {
    if life.is_over() {
        return pending().await;
    }
    let at = Instant::now();
    let (parts, body) = request.into_parts();
    let body: Bytes = to_bytes(body, usize::MAX).await.expect("a body that is in memory");
    let method = parts.method.as_str().to_owned();
    let path = parts.uri.path().to_owned();
    let Some(target) = target(&path) else {
        return refused(&Refusal::new(404, "NotFound", format!("the simulated API server has no {path}")));
    };
    let is_watch = parameter(&parts.uri, "watch").is_some_and(|watch| watch == "true" || watch == "1");
    let (latency, fate) = {
        let mut state = cluster.state();
        let slowest = state.faults.slowest;
        (state.random.up_to(slowest), fate(&mut state, method != "GET"))
    };
    if life.is_frozen() {
        // A frozen process sends nothing; requests of its timers are lost with its connections.
        life.goes_on().await;
        return refused(&Refusal::new(500, "InternalError", "the connection was lost"));
    }
    // A request that was sent arrives even if its sender has died in the meantime.
    tokio::time::sleep(Duration::from_micros(500) + latency / 2).await;
    if is_watch && fate == Fate::Answered {
        return watch(cluster, life, &target, &parts.uri);
    }
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("a body of JSON") };
    let done = match fate {
        Fate::FailsBefore | Fate::LostBefore => None,
        _ => Some(cluster.change(|state| {
            if method != "GET" && !matches!(target.kind.plural, "events" | "leases") {
                state.judge(&life, &format!("{method} {path}"));
            }
            serve(state, cluster.now(), &target, &method, &parts.uri, body.clone())
        })),
    };
    let outcome = match (&done, fate) {
        (Some(Ok(_)), Fate::Answered) => "done".to_owned(),
        (Some(Ok(_)), fate) => format!("done, {fate:?}"),
        (Some(Err(refusal)), fate) => format!("{} {fate:?}: {}", refusal.code, refusal.message),
        (None, fate) => format!("{fate:?}"),
    };
    if target.kind.plural != "leases" {
        cluster.state().requests.push(Request { at, method, path, body, outcome });
    }
    tokio::time::sleep(latency / 2).await;
    life.goes_on().await;
    if life.is_over() {
        return pending().await;
    }
    match (done, fate) {
        (Some(Ok(body)), Fate::Answered) => response(200, body),
        (Some(Err(refusal)), Fate::Answered) => refused(&refusal),
        (_, Fate::LostBefore | Fate::LostAfter) => {
            tokio::time::sleep(SILENCE).await;
            let broken =
                futures::stream::once(std::future::ready(Err::<Bytes, _>("the connection was silent for too long")));
            response(200, Body::from_stream(broken))
        }
        _ => refused(&Refusal::new(
            500,
            "InternalError",
            "an error on the server has prevented the request from succeeding",
        )),
    }
}

fn watch(cluster: Arc<Inner>, life: Life, target: &Target, uri: &Uri) -> Response<Body> {
    let seconds = parameter(uri, "timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(290);
    let version = parameter(uri, "resourceVersion").and_then(|text| text.parse().ok());
    let random = {
        let state = &mut cluster.state();
        let part = state.random.number();
        state.random.fork(part)
    };
    let version = version.unwrap_or_else(|| cluster.state().store.version);
    let connections = *cluster.connections.borrow();
    let (kind, namespace) = (target.kind, target.namespace.clone());
    let until = Instant::now() + Duration::from_secs(seconds);
    let stream = Stream { life, plural: kind.plural, version };
    let number = cluster.state().open(stream);
    response(200, Watch { cluster, number, kind, namespace, until, random, connections, ended: false }.body())
}

/// Carries out a request.
fn serve(
    state: &mut State,
    now: i64,
    target: &Target,
    method: &str,
    uri: &Uri,
    body: Value,
) -> Result<String, Refusal> {
    let Target { kind, namespace, name, part } = target;
    let Some(name) = name else {
        return match method {
            "GET" => list(state, target, uri),
            "POST" => written(state.store.create(kind, namespace, body, now)),
            _ => Err(Refusal::new(405, "MethodNotAllowed", "the server does not allow this method on the resource")),
        };
    };
    let contended = state.faults.contended;
    if method != "GET" && state.random.chance(contended) {
        state.store.touch(kind, namespace, name);
    }
    written(match method {
        "GET" => state.store.get(kind, namespace, name),
        "PUT" => state.store.replace(kind, namespace, name, body, *part),
        "PATCH" => state.store.patch(kind, namespace, name, &body, *part),
        "DELETE" => {
            let only = body.get("preconditions").unwrap_or(&Value::Null);
            state.store.delete(kind, namespace, name, only, now)
        }
        _ => Err(Refusal::new(405, "MethodNotAllowed", "the server does not allow this method on the resource")),
    })
}

fn written(answer: Answer) -> Result<String, Refusal> {
    answer.map(|object| object.to_string())
}

/// Returns true if an object has the labels of a selector that consists of equalities.
fn selected(object: &Value, selector: &str) -> bool {
    selector.split(',').filter(|part| !part.is_empty()).all(|part| {
        let (key, value) = part.split_once('=').unwrap_or_else(|| panic!("a selector that is not simulated: {part}"));
        let label = object.pointer("/metadata/labels").and_then(|labels| labels.get(key)?.as_str());
        label == Some(value.trim_start_matches('='))
    })
}

fn list(state: &mut State, target: &Target, uri: &Uri) -> Result<String, Refusal> {
    let torn = state.faults.torn_lists;
    let torn = state.random.chance(torn);
    let (version, mut items) = match parameter(uri, "continue") {
        None => {
            let selector = parameter(uri, "labelSelector").unwrap_or_default();
            let all = state.store.list(target.kind, &target.namespace);
            (state.store.version, all.into_iter().filter(|object| selected(object, &selector)).collect::<Vec<_>>())
        }
        Some(token) => {
            let left = token.parse().ok().and_then(|token| state.pages.remove(&token)).filter(|_| !torn);
            left.ok_or_else(|| Refusal::new(410, "Expired", "The provided continue parameter is too old"))?
        }
    };
    let limit = parameter(uri, "limit").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
    let limit = if torn { limit.min(2) } else { limit };
    let rest = if items.len() > limit { items.split_off(limit) } else { Vec::new() };
    let mut metadata = Map::from_iter([("resourceVersion".to_owned(), json!(version.to_string()))]);
    if !rest.is_empty() {
        let token = state.random.number();
        metadata.insert("continue".to_owned(), json!(token.to_string()));
        state.pages.insert(token, (version, rest));
    }
    let items: Vec<&Value> = items.iter().map(AsRef::as_ref).collect();
    let kind = format!("{}List", target.kind.name);
    Ok(json!({ "kind": kind, "apiVersion": target.kind.api_version(), "metadata": metadata, "items": items })
        .to_string())
}
