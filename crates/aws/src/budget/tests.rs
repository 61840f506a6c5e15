use std::sync::atomic::AtomicUsize;

use super::*;

fn after(start: Instant, seconds: f64) -> Instant {
    start + Duration::from_secs_f64(seconds)
}

fn edit(arrival: u64) -> Ticket {
    (Priority::Edit, arrival)
}

/// Enters and takes a turn.
fn takes(gate: &mut Gate, ticket: Ticket, now: Instant) -> Result<(), Option<Instant>> {
    gate.enter(ticket);
    gate.take(ticket, now)
}

#[test]
fn nobody_waits_while_aws_does_not_throttle() {
    let (mut gate, now) = (Gate::adaptive(20.0, 1.5), Instant::now());
    for call in 0..10_000 {
        assert_eq!(takes(&mut gate, edit(call), now), Ok(()));
        gate.passed(now);
    }
    assert_eq!(gate.rate(now), None);
}

#[test]
fn a_fixed_limit_gives_its_burst_and_then_its_rate() {
    let start = Instant::now();
    let mut gate = Gate::fixed(3.0, 2.0, start);
    for call in 0..3 {
        assert_eq!(takes(&mut gate, edit(call), start), Ok(()));
    }
    assert_eq!(takes(&mut gate, edit(3), start), Err(Some(after(start, 0.5))));
    assert_eq!(gate.take(edit(3), after(start, 0.5)), Ok(()));
    assert_eq!(takes(&mut gate, edit(4), after(start, 0.75)), Err(Some(after(start, 1.0))));
    assert_eq!(gate.take(edit(4), after(start, 1.0)), Ok(()));
    // However long nothing is sent, no more than the burst is saved up; a throttle changes nothing.
    let later = after(start, 100.0);
    gate.throttled(later, later);
    let saved = (5..20).take_while(|call| takes(&mut gate, edit(*call), later).is_ok()).count();
    assert_eq!((saved, gate.rate(later)), (3, Some(2.0)));
}

#[test]
fn a_throttle_empties_the_bucket_and_leaves_what_gets_through() {
    let (mut gate, start) = (Gate::adaptive(20.0, 1.5), Instant::now());
    // 20 calls in the last 5 s are 4 a second; of that a throttle leaves 85 %.
    (0..20).for_each(|_| gate.passed(start));
    gate.throttled(start, start);
    assert_eq!(gate.rate(start), Some(3.4));
    let due = takes(&mut gate, edit(0), start).unwrap_err().unwrap();
    assert_eq!((due - start).as_millis(), 294);
    // Other calls that were under way do not lower the new rate, but the bucket is still empty.
    let later = after(start, 0.1);
    gate.throttled(start, later);
    assert_eq!(gate.rate(later), Some(3.4));
    assert_eq!((gate.take(edit(0), later).unwrap_err().unwrap() - start).as_millis(), 394);
    // Each call that AWS takes raises the rate.
    (0..5).for_each(|_| gate.passed(later));
    assert_eq!(gate.rate(later).map(|rate| format!("{rate:.2}")).as_deref(), Some("3.60"));
    // A call sent since then is throttled by AWS; it never falls below the floor. In the fifth second the
    // 25 calls have aged to 9, which is less than the rate.
    let rates: Vec<String> = (1..12)
        .map(|second| {
            let now = after(later, f64::from(second));
            gate.throttled(now, now);
            format!("{:.2}", gate.rate(now).unwrap())
        })
        .collect();
    assert_eq!(rates, ["3.06", "2.60", "2.21", "1.88", "1.54", "1.50", "1.50", "1.50", "1.50", "1.50", "1.50"]);
}

