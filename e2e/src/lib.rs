//! The project's lab: a real Kubernetes control plane and an AWS emulator on loopback, the controller under test between
//! them, and what the tests and the demo need to look at the result.

#![forbid(unsafe_code)]

pub mod demo;
pub mod lab;
pub mod latency;
pub mod symbolic;
pub mod traffic;
