//! A Service, built into the stack of its Network Load Balancer (reference: service §1, §6 to §14).

mod checks;
mod listeners;
mod load_balancer;
mod security_group;
mod target_group;
mod weighted;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt};

use self::weighted::Settings;
use crate::{
    api::annotations::{AnnotationError, Annotations, Key, WrittenKey, registry::service as keys},
    facts::Facts,
    model::{Cause, ObjectName, ObjectReference, ResourceId, Stack, StackId, Tags, Value},
    snapshot::{Service, Snapshot},
};
use crate::{
    desired::{
        BuildConfig, Built, Membership,
        diagnostic_sink::{DiagnosticSink, Failed},
        shared,
    },
    diagnostics::{Code, Severity},
    model::tags,
};

const TYPE: Key = keys::TYPE;
const TARGET_TYPE: Key = keys::NLB_TARGET_TYPE;
const ATTRIBUTES: Key = keys::ATTRIBUTES;

/// The controller that a Service's load balancer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This controller's.
    Ours,
    /// Another controller's, or none's: a Service that has no load balancer, that another controller serves, or that is
    /// being deleted.
    Foreign,
}

/// The reason why a Service gets no load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Foreign<'a> {
    Deleting,
    OfOtherClass(&'a str),
    /// The type is not LoadBalancer, and no annotations request a load balancer.
    OfType(&'a str),
    /// The type is not LoadBalancer, which the feature gate ServiceTypeLoadBalancerOnly requires.
    OfTypeByGate(&'a str),
    /// The annotation for the type says this; neither the class nor `external` decides.
    LeftToCloudProvider {
        kind: Option<&'a str>,
        /// The class that this controller serves.
        ours: &'a str,
    },
    /// `external` without a target type that is known.
    NoTargetType,
}

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deleting => f.write_str("it is being deleted"),
            Self::OfOtherClass(class) => write!(f, "its `spec.loadBalancerClass` `{class}` is of another controller"),
            Self::OfType(kind) => write!(f, "it is of type {kind}"),
            Self::OfTypeByGate(kind) => write!(
                f,
                "it is of type {kind}, and with `--feature-gates=ServiceTypeLoadBalancerOnly=true` only Services of type LoadBalancer are served"
            ),
            Self::LeftToCloudProvider { kind, ours } => {
                match kind {
                    Some(kind) => write!(f, "the type `{kind}` without a class is left to the cloud provider")?,
                    None => f.write_str("of type LoadBalancer without a class, it is left to the cloud provider")?,
                }
                write!(
                    f,
                    ", unless the webhook for Services gives it a class when it is created; for a Network Load Balancer of this controller write `spec.loadBalancerClass: {ours}` in a new Service (the API server does not let it be set later)"
                )
            }
            Self::NoTargetType => {
                write!(f, "the type `external` also needs `{}: ip` or `instance`", key(TARGET_TYPE))
            }
        }
    }
}

fn decide<'a>(service: &'a Service, config: &'a BuildConfig) -> Result<(), Foreign<'a>> {
    if service.deleting {
        return Err(Foreign::Deleting);
    }
    decide_by_class(service, config)?;
    if config.service_type_load_balancer_only && service.kind != "LoadBalancer" {
        return Err(Foreign::OfTypeByGate(&service.kind));
    }
    Ok(())
}

/// Decides only by the class, the annotations and the type.
fn decide_by_class<'a>(service: &'a Service, config: &'a BuildConfig) -> Result<(), Foreign<'a>> {
    let annotation = |name: Key| service.annotations.get(name.as_str()).map(String::as_str);
    if let Some(class) = &service.load_balancer_class {
        return if *class == config.load_balancer_class { Ok(()) } else { Err(Foreign::OfOtherClass(class)) };
    }
    match (annotation(TYPE), annotation(TARGET_TYPE)) {
        (Some("nlb-ip"), _) | (Some("external"), Some("ip" | "instance")) => Ok(()),
        (Some("external"), _) => Err(Foreign::NoTargetType),
        (kind, _) if service.kind == "LoadBalancer" => {
            Err(Foreign::LeftToCloudProvider { kind, ours: &config.load_balancer_class })
        }
        _ => Err(Foreign::OfType(&service.kind)),
    }
}

