//! The Kubernetes API of the lab, with objects as JSON: manifests go in and answers come out as users write them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use super::wait_until;

/// The field manager of what the lab applies.
const MANAGER: &str = "lab";
/// Kinds without a namespace that the lab uses.
const CLUSTER_SCOPED: [&str; 10] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "GatewayClass",
    "IngressClass",
    "IngressClassParams",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "ValidatingWebhookConfiguration",
];

/// A connection to the lab's API server.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
}

impl Cluster {
    /// A client for the kubeconfig file. Nothing is asked of the server yet.
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.proxy_url = None;
        Ok(Self { client: Client::try_from(config)? })
    }

    /// Returns true if the server says that it is ready and has made its first namespaces.
    pub async fn ready(&self) -> Result<bool> {
        let request = hyper::Request::get("/readyz").body(Vec::new())?;
        self.client.request_text(request).await?;
        Ok(self.get("v1", "Namespace", None, "default").await?.is_some())
    }

    /// The API of a kind by its name, in a namespace or for the whole cluster.
    pub fn api(&self, api_version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = GroupVersionKind::gvk(group, version, kind);
        let resource = match kind.kind.as_str() {
            "IngressClassParams" => ApiResource::from_gvk_with_plural(&kind, "ingressclassparams"),
            _ => ApiResource::from_gvk(&kind),
        };
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Applies objects in their order (server-side, forced). A `status` is written through the status subresource.
    /// An object of a namespaced kind that names no namespace goes to `default`.
    pub async fn apply(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            self.apply_one(object).await?;
        }
        Ok(())
    }

    async fn apply_one(&self, object: &Value) -> Result<()> {
        let id = Id::of(object)?;
        let api = self.api(id.api_version, id.kind, id.namespace);
        let mut body = object.clone();
        let status = body.as_object_mut().and_then(|body| body.remove("status"));
        let parameters = PatchParams::apply(MANAGER).force();
        let applied = api.patch(id.name, &parameters, &Patch::Apply(&body)).await;
        applied.with_context(|| format!("applying {id}"))?;
        if let Some(status) = status {
            self.merge_status(id.api_version, id.kind, id.namespace, id.name, &json!({"status": status})).await?;
        }
        Ok(())
    }

    /// Applies a YAML text; objects that name no namespace go to `namespace`, which must exist.
    pub async fn apply_yaml(&self, namespace: &str, text: &str) -> Result<()> {
        let mut objects = documents(text)?;
        for object in &mut objects {
            put_in_namespace(object, namespace);
        }
        self.apply(&objects).await
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        self.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})]).await
    }

    /// Changes an object by a JSON merge patch.
    pub async fn merge(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<()> {
        let api = self.api(api_version, kind, namespace);
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).with_context(|| format!("patching {kind} {name}"))
    }

    /// Changes an object's status by a JSON merge patch.
    pub async fn merge_status(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<()> {
        let api = self.api(api_version, kind, namespace);
        let patched = api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).with_context(|| format!("writing the status of {kind} {name}"))
    }

    /// Requests an object's deletion and does not wait for it. An object that is not there is no error.
    pub async fn delete(&self, api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Result<()> {
        match self.api(api_version, kind, namespace).delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            result => result.map(drop).with_context(|| format!("deleting {kind} {name}")),
        }
    }

    /// An object, or nothing when there is none.
    pub async fn get(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>> {
        let object = self.api(api_version, kind, namespace).get_opt(name).await?;
        Ok(object.map(serde_json::to_value).transpose()?)
    }

    /// All objects of a kind, of one namespace or of all.
    pub async fn list(&self, api_version: &str, kind: &str, namespace: Option<&str>) -> Result<Vec<Value>> {
        let list = self.api(api_version, kind, namespace).list(&ListParams::default()).await?;
        list.items.into_iter().map(|object| Ok(serde_json::to_value(object)?)).collect()
    }

    /// The events about objects of a namespace, as (type, reason, message, name of the object).
    pub async fn events(&self, namespace: &str) -> Result<Vec<EventLine>> {
        let events = self.list("v1", "Event", Some(namespace)).await?;
        Ok(events.iter().map(EventLine::of).collect())
    }

    /// Creates a CRD, or changes it. Kubernetes 1.22 does not know the rules in schemas: a server-side apply would fail for
    /// them, a create leaves them out.
    async fn define(&self, definition: &Value) -> Result<()> {
        let id = Id::of(definition)?;
        let api = self.api(id.api_version, id.kind, None);
        match api.create(&PostParams::default(), &serde_json::from_value(definition.clone())?).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                self.merge(id.api_version, id.kind, None, id.name, definition).await
            }
            result => result.map(drop).with_context(|| format!("creating {id}")),
        }
    }

    /// Returns the server's version, `v1.36.3`.
    pub async fn version(&self) -> Result<String> {
        Ok(self.client.apiserver_version().await?.git_version)
    }

    /// Returns the number of the server's minor version, 36 for 1.36.
    pub async fn minor_version(&self) -> Result<u16> {
        let version = self.version().await?;
        let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok());
        minor.with_context(|| format!("`{version}` is no version of Kubernetes"))
    }

    /// Applies the CRDs of a folder (without its kustomization) and waits until they are served.
    pub async fn install_custom_resource_definitions(&self, folder: &Path) -> Result<()> {
        let mut names = Vec::new();
        let entries = std::fs::read_dir(folder)
            .with_context(|| format!("reading the custom resource definitions in {}", folder.display()))?;
        let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        files.sort();
        for file in files {
            let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            if !yaml || file.file_stem().is_some_and(|stem| stem == "kustomization") {
                continue;
            }
            let objects = documents(&std::fs::read_to_string(&file)?)?;
            for object in &objects {
                self.define(object).await.with_context(|| format!("of {}", file.display()))?;
            }
            names.extend(objects.iter().map(|object| text(object, "/metadata/name").to_owned()));
        }
        ensure!(!names.is_empty(), "no custom resource definition in {}", folder.display());
        for name in names {
            wait_until(Duration::from_secs(30), &format!("{name} to be served"), async || {
                let found = self.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, &name).await?;
                Ok(found.is_some_and(|found| condition_is_true(&found, "Established")))
            })
            .await?;
        }
        Ok(())
    }
}

