//! The stage of a scenario: a namespace of its own, clients that ask all the time, and the change that is measured.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use albatross_fabric::load::{Load, Report};
use anyhow::{Context as _, Result, bail, ensure};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::behind::Behind;
use super::client::{Client, NEW, OLD, SAME, Setting};
use super::controllers::Controllers;
use super::manifests::{App, DRAIN};
use super::published::Published;
use crate::lab::cluster::text;
use crate::lab::proxy::is_read;
use crate::lab::{Lab, wait_until};

/// The most that an object may take to have a load balancer that answers all clients rightly.
const SERVED_WITHIN: Duration = Duration::from_secs(300);
/// The most that a change may take to be everywhere.
const EVERYWHERE_WITHIN: Duration = Duration::from_secs(600);
/// The time for which all is watched before the first change and after each.
const BASE: Duration = Duration::from_secs(2);
/// The time for which a controller that was killed stays away.
pub(super) const AWAY_AFTER_KILL: Duration = Duration::from_secs(10);
/// The time for which the API server is away.
const AWAY: Duration = Duration::from_secs(60);
/// The time that a busy machine may add to what is waited for.
const MARGIN: Duration = Duration::from_secs(2);

/// The most Warnings that are told of a scenario that failed.
const WARNINGS: usize = 3;

/// The settings of all scenarios.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Requests a second, of all clients of a scenario together.
    pub(super) rate: u32,
    pub(super) seed: u64,
    pub(super) strict: bool,
    /// The longest time until a load balancer's node sees a change.
    pub(super) longest_delay: Duration,
    /// For how long clients know a host name that is no longer published.
    pub(super) dns_ttl: Duration,
    /// The factor for the seconds of AWS's settings.
    pub(super) time_scale: f64,
    /// The most that clients wait for an answer.
    pub(super) timeout: Duration,
}

impl Settings {
    /// Returns seconds of AWS's settings as they last here.
    pub(super) fn scaled(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds).mul_f64(self.time_scale)
    }

    /// The time without any event after which none is expected: what was changed last has reached all nodes, what waits
    /// for it to drain has come, and no client still waits for an answer that it asked for before.
    fn calm(&self) -> Duration {
        self.longest_delay + self.scaled(DRAIN).max(self.timeout) + MARGIN
    }

    /// The seconds that a preStop hook has to sleep, so that no node has requests for a pod that ends.
    pub(super) fn pre_stop(&self) -> u64 {
        self.longest_delay.as_secs() + 5
    }
}

/// The disturbance of the controller while the change goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disturbance {
    None,
    /// It is killed at the first write, and started again.
    Kill,
    /// The leader is told to stop at the first write.
    HandOver,
    /// It does not reach the API server.
    ApiServerAway,
}

pub(super) struct Stage {
    pub(super) lab: Arc<Lab>,
    pub(super) controllers: Arc<Controllers>,
    pub(super) namespace: String,
    pub(super) settings: Settings,
    disturbance: Disturbance,
    published: Published,
    run: Mutex<Run>,
}

/// The figures until now.
#[derive(Default)]
struct Run {
    loads: Vec<(Client, Load)>,
    /// The time of the lab's proxy at which the clients began.
    began: Duration,
    state: usize,
    everywhere: Option<Duration>,
}

/// The result of a scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    /// Of all clients.
    pub(super) sum: Report,
    pub(super) clients: Vec<Report>,
    /// The longest time from a change until the last request that was answered as before; where no client's answer changes,
    /// until AWS's resources behind the scenario were as they stayed.
    pub(super) everywhere: Option<Duration>,
    /// The controller's calls that change AWS, and their seconds since the clients began; with those for scenarios that ran
    /// at the same time.
    pub(super) writes: Vec<(f64, String)>,
}

