//! The store of records: ConfigMaps in the controller's namespace, one writer at a time. A caller waits for the write that
//! marks a record dirty; a record that is marked clean is written with others a moment later.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use tokio::sync::Notify;

use super::kubernetes::describe;
use crate::controller::{cluster::deadline::with_deadline, runtime::write_permit::WriteClient};
use albatross_core::{
    model::{ObservedStack, StackId, TagKeys},
    plan::Wait,
    record::{self, Clean, Contents, HEADER_KEY, Header, Remembered, SHARDS, StackRecord},
};

/// The number of times that a ConfigMap is written again after another writer's change.
const TRIES: u32 = 5;

/// The number of ConfigMaps that are taken over at once.
const AT_ONCE: usize = 8;

/// The time for which clean records are collected before they are written.
const GATHER: Duration = Duration::from_millis(500);

/// The most bytes of records written per second, on average: the load on the API server's database while
/// thousands of stacks are taken over.
const BYTES_A_SECOND: u32 = 256 * 1024;

/// A record could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Another process writes the records, so it leads.
    #[error("another process ({0}) writes the records by now, so this one does not lead any more")]
    Deposed(String),
    /// The API server refused, or did not answer.
    #[error("cannot write the ConfigMap {name} in namespace {namespace}, which holds the records: {reason}")]
    Unwritten {
        /// The ConfigMap.
        name: String,
        /// The namespace.
        namespace: String,
        /// The API server's message.
        reason: String,
    },
}

/// A record as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    packed: Vec<u8>,
    clean: bool,
}

impl Entry {
    fn of(record: &StackRecord) -> Self {
        Self { packed: record::pack(record), clean: record.clean.is_some() }
    }
}

/// The records of an earlier process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// The states of the stacks that were in their desired state.
    pub(crate) clean: Vec<(StackId, Clean)>,
    /// The facts that are remembered of the others.
    pub(crate) remembered: Vec<(StackId, Remembered)>,
}

/// A ConfigMap.
#[derive(Debug, Default)]
struct Shard {
    /// The records as they are written: they are read only when they are taken over.
    records: BTreeMap<String, Entry>,
    /// Counts changes of `records`.
    changed: u64,
    /// The value of `changed` when they were last written.
    written: u64,
    /// The value of `changed` when a record was last marked dirty.
    marked_dirty: u64,
}

/// All ConfigMaps.
struct Shards([Shard; SHARDS]);

impl Shards {
    /// Returns a ConfigMap by its number.
    #[expect(clippy::indexing_slicing, reason = "`record::shard` stays below their number, and so do loops over all")]
    fn of(&mut self, shard: usize) -> &mut Shard {
        &mut self.0[shard]
    }
}

/// A ConfigMap as the API server has it; locked while it is written.
#[derive(Debug, Default)]
struct Stored {
    /// `None` when it is not there.
    version: Option<String>,
}

/// The records of all stacks. Shared by all workers.
pub(crate) struct Records {
    api: Api<ConfigMap>,
    namespace: String,
    lease: String,
    header: Header,
    /// The term of [`Self::load`].
    term: AtomicI32,
    /// [`Header::since`]
    since: AtomicI32,
    shards: Mutex<Shards>,
    /// The tags of each stack that are the controller's own; known also where no records can be kept.
    tag_keys: Mutex<BTreeMap<StackId, TagKeys>>,
    /// The waits of each stack that waits, as [`StackRecord::waits`] has them.
    waits: Mutex<BTreeMap<StackId, Vec<(Wait, u64)>>>,
    stored: [tokio::sync::Mutex<Stored>; SHARDS],
    /// Without the permission to write them, there are none.
    usable: AtomicBool,
    changes: Notify,
}

impl Records {
    /// Keeps records in `namespace`, for the controllers that take turns at `lease`, under `header`. Nothing is read yet,
    /// and until [`Self::load`] nothing is kept.
    #[must_use]
    pub(crate) fn new(client: &WriteClient, namespace: &str, lease: &str, header: Header) -> Self {
        Self {
            api: Api::namespaced(client.client(), namespace),
            namespace: namespace.to_owned(),
            lease: lease.to_owned(),
            term: AtomicI32::new(header.term),
            since: AtomicI32::new(header.term),
            header,
            shards: Mutex::new(Shards(std::array::from_fn(|_| Shard::default()))),
            tag_keys: Mutex::default(),
            waits: Mutex::default(),
            stored: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            usable: AtomicBool::new(false),
            changes: Notify::new(),
        }
    }

