//! The tags, labels and finalizers that name the owner of a resource, exactly those of aws-load-balancer-controller.

use std::collections::BTreeMap;

use crate::model::{ObjectName, ResourceId, StackId, Tags};

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

/// Keys that no user's tag may have.
pub const TRACKING: [&str; 10] = [
    CLUSTER,
    SHARED_RESOURCE,
    INGRESS_STACK,
    INGRESS_RESOURCE,
    SERVICE_STACK,
    SERVICE_RESOURCE,
    "gateway.k8s.aws.nlb/stack",
    "gateway.k8s.aws.nlb/resource",
    "gateway.k8s.aws.alb/stack",
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

/// Returns whether the key is one of an earlier controller's.
#[must_use]
pub fn is_of_legacy(key: &str) -> bool {
    LEGACY.contains(&key) || key.starts_with(CLUSTER_PREFIX)
}

/// The resource id of the load balancer.
pub const LOAD_BALANCER: &str = "LoadBalancer";
/// The resource id of the security group in front.
pub const MANAGED_SECURITY_GROUP: &str = "ManagedLBSecurityGroup";

/// On a TargetGroupBinding: finalizer until its targets are deregistered.
pub const BINDING_FINALIZER: &str = "elbv2.k8s.aws/resources";
/// On a Service with a load balancer of its own.
pub const SERVICE_FINALIZER: &str = "service.k8s.aws/resources";
const IMPLICIT_FINALIZER: &str = "ingress.k8s.aws/resources";
const EXPLICIT_FINALIZER: &str = "group.ingress.k8s.aws/";

/// The finalizer that keeps a member until its stack has released it.
#[must_use]
pub fn finalizer(stack: &StackId) -> String {
    match stack {
        StackId::Group(name) => format!("{EXPLICIT_FINALIZER}{name}"),
        StackId::Ingress(_) => IMPLICIT_FINALIZER.to_owned(),
        StackId::Service(_) => SERVICE_FINALIZER.to_owned(),
    }
}

/// The stack that tags name, of whatever cluster.
#[must_use]
pub fn stack_of(tags: &Tags) -> Option<StackId> {
    match (tags.get(INGRESS_STACK), tags.get(SERVICE_STACK)) {
        (Some(stack), _) => Some(StackId::of_ingress_tag(stack)),
        (None, Some(stack)) => StackId::of_service_tag(stack),
        (None, None) => None,
    }
}

/// Returns the stack that a target group with these tags was made for, and the namespace of its TargetGroupBinding; `None`
/// where this cluster's controllers did not make the group for a stack.
#[must_use]
pub fn made_for(cluster: &str, tags: &Tags) -> Option<(StackId, String)> {
    let stack = stack_of(tags).filter(|_| tags.get(CLUSTER).is_some_and(|of| of == cluster))?;
    Some((stack, home_of(tags)?.to_owned()))
}

/// Returns the namespace of the TargetGroupBinding of a target group with these tags: resources are named after the Ingress
/// or Service, in whose namespace the binding is.
#[must_use]
pub fn home_of(tags: &Tags) -> Option<&str> {
    resource_of(tags)?.split_once('/').map(|(namespace, _)| namespace)
}

/// Returns the resource's id within its stack, by its tags.
#[must_use]
pub fn resource_of(tags: &Tags) -> Option<&String> {
    tags.get(INGRESS_RESOURCE).or_else(|| tags.get(SERVICE_RESOURCE))
}

/// The key of the tag that says which stack.
#[must_use]
pub fn stack_key(stack: &StackId) -> &'static str {
    match stack {
        StackId::Group(_) | StackId::Ingress(_) => INGRESS_STACK,
        StackId::Service(_) => SERVICE_STACK,
    }
}

/// The key of the tag that says which resource of its stack.
#[must_use]
pub fn resource_key(stack: &StackId) -> &'static str {
    match stack {
        StackId::Group(_) | StackId::Ingress(_) => INGRESS_RESOURCE,
        StackId::Service(_) => SERVICE_RESOURCE,
    }
}

/// Returns true if a finalizer of an Ingress is one of [`finalizer`]'s.
#[must_use]
pub fn is_ingress_finalizer(finalizer: &str) -> bool {
    finalizer == IMPLICIT_FINALIZER || finalizer.starts_with(EXPLICIT_FINALIZER)
}

