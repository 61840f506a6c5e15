//! IngressClassParams: address ranges and subnets, as aws-load-balancer-controller checks them.

use crate::{
    api::{
        admission::{AdmissionResponse, Request},
        crd::IngressClassParams,
    },
    desired::sources::ingress::params_mistakes,
};

pub(super) fn answer(request: &Request) -> AdmissionResponse {
    // The schema reports objects that are not IngressClassParams at all.
    let Ok(params) = serde_json::from_value::<IngressClassParams>(request.object.clone()) else {
        return AdmissionResponse::allowed();
    };
    if params.metadata.deletion_timestamp.is_some() {
        return AdmissionResponse::allowed();
    }
    let (denied, warnings): (Vec<_>, Vec<_>) = params_mistakes(&params.spec)
        .into_iter()
        .map(|(field, message, fix)| (field.clone(), format!("spec.{field}: {message}; {fix}")))
        .partition(|(field, _)| field.starts_with("inboundCIDRs") || field.starts_with("subnets"));
    let texts = |found: Vec<(String, String)>| found.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    let denied = texts(denied);
    AdmissionResponse {
        denied: (!denied.is_empty()).then(|| denied.join("; ")),
        warnings: texts(warnings),
        patch: Vec::new(),
    }
}
