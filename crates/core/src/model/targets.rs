//! Targets of target groups, as ELB v2 names them.

use std::fmt;

use serde::Serialize;

use super::QuicServerId;

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
    /// `QuicServerId`: needed for target groups of QUIC. It cannot be changed as long as the target is registered.
    pub quic_server_id: Option<QuicServerId>,
}

impl From<Target> for Registration {
    fn from(target: Target) -> Self {
        Self { target, zone: None, quic_server_id: None }
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)?;
        self.zone.as_ref().map_or(Ok(()), |zone| write!(f, " in {zone}"))?;
        self.quic_server_id.map_or(Ok(()), |id| write!(f, " as {id}"))
    }
}

/// The state of a target (`TargetHealthStateEnum` of DescribeTargetHealth).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum HealthState {
    /// AWS registers the target or performs its first health checks.
    Initial,
    /// The target passes its health checks.
    Healthy,
    /// The target fails its health checks.
    Unhealthy,
    /// The target fails its health checks, and its connections are completed.
    UnhealthyDraining,
    /// The target is not registered, its target group is in no listener, its zone is not in use, or its instance is
    /// stopped.
    Unused,
    /// The target is deregistered, and its connections are completed.
    Draining,
    /// The target group has no health checks.
    Unavailable,
    /// AWS reports no state.
    Unknown,
    /// A state that AWS has added since.
    Other(String),
}

impl HealthState {
    /// Returns the state in AWS's words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Initial => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::UnhealthyDraining => "unhealthy.draining",
            Self::Unused => "unused",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Other(state) => state,
        }
    }
}

impl From<&str> for HealthState {
    fn from(state: &str) -> Self {
        match state {
            "initial" => Self::Initial,
            "healthy" => Self::Healthy,
            "unhealthy" => Self::Unhealthy,
            "unhealthy.draining" => Self::UnhealthyDraining,
            "unused" => Self::Unused,
            "draining" => Self::Draining,
            "unavailable" => Self::Unavailable,
            "unknown" => Self::Unknown,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl From<HealthState> for String {
    fn from(state: HealthState) -> Self {
        state.as_str().to_owned()
    }
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `TargetHealth` of DescribeTargetHealth, and the zone of its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetHealth {
    /// The state.
    pub state: HealthState,
    /// For example `Target.ResponseCodeMismatch`.
    pub reason: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// `Target.AvailabilityZone`, as it was registered.
    pub zone: Option<String>,
    /// `Target.QuicServerId`, as it was registered.
    pub quic_server_id: Option<QuicServerId>,
}

impl TargetHealth {
    /// Returns the health that AWS reports of a target that has just been registered.
    #[must_use]
    pub fn registering() -> Self {
        Self {
            state: HealthState::Initial,
            reason: Some("Elb.RegistrationInProgress".to_owned()),
            description: Some("Target registration is in progress".to_owned()),
            zone: None,
            quic_server_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_written_as_they_were_read() {
        for state in [
            "initial",
            "healthy",
            "unhealthy",
            "unhealthy.draining",
            "unused",
            "draining",
            "unavailable",
            "unknown",
            "new",
        ] {
            let read = HealthState::from(state);
            assert_eq!(read.to_string(), state);
            assert_eq!(matches!(read, HealthState::Other(_)), state == "new");
        }
    }
}
