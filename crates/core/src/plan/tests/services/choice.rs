//! Arbitrary Services, as users write them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use crate::{facts::Subnet, model::*};

/// The properties that stay over the life of a load balancer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    pub(super) scheme: Scheme,
    /// True if it has addresses that the user chooses.
    pub(super) addressed: bool,
}

/// The settings of a Service.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) ports: BTreeMap<u16, PortChoice>,
    pub(super) certificates: Vec<u8>,
    pub(super) tls_to_targets: bool,
    pub(super) alpn: Option<&'static str>,
    pub(super) policy: bool,
    pub(super) pods: bool,
    pub(super) local: bool,
    pub(super) http_checks: bool,
    pub(super) proxy: ProxyChoice,
    pub(super) delay: Option<u8>,
    pub(super) cross_zone: Option<bool>,
    pub(super) zone_affinity: bool,
    pub(super) access: AccessChoice,
    pub(super) subnets: Option<BTreeSet<usize>>,
    pub(super) owner: Option<u8>,
    pub(super) addresses: AddressChoice,
    pub(super) private_link: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum AddressChoice {
    Ipv4,
    Dualstack {
        /// True if the targets have IPv6 addresses.
        six: bool,
        /// True if IPv6 clients are translated even without UDP.
        translated: bool,
        /// Prefixes with this number.
        prefixes: Option<u8>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct PortChoice {
    pub(super) protocol: PortProtocol,
    pub(super) tls: bool,
    pub(super) named: bool,
    pub(super) preserve: Option<bool>,
    pub(super) idle_timeout: Option<u8>,
    /// True if UDP becomes QUIC, where the targets are pods and the load balancer is in no security group.
    pub(super) quic: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum PortProtocol {
    Tcp,
    Udp,
    Both,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ProxyChoice {
    Off,
    Everywhere,
    First,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum AccessChoice {
    Managed { restricted: bool },
    Given { second: bool, manage: bool },
    None,
}

impl AccessChoice {
    /// Returns the groups in front that are the user's, or how there are others or none, and whether the shared one is with them.
    pub(super) fn in_front(self) -> (&'static str, bool) {
        match self {
            Self::Managed { .. } => ("managed", true),
            Self::Given { second: false, manage } => ("sg-mine", manage),
            Self::Given { second: true, manage } => ("sg-second,sg-mine", manage),
            Self::None => ("none", false),
        }
    }
}

pub(super) fn place() -> impl Strategy<Value = Placement> {
    (any::<bool>(), any::<bool>()).prop_map(|(internal, addressed)| Placement {
        scheme: if internal { Scheme::Internal } else { Scheme::InternetFacing },
        addressed,
    })
}

pub(super) fn port() -> impl Strategy<Value = PortChoice> {
    let protocol =
        prop_oneof![3 => Just(PortProtocol::Tcp), 1 => Just(PortProtocol::Udp), 1 => Just(PortProtocol::Both)];
    let rest = (any::<bool>(), any::<bool>(), any::<Option<bool>>(), prop::option::of(1..4_u8), any::<bool>());
    (protocol, rest).prop_map(|(protocol, (tls, named, preserve, idle_timeout, quic))| PortChoice {
        protocol,
        tls,
        named,
        preserve,
        idle_timeout,
        quic,
    })
}

pub(super) fn access() -> impl Strategy<Value = AccessChoice> {
    prop_oneof![
        3 => any::<bool>().prop_map(|restricted| AccessChoice::Managed { restricted }),
        2 => any::<(bool, bool)>().prop_map(|(second, manage)| AccessChoice::Given { second, manage }),
        1 => Just(AccessChoice::None),
    ]
}

pub(super) fn addresses() -> impl Strategy<Value = AddressChoice> {
    let dualstack = (any::<bool>(), any::<bool>(), prop::option::of(0..2_u8));
    prop_oneof![
        1 => Just(AddressChoice::Ipv4),
        1 => dualstack.prop_map(|(six, translated, prefixes)| AddressChoice::Dualstack { six, translated, prefixes }),
    ]
}

pub(super) fn choice() -> impl Strategy<Value = Choice> {
    let numbers = prop::sample::select(vec![53_u16, 80, 443]);
    let alpn = prop::option::of(prop::sample::select(vec!["None", "HTTP1Only", "HTTP2Preferred"]));
    let proxy = prop_oneof![Just(ProxyChoice::Off), Just(ProxyChoice::Everywhere), Just(ProxyChoice::First)];
    let front = (
        prop::collection::btree_map(numbers, port(), 1..4),
        prop::collection::vec(0..4_u8, 0..4),
        any::<bool>(),
        alpn,
        any::<bool>(),
    );
    let behind = (any::<bool>(), any::<bool>(), any::<bool>(), proxy, prop::option::of(0..3_u8));
    let subnets = prop::option::of(prop::collection::btree_set(0..3_usize, 1..4));
    let balancer = (any::<Option<bool>>(), any::<bool>(), access(), subnets, prop::option::of(0..3_u8), addresses());
    let private_link = any::<Option<bool>>();
    (front, behind, balancer, private_link).prop_map(|(front, behind, balancer, private_link)| {
        let (ports, certificates, tls_to_targets, alpn, policy) = front;
        let (pods, local, http_checks, proxy, delay) = behind;
        let (cross_zone, zone_affinity, access, subnets, owner, addresses) = balancer;
        Choice {
            ports,
            certificates,
            tls_to_targets,
            alpn,
            policy,
            pods,
            local,
            http_checks,
            proxy,
            delay,
            cross_zone,
            zone_affinity,
            access,
            subnets,
            owner,
            addresses,
            private_link,
        }
    })
}

pub(super) fn subnet(index: usize) -> Subnet {
    Subnet {
        id: SubnetId::new(format!("subnet-{index}")),
        ipv4_blocks: vec![format!("10.0.{index}.0/24")],
        ipv6_blocks: vec![format!("2001:db8:0:{index}::/64")],
    }
}

pub(super) fn joined(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect::<Vec<_>>().join(",")
}

impl Choice {
    /// The Service as a user writes it.
    pub(super) fn manifest(&self, place: Placement) -> String {
        let mut annotations: BTreeMap<String, String> = BTreeMap::new();
        let mut annotate = |suffix: &str, value: String| {
            annotations.insert(format!("service.beta.kubernetes.io/{suffix}"), value);
        };
        annotate("aws-load-balancer-scheme", place.scheme.to_string());
        annotate("aws-load-balancer-nlb-target-type", if self.pods { "ip" } else { "instance" }.to_owned());
        annotate("aws-load-balancer-enable-tcp-udp-listener", "true".to_owned());
        if !self.certificates.is_empty() {
            let arn = |number: &u8| format!("arn:aws:acm:eu-west-1:111122223333:certificate/{number}");
            annotate("aws-load-balancer-ssl-cert", joined(self.certificates.iter().map(arn)));
            let tls = self.ports.iter().filter(|(_, port)| port.tls).map(|(number, _)| number.to_string());
            annotate("aws-load-balancer-ssl-ports", joined(tls));
            annotate("aws-load-balancer-backend-protocol", if self.tls_to_targets { "ssl" } else { "tcp" }.to_owned());
        }
        if let Some(alpn) = self.alpn {
            annotate("aws-load-balancer-alpn-policy", alpn.to_owned());
        }
        if self.policy {
            annotate("aws-load-balancer-ssl-negotiation-policy", "ELBSecurityPolicy-TLS13-1-2-2021-06".to_owned());
        }
        if self.http_checks {
            annotate("aws-load-balancer-healthcheck-protocol", "http".to_owned());
            annotate("aws-load-balancer-healthcheck-interval", "30".to_owned());
        }
        match self.proxy {
            ProxyChoice::Off => {}
            ProxyChoice::Everywhere => annotate("aws-load-balancer-proxy-protocol", "*".to_owned()),
            ProxyChoice::First => {
                let first = self.ports.keys().take(1).map(u16::to_string);
                annotate("aws-load-balancer-proxy-protocol-per-target-group", joined(first));
            }
        }
        if let Some(delay) = self.delay {
            let delay = format!("deregistration_delay.timeout_seconds={delay}00");
            annotate("aws-load-balancer-target-group-attributes", delay);
        }
        for (number, port) in &self.ports {
            if let Some(preserve) = port.preserve.filter(|_| self.pods && port.protocol == PortProtocol::Tcp) {
                let suffix = format!("aws-load-balancer-target-group-attributes.{number}");
                annotate(&suffix, format!("preserve_client_ip.enabled={preserve}"));
            }
            if let Some(timeout) = port.idle_timeout {
                for protocol in ["TCP", "TCP_UDP"] {
                    let suffix = format!("aws-load-balancer-listener-attributes.{protocol}-{number}");
                    annotate(&suffix, format!("tcp.idle_timeout.seconds={timeout}00"));
                }
            }
        }
        if self.pods && self.access == AccessChoice::None {
            // AWS allows one such listener, none beside UDP, and none with IPv6.
            let mut udp = self.ports.iter().filter(|(_, port)| port.protocol != PortProtocol::Tcp);
            let only = udp.next().filter(|_| udp.next().is_none() && matches!(self.addresses, AddressChoice::Ipv4));
            let quic = only.filter(|(_, port)| port.quic).map(|(number, _)| number.to_string());
            annotate("aws-load-balancer-quic-enabled-ports", joined(quic));
        }
        if let Some(cross_zone) = self.cross_zone {
            annotate("aws-load-balancer-cross-zone-load-balancing-enabled", cross_zone.to_string());
        }
        if self.zone_affinity {
            let policy = "dns_record.client_routing_policy=availability_zone_affinity";
            annotate("aws-load-balancer-attributes", policy.to_owned());
        }
        match self.access {
            AccessChoice::Managed { restricted: false } => {}
            AccessChoice::Managed { restricted: true } => {
                annotate("load-balancer-source-ranges", "192.0.2.0/24".to_owned());
            }
            AccessChoice::Given { second, manage } => {
                let (groups, _) = AccessChoice::Given { second, manage }.in_front();
                annotate("aws-load-balancer-security-groups", groups.to_owned());
                annotate("aws-load-balancer-manage-backend-security-group-rules", manage.to_string());
            }
            AccessChoice::None => annotate("aws-load-balancer-disable-nlb-sg", "true".to_owned()),
        }
        if let Some(on) = self.private_link {
            let word = if on { "on" } else { "off" };
            annotate("aws-load-balancer-inbound-sg-rules-on-private-link-traffic", word.to_owned());
        }
        // Addresses are chosen for subnets that are chosen, too, and each subnet has its own.
        let addressed = place.addressed || matches!(self.addresses, AddressChoice::Dualstack { prefixes: Some(_), .. });
        let subnets = self.subnets.clone().or_else(|| addressed.then(|| [0, 1].into()));
        if let Some(subnets) = &subnets {
            annotate("aws-load-balancer-subnets", joined(subnets.iter().map(|i| subnet(*i).id.to_string())));
        }
        let has_udp = self.ports.values().any(|port| port.protocol != PortProtocol::Tcp);
        if let AddressChoice::Dualstack { translated, prefixes, .. } = self.addresses {
            annotate("aws-load-balancer-ip-address-type", "dualstack".to_owned());
            if translated || has_udp || prefixes.is_some() {
                annotate("aws-load-balancer-enable-prefix-for-ipv6-source-nat", "on".to_owned());
            }
            if let (Some(number), Some(subnets)) = (prefixes, &subnets) {
                let prefix = |i: &usize| match number {
                    1 if *i == 0 => "auto_assigned".to_owned(),
                    _ => format!("2001:db8:0:{i}:{number}::/80"),
                };
                annotate("aws-load-balancer-source-nat-ipv6-prefixes", joined(subnets.iter().map(prefix)));
            }
            if let Some(subnets) = subnets.as_ref().filter(|_| place.addressed) {
                let addresses = subnets.iter().rev().map(|i| format!("2001:db8:0:{i}::9"));
                annotate("aws-load-balancer-ipv6-addresses", joined(addresses));
            }
        }
        if let Some(subnets) = subnets.filter(|_| place.addressed) {
            if place.scheme == Scheme::Internal {
                let addresses = subnets.iter().rev().map(|i| format!("10.0.{i}.9"));
                annotate("aws-load-balancer-private-ipv4-addresses", joined(addresses));
            } else {
                let allocations = subnets.iter().map(|i| format!("eipalloc-{i}"));
                annotate("aws-load-balancer-eip-allocations", joined(allocations));
            }
        }
        if let Some(owner) = self.owner {
            annotate("aws-load-balancer-additional-resource-tags", format!("Owner={owner}"));
        }
        let ports: Vec<_> = self
            .ports
            .iter()
            .flat_map(|(number, port)| {
                let protocols: &[&str] = match port.protocol {
                    PortProtocol::Tcp => &["TCP"],
                    PortProtocol::Udp => &["UDP"],
                    PortProtocol::Both => &["UDP", "TCP"],
                };
                let target = if port.named { json!("serve") } else { json!(8000 + number) };
                protocols.iter().map(move |protocol| {
                    let name = format!("p{number}-{}", protocol.to_lowercase());
                    json!({"name": name, "port": number, "protocol": protocol, "targetPort": target, "nodePort": 30_000 + number})
                })
            })
            .collect();
        let policy = if self.local { "Local" } else { "Cluster" };
        let six = matches!(self.addresses, AddressChoice::Dualstack { six: true, .. });
        let families: &[&str] = if six { &["IPv4", "IPv6"] } else { &["IPv4"] };
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "shop", "uid": "11111111-1111-1111-1111-111111111111",
                "generation": 1, "annotations": annotations},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": "service.k8s.aws/nlb", "ports": ports,
                "externalTrafficPolicy": policy, "ipFamilies": families, "healthCheckNodePort": 31_301},
        })
        .to_string()
    }
}

/// A Service with one port with TLS or TCP, and an attribute of the listener of TCP.
pub(super) fn one_port(tls: bool) -> Choice {
    let (protocol, idle_timeout) = (PortProtocol::Tcp, Some(4));
    let port = PortChoice { protocol, tls, named: false, preserve: None, idle_timeout, quic: false };
    Choice {
        ports: [(443, port)].into(),
        certificates: if tls { vec![0] } else { vec![] },
        tls_to_targets: false,
        alpn: Some("HTTP2Preferred"),
        policy: false,
        pods: true,
        local: false,
        http_checks: false,
        proxy: ProxyChoice::Off,
        delay: None,
        cross_zone: None,
        zone_affinity: false,
        access: AccessChoice::None,
        subnets: None,
        owner: None,
        addresses: AddressChoice::Ipv4,
        private_link: None,
    }
}
