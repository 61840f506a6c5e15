//! A forward proxy as companies have them: clients ask it by CONNECT for a host, and use TLS with that host through it. The
//! hosts are AWS's, which the lab does not have; so the proxy acts as these hosts as well, with certificates of its own
//! authority, and forwards the decrypted requests to the lab's AWS.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A running forward proxy. Dropping it closes its connections, except the tunnels.
pub struct ForwardProxy {
    /// `127.0.0.1:port`
    pub address: SocketAddr,
    /// The certificate of the authority that its clients have to trust, as a PEM file.
    pub authority: PathBuf,
    state: Arc<State>,
    task: JoinHandle<()>,
}

/// A request to the proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// `CONNECT host:port`, or `GET http://host/path`.
    pub what: String,
    /// The header Proxy-Authorization.
    pub authorization: Option<String>,
}

struct State {
    asked: Mutex<Vec<Asked>>,
    refuse: Mutex<Option<StatusCode>>,
    /// The addresses behind these `host:port`; any other is AWS.
    hosts: BTreeMap<String, SocketAddr>,
    /// The lab's AWS.
    aws: String,
    tls: Arc<ServerConfig>,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl ForwardProxy {
    /// Listens on a free port. Its authority's certificate is written into `directory`.
    pub async fn start(directory: &Path, aws: &str, hosts: &[(String, SocketAddr)]) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?;
        let authority = directory.join("forward-proxy.pem");
        fs::write(&authority, certificate.pem())?;
        let certificates = Certificates { issuer: Issuer::new(params, key) };
        let mut tls = ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(certificates));
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            asked: Mutex::default(),
            refuse: Mutex::default(),
            hosts: hosts.iter().cloned().collect(),
            aws: aws.to_owned(),
            tls: Arc::new(tls),
            client: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http(),
        });
        let task = tokio::spawn(accept(listener, state.clone()));
        Ok(Self { address, authority, state, task })
    }

    /// All that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers everything with this status from now on.
    pub fn refuse(&self, status: StatusCode) {
        *self.state.refuse.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Dropping the set ends every connection.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| serve(request, state.clone()));
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

async fn serve(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>> {
    let authorization = request.headers().get("proxy-authorization").and_then(|value| value.to_str().ok());
    let authorization = authorization.map(str::to_owned);
    let asked = Asked { what: format!("{} {}", request.method(), request.uri()), authorization };
    state.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    let refused = *state.refuse.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(status) = refused {
        return Ok(Response::builder().status(status).body(Full::default())?);
    }
    if request.method() != Method::CONNECT {
        return pass_on(request, &state).await;
    }
    let host = request.uri().authority().context("CONNECT without a host")?.to_string();
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        // The end of a tunnel needs no reason.
        let _ = tunnel(TokioIo::new(upgraded), &host, state).await;
    });
    Ok(Response::new(Full::default()))
}

async fn tunnel(mut client: TokioIo<hyper::upgrade::Upgraded>, host: &str, state: Arc<State>) -> Result<()> {
    if let Some(address) = state.hosts.get(host) {
        let mut server = TcpStream::connect(address).await?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    }
    let stream = TlsAcceptor::from(state.tls.clone()).accept(client).await?;
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { pass_on(request, &state).await }
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

/// Passes a request on to the lab's AWS.
async fn pass_on(request: Request<Incoming>, state: &State) -> Result<Response<Full<Bytes>>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = format!("{}{path}", state.aws).parse()?;
    let (mut head, body) = request.into_parts();
    head.uri = uri;
    for name in ["connection", "transfer-encoding", "content-length"] {
        head.headers.remove(name);
    }
    let request = Request::from_parts(head, Full::new(body.collect().await?.to_bytes()));
    let (mut head, body) = state.client.request(request).await?.into_parts();
    for name in ["connection", "transfer-encoding", "content-length"] {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, Full::new(body.collect().await?.to_bytes())))
}

/// Makes a certificate for any requested host.
struct Certificates {
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = KeyPair::generate().ok()?;
        let params = CertificateParams::new(vec![hello.server_name()?.to_owned()]).ok()?;
        let certificate = params.signed_by(&key, &self.issuer).ok()?;
        let key = any_supported_type(&PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()))).ok()?;
        Some(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key)))
    }
}
