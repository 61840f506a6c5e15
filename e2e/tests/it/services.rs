//! Services that become Network Load Balancers, over their life: which are taken and which left unchanged, the messages, and that
//! nothing stays behind.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::cluster::{EventLine, items, text};
use e2e::lab::proxy::{Calls, Faults, is_read};
use e2e::lab::wait_until;
use e2e::symbolic::Snapshot;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, account_is_empty, apply, deployment, gone, run, service, warning, warnings_are,
};

const PREFIX: &str = "service.beta.kubernetes.io/";
const TYPE: &str = "aws-load-balancer-type";
const TARGET_TYPE: &str = "aws-load-balancer-nlb-target-type";
const ACKNOWLEDGE: &str = "albatross-acknowledge-orphaned-load-balancer";
/// The finalizer that keeps a Service until its load balancer is gone.
const FINALIZER: &str = "service.k8s.aws/resources";
/// The same of the controller that makes Classic Load Balancers.
const FOREIGN_FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
/// A pass that failed for a minute may wait for another one.
const AFTER_A_MINUTE: Duration = Duration::from_secs(150);

/// A Service of type LoadBalancer with these annotations, keys without their prefix, without a class.
fn annotated(name: &str, annotations: &[(&str, &str)]) -> Value {
    let annotations = annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), Value::from(*value)));
    let mut service = service(name);
    service["metadata"]["annotations"] = annotations.collect::<Map<_, _>>().into();
    service["spec"]["type"] = "LoadBalancer".into();
    service
}

/// The same, and this controller's by its class, with pods as targets.
fn of_class(name: &str, annotations: &[(&str, &str)]) -> Value {
    let mut service = annotated(name, &[annotations, &[(TARGET_TYPE, "ip")]].concat());
    service["spec"]["loadBalancerClass"] = "service.k8s.aws/nlb".into();
    service
}

async fn get(stage: &Stage, namespace: &str, name: &str) -> Result<Value> {
    stage.cluster.get("v1", "Service", Some(namespace), name).await?.context("the Service is gone")
}

fn finalizers(service: &Value) -> Vec<&str> {
    items(service, "/metadata/finalizers").iter().filter_map(Value::as_str).collect()
}

/// Waits until the Service's status has the host name, in lower case, of a Network Load Balancer that AWS has.
async fn served(stage: &Stage, namespace: &str, name: &str) -> Result<String> {
    let mut host = String::new();
    wait_until(SOON, &format!("Service {namespace}/{name} to have a load balancer"), async || {
        let service = get(stage, namespace, name).await?;
        let reported = items(&service, "/status/loadBalancer/ingress");
        let [only] = reported else { anyhow::bail!("it tells {reported:?}") };
        host = text(only, "/hostname").to_owned();
        ensure!(host == host.to_lowercase(), "{host} is not in lower case");
        let balancers = stage.aws.elb.describe_load_balancers().send().await?;
        let mut names = balancers.load_balancers().iter().filter_map(|balancer| balancer.dns_name());
        ensure!(names.any(|name| name.eq_ignore_ascii_case(&host)), "AWS has no {host}");
        ensure!(finalizers(&service).contains(&FINALIZER), "its finalizers are {:?}", finalizers(&service));
        Ok(true)
    })
    .await?;
    Ok(host)
}

/// Returns the AWS resources of the Service, if any.
async fn stack(stage: &Stage, namespace: &str, name: &str) -> Result<Option<Value>> {
    Ok(Snapshot::take(stage).await?.stacks.remove(&format!("service:{namespace}/{name}")))
}

/// Waits until the targets of the Service's only target group are its `count` pods.
async fn targets_are_the_pods(stage: &Stage, namespace: &str, name: &str, count: usize) -> Result<()> {
    wait_until(SOON, &format!("the targets of {namespace}/{name} to be its {count} pods"), async || {
        let pods = stage.cluster.list("v1", "Pod", Some(namespace)).await?;
        let own = pods.iter().filter(|pod| text(pod, "/metadata/labels/app") == name);
        let wanted: BTreeSet<String> = own.map(|pod| format!("{}:8080", text(pod, "/status/podIP"))).collect();
        ensure!(wanted.len() == count, "the pods are {wanted:?}");
        let stack = stack(stage, namespace, name).await?.context("it has nothing in AWS")?;
        let groups: Vec<&Value> = stack["targetGroups"].as_object().into_iter().flat_map(|it| it.values()).collect();
        let [group] = groups.as_slice() else { anyhow::bail!("it has {} target groups", groups.len()) };
        let found = items(group, "/targets").iter().filter_map(Value::as_str).map(str::to_owned);
        let found: BTreeSet<String> = found.collect();
        ensure!(found == wanted, "the targets are {found:?}, the pods {wanted:?}");
        Ok(true)
    })
    .await
}

