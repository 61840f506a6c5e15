//! The id of a stack and of its resources. Tags, labels and finalizers with these ids are written and read here and in
//! [`super::tags`] only, exactly as aws-load-balancer-controller does.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{ObjectName, ObjectReference, PortReference, Tags, names, tags};

const IMPLICIT_FINALIZER: &str = "ingress.k8s.aws/resources";
const EXPLICIT_FINALIZER: &str = "group.ingress.k8s.aws/";

/// The id of the Network Load Balancer in front of an Application Load Balancer.
const FRONTEND: &str = "FrontendNlb";

/// The beginnings of the ids of requested certificates.
const PUBLIC_CERTIFICATE: &str = "amazon_issued/";
const PRIVATE_CERTIFICATE: &str = "private/";

/// The labels that name an Ingress that forms its own group: namespace and name.
const INGRESS_LABELS: [&str; 2] = ["ingress.k8s.aws/stack-namespace", "ingress.k8s.aws/stack-name"];
/// The labels that name a Service.
const SERVICE_LABELS: [&str; 2] = ["service.k8s.aws/stack-namespace", "service.k8s.aws/stack-name"];

/// The id of a stack: the Ingresses that share one load balancer (an explicit group by its name, or a single Ingress),
/// or a Service. Its text form is the value of the tags `ingress.k8s.aws/stack` and `service.k8s.aws/stack`, and an
/// input of the hashed names of an Ingress's resources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StackId {
    /// `alb.ingress.kubernetes.io/group.name`
    Group(String),
    /// An Ingress that forms its own group.
    Ingress(ObjectName),
    /// A Service with a load balancer.
    Service(ObjectName),
}

impl StackId {
    /// Returns the stack that a value of the tag `ingress.k8s.aws/stack` names.
    #[must_use]
    pub fn of_ingress_tag(text: &str) -> Self {
        match text.split_once('/') {
            Some((namespace, name)) => Self::Ingress(ObjectName::new(namespace, name)),
            None => Self::Group(text.to_owned()),
        }
    }

    /// Returns the stack that a value of the tag `service.k8s.aws/stack` names; `None` if it is not a valid name.
    #[must_use]
    pub fn of_service_tag(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        Some(Self::Service(ObjectName::new(namespace, name)))
    }

    /// Returns the owner of the stack for messages.
    #[must_use]
    pub fn object(&self) -> ObjectReference {
        match self {
            Self::Group(name) => ObjectReference::ingress(&ObjectName::new("", name)),
            Self::Ingress(name) => ObjectReference::ingress(name),
            Self::Service(name) => ObjectReference::service(name),
        }
    }

    /// Returns a member of the stack for messages.
    #[must_use]
    pub fn member(&self, name: &ObjectName) -> ObjectReference {
        ObjectReference { kind: self.object().kind, name: name.clone() }
    }

