//! Trees into types, with the field and the line of what does not fit.

use std::fmt::{self, Display};

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error as _, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
        VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};

use super::node::{Content, Key, Node, Scalar};
use crate::snapshot::placeholder::placeholder;

/// A field that does not have the type that it has to have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TypeMismatch {
    /// The path, as `spec.rules[0].http`, empty for the object itself.
    pub(super) path: String,
    /// 0 until it is known.
    pub(super) line: usize,
    pub(super) message: String,
}

impl TypeMismatch {
    fn at(node: &Node, message: impl Into<String>) -> Self {
        Self { path: String::new(), line: node.line, message: message.into() }
    }

    /// Puts the place of the value in front.
    fn inside(mut self, place: &str, line: usize) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{place}{joint}{}", self.path);
        if self.line == 0 {
            self.line = line;
        }
        self
    }
}

impl Display for TypeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for TypeMismatch {}

impl serde::de::Error for TypeMismatch {
    fn custom<T: Display>(message: T) -> Self {
        Self { path: String::new(), line: 0, message: message.to_string() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(value) => format!("`{value}` is a boolean"),
            Unexpected::Unsigned(value) => format!("{value} is a number"),
            Unexpected::Signed(value) => format!("{value} is a number"),
            Unexpected::Float(value) => format!("{value} is a number with a fraction"),
            Unexpected::Str(value) => match placeholder(value) {
                Some(found) => return Self::custom(format!("`{found}` is a placeholder; write its value")),
                None => format!("`{}` is text", shorten(value)),
            },
            Unexpected::Unit => "it is empty".to_owned(),
            Unexpected::Seq => "it is a list".to_owned(),
            Unexpected::Map => "it is a map".to_owned(),
            other => format!("it is {other}"),
        };
        Self::custom(format!("{found}, where {expected} is expected"))
    }
}

/// The longest text that a message repeats, in characters.
const LONGEST: usize = 60;

fn shorten(text: &str) -> String {
    let line: String = text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() { line + "…" } else { line }
}

/// A number as the field names expect it.
struct Number;

impl Expected for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number without quotes")
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeMismatch> {
            match self.scalar() {
                Some(Scalar::Integer(number)) => visitor.visit_i64(number).map_err(|e: TypeMismatch| self.located(e)),
                _ => Err(self.unexpected(&Number)),
            }
        }
    )*};
}

impl Node {
    fn located(&self, mut type_mismatch: TypeMismatch) -> TypeMismatch {
        if type_mismatch.line == 0 {
            type_mismatch.line = self.line;
        }
        type_mismatch
    }

