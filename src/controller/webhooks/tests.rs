use std::{collections::BTreeMap, sync::OnceLock, time::SystemTime};

use k8s_openapi::ByteString;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;
use crate::{
    controller::certificates::{BUNDLE, Held, Step, names, take},
    model::{Value as Known, VpcId},
};

fn judge(synced: bool) -> Arc<Judge> {
    static DOCUMENTS: OnceLock<Snapshot> = OnceLock::new();
    let snapshot = DOCUMENTS.get_or_init(|| {
        let mut loaded = crate::snapshot::Loaded::default();
        let text = "
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: cart}
spec: {selector: {app: cart}, ports: [{port: 80}]}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: TargetGroupBinding
metadata: {namespace: shop, name: one}
spec: {targetGroupARN: 'arn:one', targetType: ip, serviceRef: {name: cart, port: 80}}
";
        crate::snapshot::from_documents(&mut loaded, "test", text).unwrap();
        loaded.snapshot
    });
    Arc::new(Judge {
        snapshot: Arc::new(RwLock::new(snapshot.clone())),
        synced: Arc::new(Synced::new(if synced { vec![] } else { vec!["Pod"] })),
        config: BuildConfig::new("demo", Known::Known(VpcId::new("vpc-1"))),
        rules: Rules { inject_gates: true, ..Rules::default() },
        metrics: Arc::default(),
    })
}

/// A certificate, and who trusts it.
fn certificate(served: &Served) -> Vec<u8> {
    let mut data: BTreeMap<String, ByteString> = BTreeMap::new();
    take(Step::Make, &mut data, &names("hooks", "kube-system"), SystemTime::now(), Duration::from_secs(3600)).unwrap();
    served.set(Held::read(&data).serving.unwrap().key);
    data[BUNDLE].0.clone()
}

async fn start(judge: Arc<Judge>, served: &Arc<Served>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = TlsConnections::accept_from(listener, Arc::clone(served)).unwrap();
    let port = connections.address.port();
    tokio::spawn(async move { axum::serve(connections, routes(&judge)).await });
    port
}

/// Asks as the API server does, trusting a bundle.
async fn ask(port: u16, bundle: &[u8], path: &str, body: &str) -> Result<(u16, String), String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle) {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("hooks.kube-system.svc").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: hooks\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Ok((head[9..12].parse().unwrap(), body.to_owned()))
}

fn review() -> String {
    json!({"kind": "AdmissionReview", "request": {"uid": "u1", "operation": "CREATE", "namespace": "shop",
        "object": {"metadata": {"labels": {"app": "cart"}}, "spec": {"containers": []}}}})
    .to_string()
}

#[tokio::test]
async fn pods_are_answered_over_tls() {
    let served = Arc::new(Served::default());
    let port = start(judge(true), &served).await;
    assert!(served.is_empty());
    ask(port, b"", "/mutate-v1-pod", &review()).await.unwrap_err();
    let bundle = certificate(&served);
    let (status, body) = ask(port, &bundle, "/mutate-v1-pod", &review()).await.unwrap();
    let answer: Value = serde_json::from_str(&body).unwrap();
    let patch: ByteString = serde_json::from_value(answer["response"]["patch"].clone()).unwrap();
    assert_eq!((status, &answer["response"]["uid"], &answer["response"]["allowed"]), (200, &json!("u1"), &json!(true)));
    let gate = json!([{"op": "add", "path": "/spec/readinessGates", "value": [{"conditionType": "target-health.elbv2.k8s.aws/one"}]}]);
    assert_eq!(serde_json::from_slice::<Value>(&patch.0).unwrap(), gate);
    for hook in Hook::ALL {
        assert_eq!(ask(port, &bundle, hook.path(), &review()).await.unwrap().0, 200, "{hook:?}");
    }
    assert_eq!(ask(port, &bundle, "/mutate-v1-pod", "{}").await.unwrap().0, 400);
    assert_eq!(ask(port, &bundle, "/mutate-v1-pod", "no JSON").await.unwrap().0, 400);
    assert_eq!(ask(port, &bundle, "/mutate-v1-pods", &review()).await.unwrap().0, 404);
}

#[tokio::test]
async fn before_every_kind_is_listed_pods_are_admitted_as_they_are() {
    let served = Arc::new(Served::default());
    let port = start(judge(false), &served).await;
    let bundle = certificate(&served);
    let (_, body) = ask(port, &bundle, "/mutate-v1-pod", &review()).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["response"], json!({"uid": "u1", "allowed": true}));
}

#[tokio::test]
async fn a_certificate_is_exchanged_between_two_requests() {
    let served = Arc::new(Served::default());
    let port = start(judge(true), &served).await;
    let old = certificate(&served);
    assert!(ask(port, &old, "/mutate-v1-pod", &review()).await.is_ok());
    let new = certificate(&served);
    assert!(ask(port, &old, "/mutate-v1-pod", &review()).await.is_err());
    assert!(ask(port, &[old, new].concat(), "/mutate-v1-pod", &review()).await.is_ok());
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_nobody_up() {
    let served = Arc::new(Served::default());
    let port = start(judge(true), &served).await;
    let bundle = certificate(&served);
    let _silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let review = review();
    let answered = tokio::time::timeout(HANDSHAKE / 2, ask(port, &bundle, "/mutate-v1-pod", &review));
    assert_eq!(answered.await.unwrap().unwrap().0, 200);
}

#[tokio::test]
async fn a_port_that_is_taken_is_told() {
    let taken = TcpListener::bind("[::]:0").await.or(TcpListener::bind("0.0.0.0:0").await).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = listen(port).await.unwrap_err().to_string().replace(&port.to_string(), "PORT");
    insta::assert_snapshot!(error, @"cannot listen on port PORT, the value of --webhook-bind-port: Address already in use (os error 98); choose another port, or --enable-webhooks=false");
}

#[tokio::test]
async fn certificates_in_files_are_followed() {
    let directory = std::env::temp_dir().join(format!("albatross-webhooks-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let mut data: BTreeMap<String, ByteString> = BTreeMap::new();
    take(Step::Make, &mut data, &names("hooks", "kube-system"), SystemTime::now(), Duration::from_secs(3600)).unwrap();
    for name in ["tls.crt", "tls.key"] {
        std::fs::write(directory.join(name), &data[name].0).unwrap();
    }
    let served = Arc::new(Served::default());
    let files = Files { certificate: directory.join("tls.crt"), key: directory.join("tls.key") };
    let following = tokio::spawn(files.follow(Arc::clone(&served)));
    let there = async {
        while served.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), there).await.unwrap();
    following.abort();
    std::fs::remove_dir_all(&directory).unwrap();
}