    fn header(&self) -> Header {
        let (term, since) = (self.term.load(Ordering::Acquire), self.since.load(Ordering::Acquire));
        Header { term, since, ..self.header.clone() }
    }

    #[expect(clippy::indexing_slicing, reason = "`record::shard` stays below their number, and so do loops over all")]
    fn stored(&self, shard: usize) -> &tokio::sync::Mutex<Stored> {
        &self.stored[shard]
    }

    fn shards(&self) -> MutexGuard<'_, Shards> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the records over at the start of a term: the previous writer can no longer write. Records that cannot be read
    /// are not used, and without the permission for ConfigMaps there are none; both are reported once. It waits for as long as the API
    /// server does not answer, because the clean mark of a stack must be removed before the stack is changed.
    pub(crate) async fn load(&self, term: i32) -> Loaded {
        self.term.store(term, Ordering::Release);
        self.since.store(term, Ordering::Release);
        self.usable.store(true, Ordering::Release);
        self.own_tags().clear();
        self.own_waits().clear();
        // A few at a time: the takeover is waited for, and its text is in memory meanwhile.
        let taken = stream::iter((0..SHARDS).map(|shard| self.take_over(shard))).buffered(AT_ONCE);
        let taken: Result<Vec<Vec<StackRecord>>, RecordError> = taken.try_collect().await;
        let taken = taken.unwrap_or_else(|reason| {
            self.usable.store(false, Ordering::Release);
            self.shards().0.iter_mut().for_each(|shard| shard.records.clear());
            tracing::warn!(
                "{reason}; without records all of AWS is read at every start: let the ServiceAccount get, create and update \
                 ConfigMaps in namespace {}, as config/rbac does",
                self.namespace
            );
            Vec::new()
        });
        let mut loaded = Loaded::default();
        for record in taken.into_iter().flatten() {
            match record.clean {
                Some(clean) => loaded.clean.push((record.stack, clean)),
                None if record.remembered.is_empty() => {}
                None => loaded.remembered.push((record.stack, record.remembered)),
            }
        }
        loaded
    }

    /// Takes a ConfigMap over, or creates it: from then on the previous writer fails at its version.
    async fn take_over(&self, shard: usize) -> Result<Vec<StackRecord>, RecordError> {
        let name = record::shard_name(&self.lease, shard);
        let mut stored = self.stored(shard).lock().await;
        let mut reported = false;
        loop {
            let error = match self.try_to_take_over(shard, &name, &mut stored).await {
                Ok(taken) => return Ok(taken),
                Err(error) => error,
            };
            if is_final(&error) {
                return Err(self.unwritten(shard, &error));
            }
            // The previous leader may have written it just now, too.
            if !std::mem::replace(&mut reported, true) {
                tracing::warn!("{}; trying again", self.unwritten(shard, &error));
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn try_to_take_over(&self, shard: usize, name: &str, stored: &mut Stored) -> kube::Result<Vec<StackRecord>> {
        let found = with_deadline(self.api.get_opt(name)).await?.unwrap_or_default();
        let packed = found.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)).collect();
        let read = record::read(&self.header(), &Contents { data: found.data.unwrap_or_default(), packed });
        if let Some(before) = read.header.as_ref().filter(|before| self.header().follows(before)) {
            self.since.fetch_min(before.since, Ordering::AcqRel);
        }
        stored.version = found.metadata.resource_version;
        self.shards().of(shard).records =
            read.records.iter().map(|(key, record)| (key.clone(), Entry::of(record))).collect();
        let keys = read.records.values().filter_map(|record| Some((record.stack.clone(), record.tag_keys.clone()?)));
        self.own_tags().extend(keys);
        let waiting = read.records.values().filter(|record| !record.waits.is_empty());
        self.own_waits().extend(waiting.map(|record| (record.stack.clone(), record.waits.clone())));
        self.put(shard, stored).await?;
        if !read.unreadable.is_empty() {
            let keys = read.unreadable.join(", ");
            tracing::warn!(config_map = name, keys, "records cannot be read; AWS is read instead");
        }
        Ok(read.records.into_values().collect())
    }

    /// Returns the terms up to the present one in which only processes led that write records, as far as is known.
    #[must_use]
    pub(crate) fn terms(&self) -> RangeInclusive<i32> {
        let header = self.header();
        header.since..=header.term
    }

    /// Returns true if the stack has a clean record.
    #[must_use]
    pub(crate) fn is_clean(&self, stack: &StackId) -> bool {
        let key = record::key(stack);
        self.shards().of(record::shard(&key)).records.get(&key).is_some_and(|entry| entry.clean)
    }

    /// Returns the number of stacks with a record, and of stacks with a clean one.
    #[must_use]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let shards = self.shards();
        let records = || shards.0.iter().flat_map(|shard| shard.records.values());
        (records().count(), records().filter(|entry| entry.clean).count())
    }

