//! Plans are run against a small AWS of the tests ([`aws`]), and rules are judged after every step by a matcher of the tests' own ([`oracle`]).

use super::{Plan, Planned};
use crate::model::{ObservedStack, Stack};

mod add_ons;
mod authentication;
mod aws;
mod certificates_in_groups;
mod frontend;
mod frozen;
mod leaving;
mod limits;
mod managed_certificates;
mod opening;
mod oracle;
mod pending;
mod quotas;
mod replaced;
mod retained;
mod rules;
mod services;
mod stacks;
mod steps;
mod tags;
mod whole;

/// The plan where everything is known.
fn plan(stack: &Stack, observed: &ObservedStack) -> Plan {
    match super::plan(stack, observed) {
        Planned::Ready(plan) => plan,
        Planned::Need(reads) => panic!("{reads:?}"),
    }
}
