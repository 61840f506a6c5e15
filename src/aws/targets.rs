//! Targets of target groups: registering, deregistering, health.

use std::{collections::BTreeMap, fmt};

use aws_sdk_elasticloadbalancingv2::types as elb;
use serde::Serialize;

use super::{Aws, AwsError};
use crate::model::TargetGroupArn;

/// How many targets one call of RegisterTargets or DeregisterTargets takes.
const BATCH: usize = 200;

/// What is registered in a target group: an instance's id or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Target {
    /// `i-…` or an address.
    pub id: String,
    /// 1 to 65535
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.port)
    }
}

/// `TargetHealth` of DescribeTargetHealth, in AWS's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetHealth {
    /// `initial`, `healthy`, `unhealthy`, `unused`, `draining`, `unavailable` and the like.
    pub state: String,
    /// For example `Target.ResponseCodeMismatch`.
    pub reason: Option<String>,
    /// For people.
    pub description: Option<String>,
}

impl TargetHealth {
    /// What AWS says of a target that has just been registered.
    #[must_use]
    pub fn registering() -> Self {
        Self {
            state: "initial".to_owned(),
            reason: Some("Elb.RegistrationInProgress".to_owned()),
            description: Some("Target registration is in progress".to_owned()),
        }
    }
}

impl Aws {
    /// RegisterTargets, 200 at a time. Registering a target again does nothing.
    ///
    /// # Errors
    /// AWS's; batches before the failing one have taken effect.
    pub async fn register_targets(&self, group: &TargetGroupArn, targets: &[Target]) -> Result<(), AwsError> {
        for batch in targets.chunks(BATCH) {
            let call = self
                .elb
                .register_targets()
                .target_group_arn(group.as_str())
                .set_targets(Some(batch.iter().map(description).collect()));
            self.write("RegisterTargets", || call.clone().send()).await?;
        }
        Ok(())
    }

    /// DeregisterTargets, 200 at a time. Deregistering a target again does nothing.
    ///
    /// # Errors
    /// AWS's; batches before the failing one have taken effect.
    pub async fn deregister_targets(&self, group: &TargetGroupArn, targets: &[Target]) -> Result<(), AwsError> {
        for batch in targets.chunks(BATCH) {
            let call = self
                .elb
                .deregister_targets()
                .target_group_arn(group.as_str())
                .set_targets(Some(batch.iter().map(description).collect()));
            self.write("DeregisterTargets", || call.clone().send()).await?;
        }
        Ok(())
    }

    /// DescribeTargetHealth of all targets of a group, draining ones included.
    ///
    /// # Errors
    /// AWS's.
    pub async fn describe_target_health(
        &self,
        group: &TargetGroupArn,
    ) -> Result<BTreeMap<Target, TargetHealth>, AwsError> {
        let call = self.elb.describe_target_health().target_group_arn(group.as_str());
        let answer = self.read("DescribeTargetHealth", || call.clone().send()).await?;
        Ok(answer.target_health_descriptions().iter().filter_map(health).collect())
    }
}

fn description(target: &Target) -> elb::TargetDescription {
    elb::TargetDescription::builder().id(&target.id).port(i32::from(target.port)).build()
}

/// A target without a port (a Lambda function) is none that could be registered here.
fn health(answer: &elb::TargetHealthDescription) -> Option<(Target, TargetHealth)> {
    let target = answer.target()?;
    let target = Target { id: target.id()?.to_owned(), port: u16::try_from(target.port()?).ok()? };
    let health = answer.target_health();
    let health = TargetHealth {
        state: health.and_then(|h| h.state()).map_or("unknown", elb::TargetHealthStateEnum::as_str).to_owned(),
        reason: health.and_then(|h| h.reason()).map(|r| r.as_str().to_owned()),
        description: health.and_then(|h| h.description()).map(str::to_owned),
    };
    Some((target, health))
}
