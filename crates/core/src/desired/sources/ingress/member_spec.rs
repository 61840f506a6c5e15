//! The spec of one member for the group's load balancer and its listeners, read only from its annotations and its class.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Builder, Failed, Member,
    frontend::FrontendSpec,
    listeners::ListenerContext,
    managed_certificates::MemberCertificate,
    merge::{is_everywhere, is_list},
    settings::{FieldRef, Sourced, SubnetSelection},
};
use crate::{
    api::annotations::{self, Annotations, registry::ingress as keys},
    desired::shared,
    diagnostics::{Code, Severity},
    model::{
        Attributes, CapacityUnits, CertificateArn, CustomerOwnedPoolId, IpAddressType, ListenerProtocol,
        LoadBalancerName, MutualAuthentication, ObjectReference, Scheme, Source, Tags, TrustStoreArn, Value,
    },
    snapshot::Service,
};

/// The spec of a member. A setting that it does not request is `None`.
pub(super) struct MemberSpec<'a> {
    pub(super) member: Member<'a>,
    pub(super) name: Option<Sourced<LoadBalancerName>>,
    pub(super) scheme: Option<Scheme>,
    pub(super) ip_address_type: Option<IpAddressType>,
    pub(super) subnets: Option<Sourced<SubnetSelection>>,
    /// By identifier or `Name` tag; not empty.
    pub(super) security_groups: Option<Vec<String>>,
    pub(super) manage_backend_rules: Option<bool>,
    /// The attributes of its annotation; those of its class count for all, if it is the first of the group.
    pub(super) attributes: Attributes,
    /// `none`, or the name of a web ACL.
    pub(super) web_acl_name: Option<Sourced<String>>,
    /// `none`, nothing, which is the same, or the ARN of a web ACL, unchecked: it has no effect next to a name.
    pub(super) web_acl_arn: Option<Sourced<String>>,
    /// True if Shield Advanced has to protect the load balancer, false if it must not.
    pub(super) protection: Option<bool>,
    /// The IPAM pool of its annotation, unchecked: it has no effect next to that of the first member's class.
    pub(super) ipam_pool: Option<String>,
    pub(super) customer_owned_pool: Option<CustomerOwnedPoolId>,
    /// The capacity of its annotation, unchecked: it has no effect next to that of the first member's class.
    pub(super) capacity: Option<Result<CapacityUnits, String>>,
    pub(super) tags: Tags,
    /// The HTTPS port to redirect to.
    pub(super) redirect: Option<Sourced<i32>>,
    /// The allowed sources, where it names some.
    pub(super) sources: Option<Sourced<Vec<Source>>>,
    pub(super) ports: BTreeMap<u16, PortSpec>,
    pub(super) frontend: FrontendSpec,
    /// The certificate that it has ACM issue.
    pub(super) certificate: Option<MemberCertificate>,
    /// The HTTPS ports that are left out until that certificate is issued. Until then the ports that serve it now stay.
    pub(super) withheld: BTreeSet<u16>,
    /// Those of them that it does not request.
    pub(super) staying: BTreeMap<u16, StayingPort>,
}

/// A port that a member does not request, on which it is served until its certificate is issued.
pub(super) struct StayingPort {
    /// The listener as it is.
    pub(super) port: PortSpec,
    /// The member's own certificates.
    pub(super) own: Vec<CertificateArn>,
    /// The sources that can reach the port now.
    pub(super) open: BTreeSet<Source>,
    /// True if those are everywhere, as where no member names any.
    pub(super) is_public: bool,
}

impl StayingPort {
    /// Returns the sources of the port beside other members, of which some may request it: of ranges and prefix lists each, those that
    /// can reach the port now. Where a member that requests the port names others, the one that waits keeps its own. So none of them
    /// opens the port further than it is, or shuts out the others.
    fn sources_beside(&self, requested: &[PortSpec]) -> Option<Vec<Source>> {
        let own = || self.port.sources.iter().flatten();
        if self.is_public && !own().any(is_everywhere) {
            return None;
        }
        let mut sources: Vec<Source> = Vec::new();
        for lists in [false, true] {
            let of_kind = |source: &&Source| is_list(source) == lists;
            let is_requested = requested.iter().any(|other| other.sources.iter().flatten().any(|s| of_kind(&s)));
            if self.open.is_empty() {
                // Until now, other security groups decide.
                sources.extend(own().filter(of_kind).filter(|_| !is_requested).cloned());
            } else if !is_requested || own().any(|source| of_kind(&source)) {
                sources.extend(self.open.iter().filter(of_kind).cloned());
            }
        }
        Some(sources).filter(|sources| !sources.is_empty())
    }
}

