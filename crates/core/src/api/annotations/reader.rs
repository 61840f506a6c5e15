//! The reader of annotations: those of an Ingress, of a Service, or of a Service that override those of an Ingress.

use std::collections::BTreeMap;
use std::fmt;

use super::registry::{INGRESS_CLASS, ObjectKind, WrittenKey, find, ingress, service};
use super::{
    Action, CognitoProvider, Fix, Grammar, JsonShape, JwtValidation, MutualAuthentication, NetworkForward,
    OidcProvider, grammar::Parsed, shorten,
};
use crate::model::{Condition, ListenerProtocol, Transform};

/// The object that a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    Ingress,
    Service,
}

impl Origin {
    const fn kind(self) -> ObjectKind {
        match self {
            Self::Ingress => ObjectKind::Ingress,
            Self::Service => ObjectKind::Service,
        }
    }
}

/// An annotation with a value that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct AnnotationError {
    /// The object that has the annotation.
    pub origin: Origin,
    /// The full key.
    pub key: String,
    /// The value as written, in full.
    pub value: String,
    /// The reason why the value is wrong, if it says more than `allowed`.
    pub reason: Option<Box<str>>,
    /// A description of the allowed values.
    pub allowed: String,
    /// The fix.
    pub fix: Fix,
}

impl AnnotationError {
    /// Returns the text of the fix, including the allowed values.
    #[must_use]
    pub fn fix(&self) -> String {
        self.fix.in_full(&self.allowed)
    }
}

impl fmt::Display for AnnotationError {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self { origin, key, value, reason, allowed, fix: _ } = self;
        let of = if *origin == Origin::Service { " of the Service" } else { "" };
        write!(formatter, "annotation `{key}`{of} has the value `{}`", shorten(value))?;
        if let Some(reason) = reason {
            write!(formatter, ": {reason}")?;
        }
        write!(formatter, "; allowed: {allowed}")
    }
}

