//! The calls for authentication and for certificates of clients, and the inventory afterwards.

use super::*;
use albatross_core::model::{
    Action, Authentication, ClientId, JwtClaim, JwtValidation, ListenerArn, MutualAuthentication, OidcProvider,
    OidcSecret, RuleArn, SecretVersion, Session, TrustStoreArn,
};

fn oidc(version: &str) -> Authentication {
    let session = Session {
        cookie: "shop".to_owned(),
        scope: "openid email".to_owned(),
        timeout_seconds: 3600,
        on_unauthenticated_request: "deny".to_owned(),
        extra_parameters: [("prompt".to_owned(), "login".to_owned())].into(),
    };
    let provider = OidcProvider {
        issuer: "https://idp".to_owned(),
        authorization_endpoint: "https://idp/a".to_owned(),
        token_endpoint: "https://idp/t".to_owned(),
        user_info_endpoint: "https://idp/u".to_owned(),
        session,
    };
    let secret = OidcSecret {
        version: secret_version(version),
        client_id: ClientId("the-client".to_owned()),
        client_secret: "s3cret".to_owned(),
    };
    Authentication::Oidc { provider, secret_name: ObjectName::new("shop", "oidc"), secret: Value::Known(secret) }
}

fn secret_version(version: &str) -> SecretVersion {
    SecretVersion { uid: "u".to_owned(), resource_version: version.to_owned() }
}

fn tokens() -> Authentication {
    let claim = JwtClaim {
        name: "scope".to_owned(),
        format: "space-separated-values".to_owned(),
        values: vec!["read".to_owned(), "write".to_owned()],
    };
    let (jwks_endpoint, issuer) = ("https://idp/keys".to_owned(), "https://idp".to_owned());
    Authentication::Jwt(JwtValidation { jwks_endpoint, issuer, claims: vec![claim] })
}

/// AWS's answer to actions with OpenID Connect before them, as it gives them back.
const OIDC: &str = "<member><Type>authenticate-oidc</Type><Order>1</Order><AuthenticateOidcConfig>\
    <Issuer>https://idp</Issuer><AuthorizationEndpoint>https://idp/a</AuthorizationEndpoint>\
    <TokenEndpoint>https://idp/t</TokenEndpoint><UserInfoEndpoint>https://idp/u</UserInfoEndpoint>\
    <ClientId>the-client</ClientId><SessionCookieName>shop</SessionCookieName><Scope>openid email</Scope>\
    <SessionTimeout>3600</SessionTimeout><OnUnauthenticatedRequest>deny</OnUnauthenticatedRequest>\
    <AuthenticationRequestExtraParams><entry><key>prompt</key><value>login</value></entry></AuthenticationRequestExtraParams>\
    </AuthenticateOidcConfig></member>";
const ANSWER: &str = "<member><Type>fixed-response</Type><Order>2</Order><FixedResponseConfig><StatusCode>404</StatusCode>\
    </FixedResponseConfig></member>";

/// AWS with a load balancer, its listener on 443 and one rule, both behind OpenID Connect.
fn there(call: &Call) -> Option<(u16, String)> {
    let tag = |key: &str, value: &str| format!("<member><Key>{key}</Key><Value>{value}</Value></member>");
    let rule = format!(
        "<member><RuleArn>arn:r/1</RuleArn><Priority>1</Priority><IsDefault>false</IsDefault><Actions>{OIDC}{ANSWER}</Actions></member>"
    );
    let clients = match call.param("MutualAuthentication.Mode") {
        "verify" => {
            "<MutualAuthentication><Mode>verify</Mode><TrustStoreArn>arn:store/1</TrustStoreArn>\
             <IgnoreClientCertificateExpiry>true</IgnoreClientCertificateExpiry>\
             <AdvertiseTrustStoreCaNames>on</AdvertiseTrustStoreCaNames></MutualAuthentication>"
        }
        _ => "<MutualAuthentication><Mode>off</Mode></MutualAuthentication>",
    };
    let listener = format!(
        "<member><ListenerArn>arn:l/443</ListenerArn><Port>443</Port><Protocol>HTTPS</Protocol>\
         <DefaultActions>{OIDC}{ANSWER}</DefaultActions>{clients}</member>"
    );
    let result = match call.action.as_str() {
        "DescribeLoadBalancers" => {
            "<LoadBalancers><member><LoadBalancerArn>arn:b/1</LoadBalancerArn><LoadBalancerName>b</LoadBalancerName>\
            <Type>application</Type><Scheme>internal</Scheme><VpcId>vpc-1</VpcId></member></LoadBalancers>"
                .to_owned()
        }
        "DescribeTags" if call.list("ResourceArns") == ["arn:b/1"] => format!(
            "<TagDescriptions><member><ResourceArn>arn:b/1</ResourceArn><Tags>{}{}</Tags></member></TagDescriptions>",
            tag("elbv2.k8s.aws/cluster", "demo"),
            tag("ingress.k8s.aws/stack", "shop/web")
        ),
        "DescribeListeners" | "CreateListener" | "ModifyListener" => format!("<Listeners>{listener}</Listeners>"),
        "DescribeRules" | "CreateRule" | "ModifyRule" => format!("<Rules>{rule}</Rules>"),
        _ => return None,
    };
    Some(elb(&call.action, &result))
}

