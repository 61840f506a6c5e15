//! The controller as an implementation of the traits of [`pass`](super::super::pass): it answers facts, reads AWS and
//! carries plans out.

use std::collections::BTreeSet;

use super::PassError;
use crate::controller::{
    Controller,
    reconcile::apply::ApplyError,
    reconcile::pass::{Change, ClusterView, FactSource, PlanApplier, StackReader},
};
use albatross_aws::{AwsError, Priority, current_priority};
use albatross_core::{
    dependents::{self, Key},
    desired::{BuildConfig, Membership},
    facts::{Fact, FactQuery, Facts},
    model::{LoadBalancerArn, ObjectName, ObservedBinding, ObservedStack, SecurityGroupId, StackId, TargetGroupArn},
    plan::{self, AssumedSecret, Reads, Step},
    snapshot::Snapshot,
};

impl ClusterView for Controller {
    fn config(&self) -> &BuildConfig {
        &self.config
    }

    fn with_snapshot<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        Self::with_snapshot(self, read)
    }
}

impl FactSource for Controller {
    type Error = PassError;

    async fn answer(&self, stack: &StackId, want: &FactQuery, facts: &mut Facts) {
        if let FactQuery::Secret(name) = want {
            let fact = self.secrets.answer(name, stack).await;
            facts.secrets.insert(name.clone(), fact);
            return;
        }
        self.facts.answer(want, facts).await;
        let others = self.fact_subscribers.note(stack, want, facts);
        self.queue.resync(others.into_iter().map(Key::Stack));
    }

    async fn backend_security_group(
        &self,
        stack: &StackId,
        membership: &Membership,
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<Fact<SecurityGroupId>, PassError> {
        // The group may be created here, and members that need it must hold their finalizer first.
        self.ensure_finalizer(stack, membership, frozen).await?;
        Ok(Fact::Known(self.applier.ensure_backend_security_group(&self.config).await?))
    }

    fn resolved(&self, stack: &StackId, facts: &Facts, asked: &BTreeSet<FactQuery>) {
        self.secrets.used(stack, &facts.secrets.keys().collect());
        self.fact_subscribers.asks(stack, asked);
    }
}

impl StackReader for Controller {
    async fn observe(&self, stack: &StackId) -> Result<ObservedStack, AwsError> {
        self.inventory.observe(stack).await
    }

    async fn observe_whole(&self, stack: &StackId) -> Result<ObservedStack, AwsError> {
        self.inventory.observe_whole(stack).await
    }

    fn complete(&self, stack: &StackId, mut observed: ObservedStack) -> ObservedStack {
        observed.tag_keys = self.records.tag_keys(stack);
        let expired = self.waits.expired(stack);
        observed.expired = expired.load_balancers;
        observed.retained_ports = expired.listeners;
        observed.retains_listeners = !expired.retains_nothing;
        observed.opened_ports = expired.opened;
        observed.awaits_opening = !expired.opens_at_once;
        observed.awaits_health = !expired.awaits_nothing;
        observed.health_overdue = expired.health;
        observed.bindings = self.with_snapshot(|snapshot| {
            snapshot
                .target_group_bindings
                .values()
                .filter(|binding| dependents::is_binding_of(stack, binding, &observed, snapshot))
                .filter_map(|binding| {
                    Some(ObservedBinding {
                        name: binding.name.clone(),
                        target_group: TargetGroupArn::new(binding.spec.target_group_arn.clone()?),
                        resource_version: binding.resource_version.clone(),
                        labels: binding.labels.clone(),
                        spec: binding.spec.clone(),
                        deleting: binding.deleting,
                        allows_sources: self.targets.allows_sources(binding),
                        registered: self.targets.registered(binding),
                    })
                })
                .collect()
        });
        observed
    }

    async fn read(&self, stack: &StackId, reads: &Reads) -> Result<(), AwsError> {
        self.inventory.read(stack, reads).await
    }

    async fn healthy(&self, group: &TargetGroupArn) -> Result<usize, AwsError> {
        self.inventory.healthy(group).await
    }

    async fn read_states(&self, stack: &StackId) -> Result<(), AwsError> {
        self.inventory.read_states(stack).await
    }

    fn was_protected(&self, load_balancer: &LoadBalancerArn) -> bool {
        self.inventory.was_protected(load_balancer)
    }

