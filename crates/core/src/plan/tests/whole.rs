//! Changes of whole load balancers, one step at a time: redirects are followed, and the security groups in front and the
//! networking of bindings count. Wherever a plan stops, each request ends as before or as after.

use std::{borrow::Cow, collections::BTreeMap};

use super::{
    aws::{Aws, BACKEND_GROUP, Most},
    plan,
    rules::{Random, first_seed, tried},
    stacks::SAMPLE,
    steps::built,
};
use crate::{
    model::*,
    plan::{Planned, Step, StepAction, Wait},
};

/// The number of pairs of stacks that are tried.
const PAIRS: u64 = 10_000;
/// The number of them that are tried at quotas.
const PAIRS_AT_QUOTAS: u64 = 2_000;
/// Hosts that distinguish rules.
const HOSTS: [&str; 3] = ["a.test", "b.test", "c.test"];
/// Clients by the blocks that security groups allow.
const CLIENTS: [&str; 2] = ["10.0.0.0/8", "192.168.0.0/16"];
const PORTS: [u16; 4] = [80, 443, 8080, 8443];

/// The place where a request ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// No connection, or not in the client's protocol.
    Refused,
    /// A target that does not allow the load balancer.
    CutOff,
    /// The target group, of which there is one; its name does not count.
    Targets,
    Answered(String),
}

/// Returns where a request over HTTP or HTTPS ends, by what AWS and the cluster have; without a client, of one that all
/// groups allow and that uses each protocol.
fn end(observed: &ObservedStack, client: Option<&str>, tls: bool, port: u16, host: &str, hops: u8) -> End {
    let Some(balancer) = observed.load_balancers.first() else { return End::Refused };
    let lets_in = |group: &ObservedSecurityGroup| {
        group.ingress.iter().any(|rule| {
            rule.from_port == Some(i32::from(port))
                && matches!(&rule.source, Source::Ipv4(block) if Some(&**block) == client)
        })
    };
    // A group of the user's own allows all clients.
    let open = client.is_none()
        || balancer.security_groups.iter().any(|id| {
            let managed = observed.security_groups.iter().find(|group| group.id == *id);
            managed.map_or(id.as_str() != BACKEND_GROUP, lets_in)
        });
    let speaks = |l: &&ObservedListener| client.is_none() || (l.protocol == Some(ListenerProtocol::Https)) == tls;
    let listener = balancer.listener(port).filter(speaks);
    let (true, Some(listener)) = (open, listener) else { return End::Refused };
    let actions = answer_of(listener, host);
    match actions.last() {
        Some(Action::Redirect { port: Some(to), .. }) if hops > 0 => match to.parse() {
            Ok(to) => end(observed, client, true, to, host, hops - 1),
            Err(_) => End::Refused,
        },
        Some(Action::Forward { target_groups, .. }) => {
            let cut_off = target_groups.iter().any(|weighted| {
                let mut bindings = observed.bindings.iter().filter(|binding| binding.target_group == weighted.group);
                bindings.any(|binding| !reaches(balancer, binding))
            });
            if cut_off { End::CutOff } else { End::Targets }
        }
        other => End::Answered(format!("{other:?}")),
    }
}

/// Returns the actions with which a listener answers requests to a host.
fn answer_of<'a>(listener: &'a ObservedListener, host: &str) -> &'a [Action<TargetGroupArn>] {
    let takes = |rule: &&ObservedRule| {
        rule.conditions
            .iter()
            .all(|c| matches!(c, Condition::HostHeader { values, .. } if values.iter().any(|v| v == host)))
    };
    listener.rules.iter().find(takes).map_or(&listener.default_actions, |rule| &rule.actions)
}

/// Returns the port that a request is redirected to.
fn redirected(observed: &ObservedStack, (_, _, port, host): &Request) -> Option<u16> {
    match answer_of(observed.load_balancers.first()?.listener(*port)?, host).last()? {
        Action::Redirect { port: Some(to), .. } => to.parse().ok(),
        _ => None,
    }
}

/// Returns true if the targets of a binding allow one of the load balancer's security groups.
fn reaches(balancer: &ObservedLoadBalancer, binding: &ObservedBinding) -> bool {
    let Some(networking) = &binding.spec.networking else { return true };
    let mut peers = networking.ingress.iter().flatten().flat_map(|rule| &rule.from);
    peers.any(|peer| {
        let group = peer.security_group.as_ref().map(|group| &group.group_id);
        group.is_some_and(|id| balancer.security_groups.iter().any(|own| own.as_str() == id.as_str()))
    })
}

type Request = (&'static str, bool, u16, &'static str);

