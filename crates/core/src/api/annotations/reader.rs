//! Reading annotations: of an Ingress, of a Service, or of a Service over the Ingress that leads to it.

use std::collections::BTreeMap;
use std::fmt;

use super::registry::{INGRESS_CLASS, ObjectKind, WrittenKey, find, ingress};
use super::{
    Action, CognitoProvider, Grammar, JsonShape, JwtValidation, MutualAuthentication, OidcProvider, parse_action,
    parse_cognito_provider, parse_conditions, parse_jwt_validation, parse_listen_ports, parse_mutual_authentication,
    parse_oidc_provider, parse_transforms, shorten, values,
};
use crate::model::{Condition, ListenerProtocol, Transform};

/// The object that a value came from.
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

/// An annotation whose value is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct AnnotationError {
    /// The object that carries it.
    pub origin: Origin,
    /// The full key.
    pub key: String,
    /// The value as it is written, in full.
    pub value: String,
    /// The reason why the value is wrong, where it says more than `allowed`.
    pub reason: Option<Box<str>>,
    /// The allowed values, in words.
    pub allowed: String,
    /// The fix.
    pub fix: String,
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

/// The annotations that apply at one place, in one layer or two.
///
/// With two layers the annotation of the Service stands in place of the Ingress's, as a whole; only where the list of annotations says
/// that it is read on Services, for the others the Ingress alone counts. An annotation with the value `""` is there.
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

    /// Returns the annotations of a Service over those of the Ingress that leads to it.
    pub const fn of_service_over_ingress(
        service: &'a BTreeMap<String, String>,
        ingress: &'a BTreeMap<String, String>,
    ) -> Self {
        Self { ingress: Some(ingress), service: Some(service) }
    }

    /// Returns the annotations of a Service with a load balancer, under its own prefix.
    pub const fn of_service(service: &'a BTreeMap<String, String>) -> Self {
        Self { ingress: None, service: Some(service) }
    }

    /// The value of `kubernetes.io/ingress.class` on the Ingress.
    pub fn ingress_class(&self) -> Option<&'a str> {
        self.ingress?.get(INGRESS_CLASS).map(String::as_str)
    }

    /// Returns true if the annotation is present, with any value.
    pub fn contains<'k>(&self, key: impl Into<WrittenKey<'k>>) -> bool {
        self.value(key).is_some()
    }

    /// The value as it is written, and the object that it comes from.
    pub fn value<'k>(&self, key: impl Into<WrittenKey<'k>>) -> Option<(Origin, &'a str)> {
        let (found, _) = self.layers(key);
        found.first().map(|found| (found.origin, found.value))
    }

    pub fn string<'k>(&self, key: impl Into<WrittenKey<'k>>) -> Result<Option<String>, AnnotationError> {
        self.read(key, Grammar::String, |value| Ok(value.into()))
    }

    pub fn bool<'k>(&self, key: impl Into<WrittenKey<'k>>) -> Result<Option<bool>, AnnotationError> {
        self.read(key, Grammar::Bool, values::parse_bool)
    }

    pub fn i32<'k>(&self, key: impl Into<WrittenKey<'k>>) -> Result<Option<i32>, AnnotationError> {
        self.read(key, Grammar::ANY_INT32, values::parse_i32)
    }

    pub fn i64<'k>(&self, key: impl Into<WrittenKey<'k>>) -> Result<Option<i64>, AnnotationError> {
        self.read(key, Grammar::Int64, values::parse_i64)
    }

    /// A list; present and empty is not the same as absent.
    pub fn string_list<'k>(&self, key: impl Into<WrittenKey<'k>>) -> Result<Option<Vec<String>>, AnnotationError> {
        self.read(key, Grammar::StringList, |value| Ok(values::parse_string_list(value)))
    }

    pub fn string_map<'k>(
        &self,
        key: impl Into<WrittenKey<'k>>,
    ) -> Result<Option<BTreeMap<String, String>>, AnnotationError> {
        self.read(key, Grammar::StringMap, values::parse_string_map)
    }

    /// A map of both layers together, in which the Service wins key by key.
    pub fn merged_string_map<'k>(
        &self,
        key: impl Into<WrittenKey<'k>>,
    ) -> Result<Option<BTreeMap<String, String>>, AnnotationError> {
        let (found, grammar) = self.layers(key);
        let mut merged = None;
        for found in found.iter().rev() {
            let map = found.parse(grammar.unwrap_or(Grammar::StringMap), values::parse_string_map)?;
            merged.get_or_insert_with(BTreeMap::new).extend(map);
        }
        Ok(merged)
    }

    /// Returns one of the allowed words, exactly.
    pub fn enumerated<'k>(
        &self,
        key: impl Into<WrittenKey<'k>>,
        allowed: &'static [&'static str],
    ) -> Result<Option<&'static str>, AnnotationError> {
        let (found, _) = self.layers(key);
        let word = |value: &str| allowed.iter().copied().find(|word| *word == value).ok_or_else(String::new);
        found.first().map(|found| found.parse(Grammar::Enum(allowed), word)).transpose()
    }

    /// `listen-ports`.
    pub fn listen_ports(&self) -> Result<Option<BTreeMap<u16, ListenerProtocol>>, AnnotationError> {
        self.read(ingress::LISTEN_PORTS, Grammar::Json(JsonShape::ListenPorts), parse_listen_ports)
    }

    /// `actions.<name>`.
    pub fn action(&self, name: &str) -> Result<Option<Action>, AnnotationError> {
        self.read(ingress::ACTIONS.with(name), Grammar::Json(JsonShape::Action), parse_action)
    }

    /// `conditions.<name>`.
    pub fn conditions(&self, name: &str) -> Result<Option<Vec<Condition>>, AnnotationError> {
        self.read(ingress::CONDITIONS.with(name), Grammar::Json(JsonShape::Conditions), parse_conditions)
    }

    /// `transforms.<name>`.
    pub fn transforms(&self, name: &str) -> Result<Option<Vec<Transform>>, AnnotationError> {
        self.read(ingress::TRANSFORMS.with(name), Grammar::Json(JsonShape::Transforms), parse_transforms)
    }

    /// `auth-idp-cognito`.
    pub fn cognito_provider(&self) -> Result<Option<CognitoProvider>, AnnotationError> {
        self.read(ingress::AUTH_IDP_COGNITO, Grammar::Json(JsonShape::CognitoProvider), parse_cognito_provider)
    }

    /// `auth-idp-oidc`.
    pub fn oidc_provider(&self) -> Result<Option<OidcProvider>, AnnotationError> {
        self.read(ingress::AUTH_IDP_OIDC, Grammar::Json(JsonShape::OidcProvider), parse_oidc_provider)
    }

    /// `jwt-validation`.
    pub fn jwt_validation(&self) -> Result<Option<JwtValidation>, AnnotationError> {
        self.read(ingress::JWT_VALIDATION, Grammar::Json(JsonShape::JwtValidation), parse_jwt_validation)
    }

    /// `mutual-authentication`, by port.
    pub fn mutual_authentication(&self) -> Result<Option<BTreeMap<u16, MutualAuthentication>>, AnnotationError> {
        self.read(
            ingress::MUTUAL_AUTHENTICATION,
            Grammar::Json(JsonShape::MutualAuthentication),
            parse_mutual_authentication,
        )
    }

    /// Reads the value that counts. It must obey the grammar in the list of annotations (or `grammar`, if it is not in the list) and `parse`.
    fn read<'k, T>(
        &self,
        key: impl Into<WrittenKey<'k>>,
        grammar: Grammar,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, AnnotationError> {
        let (found, listed) = self.layers(key);
        found.first().map(|found| found.parse(listed.unwrap_or(grammar), parse)).transpose()
    }

    /// The layers that have the annotation, the one that counts first, and its grammar in the list of annotations.
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

impl Layer<'_> {
    fn parse<T>(&self, grammar: Grammar, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, AnnotationError> {
        grammar.check(self.value).and_then(|()| parse(self.value)).map_err(|reason| AnnotationError {
            origin: self.origin,
            key: self.key.into(),
            value: self.value.into(),
            reason: grammar.reason_helps().then(|| reason.into()),
            allowed: grammar.describe(),
            fix: grammar.fix(self.value),
        })
    }
}

#[cfg(test)]
mod tests;
