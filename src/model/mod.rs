//! The AWS resources of a load balancer as plain data: what a stack shall be ([`stack`]), what AWS has ([`observed`]),
//! and the small types both share. Nothing here does I/O.

mod elements;
mod identifiers;
mod observed;
mod security_group;
mod stack;

pub use elements::{
    Action, Condition, HealthCheck, IpAddressType, ListenerProtocol, Matcher, ProtocolVersion, QueryStringValue,
    Scheme, Stickiness, TargetGroupProtocol, TargetType, WeightedTargetGroup,
};
pub use identifiers::{
    CertificateArn, InvalidName, ListenerArn, LoadBalancerArn, LoadBalancerName, ObjectName, RuleArn, SecurityGroupId,
    SubnetId, TargetGroupArn, TargetGroupName, VpcId,
};
pub use observed::{
    BackendSecurityGroup, LoadBalancerState, ObservedBinding, ObservedListener, ObservedLoadBalancer, ObservedRule,
    ObservedSecurityGroup, ObservedStack, ObservedTargetGroup,
};
pub use security_group::{SecurityGroupRule, Source};
pub use stack::{
    Binding, Cause, GroupId, Listener, LoadBalancer, ManagedSecurityGroup, ObjectKind, ObjectReference, PortReference,
    ResourceId, Rule, SecurityGroupReference, Stack, TargetGroup, TargetGroupReference, Value,
};

/// AWS tags, by key. AWS allows 50 on one resource, keys of 128 and values of 256 characters.
pub type Tags = std::collections::BTreeMap<String, String>;
