//! Rules lead to target groups only when their targets are healthy, on random rules and in single changes.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    aws::Aws,
    oracle::{Probes, probe},
    plan,
    replaced::public,
    rules::{Pair, first_seed, forward, listener, pair, path, rule, stack, tried},
    stacks::SAMPLE,
};
use crate::{
    model::*,
    plan::{Plan, Planned, StepAction, Wait},
};

/// The number of random pairs of stacks.
const PAIRS: u64 = 3_000;
/// The number of targets of each target group.
const TARGETS: usize = 2;

fn id(arn: &TargetGroupArn) -> ResourceId {
    ResourceId::of_tag(format!("shop/web-{}:80", arn.as_str().trim_start_matches("arn:")))
}

/// Makes the target groups that a stack's actions name its own.
fn own(mut stack: Stack) -> Stack {
    let sample = super::steps::built(SAMPLE);
    let (_, template) = sample.target_groups.first().unwrap();
    let mut named = BTreeSet::new();
    for listener in stack.listeners.values_mut() {
        for action in listener.rules.iter_mut().map(|rule| &mut rule.action).chain([&mut listener.default_action]) {
            let Action::Forward { target_groups, .. } = action else { continue };
            for group in target_groups {
                let TargetGroupReference::Foreign(arn) = &group.group else { continue };
                named.insert(arn.clone());
                group.group = TargetGroupReference::Own(id(arn));
            }
        }
    }
    for arn in named {
        let (mut group, resource) = (template.clone(), id(&arn));
        let name = arn.as_str().trim_start_matches("arn:").to_owned();
        group.second_name = Value::Known(TargetGroupName::new(format!("{name}-second")).unwrap());
        group.name = Value::Known(TargetGroupName::new(name).unwrap());
        group.tags.insert(tags::INGRESS_RESOURCE.to_owned(), resource.to_string());
        group.resource = resource.clone();
        stack.target_groups.insert(resource, group);
    }
    stack
}

/// AWS and the cluster, with the healths that only a look tells.
struct World {
    aws: Aws,
    healthy: BTreeSet<TargetGroupArn>,
    looks: usize,
}

impl World {
    fn of(before: &Stack) -> Self {
        let mut aws = Aws::with(before);
        aws.observed.awaits_health = true;
        aws.observed.load_balancers.iter_mut().for_each(|balancer| balancer.state = LoadBalancerState::Active);
        let healthy = aws.observed.target_groups.iter().map(|group| group.arn.clone()).collect();
        let mut world = Self { aws, healthy, looks: 0 };
        world.register();
        world
    }

    /// All targets are registered, and what is being deleted is gone.
    fn register(&mut self) {
        self.aws.observed.bindings.retain(|binding| !binding.deleting);
        for binding in &mut self.aws.observed.bindings {
            binding.registered = Some(TARGETS);
            binding.allows_sources = true;
        }
    }

    /// The targets of the target groups that something names pass their health checks.
    fn become_healthy(&mut self) {
        let named = self.aws.observed.load_balancers.iter().flat_map(ObservedLoadBalancer::target_groups);
        self.healthy.extend(named.cloned());
    }

    fn plan(&mut self, wanted: &Stack) -> Plan {
        self.aws.observed.healthy.clear();
        loop {
            match super::super::plan(wanted, &self.aws.observed) {
                Planned::Ready(plan) => return plan,
                Planned::Need(reads) => {
                    assert!(!reads.states);
                    self.looks += reads.health.len();
                    for arn in reads.health {
                        let healthy = if self.healthy.contains(&arn) { TARGETS } else { 0 };
                        assert!(
                            self.aws.observed.healthy.insert(arn, Some(healthy)).is_none(),
                            "nothing is read twice"
                        );
                    }
                }
            }
        }
    }