    fn assume_secrets(&self, stack: &StackId, assumed: &[AssumedSecret]) {
        let count = assumed.len();
        tracing::info!(group = %stack, count, "AWS is assumed to have the current client secrets of rules");
        self.inventory.assume_secrets(assumed);
    }
}

impl PlanApplier for Controller {
    type Error = PassError;
    type LeftOut = ApplyError;

    async fn prove(&self, change: &Change<'_>) -> Result<bool, PassError> {
        let Change { membership, stack, absent, observed, plan, .. } = *change;
        Ok(self.proved(&stack.id, membership, observed, absent, plan).await?)
    }

    async fn ensure_finalizer(&self, change: &Change<'_>) -> Result<(), PassError> {
        Ok(Self::ensure_finalizer(self, &change.stack.id, change.membership, change.frozen).await?)
    }

    async fn mark_dirty(&self, change: &Change<'_>) -> Result<(), PassError> {
        let Change { stack, observed, .. } = *change;
        Ok(self.records.mark_dirty(&stack.id, observed, plan::tag_keys(stack, observed)).await?)
    }

    async fn apply(&self, change: &Change<'_>) -> Result<Vec<ApplyError>, PassError> {
        let Change { membership, stack, plan, .. } = *change;
        let group = &stack.id;
        tracing::info!(%group, summary = plan::summary(plan), "applying a plan");
        let applying = self.timed(group, "deploy_model", self.applier.apply(group, plan));
        let applied = applying.await.map_err(|error| error.attributed(&stack.requesters));
        let carried_out = match &applied {
            Ok(applied) => &applied.carried_out,
            Err(error) => &error.carried_out,
        };
        let carried_out: Vec<Step> = carried_out.iter().filter_map(|place| plan.steps().get(*place).cloned()).collect();
        self.step_history.remember(group, &carried_out);
        self.waits.carried_out(group, &carried_out);
        for step in &carried_out {
            self.metrics.plan_step(step.action.kind());
            if current_priority() == Priority::Audit {
                self.metrics.drift_step(step.action.kind());
            }
        }
        let error = match applied {
            Ok(applied) => return Ok(applied.left_out),
            Err(error) => error,
        };
        // Whatever else fails, who lacks an add-on is told.
        self.report_left_out(group, membership, &error.left_out);
        if error.is_not_yet() || lacks_only_the_front(&error, plan.steps()) {
            // Only a deletion waits, perhaps for a long time, or only what is in front lacks something. Everything else that
            // serves traffic is in place, so its host name is published.
            self.write_status(change, &self.observe_after(change).await?).await?;
        }
        if error.is_not_yet() || !error.is_transient() {
            // The error may last for a long time, and it does not concern the leaving members.
            self.release(group, membership, stack, &self.observe_after(change).await?).await?;
        }
        Err(error.into())
    }
}

/// Returns true if AWS refuses a step of what is in front, and all that is behind is in place.
fn lacks_only_the_front(error: &ApplyError, steps: &[Step]) -> bool {
    let mut steps = steps.iter().enumerate();
    error.in_front
        && !error.is_transient()
        && steps.all(|(place, step)| step.in_front || error.carried_out.contains(&place))
}

impl Controller {
    /// Returns the observed state of a stack after a plan, with what was read for it.
    pub(super) async fn observe_after(&self, change: &Change<'_>) -> Result<ObservedStack, AwsError> {
        let (before, stack) = (change.observed, change.stack);
        let mut observed = self.observe_completely(&stack.id).await?;
        if stack.load_balancer.as_ref().is_some_and(|wanted| observed.is_exposed(wanted)) {
            // One that lacks its web ACL is published when it serves, and only AWS knows if it does.
            match self.inventory.read_states(&stack.id).await {
                Ok(()) => observed = self.observe_completely(&stack.id).await?,
                Err(error) => tracing::warn!(group = %stack.id, "the state of the load balancer is not known: {error}"),
            }
        }
        Ok(ObservedStack {
            healthy: before.healthy.clone(),
            arriving: before.arriving.clone(),
            shown: before.shown.clone(),
            states_are_read: before.states_are_read,
            left_out: before.left_out.clone(),
            ..observed
        })
    }

    /// Returns the observed state of a stack, including the state that is not read from AWS.
    pub(super) async fn observe_completely(&self, stack: &StackId) -> Result<ObservedStack, AwsError> {
        let observed = self.inventory.observe(stack).await?;
        Ok(self.complete(stack, observed))
    }
}
