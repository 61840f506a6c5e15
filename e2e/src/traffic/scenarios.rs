//! The scenarios.

mod controller;
mod groups;
mod network;
mod nlb;
mod rollouts;
mod rules;
mod targets;
mod tls;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use super::stage::{Disturbance, Stage};

/// A change that is measured.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// True if it disturbs what other scenarios use at the same time.
    pub(super) is_alone: bool,
    pub(super) disturbance: Disturbance,
    /// The losses that no controller can avoid.
    pub(super) allowance: Option<Allowance>,
    pub(super) run: for<'a> fn(&'a Stage) -> LocalBoxFuture<'a, Result<()>>,
}

/// Losses that no controller can avoid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// The most that may be lost, in hundredths of the requests that clients send in the mean time until a node of a load
    /// balancer sees a change: every pod ends once, and is asked for its share until then.
    pub(super) percent: u64,
    /// Why AWS has it so.
    pub(super) reason: &'static str,
}

impl Scenario {
    const fn alone(self) -> Self {
        Self { is_alone: true, ..self }
    }

    const fn under(self, disturbance: Disturbance) -> Self {
        Self { is_alone: true, disturbance, ..self }
    }

    const fn may_lose(self, percent: u64, reason: &'static str) -> Self {
        Self { allowance: Some(Allowance { percent, reason }), ..self }
    }
}

/// A scenario of a name, a sentence and an async function.
macro_rules! scenario {
    ($name:literal, $about:literal, $run:path) => {
        Scenario {
            name: $name,
            about: $about,
            is_alone: false,
            disturbance: Disturbance::None,
            allowance: None,
            run: |stage| Box::pin($run(stage)),
        }
    };
}

