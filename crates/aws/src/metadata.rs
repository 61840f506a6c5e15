//! The instance metadata service: asked last, and not for long, because pods cannot reach it on many clusters.

use std::time::Duration;

use aws_config::{imds, provider_config::ProviderConfig};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::{AwsHttp, error::chain};
use albatross_core::model::VpcId;

const PATIENCE: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 2;
const DEADLINE: Duration = Duration::from_secs(5);
const REGION: &str = "/latest/meta-data/placement/region";
const ADDRESS: &str = "/latest/meta-data/mac";

/// A client with a short timeout.
pub(super) fn client(http: Option<SharedHttpClient>) -> imds::Client {
    let mut config = ProviderConfig::without_region();
    if let Some(http) = http {
        config = config.with_http_client(http);
    }
    let builder = imds::Client::builder().configure(&config);
    builder.max_attempts(ATTEMPTS).connect_timeout(PATIENCE).read_timeout(PATIENCE).build()
}

/// The instance that this process runs on.
pub struct Instance(imds::Client);

impl Instance {
    /// Makes a client, without a request yet.
    ///
    /// # Errors
    /// When AWS_EC2_METADATA_DISABLED turns the service off.
    pub fn new(http: &AwsHttp) -> Result<Self, String> {
        if std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|disabled| disabled.eq_ignore_ascii_case("true")) {
            return Err("AWS_EC2_METADATA_DISABLED turns the instance metadata service off".to_owned());
        }
        Ok(Self(client(Some(http.0.clone()))))
    }

    /// Its region.
    ///
    /// # Errors
    /// When the service gives no answer, with the reason.
    pub async fn region(&self) -> Result<String, String> {
        within(self.get(REGION)).await
    }

    /// The VPC of its primary network interface.
    ///
    /// # Errors
    /// When the service gives no answer, with the reason.
    pub async fn vpc(&self) -> Result<VpcId, String> {
        within(async {
            let address = self.get(ADDRESS).await?;
            self.get(&format!("/latest/meta-data/network/interfaces/macs/{address}/vpc-id")).await.map(VpcId::new)
        })
        .await
    }

    async fn get(&self, path: &str) -> Result<String, String> {
        let answer = self.0.get(path).await.map_err(|error| {
            let said = chain(&error);
            let timed_out = said.contains("timed out") || said.contains("timeout");
            let said = if timed_out { format!("no answer within {} s", PATIENCE.as_secs()) } else { said };
            format!("the instance metadata service gives no answer: {said}")
        })?;
        Ok(answer.as_ref().trim().to_owned())
    }
}

async fn within<T>(asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = || format!("the instance metadata service gave no answer within {} s", DEADLINE.as_secs());
    tokio::time::timeout(DEADLINE, asked).await.map_err(|_| late())?
}
