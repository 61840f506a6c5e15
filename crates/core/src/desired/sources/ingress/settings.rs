//! The settings of a member, from its annotations or from the IngressClassParams of its class, which win (reference:
//! ingress §1.6). Each setting has one accessor here, which returns the value and its field.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use ipnet::IpNet;

use super::{Builder, Failed, Member};
use crate::{
    api::{
        annotations::{AnnotationError, Key, registry::ingress as keys},
        crd::{IngressClassParamsSpec, ingress_class_params as class},
    },
    diagnostics::{Code, Severity},
    model::{
        Attributes, CapacityUnits, IpAddressType, IpamPoolId, ListenerProtocol, ObjectReference, Scheme, Tags,
        TargetType,
    },
    snapshot::{Ingress, IngressClassParams, Service},
};

/// The place of a setting: the object to change, and the annotation or field within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldRef {
    pub(super) object: ObjectReference,
    pub(super) field: String,
}

impl FieldRef {
    /// A field of the settings of a class, by its path within `spec`.
    pub(super) fn params(params: &IngressClassParams, field: &str) -> Self {
        Self { object: ObjectReference::ingress_class_params(&params.name), field: format!("spec.{field}") }
    }

    /// An annotation of an Ingress.
    pub(super) fn annotation(ingress: &Ingress, key: Key) -> Self {
        Self { object: ObjectReference::ingress(&ingress.name), field: key.as_str().to_owned() }
    }
}

/// A value, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sourced<T> {
    pub(super) value: T,
    pub(super) place: FieldRef,
}

impl<T> Sourced<T> {
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Sourced<U> {
        Sourced { value: change(self.value), place: self.place }
    }
}

/// The subnets that a member requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SubnetSelection {
    /// By id or `Name` tag.
    Named(Vec<String>),
    /// By tags: for each key the values of which a subnet has one.
    Tagged(BTreeMap<String, Vec<String>>),
}

impl fmt::Display for SubnetSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = match self {
            Self::Named(names) => names.iter().map(|name| format!("`{name}`")).collect(),
            Self::Tagged(tags) => tags.iter().map(|(key, values)| format!("`{key}={}`", values.join("|"))).collect(),
        };
        f.write_str(&text.join(", "))
    }
}

/// A setting that may be absent, or be an annotation outside its grammar.
type Read<T> = Result<Option<Sourced<T>>, AnnotationError>;

fn full(list: Option<&Vec<String>>) -> Option<Vec<String>> {
    list.filter(|list| !list.is_empty()).cloned()
}