    /// Returns the target groups that get requests, by the names of their resources.
    fn serving(&self) -> BTreeSet<TargetGroupArn> {
        let mut serving = BTreeSet::new();
        for listener in self.aws.observed.load_balancers.iter().flat_map(ObservedLoadBalancer::known_listeners) {
            let rules = listener.rules.iter().filter(|rule| !is_parked(rule)).flat_map(|rule| &rule.actions);
            for action in rules.chain(&listener.default_actions) {
                let Action::Forward { target_groups, .. } = action else { continue };
                let several = target_groups.len() > 1;
                let named = target_groups.iter().filter(|group| !several || group.weight != Some(0));
                serving.extend(named.map(|group| group.group.clone()));
            }
        }
        serving
    }

    /// The listener with the ids of resources in the place of ARNs.
    fn named(&self) -> ObservedListener {
        let names: BTreeMap<_, _> =
            self.aws.observed.target_groups.iter().map(|group| (&group.arn, group.resource().unwrap())).collect();
        let mut listener = listener(&self.aws.observed).clone();
        listener.rules.retain(|rule| !is_parked(rule));
        let actions = listener.rules.iter_mut().flat_map(|rule| &mut rule.actions);
        for action in actions.chain(&mut listener.default_actions) {
            *action = action.try_map(|arn| Ok::<_, ()>(TargetGroupArn::new(names[arn].to_string()))).unwrap();
        }
        listener
    }
}

/// Returns true if a rule is one that no request meets.
fn is_parked(rule: &ObservedRule) -> bool {
    rule.conditions
        .iter()
        .any(|condition| matches!(condition, Condition::HttpHeader { name, .. } if name == "x-albatross-parked"))
}

/// Walks to the wanted stack. Returns the fault of a step: a request that is answered neither as before nor as after, or a
/// target group that gets requests before its targets are healthy.
fn walk(probes: &Probes, world: &mut World, wanted: &Stack) -> Result<usize, String> {
    let old = probes.answers(&world.named());
    let new = probes.wanted(&wanted.listeners[&80]);
    for round in 0..12 {
        let planned = world.plan(wanted);
        if planned.is_complete() {
            return Ok(round);
        }
        world.aws.begin_plan(&planned);
        for step in &planned.steps {
            let at = |what: String| format!("round {round}, {}: {what}", step.action);
            world.aws.apply(wanted, &step.action).map_err(|refused| at(format!("refused: {refused}")))?;
            let now = probes.answers(&world.named());
            let wrong = |index: &usize| now[*index] != old[*index] && now[*index] != new[*index];
            if let Some(index) = (0..now.len()).find(wrong) {
                return Err(at(format!("{}: `{}`, `{}`, `{}`", probe(index), old[index], now[index], new[index])));
            }
            if let Some(arn) = world.serving().difference(&world.healthy).next() {
                return Err(at(format!("{arn} serves, and no target is healthy")));
            }
        }
        world.register();
        if round % 2 == 1 {
            world.become_healthy();
        }
    }
    Err("there is no end".to_owned())
}

fn own_pair(seed: u64) -> Pair {
    let mut pair = pair(seed);
    (pair.before, pair.after) = (own(pair.before), own(pair.after));
    pair
}

#[test]
fn no_rule_leads_to_targets_that_are_not_healthy() {
    let (probes, first) = (Probes::default(), first_seed());
    let (mut looks, mut longest) = (0, 0);
    for seed in first..first + tried(PAIRS) {
        let pair = own_pair(seed);
        let mut world = World::of(&pair.before);
        match walk(&probes, &mut world, &pair.after) {
            Ok(rounds) => longest = longest.max(rounds),
            Err(why) => panic!("seed {seed} (again with ALBATROSS_TEST_SEED={seed}): {why}"),
        }
        assert_eq!(world.named().rules.len(), pair.after.listeners[&80].rules.len(), "seed {seed}");
        assert!(!listener(&world.aws.observed).rules.iter().any(is_parked), "seed {seed}: a rule is left");
        looks += world.looks;
    }
    assert!(looks > 10 && longest > 3, "{looks} looks, {longest} rounds");
}

