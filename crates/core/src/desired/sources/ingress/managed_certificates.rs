//! The certificate that an Ingress has ACM issue for its hosts (reference: ingress §4.8). Until it is issued, a listener
//! keeps the certificates that it has, and one that would have none is not made; until it is, the ports that serve the
//! Ingress stay, and everything else is served.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Builder, Failed, Member,
    access::everywhere,
    cause,
    member_spec::{PortSpec, StayingPort},
    merge::open,
    services_of,
    settings::FieldRef,
};
use crate::{
    api::annotations::registry::ingress as keys,
    diagnostics::{Code, Severity},
    facts::{Fact, FactQuery, hosted_zones},
    model::{
        Attributes, CertificateArn, CertificateAuthorityArn, CertificateStatus, HostedZoneId,
        InvalidCertificateAuthorityArn, ListenerProtocol, ManagedCertificate, ObservedCertificate, ObservedListener,
        ObservedStack, ResourceId, Source, Tags, TargetGroupArn, Value,
        managed_certificate::{LONGEST_DOMAIN, MOST_HOSTS, on_listener},
    },
};

/// The certificate that a member has ACM issue.
#[derive(Debug)]
pub(super) struct MemberCertificate {
    /// The certificate, without tags; `None` if it is not known what ACM has, so that nothing changes.
    pub(super) wanted: Option<ManagedCertificate>,
    /// The issued certificates for earlier hosts, or only that one where it is issued.
    pub(super) usable: Vec<CertificateArn>,
    /// True if it is issued.
    pub(super) is_issued: bool,
    /// The reason why it is known only after apply, where it is.
    pub(super) after_apply: Option<&'static str>,
}

impl MemberCertificate {
    /// Returns true if listeners have it, or come to have it by applying the plan.
    pub(super) fn is_served(&self) -> bool {
        self.is_issued || self.after_apply.is_some()
    }
}

/// Returns the fix for a certificate that ACM has not issued.
fn fix_of(reason: &str) -> &'static str {
    match reason {
        "CAA_ERROR" => {
            "add a CAA record that allows `amazon.com` to the domain, or remove those that allow only other authorities"
        }
        "VALIDATION_TIMED_OUT" => {
            "check that the domain's name servers are those of its hosted zone in Route 53, and that it has the CNAME records that ACM shows"
        }
        "DOMAIN_NOT_ALLOWED"
        | "INVALID_PUBLIC_DOMAIN"
        | "ADDITIONAL_VERIFICATION_REQUIRED"
        | "DOMAIN_VALIDATION_DENIED" => {
            "check the hosts of the Ingress: public certificates are issued only for domains that ACM accepts"
        }
        "EXPIRED" | "REVOKED" | "INACTIVE" => "check in ACM why it is not renewed, and its CNAME records",
        reason if reason.starts_with("PCA_") => {
            "check that the private certificate authority is active and that its policy lets ACM and the controller use it"
        }
        _ => "look at the certificate in ACM",
    }
}

impl<'a> Builder<'a> {
    /// Returns the certificate that a member has ACM issue, unless certificates are named.
    pub(super) fn managed_certificate(
        &mut self,
        member: Member<'a>,
        named: &[CertificateArn],
    ) -> Result<Option<MemberCertificate>, Failed> {
        let ingress = member.ingress;
        let is_requested = self.value(ingress, None, member.annotations.bool(keys::CREATE_ACM_CERT))?;
        if is_requested != Some(true) || !named.is_empty() {
            return Ok(None);
        }
        let place = FieldRef::annotation(ingress, keys::CREATE_ACM_CERT);
        if !self.config.manage_certificates {
            let message = "the feature gate `EnableCertificateManagement` is off, so that no certificate is requested: those of ACM are found by host name";
            let fix = "start the controller with `--feature-gates=EnableCertificateManagement=true`, or remove the annotation";
            self.wrong(ingress, Code::NoEffect, &place, Severity::Warning, message, fix);
            return Ok(None);
        }
        let authority = self.certificate_authority(member)?;
        let domain = self.first_domain(member, &place)?;
        let wanted = ManagedCertificate {
            resource: ResourceId::certificate(&ingress.name, &domain, authority.is_some()),
            domain,
            hosts: ingress.hosts.clone(),
            authority,
            tags: Tags::new(),
            zones: Some(BTreeMap::new()),
            cause: cause(ingress, keys::CREATE_ACM_CERT.as_str()),
        };
        match self.facts.managed_certificates() {
            None => {
                self.sink.wants.insert(FactQuery::ManagedCertificates);
                Err(Failed)
            }
            Some(Fact::AfterApply(why)) => Ok(Some(MemberCertificate {
                wanted: Some(wanted),
                usable: Vec::new(),
                is_issued: false,
                after_apply: Some(why),
            })),
            Some(Fact::Known(observed)) => self.of_observed(member, wanted, &observed, &place).map(Some),
            Some(Fact::Unavailable(why) | Fact::Absent { message: why, .. }) => {
                self.sink.lacking = true;
                let message = format!(
                    "the certificates that were requested from ACM cannot be read, so that none is requested or deleted, and listeners keep those that they have: {why}"
                );
                self.wrong(ingress, Code::NoEffect, &place, Severity::Warning, &message, "they are read again");
                Ok(Some(MemberCertificate { wanted: None, usable: Vec::new(), is_issued: false, after_apply: None }))
            }
        }
    }

