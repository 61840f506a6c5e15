//! The host names that objects publish, as DNS tells them to clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, pin_mut, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, ResourceExt};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::client::{Client, FRONT};
use crate::lab::Lab;
use crate::lab::cluster::Cluster;

/// The host names that a namespace's objects publish, as DNS would tell them to clients.
pub(super) struct Published {
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
    pub(super) fn start(cluster: &Cluster, namespace: &str) -> Self {
        let names = Names::default();
        let task = tokio::spawn(follow(names.clone(), cluster.clone(), namespace.to_owned()));
        Self { names, task }
    }

    fn key(client: &Client) -> String {
        format!("{}/{}", client.of.0, client.of.1)
    }

    pub(super) fn is_known(&self, client: &Client) -> bool {
        locked(&self.names).get(&Self::key(client)).is_some_and(|names| !names.is_empty())
    }

    /// Returns the newest name of each object.
    pub(super) fn newest(&self) -> BTreeSet<String> {
        let names = locked(&self.names);
        names.values().filter_map(|names| names.last()).map(|(_, name)| name.to_ascii_lowercase()).collect()
    }

    /// Resolves `Kind/name` to the addresses that a client gets that may know the name of up to `ttl` ago.
    pub(super) fn resolver(&self, lab: Arc<Lab>, ttl: Duration) -> albatross_fabric::load::Resolve {
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

/// Follows all Ingresses and Services of a namespace.
async fn follow(names: Names, cluster: Cluster, namespace: String) {
    let ingresses = watch(Api::<Ingress>::namespaced(cluster.client.clone(), &namespace), watcher::Config::default());
    let services = watch(Api::<Service>::namespaced(cluster.client.clone(), &namespace), watcher::Config::default());
    let of_ingresses = ingresses.default_backoff().map(|event| event.map(|event| told(event, &INGRESS, of_ingress)));
    let of_services = services.default_backoff().map(|event| event.map(|event| told(event, &SERVICE, of_service)));
    let events = stream::select(of_ingresses, of_services);
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(told) => told.into_iter().for_each(|(key, host)| note(&names, key, host)),
            Err(error) => tracing::debug!("published names: {error:#}"),
        }
    }
}

/// The kinds under which the host names of an Ingress are known, in their order.
const INGRESS: [&str; 2] = ["Ingress", FRONT];
const SERVICE: [&str; 1] = ["Service"];

fn of_ingress(ingress: &Ingress) -> Option<Vec<&String>> {
    let entries = ingress.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    Some(entries.iter().filter_map(|entry| entry.hostname.as_ref()).collect())
}

fn of_service(service: &Service) -> Option<Vec<&String>> {
    let entries = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    Some(entries.iter().filter_map(|entry| entry.hostname.as_ref()).collect())
}

/// Returns the object of an event by kind and name, with each host name that it publishes.
fn told<K: ResourceExt>(
    event: Event<K>,
    kinds: &[&str],
    hosts: fn(&K) -> Option<Vec<&String>>,
) -> Vec<(String, String)> {
    match event {
        Event::Apply(object) | Event::InitApply(object) => {
            let hosts = hosts(&object).unwrap_or_default();
            let key = |kind: &&str| format!("{kind}/{}", object.name_any());
            kinds.iter().map(key).zip(hosts.into_iter().cloned()).collect()
        }
        Event::Delete(_) | Event::Init | Event::InitDone => Vec::new(),
    }
}

fn note(names: &Names, key: String, host: String) {
    let mut names = locked(names);
    let known = names.entry(key).or_default();
    if known.last().is_none_or(|(_, last)| *last != host) {
        known.push((Instant::now(), host));
        let former = known.len().saturating_sub(FORMER);
        known.drain(..former);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_names_are_kept_and_the_same_one_counts_once() {
        let names = Names::default();
        for number in 0..10 {
            note(&names, "Ingress/web".to_owned(), format!("{}.elb", number / 2));
        }
        let of_web = locked(&names)["Ingress/web"].iter().map(|(_, name)| name.clone()).collect::<Vec<_>>();
        assert_eq!(of_web, ["0.elb", "1.elb", "2.elb", "3.elb", "4.elb"]);
        (10..40).for_each(|number| note(&names, "Ingress/web".to_owned(), number.to_string()));
        assert_eq!(locked(&names)["Ingress/web"].len(), FORMER);
    }

    #[test]
    fn a_client_knows_the_name_of_the_time_at_which_it_asked() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let names = [(at(10), "old".to_owned()), (at(20), "new".to_owned())];
        let found = [5, 10, 19, 20, 30].map(|seconds| known(&names, at(seconds)));
        assert_eq!(found, [Some("old"), Some("old"), Some("old"), Some("new"), Some("new")]);
        assert_eq!(known(&[], start), None);
    }
}
