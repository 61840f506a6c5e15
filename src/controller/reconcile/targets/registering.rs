//! RegisterTargets: the zones of targets, and the retries of targets that AWS refuses.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use albatross_aws::{AwsError, AwsErrorKind};
use albatross_core::{
    model::{Registration, Target, TargetGroupArn},
    snapshot::TargetGroupBinding,
};

use super::{
    BindingOutcome, Cloud, Cluster, Targets,
    binding::{Failure, role_of},
    zones::{SOURCE_KEPT, ZoneSource, is_about_zones, zone},
};
use albatross_core::targets::{
    endpoints::TargetOwner,
    plan::{MAX_PER_CALL, Unregistered},
};

/// The maximum number of additional calls in one pass because AWS refuses a target of a batch. Eight calls find one of
/// 200 targets that AWS does not name.
pub(crate) const MAX_SPLITS: usize = 16;
/// The time after which a refused target is tried again; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest such time.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A target that AWS refused.
#[derive(Clone, Debug)]
struct Refusal {
    error: AwsError,
    /// True if AWS refused the whole call instead of this target.
    of_group: bool,
    /// The generation of the binding, and the identity of the pod or node: after a change of either, the target is
    /// tried at once.
    of: (i64, Option<String>),
    wait: Duration,
    until: Instant,
}

/// The refusals that are remembered from one pass to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    group: Option<TargetGroupArn>,
    targets: BTreeMap<Target, Refusal>,
    zones: Option<(ZoneSource, Instant)>,
}

impl Refusals {
    fn wait(&self, target: &Target, of: &(i64, Option<String>), now: Instant) -> Option<&Refusal> {
        self.targets.get(target).filter(|refusal| refusal.of == *of && now < refusal.until)
    }

    fn refuse(&mut self, target: Target, of: (i64, Option<String>), error: &AwsError, of_group: bool, now: Instant) {
        let before = self.targets.get(&target).filter(|refusal| refusal.of == of).map(|refusal| refusal.wait);
        let wait = before.map_or(FIRST_WAIT, |wait| (wait * 2).min(LONGEST_WAIT));
        let refusal = Refusal { error: error.clone(), of_group, of, wait, until: now + wait };
        self.targets.insert(target, refusal);
    }
}

/// A binding with its target group.
#[derive(Clone, Copy)]
pub(crate) struct BoundTargetGroup<'a> {
    pub(crate) binding: &'a TargetGroupBinding,
    pub(crate) arn: &'a TargetGroupArn,
    /// The owner of each desired target.
    pub(crate) owners: &'a BTreeMap<Target, TargetOwner>,
}

/// The result of registering, except the registered targets.
#[derive(Debug, Default)]
pub(crate) struct Registering {
    /// The targets that AWS refused in this pass, or in an earlier one without a retry yet.
    pub(crate) refused: Vec<(Target, AwsError)>,
    /// The error that stopped the registration of the other targets.
    pub(crate) failure: Option<AwsError>,
    /// The numbers of targets that are still missing.
    pub(crate) unregistered: Unregistered,
}

/// Returns the identity that distinguishes a pod or node from another one at the same address.
fn identity(owner: &TargetOwner) -> String {
    match owner {
        TargetOwner::Pod { uid, .. } => uid.clone(),
        TargetOwner::Node(name) => name.clone(),
    }
}

/// Returns true if the code of AWS's error concerns the targets instead of the group.
pub(crate) fn names_targets(code: Option<&str>) -> bool {
    matches!(code, Some("InvalidTarget" | "ValidationError" | "InvalidInstance"))
}

/// Returns true if AWS's error names a target.
fn names(error: &AwsError, target: &Target) -> bool {
    let AwsErrorKind::Refused { message, .. } = &error.kind else { return false };
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-');
    message.split(|c| !word(c)).any(|text| {
        let text = text.trim_end_matches(['.', ':']);
        text == target.id || text.strip_suffix(&format!(":{}", target.port)) == Some(&target.id)
    })
}

/// The consequence of a call that AWS refused because of targets.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// AWS refused the targets `meant`; the others are tried again.
    Refused { meant: Vec<Target>, others: Vec<Target> },
    /// AWS refused some of the targets: they are tried in two calls.
    Halve(Vec<Target>, Vec<Target>),
    /// AWS refuses all targets of the group.
    Group,
}

fn judge(error: &AwsError, batch: &[Target]) -> Verdict {
    let (meant, others): (Vec<_>, Vec<_>) = batch.iter().cloned().partition(|target| names(error, target));
    if !meant.is_empty() {
        return Verdict::Refused { meant, others };
    }
    // The error may concern anything in the call, so a part of the call would fail as well.
    if error.code() == Some("ValidationError") {
        return Verdict::Group;
    }
    if batch.len() == 1 {
        return Verdict::Refused { meant: others, others: meant };
    }
    let (first, second) = batch.split_at(batch.len() / 2);
    Verdict::Halve(first.to_vec(), second.to_vec())
}

