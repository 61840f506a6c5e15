//! The CustomResourceDefinitions as YAML: the output of `albatross crds`, and the content of `config/crd` and the chart.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use thiserror::Error;

use super as crd;

/// A definition could not be written as YAML.
#[derive(Debug, Error)]
#[error("cannot write the CustomResourceDefinition {name} as YAML: this is a defect of albatross")]
pub struct RenderError {
    name: String,
    source: serde_saphyr::ser::Error,
}

/// All CustomResourceDefinitions as one stream of YAML documents, as `kubectl apply -f -` reads it.
pub fn render() -> Result<String, RenderError> {
    crd::all().iter().map(document).collect()
}

/// Returns the files of a folder of definitions, by name.
pub fn files() -> Result<BTreeMap<String, String>, RenderError> {
    crd::all().iter().map(|definition| Ok((format!("{}.yaml", name(definition)), document(definition)?))).collect()
}

/// Returns a definition as a YAML document with its leading `---`.
fn document(definition: &CustomResourceDefinition) -> Result<String, RenderError> {
    serde_saphyr::to_string(definition)
        .map(|yaml| format!("---\n{yaml}"))
        .map_err(|source| RenderError { name: name(definition), source })
}

fn name(definition: &CustomResourceDefinition) -> String {
    definition.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendered_documents_read_back_as_the_definitions() {
        let read: Vec<CustomResourceDefinition> = serde_saphyr::from_multiple(&render().unwrap()).unwrap();
        assert_eq!(read, crd::all());
    }
}
