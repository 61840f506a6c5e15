//! The facts about AWS that a build needs, requested as data.

pub mod certificates;
pub mod hosted_zones;
pub mod limits;
pub mod secrets;
pub mod security_groups;
pub mod subnets;

use std::collections::{BTreeMap, BTreeSet};

use self::hosted_zones::HostedZone;
use crate::model::{
    AddOn, CertificateArn, LoadBalancerKind, ObjectName, ObservedCertificate, ObservedStack, OidcSecret, Scheme,
    SecurityGroupId, SubnetId, TargetGroupArn, TrustStoreArn, VpcBlocks, WebAclArn,
};

/// A question that building asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FactQuery {
    /// The subnets that a load balancer goes to.
    Subnets(SubnetQuery),
    /// The security groups that a user names, by id or `Name` tag, in the user's order.
    SecurityGroups(Vec<String>),
    /// The certificates in ACM for these host names.
    Certificates(BTreeSet<String>),
    /// The trust store of this name.
    TrustStore(String),
    /// The OpenID Connect client in this Secret.
    Secret(ObjectName),
    /// The address blocks of the VPC.
    VpcBlocks,
    /// The security group that all load balancers of the cluster share.
    BackendSecurityGroup,
    /// The resources that AWS has for the stack, listeners included: needed to resolve differences between members of a group.
    Current,
    /// The ARN of the target group of this name.
    TargetGroup(String),
    /// The quotas of the account.
    Limits,
    /// The load balancers of the stack that are known to be protected from deletion, before all of it is deleted.
    Protection,
    /// The regional web ACL (WAFv2) of this name.
    WebAcl(String),
    /// True if the account is subscribed to Shield Advanced.
    ShieldSubscription,
    /// The add-on that the stack's load balancer has, as part of [`Self::Current`].
    CurrentAddOn(AddOn),
    /// The certificates that were requested for the stack.
    ManagedCertificates,
    /// The public hosted zones of the account.
    HostedZones,
}

impl FactQuery {
    /// Returns true if looking it up changes nothing in AWS.
    #[must_use]
    pub fn is_read(&self) -> bool {
        !matches!(self, Self::BackendSecurityGroup)
    }
}

/// The subnets to look for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubnetQuery {
    /// Found by their tags, for a new load balancer.
    Discovered {
        /// A Network Load Balancer can do with one.
        kind: LoadBalancerKind,
        /// The scheme whose role tag they carry.
        scheme: Scheme,
        /// True if they need IPv6 blocks.
        ipv6: bool,
    },
    /// Found by tags that a user names, for a new load balancer.
    Tagged {
        /// A Network Load Balancer can do with one.
        kind: LoadBalancerKind,
        /// For each key the values of which a subnet has one.
        tags: BTreeMap<String, Vec<String>>,
        /// True if they need IPv6 blocks.
        ipv6: bool,
    },
    /// Named by a user, by id or `Name` tag, in the user's order.
    Named {
        /// A Network Load Balancer can do with one.
        kind: LoadBalancerKind,
        /// Ids and names.
        names: Vec<String>,
        /// True if they need IPv6 blocks.
        ipv6: bool,
    },
}

/// A subnet that a load balancer goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// Its IPv4 blocks.
    pub ipv4_blocks: Vec<String>,
    /// The IPv6 blocks that are associated with it.
    pub ipv6_blocks: Vec<String>,
}

