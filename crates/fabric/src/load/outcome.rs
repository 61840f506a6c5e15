//! The ends of requests, and their counts.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    fmt,
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hyper::HeaderMap;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::Judge;

/// The most lost or wrong requests that are kept with their details.
const KEPT_FAILURES: usize = 20;
/// The most labels, and the most reasons, that are counted one by one.
const KEPT_NAMES: usize = 64;
/// The name under which all beyond [`KEPT_NAMES`] are counted.
const OTHERS: &str = "others";

/// The header by which a pod names itself.
const POD: &str = "x-pod";

/// The label of an answer, or the reason why it is wrong.
pub type Judged = Result<Cow<'static, str>, String>;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status; 0 where the scheme is not HTTP.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or the line or datagram that came back.
    pub body: Bytes,
    /// The server's certificate in DER, where the scheme has TLS.
    pub certificate: Option<Bytes>,
    /// The address that was asked.
    pub address: Ipv4Addr,
    /// True if it is the answer that a redirect led to.
    pub redirected: bool,
}

impl Answer {
    /// Returns the pod that answered, if a pod did.
    #[must_use]
    pub fn pod(&self) -> Option<&str> {
        self.headers.get(POD)?.to_str().ok()
    }

    /// Returns true if the load balancer answered by itself.
    #[must_use]
    pub fn is_of_load_balancer(&self) -> bool {
        let server = self.headers.get(hyper::header::SERVER).and_then(|server| server.to_str().ok());
        self.pod().is_none() && server.is_some_and(|server| server.starts_with("awselb/"))
    }

    /// Returns a header, empty if there is none that is text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the body as text.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, by one of the right answers.
    Answered {
        /// The origin of the answer.
        by: By,
        /// Which answer it is.
        label: Cow<'static, str>,
    },
    /// Answered, but wrongly: with the reason.
    Wrong(String),
    /// Not answered, or by the load balancer's own failure.
    Lost(Lost),
}

/// The origin of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A pod that names itself.
    Pod,
    /// The load balancer.
    LoadBalancer,
    /// A target that does not name itself.
    Unnamed,
    /// Nobody, as expected.
    Nobody,
}

/// A lost request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The kind.
    pub kind: LostKind,
    /// For people.
    pub detail: String,
}

/// The kind of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LostKind {
    /// The host name has no address.
    NoAddress,
    /// The connection was refused.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the answer.
    Closed,
    /// The connection was closed or reset within the answer.
    Cut,
    /// There was no answer in time.
    TimedOut,
    /// TLS failed, but not for the certificate.
    Tls,
    /// A status of 500 and above that no pod sent.
    Status(u16),
    /// The bytes that came are no answer.
    Garbled,
    /// The client could not send: not the load balancer's fault.
    Client,
}

impl fmt::Display for LostKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAddress => "no address",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed before the answer",
            Self::Cut => "cut within the answer",
            Self::TimedOut => "timed out",
            Self::Tls => "TLS failed",
            Self::Status(status) => return write!(f, "{status} that no pod sent"),
            Self::Garbled => "no answer of the protocol",
            Self::Client => "not sent by the client",
        })
    }
}

impl Outcome {
    pub(super) fn lost(kind: LostKind, detail: impl Into<String>) -> Self {
        Self::Lost(Lost { kind, detail: detail.into() })
    }

    /// Returns the outcome of a whole answer.
    pub(super) fn of_answer(answer: &Answer, judge: &Judge) -> Self {
        let pod = answer.pod();
        if answer.status >= 500 && pod.is_none() {
            let detail = format!("{}: {}", answer.address, shortened(&answer.text()));
            return Self::lost(LostKind::Status(answer.status), detail);
        }
        let by = match pod {
            Some(_) => By::Pod,
            None if answer.is_of_load_balancer() => By::LoadBalancer,
            None => By::Unnamed,
        };
        match judge(answer) {
            Ok(label) => Self::Answered { by, label },
            Err(reason) => Self::Wrong(format!("{}: {reason}", answer.address)),
        }
    }
}

