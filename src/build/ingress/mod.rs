//! A group of Ingresses, built into the stack that AWS shall have.

mod access;
mod backend;
pub mod class;
mod group;
mod listeners;
mod optimise;
mod rules;
mod target_group;

#[cfg(test)]
mod tests;

use indexmap::IndexMap;

pub use self::group::{Membership, groups_of, membership};
use super::{
    BuildConfig, Built, Code, Severity,
    findings::{Failed, Findings},
    names, tags,
};
use crate::{
    api::annotations::{self, AnnotationError, Annotations, Origin},
    facts::{Facts, SubnetQuery, Want},
    model::{
        Cause, IpAddressType, LoadBalancer, LoadBalancerKind, LoadBalancerName, ObjectName, ObjectReference,
        ResourceId, Scheme, SecurityGroupId, SecurityGroupReference, Stack, StackId, SubnetMapping, Tags, TargetGroup,
        Value,
    },
    snapshot::{Ingress, Service, Snapshot},
};

/// Builds the stack of a group from its members. A group without members gives an empty stack: everything goes. Members
/// that are not in the snapshot give none: who belongs to the group has to be asked again, and nobody's going is proved.
#[must_use]
pub fn build(
    snapshot: &Snapshot,
    config: &BuildConfig,
    facts: &Facts,
    group: &StackId,
    members: &[ObjectName],
) -> Built {
    let mut builder = Builder {
        snapshot,
        config,
        facts,
        group,
        findings: Findings::default(),
        target_groups: IndexMap::new(),
        backend_source: None,
    };
    let ingresses: Vec<&Ingress> = members.iter().filter_map(|name| snapshot.ingresses.get(name)).collect();
    let stack = match ingresses.as_slice() {
        present if present.len() < members.len() => None,
        [] => Some(Stack::empty(group.clone())),
        [ingress] => builder.stack(ingress),
        [_, more, ..] => {
            builder.error(&more.name, Code::Refused, "alb.ingress.kubernetes.io/group.name", NO_GROUPS, NO_GROUPS_FIX);
            None
        }
    };
    builder.findings.built(stack)
}

const NO_GROUPS: &str = "groups of Ingresses are not built yet";
const NO_GROUPS_FIX: &str = "remove the annotation to give this Ingress a load balancer of its own";

const SUBNETS: &str = "alb.ingress.kubernetes.io/subnets";

struct Builder<'a> {
    snapshot: &'a Snapshot,
    config: &'a BuildConfig,
    facts: &'a Facts,
    group: &'a StackId,
    findings: Findings,
    target_groups: IndexMap<ResourceId, TargetGroup>,
    /// Whom the targets let in; `None` where their rules are the user's.
    backend_source: Option<SecurityGroupReference>,
}

impl<'a> Builder<'a> {
    fn stack(&mut self, ingress: &'a Ingress) -> Option<Stack> {
        self.check_annotations(ingress);
        let member = Member::of(ingress);
        let access = self.access(member);
        let sources = match &access {
            Ok(access) if !access.is_managed() => Ok(Vec::new()),
            _ => self.inbound_sources(member),
        };
        self.backend_source = access.as_ref().ok().and_then(|access| access.backend_source.clone());
        let load_balancer = self.load_balancer(member);
        let listeners = self.listeners(member);
        let (access, sources) = (access.ok()?, sources.ok()?);
        let (mut load_balancer, listeners) = (load_balancer.ok()?, listeners.ok()?);
        let user_tags = self.user_tags(member, None).ok()?;
        load_balancer.tags = tags::of_resource(
            &self.config.cluster,
            self.group,
            &ResourceId(tags::LOAD_BALANCER.to_owned()),
            &self.config.default_tags,
            &user_tags,
        );
        let security_group = access
            .is_managed()
            .then(|| self.managed_security_group(ingress, listeners.keys().copied(), &sources, &user_tags));
        load_balancer.security_groups = access.security_groups;
        Some(Stack {
            id: self.group.clone(),
            security_group,
            load_balancer: Some(load_balancer),
            target_groups: std::mem::take(&mut self.target_groups),
            listeners,
        })
    }

