//! A group of Ingresses, built into its desired stack.
//!
//! Each member is built on its own ([`member_spec`], [`routes`]); then the specs are merged ([`merge`]). A member whose spec
//! cannot be built, or that requests another setting than the group has, is frozen: the stack leaves it out, and its AWS
//! resources stay as they are.

mod access;
mod addresses;
mod authentication;
mod backend;
mod certificates;
pub mod class;
mod conditions;
mod forward;
mod frontend;
mod group;
mod listeners;
mod load_balancer;
mod managed_certificates;
mod member_spec;
mod merge;
mod mutual_authentication;
mod optimise;
mod quota;
mod requesters;
mod routes;
mod rules;
mod settings;
mod split;
mod target_group;

#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeSet;

use indexmap::IndexMap;

pub(in crate::desired) use self::group::{is_ours, memberships};
pub use self::{
    class::params_of,
    group::{groups_of, has_left, is_held, membership},
};
use crate::{
    api::annotations::{AnnotationError, Annotations, Key, NamesInAction, Origin, registry::ingress as keys},
    facts::{FactQuery, Facts},
    model::{
        Cause, DesiredCertificates, FrozenMembers, IpAddressType, MemberResources, ObjectName, ObjectReference,
        ResourceId, Scheme, SecurityGroupReference, Stack, StackId, TargetGroup, Value,
    },
    snapshot::{Backend, Ingress, IngressClassParams, Service, Snapshot, in_namespace},
};
use crate::{
    desired::{
        BuildConfig, Built, Membership,
        diagnostic_sink::{DiagnosticSink, Failed, protected_in_aws},
        shared,
    },
    diagnostics::{Code, Severity},
};

/// Returns the mistakes within IngressClassParams by themselves: field, message, and fix.
#[must_use]
pub fn params_mistakes(spec: &crate::api::crd::IngressClassParamsSpec) -> Vec<(String, String, String)> {
    settings::mistakes(spec)
}

/// Builds the stack of a group. A group without members gives an empty stack: everything goes. Members
/// that are not in the snapshot give none: the membership has to be read again, and no deletion is proved.
#[must_use]
pub fn build(
    snapshot: &Snapshot,
    config: &BuildConfig,
    facts: &Facts,
    group: &StackId,
    membership: &Membership,
) -> Built {
    let mut builder = Builder {
        snapshot,
        config,
        facts,
        group,
        sink: DiagnosticSink::default(),
        members: Vec::new(),
        target_groups: IndexMap::new(),
        backend_source: None,
        scheme: config.default_scheme,
        ip_address_type: IpAddressType::Ipv4,
        lacking_add_on: BTreeSet::new(),
    };
    let ingresses: Vec<&Ingress> = membership.members.iter().filter_map(|name| snapshot.ingresses.get(name)).collect();
    let mut frozen = membership.frozen.clone();
    let stack = if ingresses.len() < membership.members.len() {
        None
    } else if ingresses.is_empty() {
        builder.stack_for_leaving(membership)
    } else {
        let members: Vec<Member<'_>> =
            ingresses.into_iter().map(|ingress| Member::of(ingress, params_of(ingress, snapshot, config))).collect();
        let notes = members.iter().filter_map(|member| class::note(member.ingress, snapshot, config));
        builder.sink.diagnostics.extend(notes);
        builder.members.clone_from(&members);
        builder.stack(&members, &mut frozen, !membership.leaving.is_empty())
    };
    let stack = stack.map(|stack| Stack {
        frozen: match frozen.is_empty() {
            true => FrozenMembers::default(),
            false => FrozenMembers {
                members: frozen.iter().map(ObjectReference::ingress).collect(),
                order: membership.members.iter().map(ObjectReference::ingress).collect(),
                services: frozen.iter().flat_map(|member| services_of(snapshot, member)).collect(),
            },
        },
        external_tags: config.external_managed_tags.clone(),
        certificates: DesiredCertificates { enabled: config.manage_certificates, ..stack.certificates },
        ..stack
    });
    builder.sink.built_without(stack, frozen)
}

