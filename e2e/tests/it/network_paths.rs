//! The network paths of calls, and the discovery of the controller's location: forward proxies, endpoints that flags and variables
//! name, region and VPC from flags, tags, nodes and the instance metadata, which is not read when any other source has the answer.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aws_sdk_ec2::types::Tag;
use e2e::lab::forward_proxy::ForwardProxy;
use e2e::lab::processes::free_ports;
use e2e::lab::stand_in::StandIn;
use e2e::lab::wait_until;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::credentials::{starts_in, text};
use crate::support::{SOON, Stage, apply, ingress, leave, run, served, service, start_that_fails};

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")];
const NO_METADATA: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");
const NO_REGION: &str = "--aws-region=";
const NO_VPC: &str = "--aws-vpc-id=";
const METADATA: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";

// Proxies.

#[test]
fn aws_is_reached_through_the_proxy_and_by_regional_names_alone() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "proxied";
        let proxy = ForwardProxy::start(stage.directory(), &stage.proxy.url, &[]).await?;
        let token = stage.directory().join("token");
        fs::write(&token, "token")?;
        let home = tempfile::tempdir()?;
        let url = format!("http://me:pass%20word@{}", proxy.address);
        let silent = StandIn::silent().await?;
        let environment = [
            ("HOME", text(home.path())?),
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/albatross"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&token)?),
            ("https_proxy", &url),
            // The certificates of the proxy's authority; no others are trusted then.
            ("AWS_CA_BUNDLE", text(&proxy.authority)?),
            // What made older SDKs use the global endpoint, which is in another region, and another partition than some.
            ("AWS_STS_REGIONAL_ENDPOINTS", "legacy"),
            (METADATA, &silent.url),
        ];
        stage.proxy.reset();
        let mut controller = stage.controller_in(&environment, &[])?;
        controller.ready(SOON).await?;
        stage.controller = Some(controller);
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        let hosts: BTreeSet<String> = proxy.asked().into_iter().map(|asked| asked.what).collect();
        let expected =
            ["ec2", "elasticloadbalancing", "sts"].map(|name| format!("CONNECT {name}.us-west-2.amazonaws.com:443"));
        ensure!(hosts == BTreeSet::from(expected), "the proxy was asked for {hosts:?}");
        // me:pass word
        let user = Some("Basic bWU6cGFzcyB3b3Jk");
        let users: Vec<_> = proxy.asked().into_iter().map(|asked| asked.authorization).collect();
        ensure!(users.iter().all(|given| given.as_deref() == user), "the proxy was told {users:?}");
        ensure!(
            stage.proxy.counts().actions.contains_key("elasticloadbalancing:CreateLoadBalancer"),
            "nobody called AWS"
        );
        ensure!(silent.connections() == 0, "the instance metadata service was asked");
        ensure!(!stage.controller_log(usize::MAX).contains("word@"), "the log has the proxy's password");
        leave(stage, namespace).await
    });
}

