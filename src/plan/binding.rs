//! The spec of the TargetGroupBinding of a target group, as aws-load-balancer-controller writes it (reference: ingress §9.3).

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{
    api::crd,
    model::{
        PortReference, SecurityGroupId, SecurityGroupReference, TargetGroup, TargetGroupArn, TargetGroupProtocol,
        TargetType,
    },
};

fn port(reference: &PortReference) -> IntOrString {
    match reference {
        PortReference::Number(number) => IntOrString::Int(i32::from(*number)),
        PortReference::Name(name) => IntOrString::String(name.clone()),
    }
}

/// The spec, once the source of traffic and the VPC are known.
#[must_use]
pub fn spec(
    target_group: &TargetGroup,
    arn: &TargetGroupArn,
    source: &dyn Fn(&SecurityGroupReference) -> Option<SecurityGroupId>,
) -> Option<crd::TargetGroupBindingSpec> {
    let binding = &target_group.binding;
    let source = source(&binding.source)?;
    let rule = |ports: Option<IntOrString>| crd::NetworkingIngressRule {
        from: vec![crd::Peer {
            security_group: Some(crd::SecurityGroup { group_id: source.to_string() }),
            ..crd::Peer::default()
        }],
        ports: vec![crd::NetworkingPort { protocol: Some(crd::NetworkingProtocol::Tcp), port: ports }],
    };
    let ingress = if binding.ports.is_empty() {
        vec![rule(None)]
    } else {
        binding.ports.iter().map(|reference| rule(Some(port(reference)))).collect()
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
        }),
        service_ref: crd::ServiceReference { name: binding.service.clone(), port: port(&binding.service_port) },
        networking: Some(crd::Networking { ingress: Some(ingress) }),
        ip_address_type: Some(crd::IpAddressType::Ipv4),
        vpc_id: Some(target_group.vpc.known()?.to_string()),
        ..crd::TargetGroupBindingSpec::default()
    })
}
