//! YAML documents as trees that know their lines. What a document may cost is bounded by its own size: aliases copy at most
//! [`MAX_COPIED`] bytes, and nothing is nested deeper than [`DEEPEST`].

use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput};

/// The deepest nesting, as `serde_json` has it for JSON.
const DEEPEST: usize = 128;
/// The most that all aliases of one document may copy, in bytes as [`Node::size`] counts them.
const MAX_COPIED: usize = 16 << 20;

/// A value with the line that it begins on, from 1.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// `plain` is without quotes, so that it may be a number or a boolean.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the text, with repeated keys.
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) line: usize,
}

/// The value of a scalar, as `kubectl` reads it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(&'a str),
}

/// A key that a map has twice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated {
    pub(super) path: String,
    pub(super) first: usize,
    pub(super) second: usize,
}

/// A document that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) line: usize,
    pub(super) message: String,
}

impl Node {
    /// About how many bytes it takes in memory.
    fn size(&self) -> usize {
        let own = size_of::<Self>();
        match &self.content {
            Content::Scalar { text, .. } => own + text.len(),
            Content::List(items) => items.iter().fold(own, |sum, item| sum.saturating_add(item.size())),
            Content::Map(entries) => entries.iter().fold(own, |sum, (key, value)| {
                sum.saturating_add(size_of::<Key>() + key.text.len()).saturating_add(value.size())
            }),
        }
    }

    /// Returns what a scalar says; `None` of a list or a map.
    pub(super) fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.content {
            Content::Scalar { text, plain: true } => Some(plain(text)),
            Content::Scalar { text, plain: false } => Some(Scalar::Text(text)),
            _ => None,
        }
    }

    /// Returns the value of a key; the last, where it is repeated.
    pub(super) fn get(&self, wanted: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(entries) => entries.iter().rev().find(|(key, _)| key.text == wanted).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Returns an item of a list.
    pub(super) fn item(&self, index: usize) -> Option<&Self> {
        match &self.content {
            Content::List(items) => items.get(index),
            _ => None,
        }
    }

    /// Returns the text of a key, empty where it has none.
    pub(super) fn text_of(&self, key: &str) -> &str {
        match self.get(key).and_then(Self::scalar) {
            Some(Scalar::Text(text)) => text,
            _ => "",
        }
    }

    /// Returns the first key that a map has twice; of the map itself, or, where `deep`, also of what is in it.
    pub(super) fn repeated(&self, deep: bool) -> Option<Repeated> {
        let inside = |path: String, repeated: Repeated| {
            let joint = if repeated.path.starts_with('[') { "" } else { "." };
            Repeated { path: format!("{path}{joint}{}", repeated.path), ..repeated }
        };
        match &self.content {
            Content::Scalar { .. } => None,
            Content::List(items) => items.iter().enumerate().find_map(|(index, item)| {
                item.repeated(deep).filter(|_| deep).map(|repeated| inside(format!("[{index}]"), repeated))
            }),
            Content::Map(entries) => {
                let mut seen = BTreeMap::new();
                for (key, _) in entries {
                    if let Some(first) = seen.insert(key.text.as_str(), key.line) {
                        return Some(Repeated { path: key.text.clone(), first, second: key.line });
                    }
                }
                let mut values = entries.iter().filter(|_| deep);
                values.find_map(|(key, value)| value.repeated(deep).map(|repeated| inside(key.text.clone(), repeated)))
            }
        }
    }

    /// Takes the maps of `<<` into the map, where it does not have their keys itself.
    fn merge(entries: &mut Vec<(Key, Self)>) {
        let Some(place) = entries.iter().position(|(key, _)| key.text == "<<") else { return };
        let (_, merged) = entries.remove(place);
        let maps = match merged.content {
            Content::List(maps) => maps,
            _ => vec![merged],
        };
        let mut have: BTreeSet<String> = entries.iter().map(|(key, _)| key.text.clone()).collect();
        for map in maps {
            if let Content::Map(others) = map.content {
                entries.extend(others.into_iter().filter(|(key, _)| have.insert(key.text.clone())));
            }
        }
    }
}

