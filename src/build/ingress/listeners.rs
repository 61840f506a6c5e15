//! Listeners: ports, protocols, certificates, policies, default actions (reference: ingress §3.6, §3.8, §4).

use std::collections::{BTreeMap, BTreeSet};

use super::{Builder, Failed, Member, cause};
use crate::{
    api::annotations::Protocol,
    build::{Code, tags},
    model::{Action, CertificateArn, Listener, ListenerProtocol, ResourceId, Tags, TargetGroupReference},
};

const LISTEN_PORTS: &str = "alb.ingress.kubernetes.io/listen-ports";
const SSL_REDIRECT: &str = "alb.ingress.kubernetes.io/ssl-redirect";
const CERTIFICATE_ARN: &str = "alb.ingress.kubernetes.io/certificate-arn";

/// What the annotations say of all listeners.
struct Settings {
    certificates: Vec<CertificateArn>,
    ports: BTreeMap<u16, ListenerProtocol>,
    policy: Option<String>,
    /// The HTTPS port that all HTTP listeners redirect to.
    redirect: Option<u16>,
    user_tags: Tags,
}

/// What a listener's rules depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListenerContext {
    pub(super) port: u16,
    pub(super) protocol: ListenerProtocol,
}

impl<'a> Builder<'a> {
    pub(super) fn listeners(&mut self, member: Member<'a>) -> Result<BTreeMap<u16, Listener>, Failed> {
        let Member { ingress, annotations, .. } = member;
        let Ok(Settings { certificates, ports, policy, redirect, user_tags }) = self.settings(member) else {
            // What is wrong with backends and paths is told all the same, whatever the listeners turn out to be.
            let context = ListenerContext { port: 80, protocol: ListenerProtocol::Http };
            let _ = (self.default_action(member), self.rules(member, context));
            return Err(Failed);
        };
        let mut listeners = BTreeMap::new();
        let mut failed = false;
        for (&port, &protocol) in &ports {
            let context = ListenerContext { port, protocol };
            let tls = protocol == ListenerProtocol::Https;
            if tls && certificates.is_empty() {
                let message = format!("the HTTPS listener on port {port} has no certificate");
                let fix = "name one or more by ARN; finding them in ACM by host name is not built yet";
                self.error(&ingress.name, Code::MissingCertificate, CERTIFICATE_ARN, &message, fix);
                failed = true;
            }
            let name = format!("listener-attributes.{protocol}-{port}");
            let Ok(attributes) = self.value(ingress, None, annotations.string_map(&name)) else {
                failed = true;
                continue;
            };
            let redirected = redirect.filter(|_| protocol == ListenerProtocol::Http);
            let (default_action, rules) = match redirected {
                Some(https) => (redirect_to(https), Vec::new()),
                None => {
                    let default_action = self.default_action(member);
                    let rules = self.rules(member, context);
                    match (default_action, rules) {
                        (Ok(default_action), Ok(rules)) => (default_action, rules),
                        _ => {
                            failed = true;
                            continue;
                        }
                    }
                }
            };
            let default_certificate = certificates.first().filter(|_| tls).cloned();
            let others: BTreeSet<CertificateArn> =
                certificates.iter().filter(|c| tls && Some(*c) != default_certificate.as_ref()).cloned().collect();
            let field = if ingress.annotations.contains_key(LISTEN_PORTS) { LISTEN_PORTS } else { "spec" };
            let listener = Listener {
                port,
                protocol,
                default_action,
                default_certificate,
                certificates: others,
                alpn_policy: None,
                attributes: attributes.unwrap_or_default(),
                ssl_policy: tls.then(|| policy.clone().unwrap_or_else(|| self.config.default_ssl_policy.clone())),
                rules,
                tags: tags::of_resource(
                    &self.config.cluster,
                    self.group,
                    &ResourceId(port.to_string()),
                    &self.config.default_tags,
                    &user_tags,
                ),
                cause: cause(ingress, field),
            };
            listeners.insert(port, listener);
        }
        if failed { Err(Failed) } else { Ok(listeners) }
    }

    fn settings(&mut self, member: Member<'a>) -> Result<Settings, Failed> {
        let Member { ingress, annotations, .. } = member;
        let certificates = self.certificates(member);
        let ports = self.ports(member);
        let policy = self.value(ingress, None, annotations.string("ssl-policy"));
        let redirect = self.value(ingress, None, annotations.i32("ssl-redirect"));
        let user_tags = self.user_tags(member, None);
        let (certificates, ports, policy, user_tags) = (certificates?, ports?, policy?, user_tags?);
        let redirect = match redirect? {
            None => None,
            Some(port) => match u16::try_from(port).ok().filter(|p| ports.get(p) == Some(&ListenerProtocol::Https)) {
                Some(port) => Some(port),
                None => {
                    let message = format!(
                        "requests are to be redirected to port {port}, which is no HTTPS listener of this Ingress"
                    );
                    let fix = format!("add {{\"HTTPS\": {port}}} to `{LISTEN_PORTS}`, or name one of its HTTPS ports");
                    return Err(self.error(&ingress.name, Code::InvalidValue, SSL_REDIRECT, &message, &fix));
                }
            },
        };
        Ok(Settings { certificates, ports, policy, redirect, user_tags })
    }

    fn certificates(&mut self, member: Member<'a>) -> Result<Vec<CertificateArn>, Failed> {
        let Member { ingress, annotations, .. } = member;
        let listed = self.value(ingress, None, annotations.string_list("certificate-arn"))?.unwrap_or_default();
        let mut certificates: Vec<CertificateArn> = Vec::new();
        for arn in listed.into_iter().map(CertificateArn::new) {
            if !arn.looks_right() {
                let message = format!("`{arn}` is not the ARN of a certificate");
                let fix = "write ARNs of ACM or IAM certificates, separated by commas: arn:aws:acm:<region>:<account>:certificate/<id>";
                return Err(self.error(&ingress.name, Code::InvalidValue, CERTIFICATE_ARN, &message, fix));
            }
            if !certificates.contains(&arn) {
                certificates.push(arn);
            }
        }
        Ok(certificates)
    }

    fn ports(&mut self, member: Member<'a>) -> Result<BTreeMap<u16, ListenerProtocol>, Failed> {
        let Member { ingress, annotations, .. } = member;
        match self.value(ingress, None, annotations.listen_ports())? {
            None if ingress.annotations.contains_key(CERTIFICATE_ARN) => {
                Ok(BTreeMap::from([(443, ListenerProtocol::Https)]))
            }
            None => Ok(BTreeMap::from([(80, ListenerProtocol::Http)])),
            Some(ports) => Ok(ports
                .into_iter()
                .map(|(port, protocol)| match protocol {
                    Protocol::Http => (port, ListenerProtocol::Http),
                    Protocol::Https => (port, ListenerProtocol::Https),
                })
                .collect()),
        }
    }

    fn default_action(&mut self, member: Member<'a>) -> Result<Action<TargetGroupReference>, Failed> {
        match &member.ingress.default_backend {
            Some(backend) => self.action(member, backend, "spec.defaultBackend"),
            None => Ok(Action::FixedResponse {
                content_type: Some("text/plain".to_owned()),
                message_body: None,
                status_code: "404".to_owned(),
            }),
        }
    }
}

fn redirect_to(port: u16) -> Action<TargetGroupReference> {
    Action::Redirect {
        host: None,
        path: None,
        port: Some(port.to_string()),
        protocol: Some("HTTPS".to_owned()),
        query: None,
        status_code: "HTTP_301".to_owned(),
    }
}
