//! The settings of a group's listener on one port.

use std::collections::BTreeSet;

use super::{
    super::{
        Builder, cause, is_of,
        member_spec::{MemberSpec, PortSpec},
    },
    Attributed, Decided, MergedPort, Unmerged,
    agreement::{UnitedKey, merge_lists},
    in_listener,
};
use crate::{
    api::annotations::registry::ingress::{self as keys, merged},
    model::{
        Cause, CertificateArn, ListenerProtocol, MemberResources, MutualAuthentication, ObjectName, ObservedListener,
        ObservedStack, TrustStoreArn, Value,
    },
};

/// The certificates of a listener.
struct Certificates {
    default: Option<CertificateArn>,
    /// The certificates other than the default one.
    others: BTreeSet<CertificateArn>,
    after_apply: Option<&'static str>,
}

impl<'a> Builder<'a> {
    pub(super) fn merge_port(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
        port: u16,
        protocol: ListenerProtocol,
        redirected: bool,
    ) -> Result<MergedPort, Unmerged> {
        let tls = protocol == ListenerProtocol::Https;
        let policy = self.merge_on_port(
            specs,
            (merged::SSL_POLICY, port),
            &format!("the TLS policy of port {port}"),
            |spec| spec.ports.get(&port)?.ssl_policy.clone(),
            |observed, policy| in_listener(observed, port, |l| l.ssl_policy.as_ref() == Some(policy)),
            |policy| format!("`{policy}`"),
        )?;
        let mutual_authentication = match self.merge_mutual_authentication(specs, port)? {
            // A frozen member may request another treatment.
            None if tls && self.config.resets_listeners && frozen.is_empty() => Some(MutualAuthentication::Off),
            requested => requested,
        };
        let requested_sources = self.merge_sources(specs, port)?;
        let attributes = self.merge_listener_attributes(specs, frozen, port, protocol)?;
        let default_of = if redirected { None } else { self.merge_default_backend(specs, port)? };
        let cause = cause_of_listener(specs, port).ok_or(Unmerged::Failed)?;
        let retained = self.observed_if_frozen(frozen)?;
        let current = retained.and_then(|observed| observed.load_balancers.first()).and_then(|b| b.listener(port));
        let certificates = merge_certificates(specs, frozen, port, retained, current);
        let retained_policy = current.and_then(|listener| listener.ssl_policy.clone());
        let sources = self.with_retained_sources(specs, frozen, port, requested_sources)?;
        Ok(MergedPort {
            protocol,
            default_certificate: certificates.default.filter(|_| tls),
            certificates: certificates.others,
            certificates_after_apply: certificates.after_apply,
            mutual_authentication,
            ssl_policy: tls
                .then(|| policy.or(retained_policy).unwrap_or_else(|| self.config.default_ssl_policy.clone())),
            sources,
            attributes,
            default_of,
            cause,
        })
    }

    fn merge_mutual_authentication(
        &mut self,
        specs: &[MemberSpec<'a>],
        port: u16,
    ) -> Result<Option<MutualAuthentication<Value<TrustStoreArn>>>, Unmerged> {
        self.merge_on_port(
            specs,
            (merged::MUTUAL_AUTHENTICATION, port),
            &format!("the mutual authentication on port {port}"),
            |spec| spec.ports.get(&port)?.mutual_authentication.clone(),
            |observed, clients| {
                let clients = clients.try_map(|arn| arn.known().cloned().ok_or(())).ok();
                in_listener(observed, port, |listener| listener.mutual_authentication == clients)
            },
            |clients| format!("`{clients}`"),
        )
    }

    fn merge_listener_attributes(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
        port: u16,
        protocol: ListenerProtocol,
    ) -> Result<Attributed, Unmerged> {
        let of_class = self.first_member(specs, frozen, Some(port))?.map(|first| Decided {
            values: first.params_listener_attributes(protocol, port),
            stays: self.facts.existing.is_some() && frozen.contains(first.name()),
        });
        self.merge_attributes(
            specs,
            UnitedKey::with(merged::LISTENER_ATTRIBUTES, &format!("{protocol}-{port}")),
            of_class.unwrap_or_default(),
            |spec| spec.ports.get(&port).map(|requested| &requested.attributes),
            |observed, key, value| {
                in_listener(observed, port, |listener| {
                    let known = listener.attributes.as_ref().and_then(|known| known.get(key));
                    known.is_some_and(|known| known == value)
                })
            },
        )
    }

    /// Returns the member whose default backend the listener uses.
    fn merge_default_backend(&mut self, specs: &[MemberSpec<'a>], port: u16) -> Result<Option<ObjectName>, Unmerged> {
        self.merge_field(
            specs,
            "spec.defaultBackend",
            &format!("the default backend of port {port}"),
            |spec| {
                let on_port = spec.ports.get(&port);
                on_port.and(spec.member.ingress.default_backend.as_ref()).map(|_| spec.member.name().clone())
            },
            |observed, member| {
                let holds = |resources: &MemberResources| {
                    resources.member.as_ingress() == Some(member)
                        && resources.ports.get(&port).is_some_and(|held| held.default_action)
                };
                observed.member_resources.iter().any(holds)
            },
            |member| format!("that of Ingress {member}"),
        )
    }
}

fn on_port<'s, 'a>(
    specs: &'s [MemberSpec<'a>],
    port: u16,
) -> impl Iterator<Item = (&'s MemberSpec<'a>, &'s PortSpec)> + Clone {
    specs.iter().filter_map(move |spec| Some((spec, spec.ports.get(&port)?)))
}

/// Returns the cause of a listener: the first member that names a certificate for it, or else the first member. The
/// field is that of the first member.
fn cause_of_listener(specs: &[MemberSpec<'_>], port: u16) -> Option<Cause> {
    let (first, _) = on_port(specs, port).next()?;
    let field = match first.member.ingress.annotations.contains_key(keys::LISTEN_PORTS.as_str()) {
        true => keys::LISTEN_PORTS.as_str(),
        false => "spec",
    };
    let certified = on_port(specs, port).find(|(_, requested)| !requested.certificates.is_empty());
    Some(cause(certified.map_or(first, |(spec, _)| spec).member.ingress, field))
}

/// Returns the certificates of all members on a port. The default is the first one that a member names, unless the
/// current default belongs to a frozen member: then it stays.
fn merge_certificates(
    specs: &[MemberSpec<'_>],
    frozen: &BTreeSet<ObjectName>,
    port: u16,
    retained: Option<&ObservedStack>,
    current: Option<&ObservedListener>,
) -> Certificates {
    let lists = on_port(specs, port).map(|(_, requested)| requested.certificates.as_slice());
    let all = merge_lists(merged::CERTIFICATE_ARN, lists.clone());
    let held_default = current.and_then(|listener| listener.default_certificate.clone()).filter(|certificate| {
        let mut holders = retained
            .iter()
            .flat_map(|observed| &observed.member_resources)
            .filter(|resources| resources.ports.get(&port).is_some_and(|held| held.certificates.contains(certificate)));
        !all.contains(certificate) && holders.all(|resources| is_of(resources, frozen))
    });
    let default = held_default.or_else(|| lists.flatten().next().cloned());
    Certificates {
        others: all.into_iter().filter(|certificate| Some(certificate) != default.as_ref()).collect(),
        default,
        after_apply: on_port(specs, port).find_map(|(_, requested)| requested.certificates_after_apply),
    }
}
