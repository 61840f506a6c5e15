//! The life of a cluster: its API server goes away and comes back, controllers crash and take turns, classes, Services
//! and pods come and go, and others use the same AWS account.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_ec2::types::{NetworkInterface, ResourceType, Tag as Ec2Tag, TagSpecification};
use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum, ProtocolEnum, Tag, TargetTypeEnum};
use e2e::lab::cluster::{condition_is_true, items, text};
use e2e::lab::kubelet::READY;
use e2e::lab::proxy::Proxy;
use e2e::lab::wait_until;
use e2e::symbolic::Snapshot;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, account_is_empty, apply, gone, ingress, kubeconfig_with_port, leave,
    quiet_writes, rules_become, run, served, served_within, service, stack_of, stays, warnings_are, warnings_become,
    way_to_api_server,
};

const INGRESS: (&str, &str) = ("networking.k8s.io/v1", "Ingress");

// The API server and the controllers.

#[test]
fn an_outage_of_the_api_server_changes_nothing_and_what_happened_meanwhile_is_caught_up() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "outage";
        let mut way = way_to_api_server(&stage).await?;
        let kubeconfig = stage.directory().join("kubeconfig-of-outage");
        fs::write(&kubeconfig, kubeconfig_with_port(&stage, way.port)?)?;
        // All is compared with AWS during the outage, again and again.
        let flags = [format!("--kubeconfig={}", kubeconfig.display()), "--sync-period=1s".to_owned()];
        stage.start_controller(&flags.each_ref().map(String::as_str)).await?;
        stage.cluster.namespace(namespace).await?;
        let two = [ingress("stays", &[], &["web"]), ingress("goes", &[], &["web"])];
        apply(&stage, namespace, &[service("web"), service("api")]).await?;
        apply(&stage, namespace, &two).await?;
        for name in ["stays", "goes"] {
            served(&stage, namespace, name).await?;
            rules_become(&stage, namespace, name, &["/web forward"]).await?;
        }
        let mut controller = stage.controller.take().context("no controller")?;
        quiet_writes(&stage).await?;

        way.cut().await;
        stage.proxy.reset();
        stage.cluster.delete(INGRESS.0, INGRESS.1, Some(namespace), "goes").await?;
        let edited = ingress("stays", &[], &["web", "api"]);
        apply(&stage, namespace, &[edited, ingress("new", &[], &["web"])]).await?;
        stays(Duration::from_secs(10), "the controller waits for the API server", async || {
            controller.check_running()?;
            let counts = stage.proxy.counts();
            ensure!(counts.writes == 0, "it changes AWS: {:?}", counts.actions);
            Ok(())
        })
        .await?;
        ensure!(stage.proxy.counts().total > 0, "it has not compared anything with AWS meanwhile");

        way.mend().await?;
        stage.controller = Some(controller);
        served_within(&stage, namespace, "new", WITH_RETRIES).await?;
        rules_become(&stage, namespace, "new", &["/web forward"]).await?;
        rules_become(&stage, namespace, "stays", &["/web forward", "/api forward"]).await?;
        gone(&stage, INGRESS.0, INGRESS.1, Some(namespace), "goes").await?;
        apply(&stage, namespace, &[ingress("later", &[], &["web"])]).await?;
        served(&stage, namespace, "later").await?;
        leave(stage, namespace).await
    });
}

