//! The permissions that the controller needs in AWS's IAM: every action with its reason, and the policy that allows just
//! these, with the conditions of aws-load-balancer-controller's policy: created resources carry the cluster's tag, and
//! changed ones carry it already. `albatross iam-policy` prints it, and `config/iam-policy.json` is it.

mod actions;
mod document;
mod markdown;
mod partition;

use std::collections::BTreeSet;

pub use actions::ACTIONS;
pub use document::{Document, Statement, policy};
pub use markdown::render_markdown;
pub use partition::Partition;

/// A use of the controller that needs separate actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Ingresses: Application Load Balancers.
    Ingress,
    /// Services of type LoadBalancer: Network Load Balancers.
    Service,
    /// TargetGroupBindings that users write for their own target groups.
    Binding,
    /// HTTPS listeners of Ingresses that name no certificate.
    CertificateDiscovery,
    /// Certificates that ACM is asked for (`create-acm-cert`).
    CertificateRequests,
    /// Signing users in with Cognito.
    Cognito,
    /// Trust stores that `mutual-authentication` names by name.
    MutualTls,
    /// Subnets without role tags.
    SubnetReachability,
    /// The VPC from `--aws-vpc-tags`, or from the nodes.
    VpcDiscovery,
    /// An account that never had a load balancer.
    ServiceLinkedRole,
    /// Groups that outgrow AWS's default quotas.
    Quotas,
    /// Web ACLs of AWS WAF (WAFv2).
    WebAcl,
    /// The protection of Shield Advanced.
    Shield,
    /// TargetGroupBindings for target groups of other accounts.
    AssumeRole,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Ingress,
        Self::Service,
        Self::Binding,
        Self::CertificateDiscovery,
        Self::CertificateRequests,
        Self::Cognito,
        Self::MutualTls,
        Self::SubnetReachability,
        Self::VpcDiscovery,
        Self::ServiceLinkedRole,
        Self::Quotas,
        Self::WebAcl,
        Self::Shield,
        Self::AssumeRole,
    ];

    /// Returns the features of the policy where none is named: all but those that a feature gate switches on and that change
    /// records of domains, and those that need rights in other accounts.
    #[must_use]
    pub fn by_default() -> BTreeSet<Self> {
        let is_named = |feature: &Self| matches!(feature, Self::CertificateRequests | Self::AssumeRole);
        Self::ALL.into_iter().filter(|feature| !is_named(feature)).collect()
    }

    /// Returns the name in `--features`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Service => "service",
            Self::Binding => "binding",
            Self::CertificateDiscovery => "certificate-discovery",
            Self::CertificateRequests => "certificate-requests",
            Self::Cognito => "cognito",
            Self::MutualTls => "mutual-tls",
            Self::SubnetReachability => "subnet-reachability",
            Self::VpcDiscovery => "vpc-discovery",
            Self::ServiceLinkedRole => "service-linked-role",
            Self::Quotas => "quotas",
            Self::WebAcl => "web-acl",
            Self::Shield => "shield",
            Self::AssumeRole => "assume-role",
        }
    }

    /// Returns the description of the feature.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Ingress => "Ingresses",
            Self::Service => "Services of type LoadBalancer",
            Self::Binding => "TargetGroupBindings for target groups of your own",
            Self::CertificateDiscovery => "HTTPS listeners of Ingresses that name no certificate",
            Self::CertificateRequests => {
                "Ingresses with `create-acm-cert`, under the feature gate `EnableCertificateManagement`; only in the policy where it is named"
            }
            Self::Cognito => "Ingresses that sign users in with Cognito",
            Self::MutualTls => "trust stores that the annotation `mutual-authentication` names by name",
            Self::SubnetReachability => "subnets without role tags, which are judged by their route tables",
            Self::VpcDiscovery => "neither `--aws-vpc-id` nor the instance metadata names the VPC",
            Self::ServiceLinkedRole => "the account's first load balancer",
            Self::Quotas => "groups of Ingresses that exceed AWS's default quotas; without it, those quotas apply",
            Self::WebAcl => "Ingresses or IngressClassParams that name a web ACL (WAFv2)",
            Self::Shield => "Ingresses that ask for the protection of Shield Advanced",
            Self::AssumeRole => "TargetGroupBindings with `iamRoleArnToAssume`; only in the policy if it is named",
        }
    }

    /// The feature of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }
}

/// On what an action is allowed, and under which condition. An action may stand in several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything: AWS knows no narrower resource for it, or the resource may be another owner's (a binding's target group, a
    /// node's security group).
    Anything,
    /// The role that ELB gives itself in an account.
    ServiceLinkedRole,
    /// Tags of a security group that is made with the cluster's tag.
    NewSecurityGroup,
    /// Tags of a security group that has the cluster's tag, which stays as it is.
    TagsOfSecurityGroup,
    /// A security group that has the cluster's tag.
    OwnSecurityGroup,
    /// A load balancer or target group that is made with the cluster's tag.
    New,
    /// The tags that one of them is made with.
    NewTags,
    /// Tags of a load balancer or target group that has the cluster's tag, which stays as it is.
    Tags,
    /// Tags of listeners and rules, which are made with them.
    TagsOfListeners,
    /// A load balancer, target group or listener that has the cluster's tag.
    Own,
    /// Any target group: that of a binding is another owner's.
    TargetGroup,
    /// A certificate that is requested with the cluster's tag.
    NewCertificate,
    /// A certificate that has the cluster's tag.
    OwnCertificate,
    /// A CNAME in a hosted zone.
    Cname,
    /// Any role. A policy may well name the roles in use instead.
    Role,
}

/// The caller of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The controller.
    Controller,
    /// AWS, in the controller's name, when it does what the controller asked.
    Aws,
}

/// An action that has to be allowed.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// `service:Operation`, as IAM writes it.
    pub name: &'static str,
    /// The resources.
    pub scopes: &'static [Scope],
    /// The features that need it, any one of them.
    pub features: &'static [Feature],
    /// The caller.
    pub caller: Caller,
    /// The purpose.
    pub reason: &'static str,
}

/// The actions that these features need.
pub fn needed(features: &BTreeSet<Feature>) -> impl Iterator<Item = &'static Action> {
    ACTIONS.iter().filter(move |action| action.features.iter().any(|feature| features.contains(feature)))
}

#[cfg(test)]
mod tests;
