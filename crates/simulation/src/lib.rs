//! For tests: AWS ([`aws`]) and the API server of Kubernetes ([`cluster`]) in the test's own process, on paused time if the test
//! wants, with faults drawn from a seed; and a server on loopback that gives the answers that a test writes down ([`fake`]).

#![expect(clippy::expect_used, reason = "a panic is the failure of the test that asked for something impossible")]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests hold no lease"))]

pub mod aws;
pub mod cluster;
pub mod fake;
mod form;
pub mod random;