/// The calls that change something, with all that they say of authentication.
fn sent(fake: &Fake) -> String {
    let of_interest = |key: &str| {
        ["Authenticate", "Jwt", "MutualAuthentication", ".Type", ".Order"].iter().any(|word| key.contains(word))
    };
    let changes = fake.calls().into_iter().filter(|call| !call.action.starts_with("Describe"));
    changes
        .map(|call| {
            let kept = call.params.iter().filter(|(key, _)| of_interest(key));
            let kept = kept.map(|(key, value)| format!("\n  {key}={value}"));
            format!("{}{}\n", call.action, kept.collect::<String>())
        })
        .collect()
}

fn versions(observed: &ObservedStack) -> Vec<Option<SecretVersion>> {
    let listener = observed.load_balancers[0].listener(443).unwrap();
    let all = listener.default_actions.iter().chain(listener.rules.iter().flat_map(|rule| &rule.actions));
    all.filter_map(|action| match action {
        Action::AuthenticateOidc { secret_version, .. } => Some(secret_version.clone()),
        _ => None,
    })
    .collect()
}

fn modify_rule(before: Option<Authentication>) -> StepAction {
    let mut rule = wanted().listeners[&80].rules[0].clone();
    rule.action = Action::FixedResponse { content_type: None, message_body: None, status_code: "404".to_owned() };
    rule.authentication = before;
    StepAction::ModifyRule { arn: RuleArn::new("arn:r/1"), port: 443, rule: Box::new(rule), reset_transforms: false }
}

fn modify_listener(change: plan::ListenerChange) -> StepAction {
    StepAction::ModifyListener { arn: ListenerArn::new("arn:l/443"), port: 443, change: Box::new(change) }
}

fn default_of(before: Option<Authentication>) -> plan::ListenerChange {
    let action = Action::FixedResponse { content_type: None, message_body: None, status_code: "404".to_owned() };
    plan::ListenerChange {
        default_action: Some(action),
        default_authentication: before,
        ..plan::ListenerChange::default()
    }
}

