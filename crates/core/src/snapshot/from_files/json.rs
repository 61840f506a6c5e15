//! JSON, several times as fast as YAML. Everything that is not as it should be is left to the reader of YAML, which knows
//! lines: JSON is YAML.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Batch, is_list, kinds::Known};

/// The kind of an object, and of a list its items.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "apiVersion", default)]
    api_version: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    items: Option<&'a RawValue>,
}

/// Reads one or more JSON values. `None` where one of them is not JSON, or no object as its kind has to be.
pub(super) fn objects(text: &str) -> Option<Batch> {
    let mut reader = Reader { batch: Batch::default(), lines: Lines { text, offset: 0, line: 1 } };
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        object(&mut reader, value.ok()?.get(), "", "", 0)?;
    }
    Some(reader.batch)
}

struct Reader<'a> {
    batch: Batch,
    lines: Lines<'a>,
}

/// The lines of a text, for parts of it that come in their order.
struct Lines<'a> {
    text: &'a str,
    offset: usize,
    /// The line at the offset.
    line: usize,
}

impl Lines<'_> {
    /// Returns the line on which a part of the text begins.
    fn of(&mut self, part: &str) -> usize {
        let start = part.as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        if let Some(between) = self.text.as_bytes().get(self.offset..start) {
            self.line += between.iter().filter(|byte| **byte == b'\n').count();
            self.offset = start;
        }
        self.line
    }
}

fn object(reader: &mut Reader<'_>, text: &str, of_list: &str, version_of_list: &str, depth: usize) -> Option<()> {
    if text == "null" && depth > 0 {
        return Some(());
    }
    if !text.starts_with('{') {
        return None;
    }
    let Head { api_version, kind, items } = serde_json::from_str(text).ok()?;
    let kind = if kind.is_empty() { of_list } else { kind.as_ref() };
    let api_version = if api_version.is_empty() { version_of_list } else { api_version.as_ref() };
    match (kind.strip_suffix("List"), items) {
        (Some(of_items), Some(items)) => {
            // A list of lists is nothing that the API server gives.
            if depth > 1 {
                return None;
            }
            let items: Vec<&RawValue> = serde_json::from_str(items.get()).ok()?;
            return items.into_iter().try_for_each(|item| object(reader, item.get(), of_items, api_version, depth + 1));
        }
        (Some(of_items), None) if is_list(api_version, of_items) => return None,
        _ => {}
    }
    match Known::of(api_version, kind) {
        Known::Supported(read) => {
            let Unique = serde_json::from_str(text).ok()?;
            let line = reader.lines.of(text);
            reader.batch.objects.push((read.read_json(text)?, line));
        }
        Known::Other if !kind.is_empty() => reader.batch.pass_over(kind),
        Known::Other | Known::Outdated(_) => return None,
    }
    Some(())
}

/// Any value, of which no map has a key twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

/// The text of a key, without a copy where that can be.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct KeyText<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        let mut few: Vec<KeyText<'de>> = Vec::new();
        let mut many: BTreeSet<KeyText<'de>> = BTreeSet::new();
        while let Some(key) = entries.next_key::<KeyText<'de>>()? {
            if few.contains(&key) || many.contains(&key) {
                return Err(A::Error::custom("a key is repeated"));
            }
            if few.len() < 16 {
                few.push(key);
            } else {
                many.insert(key);
            }
            entries.next_value::<Self>()?;
        }
        Ok(self)
    }
}
