//! The decisions of albatross, as pure functions over plain data: no I/O but the reading of manifests ([`snapshot`]), no
//! clock, no async, no client of Kubernetes or AWS. The order of iteration is always defined. `ARCHITECTURE.md` describes
//! the rooms.

pub mod admission;
pub mod api;
pub mod dependents;
pub mod desired;
pub mod diagnostics;
pub mod drain;
pub mod dry_run_plan;
pub mod facts;
pub mod model;
pub mod permissions;
pub mod plan;
pub mod quic;
pub mod record;
pub mod route;
pub mod snapshot;
pub mod targets;
#[doc(hidden)]
pub mod testing;
