//! The listeners of ELB v2 and their certificates.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    account::{Listener, Session, kind_of, not_found},
    actions::{action_xml, read_action},
    attributes,
    wire::{Answer, Refusal, members, optional, refusal, text, texts},
};

const DEFAULT_POLICY: &str = "ELBSecurityPolicy-2016-08";

fn invalid(message: impl Into<String>) -> Refusal {
    refusal("ValidationError", message)
}

impl Listener {
    fn xml(&self) -> String {
        let balancer = super::account::parent(&self.arn);
        let certificate = self.default_certificate.iter().map(|arn| text("CertificateArn", arn));
        [
            text("ListenerArn", &self.arn),
            optional("LoadBalancerArn", balancer),
            text("Port", self.port),
            text("Protocol", &self.protocol),
            members("Certificates", certificate),
            optional("SslPolicy", self.ssl_policy.as_ref()),
            texts("AlpnPolicy", &self.alpn_policy),
            members("DefaultActions", [action_xml(&self.default_action)]),
        ]
        .concat()
    }
}

pub(super) fn is_udp(protocol: &str) -> bool {
    matches!(protocol, "UDP" | "TCP_UDP") || is_quic(protocol)
}

pub(super) fn is_quic(protocol: &str) -> bool {
    matches!(protocol, "QUIC" | "TCP_QUIC")
}

/// Checks that AWS has a certificate. It has none whose ARN ends with `missing`.
fn checked_certificate(arn: &str) -> Result<(), Refusal> {
    let good = (arn.starts_with("arn:aws:acm:") || arn.starts_with("arn:aws:iam:")) && !arn.ends_with("missing");
    let missing = || refusal("CertificateNotFound", format!("Certificate '{arn}' not found"));
    if good { Ok(()) } else { Err(missing()) }
}

/// The parameters of CreateListener or ModifyListener.
#[derive(Default)]
struct Wanted {
    port: Option<u16>,
    protocol: Option<String>,
    certificate: Option<String>,
    ssl_policy: Option<String>,
    alpn_policy: Option<String>,
}