fn text(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

fn attributes(list: Option<&Vec<class::Attribute>>) -> Attributes {
    list.into_iter().flatten().map(|attribute| (attribute.key.clone(), attribute.value.clone())).collect()
}

impl<'a> Member<'a> {
    fn spec(&self) -> Option<&'a IngressClassParamsSpec> {
        self.params.map(|params| &params.spec)
    }

    /// Returns the setting in the parameters of the class, else the annotation's.
    fn setting<T>(
        &self,
        field: &str,
        of_class: Option<T>,
        name: Key,
        read: impl FnOnce() -> Result<Option<T>, AnnotationError>,
    ) -> Read<T> {
        if let (Some(value), Some(params)) = (of_class, self.params) {
            return Ok(Some(Sourced { value, place: FieldRef::params(params, field) }));
        }
        let place = || FieldRef::annotation(self.ingress, name);
        Ok(read()?.map(|value| Sourced { value, place: place() }))
    }

    /// The name of the load balancer.
    pub(super) fn load_balancer_name(&self) -> Read<String> {
        let of_class = self.spec().and_then(|spec| text(spec.load_balancer_name.as_ref()));
        let read = || self.annotations.string(keys::LOAD_BALANCER_NAME);
        self.setting("loadBalancerName", of_class, keys::LOAD_BALANCER_NAME, read)
    }

    /// The certificates that are named.
    pub(super) fn certificate_arns(&self) -> Read<Vec<String>> {
        let of_class = self.spec().and_then(|spec| full(spec.certificate_arn.as_ref()));
        let read = || self.annotations.string_list(keys::CERTIFICATE_ARN);
        self.setting("certificateArn", of_class, keys::CERTIFICATE_ARN, read)
    }

    /// The scheme of the load balancer.
    pub(super) fn scheme(&self) -> Read<Scheme> {
        let of_class = self.spec().and_then(|spec| spec.scheme).map(|scheme| match scheme {
            class::Scheme::Internal => Scheme::Internal,
            class::Scheme::InternetFacing => Scheme::InternetFacing,
        });
        let read = || Ok(self.annotations.enumerated(keys::SCHEME, Scheme::WORDS)?.and_then(Scheme::from_word));
        self.setting("scheme", of_class, keys::SCHEME, read)
    }

    /// The address type of the load balancer.
    pub(super) fn ip_address_type(&self) -> Read<IpAddressType> {
        let of_class = self.spec().and_then(|spec| spec.ip_address_type).map(|kind| match kind {
            class::IpAddressType::Ipv4 => IpAddressType::Ipv4,
            class::IpAddressType::Dualstack => IpAddressType::Dualstack,
            class::IpAddressType::DualstackWithoutPublicIpv4 => IpAddressType::DualstackWithoutPublicIpv4,
        });
        let read = || {
            let word = self.annotations.enumerated(keys::IP_ADDRESS_TYPE, IpAddressType::OF_LOAD_BALANCERS)?;
            Ok(word.and_then(IpAddressType::from_word))
        };
        self.setting("ipAddressType", of_class, keys::IP_ADDRESS_TYPE, read)
    }

    /// The allowed address ranges.
    pub(super) fn inbound_cidrs(&self) -> Read<Vec<String>> {
        let of_class = self.spec().and_then(|spec| full(spec.inbound_cidrs.as_ref()));
        self.setting("inboundCIDRs", of_class, keys::INBOUND_CIDRS, || {
            self.annotations.string_list(keys::INBOUND_CIDRS)
        })
    }

    /// The allowed prefix lists.
    pub(super) fn prefix_lists(&self) -> Read<Vec<String>> {
        let lists = self.spec().and_then(|spec| full(spec.prefix_lists_ids.as_ref()));
        let (field, of_class) = match lists {
            Some(lists) => ("prefixListsIDs", Some(lists)),
            None => ("PrefixListsIDs", self.spec().and_then(|spec| full(spec.prefix_lists_ids_legacy.as_ref()))),
        };
        let name = keys::SECURITY_GROUP_PREFIX_LISTS;
        self.setting(field, of_class, name, || self.annotations.string_list(name))
    }

    /// The TLS policy of the HTTPS listeners.
    pub(super) fn ssl_policy(&self) -> Read<String> {
        let of_class = self.spec().and_then(|spec| text(spec.ssl_policy.as_ref()));
        self.setting("sslPolicy", of_class, keys::SSL_POLICY, || self.annotations.string(keys::SSL_POLICY))
    }

    /// The port that plain HTTP is redirected to. Of the class it is a text that [`Builder::check_params`] has looked at.
    pub(super) fn ssl_redirect(&self) -> Read<i32> {
        let of_class = self.spec().and_then(|spec| text(spec.ssl_redirect_port.as_ref()));
        let of_class = of_class.and_then(|port| port.parse().ok());
        self.setting("sslRedirectPort", of_class, keys::SSL_REDIRECT, || self.annotations.i32(keys::SSL_REDIRECT))
    }

    /// The name of the web ACL, or `none`. An empty one requests nothing.
    pub(super) fn web_acl_name(&self) -> Read<String> {
        let of_class = self.spec().and_then(|spec| text(spec.wafv2_acl_name.as_ref()));
        let name = keys::WAFV2_ACL_NAME;
        let read = || Ok(self.annotations.string(name)?.filter(|written| !written.is_empty()));
        self.setting("wafv2AclName", of_class, name, read)
    }

    /// The ARN of the web ACL as it is written, or `none`. An empty annotation is the same as `none`.
    pub(super) fn web_acl_arn(&self) -> Read<String> {
        let of_class = self.spec().and_then(|spec| text(spec.wafv2_acl_arn.as_ref()));
        let name = keys::WAFV2_ACL_ARN;
        self.setting("wafv2AclArn", of_class, name, || self.annotations.string(name))
    }

    /// The subnets of the load balancer, where they are not to be found by their role.
    pub(super) fn subnet_selection(&self) -> Read<SubnetSelection> {
        if let (Some(params), Some(selector)) = (self.params, self.spec().and_then(|spec| spec.subnets.as_ref())) {
            let (field, value) = match (&selector.ids, &selector.tags) {
                (Some(ids), _) => ("subnets.ids", SubnetSelection::Named(ids.clone())),
                (None, tags) => ("subnets.tags", SubnetSelection::Tagged(tags.clone().unwrap_or_default())),
            };
            return Ok(Some(Sourced { value, place: FieldRef::params(params, field) }));
        }
        let read = || self.annotations.string_list(keys::SUBNETS);
        Ok(self.setting("subnets", None, keys::SUBNETS, read)?.map(|setting| setting.map(SubnetSelection::Named)))
    }

    /// The target type for a backend: the class's over the Service's and the Ingress's.
    pub(super) fn target_type(&self, service: &Service) -> Result<Option<TargetType>, AnnotationError> {
        match self.spec().and_then(|spec| spec.target_type) {
            Some(class::TargetType::Instance) => Ok(Some(TargetType::Instance)),
            Some(class::TargetType::Ip) => Ok(Some(TargetType::Ip)),
            None => {
                let word = self.layered(Some(service)).enumerated(keys::TARGET_TYPE, TargetType::WORDS)?;
                Ok(word.and_then(TargetType::from_word))
            }
        }
    }

    /// The tags of the class, which win over those of annotations.
    pub(super) fn params_tags(&self) -> Tags {
        let tags = self.spec().and_then(|spec| spec.tags.as_ref());
        tags.into_iter().flatten().map(|tag| (tag.key.clone(), tag.value.clone())).collect()
    }

    /// The attributes of the load balancer that the class sets, which win key by key.
    pub(super) fn params_load_balancer_attributes(&self) -> Attributes {
        attributes(self.spec().and_then(|spec| spec.load_balancer_attributes.as_ref()))
    }

    /// Returns the IPAM pool of the class.
    pub(super) fn params_ipam_pool(&self) -> Option<Sourced<String>> {
        let params = self.params?;
        let pool = params.spec.ipam_configuration.as_ref().and_then(|ipam| text(ipam.ipv4_ipam_pool_id.as_ref()))?;
        Some(Sourced { value: pool, place: FieldRef::params(params, "ipamConfiguration.ipv4IPAMPoolId") })
    }

    /// Returns the capacity that the class reserves; `None` within for one that is negative.
    pub(super) fn params_capacity(&self) -> Option<Sourced<Option<CapacityUnits>>> {
        let params = self.params?;
        let capacity = params.spec.minimum_load_balancer_capacity.as_ref()?;
        let place = FieldRef::params(params, "minimumLoadBalancerCapacity.capacityUnits");
        Some(Sourced { value: CapacityUnits::new(capacity.capacity_units), place })
    }

    /// The attributes of a listener that the class sets, which win key by key.
    pub(super) fn params_listener_attributes(&self, protocol: ListenerProtocol, port: u16) -> Attributes {
        let listeners = self.spec().and_then(|spec| spec.listeners.as_ref()).into_iter().flatten();
        let mut of_this = listeners.filter(|listener| {
            listener.protocol.as_deref() == Some(protocol.as_str()) && listener.port == Some(i32::from(port))
        });
        attributes(of_this.next().and_then(|listener| listener.listener_attributes.as_ref()))
    }

    /// Returns the field of the class that overrides an annotation. `None` where it is not set.
    pub(super) fn place_in_class(&self, annotation: Key) -> Option<FieldRef> {
        let place = match annotation {
            keys::LOAD_BALANCER_NAME => self.load_balancer_name().ok()??.place,
            keys::SCHEME => self.scheme().ok()??.place,
            keys::IP_ADDRESS_TYPE => self.ip_address_type().ok()??.place,
            keys::SUBNETS => self.subnet_selection().ok()??.place,
            keys::INBOUND_CIDRS => self.inbound_cidrs().ok()??.place,
            keys::SECURITY_GROUP_PREFIX_LISTS => self.prefix_lists().ok()??.place,
            keys::SSL_POLICY => self.ssl_policy().ok()??.place,
            keys::SSL_REDIRECT => self.ssl_redirect().ok()??.place,
            keys::WAFV2_ACL_NAME => self.web_acl_name().ok()??.place,
            keys::WAFV2_ACL_ARN => self.web_acl_arn().ok()??.place,
            _ => return None,
        };
        Some(place).filter(|place| place.object != ObjectReference::ingress(&self.ingress.name))
    }
}

