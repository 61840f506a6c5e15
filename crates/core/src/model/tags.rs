//! The keys of the tags that name the owner of a resource, the same as those of aws-load-balancer-controller.
//! [`StackId`] writes and reads their values.

use super::{ResourceId, StackId, Tags};

/// The cluster's name, on every AWS resource.
pub const CLUSTER: &str = "elbv2.k8s.aws/cluster";
/// The group, on every resource of an Ingress group.
pub const INGRESS_STACK: &str = "ingress.k8s.aws/stack";
/// The id of the resource within its stack, on every resource of an Ingress group.
pub const INGRESS_RESOURCE: &str = "ingress.k8s.aws/resource";
/// The Service, on every resource of a Service with its own load balancer.
pub const SERVICE_STACK: &str = "service.k8s.aws/stack";
/// The id of the resource within its stack, on every resource of a Service with its own load balancer.
pub const SERVICE_RESOURCE: &str = "service.k8s.aws/resource";
/// The kind of shared resource, on the shared backend security group, which belongs to no stack.
pub const SHARED_RESOURCE: &str = "elbv2.k8s.aws/resource";
/// The value of [`SHARED_RESOURCE`] on the shared backend security group.
pub const BACKEND_GROUP: &str = "backend-sg";

const GATEWAY_NLB_STACK: &str = "gateway.k8s.aws.nlb/stack";
const GATEWAY_ALB_STACK: &str = "gateway.k8s.aws.alb/stack";

/// The keys that name the stack of a resource, including those of stacks that this controller does not build.
const STACKS: [&str; 4] = [INGRESS_STACK, SERVICE_STACK, GATEWAY_ALB_STACK, GATEWAY_NLB_STACK];

/// The keys that user tags cannot have.
pub const TRACKING: [&str; 10] = [
    CLUSTER,
    SHARED_RESOURCE,
    INGRESS_STACK,
    INGRESS_RESOURCE,
    SERVICE_STACK,
    SERVICE_RESOURCE,
    GATEWAY_NLB_STACK,
    "gateway.k8s.aws.nlb/resource",
    GATEWAY_ALB_STACK,
    "gateway.k8s.aws.alb/resource",
];

/// The keys that earlier versions of aws-load-balancer-controller and the in-tree controller set and that the controller
/// removes only if a record says that it has set them, in addition to the keys that begin with [`CLUSTER_PREFIX`].
const LEGACY: [&str; 6] = [
    "kubernetes.io/cluster-name",
    "kubernetes.io/namespace",
    "kubernetes.io/ingress-name",
    "kubernetes.io/service-name",
    "kubernetes.io/service-port",
    "ingress.k8s.aws/cluster",
];
const CLUSTER_PREFIX: &str = "kubernetes.io/cluster/";

/// Returns true if the key belongs to an earlier controller.
#[must_use]
pub fn is_of_legacy(key: &str) -> bool {
    LEGACY.contains(&key) || key.starts_with(CLUSTER_PREFIX)
}

/// The finalizer of a TargetGroupBinding, held until its targets are deregistered.
pub const BINDING_FINALIZER: &str = "elbv2.k8s.aws/resources";
/// The finalizer of a Service with its own load balancer.
pub const SERVICE_FINALIZER: &str = "service.k8s.aws/resources";

/// Returns the stack that a target group with these tags was created for, and the namespace of its TargetGroupBinding;
/// `None` unless a controller of this cluster created the target group for a stack.
#[must_use]
pub fn made_for(cluster: &str, tags: &Tags) -> Option<(StackId, String)> {
    let stack = StackId::of_tags(tags).filter(|_| tags.get(CLUSTER).is_some_and(|of| of == cluster))?;
    Some((stack, resource_of(tags)?.namespace()?.to_owned()))
}

/// Returns true if the tags are those of a certificate that was requested for Ingresses, of whatever cluster: it belongs to them,
/// and is not found by host name.
#[must_use]
pub fn is_requested_certificate(tags: &Tags) -> bool {
    tags.contains_key(CLUSTER) && tags.contains_key(INGRESS_STACK)
}

/// Returns the id of a resource within its stack, from its tags.
#[must_use]
pub fn resource_of(tags: &Tags) -> Option<ResourceId> {
    tags.get(INGRESS_RESOURCE).or_else(|| tags.get(SERVICE_RESOURCE)).map(ResourceId::of_tag)
}

/// Returns the name of the stack from tags, including stacks of other controllers of the same family.
#[must_use]
pub fn stack_name(tags: &Tags) -> Option<&String> {
    STACKS.iter().find_map(|key| tags.get(*key))
}

/// Returns the tags of the shared backend security group.
#[must_use]
pub fn of_backend_group(cluster: &str, default: &Tags) -> Tags {
    let mut tags = default.clone();
    tags.insert(CLUSTER.to_owned(), cluster.to_owned());
    tags.insert(SHARED_RESOURCE.to_owned(), BACKEND_GROUP.to_owned());
    tags
}
