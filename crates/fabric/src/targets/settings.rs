//! The settings of a target group, and where a target is.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use crate::{
    account::{Account, LoadBalancer, Protocol, Target, TargetGroup, TargetType},
    address,
    health::Unused,
};

/// The way in which targets take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// One after the other. AWS's weights at random come to the same while no target misbehaves.
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastOutstanding,
    /// By a hash of the client's address and port.
    Flow,
    /// By a hash of the client's address.
    Source,
}

/// The number of targets that must be healthy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Minimum {
    /// In number.
    pub(super) count: usize,
    /// In percent of all.
    pub(super) percentage: f64,
}

impl Minimum {
    fn of(group: &TargetGroup, action: &str) -> Self {
        let read = |kind: &str| {
            let key = format!("target_group_health.{action}.minimum_healthy_targets.{kind}");
            let value = group.attributes.get(&key)?;
            if value == "off" { Some(0) } else { value.parse::<u32>().ok() }
        };
        let count = read("count").map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX));
        Self { count, percentage: read("percentage").map_or(0.0, f64::from) }
    }

    /// Returns true if enough of all targets are healthy.
    pub(super) fn met(self, healthy: usize, all: usize) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "a group has at most some thousand targets")]
        let percentage = if all == 0 { 0.0 } else { healthy as f64 * 100.0 / all as f64 };
        healthy >= self.count && percentage >= self.percentage
    }
}

/// The settings of a target group at one load balancer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    /// True for an Application Load Balancer.
    pub(super) application: bool,
    /// True if targets of other zones are used.
    pub(super) cross_zone: bool,
    pub(super) algorithm: Algorithm,
    /// `None` if it is off.
    pub(super) slow_start: Option<u32>,
    /// The seconds of draining.
    pub(super) draining: u32,
    /// True if connections end with draining.
    pub(super) ends_drained: bool,
    /// True if connections end when their target is unhealthy.
    pub(super) ends_unhealthy: bool,
    /// The seconds that they have, if they do not end at once; `None` for no end.
    pub(super) unhealthy_draining: Option<u32>,
    /// For fewer healthy targets, all get requests.
    pub(super) routing: Minimum,
    /// For fewer, the node's address goes from DNS.
    pub(super) dns: Minimum,
    pub(super) healthy_threshold: u32,
    pub(super) unhealthy_threshold: u32,
}

impl Settings {
    pub(super) fn of(group: &TargetGroup, balancer: Option<&LoadBalancer>) -> Self {
        let attribute = |key: &str| group.attributes.get(key).map(String::as_str);
        let number = |key: &str| attribute(key).and_then(|value| value.parse::<u32>().ok());
        let flag = |key: &str, absent: bool| attribute(key).map_or(absent, |value| value == "true");
        let application = matches!(group.protocol, Protocol::Http | Protocol::Https);
        let datagrams = matches!(group.protocol, Protocol::Udp | Protocol::TcpUdp);
        let key = "load_balancing.cross_zone.enabled";
        let cross_zone = match attribute(key) {
            Some("true") => true,
            Some("false") => false,
            _ if application => true,
            _ => balancer.and_then(|balancer| balancer.attributes.get(key)).is_some_and(|value| value == "true"),
        };
        let sticky = flag("stickiness.enabled", false) && attribute("stickiness.type") == Some("source_ip");
        let algorithm = match attribute("load_balancing.algorithm.type") {
            _ if !application && sticky => Algorithm::Source,
            _ if !application => Algorithm::Flow,
            Some("least_outstanding_requests") => Algorithm::LeastOutstanding,
            _ => Algorithm::RoundRobin,
        };
        let slow_start = number("slow_start.duration_seconds").filter(|seconds| *seconds > 0);
        Self {
            application,
            cross_zone,
            algorithm,
            // AWS takes it with round robin only.
            slow_start: slow_start.filter(|_| algorithm == Algorithm::RoundRobin),
            draining: number("deregistration_delay.timeout_seconds").unwrap_or(300),
            ends_drained: application || flag("deregistration_delay.connection_termination.enabled", datagrams),
            ends_unhealthy: !application && flag("target_health_state.unhealthy.connection_termination.enabled", true),
            unhealthy_draining: number("target_health_state.unhealthy.draining_interval_seconds")
                .filter(|seconds| *seconds > 0 && !application),
            routing: Minimum::of(group, "unhealthy_state_routing"),
            dns: Minimum::of(group, "dns_failover"),
            healthy_threshold: group.health_check.healthy_threshold,
            unhealthy_threshold: group.health_check.unhealthy_threshold,
        }
    }
}

