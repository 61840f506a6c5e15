//! Clients of HTTP/1.1 and HTTP/2, with connections of their own and with kept ones.
//!
//! A client whose kept connection ends does as Go's `net/http` does, which AWS's and Kubernetes' own clients
//! use: a request of which nothing was written goes out on another connection; so does one with an idempotent method on a
//! connection that was used before, if it ended before a byte of the answer. On a new connection, nothing is repeated.

use std::{
    collections::VecDeque,
    error::Error,
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request,
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
    header::{CONNECTION, HOST, HeaderValue},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::Instant;

use super::{
    AbortOnDrop, LoadSpec, Scheme, Shared,
    dial::{Dialer, Reads, kind_of},
    outcome::{Answer, LostKind, Outcome},
};

/// The most that a connection may take to be ready for another request, once an answer was read.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// The kept connections.
pub(super) struct Client {
    capacity: usize,
    kept_for: Duration,
    kept: Mutex<VecDeque<Kept>>,
    alive: Arc<AtomicUsize>,
}

/// A connection that requests are sent on.
struct Kept {
    sender: Sender,
    address: Ipv4Addr,
    certificate: Option<Bytes>,
    reads: Reads,
    used: bool,
    opened: Instant,
    /// Shared by the requests of an HTTP/2 connection.
    driver: Arc<Driver>,
}

/// The task of a connection, counted among those alive.
struct Driver {
    _task: AbortOnDrop<()>,
    alive: Arc<AtomicUsize>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::One(sender) => sender.is_closed(),
            Self::Two(sender) => sender.is_closed(),
        }
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<hyper::Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        match self {
            Self::One(sender) => sender.try_send_request(request).await,
            Self::Two(sender) => sender.try_send_request(request).await,
        }
    }

    async fn ready(&mut self) -> bool {
        let ready = async {
            match self {
                Self::One(sender) => sender.ready().await,
                Self::Two(sender) => sender.ready().await,
            }
        };
        matches!(tokio::time::timeout(READY_WITHIN, ready).await, Ok(Ok(())))
    }
}

/// The reason why there is no answer.
enum Broken {
    /// Nothing of the request was written.
    NotSent,
    /// The connection ended before a byte of the answer.
    BeforeAnswer(Outcome),
    /// Anything else.
    For(Outcome),
}