    /// Returns true if records are kept at all.
    #[must_use]
    pub(crate) fn are_kept(&self) -> bool {
        self.usable.load(Ordering::Acquire)
    }

    /// Changes a stack's record; returns true if it was different before.
    fn set(&self, stack: &StackId, record: Option<StackRecord>) -> bool {
        let key = record::key(stack);
        let entry = record.as_ref().map(Entry::of);
        let mut shards = self.shards();
        let shard = shards.of(record::shard(&key));
        let changed = shard.records.get(&key) != entry.as_ref();
        match entry {
            Some(entry) => drop(shard.records.insert(key, entry)),
            None => drop(shard.records.remove(&key)),
        }
        shard.changed += u64::from(changed);
        changed
    }

    fn own_tags(&self) -> MutexGuard<'_, BTreeMap<StackId, TagKeys>> {
        self.tag_keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_waits(&self) -> MutexGuard<'_, BTreeMap<StackId, Vec<(Wait, u64)>>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the waits of all stacks in the records, each with its age.
    #[must_use]
    pub(crate) fn waits(&self) -> Vec<(StackId, Vec<(Wait, Duration)>)> {
        let now = seconds_now();
        let age = |(wait, since): &(Wait, u64)| (wait.clone(), Duration::from_secs(now.saturating_sub(*since)));
        let waits = self.own_waits();
        waits.iter().map(|(stack, waits)| (stack.clone(), waits.iter().map(age).collect())).collect()
    }

    /// Remembers the waits of a stack with their ages, if they differ from those before. It is written soon. A stack that waits
    /// for something in AWS is not clean.
    pub(crate) fn note_waits(&self, stack: &StackId, ages: &BTreeMap<Wait, Duration>) {
        let now = seconds_now();
        let mut waits = self.own_waits();
        let known = waits.get(stack).map(Vec::as_slice).unwrap_or_default();
        let since: Vec<_> = ages.iter().map(|(wait, age)| (wait.clone(), now.saturating_sub(age.as_secs()))).collect();
        // Both clocks are read in whole seconds.
        let same = |((one, at), (other, then)): (&(Wait, u64), &(Wait, u64))| one == other && at.abs_diff(*then) <= 2;
        if known.len() == since.len() && known.iter().zip(&since).all(same) {
            return;
        }
        match since.is_empty() {
            true => waits.remove(stack),
            false => waits.insert(stack.clone(), since.clone()),
        };
        drop(waits);
        if !self.are_kept() {
            return;
        }
        let (was_clean, stays) = (self.is_clean(stack), since.iter().all(|(wait, _)| !wait.is_of_plan()));
        let before = self.recorded(stack);
        let remains_clean = was_clean && stays && before.as_ref().is_some_and(|record| record.clean.is_some());
        let becomes_dirty = was_clean && !remains_clean;
        let (clean, remembered) = match before {
            Some(record) if remains_clean => (record.clean, Remembered::default()),
            before => (None, before.map(Remembered::of).unwrap_or_default()),
        };
        let tag_keys = self.tag_keys(stack);
        let record = StackRecord { stack: stack.clone(), clean, tag_keys, waits: since, remembered };
        let is_empty = record.tag_keys.is_none() && record.waits.is_empty() && record.remembered.is_empty();
        if self.set(stack, Some(record).filter(|_| !is_empty)) {
            if becomes_dirty {
                self.must_be_written(stack);
            }
            self.changes.notify_one();
        }
    }

    /// Returns the record of a stack as it was last changed.
    fn recorded(&self, stack: &StackId) -> Option<StackRecord> {
        let key = record::key(stack);
        let packed = self.shards().of(record::shard(&key)).records.get(&key).map(|entry| entry.packed.clone());
        record::unpack(&packed?)
    }

    /// Notes that the record of a stack is to be written before AWS is changed.
    fn must_be_written(&self, stack: &StackId) {
        let mut shards = self.shards();
        let shard = shards.of(record::shard(&record::key(stack)));
        shard.marked_dirty = shard.changed;
    }

