//! Authentication of clients: `auth-idp-cognito`, `auth-idp-oidc`, `jwt-validation` and `mutual-authentication`.

use std::collections::BTreeMap;

use super::json::{Document, Node};

/// `auth-idp-cognito`. What is missing is empty: on a listener that does not authenticate it does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CognitoProvider {
    pub user_pool_arn: String,
    pub user_pool_client_id: String,
    pub user_pool_domain: String,
    pub extra_parameters: BTreeMap<String, String>,
}

/// `auth-idp-oidc`. What is missing is empty, for the same reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OidcProvider {
    pub issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    pub user_info_endpoint: String,
    /// The name of a Secret in the namespace of the Ingress.
    pub secret_name: String,
    pub extra_parameters: BTreeMap<String, String>,
}

use crate::model::JwtClaim;
/// `jwt-validation`, complete.
pub use crate::model::JwtValidation;

/// An entry of `mutual-authentication`.
pub type MutualAuthentication = crate::model::MutualAuthentication<TrustStore>;

/// A trust store as users name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustStore {
    Arn(String),
    Name(String),
}

fn text(node: &Node, field: &str) -> Result<String, String> {
    Ok(node.optional_string(field)?.unwrap_or_default())
}

fn needed(node: &Node, field: &str) -> Result<String, String> {
    let value = text(node, field)?;
    if value.is_empty() { Err(missing(node, field)) } else { Ok(value) }
}

fn missing(node: &Node, field: &str) -> String {
    match node.place() {
        "the value" => format!("{field} is missing"),
        place => format!("{place}.{field} is missing"),
    }
}

fn extra_parameters(node: &Node) -> Result<BTreeMap<String, String>, String> {
    let Some(parameters) = node.field("authenticationRequestExtraParams")? else { return Ok(BTreeMap::new()) };
    parameters.members()?.into_iter().map(|(key, value)| Ok((key.to_owned(), value.string()?))).collect()
}

/// Reads `auth-idp-cognito`.
pub fn parse_cognito_provider(value: &str) -> Result<CognitoProvider, String> {
    let document = Document::parse(value)?;
    let root = Node::root(&document);
    Ok(CognitoProvider {
        user_pool_arn: text(&root, "userPoolARN")?,
        user_pool_client_id: text(&root, "userPoolClientID")?,
        user_pool_domain: text(&root, "userPoolDomain")?,
        extra_parameters: extra_parameters(&root)?,
    })
}

/// Reads `auth-idp-oidc`.
pub fn parse_oidc_provider(value: &str) -> Result<OidcProvider, String> {
    let document = Document::parse(value)?;
    let root = Node::root(&document);
    Ok(OidcProvider {
        issuer: text(&root, "issuer")?,
        authorization_endpoint: text(&root, "authorizationEndpoint")?,
        token_endpoint: text(&root, "tokenEndpoint")?,
        user_info_endpoint: text(&root, "userInfoEndpoint")?,
        secret_name: text(&root, "secretName")?,
        extra_parameters: extra_parameters(&root)?,
    })
}

/// Reads `jwt-validation`. The format of a claim is left for AWS to judge.
pub fn parse_jwt_validation(value: &str) -> Result<JwtValidation, String> {
    let document = Document::parse(value)?;
    let root = Node::root(&document);
    let claims = match root.field("additionalClaims")? {
        None => Vec::new(),
        Some(claims) => claims.items()?.iter().map(claim).collect::<Result<_, _>>()?,
    };
    Ok(JwtValidation { jwks_endpoint: needed(&root, "jwksEndpoint")?, issuer: needed(&root, "issuer")?, claims })
}

fn claim(node: &Node) -> Result<JwtClaim, String> {
    let values: Vec<String> = match node.field("values")? {
        None => Vec::new(),
        Some(values) => values.items()?.iter().map(Node::string).collect::<Result<_, _>>()?,
    };
    let claim = JwtClaim { format: needed(node, "format")?, name: needed(node, "name")?, values };
    if claim.values.is_empty() { Err(missing(node, "values")) } else { Ok(claim) }
}

/// Reads `mutual-authentication`: of two entries for one port the later one wins.
pub fn parse_mutual_authentication(value: &str) -> Result<BTreeMap<u16, MutualAuthentication>, String> {
    let document = Document::parse(value)?;
    let entries = Node::root(&document).items()?;
    if entries.is_empty() {
        return Err("it names no port".into());
    }
    entries.iter().map(entry).collect()
}

