//! TargetGroupBindings that users write for target groups of another owner, Terraform for one. Their targets are registered, and
//! nothing else about them is touched.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_ec2::types::Tag as Ec2Tag;
use aws_sdk_elasticloadbalancingv2::types::{ProtocolEnum, Tag, TargetHealthStateEnum, TargetTypeEnum};
use e2e::lab::cluster::{items, text};
use e2e::lab::proxy::is_read;
use e2e::lab::wait_until;
use e2e::lab::world::CLUSTER;
use serde_json::{Value, json};

use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, account_is_empty, apply, deployment, gone, node_rules, run, service, stays,
    warning, warnings_are, warnings_become,
};

pub(crate) const BINDING: (&str, &str) = ("elbv2.k8s.aws/v1beta1", "TargetGroupBinding");
/// The description of the rules that let load balancers reach the nodes.
const NODE_RULE: &str = "elbv2.k8s.aws/targetGroupBinding=shared";
/// The condition of a binding without errors.
const RECONCILED: (&str, &str, &str) =
    ("True", "Reconciled", "the endpoints of the Service are registered in the target group");

pub(crate) fn binding(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": BINDING.0, "kind": BINDING.1, "metadata": {"name": name}, "spec": spec})
}

/// A target group as Terraform makes it. The check that the account is empty ignores groups whose names begin with `ext-`.
pub(crate) async fn target_group(stage: &Stage, name: &str, kind: TargetTypeEnum) -> Result<String> {
    let tag = Tag::builder().key("made-by").value("terraform").build();
    let request = stage.aws.elb.create_target_group().name(name).protocol(ProtocolEnum::Http).port(80).tags(tag);
    let made = request.vpc_id(&stage.world.vpc).target_type(kind).send().await?;
    let arn = made.target_groups().first().and_then(|group| group.target_group_arn());
    Ok(arn.context("a target group without ARN")?.to_owned())
}

/// The target group, its attributes and its tags, as AWS describes them.
async fn description(stage: &Stage, arn: &str) -> Result<String> {
    let elb = &stage.aws.elb;
    let group = elb.describe_target_groups().target_group_arns(arn).send().await?;
    let attributes = elb.describe_target_group_attributes().target_group_arn(arn).send().await?;
    let tags = elb.describe_tags().resource_arns(arn).send().await?;
    Ok(format!("{:?} {:?} {:?}", group.target_groups(), attributes.attributes(), tags.tag_descriptions()))
}

pub(crate) async fn targets_become(stage: &Stage, arn: &str, expected: &BTreeSet<String>) -> Result<()> {
    wait_until(SOON, &format!("the targets to be {expected:?}"), async || {
        let found = targets(stage, arn).await?;
        ensure!(found == *expected, "they are {found:?}");
        Ok(true)
    })
    .await
}

/// The targets of the group that are not on their way out.
pub(crate) async fn targets(stage: &Stage, arn: &str) -> Result<BTreeSet<String>> {
    let health = stage.aws.elb.describe_target_health().target_group_arn(arn).send().await?;
    let state = |it: &aws_sdk_elasticloadbalancingv2::types::TargetHealthDescription| {
        it.target_health().and_then(|health| health.state()).cloned()
    };
    let all = health.target_health_descriptions().iter();
    let present = all.filter(|it| state(it) != Some(TargetHealthStateEnum::Draining)).filter_map(|it| it.target());
    let id = |id: Option<&str>| id.unwrap_or_default().to_owned();
    Ok(present.map(|target| format!("{}:{}", id(target.id()), target.port().unwrap_or_default())).collect())
}

/// Waits until there are `count` pods with this label `app`, and gives their addresses with the port.
pub(crate) async fn pods(stage: &Stage, namespace: &str, app: &str, count: usize) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    wait_until(SOON, &format!("{count} pods of {app}"), async || {
        let pods = stage.cluster.list("v1", "Pod", Some(namespace)).await?;
        let own = pods.iter().filter(|pod| text(pod, "/metadata/labels/app") == app);
        let addresses = own.map(|pod| text(pod, "/status/podIP")).filter(|address| !address.is_empty());
        found = addresses.map(|address| format!("{address}:8080")).collect();
        Ok(found.len() == count)
    })
    .await?;
    Ok(found)
}

