//! Admission webhooks: from an object that a user writes, and the snapshot of the cluster, to a response. Pure. Nothing
//! depends on the webhooks being called; without them, the same mistakes are found in the pass over the object.

mod binding;
pub mod binding_defaults;
mod drain;
mod ingress;
mod params;
mod pod;
pub mod server_id;
mod service;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    api::admission::{AdmissionResponse, Request},
    desired::BuildConfig,
    snapshot::Snapshot,
};

/// The API server passes on no more warnings than this.
const MAX_WARNINGS: usize = 5;
/// The most characters of a warning; the API server may cut off longer ones.
const LONGEST_WARNING: usize = 250;

/// Returns a warning without what the API server would cut off.
fn shortened(warning: String) -> String {
    excerpt(&warning, LONGEST_WARNING).unwrap_or(warning)
}

/// Returns the beginning of a longer text.
fn excerpt(text: &str, longest: usize) -> Option<String> {
    let (end, _) = text.char_indices().nth(longest)?;
    Some(format!("{}…", text.get(..end).unwrap_or_default()))
}

/// Labels or annotations.
type Texts = BTreeMap<String, String>;

/// Returns the labels or annotations of an object.
fn texts(object: &Value, pointer: &str) -> Texts {
    let map = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// A webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Gives pods their readiness gates.
    Pod,
    /// Lets pods sleep before they end.
    Drain,
    /// Gives pods behind QUIC their server ids.
    ServerId,
    /// Gives Services of type LoadBalancer their class.
    Service,
    /// Checks Ingresses.
    Ingress,
    /// Checks IngressClassParams.
    IngressClassParams,
    /// Checks TargetGroupBindings.
    TargetGroupBinding,
    /// Fills in what new TargetGroupBindings leave out.
    TargetGroupBindingDefaults,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Pod,
        Self::Drain,
        Self::ServerId,
        Self::Service,
        Self::Ingress,
        Self::IngressClassParams,
        Self::TargetGroupBinding,
        Self::TargetGroupBindingDefaults,
    ];

    /// Returns the name of the webhook. It is aws-load-balancer-controller's where that has the webhook.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pod => "mpod.elbv2.k8s.aws",
            Self::Drain => "mdrain.elbv2.k8s.aws",
            Self::ServerId => "quicid.elbv2.k8s.aws",
            Self::Service => "mservice.elbv2.k8s.aws",
            Self::Ingress => "vingress.elbv2.k8s.aws",
            Self::IngressClassParams => "vingressclassparams.elbv2.k8s.aws",
            Self::TargetGroupBinding => "vtargetgroupbinding.elbv2.k8s.aws",
            Self::TargetGroupBindingDefaults => "mtargetgroupbinding.elbv2.k8s.aws",
        }
    }

    /// Returns the path of the webhook. It is aws-load-balancer-controller's where that has the webhook.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Pod => "/mutate-v1-pod",
            Self::Drain => "/mutate-v1-pod-drain",
            Self::ServerId => "/mutate-v1-pod-server-id",
            Self::Service => "/mutate-v1-service",
            Self::Ingress => "/validate-networking-v1-ingress",
            Self::IngressClassParams => "/validate-elbv2-k8s-aws-v1beta1-ingressclassparams",
            Self::TargetGroupBinding => "/validate-elbv2-k8s-aws-v1beta1-targetgroupbinding",
            Self::TargetGroupBindingDefaults => "/mutate-elbv2-k8s-aws-v1beta1-targetgroupbinding",
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
    /// The API server is older than the hooks' action `sleep`, and would take a hook with it for one without an action.
    pub no_sleep: bool,
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
        Hook::Drain => {
            snapshot.map_or_else(AdmissionResponse::allowed, |snapshot| drain::answer(request, snapshot, config, rules))
        }
        Hook::Service => service::answer(request, config),
        Hook::Ingress => snapshot
            .map_or_else(AdmissionResponse::allowed, |snapshot| ingress::answer(request, snapshot, config, rules)),
        Hook::IngressClassParams => params::answer(request),
        // What depends on AWS is in `binding_defaults`, and what depends on the ids of before in `server_id`.
        Hook::TargetGroupBindingDefaults | Hook::ServerId => AdmissionResponse::allowed(),
        Hook::TargetGroupBinding => {
            snapshot.map_or_else(AdmissionResponse::allowed, |snapshot| binding::answer(request, snapshot, config))
        }
    }
}