    /// Returns true if several objects can be members of the stack.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Group(_) => true,
            Self::Ingress(_) | Self::Service(_) => false,
        }
    }

    /// Returns the stack that tags name, in any cluster.
    #[must_use]
    pub fn of_tags(carried: &Tags) -> Option<Self> {
        match (carried.get(tags::INGRESS_STACK), carried.get(tags::SERVICE_STACK)) {
            (Some(stack), _) => Some(Self::of_ingress_tag(stack)),
            (None, Some(stack)) => Self::of_service_tag(stack),
            (None, None) => None,
        }
    }

    /// Returns the stack that an object's labels name. Any user can write labels.
    #[must_use]
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        let label = |key: &str| labels.get(key).cloned();
        let named = |[namespace, name]: [&str; 2]| Some(ObjectName::new(label(namespace)?, label(name)?));
        named(INGRESS_LABELS)
            .map(Self::Ingress)
            .or_else(|| label(tags::INGRESS_STACK).map(Self::Group))
            .or_else(|| named(SERVICE_LABELS).map(Self::Service))
    }

    /// Returns the explicit group that a finalizer of an Ingress belongs to.
    #[must_use]
    pub fn group_of_finalizer(finalizer: &str) -> Option<Self> {
        finalizer.strip_prefix(EXPLICIT_FINALIZER).map(|name| Self::Group(name.to_owned()))
    }

    /// Returns the finalizer that holds a member until its stack has released it.
    #[must_use]
    pub fn finalizer(&self) -> String {
        match self {
            Self::Group(name) => format!("{EXPLICIT_FINALIZER}{name}"),
            Self::Ingress(_) => IMPLICIT_FINALIZER.to_owned(),
            Self::Service(_) => tags::SERVICE_FINALIZER.to_owned(),
        }
    }

    /// Returns the key of the tag that names the stack.
    #[must_use]
    pub fn stack_key(&self) -> &'static str {
        match self {
            Self::Group(_) | Self::Ingress(_) => tags::INGRESS_STACK,
            Self::Service(_) => tags::SERVICE_STACK,
        }
    }

    /// Returns the key of the tag that names the resource within its stack.
    #[must_use]
    pub fn resource_key(&self) -> &'static str {
        match self {
            Self::Group(_) | Self::Ingress(_) => tags::INGRESS_RESOURCE,
            Self::Service(_) => tags::SERVICE_RESOURCE,
        }
    }

    /// Returns the labels of a TargetGroupBinding of the stack.
    #[must_use]
    pub fn binding_labels(&self) -> BTreeMap<String, String> {
        let named = |[namespace, name]: [&str; 2], object: &ObjectName| {
            [(namespace.to_owned(), object.namespace.clone()), (name.to_owned(), object.name.clone())].into()
        };
        match self {
            Self::Group(name) => [(tags::INGRESS_STACK.to_owned(), name.clone())].into(),
            Self::Ingress(name) => named(INGRESS_LABELS, name),
            Self::Service(name) => named(SERVICE_LABELS, name),
        }
    }

    /// Returns true if the labels include those of a TargetGroupBinding of the stack.
    #[must_use]
    pub fn is_named_by(&self, labels: &BTreeMap<String, String>) -> bool {
        self.binding_labels().iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Returns all tags of a resource: tracking tags win over default tags, and default tags over the user's (`user` is
    /// already merged).
    #[must_use]
    pub fn resource_tags(&self, cluster: &str, resource: &ResourceId, default: &Tags, user: &Tags) -> Tags {
        let mut all = self.rule_tags(cluster, default, user);
        all.extend([self.resource_tag(resource)]);
        all
    }

    /// Returns the tags of a rule, like [`Self::resource_tags`] but without the tag that would repeat its priority.
    #[must_use]
    pub fn rule_tags(&self, cluster: &str, default: &Tags, user: &Tags) -> Tags {
        let mut all = user.clone();
        all.extend(default.clone());
        all.insert(tags::CLUSTER.to_owned(), cluster.to_owned());
        all.insert(self.stack_key().to_owned(), self.to_string());
        all
    }

    /// Returns the tag that names the resource within the stack.
    #[must_use]
    pub fn resource_tag(&self, resource: &ResourceId) -> (String, String) {
        (self.resource_key().to_owned(), resource.0.clone())
    }
}

impl fmt::Display for StackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(name) => f.write_str(name),
            Self::Ingress(name) | Self::Service(name) => name.fmt(f),
        }
    }
}

/// The id of a resource within its stack: the value of the tag `ingress.k8s.aws/resource` or `service.k8s.aws/resource`
/// (`LoadBalancer`, `443`, `shop/web-api:80`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceId(pub(super) String);

