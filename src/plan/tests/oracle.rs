//! What each of many requests is answered with, by the state of a listener: a matcher that shares nothing with the planner.

use std::{cell::RefCell, collections::BTreeMap, fmt::Debug};

use crate::model::*;

/// Hosts and paths that tell the patterns of [`super::rules`] apart, all combinations of them.
const HOSTS: [&str; 4] = ["a.example.com", "b.example.com", "deep.a.example.com", "other.test"];
const PATHS: [&str; 9] = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/a/c", "/b", "/bc", "/c"];

/// A pattern as AWS matches it: `*` is any text, `?` is one character.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, text) || text.split_first().is_some_and(|(_, shorter)| glob(pattern, shorter))
        }
        (Some((p, pattern)), Some((t, text))) => (*p == b'?' || p == t) && glob(pattern, text),
        _ => false,
    }
}

/// A set of probes, one bit each.
type Set = u64;

/// The probes that match a pattern, remembered.
#[derive(Default)]
pub(super) struct Probes {
    hosts: RefCell<BTreeMap<String, Set>>,
    paths: RefCell<BTreeMap<String, Set>>,
}

fn remembered(memory: &RefCell<BTreeMap<String, Set>>, pattern: &str, matches: impl Fn(&str, &str) -> bool) -> Set {
    *memory.borrow_mut().entry(pattern.to_owned()).or_insert_with(|| {
        HOSTS
            .iter()
            .flat_map(|host| PATHS.iter().map(move |path| (host, path)))
            .enumerate()
            .filter(|(_, (host, path))| matches(host, path))
            .fold(0, |set, (index, _)| set | 1 << index)
    })
}

/// The answers to all probes, in their order.
pub(super) type Answers<'a> = Vec<&'a str>;

impl Probes {
    fn matched(&self, conditions: &[Condition]) -> Set {
        conditions.iter().fold(Set::MAX, |set, condition| {
            let any = |values: &[String], of: &dyn Fn(&String) -> Set| values.iter().fold(0, |set, v| set | of(v));
            set & match condition {
                Condition::HostHeader { values, .. } => any(values, &|value| {
                    remembered(&self.hosts, value, |host, _| glob(value.as_bytes(), host.as_bytes()))
                }),
                Condition::PathPattern { values, .. } => any(values, &|value| {
                    remembered(&self.paths, value, |_, path| glob(value.as_bytes(), path.as_bytes()))
                }),
                other => panic!("the generator makes no {other:?}"),
            }
        })
    }

    fn first_match<'a>(
        &self,
        rules: impl Iterator<Item = (&'a [Condition], &'a str)>,
        default: &'a str,
    ) -> Answers<'a> {
        let mut answers = vec![default; HOSTS.len() * PATHS.len()];
        let mut open = (1 << answers.len()) - 1;
        for (conditions, answer) in rules {
            let taken = self.matched(conditions) & open;
            open &= !taken;
            for (index, slot) in answers.iter_mut().enumerate() {
                if taken >> index & 1 == 1 {
                    *slot = answer;
                }
            }
        }
        answers
    }

    /// As AWS answers now.
    pub(super) fn answers<'a>(&self, listener: &'a ObservedListener) -> Answers<'a> {
        assert!(listener.rules.is_sorted_by(|a, b| a.priority < b.priority));
        let default = observed_label(&listener.default_actions);
        self.first_match(listener.rules.iter().map(|r| (&*r.conditions, observed_label(&r.actions))), default)
    }

    /// As the stack asks for.
    pub(super) fn wanted<'a>(&self, listener: &'a Listener) -> Answers<'a> {
        let default = wanted_label(&listener.default_action);
        self.first_match(listener.rules.iter().map(|r| (&*r.conditions, wanted_label(&r.action))), default)
    }
}

/// What a request is answered with, in a form that can be compared.
fn observed_label(actions: &[Action<TargetGroupArn>]) -> &str {
    match actions {
        [Action::Forward { target_groups, .. }] => target_groups[0].group.as_str(),
        _ => plain_label(actions),
    }
}

pub(super) fn wanted_label(action: &Action<TargetGroupReference>) -> &str {
    match action {
        Action::Forward { target_groups, .. } => match &target_groups[0].group {
            TargetGroupReference::Foreign(arn) => arn.as_str(),
            TargetGroupReference::Own(id) => &id.0,
        },
        other => plain_label(std::slice::from_ref(other)),
    }
}

fn plain_label<G: Debug>(actions: &[Action<G>]) -> &str {
    match actions {
        [Action::FixedResponse { message_body: Some(body), .. }] => body,
        [Action::Redirect { path: Some(path), .. }] => path,
        other => panic!("the generator makes no {other:?}"),
    }
}

/// A probe, for people.
pub(super) fn probe(index: usize) -> String {
    format!("{}{}", HOSTS[index / PATHS.len()], PATHS[index % PATHS.len()])
}

#[test]
fn globs_match_as_aws_says() {
    for (pattern, text, matches) in [
        ("/*", "/", true),
        ("/a/*", "/a", false),
        ("/a/*", "/a/", true),
        ("/a?c", "/abc", true),
        ("/a?c", "/ac", false),
        ("*.example.com", "deep.a.example.com", true),
        ("*.example.com", "example.com", false),
        ("/img/*.png", "/img/a/b.png", true),
        ("/img/*.png", "/img/a.jpg", false),
        ("*", "", true),
    ] {
        assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
    }
}
