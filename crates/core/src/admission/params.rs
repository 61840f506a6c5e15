//! IngressClassParams: address ranges and subnets, as aws-load-balancer-controller checks them.

use crate::{
    api::{
        admission::{Answer, Request},
        crd::IngressClassParams,
    },
    desired::sources::ingress::params_mistakes,
};

pub(super) fn answer(request: &Request) -> Answer {
    // What is no IngressClassParams at all, the schema tells.
    let Ok(params) = serde_json::from_value::<IngressClassParams>(request.object.clone()) else {
        return Answer::allowed();
    };
    if params.metadata.deletion_timestamp.is_some() {
        return Answer::allowed();
    }
    let (denied, warnings): (Vec<_>, Vec<_>) = params_mistakes(&params.spec)
        .into_iter()
        .map(|(field, message, fix)| (field.clone(), format!("spec.{field}: {message}; {fix}")))
        .partition(|(field, _)| field.starts_with("inboundCIDRs") || field.starts_with("subnets"));
    let texts = |found: Vec<(String, String)>| found.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    let denied = texts(denied);
    Answer { denied: (!denied.is_empty()).then(|| denied.join("; ")), warnings: texts(warnings), patch: Vec::new() }
}