#[test]
fn deregistrations_find_a_reserve() {
    // The calls of the last 5 s, of which a throttle leaves 85 %, and the calls that find a reserve.
    for (calls, rate, reserve) in [(0, 1.0, 2), (20, 3.4, 3), (40, 6.8, 6), (600, 102.0, 10)] {
        let (mut gate, start) = (Gate::adaptive(20.0, 1.0).with_reserve(Duration::from_secs(1)), Instant::now());
        (0..calls).for_each(|_| gate.passed(start));
        gate.throttled(start, start);
        assert_eq!(gate.rate(start), Some(rate));
        let due = takes(&mut gate, edit(0), start).unwrap_err().unwrap();
        // Due times are rounded.
        let now = due + Duration::from_micros(1);
        assert_eq!(gate.take(edit(0), now), Ok(()));
        // A deregistration is urgent, whatever the work is that it is part of, after a start for example.
        let urgent = |arrival| (priority_of("DeregisterTargets", Priority::Resync), arrival);
        let taken = (1..100).take_while(|arrival| takes(&mut gate, urgent(*arrival), now).is_ok()).count();
        assert_eq!(taken, reserve, "{rate}");
    }
}

#[test]
fn registrations_and_deregistrations_do_not_starve_each_other() {
    let start = Instant::now();
    // Pods are replaced without end: a target is registered before it can be deregistered.
    let (mut gate, mut registered, mut deregistered, mut arrivals) = (Gate::fixed(1.0, 4.0, start), 0, 0, 0);
    let mut waiting: Vec<Ticket> = Vec::new();
    let mut enter = |gate: &mut Gate, waiting: &mut Vec<Ticket>, priority| {
        arrivals += 1;
        waiting.push((priority, arrivals));
        gate.enter((priority, arrivals));
    };
    (0..50).for_each(|_| enter(&mut gate, &mut waiting, Priority::Register));
    for call in 0..400_u32 {
        let now = after(start, f64::from(call) / 4.0 + 1e-6);
        let at = waiting.iter().position(|ticket| gate.take(*ticket, now).is_ok()).unwrap();
        match waiting.swap_remove(at).0 {
            Priority::Register => {
                registered += 1;
                enter(&mut gate, &mut waiting, Priority::Deregister);
            }
            _ => {
                deregistered += 1;
                enter(&mut gate, &mut waiting, Priority::Register);
            }
        }
    }
    assert_eq!((registered, deregistered), (200, 200));
}

#[test]
fn urgent_calls_without_end_leave_a_fifth_to_others() {
    let start = Instant::now();
    let mut gate = Gate::fixed(20.0, 4.0, start).with_reserve(Duration::from_secs(1));
    // The targets of one binding go and come without end, and what comes for those that go is as urgent.
    let urgent = |number: u64| (Priority::Deregister, number);
    let others: Vec<Ticket> = (1000..1010).map(|number| (Priority::Register, number)).chain([edit(2000)]).collect();
    others.iter().for_each(|ticket| gate.enter(*ticket));
    let (mut taken, mut turns) = (Vec::new(), String::new());
    gate.enter(urgent(0));
    gate.enter(urgent(1));
    let mut waiting = vec![urgent(0), urgent(1)];
    for call in 0..60_u32 {
        let now = after(start, f64::from(call) / 4.0 + 10.0);
        let all = waiting.iter().chain(&others).filter(|ticket| !taken.contains(*ticket));
        let ticket = *all.clone().find(|ticket| gate.take(**ticket, now).is_ok()).unwrap();
        taken.push(ticket);
        turns.push(if ticket.0 == Priority::Deregister { 'u' } else { 'o' });
        if ticket.0 == Priority::Deregister {
            waiting.push(urgent(u64::from(call) + 2));
            gate.enter(urgent(u64::from(call) + 2));
        }
    }
    assert_eq!(turns, format!("{}{}", "uuuuo".repeat(11), "uuuuu"));
    // Of the others the most urgent is first.
    assert_eq!(taken.iter().filter(|ticket| ticket.0 != Priority::Deregister).copied().collect::<Vec<_>>(), others);
}

#[test]
fn a_limit_that_aws_does_not_confirm_is_given_up() {
    let (mut gate, start) = (Gate::adaptive(20.0, 1.5), Instant::now());
    gate.throttled(start, start);
    assert_eq!(gate.rate(after(start, 29.9)), Some(1.5));
    assert_eq!(gate.rate(after(start, 30.0)), None);
    let now = after(start, 30.0);
    for call in 0..100 {
        assert_eq!(takes(&mut gate, edit(call), now), Ok(()));
    }
}