impl Subnet {
    /// Returns a subnet whose blocks nothing depends on.
    #[must_use]
    pub fn of_unknown_blocks(id: SubnetId) -> Self {
        Self { id, ipv4_blocks: Vec::new(), ipv6_blocks: Vec::new() }
    }
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact<T> {
    /// The answer.
    Known(T),
    /// AWS has answered, and there is no such thing; the text says why and what to do, for the object that asks.
    Absent {
        /// The message.
        message: String,
        /// The fix.
        fix: String,
    },
    /// Not available right now: the stack that asks waits, and nothing of it changes.
    Unavailable(String),
    /// AWS is not asked (a plan of files): known after apply.
    AfterApply(&'static str),
}

/// The answers that one build has. It requests others with [`FactQuery`].
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// By what was asked.
    pub subnets: BTreeMap<SubnetQuery, Fact<Vec<Subnet>>>,
    /// By what was asked.
    pub security_groups: BTreeMap<Vec<String>, Fact<Vec<SecurityGroupId>>>,
    /// By name.
    pub target_groups: BTreeMap<String, Fact<TargetGroupArn>>,
    /// By host names; the first is the default.
    pub certificates: BTreeMap<BTreeSet<String>, Fact<Vec<CertificateArn>>>,
    /// The certificates that were requested for the stack.
    pub managed_certificates: Option<Fact<Vec<ObservedCertificate>>>,
    /// The public hosted zones of the account.
    pub hosted_zones: Option<Fact<Vec<HostedZone>>>,
    /// By name.
    pub trust_stores: BTreeMap<String, Fact<TrustStoreArn>>,
    /// By name.
    pub web_acls: BTreeMap<String, Fact<WebAclArn>>,
    /// True if the account is subscribed to Shield Advanced.
    pub shield_subscription: Option<Fact<bool>>,
    /// The add-ons in `current` that were read for this build, or could not be.
    pub current_add_ons: BTreeSet<AddOn>,
    /// By name.
    pub secrets: BTreeMap<ObjectName, Fact<OidcSecret>>,
    /// The blocks of the VPC.
    pub vpc_blocks: Option<Fact<VpcBlocks>>,
    /// AWS is not asked: unknown values are known after apply.
    pub offline: bool,
    /// The shared security group.
    pub backend_security_group: Option<Fact<SecurityGroupId>>,
    /// The stack's own load balancer as observed, if there is one.
    pub existing: Option<ExistingLoadBalancer>,
    /// The resources that AWS has for the stack, listeners included.
    pub current: Option<Box<ObservedStack>>,
    /// The quotas of the account.
    pub limits: Option<Fact<limits::Limits>>,
    /// The DNS names of the stack's own load balancers, in lower case.
    pub hostnames: BTreeSet<String>,
    /// The names of the stack's load balancers that are known to be protected from deletion.
    pub protected: Option<BTreeSet<String>>,
    /// Members of the group whose part AWS has refused.
    pub refused: BTreeSet<ObjectName>,
    /// Further ones, while one is replaced.
    pub other_existing: Vec<ExistingLoadBalancer>,
    /// The names of the stack's own load balancers.
    pub names: BTreeSet<String>,
    /// The Network Load Balancers in front of the stack's own.
    pub frontend: Vec<ExistingLoadBalancer>,
}

/// The properties of an existing load balancer that constrain the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingLoadBalancer {
    /// Application or Network.
    pub kind: LoadBalancerKind,
    /// Its scheme.
    pub scheme: Scheme,
    /// True if it has security groups. A Network Load Balancer created without any can never be given one.
    pub has_security_groups: bool,
    /// True if it has IPv6 addresses.
    pub has_ipv6: bool,
    /// True if it is known to have a listener of QUIC. AWS allows none beside IPv6 addresses.
    pub has_quic: bool,
    /// The pool of customer-owned addresses that it was created with.
    pub customer_owned_pool: Option<String>,
    /// Its subnets: kept as long as the scheme stays, also when other subnets carry the tags now.
    pub subnets: BTreeSet<SubnetId>,
}

impl Facts {
    /// Returns the answers for a build that can ask neither AWS nor a cluster.
    #[must_use]
    pub fn offline() -> Self {
        Self { offline: true, ..Self::default() }
    }

    /// The subnets that a query finds, or the want of them.
    #[must_use]
    pub fn subnets(&self, query: &SubnetQuery) -> Option<Fact<Vec<Subnet>>> {
        let unknown = match query {
            SubnetQuery::Discovered { .. } | SubnetQuery::Tagged { .. } => "subnets are found by their tags in the VPC",
            SubnetQuery::Named { .. } => "subnets are looked up in the VPC",
        };
        self.subnets.get(query).cloned().or_else(|| self.offline.then_some(Fact::AfterApply(unknown)))
    }

