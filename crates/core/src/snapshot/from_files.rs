//! A snapshot of manifests on disk or on standard input, as users have them: YAML, JSON, lists of both, with documents of
//! other kinds and some that cannot be read. Each of these is reported, and the others are used.

mod json;
mod kinds;
mod node;
mod typed;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use self::{
    kinds::{Known, Object},
    node::{Content, Documents, Node, Repeated, Unreadable},
};
use super::{Scope, Snapshot};
use crate::model::ObjectName;

/// Manifests that were read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The objects that matter here; of two with one name the later one.
    pub snapshot: Snapshot,
    /// The file and line of each of them, by kind and name.
    pub places: BTreeMap<(&'static str, ObjectName), SourceLocation>,
    /// The number of objects of other kinds, by kind; they were skipped.
    pub other_kinds: BTreeMap<String, usize>,
    /// The objects that could not be read or are there twice.
    pub problems: Vec<Problem>,
}

/// The place of an object in the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceLocation {
    /// File name, or `standard input`.
    pub file: String,
    /// Its first line, from 1.
    pub line: usize,
}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// An object in a manifest that cannot be read, or that exists twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Problem {
    /// File name, or `standard input`.
    pub file: String,
    /// From 1; 0 where it is the file as a whole.
    pub line: usize,
    /// Kind and name, as `Ingress shop/web`, where they are known.
    pub object: String,
    /// The field, as `metadata.annotations.example.com/x`; empty for the object as a whole.
    pub field: String,
    /// The message and the fix.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        for part in [&self.object, &self.field].into_iter().filter(|part| !part.is_empty()) {
            write!(f, ": {part}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl Problem {
    /// Returns what is wrong with a file or a folder as a whole.
    fn of_path(path: &Path, message: impl Into<String>) -> Self {
        let (object, field, message) = (String::new(), String::new(), message.into());
        Self { file: path.display().to_string(), line: 0, object, field, message }
    }

    fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::of_path(path, format!("it cannot be read: {error}; correct the path, or leave it out"))
    }
}

/// Reads files and directories (with what is below them, in the order of names). A path `-` is standard input. What cannot be
/// opened or read is in [`Loaded::problems`], and the rest is read.
#[must_use]
pub fn from_paths(paths: &[PathBuf], scope: Scope) -> Loaded {
    let mut loaded = Loaded::default();
    loaded.snapshot.scope = scope;
    for path in paths {
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            match io::Read::read_to_end(&mut io::stdin(), &mut bytes) {
                Ok(_) => read_bytes(&mut loaded, "standard input", bytes),
                Err(error) => loaded.problems.push(Problem::unreadable(Path::new("standard input"), &error)),
            }
            continue;
        }
        let mut files = Vec::new();
        let before = loaded.problems.len();
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => manifests_below(path, &mut files, &mut loaded.problems),
            Ok(_) => files.push(path.clone()),
            Err(error) => loaded.problems.push(Problem::unreadable(path, &error)),
        }
        if files.is_empty() && loaded.problems.len() == before {
            let message = "it has no manifests, files that end in .yaml, .yml or .json (links to folders are not followed); name another folder";
            loaded.problems.push(Problem::of_path(path, message));
        }
        for file in files {
            match fs::read(&file) {
                Ok(bytes) => read_bytes(&mut loaded, &file.display().to_string(), bytes),
                Err(error) => loaded.problems.push(Problem::unreadable(&file, &error)),
            }
        }
    }
    loaded
}

/// Adds the manifests in a folder and below it. Links to folders are not followed, as `kubectl` does not: they may lead back.
fn manifests_below(folder: &Path, files: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => return problems.push(Problem::unreadable(folder, &error)),
    };
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            manifests_below(&path, files, problems);
        } else if !path.is_dir() && path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            files.push(path);
        }
    }
}

