//! Plans are run against a small AWS of the tests ([`aws`]), and rules are judged after every step by a matcher of the tests' own ([`oracle`]).

mod aws;
mod oracle;
mod rules;
mod stacks;
mod steps;