    /// A name that is hashed from the cluster's.
    fn named<T>(&self, name: impl FnOnce(&str) -> T) -> Value<T> {
        if self.config.cluster.is_empty() {
            Value::AfterApply("named after the cluster, see --cluster-name")
        } else {
            Value::Known(name(&self.config.cluster))
        }
    }

    fn check_annotations(&mut self, ingress: &Ingress) {
        let object = ObjectReference::ingress(&ingress.name);
        self.findings.check_annotations(&object, annotations::ObjectKind::Ingress, &ingress.annotations);
    }

    fn load_balancer(&mut self, member: Member<'a>) -> Result<LoadBalancer, Failed> {
        let Member { ingress, annotations, .. } = member;
        let scheme_word = self.value(ingress, None, annotations.enumerated("scheme", Scheme::WORDS));
        let name = self.value(ingress, None, annotations.string("load-balancer-name"));
        let given_name = name.and_then(|name| {
            name.map(LoadBalancerName::new).transpose().map_err(|invalid| {
                let key = "alb.ingress.kubernetes.io/load-balancer-name";
                let message = invalid.to_string();
                self.error(&ingress.name, Code::InvalidValue, key, &message, "choose another name")
            })
        });
        let scheme = scheme_word.map(|word| word.and_then(Scheme::from_word).unwrap_or(self.config.default_scheme));
        let subnets = scheme.and_then(|scheme| Ok((scheme, self.subnets(member, scheme)?)));
        let attributes = self.value(ingress, None, annotations.string_map("load-balancer-attributes"));
        let (scheme, subnets) = subnets?;
        let name = match given_name? {
            Some(name) => Value::Known(name),
            None => match self.named(|cluster| names::load_balancer(cluster, self.group, scheme)) {
                Value::Known(Ok(name)) => Value::Known(name),
                Value::Known(Err(invalid)) => {
                    let fix = "name it with the annotation `alb.ingress.kubernetes.io/load-balancer-name`";
                    return Err(self.error(
                        &ingress.name,
                        Code::InvalidValue,
                        "metadata.name",
                        &invalid.to_string(),
                        fix,
                    ));
                }
                Value::AfterApply(why) => Value::AfterApply(why),
            },
        };
        Ok(LoadBalancer {
            kind: LoadBalancerKind::Application,
            name,
            scheme,
            ip_address_type: IpAddressType::Ipv4,
            subnets,
            security_groups: Vec::new(),
            attributes: attributes?.unwrap_or_default(),
            tags: Tags::new(),
            cause: cause(ingress, "spec"),
        })
    }

    fn subnets(&mut self, member: Member<'a>, scheme: Scheme) -> Result<Value<Vec<SubnetMapping>>, Failed> {
        let Member { ingress, annotations, .. } = member;
        let key = "alb.ingress.kubernetes.io/scheme";
        let names = self.value(ingress, None, annotations.string_list("subnets"))?;
        if let Some(incumbent) = &self.facts.incumbent {
            if incumbent.scheme != scheme {
                let message = format!(
                    "the load balancer is {} and AWS cannot make it {scheme} in place; replacing it without dropping requests is not built yet",
                    incumbent.scheme
                );
                let fix = "leave the scheme as it is, and make a second Ingress with the new scheme; delete this one when clients have moved";
                return Err(self.error(&ingress.name, Code::ReplacementNeeded, key, &message, fix));
            }
            if names.is_none() {
                return Ok(Value::Known(incumbent.subnets.iter().cloned().map(SubnetMapping::plain).collect()));
            }
        }
        let kind = LoadBalancerKind::Application;
        let (query, key) = match names {
            Some(names) if names.is_empty() => {
                let fix = "name subnets by identifier or `Name` tag, or remove the annotation to have them found by their tags";
                return Err(self.error(&ingress.name, Code::Subnets, SUBNETS, "the list of subnets is empty", fix));
            }
            Some(names) => (SubnetQuery::Named { kind, names }, SUBNETS),
            None => (SubnetQuery::Discovered { kind, scheme }, key),
        };
        let fact = self.facts.subnets(&query);
        let object = ObjectReference::ingress(&ingress.name);
        Ok(match self.findings.settle(fact, Want::Subnets(query), object, Code::Subnets, key)? {
            Value::Known(found) => Value::Known(found.into_iter().map(|s| SubnetMapping::plain(s.id)).collect()),
            Value::AfterApply(why) => Value::AfterApply(why),
        })
    }

