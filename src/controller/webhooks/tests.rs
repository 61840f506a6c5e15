use std::{collections::BTreeMap, sync::OnceLock, time::SystemTime};

use k8s_openapi::ByteString;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::server_ids::tests::Tracker;
use super::*;
use albatross_core::quic::EnvironmentVariable;

use crate::controller::webhooks::certificates::{BUNDLE, Step, StoredCertificates, names, take};

/// Returns AWS with the target group `cart`.
fn aws() -> AwsReader {
    let aws = albatross_simulation::aws::SimulatedAws::new(1);
    aws.answer_at_once();
    aws.put_target_group(albatross_simulation::aws::GivenTargetGroup::new(CART, "cart", "ip"));
    albatross_aws::testing::over(aws.client())
}

const CART: &str = "arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1";

fn reviewer(synced: bool) -> Arc<Reviewer> {
    static DOCUMENTS: OnceLock<Snapshot> = OnceLock::new();
    let snapshot = DOCUMENTS.get_or_init(|| {
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
        albatross_core::testing::snapshot(text)
    });
    Arc::new(Reviewer {
        snapshot: Arc::new(RwLock::new(snapshot.clone())),
        synced: Arc::new(Synced::new(if synced { vec![] } else { vec!["Pod"] })),
        config: albatross_core::testing::build_config(),
        rules: Rules { inject_gates: true, ..Rules::default() },
        no_sleep: Arc::default(),
        target_groups: TargetGroups::new(Arc::new(aws()), "demo", &VpcId::new("vpc-1")),
        server_ids: ServerIds::new(Tracker::default().client(), EnvironmentVariable::default()),
        metrics: Arc::default(),
    })
}

/// A certificate, and who trusts it.
fn certificate(served: &Served) -> Vec<u8> {
    let mut data: BTreeMap<String, ByteString> = BTreeMap::new();
    take(Step::Make, &mut data, &names("hooks", "kube-system"), SystemTime::now(), Duration::from_secs(3600)).unwrap();
    served.set(StoredCertificates::read(&data).serving.unwrap().key);
    data[BUNDLE].0.clone()
}

async fn start(reviewer: Arc<Reviewer>, served: &Arc<Served>) -> u16 {
    start_for(reviewer, served, None, MAX_CONNECTIONS).await
}

async fn start_for(
    reviewer: Arc<Reviewer>,
    served: &Arc<Served>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    most: usize,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = TlsConnections::accept_from(listener, Arc::clone(served), clients, most).unwrap();
    let port = connections.address.port();
    tokio::spawn(async move { axum::serve(connections, routes(&reviewer)).await });
    port
}

/// Asks as the API server does, trusting a bundle.
async fn ask(port: u16, bundle: &[u8], path: &str, body: &str) -> Result<(u16, String), String> {
    ask_as(None, port, bundle, path, body).await
}

/// A connection whose handshake is done.
async fn connect(
    client: Option<(&rcgen::Certificate, &rcgen::KeyPair)>,
    port: u16,
    bundle: &[u8],
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle) {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            config.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    };
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("hooks.kube-system.svc").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| error.to_string())
}

async fn ask_as(
    client: Option<(&rcgen::Certificate, &rcgen::KeyPair)>,
    port: u16,
    bundle: &[u8],
    path: &str,
    body: &str,
) -> Result<(u16, String), String> {
    let mut stream = connect(client, port, bundle).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: hooks\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    // If the socket is full, the end of a long request is only in the session, and reading does not send it.
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").ok_or("the connection ended without an answer")?;
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
    let port = start(reviewer(true), &served).await;
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
async fn new_bindings_get_what_they_leave_out_from_aws() {
    let served = Arc::new(Served::default());
    let port = start(reviewer(false), &served).await;
    let bundle = certificate(&served);
    let path = Hook::TargetGroupBindingDefaults.path();
    let ask = async |spec: Value| {
        let request = json!({"uid": "u1", "operation": "CREATE", "namespace": "shop", "object": {"spec": spec}});
        let review = json!({"kind": "AdmissionReview", "request": request}).to_string();
        let (status, body) = ask(port, &bundle, path, &review).await.unwrap();
        assert_eq!(status, 200);
        serde_json::from_str::<Value>(&body).unwrap()["response"].take()
    };
    let service = json!({"name": "cart", "port": 80});
    let answer = ask(json!({"targetGroupName": "cart", "serviceRef": service})).await;
    let patch: ByteString = serde_json::from_value(answer["patch"].clone()).unwrap();
    let add = |field: &str, value: &str| json!({"op": "add", "path": format!("/spec/{field}"), "value": value});
    let expected = json!([
        add("targetGroupARN", CART),
        add("targetType", "ip"),
        add("ipAddressType", "ipv4"),
        add("vpcID", "vpc-1"),
        add("targetGroupProtocol", "HTTP"),
    ]);
    assert_eq!(serde_json::from_slice::<Value>(&patch.0).unwrap(), expected);
    // One whose role is refused is admitted with a warning.
    let role = "arn:aws:iam::111122223333:role/targets";
    let refused = ask(json!({"targetGroupARN": CART, "serviceRef": service, "iamRoleArnToAssume": role})).await;
    assert_eq!((&refused["allowed"], &refused["patch"]), (&json!(true), &Value::Null));
    assert!(refused["warnings"][0].as_str().unwrap().contains("may not assume the role"), "{refused}");
}

#[tokio::test]
async fn before_every_kind_is_listed_pods_are_admitted_as_they_are() {
    let served = Arc::new(Served::default());
    let port = start(reviewer(false), &served).await;
    let bundle = certificate(&served);
    let (_, body) = ask(port, &bundle, "/mutate-v1-pod", &review()).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["response"], json!({"uid": "u1", "allowed": true}));
}

