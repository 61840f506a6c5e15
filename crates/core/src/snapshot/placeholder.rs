//! Placeholders in manifests for a value that the user has yet to write: `$CERT`, `${CERT}`, `{{ .Values.cert }}`,
//! `<YOUR_ARN>`.

/// Returns the first placeholder in a value, as it is written.
///
/// `$1` (a group of a regular expression), `#{host}` (of a redirect) and the tags of HTML are none.
#[must_use]
pub fn placeholder(value: &str) -> Option<&str> {
    let starts = value.char_indices().filter(|(_, c)| matches!(c, '$' | '{' | '<'));
    starts.filter_map(|(start, _)| at_start(&value[start..])).next()
}

fn at_start(text: &str) -> Option<&str> {
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if text.starts_with("{{") {
        return text.find("}}").map(|end| &text[..end + 2]);
    }
    if let Some(inner) = text.strip_prefix("${") {
        let end = inner.find('}')?;
        return (inner.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')).then(|| &text[..end + 3]);
    }
    if let Some(inner) = text.strip_prefix('$') {
        let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
        return inner.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_').then(|| &text[..=end]);
    }
    let inner = text.strip_prefix('<')?;
    let end = inner.find('>')?;
    let words = &inner[..end];
    let is_text = words.starts_with(|c: char| c.is_ascii_alphabetic()) && words.chars().all(|c| named(c) || c == ' ');
    // HTML has one short word in lower case, or attributes, and mostly an end.
    let several = words.contains(['_', '-', ' ']) || words.chars().all(|c| !c.is_ascii_lowercase());
    let known = ["region", "account", "arn", "id", "name", "domain", "host", "certificate", "value"];
    let html = text.contains("</") || words.ends_with(" ");
    (is_text && !html && (several || known.contains(&words))).then(|| &text[..end + 2])
}

#[cfg(test)]
mod tests {
    use super::placeholder;

    #[test]
    fn placeholders_are_known_and_regular_expressions_and_html_are_not() {
        for (value, expected) in [
            ("$CERT", Some("$CERT")),
            ("arn:aws:acm:$REGION:1:certificate/x", Some("$REGION")),
            ("${cert_arn}", Some("${cert_arn}")),
            ("a.${DOMAIN:-example.com}", Some("${DOMAIN:-example.com}")),
            ("{{ .Values.certificate }}", Some("{{ .Values.certificate }}")),
            ("{{cert}}", Some("{{cert}}")),
            ("<YOUR_ARN>", Some("<YOUR_ARN>")),
            ("arn:aws:acm:<region>:<account-id>:certificate/<id>", Some("<region>")),
            ("<your certificate ARN>", Some("<your certificate ARN>")),
            ("", None),
            ("www.example.com", None),
            ("^/api/(.*)$", None),
            ("/$1/x", None),
            ("#{host}", None),
            (r#"{"HTTP": 80}"#, None),
            ("<h1>Sorry</h1>", None),
            ("<br>", None),
            ("a < b > c", None),
            ("$", None),
            ("${", None),
            ("${}", None),
            ("<", None),
            ("{{", None),
            ("ä${x}ö", Some("${x}")),
        ] {
            assert_eq!(placeholder(value), expected, "{value}");
        }
    }
}