    /// Returns the private certificate authority of a member; an empty annotation does not override the flag.
    fn certificate_authority(&mut self, member: Member<'a>) -> Result<Option<CertificateAuthorityArn>, Failed> {
        let ingress = member.ingress;
        let named = self.value(ingress, None, member.annotations.string(keys::ACM_PCA_ARN))?;
        let Some(arn) = named.filter(|arn| !arn.is_empty()) else {
            return Ok(self.config.default_certificate_authority.clone());
        };
        CertificateAuthorityArn::new(arn).map(Some).map_err(|invalid| {
            let place = FieldRef::annotation(ingress, keys::ACM_PCA_ARN);
            let fix = InvalidCertificateAuthorityArn::FIX;
            self.wrong(ingress, Code::InvalidValue, &place, Severity::Error, &invalid.to_string(), fix)
        })
    }

    /// Returns the first name of the certificate: the first host, in alphabetical order, that is short enough.
    fn first_domain(&mut self, member: Member<'a>, place: &FieldRef) -> Result<String, Failed> {
        let (ingress, hosts) = (member.ingress, &member.ingress.hosts);
        let mut refused = |message: &str, fix: &str| {
            self.wrong(ingress, Code::MissingCertificate, place, Severity::Error, message, fix)
        };
        if hosts.is_empty() {
            let message = "the Ingress has no host that ACM could issue a certificate for";
            let fix = "add hosts in spec.rules or spec.tls, or name a certificate with `alb.ingress.kubernetes.io/certificate-arn`";
            return Err(refused(message, fix));
        }
        if hosts.len() > MOST_HOSTS {
            let message =
                format!("the Ingress has {} hosts, and a certificate has at most {MOST_HOSTS} names", hosts.len());
            return Err(refused(&message, "spread the hosts over several Ingresses of a group, or use a wildcard"));
        }
        hosts.iter().find(|host| host.len() <= LONGEST_DOMAIN).cloned().ok_or_else(|| {
            let message = format!(
                "each host is longer than {LONGEST_DOMAIN} characters, and the first name of a certificate must not be"
            );
            refused(&message, "add a shorter host, such as a wildcard, to spec.tls")
        })
    }

    fn of_observed(
        &mut self,
        member: Member<'a>,
        mut wanted: ManagedCertificate,
        observed: &[ObservedCertificate],
        place: &FieldRef,
    ) -> Result<MemberCertificate, Failed> {
        let own = || observed.iter().filter(|certificate| certificate.resource.is_certificate_of(member.name()));
        let mut same: Vec<&ObservedCertificate> = own().filter(|certificate| wanted.is(certificate)).collect();
        same.sort_by_key(|certificate| !certificate.is_issued());
        let current = same.first().copied();
        if let Some(issued) = current.filter(|certificate| certificate.is_issued()) {
            let usable = vec![issued.arn.clone()];
            return Ok(MemberCertificate { wanted: Some(wanted), usable, is_issued: true, after_apply: None });
        }
        if let Some(ObservedCertificate { arn, status: CertificateStatus::Unusable(reason), .. }) = current {
            let message = format!("ACM has not issued the certificate {arn}, or it can no longer be used: {reason}");
            let fix = format!(
                "{}; another one is requested after half a day, after twice the time with each failure, or minutes after this one is deleted in ACM",
                fix_of(reason)
            );
            self.wrong(member.ingress, Code::MissingCertificate, place, Severity::Warning, &message, &fix);
        }
        let has_to_be_validated = current.is_none_or(|certificate| match certificate.status {
            CertificateStatus::Pending => !certificate.missing_records().is_empty(),
            _ => true,
        });
        if wanted.authority.is_none() && has_to_be_validated {
            wanted.zones = self.zones_of(member, place)?;
        }
        let usable = own().filter(|certificate| certificate.is_issued()).map(|certificate| certificate.arn.clone());
        Ok(MemberCertificate { usable: usable.collect(), wanted: Some(wanted), is_issued: false, after_apply: None })
    }

