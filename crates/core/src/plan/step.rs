//! The vocabulary of plans.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::{
    Action, AddOn, Attributes, Authentication, CapacityUnits, Cause, CertificateArn, FrontendTargetGroup, HealthCheck,
    HostedZoneId, IpAddressType, IpamPoolId, Listener, ListenerArn, ListenerProtocol, LoadBalancer, LoadBalancerArn,
    LoadBalancerTarget, ManagedCertificate, ManagedSecurityGroup, MutualAuthentication, ObjectName, ObjectReference,
    ObservedBinding, ResourceId, Rule, RuleArn, SecurityGroupId, SecurityGroupReference, SecurityGroupRule, Source,
    SubnetMapping, TargetGroup, TargetGroupArn, TargetGroupReference, TrustStoreArn, ValidationRecord, Value,
    WebAclArn,
};

/// Steps to run now, in order, and what to wait for afterwards before planning again.
///
/// Only the planner makes one, and `testing` for tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In the order in which they run.
    pub(super) steps: Vec<Step>,
    /// The conditions that the rest of the change waits for; a change of one brings the next plan.
    pub(super) waits: BTreeSet<Wait>,
    /// Target groups that must not be used where a step names a target group by its resource id: those of a load balancer
    /// that is replaced, and others that are about to be deleted.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) passed_over: BTreeSet<TargetGroupArn>,
    /// The members that wait for targets: not all of their rules are as desired.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) held_members: BTreeSet<ObjectReference>,
    /// The ports of listeners that nobody asks for any more and that others redirect to until the plan is carried out.
    #[serde(skip)]
    pub(super) led_to: BTreeSet<u16>,
    /// The target groups that rules come to lead to although their targets are not healthy, since that took too long.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) unhealthy: BTreeSet<ResourceId>,
}

impl Plan {
    /// Returns the plan that changes nothing.
    pub(super) fn empty() -> Self {
        Self::of(Vec::new(), [])
    }

    /// Returns a plan of these steps. Other crates have it for their tests, through [`crate::testing`].
    pub(crate) fn of(steps: Vec<Step>, waits: impl IntoIterator<Item = Wait>) -> Self {
        Self {
            steps,
            waits: waits.into_iter().collect(),
            passed_over: BTreeSet::new(),
            held_members: BTreeSet::new(),
            led_to: BTreeSet::new(),
            unhealthy: BTreeSet::new(),
        }
    }

    /// Returns the steps, in the order in which they run.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns the conditions that the rest of the change waits for.
    #[must_use]
    pub fn waits(&self) -> &BTreeSet<Wait> {
        &self.waits
    }

    /// Returns the target groups that must not be used where a step names a target group by its resource id.
    #[must_use]
    pub fn passed_over(&self) -> &BTreeSet<TargetGroupArn> {
        &self.passed_over
    }

    /// Returns the members that wait for targets: not all of their rules are as desired.
    #[must_use]
    pub fn held_members(&self) -> &BTreeSet<ObjectReference> {
        &self.held_members
    }

    /// Returns the ports of listeners that nobody asks for any more and that others redirect to until the plan is carried
    /// out.
    #[must_use]
    pub fn led_to(&self) -> &BTreeSet<u16> {
        &self.led_to
    }

    /// Returns the target groups that rules come to lead to although their targets are not healthy, since that took too
    /// long.
    #[must_use]
    pub fn unhealthy(&self) -> &BTreeSet<ResourceId> {
        &self.unhealthy
    }

    /// Returns true if nothing is to be done, waited for or passed over.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.steps.is_empty() && self.waits.is_empty() && self.passed_over.is_empty()
    }

    /// Takes out the steps that are not to run now.
    pub fn retain_steps(&mut self, keep: impl FnMut(&Step) -> bool) {
        self.steps.retain(keep);
    }

    /// Takes out all deletions. A target group that stays for now is passed over.
    pub fn withhold_deletions(&mut self) {
        for step in self.steps.extract_if(.., |step| step.action.is_destructive()) {
            if let StepAction::DeleteTargetGroup { arn, .. } = step.action {
                self.passed_over.insert(arn);
            }
        }
    }
}

/// A condition that must hold before the next plan can continue, about one thing, so that each has its own time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Wait {
    /// The TargetGroupBinding is gone: its targets are deregistered then, and its target group can go.
    BindingGone(ObjectName),
    /// The load balancer serves, which takes over from another one, or for which capacity can be reserved then.
    LoadBalancerActive,
    /// The load balancer that replaces this one has all that it leads to: it lacks the resources of members that are frozen
    /// or wait for targets, or its web ACL.
    Mended(LoadBalancerArn),
    /// Clients have had the time to find the load balancer that replaces this one, which may go then.
    #[serde(rename = "Hold")]
    RetainOld(LoadBalancerArn),
    /// This load balancer has been replaced; its deletion protection must be disabled.
    Protected(LoadBalancerArn),
    /// This load balancer in front of another one is not requested any more; its deletion protection must be disabled.
    ProtectedInFront(LoadBalancerArn),
    /// The targets of this TargetGroupBinding allow the security groups that the load balancer is to be put in.
    LetIn(ObjectName),
    /// The targets of this target group are registered and healthy: the rules that lead to it can change then.
    Ready(ResourceId),
    /// Clients have had the time to use the listener that a listener on this port was replaced by.
    RetainListener(u16),
    /// The new listener on this port has had the time to be on all nodes of the load balancer: redirects can lead there
    /// then.
    Opened(u16),
    /// The rules of this member, which comes from another load balancer, have had the time to be on all nodes of this one:
    /// its host name can be published then.
    Arrived(ObjectName),
    /// Clients have had the time to find the load balancer of another stack, which this member has moved to.
    Moved(ObjectName),
    /// ACM has issued the certificate: listeners can have it then.
    CertificateIssued(ResourceId),
}

