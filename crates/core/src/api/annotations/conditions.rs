//! `conditions.<name>`: further conditions of the rules that lead to the backend of this name.

use super::json::{Document, Node};
use crate::model::{Condition, QueryStringValue};

/// The fields that rules look at.
const FIELDS: &str =
    "`host-header`, `path-pattern`, `http-header`, `http-request-method`, `query-string` and `source-ip`";

/// The longest value that AWS takes, in characters.
const LONGEST: usize = 128;

/// The longest name of a header that AWS takes, in characters.
const LONGEST_HEADER: usize = 40;

/// Reads conditions, in their order. Those on the host and the path belong to what the Ingress itself says of host and path; building
/// brings them together.
pub fn parse_conditions(value: &str) -> Result<Vec<Condition>, String> {
    let document = Document::parse(value)?;
    let conditions: Vec<_> = Node::root(&document).items()?.iter().map(condition).collect::<Result<_, _>>()?;
    for field in ["http-request-method", "source-ip"] {
        if conditions.iter().filter(|condition| condition.field() == field).count() > 1 {
            return Err(format!("there are two conditions on `{field}`, and AWS takes one in a rule"));
        }
    }
    Ok(conditions)
}

fn condition(node: &Node) -> Result<Condition, String> {
    let field = node.optional_string("field")?.unwrap_or_default();
    let config = |name: &str| {
        let missing = || format!("{} needs `{name}`", node.place());
        node.field(name)?.ok_or_else(missing)
    };
    Ok(match field.as_str() {
        "host-header" => {
            let (values, regex_values) = patterns(&config("hostHeaderConfig")?)?;
            Condition::HostHeader { values, regex_values }
        }
        "path-pattern" => {
            let (values, regex_values) = patterns(&config("pathPatternConfig")?)?;
            Condition::PathPattern { values, regex_values }
        }
        "http-header" => {
            let config = config("httpHeaderConfig")?;
            let name = config.optional_string("httpHeaderName")?.unwrap_or_default();
            if name.is_empty() || name.len() > LONGEST_HEADER {
                return Err(format!(
                    "{}.httpHeaderName is missing or longer than {LONGEST_HEADER} characters",
                    config.place()
                ));
            }
            let (values, regex_values) = patterns(&config)?;
            Condition::HttpHeader { name, values, regex_values }
        }
        "http-request-method" => Condition::HttpRequestMethod { values: filled(&config("httpRequestMethodConfig")?)? },
        "query-string" => Condition::QueryString { values: pairs(&config("queryStringConfig")?)? },
        "source-ip" => Condition::SourceIp { values: blocks(&config("sourceIPConfig")?)? },
        "" => return Err(format!("{}.field is missing; it is one of {FIELDS}", node.place())),
        other => {
            return Err(format!("{}.field `{}` is none of {FIELDS}", node.place(), super::shorten(other)));
        }
    })
}

/// The values under a name, each of which AWS takes.
fn texts(config: &Node, name: &str) -> Result<Vec<String>, String> {
    let Some(list) = config.field(name)? else { return Ok(Vec::new()) };
    list.items()?.iter().map(|item| checked(item.place(), item.string()?)).collect()
}

fn checked(place: &str, value: String) -> Result<String, String> {
    if value.is_empty() || value.chars().nth(LONGEST).is_some() {
        return Err(format!("{place} is empty or longer than {LONGEST} characters"));
    }
    Ok(value)
}

/// Patterns or regular expressions: one of the two.
fn patterns(config: &Node) -> Result<(Vec<String>, Vec<String>), String> {
    let (values, regex_values) = (texts(config, "values")?, texts(config, "regexValues")?);
    if values.is_empty() == regex_values.is_empty() {
        return Err(format!("{} needs either values or regexValues, and takes one of them", config.place()));
    }
    Ok((values, regex_values))
}

fn filled(config: &Node) -> Result<Vec<String>, String> {
    let values = texts(config, "values")?;
    if values.is_empty() { Err(format!("{}.values is missing or empty", config.place())) } else { Ok(values) }
}

