//! The list of all known annotations, implemented or not.

use std::fmt;

use super::Grammar;

/// The prefix of the annotations of Application Load Balancers, on Ingresses and on the Services behind them.
pub const INGRESS_PREFIX: &str = "alb.ingress.kubernetes.io/";
/// The prefix of the annotations of Services that have a Network Load Balancer.
pub const SERVICE_PREFIX: &str = "service.beta.kubernetes.io/";
/// The annotation that selected an Ingress's controller before `spec.ingressClassName` existed. If it is set, only it
/// decides.
pub const INGRESS_CLASS: &str = ingress::INGRESS_CLASS.as_str();

/// An annotation: its objects, grammar, effect in a group and support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotation {
    pub key: Key,
    /// The objects on which the annotation is read. With both kinds, the Service's annotation replaces the Ingress's
    /// for that Service.
    pub objects: &'static [ObjectKind],
    pub grammar: Grammar,
    /// The effect if several Ingresses of a group set the annotation.
    pub group: Group,
    /// A description of the default.
    pub default: &'static str,
    pub status: Status,
    pub description: &'static str,
    /// Values as users may write them, at least one.
    pub examples: &'static [Example],
    /// The heading under which the documentation has the annotation.
    pub topic: &'static str,
    /// The document and section of the compatibility reference that describe the annotation.
    pub source: &'static str,
}

/// The key of an annotation, perhaps with a parameter at its end. Only the list creates keys: [`ingress`] and
/// [`service`] have a constant for each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The prefix, including the slash.
    prefix: &'static str,
    /// The name after the prefix, without a parameter and the dot before it.
    name: &'static str,
    /// The prefix and the name.
    stem: &'static str,
    parameter: Option<Parameter>,
}

/// A value that users may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example {
    /// The value of the key's parameter, if the key has one.
    pub argument: Option<&'static str>,
    pub value: &'static str,
}

impl Example {
    /// Returns an example, which has an argument exactly if the key has a parameter.
    const fn of(key: Key, argument: Option<&'static str>, value: &'static str) -> Self {
        assert!(
            argument.is_some() == key.parameter.is_some(),
            "an argument for a key without parameter, or none for one"
        );
        Self { argument, value }
    }

    /// Returns the key of the annotation as the example has it.
    pub const fn key(&self, key: Key) -> WrittenKey<'static> {
        WrittenKey { key, parameter: self.argument }
    }
}

/// A key as written on an object, with the value of its parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenKey<'p> {
    key: Key,
    parameter: Option<&'p str>,
}

impl WrittenKey<'_> {
    /// Returns the key without the value of its parameter.
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

/// The kind of parameter, chosen by users, that ends an annotation's name after a dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// The name of an action, or of the Service that a path forwards to.
    Name,
    /// A listener of an Application Load Balancer, such as `HTTPS-443`.
    Listener,
    /// A listener of a Network Load Balancer, such as `TCP-80`.
    NetworkListener,
    /// The number of a port of the Service.
    Port,
    /// A Service and one of its ports, by name or number as in the backend: `api.80`.
    ServicePort,
}

/// The kinds of objects with annotations for the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    Ingress,
    Service,
}

/// The way in which the values of several Ingresses of a group are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// All Ingresses that set the annotation must agree, for the whole load balancer.
    Exclusive,
    /// All Ingresses that set the annotation and listen on a port must agree for that port.
    ExclusivePerPort,
    /// The values are maps, which are merged by key; two values for a key are a conflict. The ports of `listen-ports`
    /// are such keys, and the protocols are their values.
    UnitedByKey,
    /// The values are lists, which are merged.
    United,
    /// The annotation affects only the Ingress (or the backend) that sets it.
    PerIngress,
    /// The annotation is read only on Services, which have no groups.
    NotApplicable,
}

