//! Secrets of identity providers, read one by one by their names, as far as RBAC allows it. Secrets in use are watched one
//! by one, so that a change of one queues the stacks that use it. Their content is held in memory here and nowhere else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use tokio::task::JoinHandle;

use super::kubernetes::describe;
use crate::controller::cluster::deadline::with_deadline;
use crate::controller::runtime::queue::Queue;
use albatross_core::dependents::Key;
use albatross_core::{
    api::kubernetes as wire,
    facts::{
        Fact,
        secrets::{RequiredLabel, UnusableSecret, read},
    },
    model::{ObjectName, OidcSecret, SecretVersion, StackId},
};

/// The content of a Secret, or the reason why it cannot be used.
type Content = Result<OidcSecret, UnusableSecret>;

/// The Secrets in use. Shared by all workers.
pub(crate) struct Secrets {
    client: Client,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Arc<Queue>,
    /// The label without which no Secret is used.
    label: Option<RequiredLabel>,
    entries: Mutex<BTreeMap<ObjectName, Entry>>,
}

/// A Secret.
#[derive(Default)]
struct Entry {
    /// The stacks that use it.
    subscribers: BTreeSet<StackId>,
    /// The content when it was last seen.
    content: Option<Content>,
    /// True if the watch has shown it, and continues to.
    watched: bool,
    watch: Option<Watch>,
    /// True if the missing permission for the watch was reported.
    reported: bool,
}

/// A watch, which ends when no stack needs it any more.
struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn content(name: &ObjectName, secret: Option<wire::Secret>, label: Option<&RequiredLabel>) -> Content {
    let Some(secret) = secret else { return Err(UnusableSecret::Missing(name.clone())) };
    if let Some(label) =
        label.filter(|label| !label.is_among(secret.metadata.labels.as_ref().unwrap_or(&BTreeMap::new())))
    {
        return Err(UnusableSecret::Unlabelled { secret: name.clone(), label: label.clone() });
    }
    let version = SecretVersion {
        uid: secret.metadata.uid.unwrap_or_default(),
        resource_version: secret.metadata.resource_version.unwrap_or_default(),
    };
    read(name, version, &secret.data.into_iter().map(|(key, bytes)| (key, bytes.0)).collect())
}

/// Returns true if two states of a Secret are equal: then the older one is kept, with its version, so that nothing is written.
fn same(one: &Content, other: &Content) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => one.client_id == other.client_id && one.client_secret == other.client_secret,
        (one, other) => one == other,
    }
}

fn fact(content: &Content) -> Fact<OidcSecret> {
    match content {
        Ok(secret) => Fact::Known(secret.clone()),
        Err(unusable) => Fact::Absent { message: unusable.to_string(), fix: unusable.fix() },
    }
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Entry>> {
        // Every change of an entry is made in one piece.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records what the watch shows.
    fn seen(&self, name: &ObjectName, secret: Option<wire::Secret>) {
        let content = content(name, secret, self.label.as_ref());
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(name) else { return };
        entry.watched = true;
        if entry.content.as_ref().is_some_and(|known| same(known, &content)) {
            return;
        }
        // A stack that requests it for the first time is being reconciled, and finds the content.
        let changed = entry.content.replace(content).is_some();
        let subscribers: Vec<Key> = entry.subscribers.iter().filter(|_| changed).cloned().map(Key::Stack).collect();
        drop(entries);
        if !subscribers.is_empty() {
            tracing::info!(secret = %name, stacks = subscribers.len(), "a Secret in use has changed");
            self.queue.add_all(subscribers);
        }
    }

    /// Records the end of a watch that is not allowed: the next request reads the Secret, and tries to watch it again.
    /// Returns true if the end has not been reported yet.
    fn unwatched(&self, name: &ObjectName) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(name) else { return false };
        // The dropped task is the one that this runs in, which has nothing left to do.
        (entry.watched, entry.watch) = (false, None);
        !std::mem::replace(&mut entry.reported, true)
    }
}

