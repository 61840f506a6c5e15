//! Services with Network Load Balancers.

use std::time::Duration;

use albatross_fabric::account::TargetType;
use anyhow::{Context as _, Result, ensure};
use aws_sdk_ec2::types::{IpPermission, IpRange};
use aws_sdk_elasticloadbalancingv2::types::{IpAddressType, TargetDescription};

use super::tls::import;
use crate::lab::cluster::text;
use crate::traffic::client::{Client, Expect, SILENT, pods};
use crate::traffic::manifests::{App, Balanced};
use crate::traffic::stage::Stage;

const IMPATIENT: Duration = Duration::from_secs(1);

fn service() -> Balanced {
    Balanced::new("direct", "web")
}

pub(super) async fn port_added(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 3)]).await?;
    stage.apply(&[service().port(7000, "TCP").object()]).await?;
    let clients = vec![
        Client::tcp("direct", 7000).then(Expect::Echo),
        Client::tcp("direct", 7001).timeout(IMPATIENT).then(SILENT).then(Expect::Echo),
    ];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[service().port(7000, "TCP").port(7001, "TCP").object()]).await).await
}

pub(super) async fn udp_port_added(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 3)]).await?;
    stage.apply(&[service().port(7000, "UDP").object()]).await?;
    let clients = vec![
        Client::udp("direct", 7000).then(Expect::Echo),
        Client::tcp("direct", 7001).timeout(IMPATIENT).then(SILENT).then(Expect::Echo),
    ];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[service().port(7000, "UDP").port(7001, "TCP").object()]).await).await
}

pub(super) async fn certificate(stage: &Stage) -> Result<()> {
    let host = "direct.example.com";
    let (old, new) = (import(stage, host).await?, import(stage, host).await?);
    stage.apps(&[stage.app("web", 3)]).await?;
    let with = |arn: &str| service().port(7443, "TCP").with("ssl-cert", arn).with("ssl-ports", "7443").object();
    stage.apply(&[with(&old.arn)]).await?;
    // A connection that is open keeps the certificate that it began with.
    let (before, after) = (Expect::Echo.with_certificate(old.der), Expect::Echo.with_certificate(new.der));
    stage.start(vec![Client::tls("direct", 7443, host).each_new().then(before).then(after)]).await?;
    stage.change(async || stage.apply(&[with(&new.arn)]).await).await
}

pub(super) async fn target_type(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 3)]).await?;
    stage.apply(&[service().port(7000, "TCP").object()]).await?;
    stage.start(vec![Client::tcp("direct", 7000).each_new().then(Expect::Echo)]).await?;
    let instances = service().port(7000, "TCP").with("nlb-target-type", "instance");
    stage
        .change_until(
            async || stage.apply(&[instances.object()]).await,
            async || stage.behind()?.all_groups("type instance", |group| group.target_type == TargetType::Instance),
        )
        .await
}

pub(super) async fn scheme(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 3)]).await?;
    stage.apply(&[service().port(7000, "TCP").object()]).await?;
    stage.start(vec![Client::tcp("direct", 7000).each_new().then(Expect::Echo)]).await?;
    let internal = service().port(7000, "TCP").with("scheme", "internal");
    stage
        .change_until(
            async || stage.apply(&[internal.object()]).await,
            async || stage.behind()?.all_balancers("being internal", |balancer| !balancer.public),
        )
        .await
}

