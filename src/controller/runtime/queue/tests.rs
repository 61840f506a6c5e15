use albatross_core::model::{ObjectName, StackId};

use super::{schedule::*, *};

fn group(name: &str) -> Key {
    Key::Stack(StackId::Group(name.to_owned()))
}

fn binding(name: &str) -> Key {
    Key::Binding(ObjectName::new("shop", name))
}

impl Schedule {
    fn wants(&mut self, key: Key, cause: QueueReason, now: Instant) {
        let tenant = namespace_of(&key).to_owned();
        self.add(key, &tenant, cause, now);
    }
}

fn service(namespace: &str, name: &str) -> Key {
    Key::Stack(StackId::Service(ObjectName::new(namespace, name)))
}

fn take_all(schedule: &mut Schedule, now: Instant) -> Vec<Key> {
    std::iter::from_fn(|| schedule.take(now).ok()).map(|(key, _)| key).collect()
}

#[test]
fn a_key_waits_once_and_targets_come_first() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    for key in [group("a"), group("b"), group("a"), binding("x")] {
        schedule.wants(key, QueueReason::Change, now);
    }
    assert_eq!(take_all(&mut schedule, now), [binding("x"), group("a"), group("b")]);
}

#[test]
fn what_happens_to_a_running_key_brings_it_back_afterwards() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    schedule.wants(group("a"), QueueReason::Change, now);
    assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
    schedule.wants(group("a"), QueueReason::Change, now);
    assert_eq!(schedule.take(now), Err(None));
    schedule.done(&group("a"), &Outcome::Done, now);
    assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
}

#[test]
fn a_change_counts_until_a_pass_has_finished_with_it() {
    let (mut schedule, mut now) = (Schedule::default(), Instant::now());
    let again = |schedule: &mut Schedule, outcome: &Outcome, now: &mut Instant| {
        schedule.done(&group("a"), outcome, *now);
        *now += LONGEST_PAUSE;
        schedule.take(*now).map(|(_, cause)| cause)
    };
    schedule.wants(group("a"), QueueReason::Resync, now);
    assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Resync)));
    assert_eq!(again(&mut schedule, &Outcome::Failed("no".into()), &mut now), Ok(QueueReason::Resync));
    // A resync and a change, in any order, count as a change, even if the change happens during the resync.
    schedule.wants(group("a"), QueueReason::Change, now);
    schedule.wants(group("a"), QueueReason::Resync, now);
    for outcome in [Outcome::Done, Outcome::Failed("no".into()), Outcome::NotYet] {
        assert_eq!(again(&mut schedule, &outcome, &mut now), Ok(QueueReason::Change), "{outcome:?}");
    }
    schedule.wants(group("a"), QueueReason::Audit, now);
    schedule.wants(group("a"), QueueReason::Resync, now);
    assert_eq!(again(&mut schedule, &Outcome::Done, &mut now), Ok(QueueReason::Resync));
    schedule.wants(group("a"), QueueReason::Audit, now);
    assert_eq!(again(&mut schedule, &Outcome::Done, &mut now), Ok(QueueReason::Audit));
    assert_eq!(again(&mut schedule, &Outcome::Done, &mut now), Err(None));
}

#[tokio::test(start_paused = true)]
async fn a_term_begins_with_the_changes_of_the_last_minute() {
    let queue = Queue::default();
    queue.add(group("old"));
    queue.add(group("failed"));
    assert_eq!(queue.next().await, (group("old"), QueueReason::Change));
    queue.done(&group("old"), &Outcome::NeedsCorrection("no".into()));
    assert_eq!(queue.next().await, (group("failed"), QueueReason::Change));
    queue.done(&group("failed"), &Outcome::Failed("no".into()));
    queue.resync([group("resync")]);
    tokio::time::advance(RECENT).await;
    ["a", "b"].into_iter().for_each(|name| queue.add(group(name)));
    assert_eq!(queue.next().await, (group("a"), QueueReason::Change), "taken, and not finished");
    queue.begin_term();
    assert_eq!(queue.snapshot().errors, BTreeMap::new());
    queue.resync([group("old"), group("b")]);
    queue.add(group("c"));
    let taken: Vec<_> = std::iter::from_fn(|| queue.lock().take(Instant::now()).ok()).collect();
    let (resync, change) = (QueueReason::Resync, QueueReason::Change);
    assert_eq!(taken, [(group("a"), change), (group("b"), change), (group("c"), change), (group("old"), resync)]);
}

