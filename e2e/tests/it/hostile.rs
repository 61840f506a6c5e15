//! Load that one tenant makes, and what the others notice of it.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_elasticloadbalancingv2::types::{ProtocolEnum, TargetTypeEnum};
use e2e::lab::cluster::text;
use e2e::lab::proxy::Faults;
use e2e::lab::wait_until;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{SOON, Stage, WITH_RETRIES, apply, deployment, finish, ingress, run, served, service};

const MEBIBYTE: u64 = 1024 * 1024;

#[test]
fn thousands_of_unknown_annotations_cost_one_object_some_events_and_no_memory() {
    run(async {
        let stage = Stage::shared().await?;
        let (flood, calm) = ("flood", "calm");
        for namespace in [flood, calm] {
            stage.cluster.namespace(namespace).await?;
            apply(&stage, namespace, &[service("front"), deployment("front", 1)]).await?;
        }
        // What the program takes by itself, most of it its own code, which is large without optimisation.
        let before = peak(stage.controller.as_ref().context("no controller")?.id())?;
        let names: Vec<String> = (0..8000).map(|n| format!("alb.ingress.kubernetes.io/u{n:04}")).collect();
        let annotations: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        apply(&stage, flood, &[ingress("web", &annotations, &["front"])]).await?;
        // Others are served meanwhile.
        let began = Instant::now();
        apply(&stage, calm, &[ingress("web", &[], &["front"])]).await?;
        served(&stage, calm, "web").await?;
        let others_waited = began.elapsed();
        served(&stage, flood, "web").await?;
        // Each edit is a pass that finds all of them again.
        for edit in 0..20 {
            let patch = json!({"metadata": {"labels": {"edit": edit.to_string()}}});
            stage.cluster.merge("networking.k8s.io/v1", "Ingress", Some(flood), "web", &patch).await?;
        }
        let controller = stage.controller.as_ref().context("no controller")?;
        wait_until(SOON, "the controller to be idle", async || {
            Ok(controller.state().await?.contains("\"waiting\":[]"))
        })
        .await?;
        let mut events = Vec::new();
        wait_until(SOON, "the last warning to be there", async || {
            events = stage.cluster.events(flood).await?;
            Ok(events.iter().any(|event| event.message.contains("more warnings")))
        })
        .await?;
        let warnings: Vec<_> = events.iter().filter(|event| event.object == "Ingress/web").collect();
        let peak = peak(controller.id())?;
        println!(
            "8,000 unknown annotations: {} events, {} MiB at most, {} MiB before, another Ingress after {others_waited:?}",
            warnings.len(),
            peak / MEBIBYTE,
            before / MEBIBYTE
        );
        ensure!(warnings.len() <= 25, "there are {} events", warnings.len());
        let cost = peak.saturating_sub(before);
        ensure!(cost < 32 * MEBIBYTE, "the annotations cost {} MiB", cost / MEBIBYTE);
        stage.cluster.delete("v1", "Namespace", None, calm).await?;
        finish(stage, flood).await
    });
}

