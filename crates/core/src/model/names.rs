//! The names of AWS resources, exactly as aws-load-balancer-controller makes them, so that taking over renames nothing.

use sha2::{Digest, Sha256};

use crate::model::{
    HealthCheckProtocol, InvalidName, IpAddressType, LoadBalancerName, ObjectName, PortReference, ProtocolVersion,
    Scheme, StackId, TargetGroupName, TargetGroupProtocol, TargetType,
};

/// Description of the security group in front of a load balancer.
pub const MANAGED_GROUP_DESCRIPTION: &str = "[k8s] Managed SecurityGroup for LoadBalancer";
/// Description of the security group that all load balancers of a cluster share.
pub const BACKEND_GROUP_DESCRIPTION: &str = "[k8s] Shared Backend SecurityGroup for LoadBalancer";
/// The description of the controller's rules on the security groups of nodes; only rules with this text are ever revoked.
pub const NODE_RULE_DESCRIPTION: &str = "elbv2.k8s.aws/targetGroupBinding=shared";

/// The name of the ConfigMap in a binding's namespace with the targets that are the binding's own, where other clusters have
/// targets in the same group.
#[must_use]
pub fn own_targets(binding: &str) -> String {
    format!("aws-lbc-targets-{binding}")
}

/// Lower-case hexadecimal SHA-256 of the parts, one behind the other without separators.
fn hash(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.as_bytes());
    }
    hex::encode(digest.finalize())
}

/// Returns the first eight characters of the hash of a text.
pub(super) fn short_hash(text: &str) -> String {
    let mut hash = hash(&[text]);
    hash.truncate(8);
    hash
}

/// Returns a token of 32 characters that differs where one of the parts differs.
pub(super) fn token(parts: &[&str]) -> String {
    let parts: Vec<String> = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
    let mut hash = hash(&parts.iter().map(String::as_str).collect::<Vec<_>>());
    hash.truncate(32);
    hash
}

/// The first `most` of the characters that AWS's names may have.
fn plain(text: &str, most: usize) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).take(most).collect()
}

fn group_name(stack: &StackId, hash: &str) -> String {
    let hash = &hash[..10];
    match stack {
        StackId::Group(name) => format!("k8s-{}-{hash}", plain(name, 17)),
        StackId::Ingress(name) | StackId::Service(name) => {
            format!("k8s-{}-{}-{hash}", plain(&name.namespace, 8), plain(&name.name, 8))
        }
    }
}

/// The name of a group's load balancer where the user gives none.
///
/// # Errors
/// Never for names that Kubernetes accepts; the limits of AWS are checked all the same.
pub fn load_balancer(cluster: &str, stack: &StackId, scheme: Scheme) -> Result<LoadBalancerName, InvalidName> {
    LoadBalancerName::new(group_name(stack, &hash(&[cluster, &stack.to_string(), scheme.as_str()])))
}

/// The name of the Network Load Balancer in front of a load balancer of this name.
///
/// # Errors
/// Never for valid names; the limits of AWS are checked all the same.
pub fn frontend(behind: &LoadBalancerName) -> Result<LoadBalancerName, InvalidName> {
    let start: String = behind.as_str().chars().take(28).collect();
    LoadBalancerName::new(format!("{start}-nlb"))
}

/// The name of the Network Load Balancer in front where another of the stack, with another scheme, has that of [`frontend`].
///
/// # Errors
/// Never for valid names; the limits of AWS are checked all the same.
pub fn second_frontend(behind: &LoadBalancerName, scheme: Scheme) -> Result<LoadBalancerName, InvalidName> {
    let start: String = behind.as_str().chars().take(20).collect();
    let hash = hash(&[behind.as_str(), scheme.as_str()]);
    LoadBalancerName::new(format!("{}-{}-nlb", start.trim_end_matches('-'), &hash[..7]))
}

/// The values from which the name of a target group of the Network Load Balancer in front is hashed.
#[derive(Clone, Copy, Debug)]
pub struct FrontendTargetGroupIdentity<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The group of Ingresses.
    pub group: &'a StackId,
    /// The port of the Network Load Balancer.
    pub port: u16,
    /// The port of health checks.
    pub check_port: &'a str,
    /// The protocol of health checks.
    pub check_protocol: HealthCheckProtocol,
}

/// The name of a target group of the Network Load Balancer in front, and the one where another of the stack has that.
///
/// # Errors
/// Never for names that Kubernetes accepts; the limits of AWS are checked all the same.
pub fn frontend_target_group(
    identity: FrontendTargetGroupIdentity<'_>,
) -> Result<(TargetGroupName, TargetGroupName), InvalidName> {
    let i = identity;
    let hash = hash(&[
        i.cluster,
        &i.group.to_string(),
        &i.port.to_string(),
        "alb",
        "TCP",
        i.check_port,
        i.check_protocol.as_str(),
    ]);
    let first = TargetGroupName::new(group_name(i.group, &hash))?;
    let second = second(&first, &[])?;
    Ok((first, second))
}