/// The annotations that apply together, in one layer or two.
///
/// With two layers, an annotation of the Service replaces the Ingress's annotation as a whole, but only if the list of
/// annotations says that it is read on Services; all other annotations are read only on the Ingress. An annotation with
/// the value `""` counts as present.
#[derive(Debug, Clone, Copy)]
pub struct Annotations<'a> {
    ingress: Option<&'a BTreeMap<String, String>>,
    service: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Annotations<'a> {
    /// Returns the annotations of a single Ingress.
    pub const fn of_ingress(ingress: &'a BTreeMap<String, String>) -> Self {
        Self { ingress: Some(ingress), service: None }
    }

    /// Returns the annotations of a Service, which override those of the Ingress that forwards to it.
    pub const fn of_service_over_ingress(
        service: &'a BTreeMap<String, String>,
        ingress: &'a BTreeMap<String, String>,
    ) -> Self {
        Self { ingress: Some(ingress), service: Some(service) }
    }

    /// Returns the annotations of a Service with its own load balancer, under their own prefix.
    pub const fn of_service(service: &'a BTreeMap<String, String>) -> Self {
        Self { ingress: None, service: Some(service) }
    }

    /// Returns the value of `kubernetes.io/ingress.class` on the Ingress.
    pub fn ingress_class(&self) -> Option<&'a str> {
        self.ingress?.get(INGRESS_CLASS).map(String::as_str)
    }

    /// Returns true if the annotation is present, with any value.
    pub fn contains<'k>(&self, key: impl Into<WrittenKey<'k>>) -> bool {
        self.value(key).is_some()
    }

    /// Returns the value as written, and the object that it comes from.
    pub fn value<'k>(&self, key: impl Into<WrittenKey<'k>>) -> Option<(Origin, &'a str)> {
        let (found, _) = self.layers(key);
        found.first().map(|found| (found.origin, found.value))
    }

    /// Returns the value as written, even if its grammar is not plain text.
    pub fn string<'k>(&self, key: impl Into<WrittenKey<'k>>) -> Result<Option<String>, AnnotationError> {
        let (found, listed) = self.layers(key);
        let Some(found) = found.first() else { return Ok(None) };
        found.parse(listed.unwrap_or(Grammar::String))?;
        Ok(Some(found.value.to_owned()))
    }

    pub fn bool<'k>(&self, key: impl Into<WrittenKey<'k>>) -> Result<Option<bool>, AnnotationError> {
        self.read(key, Grammar::Bool, |parsed| if let Parsed::Bool(value) = parsed { Some(value) } else { None })
    }

    pub fn i32<'k>(&self, key: impl Into<WrittenKey<'k>>) -> Result<Option<i32>, AnnotationError> {
        self.read(key, Grammar::ANY_INT32, |parsed| if let Parsed::Int32(value) = parsed { Some(value) } else { None })
    }

    pub fn i64<'k>(&self, key: impl Into<WrittenKey<'k>>) -> Result<Option<i64>, AnnotationError> {
        self.read(key, Grammar::Int64, |parsed| if let Parsed::Int64(value) = parsed { Some(value) } else { None })
    }

    /// Returns a list. An empty list is not the same as an absent annotation.
    pub fn string_list<'k>(&self, key: impl Into<WrittenKey<'k>>) -> Result<Option<Vec<String>>, AnnotationError> {
        self.read(key, Grammar::StringList, |parsed| if let Parsed::List(value) = parsed { Some(value) } else { None })
    }

    pub fn string_map<'k>(
        &self,
        key: impl Into<WrittenKey<'k>>,
    ) -> Result<Option<BTreeMap<String, String>>, AnnotationError> {
        self.read(key, Grammar::StringMap, map)
    }

    /// Returns the union of the maps of both layers; the Service's value of a key wins.
    pub fn merged_string_map<'k>(
        &self,
        key: impl Into<WrittenKey<'k>>,
    ) -> Result<Option<BTreeMap<String, String>>, AnnotationError> {
        let (found, listed) = self.layers(key);
        let mut merged = None;
        for found in found.iter().rev() {
            let map = found.read(listed, Grammar::StringMap, map)?;
            merged.get_or_insert_with(BTreeMap::new).extend(map.unwrap_or_default());
        }
        Ok(merged)
    }

    /// Returns the value if it is exactly one of the allowed words.
    pub fn enumerated<'k>(
        &self,
        key: impl Into<WrittenKey<'k>>,
        allowed: &'static [&'static str],
    ) -> Result<Option<&'static str>, AnnotationError> {
        let (found, _) = self.layers(key);
        let Some(found) = found.first() else { return Ok(None) };
        found.read(
            None,
            Grammar::Enum(allowed),
            |parsed| {
                if let Parsed::Word(word) = parsed { Some(word) } else { None }
            },
        )
    }

    /// Returns the value of `listen-ports`.
    pub fn listen_ports(&self) -> Result<Option<BTreeMap<u16, ListenerProtocol>>, AnnotationError> {
        self.read(ingress::LISTEN_PORTS, Grammar::Json(JsonShape::ListenPorts), |parsed| {
            if let Parsed::ListenPorts(value) = parsed { Some(value) } else { None }
        })
    }

    /// Returns the value of `actions.<name>`.
    pub fn action(&self, name: &str) -> Result<Option<Action>, AnnotationError> {
        self.read(ingress::ACTIONS.with(name), Grammar::Json(JsonShape::Action), |parsed| {
            if let Parsed::Action(value) = parsed { Some(value) } else { None }
        })
    }

    /// Returns the value of `actions.<PROTOCOL>-<port>` of a Service.
    pub fn network_action(&self, listener: &str) -> Result<Option<NetworkForward>, AnnotationError> {
        self.read(service::ACTIONS.with(listener), Grammar::Json(JsonShape::NetworkAction), |parsed| {
            if let Parsed::NetworkAction(value) = parsed { Some(value) } else { None }
        })
    }

    /// Returns the value of `conditions.<name>`.
    pub fn conditions(&self, name: &str) -> Result<Option<Vec<Condition>>, AnnotationError> {
        self.read(ingress::CONDITIONS.with(name), Grammar::Json(JsonShape::Conditions), |parsed| {
            if let Parsed::Conditions(value) = parsed { Some(value) } else { None }
        })
    }

    /// Returns the value of `transforms.<name>`.
    pub fn transforms(&self, name: &str) -> Result<Option<Vec<Transform>>, AnnotationError> {
        self.read(ingress::TRANSFORMS.with(name), Grammar::Json(JsonShape::Transforms), |parsed| {
            if let Parsed::Transforms(value) = parsed { Some(value) } else { None }
        })
    }

    /// Returns the value of `auth-idp-cognito`.
    pub fn cognito_provider(&self) -> Result<Option<CognitoProvider>, AnnotationError> {
        self.read(ingress::AUTH_IDP_COGNITO, Grammar::Json(JsonShape::CognitoProvider), |parsed| {
            if let Parsed::CognitoProvider(value) = parsed { Some(value) } else { None }
        })
    }

    /// Returns the value of `auth-idp-oidc`.
    pub fn oidc_provider(&self) -> Result<Option<OidcProvider>, AnnotationError> {
        self.read(ingress::AUTH_IDP_OIDC, Grammar::Json(JsonShape::OidcProvider), |parsed| {
            if let Parsed::OidcProvider(value) = parsed { Some(value) } else { None }
        })
    }

    /// Returns the value of `jwt-validation`.
    pub fn jwt_validation(&self) -> Result<Option<JwtValidation>, AnnotationError> {
        self.read(ingress::JWT_VALIDATION, Grammar::Json(JsonShape::JwtValidation), |parsed| {
            if let Parsed::JwtValidation(value) = parsed { Some(value) } else { None }
        })
    }

    /// Returns the value of `mutual-authentication` by port.
    pub fn mutual_authentication(&self) -> Result<Option<BTreeMap<u16, MutualAuthentication>>, AnnotationError> {
        self.read(ingress::MUTUAL_AUTHENTICATION, Grammar::Json(JsonShape::MutualAuthentication), |parsed| {
            if let Parsed::MutualAuthentication(value) = parsed { Some(value) } else { None }
        })
    }

    /// Reads the value of the overriding layer. It must match the grammar in the list of annotations, and `own` too if
    /// that grammar gives a value of another type.
    fn read<'k, T>(
        &self,
        key: impl Into<WrittenKey<'k>>,
        own: Grammar,
        take: impl Fn(Parsed<'a>) -> Option<T>,
    ) -> Result<Option<T>, AnnotationError> {
        let (found, listed) = self.layers(key);
        found.first().map_or(Ok(None), |found| found.read(listed, own, take))
    }

    /// Returns the layers that have the annotation, the overriding one first, and the annotation's grammar in the list.
    fn layers<'k>(&self, key: impl Into<WrittenKey<'k>>) -> (Vec<Layer<'a>>, Option<Grammar>) {
        let key = key.into().to_string();
        let listed = find(&key);
        let found = [(Origin::Service, self.service), (Origin::Ingress, self.ingress)]
            .into_iter()
            .filter(|(origin, _)| listed.is_none_or(|annotation| annotation.is_read_on(origin.kind())))
            .filter_map(|(origin, layer)| layer?.get_key_value(&key).map(|(key, value)| Layer { origin, key, value }))
            .collect();
        (found, listed.map(|annotation| annotation.grammar))
    }
}

struct Layer<'a> {
    origin: Origin,
    key: &'a str,
    value: &'a str,
}

impl<'a> Layer<'a> {
    fn read<T>(
        &self,
        listed: Option<Grammar>,
        own: Grammar,
        take: impl Fn(Parsed<'a>) -> Option<T>,
    ) -> Result<Option<T>, AnnotationError> {
        if let Some(listed) = listed
            && let Some(value) = take(self.parse(listed)?)
        {
            return Ok(Some(value));
        }
        Ok(take(self.parse(own)?))
    }

    fn parse(&self, grammar: Grammar) -> Result<Parsed<'a>, AnnotationError> {
        grammar.parse(self.value).map_err(|reason| AnnotationError {
            origin: self.origin,
            key: self.key.into(),
            value: self.value.into(),
            reason: grammar.reason_helps().then(|| reason.into()),
            allowed: grammar.describe(),
            fix: grammar.fix(self.value),
        })
    }
}

/// Returns the map of a parsed value, if it is a map.
fn map(parsed: Parsed<'_>) -> Option<BTreeMap<String, String>> {
    if let Parsed::Map(map) = parsed { Some(map) } else { None }
}

#[cfg(test)]
mod tests;