/// Returns the Services that an Ingress may lead to, each with the Ingress: its backends, and Services of its namespace that its
/// annotations name.
fn services_of(snapshot: &Snapshot, member: &ObjectName) -> BTreeSet<(ObjectReference, String)> {
    let Some(ingress) = snapshot.ingresses.get(member) else { return BTreeSet::new() };
    let paths = ingress.rules.iter().flat_map(|rule| &rule.paths).map(|path| &path.backend);
    let named = ingress.default_backend.iter().chain(paths).filter_map(|backend| match backend {
        Backend::Service { name, .. } => Some(name.clone()),
        Backend::Resource(..) | Backend::Nothing => None,
    });
    let actions = ingress.annotations.iter().filter(|(key, _)| keys::ACTIONS.matches(key));
    let actions: Vec<NamesInAction<'_>> = actions.map(|(_, value)| NamesInAction::of(value)).collect();
    let in_actions = in_namespace(&snapshot.services, &member.namespace)
        .map(|(name, _)| name)
        .filter(|name| actions.iter().any(|action| action.may_name(&name.name)));
    named
        .chain(in_actions.map(|name| name.name.clone()))
        .map(|service| (ObjectReference::ingress(member), service))
        .collect()
}

/// Returns true if the resources are those of one of the Ingresses.
fn is_of(resources: &MemberResources, ingresses: &BTreeSet<ObjectName>) -> bool {
    resources.member.as_ingress().is_some_and(|ingress| ingresses.contains(ingress))
}

struct Builder<'a> {
    snapshot: &'a Snapshot,
    config: &'a BuildConfig,
    facts: &'a Facts,
    group: &'a StackId,
    sink: DiagnosticSink,
    /// All, in the group's order.
    members: Vec<Member<'a>>,
    /// The target groups of the member that is being built.
    target_groups: IndexMap<ResourceId, TargetGroup>,
    /// The security group that the targets allow; `None` where their rules are the user's.
    backend_source: Option<SecurityGroupReference>,
    /// The load balancer's.
    scheme: Scheme,
    /// The load balancer's.
    ip_address_type: IpAddressType,
    /// The members that request an add-on which cannot be told now.
    lacking_add_on: BTreeSet<ObjectReference>,
}

