//! Authentication: the annotations that request it, and the certificates that apply.

use super::*;
use crate::facts::FactQuery;

const CERTIFICATE: (&str, &str) = ("certificate-arn", "arn:aws:acm:eu-west-1:111122223333:certificate/a");
const BOTH: (&str, &str) = ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#);
const IP: (&str, &str) = ("target-type", "ip");
const COGNITO: (&str, &str) =
    ("auth-idp-cognito", r#"{"userPoolARN": "arn:pool", "UserPoolClientID": "c", "userPoolDomain": "d"}"#);
const OIDC: (&str, &str) = (
    "auth-idp-oidc",
    r#"{"issuer": "https://idp", "authorizationEndpoint": "https://idp/a", "tokenEndpoint": "https://idp/t",
        "userInfoEndpoint": "https://idp/u", "secretName": "oidc", "authenticationRequestExtraParams": {"prompt": "login"}}"#,
);
const JWT: (&str, &str) = ("jwt-validation", r#"{"jwksEndpoint": "https://idp/keys", "issuer": "https://idp"}"#);

fn oidc_secret() -> OidcSecret {
    OidcSecret {
        version: SecretVersion { uid: "u".to_owned(), resource_version: "7".to_owned() },
        client_id: ClientId("id".to_owned()),
        client_secret: "s3cret".to_owned(),
    }
}

fn with_secret(fact: Fact<OidcSecret>) -> Facts {
    Facts { secrets: [(ObjectName::new("shop", "oidc"), fact)].into(), ..facts() }
}

/// The same Services, the first with annotations under the controller's prefix.
fn services(annotations: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in annotations {
        write!(text, "alb.ingress.kubernetes.io/{key}: {}, ", serde_json::Value::from(*value)).unwrap();
    }
    SERVICES.replacen(
        "name: web, namespace: shop,",
        &format!("name: web, namespace: shop, annotations: {{{text}}},"),
        1,
    )
}

/// Returns the authentication before each rule, and before the default action, of each listener.
fn before(built: &Built) -> String {
    let stack = built.stack.as_ref().unwrap_or_else(|| panic!("{}", messages(built)));
    let reported = |before: &Option<Authentication>| match before {
        None => "-".to_owned(),
        Some(Authentication::Cognito(provider)) => format!("{provider:?}"),
        Some(Authentication::Oidc { provider, secret_name, secret }) => {
            assert!(secret.known().is_none_or(|secret| *secret == oidc_secret()));
            format!("{provider:?} {secret_name} {secret:?}")
        }
        Some(Authentication::Jwt(tokens)) => format!("{tokens:?}"),
    };
    let mut text = String::new();
    for listener in stack.listeners.values() {
        writeln!(text, "{}: {}", listener.port, reported(&listener.default_authentication)).unwrap();
        for rule in &listener.rules {
            writeln!(text, "  {} after {}", answer(&rule.action), reported(&rule.authentication)).unwrap();
        }
    }
    text
}

fn built_with(annotations: &[(&str, &str)], of_service: &[(&str, &str)], spec: &str, facts: &Facts) -> Built {
    let ingress = ingress(&[&[IP, CERTIFICATE], annotations].concat(), spec);
    build_with(&format!("{}\n---\n{ingress}", services(of_service)), &config(), facts)
}

#[test]
fn users_sign_in_on_https_alone() {
    let paths = [("Prefix", "/", "web", "80"), ("Prefix", "/gone", "nobody", "80")];
    let spec = format!("  defaultBackend: {}\n  rules:\n{}", backend("api", "http"), rules("", &paths));
    let built = built_with(
        &[BOTH, ("auth-type", "cognito"), COGNITO, ("auth-scope", "openid email"), ("auth-session-timeout", "3600")],
        &[],
        &spec,
        &facts(),
    );
    insta::assert_snapshot!(before(&built), @r#"
    80: -
      503 Backend service does not exist after -
      shop/web-web:80 after -
    443: CognitoProvider { user_pool_arn: "arn:pool", user_pool_client_id: "c", user_pool_domain: "d", session: Session { cookie: "AWSELBAuthSessionCookie", scope: "openid email", timeout_seconds: 3600, on_unauthenticated_request: "authenticate", extra_parameters: {} } }
      503 Backend service does not exist after CognitoProvider { user_pool_arn: "arn:pool", user_pool_client_id: "c", user_pool_domain: "d", session: Session { cookie: "AWSELBAuthSessionCookie", scope: "openid email", timeout_seconds: 3600, on_unauthenticated_request: "authenticate", extra_parameters: {} } }
      shop/web-web:80 after CognitoProvider { user_pool_arn: "arn:pool", user_pool_client_id: "c", user_pool_domain: "d", session: Session { cookie: "AWSELBAuthSessionCookie", scope: "openid email", timeout_seconds: 3600, on_unauthenticated_request: "authenticate", extra_parameters: {} } }
    "#);
    // Without a backend, the default action answers 404 to every client.
    let plain = built_with(&[("auth-type", "cognito"), COGNITO], &[], &everything(), &facts());
    insta::assert_snapshot!(before(&plain), @r#"
    443: -
      shop/web-web:80 after CognitoProvider { user_pool_arn: "arn:pool", user_pool_client_id: "c", user_pool_domain: "d", session: Session { cookie: "AWSELBAuthSessionCookie", scope: "openid", timeout_seconds: 604800, on_unauthenticated_request: "authenticate", extra_parameters: {} } }
    "#);
}

#[test]
fn an_openid_connect_client_is_in_a_secret() {
    let annotations =
        [("auth-type", "oidc"), OIDC, ("auth-session-cookie", "shop"), ("auth-on-unauthenticated-request", "deny")];
    let built = |facts: &Facts| built_with(&annotations, &[], &everything(), facts);
    assert_eq!(built(&facts()).wants, [FactQuery::Secret(ObjectName::new("shop", "oidc"))].into());
    insta::assert_snapshot!(before(&built(&with_secret(Fact::Known(oidc_secret())))), @r#"
    443: -
      shop/web-web:80 after OidcProvider { issuer: "https://idp", authorization_endpoint: "https://idp/a", token_endpoint: "https://idp/t", user_info_endpoint: "https://idp/u", session: Session { cookie: "shop", scope: "openid", timeout_seconds: 604800, on_unauthenticated_request: "deny", extra_parameters: {"prompt": "login"} } } shop/oidc Known(OidcSecret { version: SecretVersion { uid: "u", resource_version: "7" }, .. })
    "#);
    insta::assert_snapshot!(before(&built(&Facts::offline())), @r#"
    443: -
      shop/web-web:80 after OidcProvider { issuer: "https://idp", authorization_endpoint: "https://idp/a", token_endpoint: "https://idp/t", user_info_endpoint: "https://idp/u", session: Session { cookie: "shop", scope: "openid", timeout_seconds: 604800, on_unauthenticated_request: "deny", extra_parameters: {"prompt": "login"} } } shop/oidc AfterApply("the Secret is read in the cluster")
    "#);
    let absent = Fact::Absent { message: "the Secret `oidc` is not there".to_owned(), fix: "create it".to_owned() };
    insta::assert_snapshot!(messages(&built(&with_secret(absent))), @"Error missing-secret on Ingress shop/web: alb.ingress.kubernetes.io/auth-idp-oidc: the Secret `oidc` is not there; create it");
    // On a listener without TLS it is not needed.
    let plain = [&[("listen-ports", r#"[{"HTTP": 80}]"#)][..], &annotations].concat();
    insta::assert_snapshot!(before(&built_with(&plain, &[], &everything(), &facts())), @"
    80: -
      shop/web-web:80 after -
    ");
}

#[test]
fn tokens_are_asked_for() {
    let of_service = [("jwt-validation", r#"{"jwksEndpoint": "https://other", "issuer": "https://other"}"#)];
    // A Service has no say in it.
    insta::assert_snapshot!(before(&built_with(&[JWT], &of_service, &everything(), &facts())), @r#"
    443: -
      shop/web-web:80 after JwtValidation { jwks_endpoint: "https://idp/keys", issuer: "https://idp", claims: [] }
    "#);
}

#[test]
fn a_services_annotations_count_key_by_key_where_it_alone_is_led_to() {
    let of_service = [("auth-type", "cognito"), ("auth-scope", "profile")];
    let ingress = [("auth-type", "none"), COGNITO, ("auth-session-cookie", "shop")];
    insta::assert_snapshot!(before(&built_with(&ingress, &of_service, &everything(), &facts())), @r#"
    443: -
      shop/web-web:80 after CognitoProvider { user_pool_arn: "arn:pool", user_pool_client_id: "c", user_pool_domain: "d", session: Session { cookie: "shop", scope: "profile", timeout_seconds: 604800, on_unauthenticated_request: "authenticate", extra_parameters: {} } }
    "#);
    // With any other backend, only the Ingress's own count.
    let redirect = r#"{"type": "redirect", "redirectConfig": {"host": "x", "statusCode": "HTTP_302"}}"#;
    let elsewhere = [&ingress[..], &[("actions.web", redirect)]].concat();
    let spec = format!("  rules:\n{}", rules("", &[("Prefix", "/", "web", "use-annotation")]));
    insta::assert_snapshot!(before(&built_with(&elsewhere, &of_service, &spec, &facts())), @"
    443: -
      HTTP_302 - x - - - after -
    ");
}

#[test]
fn what_cannot_be() {
    let reported = |annotations: &[(&str, &str)], of_service: &[(&str, &str)]| {
        messages(&built_with(annotations, of_service, &everything(), &with_secret(Fact::Known(oidc_secret()))))
    };
    let mut all = String::new();
    for (annotations, of_service) in [
        (&[("auth-type", "ldap")][..], &[][..]),
        (&[("auth-type", "cognito"), OIDC], &[]),
        (&[("auth-type", "oidc"), COGNITO], &[]),
        (&[("auth-type", "oidc"), ("auth-idp-oidc", r#"{"issuer": "i", "secretName": ""}"#)], &[]),
        (&[], &[("auth-type", "cognito"), ("auth-idp-cognito", r#"{"userPoolARN": "a"}"#)]),
        (&[("auth-type", "cognito"), COGNITO, ("auth-on-unauthenticated-request", "reject")], &[]),
        (&[("auth-type", "cognito"), COGNITO, JWT], &[]),
        (&[("auth-idp-oidc", "https://idp")], &[("auth-session-timeout", "1h")]),
        (&[("jwt-validation", r#"{"issuer": "i"}"#)], &[]),
    ] {
        all.push_str(&reported(annotations, of_service));
    }
    insta::assert_snapshot!(all, @r#"
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/auth-type` has the value `ldap`; allowed: `none`, `oidc` or `cognito`
    Error invalid-value on Ingress shop/web: `alb.ingress.kubernetes.io/auth-type` is `cognito`, and there is no `alb.ingress.kubernetes.io/auth-idp-cognito`; add it, or set the type to `none`
    Error invalid-value on Ingress shop/web: `alb.ingress.kubernetes.io/auth-type` is `oidc`, and there is no `alb.ingress.kubernetes.io/auth-idp-oidc`; add it, or set the type to `none`
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/auth-idp-oidc` lacks `authorizationEndpoint`, `tokenEndpoint`, `userInfoEndpoint`, `secretName`; add it
    Error invalid-value on Service shop/web: annotation `alb.ingress.kubernetes.io/auth-idp-cognito` lacks `userPoolClientID`, `userPoolDomain`; add it
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/auth-on-unauthenticated-request` has the value `reject`; write one of `authenticate`, `allow`, `deny`
    Error invalid-value on Ingress shop/web: `alb.ingress.kubernetes.io/auth-type` is `cognito`, and `alb.ingress.kubernetes.io/jwt-validation` is set too; AWS accepts only one of them; remove `alb.ingress.kubernetes.io/jwt-validation`, or set `alb.ingress.kubernetes.io/auth-type` to `none`
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/auth-idp-oidc` has the value `https://idp`: it is not JSON: expected value at line 1 column 1; allowed: a JSON object with `issuer`, `authorizationEndpoint`, `tokenEndpoint`, `userInfoEndpoint` and `secretName`
    Error invalid-value on Service shop/web: annotation `alb.ingress.kubernetes.io/auth-session-timeout` of the Service has the value `1h`; allowed: a whole number
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/jwt-validation` has the value `{"issuer": "i"}`: jwksEndpoint is missing; allowed: a JSON object with `jwksEndpoint`, `issuer` and perhaps `additionalClaims`
    "#);
    // Mistakes are reported, too, where they would not matter.
    let plain = [("listen-ports", r#"[{"HTTP": 80}]"#), ("auth-idp-cognito", "x")];
    insta::assert_snapshot!(reported(&plain, &[]), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/auth-idp-cognito` has the value `x`: it is not JSON: expected value at line 1 column 1; allowed: a JSON object with `userPoolARN`, `userPoolClientID` and `userPoolDomain`");
    // And what only lacks something is not, because it does not matter.
    assert_eq!(reported(&[("listen-ports", r#"[{"HTTP": 80}]"#), ("auth-type", "oidc")], &[]), "");
}

#[test]
fn client_certificates() {
    let entries = r#"[{"port": 443, "mode": "verify", "trustStore": "partners"}, {"port": 8443, "mode": "passthrough"},
        {"port": 80, "mode": "off"}, {"port": 9443, "mode": "verify", "trustStore": "nobodys"}]"#;
    let annotations = [
        ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}, {"HTTPS": 8443}, {"HTTPS": 8444}]"#),
        ("mutual-authentication", entries),
    ];
    let built = |facts: &Facts| built_with(&annotations, &[], &everything(), facts);
    assert_eq!(built(&facts()).wants, [FactQuery::TrustStore("partners".to_owned())].into());
    let store = |fact| Facts { trust_stores: [("partners".to_owned(), fact)].into(), ..facts() };
    let found = built(&store(Fact::Known(TrustStoreArn::new("arn:store")))).stack.unwrap();
    let clients: Vec<_> = found.listeners.values().map(|l| (l.port, l.mutual_authentication.clone())).collect();
    let verify = MutualAuthentication::Verify {
        trust_store: Value::Known(TrustStoreArn::new("arn:store")),
        ignore_client_certificate_expiry: false,
        advertise_trust_store_ca_names: false,
    };
    let passthrough = MutualAuthentication::Passthrough;
    assert_eq!(clients, [(80, None), (443, Some(verify)), (8443, Some(passthrough)), (8444, None)]);
    let absent = Fact::Absent { message: "there is no trust store `partners`".to_owned(), fix: "create it".to_owned() };
    insta::assert_snapshot!(messages(&built(&store(absent))), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/mutual-authentication: there is no trust store `partners`; create it");
}

#[test]
fn client_certificates_that_nobody_requests_are_switched_off_under_the_gate() {
    let config = BuildConfig { resets_listeners: true, ..config() };
    let clients = |annotations: &[(&str, &str)], facts: &Facts| {
        let annotations = [
            &[
                ("target-type", "ip"),
                ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#),
                ("certificate-arn", "arn:aws:acm:eu-west-1:1:certificate/a"),
            ],
            annotations,
        ]
        .concat();
        let stack = build_with(&ingress(&annotations, &everything()), &config, facts).stack.unwrap();
        stack.listeners.into_values().map(|listener| listener.mutual_authentication).collect::<Vec<_>>()
    };
    assert_eq!(clients(&[], &facts()), [None, Some(MutualAuthentication::Off)]);
    let requested = ("mutual-authentication", r#"[{"port": 443, "mode": "passthrough"}]"#);
    assert_eq!(clients(&[requested], &facts()), [None, Some(MutualAuthentication::Passthrough)]);
}

#[test]
fn certificates_are_found_for_all_hosts() {
    let spec = format!(
        "  tls: [{{hosts: [b.example.com]}}, {{}}]\n  rules:\n{}  - {{host: a.example.com}}\n",
        rules("c.example.com", &[("Prefix", "/", "web", "80")])
    );
    let https = ("listen-ports", r#"[{"HTTPS": 443}, {"HTTPS": 8443}, {"HTTP": 80}]"#);
    let with =
        |facts: &Facts| build_with(&format!("{SERVICES}\n---\n{}", ingress(&[IP, https], &spec)), &config(), facts);
    let hosts: std::collections::BTreeSet<String> = ["a", "b", "c"].map(|name| format!("{name}.example.com")).into();
    assert_eq!(with(&facts()).wants, [FactQuery::Certificates(hosts.clone())].into());
    let fact = |fact| Facts { certificates: [(hosts.clone(), fact)].into(), ..facts() };
    let arns = ["arn:a", "arn:b", "arn:c"].map(CertificateArn::new).to_vec();
    let found = with(&fact(Fact::Known(arns.clone()))).stack.unwrap();
    for listener in found.listeners.values() {
        let tls = listener.protocol == ListenerProtocol::Https;
        assert_eq!(listener.default_certificate, tls.then(|| arns[0].clone()));
        assert_eq!(listener.certificates, arns[1..].iter().filter(|_| tls).cloned().collect());
    }
    let absent = Fact::Absent { message: "ACM has none for `b.example.com`".to_owned(), fix: "request one".to_owned() };
    let built = with(&fact(absent));
    assert!(built.lacking);
    insta::assert_snapshot!(messages(&built), @"Error missing-certificate on Ingress shop/web: spec: ACM has none for `b.example.com`; request one");
    let offline = with(&Facts::offline()).stack.unwrap();
    assert_eq!(offline.listeners[&443].certificates_after_apply, Some("found in ACM by the host names"));
    assert_eq!(offline.listeners[&80].certificates_after_apply, None);
    // An Ingress that names certificates, or needs none, requests no facts.
    let named = ingress(&[IP, https, CERTIFICATE], &spec);
    assert_eq!(build_with(&format!("{SERVICES}\n---\n{named}"), &config(), &facts()).wants, [].into());
    let plain = ingress(&[IP], &spec);
    assert_eq!(build_with(&format!("{SERVICES}\n---\n{plain}"), &config(), &facts()).wants, [].into());
}