/// The rules of [`Group`] as types. A key of such a type has that rule in the list, and only the list creates such
/// keys, so that a function that merges by a rule accepts no key of another one.
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
        /// A key on whose value all members must agree.
        Exclusive,
        /// A key on whose value all members must agree for each port.
        ExclusivePerPort,
        /// A key whose maps are merged by key.
        UnitedByKey,
        /// A key whose lists are merged.
        United,
    }
}

/// The support for an annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Built,
    /// Implemented for these values; an object with another value is refused.
    BuiltFor(&'static [&'static str]),
    /// Known and not implemented: ignored with a warning.
    Later,
    /// Known and not implemented, and too important to ignore: it concerns identity, access, exposure, membership of a
    /// group or the requests that a rule matches. The object is refused.
    Refused,
    /// Belongs to a service that AWS has ended, so that nothing can act on it: ignored with a warning.
    Ended {
        /// The service.
        service: &'static str,
        /// The advice for the object's author.
        fix: &'static str,
    },
}

impl Status {
    /// Returns true if an object with this value of the annotation must be refused.
    pub fn refuses(&self, value: &str) -> bool {
        match self {
            Self::Built | Self::Later | Self::Ended { .. } => false,
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
    /// Returns the prefix, including the slash.
    pub const fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// Returns the name after the prefix, without a parameter and the dot before it.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the kind of parameter at the end of the name, if there is one.
    pub const fn parameter(&self) -> Option<Parameter> {
        self.parameter
    }

    /// Returns the prefix and the name, which are the whole key if it has no parameter.
    pub const fn as_str(&self) -> &'static str {
        self.stem
    }

    /// Returns the key with the value of its parameter.
    pub const fn with<'p>(self, parameter: &'p str) -> WrittenKey<'p> {
        WrittenKey { key: self, parameter: Some(parameter) }
    }

    /// Returns true if a full key, including the prefix, is this key.
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

    /// Returns true if the value is valid for the parameter; annotations with other values are never read.
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

/// Makes the constant of a key that groups merge.
macro_rules! merged_key {
    (PerIngress, $constant:ident, $description:literal) => {};
    (NotApplicable, $constant:ident, $description:literal) => {};
    ($group:ident, $constant:ident, $description:literal) => {
        #[doc = $description]
        pub const $constant: crate::api::annotations::registry::group::$group =
            crate::api::annotations::registry::group::$group(super::$constant);
    };
}

/// Creates the list from rows, in sections that name their source and topic. A row has: constant, name (and parameter),
/// grammar, objects, group, status, default, description, and one or more examples (with a value for the parameter). The constant is the only way to the key, so that an annotation that is
/// not in the list cannot be read; the constant of the same name in `merged` is the only way to merge it, so that it
/// can only be merged by its rule.
macro_rules! annotations {
    ($($source:literal, $topic:literal, $prefix:literal; {
        $(
            $constant:ident = $name:literal $(. $parameter:ident)?, $grammar:expr, $objects:expr, $group:ident, $status:expr, $default:literal, $description:literal;
            $(@example $(. $argument:literal)? = $value:expr;)+
        )*
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
            $($(merged_key!($group, $constant, $description);)*)*
        }

        pub(super) const ANNOTATIONS: &[Annotation] = &[$($(Annotation {
            key: $constant,
            objects: $objects,
            grammar: $grammar,
            group: super::Group::$group,
            default: $default,
            status: $status,
            description: $description,
            examples: &[$(Example::of($constant, [$(Some($argument),)? None][0], $value),)+],
            topic: $topic,
            source: $source,
        },)*)*];
    };
}

mod examples;
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

/// All known annotations in the order of the compatibility reference: those of Ingresses, then those of Services.
pub static ANNOTATIONS: &[Annotation] = &ALL;

/// Returns the annotation with a full key, including prefix and parameter.
pub fn find(key: &str) -> Option<&'static Annotation> {
    ANNOTATIONS.iter().find(|annotation| annotation.key.matches(key))
}

#[cfg(test)]
mod tests;
