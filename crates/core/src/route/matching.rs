//! The test of conditions against a request.

use std::{iter, net::IpAddr};

use ipnet::IpNet;
use regex_lite::{Regex, RegexBuilder};

use super::Request;
use crate::model::{Condition, QueryStringValue};

/// The result of comparing a condition with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// For certain not.
    No,
    /// It is not known.
    Unknown,
    /// For certain.
    Yes,
}

impl From<bool> for Match {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// Returns the match of all conditions: the least certain of their results.
pub(super) fn all(conditions: &[Condition], request: &Request) -> Match {
    conditions.iter().map(|condition| one(condition, request)).min().unwrap_or(Match::Yes)
}

fn any(matches: impl Iterator<Item = Match>) -> Match {
    matches.max().unwrap_or(Match::No)
}

/// The comparison of upper and lower case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Counts,
    Ignored,
}

fn one(condition: &Condition, request: &Request) -> Match {
    match condition {
        Condition::HostHeader { values, regex_values } => text(values, regex_values, &request.host, Case::Ignored),
        Condition::PathPattern { values, regex_values } => text(values, regex_values, &request.path, Case::Counts),
        // Of a header that is there several times, one is enough.
        Condition::HttpHeader { name, values, regex_values } => any(request
            .headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| text(values, regex_values, value, Case::Ignored))),
        Condition::HttpRequestMethod { values } => values.contains(&request.method).into(),
        Condition::QueryString { values } => any(values.iter().map(|wanted| query(wanted, request))),
        Condition::SourceIp { values } => any(values.iter().map(|block| source(block, request.source))),
        Condition::Other(_) => Match::Unknown,
    }
}

fn text(values: &[String], regex_values: &[String], text: &str, case: Case) -> Match {
    let patterns = values.iter().map(|value| glob(&tokens(value, false), text, case).into());
    any(patterns.chain(regex_values.iter().map(|value| regular(value, text))))
}

fn query(wanted: &QueryStringValue, request: &Request) -> Match {
    let (key, value) = (wanted.key.as_ref().map(|key| tokens(key, true)), tokens(&wanted.value, true));
    let holds = |pair: &(String, String)| {
        key.as_ref().is_none_or(|key| glob(key, &pair.0, Case::Ignored)) && glob(&value, &pair.1, Case::Ignored)
    };
    request.query.iter().any(holds).into()
}

fn source(block: &str, address: Option<IpAddr>) -> Match {
    match (block.parse::<IpNet>(), address) {
        (Ok(block), Some(address)) => block.contains(&address).into(),
        _ => Match::Unknown,
    }
}

/// Compares a regular expression: it matches if it is the whole text, does not if it is found nowhere, and is unknown between.
fn regular(expression: &str, text: &str) -> Match {
    let compiled = |expression: &str, ignoring_case: bool| -> Option<Regex> {
        RegexBuilder::new(expression).case_insensitive(ignoring_case).build().ok()
    };
    let Some(anywhere) = compiled(expression, true) else { return Match::Unknown };
    if !anywhere.is_match(text) {
        return Match::No;
    }
    let whole = compiled(&format!("^(?:{expression})$"), false);
    if whole.is_some_and(|whole| whole.is_match(text)) { Match::Yes } else { Match::Unknown }
}

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// `*`: any text.
    Any,
    /// `?`: one character.
    One,
    Is(char),
}

/// A pattern in its parts. In queries a backslash takes the meaning from the wildcard that follows.
fn tokens(pattern: &str, escapes: bool) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        tokens.push(match character {
            '\\' if escapes => match rest.next_if(|next| ['*', '?'].contains(next)) {
                Some(literal) => Token::Is(literal),
                None => Token::Is('\\'),
            },
            '*' => Token::Any,
            '?' => Token::One,
            other => Token::Is(other),
        });
    }
    tokens
}

