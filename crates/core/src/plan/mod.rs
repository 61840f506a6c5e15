//! From desired and observed resources to the ordered steps between them, each with its cause. Pure: no I/O, no clock.

mod access;
mod action;
mod attribution;
mod authentication;
pub mod binding;
pub mod defaults;
mod frozen;
mod leaving;
mod order;
mod quota_usage;
mod render;
mod rules;
mod stack;
mod step;
mod stepwise;
mod tags;

#[cfg(test)]
mod tests;

pub use action::StepAction;
pub use authentication::{AssumedSecret, assumed_secrets};
pub use leaving::delays_release;
pub use render::{render, summary, waits_text};
pub use stack::{certificates_are_unknown, member_resources, plan};
pub use step::{
    AttributesOf, ListenerChange, ListenerReference, Plan, Planned, Reads, RuleReference, SecurityGroupTarget, Step,
    TaggedResource, Wait,
};
pub use tags::tag_keys;
