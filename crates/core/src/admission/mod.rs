//! Admission webhooks: from an object that a user writes, and the snapshot of the cluster, to a response. Pure. Nothing
//! depends on the webhooks being called; without them, the same mistakes are found in the pass over the object.

mod binding;
mod ingress;
mod params;
mod pod;
mod service;

#[cfg(test)]
mod tests;

use crate::{
    api::admission::{AdmissionResponse, Request},
    desired::BuildConfig,
    snapshot::Snapshot,
};

/// A webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Gives pods their readiness gates.
    Pod,
    /// Gives Services of type LoadBalancer their class.
    Service,
    /// Checks Ingresses.
    Ingress,
    /// Checks IngressClassParams.
    IngressClassParams,
    /// Checks TargetGroupBindings.
    TargetGroupBinding,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Pod, Self::Service, Self::Ingress, Self::IngressClassParams, Self::TargetGroupBinding];

    /// Returns the name that aws-load-balancer-controller gives the webhook.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pod => "mpod.elbv2.k8s.aws",
            Self::Service => "mservice.elbv2.k8s.aws",
            Self::Ingress => "vingress.elbv2.k8s.aws",
            Self::IngressClassParams => "vingressclassparams.elbv2.k8s.aws",
            Self::TargetGroupBinding => "vtargetgroupbinding.elbv2.k8s.aws",
        }
    }

    /// Returns the path of the webhook, that of aws-load-balancer-controller.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Pod => "/mutate-v1-pod",
            Self::Service => "/mutate-v1-service",
            Self::Ingress => "/validate-networking-v1-ingress",
            Self::IngressClassParams => "/validate-elbv2-k8s-aws-v1beta1-ingressclassparams",
            Self::TargetGroupBinding => "/validate-elbv2-k8s-aws-v1beta1-targetgroupbinding",
        }
    }
}

/// The flags that only the webhooks use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `--enable-pod-readiness-gate-inject`
    pub inject_gates: bool,
    /// `--disable-ingress-class-annotation`: no Ingress may begin to name its class by an annotation.
    pub no_class_annotation: bool,
    /// `--disable-ingress-group-name-annotation`: no Ingress may begin to name its group, or change it.
    pub no_group_annotation: bool,
}

/// Returns the response to a request. As long as not every kind has been listed there is no snapshot, and everything is admitted.
#[must_use]
pub fn answer(
    hook: Hook,
    request: &Request,
    snapshot: Option<&Snapshot>,
    config: &BuildConfig,
    rules: Rules,
) -> AdmissionResponse {
    match hook {
        Hook::Pod => snapshot.map_or_else(AdmissionResponse::allowed, |snapshot| pod::answer(request, snapshot, rules)),
        Hook::Service => service::answer(request, config),
        Hook::Ingress => snapshot
            .map_or_else(AdmissionResponse::allowed, |snapshot| ingress::answer(request, snapshot, config, rules)),
        Hook::IngressClassParams => params::answer(request),
        Hook::TargetGroupBinding => {
            snapshot.map_or_else(AdmissionResponse::allowed, |snapshot| binding::answer(request, snapshot, config))
        }
    }
}