#[test]
fn the_most_urgent_goes_first_and_then_who_came_first() {
    let start = Instant::now();
    let mut gate = Gate::fixed(1.0, 1.0, start);
    assert_eq!(takes(&mut gate, edit(0), start), Ok(()));
    let tickets = [
        (Priority::Audit, 1),
        (Priority::Resync, 2),
        (Priority::Edit, 3),
        (Priority::Edit, 4),
        (Priority::Register, 5),
        (Priority::Deregister, 6),
        (Priority::Edit, 7),
    ];
    tickets.iter().for_each(|ticket| gate.enter(*ticket));
    // A call that is cancelled delays no others.
    gate.leave((Priority::Edit, 4));
    let mut served = vec![(Priority::Edit, 4)];
    for second in 1..10 {
        let now = after(start, f64::from(second));
        let turn = tickets.iter().find(|ticket| !served.contains(*ticket) && gate.take(**ticket, now).is_ok());
        served.extend(turn);
    }
    assert_eq!(served[1..].iter().map(|(_, arrival)| *arrival).collect::<Vec<_>>(), [6, 5, 3, 7, 2, 1]);
    assert_eq!(gate.waiting(), 0);
}

#[test]
fn operations_have_their_classes_and_priorities() {
    let elb = "elasticloadbalancingv2";
    for (service, operation, class) in [
        (elb, "DescribeTargetHealth", Class::ElbReads),
        (elb, "CreateLoadBalancer", Class::ElbWrites),
        (elb, "AddTags", Class::ElbWrites),
        (elb, "RemoveTags", Class::ElbWrites),
        (elb, "RegisterTargets", Class::Registrations),
        (elb, "DeregisterTargets", Class::Registrations),
        ("ec2", "DescribeSubnets", Class::Ec2Reads),
        ("ec2", "CreateTags", Class::Ec2Writes),
        ("ec2", "DeleteTags", Class::Ec2Writes),
        ("acm", "ListCertificates", Class::AcmReads),
        ("acm", "DescribeCertificate", Class::AcmReads),
        ("wafv2", "GetWebACLForResource", Class::WafReads),
        ("wafv2", "AssociateWebACL", Class::WafWrites),
        ("shield", "CreateProtection", Class::Shield),
        ("sts", "GetCallerIdentity", Class::Others),
        ("route53", "ListHostedZones", Class::Route53),
        ("acm", "RequestCertificate", Class::AcmWrites),
        ("acm", "ListTagsForCertificate", Class::AcmReads),
    ] {
        assert_eq!(Class::of(service, operation), class, "{service} {operation}");
    }
}

