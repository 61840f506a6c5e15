//! The load balancer itself: scheme, subnets and addresses, attributes, name (reference: service §7, §8).

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    ATTRIBUTES, Builder, key,
    listeners::ListenerPort,
    security_group::{Access, TargetAccess},
};
use crate::{
    api::annotations::{Key, registry::service as keys},
    desired::{
        diagnostic_sink::Failed,
        shared::{
            self, capacity,
            subnets::{self, Unchosen},
        },
    },
    diagnostics::Code,
    facts::{FactQuery, Subnet, SubnetQuery},
    model::{
        AddOns, AddressPools, Attributes, CapacityUnits, IpAddressType, LoadBalancer, LoadBalancerKind,
        LoadBalancerName, NetworkSettings, Requested, ResourceId, Scheme, SourceNatPrefix, SubnetMapping, Tags, Value,
        names,
    },
};

const SCHEME: Key = keys::SCHEME;
const INTERNAL: Key = keys::INTERNAL;
const SUBNETS: Key = keys::SUBNETS;
const ELASTIC_ADDRESSES: Key = keys::EIP_ALLOCATIONS;
const PRIVATE_ADDRESSES: Key = keys::PRIVATE_IPV4_ADDRESSES;
const ADDRESS_TYPE: Key = keys::IP_ADDRESS_TYPE;
const IPV6_ADDRESSES: Key = keys::IPV6_ADDRESSES;
const SOURCE_NAT: Key = keys::ENABLE_PREFIX_FOR_IPV6_SOURCE_NAT;
const SOURCE_NAT_PREFIXES: Key = keys::SOURCE_NAT_IPV6_PREFIXES;
const CAPACITY: Key = keys::MINIMUM_LOAD_BALANCER_CAPACITY;
const NAME: Key = keys::NAME;
const CLIENT_ROUTING: &str = "dns_record.client_routing_policy";
const CLIENT_ROUTING_POLICIES: [&str; 3] =
    ["any_availability_zone", "partial_availability_zone_affinity", "availability_zone_affinity"];

/// The placement of a load balancer in the VPC.
pub(super) struct Placement {
    pub(super) scheme: Scheme,
    pub(super) address_type: IpAddressType,
    /// True if subnets give prefixes from which packets of IPv6 clients are sent on.
    ipv6_source_nat: bool,
    /// Their blocks are known only where something depends on them.
    pub(super) subnets: Value<Vec<Subnet>>,
}

