//! Watches: from the API server's events to the snapshot, and from changes of the snapshot to the queue.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard},
    time::Duration,
};

use futures::StreamExt;
use kube::{
    Api, Resource,
    runtime::{
        utils::Backoff,
        watcher,
        watcher::{DefaultBackoff, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::Instant};

use super::{kubernetes::describe, watch_activity::WatchActivity};
use crate::controller::runtime::queue::Queue;
use albatross_core::dependents::{Dependents, Key};
use albatross_core::snapshot::{Change, Snapshot};

/// The kinds that have been listed once. Nothing is decided before all have been.
#[derive(Debug)]
pub struct Synced {
    /// Kinds that are still awaited, each with the last error of its watch.
    awaited: Mutex<BTreeMap<&'static str, Option<String>>>,
    /// Kinds that the API server does not allow the controller to list, and without which work continues, with its reason.
    without: Mutex<BTreeMap<&'static str, String>>,
    complete: watch::Sender<bool>,
    /// When the watches were last answered.
    pub(crate) activity: WatchActivity,
}

/// Kinds without which work continues where they do not exist or may not be read: only IngressClasses with parameters need
/// them.
const OPTIONAL: [&str; 2] = ["IngressClassParams", "Namespace"];

impl Synced {
    /// Awaits these kinds.
    #[must_use]
    pub fn new(kinds: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            awaited: Mutex::new(kinds.into_iter().map(|kind| (kind, None)).collect()),
            without: Mutex::default(),
            complete: watch::channel(false).0,
            activity: WatchActivity::default(),
        }
    }

    /// Counts the answers that this client gets.
    #[must_use]
    pub fn with_activity(self, activity: WatchActivity) -> Self {
        Self { activity, ..self }
    }

    /// Writes to the log which watches have stalled, for ever.
    pub async fn report_stalled(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for line in self.activity.to_report() {
                tracing::warn!("{line}; look at the API server's load and at the network between");
            }
        }
    }

    fn listed(&self, kind: &'static str) {
        self.without.lock().unwrap_or_else(PoisonError::into_inner).remove(kind);
        self.no_longer_awaited(kind);
    }

    /// The API server refuses a kind without which work continues. Whether that is news: one that was listed before is kept
    /// as it was then.
    fn refused(&self, kind: &'static str, error: &str) -> bool {
        let mut without = self.without.lock().unwrap_or_else(PoisonError::into_inner);
        let awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner).contains_key(kind);
        let news = (awaited || without.contains_key(kind)) && without.get(kind).is_none_or(|last| last != error);
        if news {
            without.insert(kind, error.to_owned());
            self.no_longer_awaited(kind);
        }
        news
    }

    fn awaits(&self, kind: &'static str) -> bool {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).contains_key(kind)
    }

    fn no_longer_awaited(&self, kind: &'static str) {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.remove(kind);
        if awaited.is_empty() {
            self.complete.send_replace(true);
        }
    }

    fn failed(&self, kind: &'static str, error: &str) {
        self.activity.failed(kind, error);
        if let Some(last) = self.awaited.lock().unwrap_or_else(PoisonError::into_inner).get_mut(kind) {
            *last = Some(error.to_owned());
        }
    }

    /// Returns when every kind has been listed.
    pub async fn wait(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// Returns the kinds without which work continues, for `/readyz`. A stalled watch is among them and does not end readiness: the webhooks
    /// would end with it, and a restart would not bring the API server back.
    #[must_use]
    pub fn without(&self) -> Vec<String> {
        let without = self.without.lock().unwrap_or_else(PoisonError::into_inner);
        let kinds = without.iter().map(|(kind, error)| format!("working without {kind}: {error}"));
        let refused = |line: &String| without.keys().any(|kind| line.starts_with(&format!("the watch of {kind} has")));
        kinds.chain(self.activity.stalled().into_iter().filter(|line| !refused(line))).collect()
    }

    /// Returns the kinds that are still awaited, for `/readyz`.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        awaited
            .iter()
            .map(|(kind, error)| match error {
                None => format!("{kind}: not listed yet"),
                Some(error) => format!("{kind}: not listed yet; {error}"),
            })
            .collect()
    }
}

/// The interval at which watches are checked for stalls.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Objects that one answer of a list holds.
const PAGE: u32 = 200;
/// The longest pause before a watch is tried again. While the API server is away pods end unseen, and it takes one small
/// request a kind to learn that it is back. A kind that it refuses is asked for with the longer pauses of the library.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The interval at which an error of a watch that does not change is logged.
const REPEAT_AFTER: Duration = Duration::from_secs(300);

