//! Mistakes of users, and albatross's messages on them: the whole message, as users see it. Nothing is made or changed for input
//! that cannot be followed, and a mistake that is fixed in the cluster or the account is noticed without a restart.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_ec2::types::Tag;
use e2e::lab::processes::free_ports;
use e2e::lab::proxy::{Calls, Faults};
use e2e::lab::{wait_until, workspace};
use serde_json::{Value, json};

use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, apply, gone, ingress, leave, rules_become, run, served, served_within, service,
    stack_of, start_that_fails, stays, warnings_are, warnings_become,
};

const DEFINITION: &str = "targetgroupbindings.elbv2.k8s.aws";
const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")];
/// Without it, what is missing is looked for on the instance, which takes long where there is none.
const NO_METADATA: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

// Starting.

#[test]
fn an_api_server_that_cannot_be_reached_is_named() {
    run(async {
        let [port] = free_ports()?;
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("kubeconfig");
        fs::write(&path, kubeconfig(port))?;
        let flags = [format!("--kubeconfig={}", path.display())];
        let expected = format!(
            "error: cannot reach the Kubernetes API server at https://127.0.0.1:{port}/: client error (Connect): tcp connect error: Connection refused (os error 111); check the address in the kubeconfig, and that nothing blocks the connection\n"
        );
        fails(&flags, &[], &expected).await
    });
}

#[test]
fn a_kubeconfig_that_cannot_be_used_is_named() {
    run(async {
        let directory = tempfile::tempdir()?;
        let missing = directory.path().join("missing");
        let missing = missing.display();
        let expected = format!(
            "error: no access to a cluster: the kubeconfig `{missing}` cannot be used: No such file or directory (os error 2); outside of a cluster set --kubeconfig or KUBECONFIG\n"
        );
        fails(&[format!("--kubeconfig={missing}")], &[], &expected).await?;

        let path = directory.path().join("list");
        fs::write(&path, "- one\n- two: [\n")?;
        let path = path.display();
        let expected = format!(
            "error: no access to a cluster: the kubeconfig `{path}` cannot be used: failed to parse kubeconfig YAML: error: line 1 column 1: expected mapping start; outside of a cluster set --kubeconfig or KUBECONFIG\n"
        );
        fails(&[], &[("KUBECONFIG", &path.to_string())], &expected).await?;

        fails(&[], &[], "error: no access to a cluster: there is neither a default kubeconfig (No such file or directory (os error 2)) nor a ServiceAccount (failed to read an incluster environment variable: environment variable not found); outside of a cluster set --kubeconfig or KUBECONFIG\n").await
    });
}