/// Returns the first line of a text, not too long.
pub(super) fn shortened(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(100).collect()
}

/// Writes a time as seconds.
fn seconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

/// The numbers of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Requests that were sent, or were to be sent; with those in flight.
    pub requests: u64,
    /// Rightly answered by a pod.
    pub by_pods: u64,
    /// Rightly answered by the load balancer itself.
    pub by_load_balancer: u64,
    /// Rightly answered by a target that does not name itself.
    pub by_unnamed: u64,
    /// Lost, as expected.
    pub rightly_lost: u64,
    /// Lost.
    pub lost: u64,
    /// Wrongly answered.
    pub wrong: u64,
    /// Requests among them that were repeated on another connection, as HTTP clients do: their kept connection ended before
    /// a byte of the answer, and the method is idempotent. Only one whose repetition fails is lost.
    pub retried: u64,
    /// Kept connections that the server closed while they were idle, and that were opened again.
    pub reopened: u64,
}

/// A label's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// The count.
    pub count: u64,
    /// The time since the start at which the first one came.
    #[serde(serialize_with = "seconds")]
    pub first: Duration,
    /// The time at which the last one came.
    #[serde(serialize_with = "seconds")]
    pub last: Duration,
    /// The earliest time at which a request was sent that got one.
    #[serde(serialize_with = "seconds")]
    pub first_sent: Duration,
    /// The latest time at which one was sent.
    #[serde(serialize_with = "seconds")]
    pub last_sent: Duration,
}

impl Seen {
    fn new(sent: Duration, now: Duration) -> Self {
        Self { count: 1, first: now, last: now, first_sent: sent, last_sent: sent }
    }

    /// Returns both together.
    fn merged(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            first_sent: self.first_sent.min(other.first_sent),
            last_sent: self.last_sent.max(other.last_sent),
        }
    }
}

/// A lost or wrong request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// When it was sent, since the start.
    #[serde(serialize_with = "seconds")]
    pub sent: Duration,
    /// When it failed.
    #[serde(serialize_with = "seconds")]
    pub failed: Duration,
    /// The kind: `wrong`, or that of the loss.
    pub kind: String,
    /// For people.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, took) = (self.sent.as_secs_f64(), self.failed.saturating_sub(self.sent).as_secs_f64());
        write!(f, "{sent:8.3} s, after {took:.3} s: {}: {}", self.kind, self.detail)
    }
}

/// The report of a load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The load's title.
    pub title: String,
    /// The numbers.
    pub figures: Figures,
    /// Lost and wrong requests by kind.
    pub kinds: BTreeMap<String, u64>,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// The times of all of them.
    pub failed: Option<Seen>,
    /// Right answers by label.
    pub labels: BTreeMap<String, Seen>,
    /// The longest time by which a request went out late, for a busy machine.
    #[serde(serialize_with = "seconds")]
    pub behind: Duration,
    /// The longest answer.
    #[serde(serialize_with = "seconds")]
    pub slowest: Duration,
}

impl Report {
    /// Returns how long after `change` (since the start) the last request with the label was sent; zero if none was.
    #[must_use]
    pub fn last_after(&self, label: &str, change: Duration) -> Duration {
        self.labels.get(label).map(|seen| seen.last_sent.saturating_sub(change)).unwrap_or_default()
    }

