//! Rules of security groups, one source each, as this controller compares them.

use std::fmt;

use serde::Serialize;

use super::SecurityGroupId;

/// A rule for incoming traffic: EC2's `IpPermission` split into single sources. The description is text for people and no
/// part of what the rule is, but it marks the controller's rules on nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SecurityGroupRule {
    /// `tcp`, `udp`, a protocol's number, or `-1` for all.
    pub protocol: String,
    /// First port; absent with all protocols.
    pub from_port: Option<i32>,
    /// Last port.
    pub to_port: Option<i32>,
    /// From where.
    pub source: Source,
    /// At most 255 characters.
    pub description: String,
}

impl SecurityGroupRule {
    /// Returns the fields by which EC2 compares rules: everything but the description.
    #[must_use]
    pub fn identity(&self) -> (&str, Option<i32>, Option<i32>, &Source) {
        (&self.protocol, self.from_port, self.to_port, &self.source)
    }
}

impl fmt::Display for SecurityGroupRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", if self.protocol == "-1" { "all" } else { &self.protocol })?;
        match (self.from_port, self.to_port) {
            (Some(from), Some(to)) if from == to => write!(f, "{from}")?,
            (Some(from), Some(to)) => write!(f, "{from}-{to}")?,
            _ => write!(f, "every port")?,
        }
        write!(f, " from {}", self.source)
    }
}

/// The source of traffic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Source {
    /// An IPv4 block.
    Ipv4(String),
    /// An IPv6 block.
    Ipv6(String),
    /// Members of another group.
    SecurityGroup(SecurityGroupId),
    /// A managed prefix list, `pl-…`.
    PrefixList(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(text) | Self::Ipv6(text) | Self::PrefixList(text) => f.write_str(text),
            Self::SecurityGroup(id) => write!(f, "{id}"),
        }
    }
}
