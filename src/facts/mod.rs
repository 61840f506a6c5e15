//! What must be known of AWS before building, asked for as data.

pub mod subnets;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Scheme, SecurityGroupId, SubnetId};

/// Something that building asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// The subnets that a new load balancer of this scheme goes to.
    Subnets(Scheme),
    /// The security group that all load balancers of the cluster share.
    BackendSecurityGroup,
}

/// What is known of something that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact<T> {
    /// So it is.
    Known(T),
    /// AWS has answered, and there is no such thing; the text says why and what to do, for the object that asks.
    Absent {
        /// What is wrong.
        message: String,
        /// What to do.
        fix: String,
    },
    /// Not to be had right now: who asks waits, and nothing of it changes.
    Unavailable(String),
    /// Nobody asks AWS (a plan of files): known after apply.
    AfterApply(&'static str),
}

/// What is known for one build. What is not in it yet is asked for with [`Want`].
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// By scheme.
    pub subnets: BTreeMap<Scheme, Fact<Vec<SubnetId>>>,
    /// The shared security group.
    pub backend_security_group: Option<Fact<SecurityGroupId>>,
    /// Our own load balancer as it is now, where there is one.
    pub incumbent: Option<Incumbent>,
}

/// What of an existing load balancer decides over the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incumbent {
    /// Its scheme.
    pub scheme: Scheme,
    /// Its subnets: kept as long as the scheme stays, also when others carry the tags by now.
    pub subnets: BTreeSet<SubnetId>,
}

impl Facts {
    /// What a build knows that may ask neither AWS nor a cluster.
    #[must_use]
    pub fn offline() -> Self {
        let subnets = "subnets are found by their tags in the VPC";
        Self {
            subnets: [Scheme::Internal, Scheme::InternetFacing].map(|s| (s, Fact::AfterApply(subnets))).into(),
            backend_security_group: Some(Fact::AfterApply("shared by all load balancers of the cluster")),
            incumbent: None,
        }
    }
}