/// Returns where each of many requests ends.
fn ends(observed: &ObservedStack, all_open: bool) -> BTreeMap<Request, End> {
    let mut ends = BTreeMap::new();
    for client in CLIENTS {
        for tls in [false, true] {
            for port in PORTS {
                for host in HOSTS {
                    ends.insert(
                        (client, tls, port, host),
                        end(observed, Some(client).filter(|_| !all_open), tls, port, host, 2),
                    );
                }
            }
        }
    }
    ends
}

fn fixed(body: usize) -> Action<TargetGroupReference> {
    Action::FixedResponse {
        content_type: Some("text/plain".to_owned()),
        message_body: Some(body.to_string()),
        status_code: "200".to_owned(),
    }
}

fn redirect_to(port: u16) -> Action<TargetGroupReference> {
    Action::Redirect {
        host: None,
        path: None,
        port: Some(port.to_string()),
        protocol: Some("HTTPS".to_owned()),
        query: None,
        status_code: "HTTP_301".to_owned(),
    }
}

/// Returns a stack: listeners, of which plain ones redirect to a secure one or serve; the groups in front; the networking.
fn stack(random: &mut Random) -> Stack {
    let sample = built(SAMPLE);
    let mut stack = sample.clone();
    let own = TargetGroupReference::Own(stack.target_groups.keys().next().expect("one").clone());
    let forward =
        Action::Forward { target_groups: vec![WeightedTargetGroup { group: own, weight: None }], stickiness: None };
    let listener = sample.listeners.values().next().expect("one");
    stack.listeners.clear();
    let secure: Vec<u16> =
        [443, 8443, 80].into_iter().filter(|port| random.chance(if *port == 80 { 8 } else { 2 })).collect();
    let plain: Vec<u16> = PORTS
        .into_iter()
        .filter(|port| !secure.contains(port) && random.chance(if *port == 80 { 1 } else { 3 }))
        .collect();
    let target = secure.first().copied().filter(|_| !random.chance(3));
    for port in secure.iter().chain(&plain).copied() {
        let tls = secure.contains(&port);
        let redirected = target.filter(|_| !tls);
        let serve = |random: &mut Random| if random.chance(2) { forward.clone() } else { fixed(random.below(3)) };
        let rules = match redirected {
            Some(_) => vec![],
            None => HOSTS
                .iter()
                .filter(|_| random.chance(2))
                .copied()
                .collect::<Vec<_>>()
                .into_iter()
                .map(|host| Rule {
                    conditions: vec![Condition::HostHeader { values: vec![host.to_owned()], regex_values: vec![] }],
                    action: serve(random),
                    authentication: None,
                    transforms: vec![],
                    tags: Tags::new(),
                    cause: listener.cause.clone(),
                })
                .collect(),
        };
        let certificate = tls.then(|| {
            CertificateArn::new(format!("arn:aws:acm:eu-west-1:111122223333:certificate/{}", random.below(2)))
        });
        let made = Listener {
            port,
            protocol: if tls { ListenerProtocol::Https } else { ListenerProtocol::Http },
            default_action: redirected.map_or_else(|| serve(random), redirect_to),
            default_certificate: certificate,
            ssl_policy: tls.then(|| "ELBSecurityPolicy-2016-08".to_owned()),
            rules,
            ..listener.clone()
        };
        stack.listeners.insert(port, made);
    }
    let managed = random.chance(2);
    let clients: Vec<&str> = CLIENTS.into_iter().filter(|_| !random.chance(3)).collect();
    let group = stack.security_group.as_mut().expect("a group of its own");
    let rule = group.ingress[0].clone();
    group.ingress = stack
        .listeners
        .keys()
        .flat_map(|port| clients.iter().map(|client| (i32::from(*port), *client)).collect::<Vec<_>>())
        .map(|(port, client)| SecurityGroupRule {
            from_port: Some(port),
            to_port: Some(port),
            source: Source::Ipv4(client.to_owned()),
            ..rule.clone()
        })
        .collect();
    if !managed {
        let own =
            SecurityGroupReference::Given(Value::Known(SecurityGroupId::new(format!("sg-own-{}", random.below(2)))));
        stack.security_group = None;
        let balancer = stack.load_balancer.as_mut().expect("one");
        balancer.security_groups = vec![own.clone()];
        // The targets allow only the user's group, or are opened by another owner.
        let networking = &mut stack.target_groups.values_mut().next().expect("one").binding.networking;
        *networking = networking.take().filter(|_| !random.chance(3)).map(|rules| {
            rules
                .into_iter()
                .map(|rule| NetworkingRule { from: vec![NetworkingPeer::SecurityGroup(own.clone())], ..rule })
                .collect()
        });
    }
    stack
}

