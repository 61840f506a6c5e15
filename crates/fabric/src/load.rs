//! Open-loop load: requests go out on a schedule that does not wait for answers, so that a load balancer that answers late
//! is asked as often as one that answers soon. Every request has one of three ends: answered, wrong, lost.
//!
//! A client of the load resolves the load balancer's name for each connection, dials one of the addresses and does not try
//! another one. So a node that refuses is seen, where a client that falls back would hide it.

mod dial;
mod http;
mod lines;
mod outcome;
mod udp;

use std::{
    borrow::Cow,
    net::Ipv4Addr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use hyper::{HeaderMap, Method};
use rustls::RootCertStore;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

pub use outcome::{Answer, By, Failure, Figures, Judged, Lost, LostKind, Outcome, Report, Seen};

use dial::Dialer;
use outcome::Book;

/// Returns the addresses of a host name.
pub type Resolve = Arc<dyn Fn(&str) -> Vec<Ipv4Addr> + Send + Sync>;

/// Says of an answer which one it is (a label), or the reason why it is wrong.
pub type Judge = Arc<dyn Fn(&Answer) -> Judged + Send + Sync>;

/// Says of a lost request that it is expected to be lost, by a label.
pub type Excuse = Arc<dyn Fn(&Lost) -> Option<Cow<'static, str>> + Send + Sync>;

/// The pause between two lines of a long-lived connection.
const LINE_EVERY: Duration = Duration::from_millis(100);

/// The protocol of clients.
#[derive(Clone, Debug)]
pub enum Scheme {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https(Tls),
    /// Lines over TCP, each of which the target sends back.
    Tcp,
    /// The same over TLS.
    Tls(Tls),
    /// Datagrams, each of which the target sends back.
    Udp,
}

/// The settings of TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The name that clients ask for.
    pub server_name: String,
    /// The authorities that clients trust. Without it any certificate is accepted; the judge sees it.
    pub roots: Option<Arc<RootCertStore>>,
}

/// The way that clients follow a redirect to `https`: to the same host, on a connection of its own, with HTTP/1.1.
#[derive(Clone, Debug)]
pub struct Follow {
    /// The settings of TLS.
    pub tls: Tls,
    /// The port that they dial.
    pub port: u16,
}

/// The load: who is asked, what, and how often.
#[derive(Clone)]
pub struct LoadSpec {
    /// For reports.
    pub title: String,
    /// The host name that is resolved for each new connection.
    pub name: String,
    /// The port that clients dial.
    pub port: u16,
    /// The protocol of clients.
    pub scheme: Scheme,
    /// Requests a second, of all kinds.
    pub rate: u32,
    /// The share of requests, from 0 to 1, that have a connection of their own; the others use kept connections.
    pub new_connections: f64,
    /// The number of connections that are kept, where the scheme is HTTP or UDP.
    pub kept_connections: usize,
    /// After this time a kept connection is not used again, as clients do that follow DNS. `None`: as long as it is open.
    pub kept_for: Option<Duration>,
    /// True for HTTP/2, by ALPN or with prior knowledge.
    pub http2: bool,
    /// The method.
    pub method: Method,
    /// The header `Host`; the host name if none.
    pub host: Option<String>,
    /// The path and the query.
    pub path: String,
    /// More headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Says which answer it is.
    pub judge: Judge,
    /// Says which losses are expected; without it, none is.
    pub excuse: Option<Excuse>,
    /// The way on for clients that an answer redirects to `https`; without it, such an answer is the last.
    pub follow: Option<Follow>,
    /// The most that a request may take, with its connection and its retry.
    pub timeout: Duration,
    /// The most that a datagram's echo may take.
    pub datagram_timeout: Duration,
    /// True if a request that no byte of an answer came for is lost, even where clients repeat it on another connection.
    pub strict: bool,
    /// Clients dial from `127.40.A.0` to `127.40.A.255`, with this A.
    pub clients: u8,
    /// The numbers drawn come from it.
    pub seed: u64,
    /// Resolves the host name.
    pub resolve: Resolve,
}

impl LoadSpec {
    /// Returns a load of 200 `GET /` a second over HTTP/1.1, half of them on kept connections, for which each answer below
    /// 400 is right and has its status as label.
    #[must_use]
    pub fn new(name: &str, port: u16, resolve: Resolve) -> Self {
        Self {
            title: name.to_owned(),
            name: name.to_owned(),
            port,
            scheme: Scheme::Http,
            rate: 200,
            new_connections: 0.5,
            kept_connections: 8,
            kept_for: None,
            http2: false,
            method: Method::GET,
            host: None,
            path: "/".to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            judge: Arc::new(|answer| match answer.status {
                status if status < 400 => Ok(status.to_string().into()),
                status => Err(format!("status {status}")),
            }),
            excuse: None,
            follow: None,
            timeout: Duration::from_secs(5),
            datagram_timeout: Duration::from_secs(1),
            strict: false,
            clients: 0,
            seed: 0,
            resolve,
        }
    }

    fn tls(&self) -> Option<&Tls> {
        match &self.scheme {
            Scheme::Https(tls) | Scheme::Tls(tls) => Some(tls),
            Scheme::Http | Scheme::Tcp | Scheme::Udp => None,
        }
    }
}

/// A running load. Dropping it ends it at once, and what is in flight counts for nothing.
pub struct Load {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    scheduler: AbortOnDrop<()>,
}

/// The data that all requests of a load share.
struct Shared {
    spec: LoadSpec,
    dialer: Dialer,
    /// For redirects.
    follow: Option<Dialer>,
    book: Book,
    /// Those of the specification, until they are replaced.
    judges: RwLock<(Judge, Option<Excuse>)>,
}

