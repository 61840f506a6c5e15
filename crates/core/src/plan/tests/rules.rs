//! Changes of rules, one step at a time: every request is answered as before or as after, wherever the plan stops.

use std::collections::BTreeMap;

use super::{
    aws::Aws,
    oracle::{Probes, label, probe, request},
    plan,
};
use crate::{
    model::*,
    plan::{Plan, RuleReference, Step, StepAction},
    route,
};

/// The number of pairs of rule sets.
const PAIRS: u64 = 12_000;
/// For how many of them `route` is asked, too.
const PAIRS_ROUTED: u64 = 1_000;
/// The first seed; the pair with the seed N is reproduced by `ALBATROSS_TEST_SEED=N`.
const FIRST_SEED: u64 = 20_260_101;

pub(super) fn first_seed() -> u64 {
    match std::env::var("ALBATROSS_TEST_SEED") {
        Ok(seed) => seed.parse().expect("ALBATROSS_TEST_SEED is a whole number"),
        Err(_) => FIRST_SEED,
    }
}

/// Returns how many of `all` pairs are tried: a twentieth, so that the tests stay quick, or the percentage that
/// `ALBATROSS_ORACLE_PERCENT` names; `.ci/run` tries all.
pub(super) fn tried(all: u64) -> u64 {
    let percent = match std::env::var("ALBATROSS_ORACLE_PERCENT") {
        Ok(percent) => percent.parse().expect("ALBATROSS_ORACLE_PERCENT is a whole number"),
        Err(_) => 5,
    };
    (all * percent).div_ceil(100)
}

/// Numbers from a seed.
pub(super) struct Random(fastrand::Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0.usize(..limit)
    }

    pub(super) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub(super) fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// Patterns that overlap in many ways.
const HOST_PATTERNS: [&str; 5] = ["a.example.com", "b.example.com", "*.example.com", "*.a.example.com", "*"];
const PATH_PATTERNS: [&str; 9] = ["/", "/*", "/a", "/a/*", "/a/b", "/a/?", "/b*", "/?", "*"];

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

pub(super) fn host(values: &[&str]) -> Condition {
    Condition::HostHeader { values: strings(values), regex_values: vec![] }
}

pub(super) fn path(values: &[&str]) -> Condition {
    Condition::PathPattern { values: strings(values), regex_values: vec![] }
}

fn conditions(random: &mut Random) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if !random.chance(3) {
        conditions.push(host(&[*random.of(&HOST_PATTERNS)]));
    }
    if conditions.is_empty() || !random.chance(4) {
        let first = *random.of(&PATH_PATTERNS);
        let second = *random.of(&PATH_PATTERNS);
        conditions.push(if random.chance(3) { path(&[first, second]) } else { path(&[first]) });
    }
    if random.chance(3) {
        conditions.push(other_condition(random));
    }
    if random.chance(12) {
        conditions.push(other_condition(random));
    }
    conditions
}

/// A condition on something else than host and path; they overlap, too.
fn other_condition(random: &mut Random) -> Condition {
    let pair =
        |key: Option<&str>, value: &str| QueryStringValue { key: key.map(str::to_owned), value: value.to_owned() };
    match random.below(4) {
        0 => {
            let chosen: &&[&str] = random.of(&[&["canary"], &["CANARY*"], &["*-b"], &["blue", "canary"], &["*"]]);
            Condition::HttpHeader { name: "X-Env".to_owned(), values: strings(chosen), regex_values: vec![] }
        }
        1 => {
            let chosen: &&[&str] = random.of(&[&["GET"], &["POST"], &["GET", "POST"], &["PUT"]]);
            Condition::HttpRequestMethod { values: strings(chosen) }
        }
        2 => {
            let values = match random.below(4) {
                0 => vec![pair(Some("v"), "2")],
                1 => vec![pair(Some("V"), "?")],
                2 => vec![pair(None, "beta"), pair(None, "2")],
                _ => vec![pair(Some("*"), "1")],
            };
            Condition::QueryString { values }
        }
        _ => {
            let blocks: [&[&str]; 4] =
                [&["10.0.0.0/8"], &["10.0.0.0/16"], &["192.0.2.0/24", "10.1.0.0/16"], &["0.0.0.0/0"]];
            let chosen: &&[&str] = random.of(&blocks);
            Condition::SourceIp { values: strings(chosen) }
        }
    }
}