    /// The security groups that a user names, or the want of them.
    #[must_use]
    pub fn security_groups(&self, names: &[String]) -> Option<Fact<Vec<SecurityGroupId>>> {
        let unknown = || self.offline.then_some(Fact::AfterApply("security groups are looked up in the VPC"));
        self.security_groups.get(names).cloned().or_else(unknown)
    }

    /// The target group of a name, or the want of it.
    #[must_use]
    pub fn target_group(&self, name: &str) -> Option<Fact<TargetGroupArn>> {
        let unknown = || self.offline.then_some(Fact::AfterApply("target groups are looked up by their names"));
        self.target_groups.get(name).cloned().or_else(unknown)
    }

    /// The certificates for host names, or the want of them.
    #[must_use]
    pub fn certificates(&self, hosts: &BTreeSet<String>) -> Option<Fact<Vec<CertificateArn>>> {
        let unknown = || self.offline.then_some(Fact::AfterApply("found in ACM by the host names"));
        self.certificates.get(hosts).cloned().or_else(unknown)
    }

    /// Returns the certificates that were requested for the stack, or `None` if they have to be requested.
    #[must_use]
    pub fn managed_certificates(&self) -> Option<Fact<Vec<ObservedCertificate>>> {
        let unknown = || self.offline.then_some(Fact::AfterApply("requested from ACM"));
        self.managed_certificates.clone().or_else(unknown)
    }

    /// Returns the public hosted zones of the account, or `None` if they have to be requested.
    #[must_use]
    pub fn hosted_zones(&self) -> Option<Fact<Vec<HostedZone>>> {
        let unknown = || self.offline.then_some(Fact::AfterApply("found in Route 53 by the host names"));
        self.hosted_zones.clone().or_else(unknown)
    }

    /// The trust store of a name, or the want of it.
    #[must_use]
    pub fn trust_store(&self, name: &str) -> Option<Fact<TrustStoreArn>> {
        let unknown = || self.offline.then_some(Fact::AfterApply("trust stores are looked up by name"));
        self.trust_stores.get(name).cloned().or_else(unknown)
    }

    /// Returns the web ACL of a name, or `None` if it has to be requested.
    #[must_use]
    pub fn web_acl(&self, name: &str) -> Option<Fact<WebAclArn>> {
        let unknown = || self.offline.then_some(Fact::AfterApply("web ACLs are looked up by name"));
        self.web_acls.get(name).cloned().or_else(unknown)
    }

    /// Returns true if the account is subscribed to Shield Advanced, or `None` if that has to be requested.
    #[must_use]
    pub fn shield_subscription(&self) -> Option<Fact<bool>> {
        let unknown = || self.offline.then_some(Fact::AfterApply("AWS knows the account's subscription"));
        self.shield_subscription.clone().or_else(unknown)
    }

    /// Returns the content of a Secret, or the reason why there is none.
    #[must_use]
    pub fn secret(&self, name: &ObjectName) -> Option<Fact<OidcSecret>> {
        let unknown = || self.offline.then_some(Fact::AfterApply("the Secret is read in the cluster"));
        self.secrets.get(name).cloned().or_else(unknown)
    }

    /// The blocks of the VPC, or the want of them.
    #[must_use]
    pub fn vpc_blocks(&self) -> Option<Fact<VpcBlocks>> {
        let unknown = || self.offline.then_some(Fact::AfterApply("the address blocks of the VPC"));
        self.vpc_blocks.clone().or_else(unknown)
    }

    /// The shared security group, or the want of it.
    #[must_use]
    pub fn backend_security_group(&self) -> Option<Fact<SecurityGroupId>> {
        let unknown = || self.offline.then_some(Fact::AfterApply("shared by all load balancers of the cluster"));
        self.backend_security_group.clone().or_else(unknown)
    }
}

/// A list as one says it: `a`, `a and b`, `a, b and c`, or with another word before the last.
fn list(items: impl IntoIterator<Item = impl AsRef<str>>, last: &str) -> String {
    let items: Vec<_> = items.into_iter().collect();
    let mut text = String::new();
    for (place, item) in items.iter().enumerate() {
        match items.len() - place {
            _ if place == 0 => {}
            1 => text.extend([" ", last, " "]),
            _ => text.push_str(", "),
        }
        text.push_str(item.as_ref());
    }
    text
}