#[tokio::test(start_paused = true)]
async fn a_term_remembers_since_when_targets_have_to_depart() {
    let (queue, key, began) = (Queue::default(), binding("a"), Instant::now());
    queue.departed("shop", [key.clone()]);
    tokio::time::advance(Duration::from_secs(20)).await;
    queue.next().await;
    queue.departed("shop", [key.clone()]);
    queue.begin_term();
    assert_eq!(queue.next().await, (key.clone(), QueueReason::Departure));
    assert_eq!(queue.has_departed(&key), Some(began));
}

#[tokio::test(start_paused = true)]
async fn a_term_begins_with_the_departures_of_the_last_minute_also_of_keys_that_departed_before() {
    let (queue, old, fresh) = (Queue::default(), binding("old"), binding("fresh"));
    // Another process leads.
    queue.departed("shop", [old.clone(), fresh.clone()]);
    tokio::time::advance(Duration::from_secs(3600)).await;
    queue.departed("shop", [fresh.clone()]);
    let departed = Instant::now();
    tokio::time::advance(Duration::from_secs(5)).await;
    queue.begin_term();
    queue.resync([old.clone()]);
    assert_eq!(queue.next().await, (fresh.clone(), QueueReason::Departure));
    assert_eq!(queue.has_departed(&fresh), Some(departed));
    assert_eq!(queue.next().await, (old, QueueReason::Resync));
}

#[test]
fn a_change_overtakes_resyncs_and_a_waiting_resync_becomes_one() {
    let now = Instant::now();
    let mut schedule = Schedule::default();
    for name in ["a", "b", "c"] {
        schedule.wants(group(name), QueueReason::Resync, now);
    }
    schedule.wants(group("audited"), QueueReason::Audit, now);
    schedule.wants(group("d"), QueueReason::Change, now);
    schedule.wants(group("c"), QueueReason::Change, now);
    schedule.wants(group("audited"), QueueReason::Resync, now);
    schedule.wants(group("d"), QueueReason::Resync, now);
    assert_eq!(take_all(&mut schedule, now), ["d", "c", "a", "b", "audited"].map(group));
    assert!(schedule.ready.values().all(BTreeMap::is_empty) && schedule.waiting.is_empty());
}

#[test]
fn namespaces_take_turns() {
    let now = Instant::now();
    let mut schedule = Schedule::default();
    for name in ["1", "2", "3", "4", "5"] {
        schedule.wants(service("flood", name), QueueReason::Change, now);
    }
    assert_eq!(schedule.take(now), Ok((service("flood", "1"), QueueReason::Change)));
    schedule.wants(service("shop", "a"), QueueReason::Change, now);
    schedule.wants(service("shop", "b"), QueueReason::Change, now);
    // A group of several namespaces has the turn of the namespace whose object changed.
    schedule.add(group("both"), "flood", QueueReason::Change, now);
    schedule.add(group("both"), "team", QueueReason::Change, now);
    schedule.wants(Key::BackendSecurityGroup, QueueReason::Change, now);
    let names = |keys: Vec<Key>| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        names(take_all(&mut schedule, now)),
        [
            "Service flood/2",
            "Service shop/a",
            "Ingress group both",
            "Service flood/3",
            "Service shop/b",
            "Service flood/4",
            "Service flood/5",
            "shared backend security group"
        ]
    );
    assert!(schedule.turns.values().all(|turns| turns.last.is_empty()), "{:?}", schedule.turns);
}

#[test]
fn who_touches_a_key_while_it_runs_puts_nobody_behind() {
    let now = Instant::now();
    // A group of several namespaces has the earliest turn of the namespaces whose objects changed; a Service has the turn of
    // its namespace.
    for (key, owner) in [(group("both"), "team"), (service("shop", "a"), "flood")] {
        let mut schedule = Schedule::default();
        schedule.add(key.clone(), owner, QueueReason::Change, now);
        assert_eq!(schedule.take(now), Ok((key.clone(), QueueReason::Change)));
        for number in 0..100 {
            schedule.wants(service("flood", &number.to_string()), QueueReason::Change, now);
        }
        schedule.add(key.clone(), owner, QueueReason::Change, now);
        schedule.add(key.clone(), "flood", QueueReason::Change, now);
        schedule.done(&key, &Outcome::Done, now);
        assert_eq!(take_all(&mut schedule, now)[..2], [service("flood", "0"), key]);
    }
}

