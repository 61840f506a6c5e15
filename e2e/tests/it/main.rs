//! Tests against a real API server and an AWS emulator. One binary, and one lab at a time: the tests take turns.

mod authentication;
mod bad_input;
mod bindings;
mod cluster_life;
mod conformance;
mod demo;
mod groups;
mod lab;
mod leadership;
mod lifecycle;
mod readiness;
mod restarts;
mod rollout;
mod services;
mod support;
mod webhooks;
