use std::collections::BTreeSet;

use super::*;

/// The names under `alb.ingress.kubernetes.io/`, repeated here so that a test fails if one is lost.
const INGRESS_NAMES: &str = "
    group.name group.order load-balancer-name scheme ip-address-type subnets customer-owned-ipv4-pool ipam-ipv4-pool-id
    load-balancer-attributes minimum-load-balancer-capacity tags wafv2-acl-arn wafv2-acl-name waf-acl-id web-acl-id
    shield-advanced-protection security-groups manage-backend-security-group-rules security-group-prefix-lists inbound-cidrs dry-run-plan
    listen-ports ssl-redirect certificate-arn ssl-policy mutual-authentication listener-attributes.<PROTOCOL>-<port> create-acm-cert acm-pca-arn
    actions.<name> conditions.<name> transforms.<name> use-regex-path-match
    auth-type auth-idp-cognito auth-idp-oidc auth-on-unauthenticated-request auth-scope auth-session-cookie auth-session-timeout jwt-validation
    target-type backend-protocol backend-protocol-version target-group-attributes healthcheck-port healthcheck-protocol healthcheck-path
    healthcheck-interval-seconds healthcheck-timeout-seconds healthy-threshold-count unhealthy-threshold-count success-codes
    target-node-labels multi-cluster-target-group target-control-port.<service>.<port>
    enable-frontend-nlb frontend-nlb-scheme frontend-nlb-subnets frontend-nlb-security-groups frontend-nlb-listener-port-mapping
    frontend-nlb-eip-allocations frontend-nlb-healthcheck-port frontend-nlb-healthcheck-protocol frontend-nlb-healthcheck-path
    frontend-nlb-healthcheck-interval-seconds frontend-nlb-healthcheck-timeout-seconds frontend-nlb-healthcheck-healthy-threshold-count
    frontend-nlb-healthcheck-unhealthy-threshold-count frontend-nlb-healthcheck-success-codes frontend-nlb-attributes frontend-nlb-tags";

/// The names under `service.beta.kubernetes.io/`, repeated for the same reason.
const SERVICE_NAMES: &str = "
    aws-load-balancer-type aws-load-balancer-nlb-target-type aws-load-balancer-name aws-load-balancer-scheme aws-load-balancer-internal
    aws-load-balancer-ip-address-type aws-load-balancer-subnets aws-load-balancer-eip-allocations aws-load-balancer-private-ipv4-addresses
    aws-load-balancer-ipv6-addresses aws-load-balancer-enable-prefix-for-ipv6-source-nat aws-load-balancer-source-nat-ipv6-prefixes
    aws-load-balancer-minimum-load-balancer-capacity aws-load-balancer-attributes aws-load-balancer-additional-resource-tags
    aws-load-balancer-access-log-enabled aws-load-balancer-access-log-s3-bucket-name aws-load-balancer-access-log-s3-bucket-prefix
    aws-load-balancer-cross-zone-load-balancing-enabled
    aws-load-balancer-ssl-cert aws-load-balancer-ssl-ports aws-load-balancer-ssl-negotiation-policy aws-load-balancer-backend-protocol
    aws-load-balancer-alpn-policy aws-load-balancer-listener-attributes.<PROTOCOL>-<port> aws-load-balancer-enable-tcp-udp-listener
    aws-load-balancer-quic-enabled-ports actions.<PROTOCOL>-<port>
    aws-load-balancer-target-group-attributes aws-load-balancer-target-group-attributes.<port> aws-load-balancer-proxy-protocol
    aws-load-balancer-proxy-protocol-per-target-group aws-load-balancer-healthcheck-protocol aws-load-balancer-healthcheck-port
    aws-load-balancer-healthcheck-path aws-load-balancer-healthcheck-interval aws-load-balancer-healthcheck-timeout
    aws-load-balancer-healthcheck-healthy-threshold aws-load-balancer-healthcheck-unhealthy-threshold
    aws-load-balancer-healthcheck-success-codes aws-load-balancer-target-node-labels aws-load-balancer-multi-cluster-target-group
    load-balancer-source-ranges aws-load-balancer-security-groups aws-load-balancer-manage-backend-security-group-rules
    aws-load-balancer-security-group-prefix-lists aws-load-balancer-inbound-sg-rules-on-private-link-traffic
    aws-load-balancer-enable-icmp-for-path-mtu-discovery aws-load-balancer-disable-nlb-sg
    aws-load-balancer-extra-security-groups aws-load-balancer-connection-draining-enabled aws-load-balancer-connection-draining-timeout
    aws-load-balancer-connection-idle-timeout aws-load-balancer-access-log-emit-interval
    albatross-acknowledge-orphaned-load-balancer";

