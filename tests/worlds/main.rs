//! The controller's core against a cluster and an AWS that live in the same process, on paused time: random worlds, edits,
//! faults and crashes, each from a printed seed. The final state of AWS and the cluster is compared with that of a world
//! without any fault.
//! `ALBATROSS_SIMULATION_SEEDS` sets their number, `ALBATROSS_SIMULATION_SEED` names a single one.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is a failure of the test"
)]
#![expect(clippy::print_stdout, reason = "what a test prints is shown if it fails")]

mod latency;
mod process;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::LocalBoxFuture;

use crate::world::{Shape, World, compare::compared};
use albatross_simulation::random::Random;

/// A few, so that the tests stay quick; `.ci/run` has 2,000.
const SEEDS: u64 = 100;
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// Runs one world on a simulated clock, which never waits, in a thread as the workers of the program: without optimisation the
/// passes need more than the default stack.
fn in_a_world<T: Send>(seed: u64, run: impl FnOnce() -> LocalBoxFuture<'static, T> + Send) -> T {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().stack_size(8 << 20).spawn_scoped(scope, || on_its_clock(seed, run));
        worker.expect("a thread").join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn on_its_clock<T>(seed: u64, run: impl FnOnce() -> LocalBoxFuture<'static, T>) -> T {
    fastrand::seed(seed);
    #[expect(clippy::disallowed_methods, reason = "a world has a clock of its own")]
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // No test waits for a month.
    runtime.block_on(async { tokio::time::timeout(MONTH, run()).await }).expect("a world that comes to an end")
}

/// Runs many worlds on all processors, and reports the worlds that fail.
fn each_seed(seeds: impl Fn(u64) -> u64, count: u64, run: impl Fn(u64) -> Result<(), String> + Sync) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let named = std::env::var("ALBATROSS_SIMULATION_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let seeds: Vec<u64> = named.map_or_else(|| (0..count).map(seeds).collect(), |seed| vec![seed]);
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let enough = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let work = || {
                while let Some(seed) = seeds.get(usize::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap()) {
                    if enough.load(Ordering::SeqCst) {
                        return;
                    }
                    let begun = std::time::Instant::now();
                    let result = catch_unwind(AssertUnwindSafe(|| run(*seed)));
                    let result = result.unwrap_or_else(|_| Err("a panic, see above".to_owned()));
                    if std::env::var_os("ALBATROSS_SIMULATION_TIMES").is_some() {
                        println!("seed {seed}: {:?}", begun.elapsed());
                    }
                    if let Err(what) = result {
                        println!("seed {seed} fails: {}", what.lines().next().unwrap_or_default());
                        let mut failed = failed.lock().unwrap();
                        failed.push((*seed, what));
                        enough.store(failed.len() >= 10, Ordering::SeqCst);
                    }
                }
            };
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let numbers: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
    assert!(
        failed.is_empty(),
        "seeds {numbers:?} fail; one alone with ALBATROSS_SIMULATION_SEED. Seed {}: {}",
        failed[0].0,
        failed[0].1
    );
}

fn count() -> u64 {
    std::env::var("ALBATROSS_SIMULATION_SEEDS").map_or(SEEDS, |count| count.parse().expect("a number"))
}

fn one_world(seed: u64, shape: Shape) -> Result<(), String> {
    in_a_world(seed, move || {
        Box::pin(async move {
            let mut world = World::new(seed, shape.clone());
            let result = match world.live().await {
                Ok(()) => world.judge().await,
                error => error,
            };
            if std::env::var_os("ALBATROSS_SIMULATION_SEED").is_some() {
                println!("{shape:?}\n{}", world.history());
            }
            result.map_err(|what| format!("{what}\n{shape:?}\n{}", world.history()))
        })
    })
}

#[test]
fn whatever_happens_a_world_becomes_what_it_would_without_a_past() {
    each_seed(|seed| seed, count(), |seed| one_world(seed, Shape::of(&mut Random::new(seed))));
}

/// The mistakes that worlds have found, each with the seed of the world that did. If worlds come to be made in another way, a seed
/// makes another one; the tests next to the code that was fixed stay.
const FOUND: [(u64, &str); 8] = [
    (46, "while the records were read, the loss of the lease was not noticed"),
    (110, "a status whose write was not answered was assumed to be unchanged, and stayed"),
    (118, "a checkpoint whose write was not answered was not removed when targets changed, and was trusted after it"),
    (217, "a request that failed while the records were read left clean records that were never marked dirty"),
    (341, "a security group that AWS did not show everywhere yet was assumed to be deleted, and stayed for ever"),
    (
        1227,
        "a target group whose creation was not answered, and whose tags AWS did not show yet, had no owner for ever",
    ),
    (1303, "the same after a restart"),
    (1345, "a port that was closed only when an old load balancer had gone stayed open, as no pass looked once more"),
];

#[test]
fn what_was_found_stays_mended() {
    let seed_of = |at: u64| FOUND[usize::try_from(at).unwrap()].0;
    each_seed(seed_of, FOUND.len() as u64, |seed| {
        let what = FOUND.iter().find(|(found, _)| *found == seed).map_or("", |(_, what)| what);
        one_world(seed, Shape::of(&mut Random::new(seed))).map_err(|error| format!("{what}: {error}"))
    });
}

/// A world in which two processes take turns.
fn contended(seed: u64, fenced: bool) -> Result<(), String> {
    in_a_world(seed, move || {
        Box::pin(async move {
            let mut random = Random::new(seed).fork(4);
            let services = random.below(2);
            let shape = Shape {
                ingresses: 2 - services,
                services,
                bindings: random.below(2),
                backends: 2,
                edits: 6,
                cluster_faults: random.chance(0.5),
                aws_faults: random.chance(0.5),
                ends: 0.0,
                deleted: false,
                policy: random.chance(0.5),
                tampered: false,
            };
            let mut world = World::new(seed, shape.clone());
            let result = match world.contend(fenced).await {
                Ok(()) => world.judge().await,
                error => error,
            };
            if std::env::var_os("ALBATROSS_SIMULATION_SEED").is_some() {
                println!("{shape:?}\n{}", world.history());
            }
            result.map_err(|what| format!("{what}\n{shape:?}\n{}", world.history()))
        })
    })
}

#[test]
fn of_two_processes_one_writes_whoever_is_frozen_killed_or_stopped() {
    each_seed(|seed| seed, count().div_ceil(4), |seed| contended(seed, true));
}

#[test]
fn a_process_that_asks_the_election_and_no_clock_is_found_out() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let found = (0..200).find_map(|seed| contended(seed, false).err());
    let what = found.expect("a frozen process that writes before its election goes on");
    assert!(what.starts_with("it is written without the lease"), "{what}");
}

