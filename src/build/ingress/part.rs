//! What one member asks for of the group's load balancer and its listeners, read from its annotations alone.

use std::collections::{BTreeMap, BTreeSet};

use super::{Builder, Failed, Member, listeners::ListenerContext};
use crate::{
    api::annotations::{self, Annotations, Protocol},
    build::Code,
    model::{
        Attributes, CertificateArn, ListenerProtocol, LoadBalancerName, MutualAuthentication, ObjectReference, Scheme,
        Source, Tags, TrustStoreArn, Value,
    },
    snapshot::Service,
};

/// A member's part. What it does not ask for is `None`.
pub(super) struct Part<'a> {
    pub(super) member: Member<'a>,
    pub(super) name: Option<LoadBalancerName>,
    pub(super) scheme: Option<Scheme>,
    /// By identifier or `Name` tag.
    pub(super) subnets: Option<Vec<String>>,
    /// By identifier or `Name` tag; not empty.
    pub(super) security_groups: Option<Vec<String>>,
    pub(super) manage_backend_rules: Option<bool>,
    pub(super) attributes: Attributes,
    pub(super) tags: Tags,
    /// The port that its `ssl-redirect` names.
    pub(super) redirect: Option<i32>,
    pub(super) ports: BTreeMap<u16, PortPart>,
}

/// What a member asks for of one listener.
pub(super) struct PortPart {
    pub(super) protocol: ListenerProtocol,
    /// In the member's order, or the order of ARNs where they were found; none on listeners without TLS.
    pub(super) certificates: Vec<CertificateArn>,
    /// Why they are known only after apply, where they are.
    pub(super) certificates_after_apply: Option<&'static str>,
    pub(super) mutual_authentication: Option<MutualAuthentication<Value<TrustStoreArn>>>,
    pub(super) ssl_policy: Option<String>,
    pub(super) sources: Option<Vec<Source>>,
    pub(super) attributes: Attributes,
}

