//! Rules that name target groups and that no request matches, so that the targets are checked before requests come
//! (`plan/stack/pending.rs`).

use super::{Condition, ObservedRule};

/// The lowest and the largest priority of rules that park target groups.
pub const PARKED: std::ops::RangeInclusive<u32> = 49_900..=50_000;
/// The name of the header in the conditions that no request meets.
const HEADER: &str = "x-albatross-parked";
/// A block that no client's address is in (TEST-NET-1, RFC 5737).
const NOBODY: &str = "192.0.2.0/32";

/// Returns the conditions that no request meets.
#[must_use]
pub fn unmet() -> Vec<Condition> {
    vec![
        Condition::HttpHeader { name: HEADER.to_owned(), values: vec!["*".to_owned()], regex_values: Vec::new() },
        Condition::SourceIp { values: vec![NOBODY.to_owned()] },
    ]
}

impl ObservedRule {
    /// Returns true if the rule parks target groups: it has these conditions alone, which no rule of an Ingress has, whose rules
    /// all have a path or a host.
    #[must_use]
    pub fn is_parking(&self) -> bool {
        let unmet = unmet();
        PARKED.contains(&self.priority)
            && self.conditions.len() == unmet.len()
            && unmet.iter().all(|condition| self.conditions.contains(condition))
    }
}
