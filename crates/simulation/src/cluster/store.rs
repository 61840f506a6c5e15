//! The objects, and the effects of creating, replacing, patching and deleting them.

#![expect(
    clippy::indexing_slicing,
    reason = "a field of an object that is absent reads as null, and is made when it is written"
)]

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

/// A kind of object.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub name: &'static str,
    /// True if changes of the spec increase `metadata.generation`.
    counts: bool,
    /// True if the status is a subresource.
    status: bool,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    name: &'static str,
    counts: bool,
    status: bool,
) -> Kind {
    Kind { group, version, plural, name, counts, status }
}

const KINDS: [Kind; 12] = [
    kind("networking.k8s.io", "v1", "ingresses", "Ingress", true, true),
    kind("networking.k8s.io", "v1", "ingressclasses", "IngressClass", true, false),
    kind("elbv2.k8s.aws", "v1beta1", "ingressclassparams", "IngressClassParams", true, false),
    kind("", "v1", "namespaces", "Namespace", false, true),
    kind("", "v1", "services", "Service", false, true),
    kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true, false),
    kind("", "v1", "pods", "Pod", false, true),
    kind("", "v1", "nodes", "Node", false, true),
    kind("elbv2.k8s.aws", "v1beta1", "targetgroupbindings", "TargetGroupBinding", true, true),
    kind("coordination.k8s.io", "v1", "leases", "Lease", false, false),
    kind("", "v1", "configmaps", "ConfigMap", false, false),
    kind("", "v1", "events", "Event", false, false),
];

impl Kind {
    pub fn of(plural: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.plural == plural)
    }

    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// An error response of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": self.code, "reason": self.reason, "message": self.message,
        })
    }
}

pub(super) type Answer = Result<Arc<Value>, Refusal>;

/// The key of an object: the plural of its kind, its namespace and its name.
pub(super) type ObjectKey = (&'static str, String, String);

/// An event of a watch.
#[derive(Clone, Debug)]
pub struct Change {
    pub plural: &'static str,
    /// The type of the event: `ADDED`, `MODIFIED` or `DELETED`.
    pub verb: &'static str,
    pub object: Arc<Value>,
    pub version: u64,
    pub at: tokio::time::Instant,
}

impl Change {
    pub fn namespace(&self) -> &str {
        self.object["metadata"]["namespace"].as_str().unwrap_or_default()
    }
}

/// All objects and their history.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub version: u64,
    objects: BTreeMap<ObjectKey, Arc<Value>>,
    pub log: Vec<Change>,
    /// The places in the log of the changes of a kind, which a watch need not search for.
    places: BTreeMap<&'static str, Vec<usize>>,
    /// The number of objects that have had a name, the only input of an object's uid apart from its key.
    incarnations: BTreeMap<ObjectKey, u32>,
    /// The number of changes of leases, which do not end.
    pub renewals: u64,
    /// True if a policy engine adds a label and an annotation to each TargetGroupBinding that is written.
    pub policy: bool,
}

/// The part of an object that a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Status,
}

fn place(kind: &'static Kind, namespace: &str, name: &str) -> ObjectKey {
    (kind.plural, namespace.to_owned(), name.to_owned())
}

fn not_found(kind: &Kind, name: &str) -> Refusal {
    Refusal::new(404, "NotFound", format!("{} \"{name}\" not found", kind.plural))
}

fn conflict(kind: &Kind, name: &str, why: &str) -> Refusal {
    let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.plural);
    Refusal::new(409, "Conflict", message)
}

/// Removes nulls and empty lists of finalizers, which the API server does not store.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, value| !(value.is_null() || key == "finalizers" && value == &json!([])));
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Applies a merge patch (RFC 7386).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let mut fields = match target.take() {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
    *target = Value::Object(fields);
}

/// Returns a patch in which the conditions of an object are complete: a strategic merge patch changes those of the same
/// type, and leaves the others.
fn with_conditions(object: &Value, patch: &Value) -> Value {
    let mut patch = patch.clone();
    let Some(changed) = patch.pointer("/status/conditions").and_then(Value::as_array).cloned() else { return patch };
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    for change in changed {
        match conditions.iter_mut().find(|condition| condition["type"] == change["type"]) {
            Some(condition) => merge(condition, &change),
            None => conditions.push(change),
        }
    }
    patch["status"]["conditions"] = json!(conditions);
    patch
}

