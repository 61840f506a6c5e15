//! The AWS resources of a load balancer as plain data: the desired ones of a stack ([`stack`]), the observed ones
//! ([`observed`]), and the small types that both share. Nothing here does I/O.

mod add_ons;
mod address_pools;
pub mod authentication;
mod elements;
mod identifiers;
mod known_limits;
pub mod managed_certificate;
mod mutual_authentication;
pub mod names;
mod network;
mod network_settings;
mod object;
mod observed;
pub mod parking;
mod quic;
mod security_group;
mod stack;
mod stack_id;
mod tag_keys;
pub mod tags;
mod targets;
mod transform;

pub use add_ons::{AddOn, AddOns, Association, CapacityUnits, ObservedAddOns, PROTECTION_NAME, Protection, Requested};
pub use address_pools::{AddressPools, CustomerOwnedPoolId, InvalidPoolId, IpamPoolId, ObservedPools};
pub use authentication::{
    Authentication, ClientId, CognitoProvider, JwtClaim, JwtValidation, OidcProvider, OidcSecret, SecretVersion,
    Session,
};
pub use elements::{
    Action, Condition, HealthCheck, HealthCheckProtocol, IpAddressType, ListenerProtocol, LoadBalancerKind, Matcher,
    ProtocolVersion, QueryStringValue, Scheme, Stickiness, TargetGroupProtocol, TargetType, WeightedTargetGroup,
};
pub use identifiers::{
    CertificateArn, CertificateAuthorityArn, HostedZoneId, InvalidCertificateAuthorityArn, InvalidName,
    InvalidWebAclArn, ListenerArn, LoadBalancerArn, LoadBalancerName, ObjectName, RuleArn, SecurityGroupId, SubnetId,
    TargetGroupArn, TargetGroupName, TrustStoreArn, VpcId, WebAclArn,
};
pub use known_limits::{KnownLimits, Quota};
pub use managed_certificate::{
    CertificateStatus, DesiredCertificates, ManagedCertificate, ObservedCertificate, RecentCertificates,
    ValidationRecord,
};
pub use mutual_authentication::MutualAuthentication;
pub use network::{InstanceInfo, InterfaceInfo, RouteTableInfo, SubnetInfo, VpcBlocks, ZoneInfo};
pub use network_settings::{InvalidSourceNatPrefix, NetworkSettings, ObservedNetworkSettings, SourceNatPrefix};
pub use object::{Cause, ObjectKind, ObjectReference};
pub use observed::{
    BackendSecurityGroup, ListenerResources, LoadBalancerState, MemberResources, ObservedBinding, ObservedFrontend,
    ObservedListener, ObservedLoadBalancer, ObservedRule, ObservedSecurityGroup, ObservedStack, ObservedTargetGroup,
    Opening,
};
pub use quic::{InvalidQuicServerId, QuicServerId};
pub use security_group::{SecurityGroupRule, Source};
pub use stack::{
    Binding, Frontend, FrontendListener, FrontendTargetGroup, FrozenMembers, Listener, ListenerShare, LoadBalancer,
    LoadBalancerTarget, ManagedSecurityGroup, NetworkingPeer, NetworkingPort, NetworkingRule, PortReference,
    Requesters, Rule, SecurityGroupReference, Stack, SubnetMapping, TargetGroup, TargetGroupReference, Value,
};
pub use stack_id::{ResourceId, StackId, is_ingress_finalizer};
pub use tag_keys::TagKeys;
pub use targets::{EVERY_ZONE, HealthState, Registration, Target, TargetHealth};
pub use transform::{Rewrite, Transform};

/// Attributes of a load balancer, listener or target group, by key, as AWS names and writes them.
pub type Attributes = std::collections::BTreeMap<String, String>;

/// The attribute of a load balancer that keeps it from being deleted (ELB API: LoadBalancerAttribute).
pub const DELETION_PROTECTION: &str = "deletion_protection.enabled";

/// AWS tags, by key. AWS allows 50 on one resource, keys of 128 and values of 256 characters.
pub type Tags = std::collections::BTreeMap<String, String>;
