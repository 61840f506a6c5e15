//! All traffic with AWS: clients, errors with their fixes, the conversion to [`albatross_core::model`], the answers to
//! [`albatross_core::facts`], and the [`Inventory`] of AWS resources, which the controller's own writes keep current.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests hold no lease, and make plans of their own"))]

mod acm;
mod add_ons;
mod budget;
mod calls;
mod client;
mod convert;
mod credentials;
mod ec2;
mod elb;
mod environment;
mod error;
pub mod facts;
mod http;
mod inventory;
mod managed_certificates;
mod metadata;
mod permit;
pub mod proxies;
mod region;
mod roles;
mod targets;
pub mod testing;

pub use acm::ListedCertificate;
pub use budget::{
    BudgetState, FixedLimit, Priority, ThrottleError, Urgency, current_priority, parse_throttle, with_priority,
    with_urgency,
};
pub use calls::{CallObserver, RequestResult};
pub use client::{AwsReader, AwsWriter, ConnectError, ConnectOptions, parse_endpoints};
pub use elb::{NewListener, NewLoadBalancer, NewRule};
pub use error::{AwsError, AwsErrorKind, DeniedBy};
pub use http::AwsHttp;
pub use inventory::{Inventory, ResourceName, Tagging};
pub use metadata::Instance;
pub use permit::{LeaderTerm, WritePermit};
pub use region::{configured_region, region_of_zone};
pub use roles::{RoleClient, Roles};

/// The target of the spans that become traces and are no part of the log.
pub const TRACES: &str = "albatross::traces";
