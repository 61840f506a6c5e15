//! Stands between the controller and the AWS emulator: names each call `service:Action`, counts and logs it, and can disturb
//! it in the ways that AWS and the network do.

mod faults;

pub use faults::{Calls, Faults, Refusal};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Result;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::aws::{Aws, REGION};
use super::policy::{Policy, Refused};
use faults::Verdict;

/// A running proxy. Dropping it closes its connections.
pub struct Proxy {
    /// The URL that the controller uses as its AWS endpoint.
    pub url: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

/// The number of calls made since the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All calls.
    pub total: u64,
    /// Calls whose action is no Describe, List or Get.
    pub writes: u64,
    /// Calls by `service:Action`.
    pub actions: BTreeMap<String, u64>,
    /// Calls that were answered with a throttle.
    pub throttled: BTreeMap<String, u64>,
    /// Calls that were denied, failed or whose answer was lost.
    pub failed: BTreeMap<String, u64>,
}

/// A call in the log.
#[derive(Clone, Debug)]
pub struct Call {
    /// Since the proxy's start.
    pub at: Duration,
    /// `service:Action`, as in `elasticloadbalancing:CreateRule`.
    pub name: String,
    /// The fault, if the call was not simply passed on.
    pub disturbed: Option<&'static str>,
    /// The body of the request, when bodies are kept.
    pub body: Option<String>,
    /// True if it was sent to AWS, which may have carried it out even if the caller no longer waits for the answer.
    pub passed_on: bool,
    /// When AWS had done it, since the proxy's start; `None` when it was not done, or not yet.
    pub done: Option<Duration>,
    number: u64,
}

impl Call {
    /// The name, with the fault if there was one.
    pub fn outcome(&self) -> String {
        self.disturbed.map_or_else(|| self.name.clone(), |disturbed| format!("{} [{disturbed}]", self.name))
    }

    /// A field of the form that was sent, when bodies are kept.
    pub fn field(&self, name: &str) -> Option<String> {
        let pairs = self.body.as_deref()?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
    }

    /// The fields `prefix.1.name`, `prefix.2.name` and so on of the form that was sent.
    pub fn members(&self, prefix: &str, name: &str) -> Vec<Option<String>> {
        let own = format!("{prefix}.");
        let pairs = self.body.iter().flat_map(|body| body.split('&')).filter_map(|pair| pair.strip_prefix(&own));
        let count = pairs.filter_map(|rest| rest.split_once('.')?.0.parse::<usize>().ok()).max().unwrap_or_default();
        (1..=count).map(|number| self.field(&format!("{prefix}.{number}.{name}"))).collect()
    }
}

/// A form's value without its encoding.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = after.split_at_checked(2).filter(|_| *first == b'%').and_then(|(hex, behind)| {
            let byte = u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
            Some((byte, behind))
        });
        let (byte, behind) = escaped.unwrap_or((if *first == b'+' { b' ' } else { *first }, after));
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.3} {}", self.at.as_secs_f64(), self.outcome())?;
        self.body.as_ref().map_or(Ok(()), |body| write!(f, " {body}"))
    }
}

struct State {
    target: String,
    /// AWS without the proxy, to look at what there is.
    aws: Aws,
    client: Client<HttpConnector, Full<Bytes>>,
    started: Instant,
    book: Mutex<Book>,
}

struct Book {
    /// The calls that IAM would have refused with the controller's own policy.
    beyond_policy: Refused,
    counts: Counts,
    log: Vec<Call>,
    keep_bodies: bool,
    next: u64,
    judge: faults::Judge,
}