/// An event, with the fields that people read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLine {
    /// `Normal` or `Warning`.
    pub type_: String,
    pub reason: String,
    pub message: String,
    /// The object's kind and name, `Ingress/web`.
    pub object: String,
}

impl EventLine {
    fn of(event: &Value) -> Self {
        let object = format!("{}/{}", text(event, "/involvedObject/kind"), text(event, "/involvedObject/name"));
        let [type_, reason, message] = ["/type", "/reason", "/message"].map(|field| text(event, field).to_owned());
        Self { type_, reason, message, object }
    }
}

/// The identity of an object.
struct Id<'a> {
    api_version: &'a str,
    kind: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
}

impl<'a> Id<'a> {
    fn of(object: &'a Value) -> Result<Self> {
        let (api_version, kind, name) =
            (text(object, "/apiVersion"), text(object, "/kind"), text(object, "/metadata/name"));
        if api_version.is_empty() || kind.is_empty() || name.is_empty() {
            bail!("a manifest without apiVersion, kind or metadata.name: {object}");
        }
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
        let namespace = if CLUSTER_SCOPED.contains(&kind) { None } else { Some(namespace.unwrap_or("default")) };
        Ok(Self { api_version, kind, namespace, name })
    }
}

impl std::fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.kind)?;
        self.namespace.map_or(Ok(()), |namespace| write!(f, "{namespace}/"))?;
        f.write_str(self.name)
    }
}

/// The text at a JSON pointer, empty when there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a JSON pointer, empty when there is none.
pub fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns true if the object's status has the condition with status `True`.
pub fn condition_is_true(object: &Value, condition: &str) -> bool {
    let conditions = items(object, "/status/conditions");
    conditions.iter().any(|found| text(found, "/type") == condition && text(found, "/status") == "True")
}

/// The documents of a YAML text; empty ones are left out.
pub fn documents(yaml: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Gives an object of a namespaced kind its namespace, unless it names one.
pub fn put_in_namespace(object: &mut Value, namespace: &str) {
    if CLUSTER_SCOPED.contains(&text(object, "/kind")) {
        return;
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.entry("namespace").or_insert_with(|| namespace.into());
    }
}
