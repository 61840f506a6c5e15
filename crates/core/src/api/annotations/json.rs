//! JSON as Go's `encoding/json` reads it into a struct, which is what the JSON annotations have always been read with: names of
//! fields match whatever their case, unknown fields are ignored, of two equal fields the later one wins, `null` is the same as an absent
//! field, and a value of the wrong type is an error. Keys of maps (not of structs) keep their case.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value whose objects keep their members in the order in which they are written, repeated ones included.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    Null,
    Bool(bool),
    /// A whole number written without fraction or exponent, within 64 signed bits.
    Integer(i64),
    /// Any other number.
    Number(f64),
    String(String),
    Array(Vec<Document>),
    Object(Vec<(String, Document)>),
}

impl Document {
    /// Reads exactly one JSON value. The error says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "a whole number",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DocumentVisitor;
        impl<'de> Visitor<'de> for DocumentVisitor {
            type Value = Document;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Document, E> {
                Ok(Document::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Document, E> {
                Ok(Document::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Document, E> {
                Ok(Document::Integer(value))
            }
            #[expect(
                clippy::cast_precision_loss,
                reason = "a number beyond 63 bits is only ever reported as not being a whole number in range"
            )]
            fn visit_u64<E>(self, value: u64) -> Result<Document, E> {
                Ok(i64::try_from(value).map_or(Document::Number(value as f64), Document::Integer))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Document, E> {
                Ok(Document::Number(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Document, E> {
                Ok(Document::String(value.into()))
            }
            fn visit_string<E>(self, value: String) -> Result<Document, E> {
                Ok(Document::String(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Document, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = access.next_element()? {
                    items.push(item);
                }
                Ok(Document::Array(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Document, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = access.next_entry()? {
                    members.push(member);
                }
                Ok(Document::Object(members))
            }
        }
        deserializer.deserialize_any(DocumentVisitor)
    }
}

/// A place in a document, with the path that led to it, so that an error can say where it is (`forwardConfig.targetGroups[1].weight`).
#[derive(Debug, Clone)]
pub struct Node<'a> {
    document: &'a Document,
    path: String,
}

impl<'a> Node<'a> {
    pub fn root(document: &'a Document) -> Self {
        Self { document, path: String::new() }
    }

    /// Returns the place of this value, as the start of a message.
    pub fn place(&self) -> &str {
        if self.path.is_empty() { "the value" } else { &self.path }
    }

    fn is_not(&self, expected: &str) -> String {
        format!("{} is {}, not {expected}", self.place(), self.document.kind())
    }

    fn child(&self, document: &'a Document, step: &str) -> Node<'a> {
        let separator = if self.path.is_empty() || step.starts_with('[') { "" } else { "." };
        Node { document, path: format!("{}{separator}{step}", self.path) }
    }

    /// The field of a struct: the last member whose name is `name` whatever its case, unless it is `null`. A `null` in place of the struct
    /// has no fields.
    pub fn field(&self, name: &str) -> Result<Option<Node<'a>>, String> {
        match self.document {
            Document::Null => Ok(None),
            Document::Object(members) => Ok(members
                .iter()
                .rev()
                .find(|(key, value)| key.eq_ignore_ascii_case(name) && *value != Document::Null)
                .map(|(_, value)| self.child(value, name))),
            _ => Err(self.is_not("an object")),
        }
    }

    /// The members of a map, in the order in which they are written; their keys are taken as they are.
    pub fn members(&self) -> Result<Vec<(&'a str, Node<'a>)>, String> {
        match self.document {
            Document::Null => Ok(Vec::new()),
            Document::Object(members) => {
                Ok(members.iter().map(|(key, value)| (key.as_str(), self.child(value, key))).collect())
            }
            _ => Err(self.is_not("an object")),
        }
    }

    /// The items of an array; `null` has none.
    pub fn items(&self) -> Result<Vec<Node<'a>>, String> {
        match self.document {
            Document::Null => Ok(Vec::new()),
            Document::Array(items) => {
                Ok(items.iter().enumerate().map(|(index, item)| self.child(item, &format!("[{index}]"))).collect())
            }
            _ => Err(self.is_not("an array")),
        }
    }

    pub fn string(&self) -> Result<String, String> {
        match self.document {
            Document::String(value) => Ok(value.clone()),
            _ => Err(self.is_not("a string")),
        }
    }

    pub fn bool(&self) -> Result<bool, String> {
        match self.document {
            Document::Bool(value) => Ok(*value),
            _ => Err(self.is_not("a boolean")),
        }
    }

    pub fn i32(&self) -> Result<i32, String> {
        match self.document {
            Document::Integer(value) => {
                i32::try_from(*value).map_err(|_| format!("{} is {value}, beyond 32 bits", self.place()))
            }
            _ => Err(self.is_not("a whole number")),
        }
    }

    /// A whole number of 32 bits, or a string.
    pub fn i32_or_string(&self) -> Result<Result<i32, String>, String> {
        match self.document {
            Document::String(value) => Ok(Err(value.clone())),
            Document::Integer(_) => self.i32().map(Ok),
            _ => Err(self.is_not("a whole number or a string")),
        }
    }

    /// A field that is a string, if it is there.
    pub fn optional_string(&self, name: &str) -> Result<Option<String>, String> {
        self.field(name)?.map(|node| node.string()).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field_of(text: &str, name: &str) -> Result<Option<String>, String> {
        Node::root(&Document::parse(text)?).optional_string(name)
    }

    #[test]
    fn fields_match_whatever_their_case_and_the_last_one_wins() {
        for (text, expected) in [
            (r#"{"TargetGroupArn":"a"}"#, Ok(Some("a"))),
            (r#"{"targetGroupARN":"a","targetGroupARN":"b"}"#, Ok(Some("b"))),
            (r#"{"targetGroupARN":"a","TARGETGROUPARN":"b"}"#, Ok(Some("b"))),
            (r#"{"TARGETGROUPARN":"b","targetGroupARN":"a"}"#, Ok(Some("a"))),
            (r#"{"targetGroupARN":"a","targetGroupARN":null}"#, Ok(Some("a"))),
            (r#"{"targetGroupARN":null,"else":[{}]}"#, Ok(None)),
            ("null", Ok(None)),
            ("{}", Ok(None)),
            ("[]", Err("the value is an array, not an object")),
            (r#"{"targetgrouparn":80}"#, Err("targetGroupARN is a whole number, not a string")),
            (r#"{"targetgrouparn":1e2}"#, Err("targetGroupARN is a number, not a string")),
            ("{}x", Err("it is not JSON: trailing characters at line 1 column 3")),
            ("", Err("it is not JSON: EOF while parsing a value at line 1 column 0")),
        ] {
            assert_eq!(
                field_of(text, "targetGroupARN"),
                expected.map(|value| value.map(String::from)).map_err(String::from),
                "{text}"
            );
        }
    }

    #[test]
    fn an_error_names_the_place() {
        let document = Document::parse(r#"{"a":{"b":[{"c":1},{"C":3000000000}]}}"#).unwrap();
        let items = Node::root(&document).field("a").unwrap().unwrap().field("b").unwrap().unwrap().items().unwrap();
        assert_eq!(items[0].field("c").unwrap().unwrap().i32(), Ok(1));
        assert_eq!(items[1].field("c").unwrap().unwrap().i32(), Err("a.b[1].c is 3000000000, beyond 32 bits".into()));
        assert_eq!(items[1].bool(), Err("a.b[1] is an object, not a boolean".into()));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in any::<String>(), near in r#"[\[\]{}":,a0-9.e\-\\ ]{0,24}"#) {
            for text in [&text, &near] {
                if let Ok(document) = Document::parse(text) {
                    let node = Node::root(&document);
                    let _ = (node.field("a"), node.members(), node.items(), node.string(), node.i32(), node.bool(), node.i32_or_string());
                }
            }
        }
    }
}
