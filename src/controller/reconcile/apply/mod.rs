//! Runs the steps of a plan. Before each it checks the write permit; after each it reports the new state to the
//! [`Inventory`], so that the next plan needs no read.

mod bindings;
mod certificates;
mod created_resources;
mod error;
mod steps;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::controller::runtime::write_permit::WriteClient;
use albatross_aws::{AwsError, AwsErrorKind, AwsWriter, Inventory};
use albatross_core::{
    desired::BuildConfig,
    model::{ObservedSecurityGroup, SecurityGroupId, StackId, Tags, names, tags},
    plan::{Plan, StepAction},
};

use created_resources::CreatedResources;

pub(crate) use error::{ApplyError, StepError};

/// Makes what plans say. Shared by all workers.
pub(crate) struct Applier {
    aws: AwsWriter,
    inventory: Arc<Inventory>,
    bindings: kube::Client,
    /// Held while the shared security group is looked for and made or deleted.
    backend_group: tokio::sync::Mutex<()>,
    /// True once the shared security group, as it was found, has been looked at for its default tags.
    backend_tagged: AtomicBool,
}

/// The result of a plan.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The steps that were carried out, by their place in the plan.
    pub carried_out: Vec<usize>,
    /// The errors of the steps that change add-ons. They hold up no other step.
    pub left_out: Vec<ApplyError>,
}

impl Applier {
    /// Writes through `aws` and `bindings`, and updates `inventory`.
    #[must_use]
    pub(crate) fn new(aws: AwsWriter, inventory: Arc<Inventory>, bindings: &WriteClient) -> Self {
        Self {
            aws,
            inventory,
            bindings: bindings.client(),
            backend_group: tokio::sync::Mutex::default(),
            backend_tagged: AtomicBool::new(false),
        }
    }

    /// Runs a plan's steps in order, up to the first that fails. A deletion that has to wait holds up no other step; it is answered with
    /// [`StepError::NotYet`] when all others are done; where it is a load balancer, at once. The failure of an add-on, certificates
    /// among them, holds up no other step either, and is part of the result.
    ///
    /// # Errors
    /// The step that failed, with its cause. What has been done before stays done, and is known to the inventory.
    pub(crate) async fn apply(&self, stack: &StackId, plan: &Plan) -> Result<Applied, ApplyError> {
        let mut resources = CreatedResources::of(plan);
        let mut carried_out = Vec::new();
        let (mut waiting, mut left_out) = (None, Vec::new());
        for (place, step) in plan.steps().iter().enumerate() {
            let failed = |source, carried_out| ApplyError {
                step: step.action.to_string(),
                cause: step.cause.clone(),
                // Others need nothing of what one requests in front.
                of_all: step.action.is_of_all() && !step.in_front,
                in_front: step.in_front,
                add_on: step.action.add_on(),
                carried_out,
                left_out: Vec::new(),
                port: match &step.action {
                    StepAction::CreateListener { listener, .. } => Some(listener.port),
                    StepAction::ModifyListener { port, .. } => Some(*port),
                    _ => None,
                },
                source,
            };
            if !self.aws.permit().holds() {
                return Err(ApplyError { left_out, ..failed(StepError::NotLeader, carried_out) });
            }
            tracing::info!(group = %stack, step = %step.action, cause = %step.cause, "applying");
            match self.run(stack, &step.action, &mut resources).await {
                Ok(()) => carried_out.push(place),
                Err(source @ StepError::NotYet(_)) => {
                    tracing::info!(group = %stack, step = %step.action, reason = %source, "not yet");
                    self.forget_after(stack, &step.action, &source, &resources);
                    if step.action.add_on().is_some() {
                        left_out.push(failed(source, Vec::new()));
                        continue;
                    }
                    if matches!(step.action, StepAction::DeleteLoadBalancer { .. }) {
                        // It continues to serve, so what it serves stays.
                        return Err(ApplyError { left_out, ..failed(source, carried_out) });
                    }
                    waiting.get_or_insert(failed(source, Vec::new()));
                }
                Err(source) => {
                    self.forget_after(stack, &step.action, &source, &resources);
                    if step.action.add_on().is_none() {
                        return Err(ApplyError { left_out, ..failed(source, carried_out) });
                    }
                    left_out.push(failed(source, Vec::new()));
                }
            }
        }
        match waiting {
            Some(error) => Err(ApplyError { carried_out, left_out, ..error }),
            None => Ok(Applied { carried_out, left_out }),
        }
    }

    /// Forgets the state that a failed step shows to be wrong, or may have changed.
    fn forget_after(&self, stack: &StackId, action: &StepAction, source: &StepError, resources: &CreatedResources) {
        if source.asks_to_read_again() && !self.forgot_add_on(stack, action, source, resources) {
            self.read_again(stack, action, source);
        }
    }