impl Session<'_> {
    /// Checks that ACM has issued a certificate that it was asked for.
    fn checked_issued(&self, arn: &str) -> Result<(), Refusal> {
        if self.account.is_issued(arn, self.now) {
            return Ok(());
        }
        Err(refusal(
            "UnsupportedCertificate",
            format!(
                "The certificate '{arn}' must have a fully-qualified domain name, a supported signature, and a supported key size."
            ),
        ))
    }

    fn wanted_listener(&self) -> Result<Wanted, Refusal> {
        let request = self.request;
        let port: Option<u16> = request.number("Port")?;
        if port == Some(0) {
            return Err(invalid("Port '0' must be between 1 and 65535"));
        }
        let mut certificates = Vec::new();
        for item in request.items("Certificates") {
            let arn = request.need(&format!("{item}.CertificateArn"))?;
            checked_certificate(arn)?;
            self.checked_issued(arn)?;
            certificates.push(arn.to_owned());
        }
        if certificates.len() > 1 {
            return Err(invalid("Only one certificate can be specified"));
        }
        let ssl_policy = request.text("SslPolicy").map(str::to_owned);
        if let Some(policy) = ssl_policy.as_ref().filter(|policy| !policy.starts_with("ELBSecurityPolicy-")) {
            return Err(refusal("SSLPolicyNotFound", format!("SSL policy '{policy}' not found")));
        }
        let policies = request.list("AlpnPolicy");
        let known = ["HTTP1Only", "HTTP2Only", "HTTP2Optional", "HTTP2Preferred", "None"];
        if policies.len() > 1 || policies.iter().any(|policy| !known.contains(policy)) {
            return Err(refusal("ALPNPolicyNotSupported", "The specified ALPN policy is not supported"));
        }
        Ok(Wanted {
            port,
            protocol: request.text("Protocol").map(str::to_owned),
            certificate: certificates.pop(),
            ssl_policy,
            alpn_policy: policies.first().map(|policy| (*policy).to_owned()),
        })
    }

    pub(super) fn create_listener(&mut self) -> Answer {
        let balancer = self.request.need("LoadBalancerArn")?;
        let wanted = self.wanted_listener()?;
        let tags = self.wanted_tags()?;
        let action = read_action(self.request, "DefaultActions")?;
        let default_action = action.ok_or_else(|| invalid("A listener must have a default action"))?;
        let port = wanted.port.ok_or_else(|| invalid("A listener must have a port"))?;
        let protocol = wanted.protocol.ok_or_else(|| invalid("A listener must have a protocol"))?;
        let is_application = self.balancer(balancer)?.is_application();
        check_protocol(&protocol, is_application)?;
        let above = balancer.replacen(":loadbalancer/", ":listener/", 1);
        let mut listener = Listener {
            arn: String::new(),
            port,
            attributes: attributes::of_listener(&protocol),
            protocol,
            default_action,
            default_certificate: wanted.certificate,
            certificates: BTreeSet::new(),
            ssl_policy: wanted.ssl_policy,
            alpn_policy: wanted.alpn_policy,
            tags,
            rules: BTreeMap::new(),
            made: self.now,
        };
        settle(&mut listener)?;
        let listeners = &self.balancer(balancer)?.listeners;
        if let Some(old) = listeners.values().find(|old| overlap(old, &listener)) {
            let settings = |l: &Listener| {
                let secure = (l.default_certificate.clone(), l.ssl_policy.clone(), l.alpn_policy.clone());
                (l.port, l.protocol.clone(), l.default_action.clone(), secure)
            };
            return if settings(old) == settings(&listener) {
                Ok(members("Listeners", [old.xml()]))
            } else {
                let message = format!("A listener already exists on port {port} for this load balancer");
                Err(refusal("DuplicateListener", message))
            };
        }
        if listeners.len() >= self.account.limits.listeners {
            return Err(refusal("TooManyListeners", "The maximum number of listeners has been reached"));
        }
        self.may_listen(balancer, &listener)?;
        self.may_act(balancer, &listener.protocol, &listener.default_action)?;
        listener.arn = format!("{above}/{}", self.account.id());
        let answer = members("Listeners", [listener.xml()]);
        self.note_use(&listener.default_action);
        self.balancer(balancer)?.listeners.insert(listener.arn.clone(), listener);
        Ok(answer)
    }

    /// Refuses UDP on a dualstack load balancer without source NAT, and QUIC on one in security groups or with IPv6, beside UDP and a
    /// second time.
    fn may_listen(&mut self, balancer: &str, listener: &Listener) -> Result<(), Refusal> {
        let balancer = self.balancer(balancer)?;
        let protocol = listener.protocol.as_str();
        let mut others = balancer.listeners.values().filter(|other| other.arn != listener.arn).map(|l| &l.protocol);
        if others.any(|other| is_udp(other) && is_quic(protocol) || is_quic(other) && is_udp(protocol)) {
            let message = "A load balancer has one QUIC or TCP_QUIC listener, and none beside UDP or TCP_UDP listeners";
            return Err(refusal("InvalidConfigurationRequest", message));
        }
        if is_quic(protocol) && balancer.has_ipv6() {
            let message = format!("{protocol} listeners are not supported on dualstack load balancers");
            return Err(refusal("InvalidConfigurationRequest", message));
        }
        if is_udp(protocol) && balancer.has_ipv6() && !balancer.source_nat {
            let message = "UDP listeners of a dualstack load balancer require EnablePrefixForIpv6SourceNat";
            return Err(refusal("InvalidConfigurationRequest", message));
        }
        if is_quic(protocol) && !balancer.security_groups.is_empty() {
            let message = format!("{protocol} listeners are not supported on load balancers with security groups");
            return Err(refusal("InvalidConfigurationRequest", message));
        }
        Ok(())
    }

    pub(super) fn modify_listener(&mut self) -> Answer {
        let arn = self.request.need("ListenerArn")?;
        let wanted = self.wanted_listener()?;
        let action = read_action(self.request, "DefaultActions")?;
        let old = self.listener(arn)?.clone();
        let mut new = old.clone();
        new.port = wanted.port.unwrap_or(new.port);
        new.protocol = wanted.protocol.unwrap_or(new.protocol);
        new.default_certificate = wanted.certificate.or(new.default_certificate);
        new.ssl_policy = wanted.ssl_policy.or(new.ssl_policy);
        new.alpn_policy = wanted.alpn_policy.or(new.alpn_policy);
        new.default_action = action.unwrap_or(new.default_action);
        if !matches!(new.protocol.as_str(), "HTTPS" | "TLS") {
            (new.default_certificate, new.ssl_policy, new.alpn_policy) = (None, None, None);
            new.certificates.clear();
        }
        settle(&mut new)?;
        if new.protocol != old.protocol {
            let defaults = attributes::of_listener(&new.protocol);
            let kept = |key: &String| defaults.contains_key(key) || key.starts_with("routing.http.");
            new.attributes.retain(|key, _| kept(key));
            for (key, value) in defaults {
                new.attributes.entry(key).or_insert(value);
            }
        }
        let balancer = super::account::parent(arn).ok_or_else(|| not_found(arn))?;
        let others = self.balancer(&balancer)?;
        check_protocol(&new.protocol, others.is_application())?;
        if others.listeners.values().any(|other| other.arn != new.arn && overlap(other, &new)) {
            let message = format!("A listener already exists on port {} for this load balancer", new.port);
            return Err(refusal("DuplicateListener", message));
        }
        self.may_listen(&balancer, &new)?;
        self.may_act(&balancer, &new.protocol, &new.default_action)?;
        let answer = members("Listeners", [new.xml()]);
        self.note_use(&new.default_action);
        *self.listener(arn)? = new;
        Ok(answer)
    }

    pub(super) fn describe_listeners(&mut self) -> Answer {
        let arns = self.request.list("ListenerArns");
        let mut found = BTreeMap::new();
        match (self.request.text("LoadBalancerArn"), arns.is_empty()) {
            (Some(balancer), true) => {
                self.balancer(balancer)?;
                let balancer = self.account.balancers.get(balancer).ok_or_else(|| not_found(balancer))?;
                let listed = balancer.listeners.values().filter(|listener| self.lists(listener.made));
                found.extend(listed.map(|listener| (listener.arn.clone(), listener.xml())));
            }
            (None, false) => {
                for arn in arns {
                    found.insert(arn.to_owned(), self.listener(arn)?.xml());
                }
            }
            _ => return Err(invalid("You must specify either listener ARNs or a load balancer ARN")),
        }
        let (page, next) = self.page(found)?;
        Ok(members("Listeners", page) + &next)
    }

    pub(super) fn delete_listener(&mut self) -> Answer {
        let arn = self.request.need("ListenerArn")?;
        let port = self.listener(arn)?.port;
        let balancer = super::account::parent(arn).ok_or_else(|| not_found(arn))?;
        let target = (balancer.clone(), port);
        if self.account.target_groups.values().any(|group| group.targets.contains_key(&target)) {
            let message =
                format!("Listener port '{port}' is in use by registered target '{balancer}' and cannot be removed");
            return Err(refusal("ResourceInUse", message));
        }
        let balancer = self.account.balancers.get_mut(&balancer);
        balancer.ok_or_else(|| not_found(arn))?.listeners.remove(arn);
        Ok(String::new())
    }

    /// Returns the certificates in a request about a listener's certificate list, which does not contain the default
    /// one.
    fn wanted_certificates(&self) -> Result<Vec<String>, Refusal> {
        let items = self.request.items("Certificates");
        let arns = items.iter().map(|item| self.request.need(&format!("{item}.CertificateArn")).map(str::to_owned));
        arns.collect()
    }

    pub(super) fn add_listener_certificates(&mut self) -> Answer {
        let wanted = self.wanted_certificates()?;
        for arn in &wanted {
            checked_certificate(arn)?;
            self.checked_issued(arn)?;
        }
        let most = self.account.limits.certificates;
        let listener = self.listener(self.request.need("ListenerArn")?)?;
        if !listener.is_secure() {
            let message = format!("Certificates cannot be added to a listener with the protocol {}", listener.protocol);
            return Err(refusal("OperationNotPermitted", message));
        }
        let mut all = listener.certificates.clone();
        all.extend(wanted.iter().cloned());
        if all.len() > most {
            return Err(refusal("TooManyCertificates", format!("A listener has at most {most} certificates")));
        }
        listener.certificates = all;
        Ok(members("Certificates", wanted.iter().map(|arn| text("CertificateArn", arn) + &text("IsDefault", false))))
    }

    pub(super) fn remove_listener_certificates(&mut self) -> Answer {
        let gone = self.wanted_certificates()?;
        let listener = self.listener(self.request.need("ListenerArn")?)?;
        if gone
            .iter()
            .any(|arn| listener.default_certificate.as_ref() == Some(arn) && !listener.certificates.contains(arn))
        {
            return Err(refusal("OperationNotPermitted", "The default certificate cannot be removed"));
        }
        listener.certificates.retain(|arn| !gone.contains(arn));
        Ok(String::new())
    }

    pub(super) fn describe_listener_certificates(&mut self) -> Answer {
        let listener = self.listener(self.request.need("ListenerArn")?)?;
        // The default certificate comes first, and may be repeated.
        let default = listener.default_certificate.iter().map(|arn| ("0".to_owned(), (arn, true)));
        let others = listener.certificates.iter().map(|arn| (format!("1{arn}"), (arn, false)));
        let xml = |(key, (arn, default))| (key, text("CertificateArn", arn) + &text("IsDefault", default));
        let found = default.chain(others).map(xml).collect();
        let (page, next) = self.page(found)?;
        Ok(members("Certificates", page) + &next)
    }

    /// Returns the load balancer and the protocol of a listener.
    pub(super) fn whereabouts(&mut self, listener: &str) -> Result<(String, String), Refusal> {
        let protocol = self.listener(listener)?.protocol.clone();
        let balancer = super::account::parent(listener).filter(|arn| kind_of(arn) == Some("loadbalancer"));
        Ok((balancer.ok_or_else(|| not_found(listener))?, protocol))
    }
}

