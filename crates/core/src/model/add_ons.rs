//! The settings of a load balancer that are requested and read apart from it, and whose failures harm nothing else of it: the
//! web ACL of AWS WAF, the protection of Shield Advanced, and the reserved capacity.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::{Cause, ObjectReference, Value, WebAclArn};

/// The names of the protections that the controller, or its predecessor, has created. No other one is deleted.
const OWN_PROTECTIONS: [&str; 2] = [PROTECTION_NAME, "managed by aws-alb-ingress-controller"];

/// The name of a protection that the controller creates.
pub const PROTECTION_NAME: &str = "managed by aws-load-balancer-controller";

/// A setting that is read and changed apart from the load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum AddOn {
    /// The web ACL of AWS WAF (WAFv2).
    WebAcl,
    /// The protection of Shield Advanced.
    Protection,
    /// The reserved capacity.
    Capacity,
    /// The certificates that ACM is asked for.
    Certificates,
}

impl fmt::Display for AddOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebAcl => "web ACL",
            Self::Protection => "protection of Shield Advanced",
            Self::Capacity => "reserved capacity",
            Self::Certificates => "requested certificates",
        })
    }
}

/// A requested setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Requested<T> {
    /// The value.
    pub value: T,
    /// The cause.
    pub cause: Cause,
}

/// The add-ons that a load balancer is to have. One that is not requested stays as it is, and is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AddOns {
    /// The web ACL; `None` within if it must have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_acl: Option<Requested<Option<Value<WebAclArn>>>>,
    /// True if there is to be a web ACL that cannot be told now: nothing is changed for it, and nothing is served first
    /// without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub web_acl_is_unknown: bool,
    /// The members that request an add-on which cannot be told now, and stays as it is. Left out of serialised plans.
    #[serde(skip)]
    pub lacking: BTreeSet<ObjectReference>,
    /// True if Shield Advanced protects the load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protection: Option<Requested<bool>>,
    /// The capacity that is reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Requested<CapacityUnits>>,
}

impl AddOns {
    /// Returns true if none is requested.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the requester of an add-on.
    #[must_use]
    pub fn cause(&self, add_on: AddOn) -> Option<&Cause> {
        match add_on {
            AddOn::WebAcl => self.web_acl.as_ref().map(|requested| &requested.cause),
            AddOn::Protection => self.protection.as_ref().map(|requested| &requested.cause),
            AddOn::Capacity => self.capacity.as_ref().map(|requested| &requested.cause),
            // They are requested by the stack, and not by its load balancer.
            AddOn::Certificates => None,
        }
    }
}

/// The add-ons that a load balancer has, as far as they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedAddOns {
    /// The web ACL; `None` if it has not been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_acl: Option<Association>,
    /// The protection; `None` if it has not been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
    /// The reserved capacity; `None` if it has not been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<CapacityUnits>,
}

impl ObservedAddOns {
    /// Returns the add-ons of a load balancer that was just created.
    #[must_use]
    pub fn of_new() -> Self {
        Self {
            web_acl: Some(Association::None),
            protection: Some(Protection::None),
            capacity: Some(CapacityUnits::NONE),
        }
    }

    /// Returns true if an add-on has been read.
    #[must_use]
    pub fn is_known(&self, add_on: AddOn) -> bool {
        match add_on {
            AddOn::WebAcl => self.web_acl.is_some(),
            AddOn::Protection => self.protection.is_some(),
            AddOn::Capacity => self.capacity.is_some(),
            // They are read for the stack, and not for its load balancer.
            AddOn::Certificates => true,
        }
    }

    /// Returns true if none has been read.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        *self == Self::default()
    }
}

/// A reserved capacity, in load balancer capacity units (`CapacityUnits` of MinimumLoadBalancerCapacity).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapacityUnits(i32);

impl CapacityUnits {
    /// No capacity is reserved.
    pub const NONE: Self = Self(0);

    /// Returns the capacity; `None` for a negative one.
    #[must_use]
    pub fn new(units: i32) -> Option<Self> {
        (units >= 0).then_some(Self(units))
    }

    /// Returns the capacity that a text gives; `None` if it gives none that AWS's API can take.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().and_then(Self::new)
    }

    /// Returns the number of units.
    #[must_use]
    pub fn units(self) -> i32 {
        self.0
    }
}

impl fmt::Display for CapacityUnits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The web ACL that a load balancer is associated with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Association {
    /// None.
    None,
    /// This one. Its ARN is AWS's, and is not checked.
    WebAcl(String),
}

impl Association {
    /// Returns true if this is the web ACL.
    #[must_use]
    pub fn is(&self, web_acl: &WebAclArn) -> bool {
        matches!(self, Self::WebAcl(arn) if arn == web_acl.as_str())
    }

    /// Returns the name of the web ACL, which is unique in its account and region; `None` if there is none.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::WebAcl(arn) => WebAclArn::name_in(arn),
        }
    }
}

/// The protection that a load balancer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protection {
    /// None.
    None,
    /// This one.
    Exists {
        /// The id.
        id: String,
        /// The name.
        name: String,
    },
}

impl Protection {
    /// Returns the id of a protection that the controller has created.
    #[must_use]
    pub fn own_id(&self) -> Option<&str> {
        match self {
            Self::Exists { id, name } if OWN_PROTECTIONS.contains(&name.as_str()) => Some(id),
            Self::Exists { .. } | Self::None => None,
        }
    }
}
