//! The lab that the tests share, in turns.

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::cluster::{EventLine, items, text};
use e2e::lab::controller::{Controller, SUBCOMMAND};
use e2e::lab::world::NODE_SECURITY_GROUP;
use e2e::lab::{Lab, Options, fabric, wait_for, wait_until};
use e2e::symbolic::Snapshot;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Enough for anything that the controller does at once, on a slow machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// For what has to be tried again, with a delay that grows.
pub(crate) const WITH_RETRIES: Duration = Duration::from_secs(90);
/// Without an AWS call for this long, the controller has nothing to do.
pub(crate) const QUIET: Duration = Duration::from_secs(3);

/// The lab outlives each test, so what runs in it must too.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
static LAB: LazyLock<Mutex<Option<Lab>>> = LazyLock::new(Mutex::default);

/// Runs a test's body.
pub(crate) fn run(test: impl Future<Output = Result<()>>) {
    if let Err(error) = RUNTIME.block_on(test) {
        panic!("{error:#}");
    }
}

/// Takes a turn without a lab: no other test runs while a test holds it.
pub(crate) async fn turn() -> MutexGuard<'static, Option<Lab>> {
    LAB.lock().await
}

/// The lab, and a controller that runs in it. No other test has it until this is dropped.
pub(crate) struct Stage {
    lab: Option<MutexGuard<'static, Option<Lab>>>,
    pub controller: Option<Controller>,
}

impl Stage {
    /// The shared lab with a fake kubelet, without anything that an earlier test left, and a controller.
    pub(crate) async fn shared() -> Result<Self> {
        let mut stage = Self::without_controller().await?;
        stage.start_controller(&[]).await?;
        Ok(stage)
    }

    /// The shared lab with a fake kubelet and no controller.
    pub(crate) async fn without_controller() -> Result<Self> {
        Self::take(Options { kubelet: true, ..Options::default() }, false).await
    }

    /// Returns a new lab, without kubelet and controller.
    pub(crate) async fn fresh() -> Result<Self> {
        Self::take(Options::default(), true).await
    }

    /// Returns a new lab whose load balancers answer and whose pods run, without a controller. Times are shorter than AWS's.
    pub(crate) async fn answering() -> Result<Self> {
        let traffic =
            albatross_fabric::node::Options { delay_millis: (10, 300), time_scale: 0.1, ..fabric::like_aws() };
        Self::take(Options { kubelet: true, traffic: Some(traffic), ..Options::default() }, true).await
    }

    async fn take(options: Options, fresh: bool) -> Result<Self> {
        let mut lab = LAB.lock().await;
        if fresh {
            lab.take();
        }
        if lab.is_none() {
            *lab = Some(Lab::start(Path::new(env!("CARGO_BIN_EXE_e2e")), options).await?);
        }
        Ok(Self { lab: Some(lab), controller: None })
    }

    /// Starts the controller and waits until it says that it is ready.
    pub(crate) async fn start_controller(&mut self, flags: &[&str]) -> Result<()> {
        let mut controller = self.controller(flags)?;
        controller.ready(SOON).await?;
        self.controller = Some(controller);
        Ok(())
    }

    /// Ends the controller as a rollout does.
    pub(crate) async fn stop_controller(&mut self) -> Result<()> {
        self.controller.take().context("no controller runs")?.stop().await
    }

    /// Ends the lab, with all that this test has left in it.
    pub(crate) fn end_lab(mut self) {
        self.was_within_its_policy();
        self.controller.take();
        if let Some(lab) = self.lab.as_mut() {
            lab.take();
        }
        self.lab.take();
    }

    /// Keeps the lab for the next test: everything that this one made is gone.
    pub(crate) fn leave_clean(mut self) {
        self.was_within_its_policy();
        self.controller.take();
        self.lab.take();
    }
}

