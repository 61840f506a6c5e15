//! The examples that fill several lines, as they stand in YAML below their key.

pub(super) const WEIGHTED_FORWARD: &str = r#"{
  "type": "forward",
  "forwardConfig": {
    "targetGroups": [
      {"serviceName": "shop-v1", "servicePort": 80, "weight": 90},
      {"serviceName": "shop-v2", "servicePort": 80, "weight": 10}
    ],
    "targetGroupStickinessConfig": {"enabled": true, "durationSeconds": 3600}
  }
}"#;

pub(super) const REDIRECT: &str = r#"{
  "type": "redirect",
  "redirectConfig": {"host": "shop.example.com", "path": "/#{path}", "statusCode": "HTTP_301"}
}"#;

pub(super) const FIXED_RESPONSE: &str = r#"{
  "type": "fixed-response",
  "fixedResponseConfig": {"contentType": "text/plain", "statusCode": "503", "messageBody": "Back in an hour."}
}"#;

pub(super) const CONDITIONS: &str = r#"[
  {"field": "http-header", "httpHeaderConfig": {"httpHeaderName": "X-Channel", "values": ["beta"]}},
  {"field": "query-string", "queryStringConfig": {"values": [{"key": "version", "value": "2"}]}},
  {"field": "source-ip", "sourceIPConfig": {"values": ["192.0.2.0/24"]}}
]"#;

pub(super) const TRANSFORMS: &str = r#"[
  {"type": "url-rewrite", "urlRewriteConfig": {"rewrites": [{"regex": "^/api/(.*)$", "replace": "/$1"}]}},
  {"type": "host-header-rewrite", "hostHeaderRewriteConfig": {"rewrites": [{"regex": "^shop[.]", "replace": "api."}]}}
]"#;

pub(super) const COGNITO_PROVIDER: &str = r#"{
  "userPoolARN": "arn:aws:cognito-idp:eu-west-1:111122223333:userpool/eu-west-1_AbCdEfGhI",
  "userPoolClientID": "1example23456789abcdefghij",
  "userPoolDomain": "shop-login"
}"#;

pub(super) const OIDC_PROVIDER: &str = r#"{
  "issuer": "https://login.example.com",
  "authorizationEndpoint": "https://login.example.com/oauth2/authorize",
  "tokenEndpoint": "https://login.example.com/oauth2/token",
  "userInfoEndpoint": "https://login.example.com/oauth2/userinfo",
  "secretName": "shop-login"
}"#;

pub(super) const JWT_VALIDATION: &str = r#"{
  "issuer": "https://login.example.com",
  "jwksEndpoint": "https://login.example.com/.well-known/jwks.json",
  "additionalClaims": [
    {"name": "scope", "format": "space-separated-values", "values": ["orders:read"]}
  ]
}"#;

pub(super) const NETWORK_FORWARD: &str = r#"{
  "type": "forward",
  "forwardConfig": {
    "baseServiceWeight": 90,
    "targetGroups": [
      {"serviceName": "shop-v2", "servicePort": 80, "weight": 10}
    ]
  }
}"#;

pub(super) const PLAN: &str = r#"{"id": "default/shop", "resources": {"AWS::ElasticLoadBalancingV2::LoadBalancer": {"LoadBalancer": {"spec": {"name": "k8s-default-shop-8f54a93ff2"}}}}}"#;
