//! The program albatross: its commands and the controller. [`albatross_core`] decides, [`albatross_aws`] calls AWS.
//! `ARCHITECTURE.md` describes the rooms.

pub mod cli;
pub mod controller;

/// The target of the spans that become traces (feature `opentelemetry`) and are no part of the log.
const TRACES: &str = "albatross::traces";