#[test]
fn what_aws_needs_is_asked_for_at_the_start() {
    run(async {
        let stage = Stage::without_controller().await?;
        let kubeconfig = format!("--kubeconfig={}", stage.kubeconfig.display());
        let vpc = format!("--aws-vpc-id={}", stage.world.vpc);
        let region = "--aws-region=us-west-2".to_owned();

        let without_credentials = [kubeconfig.clone(), vpc.clone(), region.clone()];
        let expected = "error: no valid AWS credentials for the start: the pod has neither a role of its ServiceAccount (AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE are not set) nor EKS Pod Identity (AWS_CONTAINER_CREDENTIALS_FULL_URI is not set), there is neither AWS_ACCESS_KEY_ID nor a profile, and the instance gives none: AWS_EC2_METADATA_DISABLED disables its metadata service; annotate the controller's ServiceAccount with `eks.amazonaws.com/role-arn`, or give it an association with `aws eks create-pod-identity-association`, and restart its pods, because EKS injects either when pods start; outside of EKS set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE\n";
        fails(&without_credentials, &[NO_METADATA], expected).await?;

        let taken = TcpListener::bind("127.0.0.1:0")?;
        let address = taken.local_addr()?;
        let metrics = format!("--metrics-bind-addr={address}");
        let expected = format!(
            "error: cannot listen on `{address}`, the value of --metrics-bind-addr: another process listens there, so choose another address or `0` for no server\n"
        );
        fails(&[kubeconfig, vpc, region, metrics], &[KEYS[0], KEYS[1], NO_METADATA], &expected).await?;
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn a_missing_custom_resource_definition_is_waited_for() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "no-definition";
        let (api, kind) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        stage.cluster.delete(api, kind, None, DEFINITION).await?;
        gone(&stage, api, kind, None, DEFINITION).await?;

        let before = stage.controller_log(usize::MAX).lines().count();
        let mut controller = stage.controller(&[])?;
        let missing = "the CustomResourceDefinition targetgroupbindings.elbv2.k8s.aws is not installed; install it with `kubectl apply -k config/crd` (or `albatross crds | kubectl apply --server-side -f -`)";
        let expected = (503, format!("TargetGroupBinding: not listed yet; {missing}\n"));
        wait_until(SOON, "/readyz to say what is missing", async || {
            controller.check_running()?;
            let answer = controller.readiness().await?;
            ensure!(answer == expected, "it answers {answer:?}");
            Ok(true)
        })
        .await?;
        // Long enough for some attempts.
        stays(Duration::from_secs(5), "the controller waits", async || {
            controller.check_running()?;
            let answer = controller.readiness().await?;
            ensure!(answer == expected, "it answers {answer:?}");
            Ok(())
        })
        .await?;
        let log = stage.controller_log(usize::MAX);
        let reported: Vec<&str> = log.lines().skip(before).filter(|line| line.contains(missing)).collect();
        ensure!(reported.len() == 1 && reported[0].contains("WARN"), "the log says it as {reported:?}");

        stage.cluster.install_custom_resource_definitions(&workspace().join("config/crd")).await?;
        controller.ready(WITH_RETRIES).await?;
        stage.controller = Some(controller);
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;
        leave(stage, namespace).await
    });
}

// Subnets.

#[test]
fn subnets_that_do_not_fit_are_judged_one_by_one_and_their_mending_is_seen() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "subnets";
        let (vpc, subnets) = make_network(&stage).await?;
        stage.start_controller(&[&format!("--aws-vpc-id={vpc}")]).await?;
        stage.proxy.reset();
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
        let mut verdicts = [
            format!("{} (us-west-2a) for another cluster, by its tag `kubernetes.io/cluster/other`", subnets[0]),
            format!("{} (us-west-2b) for another cluster, by its tag `kubernetes.io/cluster/other`", subnets[1]),
        ];
        verdicts.sort();
        let mut others = [subnets[0].as_str(), subnets[1].as_str()];
        others.sort_unstable();
        let expected = format!(
            "Ingress/web FailedBuildModel: Failed build model due to alb.ingress.kubernetes.io/scheme: no subnet of {vpc} is suitable for an internet-facing load balancer: {}; {} (us-west-2c) no role tag; tag a subnet in each of two zones with kubernetes.io/role/elb=1; to share {} with other clusters, remove its kubernetes.io/cluster tags or add this cluster's",
            verdicts.join("; "),
            subnets[2],
            others.join(", "),
        );
        warnings_become(&stage, namespace, &[&expected]).await?;
        ensure!(stage.proxy.counts().writes == 0, "something was made: {:?}", stage.proxy.counts().actions);

        let own = Tag::builder().key("kubernetes.io/cluster/demo").value("shared").build();
        stage.aws.ec2.create_tags().set_resources(Some(subnets[..2].to_vec())).tags(own).send().await?;
        served_within(&stage, namespace, "web", WITH_RETRIES).await?;
        warnings_are(&stage, namespace, &[&expected]).await?;

        // The VPC goes before the lab is handed on.
        stage.cluster.delete("networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;
        gone(&stage, "networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;
        stage.settle(QUIET, SOON).await?;
        for subnet in &subnets {
            stage.aws.ec2.delete_subnet().subnet_id(subnet).send().await?;
        }
        stage.aws.ec2.delete_vpc().vpc_id(&vpc).send().await?;
        leave(stage, namespace).await
    });
}