/// Waits until the binding's condition Ready is this (status, reason, message), of its present generation. One that is
/// ready has observed that generation.
async fn ready_becomes(stage: &Stage, namespace: &str, name: &str, expected: (&str, &str, &str)) -> Result<()> {
    wait_until(SOON, &format!("the status of {name} to be {expected:?}"), async || {
        let found = stage.cluster.get(BINDING.0, BINDING.1, Some(namespace), name).await?.context("no binding")?;
        let conditions = items(&found, "/status/conditions");
        let [ready, ..] = conditions else { anyhow::bail!("its conditions are {conditions:?}") };
        let generation = &found["metadata"]["generation"];
        ensure!(
            text(ready, "/type") == "Ready" && ready["observedGeneration"] == *generation,
            "generation {generation} has {ready}"
        );
        let said = (text(ready, "/status"), text(ready, "/reason"), text(ready, "/message"));
        ensure!(said == expected, "it is {said:?}");
        let observed = &found["status"]["observedGeneration"];
        ensure!(expected.0 == "False" || observed == generation, "of generation {generation} it has {observed}");
        Ok(true)
    })
    .await
}

async fn rules_become(stage: &Stage, expected: &[String]) -> Result<()> {
    wait_until(SOON, &format!("the node security group's rules to be {expected:?}"), async || {
        let found = node_rules(stage).await?;
        ensure!(found == expected, "they are {found:?}");
        Ok(true)
    })
    .await
}

/// Deletes a binding, and waits until it is gone.
pub(crate) async fn delete(stage: &Stage, namespace: &str, name: &str) -> Result<()> {
    stage.cluster.delete(BINDING.0, BINDING.1, Some(namespace), name).await?;
    gone(stage, BINDING.0, BINDING.1, Some(namespace), name).await
}

/// Fails if the controller made a call other than the calls that register targets and allow the requesters.
fn nothing_else_was_called(stage: &Stage) -> Result<()> {
    let allowed = [
        "elasticloadbalancing:RegisterTargets",
        "elasticloadbalancing:DeregisterTargets",
        "ec2:AuthorizeSecurityGroupIngress",
        "ec2:RevokeSecurityGroupIngress",
    ];
    let log = stage.proxy.log();
    let other: Vec<&str> = log.iter().map(|call| call.name.as_str()).filter(|name| !is_read(name)).collect();
    let other: Vec<&&str> = other.iter().filter(|name| !allowed.contains(name)).collect();
    ensure!(other.is_empty(), "it made the calls {other:?}");
    Ok(())
}

/// Deletes what is left of bindings and the test's target groups, and finds the account as before.
async fn leave(stage: Stage, namespace: &str, groups: &[&str]) -> Result<()> {
    for binding in stage.cluster.list(BINDING.0, BINDING.1, Some(namespace)).await? {
        delete(&stage, namespace, text(&binding, "/metadata/name")).await?;
    }
    for arn in groups {
        stage.aws.elb.delete_target_group().target_group_arn(*arn).send().await?;
    }
    wait_until(WITH_RETRIES, "the account to be empty", async || account_is_empty(&stage).await).await?;
    stage.cluster.delete("v1", "Namespace", None, namespace).await?;
    stage.leave_clean();
    Ok(())
}

#[test]
fn pods_are_registered_in_a_foreign_target_group_and_go_with_the_binding() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "binding-ip";
        let arn = target_group(&stage, "ext-binding-ip", TargetTypeEnum::Ip).await?;
        let before = description(&stage, &arn).await?;
        stage.cluster.namespace(namespace).await?;
        stage.proxy.reset();
        let networking = json!({"ingress": [
            {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"protocol": "TCP", "port": 8080}]},
            {"from": [{"securityGroup": {"groupID": stage.world.security_groups["my-sg-1"]}}], "ports": [{"port": 8081}]},
        ]});
        let spec = |networking: &Value| json!({"targetGroupARN": arn, "serviceRef": {"name": "web", "port": 80}, "networking": networking});
        apply(&stage, namespace, &[service("web"), deployment("web", 2), binding("web", &spec(&networking))]).await?;
        targets_become(&stage, &arn, &pods(&stage, namespace, "web", 2).await?).await?;
        let of_block = format!("tcp 8080-8080 cidr:192.0.2.0/24 {NODE_RULE}");
        let of_group = format!("tcp 8081-8081 sg:sg:my-sg-1 {NODE_RULE}");
        rules_become(&stage, &[of_block.clone(), of_group]).await?;
        ready_becomes(&stage, namespace, "web", RECONCILED).await?;

        apply(&stage, namespace, &[deployment("web", 4)]).await?;
        targets_become(&stage, &arn, &pods(&stage, namespace, "web", 4).await?).await?;
        let fewer = json!({"ingress": [networking["ingress"][0]]});
        apply(&stage, namespace, &[binding("web", &spec(&fewer))]).await?;
        rules_become(&stage, &[of_block]).await?;
        ready_becomes(&stage, namespace, "web", RECONCILED).await?;

        delete(&stage, namespace, "web").await?;
        targets_become(&stage, &arn, &BTreeSet::new()).await?;
        rules_become(&stage, &[]).await?;
        stage.settle(QUIET, SOON).await?;
        ensure!(description(&stage, &arn).await? == before, "the target group was changed");
        nothing_else_was_called(&stage)?;
        warnings_are(&stage, namespace, &[]).await?;
        leave(stage, namespace, &[&arn]).await
    });
}

