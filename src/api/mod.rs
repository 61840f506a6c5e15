//! What users write.

pub mod crd;
