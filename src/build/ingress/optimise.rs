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

fn hosts(rule: &Rule) -> Vec<&String> {
    rule.conditions
        .iter()
        .filter_map(|c| match c {
            Condition::HostHeader { values, .. } => Some(values),
            _ => None,
        })
        .flatten()
        .collect()
}

fn paths(rule: &Rule) -> Vec<&String> {
    rule.conditions
        .iter()
        .filter_map(|c| match c {
            Condition::PathPattern { values, .. } => Some(values),
            _ => None,
        })
        .flatten()
        .collect()
}

fn has_regular_expressions(rule: &Rule) -> bool {
    rule.conditions.iter().any(|c| match c {
        Condition::HostHeader { regex_values, .. } | Condition::PathPattern { regex_values, .. } => {
            !regex_values.is_empty()
        }
        _ => false,
    })
}

fn redirects_to_itself(rule: &Rule, listener: ListenerContext) -> bool {
    let Action::Redirect { host, path, port, protocol, query, .. } = &rule.action else { return false };
    let same = |value: &Option<String>, keep: &str, current: &dyn Fn(&String) -> bool| match value {
        None => true,
        Some(value) => value == keep || current(value),
    };
    !has_regular_expressions(rule)
        && same(host, "#{host}", &|value| hosts(rule).contains(&value))
        && same(path, "/#{path}", &|value| paths(rule).contains(&value))
        && same(port, "#{port}", &|value| *value == listener.port.to_string())
        && same(protocol, "#{protocol}", &|value| value == listener.protocol.as_str())
        && same(query, "#{query}", &|_| false)
}

/// Whether an earlier redirect takes every request that a later rule could take.
fn hides(earlier: &Rule, later: &Rule) -> bool {
    let redirect = matches!(earlier.action, Action::<TargetGroupReference>::Redirect { .. });
    let plain =
        earlier.conditions.iter().all(|c| matches!(c, Condition::HostHeader { .. } | Condition::PathPattern { .. }));
    if !redirect || !plain || has_regular_expressions(earlier) {
        return false;
    }
    let covers = |earlier: &[&String], later: &[&String]| {
        earlier.is_empty() || (!later.is_empty() && later.iter().all(|value| earlier.contains(value)))
    };
    let earlier_paths = paths(earlier);
    covers(&hosts(earlier), &hosts(later))
        && (earlier_paths.iter().any(|p| *p == "/*") || covers(&earlier_paths, &paths(later)))
}
