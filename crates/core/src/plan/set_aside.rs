//! What in AWS belongs to members of a group that are set aside, and so neither changes nor goes.
//!
//! Who has what is remembered from when nothing was left to do. What nobody is remembered to have (a process that has just
//! started without a record, or what was made for a member before AWS refused the rest of it) is kept too, as long as
//! somebody is set aside and nobody else asks for it.

use crate::model::{CertificateArn, Holding, ObjectName, ResourceId, RuleArn, SetAside};

/// Tells what is kept.
#[derive(Clone, Copy)]
pub(super) struct Keeping<'a> {
    set_aside: &'a SetAside,
    holdings: &'a [Holding],
}

impl<'a> Keeping<'a> {
    pub(super) fn new(set_aside: &'a SetAside, holdings: &'a [Holding]) -> Self {
        Self { set_aside, holdings }
    }

    pub(super) fn is_everybody_in(&self) -> bool {
        self.set_aside.is_empty()
    }

    /// All members in the group's order, and whether each is set aside.
    pub(super) fn order(&self) -> impl Iterator<Item = (&'a ObjectName, bool)> + use<'a> {
        let set_aside = self.set_aside;
        set_aside.order.iter().map(|member| (member, set_aside.members.contains(member)))
    }

    /// Whether the thing that `has` tells of belongs to somebody set aside, or to nobody who is known.
    fn keeps(&self, has: impl Fn(&Holding) -> bool) -> bool {
        let mut holders = self.holdings.iter().filter(|holding| has(holding)).peekable();
        !self.is_everybody_in()
            && (holders.peek().is_none() || holders.any(|holding| self.set_aside.members.contains(&holding.member)))
    }

    /// The member set aside in whose place a rule stays, which no other member asks for.
    pub(super) fn place_of_rule(&self, rule: &RuleArn) -> Option<&'a ObjectName> {
        match self.holdings.iter().find(|holding| holding.rules.contains(rule)) {
            Some(holding) => self.set_aside.members.get(&holding.member),
            None => self.order().find(|(_, aside)| *aside).map(|(member, _)| member),
        }
    }

    /// The member that is remembered to have a rule.
    pub(super) fn holder_of_rule(&self, rule: &RuleArn) -> Option<&'a ObjectName> {
        self.holdings.iter().find(|holding| holding.rules.contains(rule)).map(|holding| &holding.member)
    }

    /// Whether a rule is remembered to be of somebody set aside: then it is no other's, however alike.
    pub(super) fn is_taken(&self, rule: &RuleArn) -> bool {
        let mut aside = self.holdings.iter().filter(|holding| self.set_aside.members.contains(&holding.member));
        aside.any(|holding| holding.rules.contains(rule))
    }

    pub(super) fn listener(&self, port: u16) -> bool {
        self.keeps(|holding| holding.ports.contains_key(&port))
    }

    pub(super) fn certificate(&self, port: u16, certificate: &CertificateArn) -> bool {
        self.keeps(|holding| holding.ports.get(&port).is_some_and(|held| held.certificates.contains(certificate)))
    }

    /// Whether the default action stays, for which no other member asks.
    pub(super) fn default_action(&self, port: u16) -> bool {
        self.keeps(|holding| holding.ports.get(&port).is_some_and(|held| held.default_action))
    }

    /// Returns true if a target group is a member's that is set aside.
    pub(super) fn target_group(&self, resource: Option<&ResourceId>) -> bool {
        let of = |(member, service): &(ObjectName, String)| {
            resource.is_some_and(|id| id.ingress(service).as_ref() == Some(member))
        };
        self.set_aside.services.iter().any(of)
    }
}