/// The name of the security group in front of a group's load balancer.
#[must_use]
pub fn managed_security_group(cluster: &str, stack: &StackId) -> String {
    group_name(stack, &hash(&[cluster, &stack.to_string()]))
}

/// The name of a Service's load balancer where the user gives none.
///
/// # Errors
/// Never for names that Kubernetes accepts; the limits of AWS are checked all the same.
pub fn network_load_balancer(
    cluster: &str,
    service: &ObjectName,
    service_uid: &str,
    scheme: Scheme,
) -> Result<LoadBalancerName, InvalidName> {
    let hash = hash(&[cluster, service_uid, scheme.as_str()]);
    LoadBalancerName::new(group_name(&StackId::Service(service.clone()), &hash))
}

/// The name of the security group in front of a Service's load balancer.
#[must_use]
pub fn service_security_group(cluster: &str, service: &ObjectName, service_uid: &str) -> String {
    let hash = hash(&[cluster, &service.name, &service.namespace, service_uid]);
    group_name(&StackId::Service(service.clone()), &hash)
}

/// The values from which the name of a Service's target group is hashed.
#[derive(Clone, Copy, Debug)]
pub struct ServiceTargetGroupIdentity<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The `metadata.uid` of the load balancer's Service where the target group is for another Service.
    pub owner_uid: Option<&'a str>,
    /// The Service.
    pub service: &'a ObjectName,
    /// The Service's `metadata.uid`.
    pub service_uid: &'a str,
    /// The target group's own port.
    pub port: u16,
    /// The number of the Service's port.
    pub service_port: u16,
    /// Instances or addresses.
    pub target_type: TargetType,
    /// The protocol to targets.
    pub protocol: TargetGroupProtocol,
    /// The protocol of health checks.
    pub check_protocol: HealthCheckProtocol,
    /// The seconds between health checks.
    pub check_interval: i32,
}

/// The name of a Service's target group.
///
/// # Errors
/// Never for names that Kubernetes accepts; the limits of AWS are checked all the same.
pub fn service_target_group(identity: ServiceTargetGroupIdentity<'_>) -> Result<TargetGroupName, InvalidName> {
    let i = identity;
    let hash = hash(&[
        i.cluster,
        i.owner_uid.unwrap_or_default(),
        i.service_uid,
        &i.port.to_string(),
        &i.service_port.to_string(),
        i.target_type.as_str(),
        i.protocol.as_str(),
        i.check_protocol.as_str(),
        &i.check_interval.to_string(),
    ]);
    TargetGroupName::new(group_name(&StackId::Service(i.service.clone()), &hash))
}

/// The name of the security group that all load balancers of a cluster share.
#[must_use]
pub fn backend_security_group(cluster: &str) -> String {
    format!("k8s-traffic-{}-{}", plain(cluster, 232), &hash(&[cluster])[..10])
}

/// The values from which a target group's name is hashed.
#[derive(Clone, Copy, Debug)]
pub struct TargetGroupIdentity<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The group of Ingresses.
    pub group: &'a StackId,
    /// The Ingress that forwards to it.
    pub ingress: &'a ObjectName,
    /// The Service.
    pub service: &'a ObjectName,
    /// The Service's `metadata.uid`.
    pub service_uid: &'a str,
    /// The Service's port, as the Ingress writes it.
    pub service_port: &'a PortReference,
    /// The target group's own port.
    pub port: u16,
    /// Instances or addresses.
    pub target_type: TargetType,
    /// HTTP or HTTPS.
    pub protocol: TargetGroupProtocol,
    /// The version of HTTP.
    pub protocol_version: ProtocolVersion,
}

/// The name of a target group.
///
/// # Errors
/// Never for names that Kubernetes accepts; the limits of AWS are checked all the same.
pub fn target_group(identity: TargetGroupIdentity<'_>) -> Result<TargetGroupName, InvalidName> {
    let i = identity;
    let hash = hash(&[
        i.cluster,
        &i.group.to_string(),
        &i.ingress.namespace,
        &i.ingress.name,
        i.service_uid,
        &i.service_port.to_string(),
        &i.port.to_string(),
        i.target_type.as_str(),
        i.protocol.as_str(),
        i.protocol_version.as_str(),
    ]);
    TargetGroupName::new(format!(
        "k8s-{}-{}-{}",
        plain(&i.service.namespace, 8),
        plain(&i.service.name, 8),
        &hash[..10]
    ))
}

/// The name of a target group where another of its stack has the name of [`target_group`], which knows neither the load
/// balancer's scheme nor the addresses of targets.
///
/// # Errors
/// Never for names that Kubernetes accepts; the limits of AWS are checked all the same.
pub fn second_target_group(
    identity: TargetGroupIdentity<'_>,
    scheme: Scheme,
    addresses: IpAddressType,
) -> Result<TargetGroupName, InvalidName> {
    second(&target_group(identity)?, &[scheme.as_str(), addresses.as_str()])
}

