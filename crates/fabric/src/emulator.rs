//! The emulator of AWS over HTTP: its state, asked for by long poll, and the health of targets, told to it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{net::TcpStream, sync::watch, task::JoinSet, time::sleep};

use crate::account::{Account, Health, Target};

/// The health of the targets of each target group, by its ARN.
pub type Report = BTreeMap<String, Vec<(Target, Health)>>;

/// For how long the emulator may hold the answer to a poll.
const WAIT: Duration = Duration::from_secs(20);
/// For how long an answer may take beyond that.
const TIMEOUT: Duration = Duration::from_secs(15);
/// No account is that large.
const LARGEST_ANSWER: usize = 64 << 20;
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A connection to the emulator. What it has started ends when it is dropped.
#[derive(Debug)]
pub struct Emulator {
    url: Uri,
    tasks: JoinSet<()>,
}

/// The reason why the emulator did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No HTTP URL with a host.
    #[error("`{0}` is no URL of the form http://HOST:PORT")]
    Url(String),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    /// An exchange that broke off.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// A request that cannot be sent.
    #[error("HTTP: {0}")]
    Request(#[from] hyper::http::Error),
    /// An answer that is no success.
    #[error("status {0}")]
    Status(StatusCode),
    /// An answer that is too large or broke off.
    #[error("body: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// An answer that is not understood.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
}

impl Emulator {
    /// Returns the emulator at a URL such as `http://127.0.0.1:5000`; nothing is asked yet.
    ///
    /// # Errors
    /// Returns an error if it is no HTTP URL.
    pub fn new(url: &str) -> Result<Self, Error> {
        let uri: Uri = url.parse().map_err(|_| Error::Url(url.to_owned()))?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() {
            return Err(Error::Url(url.to_owned()));
        }
        Ok(Self { url: uri, tasks: JoinSet::new() })
    }

    /// Returns the account, which is empty until the emulator has answered once, and follows each change.
    ///
    /// Must be called within a Tokio runtime.
    pub fn watch(&mut self) -> watch::Receiver<Arc<Account>> {
        let (sender, receiver) = watch::channel(Arc::default());
        self.tasks.spawn(follow(self.url.clone(), sender));
        receiver
    }

    /// Tells the emulator the health of targets, now and after each change.
    ///
    /// Must be called within a Tokio runtime.
    pub fn report(&mut self, health: watch::Receiver<Report>) {
        self.tasks.spawn(tell(self.url.clone(), health));
    }
}

