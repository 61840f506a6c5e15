//! The kinds of objects that are read, kinds of a version that Kubernetes no longer serves, and kinds that are skipped.

use std::fmt::Display;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use serde::{Deserializer, de::DeserializeOwned};

use super::{node::Node, typed::TypeMismatch};
use crate::{
    api::{crd, kubernetes as wire},
    model::ObjectName,
    snapshot::{
        EndpointSlice, Ingress, IngressClass, IngressClassParams, Namespace, Node as KubernetesNode, Pod, Service,
        Snapshot, SnapshotObject, TargetGroupBinding,
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
    /// Puts it into the snapshot, and returns true if it has replaced an object with other content.
    pub(super) fn keep(self, snapshot: &mut Snapshot) -> bool {
        fn apply<T: SnapshotObject>(snapshot: &mut Snapshot, object: T) -> bool {
            snapshot.apply(object).is_some_and(|change| change.before.is_some())
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

    /// Returns its kind, as manifests write it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Ingress(_) => "Ingress",
            Self::IngressClass(_) => "IngressClass",
            Self::IngressClassParams(_) => "IngressClassParams",
            Self::Service(_) => "Service",
            Self::EndpointSlice(_) => "EndpointSlice",
            Self::Pod(_) => "Pod",
            Self::Node(_) => "Node",
            Self::Namespace(_) => "Namespace",
            Self::TargetGroupBinding(_) => "TargetGroupBinding",
        }
    }

    pub(super) fn name(&self) -> &ObjectName {
        match self {
            Self::Ingress(object) => object.name(),
            Self::IngressClass(object) => object.name(),
            Self::IngressClassParams(object) => object.name(),
            Self::Service(object) => object.name(),
            Self::EndpointSlice(object) => object.name(),
            Self::Pod(object) => object.name(),
            Self::Node(object) => object.name(),
            Self::Namespace(object) => object.name(),
            Self::TargetGroupBinding(object) => object.name(),
        }
    }

    fn is_named(&self) -> bool {
        !self.name().name.is_empty()
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

/// The result of looking up an object's `apiVersion` and `kind`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    Supported(Kind),
    /// A version that is not read; with the fix.
    Outdated(String),
    Other,
}

const INGRESS_OF_V1: &str = "write `networking.k8s.io/v1`, and in each backend `service: {name: …, port: {number: …}}` instead of `serviceName` and `servicePort` (`port: {name: …}` for a name such as `use-annotation`), `defaultBackend` for `backend`, and a `pathType` at each path";

impl Known {
    pub(super) fn of(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let outdated = |fix: &str| {
            Self::Outdated(format!("`{api_version}` of {kind} has not been served by Kubernetes since 1.22; {fix}"))
        };
        match (group, kind) {
            ("networking.k8s.io" | "extensions", "Ingress") if version == "v1beta1" => outdated(INGRESS_OF_V1),
            ("networking.k8s.io", "IngressClass") if version == "v1beta1" => {
                outdated("write `networking.k8s.io/v1`; nothing else changes")
            }
            ("networking.k8s.io" | "extensions", "Ingress") | ("networking.k8s.io", "IngressClass")
                if api_version != "networking.k8s.io/v1" =>
            {
                Self::Outdated(format!("there is no {kind} of `{api_version}`; write `networking.k8s.io/v1`"))
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
            ("networking.k8s.io", "Ingress") => Self::Supported(Kind::Ingress),
            ("networking.k8s.io", "IngressClass") => Self::Supported(Kind::IngressClass),
            ("", "Service") => Self::Supported(Kind::Service),
            ("discovery.k8s.io", "EndpointSlice") => Self::Supported(Kind::EndpointSlice),
            ("", "Pod") => Self::Supported(Kind::Pod),
            ("", "Node") => Self::Supported(Kind::Node),
            ("", "Namespace") => Self::Supported(Kind::Namespace),
            (crd::GROUP, "IngressClassParams") => Self::Supported(Kind::IngressClassParams),
            (crd::GROUP, "TargetGroupBinding") => Self::Supported(Kind::TargetGroupBinding),
            _ => Self::Other,
        }
    }
}

impl Kind {
    /// Reads an object of this kind.
    pub(super) fn read_node(self, node: &Node) -> Result<Object, TypeMismatch> {
        let (object, wrong_port) = self.read(node)?;
        if !object.is_named() {
            let line = node.get("metadata").unwrap_or(node).line;
            let message = "it is missing; write a name".to_owned();
            return Err(TypeMismatch { path: "metadata.name".to_owned(), line, message });
        }
        wrong_port.map_or(Ok(object), |wrong| Err(wrong.type_mismatch(node)))
    }

    /// Reads an object of this kind; `None` where it does not fit.
    pub(super) fn read_json(self, text: &str) -> Option<Object> {
        let (object, wrong_port) = self.read(&mut serde_json::Deserializer::from_str(text)).ok()?;
        (object.is_named() && wrong_port.is_none()).then_some(object)
    }

    fn read<'de, D: Deserializer<'de>>(self, from: D) -> Result<(Object, Option<WrongPort>), D::Error> {
        let mut wrong_port = None;
        let object = match self {
            Self::Ingress => Object::Ingress(namespaced::<wire::Ingress, D>(from)?.into()),
            Self::IngressClass => Object::IngressClass(of_cluster::<wire::IngressClass, D>(from)?.into()),
            Self::IngressClassParams => {
                Object::IngressClassParams(of_cluster::<crd::IngressClassParams, D>(from)?.into())
            }
            Self::Service => {
                let service = namespaced::<wire::Service, D>(from)?;
                wrong_port = WrongPort::first(&service.spec);
                Object::Service(service.into())
            }
            Self::EndpointSlice => Object::EndpointSlice(namespaced::<wire::EndpointSlice, D>(from)?.into()),
            Self::Pod => Object::Pod(namespaced::<wire::Pod, D>(from)?.into()),
            Self::Node => Object::Node(of_cluster::<wire::Node, D>(from)?.into()),
            Self::Namespace => Object::Namespace(of_cluster::<wire::Namespace, D>(from)?.into()),
            Self::TargetGroupBinding => {
                Object::TargetGroupBinding(namespaced::<crd::TargetGroupBinding, D>(from)?.into())
            }
        };
        Ok((object, wrong_port))
    }
}

/// A port of a Service that no API server takes.
struct WrongPort {
    /// Its index in `spec.ports`; `None` of a port of the Service as a whole.
    index: Option<usize>,
    key: &'static str,
    message: String,
}

impl WrongPort {
    fn first(spec: &wire::ServiceSpec) -> Option<Self> {
        let valid = |number: i32| u16::try_from(number).is_ok_and(|number| number > 0);
        let wrong = |index, key, port: &dyn Display, fix: &str| Self {
            index,
            key,
            message: format!("{port} is not a valid port; {fix}"),
        };
        // The API server takes 0 for none.
        let wrong_node_port = |index, key, number: Option<i32>| {
            let number = number.filter(|number| *number != 0 && !valid(*number))?;
            Some(wrong(index, key, &number, "write 1 to 65535, or leave it out"))
        };
        let of_ports = spec.ports.iter().enumerate().find_map(|(index, port)| {
            let index = Some(index);
            if !valid(port.port) {
                return Some(wrong(index, "port", &port.port, "write 1 to 65535"));
            }
            let target = match &port.target_port {
                Some(IntOrString::Int(number)) if *number != 0 && !valid(*number) => Some(number.to_string()),
                Some(IntOrString::String(text))
                    if !text.is_empty()
                        && !text.contains(|c: char| c.is_ascii_alphabetic())
                        && !text.parse().is_ok_and(valid) =>
                {
                    Some(format!("`{text}`"))
                }
                _ => None,
            };
            match target {
                Some(target) => {
                    Some(wrong(index, "targetPort", &target, "write 1 to 65535, or the name of a port of the pods"))
                }
                None => wrong_node_port(index, "nodePort", port.node_port),
            }
        });
        of_ports.or_else(|| wrong_node_port(None, "healthCheckNodePort", spec.health_check_node_port))
    }

    fn type_mismatch(self, node: &Node) -> TypeMismatch {
        let Self { index, key, message } = self;
        let spec = node.get("spec").unwrap_or(node);
        let (holder, path) = match index {
            Some(index) => {
                let item = spec.get("ports").and_then(|ports| ports.item(index));
                (item.unwrap_or(spec), format!("spec.ports[{index}].{key}"))
            }
            None => (spec, format!("spec.{key}")),
        };
        match holder.get(key) {
            Some(value) => TypeMismatch { path, line: value.line, message },
            None => TypeMismatch { path, line: holder.line, message: "it is missing; write 1 to 65535".to_owned() },
        }
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