impl Proxy {
    /// Listens on a free loopback port and passes calls on to `target`.
    pub async fn start(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let book = Book {
            beyond_policy: Refused::new(),
            counts: Counts::default(),
            log: Vec::new(),
            keep_bodies: false,
            next: 0,
            judge: faults::Judge::new(Faults::default()),
        };
        // A connection for each call: the emulator's server may close an idle one at any time, and a call that failed
        // for that would look like a fault of the controller's.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        let state = State {
            target: target.to_owned(),
            aws: Aws::new(target),
            client,
            started: Instant::now(),
            book: Mutex::new(book),
        };
        let state = Arc::new(state);
        let task = tokio::spawn(accept(listener, state.clone()));
        Ok(Self { url, state, task })
    }

    /// Returns the time since the proxy's start, the clock of its log.
    pub fn elapsed(&self) -> Duration {
        self.state.started.elapsed()
    }

    /// The calls since the last reset.
    pub fn counts(&self) -> Counts {
        self.state.book().counts.clone()
    }

    /// Returns the calls since the proxy's start that are not in the policy that `albatross iam-policy` prints, or not under
    /// its conditions.
    pub fn beyond_policy(&self) -> Refused {
        self.state.book().beyond_policy.clone()
    }

    /// Clears counts and log. Faults stay.
    pub fn reset(&self) {
        let mut book = self.state.book();
        book.counts = Counts::default();
        book.log.clear();
    }

    /// The calls since the last reset, in their order.
    pub fn log(&self) -> Vec<Call> {
        self.state.book().log.clone()
    }

    /// Sets if the log keeps the bodies of requests.
    pub fn keep_bodies(&self, keep: bool) {
        self.state.book().keep_bodies = keep;
    }

    /// Sets the faults from now on. `Faults::default()` ends them.
    pub fn set_faults(&self, faults: Faults) {
        self.state.book().judge = faults::Judge::new(faults);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Dropping the set ends every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { state.answer(request).await }
    });
    // An error is a client that went away or an answer that was dropped on purpose.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// The reason to close a connection without an answer.
#[derive(Debug)]
struct AnswerLost;

impl fmt::Display for AnswerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is lost")
    }
}

impl std::error::Error for AnswerLost {}

impl State {
    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic of a test cannot happen inside; were it to, the numbers would still be whole.
        self.book.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, AnswerLost> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| AnswerLost)?.to_bytes();
        let protocol = Protocol::of(&head.headers);
        let name = call_name(&head, &body);
        let (verdict, latency, number) = {
            let mut book = self.book();
            let verdict = book.judge.judge(&name, &body);
            let body = book.keep_bodies.then(|| String::from_utf8_lossy(&body).into_owned());
            let number = book.note(&name, verdict, self.started.elapsed(), body);
            (verdict, book.judge.latency(), number)
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        match verdict {
            Verdict::Pass => Ok(self.pass_on(&name, head, body, number).await),
            Verdict::Throttle => Ok(protocol.error(StatusCode::BAD_REQUEST, protocol.throttled(), "Rate exceeded")),
            Verdict::Deny => {
                let message = format!("User is not authorized to perform: {name}");
                Ok(protocol.error(StatusCode::FORBIDDEN, protocol.denied(), &message))
            }
            Verdict::Refuse(code) => {
                Ok(protocol.error(StatusCode::BAD_REQUEST, code, "The lab has AWS refuse this call"))
            }
            Verdict::FailBefore => Ok(protocol.internal_failure()),
            Verdict::FailAfter => {
                self.pass_on(&name, head, body, number).await;
                Ok(protocol.internal_failure())
            }
            Verdict::Lose => {
                self.pass_on(&name, head, body, number).await;
                Err(AnswerLost)
            }
        }
    }

    /// Forwards the call to AWS, and records the time of its success.
    async fn pass_on(
        &self,
        name: &str,
        head: hyper::http::request::Parts,
        body: Bytes,
        number: u64,
    ) -> Response<Full<Bytes>> {
        self.judge_by_policy(name, &head, &body).await;
        if let Some(call) = self.book().log.iter_mut().rev().find(|call| call.number == number) {
            call.passed_on = true;
        }
        let response = self.forward(head, body).await;
        let response = match self.book().judge.credentials_last() {
            Some(time) => ending_in(response, time),
            None => response,
        };
        if response.status().is_success() {
            let mut book = self.book();
            let done = self.started.elapsed();
            // It is not there when the log was reset meanwhile.
            if let Some(call) = book.log.iter_mut().rev().find(|call| call.number == number) {
                call.done = Some(done);
            }
        }
        response
    }

    /// Records the call if IAM would not have allowed it.
    async fn judge_by_policy(&self, name: &str, head: &hyper::http::request::Parts, body: &[u8]) {
        let body = Some(String::from_utf8_lossy(body).into_owned());
        let call = Call {
            at: Duration::ZERO,
            name: name.to_owned(),
            disturbed: None,
            body,
            passed_on: false,
            done: None,
            number: 0,
        };
        let region = scope(head).and_then(|scope| scope.split('/').nth(2)).unwrap_or(REGION);
        let refused = match Policy::of_controller(region) {
            Ok(policy) => policy.refuses(&call, region, &self.aws).await,
            Err(error) => vec![format!("any call, because the policy cannot be written: {error}")],
        };
        self.book().beyond_policy.extend(refused);
    }

    async fn forward(&self, head: hyper::http::request::Parts, body: Bytes) -> Response<Full<Bytes>> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let forwarded: Result<_> = async {
            let mut request = Request::from_parts(head.clone(), Full::new(body));
            *request.uri_mut() = format!("{}{path}", self.target).parse::<Uri>()?;
            remove_hop_headers(request.headers_mut());
            let (mut head, body) = self.client.request(request).await?.into_parts();
            remove_hop_headers(&mut head.headers);
            Ok(Response::from_parts(head, Full::new(body.collect().await?.to_bytes())))
        }
        .await;
        forwarded.unwrap_or_else(|error: anyhow::Error| {
            let mut response = Response::new(Full::new(format!("{error:#}").into()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        })
    }
}

