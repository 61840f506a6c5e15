//! The grammar of an annotation's value: it checks values and describes the allowed ones.

use std::collections::BTreeMap;

use super::json::Document;
use super::{
    Action, CognitoProvider, JwtValidation, MutualAuthentication, NetworkForward, OidcProvider, choice, parse_action,
    parse_cognito_provider, parse_conditions, parse_jwt_validation, parse_listen_ports, parse_mutual_authentication,
    parse_network_action, parse_oidc_provider, parse_transforms, values,
};
use crate::model::{Condition, ListenerProtocol, Transform};

/// The grammar of an annotation's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// Any text, unchanged.
    String,
    /// A text of a limited length in bytes.
    Text { most_bytes: usize },
    /// A boolean as Go reads it; see [`values::parse_bool`].
    Bool,
    /// A 32-bit integer within a range, both ends included.
    Int32 { min: i32, max: i32 },
    /// A 64-bit integer.
    Int64,
    /// Texts separated by commas; see [`values::parse_string_list`].
    StringList,
    /// Address ranges such as `10.0.0.0/8`, separated by commas. Host bits may be set.
    CidrList,
    /// Pairs `key=value` separated by commas; see [`values::parse_string_map`].
    StringMap,
    /// One of these words, exactly.
    Enum(&'static [&'static str]),
    /// One of these words in any case.
    EnumIgnoringCase(&'static [&'static str]),
    /// `traffic-port`, a port number, or (if allowed) the name of a port of the Service.
    HealthCheckPort { service_port_names: bool },
    /// A JSON document; see [`super::json`].
    Json(JsonShape),
}

/// The content of a JSON annotation. Of content that no code reads yet, only the outermost JSON type is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonShape {
    ListenPorts,
    Action,
    /// The weighted target groups of a listener of a Network Load Balancer.
    NetworkAction,
    Conditions,
    Transforms,
    CognitoProvider,
    OidcProvider,
    JwtValidation,
    MutualAuthentication,
    /// The plan that a dry run writes, an output.
    Plan,
}

impl JsonShape {
    fn describe(self) -> &'static str {
        match self {
            Self::ListenPorts => r#"a JSON array of protocols and ports such as `[{"HTTP":80},{"HTTPS":443}]`"#,
            Self::Action => {
                "a JSON object with `type` `fixed-response`, `redirect` or `forward`, and its configuration"
            }
            Self::NetworkAction => "a JSON object with `type` `forward` and a `forwardConfig`",
            Self::Conditions => "a JSON array of rule conditions, each with its `field` and configuration",
            Self::Transforms => "a JSON array of rewrites, each with its `type` and configuration",
            Self::CognitoProvider => "a JSON object with `userPoolARN`, `userPoolClientID` and `userPoolDomain`",
            Self::OidcProvider => {
                "a JSON object with `issuer`, `authorizationEndpoint`, `tokenEndpoint`, `userInfoEndpoint` and `secretName`"
            }
            Self::JwtValidation => "a JSON object with `jwksEndpoint`, `issuer` and perhaps `additionalClaims`",
            Self::MutualAuthentication => "a JSON array of objects with `port`, `mode` and perhaps `trustStore`",
            Self::Plan => "a JSON document that the controller writes",
        }
    }

    fn parse<'v>(self, value: &str) -> Result<Parsed<'v>, String> {
        Ok(match self {
            Self::ListenPorts => Parsed::ListenPorts(parse_listen_ports(value)?),
            Self::Action => Parsed::Action(parse_action(value)?),
            Self::Conditions => Parsed::Conditions(parse_conditions(value)?),
            Self::Transforms => Parsed::Transforms(parse_transforms(value)?),
            Self::CognitoProvider => Parsed::CognitoProvider(parse_cognito_provider(value)?),
            Self::OidcProvider => Parsed::OidcProvider(parse_oidc_provider(value)?),
            Self::JwtValidation => Parsed::JwtValidation(parse_jwt_validation(value)?),
            Self::MutualAuthentication => Parsed::MutualAuthentication(parse_mutual_authentication(value)?),
            Self::Plan => Document::parse(value).map(|_| Parsed::Unread)?,
            Self::NetworkAction => Parsed::NetworkAction(parse_network_action(value)?),
        })
    }
}

