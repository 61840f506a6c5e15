//! One pass over a key: over a stack, from its facts to its status, or over a TargetGroupBinding.

pub(crate) mod apply;
pub(crate) mod fact_subscribers;
pub(crate) mod pass;
mod stack;
pub(crate) mod step_history;
pub mod targets;
pub(crate) mod unserved;
pub(crate) mod waits;
