//! The list of every annotation that is known, built or not.

use std::fmt;

use super::Grammar;

/// The prefix of the annotations of Application Load Balancers, on Ingresses and on the Services behind them.
pub const INGRESS_PREFIX: &str = "alb.ingress.kubernetes.io/";
/// The prefix of the annotations of Services that get a Network Load Balancer.
pub const SERVICE_PREFIX: &str = "service.beta.kubernetes.io/";
/// The annotation that chose an Ingress's controller before `spec.ingressClassName` existed, and that still decides alone where it is set.
pub const INGRESS_CLASS: &str = ingress::INGRESS_CLASS.as_str();

/// An annotation: where it is read, what it may say, what it does, and whether that is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotation {
    pub key: Key,
    /// The objects on which it is read. With both, the Service's annotation replaces the one of the Ingress for that Service.
    pub objects: &'static [ObjectKind],
    pub grammar: Grammar,
    /// The effect when several Ingresses of a group set it.
    pub group: Group,
    /// The default, in words.
    pub default: &'static str,
    pub status: Status,
    pub description: &'static str,
    /// The document and section of the compatibility reference that describe its behaviour.
    pub source: &'static str,
}

/// The name of an annotation, perhaps with a parameter at its end. Only the list makes one: [`ingress`] and [`service`] have a constant
/// for each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// With the slash at its end.
    prefix: &'static str,
    /// The name after the prefix, without a parameter and the dot before it.
    name: &'static str,
    /// Prefix and name.
    stem: &'static str,
    parameter: Option<Parameter>,
}

/// A key as it stands on an object: with what its parameter is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenKey<'p> {
    key: Key,
    parameter: Option<&'p str>,
}

impl WrittenKey<'_> {
    /// Returns the key without what its parameter is.
    pub const fn key(&self) -> Key {
        self.key
    }
}

impl From<Key> for WrittenKey<'_> {
    fn from(key: Key) -> Self {
        Self { key, parameter: None }
    }
}

impl fmt::Display for WrittenKey<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(self.key.stem)?;
        self.parameter.map_or(Ok(()), |parameter| write!(formatter, ".{parameter}"))
    }
}

/// The end of an annotation's name that users choose, after a dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// The name of an action, or of the Service that a path leads to.
    Name,
    /// A listener of an Application Load Balancer, such as `HTTPS-443`.
    Listener,
    /// A listener of a Network Load Balancer, such as `TCP-80`.
    NetworkListener,
    /// The number of a port of the Service.
    Port,
    /// A Service and a port of it, by name or number as the backend writes it: `api.80`.
    ServicePort,
}

/// The kinds of objects that carry annotations for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    Ingress,
    Service,
}

/// The way in which values of several Ingresses of one group are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// All that set it must agree, for the whole load balancer.
    Exclusive,
    /// All that set it and listen on a port must agree there.
    ExclusivePerPort,
    /// The values are maps, which are united. A key must not have two values. The ports of `listen-ports` are such keys, and their
    /// protocols the values.
    UnitedByKey,
    /// The values are lists, which are united.
    United,
    /// It affects only the Ingress (or the backend) that sets it.
    PerIngress,
    /// Services have no groups.
    NotApplicable,
}

/// The rules of [`Group`] as types. A key of such a type has that rule in the list, and only the list makes one, so that a function
/// that merges by a rule can take no key of another one.
pub mod group {
    use super::{Key, WrittenKey};

    macro_rules! rules {
        ($($(#[$doc:meta])* $rule:ident),* $(,)?) => {
            $(
                $(#[$doc])*
                #[derive(Debug, Clone, Copy, PartialEq, Eq)]
                pub struct $rule(pub(super) Key);

                impl $rule {
                    /// Returns the key without its rule.
                    pub const fn key(self) -> Key {
                        self.0
                    }
                }

                impl From<$rule> for WrittenKey<'_> {
                    fn from(key: $rule) -> Self {
                        key.0.into()
                    }
                }
            )*
        };
    }

    rules! {
        /// A key on which all must agree.
        Exclusive,
        /// A key on which all must agree on each port.
        ExclusivePerPort,
        /// A key whose maps are united.
        UnitedByKey,
        /// A key whose lists are united.
        United,
        /// A key that is not merged.
        PerIngress,
        /// A key of Services.
        NotApplicable,
    }
}

/// The support for an annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Built,
    /// Built for these values; with another one the object is refused.
    BuiltFor(&'static [&'static str]),
    /// Known and not built; it is ignored with a warning.
    Later,
    /// Known and not built, and of a kind that must not be ignored: it concerns identity, access, exposure, membership of a group or what a
    /// rule matches. The object is refused.
    Refused,
}

impl Status {
    /// Returns true if an object with this value of the annotation must be refused.
    pub fn refuses(&self, value: &str) -> bool {
        match self {
            Self::Built | Self::Later => false,
            Self::BuiltFor(values) => !values.contains(&value),
            Self::Refused => true,
        }
    }
}