/// All scenarios, in the order in which they run.
pub(super) static ALL: &[Scenario] = &[
    scenario!("path-added", "an Ingress gets a second path", rules::path_added),
    scenario!("path-removed", "an Ingress loses one of two paths", rules::path_removed),
    scenario!("path-moved-up", "a path is moved above a catch-all", rules::path_moved_up),
    scenario!("path-widened", "a path's type is Prefix and not Exact any more, above a catch-all", rules::path_widened),
    scenario!("host-renamed", "the host of a rule is another one", rules::host_renamed),
    scenario!("backend-swapped", "a path goes to a Service that was never used before", rules::backend_swapped),
    scenario!(
        "backend-slow",
        "a path goes to a Service whose pods are ready only after 15 seconds",
        rules::backend_slow
    ),
    scenario!(
        "backend-blocked",
        "a path goes to a Service at another port, which the nodes' security group lets in only after 20 seconds",
        rules::backend_blocked
    )
    .alone(),
    scenario!("action-changed", "a path forwards, then redirects, then answers by itself", rules::action_changed),
    scenario!("weights", "weights go from 100/0 over 50/50 to 0/100", rules::weights),
    scenario!("rules-replaced", "60 rules are replaced by 60 others, with 100 allowed", rules::replaced),
    scenario!("target-type", "targets are pods, then instances, then pods", targets::target_type),
    scenario!(
        "target-type-blocked",
        "targets are instances, whose port the nodes' security group lets in only after 20 seconds",
        targets::target_type_blocked
    )
    .alone(),
    scenario!("backend-protocol", "pods are asked with TLS", targets::backend_protocol),
    scenario!("backend-protocol-version", "pods are asked with HTTP/2", targets::backend_protocol_version),
    scenario!("health-check", "the health check has another path and other times", targets::health_check),
    scenario!("certificate-rotated", "the listener's certificate is another one", tls::certificate_rotated),
    scenario!("certificate-discovered", "a host is added whose certificate is found by its name", tls::discovered),
    scenario!("https-with-redirect", "HTTPS is added, and HTTP redirects to it", tls::https_with_redirect),
    scenario!("port-moved", "a listener moves to another port", tls::port_moved),
    scenario!("member-added", "a group gets a member", groups::member_added),
    scenario!("member-broken", "a member of a group cannot be built any more", groups::member_broken),
    scenario!("member-mended", "a broken member is mended, with a change", groups::member_mended),
    scenario!("member-deleted", "a member of a group is deleted", groups::member_deleted),
    scenario!("member-moved", "a member goes to another group", groups::member_moved),
    scenario!(
        "security-groups",
        "managed security groups, then one's own, then managed ones",
        network::security_groups
    ),
    scenario!("inbound-cidrs", "fewer clients may come in", network::inbound_cidrs),
    scenario!("subnets", "a load balancer moves to other subnets", network::subnets),
    scenario!("scheme", "an Ingress becomes internal; clients follow DNS", network::scheme),
    scenario!("front-scheme-behind", "the load balancer behind another becomes internal", network::scheme_behind),
    scenario!(
        "front-scheme",
        "the load balancer in front becomes public; clients follow DNS",
        network::scheme_in_front
    ),
    scenario!("front-port", "a port in front leads to another port behind", network::port_behind),
    scenario!("class-params", "the IngressClassParams ask for instances as targets", network::class_params),
    scenario!("nlb-port-added", "a Service gets a second port", nlb::port_added),
    scenario!("nlb-udp-port-added", "a Service with a UDP port gets a TCP port", nlb::udp_port_added),
    scenario!("nlb-certificate", "the certificate of a TLS port is another one", nlb::certificate),
    scenario!("nlb-target-type", "a Service's targets are pods, then instances", nlb::target_type),
    scenario!("nlb-weights", "a listener's weights go from 100/0 over 50/50 to 0/100", nlb::weights),
    scenario!(
        "nlb-backend-swapped",
        "a listener forwards to a Service that was never used before, and to another no more",
        nlb::backend_swapped
    ),
    scenario!("nlb-scheme", "a Service becomes internal; clients follow DNS", nlb::scheme),
    scenario!("nlb-dualstack", "a Service becomes dualstack, then IPv4 again", nlb::dualstack),
    scenario!("nlb-shared", "another cluster feeds the target group, and this one comes to have no pods", nlb::shared),
    scenario!("rollout", "a Deployment of 20 rolls over", rollouts::plain),
    scenario!("rollout-single", "a Deployment of one rolls over", rollouts::single),
    scenario!("rollout-gated", "a Deployment of 20 rolls over, with readiness gates", rollouts::gated),
    scenario!("rollout-throttled", "the same, while AWS throttles half of the calls", rollouts::throttled).alone(),
    scenario!("rollout-unregistered", "the same, while RegisterTargets fails for a minute", rollouts::unregistered)
        .alone(),
    scenario!("rollout-nlb", "a Deployment of 20 rolls over behind a Network Load Balancer", rollouts::nlb),
    scenario!("scaled", "a Deployment is scaled from 20 to 2 and back", rollouts::scaled),
    scenario!("node-drained", "a node's pods are evicted", rollouts::node_drained).alone(),
    scenario!("pods-exit", "pods without a preStop hook exit at once on SIGTERM", rollouts::exiting)
        .may_lose(50, "AWS sends a pod requests until its nodes know that it ends; a preStop hook has to outlast that"),
    scenario!("pods-drain", "pods without a preStop hook complete what they have on SIGTERM", rollouts::draining)
        .may_lose(50, "a pod that no longer accepts is asked until AWS's nodes know that it ends; see pods-exit"),
    scenario!("drain-label", "the pods of pods-exit, in a namespace whose label lets pods drain", rollouts::labelled),
    scenario!("killed-path-moved-up", "path-moved-up, and the controller is killed in it", rules::path_moved_up)
        .under(Disturbance::Kill),
    scenario!("killed-backend-swapped", "backend-swapped, and the controller is killed in it", rules::backend_swapped)
        .under(Disturbance::Kill),
    scenario!("killed-target-type", "target-type, and the controller is killed in it", targets::target_type)
        .under(Disturbance::Kill),
    scenario!("killed-rules-replaced", "rules-replaced, and the controller is killed in it", rules::replaced)
        .under(Disturbance::Kill),
    scenario!(
        "killed-rollout",
        "rollout of pods that end slowly, and the controller is killed in it",
        rollouts::outlasting
    )
    .under(Disturbance::Kill),
    scenario!("leader-handed-over", "rules-replaced, and the leader stops in it", controller::handed_over)
        .under(Disturbance::HandOver),
    scenario!("api-server-away", "the controller does not reach the API server for a minute", controller::away)
        .under(Disturbance::ApiServerAway),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_are_names_of_namespaces() {
        let names: BTreeSet<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        let is_good =
            |name: &&str| name.len() < 50 && name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-');
        assert_eq!(names.iter().filter(|name| !is_good(name)).collect::<Vec<_>>(), Vec::<&&str>::new());
    }
}
