//! `docs/annotations.md`, written from the list of annotations so that the two cannot disagree.

use std::fmt::Write as _;

use super::{
    ANNOTATIONS, Annotation, Grammar, INGRESS_CLASS, INGRESS_PREFIX, JsonShape, ObjectKind, SERVICE_PREFIX, Status,
    values::FALSE,
};

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

Each table is followed by an example of YAML for each of its annotations, to be written under `metadata.annotations`. The lines of an example do not have to go
together; [examples.md](examples.md) has whole manifests of annotations that do. The value of an annotation is always text, so that numbers and the words `true`,
`false`, `on` and `off` need quotes. JSON may stand in quotes or, over several lines, behind a bar (`|`).

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
    out.push_str(&yaml(super::find(INGRESS_CLASS)));
    for (prefix, text) in [(INGRESS_PREFIX, ON_INGRESSES), (SERVICE_PREFIX, ON_SERVICES)] {
        out.push_str(text);
        let of_prefix: Vec<_> = ANNOTATIONS.iter().filter(|annotation| annotation.key.prefix() == prefix).collect();
        for of_topic in of_prefix.chunk_by(|a, b| a.topic == b.topic) {
            let topic = of_topic.first().map(|annotation| annotation.topic).unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = write!(out, "\n### {topic}\n\n{}\n{}", table(prefix, of_topic), yaml(of_topic.iter().copied()));
        }
    }
    out
}

/// Returns the table of these annotations.
fn table(prefix: &str, annotations: &[&Annotation]) -> String {
    let mut out =
        "| annotation | status | where | values | default | what it does |\n|---|---|---|---|---|---|\n".to_owned();
    for annotation in annotations {
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
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

/// Returns the examples of these annotations as a block of YAML.
fn yaml<'a>(annotations: impl IntoIterator<Item = &'a Annotation>) -> String {
    let mut out = "```yaml\nmetadata:\n  annotations:\n".to_owned();
    for annotation in annotations {
        for example in annotation.examples {
            if let Some(remark) = remark(annotation, example.value) {
                let _ = writeln!(out, "    # {remark}");
            }
            let _ = writeln!(out, "    {}: {}", example.key(annotation.key), scalar(example.value));
        }
    }
    out + "```\n"
}

/// Returns the remark on an example that does not do what it says, or that no user writes.
fn remark(annotation: &Annotation, value: &str) -> Option<&'static str> {
    match annotation.status {
        status if status.refuses(value) => Some("refused"),
        Status::Later => Some("ignored"),
        Status::Ended { .. } => Some("ended"),
        _ if annotation.grammar == Grammar::Json(JsonShape::Plan) => Some("written by the controller"),
        _ => None,
    }
}

/// Returns a value as YAML that every reader takes for that text, as it stands below `metadata.annotations`.
fn scalar(value: &str) -> String {
    if value.contains('\n') {
        return value.lines().fold("|".to_owned(), |text, line| format!("{text}\n      {line}"));
    }
    // Readers of YAML 1.1, such as kubectl, take these words for booleans or for nothing.
    let is_word = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(value));
    let is_plain = value.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && value.chars().all(|c| c.is_ascii_alphanumeric() || " -_./:=,".contains(c))
        && !value.contains(": ")
        && !value.ends_with([':', ' ']);
    if is_plain && !is_word { value.to_owned() } else { format!("'{}'", value.replace('\'', "''")) }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn values_as_yaml() {
        for (value, yaml) in [
            ("internet-facing", "internet-facing"),
            ("/healthz", "/healthz"),
            ("openid email", "openid email"),
            ("arn:aws:acm:eu-west-1:111122223333:certificate/1", "arn:aws:acm:eu-west-1:111122223333:certificate/1"),
            ("a: b", "'a: b'"),
            ("a:", "'a:'"),
            ("true", "'true'"),
            ("On", "'On'"),
            ("443", "'443'"),
            ("200-399", "'200-399'"),
            ("*", "'*'"),
            ("", "''"),
            (r#"[{"HTTP": 80}]"#, r#"'[{"HTTP": 80}]'"#),
            ("it's", "'it''s'"),
            ("{\n  \"a\": 1\n}", "|\n      {\n        \"a\": 1\n      }"),
        ] {
            assert_eq!(scalar(value), yaml, "{value}");
            let read: BTreeMap<String, String> = serde_saphyr::from_str(&format!("    key: {yaml}\n")).unwrap();
            assert_eq!(read.get("key").map(|text| text.trim_end()), Some(value));
        }
    }

    /// The blocks of the document, as the API server gets them, have the examples of the whole list.
    #[test]
    fn the_document_shows_every_example() {
        let document = render_markdown();
        let mut shown = Vec::new();
        for block in document.split("```yaml\n").skip(1) {
            let (block, _) = block.split_once("```\n").unwrap();
            let read: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>> =
                serde_saphyr::from_str(block).unwrap();
            let annotations = &read["metadata"]["annotations"];
            shown.extend(annotations.iter().map(|(key, value)| (key.clone(), value.trim_end().to_owned())));
        }
        let of_one = |annotation: &'static Annotation| {
            let pair = |example: &'static super::super::Example| {
                (example.key(annotation.key).to_string(), example.value.to_owned())
            };
            annotation.examples.iter().map(pair)
        };
        let mut listed: Vec<_> = ANNOTATIONS.iter().flat_map(of_one).collect();
        listed.sort();
        shown.sort();
        assert_eq!(shown, listed);
    }

    #[test]
    fn remarks() {
        let remark = |status, grammar, value| {
            let annotation = Annotation { status, grammar, ..*super::super::find(INGRESS_CLASS).unwrap() };
            super::remark(&annotation, value)
        };
        let ended = Status::Ended { service: "a", fix: "b" };
        for (status, grammar, value, expected) in [
            (Status::Built, Grammar::String, "x", None),
            (Status::Built, Grammar::Json(JsonShape::Plan), "{}", Some("written by the controller")),
            (Status::BuiltFor(FALSE), Grammar::Bool, "false", None),
            (Status::BuiltFor(FALSE), Grammar::Bool, "true", Some("refused")),
            (Status::Refused, Grammar::String, "x", Some("refused")),
            (Status::Later, Grammar::Json(JsonShape::Plan), "{}", Some("ignored")),
            (ended, Grammar::String, "x", Some("ended")),
        ] {
            assert_eq!(remark(status, grammar, value), expected, "{status:?} {value}");
        }
    }
}