/// Watches one kind for ever. An error is logged, again when it changes or lasts, and the watch tried again with growing pauses.
pub(crate) async fn watch_kind<W, T>(
    kind: &'static str,
    api: Api<W>,
    snapshot: Arc<RwLock<Snapshot>>,
    queue: Arc<Queue>,
    synced: Arc<Synced>,
) where
    W: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Dependents + From<W>,
{
    // A page is held in memory as text and as objects at once, so a small one is most of what a large cluster costs.
    let stream = watcher(api, watcher::Config::default().page_size(PAGE));
    let mut stream = std::pin::pin!(stream);
    let (mut pauses, mut refusals) = (DefaultBackoff::default(), DefaultBackoff::default());
    let mut listed: Vec<T> = Vec::new();
    let mut last_error = None;
    while let Some(event) = stream.next().await {
        let first_list = matches!(event, Ok(Event::InitDone)) && synced.awaits(kind);
        let keys = match event {
            Ok(event) => {
                let write = || snapshot.write().unwrap_or_else(PoisonError::into_inner);
                // The start of a list is only an attempt, which says nothing about the error of the last one.
                match event {
                    Event::Init => {
                        listed.clear();
                        continue;
                    }
                    Event::InitApply(object) => {
                        listed.push(T::from(object));
                        continue;
                    }
                    Event::InitDone => {
                        let listed = std::mem::take(&mut listed);
                        let mut snapshot = write();
                        snapshot.unreadable.remove(kind);
                        let changes = snapshot.replace(listed);
                        keys_of(&changes, snapshot)
                    }
                    Event::Apply(object) => {
                        let (object, mut snapshot) = (T::from(object), write());
                        let changes: Vec<_> = snapshot.apply(object).into_iter().collect();
                        keys_of(&changes, snapshot)
                    }
                    Event::Delete(object) => {
                        let (object, mut snapshot) = (T::from(object), write());
                        let changes: Vec<Change<T>> = snapshot.remove(object.name()).into_iter().collect();
                        keys_of(&changes, snapshot)
                    }
                }
            }
            Err(error) => {
                let refused = is_refused(&error);
                let error = explain(kind, &error);
                synced.failed(kind, &error);
                if refused && OPTIONAL.contains(&kind) && synced.refused(kind, &error) {
                    snapshot.write().unwrap_or_else(PoisonError::into_inner).unreadable.insert(kind, error.clone());
                }
                // A watch that works again and has nothing to tell does not say so here.
                let is_known = |(last, at): &(String, Instant)| *last == error && at.elapsed() < REPEAT_AFTER;
                if !last_error.as_ref().is_some_and(is_known) {
                    tracing::warn!(kind, "{error}");
                    last_error = Some((error, Instant::now()));
                }
                // An API server that begins to answer may refuse at first what it does not know yet.
                let pause = match refused {
                    true => refusals.next(),
                    false => pauses.next().map(|pause| pause.min(LONGEST_PAUSE)),
                };
                synced.activity.before_next_try(pause.unwrap_or(LONGEST_PAUSE)).await;
                continue;
            }
        };
        pauses.reset();
        refusals.reset();
        if last_error.take().is_some() {
            tracing::info!(kind, "the watch works again");
        }
        for (namespace, keys) in keys {
            if !keys.departures.is_empty() {
                queue.departed(&namespace, keys.departures);
            }
            // The objects of the first lists exist, and may have for long; later ones are edits.
            match first_list {
                true => queue.resync(keys.others),
                false => queue.changed(&namespace, keys.others),
            }
        }
        synced.listed(kind);
    }
}

/// The keys that the changes of one namespace affect.
#[derive(Debug, Default, PartialEq, Eq)]
struct AffectedKeys {
    departures: BTreeSet<Key>,
    others: BTreeSet<Key>,
}

/// Returns the keys that changes affect, by the namespaces of the changed objects. No other watch changes the snapshot in
/// between: of two changes that have a target depart only together, the second one is to notice it.
fn keys_of<T: Dependents>(
    changes: &[Change<T>],
    snapshot: RwLockWriteGuard<'_, Snapshot>,
) -> BTreeMap<String, AffectedKeys> {
    let snapshot = RwLockWriteGuard::downgrade(snapshot);
    let mut affected: BTreeMap<String, AffectedKeys> = BTreeMap::new();
    for change in changes {
        let keys = affected.entry(change.name.namespace.clone()).or_default();
        keys.departures.extend(T::departures(change, &snapshot));
        keys.others.extend(T::keys(change, &snapshot));
    }
    // A key that is queued a second time while it runs for the first would run twice.
    affected.values_mut().for_each(|keys| keys.others.retain(|key| !keys.departures.contains(key)));
    affected
}