impl Secrets {
    /// Reads through `client` and puts into `queue` the stacks that changes concern. Of Secrets without `label`, where one is
    /// given, nothing is used. Nothing is read yet.
    #[must_use]
    pub(crate) fn new(client: Client, queue: Arc<Queue>, label: Option<RequiredLabel>) -> Self {
        Self { client, shared: Arc::new(Shared { queue, label, entries: Mutex::default() }) }
    }

    fn api(&self, name: &ObjectName) -> Api<wire::Secret> {
        Api::namespaced(self.client.clone(), &name.namespace)
    }

    /// Returns the current content of a Secret. From now on `subscriber` is queued when it changes, as far as RBAC
    /// allows a watch.
    pub(crate) async fn answer(&self, name: &ObjectName, subscriber: &StackId) -> Fact<OidcSecret> {
        {
            let mut entries = self.shared.entries();
            let entry = entries.entry(name.clone()).or_default();
            entry.subscribers.insert(subscriber.clone());
            if let (true, Some(content)) = (entry.watched, &entry.content) {
                return fact(content);
            }
        }
        let answer = with_deadline(self.api(name).get_opt(&name.name)).await;
        let read = match answer {
            Ok(secret) => content(name, secret, self.shared.label.as_ref()),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                Err(UnusableSecret::Forbidden { secret: name.clone(), message: status.message.clone() })
            }
            Err(error) => {
                return Fact::Unavailable(format!("cannot read the Secret `{name}`: {}", describe(&error)));
            }
        };
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(name) else { return fact(&read) };
        // If it may not be read, it may not be watched either; the reader asks again.
        if entry.watch.is_none() && !matches!(read, Err(UnusableSecret::Forbidden { .. })) {
            let watch = watch(self.api(name), name.clone(), Arc::downgrade(&self.shared));
            entry.watch = Some(Watch(tokio::spawn(watch)));
        }
        match &entry.content {
            // The state from the watch is newer.
            Some(content) if entry.watched => fact(content),
            Some(content) if same(content, &read) => fact(content),
            known => {
                let others = entry.subscribers.iter().filter(|other| known.is_some() && *other != subscriber);
                let others: Vec<Key> = others.cloned().map(Key::Stack).collect();
                let answer = fact(&read);
                entry.content = Some(read);
                drop(entries);
                self.shared.queue.add_all(others);
                answer
            }
        }
    }

    /// Records all Secrets that a stack uses. Secrets that no stack uses are removed and no longer watched.
    pub(crate) fn used(&self, stack: &StackId, names: &BTreeSet<&ObjectName>) {
        self.shared.entries().retain(|name, entry| {
            if !names.contains(name) {
                entry.subscribers.remove(stack);
            }
            !entry.subscribers.is_empty()
        });
    }

    /// Returns the number of Secrets in use, and of the watched ones among them.
    #[must_use]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let entries = self.shared.entries();
        (entries.len(), entries.values().filter(|entry| entry.watched).count())
    }
}

/// Watches one Secret until no stack needs it, or RBAC does not allow it.
async fn watch(api: Api<wire::Secret>, name: ObjectName, shared: Weak<Shared>) {
    let only = watcher::Config::default().fields(&format!("metadata.name={}", name.name));
    let mut stream = std::pin::pin!(watcher(api, only).default_backoff());
    let mut listed = None;
    let mut reported = false;
    while let Some(event) = stream.next().await {
        let Some(shared) = shared.upgrade() else { return };
        match event {
            Ok(Event::Init) => listed = None,
            Ok(Event::InitApply(secret)) => listed = Some(secret),
            Ok(Event::InitDone) => shared.seen(&name, listed.take()),
            Ok(Event::Apply(secret)) => shared.seen(&name, Some(secret)),
            Ok(Event::Delete(_)) => shared.seen(&name, None),
            Err(error) if is_forbidden(&error) => {
                if shared.unwatched(&name) {
                    tracing::warn!(
                        secret = %name,
                        "the controller may not watch the Secret, so that its changes are noticed only when something else \
                         of the Ingress changes, or with the sync period; allow get, list and watch on it by its name"
                    );
                }
                return;
            }
            Err(error) => {
                if !std::mem::replace(&mut reported, true) {
                    tracing::warn!(secret = %name, "cannot watch the Secret: {error}; trying again");
                }
                continue;
            }
        }
        reported = false;
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status.code == 403,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
