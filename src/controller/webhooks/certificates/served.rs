//! The certificate that is served at this moment: another can take its place at any time.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::Leaf;

/// The interval at which the files are read.
const POLL: Duration = Duration::from_secs(10);

/// The certificate that is served.
#[derive(Debug, Default)]
pub(crate) struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl Served {
    /// Serves this one from now on; answers whether it is another than before.
    pub(crate) fn set(&self, key: Arc<CertifiedKey>) -> bool {
        let mut served = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let same = served.as_ref().is_some_and(|old| old.cert == key.cert);
        *served = Some(key);
        !same
    }

    /// The one that is served.
    pub(crate) fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns true if there is no certificate yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.current().is_none()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

/// The files of a certificate that another program maintains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// `--webhook-cert-dir` with `--webhook-cert-file`
    pub certificate: PathBuf,
    /// `--webhook-cert-dir` with `--webhook-key-file`
    pub key: PathBuf,
}

impl Files {
    async fn read(&self) -> Result<Leaf, String> {
        let read = async |path: &Path| {
            tokio::fs::read(path).await.map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let (certificate, key) = (read(&self.certificate).await?, read(&self.key).await?);
        Leaf::read(&certificate, &key, &aws_lc_rs::default_provider())
            .map_err(|error| format!("{} and {}: {error}", self.certificate.display(), self.key.display()))
    }

    /// Serves what the files hold, and again when they change, for ever.
    pub(crate) async fn follow(self, served: Arc<Served>) {
        let mut reported = None;
        loop {
            match self.read().await {
                Ok(leaf) => {
                    reported = None;
                    if served.set(leaf.key) {
                        tracing::info!(
                            "the webhooks are served with the certificate in {}",
                            self.certificate.display()
                        );
                    }
                }
                // While another program writes the files, one may be ahead of the other; the current certificate stays in use.
                Err(error) => {
                    if reported.as_ref() != Some(&error) {
                        tracing::warn!("the webhooks' certificate cannot be used: {error}");
                        reported = Some(error);
                    }
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
