//! The figures of a small load that asks all the time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use albatross_fabric::load::{Answer, Load, LoadSpec, Report, Resolve};
use anyhow::Result;
use rustls::RootCertStore;
use tokio::time::Instant;

use super::route::Route;
use super::screen::Screen;

/// Requests a second, to all routes together.
pub(super) const RATE: u32 = 20;
/// The time whose answers are shown one by one, and between two lines where output is not a terminal.
const RECENT: Duration = Duration::from_secs(10);

/// A load to each route.
pub(super) struct Figures {
    loads: Vec<Load>,
    recent: Arc<Mutex<Recent>>,
    started: Instant,
    /// When a line was last written that stays, and how many requests had failed.
    told: (Instant, u64),
}

/// The answers of the last seconds: who answered, and when.
#[derive(Default)]
struct Recent(VecDeque<(Instant, String)>);

impl Recent {
    fn add(&mut self, now: Instant, who: String) {
        self.0.push_back((now, who));
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while self.0.front().is_some_and(|(then, _)| now.duration_since(*then) >= RECENT) {
            self.0.pop_front();
        }
    }

    fn counts(&mut self, now: Instant) -> BTreeMap<String, u64> {
        self.forget(now);
        let mut counts = BTreeMap::new();
        for (_, who) in &self.0 {
            *counts.entry(who.clone()).or_default() += 1;
        }
        counts
    }
}

impl Figures {
    /// Starts to ask.
    pub(super) fn start(routes: &[Route], resolve: &Resolve, roots: &Arc<RootCertStore>) -> Result<Self> {
        let rate = RATE.div_ceil(u32::try_from(routes.len().max(1))?);
        let recent = Arc::<Mutex<Recent>>::default();
        let load = |(route, seed): (&Route, u64)| {
            let recent = recent.clone();
            let spec = LoadSpec {
                rate,
                seed,
                judge: Arc::new(move |answer| {
                    let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
                    recent.add(Instant::now(), who(answer));
                    Ok("answered".into())
                }),
                ..route.load(resolve.clone(), roots)
            };
            Ok(Load::start(spec)?)
        };
        let loads = routes.iter().zip(1..).map(load).collect::<Result<Vec<_>>>()?;
        let started = Instant::now();
        Ok(Self { loads, recent, started, told: (started, 0) })
    }

    /// Shows the figures: at each call on a terminal, else when more requests have failed, or no line was written for a while.
    pub(super) fn tell(&mut self, screen: &mut Screen) {
        let now = Instant::now();
        let mut sum = Report::default();
        self.loads.iter().for_each(|load| sum.merge(&load.report()));
        let failed = sum.figures.lost + sum.figures.wrong;
        if screen.is_terminal() || is_due(self.told, now, failed) {
            self.told = (now, failed);
            let counts = self.recent.lock().unwrap_or_else(PoisonError::into_inner).counts(now);
            screen.last(&line(self.started.elapsed(), &sum, &counts));
        }
    }
}

fn is_due((told, then): (Instant, u64), now: Instant, failed: u64) -> bool {
    failed > then || now.duration_since(told) >= RECENT
}

/// Returns who answered: a pod or the load balancer's status.
fn who(answer: &Answer) -> String {
    match answer.pod() {
        Some(pod) if answer.status == 200 => pod.to_owned(),
        Some(pod) => format!("{} of {pod}", answer.status),
        None => answer.status.to_string(),
    }
}

/// Returns the figures in a line: all requests, those that failed, and who answered in the last seconds. Pods of one
/// ReplicaSet stand together.
fn line(elapsed: Duration, sum: &Report, recent: &BTreeMap<String, u64>) -> String {
    let seconds = elapsed.as_secs();
    let figures = &sum.figures;
    let mut line =
        format!("{:3}:{:02}  {} requests, {} lost", seconds / 60, seconds % 60, figures.requests, figures.lost);
    if figures.wrong > 0 {
        let _ = write!(line, ", {} wrong", figures.wrong);
    }
    if !sum.kinds.is_empty() {
        let kinds: Vec<String> = sum.kinds.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
        let _ = write!(line, " ({})", kinds.join(", "));
    }
    let mut groups: Vec<(Option<&str>, Vec<String>)> = Vec::new();
    for (who, count) in recent {
        let (of, one) = who.rsplit_once('-').map_or((None, who.as_str()), |(of, one)| (Some(of), one));
        match groups.last_mut() {
            Some((last, ones)) if of.is_some() && *last == of => ones.push(format!("{one} {count}")),
            _ => groups.push((of, vec![format!("{one} {count}")])),
        }
    }
    let groups = groups.iter().map(|(of, ones)| match of {
        Some(of) => format!("{of} {}", ones.join(", ")),
        None => ones.join(", "),
    });
    let groups: Vec<String> = groups.collect();
    let groups = if groups.is_empty() { "nothing".to_owned() } else { groups.join(" | ") };
    let _ = write!(line, "; in {} s: {groups}", RECENT.as_secs());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_failures_and_who_answered() {
        let mut sum = Report::default();
        sum.figures.requests = 1_660;
        let counts = [("301", 40), ("service1-6c8-x2x7k", 58), ("service1-6c8-q8z4l", 42), ("service1-7d9-aaaaa", 1)];
        let counts = counts.map(|(who, count)| (who.to_owned(), count)).into();
        let elapsed = Duration::from_secs(83);
        let expected =
            "  1:23  1660 requests, 0 lost; in 10 s: 301 40 | service1-6c8 q8z4l 42, x2x7k 58 | service1-7d9 aaaaa 1";
        assert_eq!(line(elapsed, &sum, &counts), expected);
        (sum.figures.lost, sum.figures.wrong) = (3, 1);
        let kinds = [("503 that no pod sent", 1), ("reset", 2), ("wrong", 1)];
        sum.kinds = kinds.map(|(kind, count)| (kind.to_owned(), count)).into();
        let counts = [("503 of web-0".to_owned(), 2), ("web-0".to_owned(), 5)].into();
        let expected = "  1:23  1660 requests, 3 lost, 1 wrong (503 that no pod sent: 1, reset: 2, wrong: 1); in 10 s: 503 of web 0 2 | web 0 5";
        assert_eq!(line(elapsed, &sum, &counts), expected);
    }

    #[test]
    fn answers_are_forgotten_after_a_while() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut recent = Recent::default();
        for (seconds, who) in [(0, "a"), (5, "b"), (9, "b")] {
            recent.add(at(seconds), who.to_owned());
        }
        let mut counts = |seconds| recent.counts(at(seconds)).into_iter().collect::<Vec<_>>();
        assert_eq!(counts(9), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(counts(10), [("b".to_owned(), 2)]);
        assert_eq!(counts(15), [("b".to_owned(), 1)]);
        assert_eq!(counts(19), []);
    }

    #[test]
    fn a_line_is_due_after_a_while_or_when_more_has_failed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let due = [(9, 2), (9, 3), (10, 2)].map(|(seconds, failed)| is_due((start, 2), at(seconds), failed));
        assert_eq!(due, [false, true, true]);
    }
}