/// Returns the observed stack with the targets as they are while a plan is applied: a source that the plan adds has access
/// some time later, and a source that it removes may lose access at once.
fn meanwhile<'a>(observed: &'a ObservedStack, begun: &ObservedStack) -> Cow<'a, ObservedStack> {
    if observed.bindings == begun.bindings {
        return Cow::Borrowed(observed);
    }
    let mut seen = observed.clone();
    for binding in &mut seen.bindings {
        let before = begun.bindings.iter().find(|begun| begun.name == binding.name);
        let (Some(before), Some(now)) = (before.and_then(|b| b.spec.networking.as_ref()), &mut binding.spec.networking)
        else {
            continue;
        };
        let let_in: Vec<_> = before.ingress.iter().flatten().flat_map(|rule| &rule.from).collect();
        for rule in now.ingress.iter_mut().flatten() {
            rule.from.retain(|peer| let_in.contains(&peer));
        }
    }
    Cow::Owned(seen)
}

/// The fault of plans.
enum Wrong {
    /// A request ends neither as before nor as after.
    Ends(String),
    /// AWS refuses a step.
    Refused(String),
    /// There is no end to plans, or one cannot be made.
    Restless(String),
}

impl Wrong {
    fn why(&self) -> &str {
        let (Self::Ends(why) | Self::Refused(why) | Self::Restless(why)) = self;
        why
    }
}

/// The way of plans that are not wrong.
#[derive(Default)]
struct Way {
    /// The quotas that AWS refused steps for.
    refused: Vec<Quota>,
    states: usize,
    /// States in which a request ends neither as before nor as after, in plans that keep to a quota.
    strange: usize,
}

/// Returns what came of plans that lead from what AWS has to a stack, or what is wrong with them. `reorder` may spoil each plan;
/// one that is `impatient` continues where it waits for targets. A change that AWS refuses for a quota is planned again with what
/// that shows.
fn judge(
    before: &ObservedStack,
    after: &Stack,
    reorder: &dyn Fn(&mut Vec<Step>),
    impatient: bool,
    most: Most,
) -> Result<Way, Wrong> {
    let target = Aws::with(after).observed;
    let (old, new) = (ends(before, false), ends(&target, false));
    // A client that loses or gets access, or changes its protocol, may see what others see, before or after. The groups before
    // allow all clients to what is new, too, until the load balancer has left them.
    let in_front = |observed: &ObservedStack| observed.load_balancers[0].security_groups.clone();
    let regrouped = in_front(before) != in_front(&target);
    let (old_open, new_open) = (ends(before, true), ends(&target, true));
    let mut aws = Aws::of(before.clone());
    aws.most = most;
    let mut reported = String::new();
    let mut way = Way::default();
    let mut left = 5;
    let (mut begun, mut waited) = (aws.observed.clone(), false);
    while left > 0 {
        left -= 1;
        let Planned::Ready(mut planned) = crate::plan::plan(after, &aws.observed) else {
            return Err(Wrong::Restless("a read".to_owned()));
        };
        if planned.steps.is_empty() && planned.waits.is_empty() {
            return Ok(way);
        }
        reorder(&mut planned.steps);
        aws.begin_plan(&planned);
        if !(impatient && waited) {
            begun.clone_from(&aws.observed);
        }
        waited = planned.waits.iter().any(|wait| matches!(wait, Wait::LetIn(_)));
        reported.push_str("--\n");
        for step in &planned.steps {
            reported.push_str(&format!("{}\n", step.action));
            if let Err(code) = aws.apply(after, &step.action) {
                let wrong = || Wrong::Refused(format!("{code}\n{reported}"));
                let quota = Quota::of_code(&code).ok_or_else(wrong)?;
                aws.observed.room = aws.observed.room.refused(quota, &aws.observed).ok_or_else(wrong)?;
                way.refused.push(quota);
                left += 2;
                break;
            }
            way.states += 1;
            let mut is_strange = false;
            for (request, now) in ends(&meanwhile(&aws.observed, &begun), false) {
                // Where groups of the user's own allow all clients, a new listener is seen while its rules are made.
                // Sources that others have opened to the targets, or will open, are open whatever the controller opens in addition.
                let mut bindings = before.bindings.iter().chain(&target.bindings);
                let opened_by_others = bindings.any(|binding| binding.spec.networking.is_none());
                if old_open[&request] == End::Refused || (now == End::CutOff && opened_by_others) {
                    continue;
                }
                let (was, will) = (&old[&request], &new[&request]);
                let changes_access = regrouped || *was == End::Refused || *will == End::Refused;
                let of_others = [&old_open, &new_open].map(|ends| &ends[&request]);
                // A redirect is followed by a separate request, which the other listener answers as before or as after.
                let of_next = redirected(&aws.observed, &request).into_iter().flat_map(|to| {
                    let next = (request.0, true, to, request.3);
                    [&old_open, &new_open].map(|ends| &ends[&next])
                });
                let served = |end: &End| *end == now && matches!(end, End::Answered(_) | End::Targets);
                if now != *was
                    && now != *will
                    && !(changes_access && of_others.contains(&&now))
                    && !of_next.clone().any(served)
                {
                    if aws.observed.room == KnownLimits::default() {
                        let why =
                            format!("{request:?} ends at {now:?}, neither {was:?} nor {will:?}, after\n{reported}");
                        return Err(Wrong::Ends(why));
                    }
                    is_strange = true;
                }
            }
            way.strange += usize::from(is_strange);
        }
        aws.observed.bindings.retain(|binding| !binding.deleting);
    }
    Err(Wrong::Restless(reported))
}

