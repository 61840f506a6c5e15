//! The program albatross: its commands and the controller. [`albatross_core`] decides, [`albatross_aws`] calls AWS.
//! `ARCHITECTURE.md` describes the modules.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests hold no lease, and make plans of their own"))]

pub mod cli;
pub mod controller;

/// The target of the spans that become traces (feature `opentelemetry`) and are no part of the log.
const TRACES: &str = "albatross::traces";
