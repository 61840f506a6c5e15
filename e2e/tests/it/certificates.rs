//! Certificates that ACM is asked for, and certificates that appear in ACM.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_acm::primitives::Blob;
use aws_sdk_route53::types::RrType;
use e2e::lab::proxy::{Calls, Faults, is_read};
use e2e::lab::{Lab, wait_until};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::support::{QUIET, SOON, Stage, WITH_RETRIES, apply, finish, gone, ingress, run, served, service, warning};

const GATE: &str = "--feature-gates=EnableCertificateManagement=true";
const REQUEST: &str = "alb.ingress.kubernetes.io/create-acm-cert";
const PORTS: &str = "alb.ingress.kubernetes.io/listen-ports";
const BOTH: &str = r#"[{"HTTP": 80}, {"HTTPS": 443}]"#;

/// An Ingress that has a certificate issued for a host of its own.
fn requesting(name: &str, host: &str) -> Value {
    let mut object = ingress(name, &[(REQUEST, "true"), (PORTS, BOTH)], &["web"]);
    object["spec"]["rules"][0]["host"] = host.into();
    object
}

/// The certificates that were requested for the Ingress: names by ARN.
async fn requested(lab: &Lab, namespace: &str, ingress: &str) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut found = BTreeMap::new();
    let mut listed = lab.aws.acm.list_certificates().into_paginator().items().send();
    while let Some(summary) = listed.next().await {
        let summary = summary?;
        let arn = summary.certificate_arn().context("no ARN")?;
        let tags = lab.aws.acm.list_tags_for_certificate().certificate_arn(arn).send().await?;
        let stack = tags.tags().iter().find(|tag| tag.key() == "ingress.k8s.aws/stack").and_then(|tag| tag.value());
        if stack == Some(&format!("{namespace}/{ingress}")) {
            let shown = lab.aws.acm.describe_certificate().certificate_arn(arn).send().await?;
            let names = shown.certificate().map(|it| it.subject_alternative_names().iter().cloned().collect());
            found.insert(arn.to_owned(), names.unwrap_or_default());
        }
    }
    Ok(found)
}

/// The certificates on the listener on port 443 of the Ingress's load balancer; `None` without that listener.
async fn on_443(lab: &Lab, namespace: &str, ingress: &str) -> Result<Option<BTreeSet<String>>> {
    let object = lab.cluster.get("networking.k8s.io/v1", "Ingress", Some(namespace), ingress).await?;
    let object = object.context("no Ingress")?;
    let host = object.pointer("/status/loadBalancer/ingress/0/hostname").and_then(Value::as_str).unwrap_or_default();
    let balancers = lab.aws.elb.describe_load_balancers().send().await?;
    let mut all = balancers.load_balancers().iter();
    let balancer = all.find(|it| it.dns_name().is_some_and(|name| name.eq_ignore_ascii_case(host)));
    let arn = balancer.and_then(|it| it.load_balancer_arn()).context("no load balancer")?;
    let listeners = lab.aws.elb.describe_listeners().load_balancer_arn(arn).send().await?;
    let Some(listener) = listeners.listeners().iter().find(|listener| listener.port() == Some(443)) else {
        return Ok(None);
    };
    let listener = listener.listener_arn().context("no listener")?;
    let shown = lab.aws.elb.describe_listener_certificates().listener_arn(listener).send().await?;
    Ok(Some(shown.certificates().iter().filter_map(|it| it.certificate_arn()).map(str::to_owned).collect()))
}