fn pair(seed: u64) -> (ObservedStack, Stack) {
    let mut random = Random::new(seed);
    let before = stack(&mut random);
    (Aws::with(&before).observed, stack(&mut random))
}

#[test]
fn every_request_to_a_load_balancer_ends_as_before_or_as_after_between_all_steps() {
    let first = first_seed();
    for seed in first..first + tried(PAIRS) {
        let (before, after) = pair(seed);
        if let Err(wrong) = judge(&before, &after, &|_| (), false, Most::default()) {
            panic!("seed {seed} (again with ALBATROSS_TEST_SEED={seed}): {}", wrong.why());
        }
    }
}

/// Returns quotas that the beginning and the end of a change keep to, with room for few more or none.
fn tight(random: &mut Random, before: &ObservedStack, after: &Stack) -> Most {
    let target = Aws::with(after).observed;
    let mut most = |count: &dyn Fn(&ObservedStack) -> usize| count(before).max(count(&target)) + random.below(3);
    let listeners = |observed: &ObservedStack| observed.load_balancers[0].known_listeners().count();
    let rules =
        |observed: &ObservedStack| observed.load_balancers[0].known_listeners().map(|l| l.rules.len()).sum::<usize>();
    let sources =
        |observed: &ObservedStack| observed.security_groups.iter().map(|group| group.ingress.len()).sum::<usize>();
    Most { listeners: most(&listeners), rules: most(&rules), security_group_rules: most(&sources), ..Most::default() }
}

#[test]
fn load_balancers_arrive_at_their_quotas_and_requests_seldom_end_elsewhere_meanwhile() {
    let first = first_seed();
    let (mut met, mut strange_ways, mut strange, mut states) = (0, 0, 0, 0);
    for seed in first..first + tried(PAIRS_AT_QUOTAS) {
        let (before, after) = pair(seed);
        let most = tight(&mut Random::new(seed ^ 0x5eed), &before, &after);
        let way = match judge(&before, &after, &|_| (), false, most) {
            Ok(way) => way,
            Err(wrong) => {
                panic!("seed {seed} (again with ALBATROSS_TEST_SEED={seed}), {most:?}: {}", wrong.why())
            }
        };
        if !way.refused.is_empty() {
            met += 1;
            states += way.states;
            strange += way.strange;
            strange_ways += usize::from(way.strange > 0);
        }
    }
    eprintln!("{met} at a quota, {strange_ways} with strange ends, {strange} of {states} states");
    assert!(u64::try_from(met * 5).unwrap() > tried(PAIRS_AT_QUOTAS), "{met}");
    // Measured: see the line above.
    assert!(strange_ways * 2 < met && strange * 4 < states, "{strange_ways} of {met}, {strange} of {states}");
}

/// Returns the number of pairs, for which a spoilt plan is rejected for where a request ends.
fn rejected(reorder: &dyn Fn(&mut Vec<Step>), impatient: bool) -> usize {
    (0..tried(1_000))
        .filter(|seed| {
            let (before, after) = pair(*seed);
            matches!(judge(&before, &after, reorder, impatient, Most::default()), Err(Wrong::Ends(_)))
        })
        .count()
}

/// Moves steps to the front, or to the end, and leaves the order of others as it is.
fn moved(steps: &mut Vec<Step>, to_front: bool, which: impl Fn(&StepAction) -> bool) {
    let (some, others): (Vec<Step>, Vec<Step>) = steps.drain(..).partition(|step| which(&step.action));
    let parts = if to_front { [some, others] } else { [others, some] };
    steps.extend(parts.into_iter().flatten());
}

