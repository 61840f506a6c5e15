//! An in-process AWS behind the HTTP boundary of the SDK: one account with its VPC that answers the requests of ELB v2,
//! EC2, ACM, Route 53, WAFv2 and Shield as AWS does, in tokio's time and without a socket. Faults, latencies and ids come from a seed.

mod account;
mod actions;
mod add_ons;
mod attributes;
mod balancers;
mod certificates;
mod listeners;
mod network;
mod quota;
mod roles;
mod rules;
mod security_groups;
mod setup;
mod state;
mod tags;
mod tamper;
mod target_groups;
#[cfg(test)]
mod tests;
mod wire;

use crate::random::Random;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::{
    client::{
        http::{
            HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
            SharedHttpConnector,
        },
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use serde::Serialize;
use tokio::{sync::oneshot, time::Instant};

pub use self::{account::Limits, setup::GivenTargetGroup, state::State};
use self::{
    account::{Account, Session, UNSUPPORTED},
    quota::Quota,
    wire::{Refusal, Request},
};

/// The maximum duration of a call, in milliseconds.
const LONGEST: u64 = 30;
/// The number of items on one page of a list.
const PAGE: usize = 20;

/// The simulated faults. The first five are probabilities for a single call, with a sum of at most 1; the sixth is a
/// probability for a deletion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// AWS throttles the call.
    pub throttle: f64,
    /// AWS responds with status 500 without having done anything.
    pub fails_before: f64,
    /// AWS responds with status 500 after the call has taken effect.
    pub fails_after: f64,
    /// The connection is lost before the call takes effect.
    pub lost_before: f64,
    /// The connection is lost after the call has taken effect.
    pub lost_after: f64,
    /// AWS refuses a deletion because another resource uses the resource.
    pub in_use: f64,
    /// Younger resources are absent, with probability 1/2, for calls that name them, except for calls about their tags.
    pub fresh_for: Duration,
    /// Younger resources are absent from lists, with probability 1/2.
    pub unlisted_for: Duration,
}

/// The result of a call for the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// The call succeeded.
    Answered,
    /// AWS refused the call with this code.
    Refused(String),
    /// The connection was lost, or there was no response.
    Lost,
    /// AWS throttled the call.
    Throttled,
    /// AWS responded with status 500.
    ServerError,
}

/// A call that reached AWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    /// The time at which the call was carried out or failed.
    #[serde(skip)]
    pub at: Instant,
    pub operation: String,
    /// The fields of the form, without operation and version.
    pub params: BTreeMap<String, String>,
    /// True if the call is not a Describe, Get or List call.
    pub is_write: bool,
    /// True if the call was carried out, even if a write changed nothing.
    pub took_effect: bool,
    pub outcome: Outcome,
}

/// An AWS account; clones are the same account.
#[derive(Clone)]
pub struct SimulatedAws(Arc<Mutex<Inner>>);

impl fmt::Debug for SimulatedAws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedAws")
    }
}

struct Inner {
    account: Account,
    random: Random,
    faults: Faults,
    page_size: usize,
    /// True if calls take no time.
    at_once: bool,
    planned: Vec<Planned>,
    crash: Option<Crash>,
    /// The quota of calls of ELB v2; `None` is no limit.
    quota: Option<Quota>,
    calls: Vec<Call>,
}

/// Refusals of calls of one operation, planned by a test.
struct Planned {
    operation: &'static str,
    /// The number of calls that succeed before.
    after: usize,
    times: usize,
    refusal: Refusal,
}

/// A planned crash of the caller.
struct Crash {
    /// The number of writes before the crash.
    after: u64,
    takes_effect: bool,
    crashed: oneshot::Sender<()>,
}

/// The outcome chosen for a call.
enum Fate {
    Answer,
    Throttle,
    InUse,
    Refuse(Refusal),
    /// A failure: `after` is true if the call takes effect, `lost` if there is no response.
    Fail {
        after: bool,
        lost: bool,
    },
    Crash(Crash),
}

