//! From Services, as users write them, to stacks and diagnostics.

mod dualstack;
mod messages;
mod ownership;
mod properties;
mod quic;
mod weighted;
mod whole;
mod wrong_values;

use std::fmt::Write as _;

use super::{Ownership, build, ownership};
use crate::{
    desired::{BuildConfig, Built},
    diagnostics::Severity,
    facts::{ExistingLoadBalancer, Fact, Facts, Subnet, SubnetQuery},
    model::*,
    snapshot::{Scope, Snapshot},
    testing::snapshot,
};

/// The beginning of most tests' specs: of the controller's class, one port.
const CLASS: &str = "  type: LoadBalancer\n  loadBalancerClass: service.k8s.aws/nlb\n";
const PORT: &str = "  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]\n";
const TWO_PORTS: &str = "  ports:\n  - {name: http, port: 80, targetPort: 8080, nodePort: 30080}\n  - {name: https, port: 443, targetPort: 8443, nodePort: 30443}\n";
const IP: (&str, &str) = ("aws-load-balancer-nlb-target-type", "ip");

fn config() -> BuildConfig {
    BuildConfig::new("demo", Value::Known(VpcId::new("vpc-1")))
}

fn web() -> ObjectName {
    ObjectName::new("shop", "web")
}

fn subnet(id: &str, block: &str, ipv6_block: &str) -> Subnet {
    let (ipv4_blocks, ipv6_blocks) = (vec![block.to_owned()], vec![ipv6_block.to_owned()]);
    Subnet { id: SubnetId::new(id), ipv4_blocks, ipv6_blocks }
}

fn both() -> Fact<Vec<Subnet>> {
    let (a, b) = ("2001:db8:0:a::/64", "2001:db8:0:b::/64");
    Fact::Known(vec![subnet("subnet-a", "10.0.0.0/24", a), subnet("subnet-b", "10.0.1.0/24", b)])
}

fn named(names: &[&str]) -> SubnetQuery {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    SubnetQuery::Named { kind: LoadBalancerKind::Network, names, ipv6: false }
}

fn facts() -> Facts {
    let discovered = |scheme, ipv6| SubnetQuery::Discovered { kind: LoadBalancerKind::Network, scheme, ipv6 };
    let names = ["subnet-a", "subnet-b"].map(str::to_owned).to_vec();
    Facts {
        subnets: [
            (discovered(Scheme::Internal, false), both()),
            (discovered(Scheme::InternetFacing, false), both()),
            (discovered(Scheme::Internal, true), both()),
            (discovered(Scheme::InternetFacing, true), both()),
            (named(&["public-a", "public-b"]), both()),
            (named(&["subnet-a", "subnet-b"]), both()),
            (SubnetQuery::Named { kind: LoadBalancerKind::Network, names, ipv6: true }, both()),
        ]
        .into(),
        security_groups: [(vec!["my-sg-1".to_owned()], Fact::Known(vec![SecurityGroupId::new("sg-mine")]))].into(),
        vpc_blocks: Some(Fact::Known(VpcBlocks {
            ipv4: vec!["10.0.0.0/16".to_owned()],
            ipv6: vec!["2001:db8::/56".to_owned()],
        })),
        backend_security_group: Some(Fact::Known(SecurityGroupId::new("sg-shared"))),
        ..Facts::default()
    }
}

fn existing(scheme: Scheme, has_security_groups: bool) -> Facts {
    let subnets = ["subnet-a", "subnet-b"].map(SubnetId::new).into();
    let existing = ExistingLoadBalancer {
        kind: LoadBalancerKind::Network,
        scheme,
        has_security_groups,
        has_ipv6: false,
        has_quic: false,
        customer_owned_pool: None,
        subnets,
    };
    Facts { existing: Some(existing), ..facts() }
}

/// A Service `shop/web` with annotations under the controller's prefix (or, with a slash in them, under their own).
fn service(annotations: &[(&str, &str)], spec: &str) -> String {
    let mut text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\n  uid: 11111111-1111-1111-1111-111111111111\n  generation: 3\n  annotations:\n    example.com/owner: team\n".to_owned();
    for (key, value) in annotations {
        let prefix = if key.contains('/') { "" } else { "service.beta.kubernetes.io/" };
        writeln!(text, "    {prefix}{key}: {}", serde_json::Value::from(*value)).unwrap();
    }
    write!(text, "spec:\n{spec}").unwrap();
    text
}

fn build_with(manifest: &str, config: &BuildConfig, facts: &Facts) -> Built {
    build(&snapshot(manifest), config, facts, &web())
}

fn stack_with(annotations: &[(&str, &str)], spec: &str, facts: &Facts) -> Stack {
    let built = build_with(&service(annotations, &format!("{CLASS}{spec}")), &config(), facts);
    assert_eq!(messages(&built), "");
    built.stack.unwrap()
}

/// Returns the stack of a Service of the controller's class; there must be no diagnostics.
fn stack(annotations: &[(&str, &str)], spec: &str) -> Stack {
    stack_with(annotations, spec, &facts())
}