impl Builder<'_> {
    pub(super) fn placement(
        &mut self,
        scheme: Scheme,
        address_type: IpAddressType,
        access: Option<&Access>,
    ) -> Result<Placement, Failed> {
        let ipv6_source_nat = self.source_nat(address_type);
        let by_addresses = access.is_some_and(|access| matches!(access.targets, TargetAccess::Addresses));
        let needs_blocks = by_addresses || self.annotations.contains(PRIVATE_ADDRESSES);
        let subnets = self.subnets(scheme, address_type, needs_blocks);
        Ok(Placement { scheme, address_type, ipv6_source_nat: ipv6_source_nat?, subnets: subnets? })
    }

    pub(super) fn address_type(&mut self) -> Result<IpAddressType, Failed> {
        let word = self.value(self.annotations.enumerated(ADDRESS_TYPE, IpAddressType::OF_NETWORK_LOAD_BALANCERS))?;
        Ok(word.and_then(IpAddressType::from_word).unwrap_or(IpAddressType::Ipv4))
    }

    fn source_nat(&mut self, address_type: IpAddressType) -> Result<bool, Failed> {
        let on = self.value(self.annotations.enumerated(SOURCE_NAT, &["on", "off"]))? == Some("on");
        if on && !address_type.has_ipv6() {
            return Err(self.needs_dualstack(SOURCE_NAT, "prefixes for IPv6 source translation"));
        }
        Ok(on)
    }

    /// Reports an annotation for IPv6 where the load balancer has only IPv4.
    fn needs_dualstack(&mut self, field: Key, things: &str) -> Failed {
        let message = format!("the load balancer has only IPv4 addresses, and only a dualstack one can have {things}");
        let fix = format!("write `dualstack` in `{}`, or remove the annotation", key(ADDRESS_TYPE));
        self.error(Code::InvalidValue, &key(field), &message, &fix)
    }

    /// Refuses UDP on a dualstack load balancer that does not translate the addresses of IPv6 clients: AWS would refuse the
    /// listener.
    pub(super) fn check_source_nat(
        &mut self,
        listener_ports: &[ListenerPort<'_>],
        placement: Option<&Placement>,
    ) -> Result<(), Failed> {
        let Some(placement) = placement.filter(|placement| placement.address_type.has_ipv6()) else { return Ok(()) };
        // QUIC is refused with any addresses of IPv6.
        let udp = listener_ports.iter().find(|port| port.target_group.has_udp() && !port.target_group.is_quic());
        let Some(udp) = udp.filter(|_| !placement.ipv6_source_nat) else { return Ok(()) };
        let message = format!(
            "a dualstack load balancer takes UDP, as port {} requests, only with IPv6 source translation",
            udp.port.port
        );
        let fix = format!("write `on` in `{}`, or `ipv4` in `{}`", key(SOURCE_NAT), key(ADDRESS_TYPE));
        Err(self.error(Code::Unsupported, &format!("{}.protocol", udp.field()), &message, &fix))
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

    fn subnets(
        &mut self,
        scheme: Scheme,
        address_type: IpAddressType,
        needs_blocks: bool,
    ) -> Result<Value<Vec<Subnet>>, Failed> {
        let (kind, ipv6) = (LoadBalancerKind::Network, address_type.has_ipv6());
        let named = self.value(self.annotations.string_list(SUBNETS))?;
        let (query, field) = match named {
            Some(names) if names.is_empty() => {
                let fix = "name subnets by id or by their tag `Name`, or remove the annotation";
                return Err(self.error(Code::Subnets, &key(SUBNETS), "the annotation names no subnet", fix));
            }
            Some(names) => (SubnetQuery::Named { kind, names, ipv6 }, key(SUBNETS)),
            // They are kept, but whether they can have IPv6 addresses is reported here, and not by AWS.
            None => match subnets::unchosen(self.facts, kind, scheme, ipv6, needs_blocks || ipv6) {
                Unchosen::Checked(query) => (query, key(if ipv6 { ADDRESS_TYPE } else { SUBNETS })),
                Unchosen::Discovered(query) => (query, key(SCHEME)),
                Unchosen::Kept(kept) => {
                    return Ok(Value::Known(kept.iter().cloned().map(Subnet::of_unknown_blocks).collect()));
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
        let capacity = self.capacity();
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
            ip_address_type: placement.address_type,
            network: NetworkSettings {
                ipv6_source_nat: placement.ipv6_source_nat,
                private_link_rules: access.private_link_rules,
            },
            pools: AddressPools::default(),
            subnets: subnets?,
            security_groups: access.security_groups.clone(),
            attributes: attributes?,
            attribute_causes: std::collections::BTreeMap::new(),
            add_ons: AddOns { capacity: capacity?, ..AddOns::default() },
            tags: self.tags(&ResourceId::load_balancer(), user_tags),
            cause: self.cause("spec"),
        })
    }

    fn capacity(&mut self) -> Result<Option<Requested<CapacityUnits>>, Failed> {
        let entries = self.value(self.annotations.string_map(CAPACITY))?.unwrap_or_default();
        let requested = capacity::requested(&entries)
            .map_err(|message| self.error(Code::InvalidValue, &key(CAPACITY), &message, capacity::FIX))?;
        if requested.is_some() && !self.config.capacity_reservation {
            self.warning(Code::NoEffect, &key(CAPACITY), capacity::GATE, capacity::GATE_FIX);
            return Ok(None);
        }
        Ok(requested.map(|value| Requested { value, cause: self.cause(key(CAPACITY)) }))
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
        let elastic = self.addresses_of_scheme(ELASTIC_ADDRESSES, Scheme::InternetFacing, placement);
        let private = self.addresses_of_scheme(PRIVATE_ADDRESSES, Scheme::Internal, placement);
        let ipv6 = self.ipv6_addresses(placement);
        let prefixes = self.source_nat_prefixes(placement);
        let (elastic, private, ipv6, prefixes) = (elastic?, private?, ipv6?, prefixes?);
        let subnets = match &placement.subnets {
            Value::Known(subnets) => subnets,
            Value::AfterApply(why) => return Ok(Value::AfterApply(why)),
        };
        let private = self.placed(PRIVATE_ADDRESSES, private.as_deref(), subnets, |subnet| &subnet.ipv4_blocks);
        let ipv6 = self.placed(IPV6_ADDRESSES, ipv6.as_deref(), subnets, |subnet| &subnet.ipv6_blocks);
        let prefixes = self.prefixes_within(prefixes.unwrap_or_default(), subnets);
        let (private, ipv6, prefixes) = (private?, ipv6?, prefixes?);
        let mut mappings: Vec<SubnetMapping> =
            subnets.iter().map(|subnet| SubnetMapping::plain(subnet.id.clone())).collect();
        for (mapping, allocation) in mappings.iter_mut().zip(elastic.unwrap_or_default()) {
            mapping.allocation = Some(allocation);
        }
        for (mapping, address) in mappings.iter_mut().zip(private) {
            mapping.private_ipv4 = Some(address);
        }
        for (mapping, address) in mappings.iter_mut().zip(ipv6) {
            mapping.ipv6 = Some(address);
        }
        for (mapping, prefix) in mappings.iter_mut().zip(prefixes) {
            mapping.source_nat_prefix = Some(prefix);
        }
        Ok(Value::Known(mappings))
    }

    /// Returns the addresses of one family in the order of the subnets that contain them, exactly one in each; none if none
    /// are written.
    fn placed(
        &mut self,
        name: Key,
        written: Option<&[String]>,
        subnets: &[Subnet],
        blocks: impl Fn(&Subnet) -> &Vec<String>,
    ) -> Result<Vec<String>, Failed> {
        let Some(written) = written else { return Ok(Vec::new()) };
        let six = name == IPV6_ADDRESSES;
        let (family, example) = if six { ("IPv6", "2001:db8::5") } else { ("IPv4", "10.0.0.5") };
        let mut outcome = Ok(());
        let mut addresses: Vec<IpAddr> = Vec::new();
        for text in written {
            match text.parse::<IpAddr>() {
                Ok(address) if address.is_ipv6() == six => addresses.push(address),
                _ => {
                    let message = format!("`{text}` is not an {family} address");
                    let fix = format!("write addresses such as `{example}`");
                    outcome = Err(self.error(Code::InvalidValue, &key(name), &message, &fix));
                }
            }
        }
        outcome?;
        let mut outcome = Ok(());
        let mut placed = Vec::new();
        for subnet in subnets {
            let parsed: Vec<ipnet::IpNet> = blocks(subnet).iter().filter_map(|block| block.parse().ok()).collect();
            let within: BTreeSet<&IpAddr> =
                addresses.iter().filter(|address| parsed.iter().any(|block| block.contains(*address))).collect();
            if let (1, Some(address)) = (within.len(), within.first()) {
                placed.push(address.to_string());
                continue;
            }
            let message = format!(
                "{} of the addresses lie in the subnet `{}` ({}), and it needs exactly one",
                within.len(),
                subnet.id,
                blocks(subnet).join(", ")
            );
            let fix = "write one address of each subnet";
            outcome = Err(self.error(Code::InvalidValue, &key(name), &message, fix));
        }
        outcome.map(|()| placed)
    }

    fn ipv6_addresses(&mut self, placement: &Placement) -> Result<Option<Vec<String>>, Failed> {
        let Some(addresses) = self.value(self.annotations.string_list(IPV6_ADDRESSES))? else { return Ok(None) };
        if !placement.address_type.has_ipv6() {
            return Err(self.needs_dualstack(IPV6_ADDRESSES, "IPv6 addresses"));
        }
        self.one_each(IPV6_ADDRESSES, "addresses", addresses, placement).map(Some)
    }

    fn source_nat_prefixes(&mut self, placement: &Placement) -> Result<Option<Vec<SourceNatPrefix>>, Failed> {
        let Some(written) = self.value(self.annotations.string_list(SOURCE_NAT_PREFIXES))? else { return Ok(None) };
        if !placement.address_type.has_ipv6() {
            return Err(self.needs_dualstack(SOURCE_NAT_PREFIXES, "prefixes for IPv6 source translation"));
        }
        if !placement.ipv6_source_nat {
            let fix = format!("write `on` in `{}`, or remove the annotation", key(SOURCE_NAT));
            let message = "the prefixes are for IPv6 source translation, which is off";
            return Err(self.error(Code::InvalidValue, &key(SOURCE_NAT_PREFIXES), message, &fix));
        }
        let written = self.one_each(SOURCE_NAT_PREFIXES, "prefixes", written, placement)?;
        let mut outcome = Ok(());
        let mut prefixes = Vec::new();
        for text in &written {
            match SourceNatPrefix::new(text) {
                Ok(prefix) => prefixes.push(prefix),
                Err(invalid) => {
                    let fix = "write prefixes such as `2001:db8::/80`, or `auto_assigned`";
                    let field = key(SOURCE_NAT_PREFIXES);
                    outcome = Err(self.error(Code::InvalidValue, &field, &invalid.to_string(), fix));
                }
            }
        }
        outcome.map(|()| Some(prefixes))
    }

    /// Returns the prefixes if each lies in the subnet at its place.
    fn prefixes_within(
        &mut self,
        prefixes: Vec<SourceNatPrefix>,
        subnets: &[Subnet],
    ) -> Result<Vec<SourceNatPrefix>, Failed> {
        let mut outcome = Ok(());
        for (prefix, subnet) in prefixes.iter().zip(subnets) {
            let contains = |block: &String| {
                let block = block.parse::<ipnet::Ipv6Net>();
                block.is_ok_and(|block| prefix.fixed().is_none_or(|prefix| block.contains(prefix)))
            };
            if prefix.fixed().is_some() && !subnet.ipv6_blocks.iter().any(contains) {
                let blocks = subnet.ipv6_blocks.join(", ");
                let message = format!("`{prefix}` is not within the subnet `{}` ({blocks})", subnet.id);
                let fix = "write one prefix of each subnet, in the order of the subnets, or `auto_assigned`";
                outcome = Err(self.error(Code::InvalidValue, &key(SOURCE_NAT_PREFIXES), &message, fix));
            }
        }
        outcome.map(|()| prefixes)
    }

    /// Returns the addresses that an annotation chooses, one for each subnet. Only load balancers of one scheme can have
    /// them.
    fn addresses_of_scheme(
        &mut self,
        name: Key,
        of: Scheme,
        placement: &Placement,
    ) -> Result<Option<Vec<String>>, Failed> {
        let Some(addresses) = self.value(self.annotations.string_list(name))? else { return Ok(None) };
        if placement.scheme != of {
            let message =
                format!("the load balancer is {}, and only one that is {of} can have such addresses", placement.scheme);
            let fix = format!("remove the annotation, or write `{of}` in `{}`", key(SCHEME));
            return Err(self.error(Code::InvalidValue, &key(name), &message, &fix));
        }
        self.one_each(name, "addresses", addresses, placement).map(Some)
    }

    /// Returns what an annotation lists if it is one for each subnet.
    fn one_each(
        &mut self,
        name: Key,
        things: &str,
        listed: Vec<String>,
        placement: &Placement,
    ) -> Result<Vec<String>, Failed> {
        if let Value::Known(subnets) = &placement.subnets
            && subnets.len() != listed.len()
        {
            let ids: Vec<&str> = subnets.iter().map(|subnet| subnet.id.as_str()).collect();
            let message = format!(
                "the annotation has {} {things} for {} subnets ({})",
                listed.len(),
                subnets.len(),
                ids.join(", ")
            );
            let fix = format!("write one a subnet, or choose the subnets with `{}`", key(SUBNETS));
            return Err(self.error(Code::InvalidValue, &key(name), &message, &fix));
        }
        Ok(listed)
    }
}
