//! AWS clients that talk to the emulator directly, past the proxy, so that looking is never counted or disturbed.

use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};

/// The region of the lab.
pub const REGION: &str = "us-west-2";

/// One client a service.
#[derive(Clone)]
pub struct Aws {
    pub ec2: aws_sdk_ec2::Client,
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    pub acm: aws_sdk_acm::Client,
}

impl Aws {
    /// Clients for the emulator at `endpoint`.
    pub fn new(endpoint: &str) -> Self {
        let credentials = Credentials::new("x", "y", None, None, "lab");
        let (region, version) = (Region::new(REGION), BehaviorVersion::v2026_01_12());
        Self {
            ec2: aws_sdk_ec2::Client::from_conf(
                aws_sdk_ec2::Config::builder()
                    .behavior_version(version)
                    .region(region.clone())
                    .endpoint_url(endpoint)
                    .credentials_provider(credentials.clone())
                    .build(),
            ),
            elb: aws_sdk_elasticloadbalancingv2::Client::from_conf(
                aws_sdk_elasticloadbalancingv2::Config::builder()
                    .behavior_version(version)
                    .region(region.clone())
                    .endpoint_url(endpoint)
                    .credentials_provider(credentials.clone())
                    .build(),
            ),
            acm: aws_sdk_acm::Client::from_conf(
                aws_sdk_acm::Config::builder()
                    .behavior_version(version)
                    .region(region)
                    .endpoint_url(endpoint)
                    .credentials_provider(credentials)
                    .build(),
            ),
        }
    }
}