#[test]
fn nodes_are_registered_as_the_node_selector_says() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "binding-instance";
        let arn = target_group(&stage, "ext-binding-inst", TargetTypeEnum::Instance).await?;
        let before = description(&stage, &arn).await?;
        stage.cluster.namespace(namespace).await?;
        stage.proxy.reset();
        let label = async |node: usize, value: Value| {
            let patch = json!({"metadata": {"labels": {"lab/pool": value}}});
            stage.cluster.merge("v1", "Node", None, &stage.world.nodes[node].name, &patch).await
        };
        let of_nodes = |nodes: &[usize]| -> BTreeSet<String> {
            nodes.iter().map(|node| format!("{}:31180", stage.world.nodes[*node].instance)).collect()
        };
        label(0, "edge".into()).await?;
        let mut service = service("web");
        service["spec"]["type"] = "NodePort".into();
        service["spec"]["ports"][0]["nodePort"] = 31180.into();
        let all = json!({"targetGroupARN": arn, "serviceRef": {"name": "web", "port": 80}});
        let spec = |selector: &Value| {
            let mut spec = all.clone();
            spec["nodeSelector"] = selector.clone();
            spec
        };
        let edge = json!({"matchLabels": {"lab/pool": "edge"}});
        apply(&stage, namespace, &[service, binding("web", &spec(&edge))]).await?;
        targets_become(&stage, &arn, &of_nodes(&[0])).await?;
        ready_becomes(&stage, namespace, "web", RECONCILED).await?;
        // The labels of nodes change, and then the selector.
        label(1, "edge".into()).await?;
        targets_become(&stage, &arn, &of_nodes(&[0, 1])).await?;
        label(0, Value::Null).await?;
        targets_become(&stage, &arn, &of_nodes(&[1])).await?;
        let others = json!({"matchExpressions": [{"key": "lab/pool", "operator": "DoesNotExist"}]});
        apply(&stage, namespace, &[binding("web", &spec(&others))]).await?;
        targets_become(&stage, &arn, &of_nodes(&[0, 2])).await?;
        apply(&stage, namespace, &[binding("web", &all)]).await?;
        targets_become(&stage, &arn, &of_nodes(&[0, 1, 2])).await?;
        ready_becomes(&stage, namespace, "web", RECONCILED).await?;
        label(1, Value::Null).await?;
        delete(&stage, namespace, "web").await?;
        targets_become(&stage, &arn, &BTreeSet::new()).await?;
        ensure!(description(&stage, &arn).await? == before, "the target group was changed");
        nothing_else_was_called(&stage)?;
        warnings_are(&stage, namespace, &[]).await?;
        leave(stage, namespace, &[&arn]).await
    });
}

