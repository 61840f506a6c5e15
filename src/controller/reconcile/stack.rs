//! One pass over a group of Ingresses or a Service, along the one road: snapshot → desired → plan → apply → status, events,
//! finalizers.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{step_history::Repeated, waits::Due};
use crate::controller::reconcile::apply::ApplyError;
use crate::controller::{
    Controller,
    cluster::{
        events::{EventType, Subject},
        kubernetes::KubernetesError,
        records::RecordError,
    },
    runtime::queue::Outcome,
};
use albatross_aws::{AwsError, Priority, current_priority};
use albatross_core::dependents::{self, Key};
use albatross_core::{
    desired::{
        self, Built, Membership,
        sources::{ingress, service},
    },
    diagnostics::{Code, Diagnostic, Severity, capped},
    facts::{ExistingLoadBalancer, FactQuery, Facts},
    model::{
        KnownLimits, ObjectKind, ObjectName, ObjectReference, ObservedBinding, ObservedLoadBalancer, ObservedStack,
        Stack, StackId, tags,
    },
    plan::{self, Plan, Planned, Step},
    snapshot::{Ingress, Service, Snapshot},
};

/// Facts may ask for facts; more rounds than this mean that building never ends.
const ROUNDS: usize = 8;

#[derive(Debug, thiserror::Error)]
enum PassError {
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
            self.waits.note(stack, None, self.replacement_hold);
            self.waits.unblocked(&stack.object().to_string());
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

    /// One pass; a member whose part AWS refuses is told and set aside, and the others are gone on with at once.
    async fn pass(&self, stack: &StackId, membership: &mut Membership) -> Result<Outcome, PassError> {
        // While a group is worked on, the shared security group that it may be about to use is not deleted.
        let _in_use = self.backend_group_gate.read().await;
        // What is due is looked for in this pass.
        self.inventory.uncertain_for(stack);
        self.freeze_unserved(stack, membership).await?;
        let mut refused = BTreeMap::new();
        let mut room = KnownLimits::default();
        loop {
            match self.attempt(stack, membership, &refused, room).await {
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
                result => return result,
            }
        }
    }

    /// Returns what room there is since AWS has refused a step for a quota, and tells who asks for it that the change goes on in
    /// smaller steps. `None` where those have been tried.
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

    /// Who has gone to another group that does not serve it yet is still served by this one.
    async fn freeze_unserved(&self, stack: &StackId, membership: &mut Membership) -> Result<(), PassError> {
        if membership.moving.is_empty() {
            return Ok(());
        }
        let observed = self.inventory.observe(stack).await?;
        let hosts: Vec<String> = observed.load_balancers.iter().map(|b| b.dns_name.to_lowercase()).collect();
        for name in membership.moving.clone() {
            let shows = |s: &Snapshot| {
                desired::member(s, stack, &name)
                    .is_some_and(|member| member.status.iter().any(|entry| hosts.contains(&entry.hostname)))
            };
            if self.with_snapshot(shows) {
                membership.freeze_moving(&name);
            }
        }
        Ok(())
    }