/// The settings that a member requests on one listener.
#[derive(Clone)]
pub(super) struct PortSpec {
    pub(super) protocol: ListenerProtocol,
    /// In the member's order, or the order of ARNs where they were found; none on listeners without TLS.
    pub(super) certificates: Vec<CertificateArn>,
    /// The reason why they are known only after apply, where they are.
    pub(super) certificates_after_apply: Option<&'static str>,
    pub(super) mutual_authentication: Option<MutualAuthentication<Value<TrustStoreArn>>>,
    pub(super) ssl_policy: Option<String>,
    pub(super) sources: Option<Vec<Source>>,
    pub(super) attributes: Attributes,
}

/// Returns the capacity that the annotation of a member requests, or what is wrong with it.
pub(super) fn requested_capacity(member: Member<'_>) -> Option<Result<CapacityUnits, String>> {
    let entries = match member.annotations.string_map(keys::MINIMUM_LOAD_BALANCER_CAPACITY) {
        Ok(entries) => entries?,
        Err(error) => return Some(Err(error.to_string())),
    };
    shared::capacity::requested(&entries).transpose()
}

/// The ports that a member requests, and the settings that its ports with TLS share.
struct RequestedPorts {
    ports: BTreeMap<u16, PortSpec>,
    certificates: Value<Vec<CertificateArn>>,
    ssl_policy: Option<String>,
    certificate: Option<MemberCertificate>,
    withheld: BTreeSet<u16>,
    staying: BTreeMap<u16, StayingPort>,
}

