//! The actions of steps.

use std::collections::BTreeSet;

use serde::Serialize;

use super::step::{
    AttributesOf, ListenerChange, ListenerReference, RuleReference, SecurityGroupTarget, TaggedResource,
};
use crate::model::{
    AddOn, Attributes, CapacityUnits, CertificateArn, FrontendTargetGroup, HealthCheck, HostedZoneId, IpAddressType,
    IpamPoolId, Listener, ListenerArn, LoadBalancer, LoadBalancerArn, LoadBalancerTarget, ManagedCertificate,
    ManagedSecurityGroup, ObjectName, ObservedBinding, ObservedStack, ResourceId, Rule, RuleArn, SecurityGroupId,
    SecurityGroupReference, SecurityGroupRule, Source, SubnetMapping, TargetGroup, TargetGroupArn, ValidationRecord,
    Value, WebAclArn,
};

/// The action of a step. Each is one call, except actions that name many resources (batched by AWS's limits).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum StepAction {
    /// EC2 CreateSecurityGroup, with tags and without rules.
    CreateSecurityGroup(ManagedSecurityGroup),
    /// EC2 AuthorizeSecurityGroupIngress
    AuthorizeIngress {
        /// The security group.
        group: SecurityGroupTarget,
        /// All in one call.
        rules: Vec<SecurityGroupRule>,
    },
    /// EC2 RevokeSecurityGroupIngress
    RevokeIngress {
        /// The security group.
        group: SecurityGroupId,
        /// All in one call.
        rules: Vec<SecurityGroupRule>,
    },
    /// EC2 DeleteSecurityGroup; refused while a network interface of the load balancer lingers, then tried again.
    DeleteSecurityGroup(SecurityGroupId),
    /// ELB v2 CreateTargetGroup, with tags.
    CreateTargetGroup(Box<TargetGroup>),
    /// ELB v2 CreateTargetGroup of the type `alb`, with tags.
    CreateFrontendTargetGroup(Box<FrontendTargetGroup>),
    /// ELB v2 RegisterTargets: an Application Load Balancer, the only target of the target group.
    RegisterLoadBalancer {
        /// The target group.
        arn: TargetGroupArn,
        /// Its name, for people.
        name: String,
        /// The target.
        target: LoadBalancerTarget,
    },
    /// ELB v2 DeregisterTargets
    DeregisterLoadBalancer {
        /// The target group.
        arn: TargetGroupArn,
        /// Its name, for people.
        name: String,
        /// The target.
        target: LoadBalancerTarget,
    },
    /// ELB v2 ModifyTargetGroup: the whole health check.
    ModifyTargetGroup {
        /// The target group.
        arn: TargetGroupArn,
        /// Its resource id, for people.
        resource: ResourceId,
        /// The new check.
        health_check: HealthCheck,
    },
    /// ELB v2 DeleteTargetGroup; refused while it is in use, then tried again.
    DeleteTargetGroup {
        /// The target group.
        arn: TargetGroupArn,
        /// Its name, for people.
        name: String,
    },
    /// Kubernetes: create the TargetGroupBinding of a target group.
    CreateBinding(Box<TargetGroup>),
    /// Kubernetes: replace labels and spec of a TargetGroupBinding.
    UpdateBinding {
        /// The existing binding.
        existing: Box<ObservedBinding>,
        /// The target group as desired.
        target_group: Box<TargetGroup>,
        /// True if the peers that can reach the targets now can continue for the time being.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        keeps_networking: bool,
    },
    /// Kubernetes: delete a TargetGroupBinding.
    DeleteBinding(ObjectName),
    /// ELB v2 CreateLoadBalancer, with tags.
    CreateLoadBalancer(Box<LoadBalancer>),
    /// ELB v2 SetSecurityGroups
    SetSecurityGroups {
        /// The load balancer; `None` is the one that an earlier step creates.
        load_balancer: Option<LoadBalancerArn>,
        /// All groups that it needs.
        groups: Vec<SecurityGroupReference>,
        /// `EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic`; AWS's default if it is not given.
        #[serde(skip_serializing_if = "Option::is_none")]
        private_link_rules: Option<bool>,
    },
    /// ELB v2 SetSubnets
    SetSubnets {
        /// The load balancer.
        arn: LoadBalancerArn,
        /// All subnets that it needs.
        subnets: Vec<SubnetMapping>,
        /// Its address families, if they change in the same call.
        #[serde(skip_serializing_if = "Option::is_none")]
        ip_address_type: Option<IpAddressType>,
        /// `EnablePrefixForIpv6SourceNat`; `None` for an Application Load Balancer.
        #[serde(skip_serializing_if = "Option::is_none")]
        ipv6_source_nat: Option<bool>,
    },
    /// ELB v2 SetIpAddressType
    SetIpAddressType {
        /// The load balancer.
        arn: LoadBalancerArn,
        /// Its address families.
        kind: IpAddressType,
    },
    /// ELB v2 ModifyLoadBalancerAttributes, ModifyListenerAttributes or ModifyTargetGroupAttributes
    ModifyAttributes {
        /// The owner.
        of: AttributesOf,
        /// Its name for people.
        name: String,
        /// The attributes that change; all others stay.
        attributes: Attributes,
    },
    /// WAFv2 AssociateWebACL, in place of another web ACL if the load balancer has one.
    AssociateWebAcl {
        /// The load balancer; `None` is the one that an earlier step creates.
        load_balancer: Option<LoadBalancerArn>,
        /// The name of the load balancer, for people.
        name: String,
        /// The web ACL.
        web_acl: Value<WebAclArn>,
    },
    /// WAFv2 DisassociateWebACL
    DisassociateWebAcl {
        /// The load balancer.
        arn: LoadBalancerArn,
        /// The name of the load balancer, for people.
        name: String,
        /// The ARN of its web ACL, for people.
        web_acl: String,
    },
    /// Shield CreateProtection
    CreateProtection {
        /// The load balancer; `None` is the one that an earlier step creates.
        load_balancer: Option<LoadBalancerArn>,
        /// The name of the load balancer, for people.
        name: String,
    },
    /// Shield DeleteProtection
    DeleteProtection {
        /// The load balancer.
        arn: LoadBalancerArn,
        /// The name of the load balancer, for people.
        name: String,
        /// The id of the protection.
        id: String,
    },
    /// ELB v2 ModifyIpPools
    ModifyIpPools {
        /// The load balancer.
        arn: LoadBalancerArn,
        /// The name of the load balancer, for people.
        name: String,
        /// The IPAM pool of its public addresses; `None` for addresses of Amazon.
        pool: Option<IpamPoolId>,
    },
    /// ELB v2 ModifyCapacityReservation, of a load balancer that serves.
    ModifyCapacityReservation {
        /// The load balancer.
        arn: LoadBalancerArn,
        /// The name of the load balancer, for people.
        name: String,
        /// The capacity; [`CapacityUnits::NONE`] ends the reservation.
        units: CapacityUnits,
    },
    /// ACM RequestCertificate, with tags.
    RequestCertificate {
        /// The certificate.
        certificate: Box<ManagedCertificate>,
        /// The token with which ACM recognises the request if it is repeated.
        token: String,
    },
    /// Route 53 ChangeResourceRecordSets: creates the record that proves a host of a certificate.
    CreateValidationRecord {
        /// The certificate.
        arn: CertificateArn,
        /// The hosted zone.
        zone: HostedZoneId,
        /// The record.
        record: ValidationRecord,
    },
    /// ACM DeleteCertificate, and Route 53 ChangeResourceRecordSets for the records that the controller has created and that no
    /// other certificate needs.
    DeleteCertificate {
        /// The certificate.
        arn: CertificateArn,
        /// The id of the resource, for people.
        resource: ResourceId,
    },
    /// ELB v2 DeleteLoadBalancer: its listeners and rules go with it.
    DeleteLoadBalancer {
        /// The load balancer.
        arn: LoadBalancerArn,
        /// Its name, for people.
        name: String,
    },
    /// ELB v2 CreateListener, with tags, default certificate and default action; rules and other certificates follow.
    CreateListener {
        /// On which load balancer; `None` is the one that an earlier step creates.
        load_balancer: Option<LoadBalancerArn>,
        /// The listener.
        listener: Box<Listener>,
    },
    /// ELB v2 ModifyListener
    ModifyListener {
        /// The listener.
        arn: ListenerArn,
        /// Its port, for people.
        port: u16,
        /// The changes.
        change: Box<ListenerChange>,
    },
    /// ELB v2 DeleteListener
    DeleteListener {
        /// The listener.
        arn: ListenerArn,
        /// Its port, for people.
        port: u16,
    },
    /// ELB v2 AddListenerCertificates
    AddListenerCertificates {
        /// The listener.
        listener: ListenerReference,
        /// The certificates. One call each, as AWS accepts one at a time.
        certificates: Vec<CertificateArn>,
    },
    /// ELB v2 RemoveListenerCertificates
    RemoveListenerCertificates {
        /// The listener.
        arn: ListenerArn,
        /// Its port, for people.
        port: u16,
        /// The certificates. One call each.
        certificates: Vec<CertificateArn>,
    },
    /// ELB v2 CreateRule, with tags.
    CreateRule {
        /// The listener.
        listener: ListenerReference,
        /// Its port.
        port: u16,
        /// The rule's place among the listener's wanted rules.
        index: usize,
        /// 1 to 50000
        priority: u32,
        /// The rule.
        rule: Box<Rule>,
    },
    /// ELB v2 SetRulePriorities: at once for all.
    SetRulePriorities {
        /// Port of the listener, for people.
        port: u16,
        /// Rules and their new priorities.
        priorities: Vec<(RuleReference, u32)>,
    },
    /// ELB v2 ModifyRule: actions, with the authentication before them, and transforms.
    ModifyRule {
        /// The rule.
        arn: RuleArn,
        /// Port of its listener, for people.
        port: u16,
        /// The desired rule.
        rule: Box<Rule>,
        /// True if it rewrites requests now and must stop.
        reset_transforms: bool,
    },
    /// ELB v2 DeleteRule
    DeleteRule {
        /// The rule.
        arn: RuleArn,
        /// Port of its listener, for people.
        port: u16,
        /// Its priority, for people.
        priority: u32,
    },
    /// ELB v2 AddTags or EC2 CreateTags: adds tags, or changes their values.
    AddTags {
        /// The resource.
        resource: TaggedResource,
        /// Its name for people.
        name: String,
        /// The tags that are missing or differ.
        tags: crate::model::Tags,
    },
    /// ELB v2 RemoveTags or EC2 DeleteTags
    RemoveTags {
        /// The resource.
        resource: TaggedResource,
        /// Its name for people.
        name: String,
        /// The keys of the tags.
        keys: BTreeSet<String>,
    },
}

