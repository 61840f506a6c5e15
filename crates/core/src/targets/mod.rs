//! TargetGroupBindings: the pods or nodes behind a Service that become targets, and the sources that the security groups of
//! nodes and pods allow.

pub mod binding_owners;
pub mod endpoints;
pub mod node_rules;
pub mod plan;
pub mod readiness;
pub mod role;
pub mod shared;
pub mod status;

pub use binding_owners::{group_of, holder};

use crate::{
    api::crd::target_group_binding::{IpAddressType, TargetGroupProtocol, TargetType},
    model::{TargetGroupArn, VpcId},
};

/// The target group that a binding names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetGroupKey {
    /// `spec.targetGroupARN`
    Arn(TargetGroupArn),
    /// `spec.targetGroupName`
    Name(String),
}

/// The properties of a target group that never change, and that a binding may leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroupFacts {
    /// Its ARN.
    pub arn: TargetGroupArn,
    /// The word of AWS's API; `lambda` and `alb` cannot be bound.
    pub target_type: String,
    /// IPv4 for groups that are older than AWS's support of IPv6, for which AWS returns nothing.
    pub ip_address_type: IpAddressType,
    /// Its VPC.
    pub vpc: Option<VpcId>,
    /// The word of AWS's API.
    pub protocol: Option<String>,
}

impl TargetGroupFacts {
    /// The target type, where it is one that can be bound.
    #[must_use]
    pub fn bindable_type(&self) -> Option<TargetType> {
        match self.target_type.as_str() {
            "instance" => Some(TargetType::Instance),
            "ip" => Some(TargetType::Ip),
            _ => None,
        }
    }

    /// The protocol, where it is one that bindings have.
    #[must_use]
    pub fn known_protocol(&self) -> Option<TargetGroupProtocol> {
        self.protocol.as_deref().and_then(TargetGroupProtocol::from_word)
    }
}
