//! TLS of listeners: the certificate by the client's server name, ALPN, and certificates of clients.

mod clients;
mod targets;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::{extensions::GeneralName, prelude::FromDer, public_key::PublicKey};

use crate::account::{Account, Certificate, ClientCertificates, Listener};

pub use clients::headers as client_headers;
pub use targets::any_certificate;

/// The settings of TLS of a listener. Equal settings give equal behaviour, so that a configuration can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The first one is the default, the others are chosen by SNI.
    pub certificates: Vec<Certificate>,
    /// The protocols that the listener speaks, by preference.
    pub alpn: Vec<Vec<u8>>,
    /// The demands on clients' certificates, with the authorities in PEM.
    pub clients: Option<(ClientCertificates, String)>,
}

/// The reason why a listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The listener has none, or the account has lost it.
    #[error("the listener has no certificate")]
    NoCertificate,
    /// The certificate is not valid PEM or DER.
    #[error("a certificate cannot be read: {0}")]
    Certificate(String),
    /// The key is not valid, or not the certificate's.
    #[error("a key cannot be read: {0}")]
    Key(String),
    /// The trust store is not known, or has no valid authority.
    #[error("the trust store cannot be used: {0}")]
    TrustStore(String),
    /// The library refuses the settings.
    #[error(transparent)]
    Library(#[from] rustls::Error),
}

impl Settings {
    /// Returns the settings of a listener. Certificates that the account does not have are left out.
    ///
    /// # Errors
    /// Returns an error if there is no certificate, or the trust store is missing.
    pub fn of(account: &Account, listener: &Listener, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let certificates: Vec<Certificate> =
            listener.certificates.iter().filter_map(|arn| account.certificates.get(arn)).cloned().collect();
        // The default certificate must be there: another one must not take its place.
        if listener.certificates.first().is_none_or(|arn| !account.certificates.contains_key(arn)) {
            return Err(TlsError::NoCertificate);
        }
        let clients = match &listener.client_certificates {
            Some(clients) if clients.verify => {
                let arn = clients.trust_store.as_deref().unwrap_or_default();
                let store = account.trust_stores.get(arn).ok_or_else(|| TlsError::TrustStore(format!("no `{arn}`")))?;
                Some((clients.clone(), store.clone()))
            }
            Some(clients) => Some((clients.clone(), String::new())),
            None => None,
        };
        Ok(Self { certificates, alpn: alpn.iter().map(|name| name.to_vec()).collect(), clients })
    }

    /// Returns the configuration of servers.
    ///
    /// # Errors
    /// Returns an error if a certificate, its key or the trust store is not valid.
    pub fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match &self.clients {
            Some((clients, store)) => {
                builder.with_client_cert_verifier(clients::verifier(clients, store, provider.clone())?)
            }
            None => builder.with_no_client_auth(),
        };
        let mut identities = self
            .certificates
            .iter()
            .map(|certificate| Identity::read(certificate, &provider))
            .collect::<Result<Vec<_>, _>>()?;
        // Among several that fit, the best comes first.
        if identities.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let default = identities.remove(0);
        identities.sort_by_key(|identity| std::cmp::Reverse(identity.rank));
        let mut config = builder.with_cert_resolver(Arc::new(ByServerName { default, identities }));
        config.alpn_protocols.clone_from(&self.alpn);
        Ok(Arc::new(config))
    }
}

/// The worth of a certificate among several that fit: elliptic curves, the length of the key, the end of its validity.
type Rank = (bool, usize, i64);

/// A certificate and the names that it is for.
#[derive(Debug)]
struct Identity {
    names: Vec<String>,
    rank: Rank,
    key: Arc<CertifiedKey>,
}

impl Identity {
    fn read(certificate: &Certificate, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(certificate.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TlsError::Certificate(error.to_string()))?;
        let end = chain.first().ok_or_else(|| TlsError::Certificate("no PEM section CERTIFICATE".to_owned()))?;
        let (names, rank) = described(end)?;
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())
            .map_err(|error| TlsError::Key(error.to_string()))?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| TlsError::Key(error.to_string()))?;
        Ok(Self { names, rank, key: Arc::new(key) })
    }

    /// Returns true if the client can check the certificate's signatures.
    fn suits(&self, hello: &ClientHello<'_>) -> bool {
        self.key.key.choose_scheme(hello.signature_schemes()).is_some()
    }
}

fn described(certificate: &CertificateDer<'_>) -> Result<(Vec<String>, Rank), TlsError> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map_err(|error| TlsError::Certificate(error.to_string()))?;
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let names = match alternatives {
        Some(alternatives) => alternatives
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_lowercase()),
                _ => None,
            })
            .collect(),
        None => {
            let names = parsed.subject().iter_common_name();
            names.filter_map(|name| name.as_str().ok()).map(str::to_lowercase).collect()
        }
    };
    let (curve, length) = match parsed.public_key().parsed() {
        Ok(PublicKey::EC(point)) => (true, point.key_size()),
        Ok(PublicKey::RSA(key)) => (false, key.key_size()),
        _ => (false, 0),
    };
    Ok((names, (curve, length, parsed.validity().not_after.timestamp())))
}

/// Chooses a certificate by the name that the client asks for: one for exactly that name, else one with a wildcard, else
/// the default.
#[derive(Debug)]
struct ByServerName {
    default: Identity,
    /// The best ones first.
    identities: Vec<Identity>,
}

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fitting = hello.server_name().and_then(|name| {
            let wildcard = name.split_once('.').map(|(_, domain)| format!("*.{domain}"));
            let named = |wanted: &str| {
                self.identities
                    .iter()
                    .find(|identity| identity.names.iter().any(|name| name == wanted) && identity.suits(&hello))
            };
            named(&name.to_lowercase()).or_else(|| named(&wildcard?.to_lowercase()))
        });
        Some(fitting.unwrap_or(&self.default).key.clone())
    }
}
