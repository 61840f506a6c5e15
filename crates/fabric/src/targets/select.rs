//! Which of a group's targets a request goes to.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
};

use super::{
    NoTarget,
    settings::{Algorithm, Settings},
};
use crate::account::Target;

/// A registered target, as far as it decides.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) target: &'a Target,
    /// `None` for all zones.
    pub(super) zone: Option<&'a str>,
    /// False for one that is never checked.
    pub(super) used: bool,
    pub(super) healthy: bool,
    /// Requests and connections that it has.
    pub(super) in_flight: usize,
    /// Its part of the share that others have: below 1 in slow start.
    pub(super) share: f64,
    /// The rest of its share from earlier turns.
    pub(super) credit: f64,
}

/// The candidates that may be chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Eligible {
    /// Their places in the list.
    pub(super) places: Vec<usize>,
    /// True if too few are healthy, so that health does not count.
    pub(super) open: bool,
}

/// Returns who may be chosen by a node in a zone: the healthy ones, or all if too few are.
pub(super) fn eligible(candidates: &[Candidate<'_>], settings: &Settings, zone: &str) -> Result<Eligible, NoTarget> {
    if candidates.is_empty() {
        return Err(NoTarget::NoneRegistered);
    }
    let used = candidates.iter().enumerate().filter(|(_, candidate)| candidate.used);
    let mut used = used.peekable();
    if used.peek().is_none() {
        return Err(NoTarget::NoneUsed);
    }
    let near: Vec<_> =
        used.filter(|(_, candidate)| settings.cross_zone || candidate.zone.is_none_or(|other| other == zone)).collect();
    if near.is_empty() {
        return Err(NoTarget::NoneInZone);
    }
    let healthy: Vec<usize> = near.iter().filter(|(_, candidate)| candidate.healthy).map(|(place, _)| *place).collect();
    let open = healthy.is_empty() || !settings.routing.met(healthy.len(), near.len());
    let places = if open { near.into_iter().map(|(place, _)| place).collect() } else { healthy };
    Ok(Eligible { places, open })
}

/// Chooses one of `places`, and takes its share. `turn` is where the last choice ended.
pub(super) fn choose(
    candidates: &mut [Candidate<'_>],
    places: &[usize],
    algorithm: Algorithm,
    turn: &mut usize,
    client: SocketAddr,
    seed: u64,
) -> Option<usize> {
    match algorithm {
        Algorithm::RoundRobin => {
            let mut last = None;
            for _ in places {
                let place = next(places, turn)?;
                let candidate = candidates.get_mut(place)?;
                candidate.credit = (candidate.credit + candidate.share).min(1.0);
                last = Some(place);
                // Sums of shares come close to 1 only.
                if candidate.credit > 1.0 - 1e-9 {
                    candidate.credit = 0.0;
                    return last;
                }
            }
            last
        }
        Algorithm::LeastOutstanding => {
            let load = |place: &usize| candidates.get(*place).map_or(usize::MAX, |candidate| candidate.in_flight);
            let least = places.iter().map(load).min()?;
            let best: Vec<usize> = places.iter().copied().filter(|place| load(place) == least).collect();
            next(&best, turn)
        }
        Algorithm::Flow => highest(candidates, places, |target| hash((seed, client, target))),
        Algorithm::Source => highest(candidates, places, |target| hash((seed, client.ip(), target))),
    }
}

fn next(places: &[usize], turn: &mut usize) -> Option<usize> {
    let place = places.get(turn.checked_rem(places.len())?).copied();
    *turn = turn.wrapping_add(1);
    place
}

/// The one with the highest hash: a target that comes or goes moves no flow between others.
fn highest(candidates: &[Candidate<'_>], places: &[usize], rank: impl Fn(&Target) -> u64) -> Option<usize> {
    let rank = |place: &usize| candidates.get(*place).map(|candidate| rank(candidate.target));
    places.iter().copied().max_by_key(rank)
}

/// Returns the same number for the same value, in every run.
pub(crate) fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::{settings::Minimum, testing};

    fn settings(algorithm: Algorithm) -> Settings {
        let account = testing::account(false, &[]);
        let settings = Settings::of(&account.target_groups["tg"], account.load_balancers.get("lb"));
        Settings { algorithm, ..settings }
    }

    fn targets(count: u16) -> Vec<Target> {
        (0..count).map(|number| Target { id: format!("10.0.1.{number}"), port: 80 }).collect()
    }

    /// One letter for each target of zones `a`, `b` and all: `h` healthy, `i` neither healthy nor unused, `u` unused.
    fn candidates<'a>(targets: &'a [Target], states: &str) -> Vec<Candidate<'a>> {
        let letters = states.split(' ').zip(targets);
        letters
            .map(|(state, target)| Candidate {
                target,
                zone: match &state[1..] {
                    "a" => Some("a"),
                    "b" => Some("b"),
                    _ => None,
                },
                used: !state.starts_with('u'),
                healthy: state.starts_with('h'),
                in_flight: 0,
                share: 1.0,
                credit: 0.0,
            })
            .collect()
    }

    #[test]
    fn healthy_targets_are_used_and_all_if_too_few_are() {
        let open = |places: &[usize]| Ok(Eligible { places: places.to_vec(), open: true });
        let healthy = |places: &[usize]| Ok(Eligible { places: places.to_vec(), open: false });
        let table = [
            (true, 1, 0.0, "ha hb", healthy(&[0, 1])),
            (true, 1, 0.0, "ia hb", healthy(&[1])),
            (true, 1, 0.0, "ia ib", open(&[0, 1])),
            (true, 1, 0.0, "ia ub", open(&[0])),
            (true, 1, 0.0, "ua ub", Err(NoTarget::NoneUsed)),
            (true, 1, 0.0, "", Err(NoTarget::NoneRegistered)),
            (true, 2, 0.0, "ha ib", open(&[0, 1])),
            (true, 1, 50.0, "ha ib ib", open(&[0, 1, 2])),
            (true, 1, 50.0, "ha ib", healthy(&[0])),
            (false, 1, 0.0, "ha hb", healthy(&[0])),
            (false, 1, 0.0, "ia hb", open(&[0])),
            (false, 1, 0.0, "hb", Err(NoTarget::NoneInZone)),
            (false, 1, 0.0, "ua hb", Err(NoTarget::NoneInZone)),
            (false, 1, 0.0, "h* hb", healthy(&[0])),
        ];
        let targets = targets(3);
        for (cross_zone, count, percentage, states, expected) in table {
            let routing = Minimum { count, percentage };
            let settings = Settings { cross_zone, routing, ..settings(Algorithm::RoundRobin) };
            let candidates = if states.is_empty() { Vec::new() } else { candidates(&targets, states) };
            assert_eq!(eligible(&candidates, &settings, "a"), expected, "{cross_zone} {routing:?} {states}");
        }
    }

    fn chosen(candidates: &mut [Candidate<'_>], places: &[usize], algorithm: Algorithm, times: usize) -> Vec<usize> {
        let client = "127.40.0.1:1000".parse().unwrap();
        let mut turn = 0;
        (0..times).map(|_| choose(candidates, places, algorithm, &mut turn, client, 7).unwrap()).collect()
    }

    #[test]
    fn targets_take_turns() {
        let targets = targets(3);
        let mut all = candidates(&targets, "ha ha ha");
        assert_eq!(chosen(&mut all, &[0, 2], Algorithm::RoundRobin, 5), [0, 2, 0, 2, 0]);
        assert_eq!(choose(&mut all, &[], Algorithm::RoundRobin, &mut 0, "127.40.0.1:1".parse().unwrap(), 7), None);
    }

    #[test]
    fn a_target_in_slow_start_gets_its_share() {
        let targets = targets(3);
        let mut all = candidates(&targets, "ha ha ha");
        all[1].share = 0.25;
        assert_eq!(chosen(&mut all, &[0, 1], Algorithm::RoundRobin, 10), [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
        all[1].share = 0.0;
        assert_eq!(chosen(&mut all, &[1], Algorithm::RoundRobin, 2), [1, 1], "it is the only one");
    }

    #[test]
    fn the_one_with_the_fewest_requests_is_chosen() {
        let targets = targets(3);
        let mut all = candidates(&targets, "ha ha ha");
        all[0].in_flight = 2;
        assert_eq!(chosen(&mut all, &[0, 1, 2], Algorithm::LeastOutstanding, 4), [1, 2, 1, 2]);
        all[1].in_flight = 1;
        assert_eq!(chosen(&mut all, &[0, 1, 2], Algorithm::LeastOutstanding, 2), [2, 2]);
    }

    #[test]
    fn flows_spread_and_move_only_from_a_target_that_goes() {
        let targets = targets(4);
        let mut all = candidates(&targets, "ha ha ha ha");
        let mut of = |algorithm, client: SocketAddr, places: &[usize]| {
            choose(&mut all, places, algorithm, &mut 0, client, 7).unwrap()
        };
        let clients = || (0..400u16).map(|port| SocketAddr::from(([127, 40, 0, 1], 10_000 + port)));
        let mut counts = [0; 4];
        for client in clients() {
            let before = of(Algorithm::Flow, client, &[0, 1, 2, 3]);
            counts[before] += 1;
            let after = of(Algorithm::Flow, client, &[0, 1, 3]);
            assert!(after == before || before == 2, "{client}: {before} to {after}");
        }
        assert!(counts.iter().all(|count| (60..140).contains(count)), "{counts:?}");
        let sources: std::collections::BTreeSet<_> =
            clients().map(|client| of(Algorithm::Source, client, &[0, 1, 2, 3])).collect();
        assert_eq!(sources.len(), 1, "one address, one target");
    }
}