async fn follow(url: Uri, account: watch::Sender<Arc<Account>>) {
    let (mut pause, mut after) = (SHORTEST_PAUSE, 0);
    loop {
        let path = format!("/albatross/account?after={after}&wait={}", WAIT.as_secs());
        let answer = tokio::select! {
            () = account.closed() => return,
            answer = call(&url, Method::GET, &path, Bytes::new(), WAIT + TIMEOUT) => answer,
        };
        match answer.and_then(|body| Ok(serde_json::from_slice::<Account>(&body)?)) {
            Ok(newest) => {
                pause = SHORTEST_PAUSE;
                after = newest.version;
                // The emulator answers with what it has when nothing changes for long.
                account.send_if_modified(|known| {
                    let changed = known.version != newest.version;
                    if changed {
                        *known = Arc::new(newest);
                    }
                    changed
                });
            }
            Err(error) => {
                tracing::warn!("the emulator's account: {error}");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    target: &'a Target,
    #[serde(flatten)]
    health: &'a Health,
}

fn body(report: &Report) -> Result<Bytes, Error> {
    let entries = |targets: &'_ Vec<(Target, Health)>| -> Vec<serde_json::Value> {
        targets.iter().filter_map(|(target, health)| serde_json::to_value(Entry { target, health }).ok()).collect()
    };
    let groups: BTreeMap<&String, _> = report.iter().map(|(group, targets)| (group, entries(targets))).collect();
    Ok(serde_json::to_vec(&groups)?.into())
}

async fn tell(url: Uri, mut health: watch::Receiver<Report>) {
    let mut pause = SHORTEST_PAUSE;
    health.mark_changed();
    while health.changed().await.is_ok() {
        let report = body(&health.borrow_and_update());
        let told = match report {
            Ok(report) => call(&url, Method::PUT, "/albatross/health", report, TIMEOUT).await.map(drop),
            Err(error) => Err(error),
        };
        match told {
            Ok(()) => pause = SHORTEST_PAUSE,
            Err(error) => {
                tracing::warn!("the health of targets is not told to the emulator: {error}");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                health.mark_changed();
            }
        }
    }
}

async fn call(url: &Uri, method: Method, path: &str, body: Bytes, timeout: Duration) -> Result<Bytes, Error> {
    let exchange = async {
        let authority = url.authority().ok_or_else(|| Error::Url(url.to_string()))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, authority.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(body))?;
        let answer = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await.map_err(Error::Body)?;
            if status.is_success() { Ok(body.to_bytes()) } else { Err(Error::Status(status)) }
        };
        // The connection makes progress only while it is polled, and ends with the answer.
        tokio::pin!(answer, connection);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            ended = &mut connection => { ended?; answer.await }
        }
    };
    tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(Error::Timeout))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::{Value, json};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::mpsc,
        time::timeout,
    };

    use super::*;

    /// Answers each request with the next status and body, and tells the request line and the body of each.
    async fn server(answers: Vec<(u16, Value)>) -> (String, mpsc::UnboundedReceiver<(String, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, receiver) = mpsc::unbounded_channel();
        let answers = Mutex::new(answers.into_iter());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut read = Vec::new();
                let (head, body) = loop {
                    let mut part = [0; 4096];
                    let count = stream.read(&mut part).await.unwrap();
                    read.extend_from_slice(&part[..count]);
                    let text = String::from_utf8(read.clone()).unwrap();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let head = head.to_ascii_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                        break (head, body.to_owned());
                    }
                    assert!(count > 0);
                };
                let line = head.lines().next().unwrap().to_owned();
                // Without an answer left it stays silent, as in a long poll.
                let next = answers.lock().unwrap().next();
                sender.send((line, body)).ok();
                let Some((status, value)) = next else {
                    tokio::spawn(async move { stream.read(&mut [0]).await });
                    continue;
                };
                let value = value.to_string();
                let answer = format!("HTTP/1.0 {status} X\r\nContent-Length: {}\r\n\r\n{value}", value.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (url, receiver)
    }

    async fn next(requests: &mut mpsc::UnboundedReceiver<(String, String)>) -> (String, String) {
        timeout(Duration::from_secs(10), requests.recv()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn the_account_follows_the_emulator_and_outlives_its_failures() {
        let answers = vec![
            (200, json!({"version": 4})),
            (500, json!({})),
            (200, json!("no account")),
            (200, json!({"version": 4})),
            // It has begun anew.
            (200, json!({"version": 2, "trustStores": {"arn": "pem"}})),
        ];
        let (url, mut requests) = server(answers).await;
        let mut emulator = Emulator::new(&url).unwrap();
        let mut account = emulator.watch();
        assert_eq!(*account.borrow_and_update().as_ref(), Account::default());
        let mut asked = Vec::new();
        for _ in 0..6 {
            asked.push(next(&mut requests).await.0);
        }
        let line = |after: u64| format!("get /albatross/account?after={after}&wait=20 http/1.1");
        assert_eq!(asked, [line(0), line(4), line(4), line(4), line(4), line(2)]);
        let trust_stores = BTreeMap::from([("arn".to_owned(), "pem".to_owned())]);
        let expected = Account { version: 2, trust_stores, ..Account::default() };
        assert_eq!(*account.borrow_and_update().as_ref(), expected);
        drop(emulator);
        assert!(timeout(Duration::from_secs(10), account.changed()).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn health_is_told_at_once_after_each_change_and_again_after_a_failure() {
        let (url, mut requests) = server(vec![(200, json!({})), (503, json!({})), (200, json!({}))]).await;
        let mut emulator = Emulator::new(&url).unwrap();
        let (sender, receiver) = watch::channel(Report::new());
        emulator.report(receiver);
        let put = "put /albatross/health http/1.1".to_owned();
        assert_eq!(next(&mut requests).await, (put.clone(), "{}".to_owned()));
        let target = Target { id: "10.0.100.4".to_owned(), port: 8080 };
        let health = Health { state: "initial".to_owned(), reason: Some("Elb.X".to_owned()), description: None };
        sender.send_replace(BTreeMap::from([("arn:tg".to_owned(), vec![(target, health)])]));
        let expected = json!({"arn:tg": [
            {"id": "10.0.100.4", "port": 8080, "state": "initial", "reason": "Elb.X", "description": null},
        ]});
        for _ in 0..2 {
            let (line, body) = next(&mut requests).await;
            assert_eq!((line, serde_json::from_str::<Value>(&body).unwrap()), (put.clone(), expected.clone()));
        }
    }

    #[test]
    fn only_http_urls_with_a_host_are_taken() {
        for (url, taken) in [
            ("http://127.0.0.1:5000", true),
            ("http://localhost", true),
            ("https://127.0.0.1:5000", false),
            ("127.0.0.1:5000", false),
            ("/path", false),
            ("", false),
        ] {
            assert_eq!(Emulator::new(url).is_ok(), taken, "{url}");
        }
    }
}
