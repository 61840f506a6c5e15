//! The access to a load balancer, and its access to the targets (reference: ingress §6).

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Builder, Failed, Member, cause, member_spec::MemberSpec, merge::Unmerged, settings::Sourced};
use crate::{
    api::annotations::registry::ingress::{self as keys, merged},
    desired::shared::{
        self,
        security_groups::{self, GivenGroups, SecurityGroups, Unusable, WithoutShared},
    },
    diagnostics::{Code, Severity},
    facts::Fact,
    model::{
        ManagedSecurityGroup, ObjectName, ObjectReference, ResourceId, SecurityGroupId, SecurityGroupReference,
        SecurityGroupRule, Source, Tags, Value, names,
    },
    snapshot::Ingress,
};

const SECURITY_GROUPS: &str = keys::SECURITY_GROUPS.as_str();
const MANAGE_RULES: &str = keys::MANAGE_BACKEND_SECURITY_GROUP_RULES.as_str();

/// The security groups of a load balancer.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// In the order of the request.
    pub(super) security_groups: Vec<SecurityGroupReference>,
    /// The group that the security groups of nodes and pods allow; `None` where their rules are the user's.
    pub(super) backend_source: Option<SecurityGroupReference>,
}

impl Access {
    fn of(groups: SecurityGroups) -> Self {
        Self { security_groups: groups.all, backend_source: groups.source }
    }

    /// Returns true if the first group is the stack's own.
    pub(super) fn is_managed(&self) -> bool {
        self.security_groups.contains(&SecurityGroupReference::Managed)
    }
}

/// The port of a listener, opened to a source.
pub(super) fn open_to(port: u16, source: &Source) -> SecurityGroupRule {
    security_groups::rule("tcp", i32::from(port), i32::from(port), source.clone())
}

/// Returns address ranges and prefix lists as EC2 keeps them: a range without host bits, as only so it is found again.
fn sources(ranges: impl Iterator<Item = String>, lists: impl Iterator<Item = String>) -> Vec<Source> {
    let range = |range: IpNet| match range {
        IpNet::V4(range) => Source::Ipv4(range.trunc().to_string()),
        IpNet::V6(range) => Source::Ipv6(range.trunc().to_string()),
    };
    let mut sources: Vec<Source> = ranges.filter_map(|text| Some(range(text.parse().ok()?))).collect();
    sources.extend(lists.map(Source::PrefixList));
    let mut once = BTreeSet::new();
    sources.retain(|source| once.insert(source.clone()));
    sources
}

/// Returns the sources of a port for which no member names any.
pub(super) fn everywhere(has_ipv6: bool) -> Vec<Source> {
    let mut everywhere = vec![Source::Ipv4("0.0.0.0/0".to_owned())];
    everywhere.extend(has_ipv6.then(|| Source::Ipv6("::/0".to_owned())));
    everywhere
}

impl Member<'_> {
    /// Returns the sources that the member names, whatever else is wrong with it. `None` where they cannot be read.
    pub(super) fn named_sources(&self) -> Option<Vec<Source>> {
        let (ranges, lists) = (self.inbound_cidrs().ok()?, self.prefix_lists().ok()?);
        let values = |given: Option<Sourced<Vec<String>>>| given.into_iter().flat_map(|given| given.value);
        Some(sources(values(ranges), values(lists)))
    }
}

/// The security groups that a member names, whether rules to the targets are managed, and the allowed sources.
type RequestedAccess = (Option<Vec<String>>, Option<bool>, Option<Sourced<Vec<Source>>>);

