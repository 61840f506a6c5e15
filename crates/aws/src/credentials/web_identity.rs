//! The role of a ServiceAccount: its token, which kubelet renews in a file, is exchanged for credentials at STS, in the region.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_sdk_sts::{Client, config::Builder, error::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;

use super::{super::error::chain, NoCredentials, hints::Hints};

/// Exchanges the token for credentials.
#[derive(Debug)]
pub(super) struct WebIdentity {
    sts: Client,
    region: String,
    role: String,
    token_file: String,
    session: String,
}

/// The claims of a token. They are not secret; the token's signature is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Claims {
    subject: Option<String>,
    issuer: Option<String>,
    audiences: Vec<String>,
    ends: Option<u64>,
}

impl WebIdentity {
    /// Returns `None` where the environment does not name both a role and a token.
    pub(super) fn new(hints: &Hints, config: &SdkConfig, endpoint: Option<&String>) -> Option<Self> {
        let (role, token_file) = (hints.role.clone()?, hints.token_file.clone()?);
        let mut builder = Builder::from(config);
        if let Some(url) = endpoint {
            builder = builder.endpoint_url(url);
        }
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        let session = session_name(hints.session.as_deref().unwrap_or_default());
        Some(Self { sts: Client::from_conf(builder.build()), region, role, token_file, session })
    }

    pub(super) async fn credentials(&self) -> Result<Credentials, NoCredentials> {
        let file = &self.token_file;
        let unreadable = |reason: String| {
            NoCredentials::new(
                format!(
                    "the ServiceAccount's token cannot be read from `{file}`, which AWS_WEB_IDENTITY_TOKEN_FILE names: {reason}"
                ),
                "restart the controller's pods, so that EKS mounts it, and run them with an fsGroup that can read it",
            )
        };
        // Read each time, because kubelet renews it.
        let token = tokio::fs::read_to_string(file).await.map_err(|error| unreadable(error.to_string()))?;
        let token = token.trim();
        if token.is_empty() {
            return Err(unreadable("the file is empty".to_owned()));
        }
        let call = self.sts.assume_role_with_web_identity();
        let call = call.role_arn(&self.role).role_session_name(&self.session).web_identity_token(token);
        let answer = match call.send().await {
            Ok(answer) => answer,
            Err(SdkError::ServiceError(context)) => {
                let error = context.err();
                let (code, words) = (error.code().unwrap_or("no code"), error.message().unwrap_or("no message"));
                // A server may repeat the token that it was sent, so its text is not shown.
                return Err(self.refused(code, &words.replace(token, "…"), &Claims::of(token)));
            }
            Err(error) => return Err(self.unreached(&chain(&error).replace(token, "…"))),
        };
        let credentials = answer.credentials().ok_or_else(|| self.unreached("the answer has no credentials"))?;
        let end = SystemTime::try_from(*credentials.expiration());
        let end = end.map_err(|_| self.unreached("the answer does not say when the credentials expire"))?;
        Ok(Credentials::new(
            credentials.access_key_id(),
            credentials.secret_access_key(),
            Some(credentials.session_token().to_owned()),
            Some(end),
            "the ServiceAccount's role",
        ))
    }

    fn unreached(&self, reason: &str) -> NoCredentials {
        NoCredentials::new(
            format!("STS in region {} gave no answer: {reason}", self.region),
            "check name resolution, the route to STS (NAT gateway, or a VPC endpoint for `sts`), HTTPS_PROXY and NO_PROXY",
        )
    }

    /// STS says no.
    fn refused(&self, code: &str, words: &str, claims: &Claims) -> NoCredentials {
        let role = &self.role;
        let words = words.trim().trim_end_matches('.');
        let who = claims.subject.as_deref().unwrap_or("the ServiceAccount's token");
        let issuer = claims.issuer.as_deref().unwrap_or("the cluster's issuer");
        let audiences = claims.audiences.join(", ");
        let (what, fix) = match code {
            "AccessDenied" | "AccessDeniedException" => (
                format!("{who} may not assume the role {role}"),
                format!(
                    "let the role's trust policy allow `sts:AssumeRoleWithWebIdentity` to the identity provider of {issuer}, for the subject `{who}`; check the role's name and account, too"
                ),
            ),
            "InvalidIdentityToken" | "InvalidIdentityTokenException" if words.contains("audience") => (
                format!("the token of {who} is for another audience ({audiences})"),
                "mount a token for the audience `sts.amazonaws.com` (the annotation `eks.amazonaws.com/audience` on the ServiceAccount says another one), or add the token's audience to the identity provider in IAM".to_owned(),
            ),
            "InvalidIdentityToken" | "InvalidIdentityTokenException" if words.contains("No OpenIDConnect provider") => (
                format!("the role's account has no identity provider for {issuer}"),
                "make one: `eksctl utils associate-iam-oidc-provider --cluster NAME --approve`, or `aws iam create-open-id-connect-provider`; where AWS_ROLE_ARN names another account, make it there".to_owned(),
            ),
            "InvalidIdentityToken" | "InvalidIdentityTokenException" | "IDPCommunicationError" | "IDPCommunicationErrorException" | "IDPRejectedClaim" => (
                format!("AWS does not accept the token of {who}"),
                format!("see that {issuer} is this cluster's issuer, and that AWS can fetch its keys from there"),
            ),
            "ExpiredToken" | "ExpiredTokenException" => (
                format!("the token of {who} has expired{}", claims.ends.map(ago).unwrap_or_default()),
                format!(
                    "mount the token as a projected volume, which kubelet renews, and not as a copy; where `{}` is one, check the clocks of the node and of this cluster",
                    self.token_file
                ),
            ),
            "RegionDisabledException" => (
                format!("STS is switched off in region {}", self.region),
                "switch it on in the account settings of IAM".to_owned(),
            ),
            _ => (
                format!("STS gives {who} no credentials for the role {role}"),
                "check AWS_ROLE_ARN and the role's trust policy".to_owned(),
            ),
        };
        NoCredentials::new(format!("{what}: {words} ({code})"), fix)
    }
}

