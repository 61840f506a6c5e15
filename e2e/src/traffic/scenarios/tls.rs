//! Listeners and certificates of an Ingress.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_acm::primitives::Blob;
use hyper::body::Bytes;
use rcgen::{CertificateParams, KeyPair};

use crate::traffic::client::{Client, NEW, NOT_FOUND, OLD, SILENT, pods};
use crate::traffic::manifests::Ingress;
use crate::traffic::stage::Stage;

/// A certificate in ACM.
pub(super) struct Imported {
    pub(super) arn: String,
    pub(super) der: Bytes,
}

/// Imports a certificate for a host into ACM.
pub(super) async fn import(stage: &Stage, host: &str) -> Result<Imported> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([host.to_owned()])?.self_signed(&key)?;
    let request = stage.lab.aws.acm.import_certificate().certificate(Blob::new(certificate.pem()));
    let made = request.private_key(Blob::new(key.serialize_pem())).send().await?;
    let arn = made.certificate_arn().context("an imported certificate without ARN")?.to_owned();
    Ok(Imported { arn, der: Bytes::copy_from_slice(certificate.der()) })
}

fn secure(certificate: &Imported) -> Ingress {
    let ports = r#"[{"HTTPS": 443}]"#;
    Ingress::new("shop").with("listen-ports", ports).with("certificate-arn", &certificate.arn).path("/", "web")
}

pub(super) async fn certificate_rotated(stage: &Stage) -> Result<()> {
    let host = "rotated.example.com";
    let (old, new) = (import(stage, host).await?, import(stage, host).await?);
    stage.apps(&[stage.app("web", 2)]).await?;
    stage.apply(&[secure(&old).object()]).await?;
    let web = pods(&["web"]);
    let (before, after) = (web.clone().with_certificate(old.der.clone()), web.with_certificate(new.der.clone()));
    // A connection that is open keeps the certificate that it began with, and is to be kept.
    let clients = vec![
        Client::https("shop", host, "/").each_new().then(before).then(after),
        Client::https("shop", host, "/").http2().then(pods(&["web"])),
    ];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[secure(&new).object()]).await).await
}

pub(super) async fn discovered(stage: &Stage) -> Result<()> {
    let (first, second) = ("first.example.com", "second.example.com");
    let (of_first, of_second) = (import(stage, first).await?, import(stage, second).await?);
    stage.apps(&[stage.app("web", 2)]).await?;
    let ingress = Ingress::new("shop").with("listen-ports", r#"[{"HTTPS": 443}]"#).host(first, "web").tls(first);
    stage.apply(&[ingress.object()]).await?;
    let client = |host: &str| Client::https("shop", host, "/").each_new();
    let clients = vec![
        client(first).then(pods(&["web"]).with_certificate(of_first.der)),
        client(second).then(NOT_FOUND).then(pods(&["web"]).with_certificate(of_second.der)),
    ];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[ingress.host(second, "web").tls(second).object()]).await).await
}

pub(super) async fn https_with_redirect(stage: &Stage) -> Result<()> {
    let certificate = import(stage, "shop.example.com").await?;
    stage.apps(&[stage.app("web", 2)]).await?;
    let plain = Ingress::new("shop").path("/", "web");
    stage.apply(&[plain.object()]).await?;
    let client = Client::http("shop", "/").host("shop.example.com").following();
    stage.start(vec![client.then(pods(&["web"])).then(pods(&["web"]).secure())]).await?;
    let secure = plain
        .with("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#)
        .with("ssl-redirect", "443")
        .with("certificate-arn", &certificate.arn);
    stage.change(async || stage.apply(&[secure.object()]).await).await
}

pub(super) async fn port_moved(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2)]).await?;
    let at = |port: u16| {
        Ingress::new("shop").with("listen-ports", &format!(r#"[{{"HTTP": {port}}}]"#)).path("/", "web").object()
    };
    stage.apply(&[at(8080)]).await?;
    // A port that the security group no longer lets in, or not yet, does not answer at all.
    let impatient = Duration::from_secs(1);
    let client = |port| Client::http("shop", "/").port(port).timeout(impatient);
    let clients = vec![client(8080).then(pods(&["web"])).then(SILENT), client(8081).then(SILENT).then(pods(&["web"]))];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[at(8081)]).await).await?;
    let reports = stage.reports();
    let labels = |place: usize| reports.get(place).map(|report| &report.labels).context("no such client");
    let closed = labels(0)?.get(NEW).context("the old port still answers")?.first;
    let opened = labels(1)?.get(OLD).map(|seen| seen.last).unwrap_or_default();
    // Who goes from the old port to the new one is to be answered.
    ensure!(
        opened <= closed,
        "the old port closed at {closed:.1?}, and the new one was not open everywhere until {opened:.1?}"
    );
    Ok(())
}