pub(super) fn answer(body: &str) -> Action<TargetGroupReference> {
    Action::FixedResponse {
        content_type: Some("text/plain".to_owned()),
        message_body: Some(body.to_owned()),
        status_code: "200".to_owned(),
    }
}

pub(super) fn forward(arn: &str) -> Action<TargetGroupReference> {
    let group = TargetGroupReference::Foreign(TargetGroupArn::new(arn));
    Action::Forward { target_groups: vec![WeightedTargetGroup { group, weight: None }], stickiness: None }
}

/// A forward to two target groups by weight; now and then clients stay with one.
fn weighted(random: &mut Random) -> Action<TargetGroupReference> {
    let group = |arn: &str, weight| WeightedTargetGroup {
        group: TargetGroupReference::Foreign(TargetGroupArn::new(arn)),
        weight: Some(weight),
    };
    let share = *random.of(&[0, 1, 10, 50]);
    let seconds = *random.of(&[60, 3600]);
    Action::Forward {
        target_groups: vec![group("arn:blue", share), group("arn:green", 50)],
        stickiness: random.chance(3).then_some(Stickiness { enabled: true, duration_seconds: Some(seconds) }),
    }
}

/// Rewrites, of which most rules have none.
fn transforms(random: &mut Random) -> Vec<Transform> {
    let rewrite = |regex: &str| vec![Rewrite { regex: regex.to_owned(), replace: "/$1".to_owned() }];
    match random.below(12) {
        0 => vec![Transform::UrlRewrite(rewrite("^/a/(.*)$"))],
        1 => vec![Transform::UrlRewrite(rewrite("^/b(.*)$")), Transform::HostHeaderRewrite(rewrite("^(.*)$"))],
        _ => vec![],
    }
}

fn action(random: &mut Random) -> Action<TargetGroupReference> {
    match random.below(10) {
        6..=8 => weighted(random),
        0 => answer("yes"),
        1 => answer("no"),
        2 => answer("later"),
        3 => forward("arn:blue"),
        4 => forward("arn:green"),
        5 => forward("arn:red"),
        _ => Action::Redirect {
            host: None,
            path: Some("/elsewhere".to_owned()),
            port: None,
            protocol: None,
            query: None,
            status_code: "HTTP_302".to_owned(),
        },
    }
}

fn cause(field: &str) -> Cause {
    Cause { object: ObjectReference::ingress(&ObjectName::new("shop", "web")), generation: 1, field: field.to_owned() }
}

pub(super) fn rule(conditions: Vec<Condition>, action: Action<TargetGroupReference>) -> Rule {
    Rule { conditions, action, authentication: None, transforms: vec![], tags: Tags::new(), cause: cause("spec.rules") }
}

fn random_rule(random: &mut Random) -> Rule {
    Rule { authentication: None, transforms: transforms(random), ..rule(conditions(random), action(random)) }
}

/// A stack with one listener and nothing that is not about rules.
pub(super) fn stack(rules: Vec<Rule>, default_action: Action<TargetGroupReference>) -> Stack {
    let mut stack = Stack::empty(StackId::Ingress(ObjectName::new("shop", "web")));
    stack.load_balancer = Some(LoadBalancer {
        kind: LoadBalancerKind::Application,
        name: Value::Known(LoadBalancerName::new("web").unwrap()),
        scheme: Scheme::Internal,
        ip_address_type: IpAddressType::Ipv4,
        network: NetworkSettings::default(),
        pools: AddressPools::default(),
        subnets: Value::Known(vec![SubnetMapping::plain(SubnetId::new("subnet-1"))]),
        attributes: Attributes::new(),
        attribute_causes: BTreeMap::new(),
        add_ons: AddOns::default(),
        security_groups: vec![SecurityGroupReference::SharedBackend(Value::Known(SecurityGroupId::new("sg-1")))],
        tags: Tags::new(),
        cause: cause("spec"),
    });
    let listener = Listener { default_action, rules, cause: cause("spec"), ..crate::testing::listener(80) };
    stack.listeners.insert(80, listener);
    stack
}

