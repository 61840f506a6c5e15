//! The time from the end of a pod until its target is deregistered.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::time::Instant;

use super::field::{Binding, Field, each, until_queued};
use super::times::{Quantiles, REGISTRATIONS, by_quota};
use super::{Arguments, Case, Row};
use crate::lab::proxy::{Call, Faults};
use crate::lab::wait_until;

const DEREGISTER: &str = "elasticloadbalancing:DeregisterTargets";
const REGISTER: &str = "elasticloadbalancing:RegisterTargets";
/// The time that a call may take beyond the quota's own wait.
const SOON: Duration = Duration::from_secs(1);
/// The time for the last calls of a case, beyond the quota's own wait.
const REST: Duration = Duration::from_secs(120);

/// The order in which bindings lose a pod, each once.
pub(super) struct Order(Vec<Arc<Binding>>);

impl Order {
    /// A random order, the same in each run.
    pub(super) fn new(field: &Field) -> Self {
        let mut bindings = field.bindings.clone();
        fastrand::Rng::with_seed(1).shuffle(&mut bindings);
        Self(bindings)
    }

    fn next(&mut self) -> Result<Arc<Binding>> {
        self.0.pop().context("each binding has lost a pod: choose fewer --ends or more --bindings")
    }
}

/// A pod that has ended.
struct End {
    address: String,
    at: Duration,
}

/// The calls for a pod that has ended, from its end on.
struct Answer {
    /// Until the call reached the proxy.
    sent: Duration,
    /// Until it reached the proxy and was not throttled.
    accepted: Duration,
}