/// Returns the most memory that a process has had, in bytes.
fn peak(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// A Service with a port on the nodes, and this many target groups with a binding each.
async fn bindings(stage: &Stage, namespace: &str, count: usize) -> Result<()> {
    let mut nodes = service("nodes");
    nodes["spec"]["type"] = "NodePort".into();
    apply(stage, namespace, &[nodes]).await?;
    let arns: Vec<String> = stream::iter(0..count)
        .map(async |number| {
            let request = stage.aws.elb.create_target_group().name(format!("ext-many-{number}"));
            let request = request.protocol(ProtocolEnum::Http).port(80).vpc_id(&stage.world.vpc);
            let made = request.target_type(TargetTypeEnum::Instance).send().await?;
            let arn = made.target_groups().first().and_then(|group| group.target_group_arn());
            arn.map(str::to_owned).context("a target group without ARN")
        })
        .buffer_unordered(8)
        .try_collect()
        .await?;
    let object = |(number, arn): (usize, &String)| {
        json!({
            "apiVersion": "elbv2.k8s.aws/v1beta1",
            "kind": "TargetGroupBinding",
            "metadata": {"name": format!("many-{number}")},
            "spec": {"targetGroupARN": arn, "targetType": "instance", "serviceRef": {"name": "nodes", "port": 80}},
        })
    };
    let objects: Vec<Value> = arns.iter().enumerate().map(object).collect();
    stream::iter(objects.chunks(50))
        .map(|some| apply(stage, namespace, some))
        .buffer_unordered(8)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// Returns the number of calls of this name that were not throttled.
fn calls(stage: &Stage, name: &str) -> usize {
    let counts = stage.proxy.counts();
    let of = |all: &std::collections::BTreeMap<String, u64>| all.get(name).copied().unwrap_or_default();
    usize::try_from(of(&counts.actions) - of(&counts.throttled)).unwrap_or_default()
}

#[test]
fn an_edit_reaches_aws_while_a_thousand_bindings_register_a_new_node() {
    run(async {
        let stage = Stage::shared().await?;
        let (many, shop, count) = ("many", "shop", 1000);
        for namespace in [many, shop] {
            stage.cluster.namespace(namespace).await?;
        }
        apply(&stage, shop, &[service("front"), deployment("front", 1), ingress("web", &[], &["front"])]).await?;
        served(&stage, shop, "web").await?;
        let [.., newest] = &stage.world.node_objects()[..] else { anyhow::bail!("the lab has no nodes") };
        stage.cluster.delete("v1", "Node", None, text(newest, "/metadata/name")).await?;
        let register = "elasticloadbalancing:RegisterTargets";
        let before = calls(&stage, register);
        bindings(&stage, many, count).await?;
        wait_until(Duration::from_secs(300), "all bindings to have their nodes", async || {
            let done = calls(&stage, register) - before;
            ensure!(done >= count, "{done} have");
            Ok(true)
        })
        .await?;

        stage.proxy.set_faults(Faults { quota: true, ..Faults::default() });
        let before = calls(&stage, register);
        stage.cluster.apply(std::slice::from_ref(newest)).await?;
        // Until AWS throttles.
        wait_until(SOON, "the bindings to register", async || Ok(calls(&stage, register) - before >= 30)).await?;
        let mut report = String::new();
        for edit in 0..5 {
            let (rules, registered) = (calls(&stage, "elasticloadbalancing:CreateRule"), calls(&stage, register));
            let began = Instant::now();
            let mut edited = ingress("web", &[], &["front"]);
            let path = json!({
                "path": format!("/edit-{edit}"),
                "pathType": "Exact",
                "backend": {"service": {"name": "front", "port": {"number": 80}}},
            });
            let paths = edited["spec"]["rules"][0]["http"]["paths"].as_array_mut().context("no paths")?;
            paths.extend((0..=edit).map(|n| {
                let mut path = path.clone();
                path["path"] = format!("/edit-{n}").into();
                path
            }));
            apply(&stage, shop, &[edited]).await?;
            let reaches = async || Ok(calls(&stage, "elasticloadbalancing:CreateRule") > rules);
            wait_until(WITH_RETRIES, "the edit to reach AWS", reaches).await?;
            let took = began.elapsed();
            let left = count - (calls(&stage, register) - before);
            writeln!(report, "edit {edit}: {took:?} while {left} bindings waited")?;
            ensure!(took < Duration::from_secs(10), "{report}");
            // The next one comes after some more bindings.
            let more = async || Ok(calls(&stage, register) >= registered + 12);
            wait_until(SOON, "more bindings to register", more).await?;
        }
        let left = count - (calls(&stage, register) - before);
        println!("{report}");
        ensure!(left > count / 2, "only {left} bindings were left, so nothing was shown");
        stage.end_lab();
        Ok(())
    });
}
