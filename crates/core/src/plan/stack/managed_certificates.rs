//! The certificates that ACM is to issue.
//!
//! A certificate is requested, and its hosts are proved, before everything else, since it takes minutes. What it replaces
//! goes after everything else, when no listener has it any more.

use std::collections::BTreeSet;

use super::Planner;
use crate::model::{
    AddOn, CertificateArn, CertificateStatus, ManagedCertificate, ObjectReference, ObservedCertificate, ObservedStack,
    Stack, managed_certificate::on_listener,
};
use crate::plan::{action::StepAction, step::Wait};

/// Returns true if it is not known which certificates were requested for a stack, and there may be some: it requests some, or may
/// have requested some.
#[must_use]
pub fn certificates_are_unknown(stack: &Stack, observed: &ObservedStack) -> bool {
    let requests = &stack.certificates;
    let had_some = || match &observed.tag_keys {
        Some(keys) => keys.names_certificates(),
        // It was never in its desired state, and nothing else tells of what is left when all of it goes, or a member.
        None => stack.load_balancer.is_none() || stack.id.is_shared(),
    };
    let had_some = || observed.may_have_certificates || had_some();
    requests.enabled && observed.certificates.is_none() && (!requests.is_empty() || had_some())
}

/// Returns true if the requested certificates of a stack have to be read before it can be planned.
pub(super) fn are_needed(stack: &Stack, observed: &ObservedStack) -> bool {
    let could_not_be_read = observed.left_out.contains(&AddOn::Certificates) || !stack.certificates.unread.is_empty();
    !could_not_be_read && certificates_are_unknown(stack, observed)
}