/// The names of the CNAMEs for a host.
async fn records(lab: &Lab, host: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for zone in lab.aws.route53.list_hosted_zones().send().await?.hosted_zones() {
        let records = lab.aws.route53.list_resource_record_sets().hosted_zone_id(zone.id()).send().await?;
        let names = records.resource_record_sets().iter().filter(|record| *record.r#type() == RrType::Cname);
        found.extend(names.map(|record| record.name().to_owned()).filter(|name| name.ends_with(&format!(".{host}."))));
    }
    Ok(found)
}

/// Waits until the listener has just one certificate, which was requested for the Ingress with these names.
async fn serves(lab: &Lab, namespace: &str, ingress: &str, hosts: &[&str]) -> Result<String> {
    let mut arn = String::new();
    wait_until(WITH_RETRIES, &format!("{ingress} to serve its certificate"), async || {
        let all = requested(lab, namespace, ingress).await?;
        let hosts: BTreeSet<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        ensure!(all.len() == 1 && all.values().all(|names| *names == hosts), "ACM has {all:?}");
        let on_listener = on_443(lab, namespace, ingress).await?;
        ensure!(on_listener.as_ref() == Some(&all.keys().cloned().collect()), "the listener has {on_listener:?}");
        arn = all.into_keys().next().unwrap_or_default();
        Ok(true)
    })
    .await?;
    Ok(arn)
}

#[test]
fn a_certificate_lives_as_its_ingress_asks() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        stage.start_controller(&[GATE]).await?;
        let namespace = "certificates-life";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), requesting("web", "life.example.com")]).await?;
        served(&stage, namespace, "web").await?;
        let first = serves(&stage, namespace, "web", &["life.example.com"]).await?;
        ensure!(records(&stage, "life.example.com").await?.len() == 1, "no record");

        // At every moment the listener has the first or the second.
        let mut changed = requesting("web", "life.example.com");
        changed["spec"]["tls"] = json!([{"hosts": ["other.example.org"]}]);
        apply(&stage, namespace, &[changed]).await?;
        wait_until(WITH_RETRIES, "the other certificate to be there", async || {
            let on_listener = on_443(&stage, namespace, "web").await?.context("the listener went")?;
            ensure!(!on_listener.is_empty(), "the listener has no certificate");
            Ok(!on_listener.contains(&first))
        })
        .await?;
        let second = serves(&stage, namespace, "web", &["life.example.com", "other.example.org"]).await?;
        ensure!(first != second, "it is the same certificate");
        // The record of the host that stayed is needed for the renewal.
        ensure!(records(&stage, "life.example.com").await?.len() == 1, "the record of a host in use is gone");
        ensure!(records(&stage, "other.example.org").await?.len() == 1, "no record");

        // Without the annotation, the certificate for the lab's domain is found.
        let mut plain = ingress("web", &[(PORTS, BOTH)], &["web"]);
        plain["spec"]["rules"][0]["host"] = "life.example.com".into();
        apply(&stage, namespace, &[plain]).await?;
        let found = stage.world.certificates.get("*.example.com").context("no certificate")?.clone();
        wait_until(WITH_RETRIES, "what was requested to be gone", async || {
            let on_listener = on_443(&stage, namespace, "web").await?;
            ensure!(on_listener == Some([found.clone()].into()), "the listener has {on_listener:?}");
            let left = (requested(&stage, namespace, "web").await?, records(&stage, "life.example.com").await?);
            ensure!(left.0.is_empty() && left.1.is_empty(), "there is {left:?}");
            Ok(records(&stage, "other.example.org").await?.is_empty())
        })
        .await?;

        // ACM knows the first request, which was the same, for an hour.
        apply(&stage, namespace, &[requesting("web", "life.example.com")]).await?;
        let third = serves(&stage, namespace, "web", &["life.example.com"]).await?;
        ensure!(third != first && third != second, "it is a certificate that was deleted");
        finish(stage, namespace).await
    });
}

#[test]
fn a_takeover_and_a_restart_write_nothing() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        stage.start_controller(&[GATE]).await?;
        let namespace = "certificates-takeover";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), requesting("web", "takeover.example.com")]).await?;
        served(&stage, namespace, "web").await?;
        let arn = serves(&stage, namespace, "web", &["takeover.example.com"]).await?;
        stage.settle(QUIET, SOON).await?;
        for takeover in [false, true] {
            stage.stop_controller().await?;
            if takeover {
                // What is left is what aws-load-balancer-controller leaves: tags, and no records.
                for map in stage.cluster.list("v1", "ConfigMap", None).await? {
                    let [space, name] = ["/metadata/namespace", "/metadata/name"]
                        .map(|field| map.pointer(field).and_then(Value::as_str).unwrap_or_default());
                    if name.contains("-records-") {
                        stage.cluster.delete("v1", "ConfigMap", Some(space), name).await?;
                    }
                }
            }
            stage.proxy.reset();
            stage.start_controller(&[GATE]).await?;
            stage.controller.as_mut().context("no controller")?.idle(SOON).await?;
            stage.settle(QUIET, SOON).await?;
            let actions = stage.proxy.counts().actions;
            let writes: Vec<_> = actions.keys().filter(|action| !is_read(action)).collect();
            ensure!(writes.is_empty(), "it writes {writes:?}");
            let asked: Vec<_> = actions.keys().filter(|a| a.starts_with("acm:") || a.starts_with("route53:")).collect();
            ensure!(takeover != asked.is_empty(), "takeover: {takeover}, it asks {asked:?}");
        }
        ensure!(serves(&stage, namespace, "web", &["takeover.example.com"]).await? == arn, "another certificate");
        stage.cluster.delete("networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;
        gone(&stage, "networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;
        // Nothing says any more who created the record in Route 53, which certificates of other regions may rely on. So it stays.
        let left = (requested(&stage, namespace, "web").await?, records(&stage, "takeover.example.com").await?);
        ensure!(left.0.is_empty() && left.1.len() == 1, "the Ingress is gone, and there is {left:?}");
        finish(stage, namespace).await
    });
}