impl<C: Cloud, K: Cluster> Targets<C, K> {
    /// Registers the missing targets except the ones that AWS has refused lately. The number of calls is limited; the next
    /// pass continues.
    pub(crate) async fn register(
        &self,
        bound: BoundTargetGroup<'_>,
        missing: Vec<Target>,
        outcome: &mut BindingOutcome,
    ) -> Result<Registering, Failure> {
        let BoundTargetGroup { binding, arn, .. } = bound;
        let mut refusals = std::mem::take(&mut self.memory().entry(binding.name.clone()).or_default().refusals);
        if refusals.group.as_ref() != Some(arn) {
            refusals = Refusals { group: Some(arn.clone()), ..Refusals::default() };
        }
        let done = self.register_but(bound, missing, &mut refusals, outcome).await;
        self.memory().entry(binding.name.clone()).or_default().refusals = refusals;
        done
    }

    async fn register_but(
        &self,
        bound: BoundTargetGroup<'_>,
        missing: Vec<Target>,
        refusals: &mut Refusals,
        outcome: &mut BindingOutcome,
    ) -> Result<Registering, Failure> {
        let BoundTargetGroup { binding, arn, owners } = bound;
        let now = Instant::now();
        let of = |target: &Target| (binding.generation, owners.get(target).map(identity));
        refusals.targets.retain(|target, _| missing.contains(target));
        let mut done = Registering::default();
        let (mut fresh, mut again) = (Vec::new(), Vec::new());
        for target in missing {
            match refusals.wait(&target, &of(&target), now) {
                Some(Refusal { error, of_group: true, .. }) => {
                    done.failure.get_or_insert_with(|| error.clone());
                    done.unregistered.refused += 1;
                }
                Some(Refusal { error, .. }) => done.refused.push((target, error.clone())),
                // Targets that were refused before come last, so that they do not delay the others.
                None if refusals.targets.contains_key(&target) => again.push(target),
                None => fresh.push(target),
            }
        }
        let chunks = fresh.chunks(MAX_PER_CALL).chain(again.chunks(MAX_PER_CALL));
        let mut batches: VecDeque<Vec<Target>> = chunks.map(<[Target]>::to_vec).collect();
        let mut splits = MAX_SPLITS;
        let kept = refusals.zones.filter(|(_, since)| now.saturating_duration_since(*since) < SOURCE_KEPT);
        let mut source = kept.map_or(ZoneSource::Binding, |(source, _)| source);
        let mut blocks = None;
        while let Some(batch) = batches.pop_front() {
            self.permit.check("RegisterTargets")?;
            let known = match &blocks {
                Some(known) => known,
                None => blocks.insert(self.blocks(binding, arn, source).await.map_err(super::Problem::from)?),
            };
            let registrations: Vec<Registration> = {
                let snapshot = self.snapshot();
                let place = |target: &Target| {
                    let zone = zone(&snapshot, &target.id, owners.get(target), known, source);
                    let quic_server_id = owners.get(target).and_then(TargetOwner::quic_server_id);
                    Registration { target: target.clone(), zone, quic_server_id }
                };
                batch.iter().map(place).collect()
            };
            let error = match self.cloud.register(role_of(binding).as_ref(), arn, &registrations).await {
                Ok(()) => {
                    refusals.targets.retain(|target, _| !batch.contains(target));
                    outcome.registered.extend(batch);
                    continue;
                }
                Err(error) if error.is_not_found() => return Err(self.group_is_gone(binding, arn)),
                Err(error) => error,
            };
            let left = |batches: &VecDeque<Vec<Target>>| batch.len() + batches.iter().map(Vec::len).sum::<usize>();
            if let Some(next) = source.next().filter(|_| is_about_zones(&error)) {
                source = next;
                refusals.zones = Some((next, now));
                blocks = None;
                batches.push_front(batch);
                continue;
            }
            let refused = matches!(error.kind, AwsErrorKind::Refused { .. });
            if !(refused && names_targets(error.code())) {
                match error.kind {
                    AwsErrorKind::Refused { .. } | AwsErrorKind::Denied { .. } => {
                        done.unregistered.refused += left(&batches);
                    }
                    _ => done.unregistered.pending += left(&batches),
                }
                done.failure = Some(error);
                break;
            }
            let verdict = judge(&error, &batch);
            match verdict {
                Verdict::Group => {
                    done.unregistered.refused += left(&batches);
                    for target in batch.into_iter().chain(batches.drain(..).flatten()) {
                        let of = of(&target);
                        refusals.refuse(target, of, &error, true, now);
                    }
                    done.failure = Some(error);
                    break;
                }
                Verdict::Refused { meant, others } => {
                    for target in meant {
                        let of = of(&target);
                        refusals.refuse(target.clone(), of, &error, false, now);
                        done.refused.push((target, error.clone()));
                    }
                    batches.extend((!others.is_empty()).then_some(others));
                }
                Verdict::Halve(first, second) => {
                    batches.push_front(second);
                    batches.push_front(first);
                }
            }
            if batches.is_empty() {
                break;
            }
            let Some(fewer) = splits.checked_sub(1) else {
                done.unregistered.pending += batches.iter().map(Vec::len).sum::<usize>();
                done.failure = Some(error);
                break;
            };
            splits = fewer;
        }
        done.unregistered.refused += done.refused.len();
        done.refused.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(done)
    }
}
