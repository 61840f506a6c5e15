//! The program albatross: its commands and the controller. What decides is in [`albatross_core`], what speaks with AWS in
//! [`albatross_aws`]. `ARCHITECTURE.md` says which room holds what.

pub mod cli;
pub mod controller;

/// The target of the spans that become traces (feature `opentelemetry`) and are no part of the log.
const TRACES: &str = "albatross::traces";
