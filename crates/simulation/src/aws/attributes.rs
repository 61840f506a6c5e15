//! Attributes of load balancers, target groups and listeners: AWS's defaults for new resources (ELB v2 API reference:
//! LoadBalancerAttribute, TargetGroupAttribute, ListenerAttribute), and the attributes that may be set.

use super::{
    account::Session,
    listeners::is_udp,
    wire::{Answer, Refusal, pairs, refusal},
};
use albatross_core::model::Attributes;

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Returns the attributes of a load balancer.
pub(super) fn of_load_balancer(kind: &str) -> Attributes {
    let mut all = attributes(&[
        ("access_logs.s3.bucket", ""),
        ("access_logs.s3.enabled", "false"),
        ("access_logs.s3.prefix", ""),
        ("deletion_protection.enabled", "false"),
        ("ipv6.deny_all_igw_traffic", "false"),
        ("zonal_shift.config.enabled", "false"),
    ]);
    all.extend(if kind == "application" {
        attributes(&[
            ("client_keep_alive.seconds", "3600"),
            ("connection_logs.s3.bucket", ""),
            ("connection_logs.s3.enabled", "false"),
            ("connection_logs.s3.prefix", ""),
            ("idle_timeout.timeout_seconds", "60"),
            ("load_balancing.cross_zone.enabled", "true"),
            ("routing.http.desync_mitigation_mode", "defensive"),
            ("routing.http.drop_invalid_header_fields.enabled", "false"),
            ("routing.http.preserve_host_header.enabled", "false"),
            ("routing.http.x_amzn_tls_version_and_cipher_suite.enabled", "false"),
            ("routing.http.xff_client_port.enabled", "false"),
            ("routing.http.xff_header_processing.mode", "append"),
            ("routing.http2.enabled", "true"),
            ("waf.fail_open.enabled", "false"),
        ])
    } else {
        attributes(&[
            ("dns_record.client_routing_policy", "any_availability_zone"),
            ("load_balancing.cross_zone.enabled", "false"),
            ("secondary_ips.auto_assigned.per_subnet", "0"),
        ])
    });
    all
}

/// Returns the attributes of a target group.
pub(super) fn of_target_group(protocol: &str, target_type: &str) -> Attributes {
    let mut all = attributes(&[
        ("deregistration_delay.timeout_seconds", "300"),
        ("load_balancing.cross_zone.enabled", "use_load_balancer_configuration"),
        ("stickiness.enabled", "false"),
        ("target_group_health.dns_failover.minimum_healthy_targets.count", "1"),
        ("target_group_health.dns_failover.minimum_healthy_targets.percentage", "off"),
        ("target_group_health.unhealthy_state_routing.minimum_healthy_targets.count", "1"),
        ("target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage", "off"),
    ]);
    all.extend(if matches!(protocol, "HTTP" | "HTTPS") {
        attributes(&[
            ("load_balancing.algorithm.anomaly_mitigation", "off"),
            ("load_balancing.algorithm.type", "round_robin"),
            ("slow_start.duration_seconds", "0"),
            ("stickiness.app_cookie.cookie_name", ""),
            ("stickiness.app_cookie.duration_seconds", "86400"),
            ("stickiness.lb_cookie.duration_seconds", "86400"),
            ("stickiness.type", "lb_cookie"),
        ])
    } else {
        let keeps_address = target_type == "instance" || is_udp(protocol);
        attributes(&[
            ("deregistration_delay.connection_termination.enabled", "false"),
            ("preserve_client_ip.enabled", if keeps_address { "true" } else { "false" }),
            ("proxy_protocol_v2.enabled", "false"),
            ("stickiness.type", "source_ip"),
            ("target_health_state.unhealthy.connection_termination.enabled", "true"),
            ("target_health_state.unhealthy.draining_interval_seconds", "0"),
        ])
    });
    all
}

/// Returns the attributes of a listener.
pub(super) fn of_listener(protocol: &str) -> Attributes {
    match protocol {
        "HTTP" | "HTTPS" => attributes(&[("routing.http.response.server.enabled", "true")]),
        "TCP" | "TCP_UDP" => attributes(&[("tcp.idle_timeout.seconds", "350")]),
        _ => Attributes::new(),
    }
}

/// Returns the attributes that differ from AWS's defaults.
pub(super) fn changed(all: &Attributes, defaults: &Attributes) -> Attributes {
    all.iter().filter(|(key, value)| defaults.get(*key) != Some(value)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn changed_to(all: &mut Attributes, wanted: Attributes, is_known: impl Fn(&str) -> bool) -> Answer {
    if wanted.is_empty() {
        return Err(refusal("ValidationError", "At least one attribute must be specified"));
    }
    if let Some(key) = wanted.keys().find(|key| !is_known(key)) {
        return Err(refusal("InvalidConfigurationRequest", format!("Attribute key '{key}' is not recognized")));
    }
    // AWS shows a boolean in lower case, however it was written.
    let shown = |value: String| match value.to_ascii_lowercase() {
        small if small == "true" || small == "false" => small,
        _ => value,
    };
    all.extend(wanted.into_iter().map(|(key, value)| (key, shown(value))));
    Ok(pairs("Attributes", all))
}

impl Session<'_> {
    fn wanted(&self) -> Result<Attributes, Refusal> {
        self.request.pairs("Attributes")
    }

    pub(super) fn describe_load_balancer_attributes(&mut self) -> Answer {
        let balancer = self.balancer(self.request.need("LoadBalancerArn")?)?;
        Ok(pairs("Attributes", &balancer.attributes))
    }

    pub(super) fn modify_load_balancer_attributes(&mut self) -> Answer {
        let wanted = self.wanted()?;
        let balancer = self.balancer(self.request.need("LoadBalancerArn")?)?;
        let known = of_load_balancer(&balancer.kind);
        changed_to(&mut balancer.attributes, wanted, |key| known.contains_key(key))
    }

    pub(super) fn describe_target_group_attributes(&mut self) -> Answer {
        let group = self.target_group(self.request.need("TargetGroupArn")?)?;
        Ok(pairs("Attributes", &group.attributes))
    }

    pub(super) fn modify_target_group_attributes(&mut self) -> Answer {
        let wanted = self.wanted()?;
        let group = self.target_group(self.request.need("TargetGroupArn")?)?;
        let known = of_target_group(&group.protocol, &group.target_type);
        changed_to(&mut group.attributes, wanted, |key| known.contains_key(key))
    }

    pub(super) fn describe_listener_attributes(&mut self) -> Answer {
        let listener = self.listener(self.request.need("ListenerArn")?)?;
        Ok(pairs("Attributes", &listener.attributes))
    }

    pub(super) fn modify_listener_attributes(&mut self) -> Answer {
        let wanted = self.wanted()?;
        let listener = self.listener(self.request.need("ListenerArn")?)?;
        if matches!(listener.protocol.as_str(), "TLS" | "UDP" | "QUIC") {
            let message =
                format!("Listener attributes are not supported for listeners with the {} protocol", listener.protocol);
            return Err(refusal("InvalidConfigurationRequest", message));
        }
        let known = of_listener(&listener.protocol);
        let web = matches!(listener.protocol.as_str(), "HTTP" | "HTTPS");
        let headers = ["routing.http.request.", "routing.http.response."];
        let is_header = |key: &str| web && headers.iter().any(|headers| key.starts_with(headers));
        changed_to(&mut listener.attributes, wanted, |key| known.contains_key(key) || is_header(key))
    }
}