/// Returns the fields whose changes increase the generation.
fn wanted(object: &Value) -> Map<String, Value> {
    let fields = object.as_object().into_iter().flatten();
    fields
        .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Returns the simulated time in the form of objects.
pub(super) fn time(seconds: i64) -> String {
    Timestamp::from_second(1_767_225_600 + seconds).expect("a time of this age").to_string()
}

pub fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

pub fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

impl Store {
    /// Applies a mutating webhook to an object that is written; the annotation differs each time.
    fn enforce(&self, kind: &'static Kind, object: &mut Value) {
        if self.policy && kind.plural == "targetgroupbindings" {
            object["metadata"]["labels"]["policy.example.com/team"] = json!("shop");
            object["metadata"]["annotations"]["policy.example.com/seen"] = json!(self.version.to_string());
        }
    }

    pub(super) fn get(&self, kind: &'static Kind, namespace: &str, name: &str) -> Answer {
        self.objects.get(&place(kind, namespace, name)).cloned().ok_or_else(|| not_found(kind, name))
    }

    /// Returns all objects of a kind, of one namespace if it is given.
    pub(super) fn list(&self, kind: &'static Kind, namespace: &str) -> Vec<Arc<Value>> {
        let all = (kind.plural, namespace.to_owned(), String::new())..;
        let here = |(place, _): &(&ObjectKey, &Arc<Value>)| {
            place.0 == kind.plural && (namespace.is_empty() || place.1 == namespace)
        };
        self.objects.range(all).take_while(here).map(|(_, object)| Arc::clone(object)).collect()
    }

    fn keep(&mut self, kind: &'static Kind, place: ObjectKey, verb: &'static str, mut object: Value) -> Arc<Value> {
        self.version += 1;
        self.renewals += u64::from(kind.plural == "leases");
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        if verb == "DELETED" {
            self.objects.remove(&place);
        } else {
            self.objects.insert(place, Arc::clone(&object));
        }
        // These kinds are not watched, and have many objects.
        if !matches!(kind.plural, "events" | "leases" | "configmaps") {
            let at = tokio::time::Instant::now();
            let (plural, version) = (kind.plural, self.version);
            self.places.entry(kind.plural).or_default().push(self.log.len());
            self.log.push(Change { plural, verb, object: Arc::clone(&object), version, at });
        }
        object
    }

    /// Creates an object. Its uid and creation time are kept if it has them, so that a world can be copied.
    pub(super) fn create(&mut self, kind: &'static Kind, namespace: &str, mut object: Value, now: i64) -> Answer {
        without_nulls(&mut object);
        let no_metadata = || Refusal::new(400, "BadRequest", "metadata is missing");
        if !object["metadata"].is_object() {
            return Err(no_metadata());
        }
        object["kind"] = json!(kind.name);
        object["apiVersion"] = json!(kind.api_version());
        if let Some(fields) = object.as_object_mut().filter(|_| kind.status) {
            fields.remove("status");
        }
        self.enforce(kind, &mut object);
        let metadata = object["metadata"].as_object_mut().ok_or_else(no_metadata)?;
        if !namespace.is_empty() {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        let name = match (metadata.get("name").and_then(Value::as_str), metadata.get("generateName")) {
            (Some(name), _) => name.to_owned(),
            (None, Some(prefix)) => format!("{}{:x}", prefix.as_str().unwrap_or_default(), self.version),
            (None, None) => return Err(Refusal::new(422, "Invalid", "name or generateName is required")),
        };
        metadata.insert("name".to_owned(), json!(name));
        let place = place(kind, namespace, &name);
        if self.objects.contains_key(&place) {
            return Err(Refusal::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", kind.plural)));
        }
        let incarnation = self.incarnations.entry(place.clone()).or_default();
        *incarnation += 1;
        let uid = format!("{}/{namespace}/{name}/{incarnation}", kind.plural);
        metadata.entry("uid").or_insert_with(|| json!(uid));
        metadata.entry("creationTimestamp").or_insert_with(|| json!(time(now)));
        metadata.remove("deletionTimestamp");
        if kind.counts {
            metadata.insert("generation".to_owned(), json!(1));
        }
        Ok(self.keep(kind, place, "ADDED", object))
    }

    /// Returns the changes of a kind since a version.
    pub(super) fn changes_after(&self, plural: &str, version: u64) -> impl Iterator<Item = &Change> {
        let places = self.places.get(plural).map(Vec::as_slice).unwrap_or_default();
        let first = places.partition_point(|place| self.log[*place].version <= version);
        places.iter().skip(first).map(|place| &self.log[*place])
    }

    /// Replaces the part of an object that the write changes.
    pub(super) fn replace(
        &mut self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        mut new: Value,
        part: Part,
    ) -> Answer {
        let old = self.get(kind, namespace, name)?;
        without_nulls(&mut new);
        for (field, why) in [
            ("resourceVersion", "the object has been modified; please apply your changes to the latest version"),
            ("uid", "Precondition failed: the UID is another's"),
        ] {
            let wanted = new["metadata"][field].as_str().filter(|wanted| !wanted.is_empty());
            if wanted.is_some_and(|wanted| old["metadata"][field] != wanted) {
                return Err(conflict(kind, name, why));
            }
        }
        let mut next = match part {
            Part::Status => {
                let mut next = Value::clone(&old);
                next["status"] = new["status"].take();
                next
            }
            Part::Main => {
                for field in [
                    "uid",
                    "creationTimestamp",
                    "deletionTimestamp",
                    "generation",
                    "name",
                    "namespace",
                    "resourceVersion",
                ] {
                    new["metadata"][field] = old["metadata"][field].clone();
                }
                if kind.status {
                    new["status"] = old["status"].clone();
                }
                self.enforce(kind, &mut new);
                new["kind"] = old["kind"].clone();
                new["apiVersion"] = old["apiVersion"].clone();
                new
            }
        };
        without_nulls(&mut next);
        if next == *old {
            return Ok(old);
        }
        let (had, has) = (finalizers(&old), finalizers(&next));
        if is_deleting(&old) && has.iter().any(|finalizer| !had.contains(finalizer)) {
            let message = format!(
                "{} \"{name}\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted",
                kind.name
            );
            return Err(Refusal::new(422, "Invalid", message));
        }
        let ends = is_deleting(&old) && has.is_empty();
        if kind.counts && wanted(&old) != wanted(&next) {
            next["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or_default() + 1);
        }
        let verb = if ends { "DELETED" } else { "MODIFIED" };
        Ok(self.keep(kind, place(kind, namespace, name), verb, next))
    }

    /// Applies a merge patch to an object. Those of pods are strategic merge patches, as all clients make them.
    pub(super) fn patch(
        &mut self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        patch: &Value,
        part: Part,
    ) -> Answer {
        let mut new = Value::clone(&*self.get(kind, namespace, name)?);
        let patch = if kind.plural == "pods" { &with_conditions(&new, patch) } else { patch };
        merge(&mut new, patch);
        self.replace(kind, namespace, name, new, part)
    }

    /// Deletes an object, or marks it as being deleted while it has finalizers. `only` has the preconditions.
    pub(super) fn delete(
        &mut self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        only: &Value,
        now: i64,
    ) -> Answer {
        let old = self.get(kind, namespace, name)?;
        for field in ["uid", "resourceVersion"] {
            if only[field].is_string() && only[field] != old["metadata"][field] {
                return Err(conflict(kind, name, &format!("Precondition failed: {field}")));
            }
        }
        let place = place(kind, namespace, name);
        if finalizers(&old).is_empty() {
            return Ok(self.keep(kind, place, "DELETED", Value::clone(&old)));
        }
        if is_deleting(&old) {
            return Ok(old);
        }
        let mut next = Value::clone(&old);
        next["metadata"]["deletionTimestamp"] = json!(time(now));
        if kind.counts {
            next["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or_default() + 1);
        }
        Ok(self.keep(kind, place, "MODIFIED", next))
    }

    /// Changes only the version of an object, as a write of another controller does.
    pub(super) fn touch(&mut self, kind: &'static Kind, namespace: &str, name: &str) {
        if let Ok(old) = self.get(kind, namespace, name) {
            self.keep(kind, place(kind, namespace, name), "MODIFIED", Value::clone(&old));
        }
    }
}