    /// Returns the hosted zones of a member's hosts; `None` within, with a warning, if there are not all of them.
    fn zones_of(
        &mut self,
        member: Member<'a>,
        place: &FieldRef,
    ) -> Result<Option<BTreeMap<String, HostedZoneId>>, Failed> {
        let ingress = member.ingress;
        let (message, fix) = match self.facts.hosted_zones() {
            None => {
                self.sink.wants.insert(FactQuery::HostedZones);
                return Err(Failed);
            }
            Some(Fact::AfterApply(_)) => return Ok(Some(BTreeMap::new())),
            Some(Fact::Known(zones)) => match hosted_zones::zones_of(&ingress.hosts, &zones) {
                Ok(zones) => return Ok(Some(zones)),
                Err(without) => (without.to_string(), hosted_zones::WithoutZone::FIX),
            },
            Some(Fact::Unavailable(why) | Fact::Absent { message: why, .. }) => {
                let message = format!(
                    "the hosted zones of Route 53 cannot be read, so that ACM is not asked for the certificate: {why}"
                );
                (message, "they are read again")
            }
        };
        self.sink.lacking = true;
        self.wrong(ingress, Code::NoEffect, place, Severity::Warning, &message, fix);
        Ok(None)
    }

    /// Returns the certificates with which listeners serve a member until its own is issued, by port: those that they have for it, or
    /// else the issued ones of other hosts. A port without any is left out.
    pub(super) fn certificates_meanwhile(
        &mut self,
        member: Member<'a>,
        secure: &BTreeSet<u16>,
        usable: &[CertificateArn],
    ) -> Result<BTreeMap<u16, Vec<CertificateArn>>, Failed> {
        let current = self.current().map_err(|_| Failed)?;
        let on_port = |port: u16| {
            let balancer = current.and_then(|observed| Some((observed, observed.load_balancers.first()?)));
            let listener = balancer.and_then(|(observed, balancer)| Some((observed, balancer.listener(port)?)));
            let found = listener.and_then(|(observed, listener)| self.held_certificates(observed, member, listener));
            found.filter(|found| !found.is_empty()).unwrap_or_else(|| usable.to_vec())
        };
        let ports = secure.iter().map(|port| (*port, on_port(*port)));
        Ok(ports.filter(|(_, certificates)| !certificates.is_empty()).collect())
    }

    /// Returns the ports on which the load balancer serves a member now, as they are. They stay until the listeners that wait for
    /// its certificate are there, whether it requests them or not: nothing else serves it.
    pub(super) fn ports_meanwhile(&mut self, member: Member<'a>) -> Result<BTreeMap<u16, StayingPort>, Failed> {
        let Some(observed) = self.current().map_err(|_| Failed)? else { return Ok(BTreeMap::new()) };
        let Some(balancer) = observed.load_balancers.first() else { return Ok(BTreeMap::new()) };
        let everywhere: BTreeSet<Source> = everywhere(balancer.ip_address_type.has_ipv6()).into_iter().collect();
        let staying = balancer.known_listeners().filter_map(|listener| {
            let its = self.held_certificates(observed, member, listener)?;
            let protocol = listener.protocol?;
            let is_secure = protocol == ListenerProtocol::Https;
            let all = || on_listener(listener).cloned().collect();
            let clients = listener.mutual_authentication.as_ref().filter(|clients| clients.mode() != "off");
            let port = PortSpec {
                protocol,
                certificates: if its.is_empty() { all() } else { its.clone() },
                certificates_after_apply: None,
                mutual_authentication: clients
                    .and_then(|clients| clients.try_map(|store| Ok::<_, Failed>(Value::Known(store.clone()))).ok()),
                ssl_policy: listener.ssl_policy.clone().filter(|_| is_secure),
                sources: None,
                attributes: Attributes::new(),
            };
            let open = open(observed, listener.port);
            let is_public = open == everywhere;
            Some((listener.port, StayingPort { port, own: its, open, is_public }))
        });
        Ok(staying.collect())
    }

    /// Returns the certificates that a listener has for a member; `None` if the member is not served there. Where nothing is recorded of the
    /// member, all of them may be its own.
    fn held_certificates(
        &self,
        observed: &ObservedStack,
        member: Member<'_>,
        listener: &ObservedListener,
    ) -> Option<Vec<CertificateArn>> {
        let mut recorded = observed.member_resources.iter();
        match recorded.find(|its| its.member.as_ingress() == Some(member.name())) {
            Some(its) => {
                let held = &its.ports.get(&listener.port)?.certificates;
                Some(on_listener(listener).filter(|arn| held.contains(*arn)).cloned().collect())
            }
            None => self.leads_to(observed, member, listener).then(|| on_listener(listener).cloned().collect()),
        }
    }

    /// Returns true if a listener leads to target groups of a member. Of all others, everything is its own where it is the only member
    /// and served at all.
    fn leads_to(&self, observed: &ObservedStack, member: Member<'_>, listener: &ObservedListener) -> bool {
        let is_alone = self.members.len() == 1 && observed.member_resources.is_empty();
        if is_alone && (!self.group.is_shared() || self.is_served_here(member.ingress)) {
            return true;
        }
        let services = services_of(self.snapshot, member.name());
        let resource = |arn: &TargetGroupArn| observed.target_groups.iter().find(|group| group.arn == *arn)?.resource();
        let is_its = |id: ResourceId| services.iter().any(|(of, service)| id.ingress(service).as_ref() == Some(of));
        listener.target_groups().any(|arn| resource(arn).is_some_and(is_its))
    }
}