/// Returns AWS's seconds as the fabric runs them.
pub(crate) fn scaled(seconds: f64, time_scale: f64) -> Duration {
    Duration::try_from_secs_f64(seconds * time_scale).unwrap_or_default()
}

/// The place of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The loopback address; `None` if there is no way to it, or if it changes.
    pub(super) address: Option<Ipv4Addr>,
    /// The address in the VPC, where it has one.
    pub(super) vpc: Option<IpAddr>,
    /// `None` for a target of all zones.
    pub(super) zone: Option<String>,
    /// The reason why it is not used.
    pub(super) unused: Option<Unused>,
}

impl Place {
    pub(super) fn of(account: &Account, balancer: Option<&LoadBalancer>, group: &TargetGroup, target: &Target) -> Self {
        let mut place = match group.target_type {
            TargetType::Ip => {
                let vpc: Option<IpAddr> = target.id.parse().ok();
                let subnet = vpc.and_then(|vpc| account.subnets.values().find(|subnet| subnet.cidr.contains(&vpc)));
                let address = vpc.and_then(address::of_vpc);
                let unused = address.is_none().then_some(Unused::Address);
                Self { address, vpc, zone: subnet.map(|subnet| subnet.zone.clone()), unused }
            }
            TargetType::Instance => {
                let instance = account.instances.get(&target.id);
                let vpc = instance.map(|instance| instance.address);
                let address = vpc.and_then(address::of_vpc);
                let stopped = !instance.is_some_and(|instance| instance.running);
                let unused = if stopped { Some(Unused::Stopped) } else { address.is_none().then_some(Unused::Address) };
                Self { address, vpc, zone: instance.map(|instance| instance.zone.clone()), unused }
            }
            TargetType::Alb => Self { address: None, vpc: None, zone: None, unused: None },
        };
        if let (None, Some(zone), Some(balancer)) = (place.unused, &place.zone, balancer) {
            let enabled = balancer.subnets.iter().filter_map(|id| account.subnets.get(id));
            let enabled: BTreeSet<&str> = enabled.map(|subnet| subnet.zone.as_str()).collect();
            if !enabled.contains(zone.as_str()) {
                place.unused = Some(Unused::Zone);
            }
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{account::Instance, targets::testing};

    #[test]
    fn attributes_of_a_group_and_of_its_load_balancer_are_read() {
        let account = testing::account(true, &[]);
        let mut group = account.target_groups["tg"].clone();
        let mut balancer = account.load_balancers["lb"].clone();
        let one = Minimum { count: 1, percentage: 0.0 };
        let network = Settings {
            application: false,
            cross_zone: false,
            algorithm: Algorithm::Flow,
            slow_start: None,
            draining: 300,
            ends_drained: false,
            ends_unhealthy: true,
            unhealthy_draining: None,
            routing: one,
            dns: one,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
        };
        let application = Settings {
            application: true,
            cross_zone: true,
            algorithm: Algorithm::RoundRobin,
            ends_drained: true,
            ends_unhealthy: false,
            ..network.clone()
        };
        assert_eq!(Settings::of(&group, Some(&balancer)), network);
        group.protocol = Protocol::Http;
        assert_eq!(Settings::of(&group, Some(&balancer)), application);

        balancer.attributes.insert("load_balancing.cross_zone.enabled".to_owned(), "true".to_owned());
        for (key, value) in [
            ("load_balancing.cross_zone.enabled", "use_load_balancer_configuration"),
            ("load_balancing.algorithm.type", "least_outstanding_requests"),
            ("slow_start.duration_seconds", "30"),
            ("stickiness.enabled", "true"),
            ("stickiness.type", "source_ip"),
            ("deregistration_delay.timeout_seconds", "7"),
            ("deregistration_delay.connection_termination.enabled", "true"),
            ("target_health_state.unhealthy.connection_termination.enabled", "false"),
            ("target_health_state.unhealthy.draining_interval_seconds", "9"),
            ("target_group_health.unhealthy_state_routing.minimum_healthy_targets.count", "2"),
            ("target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage", "off"),
            ("target_group_health.dns_failover.minimum_healthy_targets.count", "off"),
            ("target_group_health.dns_failover.minimum_healthy_targets.percentage", "50"),
        ] {
            group.attributes.insert(key.to_owned(), value.to_owned());
        }
        let routing = Minimum { count: 2, percentage: 0.0 };
        let dns = Minimum { count: 0, percentage: 50.0 };
        assert_eq!(
            Settings::of(&group, Some(&balancer)),
            Settings { algorithm: Algorithm::LeastOutstanding, draining: 7, routing, dns, ..application.clone() }
        );
        group.attributes.insert("load_balancing.algorithm.type".to_owned(), "round_robin".to_owned());
        assert_eq!(
            Settings::of(&group, None),
            Settings { slow_start: Some(30), draining: 7, routing, dns, ..application }
        );
        group.protocol = Protocol::Udp;
        assert_eq!(
            Settings::of(&group, Some(&balancer)),
            Settings {
                cross_zone: true,
                algorithm: Algorithm::Source,
                draining: 7,
                ends_drained: true,
                ends_unhealthy: false,
                unhealthy_draining: Some(9),
                routing,
                dns,
                ..network
            }
        );
        group.attributes.remove("deregistration_delay.connection_termination.enabled");
        assert!(Settings::of(&group, None).ends_drained, "of UDP by default");
        group.attributes.insert("load_balancing.cross_zone.enabled".to_owned(), "false".to_owned());
        assert!(!Settings::of(&group, Some(&balancer)).cross_zone);
    }

    #[test]
    fn a_minimum_is_a_number_and_a_percentage() {
        let table = [
            (1, 0.0, 0, 0, false),
            (1, 0.0, 1, 9, true),
            (2, 0.0, 1, 9, false),
            (1, 50.0, 4, 10, false),
            (1, 50.0, 5, 10, true),
            (6, 50.0, 5, 10, false),
        ];
        for (count, percentage, healthy, all, met) in table {
            let minimum = Minimum { count, percentage };
            assert_eq!(minimum.met(healthy, all), met, "{minimum:?}: {healthy} of {all}");
        }
    }

    #[test]
    fn a_target_is_where_its_address_or_its_instance_is() {
        let mut account = testing::account(true, &[]);
        let instance = |address: &str, zone: &str, running| Instance {
            address: address.parse().unwrap(),
            zone: zone.to_owned(),
            running,
        };
        account.instances.insert("i-1".to_owned(), instance("10.0.1.7", "a", true));
        account.instances.insert("i-2".to_owned(), instance("10.0.2.7", "b", false));
        account.instances.insert("i-3".to_owned(), instance("10.0.3.7", "c", true));
        let place = |target_type, id: &str| {
            let mut group = account.target_groups["tg"].clone();
            group.target_type = target_type;
            let target = Target { id: id.to_owned(), port: 80 };
            let place = Place::of(&account, account.load_balancers.get("lb"), &group, &target);
            (place.address.map(|address| address.to_string()), place.zone, place.unused)
        };
        let at = |text: &str| Some(text.to_owned());
        let table = [
            (TargetType::Ip, "10.0.1.7", (at("127.10.1.7"), at("a"), None)),
            (TargetType::Ip, "10.0.2.7", (at("127.10.2.7"), at("b"), None)),
            (TargetType::Ip, "10.0.3.7", (at("127.10.3.7"), at("c"), Some(Unused::Zone))),
            (TargetType::Ip, "10.0.99.7", (at("127.10.99.7"), None, None)),
            (TargetType::Ip, "192.168.0.1", (None, None, Some(Unused::Address))),
            (TargetType::Ip, "x", (None, None, Some(Unused::Address))),
            (TargetType::Instance, "i-1", (at("127.10.1.7"), at("a"), None)),
            (TargetType::Instance, "i-2", (at("127.10.2.7"), at("b"), Some(Unused::Stopped))),
            (TargetType::Instance, "i-3", (at("127.10.3.7"), at("c"), Some(Unused::Zone))),
            (TargetType::Instance, "i-4", (None, None, Some(Unused::Stopped))),
            (TargetType::Alb, "alb", (None, None, None)),
        ];
        for (target_type, id, expected) in table {
            assert_eq!(place(target_type, id), expected, "{target_type:?} {id}");
        }
    }
}
