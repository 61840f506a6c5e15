//! The settings that only Network Load Balancers have.

use std::{collections::BTreeMap, fmt};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use super::{SubnetId, SubnetMapping};

/// The length of the prefixes that AWS takes for source NAT.
const PREFIX_LENGTH: u8 = 80;

/// The desired settings. An Application Load Balancer has those of `Default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NetworkSettings {
    /// `EnablePrefixForIpv6SourceNat`: true if the load balancer sends the packets of IPv6 clients from prefixes of its
    /// subnets, which UDP needs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ipv6_source_nat: bool,
    /// `EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic`: true if the rules of the security groups apply to what comes
    /// through PrivateLink too. `None` leaves it unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_link_rules: Option<bool>,
}

impl NetworkSettings {
    /// Returns true if nothing differs from the settings of a load balancer for which none is requested.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The observed settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNetworkSettings {
    /// `EnablePrefixForIpv6SourceNat`
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ipv6_source_nat: bool,
    /// The prefix for source NAT in each subnet that has one, as AWS writes it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source_nat_prefixes: BTreeMap<SubnetId, String>,
    /// `EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic`; `None` if AWS does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_link_rules: Option<bool>,
}

impl ObservedNetworkSettings {
    /// Returns true if AWS reports none.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns true if the subnet of a mapping has the prefix for source NAT that the mapping requests, or if it requests none.
    #[must_use]
    pub fn has_prefix_of(&self, mapping: &SubnetMapping) -> bool {
        match mapping.source_nat_prefix.as_ref().and_then(SourceNatPrefix::fixed) {
            None => true,
            Some(wanted) => {
                let observed = self.source_nat_prefixes.get(&mapping.subnet);
                observed.and_then(|text| text.parse::<Ipv6Net>().ok()).is_some_and(|observed| observed == *wanted)
            }
        }
    }

    /// Returns the state after SetSubnets with these mappings, to which AWS has answered with these prefixes.
    #[must_use]
    pub fn placed(
        &self,
        ipv6_source_nat: bool,
        mappings: &[SubnetMapping],
        answered: BTreeMap<SubnetId, String>,
    ) -> Self {
        let requested = mappings.iter().filter_map(|mapping| {
            let prefix = mapping.source_nat_prefix.as_ref()?.fixed()?;
            Some((mapping.subnet.clone(), prefix.to_string()))
        });
        let mut source_nat_prefixes = BTreeMap::new();
        if ipv6_source_nat {
            source_nat_prefixes = answered;
            source_nat_prefixes.extend(requested);
        }
        Self { ipv6_source_nat, source_nat_prefixes, private_link_rules: self.private_link_rules }
    }
}

/// `SourceNatIpv6Prefix` of a subnet: a prefix of 80 bits, or AWS chooses one. Only a checked text is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceNatPrefix(Option<Ipv6Net>);

/// A text that is not a prefix for source NAT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSourceNatPrefix {
    /// The text is not a block of IPv6.
    #[error("`{0}` is neither an IPv6 prefix nor `auto_assigned`")]
    NoPrefix(String),
    /// The block is of another size.
    #[error("`{0}` has a length other than {PREFIX_LENGTH}, the only one that AWS takes")]
    OtherLength(String),
}

impl SourceNatPrefix {
    /// The text with which AWS is told to choose.
    pub const AUTO_ASSIGNED: &'static str = "auto_assigned";

    /// Checks that the text is a prefix of 80 bits or [`Self::AUTO_ASSIGNED`].
    ///
    /// # Errors
    /// When it is neither.
    pub fn new(text: &str) -> Result<Self, InvalidSourceNatPrefix> {
        if text == Self::AUTO_ASSIGNED {
            return Ok(Self(None));
        }
        let prefix: Ipv6Net = text.parse().map_err(|_| InvalidSourceNatPrefix::NoPrefix(text.to_owned()))?;
        match prefix.prefix_len() == PREFIX_LENGTH {
            true => Ok(Self(Some(prefix.trunc()))),
            false => Err(InvalidSourceNatPrefix::OtherLength(text.to_owned())),
        }
    }

    /// Returns the prefix; `None` if AWS chooses.
    #[must_use]
    pub fn fixed(&self) -> Option<&Ipv6Net> {
        self.0.as_ref()
    }
}

impl fmt::Display for SourceNatPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(prefix) => prefix.fmt(f),
            None => f.write_str(Self::AUTO_ASSIGNED),
        }
    }
}

impl Serialize for SourceNatPrefix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let said = |text: &str| match SourceNatPrefix::new(text) {
            Ok(prefix) => prefix.to_string(),
            Err(invalid) => invalid.to_string(),
        };
        for (text, expected) in [
            ("auto_assigned", "auto_assigned"),
            ("2001:DB8:0::/80", "2001:db8::/80"),
            ("2001:db8::1/80", "2001:db8::/80"),
            ("2001:db8::/64", "`2001:db8::/64` has a length other than 80, the only one that AWS takes"),
            ("2001:db8::", "`2001:db8::` is neither an IPv6 prefix nor `auto_assigned`"),
            ("10.0.0.0/8", "`10.0.0.0/8` is neither an IPv6 prefix nor `auto_assigned`"),
        ] {
            assert_eq!(said(text), expected);
        }
    }

    #[test]
    fn prefixes_are_compared_with_those_in_aws() {
        let subnet = || SubnetId::new("subnet-a");
        let wanted = |prefix: Option<&str>| SubnetMapping {
            source_nat_prefix: prefix.map(|prefix| SourceNatPrefix::new(prefix).unwrap()),
            ..SubnetMapping::plain(subnet())
        };
        let known = ObservedNetworkSettings {
            ipv6_source_nat: true,
            source_nat_prefixes: BTreeMap::from([(subnet(), "2001:db8:0:0::/80".to_owned())]),
            private_link_rules: None,
        };
        for (prefix, has) in [
            (None, true),
            (Some("auto_assigned"), true),
            (Some("2001:db8::/80"), true),
            (Some("2001:db8:0:0:1::/80"), false),
        ] {
            assert_eq!(known.has_prefix_of(&wanted(prefix)), has, "{prefix:?}");
        }
        let fixed = [wanted(Some("2001:db8:0:0:1::/80"))];
        // AWS may answer before it has assigned them.
        let placed = known.placed(true, &fixed, BTreeMap::new());
        assert!(placed.has_prefix_of(&fixed[0]));
        assert_eq!(known.placed(false, &fixed, BTreeMap::new()), ObservedNetworkSettings::default());
    }
}
