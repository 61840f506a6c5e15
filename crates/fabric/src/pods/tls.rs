//! TLS of pods.

use std::sync::{Arc, OnceLock};

use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

/// A server's certificate.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Material {
    /// In PEM.
    Pem {
        /// With its chain.
        certificate: Vec<u8>,
        /// The key.
        key: Vec<u8>,
        /// The authorities of client certificates, if those are checked. A client may have none.
        clients: Option<Vec<u8>>,
    },
    /// One that this process makes for all pods.
    SelfSigned,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pem { .. } => "Pem",
            Self::SelfSigned => "SelfSigned",
        })
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())).clone()
}

/// Returns what accepts TLS connections, with HTTP/2 and HTTP/1.1.
pub(super) fn acceptor(material: &Material) -> Result<TlsAcceptor, String> {
    match material {
        Material::Pem { certificate, key, clients } => config(certificate, key, clients.as_deref()),
        Material::SelfSigned => self_signed(),
    }
    .map(TlsAcceptor::from)
}

fn config(certificate: &[u8], key: &[u8], clients: Option<&[u8]>) -> Result<Arc<ServerConfig>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|error| text(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| text(&error))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| text(&error))?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in CertificateDer::pem_slice_iter(authorities) {
                roots.add(authority.map_err(|error| text(&error))?).map_err(|error| text(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = verifier.allow_unauthenticated().build().map_err(|error| text(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| text(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn self_signed() -> Result<Arc<ServerConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ServerConfig>, String>> = OnceLock::new();
    let make = || {
        let made = rcgen::generate_simple_self_signed(vec!["pod.lab".to_owned()]).map_err(|error| error.to_string())?;
        config(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes(), None)
    };
    CONFIG.get_or_init(make).clone()
}

/// A TLS connection as a server tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) version: String,
    /// In PEM.
    pub(super) peer_certificates: Vec<String>,
    pub(super) server_name: String,
    pub(super) protocol: String,
    pub(super) cipher_suite: String,
    pub(super) key_exchange: String,
}

impl Session {
    pub(super) fn of(connection: &ServerConnection) -> Self {
        let version = match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        };
        let suite = connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        let group = connection.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
        let protocol = connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        Self {
            version: version.to_owned(),
            peer_certificates: connection.peer_certificates().into_iter().flatten().map(|it| pem(it)).collect(),
            server_name: connection.server_name().unwrap_or_default().to_owned(),
            protocol: protocol.unwrap_or_default(),
            // rustls has its own name for those of TLS 1.3.
            cipher_suite: suite.unwrap_or_default().replace("TLS13_", "TLS_"),
            key_exchange: group.unwrap_or_default(),
        }
    }
}

fn pem(certificate: &[u8]) -> String {
    let text = super::websocket::base64(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at_checked(64).unwrap_or((rest, ""));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem + "-----END CERTIFICATE-----\n"
}
