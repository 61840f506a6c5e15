//! Services with Network Load Balancers.

use std::time::Duration;

use albatross_fabric::account::TargetType;
use anyhow::Result;

use super::tls::import;
use crate::traffic::client::{Client, Expect, SILENT};
use crate::traffic::manifests::Balanced;
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
