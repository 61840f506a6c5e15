//! All that is spoken with AWS: clients, errors with their cures, the conversion to [`crate::model`], and the
//! [`Inventory`] of what AWS has, which our own writes keep true.

mod acm;
mod budget;
mod calls;
mod client;
mod convert;
mod credentials;
mod ec2;
mod elb;
mod environment;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod http;
mod inventory;
mod metadata;
mod region;
mod targets;

pub(crate) use acm::ListedCertificate;
pub use budget::{BudgetState, FixedLimit, Priority, ThrottleError, current_priority, parse_throttle, with_priority};
pub use calls::{CallObserver, RequestResult};
pub use client::{Aws, ConnectError, ConnectOptions, parse_endpoints};
pub use ec2::{InstanceInfo, InterfaceInfo, RouteTableInfo, SubnetInfo, VpcBlocks, ZoneInfo};
pub use error::{AwsError, AwsErrorKind};
pub use http::AwsHttp;
pub use inventory::Inventory;
pub(crate) use inventory::{Named, Tagging};
pub use metadata::Instance;
pub use region::{configured_region, region_of_zone};
pub use targets::{EVERY_ZONE, Registration, Target, TargetHealth};

pub(crate) use elb::{NewListener, NewLoadBalancer, NewRule};
