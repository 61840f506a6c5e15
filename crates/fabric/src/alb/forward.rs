//! A request: its rule, and what the rule's action makes of it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Frame, Incoming, SizeHint},
    header::{CONTENT_TYPE, HOST, HeaderValue},
    http::uri::{Authority, PathAndQuery, Scheme},
};
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    CONNECT, Shared, access,
    answer::{self, Body, BoxError},
    connection::{Client, InFlight},
    cookies::{self, Stickiness},
    find,
    headers::{self, Hop},
    pool::{ConnectError, Connection, Key, Pool, speaks_http2},
    time, tunnel,
};
use crate::{
    account::{Account, Action, LoadBalancer, Protocol, TargetGroup},
    matching::{self, RequestParts, Url},
    targets::Picked,
};

/// Answers a request.
pub(super) async fn answer(shared: &Arc<Shared>, client: &Client, request: Request<Incoming>) -> Response<Body> {
    let account = shared.account();
    let Some((balancer, listener)) = find(&account, &shared.node, shared.port) else { return answer::status(503) };
    let is_grpc = is_grpc(&request);
    let own = |status| if is_grpc { answer::grpc(status) } else { answer::status(status) };
    if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
        return own(405);
    }
    if headers::has_too_many_hops(request.headers()) {
        return own(463);
    }
    let offset = shared.node.options.port_offset;
    let host = headers::host_without_offset(&host(&request), client.protocol, shared.port, offset);
    if host.is_empty() && request.version() != Version::HTTP_10 {
        return own(400);
    }
    let uri = request.uri().clone();
    let parts = RequestParts {
        method: request.method().as_str(),
        host: &host,
        path: uri.path(),
        query: uri.query(),
        headers: request.headers(),
        source: client.seen,
    };
    let chosen = matching::choose(listener, &parts);
    let url = match matching::transformed(chosen.transforms, &parts) {
        Ok(url) => url,
        Err(_) => return own(500),
    };
    if chosen.actions.contains(&Action::Authenticate) {
        return own(501);
    }
    let Some(action) = chosen.actions.last() else { return own(503) };
    match action {
        Action::Authenticate => own(501),
        Action::FixedResponse { status, content_type, body } => answer::fixed(*status, content_type.as_deref(), body),
        Action::Redirect { status, .. } => {
            let location = matching::location(action, &url, client.protocol, shared.port, offset);
            answer::redirect(*status, &location.unwrap_or_default())
        }
        Action::Forward { target_groups, stickiness_seconds } => {
            let now = time::now();
            let remembered = stickiness_seconds
                .and_then(|_| cookies::remembered(request.headers(), cookies::OF_GROUP, now))
                .map(|remembered| remembered.group);
            let arn = matching::target_group(target_groups, remembered.as_deref(), shared.draw());
            let found = arn.and_then(|arn| Some((arn, account.target_groups.get(arn)?)));
            let Some((arn, group)) = found else { return own(503) };
            let forward = Forward { shared, client, account: &account, balancer, arn, group, now };
            let mut response = match forward.run(request, &url).await {
                Ok(response) => response,
                Err(status) if group.protocol_version.as_deref() == Some("GRPC") => return answer::grpc(status),
                Err(status) => return own(status),
            };
            if let Some(seconds) = stickiness_seconds.filter(|_| target_groups.len() > 1) {
                let age = shared.scaled(Duration::from_secs(u64::from(seconds)));
                let secure = client.protocol == Protocol::Https;
                cookies::remember(response.headers_mut(), cookies::OF_GROUP, (arn, None), (time::now(), age), secure);
            }
            response
        }
    }
}

/// Returns the host that a client asks for.
fn host(request: &Request<Incoming>) -> String {
    match request.uri().authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => {
            let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
            host.unwrap_or_default().to_owned()
        }
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    request.version() == Version::HTTP_2 && content_type.starts_with(b"application/grpc")
}

/// Returns true if a target group takes requests of this protocol.
fn is_compatible(group: &TargetGroup, request: &Request<Incoming>) -> bool {
    match group.protocol_version.as_deref() {
        Some("GRPC") => request.version() == Version::HTTP_2 && request.method() == Method::POST,
        Some("HTTP2") => request.version() == Version::HTTP_2,
        _ => !is_grpc(request),
    }
}

/// A request on its way to a target group.
struct Forward<'a> {
    shared: &'a Arc<Shared>,
    client: &'a Client,
    account: &'a Account,
    balancer: &'a LoadBalancer,
    arn: &'a str,
    group: &'a TargetGroup,
    /// The millisecond since 1970.
    now: i64,
}

