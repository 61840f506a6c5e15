//! Rules and actions in the document. The contents of Secrets are not in it.

use serde_json::{Value as Json, json};

use super::document::{group_arn, present};
use crate::model::{
    Action, Authentication, CognitoProvider, Condition, JwtClaim, JwtValidation, OidcProvider, Rewrite, Rule, Session,
    TargetGroupReference, Transform,
};

/// The text in place of the contents of Secrets.
const MASK: &str = "[REDACTED]";

pub(super) fn rule(rule: &Rule, priority: u32, listener: Json) -> Json {
    let transforms: Vec<Json> = rule.transforms.iter().map(transform).collect();
    present(json!({
        "listenerARN": listener,
        "priority": priority,
        "actions": actions(rule.authentication.as_ref(), &rule.action),
        "conditions": rule.conditions.iter().map(condition).collect::<Vec<_>>(),
        "transforms": (!transforms.is_empty()).then_some(transforms),
    }))
}

/// Returns the authentication that comes before an action, and the action.
pub(super) fn actions(before: Option<&Authentication>, then: &Action<TargetGroupReference>) -> Json {
    before.map(authenticate).into_iter().chain([action(then)]).collect()
}

/// Returns a forward to one target group.
pub(super) fn forward_to(group: &TargetGroupReference) -> Json {
    json!({ "type": "forward", "forwardConfig": { "targetGroups": [{ "targetGroupARN": group_arn(group) }] } })
}

fn action(action: &Action<TargetGroupReference>) -> Json {
    match action {
        Action::Forward { target_groups, stickiness } => {
            let groups = target_groups
                .iter()
                .map(|group| present(json!({ "targetGroupARN": group_arn(&group.group), "weight": group.weight })));
            let stickiness = stickiness.as_ref().map(|stickiness| {
                present(json!({ "enabled": stickiness.enabled, "durationSeconds": stickiness.duration_seconds }))
            });
            let config = json!({
                "targetGroups": groups.collect::<Vec<_>>(),
                "targetGroupStickinessConfig": stickiness,
            });
            json!({ "type": "forward", "forwardConfig": present(config) })
        }
        Action::Redirect { host, path, port, protocol, query, status_code } => {
            let config = json!({
                "host": host, "path": path, "port": port, "protocol": protocol, "query": query, "statusCode": status_code,
            });
            json!({ "type": "redirect", "redirectConfig": present(config) })
        }
        Action::FixedResponse { content_type, message_body, status_code } => {
            let config = json!({ "contentType": content_type, "messageBody": message_body, "statusCode": status_code });
            json!({ "type": "fixed-response", "fixedResponseConfig": present(config) })
        }
        // The authentication of a desired action is apart from it.
        Action::AuthenticateCognito(provider) => cognito(provider),
        Action::AuthenticateOidc { provider, .. } => oidc(provider),
        Action::JwtValidation(tokens) => jwt(tokens),
        Action::Other(kind) => json!({ "type": kind }),
    }
}

fn authenticate(authentication: &Authentication) -> Json {
    match authentication {
        Authentication::Cognito(provider) => cognito(provider),
        Authentication::Oidc { provider, .. } => oidc(provider),
        Authentication::Jwt(tokens) => jwt(tokens),
    }
}

/// Returns the fields of the provider with those of the session.
fn with_session(mut provider: Json, session: &Session) -> Json {
    let extra = (!session.extra_parameters.is_empty()).then_some(&session.extra_parameters);
    let fields = present(json!({
        "authenticationRequestExtraParams": extra,
        "onUnauthenticatedRequest": session.on_unauthenticated_request,
        "scope": session.scope,
        "sessionCookieName": session.cookie,
        "sessionTimeout": session.timeout_seconds,
    }));
    if let (Json::Object(provider), Json::Object(fields)) = (&mut provider, fields) {
        provider.extend(fields);
    }
    provider
}

fn cognito(provider: &CognitoProvider) -> Json {
    let config = json!({
        "userPoolARN": provider.user_pool_arn,
        "userPoolClientID": provider.user_pool_client_id,
        "userPoolDomain": provider.user_pool_domain,
    });
    json!({ "type": "authenticate-cognito", "authenticateCognitoConfig": with_session(config, &provider.session) })
}

fn oidc(provider: &OidcProvider) -> Json {
    let config = json!({
        "issuer": provider.issuer,
        "authorizationEndpoint": provider.authorization_endpoint,
        "tokenEndpoint": provider.token_endpoint,
        "userInfoEndpoint": provider.user_info_endpoint,
        "clientID": MASK,
        "clientSecret": MASK,
    });
    json!({ "type": "authenticate-oidc", "authenticateOIDCConfig": with_session(config, &provider.session) })
}

fn jwt(tokens: &JwtValidation) -> Json {
    let claim = |claim: &JwtClaim| json!({ "name": claim.name, "format": claim.format, "values": claim.values });
    let claims: Vec<Json> = tokens.claims.iter().map(claim).collect();
    let config = json!({
        "jwksEndpoint": tokens.jwks_endpoint,
        "issuer": tokens.issuer,
        "additionalClaims": (!claims.is_empty()).then_some(claims),
    });
    json!({ "type": "jwt-validation", "jwtValidationConfig": present(config) })
}

/// Returns the values of a condition, and the regular expressions, where there are some.
fn patterns(values: &[String], regex_values: &[String]) -> Json {
    let listed = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    present(json!({ "values": listed(values), "regexValues": listed(regex_values) }))
}

fn condition(condition: &Condition) -> Json {
    let (name, config) = match condition {
        Condition::HostHeader { values, regex_values } => ("hostHeaderConfig", patterns(values, regex_values)),
        Condition::PathPattern { values, regex_values } => ("pathPatternConfig", patterns(values, regex_values)),
        Condition::HttpHeader { name, values, regex_values } => {
            let mut config = patterns(values, regex_values);
            if let Json::Object(fields) = &mut config {
                fields.insert("httpHeaderName".to_owned(), json!(name));
            }
            ("httpHeaderConfig", config)
        }
        Condition::HttpRequestMethod { values } => ("httpRequestMethodConfig", patterns(values, &[])),
        Condition::QueryString { values } => {
            let pairs = values.iter().map(|pair| present(json!({ "key": pair.key, "value": pair.value })));
            ("queryStringConfig", json!({ "values": pairs.collect::<Vec<_>>() }))
        }
        Condition::SourceIp { values } => ("sourceIPConfig", patterns(values, &[])),
        Condition::Other(field) => return json!({ "field": field }),
    };
    json!({ "field": condition.field(), name: config })
}

fn transform(transform: &Transform) -> Json {
    let rewrite = |rewrite: &Rewrite| json!({ "regex": rewrite.regex, "replace": rewrite.replace });
    let rewrites: Vec<Json> = transform.rewrites().iter().map(rewrite).collect();
    let config = match transform {
        Transform::HostHeaderRewrite(_) => "hostHeaderRewriteConfig",
        Transform::UrlRewrite(_) => "urlRewriteConfig",
        Transform::Other(kind) => return json!({ "type": kind }),
    };
    json!({ "type": transform.kind(), config: { "rewrites": rewrites } })
}