#[tokio::test]
async fn a_priority_holds_for_all_that_is_done_with_it() {
    let priorities =
        || ["CreateRule", "RegisterTargets", "DeregisterTargets"].map(|o| priority_of(o, current_priority()));
    use Priority::{Deregister, Edit, Register, Resync};
    assert_eq!(priorities(), [Edit, Register, Deregister]);
    let urgency = Urgency::new(Resync);
    let within = with_urgency(urgency.clone(), async {
        tokio::task::yield_now().await;
        let before = priorities();
        urgency.raise(Deregister);
        // It does not fall.
        urgency.raise(Resync);
        (before, priorities())
    });
    assert_eq!(within.await, ([Resync, Register, Deregister], [Deregister; 3]));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_moves_up_when_its_work_becomes_urgent() {
    let limits = parse_throttle("elbv2:^RegisterTargets=1:1").unwrap();
    let budgets = Arc::new(Budgets::new(&limits, None));
    let order = Arc::new(Mutex::new(Vec::new()));
    let start = |name: &'static str, urgency: &Urgency| {
        let (budgets, order) = (Arc::clone(&budgets), Arc::clone(&order));
        let call = async move {
            budgets.call("elasticloadbalancingv2", "RegisterTargets").turn().await;
            order.lock().unwrap().push((name, Instant::now()));
        };
        tokio::spawn(with_urgency(urgency.clone(), call))
    };
    let began = Instant::now();
    let urgencies = ["first", "second", "third", "raised"].map(|name| {
        let urgency = Urgency::new(Priority::Resync);
        (start(name, &urgency), urgency)
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    urgencies[3].1.raise(Priority::Deregister);
    for (call, _) in urgencies {
        call.await.unwrap();
    }
    let order = order.lock().unwrap().iter().map(|(name, at)| (*name, (*at - began).as_secs())).collect::<Vec<_>>();
    assert_eq!(order, [("first", 0), ("second", 1), ("raised", 2), ("third", 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_deregistration_pauses_less_after_a_failure() {
    let budgets = Budgets::new(&[], None);
    let pause = Duration::from_secs(5);
    let pauses_after = async |operation, error: AwsErrorKind| {
        let began = Instant::now();
        budgets.call("elasticloadbalancingv2", operation).pause(pause, &error).await;
        began.elapsed()
    };
    let unclear = || AwsErrorKind::Unclear { message: "connection closed".to_owned() };
    let pauses = async |operation| pauses_after(operation, unclear()).await;
    assert_eq!(pauses("DeregisterTargets").await, LONGEST_URGENT_PAUSE);
    assert_eq!(pauses("RegisterTargets").await, pause);
    assert_eq!(pauses_after("DeregisterTargets", throttled("DeregisterTargets").unwrap_err().kind).await, pause);
    let urgency = Urgency::new(Priority::Edit);
    let raised = tokio::time::timeout(pause, async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        urgency.raise(Priority::Deregister);
        std::future::pending::<()>().await;
    });
    let (paused, _) = tokio::join!(with_urgency(urgency.clone(), pauses("DescribeTargetHealth")), raised);
    assert_eq!(paused, Duration::from_secs(2));
}

fn throttled(operation: &'static str) -> Result<(), AwsError> {
    let kind = AwsErrorKind::Throttled { code: "Throttling".to_owned(), message: "Rate exceeded".to_owned() };
    Err(AwsError { operation, kind })
}

#[tokio::test]
async fn who_waits_is_woken_in_order_and_who_gives_up_holds_up_nobody() {
    let limits = parse_throttle("EC2:^CreateTags=50:1").unwrap();
    let budgets = Arc::new(Budgets::new(&limits, None));
    let turn = |priority, operation| {
        let budgets = Arc::clone(&budgets);
        with_priority(priority, async move { budgets.call("ec2", operation).turn().await })
    };
    turn(Priority::Edit, "CreateTags").await;
    let order = Mutex::new(Vec::new());
    let waits = |priority| {
        let (turn, order) = (turn(priority, "CreateTags"), &order);
        async move {
            turn.await;
            order.lock().unwrap().push(priority);
        }
    };
    // The most urgent is at the head of the queue when it goes away.
    let gone = async {
        let waits = tokio::time::timeout(Duration::from_millis(1), turn(Priority::Deregister, "CreateTags"));
        assert!(waits.await.is_err());
    };
    let all = async {
        tokio::join!(
            gone,
            waits(Priority::Audit),
            waits(Priority::Resync),
            waits(Priority::Edit),
            waits(Priority::Register)
        )
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("somebody waits for ever");
    assert_eq!(*order.lock().unwrap(), [Priority::Register, Priority::Edit, Priority::Resync, Priority::Audit]);
    // The limit applies only to those operations.
    let began = Instant::now();
    turn(Priority::Audit, "DeleteTags").await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[derive(Default)]
struct Told(AtomicUsize);

impl CallObserver for Told {
    fn request(&self, _: &str, _: &str, _: f64, _: Result<(), (u16, &str)>) {}

    fn budget(&self, class: &'static str, rate: Option<f64>, _: f64, throttled: bool) {
        assert_eq!((class, throttled, rate.is_some()), ("elb_writes", true, true));
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn throttles_are_told_and_other_failures_are_not_taken_for_them() {
    let reported = Arc::new(Told::default());
    let budgets = Budgets::new(&[], Some(reported.clone()));
    let call = budgets.call("elasticloadbalancingv2", "CreateRule");
    call.ended(Instant::now(), &throttled("CreateRule"));
    assert_eq!(reported.0.load(Ordering::SeqCst), 1);
    let expected = BudgetState { rate: Some(1.5), waiting: 0, seconds_waited: 0.0, throttled: 1 };
    assert_eq!(budgets.state()["elb_writes"], expected);
    let quiet = BudgetState { rate: None, throttled: 0, ..expected };
    assert_eq!(budgets.state()["elb_reads"], quiet);
    // Without an answer nothing is known of AWS's limits.
    let kind = AwsErrorKind::Unclear { message: "connection closed".to_owned() };
    call.ended(Instant::now(), &Err::<(), _>(AwsError { operation: "CreateRule", kind }));
    assert_eq!(reported.0.load(Ordering::SeqCst), 1);
}

/// AWS's token bucket, or dice.
struct Throttling {
    /// When the clock of the simulation stood at 0.
    start: Instant,
    burst: f64,
    rate: f64,
    tokens: f64,
    filled: f64,
    /// Of so many calls, each first one is throttled besides.
    unlucky: Option<u32>,
    calls: u32,
}

impl Throttling {
    fn new(burst: f64, rate: f64) -> Self {
        Self { start: Instant::now(), burst, rate, tokens: burst, filled: 0.0, unlucky: None, calls: 0 }
    }

    fn takes(&mut self, now: f64) -> bool {
        self.tokens = (self.tokens + (now - self.filled) * self.rate).min(self.burst);
        self.filled = now;
        self.calls += 1;
        if self.tokens < 1.0 || self.unlucky.is_some_and(|every| self.calls.is_multiple_of(every)) {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// The activity of a worker of the simulation.
#[derive(Clone, Copy)]
enum Doing {
    /// Waits for its turn.
    Waiting(Ticket),
    /// Its request arrives then.
    Sent {
        at: f64,
        arrives: f64,
        ticket: Ticket,
    },
    /// The answer arrives then.
    Answered {
        sent: f64,
        arrives: f64,
        taken: bool,
        ticket: Ticket,
    },
    /// Pauses after a throttle.
    Pausing {
        until: f64,
        ticket: Ticket,
    },
    Finished,
}

/// The result of a simulation.
#[derive(Debug)]
struct Simulated {
    seconds: f64,
    throttled: u32,
}

/// Simulates workers that make calls one after the other, with 30 ms until the answer, on a simulated clock.
fn simulate(gate: &mut Gate, aws: &mut Throttling, calls: u64, workers: usize) -> Simulated {
    let start = aws.start;
    let (mut now, mut begun, mut throttled) = (aws.filled, 0, 0);
    let began = now;
    let mut begin = |gate: &mut Gate| {
        if begun == calls {
            return Doing::Finished;
        }
        let ticket = edit(begun);
        begun += 1;
        gate.enter(ticket);
        Doing::Waiting(ticket)
    };
    let mut doing: Vec<Doing> = (0..workers).map(|_| begin(gate)).collect();
    let mut pauses = vec![0.2; workers];
    loop {
        let mut next = f64::INFINITY;
        let mut moved = false;
        for (worker, state) in doing.iter_mut().enumerate() {
            let then = |at: f64| after(start, at);
            let (new, due) = match *state {
                Doing::Waiting(ticket) => match gate.take(ticket, then(now)) {
                    Ok(()) => (Some(Doing::Sent { at: now, arrives: now + 0.015, ticket }), now),
                    // A timer does not wake early, nor in less than a millisecond.
                    Err(Some(due)) => (None, ((due - start).as_secs_f64() * 1000.0).ceil() / 1000.0),
                    Err(None) => (None, f64::INFINITY),
                },
                Doing::Sent { at, arrives, ticket } if arrives <= now => {
                    let taken = aws.takes(now);
                    (Some(Doing::Answered { sent: at, arrives: now + 0.015, taken, ticket }), now)
                }
                Doing::Answered { arrives, taken: true, .. } if arrives <= now => {
                    gate.passed(then(now));
                    pauses[worker] = 0.2;
                    (Some(begin(gate)), now)
                }
                Doing::Answered { sent, arrives, ticket, .. } if arrives <= now => {
                    gate.throttled(then(sent), then(now));
                    throttled += 1;
                    // In the middle of where the dice would put it.
                    let until = now + pauses[worker] * 0.75;
                    pauses[worker] = f64::min(pauses[worker] * 2.0, 5.0);
                    (Some(Doing::Pausing { until, ticket }), now)
                }
                Doing::Pausing { until, ticket } if until <= now => {
                    gate.enter(ticket);
                    (Some(Doing::Waiting(ticket)), now)
                }
                Doing::Sent { arrives: due, .. }
                | Doing::Answered { arrives: due, .. }
                | Doing::Pausing { until: due, .. } => (None, due),
                Doing::Finished => (None, f64::INFINITY),
            };
            if let Some(new) = new {
                *state = new;
                moved = true;
            }
            next = next.min(due);
        }
        if doing.iter().all(|state| matches!(state, Doing::Finished)) {
            return Simulated { seconds: now - began, throttled };
        }
        if !moved {
            assert!(next.is_finite() && next >= now, "everybody waits for ever");
            now = if next > now { next } else { now + 0.001 };
        }
    }
}

/// Only the pauses of throttled calls, as without a budget.
fn without_budget() -> Gate {
    Gate::fixed(1e9, 1e9, Instant::now())
}

#[test]
fn under_sustained_load_nearly_all_of_the_quota_is_used() {
    // The quota's burst and rate, the calls, the workers, and the most calls that may be throttled.
    for (class, burst, rate, calls, workers, most) in [
        (Class::ElbWrites, 20.0, 3.0, 700, 3, 70),
        (Class::ElbWrites, 20.0, 3.0, 700, 1, 70),
        (Class::ElbWrites, 20.0, 3.0, 700, 12, 90),
        (Class::Registrations, 20.0, 4.0, 400, 6, 60),
        (Class::ElbReads, 40.0, 10.0, 2000, 6, 150),
        // Others of the account leave less than half.
        (Class::ElbWrites, 5.0, 1.0, 200, 3, 200),
        // The account has much more than usual.
        (Class::ElbWrites, 100.0, 30.0, 5000, 6, 400),
    ] {
        let floor_seconds = (calls as f64 - burst) / rate;
        let run = simulate(&mut class.gate(), &mut Throttling::new(burst, rate), calls, workers);
        let before = simulate(&mut without_budget(), &mut Throttling::new(burst, rate), calls, workers);
        println!(
            "{class:?}, {calls} calls of {workers} workers, {burst} at once and {rate}/s: floor {floor_seconds:.1} s, took {:.1} s (+{:.1} %), {} throttled; without a budget {:.1} s, {} throttled",
            run.seconds,
            (run.seconds / floor_seconds - 1.0) * 100.0,
            run.throttled,
            before.seconds,
            before.throttled
        );
        assert!(run.seconds < floor_seconds * 1.05, "{run:?}");
        assert!(run.throttled <= most, "{run:?}");
    }
}

#[test]
fn throttles_that_have_nothing_to_do_with_the_rate_only_delay() {
    let (burst, floor) = Class::ElbWrites.size();
    let mut aws = Throttling { unlucky: Some(2), ..Throttling::new(1e9, 1e9) };
    let run = simulate(&mut Gate::adaptive(burst, floor), &mut aws, 60, 3);
    println!("half of the calls throttled, whatever their rate: {run:?}");
    // 120 attempts at no less than the floor.
    assert!(run.seconds < 120.0 / floor * 1.1, "{run:?}");
}

#[test]
fn more_quota_is_found_soon() {
    let (burst, floor) = Class::ElbWrites.size();
    let mut gate = Gate::adaptive(burst, floor);
    let mut aws = Throttling::new(20.0, 3.0);
    simulate(&mut gate, &mut aws, 200, 3);
    // Others have stopped taking their share.
    aws.rate = 12.0;
    let run = simulate(&mut gate, &mut aws, 1200, 6);
    println!("1200 calls after 3/s became 12/s: {run:?}");
    assert!(run.seconds < 100.0 * 1.4, "{run:?}");
}
