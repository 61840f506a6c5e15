//! The messages about Ingresses, word for word.

use super::*;

fn reported(annotations: &[(&str, &str)], spec: &str) -> String {
    messages(&built(&ingress(&[&[("target-type", "ip")], annotations].concat(), spec)))
}

fn path(kind: &str, path: &str, service: &str, port: &str) -> String {
    format!("  rules:\n{}", rules("", &[(kind, path, service, port)]))
}

#[test]
fn paths_and_backends() {
    insta::assert_snapshot!(reported(&[], &path("Exact", "/a*", "web", "80")), @"Error unsupported on Ingress shop/web: spec.rules[0].http.paths[0].path: the path `/a*` has a wildcard, which its path type does not support; use pathType ImplementationSpecific for a pattern, or remove `*` and `?`");
    insta::assert_snapshot!(reported(&[], &path("Prefix", "/a?", "web", "80")), @"Error unsupported on Ingress shop/web: spec.rules[0].http.paths[0].path: the path `/a?` has a wildcard, which its path type does not support; use pathType ImplementationSpecific for a pattern, or remove `*` and `?`");
    insta::assert_snapshot!(reported(&[], &path("Glob", "/a", "web", "80")), @"Error unsupported on Ingress shop/web: spec.rules[0].http.paths[0].pathType: the path type `Glob` is not known; use Exact, Prefix or ImplementationSpecific");
    insta::assert_snapshot!(reported(&[], &path("Exact", "/a", "web", "81")), @"Error missing-port on Ingress shop/web: spec.rules[0].http.paths[0].backend.service: the Service `shop/web` has no port `81`; it has 80; name one of its ports");
    insta::assert_snapshot!(reported(&[], &path("Exact", "/a", "api", "https")), @"Error missing-port on Ingress shop/web: spec.rules[0].http.paths[0].backend.service: the Service `shop/api` has no port `https`; it has 80 (http), 9000 (admin); name one of its ports");
    insta::assert_snapshot!(reported(&[], "  defaultBackend: {service: {name: web}}\n"), @"Error missing-port on Ingress shop/web: spec.defaultBackend.service.port: the backend names no port of the Service `web`; set `port.number` or `port.name`, or the name `use-annotation` for an action annotation");
    insta::assert_snapshot!(reported(&[], "  defaultBackend: {resource: {apiGroup: g, kind: Bucket, name: files}}\n"), @"Error unsupported on Ingress shop/web: spec.defaultBackend.resource: the backend is a resource (Bucket `files`), which no load balancer can serve; name a Service");
    insta::assert_snapshot!(reported(&[], "  defaultBackend: {}\n"), @"Error unsupported on Ingress shop/web: spec.defaultBackend: the backend names nothing; write `service: {name: …, port: {number: …}}`; `serviceName` and `servicePort` are of the versions before `networking.k8s.io/v1`");
}

#[test]
fn a_port_that_no_service_can_have_is_not_called_missing() {
    insta::assert_snapshot!(reported(&[], "  defaultBackend: {service: {name: web, port: {number: 70000}}}\n"), @"Error missing-port on Ingress shop/web: spec.defaultBackend.service.port.number: 70000 is not a port of the Service `web`; write 1 to 65535");
}

#[test]
fn a_service_without_ports() {
    let manifests =
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {type: ExternalName}\n---\n";
    let built = build_with(&format!("{manifests}{}", ingress(&[], &everything())), &config(), &facts());
    insta::assert_snapshot!(messages(&built), @"Error missing-port on Ingress shop/web: spec.rules[0].http.paths[0].backend.service: the Service `shop/web` has no ports; name a Service with ports");
}