/// Gives the controller a backlog, ends pods, and measures.
pub(super) async fn measure(field: &Field, case: Case, order: &mut Order, arguments: &Arguments) -> Result<Row> {
    field.settle().await?;
    let proxy = &field.lab.proxy;
    proxy.keep_bodies(true);
    proxy.reset();
    proxy.set_faults(Faults { quota: true, ..Faults::default() });
    let (ended, queued) = (AtomicBool::new(false), AtomicUsize::new(0));
    let watch = async {
        while !ended.load(Ordering::SeqCst) {
            queued.fetch_max(field.queued().await, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    };
    let work = async {
        let ends = end_pods(field, case, order, arguments).await;
        let left = field.queued().await;
        ended.store(true, Ordering::SeqCst);
        let ends = ends?;
        let waits = quota_waits(case, &ends);
        let longest = waits.iter().max().copied().unwrap_or_default();
        wait_until(longest + REST, "all targets to be deregistered", async || Ok(answers(field, &ends).is_some()))
            .await?;
        anyhow::Ok((ends, waits, left))
    };
    let (work, load, watch) = tokio::join!(work, load(field, case, &ended), watch);
    ended.store(true, Ordering::SeqCst);
    load.and(watch)?;
    let (ends, waits, left) = work?;
    let answers = answers(field, &ends).context("a call is missing")?;
    let row = row(field, &answers, &waits, (queued.into_inner(), left));
    proxy.set_faults(Faults::default());
    proxy.keep_bodies(false);
    Ok(row)
}

/// Makes a backlog until `ended`.
async fn load(field: &Field, case: Case, ended: &AtomicBool) -> Result<()> {
    match case {
        Case::Edit => {
            let mut round = 0;
            while !ended.load(Ordering::SeqCst) {
                each(&field.bindings, |binding| async move {
                    if ended.load(Ordering::SeqCst) { Ok(()) } else { field.edit(&binding, round).await }
                })
                .await?;
                round += 1;
            }
            Ok(())
        }
        Case::Rollout => {
            each(&field.bindings, |binding| async move { field.add_pod(&binding, None).await.map(drop) }).await
        }
        Case::Resync => {
            field.stop_controller().await?;
            each(&field.bindings, |binding| async move { field.forget(&binding).await }).await?;
            field.start_controller().await
        }
        Case::Quiet | Case::Burst | Case::Gate | Case::Gates => Ok(()),
    }
}

/// Ends pods, once there is a backlog.
async fn end_pods(field: &Field, case: Case, order: &mut Order, arguments: &Arguments) -> Result<Vec<End>> {
    if matches!(case, Case::Rollout | Case::Resync) {
        until_queued(field, field.bindings.len() / 2).await?;
    }
    let mut ends = Vec::new();
    if case == Case::Burst {
        let bindings = (0..arguments.burst).map(|_| order.next()).collect::<Result<Vec<_>>>()?;
        let ended = std::sync::Mutex::new(Vec::new());
        each(&bindings, |binding| {
            let ended = &ended;
            async move {
                let (address, at) = field.end_pod(&binding).await?;
                ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(End { address, at });
                Ok(())
            }
        })
        .await?;
        ends = ended.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        ends.sort_by_key(|end| end.at);
        return Ok(ends);
    }
    let (began, pause) = (Instant::now(), Duration::from_secs_f64(1.0 / arguments.rate));
    for end in 0..arguments.ends {
        tokio::time::sleep_until(began + pause * u32::from(end)).await;
        let (address, at) = field.end_pod(&*order.next()?).await?;
        ends.push(End { address, at });
    }
    Ok(ends)
}

/// Returns the waits that the quota alone imposes. Registrations leave it no token.
fn quota_waits(case: Case, ends: &[End]) -> Vec<Duration> {
    let tokens = if case == Case::Rollout { 0.0 } else { REGISTRATIONS.0 };
    let first = ends.first().map_or(Duration::ZERO, |end| end.at);
    let begun: Vec<Duration> = ends.iter().map(|end| end.at - first).collect();
    by_quota(&begun, REGISTRATIONS, tokens)
}

/// Returns the calls for each end; `None` until AWS has accepted all.
fn answers(field: &Field, ends: &[End]) -> Option<Vec<Answer>> {
    let log = field.lab.proxy.log();
    let mut calls: BTreeMap<String, Vec<&Call>> = BTreeMap::new();
    for call in log.iter().filter(|call| call.name == DEREGISTER) {
        for address in call.members("Targets.member", "Id").into_iter().flatten() {
            calls.entry(address).or_default().push(call);
        }
    }
    ends.iter()
        .map(|end| {
            let calls = calls.get(&end.address)?;
            let sent = calls.first()?.at.saturating_sub(end.at);
            let accepted = calls.iter().find(|call| call.disturbed.is_none())?.at.saturating_sub(end.at);
            Some(Answer { sent, accepted })
        })
        .collect()
}

fn row(field: &Field, answers: &[Answer], waits: &[Duration], (queued, left): (usize, usize)) -> Row {
    let accepted = Quantiles::of(answers.iter().map(|answer| answer.accepted));
    let sent = Quantiles::of(answers.iter().map(|answer| answer.sent));
    let quota = Quantiles::of(waits.iter().copied());
    let beyond = Quantiles::of(answers.iter().zip(waits).map(|(answer, wait)| answer.accepted.saturating_sub(*wait)));
    let log = field.lab.proxy.log();
    let aws = Quantiles::of(log.iter().filter_map(|call| Some(call.done?.saturating_sub(call.at))));
    let counts = field.lab.proxy.counts();
    let count = |map: &BTreeMap<String, u64>, name: &str| map.get(name).copied().unwrap_or_default();
    let [made, throttled] =
        [&counts.actions, &counts.throttled].map(|map| [DEREGISTER, REGISTER].map(|n| count(map, n)));
    let mut text = String::new();
    for (what, times) in [
        ("accepted by AWS after", accepted),
        ("first sent after", sent),
        ("the quota alone would make it wait", quota),
        ("accepted later than that by", beyond),
        ("AWS calls in the emulator", aws),
    ] {
        let _ = writeln!(text, "{}", line(what, &times));
    }
    let _ = writeln!(
        text,
        "  DeregisterTargets {} ({} throttled), RegisterTargets {} ({} throttled); queued keys: most {queued}, {left} at the last end",
        made[0], throttled[0], made[1], throttled[1]
    );
    let json = json!({
        "accepted": accepted.json(), "sent": sent.json(), "quota": quota.json(), "beyondQuota": beyond.json(),
        "calls": counts.actions, "throttled": counts.throttled, "queuedMost": queued, "queuedAtLastEnd": left,
    });
    Row { text, json, is_soon: beyond.p99 < SOON }
}

/// A line with quantiles.
pub(super) fn line(what: &str, times: &Quantiles) -> String {
    let [p50, p90, p99, max] = [times.p50, times.p90, times.p99, times.max].map(|time| time.as_secs_f64());
    format!("  {what:<36} p50 {p50:>8.3}  p90 {p90:>8.3}  p99 {p99:>8.3}  max {max:>8.3} s  ({} times)", times.count)
}
