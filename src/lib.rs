//! albatross gives Kubernetes clusters their AWS load balancers: an Ingress becomes an Application Load Balancer, and a
//! TargetGroupBinding feeds pods into a target group. `ARCHITECTURE.md` says which room holds what.

#![forbid(unsafe_code)]

pub mod admission;
mod answered;
pub mod api;
pub mod apply;
pub mod aws;
pub mod build;
pub mod cli;
pub mod controller;
pub mod facts;
pub mod model;
pub mod permissions;
pub mod plan;
pub mod proxies;
pub mod record;
pub mod route;
pub mod snapshot;
pub mod targets;

/// The target of the spans that become traces (feature `opentelemetry`) and are no part of the log.
const TRACES: &str = "albatross::traces";
