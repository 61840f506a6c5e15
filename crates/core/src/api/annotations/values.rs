//! The grammars of annotation values. They are exactly those of the controller that this one replaces, traps included, because the
//! same value must keep its meaning.

use std::collections::BTreeMap;

/// The words that Go's `strconv.ParseBool` parses as true.
pub const TRUE: &[&str] = &["true", "True", "TRUE", "t", "T", "1"];
/// The words that Go's `strconv.ParseBool` parses as false.
pub const FALSE: &[&str] = &["false", "False", "FALSE", "f", "F", "0"];

/// A boolean: one of [`TRUE`] or [`FALSE`], nothing else, and no white space around it.
pub fn parse_bool(value: &str) -> Result<bool, String> {
    match value {
        _ if TRUE.contains(&value) => Ok(true),
        _ if FALSE.contains(&value) => Ok(false),
        _ => Err("it is not a boolean".into()),
    }
}

/// A whole number of 32 bits in base 10, with an optional sign and no white space around it.
pub fn parse_i32(value: &str) -> Result<i32, String> {
    value.parse().map_err(|_| "it is not a whole number of 32 bits".into())
}

/// A whole number of 64 bits in base 10, with an optional sign and no white space around it.
pub fn parse_i64(value: &str) -> Result<i64, String> {
    value.parse().map_err(|_| "it is not a whole number of 64 bits".into())
}

/// A list separated by commas. Each item is trimmed and empty items are dropped, so `""` and `" , "` are an empty list.
pub fn parse_string_list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(String::from).collect()
}

/// Pairs `key=value` separated by commas.
///
/// - A backslash makes the character after it literal, so `\,` is a comma in a value; a lone backslash at the very end stays.
/// - A comma ends a pair only if an `=` still follows somewhere. With text but no `=` after it, the value is malformed. With nothing
///   but white space after it, the comma belongs to the last value: `a=b,` gives `b,`. That is a trap, but it is what the same
///   annotation has always meant.
/// - Keys and values are trimmed; a value may be empty, a key may not; of two equal keys the later one wins.
/// - The empty string is an empty map.
pub fn parse_string_map(value: &str) -> Result<BTreeMap<String, String>, String> {
    if value.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut pairs = Vec::new();
    let mut pair = String::new();
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => pair.push(characters.next().unwrap_or('\\')),
            ',' => match characters.as_str().trim() {
                "" => pair.push(','),
                rest if rest.contains('=') => pairs.push(std::mem::take(&mut pair)),
                rest => {
                    return Err(format!("`{}` is not a pair `key=value`", super::shorten(rest)));
                }
            },
            other => pair.push(other),
        }
    }
    pairs.push(pair);
    pairs.iter().map(|pair| split_pair(pair.trim())).collect()
}

