//! A snapshot of manifests on disk or on standard input.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    EndpointSlice, Ingress, IngressClass, IngressClassParams, Namespace, Node, Pod, Record, Service, Snapshot,
    TargetGroupBinding,
};
use crate::api::{crd, kubernetes as wire};

/// Manifests that were read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The objects that matter here; of two with one name the later one.
    pub snapshot: Snapshot,
    /// How many documents were of other kinds, and were passed over.
    pub other_kinds: usize,
}

/// A manifest that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file or directory cannot be opened.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The text is no YAML.
    #[error("`{name}` is not valid YAML: {message}")]
    Yaml {
        /// File name, or `standard input`.
        name: String,
        /// What the parser says, with line and column.
        message: String,
    },
    /// A document is YAML, but no object of its kind.
    #[error("`{name}`: {} is not valid: {message}", subject(kind, object))]
    Object {
        /// File name, or `standard input`.
        name: String,
        /// Its `kind`; empty where it has none.
        kind: String,
        /// Its `metadata.name`; empty where it has none.
        object: String,
        /// What is wrong.
        message: String,
    },
    /// A directory without manifests.
    #[error("`{}` has no manifests: files that end in .yaml, .yml or .json", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
}

fn subject(kind: &str, object: &str) -> String {
    let kind = if kind.is_empty() { "a document" } else { kind };
    if object.is_empty() { kind.to_owned() } else { format!("{kind} `{object}`") }
}

/// Reads files and directories (with what is below them, in the order of names). A path `-` is standard input.
///
/// # Errors
/// The first file that cannot be read, or is not what its kind says.
pub fn from_paths(paths: &[PathBuf]) -> Result<Loaded, FileError> {
    let mut loaded = Loaded::default();
    for path in paths {
        if path.as_os_str() == "-" {
            let text =
                io::read_to_string(io::stdin()).map_err(|source| FileError::Read { path: path.clone(), source })?;
            from_documents(&mut loaded, "standard input", &text)?;
        } else {
            let files = manifests(path)?;
            if files.is_empty() {
                return Err(FileError::Empty { path: path.clone() });
            }
            for file in files {
                let text =
                    fs::read_to_string(&file).map_err(|source| FileError::Read { path: file.clone(), source })?;
                from_documents(&mut loaded, &file.display().to_string(), &text)?;
            }
        }
    }
    Ok(loaded)
}

fn manifests(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let read = |source| FileError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries =
        fs::read_dir(path).map_err(read)?.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(read)?;
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            files.extend(manifests(&entry)?);
        } else if entry.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            files.push(entry);
        }
    }
    Ok(files)
}

/// Adds the objects of a text with one or more YAML documents (JSON is YAML).
///
/// # Errors
/// When the text is no YAML, or an object is not what its kind says.
pub fn from_documents(loaded: &mut Loaded, name: &str, text: &str) -> Result<(), FileError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| FileError::Yaml { name: name.to_owned(), message: error.to_string() })?;
    documents.into_iter().try_for_each(|document| add(loaded, name, document))
}

fn add(loaded: &mut Loaded, name: &str, mut document: Value) -> Result<(), FileError> {
    if document.is_null() {
        return Ok(());
    }
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, object, group) = (text("/kind"), text("/metadata/name"), text("/apiVersion"));
    if let Some(item_kind) = kind.strip_suffix("List")
        && let Some(Value::Array(items)) = document.get_mut("items").map(Value::take)
    {
        return items.into_iter().try_for_each(|mut item| {
            // The API server's own lists name kind and version once, for all items.
            if let Some(item) = item.as_object_mut().filter(|_| !item_kind.is_empty()) {
                item.entry("kind").or_insert_with(|| Value::from(item_kind));
                item.entry("apiVersion").or_insert_with(|| Value::from(group.as_str()));
            }
            add(loaded, name, item)
        });
    }
    let invalid = |message: String| FileError::Object {
        name: name.to_owned(),
        kind: kind.clone(),
        object: object.clone(),
        message,
    };
    if kind.is_empty() {
        return Err(invalid("it has no `kind`, so it is no Kubernetes object".to_owned()));
    }
    let namespaced = !matches!(kind.as_str(), "IngressClass" | "IngressClassParams" | "Namespace" | "Node");
    if namespaced && let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.entry("namespace").or_insert_with(|| Value::from("default"));
    }
    let snapshot = &mut loaded.snapshot;
    let known = match (group.split_once('/').map_or("", |(group, _)| group), kind.as_str()) {
        ("networking.k8s.io", "Ingress") => keep::<wire::Ingress, Ingress>(snapshot, document),
        ("networking.k8s.io", "IngressClass") => keep::<wire::IngressClass, IngressClass>(snapshot, document),
        ("", "Service") => keep::<wire::Service, Service>(snapshot, document),
        ("discovery.k8s.io", "EndpointSlice") => keep::<wire::EndpointSlice, EndpointSlice>(snapshot, document),
        ("", "Pod") => keep::<wire::Pod, Pod>(snapshot, document),
        ("", "Node") => keep::<wire::Node, Node>(snapshot, document),
        ("", "Namespace") => keep::<wire::Namespace, Namespace>(snapshot, document),
        ("elbv2.k8s.aws", "IngressClassParams") => {
            keep::<crd::IngressClassParams, IngressClassParams>(snapshot, document)
        }
        ("elbv2.k8s.aws", "TargetGroupBinding") => {
            keep::<crd::TargetGroupBinding, TargetGroupBinding>(snapshot, document)
        }
        _ => {
            loaded.other_kinds += 1;
            return Ok(());
        }
    };
    known.map_err(invalid)
}

fn keep<W: DeserializeOwned, T: Record + From<W>>(snapshot: &mut Snapshot, document: Value) -> Result<(), String> {
    let wire: W = serde_json::from_value(document).map_err(|error| error.to_string())?;
    let object = T::from(wire);
    if object.name().name.is_empty() {
        return Err("it has no `metadata.name`".to_owned());
    }
    snapshot.apply(object);
    Ok(())
}