fn read_bytes(loaded: &mut Loaded, name: &str, bytes: Vec<u8>) {
    match String::from_utf8(bytes) {
        Ok(text) => read(loaded, name, &text),
        Err(error) => {
            let valid = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
            let line = valid.filter(|b| **b == b'\n').count() + 1;
            let message = "it is not text in UTF-8; save it as UTF-8".to_owned();
            let (object, field) = (String::new(), String::new());
            loaded.problems.push(Problem { file: name.to_owned(), line, object, field, message });
        }
    }
}

/// Adds the objects of a text with one or more documents, all of which have to be readable.
///
/// # Errors
/// Returns the first document that cannot be read; the readable ones are kept all the same.
pub fn from_documents(loaded: &mut Loaded, name: &str, text: &str) -> Result<(), Problem> {
    let before = loaded.problems.len();
    read(loaded, name, text);
    loaded.problems.get(before).map_or(Ok(()), |first| Err(first.clone()))
}

/// Adds the objects of a text, and a problem for each that cannot be read.
fn read(loaded: &mut Loaded, name: &str, text: &str) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let batch = match text.trim_start().starts_with(['{', '[']).then(|| json::objects(text)).flatten() {
        Some(batch) => batch,
        None => documents(text),
    };
    for (object, line) in batch.objects {
        let key = (object.kind(), object.name().clone());
        let place = SourceLocation { file: name.to_owned(), line };
        let replaces = object.keep(&mut loaded.snapshot);
        let before = loaded.places.insert(key.clone(), place);
        if let (true, Some(before)) = (replaces, before) {
            loaded.problems.push(repeated_object(&key, name, line, &before));
        }
    }
    for (kind, count) in batch.other_kinds {
        *loaded.other_kinds.entry(kind).or_default() += count;
    }
    loaded.problems.extend(batch.problems.into_iter().map(|problem| Problem { file: name.to_owned(), ..problem }));
}

/// Returns the problem of an object whose kind and name another one has, with other content.
fn repeated_object((kind, object): &(&str, ObjectName), file: &str, line: usize, before: &SourceLocation) -> Problem {
    let fix = if before.file == file { "remove one of them" } else { "plan the folders one at a time" };
    let object = match object.namespace.as_str() {
        "" => format!("{kind} {}", object.name),
        _ => format!("{kind} {object}"),
    };
    let message = format!("it is also in {before}; only this one is planned; {fix}");
    Problem { file: file.to_owned(), line, object, field: String::new(), message }
}

/// The objects of a text.
#[derive(Default)]
struct Batch {
    /// With their first lines.
    objects: Vec<(Object, usize)>,
    other_kinds: BTreeMap<String, usize>,
    /// Without the name of the file.
    problems: Vec<Problem>,
}

impl Batch {
    fn pass_over(&mut self, kind: &str) {
        *self.other_kinds.entry(kind.to_owned()).or_default() += 1;
    }

    fn problem(&mut self, line: usize, object: &str, field: &str, message: impl Into<String>) {
        let (object, field, message) = (object.to_owned(), field.to_owned(), message.into());
        self.problems.push(Problem { file: String::new(), line, object, field, message });
    }
}

const TEMPLATE: &str =
    "it has the placeholders of a template, `{{ … }}`; render it first, for example with `helm template`";

/// Reads YAML.
fn documents(text: &str) -> Batch {
    let mut batch = Batch::default();
    let mut lines: Option<Vec<&str>> = None;
    for document in Documents::of(text) {
        match document {
            Ok(node) => object(&mut batch, &node, "", "", 0),
            Err(Unreadable { line, message }) => {
                let lines = lines.get_or_insert_with(|| text.lines().collect());
                let mut until_there = lines.iter().take(line).rev();
                let tab = until_there.clone().next().is_some_and(|line| line.trim_start_matches(' ').starts_with('\t'));
                // A template breaks where its placeholders are, or not far behind.
                let near = until_there.by_ref().take(3).any(|line| line.contains("{{"));
                let message = match (near, tab) {
                    (true, _) => TEMPLATE.to_owned(),
                    (false, true) => "it is indented with a tab, which YAML does not allow; write spaces".to_owned(),
                    (false, false) => message,
                };
                batch.problem(line, "", "", message);
            }
        }
    }
    batch
}

