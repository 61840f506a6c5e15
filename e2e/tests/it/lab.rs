//! The lab itself, without a controller: that what the other tests rely on is so.

use anyhow::{Context as _, Result, ensure};
use aws_sdk_elasticloadbalancingv2::error::ProvideErrorMetadata as _;
use aws_sdk_elasticloadbalancingv2::types::{ProtocolEnum, TargetTypeEnum};
use e2e::lab::aws::Aws;
use e2e::lab::cluster::{condition_is_true, items, text};
use e2e::lab::proxy::{Calls, Faults};
use e2e::lab::wait_until;
use serde_json::{Value, json};

use crate::support::{SOON, Stage, run};

#[test]
fn pods_become_ready_with_an_address_on_their_node_and_go_with_their_namespace() {
    run(async {
        let stage = Stage::without_controller().await?;
        let namespace = "kubelet";
        stage.cluster.namespace(namespace).await?;
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "replicas": 4,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "x"}]}},
            },
        });
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        });
        stage.cluster.apply(&[deployment, service]).await?;
        wait_until(SOON, "four Ready pods", async || {
            let pods = stage.cluster.list("v1", "Pod", Some(namespace)).await?;
            Ok(pods.iter().filter(|pod| condition_is_true(pod, "Ready")).count() == 4)
        })
        .await?;
        let pods = stage.cluster.list("v1", "Pod", Some(namespace)).await?;
        for pod in &pods {
            let (node, address) = (text(pod, "/spec/nodeName"), text(pod, "/status/podIP"));
            let node = stage.world.nodes.iter().find(|known| known.name == node).context("an unknown node")?;
            let request = stage.aws.ec2.describe_network_interfaces().network_interface_ids(&node.interface);
            let answer = request.send().await?;
            let addresses = answer.network_interfaces().iter().flat_map(|it| it.private_ip_addresses());
            let addresses: Vec<_> = addresses.filter_map(|it| it.private_ip_address()).collect();
            ensure!(addresses.contains(&address), "{address} is not among {addresses:?}");
        }
        wait_until(SOON, "what older programs read: Endpoints, and the API server's authority", async || {
            let endpoints = stage.cluster.get("v1", "Endpoints", Some(namespace), "web").await?.context("none")?;
            let authority = stage.cluster.get("v1", "ConfigMap", Some(namespace), "kube-root-ca.crt").await?;
            Ok(items(&endpoints, "/subsets/0/addresses").len() == 4 && authority.is_some())
        })
        .await?;
        stage.cluster.delete("v1", "Namespace", None, namespace).await?;
        wait_until(SOON, "the namespace to be gone", async || {
            Ok(stage.cluster.get("v1", "Namespace", None, namespace).await?.is_none())
        })
        .await?;
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn a_pod_with_a_readiness_gate_waits_for_it() {
    run(async {
        let stage = Stage::without_controller().await?;
        let namespace = "gate";
        stage.cluster.namespace(namespace).await?;
        let gate = "target-health.elbv2.k8s.aws/test";
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "x"}], "readinessGates": [{"conditionType": gate}]},
        });
        stage.cluster.apply(&[pod]).await?;
        let pod = async || stage.cluster.get("v1", "Pod", Some(namespace), "web").await;
        let is = async |condition: &str| Ok(pod().await?.is_some_and(|pod| condition_is_true(&pod, condition)));
        wait_until(SOON, "the containers to be ready", async || is("ContainersReady").await).await?;
        ensure!(!is("Ready").await?, "the pod is Ready before its gate is");
        let mut conditions = items(&pod().await?.context("no pod")?, "/status/conditions").to_vec();
        conditions.push(json!({"type": gate, "status": "True"}));
        let patch = json!({"status": {"conditions": conditions}});
        stage.cluster.merge_status("v1", "Pod", Some(namespace), "web", &patch).await?;
        wait_until(SOON, "the pod to be Ready", async || is("Ready").await).await?;
        ensure!(is(gate).await?, "the kubelet took the gate's condition away");
        stage.cluster.delete("v1", "Namespace", None, namespace).await?;
        wait_until(SOON, "the namespace to be gone", async || {
            Ok(stage.cluster.get("v1", "Namespace", None, namespace).await?.is_none())
        })
        .await?;
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn the_proxy_counts_calls_and_disturbs_them_as_aws_would() {
    run(async {
        let stage = Stage::without_controller().await?;
        let through = Aws::without_retries(&stage.proxy.url);
        let create = async |name: &str| {
            let request = through.elb.create_target_group().name(name).protocol(ProtocolEnum::Http).port(80);
            let result = request.vpc_id(&stage.world.vpc).target_type(TargetTypeEnum::Ip).send().await;
            result.map(drop).map_err(|error| error.code().unwrap_or("no answer").to_owned())
        };
        let exists = async |name: &str| stage.aws.elb.describe_target_groups().names(name).send().await.is_ok();
        let named = || Some(Calls::named("elasticloadbalancing:CreateTargetGroup"));
        stage.proxy.reset();
        let kinds = [
            ("passed", Faults::default(), Ok(()), true),
            ("denied", Faults { deny: named(), ..Faults::default() }, Err("AccessDenied"), false),
            ("throttled", Faults { throttle_rate: 1.0, ..Faults::default() }, Err("Throttling"), false),
            ("failed", Faults { error_rate: 1.0, ..Faults::default() }, Err("InternalFailure"), false),
            ("failed-after", Faults { error_after_rate: 1.0, ..Faults::default() }, Err("InternalFailure"), true),
            ("lost", Faults { lost_rate: 1.0, only: named(), ..Faults::default() }, Err("no answer"), true),
        ];
        for (name, faults, answer, effect) in kinds {
            stage.proxy.set_faults(faults);
            let answered = create(name).await;
            ensure!(answered == answer.map_err(str::to_owned), "{name}: answered {answered:?}");
            ensure!(exists(name).await == effect, "{name}: its effect is not as told");
        }
        stage.proxy.set_faults(Faults { throttle_rate: 1.0, ..Faults::default() });
        let vpcs = through.ec2.describe_vpcs().send().await;
        ensure!(vpcs.is_err_and(|error| error.code() == Some("RequestLimitExceeded")), "EC2 throttles by another name");
        let certificates = through.acm.list_certificates().send().await;
        let throttled = certificates.is_err_and(|error| error.code() == Some("ThrottlingException"));
        ensure!(throttled, "ACM throttles by another name");
        let counts = stage.proxy.counts();
        let create = "elasticloadbalancing:CreateTargetGroup";
        ensure!(
            (counts.total, counts.writes, counts.actions[create], counts.throttled[create], counts.failed[create])
                == (8, 6, 6, 1, 4),
            "the counts are {counts:?}"
        );
        // The target groups are not of this lab's making, so it is not handed on.
        Ok(())
    });
}

#[test]
fn an_object_applied_again_without_a_field_loses_it() {
    run(async {
        let stage = Stage::without_controller().await?;
        let object = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied", "namespace": "default"}, "data": data});
        stage.cluster.apply(&[object(json!({"a": "1", "b": "2"}))]).await?;
        stage.cluster.apply(&[object(json!({"a": "1"}))]).await?;
        let found = stage.cluster.get("v1", "ConfigMap", Some("default"), "applied").await?;
        ensure!(found.context("no ConfigMap")?["data"] == json!({"a": "1"}), "the field is still there");
        stage.cluster.delete("v1", "ConfigMap", Some("default"), "applied").await?;
        stage.leave_clean();
        Result::Ok(())
    });
}
