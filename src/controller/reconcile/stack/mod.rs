//! One pass over a group of Ingresses or a Service: snapshot → desired → plan → apply → status, events, finalizers. The
//! stages are in [`pass`]; this module runs them for the controller and retries when AWS refuses a step.

pub(super) mod plan_annotation;
mod proof;
mod publish;
mod report;
mod road;
pub(super) mod whereabouts;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, PoisonError},
    time::Duration,
};

use self::whereabouts::Whereabouts;
use super::{
    apply::ApplyError,
    pass::{self, CarriedOut, Change, Planning},
    waits::{self, Due},
};
use crate::controller::{
    Controller,
    cluster::{events::EventType, kubernetes::KubernetesError, records::RecordError},
    runtime::queue::Outcome,
};
use albatross_aws::AwsError;
use albatross_core::{
    dependents::Key,
    desired::{self, Membership},
    model::{AddOn, KnownLimits, ObjectName, ObservedStack, ResourceId, StackId},
    plan::{self, Plan, Wait},
    snapshot::Snapshot,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    #[error("{0}")]
    Kubernetes(#[from] KubernetesError),
    #[error("{0}")]
    Aws(#[from] AwsError),
    #[error("{0}")]
    Apply(#[from] ApplyError),
    #[error("{0}")]
    Record(#[from] RecordError),
}

impl Controller {
    pub(crate) async fn reconcile_stack(&self, stack: &StackId) -> Outcome {
        if !desired::is_served(&self.config, stack) {
            return Outcome::Done;
        }
        let mut membership = self.with_snapshot(|snapshot| desired::membership(snapshot, &self.config, stack));
        for diagnostic in &membership.broken {
            self.report(diagnostic);
        }
        let broken = membership.broken.first().map(ToString::to_string);
        if membership.served().next().is_none() && membership.leaving.is_empty() {
            self.waits.end(stack);
            self.records.note_waits(stack, &BTreeMap::new());
            self.waits.unblocked(&stack.object().to_string());
            self.waits.unblocked(&report::certificates_of(stack));
            self.step_history.remove(stack);
            self.secrets.used(stack, &BTreeSet::new());
            self.fact_subscribers.asks(stack, &BTreeSet::new());
            return broken.map_or(Outcome::Done, Outcome::NeedsCorrection);
        }
        match self.pass(stack, &mut membership).await {
            Ok(Outcome::Done) => broken.map_or(Outcome::Done, Outcome::NeedsCorrection),
            Ok(outcome) => outcome,
            Err(error) => self.failed(stack, &membership, &error),
        }
    }

    /// Runs one pass. A member whose request AWS refuses is reported and frozen, and the pass continues with the others
    /// at once.
    async fn pass(&self, stack: &StackId, membership: &mut Membership) -> Result<Outcome, PassError> {
        // During a pass, the shared security group is not deleted, since the stack may be about to use it.
        let _in_use = self.backend_group_gate.read().await;
        // Look-ups that are due are part of this pass.
        self.inventory.uncertain_for(stack);
        self.freeze_unserved(stack, membership).await?;
        let mut refused = BTreeMap::new();
        let mut room = KnownLimits::default();
        // What AWS has not accepted in this pass is not tried again in it.
        let mut left_out: BTreeMap<AddOn, String> = BTreeMap::new();
        loop {
            let so_far = left_out.keys().copied().collect();
            let result = self.attempt(stack, membership, &refused, room, so_far).await;
            if let Err(PassError::Apply(error)) = &result {
                let failed = error.left_out.iter();
                left_out.extend(failed.filter_map(|error| Some((error.add_on?, error.to_string()))));
            }
            match result {
                Err(PassError::Apply(error)) if error.quota().is_some() => {
                    match self.tightened_limits(stack, membership, room, &error).await? {
                        Some(tightened_limits) => room = tightened_limits,
                        None if self.is_of_single_member(stack, membership, &refused, &error) => {
                            let member = error.blame().object.name.clone();
                            let members = std::slice::from_ref(&member);
                            self.failed_members(stack, members, &PassError::Apply(error), &mut refused);
                        }
                        None => return Err(error.into()),
                    }
                }
                Err(PassError::Apply(error)) if self.is_of_single_member(stack, membership, &refused, &error) => {
                    let member = error.blame().object.name.clone();
                    self.failed_members(stack, std::slice::from_ref(&member), &PassError::Apply(error), &mut refused);
                }
                Ok(Outcome::Done | Outcome::NeedsCorrection(_) | Outcome::Again(_)) if !refused.is_empty() => {
                    let what: Vec<&str> = refused.values().map(String::as_str).collect();
                    return Ok(Outcome::Failed(what.join("; ")));
                }
                Ok(Outcome::Done) if !left_out.is_empty() => {
                    let what: Vec<&str> = left_out.values().map(String::as_str).collect();
                    return Ok(Outcome::Failed(what.join("; ")));
                }
                result => return result,
            }
        }
    }

    /// Returns the limits with the quota for which AWS has refused a step, and reports to the requesters that the
    /// change continues in smaller steps. `None` if the smaller steps have been tried.
    async fn tightened_limits(
        &self,
        stack: &StackId,
        membership: &Membership,
        room: KnownLimits,
        error: &ApplyError,
    ) -> Result<Option<KnownLimits>, PassError> {
        let Some(quota) = error.quota() else { return Ok(None) };
        let Some(tightened_limits) = room.refused(quota, &self.inventory.observe_whole(stack).await?) else {
            return Ok(None);
        };
        let message = error.goes_on_in_steps(quota);
        tracing::warn!(group = %stack, "{message}");
        let names: Vec<ObjectName> = membership.members.iter().chain(&membership.leaving).cloned().collect();
        let blamed = &error.blame().object;
        let is_member = names.iter().any(|name| *blamed == stack.member(name));
        let reported = if is_member && !error.of_all { std::slice::from_ref(&blamed.name) } else { &names };
        for subject in self.subjects(stack, reported) {
            self.events.record(EventType::Warning, &subject, "QuotaReached", &message);
        }
        Ok(Some(tightened_limits))
    }

    /// Freezes the members that have moved to another group but still show this stack's load balancer in their status: the
    /// other group does not serve them yet. Those that show another one stay as long as a replaced load balancer does, since
    /// clients have to find it.
    async fn freeze_unserved(&self, stack: &StackId, membership: &mut Membership) -> Result<(), PassError> {
        if membership.moving.is_empty() {
            self.waits.follow(stack, &membership.followed);
            return Ok(());
        }
        let observed = self.inventory.observe(stack).await?;
        for name in membership.moving.clone() {
            let place = self.with_snapshot(|s| Whereabouts::of_moving(&name, stack, s, &observed));
            // Anybody may write a group's finalizer.
            let (member, moved) = (stack.member(&name), Wait::Moved(name.clone()));
            let was_here = !stack.is_shared()
                || self.waits.has(stack, &moved)
                || observed.member_resources.iter().any(|held| held.member == member);
            let stays = match place {
                Whereabouts::Here | Whereabouts::Former(_) => {
                    // The time begins when it is published elsewhere; a restart remembers who was here.
                    membership.followed.insert(name.clone());
                    self.waits.remember(stack, &moved);
                    true
                }
                Whereabouts::Elsewhere if was_here && !observed.load_balancers.is_empty() => {
                    membership.followed.insert(name.clone());
                    self.waits.runs(stack, &moved)
                }
                Whereabouts::Elsewhere | Whereabouts::Nowhere => false,
            };
            if stays {
                membership.freeze_moving(&name);
            }
        }
        self.waits.follow(stack, &membership.followed);
        Ok(())
    }

    /// Returns true if a step failed permanently and the error belongs to one of several members.
    fn is_of_single_member(
        &self,
        stack: &StackId,
        membership: &Membership,
        refused: &BTreeMap<ObjectName, String>,
        error: &ApplyError,
    ) -> bool {
        let blamed = error.blame();
        stack.is_shared()
            && membership.members.len() > 1
            && error.is_attributable()
            && membership.served().any(|name| blamed.object == stack.member(name))
            && !refused.contains_key(&blamed.object.name)
    }

    async fn attempt(
        &self,
        group: &StackId,
        membership: &Membership,
        refused: &BTreeMap<ObjectName, String>,
        room: KnownLimits,
        left_out: BTreeSet<AddOn>,
    ) -> Result<Outcome, PassError> {
        let building = self.timed(group, "build_model", pass::resolve(self, group, membership, refused));
        let Some(built) = building.await? else {
            return Ok(Outcome::Again(Duration::from_secs(1)));
        };
        let reported = self.report_built(group, membership, &built);
        // Without a desired stack, the observed resources stay as they are.
        let Some(stack) = &built.stack else {
            if built.unavailable.is_empty() {
                self.waits.end_health(group);
            }
            if let Some(again) = self.waits.again(group) {
                self.queue.run_within(&Key::Stack(group.clone()), again);
            }
            self.records.note_waits(group, &self.waits.ages(group));
            return Ok(reported.unwrap_or(Outcome::Done));
        };
        let mut observed = ObservedStack { left_out, ..pass::observe(self, group, room).await? };
        let whereabouts = self.with_snapshot(|s| Whereabouts::of_served(membership, stack, s, &observed));
        for (name, place) in whereabouts.iter().filter(|(_, place)| place.is_elsewhere()) {
            observed.arriving.insert(group.member(name));
            if let Whereabouts::Former(former) = place {
                observed.shown.insert(former.clone());
            }
        }
        observed.shown.extend(self.with_snapshot(|s| whereabouts::shown_in_front(membership, stack, s, &observed)));
        if refused.is_empty() {
            self.step_history.begin(stack);
        }
        let Planning { mut plan, mut observed, unread } = pass::plan(self, stack, observed).await?;
        let reported = self.report_unread(group, membership, stack, &unread).or(reported);
        let keeps_certificate = plan.withhold_paused(&observed);
        let repeated = self.step_history.withhold(group, &mut plan);
        let reported = self.report_repeats(group, membership, &repeated).or(reported);
        let (frozen, absent) = (&built.frozen, &built.absent);
        let whereabouts = &whereabouts;
        let change = Change { membership, stack, frozen, absent, observed: &observed, whereabouts, plan: &plan };
        if self.waits.begin(group, &plan, !observed.arriving.is_empty()) {
            self.queue.add(Key::NodeRules);
        }
        self.records.note_waits(group, &self.waits.ages(group));
        let carried_out = pass::carry_out(self, &change).await;
        // What AWS refuses is part of what is requested. The annotation holds up no change, and a failed change not the annotation.
        if refused.is_empty() {
            Box::pin(self.write_plan_annotation(stack, membership)).await;
        }
        let left_out = match carried_out? {
            // The watch lags behind and will queue the stack again; this retry is only a safeguard.
            CarriedOut::Unproved => return Ok(Outcome::Again(Duration::from_secs(1))),
            CarriedOut::Applied(left_out) => {
                self.queue_after(&plan);
                left_out
            }
            CarriedOut::Nothing => Vec::new(),
        };
        let waiting = self.report_left_out(group, membership, &left_out);
        let reported = waiting.filter(|outcome| reported.is_none() || *outcome != Outcome::NotYet).or(reported);
        self.waits.unblocked(&group.object().to_string());
        if !keeps_certificate && left_out.iter().all(|error| error.blocked_certificate().is_none()) {
            self.waits.unblocked(&report::certificates_of(group));
        }
        observed.left_out.extend(left_out.iter().filter_map(|error| error.add_on));
        self.waits.retain_add_ons(group, &observed.left_out);
        let change = Change { membership, stack, frozen, absent, observed: &observed, whereabouts, plan: &plan };
        let publishing = self.publish(&change);
        let (outcome, kept) = self.timed(group, "dns_resolve_and_update_status", publishing).await?;
        let outcome = self.after_waits(group, membership, &plan, &kept, outcome);
        Ok(match reported {
            Some(reported) if outcome == Outcome::Done || matches!(reported, Outcome::Failed(_)) => reported,
            _ => outcome,
        })
    }

    /// Records the plan's waits, and `kept`. Returns the outcome of the pass, with a retry at the time when a wait ends.
    fn after_waits(
        &self,
        group: &StackId,
        membership: &Membership,
        plan: &Plan,
        kept: &BTreeSet<Wait>,
        outcome: Outcome,
    ) -> Outcome {
        let Due { again, reports, unhealthy } = self.waits.note(group, plan, kept);
        self.records.note_waits(group, &self.waits.ages(group));
        for message in reports {
            tracing::warn!(%group, "{message}");
            for subject in self.subjects(group, &[&*membership.members, &membership.leaving].concat()) {
                self.events.record(EventType::Warning, &subject, "WaitTakesLong", &message);
            }
        }
        for name in membership.served() {
            let member = group.member(name);
            // Of a Service alone, all are its own.
            let of_it = |id: &&ResourceId| id.may_be_of(&member) || matches!(group, StackId::Service(_));
            let its: BTreeSet<ResourceId> = unhealthy.iter().filter(of_it).cloned().collect();
            if !its.is_empty() {
                let message = waits::still_unhealthy(its, self.waits.healthy_within());
                tracing::warn!(%group, "{message}");
                for subject in self.subjects(group, std::slice::from_ref(name)) {
                    self.events.record(EventType::Warning, &subject, "WaitTakesLong", &message);
                }
            }
        }
        let again = again.into_iter().chain(self.inventory.next_certificate_deletion(group)).min();
        if let Some(again) = again {
            // Also where a member's failure gives the stack a longer pause.
            self.queue.run_within(&Key::Stack(group.clone()), again);
        }
        match outcome {
            Outcome::Done => self.inventory.uncertain_for(group).map_or(Outcome::Done, Outcome::Again),
            outcome => outcome,
        }
    }

    /// Runs a stage of a pass, named as in aws-load-balancer-controller, and records its duration.
    pub(super) async fn timed<T>(&self, stack: &StackId, stage: &str, work: impl Future<Output = T>) -> T {
        let started = std::time::Instant::now();
        let done = Box::pin(work).await;
        self.metrics.reconcile_stage(label(stack), stage, started.elapsed());
        done
    }

    /// Queues the keys that depend on the plan but that no watch queues. A new binding is queued by its watch.
    fn queue_after(&self, plan: &Plan) {
        if plan.steps().iter().any(|step| matches!(step.action, plan::StepAction::DeleteLoadBalancer { .. })) {
            self.queue.add(Key::NodeRules);
        }
    }

    pub(crate) fn with_snapshot<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(&Arc::as_ref(&self.snapshot).read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns the controller label of a stack in metrics.
fn label(stack: &StackId) -> &'static str {
    crate::controller::metrics::controller_of(&Key::Stack(stack.clone()))
}
