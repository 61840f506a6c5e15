//! The frame of the passes: flags, start, lease, queue, metrics and the admin server.

pub mod admin;
pub mod flags;
pub mod lease;
pub(crate) mod location_discovery;
pub mod metrics;
pub(crate) mod queue;
pub mod start;
pub mod write_permit;
