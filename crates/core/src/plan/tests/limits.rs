//! The refusals of AWS for load balancers, listeners and target groups, whatever it has already.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::*;

/// The result of a call: its refusal in words.
pub(super) type Outcome<T = ()> = Result<T, String>;

pub(super) fn refuse<T>(when: bool, why: impl FnOnce() -> T) -> Result<(), T> {
    if when { Err(why()) } else { Ok(()) }
}

/// Returns true if the listeners of a kind of load balancer can have a protocol.
pub(super) fn speaks(kind: LoadBalancerKind, protocol: ListenerProtocol) -> bool {
    let of_application = matches!(protocol, ListenerProtocol::Http | ListenerProtocol::Https);
    of_application == (kind == LoadBalancerKind::Application)
}

/// Returns true if a listener can lead to target groups of a protocol version: those of HTTP2 and GRPC want HTTPS.
pub(super) fn leads_to_version(listener: ListenerProtocol, version: Option<&str>) -> bool {
    listener != ListenerProtocol::Http || !matches!(version, Some("HTTP2" | "GRPC"))
}

/// To which target groups a listener can lead.
pub(super) fn leads_to(listener: ListenerProtocol, target_group: &str) -> bool {
    let protocols = match listener {
        ListenerProtocol::Http | ListenerProtocol::Https => ["HTTP", "HTTPS"],
        ListenerProtocol::Tcp => ["TCP", "TCP_UDP"],
        ListenerProtocol::Tls => ["TCP", "TLS"],
        ListenerProtocol::Udp => ["UDP", "TCP_UDP"],
        ListenerProtocol::TcpUdp => ["TCP_UDP"; 2],
        ListenerProtocol::Quic => ["QUIC"; 2],
        ListenerProtocol::TcpQuic => ["TCP_QUIC"; 2],
    };
    protocols.contains(&target_group)
}

/// Returns true if attributes with such a prefix exist where HTTP is used, or where it is not; others exist everywhere.
pub(super) fn attribute_fits(key: &str, http: bool) -> bool {
    let of_http = ["routing.", "idle_timeout.", "slow_start.", "load_balancing.algorithm."];
    let of_network = ["load_balancing.cross_zone.", "dns_record.", "tcp.", "proxy_protocol_v2.", "preserve_client_ip."];
    let begins = |starts: &[&str]| starts.iter().any(|start| key.starts_with(start));
    if http { !begins(&of_network) } else { !begins(&of_http) }
}

/// Subnets with addresses, as a load balancer can have them.
pub(super) fn mapped(
    kind: LoadBalancerKind,
    scheme: Scheme,
    addresses: IpAddressType,
    settings: &NetworkSettings,
    subnets: &[SubnetMapping],
) -> Outcome<BTreeMap<SubnetId, SubnetMapping>> {
    refuse(subnets.is_empty(), || "InvalidConfigurationRequest: no subnets".to_owned())?;
    let network = kind == LoadBalancerKind::Network;
    for SubnetMapping { allocation, private_ipv4, ipv6, source_nat_prefix, .. } in subnets {
        let six = network && addresses.has_ipv6();
        refuse((ipv6.is_some() && !six) || (source_nat_prefix.is_some() && !settings.ipv6_source_nat), || {
            "InvalidConfigurationRequest: not dualstack, or no source NAT".to_owned()
        })?;
        let elastic = network && scheme == Scheme::InternetFacing;
        let private = network && scheme == Scheme::Internal;
        refuse((allocation.is_some() && !elastic) || (private_ipv4.is_some() && !private), || {
            "InvalidConfigurationRequest: no such addresses".to_owned()
        })?;
    }
    let by_subnet: BTreeMap<_, _> = subnets.iter().map(|m| (m.subnet.clone(), m.clone())).collect();
    refuse(by_subnet.len() != subnets.len(), || "InvalidConfigurationRequest: a subnet twice".to_owned())?;
    Ok(by_subnet)
}

/// Returns the prefixes that AWS assigns where it chooses.
pub(super) fn assigned_prefixes(ipv6_source_nat: bool, subnets: &[SubnetMapping]) -> BTreeMap<SubnetId, String> {
    let of = |(index, mapping): (usize, &SubnetMapping)| (mapping.subnet.clone(), format!("2001:db8:ff:{index}::/80"));
    if ipv6_source_nat { subnets.iter().enumerate().map(of).collect() } else { BTreeMap::new() }
}

/// Refuses listeners that the addresses of their load balancer do not allow.
pub(super) fn fits_addresses(balancer: &ObservedLoadBalancer, target_groups: &[ObservedTargetGroup]) -> Outcome {
    let (six, source_nat) = (balancer.ip_address_type.has_ipv6(), balancer.network.ipv6_source_nat);
    refuse(source_nat && !six, || "InvalidConfigurationRequest: source NAT is for dualstack".to_owned())?;
    let has_udp = |listener: &ObservedListener| listener.protocol.is_some_and(ListenerProtocol::has_udp);
    refuse(six && !source_nat && balancer.known_listeners().any(has_udp), || {
        "InvalidConfigurationRequest: UDP on dualstack needs source NAT".to_owned()
    })?;
    refuse(balancer.has_quic() && (six || !balancer.security_groups.is_empty()), || {
        "InvalidConfigurationRequest: QUIC with IPv6 or security groups".to_owned()
    })?;
    let used: BTreeSet<&TargetGroupArn> = balancer.target_groups().collect();
    let mut groups = target_groups.iter().filter(|group| used.contains(&group.arn));
    refuse(!six && groups.any(|group| group.ip_address_type == IpAddressType::Ipv6), || {
        "InvalidConfigurationRequest: IPv6 targets need dualstack".to_owned()
    })
}
