//! HTTP of pods.

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{self, HeaderValue},
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use super::{
    Phase,
    connection::{self, Facts},
    echo_basic::Part,
    grpc,
    plan::{Ready, Serves},
    websocket,
};

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Ends a connection instead of answering.
#[derive(Debug, thiserror::Error)]
#[error("the connection is reset")]
pub(super) struct Reset;

/// Serves a connection in HTTP/1 or HTTP/2. When the pod begins to end, what is in flight is completed.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    facts: Facts,
    serves: Arc<Ready>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let upgrade = Arc::new(Mutex::new(None));
    let service = service_fn(|request| answer(request, facts.clone(), serves.clone(), upgrade.clone()));
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut ending = false;
    let result = loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => break result,
            () = connection::draining(&mut phase), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    result.map_err(io::Error::other)?;
    let upgrade = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    match upgrade {
        Some(upgrade) => {
            let upgraded: OnUpgrade = upgrade;
            websocket::serve(TokioIo::new(upgraded.await.map_err(io::Error::other)?), phase).await
        }
        None => Ok(()),
    }
}

async fn answer(
    mut request: Request<Incoming>,
    facts: Facts,
    serves: Arc<Ready>,
    upgrade: Arc<Mutex<Option<OnUpgrade>>>,
) -> Result<Response<Body>, Reset> {
    let mut response = if facts.shared.failing.load(Ordering::Relaxed) {
        status(StatusCode::SERVICE_UNAVAILABLE)
    } else if let Some(key) = upgrades(&request, &serves) {
        *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(&mut request));
        switching(&key)
    } else {
        match serves.as_ref() {
            Serves::Echo { .. } if grpc::is_call(request.headers()) => call(request, grpc::echo).await,
            Serves::Echo { .. } => echo(request, &facts.shared.name).await,
            Serves::Grpc { fixed } => call(request, |path, message| grpc::echo_service(path, message, fixed)).await,
            Serves::Text(body) => {
                discard(request.into_body()).await;
                text(StatusCode::OK, body.clone())
            }
            Serves::EchoBasic(server, _) => server.answer(request, &facts).await?,
        }
    };
    let headers = response.headers_mut();
    if let Ok(name) = HeaderValue::from_str(&facts.shared.name) {
        headers.insert("x-pod", name);
    }
    if let Ok(source) = HeaderValue::from_str(&facts.source.ip().to_string()) {
        headers.insert("x-source", source);
    }
    Ok(response)
}

/// Returns the key that accepts an upgrade to WebSocket, where the server knows it.
fn upgrades(request: &Request<Incoming>, serves: &Ready) -> Option<String> {
    let known = match serves {
        Serves::Echo { .. } => true,
        Serves::EchoBasic(server, _) => server.part == Part::Http && request.uri().path() == "/ws",
        Serves::Text(_) | Serves::Grpc { .. } => false,
    };
    if known && request.method() == Method::GET { websocket::accept(request.headers()) } else { None }
}

fn switching(key: &str) -> Response<Body> {
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(key) = HeaderValue::from_str(key) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    response
}

/// Answers with a line that names the pod and the request. `/status/404` asks for another status than 200, the parameter
/// `delay` for a later answer.
async fn echo(request: Request<Incoming>, pod: &str) -> Response<Body> {
    let (parts, body) = request.into_parts();
    discard(body).await;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if let Some(delay) = parameter(parts.uri.query(), "delay").and_then(duration) {
        tokio::time::sleep(delay).await;
    }
    let status = status_of(parts.uri.path()).unwrap_or(StatusCode::OK);
    text(status, format!("pod {pod} {} {path}\n", parts.method))
}

/// Returns the status that a path `/status/NNN` asks for.
pub(super) fn status_of(path: &str) -> Option<StatusCode> {
    let code: u16 = path.strip_prefix("/status/").filter(|code| code.len() == 3)?.parse().ok()?;
    StatusCode::from_u16(code).ok().filter(|status| !status.is_informational())
}

async fn call(
    request: Request<Incoming>,
    answer: impl Fn(&str, &[u8]) -> Result<Vec<u8>, grpc::Status>,
) -> Response<Body> {
    if request.version() != Version::HTTP_2 || !grpc::is_call(request.headers()) {
        return status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let path = request.uri().path().to_owned();
    let message = grpc::message(request.into_body()).await;
    grpc::answer(message.and_then(|message| answer(&path, &message)))
}

/// Reads a body to its end, so that the connection can be used again.
pub(super) async fn discard(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// Returns an answer without a body.
pub(super) fn status(status: StatusCode) -> Response<Body> {
    text(status, String::new())
}

pub(super) fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// Returns the value of a parameter of a query, as it is written.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let mut pairs = query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Returns a duration as Go writes it: numbers with units, `1m30s`, `1.5s`, `300ms`. An hour at most.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, more) = rest.split_at_checked(digits)?;
        let unit = more.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(more.len());
        let (unit, more) = more.split_at_checked(unit)?;
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?.min(Duration::from_secs(3600));
        rest = more;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let rows = [
            ("", None),
            ("5", None),
            ("s", None),
            ("1x", None),
            ("é", None),
            ("300ms", Some(300)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            ("99h", Some(3_600_000)),
        ];
        for (text, millis) in rows {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_path_may_ask_for_a_status() {
        let rows = [("/status/404", Some(404)), ("/status/1000", None), ("/status/100", None), ("/x/status/404", None)];
        for (path, expected) in rows {
            assert_eq!(status_of(path).map(|status| status.as_u16()), expected, "{path}");
        }
    }

    #[test]
    fn parameters_are_found_by_their_whole_name() {
        assert_eq!(parameter(Some("a=1&delay=2s&b"), "delay"), Some("2s"));
        assert_eq!(parameter(Some("delays=1"), "delay"), None);
        assert_eq!(parameter(None, "delay"), None);
    }
}
