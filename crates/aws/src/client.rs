//! The clients, and how calls take their turn and are repeated.

use std::{
    collections::BTreeMap,
    error::Error,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
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
use crate::proxies::Proxies;

mod writer;

pub use writer::AwsWriter;

/// The way to reach AWS.
#[derive(Clone)]
pub struct ConnectOptions {
    /// The region: `--aws-region`, or that of another source.
    pub region: String,
    /// The proxies that connections go through.
    pub proxies: Arc<Proxies>,
    /// `--aws-max-retries`: attempts at a read in all.
    pub max_attempts: u32,
    /// `--aws-api-endpoints`, by service id as [`parse_endpoints`] spells it.
    pub endpoints: BTreeMap<String, String>,
    /// `--aws-api-throttle`
    pub fixed_limits: Vec<FixedLimit>,
    /// The observer of every call.
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

/// The reason that there can be no clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// AWS_CA_BUNDLE names no file of certificates.
    #[error(
        "AWS_CA_BUNDLE names `{path}`, which cannot be used: {reason}; it has to be a file of PEM certificates that can be read"
    )]
    Bundle {
        /// The file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// No HTTP client can be made.
    #[error("no connection to AWS is possible: {reason}")]
    Client {
        /// The reason.
        reason: String,
    },
    /// `--aws-api-endpoints` cannot be read.
    #[error(
        "`{entry}` in `--aws-api-endpoints` is not of the form `ServiceID=URL`, for example `EC2=https://ec2.example`"
    )]
    Endpoint {
        /// The entry.
        entry: String,
    },
}

/// A service id without case and separators, so that `Elastic Load Balancing v2` may be written in any of the usual ways.
pub(super) fn service_id(text: &str) -> String {
    let id: String = text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    match id.as_str() {
        "elbv2" | "elasticloadbalancing" => "elasticloadbalancingv2".to_owned(),
        _ => id,
    }
}

/// Reads `--aws-api-endpoints`: `ServiceID=URL`, separated by commas.
///
/// # Errors
/// When an entry is not of that form.
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

/// The way to AWS for calls that change nothing (Describe, List, Get); [`AwsWriter`] makes the others. The SDK repeats nothing:
/// every attempt takes its turn from the budget of its class. Reads are repeated whenever that may help. Writes are repeated
/// only where AWS says that it has not begun with them, because not all of them may be made twice.
pub struct AwsReader {
    pub(crate) elb: aws_sdk_elasticloadbalancingv2::Client,
    pub(crate) ec2: aws_sdk_ec2::Client,
    pub(crate) acm: aws_sdk_acm::Client,
    budgets: Arc<Budgets>,
    observer: Option<Arc<dyn CallObserver>>,
    /// Attempts at a read in all.
    max_attempts: u32,
    region: String,
    endpoints: BTreeMap<String, String>,
    proxies: Arc<Proxies>,
    pub(super) credentials: Option<SharedCredentialsProvider>,
}

impl std::fmt::Debug for AwsReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsReader").field("region", &self.region).finish_non_exhaustive()
    }
}

/// The number of times that a throttled write is tried: about half a minute in all.
pub(crate) const TRIES: u32 = 12;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

impl AwsReader {
    /// Makes the clients. AWS is not called; the environment and the profile files are read.
    ///
    /// # Errors
    /// When no HTTP client can be made.
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
        macro_rules! client {
            ($service:ident, $id:literal) => {{
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
            budgets: Arc::new(Budgets::new(&options.fixed_limits, options.observer.clone())),
            observer: options.observer.clone(),
            max_attempts: options.max_attempts.max(1),
            region,
            endpoints: options.endpoints.clone(),
            proxies: Arc::clone(&options.proxies),
            credentials: config.credentials_provider(),
        }
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Returns where a service's calls go, in words.
    fn endpoint(&self, service: &str) -> String {
        let named = self.endpoints.get(service);
        // Any host name of AWS shows whether there is a proxy.
        let proxy = self.proxies.for_url(named.map_or("https://amazonaws.com", String::as_str));
        let place = named.cloned().unwrap_or_else(|| format!("AWS in region {}", self.region));
        proxy.map_or_else(|| place.clone(), |proxy| format!("{place} through the proxy {proxy}"))
    }

    /// Returns the state of the budgets of calls, by class.
    #[must_use]
    pub fn budgets(&self) -> BTreeMap<&'static str, BudgetState> {
        self.budgets.state()
    }

    /// Makes a call that changes nothing. It is repeated where AWS throttles, gives no clear answer, or is not reached.
    pub async fn read<T, E, F>(&self, operation: &'static str, call: impl Fn() -> F) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        debug_assert!(
            ["Describe", "List", "Get"].iter().any(|word| operation.starts_with(word)),
            "{operation} may change something"
        );
        let again = |kind: &AwsErrorKind| {
            matches!(
                kind,
                AwsErrorKind::Throttled { .. } | AwsErrorKind::Unclear { .. } | AwsErrorKind::Unreachable { .. }
            )
        };
        watched(
            self.observer.as_ref(),
            operation,
            self.attempts(operation, call, self.max_attempts, || Some(Duration::MAX), again),
        )
        .await
    }

    /// Makes a call up to `most` times, for as long as it `may` take, and as long as its failures are to be tried `again`.
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
            // Asked after the wait, in which a lot may have happened.
            let Some(left) = may() else {
                return Err(AwsError { operation, kind: AwsErrorKind::Withheld });
            };
            let sent = Instant::now();
            let answer = match tokio::time::timeout(left, Box::pin(call())).await {
                Ok(answer) => answer.map_err(|error| AwsError::new(operation, &self.endpoint(service), &error)),
                Err(_) => Err(AwsError::unanswered(operation, left)),
            };
            budget.ended(sent, &answer);
            let error = match answer {
                Err(error) if attempt < most && again(&error.kind) => error,
                answer => return answer,
            };
            tracing::debug!(operation, attempt, %error, "trying again");
            tokio::time::sleep(jittered(wait)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            attempt += 1;
        }
    }
}

/// Between half of `wait` and all of it, so that callers throttled together do not come back together.
fn jittered(wait: Duration) -> Duration {
    let share = RandomState::new().build_hasher().finish() % 1000;
    wait / 2 + wait.mul_f64(f64::from(u32::try_from(share).unwrap_or(0)) / 2000.0)
}

#[cfg(test)]
mod tests;