pub(super) fn listener(observed: &ObservedStack) -> &ObservedListener {
    observed.load_balancers[0].listener(80).unwrap()
}

/// Two stacks and the priorities that the rules of the first have.
pub(super) struct Pair {
    pub(super) before: Stack,
    priorities: Vec<u32>,
    pub(super) after: Stack,
}

pub(super) fn pair(seed: u64) -> Pair {
    let mut random = Random::new(seed);
    let before: Vec<Rule> = (0..random.below(8)).map(|_| random_rule(&mut random)).collect();
    let mut after = before.clone();
    let actions_only = random.chance(6);
    for _ in 0..random.below(5) {
        match if actions_only { 3 } else { random.below(6) } {
            0 => after.insert(random.below(after.len() + 1), random_rule(&mut random)),
            1 if !after.is_empty() => {
                after.remove(random.below(after.len()));
            }
            2 if !after.is_empty() => {
                let moved = after.remove(random.below(after.len()));
                after.insert(random.below(after.len() + 1), moved);
            }
            3 if !after.is_empty() => {
                let index = random.below(after.len());
                match random.below(4) {
                    0 => after[index].transforms = transforms(&mut random),
                    _ => after[index].action = action(&mut random),
                }
            }
            4 if !after.is_empty() => {
                let index = random.below(after.len());
                after[index].conditions = conditions(&mut random);
            }
            5 if random.chance(4) => after = (0..random.below(8)).map(|_| random_rule(&mut random)).collect(),
            _ => {}
        }
    }
    let default_before = action(&mut random);
    let default_after = if random.chance(3) { action(&mut random) } else { default_before.clone() };
    // Priorities with gaps, and in some pairs so high that nothing fits below.
    let mut priority = if random.chance(6) { 50_000 - 7 * 3 } else { 0 };
    let priorities = before
        .iter()
        .map(|_| {
            priority += 1 + u32::try_from(random.below(3)).unwrap();
            priority
        })
        .collect();
    Pair { before: stack(before, default_before), priorities, after: stack(after, default_after) }
}

impl Pair {
    pub(super) fn observed(&self) -> ObservedStack {
        let mut observed = Aws::with(&self.before).observed;
        let listener = observed.load_balancers[0].listeners.get_or_insert_default().get_mut(&80).unwrap();
        for (rule, priority) in listener.rules.iter_mut().zip(&self.priorities) {
            rule.priority = *priority;
        }
        observed
    }
}

/// The fault of a plan.
#[derive(Debug)]
enum Fault {
    /// A request is answered neither as before nor as after.
    Answer(String),
    /// AWS refuses a step, or the end is not what is wanted.
    Other(String),
}

/// Runs a plan step by step and looks at every answer in between.
fn judge(probes: &Probes, observed: ObservedStack, after: &Stack, plan: &Plan) -> Result<ObservedStack, Fault> {
    let before = observed.clone();
    let old = probes.answers(listener(&before));
    let new = probes.wanted(&after.listeners[&80]);
    let mut aws = Aws::of(observed);
    aws.begin();
    for (count, step) in plan.steps.iter().enumerate() {
        aws.apply(after, &step.action).map_err(|refused| Fault::Other(format!("{}: {refused}", step.action)))?;
        let now = probes.answers(listener(&aws.observed));
        for (index, answer) in now.iter().enumerate() {
            if *answer != old[index] && *answer != new[index] {
                return Err(Fault::Answer(format!(
                    "after step {}, {}: {} is answered `{answer}`, neither `{}` nor `{}`",
                    count + 1,
                    step.action,
                    probe(index),
                    old[index],
                    new[index]
                )));
            }
        }
    }
    if probes.answers(listener(&aws.observed)) == new {
        Ok(aws.observed)
    } else {
        Err(Fault::Other("the end is not what is wanted".to_owned()))
    }
}

