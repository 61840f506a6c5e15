//! From what shall be and what is to the ordered steps between them, each with its cause. Pure: no I/O, no clock.

mod authentication;
pub mod binding;
pub mod defaults;
mod render;
mod rules;
mod set_aside;
mod stack;
mod step;

#[cfg(test)]
mod tests;

pub use render::{render, summary};
pub use stack::{holdings, plan};
pub use step::{
    AttributesOf, ListenerChange, ListenerReference, Plan, Planned, Reads, RuleReference, SecurityGroupTarget, Step,
    StepAction, TaggedResource, Wait,
};
