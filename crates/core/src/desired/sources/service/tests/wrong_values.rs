//! A wrong value of each annotation is reported on the Service that carries it, with key, value and the allowed values.

use super::*;
use crate::{
    api::annotations::{ANNOTATIONS, Parameter, SERVICE_PREFIX},
    desired::sources::ingress::tests::wrong_values::{is_told, wrong_value},
};

#[test]
fn on_services_with_a_load_balancer_of_their_own() {
    let mut count = 0;
    for annotation in ANNOTATIONS.iter().filter(|annotation| annotation.key.prefix() == SERVICE_PREFIX) {
        let Some(value) = wrong_value(annotation.grammar) else { continue };
        let parameter = match annotation.key.parameter() {
            None => "",
            Some(Parameter::Port) => ".80",
            Some(Parameter::NetworkListener) => ".TCP-80",
            Some(other) => panic!("{other:?}"),
        };
        let name = format!("{}{parameter}", annotation.key.name());
        let key = format!("{SERVICE_PREFIX}{name}");
        let usual = [
            ("aws-load-balancer-ssl-cert", "arn:aws:acm:eu-west-1:1:certificate/a"),
            ("aws-load-balancer-ssl-ports", "443"),
            ("aws-load-balancer-access-log-enabled", "true"),
            ("aws-load-balancer-access-log-s3-bucket-name", "logs"),
            ("aws-load-balancer-healthcheck-protocol", "http"),
        ];
        let mut annotations: Vec<(&str, &str)> = usual.into_iter().filter(|(key, _)| *key != name).collect();
        annotations.push((&name, value));
        let built = build_with(&service(&annotations, &format!("{CLASS}{TWO_PORTS}")), &config(), &facts());
        let reported = |diagnostic: &crate::diagnostics::Diagnostic| {
            diagnostic.object == ObjectReference::service(&web()) && is_told(annotation, &key, value, diagnostic)
        };
        assert!(built.diagnostics.iter().any(reported), "{key}:\n{}", messages(&built));
        count += 1;
    }
    assert!(count > 25, "{count}");
}