/// An answer of STS whose credentials end after this time; any other as it is.
fn ending_in(response: Response<Full<Bytes>>, time: Duration) -> Response<Full<Bytes>> {
    let (head, body) = response.into_parts();
    let bytes = body.clone().into_inner().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let changed = text.split_once("<Expiration>").and_then(|(before, rest)| {
        let (_, after) = rest.split_once("</Expiration>")?;
        let end = Timestamp::now() + time;
        Some(format!("{before}<Expiration>{end}</Expiration>{after}"))
    });
    Response::from_parts(head, changed.map_or(body, |text| Full::new(text.into())))
}

fn remove_hop_headers(headers: &mut HeaderMap) {
    for name in [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
        headers.remove(name);
    }
}

impl Book {
    fn note(&mut self, name: &str, verdict: Verdict, at: Duration, body: Option<String>) -> u64 {
        let counts = &mut self.counts;
        counts.total += 1;
        counts.writes += u64::from(!is_read(name));
        *counts.actions.entry(name.to_owned()).or_default() += 1;
        let disturbed = match verdict {
            Verdict::Pass => None,
            Verdict::Throttle => Some("throttled"),
            Verdict::Deny => Some("denied"),
            Verdict::Refuse(_) => Some("refused"),
            Verdict::FailBefore => Some("failed before it took effect"),
            Verdict::FailAfter => Some("failed after it took effect"),
            Verdict::Lose => Some("answer lost after it took effect"),
        };
        if disturbed.is_some() {
            let map = if verdict == Verdict::Throttle { &mut counts.throttled } else { &mut counts.failed };
            *map.entry(name.to_owned()).or_default() += 1;
        }
        self.next += 1;
        self.log.push(Call {
            at,
            name: name.to_owned(),
            disturbed,
            body,
            passed_on: false,
            done: None,
            number: self.next,
        });
        self.next
    }
}

/// Returns true if a call named `service:Action` changes nothing.
pub fn is_read(name: &str) -> bool {
    let action = name.split_once(':').map_or(name, |(_, action)| action);
    ["Describe", "List", "Get"].iter().any(|verb| action.starts_with(verb))
}

/// Returns the scope of the signature: `…Credential=key/day/region/service`.
fn scope(head: &hyper::http::request::Parts) -> Option<&str> {
    let authorization = head.headers.get(AUTHORIZATION)?.to_str().ok()?;
    Some(authorization.split_once("/aws4_request")?.0)
}