#[test]
fn a_planner_that_does_not_wait_is_caught() {
    let probes = Probes::default();
    let caught = (0..100).filter(|seed| {
        let pair = own_pair(*seed);
        let mut world = World::of(&pair.before);
        world.aws.observed.awaits_health = false;
        walk(&probes, &mut world, &pair.after).is_err()
    });
    assert!(caught.count() > 10);
}

fn listed(plan: &Plan) -> String {
    let steps = plan.steps.iter().map(|step| step.action.to_string());
    steps.chain(plan.waits.iter().map(|wait| format!("({wait})"))).collect::<Vec<_>>().join("\n")
}

/// Returns a stack whose path `/a` leads to this target group.
fn with(arn: &str) -> Stack {
    own(stack(vec![rule(vec![path(&["/a"])], forward(arn))], forward("arn:blue")))
}

/// The plans of a change, one after the other; targets are healthy two plans after their target group is named.
fn told(before: &Stack, after: &Stack) -> String {
    let mut world = World::of(before);
    let mut plans = Vec::new();
    for round in 0..8 {
        let planned = world.plan(after);
        if planned.is_complete() {
            return plans.join("\n--\n");
        }
        plans.push(listed(&planned));
        world.aws.run(after, &planned);
        world.register();
        if round == 1 {
            world.become_healthy();
        }
    }
    panic!("there is no end: {plans:?}");
}