    fn backend_security_group(&mut self, ingress: &Ingress) -> Result<Value<SecurityGroupId>, Failed> {
        if let Some(id) = &self.config.backend_security_group {
            return Ok(Value::Known(id.clone()));
        }
        let fact = self.facts.backend_security_group();
        let object = ObjectReference::ingress(&ingress.name);
        self.findings.settle(fact, Want::BackendSecurityGroup, object, Code::Unsupported, "spec")
    }

    /// The tags that users ask for: the Service's win over the Ingress'.
    fn user_tags(&mut self, member: Member<'a>, service: Option<&Service>) -> Result<Tags, Failed> {
        let Member { ingress, .. } = member;
        let annotations = member.layered(service);
        let user = self.value(ingress, service, annotations.merged_string_map("tags"))?.unwrap_or_default();
        let external: Vec<&String> =
            user.keys().filter(|key| self.config.external_managed_tags.contains(*key)).collect();
        if let Some(key) = external.first() {
            let message = format!("the tag `{key}` is managed outside of the cluster (--external-managed-tags)");
            let on_ingress = Annotations::of_ingress(&ingress.annotations).string_map("tags").ok().flatten();
            let object = match service {
                Some(service) if !on_ingress.is_some_and(|tags| tags.contains_key(*key)) => {
                    ObjectReference::service(&service.name)
                }
                _ => ObjectReference::ingress(&ingress.name),
            };
            let fix = "remove it from the annotation";
            return Err(self.findings.found(
                Severity::Error,
                object,
                Code::InvalidValue,
                "alb.ingress.kubernetes.io/tags",
                &message,
                fix,
            ));
        }
        Ok(user)
    }

    /// The value of an annotation, or the diagnostic of what is wrong with it.
    fn value<T>(
        &mut self,
        ingress: &Ingress,
        service: Option<&Service>,
        read: Result<T, AnnotationError>,
    ) -> Result<T, Failed> {
        read.map_err(|error| {
            let object = match (error.origin, service) {
                (Origin::Service, Some(service)) => ObjectReference::service(&service.name),
                _ => ObjectReference::ingress(&ingress.name),
            };
            self.findings.annotation_error(object, &error)
        })
    }

    fn error(&mut self, ingress: &ObjectName, code: Code, field: &str, message: &str, fix: &str) -> Failed {
        self.findings.found(Severity::Error, ObjectReference::ingress(ingress), code, field, message, fix)
    }
}

/// A member of the group: an Ingress, and what its annotations say.
#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    ingress: &'a Ingress,
    annotations: Annotations<'a>,
}

impl<'a> Member<'a> {
    fn of(ingress: &'a Ingress) -> Self {
        Self { ingress, annotations: Annotations::of_ingress(&ingress.annotations) }
    }

    /// Its annotations, with a Service's over them.
    fn layered<'b>(&self, service: Option<&'b Service>) -> Annotations<'b>
    where
        'a: 'b,
    {
        match service {
            Some(service) => Annotations::of_service_over_ingress(&service.annotations, &self.ingress.annotations),
            None => self.annotations,
        }
    }
}

fn cause(ingress: &Ingress, field: impl Into<String>) -> Cause {
    Cause { object: ObjectReference::ingress(&ingress.name), generation: ingress.generation, field: field.into() }
}
