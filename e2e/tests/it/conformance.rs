//! The cases in `e2e/cases`, all at once in one cluster: what the controller makes of them is what is expected, whole.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_elasticloadbalancingv2::types::{Tag, TargetDescription};
use e2e::lab::cluster::{documents, items, put_in_namespace, text};
use e2e::lab::proxy::is_read;
use e2e::lab::{Lab, wait_until, workspace};
use e2e::symbolic::{Snapshot, diff};
use serde_json::{Value, json};

use crate::rights::Account;
use crate::support::{SOON, Stage, run};

/// Set to a part of case names to run these only.
const ONLY: &str = "E2E_CASES";
/// No AWS call for so long means that the controller has nothing more to do at once.
const QUIET: Duration = Duration::from_secs(2);
/// The same for one that may be waiting to try again.
const LONG_QUIET: Duration = Duration::from_secs(8);
const DEADLINE: Duration = Duration::from_secs(120);
/// The annotation of a binding's checkpoint.
const CHECKPOINT: &str = "elbv2.k8s.aws/albatross-checkpoint";

#[test]
fn cases_end_in_the_expected_state() {
    run(async {
        let mut stage = Stage::fresh().await?;
        let mut cases = cases()?;
        if stage.cluster.minor_version().await? < 24 {
            let mut kept = Vec::new();
            for case in cases {
                if mixes_protocols(&stage, &case)? {
                    println!("{} is left out: this API server takes one protocol in a Service", name(&case));
                } else {
                    kept.push(case);
                }
            }
            cases = kept;
        }
        let account = Account::install(&stage, false).await?;
        for (namespace, secret) in secrets(&stage, &cases)? {
            account.may_read(&stage, &namespace, &secret).await?;
        }
        let kubeconfig = format!("--kubeconfig={}", account.kubeconfig.display());
        let election = ["--enable-leader-election=true", "--leader-election-namespace=kube-system"];
        let flags = [
            &election[..],
            &["--replaced-load-balancer-hold=0", "--replaced-listener-hold=0", "--propagation-time=0", &kubeconfig],
        ]
        .concat();
        stage.start_controller(&flags).await?;
        let controller = stage.controller.as_ref().context("no controller")?;
        wait_until(SOON, "the controller to lead", async || {
            let state: Value = serde_json::from_str(&controller.state().await?)?;
            Ok(state["leader"] == true)
        })
        .await?;
        let (mut states, mut wrong) = (0, String::new());
        for step in 1.. {
            let now: Vec<&PathBuf> = cases.iter().filter(|case| manifest(case, step).exists()).collect();
            if now.is_empty() {
                break;
            }
            apply(&stage, &now, step).await.with_context(|| format!("step {step}"))?;
            let differences = compare(&stage, &now, step).await?;
            states += now.len();
            for (case, lines) in differences {
                writeln!(wrong, "{case} step {step}: {} differences\n    {}", lines.len(), lines.join("\n    "))?;
            }
        }
        let count = wrong.lines().filter(|line| !line.starts_with(' ')).count();
        ensure!(wrong.is_empty(), "{count} of {states} states are not as expected:\n{wrong}");
        println!("{states} states of {} cases are as expected", cases.len());
        stage.stop_controller().await?;
        as_if_left_by_another(&stage).await?;
        stage.proxy.reset();
        stage.start_controller(&flags).await?;
        stage.controller.as_mut().context("no controller")?.idle(DEADLINE).await?;
        stage.settle(LONG_QUIET, DEADLINE).await?;
        let counts = stage.proxy.counts();
        let writes: Vec<_> = counts.actions.iter().filter(|(action, _)| !is_read(action)).collect();
        ensure!(writes.is_empty(), "taking over what is as it shall be changes AWS: {writes:?}");
        let balancers = counts.actions.get("elasticloadbalancing:DescribeListeners").copied().unwrap_or_default();
        ensure!(balancers > 0, "nothing was taken over: {:?}", counts.actions);
        println!("a takeover of {} cases changes nothing in AWS", cases.len());
        stage.stop_controller().await?;
        let used = account.used(&stage)?;
        if std::env::var_os(ONLY).is_none() {
            account.has_no_more_than_it_needs(&used)?;
        }
        // The next test needs a kubelet and a clean account.
        stage.end_lab();
        Ok(())
    });
}

