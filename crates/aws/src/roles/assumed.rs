//! The credentials of an assumed role.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
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
    DeniedBy,
    credentials::NoCredentials,
    error::{THROTTLES, chain, is_about_own_credentials},
};
use albatross_core::targets::role::Role;

/// The time for which STS is not asked again after it has given no credentials; it doubles each time. All bindings of the role
/// share it.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest such time, after which a role that has come to be allowed is found at the latest.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The time after a pause's end after which it is forgotten, and the next one is short again. The pauses between the attempts of
/// a binding are shorter.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// The most roles whose failure is known.
const MAX_FAILURES: usize = 10_000;
/// The time within which STS has to answer; the calls that need the credentials wait as long.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The least remaining lifetime with which old credentials stay in use where there are no new ones.
const STILL_GOOD: Duration = Duration::from_secs(15);

/// The last failure to assume a role.
#[derive(Debug)]
struct Failure {
    error: NoCredentials,
    /// The time until which STS is not asked again.
    until: Instant,
    pause: Duration,
}

/// The roles that cannot be assumed. They outlive the clients of the roles, of which only so many are kept: with more roles than
/// that, each client would be new, and STS asked for each call.
#[derive(Debug, Default)]
pub(crate) struct Pauses(Mutex<(BTreeMap<Role, Failure>, Option<Instant>)>);

impl Pauses {
    /// Returns the error that counts, while STS is not asked again.
    fn current(&self, role: &Role) -> Option<NoCredentials> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = all.0.get(role).filter(|failure| Instant::now() < failure.until);
        failure.map(|failure| failure.error.clone())
    }

    fn clear(&self, role: &Role) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.remove(role);
    }

    fn record(&self, role: &Role, error: NoCredentials) {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (failures, pruned) = &mut *all;
        // A role that no binding names any more is not asked for again.
        if pruned.is_none_or(|at| now.saturating_duration_since(at) > LONGEST_PAUSE) {
            failures.retain(|_, failure| now.saturating_duration_since(failure.until) < FORGOTTEN_AFTER);
            *pruned = Some(now);
        }
        if failures.len() >= MAX_FAILURES {
            let first = failures.iter().min_by_key(|(_, failure)| failure.until).map(|(role, _)| role.clone());
            first.and_then(|role| failures.remove(&role));
        }
        let pause = failures.get(role).map_or(FIRST_PAUSE, |last| (last.pause * 2).min(LONGEST_PAUSE));
        failures.insert(role.clone(), Failure { error, until: now + pause, pause });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().0.len()
    }

    #[cfg(test)]
    pub(super) fn lengthen(&self, by: Duration) {
        self.0.lock().unwrap().0.values_mut().for_each(|failure| failure.until += by);
    }
}

/// The words by which STS says that no policy of the caller's own identity allows the call (the IAM user guide, "Troubleshoot
/// access denied error messages"). Without them, the trust policy of the role may be the reason, too.
const OWN_POLICY: &str = "no identity-based policy allows";

/// Assumes a role with the controller's own credentials.
pub(crate) struct AssumedRole {
    sts: Client,
    region: String,
    role: Role,
    session: String,
    pauses: Arc<Pauses>,
    /// The last credentials.
    last: Mutex<Option<Credentials>>,
}

impl std::fmt::Debug for AssumedRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AssumedRole").field(&self.role).finish()
    }
}

impl AssumedRole {
    /// `config` has the credentials that may assume the role; `endpoint` is that of `--aws-api-endpoints`.
    pub(crate) fn new(
        config: &SdkConfig,
        endpoint: Option<&String>,
        role: &Role,
        session: &str,
        pauses: &Arc<Pauses>,
    ) -> Self {
        let mut builder = Builder::from(config);
        if let Some(url) = endpoint {
            builder = builder.endpoint_url(url);
        }
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        let (role, session) = (role.clone(), session.to_owned());
        let (pauses, last) = (Arc::clone(pauses), Mutex::default());
        Self { sts: Client::from_conf(builder.build()), region, role, session, pauses, last }
    }

