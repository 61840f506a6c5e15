//! The traffic with the API server: watches, objects read and written, events, records, Secrets.

pub(crate) mod counted_requests;
pub(crate) mod deadline;
pub(crate) mod events;
pub(crate) mod kubernetes;
pub(crate) mod records;
pub(crate) mod secrets;
pub(crate) mod watch_activity;
pub(crate) mod watches;
