//! The time from the moment at which AWS reports a target healthy until the condition of its pod's readiness gate is True.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::TryStreamExt as _;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, watcher};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Row;
use super::departures::line;
use super::field::{Binding, Field, NAMESPACE, each};
use super::times::{Quantiles, READS, by_quota};
use crate::lab::cluster::condition_is_true;
use crate::lab::proxy::Faults;
use crate::lab::wait_until;

const HEALTH: &str = "elasticloadbalancing:DescribeTargetHealth";
/// The pods of the case `gate`, and how long after its registration each becomes healthy.
const FEW: [u64; 10] = [3, 5, 7, 9, 11, 13, 15, 20, 30, 40];
/// For how long all pods wait before they become healthy.
const WAIT: Duration = Duration::from_secs(60);
/// The time within which all gates are open, beyond the quota's own wait.
const OPEN_WITHIN: Duration = Duration::from_secs(600);

/// A pod with a gate.
struct Gated {
    binding: Arc<Binding>,
    pod: String,
    address: String,
}

/// The times at which the gates of pods opened, by the name of the pod.
struct Opened {
    times: Arc<Mutex<BTreeMap<String, Instant>>>,
    watch: JoinHandle<Result<(), watcher::Error>>,
}

impl Opened {
    /// Watches the pods with gates.
    fn watch(field: &Field) -> Self {
        let times = Arc::<Mutex<BTreeMap<String, Instant>>>::default();
        let api = field.lab.cluster.api("v1", "Pod", Some(NAMESPACE));
        let known = Arc::clone(&times);
        let events = watcher(api, watcher::Config::default().labels("gate=yes"));
        let watch = tokio::spawn(events.try_for_each(move |event| {
            if let watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) = event {
                note(&known, &pod);
            }
            std::future::ready(Ok(()))
        }));
        Self { times, watch }
    }

    fn of(&self, pod: &str) -> Option<Instant> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).get(pod).copied()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

fn note(times: &Mutex<BTreeMap<String, Instant>>, pod: &DynamicObject) {
    let Ok(object) = serde_json::to_value(pod) else { return };
    let gate = object.pointer("/spec/readinessGates/0/conditionType").and_then(Value::as_str);
    let name = pod.metadata.name.clone().unwrap_or_default();
    if gate.is_some_and(|gate| condition_is_true(&object, gate)) {
        times.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_insert_with(Instant::now);
    }
}

/// Has AWS report these targets as healthy, and all others as being registered.
async fn report_healthy<'a>(field: &Field, gated: impl IntoIterator<Item = &'a Gated>) -> Result<()> {
    let targets = |gated: &Gated| json!([{"id": gated.address, "port": 8080, "state": "healthy"}]);
    let healths: serde_json::Map<_, _> =
        gated.into_iter().map(|gated| (gated.binding.arn.clone(), targets(gated))).collect();
    field.lab.report_health(&Value::Object(healths)).await
}