#[test]
fn bindings_of_others_that_a_change_concerns_take_no_turns_of_whoever_made_it() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    let binding = |namespace: &str, name: &str| Key::Binding(ObjectName::new(namespace, name));
    for number in 0..2000 {
        schedule.add(binding("flood", &number.to_string()), "shop", QueueReason::Change, now);
    }
    schedule.add(binding("shop", "b"), "shop", QueueReason::Change, now);
    assert!(take_all(&mut schedule, now)[..2].contains(&binding("shop", "b")));
}

#[test]
fn rules_of_nodes_come_before_a_backlog_of_bindings_and_rest_between_two_runs() {
    let (mut schedule, mut now) = (Schedule::default(), Instant::now());
    for number in 0..2000 {
        let namespace = if number % 2 == 0 { "shop".to_owned() } else { format!("team-{number}") };
        schedule.wants(Key::Binding(ObjectName::new(&namespace, number.to_string())), QueueReason::Change, now);
    }
    let (mut taken, mut runs) = (0, Vec::new());
    loop {
        let key = match schedule.take(now) {
            Ok((key, _)) => key,
            Err(Some(due)) => {
                now = due;
                continue;
            }
            Err(None) => break,
        };
        taken += 1;
        match key {
            Key::NodeRules => runs.push(taken),
            // Each binding has another port, for example.
            _ => schedule.wants(Key::NodeRules, QueueReason::Change, now),
        }
        now += Duration::from_millis(10);
        schedule.done(&key, &Outcome::Done, now);
    }
    assert_eq!((runs[0], taken - runs.len()), (2, 2000));
    assert!((15..=25).contains(&runs.len()), "it has run {} times", runs.len());
}

#[test]
fn a_flood_of_one_namespace_holds_no_other_up() {
    let now = Instant::now();
    let mut schedule = Schedule { most: BTreeMap::from([(Lane::LoadBalancers, 1)]), ..Schedule::default() };
    let flood: Vec<Key> = (0..5000).map(|n| service("flood", &n.to_string())).collect();
    for key in &flood {
        schedule.wants(key.clone(), QueueReason::Change, now);
    }
    for pass in 0..100 {
        schedule.wants(service("shop", "a"), QueueReason::Change, now);
        let mut before = Vec::new();
        loop {
            let (key, _) = schedule.take(now).unwrap();
            // The processed key is edited again at once and goes to the end.
            schedule.wants(key.clone(), QueueReason::Change, now);
            schedule.done(&key, &Outcome::Done, now);
            match key == service("shop", "a") {
                true => break,
                false => before.push(key),
            }
        }
        assert!(before.len() <= 1, "{pass}: {before:?}");
    }
}

#[test]
fn targets_leave_workers_for_load_balancers() {
    let now = Instant::now();
    let most = BTreeMap::from([(Lane::Targets, 3), (Lane::LoadBalancers, 2)]);
    let mut schedule = Schedule { most, ..Schedule::default() };
    for n in 0..2000 {
        schedule.wants(binding(&n.to_string()), QueueReason::Change, now);
    }
    schedule.wants(Key::NodeRules, QueueReason::Change, now);
    schedule.wants(group("edited"), QueueReason::Change, now);
    assert_eq!(take_all(&mut schedule, now), [Key::NodeRules, binding("0"), binding("1"), group("edited")]);
}

#[test]
fn resyncs_leave_a_worker_for_changes() {
    let now = Instant::now();
    let mut schedule = Schedule { most: BTreeMap::from([(Lane::LoadBalancers, 3)]), ..Schedule::default() };
    for name in ["a", "b", "c"] {
        schedule.wants(group(name), QueueReason::Resync, now);
    }
    assert_eq!(take_all(&mut schedule, now), [group("a"), group("b")]);
    schedule.wants(group("edited"), QueueReason::Change, now);
    assert_eq!(take_all(&mut schedule, now), [group("edited")]);
    schedule.done(&group("a"), &Outcome::Done, now);
    assert_eq!(take_all(&mut schedule, now), [group("c")]);
    // A single worker also runs resyncs.
    let mut schedule = Schedule { most: BTreeMap::from([(Lane::LoadBalancers, 1)]), ..Schedule::default() };
    schedule.wants(group("a"), QueueReason::Resync, now);
    assert_eq!(take_all(&mut schedule, now), [group("a")]);
}

