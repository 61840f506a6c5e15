//! Which objects are kept, which are of a version that no Kubernetes serves any more, and which are passed over.

use kube::Resource;
use serde::{Deserializer, de::DeserializeOwned};

use super::{node::Node, typed::Misfit};
use crate::{
    api::{crd, kubernetes as wire},
    snapshot::{
        EndpointSlice, Ingress, IngressClass, IngressClassParams, Namespace, Node as KubernetesNode, Pod, Record,
        Service, Snapshot, TargetGroupBinding,
    },
};

/// An object that is kept.
pub(super) enum Object {
    Ingress(Ingress),
    IngressClass(IngressClass),
    IngressClassParams(IngressClassParams),
    Service(Service),
    EndpointSlice(EndpointSlice),
    Pod(Pod),
    Node(KubernetesNode),
    Namespace(Namespace),
    TargetGroupBinding(TargetGroupBinding),
}

impl Object {
    pub(super) fn keep(self, snapshot: &mut Snapshot) {
        fn apply<T: Record>(snapshot: &mut Snapshot, object: T) {
            snapshot.apply(object);
        }
        match self {
            Self::Ingress(object) => apply(snapshot, object),
            Self::IngressClass(object) => apply(snapshot, object),
            Self::IngressClassParams(object) => apply(snapshot, object),
            Self::Service(object) => apply(snapshot, object),
            Self::EndpointSlice(object) => apply(snapshot, object),
            Self::Pod(object) => apply(snapshot, object),
            Self::Node(object) => apply(snapshot, object),
            Self::Namespace(object) => apply(snapshot, object),
            Self::TargetGroupBinding(object) => apply(snapshot, object),
        }
    }

    fn is_named(&self) -> bool {
        let name = match self {
            Self::Ingress(object) => object.name(),
            Self::IngressClass(object) => object.name(),
            Self::IngressClassParams(object) => object.name(),
            Self::Service(object) => object.name(),
            Self::EndpointSlice(object) => object.name(),
            Self::Pod(object) => object.name(),
            Self::Node(object) => object.name(),
            Self::Namespace(object) => object.name(),
            Self::TargetGroupBinding(object) => object.name(),
        };
        !name.name.is_empty()
    }
}

/// A kind that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ingress,
    IngressClass,
    IngressClassParams,
    Service,
    EndpointSlice,
    Pod,
    Node,
    Namespace,
    TargetGroupBinding,
}

/// What is known of the `apiVersion` and `kind` of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    Kept(Kind),
    /// Of a version that is not read; with what to do.
    Outdated(String),
    Other,
}

const INGRESS_OF_V1: &str = "write `networking.k8s.io/v1`, and in each backend `service: {name: …, port: {number: …}}` for `serviceName` and `servicePort` (`port: {name: …}` for a name such as `use-annotation`), `defaultBackend` for `backend`, and a `pathType` at each path";

impl Known {
    pub(super) fn of(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let outdated = |fix: &str| {
            Self::Outdated(format!("`{api_version}` of {kind} has been served by no Kubernetes since 1.22; {fix}"))
        };
        match (group, kind) {
            ("networking.k8s.io" | "extensions", "Ingress") if api_version != "networking.k8s.io/v1" => {
                outdated(INGRESS_OF_V1)
            }
            ("networking.k8s.io", "IngressClass") if version != "v1" => {
                outdated("write `networking.k8s.io/v1`; nothing else changes")
            }
            ("", "Ingress" | "IngressClass") if version.is_empty() => {
                Self::Outdated("it has no `apiVersion`; write `networking.k8s.io/v1`".to_owned())
            }
            ("", "Ingress" | "IngressClass") => {
                Self::Outdated(format!("there is no {kind} of `{api_version}`; write `networking.k8s.io/v1`"))
            }
            ("", "Service" | "Namespace" | "Node" | "Pod") if version != "v1" => {
                let what = if version.is_empty() {
                    "it has no `apiVersion`".to_owned()
                } else {
                    format!("there is no {kind} of `{api_version}`")
                };
                Self::Outdated(format!("{what}; write `v1`"))
            }
            ("networking.k8s.io", "Ingress") => Self::Kept(Kind::Ingress),
            ("networking.k8s.io", "IngressClass") => Self::Kept(Kind::IngressClass),
            ("", "Service") => Self::Kept(Kind::Service),
            ("discovery.k8s.io", "EndpointSlice") => Self::Kept(Kind::EndpointSlice),
            ("", "Pod") => Self::Kept(Kind::Pod),
            ("", "Node") => Self::Kept(Kind::Node),
            ("", "Namespace") => Self::Kept(Kind::Namespace),
            (crd::GROUP, "IngressClassParams") => Self::Kept(Kind::IngressClassParams),
            (crd::GROUP, "TargetGroupBinding") => Self::Kept(Kind::TargetGroupBinding),
            _ => Self::Other,
        }
    }
}

impl Kind {
    /// Reads an object of this kind.
    pub(super) fn read_node(self, node: &Node) -> Result<Object, Misfit> {
        let object = self.read(node)?;
        if object.is_named() {
            return Ok(object);
        }
        let line = node.get("metadata").unwrap_or(node).line;
        Err(Misfit { path: String::new(), line, message: "it has no `metadata.name`".to_owned() })
    }

    /// Reads an object of this kind; `None` where it does not fit.
    pub(super) fn read_json(self, text: &str) -> Option<Object> {
        self.read(&mut serde_json::Deserializer::from_str(text)).ok().filter(Object::is_named)
    }

    fn read<'de, D: Deserializer<'de>>(self, from: D) -> Result<Object, D::Error> {
        Ok(match self {
            Self::Ingress => Object::Ingress(namespaced::<wire::Ingress, D>(from)?.into()),
            Self::IngressClass => Object::IngressClass(of_cluster::<wire::IngressClass, D>(from)?.into()),
            Self::IngressClassParams => {
                Object::IngressClassParams(of_cluster::<crd::IngressClassParams, D>(from)?.into())
            }
            Self::Service => Object::Service(namespaced::<wire::Service, D>(from)?.into()),
            Self::EndpointSlice => Object::EndpointSlice(namespaced::<wire::EndpointSlice, D>(from)?.into()),
            Self::Pod => Object::Pod(namespaced::<wire::Pod, D>(from)?.into()),
            Self::Node => Object::Node(of_cluster::<wire::Node, D>(from)?.into()),
            Self::Namespace => Object::Namespace(of_cluster::<wire::Namespace, D>(from)?.into()),
            Self::TargetGroupBinding => {
                Object::TargetGroupBinding(namespaced::<crd::TargetGroupBinding, D>(from)?.into())
            }
        })
    }
}

/// An object without a namespace is in `default`, as for `kubectl`.
fn namespaced<'de, W: DeserializeOwned + Resource, D: Deserializer<'de>>(from: D) -> Result<W, D::Error> {
    let mut object = W::deserialize(from)?;
    let namespace = &mut object.meta_mut().namespace;
    if namespace.as_deref().unwrap_or_default().is_empty() {
        *namespace = Some("default".to_owned());
    }
    Ok(object)
}

/// A namespace that is written in an object of the cluster's means nothing.
fn of_cluster<'de, W: DeserializeOwned + Resource, D: Deserializer<'de>>(from: D) -> Result<W, D::Error> {
    let mut object = W::deserialize(from)?;
    object.meta_mut().namespace = None;
    Ok(object)
}