/// Makes what this controller has left into what aws-load-balancer-controller leaves: without records and checkpoints, with
/// each rule's tag of its priority, and with the default certificate among the others. Prints how many calls that takes: as many
/// as it makes itself on the way back.
async fn as_if_left_by_another(lab: &Lab) -> Result<()> {
    let (mut certified, mut tagged) = (0, 0);
    let mut records = 0;
    for map in lab.cluster.list("v1", "ConfigMap", Some("kube-system")).await? {
        if text(&map, "/metadata/labels/app.kubernetes.io~1managed-by") == "albatross" {
            lab.cluster.delete("v1", "ConfigMap", Some("kube-system"), text(&map, "/metadata/name")).await?;
            records += 1;
        }
    }
    ensure!(records > 0, "there are no records");
    let (version, kind) = ("elbv2.k8s.aws/v1beta1", "TargetGroupBinding");
    for binding in lab.cluster.list(version, kind, None).await? {
        let (namespace, name) = (text(&binding, "/metadata/namespace"), text(&binding, "/metadata/name"));
        let patch = json!({"metadata": {"annotations": {CHECKPOINT: null}}});
        lab.cluster.merge(version, kind, Some(namespace), name, &patch).await?;
    }
    let elb = &lab.aws.elb;
    for balancer in elb.describe_load_balancers().send().await?.load_balancers() {
        let arn = balancer.load_balancer_arn().unwrap_or_default();
        for listener in elb.describe_listeners().load_balancer_arn(arn).send().await?.listeners() {
            let arn = listener.listener_arn().unwrap_or_default();
            for certificate in listener.certificates() {
                let all = elb.describe_listener_certificates().listener_arn(arn).send().await?;
                let others = all.certificates().iter().filter(|other| other.is_default() != Some(true));
                if others
                    .filter_map(|other| other.certificate_arn())
                    .all(|other| Some(other) != certificate.certificate_arn())
                {
                    certified += 1;
                }
                elb.add_listener_certificates().listener_arn(arn).certificates(certificate.clone()).send().await?;
            }
            for rule in elb.describe_rules().listener_arn(arn).send().await?.rules() {
                let (Some(rule), Some(priority)) = (rule.rule_arn(), rule.priority().filter(|it| *it != "default"))
                else {
                    continue;
                };
                let of_rule = format!("{}:{priority}", listener.port().unwrap_or_default());
                let known = elb.describe_tags().resource_arns(rule).send().await?;
                let mut tags = known.tag_descriptions().iter().flat_map(|known| known.tags());
                if tags.all(|tag| tag.value() != Some(&of_rule)) {
                    tagged += 1;
                }
                let tag = Tag::builder().key("ingress.k8s.aws/resource").value(of_rule).build();
                elb.add_tags().resource_arns(rule).tags(tag).send().await?;
            }
        }
    }
    println!("the way back takes {certified} AddListenerCertificates and {tagged} AddTags of rules");
    Ok(())
}

/// The Secrets that cases have, by namespace and name.
fn secrets(lab: &Lab, cases: &[PathBuf]) -> Result<BTreeSet<(String, String)>> {
    let mut secrets = BTreeSet::new();
    for case in cases {
        for entry in fs::read_dir(case)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let objects = documents(&lab.world.substitute(&fs::read_to_string(path)?)?)?;
                let found = objects.iter().filter(|object| text(object, "/kind") == "Secret");
                secrets.extend(found.map(|found| (name(case).to_owned(), text(found, "/metadata/name").to_owned())));
            }
        }
    }
    Ok(secrets)
}