impl<'a> Builder<'a> {
    /// Returns the access that one member requests.
    pub(super) fn requested_access(&mut self, member: Member<'a>) -> Result<RequestedAccess, Failed> {
        let Member { ingress, annotations, .. } = member;
        let given = self.value(ingress, None, annotations.string_list(keys::SECURITY_GROUPS));
        let manage = self.value(ingress, None, annotations.bool(keys::MANAGE_BACKEND_SECURITY_GROUP_RULES));
        let (given, manage) = (given?.filter(|given| !given.is_empty()), manage?);
        if given.is_none() {
            return Ok((None, manage, self.requested_sources(member)?));
        }
        for key in [keys::INBOUND_CIDRS, keys::SECURITY_GROUP_PREFIX_LISTS]
            .into_iter()
            .filter(|key| annotations.contains(*key))
        {
            let key = key.to_string();
            let message =
                format!("annotation `{key}` has no effect: the rules of the groups in `{SECURITY_GROUPS}` are yours");
            let fix = "put these sources into rules of those groups, or remove one of the two annotations";
            self.warning(ingress, Code::UnknownAnnotation, &key, &message, fix);
        }
        Ok((given, manage, None))
    }

    /// The security groups of the load balancer.
    pub(super) fn merge_access(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<Access, Unmerged> {
        let list = |names: &Vec<String>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let given = self.merge_exclusive(
            specs,
            merged::SECURITY_GROUPS,
            "the list of security groups",
            |spec| spec.security_groups.clone(),
            |observed, names| {
                let present = observed.load_balancers.first().map(|balancer| &balancer.security_groups);
                present.is_some_and(|present| names.iter().all(|name| present.iter().any(|id| id.as_str() == name)))
            },
            list,
        )?;
        let manage = self.merge_exclusive(
            specs,
            merged::MANAGE_BACKEND_SECURITY_GROUP_RULES,
            "whether rules to the targets are managed",
            |spec| spec.manage_backend_rules,
            |_, _| false,
            ToString::to_string,
        )?;
        let Some(given) = given else {
            return match self.current_access(frozen)? {
                Some(access) => Ok(access),
                None => self.managed_access(specs),
            };
        };
        let requesters = || specs.iter().filter(|spec| spec.security_groups.is_some()).map(|spec| spec.member.name());
        let requester = requesters().next().ok_or(Unmerged::Failed)?;
        let request = GivenGroups {
            object: ObjectReference::ingress(requester),
            names: given,
            field: SECURITY_GROUPS,
            manage,
            without_shared: WithoutShared {
                code: Code::InvalidValue,
                field: MANAGE_RULES,
                message: "the rules from given security groups to the targets need the shared backend security group, which `--enable-backend-security-group=false` turns off",
                fix: "turn the flag on, or set the annotation to `false` and keep the rules of nodes and pods yourself",
            },
            placeholders: 1,
        };
        security_groups::given(&mut self.sink, self.config, self.facts, request).map(Access::of).map_err(|unusable| {
            match unusable {
                Unusable::Request => Unmerged::Freeze(requesters().cloned().collect()),
                Unusable::Shared => Unmerged::Failed,
            }
        })
    }

    /// A group of the stack's own, and the shared one.
    fn managed_access(&mut self, specs: &[MemberSpec<'a>]) -> Result<Access, Unmerged> {
        let first = ObjectReference::ingress(specs.first().ok_or(Unmerged::Failed)?.member.name());
        Ok(Access::of(security_groups::managed(&mut self.sink, self.config, self.facts, first)?))
    }

    /// Returns the groups of the existing load balancer, if they are a user's and some members are frozen.
    fn current_access(&mut self, frozen: &BTreeSet<ObjectName>) -> Result<Option<Access>, Unmerged> {
        let Some(observed) = self.observed_if_frozen(frozen)? else { return Ok(None) };
        let Some(balancer) = observed.load_balancers.first() else { return Ok(None) };
        let managed = observed.security_groups.iter().any(|group| balancer.security_groups.contains(&group.id));
        if managed || balancer.security_groups.is_empty() {
            return Ok(None);
        }
        let shared = match (&self.config.backend_security_group, &self.facts.backend_security_group) {
            (Some(id), _) | (None, Some(Fact::Known(id))) => Some(id.clone()),
            _ => None,
        };
        let known = |id: &SecurityGroupId| Value::Known(id.clone());
        let (backend, given): (Vec<_>, Vec<_>) =
            balancer.security_groups.iter().partition(|id| shared.as_ref() == Some(*id));
        let backend_source = backend.first().map(|id| SecurityGroupReference::SharedBackend(known(id)));
        let given = given.into_iter().map(|id| SecurityGroupReference::Given(known(id)));
        Ok(Some(Access { security_groups: given.chain(backend_source.clone()).collect(), backend_source }))
    }

    /// The stack's own group.
    pub(super) fn managed_security_group(
        &self,
        ingress: &Ingress,
        rules: Vec<SecurityGroupRule>,
        user_tags: &Tags,
    ) -> ManagedSecurityGroup {
        ManagedSecurityGroup {
            name: self.named(|cluster| names::managed_security_group(cluster, self.group)),
            description: names::MANAGED_GROUP_DESCRIPTION,
            ingress: rules,
            tags: shared::tags::of_resource(self.config, self.group, &ResourceId::managed_security_group(), user_tags),
            cause: cause(ingress, "spec"),
        }
    }

    /// From where the load balancer may be reached, where address ranges or prefix lists are named.
    fn requested_sources(&mut self, member: Member<'a>) -> Result<Option<Sourced<Vec<Source>>>, Failed> {
        let Member { ingress, .. } = member;
        let ranges = self.value(ingress, None, member.inbound_cidrs());
        let lists = self.value(ingress, None, member.prefix_lists());
        let (ranges, lists) = (ranges?, lists?);
        if let Some(Sourced { value, place }) = &lists
            && let Some(list) = value.iter().find(|list| !list.starts_with("pl-"))
        {
            let message = format!("`{list}` is not the identifier of a prefix list");
            let fix = "write identifiers such as `pl-0123456789abcdef0`, separated by commas";
            return Err(self.wrong(ingress, Code::InvalidValue, place, Severity::Error, &message, fix));
        }
        let ranges = ranges.filter(|ranges| !ranges.value.is_empty());
        let lists = lists.filter(|lists| !lists.value.is_empty());
        let Some(place) = ranges.iter().map(|r| &r.place).chain(lists.iter().map(|l| &l.place)).next().cloned() else {
            return Ok(None);
        };
        let ranges = ranges.into_iter().flat_map(|ranges| ranges.value);
        let sources = sources(ranges, lists.into_iter().flat_map(|lists| lists.value));
        Ok(Some(Sourced { value: sources, place }))
    }

    /// Reports ranges that a load balancer without IPv6 addresses cannot allow. A member without others is frozen.
    pub(super) fn check_sources(&mut self, specs: &[MemberSpec<'a>]) -> Result<(), Unmerged> {
        let mut alone = BTreeSet::new();
        for spec in specs {
            let Some(Sourced { value, place }) = &spec.sources else { continue };
            let (six, others): (Vec<&Source>, Vec<&Source>) =
                value.iter().partition(|source| matches!(source, Source::Ipv6(_)));
            if six.is_empty() || self.ip_address_type.has_ipv6() {
                continue;
            }
            let six: Vec<String> = six.iter().map(|source| format!("`{source}`")).collect();
            let message =
                format!("the load balancer has only IPv4 addresses, so it takes no traffic from {}", six.join(", "));
            let (severity, fix) = if others.is_empty() {
                alone.insert(spec.member.name().clone());
                let fix = "name an IPv4 range too, or give the load balancer IPv6 addresses with `alb.ingress.kubernetes.io/ip-address-type: dualstack`";
                (Severity::Error, fix)
            } else {
                (Severity::Warning, "remove it, or keep it until the load balancer has IPv6 addresses")
            };
            self.wrong(spec.member.ingress, Code::InvalidValue, place, severity, &message, fix);
        }
        if alone.is_empty() { Ok(()) } else { Err(Unmerged::Freeze(alone)) }
    }

    /// Returns the sources that may reach a port: the requested ones of the load balancer's address families, or everywhere.
    pub(super) fn allowed_sources(&self, requested: Option<Vec<Source>>) -> Vec<Source> {
        let six = self.ip_address_type.has_ipv6();
        match requested {
            Some(mut sources) => {
                sources.retain(|source| six || !matches!(source, Source::Ipv6(_)));
                sources
            }
            None => everywhere(six),
        }
    }
}
