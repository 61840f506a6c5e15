//! Listeners, one a port of the Service: protocols, certificates, policies (reference: service §10).

use std::collections::{BTreeMap, BTreeSet};

use super::{Builder, TARGET_TYPE, key, security_group::Access};
use crate::{
    api::annotations::{Key, registry::service as keys},
    desired::{
        diagnostic_sink::Failed,
        shared::{certificates, subnets},
    },
    diagnostics::Code,
    model::{
        Action, Attributes, CertificateArn, IpAddressType, Listener, ListenerProtocol, ResourceId, Scheme, Tags,
        TargetGroupProtocol, TargetGroupReference, TargetType,
    },
    snapshot::ServicePort,
};

const CERTIFICATES: Key = keys::SSL_CERT;
const TLS_PORTS: Key = keys::SSL_PORTS;
const BACKEND_PROTOCOL: Key = keys::BACKEND_PROTOCOL;
const TCP_UDP: Key = keys::ENABLE_TCP_UDP_LISTENER;
const QUIC_PORTS: Key = keys::QUIC_ENABLED_PORTS;
const LISTENER_ATTRIBUTES: Key = keys::LISTENER_ATTRIBUTES;
const ALPN_POLICIES: &[&str] = &["None", "HTTP1Only", "HTTP2Only", "HTTP2Optional", "HTTP2Preferred"];

/// A port of the Service with the protocols of its listener and its target group.
pub(super) struct ListenerPort<'a> {
    /// Its place in `spec.ports`.
    pub(super) index: usize,
    pub(super) port: &'a ServicePort,
    pub(super) listener: ListenerProtocol,
    pub(super) target_group: TargetGroupProtocol,
}

impl ListenerPort<'_> {
    pub(super) fn field(&self) -> String {
        format!("spec.ports[{}]", self.index)
    }

    /// Protocol and port, as annotations for one listener have them: `TCP-80`.
    pub(super) fn parameter(&self) -> String {
        format!("{}-{}", self.listener, self.port.port)
    }
}

/// The ports with TLS.
struct Tls {
    certificates: Vec<CertificateArn>,
    /// Names and numbers; empty is every port that is not UDP.
    ports: Vec<String>,
    to_targets: bool,
}

impl Tls {
    fn covers(&self, port: &ServicePort) -> bool {
        !self.certificates.is_empty()
            && (self.ports.is_empty() || self.ports.iter().any(|written| is_named(port, written)))
    }
}

fn is_named(port: &ServicePort, written: &str) -> bool {
    (!port.name.is_empty() && port.name == written) || port.port.to_string() == written
}

fn described(port: &ServicePort) -> String {
    match port.name.as_str() {
        "" => format!("{}/{}", port.protocol, port.port),
        name => format!("`{name}` ({}/{})", port.protocol, port.port),
    }
}