impl Stage {
    /// Panics when the controller has called what the IAM policy that it prints for itself does not allow.
    fn was_within_its_policy(&self) {
        let beyond = self.proxy.beyond_policy();
        assert!(beyond.is_empty(), "`albatross iam-policy` does not allow: {beyond:#?}");
    }
}

impl Deref for Stage {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.lab.as_ref().and_then(|lab| lab.as_ref()).expect("the lab is held until the stage is left")
    }
}

impl Drop for Stage {
    /// A test that did not leave the lab clean takes it down, and shows what the controller said.
    fn drop(&mut self) {
        self.controller.take();
        if let Some(lab) = self.lab.as_mut().and_then(|lab| lab.take()) {
            eprintln!("--- the end of the controller's log\n{}", lab.controller_log(60));
            let calls = lab.proxy.log();
            eprintln!("--- the last AWS calls");
            calls.iter().skip(calls.len().saturating_sub(30)).for_each(|call| eprintln!("{:.300}", call.to_string()));
        }
    }
}

// Programs.

/// Returns the result of a controller that cannot start: its exit code, and its whole output.
pub(crate) async fn start_that_fails(flags: &[&str], environment: &[(&str, &str)]) -> Result<(Option<i32>, String)> {
    let home = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_e2e"));
    command.args([SUBCOMMAND, "controller", "--cluster-name=demo", "--enable-leader-election=false"]).args(flags);
    command.env_clear().env("HOME", home.path()).envs(environment.iter().copied());
    command.current_dir(home.path()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(15), command.output());
    let output = output.await.context("the controller still runs, although it cannot start")??;
    ensure!(output.stdout.is_empty(), "it writes to standard output: {}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8(output.stderr)?;
    Ok((output.status.code(), said.split_inclusive('\n').map(without_time).collect()))
}

/// A line of the log without the time that it begins with.
fn without_time(line: &str) -> &str {
    match line.split_once("Z ") {
        Some((time, rest)) if time.starts_with("20") && !time.contains(' ') => rest,
        _ => line,
    }
}

/// A way to a server on loopback that can be cut, as an outage of the server looks to its clients.
pub(crate) struct Way {
    pub port: u16,
    server: SocketAddr,
    task: JoinHandle<()>,
}

impl Way {
    pub(crate) async fn to(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        Ok(Self { port, server, task: tokio::spawn(pass_on(listener, server)) })
    }

    /// Closes all connections, and refuses new ones.
    pub(crate) async fn cut(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Opens it again.
    pub(crate) async fn mend(&mut self) -> Result<()> {
        self.task = tokio::spawn(pass_on(TcpListener::bind(("127.0.0.1", self.port)).await?, self.server));
        Ok(())
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(listener: TcpListener, server: SocketAddr) {
    // Dropping the set ends every connection.
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        connections.spawn(async move {
            let mut server = TcpStream::connect(server).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
}

/// A way to the lab's API server.
pub(crate) async fn way_to_api_server(stage: &Stage) -> Result<Way> {
    let kubeconfig: Value = serde_json::from_str(&fs::read_to_string(&stage.kubeconfig)?)?;
    let server = text(&kubeconfig, "/clusters/0/cluster/server");
    Way::to(server.trim_start_matches("https://").parse()?).await
}

/// The lab's kubeconfig, for an API server at another port of loopback.
pub(crate) fn kubeconfig_with_port(stage: &Stage, port: u16) -> Result<String> {
    let mut kubeconfig: Value = serde_json::from_str(&fs::read_to_string(&stage.kubeconfig)?)?;
    kubeconfig["clusters"][0]["cluster"]["server"] = format!("https://127.0.0.1:{port}").into();
    Ok(kubeconfig.to_string())
}

// Manifests.

pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

pub(crate) fn deployment(name: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    // A namespace's deletion waits for as long as its pods may take to end.
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "app", "image": "example.com/app", "ports": [{"containerPort": 8080}]}],
                },
            },
        },
    })
}

