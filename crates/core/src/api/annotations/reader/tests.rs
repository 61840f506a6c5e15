use super::super::registry::{INGRESS_PREFIX, SERVICE_PREFIX, service};
use super::*;
use crate::api::annotations::{ANNOTATIONS, Annotation, Parameter};
use crate::model::Rewrite;
use insta::assert_snapshot;
use proptest::prelude::*;

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

fn alb<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (format!("{INGRESS_PREFIX}{key}"), value.into())).collect()
}

fn message<T: fmt::Debug>(result: Result<Option<T>, AnnotationError>) -> String {
    let error = result.unwrap_err();
    format!("{error}\nfix: {}", error.fix())
}

#[test]
fn an_ingress_is_read() {
    let ingress = alb([
        ("scheme", "internal"),
        ("group.order", "-5"),
        ("certificate-arn", "a, b"),
        ("subnets", ""),
        ("tags", "a=1,b=2"),
        ("use-regex-path-match", "T"),
        ("auth-session-timeout", "7"),
        ("ssl-policy", ""),
        ("listen-ports", r#"[{"HTTP":80}]"#),
        ("actions.answer", r#"{"type":"fixed-response","fixedResponseConfig":{"statusCode":"200"}}"#),
        ("conditions.web", r#"[{"field":"http-request-method","httpRequestMethodConfig":{"Values":["POST"]}}]"#),
        ("transforms.web", r#"[{"type":"url-rewrite","urlRewriteConfig":{"rewrites":[{"regex":"a","replace":"b"}]}}]"#),
    ]);
    let annotations = Annotations::of_ingress(&ingress);
    assert_eq!(annotations.enumerated(ingress::SCHEME, &["internal", "internet-facing"]), Ok(Some("internal")));
    assert_eq!(annotations.i32(ingress::GROUP_ORDER), Ok(Some(-5)));
    assert_eq!(annotations.i64(ingress::AUTH_SESSION_TIMEOUT), Ok(Some(7)));
    assert_eq!(annotations.bool(ingress::USE_REGEX_PATH_MATCH), Ok(Some(true)));
    assert_eq!(annotations.string_list(ingress::CERTIFICATE_ARN), Ok(Some(vec!["a".into(), "b".into()])));
    assert_eq!(annotations.string_list(ingress::SUBNETS), Ok(Some(vec![])));
    assert_eq!(annotations.string_list(ingress::SECURITY_GROUPS), Ok(None));
    assert_eq!(annotations.string_map(ingress::TAGS), Ok(Some(map([("a", "1"), ("b", "2")]))));
    assert_eq!(annotations.string(ingress::SSL_POLICY), Ok(Some(String::new())));
    assert_eq!(annotations.listen_ports(), Ok(Some(BTreeMap::from([(80, ListenerProtocol::Http)]))));
    let answer = Action::FixedResponse { content_type: None, message_body: None, status_code: "200".into() };
    assert_eq!(annotations.action("answer"), Ok(Some(answer)));
    assert_eq!(annotations.action("other"), Ok(None));
    let post = Condition::HttpRequestMethod { values: vec!["POST".into()] };
    assert_eq!(annotations.conditions("web"), Ok(Some(vec![post])));
    assert_eq!(annotations.conditions("other"), Ok(None));
    let rewrite = Rewrite { regex: "a".into(), replace: "b".into() };
    assert_eq!(annotations.transforms("web"), Ok(Some(vec![Transform::UrlRewrite(vec![rewrite])])));
    assert!(annotations.contains(ingress::SUBNETS) && !annotations.contains(ingress::SECURITY_GROUPS));
    assert_eq!(annotations.ingress_class(), None);
    assert_eq!(Annotations::of_ingress(&map([("kubernetes.io/ingress.class", "alb")])).ingress_class(), Some("alb"));
}

#[test]
fn the_service_stands_in_place_of_the_ingress() {
    let ingress = alb([
        ("healthcheck-path", "/ingress"),
        ("success-codes", "200"),
        ("tags", "a=ingress,b=ingress"),
        ("scheme", "internal"),
    ]);
    let service =
        alb([("healthcheck-path", "/service"), ("tags", "b=service,c=service"), ("scheme", "internet-facing")]);
    let annotations = Annotations::of_service_over_ingress(&service, &ingress);
    assert_eq!(annotations.value(ingress::HEALTHCHECK_PATH), Some((Origin::Service, "/service")));
    assert_eq!(annotations.string(ingress::SUCCESS_CODES), Ok(Some("200".into())));
    assert_eq!(annotations.string_map(ingress::TAGS), Ok(Some(map([("b", "service"), ("c", "service")]))));
    assert_eq!(
        annotations.merged_string_map(ingress::TAGS),
        Ok(Some(map([("a", "ingress"), ("b", "service"), ("c", "service")])))
    );
    assert_eq!(
        Annotations::of_ingress(&ingress).merged_string_map(ingress::TAGS),
        Ok(Some(map([("a", "ingress"), ("b", "ingress")])))
    );
    assert_eq!(annotations.merged_string_map(ingress::TARGET_NODE_LABELS), Ok(None));
    // The scheme is not read on Services.
    assert_eq!(annotations.value(ingress::SCHEME), Some((Origin::Ingress, "internal")));
    let own = map([("service.beta.kubernetes.io/aws-load-balancer-name", "n")]);
    assert_eq!(Annotations::of_service(&own).string(service::NAME), Ok(Some("n".into())));
}

#[test]
fn messages() {
    let long = format!("[{{\"HTTP\":80}},\n{}]", " ".repeat(90));
    let ingress = alb([
        ("scheme", "public"),
        ("backend-protocol", "https"),
        ("use-regex-path-match", "yes"),
        ("group.order", "1001"),
        ("healthcheck-interval-seconds", "15s"),
        ("load-balancer-name", "a-name-that-is-longer-than-aws-allows"),
        ("tags", "a=1,b"),
        ("inbound-cidrs", "10.0.0.0"),
        ("listen-ports", &long),
        ("actions.answer", r#"{"type":"fixed-response","fixedResponseConfig":{"statusCode":503}}"#),
    ]);
    let annotations = Annotations::of_ingress(&ingress);
    assert_snapshot!(message(annotations.enumerated(ingress::SCHEME, &["internal", "internet-facing"])), @r#"
        annotation `alb.ingress.kubernetes.io/scheme` has the value `public`; allowed: `internal` or `internet-facing`
        fix: write `internal` or `internet-facing`
        "#);
    assert_snapshot!(message(annotations.enumerated(ingress::BACKEND_PROTOCOL, &["HTTP", "HTTPS"])), @r#"
        annotation `alb.ingress.kubernetes.io/backend-protocol` has the value `https`; allowed: `HTTP` or `HTTPS`
        fix: write `HTTPS`
        "#);
    assert_snapshot!(message(annotations.bool(ingress::USE_REGEX_PATH_MATCH)), @r#"
        annotation `alb.ingress.kubernetes.io/use-regex-path-match` has the value `yes`; allowed: `true` or `false`
        fix: write `true`
        "#);
    assert_snapshot!(message(annotations.i32(ingress::GROUP_ORDER)), @r#"
        annotation `alb.ingress.kubernetes.io/group.order` has the value `1001`; allowed: a whole number from -1000 to 1000
        fix: write a whole number from -1000 to 1000
        "#);
    assert_snapshot!(message(annotations.i32(ingress::HEALTHCHECK_INTERVAL_SECONDS)), @r#"
        annotation `alb.ingress.kubernetes.io/healthcheck-interval-seconds` has the value `15s`; allowed: a whole number
        fix: write a whole number
        "#);
    assert_snapshot!(message(annotations.string(ingress::LOAD_BALANCER_NAME)), @r#"
        annotation `alb.ingress.kubernetes.io/load-balancer-name` has the value `a-name-that-is-longer-than-aws-allows`; allowed: text of at most 32 characters
        fix: write text of at most 32 characters
        "#);
    assert_snapshot!(message(annotations.string_map(ingress::TAGS)), @r#"
        annotation `alb.ingress.kubernetes.io/tags` has the value `a=1,b`: `b` is not a pair `key=value`; allowed: pairs `key=value` separated by commas
        fix: write pairs `key=value` separated by commas; a comma inside a value is written `\,`
        "#);
    assert_snapshot!(message(annotations.string_list(ingress::INBOUND_CIDRS)), @r#"
        annotation `alb.ingress.kubernetes.io/inbound-cidrs` has the value `10.0.0.0`: `10.0.0.0` is not an address range; allowed: address ranges such as `10.0.0.0/8`, separated by commas
        fix: write address ranges such as `10.0.0.0/8`, separated by commas
        "#);
    assert_snapshot!(message(annotations.listen_ports()), @r#"
        annotation `alb.ingress.kubernetes.io/listen-ports` has the value `[{"HTTP":80},                                                                  …`: it is not JSON: trailing comma at line 2 column 91; allowed: a JSON array of protocols and ports such as `[{"HTTP":80},{"HTTPS":443}]`
        fix: write a JSON array of protocols and ports such as `[{"HTTP":80},{"HTTPS":443}]`
        "#);
    assert_snapshot!(message(annotations.action("answer")), @r#"
        annotation `alb.ingress.kubernetes.io/actions.answer` has the value `{"type":"fixed-response","fixedResponseConfig":{"statusCode":503}}`: fixedResponseConfig.statusCode is a whole number, not a string; allowed: a JSON object with `type` `fixed-response`, `redirect` or `forward`, and its configuration
        fix: write a JSON object with `type` `fixed-response`, `redirect` or `forward`, and its configuration
        "#);
    let (service, ingress) = (alb([("tags", "x")]), alb([("tags", "a=1")]));
    let layered = Annotations::of_service_over_ingress(&service, &ingress);
    assert_snapshot!(message(layered.merged_string_map(ingress::TAGS)), @r#"
        annotation `alb.ingress.kubernetes.io/tags` of the Service has the value `x`: `x` is not a pair `key=value`; allowed: pairs `key=value` separated by commas
        fix: write pairs `key=value` separated by commas; a comma inside a value is written `\,`
        "#);
}

/// Returns a value that the grammar does not allow, if there is one.
fn wrong_value(grammar: Grammar) -> Option<&'static str> {
    match grammar {
        Grammar::String | Grammar::StringList => None,
        Grammar::Text { .. } => Some("a name that is far longer than any name may be"),
        Grammar::HealthCheckPort { service_port_names: true } => Some(""),
        _ => Some("?!"),
    }
}

/// Reads an annotation by its grammar in the list.
fn read(annotations: &Annotations, suffix: &str, annotation: &Annotation) -> Result<(), AnnotationError> {
    let key = match suffix.strip_prefix(annotation.key.name()).and_then(|rest| rest.strip_prefix('.')) {
        Some(parameter) => annotation.key.with(parameter),
        None => annotation.key.into(),
    };
    match annotation.grammar {
        Grammar::Bool => annotations.bool(key).map(drop),
        Grammar::Int32 { .. } => annotations.i32(key).map(drop),
        Grammar::Int64 => annotations.i64(key).map(drop),
        Grammar::StringList | Grammar::CidrList => annotations.string_list(key).map(drop),
        Grammar::StringMap => annotations.string_map(key).and(annotations.merged_string_map(key)).map(drop),
        Grammar::Enum(words) => annotations.enumerated(key, words).map(drop),
        Grammar::Json(JsonShape::ListenPorts) => annotations.listen_ports().map(drop),
        Grammar::Json(JsonShape::Action) => annotations.action(suffix.strip_prefix("actions.").unwrap()).map(drop),
        Grammar::Json(JsonShape::Conditions) => {
            annotations.conditions(suffix.strip_prefix("conditions.").unwrap()).map(drop)
        }
        Grammar::Json(JsonShape::Transforms) => {
            annotations.transforms(suffix.strip_prefix("transforms.").unwrap()).map(drop)
        }
        _ => annotations.string(key).map(drop),
    }
}

/// Returns the name of an annotation after its prefix, with its parameter if it has one.
fn suffix(annotation: &Annotation) -> String {
    let parameter = annotation.key.parameter().map_or("", |parameter| match parameter {
        Parameter::Name => ".x",
        Parameter::Listener => ".HTTP-80",
        Parameter::NetworkListener => ".TCP-80",
        Parameter::Port => ".80",
        Parameter::ServicePort => ".x.80",
    });
    format!("{}{parameter}", annotation.key.name())
}

/// Returns the annotations of one object, read as its kind requires: an Ingress, a Service behind one, or a Service
/// with its own load balancer.
fn layers<'a>(
    annotation: &Annotation,
    kind: ObjectKind,
    values: &'a BTreeMap<String, String>,
    none: &'a BTreeMap<String, String>,
) -> Annotations<'a> {
    match kind {
        ObjectKind::Ingress => Annotations::of_ingress(values),
        ObjectKind::Service if annotation.key.prefix() == SERVICE_PREFIX => Annotations::of_service(values),
        ObjectKind::Service => Annotations::of_service_over_ingress(values, none),
    }
}

#[test]
fn a_wrong_value_of_any_annotation_is_told_with_object_key_value_and_what_is_allowed() {
    let none = BTreeMap::new();
    let mut wrong = 0;
    for annotation in ANNOTATIONS.iter().filter(|annotation| annotation.key.prefix() != "kubernetes.io/") {
        let suffix = suffix(annotation);
        let key = format!("{}{suffix}", annotation.key.prefix());
        for kind in annotation.objects {
            let origin = match kind {
                ObjectKind::Ingress => Origin::Ingress,
                ObjectKind::Service => Origin::Service,
            };
            let Some(value) = wrong_value(annotation.grammar) else {
                // Services may have any text there.
                let values = map([(&key, "?!")]);
                let found = read(&layers(annotation, *kind, &values, &none), &suffix, annotation);
                assert_eq!(found, Ok(()), "{key}");
                continue;
            };
            let values = map([(&key, value)]);
            let error = read(&layers(annotation, *kind, &values, &none), &suffix, annotation).expect_err(&key);
            assert_eq!((error.origin, &error.key, error.value.as_str()), (origin, &key, value));
            let text = error.to_string();
            let allowed = annotation.grammar.describe();
            for part in [&format!("`{key}`"), &format!("has the value `{value}`"), &format!("allowed: {allowed}")] {
                assert!(text.contains(part.as_str()), "{part}: {text}");
            }
            assert_eq!(text.contains("` of the Service has the value"), origin == Origin::Service, "{text}");
            assert!(!error.fix().is_empty(), "{text}");
            wrong += 1;
        }
    }
    assert!(wrong >= 100, "{wrong}");
}

/// Generates texts that are similar to allowed ones.
fn near() -> impl Strategy<Value = String> {
    let words = [
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
        "=",
        "\\",
        "\"",
        "true",
        "null",
        "-1",
        "65536",
        "80",
        "1e3",
        "10.0.0.0/8",
        "::/0",
        "é",
        " ",
        "HTTP",
        "type",
        "forward",
        "forwardConfig",
        "targetGroups",
        "serviceName",
        "field",
        "host-header",
        "hostHeaderConfig",
        "values",
        "regexValues",
        "query-string",
        "queryStringConfig",
        "url-rewrite",
        "urlRewriteConfig",
        "rewrites",
        "regex",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn nothing_panics(value in any::<String>(), short in r#"[\[\]{}":,=\\a-zA-Z0-9 -]{0,16}"#, near in near()) {
        let none = BTreeMap::new();
        for annotation in ANNOTATIONS {
            let suffix = suffix(annotation);
            for value in [&value, &short, &near] {
                let values = BTreeMap::from([(format!("{}{suffix}", annotation.key.prefix()), value.clone())]);
                for kind in annotation.objects {
                    if let Err(error) = read(&layers(annotation, *kind, &values, &none), &suffix, annotation) {
                        prop_assert!(error.to_string().contains(&suffix));
                        prop_assert!(!error.fix().is_empty());
                    }
                }
                prop_assert!(!annotation.grammar.describe().is_empty());
                let _ = (annotation.grammar.check(value), annotation.grammar.fix(value));
            }
        }
    }
}