/// Returns why no load balancer is made of a Service, as the end of a sentence; `None` where one is.
#[must_use]
pub fn foreign_because(service: &Service, config: &BuildConfig) -> Option<String> {
    decide(service, config).err().map(|why| why.to_string())
}

/// Returns why nothing is planned for a Service without a stack that is served, as the end of a sentence.
pub(in crate::desired) fn unplanned_because(service: &Service, config: &BuildConfig) -> String {
    foreign_because(service, config)
        .unwrap_or_else(|| "`--feature-gates=EnableServiceController=false`: Services are not served".to_owned())
}

/// Decides which controller owns a Service's load balancer (reference: service §1). If a class is set, only it decides.
#[must_use]
pub fn ownership(service: &Service, config: &BuildConfig) -> Ownership {
    match decide(service, config) {
        Ok(()) => Ownership::Ours,
        Err(_) => Ownership::Foreign,
    }
}

/// Returns true if the finalizer of its stack holds the Service.
#[must_use]
pub fn is_held(service: &Service) -> bool {
    service.finalizers.iter().any(|finalizer| finalizer == tags::SERVICE_FINALIZER)
}

/// Returns the stack of a Service that may have a load balancer; the pass over it decides.
#[must_use]
pub fn stack_of(service: &Service) -> Option<StackId> {
    let asked = service.kind == "LoadBalancer" || is_held(service) || service.annotations.contains_key(&key(TYPE));
    asked.then(|| StackId::Service(service.name.clone()))
}

/// Returns the membership of a Service's stack: the Service itself, or none any more.
#[must_use]
pub fn membership(snapshot: &Snapshot, config: &BuildConfig, name: &ObjectName) -> Membership {
    let mut membership = Membership::default();
    if let Some(service) = snapshot.services.get(name) {
        if ownership(service, config) == Ownership::Ours {
            membership.members.push(name.clone());
        } else if is_held(service) {
            membership.leaving.push(name.clone());
        }
    }
    membership
}

/// Returns true if the API server takes a load balancer in the status of a Service (`ServiceStatus.loadBalancer`).
#[must_use]
pub fn has_status(service: &Service) -> bool {
    service.kind == "LoadBalancer"
}

/// Returns the host names in the status of a Service, in lower case.
pub(in crate::desired) fn shown_hosts(snapshot: &Snapshot, name: &ObjectName) -> BTreeSet<String> {
    let entries = snapshot.services.get(name).into_iter().flat_map(|service| &service.status);
    entries.map(|entry| entry.hostname.to_lowercase()).collect()
}

/// Returns true if a Service stays whose status still names a load balancer.
pub(in crate::desired) fn clears_status(snapshot: &Snapshot, name: &ObjectName) -> bool {
    snapshot.services.get(name).is_some_and(|service| !service.deleting && !service.status.is_empty())
}

/// Builds the stack of a Service. A Service that the controller has served (it has the controller's finalizer) and no longer
/// serves, or that is being deleted, gives an empty stack: everything is deleted. One that is not in the snapshot gives
/// none, because its deletion is not proved; and one that the controller never served gives none either.
#[must_use]
pub fn build(snapshot: &Snapshot, config: &BuildConfig, facts: &Facts, name: &ObjectName) -> Built {
    let Some(service) = snapshot.services.get(name) else {
        return DiagnosticSink::default().built(None);
    };
    let mut builder = Builder {
        snapshot,
        config,
        facts,
        service,
        annotations: Annotations::of_service(&service.annotations),
        id: StackId::Service(name.clone()),
        interim: false,
        sink: DiagnosticSink::default(),
    };
    let held = is_held(service);
    let stack = match ownership(service, config) {
        Ownership::Ours => builder.not_orphaning().and_then(|()| builder.stack()).ok(),
        Ownership::Foreign if held => builder.stack_for_leaving().ok(),
        Ownership::Foreign if service.deleting => Some(Stack::empty(builder.id.clone())),
        Ownership::Foreign => None,
    };
    builder.sink.built(stack)
}

/// The full key of an annotation.
fn key<'k>(key: impl Into<WrittenKey<'k>>) -> String {
    key.into().to_string()
}

struct Builder<'a> {
    snapshot: &'a Snapshot,
    config: &'a BuildConfig,
    facts: &'a Facts,
    service: &'a Service,
    annotations: Annotations<'a>,
    id: StackId,
    /// True if something requested is not built yet, because the load balancer does not allow it beside what it has.
    interim: bool,
    sink: DiagnosticSink,
}

