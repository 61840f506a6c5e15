//! Authentication: compared with that in AWS, and given a Secret's content once.

use super::{aws::Aws, steps::built};
use crate::{
    model::*,
    plan::{AssumedSecret, Plan, assumed_secrets, plan, render},
};

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, uid: 11111111-1111-1111-1111-111111111111}
spec: {ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: alb}
spec: {controller: ingress.k8s.aws/alb}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: shop
  annotations:
    alb.ingress.kubernetes.io/target-type: ip
    alb.ingress.kubernetes.io/certificate-arn: arn:aws:acm:eu-west-1:111122223333:certificate/a
spec:
  ingressClassName: alb
  defaultBackend: {service: {name: web, port: {number: 80}}}
  rules:
  - http:
      paths:
      - {path: /a, pathType: Exact, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /b, pathType: Exact, backend: {service: {name: web, port: {number: 80}}}}
"#;

fn session() -> Session {
    Session {
        cookie: "c".to_owned(),
        scope: "openid".to_owned(),
        timeout_seconds: 60,
        on_unauthenticated_request: "deny".to_owned(),
        extra_parameters: [("prompt".to_owned(), "login".to_owned())].into(),
    }
}

fn oidc(resource_version: &str, client_id: &str) -> Authentication {
    let provider = OidcProvider {
        issuer: "https://idp".to_owned(),
        authorization_endpoint: "https://idp/a".to_owned(),
        token_endpoint: "https://idp/t".to_owned(),
        user_info_endpoint: "https://idp/u".to_owned(),
        session: session(),
    };
    let secret = OidcSecret {
        version: SecretVersion { uid: "u".to_owned(), resource_version: resource_version.to_owned() },
        client_id: ClientId(client_id.to_owned()),
        client_secret: "s3cret".to_owned(),
    };
    Authentication::Oidc { provider, secret_name: ObjectName::new("shop", "oidc"), secret: Value::Known(secret) }
}

fn cognito() -> Authentication {
    Authentication::Cognito(CognitoProvider {
        user_pool_arn: "arn:pool".to_owned(),
        user_pool_client_id: "client".to_owned(),
        user_pool_domain: "login".to_owned(),
        session: session(),
    })
}

