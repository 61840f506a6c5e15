//! Tests against a real API server and an AWS emulator. One binary, and one lab at a time: the tests take turns.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a panic is a failure of the test")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what a test prints is shown if it fails")]

mod add_ons;
mod answers;
mod authentication;
mod bad_input;
mod bindings;
mod certificates;
mod chart;
mod cluster_life;
mod conformance;
mod credentials;
mod demo;
mod drain;
mod fabric;
mod frontend;
mod gates;
mod groups;
mod hostile;
mod lab;
mod leadership;
mod lifecycle;
mod log_and_traces;
mod migration;
mod multi_cluster;
mod network_paths;
mod outside;
mod program;
mod quic;
mod readiness;
mod restarts;
mod rights;
mod roles;
mod rollout;
mod running_pods;
mod services;
mod support;
mod traffic;
mod webhooks;
