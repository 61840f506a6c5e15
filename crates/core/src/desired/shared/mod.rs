//! The parts of building that every source has in common: plain functions over plain data, with parameters where the sources
//! differ. No function here knows a source: each source passes its keys, fields and words.

pub(super) mod certificates;
pub(super) mod names;
pub(super) mod security_groups;
pub(super) mod subnets;
pub(super) mod tags;
pub(super) mod target_groups;