/// Returns true if the pattern matches the whole text. Where it does not fit, the last `*` takes one character more.
fn glob(pattern: &[Token], text: &str, case: Case) -> bool {
    let same = |a: char, b: char| a == b || (case == Case::Ignored && a.eq_ignore_ascii_case(&b));
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut place) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    while let Some(character) = text.get(place) {
        match pattern.get(at) {
            Some(Token::Any) => {
                last = Some((at, place));
                at += 1;
            }
            Some(Token::One) => (at, place) = (at + 1, place + 1),
            Some(Token::Is(wanted)) if same(*wanted, *character) => (at, place) = (at + 1, place + 1),
            _ => match last {
                Some((star, taken)) => {
                    last = Some((star, taken + 1));
                    (at, place) = (star + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|token| *token == Token::Any)
}

/// Returns true if it is certain that no request meets both lists of conditions. Regular expressions, headers and queries,
/// of which a request may have several, prove nothing.
#[must_use]
pub fn are_apart(one: &[Condition], other: &[Condition]) -> bool {
    one.iter().any(|one| other.iter().any(|other| excludes(one, other)))
}

fn excludes(one: &Condition, other: &Condition) -> bool {
    let none_meet = |one: &[String], other: &[String], case| {
        let patterns: Vec<Vec<Token>> = other.iter().map(|value| tokens(value, false)).collect();
        !one.iter().any(|value| patterns.iter().any(|pattern| meet(&tokens(value, false), pattern, case)))
    };
    match (one, other) {
        (
            Condition::HostHeader { values: one, regex_values: regex },
            Condition::HostHeader { values: other, regex_values: other_regex },
        ) => regex.is_empty() && other_regex.is_empty() && none_meet(one, other, Case::Ignored),
        (
            Condition::PathPattern { values: one, regex_values: regex },
            Condition::PathPattern { values: other, regex_values: other_regex },
        ) => regex.is_empty() && other_regex.is_empty() && none_meet(one, other, Case::Counts),
        (Condition::HttpRequestMethod { values: one }, Condition::HttpRequestMethod { values: other }) => {
            !one.iter().any(|method| other.contains(method))
        }
        (Condition::SourceIp { values: one }, Condition::SourceIp { values: other }) => {
            let apart = |one: &String, other: &String| match (one.parse::<IpNet>(), other.parse::<IpNet>()) {
                (Ok(one), Ok(other)) => !one.contains(&other) && !other.contains(&one),
                _ => false,
            };
            one.iter().all(|one| other.iter().all(|other| apart(one, other)))
        }
        _ => false,
    }
}

/// Returns true if some text fits both patterns.
fn meet(one: &[Token], other: &[Token], case: Case) -> bool {
    let fits = |a: Token, b: Token| match (a, b) {
        (Token::Is(a), Token::Is(b)) => a == b || (case == Case::Ignored && a.eq_ignore_ascii_case(&b)),
        _ => true,
    };
    // Whether the rests of both can be the same text, from the ends on: a row for each rest of `one`, in it each rest of `other`.
    let mut shorter = vec![false; other.len() + 1];
    for first in iter::once(None).chain(one.iter().rev().map(Some)) {
        let mut row = Vec::with_capacity(shorter.len());
        // Without the first token of `other`, and without that of both.
        let (mut without_other, mut without_both) = (false, false);
        for (second, &without_one) in iter::once(None).chain(other.iter().rev().map(Some)).zip(&shorter) {
            let meets = match (first, second) {
                (None, None) => true,
                (Some(Token::Any), rest) => without_one || (rest.is_some() && without_other),
                (rest, Some(Token::Any)) => without_other || (rest.is_some() && without_one),
                (Some(a), Some(b)) => fits(*a, *b) && without_both,
                _ => false,
            };
            row.push(meets);
            (without_other, without_both) = (meets, without_one);
        }
        shorter = row;
    }
    shorter.last().copied().unwrap_or_default()
}