#[test]
fn failures_pause_twice_as_long_each_time_until_a_success() {
    let (mut schedule, mut now) = (Schedule::default(), Instant::now());
    schedule.wants(group("a"), QueueReason::Change, now);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
        schedule.done(&group("a"), &Outcome::Failed("no".into()), now);
        let due = schedule.take(now).unwrap_err().unwrap();
        pauses.push((due - now).as_secs());
        now = due;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
    assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
    schedule.done(&group("a"), &Outcome::Done, now);
    schedule.wants(group("a"), QueueReason::Change, now);
    assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
    schedule.done(&group("a"), &Outcome::Failed("no".into()), now);
    assert_eq!(schedule.take(now), Err(Some(now + Duration::from_secs(1))));
}

#[test]
fn events_shorten_a_pause_and_make_no_later_one_longer() {
    let (mut schedule, mut now) = (Schedule::default(), Instant::now());
    schedule.wants(binding("x"), QueueReason::Change, now);
    assert_eq!(schedule.take(now), Ok((binding("x"), QueueReason::Change)));
    let second = Duration::from_secs(1);
    // Pods come and go while AWS fails: some during the shortest pause, some during the attempt.
    for _ in 0..20 {
        schedule.done(&binding("x"), &Outcome::Failed("no".into()), now);
        schedule.wants(binding("x"), QueueReason::Change, now + Duration::from_millis(10));
        assert_eq!(schedule.take(now + Duration::from_millis(20)), Err(Some(now + second)));
        now += second;
        assert_eq!(schedule.take(now), Ok((binding("x"), QueueReason::Change)));
        schedule.wants(binding("x"), QueueReason::Change, now);
    }
    schedule.done(&binding("x"), &Outcome::Failed("no".into()), now);
    assert_eq!(schedule.take(now), Err(Some(now + second)));
    // Without further changes, the pauses grow from their last length.
    now += second;
    for seconds in [1, 2, 4] {
        assert_eq!(schedule.take(now), Ok((binding("x"), QueueReason::Change)));
        schedule.done(&binding("x"), &Outcome::Failed("no".into()), now);
        now += Duration::from_secs(seconds);
    }
    // A change ends a pause that is longer than the shortest one.
    assert_eq!(schedule.take(now), Ok((binding("x"), QueueReason::Change)));
    schedule.done(&binding("x"), &Outcome::Failed("no".into()), now);
    schedule.wants(binding("x"), QueueReason::Change, now + second * 3);
    assert_eq!(schedule.take(now + second * 3), Ok((binding("x"), QueueReason::Change)));
}

#[test]
fn load_balancers_leave_workers_for_targets() {
    let mut schedule = Schedule { most: BTreeMap::from([(Lane::LoadBalancers, 2)]), ..Schedule::default() };
    let now = Instant::now();
    for key in [group("a"), group("b"), group("c"), Key::BackendSecurityGroup] {
        schedule.wants(key, QueueReason::Change, now);
    }
    assert_eq!(take_all(&mut schedule, now), [group("a"), group("b")]);
    schedule.wants(binding("x"), QueueReason::Change, now);
    schedule.wants(Key::NodeRules, QueueReason::Change, now);
    assert_eq!(take_all(&mut schedule, now), [Key::NodeRules, binding("x")]);
    schedule.done(&group("a"), &Outcome::Failed("no".into()), now);
    assert_eq!(schedule.take(now), Ok((group("c"), QueueReason::Change)));
    assert_eq!(schedule.take(now), Err(Some(now + Duration::from_secs(1))));
    schedule.done(&group("b"), &Outcome::Done, now);
    assert_eq!(schedule.take(now), Ok((Key::BackendSecurityGroup, QueueReason::Change)));
}

#[test]
fn what_is_set_aside_waits_for_its_object_and_keeps_its_error() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    schedule.wants(group("a"), QueueReason::Change, now);
    assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
    schedule.done(&group("a"), &Outcome::NeedsCorrection("wrong scheme".into()), now);
    assert_eq!(schedule.take(now), Err(None));
    assert_eq!(schedule.failures.get(&group("a")), Some(&(0, "wrong scheme".to_owned())));
}

#[test]
fn a_pausing_key_is_tried_at_once_when_something_changes() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    schedule.wants(group("a"), QueueReason::Change, now);
    assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
    schedule.done(&group("a"), &Outcome::Again(Duration::from_secs(600)), now);
    assert_eq!(schedule.take(now), Err(Some(now + Duration::from_secs(600))));
    schedule.wants(group("a"), QueueReason::Change, now);
    assert_eq!(schedule.take(now), Ok((group("a"), QueueReason::Change)));
    schedule.done(&group("a"), &Outcome::Done, now);
    assert_eq!(schedule.take(now), Err(None));
}

