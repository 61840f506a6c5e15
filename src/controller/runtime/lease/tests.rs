use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
};

use futures::{
    FutureExt,
    channel::oneshot,
    executor::{LocalPool, LocalSpawner},
    future::{pending, poll_fn},
    task::LocalSpawnExt,
};
use proptest::prelude::*;

use super::*;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

// === The decision ===

#[test]
fn decisions() {
    let start = Instant::now();
    let record = |holder: Option<&str>, transitions| LeaseRecord {
        holder: holder.map(str::to_owned),
        duration: Some(seconds(15)),
        transitions,
        ..LeaseRecord::default()
    };
    let without_duration = LeaseRecord { duration: None, ..record(Some("other"), 4) };
    let short = LeaseRecord { duration: Some(seconds(5)), ..record(Some("other"), 4) };
    let term = Some(Term { epoch: 4, renewed: start });
    // What was seen at `start`, whether this process leads, what the lease says now, and after how many seconds.
    let cases = [
        ("never held", None, None, None, 0, Action::Acquire { epoch: 0 }),
        ("just seen held", Some(record(Some("other"), 4)), None, Some(record(Some("other"), 4)), 0, Action::Wait),
        ("about to expire", Some(record(Some("other"), 4)), None, Some(record(Some("other"), 4)), 14, Action::Wait),
        (
            "expired",
            Some(record(Some("other"), 4)),
            None,
            Some(record(Some("other"), 4)),
            15,
            Action::Acquire { epoch: 5 },
        ),
        ("its own duration", Some(short.clone()), None, Some(short), 5, Action::Acquire { epoch: 5 }),
        ("no duration", Some(without_duration.clone()), None, Some(without_duration), 14, Action::Wait),
        ("released", Some(record(None, 4)), None, Some(record(None, 4)), 0, Action::Acquire { epoch: 5 }),
        ("deleted while held", Some(record(Some("other"), 4)), None, None, 14, Action::Wait),
        ("deleted and expired", Some(record(Some("other"), 4)), None, None, 15, Action::Acquire { epoch: 5 }),
        (
            "ours of a former term",
            Some(record(Some("me"), 4)),
            None,
            Some(record(Some("me"), 4)),
            0,
            Action::Acquire { epoch: 5 },
        ),
        ("ours", Some(record(Some("me"), 4)), term, Some(record(Some("me"), 4)), 2, Action::Renew { epoch: 4 }),
        ("ours, deleted", Some(record(Some("me"), 4)), term, None, 2, Action::Renew { epoch: 4 }),
        ("taken", Some(record(Some("other"), 5)), term, Some(record(Some("other"), 5)), 2, Action::StepDown),
        ("released by hand", Some(record(None, 4)), term, Some(record(None, 4)), 2, Action::StepDown),
        ("our name, not our term", Some(record(Some("me"), 5)), term, Some(record(Some("me"), 5)), 2, Action::StepDown),
    ];
    for (name, observed, term, lease, after, expected) in cases {
        let state = State { observed: observed.map(|record| (record, start)), term };
        let action = decide("me", Timing::default(), &state, lease.as_ref(), start + seconds(after));
        assert_eq!(action, expected, "{name}");
    }
}

#[test]
fn only_a_change_restarts_the_wait() {
    let start = Instant::now();
    let mut record = LeaseRecord { holder: Some("other".to_owned()), ..LeaseRecord::default() };
    let mut state = State::default();
    state.observe(Some(&record), start);
    state.observe(Some(&record), start + seconds(3));
    state.observe(None, start + seconds(4));
    assert_eq!(state.observed, Some((record.clone(), start)));
    record.renewed = Some(Timestamp::UNIX_EPOCH);
    state.observe(Some(&record), start + seconds(5));
    assert_eq!(state.observed, Some((record, start + seconds(5))));
}

#[test]
fn a_lease_object_reads_back_as_it_was_written() {
    let record = LeaseRecord {
        holder: Some("me".to_owned()),
        duration: Some(seconds(15)),
        acquired: Some(Timestamp::from_second(1).unwrap()),
        renewed: Some(Timestamp::from_second(2).unwrap()),
        transitions: 3,
    };
    let mut lease = Lease {
        metadata: ObjectMeta { resource_version: Some("7".to_owned()), ..ObjectMeta::default() },
        spec: Some(lease_spec(&record)),
    };
    let version = "7".to_owned();
    assert_eq!(stored(&lease), Stored { record: record.clone(), version: version.clone() });
    // Older client-go releases a lease with an empty holder.
    lease.spec.as_mut().unwrap().holder_identity = Some(String::new());
    let record = LeaseRecord { holder: None, ..record };
    assert_eq!(stored(&lease), Stored { record, version });
}

// === A world of candidates, one lease and a clock that moves when nothing else can ===

#[derive(Clone)]
struct FakeClock(Arc<Mutex<FakeTime>>);

struct FakeTime {
    now: Instant,
    sleepers: Vec<(Instant, Waker)>,
}