/// The progress of a request, for the report of one that has no more time.
#[derive(Default)]
struct Progress(Mutex<(Option<Ipv4Addr>, &'static str)>);

impl Progress {
    fn is(&self, address: Ipv4Addr, doing: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Some(address), doing);
    }

    fn timed_out(&self) -> Outcome {
        let (address, doing) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = address.map(|address| format!("{address}: ")).unwrap_or_default();
        Outcome::lost(LostKind::TimedOut, format!("{address}{doing}"))
    }
}

impl Client {
    pub(super) fn new(spec: &LoadSpec) -> Self {
        Self {
            capacity: spec.kept_connections.max(1),
            kept_for: spec.kept_for.unwrap_or(Duration::MAX),
            kept: Mutex::default(),
            alive: Arc::default(),
        }
    }

    /// Sends a request, on a connection of its own if `new`.
    pub(super) async fn request(&self, shared: &Shared, new: bool) -> Outcome {
        let progress = Progress::default();
        let request = async {
            let answer = if new { self.on_new(shared, &progress).await } else { self.on_kept(shared, &progress).await };
            let answer = match answer {
                Ok(answer) => follow(shared, answer, &progress).await,
                Err(outcome) => Err(outcome),
            };
            answer.map_or_else(|outcome| outcome, |answer| shared.judged(&answer))
        };
        let done = tokio::time::timeout(shared.spec.timeout, request).await;
        done.unwrap_or_else(|_| progress.timed_out())
    }

    async fn on_new(&self, shared: &Shared, progress: &Progress) -> Result<Answer, Outcome> {
        // It counts among no kept ones.
        let mut connection = open(&shared.dialer, shared.spec.http2, &Arc::default(), progress).await?;
        let close = !shared.spec.http2;
        exchange(shared, &mut connection, close, progress).await.map_err(Broken::into_outcome)
    }

    async fn on_kept(&self, shared: &Shared, progress: &Progress) -> Result<Answer, Outcome> {
        loop {
            let mut connection = match self.take(shared) {
                Some(connection) => connection,
                None => open(&shared.dialer, shared.spec.http2, &self.alive, progress).await?,
            };
            let used = std::mem::replace(&mut connection.used, true);
            match exchange(shared, &mut connection, false, progress).await {
                Ok(answer) => {
                    self.put(connection).await;
                    return Ok(answer);
                }
                Err(Broken::NotSent) if used => shared.book.reopened(),
                Err(Broken::BeforeAnswer(_)) if used && !shared.spec.strict && is_idempotent(&shared.spec.method) => {
                    drop(connection);
                    shared.book.retried();
                    let mut connection = open(&shared.dialer, shared.spec.http2, &self.alive, progress).await?;
                    connection.used = true;
                    let answer = exchange(shared, &mut connection, false, progress).await;
                    let answer = answer.map_err(Broken::into_outcome)?;
                    self.put(connection).await;
                    return Ok(answer);
                }
                Err(broken) => return Err(broken.into_outcome()),
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an open connection, the one that has been idle for the longest time; none if there are to be more.
    fn take(&self, shared: &Shared) -> Option<Kept> {
        let mut kept = self.kept();
        let before = kept.len();
        kept.retain(|connection| !connection.sender.is_closed());
        for _ in kept.len()..before {
            shared.book.reopened();
        }
        kept.retain(|connection| connection.opened.elapsed() < self.kept_for);
        if self.alive.load(Ordering::Relaxed) < self.capacity {
            return None;
        }
        let connection = kept.pop_front()?;
        // An HTTP/2 connection is for several requests at a time.
        if let Sender::Two(sender) = &connection.sender {
            let again = Kept {
                sender: Sender::Two(sender.clone()),
                certificate: connection.certificate.clone(),
                reads: connection.reads.clone(),
                driver: connection.driver.clone(),
                ..connection
            };
            kept.push_back(again);
        }
        Some(connection)
    }

    /// Keeps a connection for the next request, unless the server closes it.
    async fn put(&self, mut connection: Kept) {
        if !connection.sender.ready().await {
            return;
        }
        let mut kept = self.kept();
        let is_there = kept.iter().any(|other| Arc::ptr_eq(&other.driver, &connection.driver));
        if !is_there && kept.len() < self.capacity {
            kept.push_back(connection);
        }
    }
}

impl Broken {
    fn into_outcome(self) -> Outcome {
        match self {
            Self::NotSent => {
                Outcome::lost(LostKind::Closed, "the connection was closed before the request was written")
            }
            Self::BeforeAnswer(outcome) | Self::For(outcome) => outcome,
        }
    }
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(method)
}

/// Opens a connection, counted in `alive` as long as it is.
async fn open(dialer: &Dialer, http2: bool, alive: &Arc<AtomicUsize>, progress: &Progress) -> Result<Kept, Outcome> {
    let connection = dialer.dial(|address| progress.is(address, "connecting")).await?;
    let (address, certificate) = (connection.address, connection.certificate);
    let reads = connection.stream.reads.clone();
    let stream = TokioIo::new(connection.stream);
    // Its end is seen by who sends on it.
    let (sender, task) = if http2 {
        let shake = http2::handshake(TokioExecutor::new(), stream).await;
        let (sender, connection) = shake.map_err(|error| of_error(address, &error))?;
        (Sender::Two(sender), tokio::spawn(async move { drop(connection.await) }))
    } else {
        let shake = http1::handshake(stream).await;
        let (sender, connection) = shake.map_err(|error| of_error(address, &error))?;
        (Sender::One(sender), tokio::spawn(async move { drop(connection.await) }))
    };
    alive.fetch_add(1, Ordering::Relaxed);
    let driver = Arc::new(Driver { _task: AbortOnDrop(task), alive: alive.clone() });
    Ok(Kept { sender, address, certificate, reads, used: false, opened: Instant::now(), driver })
}

/// Asks again with TLS where an answer redirects to it and clients follow.
async fn follow(shared: &Shared, answer: Answer, progress: &Progress) -> Result<Answer, Outcome> {
    let Some(dialer) = &shared.follow else { return Ok(answer) };
    let redirects = (300..400).contains(&answer.status) && answer.header("location").starts_with("https://");
    if !redirects {
        return Ok(answer);
    }
    let mut connection = open(dialer, false, &Arc::default(), progress).await?;
    let answer = exchange(shared, &mut connection, true, progress).await.map_err(Broken::into_outcome)?;
    Ok(Answer { redirected: true, ..answer })
}

/// Sends the request and reads the whole answer.
async fn exchange(shared: &Shared, on: &mut Kept, close: bool, progress: &Progress) -> Result<Answer, Broken> {
    let address = on.address;
    progress.is(address, if on.used { "waiting on a kept connection" } else { "waiting on a new connection" });
    let request = request(&shared.spec, matches!(on.sender, Sender::Two(_)), close).map_err(|error| {
        Broken::For(Outcome::lost(LostKind::Client, format!("the request cannot be built: {error}")))
    })?;
    on.reads.forget();
    let answer = match on.sender.send(request).await {
        Ok(answer) => answer,
        Err(error) if error.message().is_some() => return Err(Broken::NotSent),
        Err(error) => {
            let outcome = of_error(address, error.error());
            // Streams of HTTP/2 share what is read; there the server says which requests it has not begun.
            let untouched = match on.sender {
                Sender::One(_) => !on.reads.any(),
                Sender::Two(_) => is_refused_stream(error.error()),
            };
            return Err(if untouched { Broken::BeforeAnswer(outcome) } else { Broken::For(outcome) });
        }
    };
    progress.is(address, "reading the answer");
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| {
        let status = head.status.as_u16();
        let detail = format!("{address}: within the answer {status}: {}", causes(&error));
        Broken::For(Outcome::lost(LostKind::Cut, detail))
    })?;
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.to_bytes(),
        certificate: on.certificate.clone(),
        address,
        redirected: false,
    })
}

fn request(spec: &LoadSpec, http2: bool, close: bool) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let host = spec.host.as_deref().unwrap_or(&spec.name);
    let scheme = if matches!(spec.scheme, Scheme::Https(_)) { "https" } else { "http" };
    let mut request = Request::builder().method(&spec.method);
    request = if http2 {
        request.uri(format!("{scheme}://{host}{}", spec.path))
    } else {
        request.uri(&spec.path).header(HOST, host)
    };
    let mut request = request.body(Full::new(spec.body.clone()))?;
    request.headers_mut().extend(spec.headers.clone());
    if close {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(request)
}

/// Returns true if the server of an HTTP/2 connection says that it has not begun with the request.
fn is_refused_stream(error: &hyper::Error) -> bool {
    sources(error)
        .map(ToString::to_string)
        .any(|text| text.contains("refused stream") || text.contains("not a result of an error"))
}

fn of_error(address: Ipv4Addr, error: &hyper::Error) -> Outcome {
    let kind = match sources(error).find_map(|source| source.downcast_ref::<io::Error>()) {
        Some(error) => kind_of(error),
        None if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => LostKind::Closed,
        None if error.is_parse() => LostKind::Garbled,
        // HTTP/2: a stream or the connection was reset.
        None => LostKind::Reset,
    };
    Outcome::lost(kind, format!("{address}: {}", causes(error)))
}

/// Returns the causes of an error.
fn sources(error: &hyper::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}

/// Returns an error and its causes in a line.
fn causes(error: &hyper::Error) -> String {
    sources(error).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
