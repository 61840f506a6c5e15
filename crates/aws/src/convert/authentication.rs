//! Authentication and mutual authentication, between the SDK's types and [`albatross_core::model`].

use std::collections::BTreeMap;

use aws_sdk_elasticloadbalancingv2::types as elb;

use albatross_core::model::{
    Action, Authentication, ClientId, CognitoProvider, JwtClaim, JwtValidation, MutualAuthentication, OidcProvider,
    Session, TargetGroupArn, TrustStoreArn,
};

type Parameters = std::collections::HashMap<String, String>;

fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

fn extra_parameters(parameters: Option<&Parameters>) -> BTreeMap<String, String> {
    parameters.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn to_extra_parameters(session: &Session) -> Option<Parameters> {
    let parameters = &session.extra_parameters;
    (!parameters.is_empty()).then(|| parameters.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// Reads the session that an action configures. Both actions have one, each as a separate type.
macro_rules! session {
    ($config:expr) => {
        Session {
            cookie: text($config.session_cookie_name()),
            scope: text($config.scope()),
            timeout_seconds: $config.session_timeout().unwrap_or_default(),
            on_unauthenticated_request: text($config.on_unauthenticated_request().map(|word| word.as_str())),
            extra_parameters: extra_parameters($config.authentication_request_extra_params()),
        }
    };
}

/// `authenticate-cognito`
pub(super) fn cognito(config: &elb::AuthenticateCognitoActionConfig) -> CognitoProvider {
    CognitoProvider {
        user_pool_arn: text(config.user_pool_arn()),
        user_pool_client_id: text(config.user_pool_client_id()),
        user_pool_domain: text(config.user_pool_domain()),
        session: session!(config),
    }
}

/// `authenticate-oidc`. What an answer says of the client's secret is not looked at.
pub(super) fn oidc(config: &elb::AuthenticateOidcActionConfig) -> Action<TargetGroupArn> {
    let provider = OidcProvider {
        issuer: text(config.issuer()),
        authorization_endpoint: text(config.authorization_endpoint()),
        token_endpoint: text(config.token_endpoint()),
        user_info_endpoint: text(config.user_info_endpoint()),
        session: session!(config),
    };
    let client_id = config.client_id().map(|id| ClientId(id.to_owned()));
    Action::AuthenticateOidc { provider, client_id, secret_version: None }
}

/// `jwt-validation`
pub(super) fn jwt(config: &elb::JwtValidationActionConfig) -> JwtValidation {
    let claim = |claim: &elb::JwtValidationActionAdditionalClaim| JwtClaim {
        name: text(claim.name()),
        format: text(claim.format().map(|format| format.as_str())),
        values: claim.values().to_vec(),
    };
    JwtValidation {
        jwks_endpoint: text(config.jwks_endpoint()),
        issuer: text(config.issuer()),
        claims: config.additional_claims().iter().map(claim).collect(),
    }
}

/// Converts the authentication before an action to AWS's form. `None` where a Secret is not known.
pub(super) fn to_authentication(authentication: &Authentication) -> Option<elb::Action> {
    let builder = elb::Action::builder().order(1);
    Some(match authentication {
        Authentication::Cognito(provider) => {
            let session = &provider.session;
            let config = elb::AuthenticateCognitoActionConfig::builder()
                .user_pool_arn(&provider.user_pool_arn)
                .user_pool_client_id(&provider.user_pool_client_id)
                .user_pool_domain(&provider.user_pool_domain)
                .session_cookie_name(&session.cookie)
                .scope(&session.scope)
                .session_timeout(session.timeout_seconds)
                .on_unauthenticated_request(session.on_unauthenticated_request.as_str().into())
                .set_authentication_request_extra_params(to_extra_parameters(session))
                .build();
            builder.r#type(elb::ActionTypeEnum::AuthenticateCognito).authenticate_cognito_config(config).build()
        }
        Authentication::Oidc { provider, secret, .. } => {
            let (session, secret) = (&provider.session, secret.known()?);
            let config = elb::AuthenticateOidcActionConfig::builder()
                .issuer(&provider.issuer)
                .authorization_endpoint(&provider.authorization_endpoint)
                .token_endpoint(&provider.token_endpoint)
                .user_info_endpoint(&provider.user_info_endpoint)
                .client_id(&secret.client_id.0)
                .client_secret(&secret.client_secret)
                .session_cookie_name(&session.cookie)
                .scope(&session.scope)
                .session_timeout(session.timeout_seconds)
                .on_unauthenticated_request(session.on_unauthenticated_request.as_str().into())
                .set_authentication_request_extra_params(to_extra_parameters(session))
                .build();
            builder.r#type(elb::ActionTypeEnum::AuthenticateOidc).authenticate_oidc_config(config).build()
        }
        Authentication::Jwt(tokens) => {
            let claims = tokens.claims.iter().map(|claim| {
                elb::JwtValidationActionAdditionalClaim::builder()
                    .format(claim.format.as_str().into())
                    .name(&claim.name)
                    .set_values(Some(claim.values.clone()))
                    .build()
            });
            let claims: Vec<_> = claims.collect();
            let config = elb::JwtValidationActionConfig::builder()
                .jwks_endpoint(&tokens.jwks_endpoint)
                .issuer(&tokens.issuer)
                .set_additional_claims((!claims.is_empty()).then_some(claims))
                .build();
            builder.r#type(elb::ActionTypeEnum::JwtValidation).jwt_validation_config(config).build()
        }
    })
}

/// Returns the treatment of clients' certificates. `None` where AWS reports none, and for an unknown mode.
pub(super) fn mutual_authentication(
    attributes: &elb::MutualAuthenticationAttributes,
) -> Option<MutualAuthentication<TrustStoreArn>> {
    match attributes.mode()? {
        "off" => Some(MutualAuthentication::Off),
        "passthrough" => Some(MutualAuthentication::Passthrough),
        "verify" => Some(MutualAuthentication::Verify {
            trust_store: TrustStoreArn::new(attributes.trust_store_arn().unwrap_or_default()),
            ignore_client_certificate_expiry: attributes.ignore_client_certificate_expiry().unwrap_or_default(),
            advertise_trust_store_ca_names: attributes.advertise_trust_store_ca_names()
                == Some(&elb::AdvertiseTrustStoreCaNamesEnum::On),
        }),
        _ => None,
    }
}

/// The same as AWS takes it.
pub(crate) fn to_mutual_authentication(
    wanted: &MutualAuthentication<TrustStoreArn>,
) -> elb::MutualAuthenticationAttributes {
    let builder = elb::MutualAuthenticationAttributes::builder().mode(wanted.mode());
    let MutualAuthentication::Verify { trust_store, ignore_client_certificate_expiry, advertise_trust_store_ca_names } =
        wanted
    else {
        return builder.build();
    };
    let advertise = match advertise_trust_store_ca_names {
        true => elb::AdvertiseTrustStoreCaNamesEnum::On,
        false => elb::AdvertiseTrustStoreCaNamesEnum::Off,
    };
    builder
        .trust_store_arn(trust_store.as_str())
        .ignore_client_certificate_expiry(*ignore_client_certificate_expiry)
        .advertise_trust_store_ca_names(advertise)
        .build()
}
