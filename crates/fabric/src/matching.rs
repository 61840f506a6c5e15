//! The rule of a listener that takes a request, and what the load balancer makes of the request. Pure.
//!
//! AWS's documents leave some things open. This is assumed: a regular expression matches where it is found anywhere in the
//! text, with case only in paths; the query is not decoded; the port is a part of the host.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use hyper::{
    HeaderMap,
    http::uri::{Authority, PathAndQuery},
};
use regex::{Regex, RegexBuilder};

use crate::account::{Action, Condition, Listener, Protocol, QueryValue, Rule, Transform, WeightedTargetGroup};

/// The parts of a request that rules look at.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// The method.
    pub method: &'a str,
    /// The header `Host` or the authority, with its port if the client sent one.
    pub host: &'a str,
    /// The path, as it was sent.
    pub path: &'a str,
    /// The text after the question mark, as it was sent.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The address of the client's connection.
    pub source: IpAddr,
}

/// The rule that takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// The rule; `None` for the default one.
    pub rule: Option<&'a Rule>,
    /// Its actions.
    pub actions: &'a [Action],
    /// Its transforms.
    pub transforms: &'a [Transform],
}

/// Returns the rule of a listener that takes a request: the first one by priority of which all conditions hold, else the
/// default rule.
#[must_use]
pub fn choose<'a>(listener: &'a Listener, request: &RequestParts<'_>) -> Chosen<'a> {
    let holds = |rule: &&Rule| rule.conditions.iter().all(|condition| meets(request, condition));
    match listener.rules.iter().filter(holds).min_by_key(|rule| rule.priority) {
        Some(rule) => Chosen { rule: Some(rule), actions: &rule.actions, transforms: &rule.transforms },
        None => Chosen { rule: None, actions: &listener.default_actions, transforms: &[] },
    }
}

fn meets(request: &RequestParts<'_>, condition: &Condition) -> bool {
    match condition {
        Condition::HostHeader { values, regex_values } => any_of(values, regex_values, request.host, true),
        Condition::PathPattern { values, regex_values } => any_of(values, regex_values, request.path, false),
        Condition::HttpHeader { name, values, regex_values } => request
            .headers
            .get_all(name.as_str())
            .iter()
            .any(|value| any_of(values, regex_values, &String::from_utf8_lossy(value.as_bytes()), true)),
        Condition::HttpRequestMethod { values } => values.iter().any(|method| method == request.method),
        Condition::QueryString { values } => {
            let query = request.query.unwrap_or_default();
            query.split('&').filter(|pair| !pair.is_empty()).any(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                values.iter().any(|wanted| has_parameter(wanted, key, value))
            })
        }
        Condition::SourceIp { values } => values.iter().any(|block| block.contains(&request.source)),
    }
}

fn any_of(values: &[String], regex_values: &[String], text: &str, any_case: bool) -> bool {
    values.iter().any(|pattern| fits(pattern, text, any_case, false))
        || regex_values.iter().any(|pattern| compiled(pattern, any_case).is_some_and(|regex| regex.is_match(text)))
}

fn has_parameter(wanted: &QueryValue, key: &str, value: &str) -> bool {
    wanted.key.as_ref().is_none_or(|pattern| fits(pattern, key, true, true)) && fits(&wanted.value, value, true, true)
}

/// Returns true if a pattern is the whole text. Most patterns differ from most texts before their first wildcard, so that
/// is looked at first.
fn fits(pattern: &str, text: &str, any_case: bool, escapes: bool) -> bool {
    let plain = pattern.find(['*', '?', '\\']).unwrap_or(pattern.len());
    let (start, pattern) = pattern.split_at(plain);
    let Some((head, rest)) = text.split_at_checked(start.len()) else { return false };
    let begins = if any_case { head.eq_ignore_ascii_case(start) } else { head == start };
    begins
        && if pattern.is_empty() { rest.is_empty() } else { Wildcards::parse(pattern, escapes).matches(rest, any_case) }
}

/// A pattern: runs of characters with any text between two of them. In a run, `None` stands for any character.
struct Wildcards {
    runs: Vec<Vec<Option<char>>>,
}