fn entry(node: &Node) -> Result<(u16, MutualAuthentication), String> {
    let port = node.field("port")?.ok_or_else(|| missing(node, "port"))?.i32()?;
    let port = match u16::try_from(port) {
        Ok(port @ 1..) => port,
        _ => return Err(format!("the port {port} is not between 1 and 65535")),
    };
    let mode = needed(node, "mode")?;
    let trust_store = node.optional_string("trustStore")?;
    let expiry = node.field("ignoreClientCertificateExpiry")?.map(|node| node.bool()).transpose()?;
    let advertise = node.optional_string("advertiseTrustStoreCaNames")?;
    let place = node.place();
    let without = |made: MutualAuthentication| {
        let given = [
            ("trustStore", trust_store.is_some()),
            ("ignoreClientCertificateExpiry", expiry.is_some()),
            ("advertiseTrustStoreCaNames", advertise.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(format!("{place}.{field} is only allowed with the mode `verify`")),
            None => Ok(made),
        }
    };
    let made = match mode.as_str() {
        "off" => without(MutualAuthentication::Off)?,
        "passthrough" => without(MutualAuthentication::Passthrough)?,
        "verify" => MutualAuthentication::Verify {
            trust_store: match trust_store.filter(|name| !name.is_empty()) {
                None => return Err(missing(node, "trustStore")),
                Some(arn) if arn.starts_with("arn:") => TrustStore::Arn(arn),
                Some(name) => TrustStore::Name(name),
            },
            ignore_client_certificate_expiry: expiry.unwrap_or_default(),
            advertise_trust_store_ca_names: match advertise.as_deref() {
                None | Some("off") => false,
                Some("on") => true,
                Some(_) => return Err(format!("{place}.advertiseTrustStoreCaNames is neither `on` nor `off`")),
            },
        },
        other => {
            return Err(format!("{place}.mode is `{}`, not `off`, `passthrough` or `verify`", super::shorten(other)));
        }
    };
    Ok((port, made))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one<T>(value: &str, result: Result<T, String>) -> String
    where
        T: std::fmt::Debug,
    {
        match result {
            Ok(read) => format!("{read:?}"),
            Err(reason) => format!("{value}: {reason}"),
        }
    }

    #[test]
    fn providers() {
        let cognito = r#"{"UserPoolArn": "arn:1", "userPoolClientID": "c", "userPoolDomain": "d", "authenticationRequestExtraParams": {"Prompt": "login"}}"#;
        assert_eq!(
            parse_cognito_provider(cognito),
            Ok(CognitoProvider {
                user_pool_arn: "arn:1".into(),
                user_pool_client_id: "c".into(),
                user_pool_domain: "d".into(),
                extra_parameters: [("Prompt".to_owned(), "login".to_owned())].into(),
            })
        );
        let oidc = r#"{"issuer": "i", "AuthorizationEndpoint": "a", "tokenEndpoint": "t", "userinfoendpoint": "u", "secretName": "s"}"#;
        assert_eq!(
            parse_oidc_provider(oidc),
            Ok(OidcProvider {
                issuer: "i".into(),
                authorization_endpoint: "a".into(),
                token_endpoint: "t".into(),
                user_info_endpoint: "u".into(),
                secret_name: "s".into(),
                extra_parameters: BTreeMap::new(),
            })
        );
        assert_eq!(parse_oidc_provider("{}"), Ok(OidcProvider::default()));
        for (value, reason) in [
            ("[]", "the value is an array, not an object"),
            (r#"{"issuer": 1}"#, "issuer is a whole number, not a string"),
            (
                r#"{"authenticationRequestExtraParams": {"a": true}}"#,
                "authenticationRequestExtraParams.a is a boolean, not a string",
            ),
        ] {
            assert_eq!(parse_oidc_provider(value), Err(reason.into()), "{value}");
        }
    }

    #[test]
    fn tokens() {
        let claim = r#"{"format": "string-array", "Name": "scope", "values": ["a", "b"]}"#;
        assert_eq!(
            parse_jwt_validation(&format!(r#"{{"jwksEndpoint": "j", "issuer": "i", "additionalClaims": [{claim}]}}"#)),
            Ok(JwtValidation {
                jwks_endpoint: "j".into(),
                issuer: "i".into(),
                claims: vec![JwtClaim {
                    name: "scope".into(),
                    format: "string-array".into(),
                    values: vec!["a".into(), "b".into()],
                }],
            })
        );
        let with = |claim: &str| format!(r#"{{"jwksEndpoint": "j", "issuer": "i", "additionalClaims": [{claim}]}}"#);
        for (value, reason) in [
            ("null".to_owned(), "jwksEndpoint is missing"),
            (r#"{"jwksEndpoint": "j"}"#.to_owned(), "issuer is missing"),
            (with(r#"{"name": "n", "values": ["a"]}"#), "additionalClaims[0].format is missing"),
            (with(r#"{"format": "f", "values": ["a"]}"#), "additionalClaims[0].name is missing"),
            (with(r#"{"format": "f", "name": "n", "values": []}"#), "additionalClaims[0].values is missing"),
            (
                with(r#"{"format": "f", "name": "n", "values": "a"}"#),
                "additionalClaims[0].values is a string, not an array",
            ),
        ] {
            assert_eq!(parse_jwt_validation(&value), Err(reason.into()), "{value}");
        }
    }

    #[test]
    fn client_certificates() {
        let value = r#"[{"port": 443, "mode": "off"}, {"Port": 8443, "mode": "verify", "trustStore": "partners", "advertiseTrustStoreCaNames": "on"},
            {"port": 443, "mode": "passthrough"}, {"port": 444, "mode": "verify", "trustStore": "arn:aws:x", "ignoreClientCertificateExpiry": true}]"#;
        let verify = |trust_store, expired, advertise| MutualAuthentication::Verify {
            trust_store,
            ignore_client_certificate_expiry: expired,
            advertise_trust_store_ca_names: advertise,
        };
        assert_eq!(
            parse_mutual_authentication(value),
            Ok([
                (443, MutualAuthentication::Passthrough),
                (444, verify(TrustStore::Arn("arn:aws:x".into()), true, false)),
                (8443, verify(TrustStore::Name("partners".into()), false, true)),
            ]
            .into())
        );
        let wrong = [
            "[]",
            "{}",
            r#"[{"mode": "off"}]"#,
            r#"[{"port": 0, "mode": "off"}]"#,
            r#"[{"port": 443}]"#,
            r#"[{"port": 443, "mode": "on"}]"#,
            r#"[{"port": 443, "mode": "verify"}]"#,
            r#"[{"port": 443, "mode": "off", "trustStore": "a"}]"#,
            r#"[{"port": 443, "mode": "passthrough", "ignoreClientCertificateExpiry": false}]"#,
            r#"[{"port": 443, "mode": "verify", "trustStore": "a", "advertiseTrustStoreCaNames": "yes"}]"#,
        ];
        let reported: Vec<String> = wrong.iter().map(|value| one(value, parse_mutual_authentication(value))).collect();
        insta::assert_snapshot!(reported.join("\n"), @r#"
        []: it names no port
        {}: the value is an object, not an array
        [{"mode": "off"}]: [0].port is missing
        [{"port": 0, "mode": "off"}]: the port 0 is not between 1 and 65535
        [{"port": 443}]: [0].mode is missing
        [{"port": 443, "mode": "on"}]: [0].mode is `on`, not `off`, `passthrough` or `verify`
        [{"port": 443, "mode": "verify"}]: [0].trustStore is missing
        [{"port": 443, "mode": "off", "trustStore": "a"}]: [0].trustStore is only allowed with the mode `verify`
        [{"port": 443, "mode": "passthrough", "ignoreClientCertificateExpiry": false}]: [0].ignoreClientCertificateExpiry is only allowed with the mode `verify`
        [{"port": 443, "mode": "verify", "trustStore": "a", "advertiseTrustStoreCaNames": "yes"}]: [0].advertiseTrustStoreCaNames is neither `on` nor `off`
        "#);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in any::<String>(), near in r#"\[?\{("port|"mode|"issuer|"additionalClaims|"trustStore)?[\[\]{}":,a-z0-9 ]{0,24}"#) {
            for text in [&text, &near] {
                let _ = (
                    parse_cognito_provider(text), parse_oidc_provider(text),
                    parse_jwt_validation(text), parse_mutual_authentication(text),
                );
            }
        }
    }
}