impl Forward<'_> {
    /// Sends the request to a target. An error is the status of the load balancer's own answer.
    async fn run(&self, mut request: Request<Incoming>, url: &Url) -> Result<Response<Body>, u16> {
        if !is_compatible(self.group, &request) {
            return Err(464);
        }
        let stickiness = Stickiness::of(&self.group.attributes);
        let sticky =
            stickiness.as_ref().and_then(|stickiness| stickiness.target(request.headers(), self.arn, self.now));
        let picked = self
            .shared
            .node
            .targets
            .pick(self.account, self.arn, self.client.address, sticky.as_ref())
            .map_err(|_| 503_u16)?;
        let upgrades = !speaks_http2(self.group) && headers::wants_upgrade(request.version(), request.headers());
        let client_side = upgrades.then(|| hyper::upgrade::on(&mut request));
        let idle = self.shared.idle_timeout(self.account);
        let activity = Arc::new(Activity::new(&request));
        let request = self.for_target(request, url, upgrades, &activity).ok_or(400_u16)?;
        let key = Key { group: self.arn.to_owned(), target: picked.target.clone(), address: picked.address };
        let (mut response, connection) = tokio::select! {
            sent = self.send(request, &key, &picked, &activity, idle) => sent?,
            // The time to complete requests on a deregistered target is over.
            () = becomes_true(picked.gone.clone()) => return Err(502),
        };
        let sticks = sticky.as_ref() == Some(&picked.target);
        let target_side =
            (response.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut response));
        let (mut head, body) = response.into_parts();
        head.version = Version::HTTP_11;
        headers::strip(&mut head.headers, target_side.is_some());
        self.stick(&mut head.headers, stickiness.as_ref(), &picked, sticks);
        let body = match (client_side, target_side) {
            (Some(client_side), Some(target_side)) => {
                tunnel::open(&self.shared.lifetime, client_side, target_side, picked, idle);
                answer::empty()
            }
            // The target switches to a protocol that nobody asked for.
            (None, Some(_)) => return Err(502),
            (_, None) => {
                let back = match connection {
                    Connection::Http1(_) => Some((self.shared.pool.clone(), key, connection)),
                    Connection::Http2(_) => None,
                };
                Download::new(body, picked, idle, activity, back, self.client.busy.enter()).boxed_unsync()
            }
        };
        Ok(Response::from_parts(head, body))
    }

    /// Returns the request as the target gets it.
    fn for_target(
        &self,
        request: Request<Incoming>,
        url: &Url,
        upgrades: bool,
        activity: &Arc<Activity>,
    ) -> Option<Request<Body>> {
        let (mut head, body) = request.into_parts();
        let random = u128::from(self.shared.draw()) << 64 | u128::from(self.shared.draw());
        let hop = Hop {
            client: (self.client.seen, self.client.address.port()).into(),
            protocol: self.client.protocol,
            port: self.shared.port,
            attributes: &self.balancer.attributes,
            certificate: self.client.certificate.as_deref(),
            now: self.now.div_euclid(1000),
            random,
        };
        headers::to_target(&mut head.headers, &hop, upgrades);
        let host = headers::host_for_target(&url.host, self.shared.port, &self.balancer.attributes);
        let mut uri = hyper::http::uri::Parts::default();
        uri.path_and_query = Some(match url.path.as_str() {
            "*" => PathAndQuery::from_static("*"),
            _ => url.path_and_query().parse().ok()?,
        });
        if speaks_http2(self.group) {
            uri.scheme = Some(if self.group.protocol == Protocol::Https { Scheme::HTTPS } else { Scheme::HTTP });
            uri.authority = Some(host.parse::<Authority>().ok()?);
            head.version = Version::HTTP_2;
        } else {
            head.headers.insert(HOST, HeaderValue::from_str(&host).ok()?);
            head.version = Version::HTTP_11;
        }
        head.uri = Uri::from_parts(uri).ok()?;
        head.extensions.clear();
        Some(Request::from_parts(head, Upload { body, activity: activity.clone() }.boxed_unsync()))
    }

    /// Sends the request on a kept connection or a new one, and waits for the head of the answer.
    async fn send(
        &self,
        mut request: Request<Body>,
        key: &Key,
        picked: &Picked,
        activity: &Activity,
        idle: Duration,
    ) -> Result<(Response<Incoming>, Connection), u16> {
        let time = self.shared.scaled(CONNECT);
        loop {
            let kept = self.shared.pool.take(key);
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None if !access::reaches(&self.shared.node, self.account, picked, self.group.target_type) => {
                    // Packets are dropped on the way.
                    let _ = timeout(time, std::future::pending::<()>()).await;
                    return Err(504);
                }
                None => self.shared.pool.connect(key, self.group, time).await.map_err(|error| {
                    tracing::debug!(target = ?key.target, %error, "no connection to a target");
                    if matches!(error, ConnectError::TimedOut) { 504_u16 } else { 502 }
                })?,
            };
            let sent = tokio::select! {
                sent = connection.send(request) => sent,
                () = activity.ended(idle) => {
                    return Err(if activity.is_uploaded() { 504 } else { 408 });
                }
            };
            match sent {
                Ok(response) => return Ok((response, connection)),
                Err(mut error) => match error.take_message() {
                    // The target had closed a kept connection, and this was known before the request was written.
                    Some(unsent) if is_kept => request = unsent,
                    // Like AWS, nothing is sent twice: the target may have begun with it.
                    _ => {
                        tracing::debug!(target = ?key.target, error = %error.error(), "a target did not answer");
                        return Err(502);
                    }
                },
            }
        }
    }

    /// Adds the cookie that keeps the client with the target.
    fn stick(&self, headers: &mut hyper::HeaderMap, stickiness: Option<&Stickiness>, picked: &Picked, sticks: bool) {
        let (name, seconds) = match stickiness {
            Some(Stickiness::Duration(seconds)) => (cookies::OF_TARGET, *seconds),
            // It begins with a cookie of the application, and goes on with each answer.
            Some(Stickiness::Application { cookie, seconds }) if sticks || cookies::sets(headers, cookie) => {
                (cookies::OF_APPLICATION, *seconds)
            }
            _ => return,
        };
        let age = self.shared.scaled(Duration::from_secs(seconds));
        let secure = self.client.protocol == Protocol::Https;
        cookies::remember(headers, name, (self.arn, Some(&picked.target)), (time::now(), age), secure);
    }
}

