//! The group's load balancer (reference: ingress §5).

use std::collections::BTreeSet;

use super::{
    Builder, Failed, cause,
    merge::{Merged, Setting, Unmerged},
    part::Part,
};
use crate::{
    build::{Code, names, tags},
    facts::{SubnetQuery, Want},
    model::{
        Attributes, Cause, IpAddressType, LoadBalancer, LoadBalancerKind, LoadBalancerName, ObjectReference,
        ResourceId, Scheme, SecurityGroupReference, Stack, SubnetMapping, Tags, Value,
    },
};

impl<'a> Builder<'a> {
    /// The load balancer, without security groups.
    pub(super) fn load_balancer(
        &mut self,
        parts: &[Part<'a>],
        merged: &mut Merged,
        user_tags: &Tags,
    ) -> Result<LoadBalancer, Failed> {
        let first = parts.first().ok_or(Failed)?.member.ingress;
        let name = match merged.name.take() {
            Some(name) => Value::Known(name),
            None => match self.named(|cluster| names::load_balancer(cluster, self.group, merged.scheme)) {
                Value::Known(Ok(name)) => Value::Known(name),
                Value::Known(Err(invalid)) => {
                    let fix = "name it with the annotation `alb.ingress.kubernetes.io/load-balancer-name`";
                    let message = invalid.to_string();
                    return Err(self.error(&first.name, Code::InvalidValue, "metadata.name", &message, fix));
                }
                Value::AfterApply(why) => Value::AfterApply(why),
            },
        };
        let (attributes, attribute_causes) = std::mem::take(&mut merged.attributes);
        Ok(LoadBalancer {
            kind: LoadBalancerKind::Application,
            name,
            scheme: merged.scheme,
            ip_address_type: IpAddressType::Ipv4,
            subnets: merged.subnets.clone(),
            security_groups: Vec::new(),
            attributes,
            attribute_causes,
            tags: tags::of_resource(
                &self.config.cluster,
                self.group,
                &ResourceId(tags::LOAD_BALANCER.to_owned()),
                &self.config.default_tags,
                user_tags,
            ),
            cause: cause(first, "spec"),
        })
    }

    pub(super) fn merge_subnets(
        &mut self,
        parts: &[Part<'a>],
        scheme: Scheme,
    ) -> Result<Value<Vec<SubnetMapping>>, Unmerged> {
        let names = self.agree(
            parts,
            &Setting { field: "subnets", what: "the list of subnets" },
            |part| Some(part.subnets.as_ref()?.iter().cloned().collect::<BTreeSet<String>>()),
            |observed, names| {
                let present = observed.load_balancers.first().map(|balancer| &balancer.subnets);
                present.is_some_and(|p| p.iter().map(|id| id.as_str()).eq(names.iter().map(String::as_str)))
            },
            |names| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        )?;
        let asker = parts.iter().find(|part| part.subnets.is_some());
        // All have the same, and the first says in which order.
        let names = names.and(asker).and_then(|part| part.subnets.clone());
        let blamed = asker.or(parts.first()).ok_or(Unmerged::Failed)?;
        let (blamed, key) = (blamed.member.name(), "alb.ingress.kubernetes.io/scheme");
        if let Some(incumbent) = &self.facts.incumbent {
            if incumbent.scheme != scheme {
                let message = format!(
                    "the load balancer is {} and AWS cannot make it {scheme} in place; replacing it without dropping requests is not built yet",
                    incumbent.scheme
                );
                let fix = "leave the scheme as it is, and make a second Ingress with the new scheme; delete this one when clients have moved";
                let askers = parts.iter().filter(|part| part.scheme == Some(scheme));
                let mut askers: BTreeSet<_> = askers.map(|part| part.member.name().clone()).collect();
                if askers.is_empty() {
                    askers.extend(parts.iter().map(|part| part.member.name().clone()));
                }
                for asker in &askers {
                    self.error(asker, Code::ReplacementNeeded, key, &message, fix);
                }
                return Err(Unmerged::SetAside(askers));
            }
            if names.is_none() {
                return Ok(Value::Known(incumbent.subnets.iter().cloned().map(SubnetMapping::plain).collect()));
            }
        }
        let kind = LoadBalancerKind::Application;
        let (query, key, of_all) = match names {
            Some(names) => (SubnetQuery::Named { kind, names }, "alb.ingress.kubernetes.io/subnets", false),
            None => (SubnetQuery::Discovered { kind, scheme }, key, true),
        };
        let fact = self.facts.subnets(&query);
        let object = ObjectReference::ingress(blamed);
        match self.findings.settle(fact, Want::Subnets(query), object, Code::Subnets, key) {
            Ok(Value::Known(found)) => {
                Ok(Value::Known(found.into_iter().map(|s| SubnetMapping::plain(s.id)).collect()))
            }
            Ok(Value::AfterApply(why)) => Ok(Value::AfterApply(why)),
            Err(Failed) if of_all => Err(Unmerged::Failed),
            Err(Failed) => {
                let askers = parts.iter().filter(|part| part.subnets.is_some());
                Err(Unmerged::SetAside(askers.map(|part| part.member.name().clone()).collect()))
            }
        }
    }

    /// Where everybody who stays is set aside, and somebody leaves: the load balancer as it is.
    pub(super) fn stack_of_nobody(&mut self) -> Option<Stack> {
        let Ok(in_force) = self.in_force() else { return None };
        let empty = Stack::empty(self.group.clone());
        let Some(balancer) = in_force.and_then(|observed| observed.load_balancers.first()) else { return Some(empty) };
        let given = |id: &crate::model::SecurityGroupId| SecurityGroupReference::Given(Value::Known(id.clone()));
        Some(Stack {
            load_balancer: Some(LoadBalancer {
                kind: balancer.kind,
                name: match LoadBalancerName::new(balancer.name.clone()) {
                    Ok(name) => Value::Known(name),
                    Err(_) => Value::AfterApply("it has its name"),
                },
                scheme: balancer.scheme,
                ip_address_type: IpAddressType::Ipv4,
                subnets: Value::Known(balancer.subnets.iter().cloned().map(SubnetMapping::plain).collect()),
                security_groups: balancer.security_groups.iter().map(given).collect(),
                attributes: Attributes::new(),
                attribute_causes: std::collections::BTreeMap::new(),
                tags: Tags::new(),
                cause: Cause { object: self.group.object(), generation: 0, field: "metadata".to_owned() },
            }),
            ..empty
        })
    }
}