impl<'a> Builder<'a> {
    /// Reports a mistake in a setting at its place, and where that is the class, also on the Ingress whose owner
    /// waits for it.
    pub(super) fn wrong(
        &mut self,
        ingress: &Ingress,
        code: Code,
        place: &FieldRef,
        severity: Severity,
        message: &str,
        fix: &str,
    ) -> Failed {
        let object = ObjectReference::ingress(&ingress.name);
        if place.object != object {
            let (reported, field) = (format!("{}, {}: {message}", place.object, place.field), "spec.ingressClassName");
            self.sink.report(severity, object, code, field, &reported, fix);
        }
        self.sink.report(severity, place.object.clone(), code, &place.field, message, fix)
    }

    /// Reports values that the schema of IngressClassParams, or a webhook of aws-load-balancer-controller, would have refused.
    pub(super) fn check_params(&mut self, member: Member<'a>) -> Result<(), Failed> {
        let Some(params) = member.params else { return Ok(()) };
        let mut failed = false;
        for (field, message, fix) in mistakes(&params.spec) {
            let place = FieldRef::params(params, &field);
            self.wrong(member.ingress, Code::InvalidValue, &place, Severity::Error, &message, &fix);
            failed = true;
        }
        if failed { Err(Failed) } else { Ok(()) }
    }
}

