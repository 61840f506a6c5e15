//! The keys of the tags that name the owner of a resource, exactly those of aws-load-balancer-controller.
//! [`StackId`] makes and reads their values.

use super::{ResourceId, StackId, Tags};

/// On every AWS resource: the cluster's name.
pub const CLUSTER: &str = "elbv2.k8s.aws/cluster";
/// On every resource of an Ingress group: the group.
pub const INGRESS_STACK: &str = "ingress.k8s.aws/stack";
/// On every resource of an Ingress group: which of its resources.
pub const INGRESS_RESOURCE: &str = "ingress.k8s.aws/resource";
/// On every resource of a Service with a load balancer of its own: the Service.
pub const SERVICE_STACK: &str = "service.k8s.aws/stack";
/// On every resource of such a Service: which of its resources.
pub const SERVICE_RESOURCE: &str = "service.k8s.aws/resource";
/// On the shared backend security group, which belongs to no stack.
pub const SHARED_RESOURCE: &str = "elbv2.k8s.aws/resource";
/// The value of [`SHARED_RESOURCE`] there.
pub const BACKEND_GROUP: &str = "backend-sg";

const GATEWAY_NLB_STACK: &str = "gateway.k8s.aws.nlb/stack";
const GATEWAY_ALB_STACK: &str = "gateway.k8s.aws.alb/stack";

/// The keys that name the stack of a resource, those of stacks that are not built here among them.
const STACKS: [&str; 4] = [INGRESS_STACK, SERVICE_STACK, GATEWAY_ALB_STACK, GATEWAY_NLB_STACK];

/// Keys that no user's tag may have.
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

/// Keys that earlier versions of aws-load-balancer-controller and the in-tree controller set, which it never removes; beside
/// them those that begin with [`CLUSTER_PREFIX`].
const LEGACY: [&str; 6] = [
    "kubernetes.io/cluster-name",
    "kubernetes.io/namespace",
    "kubernetes.io/ingress-name",
    "kubernetes.io/service-name",
    "kubernetes.io/service-port",
    "ingress.k8s.aws/cluster",
];
const CLUSTER_PREFIX: &str = "kubernetes.io/cluster/";

/// Returns true if the key is one of an earlier controller's.
#[must_use]
pub fn is_of_legacy(key: &str) -> bool {
    LEGACY.contains(&key) || key.starts_with(CLUSTER_PREFIX)
}

/// On a TargetGroupBinding: finalizer until its targets are deregistered.
pub const BINDING_FINALIZER: &str = "elbv2.k8s.aws/resources";
/// On a Service with a load balancer of its own.
pub const SERVICE_FINALIZER: &str = "service.k8s.aws/resources";

/// Returns the stack that a target group with these tags was made for, and the namespace of its TargetGroupBinding; `None`
/// where this cluster's controllers did not make the group for a stack.
#[must_use]
pub fn made_for(cluster: &str, tags: &Tags) -> Option<(StackId, String)> {
    let stack = StackId::of_tags(tags).filter(|_| tags.get(CLUSTER).is_some_and(|of| of == cluster))?;
    Some((stack, resource_of(tags)?.namespace()?.to_owned()))
}

/// Returns which resource of its stack it is, by its tags.
#[must_use]
pub fn resource_of(tags: &Tags) -> Option<ResourceId> {
    tags.get(INGRESS_RESOURCE).or_else(|| tags.get(SERVICE_RESOURCE)).map(ResourceId::of_tag)
}

/// Returns the name of the stack in tags, also of one that another controller of the same family has made.
#[must_use]
pub fn stack_name(tags: &Tags) -> Option<&String> {
    STACKS.iter().find_map(|key| tags.get(*key))
}

/// The tags of the shared backend security group.
#[must_use]
pub fn of_backend_group(cluster: &str, default: &Tags) -> Tags {
    let mut tags = default.clone();
    tags.insert(CLUSTER.to_owned(), cluster.to_owned());
    tags.insert(SHARED_RESOURCE.to_owned(), BACKEND_GROUP.to_owned());
    tags
}
