//! The certificate that the webhooks are served with, and how it is renewed. Pure but for the making of keys.
//!
//! Each certificate has a separate certificate authority, whose key is discarded as soon as it has signed the certificate.
//! So what the API server trusts can sign nothing else, and renewing is always the same: make a pair, have the API server
//! trust both authorities, serve the new certificate, and remove the old authority. The Secret records how far that is, and
//! every replica reads it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

pub(crate) mod rotator;
pub(crate) mod served;

#[cfg(test)]
mod tests;

/// The certificates of the authorities that the API server is to trust.
pub(crate) const BUNDLE: &str = "ca.crt";
/// The certificate that is served.
pub(crate) const CERTIFICATE: &str = "tls.crt";
/// Its key.
pub(crate) const KEY: &str = "tls.key";
/// The certificate that is served next, as soon as the API server trusts its authority.
pub(crate) const NEXT_CERTIFICATE: &str = "next.crt";
/// Its key.
pub(crate) const NEXT_KEY: &str = "next.key";

/// The time before now at which a certificate begins to be valid: clocks differ.
const EARLIER: Duration = Duration::from_secs(60);

/// When what is done to a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// The time for which a certificate is valid; it is renewed when two thirds of that are over.
    pub validity: Duration,
    /// The interval at which the Secret and the configurations are read.
    pub poll: Duration,
    /// The time for which the API server has known an authority before a certificate of it is served.
    pub settle: Duration,
    /// The age of a certificate at which the authority of its predecessor is removed: every replica has read the Secret since.
    pub overlap: Duration,
}

impl Timing {
    /// Returns the times for a validity: with a year, the Secret is read once a minute.
    pub(crate) fn of(validity: Duration) -> Self {
        let poll = (validity / 40).clamp(Duration::from_millis(200), Duration::from_secs(60));
        Self { validity, poll, settle: poll * 2, overlap: poll * 10 }
    }
}

/// Returns the names under which the API server connects to a Service.
pub(crate) fn names(service: &str, namespace: &str) -> Vec<String> {
    ["", ".svc", ".svc.cluster.local"].map(|end| format!("{service}.{namespace}{end}")).to_vec()
}

/// A certificate that can be served.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// When it was made, in seconds since 1970.
    made: i64,
    /// When it ends, in the same.
    until: i64,
    names: Vec<String>,
    /// Its issuer's name, as it is encoded.
    issuer: Vec<u8>,
    /// To serve it with.
    pub key: Arc<CertifiedKey>,
}

/// The reason why a certificate cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unusable(String);

impl Leaf {
    /// Reads a certificate, which the certificates of its authorities may follow, and its key, both as PEM.
    pub(crate) fn read(certificate: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Self, Unusable> {
        let unusable = |what: &str, why: &dyn std::fmt::Display| Unusable(format!("{what}: {why}"));
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| unusable("the certificate is not PEM", &error))?;
        let Some(first) = chain.first() else { return Err(Unusable("there is no certificate".to_owned())) };
        let (_, parsed) =
            parse_x509_certificate(first).map_err(|error| unusable("the certificate cannot be read", &error))?;
        let validity = parsed.validity();
        let alternative = parsed.subject_alternative_name().ok().flatten();
        let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let (made, until, names) =
            (validity.not_before.timestamp() + seconds(EARLIER), validity.not_after.timestamp(), names.collect());
        let issuer = parsed.issuer().as_raw().to_vec();
        // The PEM text of the key is never shown.
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Unusable("the key is not PEM".to_owned()))?;
        let key = CertifiedKey::from_der(chain, key, provider)
            .map_err(|error| unusable("the key does not belong to the certificate", &error))?;
        Ok(Self { made, until, names, issuer, key: Arc::new(key) })
    }

    fn serves(&self, names: &[String], now: i64) -> bool {
        // The API server requests `<service>.<namespace>.svc`; the certificate may have no other name.
        let asked = names.iter().filter(|name| name.ends_with(".svc"));
        now < self.until && asked.into_iter().all(|name| self.names.contains(name))
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Seconds since 1970.
pub(crate) fn unix(now: SystemTime) -> i64 {
    now.duration_since(UNIX_EPOCH).map_or(0, seconds)
}

/// An authority of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Authority {
    pem: String,
    /// Its name, as it is encoded.
    subject: Vec<u8>,
    until: i64,
}

/// The authorities of a bundle; what cannot be read is left out.
fn authorities(bundle: &[u8]) -> Vec<Authority> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = String::from_utf8_lossy(bundle);
    let blocks = text.split_inclusive(END).filter_map(|block| {
        let start = block.find("-----BEGIN CERTIFICATE-----")?;
        Some(format!("{}\n", block.get(start..)?))
    });
    let read = |pem: String| {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, parsed) = parse_x509_certificate(&der).ok()?;
        let (subject, until) = (parsed.subject().as_raw().to_vec(), parsed.validity().not_after.timestamp());
        Some(Authority { pem, subject, until })
    };
    blocks.filter_map(read).collect()
}

/// The content of the Secret.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredCertificates {
    authorities: Vec<Authority>,
    /// The certificate that is served, where it can be.
    pub serving: Option<Leaf>,
    next: Option<Leaf>,
}

