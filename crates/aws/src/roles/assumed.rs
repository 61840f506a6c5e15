//! The credentials of an assumed role.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError, future},
};
use aws_sdk_sts::{Client, config::Builder, error::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;
use tokio::time::Instant;

use crate::{
    credentials::NoCredentials,
    error::{THROTTLES, chain, is_about_own_credentials},
};
use albatross_core::targets::role::Role;

/// The time for which STS is not asked again after it has given no credentials; it doubles each time. All bindings of the role
/// share it.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest such time, after which a role that has come to be allowed is found at the latest.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The least remaining lifetime with which old credentials stay in use where there are no new ones.
const STILL_GOOD: Duration = Duration::from_secs(15);

/// The last answers of STS.
#[derive(Debug, Default)]
struct Last {
    credentials: Option<Credentials>,
    /// The error, and the time until which it counts.
    failure: Option<(NoCredentials, Instant)>,
    pause: Duration,
}

/// Assumes a role with the controller's own credentials.
pub(crate) struct AssumedRole {
    sts: Client,
    region: String,
    role: Role,
    session: String,
    last: Mutex<Last>,
}

impl std::fmt::Debug for AssumedRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AssumedRole").field(&self.role).finish()
    }
}

impl AssumedRole {
    /// `config` has the credentials that may assume the role; `endpoint` is that of `--aws-api-endpoints`.
    pub(crate) fn new(config: &SdkConfig, endpoint: Option<&String>, role: &Role, session: &str) -> Self {
        let mut builder = Builder::from(config);
        if let Some(url) = endpoint {
            builder = builder.endpoint_url(url);
        }
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        let (role, session) = (role.clone(), session.to_owned());
        Self { sts: Client::from_conf(builder.build()), region, role, session, last: Mutex::default() }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn credentials(&self) -> Result<Credentials, NoCredentials> {
        let known = {
            let last = self.last();
            let failure = last.failure.as_ref().filter(|(_, until)| Instant::now() < *until);
            failure.map(|(error, _)| last.credentials.clone().filter(good).ok_or_else(|| error.clone()))
        };
        if let Some(known) = known {
            return known;
        }
        let found = self.assume().await;
        let mut last = self.last();
        match found {
            Ok(new) => {
                *last = Last { credentials: Some(new.clone()), ..Last::default() };
                Ok(new)
            }
            Err(error) => {
                last.pause = if last.pause.is_zero() { FIRST_PAUSE } else { (last.pause * 2).min(LONGEST_PAUSE) };
                last.failure = Some((error.clone(), Instant::now() + last.pause));
                let old = last.credentials.clone().filter(good);
                if old.is_some() {
                    tracing::warn!(
                        role = self.role.arn(),
                        "the credentials of a role cannot be renewed: {error}; {}; the old ones are used until they expire",
                        error.fix
                    );
                }
                old.ok_or(error)
            }
        }
    }

    async fn assume(&self) -> Result<Credentials, NoCredentials> {
        let call = self.sts.assume_role().role_arn(self.role.arn()).role_session_name(&self.session);
        let answer = match call.set_external_id(self.role.external_id().map(str::to_owned)).send().await {
            Ok(answer) => answer,
            Err(SdkError::ServiceError(context)) => {
                let error = context.err();
                return Err(self.refused(error.code().unwrap_or("no code"), error.message().unwrap_or("no message")));
            }
            // Without credentials of its own, the controller can assume no role.
            Err(error) => match NoCredentials::cause_of(&error) {
                Some(own) => return Err(own.clone()),
                None => return Err(self.unreached(&chain(&error))),
            },
        };
        let credentials = answer.credentials().ok_or_else(|| self.unreached("the answer has no credentials"))?;
        let end = SystemTime::try_from(*credentials.expiration());
        let end = end.map_err(|_| self.unreached("the answer does not say when the credentials expire"))?;
        Ok(Credentials::new(
            credentials.access_key_id(),
            credentials.secret_access_key(),
            Some(credentials.session_token().to_owned()),
            Some(end),
            "an assumed role",
        ))
    }

    fn unreached(&self, reason: &str) -> NoCredentials {
        NoCredentials::new(
            format!("STS in region {} gave no credentials for the role {}: {reason}", self.region, self.role.arn()),
            "check name resolution, the route to STS (NAT gateway, or a VPC endpoint for `sts`), HTTPS_PROXY and NO_PROXY",
        )
    }

    /// STS says no. The external id is hidden in its words.
    fn refused(&self, code: &str, words: &str) -> NoCredentials {
        let role = self.role.arn();
        let words = match self.role.external_id() {
            Some(id) => words.replace(id, "…"),
            None => words.to_owned(),
        };
        let words = words.trim().trim_end_matches('.');
        let own = is_about_own_credentials(code);
        let (what, fix) = match code {
            "AccessDenied" | "AccessDeniedException" => (
                format!("the controller may not assume the role {role}"),
                match self.role.external_id() {
                    Some(_) => "let the role's trust policy allow `sts:AssumeRole` to the controller's identity with the external id of spec.assumeRoleExternalId, and allow the controller `sts:AssumeRole` on the role; check the role's name and account, too".to_owned(),
                    None => "let the role's trust policy allow `sts:AssumeRole` to the controller's identity, and allow the controller `sts:AssumeRole` on the role; where the trust policy requires an external id, set spec.assumeRoleExternalId; check the role's name and account, too".to_owned(),
                },
            ),
            "ValidationError" => (
                format!("STS does not accept the role {role}"),
                "correct spec.iamRoleArnToAssume and spec.assumeRoleExternalId".to_owned(),
            ),
            "RegionDisabledException" => (
                format!("STS is switched off in region {}", self.region),
                "switch it on in the account settings of IAM".to_owned(),
            ),
            _ if own => (
                format!("STS does not accept the controller's own credentials, with which it assumes the role {role}"),
                "check the controller's credentials and the clock of its node".to_owned(),
            ),
            _ => (
                format!("STS gives the controller no credentials for the role {role}"),
                "check spec.iamRoleArnToAssume and the role's trust policy".to_owned(),
            ),
        };
        // The words on a bad signature repeat the signed headers.
        let shown = if code == "SignatureDoesNotMatch" { String::new() } else { format!(": {words}") };
        let role = (!own && !THROTTLES.contains(&code)).then(|| role.to_owned());
        NoCredentials { role, ..NoCredentials::new(format!("{what}{shown} ({code})"), fix) }
    }
}

/// Returns true if the credentials can be used for some more calls.
fn good(credentials: &Credentials) -> bool {
    credentials.expiry().is_none_or(|end| end > SystemTime::now() + STILL_GOOD)
}

impl ProvideCredentials for AssumedRole {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(
            async move { self.credentials().await.map_err(CredentialsError::provider_error) },
        )
    }
}
