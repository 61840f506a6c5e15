//! Certificates of clients: how they are checked, and what targets are told about them.

use std::{sync::Arc, time::Duration};

use hyper::http::{HeaderName, HeaderValue};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{
    certificate::X509Certificate,
    objects::{oid_registry, oid2abbrev},
    prelude::FromDer,
    x509::X509Name,
};

use super::TlsError;
use crate::account::ClientCertificates;

/// Returns what checks the certificates of clients.
pub(super) fn verifier(
    clients: &ClientCertificates,
    store: &str,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if !clients.verify {
        return Ok(Arc::new(Passthrough(provider)));
    }
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(store.as_bytes()) {
        let authority = authority.map_err(|error| TlsError::TrustStore(error.to_string()))?;
        roots.add(authority).map_err(|error| TlsError::TrustStore(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| TlsError::TrustStore(error.to_string()))?;
    Ok(if clients.ignore_expiry { Arc::new(IgnoringExpiry(verifier)) } else { verifier })
}

/// Takes any certificate, and none.
#[derive(Debug)]
struct Passthrough(Arc<CryptoProvider>);

impl ClientCertVerifier for Passthrough {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks all but the end of a certificate's validity.
#[derive(Debug)]
struct IgnoringExpiry(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for IgnoringExpiry {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let end =
            X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed.validity().not_after.timestamp());
        let end = end.and_then(|end| u64::try_from(end).ok()).unwrap_or(u64::MAX);
        let then = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().min(end)));
        self.0.verify_client_cert(certificate, intermediates, then)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Returns the headers that tell targets about a client's certificate: the whole chain if it is passed through, else what
/// the load balancer has read from the client's own certificate.
#[must_use]
pub fn headers(chain: &[CertificateDer<'_>], verified: bool) -> Vec<(HeaderName, HeaderValue)> {
    let header = |name: &'static str, value: String| {
        Some((HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).ok()?))
    };
    if !verified {
        let chain: String = chain.iter().map(pem).collect();
        let given = Some(chain).filter(|chain| !chain.is_empty());
        return given.and_then(|chain| header("x-amzn-mtls-clientcert", encoded(&chain))).into_iter().collect();
    }
    let Some(own) = chain.first() else { return vec![] };
    let Ok((_, parsed)) = X509Certificate::from_der(own) else { return vec![] };
    let serial: String = parsed.raw_serial().iter().map(|byte| format!("{byte:02X}")).collect();
    let validity = parsed.validity();
    let time = |time: x509_parser::time::ASN1Time| crate::alb::time::iso(time.timestamp());
    let validity = format!("NotBefore={};NotAfter={}", time(validity.not_before), time(validity.not_after));
    [
        header("x-amzn-mtls-clientcert-serial-number", serial),
        header("x-amzn-mtls-clientcert-issuer", distinguished(parsed.issuer())),
        header("x-amzn-mtls-clientcert-subject", distinguished(parsed.subject())),
        header("x-amzn-mtls-clientcert-validity", validity),
        header("x-amzn-mtls-clientcert-leaf", encoded(&pem(own))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns a name as RFC 2253 writes it: the last part first.
fn distinguished(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = name
        .iter_rdn()
        .map(|part| {
            let attributes: Vec<String> = part
                .iter()
                .map(|attribute| {
                    let kind = attribute.attr_type();
                    let kind = oid2abbrev(kind, oid_registry()).map_or_else(|_| kind.to_string(), str::to_owned);
                    format!("{kind}={}", escaped(attribute.as_str().unwrap_or_default()))
                })
                .collect();
            attributes.join("+")
        })
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn escaped(value: &str) -> String {
    let mut result = String::new();
    for character in value.chars() {
        if matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            result.push('\\');
        }
        result.push(character);
    }
    result
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut base64 = String::new();
    for group in certificate.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4_usize {
            let sextet = usize::try_from((bits >> (18 - 6 * place)) & 63).unwrap_or_default();
            let letter = BASE64.get(sextet).copied().map_or('=', char::from);
            base64.push(if place > group.len() { '=' } else { letter });
        }
    }
    let mut result = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in base64.as_bytes().chunks(64) {
        result.push_str(&String::from_utf8_lossy(line));
        result.push('\n');
    }
    result.push_str("-----END CERTIFICATE-----\n");
    result
}

/// Returns a text encoded for a URL; `+`, `=` and `/` stay as they are.
fn encoded(text: &str) -> String {
    let mut result = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'+' | b'=' | b'/') {
            result.push(char::from(byte));
        } else {
            result.push_str(&format!("%{byte:02X}"));
        }
    }
    result
}
