//! The pools that the IPv4 addresses of a load balancer come from.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! pool_id {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal, $invalid:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks that the text has the form of such an id.
            ///
            /// # Errors
            /// When it has another form.
            pub fn new(id: impl Into<String>) -> Result<Self, InvalidPoolId> {
                let id = id.into();
                match id.strip_prefix($prefix) {
                    Some(rest) if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()) => Ok(Self(id)),
                    _ => Err(InvalidPoolId { id, kind: $invalid, prefix: $prefix }),
                }
            }

            /// Takes the id as AWS gave it.
            #[must_use]
            pub fn known(id: String) -> Self {
                Self(id)
            }

            /// Returns the id in the form that AWS expects.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

pool_id! {
    /// The id of a pool of public IPv4 addresses in IPAM, the address manager of a VPC: `ipam-pool-…`.
    IpamPoolId = "ipam-pool-", "an IPAM pool";
    /// The id of a pool of customer-owned addresses on an Outpost: `ipv4pool-coip-…`.
    CustomerOwnedPoolId = "ipv4pool-coip-", "a pool of customer-owned addresses";
}

/// A text that is not the id of a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{id}` is not the id of {kind}")]
pub struct InvalidPoolId {
    id: String,
    kind: &'static str,
    prefix: &'static str,
}

impl InvalidPoolId {
    /// Returns the fix.
    #[must_use]
    pub fn fix(&self) -> String {
        format!("write an id such as `{}0123456789abcdef0`, or remove the setting", self.prefix)
    }
}

/// The pools that a load balancer is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AddressPools {
    /// `Ipv4IpamPoolId`; `None` if the addresses are Amazon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamPoolId>,
    /// `CustomerOwnedIpv4Pool`, used only at creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_owned: Option<CustomerOwnedPoolId>,
}

impl AddressPools {
    /// Returns true if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The pools that a load balancer has, as AWS writes their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedPools {
    /// `Ipv4IpamPoolId`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<String>,
    /// `CustomerOwnedIpv4Pool`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_owned: Option<String>,
}

impl ObservedPools {
    /// Returns true if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns true if the load balancer takes its addresses from the pool, or from none.
    #[must_use]
    pub fn has_ipam(&self, wanted: Option<&IpamPoolId>) -> bool {
        self.ipam.as_deref() == wanted.map(IpamPoolId::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        assert_eq!(IpamPoolId::new("ipam-pool-0a").unwrap().as_str(), "ipam-pool-0a");
        assert_eq!(CustomerOwnedPoolId::new("ipv4pool-coip-0a").unwrap().as_str(), "ipv4pool-coip-0a");
        for id in ["", "ipam-pool-", "ipam-pool-a b", "ipv4pool-coip-0a"] {
            assert_eq!(IpamPoolId::new(id).unwrap_err().to_string(), format!("`{id}` is not the id of an IPAM pool"));
        }
        let invalid = CustomerOwnedPoolId::new("mine").unwrap_err();
        assert_eq!(
            format!("{invalid}; {}", invalid.fix()),
            "`mine` is not the id of a pool of customer-owned addresses; write an id such as `ipv4pool-coip-0123456789abcdef0`, or remove the setting"
        );
    }
}