#[test]
fn a_port_by_name_is_each_pods_own_and_a_target_group_may_be_named() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "binding-named-port";
        let name = "ext-binding-named";
        let arn = target_group(&stage, name, TargetTypeEnum::Ip).await?;
        let before = description(&stage, &arn).await?;
        stage.cluster.namespace(namespace).await?;
        stage.proxy.reset();
        let pod = |name: &str, port: u16| {
            let ports = json!([{"name": "http", "containerPort": port}]);
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "example.com/app", "ports": ports}]},
            })
        };
        let mut service = service("web");
        service["spec"]["ports"] = json!([{"name": "web", "port": 80, "targetPort": "http"}]);
        let from = json!([{"ipBlock": {"cidr": "192.0.2.0/24"}}]);
        let spec = json!({
            "targetGroupName": name,
            "serviceRef": {"name": "web", "port": "web"},
            "networking": {"ingress": [{"from": from, "ports": [{"port": "http"}]}]},
        });
        apply(&stage, namespace, &[service, pod("old", 8080), pod("new", 9090), binding("web", &spec)]).await?;
        pods(&stage, namespace, "web", 2).await?;
        let address = async |pod: &str, port: u16| -> Result<String> {
            let pod = stage.cluster.get("v1", "Pod", Some(namespace), pod).await?.context("no pod")?;
            Ok(format!("{}:{port}", text(&pod, "/status/podIP")))
        };
        let (old, new) = (address("old", 8080).await?, address("new", 9090).await?);
        targets_become(&stage, &arn, &[old, new.clone()].into()).await?;
        let rule = |port: u16| format!("tcp {port}-{port} cidr:192.0.2.0/24 {NODE_RULE}");
        rules_become(&stage, &[rule(8080), rule(9090)]).await?;
        ready_becomes(&stage, namespace, "web", RECONCILED).await?;
        stage.cluster.delete("v1", "Pod", Some(namespace), "old").await?;
        targets_become(&stage, &arn, &[new].into()).await?;
        rules_become(&stage, &[rule(9090)]).await?;
        ensure!(description(&stage, &arn).await? == before, "the target group was changed");
        nothing_else_was_called(&stage)?;
        warnings_are(&stage, namespace, &[]).await?;
        leave(stage, namespace, &[&arn]).await
    });
}

#[test]
fn of_two_bindings_of_one_target_group_the_older_has_it() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "binding-twice";
        let arn = target_group(&stage, "ext-binding-twice", TargetTypeEnum::Ip).await?;
        let before = description(&stage, &arn).await?;
        stage.cluster.namespace(namespace).await?;
        let of = |service: &str| json!({"targetGroupARN": arn, "serviceRef": {"name": service, "port": 80}});
        // It is their age that counts, and not their names.
        let (older, younger) = (binding("second", &of("web")), binding("first", &of("api")));
        apply(&stage, namespace, &[service("web"), service("api"), deployment("web", 2), deployment("api", 1)]).await?;
        let (web, api) = (pods(&stage, namespace, "web", 2).await?, pods(&stage, namespace, "api", 1).await?);
        apply(&stage, namespace, &[older]).await?;
        targets_become(&stage, &arn, &web).await?;
        // Kubernetes shows the age of objects in seconds.
        stays(Duration::from_millis(1100), "the only binding's pods are registered", async || {
            let found = targets(&stage, &arn).await?;
            ensure!(found == web, "they are {found:?}");
            Ok(())
        })
        .await?;
        apply(&stage, namespace, &[younger]).await?;
        let problem = format!(
            "the target group {arn} already has the TargetGroupBinding binding-twice/second, and each would deregister the targets of the other; delete one of the two, give each a target group of its own, or set spec.multiClusterTargetGroup on both"
        );
        ready_becomes(&stage, namespace, "first", ("False", "FailedReconcile", &problem)).await?;
        let event = warning(&stage, namespace, "TargetGroupBinding/first", "already has").await?;
        let expected = format!("TargetGroupBinding binding-twice/first: {problem}");
        ensure!(event.reason == "FailedReconcile" && event.message == expected, "the event is {event:?}");
        ready_becomes(&stage, namespace, "second", RECONCILED).await?;
        stays(QUIET, "the older binding keeps what it has", async || {
            let found = targets(&stage, &arn).await?;
            ensure!(found == web, "they are {found:?}");
            Ok(())
        })
        .await?;

        delete(&stage, namespace, "second").await?;
        targets_become(&stage, &arn, &api).await?;
        ready_becomes(&stage, namespace, "first", RECONCILED).await?;
        ensure!(description(&stage, &arn).await? == before, "the target group was changed");
        leave(stage, namespace, &[&arn]).await
    });
}