#[test]
fn other_partitions_are_reached_by_their_own_names() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let token = stage.directory().join("token");
        fs::write(&token, "token")?;
        let home = tempfile::tempdir()?;
        for (region, role, domain) in [
            ("cn-north-1", "arn:aws-cn:iam::123456789012:role/albatross", "cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "arn:aws-us-gov:iam::123456789012:role/albatross", "us-gov-west-1.amazonaws.com"),
        ] {
            let proxy = ForwardProxy::start(stage.directory(), &stage.proxy.url, &[]).await?;
            let url = proxy.address.to_string();
            let environment = [
                ("HOME", text(home.path())?),
                ("AWS_ROLE_ARN", role),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&token)?),
                ("HTTPS_PROXY", &url),
                ("SSL_CERT_FILE", text(&proxy.authority)?),
                NO_METADATA,
            ];
            let mut controller = stage.controller_in(&environment, &[&format!("--aws-region={region}")])?;
            controller.ready(SOON).await?;
            stage.controller = Some(controller);
            // Finding what is there is done with credentials.
            let expected = ["elasticloadbalancing", "sts"].map(|name| format!("CONNECT {name}.{domain}:443"));
            let namespace = format!("of-{region}");
            stage.cluster.namespace(&namespace).await?;
            apply(&stage, &namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
            wait_until(SOON, "AWS to be called", async || {
                let hosts: BTreeSet<String> = proxy.asked().into_iter().map(|asked| asked.what).collect();
                let foreign: Vec<&String> =
                    hosts.iter().filter(|host| !host.ends_with(&format!(".{domain}:443"))).collect();
                ensure!(foreign.is_empty(), "the proxy was asked for {foreign:?}");
                Ok(expected.iter().all(|host| hosts.contains(host)))
            })
            .await?;
            stage.cluster.delete("networking.k8s.io/v1", "Ingress", Some(&namespace), "web").await?;
            stage.cluster.delete("v1", "Namespace", None, &namespace).await?;
            crate::support::gone(&stage, "networking.k8s.io/v1", "Ingress", Some(&namespace), "web").await?;
            stage.stop_controller().await?;
        }
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn no_proxy_keeps_away_from_the_proxy_and_a_proxy_that_fails_is_named() {
    run(async {
        let stage = Stage::without_controller().await?;
        let proxy = ForwardProxy::start(stage.directory(), &stage.proxy.url, &[]).await?;
        let url = format!("http://me:secret@{}", proxy.address);
        let flags = [
            format!("--kubeconfig={}", stage.kubeconfig.display()),
            "--aws-region=us-west-2".to_owned(),
            "--aws-vpc-tags=a=b".to_owned(),
            "--aws-max-retries=1".to_owned(),
            // A name that does not exist.
            "--aws-api-endpoints=EC2=https://ec2.invalid".to_owned(),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let environment = [KEYS[0], KEYS[1], NO_METADATA, ("HTTPS_PROXY", &url), ("no_proxy", "10.0.0.0/8, .invalid")];
        let (_, said) = start_that_fails(&flags, &environment).await?;
        ensure!(said.starts_with("error: DescribeVpcs could not reach https://ec2.invalid: "), "it said {said}");
        ensure!(proxy.asked().is_empty(), "the proxy was asked {:?}", proxy.asked());

        proxy.refuse(StatusCode::PROXY_AUTHENTICATION_REQUIRED);
        let (_, said) = start_that_fails(&flags, &environment[..4]).await?;
        let expected = format!(
            "error: DescribeVpcs could not reach https://ec2.invalid through the proxy http://…@{}: client error (Connect): tunnel error: proxy authorization required; check name resolution, the route to AWS (NAT gateway or VPC endpoint), HTTPS_PROXY and NO_PROXY; `--aws-api-endpoints` names another endpoint\n",
            proxy.address
        );
        ensure!(said == expected, "it said\n{said}and not\n{expected}");
        ensure!(proxy.asked().iter().all(|asked| asked.what == "CONNECT ec2.invalid:443"), "{:?}", proxy.asked());

        let [port] = free_ports()?;
        let nowhere = format!("127.0.0.1:{port}");
        let environment = [KEYS[0], KEYS[1], NO_METADATA, ("https_proxy", &nowhere)];
        let (_, said) = start_that_fails(&flags, &environment).await?;
        let expected = format!(
            "error: DescribeVpcs could not reach https://ec2.invalid through the proxy http://{nowhere}: client error (Connect): tunnel error: failed to create underlying connection: tcp connect error: Connection refused (os error 111); check name resolution, the route to AWS (NAT gateway or VPC endpoint), HTTPS_PROXY and NO_PROXY; `--aws-api-endpoints` names another endpoint\n"
        );
        ensure!(said == expected, "it said\n{said}and not\n{expected}");

        let environment = [KEYS[0], KEYS[1], NO_METADATA, ("HTTPS_PROXY", "socks5://proxy:1080")];
        let (_, said) = start_that_fails(&flags, &environment).await?;
        let expected = "error: HTTPS_PROXY is `socks5://proxy:1080`, which is not the address of an HTTP proxy; write `http://host:port`\n";
        ensure!(said == expected, "it said\n{said}and not\n{expected}");
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn the_api_server_is_reached_through_the_proxy_outside_of_a_cluster_and_past_it_inside() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let kubeconfig: Value = serde_json::from_str(&fs::read_to_string(&stage.kubeconfig)?)?;
        let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str().context("no server")?;
        let address: SocketAddr = server.trim_start_matches("https://").parse()?;
        let named = format!("kubernetes.default.svc:{}", address.port());
        let proxy = ForwardProxy::start(stage.directory(), &stage.proxy.url, &[(named.clone(), address)]).await?;
        let mut other = kubeconfig.clone();
        other["clusters"][0]["cluster"]["server"] = format!("https://{named}").into();
        let path = stage.directory().join("proxied-kubeconfig");
        fs::write(&path, other.to_string())?;
        let kubeconfig = format!("--kubeconfig={}", path.display());
        let home = tempfile::tempdir()?;
        let url = format!("http://{}", proxy.address);
        let aws = ("AWS_ENDPOINT_URL", stage.proxy.url.clone());
        let environment =
            [("HOME", text(home.path())?), KEYS[0], KEYS[1], NO_METADATA, ("https_proxy", &url), (aws.0, &aws.1)];
        let mut controller = stage.controller_in(&environment, &[&kubeconfig])?;
        controller.ready(SOON).await?;
        stage.controller = Some(controller);
        let hosts: BTreeSet<String> = proxy.asked().into_iter().map(|asked| asked.what).collect();
        ensure!(hosts == BTreeSet::from([format!("CONNECT {named}")]), "the proxy was asked for {hosts:?}");
        stage.stop_controller().await?;

        // The name does not exist here, so past the proxy it is not found.
        let before = proxy.asked().len();
        let flags = [kubeconfig.as_str(), "--aws-region=us-west-2", "--aws-vpc-id=vpc-1"];
        for keep_away in [("NO_PROXY", ".svc"), ("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")] {
            let environment = [KEYS[0], KEYS[1], NO_METADATA, ("HTTPS_PROXY", &url), keep_away];
            let (_, said) = start_that_fails(&flags, &environment).await?;
            let beginning = format!(
                "error: cannot reach the Kubernetes API server at https://{named}/: client error (Connect): dns error"
            );
            ensure!(said.starts_with(&beginning), "with {keep_away:?} it said {said}");
        }
        ensure!(proxy.asked().len() == before, "the proxy was asked {:?}", proxy.asked());
        stage.leave_clean();
        Ok(())
    });
}

// Endpoints.

#[test]
fn endpoints_are_named_by_flags_then_by_variables_of_a_service_then_of_all() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let token = stage.directory().join("token");
        fs::write(&token, "token")?;
        let home = tempfile::tempdir()?;
        let silent = StandIn::silent().await?;
        let here = stage.proxy.url.clone();
        let role = [
            ("HOME", text(home.path())?),
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/albatross"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&token)?),
            (METADATA, silent.url.as_str()),
            ("AWS_ENDPOINT_URL", silent.url.as_str()),
        ];
        let services = ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2"];
        let by_variable = role.iter().copied().chain(services.map(|name| (name, here.as_str()))).collect::<Vec<_>>();
        let by_flag = role.iter().copied().chain(services.map(|name| (name, silent.url.as_str()))).collect::<Vec<_>>();
        let flag = format!("--aws-api-endpoints=sts={here},EC2={here},Elastic Load Balancing v2={here}");
        for (namespace, environment, flags) in
            [("variables", by_variable, vec![]), ("flags", by_flag, vec![flag.as_str()])]
        {
            stage.proxy.reset();
            let mut controller = stage.controller_in(&environment, &flags)?;
            controller.ready(SOON).await?;
            stage.controller = Some(controller);
            stage.cluster.namespace(namespace).await?;
            apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
            served(&stage, namespace, "web").await?;
            let called: BTreeSet<String> = stage
                .proxy
                .counts()
                .actions
                .keys()
                .filter_map(|name| Some(name.split_once(':')?.0.to_owned()))
                .collect();
            ensure!(called == BTreeSet::from(["ec2", "elasticloadbalancing", "sts"].map(str::to_owned)), "{called:?}");
            ensure!(silent.connections() == 0, "{namespace}: the endpoint of all was asked");
            stage.cluster.delete("networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;
            crate::support::gone(&stage, "networking.k8s.io/v1", "Ingress", Some(namespace), "web").await?;
            stage.stop_controller().await?;
            stage.cluster.delete("v1", "Namespace", None, namespace).await?;
        }
        let environment = [KEYS[0], KEYS[1], NO_METADATA];
        let kubeconfig = format!("--kubeconfig={}", stage.kubeconfig.display());
        let (_, said) = start_that_fails(&[&kubeconfig, "--aws-api-endpoints=EC2"], &environment).await?;
        let expected = "error: `EC2` in `--aws-api-endpoints` is not of the form `ServiceID=URL`, for example `EC2=https://ec2.example`\n";
        ensure!(said == expected, "it said {said}");
        stage.leave_clean();
        Ok(())
    });
}