fn blocks(config: &Node) -> Result<Vec<String>, String> {
    let values = filled(config)?;
    match values.iter().find(|value| value.parse::<ipnet::IpNet>().is_err()) {
        Some(value) => Err(format!(
            "{} has `{}`, which is not an address range such as `192.0.2.0/24`",
            config.place(),
            super::shorten(value)
        )),
        None => Ok(values),
    }
}

fn pairs(config: &Node) -> Result<Vec<QueryStringValue>, String> {
    let missing = || format!("{}.values is missing or empty", config.place());
    let list = config.field("values")?.ok_or_else(missing)?;
    let pairs: Vec<_> = list.items()?.iter().map(pair).collect::<Result<_, _>>()?;
    if pairs.is_empty() { Err(missing()) } else { Ok(pairs) }
}

fn pair(node: &Node) -> Result<QueryStringValue, String> {
    let key = node.optional_string("key")?.map(|key| checked(&format!("{}.key", node.place()), key)).transpose()?;
    let value = node.optional_string("value")?.unwrap_or_default();
    Ok(QueryStringValue { key, value: checked(&format!("{}.value", node.place()), value)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn conditions() {
        let host = |values: &[&str], regex: &[&str]| Condition::HostHeader {
            values: texts(values),
            regex_values: texts(regex),
        };
        let path = |values: &[&str], regex: &[&str]| Condition::PathPattern {
            values: texts(values),
            regex_values: texts(regex),
        };
        let header = |name: &str, values: &[&str], regex: &[&str]| Condition::HttpHeader {
            name: name.into(),
            values: texts(values),
            regex_values: texts(regex),
        };
        for (value, expected) in [
            ("[]", vec![]),
            ("null", vec![]),
            (
                r#"[{"field":"host-header","hostHeaderConfig":{"values":["a.example","*.b"]}}]"#,
                vec![host(&["a.example", "*.b"], &[])],
            ),
            (
                r#"[{"field":"host-header","hostHeaderConfig":{"regexValues":["^a+"],"values":[]}}]"#,
                vec![host(&[], &["^a+"])],
            ),
            (r#"[{"field":"path-pattern","pathPatternConfig":{"values":["/a/*"]}}]"#, vec![path(&["/a/*"], &[])]),
            (r#"[{"field":"path-pattern","PathPatternConfig":{"RegexValues":["^/a"]}}]"#, vec![path(&[], &["^/a"])]),
            (
                r#"[{"field":"http-header","httpHeaderConfig":{"httpHeaderName":"X-A","values":["1"]}},
                    {"field":"http-header","httpHeaderConfig":{"httpHeaderName":"X-B","regexValues":["2"]}}]"#,
                vec![header("X-A", &["1"], &[]), header("X-B", &[], &["2"])],
            ),
            (
                r#"[{"field":"http-request-method","httpRequestMethodConfig":{"Values":["GET","HEAD"]}}]"#,
                vec![Condition::HttpRequestMethod { values: texts(&["GET", "HEAD"]) }],
            ),
            (
                r#"[{"field":"query-string","queryStringConfig":{"values":[{"key":"v","value":"2"},{"value":"b*","else":1}]}}]"#,
                vec![Condition::QueryString {
                    values: vec![
                        QueryStringValue { key: Some("v".into()), value: "2".into() },
                        QueryStringValue { key: None, value: "b*".into() },
                    ],
                }],
            ),
            // Names of fields match whatever their case; the field itself does not.
            (
                r#"[{"Field":"source-ip","sourceIpConfig":{"Values":["192.168.0.0/16","2001:db8::/32"]}}]"#,
                vec![Condition::SourceIp { values: texts(&["192.168.0.0/16", "2001:db8::/32"]) }],
            ),
        ] {
            assert_eq!(parse_conditions(value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn malformed_conditions() {
        let long = format!(r#"[{{"field":"path-pattern","pathPatternConfig":{{"values":["/{}"]}}}}]"#, "a".repeat(128));
        for (value, reason) in [
            ("", "it is not JSON: EOF while parsing a value at line 1 column 0"),
            ("{}", "the value is an object, not an array"),
            (
                "[{}]",
                "[0].field is missing; it is one of `host-header`, `path-pattern`, `http-header`, `http-request-method`, `query-string` and `source-ip`",
            ),
            (
                r#"[{"field":"cookie"}]"#,
                "[0].field `cookie` is none of `host-header`, `path-pattern`, `http-header`, `http-request-method`, `query-string` and `source-ip`",
            ),
            (
                r#"[{"field":"Host-Header"}]"#,
                "[0].field `Host-Header` is none of `host-header`, `path-pattern`, `http-header`, `http-request-method`, `query-string` and `source-ip`",
            ),
            (r#"[{"field":"host-header","pathPatternConfig":{"values":["/"]}}]"#, "[0] needs `hostHeaderConfig`"),
            (
                r#"[{"field":"host-header","hostHeaderConfig":{"values":[]}}]"#,
                "[0].hostHeaderConfig needs either values or regexValues, and takes one of them",
            ),
            (
                r#"[{"field":"path-pattern","pathPatternConfig":{"values":["/"],"regexValues":["^/"]}}]"#,
                "[0].pathPatternConfig needs either values or regexValues, and takes one of them",
            ),
            (
                r#"[{"field":"path-pattern","pathPatternConfig":{"values":[""]}}]"#,
                "[0].pathPatternConfig.values[0] is empty or longer than 128 characters",
            ),
            (&long, "[0].pathPatternConfig.values[0] is empty or longer than 128 characters"),
            (
                r#"[{"field":"http-header","httpHeaderConfig":{"values":["1"]}}]"#,
                "[0].httpHeaderConfig.httpHeaderName is missing or longer than 40 characters",
            ),
            (
                r#"[{"field":"http-header","httpHeaderConfig":{"httpHeaderName":"X","values":"1"}}]"#,
                "[0].httpHeaderConfig.values is a string, not an array",
            ),
            (
                r#"[{"field":"http-request-method","httpRequestMethodConfig":{}}]"#,
                "[0].httpRequestMethodConfig.values is missing or empty",
            ),
            (
                r#"[{"field":"query-string","queryStringConfig":{}}]"#,
                "[0].queryStringConfig.values is missing or empty",
            ),
            (
                r#"[{"field":"query-string","queryStringConfig":{"values":[{"key":"v"}]}}]"#,
                "[0].queryStringConfig.values[0].value is empty or longer than 128 characters",
            ),
            (
                r#"[{"field":"query-string","queryStringConfig":{"values":["v=2"]}}]"#,
                "[0].queryStringConfig.values[0] is a string, not an object",
            ),
            (
                r#"[{"field":"source-ip","sourceIPConfig":{"values":["10.0.0.1"]}}]"#,
                "[0].sourceIPConfig has `10.0.0.1`, which is not an address range such as `192.0.2.0/24`",
            ),
            (
                r#"[{"field":"source-ip","sourceIPConfig":{"values":["10.0.0.0/8"]}},{"field":"source-ip","sourceIPConfig":{"values":["11.0.0.0/8"]}}]"#,
                "there are two conditions on `source-ip`, and AWS takes one in a rule",
            ),
        ] {
            assert_eq!(parse_conditions(value), Err(reason.into()), "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(
            value in any::<String>(),
            near in proptest::sample::select(vec!["host-header", "path-pattern", "http-header", "http-request-method", "query-string", "source-ip"]),
            inner in r#"[\[\]{}":,a-z0-9./ ]{0,24}"#,
        ) {
            let _ = parse_conditions(&value);
            for config in ["hostHeader", "pathPattern", "httpHeader", "httpRequestMethod", "queryString", "sourceIP"] {
                for inner in [inner.clone(), format!(r#"{{"values":[{inner}]}}"#), format!(r#"{{"values":["{}"]}}"#, inner.replace('"', ""))] {
                    if let Ok(conditions) = parse_conditions(&format!(r#"[{{"field":"{near}","{config}Config":{inner}}}]"#)) {
                        prop_assert!(conditions.iter().all(|condition| condition.field() == near));
                    }
                }
            }
        }
    }
}