impl StoredCertificates {
    /// Reads the Secret's content. What cannot be used counts as not being there.
    pub(crate) fn read(data: &BTreeMap<String, ByteString>) -> Self {
        let text = |key: &str| data.get(key).map_or(&[][..], |bytes| &bytes.0);
        let authorities = authorities(text(BUNDLE));
        let provider = aws_lc_rs::default_provider();
        let trusted = |leaf: &Leaf| authorities.iter().any(|authority| authority.subject == leaf.issuer);
        let leaf =
            |certificate: &str, key: &str| Leaf::read(text(certificate), text(key), &provider).ok().filter(trusted);
        let (serving, next) = (leaf(CERTIFICATE, KEY), leaf(NEXT_CERTIFICATE, NEXT_KEY));
        Self { authorities, serving, next }
    }

    /// The certificates that the API server is to trust.
    pub(crate) fn bundle(&self) -> String {
        self.authorities.iter().map(|authority| authority.pem.as_str()).collect()
    }
}

/// The change of the Secret that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// No change is due.
    Keep,
    /// There is no certificate that could be served: make one and serve it.
    Make,
    /// Make the next certificate, and have the API server trust its authority.
    Prepare,
    /// Serve the next one.
    Switch,
    /// Removes authorities whose certificates are no longer served.
    Prune,
}

/// Decides on it. `published` says that every configuration has the bundle that the Secret holds.
pub(crate) fn decide(now: i64, held: &StoredCertificates, names: &[String], published: bool, timing: Timing) -> Step {
    let next = held.next.as_ref().filter(|next| next.serves(names, now));
    let Some(serving) = held.serving.as_ref().filter(|serving| serving.serves(names, now)) else {
        return if next.is_some() { Step::Switch } else { Step::Make };
    };
    if let Some(next) = next {
        let settled = now >= next.made + seconds(timing.settle);
        return if published && settled { Step::Switch } else { Step::Keep };
    }
    if now >= serving.made + (serving.until - serving.made) / 3 * 2 {
        return Step::Prepare;
    }
    let others = held.authorities.iter().any(|authority| authority.subject != serving.issuer);
    if others && now >= serving.made + seconds(timing.overlap) { Step::Prune } else { Step::Keep }
}

/// A certificate with its key and its authority, as PEM.
struct NewCertificate {
    authority: String,
    certificate: String,
    key: String,
}

fn make(names: &[String], now: SystemTime, validity: Duration) -> Result<NewCertificate, rcgen::Error> {
    let (begin, end) = (now - EARLIER, now + validity);
    let mut authority = CertificateParams::default();
    authority.not_before = begin.into();
    authority.not_after = end.into();
    // Unlike every other, so that a certificate shows its owner.
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let authority_key = KeyPair::generate()?;
    let fingerprint: String =
        authority_key.public_key_raw().iter().rev().take(4).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("albatross webhooks {:x}-{fingerprint}", since.as_secs());
    authority.distinguished_name.push(DnType::CommonName, name);
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let mut certificate = CertificateParams::new(names.to_vec())?;
    certificate.not_before = begin.into();
    certificate.not_after = end.into();
    certificate.distinguished_name.push(DnType::CommonName, "albatross webhooks");
    certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    certificate.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let signed = certificate.signed_by(&key, &Issuer::from_params(&authority, &authority_key))?;
    Ok(NewCertificate {
        authority: authority.self_signed(&authority_key)?.pem(),
        certificate: signed.pem(),
        key: key.serialize_pem(),
    })
}

/// Takes a step: changes the Secret's content, and keeps the entries of others.
pub(crate) fn take(
    step: Step,
    data: &mut BTreeMap<String, ByteString>,
    names: &[String],
    now: SystemTime,
    validity: Duration,
) -> Result<(), rcgen::Error> {
    let held = StoredCertificates::read(data);
    let valid = |authority: &&Authority| unix(now) < authority.until;
    let mut put = |key: &str, text: String| drop(data.insert(key.to_owned(), ByteString(text.into_bytes())));
    match step {
        Step::Keep => {}
        Step::Make | Step::Prepare => {
            let made = make(names, now, validity)?;
            let old = held.authorities.iter().filter(valid).map(|authority| authority.pem.as_str());
            put(BUNDLE, old.chain([made.authority.as_str()]).collect());
            let (certificate, key) = if step == Step::Make { (CERTIFICATE, KEY) } else { (NEXT_CERTIFICATE, NEXT_KEY) };
            put(certificate, made.certificate);
            put(key, made.key);
            if step == Step::Make {
                data.remove(NEXT_CERTIFICATE);
                data.remove(NEXT_KEY);
            }
        }
        Step::Switch => {
            for (next, current) in [(NEXT_CERTIFICATE, CERTIFICATE), (NEXT_KEY, KEY)] {
                if let Some(bytes) = data.remove(next) {
                    data.insert(current.to_owned(), bytes);
                }
            }
        }
        Step::Prune => {
            let issuer = held.serving.map(|serving| serving.issuer).unwrap_or_default();
            let own = held.authorities.iter().filter(|authority| authority.subject == issuer);
            put(BUNDLE, own.map(|authority| authority.pem.as_str()).collect());
        }
    }
    Ok(())
}