/// A rule as it counts for being the same: conditions and answer.
fn identity(rule: &Rule) -> (Vec<Condition>, String) {
    let mut conditions = rule.conditions.clone();
    conditions.sort();
    (conditions, label(&rule.action, &rule.transforms).to_string())
}

/// Returns the number of rules of each kind in a list.
fn counted(rules: &[Rule]) -> BTreeMap<(Vec<Condition>, String), usize> {
    rules.iter().fold(BTreeMap::new(), |mut counts, rule| {
        *counts.entry(identity(rule)).or_default() += 1;
        counts
    })
}

/// Steps by kind: created, ordered, modified, deleted.
fn effort(plan: &Plan) -> [usize; 4] {
    plan.steps.iter().fold([0; 4], |mut counts, step| {
        match step.action {
            StepAction::CreateRule { .. } => counts[0] += 1,
            StepAction::SetRulePriorities { .. } => counts[1] += 1,
            StepAction::ModifyRule { .. } => counts[2] += 1,
            StepAction::DeleteRule { .. } => counts[3] += 1,
            StepAction::ModifyListener { .. } => {}
            ref other => panic!("nothing but rules and the default action differs: {other}"),
        }
        counts
    })
}

#[test]
fn every_request_is_answered_as_before_or_as_after_between_all_steps() {
    let probes = Probes::default();
    let first = first_seed();
    let mut kinds = [0; 4];
    for seed in first..first + tried(PAIRS) {
        let pair = pair(seed);
        let observed = pair.observed();
        let planned = plan(&pair.after, &observed);
        let fail =
            |why: &str| panic!("seed {seed} (again with ALBATROSS_TEST_SEED={seed}): {why}\n{}", steps(&planned));
        let end = match judge(&probes, observed.clone(), &pair.after, &planned) {
            Ok(end) => end,
            Err(Fault::Answer(why) | Fault::Other(why)) => fail(&why),
        };
        if plan(&pair.after, &end) != Plan::empty() {
            fail("the next plan is not empty");
        }
        let (old, new) = (&pair.before.listeners[&80].rules, &pair.after.listeners[&80].rules);
        let counts = counted(new);
        let kept: usize =
            counted(old).iter().map(|(kind, count)| (*count).min(counts.get(kind).copied().unwrap_or_default())).sum();
        let [created, ordered, modified, deleted] = effort(&planned);
        let as_few_as_can_be = if modified > 0 {
            (created, ordered, deleted) == (0, 0, 0) && modified <= old.len()
        } else {
            (created, deleted) == (new.len() - kept, old.len() - kept) && ordered <= 2
        };
        if !as_few_as_can_be {
            fail("more steps than the difference asks for");
        }
        // The answer to a request is the same for `route`.
        if seed - first < PAIRS_ROUTED {
            let agrees = |listener: &Listener, observed: &ObservedListener| {
                let (wanted, found) = (probes.wanted_rules(listener), probes.observed_rules(observed));
                (0..wanted.len()).all(|index| {
                    let request = request(index);
                    let (as_wanted, as_found) =
                        (route::wanted(listener, &request), route::observed(observed, &request));
                    (as_wanted.hit.rule, as_found.hit.rule) == (wanted[index], found[index])
                        && as_wanted.perhaps.is_empty()
                        && as_found.perhaps.is_empty()
                })
            };
            let before = (&pair.before.listeners[&80], listener(&observed));
            let after = (&pair.after.listeners[&80], listener(&end));
            if !agrees(before.0, before.1) || !agrees(after.0, after.1) {
                fail("route answers a request otherwise");
            }
        }
        for (sum, count) in kinds.iter_mut().zip([created, ordered, modified, deleted]) {
            *sum += count;
        }
    }
    // Every kind of step was tried often.
    let often = usize::try_from(tried(500)).expect("small");
    assert!(kinds.iter().all(|count| *count > often), "{kinds:?}");
}

pub(super) fn steps(plan: &Plan) -> String {
    plan.steps.iter().map(|step| format!("  {}\n", step.action)).collect()
}