/// Reads a scalar without quotes: YAML 1.1, as `kubectl` does, in which `yes` and `off` are booleans.
fn plain(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Scalar::Bool(false);
        }
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Scalar::Text(text);
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.replace('_', "");
    let radix = match digits.get(..2) {
        Some("0x") => Some(16),
        Some("0o") => Some(8),
        Some("0b") => Some(2),
        _ => None,
    };
    let integer = match radix {
        Some(radix) => i64::from_str_radix(&digits[2..], radix).ok(),
        None if digits.len() > 1 && digits.starts_with('0') => i64::from_str_radix(&digits, 8).ok(),
        None if digits.starts_with(|c: char| c.is_ascii_digit()) => digits.parse().ok(),
        None => None,
    };
    if let Some(integer) = integer {
        return Scalar::Integer(if negative { -integer } else { integer });
    }
    let numeric = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    match digits.parse::<f64>() {
        Ok(number) if numeric => Scalar::Float(if negative { -number } else { number }),
        _ => Scalar::Text(text),
    }
}

/// A collection that is not complete yet.
struct Open {
    node: Node,
    /// The key whose value comes next.
    key: Option<Key>,
    anchor: usize,
}

/// The documents of a text, one after the other. After one that cannot be read the next is read all the same.
pub(super) struct Documents<'a> {
    parser: Parser<'a, StrInput<'a>>,
    ended: bool,
}

impl<'a> Documents<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let mut options = Options::default();
        options.set_emit_comments(false);
        // They name the anchor, which the parser's own error does not.
        options.emit_unresolved_aliases = true;
        Self { parser: Parser::new_from_str_with_options(text, options), ended: false }
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<Node, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let document = document(&mut self.parser).transpose();
        match &document {
            None => self.ended = true,
            // An error that cannot be skipped ends the text.
            Some(Err(_)) => self.ended = !self.parser.proceed_next_document().unwrap_or(false),
            Some(Ok(_)) => {}
        }
        document
    }
}

/// Reads the next document; `None` at the end of the text.
fn document<'a>(parser: &mut Parser<'a, StrInput<'a>>) -> Result<Option<Node>, Unreadable> {
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    let mut anchors: BTreeMap<usize, Node> = BTreeMap::new();
    let mut copied = 0_usize;
    while let Some(next) = parser.next_event() {
        let (event, Span { start, .. }) = next.map_err(|error| Unreadable {
            line: error.marker().line(),
            message: format!("it is not valid YAML: {}", error.info()),
        })?;
        let line = start.line();
        let refused = |message: String| Unreadable { line, message };
        let (node, anchor) = match event {
            Event::StreamEnd => return Ok(root),
            Event::DocumentEnd => return Ok(Some(root.unwrap_or(null(line)))),
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let plain = style == ScalarStyle::Plain && !as_text;
                (Node { line, content: Content::Scalar { text: text.into_owned(), plain } }, anchor)
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= DEEPEST => {
                return Err(refused(format!("it is nested deeper than {DEEPEST} levels")));
            }
            Event::SequenceStart(_, anchor, _) => {
                open.push(Open { node: Node { line, content: Content::List(Vec::new()) }, key: None, anchor });
                continue;
            }
            Event::MappingStart(_, anchor, _) => {
                if let Some(Open { node: Node { content: Content::Map(_), .. }, key: None, .. }) = open.last() {
                    return Err(refused(KEY_IS_NO_TEXT.to_owned()));
                }
                open.push(Open { node: Node { line, content: Content::Map(Vec::new()) }, key: None, anchor });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open { mut node, anchor, .. }) => {
                    if let Content::Map(entries) = &mut node.content {
                        Node::merge(entries);
                    }
                    (node, anchor)
                }
                None => continue,
            },
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => {
                    copied = copied.saturating_add(node.size());
                    if copied > MAX_COPIED {
                        return Err(refused(too_much()));
                    }
                    (Node { line, ..node.clone() }, 0)
                }
                None => return Err(refused("an alias names what is not complete yet".to_owned())),
            },
            Event::UnresolvedAlias(name) => {
                return Err(refused(format!(
                    "the anchor `{name}` is not defined in this document; anchors end at `---`"
                )));
            }
            _ => continue,
        };
        if anchor != 0 {
            copied = copied.saturating_add(node.size());
            if copied > MAX_COPIED {
                return Err(refused(too_much()));
            }
            anchors.insert(anchor, node.clone());
        }
        match open.last_mut() {
            None => root = Some(node),
            Some(Open { node: Node { content: Content::List(items), .. }, .. }) => items.push(node),
            Some(Open { node: Node { content: Content::Map(entries), .. }, key, .. }) => match (key.take(), node) {
                (Some(key), node) => entries.push((key, node)),
                (None, Node { line, content: Content::Scalar { text, .. } }) => *key = Some(Key { text, line }),
                (None, _) => return Err(refused(KEY_IS_NO_TEXT.to_owned())),
            },
            Some(Open { node: Node { content: Content::Scalar { .. }, .. }, .. }) => {}
        }
    }
    Ok(root)
}