/// A parsed value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Parsed<'v> {
    Text(&'v str),
    Bool(bool),
    Int32(i32),
    Int64(i64),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
    Word(&'static str),
    ListenPorts(BTreeMap<u16, ListenerProtocol>),
    Action(Action),
    NetworkAction(NetworkForward),
    Conditions(Vec<Condition>),
    Transforms(Vec<Transform>),
    CognitoProvider(CognitoProvider),
    OidcProvider(OidcProvider),
    JwtValidation(JwtValidation),
    MutualAuthentication(BTreeMap<u16, MutualAuthentication>),
    /// JSON content that no code reads yet.
    Unread,
}

/// The fix for a value that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// The user writes an allowed value; the hint helps to write it.
    Allowed { hint: Option<&'static str> },
    /// The user writes this word.
    Write(&'static str),
    /// The user writes one of these words.
    Choose(&'static [&'static str]),
    /// The user removes the white space around the value.
    RemoveWhiteSpace,
}

impl Fix {
    /// Returns the text of the fix for a message without the allowed values, which `allowed` describes.
    #[must_use]
    pub fn in_full(&self, allowed: &str) -> String {
        match self {
            Self::Allowed { hint: None } => format!("write {allowed}"),
            Self::Allowed { hint: Some(hint) } => format!("write {allowed}; {hint}"),
            Self::Write(word) => format!("write `{word}`"),
            Self::Choose(words) => format!("write {}", choice(words)),
            Self::RemoveWhiteSpace => "remove the white space around the value".into(),
        }
    }

    /// Returns the text of the fix for a message that lists the allowed values: empty if they say everything.
    #[must_use]
    pub fn after_allowed(&self) -> String {
        match self {
            Self::Allowed { hint } => hint.unwrap_or_default().into(),
            Self::Write(_) | Self::Choose(_) | Self::RemoveWhiteSpace => self.in_full(""),
        }
    }
}

impl Grammar {
    /// Any 32-bit integer.
    pub const ANY_INT32: Self = Self::Int32 { min: i32::MIN, max: i32::MAX };

    /// Returns a description of the allowed values, to follow "allowed: " in a message.
    pub fn describe(&self) -> String {
        match self {
            Self::String => "any text".into(),
            Self::Text { most_bytes } => format!("text of at most {most_bytes} characters"),
            Self::Bool => "`true` or `false`".into(),
            Self::Int32 { min: i32::MIN, max: i32::MAX } | Self::Int64 => "a whole number".into(),
            Self::Int32 { min, max } => format!("a whole number from {min} to {max}"),
            Self::StringList => "a list separated by commas".into(),
            Self::CidrList => "address ranges such as `10.0.0.0/8`, separated by commas".into(),
            Self::StringMap => "pairs `key=value` separated by commas".into(),
            Self::Enum(words) => choice(words),
            Self::EnumIgnoringCase(words) => format!("{}, in upper or lower case", choice(words)),
            Self::HealthCheckPort { service_port_names: true } => {
                "`traffic-port`, a port number or the name of a port of the Service".into()
            }
            Self::HealthCheckPort { service_port_names: false } => "`traffic-port` or a port number".into(),
            Self::Json(shape) => shape.describe().into(),
        }
    }

    /// Parses a value. The error is the reason why it is not allowed.
    pub(super) fn parse<'v>(&self, value: &'v str) -> Result<Parsed<'v>, String> {
        let require = |allowed: bool, reason: &str| {
            if allowed { Ok(Parsed::Text(value)) } else { Err(reason.to_string()) }
        };
        match self {
            Self::String => Ok(Parsed::Text(value)),
            Self::Text { most_bytes } => require(value.len() <= *most_bytes, "it is too long"),
            Self::Bool => values::parse_bool(value).map(Parsed::Bool),
            Self::Int32 { min, max } => {
                let number = values::parse_i32(value)?;
                require((*min..=*max).contains(&number), "it is out of range").map(|_| Parsed::Int32(number))
            }
            Self::Int64 => values::parse_i64(value).map(Parsed::Int64),
            Self::StringList => Ok(Parsed::List(values::parse_string_list(value))),
            Self::CidrList => {
                let ranges = values::parse_string_list(value);
                match ranges.iter().find(|range| range.parse::<ipnet::IpNet>().is_err()) {
                    Some(range) => Err(format!("`{}` is not an address range", super::shorten(range))),
                    None => Ok(Parsed::List(ranges)),
                }
            }
            Self::StringMap => values::parse_string_map(value).map(Parsed::Map),
            Self::Enum(words) => {
                let word = words.iter().find(|word| **word == value);
                word.map(|word| Parsed::Word(word)).ok_or_else(|| "it is none of the allowed words".into())
            }
            Self::EnumIgnoringCase(words) => {
                require(words.iter().any(|word| word.eq_ignore_ascii_case(value)), "it is none of the allowed words")
            }
            Self::HealthCheckPort { service_port_names: true } => require(!value.is_empty(), "it is empty"),
            Self::HealthCheckPort { service_port_names: false } => {
                require(value == "traffic-port" || values::parse_i32(value).is_ok(), "it is neither")
            }
            Self::Json(shape) => shape.parse(value),
        }
    }

    /// Checks that a value is allowed, which means that it can be parsed.
    ///
    /// # Errors
    /// Returns the reason why the value is not allowed.
    pub fn check(&self, value: &str) -> Result<(), String> {
        self.parse(value).map(drop)
    }

    /// Returns true if the error of [`Self::parse`] says more than [`Self::describe`] does.
    pub(super) const fn reason_helps(&self) -> bool {
        matches!(self, Self::CidrList | Self::StringMap | Self::Json(_))
    }

    /// Returns the fix for a value that is not allowed.
    pub(super) fn fix(&self, value: &str) -> Fix {
        let meant = value.trim();
        if meant != value && self.check(meant).is_ok() {
            return Fix::RemoveWhiteSpace;
        }
        let word = match self {
            Self::Bool => match meant.to_ascii_lowercase().as_str() {
                "true" | "yes" | "y" | "on" | "enable" | "enabled" => Some("true"),
                "false" | "no" | "n" | "off" | "disable" | "disabled" => Some("false"),
                _ => None,
            },
            // A single allowed word is described already.
            Self::Enum([_]) => None,
            Self::Enum(words) => nearest_word(words, meant),
            Self::EnumIgnoringCase(words) => match nearest_word(words, meant) {
                Some(word) => Some(word),
                None => return Fix::Choose(words),
            },
            _ => None,
        };
        let hint = (*self == Self::StringMap).then_some(r"a comma inside a value is written `\,`");
        word.map_or(Fix::Allowed { hint }, Fix::Write)
    }
}