/// Waits until the Service is released: no finalizer of the controller, no host name, nothing in AWS and no binding.
async fn check_released(stage: &Stage, namespace: &str, name: &str) -> Result<()> {
    wait_until(WITH_RETRIES, "the Service to be let go", async || {
        let service = get(stage, namespace, name).await?;
        ensure!(!finalizers(&service).contains(&FINALIZER), "it is held");
        let reported = items(&service, "/status/loadBalancer/ingress");
        ensure!(reported.is_empty(), "it tells {reported:?}");
        Ok(true)
    })
    .await?;
    nothing_is_left(stage, namespace, SOON).await
}

async fn nothing_is_left(stage: &Stage, namespace: &str, deadline: Duration) -> Result<()> {
    wait_until(deadline, "the account to be empty", async || account_is_empty(stage).await).await?;
    let bindings = stage.cluster.list("elbv2.k8s.aws/v1beta1", "TargetGroupBinding", Some(namespace)).await?;
    ensure!(bindings.is_empty(), "TargetGroupBindings are left: {bindings:?}");
    Ok(())
}

async fn delete(stage: &Stage, namespace: &str, name: &str) -> Result<()> {
    stage.cluster.delete("v1", "Service", Some(namespace), name).await?;
    gone(stage, "v1", "Service", Some(namespace), name).await
}

/// Deletes the Services, finds that they go and that the account is as before, and leaves the lab to the next test.
async fn leave(stage: Stage, namespace: &str) -> Result<()> {
    for service in stage.cluster.list("v1", "Service", Some(namespace)).await? {
        delete(&stage, namespace, text(&service, "/metadata/name")).await?;
    }
    nothing_is_left(&stage, namespace, WITH_RETRIES).await?;
    stage.cluster.delete("v1", "Namespace", None, namespace).await?;
    stage.leave_clean();
    Ok(())
}

/// The events of an object.
async fn events_of(stage: &Stage, namespace: &str, object: &str) -> Result<Vec<EventLine>> {
    let events = stage.cluster.events(namespace).await?;
    Ok(events.into_iter().filter(|event| event.object == object).collect())
}

fn nothing_was_changed(stage: &Stage) -> Result<()> {
    let log = stage.proxy.log();
    let writes: Vec<&str> = log.iter().map(|call| call.name.as_str()).filter(|name| !is_read(name)).collect();
    ensure!(writes.is_empty(), "AWS was changed: {writes:?}");
    Ok(())
}

// A life.

#[test]
fn a_service_gets_a_load_balancer_and_leaves_nothing_behind() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "service-life";
        stage.cluster.namespace(namespace).await?;
        // AWS puts the name into the host name as it is.
        let named = of_class("web", &[("aws-load-balancer-name", "Web-Of-Life")]);
        apply(&stage, namespace, &[deployment("web", 2), named]).await?;
        let host = served(&stage, namespace, "web").await?;
        ensure!(host.starts_with("web-of-life"), "its host name is {host}");
        targets_are_the_pods(&stage, namespace, "web", 2).await?;
        apply(&stage, namespace, &[deployment("web", 3)]).await?;
        targets_are_the_pods(&stage, namespace, "web", 3).await?;
        warnings_are(&stage, namespace, &[]).await?;
        delete(&stage, namespace, "web").await?;
        // The shared security group goes too, and with it the rules that name it.
        nothing_is_left(&stage, namespace, SOON).await?;
        leave(stage, namespace).await
    });
}

