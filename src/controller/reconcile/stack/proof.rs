//! The proofs, before a plan relies on it, that an object is deleted or its request unchanged.

use std::collections::BTreeSet;

use crate::controller::{Controller, cluster::kubernetes::KubernetesError};
use albatross_core::{
    dependents::is_binding_of,
    desired::{
        Membership,
        sources::{ingress, service},
    },
    model::{ObjectKind, ObjectName, ObjectReference, ObservedStack, ObservedTargetGroup, StackId},
    plan::{self, Plan},
    snapshot::{Ingress, Service, Snapshot},
};

impl Controller {
    /// Proves with the API server that the objects that the plan treats as deleted are deleted, and that leaving
    /// members have left.
    pub(super) async fn proved(
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
        if self.has_hidden_binding(stack, observed, plan).await? {
            return Ok(false);
        }
        match stack {
            StackId::Group(_) | StackId::Ingress(_) => {
                self.proved_by_ingresses(stack, membership, observed, plan).await
            }
            StackId::Service(name) => self.proved_by_service(name, membership).await,
        }
    }

    /// Returns true if a target group is to be deleted whose binding the watch does not show yet. Without its target group, nothing
    /// may tell any more that the binding is of the stack.
    async fn has_hidden_binding(
        &self,
        stack: &StackId,
        observed: &ObservedStack,
        plan: &Plan,
    ) -> Result<bool, KubernetesError> {
        let deleted = |group: &&ObservedTargetGroup| {
            let is_it = |step: &plan::Step| matches!(&step.action, plan::StepAction::DeleteTargetGroup { arn, .. } if *arn == group.arn);
            plan.steps().iter().any(is_it)
        };
        let is_known = |snapshot: &Snapshot, group: &ObservedTargetGroup| {
            let namespace = group.resource().and_then(|resource| Some(resource.namespace()?.to_owned()));
            let name = namespace.map(|namespace| ObjectName::new(namespace, group.name.clone()));
            name.is_none_or(|name| snapshot.target_group_bindings.contains_key(&name))
        };
        let all_known = self.with_snapshot(|snapshot| {
            observed.target_groups.iter().filter(deleted).all(|group| is_known(snapshot, group))
        });
        if all_known {
            return Ok(false);
        }
        let labelled = self.kubernetes.labelled_bindings(stack).await?;
        Ok(self.with_snapshot(|snapshot| {
            let mut hidden = labelled.iter().filter(|it| !snapshot.target_group_bindings.contains_key(&it.name));
            hidden.any(|binding| is_binding_of(stack, binding, observed, snapshot))
        }))
    }

    /// Proves that a leaving Service is not managed by the controller any more.
    async fn proved_by_service(&self, name: &ObjectName, membership: &Membership) -> Result<bool, KubernetesError> {
        if membership.leaving.is_empty() {
            return Ok(true);
        }
        let fresh = self.kubernetes.service(name).await?;
        let ours = |fresh: &Service| service::ownership(fresh, &self.config) == service::Ownership::Ours;
        Ok(!fresh.is_some_and(|fresh| ours(&fresh)))
    }

    /// Proves that Ingresses still request the load balancer that replaces another, and that leaving members have left.
    async fn proved_by_ingresses(
        &self,
        stack: &StackId,
        membership: &Membership,
        observed: &ObservedStack,
        plan: &Plan,
    ) -> Result<bool, KubernetesError> {
        let replaces = |step: &plan::Step| matches!(step.action, plan::StepAction::DeleteLoadBalancer { .. });
        if !membership.members.is_empty() && plan.steps().iter().any(replaces) {
            // The request for another load balancer must still be current.
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
        let holders = observed.member_resources.iter().filter_map(|resources| resources.member.as_ingress());
        let gone = holders.filter(|name| !membership.members.contains(name) && !membership.leaving.contains(name));
        for name in membership.leaving.iter().chain(gone) {
            let Some(fresh) = self.kubernetes.ingress(name).await? else { continue };
            if !fresh.deleting && !self.left(&fresh, stack).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns true if an Ingress that is not being deleted has another class or group now, judged by fresh objects.
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
}