async fn add(field: &Field, bindings: &[Arc<Binding>]) -> Result<Vec<Gated>> {
    let all = Mutex::new(Vec::new());
    each(bindings, |binding| {
        let all = &all;
        async move {
            let (pod, address) = field.add_pod(&binding, Some(&binding.gate())).await?;
            all.lock().unwrap_or_else(PoisonError::into_inner).push(Gated { binding, pod, address });
            Ok(())
        }
    })
    .await?;
    Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Waits until AWS has all targets.
async fn until_registered(field: &Field, gated: &[Gated]) -> Result<()> {
    wait_until(OPEN_WITHIN, "the targets to be registered", async || {
        let log = field.lab.proxy.log();
        let registered: std::collections::BTreeSet<String> = log
            .iter()
            .filter(|call| call.name.ends_with(":RegisterTargets") && call.done.is_some())
            .flat_map(|call| call.members("Targets.member", "Id").into_iter().flatten())
            .collect();
        Ok(gated.iter().all(|gated| registered.contains(&gated.address)))
    })
    .await
}

fn reads(field: &Field) -> u64 {
    field.lab.proxy.counts().actions.get(HEALTH).copied().unwrap_or_default()
}

async fn begin(field: &Field) -> Result<()> {
    field.settle().await?;
    report_healthy(field, []).await?;
    field.lab.proxy.keep_bodies(true);
    field.lab.proxy.reset();
    Ok(())
}

fn end(field: &Field) {
    field.lab.proxy.set_faults(Faults::default());
    field.lab.proxy.keep_bodies(false);
}

/// A few pods wait, one in a binding, and become healthy at different times.
pub(super) async fn few(field: &Field) -> Result<Row> {
    ensure!(field.bindings.len() >= FEW.len(), "this case takes {} bindings", FEW.len());
    begin(field).await?;
    field.lab.proxy.set_faults(Faults { quota: true, ..Faults::default() });
    let opened = Opened::watch(field);
    let bindings: Vec<_> = field.bindings.iter().rev().take(FEW.len()).cloned().collect();
    let gated = add(field, &bindings).await?;
    until_registered(field, &gated).await?;
    let registered = Instant::now();
    let mut waits = Vec::new();
    let mut healthy: Vec<(&Gated, Instant)> = Vec::new();
    for (gated, seconds) in gated.iter().zip(FEW) {
        tokio::time::sleep_until(registered + Duration::from_secs(seconds)).await;
        healthy.push((gated, Instant::now()));
        report_healthy(field, healthy.iter().map(|(gated, _)| *gated)).await?;
    }
    for (gated, at) in healthy {
        wait_until(OPEN_WITHIN, "a gate to open", async || Ok(opened.of(&gated.pod).is_some())).await?;
        let open = opened.of(&gated.pod).context("an open gate")?;
        waits.push(open.saturating_duration_since(at));
    }
    let (waits, reads) = (Quantiles::of(waits), reads(field));
    end(field);
    let text = format!(
        "{}\n  DescribeTargetHealth {reads} for {} pods that were healthy {FEW:?} s after their registration\n",
        line("open after AWS reports it healthy", &waits),
        FEW.len()
    );
    // The documented bound: the interval of queries.
    let is_soon = waits.max < Duration::from_secs(16);
    Ok(Row { text, json: json!({"open": waits.json(), "reads": reads}), is_soon })
}

/// Each binding has a pod that waits, and all become healthy at once.
pub(super) async fn all(field: &Field) -> Result<Row> {
    begin(field).await?;
    let opened = Opened::watch(field);
    // The registrations have been measured by other cases, so no quota limits them here.
    let gated = add(field, &field.bindings).await?;
    until_registered(field, &gated).await?;
    field.lab.proxy.set_faults(Faults { quota: true, ..Faults::default() });
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = reads(field);
    tokio::time::sleep(WAIT).await;
    let waiting = reads(field) - before;
    report_healthy(field, &gated).await?;
    let (healthy, before) = (Instant::now(), reads(field));
    let quota = by_quota(&vec![Duration::ZERO; gated.len()], READS, 0.0);
    let deadline = quota.last().copied().unwrap_or_default() + OPEN_WITHIN;
    wait_until(deadline, "all gates to open", async || Ok(gated.iter().all(|gated| opened.of(&gated.pod).is_some())))
        .await?;
    let reads = reads(field) - before;
    let throttled = field.lab.proxy.counts().throttled.get(HEALTH).copied().unwrap_or_default();
    end(field);
    let times = gated.iter().filter_map(|gated| opened.of(&gated.pod));
    let (open, quota) =
        (Quantiles::of(times.map(|time| time.saturating_duration_since(healthy))), Quantiles::of(quota));
    let text = format!(
        "{}\n{}\n  DescribeTargetHealth {reads} from then on, {:.1} a second before; {throttled} throttled\n",
        line("open after AWS reports it healthy", &open),
        line("the quota alone would make it wait", &quota),
        f64::from(u32::try_from(waiting)?) / WAIT.as_secs_f64()
    );
    // One query each, at a rate that leaves others a part of the quota.
    let is_soon = open.p99 < quota.p99.mul_f64(1.5) + Duration::from_secs(16);
    let json = json!({
        "open": open.json(), "quota": quota.json(), "reads": reads, "readsInAMinuteBefore": waiting, "throttled": throttled,
    });
    Ok(Row { text, json, is_soon })
}