impl<'a> Builder<'a> {
    pub(super) fn part(&mut self, member: Member<'a>) -> Result<Part<'a>, Failed> {
        let ingress = member.ingress;
        let object = ObjectReference::ingress(&ingress.name);
        let known = self.findings.check_annotations(&object, annotations::ObjectKind::Ingress, &ingress.annotations);
        let access = self.asked_access(member);
        let scheme = self.asked_scheme(member);
        let name = self.asked_name(member);
        let subnets = self.asked_subnets(member);
        let attributes = self.value(ingress, None, member.annotations.string_map("load-balancer-attributes"));
        let ports = self.asked_ports(member);
        let redirect = self.value(ingress, None, member.annotations.i32("ssl-redirect"));
        let tags = self.user_tags(member, None);
        let all = (known, access, scheme, name, subnets, attributes, ports, tags, redirect);
        let (Ok(()), Ok(access), Ok(scheme), Ok(name), Ok(subnets), Ok(attributes), Ok(ports), Ok(tags), Ok(redirect)) =
            all
        else {
            // What is wrong with backends and paths is told all the same, whatever the listeners turn out to be.
            let context = ListenerContext { port: 80, protocol: ListenerProtocol::Http };
            let _ = (self.default_action(member, context), self.rules(member, context));
            self.target_groups.clear();
            return Err(Failed);
        };
        let (security_groups, manage_backend_rules, sources) = access;
        let (mut ports, certificates) = ports;
        for (port, part) in &mut ports {
            part.sources.clone_from(&sources);
            if part.protocol == ListenerProtocol::Https {
                match &certificates.0 {
                    Value::Known(certificates) => part.certificates.clone_from(certificates),
                    Value::AfterApply(why) => part.certificates_after_apply = Some(*why),
                }
                part.ssl_policy.clone_from(&certificates.1);
            }
            let name = format!("listener-attributes.{}-{port}", part.protocol);
            part.attributes = self.value(ingress, None, member.annotations.string_map(&name))?.unwrap_or_default();
        }
        let attributes = attributes.unwrap_or_default();
        Ok(Part {
            member,
            name,
            scheme,
            subnets,
            security_groups,
            manage_backend_rules,
            attributes,
            tags,
            redirect,
            ports,
        })
    }

    fn asked_scheme(&mut self, member: Member<'a>) -> Result<Option<Scheme>, Failed> {
        let word = self.value(member.ingress, None, member.annotations.enumerated("scheme", Scheme::WORDS))?;
        Ok(word.and_then(Scheme::from_word))
    }

    fn asked_name(&mut self, member: Member<'a>) -> Result<Option<LoadBalancerName>, Failed> {
        let name = self.value(member.ingress, None, member.annotations.string("load-balancer-name"))?;
        name.map(LoadBalancerName::new).transpose().map_err(|invalid| {
            let key = "alb.ingress.kubernetes.io/load-balancer-name";
            let message = invalid.to_string();
            self.error(member.name(), Code::InvalidValue, key, &message, "choose another name")
        })
    }

    fn asked_subnets(&mut self, member: Member<'a>) -> Result<Option<Vec<String>>, Failed> {
        let names = self.value(member.ingress, None, member.annotations.string_list("subnets"))?;
        if names.as_ref().is_some_and(Vec::is_empty) {
            let key = "alb.ingress.kubernetes.io/subnets";
            let fix =
                "name subnets by identifier or `Name` tag, or remove the annotation to have them found by their tags";
            return Err(self.error(member.name(), Code::Subnets, key, "the list of subnets is empty", fix));
        }
        Ok(names)
    }

    /// Its ports; and the certificates and the policy of those that speak TLS.
    #[allow(clippy::type_complexity, reason = "used once, just above")]
    fn asked_ports(
        &mut self,
        member: Member<'a>,
    ) -> Result<(BTreeMap<u16, PortPart>, (Value<Vec<CertificateArn>>, Option<String>)), Failed> {
        let named = self.named_certificates(member);
        let ports = self.value(member.ingress, None, member.annotations.listen_ports());
        let policy = self.value(member.ingress, None, member.annotations.string("ssl-policy"));
        let (named, policy) = (named?, policy?);
        let ports = match ports? {
            None if member.annotations.contains("certificate-arn") => BTreeMap::from([(443, Protocol::Https)]),
            None => BTreeMap::from([(80, Protocol::Http)]),
            Some(ports) => ports,
        };
        let secure: BTreeSet<u16> =
            ports.iter().filter(|(_, protocol)| **protocol == Protocol::Https).map(|(port, _)| *port).collect();
        let certificates =
            if secure.is_empty() { Ok(Value::Known(Vec::new())) } else { self.certificates(member, named) };
        let mut clients = self.mutual_authentication(member, &secure)?;
        let part = |protocol: Protocol| PortPart {
            protocol: match protocol {
                Protocol::Http => ListenerProtocol::Http,
                Protocol::Https => ListenerProtocol::Https,
            },
            certificates: Vec::new(),
            certificates_after_apply: None,
            mutual_authentication: None,
            ssl_policy: None,
            sources: None,
            attributes: Attributes::new(),
        };
        let ports = ports.into_iter().map(|(port, protocol)| {
            let mutual_authentication = clients.remove(&port);
            (port, PortPart { mutual_authentication, ..part(protocol) })
        });
        Ok((ports.collect(), (certificates?, policy)))
    }

    /// The tags that users ask for: the Service's win over the Ingress'.
    pub(super) fn user_tags(&mut self, member: Member<'a>, service: Option<&Service>) -> Result<Tags, Failed> {
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
            let key = "alb.ingress.kubernetes.io/tags";
            return Err(self.findings.found(
                crate::build::Severity::Error,
                object,
                Code::InvalidValue,
                key,
                &message,
                fix,
            ));
        }
        Ok(user)
    }
}