#[test]
fn a_controller_that_crashes_while_it_creates_leaves_nothing_twice() {
    run(async {
        let mut stage = Stage::shared().await?;
        let namespace = "crash";
        stage.cluster.namespace(namespace).await?;
        let names: Vec<String> = (0..10).map(|number| format!("web-{number}")).collect();
        let ingresses: Vec<Value> = names.iter().map(|name| ingress(name, &[], &["web", "api"])).collect();
        stage.proxy.reset();
        apply(&stage, namespace, &[service("web"), service("api")]).await?;
        apply(&stage, namespace, &ingresses).await?;
        wait_until(SOON, "the creation to be half-way", async || {
            let counts = stage.proxy.counts();
            Ok(counts.actions.get("elasticloadbalancing:CreateRule").is_some_and(|count| *count >= 5))
        })
        .await?;
        stage.controller.take().context("no controller")?.kill();
        let made = stage.proxy.counts().actions.get("elasticloadbalancing:CreateRule").copied().unwrap_or_default();
        ensure!(made < 20, "the crash came too late: all {made} rules were made");

        stage.start_controller(&[]).await?;
        for name in &names {
            served_within(&stage, namespace, name, WITH_RETRIES).await?;
            rules_become(&stage, namespace, name, &["/web forward", "/api forward"]).await?;
        }
        stage.settle(QUIET, WITH_RETRIES).await?;
        let snapshot = Snapshot::take(&stage).await?;
        for name in &names {
            let stack = snapshot.stacks.get(&format!("ingress:{namespace}/{name}")).context("no stack")?;
            let count = |kind: &str| stack[kind].as_object().map_or(0, serde_json::Map::len);
            let counts = [count("loadBalancers"), count("targetGroups"), count("securityGroups")];
            ensure!(counts == [1, 2, 1], "{name} has {counts:?} load balancers, target groups and security groups");
        }
        let bindings = stage.cluster.list("elbv2.k8s.aws/v1beta1", "TargetGroupBinding", Some(namespace)).await?;
        ensure!(bindings.len() == 20, "there are {} bindings", bindings.len());

        for name in &names {
            stage.cluster.delete(INGRESS.0, INGRESS.1, Some(namespace), name).await?;
        }
        for name in &names {
            gone(&stage, INGRESS.0, INGRESS.1, Some(namespace), name).await?;
        }
        wait_until(SOON, "the account to be empty", async || account_is_empty(&stage).await).await?;
        leave(stage, namespace).await
    });
}

#[test]
fn controllers_take_turns_and_a_stopped_one_gives_the_lease_back() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "turns";
        let election = ["--enable-leader-election=true", "--leader-election-namespace=default"];
        stage.start_controller(&election).await?;
        wait_until(SOON, "somebody to lead", async || Ok(!holder(&stage).await?.is_empty())).await?;
        let stopping = Instant::now();
        // Fails unless it ends with success.
        stage.stop_controller().await?;
        ensure!(stopping.elapsed() < Duration::from_secs(10), "it took {:?} to stop", stopping.elapsed());
        ensure!(holder(&stage).await?.is_empty(), "the lease is still held by {}", holder(&stage).await?);

        stage.start_controller(&election).await?;
        wait_until(SOON, "the first to lead", async || Ok(!holder(&stage).await?.is_empty())).await?;
        let first = holder(&stage).await?;
        let calls_of_second = Proxy::start(&stage.proxy.url).await?;
        let url = &calls_of_second.url;
        let endpoints = format!("--aws-api-endpoints=elasticloadbalancingv2={url},ec2={url}");
        let mut second = stage.controller(&[election[0], election[1], &endpoints])?;
        second.ready(SOON).await?;
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), ingress("of-first", &[], &["web"])]).await?;
        served(&stage, namespace, "of-first").await?;
        rules_become(&stage, namespace, "of-first", &["/web forward"]).await?;
        stage.settle(QUIET, SOON).await?;
        ensure!(holder(&stage).await? == first, "the lease went to {}", holder(&stage).await?);
        let counts = calls_of_second.counts();
        ensure!(counts.writes == 0, "the second changes AWS while the first leads: {:?}", counts.actions);

        let stopping = Instant::now();
        stage.stop_controller().await?;
        wait_until(SOON, "the second to lead", async || {
            let holder = holder(&stage).await?;
            Ok(!holder.is_empty() && holder != first)
        })
        .await?;
        // The lease of 15 s is released and does not run out.
        ensure!(stopping.elapsed() < Duration::from_secs(10), "the change took {:?}", stopping.elapsed());
        stage.controller = Some(second);
        apply(&stage, namespace, &[ingress("of-second", &[], &["web"])]).await?;
        served(&stage, namespace, "of-second").await?;
        ensure!(calls_of_second.counts().writes > 0, "the calls of the second are not seen");
        stage.cluster.delete(INGRESS.0, INGRESS.1, Some(namespace), "of-first").await?;
        gone(&stage, INGRESS.0, INGRESS.1, Some(namespace), "of-first").await?;
        leave(stage, namespace).await
    });
}

