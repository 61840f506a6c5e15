use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::support::*;
use crate::{account::*, tls};

pub(super) fn certificate(name: &str) -> Certificate {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    Certificate { certificate: cert.pem(), key: signing_key.serialize_pem() }
}

pub(super) async fn connect(world: &World, alpn: &[&[u8]], name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let config = tls::any_certificate(alpn).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon("a handshake", TlsConnector::from(config).connect(name, world.dial().await)).await
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn der(certificate: &Certificate) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(certificate.certificate.as_bytes()).unwrap()
}

fn secure(certificates: &[(&str, &Certificate)]) -> Account {
    let mut account = account(Protocol::Https, 443, group("HTTP1", &[]));
    for (arn, certificate) in certificates {
        account.certificates.insert((*arn).to_owned(), (*certificate).clone());
    }
    let listener = listener(&mut account);
    listener.certificates = certificates.iter().map(|(arn, _)| (*arn).to_owned()).collect();
    listener.default_actions = vec![fixed(200, "secure")];
    account
}

#[tokio::test]
async fn new_connections_get_new_certificates() {
    let (first, second, other) = (certificate("a.test"), certificate("a.test"), certificate("b.test"));
    let world = World::start(secure(&[("first", &first), ("other", &other)])).await;
    let kept = connect(&world, &[b"http/1.1"], "a.test").await.unwrap();
    assert_eq!(shown(&kept), der(&first));
    assert_eq!(shown(&connect(&world, &[], "b.test").await.unwrap()), der(&other));
    let mut client = Client::new(kept).await;
    assert_eq!(client.send(request("/")).await.body, "secure");
    // Another ARN on the listener, and then a certificate that is imported again under its ARN.
    world.change(|account| {
        account.certificates.insert("second".to_owned(), second.clone());
        listener(account).certificates[0] = "second".to_owned();
    });
    assert_eq!(shown(&connect(&world, &[], "a.test").await.unwrap()), der(&second));
    world.change(|account| {
        account.certificates.insert("second".to_owned(), first.clone());
    });
    assert_eq!(shown(&connect(&world, &[], "a.test").await.unwrap()), der(&first));
    assert_eq!(client.send(request("/")).await.body, "secure");
    // A broken one ends the new connections only.
    world.change(|account| account.certificates.get_mut("second").unwrap().key.clear());
    assert!(connect(&world, &[], "a.test").await.is_err());
    assert_eq!(client.send(request("/")).await.body, "secure");
}

#[tokio::test]
async fn a_request_without_tls_is_refused() {
    let world = World::start(secure(&[("first", &certificate("a.test"))])).await;
    let answer = exchange(&world, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\nServer: awselb/2.0\r\n"), "{answer}");
}

#[tokio::test]
async fn a_target_is_told_about_the_client_certificate() {
    let backend = Backend::echo("one").await;
    let mut account = secure(&[("first", &certificate("a.test"))]);
    account.target_groups.insert("group".to_owned(), group("HTTP1", &[&backend]));
    let listener = listener(&mut account);
    listener.default_actions = vec![forward(&[("group", 1)])];
    listener.client_certificates = Some(ClientCertificates { verify: false, trust_store: None, ignore_expiry: false });
    let world = World::start(account).await;

    let own = certificate("client.test");
    let mut config = (*tls::any_certificate(&[]).unwrap()).clone();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let chain = rustls::sign::CertifiedKey::from_der(vec![der(&own)], key, &provider).unwrap();
    config.client_auth_cert_resolver = std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(chain));
    let name = ServerName::try_from("a.test").unwrap();
    let stream = TlsConnector::from(std::sync::Arc::new(config)).connect(name, world.dial().await).await.unwrap();

    let header = |answer: Answer| {
        let line = answer.body.lines().find(|line| line.starts_with("x-amzn-mtls-clientcert")).map(str::to_owned);
        line.map(|line| line.replace("%20", " ").replace("%0A", "\n"))
    };
    let pretending = || {
        let mut request = request("/");
        request.headers_mut().insert("x-amzn-mtls-clientcert", "forged".parse().unwrap());
        request
    };
    let told = header(Client::new(stream).await.send(pretending()).await).unwrap();
    let text = told.strip_prefix("x-amzn-mtls-clientcert: ").unwrap();
    assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap(), der(&own));
    let without = connect(&world, &[], "a.test").await.unwrap();
    assert_eq!(header(Client::new(without).await.send(pretending()).await), None);
}