impl ResourceId {
    /// Creates the id from the value of the tag.
    pub fn of_tag(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Returns the id of the load balancer.
    #[must_use]
    pub fn load_balancer() -> Self {
        Self("LoadBalancer".to_owned())
    }

    /// Returns the id of the front-end security group.
    #[must_use]
    pub fn managed_security_group() -> Self {
        Self("ManagedLBSecurityGroup".to_owned())
    }

    /// Returns the id of the listener on a port.
    #[must_use]
    pub fn listener(port: u16) -> Self {
        Self(port.to_string())
    }

    /// Returns the id of a rule of the listener on a port, by the priority that the rule is created with.
    #[must_use]
    pub fn rule(port: u16, priority: u32) -> Self {
        Self(format!("{port}:{priority}"))
    }

    /// Returns the id of the Network Load Balancer in front of an Application Load Balancer.
    #[must_use]
    pub fn frontend() -> Self {
        Self(FRONTEND.to_owned())
    }

    /// Returns the id of a listener of the Network Load Balancer in front, by its port.
    #[must_use]
    pub fn frontend_listener(port: u16) -> Self {
        Self(format!("{FRONTEND}-ls-TCP-{port}"))
    }

    /// Returns the id of the target group behind a listener of the Network Load Balancer in front, by its port.
    #[must_use]
    pub fn frontend_target_group(port: u16) -> Self {
        Self(format!("{FRONTEND}-tg-TCP-{port}"))
    }

    /// Returns true if the resource is the Network Load Balancer in front of another, or belongs to it.
    #[must_use]
    pub fn is_of_frontend(&self) -> bool {
        self.0.strip_prefix(FRONTEND).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// Returns the id of the target group that connects an Ingress to a Service, with the port as the Ingress writes
    /// it.
    #[must_use]
    pub fn ingress_target_group(ingress: &ObjectName, service: &str, port: &PortReference) -> Self {
        Self(format!("{ingress}-{service}:{port}"))
    }

    /// Returns the id of the target group for a port of a Service.
    #[must_use]
    pub fn service_target_group(service: &ObjectName, port: u16) -> Self {
        Self(format!("{service}:{port}"))
    }

    /// Returns the id of the certificate that is requested for an Ingress, by the first of its domain names.
    #[must_use]
    pub fn certificate(ingress: &ObjectName, domain: &str, is_private: bool) -> Self {
        let kind = if is_private { PRIVATE_CERTIFICATE } else { PUBLIC_CERTIFICATE };
        Self(format!("{kind}{}-{}", domain.replace('*', "wildcard"), names::short_hash(&ingress.to_string())))
    }

    /// Returns true if the resource is a certificate.
    #[must_use]
    pub fn is_certificate(&self) -> bool {
        // The id of a target group in a namespace `private` ends with a port.
        (self.0.starts_with(PRIVATE_CERTIFICATE) || self.0.starts_with(PUBLIC_CERTIFICATE)) && !self.0.contains(':')
    }

    /// Returns true if the resource is a certificate that was requested for the Ingress, whatever its host names were.
    #[must_use]
    pub fn is_certificate_of(&self, ingress: &ObjectName) -> bool {
        let owner = self.0.rsplit_once('-').map(|(_, hash)| hash);
        self.is_certificate() && owner == Some(names::short_hash(&ingress.to_string()).as_str())
    }

    /// Returns the value of the tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the namespace of a target group's TargetGroupBinding: the id of a target group begins with the Ingress
    /// or Service, in whose namespace the binding is. `None` for all other resources.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.split_once('/').map(|(namespace, _)| namespace)
    }

    /// Returns the Ingress whose target group for the Service has this id; `None` for all other ids.
    #[must_use]
    pub fn ingress(&self, service: &str) -> Option<ObjectReference> {
        let (of, _port) = self.0.rsplit_once(':')?;
        let (namespace, name) = of.strip_suffix(service)?.strip_suffix('-')?.split_once('/')?;
        Some(ObjectReference::ingress(&ObjectName::new(namespace, name)))
    }

    /// Returns true if a target group with this id may belong to the Ingress, and false for every other kind of owner.
    /// Without the Service's name, the target group may also belong to an Ingress with a longer name.
    #[must_use]
    pub fn may_be_of(&self, owner: &ObjectReference) -> bool {
        let rest = owner.as_ingress().and_then(|ingress| self.0.strip_prefix(&ingress.to_string()));
        rest.is_some_and(|rest| rest.starts_with('-'))
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns true if a finalizer of an Ingress belongs to a group.
#[must_use]
pub fn is_ingress_finalizer(finalizer: &str) -> bool {
    finalizer == IMPLICIT_FINALIZER || finalizer.starts_with(EXPLICIT_FINALIZER)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a stack of each kind, with names that are easily confused with another kind's.
    fn stacks() -> Vec<StackId> {
        let kinds: [fn(&str) -> StackId; 3] = [
            |name| StackId::Group(name.to_owned()),
            |name| StackId::Ingress(ObjectName::new("shop", name)),
            |name| StackId::Service(ObjectName::new("shop", name)),
        ];
        let stacks: Vec<_> = ["web", "shop", "a.b-c"].iter().flat_map(|name| kinds.map(|kind| kind(name))).collect();
        // A new kind does not compile until it is in the list.
        let number = |stack: &StackId| match stack {
            StackId::Group(_) => 0,
            StackId::Ingress(_) => 1,
            StackId::Service(_) => 2,
        };
        assert!(stacks.iter().enumerate().all(|(place, stack)| number(stack) == place % kinds.len()));
        stacks
    }

    fn resources() -> [ResourceId; 10] {
        let web = ObjectName::new("shop", "web");
        [
            ResourceId::load_balancer(),
            ResourceId::managed_security_group(),
            ResourceId::listener(443),
            ResourceId::rule(443, 7),
            ResourceId::ingress_target_group(&web, "api", &PortReference::Number(80)),
            ResourceId::ingress_target_group(&web, "api", &PortReference::Name("http".to_owned())),
            ResourceId::service_target_group(&web, 80),
            ResourceId::frontend(),
            ResourceId::frontend_listener(8080),
            ResourceId::frontend_target_group(8080),
        ]
    }

    fn pairs(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_stack_is_read_back_from_the_tags_labels_and_finalizers_that_name_it() {
        let users = pairs(&[("team", "a")]);
        for stack in stacks() {
            assert_eq!(StackId::of_labels(&stack.binding_labels()), Some(stack.clone()));
            for other in stacks() {
                assert_eq!(other.is_named_by(&stack.binding_labels()), other == stack, "{other:?} by {stack:?}");
            }
            let rule = stack.rule_tags("demo", &Tags::new(), &users);
            assert_eq!((StackId::of_tags(&rule), tags::resource_of(&rule)), (Some(stack.clone()), None));
            for resource in resources() {
                let tags = stack.resource_tags("demo", &resource, &Tags::new(), &users);
                assert_eq!(StackId::of_tags(&tags), Some(stack.clone()));
                assert_eq!(tags::resource_of(&tags), Some(resource.clone()));
                assert!(tags.keys().filter(|key| *key != "team").all(|key| tags::TRACKING.contains(&key.as_str())));
                let home = resource.namespace().map(|namespace| (stack.clone(), namespace.to_owned()));
                assert_eq!(tags::made_for("demo", &tags), home);
                assert_eq!(tags::made_for("other", &tags), None);
            }
            let finalizer = stack.finalizer();
            let group = matches!(stack, StackId::Group(_)).then(|| stack.clone());
            assert_eq!(StackId::group_of_finalizer(&finalizer), group);
            assert_eq!(is_ingress_finalizer(&finalizer), !matches!(stack, StackId::Service(_)));
        }
    }

    #[test]
    fn resources_have_ids_of_their_own() {
        let ids: Vec<String> = resources().iter().map(ToString::to_string).collect();
        let written = [
            "LoadBalancer",
            "ManagedLBSecurityGroup",
            "443",
            "443:7",
            "shop/web-api:80",
            "shop/web-api:http",
            "shop/web:80",
            "FrontendNlb",
            "FrontendNlb-ls-TCP-8080",
            "FrontendNlb-tg-TCP-8080",
        ];
        assert_eq!(ids, written);
        let of_frontend: Vec<bool> = resources().iter().map(ResourceId::is_of_frontend).collect();
        assert_eq!(of_frontend, [false, false, false, false, false, false, false, true, true, true]);
        let web = ObjectName::new("shop", "web");
        let (web, service) = (ObjectReference::ingress(&web), ObjectReference::service(&web));
        let of_ingress: Vec<bool> = resources().iter().map(|id| id.ingress("api").as_ref() == Some(&web)).collect();
        assert_eq!(of_ingress, [false, false, false, false, true, true, false, false, false, false]);
        let may_be: Vec<bool> = resources().iter().map(|id| id.may_be_of(&web)).collect();
        assert_eq!(may_be, of_ingress);
        assert!(resources().iter().all(|id| !id.may_be_of(&service)));
    }

    #[test]
    fn certificates_have_the_ids_of_aws_load_balancer_controller() {
        let web = ObjectName::new("shop", "web-frontend");
        let public = ResourceId::certificate(&web, "shop.example.com", false);
        assert_eq!(public.as_str(), "amazon_issued/shop.example.com-1994311b");
        let private = ResourceId::certificate(&web, "*.example.com", true);
        assert_eq!(private.as_str(), "private/wildcard.example.com-1994311b");
        assert!(public.is_certificate_of(&web) && private.is_certificate_of(&web));
        assert!(!public.is_certificate_of(&ObjectName::new("shop", "web")));
        let group = ResourceId::of_tag("private/web-1994311b:80");
        assert!(!group.is_certificate() && resources().iter().all(|id| !id.is_certificate()));
    }

    #[test]
    fn tracking_tags_win_over_default_tags_and_those_over_the_users() {
        let group = StackId::Ingress(ObjectName::new("shop", "web"));
        assert_eq!(
            group.resource_tags(
                "demo",
                &ResourceId::listener(443),
                &pairs(&[("Owner", "platform"), (tags::CLUSTER, "other")]),
                &pairs(&[("Owner", "team"), ("Cost", "1"), (tags::INGRESS_STACK, "x")]),
            ),
            pairs(&[
                ("Cost", "1"),
                ("Owner", "platform"),
                (tags::CLUSTER, "demo"),
                (tags::INGRESS_RESOURCE, "443"),
                (tags::INGRESS_STACK, "shop/web"),
            ])
        );
    }

    #[test]
    fn finalizers_and_labels_tell_explicit_groups_from_implicit_ones() {
        let explicit = StackId::Group("edge".into());
        let implicit = StackId::Ingress(ObjectName::new("shop", "web"));
        assert_eq!(explicit.finalizer(), "group.ingress.k8s.aws/edge");
        assert_eq!(implicit.finalizer(), "ingress.k8s.aws/resources");
        assert_eq!(explicit.binding_labels(), pairs(&[(tags::INGRESS_STACK, "edge")]));
        assert_eq!(
            implicit.binding_labels(),
            pairs(&[("ingress.k8s.aws/stack-name", "web"), ("ingress.k8s.aws/stack-namespace", "shop")])
        );
        assert_eq!(StackId::of_ingress_tag("shop/web"), implicit);
        assert_eq!(StackId::of_ingress_tag("edge"), explicit);
    }
}