/// A VPC with two subnets that are tagged for another cluster, and one that is not tagged at all.
async fn make_network(stage: &Stage) -> Result<(String, Vec<String>)> {
    let ec2 = &stage.aws.ec2;
    let made = ec2.create_vpc().cidr_block("10.9.0.0/16").send().await?;
    let vpc = made.vpc().and_then(|vpc| vpc.vpc_id()).context("no id")?.to_owned();
    let mut subnets = Vec::new();
    for (number, zone) in ["us-west-2a", "us-west-2b", "us-west-2c"].into_iter().enumerate() {
        let request = ec2.create_subnet().vpc_id(&vpc).cidr_block(format!("10.9.{number}.0/24"));
        let made = request.availability_zone(zone).send().await?;
        subnets.push(made.subnet().and_then(|subnet| subnet.subnet_id()).context("no id")?.to_owned());
    }
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let tags = vec![tag("kubernetes.io/role/elb", "1"), tag("kubernetes.io/cluster/other", "owned")];
    ec2.create_tags().set_resources(Some(subnets[..2].to_vec())).set_tags(Some(tags)).send().await?;
    Ok((vpc, subnets))
}

// Objects.

#[test]
fn every_wrong_annotation_is_told() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "wrong";
        stage.cluster.namespace(namespace).await?;
        stage.proxy.reset();
        let wrong = [
            ("alb.ingress.kubernetes.io/scheme", "public"),
            ("alb.ingress.kubernetes.io/listen-ports", "80,443"),
            ("alb.ingress.kubernetes.io/healthcheck-interval-seconds", "10s"),
        ];
        apply(&stage, namespace, &[service("web"), ingress("web", &wrong, &["web"])]).await?;
        let expected = [
            "Ingress/web FailedBuildModel: Failed build model due to annotation `alb.ingress.kubernetes.io/scheme` has the value `public`; allowed: `internal` or `internet-facing`",
            r#"Ingress/web FailedBuildModel: Failed build model due to annotation `alb.ingress.kubernetes.io/listen-ports` has the value `80,443`: it is not JSON: trailing characters at line 1 column 3; allowed: a JSON array of protocols and ports such as `[{"HTTP":80},{"HTTPS":443}]`"#,
            "Ingress/web FailedBuildModel: Failed build model due to annotation `alb.ingress.kubernetes.io/healthcheck-interval-seconds` has the value `10s`; allowed: a whole number",
        ];
        warnings_become(&stage, namespace, &expected).await?;
        stage.settle(QUIET, SOON).await?;
        warnings_are(&stage, namespace, &expected).await?;
        ensure!(stage.proxy.counts().writes == 0, "something was made: {:?}", stage.proxy.counts().actions);
        // After the fix, it is served.
        apply(&stage, namespace, &[ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        leave(stage, namespace).await
    });
}

#[test]
fn an_action_that_aws_denies_is_named_as_iam_names_it() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "denied-action";
        stage.cluster.namespace(namespace).await?;
        let deny = Calls::named("elasticloadbalancing:CreateTargetGroup");
        stage.proxy.set_faults(Faults { deny: Some(deny), ..Faults::default() });
        apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
        let expected = "Ingress/web FailedDeployModel: Failed deploy model due to create target group k8s-deniedac-web-* for denied-action/web-web:80: AWS does not allow CreateTargetGroup: User is not authorized to perform: elasticloadbalancing:CreateTargetGroup (AccessDenied); allow the action `elasticloadbalancing:CreateTargetGroup` in the IAM policy of the controller's role";
        warnings_become(&stage, namespace, &[expected]).await?;
        stage.proxy.set_faults(Faults::default());
        served_within(&stage, namespace, "web", WITH_RETRIES).await?;
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;
        warnings_are(&stage, namespace, &[expected]).await?;
        leave(stage, namespace).await
    });
}