impl FakeClock {
    fn time(&self) -> std::sync::MutexGuard<'_, FakeTime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves to the next moment that a task waits for, if it is not after `end`.
    fn advance(&self, end: Instant) -> bool {
        let mut time = self.time();
        let Some(next) = time.sleepers.iter().map(|(deadline, _)| *deadline).min() else {
            return false;
        };
        if next > end {
            return false;
        }
        time.now = next;
        let (due, later) = std::mem::take(&mut time.sleepers).into_iter().partition(|(deadline, _)| *deadline <= next);
        time.sleepers = later;
        drop(time);
        let due: Vec<(Instant, Waker)> = due;
        due.into_iter().for_each(|(_, waker)| waker.wake());
        true
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Instant {
        self.time().now
    }

    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> + Send {
        poll_fn(move |context| {
            let mut time = self.time();
            if time.now >= deadline {
                return Poll::Ready(());
            }
            time.sleepers.push((deadline, context.waker().clone()));
            Poll::Pending
        })
    }
}

/// The fault between a candidate and the API server.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The request is refused at once.
    Refused,
    /// The request is lost.
    Lost,
    /// The request arrives, its answer is lost.
    AnswerLost,
}

#[derive(Clone, Debug)]
struct Outage {
    fault: Fault,
    from: Duration,
    length: Duration,
}

#[derive(Clone)]
struct FakeStore {
    clock: FakeClock,
    start: Instant,
    latency: Duration,
    outages: Vec<Outage>,
    lease: Arc<Mutex<Option<Stored>>>,
}

impl FakeStore {
    /// Runs one request against the lease, with the faults of the moment.
    async fn request<T>(
        &self,
        effect: impl FnOnce(&mut Option<Stored>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.pass().await;
        match self.fault() {
            Some(Fault::Refused) => return Err(StoreError::Failed("refused".into())),
            Some(Fault::Lost) => pending().await,
            Some(Fault::AnswerLost) | None => {}
        }
        let answer = effect(&mut self.lease.lock().unwrap());
        self.pass().await;
        match self.fault() {
            None => answer,
            Some(_) => pending().await,
        }
    }

    async fn pass(&self) {
        self.clock.sleep_until(self.clock.now() + self.latency).await;
    }

    fn fault(&self) -> Option<Fault> {
        let now = self.clock.now() - self.start;
        self.outages
            .iter()
            .find(|outage| outage.from <= now && now < outage.from + outage.length)
            .map(|outage| outage.fault)
    }
}

impl LeaseStore for FakeStore {
    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        self.request(|lease| Ok(lease.clone())).await
    }

    async fn write(&self, record: &LeaseRecord, version: Option<&str>) -> Result<Stored, StoreError> {
        self.request(|lease| {
            if lease.as_ref().map(|stored| stored.version.as_str()) != version {
                return Err(StoreError::Conflict);
            }
            let version = version.map_or(0, |version| version.parse::<u64>().unwrap()) + 1;
            let stored = Stored { record: record.clone(), version: version.to_string() };
            *lease = Some(stored.clone());
            Ok(stored)
        })
        .await
    }
}

