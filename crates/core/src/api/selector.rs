//! Label selectors, as Kubernetes reads them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A selector with a word that is no operator: the API server takes none, files may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an operator of a label selector; write In, NotIn, Exists or DoesNotExist")]
pub struct UnknownOperator(pub String);

/// Returns true if the selector selects an object with these labels. An empty selector selects everything.
///
/// # Errors
/// When an expression has an unknown operator.
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Result<bool, UnknownOperator> {
    let mut all = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    for expression in selector.match_expressions.iter().flatten() {
        let value = labels.get(&expression.key);
        let named = || value.is_some_and(|value| expression.values.iter().flatten().any(|v| v == value));
        all &= match expression.operator.as_str() {
            "In" => named(),
            "NotIn" => !named(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => return Err(UnknownOperator(other.to_owned())),
        };
    }
    Ok(all)
}
