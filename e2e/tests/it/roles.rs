//! A target group in another account, which the controller reaches in a role of that account.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_elasticloadbalancingv2::types::{ProtocolEnum, TargetTypeEnum};
use e2e::lab::aws::Aws;
use e2e::lab::wait_until;
use serde_json::json;

use crate::bindings::{binding, delete, pods};
use crate::support::{QUIET, SOON, Stage, WITH_RETRIES, account_is_empty, apply, deployment, run, service, warning};

const ROLE: &str = "arn:aws:iam::111122223333:role/targets";
const EXTERNAL_ID: &str = "only-the-shop-knows";
const ASSUME: &str = "sts:AssumeRole";

/// A target group of the other account, in a VPC of that account.
async fn foreign_target_group(other: &Aws) -> Result<String> {
    let vpc = other.ec2.create_vpc().cidr_block("10.50.0.0/16").send().await?;
    let vpc = vpc.vpc().and_then(|vpc| vpc.vpc_id()).context("no VPC")?.to_owned();
    let request = other.elb.create_target_group().name("ext-of-another-account").protocol(ProtocolEnum::Http).port(80);
    let made = request.vpc_id(vpc).target_type(TargetTypeEnum::Ip).send().await?;
    let arn = made.target_groups().first().and_then(|group| group.target_group_arn());
    Ok(arn.context("a target group without ARN")?.to_owned())
}

/// The targets of the group that are not on their way out.
async fn targets(other: &Aws, arn: &str) -> Result<BTreeSet<String>> {
    let health = other.elb.describe_target_health().target_group_arn(arn).send().await?;
    let all = health.target_health_descriptions().iter();
    let present = all.filter(|it| {
        it.target_health().and_then(|health| health.state()).is_none_or(|state| state.as_str() != "draining")
    });
    let target = |target: &aws_sdk_elasticloadbalancingv2::types::TargetDescription| {
        format!("{}:{}", target.id().unwrap_or_default(), target.port().unwrap_or_default())
    };
    Ok(present.filter_map(|it| it.target()).map(target).collect())
}

async fn targets_become(other: &Aws, arn: &str, expected: &BTreeSet<String>, within: Duration) -> Result<()> {
    wait_until(within, &format!("the targets to be {expected:?}"), async || {
        let found = targets(other, arn).await?;
        ensure!(found == *expected, "they are {found:?}");
        Ok(true)
    })
    .await
}

#[test]
fn a_role_that_is_refused_heals_by_itself_once_it_is_allowed() {
    run(async {
        let mut stage = Stage::shared().await?;
        let namespace = "other-account";
        let other = stage.aws_in_role(ROLE).await?;
        let arn = foreign_target_group(&other).await?;
        stage.trust_roles(&json!({})).await?;
        stage.cluster.namespace(namespace).await?;
        stage.settle(QUIET, SOON).await?;
        stage.proxy.reset();
        let spec = json!({
            "targetGroupARN": arn, "targetType": "ip", "ipAddressType": "ipv4", "serviceRef": {"name": "web", "port": 80},
            "iamRoleArnToAssume": ROLE, "assumeRoleExternalId": EXTERNAL_ID,
        });
        apply(&stage, namespace, &[service("web"), deployment("web", 2), binding("web", &spec)]).await?;
        let own = pods(&stage, namespace, "web", 2).await?;
        let event = warning(&stage, namespace, "TargetGroupBinding/web", "may not assume").await?;
        let expected = format!(
            "TargetGroupBinding {namespace}/web: no valid AWS credentials for DescribeTargetHealth: the controller may not assume the role {ROLE}: User: arn:aws:iam::123456789012:user/lab is not authorized to perform: sts:AssumeRole on resource: {ROLE} (AccessDenied); let the role's trust policy allow `sts:AssumeRole` to the controller's identity with the external id of spec.assumeRoleExternalId, and allow the controller `sts:AssumeRole` on the role; check the role's name and account, too"
        );
        ensure!(event.reason == "FailedReconcile" && event.message == expected, "the event is {event:?}");
        // Another external id does not help, and STS is not asked in a loop.
        stage.trust_roles(&json!({ROLE: "another"})).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let asked = stage.proxy.counts().actions.get(ASSUME).copied().unwrap_or_default();
        ensure!((1..=6).contains(&asked), "STS was asked {asked} times within ten seconds");
        ensure!(targets(&other, &arn).await?.is_empty(), "targets are registered in a role that is refused");

        stage.trust_roles(&json!({ROLE: EXTERNAL_ID})).await?;
        targets_become(&other, &arn, &own, WITH_RETRIES).await?;
        apply(&stage, namespace, &[deployment("web", 3)]).await?;
        let own = pods(&stage, namespace, "web", 3).await?;
        targets_become(&other, &arn, &own, SOON).await?;
        stage.settle(QUIET, SOON).await?;

        // The binding says all that is to be known of its group. So a restart does not call the other account, and a change does with new credentials.
        stage.stop_controller().await?;
        stage.proxy.reset();
        stage.start_controller(&[]).await?;
        stage.controller.as_mut().context("no controller")?.idle(SOON).await?;
        stage.settle(QUIET, SOON).await?;
        let counts = stage.proxy.counts();
        ensure!(!counts.actions.contains_key(ASSUME) && counts.writes == 0, "the restart made {:?}", counts.actions);
        apply(&stage, namespace, &[deployment("web", 1)]).await?;
        let own = pods(&stage, namespace, "web", 1).await?;
        targets_become(&other, &arn, &own, SOON).await?;

        delete(&stage, namespace, "web").await?;
        targets_become(&other, &arn, &BTreeSet::new(), SOON).await?;
        let log = stage.controller_log(usize::MAX);
        ensure!(!log.contains(EXTERNAL_ID), "the log has the external id");
        other.elb.delete_target_group().target_group_arn(&arn).send().await?;
        wait_until(WITH_RETRIES, "the account to be empty", async || account_is_empty(&stage).await).await?;
        // The next test has an emulator that lets every role be assumed.
        stage.end_lab();
        Ok(())
    });
}
