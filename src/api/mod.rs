//! What users write: the annotations they set, and the types of the objects that carry them.

pub mod annotations;