impl StepAction {
    /// The step's name without its details: for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateSecurityGroup(_) => "CreateSecurityGroup",
            Self::AuthorizeIngress { .. } => "AuthorizeIngress",
            Self::RevokeIngress { .. } => "RevokeIngress",
            Self::DeleteSecurityGroup(_) => "DeleteSecurityGroup",
            Self::CreateTargetGroup(_) => "CreateTargetGroup",
            Self::CreateFrontendTargetGroup(_) => "CreateFrontendTargetGroup",
            Self::RegisterLoadBalancer { .. } => "RegisterLoadBalancer",
            Self::DeregisterLoadBalancer { .. } => "DeregisterLoadBalancer",
            Self::ModifyTargetGroup { .. } => "ModifyTargetGroup",
            Self::DeleteTargetGroup { .. } => "DeleteTargetGroup",
            Self::CreateBinding(_) => "CreateBinding",
            Self::UpdateBinding { .. } => "UpdateBinding",
            Self::DeleteBinding(_) => "DeleteBinding",
            Self::CreateLoadBalancer(_) => "CreateLoadBalancer",
            Self::SetSecurityGroups { .. } => "SetSecurityGroups",
            Self::SetSubnets { .. } => "SetSubnets",
            Self::SetIpAddressType { .. } => "SetIpAddressType",
            Self::ModifyAttributes { .. } => "ModifyAttributes",
            Self::AssociateWebAcl { .. } => "AssociateWebAcl",
            Self::DisassociateWebAcl { .. } => "DisassociateWebAcl",
            Self::CreateProtection { .. } => "CreateProtection",
            Self::DeleteProtection { .. } => "DeleteProtection",
            Self::ModifyIpPools { .. } => "ModifyIpPools",
            Self::ModifyCapacityReservation { .. } => "ModifyCapacityReservation",
            Self::RequestCertificate { .. } => "RequestCertificate",
            Self::CreateValidationRecord { .. } => "CreateValidationRecord",
            Self::DeleteCertificate { .. } => "DeleteCertificate",
            Self::DeleteLoadBalancer { .. } => "DeleteLoadBalancer",
            Self::CreateListener { .. } => "CreateListener",
            Self::ModifyListener { .. } => "ModifyListener",
            Self::DeleteListener { .. } => "DeleteListener",
            Self::AddListenerCertificates { .. } => "AddListenerCertificates",
            Self::RemoveListenerCertificates { .. } => "RemoveListenerCertificates",
            Self::CreateRule { .. } => "CreateRule",
            Self::SetRulePriorities { .. } => "SetRulePriorities",
            Self::ModifyRule { .. } => "ModifyRule",
            Self::DeleteRule { .. } => "DeleteRule",
            Self::AddTags { .. } => "AddTags",
            Self::RemoveTags { .. } => "RemoveTags",
        }
    }

    /// Returns the add-on that the step changes. Its failure stops no other step.
    #[must_use]
    pub fn add_on(&self) -> Option<AddOn> {
        match self {
            Self::AssociateWebAcl { .. } | Self::DisassociateWebAcl { .. } => Some(AddOn::WebAcl),
            Self::CreateProtection { .. } | Self::DeleteProtection { .. } => Some(AddOn::Protection),
            Self::ModifyCapacityReservation { .. } => Some(AddOn::Capacity),
            Self::RequestCertificate { .. } | Self::CreateValidationRecord { .. } | Self::DeleteCertificate { .. } => {
                Some(AddOn::Certificates)
            }
            _ => None,
        }
    }

    /// Returns true if the step deletes a certificate that AWS has kept a while ago: it is not run again yet.
    #[must_use]
    pub fn is_paused_deletion(&self, observed: &ObservedStack) -> bool {
        matches!(self, Self::DeleteCertificate { arn, .. } if observed.refused_requests.contains(arn.as_str()))
    }

    /// Returns true if the step creates or changes a resource that all members of a group share.
    #[must_use]
    pub fn is_of_all(&self) -> bool {
        // A prefix list is opened for the member that requests it.
        if let Self::AuthorizeIngress { rules, .. } = self {
            return !rules.iter().all(|rule| matches!(rule.source, Source::PrefixList(_)));
        }
        matches!(
            self,
            Self::CreateLoadBalancer(_)
                | Self::SetSecurityGroups { .. }
                | Self::SetSubnets { .. }
                | Self::ModifyIpPools { .. }
                | Self::DeleteLoadBalancer { .. }
                | Self::CreateSecurityGroup(_)
                | Self::RevokeIngress { .. }
                | Self::DeleteSecurityGroup(_)
                | Self::DeleteCertificate { .. }
                | Self::SetRulePriorities { .. }
        )
    }

    /// Returns the port of the listener that the step creates, or creates a rule on.
    #[must_use]
    pub fn creates_on(&self) -> Option<u16> {
        match self {
            Self::CreateListener { listener, .. } => Some(listener.port),
            Self::CreateRule { port, .. } => Some(*port),
            _ => None,
        }
    }

    /// Returns true if the step changes the answers of a listener, but for what goes.
    #[must_use]
    pub fn changes_answers(&self) -> bool {
        matches!(
            self,
            Self::CreateListener { .. }
                | Self::ModifyListener { .. }
                | Self::CreateRule { .. }
                | Self::ModifyRule { .. }
                | Self::SetRulePriorities { .. }
        )
    }

    /// Returns true if the step removes a resource that may serve requests, or that a user made.
    #[must_use]
    pub fn is_destructive(&self) -> bool {
        matches!(
            self,
            Self::DeleteSecurityGroup(_)
                | Self::DeleteTargetGroup { .. }
                | Self::DeregisterLoadBalancer { .. }
                | Self::DeleteBinding(_)
                | Self::DeleteLoadBalancer { .. }
                | Self::DeleteListener { .. }
                | Self::RemoveListenerCertificates { .. }
                | Self::DeleteRule { .. }
                | Self::RevokeIngress { .. }
                | Self::DisassociateWebAcl { .. }
                | Self::DeleteProtection { .. }
                | Self::DeleteCertificate { .. }
        )
    }
}
