//! Clients for tests, with made-up credentials.

#![allow(clippy::disallowed_methods, reason = "tests hold no lease")]

use std::{sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use crate::{AwsReader, AwsWriter, CallObserver, ConnectOptions, LeaderTerm, WritePermit};

/// The maximum number of attempts at a write that AWS throttles.
pub const TRIES: usize = crate::client::TRIES as usize;

/// Returns clients that call a server on the loopback interface.
#[must_use]
pub fn at(endpoint: &str, observer: Option<Arc<dyn CallObserver>>) -> AwsReader {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = config().into_builder().endpoint_url(endpoint).http_client(http).build();
    let options = ConnectOptions { max_attempts: 2, observer, ..ConnectOptions::default() };
    AwsReader::with_config(&config, &options)
}

/// Returns clients whose requests `client` answers in this process. Reads are not retried.
#[must_use]
pub fn over(client: SharedHttpClient) -> AwsReader {
    let config = config().into_builder().http_client(client).build();
    let options = ConnectOptions { max_attempts: 1, ..ConnectOptions::default() };
    AwsReader::with_config(&config, &options)
}

/// Returns clients as [`over`] does, which retry reads as those of the controller do.
#[must_use]
pub fn retrying_over(client: SharedHttpClient) -> AwsReader {
    let config = config().into_builder().http_client(client).build();
    AwsReader::with_config(&config, &ConnectOptions::default())
}

/// Returns a writer with these clients and a permit that never ends.
#[must_use]
pub fn writer(reader: AwsReader) -> AwsWriter {
    AwsWriter::new(Arc::new(reader), WritePermit::without_election())
}

/// Returns a permit whose remaining time is the value that `left` returns.
#[must_use]
pub fn permit(left: impl Fn() -> Option<Duration> + Send + Sync + 'static) -> WritePermit {
    struct Term<F>(F);
    impl<F: Fn() -> Option<Duration> + Send + Sync + 'static> LeaderTerm for Term<F> {
        fn left(&self) -> Option<Duration> {
            (self.0)()
        }
    }
    WritePermit::of_term(Arc::new(Term(left)))
}

/// Returns the SDK's ELB v2 client, without the budget and the check of the permit.
#[must_use]
pub fn elb(aws: &AwsWriter) -> &aws_sdk_elasticloadbalancingv2::Client {
    &aws.elb
}

/// Returns the SDK's EC2 client, without the budget and the check of the permit.
#[must_use]
pub fn ec2(aws: &AwsWriter) -> &aws_sdk_ec2::Client {
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