#[test]
fn actions() {
    let action = |json: &str| reported(&[("actions.go", json)], &path("Exact", "/", "go", "use-annotation"));
    insta::assert_snapshot!(action("{"), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/actions.go` has the value `{`: it is not JSON: EOF while parsing an object at line 1 column 1; allowed: a JSON object with `type` `fixed-response`, `redirect` or `forward`, and its configuration");
    insta::assert_snapshot!(action(r#"{"type": "teleport"}"#), @r#"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/actions.go` has the value `{"type": "teleport"}`: type `teleport` is not `fixed-response`, `redirect` or `forward`; allowed: a JSON object with `type` `fixed-response`, `redirect` or `forward`, and its configuration"#);
    insta::assert_snapshot!(action(r#"{"type": "redirect", "redirectConfig": {}}"#), @r#"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/actions.go` has the value `{"type": "redirect", "redirectConfig": {}}`: redirectConfig.statusCode is missing; allowed: a JSON object with `type` `fixed-response`, `redirect` or `forward`, and its configuration"#);
    insta::assert_snapshot!(action(r#"{"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": "web", "servicePort": 0}]}}"#), @"Error missing-port on Ingress shop/web: alb.ingress.kubernetes.io/actions.go: the Service `shop/web` has no port `0`; it has 80; name one of its ports");
    insta::assert_snapshot!(action(r#"{"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": "web", "servicePort": 80000}]}}"#), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/actions.go: 80000 is not a valid port; write 1 to 65535");
    insta::assert_snapshot!(action(r#"{"type": "forward", "forwardConfig": {"targetGroups": []}}"#), @r#"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/actions.go` has the value `{"type": "forward", "forwardConfig": {"targetGroups": []}}`: forwardConfig.targetGroups is missing or empty; allowed: a JSON object with `type` `fixed-response`, `redirect` or `forward`, and its configuration"#);
    insta::assert_snapshot!(action(r#"{"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": "nobody", "servicePort": 80}]}}"#), @"Warning missing-service on Ingress shop/web: alb.ingress.kubernetes.io/actions.go: the Service `nobody` does not exist in the namespace `shop`; requests are answered with 503 until it does; create it, or correct the name");
}

#[test]
fn what_has_no_effect_is_served_with_a_warning() {
    let ended = ingress(&[("target-type", "ip"), ("web-acl-id", "edge")], &everything());
    assert!(built(&ended).stack.is_some());
    insta::assert_snapshot!(reported(&[("web-acl-id", "edge")], &everything()), @"Warning annotation-not-built on Ingress shop/web: annotation `alb.ingress.kubernetes.io/web-acl-id` has no effect: AWS has ended AWS WAF Classic, so that it protects nothing; name a web ACL of AWS WAF with `wafv2-acl-arn` or `wafv2-acl-name`, and remove this annotation");
    let annotations = [
        ("alb-ingress.kubernetes.io/scheme", "internal"),
        ("healthcheck-pth", "/"),
        ("target-control-port.web.80", "3000"),
        ("nginx.ingress.kubernetes.io/rewrite-target", "/"),
    ];
    let built = built(&ingress(&[&[("target-type", "ip")], &annotations[..]].concat(), &everything()));
    insta::assert_snapshot!(messages(&built), @r"
    Warning unknown-annotation on Ingress shop/web: annotation `alb-ingress.kubernetes.io/scheme` is not known and has no effect: its prefix is not `alb.ingress.kubernetes.io`; write `alb.ingress.kubernetes.io/scheme`, if that is what is meant
    Warning unknown-annotation on Ingress shop/web: annotation `alb.ingress.kubernetes.io/healthcheck-pth` is not known and has no effect; write `alb.ingress.kubernetes.io/healthcheck-path`, if that is what is meant
    Warning annotation-not-built on Ingress shop/web: annotation `alb.ingress.kubernetes.io/target-control-port.web.80` is known but its effect is not built yet; it is ignored; leave it if the object can do without its effect for now, otherwise do not rely on it
    ");
    assert!(built.stack.is_some());
}

#[test]
fn values_outside_their_grammar() {
    insta::assert_snapshot!(reported(&[("scheme", "public")], &everything()), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/scheme` has the value `public`; allowed: `internal` or `internet-facing`");
    insta::assert_snapshot!(reported(&[("ip-address-type", "dualstack")], &everything()), @"");
    insta::assert_snapshot!(reported(&[("tags", "Owner")], &everything()), @r#"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/tags` has the value `Owner`: `Owner` is not a pair `key=value`; allowed: pairs `key=value` separated by commas; a comma inside a value is written `\,`"#);
}

#[test]
fn subnets_that_are_not_there() {
    let mut facts = facts();
    let absent = Fact::Absent {
        message: "no subnet of the VPC `vpc-1` has the tag `kubernetes.io/role/internal-elb`".to_owned(),
        fix: "tag one subnet in each of two zones".to_owned(),
    };
    facts.subnets.insert(discovered(Scheme::Internal), absent);
    let built = build_with(&format!("{SERVICES}\n---\n{}", ingress(&[], &everything())), &config(), &facts);
    insta::assert_snapshot!(messages(&built), @"Error subnets on Ingress shop/web: alb.ingress.kubernetes.io/scheme: no subnet of the VPC `vpc-1` has the tag `kubernetes.io/role/internal-elb`; tag one subnet in each of two zones");
    let absent = Fact::Absent { message: "no security group".to_owned(), fix: "create it".to_owned() };
    facts.subnets.insert(discovered(Scheme::Internal), Fact::Known(vec![]));
    facts.backend_security_group = Some(absent);
    let built = build_with(&format!("{SERVICES}\n---\n{}", ingress(&[], &everything())), &config(), &facts);
    insta::assert_snapshot!(messages(&built), @"Error unsupported on Ingress shop/web: spec: no security group; create it");
}

#[test]
fn what_aws_lacks_is_to_be_looked_for_again() {
    fn absent<T>() -> Fact<T> {
        Fact::Absent { message: "not there".to_owned(), fix: "create it".to_owned() }
    }
    let built = |annotations: &[(&str, &str)], facts: &Facts| {
        build_with(&format!("{SERVICES}\n---\n{}", ingress(annotations, &everything())), &config(), facts)
    };
    let mut without_groups = facts();
    without_groups.security_groups.insert(vec!["front".to_owned()], absent());
    assert!(built(&[("security-groups", "front")], &without_groups).lacking);
    let mut without_subnets = facts();
    without_subnets.subnets.insert(discovered(Scheme::Internal), absent());
    assert!(built(&[], &without_subnets).lacking);
    // A mistake in the annotation is fixed there, and that is seen.
    assert!(!built(&[("subnets", "")], &facts()).lacking);
}

#[test]
fn one_mistake_that_many_rules_lead_to_is_told_once() {
    let annotations = [("listen-ports", r#"[{"HTTP": 80}, {"HTTP": 8080}]"#), ("backend-protocol", "h2")];
    let spec = format!("  rules:\n{}", rules("", &[("Exact", "/a", "web", "80"), ("Exact", "/b", "api", "http")]));
    insta::assert_snapshot!(reported(&annotations, &spec), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/backend-protocol` has the value `h2`; allowed: `HTTP` or `HTTPS`");
}
