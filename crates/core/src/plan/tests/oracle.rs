//! The answer to each of many requests, by the state of a listener: a matcher that shares nothing with the planner.

use std::{cell::RefCell, collections::BTreeMap, net::Ipv4Addr, rc::Rc};

use crate::{model::*, route::Request};

/// Hosts, paths and clients that distinguish the conditions of [`super::rules`], all combinations of them.
const HOSTS: [&str; 4] = ["a.example.com", "b.example.com", "deep.a.example.com", "other.test"];
const PATHS: [&str; 9] = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/a/c", "/b", "/bc", "/c"];
const CLIENTS: [Client; 3] = [
    Client { method: "GET", environment: None, query: &[], address: [10, 0, 0, 1] },
    Client { method: "POST", environment: Some("canary"), query: &[("v", "2")], address: [192, 0, 2, 7] },
    Client {
        method: "GET",
        environment: Some("Canary-b"),
        query: &[("v", "1"), ("q", "beta")],
        address: [10, 1, 2, 3],
    },
];
const COUNT: usize = HOSTS.len() * PATHS.len() * CLIENTS.len();

/// The properties of a request other than host and path.
struct Client {
    method: &'static str,
    /// The header `X-Env`.
    environment: Option<&'static str>,
    query: &'static [(&'static str, &'static str)],
    address: [u8; 4],
}

/// Host, path and client of a probe.
fn parts(index: usize) -> (&'static str, &'static str, &'static Client) {
    let (index, client) = (index / CLIENTS.len(), &CLIENTS[index % CLIENTS.len()]);
    (HOSTS[index / PATHS.len()], PATHS[index % PATHS.len()], client)
}

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

/// The same whatever the case.
fn glob_ignoring_case(pattern: &str, text: &str) -> bool {
    glob(pattern.to_ascii_lowercase().as_bytes(), text.to_ascii_lowercase().as_bytes())
}

/// Returns true if an address is in a block, both of IPv4.
fn within(block: &str, address: [u8; 4]) -> bool {
    let (base, length) = block.split_once('/').unwrap();
    let (base, length): (Ipv4Addr, u32) = (base.parse().unwrap(), length.parse().unwrap());
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or_default();
    (u32::from(base) ^ u32::from(Ipv4Addr::from(address))) & mask == 0
}

fn holds(condition: &Condition, index: usize) -> bool {
    let (host, path, client) = parts(index);
    match condition {
        Condition::HostHeader { values, .. } => values.iter().any(|value| glob(value.as_bytes(), host.as_bytes())),
        Condition::PathPattern { values, .. } => values.iter().any(|value| glob(value.as_bytes(), path.as_bytes())),
        Condition::HttpHeader { name, values, .. } => {
            // No client sends what rules that park target groups ask for.
            if name == "x-albatross-parked" {
                return false;
            }
            assert_eq!(name, "X-Env");
            values.iter().any(|value| client.environment.is_some_and(|is| glob_ignoring_case(value, is)))
        }
        Condition::HttpRequestMethod { values } => values.iter().any(|value| value == client.method),
        Condition::QueryString { values } => values.iter().any(|pair| {
            client.query.iter().any(|(key, value)| {
                pair.key.as_ref().is_none_or(|wanted| glob_ignoring_case(wanted, key))
                    && glob_ignoring_case(&pair.value, value)
            })
        }),
        Condition::SourceIp { values } => values.iter().any(|block| within(block, client.address)),
        other => panic!("the generator makes no {other:?}"),
    }
}

/// A set of probes, one bit each.
type Set = u128;

/// The probes that meet a condition, remembered.
#[derive(Default)]
pub(super) struct Probes(RefCell<BTreeMap<Condition, Set>>);

/// The answers to all probes, in their order.
pub(super) type Answers = Vec<Rc<str>>;

impl Probes {
    fn matched(&self, conditions: &[Condition]) -> Set {
        let mut known = self.0.borrow_mut();
        conditions.iter().fold(Set::MAX, |set, condition| {
            if !known.contains_key(condition) {
                let met = (0..COUNT).filter(|index| holds(condition, *index)).fold(0, |set, index| set | 1 << index);
                known.insert(condition.clone(), met);
            }
            set & known[condition]
        })
    }

