//! Load balancers that answer, without a cluster: what is done to the account is seen on sockets and the other way round.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, Certificate, HostHeaderConditionConfig, HostHeaderRewriteConfig, LoadBalancerTypeEnum,
    PathPatternConditionConfig, ProtocolEnum, RewriteConfig, RuleCondition, RuleTransform, TargetDescription,
    TargetTypeEnum, TransformTypeEnum,
};
use e2e::lab::aws::{Aws, REGION};
use e2e::lab::fabric::{self, Traffic};
use e2e::lab::moto::Moto;
use e2e::lab::processes::Processes;
use e2e::lab::world::World;
use e2e::lab::{cache_directory, wait_for, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{SOON, run, turn};

fn options() -> albatross_fabric::node::Options {
    albatross_fabric::node::Options { delay_millis: (10, 300), time_scale: 0.1, ..fabric::like_aws() }
}

/// The emulator with the things of the lab's account, and its load balancers.
struct Lab {
    // Dropped in this order.
    traffic: Traffic,
    aws: Aws,
    world: World,
    _moto: Moto,
    _processes: Processes,
}

impl Lab {
    async fn start(options: albatross_fabric::node::Options) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let program = Path::new(env!("CARGO_BIN_EXE_e2e"));
        let processes = Processes::start(program)?;
        let moto = Moto::start(&processes, &cache_directory(program)?, &[]).await?;
        let aws = Aws::new(&moto.url);
        let traffic = Traffic::start(&moto.url, options).await?;
        let world = World::make(&aws, 3).await?;
        Ok(Self { traffic, aws, world, _moto: moto, _processes: processes })
    }
}

/// Answers every request with 200 and says its name.
async fn pod(address: SocketAddr) -> Result<JoinSet<()>> {
    let listener = TcpListener::bind(address).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut read = Vec::new();
                while !read.windows(4).any(|end| end == b"\r\n\r\n") {
                    let mut part = [0; 1_024];
                    match stream.read(&mut part).await {
                        Ok(count @ 1..) => read.extend_from_slice(&part[..count]),
                        _ => return,
                    }
                }
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
                stream.write_all(answer.as_bytes()).await.ok();
            });
        }
    });
    Ok(tasks)
}

