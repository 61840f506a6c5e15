//! The parts of building that all sources share: plain functions over plain data, with parameters where the sources
//! differ. No function here depends on a source: each source passes its keys, fields and texts.

pub(super) mod capacity;
pub(super) mod certificates;
pub(super) mod names;
pub(super) mod security_groups;
pub(super) mod subnets;
pub(super) mod tags;
pub(super) mod target_groups;