#[test]
fn without_the_definition_of_class_parameters_only_who_needs_them_waits() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "no-parameters";
        let (api, kind) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let definition = "ingressclassparams.elbv2.k8s.aws";
        stage.cluster.delete(api, kind, None, definition).await?;
        gone(&stage, api, kind, None, definition).await?;

        let before = stage.controller_log(usize::MAX).lines().count();
        let mut controller = stage.controller(&[])?;
        controller.ready(SOON).await?;
        let missing = "the CustomResourceDefinition ingressclassparams.elbv2.k8s.aws is not installed; install it with `kubectl apply -k config/crd` (or `albatross crds | kubectl apply --server-side -f -`)";
        let expected = (200, format!("ok\nworking without IngressClassParams: {missing}"));
        let answer = controller.readiness().await?;
        ensure!(answer == expected, "it answers {answer:?}");
        stage.controller = Some(controller);

        stage.cluster.namespace(namespace).await?;
        let parameters = json!({"apiGroup": "elbv2.k8s.aws", "kind": "IngressClassParams", "name": "late"});
        let mut of_class = ingress("classy", &[], &["web"]);
        of_class["spec"]["ingressClassName"] = "late".into();
        stage.cluster.apply(&[class("late", parameters)]).await?;
        apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"]), of_class]).await?;
        served(&stage, namespace, "web").await?;
        let reported = format!(
            "Ingress/classy FailedBuildModel: Failed build model due to spec.ingressClassName: the IngressClass `late` has parameters (IngressClassParams `late`), which cannot be read; {missing}"
        );
        warnings_become(&stage, namespace, &[&reported]).await?;
        let log = stage.controller_log(usize::MAX);
        let lines: Vec<&str> =
            log.lines().skip(before).filter(|line| line.contains("WARN") && line.contains(missing)).collect();
        ensure!(lines.len() == 1, "the log says it as {lines:?}");

        stage.cluster.install_custom_resource_definitions(&workspace().join("config/crd")).await?;
        let params = json!({
            "apiVersion": "elbv2.k8s.aws/v1beta1", "kind": "IngressClassParams", "metadata": {"name": "late"},
            "spec": {"targetType": "ip"},
        });
        stage.cluster.apply(&[params]).await?;
        served_within(&stage, namespace, "classy", WITH_RETRIES).await?;
        stage.cluster.delete("networking.k8s.io/v1", "IngressClass", None, "late").await?;
        leave(stage, namespace).await
    });
}

#[test]
fn a_class_with_parameters_is_refused() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "parameters";
        stage.cluster.namespace(namespace).await?;
        stage.proxy.reset();
        let parameters = json!({"apiGroup": "elbv2.k8s.aws", "kind": "IngressClassParams", "name": "open"});
        let mut of_class = ingress("web", &[], &["web"]);
        of_class["spec"]["ingressClassName"] = "parameters".into();
        stage.cluster.apply(&[class("parameters", parameters)]).await?;
        apply(&stage, namespace, &[service("web"), of_class]).await?;
        let expected = "Ingress/web FailedBuildModel: Failed build model due to spec.ingressClassName: the IngressClass `parameters` has parameters (IngressClassParams `open`), which do not exist; create them, or name another class";
        warnings_become(&stage, namespace, &[expected]).await?;
        stage.settle(QUIET, SOON).await?;
        warnings_are(&stage, namespace, &[expected]).await?;
        ensure!(stage.proxy.counts().writes == 0, "something was made: {:?}", stage.proxy.counts().actions);
        ensure!(finalizers(&stage, namespace).await?.is_empty(), "it is held although nothing is made for it");
        stage.cluster.delete("networking.k8s.io/v1", "IngressClass", None, "parameters").await?;
        leave(stage, namespace).await
    });
}

#[test]
fn what_a_class_may_not_say_the_api_server_refuses() {
    run(async {
        let stage = Stage::shared().await?;
        let mut refused = vec![
            (json!({"inboundCIDRs": ["office"]}), "should match '^[0-9A-Fa-f.:]+/[0-9]{1,3}$'"),
            (json!({"subnets": {"ids": ["subnet-1", "subnet-1"]}}), "uplicate"),
            (json!({"subnets": {"tags": {}}}), "should have at least 1 properties"),
            (json!({"subnets": {"tags": {"team": ["web", "web"]}}}), "uplicate"),
        ];
        // Older ones know no rules in schemas, and leave these to the controller.
        if stage.cluster.minor_version().await? >= 25 {
            refused.extend([
                (json!({"subnets": {}}), "exactly one of 'ids' and 'tags' must be set"),
                (
                    json!({"subnets": {"ids": ["subnet-1"], "tags": {"team": ["web"]}}}),
                    "exactly one of 'ids' and 'tags'",
                ),
                (json!({"prefixListsIDs": ["pl-1"], "PrefixListsIDs": ["pl-1"]}), "cannot specify both"),
            ]);
        }
        for (spec, expected) in refused {
            let params = json!({
                "apiVersion": "elbv2.k8s.aws/v1beta1", "kind": "IngressClassParams",
                "metadata": {"name": "refused"}, "spec": spec.clone(),
            });
            let Err(error) = stage.cluster.apply(&[params]).await else { anyhow::bail!("{spec} is taken") };
            ensure!(format!("{error:#}").contains(expected), "{spec}: {error:#}");
        }
        Ok(())
    });
}