    /// Takes in another load's report: numbers are added, and of failures the first ones remain.
    pub fn merge(&mut self, other: &Self) {
        let (mine, theirs) = (&mut self.figures, &other.figures);
        mine.requests += theirs.requests;
        mine.by_pods += theirs.by_pods;
        mine.by_load_balancer += theirs.by_load_balancer;
        mine.by_unnamed += theirs.by_unnamed;
        mine.rightly_lost += theirs.rightly_lost;
        mine.lost += theirs.lost;
        mine.wrong += theirs.wrong;
        mine.retried += theirs.retried;
        mine.reopened += theirs.reopened;
        for (kind, count) in &other.kinds {
            *self.kinds.entry(kind.clone()).or_default() += count;
        }
        self.failures.extend(other.failures.iter().cloned().map(|mut failure| {
            failure.detail = format!("{}: {}", other.title, failure.detail);
            failure
        }));
        self.failures.sort_by_key(|failure| failure.sent);
        self.failures.truncate(KEPT_FAILURES);
        self.failed = match (self.failed, other.failed) {
            (Some(mine), Some(theirs)) => Some(mine.merged(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        self.behind = self.behind.max(other.behind);
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// The book of a load.
pub(super) struct Book {
    start: Instant,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    figures: Figures,
    kinds: BTreeMap<String, u64>,
    failures: VecDeque<Failure>,
    failed: Option<Seen>,
    labels: BTreeMap<String, Seen>,
    behind: Duration,
    slowest: Duration,
}

impl Default for Book {
    fn default() -> Self {
        Self { start: Instant::now(), pages: Mutex::default() }
    }
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn figures(&self) -> Figures {
        self.pages().figures
    }

    pub(super) fn report(&self, title: &str) -> Report {
        let pages = self.pages();
        Report {
            title: title.to_owned(),
            figures: pages.figures,
            kinds: pages.kinds.clone(),
            failures: pages.failures.iter().cloned().collect(),
            failed: pages.failed,
            labels: pages.labels.clone(),
            behind: pages.behind,
            slowest: pages.slowest,
        }
    }

    pub(super) fn behind(&self, time: Duration) {
        let mut pages = self.pages();
        pages.behind = pages.behind.max(time);
    }

    /// A request is sent. Returns the time, for [`Self::end`].
    pub(super) fn begin(&self) -> Duration {
        self.pages().figures.requests += 1;
        self.elapsed()
    }

    pub(super) fn retried(&self) {
        self.pages().figures.retried += 1;
    }

    pub(super) fn reopened(&self) {
        self.pages().figures.reopened += 1;
    }

    pub(super) fn end(&self, sent: Duration, outcome: Outcome) {
        let now = self.elapsed();
        self.pages().end(sent, now, outcome);
    }
}

impl Pages {
    fn end(&mut self, sent: Duration, now: Duration, outcome: Outcome) {
        let (kind, detail) = match outcome {
            Outcome::Answered { by, label } => {
                self.slowest = self.slowest.max(now.saturating_sub(sent));
                *match by {
                    By::Pod => &mut self.figures.by_pods,
                    By::LoadBalancer => &mut self.figures.by_load_balancer,
                    By::Unnamed => &mut self.figures.by_unnamed,
                    By::Nobody => &mut self.figures.rightly_lost,
                } += 1;
                let name = bounded(&self.labels, &label).to_owned();
                let new = Seen::new(sent, now);
                self.labels.entry(name).and_modify(|seen| *seen = seen.merged(new)).or_insert(new);
                return;
            }
            Outcome::Wrong(reason) => {
                self.figures.wrong += 1;
                ("wrong".to_owned(), reason)
            }
            Outcome::Lost(Lost { kind, detail }) => {
                self.figures.lost += 1;
                (kind.to_string(), detail)
            }
        };
        let new = Seen::new(sent, now);
        self.failed = Some(self.failed.map_or(new, |seen| seen.merged(new)));
        let name = bounded(&self.kinds, &kind).to_owned();
        *self.kinds.entry(name).or_default() += 1;
        if self.failures.len() < KEPT_FAILURES {
            self.failures.push_back(Failure { sent, failed: now, kind, detail });
        }
    }
}

/// Returns the name, or [`OTHERS`] if the map has no room for one more.
fn bounded<'a, T>(map: &BTreeMap<String, T>, name: &'a str) -> &'a str {
    if map.len() < KEPT_NAMES || map.contains_key(name) { name } else { OTHERS }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Answer {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        Answer {
            status,
            headers: headers.iter().map(pair).collect(),
            body: Bytes::from_static(b"first\nsecond"),
            certificate: None,
            address: Ipv4Addr::new(127, 20, 0, 1),
            redirected: false,
        }
    }

    #[test]
    fn an_answer_is_lost_only_if_no_pod_sent_a_server_error_and_else_it_is_for_the_judge() {
        let judge: Judge = Arc::new(|answer| match answer.status {
            200 | 503 => Ok("right".into()),
            status => Err(format!("status {status}")),
        });
        let of = |status, headers: &[_]| Outcome::of_answer(&answer(status, headers), &judge);
        let right = |by| Outcome::Answered { by, label: "right".into() };
        assert_eq!(of(200, &[("x-pod", "a")]), right(By::Pod));
        assert_eq!(of(200, &[("server", "awselb/2.0")]), right(By::LoadBalancer));
        assert_eq!(of(200, &[("server", "awselb/2.0"), ("x-pod", "a")]), right(By::Pod));
        assert_eq!(of(200, &[]), right(By::Unnamed));
        assert_eq!(of(503, &[("x-pod", "a")]), right(By::Pod));
        assert_eq!(of(503, &[("server", "awselb/2.0")]), Outcome::lost(LostKind::Status(503), "127.20.0.1: first"));
        assert_eq!(of(404, &[("server", "awselb/2.0")]), Outcome::Wrong("127.20.0.1: status 404".to_owned()));
    }

    #[test]
    fn the_book_keeps_the_first_failures_and_counts_all() {
        let mut pages = Pages::default();
        let at = Duration::from_millis;
        for number in 0..100 {
            pages.end(at(number), at(number + 5), Outcome::lost(LostKind::Reset, number.to_string()));
        }
        pages.end(at(100), at(101), Outcome::Wrong("?".to_owned()));
        assert_eq!((pages.figures.lost, pages.figures.wrong), (100, 1));
        assert_eq!(pages.kinds, BTreeMap::from([("reset".to_owned(), 100), ("wrong".to_owned(), 1)]));
        assert_eq!(pages.failures.len(), KEPT_FAILURES);
        let failed = pages.failed.unwrap();
        assert_eq!((failed.count, failed.first_sent, failed.last_sent), (101, at(0), at(100)));
        let last = pages.failures.back().unwrap();
        assert_eq!(last.to_string(), "   0.019 s, after 0.005 s: reset: 19");
    }

    #[test]
    fn labels_are_bounded_and_have_their_first_and_last_time() {
        let mut pages = Pages::default();
        let at = Duration::from_millis;
        let right = |label: String| Outcome::Answered { by: By::Pod, label: label.into() };
        for number in 0..200_u64 {
            pages.end(at(number), at(number + 1), right(format!("{:03}", number % 100)));
        }
        assert_eq!(pages.labels.len(), KEPT_NAMES + 1);
        let seen = |count, first, last| Seen {
            count,
            first: at(first + 1),
            last: at(last + 1),
            first_sent: at(first),
            last_sent: at(last),
        };
        assert_eq!(pages.labels["007"], seen(2, 7, 107));
        assert_eq!(pages.labels[OTHERS], seen(72, 64, 199));
        let report = Report { labels: pages.labels, ..Report::default() };
        let json = serde_json::to_value(&report).unwrap();
        let expected =
            serde_json::json!({"count": 2, "first": 0.008, "last": 0.108, "firstSent": 0.007, "lastSent": 0.107});
        assert_eq!(json["labels"]["007"], expected);
        assert_eq!(report.last_after("007", at(100)), at(7));
        assert_eq!(report.last_after("007", at(200)), Duration::ZERO);
        assert_eq!(report.last_after("none", at(0)), Duration::ZERO);
    }

    #[test]
    fn a_label_has_the_times_at_which_its_requests_were_sent_whenever_they_are_answered() {
        let mut pages = Pages::default();
        let at = Duration::from_secs;
        let right = || Outcome::Answered { by: By::Nobody, label: "silent".into() };
        pages.end(at(2), at(3), right());
        // Sent first, it had more patience.
        pages.end(at(1), at(6), right());
        let expected = Seen { count: 2, first: at(3), last: at(6), first_sent: at(1), last_sent: at(2) };
        assert_eq!(pages.labels["silent"], expected);
    }
}