/// `service:Action`: the service from the signature's scope, the action from the JSON protocol's header or the query
/// protocol's form; for others method and path.
fn call_name(head: &hyper::http::request::Parts, body: &[u8]) -> String {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let service = scope(head).and_then(|scope| scope.rsplit('/').next());
    let from_target = header("x-amz-target").and_then(|target| target.rsplit('.').next());
    let action_of = |form: &str| {
        form.split('&').find_map(|pair| pair.strip_prefix("Action=")).map(|action| action.trim().to_owned())
    };
    let action = from_target
        .map(str::to_owned)
        .or_else(|| std::str::from_utf8(body).ok().and_then(action_of))
        .or_else(|| head.uri.query().and_then(action_of))
        .or_else(|| route53(head))
        .unwrap_or_else(|| format!("{} {}", head.method, head.uri.path()));
    // The one call that needs no signature, because it is made to be able to sign.
    let unsigned = if action == "AssumeRoleWithWebIdentity" { "sts" } else { "unknown" };
    format!("{}:{action}", service.unwrap_or(unsigned))
}

/// The operation of a request to Route 53, whose operations are paths.
fn route53(head: &hyper::http::request::Parts) -> Option<String> {
    let rest = head.uri.path().strip_prefix("/2013-04-01/hostedzone")?;
    Some(if rest.is_empty() { "ListHostedZones" } else { "ChangeResourceRecordSets" }.to_owned())
}

/// The protocol in which a service reports errors.
#[derive(Clone, Copy)]
enum Protocol {
    Json,
    Ec2Query,
    Query,
}

impl Protocol {
    fn of(headers: &HeaderMap) -> Self {
        let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if headers.contains_key("x-amz-target") {
            Self::Json
        } else if authorization.is_some_and(|value| value.contains("/ec2/")) {
            Self::Ec2Query
        } else {
            Self::Query
        }
    }

    fn throttled(self) -> &'static str {
        match self {
            Self::Json => "ThrottlingException",
            Self::Ec2Query => "RequestLimitExceeded",
            Self::Query => "Throttling",
        }
    }

    fn denied(self) -> &'static str {
        match self {
            Self::Json => "AccessDeniedException",
            Self::Ec2Query => "UnauthorizedOperation",
            Self::Query => "AccessDenied",
        }
    }

    fn internal_failure(self) -> Response<Full<Bytes>> {
        self.error(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure", "The lab lets this call fail")
    }

    fn error(self, status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
        let (content_type, body) = match self {
            Self::Json => {
                ("application/x-amz-json-1.1", serde_json::json!({"__type": code, "message": message}).to_string())
            }
            Self::Ec2Query => (
                "text/xml",
                format!(
                    "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>lab</RequestID></Response>"
                ),
            ),
            Self::Query => (
                "text/xml",
                format!(
                    "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>lab</RequestId></ErrorResponse>"
                ),
            ),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)], uri: &str) -> hyper::http::request::Parts {
        let mut request = Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn fields_of_the_form_are_read() {
        let body = "Action=RegisterTargets&TargetGroupArn=arn%3Aaws%2Fx+y%&Targets.member.1.Id=10.0.0.1&Targets.member.1.Port=80&Targets.member.2.Id=i-2";
        let call = Call {
            at: Duration::ZERO,
            name: String::new(),
            disturbed: None,
            body: Some(body.to_owned()),
            passed_on: false,
            done: None,
            number: 1,
        };
        assert_eq!(call.field("TargetGroupArn").as_deref(), Some("arn:aws/x y%"));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(call.members("Targets.member", "Id"), [some("10.0.0.1"), some("i-2")]);
        assert_eq!(call.members("Targets.member", "Port"), [some("80"), None]);
        assert_eq!(call.field("Nothing"), None);
    }

    #[test]
    fn calls_are_named_by_signature_and_action() {
        let scope = |service: &str| {
            format!("AWS4-HMAC-SHA256 Credential=x/20260101/us-west-2/{service}/aws4_request, SignedHeaders=host")
        };
        let elb = head(&[("authorization", &scope("elasticloadbalancing"))], "/");
        let acm =
            head(&[("authorization", &scope("acm")), ("x-amz-target", "CertificateManager.ListCertificates")], "/");
        let names = [
            call_name(&elb, b"Version=2015-12-01&Action=CreateRule&Priority=1"),
            call_name(&acm, b"{}"),
            call_name(&head(&[], "/latest/meta-data"), b""),
        ];
        assert_eq!(
            names,
            ["elasticloadbalancing:CreateRule", "acm:ListCertificates", "unknown:POST /latest/meta-data"]
        );
        assert_eq!(names.map(|name| is_read(&name)), [false, true, false]);
    }
}
