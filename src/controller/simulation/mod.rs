//! The controller's core against a cluster and an AWS that live in the same process, on paused time: random worlds, edits,
//! faults and crashes, each from a printed seed. What AWS and the cluster become is compared with what they become without
//! any fault.

mod aws;
mod cluster;
mod process;
mod random;
mod tests;
mod world;