impl Shared {
    /// Judges a whole answer.
    fn judged(&self, answer: &Answer) -> Outcome {
        let (judge, _) = self.judges();
        Outcome::of_answer(answer, &judge)
    }

    fn judges(&self) -> (Judge, Option<Excuse>) {
        self.judges.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the end of a request that was sent at this time.
    fn end(&self, sent: Duration, outcome: Outcome) {
        let outcome = match (outcome, self.judges().1) {
            (Outcome::Lost(lost), Some(excuse)) => match excuse(&lost) {
                Some(label) => Outcome::Answered { by: By::Nobody, label },
                None => Outcome::Lost(lost),
            },
            (outcome, _) => outcome,
        };
        self.book.end(sent, outcome);
    }
}

impl Load {
    /// Starts a load.
    ///
    /// # Errors
    /// Returns an error if the name that clients of TLS ask for is no name.
    pub fn start(spec: LoadSpec) -> Result<Self, InvalidSpec> {
        let shared = Arc::new(Shared {
            dialer: Dialer::new(&spec, spec.port, spec.tls(), spec.http2)?,
            follow: match &spec.follow {
                Some(follow) => Some(Dialer::new(&spec, follow.port, Some(&follow.tls), false)?),
                None => None,
            },
            book: Book::default(),
            judges: RwLock::new((spec.judge.clone(), spec.excuse.clone())),
            spec,
        });
        let (stop, stopped) = watch::channel(false);
        let scheduler = AbortOnDrop(tokio::spawn(run(shared.clone(), stopped)));
        Ok(Self { shared, stop, scheduler })
    }

    /// Returns the numbers until now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.shared.book.figures()
    }

    /// Returns the report until now.
    #[must_use]
    pub fn report(&self) -> Report {
        self.shared.book.report(&self.shared.spec.title)
    }

    /// Returns the time since the start, as in the report.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.book.elapsed()
    }

    /// Judges answers and losses in another way from now on.
    pub fn judge_by(&self, judge: Judge, excuse: Option<Excuse>) {
        *self.shared.judges.write().unwrap_or_else(PoisonError::into_inner) = (judge, excuse);
    }

    /// Sends no further request, waits for the answers in flight, and returns the report.
    pub async fn stop(mut self) -> Report {
        // The receiver is gone only if the scheduler has ended.
        let _ = self.stop.send(true);
        let _ = (&mut self.scheduler.0).await;
        self.report()
    }
}

/// The reason why a load cannot start.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSpec {
    /// The server's name is neither a host name nor an address.
    #[error("`{0}` is no server name")]
    ServerName(String),
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] crate::tls::TlsError),
}

/// A task that ends with its owner.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The client of a load's scheme.
enum Client {
    Http(http::Client),
    Lines,
    Udp(udp::Client),
}

async fn run(shared: Arc<Shared>, stopped: watch::Receiver<bool>) {
    let client = match shared.spec.scheme {
        Scheme::Http | Scheme::Https(_) => Client::Http(http::Client::new(&shared.spec)),
        Scheme::Tcp | Scheme::Tls(_) => Client::Lines,
        Scheme::Udp => Client::Udp(udp::Client::default()),
    };
    let rate = f64::from(shared.spec.rate);
    let new_connections = shared.spec.new_connections.clamp(0.0, 1.0);
    let mut lasting = JoinSet::new();
    // Lines of long-lived connections have a clock of their own.
    let (rate, new_connections) = if matches!(client, Client::Lines) {
        let lines = rate * (1.0 - new_connections) * LINE_EVERY.as_secs_f64();
        for number in 0..count(lines.ceil()) {
            lasting.spawn(lines::keep(shared.clone(), stopped.clone(), number));
        }
        (rate * new_connections, 1.0)
    } else {
        (rate, new_connections)
    };
    if rate > 0.0 {
        schedule(&shared, Arc::new(client), rate, new_connections, stopped).await;
    }
    while lasting.join_next().await.is_some() {}
}

/// Returns a small count that was computed.
fn count(number: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    let count = number as u32;
    count
}

/// Sends each request at its time, until the load is stopped; then waits for those in flight.
async fn schedule(
    shared: &Arc<Shared>,
    client: Arc<Client>,
    rate: f64,
    new_connections: f64,
    mut stopped: watch::Receiver<bool>,
) {
    let start = Instant::now();
    let mut requests = JoinSet::new();
    let mut new = Share::of(new_connections);
    for number in 0_u32.. {
        let due = start + Duration::from_secs_f64(f64::from(number) / rate);
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            () = tokio::time::sleep_until(due) => {}
        }
        shared.book.behind(due.elapsed());
        let (shared, client, new) = (shared.clone(), client.clone(), new.next());
        requests.spawn(async move {
            let sent = shared.book.begin();
            let outcome = match &*client {
                Client::Http(client) => client.request(&shared, new).await,
                Client::Lines => lines::once(&shared).await,
                Client::Udp(client) => client.request(&shared, new).await,
            };
            shared.end(sent, outcome);
        });
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

/// Chooses a share of a sequence, evenly.
struct Share {
    share: f64,
    sum: f64,
}

impl Share {
    fn of(share: f64) -> Self {
        Self { share, sum: 0.5 }
    }

    fn next(&mut self) -> bool {
        self.sum += self.share;
        let chosen = self.sum >= 1.0;
        if chosen {
            self.sum -= 1.0;
        }
        chosen
    }
}

#[cfg(test)]
mod tests;
