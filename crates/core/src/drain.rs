//! The time for which a pod that ends has to go on serving, so that no request of its load balancers is lost.
//!
//! A pod that is deleted leaves the EndpointSlices and gets SIGTERM at the same moment (kubernetes.io, "Pod Lifecycle",
//! Termination of Pods). Its load balancers go on sending it requests until the controller has deregistered it and each of
//! AWS's nodes knows of that. A container with a `preStop` hook gets SIGTERM only when the hook has ended, so a hook that
//! sleeps keeps it serving meanwhile. The time counts as a part of `terminationGracePeriodSeconds` (same page), which has to
//! grow by it.
//!
//! The figures of the sleep are here and nowhere else.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde_json::Value;

use crate::{
    api::crd::target_group_binding::{TargetGroupProtocol, TargetType},
    desired::{
        BuildConfig,
        sources::service::{Ownership, ownership},
    },
    snapshot::{Service, Snapshot, TargetGroupBinding, in_namespace},
};

/// The label of a Namespace or a pod that asks for the sleep, with a [`Switch`] as its value. The pod's wins.
pub const LABEL: &str = "elbv2.k8s.aws/albatross-drain";
/// The annotation of a Namespace or a pod with the [`Seconds`] to sleep, in place of the computed ones. The pod's wins.
pub const SECONDS: &str = "elbv2.k8s.aws/albatross-drain-seconds";
/// The annotation of a pod with the [`Seconds`] that the webhook has given to its containers and added to its grace period.
pub const INJECTED: &str = "elbv2.k8s.aws/albatross-drain-injected";

/// The grace period of a pod that names none (kubernetes.io, PodSpec, `terminationGracePeriodSeconds`).
const DEFAULT_GRACE: i64 = 30;

/// Seconds from a pod's deletion until the controller has called DeregisterTargets, or until each kube-proxy has taken the
/// pod out of its rules: the deletion has to arrive in an EndpointSlice, and that at the controller, which serves
/// deregistrations before all other calls.
const UPDATE: u16 = 5;
/// Seconds for requests that a load balancer has sent just before it knew. A process that completes them on SIGTERM does not
/// need this time; one that exits at once loses those that take longer.
const IN_FLIGHT: u16 = 10;

/// A time to sleep, from 1 second to an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(u16);

impl Seconds {
    /// The shortest: `disabled` is the value of [`LABEL`] for no sleep at all.
    pub const MIN: Self = Self(1);
    /// The longest, that of `deregistration_delay.timeout_seconds` (`API_TargetGroupAttribute`): after it, AWS has ended
    /// whatever the pod still serves.
    pub const MAX: Self = Self(3600);

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0 as i64
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a whole number from [`Seconds::MIN`] to [`Seconds::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write whole seconds from {} to {}", Seconds::MIN, Seconds::MAX)]
pub struct InvalidSeconds;

impl FromStr for Seconds {
    type Err = InvalidSeconds;

    fn from_str(text: &str) -> Result<Self, InvalidSeconds> {
        // `u16` would take a sign.
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number).map(Self).ok_or(InvalidSeconds)?;
        if (Self::MIN..=Self::MAX).contains(&number) { Ok(number) } else { Err(InvalidSeconds) }
    }
}

/// The value of [`LABEL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// `enabled`
    Enabled,
    /// `disabled`
    Disabled,
}

/// The text is no value of [`LABEL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("allowed: `enabled` or `disabled`")]
pub struct InvalidSwitch;

impl FromStr for Switch {
    type Err = InvalidSwitch;

    fn from_str(text: &str) -> Result<Self, InvalidSwitch> {
        match text {
            "enabled" => Ok(Self::Enabled),
            "disabled" => Ok(Self::Disabled),
            _ => Err(InvalidSwitch),
        }
    }
}

/// The way on which requests come to a pod, by the time for which they still do when the pod is taken off it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Over the NodePort of any node: targets are instances, and stay registered.
    Nodes,
    /// From an Application Load Balancer.
    Application,
    /// From a Network Load Balancer.
    Network,
}

impl Way {
    /// Returns the seconds until each node of the load balancer knows of a change. AWS gives no figure for either.
    const fn propagation(self) -> u16 {
        match self {
            Self::Nodes => 0,
            // About 10 s by users of aws-load-balancer-controller: issue #1719, and issue #1064, where 5 s of sleep lost
            // requests and 25 s lost none.
            Self::Application => 10,
            // Two minutes of new connections, measured by two users: aws-load-balancer-controller, issue #2366;
            // aws/containers-roadmap, issue #470.
            Self::Network => 120,
        }
    }

    /// Returns the time to sleep.
    #[must_use]
    pub const fn seconds(self) -> Seconds {
        Seconds(UPDATE + self.propagation() + IN_FLIGHT)
    }
}

