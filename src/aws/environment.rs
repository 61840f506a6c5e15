//! What has to be known before anything can be done: credentials, and the VPC of the cluster.

use std::time::Duration;

use aws_sdk_ec2::{config::ProvideCredentials, types::Filter};

use super::{Aws, AwsError, AwsErrorKind, error::chain};
use crate::model::{Tags, VpcId};

const DEADLINE: Duration = Duration::from_secs(20);

impl Aws {
    /// Makes sure that there are credentials, so that their lack is told at the start and not at the first call.
    ///
    /// # Errors
    /// [`AwsErrorKind::Credentials`], with what the chain of providers said.
    pub async fn check_credentials(&self) -> Result<(), AwsError> {
        let failed = |message: String| AwsError { operation: "the start", kind: AwsErrorKind::Credentials { message } };
        let Some(provider) = self.credentials.as_ref() else {
            return Err(failed("no provider of credentials is configured".to_owned()));
        };
        match tokio::time::timeout(DEADLINE, provider.provide_credentials()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failed(chain(&error))),
            Err(_) => Err(failed(format!("no provider answered within {} s", DEADLINE.as_secs()))),
        }
    }

    /// DescribeVpcs: the VPCs that carry all these tags.
    ///
    /// # Errors
    /// AWS's.
    pub async fn vpcs_tagged(&self, tags: &Tags) -> Result<Vec<VpcId>, AwsError> {
        let filters =
            tags.iter().map(|(key, value)| Filter::builder().name(format!("tag:{key}")).values(value).build());
        let call = self.ec2.describe_vpcs().set_filters(Some(filters.collect()));
        let answer = self.read("DescribeVpcs", || call.clone().send()).await?;
        Ok(answer.vpcs().iter().filter_map(|vpc| vpc.vpc_id()).map(VpcId::new).collect())
    }

    /// Asks the instance's metadata for its VPC.
    ///
    /// # Errors
    /// What was asked, and why it gave no answer.
    pub async fn vpc_of_this_instance(&self) -> Result<VpcId, String> {
        let client = aws_config::imds::Client::builder().build();
        let get = async |path: String| {
            let asked = tokio::time::timeout(DEADLINE, client.get(path)).await;
            match asked {
                Ok(Ok(answer)) => Ok(answer.as_ref().trim().to_owned()),
                Ok(Err(error)) => Err(format!("the instance metadata service gives no answer: {}", chain(&error))),
                Err(_) => Err(format!("the instance metadata service gave no answer within {} s", DEADLINE.as_secs())),
            }
        };
        let address = get("/latest/meta-data/mac".to_owned()).await?;
        get(format!("/latest/meta-data/network/interfaces/macs/{address}/vpc-id")).await.map(VpcId::new)
    }
}