fn nearest_word(words: &[&'static str], value: &str) -> Option<&'static str> {
    let value = value.to_ascii_lowercase();
    let similarity = |word: &str| strsim::jaro_winkler(&word.to_ascii_lowercase(), &value);
    words.iter().copied().filter(|word| similarity(word) >= 0.85).max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks() {
        const SCHEMES: &[&str] = &["internal", "internet-facing"];
        let range = Grammar::Int32 { min: -1000, max: 1000 };
        let named = Grammar::HealthCheckPort { service_port_names: true };
        let unnamed = Grammar::HealthCheckPort { service_port_names: false };
        for (grammar, value, allowed) in [
            (Grammar::String, "", true),
            (Grammar::Text { most_bytes: 3 }, "abc", true),
            (Grammar::Text { most_bytes: 3 }, "abcd", false),
            (Grammar::Bool, "T", true),
            (Grammar::Bool, "yes", false),
            (range, "-1000", true),
            (range, "1001", false),
            (range, "x", false),
            (Grammar::ANY_INT32, "-2147483648", true),
            (Grammar::ANY_INT32, "2147483648", false),
            (Grammar::Int64, "2147483648", true),
            (Grammar::CidrList, "10.0.0.1/8, ::/0", true),
            (Grammar::CidrList, "10.0.0.1", false),
            (Grammar::CidrList, "10.0.0.0/33", false),
            (Grammar::StringMap, "a=1", true),
            (Grammar::StringMap, "a", false),
            (Grammar::Enum(SCHEMES), "internal", true),
            (Grammar::Enum(SCHEMES), "Internal", false),
            (Grammar::Enum(SCHEMES), "", false),
            (Grammar::EnumIgnoringCase(SCHEMES), "INTERNAL", true),
            (Grammar::EnumIgnoringCase(SCHEMES), "intern", false),
            (named, "http", true),
            (named, "", false),
            (unnamed, "traffic-port", true),
            (unnamed, "http", false),
            (Grammar::Json(JsonShape::ListenPorts), "[]", false),
            (Grammar::Json(JsonShape::Action), "{}", false),
            (Grammar::Json(JsonShape::Conditions), "[]", true),
            (Grammar::Json(JsonShape::Conditions), "{}", false),
            (Grammar::Json(JsonShape::OidcProvider), "{}", true),
            (Grammar::Json(JsonShape::OidcProvider), "[]", false),
            (Grammar::Json(JsonShape::Plan), "1", true),
            (Grammar::Json(JsonShape::Plan), "", false),
        ] {
            assert_eq!(grammar.check(value).is_ok(), allowed, "{grammar:?} {value:?}");
        }
    }

    #[test]
    fn fixes() {
        for (grammar, value, fix) in [
            (Grammar::Bool, "yes", "write `true`"),
            (Grammar::Bool, "Off", "write `false`"),
            (Grammar::Bool, "true ", "remove the white space around the value"),
            (Grammar::Bool, "2", "write `true` or `false`"),
            (Grammar::Enum(&["HTTP", "HTTPS"]), "https", "write `HTTPS`"),
            (Grammar::Enum(&["HTTP", "HTTPS"]), "tcp", "write `HTTP` or `HTTPS`"),
            (Grammar::Enum(&["internal", "internet-facing"]), "internet", "write `internet-facing`"),
            (Grammar::Enum(&["*"]), "**", "write `*`"),
            (Grammar::EnumIgnoringCase(&["HTTP", "TCP"]), "x", "write `HTTP` or `TCP`"),
            (Grammar::Int32 { min: 1, max: 65535 }, "0", "write a whole number from 1 to 65535"),
            (
                Grammar::StringMap,
                "a",
                r"write pairs `key=value` separated by commas; a comma inside a value is written `\,`",
            ),
        ] {
            assert_eq!(grammar.fix(value).in_full(&grammar.describe()), fix, "{value:?}");
        }
    }

    #[test]
    fn fixes_after_the_allowed_values() {
        let hint = r"a comma inside a value is written `\,`";
        for (grammar, value, fix) in [
            (Grammar::Bool, "yes", "write `true`"),
            (Grammar::Bool, "2", ""),
            (Grammar::Bool, "true ", "remove the white space around the value"),
            (Grammar::Enum(&["*"]), "**", ""),
            (Grammar::Enum(&["HTTP", "HTTPS"]), "https", "write `HTTPS`"),
            (Grammar::Enum(&["HTTP", "HTTPS"]), "tcp", ""),
            (Grammar::EnumIgnoringCase(&["HTTP", "TCP"]), "x", "write `HTTP` or `TCP`"),
            (Grammar::Int32 { min: 1, max: 65535 }, "0", ""),
            (Grammar::StringMap, "a", hint),
        ] {
            assert_eq!(grammar.fix(value).after_allowed(), fix, "{value:?}");
        }
    }

    #[test]
    fn values() {
        let named = Grammar::HealthCheckPort { service_port_names: true };
        let list = |items: &[&str]| Parsed::List(items.iter().map(|&item| item.to_owned()).collect());
        for (grammar, value, parsed) in [
            (Grammar::String, " a ", Parsed::Text(" a ")),
            (named, "http", Parsed::Text("http")),
            (Grammar::Bool, "T", Parsed::Bool(true)),
            (Grammar::Int32 { min: 1, max: 2 }, "2", Parsed::Int32(2)),
            (Grammar::Int64, "-3", Parsed::Int64(-3)),
            (Grammar::StringList, "a, b", list(&["a", "b"])),
            (Grammar::CidrList, "10.0.0.1/8", list(&["10.0.0.1/8"])),
            (Grammar::StringMap, "a=1", Parsed::Map([("a".to_owned(), "1".to_owned())].into())),
            (Grammar::Enum(&["HTTP", "HTTPS"]), "HTTPS", Parsed::Word("HTTPS")),
            (Grammar::EnumIgnoringCase(&["HTTP"]), "http", Parsed::Text("http")),
            (
                Grammar::Json(JsonShape::ListenPorts),
                r#"[{"HTTP":80}]"#,
                Parsed::ListenPorts([(80, ListenerProtocol::Http)].into()),
            ),
            (Grammar::Json(JsonShape::Conditions), "[]", Parsed::Conditions(Vec::new())),
            (Grammar::Json(JsonShape::Plan), "1", Parsed::Unread),
        ] {
            assert_eq!(grammar.parse(value), Ok(parsed), "{value}");
        }
    }
}
