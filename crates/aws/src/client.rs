//! The AWS clients, with budgets and retries for calls.

use std::{
    collections::BTreeMap,
    error::Error,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use aws_config::{
    AppName, BehaviorVersion, Region, SdkConfig, identity::IdentityCache, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_sdk_ec2::config::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tokio::time::Instant;

use super::{
    AwsError, AwsErrorKind, AwsHttp, BudgetState, CallObserver, FixedLimit,
    budget::Budgets,
    calls::{Watch, watched},
    credentials,
    error::service_of,
};
use crate::{
    proxies::Proxies,
    roles::{AssumedRole, OfRole, Pauses},
};
use albatross_core::targets::role::Role;

mod writer;

pub use writer::AwsWriter;

/// The options of a connection to AWS.
#[derive(Clone)]
pub struct ConnectOptions {
    /// The region, from `--aws-region` or another source.
    pub region: String,
    /// The proxies that connections go through.
    pub proxies: Arc<Proxies>,
    /// The maximum number of attempts at a read (`--aws-max-retries`).
    pub max_attempts: u32,
    /// The endpoints by service id, in the form of [`parse_endpoints`] (`--aws-api-endpoints`).
    pub endpoints: BTreeMap<String, String>,
    /// The fixed limits of calls (`--aws-api-throttle`).
    pub fixed_limits: Vec<FixedLimit>,
    /// The observer of all calls.
    pub observer: Option<Arc<dyn CallObserver>>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            region: String::new(),
            proxies: Arc::default(),
            max_attempts: 10,
            endpoints: BTreeMap::new(),
            fixed_limits: Vec::new(),
            observer: None,
        }
    }
}

/// The reason why the clients cannot be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// AWS_CA_BUNDLE names a file that cannot be used.
    #[error(
        "AWS_CA_BUNDLE names `{path}`, which cannot be used: {reason}; it has to be a file of PEM certificates that can be read"
    )]
    Bundle {
        /// The path of the file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// No HTTP client can be created.
    #[error("no connection to AWS is possible: {reason}")]
    Client {
        /// The reason.
        reason: String,
    },
    /// `--aws-api-endpoints` has an entry that is not valid.
    #[error(
        "`{entry}` in `--aws-api-endpoints` is not of the form `ServiceID=URL`, for example `EC2=https://ec2.example`"
    )]
    Endpoint {
        /// The entry.
        entry: String,
    },
}

/// Returns a service id in lower case without separators, so that users can write `Elastic Load Balancing v2` in any of
/// the usual ways.
pub(super) fn service_id(text: &str) -> String {
    let id: String = text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    match id.as_str() {
        "elbv2" | "elasticloadbalancing" => "elasticloadbalancingv2".to_owned(),
        _ => id,
    }
}

/// Parses `--aws-api-endpoints`: `ServiceID=URL`, separated by commas.
///
/// # Errors
/// Returns an error if an entry does not have that form.
pub fn parse_endpoints(text: &str) -> Result<BTreeMap<String, String>, ConnectError> {
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| match entry.split_once('=') {
            Some((id, url))
                if !service_id(id).is_empty() && (url.starts_with("https://") || url.starts_with("http://")) =>
            {
                Ok((service_id(id), url.to_owned()))
            }
            _ => Err(ConnectError::Endpoint { entry: entry.to_owned() }),
        })
        .collect()
}