fn split_pair(pair: &str) -> Result<(String, String), String> {
    match pair.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
        None if pair.is_empty() => Err("a pair is empty".into()),
        None => Err(format!("`{}` is not a pair `key=value`", super::shorten(pair))),
        Some(("", _)) => Err(format!("`{}` has no key before its `=`", super::shorten(pair))),
        Some((key, value)) => Ok((key.into(), value.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn booleans() {
        for (value, expected) in [
            ("1", Ok(true)),
            ("t", Ok(true)),
            ("T", Ok(true)),
            ("TRUE", Ok(true)),
            ("true", Ok(true)),
            ("True", Ok(true)),
            ("0", Ok(false)),
            ("f", Ok(false)),
            ("F", Ok(false)),
            ("FALSE", Ok(false)),
            ("false", Ok(false)),
            ("False", Ok(false)),
            ("yes", Err(())),
            ("on", Err(())),
            (" true", Err(())),
            ("true\n", Err(())),
            ("FaLsE", Err(())),
            ("", Err(())),
            ("01", Err(())),
        ] {
            assert_eq!(parse_bool(value).map_err(drop), expected, "{value:?}");
        }
    }

    #[test]
    fn whole_numbers() {
        for (value, small, large) in [
            ("0", Some(0), Some(0)),
            ("-7", Some(-7), Some(-7)),
            ("+7", Some(7), Some(7)),
            ("007", Some(7), Some(7)),
            ("2147483647", Some(i32::MAX), Some(2_147_483_647)),
            ("2147483648", None, Some(2_147_483_648)),
            ("-9223372036854775808", None, Some(i64::MIN)),
            ("9223372036854775808", None, None),
            ("", None, None),
            (" 1", None, None),
            ("1 ", None, None),
            ("1_000", None, None),
            ("0x10", None, None),
            ("1.0", None, None),
        ] {
            assert_eq!((parse_i32(value).ok(), parse_i64(value).ok()), (small, large), "{value:?}");
        }
    }

    #[test]
    fn lists() {
        let none: &[&str] = &[];
        for (value, expected) in [
            ("", none),
            (" ", none),
            ("\t,  ,,,,,", none),
            ("abc,", &["abc"]),
            ("a b , c", &["a b", "c"]),
            (",a,,b\n,c", &["a", "b", "c"]),
            ("a\\,b", &["a\\", "b"]),
            ("\"x, y\"", &["\"x", "y\""]),
        ] {
            assert_eq!(parse_string_list(value), expected, "{value:?}");
        }
    }

    #[test]
    fn maps() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("a=b", &[("a", "b")]),
            ("b=2, a=1", &[("a", "1"), ("b", "2")]),
            (
                "k1=v1, k2=v2, k3/with-slash=v3, k4/empty=",
                &[("k1", "v1"), ("k2", "v2"), ("k3/with-slash", "v3"), ("k4/empty", "")],
            ),
            (" a = b \n, c = d ", &[("a", "b"), ("c", "d")]),
            ("a=b=c", &[("a", "b=c")]),
            ("a=1,a=2", &[("a", "2")]),
            // The comma at the end belongs to the value, also when white space follows it.
            ("a=b,", &[("a", "b,")]),
            ("a=b, \n", &[("a", "b,")]),
            ("a=1,b=2,", &[("a", "1"), ("b", "2,")]),
            (r"a=x\,y,b=2", &[("a", "x,y"), ("b", "2")]),
            (r"a=x\\,b=2", &[("a", "x\\"), ("b", "2")]),
            (r"a=\é\=", &[("a", "é=")]),
            (r"a=b\", &[("a", "b\\")]),
            (r"a\=b=c", &[("a", "b=c")]),
            // An `=` after the comma ends the pair even if it is an escaped one.
            (r"a=1,b\=2", &[("a", "1"), ("b", "2")]),
            ("ä=ö,日=本", &[("ä", "ö"), ("日", "本")]),
        ];
        for (value, expected) in cases {
            let expected = expected.iter().map(|(key, value)| (String::from(*key), String::from(*value))).collect();
            assert_eq!(parse_string_map(value), Ok(expected), "{value:?}");
        }
    }

    #[test]
    fn malformed_maps() {
        for (value, reason) in [
            (" ", "a pair is empty"),
            (",", "`,` is not a pair `key=value`"),
            ("a", "`a` is not a pair `key=value`"),
            ("a=1,b", "`b` is not a pair `key=value`"),
            ("a=1,b,c", "`b,c` is not a pair `key=value`"),
            ("a=1,,", "`,` is not a pair `key=value`"),
            ("a=1,,b=2", "a pair is empty"),
            ("a=x,y,b=2", "`y` is not a pair `key=value`"),
            ("=v", "`=v` has no key before its `=`"),
            (" = ", "`=` has no key before its `=`"),
        ] {
            assert_eq!(parse_string_map(value), Err(reason.into()), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn an_escaped_map_comes_back(map in proptest::collection::btree_map("[a-z][a-z0-9./]{0,8}", "([!-~é]([ -~é]{0,8}[!-~é])?)?", 1..5)) {
            let escape = |text: &str| text.chars().flat_map(|c| ['\\', c]).collect::<String>();
            let written = map.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect::<Vec<_>>().join(",");
            prop_assert_eq!(parse_string_map(&written), Ok(map));
        }

        #[test]
        fn nothing_panics(value in any::<String>(), near in "[a=,\\\\ é]{0,12}") {
            for value in [&value, &near] {
                let _ = (parse_bool(value), parse_i32(value), parse_i64(value), parse_string_list(value), parse_string_map(value));
            }
        }
    }
}