/// All rules in the order that a plan's SetRulePriorities gives them.
fn final_order(observed: &ObservedStack, plan: &Plan, set: &[(RuleReference, u32)]) -> Vec<RuleReference> {
    let mut now: Vec<(RuleReference, u32)> = listener(observed)
        .rules
        .iter()
        .map(|rule| (RuleReference::Existing(rule.arn.clone()), rule.priority))
        .collect();
    now.extend(plan.steps.iter().filter_map(|step| match &step.action {
        StepAction::CreateRule { port, index, priority, .. } => {
            Some((RuleReference::Created(*port, *index), *priority))
        }
        _ => None,
    }));
    for (rule, priority) in &mut now {
        if let Some((_, wanted)) = set.iter().find(|(reference, _)| reference == rule) {
            *priority = *wanted;
        }
    }
    now.sort_by_key(|(_, priority)| *priority);
    now.into_iter().map(|(rule, _)| rule).collect()
}

type Spoiler = fn(&ObservedStack, Plan) -> Plan;

fn is_delete(step: &Step) -> bool {
    matches!(step.action, StepAction::DeleteRule { .. })
}

/// The same plan with other rules.
fn with_rules(mut plan: Plan, change: fn(&mut Rule)) -> Plan {
    for step in &mut plan.steps {
        if let StepAction::CreateRule { rule, .. } | StepAction::ModifyRule { rule, .. } = &mut step.action {
            change(rule);
        }
    }
    plan
}

/// Planners that look right and are not, made of the right one.
const WRONG: [(&str, Spoiler); 7] = [
    ("weights are turned round", |_, plan| {
        with_rules(plan, |rule| {
            if let Action::Forward { target_groups, .. } = &mut rule.action
                && let [first, second] = target_groups.as_mut_slice()
            {
                std::mem::swap(&mut first.weight, &mut second.weight);
            }
        })
    }),
    ("rewrites are forgotten", |_, plan| with_rules(plan, |rule| rule.transforms.clear())),
    ("what goes is deleted first", |_, mut plan| {
        plan.steps.sort_by_key(|step| !is_delete(step));
        plan
    }),
    ("the default action is changed first", |_, mut plan| {
        plan.steps.sort_by_key(|step| !matches!(step.action, StepAction::ModifyListener { .. }));
        plan
    }),
    ("what goes is deleted from the top", |_, mut plan| {
        let first = plan.steps.iter().position(is_delete).unwrap_or(plan.steps.len());
        plan.steps[first..].reverse();
        plan
    }),
    ("new rules are created from the last to the first", |_, mut plan| {
        let is_create = |step: &Step| matches!(step.action, StepAction::CreateRule { .. });
        let places: Vec<usize> = (0..plan.steps.len()).filter(|i| is_create(&plan.steps[*i])).collect();
        for pair in 0..places.len() / 2 {
            plan.steps.swap(places[pair], places[places.len() - 1 - pair]);
        }
        plan
    }),
    ("what goes is put above what stays", |observed, mut plan| {
        let doomed: Vec<RuleReference> = plan
            .steps
            .iter()
            .filter_map(|step| match &step.action {
                StepAction::DeleteRule { arn, .. } => Some(RuleReference::Existing(arn.clone())),
                _ => None,
            })
            .collect();
        let orders: Vec<(usize, Vec<RuleReference>)> = plan
            .steps
            .iter()
            .enumerate()
            .filter_map(|(place, step)| match &step.action {
                StepAction::SetRulePriorities { priorities, .. } => {
                    Some((place, final_order(observed, &plan, priorities)))
                }
                _ => None,
            })
            .collect();
        if let Some((place, mut order)) = orders.into_iter().next_back() {
            order.sort_by_key(|rule| !doomed.contains(rule));
            let priorities = order.into_iter().zip(1..).collect();
            plan.steps[place].action = StepAction::SetRulePriorities { port: 80, priorities };
        }
        plan
    }),
];

#[test]
fn wrong_planners_are_found_out() {
    let probes = Probes::default();
    for (name, spoil) in WRONG {
        let first = first_seed();
        let found = (first..first + PAIRS).find(|seed| {
            let pair = pair(*seed);
            let observed = pair.observed();
            let spoilt = spoil(&observed, plan(&pair.after, &observed));
            matches!(judge(&probes, observed, &pair.after, &spoilt), Err(Fault::Answer(_)))
        });
        assert!(found.is_some(), "nobody noticed that {name}");
    }
}