/// Failed calls of add-ons by operation and resource, with their time and error.
type Failures = BTreeMap<(&'static str, String), (Instant, AwsError)>;

/// The AWS client for calls that change nothing (Describe, List, Get); [`AwsWriter`] makes the others. The SDK does not
/// retry: every attempt takes its turn from the budget of its class. Reads are retried whenever that may help. Writes
/// are retried only if AWS says that it has not begun with them, because not all of them are safe to repeat.
pub struct AwsReader {
    pub(crate) elb: aws_sdk_elasticloadbalancingv2::Client,
    pub(crate) ec2: aws_sdk_ec2::Client,
    pub(crate) acm: aws_sdk_acm::Client,
    pub(crate) route53: aws_sdk_route53::Client,
    pub(crate) wafv2: aws_sdk_wafv2::Client,
    pub(crate) shield: aws_sdk_shield::Client,
    budgets: Arc<Budgets>,
    observer: Option<Arc<dyn CallObserver>>,
    /// The configuration of the SDK's clients, with the credentials.
    config: SdkConfig,
    options: ConnectOptions,
    /// The ARN of the role in which calls are made, if it is not the controller's own.
    role: Option<String>,
    /// The maximum number of attempts at a read.
    max_attempts: u32,
    region: String,
    endpoints: BTreeMap<String, String>,
    proxies: Arc<Proxies>,
    pub(super) credentials: Option<SharedCredentialsProvider>,
    /// The calls to services that hold settings of load balancers, by operation and load balancer, that failed a short time ago.
    failed_lately: Mutex<Failures>,
}

impl std::fmt::Debug for AwsReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsReader").field("region", &self.region).finish_non_exhaustive()
    }
}

/// The maximum number of attempts at a throttled write: about half a minute in all.
pub(crate) const TRIES: u32 = 12;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for services that hold settings of load balancers, without which everything else goes on. A network may have no
/// way to them.
const ADD_ON_TIMEOUT: Duration = Duration::from_secs(5);
/// The attempts at reads of such a service that are not answered.
const ADD_ON_ATTEMPTS: u32 = 2;
/// The time for which a call to such a service that failed is not tried again, so that many stacks do not wait for it one
/// after the other.
const FAILED_LATELY: Duration = Duration::from_secs(60);

