//! Pods that are no targets of QUIC because they have no server id of their own.

use std::collections::{BTreeMap, BTreeSet};

use albatross_core::{
    model::{ObjectName, Target},
    quic,
    snapshot::TargetGroupBinding,
    targets::{
        endpoints::{Resolution, rivals},
        readiness::gated,
    },
};

use super::{
    super::{Cloud, Cluster, Targets},
    BindingOutcome, Notice,
};

/// The reason of the notice about pods without a server id.
const MISSING: &str = "QuicServerIdMissing";
/// The reason of the notice about pods with that of another one.
const DUPLICATE: &str = "QuicServerIdDuplicate";

impl<C: Cloud, K: Cluster> Targets<C, K> {
    /// Returns the outcome of a pass that has done nothing yet: with the number of pods that have no QUIC server id, and the notices
    /// about them and about those that share one, once until all have one of their own.
    pub(super) fn lacking_server_ids(&self, binding: &TargetGroupBinding, resolution: &Resolution) -> BindingOutcome {
        let Resolution::Targets { without_server_id: without, with_shared_server_id: shared, .. } = resolution else {
            return BindingOutcome::default();
        };
        let of_none = without.first().map(|first| of_none(first, without.len()));
        let of_others = shared.first_key_value().map(|(pod, other)| of_others(pod, other, shared.len()));
        let lacking: Vec<Notice> = of_none.into_iter().chain(of_others).collect();
        let reasons = lacking.iter().map(|notice| notice.reason).collect();
        let notices = {
            let memory = self.memory();
            let notified = memory.get(&binding.name).map(|memory| &memory.notified);
            let is_known = |notice: &Notice| {
                notified.and_then(|notified| notified.get(notice.reason)).is_some_and(|uid| *uid == binding.uid)
            };
            lacking.into_iter().filter(|notice| !is_known(notice)).collect()
        };
        BindingOutcome { without_server_id: without.len(), notices, lacking: reasons, ..BindingOutcome::default() }
    }

    /// Remembers the notices that are in an outcome, until their reason is gone.
    pub(super) fn remember_notices(&self, binding: &TargetGroupBinding, outcome: &BindingOutcome) {
        let notified = outcome.lacking.iter().map(|reason| (*reason, binding.uid.clone())).collect();
        self.memory().entry(binding.name.clone()).or_default().notified = notified;
    }

    /// Returns the targets that are left out because another one has their server id, if nothing needs to be read for that: of a
    /// trusted checkpoint it is not known until AWS has said who is registered, and only matters while one of them waits at a gate.
    pub(super) fn known_rivals(
        &self,
        binding: &TargetGroupBinding,
        digest: &str,
        resolution: &Resolution,
    ) -> Option<BTreeSet<Target>> {
        let Resolution::Targets { targets, .. } = resolution else { return Some(BTreeSet::new()) };
        let none = BTreeSet::new();
        if rivals(targets, &BTreeMap::new()).is_empty() {
            return Some(none);
        }
        let known = self.memory().get(&binding.name).and_then(|memory| memory.rivals.clone());
        if let Some((_, rivals)) = known.filter(|(of, _)| of == digest) {
            return Some(rivals);
        }
        let waits = gated(&self.snapshot(), &binding.name, targets).iter().any(|pod| pod.gate.waits());
        (!waits).then_some(none)
    }
}

/// Returns the notice about pods that are no targets because they have no QUIC server id.
fn of_none(first: &ObjectName, count: usize) -> Notice {
    let which = match count {
        1 => format!("Pod {first} has none, so it is not registered"),
        _ => format!("{count} pods have none, for example Pod {first}, so they are not registered"),
    };
    let message = format!(
        "AWS takes the targets of this target group only with a QUIC server id each: {which}; label the namespace `{}={}`, name the containers in the pods' annotation `{}`, and create the pods again",
        quic::LABEL,
        quic::ENABLED,
        quic::CONTAINERS
    );
    Notice { reason: MISSING, message }
}

/// Returns the notice about pods of which only one is a target because they have the same QUIC server id.
fn of_others(pod: &ObjectName, other: &ObjectName, count: usize) -> Notice {
    let which = match count {
        1 => format!("Pod {other} and Pod {pod} have the same, so only one of them is registered"),
        _ => format!(
            "{count} pods have that of another, for example Pod {pod} that of Pod {other}, so only one of each is registered"
        ),
    };
    let message = format!(
        "AWS takes each QUIC server id for one target only, and the one that is registered keeps it: {which}; remove the variable of the server id from the pods' template, where each pod gets its own when it is created, and create the pods again"
    );
    Notice { reason: DUPLICATE, message }
}