/// Field, what is wrong with it, and what to do.
pub(super) fn mistakes(spec: &IngressClassParamsSpec) -> Vec<(String, String, String)> {
    let mut found: Vec<(String, String, String)> = Vec::new();
    let mut wrong = |field: &str, message: String, fix: &str| found.push((field.to_owned(), message, fix.to_owned()));
    for (index, written) in spec.inbound_cidrs.iter().flatten().enumerate() {
        let field = format!("inboundCIDRs[{index}]");
        match written.parse::<IpNet>() {
            Err(_) => {
                let message = format!("`{written}` is not an address range");
                wrong(&field, message, "write ranges such as `10.0.0.0/8` or `2001:db8::/32`");
            }
            Ok(range) if range.addr() != range.network() => {
                let (alone, kept) = (if range.addr().is_ipv4() { 32 } else { 64 }, range.trunc());
                let message = format!("`{written}` has bits behind its prefix");
                wrong(&field, message, &format!("write `{}/{alone}` or `{kept}`", range.addr()));
            }
            Ok(_) => {}
        }
    }
    let pool = spec.ipam_configuration.as_ref().and_then(|ipam| text(ipam.ipv4_ipam_pool_id.as_ref()));
    if let Some(Err(invalid)) = pool.map(IpamPoolId::new) {
        wrong("ipamConfiguration.ipv4IPAMPoolId", invalid.to_string(), &invalid.fix());
    }
    let capacity = spec.minimum_load_balancer_capacity.as_ref().map(|capacity| capacity.capacity_units);
    if let Some(units) = capacity.filter(|units| CapacityUnits::new(*units).is_none()) {
        let message = format!("`{units}` is not a number of capacity units");
        wrong("minimumLoadBalancerCapacity.capacityUnits", message, "write a number; 0 ends the reservation");
    }
    if let Some(port) = text(spec.ssl_redirect_port.as_ref()).filter(|port| port.parse::<i32>().is_err()) {
        wrong(
            "sslRedirectPort",
            format!("`{port}` is not a valid port"),
            "write the number of an HTTPS port, such as `443`",
        );
    }
    if let Some(subnets) = &spec.subnets {
        let one = "set exactly one of `ids` and `tags`";
        match (&subnets.ids, &subnets.tags) {
            (Some(_), Some(_)) => wrong("subnets", "both `ids` and `tags` are set".to_owned(), one),
            (None, None) => wrong("subnets", "neither `ids` nor `tags` is set".to_owned(), one),
            (Some(ids), None) => {
                if ids.is_empty() {
                    wrong(
                        "subnets.ids",
                        "the list is empty".to_owned(),
                        "name subnets such as `subnet-0123456789abcdef0`",
                    );
                }
                if let Some(id) = ids.iter().find(|id| !id.starts_with("subnet-")) {
                    let fix = "write identifiers such as `subnet-0123456789abcdef0`";
                    wrong("subnets.ids", format!("`{id}` is not the identifier of a subnet"), fix);
                }
                if let Some(twice) = twice(ids) {
                    wrong("subnets.ids", format!("`{twice}` is named twice"), "name each subnet once");
                }
            }
            (None, Some(tags)) => {
                if tags.is_empty() {
                    wrong("subnets.tags", "it names no tag".to_owned(), "name a tag and its values");
                }
                for (key, values) in tags {
                    let field = format!("subnets.tags[{key}]");
                    if values.is_empty() {
                        wrong(&field, "it names no value".to_owned(), "name the values that the tag may have");
                    }
                    if let Some(twice) = twice(values) {
                        wrong(&field, format!("the value `{twice}` is named twice"), "name each value once");
                    }
                }
            }
        }
    }
    if spec.prefix_lists_ids.is_some() && spec.prefix_lists_ids_legacy.is_some() {
        let message = "`PrefixListsIDs` is set too, its old spelling".to_owned();
        wrong("prefixListsIDs", message, "keep one of the two");
    }
    found
}

fn twice(values: &[String]) -> Option<&String> {
    let mut seen = BTreeSet::new();
    values.iter().find(|value| !seen.insert(*value))
}
