//! Little HTTP servers on loopback in place of services that are not in the lab: an agent on the node, the instance metadata
//! service, an STS that says no.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// A request to a [`StandIn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `GET /path?query`
    pub what: String,
    /// The header Authorization.
    pub authorization: Option<String>,
    pub body: String,
}

/// An answer: status, type of content, content. Without an answer the connection stays open and silent.
pub type Answer = Option<(u16, &'static str, String)>;

/// A running server. Dropping it closes its connections.
pub struct StandIn {
    /// `http://127.0.0.1:port`
    pub url: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    connections: usize,
}

impl StandIn {
    /// Listens on a free port.
    pub async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::<Mutex<State>>::default();
        let task = tokio::spawn(accept(listener, state.clone(), Arc::new(answer)));
        Ok(Self { url, state, task })
    }

    /// Starts one that accepts connections and never answers.
    pub async fn silent() -> Result<Self> {
        Self::start(|_| None).await
    }

    /// All that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }

    /// Returns the number of connections made to it.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).connections
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<A>(listener: TcpListener, state: Arc<Mutex<State>>, answer: Arc<A>)
where
    A: Fn(&Asked) -> Answer + Send + Sync + 'static,
{
    // Dropping the set ends every connection.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        state.lock().unwrap_or_else(PoisonError::into_inner).connections += 1;
        let (state, answer) = (state.clone(), answer.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| serve(request, state.clone(), answer.clone()));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn serve<A>(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    answer: Arc<A>,
) -> Result<Response<Full<Bytes>>, hyper::Error>
where
    A: Fn(&Asked) -> Answer,
{
    let (head, body) = request.into_parts();
    let header = head.headers.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let asked = Asked {
        what: format!("{} {}", head.method, head.uri),
        authorization: header,
        body: String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned(),
    };
    let said = answer(&asked);
    state.lock().unwrap_or_else(PoisonError::into_inner).asked.push(asked);
    let Some((status, kind, content)) = said else { return std::future::pending().await };
    let mut response = Response::new(Full::new(Bytes::from(content)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
    // IMDS says with its token how long that is good.
    response.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", 21600.into());
    Ok(response)
}