    /// Returns the tags of a stack that are the controller's own; `None` where nothing is remembered of the stack.
    #[must_use]
    pub(crate) fn tag_keys(&self, stack: &StackId) -> Option<TagKeys> {
        self.own_tags().get(stack).cloned()
    }

    /// Removes the clean mark of a stack, if it has one, remembers the tags that are about to be set, and who has what now, and returns
    /// when that is written.
    ///
    /// # Errors
    /// When it cannot be written: nothing of the stack may be changed then.
    pub(crate) async fn mark_dirty(
        &self,
        stack: &StackId,
        observed: &ObservedStack,
        about_to_be_set: TagKeys,
    ) -> Result<(), RecordError> {
        let tag_keys = self.own_tags().get_mut(stack).map(|known| {
            known.extend(about_to_be_set);
            known.clone()
        });
        if !self.are_kept() {
            return Ok(());
        }
        let waits = self.own_waits().get(stack).cloned().unwrap_or_default();
        let shard = record::shard(&record::key(stack));
        let remembered = self.remembered(stack, observed);
        if (tag_keys.is_some() || self.is_clean(stack) || !remembered.is_empty())
            && self.set(stack, Some(StackRecord { stack: stack.clone(), clean: None, tag_keys, waits, remembered }))
        {
            self.must_be_written(stack);
        }
        // A mark that was removed before may not be written yet; new marks can wait.
        let is_pending = |shard: &Shard| shard.marked_dirty > shard.written;
        if is_pending(self.shards().of(shard)) { self.write(shard).await.map(drop) } else { Ok(()) }
    }

    /// Returns what is to be remembered of a stack that is not clean. The record is read only for what is not observed.
    fn remembered(&self, stack: &StackId, observed: &ObservedStack) -> Remembered {
        let known = observed.certificates.is_none().then(|| self.recorded(stack)).flatten();
        known.map(Remembered::of).unwrap_or_default().with(observed)
    }

    /// Remembers who has what of a stack that is not in its desired state. It is written soon.
    pub(crate) fn remember(&self, stack: &StackId, observed: &ObservedStack) {
        if !self.are_kept() || self.is_clean(stack) {
            return;
        }
        let remembered = self.remembered(stack, observed);
        let waits = self.own_waits().get(stack).cloned().unwrap_or_default();
        let record =
            StackRecord { stack: stack.clone(), clean: None, tag_keys: self.tag_keys(stack), waits, remembered };
        let key = record::key(stack);
        let is_recorded = self.shards().of(record::shard(&key)).records.contains_key(&key);
        if (is_recorded || !record.remembered.is_empty()) && self.set(stack, Some(record)) {
            self.changes.notify_one();
        }
    }

    /// Marks a stack as clean: nothing is left to do for it, and AWS has it as observed. The mark is written soon. From then
    /// on the tags that it has are the controller's own.
    pub(crate) fn mark_clean(&self, stack: &StackId, observed: &ObservedStack, tag_keys: TagKeys) {
        self.own_tags().insert(stack.clone(), tag_keys.clone());
        let waits = {
            let mut all = self.own_waits();
            if let Some(waits) = all.get_mut(stack) {
                waits.retain(|(wait, _)| !wait.is_of_plan());
            }
            all.get(stack).cloned().unwrap_or_default()
        };
        if self.are_kept() {
            let clean = Some(Clean::of(observed));
            let remembered = Remembered::default();
            let record = StackRecord { stack: stack.clone(), clean, tag_keys: Some(tag_keys), waits, remembered };
            if self.set(stack, Some(record)) {
                self.changes.notify_one();
            }
        }
    }

    /// Removes the record of a stack that no longer exists. It is written soon.
    pub(crate) fn remove(&self, stack: &StackId) {
        self.own_tags().remove(stack);
        self.own_waits().remove(stack);
        if self.are_kept() && self.set(stack, None) {
            self.changes.notify_one();
        }
    }

    /// Returns true if everything is written.
    #[must_use]
    pub(crate) fn is_written(&self) -> bool {
        !self.are_kept() || self.shards().0.iter().all(|shard| shard.changed == shard.written)
    }