#[test]
fn what_cannot_be_built_is_refused_and_makes_nothing() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "refused";
        stage.cluster.namespace(namespace).await?;
        stage.proxy.reset();
        let mut fenced = service("web");
        let spec = json!({"type": "LoadBalancer", "loadBalancerClass": "service.k8s.aws/nlb"});
        spec.as_object().context("no spec")?.iter().for_each(|(field, value)| fenced["spec"][field] = value.clone());
        fenced["metadata"]["annotations"] =
            json!({"service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports": "80"});
        apply(&stage, namespace, &[fenced]).await?;
        let expected = "Service/web FailedBuildModel: Failed build model due to service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: port TCP/80 gets a TCP listener, and only UDP can become QUIC; name only UDP ports; for TCP and QUIC on one port, give the Service a UDP port of the same number too and write `service.beta.kubernetes.io/aws-load-balancer-enable-tcp-udp-listener: \"true\"`";
        warnings_become(&stage, namespace, &[expected]).await?;
        stage.settle(QUIET, SOON).await?;
        warnings_are(&stage, namespace, &[expected]).await?;
        ensure!(stage.proxy.counts().writes == 0, "something was made: {:?}", stage.proxy.counts().actions);
        let refused =
            stage.cluster.get("v1", "Service", Some(namespace), "web").await?.context("there is no Service")?;
        ensure!(refused["metadata"]["finalizers"].is_null(), "it is held although nothing is made for it");
        stage.cluster.delete("v1", "Service", Some(namespace), "web").await?;
        leave(stage, namespace).await
    });
}

#[test]
fn a_served_ingress_with_a_mistake_keeps_what_it_has() {
    run(async {
        let stage = Stage::shared().await?;
        let namespace = "kept";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), service("api"), ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;
        stage.settle(QUIET, SOON).await?;
        let before = stack_of(&stage, namespace, "web").await?;

        stage.proxy.reset();
        // The edit has something that could be followed, too.
        let mistaken = ingress("web", &[("alb.ingress.kubernetes.io/scheme", "public")], &["web", "api"]);
        apply(&stage, namespace, &[mistaken]).await?;
        let expected = "Ingress/web FailedBuildModel: Failed build model due to annotation `alb.ingress.kubernetes.io/scheme` has the value `public`; allowed: `internal` or `internet-facing`";
        warnings_become(&stage, namespace, &[expected]).await?;
        stage.settle(QUIET, SOON).await?;
        warnings_are(&stage, namespace, &[expected]).await?;
        ensure!(stage.proxy.counts().writes == 0, "something was changed: {:?}", stage.proxy.counts().actions);
        ensure!(stack_of(&stage, namespace, "web").await? == before, "what it has in AWS is not as before");

        apply(&stage, namespace, &[ingress("web", &[], &["web", "api"])]).await?;
        rules_become(&stage, namespace, "web", &["/web forward", "/api forward"]).await?;
        leave(stage, namespace).await
    });
}

fn class(name: &str, parameters: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": name},
        "spec": {"controller": "ingress.k8s.aws/alb", "parameters": parameters},
    })
}

async fn finalizers(stage: &Stage, namespace: &str) -> Result<Vec<Value>> {
    let object = stage.cluster.get("networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;
    let object = object.context("there is no Ingress")?;
    Ok(object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default())
}

/// Fails unless the controller ends with code 1 and says exactly this.
async fn fails(flags: &[String], environment: &[(&str, &str)], expected: &str) -> Result<()> {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (code, said) = start_that_fails(&flags, environment).await?;
    ensure!(code == Some(1) && said == expected, "it ended with {code:?} and said\n{said}and not\n{expected}");
    Ok(())
}

fn kubeconfig(port: u16) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "lab", "user": {"token": "none"}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "current-context": "lab",
    });
    config.to_string()
}