struct World {
    pool: LocalPool,
    spawner: LocalSpawner,
    clock: FakeClock,
    start: Instant,
    lease: Arc<Mutex<Option<Stored>>>,
    candidates: Vec<(&'static str, watch::Receiver<Leadership>)>,
    /// Every change of leadership: when in milliseconds, who, and what.
    history: Vec<(u128, &'static str, Leadership)>,
}

impl World {
    fn new() -> Self {
        let start = Instant::now();
        let pool = LocalPool::new();
        Self {
            spawner: pool.spawner(),
            pool,
            clock: FakeClock(Arc::new(Mutex::new(FakeTime { now: start, sleepers: Vec::new() }))),
            start,
            lease: Arc::default(),
            candidates: Vec::new(),
            history: Vec::new(),
        }
    }

    /// Starts a candidate; the sender stops it.
    fn candidate(&mut self, name: &'static str, outages: &[Outage]) -> oneshot::Sender<()> {
        let store = FakeStore {
            clock: self.clock.clone(),
            start: self.start,
            latency: Duration::from_millis(50),
            outages: outages.to_vec(),
            lease: self.lease.clone(),
        };
        let candidate = Candidate::new(store, self.clock.clone(), name, Timing::default());
        self.candidates.push((name, candidate.leadership()));
        let (stop, stopped) = oneshot::channel();
        self.spawner.spawn_local(candidate.run(stopped.map(|_| ()))).unwrap();
        stop
    }

    /// Lets the world run until `end` after its start, and checks at every moment that at most one candidate leads.
    fn run_until(&mut self, end: Duration) {
        let end = self.start + end;
        loop {
            self.pool.run_until_stalled();
            for (name, leadership) in &mut self.candidates {
                if leadership.has_changed().unwrap_or(false) {
                    let now = (self.clock.now() - self.start).as_millis();
                    self.history.push((now, name, *leadership.borrow_and_update()));
                }
            }
            let leaders = self.leaders();
            assert!(leaders.len() <= 1, "several leaders: {leaders:?}: {:?}", self.history);
            if !self.clock.advance(end) {
                break;
            }
        }
        self.clock.time().now = end;
    }

    fn leaders(&self) -> Vec<&'static str> {
        self.candidates
            .iter()
            .filter(|(_, leadership)| *leadership.borrow() != Leadership::Standby)
            .map(|(name, _)| *name)
            .collect()
    }
}

#[test]
fn one_leads_and_stays_leader() {
    let mut world = World::new();
    let _a = world.candidate("a", &[]);
    world.run_until(seconds(1));
    let _b = world.candidate("b", &[]);
    world.run_until(seconds(600));
    assert_eq!(world.history, [(200, "a", Leadership::Leader { epoch: 0 })]);
}

#[test]
fn a_silent_leader_stops_before_another_takes_over() {
    for fault in [Fault::Refused, Fault::Lost, Fault::AnswerLost] {
        let mut world = World::new();
        let outage = Outage { fault, from: seconds(20), length: seconds(60) };
        let _a = world.candidate("a", &[outage]);
        world.run_until(seconds(1));
        let _b = world.candidate("b", &[]);
        world.run_until(seconds(120));
        // A began its last successful renewal at 18.1 s. When an answer is lost, the renewal of 20.1 s arrives as well,
        // and later ones: B then waits longer.
        let [(0..1000, "a", _), stop, takeover] = world.history.as_slice() else {
            panic!("{fault:?}: {:?}", world.history);
        };
        assert_eq!(*stop, (28_100, "a", Leadership::Standby), "{fault:?}");
        assert_eq!((takeover.1, takeover.2), ("b", Leadership::Leader { epoch: 1 }), "{fault:?}");
        assert!((33_000..60_000).contains(&takeover.0), "{fault:?}: {takeover:?}");
    }
}

#[test]
fn a_short_outage_changes_nothing() {
    let mut world = World::new();
    let outage = Outage { fault: Fault::Lost, from: seconds(20), length: seconds(4) };
    let _a = world.candidate("a", &[outage]);
    world.run_until(seconds(1));
    let _b = world.candidate("b", &[]);
    world.run_until(seconds(120));
    assert_eq!(world.history, [(200, "a", Leadership::Leader { epoch: 0 })]);
}

#[test]
fn a_released_lease_is_taken_at_the_next_look() {
    let mut world = World::new();
    let a = world.candidate("a", &[]);
    world.run_until(seconds(1));
    let _b = world.candidate("b", &[]);
    world.run_until(seconds(20));
    drop(a);
    world.run_until(seconds(60));
    let [_, stop, takeover] = world.history.as_slice() else {
        panic!("{:?}", world.history);
    };
    assert_eq!(*stop, (20_000, "a", Leadership::Standby));
    assert_eq!((takeover.1, takeover.2), ("b", Leadership::Leader { epoch: 1 }));
    assert!(takeover.0 <= 22_500, "{takeover:?}");
    assert_eq!(world.lease.lock().unwrap().as_ref().unwrap().record.holder.as_deref(), Some("b"));
}

#[test]
fn a_stopped_standby_leaves_the_lease_alone() {
    let mut world = World::new();
    let _a = world.candidate("a", &[]);
    world.run_until(seconds(1));
    let b = world.candidate("b", &[]);
    world.run_until(seconds(20));
    drop(b);
    world.run_until(seconds(60));
    assert_eq!(world.history, [(200, "a", Leadership::Leader { epoch: 0 })]);
}

#[test]
fn a_deleted_lease_is_put_back_by_its_leader() {
    let mut world = World::new();
    let _a = world.candidate("a", &[]);
    world.run_until(seconds(1));
    let _b = world.candidate("b", &[]);
    world.run_until(seconds(20));
    *world.lease.lock().unwrap() = None;
    world.run_until(seconds(60));
    assert_eq!(world.history, [(200, "a", Leadership::Leader { epoch: 0 })]);
    assert!(world.lease.lock().unwrap().is_some());
}

fn outages() -> impl Strategy<Value = Vec<Outage>> {
    let fault = prop_oneof![Just(Fault::Refused), Just(Fault::Lost), Just(Fault::AnswerLost)];
    let outage = (fault, 0_u64..300_000, 0_u64..40_000).prop_map(|(fault, from, length)| Outage {
        fault,
        from: Duration::from_millis(from),
        length: Duration::from_millis(length),
    });
    proptest::collection::vec(outage, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever happens between the candidates and the API server, at most one leads (`run_until` checks), epochs grow,
    /// and once it is over one of them leads.
    #[test]
    fn never_two_leaders(a in outages(), b in outages(), c in outages()) {
        let mut world = World::new();
        let _stops = [("a", &a), ("b", &b), ("c", &c)]
            .map(|(name, outages)| world.candidate(name, outages));
        world.run_until(seconds(400));
        prop_assert_eq!(world.leaders().len(), 1);
        let epochs: Vec<i32> = world
            .history
            .iter()
            .filter_map(|(_, _, leadership)| match leadership {
                Leadership::Leader { epoch } => Some(*epoch),
                Leadership::Standby => None,
            })
            .collect();
        prop_assert!(epochs.is_sorted_by(|earlier, later| earlier < later), "{:?}", world.history);
    }
}