/// The labels of a TargetGroupBinding of a stack.
#[must_use]
pub fn binding_labels(stack: &StackId) -> BTreeMap<String, String> {
    match stack {
        StackId::Group(name) => BTreeMap::from([(INGRESS_STACK.to_owned(), name.clone())]),
        StackId::Ingress(name) => BTreeMap::from([
            ("ingress.k8s.aws/stack-namespace".to_owned(), name.namespace.clone()),
            ("ingress.k8s.aws/stack-name".to_owned(), name.name.clone()),
        ]),
        StackId::Service(name) => BTreeMap::from([
            ("service.k8s.aws/stack-namespace".to_owned(), name.namespace.clone()),
            ("service.k8s.aws/stack-name".to_owned(), name.name.clone()),
        ]),
    }
}

/// Returns the stack whose labels an object carries. Any user can write labels.
#[must_use]
pub fn stack_of_labels(labels: &BTreeMap<String, String>) -> Option<StackId> {
    let label = |key: &str| labels.get(key).cloned();
    let named = |prefix: &str| {
        Some(ObjectName::new(label(&format!("{prefix}/stack-namespace"))?, label(&format!("{prefix}/stack-name"))?))
    };
    named("ingress.k8s.aws")
        .map(StackId::Ingress)
        .or_else(|| label(INGRESS_STACK).map(StackId::Group))
        .or_else(|| named("service.k8s.aws").map(StackId::Service))
}

/// Returns whether labels are, among others, those of a TargetGroupBinding of a stack.
#[must_use]
pub fn has_labels_of(labels: &BTreeMap<String, String>, stack: &StackId) -> bool {
    binding_labels(stack).iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// All tags of a resource: tracking tags win over default tags, those over the user's (`user` is merged already).
#[must_use]
pub fn of_resource(cluster: &str, stack: &StackId, resource: &ResourceId, default: &Tags, user: &Tags) -> Tags {
    let mut tags = of_rule(cluster, stack, default, user);
    tags.insert(resource_key(stack).to_owned(), resource.0.clone());
    tags
}

/// The tags of a rule, as [`of_resource`] but without the one that would repeat its priority.
#[must_use]
pub fn of_rule(cluster: &str, stack: &StackId, default: &Tags, user: &Tags) -> Tags {
    let mut tags = user.clone();
    tags.extend(default.clone());
    tags.insert(CLUSTER.to_owned(), cluster.to_owned());
    tags.insert(stack_key(stack).to_owned(), stack.to_string());
    tags
}

/// The tags of the shared backend security group.
#[must_use]
pub fn of_backend_group(cluster: &str, default: &Tags) -> Tags {
    let mut tags = default.clone();
    tags.insert(CLUSTER.to_owned(), cluster.to_owned());
    tags.insert(SHARED_RESOURCE.to_owned(), BACKEND_GROUP.to_owned());
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn tracking_tags_win_over_default_tags_and_those_over_the_users() {
        let group = StackId::Ingress(ObjectName::new("shop", "web"));
        assert_eq!(
            of_resource(
                "demo",
                &group,
                &ResourceId("443".into()),
                &tags(&[("Owner", "platform"), (CLUSTER, "other")]),
                &tags(&[("Owner", "team"), ("Cost", "1"), (INGRESS_STACK, "x")]),
            ),
            tags(&[
                ("Cost", "1"),
                ("Owner", "platform"),
                (CLUSTER, "demo"),
                (INGRESS_RESOURCE, "443"),
                (INGRESS_STACK, "shop/web"),
            ])
        );
    }

    #[test]
    fn finalizers_and_labels_tell_explicit_groups_from_implicit_ones() {
        let explicit = StackId::Group("edge".into());
        let implicit = StackId::Ingress(ObjectName::new("shop", "web"));
        assert_eq!(finalizer(&explicit), "group.ingress.k8s.aws/edge");
        assert_eq!(finalizer(&implicit), "ingress.k8s.aws/resources");
        assert_eq!(binding_labels(&explicit), tags(&[(INGRESS_STACK, "edge")]));
        assert_eq!(
            binding_labels(&implicit),
            tags(&[("ingress.k8s.aws/stack-name", "web"), ("ingress.k8s.aws/stack-namespace", "shop")])
        );
        assert_eq!(StackId::of_ingress_tag("shop/web"), implicit);
        assert_eq!(StackId::of_ingress_tag("edge"), explicit);
    }
}
