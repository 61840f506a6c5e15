//! Symbols for ARNs, ids and numbers that differ from run to run.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Map, Value};

use crate::lab::Lab;
use crate::lab::cluster::{items, text};

/// The symbols that stand for values.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    known: BTreeMap<String, String>,
}

impl Symbols {
    /// The symbols of what the lab has made itself, and of the node ports that the API server gave out.
    pub(super) async fn of(lab: &Lab) -> Result<Self> {
        let world = &lab.world;
        let mut symbols = Self::default();
        symbols.insert(&world.vpc, "vpc".to_owned());
        for (name, vpc) in &world.other_vpcs {
            symbols.insert(vpc, format!("vpc:{name}"));
        }
        let named = [
            ("subnet", &world.subnets),
            ("cert", &world.certificates),
            ("eip", &world.elastic_ips),
            ("pl", &world.prefix_lists),
            ("trust", &world.trust_stores),
            ("acl", &world.web_acls),
        ];
        for (kind, names) in named {
            for (name, id) in names {
                symbols.insert(id, format!("{kind}:{name}"));
            }
        }
        symbols.insert(&world.ipv6_block, "ip6block:vpc".to_owned());
        for (name, start) in &world.ipv6_blocks {
            symbols.insert(&format!("{start}/64"), format!("ip6block:{name}"));
        }
        for node in &world.nodes {
            symbols.insert(&node.instance, format!("instance:{}", node.name));
        }
        for pod in lab.cluster.list("v1", "Pod", None).await? {
            for address in items(&pod, "/status/podIPs").iter().map(|it| text(it, "/ip")) {
                if let Some(symbol) = world.ipv6_symbol(address) {
                    symbols.insert(address, symbol);
                }
            }
        }
        for service in lab.cluster.list("v1", "Service", None).await? {
            let name = text(&service, "/metadata/name");
            for port in items(&service, "/spec/ports") {
                if let Some(node_port) = port["nodePort"].as_u64() {
                    symbols.insert(&node_port.to_string(), format!("nodePort:{name}/{}", port["port"]));
                }
            }
            if let Some(port) = service.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64) {
                symbols.insert(&port.to_string(), format!("healthCheckNodePort:{name}"));
            }
        }
        Ok(symbols)
    }

    pub(super) fn insert(&mut self, id: &str, symbol: String) {
        self.known.insert(id.to_owned(), symbol);
    }

    /// The symbol of a text, or the text itself.
    pub fn text<'a>(&'a self, text: &'a str) -> &'a str {
        self.known.get(text).map_or(text, String::as_str)
    }

    /// The text that has a symbol.
    pub fn id_of(&self, symbol: &str) -> Option<&str> {
        self.known.iter().find(|(_, known)| *known == symbol).map(|(id, _)| id.as_str())
    }

    /// The symbol of a number, or the number.
    pub(super) fn number(&self, number: i64) -> Value {
        self.known.get(&number.to_string()).map_or_else(|| number.into(), |symbol| symbol.as_str().into())
    }

    /// A JSON value with every text and number that has a symbol replaced; keys stay.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                Value::Object(fields.iter().map(|(key, field)| (key.clone(), self.value(field))).collect::<Map<_, _>>())
            }
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::String(text) => self.text(text).into(),
            Value::Number(number) => number.as_i64().map_or_else(|| value.clone(), |number| self.number(number)),
            Value::Bool(_) | Value::Null => value.clone(),
        }
    }
}

/// A generated name with its hash replaced: `k8s-shop-web-0123456789` is `k8s-shop-web-*`.
pub fn without_hash(name: &str) -> String {
    let is_hash = |end: &str| end.len() == 10 && end.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match name.rsplit_once('-') {
        Some((start, end)) if is_hash(end) => format!("{start}-*"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn known_texts_and_numbers_become_symbols_at_any_depth() {
        let mut symbols = Symbols::default();
        symbols.insert("sg-1", "sg:nodes".to_owned());
        symbols.insert("31234", "nodePort:web/80".to_owned());
        let value = json!({"sg-1": ["sg-1", {"port": 31234, "text": "31234", "on": true}], "other": 80});
        assert_eq!(
            symbols.value(&value),
            json!({"sg-1": ["sg:nodes", {"port": "nodePort:web/80", "text": "nodePort:web/80", "on": true}], "other": 80})
        );
    }

    #[test]
    fn only_a_hash_is_cut_from_a_name() {
        let names = ["k8s-a-b-0123456789", "k8s-a-b-0123456789a", "k8s-a-b-012345678x", "name", "a-ABCDEF0123"];
        assert_eq!(
            names.map(without_hash),
            ["k8s-a-b-*", "k8s-a-b-0123456789a", "k8s-a-b-012345678x", "name", "a-ABCDEF0123"]
        );
    }
}
