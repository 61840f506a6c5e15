//! Certificates that the Ingress names, or that ACM has for its hosts (reference: ingress §4.3, §4.4).

use super::{Builder, Failed, Member};
use crate::{
    desired::shared::certificates,
    diagnostics::{Code, Severity},
    facts::FactQuery,
    model::{CertificateArn, ObjectReference, Value},
};

impl<'a> Builder<'a> {
    /// The certificates of a member's HTTPS listeners, the default first: the certificates that it names, or the ones that
    /// ACM has for its hosts. None for a member without hosts, which shares the listeners of others.
    pub(super) fn certificates(
        &mut self,
        member: Member<'a>,
        named: Vec<CertificateArn>,
    ) -> Result<Value<Vec<CertificateArn>>, Failed> {
        let ingress = member.ingress;
        if !named.is_empty() || ingress.hosts.is_empty() {
            return Ok(Value::Known(named));
        }
        let (fact, object) = (self.facts.certificates(&ingress.hosts), ObjectReference::ingress(&ingress.name));
        let want = FactQuery::Certificates(ingress.hosts.clone());
        self.sink.resolve(fact, want, object, Code::MissingCertificate, "spec")
    }

    /// The certificates that the Ingress names, each once.
    pub(super) fn named_certificates(&mut self, member: Member<'a>) -> Result<Vec<CertificateArn>, Failed> {
        let Some(listed) = self.value(member.ingress, None, member.certificate_arns())? else { return Ok(Vec::new()) };
        certificates::listed(listed.value).map_err(|mistakes| {
            // One is enough: the list is one annotation.
            for message in mistakes.iter().take(1) {
                let (code, error) = (Code::InvalidValue, Severity::Error);
                self.wrong(member.ingress, code, &listed.place, error, message, certificates::FIX);
            }
            Failed
        })
    }
}
