//! The certificates of a listener.

use super::Planner;
use crate::model::{Cause, CertificateArn, Listener, ObservedListener};
use crate::plan::{
    action::StepAction,
    step::{ListenerReference, Step},
};

/// Returns the wanted certificates that an existing listener lacks.
pub(super) fn missing_certificates(wanted: &Listener, existing: &ObservedListener) -> Vec<CertificateArn> {
    let present =
        |c: &CertificateArn| existing.certificates.contains(c) || existing.default_certificate.as_ref() == Some(c);
    let mut missing: Vec<_> = wanted.certificates.iter().filter(|c| !present(c)).cloned().collect();
    // A default certificate that becomes an additional one must be added to the list first.
    missing.extend(
        existing
            .default_certificate
            .iter()
            .filter(|c| wanted.certificates.contains(*c) && !existing.certificates.contains(*c))
            .cloned(),
    );
    missing
}

impl Planner<'_> {
    /// Returns the certificates of an existing listener that no member requests. The current default certificate comes
    /// last: it can be removed only when the listener has another.
    pub(super) fn surplus_certificates(&self, wanted: &Listener, existing: &ObservedListener) -> Vec<CertificateArn> {
        let mut surplus: Vec<_> = existing
            .certificates
            .iter()
            .filter(|c| !wanted.certificates.contains(*c) && wanted.default_certificate.as_ref() != Some(*c))
            .filter(|c| !self.frozen_resources.certificate(wanted.port, c))
            .filter(|_| wanted.default_certificate.is_some())
            .cloned()
            .collect();
        surplus.sort_by_key(|c| existing.default_certificate.as_ref() == Some(c));
        surplus
    }

    /// Adds the missing certificates, and removes surplus ones first where the quota leaves no room. Returns the
    /// surplus ones that remain.
    pub(super) fn exchange_certificates<'c>(
        &mut self,
        wanted: &Listener,
        existing: &ObservedListener,
        missing: &[CertificateArn],
        surplus: &'c [CertificateArn],
    ) -> &'c [CertificateArn] {
        if missing.is_empty() {
            return surplus;
        }
        let reference = ListenerReference::Existing(existing.arn.clone());
        let free_to_go = surplus.iter().filter(|c| existing.default_certificate.as_ref() != Some(*c)).count();
        let free = self.used().map_or(usize::MAX, |used| used.certificates_free()).min(missing.len());
        let (at_once, then) = missing.split_at(free);
        self.add_certificates(wanted, &reference, at_once.iter().cloned());
        let lacking = then.len().min(free_to_go);
        let (first, others) = surplus.split_at(lacking);
        self.remove_certificates(wanted, existing, first);
        let (now, later) = then.split_at(lacking);
        self.add_certificates(wanted, &reference, now.iter().cloned());
        // The rest needs room that other listeners release.
        self.add_certificates_later(wanted, &reference, later);
        others
    }

    /// Adds certificates one by one, each as soon as there is room for it.
    pub(super) fn add_certificates_later(
        &mut self,
        wanted: &Listener,
        reference: &ListenerReference,
        certificates: &[CertificateArn],
    ) {
        for certificate in certificates {
            let certificates = vec![certificate.clone()];
            let action = StepAction::AddListenerCertificates { listener: reference.clone(), certificates };
            self.later.push_back(Step::new(action, wanted.cause.clone()));
        }
    }

    /// Adds certificates, with a step for each member that requests some, so that a refusal is reported on the right
    /// one.
    pub(super) fn add_certificates(
        &mut self,
        wanted: &Listener,
        reference: &ListenerReference,
        certificates: impl Iterator<Item = CertificateArn>,
    ) {
        let mut adds: Vec<(&Cause, Vec<CertificateArn>)> = Vec::new();
        for certificate in certificates {
            let asks = wanted.shares.values().find(|share| share.certificates.contains(&certificate));
            let other = asks.filter(|share| share.cause.object != wanted.cause.object);
            let cause = other.map_or(&wanted.cause, |share| &share.cause);
            match adds.iter_mut().find(|(known, _)| *known == cause) {
                Some((_, list)) => list.push(certificate),
                None => adds.push((cause, vec![certificate])),
            }
        }
        for (cause, certificates) in adds {
            self.push(StepAction::AddListenerCertificates { listener: reference.clone(), certificates }, cause);
        }
    }

    pub(super) fn remove_certificates(
        &mut self,
        wanted: &Listener,
        existing: &ObservedListener,
        certificates: &[CertificateArn],
    ) {
        if !certificates.is_empty() {
            let (arn, certificates) = (existing.arn.clone(), certificates.to_vec());
            let remove = StepAction::RemoveListenerCertificates { arn, port: wanted.port, certificates };
            self.push(remove, &wanted.cause);
            self.make_what_fits();
        }
    }
}
