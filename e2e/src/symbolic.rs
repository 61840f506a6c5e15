//! The state that a controller made in AWS and in the cluster, as symbolic JSON: no ARN, id or random part, so that the
//! states of two runs, or of two controllers, are equal when what they made is.

#![expect(
    clippy::indexing_slicing,
    reason = "fields are set on JSON objects that are made here, and one that is absent reads as null"
)]

mod aws;
mod diff;
mod kubernetes;
mod rules;
mod symbols;

pub use diff::diff;
pub use symbols::{Symbols, without_hash};

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::lab::Lab;

/// The whole account at one moment.
pub struct Snapshot {
    /// By stack (`ingress:<namespace>/<name>`, `ingress:<group>`, `service:…`, `none`): kinds of resources by name.
    pub stacks: BTreeMap<String, Value>,
    /// The symbols of all ids and ARNs.
    pub symbols: Symbols,
    /// Symbolic names of the load balancers by their DNS names.
    load_balancers: BTreeMap<String, String>,
}

impl Snapshot {
    /// Reads everything.
    pub async fn take(lab: &Lab) -> Result<Self> {
        let symbols = Symbols::of(lab).await?;
        aws::read(lab, symbols).await
    }

    /// Returns the results of the objects of one namespace: the AWS resources of its stacks, the cluster's side of them, and the target
    /// groups of other owners that are bound there, or that `others` names by their symbols.
    pub async fn of_namespace(&self, lab: &Lab, namespace: &str, others: &BTreeSet<String>) -> Result<Value> {
        let of_namespace = |stack: &&String| {
            let owner = stack.strip_prefix("ingress:").or_else(|| stack.strip_prefix("service:"));
            let rest = owner.and_then(|owner| owner.strip_prefix(namespace));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let stacks: Map<String, Value> = self
            .stacks
            .iter()
            .filter(|(stack, _)| of_namespace(stack))
            .map(|(stack, state)| (stack.clone(), state.clone()))
            .collect();
        let kubernetes = kubernetes::read(lab, self, namespace).await?;
        let external = self.external(&kubernetes, others);
        let mut state = json!({"aws": stacks, "kubernetes": kubernetes});
        if !external.is_empty() {
            state["external"] = external.into();
        }
        Ok(state)
    }

    /// The target groups that belong to no stack and that bindings of the namespace, or `others`, name.
    fn external(&self, kubernetes: &Value, others: &BTreeSet<String>) -> Map<String, Value> {
        let bound: BTreeSet<&str> = kubernetes
            .as_object()
            .into_iter()
            .flat_map(|objects| objects.values())
            .filter_map(|object| object.pointer("/spec/targetGroupARN").and_then(Value::as_str))
            .collect();
        let all = self.stacks.get("none").and_then(|stack| stack["targetGroups"].as_object());
        let bound =
            all.into_iter().flatten().filter(|(symbol, _)| bound.contains(symbol.as_str()) || others.contains(*symbol));
        bound.map(|(symbol, state)| (symbol.clone(), state.clone())).collect()
    }
}