async fn holder(stage: &Stage) -> Result<String> {
    let name = "aws-load-balancer-controller-leader";
    let lease = stage.cluster.get("coordination.k8s.io/v1", "Lease", Some("default"), name).await?;
    Ok(lease.map(|lease| text(&lease, "/spec/holderIdentity").to_owned()).unwrap_or_default())
}

// Others in the same account.

#[test]
fn what_belongs_to_others_is_untouched() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "others";
        stage.cluster.namespace(namespace).await?;
        let untagged = Foreign::make(&stage, "untagged", &[]).await?;
        // As another cluster's controller tags what it made for an Ingress of the same name.
        let tags = [("elbv2.k8s.aws/cluster", "other"), ("ingress.k8s.aws/stack", "others/web")];
        let tagged = Foreign::make(&stage, "tagged", &tags).await?;
        let tags = [("elbv2.k8s.aws/cluster", "other"), ("elbv2.k8s.aws/resource", "backend-sg")];
        let shared = Foreign::make(&stage, "shared", &tags).await?;
        let mut before = account(&stage).await?;
        wait_until(SOON, "the new load balancers to be active", async || {
            let now = account(&stage).await?;
            let same = now == before;
            before = now;
            Ok(same)
        })
        .await?;

        for _ in 0..2 {
            apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
            served(&stage, namespace, "web").await?;
            stage.settle(QUIET, SOON).await?;
            let during = account(&stage).await?;
            let missing: Vec<&String> = before.difference(&during).collect();
            ensure!(missing.is_empty(), "changed or gone while the Ingress is served:\n{missing:#?}");
            stage.cluster.delete(INGRESS.0, INGRESS.1, Some(namespace), "web").await?;
            gone(&stage, INGRESS.0, INGRESS.1, Some(namespace), "web").await?;
            wait_until(SOON, "the account to be as before", async || {
                let after = account(&stage).await?;
                let differences: Vec<&String> = before.symmetric_difference(&after).collect();
                ensure!(differences.is_empty(), "there differ:\n{differences:#?}");
                Ok(true)
            })
            .await?;
        }
        for foreign in [untagged, tagged, shared] {
            foreign.delete(&stage).await?;
        }
        leave(stage, namespace).await
    });
}

/// A load balancer with a listener, its target group and its security group, made by others.
struct Foreign {
    balancer: String,
    target_group: String,
    security_group: String,
}

impl Foreign {
    async fn make(stage: &Stage, name: &str, tags: &[(&str, &str)]) -> Result<Self> {
        let (elb, ec2) = (&stage.aws.elb, &stage.aws.ec2);
        let ec2_tags = tags.iter().map(|(key, value)| Ec2Tag::builder().key(*key).value(*value).build()).collect();
        let ec2_tags = TagSpecification::builder().resource_type(ResourceType::SecurityGroup).set_tags(Some(ec2_tags));
        let request = ec2.create_security_group().group_name(name).description("foreign").vpc_id(&stage.world.vpc);
        let request = if tags.is_empty() { request } else { request.tag_specifications(ec2_tags.build()) };
        let made = request.send().await?;
        let security_group = made.group_id().context("no id")?.to_owned();
        let elb_tags: Vec<Tag> =
            tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
        let elb_tags = Some(elb_tags).filter(|tags| !tags.is_empty());
        let subnets = ["public-a", "public-b"].map(|subnet| stage.world.subnets[subnet].clone());
        let request = elb.create_load_balancer().name(name).set_subnets(Some(subnets.to_vec()));
        let made = request.security_groups(&security_group).set_tags(elb_tags.clone()).send().await?;
        let balancer = made.load_balancers().first().and_then(|made| made.load_balancer_arn()).context("no ARN")?;
        let request = elb.create_target_group().name(name).protocol(ProtocolEnum::Http).port(80);
        let request = request.vpc_id(&stage.world.vpc).target_type(TargetTypeEnum::Ip).set_tags(elb_tags);
        let made_group = request.send().await?;
        let group = made_group.target_groups().first().and_then(|made| made.target_group_arn()).context("no ARN")?;
        let forward = Action::builder().r#type(ActionTypeEnum::Forward).target_group_arn(group).build();
        let request = elb.create_listener().load_balancer_arn(balancer).protocol(ProtocolEnum::Http).port(80);
        request.default_actions(forward).send().await?;
        Ok(Self { balancer: balancer.to_owned(), target_group: group.to_owned(), security_group })
    }

