//! Connections of clients.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream, UdpSocket},
};
use tokio_rustls::TlsConnector;

use crate::tls::{self, TlsError};

use super::{
    InvalidSpec, LoadSpec, Resolve, Scheme, Tls,
    outcome::{LostKind, Outcome},
};

/// Opens connections from a load's clients to its host.
pub(super) struct Dialer {
    name: String,
    port: u16,
    clients: u8,
    resolve: Resolve,
    dice: Mutex<fastrand::Rng>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection.
pub(super) struct Connection {
    pub(super) stream: Watched,
    pub(super) address: Ipv4Addr,
    /// The server's certificate in DER.
    pub(super) certificate: Option<Bytes>,
}

impl Dialer {
    /// Returns one for a load's host at a port, with TLS or without.
    pub(super) fn new(spec: &LoadSpec, port: u16, tls: Option<&Tls>, http2: bool) -> Result<Self, InvalidSpec> {
        let tls = tls.map(|tls| {
            let alpn = match (&spec.scheme, http2) {
                (Scheme::Tls(_) | Scheme::Tcp | Scheme::Udp, _) => None,
                (_, true) => Some("h2"),
                (_, false) => Some("http/1.1"),
            };
            let name = ServerName::try_from(tls.server_name.clone());
            let name = name.map_err(|_| InvalidSpec::ServerName(tls.server_name.clone()))?;
            Ok::<_, InvalidSpec>((TlsConnector::from(config(tls, alpn)?), name))
        });
        Ok(Self {
            name: spec.name.clone(),
            port,
            clients: spec.clients,
            resolve: spec.resolve.clone(),
            dice: Mutex::new(fastrand::Rng::with_seed(spec.seed)),
            tls: tls.transpose()?,
        })
    }

    /// Draws one of the host's addresses, and a client's.
    fn draw(&self) -> Result<(Ipv4Addr, Ipv4Addr), Outcome> {
        let addresses = (self.resolve)(&self.name);
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let client = Ipv4Addr::new(127, 40, self.clients, dice.u8(..));
        let address = dice.choice(addresses);
        let address = address.ok_or_else(|| Outcome::lost(LostKind::NoAddress, self.name.clone()))?;
        Ok((address, client))
    }

    /// Opens a connection. `asked` is told the address.
    pub(super) async fn dial(&self, asked: impl Fn(Ipv4Addr)) -> Result<Connection, Outcome> {
        let (address, client) = self.draw()?;
        asked(address);
        let stream = self.connect(address, client).await;
        let stream = stream.map_err(|error| lost(address, "connecting", &error))?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Connection { stream: Watched::new(stream), address, certificate: None });
        };
        let stream = connector.connect(name.clone(), stream).await;
        let stream = stream.map_err(|error| of_handshake(address, &error))?;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(|all| all.first()).map(|first| Bytes::copy_from_slice(first));
        Ok(Connection { stream: Watched::new(stream), address, certificate })
    }

    async fn connect(&self, address: Ipv4Addr, client: Ipv4Addr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((client, 0).into())?;
        socket.set_nodelay(true)?;
        socket.connect(SocketAddr::from((address, self.port))).await
    }

    /// Opens a socket for datagrams.
    pub(super) async fn datagrams(&self, asked: impl Fn(Ipv4Addr)) -> Result<(UdpSocket, Ipv4Addr), Outcome> {
        let (address, client) = self.draw()?;
        asked(address);
        let open = async {
            let socket = UdpSocket::bind((client, 0)).await?;
            socket.connect((address, self.port)).await?;
            io::Result::Ok(socket)
        };
        let socket = open.await.map_err(|error| lost(address, "opening a socket", &error))?;
        Ok((socket, address))
    }
}

fn of_handshake(address: Ipv4Addr, error: &io::Error) -> Outcome {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match of_tls {
        Some(error @ rustls::Error::InvalidCertificate(_)) => Outcome::Wrong(format!("{address}: {error}")),
        Some(error) => Outcome::lost(LostKind::Tls, format!("{address}: {error}")),
        None => lost(address, "TLS handshake", error),
    }
}

/// Returns the loss that an error of a socket is.
pub(super) fn lost(address: Ipv4Addr, doing: &str, error: &io::Error) -> Outcome {
    Outcome::lost(kind_of(error), format!("{address}: {doing}: {error}"))
}

pub(super) fn kind_of(error: &io::Error) -> LostKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => LostKind::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            LostKind::Reset
        }
        io::ErrorKind::UnexpectedEof => LostKind::Closed,
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            LostKind::TimedOut
        }
        io::ErrorKind::InvalidData => LostKind::Garbled,
        _ => LostKind::Client,
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream that records if anything was read since [`Reads::forget`].
pub(super) struct Watched {
    stream: Box<dyn Stream>,
    pub(super) reads: Reads,
}

/// Tells if a stream was read from.
#[derive(Clone, Default)]
pub(super) struct Reads(Arc<AtomicBool>);

impl Reads {
    pub(super) fn forget(&self) {
        self.0.store(false, Ordering::Release);
    }

    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Watched {
    fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), reads: Reads::default() }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if into.filled().len() > before {
            self.reads.0.store(true, Ordering::Release);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn config(tls: &Tls, alpn: Option<&str>) -> Result<Arc<ClientConfig>, TlsError> {
    let alpn = alpn.map(str::as_bytes);
    let Some(roots) = &tls.roots else { return tls::any_certificate(alpn.as_slice()) };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(RootCertStore::clone(roots)).with_no_client_auth();
    config.alpn_protocols = alpn.into_iter().map(<[u8]>::to_vec).collect();
    Ok(Arc::new(config))
}
