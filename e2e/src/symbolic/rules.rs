//! Actions and conditions of listeners and rules, with the names that the ELB v2 API gives their fields.

use aws_sdk_elasticloadbalancingv2::types::{
    Action, AuthenticateCognitoActionConfig, AuthenticateOidcActionConfig, ForwardActionConfig,
    JwtValidationActionConfig, RewriteConfig, RuleCondition, RuleTransform, TargetGroupTuple,
};
use serde_json::{Map, Value, json};

use super::Symbols;

/// A JSON object of the fields that have a value.
pub(super) fn fields<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let present = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(present.collect::<Map<_, _>>())
}

/// Actions in the order in which AWS performs them.
pub(super) fn actions(symbols: &Symbols, actions: &[Action]) -> Vec<Value> {
    let mut sorted: Vec<&Action> = actions.iter().collect();
    sorted.sort_by_key(|action| action.order().unwrap_or_default());
    sorted.into_iter().map(|it| symbols.value(&action(symbols, it))).collect()
}

fn action(symbols: &Symbols, action: &Action) -> Value {
    // A forward to one target group may be given in two ways.
    let short = action.target_group_arn().map(|arn| {
        ForwardActionConfig::builder().target_groups(TargetGroupTuple::builder().target_group_arn(arn).build()).build()
    });
    if let Some(config) = action.forward_config().or(short.as_ref()) {
        return json!({"Type": "forward", "ForwardConfig": forward(symbols, config)});
    }
    let text = |value: Option<&str>| value.map(Value::from);
    let redirect = action.redirect_config().map(|it| {
        fields([
            ("Protocol", text(it.protocol())),
            ("Port", text(it.port())),
            ("Host", text(it.host())),
            ("Path", text(it.path())),
            ("Query", text(it.query())),
            ("StatusCode", text(it.status_code().map(|code| code.as_str()))),
        ])
    });
    let fixed = action.fixed_response_config().map(|it| {
        fields([
            ("MessageBody", text(it.message_body())),
            ("StatusCode", text(it.status_code())),
            ("ContentType", text(it.content_type())),
        ])
    });
    fields([
        ("Type", text(action.r#type.as_ref().map(|kind| kind.as_str()))),
        ("RedirectConfig", redirect),
        ("FixedResponseConfig", fixed),
        ("AuthenticateOidcConfig", action.authenticate_oidc_config().map(oidc)),
        ("AuthenticateCognitoConfig", action.authenticate_cognito_config().map(cognito)),
        ("JwtValidationConfig", action.jwt_validation_config().map(jwt)),
    ])
}

fn jwt(config: &JwtValidationActionConfig) -> Value {
    let claims = config.additional_claims().iter().map(
        |claim| json!({"Name": claim.name(), "Format": claim.format().map(|it| it.as_str()), "Values": claim.values()}),
    );
    let claims: Vec<Value> = claims.collect();
    fields([
        ("Issuer", config.issuer().map(Value::from)),
        ("JwksEndpoint", config.jwks_endpoint().map(Value::from)),
        ("AdditionalClaims", (!claims.is_empty()).then_some(claims.into())),
    ])
}

/// A transform of a rule.
pub(super) fn transform(transform: &RuleTransform) -> Value {
    let rewrites = |rewrites: &[RewriteConfig]| {
        let rewrite = |it: &RewriteConfig| json!({"Regex": it.regex(), "Replace": it.replace()});
        json!({"Rewrites": rewrites.iter().map(rewrite).collect::<Vec<_>>()})
    };
    let host = transform.host_header_rewrite_config().map(|it| rewrites(it.rewrites()));
    let url = transform.url_rewrite_config().map(|it| rewrites(it.rewrites()));
    fields([
        ("Type", transform.r#type().map(|kind| kind.as_str().into())),
        ("HostHeaderRewriteConfig", host),
        ("UrlRewriteConfig", url),
    ])
}

fn forward(symbols: &Symbols, config: &ForwardActionConfig) -> Value {
    let weighted = config.target_groups().len() > 1;
    let group = |tuple: &TargetGroupTuple| {
        fields([
            ("TargetGroup", tuple.target_group_arn().map(|arn| symbols.text(arn).into())),
            ("Weight", tuple.weight().filter(|_| weighted).map(Value::from)),
        ])
    };
    let mut groups: Vec<Value> = config.target_groups().iter().map(group).collect();
    groups.sort_by_key(Value::to_string);
    let stickiness = config.target_group_stickiness_config().map(|it| {
        fields([
            ("Enabled", it.enabled().map(Value::from)),
            ("DurationSeconds", it.duration_seconds().map(Value::from)),
        ])
    });
    fields([("TargetGroups", Some(groups.into())), ("TargetGroupStickinessConfig", stickiness)])
}

fn oidc(config: &AuthenticateOidcActionConfig) -> Value {
    let text = |value: Option<&str>| value.map(Value::from);
    fields([
        ("Issuer", text(config.issuer())),
        ("AuthorizationEndpoint", text(config.authorization_endpoint())),
        ("TokenEndpoint", text(config.token_endpoint())),
        ("UserInfoEndpoint", text(config.user_info_endpoint())),
        ("ClientId", text(config.client_id())),
        ("ClientSecret", text(config.client_secret())),
        ("SessionCookieName", text(config.session_cookie_name())),
        ("Scope", text(config.scope())),
        ("SessionTimeout", config.session_timeout().map(Value::from)),
        ("AuthenticationRequestExtraParams", config.authentication_request_extra_params().map(|it| json!(it))),
        ("OnUnauthenticatedRequest", text(config.on_unauthenticated_request().map(|it| it.as_str()))),
        ("UseExistingClientSecret", config.use_existing_client_secret().map(Value::from)),
    ])
}

fn cognito(config: &AuthenticateCognitoActionConfig) -> Value {
    let text = |value: Option<&str>| value.map(Value::from);
    fields([
        ("UserPoolArn", text(config.user_pool_arn())),
        ("UserPoolClientId", text(config.user_pool_client_id())),
        ("UserPoolDomain", text(config.user_pool_domain())),
        ("SessionCookieName", text(config.session_cookie_name())),
        ("Scope", text(config.scope())),
        ("SessionTimeout", config.session_timeout().map(Value::from)),
        ("AuthenticationRequestExtraParams", config.authentication_request_extra_params().map(|it| json!(it))),
        ("OnUnauthenticatedRequest", text(config.on_unauthenticated_request().map(|it| it.as_str()))),
    ])
}

/// Returns the conditions in a fixed order, because AWS gives them none.
pub(super) fn conditions(conditions: &[RuleCondition]) -> Vec<Value> {
    let mut states: Vec<Value> = conditions.iter().map(condition).collect();
    states.sort_by_key(|state| (state["Field"].as_str().map(str::to_owned), state.to_string()));
    states
}

fn condition(condition: &RuleCondition) -> Value {
    let some = |values: &[String]| (!values.is_empty()).then(|| json!(values));
    let values =
        |values: &[String], patterns: &[String]| fields([("Values", some(values)), ("RegexValues", some(patterns))]);
    let configs = [
        ("HostHeaderConfig", condition.host_header_config().map(|it| values(it.values(), it.regex_values()))),
        ("PathPatternConfig", condition.path_pattern_config().map(|it| values(it.values(), it.regex_values()))),
        (
            "HttpHeaderConfig",
            condition.http_header_config().map(|it| {
                let mut config = values(it.values(), it.regex_values());
                config["HttpHeaderName"] = it.http_header_name().into();
                config
            }),
        ),
        (
            "QueryStringConfig",
            condition.query_string_config().map(|it| {
                let pair = |it: &aws_sdk_elasticloadbalancingv2::types::QueryStringKeyValuePair| {
                    fields([("Key", it.key().map(Value::from)), ("Value", it.value().map(Value::from))])
                };
                json!({"Values": it.values().iter().map(pair).collect::<Vec<_>>()})
            }),
        ),
        ("HttpRequestMethodConfig", condition.http_request_method_config().map(|it| values(it.values(), &[]))),
        ("SourceIpConfig", condition.source_ip_config().map(|it| values(it.values(), &[]))),
    ];
    let old_style = configs.iter().all(|(_, config)| config.is_none());
    let mut state = fields(configs);
    state["Field"] = condition.field().into();
    if old_style {
        state["Values"] = json!(condition.values());
    }
    state
}