impl<'a> Planner<'a> {
    /// Returns the certificate that is the wanted one, one that can be used before others.
    fn matched_certificate(&self, wanted: &ManagedCertificate) -> Option<&'a ObservedCertificate> {
        let observed = self.observed;
        let is_it = |certificate: &&ObservedCertificate| {
            wanted.is(certificate)
                && certificate.status != CertificateStatus::Deleted
                && !observed.given_up.contains(&certificate.arn)
        };
        observed.certificates.iter().flatten().filter(is_it).min_by_key(|certificate| !certificate.is_issued())
    }

    /// Requests the certificates that do not exist, and proves the hosts of those that wait for it.
    pub(super) fn request_certificates(&mut self) {
        let (stack, observed) = (self.stack, self.observed);
        // What AWS has not accepted in this pass is not tried again in it.
        let is_asked = stack.certificates.enabled && !observed.left_out.contains(&AddOn::Certificates);
        let Some(known) = observed.certificates.as_deref().filter(|_| is_asked) else { return };
        for wanted in &stack.certificates.wanted {
            match self.matched_certificate(wanted) {
                Some(certificate) if certificate.status == CertificateStatus::Pending => {
                    self.validate(wanted, certificate);
                }
                Some(_) => {}
                None => {
                    let existing = known.iter().filter(|other| other.resource == wanted.resource);
                    let deleted = observed.recent_certificates.deleted.get(&wanted.resource).into_iter().flatten();
                    let before = existing.map(|other| &other.arn).chain(deleted).cloned().collect();
                    let token = wanted.token(&before);
                    let waits = observed.refused_requests.contains(&token)
                        || observed.recent_certificates.paused.contains(&wanted.cause.object);
                    if wanted.zones.is_some() && !waits {
                        let certificate = Box::new(wanted.clone());
                        self.push(StepAction::RequestCertificate { certificate, token }, &wanted.cause);
                    }
                }
            }
        }
    }

    fn validate(&mut self, wanted: &ManagedCertificate, certificate: &ObservedCertificate) {
        let refused = &self.observed.refused_requests;
        for record in certificate.missing_records().into_iter().filter(|record| !refused.contains(&record.name)) {
            let zone = wanted.zones.as_ref().and_then(|zones| zones.get(&record.host));
            if let Some(zone) = zone.cloned() {
                let (arn, record) = (certificate.arn.clone(), record.clone());
                self.push(StepAction::CreateValidationRecord { arn, zone, record }, &wanted.cause);
            }
        }
    }

    /// Returns the members that come from another load balancer and whose certificate for this one is not issued: they stay where
    /// they are until it is.
    pub(super) fn arriving_without_certificate(&self) -> BTreeSet<ObjectReference> {
        let wanted = self.stack.certificates.wanted.iter();
        let waiting =
            wanted.filter(|wanted| !self.matched_certificate(wanted).is_some_and(ObservedCertificate::is_issued));
        let arriving = waiting.map(|wanted| &wanted.cause.object).filter(|of| self.observed.arriving.contains(*of));
        arriving.cloned().collect()
    }

    /// Deletes the certificates that no member requests any more and that no listener has, and waits for those that are not issued.
    pub(super) fn end_certificates(&mut self) {
        let (stack, observed) = (self.stack, self.observed);
        let Some(known) = observed.certificates.as_deref().filter(|_| stack.certificates.enabled) else { return };
        let matched: Vec<Option<&ObservedCertificate>> =
            stack.certificates.wanted.iter().map(|wanted| self.matched_certificate(wanted)).collect();
        let is_matched =
            |certificate: &ObservedCertificate| matched.iter().flatten().any(|matched| matched.arn == certificate.arn);
        // The one before serves until the wanted one is issued.
        let precedes = |certificate: &ObservedCertificate| {
            let mut waiting = stack
                .certificates
                .wanted
                .iter()
                .zip(&matched)
                .filter(|(_, matched)| !matched.is_some_and(ObservedCertificate::is_issued));
            certificate.is_issued()
                && waiting.any(|(wanted, _)| {
                    wanted.cause.object.as_ingress().is_some_and(|of| certificate.resource.is_certificate_of(of))
                })
        };
        let is_frozen = |certificate: &ObservedCertificate| {
            let frozen = stack.frozen.members.iter().filter_map(|member| member.as_ingress());
            frozen.chain(&stack.certificates.unread).any(|of| certificate.resource.is_certificate_of(of))
        };
        let staying = self.certificates_of_staying_listeners();
        for certificate in known.iter().filter(|certificate| !is_matched(certificate)) {
            if !precedes(certificate) && !is_frozen(certificate) && !staying.contains(&certificate.arn) {
                let (arn, resource) = (certificate.arn.clone(), certificate.resource.clone());
                let cause = self.cause("spec");
                self.push(StepAction::DeleteCertificate { arn, resource }, &cause);
            }
        }
        let waiting = stack
            .certificates
            .wanted
            .iter()
            .zip(&matched)
            .filter(|(_, matched)| !matched.is_some_and(ObservedCertificate::is_issued));
        let waiting: Vec<Wait> = waiting.map(|(wanted, _)| Wait::CertificateIssued(wanted.resource.clone())).collect();
        self.plan.waits.extend(waiting);
    }

    /// Returns the certificates of the listeners that the plan leaves as they are although no member requests them: those that
    /// are retained for a while, and those of a load balancer that is being replaced.
    fn certificates_of_staying_listeners(&self) -> BTreeSet<CertificateArn> {
        let current = self.balancer().map(|balancer| &balancer.arn);
        let is_going = |arn| {
            self.plan
                .steps
                .iter()
                .any(|step| matches!(&step.action, StepAction::DeleteLoadBalancer { arn: going, .. } if going == arn))
        };
        let balancers = self.observed.load_balancers.iter().filter(|balancer| !is_going(&balancer.arn));
        let staying = balancers.flat_map(|balancer| {
            let is_current = Some(&balancer.arn) == current;
            let stays = move |port: u16| {
                !is_current || self.retained_ports.contains(&port) || self.frozen_resources.listener(port)
            };
            balancer.known_listeners().filter(move |listener| stays(listener.port))
        });
        let wanted = self.stack.listeners.values();
        let wanted = wanted.flat_map(|listener| listener.default_certificate.iter().chain(&listener.certificates));
        staying.flat_map(on_listener).chain(wanted).cloned().collect()
    }
}