/// Returns the time since a moment, in words. The moment is in seconds since 1970.
fn ago(moment: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|now| now.as_secs()).unwrap_or_default();
    match now.checked_sub(moment) {
        Some(seconds @ 0..120) => format!(" {seconds} s ago"),
        Some(seconds @ 120..7200) => format!(" {} min ago", seconds / 60),
        Some(seconds) => format!(" {} h ago", seconds / 3600),
        None => " by AWS's clock, not by this machine's".to_owned(),
    }
}

/// Returns a session name that STS accepts: the pod's name without the characters that are not allowed, at most 64 of them.
fn session_name(name: &str) -> String {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(*c);
    let name: String = name.chars().filter(allowed).take(64).collect();
    if name.len() < 2 { "albatross".to_owned() } else { name }
}

impl Claims {
    /// Reads them from a JSON web token; what cannot be read is not there.
    fn of(token: &str) -> Self {
        let payload = token.split('.').nth(1).map(|part| part.replace('-', "+").replace('_', "/"));
        let padded = payload.map(|text| {
            let missing = (4 - text.len() % 4) % 4;
            text + &"=".repeat(missing)
        });
        let json = padded.and_then(|text| aws_smithy_types::base64::decode(text).ok());
        let Some(json) = json.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok()) else {
            return Self::default();
        };
        let text = |name: &str| json.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        let audiences = match json.get("aud") {
            Some(serde_json::Value::Array(all)) => {
                all.iter().filter_map(|one| one.as_str()).map(str::to_owned).collect()
            }
            _ => text("aud").into_iter().collect(),
        };
        Self {
            subject: text("sub"),
            issuer: text("iss"),
            audiences,
            ends: json.get("exp").and_then(serde_json::Value::as_u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_and_what_is_no_token_has_none() {
        // {"iss":"https://oidc.example/id","sub":"system:serviceaccount:kube-system:albatross","aud":["sts.amazonaws.com"],"exp":5}
        let payload = "eyJpc3MiOiJodHRwczovL29pZGMuZXhhbXBsZS9pZCIsInN1YiI6InN5c3RlbTpzZXJ2aWNlYWNjb3VudDprdWJlLXN5c3RlbTphbGJhdHJvc3MiLCJhdWQiOlsic3RzLmFtYXpvbmF3cy5jb20iXSwiZXhwIjo1fQ";
        let claims = Claims {
            subject: Some("system:serviceaccount:kube-system:albatross".to_owned()),
            issuer: Some("https://oidc.example/id".to_owned()),
            audiences: vec!["sts.amazonaws.com".to_owned()],
            ends: Some(5),
        };
        assert_eq!(Claims::of(&format!("head.{payload}.signature")), claims);
        for text in ["", "a", "a.b.c", "a.!!.c", "a.e30.c", "..", "a.ä.c"] {
            assert_eq!(Claims::of(text), Claims::default(), "{text}");
        }
    }

    #[test]
    fn sessions_have_names_that_sts_takes() {
        assert_eq!(session_name("albatross-7d4b9-x2x"), "albatross-7d4b9-x2x");
        assert_eq!(session_name("a/b c"), "abc");
        assert_eq!(session_name("ä"), "albatross");
        assert_eq!(session_name(&"x".repeat(99)).len(), 64);
    }

    #[test]
    fn times_are_told_in_round_figures() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(ago(now - 600), " 10 min ago");
        assert_eq!(ago(now - 90_000), " 25 h ago");
        assert_eq!(ago(now + 600), " by AWS's clock, not by this machine's");
    }
}