/// Rules that all differ, in an order that AWS and the stack agree on.
fn agreed() -> Vec<Rule> {
    ["/a", "/a/*", "/b*", "/*"].iter().map(|pattern| rule(vec![path(&[pattern])], answer(pattern))).collect()
}

#[test]
fn one_more_rule_costs_one_creation_and_one_ordering_at_most() {
    for place in 0..=agreed().len() {
        let before = stack(agreed(), answer("default"));
        let mut rules = agreed();
        rules.insert(place, rule(vec![path(&["/a/?"])], forward("arn:blue")));
        let after = stack(rules, answer("default"));
        let planned = plan(&after, &Aws::with(&before).observed);
        let ordered = usize::from(place < agreed().len());
        assert_eq!(effort(&planned), [1, ordered, 0, 0], "at {place}:\n{}", steps(&planned));
        assert_eq!(planned.steps.len(), 1 + ordered);
    }
}

#[test]
fn one_more_rule_costs_as_little_whatever_the_rules() {
    let mut random = Random::new(first_seed());
    for _ in 0..2_000 {
        let before: Vec<Rule> = (0..random.below(9)).map(|_| random_rule(&mut random)).collect();
        let mut rules = before.clone();
        rules.insert(random.below(rules.len() + 1), random_rule(&mut random));
        let planned = plan(&stack(rules, answer("default")), &Aws::with(&stack(before, answer("default"))).observed);
        let [created, ordered, modified, deleted] = effort(&planned);
        assert!((created, modified, deleted) == (1, 0, 0) && ordered <= 1, "{}", steps(&planned));
        assert_eq!(planned.steps.len(), created + ordered);
    }
}

