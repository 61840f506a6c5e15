//! The prerequisites of a start: credentials, and the VPC of the cluster.

use std::collections::BTreeSet;

use aws_sdk_ec2::{config::ProvideCredentials, types::Filter};

use super::{
    AwsError, AwsErrorKind, AwsReader, DeniedBy,
    credentials::{DEADLINE, NoCredentials},
    error::chain,
};
use albatross_core::model::{Tags, VpcId};

impl AwsReader {
    /// Makes sure that there are credentials, so that a lack is reported at the start and not at the first call.
    ///
    /// # Errors
    /// [`AwsErrorKind::Credentials`], with what the chain of providers said.
    pub async fn check_credentials(&self) -> Result<(), AwsError> {
        let failed = |message: String| AwsError {
            operation: "the start",
            kind: AwsErrorKind::Credentials { message, fix: None, denied_by: DeniedBy::OwnAccount, code: None },
        };
        let Some(provider) = self.credentials.as_ref() else {
            return Err(failed("no provider of credentials is configured".to_owned()));
        };
        match tokio::time::timeout(DEADLINE, provider.provide_credentials()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(match NoCredentials::cause_of(&error) {
                Some(none) => AwsError { operation: "the start", kind: none.kind() },
                None => failed(chain(&error)),
            }),
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

    /// DescribeInstances: the VPCs of the existing ones among these instances, each once.
    ///
    /// # Errors
    /// AWS's.
    pub async fn vpcs_of_instances(&self, ids: &[String]) -> Result<BTreeSet<VpcId>, AwsError> {
        let filter = Filter::builder().name("instance-id").set_values(Some(ids.to_vec())).build();
        let call = self.ec2.describe_instances().filters(filter);
        let answer = self.read("DescribeInstances", || call.clone().send()).await?;
        let instances = answer.reservations().iter().flat_map(|reservation| reservation.instances());
        Ok(instances.filter_map(|instance| instance.vpc_id()).map(VpcId::new).collect())
    }
}
