//! The kinds of objects that stacks are built from.

pub mod ingress;
pub mod service;
