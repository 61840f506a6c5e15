//! `docs/annotations.md`, written from the list of annotations so that the two cannot disagree.

use std::fmt::Write as _;

use super::{ANNOTATIONS, Annotation, INGRESS_PREFIX, ObjectKind, SERVICE_PREFIX, Status, values::FALSE};

const HEAD: &str = "# Annotations

This file is generated from the list in `crates/core/src/api/annotations/registry`; `cargo xtask generate` updates it.

What the words in the column *status* mean:

| status | meaning |
|---|---|
| works | It does what it says. |
| works for … | It works with these values. With any other one the object is refused. |
| refused | It is known and not built, and without it the object would be reachable, protected or routed otherwise than it asks for. So the object is refused: a Warning event names the annotation, and whatever the object has in AWS stays as it is. |
| ignored | It is known and not built. The object is served without its effect, and a Warning event says so. |
| ended | AWS has ended the service that it belongs to. The object is served without its effect, and a Warning event says what to use now. |

An annotation under `alb.ingress.kubernetes.io/` that is not in the list has no effect, and a Warning event names the one that was probably meant, where
one is like it. A value that is not allowed, of an annotation that works, is an error: nothing of the object changes until it is fixed.

The annotation `kubernetes.io/ingress.class` is read too: if it is set, only it decides which controller the Ingress belongs to, and `spec.ingressClassName` is not
looked at.
";

const ON_INGRESSES: &str = "
## On Ingresses: `alb.ingress.kubernetes.io/`

Where *Service* stands in the column *where*, the annotation may also stand on a Service behind the Ingress. It then takes the place of the Ingress's
for that Service; of tags, key by key.

";

const ON_SERVICES: &str = "
## On Services of their own: `service.beta.kubernetes.io/`

They are read on Services that this controller makes a Network Load Balancer for: those of the class `service.k8s.aws/nlb` (`--load-balancer-class`), and
those without a class whose `aws-load-balancer-type` is `nlb-ip`, or `external` with a target type. On all other Services they say nothing here.

";

/// Returns the document.
#[must_use]
pub fn render_markdown() -> String {
    let mut out = HEAD.to_owned();
    for (prefix, text) in [(INGRESS_PREFIX, ON_INGRESSES), (SERVICE_PREFIX, ON_SERVICES)] {
        out.push_str(text);
        out.push_str("| annotation | status | where | values | default | what it does |\n|---|---|---|---|---|---|\n");
        for annotation in ANNOTATIONS.iter().filter(|annotation| annotation.key.prefix() == prefix) {
            let name = annotation.key.to_string();
            let name = name.strip_prefix(prefix).unwrap_or(&name);
            let places = annotation.objects.iter().map(|kind: &ObjectKind| kind.as_str()).collect::<Vec<_>>();
            let cells = [
                format!("`{name}`"),
                status(annotation),
                places.join(", "),
                annotation.grammar.describe(),
                annotation.default.to_owned(),
                annotation.description.to_owned(),
            ];
            // A bar in a cell would end it.
            let cells = cells.map(|cell| cell.replace('|', "\\|"));
            // Writing to a String cannot fail.
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
    }
    out
}

fn status(annotation: &Annotation) -> String {
    match annotation.status {
        Status::Built => "works".to_owned(),
        Status::BuiltFor(FALSE) => "works for `false`".to_owned(),
        Status::BuiltFor(values) => format!("works for {}", super::choice(values)),
        Status::Later => "ignored".to_owned(),
        Status::Ended { .. } => "ended".to_owned(),
        Status::Refused => "refused".to_owned(),
    }
}
