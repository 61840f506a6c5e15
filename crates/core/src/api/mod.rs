//! The input of users: the Kubernetes types that are read, the custom resources, and the registry of annotations.

pub mod admission;
pub mod annotations;
pub mod crd;
pub mod kubernetes;
pub mod readiness;
pub mod selector;