#[test]
fn planners_that_are_wrong_about_whole_load_balancers_are_rejected() {
    type Spoil = fn(&mut Vec<Step>);
    let wrong: [(&str, Spoil); 5] = [
        ("ports are opened last", |steps| {
            moved(steps, false, |step| matches!(step, StepAction::AuthorizeIngress { .. }))
        }),
        ("listeners are made after others have changed", |steps| {
            moved(steps, true, |step| matches!(step, StepAction::ModifyListener { .. }));
        }),
        ("listeners are deleted first", |steps| {
            moved(steps, true, |step| matches!(step, StepAction::DeleteListener { .. }))
        }),
        ("ports are closed first", |steps| moved(steps, true, |step| matches!(step, StepAction::RevokeIngress { .. }))),
        ("networking is narrowed at once", |steps| {
            for step in steps {
                if let StepAction::UpdateBinding { keeps_networking, .. } = &mut step.action {
                    *keeps_networking = false;
                }
            }
        }),
    ];
    let mut found: Vec<(&str, usize)> = wrong.iter().map(|(what, spoil)| (*what, rejected(spoil, false))).collect();
    found.push(("the load balancer changes its groups before targets let the new ones in", rejected(&|_| (), true)));
    eprintln!("{found:#?}");
    assert!(
        found.iter().all(|(_, rejected)| u64::try_from(*rejected * 100).expect("small") >= tried(1_000)),
        "the oracle hardly notices some: {found:#?}"
    );
}

#[test]
fn a_redirect_follows_the_listener_that_it_leads_to() {
    let mut before = built(SAMPLE);
    let mut after = before.clone();
    let plain = before.listeners.values_mut().next().expect("one");
    plain.default_action = fixed(1);
    let secure = Listener {
        port: 443,
        protocol: ListenerProtocol::Https,
        default_certificate: Some(CertificateArn::new("arn:aws:acm:eu-west-1:111122223333:certificate/1")),
        ssl_policy: Some("ELBSecurityPolicy-2016-08".to_owned()),
        default_action: fixed(1),
        ..plain.clone()
    };
    after.listeners.insert(443, secure);
    after.listeners.get_mut(&80).expect("it").default_action = redirect_to(443);
    let group = after.security_group.as_mut().expect("its own");
    let open = SecurityGroupRule { from_port: Some(443), to_port: Some(443), ..group.ingress[0].clone() };
    group.ingress.push(open);
    let planned = plan(&after, &Aws::with(&before).observed);
    let kinds: Vec<&str> = planned.steps.iter().map(|step| step.action.kind()).collect();
    assert_eq!(kinds, ["CreateListener", "AuthorizeIngress", "ModifyListener"]);
    // The other way round, what was led to goes last.
    let planned = plan(&before, &Aws::with(&after).observed);
    let kinds: Vec<&str> = planned.steps.iter().map(|step| step.action.kind()).collect();
    assert_eq!(kinds, ["ModifyListener", "DeleteListener", "RevokeIngress"]);
}

#[test]
fn a_group_that_is_made_for_a_load_balancer_is_let_in_before_it_is_put_in_front() {
    let with = |groups: SecurityGroupReference| {
        let mut stack = built(SAMPLE);
        stack.load_balancer.as_mut().expect("one").security_groups = vec![groups.clone()];
        let of_targets =
            stack.target_groups.values_mut().flat_map(|group| group.binding.networking.iter_mut().flatten());
        of_targets.for_each(|rule| rule.from = vec![NetworkingPeer::SecurityGroup(groups.clone())]);
        stack
    };
    let mut before = with(SecurityGroupReference::Given(Value::Known(SecurityGroupId::new("sg-own"))));
    before.security_group = None;
    let after = with(SecurityGroupReference::Managed);
    let mut aws = Aws::with(&before);
    let regroups = |planned: &crate::plan::Plan| {
        planned.steps.iter().any(|step| matches!(step.action, StepAction::SetSecurityGroups { .. }))
    };
    let lets_in = |planned: &crate::plan::Plan| planned.waits.iter().any(|wait| matches!(wait, Wait::LetIn(_)));
    let first = plan(&after, &aws.observed);
    assert!(lets_in(&first) && !regroups(&first), "{first:?}");
    aws.run(&after, &first);
    let waiting = plan(&after, &aws.observed);
    assert!(lets_in(&waiting) && waiting.steps.is_empty(), "{waiting:?}");
    aws.begin();
    assert!(regroups(&plan(&after, &aws.observed)));
    aws.settle(&after, 3);
}
