//! A group of Ingresses, built into the stack that AWS shall have.

mod backend;
pub mod class;
mod group;
mod listeners;
mod optimise;
mod rules;
mod target_group;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

pub use self::group::{Membership, groups_of, membership};
use super::{BuildConfig, Code, Diagnostic, Severity, names, tags};
use crate::{
    api::annotations::{self, AnnotationError, Annotations, FindingKind, Origin},
    facts::{Fact, Facts, Want},
    model::{
        Cause, GroupId, IpAddressType, LoadBalancer, LoadBalancerName, ManagedSecurityGroup, ObjectKind, ObjectName,
        ObjectReference, ResourceId, Scheme, SecurityGroupId, SecurityGroupReference, SecurityGroupRule, Source, Stack,
        Tags, TargetGroup, Value,
    },
    snapshot::{Ingress, Service, Snapshot},
};

/// What came of building.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// What AWS shall have. `None` when it cannot be said: what is there then stays as it is.
    pub stack: Option<Stack>,
    /// Everything that was found, errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// What has to be known before the stack can be built.
    pub wants: BTreeSet<Want>,
    /// What could not be had from AWS right now.
    pub unavailable: Vec<String>,
    /// Objects that the stack treats as not being there; to be proved before anything is answered with 503 for it.
    pub absent: BTreeSet<ObjectReference>,
}

/// Builds the stack of a group from its members. A group without members gives an empty stack: everything goes. Members
/// that are not in the snapshot give none: who belongs to the group has to be asked again, and nobody's going is proved.
#[must_use]
pub fn build(
    snapshot: &Snapshot,
    config: &BuildConfig,
    facts: &Facts,
    group: &GroupId,
    members: &[ObjectName],
) -> Built {
    let mut builder = Builder {
        snapshot,
        config,
        facts,
        group,
        diagnostics: Vec::new(),
        wants: BTreeSet::new(),
        unavailable: Vec::new(),
        absent: BTreeSet::new(),
        target_groups: IndexMap::new(),
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
    let failed = builder.diagnostics.iter().any(|d| d.severity == Severity::Error);
    let waiting = !builder.wants.is_empty() || !builder.unavailable.is_empty();
    Built {
        stack: stack.filter(|_| !failed && !waiting),
        diagnostics: builder.diagnostics,
        wants: builder.wants,
        unavailable: builder.unavailable,
        absent: builder.absent,
    }
}

const NO_GROUPS: &str = "groups of Ingresses are not built yet";
const NO_GROUPS_FIX: &str = "remove the annotation to give this Ingress a load balancer of its own";

/// A step of building that went wrong; the diagnostics say what.
struct Failed;

struct Builder<'a> {
    snapshot: &'a Snapshot,
    config: &'a BuildConfig,
    facts: &'a Facts,
    group: &'a GroupId,
    diagnostics: Vec<Diagnostic>,
    wants: BTreeSet<Want>,
    unavailable: Vec<String>,
    absent: BTreeSet<ObjectReference>,
    target_groups: IndexMap<ResourceId, TargetGroup>,
}

impl<'a> Builder<'a> {
    fn stack(&mut self, ingress: &'a Ingress) -> Option<Stack> {
        self.check_annotations(ingress);
        let annotations = Annotations::of_ingress(&ingress.annotations);
        let load_balancer = self.load_balancer(ingress, &annotations);
        let listeners = self.listeners(ingress, &annotations);
        let (mut load_balancer, listeners) = (load_balancer.ok()?, listeners.ok()?);
        let user_tags = self.user_tags(ingress, None).ok()?;
        let resource = |id: &str| ResourceId(id.to_owned());
        load_balancer.tags = tags::of_resource(
            &self.config.cluster,
            self.group,
            &resource(tags::LOAD_BALANCER),
            &self.config.default_tags,
            &user_tags,
        );
        let ingress_rules = listeners
            .keys()
            .map(|port| SecurityGroupRule {
                protocol: "tcp".to_owned(),
                from_port: Some(i32::from(*port)),
                to_port: Some(i32::from(*port)),
                source: Source::Ipv4("0.0.0.0/0".to_owned()),
                description: String::new(),
            })
            .collect();
        Some(Stack {
            group: self.group.clone(),
            security_group: Some(ManagedSecurityGroup {
                name: self.named(|cluster| names::managed_security_group(cluster, self.group)),
                description: names::MANAGED_GROUP_DESCRIPTION,
                ingress: ingress_rules,
                tags: tags::of_resource(
                    &self.config.cluster,
                    self.group,
                    &resource(tags::MANAGED_SECURITY_GROUP),
                    &self.config.default_tags,
                    &user_tags,
                ),
                cause: cause(ingress, "spec"),
            }),
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
        self.findings(ObjectReference::ingress(&ingress.name), annotations::ObjectKind::Ingress, &ingress.annotations);
    }

    fn findings(&mut self, object: ObjectReference, kind: annotations::ObjectKind, all: &BTreeMap<String, String>) {
        for finding in annotations::check(kind, all) {
            let (code, severity) = match finding.kind {
                FindingKind::Unknown { .. } => (Code::UnknownAnnotation, Severity::Warning),
                FindingKind::Later => (Code::AnnotationNotBuilt, Severity::Warning),
                FindingKind::Refused => (Code::Refused, Severity::Error),
            };
            self.report(Diagnostic {
                code,
                severity,
                object: object.clone(),
                field: finding.key,
                message: finding.message,
                fix: finding.fix,
            });
        }
    }

    fn load_balancer(&mut self, ingress: &Ingress, annotations: &Annotations<'_>) -> Result<LoadBalancer, Failed> {
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
        let subnets = scheme.and_then(|scheme| Ok((scheme, self.subnets(ingress, scheme)?)));
        let mut security_groups = vec![SecurityGroupReference::Managed];
        if self.config.enable_backend_security_group {
            security_groups.push(SecurityGroupReference::SharedBackend(self.backend_security_group(ingress)?));
        }
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
            name,
            scheme,
            ip_address_type: IpAddressType::Ipv4,
            subnets,
            security_groups,
            tags: Tags::new(),
            cause: cause(ingress, "spec"),
        })
    }

