//! References to Kubernetes objects, as causes and in messages.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ObjectName;

/// The kinds of Kubernetes object that cause AWS resources or receive messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectKind {
    /// `networking.k8s.io/v1` Ingress
    Ingress,
    /// `networking.k8s.io/v1` IngressClass
    IngressClass,
    /// `elbv2.k8s.aws/v1beta1` IngressClassParams
    IngressClassParams,
    /// `v1` Service
    Service,
    /// `elbv2.k8s.aws/v1beta1` TargetGroupBinding
    TargetGroupBinding,
}

impl ObjectKind {
    /// Returns the kind as manifests write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::IngressClass => "IngressClass",
            Self::IngressClassParams => "IngressClassParams",
            Self::Service => "Service",
            Self::TargetGroupBinding => "TargetGroupBinding",
        }
    }
}

/// A reference to a Kubernetes object. The namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectReference {
    /// The kind of the object.
    pub kind: ObjectKind,
    /// The namespace and name of the object.
    pub name: ObjectName,
}

impl ObjectReference {
    /// Returns a reference to an Ingress.
    #[must_use]
    pub fn ingress(name: &ObjectName) -> Self {
        Self { kind: ObjectKind::Ingress, name: name.clone() }
    }

    /// Returns the name of an Ingress; `None` for all other kinds.
    #[must_use]
    pub fn as_ingress(&self) -> Option<&ObjectName> {
        match self.kind {
            ObjectKind::Ingress => Some(&self.name),
            ObjectKind::IngressClass
            | ObjectKind::IngressClassParams
            | ObjectKind::Service
            | ObjectKind::TargetGroupBinding => None,
        }
    }

    /// Returns a reference to an IngressClassParams.
    #[must_use]
    pub fn ingress_class_params(name: &ObjectName) -> Self {
        Self { kind: ObjectKind::IngressClassParams, name: name.clone() }
    }

    /// Returns a reference to a Service.
    #[must_use]
    pub fn service(name: &ObjectName) -> Self {
        Self { kind: ObjectKind::Service, name: name.clone() }
    }
}

impl fmt::Display for ObjectReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.namespace.is_empty() {
            write!(f, "{} {}", self.kind.as_str(), self.name.name)
        } else {
            write!(f, "{} {}", self.kind.as_str(), self.name)
        }
    }
}

/// The cause of a resource or a setting: the object, its generation and the field that requests it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Cause {
    /// The object.
    pub object: ObjectReference,
    /// `metadata.generation`; 0 if it is unknown (objects from files).
    pub generation: i64,
    /// The field path or annotation key.
    pub field: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        if self.generation > 0 {
            write!(f, " generation {}", self.generation)?;
        }
        write!(f, ", {}", self.field)
    }
}

/// The serialised form of a resource's owner in records: its name, and its kind unless it is an Ingress. Records
/// written before kinds were stored have the same form.
pub(super) mod as_owner {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{ObjectKind, ObjectName, ObjectReference};

    #[derive(Serialize, Deserialize)]
    struct Written {
        #[serde(flatten)]
        name: ObjectName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kind: Option<ObjectKind>,
    }

    pub(in crate::model) fn serialize<S: Serializer>(owner: &ObjectReference, to: S) -> Result<S::Ok, S::Error> {
        let kind = Some(owner.kind).filter(|kind| *kind != ObjectKind::Ingress);
        Written { name: owner.name.clone(), kind }.serialize(to)
    }

    pub(in crate::model) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectReference, D::Error> {
        let Written { name, kind } = Written::deserialize(from)?;
        Ok(ObjectReference { kind: kind.unwrap_or(ObjectKind::Ingress), name })
    }
}
