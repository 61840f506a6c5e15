//! The stream of one watch. As in a real cluster, no event is lost permanently: after a loss, the connection ends and
//! the next one starts with a list, or the error 410 causes one.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    super::random::Random,
    Inner,
    store::{Change, Kind, Refusal},
};

/// A watch on the server's side.
pub(super) struct Watch {
    pub cluster: Arc<Inner>,
    /// The number of the watch among the open ones.
    pub number: u64,
    pub kind: &'static Kind,
    pub namespace: String,
    /// The time at which the API server ends the watch.
    pub until: Instant,
    pub random: Random,
    /// The generation of connections; a change ends the connections of all watches.
    pub connections: u64,
    pub ended: bool,
}

/// The interval at which the version is sent without an event.
const BOOKMARK: Duration = Duration::from_secs(60);

fn line(verb: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({ "type": verb, "object": object })))
}

fn gone() -> Bytes {
    line("ERROR", &Refusal::new(410, "Expired", "too old resource version").to_json())
}

impl Watch {
    pub(super) fn body(self) -> Body {
        Body::from_stream(futures::stream::unfold(self, |mut watch| async move {
            let reported = watch.next().await?;
            Some((Ok::<_, std::convert::Infallible>(reported), watch))
        }))
    }

    /// Returns the last version that was sent.
    fn version(&self) -> u64 {
        self.cluster.state().streams.get(&self.number).map_or(0, |stream| stream.version)
    }

    fn reported(&self, version: u64) {
        if let Some(stream) = self.cluster.state().streams.get_mut(&self.number) {
            stream.version = version;
        }
    }

    fn next_change(&self) -> Option<Change> {
        let version = self.version();
        let state = self.cluster.state();
        let here = |change: &&Change| self.namespace.is_empty() || change.namespace() == self.namespace;
        state.store.changes_after(self.kind.plural, version).find(here).cloned()
    }

    /// Returns the end of a current stall.
    fn stalled_until(&self) -> Option<Instant> {
        self.cluster.state().stalled.get(self.kind.plural).copied().filter(|until| *until > Instant::now())
    }

    /// Returns the next line, or `None` at the end of the connection.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if self.version() < self.cluster.state().compacted {
            self.ended = true;
            return Some(gone());
        }
        let mut news = self.cluster.news.subscribe();
        let mut ends = self.cluster.connections.subscribe();
        let connections = self.connections;
        let bookmark = (Instant::now() + BOOKMARK).min(self.until);
        // A stalled watch does not even send bookmarks.
        while let Some(until) = self.stalled_until() {
            tokio::select! {
                biased;
                _ = ends.wait_for(|now| *now != connections) => return None,
                () = tokio::time::sleep_until(until.min(self.until)) => {}
                // The stall may have ended.
                _ = news.changed() => {}
            }
            if Instant::now() >= self.until {
                return None;
            }
        }
        let found = tokio::select! {
            biased;
            _ = ends.wait_for(|now| *now != connections) => return None,
            found = async {
                loop {
                    news.borrow_and_update();
                    match self.next_change() {
                        Some(change) => return Some(change),
                        None if news.changed().await.is_err() => return None,
                        None => {}
                    }
                }
            } => found?,
            () = tokio::time::sleep_until(bookmark) => {
                if Instant::now() >= self.until {
                    return None;
                }
                let version = self.cluster.state().store.version;
                self.reported(version);
                let metadata = json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
                let object = json!({ "kind": self.kind.name, "apiVersion": self.kind.api_version(), "metadata": metadata });
                return Some(line("BOOKMARK", &object));
            }
        };
        let faults = self.cluster.state().faults.clone();
        let arrives = found.at + Duration::from_millis(1) + self.random.up_to(faults.latest);
        tokio::select! {
            biased;
            _ = ends.wait_for(|now| *now != connections) => return None,
            () = tokio::time::sleep_until(arrives) => {}
        }
        if self.random.chance(faults.breaks) {
            // The event is lost: the next connection starts after the last one that was sent.
            return None;
        }
        if self.random.chance(faults.expires) {
            // The watch is silent while events are lost, and then ends with the error 410.
            tokio::time::sleep(self.random.up_to(Duration::from_secs(10))).await;
            self.ended = true;
            return Some(gone());
        }
        self.reported(found.version);
        let reported = line(found.verb, &found.object);
        Some(if self.random.chance(faults.duplicates) {
            [reported.clone(), reported].concat().into()
        } else {
            reported
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.cluster.state().streams.remove(&self.number);
    }
}
