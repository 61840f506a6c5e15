//! A wrong value of each annotation is reported on the object that carries it, with key, value and the allowed values.

use super::{super::membership, *};
use crate::{
    api::annotations::{ANNOTATIONS, Annotation, Grammar, INGRESS_PREFIX, Parameter, Status},
    diagnostics::Diagnostic,
    model::ObjectReference,
};

/// A value that the grammar does not allow, where there is one.
pub(in crate::desired) fn wrong_value(grammar: Grammar) -> Option<&'static str> {
    match grammar {
        Grammar::String | Grammar::StringList => None,
        Grammar::Text { .. } => Some("a name that is far longer than any name may be"),
        Grammar::HealthCheckPort { service_port_names: true } => Some(""),
        _ => Some("?!"),
    }
}

/// Returns true if a diagnostic reports an annotation's wrong value: by its key, and where its effect is built, with the value and the
/// allowed values. A value that blocks the build is an error; one without effect is reported as a warning.
pub(in crate::desired) fn is_told(annotation: &Annotation, key: &str, value: &str, diagnostic: &Diagnostic) -> bool {
    let text = format!("{}; {}", diagnostic.message, diagnostic.fix);
    let whole = text.contains(&format!("the value `{value}`")) && text.contains(&annotation.grammar.describe());
    let grave = annotation.status == Status::Later || diagnostic.severity == Severity::Error || whole;
    diagnostic.field == key && grave && (whole || annotation.status != Status::Built)
}

const ANSWER: &str = r#"{"type": "fixed-response", "fixedResponseConfig": {"statusCode": "200"}}"#;

#[test]
fn on_ingresses_and_the_services_behind_them() {
    let mut count = 0;
    for annotation in ANNOTATIONS.iter().filter(|annotation| annotation.key.prefix() == INGRESS_PREFIX) {
        let Some(value) = wrong_value(annotation.grammar) else { continue };
        // An output is not read.
        if annotation.key.as_str() == crate::dry_run_plan::KEY {
            continue;
        }
        let parameter = match (annotation.key.parameter(), annotation.key.name()) {
            (None, _) => "",
            (Some(Parameter::Name), "actions") => ".go",
            (Some(Parameter::Listener), _) => ".HTTP-80",
            (Some(Parameter::ServicePort), _) => ".web.80",
            _ => ".web",
        };
        let name = format!("{}{parameter}", annotation.key.name());
        let key = format!("{INGRESS_PREFIX}{name}");
        for kind in annotation.objects {
            let on_ingress = *kind == crate::api::annotations::ObjectKind::Ingress;
            let usual = [
                ("target-type", "ip"),
                ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#),
                ("certificate-arn", "arn:aws:acm:eu-west-1:1:certificate/a"),
                ("actions.go", ANSWER),
            ];
            let mut annotations: Vec<(&str, &str)> = usual.into_iter().filter(|(key, _)| *key != name).collect();
            if on_ingress {
                annotations.push((&name, value));
            }
            let paths = [("Exact", "/a", "web", "80"), ("Exact", "/b", "go", "use-annotation")];
            let ingress = ingress(&annotations, &format!("  rules:\n{}", rules("", &paths)));
            let mut services = SERVICES.to_owned();
            if !on_ingress {
                let value = serde_json::Value::from(value);
                let annotated = format!("{{name: web, namespace: shop, annotations: {{\"{key}\": {value}}}, ");
                services = services.replacen("{name: web, namespace: shop, ", &annotated, 1);
            }
            let facts = Facts {
                security_groups: [(vec!["sg-1".to_owned()], Fact::Known(vec![SecurityGroupId::new("sg-1")]))].into(),
                ..facts()
            };
            let built = build_with(&format!("{services}\n---\n{ingress}"), &config(), &facts);
            let object = if on_ingress { ObjectReference::ingress(&web()) } else { ObjectReference::service(&web()) };
            let reported =
                |diagnostic: &Diagnostic| diagnostic.object == object && is_told(annotation, &key, value, diagnostic);
            // The place within a group is read when its members are gathered.
            let group = StackId::Ingress(web());
            let gathered = membership(&snapshot(&format!("{services}\n---\n{ingress}")), &config(), &group);
            let mut all = built.diagnostics.iter().chain(&gathered.broken);
            assert!(all.any(reported), "{key} on {object}:\n{}", messages(&built));
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
}
