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

/// The `AvailabilityZone` of RegisterTargets for an address that every enabled zone of the load balancer reaches.
pub const EVERY_ZONE: &str = "all";

/// A target as RegisterTargets and DeregisterTargets name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registration {
    /// Instance or address, and port.
    pub target: Target,
    /// `AvailabilityZone`: needed for an address outside of the target group's VPC, [`EVERY_ZONE`] or a zone's name.
    pub zone: Option<String>,
}

impl From<Target> for Registration {
    fn from(target: Target) -> Self {
        Self { target, zone: None }
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)?;
        self.zone.as_ref().map_or(Ok(()), |zone| write!(f, " in {zone}"))
    }
}

/// `TargetHealth` of DescribeTargetHealth, in AWS's words, and the zone of its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetHealth {
    /// `initial`, `healthy`, `unhealthy`, `unused`, `draining`, `unavailable` and the like.
    pub state: String,
    /// For example `Target.ResponseCodeMismatch`.
    pub reason: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// `Target.AvailabilityZone`, as it was registered.
    pub zone: Option<String>,
}

impl TargetHealth {
    /// What AWS says of a target that has just been registered.
    #[must_use]
    pub fn registering() -> Self {
        Self {
            state: "initial".to_owned(),
            reason: Some("Elb.RegistrationInProgress".to_owned()),
            description: Some("Target registration is in progress".to_owned()),
            zone: None,
        }
    }
}

impl Aws {
    /// RegisterTargets, 200 at a time. Registering a target again does nothing.
    ///
    /// # Errors
    /// AWS's; batches before the failing one have taken effect.
    pub async fn register_targets(&self, group: &TargetGroupArn, targets: &[Registration]) -> Result<(), AwsError> {
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
    pub async fn deregister_targets(&self, group: &TargetGroupArn, targets: &[Registration]) -> Result<(), AwsError> {
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

fn description(Registration { target, zone }: &Registration) -> elb::TargetDescription {
    let named = elb::TargetDescription::builder().id(&target.id).port(i32::from(target.port));
    named.set_availability_zone(zone.clone()).build()
}

/// A target without a port (a Lambda function) is none that could be registered here.
fn health(answer: &elb::TargetHealthDescription) -> Option<(Target, TargetHealth)> {
    let told = answer.target()?;
    let target = Target { id: told.id()?.to_owned(), port: u16::try_from(told.port()?).ok()? };
    let health = answer.target_health();
    let health = TargetHealth {
        state: health.and_then(|h| h.state()).map_or("unknown", elb::TargetHealthStateEnum::as_str).to_owned(),
        reason: health.and_then(|h| h.reason()).map(|r| r.as_str().to_owned()),
        description: health.and_then(|h| h.description()).map(str::to_owned),
        zone: told.availability_zone().filter(|zone| !zone.is_empty()).map(str::to_owned),
    };
    Some((target, health))
}
