//! `albatross crds`: the CustomResourceDefinitions as YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use thiserror::Error;

use crate::api::crd;

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

/// One definition as a YAML document with its leading `---`.
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
    use std::{collections::BTreeMap, fs, path::Path};

    use super::*;

    /// `config/crd` holds exactly what this version of the code generates. To write it anew:
    /// `UPDATE_GENERATED=1 cargo test crds`.
    #[test]
    fn checked_in_definitions_are_current() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/crd");
        let mut generated: BTreeMap<String, String> = crd::all()
            .iter()
            .map(|definition| (format!("{}.yaml", name(definition)), document(definition).unwrap()))
            .collect();
        let resources: String = generated.keys().map(|file| format!("  - {file}\n")).collect();
        generated.insert(
            "kustomization.yaml".to_owned(),
            format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{resources}"),
        );

        if std::env::var_os("UPDATE_GENERATED").is_some() {
            fs::create_dir_all(&directory).unwrap();
            for (file, content) in &generated {
                fs::write(directory.join(file), content).unwrap();
            }
        }
        let checked_in: BTreeMap<String, String> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        assert!(
            checked_in == generated,
            "config/crd is not what the code generates: run `UPDATE_GENERATED=1 cargo test crds`"
        );
    }

    #[test]
    fn rendered_documents_read_back_as_the_definitions() {
        let read: Vec<CustomResourceDefinition> = serde_saphyr::from_multiple(&render().unwrap()).unwrap();
        assert_eq!(read, crd::all());
    }
}
