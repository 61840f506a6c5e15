//! TLS of listeners and to targets.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{ServerConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use crate::{
    account::{Account, Listener},
    tls::{self, Settings, TlsError},
};

/// The configuration of one listener, kept while nothing that it is made of changes.
#[derive(Debug, Default)]
pub(super) struct Configs {
    last: Mutex<Option<(Settings, Option<Arc<ServerConfig>>)>>,
}

impl Configs {
    /// Returns what accepts a client, or `None` if the listener has no certificate that can be used.
    pub(super) fn acceptor(&self, account: &Account, listener: &Listener) -> Option<TlsAcceptor> {
        let told = |error: &TlsError| tracing::debug!(%error, listener.arn, "no TLS");
        let settings = Settings::of(account, listener, protocols(listener.alpn.as_deref())).inspect_err(told).ok()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let config = match &*last {
            Some((known, config)) if *known == settings => config.clone(),
            _ => {
                let config = settings.config().inspect_err(told).ok();
                *last = Some((settings, config.clone()));
                config
            }
        };
        config.map(TlsAcceptor::from)
    }
}

/// Returns the protocols of a policy, the preferred one first.
fn protocols(policy: Option<&str>) -> &'static [&'static [u8]] {
    match policy {
        Some("HTTP1Only") => &[b"http/1.1", b"http/1.0"],
        Some("HTTP2Only") => &[b"h2"],
        Some("HTTP2Optional") => &[b"http/1.1", b"http/1.0", b"h2"],
        Some("HTTP2Preferred") => &[b"h2", b"http/1.1", b"http/1.0"],
        _ => &[],
    }
}

/// Speaks TLS with a target; its certificate is not looked at. The target is asked for the client's protocol.
///
/// # Errors
/// Returns an error if the handshake fails.
pub(super) async fn to_target(stream: TcpStream, alpn: Option<Vec<u8>>) -> io::Result<client::TlsStream<TcpStream>> {
    let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
    let alpn: Vec<&[u8]> = alpn.iter().map(Vec::as_slice).collect();
    let config = tls::any_certificate(&alpn).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_an_order() {
        let of = |policy: Option<&str>| {
            let names = protocols(policy).iter().map(|name| String::from_utf8_lossy(name).into_owned());
            names.collect::<Vec<_>>().join(" ")
        };
        let table = [
            (None, ""),
            (Some("None"), ""),
            (Some("HTTP1Only"), "http/1.1 http/1.0"),
            (Some("HTTP2Only"), "h2"),
            (Some("HTTP2Optional"), "http/1.1 http/1.0 h2"),
            (Some("HTTP2Preferred"), "h2 http/1.1 http/1.0"),
        ];
        for (policy, expected) in table {
            assert_eq!(of(policy), expected, "{policy:?}");
        }
    }
}