    fn subnets(&mut self, ingress: &Ingress, scheme: Scheme) -> Result<Value<Vec<crate::model::SubnetId>>, Failed> {
        let key = "alb.ingress.kubernetes.io/scheme";
        if let Some(incumbent) = &self.facts.incumbent {
            if incumbent.scheme != scheme {
                let message = format!(
                    "the load balancer is {} and AWS cannot make it {scheme} in place; replacing it without dropping requests is not built yet",
                    incumbent.scheme
                );
                let fix = "leave the scheme as it is, and make a second Ingress with the new scheme; delete this one when clients have moved";
                return Err(self.error(&ingress.name, Code::ReplacementNeeded, key, &message, fix));
            }
            return Ok(Value::Known(incumbent.subnets.iter().cloned().collect()));
        }
        match self.facts.subnets.get(&scheme) {
            Some(Fact::Known(subnets)) => Ok(Value::Known(subnets.clone())),
            Some(Fact::AfterApply(why)) => Ok(Value::AfterApply(why)),
            Some(Fact::Absent { message, fix }) => Err(self.error(&ingress.name, Code::Subnets, key, message, fix)),
            Some(Fact::Unavailable(why)) => {
                self.unavailable.push(why.clone());
                Err(Failed)
            }
            None => {
                self.wants.insert(Want::Subnets(scheme));
                Err(Failed)
            }
        }
    }

    fn backend_security_group(&mut self, ingress: &Ingress) -> Result<Value<SecurityGroupId>, Failed> {
        if let Some(id) = &self.config.backend_security_group {
            return Ok(Value::Known(id.clone()));
        }
        match &self.facts.backend_security_group {
            Some(Fact::Known(id)) => Ok(Value::Known(id.clone())),
            Some(Fact::AfterApply(why)) => Ok(Value::AfterApply(why)),
            Some(Fact::Absent { message, fix }) => {
                let (message, fix) = (message.clone(), fix.clone());
                Err(self.error(&ingress.name, Code::Unsupported, "spec", &message, &fix))
            }
            Some(Fact::Unavailable(why)) => {
                self.unavailable.push(why.clone());
                Err(Failed)
            }
            None => {
                self.wants.insert(Want::BackendSecurityGroup);
                Err(Failed)
            }
        }
    }

    /// The tags that users ask for: the Service's win over the Ingress'.
    fn user_tags(&mut self, ingress: &Ingress, service: Option<&Service>) -> Result<Tags, Failed> {
        let annotations = layered(ingress, service);
        let user = self.value(ingress, service, annotations.merged_string_map("tags"))?.unwrap_or_default();
        let external: Vec<&String> =
            user.keys().filter(|key| self.config.external_managed_tags.contains(*key)).collect();
        if let Some(key) = external.first() {
            let message = format!("the tag `{key}` is managed outside of the cluster (--external-managed-tags)");
            let on_ingress = Annotations::of_ingress(&ingress.annotations).string_map("tags").ok().flatten();
            let object = match service {
                Some(service) if !on_ingress.is_some_and(|tags| tags.contains_key(*key)) => {
                    ObjectReference { kind: ObjectKind::Service, name: service.name.clone() }
                }
                _ => ObjectReference::ingress(&ingress.name),
            };
            let fix = "remove it from the annotation";
            return Err(self.found(
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
                (Origin::Service, Some(service)) => {
                    ObjectReference { kind: ObjectKind::Service, name: service.name.clone() }
                }
                _ => ObjectReference::ingress(&ingress.name),
            };
            let diagnostic = Diagnostic {
                code: Code::InvalidValue,
                severity: Severity::Error,
                object,
                field: error.key.clone(),
                message: error.to_string(),
                // What is allowed, the message has said.
                fix: match error.fix.strip_prefix(&format!("write {}", error.allowed)) {
                    Some(rest) => rest.trim_start_matches("; ").to_owned(),
                    None => error.fix.clone(),
                },
            };
            self.report(diagnostic);
            Failed
        })
    }

    fn error(&mut self, ingress: &ObjectName, code: Code, field: &str, message: &str, fix: &str) -> Failed {
        self.found(Severity::Error, ObjectReference::ingress(ingress), code, field, message, fix)
    }

    fn found(
        &mut self,
        severity: Severity,
        object: ObjectReference,
        code: Code,
        field: &str,
        message: &str,
        fix: &str,
    ) -> Failed {
        let diagnostic = Diagnostic {
            code,
            severity,
            object,
            field: field.to_owned(),
            message: message.to_owned(),
            fix: fix.to_owned(),
        };
        self.report(diagnostic);
        Failed
    }

    /// Keeps a diagnostic once, however many rules lead to it.
    fn report(&mut self, diagnostic: Diagnostic) {
        if !self.diagnostics.contains(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }
}

/// An Ingress' annotations, with a Service's over them.
fn layered<'b>(ingress: &'b Ingress, service: Option<&'b Service>) -> Annotations<'b> {
    match service {
        Some(service) => Annotations::of_service_over_ingress(&service.annotations, &ingress.annotations),
        None => Annotations::of_ingress(&ingress.annotations),
    }
}

fn cause(ingress: &Ingress, field: impl Into<String>) -> Cause {
    Cause { object: ObjectReference::ingress(&ingress.name), generation: ingress.generation, field: field.into() }
}
