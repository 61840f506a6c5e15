//! Rules that exceed what AWS accepts in one. The values of a condition are alternatives, so a rule is the same as several,
//! one after the other, that each have some of the values and the same action.

use std::ops::Range;

use crate::model::{Condition, Rule};

/// The most values that the conditions of one rule have together (AWS).
const VALUES: usize = 5;

/// The most wildcards (`*`, `?`) that the patterns of one rule have together (AWS).
const WILDCARDS: usize = 6;

/// A rule that no splitting brings within AWS's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMany {
    /// The number of conditions is too large: each needs a value in every rule.
    Conditions(usize),
    /// The number of wildcards in one value of each condition is too large.
    Wildcards(usize),
}

impl TooMany {
    /// Returns the message, without the place.
    pub(super) fn message(self) -> String {
        match self {
            Self::Conditions(count) => {
                format!("the rule has {count} conditions, and AWS takes {VALUES} values of conditions in one rule")
            }
            Self::Wildcards(count) => {
                format!("the rule has {count} wildcards (`*`, `?`), and AWS takes {WILDCARDS} in one rule")
            }
        }
    }

    /// Returns the fix.
    pub(super) fn fix(self) -> &'static str {
        match self {
            Self::Conditions(_) => "leave out conditions, or let the targets distinguish such requests",
            Self::Wildcards(_) => "write patterns with fewer wildcards",
        }
    }
}

/// The rules that stand for one: itself where AWS takes it, else as few as can be.
pub(super) fn split(rule: Rule) -> Result<Vec<Rule>, TooMany> {
    let wildcards: Vec<Vec<usize>> = rule.conditions.iter().map(wildcards).collect();
    let fewest = |sizes: &[usize]| -> usize { wildcards.iter().zip(sizes).map(|(w, size)| most(w, *size)).sum() };
    let whole: Vec<usize> = wildcards.iter().map(Vec::len).collect();
    if whole.iter().sum::<usize>() <= VALUES && fewest(&whole) <= WILDCARDS {
        return Ok(vec![rule]);
    }
    if whole.len() > VALUES {
        return Err(TooMany::Conditions(whole.len()));
    }
    let rules = |sizes: &[usize]| -> usize { whole.iter().zip(sizes).map(|(n, size)| n.div_ceil(*size)).product() };
    let sizes = candidates(&whole, VALUES)
        .into_iter()
        .filter(|sizes| fewest(sizes) <= WILDCARDS)
        // Of equals the first, which has the fullest parts: one more value at the end changes only the last part.
        .min_by_key(|sizes| rules(sizes))
        .ok_or_else(|| TooMany::Wildcards(fewest(&vec![1; whole.len()])))?;
    let mut parts: Vec<Vec<Condition>> = vec![Vec::new()];
    for (condition, (count, size)) in rule.conditions.iter().zip(whole.iter().zip(&sizes)) {
        parts = parts
            .into_iter()
            .flat_map(|before| {
                (0..*count).step_by(*size).map(move |start| {
                    let mut conditions = before.clone();
                    conditions.push(part(condition, start..(start + size).min(*count)));
                    conditions
                })
            })
            .collect();
    }
    Ok(parts.into_iter().map(|conditions| Rule { conditions, ..rule.clone() }).collect())
}

/// Returns the numbers of values of each condition of one rule, in all ways that fill no more than `room`, large numbers first.
fn candidates(counts: &[usize], room: usize) -> Vec<Vec<usize>> {
    let Some((count, rest)) = counts.split_first() else { return vec![Vec::new()] };
    let largest = (*count).min(room.saturating_sub(rest.len()));
    let mut all = Vec::new();
    for size in (1..=largest).rev() {
        all.extend(candidates(rest, room - size).into_iter().map(|sizes| [vec![size], sizes].concat()));
    }
    all
}

/// The most wildcards that a part of so many values has.
fn most(wildcards: &[usize], size: usize) -> usize {
    wildcards.chunks(size.max(1)).map(|part| part.iter().sum()).max().unwrap_or_default()
}

/// The wildcards of each value. Regular expressions have none.
fn wildcards(condition: &Condition) -> Vec<usize> {
    let count = |text: &str| text.matches(['*', '?']).count();
    match condition {
        Condition::HostHeader { values, regex_values }
        | Condition::PathPattern { values, regex_values }
        | Condition::HttpHeader { values, regex_values, .. } => {
            values.iter().map(|value| count(value)).chain(regex_values.iter().map(|_| 0)).collect()
        }
        Condition::QueryString { values } => {
            // A wildcard that is escaped is none.
            let count = |text: &str| count(&text.replace("\\*", "").replace("\\?", ""));
            values.iter().map(|pair| count(&pair.value) + pair.key.as_deref().map_or(0, count)).collect()
        }
        Condition::HttpRequestMethod { values } | Condition::SourceIp { values } => vec![0; values.len()],
        Condition::Other(_) => vec![0],
    }
}

/// The same condition with some of its values: patterns first, then regular expressions.
fn part(condition: &Condition, range: Range<usize>) -> Condition {
    let some = |values: &[String], before: usize| -> Vec<String> {
        let wanted = |(index, _): &(usize, &String)| range.contains(&(index + before));
        values.iter().enumerate().filter(wanted).map(|(_, value)| value.clone()).collect()
    };
    match condition {
        Condition::HostHeader { values, regex_values } => {
            Condition::HostHeader { values: some(values, 0), regex_values: some(regex_values, values.len()) }
        }
        Condition::PathPattern { values, regex_values } => {
            Condition::PathPattern { values: some(values, 0), regex_values: some(regex_values, values.len()) }
        }
        Condition::HttpHeader { name, values, regex_values } => Condition::HttpHeader {
            name: name.clone(),
            values: some(values, 0),
            regex_values: some(regex_values, values.len()),
        },
        Condition::HttpRequestMethod { values } => Condition::HttpRequestMethod { values: some(values, 0) },
        Condition::SourceIp { values } => Condition::SourceIp { values: some(values, 0) },
        Condition::QueryString { values } => {
            Condition::QueryString { values: values.iter().skip(range.start).take(range.len()).cloned().collect() }
        }
        Condition::Other(field) => Condition::Other(field.clone()),
    }
}
