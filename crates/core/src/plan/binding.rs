//! The spec of the TargetGroupBinding of a target group, as aws-load-balancer-controller writes it (reference: ingress §9.3).

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString};

use crate::{
    api::crd,
    model::{
        IpAddressType, NetworkingPeer, NetworkingPort, NetworkingRule, PortReference, SecurityGroupId,
        SecurityGroupReference, TargetGroup, TargetGroupArn, TargetGroupProtocol, TargetType,
    },
};

fn port(reference: &PortReference) -> IntOrString {
    match reference {
        PortReference::Number(number) => IntOrString::Int(i32::from(*number)),
        PortReference::Name(name) => IntOrString::String(name.clone()),
    }
}

fn networking_rule(
    rule: &NetworkingRule,
    source: &dyn Fn(&SecurityGroupReference) -> Option<SecurityGroupId>,
) -> Option<crd::NetworkingIngressRule> {
    let peer = |peer: &NetworkingPeer| {
        Some(match peer {
            NetworkingPeer::SecurityGroup(reference) => crd::Peer {
                security_group: Some(crd::SecurityGroup { group_id: source(reference)?.to_string() }),
                ..crd::Peer::default()
            },
            NetworkingPeer::Cidr(cidr) => {
                crd::Peer { ip_block: Some(crd::IpBlock { cidr: cidr.clone() }), ..crd::Peer::default() }
            }
        })
    };
    let networking_port = |wanted: &NetworkingPort| crd::NetworkingPort {
        protocol: Some(if wanted.udp { crd::NetworkingProtocol::Udp } else { crd::NetworkingProtocol::Tcp }),
        port: wanted.port.as_ref().map(port),
    };
    Some(crd::NetworkingIngressRule {
        from: rule.from.iter().map(peer).collect::<Option<_>>()?,
        ports: rule.ports.iter().map(networking_port).collect(),
    })
}

/// Returns a spec that allows, in addition to its own sources, those of another one.
#[must_use]
pub fn widened(
    mut spec: crd::TargetGroupBindingSpec,
    before: &crd::TargetGroupBindingSpec,
) -> crd::TargetGroupBindingSpec {
    let Some(before) = &before.networking else { return spec };
    let rules = spec.networking.get_or_insert_default().ingress.get_or_insert_default();
    for rule in before.ingress.iter().flatten() {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    spec
}

/// The spec, once the source of traffic and the VPC are known.
#[must_use]
pub fn spec(
    target_group: &TargetGroup,
    arn: &TargetGroupArn,
    source: &dyn Fn(&SecurityGroupReference) -> Option<SecurityGroupId>,
) -> Option<crd::TargetGroupBindingSpec> {
    let binding = &target_group.binding;
    let networking = match &binding.networking {
        Some(rules) => {
            let ingress: Option<Vec<_>> = rules.iter().map(|rule| networking_rule(rule, source)).collect();
            Some(crd::Networking { ingress: Some(ingress?) })
        }
        None => None,
    };
    Some(crd::TargetGroupBindingSpec {
        target_group_arn: Some(arn.to_string()),
        target_type: Some(match target_group.target_type {
            TargetType::Instance => crd::TargetType::Instance,
            TargetType::Ip => crd::TargetType::Ip,
        }),
        target_group_protocol: Some(match target_group.protocol {
            TargetGroupProtocol::Http => crd::TargetGroupProtocol::Http,
            TargetGroupProtocol::Https => crd::TargetGroupProtocol::Https,
            TargetGroupProtocol::Tcp => crd::TargetGroupProtocol::Tcp,
            TargetGroupProtocol::Tls => crd::TargetGroupProtocol::Tls,
            TargetGroupProtocol::Udp => crd::TargetGroupProtocol::Udp,
            TargetGroupProtocol::TcpUdp => crd::TargetGroupProtocol::TcpUdp,
            TargetGroupProtocol::Quic => crd::TargetGroupProtocol::Quic,
            TargetGroupProtocol::TcpQuic => crd::TargetGroupProtocol::TcpQuic,
        }),
        multi_cluster_target_group: binding.multi_cluster.then_some(true),
        service_ref: crd::ServiceReference { name: binding.service.clone(), port: port(&binding.service_port) },
        networking,
        node_selector: (!binding.node_labels.is_empty())
            .then(|| LabelSelector { match_labels: Some(binding.node_labels.clone()), match_expressions: None }),
        ip_address_type: Some(match target_group.ip_address_type {
            IpAddressType::Ipv6 => crd::IpAddressType::Ipv6,
            _ => crd::IpAddressType::Ipv4,
        }),
        vpc_id: Some(target_group.vpc.known()?.to_string()),
        ..crd::TargetGroupBindingSpec::default()
    })
}
