//! The load balancer itself: scheme, subnets and addresses, attributes, name (reference: service §7, §8).

use std::net::Ipv4Addr;

use super::{
    ATTRIBUTES, Builder, key,
    security_group::{Access, TargetAccess},
};
use crate::{
    api::annotations::{Key, registry::service as keys},
    desired::{
        diagnostic_sink::Failed,
        shared::{
            self,
            subnets::{self, Unchosen},
        },
    },
    diagnostics::Code,
    facts::{FactQuery, Subnet, SubnetQuery},
    model::{
        AddOns, Attributes, IpAddressType, LoadBalancer, LoadBalancerKind, LoadBalancerName, ResourceId, Scheme,
        SubnetMapping, Tags, Value, names,
    },
};

const SCHEME: Key = keys::SCHEME;
const INTERNAL: Key = keys::INTERNAL;
const SUBNETS: Key = keys::SUBNETS;
const ELASTIC_ADDRESSES: Key = keys::EIP_ALLOCATIONS;
const PRIVATE_ADDRESSES: Key = keys::PRIVATE_IPV4_ADDRESSES;
const NAME: Key = keys::NAME;
const CLIENT_ROUTING: &str = "dns_record.client_routing_policy";
const CLIENT_ROUTING_POLICIES: [&str; 3] =
    ["any_availability_zone", "partial_availability_zone_affinity", "availability_zone_affinity"];

/// The placement of a load balancer in the VPC.
pub(super) struct Placement {
    pub(super) scheme: Scheme,
    /// Their blocks are known only where something depends on them.
    pub(super) subnets: Value<Vec<Subnet>>,
}