/// Adds the ports that stay for members which wait for a certificate, with the settings that AWS has. A member that requests the port
/// with other ones is in conflict with these until then: it takes neither the traffic nor the authentication of the one that waits.
pub(super) fn add_staying_ports(specs: &mut [MemberSpec<'_>], some_are_frozen: bool) {
    for spec in &mut *specs {
        spec.ports.retain(|port, _| !spec.staying.contains_key(port));
    }
    let mut requested: BTreeMap<u16, Vec<PortSpec>> = BTreeMap::new();
    for (port, part) in specs.iter().flat_map(|spec| &spec.ports) {
        requested.entry(*port).or_default().push(part.clone());
    }
    let all: Vec<u16> = specs.iter().flat_map(|spec| spec.staying.keys().copied()).collect();
    for spec in specs {
        for (number, staying) in &spec.staying {
            let requested = requested.get(number).map(Vec::as_slice).unwrap_or_default();
            let mut port = staying.port.clone();
            if !requested.is_empty() {
                port.certificates.clone_from(&staying.own);
            }
            let others_wait = all.iter().filter(|other| *other == number).count() > 1;
            if !requested.is_empty() || others_wait || some_are_frozen {
                port.sources = staying.sources_beside(requested);
            }
            spec.ports.insert(*number, port);
        }
    }
}

impl<'a> Builder<'a> {
    pub(super) fn member_spec(&mut self, member: Member<'a>) -> Result<MemberSpec<'a>, Failed> {
        let ingress = member.ingress;
        let object = ObjectReference::ingress(&ingress.name);
        let known = self.sink.check_annotations(&object, annotations::ObjectKind::Ingress, &ingress.annotations);
        // The settings of the class have to be valid before anything is built from them.
        let known = known.and(self.check_params(member));
        let access = self.requested_access(member);
        let scheme = self.value(ingress, None, member.scheme()).map(|scheme| scheme.map(|scheme| scheme.value));
        let kind = self.value(ingress, None, member.ip_address_type()).map(|kind| kind.map(|kind| kind.value));
        let name = self.requested_name(member);
        let subnets = self.requested_subnets(member);
        let attributes = self.value(ingress, None, member.annotations.string_map(keys::LOAD_BALANCER_ATTRIBUTES));
        let web_acl_name = self.value(ingress, None, member.web_acl_name());
        let web_acl_arn = self.value(ingress, None, member.web_acl_arn());
        let protection = self.value(ingress, None, member.annotations.bool(keys::SHIELD_ADVANCED_PROTECTION));
        let capacity = requested_capacity(member);
        let pools = (
            self.value(ingress, None, member.annotations.string(keys::IPAM_IPV4_POOL_ID)),
            self.requested_customer_owned_pool(member),
        );
        let add_ons = (web_acl_name, web_acl_arn, protection);
        let ports = self.requested_ports(member);
        let redirect = self.value(ingress, None, member.ssl_redirect());
        let tags = self.user_tags(member, None);
        let of_all = (scheme, kind, name, subnets, attributes);
        let all = (known, access, of_all, add_ons, pools, ports, tags, redirect);
        let (
            Ok(()),
            Ok(access),
            (Ok(scheme), Ok(ip_address_type), Ok(name), Ok(subnets), Ok(attributes)),
            (Ok(web_acl_name), Ok(web_acl_arn), Ok(protection)),
            (Ok(ipam_pool), Ok(customer_owned_pool)),
            Ok(ports),
            Ok(tags),
            Ok(redirect),
        ) = all
        else {
            let of_its_own = member.ip_address_type().ok().flatten();
            self.ip_address_type = of_its_own.map_or(IpAddressType::Ipv4, |kind| kind.value);
            // Mistakes in backends and paths are reported all the same, with any listeners.
            let context = ListenerContext { port: 80, protocol: ListenerProtocol::Http, awaits_https: false };
            let _ = (self.default_action(member, context), self.rules(member, context));
            self.target_groups.clear();
            return Err(Failed);
        };
        let (security_groups, manage_backend_rules, sources) = access;
        let RequestedPorts { mut ports, certificates, ssl_policy, mut certificate, withheld, mut staying } = ports;
        if let Some(wanted) = certificate.as_mut().and_then(|certificate| certificate.wanted.as_mut()) {
            wanted.tags = shared::tags::of_resource(self.config, self.group, &wanted.resource, &tags);
        }
        for (port, part) in &mut ports {
            part.sources = sources.as_ref().map(|sources| sources.value.clone());
            if part.protocol == ListenerProtocol::Https {
                match &certificates {
                    Value::Known(certificates) => part.certificates.extend(certificates.iter().cloned()),
                    Value::AfterApply(why) => part.certificates_after_apply = Some(*why),
                }
                part.ssl_policy = part.ssl_policy.take().or_else(|| ssl_policy.clone());
            }
            let name = format!("{}-{port}", part.protocol);
            part.attributes = self
                .value(ingress, None, member.annotations.string_map(keys::LISTENER_ATTRIBUTES.with(&name)))?
                .unwrap_or_default();
            if let Some(staying) = staying.get_mut(port) {
                staying.port = part.clone();
            }
        }
        let attributes = attributes.unwrap_or_default();
        let frontend = self.requested_frontend(member, &ports, &withheld)?;
        Ok(MemberSpec {
            member,
            name,
            scheme,
            ip_address_type,
            subnets,
            security_groups,
            manage_backend_rules,
            attributes,
            web_acl_name,
            web_acl_arn,
            protection,
            ipam_pool: ipam_pool.filter(|pool| !pool.is_empty()),
            customer_owned_pool,
            capacity,
            tags,
            redirect,
            sources,
            ports,
            frontend,
            certificate,
            withheld,
            staying,
        })
    }

    fn requested_customer_owned_pool(&mut self, member: Member<'a>) -> Result<Option<CustomerOwnedPoolId>, Failed> {
        let (ingress, key) = (member.ingress, keys::CUSTOMER_OWNED_IPV4_POOL);
        let Some(written) = self.value(ingress, None, member.annotations.string(key))? else { return Ok(None) };
        CustomerOwnedPoolId::new(written).map(Some).map_err(|invalid| {
            let (place, message) = (FieldRef::annotation(ingress, key), invalid.to_string());
            self.wrong(ingress, Code::InvalidValue, &place, Severity::Error, &message, &invalid.fix())
        })
    }

    fn requested_name(&mut self, member: Member<'a>) -> Result<Option<Sourced<LoadBalancerName>>, Failed> {
        let Some(name) = self.value(member.ingress, None, member.load_balancer_name())? else { return Ok(None) };
        match LoadBalancerName::new(name.value.clone()) {
            Ok(valid) => Ok(Some(name.map(|_| valid))),
            Err(invalid) => {
                let (message, fix) = (invalid.to_string(), "choose another name");
                Err(self.wrong(member.ingress, Code::InvalidValue, &name.place, Severity::Error, &message, fix))
            }
        }
    }

    fn requested_subnets(&mut self, member: Member<'a>) -> Result<Option<Sourced<SubnetSelection>>, Failed> {
        let selection = self.value(member.ingress, None, member.subnet_selection())?;
        // The subnets of a class have been checked already.
        let of_class = member.place_in_class(keys::SUBNETS).is_some();
        match &selection {
            Some(Sourced { value: SubnetSelection::Named(names), place }) if names.is_empty() && !of_class => {
                let fix = "name subnets by identifier or `Name` tag, or remove the annotation to have them found by their tags";
                let message = "the list of subnets is empty";
                return Err(self.wrong(member.ingress, Code::Subnets, place, Severity::Error, message, fix));
            }
            _ => {}
        }
        Ok(selection)
    }

    fn requested_ports(&mut self, member: Member<'a>) -> Result<RequestedPorts, Failed> {
        let named = self.named_certificates(member);
        let ports = self.value(member.ingress, None, member.annotations.listen_ports());
        let policy = self.value(member.ingress, None, member.ssl_policy());
        let (named, ssl_policy) = (named?, policy?.map(|policy| policy.value));
        let certificate = self.managed_certificate(member, &named);
        let has_certificate = !named.is_empty() || !matches!(certificate, Ok(None));
        let ports = match ports? {
            None if has_certificate => BTreeMap::from([(443, ListenerProtocol::Https)]),
            None => BTreeMap::from([(80, ListenerProtocol::Http)]),
            Some(ports) => ports,
        };
        let secure: BTreeSet<u16> =
            ports.iter().filter(|(_, protocol)| **protocol == ListenerProtocol::Https).map(|(port, _)| *port).collect();
        let mut meanwhile = BTreeMap::new();
        let certificates = match &certificate {
            _ if secure.is_empty() => Ok(Value::Known(Vec::new())),
            Err(Failed) => Err(Failed),
            Ok(None) => self.certificates(member, named),
            Ok(Some(MemberCertificate { after_apply: Some(why), .. })) => Ok(Value::AfterApply(why)),
            Ok(Some(certificate)) if certificate.is_served() => Ok(Value::Known(certificate.usable.clone())),
            Ok(Some(certificate)) => {
                let found = self.certificates_meanwhile(member, &secure, &certificate.usable);
                found.map(|found| meanwhile = found).map(|()| Value::Known(Vec::new()))
            }
        };
        let mut clients = self.mutual_authentication(member, &secure)?;
        let part = |protocol: ListenerProtocol, certificates: Vec<CertificateArn>| PortSpec {
            protocol,
            certificates,
            certificates_after_apply: None,
            mutual_authentication: None,
            ssl_policy: None,
            sources: None,
            attributes: Attributes::new(),
        };
        let (certificate, certificates) = (certificate?, certificates?);
        let is_served = certificate.as_ref().is_none_or(MemberCertificate::is_served);
        let withheld: BTreeSet<u16> =
            secure.into_iter().filter(|port| !is_served && !meanwhile.contains_key(port)).collect();
        let ports = ports.into_iter().filter(|(port, _)| !withheld.contains(port)).map(|(port, protocol)| {
            let mutual_authentication = clients.remove(&port);
            let certificates = meanwhile.remove(&port).unwrap_or_default();
            (port, PortSpec { mutual_authentication, ..part(protocol, certificates) })
        });
        let mut ports: BTreeMap<u16, PortSpec> = ports.collect();
        let mut staying = if withheld.is_empty() { BTreeMap::new() } else { self.ports_meanwhile(member)? };
        staying.retain(|port, _| !ports.contains_key(port));
        ports.extend(staying.iter().map(|(port, staying)| (*port, staying.port.clone())));
        Ok(RequestedPorts { ports, certificates, ssl_policy, certificate, withheld, staying })
    }

    /// Returns the tags that users request: the tags of the class take precedence over the Service's, and these over the
    /// Ingress's.
    pub(super) fn user_tags(&mut self, member: Member<'a>, service: Option<&Service>) -> Result<Tags, Failed> {
        let Member { ingress, .. } = member;
        let annotations = member.layered(service);
        let mut user = self.value(ingress, service, annotations.merged_string_map(keys::TAGS))?.unwrap_or_default();
        let of_class = member.params_tags();
        user.extend(of_class.clone());
        let Some((key, message)) = shared::tags::external(self.config, &user).next() else {
            return Ok(shared::tags::over_defaults(self.config, user));
        };
        let on_ingress = Annotations::of_ingress(&ingress.annotations).string_map(keys::TAGS).ok().flatten();
        let of_ingress = FieldRef::annotation(ingress, keys::TAGS);
        if let Some(params) = member.params.filter(|_| of_class.contains_key(key)) {
            let (place, fix) = (FieldRef::params(params, "tags"), "remove it from the field");
            return Err(self.wrong(ingress, Code::InvalidValue, &place, Severity::Error, &message, fix));
        }
        let object = match service {
            Some(service) if !on_ingress.is_some_and(|tags| tags.contains_key(key)) => {
                ObjectReference::service(&service.name)
            }
            _ => of_ingress.object,
        };
        let fix = shared::tags::EXTERNAL_FIX;
        Err(self.sink.report(Severity::Error, object, Code::InvalidValue, &of_ingress.field, &message, fix))
    }
}
