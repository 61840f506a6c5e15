//! Stands for `crate::tls`, with its names: the first certificate is used for all host names.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::account::{Account, Listener};

/// Returns the configuration of a listener.
///
/// # Errors
/// Returns an error if the listener has no certificate that can be used.
pub(crate) fn server_config(
    account: &Account,
    listener: &Listener,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let other = |message: &str| rustls::Error::General(message.to_owned());
    let certificate = listener.certificates.first().and_then(|arn| account.certificates.get(arn));
    let certificate = certificate.ok_or_else(|| other("no certificate"))?;
    let chain = CertificateDer::pem_slice_iter(certificate.certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|_| other("the certificate is no PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).map_err(|_| other("the key is no PEM"))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}