#[test]
fn a_restart_on_an_unchanged_service_writes_nothing() {
    run(async {
        let mut stage = Stage::shared().await?;
        let namespace = "service-restart";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[deployment("web", 1), of_class("web", &[])]).await?;
        let host = served(&stage, namespace, "web").await?;
        targets_are_the_pods(&stage, namespace, "web", 1).await?;
        stage.settle(QUIET, SOON).await?;
        let before = stack(&stage, namespace, "web").await?;

        stage.stop_controller().await?;
        stage.proxy.reset();
        stage.start_controller(&[]).await?;
        stage.settle(QUIET, SOON).await?;
        nothing_was_changed(&stage)?;
        ensure!(!stage.proxy.log().is_empty(), "the restarted controller has not looked at AWS at all");
        ensure!(stack(&stage, namespace, "web").await? == before, "what it has in AWS is not as before");

        // And it works: it sees an edit.
        let mut edited = of_class("web", &[]);
        edited["spec"]["ports"] = json!([
            {"name": "one", "port": 80, "targetPort": 8080},
            {"name": "two", "port": 81, "targetPort": 8080},
        ]);
        apply(&stage, namespace, &[edited]).await?;
        wait_until(SOON, "the second listener", async || {
            let stack = stack(&stage, namespace, "web").await?.context("it has nothing in AWS")?;
            let balancers = stack["loadBalancers"].as_object().context("it has no load balancer")?;
            let listeners = balancers.values().filter_map(|balancer| balancer["listeners"].as_object());
            let ports: Vec<&String> = listeners.flat_map(Map::keys).collect();
            ensure!(ports == ["80", "81"], "the listeners are on {ports:?}");
            Ok(true)
        })
        .await?;
        ensure!(served(&stage, namespace, "web").await? == host, "it has another load balancer");
        leave(stage, namespace).await
    });
}

#[test]
fn services_deleted_while_aws_fails_for_a_minute_leave_nothing_behind() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "service-faults";
        stage.cluster.namespace(namespace).await?;
        let names = ["web", "api", "admin"];
        apply(&stage, namespace, &names.map(|name| deployment(name, 1))).await?;
        apply(&stage, namespace, &names.map(|name| of_class(name, &[]))).await?;
        for name in names {
            served(&stage, namespace, name).await?;
            targets_are_the_pods(&stage, namespace, name, 1).await?;
        }
        stage.settle(QUIET, SOON).await?;

        stage.proxy.reset();
        // Of ten calls four are answered with errors before they take effect, and of the others half take effect and are
        // answered with an error or not at all. Calls that read pass.
        let only = Some(Calls::writes());
        let faults =
            Faults { error_rate: 0.4, error_after_rate: 0.3, lost_rate: 0.3, only, seed: 1, ..Faults::default() };
        stage.proxy.set_faults(faults);
        let end = Instant::now() + Duration::from_secs(60);
        for name in names {
            stage.cluster.delete("v1", "Service", Some(namespace), name).await?;
        }
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if stage.cluster.list("v1", "Service", Some(namespace)).await?.is_empty() {
                break;
            }
        }
        let disturbed: BTreeSet<&str> =
            stage.proxy.log().iter().filter(|call| !is_read(&call.name)).filter_map(|call| call.disturbed).collect();
        ensure!(disturbed.len() == 3, "what happened to the changing calls is {disturbed:?}");
        stage.proxy.set_faults(Faults::default());
        wait_until(AFTER_A_MINUTE, "the Services to be gone", async || {
            let left = stage.cluster.list("v1", "Service", Some(namespace)).await?;
            let left: Vec<_> = left.iter().map(|it| (text(it, "/metadata/name"), finalizers(it))).collect();
            ensure!(left.is_empty(), "there are {left:?}");
            Ok(true)
        })
        .await?;
        nothing_is_left(&stage, namespace, AFTER_A_MINUTE).await?;
        leave(stage, namespace).await
    });
}

// The Services that are served.