impl Wildcards {
    /// Parses a pattern. If `escapes`, a backslash makes the wildcard after it an ordinary character.
    fn parse(pattern: &str, escapes: bool) -> Self {
        let mut runs = vec![];
        let mut run = vec![];
        let mut characters = pattern.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '*' => runs.push(std::mem::take(&mut run)),
                '?' => run.push(None),
                '\\' if escapes => {
                    run.push(Some(characters.next_if(|next| matches!(next, '*' | '?')).unwrap_or('\\')));
                }
                _ => run.push(Some(character)),
            }
        }
        runs.push(run);
        Self { runs }
    }

    /// Returns true if the pattern is the whole text.
    fn matches(&self, text: &str, any_case: bool) -> bool {
        let same = |wanted: &Option<char>, got: &char| {
            wanted.is_none_or(|wanted| wanted == *got || (any_case && wanted.eq_ignore_ascii_case(got)))
        };
        let fits = |run: &[Option<char>], text: &[char]| {
            run.len() == text.len() && run.iter().zip(text).all(|(wanted, got)| same(wanted, got))
        };
        let text: Vec<char> = text.chars().collect();
        let (Some((first, others)), text) = (self.runs.split_first(), text.as_slice()) else { return false };
        let Some((last, middle)) = others.split_last() else { return fits(first, text) };
        let Some((start, text)) = text.split_at_checked(first.len()) else { return false };
        let Some((text, end)) = text.len().checked_sub(last.len()).and_then(|at| text.split_at_checked(at)) else {
            return false;
        };
        if !fits(first, start) || !fits(last, end) {
            return false;
        }
        // Between both ends, each run is taken as early as it is found: that leaves the most to the runs after it.
        let mut rest = text;
        middle.iter().filter(|run| !run.is_empty()).all(|run| {
            let Some(at) = rest.windows(run.len()).position(|window| fits(run, window)) else { return false };
            rest = rest.get(at.saturating_add(run.len())..).unwrap_or_default();
            true
        })
    }
}

/// The most compiled expressions that are kept.
const KEPT_EXPRESSIONS: usize = 1024;

type Expressions = Mutex<HashMap<(String, bool), Option<Arc<Regex>>>>;

/// Returns a compiled expression; `None` if it is not valid. It is kept, because compiling takes longer than matching.
fn compiled(pattern: &str, any_case: bool) -> Option<Arc<Regex>> {
    static EXPRESSIONS: LazyLock<Expressions> = LazyLock::new(Expressions::default);
    let mut expressions = EXPRESSIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if expressions.len() >= KEPT_EXPRESSIONS {
        expressions.clear();
    }
    expressions
        .entry((pattern.to_owned(), any_case))
        .or_insert_with(|| RegexBuilder::new(pattern).case_insensitive(any_case).build().ok().map(Arc::new))
        .clone()
}

/// The address of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The host, with its port if the client sent one.
    pub host: String,
    /// The path.
    pub path: String,
    /// The query, without the question mark.
    pub query: Option<String>,
}

