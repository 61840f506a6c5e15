//! Listeners and certificates of an Ingress.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_acm::primitives::Blob;
use hyper::body::Bytes;
use rcgen::{CertificateParams, KeyPair};

use crate::traffic::client::{Client, Expect, NEW, NOT_FOUND, OLD, SILENT, pods};
use crate::traffic::manifests::Ingress;
use crate::traffic::stage::Stage;

/// A port that the security group does not let in, or not yet, does not answer at all.
const IMPATIENT: Duration = Duration::from_secs(1);

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

/// An Ingress with an HTTPS listener.
pub(super) fn secure(certificate: &Imported) -> Ingress {
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
    // The lab has a certificate for all of example.com, which would do for both.
    let (first, second) = ("first.traffic.example", "second.traffic.example");
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
    let (host, web) = ("shop.example.com", || pods(&["web"]));
    let http = || Client::http("shop", "/").host(host);
    let clients = vec![
        http().then(web()).then(Expect::Redirect(301, "https://shop.example.com")),
        // Who is redirected is to be answered where the redirect leads.
        http().following().then(web()).then(web().secure()),
        Client::https("shop", host, "/").timeout(IMPATIENT).then(SILENT).then(web()),
    ];
    stage.start(clients).await?;
    let secure = plain
        .with("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#)
        .with("ssl-redirect", "443")
        .with("certificate-arn", &certificate.arn);
    stage.change(async || stage.apply(&[secure.object()]).await).await?;
    opens_before_it_is_needed(stage, "HTTPS", 2, "HTTP was redirected", 0)
}

pub(super) async fn port_moved(stage: &Stage) -> Result<()> {
    stage.apps(&[stage.app("web", 2)]).await?;
    let at = |port: u16| {
        Ingress::new("shop").with("listen-ports", &format!(r#"[{{"HTTP": {port}}}]"#)).path("/", "web").object()
    };
    stage.apply(&[at(8080)]).await?;
    let client = |port| Client::http("shop", "/").port(port).timeout(IMPATIENT);
    let clients = vec![client(8080).then(pods(&["web"])).then(SILENT), client(8081).then(SILENT).then(pods(&["web"]))];
    stage.start(clients).await?;
    stage.change(async || stage.apply(&[at(8081)]).await).await?;
    opens_before_it_is_needed(stage, "the new port", 1, "the old port was closed", 0)
}

/// Fails unless one client was answered everywhere before another one got its first new answer.
fn opens_before_it_is_needed(stage: &Stage, what: &str, opens: usize, needed: &str, needs: usize) -> Result<()> {
    let reports = stage.reports();
    let labels = |place: usize| reports.get(place).map(|report| &report.labels).context("no such client");
    // By when they were sent: one that is not answered ends only when its client has no more patience.
    let need = labels(needs)?.get(NEW).with_context(|| format!("it is not so that {needed}"))?.first_sent;
    let open = labels(opens)?.get(OLD).map(|seen| seen.last_sent).unwrap_or_default();
    ensure!(
        open <= need,
        "{needed} for who asked at {need:.2?}, and {what} was not open everywhere to who asked until {open:.2?}"
    );
    Ok(())
}