const KEY_IS_NO_TEXT: &str = "a key of a map is a map or a list";

fn too_much() -> String {
    format!("its aliases copy more than {} MiB; write out what they stand for, or split the document", MAX_COPIED >> 20)
}

fn null(line: usize) -> Node {
    Node { line, content: Content::Scalar { text: String::new(), plain: true } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Result<Node, Unreadable> {
        let mut documents = Documents::of(text);
        let first = documents.next().expect("a document");
        assert!(documents.next().is_none(), "{text}");
        first
    }

    #[test]
    fn scalars_are_what_kubectl_takes_them_for() {
        for (text, expected) in [
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("true", Scalar::Bool(true)),
            ("yes", Scalar::Bool(true)),
            ("off", Scalar::Bool(false)),
            ("3000", Scalar::Integer(3000)),
            ("-7", Scalar::Integer(-7)),
            ("0644", Scalar::Integer(0o644)),
            ("0x1F", Scalar::Integer(31)),
            ("1_000", Scalar::Integer(1000)),
            ("1.5", Scalar::Float(1.5)),
            ("1e3", Scalar::Float(1000.0)),
            ("123456789012", Scalar::Integer(123_456_789_012)),
            ("0.0.0.0/0", Scalar::Text("0.0.0.0/0")),
            ("10.0.0.0", Scalar::Text("10.0.0.0")),
            ("-", Scalar::Text("-")),
            ("1.2.3", Scalar::Text("1.2.3")),
            ("200-399", Scalar::Text("200-399")),
            ("truely", Scalar::Text("truely")),
            ("/", Scalar::Text("/")),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
    }

    #[test]
    fn aliases_and_merge_keys_are_followed() {
        let node = only("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n").unwrap();
        assert_eq!(node.get("b").and_then(|b| b.get("x")).and_then(Node::scalar), Some(Scalar::Integer(1)));
        assert_eq!(node.get("b").and_then(|b| b.get("y")).and_then(Node::scalar), Some(Scalar::Integer(3)));
        assert_eq!(node.get("c").and_then(|c| c.get("y")).and_then(Node::scalar), Some(Scalar::Integer(2)));
        assert_eq!(node.get("c").map(|c| c.line), Some(3));
    }

    #[test]
    fn a_repeated_key_is_found_with_both_lines() {
        let node = only("a: 1\nb:\n- c: 1\n  d: 2\n  c: 3\n").unwrap();
        assert_eq!(node.repeated(false), None);
        assert_eq!(node.repeated(true), Some(Repeated { path: "b[0].c".to_owned(), first: 3, second: 5 }));
    }

    #[test]
    fn after_a_broken_document_the_next_one_is_read() {
        let read: Vec<Result<usize, Unreadable>> = Documents::of("a: [1\n---\nb: 1\n---\n{{ .Values.x }}\n---\nc: 1\n")
            .map(|d| d.map(|node| node.line))
            .collect();
        insta::assert_debug_snapshot!(read);
    }

    #[test]
    fn a_bomb_is_refused_before_it_grows() {
        use std::fmt::Write as _;
        // Nine levels of nine aliases each would be 387 million values.
        let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..=9 {
            let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
            writeln!(text, "a{level}: &a{level} [{aliases}]").unwrap();
        }
        assert_eq!(only(&text).unwrap_err().message, too_much());
        // One large text, and many aliases of it.
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 100_000].join(", "));
        assert_eq!(only(&text).unwrap_err().message, too_much());
        // Merge keys copy as well.
        let mut text = "a0: &a0 {k0: 1}\n".to_owned();
        for level in 1..=3000 {
            writeln!(text, "a{level}: &a{level} {{<<: *a{}, k{level}: 1}}", level - 1).unwrap();
        }
        assert_eq!(only(&text).unwrap_err().message, too_much());
        // An anchor that is its own part.
        assert_eq!(only("a: &a [*a]\n").unwrap_err().message, "an alias names what is not complete yet");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = |levels: usize| only(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
        assert!(deep(128).is_ok());
        assert_eq!(deep(129).unwrap_err().message, "it is nested deeper than 128 levels");
        assert!(deep(1_000_000).is_err());
        let mut text = String::new();
        for level in 0..300 {
            text.push_str(&" ".repeat(level));
            text.push_str("a:\n");
        }
        assert!(only(&text).is_err());
    }
}