#[test]
fn departures_overtake_and_have_workers_of_their_own() {
    let now = Instant::now();
    let mut schedule = Schedule { most: BTreeMap::from([(Lane::Targets, 2)]), ..Schedule::default() };
    for number in 0..1000 {
        schedule.wants(binding(&number.to_string()), QueueReason::Change, now);
    }
    assert_eq!(take_all(&mut schedule, now), [binding("0"), binding("1")]);
    for number in [500, 600, 700] {
        schedule.wants(binding(&number.to_string()), QueueReason::Departure, now);
    }
    assert_eq!(take_all(&mut schedule, now), [binding("500"), binding("600")]);
    // They leave the workers of the others alone.
    schedule.done(&binding("0"), &Outcome::Done, now);
    assert_eq!(take_all(&mut schedule, now), [binding("2")]);
    schedule.done(&binding("500"), &Outcome::Done, now);
    assert_eq!(schedule.take(now), Ok((binding("700"), QueueReason::Departure)));
}

#[test]
fn queries_for_health_neither_wait_for_changes_nor_delay_them() {
    let now = Instant::now();
    let mut schedule = Schedule { most: BTreeMap::from([(Lane::Targets, 2)]), ..Schedule::default() };
    let look = Outcome::LookAfter(Duration::ZERO);
    for name in ["a", "b", "c"] {
        schedule.wants(binding(name), QueueReason::Change, now);
    }
    assert_eq!(schedule.take(now), Ok((binding("a"), QueueReason::Change)));
    assert_eq!(schedule.take(now), Ok((binding("b"), QueueReason::Change)));
    schedule.done(&binding("a"), &look, now);
    schedule.done(&binding("b"), &look, now);
    let taken: Vec<_> = std::iter::from_fn(|| schedule.take(now).ok()).collect();
    let (change, looks) = (QueueReason::Change, QueueReason::Look);
    assert_eq!(taken, [(binding("c"), change), (binding("a"), looks), (binding("b"), looks)]);
    schedule.wants(binding("d"), change, now);
    assert_eq!(schedule.take(now), Ok((binding("d"), change)));
}

#[tokio::test]
async fn a_departure_makes_a_running_pass_urgent_and_the_next_one_too() {
    let queue = Queue::default();
    let (key, other) = (binding("a"), binding("b"));
    queue.resync([key.clone(), other.clone()]);
    assert_eq!(queue.next().await, (key.clone(), QueueReason::Resync));
    assert_eq!(queue.next().await, (other.clone(), QueueReason::Resync));
    let urgency = queue.urgency(&key);
    queue.changed("shop", [key.clone()]);
    assert_eq!(urgency.priority(), Priority::Resync);
    assert_eq!(queue.has_departed(&key), None);
    let departed = Instant::now();
    queue.departed("shop", [key.clone()]);
    assert_eq!(urgency.priority(), Priority::Deregister);
    assert_eq!(queue.urgency(&other).priority(), Priority::Resync);
    queue.done(&key, &Outcome::Failed("throttled".to_owned()));
    tokio::time::pause();
    assert_eq!(queue.next().await, (key.clone(), QueueReason::Departure));
    // A failure may have left the target registered; what is to do after its deregistration is less urgent.
    queue.done(&key, &Outcome::Failed("throttled".to_owned()));
    assert_eq!(queue.next().await, (key.clone(), QueueReason::Departure));
    assert!(
        queue.has_departed(&key).is_some_and(|at| at >= departed && departed.elapsed() > Duration::from_millis(900))
    );
    queue.done(&key, &Outcome::Failed("the status was not written".to_owned()));
    assert_eq!(queue.next().await, (key.clone(), QueueReason::Change));
    queue.departed("shop", [key.clone()]);
    queue.done(&key, &Outcome::Done);
    assert_eq!(queue.next().await, (key.clone(), QueueReason::Departure));
    queue.done(&key, &Outcome::Again(Duration::from_secs(1)));
    assert_eq!(queue.next().await, (key, QueueReason::Change));
}