impl Builder<'_> {
    pub(super) fn placement(&mut self, scheme: Scheme, access: Option<&Access>) -> Result<Placement, Failed> {
        let by_addresses = access.is_some_and(|access| matches!(access.targets, TargetAccess::Addresses));
        let needs_blocks = by_addresses || self.annotations.contains(PRIVATE_ADDRESSES);
        Ok(Placement { scheme, subnets: self.subnets(scheme, needs_blocks)? })
    }

    fn internal(&mut self) -> Result<Option<bool>, Failed> {
        let written = self.annotations.value(INTERNAL).map(|(_, value)| value.trim());
        let Some(block) = written.filter(|value| value.parse::<ipnet::IpNet>().is_ok()) else {
            return self.value(self.annotations.bool(INTERNAL));
        };
        let message = format!("`{block}` was the in-tree provider's way to write `true`");
        let fix = format!("write `true`, or `internal` in `{}`", key(SCHEME));
        Err(self.error(Code::InvalidValue, &key(INTERNAL), &message, &fix))
    }

    pub(super) fn scheme(&mut self) -> Result<Scheme, Failed> {
        let word = self.value(self.annotations.enumerated(SCHEME, Scheme::WORDS))?.and_then(Scheme::from_word);
        let scheme = match word {
            Some(scheme) => Some(scheme),
            None => self.internal()?.map(|internal| match internal {
                true => Scheme::Internal,
                false => Scheme::InternetFacing,
            }),
        };
        // A Service without these annotations keeps the scheme of its load balancer.
        let usual = || self.facts.existing.as_ref().map_or(self.config.default_scheme, |existing| existing.scheme);
        Ok(scheme.unwrap_or_else(usual))
    }

    /// Returns true if the load balancer is, or will be made, in security groups: one that is in none cannot be given any, and neither
    /// can the one that replaces it. `None` where there is none yet.
    pub(super) fn is_in_groups(&self, scheme: Option<Scheme>) -> Option<bool> {
        let existing = scheme.and_then(|scheme| subnets::existing_of_scheme(self.facts, scheme));
        let existing = existing.or(self.facts.existing.as_ref());
        existing.map(|existing| existing.has_security_groups)
    }

    /// Refuses a load balancer of another scheme that cannot be created next to the one that serves, as both would have the same
    /// name.
    fn check_replacement(&mut self, scheme: Scheme, name: Option<&LoadBalancerName>) -> Result<(), Failed> {
        let Some(existing) = subnets::replaced_by(self.facts, scheme) else { return Ok(()) };
        let Some(name) = name.filter(|name| self.facts.names.contains(name.as_str())) else { return Ok(()) };
        let message = format!(
            "the scheme becomes {scheme}, which needs another load balancer than the one that is {}, and two cannot have the name `{name}` while one takes over from the other",
            existing.scheme
        );
        let fix = "give it another name too, or leave the scheme as it is";
        Err(self.error(Code::ReplacementNeeded, &key(NAME), &message, fix))
    }

    fn subnets(&mut self, scheme: Scheme, needs_blocks: bool) -> Result<Value<Vec<Subnet>>, Failed> {
        let kind = LoadBalancerKind::Network;
        let named = self.value(self.annotations.string_list(SUBNETS))?;
        let (query, field) = match named {
            Some(names) if names.is_empty() => {
                let fix = "name subnets by id or by their tag `Name`, or remove the annotation";
                return Err(self.error(Code::Subnets, &key(SUBNETS), "the annotation names no subnet", fix));
            }
            Some(names) => (SubnetQuery::Named { kind, names, ipv6: false }, key(SUBNETS)),
            None => match subnets::unchosen(self.facts, kind, scheme, false, needs_blocks) {
                Unchosen::Checked(query) => (query, key(SUBNETS)),
                Unchosen::Discovered(query) => (query, key(SCHEME)),
                Unchosen::Kept(kept) => {
                    let kept = kept.iter().map(|id| Subnet { id: id.clone(), ipv4_blocks: Vec::new() });
                    return Ok(Value::Known(kept.collect()));
                }
            },
        };
        let fact = self.facts.subnets(&query);
        self.sink.resolve(fact, FactQuery::Subnets(query), self.object(), Code::Subnets, &field)
    }

    pub(super) fn load_balancer(
        &mut self,
        access: Option<&Access>,
        placement: Option<&Placement>,
        user_tags: Option<&Tags>,
    ) -> Result<LoadBalancer, Failed> {
        let attributes = self.attributes();
        let given_name = self.given_name();
        let (access, placement, user_tags) =
            (access.ok_or(Failed)?, placement.ok_or(Failed)?, user_tags.ok_or(Failed)?);
        let subnets = self.mappings(placement);
        let given_name = given_name?;
        self.check_replacement(placement.scheme, given_name.as_ref())?;
        let name = match given_name {
            Some(name) => Value::Known(name),
            None => {
                let name = self.named(|cluster, uid| {
                    names::network_load_balancer(cluster, &self.service.name, uid, placement.scheme)
                });
                shared::names::valid(name).map_err(|invalid| {
                    let fix = format!("name it with the annotation `{}`", key(NAME));
                    self.error(Code::InvalidValue, "metadata.name", &invalid.to_string(), &fix)
                })?
            }
        };
        Ok(LoadBalancer {
            kind: LoadBalancerKind::Network,
            name,
            scheme: placement.scheme,
            ip_address_type: IpAddressType::Ipv4,
            subnets: subnets?,
            security_groups: access.security_groups.clone(),
            attributes: attributes?,
            attribute_causes: std::collections::BTreeMap::new(),
            add_ons: AddOns::default(),
            tags: self.tags(&ResourceId::load_balancer(), user_tags),
            cause: self.cause("spec"),
        })
    }

    fn given_name(&mut self) -> Result<Option<LoadBalancerName>, Failed> {
        let name = self.value(self.annotations.string(NAME))?;
        name.map(LoadBalancerName::new)
            .transpose()
            .map_err(|invalid| self.error(Code::InvalidValue, &key(NAME), &invalid.to_string(), "choose another name"))
    }

    fn attributes(&mut self) -> Result<Attributes, Failed> {
        let listed = self.value(self.annotations.string_map(ATTRIBUTES));
        let logs = self.value(self.annotations.bool(keys::ACCESS_LOG_ENABLED));
        let bucket = self.value(self.annotations.string(keys::ACCESS_LOG_S3_BUCKET_NAME));
        let prefix = self.value(self.annotations.string(keys::ACCESS_LOG_S3_BUCKET_PREFIX));
        let cross_zone = self.value(self.annotations.bool(keys::CROSS_ZONE_LOAD_BALANCING_ENABLED));
        let (mut attributes, logs, cross_zone) = (listed?.unwrap_or_default(), logs?, cross_zone?);
        if logs == Some(true) {
            attributes.insert("access_logs.s3.enabled".to_owned(), "true".to_owned());
            let places = [("access_logs.s3.bucket", bucket?), ("access_logs.s3.prefix", prefix?)];
            attributes.extend(places.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        }
        if let Some(cross_zone) = cross_zone {
            attributes.insert("load_balancing.cross_zone.enabled".to_owned(), cross_zone.to_string());
        }
        if let Some(policy) = attributes.get(CLIENT_ROUTING).filter(|p| !CLIENT_ROUTING_POLICIES.contains(&p.as_str()))
        {
            let message = format!("`{CLIENT_ROUTING}={policy}` is not a policy that AWS knows");
            let fix = format!("write one of `{}`", CLIENT_ROUTING_POLICIES.join("`, `"));
            return Err(self.error(Code::InvalidValue, &key(ATTRIBUTES), &message, &fix));
        }
        Ok(attributes)
    }

    /// The subnets with the addresses that the user chooses in them.
    fn mappings(&mut self, placement: &Placement) -> Result<Value<Vec<SubnetMapping>>, Failed> {
        let elastic = self.addresses(ELASTIC_ADDRESSES, Scheme::InternetFacing, placement);
        let private = self.addresses(PRIVATE_ADDRESSES, Scheme::Internal, placement);
        let (elastic, private) = (elastic?, private?);
        let subnets = match &placement.subnets {
            Value::Known(subnets) => subnets,
            Value::AfterApply(why) => return Ok(Value::AfterApply(why)),
        };
        let mut mappings: Vec<SubnetMapping> =
            subnets.iter().map(|subnet| SubnetMapping::plain(subnet.id.clone())).collect();
        for (mapping, allocation) in mappings.iter_mut().zip(elastic.unwrap_or_default()) {
            mapping.allocation = Some(allocation);
        }
        if let Some(private) = private {
            let mut failed = false;
            let mut addresses: Vec<(Ipv4Addr, &String)> = Vec::new();
            for text in &private {
                if let Ok(address) = text.parse() {
                    addresses.push((address, text));
                } else {
                    let message = format!("`{text}` is not an IPv4 address");
                    self.error(
                        Code::InvalidValue,
                        &key(PRIVATE_ADDRESSES),
                        &message,
                        "write addresses such as `10.0.0.5`",
                    );
                    failed = true;
                }
            }
            if failed {
                return Err(Failed);
            }
            for (mapping, subnet) in mappings.iter_mut().zip(subnets) {
                let blocks: Vec<ipnet::Ipv4Net> = subnet.ipv4_blocks.iter().filter_map(|b| b.parse().ok()).collect();
                let within: Vec<&String> = addresses
                    .iter()
                    .filter(|(address, _)| blocks.iter().any(|block| block.contains(address)))
                    .map(|(_, text)| *text)
                    .collect();
                if let [address] = within.as_slice() {
                    mapping.private_ipv4 = Some((*address).clone());
                } else {
                    let message = format!(
                        "{} of the addresses lie in the subnet `{}` ({}), and it needs exactly one",
                        within.len(),
                        subnet.id,
                        subnet.ipv4_blocks.join(", ")
                    );
                    self.error(
                        Code::InvalidValue,
                        &key(PRIVATE_ADDRESSES),
                        &message,
                        "write one address of each subnet",
                    );
                    failed = true;
                }
            }
            if failed {
                return Err(Failed);
            }
        }
        Ok(Value::Known(mappings))
    }

    /// Returns the addresses that an annotation chooses, one for each subnet. Only load balancers of one scheme can have
    /// them.
    fn addresses(&mut self, name: Key, of: Scheme, placement: &Placement) -> Result<Option<Vec<String>>, Failed> {
        let Some(addresses) = self.value(self.annotations.string_list(name))? else { return Ok(None) };
        if placement.scheme != of {
            let message =
                format!("the load balancer is {}, and only one that is {of} can have such addresses", placement.scheme);
            let fix = format!("remove the annotation, or write `{of}` in `{}`", key(SCHEME));
            return Err(self.error(Code::InvalidValue, &key(name), &message, &fix));
        }
        if let Value::Known(subnets) = &placement.subnets
            && subnets.len() != addresses.len()
        {
            let ids: Vec<&str> = subnets.iter().map(|subnet| subnet.id.as_str()).collect();
            let message = format!(
                "the annotation has {} addresses for {} subnets ({})",
                addresses.len(),
                subnets.len(),
                ids.join(", ")
            );
            let fix = format!("write one a subnet, or choose the subnets with `{}`", key(SUBNETS));
            return Err(self.error(Code::InvalidValue, &key(name), &message, &fix));
        }
        Ok(Some(addresses))
    }
}