    async fn delete(self, stage: &Stage) -> Result<()> {
        stage.aws.elb.delete_load_balancer().load_balancer_arn(&self.balancer).send().await?;
        stage.aws.elb.delete_target_group().target_group_arn(&self.target_group).send().await?;
        stage.aws.ec2.delete_security_group().group_id(&self.security_group).send().await?;
        Ok(())
    }
}

/// Everything in the account that a controller might touch, as AWS describes it.
async fn account(stage: &Stage) -> Result<BTreeSet<String>> {
    let (elb, ec2) = (&stage.aws.elb, &stage.aws.ec2);
    let mut all = BTreeSet::new();
    let mut arns = Vec::new();
    for balancer in elb.describe_load_balancers().send().await?.load_balancers() {
        let arn = balancer.load_balancer_arn().unwrap_or_default();
        let attributes = elb.describe_load_balancer_attributes().load_balancer_arn(arn).send().await?;
        all.insert(format!("{balancer:?} {:?}", attributes.attributes()));
        for listener in elb.describe_listeners().load_balancer_arn(arn).send().await?.listeners() {
            let rules = elb.describe_rules().listener_arn(listener.listener_arn().unwrap_or_default()).send().await?;
            all.insert(format!("{listener:?} {:?}", rules.rules()));
        }
        arns.push(arn.to_owned());
    }
    for group in elb.describe_target_groups().send().await?.target_groups() {
        let arn = group.target_group_arn().unwrap_or_default();
        let attributes = elb.describe_target_group_attributes().target_group_arn(arn).send().await?;
        let targets = elb.describe_target_health().target_group_arn(arn).send().await?;
        all.insert(format!("{group:?} {:?} {:?}", attributes.attributes(), targets.target_health_descriptions()));
        arns.push(arn.to_owned());
    }
    for arns in arns.chunks(20) {
        let tags = elb.describe_tags().set_resource_arns(Some(arns.to_vec())).send().await?;
        all.extend(tags.tag_descriptions().iter().map(|tags| format!("{tags:?}")));
    }
    let groups = ec2.describe_security_groups().send().await?;
    all.extend(groups.security_groups().iter().map(|group| format!("{group:?}")));
    let interfaces = ec2.describe_network_interfaces().send().await?;
    // Addresses come and go with pods.
    let of_interface =
        |interface: &NetworkInterface| format!("{:?} {:?}", interface.network_interface_id(), interface.groups());
    all.extend(interfaces.network_interfaces().iter().map(of_interface));
    let subnets = ec2.describe_subnets().send().await?;
    all.extend(subnets.subnets().iter().map(|subnet| format!("{:?} {:?}", subnet.subnet_id(), subnet.tags())));
    Ok(all)
}

// Classes.

#[test]
fn an_ingress_that_goes_to_another_class_is_let_go() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "class-change";
        stage.cluster.namespace(namespace).await?;
        let of_class = |class: &str| {
            let mut ingress = ingress("web", &[("kubernetes.io/ingress.class", class)], &["web"]);
            ingress["spec"]["ingressClassName"] = Value::Null;
            ingress
        };
        apply(&stage, namespace, &[service("web"), of_class("alb")]).await?;
        served(&stage, namespace, "web").await?;
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;
        apply(&stage, namespace, &[of_class("nginx")]).await?;
        wait_until(SOON, "the Ingress to be let go", async || {
            let object = stage.cluster.get(INGRESS.0, INGRESS.1, Some(namespace), "web").await?;
            let object = object.context("the Ingress is gone")?;
            ensure!(items(&object, "/metadata/finalizers").is_empty(), "it is held: {}", object["metadata"]);
            Ok(true)
        })
        .await?;
        wait_until(SOON, "the account to be empty", async || account_is_empty(&stage).await).await?;
        let bindings = stage.cluster.list("elbv2.k8s.aws/v1beta1", "TargetGroupBinding", Some(namespace)).await?;
        ensure!(bindings.is_empty(), "TargetGroupBindings are left: {bindings:?}");
        warnings_are(&stage, namespace, &[]).await?;
        // And back.
        apply(&stage, namespace, &[of_class("alb")]).await?;
        served(&stage, namespace, "web").await?;
        leave(stage, namespace).await
    });
}

