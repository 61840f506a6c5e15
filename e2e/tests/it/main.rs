//! Tests against a real API server and an AWS emulator. One binary, and one lab at a time: the tests take turns.

mod conformance;
mod demo;
mod lab;
mod lifecycle;
mod support;