impl<'a> Builder<'a> {
    /// Returns the ports that get a listener, in the order of the Service, and whether they are complete and without errors.
    /// The other errors of the ports without errors are reported all the same.
    pub(super) fn listener_ports(&mut self) -> (Vec<ListenerPort<'a>>, Result<(), Failed>) {
        let tls = self.tls();
        let quic_ports = self.quic_ports();
        let joined = self.joins_tcp_and_udp();
        let mut by_number: BTreeMap<u16, Vec<(usize, &'a ServicePort)>> = BTreeMap::new();
        let mut order = Vec::new();
        for (index, port) in self.service.ports.iter().enumerate() {
            let same = by_number.entry(port.port).or_default();
            if same.is_empty() {
                order.push(port.port);
            }
            same.push((index, port));
        }
        let mut listener_ports = Vec::new();
        let mut failed = false;
        for same in order.iter().filter_map(|number| by_number.get(number)) {
            let Some(&(index, port)) = same.first() else { continue };
            let listener_port = match self.protocol(index, port, same, joined, tls.as_ref().ok()) {
                Ok(protocols) => self.upgraded(protocols, same, quic_ports.as_deref().unwrap_or_default()),
                failed => failed,
            };
            let listener_port = match listener_port {
                Ok((listener, target_group)) => ListenerPort { index, port, listener, target_group },
                Err(Failed) => {
                    failed = true;
                    continue;
                }
            };
            listener_ports.push(listener_port);
        }
        if !failed && tls.is_ok() && quic_ports.is_ok() {
            self.warn_of_unused_annotations(&listener_ports);
            return (listener_ports, Ok(()));
        }
        (listener_ports, Err(Failed))
    }

    fn protocol(
        &mut self,
        index: usize,
        port: &ServicePort,
        same: &[(usize, &'a ServicePort)],
        joined: bool,
        tls: Option<&Tls>,
    ) -> Result<(ListenerProtocol, TargetGroupProtocol), Failed> {
        if joined && same.len() > 1 {
            let protocols: Vec<&str> = same.iter().map(|(_, port)| port.protocol.as_str()).collect();
            if matches!(protocols.as_slice(), ["TCP", "UDP"] | ["UDP", "TCP"]) {
                return Ok((ListenerProtocol::TcpUdp, TargetGroupProtocol::TcpUdp));
            }
            let message = format!("the ports {} cannot become one listener", listed(same));
            let fix = "use a number for at most one TCP and one UDP port";
            return Err(self.error(Code::Unsupported, &format!("spec.ports[{index}]"), &message, fix));
        }
        for (later, dropped) in same.iter().skip(1) {
            let message = format!(
                "the ports {} and {} have the same number; only the first gets a listener, and the second is not served",
                described(port),
                described(dropped)
            );
            let fix = format!("write `{}: \"true\"` to have TCP and UDP served on one port", key(TCP_UDP));
            self.warning(Code::Unsupported, &format!("spec.ports[{later}]"), &message, &fix);
        }
        match port.protocol.as_str() {
            "TCP" => match tls.filter(|tls| tls.covers(port)) {
                Some(tls) if tls.to_targets => Ok((ListenerProtocol::Tls, TargetGroupProtocol::Tls)),
                Some(_) => Ok((ListenerProtocol::Tls, TargetGroupProtocol::Tcp)),
                None => Ok((ListenerProtocol::Tcp, TargetGroupProtocol::Tcp)),
            },
            "UDP" => Ok((ListenerProtocol::Udp, TargetGroupProtocol::Udp)),
            other => {
                let message = format!("a Network Load Balancer does not support {other}");
                let field = format!("spec.ports[{index}].protocol");
                Err(self.error(
                    Code::Unsupported,
                    &field,
                    &message,
                    "write `TCP` or `UDP`, or move the port to another Service",
                ))
            }
        }
    }

    /// Returns the ports that become QUIC, as they are written. Those that the Service does not have are reported and have no
    /// effect.
    fn quic_ports(&mut self) -> Result<Vec<String>, Failed> {
        let written = self.value(self.annotations.string_list(QUIC_PORTS))?.unwrap_or_default();
        let is_of_none = |written: &&String| !self.service.ports.iter().any(|port| is_named(port, written));
        let unknown: Vec<&str> = written.iter().filter(is_of_none).map(String::as_str).collect();
        if !unknown.is_empty() {
            let ports: Vec<String> = self.service.ports.iter().map(described).collect();
            let message = format!(
                "`{}` is not a port of the Service and has no effect; it has {}",
                unknown.join("`, `"),
                ports.join(", ")
            );
            self.warning(Code::MissingPort, &key(QUIC_PORTS), &message, "name its UDP ports by name or number");
        }
        Ok(written)
    }

    /// Returns the protocols of a listener, with QUIC in place of UDP where one of its ports is to become QUIC.
    fn upgraded(
        &mut self,
        protocols: (ListenerProtocol, TargetGroupProtocol),
        same: &[(usize, &'a ServicePort)],
        quic_ports: &[String],
    ) -> Result<(ListenerProtocol, TargetGroupProtocol), Failed> {
        let (listener, _) = protocols;
        let joined = listener == ListenerProtocol::TcpUdp;
        // The first of two joined ports names their listener, as it names its target group.
        let is_written = |port: &&ServicePort| quic_ports.iter().any(|written| is_named(port, written));
        let mut ports = same.iter().map(|(_, port)| *port);
        let Some(port) = ports.next().filter(is_written) else {
            if let Some(second) = ports.find(is_written).filter(|_| joined) {
                let message = format!(
                    "port {} is the second one of its number, whose listener is named after the first, so that its name has no effect",
                    described(second)
                );
                let fix = format!("write the number, `{}`", second.port);
                self.warning(Code::NoEffect, &key(QUIC_PORTS), &message, &fix);
            }
            return Ok(protocols);
        };
        let upgraded = match listener {
            ListenerProtocol::Udp => (ListenerProtocol::Quic, TargetGroupProtocol::Quic),
            ListenerProtocol::TcpUdp => (ListenerProtocol::TcpQuic, TargetGroupProtocol::TcpQuic),
            _ => {
                let message =
                    format!("port {} gets a {listener} listener, and only UDP can become QUIC", described(port));
                let fix = format!(
                    "name only UDP ports; for TCP and QUIC on one port, give the Service a UDP port of the same number too and write `{}: \"true\"`",
                    key(TCP_UDP)
                );
                return Err(self.error(Code::Unsupported, &key(QUIC_PORTS), &message, &fix));
            }
        };
        if self.requested_target_type().0 == TargetType::Instance {
            let message = format!(
                "port {} becomes {}, and AWS takes its targets only with a QUIC server id each, which pods can have and instances cannot",
                described(port),
                upgraded.0
            );
            let fix = format!("write `{}: ip`, or remove the port from the annotation", key(TARGET_TYPE));
            return Err(self.error(Code::Unsupported, &key(QUIC_PORTS), &message, &fix));
        }
        Ok(upgraded)
    }

    /// Makes listeners UDP that are to become QUIC, as long as the load balancer still has IPv6 addresses, which AWS does not allow
    /// beside QUIC. They become QUIC when those are gone.
    pub(super) fn hold_back_quic(&mut self, listener_ports: &mut [ListenerPort<'_>], scheme: Option<Scheme>) {
        let existing = scheme.and_then(|scheme| subnets::existing_of_scheme(self.facts, scheme));
        if !existing.is_some_and(|existing| existing.has_ipv6) {
            return;
        }
        for port in listener_ports {
            (port.listener, port.target_group) = match port.listener {
                ListenerProtocol::Quic => (ListenerProtocol::Udp, TargetGroupProtocol::Udp),
                ListenerProtocol::TcpQuic => (ListenerProtocol::TcpUdp, TargetGroupProtocol::TcpUdp),
                _ => continue,
            };
            self.interim = true;
        }
    }

    /// Refuses QUIC beside what AWS does not allow with it on one load balancer: another QUIC listener, one of UDP, IPv6 addresses,
    /// and security groups.
    pub(super) fn check_quic(
        &mut self,
        listener_ports: &[ListenerPort<'_>],
        access: Option<&Access>,
        (scheme, address_type): (Option<Scheme>, Option<IpAddressType>),
    ) -> Result<(), Failed> {
        let (quic, others): (Vec<&ListenerPort<'_>>, Vec<_>) =
            listener_ports.iter().partition(|port| port.target_group.is_quic());
        let Some(first) = quic.first() else { return Ok(()) };
        let number = first.port.port;
        let numbers = |ports: &[&ListenerPort<'_>]| {
            ports.iter().map(|port| port.port.port.to_string()).collect::<Vec<_>>().join(", ")
        };
        let mut outcome = Ok(());
        if quic.len() > 1 {
            let message = format!(
                "the ports {} become QUIC, and AWS allows one listener of QUIC or TCP_QUIC on a load balancer",
                numbers(&quic)
            );
            let fix = "name one port, and serve the others by Services of their own";
            outcome = Err(self.error(Code::Unsupported, &key(QUIC_PORTS), &message, fix));
        }
        let udp: Vec<&ListenerPort<'_>> = others.into_iter().filter(|port| port.target_group.has_udp()).collect();
        if !udp.is_empty() {
            let message = format!(
                "port {number} becomes QUIC, and AWS allows no listener of QUIC or TCP_QUIC beside those of UDP or TCP_UDP, which the Service gets on {}",
                numbers(&udp)
            );
            let fix = format!("move port {number} to another Service, or remove it from the annotation");
            outcome = Err(self.error(Code::Unsupported, &key(QUIC_PORTS), &message, &fix));
        }
        if address_type.is_some_and(IpAddressType::has_ipv6) {
            let message =
                format!("port {number} becomes QUIC, and AWS allows that only on a load balancer without IPv6");
            let address_type = key(keys::IP_ADDRESS_TYPE);
            let fix = format!("write `ipv4` in `{address_type}`, or remove the port from the annotation");
            outcome = Err(self.error(Code::Unsupported, &key(QUIC_PORTS), &message, &fix));
        }
        if access.is_some_and(|access| !access.security_groups.is_empty()) {
            outcome = Err(self.refuse_groups_with_quic(number, scheme));
        }
        outcome
    }

    fn refuse_groups_with_quic(&mut self, number: u16, scheme: Option<Scheme>) -> Failed {
        let message = format!(
            "port {number} becomes QUIC, and AWS allows that only on a Network Load Balancer in no security group, while this one is in some"
        );
        let without = key(keys::DISABLE_NLB_SG);
        let fix = if self.is_in_groups(scheme) == Some(true) {
            format!(
                "make a second Service with `{without}: \"true\"` and delete this one when clients have moved; AWS cannot take a load balancer out of all security groups"
            )
        } else {
            format!(
                "write `{without}: \"true\"`, or start the controller with `--feature-gates=NLBSecurityGroup=false`"
            )
        };
        self.error(Code::Unsupported, &key(QUIC_PORTS), &message, &fix)
    }

    fn joins_tcp_and_udp(&mut self) -> bool {
        match self.annotations.bool(TCP_UDP) {
            Ok(asked) => asked.unwrap_or(self.config.enable_tcp_udp_listener),
            Err(error) => {
                let message = format!("the value `{}` is not a boolean and has no effect", error.value);
                self.warning(Code::InvalidValue, &key(TCP_UDP), &message, &error.fix());
                self.config.enable_tcp_udp_listener
            }
        }
    }

    fn tls(&mut self) -> Result<Tls, Failed> {
        let written = self.value(self.annotations.string_list(CERTIFICATES));
        let ports = self.value(self.annotations.string_list(TLS_PORTS));
        let backend = self.value(self.annotations.string(BACKEND_PROTOCOL));
        let certificates = written.and_then(|written| self.certificates(written.unwrap_or_default()));
        let ports = ports.and_then(|ports| self.tls_ports(ports.unwrap_or_default()));
        let tls = Tls { certificates: certificates?, ports: ports?, to_targets: backend?.as_deref() == Some("ssl") };
        if tls.certificates.is_empty() && self.annotations.contains(TLS_PORTS) {
            let message = "without a certificate no port gets TLS; they are served without it";
            let fix = format!("name the certificate in `{}`, or remove the annotation", key(CERTIFICATES));
            self.warning(Code::MissingCertificate, &key(TLS_PORTS), message, &fix);
        }
        Ok(tls)
    }

    fn certificates(&mut self, written: Vec<String>) -> Result<Vec<CertificateArn>, Failed> {
        certificates::listed(written).map_err(|mistakes| {
            for message in mistakes {
                self.error(Code::InvalidValue, &key(CERTIFICATES), &message, certificates::FIX);
            }
            Failed
        })
    }

    fn tls_ports(&mut self, written: Vec<String>) -> Result<Vec<String>, Failed> {
        if written.iter().any(|port| port == "*") {
            let message = "`*` is for Classic Load Balancers; here it is read as every port that is not UDP";
            let fix = "remove the annotation, which means the same";
            self.warning(Code::InvalidValue, &key(TLS_PORTS), message, fix);
            return Ok(Vec::new());
        }
        let unknown: Vec<&str> = written
            .iter()
            .filter(|written| !self.service.ports.iter().any(|port| is_named(port, written)))
            .map(String::as_str)
            .collect();
        if unknown.is_empty() {
            return Ok(written);
        }
        let ports: Vec<String> = self.service.ports.iter().map(described).collect();
        let message = format!("`{}` is not a port of the Service; it has {}", unknown.join("`, `"), ports.join(", "));
        Err(self.error(Code::MissingPort, &key(TLS_PORTS), &message, "name its ports by name or number"))
    }

    pub(super) fn listeners(
        &mut self,
        listener_ports: &[ListenerPort<'a>],
        actions: Option<BTreeMap<u16, Action<TargetGroupReference>>>,
        user_tags: Option<&Tags>,
    ) -> Result<BTreeMap<u16, Listener>, Failed> {
        let secure = listener_ports.iter().any(|listener_port| listener_port.listener.is_secure());
        let policy = self.value(self.annotations.string(keys::SSL_NEGOTIATION_POLICY));
        // The settings of TLS listeners are read only where there are some.
        let alpn =
            if secure { self.value(self.annotations.enumerated(keys::ALPN_POLICY, ALPN_POLICIES)) } else { Ok(None) };
        let certificates = if secure {
            self.annotations.string_list(CERTIFICATES).ok().flatten().unwrap_or_default()
        } else {
            Vec::new()
        };
        let certificates: Vec<CertificateArn> = certificates.into_iter().map(CertificateArn::new).collect();
        let attributes: Vec<Result<Attributes, Failed>> =
            listener_ports.iter().map(|listener_port| self.listener_attributes(listener_port)).collect();
        let (policy, alpn, user_tags) = (policy?, alpn?, user_tags.ok_or(Failed)?);
        let mut actions = actions.ok_or(Failed)?;
        let policy = policy.unwrap_or_else(|| self.config.default_ssl_policy.clone());
        let alpn = alpn.or(self.config.resets_listeners.then_some("None"));
        let mut listeners = BTreeMap::new();
        for (listener_port, attributes) in listener_ports.iter().zip(attributes) {
            let secure = listener_port.listener.is_secure();
            let port = listener_port.port.port;
            let default_certificate = certificates.first().filter(|_| secure).cloned();
            let others: BTreeSet<CertificateArn> = certificates
                .iter()
                .filter(|arn| secure && Some(*arn) != default_certificate.as_ref())
                .cloned()
                .collect();
            let default_action = actions.remove(&port).ok_or(Failed)?;
            let listener = Listener {
                port,
                protocol: listener_port.listener,
                default_action,
                default_authentication: None,
                default_certificate,
                certificates: others,
                certificates_after_apply: None,
                mutual_authentication: None,
                ssl_policy: secure.then(|| policy.clone()),
                alpn_policy: alpn.filter(|_| secure).map(str::to_owned),
                attributes: attributes?,
                attribute_causes: BTreeMap::new(),
                rules: Vec::new(),
                shares: BTreeMap::new(),
                tags: self.config.of_listeners(self.tags(&ResourceId::listener(port), user_tags)),
                cause: self.cause(listener_port.field()),
            };
            listeners.insert(port, listener);
        }
        Ok(listeners)
    }

    fn listener_attributes(&mut self, listener_port: &ListenerPort<'_>) -> Result<Attributes, Failed> {
        let name = listener_port.parameter();
        let written = LISTENER_ATTRIBUTES.with(&name);
        let attributes = self.value(self.annotations.string_map(written))?.unwrap_or_default();
        if listener_port.listener == ListenerProtocol::Tls && !attributes.is_empty() {
            let message = "a TLS listener has no attributes; the annotation has no effect";
            self.warning(Code::Unsupported, &key(written), message, "remove it");
            return Ok(Attributes::new());
        }
        Ok(attributes)
    }

    /// Annotations for listeners that the Service does not have, most often because of TLS: they name the listener's
    /// protocol, not the port's.
    fn warn_of_unused_annotations(&mut self, listener_ports: &[ListenerPort<'_>]) {
        let names: Vec<String> = listener_ports.iter().map(ListenerPort::parameter).collect();
        let starts = [LISTENER_ATTRIBUTES, keys::ACTIONS].map(|key| format!("{}.", key.as_str()));
        for written in self.service.annotations.keys() {
            if let Some(parameter) = starts.iter().find_map(|start| written.strip_prefix(start))
                && !names.is_empty()
                && !names.iter().any(|name| name == parameter)
            {
                let message = format!("the load balancer has no listener `{parameter}`; the annotation has no effect");
                let fix = format!("name one of its listeners: `{}`", names.join("`, `"));
                self.warning(Code::MissingPort, written, &message, &fix);
            }
        }
    }
}

fn listed(ports: &[(usize, &ServicePort)]) -> String {
    ports.iter().map(|(_, port)| described(port)).collect::<Vec<_>>().join(" and ")
}