#[test]
fn an_ingress_whose_class_is_deleted_keeps_what_it_has() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "class-deletion";
        stage.cluster.namespace(namespace).await?;
        let class = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": "second"},
            "spec": {"controller": "ingress.k8s.aws/alb"},
        });
        let of_class = |services: &[&str]| {
            let mut ingress = ingress("web", &[], services);
            ingress["spec"]["ingressClassName"] = "second".into();
            ingress
        };
        stage.cluster.apply(std::slice::from_ref(&class)).await?;
        apply(&stage, namespace, &[service("web"), service("api"), of_class(&["web"])]).await?;
        served(&stage, namespace, "web").await?;
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;
        stage.settle(QUIET, SOON).await?;
        let before = stack_of(&stage, namespace, "web").await?;

        stage.proxy.reset();
        stage.cluster.delete("networking.k8s.io/v1", "IngressClass", None, "second").await?;
        let expected = "Ingress/web FailedBuildModel: Failed build model due to spec.ingressClassName: the IngressClass `second` does not exist; create it, or name another class";
        warnings_become(&stage, namespace, &[expected]).await?;
        stage.settle(QUIET, SOON).await?;
        ensure!(stage.proxy.counts().writes == 0, "something was changed: {:?}", stage.proxy.counts().actions);
        ensure!(stack_of(&stage, namespace, "web").await? == before, "what it has in AWS is not as before");

        stage.cluster.apply(&[class]).await?;
        apply(&stage, namespace, &[of_class(&["web", "api"])]).await?;
        rules_become(&stage, namespace, "web", &["/web forward", "/api forward"]).await?;
        warnings_are(&stage, namespace, &[expected]).await?;
        stage.cluster.delete(INGRESS.0, INGRESS.1, Some(namespace), "web").await?;
        gone(&stage, INGRESS.0, INGRESS.1, Some(namespace), "web").await?;
        stage.cluster.delete("networking.k8s.io/v1", "IngressClass", None, "second").await?;
        leave(stage, namespace).await
    });
}

// Services and pods.

#[test]
fn a_service_is_answered_with_503_only_when_it_is_really_gone() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "service-deletion";
        stage.cluster.namespace(namespace).await?;
        let mut held = service("web");
        held["metadata"]["finalizers"] = json!(["example.com/hold"]);
        apply(&stage, namespace, &[held, ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;
        stage.settle(QUIET, SOON).await?;

        stage.proxy.reset();
        stage.cluster.delete("v1", "Service", Some(namespace), "web").await?;
        let object = stage.cluster.get("v1", "Service", Some(namespace), "web").await?.context("it is gone")?;
        ensure!(!text(&object, "/metadata/deletionTimestamp").is_empty(), "it is not being deleted");
        stage.settle(QUIET, SOON).await?;
        ensure!(stage.proxy.counts().writes == 0, "something was changed: {:?}", stage.proxy.counts().actions);

        let free = json!({"metadata": {"finalizers": null}});
        stage.cluster.merge("v1", "Service", Some(namespace), "web", &free).await?;
        rules_become(&stage, namespace, "web", &["/web 503"]).await?;
        let expected = [
            "Ingress/web BackendNotFound: spec.rules[0].http.paths[0].backend.service: the Service `web` does not exist in the namespace `service-deletion`; requests are answered with 503 until it does; create it, or correct the name",
            "TargetGroupBinding/k8s-serviced-web-* BackendNotFound: there is no Service service-deletion/web, so nothing is registered; create it, or correct spec.serviceRef",
        ];
        warnings_become(&stage, namespace, &expected).await?;
        apply(&stage, namespace, &[service("web")]).await?;
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;
        wait_until(SOON, "the old target group to be gone", async || {
            let stack = stack_of(&stage, namespace, "web").await?;
            let groups = stack["targetGroups"].as_object().context("it has no target group")?;
            ensure!(groups.len() == 1, "there are {:?}", groups.keys().collect::<Vec<_>>());
            Ok(true)
        })
        .await?;
        warnings_are(&stage, namespace, &expected).await?;
        leave(stage, namespace).await
    });
}

