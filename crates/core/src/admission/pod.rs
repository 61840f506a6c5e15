//! Pods: a readiness gate for each target group that they will be in.

use serde_json::{Value, json};

use super::{Rules, texts};
use crate::{
    api::{
        admission::{AdmissionResponse, Request},
        crd::target_group_binding::TargetType,
        readiness::{condition_of, is_legacy},
    },
    model::ObjectName,
    snapshot::{Snapshot, TargetGroupBinding, in_namespace},
};

pub(super) fn answer(request: &Request, snapshot: &Snapshot, rules: Rules) -> AdmissionResponse {
    if !rules.inject_gates || !request.creates() {
        return AdmissionResponse::allowed();
    }
    let labels = texts(&request.object, "/metadata/labels");
    let feeds = |binding: &&TargetGroupBinding| {
        let service = ObjectName::new(&request.namespace, &binding.spec.service_ref.name);
        !binding.deleting
            && binding.spec.target_type == Some(TargetType::Ip)
            && snapshot.services.get(&service).is_some_and(|service| service.selects(&labels))
    };
    let bindings = in_namespace(&snapshot.target_group_bindings, &request.namespace).map(|(_, binding)| binding);
    let wanted: Vec<String> = bindings.filter(feeds).map(|binding| condition_of(&binding.name.name)).collect();
    let declared: Vec<&Value> =
        request.object.pointer("/spec/readinessGates").and_then(Value::as_array).into_iter().flatten().collect();
    let kind = |gate: &Value| gate.get("conditionType").and_then(Value::as_str).unwrap_or_default().to_owned();
    let missing: Vec<&String> =
        wanted.iter().filter(|wanted| declared.iter().all(|gate| kind(gate) != **wanted)).collect();
    if missing.is_empty() {
        return AdmissionResponse::allowed();
    }
    // Gates of the predecessor of aws-load-balancer-controller are no longer updated by any controller.
    let kept = declared.into_iter().filter(|gate| !is_legacy(&kind(gate))).cloned();
    let gates: Vec<Value> = kept.chain(missing.into_iter().map(|gate| json!({ "conditionType": gate }))).collect();
    // `add` replaces what is there.
    let patch = vec![json!({ "op": "add", "path": "/spec/readinessGates", "value": gates })];
    AdmissionResponse { patch, ..AdmissionResponse::default() }
}