fn cases() -> Result<Vec<PathBuf>> {
    let only = std::env::var(ONLY).unwrap_or_default();
    let mut cases = Vec::new();
    for entry in fs::read_dir(workspace().join("e2e/cases"))? {
        let path = entry?.path();
        if path.is_dir() && name(&path).contains(&only) {
            cases.push(path);
        }
    }
    cases.sort();
    ensure!(!cases.is_empty(), "no case's name contains `{only}` (the environment variable {ONLY})");
    Ok(cases)
}

/// The case's name, which is its namespace too.
fn name(case: &Path) -> &str {
    case.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn manifest(case: &Path, step: usize) -> PathBuf {
    case.join(format!("step{step}.yaml"))
}

/// Returns true if a Service of the case asks for a load balancer of several protocols, which API servers take since
/// Kubernetes 1.24.
fn mixes_protocols(lab: &Lab, case: &Path) -> Result<bool> {
    for step in (1..).take_while(|step| manifest(case, *step).exists()) {
        let text = lab.world.substitute(&fs::read_to_string(manifest(case, step))?)?;
        let mixed = documents(&text)?.iter().any(|object| {
            let ports = items(object, "/spec/ports").iter();
            let protocols: BTreeSet<_> = ports.map(|port| port["protocol"].as_str().unwrap_or("TCP")).collect();
            object["spec"]["type"] == "LoadBalancer" && protocols.len() > 1
        });
        if mixed {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Applies a step of all cases: first what others name, Services as its last; then deletions; then Ingresses and bindings.
async fn apply(lab: &Lab, cases: &[&PathBuf], step: usize) -> Result<()> {
    let (mut backends, mut deletions, mut ingresses) = (Vec::new(), Vec::new(), Vec::new());
    for case in cases {
        let namespace = name(case);
        lab.cluster.namespace(namespace).await?;
        let manifest = lab.world.substitute(&fs::read_to_string(manifest(case, step))?)?;
        for mut object in documents(&manifest).with_context(|| format!("in case {namespace}"))? {
            if let Some(group) = object.get("register").and_then(Value::as_str) {
                register(lab, group, items(&object, "/targets")).await?;
                continue;
            }
            if let Some(deletion) = object.get("delete").and_then(Value::as_str) {
                deletions.push((namespace, deletion.to_owned()));
                continue;
            }
            put_in_namespace(&mut object, namespace);
            if text(&object, "/kind") == "Pod" {
                let node = text(&object, "/spec/nodeName");
                for address in items(&object, "/status/podIPs") {
                    // Pods outside of the VPC are on no network interface of it.
                    let address = text(address, "/ip");
                    if !address.starts_with("192.168.") {
                        lab.world.assign_address(&lab.aws, node, address).await?;
                    }
                }
            }
            let later = matches!(text(&object, "/kind"), "Ingress" | "TargetGroupBinding");
            if later { &mut ingresses } else { &mut backends }.push(object);
        }
    }
    // Pods before Services, so that the first endpoints are whole.
    backends.sort_by_key(|object| text(object, "/kind") == "Service");
    lab.cluster.apply(&backends).await?;
    for namespace in cases.iter().map(|case| name(case)) {
        let what = format!("the endpoints in {namespace}");
        wait_until(SOON, &what, async || endpoints_are_whole(lab, namespace).await).await?;
    }
    for (namespace, deletion) in deletions {
        let (kind, name) = deletion.split_once('/').context("a deletion is `kind/name`")?;
        let (api_version, kind) = match kind {
            "pod" => ("v1", "Pod"),
            "service" => ("v1", "Service"),
            "ingress" => ("networking.k8s.io/v1", "Ingress"),
            "targetgroupbinding" => ("elbv2.k8s.aws/v1beta1", "TargetGroupBinding"),
            other => anyhow::bail!("a case deletes a `{other}`, which this test does not know"),
        };
        lab.cluster.delete(api_version, kind, Some(namespace), name).await?;
    }
    lab.cluster.apply(&ingresses).await
}

/// Registers targets in the target group with this symbol, as another cluster does.
async fn register(lab: &Lab, group: &str, targets: &[Value]) -> Result<()> {
    let snapshot = Snapshot::take(lab).await?;
    let arn = snapshot.symbols.id_of(group).with_context(|| format!("there is no target group `{group}`"))?;
    let mut request = lab.aws.elb.register_targets().target_group_arn(arn);
    for target in targets {
        let port = target["Port"].as_i64().context("a target without a port")?.try_into()?;
        request = request.targets(TargetDescription::builder().id(text(target, "/Id")).port(port).build());
    }
    request.send().await?;
    Ok(())
}

/// The target groups in which the steps of a case, up to this one, register targets of another cluster.
fn fed_by_others(case: &Path, step: usize) -> Result<BTreeSet<String>> {
    let mut groups = BTreeSet::new();
    for step in 1..=step {
        let objects = documents(&fs::read_to_string(manifest(case, step))?)?;
        let named = objects.iter().filter_map(|object| object.get("register").and_then(Value::as_str));
        groups.extend(named.map(str::to_owned));
    }
    Ok(groups)
}

/// Returns true if each Service's EndpointSlices have the addresses of exactly the pods that it selects.
async fn endpoints_are_whole(lab: &Lab, namespace: &str) -> Result<bool> {
    let pods = lab.cluster.list("v1", "Pod", Some(namespace)).await?;
    let slices = lab.cluster.list("discovery.k8s.io/v1", "EndpointSlice", Some(namespace)).await?;
    for service in lab.cluster.list("v1", "Service", Some(namespace)).await? {
        let Some(selector) = service.pointer("/spec/selector").and_then(Value::as_object) else {
            continue;
        };
        let selected =
            pods.iter().filter(|pod| selector.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value));
        let of_family = |address: &&str| {
            let family = if address.contains(':') { "IPv6" } else { "IPv4" };
            items(&service, "/spec/ipFamilies").iter().any(|known| known == family)
        };
        let addresses = selected.flat_map(|pod| items(pod, "/status/podIPs")).map(|it| text(it, "/ip"));
        let wanted: BTreeSet<&str> = addresses.filter(of_family).collect();
        let owner = &service["metadata"]["name"];
        let mut own = slices
            .iter()
            .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == *owner)
            .filter(|slice| slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] != "somebody")
            .peekable();
        if own.peek().is_none() {
            return Ok(false);
        }
        let endpoints = own.flat_map(|slice| items(slice, "/endpoints"));
        let found: BTreeSet<&str> =
            endpoints.flat_map(|endpoint| items(endpoint, "/addresses")).filter_map(Value::as_str).collect();
        if wanted != found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The cases whose state is not as expected once the controller is quiet, with their differences.
async fn compare(lab: &Lab, cases: &[&PathBuf], step: usize) -> Result<Vec<(String, Vec<String>)>> {
    lab.settle(QUIET, DEADLINE).await?;
    let early = differences(lab, cases, step).await?;
    if early.is_empty() {
        return Ok(early);
    }
    lab.settle(LONG_QUIET, DEADLINE).await?;
    differences(lab, cases, step).await
}

async fn differences(lab: &Lab, cases: &[&PathBuf], step: usize) -> Result<Vec<(String, Vec<String>)>> {
    let snapshot = Snapshot::take(lab).await?;
    let mut wrong = Vec::new();
    for case in cases {
        let file = case.join(format!("expected.step{step}.json"));
        let expected = fs::read(&file).with_context(|| file.display().to_string())?;
        let expected: Value = serde_json::from_slice(&expected)?;
        let actual = snapshot.of_namespace(lab, name(case), &fed_by_others(case, step)?).await?;
        let lines = diff(&expected, &json!(actual));
        if !lines.is_empty() {
            wrong.push((name(case).to_owned(), lines));
        }
    }
    Ok(wrong)
}