impl<'a> Builder<'a> {
    fn stack(&mut self) -> Result<Stack, Failed> {
        self.check_annotations();
        let user_tags = self.user_tags();
        let scheme = self.scheme();
        let known_scheme = scheme.as_ref().ok().copied();
        let addresses = self.address_type().ok();
        let access = self.access(known_scheme);
        let placement =
            scheme.and_then(|scheme| self.placement(scheme, addresses.ok_or(Failed)?, access.as_ref().ok()));
        let load_balancer = self.load_balancer(access.as_ref().ok(), placement.as_ref().ok(), user_tags.as_ref().ok());
        let security_group = match (&access, &user_tags) {
            (Ok(access), Ok(user_tags)) => self.managed_security_group(access, addresses, user_tags),
            _ => Err(Failed),
        };
        let (mut listener_ports, complete) = self.listener_ports();
        let quic = self.check_quic(&listener_ports, access.as_ref().ok(), (known_scheme, addresses));
        self.hold_back_quic(&mut listener_ports, known_scheme);
        let translated = self.check_source_nat(&listener_ports, placement.as_ref().ok());
        let forwards = self.forwards(
            &listener_ports,
            Settings {
                access: access.as_ref().ok(),
                placement: placement.as_ref().ok(),
                user_tags: user_tags.as_ref().ok(),
            },
        );
        let (target_groups, actions) = forwards.map_or((None, None), |(groups, actions)| (Some(groups), Some(actions)));
        let listeners = self.listeners(&listener_ports, actions, user_tags.as_ref().ok());
        let (load_balancer, security_group, listeners) = (load_balancer?, security_group?, listeners?);
        complete?;
        translated?;
        quic?;
        let target_groups = target_groups.ok_or(Failed)?;
        let load_balancer = Some(load_balancer);
        let external_tags = self.config.external_managed_tags.clone();
        let empty = Stack::empty(self.id.clone());
        let interim = self.interim;
        Ok(Stack { security_group, load_balancer, target_groups, listeners, external_tags, interim, ..empty })
    }

    /// Returns the tags that the user requests.
    fn user_tags(&mut self) -> Result<Tags, Failed> {
        const SUFFIX: Key = keys::ADDITIONAL_RESOURCE_TAGS;
        let user = self.value(self.annotations.string_map(SUFFIX))?.unwrap_or_default();
        let mut outcome = Ok(());
        for (_, message) in shared::tags::external(self.config, &user) {
            outcome = Err(self.error(Code::InvalidValue, &key(SUFFIX), &message, shared::tags::EXTERNAL_FIX));
        }
        outcome.map(|()| shared::tags::over_defaults(self.config, user))
    }

    fn tags(&self, resource: &ResourceId, user: &Tags) -> Tags {
        shared::tags::of_resource(self.config, &self.id, resource, user)
    }

    /// A name that is hashed from the cluster's and the Service's uid.
    fn named<T>(&self, name: impl FnOnce(&str, &str) -> T) -> Value<T> {
        let service = shared::names::of_service(&self.service.uid);
        match (shared::names::of_cluster(&self.config.cluster), service) {
            (Value::Known(cluster), Value::Known(uid)) => Value::Known(name(cluster, uid)),
            (Value::AfterApply(why), _) | (_, Value::AfterApply(why)) => Value::AfterApply(why),
        }
    }

    fn object(&self) -> ObjectReference {
        ObjectReference::service(&self.service.name)
    }

    fn cause(&self, field: impl Into<String>) -> Cause {
        Cause { object: self.object(), generation: self.service.generation, field: field.into() }
    }

    /// The value of an annotation, or the diagnostic of what is wrong with it.
    fn value<T>(&mut self, read: Result<T, AnnotationError>) -> Result<T, Failed> {
        read.map_err(|error| self.sink.annotation_error(ObjectReference::service(&self.service.name), &error))
    }

    fn error(&mut self, code: Code, field: &str, message: &str, fix: &str) -> Failed {
        self.sink.report(Severity::Error, self.object(), code, field, message, fix)
    }

    fn warning(&mut self, code: Code, field: &str, message: &str, fix: &str) {
        let Failed = self.sink.report(Severity::Warning, self.object(), code, field, message, fix);
    }
}