    /// Returns the last credentials, if they can be used for some more calls.
    fn last(&self) -> Option<Credentials> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(good)
    }

    async fn credentials(&self) -> Result<Credentials, NoCredentials> {
        if let Some(error) = self.pauses.current(&self.role) {
            return self.last().ok_or(error);
        }
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.assume()).await;
        let late = |_| Err(self.unreached(&format!("there was no answer within {} s", ANSWER_WITHIN.as_secs())));
        match answer.unwrap_or_else(late) {
            Ok(new) => {
                self.pauses.clear(&self.role);
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(new.clone());
                Ok(new)
            }
            Err(error) => {
                self.pauses.record(&self.role, error.clone());
                let old = self.last();
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
                let (code, words) = (error.code().unwrap_or("no code"), error.message().unwrap_or("no message"));
                return Err(self.refused(code, words, context.raw().status().as_u16()));
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
        NoCredentials {
            denied_by: DeniedBy::Unanswered,
            ..NoCredentials::new(
                format!("STS in region {} gave no credentials for the role {}: {reason}", self.region, self.role.arn()),
                "check name resolution, the route to STS (NAT gateway, or a VPC endpoint for `sts`), HTTPS_PROXY and NO_PROXY",
            )
        }
    }

    /// STS says no. The external id is hidden in its words.
    fn refused(&self, code: &str, words: &str, status: u16) -> NoCredentials {
        let role = self.role.arn();
        let words = match self.role.external_id() {
            Some(id) => words.replace(id, "…"),
            None => words.to_owned(),
        };
        let words = words.trim().trim_end_matches('.');
        let Refusal { what, fix, denied_by } = match code {
            "AccessDenied" | "AccessDeniedException" if words.contains(OWN_POLICY) => Refusal {
                what: format!("the controller's own policy does not allow it to assume the role {role}"),
                fix: "allow the controller `sts:AssumeRole` on the role, in the IAM policy of the controller's own identity"
                    .to_owned(),
                denied_by: DeniedBy::OwnAccount,
            },
            "AccessDenied" | "AccessDeniedException" => Refusal {
                what: format!("the controller may not assume the role {role}"),
                fix: match self.role.external_id() {
                    Some(_) => "let the role's trust policy allow `sts:AssumeRole` to the controller's identity with the external id of spec.assumeRoleExternalId, and allow the controller `sts:AssumeRole` on the role; check the role's name and account, too".to_owned(),
                    None => "let the role's trust policy allow `sts:AssumeRole` to the controller's identity, and allow the controller `sts:AssumeRole` on the role; where the trust policy requires an external id, set spec.assumeRoleExternalId; check the role's name and account, too".to_owned(),
                },
                denied_by: DeniedBy::OtherAccount,
            },
            "ValidationError" => Refusal {
                what: format!("STS does not accept the role {role}"),
                fix: "correct spec.iamRoleArnToAssume and spec.assumeRoleExternalId".to_owned(),
                denied_by: DeniedBy::OtherAccount,
            },
            "RegionDisabledException" => Refusal {
                what: format!("STS is switched off in region {}", self.region),
                fix: "switch it on in the account settings of IAM".to_owned(),
                denied_by: DeniedBy::OwnAccount,
            },
            code if is_about_own_credentials(code) => Refusal {
                what: format!(
                    "STS does not accept the controller's own credentials, with which it assumes the role {role}"
                ),
                fix: "check the controller's credentials and the clock of its node".to_owned(),
                denied_by: DeniedBy::OwnAccount,
            },
            code if status >= 500 || THROTTLES.contains(&code) => Refusal {
                what: format!("STS gives no credentials for the role {role} at present"),
                fix: "wait: it is asked again".to_owned(),
                denied_by: DeniedBy::Unanswered,
            },
            _ => Refusal {
                what: format!("STS gives the controller no credentials for the role {role}"),
                fix: "check spec.iamRoleArnToAssume and the role's trust policy".to_owned(),
                denied_by: DeniedBy::OwnAccount,
            },
        };
        // The words on a bad signature repeat the signed headers.
        let shown = if code == "SignatureDoesNotMatch" { String::new() } else { format!(": {words}") };
        NoCredentials { denied_by, ..NoCredentials::new(format!("{what}{shown} ({code})"), fix) }
    }
}

/// The meaning of a refusal of STS.
struct Refusal {
    what: String,
    fix: String,
    denied_by: DeniedBy,
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