fn tokens(claims: &[(&str, &[&str])]) -> Authentication {
    let claim = |(name, values): &(&str, &[&str])| JwtClaim {
        name: (*name).to_owned(),
        format: "string-array".to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    Authentication::Jwt(JwtValidation {
        jwks_endpoint: "https://idp/keys".to_owned(),
        issuer: "https://idp".to_owned(),
        claims: claims.iter().map(claim).collect(),
    })
}

/// The sample with this before the default action, and before each rule.
fn behind(default: Option<Authentication>, rules: [Option<Authentication>; 2]) -> Stack {
    let mut stack = built(MANIFESTS);
    let listener = stack.listeners.get_mut(&443).unwrap();
    listener.default_authentication = default;
    for (rule, before) in listener.rules.iter_mut().zip(rules) {
        rule.authentication = before;
    }
    stack
}

fn all(before: &Authentication) -> Stack {
    behind(Some(before.clone()), [Some(before.clone()), Some(before.clone())])
}

fn planned(stack: &Stack, observed: &ObservedStack) -> Plan {
    plan(stack, observed).ready().unwrap()
}

fn listed(plan: &Plan) -> String {
    plan.steps.iter().map(|step| step.action.to_string()).collect::<Vec<_>>().join("\n")
}

/// The steps from one stack to another, which lead there.
fn between(from: &Stack, to: &Stack) -> String {
    let mut aws = Aws::with(from);
    let steps = listed(&planned(to, &aws.observed));
    aws.settle(to, 1);
    steps
}

#[test]
fn plans_show_who_may_pass_and_no_secret() {
    let stack = behind(Some(tokens(&[])), [Some(oidc("7", "the-client")), Some(cognito())]);
    let planned = planned(&stack, &ObservedStack::default());
    let text = render(&planned);
    let reported: Vec<&str> = text.lines().filter(|line| line.contains("then ") || line.contains("default ")).collect();
    insta::assert_snapshot!(reported.join("\n"), @"
    default          accept only tokens of https://idp, then forward to shop/web-web:80
    then             sign in with https://idp (Secret shop/oidc), then forward to shop/web-web:80
    then             sign in with Cognito user pool arn:pool, then forward to shop/web-web:80
    ");
    let json = serde_json::to_string(&planned).unwrap();
    for text in [text, json, format!("{planned:?}")] {
        assert!(text.contains("https://idp") && !text.contains("s3cret") && !text.contains("the-client"), "{text}");
    }
}

#[test]
fn authentication_comes_goes_and_changes_in_place() {
    let (open, closed) = (behind(None, [None, None]), behind(Some(cognito()), [Some(oidc("7", "c")), None]));
    insta::assert_snapshot!(between(&open, &closed), @"
    create rule 3 of listener 443: path is /a
    put 2 rules of listener 443 in order (1 of them new)
    change listener 443: default sign in with Cognito user pool arn:pool, then forward to shop/web-web:80
    delete rule 1 of listener 443
    ");
    insta::assert_snapshot!(between(&closed, &open), @"
    create rule 3 of listener 443: path is /a
    put 2 rules of listener 443 in order (1 of them new)
    change listener 443: default forward to shop/web-web:80
    delete rule 1 of listener 443
    ");
    let one = behind(None, [Some(cognito()), None]);
    insta::assert_snapshot!(between(&behind(None, [None, None]), &one), @"change a rule of listener 443 to: sign in with Cognito user pool arn:pool, then forward to shop/web-web:80");
    insta::assert_snapshot!(between(&one, &behind(None, [Some(tokens(&[("a", &["1"])])), None])), @"change a rule of listener 443 to: accept only tokens of https://idp, then forward to shop/web-web:80");
    // The order of claims and values means nothing.
    let first = behind(None, [Some(tokens(&[("a", &["1", "2"]), ("b", &["3"])])), None]);
    let second = behind(None, [Some(tokens(&[("b", &["3"]), ("a", &["2", "1"])])), None]);
    assert_eq!(between(&first, &second), "");
}

#[test]
fn a_rotated_secret_is_given_to_each_that_uses_it_once() {
    let before = all(&oidc("7", "c"));
    assert_eq!(between(&before, &all(&oidc("7", "c"))), "");
    insta::assert_snapshot!(between(&before, &all(&oidc("8", "c"))), @"
    change a rule of listener 443 to: sign in with https://idp (Secret shop/oidc), then forward to shop/web-web:80
    change a rule of listener 443 to: sign in with https://idp (Secret shop/oidc), then forward to shop/web-web:80
    change listener 443: default sign in with https://idp (Secret shop/oidc), then forward to shop/web-web:80
    ");
}

#[test]
fn a_rotated_secret_replaces_no_rule_whatever_else_changes() {
    let before = all(&oidc("7", "c"));
    let mut after = all(&oidc("8", "c"));
    let listener = after.listeners.get_mut(&443).unwrap();
    let mut new = listener.rules[0].clone();
    new.conditions = vec![Condition::PathPattern { values: vec!["/c".to_owned()], regex_values: vec![] }];
    listener.rules.insert(0, new);
    insta::assert_snapshot!(between(&before, &after), @"
    create rule 3 of listener 443: path is /c
    put 3 rules of listener 443 in order (1 of them new)
    change a rule of listener 443 to: sign in with https://idp (Secret shop/oidc), then forward to shop/web-web:80
    change a rule of listener 443 to: sign in with https://idp (Secret shop/oidc), then forward to shop/web-web:80
    change listener 443: default sign in with https://idp (Secret shop/oidc), then forward to shop/web-web:80
    ");
}

#[test]
fn what_is_not_known_is_written_once() {
    let stack = behind(None, [Some(oidc("7", "c")), None]);
    for forget in [
        // As it is found at takeover.
        (|_, version: &mut Option<SecretVersion>| *version = None)
            as fn(&mut Option<ClientId>, &mut Option<SecretVersion>),
        // The client was changed by hand.
        |client, _| *client = Some(ClientId("another".to_owned())),
    ] {
        let mut aws = Aws::with(&stack);
        let listener = aws.observed.load_balancers[0].listeners.get_or_insert_default().get_mut(&443).unwrap();
        let Action::AuthenticateOidc { client_id, secret_version, .. } = &mut listener.rules[0].actions[0] else {
            panic!()
        };
        forget(client_id, secret_version);
        let planned = planned(&stack, &aws.observed);
        assert_eq!(planned.steps.iter().map(|step| step.action.kind()).collect::<Vec<_>>(), ["ModifyRule"]);
        aws.settle(&stack, 1);
    }
    // After a restart the client is not known, and it need not be.
    let mut aws = Aws::with(&stack);
    let listener = aws.observed.load_balancers[0].listeners.get_or_insert_default().get_mut(&443).unwrap();
    let Action::AuthenticateOidc { client_id, .. } = &mut listener.rules[0].actions[0] else { panic!() };
    *client_id = None;
    assert_eq!(planned(&stack, &aws.observed), Plan::empty());
}

/// Returns the state of AWS after a takeover: the content of the Secret that AWS was given is not known.
fn taken_over(stack: &Stack) -> Aws {
    let mut aws = Aws::with(stack);
    let listener = aws.observed.load_balancers[0].listeners.get_or_insert_default().get_mut(&443).unwrap();
    let all = listener.rules.iter_mut().map(|rule| &mut rule.actions).chain([&mut listener.default_actions]);
    for action in all.flatten() {
        if let Action::AuthenticateOidc { secret_version, .. } = action {
            *secret_version = None;
        }
    }
    aws
}

#[test]
fn of_a_stack_that_is_taken_over_aws_is_taken_to_have_the_secret_as_it_is() {
    let stack = behind(Some(oidc("7", "c")), [Some(oidc("7", "c")), None]);
    let aws = taken_over(&stack);
    let listener = aws.observed.load_balancers[0].listener(443).unwrap();
    let assumed = |rule: Option<&ObservedRule>| AssumedSecret {
        listener: listener.arn.clone(),
        rule: rule.map(|rule| rule.arn.clone()),
        version: SecretVersion { uid: "u".to_owned(), resource_version: "7".to_owned() },
    };
    let both = vec![assumed(None), assumed(Some(&listener.rules[0]))];
    assert_eq!(assumed_secrets(&stack, &aws.observed), both);
    // Known state is not replaced by trusted state.
    assert_eq!(assumed_secrets(&stack, &Aws::with(&stack).observed), []);
    // Another client, another provider, another way to sign in: AWS does not have what is wanted.
    for other in [oidc("7", "another"), cognito()] {
        assert_eq!(assumed_secrets(&all(&other), &aws.observed), []);
    }
    let mut elsewhere = oidc("7", "c");
    if let Authentication::Oidc { provider, .. } = &mut elsewhere {
        provider.token_endpoint = "https://idp/other".to_owned();
    }
    assert_eq!(assumed_secrets(&all(&elsewhere), &aws.observed), []);
}

#[test]
fn client_certificates_are_changed_in_place_and_otherwise_left_alone() {
    let with = |clients: Option<MutualAuthentication<Value<TrustStoreArn>>>| {
        let mut stack = built(MANIFESTS);
        stack.listeners.get_mut(&443).unwrap().mutual_authentication = clients;
        stack
    };
    let verify = |store: &str| MutualAuthentication::Verify {
        trust_store: Value::Known(TrustStoreArn::new(store)),
        ignore_client_certificate_expiry: true,
        advertise_trust_store_ca_names: true,
    };
    let steps = [
        between(&with(None), &with(Some(verify("arn:one")))),
        between(&with(Some(verify("arn:one"))), &with(Some(verify("arn:two")))),
        between(&with(Some(verify("arn:two"))), &with(Some(MutualAuthentication::Off))),
        between(&with(Some(verify("arn:two"))), &with(None)),
        between(&with(None), &with(Some(MutualAuthentication::Off))),
        between(&with(Some(MutualAuthentication::Passthrough)), &with(Some(MutualAuthentication::Passthrough))),
    ];
    insta::assert_snapshot!(steps.join("\n--\n"), @"
    change listener 443: client certificates verify by trust store arn:one, expired ones too, with the names of its authorities advertised
    --
    change listener 443: client certificates verify by trust store arn:two, expired ones too, with the names of its authorities advertised
    --
    change listener 443: client certificates off
    --

    --

    --
    ");
}

#[test]
fn a_port_authenticates_only_while_it_speaks_https() {
    let mut plain = behind(None, [None, None]);
    let listener = plain.listeners.get_mut(&443).unwrap();
    (listener.protocol, listener.default_certificate, listener.ssl_policy) = (ListenerProtocol::Http, None, None);
    listener.attributes.insert("routing.http.response.server.enabled".to_owned(), "false".to_owned());
    let secure = behind(Some(cognito()), [Some(cognito()), None]);
    let rules_alone = behind(None, [Some(cognito()), Some(tokens(&[]))]);
    let all = [
        between(&plain, &secure),
        between(&secure, &plain),
        between(&plain, &rules_alone),
        between(&rules_alone, &plain),
    ];
    insta::assert_snapshot!(all.join("\n--\n"), @"
    change listener 443: protocol HTTPS, TLS policy ELBSecurityPolicy-2016-08, default certificate arn:aws:acm:eu-west-1:111122223333:certificate/a
    create rule 3 of listener 443: path is /a
    put 2 rules of listener 443 in order (1 of them new)
    change listener 443: default sign in with Cognito user pool arn:pool, then forward to shop/web-web:80
    delete rule 1 of listener 443
    --
    create rule 3 of listener 443: path is /a
    put 2 rules of listener 443 in order (1 of them new)
    change listener 443: default forward to shop/web-web:80
    delete rule 1 of listener 443
    change listener 443: protocol HTTP
    set attributes of listener 443: routing.http.response.server.enabled=false
    --
    change listener 443: protocol HTTPS, TLS policy ELBSecurityPolicy-2016-08, default certificate arn:aws:acm:eu-west-1:111122223333:certificate/a
    change a rule of listener 443 to: sign in with Cognito user pool arn:pool, then forward to shop/web-web:80
    change a rule of listener 443 to: accept only tokens of https://idp, then forward to shop/web-web:80
    --
    change a rule of listener 443 to: forward to shop/web-web:80
    change a rule of listener 443 to: forward to shop/web-web:80
    change listener 443: protocol HTTP
    set attributes of listener 443: routing.http.response.server.enabled=false
    ");
}
