//! The controller.

pub mod lease;
