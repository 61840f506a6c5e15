//! The AWS resources of frozen members of a group, which neither change nor go.
//!
//! The resources of each member are remembered from the time when nothing was left to do. A resource without a remembered
//! owner (in a process that has just started without a record, or one that was created for a member before AWS refused the
//! rest) is frozen too, as long as a member is frozen and no other member requests it.

use crate::model::{
    CertificateArn, FrozenMembers, MemberResources, ObjectReference, ObservedStack, ResourceId, RuleArn,
};

/// Decides which resources are kept.
#[derive(Clone, Copy)]
pub(super) struct FrozenResources<'a> {
    frozen: &'a FrozenMembers,
    observed: &'a ObservedStack,
}

impl<'a> FrozenResources<'a> {
    pub(super) fn new(frozen: &'a FrozenMembers, observed: &'a ObservedStack) -> Self {
        Self { frozen, observed }
    }

    pub(super) fn none_frozen(&self) -> bool {
        self.frozen.is_empty()
    }

    /// All members in the group's order, and whether each is frozen.
    pub(super) fn order(&self) -> impl Iterator<Item = (&'a ObjectReference, bool)> + use<'a> {
        let frozen = self.frozen;
        frozen.order.iter().map(|member| (member, frozen.members.contains(member)))
    }

    /// Returns true if the resource that `has` looks for belongs to a frozen member, or has no known owner.
    fn keeps(&self, has: impl Fn(&MemberResources) -> bool) -> bool {
        let mut holders = self.observed.member_resources.iter().filter(|resources| has(resources)).peekable();
        !self.none_frozen()
            && (holders.peek().is_none() || holders.any(|resources| self.frozen.members.contains(&resources.member)))
    }

    /// Returns the frozen member in whose place a rule stays that no other member requests.
    pub(super) fn frozen_owner_of_rule(&self, rule: &RuleArn) -> Option<&'a ObjectReference> {
        match self.observed.member_resources.iter().find(|resources| resources.rules.contains(rule)) {
            Some(resources) => self.frozen.members.get(&resources.member),
            None => self.order().find(|(_, frozen)| *frozen).map(|(member, _)| member),
        }
    }

    /// The member that is remembered to have a rule.
    pub(super) fn holder_of_rule(&self, rule: &RuleArn) -> Option<&'a ObjectReference> {
        self.observed
            .member_resources
            .iter()
            .find(|resources| resources.rules.contains(rule))
            .map(|resources| &resources.member)
    }

    /// Returns true if a rule is remembered to be a frozen member's: then it is no other member's, however alike.
    pub(super) fn belongs_to_frozen(&self, rule: &RuleArn) -> bool {
        let mut frozen =
            self.observed.member_resources.iter().filter(|resources| self.frozen.members.contains(&resources.member));
        frozen.any(|resources| resources.rules.contains(rule))
    }

    /// Returns true if a listener stays. A rule without a remembered owner, which may be a frozen member's, keeps it too: what is
    /// remembered may be older than the rule.
    pub(super) fn listener(&self, port: u16) -> bool {
        let may_be_its = || self.observed.has_rule_without_owner(Some(port));
        self.keeps(|resources| resources.ports.contains_key(&port)) || !self.none_frozen() && may_be_its()
    }

    pub(super) fn certificate(&self, port: u16, certificate: &CertificateArn) -> bool {
        self.keeps(|resources| resources.ports.get(&port).is_some_and(|held| held.certificates.contains(certificate)))
    }

    /// Returns true if the default action stays, for which no other member asks.
    pub(super) fn default_action(&self, port: u16) -> bool {
        self.keeps(|resources| resources.ports.get(&port).is_some_and(|held| held.default_action))
    }

    /// Returns true if a target group belongs to a frozen member.
    pub(super) fn target_group(&self, resource: Option<&ResourceId>) -> bool {
        let of = |(member, service): &(ObjectReference, String)| {
            resource.is_some_and(|id| id.ingress(service).as_ref() == Some(member))
        };
        self.frozen.services.iter().any(of)
    }
}