#[tokio::test]
async fn a_secret_goes_to_aws_and_its_version_is_remembered() {
    let room = room(there).await;
    assert_eq!(versions(&room.observe().await), [None, None]);
    room.fake.calls();
    room.step(modify_rule(Some(oidc("7")))).await.unwrap();
    room.step(modify_listener(default_of(Some(oidc("8"))))).await.unwrap();
    let written = [Some(secret_version("8")), Some(secret_version("7"))];
    assert_eq!(versions(&room.observe().await), written);
    insta::assert_snapshot!(sent(&room.fake), @"
    ModifyRule
      Actions.member.1.AuthenticateOidcConfig.AuthenticationRequestExtraParams.entry.1.key=prompt
      Actions.member.1.AuthenticateOidcConfig.AuthenticationRequestExtraParams.entry.1.value=login
      Actions.member.1.AuthenticateOidcConfig.AuthorizationEndpoint=https://idp/a
      Actions.member.1.AuthenticateOidcConfig.ClientId=the-client
      Actions.member.1.AuthenticateOidcConfig.ClientSecret=s3cret
      Actions.member.1.AuthenticateOidcConfig.Issuer=https://idp
      Actions.member.1.AuthenticateOidcConfig.OnUnauthenticatedRequest=deny
      Actions.member.1.AuthenticateOidcConfig.Scope=openid email
      Actions.member.1.AuthenticateOidcConfig.SessionCookieName=shop
      Actions.member.1.AuthenticateOidcConfig.SessionTimeout=3600
      Actions.member.1.AuthenticateOidcConfig.TokenEndpoint=https://idp/t
      Actions.member.1.AuthenticateOidcConfig.UserInfoEndpoint=https://idp/u
      Actions.member.1.Order=1
      Actions.member.1.Type=authenticate-oidc
      Actions.member.2.Order=2
      Actions.member.2.Type=fixed-response
    ModifyListener
      DefaultActions.member.1.AuthenticateOidcConfig.AuthenticationRequestExtraParams.entry.1.key=prompt
      DefaultActions.member.1.AuthenticateOidcConfig.AuthenticationRequestExtraParams.entry.1.value=login
      DefaultActions.member.1.AuthenticateOidcConfig.AuthorizationEndpoint=https://idp/a
      DefaultActions.member.1.AuthenticateOidcConfig.ClientId=the-client
      DefaultActions.member.1.AuthenticateOidcConfig.ClientSecret=s3cret
      DefaultActions.member.1.AuthenticateOidcConfig.Issuer=https://idp
      DefaultActions.member.1.AuthenticateOidcConfig.OnUnauthenticatedRequest=deny
      DefaultActions.member.1.AuthenticateOidcConfig.Scope=openid email
      DefaultActions.member.1.AuthenticateOidcConfig.SessionCookieName=shop
      DefaultActions.member.1.AuthenticateOidcConfig.SessionTimeout=3600
      DefaultActions.member.1.AuthenticateOidcConfig.TokenEndpoint=https://idp/t
      DefaultActions.member.1.AuthenticateOidcConfig.UserInfoEndpoint=https://idp/u
      DefaultActions.member.1.Order=1
      DefaultActions.member.1.Type=authenticate-oidc
      DefaultActions.member.2.Order=2
      DefaultActions.member.2.Type=fixed-response
    ");

    // Nor does another change of the listener, or reading all of it again, lose it.
    let policy = plan::ListenerChange { ssl_policy: Some("p".to_owned()), ..plan::ListenerChange::default() };
    room.step(modify_listener(policy)).await.unwrap();
    assert_eq!(versions(&room.observe().await), written);
    room.inventory.invalidate(&group());
    room.fake.calls();
    let observed = room.observe().await;
    assert_eq!(versions(&observed), written);
    assert!(room.fake.actions().contains(&"DescribeRules".to_owned()));

    // A restart reads it, and nothing else of the Secret.
    let clean = albatross_core::record::Clean::of(&observed);
    let text = serde_json::to_string(&clean).unwrap();
    assert!(text.contains("resourceVersion") && !text.contains("the-client") && !text.contains("s3cret"), "{text}");
    let read: albatross_core::record::Clean = serde_json::from_str(&text).unwrap();
    let assumed = ObservedStack { load_balancers: read.load_balancers, ..ObservedStack::default() };
    assert_eq!(versions(&assumed), written);
}

#[tokio::test]
async fn tokens_and_clients_certificates_are_asked_for_changed_and_let_go() {
    let room = room(there).await;
    room.observe().await;
    room.fake.calls();
    let verify = MutualAuthentication::Verify {
        trust_store: Value::Known(TrustStoreArn::new("arn:store/1")),
        ignore_client_certificate_expiry: true,
        advertise_trust_store_ca_names: true,
    };
    let mut listener = wanted().listeners[&80].clone();
    (listener.port, listener.mutual_authentication) = (8443, Some(MutualAuthentication::Passthrough));
    listener.default_authentication = Some(tokens());
    let create = |listener| StepAction::CreateListener {
        load_balancer: Some(albatross_core::model::LoadBalancerArn::new("arn:b/1")),
        listener: Box::new(listener),
    };
    room.step(create(listener)).await.unwrap();
    room.step(modify_rule(Some(tokens()))).await.unwrap();
    room.step(modify_rule(None)).await.unwrap();
    for change in [verify.clone(), MutualAuthentication::Off] {
        let change = plan::ListenerChange { mutual_authentication: Some(change), ..plan::ListenerChange::default() };
        room.step(modify_listener(change.clone())).await.unwrap();
        let observed = room.observe().await;
        let known = observed.load_balancers[0].listener(443).unwrap().mutual_authentication.clone();
        let wanted = change.mutual_authentication.unwrap().try_map(|arn| arn.known().cloned().ok_or(())).unwrap();
        assert_eq!(known, Some(wanted));
    }
    insta::assert_snapshot!(sent(&room.fake), @"
    CreateListener
      DefaultActions.member.1.JwtValidationConfig.AdditionalClaims.member.1.Format=space-separated-values
      DefaultActions.member.1.JwtValidationConfig.AdditionalClaims.member.1.Name=scope
      DefaultActions.member.1.JwtValidationConfig.AdditionalClaims.member.1.Values.member.1=read
      DefaultActions.member.1.JwtValidationConfig.AdditionalClaims.member.1.Values.member.2=write
      DefaultActions.member.1.JwtValidationConfig.Issuer=https://idp
      DefaultActions.member.1.JwtValidationConfig.JwksEndpoint=https://idp/keys
      DefaultActions.member.1.Order=1
      DefaultActions.member.1.Type=jwt-validation
      DefaultActions.member.2.Order=2
      DefaultActions.member.2.Type=fixed-response
      MutualAuthentication.Mode=passthrough
    ModifyRule
      Actions.member.1.JwtValidationConfig.AdditionalClaims.member.1.Format=space-separated-values
      Actions.member.1.JwtValidationConfig.AdditionalClaims.member.1.Name=scope
      Actions.member.1.JwtValidationConfig.AdditionalClaims.member.1.Values.member.1=read
      Actions.member.1.JwtValidationConfig.AdditionalClaims.member.1.Values.member.2=write
      Actions.member.1.JwtValidationConfig.Issuer=https://idp
      Actions.member.1.JwtValidationConfig.JwksEndpoint=https://idp/keys
      Actions.member.1.Order=1
      Actions.member.1.Type=jwt-validation
      Actions.member.2.Order=2
      Actions.member.2.Type=fixed-response
    ModifyRule
      Actions.member.1.Order=1
      Actions.member.1.Type=fixed-response
    ModifyListener
      MutualAuthentication.AdvertiseTrustStoreCaNames=on
      MutualAuthentication.IgnoreClientCertificateExpiry=true
      MutualAuthentication.Mode=verify
      MutualAuthentication.TrustStoreArn=arn:store/1
    ModifyListener
      MutualAuthentication.Mode=off
    ");
}

#[tokio::test]
async fn a_refusal_does_not_show_a_secret() {
    let room = room(|call| {
        let words = "Value 's3cret' at 'clientSecret' of client 'the-client' failed to satisfy constraint";
        call.action.starts_with("Modify").then(|| elb_error(400, "ValidationError", words))
    })
    .await;
    let mut all = String::new();
    for step in [modify_rule(Some(oidc("7"))), modify_listener(default_of(Some(oidc("7"))))] {
        all += &reported(room.step(step).await);
        all += "\n";
    }
    insta::assert_snapshot!(all, @"
    change a rule of listener 443 to: sign in with https://idp (Secret shop/oidc), then answer 404: AWS refuses ModifyRule: Value '…' at 'clientSecret' of client '…' failed to satisfy constraint (ValidationError)
    blame: Ingress shop/web generation 1, spec
    fix: -
    transient: false
    change listener 443: default sign in with https://idp (Secret shop/oidc), then answer 404: AWS refuses ModifyListener: Value '…' at 'clientSecret' of client '…' failed to satisfy constraint (ValidationError)
    blame: Ingress shop/web generation 1, spec
    fix: -
    transient: false
    ");
}