/// A call that has arrived but has not been carried out yet.
struct Arrival {
    request: Request,
    fate: Fate,
    /// The time until the call is carried out, and then the time until the response.
    before: Duration,
    after: Duration,
    random: Random,
    misses_fresh: bool,
    lists_without_fresh: bool,
}

/// The reply to the caller.
enum Reply {
    Http(u16, String),
    Lost,
    Never,
}

impl SimulatedAws {
    /// Creates an account that contains only the network: VPC `vpc-1` with 10.0.0.0/16, in each of three zones a public
    /// and a private subnet (`subnet-public-a`, …), a security group for nodes (`sg-node`, tagged for cluster `demo`),
    /// and three instances (`i-node0`, …) in that group.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            account: Account::new(seed),
            random: Random::new(seed),
            faults: Faults::default(),
            page_size: PAGE,
            at_once: false,
            planned: Vec::new(),
            crash: None,
            quota: None,
            calls: Vec::new(),
        })))
    }

    /// Returns an HTTP client for `albatross_aws::testing::over`.
    pub fn client(&self) -> SharedHttpClient {
        SharedHttpClient::new(self.clone())
    }

    /// Assigns a pod's address to the network interface of a node, 0 to 2.
    pub fn add_pod_address(&self, address: &str, node: usize) {
        self.inner().account.network.add_address(address, node);
    }

    /// Sets the faults of the following calls.
    pub fn set_faults(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    /// Throttles calls of ELB v2 from now on as an account's quota does, beginning with full buckets.
    pub fn limit_calls(&self) {
        self.inner().quota = Some(Quota::default());
    }

    /// Sets the maximum number of items on a page of a list.
    pub fn set_page_size(&self, size: usize) {
        self.inner().page_size = size.max(1);
    }

    /// Sets the quotas of the account.
    pub fn set_limits(&self, limits: Limits) {
        self.inner().account.limits = limits;
    }

    /// Plans a crash: the write after that many others is carried out or not, gets no response, and notifies the
    /// receiver. Only the last planned crash counts, and it happens once.
    pub fn crash_at(&self, write: u64, takes_effect: bool) -> oneshot::Receiver<()> {
        let (crashed, reported) = oneshot::channel();
        self.inner().crash = Some(Crash { after: write, takes_effect, crashed });
        reported
    }

    /// Cancels the planned crash.
    pub fn disarm(&self) {
        self.inner().crash = None;
    }

    /// Returns the state of the account.
    pub fn state(&self) -> State {
        self.inner().account.state()
    }

    /// Returns the calls since the last call of this function, in the order in which they were carried out or failed.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.inner().calls)
    }

    /// Creates load balancers and target groups of other owners in the same VPC, and returns the ARNs of the latter.
    pub fn add_foreign(&self, load_balancers: usize, target_groups: usize) -> Vec<String> {
        self.inner().account.add_foreign(load_balancers, target_groups)
    }

    /// Changes a resource of the cluster as a user would by hand. Returns a description of the change; `None` if there
    /// is nothing to change.
    pub fn tamper(&self, random: &mut Random) -> Option<String> {
        self.inner().account.tamper(random)
    }

    /// Enables or disables the deletion protection of a load balancer, as a user would by hand. Returns true if the
    /// load balancer exists.
    pub fn protect(&self, name: &str, on: bool) -> bool {
        self.inner().account.protect(name, on)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Draws all random decisions about a call. Every call consumes one number of the account's sequence, so that calls
    /// in the same order get the same decisions.
    fn arrive(&mut self, request: Request) -> Arrival {
        let mut random = Random::new(self.random.number());
        let whole = 1 + random.below_u64(LONGEST);
        let before = random.below_u64(whole);
        let chosen = random.share();
        let (misses_fresh, lists_without_fresh) = ((random.share() < 0.5), (random.share() < 0.5));
        let faults = &self.faults;
        let mut limit = 0.0;
        let mut fate = Fate::Answer;
        for (probability, fault) in [
            (faults.throttle, Fate::Throttle),
            (faults.fails_before, Fate::Fail { after: false, lost: false }),
            (faults.fails_after, Fate::Fail { after: true, lost: false }),
            (faults.lost_before, Fate::Fail { after: false, lost: true }),
            (faults.lost_after, Fate::Fail { after: true, lost: true }),
        ] {
            if (limit..limit + probability).contains(&chosen) {
                fate = fault;
            }
            limit += probability;
        }
        let deletes =
            ["DeleteLoadBalancer", "DeleteTargetGroup", "DeleteSecurityGroup"].contains(&request.operation.as_str());
        if deletes && faults.in_use > 0.0 && (random.share() < faults.in_use) && matches!(fate, Fate::Answer) {
            fate = Fate::InUse;
        }
        if let Some(refusal) = self.planned_refusal(&request.operation) {
            fate = Fate::Refuse(refusal);
        }
        let (is_write, is_elb) = (request.is_write(), request.is_elb());
        if let Some(quota) = self.quota.as_mut().filter(|_| is_elb)
            && !quota.take(&request.operation, is_write, Instant::now())
        {
            fate = Fate::Throttle;
        }
        if request.is_write() {
            match self.crash.take() {
                Some(crash) if crash.after == 0 => fate = Fate::Crash(crash),
                crash => self.crash = crash.map(|crash| Crash { after: crash.after - 1, ..crash }),
            }
        }
        let millis = |millis: u64| if self.at_once { Duration::ZERO } else { Duration::from_millis(millis) };
        let (before, after) = (millis(before), millis(whole - before));
        Arrival { request, fate, before, after, random, misses_fresh, lists_without_fresh }
    }

    /// Returns the planned refusal of this call, if there is one.
    fn planned_refusal(&mut self, operation: &str) -> Option<Refusal> {
        let number = self.planned.iter().position(|planned| planned.operation == operation)?;
        let planned = self.planned.get_mut(number)?;
        if planned.after > 0 {
            planned.after -= 1;
            return None;
        }
        planned.times -= 1;
        let refusal = planned.refusal.clone();
        if planned.times == 0 {
            self.planned.remove(number);
        }
        Some(refusal)
    }

    /// Carries a call out.
    fn carry_out(&mut self, arrival: Arrival) -> Reply {
        let Arrival { request, fate, random, misses_fresh, lists_without_fresh, .. } = arrival;
        let takes_effect = match &fate {
            Fate::Answer => true,
            Fate::Throttle | Fate::InUse | Fate::Refuse(_) => false,
            Fate::Fail { after, .. } => *after,
            Fate::Crash(crash) => crash.takes_effect,
        };
        let answer = takes_effect.then(|| {
            let mut session = Session {
                account: &mut self.account,
                request: &request,
                faults: &self.faults,
                page_size: self.page_size,
                now: Instant::now(),
                misses_fresh,
                lists_without_fresh,
                random,
            };
            session.answer()
        });
        let took_effect = request.is_write() && matches!(answer, Some(Ok(_)));
        let ec2 = request.is_ec2();
        let failure = |status, code: &str, message: &str| {
            let (code, message) = (code.to_owned(), message.to_owned());
            let (status, body) = request.wrapped(Err(Refusal { status, code, message }));
            Reply::Http(status, body)
        };
        let (outcome, reply) = match (fate, answer) {
            (Fate::Answer, Some(answer)) => {
                let outcome = match &answer {
                    Ok(_) => Outcome::Answered,
                    Err(refusal) => Outcome::Refused(refusal.code.clone()),
                };
                let (status, body) = request.wrapped(answer);
                (outcome, Reply::Http(status, body))
            }
            (Fate::InUse, _) => {
                let code = if ec2 { "DependencyViolation" } else { "ResourceInUse" };
                (Outcome::Refused(code.to_owned()), failure(400, code, "It is in use by another service"))
            }
            (Fate::Refuse(Refusal { code, message, .. }), _) => {
                (Outcome::Refused(code.clone()), failure(400, &code, &message))
            }
            (Fate::Answer | Fate::Throttle, _) => {
                let reply = if request.is_json() {
                    failure(400, "ThrottlingException", "Rate exceeded")
                } else if ec2 {
                    failure(503, "RequestLimitExceeded", "Request limit exceeded.")
                } else {
                    failure(400, "Throttling", "Rate exceeded")
                };
                (Outcome::Throttled, reply)
            }
            (Fate::Fail { lost: true, .. }, _) => (Outcome::Lost, Reply::Lost),
            (Fate::Fail { lost: false, .. }, _) => {
                let code = if ec2 { "InternalError" } else { "InternalFailure" };
                (Outcome::ServerError, failure(500, code, "An internal error has occurred"))
            }
            (Fate::Crash(crash), _) => {
                // The receiver may have been dropped.
                let _ = crash.crashed.send(());
                (Outcome::Lost, Reply::Never)
            }
        };
        let (operation, is_write) = (request.operation.clone(), request.is_write());
        self.calls.push(Call { at: Instant::now(), operation, params: request.params, is_write, took_effect, outcome });
        reply
    }
}