/// Returns true if the kind does not exist or may not be read, which does not change by trying again.
fn is_refused(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => matches!(status.code, 403 | 404),
        _ => false,
    }
}

fn explain(kind: &str, error: &watcher::Error) -> String {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => cause_and_fix(kind, Some((status.code, &status.message)), ""),
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
            cause_and_fix(kind, None, &describe(error))
        }
        NoResourceVersion => cause_and_fix(kind, None, &error.to_string()),
    }
}

fn cause_and_fix(kind: &str, status: Option<(u16, &str)>, otherwise: &str) -> String {
    match status {
        Some((404, _)) if matches!(kind, "TargetGroupBinding" | "IngressClassParams") => {
            let plural = if kind == "TargetGroupBinding" { "targetgroupbindings" } else { "ingressclassparams" };
            format!(
                "the CustomResourceDefinition {plural}.elbv2.k8s.aws is not installed; \
                 install it with `kubectl apply -k config/crd` (or `albatross crds | kubectl apply --server-side -f -`)"
            )
        }
        Some((403, message)) => {
            format!(
                "not allowed to list and watch {kind}: {message}; give the ServiceAccount the ClusterRole of config/rbac"
            )
        }
        Some((_, message)) => format!("cannot watch {kind}: {message}"),
        None => format!("cannot watch {kind}: {otherwise}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use albatross_core::snapshot::Pod;

    #[test]
    fn a_watch_that_fails_says_what_to_do() {
        insta::assert_snapshot!(
            cause_and_fix("TargetGroupBinding", Some((404, "page not found")), ""),
            @"the CustomResourceDefinition targetgroupbindings.elbv2.k8s.aws is not installed; install it with `kubectl apply -k config/crd` (or `albatross crds | kubectl apply --server-side -f -`)"
        );
        insta::assert_snapshot!(
            cause_and_fix("Pod", Some((403, "pods is forbidden")), ""),
            @"not allowed to list and watch Pod: pods is forbidden; give the ServiceAccount the ClusterRole of config/rbac"
        );
        insta::assert_snapshot!(cause_and_fix("Pod", None, "connection refused"), @"cannot watch Pod: connection refused");
    }

    #[test]
    fn what_departs_is_queued_once() {
        let snapshot = RwLock::new(albatross_core::testing::snapshot(
            "
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: cart}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: TargetGroupBinding
metadata: {namespace: shop, name: tgb}
spec: {targetGroupARN: arn:one, targetType: ip, serviceRef: {name: cart, port: 80}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: shop, name: cart-1, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: 10.0.0.1}}
",
        ));
        let affected = |pod: Pod| {
            let mut snapshot = snapshot.write().unwrap();
            let changes = Vec::from_iter(snapshot.apply(pod));
            keys_of(&changes, snapshot)
        };
        let pod = albatross_core::testing::pod("10.0.0.1");
        let binding = || BTreeSet::from([Key::Binding(albatross_core::testing::name("tgb"))]);
        let keys = |departures, others| BTreeMap::from([("shop".to_owned(), AffectedKeys { departures, others })]);
        assert_eq!(affected(pod.clone()), keys(BTreeSet::new(), binding()));
        assert_eq!(affected(Pod { deleting: true, ..pod }), keys(binding(), BTreeSet::new()));
    }

    #[test]
    fn readiness_says_which_kinds_are_awaited_and_why() {
        let synced = Synced::new(["Ingress", "Service"]);
        synced.failed("Service", "cannot watch Service: no");
        assert_eq!(synced.reasons(), ["Ingress: not listed yet", "Service: not listed yet; cannot watch Service: no"]);
        synced.listed("Ingress");
        synced.listed("Service");
        assert_eq!(synced.reasons(), Vec::<String>::new());
    }

    #[test]
    fn a_kind_that_one_can_do_without_holds_nothing_back() {
        let synced = Synced::new(["Ingress", "IngressClassParams"]);
        let complete = synced.complete.subscribe();
        assert!(synced.refused("IngressClassParams", "not installed"));
        assert!(!synced.refused("IngressClassParams", "not installed"), "told once");
        assert_eq!(synced.reasons(), ["Ingress: not listed yet"]);
        synced.listed("Ingress");
        assert!(*complete.borrow());
        assert_eq!(synced.without(), ["working without IngressClassParams: not installed"]);
        synced.listed("IngressClassParams");
        assert_eq!(synced.without(), Vec::<String>::new());
        assert!(!synced.refused("IngressClassParams", "forbidden"), "what was listed is kept");
    }
}