/// The name of a Service's target group where another of its stack has the name of [`service_target_group`], which knows neither
/// the load balancer's scheme nor the family of the targets' addresses.
///
/// # Errors
/// Never for names that Kubernetes accepts; the limits of AWS are checked all the same.
pub fn second_service_target_group(
    first: &TargetGroupName,
    scheme: Scheme,
    addresses: IpAddressType,
) -> Result<TargetGroupName, InvalidName> {
    second(first, &[scheme.as_str(), addresses.as_str()])
}

/// Another name that begins in the same way.
fn second(first: &TargetGroupName, by: &[&str]) -> Result<TargetGroupName, InvalidName> {
    let (stem, first) = first.as_str().rsplit_once('-').unwrap_or_default();
    let parts: Vec<&str> = std::iter::once(first).chain(by.iter().copied()).collect();
    TargetGroupName::new(format!("{stem}-{}", &hash(&parts)[..10]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web_frontend() -> StackId {
        StackId::Ingress(ObjectName::new("shop", "web-frontend"))
    }

    #[test]
    fn load_balancers_are_named_as_the_reference_says() {
        let edge = StackId::Group("platform.shared-edge".into());
        for (group, scheme, name) in [
            (&web_frontend(), Scheme::Internal, "k8s-shop-webfront-f81084de68"),
            (&web_frontend(), Scheme::InternetFacing, "k8s-shop-webfront-3f22949d94"),
            (&edge, Scheme::InternetFacing, "k8s-platformsharededg-41e1529432"),
        ] {
            assert_eq!(load_balancer("prod-east", group, scheme), LoadBalancerName::new(name));
        }
    }

    #[test]
    fn security_groups_are_named_as_the_reference_says() {
        assert_eq!(managed_security_group("prod-east", &web_frontend()), "k8s-shop-webfront-a671df8b12");
        assert_eq!(
            managed_security_group("prod-east", &StackId::Group("platform.shared-edge".into())),
            "k8s-platformsharededg-23ce7c9441"
        );
        assert_eq!(backend_security_group("prod-east"), "k8s-traffic-prodeast-5fb8fce783");
    }

    #[test]
    fn what_stands_in_front_is_named_as_the_reference_says() {
        let (edge, web) = (StackId::Group("platform.shared-edge".into()), web_frontend());
        for (group, port, check_protocol, name) in [
            (&web, 80, HealthCheckProtocol::Http, "k8s-shop-webfront-ee4b94cf05"),
            (&edge, 443, HealthCheckProtocol::Https, "k8s-platformsharededg-11af9f2b44"),
        ] {
            let identity = FrontendTargetGroupIdentity {
                cluster: "prod-east",
                group,
                port,
                check_port: "traffic-port",
                check_protocol,
            };
            let (first, second) = frontend_target_group(identity).unwrap();
            assert_eq!(first.as_str(), name);
            assert_ne!(second, first);
        }
        for (behind, name) in [
            ("k8s-shop-webfront-f81084de68", "k8s-shop-webfront-f81084de68-nlb"),
            ("k8s-platformsharededg-41e1529432", "k8s-platformsharededg-41e152-nlb"),
            ("web", "web-nlb"),
        ] {
            let behind = LoadBalancerName::new(behind).unwrap();
            assert_eq!(frontend(&behind), LoadBalancerName::new(name));
            let second = |scheme| second_frontend(&behind, scheme).unwrap();
            assert_ne!(second(Scheme::Internal), second(Scheme::InternetFacing));
            assert!(second(Scheme::Internal).as_str().ends_with("-nlb"));
        }
    }

    #[test]
    fn target_groups_are_named_as_the_reference_says() {
        let edge = StackId::Group("platform.shared-edge".into());
        let ingress = ObjectName::new("shop", "web-frontend");
        let service = ObjectName::new("shop", "cart-api");
        let group = web_frontend();
        let by_number = TargetGroupIdentity {
            cluster: "prod-east",
            group: &group,
            ingress: &ingress,
            service: &service,
            service_uid: "8f14e45f-ceea-4672-a0f1-5e9d2b1c7a11",
            service_port: &PortReference::Number(80),
            port: 8080,
            target_type: TargetType::Ip,
            protocol: TargetGroupProtocol::Http,
            protocol_version: ProtocolVersion::Http1,
        };
        let by_name = TargetGroupIdentity {
            group: &edge,
            service_port: &PortReference::Name("http".into()),
            port: 31380,
            target_type: TargetType::Instance,
            protocol: TargetGroupProtocol::Https,
            protocol_version: ProtocolVersion::Grpc,
            ..by_number
        };
        assert_eq!(target_group(by_number), TargetGroupName::new("k8s-shop-cartapi-aa8083b1d8"));
        assert_eq!(target_group(by_name), TargetGroupName::new("k8s-shop-cartapi-0da6fb77c4"));
    }
}
