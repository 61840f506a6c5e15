//! A snapshot of manifests on disk or on standard input, as people have them: YAML, JSON, lists of both, with documents that
//! are of no concern here, and some that cannot be read. Each of these is reported, and the others are kept.

mod json;
mod kinds;
mod node;
mod typed;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use self::{
    kinds::{Known, Object},
    node::{Content, Documents, Node, Repeated, Unreadable},
};
use super::{Scope, Snapshot};

/// Manifests that were read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The objects that matter here; of two with one name the later one.
    pub snapshot: Snapshot,
    /// How many objects were of other kinds, by kind; they were passed over.
    pub other_kinds: BTreeMap<String, usize>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// Something in a manifest that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// File name, or `standard input`.
    pub file: String,
    /// From 1; 0 where it is the file as a whole.
    pub line: usize,
    /// Kind and name, as `Ingress shop/web`, where they are known.
    pub object: String,
    /// As `metadata.annotations.example.com/x`; empty where it is the object as a whole.
    pub field: String,
    /// What is wrong, and what to do.
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

/// A path that leads to no manifests.
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
    /// A directory without manifests.
    #[error("`{}` has no manifests: files that end in .yaml, .yml or .json", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
}

/// Reads files and directories (with what is below them, in the order of names). A path `-` is standard input.
///
/// # Errors
/// The first path that cannot be opened. What is wrong with what stands there is in [`Loaded::problems`].
pub fn from_paths(paths: &[PathBuf]) -> Result<Loaded, FileError> {
    let mut loaded = Loaded::default();
    loaded.snapshot.scope = Scope::Files;
    for path in paths {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| FileError::Read { path, source }
        };
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::stdin(), &mut bytes).map_err(failed(path))?;
            read_bytes(&mut loaded, "standard input", bytes);
        } else {
            let files = manifests(path)?;
            if files.is_empty() {
                return Err(FileError::Empty { path: path.clone() });
            }
            for file in files {
                let bytes = fs::read(&file).map_err(failed(&file))?;
                read_bytes(&mut loaded, &file.display().to_string(), bytes);
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

fn read_bytes(loaded: &mut Loaded, name: &str, bytes: Vec<u8>) {
    match String::from_utf8(bytes) {
        Ok(text) => read(loaded, name, &text),
        Err(error) => {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            let message = "it is not text in UTF-8; save it as UTF-8".to_owned();
            let (object, field) = (String::new(), String::new());
            loaded.problems.push(Problem { file: name.to_owned(), line, object, field, message });
        }
    }
}

/// Adds the objects of a text with one or more documents, all of which have to be readable.
///
/// # Errors
/// The first that cannot be read; those that can are kept all the same.
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
    for object in batch.objects {
        object.keep(&mut loaded.snapshot);
    }
    for (kind, count) in batch.other_kinds {
        *loaded.other_kinds.entry(kind).or_default() += count;
    }
    loaded.problems.extend(batch.problems.into_iter().map(|problem| Problem { file: name.to_owned(), ..problem }));
}

/// The objects of a text.
#[derive(Default)]
struct Batch {
    objects: Vec<Object>,
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

/// The kind and name of an object as people say them.
fn subject(kind: &str, node: &Node) -> String {
    let text = |key: &str| node.get("metadata").map(|metadata| metadata.text_of(key)).unwrap_or_default();
    let kind = if kind.is_empty() && !text("name").is_empty() { "object" } else { kind };
    match (text("namespace"), text("name")) {
        (_, "") => kind.to_owned(),
        ("", name) => format!("{kind} {name}"),
        (namespace, name) => format!("{kind} {namespace}/{name}"),
    }
}

fn object(batch: &mut Batch, node: &Node, kind_of_list: &str, version_of_list: &str, depth: usize) {
    if node.scalar() == Some(node::Scalar::Null) {
        return;
    }
    let or = |own: &str, of_list: &str| if own.is_empty() { of_list.to_owned() } else { own.to_owned() };
    let kind = or(node.text_of("kind"), kind_of_list);
    let api_version = or(node.text_of("apiVersion"), version_of_list);
    let subject = subject(&kind, node);
    if let (Some(of_items), Some(Node { content: Content::List(items), .. })) =
        (kind.strip_suffix("List"), node.get("items"))
        && depth < 4
    {
        if let Some(repeated) = node.repeated(false) {
            return tell_repeated(batch, &subject, &repeated);
        }
        // The API server's own lists name kind and version once, for all items.
        return items.iter().for_each(|item| object(batch, item, of_items, &api_version, depth + 1));
    }
    if kind.is_empty() {
        let message = "it has no `kind`, so it is no Kubernetes object";
        return batch.problem(node.line, &subject, "", message);
    }
    match Known::of(&api_version, &kind) {
        Known::Other => batch.pass_over(&kind),
        Known::Outdated(message) => {
            batch.problem(node.get("apiVersion").unwrap_or(node).line, &subject, "apiVersion", message);
        }
        Known::Kept(read) => {
            if let Some(repeated) = node.repeated(true) {
                return tell_repeated(batch, &subject, &repeated);
            }
            match read.read_node(node) {
                Ok(object) => batch.objects.push(object),
                Err(misfit) => {
                    let line = if misfit.line == 0 { node.line } else { misfit.line };
                    batch.problem(line, &subject, &misfit.path, misfit.message);
                }
            }
        }
    }
}

fn tell_repeated(batch: &mut Batch, subject: &str, Repeated { path, first, second }: &Repeated) {
    let message = format!("the key is written twice, in line {first} and in line {second}; keep one of them");
    batch.problem(*second, subject, path, message);
}
