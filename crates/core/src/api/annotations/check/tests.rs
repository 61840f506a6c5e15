use super::*;
use insta::assert_snapshot;
use proptest::prelude::*;

fn findings(kind: ObjectKind, pairs: &[(&str, &str)]) -> Vec<Finding> {
    check(kind, &pairs.iter().map(|(key, value)| (String::from(*key), String::from(*value))).collect())
}

/// Returns the findings as they would be reported, one after the other.
fn reported(kind: ObjectKind, pairs: &[(&str, &str)]) -> String {
    findings(kind, pairs)
        .iter()
        .map(|finding| format!("{}\n  fix: {}", finding.message, finding.fix))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn what_is_built_or_not_ours_is_not_told() {
    let ingress = [
        ("alb.ingress.kubernetes.io/scheme", "internal"),
        ("alb.ingress.kubernetes.io/actions.answer", "{}"),
        ("alb.ingress.kubernetes.io/ip-address-type", "ipv4"),
        ("alb.ingress.kubernetes.io/use-regex-path-match", "False"),
        ("alb.ingress.kubernetes.io/auth-type", "none"),
        ("kubernetes.io/ingress.class", "alb"),
        ("kubernetes.io/ingress-class", "alb"),
        ("nginx.ingress.kubernetes.io/scheme", "x"),
        ("nlb.ingress.kubernetes.io/scheme", "x"),
        ("ingress.kubernetes.io/scheme", "x"),
        ("service.beta.kubernetes.io/aws-load-balancer-shceme", "x"),
        ("service.beta.kubernetes.io/aws-load-balancer-scheme", "x"),
        ("albatross.example.com/scheme", "x"),
        ("scheme", "x"),
        ("", ""),
        ("/", ""),
    ];
    assert_eq!(findings(ObjectKind::Ingress, &ingress), []);
    let service = [
        ("alb.ingress.kubernetes.io/target-type", "ip"),
        ("alb.ingress.kubernetes.io/tags", "a=1"),
        ("service.beta.kubernetes.io/aws-load-balancer-scheme", "internal"),
        ("service.beta.kubernetes.io/aws-load-balancer-target-group-attributes.80", "a=1"),
        ("service.beta.kubernetes.io/aws-load-balancer-connection-idle-timeout", "60"),
        ("service.beta.kubernetes.io/load-balancer-source-range", "x"),
        ("service.kubernetes.io/topology-mode", "auto"),
        ("service.beta.kubernetes.io/azure-load-balancer-internal", "true"),
    ];
    assert_eq!(findings(ObjectKind::Service, &service), []);
}

#[test]
fn the_key_that_was_meant() {
    for (name, nearest) in [
        ("shceme", Some("scheme")),
        ("Scheme", Some("scheme")),
        ("healthcheck-path/", Some("healthcheck-path")),
        ("healthcheck-interval", Some("healthcheck-interval-seconds")),
        ("healthcheck-timeout", Some("healthcheck-timeout-seconds")),
        ("healthcheck-success-codes", Some("success-codes")),
        ("healthcheck-healthy-threshold-count", Some("healthy-threshold-count")),
        ("unhealthy-threshold", Some("unhealthy-threshold-count")),
        ("certificate-arns", Some("certificate-arn")),
        ("listen-port", Some("listen-ports")),
        ("group-name", Some("group.name")),
        ("groupname", Some("group.name")),
        ("security-group", Some("security-groups")),
        ("subnet", Some("subnets")),
        ("tag", Some("tags")),
        ("backend-protocol-versions", Some("backend-protocol-version")),
        ("loadbalancer-name", Some("load-balancer-name")),
        ("load-balancer-attribute", Some("load-balancer-attributes")),
        ("ssl-redirects", Some("ssl-redirect")),
        ("ssl_redirect", Some("ssl-redirect")),
        ("action.answer", Some("actions.answer")),
        ("actions", Some("actions.<name>")),
        ("actions.", Some("actions.<name>")),
        ("Conditions.My-App", Some("conditions.My-App")),
        ("listener-attributes.https-443", Some("listener-attributes.HTTPS-443")),
        ("listener-attributes.TCP-443", Some("listener-attributes.<PROTOCOL>-<port>")),
        ("target-control-port.api", Some("target-control-port.<service>.<port>")),
        ("frobnicate", None),
        ("x", None),
        ("", None),
    ] {
        let found = findings(ObjectKind::Ingress, &[(&format!("{INGRESS_PREFIX}{name}"), "x")]);
        let kinds = found.into_iter().map(|finding| finding.kind).collect::<Vec<_>>();
        let nearest = nearest.map(|name| format!("{INGRESS_PREFIX}{name}"));
        assert_eq!(kinds, [FindingKind::Unknown { nearest }], "{name}");
    }
}

#[test]
fn prefixes_that_look_like_ours() {
    for prefix in [
        "alb-ingress.kubernetes.io",
        "alb.ingress.k8s.io",
        "alb.ingress.k8s.aws",
        "ALB.ingress.kubernetes.io",
        "alb.ingress.kubernetes.com",
        "alb.ingres.kubernetes.io",
        "abl.ingress.kubernetes.io",
        "albingress.kubernetes.io",
    ] {
        let found = findings(ObjectKind::Ingress, &[(&format!("{prefix}/scheme"), "internal")]);
        let kinds = found.into_iter().map(|finding| finding.kind).collect::<Vec<_>>();
        assert_eq!(
            kinds,
            [FindingKind::Unknown { nearest: Some("alb.ingress.kubernetes.io/scheme".into()) }],
            "{prefix}"
        );
    }
}

#[test]
fn messages_on_an_ingress() {
    assert_snapshot!(reported(ObjectKind::Ingress, &[("alb.ingress.kubernetes.io/shceme", "internal")]), @r#"
        annotation `alb.ingress.kubernetes.io/shceme` is not known and has no effect
          fix: write `alb.ingress.kubernetes.io/scheme`, if that is what is meant
        "#);
    assert_snapshot!(reported(ObjectKind::Ingress, &[("alb.ingress.kubernetes.io/frobnicate", "1")]), @r#"
        annotation `alb.ingress.kubernetes.io/frobnicate` is not known and has no effect
          fix: look it up in the list of annotations, or remove it
        "#);
    assert_snapshot!(reported(ObjectKind::Ingress, &[("alb-ingress.kubernetes.io/scheme", "internal")]), @r#"
        annotation `alb-ingress.kubernetes.io/scheme` is not known and has no effect: its prefix is not `alb.ingress.kubernetes.io`
          fix: write `alb.ingress.kubernetes.io/scheme`, if that is what is meant
        "#);
    assert_snapshot!(reported(ObjectKind::Ingress, &[("alb.ingress.kubernetes.io/healthcheck-path/", "/ready")]), @r#"
        annotation `alb.ingress.kubernetes.io/healthcheck-path/` is not known and has no effect
          fix: write `alb.ingress.kubernetes.io/healthcheck-path`, if that is what is meant
        "#);
    assert_snapshot!(reported(ObjectKind::Ingress, &[("alb.ingress.kubernetes.io/target-control-port.web.80", "3000")]), @r#"
        annotation `alb.ingress.kubernetes.io/target-control-port.web.80` is known but its effect is not built yet; it is ignored
          fix: leave it if the object can do without its effect for now, otherwise do not rely on it
        "#);
    assert_snapshot!(reported(ObjectKind::Ingress, &[("alb.ingress.kubernetes.io/waf-acl-id", "shared")]), @r#"
        annotation `alb.ingress.kubernetes.io/waf-acl-id` has no effect: AWS has ended AWS WAF Classic, so that it protects nothing
          fix: name a web ACL of AWS WAF with `wafv2-acl-arn` or `wafv2-acl-name`, and remove this annotation
        "#);
}

#[test]
fn messages_on_a_service() {
    assert_snapshot!(reported(ObjectKind::Service, &[("alb.ingress.kubernetes.io/scheme", "internal")]), @r#"
        annotation `alb.ingress.kubernetes.io/scheme` has no effect on a Service: it is read on an Ingress
          fix: set it on the Ingress, or remove it from the Service
        "#);
    assert_snapshot!(reported(ObjectKind::Service, &[("alb.ingress.kubernetes.io/target-types", "ip")]), @r#"
        annotation `alb.ingress.kubernetes.io/target-types` is not known and has no effect
          fix: write `alb.ingress.kubernetes.io/target-type`, if that is what is meant
        "#);
    assert_snapshot!(reported(ObjectKind::Service, &[("service.beta.kubernetes.io/aws-load-balancer-schema", "internal")]), @r#"
        annotation `service.beta.kubernetes.io/aws-load-balancer-schema` is not known and has no effect
          fix: write `service.beta.kubernetes.io/aws-load-balancer-scheme`, if that is what is meant
        "#);
    assert_snapshot!(reported(ObjectKind::Service, &[("service.beta.kubernetes.io/aws-load-balancer-listener-attributes.tcp-80", "a=1")]), @r#"
        annotation `service.beta.kubernetes.io/aws-load-balancer-listener-attributes.tcp-80` is not known and has no effect
          fix: write `service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP-80`, if that is what is meant
        "#);
}

#[test]
fn every_status_is_told_as_it_is() {
    for annotation in ANNOTATIONS
        .iter()
        .filter(|annotation| annotation.is_read_on(ObjectKind::Ingress) && annotation.key.parameter().is_none())
    {
        let kinds = findings(ObjectKind::Ingress, &[(&annotation.key.to_string(), "?!")])
            .into_iter()
            .map(|finding| finding.kind);
        let expected = match annotation.status {
            Status::Built => vec![],
            Status::Later | Status::Ended { .. } => vec![FindingKind::Later],
            Status::BuiltFor(_) | Status::Refused => vec![FindingKind::Refused],
        };
        assert_eq!(kinds.collect::<Vec<_>>(), expected, "{}", annotation.key);
    }
}

proptest! {
    #[test]
    fn nothing_panics(key in any::<String>(), name in "[a-zA-Z./<>é-]{0,40}", value in any::<String>()) {
        let keys = [key.clone(), format!("{INGRESS_PREFIX}{name}"), format!("{SERVICE_PREFIX}aws-load-balancer-{name}"), format!("{name}/{key}")];
        let annotations = keys.into_iter().map(|key| (key, value.clone())).collect();
        for kind in [ObjectKind::Ingress, ObjectKind::Service] {
            for finding in check(kind, &annotations) {
                prop_assert!(annotations.contains_key(&finding.key));
            }
        }
    }
}