/// An Ingress with a path for each Service, of the Service's name.
pub(crate) fn ingress(name: &str, annotations: &[(&str, &str)], services: &[&str]) -> Value {
    let mut all = Map::new();
    all.insert("alb.ingress.kubernetes.io/scheme".to_owned(), "internet-facing".into());
    all.insert("alb.ingress.kubernetes.io/target-type".to_owned(), "ip".into());
    all.extend(annotations.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))));
    let path = |service: &&str| {
        json!({
            "path": format!("/{service}"),
            "pathType": "Exact",
            "backend": {"service": {"name": service, "port": {"number": 80}}},
        })
    };
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "annotations": all},
        "spec": {
            "ingressClassName": "alb",
            "rules": [{"host": format!("{name}.example.com"), "http": {"paths": services.iter().map(path).collect::<Vec<_>>()}}],
        },
    })
}

pub(crate) async fn apply(lab: &Lab, namespace: &str, objects: &[Value]) -> Result<()> {
    let mut objects = objects.to_vec();
    objects.iter_mut().for_each(|object| object["metadata"]["namespace"] = namespace.into());
    lab.cluster.apply(&objects).await
}

// Conditions.

/// Fails when the condition ever does not hold in this time.
pub(crate) async fn stays(time: Duration, what: &str, mut condition: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        condition().await.with_context(|| format!("it is not so that {what}"))?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Waits until nothing was changed for a while; reads may go on.
pub(crate) async fn quiet_writes(lab: &Lab) -> Result<()> {
    let mut last = (lab.proxy.counts().writes, Instant::now());
    wait_until(SOON, "the changes to end", async || {
        let writes = lab.proxy.counts().writes;
        if writes != last.0 {
            last = (writes, Instant::now());
        }
        Ok(last.1.elapsed() >= QUIET)
    })
    .await
}

pub(crate) async fn served(lab: &Lab, namespace: &str, ingress: &str) -> Result<()> {
    served_within(lab, namespace, ingress, SOON).await
}

/// Waits until the Ingress's status has the host name of a load balancer that AWS has.
pub(crate) async fn served_within(lab: &Lab, namespace: &str, ingress: &str, deadline: Duration) -> Result<()> {
    let what = format!("Ingress {namespace}/{ingress} to have a load balancer");
    wait_until(deadline, &what, async || {
        let object = lab.cluster.get("networking.k8s.io/v1", "Ingress", Some(namespace), ingress).await?;
        let host = object.map(|object| text(&object, "/status/loadBalancer/ingress/0/hostname").to_owned());
        let host = host.filter(|host| !host.is_empty());
        let Some(host) = host else { return Ok(false) };
        let mut balancers = lab.aws.elb.describe_load_balancers().into_paginator().items().send();
        while let Some(balancer) = balancers.next().await {
            if balancer?.dns_name().is_some_and(|name| name.eq_ignore_ascii_case(&host)) {
                return Ok(true);
            }
        }
        Ok(false)
    })
    .await
}

/// Waits until the rules of the Ingress's listener on port 80 are these, each `path forward` or `path status`.
pub(crate) async fn rules_become(lab: &Lab, namespace: &str, ingress: &str, expected: &[&str]) -> Result<()> {
    let what = format!("the rules of {namespace}/{ingress} to be {expected:?}");
    wait_until(SOON, &what, async || {
        let snapshot = Snapshot::take(lab).await?;
        let stack = snapshot.stacks.get(&format!("ingress:{namespace}/{ingress}")).context("it has no stack")?;
        let balancers = stack["loadBalancers"].as_object().context("it has no load balancer")?;
        ensure!(balancers.len() == 1, "it has {} load balancers", balancers.len());
        let rules = balancers.values().flat_map(|balancer| items(balancer, "/listeners/80/rules"));
        let found: Vec<String> = rules.map(rule_line).collect();
        ensure!(found == expected, "they are {found:?}");
        Ok(true)
    })
    .await
}

fn rule_line(rule: &Value) -> String {
    let conditions = items(rule, "/conditions").iter();
    let paths =
        conditions.flat_map(|condition| items(condition, "/PathPatternConfig/Values")).filter_map(Value::as_str);
    let action = match text(rule, "/actions/0/Type") {
        "fixed-response" => text(rule, "/actions/0/FixedResponseConfig/StatusCode"),
        other => other,
    };
    format!("{} {action}", paths.collect::<Vec<_>>().join(","))
}

pub(crate) async fn targets_are_the_pods(lab: &Lab, namespace: &str, service: &str, count: usize) -> Result<()> {
    targets_within(lab, namespace, service, count, SOON).await
}

/// Waits until there are `count` Ready pods of the Service, and its target group's targets are just they.
pub(crate) async fn targets_within(
    lab: &Lab,
    namespace: &str,
    service: &str,
    count: usize,
    deadline: Duration,
) -> Result<()> {
    let what = format!("the targets of {namespace}/{service} to be its {count} pods");
    wait_until(deadline, &what, async || {
        let pods = lab.cluster.list("v1", "Pod", Some(namespace)).await?;
        let own = pods.iter().filter(|pod| text(pod, "/metadata/labels/app") == service);
        let wanted: BTreeSet<String> = own.map(|pod| format!("{}:8080", text(pod, "/status/podIP"))).collect();
        ensure!(wanted.len() == count, "the pods are {wanted:?}");
        let snapshot = Snapshot::take(lab).await?;
        let groups = snapshot.stacks.values().filter_map(|stack| stack["targetGroups"].as_object()).flatten();
        let end = format!("-{service}:80");
        let mut groups = groups.filter(|(name, _)| name.contains(&format!("|{namespace}/")) && name.ends_with(&end));
        let (_, group) = groups.next().context("there is no target group")?;
        let found: BTreeSet<String> =
            items(group, "/targets").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        ensure!(found == wanted, "the targets are {found:?}, the pods {wanted:?}");
        Ok(true)
    })
    .await
}

/// Waits for a Warning about the object whose message has `part`.
pub(crate) async fn warning(lab: &Lab, namespace: &str, object: &str, part: &str) -> Result<EventLine> {
    wait_for(SOON, &format!("a Warning on {object} about {part}"), async || {
        let events = lab.cluster.events(namespace).await?;
        let wanted =
            |event: &&EventLine| event.type_ == "Warning" && event.object == object && event.message.contains(part);
        match events.iter().find(wanted) {
            Some(event) => Ok(Some(event.clone())),
            None => anyhow::bail!("the events are {events:?}"),
        }
    })
    .await
}

/// Waits until the Warnings in the namespace are exactly these, in any order, each `Kind/name reason: message` with the
/// hashes of names as `*`.
pub(crate) async fn warnings_become(lab: &Lab, namespace: &str, expected: &[&str]) -> Result<()> {
    wait_until(SOON, &format!("the Warnings in {namespace} to be as expected"), async || {
        warnings_are(lab, namespace, expected).await.map(|()| true)
    })
    .await
}

/// Fails unless the controller's Warnings in the namespace are exactly these.
pub(crate) async fn warnings_are(lab: &Lab, namespace: &str, expected: &[&str]) -> Result<()> {
    let events = lab.cluster.list("v1", "Event", Some(namespace)).await?;
    // Kubernetes also emits Warnings.
    let ours = |event: &&Value| {
        let of_us = ["ingress", "service", "targetGroupBinding"].contains(&text(event, "/source/component"));
        of_us && text(event, "/type") == "Warning"
    };
    let line = |event: &Value| {
        let [kind, name] = ["/involvedObject/kind", "/involvedObject/name"].map(|field| text(event, field));
        without_hashes(&format!("{kind}/{name} {}: {}", text(event, "/reason"), text(event, "/message")))
    };
    let mut found: Vec<String> = events.iter().filter(ours).map(line).collect();
    found.sort();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    ensure!(found == expected, "they are:\n  {}\nand not:\n  {}", found.join("\n  "), expected.join("\n  "));
    Ok(())
}

/// The text with the hashes at the ends of generated names replaced.
pub(crate) fn without_hashes(text: &str) -> String {
    let in_name = |character: char| character.is_ascii_alphanumeric() || character == '-';
    let mut left = text;
    let mut all = String::new();
    while let Some(first) = left.chars().next() {
        let end = left.find(|character| !in_name(character)).unwrap_or(left.len());
        let (name, rest) = left.split_at(end.max(first.len_utf8()));
        all.push_str(&e2e::symbolic::without_hash(name));
        left = rest;
    }
    all
}

/// Returns the AWS resources of an Ingress.
pub(crate) async fn stack_of(lab: &Lab, namespace: &str, ingress: &str) -> Result<Value> {
    let mut snapshot = Snapshot::take(lab).await?;
    let stack = snapshot.stacks.remove(&format!("ingress:{namespace}/{ingress}"));
    stack.with_context(|| format!("Ingress {namespace}/{ingress} has nothing in AWS"))
}

pub(crate) async fn gone(lab: &Lab, api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Result<()> {
    wait_until(WITH_RETRIES, &format!("{kind} {name} to be gone"), async || {
        match lab.cluster.get(api_version, kind, namespace, name).await? {
            None => Ok(true),
            Some(object) => anyhow::bail!("it is still there: {}", object["metadata"]["finalizers"]),
        }
    })
    .await
}

/// The ingress rules of the nodes' security group.
pub(crate) async fn node_rules(lab: &Lab) -> Result<Vec<String>> {
    let snapshot = Snapshot::take(lab).await?;
    let group = &snapshot.stacks["none"]["securityGroups"][NODE_SECURITY_GROUP];
    Ok(items(group, "/ingress").iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Returns true if AWS has only the lab's own resources; the error lists the others.
pub(crate) async fn account_is_empty(lab: &Lab) -> Result<bool> {
    let snapshot = Snapshot::take(lab).await?;
    let mut left = Vec::new();
    for (stack, kinds) in &snapshot.stacks {
        for (kind, resources) in kinds.as_object().into_iter().flatten() {
            let names = resources.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
            let ours = names.filter(|name| !name.starts_with("tg:ext-") && *name != NODE_SECURITY_GROUP);
            left.extend(ours.map(|name| format!("{stack} {kind} {name}")));
        }
    }
    left.extend(node_rules(lab).await?);
    ensure!(left.is_empty(), "there are {left:?}");
    Ok(true)
}

/// Deletes the Ingresses, finds that they go and that the account is as before, and leaves the lab to the next test. The
/// namespace goes in its own time, which is five seconds at least.
pub(crate) async fn leave(stage: Stage, namespace: &str) -> Result<()> {
    let (version, kind) = ("networking.k8s.io/v1", "Ingress");
    for object in stage.cluster.list(version, kind, Some(namespace)).await? {
        stage.cluster.delete(version, kind, Some(namespace), text(&object, "/metadata/name")).await?;
    }
    for object in stage.cluster.list(version, kind, Some(namespace)).await? {
        gone(&stage, version, kind, Some(namespace), text(&object, "/metadata/name")).await?;
    }
    wait_until(WITH_RETRIES, "the account to be empty", async || account_is_empty(&stage).await).await?;
    stage.cluster.delete("v1", "Namespace", None, namespace).await?;
    stage.leave_clean();
    Ok(())
}

/// Deletes the namespace, finds that it goes and that the account is as before, and leaves the lab to the next test.
pub(crate) async fn finish(stage: Stage, namespace: &str) -> Result<()> {
    stage.cluster.delete("v1", "Namespace", None, namespace).await?;
    gone(&stage, "v1", "Namespace", None, namespace).await?;
    wait_until(WITH_RETRIES, "the account to be empty", async || account_is_empty(&stage).await).await?;
    stage.leave_clean();
    Ok(())
}