#[test]
fn a_service_whose_support_is_switched_off_is_let_go() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "service-off";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[annotated("web", &[(TYPE, "external"), (TARGET_TYPE, "ip")])]).await?;
        served(&stage, namespace, "web").await?;
        apply(&stage, namespace, &[annotated("web", &[(TYPE, "external")])]).await?;
        check_released(&stage, namespace, "web").await?;
        // And back, by the other way to say it, and off again.
        apply(&stage, namespace, &[annotated("web", &[(TYPE, "nlb-ip")])]).await?;
        served(&stage, namespace, "web").await?;
        apply(&stage, namespace, &[annotated("web", &[])]).await?;
        check_released(&stage, namespace, "web").await?;

        // The API server takes the class away with the type.
        apply(&stage, namespace, &[of_class("classy", &[])]).await?;
        served(&stage, namespace, "classy").await?;
        let patch = json!({"spec": {"type": "ClusterIP", "loadBalancerClass": null}});
        stage.cluster.merge("v1", "Service", Some(namespace), "classy", &patch).await?;
        check_released(&stage, namespace, "classy").await?;
        warnings_are(&stage, namespace, &[]).await?;
        leave(stage, namespace).await
    });
}

#[test]
fn a_service_of_another_type_is_taken_by_annotation_and_told_its_host_name_in_an_event() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "service-node-port";
        stage.cluster.namespace(namespace).await?;
        let mut node_port = annotated("web", &[(TYPE, "external"), (TARGET_TYPE, "ip")]);
        node_port["spec"]["type"] = "NodePort".into();
        apply(&stage, namespace, &[deployment("web", 1), node_port]).await?;
        targets_are_the_pods(&stage, namespace, "web", 1).await?;
        wait_until(SOON, "an event with the host name", async || {
            let balancers = stage.aws.elb.describe_load_balancers().send().await?;
            let hosts = balancers.load_balancers().iter().filter_map(|balancer| balancer.dns_name());
            let hosts: Vec<String> = hosts.map(str::to_lowercase).collect();
            let [host] = hosts.as_slice() else { anyhow::bail!("the load balancers are {hosts:?}") };
            let events = events_of(&stage, namespace, "Service/web").await?;
            let reported = events.iter().any(|event| event.type_ == "Normal" && event.message.contains(host.as_str()));
            ensure!(reported, "no event tells {host}: {events:?}");
            Ok(true)
        })
        .await?;
        stage.settle(QUIET, SOON).await?;
        let service = get(&stage, namespace, "web").await?;
        ensure!(finalizers(&service) == [FINALIZER], "its finalizers are {:?}", finalizers(&service));
        warnings_are(&stage, namespace, &[]).await?;
        let log = stage.controller_log(1000);
        let about = log.lines().filter(|line| line.contains("service-node-port"));
        let bad: Vec<&str> = about.filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
        ensure!(bad.is_empty(), "the log says {bad:?}");
        delete(&stage, namespace, "web").await?;
        leave(stage, namespace).await
    });
}

#[test]
fn a_service_of_the_in_tree_controller_is_left_alone() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "service-in-tree";
        stage.cluster.namespace(namespace).await?;
        let mut of_others = annotated("of-others", &[(TYPE, "external"), (TARGET_TYPE, "ip")]);
        of_others["spec"]["loadBalancerClass"] = "example.com/other".into();
        let left = [
            annotated("in-tree", &[(TYPE, "nlb"), (TARGET_TYPE, "ip")]),
            annotated("half-said", &[(TYPE, "external")]),
            annotated("classic", &[]),
            of_others,
        ];
        stage.proxy.reset();
        apply(&stage, namespace, &left).await?;
        stage.settle(QUIET, SOON).await?;
        nothing_was_changed(&stage)?;
        // The controller is awake: it takes one that is its own.
        apply(&stage, namespace, &[of_class("own", &[])]).await?;
        served(&stage, namespace, "own").await?;
        for name in left.iter().map(|service| text(service, "/metadata/name")) {
            let service = get(&stage, namespace, name).await?;
            ensure!(finalizers(&service).is_empty(), "{name} is held by {:?}", finalizers(&service));
            let reported = items(&service, "/status/loadBalancer/ingress");
            ensure!(reported.is_empty(), "{name} tells {reported:?}");
            let events = events_of(&stage, namespace, &format!("Service/{name}")).await?;
            ensure!(events.is_empty(), "{name} has the events {events:?}");
            ensure!(stack(&stage, namespace, name).await?.is_none(), "{name} has something in AWS");
        }
        leave(stage, namespace).await
    });
}

