//! The custom resources of the group `elbv2.k8s.aws`, as Rust types and as CustomResourceDefinitions.
//!
//! Their schemas accept every object that aws-load-balancer-controller's own definitions (v3.5.0) accept, so that
//! objects already stored in a cluster stay valid. What goes beyond a schema is checked where the objects are used.

// The derive copies the struct into a function.
#[allow(unreachable_pub)]
pub mod ingress_class_params;
pub mod target_group_binding;
pub mod yaml;

use std::collections::BTreeMap;

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray,
        JSONSchemaPropsOrBool,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::CustomResourceExt;
use serde::Serialize;

pub use ingress_class_params::{IngressClassParams, IngressClassParamsSpec};
pub use target_group_binding::{
    IpAddressType, IpBlock, Networking, NetworkingIngressRule, NetworkingPort, NetworkingProtocol, Peer, SecurityGroup,
    ServiceReference, TargetGroupBinding, TargetGroupBindingSpec, TargetGroupBindingStatus, TargetGroupProtocol,
    TargetType,
};

use ingress_class_params::IngressClassParamsDefinition;
use target_group_binding::TargetGroupBindingDefinition;

/// The API group of the custom resources.
pub const GROUP: &str = "elbv2.k8s.aws";

/// The `apiVersion` in which the controller reads and writes the custom resources.
const API_VERSION: &str = "elbv2.k8s.aws/v1beta1";

/// A custom resource as it is written: with `apiVersion` and `kind`, and without a status that it does not have.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a, Spec, Status> {
    api_version: &'static str,
    kind: &'static str,
    metadata: &'a ObjectMeta,
    spec: &'a Spec,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a Status>,
}

/// All CustomResourceDefinitions, in the order of their names.
///
/// TargetGroupBinding is stored as `v1beta1` and also served as `v1alpha1`. The versions share one schema and no
/// conversion: a narrower `v1alpha1` would drop fields from an object that is read and written back through it.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut definitions =
        vec![IngressClassParamsDefinition::crd(), with_older_version(TargetGroupBindingDefinition::crd(), "v1alpha1")];
    definitions.iter_mut().flat_map(|definition| &mut definition.spec.versions).for_each(tidy);
    definitions
}

fn with_older_version(mut definition: CustomResourceDefinition, name: &str) -> CustomResourceDefinition {
    let older: Vec<_> = definition
        .spec
        .versions
        .iter()
        .map(|version| CustomResourceDefinitionVersion { name: name.to_owned(), storage: false, ..version.clone() })
        .collect();
    definition.spec.versions.extend(older);
    definition
}

/// Changes the schema that kube derives to the form of LBC's: `spec` may be missing (an IngressClassParams with nothing
/// but a name is valid), and fields are left out, not null.
fn tidy(version: &mut CustomResourceDefinitionVersion) {
    if let Some(schema) = version.schema.as_mut().and_then(|validation| validation.open_api_v3_schema.as_mut()) {
        schema.required = None;
        schema.title = None;
        tidy_schema(schema);
    }
}

fn tidy_schema(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    // Doc comments are wrapped for the source, not for `kubectl explain`.
    if let Some(description) = &mut schema.description {
        *description = description.replace('\n', " ");
    }
    for property in schema.properties.iter_mut().flat_map(BTreeMap::values_mut) {
        tidy_schema(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy_schema(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy_schema(values);
    }
}

#[cfg(test)]
mod tests;