    /// Forgets only the add-on of a load balancer, or the requested certificates, if that is all that a step may have changed.
    /// Returns true if nothing else has to be forgotten.
    fn forgot_add_on(
        &self,
        stack: &StackId,
        action: &StepAction,
        source: &StepError,
        resources: &CreatedResources,
    ) -> bool {
        let is_unclear = matches!(source, StepError::Aws(AwsError { kind: AwsErrorKind::Unclear { .. }, .. }));
        match action {
            StepAction::RequestCertificate { .. } if is_unclear => {
                self.inventory.forget_certificates(stack);
                return true;
            }
            // It is created once more, and one that exists is left as it is.
            StepAction::CreateValidationRecord { .. } if is_unclear => return true,
            // A deletion that was carried out, with its answer lost, can be repeated.
            StepAction::DeleteCertificate { .. } => return true,
            _ => {}
        }
        let Some((add_on, load_balancer)) = steps::load_balancer_of_add_on(action) else { return false };
        let arn = resources.load_balancer(load_balancer).ok().filter(|_| is_unclear);
        arn.as_ref().inspect(|arn| self.inventory.forget_add_on(arn, add_on)).is_some()
    }

    /// Invalidates the cached state of a group after a step that shows that it is wrong, or may have done something.
    fn read_again(&self, stack: &StackId, action: &StepAction, source: &StepError) {
        self.inventory.invalidate_and_find(stack, steps::possibly_created(action));
        if let StepError::Aws(error) | StepError::NotYet(error) = source
            && error.names_no_security_group()
        {
            // It may be the one that all share, which is no group's own.
            self.inventory.invalidate_list();
        }
    }

    /// The security group that all load balancers of the cluster share: the one that the flags name, or the controller's
    /// own, which is created if it does not exist.
    ///
    /// # Errors
    /// AWS's.
    pub(crate) async fn ensure_backend_security_group(
        &self,
        config: &BuildConfig,
    ) -> Result<SecurityGroupId, AwsError> {
        if let Some(given) = &config.backend_security_group {
            return Ok(given.clone());
        }
        let _one = self.backend_group.lock().await;
        let mut default_tags = config.low_default_tags.clone();
        default_tags.extend(config.default_tags.clone());
        let tags = tags::of_backend_group(&config.cluster, &default_tags);
        if let Some(id) = self.inventory.backend_security_group().await? {
            self.tag_backend_security_group(&id, &tags).await;
            return Ok(id);
        }
        let name = names::backend_security_group(&config.cluster);
        let vpc = self.inventory.vpc();
        let created = self.aws.create_security_group(&name, names::BACKEND_GROUP_DESCRIPTION, vpc, &tags).await;
        if created.as_ref().is_err_and(AwsError::asks_to_read_again) {
            // A lost answer, or a group of that name: list again, and use it if it carries the controller's tags.
            self.inventory.invalidate_list();
            if let Some(id) = self.inventory.backend_security_group().await? {
                return Ok(id);
            }
        }
        let id = created.map_err(|error| match error.kind {
            AwsErrorKind::Duplicate { code, .. } => AwsError {
                operation: error.operation,
                kind: AwsErrorKind::Refused {
                    code,
                    message: format!(
                        "a security group named `{name}` exists and lacks the tags {}={} and {}={}",
                        tags::CLUSTER,
                        config.cluster,
                        tags::SHARED_RESOURCE,
                        tags::BACKEND_GROUP
                    ),
                },
            },
            _ => error,
        })?;
        tracing::info!(security_group = %id, %name, "created the security group that all load balancers share");
        let ingress = std::collections::BTreeSet::new();
        self.inventory.record_security_group(ObservedSecurityGroup { id: id.clone(), name, tags, ingress });
        Ok(id)
    }

    /// Gives the shared security group, once a process, default tags that it lacks. None is removed: no record says which are the
    /// controller's own. That AWS refuses is said and holds nothing up, as the group serves without them.
    async fn tag_backend_security_group(&self, id: &SecurityGroupId, wanted: &Tags) {
        let existing = self.inventory.security_group_tags(id);
        let differs = |(key, value): &(&String, &String)| existing.get(*key) != Some(*value);
        let missing: Tags = wanted.iter().filter(differs).map(|(k, v)| (k.clone(), v.clone())).collect();
        if missing.is_empty() || self.backend_tagged.swap(true, Ordering::AcqRel) {
            return;
        }
        match self.aws.tag_security_group(id, &missing).await {
            Ok(()) => self.inventory.record_security_group_tags(id, &missing),
            Err(error) => {
                tracing::warn!(security_group = %id, "the security group that all load balancers share lacks default tags: {error}");
            }
        }
    }

    /// Deletes the security group that all load balancers of the cluster share, if the controller created it and no load
    /// balancer is in it. Returns true if it no longer exists.
    ///
    /// # Errors
    /// AWS's; [`AwsErrorKind::Dependency`] while rules of other groups name it.
    pub(crate) async fn delete_backend_security_group(&self) -> Result<bool, AwsError> {
        let _one = self.backend_group.lock().await;
        let Some(id) = self.inventory.backend_security_group().await? else { return Ok(true) };
        if self.inventory.load_balancer_uses(&id).await? {
            return Ok(false);
        }
        match self.aws.delete_security_group(&id).await {
            Err(error) => {
                if error.asks_to_read_again() {
                    self.inventory.invalidate_list();
                }
                // One that is made a moment ago may not be known everywhere yet: only a list shows that it is gone.
                match error.is_not_found() && self.inventory.backend_security_group().await?.is_none() {
                    true => Ok(true),
                    false => Err(error),
                }
            }
            Ok(()) => {
                tracing::info!(security_group = %id, "deleted the security group that all load balancers shared");
                self.inventory.record_security_group_deleted(&id);
                Ok(true)
            }
        }
    }
}

#[cfg(test)]
mod tests;
