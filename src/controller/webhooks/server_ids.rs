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

/// The time in which the number of the process has to be found: the API server waits five seconds for the answer.
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

#[cfg(test)]
pub(super) mod tests {
    use std::{
        collections::BTreeSet,
        sync::{Arc, Mutex},
    };

    use axum::{
        Router,
        body::{Body, to_bytes},
        http::{Method, Request as HttpRequest, Response},
    };
    use serde_json::{Value, json};

    use super::*;
    use albatross_core::{model::QuicServerId, quic::CONTAINERS};

    /// An API server that has the ConfigMap, or none, and its requests.
    #[derive(Clone, Default)]
    pub(in crate::controller::webhooks) struct Tracker {
        state: Arc<Mutex<State>>,
    }

    #[derive(Default)]
    struct State {
        map: Option<Value>,
        version: u64,
        requests: Vec<String>,
        /// The number of writes before which another process writes.
        rivals: usize,
        /// The status of each answer.
        refuses: Option<u16>,
    }

    impl Tracker {
        fn with(next: &str) -> Self {
            let tracker = Self::default();
            tracker.state.lock().unwrap().map = Some(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": TRACKER_NAMESPACE, "name": TRACKER, "resourceVersion": "0"},
                "data": {TRACKER_KEY: next},
            }));
            tracker
        }

        pub(in crate::controller::webhooks) fn client(&self) -> Client {
            let state = Arc::clone(&self.state);
            let router = Router::new().fallback(move |request: HttpRequest<Body>| {
                let state = Arc::clone(&state);
                async move {
                    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                    let body = to_bytes(request.into_body(), 1 << 20).await.unwrap();
                    let (code, body) = state.lock().unwrap().answer(&method, &path, &body);
                    Response::builder().status(code).body(Body::from(body.to_string())).unwrap()
                }
            });
            Client::new(router, "default")
        }

        fn requests(&self) -> Vec<String> {
            std::mem::take(&mut self.state.lock().unwrap().requests)
        }

        fn next(&self) -> Option<String> {
            let state = self.state.lock().unwrap();
            state.map.as_ref()?["data"][TRACKER_KEY].as_str().map(str::to_owned)
        }
    }

    fn failed(code: u16) -> (u16, Value) {
        let reason = if code == 404 { "NotFound" } else { "" };
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "no"});
        (code, status)
    }

    impl State {
        fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
            let name = path.strip_prefix("/api/v1/namespaces/kube-system/configmaps");
            self.requests.push(format!("{method} {}", name.unwrap_or(path)));
            if let Some(code) = self.refuses {
                return failed(code);
            }
            if *method == Method::GET {
                return self.map.clone().map_or_else(|| failed(404), |map| (200, map));
            }
            if self.rivals > 0 {
                self.rivals -= 1;
                self.write(
                    json!({"metadata": {"name": TRACKER}, "data": {TRACKER_KEY: (100 + self.rivals).to_string()}}),
                );
            }
            let written: Value = serde_json::from_slice(body).unwrap();
            let version = self.map.as_ref().map(|map| map["metadata"]["resourceVersion"].clone());
            let is_current = match *method {
                Method::POST => version.is_none(),
                _ => version.as_ref() == Some(&written["metadata"]["resourceVersion"]),
            };
            if is_current { self.write(written) } else { failed(409) }
        }

        fn write(&mut self, mut map: Value) -> (u16, Value) {
            self.version += 1;
            map["apiVersion"] = json!("v1");
            map["kind"] = json!("ConfigMap");
            map["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.map = Some(map.clone());
            (200, map)
        }
    }

    fn request(containers: &str) -> Request {
        serde_json::from_value(json!({
            "uid": "u", "operation": "CREATE", "namespace": "shop",
            "object": {
                "metadata": {"annotations": {CONTAINERS: containers}},
                "spec": {"containers": [{"name": "web"}, {"name": "dns"}]},
            },
        }))
        .unwrap()
    }

    fn server_ids(tracker: &Tracker) -> ServerIds {
        ServerIds::new(tracker.client(), EnvironmentVariable::default())
    }

    /// Returns the ids that a pod gets.
    async fn given(server_ids: &ServerIds, containers: &str) -> Vec<QuicServerId> {
        let patch = server_ids.answer(&request(containers)).await.patch;
        let id =
            |operation: &Value| QuicServerId::from_base64(operation["value"][0]["value"].as_str().unwrap()).unwrap();
        patch.iter().map(id).collect()
    }

    /// Returns the number of the process in an id.
    fn worker(id: QuicServerId) -> u64 {
        let number = u64::from_str_radix(id.to_string().trim_start_matches("0x"), 16).unwrap();
        number >> 7 & 0x1_ffff
    }

    #[tokio::test]
    async fn the_tracker_is_read_for_the_first_pod_that_needs_an_id_and_never_again() {
        let tracker = Tracker::with("41");
        let ids = server_ids(&tracker);
        assert_eq!((given(&ids, "").await, tracker.requests()), (vec![], vec![]));
        let first = given(&ids, "web,dns").await;
        assert_eq!((first.len(), worker(first[0]), worker(first[1])), (2, 41, 41));
        assert_eq!(tracker.requests(), ["GET /quic-server-id-worker-tracker", "PUT /quic-server-id-worker-tracker"]);
        let second = given(&ids, "dns").await;
        assert_eq!((tracker.requests(), tracker.next().as_deref()), (vec![], Some("42")));
        assert_eq!(first.iter().chain(&second).collect::<BTreeSet<_>>().len(), 3);
        // The next process.
        assert_eq!(worker(given(&server_ids(&tracker), "web").await[0]), 42);
        assert_eq!(tracker.next().as_deref(), Some("43"));
    }

    #[tokio::test]
    async fn a_tracker_that_is_missing_or_spoilt_begins_anywhere() {
        for (tracker, write) in [
            (Tracker::default(), "POST "),
            (Tracker::with("seven"), "PUT /quic-server-id-worker-tracker"),
            (Tracker::with("131072"), "PUT /quic-server-id-worker-tracker"),
        ] {
            let ids = given(&server_ids(&tracker), "web").await;
            assert_eq!(tracker.requests(), ["GET /quic-server-id-worker-tracker", write]);
            let successor = Worker::of(worker(ids[0])).successor();
            assert_eq!(tracker.next(), Some(successor));
        }
    }

    #[tokio::test]
    async fn two_processes_take_different_numbers() {
        let tracker = Tracker::with("5");
        tracker.state.lock().unwrap().rivals = 2;
        // The others write 101 and then 100.
        assert_eq!(worker(given(&server_ids(&tracker), "web").await[0]), 100);
        assert_eq!((tracker.requests().len(), tracker.next().as_deref()), (6, Some("101")));
        let fresh = Tracker::default();
        fresh.state.lock().unwrap().rivals = 1;
        assert_eq!(worker(given(&server_ids(&fresh), "web").await[0]), 100);
    }

    #[tokio::test]
    async fn pods_get_ids_without_the_tracker() {
        for code in [403, 500] {
            let tracker = Tracker::with("5");
            tracker.state.lock().unwrap().refuses = Some(code);
            let ids = server_ids(&tracker);
            assert_eq!(given(&ids, "web,dns").await.len(), 2);
            tracker.requests();
            assert_eq!((given(&ids, "web").await.len(), tracker.requests()), (1, vec![]));
        }
    }
}
