//! The sources of credentials, in the order of AWS's SDK for Go, which aws-load-balancer-controller uses, so that a
//! takeover does not change the identity: a profile that is named, environment, the ServiceAccount's role, the default
//! profile, EKS Pod Identity, the instance. Where no source works, the error names the missing part and its fix, at the
//! start and at each renewal.

mod hints;
mod web_identity;

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use aws_config::{
    SdkConfig, ecs::EcsCredentialsProvider, environment::EnvironmentVariableCredentialsProvider,
    imds::credentials::ImdsCredentialsProvider, profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};

use self::{hints::Hints, web_identity::WebIdentity};
use super::{AwsErrorKind, DeniedBy, error::chain, metadata};

/// The time before their end at which credentials are renewed, or up to half of it later.
pub(super) const RENEWED_BEFORE: Duration = Duration::from_secs(120);
/// The renewal has to end within this.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);
/// The least remaining lifetime with which old credentials stay in use where there are no new ones.
const STILL_GOOD: Duration = Duration::from_secs(15);
/// Between two attempts at new ones, while the old ones are good.
const PAUSE: Duration = Duration::from_secs(10);

/// The error that there are no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct NoCredentials {
    /// The message; nothing of the credentials themselves.
    pub(super) message: String,
    /// The fix, without a full stop.
    pub(super) fix: String,
    /// The party that denies them.
    pub(super) denied_by: DeniedBy,
}

impl NoCredentials {
    pub(super) fn new(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { message: message.into(), fix: fix.into(), denied_by: DeniedBy::OwnAccount }
    }

    /// Returns it as the error of a call.
    pub(super) fn kind(&self) -> AwsErrorKind {
        let Self { message, fix, denied_by } = self.clone();
        AwsErrorKind::Credentials { message, fix: Some(fix), denied_by, code: None }
    }

    /// Returns this error where it is the cause of another one.
    pub(super) fn cause_of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
    }
}

/// All sources of credentials.
#[derive(Debug)]
struct Sources {
    hints: Hints,
    environment: EnvironmentVariableCredentialsProvider,
    profile: ProfileFileCredentialsProvider,
    web_identity: Option<WebIdentity>,
    container: EcsCredentialsProvider,
    instance: ImdsCredentialsProvider,
    had: Mutex<LastCredentials>,
}

/// The last credentials, used when there are no new ones.
#[derive(Debug, Default)]
struct LastCredentials {
    last: Option<Credentials>,
    failed: Option<Instant>,
}

/// The provider for the clients that `config`, which has no credentials, is for. `sts` is the endpoint of `--aws-api-endpoints`.
pub(super) fn provider(config: &SdkConfig, sts: Option<&String>) -> SharedCredentialsProvider {
    let mut provider = ProviderConfig::without_region().with_region(config.region().cloned());
    if let Some(client) = config.http_client() {
        provider = provider.with_http_client(client);
    }
    let hints = Hints::read(|name| std::env::var(name).ok());
    SharedCredentialsProvider::new(Sources {
        environment: EnvironmentVariableCredentialsProvider::new(),
        profile: profile(&provider, &hints, sts),
        web_identity: WebIdentity::new(&hints, config, sts),
        container: EcsCredentialsProvider::builder().configure(&provider).build(),
        instance: ImdsCredentialsProvider::builder()
            .configure(&provider)
            .imds_client(metadata::client(config.http_client()))
            .build(),
        hints,
        had: Mutex::default(),
    })
}

/// The provider of the profile that the environment names, or else of the default one. `sts` is where its chains of roles ask.
fn profile(provider: &ProviderConfig, hints: &Hints, sts: Option<&String>) -> ProfileFileCredentialsProvider {
    let builder = ProfileFileCredentialsProvider::builder().configure(provider);
    let Some(url) = sts else { return builder.build() };
    // The SDK creates the clients of a chain itself, and takes their endpoints only from the environment and the profile.
    let name = hints.profile.as_deref().unwrap_or("default");
    let section = if name == "default" { "default".to_owned() } else { format!("profile {name}") };
    let endpoint = format!(
        "[{section}]\nservices = albatross-endpoints\n[services albatross-endpoints]\nsts =\n  endpoint_url = {url}\n"
    );
    #[expect(deprecated, reason = "its successor is in a crate that nothing else here needs")]
    let files = aws_config::profile::profile_file::ProfileFiles::builder()
        .include_default_config_file(true)
        .include_default_credentials_file(true)
        .with_contents(aws_config::profile::profile_file::ProfileFileKind::Config, endpoint)
        .build();
    builder.profile_files(files).build()
}

impl ProvideCredentials for Sources {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            if let Some(last) = self.while_it_fails() {
                return Ok(last);
            }
            let found = self.find().await;
            let mut had = self.had.lock().unwrap_or_else(PoisonError::into_inner);
            match found {
                Ok(new) => {
                    *had = LastCredentials { last: Some(new.clone()), failed: None };
                    Ok(new)
                }
                Err(error) => {
                    had.failed = Some(Instant::now());
                    match had.last.clone().filter(good) {
                        Some(last) => {
                            tracing::warn!(
                                "AWS credentials cannot be renewed: {error}; {}; the old ones are used until they expire",
                                error.fix
                            );
                            Ok(last)
                        }
                        None => Err(CredentialsError::provider_error(error)),
                    }
                }
            }
        })
    }
}

/// Returns true if the credentials can be used for some more calls.
fn good(credentials: &Credentials) -> bool {
    credentials.expiry().is_none_or(|end| end > SystemTime::now() + STILL_GOOD)
}

impl Sources {
    /// Returns the old credentials if a request for new ones failed less than `PAUSE` ago.
    fn while_it_fails(&self) -> Option<Credentials> {
        let had = self.had.lock().unwrap_or_else(PoisonError::into_inner);
        had.failed.filter(|failed| failed.elapsed() < PAUSE)?;
        had.last.clone().filter(good)
    }

    async fn find(&self) -> Result<Credentials, NoCredentials> {
        let hints = &self.hints;
        if hints.profile.is_none() {
            if let Some(half) = hints.incomplete_key() {
                return Err(half);
            }
            if let Some(found) = loaded(self.environment.provide_credentials().await, |error| hints.keys(&error))? {
                return Ok(found);
            }
            if let Some(web_identity) = &self.web_identity {
                return web_identity.credentials().await;
            }
            if let Some(half) = hints.incomplete_role() {
                return Err(half);
            }
        }
        if let Some(found) = loaded(self.profile.provide_credentials().await, |error| hints.profile(&error))? {
            return Ok(found);
        }
        if let Some(found) = loaded(self.container.provide_credentials().await, |error| hints.container(&error))? {
            return Ok(found);
        }
        let instance = self.instance.provide_credentials().await;
        instance.map_err(|error| hints.nothing(&chain(&error)))
    }
}

/// The credentials, or nothing where the source is not set up.
fn loaded(
    answer: aws_credential_types::provider::Result,
    failed: impl FnOnce(String) -> NoCredentials,
) -> Result<Option<Credentials>, NoCredentials> {
    match answer {
        Ok(credentials) => Ok(Some(credentials)),
        Err(CredentialsError::CredentialsNotLoaded(_)) => Ok(None),
        Err(error) => Err(failed(chain(&error))),
    }
}