#[test]
fn a_departure_that_fails_pauses_for_seconds_and_is_ordinary_after_a_minute() {
    let (start, key) = (Instant::now(), binding("a"));
    let mut schedule = Schedule::default();
    // The binding has failed for long.
    schedule.failures.insert(key.clone(), (9, "refused".to_owned()));
    schedule.wants(key.clone(), QueueReason::Departure, start);
    let (mut now, mut runs) = (start, Vec::new());
    while now < start + Duration::from_secs(300) {
        let (_, cause) = schedule.take(now).unwrap();
        runs.push(((now - start).as_secs(), cause));
        schedule.done(&key, &Outcome::Failed("refused".to_owned()), now);
        now = schedule.take(now).unwrap_err().unwrap();
    }
    let departures = (0..=12).map(|run| (run * 5, QueueReason::Departure));
    let changes = [68, 84, 116, 180].map(|run| (run, QueueReason::Change));
    assert_eq!(runs, departures.chain(changes).collect::<Vec<_>>());
}

#[test]
fn a_key_that_fails_is_urgent_for_a_minute_after_each_departure_and_for_five_in_all() {
    let (start, key) = (Instant::now(), binding("a"));
    let mut schedule = Schedule::default();
    let (mut now, mut calm) = (start, Vec::new());
    for _ in 0..12 {
        schedule.wants(key.clone(), QueueReason::Departure, now);
        schedule.take(now).unwrap();
        schedule.done(&key, &Outcome::Failed("refused".to_owned()), now);
        let next = schedule.take(now + LONGEST_PAUSE).unwrap().1;
        calm.extend((next == QueueReason::Change).then_some((now - start).as_secs()));
        schedule.done(&key, &Outcome::Failed("refused".to_owned()), now);
        now += Duration::from_secs(30);
    }
    assert_eq!(calm, [300, 330]);
}

#[test]
fn the_first_of_several_departures_counts_until_a_pass_has_succeeded() {
    let (start, key) = (Instant::now(), binding("a"));
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut schedule = Schedule::default();
    let since = |schedule: &Schedule| schedule.running[&key].wanted.departs_since;
    schedule.wants(key.clone(), QueueReason::Departure, at(0));
    schedule.take(at(1)).unwrap();
    // Another target departs during the pass, and one while a change waits.
    schedule.wants(key.clone(), QueueReason::Departure, at(2));
    schedule.done(&key, &Outcome::Failed("no".to_owned()), at(3));
    schedule.take(at(4)).unwrap();
    assert_eq!(since(&schedule), Some(at(0)));
    schedule.done(&key, &Outcome::Failed("no".to_owned()), at(100));
    assert_eq!(schedule.take(at(300)), Ok((key.clone(), QueueReason::Change)));
    assert_eq!(since(&schedule), Some(at(0)));
    schedule.done(&key, &Outcome::Failed("no".to_owned()), at(301));
    schedule.wants(key.clone(), QueueReason::Departure, at(302));
    assert_eq!(schedule.take(at(303)), Ok((key.clone(), QueueReason::Departure)));
    assert_eq!(since(&schedule), Some(at(0)));
    schedule.done(&key, &Outcome::Again(Duration::ZERO), at(304));
    assert_eq!(schedule.take(at(305)), Ok((key.clone(), QueueReason::Change)));
    assert_eq!(since(&schedule), None);
}

#[test]
fn what_is_due_is_not_put_off_by_a_failure() {
    let (now, key, seconds) = (Instant::now(), group("a"), Duration::from_secs);
    let failed = || Outcome::Failed("refused".to_owned());
    for (outcome, longest, pause) in [
        (failed(), None, Some(32)),
        (failed(), Some(5), Some(5)),
        (failed(), Some(60), Some(32)),
        (Outcome::NeedsCorrection("wrong".to_owned()), Some(7), Some(7)),
        (Outcome::Done, Some(7), Some(7)),
        (Outcome::Done, None, None),
        (Outcome::Again(seconds(2)), Some(8), Some(2)),
    ] {
        let mut schedule = Schedule::default();
        schedule.failures.insert(key.clone(), (5, "refused".to_owned()));
        let reason =
            if longest.is_some_and(|longest| longest == 7) { QueueReason::Resync } else { QueueReason::Change };
        schedule.wants(key.clone(), reason, now);
        schedule.take(now).unwrap();
        schedule.longest_pause.extend(longest.map(|longest| (key.clone(), seconds(longest))));
        schedule.done(&key, &outcome, now);
        let due = schedule.delayed.first_key_value().map(|((due, _), _)| *due - now);
        assert_eq!(due, pause.map(seconds), "{outcome:?}, {longest:?}");
        assert!(schedule.longest_pause.is_empty());
        if longest.is_some() {
            assert_eq!(schedule.take(now + seconds(60)), Ok((key.clone(), QueueReason::Change)));
        }
    }
}
