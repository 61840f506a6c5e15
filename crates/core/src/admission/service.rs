//! Services of type LoadBalancer that name no class get the class of albatross.

use serde_json::{Value, json};

use crate::{
    api::admission::{AdmissionResponse, Request},
    desired::BuildConfig,
};

pub(super) fn answer(request: &Request, config: &BuildConfig) -> AdmissionResponse {
    let field = |name: &str| request.object.pointer(name).and_then(Value::as_str).unwrap_or_default();
    let unclassed = field("/spec/type") == "LoadBalancer" && field("/spec/loadBalancerClass").is_empty();
    // With Services switched off, the class would leave them without a load balancer.
    if !unclassed || !request.creates() || !config.enable_services || config.load_balancer_class.is_empty() {
        return AdmissionResponse::allowed();
    }
    let patch = vec![json!({ "op": "add", "path": "/spec/loadBalancerClass", "value": config.load_balancer_class })];
    AdmissionResponse { patch, ..AdmissionResponse::default() }
}
