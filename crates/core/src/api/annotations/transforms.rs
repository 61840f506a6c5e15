//! `transforms.<name>`: how requests are rewritten by the rules that lead to the backend of this name.

use super::json::{Document, Node};
use crate::model::{Rewrite, Transform};

/// The longest expression or replacement that AWS takes, in characters.
const LONGEST: usize = 1024;

/// Reads transforms. Whether an expression is one is left for AWS to judge.
pub fn parse_transforms(value: &str) -> Result<Vec<Transform>, String> {
    let document = Document::parse(value)?;
    let transforms: Vec<_> = Node::root(&document).items()?.iter().map(transform).collect::<Result<_, _>>()?;
    for (index, transform) in transforms.iter().enumerate() {
        if transforms.iter().take(index).any(|earlier| earlier.kind() == transform.kind()) {
            return Err(format!(
                "there are two transforms of type `{}`, and AWS takes one in a rule",
                transform.kind()
            ));
        }
    }
    Ok(transforms)
}

fn transform(node: &Node) -> Result<Transform, String> {
    let kind = node.optional_string("type")?.unwrap_or_default();
    match kind.as_str() {
        "host-header-rewrite" => rewrites(node, "hostHeaderRewriteConfig").map(Transform::HostHeaderRewrite),
        "url-rewrite" => rewrites(node, "urlRewriteConfig").map(Transform::UrlRewrite),
        "" => Err(format!("{}.type is missing; it is `url-rewrite` or `host-header-rewrite`", node.place())),
        other => Err(format!(
            "{}.type `{}` is not `url-rewrite` or `host-header-rewrite`",
            node.place(),
            super::shorten(other)
        )),
    }
}

fn rewrites(node: &Node, name: &str) -> Result<Vec<Rewrite>, String> {
    let config = node.field(name)?.ok_or_else(|| format!("{} needs `{name}`", node.place()))?;
    let missing = || format!("{}.rewrites is missing or empty", config.place());
    let list = config.field("rewrites")?.ok_or_else(missing)?;
    let rewrites: Vec<_> = list.items()?.iter().map(rewrite).collect::<Result<_, _>>()?;
    if rewrites.is_empty() { Err(missing()) } else { Ok(rewrites) }
}

fn rewrite(node: &Node) -> Result<Rewrite, String> {
    let part = |name: &str| {
        let part = node.optional_string(name)?.unwrap_or_default();
        match part.chars().nth(LONGEST) {
            Some(_) => Err(format!("{}.{name} is longer than {LONGEST} characters", node.place())),
            None => Ok(part),
        }
    };
    let (regex, replace) = (part("regex")?, part("replace")?);
    if regex.is_empty() {
        return Err(format!("{}.regex is missing", node.place()));
    }
    Ok(Rewrite { regex, replace })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewrite(regex: &str, replace: &str) -> Rewrite {
        Rewrite { regex: regex.into(), replace: replace.into() }
    }

    #[test]
    fn transforms() {
        for (value, expected) in [
            ("[]", vec![]),
            (
                r#"[{"type":"url-rewrite","urlRewriteConfig":{"rewrites":[{"regex":"^/api/(.*)$","replace":"/$1"}]}}]"#,
                vec![Transform::UrlRewrite(vec![rewrite("^/api/(.*)$", "/$1")])],
            ),
            (
                r#"[{"Type":"host-header-rewrite","HostHeaderRewriteConfig":{"Rewrites":[{"Regex":"a","Replace":"b"},{"regex":"c"}]}},
                    {"type":"url-rewrite","urlRewriteConfig":{"rewrites":[{"regex":"x","replace":"y"}]}}]"#,
                vec![
                    Transform::HostHeaderRewrite(vec![rewrite("a", "b"), rewrite("c", "")]),
                    Transform::UrlRewrite(vec![rewrite("x", "y")]),
                ],
            ),
        ] {
            assert_eq!(parse_transforms(value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn malformed_transforms() {
        let long = format!(
            r#"[{{"type":"url-rewrite","urlRewriteConfig":{{"rewrites":[{{"regex":"{}"}}]}}}}]"#,
            "a".repeat(1025)
        );
        let url = r#"{"type":"url-rewrite","urlRewriteConfig":{"rewrites":[{"regex":"a","replace":"b"}]}}"#;
        for (value, reason) in [
            ("{}", "the value is an object, not an array"),
            ("[{}]", "[0].type is missing; it is `url-rewrite` or `host-header-rewrite`"),
            (r#"[{"type":"rewrite"}]"#, "[0].type `rewrite` is not `url-rewrite` or `host-header-rewrite`"),
            (r#"[{"type":"url-rewrite"}]"#, "[0] needs `urlRewriteConfig`"),
            (
                r#"[{"type":"host-header-rewrite","urlRewriteConfig":{"rewrites":[]}}]"#,
                "[0] needs `hostHeaderRewriteConfig`",
            ),
            (r#"[{"type":"url-rewrite","urlRewriteConfig":{}}]"#, "[0].urlRewriteConfig.rewrites is missing or empty"),
            (
                r#"[{"type":"url-rewrite","urlRewriteConfig":{"rewrites":[]}}]"#,
                "[0].urlRewriteConfig.rewrites is missing or empty",
            ),
            (
                r#"[{"type":"url-rewrite","urlRewriteConfig":{"rewrites":[{"replace":"/"}]}}]"#,
                "[0].urlRewriteConfig.rewrites[0].regex is missing",
            ),
            (
                r#"[{"type":"url-rewrite","urlRewriteConfig":{"rewrites":["/a"]}}]"#,
                "[0].urlRewriteConfig.rewrites[0] is a string, not an object",
            ),
            (&long, "[0].urlRewriteConfig.rewrites[0].regex is longer than 1024 characters"),
            (&format!("[{url},{url}]"), "there are two transforms of type `url-rewrite`, and AWS takes one in a rule"),
        ] {
            assert_eq!(parse_transforms(value), Err(reason.into()), "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(value in any::<String>(), inner in r#"[\[\]{}":,a-z0-9./ ]{0,24}"#) {
            let _ = parse_transforms(&value);
            for config in ["urlRewriteConfig", "hostHeaderRewriteConfig"] {
                for kind in ["url-rewrite", "host-header-rewrite"] {
                    for inner in [inner.clone(), format!(r#"{{"rewrites":[{inner}]}}"#), format!(r#"{{"rewrites":[{{{inner}}}]}}"#)] {
                        let _ = parse_transforms(&format!(r#"[{{"type":"{kind}","{config}":{inner}}}]"#));
                    }
                }
            }
        }
    }
}