impl Annotation {
    /// Returns true if the annotation is read on objects of this kind.
    pub fn is_read_on(&self, kind: ObjectKind) -> bool {
        self.objects.contains(&kind)
    }
}

impl Key {
    /// Returns the prefix, with the slash at its end.
    pub const fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// Returns the name after the prefix, without a parameter and the dot before it.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns what users choose at the end of the name, if they do.
    pub const fn parameter(&self) -> Option<Parameter> {
        self.parameter
    }

    /// Returns the prefix and the name: the whole key, where it has no parameter.
    pub const fn as_str(&self) -> &'static str {
        self.stem
    }

    /// Returns the key with this parameter.
    pub const fn with<'p>(self, parameter: &'p str) -> WrittenKey<'p> {
        WrittenKey { key: self, parameter: Some(parameter) }
    }

    /// Returns true if this is the key, given in full with its prefix.
    pub fn matches(&self, key: &str) -> bool {
        let Some(rest) = key.strip_prefix(self.prefix).and_then(|name| name.strip_prefix(self.name)) else {
            return false;
        };
        match self.parameter {
            None => rest.is_empty(),
            Some(parameter) => rest.strip_prefix('.').is_some_and(|value| parameter.accepts(value)),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}{}", self.prefix, self.name)?;
        self.parameter.map_or(Ok(()), |parameter| write!(formatter, ".{}", parameter.placeholder()))
    }
}

impl Parameter {
    /// Returns the placeholder for the parameter in documentation and messages.
    pub const fn placeholder(self) -> &'static str {
        match self {
            Self::Name => "<name>",
            Self::Listener | Self::NetworkListener => "<PROTOCOL>-<port>",
            Self::Port => "<port>",
            Self::ServicePort => "<service>.<port>",
        }
    }

    /// Returns true if the value is valid as the parameter; an annotation with another value is never read.
    pub fn accepts(self, value: &str) -> bool {
        let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0 && port.to_string() == text);
        let is_listener = |protocols: &[&str]| {
            value.split_once('-').is_some_and(|(name, port)| protocols.contains(&name) && is_port(port))
        };
        match self {
            Self::Name => !value.is_empty(),
            Self::Listener => is_listener(&["HTTP", "HTTPS"]),
            Self::NetworkListener => is_listener(&["TCP", "UDP", "TLS", "TCP_UDP", "QUIC", "TCP_QUIC"]),
            Self::Port => is_port(value),
            Self::ServicePort => {
                value.split_once('.').is_some_and(|(service, port)| !service.is_empty() && !port.is_empty())
            }
        }
    }
}

impl ObjectKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Service => "Service",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Rows of the list, in sections that name their source. A row is: constant, name (and parameter), grammar, objects, group, status,
/// default, description. The constant is the only way to the key, so that what is not in the list cannot be read; that of the same name
/// in `merged` is the only way to merge it, so that it can only be merged by its rule.
macro_rules! annotations {
    ($($source:literal, $prefix:literal; {
        $($constant:ident = $name:literal $(. $parameter:ident)?, $grammar:expr, $objects:expr, $group:ident, $status:expr, $default:literal, $description:literal;)*
    })*) => {
        $($(
            #[doc = $description]
            pub const $constant: Key = Key {
                prefix: $prefix,
                name: $name,
                stem: concat!($prefix, $name),
                parameter: [$(Some(Parameter::$parameter),)? None][0],
            };
        )*)*

        /// The keys with the rules by which groups merge them.
        pub mod merged {
            use crate::api::annotations::registry::group;

            $($(
                #[doc = $description]
                pub const $constant: group::$group = group::$group(super::$constant);
            )*)*
        }

        pub(super) const ANNOTATIONS: &[Annotation] = &[$($(Annotation {
            key: $constant,
            objects: $objects,
            grammar: $grammar,
            group: super::Group::$group,
            default: $default,
            status: $status,
            description: $description,
            source: $source,
        },)*)*];
    };
}

pub mod ingress;
pub mod service;

const COUNT: usize = ingress::ANNOTATIONS.len() + service::ANNOTATIONS.len();

#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it, and refuses an index that is out of bounds")]
static ALL: [Annotation; COUNT] = {
    let mut all = [ingress::ANNOTATIONS[0]; COUNT];
    let mut index = 0;
    while index < COUNT {
        let of_ingresses = ingress::ANNOTATIONS.len();
        all[index] =
            if index < of_ingresses { ingress::ANNOTATIONS[index] } else { service::ANNOTATIONS[index - of_ingresses] };
        index += 1;
    }
    all
};

/// Every annotation that is known, in the order of the compatibility reference: those of Ingresses, then those of Services.
pub static ANNOTATIONS: &[Annotation] = &ALL;

/// The annotation with this full key, prefix and parameter included.
pub fn find(key: &str) -> Option<&'static Annotation> {
    ANNOTATIONS.iter().find(|annotation| annotation.key.matches(key))
}

#[cfg(test)]
mod tests;