impl<'a> Builder<'a> {
    /// Builds and merges until no further member has to be frozen. Without any member left there is a stack only where
    /// a member leaves, whose part has to be removed.
    fn stack(&mut self, members: &[Member<'a>], frozen: &mut BTreeSet<ObjectName>, leaving: bool) -> Option<Stack> {
        frozen.extend(self.facts.refused.iter().filter(|name| members.iter().any(|m| m.name() == *name)).cloned());
        let mut specs = Vec::new();
        for member in members.iter().filter(|member| !frozen.contains(member.name())).copied().collect::<Vec<_>>() {
            match self.member_spec(member) {
                Ok(spec) => specs.push(spec),
                Err(Failed) => drop(frozen.insert(member.name().clone())),
            }
        }
        // More than once around where members are frozen on the way: each time at least one.
        loop {
            // A value that is not known yet is no user's mistake.
            if self.sink.wants.iter().any(FactQuery::is_read) {
                return None;
            }
            specs.retain(|spec| !frozen.contains(spec.member.name()));
            if specs.is_empty() {
                self.sink.wants.clear();
                return if leaving { self.retain_existing() } else { None };
            }
            member_spec::add_staying_ports(&mut specs, !frozen.is_empty());
            let merged = match self.merge(&specs, frozen) {
                Ok(merged) => merged,
                Err(merge::Unmerged::Freeze(to_freeze)) => {
                    frozen.extend(to_freeze);
                    continue;
                }
                Err(merge::Unmerged::Failed) => return None,
            };
            let mut all = Vec::new();
            for spec in &specs {
                match self.routes(spec, &merged) {
                    Ok(routes) => all.push(routes),
                    Err(Failed) => drop(frozen.insert(spec.member.name().clone())),
                }
            }
            if all.len() == specs.len() {
                let to_freeze = self.same_resources(&specs, &all);
                if !to_freeze.is_empty() {
                    frozen.extend(to_freeze);
                    continue;
                }
                match self.freeze_beyond_quota(&specs, &merged, &all, frozen) {
                    Ok(()) => {}
                    Err(merge::Unmerged::Freeze(to_freeze)) => {
                        frozen.extend(to_freeze);
                        continue;
                    }
                    Err(merge::Unmerged::Failed) => return None,
                }
                return self.put_together(&specs, merged, all, frozen);
            }
        }
    }

    /// Returns the empty stack where all members leave, unless the load balancer is known to be protected from deletion: then all of
    /// it stays, and the members that leave get a diagnostic with the fix.
    fn stack_for_leaving(&mut self, membership: &Membership) -> Option<Stack> {
        let leaving: Vec<&'a Ingress> =
            membership.leaving.iter().filter_map(|name| self.snapshot.ingresses.get(name)).collect();
        let Some(names) = self.sink.protected(self.facts)? else { return Some(Stack::empty(self.group.clone())) };
        let all = self.facts.protected.as_ref();
        let is_behind = |name: &String| self.facts.frontend.is_empty() || self.facts.names.contains(name);
        let parts = [(keys::LOAD_BALANCER_ATTRIBUTES, true), (keys::FRONTEND_NLB_ATTRIBUTES, false)];
        let mut kept = Vec::new();
        let mut released = Stack::empty(self.group.clone());
        for (key, behind) in parts {
            if !all.is_some_and(|all| all.iter().any(|name| is_behind(name) == behind)) {
                continue;
            }
            match self.released_by(&leaving, key)? {
                true if behind => released.unprotect = true,
                true => released.unprotect_frontend = true,
                false => kept.push(key),
            }
        }
        if kept.is_empty() {
            return Some(released);
        }
        // Nothing in the cluster shows when the protection is off.
        self.sink.lacking = true;
        for (ingress, key) in leaving.iter().flat_map(|ingress| kept.iter().map(move |key| (ingress, key))) {
            let (message, fix) = protected_in_aws(&names, "Ingress");
            self.error(&ingress.name, Code::Refused, key.as_str(), &message, fix);
        }
        None
    }

    /// Returns true if leaving Ingresses release a protected load balancer in the annotation with its attributes; `None` if that
    /// is not known yet.
    fn released_by(&mut self, leaving: &[&'a Ingress], key: Key) -> Option<bool> {
        if !group::releases_protected(leaving, key, |_| true) {
            return Some(false);
        }
        // The finalizer does not prove membership, because any user may write it.
        let Ok(current) = self.current() else { return None };
        let held = |name: &ObjectName| {
            current.is_some_and(|o| o.member_resources.iter().any(|held| held.member.as_ingress() == Some(name)))
        };
        let is_its = |ingress: &Ingress| {
            *self.group == StackId::Ingress(ingress.name.clone()) || self.is_served_here(ingress) || held(&ingress.name)
        };
        Some(group::releases_protected(leaving, key, is_its))
    }

    /// Returns true if the status of an Ingress names a load balancer of the group: it is or was served by it.
    fn is_served_here(&self, ingress: &Ingress) -> bool {
        ingress.status.iter().any(|entry| self.facts.hostnames.contains(&entry.hostname.to_lowercase()))
    }

    /// A name that is hashed from the cluster's.
    fn named<T>(&self, name: impl FnOnce(&str) -> T) -> Value<T> {
        match shared::names::of_cluster(&self.config.cluster) {
            Value::Known(cluster) => Value::Known(name(cluster)),
            Value::AfterApply(why) => Value::AfterApply(why),
        }
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
            self.sink.annotation_error(object, &error)
        })
    }

    fn error(&mut self, ingress: &ObjectName, code: Code, field: &str, message: &str, fix: &str) -> Failed {
        self.sink.report(Severity::Error, ObjectReference::ingress(ingress), code, field, message, fix)
    }

    fn warning(&mut self, ingress: &Ingress, code: Code, field: &str, message: &str, fix: &str) {
        self.sink.report(Severity::Warning, ObjectReference::ingress(&ingress.name), code, field, message, fix);
    }
}

/// A member of the group: an Ingress, and what its annotations say.
#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    ingress: &'a Ingress,
    annotations: Annotations<'a>,
    /// The settings of its class, which win over the annotations: [`settings`] reads both.
    params: Option<&'a IngressClassParams>,
}

impl<'a> Member<'a> {
    fn of(ingress: &'a Ingress, params: Option<&'a IngressClassParams>) -> Self {
        Self { ingress, annotations: Annotations::of_ingress(&ingress.annotations), params }
    }

    fn name(&self) -> &'a ObjectName {
        &self.ingress.name
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