#[test]
fn transforms_are_added_changed_and_reset_in_place() {
    let with = |transforms| {
        let mut rules = agreed();
        rules[0].transforms = transforms;
        stack(rules, answer("default"))
    };
    let url =
        |regex: &str| vec![Transform::UrlRewrite(vec![Rewrite { regex: regex.to_owned(), replace: "/$1".to_owned() }])];
    let host = Transform::HostHeaderRewrite(vec![Rewrite { regex: "^a".to_owned(), replace: "b".to_owned() }]);
    for (before, after, reset) in [
        (vec![], url("^/a/(.*)$"), false),
        (url("^/a/(.*)$"), url("^/b/(.*)$"), false),
        (url("^/a/(.*)$"), vec![], true),
    ] {
        let planned = plan(&with(after.clone()), &Aws::with(&with(before)).observed);
        let [Step { action: StepAction::ModifyRule { rule, reset_transforms, .. }, .. }] = planned.steps.as_slice()
        else {
            panic!("{}", steps(&planned));
        };
        assert_eq!((&rule.transforms, *reset_transforms), (&after, reset));
    }
    // Their order means nothing.
    let mut both = url("^/a");
    both.push(host);
    let turned: Vec<Transform> = both.iter().rev().cloned().collect();
    assert_eq!(plan(&with(both), &Aws::with(&with(turned)).observed), Plan::empty());
    let planned = plan(&with(url("^/a/(.*)$")), &Aws::with(&with(vec![])).observed);
    insta::assert_snapshot!(crate::plan::render(&planned), @"
    ~ change a rule of listener 80 to: answer 200 `/a` (text/plain)
        when             path is /a
        rewriting        URL /^/a/(.*)$/ to `/$1`
        because of       Ingress shop/web generation 1, spec.rules
    ");
    let planned = plan(&with(vec![]), &Aws::with(&with(url("^/a/(.*)$"))).observed);
    insta::assert_snapshot!(crate::plan::render(&planned), @"
    ~ change a rule of listener 80 to: answer 200 `/a` (text/plain)
        when             path is /a
        rewriting        nothing any more
        because of       Ingress shop/web generation 1, spec.rules
    ");
}

#[test]
fn stickiness_that_goes_is_taken_away() {
    let with = |enabled, duration_seconds| {
        let mut rules = agreed();
        let group = |arn: &str| WeightedTargetGroup {
            group: TargetGroupReference::Foreign(TargetGroupArn::new(arn)),
            weight: Some(1),
        };
        rules[0].action = Action::Forward {
            target_groups: vec![group("arn:blue"), group("arn:green")],
            stickiness: Some(Stickiness { enabled, duration_seconds }),
        };
        stack(rules, answer("default"))
    };
    let observed = Aws::with(&with(true, Some(60))).observed;
    insta::assert_snapshot!(steps(&plan(&with(false, None), &observed)), @"  change a rule of listener 80 to: forward to arn:blue (weight 1), arn:green (weight 1)");
    insta::assert_snapshot!(steps(&plan(&with(true, Some(90)), &observed)), @"  change a rule of listener 80 to: forward to arn:blue (weight 1), arn:green (weight 1), sticky for 90 s");
    // AWS chooses the duration where no annotation does.
    assert_eq!(plan(&with(true, None), &observed), Plan::empty());
}

#[test]
fn one_rule_less_costs_one_deletion() {
    for place in 0..agreed().len() {
        let mut rules = agreed();
        rules.remove(place);
        let planned = plan(&stack(rules, answer("default")), &Aws::with(&stack(agreed(), answer("default"))).observed);
        assert_eq!(effort(&planned), [0, 0, 0, 1]);
    }
}

#[test]
fn a_moved_rule_costs_one_ordering() {
    let mut rules = agreed();
    rules.swap(0, 3);
    let planned = plan(&stack(rules, answer("default")), &Aws::with(&stack(agreed(), answer("default"))).observed);
    insta::assert_snapshot!(steps(&planned), @"put 2 rules of listener 80 in order (0 of them new)");
}

#[test]
fn where_only_actions_change_rules_are_modified_in_place() {
    let with = |first| {
        let mut rules = agreed();
        rules[0].action = first;
        rules[1].action = forward("arn:blue");
        stack(rules, answer("default"))
    };
    let observed = Aws::with(&with(answer("old"))).observed;
    insta::assert_snapshot!(steps(&plan(&with(answer("new")), &observed)), @"change a rule of listener 80 to: answer 200 `new` (text/plain)");
    // The targets of a group that something names already are health-checked; those of another are not yet, so its rule
    // is made below the old one.
    insta::assert_snapshot!(steps(&plan(&with(forward("arn:blue")), &observed)), @"change a rule of listener 80 to: forward to arn:blue");
    insta::assert_snapshot!(steps(&plan(&with(forward("arn:new")), &observed)), @r"
    create rule 5 of listener 80: path is /a
    put 2 rules of listener 80 in order (1 of them new)
    delete rule 1 of listener 80
    ");
}

#[test]
fn rules_near_the_largest_priority_are_pushed_together_first() {
    let pair = Pair {
        before: stack(agreed(), answer("default")),
        priorities: vec![10, 20, 49_999, 50_000],
        after: stack([agreed(), vec![rule(vec![host(&["*"])], answer("more"))]].concat(), answer("default")),
    };
    let observed = pair.observed();
    let planned = plan(&pair.after, &observed);
    insta::assert_snapshot!(steps(&planned), @r"
    put 4 rules of listener 80 in order (0 of them new)
    create rule 5 of listener 80: host is *
    ");
    let end = judge(&Probes::default(), observed, &pair.after, &planned).unwrap();
    let priorities: Vec<u32> = listener(&end).rules.iter().map(|rule| rule.priority).collect();
    assert_eq!(priorities, [1, 2, 3, 4, 5]);
}

#[test]
fn rewrites_and_further_actions_that_nobody_asks_for_are_taken_away() {
    let wanted = stack(agreed(), answer("default"));
    let mut observed = Aws::with(&wanted).observed;
    let listener = observed.load_balancers[0].listeners.get_or_insert_default().get_mut(&80).unwrap();
    listener.rules[1].transforms = vec![Transform::Other("new-kind".to_owned())];
    listener.rules[2].actions.insert(0, Action::Other("authenticate-oidc".to_owned()));
    assert_eq!(effort(&plan(&wanted, &observed)), [0, 0, 2, 0]);
}