/// Returns what a node answers to a request.
async fn get(node: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(node).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn make_group(lab: &Lab, name: &str, protocol: ProtocolEnum) -> Result<String> {
    let request = lab.aws.elb.create_target_group().name(name).protocol(protocol).port(8080);
    let request = request.vpc_id(&lab.world.vpc).target_type(TargetTypeEnum::Ip);
    let made = request.health_check_interval_seconds(5).healthy_threshold_count(2).send().await?;
    Ok(made.target_groups().first().and_then(|group| group.target_group_arn()).context("no group")?.to_owned())
}

/// Makes a load balancer in two subnets, and returns its ARN and its DNS name.
async fn make_balancer(lab: &Lab, name: &str, kind: LoadBalancerTypeEnum) -> Result<(String, String)> {
    let request = lab.aws.elb.create_load_balancer().name(name).r#type(kind);
    let request = request.subnets(&lab.world.subnets["public-a"]).subnets(&lab.world.subnets["public-b"]);
    let made = request.security_groups(&lab.world.security_groups["my-sg-1"]).send().await?;
    let balancer = made.load_balancers().first().context("no load balancer")?;
    let text = |text: Option<&str>| text.map(str::to_owned).context("a load balancer without a name");
    Ok((text(balancer.load_balancer_arn())?, text(balancer.dns_name())?))
}

fn forward(group: &str) -> Action {
    Action::builder().r#type(ActionTypeEnum::Forward).target_group_arn(group).build()
}

/// Returns the states of a target group's targets, by address and port.
async fn states(aws: &Aws, group: &str) -> Result<BTreeMap<(String, i32), String>> {
    let answer = aws.elb.describe_target_health().target_group_arn(group).send().await?;
    let state = |known: &aws_sdk_elasticloadbalancingv2::types::TargetHealthDescription| {
        let target = known.target()?;
        let state = known.target_health()?.state()?.as_str().to_owned();
        Some(((target.id()?.to_owned(), target.port()?), state))
    };
    Ok(answer.target_health_descriptions().iter().filter_map(state).collect())
}

#[test]
fn a_load_balancer_of_the_account_answers_and_its_targets_health_is_told() {
    run(async {
        // Whoever has a lab has the loopback addresses.
        let mut turn = turn().await;
        turn.take();
        let lab = Lab::start(options()).await?;
        let traffic = &lab.traffic;
        let address: IpAddr = Ipv4Addr::new(10, 0, 100, 200).into();
        let loopback = fabric::of_vpc(address, 8080, traffic.options).context("an address outside")?;
        let group = make_group(&lab, "web", ProtocolEnum::Http).await?;
        let target = TargetDescription::builder().id(address.to_string()).port(8080).build();
        lab.aws.elb.register_targets().target_group_arn(&group).targets(target.clone()).send().await?;
        let key = (address.to_string(), 8080);
        let state = async || Ok::<_, anyhow::Error>(states(&lab.aws, &group).await?.get(&key).cloned());
        // Nothing checks it.
        ensure!(state().await?.as_deref() == Some("unused"), "{:?}", state().await?);
        let (balancer, name) = make_balancer(&lab, "web", LoadBalancerTypeEnum::Application).await?;
        // Everyone may come in.
        let permit = lab.aws.ec2.authorize_security_group_ingress().group_id(&lab.world.security_groups["my-sg-1"]);
        permit.ip_protocol("tcp").from_port(80).to_port(80).cidr_ip("0.0.0.0/0").send().await?;
        let request = lab.aws.elb.create_listener().load_balancer_arn(&balancer).protocol(ProtocolEnum::Http).port(80);
        request.default_actions(forward(&group)).send().await?;
        // There is no pod: what nobody has checked with success is not healthy.
        ensure!(matches!(state().await?.as_deref(), Some("initial" | "unhealthy")), "{:?}", state().await?);
        let nodes = wait_for(SOON, "two nodes in DNS", async || {
            Ok(Some(traffic.addresses(&name, 80)).filter(|nodes| nodes.len() == 2))
        })
        .await?;
        let pod = pod(loopback).await?;
        for node in &nodes {
            wait_until(SOON, "an answer", async || {
                let answer = get(*node).await?;
                Ok(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"))
            })
            .await?;
        }
        drop(pod);
        lab.aws.elb.deregister_targets().target_group_arn(&group).targets(target).send().await?;
        ensure!(matches!(state().await?.as_deref(), None | Some("draining")), "{:?}", state().await?);
        lab.aws.elb.delete_load_balancer().load_balancer_arn(&balancer).send().await?;
        wait_until(SOON, "the load balancer to be gone", async || Ok(traffic.fabric.nodes().is_empty())).await?;
        for node in nodes {
            ensure!(TcpStream::connect(node).await.is_err(), "{node} answers still");
        }
        ensure!(traffic.addresses(&name, 80).is_empty(), "{name} has addresses still");
        Ok(())
    });
}

#[test]
fn the_account_is_read_as_it_is() {
    run(async {
        let mut turn = turn().await;
        turn.take();
        let lab = Lab::start(albatross_fabric::node::Options { delay_millis: (0, 0), ..options() }).await?;
        let traffic = &lab.traffic;
        let group = make_group(&lab, "web", ProtocolEnum::Http).await?;
        let (balancer, name) = make_balancer(&lab, "web", LoadBalancerTypeEnum::Application).await?;
        for port in [8080, 8081] {
            let target = TargetDescription::builder().id("10.0.100.200").port(port).build();
            lab.aws.elb.register_targets().target_group_arn(&group).targets(target).send().await?;
        }
        let certificate = &lab.world.certificates["*.example.com"];
        let request =
            lab.aws.elb.create_listener().load_balancer_arn(&balancer).protocol(ProtocolEnum::Https).port(443);
        let request = request.certificates(Certificate::builder().certificate_arn(certificate).build());
        let made = request.default_actions(forward(&group)).send().await?;
        let listener = made.listeners().first().and_then(|listener| listener.listener_arn()).context("no listener")?;
        let host = HostHeaderConditionConfig::builder().values("a.example.com").build();
        let path = PathPatternConditionConfig::builder().regex_values("^/v[0-9]").build();
        let rewrite = RewriteConfig::builder().regex("^(.*)$").replace("b.$1").build();
        let rewrite = HostHeaderRewriteConfig::builder().rewrites(rewrite).build();
        let transform = RuleTransform::builder().r#type(TransformTypeEnum::HostHeaderRewrite);
        let request = lab.aws.elb.create_rule().listener_arn(listener).priority(7).actions(forward(&group));
        let request = request
            .conditions(RuleCondition::builder().field("host-header").host_header_config(host).build())
            .conditions(RuleCondition::builder().field("path-pattern").path_pattern_config(path).build())
            .transforms(transform.host_header_rewrite_config(rewrite).build());
        let made = request.send().await?;
        let rule = made.rules().first().and_then(|rule| rule.rule_arn()).context("no rule")?;
        let account = wait_for(SOON, "the rule", async || {
            let account = traffic.account.borrow().clone();
            let listener = account.load_balancers.get(&balancer).and_then(|balancer| balancer.listeners.get(&443));
            Ok(listener.is_some_and(|listener| listener.rules.len() == 1).then_some(account))
        })
        .await?;
        let seen = &account.load_balancers[&balancer];
        let expected = serde_json::json!({
            "name": "web",
            "dnsName": name,
            "kind": "application",
            "active": true,
            "public": true,
            "subnets": sorted([&lab.world.subnets["public-a"], &lab.world.subnets["public-b"]]),
            "securityGroups": [lab.world.security_groups["my-sg-1"]],
            "attributes": seen.attributes,
            "listeners": {"443": {
                "arn": listener,
                "protocol": "HTTPS",
                "certificates": [certificate],
                "alpn": null,
                "clientCertificates": null,
                "attributes": seen.listeners[&443].attributes,
                "defaultActions": [{"type": "forward", "targetGroups": [{"arn": group, "weight": 1}], "stickinessSeconds": null}],
                "rules": [{
                    "arn": rule,
                    "priority": 7,
                    "conditions": [
                        {"field": "host-header", "values": ["a.example.com"], "regexValues": []},
                        {"field": "path-pattern", "values": [], "regexValues": ["^/v[0-9]"]},
                    ],
                    "actions": [{"type": "forward", "targetGroups": [{"arn": group, "weight": 1}], "stickinessSeconds": null}],
                    "transforms": [{"type": "host-header-rewrite", "regex": "^(.*)$", "replace": "b.$1"}],
                }],
            }},
        });
        ensure!(serde_json::to_value(seen)? == expected, "{:#}", serde_json::to_value(seen)?);
        ensure!(seen.attributes.get("load_balancing.cross_zone.enabled").map(String::as_str) == Some("true"));
        let targets: Vec<_> = account.target_groups[&group].targets.iter().map(|target| target.port).collect();
        ensure!(targets == [8080, 8081], "{targets:?}");
        let delay = account.target_groups[&group].attributes.get("deregistration_delay.timeout_seconds");
        ensure!(delay.map(String::as_str) == Some("300"), "{delay:?}");
        let certificate = &account.certificates[certificate];
        ensure!(certificate.certificate.matches("BEGIN CERTIFICATE").count() == 2, "{certificate:?}");
        ensure!(certificate.key.contains("PRIVATE KEY"), "no key");
        for node in &lab.world.nodes {
            let instance = &account.instances[&node.instance];
            ensure!(
                (instance.address.to_string(), &instance.zone, instance.running)
                    == (node.address.clone(), &node.zone, true)
            );
            ensure!(account.addresses[&instance.address].contains(&lab.world.node_security_group));
        }
        let subnet = &account.subnets[&lab.world.subnets["public-a"]];
        ensure!((subnet.cidr.to_string(), &subnet.zone) == ("10.0.0.0/24".to_owned(), &format!("{REGION}a")));
        let office: Vec<_> =
            account.prefix_lists[&lab.world.prefix_lists["office"]].iter().map(ToString::to_string).collect();
        ensure!(office == ["198.51.100.0/24"], "{office:?}");
        for store in lab.world.trust_stores.values() {
            ensure!(account.trust_stores[store].starts_with("-----BEGIN CERTIFICATE-----"));
        }
        Ok(())
    });
}

fn sorted<const N: usize>(mut values: [&String; N]) -> [&String; N] {
    values.sort();
    values
}
