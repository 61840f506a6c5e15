//! Plans are run against a small AWS of the tests ([`aws`]), and rules are judged after every step by a matcher of the tests' own ([`oracle`]).

mod aws;
mod limits;
mod oracle;
mod rules;
mod services;
mod stacks;
mod steps;
