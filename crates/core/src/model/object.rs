//! Kubernetes objects as causes and in messages.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ObjectName;

/// The kinds of Kubernetes object that cause something in AWS, or get a message.
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
    /// The kind as manifests write it.
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

/// A Kubernetes object, as messages name it. A cluster-scoped one has an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectReference {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace and name.
    pub name: ObjectName,
}

impl ObjectReference {
    /// Names an Ingress.
    #[must_use]
    pub fn ingress(name: &ObjectName) -> Self {
        Self { kind: ObjectKind::Ingress, name: name.clone() }
    }

    /// Returns the name of an Ingress, and `None` for all other kinds.
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

    /// Names an IngressClassParams.
    #[must_use]
    pub fn ingress_class_params(name: &ObjectName) -> Self {
        Self { kind: ObjectKind::IngressClassParams, name: name.clone() }
    }

    /// Names a Service.
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

/// The reason why a thing is as it is: the object, its generation and the field that asks for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Cause {
    /// The object.
    pub object: ObjectReference,
    /// `metadata.generation`; 0 where it is not known (files).
    pub generation: i64,
    /// Field path or annotation key.
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

/// The form in which records hold the owner of a resource: its name, and its kind unless it is an Ingress. Records that
/// knew no kinds have that form.
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
