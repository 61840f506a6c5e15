//! The files that are generated from the code, each from its one source.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use albatross_core::{
    api::{annotations, crd::yaml},
    permissions::{self, Feature, Partition},
};
use anyhow::{Context as _, Result, ensure};

/// Returns the generated files, by their paths in the repository.
fn files() -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::from([
        ("docs/annotations.md".to_owned(), annotations::render_markdown()),
        ("docs/permissions.md".to_owned(), permissions::render_markdown()),
        ("config/iam-policy.json".to_owned(), permissions::policy(&Feature::by_default(), Partition::Aws).to_json()),
    ]);
    let definitions = yaml::files()?;
    let resources: String = definitions.keys().map(|file| format!("  - {file}\n")).collect();
    files.insert(
        "config/crd/kustomization.yaml".to_owned(),
        format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{resources}"),
    );
    // Helm takes every file of its folder for a definition.
    for folder in FOLDERS {
        files.extend(definitions.iter().map(|(file, content)| (format!("{folder}/{file}"), content.clone())));
    }
    Ok(files)
}

/// Folders in which everything is generated.
const FOLDERS: [&str; 2] = ["config/crd", "charts/albatross/crds"];

/// Writes the generated files below `root`.
pub(crate) fn write(root: &Path) -> Result<()> {
    for (file, content) in files()? {
        let path = root.join(&file);
        fs::create_dir_all(path.parent().context("a file in a folder")?)?;
        fs::write(&path, content).with_context(|| format!("cannot write {file}"))?;
    }
    write_flags(root)
}

/// Writes the document of the flags, which the program knows; it is another build, with the SDKs in it.
fn write_flags(root: &Path) -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["run", "--quiet", "--package", "albatross", "--example", "flags-document"]);
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the example flags-document ended with {}", output.status);
    fs::write(root.join("docs/flags.md"), output.stdout).context("cannot write docs/flags.md")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ROOT;

    #[test]
    fn the_generated_files_are_current() {
        let files = files().unwrap();
        let differs = |(file, content): &(&String, &String)| {
            fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_default() != **content
        };
        let old: Vec<&String> = files.iter().filter(differs).map(|(file, _)| file).collect();
        assert!(old.is_empty(), "{old:?} are not what the code generates: run `cargo xtask generate`");
    }

    #[test]
    fn nothing_else_is_in_the_folders_of_definitions() {
        let generated: BTreeSet<String> = files().unwrap().into_keys().collect();
        for folder in FOLDERS {
            for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
                let file = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
                assert!(generated.contains(&file), "{file} is not generated");
            }
        }
    }
}