#[test]
fn targets_follow_the_readiness_of_pods_and_are_registered_before_others_go() {
    run(async {
        let mut stage = Stage::shared().await?;
        let namespace = "readiness";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), pod("one"), pod("two"), ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        let (one, two) = (address(&stage, namespace, "one").await?, address(&stage, namespace, "two").await?);
        let (one, two) = (one.as_str(), two.as_str());
        set_ready(&stage, namespace, "one", true).await?;
        targets_become(&stage, namespace, &[one]).await?;
        set_ready(&stage, namespace, "one", false).await?;
        targets_become(&stage, namespace, &[]).await?;
        set_ready(&stage, namespace, "one", true).await?;
        targets_become(&stage, namespace, &[one]).await?;

        // One pod takes the other's place, and the controller sees both at once.
        stage.settle(QUIET, SOON).await?;
        stage.stop_controller().await?;
        set_ready(&stage, namespace, "two", true).await?;
        set_ready(&stage, namespace, "one", false).await?;
        endpoints_become(&stage, namespace, &[two]).await?;
        stage.proxy.reset();
        stage.start_controller(&[]).await?;
        targets_become(&stage, namespace, &[two]).await?;
        let log = stage.proxy.log();
        let names = log.iter().filter_map(|call| call.name.strip_prefix("elasticloadbalancing:"));
        let changes: Vec<&str> = names.filter(|name| name.ends_with("isterTargets")).collect();
        ensure!(changes == ["RegisterTargets", "DeregisterTargets"], "the calls were {changes:?}");

        stage.cluster.delete("v1", "Pod", Some(namespace), "two").await?;
        targets_become(&stage, namespace, &[]).await?;
        leave(stage, namespace).await
    });
}

/// A pod of the Service `web` that is not ready yet.
fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}, "annotations": {READY: "false"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "app", "image": "example.com/app", "ports": [{"containerPort": 8080}]}],
        },
    })
}

/// The pod's address and port, once it has one.
async fn address(stage: &Stage, namespace: &str, name: &str) -> Result<String> {
    let mut address = String::new();
    wait_until(SOON, "the pod's address", async || {
        let pod = stage.cluster.get("v1", "Pod", Some(namespace), name).await?.context("no pod")?;
        address = format!("{}:8080", text(&pod, "/status/podIP"));
        Ok(!text(&pod, "/status/podIP").is_empty())
    })
    .await?;
    Ok(address)
}

async fn set_ready(stage: &Stage, namespace: &str, name: &str, ready: bool) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {READY: ready.to_string()}}});
    stage.cluster.merge("v1", "Pod", Some(namespace), name, &patch).await?;
    wait_until(SOON, "the kubelet to follow", async || {
        let pod = stage.cluster.get("v1", "Pod", Some(namespace), name).await?.context("no pod")?;
        Ok(condition_is_true(&pod, "Ready") == ready)
    })
    .await
}

/// Waits until the Ready endpoints of the Service are these.
async fn endpoints_become(stage: &Stage, namespace: &str, expected: &[&str]) -> Result<()> {
    wait_until(SOON, &format!("the endpoints to be {expected:?}"), async || {
        let slices = stage.cluster.list("discovery.k8s.io/v1", "EndpointSlice", Some(namespace)).await?;
        let endpoints = slices.iter().flat_map(|slice| items(slice, "/endpoints"));
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
        let found: Vec<String> = ready.map(|endpoint| format!("{}:8080", text(endpoint, "/addresses/0"))).collect();
        ensure!(found == expected, "they are {found:?}");
        Ok(true)
    })
    .await
}

/// Waits until the registered targets are these.
async fn targets_become(stage: &Stage, namespace: &str, expected: &[&str]) -> Result<()> {
    wait_until(SOON, &format!("the targets to be {expected:?}"), async || {
        let stack = stack_of(stage, namespace, "web").await?;
        let groups: Vec<&Value> = stack["targetGroups"].as_object().into_iter().flat_map(|it| it.values()).collect();
        let [group] = groups.as_slice() else { anyhow::bail!("it has {} target groups", groups.len()) };
        let found: Vec<&str> = items(group, "/targets").iter().filter_map(Value::as_str).collect();
        ensure!(found == expected, "they are {found:?}");
        Ok(true)
    })
    .await
}
