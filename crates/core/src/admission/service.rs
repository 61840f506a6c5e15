//! Services of type LoadBalancer that name no class get the class of albatross when they are made, and keep the class that
//! they have in an update that leaves it out, which the API server would refuse.

use serde_json::{Value, json};

use crate::{
    api::admission::{AdmissionResponse, Request},
    desired::BuildConfig,
};

pub(super) fn answer(request: &Request, config: &BuildConfig) -> AdmissionResponse {
    let unclassed = field(&request.object, "/spec/type") == "LoadBalancer" && class(&request.object).is_empty();
    // With Services switched off, the class would leave them without a load balancer.
    let given = match request.operation.as_str() {
        "CREATE" if config.enable_services => config.load_balancer_class.as_str(),
        "UPDATE" => class(&request.old_object),
        _ => "",
    };
    if !unclassed || given.is_empty() {
        return AdmissionResponse::allowed();
    }
    let patch = vec![json!({ "op": "add", "path": "/spec/loadBalancerClass", "value": given })];
    AdmissionResponse { patch, ..AdmissionResponse::default() }
}

fn class(service: &Value) -> &str {
    field(service, "/spec/loadBalancerClass")
}

fn field<'v>(service: &'v Value, pointer: &str) -> &'v str {
    service.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
