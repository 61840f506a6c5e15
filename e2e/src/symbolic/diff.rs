//! The differences of two JSON values, in lines for people.

use std::collections::BTreeSet;

use serde_json::Value;

/// Returns a line for each place where `actual` differs from `expected`; none when they are equal.
pub fn diff(expected: &Value, actual: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    walk(expected, actual, "", &mut lines);
    lines
}

fn walk(expected: &Value, actual: &Value, path: &str, lines: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(left), Value::Object(right)) => {
            for key in left.keys().chain(right.keys()).collect::<BTreeSet<_>>() {
                let path = if path.is_empty() { key.clone() } else { format!("{path} > {key}") };
                match (left.get(key), right.get(key)) {
                    (Some(left), Some(right)) => walk(left, right, &path, lines),
                    (Some(left), None) => lines.push(format!("{path}: missing, expected {}", short(left))),
                    (None, right) => {
                        lines.push(format!("{path}: not expected: {}", right.map(short).unwrap_or_default()))
                    }
                }
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            for (number, pair) in left.iter().zip(right).enumerate() {
                walk(pair.0, pair.1, &format!("{path}[{number}]"), lines);
            }
            for (number, left) in left.iter().enumerate().skip(right.len()) {
                lines.push(format!("{path}[{number}]: missing, expected {}", short(left)));
            }
            for (number, right) in right.iter().enumerate().skip(left.len()) {
                lines.push(format!("{path}[{number}]: not expected: {}", short(right)));
            }
        }
        _ if expected == actual => {}
        _ => lines.push(format!("{path}: expected {}, found {}", short(expected), short(actual))),
    }
}

fn short(value: &Value) -> String {
    const LIMIT: usize = 200;
    let text = value.to_string();
    if text.chars().count() <= LIMIT {
        return text;
    }
    text.chars().take(LIMIT).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_difference_is_a_line_with_its_place() {
        let expected = json!({"a": {"b": [1, 2], "c": "x"}, "d": [1], "gone": {"k": 1}});
        let actual = json!({"a": {"b": [1, 3], "c": "x"}, "d": [1, 2], "new": null});
        assert_eq!(
            diff(&expected, &actual),
            [
                "a > b[1]: expected 2, found 3",
                "d[1]: not expected: 2",
                "gone: missing, expected {\"k\":1}",
                "new: not expected: null",
            ]
        );
        assert_eq!(diff(&expected, &expected), [""; 0]);
    }
}