/// A world of one or two objects without faults, in which the process crashes once, or never.
async fn crashed(seed: u64, crash: Option<(u64, bool)>) -> Result<(Vec<String>, u64, String), String> {
    let mut random = Random::new(seed).fork(2);
    let services = random.below(2);
    let shape = Shape {
        ingresses: 1 - services,
        services,
        bindings: random.below(2),
        backends: 1,
        edits: 2,
        cluster_faults: false,
        aws_faults: false,
        ends: 0.0,
        deleted: false,
        policy: false,
        tampered: false,
    };
    let mut world = World::new(seed, shape);
    match world.script(crash).await {
        Ok(states) => Ok((states, world.writes() as u64, world.history())),
        Err(what) => Err(format!("crash {crash:?}: {what}\n{}", world.history())),
    }
}

#[test]
fn a_crash_at_any_call_changes_nothing_in_the_end() {
    // Each is some dozens of worlds.
    let count = count().div_ceil(400);
    each_seed(
        |seed| seed,
        count,
        |seed| {
            let (states, writes, _) = in_a_world(seed, || Box::pin(crashed(seed, None)))?;
            for crash in (0..writes).flat_map(|write| [(write, false), (write, true)]) {
                let (after, _, history) = in_a_world(seed, || Box::pin(crashed(seed, Some(crash))))?;
                for (part, (is, shall_be)) in after.iter().zip(&states).enumerate() {
                    compared(&format!("crash {crash:?}: what AWS has after part {part}"), is, shall_be)
                        .map_err(|what| format!("{what}\n{history}"))?;
                }
            }
            Ok(())
        },
    );
}
