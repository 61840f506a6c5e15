//! Targets of target groups, as ELB v2 names them.

use std::fmt;

use serde::Serialize;

/// A member of a target group: an instance's id or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Target {
    /// `i-…` or an address.
    pub id: String,
    /// 1 to 65535
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.port)
    }
}

/// The `AvailabilityZone` of RegisterTargets for an address that every enabled zone of the load balancer reaches.
pub const EVERY_ZONE: &str = "all";

/// A target as RegisterTargets and DeregisterTargets name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registration {
    /// Instance or address, and port.
    pub target: Target,
    /// `AvailabilityZone`: needed for an address outside of the target group's VPC, [`EVERY_ZONE`] or a zone's name.
    pub zone: Option<String>,
}

impl From<Target> for Registration {
    fn from(target: Target) -> Self {
        Self { target, zone: None }
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)?;
        self.zone.as_ref().map_or(Ok(()), |zone| write!(f, " in {zone}"))
    }
}

/// `TargetHealth` of DescribeTargetHealth, in AWS's words, and the zone of its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetHealth {
    /// `initial`, `healthy`, `unhealthy`, `unused`, `draining`, `unavailable` and the like.
    pub state: String,
    /// For example `Target.ResponseCodeMismatch`.
    pub reason: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// `Target.AvailabilityZone`, as it was registered.
    pub zone: Option<String>,
}

impl TargetHealth {
    /// Returns the health that AWS reports of a target that has just been registered.
    #[must_use]
    pub fn registering() -> Self {
        Self {
            state: "initial".to_owned(),
            reason: Some("Elb.RegistrationInProgress".to_owned()),
            description: Some("Target registration is in progress".to_owned()),
            zone: None,
        }
    }
}