/// Returns true if two listeners accept the same traffic.
fn overlap(one: &Listener, other: &Listener) -> bool {
    // AWS does not allow a TCP and a UDP listener on one port; it requires TCP_UDP.
    one.port == other.port
}

fn check_protocol(protocol: &str, is_application: bool) -> Result<(), Refusal> {
    let known: &[&str] =
        if is_application { &["HTTP", "HTTPS"] } else { &["TCP", "TLS", "UDP", "TCP_UDP", "QUIC", "TCP_QUIC"] };
    let message = || format!("Listener protocol '{protocol}' must be one of '{}'", known.join(", "));
    if known.contains(&protocol) { Ok(()) } else { Err(invalid(message())) }
}

/// Sets AWS's defaults, checks the requirements of TLS listeners, and refuses TLS settings on other listeners.
fn settle(listener: &mut Listener) -> Result<(), Refusal> {
    let protocol = &listener.protocol;
    if listener.is_secure() {
        if listener.default_certificate.is_none() {
            return Err(invalid(format!("A certificate must be specified for {protocol} listeners")));
        }
        listener.ssl_policy.get_or_insert_with(|| DEFAULT_POLICY.to_owned());
    } else if listener.default_certificate.is_some() || listener.ssl_policy.is_some() {
        return Err(invalid(format!("Certificates and SSL policies cannot be specified for {protocol} listeners")));
    }
    if listener.alpn_policy.is_some() && protocol != "TLS" {
        return Err(refusal("ALPNPolicyNotSupported", "An ALPN policy is only for TLS listeners"));
    }
    Ok(())
}