#[test]
fn a_binding_of_a_target_group_that_does_not_exist_is_told_and_heals() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "binding-missing";
        let arn = target_group(&stage, "ext-binding-there", TargetTypeEnum::Ip).await?;
        let missing = "arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/ext-gone/50dc6c495c0c9188";
        stage.cluster.namespace(namespace).await?;
        stage.proxy.reset();
        let of = |arn: &str| binding("web", &json!({"targetGroupARN": arn, "serviceRef": {"name": "web", "port": 80}}));
        apply(&stage, namespace, &[service("web"), deployment("web", 1), of(missing)]).await?;
        let problem = format!(
            "there is no target group `{missing}` in this account and region; correct the name, or create the target group"
        );
        ready_becomes(&stage, namespace, "web", ("False", "FailedReconcile", &problem)).await?;
        let expected =
            format!("TargetGroupBinding/web FailedReconcile: TargetGroupBinding binding-missing/web: {problem}");
        warnings_become(&stage, namespace, &[&expected]).await?;
        ensure!(stage.proxy.counts().writes == 0, "it changes AWS: {:?}", stage.proxy.counts().actions);

        apply(&stage, namespace, &[of(&arn)]).await?;
        targets_become(&stage, &arn, &pods(&stage, namespace, "web", 1).await?).await?;
        ready_becomes(&stage, namespace, "web", RECONCILED).await?;
        warnings_are(&stage, namespace, &[&expected]).await?;
        leave(stage, namespace, &[&arn]).await
    });
}

#[test]
fn a_node_in_several_security_groups_needs_the_clusters_tag_on_one() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "binding-security-groups";
        let arn = target_group(&stage, "ext-binding-groups", TargetTypeEnum::Instance).await?;
        stage.cluster.namespace(namespace).await?;
        let world = stage.world.clone();
        let node = &world.nodes[0];
        let (nodes, other) = (&world.node_security_group, &world.security_groups["my-sg-1"]);
        let aws = stage.aws.clone();
        let put_in = async |groups: &[&String]| -> Result<()> {
            let groups = groups.iter().map(ToString::to_string).collect();
            let request = aws.ec2.modify_network_interface_attribute().network_interface_id(&node.interface);
            request.set_groups(Some(groups)).send().await?;
            Ok(())
        };
        let tag = Ec2Tag::builder().key(format!("kubernetes.io/cluster/{CLUSTER}")).value("owned").build();
        stage.aws.ec2.delete_tags().resources(nodes).tags(tag.clone()).send().await?;
        put_in(&[nodes, other]).await?;
        stage.start_controller(&[]).await?;
        let sorted: BTreeSet<&str> = [nodes.as_str(), other.as_str()].into();
        let sorted: Vec<&str> = sorted.into_iter().collect();
        let patch = json!({"metadata": {"labels": {"lab/pool": "several"}}});
        stage.cluster.merge("v1", "Node", None, &node.name, &patch).await?;
        let mut service = service("web");
        service["spec"]["type"] = "NodePort".into();
        service["spec"]["ports"][0]["nodePort"] = 31181.into();
        let from = json!([{"ipBlock": {"cidr": "192.0.2.0/24"}}]);
        let spec = json!({
            "targetGroupARN": arn,
            "serviceRef": {"name": "web", "port": 80},
            "nodeSelector": {"matchLabels": {"lab/pool": "several"}},
            "networking": {"ingress": [{"from": from, "ports": [{"port": 31181}]}]},
        });
        apply(&stage, namespace, &[service, binding("web", &spec)]).await?;
        let event = warning(&stage, namespace, "TargetGroupBinding/web", "security groups").await?;
        let expected = format!(
            "TargetGroupBinding {namespace}/web: Node {}: its network interface is in the security groups {}, and none carries the tag kubernetes.io/cluster/{CLUSTER}; exactly one must, for rules are added to it; add kubernetes.io/cluster/{CLUSTER} to one of them",
            node.name,
            sorted.join(", ")
        );
        ensure!(event.reason == "FailedNetworkReconcile" && event.message == expected, "the event is {event:?}");
        // Its targets are registered all the same.
        targets_become(&stage, &arn, &[format!("{}:31181", node.instance)].into()).await?;

        stage.aws.ec2.create_tags().resources(nodes).tags(tag).send().await?;
        let rule = format!("tcp nodePort:web/80-nodePort:web/80 cidr:192.0.2.0/24 {NODE_RULE}");
        wait_until(WITH_RETRIES, "the rule on the group that carries the tag", async || {
            let found = node_rules(&stage).await?;
            ensure!(found == [rule.as_str()], "its rules are {found:?}");
            Ok(true)
        })
        .await?;
        delete(&stage, namespace, "web").await?;
        rules_become(&stage, &[]).await?;

        put_in(&[nodes]).await?;
        let patch = json!({"metadata": {"labels": {"lab/pool": null}}});
        stage.cluster.merge("v1", "Node", None, &node.name, &patch).await?;
        leave(stage, namespace, &[&arn]).await
    });
}
