//! What carries the passes: flags, start, lease, queue, metrics and the admin server.

pub mod admin;
pub mod flags;
pub mod lease;
pub(crate) mod mandate;
pub mod metrics;
pub(crate) mod place;
pub(crate) mod queue;
pub mod start;
