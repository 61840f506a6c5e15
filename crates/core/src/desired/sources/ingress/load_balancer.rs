//! The group's load balancer (reference: ingress §5).

use std::collections::BTreeSet;

use super::{
    Builder, Failed, cause,
    member_spec::MemberSpec,
    merge::{Merged, Unmerged},
    settings::{FieldRef, Sourced, SubnetSelection},
};
use crate::{
    api::annotations::registry::ingress::{self as keys, merged as merged_keys},
    desired::shared::{
        self,
        subnets::{self, Unchosen},
    },
    diagnostics::{Code, Severity},
    facts::{Fact, FactQuery, SubnetQuery},
    model::{
        AddOns, AddressPools, Attributes, Cause, IpamPoolId, LoadBalancer, LoadBalancerKind, LoadBalancerName,
        NetworkSettings, ObjectName, ObjectReference, ResourceId, Scheme, SecurityGroupReference, Stack, SubnetId,
        SubnetMapping, Tags, Value, names,
    },
};

impl<'a> Builder<'a> {
    /// The load balancer, without security groups.
    pub(super) fn load_balancer(
        &mut self,
        specs: &[MemberSpec<'a>],
        merged: &mut Merged,
        user_tags: &Tags,
    ) -> Result<LoadBalancer, Failed> {
        let first = specs.first().ok_or(Failed)?.member.ingress;
        let name = match merged.name.take() {
            Some(name) => Value::Known(name),
            None => {
                let name = self.named(|cluster| names::load_balancer(cluster, self.group, merged.scheme));
                shared::names::valid(name).map_err(|invalid| {
                    let fix = "name it with the annotation `alb.ingress.kubernetes.io/load-balancer-name`";
                    let message = invalid.to_string();
                    self.error(&first.name, Code::InvalidValue, "metadata.name", &message, fix)
                })?
            }
        };
        let (attributes, attribute_causes) = std::mem::take(&mut merged.attributes);
        Ok(LoadBalancer {
            kind: LoadBalancerKind::Application,
            name,
            scheme: merged.scheme,
            ip_address_type: self.ip_address_type,
            network: NetworkSettings::default(),
            pools: merged.pools.clone(),
            subnets: merged.subnets.clone(),
            security_groups: Vec::new(),
            attributes,
            attribute_causes,
            add_ons: std::mem::take(&mut merged.add_ons),
            tags: shared::tags::of_resource(self.config, self.group, &ResourceId::load_balancer(), user_tags),
            cause: cause(first, "spec"),
        })
    }

    pub(super) fn merge_subnets(
        &mut self,
        specs: &[MemberSpec<'a>],
        scheme: Scheme,
    ) -> Result<Value<Vec<SubnetMapping>>, Unmerged> {
        // A list of an annotation has no order to agree on; a class is not an annotation, even where both say the same.
        let selected = self.merge_exclusive(
            specs,
            merged_keys::SUBNETS,
            "the list of subnets",
            |spec| {
                let given = spec.subnets.as_ref()?;
                let of_class = spec.member.place_in_class(keys::SUBNETS).is_some();
                let mut selection = given.value.clone();
                if let (SubnetSelection::Named(names), false) = (&mut selection, of_class) {
                    names.sort();
                }
                Some((of_class, selection))
            },
            |observed, (_, selection)| {
                let present = observed.load_balancers.iter().map(|balancer| &balancer.subnets);
                let same = |names: &Vec<String>| {
                    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
                    present.clone().any(|p| p.iter().map(SubnetId::as_str).eq(names.iter().copied()))
                };
                matches!(selection, SubnetSelection::Named(names) if same(names))
            },
            |(_, selection)| selection.to_string(),
        )?;
        let requester = specs.iter().find(|spec| spec.subnets.is_some());
        // All have the same, and the first says in which order.
        let selected = selected.and(requester).and_then(|spec| spec.subnets.clone());
        let blamed = requester.or(specs.first()).ok_or(Unmerged::Failed)?.member.ingress;
        let (kind, ipv6) = (LoadBalancerKind::Application, self.ip_address_type.has_ipv6());
        let of_all = selected.is_none();
        let (query, place) = match selected {
            Some(Sourced { value: SubnetSelection::Named(names), place }) => {
                (SubnetQuery::Named { kind, names, ipv6 }, place)
            }
            Some(Sourced { value: SubnetSelection::Tagged(tags), place }) => {
                (SubnetQuery::Tagged { kind, tags, ipv6 }, place)
            }
            // They are kept, but whether they can have IPv6 addresses is reported here, and not by AWS.
            None => match subnets::unchosen(self.facts, kind, scheme, ipv6, ipv6) {
                Unchosen::Checked(query) => (query, FieldRef::annotation(blamed, keys::IP_ADDRESS_TYPE)),
                Unchosen::Discovered(query) => (query, FieldRef::annotation(blamed, keys::SCHEME)),
                Unchosen::Kept(kept) => {
                    return Ok(Value::Known(kept.iter().cloned().map(SubnetMapping::plain).collect()));
                }
            },
        };
        let fact = self.facts.subnets(&query);
        let object = ObjectReference::ingress(&blamed.name);
        let of_class = place.object != object;
        let requesters = || {
            let requesters = specs.iter().filter(|spec| spec.subnets.is_some()).map(|spec| spec.member.name().clone());
            Unmerged::Freeze(requesters.collect())
        };
        if let (true, Some(Fact::Absent { message, fix })) = (of_class, &fact) {
            self.sink.lacking = true;
            self.wrong(blamed, Code::Subnets, &place, Severity::Error, message, fix);
            return Err(requesters());
        }
        match self.sink.resolve(fact, FactQuery::Subnets(query), object, Code::Subnets, &place.field) {
            Ok(Value::Known(found)) => {
                Ok(Value::Known(found.into_iter().map(|s| SubnetMapping::plain(s.id)).collect()))
            }
            Ok(Value::AfterApply(why)) => Ok(Value::AfterApply(why)),
            Err(Failed) if of_all => Err(Unmerged::Failed),
            Err(Failed) => Err(requesters()),
        }
    }

    /// Refuses a change of the scheme at the cost of a member: a frozen member keeps its resources on the load
    /// balancer, and two cannot have one name while one takes over from the other.
    pub(super) fn check_replacement(
        &mut self,
        specs: &[MemberSpec<'a>],
        scheme: Scheme,
        name: Option<&LoadBalancerName>,
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<(), Unmerged> {
        if subnets::replaced_by(self.facts, scheme).is_none() {
            return Ok(());
        }
        let mut to_freeze = BTreeSet::new();
        if let Some(name) = name.filter(|name| self.facts.names.contains(name.as_str())) {
            let message = format!(
                "the scheme becomes {scheme}, which needs another load balancer, and two cannot have the name `{name}` while one takes over from the other"
            );
            let fix = "give it another name too, or leave the scheme as it is";
            for (spec, given) in specs.iter().filter_map(|spec| Some((spec, spec.name.as_ref()?))) {
                let (ingress, place) = (spec.member.ingress, &given.place);
                self.wrong(ingress, Code::ReplacementNeeded, place, Severity::Error, &message, fix);
                to_freeze.insert(ingress.name.clone());
            }
        } else if let Some(kept) = frozen.first() {
            let message = format!(
                "the scheme becomes {scheme}, which needs another load balancer, and that would lack the resources of Ingress {kept}, which cannot be built at the moment"
            );
            let fix = "wait until that is fixed; until then nothing of this Ingress changes";
            for spec in specs.iter().filter(|spec| spec.scheme == Some(scheme)) {
                let place = FieldRef::annotation(spec.member.ingress, keys::SCHEME);
                let place = spec.member.place_in_class(keys::SCHEME).unwrap_or(place);
                self.wrong(spec.member.ingress, Code::ReplacementNeeded, &place, Severity::Error, &message, fix);
                to_freeze.insert(spec.member.name().clone());
            }
        }
        if to_freeze.is_empty() { Ok(()) } else { Err(Unmerged::Freeze(to_freeze)) }
    }

    /// Returns the load balancer unchanged, where all remaining members are frozen and another leaves.
    pub(super) fn retain_existing(&mut self) -> Option<Stack> {
        let Ok(current) = self.current() else { return None };
        let empty = Stack::empty(self.group.clone());
        let Some(balancer) = current.and_then(|observed| observed.load_balancers.first()) else { return Some(empty) };
        let given = |id: &crate::model::SecurityGroupId| SecurityGroupReference::Given(Value::Known(id.clone()));
        Some(Stack {
            load_balancer: Some(LoadBalancer {
                kind: balancer.kind,
                name: match LoadBalancerName::new(balancer.name.clone()) {
                    Ok(name) => Value::Known(name),
                    Err(_) => Value::AfterApply("it has its name"),
                },
                scheme: balancer.scheme,
                ip_address_type: balancer.ip_address_type,
                network: NetworkSettings::default(),
                pools: AddressPools {
                    ipam: balancer.pools.ipam.clone().map(IpamPoolId::known),
                    ..AddressPools::default()
                },
                subnets: Value::Known(balancer.subnets.iter().cloned().map(SubnetMapping::plain).collect()),
                security_groups: balancer.security_groups.iter().map(given).collect(),
                attributes: Attributes::new(),
                attribute_causes: std::collections::BTreeMap::new(),
                add_ons: AddOns::default(),
                tags: Tags::new(),
                cause: Cause { object: self.group.object(), generation: 0, field: "metadata".to_owned() },
            }),
            ..empty
        })
    }
}
