//! The data plane of AWS for tests: load balancers, nodes and pods on 127.0.0.0/8 that carry requests, with AWS's
//! delays and with nodes of a load balancer that differ.
//!
//! It shows what clients see while a controller changes an account. All that it assumes of AWS is in
//! `docs/fabric.md`, with the sources.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests let time pass"))]

pub mod account;
pub mod address;
pub mod alb;
pub mod delay;
pub mod emulator;
pub mod fabric;
pub mod health;
pub mod instances;
pub mod load;
pub mod matching;
pub mod nlb;
pub mod node;
pub mod pods;
pub mod resolver;
pub mod security_groups;
pub mod targets;
pub mod tls;
