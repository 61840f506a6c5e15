//! From what shall be and what is to the ordered steps between them, each with its cause. Pure: no I/O, no clock.

mod access;
mod authentication;
pub mod binding;
mod blame;
pub mod defaults;
mod in_steps;
mod leaving;
mod order;
mod render;
mod room;
mod rules;
mod set_aside;
mod stack;
mod step;
mod tags;

#[cfg(test)]
mod tests;

pub use authentication::{AssumedSecret, assumed_secrets};
pub use leaving::delays_release;
pub use render::{render, summary};
pub use stack::{member_resources, plan};
pub use step::{
    AttributesOf, ListenerChange, ListenerReference, Plan, Planned, Reads, RuleReference, SecurityGroupTarget, Step,
    StepAction, TaggedResource, Wait,
};
pub use tags::tag_keys;
