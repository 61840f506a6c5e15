//! From manifests, as users write them, to stacks and diagnostics.

mod access;
mod attributes;
mod authentication;
mod classes;
mod conditions;
mod forwards;
mod frontend;
mod groups;
mod listeners;
mod messages;
mod params;
mod properties;
mod routes;
mod target_groups;
mod whole;
pub(in crate::desired) mod wrong_values;

use std::fmt::Write as _;

use super::{Built, Membership, build};
use crate::{
    desired::BuildConfig,
    diagnostics::Severity,
    facts::{Fact, Facts, Subnet, SubnetQuery},
    model::*,
    snapshot::Snapshot,
    testing::snapshot,
};

/// Two Services of the namespace `shop`, as most tests need them.
const SERVICES: &str = r"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, uid: 11111111-1111-1111-1111-111111111111}
spec:
  type: NodePort
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop, uid: 22222222-2222-2222-2222-222222222222}
spec:
  type: NodePort
  ports:
  - {name: http, port: 80, targetPort: serve, nodePort: 30081}
  - {name: admin, port: 9000, targetPort: 9001, nodePort: 30082}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: alb}
spec: {controller: ingress.k8s.aws/alb}
";

fn config() -> BuildConfig {
    BuildConfig::new("demo", Value::Known(VpcId::new("vpc-1")))
}

fn facts() -> Facts {
    let subnets = || Fact::Known(vec![subnet("subnet-a"), subnet("subnet-b")]);
    Facts {
        subnets: [Scheme::Internal, Scheme::InternetFacing].map(|scheme| (discovered(scheme), subnets())).into(),
        backend_security_group: Some(Fact::Known(SecurityGroupId::new("sg-shared"))),
        ..Facts::default()
    }
}

fn subnet(id: &str) -> Subnet {
    Subnet::of_unknown_blocks(SubnetId::new(id))
}

fn discovered(scheme: Scheme) -> SubnetQuery {
    SubnetQuery::Discovered { kind: LoadBalancerKind::Application, scheme, ipv6: false }
}

/// From which security group, on which ports; `-` where the rules are the user's.
fn networking(binding: &Binding) -> (Option<SecurityGroupReference>, String) {
    let Some(rules) = &binding.networking else { return (None, "-".to_owned()) };
    let mut from = None;
    let mut ports = Vec::new();
    for rule in rules {
        let ([NetworkingPeer::SecurityGroup(group)], [port]) = (&*rule.from, &*rule.ports) else { panic!("{rule:?}") };
        assert!(!port.udp && from.as_ref().is_none_or(|from| from == group));
        from = Some(group.clone());
        ports.push(port.port.as_ref().map_or("every port".to_owned(), ToString::to_string));
    }
    (from, ports.join(","))
}

fn web() -> ObjectName {
    ObjectName::new("shop", "web")
}

/// An Ingress `shop/web` with annotations under the controller's prefix, and fields of its spec other than the class.
fn ingress(annotations: &[(&str, &str)], spec: &str) -> String {
    let mut text = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  namespace: shop\n  generation: 7\n  annotations:\n    example.com/owner: team\n".to_owned();
    for (key, value) in annotations {
        let prefix = if key.contains('/') { "" } else { "alb.ingress.kubernetes.io/" };
        writeln!(text, "    {prefix}{key}: {}", serde_json::Value::from(*value)).unwrap();
    }
    write!(text, "spec:\n  ingressClassName: alb\n{spec}").unwrap();
    text
}

/// A backend as manifests write it, of a port by number or by name.
fn backend(service: &str, port: &str) -> String {
    let kind = if port.parse::<u16>().is_ok() { "number" } else { "name" };
    format!("{{service: {{name: {service}, port: {{{kind}: {port}}}}}}}")
}

/// The rules of one host (empty for all), with path type, path and backend.
fn rules(host: &str, paths: &[(&str, &str, &str, &str)]) -> String {
    let mut text = format!("  - host: {}\n    http:\n      paths:\n", serde_json::Value::from(host));
    for (kind, path, service, port) in paths {
        let path = serde_json::Value::from(*path);
        let kind = if kind.is_empty() { String::new() } else { format!("pathType: {kind}, ") };
        writeln!(text, "      - {{{kind}path: {path}, backend: {}}}", backend(service, port)).unwrap();
    }
    text
}

/// One rule that takes everything to `web`.
fn everything() -> String {
    format!("  rules:\n{}", rules("", &[("Prefix", "/", "web", "80")]))
}

fn build_with(manifests: &str, config: &BuildConfig, facts: &Facts) -> Built {
    let group = StackId::Ingress(web());
    let built = build(
        &snapshot(manifests),
        config,
        facts,
        &group,
        &Membership { members: [web()].to_vec(), ..Default::default() },
    );
    let failed = built.diagnostics.iter().any(|d| d.severity == Severity::Error);
    assert_eq!(
        built.stack.is_some(),
        !failed && built.wants.is_empty() && built.unavailable.is_empty(),
        "a stack is there exactly where nothing stands against it: {built:?}"
    );
    built
}

/// Builds `shop/web` from an Ingress and the usual Services.
fn built(ingress: &str) -> Built {
    build_with(&format!("{SERVICES}\n---\n{ingress}"), &config(), &facts())
}

/// The stack, where nothing at all is to be said.
fn stack(ingress: &str) -> Stack {
    let built = built(ingress);
    assert_eq!(messages(&built), "");
    built.stack.unwrap()
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

fn target(reference: &TargetGroupReference) -> String {
    match reference {
        TargetGroupReference::Own(id) => id.to_string(),
        TargetGroupReference::Foreign(arn) => arn.to_string(),
        TargetGroupReference::Named(name) => format!("named {name}"),
    }
}

fn answer(action: &Action<TargetGroupReference>) -> String {
    match action {
        Action::Forward { target_groups, .. } => {
            let groups = target_groups.iter().map(|t| {
                let weight = t.weight.map(|weight| format!("{weight}x")).unwrap_or_default();
                format!("{weight}{}", target(&t.group))
            });
            groups.collect::<Vec<_>>().join("+")
        }
        Action::FixedResponse { message_body, status_code, .. } => {
            format!("{status_code} {}", message_body.as_deref().unwrap_or("-"))
        }
        Action::Redirect { host, path, port, protocol, query, status_code } => {
            let parts = [protocol, host, port, path, query].map(|part| part.as_deref().unwrap_or("-"));
            format!("{status_code} {}", parts.join(" "))
        }
        other => format!("{other:?}"),
    }
}

/// Listeners and rules in short.
fn routes(stack: &Stack) -> String {
    let mut text = String::new();
    for listener in stack.listeners.values() {
        writeln!(text, "{} {}: {}", listener.protocol, listener.port, answer(&listener.default_action)).unwrap();
        for rule in &listener.rules {
            let conditions: Vec<String> = rule
                .conditions
                .iter()
                .map(|condition| match condition {
                    Condition::HostHeader { values, .. } | Condition::PathPattern { values, .. } => values.join("|"),
                    other => format!("{other:?}"),
                })
                .collect();
            writeln!(text, "  {} -> {}", conditions.join(" "), answer(&rule.action)).unwrap();
        }
    }
    text
}
