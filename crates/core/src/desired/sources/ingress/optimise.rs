//! Rules that can never do anything useful are left out, as users of redirect actions rely on (reference: ingress §3.7):
//! a redirect to the very URL that it takes, and rules that an earlier redirect hides.

use super::listeners::ListenerContext;
use crate::model::{Action, Condition, Rule, TargetGroupReference};

pub(super) fn optimise(rules: Vec<Rule>, listener: ListenerContext) -> Vec<Rule> {
    let mut kept: Vec<Rule> = Vec::new();
    for rule in rules.into_iter().filter(|rule| !redirects_to_itself(rule, listener)) {
        if !kept.iter().any(|earlier| hides(earlier, &rule)) {
            kept.push(rule);
        }
    }
    kept
}

/// A value of a condition: whether it is a regular expression, and its text.
type Pattern<'a> = (bool, &'a str);

fn patterns<'a>(rule: &'a Rule, of: fn(&Condition) -> bool) -> Vec<Pattern<'a>> {
    rule.conditions
        .iter()
        .filter(|condition| of(condition))
        .flat_map(|condition| match condition {
            Condition::HostHeader { values, regex_values } | Condition::PathPattern { values, regex_values } => {
                let regular = regex_values.iter().map(|value| (true, value.as_str()));
                values.iter().map(|value| (false, value.as_str())).chain(regular).collect()
            }
            _ => Vec::new(),
        })
        .collect()
}

fn hosts(rule: &Rule) -> Vec<Pattern<'_>> {
    patterns(rule, |condition| matches!(condition, Condition::HostHeader { .. }))
}

fn paths(rule: &Rule) -> Vec<Pattern<'_>> {
    patterns(rule, |condition| matches!(condition, Condition::PathPattern { .. }))
}

fn redirects_to_itself(rule: &Rule, listener: ListenerContext) -> bool {
    let Action::Redirect { host, path, port, protocol, query, .. } = &rule.action else { return false };
    let same = |value: &Option<String>, keep: &str, current: &dyn Fn(&String) -> bool| match value {
        None => true,
        Some(value) => value == keep || current(value),
    };
    let (hosts, paths) = (hosts(rule), paths(rule));
    // The rewrites of a rule may count for its redirect, so that one with transforms is never known to lead back to itself.
    rule.transforms.is_empty()
        && !paths.iter().any(|(regular, _)| *regular)
        && same(host, "#{host}", &|value| hosts.contains(&(false, value)))
        && same(path, "/#{path}", &|value| paths.contains(&(false, value)))
        && same(port, "#{port}", &|value| *value == listener.port.to_string())
        && same(protocol, "#{protocol}", &|value| value == listener.protocol.as_str())
        && same(query, "#{query}", &|_| false)
}

/// Returns true if an earlier redirect takes every request that a later rule could take. Patterns and regular expressions are compared
/// as text, and a condition on anything but host and path hides nothing. Transforms of the earlier rule make no difference:
/// rules match the request as the client sent it.
fn hides(earlier: &Rule, later: &Rule) -> bool {
    let redirect = matches!(earlier.action, Action::<TargetGroupReference>::Redirect { .. });
    let plain =
        earlier.conditions.iter().all(|c| matches!(c, Condition::HostHeader { .. } | Condition::PathPattern { .. }));
    if !redirect || !plain {
        return false;
    }
    let covers = |earlier: &[Pattern<'_>], later: &[Pattern<'_>]| {
        earlier.is_empty() || (!later.is_empty() && later.iter().all(|value| earlier.contains(value)))
    };
    let earlier_paths = paths(earlier);
    covers(&hosts(earlier), &hosts(later))
        && (earlier_paths.contains(&(false, "/*")) || covers(&earlier_paths, &paths(later)))
}
