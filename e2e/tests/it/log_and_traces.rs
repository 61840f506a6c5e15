//! The log as machines read it, and traces as a collector gets them.

use anyhow::{Context as _, ensure};
use e2e::lab::aws::REGION;
use e2e::lab::cluster::text;
use e2e::lab::stand_in::StandIn;
use e2e::lab::wait_until;
use serde_json::Value;

use crate::support::{SOON, Stage, apply, ingress, leave, rules_become, run, served, service, start_that_fails};

#[test]
fn each_step_is_a_line_with_its_cause() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "log";
        stage.start_controller(&["--log-format=json"]).await?;
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;
        // Controllers of other tests have written to the same log, as text.
        let log = stage.controller_log(2000);
        let lines = log.lines().filter(|line| line.starts_with('{')).map(serde_json::from_str::<Value>);
        let lines = lines.collect::<Result<Vec<_>, _>>().context("a line is no JSON")?;
        let steps = lines
            .iter()
            .filter(|line| text(line, "/fields/group") == "log/web" && text(line, "/fields/message") == "applying");
        let found: Vec<String> = steps
            .map(|line| {
                let step = text(line, "/fields/step").split(' ').take(2).collect::<Vec<_>>().join(" ");
                format!("{} {step}: {}", text(line, "/level"), text(line, "/fields/cause"))
            })
            .collect();
        let [whole, path] = ["spec", "spec.rules[0].http.paths[0]"];
        let service = format!("{path}.backend.service");
        let line = |(step, field): (&str, &str)| format!("INFO {step}: Ingress log/web generation 1, {field}");
        let expected = [
            ("create security", whole),
            ("create target", &service),
            ("create TargetGroupBinding", &service),
            ("create load", whole),
            ("create listener", whole),
            ("create rule", path),
            ("open the", whole),
        ]
        .map(line);
        ensure!(found == expected, "they are {found:#?}");
        leave(stage, namespace).await
    });
}

#[test]
fn each_pass_is_sent_with_its_calls() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "traces";
        let collector = StandIn::start(|_| Some((200, "application/x-protobuf", String::new()))).await?;
        let environment = [
            ("AWS_ACCESS_KEY_ID", "x"),
            ("AWS_SECRET_ACCESS_KEY", "never-shown"),
            ("AWS_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ENDPOINT_URL", &stage.proxy.url),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url),
            ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ];
        let mut controller = stage.controller_in(&environment, &[])?;
        controller.ready(SOON).await?;
        stage.controller = Some(controller);
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        wait_until(SOON, "the collector to have the pass and its calls", async || {
            let sent = sent(&collector);
            for part in
                ["service.name", "albatross", "k8s.cluster.name", "demo", "pass", "traces/web", "CreateLoadBalancer"]
            {
                ensure!(sent.contains(part), "there is no `{part}`");
            }
            Ok(true)
        })
        .await?;
        ensure!(!sent(&collector).contains("never-shown"), "a secret is in the traces");
        leave(stage, namespace).await
    });
}

#[test]
fn an_endpoint_that_traces_cannot_go_to_is_told() {
    run(async {
        let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318")];
        let (code, said) = start_that_fails(&[], &environment).await?;
        ensure!(code == Some(1), "it ended with {code:?}");
        ensure!(
            said == "error: OTEL_EXPORTER_OTLP_ENDPOINT is `https://collector:4318`, and traces are sent without TLS: give the address of a collector in the cluster, http://…:4318\n",
            "it says: {said}"
        );
        Ok(())
    });
}

/// All that came, as text: names stand in it as they are.
fn sent(collector: &StandIn) -> String {
    collector.asked().iter().filter(|asked| asked.what == "POST /v1/traces").map(|asked| asked.body.as_str()).collect()
}
