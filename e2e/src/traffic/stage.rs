//! The stage of a scenario: a namespace of its own, clients that ask all the time, and the change that is measured.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use albatross_fabric::load::{Load, Report};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::client::{Client, NEW, OLD, SAME, Setting};
use super::controllers::Controllers;
use super::manifests::{App, DRAIN};
use crate::lab::cluster::{Cluster, text};
use crate::lab::{Lab, wait_until};

/// The most that an object may take to have a load balancer that answers all clients rightly.
const SERVED_WITHIN: Duration = Duration::from_secs(300);
/// The most that a change may take to be everywhere.
const EVERYWHERE_WITHIN: Duration = Duration::from_secs(600);
/// The time for which all is watched before the first change and after each.
const BASE: Duration = Duration::from_secs(2);
/// The time for which a controller that was killed stays away.
const AWAY_AFTER_KILL: Duration = Duration::from_secs(10);
/// The time for which the API server is away.
const AWAY: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

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
    /// True if other scenarios change things at the same time.
    pub(super) is_shared: bool,
}

impl Settings {
    /// The time without any event after which none is expected: what was changed last has reached all nodes, and what
    /// waits for it to drain has come.
    fn calm(&self) -> Duration {
        self.longest_delay + Duration::from_secs(DRAIN + 2)
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
    state: usize,
    everywhere: Option<Duration>,
}

/// The result of a scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    /// Of all clients.
    pub(super) sum: Report,
    pub(super) clients: Vec<Report>,
    /// The longest time from a change until the last answer as before; where no client's answer changes, until the last
    /// write to AWS.
    pub(super) everywhere: Option<Duration>,
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
        for client in &clients {
            self.published.follow(client);
        }
        wait_until(SERVED_WITHIN, "a load balancer to be published", async || {
            self.controllers.check().await?;
            Ok(clients.iter().all(|client| self.published.is_known(client)))
        })
        .await?;
        self.warm(&clients).await?;
        let loads = self.loads(clients)?;
        self.run().loads = loads;
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
                let strict = self.settings.strict;
                let load = client.load(state, &Setting { rate: share, seed, strict, port_offset: offset, resolve });
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
        let calm = self.settings.longest_delay + Duration::from_secs(1);
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
    /// happens. A client that has no further state is to notice nothing.
    pub(super) async fn change(&self, act: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
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
        let took = self.until_everywhere(from, &marks, began).await?;
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

    async fn until_everywhere(&self, from: usize, marks: &[Duration], began: Instant) -> Result<Duration> {
        let calm = self.settings.calm();
        let mut writes = (self.lab.proxy.counts().writes, Instant::now());
        // What was written since the change began may have been written before this.
        let mut last_write = began.elapsed();
        wait_until(EVERYWHERE_WITHIN, "the change to be everywhere", async || {
            self.controllers.check().await?;
            let now = self.lab.proxy.counts().writes;
            if now != writes.0 {
                writes = (now, Instant::now());
                last_write = began.elapsed();
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
            // Others write too where several scenarios run.
            Ok(self.settings.is_shared || writes.1.elapsed() >= calm)
        })
        .await?;
        let run = self.run();
        let concerned = run.loads.iter().zip(marks).filter(|((client, _), _)| client.is_concerned(from));
        let last = concerned.map(|((_, load), mark)| load.report().last_after(OLD, *mark)).max();
        Ok(last.unwrap_or(last_write))
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
        let (loads, everywhere) = {
            let mut run = self.run();
            (std::mem::take(&mut run.loads), run.everywhere)
        };
        let mut measured = Measured { everywhere, ..Measured::default() };
        for (_, load) in loads {
            let report = load.stop().await;
            measured.sum.merge(&report);
            measured.clients.push(report);
        }
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

/// The host names that a namespace's objects publish, as DNS would tell them to clients.
struct Published {
    names: Names,
    task: JoinHandle<()>,
}

/// By kind and name of the object, what it published and since when; the last one is the newest.
type Names = Arc<Mutex<BTreeMap<String, Vec<(Instant, String)>>>>;

/// The most former names that are known.
const FORMER: usize = 8;

impl Drop for Published {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Published {
    fn start(cluster: &Cluster, namespace: &str) -> Self {
        let names = Names::default();
        let task = tokio::spawn(follow(names.clone(), cluster.clone(), namespace.to_owned()));
        Self { names, task }
    }

    fn key(client: &Client) -> String {
        format!("{}/{}", client.of.0, client.of.1)
    }

    fn follow(&self, client: &Client) {
        locked(&self.names).entry(Self::key(client)).or_default();
    }

    fn is_known(&self, client: &Client) -> bool {
        locked(&self.names).get(&Self::key(client)).is_some_and(|names| !names.is_empty())
    }

    /// Resolves `Kind/name` to the addresses that a client gets that may know the name of up to `ttl` ago.
    fn resolver(&self, lab: Arc<Lab>, ttl: Duration) -> albatross_fabric::load::Resolve {
        let names = self.names.clone();
        Arc::new(move |key| {
            let now = Instant::now();
            let since = now.checked_sub(ttl.mul_f64(fastrand::f64())).unwrap_or(now);
            let name = locked(&names).get(key).and_then(|names| known(names, since).map(str::to_owned));
            let traffic = lab.traffic.as_ref();
            let addresses: Option<Vec<Ipv4Addr>> = name.and_then(|name| Some(traffic?.fabric.addresses(&name)));
            addresses.unwrap_or_default()
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the name that a client knows that asked at this time: the first one, if it was too early for any.
fn known(names: &[(Instant, String)], at: Instant) -> Option<&str> {
    let then = names.iter().rev().find(|(since, _)| *since <= at);
    then.or(names.first()).map(|(_, name)| name.as_str())
}

async fn follow(names: Names, cluster: Cluster, namespace: String) {
    loop {
        let keys: Vec<String> = locked(&names).keys().cloned().collect();
        for key in keys {
            let Some((kind, name)) = key.split_once('/') else { continue };
            let version = if kind == "Ingress" { "networking.k8s.io/v1" } else { "v1" };
            // An object that cannot be read now is asked for again.
            let Ok(Some(object)) = cluster.get(version, kind, Some(&namespace), name).await else { continue };
            let host = text(&object, "/status/loadBalancer/ingress/0/hostname");
            let mut names = locked(&names);
            let known = names.entry(key).or_default();
            if !host.is_empty() && known.last().is_none_or(|(_, last)| last != host) {
                known.push((Instant::now(), host.to_owned()));
                let former = known.len().saturating_sub(FORMER);
                known.drain(..former);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_knows_the_name_of_the_time_at_which_it_asked() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let names = [(at(10), "old".to_owned()), (at(20), "new".to_owned())];
        let found = [5, 10, 19, 20, 30].map(|seconds| known(&names, at(seconds)));
        assert_eq!(found, [Some("old"), Some("old"), Some("old"), Some("new"), Some("new")]);
        assert_eq!(known(&[], start), None);
    }

    #[test]
    fn a_pre_stop_hook_outlasts_the_longest_delay() {
        let settings = Settings {
            rate: 200,
            seed: 1,
            strict: false,
            longest_delay: Duration::from_secs(10),
            dns_ttl: Duration::ZERO,
            is_shared: false,
        };
        assert_eq!((settings.pre_stop(), settings.calm()), (15, Duration::from_secs(17)));
    }
}
