//! The QUIC server ids that the webhook gives to pods, and the number of this process, which they contain.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, SystemTime},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::sync::Mutex;

use crate::controller::cluster::kubernetes::describe;
use albatross_core::{
    admission::server_id,
    api::admission::{AdmissionResponse, Request},
    quic::{EnvironmentVariable, Generator, TRACKER, TRACKER_KEY, TRACKER_NAMESPACE, Worker},
};

/// The time in which the number of the process has to be found: the API server waits ten seconds for the answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most times that the ConfigMap is read again because another process has just changed it.
const ATTEMPTS: usize = 5;

/// Gives server ids to pods. Nothing is read before the first pod that needs one.
pub(crate) struct ServerIds {
    client: Client,
    variable: EnvironmentVariable,
    generator: Mutex<Option<Generator>>,
}

/// Returns a number that nobody can foresee.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl ServerIds {
    pub(crate) fn new(client: Client, variable: EnvironmentVariable) -> Self {
        Self { client, variable, generator: Mutex::new(None) }
    }

    /// Returns the response to a request.
    pub(crate) async fn answer(&self, request: &Request) -> AdmissionResponse {
        let missing = server_id::missing(request, &self.variable);
        if missing.count() == 0 {
            return missing.answer(&self.variable, []);
        }
        let mut generator = self.generator.lock().await;
        let generator = match &mut *generator {
            Some(generator) => generator,
            none => none.insert(Generator::new(self.worker().await)),
        };
        // A random number is as good for all ids of a millisecond.
        let (now, first) = (now_ms(), random().to_be_bytes()[0]);
        let ids: Vec<_> = (0..missing.count()).map(|_| generator.next(now, first)).collect();
        missing.answer(&self.variable, ids)
    }

    /// Returns the number of this process: the next one, or a random one where that cannot be told. It is only one of three parts
    /// that distinguish ids, so no pod has to wait for the ConfigMap.
    async fn worker(&self) -> Worker {
        let why = match tokio::time::timeout(PATIENCE, self.counted_worker()).await {
            Ok(Ok(worker)) => return worker,
            Ok(Err(error)) => describe(&error),
            Err(_) => format!("the API server gave no answer within {} s", PATIENCE.as_secs()),
        };
        tracing::warn!(
            "the ConfigMap {TRACKER_NAMESPACE}/{TRACKER} cannot be used, so a random number distinguishes the QUIC server ids of this replica from those of others: {why}"
        );
        Worker::of(random())
    }

    /// Takes the next number from the ConfigMap. Each process takes another one, because a write needs the version that was read.
    async fn counted_worker(&self) -> Result<Worker, kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), TRACKER_NAMESPACE);
        let mut attempts = ATTEMPTS;
        loop {
            let existing = api.get_opt(TRACKER).await?;
            let next = existing.as_ref().and_then(|map| map.data.as_ref()?.get(TRACKER_KEY));
            // A first number that is random does not collide with those of an earlier ConfigMap.
            let worker = next.and_then(|text| Worker::of_tracker(text)).unwrap_or_else(|| Worker::of(random()));
            let is_new = existing.is_none();
            let mut map = existing.unwrap_or_else(|| ConfigMap {
                metadata: ObjectMeta { name: Some(TRACKER.to_owned()), ..ObjectMeta::default() },
                ..ConfigMap::default()
            });
            map.data.get_or_insert_default().insert(TRACKER_KEY.to_owned(), worker.successor());
            let written = if is_new {
                api.create(&PostParams::default(), &map).await
            } else {
                api.replace(TRACKER, &PostParams::default(), &map).await
            };
            attempts = attempts.saturating_sub(1);
            match written {
                Ok(_) => return Ok(worker),
                // Another process was faster.
                Err(kube::Error::Api(status)) if status.code == 409 && attempts > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }
}
