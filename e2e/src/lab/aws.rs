//! AWS clients. The lab's own talk to the emulator directly, past the proxy, so that looking is never counted or disturbed.

use anyhow::{Context as _, Result};
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};

/// The region of the lab.
pub const REGION: &str = "us-west-2";

/// The clients, one for each service.
#[derive(Clone)]
pub struct Aws {
    pub ec2: aws_sdk_ec2::Client,
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    pub acm: aws_sdk_acm::Client,
    pub route53: aws_sdk_route53::Client,
    pub wafv2: aws_sdk_wafv2::Client,
    pub shield: aws_sdk_shield::Client,
}

/// The settings of the clients are alike, but their types are not.
macro_rules! client {
    ($sdk:ident, $endpoint:expr, $retries:expr, $http:expr, $credentials:expr) => {
        $sdk::Client::from_conf(
            $sdk::Config::builder()
                .behavior_version(BehaviorVersion::v2026_01_12())
                .region(Region::new(REGION))
                .endpoint_url($endpoint)
                .http_client($http.clone())
                .credentials_provider($credentials.clone())
                .retry_config($retries.clone())
                .build(),
        )
    };
}

fn own_credentials() -> Credentials {
    Credentials::new("x", "y", None, None, "lab")
}

impl Aws {
    /// Clients for the emulator at `endpoint`.
    pub fn new(endpoint: &str) -> Self {
        Self::with_retries(endpoint, &RetryConfig::standard())
    }

    /// Clients that show each answer as it comes.
    pub fn without_retries(endpoint: &str) -> Self {
        Self::with_retries(endpoint, &RetryConfig::disabled())
    }

    /// Clients of another account, in a role of it.
    pub async fn in_role(endpoint: &str, arn: &str) -> Result<Self> {
        let http = aws_smithy_http_client::Builder::new().build_http();
        let (retries, own) = (RetryConfig::standard(), own_credentials());
        let sts = client!(aws_sdk_sts, endpoint, &retries, http, own);
        let answer = sts.assume_role().role_arn(arn).role_session_name("lab").send().await?;
        let given = answer.credentials().context("STS gives no credentials")?;
        let token = Some(given.session_token().to_owned());
        let assumed = Credentials::new(given.access_key_id(), given.secret_access_key(), token, None, "lab");
        Ok(Self::with_credentials(endpoint, &retries, &assumed))
    }

    fn with_retries(endpoint: &str, retries: &RetryConfig) -> Self {
        Self::with_credentials(endpoint, retries, &own_credentials())
    }

    fn with_credentials(endpoint: &str, retries: &RetryConfig, credentials: &Credentials) -> Self {
        let http = aws_smithy_http_client::Builder::new().build_http();
        Self {
            ec2: client!(aws_sdk_ec2, endpoint, retries, http, credentials),
            elb: client!(aws_sdk_elasticloadbalancingv2, endpoint, retries, http, credentials),
            acm: client!(aws_sdk_acm, endpoint, retries, http, credentials),
            route53: client!(aws_sdk_route53, endpoint, retries, http, credentials),
            wafv2: client!(aws_sdk_wafv2, endpoint, retries, http, credentials),
            shield: client!(aws_sdk_shield, endpoint, retries, http, credentials),
        }
    }
}