#[test]
fn the_list_is_complete() {
    let listed = ANNOTATIONS.iter().map(|annotation| annotation.key.to_string()).collect::<Vec<_>>();
    let expected = INGRESS_NAMES
        .split_whitespace()
        .map(|name| format!("{INGRESS_PREFIX}{name}"))
        .chain([INGRESS_CLASS.to_string()])
        .chain(SERVICE_NAMES.split_whitespace().map(|name| format!("{SERVICE_PREFIX}{name}")))
        .collect::<Vec<_>>();
    assert_eq!(listed, expected);
    assert_eq!(listed.len(), 73 + 55);
}

#[test]
fn each_entry_is_whole() {
    let keys = ANNOTATIONS.iter().map(|annotation| annotation.key.to_string()).collect::<BTreeSet<_>>();
    assert_eq!(keys.len(), ANNOTATIONS.len());
    for annotation in ANNOTATIONS {
        let Annotation { key, objects, grammar, group, default, status, description, examples, topic, source } =
            annotation;
        assert!(!objects.is_empty() && !default.is_empty() && !source.is_empty() && !topic.is_empty(), "{key}");
        assert!(description.ends_with('.') && !grammar.describe().is_empty(), "{key}");
        assert!(!examples.is_empty(), "{key}");
        assert_eq!(*group == Group::NotApplicable, key.prefix == SERVICE_PREFIX, "{key}");
        if let Status::BuiltFor(values) = status {
            assert!(!values.is_empty() && values.iter().all(|value| grammar.check(value).is_ok()), "{key}");
        }
    }
}

#[test]
fn examples_are_allowed_values() {
    for annotation in ANNOTATIONS {
        for example in annotation.examples {
            let key = example.key(annotation.key).to_string();
            assert_eq!(find(&key).map(|found| found.key), Some(annotation.key), "{key}");
            assert_eq!(annotation.grammar.check(example.value), Ok(()), "{key}");
        }
    }
}

/// The rules of implemented annotations, repeated for the same reason.
#[test]
fn rules_of_groups() {
    use Group::*;
    let names = |rule: Group| {
        let of_rule = ANNOTATIONS.iter().filter(|row| row.group == rule && row.status == Status::Built);
        of_rule.map(|row| row.key.name).collect::<Vec<_>>().join(" ")
    };
    for (rule, expected) in [
        (
            Exclusive,
            "load-balancer-name scheme ip-address-type subnets customer-owned-ipv4-pool ipam-ipv4-pool-id wafv2-acl-arn wafv2-acl-name shield-advanced-protection security-groups manage-backend-security-group-rules ssl-redirect enable-frontend-nlb frontend-nlb-scheme frontend-nlb-subnets frontend-nlb-security-groups frontend-nlb-eip-allocations frontend-nlb-healthcheck-port frontend-nlb-healthcheck-protocol frontend-nlb-healthcheck-path frontend-nlb-healthcheck-interval-seconds frontend-nlb-healthcheck-timeout-seconds frontend-nlb-healthcheck-healthy-threshold-count frontend-nlb-healthcheck-unhealthy-threshold-count frontend-nlb-healthcheck-success-codes frontend-nlb-attributes frontend-nlb-tags",
        ),
        (ExclusivePerPort, "security-group-prefix-lists inbound-cidrs ssl-policy mutual-authentication"),
        (
            UnitedByKey,
            "load-balancer-attributes minimum-load-balancer-capacity tags listen-ports listener-attributes frontend-nlb-listener-port-mapping",
        ),
        (United, "certificate-arn"),
    ] {
        assert_eq!(names(rule), expected, "{rule:?}");
    }
}