impl AwsReader {
    /// Creates the clients from the environment and the profile files, without calling AWS.
    ///
    /// # Errors
    /// Returns an error if no HTTP client can be created.
    pub async fn connect(options: &ConnectOptions, http: &AwsHttp) -> Result<Self, ConnectError> {
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http.0.clone())
            .region(Region::new(options.region.clone()))
            .no_credentials();
        if let Ok(name) = AppName::new("albatross") {
            loader = loader.app_name(name);
        }
        let config = loader.load().await;
        let cache = IdentityCache::lazy().load_timeout(credentials::DEADLINE).buffer_time(credentials::RENEWED_BEFORE);
        let provider = credentials::provider(&config, options.endpoints.get("sts"));
        let config = config.into_builder().credentials_provider(provider).identity_cache(cache.build()).build();
        Ok(Self::with_config(&config, options))
    }

    pub fn with_config(config: &SdkConfig, options: &ConnectOptions) -> Self {
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .build();
        let of_add_ons = timeouts.to_builder().operation_attempt_timeout(ADD_ON_TIMEOUT).build();
        macro_rules! client {
            ($service:ident, $id:literal) => {{
                let timeouts = if is_add_on($id) { &of_add_ons } else { &timeouts };
                let mut builder = $service::config::Builder::from(config)
                    .retry_config(RetryConfig::disabled())
                    .timeout_config(timeouts.clone());
                if let Some(url) = options.endpoints.get($id) {
                    builder = builder.endpoint_url(url);
                }
                if let Some(observer) = &options.observer {
                    builder = builder.interceptor(Watch(observer.clone()));
                }
                $service::Client::from_conf(builder.build())
            }};
        }
        Self {
            elb: client!(aws_sdk_elasticloadbalancingv2, "elasticloadbalancingv2"),
            ec2: client!(aws_sdk_ec2, "ec2"),
            acm: client!(aws_sdk_acm, "acm"),
            route53: client!(aws_sdk_route53, "route53"),
            wafv2: client!(aws_sdk_wafv2, "wafv2"),
            shield: client!(aws_sdk_shield, "shield"),
            budgets: Arc::new(Budgets::new(&options.fixed_limits, options.observer.clone())),
            observer: options.observer.clone(),
            config: config.clone(),
            options: options.clone(),
            role: None,
            max_attempts: options.max_attempts.max(1),
            region,
            endpoints: options.endpoints.clone(),
            proxies: Arc::clone(&options.proxies),
            credentials: config.credentials_provider(),
            failed_lately: Mutex::default(),
        }
    }

    /// Returns clients that make their calls in a role, which the credentials of these ones assume. They have budgets of calls
    /// of their own: another account's throttling says nothing about this one.
    pub(crate) fn in_role(&self, role: &Role, session: &str, pauses: &Arc<Pauses>) -> Self {
        let assumed = AssumedRole::new(&self.config, self.endpoints.get("sts"), role, session, pauses);
        let cache = IdentityCache::lazy().load_timeout(credentials::DEADLINE).buffer_time(credentials::RENEWED_BEFORE);
        let config = self.config.clone().into_builder().credentials_provider(SharedCredentialsProvider::new(assumed));
        let observer = self.observer.clone().map(|observer| -> Arc<dyn CallObserver> { Arc::new(OfRole(observer)) });
        let options = ConnectOptions { observer, ..self.options.clone() };
        let clients = Self::with_config(&config.identity_cache(cache.build()).build(), &options);
        Self { role: Some(role.arn().to_owned()), ..clients }
    }

    /// Returns the region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Returns a description of the endpoint of a service, for messages.
    fn endpoint(&self, service: &str) -> String {
        let named = self.endpoints.get(service);
        // Any AWS host name shows if a proxy applies.
        let proxy = self.proxies.for_url(named.map_or("https://amazonaws.com", String::as_str));
        let place = named.cloned().unwrap_or_else(|| format!("AWS in region {}", self.region));
        proxy.map_or_else(|| place.clone(), |proxy| format!("{place} through the proxy {proxy}"))
    }

    /// Returns the state of the budgets of calls, by class.
    #[must_use]
    pub fn budgets(&self) -> BTreeMap<&'static str, BudgetState> {
        self.budgets.state()
    }

    /// Makes a call that changes nothing. The call is retried if AWS throttles it, gives no clear answer, or cannot be
    /// reached.
    pub async fn read<T, E, F>(&self, operation: &'static str, call: impl Fn() -> F) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        self.read_of(operation, "", call).await
    }

    /// As [`Self::read`], of an add-on of this load balancer, or of this certificate.
    pub(crate) async fn read_of<T, E, F>(
        &self,
        operation: &'static str,
        of: &str,
        call: impl Fn() -> F,
    ) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        debug_assert!(
            ["Describe", "List", "Get"].iter().any(|word| operation.starts_with(word)),
            "{operation} may change something"
        );
        // The tags of a certificate are read only for requested certificates.
        let is_add_on = is_add_on(service_of(operation)) || operation == "ListTagsForCertificate";
        if let Some(error) = self.failure_of_late(operation, of) {
            return Err(error);
        }
        let unanswered = AtomicU32::new(0);
        let again = |kind: &AwsErrorKind| match kind {
            AwsErrorKind::Throttled { .. } => true,
            AwsErrorKind::Unclear { .. } | AwsErrorKind::Unreachable { .. } => {
                !is_add_on || unanswered.fetch_add(1, Ordering::Relaxed) + 1 < ADD_ON_ATTEMPTS
            }
            _ => false,
        };
        let attempts = self.attempts(operation, call, self.max_attempts, || Some(Duration::MAX), again);
        let answer = watched(self.observer.as_ref(), operation, attempts).await;
        if is_add_on {
            self.note_failure(
                operation,
                of,
                answer.as_ref().err().filter(|error| error.is_denied() || is_outage(error)),
            );
        }
        answer
    }

    /// Returns the failure of a call a short time ago, which is not tried again yet. A denial counts only for its own load
    /// balancer or certificate; that the service did not answer counts for all, without what was said about another one.
    fn failure_of_late(&self, operation: &'static str, of: &str) -> Option<AwsError> {
        let all = self.failed_lately();
        let mut lately = all.iter().filter(|((name, _), (at, _))| *name == operation && at.elapsed() < FAILED_LATELY);
        let own = lately.clone().find(|((_, subject), _)| subject == of).map(|(_, (_, error))| error.clone());
        own.or_else(|| lately.find_map(|(_, (_, error))| self.not_made(error)))
    }

    /// Returns the reason why a call is not made, after this failure of a service to answer another one, whose words are not
    /// for everybody; `None` for another failure.
    fn not_made(&self, error: &AwsError) -> Option<AwsError> {
        let kind = match &error.kind {
            AwsErrorKind::Unclear { .. } => AwsErrorKind::Unreachable {
                endpoint: self.endpoint(service_of(error.operation)),
                message: "there was no clear answer a short time ago".to_owned(),
            },
            kind @ AwsErrorKind::Unreachable { .. } => kind.clone(),
            _ => return None,
        };
        Some(AwsError { operation: error.operation, kind })
    }

    /// Records the failure of a call, or that there was none.
    fn note_failure(&self, operation: &'static str, of: &str, failure: Option<&AwsError>) {
        let mut all = self.failed_lately();
        all.retain(|(name, subject), (at, error)| {
            let is_over = *name == operation && (subject == of || failure.is_none() && is_outage(error));
            !is_over && at.elapsed() < FAILED_LATELY
        });
        if let Some(error) = failure {
            all.insert((operation, of.to_owned()), (Instant::now(), error.clone()));
        }
    }

    fn failed_lately(&self) -> MutexGuard<'_, Failures> {
        self.failed_lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes up to `most` attempts at a call, each no longer than the time that `may` returns, and retries errors for
    /// which `again` is true.
    async fn attempts<T, E, F>(
        &self,
        operation: &'static str,
        call: impl Fn() -> F,
        most: u32,
        may: impl Fn() -> Option<Duration>,
        again: impl Fn(&AwsErrorKind) -> bool,
    ) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let service = service_of(operation);
        let budget = self.budgets.call(service, operation);
        let mut wait = FIRST_WAIT;
        let mut attempt = 1;
        loop {
            budget.turn().await;
            // Checked after the wait, during which the lease may have been lost.
            let Some(left) = may() else {
                return Err(AwsError { operation, kind: AwsErrorKind::Withheld });
            };
            let sent = Instant::now();
            let answer = match tokio::time::timeout(left, Box::pin(call())).await {
                Ok(answer) => answer.map_err(|error| {
                    let error = AwsError::new(operation, &self.endpoint(service), &error);
                    self.role.iter().fold(error, |error, role| error.in_role(role))
                }),
                Err(_) => Err(AwsError::unanswered(operation, left)),
            };
            budget.ended(sent, &answer);
            let error = match answer {
                Err(error) if attempt < most && again(&error.kind) => error,
                answer => return answer,
            };
            tracing::debug!(operation, attempt, %error, "trying again");
            budget.pause(jittered(wait), &error.kind).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            attempt += 1;
        }
    }
}

/// Returns true for a service that holds settings of load balancers, or proves hosts for their certificates.
fn is_add_on(service: &str) -> bool {
    matches!(service, "route53" | "wafv2" | "shield")
}

/// Returns true if the service did not answer, or not clearly.
fn is_outage(error: &AwsError) -> bool {
    matches!(error.kind, AwsErrorKind::Unclear { .. } | AwsErrorKind::Unreachable { .. })
}

/// Returns a random duration between half of `wait` and all of it, so that callers that were throttled together do not
/// retry together.
fn jittered(wait: Duration) -> Duration {
    let share = RandomState::new().build_hasher().finish() % 1000;
    wait / 2 + wait.mul_f64(f64::from(u32::try_from(share).unwrap_or(0)) / 2000.0)
}

#[cfg(test)]
mod tests;
