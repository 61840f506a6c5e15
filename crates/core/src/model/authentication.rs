//! The authentication that a client needs before a request is acted on: on HTTPS listeners, before the action of a rule or
//! of the listener.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Action, ObjectName, Value};

/// The length of a user's session, and the treatment of a user without one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Session {
    /// Name of the cookie.
    pub cookie: String,
    /// The claims that are requested, separated by spaces.
    pub scope: String,
    /// AWS takes 1 to 604800.
    pub timeout_seconds: i64,
    /// `authenticate`, `allow` or `deny`.
    pub on_unauthenticated_request: String,
    /// Parameters of the redirect to the provider; AWS takes ten.
    pub extra_parameters: BTreeMap<String, String>,
}

/// A user pool of Amazon Cognito.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CognitoProvider {
    /// `arn:…:userpool/…`
    pub user_pool_arn: String,
    /// The client of the user pool.
    pub user_pool_client_id: String,
    /// The domain, or the prefix of one of Cognito's.
    pub user_pool_domain: String,
    /// The session.
    pub session: Session,
}

/// An OpenID Connect provider. Its client's id and secret are in an [`OidcSecret`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OidcProvider {
    /// `https://…`, as all that follow.
    pub issuer: String,
    /// The URL at which users sign in.
    pub authorization_endpoint: String,
    /// The URL from which the load balancer gets tokens.
    pub token_endpoint: String,
    /// The URL from which it gets the claims.
    pub user_info_endpoint: String,
    /// The session.
    pub session: Session,
}

/// Tokens that requests carry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JwtValidation {
    /// The URL of the keys, `https://…`.
    pub jwks_endpoint: String,
    /// The required issuer of tokens.
    pub issuer: String,
    /// Further claims that tokens must have, all of them. The order has no meaning.
    pub claims: Vec<JwtClaim>,
}

/// A claim that a token has to make.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JwtClaim {
    /// Its name.
    pub name: String,
    /// `single-string`, `string-array` or `space-separated-values`.
    pub format: String,
    /// A token needs any one of these.
    pub values: Vec<String>,
}

/// The version of a Secret: another one after each write of it. It does not depend on the content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretVersion {
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.resourceVersion`
    pub resource_version: String,
}

/// The id of a client, which is in a Secret, so it is never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub String);

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

/// The OpenID Connect client in a Secret. It can be neither printed nor serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct OidcSecret {
    /// The state of the Secret since which it has said this.
    pub version: SecretVersion,
    /// `clientID`
    pub client_id: ClientId,
    /// `clientSecret`
    pub client_secret: String,
}

impl fmt::Debug for OidcSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OidcSecret").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The authentication that a rule requires of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Authentication {
    /// A user of a Cognito user pool.
    Cognito(CognitoProvider),
    /// A user of another provider.
    Oidc {
        /// The provider.
        provider: OidcProvider,
        /// The Secret.
        secret_name: ObjectName,
        /// The content of the Secret; left out of serialised plans.
        #[serde(skip)]
        secret: Value<OidcSecret>,
    },
    /// A token.
    Jwt(JwtValidation),
}

impl Authentication {
    /// The Secret's content, where there is one and it is known.
    #[must_use]
    pub fn secret(&self) -> Option<&OidcSecret> {
        match self {
            Self::Oidc { secret, .. } => secret.known(),
            _ => None,
        }
    }
}

/// Remembers with actions, which AWS has just been given, the state of the Secret that went with them: AWS never returns it.
pub fn remember_secret<G>(actions: &mut [Action<G>], written: Option<&Authentication>) {
    for action in actions {
        if let (Action::AuthenticateOidc { secret_version, .. }, Some(secret)) =
            (action, written.and_then(Authentication::secret))
        {
            *secret_version = Some(secret.version.clone());
        }
    }
}

/// Takes over from `known` the values that AWS does not return for actions that were read again, if they are still the same.
pub fn carry_over_secret<G: PartialEq>(read: &mut [Action<G>], known: &[Action<G>]) {
    for (action, known) in read.iter_mut().zip(known) {
        if let (
            Action::AuthenticateOidc { provider, client_id, secret_version: version @ None },
            Action::AuthenticateOidc { provider: known_provider, client_id: known_id, secret_version },
        ) = (action, known)
            && provider == known_provider
            // After a restart it is not known any more.
            && (known_id.is_none() || known_id == client_id)
        {
            version.clone_from(secret_version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TargetGroupArn;

    fn provider(issuer: &str) -> OidcProvider {
        OidcProvider {
            issuer: issuer.to_owned(),
            authorization_endpoint: "https://idp/a".to_owned(),
            token_endpoint: "https://idp/t".to_owned(),
            user_info_endpoint: "https://idp/u".to_owned(),
            session: Session {
                cookie: "c".to_owned(),
                scope: "openid".to_owned(),
                timeout_seconds: 60,
                on_unauthenticated_request: "deny".to_owned(),
                extra_parameters: BTreeMap::new(),
            },
        }
    }

    fn version(resource_version: &str) -> SecretVersion {
        SecretVersion { uid: "u-1".to_owned(), resource_version: resource_version.to_owned() }
    }

    fn observed(issuer: &str, client: Option<&str>, known: Option<&str>) -> Action<TargetGroupArn> {
        let client_id = client.map(|id| ClientId(id.to_owned()));
        Action::AuthenticateOidc { provider: provider(issuer), client_id, secret_version: known.map(version) }
    }

    fn wanted() -> Authentication {
        let secret = OidcSecret {
            version: version("7"),
            client_id: ClientId("the-client".to_owned()),
            client_secret: "s3cret".to_owned(),
        };
        Authentication::Oidc {
            provider: provider("https://idp"),
            secret_name: ObjectName::new("shop", "oidc"),
            secret: Value::Known(secret),
        }
    }

    #[test]
    fn a_secret_is_neither_printed_nor_written_down() {
        let observed = observed("https://idp", Some("the-client"), Some("7"));
        let texts = [
            format!("{:?} {:#?}", wanted(), wanted()),
            serde_json::to_string(&wanted()).unwrap(),
            format!("{observed:?}"),
            serde_json::to_string(&observed).unwrap(),
        ];
        for text in &texts {
            assert!(text.contains("https://idp") && !text.contains("s3cret") && !text.contains("the-client"), "{text}");
        }
        // Which state of the Secret AWS has is remembered, and who the client is need not be.
        let read: Action<TargetGroupArn> = serde_json::from_str(&texts[3]).unwrap();
        assert_eq!(read, super::tests::observed("https://idp", None, Some("7")));
    }

    #[test]
    fn what_was_written_is_remembered_as_long_as_nobody_changes_it() {
        let mut written = [observed("https://idp", Some("a"), None)];
        remember_secret(&mut written, Some(&wanted()));
        assert_eq!(written, [observed("https://idp", Some("a"), Some("7"))]);
        for (known, read, expected) in [
            (observed("https://idp", Some("a"), Some("7")), observed("https://idp", Some("a"), None), Some("7")),
            (observed("https://idp", None, Some("7")), observed("https://idp", Some("a"), None), Some("7")),
            (observed("https://idp", Some("b"), Some("7")), observed("https://idp", Some("a"), None), None),
            (observed("https://other", Some("a"), Some("7")), observed("https://idp", Some("a"), None), None),
            (Action::Other("x".to_owned()), observed("https://idp", Some("a"), None), None),
        ] {
            let mut read = [read];
            carry_over_secret(&mut read, std::slice::from_ref(&known));
            assert_eq!(read, [observed("https://idp", Some("a"), expected)], "{known:?}");
        }
    }
}