impl Url {
    /// Returns the path, and the query after a question mark.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}

/// A transform whose expression matched, but whose replacement does not give a host or a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transform failed")]
pub struct TransformFailed;

/// Returns the address of a request after the transforms of its rule. An expression that matches nothing changes nothing.
///
/// # Errors
/// Returns an error if a replacement names a group that the expression does not have, or if the result is not valid.
pub fn transformed(transforms: &[Transform], request: &RequestParts<'_>) -> Result<Url, TransformFailed> {
    let mut url =
        Url { host: request.host.to_owned(), path: request.path.to_owned(), query: request.query.map(str::to_owned) };
    for transform in transforms {
        match transform {
            Transform::HostHeaderRewrite { regex, replace } => {
                if let Some(host) = replaced(regex, replace, &url.host, true)? {
                    host.parse::<Authority>().map_err(|_| TransformFailed)?;
                    url.host = host;
                }
            }
            Transform::UrlRewrite { regex, replace } => {
                if let Some(rewritten) = replaced(regex, replace, &url.path_and_query(), false)? {
                    if !rewritten.starts_with('/') || rewritten.parse::<PathAndQuery>().is_err() {
                        return Err(TransformFailed);
                    }
                    let (path, query) = match rewritten.split_once('?') {
                        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
                        None => (rewritten, None),
                    };
                    (url.path, url.query) = (path, query);
                }
            }
        }
    }
    Ok(url)
}

/// Returns the text with the first match replaced; `None` if there is no match.
fn replaced(regex: &str, replace: &str, text: &str, any_case: bool) -> Result<Option<String>, TransformFailed> {
    let Some(captures) = compiled(regex, any_case).and_then(|regex| regex.captures(text)) else { return Ok(None) };
    let Some(whole) = captures.get(0) else { return Ok(None) };
    let mut result = text.get(..whole.start()).unwrap_or_default().to_owned();
    let mut rest = replace.chars().peekable();
    while let Some(character) = rest.next() {
        match rest.peek().and_then(|next| next.to_digit(10)).filter(|_| character == '$') {
            Some(group) => {
                rest.next();
                let group = usize::try_from(group).unwrap_or_default();
                if group >= captures.len() {
                    return Err(TransformFailed);
                }
                result.push_str(captures.get(group).map_or("", |group| group.as_str()));
            }
            None => result.push(character),
        }
    }
    result.push_str(text.get(whole.end()..).unwrap_or_default());
    Ok(Some(result))
}

/// Returns the `Location` of a redirect; `None` for other actions. Like AWS it always writes the port. `offset` is what
/// the fabric adds to ports of listeners.
#[must_use]
pub fn location(action: &Action, url: &Url, protocol: Protocol, port: u16, offset: u16) -> Option<String> {
    let Action::Redirect { protocol: to_protocol, port: to_port, host, path, query, status: _ } = action else {
        return None;
    };
    let own_protocol = if protocol == Protocol::Https { "https" } else { "http" };
    let own_port = port.to_string();
    let fill = |template: &str| {
        filled(template, |name| {
            Some(match name {
                "protocol" => own_protocol,
                "host" => without_port(&url.host),
                "port" => &own_port,
                "path" => url.path.strip_prefix('/').unwrap_or(&url.path),
                "query" => url.query.as_deref().unwrap_or_default(),
                _ => return None,
            })
        })
    };
    let number = fill(to_port);
    let number = number.parse::<u16>().map_or(number, |number| number.saturating_add(offset).to_string());
    let mut location = format!("{}://{}:{number}{}", fill(to_protocol).to_lowercase(), fill(host), fill(path));
    let query = fill(query);
    if !query.is_empty() {
        location.push('?');
        location.push_str(&query);
    }
    Some(location)
}

/// Returns a text with each `#{name}` that `value` knows replaced.
fn filled<'a>(template: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut result = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("#{") {
        result.push_str(before);
        match after.split_once('}').and_then(|(name, after)| Some((value(name)?, after))) {
            Some((value, after)) => {
                result.push_str(value);
                rest = after;
            }
            None => {
                result.push_str("#{");
                rest = after;
            }
        }
    }
    result.push_str(rest);
    result
}

/// Returns a host without its port.
#[must_use]
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // An IPv6 address in brackets has colons of its own.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

/// Returns the target group of a forward that a request goes to: the one that the client's cookie names, else one by
/// weight. `draw` is a random number. `None` if all weights are 0; the weight of a single group does not count.
#[must_use]
pub fn target_group<'a>(groups: &'a [WeightedTargetGroup], remembered: Option<&str>, draw: u64) -> Option<&'a str> {
    if let [alone] = groups {
        return Some(&alone.arn);
    }
    if let Some(group) = groups.iter().find(|group| remembered == Some(group.arn.as_str())) {
        return Some(&group.arn);
    }
    let total: u64 = groups.iter().map(|group| u64::from(group.weight)).sum();
    let mut left = draw.checked_rem(total)?;
    groups.iter().find_map(|group| match left.checked_sub(u64::from(group.weight)) {
        Some(rest) => {
            left = rest;
            None
        }
        None => Some(group.arn.as_str()),
    })
}