#[test]
fn a_backend_is_swapped_when_the_new_one_is_healthy() {
    insta::assert_snapshot!(told(&with("arn:red"), &with("arn:green")), @"
    create target group green for shop/web-green:80
    create TargetGroupBinding shop/green
    create rule 50000 of listener 80: header x-albatross-parked is * and client is in 192.0.2.0/32
    (waiting for the targets of target group shop/web-green:80 to be healthy)
    --
    (waiting for the targets of target group shop/web-green:80 to be healthy)
    --
    change a rule of listener 80 to: forward to shop/web-green:80
    delete rule 50000 of listener 80
    delete TargetGroupBinding shop/red
    (waiting for TargetGroupBinding shop/red to be gone)
    --
    delete target group red
    ");
}

#[test]
fn a_new_path_is_served_when_its_targets_are_healthy() {
    let before = own(stack(Vec::new(), forward("arn:blue")));
    let after = own(stack(vec![rule(vec![path(&["/a"])], forward("arn:green"))], forward("arn:blue")));
    insta::assert_snapshot!(told(&before, &after), @"
    create target group green for shop/web-green:80
    create TargetGroupBinding shop/green
    create rule 50000 of listener 80: header x-albatross-parked is * and client is in 192.0.2.0/32
    (waiting for the targets of target group shop/web-green:80 to be healthy)
    --
    (waiting for the targets of target group shop/web-green:80 to be healthy)
    --
    create rule 1 of listener 80: path is /a
    delete rule 50000 of listener 80
    ");
}

#[test]
fn a_default_action_waits_for_its_targets() {
    let with = |arn: &str| own(stack(vec![rule(vec![path(&["/a"])], forward("arn:blue"))], forward(arn)));
    insta::assert_snapshot!(told(&with("arn:red"), &with("arn:green")), @"
    create target group green for shop/web-green:80
    create TargetGroupBinding shop/green
    create rule 50000 of listener 80: header x-albatross-parked is * and client is in 192.0.2.0/32
    (waiting for the targets of target group shop/web-green:80 to be healthy)
    --
    (waiting for the targets of target group shop/web-green:80 to be healthy)
    --
    change listener 80: default forward to shop/web-green:80
    delete rule 50000 of listener 80
    delete TargetGroupBinding shop/red
    (waiting for TargetGroupBinding shop/red to be gone)
    --
    delete target group red
    ");
}

#[test]
fn what_has_no_targets_or_has_waited_long_enough_is_not_waited_for() {
    let after = with("arn:green");
    let parked = |change: &dyn Fn(&mut ObservedStack)| {
        let mut world = World::of(&with("arn:red"));
        let first = world.plan(&after);
        world.aws.run(&after, &first);
        world.register();
        change(&mut world.aws.observed);
        world.plan(&after)
    };
    let waits = |plan: &Plan| plan.waits.contains(&Wait::Ready(id(&TargetGroupArn::new("arn:green"))));
    let waiting = parked(&|_| {});
    assert!(waits(&waiting));
    let member = ObjectReference::ingress(&ObjectName::new("shop", "web"));
    assert_eq!(waiting.held_members, BTreeSet::from([member]));
    assert!(!waits(&parked(&|observed| observed.awaits_health = false)));
    let overdue = BTreeSet::from([id(&TargetGroupArn::new("arn:green"))]);
    assert!(!waits(&parked(&|observed| observed.health_overdue.clone_from(&overdue))));
    // Without targets, the old ones serve on as long as one of them is healthy: pods may come with their Ingress.
    let without_targets = |old_healthy: Option<usize>| {
        let mut world = World::of(&with("arn:red"));
        let first = world.plan(&after);
        world.aws.run(&after, &first);
        world.aws.observed.bindings.iter_mut().for_each(|b| b.registered = Some(0));
        world.aws.observed.healthy =
            world.aws.observed.target_groups.iter().map(|group| (group.arn.clone(), old_healthy)).collect();
        plan(&after, &world.aws.observed)
    };
    assert!(waits(&without_targets(Some(1))) && !waits(&without_targets(Some(0))));
    // That AWS does not tell proves nothing.
    assert!(waits(&without_targets(None)));
    // What is still being registered is waited for, and nobody asks for its health.
    let registering = parked(&|observed| observed.bindings.iter_mut().for_each(|b| b.registered = None));
    assert!(waits(&registering) && registering.steps.is_empty());
}

#[test]
fn a_load_balancer_that_is_not_active_answers_nobody() {
    let mut world = World::of(&with("arn:red"));
    let observed = &mut world.aws.observed;
    observed.load_balancers.iter_mut().for_each(|balancer| balancer.state = LoadBalancerState::Provisioning);
    // The state may be as old as the load balancer.
    let Planned::Need(reads) = super::super::plan(&with("arn:green"), observed) else { panic!("a plan") };
    assert!(reads.states && reads.health.is_empty());
    observed.states_are_read = true;
    assert_eq!(plan(&with("arn:green"), observed).waits.iter().filter(|w| matches!(w, Wait::Ready(_))).count(), 0);
}

/// A stack whose paths lead to these target groups, one path each.
fn with_paths(arns: &[&str]) -> Stack {
    let rule = |arn: &&str| rule(vec![path(&[&format!("/{}", arn.trim_start_matches("arn:"))])], forward(arn));
    own(stack(arns.iter().map(rule).collect(), forward("arn:blue")))
}

#[test]
fn target_groups_that_become_healthy_one_after_the_other_stay_parked_until_all_are() {
    let new = ["arn:a", "arn:b", "arn:c", "arn:d", "arn:e", "arn:f", "arn:g"];
    let (before, after) = (with_paths(&[]), with_paths(&new));
    let mut world = World::of(&before);
    for healthy in 0..new.len() {
        let planned = world.plan(&after);
        let parked = planned.steps.iter().filter(|step| matches!(step.action, StepAction::CreateRule { .. })).count();
        assert_eq!((parked, planned.waits.len()), (if healthy == 0 { 2 } else { 0 }, new.len()), "{planned:?}");
        assert!(healthy == 0 || planned.steps.is_empty(), "{planned:?}");
        world.aws.run(&after, &planned);
        world.register();
        // The last one first.
        let arn = |name: &str| {
            let mut groups = world.aws.observed.target_groups.iter();
            groups.find(|group| group.resource() == Some(id(&TargetGroupArn::new(name)))).unwrap().arn.clone()
        };
        let next = arn(new[new.len() - 1 - healthy]);
        world.healthy.insert(next);
    }
    let planned = world.plan(&after);
    assert!(planned.waits.is_empty(), "{planned:?}");
    world.aws.run(&after, &planned);
    assert!(world.plan(&after).is_complete());
}

#[test]
fn a_member_is_held_until_the_last_of_its_deadlines_and_what_is_not_healthy_is_told() {
    let (before, after) = (with_paths(&[]), with_paths(&["arn:a", "arn:b"]));
    let mut world = World::of(&before);
    let first = world.plan(&after);
    world.aws.run(&after, &first);
    world.register();
    let resource = |name: &str| id(&TargetGroupArn::new(name));
    world.aws.observed.health_overdue = BTreeSet::from([resource("arn:a")]);
    let one = world.plan(&after);
    assert_eq!(one.waits, first.waits, "the wait that is over stays, so that its time does not begin anew");
    assert!(one.steps.is_empty() && one.unhealthy.is_empty(), "{one:?}");
    world.aws.observed.health_overdue.insert(resource("arn:b"));
    let both = world.plan(&after);
    assert!(both.waits.is_empty() && both.held_members.is_empty(), "{both:?}");
    assert_eq!(both.unhealthy, BTreeSet::from([resource("arn:a"), resource("arn:b")]));
}

#[test]
fn a_rule_that_only_looks_like_parking_is_a_rule() {
    let parked = ["x-albatross-parked".to_owned(), "192.0.2.0/32".to_owned()];
    let [name, block] = parked;
    let alike = vec![
        path(&["/a"]),
        Condition::HttpHeader { name, values: vec!["*".to_owned()], regex_values: Vec::new() },
        Condition::SourceIp { values: vec![block] },
    ];
    let wanted = own(stack(vec![rule(alike, forward("arn:blue"))], forward("arn:blue")));
    let mut world = World::of(&wanted);
    assert_eq!(world.plan(&wanted), Plan::empty());
}

#[test]
fn an_old_load_balancer_stays_while_a_member_of_the_new_one_waits_for_targets() {
    let before = with("arn:red");
    let mut world = World::of(&before);
    // Another one takes over, and is complete.
    let old = world.aws.observed.load_balancers[0].arn.clone();
    let after = public(before);
    let made = world.plan(&after);
    world.aws.run(&after, &made);
    world.register();
    world.become_healthy();
    world.aws.observed.load_balancers.iter_mut().for_each(|balancer| balancer.state = LoadBalancerState::Active);
    assert_eq!(world.plan(&after).waits, BTreeSet::from([Wait::RetainOld(old.clone())]));
    world.aws.observed.expired = BTreeSet::from([old.clone()]);
    let swapped = world.plan(&public(with("arn:green")));
    assert!(swapped.waits.contains(&Wait::Mended(old)), "{swapped:?}");
    assert!(!swapped.steps.iter().any(|step| matches!(step.action, StepAction::DeleteLoadBalancer { .. })));
}

#[test]
fn without_room_for_parking_the_targets_are_only_registered_first() {
    let (before, after) = (with("arn:red"), with("arn:green"));
    let mut world = World::of(&before);
    world.aws.observed.room.rules = Some(1);
    let first = world.plan(&after);
    insta::assert_snapshot!(listed(&first), @"
    create target group green for shop/web-green:80
    create TargetGroupBinding shop/green
    (waiting for the targets of target group shop/web-green:80 to be healthy)
    ");
    world.aws.run(&after, &first);
    world.register();
    let second = world.plan(&after);
    let is_rule = |plan: &Plan| {
        plan.steps
            .iter()
            .any(|step| matches!(step.action, StepAction::ModifyRule { .. } | StepAction::CreateRule { .. }))
    };
    assert!(!is_rule(&first) && is_rule(&second), "{second:?}");
}

#[test]
fn at_the_quota_what_is_parked_makes_room_for_its_rule() {
    let blue = || rule(vec![path(&["/b"])], forward("arn:blue"));
    let before = own(stack(vec![blue()], forward("arn:blue")));
    let after = own(stack(vec![blue(), rule(vec![path(&["/a"])], forward("arn:green"))], forward("arn:blue")));
    let mut world = World::of(&before);
    world.aws.most.rules = 2;
    let first = world.plan(&after);
    world.aws.run(&after, &first);
    world.register();
    world.become_healthy();
    let refused = world.plan(&after);
    world.aws.begin_plan(&refused);
    let refusal = refused.steps.iter().find_map(|step| world.aws.apply(&after, &step.action).err());
    assert!(refusal.is_some(), "{refused:?}");
    world.aws.observed.room.rules = Some(2);
    let fitting = world.plan(&after);
    insta::assert_snapshot!(listed(&fitting), @"
    delete rule 50000 of listener 80
    create rule 2 of listener 80: path is /a
    ");
    world.aws.run(&after, &fitting);
    world.aws.observed.room = KnownLimits::default();
    assert!(world.plan(&after).is_complete());
}

#[test]
fn an_action_that_has_to_change_with_its_listeners_protocol_does_not_wait() {
    let mut after = with("arn:green");
    let mut world = World::of(&with("arn:red"));
    let is_ready = |plan: &Plan| plan.waits.iter().any(|wait| matches!(wait, Wait::Ready(_)));
    assert!(is_ready(&world.plan(&after)));
    let listener = after.listeners.get_mut(&80).unwrap();
    listener.protocol = ListenerProtocol::Https;
    listener.default_certificate = Some(CertificateArn::new("arn:aws:acm:eu-west-1:111122223333:certificate/a"));
    assert!(!is_ready(&world.plan(&after)));
}

#[test]
fn a_more_specific_path_waits_for_targets_while_another_rule_answers_it() {
    let before = own(stack(vec![rule(vec![path(&["/*"])], forward("arn:red"))], forward("arn:blue")));
    let after = own(stack(
        vec![rule(vec![path(&["/a"])], forward("arn:green")), rule(vec![path(&["/*"])], forward("arn:red"))],
        forward("arn:blue"),
    ));
    let mut world = World::of(&before);
    let first = world.plan(&after);
    world.aws.run(&after, &first);
    let waits = |aws: &Aws, old_healthy: Option<usize>| {
        let mut observed = aws.observed.clone();
        observed.bindings.iter_mut().for_each(|b| b.registered = Some(0));
        observed.healthy = observed.target_groups.iter().map(|group| (group.arn.clone(), old_healthy)).collect();
        plan(&after, &observed).waits.iter().any(|wait| matches!(wait, Wait::Ready(_)))
    };
    assert!(waits(&world.aws, Some(1)) && !waits(&world.aws, Some(0)));
}

#[test]
fn as_many_targets_are_healthy_as_were_before_or_all() {
    let (before, after) = (with("arn:red"), with("arn:green"));
    let mut world = World::of(&before);
    let first = world.plan(&after);
    world.aws.run(&after, &first);
    world.register();
    let arn = |name: &str| {
        let mut groups = world.aws.observed.target_groups.iter();
        groups.find(|group| group.name == name).unwrap().arn.clone()
    };
    let (old, new) = (arn("red"), arn("green"));
    let all = |count: usize| Some(count);
    for (desired, healthy, before, is_ready) in [
        (4, all(1), all(2), false),
        (4, all(2), all(2), true),
        (4, all(3), all(2), true),
        (2, all(2), all(5), true),
        (2, all(1), all(0), true),
        (2, all(0), all(0), false),
        (2, all(1), None, false),
        (2, None, all(0), false),
    ] {
        let mut observed = world.aws.observed.clone();
        observed.bindings.iter_mut().for_each(|binding| binding.registered = Some(desired));
        observed.healthy = BTreeMap::from([(new.clone(), healthy), (old.clone(), before)]);
        let waits = plan(&after, &observed).waits;
        assert_eq!(
            !waits.iter().any(|wait| matches!(wait, Wait::Ready(_))),
            is_ready,
            "{healthy:?} of {desired}, before {before:?}"
        );
    }
}