/// Returns the ways on which requests come to a pod with these labels, or will. None are known of a pod that was created
/// before its Service or TargetGroupBinding.
#[must_use]
pub fn ways(
    snapshot: &Snapshot,
    config: &BuildConfig,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> BTreeSet<Way> {
    let bindings = |service: &Service| {
        let name = service.name.name.clone();
        in_namespace(&snapshot.target_group_bindings, namespace)
            .map(|(_, binding)| binding)
            .filter(move |binding| !binding.deleting && binding.spec.service_ref.name == name)
    };
    let mut ways = BTreeSet::new();
    for (_, service) in in_namespace(&snapshot.services, namespace).filter(|(_, service)| service.selects(labels)) {
        let bound: BTreeSet<Way> = bindings(service).map(|binding| way(binding, service)).collect();
        // Its bindings come when its load balancer is made.
        if bound.is_empty() && config.enable_services && ownership(service, config) == Ownership::Ours {
            ways.insert(Way::Network);
        }
        ways.extend(bound);
    }
    ways
}

/// Returns the way that a binding makes. Where that is not known, it is the longest.
fn way(binding: &TargetGroupBinding, service: &Service) -> Way {
    // With the traffic policy `Local` a node gets no more requests when AWS finds it unhealthy, and until then it sends them
    // to a pod that ends and still serves (KEP-1669).
    if binding.spec.target_type == Some(TargetType::Instance) && !service.local_traffic {
        return Way::Nodes;
    }
    match binding.spec.target_group_protocol {
        Some(TargetGroupProtocol::Http | TargetGroupProtocol::Https) => Way::Application,
        Some(
            TargetGroupProtocol::Tcp
            | TargetGroupProtocol::Tls
            | TargetGroupProtocol::Udp
            | TargetGroupProtocol::TcpUdp
            | TargetGroupProtocol::Quic
            | TargetGroupProtocol::TcpQuic,
        )
        | None => Way::Network,
    }
}

/// Returns true if an API server of this version does not know the hooks' action `sleep`, which Kubernetes has by default
/// since 1.30 (KEP-3960). The minor version may end in a `+`.
#[must_use]
pub fn is_without_sleep(major: &str, minor: &str) -> bool {
    let minor = minor.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    major == "1" && minor.parse::<u16>().is_ok_and(|minor| minor < 30)
}

/// Returns the time that a pod with these ways has to sleep: that of the longest. A pod of which no way is known sleeps as
/// behind an Application Load Balancer: the Ingress and the bindings of a first installation come after the pods, but the
/// Services, of which those with a load balancer are known, come before them.
#[must_use]
pub fn needed(ways: &BTreeSet<Way>) -> Seconds {
    ways.last().map_or(Way::Application.seconds(), |way| way.seconds())
}

/// A container, by its place in `spec.containers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container<'a> {
    /// Its place.
    pub index: usize,
    /// `name`
    pub name: &'a str,
}

/// The containers of a pod that may end too early.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shortfall<'a> {
    /// Those without a `preStop` hook, which get SIGTERM at once.
    pub without_hook: Vec<Container<'a>>,
    /// Those with a hook of their own that sleeps for less, or takes a time that is not known.
    pub own_hook: Vec<Container<'a>>,
}

/// Returns the containers of a pod's spec that do not sleep for this time. Restartable init containers are not among them:
/// the kubelet sends them SIGTERM when all others have ended (kubernetes, `kuberuntime_termination_order.go`). Other init
/// containers have ended long ago.
#[must_use]
pub fn shortfall(spec: &Value, needed: Seconds) -> Shortfall<'_> {
    let mut found = Shortfall::default();
    for (index, container) in array(spec, "/containers").iter().enumerate() {
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        let reference = Container { index, name };
        match hook(container) {
            None => found.without_hook.push(reference),
            Some(hook) if sleep(hook).is_none_or(|slept| slept < needed.get()) => found.own_hook.push(reference),
            Some(_) => {}
        }
    }
    found
}

/// Returns true if a container's hook is an action that sleeps for exactly this time.
#[must_use]
pub fn sleeps(spec: &Value, time: Seconds) -> bool {
    let is_it = |container: &Value| hook(container).and_then(action) == Some(time.get());
    array(spec, "/containers").iter().any(is_it)
}

/// Returns the grace period of a pod's spec.
#[must_use]
pub fn grace(spec: &Value) -> i64 {
    spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_GRACE).max(0)
}

fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn hook(container: &Value) -> Option<&Value> {
    container.pointer("/lifecycle/preStop").filter(|hook| !hook.is_null())
}

/// Returns the seconds of a hook's action `sleep`.
fn action(hook: &Value) -> Option<i64> {
    hook.pointer("/sleep/seconds").and_then(Value::as_i64)
}

/// Returns the seconds for which a hook sleeps: by its action, or by a command such as `sleep 20` and `/bin/sh -c "sleep 20"`.
fn sleep(hook: &Value) -> Option<i64> {
    if let Some(seconds) = action(hook) {
        return Some(seconds);
    }
    let command = array(hook, "/exec/command").iter().filter_map(Value::as_str);
    let mut words = command.flat_map(str::split_ascii_whitespace).rev();
    let seconds = words.next()?.trim_end_matches('s').parse().ok()?;
    words.next().filter(|word| word.rsplit('/').next() == Some("sleep")).map(|_| seconds)
}
