use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::UNIX_EPOCH,
};

use super::*;
use crate::controller::webhooks::certificates::{authorities, names};
use albatross_simulation::fake::{Call, Fake};

const DAY: Duration = Duration::from_secs(86_400);

/// An API server that has Secrets and configurations.
#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: Vec<String>,
    /// The next write of this path loses against another client that writes the same object just before.
    contended: Option<String>,
}

impl Store {
    fn put(&mut self, path: &str, mut object: Value) -> (u16, String) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        (200, object.to_string())
    }

    fn answer(&mut self, call: &Call) -> (u16, String) {
        let (verb, path) = call.action.split_once(' ').unwrap();
        let failure = |code: u16| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": "no", "reason": if code == 404 { "NotFound" } else { "Conflict" }});
            (code, status.to_string())
        };
        if verb != "GET" {
            self.writes.push(format!("{verb} {}", path.rsplit('/').next().unwrap()));
        }
        let body: Value = serde_json::from_str(&call.body).unwrap_or_default();
        let known = self.objects.get(path).cloned();
        if verb != "GET" && self.contended.take_if(|contended| contended == path).is_some() {
            self.put(path, known.clone().unwrap());
            return failure(409);
        }
        match (verb, known) {
            ("GET", Some(object)) => (200, object.to_string()),
            ("POST", _) => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) { failure(409) } else { self.put(&path, body) }
            }
            ("PUT", Some(object)) => {
                let same = object["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"];
                if same { self.put(path, body) } else { failure(409) }
            }
            ("PATCH", Some(mut object)) => {
                for operation in body.as_array().unwrap() {
                    let path = operation["path"].as_str().unwrap();
                    if operation["op"] == "test" {
                        if object.pointer(path) != Some(&operation["value"]) {
                            return failure(422);
                        }
                    } else {
                        let (parent, field) = path.rsplit_once('/').unwrap();
                        object.pointer_mut(parent).unwrap()[field] = operation["value"].clone();
                    }
                }
                self.put(path, object)
            }
            _ => failure(404),
        }
    }
}

struct World {
    store: Arc<Mutex<Store>>,
    _fake: Fake,
    client: Client,
}

const SECRET: &str = "/api/v1/namespaces/kube-system/secrets/hooks-tls";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/hooks";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/hooks";

impl World {
    async fn new(configurations: &[(&str, &str)]) -> Self {
        let mut store = Store::default();
        for (path, kind) in configurations {
            store.put(path, json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "hooks"},
                "webhooks": [{"name": "a.example.com", "clientConfig": {}}, {"name": "b.example.com", "clientConfig": {"caBundle": "eA=="}}],
            }));
        }
        let store = Arc::new(Mutex::new(store));
        let shared = Arc::clone(&store);
        let fake = Fake::start(move |call| std::future::ready(shared.lock().unwrap().answer(&call))).await;
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_from(kube::Config::new(fake.endpoint.parse().unwrap())).unwrap();
        Self { store, _fake: fake, client }
    }

    async fn both() -> Self {
        Self::new(&[(MUTATING, KINDS[0]), (VALIDATING, KINDS[1])]).await
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.store().writes)
    }

    fn replica(&self) -> CertificateRotator {
        CertificateRotator {
            client: self.client.clone(),
            namespace: "kube-system".to_owned(),
            secret: "hooks-tls".to_owned(),
            configuration: "hooks".to_owned(),
            names: names("hooks", "kube-system"),
            timing: Timing::of(90 * DAY),
            served: Arc::default(),
        }
    }

    /// Returns the authorities that every webhook trusts.
    fn trusted(&self) -> Vec<Vec<u8>> {
        let store = self.store();
        let mut all =
            [MUTATING, VALIDATING].iter().flat_map(|path| store.objects[*path]["webhooks"].as_array().unwrap());
        let bundle = |webhook: &Value| webhook["clientConfig"]["caBundle"].clone();
        let first = bundle(all.next().unwrap());
        assert!(all.all(|webhook| bundle(webhook) == first), "they trust different ones");
        let bytes: ByteString = serde_json::from_value(first).unwrap();
        authorities(&bytes.0).into_iter().map(|authority| authority.subject).collect()
    }

    /// Returns true if the API server trusts the certificate that a replica serves.
    fn trusts(&self, replica: &CertificateRotator) -> bool {
        let served = replica.served.current().unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&served.cert[0]).unwrap();
        self.trusted().iter().any(|subject| subject == leaf.issuer().as_raw())
    }
}