/// Every diagnostic as users see it, a line each.
fn messages(built: &Built) -> String {
    built
        .diagnostics
        .iter()
        .map(|d| {
            let code = serde_json::to_value(d.code).unwrap();
            format!("{:?} {} on {}: {d}\n", d.severity, code.as_str().unwrap(), d.object)
        })
        .collect()
}

fn reported(annotations: &[(&str, &str)], spec: &str) -> String {
    messages(&build_with(&service(annotations, &format!("{CLASS}{spec}")), &config(), &facts()))
}

fn peer(peer: &NetworkingPeer) -> String {
    match peer {
        NetworkingPeer::SecurityGroup(group) => reference(group),
        NetworkingPeer::Cidr(block) => block.clone(),
    }
}

fn reference(group: &SecurityGroupReference) -> String {
    match group {
        SecurityGroupReference::Managed => "managed".to_owned(),
        SecurityGroupReference::SharedBackend(id) => format!("shared {id}"),
        SecurityGroupReference::Given(id) => format!("given {id}"),
    }
}

fn pairs(map: &std::collections::BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

/// A whole stack in short, without the tags and labels that every one has.
fn shown(stack: &Stack) -> String {
    let mut text = String::new();
    let out = &mut text;
    if let Some(group) = &stack.security_group {
        let rules: Vec<String> = group.ingress.iter().map(ToString::to_string).collect();
        writeln!(out, "security group {}: {}", group.name, rules.join("; ")).unwrap();
    }
    if let Some(balancer) = &stack.load_balancer {
        let groups: Vec<String> = balancer.security_groups.iter().map(reference).collect();
        writeln!(out, "{} load balancer {} {} in {}", balancer.kind, balancer.name, balancer.scheme, groups.join(", "))
            .unwrap();
        if balancer.ip_address_type.has_ipv6() {
            let source_nat = if balancer.network.ipv6_source_nat { "with" } else { "without" };
            writeln!(out, "  {} {source_nat} source NAT", balancer.ip_address_type).unwrap();
        }
        match &balancer.subnets {
            Value::AfterApply(why) => writeln!(out, "  subnets after apply: {why}").unwrap(),
            Value::Known(subnets) => {
                for SubnetMapping { subnet, allocation, private_ipv4, ipv6, source_nat_prefix } in subnets {
                    let addresses = [allocation, private_ipv4, ipv6].into_iter().flatten().cloned();
                    let prefix = source_nat_prefix.as_ref().map(ToString::to_string);
                    let all: String = addresses.chain(prefix).map(|address| format!(" {address}")).collect();
                    writeln!(out, "  {subnet}{all}").unwrap();
                }
            }
        }
        writeln!(out, "  attributes {}", pairs(&balancer.attributes)).unwrap();
    }
    for group in stack.target_groups.values() {
        let check = &group.health_check;
        let matcher = match &check.matcher {
            Some(Matcher::Http(codes) | Matcher::Grpc(codes)) => codes,
            None => "-",
        };
        writeln!(
            out,
            "target group {} {} {} {} {}{}",
            group.resource,
            group.name,
            group.target_type,
            group.protocol,
            group.port,
            if group.ip_address_type == IpAddressType::Ipv6 { " ipv6" } else { "" }
        )
        .unwrap();
        writeln!(
            out,
            "  checked {} {} {} every {} in {}, {}/{}, {matcher}",
            check.protocol,
            check.port,
            check.path.as_deref().unwrap_or("-"),
            check.interval_seconds,
            check.timeout_seconds,
            check.healthy_threshold,
            check.unhealthy_threshold
        )
        .unwrap();
        writeln!(out, "  attributes {}", pairs(&group.attributes)).unwrap();
        let binding = &group.binding;
        writeln!(out, "  bound to {} {} {}", binding.service, binding.service_port, pairs(&binding.node_labels))
            .unwrap();
        for rule in binding.networking.as_deref().unwrap_or_default() {
            let from: Vec<String> = rule.from.iter().map(peer).collect();
            let port = |p: &NetworkingPort| {
                let port = p.port.as_ref().map_or("all".to_owned(), ToString::to_string);
                format!("{} {port}", if p.udp { "udp" } else { "tcp" })
            };
            let ports: Vec<String> = rule.ports.iter().map(port).collect();
            writeln!(out, "  reached from {} on {}", from.join(", "), ports.join(", ")).unwrap();
        }
        if binding.networking.is_none() {
            writeln!(out, "  reached as the user says").unwrap();
        }
    }
    for listener in stack.listeners.values() {
        let groups: Vec<String> = listener.default_action.target_groups().map(|g| format!("{g:?}")).collect();
        write!(out, "listener {} {} to {}", listener.protocol, listener.port, groups.join(", ")).unwrap();
        if let Some(certificate) = &listener.default_certificate {
            let others: Vec<&str> = listener.certificates.iter().map(CertificateArn::as_str).collect();
            let policy = listener.ssl_policy.as_deref().unwrap_or("-");
            let alpn = listener.alpn_policy.as_deref().unwrap_or("-");
            write!(out, ", {certificate} and [{}], {policy}, ALPN {alpn}", others.join(", ")).unwrap();
        }
        writeln!(out, " {}", pairs(&listener.attributes)).unwrap();
    }
    text.lines().fold(String::new(), |all, line| all + line.trim_end() + "\n")
}
