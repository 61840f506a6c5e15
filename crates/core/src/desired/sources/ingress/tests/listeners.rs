//! Ports, certificates, policies and redirects to HTTPS.

use std::collections::BTreeSet;

use super::*;

const A: &str = "arn:aws:acm:eu-west-1:111122223333:certificate/a";
const B: &str = "arn:aws-cn:acm:cn-north-1:111122223333:certificate/b";
const C: &str = "arn:aws:iam::111122223333:server-certificate/c";

/// Listeners in short: protocol, port, default certificate, others, policy.
fn short(annotations: &[(&str, &str)]) -> String {
    let stack = stack(&ingress(annotations, "  rules: []\n"));
    let last = |arn: &CertificateArn| arn.as_str().rsplit('/').next().unwrap().to_owned();
    let open: Vec<u16> = stack
        .security_group
        .unwrap()
        .ingress
        .iter()
        .map(|rule| u16::try_from(rule.from_port.unwrap()).unwrap())
        .collect();
    assert_eq!(open, stack.listeners.keys().copied().collect::<Vec<_>>(), "each listener's port is open");
    stack
        .listeners
        .values()
        .map(|l| {
            let others: BTreeSet<String> = l.certificates.iter().map(last).collect();
            format!(
                "{} {} {} {others:?} {}",
                l.protocol,
                l.port,
                l.default_certificate.as_ref().map_or("-".to_owned(), last),
                l.ssl_policy.as_deref().unwrap_or("-")
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn ports_and_certificates() {
    insta::assert_snapshot!(short(&[]), @"HTTP 80 - {} -");
    insta::assert_snapshot!(short(&[("certificate-arn", A)]), @"HTTPS 443 a {} ELBSecurityPolicy-2016-08");
    insta::assert_snapshot!(short(&[("certificate-arn", &format!("{B}, {A},{C} , {B}"))]), @r#"HTTPS 443 b {"a", "c"} ELBSecurityPolicy-2016-08"#);
    insta::assert_snapshot!(short(&[("certificate-arn", A), ("ssl-policy", "ELBSecurityPolicy-TLS13-1-2-2021-06")]), @"HTTPS 443 a {} ELBSecurityPolicy-TLS13-1-2-2021-06");
    insta::assert_snapshot!(short(&[("listen-ports", r#"[{"HTTP": 8080}]"#), ("certificate-arn", A)]), @"HTTP 8080 - {} -");
    insta::assert_snapshot!(short(&[("listen-ports", r#"[{"HTTPS": 8443}, {"HTTP": 8080}, {"HTTPS": 443}]"#), ("certificate-arn", A)]), @r"
    HTTPS 443 a {} ELBSecurityPolicy-2016-08
    HTTP 8080 - {} -
    HTTPS 8443 a {} ELBSecurityPolicy-2016-08
    ");
    insta::assert_snapshot!(short(&[("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 80}]"#), ("certificate-arn", A)]), @"HTTPS 80 a {} ELBSecurityPolicy-2016-08");
}

#[test]
fn tls_hosts_alone_make_no_https_listener() {
    let stack =
        stack(&ingress(&[("target-type", "ip")], &format!("  tls: [{{hosts: [a.example.com]}}]\n{}", everything())));
    assert_eq!(stack.listeners.keys().copied().collect::<Vec<_>>(), [80]);
}

#[test]
fn the_default_policy_is_the_flags() {
    let config = BuildConfig { default_ssl_policy: "ELBSecurityPolicy-FS-2018-06".to_owned(), ..config() };
    let built = build_with(&ingress(&[("certificate-arn", A)], "  rules: []\n"), &config, &facts());
    assert_eq!(built.stack.unwrap().listeners[&443].ssl_policy.as_deref(), Some("ELBSecurityPolicy-FS-2018-06"));
}

#[test]
fn every_http_listener_redirects_without_rules() {
    let annotations = [
        ("target-type", "ip"),
        ("listen-ports", r#"[{"HTTP": 80}, {"HTTP": 8080}, {"HTTPS": 443}, {"HTTPS": 8443}]"#),
        ("certificate-arn", A),
        ("ssl-redirect", "8443"),
    ];
    let stack = stack(&ingress(&annotations, &everything()));
    insta::assert_snapshot!(routes(&stack), @r"
    HTTP 80: HTTP_301 HTTPS - 8443 - -
    HTTPS 443: 404 -
      /* -> shop/web-web:80
    HTTP 8080: HTTP_301 HTTPS - 8443 - -
    HTTPS 8443: 404 -
      /* -> shop/web-web:80
    ");
}

#[test]
fn listeners_that_cannot_be_are_refused() {
    let reported = |annotations: &[(&str, &str)]| messages(&built(&ingress(annotations, "  rules: []\n")));
    insta::assert_snapshot!(reported(&[("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#)]), @"Error missing-certificate on Ingress shop/web: alb.ingress.kubernetes.io/certificate-arn: the HTTPS listener on port 443 has no certificate; name one or more by ARN, or hosts in spec.rules or spec.tls for which ACM has issued some");
    insta::assert_snapshot!(reported(&[("listen-ports", r#"[{"HTTPS": 443}, {"HTTPS": 8443}]"#), ("certificate-arn", " , ")]), @"
    Error missing-certificate on Ingress shop/web: alb.ingress.kubernetes.io/certificate-arn: the HTTPS listener on port 443 has no certificate; name one or more by ARN, or hosts in spec.rules or spec.tls for which ACM has issued some
    Error missing-certificate on Ingress shop/web: alb.ingress.kubernetes.io/certificate-arn: the HTTPS listener on port 8443 has no certificate; name one or more by ARN, or hosts in spec.rules or spec.tls for which ACM has issued some
    ");
    insta::assert_snapshot!(reported(&[("ssl-redirect", "443")]), @r#"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/ssl-redirect: requests would be redirected to port 443, which is not an HTTPS listener of this Ingress; add {"HTTPS": 443} to `alb.ingress.kubernetes.io/listen-ports`, or name one of its HTTPS ports"#);
    insta::assert_snapshot!(reported(&[("ssl-redirect", "80"), ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#), ("certificate-arn", A)]), @r#"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/ssl-redirect: requests would be redirected to port 80, which is not an HTTPS listener of this Ingress; add {"HTTPS": 80} to `alb.ingress.kubernetes.io/listen-ports`, or name one of its HTTPS ports"#);
    insta::assert_snapshot!(reported(&[("ssl-redirect", "0")]), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/ssl-redirect` has the value `0`; allowed: a whole number from 1 to 65535");
    insta::assert_snapshot!(reported(&[("certificate-arn", "my-certificate")]), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/certificate-arn: `my-certificate` is not the ARN of a certificate; write ARNs of ACM or IAM certificates, separated by commas: arn:aws:acm:<region>:<account>:certificate/<id>");
    insta::assert_snapshot!(reported(&[("certificate-arn", "arn:aws:acm:eu-west-1:111122223333:key/a")]), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/certificate-arn: `arn:aws:acm:eu-west-1:111122223333:key/a` is not the ARN of a certificate; write ARNs of ACM or IAM certificates, separated by commas: arn:aws:acm:<region>:<account>:certificate/<id>");
    insta::assert_snapshot!(reported(&[("listen-ports", "443")]), @r#"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/listen-ports` has the value `443`: the value is a whole number, not an array; allowed: a JSON array of protocols and ports such as `[{"HTTP":80},{"HTTPS":443}]`"#);
    insta::assert_snapshot!(reported(&[("listen-ports", "[]")]), @r#"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/listen-ports` has the value `[]`: it names no port; allowed: a JSON array of protocols and ports such as `[{"HTTP":80},{"HTTPS":443}]`"#);
    insta::assert_snapshot!(reported(&[("listen-ports", r#"[{"TCP": 80}]"#)]), @r#"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/listen-ports` has the value `[{"TCP": 80}]`: the protocol `TCP` is neither `HTTP` nor `HTTPS`; allowed: a JSON array of protocols and ports such as `[{"HTTP":80},{"HTTPS":443}]`"#);
    insta::assert_snapshot!(reported(&[("listen-ports", r#"[{"HTTP": 70000}]"#)]), @r#"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/listen-ports` has the value `[{"HTTP": 70000}]`: the port 70000 is not between 1 and 65535; allowed: a JSON array of protocols and ports such as `[{"HTTP":80},{"HTTPS":443}]`"#);
}

/// A user who corrects the first mistake must not find the next one only then.
#[test]
fn a_mistake_in_a_listener_hides_none_in_the_rules_or_elsewhere() {
    let annotations = [
        ("target-type", "ip"),
        ("scheme", "public"),
        ("listen-ports", "80"),
        ("certificate-arn", "x"),
        ("ssl-redirect", "x"),
        ("healthcheck-interval-seconds", "x"),
        ("load-balancer-name", "a_b"),
        ("tags", "x"),
    ];
    let paths = [
        ("Exact", "/*", "web", "80"),
        ("Exact", "/a", "web", "81"),
        ("Exact", "/b", "nobody", "80"),
        ("Exact", "/c", "api", "http"),
    ];
    let reported = messages(&built(&ingress(&annotations, &format!("  rules:\n{}", rules("", &paths)))));
    insta::assert_snapshot!(reported, @r#"
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/scheme` has the value `public`; allowed: `internal` or `internet-facing`
    Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/load-balancer-name: `a_b` is not a valid name: it has a character that is neither letter, digit nor hyphen; a name has 1 to 32 letters, digits and hyphens, neither starts nor ends with a hyphen, and does not start with `internal-`; choose another name
    Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/certificate-arn: `x` is not the ARN of a certificate; write ARNs of ACM or IAM certificates, separated by commas: arn:aws:acm:<region>:<account>:certificate/<id>
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/listen-ports` has the value `80`: the value is a whole number, not an array; allowed: a JSON array of protocols and ports such as `[{"HTTP":80},{"HTTPS":443}]`
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/ssl-redirect` has the value `x`; allowed: a whole number from 1 to 65535
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/tags` has the value `x`: `x` is not a pair `key=value`; allowed: pairs `key=value` separated by commas; a comma inside a value is written `\,`
    Error unsupported on Ingress shop/web: spec.rules[0].http.paths[0].path: the path `/*` has a wildcard, which its path type does not support; use pathType ImplementationSpecific for a pattern, or remove `*` and `?`
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/healthcheck-interval-seconds` has the value `x`; allowed: a whole number
    Error missing-port on Ingress shop/web: spec.rules[0].http.paths[1].backend.service: the Service `shop/web` has no port `81`; it has 80; name one of its ports
    Warning missing-service on Ingress shop/web: spec.rules[0].http.paths[2].backend.service: the Service `nobody` does not exist in the namespace `shop`; requests are answered with 503 until it does; create it, or correct the name
    "#);
}

#[test]
fn an_empty_list_of_certificates_is_as_if_it_were_absent() {
    insta::assert_snapshot!(short(&[("certificate-arn", "")]), @"HTTP 80 - {} -");
    insta::assert_snapshot!(short(&[("certificate-arn", " , ")]), @"HTTP 80 - {} -");
}