/// Returns the kind and name of an object, for messages.
fn subject(kind: &str, node: &Node) -> String {
    let text = |key: &str| node.get("metadata").map(|metadata| metadata.text_of(key)).unwrap_or_default();
    let kind = if kind.is_empty() && !text("name").is_empty() { "object" } else { kind };
    match (text("namespace"), text("name")) {
        (_, "") => kind.to_owned(),
        ("", name) => format!("{kind} {name}"),
        (namespace, name) => format!("{kind} {namespace}/{name}"),
    }
}

/// The deepest that lists are nested in lists.
const DEEPEST_LIST: usize = 4;

/// Returns true if a kind that ends in `List` is a list of objects that matter, by the kind of its items.
fn is_list(api_version: &str, of_items: &str) -> bool {
    of_items.is_empty() || Known::of(api_version, of_items) != Known::Other
}

fn object(batch: &mut Batch, node: &Node, kind_of_list: &str, version_of_list: &str, depth: usize) {
    if node.scalar() == Some(node::Scalar::Null) {
        return;
    }
    let or = |own: &str, of_list: &str| if own.is_empty() { of_list.to_owned() } else { own.to_owned() };
    let kind = or(node.text_of("kind"), kind_of_list);
    let api_version = or(node.text_of("apiVersion"), version_of_list);
    let subject = subject(&kind, node);
    if let Some(of_items) = kind.strip_suffix("List") {
        let items = node.get("items");
        let line = items.unwrap_or(node).line;
        match items.map(|items| (&items.content, items.scalar())) {
            Some((Content::List(_), _)) if depth >= DEEPEST_LIST => {
                let message =
                    format!("lists are nested deeper than {DEEPEST_LIST} levels; write their objects in one list");
                return batch.problem(line, &subject, "items", message);
            }
            Some((Content::List(items), _)) => {
                if let Some(repeated) = node.repeated(false) {
                    return report_repeated_key(batch, &subject, &repeated);
                }
                // The API server's own lists name kind and version once, for all items.
                return items.iter().for_each(|item| object(batch, item, of_items, &api_version, depth + 1));
            }
            // An empty list, as programs in Go write it.
            Some((_, Some(node::Scalar::Null))) if is_list(&api_version, of_items) => return,
            found if is_list(&api_version, of_items) => {
                let what = if found.is_none() { "it is missing" } else { "it is not a list" };
                return batch.problem(line, &subject, "items", format!("{what}; write the list of the objects"));
            }
            _ => {}
        }
    }
    if kind.is_empty() {
        let message = "it is not a Kubernetes object; add `apiVersion` and `kind`, or leave the file out";
        return batch.problem(node.line, &subject, "", message);
    }
    match Known::of(&api_version, &kind) {
        Known::Other => batch.pass_over(&kind),
        Known::Outdated(message) => {
            batch.problem(node.get("apiVersion").unwrap_or(node).line, &subject, "apiVersion", message);
        }
        Known::Supported(read) => {
            if let Some(repeated) = node.repeated(true) {
                return report_repeated_key(batch, &subject, &repeated);
            }
            match read.read_node(node) {
                Ok(object) => batch.objects.push((object, node.line)),
                Err(type_mismatch) => {
                    let line = if type_mismatch.line == 0 { node.line } else { type_mismatch.line };
                    batch.problem(line, &subject, &type_mismatch.path, type_mismatch.message);
                }
            }
        }
    }
}

fn report_repeated_key(batch: &mut Batch, subject: &str, Repeated { path, first, second }: &Repeated) {
    let message = format!("the key is written twice, in line {first} and in line {second}; keep one of them");
    batch.problem(*second, subject, path, message);
}