/// Waits until a value is true; without an end if it never will be.
pub(super) async fn becomes_true(mut value: watch::Receiver<bool>) {
    if value.wait_for(|value| *value).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// When data last went in either direction.
pub(super) struct Activity {
    begin: Instant,
    /// Milliseconds after the begin.
    last: AtomicU64,
    uploaded: AtomicBool,
}

impl Activity {
    fn new(request: &Request<Incoming>) -> Self {
        let activity = Self::begin();
        activity.uploaded.store(request.body().is_end_stream(), Ordering::Relaxed);
        activity
    }

    /// Returns one that begins now.
    pub(super) fn begin() -> Self {
        Self { begin: Instant::now(), last: AtomicU64::new(0), uploaded: AtomicBool::new(false) }
    }

    /// Notes that data went.
    pub(super) fn touch(&self) {
        let millis = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(millis, Ordering::Relaxed);
    }

    fn is_uploaded(&self) -> bool {
        self.uploaded.load(Ordering::Relaxed)
    }

    fn end(&self, idle: Duration) -> Instant {
        self.begin + Duration::from_millis(self.last.load(Ordering::Relaxed)) + idle
    }

    /// Waits until no data has gone for a time.
    pub(super) async fn ended(&self, idle: Duration) {
        while self.end(idle) > Instant::now() {
            sleep_until(self.end(idle)).await;
        }
    }
}

/// The body of a request.
struct Upload {
    body: Incoming,
    activity: Arc<Activity>,
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.activity.touch();
        if frame.is_none() || self.body.is_end_stream() {
            self.activity.uploaded.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a target's answer. It ends early if no data comes for long, or if the target has no more time.
struct Download {
    body: Incoming,
    activity: Arc<Activity>,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    gone: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    /// The pool that the connection goes back to after the body.
    back: Option<(Arc<Pool>, Key, Connection)>,
    // The target is in use and the client is busy until the body ends.
    _picked: Picked,
    _busy: InFlight,
}

impl Download {
    fn new(
        body: Incoming,
        picked: Picked,
        idle: Duration,
        activity: Arc<Activity>,
        back: Option<(Arc<Pool>, Key, Connection)>,
        busy: InFlight,
    ) -> Self {
        activity.touch();
        let timer = Box::pin(sleep_until(activity.end(idle)));
        let gone = Box::pin(becomes_true(picked.gone.clone()));
        Self { body, activity, idle, timer, gone, ended: false, back, _picked: picked, _busy: busy }
    }
}

impl hyper::body::Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.activity.touch();
            self.ended |= frame.is_none();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if self.gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err("the target has no more time".into())));
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let end = self.activity.end(self.idle);
            if end <= Instant::now() {
                return Poll::Ready(Some(Err("the target sends nothing any more".into())));
            }
            self.timer.as_mut().reset(end);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if (self.ended || self.body.is_end_stream())
            && let Some((pool, key, connection)) = self.back.take()
        {
            pool.give(key, connection);
        }
    }
}