impl Wait {
    /// Returns true if a plan has such a wait. The others depend on what members publish, which no plan knows.
    #[must_use]
    pub fn is_of_plan(&self) -> bool {
        !matches!(self, Self::Arrived(_) | Self::Moved(_))
    }
}

/// A call that changes something, with its cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The action.
    pub action: StepAction,
    /// Because of which object and field.
    pub cause: Cause,
    /// True if it is about what stands in front of the load balancer.
    #[serde(skip)]
    pub in_front: bool,
}

impl Step {
    /// Returns a step that is not about what stands in front of the load balancer.
    #[must_use]
    pub fn new(action: StepAction, cause: Cause) -> Self {
        Self { action, cause, in_front: false }
    }
}

/// A listener of the stack's load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum ListenerReference {
    /// It exists.
    Existing(ListenerArn),
    /// An earlier step of the plan creates it, on this port.
    Created(u16),
}

/// A rule of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum RuleReference {
    /// It exists.
    Existing(RuleArn),
    /// An earlier step of the plan creates it: port of its listener and its place among that listener's wanted rules.
    Created(u16, usize),
}

/// A security group that a step changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum SecurityGroupTarget {
    /// It exists.
    Existing(SecurityGroupId),
    /// An earlier step of the plan creates it: the stack's own.
    Created,
}

/// A resource of ELB v2 or EC2 whose tags are changed, by ARN or group id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum TaggedResource {
    /// A load balancer, listener, rule or target group: AddTags.
    Elb(String),
    /// A security group: CreateTags.
    SecurityGroup(SecurityGroupId),
}

/// The owner of the attributes to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum AttributesOf {
    /// A load balancer; `None` is the one that an earlier step creates.
    LoadBalancer(Option<LoadBalancerArn>),
    /// A listener.
    Listener(ListenerReference),
    /// A target group: the stack's, or one by its ARN.
    TargetGroup(TargetGroupReference),
}

/// The result of planning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Everything that the plan depends on is known.
    Ready(Plan),
    /// Some input is not known: it has to be read, and planned again.
    Need(Reads),
}

impl Planned {
    /// The plan, where there is one.
    #[must_use]
    pub fn ready(self) -> Option<Plan> {
        match self {
            Self::Ready(plan) => Some(plan),
            Self::Need(_) => None,
        }
    }
}

/// The reads needed before a plan can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The listeners of these load balancers, with their rules and certificates.
    pub listeners_of: Vec<LoadBalancerArn>,
    /// The attributes of this load balancer.
    pub load_balancer: Option<LoadBalancerArn>,
    /// The attributes of these listeners.
    pub listeners: Vec<ListenerArn>,
    /// The attributes of these target groups.
    pub target_groups: Vec<TargetGroupArn>,
    /// The targets of these target groups of the type `alb`.
    pub targets: BTreeSet<TargetGroupArn>,
    /// The add-ons of load balancers.
    pub add_ons: BTreeSet<(AddOn, LoadBalancerArn)>,
    /// The certificates that were requested for the stack.
    pub certificates: bool,
    /// The health of the targets of these target groups.
    pub health: BTreeSet<TargetGroupArn>,
    /// The states of the stack's load balancers.
    pub states: bool,
}

impl Reads {
    /// Returns true if everything is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listeners_of.is_empty()
            && self.load_balancer.is_none()
            && self.listeners.is_empty()
            && self.target_groups.is_empty()
            && self.targets.is_empty()
            && self.add_ons.is_empty()
            && !self.certificates
            && self.health.is_empty()
            && !self.states
    }
}

/// The changes of a listener; absent parts stay unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListenerChange {
    /// To another protocol.
    pub protocol: Option<ListenerProtocol>,
    /// To another TLS policy.
    pub ssl_policy: Option<String>,
    /// To another default certificate.
    pub default_certificate: Option<CertificateArn>,
    /// To another policy of ALPN.
    pub alpn_policy: Option<String>,
    /// To another default action.
    pub default_action: Option<Action<TargetGroupReference>>,
    /// The authentication before the default action, if it changes.
    pub default_authentication: Option<Authentication>,
    /// The treatment of clients' certificates.
    pub mutual_authentication: Option<MutualAuthentication<Value<TrustStoreArn>>>,
}

impl ListenerChange {
    /// Takes out what changes together with the protocol, so that it can be changed apart.
    pub(super) fn take_protocol(&mut self) -> Self {
        Self {
            protocol: self.protocol.take(),
            ssl_policy: self.ssl_policy.take(),
            default_certificate: self.default_certificate.take(),
            alpn_policy: self.alpn_policy.take(),
            mutual_authentication: self.mutual_authentication.take(),
            default_action: None,
            default_authentication: None,
        }
    }
}

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