#[tokio::test]
async fn a_certificate_is_exchanged_between_two_requests() {
    let served = Arc::new(Served::default());
    let port = start(reviewer(true), &served).await;
    let old = certificate(&served);
    assert!(ask(port, &old, "/mutate-v1-pod", &review()).await.is_ok());
    let new = certificate(&served);
    assert!(ask(port, &old, "/mutate-v1-pod", &review()).await.is_err());
    assert!(ask(port, &[old, new].concat(), "/mutate-v1-pod", &review()).await.is_ok());
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_nobody_up() {
    let served = Arc::new(Served::default());
    let port = start(reviewer(true), &served).await;
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

/// An authority that signs clients' certificates, as PEM, and a client of it.
fn client_of_authority() -> (String, rcgen::Certificate, rcgen::KeyPair) {
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut client = rcgen::CertificateParams::new(vec!["apiserver".to_owned()]).unwrap();
    client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = client.signed_by(&key, &rcgen::Issuer::from_params(&authority, &authority_key)).unwrap();
    (authority.self_signed(&authority_key).unwrap().pem(), certificate, key)
}

#[tokio::test]
async fn with_a_client_authority_only_its_clients_are_answered() {
    let directory = std::env::temp_dir().join(format!("albatross-clients-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("ca.pem");
    let (authority, certificate_of_client, key) = client_of_authority();
    let (_, stranger, stranger_key) = client_of_authority();
    std::fs::write(&file, authority).unwrap();
    let served = Arc::new(Served::default());
    let port = start_for(reviewer(true), &served, client_authorities(Some(&file)).unwrap(), 8).await;
    let bundle = certificate(&served);
    let review = review();
    let known = ask_as(Some((&certificate_of_client, &key)), port, &bundle, "/mutate-v1-pod", &review).await;
    assert_eq!(known.map(|(status, _)| status), Ok(200));
    ask_as(Some((&stranger, &stranger_key)), port, &bundle, "/mutate-v1-pod", &review).await.unwrap_err();
    ask_as(None, port, &bundle, "/mutate-v1-pod", &review).await.unwrap_err();
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_client_authority_that_cannot_be_used_is_told() {
    let directory = std::env::temp_dir().join(format!("albatross-authorities-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let reported = |name: &str| {
        let error = client_authorities(Some(&directory.join(name))).unwrap_err().to_string();
        error.replace(&directory.display().to_string(), "DIR")
    };
    std::fs::write(directory.join("empty.pem"), "").unwrap();
    insta::assert_snapshot!(reported("missing.pem"), @"--kube-ca-pem-filepath is `DIR/missing.pem`: it cannot be read (No such file or directory (os error 2)); name a PEM file with certificates of authorities, or leave the flag out");
    insta::assert_snapshot!(reported("empty.pem"), @"--kube-ca-pem-filepath is `DIR/empty.pem`: there is no certificate in it; name a PEM file with certificates of authorities, or leave the flag out");
    assert!(client_authorities(None).unwrap().is_none());
    assert!(client_authorities(Some(Path::new(""))).unwrap().is_none());
    std::fs::remove_dir_all(&directory).unwrap();
}

/// The bytes of an answer until the connection ends, and how long that took by the clock of the runtime.
async fn until_closed(stream: &mut tokio_rustls::client::TlsStream<TcpStream>) -> Duration {
    let began = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_request_that_trickles_in_and_a_connection_that_asks_nothing_end() {
    let served = Arc::new(Served::default());
    let port = start(reviewer(true), &served).await;
    let bundle = certificate(&served);
    let mut silent = connect(None, port, &bundle).await.unwrap();
    let waited = until_closed(&mut silent).await;
    assert!(waited <= REQUEST + Duration::from_secs(1), "{waited:?}");

    let mut trickling = connect(None, port, &bundle).await.unwrap();
    let began = Instant::now();
    for byte in b"POST /mutate-v1-pod HTTP/1.1\r\nHost: hooks\r\nContent-Length: 100\r\n\r\n".iter().cycle() {
        if trickling.write_all(&[*byte]).await.is_err() || trickling.flush().await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(began.elapsed() < REQUEST * 3, "it is still read");
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_not_read() {
    let served = Arc::new(Served::default());
    let port = start(reviewer(true), &served).await;
    let bundle = certificate(&served);
    let mut stream = connect(None, port, &bundle).await.unwrap();
    let head = format!(
        "POST /mutate-v1-pod HTTP/1.1\r\nHost: hooks\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        LONGEST_REQUEST + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer));
}

/// The beginning of a request with a body of some length.
fn head(length: usize) -> String {
    format!(
        "POST /mutate-v1-pod HTTP/1.1\r\nHost: hooks\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn bodies_that_are_announced_and_do_not_come_hold_nobody_up() {
    let served = Arc::new(Served::default());
    let port = start(reviewer(true), &served).await;
    let bundle = certificate(&served);
    let mut silent = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(None, port, &bundle).await.unwrap();
        stream.write_all(format!("{}{{", head(LONGEST_REQUEST)).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        silent.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let review = review();
    let answered = tokio::time::timeout(REQUEST / 2, ask(port, &bundle, "/mutate-v1-pod", &review));
    assert_eq!(answered.await.unwrap().unwrap().0, 200);
}

#[tokio::test]
async fn long_bodies_share_room_that_comes_back_and_usual_ones_need_none() {
    let served = Arc::new(Served::default());
    let port = start(reviewer(true), &served).await;
    let bundle = certificate(&served);
    // Whitespace around JSON is JSON.
    let long = format!("{}{}", review(), " ".repeat(4 << 20));
    for _ in 0..6 {
        assert_eq!(ask(port, &bundle, "/mutate-v1-pod", &long).await.unwrap().0, 200);
    }
    let mut unfinished = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(None, port, &bundle).await.unwrap();
        stream
            .write_all(format!("{}{}", head(LONGEST_REQUEST), " ".repeat(LONGEST_REQUEST - 1)).as_bytes())
            .await
            .unwrap();
        stream.flush().await.unwrap();
        unfinished.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ask(port, &bundle, "/mutate-v1-pod", &review()).await.unwrap().0, 200);
    drop(unfinished);
}

#[test]
fn one_address_leaves_connections_to_others() {
    let (turns, peers) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Arc::new(Peers::default()));
    let enter = |address: &str| {
        let permit = Arc::clone(&turns).try_acquire_owned().unwrap();
        peers.enter(address.parse().unwrap(), permit, turns.available_permits(), MAX_CONNECTIONS)
    };
    // Each takes as many as it gets, one after the other.
    let all = |address: &str| std::iter::from_fn(|| enter(address)).collect::<Vec<ConnectionPermit>>();
    let mut held = all("10.0.0.1");
    assert_eq!(held.len(), MAX_CONNECTIONS * 3 / 4, "nobody else needs them");
    assert!(enter("::ffff:10.0.0.1").is_none(), "the same address, written otherwise");
    for address in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
        let others = all(address);
        assert!(!others.is_empty(), "{address} gets none");
        held.extend(others);
    }
    drop(held);
    assert!(peers.counts().is_empty());
    assert_eq!(turns.available_permits(), MAX_CONNECTIONS);
}

/// One more than all connections waits, and gets its turn when another ends.
#[tokio::test]
async fn connections_are_limited_and_their_turns_come_back() {
    let served = Arc::new(Served::default());
    let port = start_for(reviewer(true), &served, None, 2).await;
    let bundle = certificate(&served);
    let (one, _other) = (connect(None, port, &bundle).await.unwrap(), connect(None, port, &bundle).await.unwrap());
    let review = review();
    let mut one_more = std::pin::pin!(ask(port, &bundle, "/mutate-v1-pod", &review));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut one_more).await;
    assert!(early.is_err(), "it was answered beside all others");
    drop(one);
    let answered = tokio::time::timeout(HANDSHAKE, one_more).await;
    assert_eq!(answered.unwrap().unwrap().0, 200);
}