// Region and VPC.

#[test]
fn the_instance_is_never_asked_when_flags_say_enough() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let silent = StandIn::silent().await?;
        let home = tempfile::tempdir()?;
        let token = stage.directory().join("token");
        fs::write(&token, "token")?;
        let role = [
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/albatross"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&token)?),
        ];
        for credentials in [role, KEYS] {
            let mut environment = vec![
                ("HOME", text(home.path())?),
                ("AWS_ENDPOINT_URL", stage.proxy.url.as_str()),
                (METADATA, silent.url.as_str()),
            ];
            environment.extend(credentials);
            let began = Instant::now();
            let mut controller = stage.controller_in(&environment, &[])?;
            controller.ready(SOON).await?;
            let took = began.elapsed();
            stage.controller = Some(controller);
            ensure!(took < Duration::from_secs(10), "it was ready after {took:?}");
            ensure!(silent.connections() == 0, "the instance metadata service was asked");
            stage.stop_controller().await?;
        }
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn nodes_tell_region_and_vpc_before_the_instance_is_asked() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let silent = StandIn::silent().await?;
        let home = tempfile::tempdir()?;
        let aws = stage.proxy.url.clone();
        let environment = [
            ("HOME", text(home.path())?),
            KEYS[0],
            KEYS[1],
            ("AWS_ENDPOINT_URL", aws.as_str()),
            (METADATA, &silent.url),
        ];
        let tag = Tag::builder().key("cluster").value("lab").build();
        stage.aws.ec2.create_tags().resources(&stage.world.vpc).tags(tag).send().await?;
        let variable = [environment.as_slice(), &[("AWS_DEFAULT_REGION", "us-west-2")]].concat();
        for (environment, flags, asked) in [
            (environment.as_slice(), &[NO_REGION, NO_VPC][..], "ec2:DescribeInstances"),
            (&variable, &[NO_REGION, NO_VPC, "--aws-vpc-tags=cluster=lab"], "ec2:DescribeVpcs"),
        ] {
            let before = stage.controller_log(usize::MAX).lines().count();
            stage.proxy.reset();
            let mut controller = stage.controller_in(environment, flags)?;
            controller.ready(SOON).await?;
            stage.controller = Some(controller);
            starts_in(&stage, before, "us-west-2").await?;
            ensure!(stage.proxy.counts().actions.contains_key(asked), "{:?}", stage.proxy.counts().actions);
            ensure!(silent.connections() == 0, "the instance metadata service was asked");
            stage.stop_controller().await?;
        }
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn the_instance_is_asked_last_and_does_not_hold_up_for_long() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        // An identity that may not list nodes.
        let mut kubeconfig: Value = serde_json::from_str(&fs::read_to_string(&stage.kubeconfig)?)?;
        kubeconfig["users"][0]["user"]["as"] = "nobody".into();
        let path = stage.directory().join("nobody");
        fs::write(&path, kubeconfig.to_string())?;
        let kubeconfig = format!("--kubeconfig={}", path.display());
        let listed = r#"the nodes cannot be listed (nodes is forbidden: User "nobody" cannot list resource "nodes" in API group "" at the cluster scope)"#;
        let cure = "set --aws-region or AWS_REGION";
        let vpc_cure = "set --aws-vpc-id or --aws-vpc-tags";
        let silent = StandIn::silent().await?;
        let region = "--aws-region=us-west-2";
        let keys = [KEYS[0], KEYS[1]];
        let forbidden = "AWS_EC2_METADATA_DISABLED turns the instance metadata service off";
        let silence = "the instance metadata service gives no answer: no answer within 1 s";
        let black_hole = (METADATA, silent.url.as_str());
        for (last, flags, expected) in [
            (NO_METADATA, vec![], format!("error: the AWS region is not known: {listed}, and {forbidden}; {cure}\n")),
            (
                NO_METADATA,
                vec![region],
                format!("error: the VPC of the cluster is not known: {listed}, and {forbidden}; {vpc_cure}\n"),
            ),
            (black_hole, vec![], format!("error: the AWS region is not known: {listed}, and {silence}; {cure}\n")),
            (
                black_hole,
                vec![region],
                format!("error: the VPC of the cluster is not known: {listed}, and {silence}; {vpc_cure}\n"),
            ),
        ] {
            let began = Instant::now();
            let flags = [vec![kubeconfig.as_str()], flags].concat();
            let (code, said) = start_that_fails(&flags, &[keys.as_slice(), &[last]].concat()).await?;
            ensure!(code == Some(1) && said == expected, "it ended with {code:?} and said\n{said}and not\n{expected}");
            ensure!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
        }
        ensure!(silent.connections() > 0, "the instance metadata service was not asked");

        let vpc = stage.world.vpc.clone();
        let instance = StandIn::start(move |asked| {
            let text = match asked.what.as_str() {
                "PUT /latest/api/token" => "token",
                "GET /latest/meta-data/placement/region" => "us-west-2",
                "GET /latest/meta-data/mac" => "0a:00:00:00:00:01",
                "GET /latest/meta-data/network/interfaces/macs/0a:00:00:00:00:01/vpc-id" => vpc.as_str(),
                _ => return Some((404, "text/plain", String::new())),
            };
            Some((200, "text/plain", text.to_owned()))
        })
        .await?;
        let home = tempfile::tempdir()?;
        let aws = stage.proxy.url.clone();
        let environment = [
            ("HOME", text(home.path())?),
            KEYS[0],
            KEYS[1],
            ("AWS_ENDPOINT_URL", aws.as_str()),
            (METADATA, &instance.url),
        ];
        let before = stage.controller_log(usize::MAX).lines().count();
        // It cannot become ready, as it may not list anything.
        stage.controller = Some(stage.controller_in(&environment, &[&kubeconfig, NO_REGION, NO_VPC])?);
        starts_in(&stage, before, "us-west-2").await?;
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn nodes_of_several_vpcs_or_of_none_are_told() {
    run(async {
        let stage = Stage::without_controller().await?;
        let kubeconfig = format!("--kubeconfig={}", stage.kubeconfig.display());
        let aws = ("AWS_ENDPOINT_URL", stage.proxy.url.as_str());
        let flags = [kubeconfig.as_str(), "--aws-region=us-west-2"];
        let made = stage.aws.ec2.create_vpc().cidr_block("10.8.0.0/16").send().await?;
        let other = made.vpc().and_then(|vpc| vpc.vpc_id()).context("no id")?.to_owned();
        let made = stage.aws.ec2.create_subnet().vpc_id(&other).cidr_block("10.8.0.0/24").send().await?;
        let subnet = made.subnet().and_then(|subnet| subnet.subnet_id()).context("no id")?.to_owned();
        let images = stage.aws.ec2.describe_images().send().await?;
        let image = images.images().first().and_then(|image| image.image_id()).context("no image")?;
        let request = stage.aws.ec2.run_instances().image_id(image).min_count(1).max_count(1).subnet_id(&subnet);
        let made = request.send().await?;
        let instance =
            made.instances().first().and_then(|instance| instance.instance_id()).context("no id")?.to_owned();
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "stray"},
            "spec": {"providerID": format!("aws:///us-west-2a/{instance}")},
        });
        stage.cluster.apply(&[node]).await?;
        let (_, said) = start_that_fails(&flags, &[KEYS[0], KEYS[1], NO_METADATA, aws]).await?;
        let mut vpcs = [stage.world.vpc.clone(), other.clone()];
        vpcs.sort();
        let expected = format!(
            "error: the VPC of the cluster is not known: the nodes are in several VPCs: {}; set --aws-vpc-id or --aws-vpc-tags\n",
            vpcs.join(", ")
        );
        ensure!(said == expected, "it said\n{said}and not\n{expected}");
        stage.cluster.delete("v1", "Node", None, "stray").await?;
        stage.aws.ec2.terminate_instances().instance_ids(&instance).send().await?;

        // In another region AWS has none of them.
        let flags = [kubeconfig.as_str(), "--aws-region=eu-west-1"];
        let (_, said) = start_that_fails(&flags, &[KEYS[0], KEYS[1], NO_METADATA, aws]).await?;
        let ids: Vec<&str> = stage.world.nodes.iter().map(|node| node.instance.as_str()).collect();
        let expected = format!(
            "error: the VPC of the cluster is not known: AWS has none of the nodes' instances ({}) in region eu-west-1, and AWS_EC2_METADATA_DISABLED turns the instance metadata service off; set --aws-vpc-id or --aws-vpc-tags\n",
            ids.join(", ")
        );
        ensure!(said == expected, "it said\n{said}and not\n{expected}");
        stage.aws.ec2.delete_subnet().subnet_id(&subnet).send().await?;
        stage.aws.ec2.delete_vpc().vpc_id(&other).send().await?;
        stage.leave_clean();
        Ok(())
    });
}
