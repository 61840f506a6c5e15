//! Simulations for tests: AWS ([`aws`]) and the API server of Kubernetes ([`cluster`]) in the process of the test, on
//! paused time if the test uses it, with faults from a seed; and a server on the loopback interface with written
//! responses ([`fake`]).

#![expect(clippy::expect_used, reason = "a panic is the failure of the test that asked for something impossible")]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests hold no lease"))]

pub mod aws;
pub mod cluster;
pub mod fake;
mod form;
pub mod random;
