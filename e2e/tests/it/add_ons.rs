//! Web ACLs of AWS WAF, protections of Shield Advanced and reserved capacity.

use anyhow::{Context as _, Result, ensure};
use e2e::lab::proxy::{Calls, Faults, is_read};
use e2e::lab::{Lab, wait_until};
use serde_json::Value;

use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, apply, finish, ingress, run, served, service, stack_of, warning,
};

const ARN: &str = "alb.ingress.kubernetes.io/wafv2-acl-arn";
const NAME: &str = "alb.ingress.kubernetes.io/wafv2-acl-name";
const SHIELD: &str = "alb.ingress.kubernetes.io/shield-advanced-protection";
const CAPACITY: &str = "alb.ingress.kubernetes.io/minimum-load-balancer-capacity";

/// Returns the web ACL of an Ingress's load balancer, as dumps name it, and the name of its protection.
async fn add_ons(lab: &Lab, namespace: &str, ingress: &str) -> Result<(Value, Value)> {
    let stack = stack_of(lab, namespace, ingress).await?;
    let balancers = stack["loadBalancers"].as_object().context("no load balancer")?;
    let balancer = balancers.values().next().context("no load balancer")?;
    Ok((balancer["webAcl"].clone(), balancer["shieldProtection"].clone()))
}

/// Returns the calls of the two services so far.
fn calls(lab: &Lab) -> Vec<String> {
    let actions = lab.proxy.counts().actions;
    let of_add_ons = |action: &&String| action.starts_with("wafv2:") || action.starts_with("shield:");
    actions.keys().filter(of_add_ons).cloned().collect()
}

#[test]
fn denied_add_ons_are_told_harm_nothing_else_and_heal() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "add-ons-denied";
        stage.cluster.namespace(namespace).await?;
        stage.proxy.reset();
        apply(&stage, namespace, &[service("web"), ingress("plain", &[], &["web"])]).await?;
        served(&stage, namespace, "plain").await?;
        ensure!(calls(&stage).is_empty(), "nobody asked for it: {:?}", calls(&stage));

        let deny = Calls::that(|name| name.starts_with("wafv2:") || name.starts_with("shield:"));
        stage.proxy.set_faults(Faults { deny: Some(deny), ..Faults::default() });
        let edge = stage.world.web_acls.get("edge").context("no web ACL")?;
        let by_arn = ingress("by-arn", &[(ARN, edge)], &["web"]);
        let by_name = ingress("by-name", &[(NAME, "strict"), (SHIELD, "true")], &["web"]);
        apply(&stage, namespace, &[by_arn, by_name]).await?;
        for (object, action) in [
            ("Ingress/by-arn", "wafv2:AssociateWebACL"),
            ("Ingress/by-name", "wafv2:ListWebACLs"),
            ("Ingress/by-name", "shield:GetSubscriptionState"),
        ] {
            warning(&stage, namespace, object, action).await?;
        }
        served(&stage, namespace, "by-arn").await?;
        served(&stage, namespace, "by-name").await?;
        let events = stage.cluster.events(namespace).await?;
        let harmed = events.iter().find(|event| event.type_ == "Warning" && event.object == "Ingress/plain");
        ensure!(harmed.is_none(), "another Ingress has a warning: {harmed:?}");

        stage.proxy.set_faults(Faults::default());
        for (name, expected) in [
            ("by-arn", ("acl:edge", None)),
            ("by-name", ("acl:strict", Some("managed by aws-load-balancer-controller"))),
        ] {
            wait_until(WITH_RETRIES, "the add-ons to be there", async || {
                let (web_acl, protection) = add_ons(&stage, namespace, name).await?;
                let found = (web_acl.as_str().unwrap_or_default(), protection.as_str());
                ensure!(found == expected, "{name} has {found:?}");
                Ok(true)
            })
            .await?;
        }
        finish(stage, namespace).await
    });
}

#[test]
fn a_restart_with_add_ons_reads_and_writes_none_of_them() {
    run(async {
        let mut stage = Stage::shared().await?;
        let namespace = "add-ons-restart";
        stage.cluster.namespace(namespace).await?;
        let edge = stage.world.web_acls.get("edge").context("no web ACL")?;
        let web = ingress("web", &[(ARN, edge), (SHIELD, "true")], &["web"]);
        apply(&stage, namespace, &[service("web"), web]).await?;
        served(&stage, namespace, "web").await?;
        stage.settle(QUIET, SOON).await?;
        stage.stop_controller().await?;
        stage.proxy.reset();
        stage.start_controller(&[]).await?;
        stage.controller.as_mut().context("no controller")?.idle(SOON).await?;
        stage.settle(QUIET, SOON).await?;
        let actions = stage.proxy.counts().actions;
        let writes: Vec<_> = actions.keys().filter(|action| !is_read(action)).collect();
        ensure!(writes.is_empty(), "a restart writes {writes:?}");
        // The subscription is part of no record.
        let expected = ["shield:GetSubscriptionState".to_owned()];
        ensure!(calls(&stage) == expected, "a restart asks {:?}", calls(&stage));
        finish(stage, namespace).await
    });
}

/// Returns the calls about reserved capacity so far.
fn calls_of_capacity(lab: &Lab) -> Vec<String> {
    let actions = lab.proxy.counts().actions;
    actions.keys().filter(|action| action.ends_with("CapacityReservation")).cloned().collect()
}

async fn reserves(lab: &Lab, namespace: &str, expected: Option<i64>) -> Result<()> {
    wait_until(WITH_RETRIES, "the capacity to be reserved", async || {
        let stack = stack_of(lab, namespace, "web").await?;
        let balancers = stack["loadBalancers"].as_object().context("no load balancer")?;
        let units = balancers.values().next().and_then(|balancer| balancer["capacityUnits"].as_i64());
        ensure!(units == expected, "reserved are {units:?}");
        Ok(true)
    })
    .await
}

#[test]
fn capacity_is_reserved_where_it_is_requested_and_its_denial_harms_nothing_else() {
    run(async {
        let mut stage = Stage::shared().await?;
        let namespace = "capacity";
        stage.cluster.namespace(namespace).await?;
        stage.proxy.reset();
        apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        stage.settle(QUIET, SOON).await?;
        ensure!(calls_of_capacity(&stage).is_empty(), "nobody asked for it");

        let deny = Calls::that(|name| name == "elasticloadbalancing:ModifyCapacityReservation");
        stage.proxy.set_faults(Faults { deny: Some(deny), ..Faults::default() });
        let asking = |units: &str| ingress("web", &[(CAPACITY, &format!("CapacityUnits={units}"))], &["web", "web"]);
        apply(&stage, namespace, &[asking("1000")]).await?;
        warning(&stage, namespace, "Ingress/web", "elasticloadbalancing:ModifyCapacityReservation").await?;
        served(&stage, namespace, "web").await?;
        stage.proxy.set_faults(Faults::default());
        reserves(&stage, namespace, Some(1000)).await?;
        apply(&stage, namespace, &[asking("2000")]).await?;
        reserves(&stage, namespace, Some(2000)).await?;
        stage.settle(QUIET, SOON).await?;

        stage.stop_controller().await?;
        stage.proxy.reset();
        stage.start_controller(&[]).await?;
        stage.controller.as_mut().context("no controller")?.idle(SOON).await?;
        stage.settle(QUIET, SOON).await?;
        ensure!(calls_of_capacity(&stage).is_empty(), "a restart asks {:?}", calls_of_capacity(&stage));
        apply(&stage, namespace, &[asking("0")]).await?;
        reserves(&stage, namespace, None).await?;
        finish(stage, namespace).await
    });
}