    fn unexpected(&self, expected: &dyn Expected) -> TypeMismatch {
        let found = match (&self.content, self.scalar()) {
            (_, Some(Scalar::Null)) => Unexpected::Unit,
            (_, Some(Scalar::Bool(value))) => Unexpected::Bool(value),
            (_, Some(Scalar::Integer(value))) => Unexpected::Signed(value),
            (_, Some(Scalar::Float(value))) => Unexpected::Float(value),
            (_, Some(Scalar::Text(text))) => Unexpected::Str(text),
            (Content::List(_), None) => Unexpected::Seq,
            (_, None) => Unexpected::Map,
        };
        self.located(TypeMismatch::invalid_type(found, expected))
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = TypeMismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeMismatch> {
        let value = match (&self.content, self.scalar()) {
            (_, Some(Scalar::Null)) => visitor.visit_unit(),
            (_, Some(Scalar::Bool(value))) => visitor.visit_bool(value),
            (_, Some(Scalar::Integer(value))) => visitor.visit_i64(value),
            (_, Some(Scalar::Float(value))) => visitor.visit_f64(value),
            (_, Some(Scalar::Text(text))) => visitor.visit_borrowed_str(text),
            (Content::List(items), None) => visitor.visit_seq(Items { items, next: 0 }),
            (Content::Map(entries), None) => visitor.visit_map(Entries { entries, next: 0 }),
            (Content::Scalar { .. }, None) => visitor.visit_unit(),
        };
        value.map_err(|type_mismatch| self.located(type_mismatch))
    }

    /// Empty is none, as it is to the API server.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeMismatch> {
        match self.scalar() {
            Some(Scalar::Null) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeMismatch> {
        let written = match &self.content {
            Content::Scalar { text, .. } => text.as_str(),
            _ => "",
        };
        match self.scalar() {
            Some(Scalar::Text(text)) => {
                visitor.visit_borrowed_str(text).map_err(|type_mismatch| self.located(type_mismatch))
            }
            Some(Scalar::Null) => visitor.visit_borrowed_str(""),
            Some(Scalar::Bool(_)) => {
                Err(TypeMismatch::at(self, format!("{written} is a boolean; quote it: \"{written}\"")))
            }
            Some(Scalar::Integer(_) | Scalar::Float(_)) => {
                Err(TypeMismatch::at(self, format!("{written} is a number; quote it: \"{written}\"")))
            }
            None => {
                let what = if matches!(self.content, Content::List(_)) { "a list" } else { "a map" };
                Err(TypeMismatch::at(
                    self,
                    format!("it is {what}, where text is expected; if it is JSON, quote it: '…'"),
                ))
            }
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeMismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeMismatch> {
        match self.scalar() {
            Some(Scalar::Bool(value)) => visitor.visit_bool(value),
            _ => Err(self.unexpected(&"`true` or `false` without quotes")),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeMismatch> {
        match &self.content {
            Content::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            _ => Err(self.unexpected(&"a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeMismatch> {
        match &self.content {
            Content::Map(entries) => {
                visitor.visit_map(Entries { entries, next: 0 }).map_err(|type_mismatch| self.located(type_mismatch))
            }
            _ => Err(self.unexpected(&"a map")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeMismatch> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeMismatch> {
        match self.scalar() {
            Some(Scalar::Text(text)) => {
                visitor.visit_enum(VariantName(text)).map_err(|type_mismatch| self.located(type_mismatch))
            }
            _ => Err(self.unexpected(&"a word")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeMismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeMismatch> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'de> {
    items: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = TypeMismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, TypeMismatch> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let place = format!("[{}]", self.next);
        self.next += 1;
        seed.deserialize(item).map(Some).map_err(|type_mismatch| type_mismatch.inside(&place, item.line))
    }
}

/// The entries of a map; of a repeated key the last counts.
struct Entries<'de> {
    entries: &'de [(Key, Node)],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = TypeMismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, TypeMismatch> {
        let Some((key, _)) = self.entries.get(self.next) else { return Ok(None) };
        let text: &str = &key.text;
        seed.deserialize(text.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, TypeMismatch> {
        let Some((key, value)) = self.entries.get(self.next) else {
            return Err(TypeMismatch::custom("a key has no value"));
        };
        self.next += 1;
        seed.deserialize(value).map_err(|type_mismatch| type_mismatch.inside(&key.text, value.line))
    }
}

/// A variant of an enum, by its name.
struct VariantName<'de>(&'de str);

impl<'de> EnumAccess<'de> for VariantName<'de> {
    type Error = TypeMismatch;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), TypeMismatch> {
        let text: &str = self.0;
        let deserializer: serde::de::value::StrDeserializer<'_, TypeMismatch> = text.into_deserializer();
        Ok((seed.deserialize(deserializer)?, self))
    }
}

impl<'de> VariantAccess<'de> for VariantName<'de> {
    type Error = TypeMismatch;

    fn unit_variant(self) -> Result<(), TypeMismatch> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, TypeMismatch> {
        Err(TypeMismatch::custom(format!("`{}` needs a value", self.0)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, TypeMismatch> {
        Err(TypeMismatch::custom(format!("`{}` needs values", self.0)))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, TypeMismatch> {
        Err(TypeMismatch::custom(format!("`{}` needs fields", self.0)))
    }
}