    /// For each probe the place of the rule that takes it; the number of rules where none does.
    fn takers<'a>(&self, rules: impl Iterator<Item = &'a [Condition]>) -> Vec<usize> {
        let mut takers = vec![usize::MAX; COUNT];
        let mut open: Set = (1 << COUNT) - 1;
        let mut count = 0;
        for (place, conditions) in rules.enumerate() {
            let taken = self.matched(conditions) & open;
            open &= !taken;
            for (index, slot) in takers.iter_mut().enumerate() {
                if taken >> index & 1 == 1 {
                    *slot = place;
                }
            }
            count = place + 1;
        }
        takers.into_iter().map(|taker| taker.min(count)).collect()
    }

    fn first_match<'a>(&self, rules: impl Iterator<Item = (&'a [Condition], Rc<str>)>, default: Rc<str>) -> Answers {
        let (conditions, mut labels): (Vec<_>, Vec<_>) = rules.unzip();
        labels.push(default);
        self.takers(conditions.into_iter()).into_iter().map(|taker| labels[taker].clone()).collect()
    }

    /// Returns the present answers of AWS.
    pub(super) fn answers(&self, listener: &ObservedListener) -> Answers {
        assert!(listener.rules.is_sorted_by(|a, b| a.priority < b.priority));
        let default = observed_label(&listener.default_actions, &[]);
        let label = |rule: &ObservedRule| observed_label(&rule.actions, &rule.transforms);
        self.first_match(listener.rules.iter().map(|r| (&*r.conditions, label(r))), default)
    }

    /// Returns the desired answers.
    pub(super) fn wanted(&self, listener: &Listener) -> Answers {
        let default = label(&listener.default_action, &[]);
        self.first_match(listener.rules.iter().map(|r| (&*r.conditions, label(&r.action, &r.transforms))), default)
    }

    /// Returns the rule of the stack that takes each probe, `None` for none.
    pub(super) fn wanted_rules(&self, listener: &Listener) -> Vec<Option<usize>> {
        let takers = self.takers(listener.rules.iter().map(|rule| &*rule.conditions));
        takers.into_iter().map(|taker| Some(taker).filter(|taker| *taker < listener.rules.len())).collect()
    }

    /// Returns the rule in AWS that takes each probe, `None` for none.
    pub(super) fn observed_rules(&self, listener: &ObservedListener) -> Vec<Option<usize>> {
        let takers = self.takers(listener.rules.iter().map(|rule| &*rule.conditions));
        takers.into_iter().map(|taker| Some(taker).filter(|taker| *taker < listener.rules.len())).collect()
    }
}

fn observed_label(actions: &[Action<TargetGroupArn>], transforms: &[Transform]) -> Rc<str> {
    let [action] = actions else { panic!("the generator makes one action: {actions:?}") };
    label(&action.try_map(|arn| Ok::<_, ()>(TargetGroupReference::Foreign(arn.clone()))).unwrap(), transforms)
}

/// Returns the answer to a request in a form that can be compared: target groups with their weights, and how long clients stay
/// with one, count as much as the transforms.
pub(super) fn label(action: &Action<TargetGroupReference>, transforms: &[Transform]) -> Rc<str> {
    let mut text = match action {
        Action::Forward { target_groups, stickiness } => {
            let name = |group: &TargetGroupReference| match group {
                TargetGroupReference::Foreign(arn) => arn.to_string(),
                TargetGroupReference::Own(id) => id.to_string(),
                TargetGroupReference::Named(name) => name.clone(),
            };
            let mut groups: Vec<String> = match target_groups.as_slice() {
                [alone] => vec![name(&alone.group)],
                several => several.iter().map(|t| format!("{}x{}", t.weight.unwrap_or(1), name(&t.group))).collect(),
            };
            groups.sort();
            let sticky = stickiness.as_ref().filter(|s| s.enabled).map(|s| format!(" for {:?} s", s.duration_seconds));
            format!("{}{}", groups.join("+"), sticky.unwrap_or_default())
        }
        Action::FixedResponse { message_body: Some(body), .. } => body.clone(),
        Action::Redirect { path: Some(path), .. } => path.clone(),
        other => panic!("the generator makes no {other:?}"),
    };
    for transform in transforms {
        text.push_str(&format!(" {transform:?}"));
    }
    text.into()
}

/// A probe as a request.
pub(super) fn request(index: usize) -> Request {
    let (host, path, client) = parts(index);
    Request {
        method: client.method.to_owned(),
        headers: client.environment.iter().map(|value| ("x-env".to_owned(), (*value).to_owned())).collect(),
        query: client.query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        source: Some(client.address.into()),
        ..Request::get(host, path)
    }
}

/// A probe, for people.
pub(super) fn probe(index: usize) -> String {
    let (host, path, client) = parts(index);
    format!("{} {host}{path} X-Env {:?} {:?} {:?}", client.method, client.environment, client.query, client.address)
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
