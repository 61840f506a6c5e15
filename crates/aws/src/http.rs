//! The HTTP client under AWS's SDK: through the proxy that [`Proxies`] says, and with the certificates that AWS_CA_BUNDLE
//! names.

use std::{collections::BTreeMap, sync::Arc};

use aws_smithy_http_client::{
    Builder, ConnectorBuilder,
    proxy::ProxyConfig,
    tls::{self, TlsContext, TrustStore},
};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        connector_metadata::ConnectorMetadata,
        http::{
            HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
            SharedHttpConnector,
        },
        orchestrator::HttpRequest,
        runtime_components::{RuntimeComponents, RuntimeComponentsBuilder},
    },
};
use aws_smithy_types::config_bag::ConfigBag;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::ConnectError;
use crate::proxies::{Proxies, ProxyAddress};

/// A client for each way.
#[derive(Debug)]
struct ProxiedClients<T> {
    proxies: Arc<Proxies>,
    direct: T,
    through: BTreeMap<ProxyAddress, T>,
}

/// The HTTP client for all connections to AWS.
#[derive(Clone, Debug)]
pub struct AwsHttp(pub(super) SharedHttpClient);

impl AwsHttp {
    /// Reads the certificates that AWS_CA_BUNDLE names; nothing is connected yet.
    ///
    /// # Errors
    /// When AWS_CA_BUNDLE or a proxy's address cannot be used.
    pub fn new(proxies: Arc<Proxies>) -> Result<Self, ConnectError> {
        let bundle = std::env::var("AWS_CA_BUNDLE").ok().filter(|path| !path.is_empty());
        client(proxies, bundle.as_deref()).map(Self)
    }
}

/// The client for all of AWS's SDK.
///
/// # Errors
/// When AWS_CA_BUNDLE or a proxy's address cannot be used.
fn client(proxies: Arc<Proxies>, bundle: Option<&str>) -> Result<SharedHttpClient, ConnectError> {
    let trust = match bundle {
        Some(path) => TrustStore::empty().with_pem_certificate(read_bundle(path)?),
        None => TrustStore::default(),
    };
    let unusable = |reason: &dyn std::fmt::Display| ConnectError::Client { reason: reason.to_string() };
    let context = TlsContext::builder().with_trust_store(trust).build().map_err(|error| unusable(&error))?;
    let mut through = BTreeMap::new();
    for proxy in proxies.all() {
        let config = ProxyConfig::all(proxy.secret_url()).map_err(|error| unusable(&error))?;
        through.insert(proxy.clone(), one(config, context.clone()));
    }
    let direct = one(ProxyConfig::disabled(), context);
    Ok(SharedHttpClient::new(ProxiedClients { proxies, direct, through }))
}

fn one(proxy: ProxyConfig, context: TlsContext) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
            .tls_context(context.clone())
            .proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    })
}

/// Reads a file of certificates, and ensures that the TLS library accepts them, because it panics at a certificate that it
/// does not accept.
fn read_bundle(path: &str) -> Result<Vec<u8>, ConnectError> {
    let unusable = |reason: String| ConnectError::Bundle { path: path.to_owned(), reason };
    let text = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let certificates: Result<Vec<CertificateDer<'_>>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    Ok(text)
}

impl<T> ProxiedClients<T> {
    fn to(&self, url: &str) -> &T {
        self.proxies.for_url(url).and_then(|proxy| self.through.get(proxy)).unwrap_or(&self.direct)
    }
}

impl HttpClient for ProxiedClients<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let connector = |client: &SharedHttpClient| client.http_connector(settings, components);
        SharedHttpConnector::new(ProxiedClients {
            proxies: Arc::clone(&self.proxies),
            direct: connector(&self.direct),
            through: self.through.iter().map(|(proxy, client)| (proxy.clone(), connector(client))).collect(),
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.direct.validate_base_client_config(components, config)
    }

    fn validate_final_config(&self, components: &RuntimeComponents, config: &ConfigBag) -> Result<(), BoxError> {
        self.direct.validate_final_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.direct.connector_metadata()
    }
}

impl HttpConnector for ProxiedClients<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.to(request.uri()).call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_cannot_be_used_is_told_and_does_not_panic() {
        let refused = |path: &str| client(Arc::default(), Some(path)).unwrap_err().to_string();
        insta::assert_snapshot!(
            refused("/does/not/exist.pem"),
            @"AWS_CA_BUNDLE names `/does/not/exist.pem`, which cannot be used: No such file or directory (os error 2); it has to be a file of PEM certificates that can be read"
        );
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(refused(manifest).contains("there is no certificate in it"), "{}", refused(manifest));
        let path = std::env::temp_dir().join(format!("albatross-bundle-{}.pem", std::process::id()));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let said = refused(path.to_str().unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(said.contains("cannot be used: "), "{said}");
    }
}