#[test]
fn what_is_built() {
    let built = ANNOTATIONS
        .iter()
        .filter(|annotation| annotation.status == Status::Built)
        .map(|annotation| annotation.key.to_string());
    let expected = "group.name group.order load-balancer-name scheme ip-address-type subnets customer-owned-ipv4-pool ipam-ipv4-pool-id load-balancer-attributes minimum-load-balancer-capacity tags
        wafv2-acl-arn wafv2-acl-name shield-advanced-protection security-groups manage-backend-security-group-rules
        security-group-prefix-lists inbound-cidrs dry-run-plan listen-ports ssl-redirect certificate-arn ssl-policy
        mutual-authentication listener-attributes.<PROTOCOL>-<port> create-acm-cert acm-pca-arn actions.<name> conditions.<name>
        transforms.<name> use-regex-path-match
        auth-type auth-idp-cognito auth-idp-oidc auth-on-unauthenticated-request auth-scope auth-session-cookie
        auth-session-timeout jwt-validation target-type backend-protocol backend-protocol-version
        target-group-attributes healthcheck-port healthcheck-protocol healthcheck-path healthcheck-interval-seconds
        healthcheck-timeout-seconds healthy-threshold-count unhealthy-threshold-count success-codes target-node-labels
        multi-cluster-target-group enable-frontend-nlb frontend-nlb-scheme frontend-nlb-subnets frontend-nlb-security-groups frontend-nlb-listener-port-mapping
        frontend-nlb-eip-allocations frontend-nlb-healthcheck-port frontend-nlb-healthcheck-protocol frontend-nlb-healthcheck-path
        frontend-nlb-healthcheck-interval-seconds frontend-nlb-healthcheck-timeout-seconds
        frontend-nlb-healthcheck-healthy-threshold-count frontend-nlb-healthcheck-unhealthy-threshold-count
        frontend-nlb-healthcheck-success-codes frontend-nlb-attributes frontend-nlb-tags";
    let not_built = "
        aws-load-balancer-extra-security-groups
        aws-load-balancer-connection-draining-enabled aws-load-balancer-connection-draining-timeout
        aws-load-balancer-connection-idle-timeout aws-load-balancer-access-log-emit-interval";
    let not_built: BTreeSet<&str> = not_built.split_whitespace().collect();
    let of_services = SERVICE_NAMES.split_whitespace().filter(|name| !not_built.contains(name));
    let expected = expected
        .split_whitespace()
        .map(|name| format!("{INGRESS_PREFIX}{name}"))
        .chain([INGRESS_CLASS.to_string()])
        .chain(of_services.map(|name| format!("{SERVICE_PREFIX}{name}")));
    assert_eq!(built.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn keys_are_found() {
    for (key, name) in [
        ("alb.ingress.kubernetes.io/scheme", Some("scheme")),
        ("alb.ingress.kubernetes.io/Scheme", None),
        ("alb.ingress.kubernetes.io/scheme/", None),
        ("alb.ingress.kubernetes.io/", None),
        ("service.beta.kubernetes.io/scheme", None),
        ("scheme", None),
        ("alb.ingress.kubernetes.io/actions.a.b", Some("actions")),
        ("alb.ingress.kubernetes.io/actions.", None),
        ("alb.ingress.kubernetes.io/actions", None),
        ("alb.ingress.kubernetes.io/listener-attributes.HTTPS-443", Some("listener-attributes")),
        ("alb.ingress.kubernetes.io/listener-attributes.HTTPS-0443", None),
        ("alb.ingress.kubernetes.io/listener-attributes.HTTPS-65536", None),
        ("alb.ingress.kubernetes.io/listener-attributes.https-443", None),
        ("alb.ingress.kubernetes.io/listener-attributes.TCP-443", None),
        ("alb.ingress.kubernetes.io/target-control-port.api.http", Some("target-control-port")),
        ("alb.ingress.kubernetes.io/target-control-port.api", None),
        (
            "service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP_UDP-53",
            Some("aws-load-balancer-listener-attributes"),
        ),
        (
            "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes",
            Some("aws-load-balancer-target-group-attributes"),
        ),
        (
            "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes.80",
            Some("aws-load-balancer-target-group-attributes"),
        ),
        ("service.beta.kubernetes.io/aws-load-balancer-target-group-attributes.http", None),
        ("kubernetes.io/ingress.class", Some("ingress.class")),
    ] {
        assert_eq!(find(key).map(|annotation| annotation.key.name), name, "{key}");
    }
    let keys = ["", ".80"]
        .map(|parameter| find(&format!("{SERVICE_PREFIX}aws-load-balancer-target-group-attributes{parameter}")));
    assert_eq!(keys.map(|annotation| annotation.unwrap().key.parameter), [None, Some(Parameter::Port)]);
}

#[test]
fn statuses_refuse() {
    for (status, value, refuses) in [
        (Status::Built, "x", false),
        (Status::Later, "x", false),
        (Status::Refused, "", true),
        (Status::Ended { service: "a", fix: "b" }, "x", false),
        (Status::BuiltFor(&["ipv4"]), "ipv4", false),
        (Status::BuiltFor(&["ipv4"]), "dualstack", true),
    ] {
        assert_eq!(status.refuses(value), refuses, "{status:?} {value}");
    }
}