impl Stage {
    /// Makes the namespace.
    pub(super) async fn new(
        lab: Arc<Lab>,
        controllers: Arc<Controllers>,
        namespace: String,
        settings: Settings,
        disturbance: Disturbance,
    ) -> Result<Self> {
        lab.cluster.namespace(&namespace).await?;
        if disturbance == Disturbance::HandOver {
            controllers.elect().await?;
        }
        let published = Published::start(&lab.cluster, &namespace);
        let run = Mutex::default();
        Ok(Self { lab, controllers, namespace, settings, disturbance, published, run })
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Objects.

    pub(super) async fn apply(&self, objects: &[Value]) -> Result<()> {
        let mut objects = objects.to_vec();
        objects.iter_mut().for_each(|object| crate::lab::cluster::put_in_namespace(object, &self.namespace));
        self.lab.cluster.apply(&objects).await
    }

    /// Applies Deployments with their Services, and waits until their pods are ready.
    pub(super) async fn apps(&self, apps: &[App]) -> Result<()> {
        for app in apps {
            self.apply(&app.objects()).await?;
        }
        for app in apps {
            self.rolled_out(app).await?;
        }
        Ok(())
    }

    /// A Deployment whose pods end as well as they can.
    pub(super) fn app(&self, name: &'static str, replicas: usize) -> App {
        App::new(name, replicas, self.settings.pre_stop())
    }

    /// Waits until a Deployment has rolled over.
    pub(super) async fn rolled_out(&self, app: &App) -> Result<()> {
        let what = format!("the Deployment {} to have rolled over", app.name);
        wait_until(EVERYWHERE_WITHIN, &what, async || {
            let found = self.get("apps/v1", "Deployment", app.name).await?;
            let number = |path: &str| found.pointer(path).and_then(Value::as_u64);
            let all = ["/status/replicas", "/status/updatedReplicas", "/status/availableReplicas"].map(number);
            let observed = number("/status/observedGeneration");
            Ok(all == [Some(app.replicas as u64); 3] && observed == number("/metadata/generation"))
        })
        .await
    }

    pub(super) async fn get(&self, api_version: &str, kind: &str, name: &str) -> Result<Value> {
        let found = self.lab.cluster.get(api_version, kind, Some(&self.namespace), name).await?;
        found.with_context(|| format!("there is no {kind} {name}"))
    }

    pub(super) async fn delete(&self, api_version: &str, kind: &str, name: &str) -> Result<()> {
        self.lab.cluster.delete(api_version, kind, Some(&self.namespace), name).await
    }

    pub(super) async fn delete_ingress(&self, name: &str) -> Result<()> {
        self.delete("networking.k8s.io/v1", "Ingress", name).await
    }

    /// Returns true if the targets behind the scenario are just its pods' addresses; pods that end are none.
    pub(super) async fn targets_are_pods(&self) -> Result<bool> {
        let pods = self.pods().await?;
        let stay = pods.iter().filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
        let addresses: BTreeSet<String> = stay.map(|pod| text(pod, "/status/podIP").to_owned()).collect();
        self.behind()?.targets_are(&addresses)
    }

    /// Returns true if there is a Warning about an object of the namespace.
    pub(super) async fn is_warned_of(&self, kind: &str, name: &str) -> Result<bool> {
        let events = self.lab.cluster.list("v1", "Event", Some(&self.namespace)).await?;
        let is_it = |event: &&Value| {
            text(event, "/type") == "Warning"
                && [text(event, "/involvedObject/kind"), text(event, "/involvedObject/name")] == [kind, name]
        };
        Ok(events.iter().any(|event| is_it(&event)))
    }

    /// Returns the messages of the first Warnings of the namespace, which may say why a scenario does not go on.
    pub(super) async fn warnings(&self) -> Result<Vec<String>> {
        let events = self.lab.cluster.list("v1", "Event", Some(&self.namespace)).await?;
        let warnings = events.iter().filter(|event| text(event, "/type") == "Warning");
        let line = |event: &Value| {
            let [kind, name] = ["/involvedObject/kind", "/involvedObject/name"].map(|field| text(event, field));
            format!("{kind}/{name}: {}", text(event, "/message"))
        };
        Ok(warnings.map(line).collect::<BTreeSet<_>>().into_iter().take(WARNINGS).collect())
    }

    pub(super) async fn pods(&self) -> Result<Vec<Value>> {
        self.lab.cluster.list("v1", "Pod", Some(&self.namespace)).await
    }

    /// The condition types that pods of the namespace have to wait for, one for each target group.
    pub(super) async fn gates(&self) -> Result<Vec<String>> {
        let bindings =
            self.lab.cluster.list("elbv2.k8s.aws/v1beta1", "TargetGroupBinding", Some(&self.namespace)).await?;
        ensure!(!bindings.is_empty(), "there is no TargetGroupBinding");
        Ok(bindings
            .iter()
            .map(|binding| format!("target-health.elbv2.k8s.aws/{}", text(binding, "/metadata/name")))
            .collect())
    }

    // Traffic.

    /// Waits until all clients are answered rightly, and lets them ask from here on.
    pub(super) async fn start(&self, clients: Vec<Client>) -> Result<()> {
        wait_until(SERVED_WITHIN, "a load balancer to be published", async || {
            self.controllers.check().await?;
            Ok(clients.iter().all(|client| self.published.is_known(client)))
        })
        .await?;
        self.warm(&clients).await?;
        let loads = self.loads(clients)?;
        {
            let mut run = self.run();
            (run.loads, run.began) = (loads, self.lab.proxy.elapsed());
        }
        tokio::time::sleep(BASE).await;
        Ok(())
    }

    fn loads(&self, clients: Vec<Client>) -> Result<Vec<(Client, Load)>> {
        let share = self.settings.rate.div_ceil(u32::try_from(clients.len().max(1))?);
        let state = self.run().state;
        let offset = self.lab.traffic.as_ref().map_or(0, |traffic| traffic.options.port_offset);
        clients
            .into_iter()
            .zip(self.settings.seed..)
            .map(|(client, seed)| {
                let resolve = self.published.resolver(self.lab.clone(), self.settings.dns_ttl);
                let Settings { strict, timeout, .. } = self.settings;
                let setting = Setting { rate: share, seed, strict, timeout, port_offset: offset, resolve };
                let load = client.load(state, &setting);
                let load = Load::start(load)?;
                Ok((client, load))
            })
            .collect()
    }

    /// Asks, without counting, until every answer has been right for a while.
    async fn warm(&self, clients: &[Client]) -> Result<()> {
        let loads = self.loads(clients.to_vec())?;
        let bad = |load: &Load| load.figures().lost + load.figures().wrong;
        let good = |load: &Load| load.report().labels.values().map(|seen| seen.count).sum::<u64>();
        let mut last: (Vec<u64>, Instant) = (Vec::new(), Instant::now());
        // A request that is lost may have waited for as long as clients do.
        let calm = self.settings.longest_delay + self.settings.timeout + MARGIN;
        wait_until(SERVED_WITHIN, "right answers to all clients", async || {
            self.controllers.check().await?;
            let now: Vec<u64> = loads.iter().map(|(_, load)| bad(load)).collect();
            let all_answered = loads.iter().all(|(_, load)| good(load) > 0);
            if now != last.0 || !all_answered {
                last = (now, Instant::now());
            }
            if last.1.elapsed() >= calm {
                return Ok(true);
            }
            // An error is what is reported when the time is up.
            match loads.iter().find(|(_, load)| bad(load) > 0) {
                Some((client, load)) => {
                    let report = load.report();
                    bail!("{}: {:?}, at first {:?}", client.title(), report.kinds, report.failures.first());
                }
                None => Ok(false),
            }
        })
        .await
    }

    /// Makes a change, which brings all clients to their next state, and waits until it is everywhere and nothing more
    /// happens. A client that has no further state is to notice nothing, but one has to notice the change.
    pub(super) async fn change(&self, act: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        let is_seen = {
            let run = self.run();
            run.loads.iter().any(|(client, _)| client.is_concerned(run.state))
        };
        ensure!(is_seen, "no client would see the change, so nothing would tell that it was made");
        self.change_until(act, async || Ok(true)).await
    }

    /// Makes a change that no client need notice, and waits until it is `done` and nothing more happens. An error of `done`
    /// says what is lacking.
    pub(super) async fn change_until(
        &self,
        act: impl AsyncFnOnce() -> Result<()>,
        done: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let (from, marks) = {
            let run = self.run();
            let from = run.state;
            let mark = |(client, load): &(Client, Load)| {
                let (judge, excuse) = client.judges(from, from + 1);
                load.judge_by(judge, excuse);
                load.elapsed()
            };
            (from, run.loads.iter().map(mark).collect::<Vec<_>>())
        };
        let began = Instant::now();
        if self.disturbance == Disturbance::ApiServerAway {
            self.controllers.cut().await;
        }
        let (acted, disturbed) = futures::join!(act(), self.disturb());
        acted?;
        disturbed?;
        let took = self.until_everywhere(from, &marks, began, done).await?;
        {
            let mut run = self.run();
            run.state = from + 1;
            run.everywhere = run.everywhere.max(Some(took));
            for (client, load) in &run.loads {
                let (judge, excuse) = client.judges(from + 1, from + 1);
                load.judge_by(judge, excuse);
            }
        }
        tokio::time::sleep(BASE).await;
        Ok(())
    }

    /// Returns what AWS has behind the names that the objects of all clients publish now.
    pub(super) fn behind(&self) -> Result<Behind> {
        let traffic = self.lab.traffic.as_ref().context("the lab has no load balancers that answer")?;
        let account = traffic.account.borrow().clone();
        Ok(Behind::new(&account, &self.published.newest()))
    }

    async fn until_everywhere(
        &self,
        from: usize,
        marks: &[Duration],
        began: Instant,
        mut done: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<Duration> {
        let calm = self.settings.calm();
        // What changed since the change began may have changed before this.
        let mut behind = (self.behind()?, Instant::now());
        let mut last_change = began.elapsed();
        wait_until(EVERYWHERE_WITHIN, "the change to be everywhere", async || {
            self.controllers.check().await?;
            let now = self.behind()?;
            if now != behind.0 {
                behind = (now, Instant::now());
                last_change = began.elapsed();
            }
            for ((client, load), mark) in self.run().loads.iter().zip(marks) {
                let (report, elapsed) = (load.report(), load.elapsed());
                let last = |label| report.labels.get(label).map(|seen| seen.last).unwrap_or_default();
                let came = |label| last(label) > *mark;
                let has_come = !client.is_concerned(from)
                    || came(NEW)
                    || !client.has_new_answers(from) && (came(SAME) || came(NEW));
                ensure!(has_come, "{} is answered as before only", client.title());
                let old = last(OLD).max(*mark);
                if elapsed.saturating_sub(old) < calm {
                    return Ok(false);
                }
            }
            Ok(behind.1.elapsed() >= calm && done().await?)
        })
        .await?;
        let run = self.run();
        let concerned = run.loads.iter().zip(marks).filter(|((client, _), _)| client.is_concerned(from));
        let last = concerned.map(|((_, load), mark)| load.report().last_after(OLD, *mark)).max();
        Ok(last.unwrap_or(last_change))
    }

    async fn disturb(&self) -> Result<()> {
        match self.disturbance {
            Disturbance::None => Ok(()),
            Disturbance::Kill => {
                self.first_write().await;
                self.controllers.kill().await;
                tokio::time::sleep(AWAY_AFTER_KILL).await;
                self.controllers.restart().await
            }
            Disturbance::HandOver => {
                self.first_write().await;
                self.controllers.hand_over().await
            }
            Disturbance::ApiServerAway => {
                tokio::time::sleep(AWAY).await;
                self.controllers.mend().await
            }
        }
    }

    /// Waits for a write to AWS, but not for long: the change may need none.
    async fn first_write(&self) {
        let before = self.lab.proxy.counts().writes;
        let grown = wait_until(Duration::from_secs(5), "a write", async || Ok(self.lab.proxy.counts().writes > before));
        drop(grown.await);
    }

    /// Ends all clients, and returns what they found.
    pub(super) async fn end(&self) -> Measured {
        let (loads, began, everywhere) = {
            let mut run = self.run();
            (std::mem::take(&mut run.loads), run.began, run.everywhere)
        };
        let calls = self.lab.proxy.log().into_iter().filter(|call| call.at >= began && !is_read(&call.name));
        let calls = calls.map(|call| ((call.at - began).as_secs_f64(), call.outcome()));
        let mut measured = Measured { everywhere, writes: calls.collect(), ..Measured::default() };
        // All at once: none is to ask while others end.
        measured.clients = join_all(loads.into_iter().map(|(_, load)| load.stop())).await;
        measured.clients.iter().for_each(|report| measured.sum.merge(report));
        measured
    }

    /// Returns what clients found until now.
    pub(super) fn reports(&self) -> Vec<Report> {
        self.run().loads.iter().map(|(_, load)| load.report()).collect()
    }

    /// Deletes what has a load balancer, waits until it is gone, and lets the rest go in its own time.
    pub(super) async fn clean(&self) -> Result<()> {
        let (cluster, namespace) = (&self.lab.cluster, Some(self.namespace.as_str()));
        let kinds = [("networking.k8s.io/v1", "Ingress"), ("v1", "Service")];
        for (version, kind) in kinds {
            for object in cluster.list(version, kind, namespace).await? {
                cluster.delete(version, kind, namespace, text(&object, "/metadata/name")).await?;
            }
        }
        wait_until(SERVED_WITHIN, "the load balancers to be gone", async || {
            for (version, kind) in kinds {
                if !cluster.list(version, kind, namespace).await?.is_empty() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
        cluster.delete("v1", "Namespace", None, &self.namespace).await
    }

    /// Makes all nodes take pods again.
    pub(super) async fn uncordon(&self) -> Result<()> {
        for node in &self.lab.world.nodes {
            let patch = json!({"spec": {"unschedulable": null, "taints": null}});
            self.lab.cluster.merge("v1", "Node", None, &node.name, &patch).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(longest_delay: Duration, time_scale: f64, timeout: Duration) -> Settings {
        Settings { rate: 200, seed: 1, strict: false, longest_delay, dns_ttl: Duration::ZERO, time_scale, timeout }
    }

    #[test]
    fn a_pre_stop_hook_outlasts_the_longest_delay() {
        let seconds = Duration::from_secs;
        let as_aws = settings(seconds(10), 1.0, seconds(5));
        assert_eq!((as_aws.pre_stop(), as_aws.calm()), (15, seconds(17)));
    }

    #[test]
    fn it_is_calm_once_nothing_drains_and_no_client_waits() {
        let millis = Duration::from_millis;
        let calm = |time_scale, timeout| settings(millis(1_500), time_scale, millis(timeout)).calm();
        assert_eq!([calm(1.0, 3_000), calm(0.1, 3_000), calm(0.1, 400)], [8_500, 6_500, 4_000].map(millis));
    }
}
