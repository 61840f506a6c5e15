//! The vocabulary of plans.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::action::StepAction;
use crate::model::{
    Action, AddOn, Authentication, Cause, CertificateArn, ListenerArn, ListenerProtocol, LoadBalancerArn,
    MutualAuthentication, ObjectName, ObjectReference, ObservedStack, ResourceId, RuleArn, SecurityGroupId,
    TargetGroupArn, TargetGroupReference, TrustStoreArn, Value,
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

    /// Takes out the deletions that are not tried again yet. Returns true if there are some.
    pub fn withhold_paused(&mut self, observed: &ObservedStack) -> bool {
        let before = self.steps.len();
        self.steps.retain(|step| !step.action.is_paused_deletion(observed));
        self.steps.len() < before
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