#[test]
fn a_service_with_a_classic_load_balancer_is_taken_only_when_that_is_acknowledged() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "service-classic";
        stage.cluster.namespace(namespace).await?;
        let classic = "a0123456789abcdef0123456789abcde-1234567890.us-west-2.elb.amazonaws.com";
        let with = |annotations: &[(&str, &str)]| {
            let mut service = annotated("web", annotations);
            service["metadata"]["finalizers"] = json!([FOREIGN_FINALIZER]);
            service
        };
        let mut first = with(&[]);
        first["status"] = json!({"loadBalancer": {"ingress": [{"hostname": classic}]}});
        stage.proxy.reset();
        apply(&stage, namespace, &[first]).await?;
        let taken = [(TYPE, "external"), (TARGET_TYPE, "ip")];
        apply(&stage, namespace, &[with(&taken)]).await?;
        let event = warning(&stage, namespace, "Service/web", classic).await?;
        let key = format!("{PREFIX}{ACKNOWLEDGE}");
        ensure!(event.message.contains(&key), "the event does not name the annotation: {event:?}");
        // Another load balancer's name acknowledges nothing.
        let wrong = [taken.as_slice(), &[(ACKNOWLEDGE, "another.us-west-2.elb.amazonaws.com")]].concat();
        apply(&stage, namespace, &[with(&wrong)]).await?;
        stage.settle(QUIET, SOON).await?;
        nothing_was_changed(&stage)?;
        let service = get(&stage, namespace, "web").await?;
        ensure!(finalizers(&service) == [FOREIGN_FINALIZER], "its finalizers are {:?}", finalizers(&service));
        let reported = text(&service, "/status/loadBalancer/ingress/0/hostname");
        ensure!(reported == classic, "it tells {reported}");

        let right = [taken.as_slice(), &[(ACKNOWLEDGE, classic)]].concat();
        apply(&stage, namespace, &[with(&right)]).await?;
        let host = served(&stage, namespace, "web").await?;
        ensure!(host != classic, "it still tells the classic load balancer");
        // The other controller's finalizer is its own business.
        let free = json!({"metadata": {"finalizers": [FINALIZER]}});
        stage.cluster.merge("v1", "Service", Some(namespace), "web", &free).await?;
        leave(stage, namespace).await
    });
}

// The mistakes.

#[test]
fn a_bad_annotation_is_told_with_key_and_value_and_changes_nothing() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "service-bad";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[of_class("served", &[])]).await?;
        served(&stage, namespace, "served").await?;
        stage.settle(QUIET, SOON).await?;
        let before = stack(&stage, namespace, "served").await?;
        stage.proxy.reset();

        // Key, value, and what the fix has to name.
        let bad = [
            ("aws-load-balancer-scheme", "public", "internet-facing"),
            ("aws-load-balancer-internal", "perhaps", "true"),
            ("aws-load-balancer-ip-address-type", "dual", "dualstack"),
            ("aws-load-balancer-name", "a-name-of-more-than-thirty-two-bytes", "32"),
            ("aws-load-balancer-ssl-ports", "https", "port"),
            ("aws-load-balancer-proxy-protocol", "on", "*"),
            ("aws-load-balancer-proxy-protocol-per-target-group", "web", "port"),
            ("aws-load-balancer-healthcheck-protocol", "grpc", "http"),
            ("aws-load-balancer-healthcheck-interval", "ten", "number"),
            ("aws-load-balancer-healthcheck-port", "admin", "traffic-port"),
            ("aws-load-balancer-cross-zone-load-balancing-enabled", "maybe", "true"),
            ("aws-load-balancer-attributes", "deletion_protection.enabled", "="),
            ("aws-load-balancer-target-group-attributes", "stickiness.enabled", "="),
            // `load-balancer-source-ranges` that are none, the API server refuses by itself.
        ];
        let certificate = stage.world.certificates["example.com"].as_str();
        for (number, (key, value, _)) in bad.iter().enumerate() {
            let mut annotations = vec![(*key, *value)];
            if *key == "aws-load-balancer-ssl-ports" {
                annotations.push(("aws-load-balancer-ssl-cert", certificate));
            }
            apply(&stage, namespace, &[of_class(&format!("bad-{number}"), &annotations)]).await?;
        }
        for (number, (key, value, fix)) in bad.iter().enumerate() {
            let event = warning(&stage, namespace, &format!("Service/bad-{number}"), &format!("{PREFIX}{key}")).await?;
            let message = &event.message;
            ensure!(message.contains(value), "{key}: the value {value} is not told: {message}");
            ensure!(message.contains(fix), "{key}: the fix does not name {fix}: {message}");
        }
        // One that is served keeps what it has.
        apply(&stage, namespace, &[of_class("served", &[("aws-load-balancer-scheme", "public")])]).await?;
        warning(&stage, namespace, "Service/served", "aws-load-balancer-scheme").await?;
        stage.settle(QUIET, SOON).await?;
        nothing_was_changed(&stage)?;
        ensure!(stack(&stage, namespace, "served").await? == before, "what it has in AWS is not as before");
        for number in 0..bad.len() {
            let service = get(&stage, namespace, &format!("bad-{number}")).await?;
            ensure!(finalizers(&service).is_empty(), "{} is held", text(&service, "/metadata/name"));
        }
        leave(stage, namespace).await
    });
}