#[test]
fn what_is_missing_is_told_harms_nothing_else_and_heals() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        stage.start_controller(&[]).await?;
        let namespace = "certificates-missing";
        stage.cluster.namespace(namespace).await?;
        let deny = Calls::that(|name| name == "acm:RequestCertificate");
        // Without the gate, the certificate for the lab's domain is found.
        apply(&stage, namespace, &[service("web"), requesting("web", "missing.example.com")]).await?;
        warning(&stage, namespace, "Ingress/web", "EnableCertificateManagement").await?;
        served(&stage, namespace, "web").await?;
        stage.stop_controller().await?;
        stage.proxy.reset();
        stage.proxy.set_faults(Faults { deny: Some(deny), ..Faults::default() });
        stage.start_controller(&[GATE]).await?;
        warning(&stage, namespace, "Ingress/web", "acm:RequestCertificate").await?;
        apply(&stage, namespace, &[requesting("lost", "lost.example.invalid")]).await?;
        warning(&stage, namespace, "Ingress/lost", "no public hosted zone").await?;
        served(&stage, namespace, "lost").await?;
        ensure!(on_443(&stage, namespace, "lost").await?.is_none(), "a listener without its certificate");
        let found = stage.world.certificates.get("*.example.com").context("no certificate")?.clone();
        ensure!(
            on_443(&stage, namespace, "web").await? == Some([found].into()),
            "the listener has lost its certificate"
        );
        stage.proxy.set_faults(Faults::default());
        serves(&stage, namespace, "web", &["missing.example.com"]).await?;
        finish(stage, namespace).await
    });
}

/// Imports a certificate for a host into ACM.
async fn import(lab: &Lab, host: &str) -> Result<String> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([host.to_owned()])?.self_signed(&key)?;
    let request = lab.aws.acm.import_certificate().certificate(Blob::new(certificate.pem()));
    let made = request.private_key(Blob::new(key.serialize_pem())).send().await?;
    Ok(made.certificate_arn().context("an imported certificate without ARN")?.to_owned())
}

#[test]
fn a_certificate_that_appears_or_leaves_is_noticed_without_an_edit() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        stage.start_controller(&["--certificate-poll-interval=62s"]).await?;
        let namespace = "certificates-found";
        stage.cluster.namespace(namespace).await?;
        let lists =
            |stage: &Stage| stage.proxy.counts().actions.get("acm:ListCertificates").copied().unwrap_or_default();
        stage.proxy.reset();
        apply(&stage, namespace, &[service("web"), ingress("plain", &[], &["web"])]).await?;
        served(&stage, namespace, "plain").await?;
        ensure!(lists(&stage) == 0, "nobody relies on discovery");

        apply(&stage, namespace, &[ingress("web", &[(PORTS, BOTH)], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        let before = on_443(&stage, namespace, "web").await?.context("no listener")?;
        let imported = import(&stage, "web.example.com").await?;
        let both = || before.iter().cloned().chain([imported.clone()]).collect::<BTreeSet<_>>();
        // A list is used for a minute, so the second poll sees the certificate at the latest.
        wait_until(Duration::from_secs(150), "the new certificate to be on the listener", async || {
            Ok(on_443(&stage, namespace, "web").await? == Some(both()))
        })
        .await?;
        ensure!(lists(&stage) <= 4, "{} lists", lists(&stage));
        finish(stage, namespace).await
    });
}
