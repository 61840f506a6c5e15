//! Targets of target groups: registering, deregistering, health.

use std::collections::BTreeMap;

use aws_sdk_elasticloadbalancingv2::types as elb;

use super::{AwsError, AwsReader, AwsWriter};
pub(crate) use albatross_core::{
    api::crd::target_group_binding::IpAddressType,
    model::{HealthState, Registration, Target, TargetGroupArn, TargetHealth, VpcId},
    targets::{TargetGroupFacts, TargetGroupKey},
};

/// The most targets of one call of RegisterTargets or DeregisterTargets.
const BATCH: usize = 200;

impl AwsWriter {
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
}

impl AwsReader {
    /// DescribeTargetGroups of one group; `None` when there is none.
    ///
    /// # Errors
    /// AWS's.
    pub async fn describe_target_group(&self, key: &TargetGroupKey) -> Result<Option<TargetGroupFacts>, AwsError> {
        let call = self.elb.describe_target_groups();
        let call = match key {
            TargetGroupKey::Arn(arn) => call.target_group_arns(arn.as_str()),
            TargetGroupKey::Name(name) => call.names(name),
        };
        let answer = match self.read("DescribeTargetGroups", || call.clone().send()).await {
            Err(error) if error.is_not_found() => return Ok(None),
            answer => answer?,
        };
        Ok(answer.target_groups().first().and_then(|group| {
            Some(TargetGroupFacts {
                arn: TargetGroupArn::new(group.target_group_arn()?),
                target_type: group.target_type().map(|word| word.as_str().to_owned()).unwrap_or_default(),
                ip_address_type: match group.ip_address_type().map(|word| word.as_str()) {
                    Some("ipv6") => IpAddressType::Ipv6,
                    _ => IpAddressType::Ipv4,
                },
                vpc: group.vpc_id().map(VpcId::new),
                protocol: group.protocol().map(|word| word.as_str().to_owned()),
            })
        }))
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

fn description(Registration { target, zone, quic_server_id }: &Registration) -> elb::TargetDescription {
    let named = elb::TargetDescription::builder().id(&target.id).port(i32::from(target.port));
    let server_id = quic_server_id.map(|id| id.to_string());
    named.set_availability_zone(zone.clone()).set_quic_server_id(server_id).build()
}

/// A target without a port (a Lambda function) is none that could be registered here.
fn health(answer: &elb::TargetHealthDescription) -> Option<(Target, TargetHealth)> {
    let target_description = answer.target()?;
    let target =
        Target { id: target_description.id()?.to_owned(), port: u16::try_from(target_description.port()?).ok()? };
    let health = answer.target_health();
    let health = TargetHealth {
        state: health.and_then(|h| h.state()).map_or(HealthState::Unknown, |state| state.as_str().into()),
        reason: health.and_then(|h| h.reason()).map(|r| r.as_str().to_owned()),
        description: health.and_then(|h| h.description()).map(str::to_owned),
        zone: target_description.availability_zone().filter(|zone| !zone.is_empty()).map(str::to_owned),
        quic_server_id: target_description.quic_server_id().and_then(|id| id.parse().ok()),
    };
    Some((target, health))
}