/// Returns the target groups that the listener on port 80 of a Service forwards to, as `<Service>:<port>=<weight>`.
async fn weights(stage: &Stage, namespace: &str, name: &str) -> Result<Vec<String>> {
    let stack = stack(stage, namespace, name).await?.context("it has nothing in AWS")?;
    let balancers: Vec<&Value> = stack["loadBalancers"].as_object().into_iter().flat_map(|it| it.values()).collect();
    let [balancer] = balancers.as_slice() else { anyhow::bail!("it has {} load balancers", balancers.len()) };
    let groups = items(balancer, "/listeners/80/defaultActions/0/ForwardConfig/TargetGroups");
    let shown = |group: &Value| {
        let name = text(group, "/TargetGroup").rsplit('/').next().unwrap_or_default().to_owned();
        format!("{name}={}", group["Weight"])
    };
    Ok(groups.iter().map(shown).collect())
}

#[test]
fn a_listener_forwards_to_other_services_as_they_come_and_go() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "services-weighted";
        stage.cluster.namespace(namespace).await?;
        let action = |own: u32, blue: u32| {
            let target = json!({"serviceName": "blue", "servicePort": 80, "weight": blue});
            let config = json!({"baseServiceWeight": own, "targetGroups": [target]});
            json!({"type": "forward", "forwardConfig": config}).to_string()
        };
        let with = |own: u32, blue: u32| {
            let mut service = of_class("web", &[]);
            service["metadata"]["annotations"][format!("{PREFIX}actions.TCP-80")] = action(own, blue).into();
            service
        };
        let become_weights = async |expected: &[&str]| {
            wait_until(SOON, &format!("the weights to be {expected:?}"), async || {
                let found = weights(&stage, namespace, "web").await?;
                ensure!(found == expected, "they are {found:?}");
                Ok(true)
            })
            .await
        };
        // One that comes later is noticed.
        apply(&stage, namespace, &[with(10, 90)]).await?;
        warning(&stage, namespace, "Service/web", "the Service `blue` does not exist").await?;
        ensure!(stack(&stage, namespace, "web").await?.is_none(), "it is served in part");
        apply(&stage, namespace, &[service("blue"), deployment("blue", 1)]).await?;
        served(&stage, namespace, "web").await?;
        become_weights(&["blue:80=90", "web:80=10"]).await?;
        apply(&stage, namespace, &[with(0, 1)]).await?;
        become_weights(&["blue:80=1", "web:80=0"]).await?;

        // One that goes leaves what serves as it is, until it can be built again.
        stage.cluster.delete("v1", "Service", Some(namespace), "blue").await?;
        warning(&stage, namespace, "Service/web", "the load balancer stays as it is until it does").await?;
        apply(&stage, namespace, &[with(5, 5)]).await?;
        stage.settle(QUIET, SOON).await?;
        become_weights(&["blue:80=1", "web:80=0"]).await?;
        apply(&stage, namespace, &[service("blue")]).await?;
        become_weights(&["blue:80=5", "web:80=5"]).await?;

        apply(&stage, namespace, &[of_class("web", &[])]).await?;
        become_weights(&["web:80=null"]).await?;
        delete(&stage, namespace, "web").await?;
        nothing_is_left(&stage, namespace, WITH_RETRIES).await?;
        stage.cluster.delete("v1", "Namespace", None, namespace).await?;
        stage.leave_clean();
        Ok(())
    });
}
