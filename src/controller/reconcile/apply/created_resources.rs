//! The resources that the steps of a running plan have created so far, and the existing ones that they name.

use std::collections::{BTreeMap, BTreeSet};

use super::StepError;
use albatross_aws::Inventory;
use albatross_core::{
    model::{
        Action, ListenerArn, LoadBalancerArn, ResourceId, RuleArn, SecurityGroupId, SecurityGroupReference, StackId,
        TargetGroupArn, TargetGroupReference,
    },
    plan::{ListenerReference, Plan, RuleReference, SecurityGroupTarget, StepAction, Wait},
};

/// By what later steps name it.
#[derive(Debug, Default)]
pub(crate) struct CreatedResources {
    pub(crate) load_balancer: Option<LoadBalancerArn>,
    pub(crate) target_groups: BTreeMap<ResourceId, TargetGroupArn>,
    pub(crate) listeners: BTreeMap<u16, ListenerArn>,
    pub(crate) rules: BTreeMap<(u16, usize), RuleArn>,
    pub(crate) security_group: Option<SecurityGroupId>,
    /// The target groups that the plan takes away, now or once their bindings are gone: by ARN, and by name.
    to_delete: BTreeSet<TargetGroupArn>,
    names_to_delete: BTreeSet<String>,
}

impl CreatedResources {
    /// Returns an empty set: nothing is created yet.
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut resources = Self::default();
        for step in plan.steps() {
            match &step.action {
                StepAction::DeleteTargetGroup { arn, .. } => {
                    resources.to_delete.insert(arn.clone());
                }
                // A binding has the name that its target group was created with.
                StepAction::DeleteBinding(name) => {
                    resources.names_to_delete.insert(name.name.clone());
                }
                _ => {}
            }
        }
        resources.to_delete.extend(plan.passed_over().iter().cloned());
        resources.names_to_delete.extend(plan.waits().iter().filter_map(|wait| match wait {
            Wait::BindingGone(name) => Some(name.name.clone()),
            _ => None,
        }));
        resources
    }

    /// Returns the load balancer of a step: the one that it names, or else the one that an earlier step has created.
    pub(crate) fn load_balancer(&self, named: Option<&LoadBalancerArn>) -> Result<LoadBalancerArn, StepError> {
        let arn = named.or(self.load_balancer.as_ref()).cloned();
        arn.ok_or_else(|| StepError::Unresolved("load balancer".to_owned()))
    }

    /// The target group of a resource: the one just created, or the one that stays.
    pub(crate) fn target_group(
        &self,
        inventory: &Inventory,
        stack: &StackId,
        resource: &ResourceId,
    ) -> Result<TargetGroupArn, StepError> {
        if let Some(arn) = self.target_groups.get(resource) {
            return Ok(arn.clone());
        }
        let mut found = inventory.target_groups_of(stack, resource);
        // The only one stays, also while a binding of its name is being deleted: that is created again.
        if found.len() > 1 {
            found.retain(|g| !self.to_delete.contains(&g.arn) && !self.names_to_delete.contains(&g.name));
        }
        match found.as_slice() {
            [one] => Ok(one.arn.clone()),
            [] => Err(StepError::Unresolved(format!("target group {resource}"))),
            several => Err(StepError::Ambiguous {
                resource: resource.clone(),
                names: several.iter().map(|g| g.name.clone()).collect(),
            }),
        }
    }

    pub(crate) fn action(
        &self,
        inventory: &Inventory,
        stack: &StackId,
        action: &Action<TargetGroupReference>,
    ) -> Result<Action<TargetGroupArn>, StepError> {
        action.try_map(|reference| match reference {
            TargetGroupReference::Own(resource) => self.target_group(inventory, stack, resource),
            TargetGroupReference::Foreign(arn) => Ok(arn.clone()),
            TargetGroupReference::Named(name) => Err(super::steps::unresolved(name)),
        })
    }

    pub(crate) fn listener(&self, reference: &ListenerReference) -> Result<ListenerArn, StepError> {
        match reference {
            ListenerReference::Existing(arn) => Ok(arn.clone()),
            ListenerReference::Created(port) => {
                let found = self.listeners.get(port).cloned();
                found.ok_or_else(|| StepError::Unresolved(format!("listener on port {port}")))
            }
        }
    }

    pub(crate) fn rule(&self, reference: &RuleReference) -> Result<RuleArn, StepError> {
        match reference {
            RuleReference::Existing(arn) => Ok(arn.clone()),
            RuleReference::Created(port, index) => {
                let found = self.rules.get(&(*port, *index)).cloned();
                found.ok_or_else(|| StepError::Unresolved(format!("rule at place {index} on port {port}")))
            }
        }
    }

    pub(crate) fn security_group_target(&self, target: &SecurityGroupTarget) -> Result<SecurityGroupId, StepError> {
        match target {
            SecurityGroupTarget::Existing(id) => Ok(id.clone()),
            SecurityGroupTarget::Created => {
                self.security_group.clone().ok_or_else(|| StepError::Unresolved("security group".to_owned()))
            }
        }
    }

    pub(crate) fn security_group(
        &self,
        inventory: &Inventory,
        stack: &StackId,
        reference: &SecurityGroupReference,
    ) -> Result<SecurityGroupId, StepError> {
        match reference {
            SecurityGroupReference::Managed => self
                .security_group
                .clone()
                .or_else(|| inventory.managed_security_group(stack))
                .ok_or_else(|| StepError::Unresolved("security group".to_owned())),
            SecurityGroupReference::SharedBackend(id) | SecurityGroupReference::Given(id) => id
                .known()
                .cloned()
                .ok_or_else(|| StepError::Unresolved("security group that is not known yet".to_owned())),
        }
    }
}
