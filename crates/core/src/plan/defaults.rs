//! The attributes that AWS gives to new resources (ELB v2 API reference: LoadBalancerAttribute, TargetGroupAttribute,
//! ListenerAttribute), as far as an object may request the same. An attribute that is missing here costs a call that changes
//! nothing.

use crate::model::{Attributes, ListenerProtocol, LoadBalancerKind, TargetGroupProtocol};

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Returns the attributes of a load balancer that was just created.
#[must_use]
pub fn load_balancer(kind: LoadBalancerKind) -> Attributes {
    let both = [("access_logs.s3.enabled", "false"), ("deletion_protection.enabled", "false")];
    let mut defaults = attributes(&both);
    defaults.extend(match kind {
        LoadBalancerKind::Application => attributes(&[
            ("idle_timeout.timeout_seconds", "60"),
            ("routing.http.desync_mitigation_mode", "defensive"),
            ("routing.http.drop_invalid_header_fields.enabled", "false"),
            ("routing.http2.enabled", "true"),
        ]),
        LoadBalancerKind::Network => attributes(&[("load_balancing.cross_zone.enabled", "false")]),
    });
    defaults
}

/// Returns the attributes of a target group that was just created.
#[must_use]
pub fn target_group(protocol: TargetGroupProtocol) -> Attributes {
    let mut defaults = attributes(&[("deregistration_delay.timeout_seconds", "300"), ("stickiness.enabled", "false")]);
    defaults.extend(match protocol {
        TargetGroupProtocol::Http | TargetGroupProtocol::Https => attributes(&[("slow_start.duration_seconds", "0")]),
        // `proxy_protocol_v2.enabled` is not assumed: what a client's address is depends on it.
        _ => Attributes::new(),
    });
    defaults
}

/// Returns the attributes of a listener that was just created.
#[must_use]
pub fn listener(protocol: ListenerProtocol) -> Attributes {
    match protocol {
        ListenerProtocol::Http | ListenerProtocol::Https => {
            attributes(&[("routing.http.response.server.enabled", "true")])
        }
        ListenerProtocol::Tcp | ListenerProtocol::TcpUdp => attributes(&[("tcp.idle_timeout.seconds", "350")]),
        ListenerProtocol::Tls | ListenerProtocol::Udp | ListenerProtocol::Quic | ListenerProtocol::TcpQuic => {
            Attributes::new()
        }
    }
}
