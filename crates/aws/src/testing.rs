//! Clients for tests, with made-up credentials.

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use crate::{Aws, CallObserver, ConnectOptions};

/// Returns clients that speak with a server on loopback.
#[must_use]
pub fn at(endpoint: &str, observer: Option<Arc<dyn CallObserver>>) -> Aws {
    let config = config().into_builder().endpoint_url(endpoint).build();
    let options = ConnectOptions { max_attempts: 2, observer, ..ConnectOptions::default() };
    Aws::with_config(&config, &options)
}

/// Returns clients whose requests `client` answers, in this process. Reads are not repeated.
#[must_use]
pub fn over(client: SharedHttpClient) -> Aws {
    let config = config().into_builder().http_client(client).build();
    let options = ConnectOptions { max_attempts: 1, ..ConnectOptions::default() };
    Aws::with_config(&config, &options)
}

/// Returns the SDK's own client of ELB v2, past the budget and the permit to write.
#[must_use]
pub fn elb(aws: &Aws) -> &aws_sdk_elasticloadbalancingv2::Client {
    &aws.elb
}

/// Returns the SDK's own client of EC2, past the budget and the permit to write.
#[must_use]
pub fn ec2(aws: &Aws) -> &aws_sdk_ec2::Client {
    &aws.ec2
}

fn config() -> SdkConfig {
    let credentials = Credentials::new("key", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-west-2"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}
