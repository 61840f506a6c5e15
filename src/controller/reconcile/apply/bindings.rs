//! TargetGroupBindings: the steps that are carried out in Kubernetes.

use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, PostParams},
};

use super::{Applier, StepError, created_resources::CreatedResources};
use crate::controller::cluster::deadline::with_deadline;
use albatross_core::{
    api::crd::{TargetGroupBinding, TargetGroupBindingSpec},
    model::{ObjectName, ObservedBinding, StackId, TargetGroup, TargetGroupArn},
    plan::binding,
};

fn failed(verb: &str, error: kube::Error) -> StepError {
    let kube::Error::Api(status) = &error else {
        // The write may have had its effect: the next pass sees.
        return StepError::Kubernetes { message: format!("the request to the API server failed: {error}"), fix: None };
    };
    let fix = if status.is_forbidden() {
        Some(format!("allow the verb `{verb}` on `targetgroupbindings.elbv2.k8s.aws` in the controller's ClusterRole"))
    } else if status.code == 404 {
        Some("install the CustomResourceDefinitions of `elbv2.k8s.aws`, or create the namespace".to_owned())
    } else if status.is_invalid() || status.code == 400 {
        Some("check why the API server or an admission webhook refuses the TargetGroupBinding".to_owned())
    } else {
        None
    };
    let message = format!("the API server answers: {}", status.message);
    StepError::Kubernetes { message, fix }
}

impl Applier {
    fn bindings_in(&self, namespace: &str) -> Api<TargetGroupBinding> {
        Api::namespaced(self.bindings.clone(), namespace)
    }

    fn spec(
        &self,
        stack: &StackId,
        wanted: &TargetGroup,
        arn: &TargetGroupArn,
        resources: &CreatedResources,
    ) -> Result<TargetGroupBindingSpec, StepError> {
        let source = |reference: &_| resources.security_group(&self.inventory, stack, reference).ok();
        let spec = binding::spec(wanted, arn, &source);
        spec.ok_or_else(|| StepError::Unresolved("security group or VPC that the TargetGroupBinding names".to_owned()))
    }

    pub(crate) async fn create_binding(
        &self,
        stack: &StackId,
        wanted: &TargetGroup,
        resources: &CreatedResources,
    ) -> Result<(), StepError> {
        let arn = resources.target_group(&self.inventory, stack, &wanted.resource)?;
        let name = wanted.name.known().ok_or_else(|| StepError::Unresolved("target group's name".to_owned()))?;
        let new = TargetGroupBinding {
            metadata: ObjectMeta {
                name: Some(name.as_str().to_owned()),
                namespace: Some(wanted.binding.namespace.clone()),
                labels: Some(wanted.binding.labels.clone()),
                ..ObjectMeta::default()
            },
            spec: self.spec(stack, wanted, &arn, resources)?,
            status: None,
        };
        let api = self.bindings_in(&wanted.binding.namespace);
        match with_deadline(api.create(&PostParams::default(), &new)).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                self.take_over_binding(&api, name.as_str(), new).await
            }
            result => result.map(drop).map_err(|error| failed("create", error)),
        }
    }

    /// Takes over a binding of that name that exists although it was not listed: the controller created it, and the answer
    /// was lost or the list is behind.
    async fn take_over_binding(
        &self,
        api: &Api<TargetGroupBinding>,
        name: &str,
        new: TargetGroupBinding,
    ) -> Result<(), StepError> {
        let existing = with_deadline(api.get(name)).await.map_err(|error| failed("get", error))?;
        let labels = existing.metadata.labels.clone().unwrap_or_default();
        let ours = new.metadata.labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
        if !ours {
            return Err(StepError::Kubernetes {
                message: format!("the TargetGroupBinding `{name}` exists and is not this group's: it lacks its labels"),
                fix: Some(format!("delete or rename the TargetGroupBinding `{name}`")),
            });
        }
        if existing.metadata.deletion_timestamp.is_some() {
            return Err(StepError::Kubernetes {
                message: format!("the TargetGroupBinding `{name}` is being deleted"),
                fix: None,
            });
        }
        self.replace_binding(api, name, existing, new).await
    }

    pub(crate) async fn update_binding(
        &self,
        stack: &StackId,
        seen: &ObservedBinding,
        wanted: &TargetGroup,
        keeps_networking: bool,
        resources: &CreatedResources,
    ) -> Result<(), StepError> {
        let api = self.bindings_in(&seen.name.namespace);
        let existing = with_deadline(api.get(&seen.name.name)).await.map_err(|error| failed("get", error))?;
        if existing.spec != seen.spec || existing.metadata.deletion_timestamp.is_some() != seen.deleting {
            let message = format!("the TargetGroupBinding {} has changed meanwhile", seen.name);
            return Err(StepError::Kubernetes { message, fix: None });
        }
        let spec = self.spec(stack, wanted, &seen.target_group, resources)?;
        let new = TargetGroupBinding {
            metadata: ObjectMeta { labels: Some(wanted.binding.labels.clone()), ..ObjectMeta::default() },
            spec: if keeps_networking { binding::widened(spec, &seen.spec) } else { spec },
            status: None,
        };
        self.replace_binding(&api, &seen.name.name, existing, new).await
    }

    /// Replaces the spec and the stack's labels. Other labels, annotations and finalizers stay: they belong to others, or
    /// to the binding's own worker. The API server refuses if the object has changed since it was read.
    async fn replace_binding(
        &self,
        api: &Api<TargetGroupBinding>,
        name: &str,
        existing: TargetGroupBinding,
        new: TargetGroupBinding,
    ) -> Result<(), StepError> {
        let mut labels = existing.metadata.labels.unwrap_or_default();
        labels.extend(new.metadata.labels.unwrap_or_default());
        let replaced = TargetGroupBinding {
            metadata: ObjectMeta { labels: Some(labels), managed_fields: None, ..existing.metadata },
            spec: new.spec,
            status: existing.status,
        };
        let result = with_deadline(api.replace(name, &PostParams::default(), &replaced)).await;
        result.map(drop).map_err(|error| failed("update", error))
    }

    pub(crate) async fn delete_binding(&self, name: &ObjectName) -> Result<(), StepError> {
        let api = self.bindings_in(&name.namespace);
        match with_deadline(api.delete(&name.name, &DeleteParams::default())).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            result => result.map(drop).map_err(|error| failed("delete", error)),
        }
    }
}
