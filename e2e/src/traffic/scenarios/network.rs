//! Security groups, subnets and schemes of an Ingress, and the parameters of its class.

use std::collections::BTreeSet;
use std::time::Duration;

use albatross_fabric::account::{TargetGroup, TargetType};
use anyhow::{Context as _, Result};
use serde_json::json;

use crate::lab::proxy::{Calls, Faults};
use crate::traffic::client::{Client, SHUT_OUT, pods};
use crate::traffic::manifests::Ingress;
use crate::traffic::stage::Stage;

/// The security group of the user that the lab has.
const OWN: &str = "my-sg-1";

/// Lets something in through a security group.
const AUTHORIZE: &str = "ec2:AuthorizeSecurityGroupIngress";
/// For how many seconds nothing is let in.
const BLOCKED: u64 = 20;

/// Makes AWS fail to let anything in through security groups.
pub(super) fn blocked(stage: &Stage) {
    let only = Some(Calls::named(AUTHORIZE));
    stage.lab.proxy.set_faults(Faults { error_rate: 1.0, only, ..Faults::default() });
}

/// Ends [`blocked`] after its time.
pub(super) async fn unblocked_after(stage: &Stage) {
    tokio::time::sleep(stage.settings.scaled(BLOCKED)).await;
    stage.lab.proxy.set_faults(Faults::default());
}

fn ingress() -> Ingress {
    Ingress::new("shop").path("/", "web")
}

pub(super) async fn security_groups(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2)]).await?;
    let own = stage.lab.world.security_groups.get(OWN).context("the lab has no such security group")?;
    let permit = stage.lab.aws.ec2.authorize_security_group_ingress().group_id(own);
    let permitted = permit.ip_protocol("tcp").from_port(80).to_port(80).cidr_ip("0.0.0.0/0").send().await;
    if let Err(error) = permitted {
        // An earlier run in this lab may have done it.
        let error = error.into_service_error();
        let is_there = error.meta().code() == Some("InvalidPermission.Duplicate");
        is_there.then_some(()).with_context(|| format!("{OWN} does not let everyone in: {error}"))?;
    }
    stage.apply(&[ingress().object()]).await?;
    stage.start(vec![Client::http("shop", "/").then(pods(&["web"]))]).await?;
    let with_own = ingress().with("security-groups", own).with("manage-backend-security-group-rules", "true");
    let has_own =
        |has: bool| stage.behind()?.all_balancers("the security groups", |it| it.security_groups.contains(own) == has);
    stage.change_until(async || stage.apply(&[with_own.object()]).await, async || has_own(true)).await?;
    stage.change_until(async || stage.apply(&[ingress().object()]).await, async || has_own(false)).await
}

pub(super) async fn inbound_cidrs(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2)]).await?;
    stage.apply(&[ingress().with("inbound-cidrs", "198.18.0.0/16").object()]).await?;
    let web = || pods(&["web"]);
    let other = Client::http("shop", "/").from(2).timeout(Duration::from_secs(1)).kept_for(Duration::from_secs(1));
    let clients = vec![Client::http("shop", "/").from(1).then(web()), other.then(web()).then(SHUT_OUT)];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[ingress().with("inbound-cidrs", "198.18.1.0/24").object()]).await).await
}

pub(super) async fn subnets(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 3)]).await?;
    stage.apply(&[ingress().with("subnets", "public-a,public-b").object()]).await?;
    // A client that keeps a connection to a node that goes is told to close it, or finds it closed.
    stage.start(vec![Client::http("shop", "/").then(pods(&["web"]))]).await?;
    let ids = ["public-b", "public-c"].map(|name| stage.lab.world.subnets.get(name).cloned());
    let ids: BTreeSet<String> = ids.into_iter().flatten().collect();
    let moved = ingress().with("subnets", "public-b,public-c");
    stage
        .change_until(
            async || stage.apply(&[moved.object()]).await,
            async || stage.behind()?.all_balancers("the new subnets", |balancer| balancer.subnets == ids),
        )
        .await
}

pub(super) async fn scheme(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2)]).await?;
    stage.apply(&[ingress().object()]).await?;
    let client = Client::http("shop", "/").kept_for(stage.settings.dns_ttl);
    stage.start(vec![client.then(pods(&["web"]))]).await?;
    let internal = ingress().with("scheme", "internal");
    stage
        .change_until(
            async || stage.apply(&[internal.object()]).await,
            async || stage.behind()?.all_balancers("being internal", |balancer| !balancer.public),
        )
        .await
}

/// An Ingress with a Network Load Balancer in front.
fn with_front() -> Ingress {
    ingress().with("enable-frontend-nlb", "true").with("frontend-nlb-healthcheck-interval-seconds", "10")
}

/// The load balancer behind is replaced; clients of the one in front notice nothing.
pub(super) async fn scheme_behind(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2)]).await?;
    stage.apply(&[with_front().object()]).await?;
    stage.start(vec![Client::http_in_front("shop", "/").each_new().then(pods(&["web"]))]).await?;
    let internal = with_front().with("scheme", "internal");
    stage
        .change_until(
            async || stage.apply(&[internal.object()]).await,
            async || stage.behind()?.all_balancers("being internal", |balancer| !balancer.public),
        )
        .await
}

pub(super) async fn scheme_in_front(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2)]).await?;
    stage.apply(&[with_front().object()]).await?;
    let client = Client::http_in_front("shop", "/").kept_for(stage.settings.dns_ttl);
    stage.start(vec![client.then(pods(&["web"]))]).await?;
    let public = with_front().with("frontend-nlb-scheme", "internet-facing");
    stage
        .change_until(
            async || stage.apply(&[public.object()]).await,
            async || stage.behind()?.all_balancers("being public", |balancer| balancer.public),
        )
        .await
}

/// The listener in front leads to another port behind, by another target group.
pub(super) async fn port_behind(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2)]).await?;
    let with = |mapping: &str| {
        let ports = r#"[{"HTTP":80},{"HTTP":8080}]"#;
        with_front().with("listen-ports", ports).with("frontend-nlb-listener-port-mapping", mapping).object()
    };
    stage.apply(&[with("80=80")]).await?;
    stage.start(vec![Client::http_in_front("shop", "/").each_new().then(pods(&["web"]))]).await?;
    let is_led_to = |group: &TargetGroup| {
        group.target_type != TargetType::Alb || group.targets.iter().all(|target| target.port == 8080)
    };
    stage
        .change_until(
            async || stage.apply(&[with("80=8080")]).await,
            async || stage.behind()?.all_groups("leading to port 8080", is_led_to),
        )
        .await
}

pub(super) async fn class_params(stage: &Stage) -> Result<()> {
    let name = &stage.namespace;
    let params = |kind: &str| {
        json!({
            "apiVersion": "elbv2.k8s.aws/v1beta1",
            "kind": "IngressClassParams",
            "metadata": {"name": name},
            "spec": {"targetType": kind},
        })
    };
    let class = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": name},
        "spec": {
            "controller": "ingress.k8s.aws/alb",
            "parameters": {"apiGroup": "elbv2.k8s.aws", "kind": "IngressClassParams", "name": name},
        },
    });
    stage.apps(&[stage.app("web", 3)]).await?;
    let ingress = ingress().without("target-type").class(name);
    stage.apply(&[params("ip"), class, ingress.object()]).await?;
    stage.start(vec![Client::http("shop", "/").then(pods(&["web"]))]).await?;
    stage
        .change_until(
            async || stage.apply(&[params("instance")]).await,
            async || stage.behind()?.all_groups("type instance", |group| group.target_type == TargetType::Instance),
        )
        .await
}
