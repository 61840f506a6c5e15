//! One pass over a group of Ingresses or a Service, along the one road: snapshot → build → plan → apply → status, events, finalizers.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    Controller,
    events::{EventType, Subject},
    kubernetes::KubernetesError,
    queue::{Key, Outcome},
    records::RecordError,
    waits::Due,
};
use crate::{
    apply::ApplyError,
    aws::AwsError,
    build::{
        BuildConfig, Built, Code, Diagnostic, Severity,
        ingress::{self, Membership, class},
        service, tags,
    },
    facts::{Facts, Incumbent, Want},
    model::{ObjectKind, ObjectName, ObjectReference, ObservedBinding, ObservedStack, Stack, StackId},
    plan::{self, Plan, Planned},
    snapshot::{Ingress, Service, Snapshot},
};

/// Facts may ask for facts; more rounds than this mean that building never ends.
const ROUNDS: usize = 4;

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
    pub(super) async fn reconcile_stack(&self, group: &StackId) -> Outcome {
        let membership = self.with_snapshot(|snapshot| match group {
            StackId::Service(name) => service_membership(snapshot, &self.config, name),
            _ => ingress::membership(snapshot, &self.config, group),
        });
        for diagnostic in &membership.broken {
            self.report(diagnostic);
        }
        if let Some(first) = membership.broken.first() {
            return Outcome::SetAside(first.to_string());
        }
        if membership.is_empty() {
            self.waits.note(group, None);
            return Outcome::Done;
        }
        match self.pass(group, &membership).await {
            Ok(outcome) => outcome,
            Err(error) => self.failed(group, &membership, &error),
        }
    }

    async fn pass(&self, group: &StackId, membership: &Membership) -> Result<Outcome, PassError> {
        // While a group is worked on, the shared security group that it may be about to use is not deleted.
        let _in_use = self.backend_group_gate.read().await;
        let Some(built) = self.build(group, membership).await? else {
            return Ok(Outcome::Again(Duration::from_secs(1)));
        };
        for diagnostic in &built.diagnostics {
            self.report(diagnostic);
        }
        if !built.unavailable.is_empty() {
            let what = built.unavailable.join("; ");
            tracing::warn!(%group, "{what}; trying again");
            for subject in self.subjects(group, &membership.members) {
                let message = format!("Failed build model due to {what}");
                self.events.record(EventType::Warning, &subject, "FailedBuildModel", &message);
            }
            return Ok(Outcome::Failed(what));
        }
        let Some(stack) = built.stack else {
            // What it has stays as it is. What is wrong in the cluster brings it back by itself; what is wrong in AWS does not.
            let errors = built.diagnostics.iter().filter(|d| d.severity == Severity::Error);
            let what = errors.map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Ok(if built.lacking {
                self.facts.forget();
                Outcome::Failed(what)
            } else {
                Outcome::SetAside(what)
            });
        };
        let mut observed = self.observe(group).await?;
        let plan = loop {
            match plan::plan(&stack, &observed) {
                Planned::Ready(plan) => break plan,
                Planned::Need(reads) => self.inventory.read(group, &reads).await?,
            }
            observed = self.observe(group).await?;
        };
        if plan.steps.is_empty() {
            // Somebody may have taken the finalizer off (`kubectl replace` does), and all this would be left behind.
            self.hold(group, membership).await?;
        } else {
            if !self.proved(group, membership, &built.absent).await? {
                // The watch is behind: it will bring the group back, this only makes sure.
                return Ok(Outcome::Again(Duration::from_secs(1)));
            }
            self.hold(group, membership).await?;
            self.records.take_back(group).await?;
            tracing::info!(%group, summary = plan::summary(&plan), "applying a plan");
            if let Err(error) = self.applier.apply(group, &plan, &|| self.may_write()).await {
                if error.is_not_yet() {
                    // Only a deletion waits, perhaps for ever; all that serves is in place, and people shall find it.
                    self.write_status(membership, &stack, &self.observe(group).await?).await?;
                }
                return Err(error.into());
            }
            plan.steps.iter().for_each(|step| self.metrics.plan_step(step.action.kind()));
            self.queue_after(&plan);
        }
        let outcome = self.publish(group, membership, &stack, &plan).await?;
        Ok(match self.waits.note(group, plan.wait.as_ref()) {
            Some(Due::Later(left)) if outcome == Outcome::Done => Outcome::Again(left),
            Some(Due::Tell(message)) => {
                tracing::warn!(%group, "{message}");
                for subject in self.subjects(group, &[&*membership.members, &membership.leaving].concat()) {
                    self.events.record(EventType::Warning, &subject, "WaitTakesLong", &message);
                }
                outcome
            }
            _ => outcome,
        })
    }

    /// Builds until nothing more is wanted. `None` when that does not come to an end, and should be tried again.
    async fn build(&self, group: &StackId, membership: &Membership) -> Result<Option<Built>, PassError> {
        let mut facts = Facts::default();
        if !membership.members.is_empty() {
            let observed = self.inventory.observe(group).await?;
            facts.incumbent = observed.load_balancers.first().map(|balancer| Incumbent {
                kind: balancer.kind,
                scheme: balancer.scheme,
                has_security_groups: !balancer.security_groups.is_empty(),
                subnets: balancer.subnets.clone(),
            });
        }
        for _ in 0..ROUNDS {
            let built = self.with_snapshot(|snapshot| match group {
                StackId::Service(name) => service::build(snapshot, &self.config, &facts, name),
                _ => ingress::build(snapshot, &self.config, &facts, group, &membership.members),
            });
            let broken = built.diagnostics.iter().any(|d| d.severity == Severity::Error);
            if built.wants.is_empty() || broken || !built.unavailable.is_empty() {
                return Ok(Some(built));
            }
            // What only has to be read comes first: nothing is created for what then turns out not to be possible.
            let reads = built.wants.iter().any(Want::is_read);
            for want in built.wants.iter().filter(|want| !reads || want.is_read()) {
                if want.is_read() {
                    self.facts.answer(want, &mut facts).await;
                    let others = self.askers.note(group, want, &facts);
                    self.queue.resync(others.into_iter().map(Key::Stack));
                } else {
                    // It may be created here, and whoever needs it has to be known first.
                    self.hold(group, membership).await?;
                    let id = self.applier.ensure_backend_security_group(&self.config).await?;
                    facts.backend_security_group = Some(crate::facts::Fact::Known(id));
                }
            }
        }
        Ok(None)
    }

    async fn observe(&self, group: &StackId) -> Result<ObservedStack, PassError> {
        let mut observed = self.inventory.observe(group).await?;
        let labels = tags::binding_labels(group);
        observed.bindings = self.with_snapshot(|snapshot| {
            snapshot
                .target_group_bindings
                .values()
                .filter(|binding| labels.iter().all(|(key, value)| binding.labels.get(key) == Some(value)))
                .filter_map(|binding| {
                    Some(ObservedBinding {
                        name: binding.name.clone(),
                        target_group: crate::model::TargetGroupArn::new(binding.spec.target_group_arn.clone()?),
                        resource_version: binding.resource_version.clone(),
                        labels: binding.labels.clone(),
                        spec: binding.spec.clone(),
                        deleting: binding.deleting,
                    })
                })
                .collect()
        });
        Ok(observed)
    }

    /// Proves with the API server that what the plan takes for gone is gone, and that who leaves really leaves.
    async fn proved(
        &self,
        group: &StackId,
        membership: &Membership,
        absent: &BTreeSet<ObjectReference>,
    ) -> Result<bool, KubernetesError> {
        for reference in absent {
            if reference.kind == ObjectKind::Service && self.kubernetes.service(&reference.name).await?.is_some() {
                return Ok(false);
            }
        }
        if let (StackId::Service(name), [_, ..]) = (group, membership.leaving.as_slice()) {
            let fresh = self.kubernetes.service(name).await?;
            let ours = |fresh: &Service| service::ownership(fresh, &self.config) == service::Ownership::Ours;
            return Ok(!fresh.is_some_and(|fresh| ours(&fresh)));
        }
        if membership.members.is_empty() {
            for name in &membership.leaving {
                let Some(fresh) = self.kubernetes.ingress(name).await? else { continue };
                if !fresh.deleting && !self.left(&fresh).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether an Ingress that is not being deleted is of another class by now, judged by fresh objects.
    async fn left(&self, fresh: &Ingress) -> Result<bool, KubernetesError> {
        let mut snapshot = Snapshot::default();
        let classes: Vec<String> = match &fresh.class {
            Some(class) => vec![class.clone()],
            None => self.with_snapshot(|known| known.ingress_classes.keys().map(|name| name.name.clone()).collect()),
        };
        for class in classes {
            if let Some(class) = self.kubernetes.ingress_class(&class).await? {
                snapshot.apply(class);
            }
        }
        snapshot.apply(fresh.clone());
        Ok(class::ownership(fresh, &snapshot, &self.config) == class::Ownership::Foreign)
    }

    /// Puts the group's finalizer on its members, before anything is made for them.
    async fn hold(&self, group: &StackId, membership: &Membership) -> Result<(), KubernetesError> {
        let finalizer = tags::finalizer(group);
        for name in &membership.members {
            let held = self.with_snapshot(|s| match group {
                StackId::Service(_) => s.services.get(name).is_some_and(|o| o.finalizers.contains(&finalizer)),
                _ => s.ingresses.get(name).is_some_and(|o| o.finalizers.contains(&finalizer)),
            });
            if !held && self.may_write() {
                self.kubernetes.add_finalizer(&member(group, name), &finalizer).await?;
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
        if let Some(balancer) = observed.load_balancers.first().filter(|_| stack.load_balancer.is_some()) {
            let hostname = balancer.dns_name.to_lowercase();
            if let StackId::Service(name) = &stack.id {
                return self.write_service_status(name, &hostname).await;
            }
            let ports: Vec<u16> = stack.listeners.keys().copied().collect();
            for name in &membership.members {
                let current =
                    self.with_snapshot(|s| s.ingresses.get(name).map(|i| i.status.clone())).unwrap_or_default();
                let same = matches!(current.as_slice(), [entry] if entry.hostname == hostname
                    && entry.ports.iter().copied().collect::<BTreeSet<i32>>() == ports.iter().map(|p| i32::from(*p)).collect());
                if !same && self.may_write() {
                    self.kubernetes.write_ingress_status(name, &hostname, &ports).await?;
                }
            }
        }
        Ok(())
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
        if !same && self.may_write() {
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
        let observed = self.observe(group).await?;
        self.write_status(membership, stack, &observed).await?;
        let complete = plan::plan(stack, &observed) == Planned::Ready(Plan::default());
        if !membership.members.is_empty() && complete {
            self.records.promise(group, &observed);
        }
        if !plan.steps.is_empty() {
            for subject in self.subjects(group, &membership.members) {
                self.events.record(EventType::Normal, &subject, "SuccessfullyReconciled", "Successfully reconciled");
            }
        }
        if !membership.leaving.is_empty() && membership.members.is_empty() {
            if !observed.is_empty() {
                // A binding's watch brings the group back when the binding is gone; everything else is gone already.
                return Ok(if observed.bindings.is_empty() {
                    Outcome::Again(Duration::from_secs(1))
                } else {
                    Outcome::Done
                });
            }
            // One that was made just now may not have been seen yet, and nobody would look after it from here on.
            if self.kubernetes.has_bindings(group).await? {
                return Ok(Outcome::Again(Duration::from_secs(1)));
            }
            if self.may_write() {
                let finalizer = tags::finalizer(group);
                for name in &membership.leaving {
                    let kept = |s: &Snapshot| s.services.get(name).is_some_and(|o| !o.deleting && !o.status.is_empty());
                    if matches!(group, StackId::Service(_)) && self.with_snapshot(kept) {
                        self.kubernetes.clear_service_status(name).await?;
                    }
                    self.kubernetes.remove_finalizer(&member(group, name), &finalizer).await?;
                }
                self.records.remove(group);
                self.queue.add(Key::NodeRules);
            }
        }
        Ok(Outcome::Done)
    }

    fn failed(&self, group: &StackId, membership: &Membership, error: &PassError) -> Outcome {
        let names: Vec<ObjectName> = membership.members.iter().chain(&membership.leaving).cloned().collect();
        let (reason, fix, quiet) = match error {
            PassError::Kubernetes(KubernetesError::Refused { .. }) => ("FailedUpdateStatus", None, false),
            PassError::Kubernetes(_) => ("FailedUpdateStatus", None, true),
            PassError::Record(_) => ("FailedWriteRecord", None, false),
            PassError::Aws(aws) => ("FailedDeployModel", aws.fix(), aws.is_transient()),
            PassError::Apply(apply) if apply.is_not_yet() => {
                tracing::info!(%group, "{apply}; trying again soon");
                return Outcome::NotYet;
            }
            PassError::Apply(apply) => ("FailedDeployModel", apply.fix(), apply.is_transient()),
        };
        let fix = fix.map(|fix| format!("; {fix}")).unwrap_or_default();
        if quiet {
            tracing::warn!(%group, "{error}{fix}; trying again");
        } else {
            tracing::error!(%group, "{error}{fix}");
            let message = match reason {
                "FailedDeployModel" => format!("Failed deploy model due to {error}{fix}"),
                _ => format!("{error}{fix}"),
            };
            for subject in self.subjects(group, &names) {
                self.events.record(EventType::Warning, &subject, reason, &message);
            }
        }
        Outcome::Failed(error.to_string())
    }

    fn subjects(&self, group: &StackId, members: &[ObjectName]) -> Vec<Subject> {
        self.with_snapshot(|snapshot| {
            let uid = |name: &ObjectName| match group {
                StackId::Service(_) => snapshot.services.get(name).map(|o| o.uid.clone()),
                _ => snapshot.ingresses.get(name).map(|o| o.uid.clone()),
            };
            let kind = group.object().kind;
            members.iter().filter_map(|name| Some(Subject { kind, name: name.clone(), uid: uid(name)? })).collect()
        })
    }

    /// Says a diagnostic where its object's owner looks, and in the log.
    fn report(&self, diagnostic: &Diagnostic) {
        let object = &diagnostic.object;
        let uid = self.with_snapshot(|snapshot| match object.kind {
            ObjectKind::Ingress => snapshot.ingresses.get(&object.name).map(|o| o.uid.clone()),
            ObjectKind::Service => snapshot.services.get(&object.name).map(|o| o.uid.clone()),
            ObjectKind::TargetGroupBinding => snapshot.target_group_bindings.get(&object.name).map(|o| o.uid.clone()),
            ObjectKind::IngressClass => None,
        });
        let (reason, message) = match diagnostic.severity {
            Severity::Error => {
                tracing::error!(%object, code = ?diagnostic.code, "{diagnostic}");
                ("FailedBuildModel", format!("Failed build model due to {diagnostic}"))
            }
            Severity::Warning => {
                tracing::debug!(%object, code = ?diagnostic.code, "{diagnostic}");
                (warning_reason(diagnostic.code), diagnostic.to_string())
            }
        };
        let subject = Subject { kind: object.kind, name: object.name.clone(), uid: uid.unwrap_or_default() };
        self.events.record(EventType::Warning, &subject, reason, &message);
    }

    pub(super) fn with_snapshot<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(&Arc::as_ref(&self.snapshot).read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Who a Service's stack is for: the Service itself, or nobody any more.
fn service_membership(snapshot: &Snapshot, config: &BuildConfig, name: &ObjectName) -> Membership {
    let mut membership = Membership::default();
    if let Some(service) = snapshot.services.get(name) {
        if service::ownership(service, config) == service::Ownership::Ours {
            membership.members.push(name.clone());
        } else if service.finalizers.iter().any(|finalizer| finalizer == tags::SERVICE_FINALIZER) {
            membership.leaving.push(name.clone());
        }
    }
    membership
}

/// A member of a stack, as messages name it.
fn member(stack: &StackId, name: &ObjectName) -> ObjectReference {
    ObjectReference { kind: stack.object().kind, name: name.clone() }
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