/// Waits, or returns at once if calls take no time: tokio's timers fire only at whole milliseconds, so even a wait of
/// zero takes one.
async fn pause(duration: Duration, at_once: bool) {
    if !at_once {
        tokio::time::sleep(duration).await;
    }
}

impl HttpConnector for SimulatedAws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default());
        let target = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
        let path = request.uri().split('?').next().unwrap_or_default();
        let path = path.find("/2013-").and_then(|start| path.get(start..)).unwrap_or_default();
        let mut parsed = match (target, certificates::route53(path, &body)) {
            (Some(operation), _) => Request::parse_json(operation, &body),
            (None, Some(request)) => request,
            (None, None) => Request::parse(&body),
        };
        let signature = request.headers().get("authorization").unwrap_or_default();
        let key = signature.split_once("Credential=").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
        parsed.caller = key.to_owned();
        let (arrival, at_once) = {
            let mut inner = self.inner();
            (inner.arrive(parsed), inner.at_once)
        };
        let aws = self.clone();
        HttpConnectorFuture::new(async move {
            let after = arrival.after;
            pause(arrival.before, at_once).await;
            let reply = aws.inner().carry_out(arrival);
            if matches!(reply, Reply::Never) {
                std::future::pending::<()>().await;
            }
            pause(after, at_once).await;
            match reply {
                Reply::Http(status, body) => {
                    let status = StatusCode::try_from(status).map_err(|error| ConnectorError::io(error.into()))?;
                    Ok(HttpResponse::new(status, SdkBody::from(body)))
                }
                Reply::Lost | Reply::Never => {
                    Err(ConnectorError::io("the connection was closed before the answer was complete".into()))
                }
            }
        })
    }
}

impl HttpClient for SimulatedAws {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl State {
    /// Returns true if all calls are simulated.
    pub fn is_sound(&self) -> bool {
        self.not_simulated.is_empty()
    }
}

impl Outcome {
    /// Returns true if the call is not simulated.
    pub fn is_not_simulated(&self) -> bool {
        *self == Self::Refused(UNSUPPORTED.to_owned())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        for (field, value) in self.params.iter().filter(|(_, value)| !value.is_empty()) {
            let value = value.replace("arn:aws:elasticloadbalancing:us-west-2:123456789012:", "");
            write!(f, " {}={value}", field.replace(".member.", "."))?;
        }
        let effect = if self.took_effect { "" } else { ", without effect" };
        write!(f, " -> {:?}{effect}", self.outcome)
    }
}
