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

    /// `config/crd` and the chart hold exactly what this version of the code generates. To write them anew:
    /// `UPDATE_GENERATED=1 cargo test crds`.
    #[test]
    fn checked_in_definitions_are_current() {
        let definitions: BTreeMap<String, String> = crd::all()
            .iter()
            .map(|definition| (format!("{}.yaml", name(definition)), document(definition).unwrap()))
            .collect();
        let resources: String = definitions.keys().map(|file| format!("  - {file}\n")).collect();
        let mut with_kustomization = definitions.clone();
        with_kustomization.insert(
            "kustomization.yaml".to_owned(),
            format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{resources}"),
        );
        // Helm takes every file of its folder for a definition.
        for (folder, generated) in [("config/crd", with_kustomization), ("charts/albatross/crds", definitions)] {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            if std::env::var_os("UPDATE_GENERATED").is_some() {
                fs::create_dir_all(&directory).unwrap();
                for (file, content) in &generated {
                    fs::write(directory.join(file), content).unwrap();
                }
            }
            assert!(
                files_in(&directory) == generated,
                "{folder} is not what the code generates: run `UPDATE_GENERATED=1 cargo test crds`"
            );
        }
    }

    fn files_in(directory: &Path) -> BTreeMap<String, String> {
        let text =
            |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap());
        fs::read_dir(directory).unwrap().map(|entry| text(entry.unwrap())).collect()
    }

    #[test]
    fn rendered_documents_read_back_as_the_definitions() {
        let read: Vec<CustomResourceDefinition> = serde_saphyr::from_multiple(&render().unwrap()).unwrap();
        assert_eq!(read, crd::all());
    }
}