    /// Writes what has changed, a moment after it did, for ever.
    pub(crate) async fn keep_written(&self) {
        loop {
            self.changes.notified().await;
            tokio::time::sleep(GATHER).await;
            let mut failed = None;
            for shard in 0..SHARDS {
                match self.write(shard).await {
                    Ok(0) => {}
                    Ok(bytes) => tokio::time::sleep(pause(bytes)).await,
                    // The others are written all the same.
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            if let Some(error) = failed {
                tracing::warn!("{error}; trying again");
                self.changes.notify_one();
            }
        }
    }

    /// Writes what has changed.
    ///
    /// # Errors
    /// The first that could not be written; those behind it are not tried.
    pub(crate) async fn flush(&self) -> Result<(), RecordError> {
        for shard in 0..SHARDS {
            self.write(shard).await?;
        }
        Ok(())
    }

    /// Writes a ConfigMap if something in it has changed, and returns of how many bytes it is then.
    async fn write(&self, shard: usize) -> Result<usize, RecordError> {
        let needed = {
            let mut shards = self.shards();
            let shard = shards.of(shard);
            (shard.changed > shard.written).then_some(shard.changed)
        };
        let Some(needed) = needed.filter(|_| self.are_kept()) else { return Ok(0) };
        let mut stored = self.stored(shard).lock().await;
        // A write that waited for another may have been written with it.
        if self.shards().of(shard).written >= needed {
            return Ok(0);
        }
        for _ in 0..TRIES {
            let error = match self.put(shard, &mut stored).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => error,
            };
            let kube::Error::Api(status) = &error else { return Err(self.unwritten(shard, &error)) };
            if !matches!(status.code, 404 | 409) {
                return Err(self.unwritten(shard, &error));
            }
            // Another client has written or deleted it, or an answer to this process was lost.
            let name = record::shard_name(&self.lease, shard);
            let found = with_deadline(self.api.get_opt(&name)).await.map_err(|error| self.unwritten(shard, &error))?;
            let header = found.as_ref().and_then(|found| found.data.as_ref()?.get(HEADER_KEY));
            let header: Option<Header> = header.and_then(|text| serde_json::from_str(text).ok());
            if let Some(header) = header.filter(|header| header.holder != self.header.holder) {
                return Err(RecordError::Deposed(header.holder));
            }
            stored.version = found.and_then(|found| found.metadata.resource_version);
        }
        Err(self.contended(shard))
    }

    /// Writes a ConfigMap whole, as the next version of the one that is known. Returns of how many bytes its records are.
    async fn put(&self, shard: usize, stored: &mut Stored) -> kube::Result<usize> {
        let name = record::shard_name(&self.lease, shard);
        let (contents, changed) = {
            let mut shards = self.shards();
            let shard = shards.of(shard);
            let records = shard.records.iter().map(|(key, entry)| (key, &entry.packed));
            (record::write(&self.header(), records), shard.changed)
        };
        let bytes = contents.packed.values().map(Vec::len).sum();
        let packed = contents.packed.into_iter().map(|(key, packed)| (key, ByteString(packed))).collect();
        let object = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                resource_version: stored.version.clone(),
                labels: Some([("app.kubernetes.io/managed-by".to_owned(), "albatross".to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some(contents.data),
            binary_data: Some(packed),
            ..ConfigMap::default()
        };
        let parameters = PostParams::default();
        let answer = match stored.version {
            Some(_) => with_deadline(self.api.replace(&name, &parameters, &object)).await?,
            None => with_deadline(self.api.create(&parameters, &object)).await?,
        };
        stored.version = answer.metadata.resource_version;
        let mut shards = self.shards();
        let shard = shards.of(shard);
        shard.written = shard.written.max(changed);
        Ok(bytes)
    }

    fn contended(&self, shard: usize) -> RecordError {
        RecordError::Unwritten {
            name: record::shard_name(&self.lease, shard),
            namespace: self.namespace.clone(),
            reason: format!("others have changed it {TRIES} times in a row"),
        }
    }

    fn unwritten(&self, shard: usize, error: &kube::Error) -> RecordError {
        RecordError::Unwritten {
            name: record::shard_name(&self.lease, shard),
            namespace: self.namespace.clone(),
            reason: describe(error),
        }
    }
}

/// Returns the seconds since 1970.
fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Returns the pause after writing so many bytes.
fn pause(bytes: usize) -> Duration {
    let micros = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000);
    Duration::from_micros(micros / u64::from(BYTES_A_SECOND))
}

/// Returns true if trying again is of no use.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 401 | 403 | 422))
}

#[cfg(test)]
mod tests;