fn at(days: u32, seconds: u64) -> SystemTime {
    UNIX_EPOCH + 20_000 * DAY + days * DAY + Duration::from_secs(seconds)
}

fn none() -> Vec<String> {
    Vec::new()
}

#[tokio::test]
async fn replicas_renew_the_certificate_together_and_it_is_trusted_all_the_time() {
    let world = World::both().await;
    let (one, other) = (world.replica(), world.replica());
    for (case, now, writes, authorities) in [
        ("the first start", at(0, 0), vec!["POST secrets", "PATCH hooks", "PATCH hooks"], 1),
        ("nothing to do", at(59, 0), vec![], 1),
        ("two thirds", at(60, 0), vec!["PUT hooks-tls", "PATCH hooks", "PATCH hooks"], 2),
        ("not settled", at(60, 60), vec![], 2),
        ("settled", at(60, 120), vec!["PUT hooks-tls"], 2),
        ("every replica has read it", at(60, 600), vec!["PUT hooks-tls", "PATCH hooks", "PATCH hooks"], 1),
        ("and so on", at(121, 0), vec!["PUT hooks-tls", "PATCH hooks", "PATCH hooks"], 2),
    ] {
        for (replica, writes) in [(&one, writes), (&other, vec![])] {
            assert_eq!(replica.pass(now).await, none(), "{case}");
            assert_eq!(world.writes(), writes, "{case}");
            assert_eq!(world.trusted().len(), authorities, "{case}");
        }
        assert!(world.trusts(&one) && world.trusts(&other), "{case}");
    }
    let after_a_restart = world.replica();
    assert_eq!((after_a_restart.pass(at(121, 1)).await, world.writes()), (none(), none()));
    assert!(world.trusts(&after_a_restart));
}

#[tokio::test]
async fn whoever_loses_a_race_takes_what_the_winner_made() {
    let world = World::both().await;
    let (one, other) = (world.replica(), world.replica());
    let (first, second) = tokio::join!(one.pass(at(0, 0)), other.pass(at(0, 0)));
    assert_eq!((first, second), (none(), none()));
    // A patch may have lost, and is made up for by the next pass.
    one.pass(at(0, 60)).await;
    other.pass(at(0, 60)).await;
    assert_eq!(world.trusted().len(), 1);
    assert!(world.trusts(&one) && world.trusts(&other));
    world.writes();
    world.store().contended = Some(SECRET.to_owned());
    assert_eq!(one.pass(at(60, 0)).await, none());
    assert_eq!(world.writes(), ["PUT hooks-tls", "PUT hooks-tls", "PATCH hooks", "PATCH hooks"]);
}

#[tokio::test]
async fn what_upgrades_write_over_is_written_again_and_what_is_not_there_is_no_error() {
    let world = World::new(&[(VALIDATING, KINDS[1])]).await;
    let one = world.replica();
    assert_eq!(one.pass(at(0, 0)).await, none());
    assert_eq!(world.writes(), ["POST secrets", "PATCH hooks"]);
    world.store().objects.get_mut(VALIDATING).unwrap()["webhooks"][0]["clientConfig"] = json!({});
    assert_eq!(one.pass(at(0, 60)).await, none());
    assert_eq!(world.writes(), ["PATCH hooks"]);
    let bundles = &world.store().objects[VALIDATING]["webhooks"];
    assert_eq!(bundles[0]["clientConfig"], bundles[1]["clientConfig"]);
}

#[tokio::test]
async fn what_may_not_be_read_or_written_is_told_with_what_to_grant() {
    let fake = Fake::start(|call| {
        let code = if call.action.contains("mutating") { 404 } else { 403 };
        std::future::ready((code, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": "it is forbidden", "reason": if code == 404 { "NotFound" } else { "Forbidden" }}).to_string()))
    })
    .await;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = Client::try_from(kube::Config::new(fake.endpoint.parse().unwrap())).unwrap();
    let world = World::both().await;
    let replica = CertificateRotator { client, ..world.replica() };
    insta::assert_snapshot!(replica.pass(at(0, 0)).await.join("\n"), @"
        the webhooks' certificate: cannot read the ValidatingWebhookConfiguration hooks, which names the authority that the API server trusts: it is forbidden; let the ServiceAccount get and patch it, or give --webhook-cert-dir
        the webhooks' certificate: cannot read the Secret kube-system/hooks-tls: it is forbidden; make it where it is missing (`kubectl create secret generic`, empty), and let the ServiceAccount get and update it, or give --webhook-cert-dir
        ");
    assert!(replica.served.is_empty());
}