    /// Whether a step failed for good, and only one of several members is to blame.
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
    ) -> Result<Outcome, PassError> {
        let building = self.timed(group, "build_model", self.build(group, membership, refused));
        let Some(built) = building.await? else {
            return Ok(Outcome::Again(Duration::from_secs(1)));
        };
        for diagnostic in &capped(&built.diagnostics) {
            self.report(diagnostic);
        }
        // What is wrong in the cluster brings the stack back by itself; what is wrong in AWS does not.
        let errors = capped(&built.diagnostics).into_iter().filter(|d| d.severity == Severity::Error);
        let mistakes = errors.map(|error| error.to_string()).collect::<Vec<_>>().join("; ");
        let unavailable = built.unavailable.join("; ");
        if !unavailable.is_empty() {
            tracing::warn!(%group, "{unavailable}; trying again");
            let waiting: Vec<ObjectName> = match &built.stack {
                Some(_) => built.frozen.iter().cloned().collect(),
                None => membership.members.clone(),
            };
            for subject in self.subjects(group, &waiting) {
                let message = format!("Failed build model due to {unavailable}");
                self.events.record(EventType::Warning, &subject, "FailedBuildModel", &message);
            }
        }
        let reported = if !unavailable.is_empty() {
            Some(Outcome::Failed(unavailable))
        } else if built.lacking {
            Some(Outcome::Failed(mistakes))
        } else if mistakes.is_empty() {
            None
        } else {
            Some(Outcome::NeedsCorrection(mistakes))
        };
        // Without a stack, what there is stays as it is.
        let Some(stack) = built.stack else { return Ok(reported.unwrap_or(Outcome::Done)) };
        let mut observed = self.observe_within(group, room).await?;
        if observed.load_balancers.len() > 1 && observed.load_balancers.iter().any(|balancer| !balancer.is_active()) {
            self.inventory.read_states(group).await?;
            observed = self.observe_within(group, room).await?;
        }
        let stays = |old: &&ObservedLoadBalancer| old.is_protected() && observed.expired.contains(&old.arn);
        if let Some(old) = observed.load_balancers.iter().find(stays) {
            // The protection may be off by now.
            let reads = plan::Reads { load_balancer: Some(old.arn.clone()), ..plan::Reads::default() };
            self.inventory.read(group, &reads).await?;
            observed = self.observe_within(group, room).await?;
        }
        if refused.is_empty() {
            self.step_history.begin(&stack);
        }
        let mut plan = loop {
            // Who is taken over is believed, once. Of a stack that has a record it is known what AWS was given, or doubted.
            if observed.tag_keys.is_none() {
                let assumed = plan::assumed_secrets(&stack, &observed);
                if !assumed.is_empty() {
                    let count = assumed.len();
                    tracing::info!(%group, count, "AWS is taken to have the client secrets of rules as they are");
                    self.inventory.assume_secrets(&assumed);
                    observed = self.observe_within(group, room).await?;
                }
            }
            match plan::plan(&stack, &observed) {
                Planned::Ready(plan) => break plan,
                Planned::Need(reads) => self.inventory.read(group, &reads).await?,
            }
            observed = self.observe_within(group, room).await?;
        };
        let repeated = self.step_history.withhold(group, &mut plan);
        let reported = self.report_repeats(group, membership, &repeated).or(reported);
        if plan.steps.is_empty() {
            // Somebody may have taken the finalizer off (`kubectl replace` does), and all this would be left behind.
            self.ensure_finalizer(group, membership, &built.frozen).await?;
        } else {
            if !self.proved(group, membership, &observed, &built.absent, &plan).await? {
                // The watch is behind: it will bring the group back, this only makes sure.
                return Ok(Outcome::Again(Duration::from_secs(1)));
            }
            self.ensure_finalizer(group, membership, &built.frozen).await?;
            self.records.mark_dirty(group, plan::tag_keys(&stack, &observed)).await?;
            tracing::info!(%group, summary = plan::summary(&plan), "applying a plan");
            let applying = self.timed(group, "deploy_model", self.applier.apply(group, &plan));
            let applied = applying.await.map_err(|error| error.attributed(&stack.requesters));
            let carried_out: Vec<Step> = match &applied {
                Ok(_) => plan.steps.clone(),
                Err(error) => error.carried_out.iter().filter_map(|place| plan.steps.get(*place).cloned()).collect(),
            };
            self.step_history.remember(group, &carried_out);
            for step in &carried_out {
                self.metrics.plan_step(step.action.kind());
                if current_priority() == Priority::Audit {
                    self.metrics.drift_step(step.action.kind());
                }
            }
            if let Err(error) = applied {
                if error.is_not_yet() {
                    // Only a deletion waits, perhaps for ever; all that serves is in place, and people shall find it.
                    self.write_status(membership, &stack, &self.observe(group).await?).await?;
                }
                if error.is_not_yet() || !error.is_transient() {
                    // It may be so for long, and it concerns those who leave no more.
                    self.release(group, membership, &stack, &self.observe(group).await?).await?;
                }
                return Err(error.into());
            }
            self.queue_after(&plan);
        }
        self.waits.unblocked(&group.object().to_string());
        let publishing = self.publish(group, membership, &stack, &plan);
        let outcome = self.timed(group, "dns_resolve_and_update_status", publishing).await?;
        let due = self.waits.note(group, plan.wait.as_ref(), self.replacement_hold);
        if due == Some(Due::Later(super::waits::DEADLINE)) && matches!(plan.wait, Some(plan::Wait::LetIn(_))) {
            self.queue.add(Key::NodeRules);
        }
        let outcome = match due {
            Some(Due::Later(left)) if outcome == Outcome::Done => Outcome::Again(left),
            Some(Due::Report(message)) => {
                tracing::warn!(%group, "{message}");
                for subject in self.subjects(group, &[&*membership.members, &membership.leaving].concat()) {
                    self.events.record(EventType::Warning, &subject, "WaitTakesLong", &message);
                }
                outcome
            }
            _ => outcome,
        };
        let outcome = match outcome {
            Outcome::Done => self.inventory.uncertain_for(group).map_or(Outcome::Done, Outcome::Again),
            outcome => outcome,
        };
        Ok(match reported {
            Some(reported) if outcome == Outcome::Done || matches!(reported, Outcome::Failed(_)) => reported,
            _ => outcome,
        })
    }

    /// Does a stage of a pass, named as aws-load-balancer-controller names it, and records how long it took.
    async fn timed<T>(&self, stack: &StackId, stage: &str, work: impl Future<Output = T>) -> T {
        let started = std::time::Instant::now();
        let done = Box::pin(work).await;
        self.metrics.reconcile_stage(label(stack), stage, started.elapsed());
        done
    }

    /// Builds until nothing more is wanted. `None` when that does not come to an end, and should be tried again.
    async fn build(
        &self,
        stack: &StackId,
        membership: &Membership,
        refused: &BTreeMap<ObjectName, String>,
    ) -> Result<Option<Built>, PassError> {
        let mut facts = Facts { refused: refused.keys().cloned().collect(), ..Facts::default() };
        if !membership.is_empty() {
            let mut observed = self.inventory.observe(stack).await?;
            // While one replaces another, a Service without a scheme keeps that of the one that clients are sent to.
            let shown = self.with_snapshot(|snapshot| desired::shown_hosts(snapshot, stack));
            observed.load_balancers.sort_by_key(|balancer| !shown.contains(&balancer.dns_name.to_lowercase()));
            let mut all_existing = observed.load_balancers.iter().map(|balancer| ExistingLoadBalancer {
                kind: balancer.kind,
                scheme: balancer.scheme,
                has_security_groups: !balancer.security_groups.is_empty(),
                subnets: balancer.subnets.clone(),
            });
            facts.existing = all_existing.next();
            facts.other_existing = all_existing.collect();
            facts.hostnames = observed.load_balancers.iter().map(|b| b.dns_name.to_lowercase()).collect();
            facts.names = observed.load_balancers.iter().map(|balancer| balancer.name.clone()).collect();
        }
        let mut asked = BTreeSet::new();
        for _ in 0..ROUNDS {
            let built =
                self.with_snapshot(|snapshot| desired::build(snapshot, &self.config, &facts, stack, membership));
            // In a group, a mistake concerns one member, and the others still want to know.
            let alone = membership.members.len() < 2;
            let broken = built.diagnostics.iter().any(|d| d.severity == Severity::Error);
            if built.wants.is_empty() || alone && (broken || !built.unavailable.is_empty()) {
                // Also where nothing comes of it: an object that is edited again and again asks for something else each time.
                self.secrets.used(stack, &facts.secrets.keys().collect());
                self.fact_subscribers.asks(stack, &asked);
                return Ok(Some(built));
            }
            // What only has to be read comes first: nothing is created for what then turns out not to be possible.
            let reads = built.wants.iter().any(FactQuery::is_read);
            for want in built.wants.iter().filter(|want| !reads || want.is_read()) {
                if *want == FactQuery::Current {
                    facts.current = Some(Box::new(self.inventory.observe_whole(stack).await?));
                } else if *want == FactQuery::Protection {
                    facts.protected = Some(self.protected(stack).await?);
                } else if let FactQuery::Secret(name) = want {
                    let fact = self.secrets.answer(name, stack).await;
                    facts.secrets.insert(name.clone(), fact);
                } else if want.is_read() {
                    self.facts.answer(want, &mut facts).await;
                    asked.insert(want.clone());
                    let others = self.fact_subscribers.note(stack, want, &facts);
                    self.queue.resync(others.into_iter().map(Key::Stack));
                } else {
                    // It may be created here, and whoever needs it has to be known first.
                    self.ensure_finalizer(stack, membership, &built.frozen).await?;
                    let id = self.applier.ensure_backend_security_group(&self.config).await?;
                    facts.backend_security_group = Some(albatross_core::facts::Fact::Known(id));
                }
            }
        }
        Ok(None)
    }

    /// Returns the names of the stack's load balancers that AWS says are protected from deletion (DescribeLoadBalancerAttributes).
    async fn protected(&self, stack: &StackId) -> Result<BTreeSet<String>, PassError> {
        for balancer in self.inventory.observe(stack).await?.load_balancers {
            let reads = plan::Reads { load_balancer: Some(balancer.arn), ..plan::Reads::default() };
            self.inventory.read(stack, &reads).await?;
        }
        let observed = self.inventory.observe(stack).await?;
        let protected = observed.load_balancers.into_iter().filter(ObservedLoadBalancer::is_protected);
        Ok(protected.map(|balancer| balancer.name).collect())
    }

    /// As [`Self::observe`], with the room that AWS has left.
    async fn observe_within(&self, stack: &StackId, room: KnownLimits) -> Result<ObservedStack, PassError> {
        Ok(ObservedStack { room, ..self.observe(stack).await? })
    }

    async fn observe(&self, stack: &StackId) -> Result<ObservedStack, PassError> {
        let mut observed = self.inventory.observe(stack).await?;
        observed.tag_keys = self.records.tag_keys(stack);
        observed.expired = self.waits.expired(stack, self.replacement_hold);
        observed.bindings = self.with_snapshot(|snapshot| {
            snapshot
                .target_group_bindings
                .values()
                .filter(|binding| dependents::is_binding_of(stack, binding, &observed, snapshot))
                .filter_map(|binding| {
                    Some(ObservedBinding {
                        name: binding.name.clone(),
                        target_group: albatross_core::model::TargetGroupArn::new(
                            binding.spec.target_group_arn.clone()?,
                        ),
                        resource_version: binding.resource_version.clone(),
                        labels: binding.labels.clone(),
                        spec: binding.spec.clone(),
                        deleting: binding.deleting,
                        allows_sources: self.targets.allows_sources(binding),
                    })
                })
                .collect()
        });
        Ok(observed)
    }

    /// Proves with the API server that what the plan takes for gone is gone, and that who leaves really leaves.
    async fn proved(
        &self,
        stack: &StackId,
        membership: &Membership,
        observed: &ObservedStack,
        absent: &BTreeSet<ObjectReference>,
        plan: &Plan,
    ) -> Result<bool, KubernetesError> {
        for reference in absent {
            if reference.kind == ObjectKind::Service && self.kubernetes.service(&reference.name).await?.is_some() {
                return Ok(false);
            }
        }
        match stack {
            StackId::Group(_) | StackId::Ingress(_) => {
                self.proved_by_ingresses(stack, membership, observed, plan).await
            }
            StackId::Service(name) => self.proved_by_service(name, membership).await,
        }
    }

    /// Proves that a Service that leaves is not served any more.
    async fn proved_by_service(&self, name: &ObjectName, membership: &Membership) -> Result<bool, KubernetesError> {
        if membership.leaving.is_empty() {
            return Ok(true);
        }
        let fresh = self.kubernetes.service(name).await?;
        let ours = |fresh: &Service| service::ownership(fresh, &self.config) == service::Ownership::Ours;
        Ok(!fresh.is_some_and(|fresh| ours(&fresh)))
    }

    /// Proves that Ingresses still ask for a load balancer that replaces another, and that those that leave really leave.
    async fn proved_by_ingresses(
        &self,
        stack: &StackId,
        membership: &Membership,
        observed: &ObservedStack,
        plan: &Plan,
    ) -> Result<bool, KubernetesError> {
        let replaces = |step: &plan::Step| matches!(step.action, plan::StepAction::DeleteLoadBalancer { .. });
        if !membership.members.is_empty() && plan.steps.iter().any(replaces) {
            // What another load balancer was made for has to be asked for still.
            for name in &membership.members {
                let fresh = self.kubernetes.ingress(name).await?;
                let same = |known: &Ingress, fresh: &Ingress| {
                    (known.generation, &known.annotations) == (fresh.generation, &fresh.annotations)
                };
                let known = self.with_snapshot(|s| s.ingresses.get(name).cloned());
                if !known.zip(fresh).is_some_and(|(known, fresh)| same(&known, &fresh)) {
                    return Ok(false);
                }
            }
        }
        let holders = observed.member_resources.iter().map(|resources| &resources.member);
        let gone = holders.filter(|name| !membership.members.contains(name) && !membership.leaving.contains(name));
        for name in membership.leaving.iter().chain(gone) {
            let Some(fresh) = self.kubernetes.ingress(name).await? else { continue };
            if !fresh.deleting && !self.left(&fresh, stack).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether an Ingress that is not being deleted is of another class or group by now, judged by fresh objects.
    async fn left(&self, fresh: &Ingress, stack: &StackId) -> Result<bool, KubernetesError> {
        let mut snapshot = Snapshot::default();
        let classes: Vec<String> = match &fresh.class {
            Some(class) => vec![class.clone()],
            None => self.with_snapshot(|known| known.ingress_classes.keys().map(|name| name.name.clone()).collect()),
        };
        for class in classes {
            let Some(class) = self.kubernetes.ingress_class(&class).await? else { continue };
            if let Some(parameters) = &class.parameters
                && let Some(params) = self.kubernetes.ingress_class_params(&parameters.name).await?
            {
                snapshot.apply(params);
            }
            snapshot.apply(class);
        }
        if snapshot.ingress_class_params.values().any(|params| params.spec.namespace_selector.is_some())
            && let Some(namespace) = self.kubernetes.namespace(&fresh.name.namespace).await?
        {
            snapshot.apply(namespace);
        }
        snapshot.apply(fresh.clone());
        Ok(ingress::has_left(fresh, &snapshot, &self.config, stack))
    }

    /// Puts the group's finalizer on its members, before anything is made for them.
    async fn ensure_finalizer(
        &self,
        stack: &StackId,
        membership: &Membership,
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<(), KubernetesError> {
        let finalizer = tags::finalizer(stack);
        for name in membership.served().filter(|name| !frozen.contains(name)) {
            let held = self.with_snapshot(|s| {
                desired::member(s, stack, name).is_some_and(|member| member.finalizers.contains(&finalizer))
            });
            if !held && self.permit.holds() {
                self.kubernetes.add_finalizer(&stack.member(name), &finalizer).await?;
            }
        }
        Ok(())
    }

    /// Bindings that the plan made are worked on when their watch brings them; here only what no watch brings.
    fn queue_after(&self, plan: &Plan) {
        if plan.steps.iter().any(|step| matches!(step.action, plan::StepAction::DeleteLoadBalancer { .. })) {
            self.queue.add(Key::NodeRules);
        }
    }

    /// Tells the members where their load balancer is, those that say something else.
    async fn write_status(
        &self,
        membership: &Membership,
        stack: &Stack,
        observed: &ObservedStack,
    ) -> Result<(), KubernetesError> {
        if let Some(balancer) = stack.load_balancer.as_ref().and_then(|wanted| observed.published(wanted)) {
            let hostname = balancer.dns_name.to_lowercase();
            match &stack.id {
                StackId::Group(_) | StackId::Ingress(_) => {
                    let kept = balancer.known_listeners().map(|l| l.port).filter(|_| !stack.frozen.is_empty());
                    let ports: BTreeSet<u16> = stack.listeners.keys().copied().chain(kept).collect();
                    let ports: Vec<u16> = ports.into_iter().collect();
                    for name in membership.served().filter(|name| !stack.frozen.members.contains(name)) {
                        self.write_ingress_status(name, &hostname, &ports).await?;
                    }
                }
                StackId::Service(name) => self.write_service_status(name, &hostname).await?,
            }
        }
        Ok(())
    }

    /// Tells an Ingress where its load balancer is.
    async fn write_ingress_status(
        &self,
        name: &ObjectName,
        hostname: &str,
        ports: &[u16],
    ) -> Result<(), KubernetesError> {
        let current = self.with_snapshot(|s| s.ingresses.get(name).map(|i| i.status.clone())).unwrap_or_default();
        let same = matches!(current.as_slice(), [entry] if entry.hostname == hostname
            && entry.ports.iter().copied().collect::<BTreeSet<i32>>() == ports.iter().map(|p| i32::from(*p)).collect());
        if !same && self.permit.holds() {
            self.kubernetes.write_ingress_status(name, hostname, ports).await?;
        }
        Ok(())
    }

    /// Clears the status of a member that the stack lets go of, where the object stays and its kind asks for that.
    async fn clear_status(&self, stack: &StackId, name: &ObjectName) -> Result<(), KubernetesError> {
        if !self.with_snapshot(|snapshot| desired::clears_status(snapshot, stack, name)) {
            return Ok(());
        }
        match stack {
            StackId::Group(_) | StackId::Ingress(_) => Ok(()),
            StackId::Service(_) => self.kubernetes.clear_service_status(name).await,
        }
    }

    /// Tells a Service where its load balancer is. Only one of type LoadBalancer has a place for it: the API server refuses
    /// it on others, so that those are told by an event.
    async fn write_service_status(&self, name: &ObjectName, hostname: &str) -> Result<(), KubernetesError> {
        let Some(service) = self.with_snapshot(|s| s.services.get(name).cloned()) else { return Ok(()) };
        if service.kind != "LoadBalancer" {
            let subject = Subject { kind: ObjectKind::Service, name: name.clone(), uid: service.uid.clone() };
            let message = format!("The load balancer's host name is {hostname}");
            self.events.record(EventType::Normal, &subject, "LoadBalancerHostname", &message);
            return Ok(());
        }
        let ports: Vec<(u16, &str)> = service.ports.iter().map(|port| (port.port, port.protocol.as_str())).collect();
        let numbers: BTreeSet<i32> = ports.iter().map(|(port, _)| i32::from(*port)).collect();
        let same = matches!(service.status.as_slice(), [entry] if entry.hostname == hostname
            && entry.ports.iter().copied().collect::<BTreeSet<i32>>() == numbers);
        if !same && self.permit.holds() {
            self.kubernetes.write_service_status(name, hostname, &ports).await?;
        }
        Ok(())
    }

    /// Status of the members, release of those who leave, and the event that all is well.
    async fn publish(
        &self,
        group: &StackId,
        membership: &Membership,
        stack: &Stack,
        plan: &Plan,
    ) -> Result<Outcome, PassError> {
        let mut observed = self.observe(group).await?;
        self.write_status(membership, stack, &observed).await?;
        let next = plan::plan(stack, &observed);
        let complete = next == Planned::Ready(Plan::default());
        if !membership.members.is_empty() && complete {
            if group.is_shared() {
                observed.member_resources = plan::member_resources(stack, &observed);
                self.inventory.remember_member_resources(group, observed.member_resources.clone());
            }
            let tag_keys = plan::tag_keys(stack, &observed);
            self.records.mark_clean(group, &observed, tag_keys);
        }
        if !plan.steps.is_empty() {
            let frozen = &stack.frozen.members;
            let served: Vec<_> = membership.served().filter(|name| !frozen.contains(name)).cloned().collect();
            for subject in self.subjects(group, &served) {
                self.events.record(EventType::Normal, &subject, "SuccessfullyReconciled", "Successfully reconciled");
            }
        }
        if !membership.leaving.is_empty() && !membership.members.is_empty() {
            self.release(group, membership, stack, &observed).await?;
        } else if !membership.leaving.is_empty() {
            if !observed.is_empty() {
                // A binding's watch brings the group back when the binding is gone; everything else is gone already.
                return Ok(if observed.bindings.is_empty() {
                    Outcome::Again(Duration::from_secs(1))
                } else {
                    Outcome::Done
                });
            }
            if let Some(left) = self.inventory.uncertain_for(group) {
                return Ok(Outcome::Again(left));
            }
            // One that was made just now may not have been seen yet, and nobody would look after it from here on.
            let labelled = self.kubernetes.labelled_bindings(group).await?;
            let (own, foreign): (Vec<_>, Vec<_>) = self.with_snapshot(|snapshot| {
                labelled.into_iter().partition(|binding| dependents::is_binding_of(group, binding, &observed, snapshot))
            });
            if !own.is_empty() {
                return Ok(Outcome::Again(Duration::from_secs(1)));
            }
            for binding in &foreign {
                let subject = Subject {
                    kind: ObjectKind::TargetGroupBinding,
                    name: binding.name.clone(),
                    uid: binding.uid.clone(),
                };
                let message = foreign_labels(&binding.name, group);
                self.events.record(EventType::Warning, &subject, "ForeignLabels", &message);
            }
            if self.permit.holds() {
                let finalizer = tags::finalizer(group);
                for name in &membership.leaving {
                    self.clear_status(group, name).await?;
                    self.kubernetes.remove_finalizer(&group.member(name), &finalizer).await?;
                }
                self.records.remove(group);
                self.step_history.remove(group);
                self.inventory.remember_member_resources(group, Vec::new());
                self.queue.add(Key::NodeRules);
            }
        }
        // What a plan has done may be what another step waited for: a group in front is closed when a load balancer is gone.
        let more = !plan.steps.is_empty() && !matches!(&next, Planned::Ready(next) if next.steps.is_empty());
        Ok(if more { Outcome::Again(Duration::from_secs(1)) } else { Outcome::Done })
    }

    /// Takes the finalizer off those who leave a group in which others stay, as soon as nothing of their own is left.
    async fn release(
        &self,
        group: &StackId,
        membership: &Membership,
        stack: &Stack,
        observed: &ObservedStack,
    ) -> Result<(), KubernetesError> {
        if membership.leaving.is_empty() || membership.members.is_empty() {
            return Ok(());
        }
        let Planned::Ready(left) = plan::plan(stack, observed) else { return Ok(()) };
        for name in membership.leaving.iter().filter(|name| !plan::delays_release(&left, observed, name)) {
            if self.permit.holds() {
                self.kubernetes.remove_finalizer(&group.member(name), &tags::finalizer(group)).await?;
            }
        }
        Ok(())
    }

    /// Tells the objects that ask for steps which were carried out and are planned again.
    fn report_repeats(&self, stack: &StackId, membership: &Membership, repeated: &[Repeated]) -> Option<Outcome> {
        for repeat in repeated {
            let (message, blamed) = (repeat.message(), &repeat.step.cause.object.name);
            self.metrics.repeated_step(repeat.step.action.kind());
            tracing::error!(group = %stack, "{message}");
            let names: Vec<ObjectName> = if membership.served().any(|name| name == blamed) {
                vec![blamed.clone()]
            } else {
                membership.members.iter().chain(&membership.leaving).cloned().collect()
            };
            for subject in self.subjects(stack, &names) {
                self.events.record(EventType::Warning, &subject, "ChangeDoesNotLast", &message);
            }
        }
        let messages: Vec<String> = repeated.iter().map(Repeated::message).collect();
        (!messages.is_empty()).then(|| Outcome::Failed(messages.join("; ")))
    }

    /// Tells members that AWS refuses their part, and puts them among those whose part is refused.
    fn failed_members(
        &self,
        stack: &StackId,
        members: &[ObjectName],
        error: &PassError,
        refused: &mut BTreeMap<ObjectName, String>,
    ) {
        if let Outcome::Failed(what) = self.report_failure(stack, members, error) {
            refused.extend(members.iter().map(|member| (member.clone(), what.clone())));
        }
    }

    fn failed(&self, stack: &StackId, membership: &Membership, error: &PassError) -> Outcome {
        if let PassError::Apply(apply) = error
            && let Some(patience) = apply.blocked_deletion()
            && self.waits.blocked(&stack.object().to_string(), &apply.step, patience)
            && apply.is_not_yet()
        {
            return self.report_blocked_deletion(stack, membership, apply);
        }
        let names: Vec<ObjectName> = membership.members.iter().chain(&membership.leaving).cloned().collect();
        self.report_failure(stack, &names, error)
    }

    /// Tells those who wait for a deletion, or else all who have a part in the stack, that AWS does not carry it out.
    fn report_blocked_deletion(&self, stack: &StackId, membership: &Membership, error: &ApplyError) -> Outcome {
        let fix = error.fix().map(|fix| format!("; {fix}")).unwrap_or_default();
        let message = format!("Deletion is blocked: {error}{fix}");
        tracing::warn!(group = %stack, "{message}");
        self.metrics.reconcile_error(label(stack), "deploy_model_error");
        let names = if membership.leaving.is_empty() { &membership.members } else { &membership.leaving };
        for subject in self.subjects(stack, names) {
            self.events.record(EventType::Warning, &subject, "DeletionBlocked", &message);
        }
        Outcome::Failed(message)
    }

    fn report_failure(&self, stack: &StackId, names: &[ObjectName], error: &PassError) -> Outcome {
        if !self.permit.holds() {
            // That the lease is lost is said elsewhere, and is no fault of the objects.
            tracing::info!(group = %stack, "{error}; the lease is not held any more");
            return Outcome::Failed(error.to_string());
        }
        let (reason, fix, quiet) = match error {
            PassError::Kubernetes(KubernetesError::Refused { .. }) => ("FailedUpdateStatus", None, false),
            PassError::Kubernetes(_) => ("FailedUpdateStatus", None, true),
            PassError::Record(_) => ("FailedWriteRecord", None, false),
            PassError::Aws(aws) => ("FailedDeployModel", aws.fix(), aws.is_transient()),
            PassError::Apply(apply) if apply.is_not_yet() => {
                tracing::info!(group = %stack, "{apply}; trying again soon");
                return Outcome::NotYet;
            }
            PassError::Apply(apply) => ("FailedDeployModel", apply.fix(), apply.is_transient()),
        };
        let category = match reason {
            "FailedUpdateStatus" => "dns_resolve_and_update_status_error",
            "FailedWriteRecord" => "write_record_error",
            _ => "deploy_model_error",
        };
        self.metrics.reconcile_error(label(stack), category);
        let fix = fix.map(|fix| format!("; {fix}")).unwrap_or_default();
        if quiet {
            tracing::warn!(group = %stack, "{error}{fix}; trying again");
        } else {
            tracing::error!(group = %stack, "{error}{fix}");
            let message = match reason {
                "FailedDeployModel" => format!("Failed deploy model due to {error}{fix}"),
                _ => format!("{error}{fix}"),
            };
            for subject in self.subjects(stack, names) {
                self.events.record(EventType::Warning, &subject, reason, &message);
            }
        }
        Outcome::Failed(error.to_string())
    }

    fn subjects(&self, stack: &StackId, members: &[ObjectName]) -> Vec<Subject> {
        self.with_snapshot(|snapshot| {
            let subject = |name: &ObjectName| {
                let uid = desired::member(snapshot, stack, name)?.uid.to_owned();
                let ObjectReference { kind, name } = stack.member(name);
                Some(Subject { kind, name, uid })
            };
            members.iter().filter_map(subject).collect()
        })
    }

    /// Says a diagnostic where its object's owner looks, and in the log.
    fn report(&self, diagnostic: &Diagnostic) {
        let object = &diagnostic.object;
        let uid = self.with_snapshot(|snapshot| match object.kind {
            ObjectKind::Ingress => snapshot.ingresses.get(&object.name).map(|o| o.uid.clone()),
            ObjectKind::Service => snapshot.services.get(&object.name).map(|o| o.uid.clone()),
            ObjectKind::TargetGroupBinding => snapshot.target_group_bindings.get(&object.name).map(|o| o.uid.clone()),
            ObjectKind::IngressClassParams => snapshot.ingress_class_params.get(&object.name).map(|o| o.uid.clone()),
            ObjectKind::IngressClass => None,
        });
        let (reason, message) = match diagnostic.severity {
            Severity::Error => {
                tracing::error!(%object, code = ?diagnostic.code, "{diagnostic}");
                let controller = match object.kind {
                    ObjectKind::Service => "service",
                    ObjectKind::Ingress
                    | ObjectKind::IngressClass
                    | ObjectKind::IngressClassParams
                    | ObjectKind::TargetGroupBinding => "ingress",
                };
                self.metrics.reconcile_error(controller, "build_model_error");
                ("FailedBuildModel", format!("Failed build model due to {diagnostic}"))
            }
            Severity::Warning | Severity::Note => {
                tracing::debug!(%object, code = ?diagnostic.code, "{diagnostic}");
                (warning_reason(diagnostic.code), diagnostic.to_string())
            }
        };
        let subject = Subject { kind: object.kind, name: object.name.clone(), uid: uid.unwrap_or_default() };
        self.events.record(EventType::Warning, &subject, reason, &message);
    }

    pub(crate) fn with_snapshot<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(&Arc::as_ref(&self.snapshot).read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The controller of a stack, as metrics name it.
fn label(stack: &StackId) -> &'static str {
    crate::controller::controller_label(&Key::Stack(stack.clone()))
}

/// The event reason of a warning: one word a kind, so that they can be filtered.
fn warning_reason(code: Code) -> &'static str {
    match code {
        Code::UnknownAnnotation => "UnknownAnnotation",
        Code::AnnotationNotBuilt => "AnnotationNotBuilt",
        Code::MissingService => "BackendNotFound",
        Code::MissingAction => "ActionNotFound",
        _ => "FailedBuildModel",
    }
}

/// What the event says on a binding that carries a stack's labels and is not the stack's, once the stack goes without it.
pub(crate) fn foreign_labels(binding: &ObjectName, stack: &StackId) -> String {
    format!(
        "TargetGroupBinding {binding} carries the labels of {}, which did not make it, so that its deletion did not wait for \
         it; remove the labels",
        stack.object()
    )
}