/// The Service `direct` with pods of `web`, whose listener forwards to it and to others by these weights.
fn forwarding(own: u32, others: &[(&str, u32)]) -> Balanced {
    let group =
        |(name, weight): &(&str, u32)| format!(r#"{{"serviceName":"{name}","servicePort":80,"weight":{weight}}}"#);
    let groups: Vec<String> = others.iter().map(group).collect();
    let groups = groups.join(",");
    let action =
        format!(r#"{{"type":"forward","forwardConfig":{{"baseServiceWeight":{own},"targetGroups":[{groups}]}}}}"#);
    service().port(7000, "TCP").with_action("TCP-7000", &action)
}

fn client() -> Client {
    // A connection that is open stays where it is.
    Client::http_of_service("direct", 7000).each_new()
}

pub(super) async fn weights(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2), stage.app("green", 2)]).await?;
    let with = |own, green| forwarding(own, &[("green", green)]).object();
    stage.apply(&[with(100, 0)]).await?;
    let client = client().then(pods(&["web"])).then(pods(&["web", "green"])).then(pods(&["green"]));
    stage.start(vec![client]).await?;
    stage.change(async || stage.apply(&[with(50, 50)]).await).await?;
    stage.change(async || stage.apply(&[with(0, 100)]).await).await
}

/// One backend goes, and one comes that was never used before.
pub(super) async fn backend_swapped(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2), stage.app("blue", 2), stage.app("green", 2)]).await?;
    stage.apply(&[forwarding(0, &[("blue", 1)]).object()]).await?;
    stage.start(vec![client().then(pods(&["blue"])).then(pods(&["green"]))]).await?;
    stage.change(async || stage.apply(&[forwarding(0, &[("green", 1)]).object()]).await).await
}

/// Another cluster feeds the target group, and then this one has no pods any more.
pub(super) async fn shared(stage: &Stage) -> Result<()> {
    let app = stage.app("web", 2);
    stage.apps(&[app.clone(), stage.app("green", 2)]).await?;
    stage.apply(&[service().port(7000, "TCP").with("multi-cluster-target-group", "true").object()]).await?;
    let client = client().then(pods(&["web"])).then(pods(&["web", "green"])).then(pods(&["green"]));
    stage.start(vec![client]).await?;
    stage.change(async || register(stage, "green").await).await?;
    stage.change(async || stage.apply(&[App { replicas: 0, ..app }.deployment()]).await).await
}

/// Lets the load balancer reach the pods of an app and registers them behind the scenario, as the controller of another cluster
/// does.
async fn register(stage: &Stage, app: &str) -> Result<()> {
    let from = IpRange::builder().cidr_ip("10.0.0.0/16").description("another cluster's").build();
    let opened = IpPermission::builder().ip_protocol("tcp").from_port(8080).to_port(8080).ip_ranges(from).build();
    let nodes = &stage.lab.world.node_security_group;
    stage.lab.aws.ec2.authorize_security_group_ingress().group_id(nodes).ip_permissions(opened).send().await?;
    let behind = stage.behind()?;
    let arn = behind.groups.keys().next().context("there is no target group")?;
    let pods = stage.pods().await?;
    let of_app = pods.iter().filter(|pod| text(pod, "/metadata/labels/app") == app);
    let target = |pod| TargetDescription::builder().id(text(pod, "/status/podIP")).port(8080).build();
    let targets: Vec<TargetDescription> = of_app.map(target).collect();
    ensure!(!targets.is_empty(), "{app} has no pod");
    stage.lab.aws.elb.register_targets().target_group_arn(arn).set_targets(Some(targets)).send().await?;
    Ok(())
}

pub(super) async fn dualstack(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 3)]).await?;
    let with = |kind: &str| service().port(7000, "TCP").with("ip-address-type", kind).object();
    stage.apply(&[with("ipv4")]).await?;
    stage.start(vec![Client::tcp("direct", 7000).each_new().then(Expect::Echo)]).await?;
    for kind in [IpAddressType::Dualstack, IpAddressType::Ipv4] {
        let is_so = async || {
            let arns = stage.behind()?.balancers.into_keys().collect();
            let found = stage.lab.aws.elb.describe_load_balancers().set_load_balancer_arns(Some(arns)).send().await?;
            Ok(found.load_balancers().iter().all(|balancer| balancer.ip_address_type() == Some(&kind)))
        };
        stage.change_until(async || stage.apply(&[with(kind.as_str())]).await, is_so).await?;
    }
    Ok(())
}
