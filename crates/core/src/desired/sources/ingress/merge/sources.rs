//! The sources that can reach a port of a group (reference: ingress §4.2).

use std::collections::BTreeSet;

use super::{
    super::{Builder, member_spec::MemberSpec, settings::Sourced},
    Unmerged,
};
use crate::{
    api::annotations::registry::{group::ExclusivePerPort, ingress::merged},
    diagnostics::{Code, Severity},
    model::{ObjectName, ObservedStack, Source},
};

/// The sources of a port that members name, `None` if no member names any: address ranges and prefix lists.
pub(super) struct NamedSources {
    ranges: Option<BTreeSet<Source>>,
    lists: Option<BTreeSet<Source>>,
}

impl<'a> Builder<'a> {
    /// Returns the sources of a port, on which the members that name any must agree. Ranges and prefix lists are
    /// compared separately.
    pub(super) fn merge_sources(&mut self, specs: &[MemberSpec<'a>], port: u16) -> Result<NamedSources, Unmerged> {
        let ranges = self.merge_sources_of(specs, port, merged::INBOUND_CIDRS, |source| !is_list(source))?;
        let lists = self.merge_sources_of(specs, port, merged::SECURITY_GROUP_PREFIX_LISTS, is_list)?;
        Ok(NamedSources { ranges, lists })
    }

    fn merge_sources_of(
        &mut self,
        specs: &[MemberSpec<'a>],
        port: u16,
        key: ExclusivePerPort,
        of_field: impl Fn(&Source) -> bool,
    ) -> Result<Option<BTreeSet<Source>>, Unmerged> {
        self.merge_on_port(
            specs,
            (key, port),
            &format!("the access to port {port}"),
            |spec| {
                let sources = spec.ports.get(&port)?.sources.iter().flatten();
                let sources: BTreeSet<Source> = sources.filter(|source| of_field(source)).cloned().collect();
                Some(sources).filter(|sources| !sources.is_empty())
            },
            |observed, sources| {
                open(observed, port).into_iter().filter(|source| of_field(source)).collect::<BTreeSet<_>>() == *sources
            },
            |sources| sources.iter().map(|source| format!("`{source}`")).collect::<Vec<_>>().join(", "),
        )
    }

    /// Returns the sources of a port: the ones that members name, and the ones that AWS allows and frozen members may
    /// request. `None` means everywhere.
    ///
    /// If a member that is not frozen names sources, only observed sources that a frozen member may request are kept.
    pub(super) fn with_retained_sources(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
        port: u16,
        requested: NamedSources,
    ) -> Result<Option<Vec<Source>>, Unmerged> {
        let NamedSources { ranges, lists } = requested;
        let retained = self.observed_if_frozen(frozen)?;
        let said = ranges.is_some() || lists.is_some();
        let named: Option<Vec<Vec<Source>>> =
            self.frozen_members(frozen).map(|member| member.and_then(|member| member.named_sources())).collect();
        let may_be_asked = |source: &Source| match &named {
            Some(named) => named.iter().flatten().any(|requested| requested == source),
            None => !is_everywhere(source),
        };
        let retained_sources = |lists: bool| {
            let open = retained.map(|observed| open(observed, port)).unwrap_or_default();
            let stays = |source: &Source| is_list(source) == lists && (!said || may_be_asked(source));
            let sources: BTreeSet<Source> = open.into_iter().filter(stays).collect();
            Some(sources).filter(|sources| !sources.is_empty())
        };
        let (retained_ranges, retained_lists) = (retained_sources(false), retained_sources(true));
        let other_sources: BTreeSet<Source> = match (&ranges, &lists) {
            (Some(_), None) => retained_lists.clone().unwrap_or_default(),
            (None, Some(_)) => retained_ranges.clone().unwrap_or_default(),
            _ => BTreeSet::new(),
        };
        let (ranges, lists) = (ranges.or(retained_ranges), lists.or(retained_lists));
        self.warn_of_retained_sources(specs, frozen, port, &other_sources);
        if ranges.is_none() && lists.is_none() {
            return Ok(None);
        }
        let all: BTreeSet<Source> = ranges.into_iter().chain(lists).flatten().collect();
        // In the order in which members write them.
        let requested = specs.iter().filter_map(|spec| spec.ports.get(&port)?.sources.as_ref()).flatten();
        let mut ordered: Vec<Source> = Vec::new();
        for source in requested.chain(&all).filter(|source| all.contains(source)) {
            if !ordered.contains(source) {
                ordered.push(source.clone());
            }
        }
        Ok(Some(ordered))
    }

    /// Warns members that restrict the sources of a port about other sources, which stay allowed as long as a frozen
    /// member may request them.
    fn warn_of_retained_sources(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
        port: u16,
        other_sources: &BTreeSet<Source>,
    ) {
        if other_sources.is_empty() {
            return;
        }
        let list = |items: Vec<String>| items.join(", ");
        let message = format!(
            "port {port} also stays open to {}, because these members of the group have errors and may request that: {}",
            list(other_sources.iter().map(|source| format!("`{source}`")).collect()),
            list(frozen.iter().map(|member| format!("Ingress {member}")).collect())
        );
        let fix = "fix those errors; then the port is open only to the sources that members request";
        for spec in specs.iter().filter(|spec| spec.ports.contains_key(&port)) {
            let Some(Sourced { place, .. }) = &spec.sources else { continue };
            self.wrong(spec.member.ingress, Code::Conflict, place, Severity::Warning, &message, fix);
        }
    }
}

pub(in super::super) fn is_list(source: &Source) -> bool {
    matches!(source, Source::PrefixList(_))
}

/// Returns true if the source is a range of all addresses.
pub(in super::super) fn is_everywhere(source: &Source) -> bool {
    matches!(source, Source::Ipv4(range) | Source::Ipv6(range) if range.ends_with("/0"))
}

/// Returns the sources that can reach a port of the load balancer, by the rules of its own security group.
pub(in super::super) fn open(observed: &ObservedStack, port: u16) -> BTreeSet<Source> {
    let rules = observed.security_groups.first().into_iter().flat_map(|group| &group.ingress);
    rules.filter(|rule| rule.from_port == Some(i32::from(port))).map(|rule| rule.source.clone()).collect()
}
