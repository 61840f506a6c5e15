//! TCP connections of pods: what a client speaks is found out, and what a server says is kept until it is killed.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Phase, Shared,
    echo_basic::{EchoBasic, Part},
    http,
    plan::{Ready, Serves},
    proxy_protocol::{self, Header},
    tls::Session,
};
use crate::address;

/// For how long a server that would speak first waits for a header of the proxy protocol, and one that cannot tell yet
/// what a client speaks, for more.
const UNDECIDED: Duration = Duration::from_millis(100);
/// The most bytes that are read before it is clear what a client speaks: the longest header of the proxy protocol.
const AHEAD: usize = 16 + 65535;

/// Accepts connections until the pod begins to end, then waits until all have ended.
pub(super) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    serves: Arc<Ready>,
    phase: watch::Receiver<Phase>,
) {
    let mut connections = JoinSet::new();
    let spawn = |connections: &mut JoinSet<()>, (stream, client): (TcpStream, SocketAddr)| {
        let _ = stream.set_nodelay(true);
        let socket = Socket { stream, shared: shared.clone(), reset: Arc::new(AtomicBool::new(false)) };
        let (shared, serves, phase) = (shared.clone(), serves.clone(), phase.clone());
        connections.spawn(async move {
            if let Err(error) = handle(socket, client, &shared, &serves, phase).await {
                tracing::trace!("{}: a connection of {client}: {error}", shared.name);
            }
        });
    };
    let mut own = phase.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => spawn(&mut connections, accepted),
                // Out of descriptors, or the client has gone already.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
            () = draining(&mut own) => break,
        }
    }
    // What the kernel has accepted is served: closing the listener would reset it.
    while let Some(Ok(accepted)) = listener.accept().now_or_never() {
        spawn(&mut connections, accepted);
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits until the pod begins to end.
pub(super) async fn draining(phase: &mut watch::Receiver<Phase>) {
    // An error means that the pod is gone.
    let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
}

/// A connection that is reset, and not closed, if it is dropped after the pod was killed or `reset` was set.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    shared: Arc<Shared>,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.shared.killed.load(Ordering::Relaxed) || self.reset.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A stream of which some bytes have been read already. They are read again.
#[derive(Debug)]
pub(super) struct Ahead<S> {
    stream: S,
    ahead: BytesMut,
}

impl<S: AsyncRead + Unpin> Ahead<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, ahead: BytesMut::new() }
    }

    /// Reads more ahead. Returns false at the end of the stream, or if too much has been read ahead.
    async fn read_more(&mut self) -> io::Result<bool> {
        Ok(self.ahead.len() < AHEAD && self.stream.read_buf(&mut self.ahead).await? > 0)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.ahead.len().min(buf.remaining());
        buf.put_slice(self.ahead.get(..length).unwrap_or_default());
        self.ahead.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

/// The facts about a connection that its server tells.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The pod.
    pub(super) shared: Arc<Shared>,
    /// The client's address as the pod sees it.
    pub(super) source: SocketAddr,
    /// Set to reset the connection instead of closing it.
    pub(super) reset: Arc<AtomicBool>,
    /// The TLS session, if there is one.
    pub(super) session: Option<Session>,
}

async fn handle(
    socket: Socket,
    client: SocketAddr,
    shared: &Arc<Shared>,
    serves: &Arc<Ready>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let reset = socket.reset.clone();
    let mut stream = Ahead::new(socket);
    let speaks_first = matches!(serves.as_ref(), Serves::EchoBasic(server, _) if server.part == Part::Tcp);
    let source = tokio::select! {
        biased;
        source = proxy_header(&mut stream, speaks_first) => source?,
        () = draining(&mut phase) => return stream.shutdown().await,
    };
    let source = source.unwrap_or_else(|| (address::as_seen(client.ip()), client.port()).into());
    let facts = Facts { shared: shared.clone(), source, reset, session: None };
    match serves.as_ref() {
        Serves::Echo { tls } => {
            if kind_of(&mut stream, &mut phase).await? == Kind::Tls {
                let (mut stream, facts) = accept(tls, stream, facts).await?;
                match kind_of(&mut stream, &mut phase).await? {
                    Kind::Http => http::serve(stream, facts, serves.clone(), phase).await,
                    _ => raw(stream, &facts, phase).await,
                }
            } else {
                match kind_of(&mut stream, &mut phase).await? {
                    Kind::Http => http::serve(stream, facts, serves.clone(), phase).await,
                    _ => raw(stream, &facts, phase).await,
                }
            }
        }
        Serves::EchoBasic(server, Some(tls)) => {
            let (stream, facts) = accept(tls, stream, facts).await?;
            echo_basic(stream, facts, server, serves, phase).await
        }
        Serves::EchoBasic(server, None) => echo_basic(stream, facts, server, serves, phase).await,
        Serves::Text(_) | Serves::Grpc { .. } => http::serve(stream, facts, serves.clone(), phase).await,
    }
}

async fn echo_basic<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    facts: Facts,
    server: &EchoBasic,
    serves: &Arc<Ready>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    if server.part != Part::Tcp {
        return http::serve(stream, facts, serves.clone(), phase).await;
    }
    let mut stream = tokio::io::BufReader::new(stream);
    if !facts.shared.failing.load(Ordering::Relaxed) {
        tokio::select! {
            result = server.lines(&mut stream, facts.session.as_ref()) => result?,
            () = draining(&mut phase) => {}
        }
    }
    stream.shutdown().await
}

async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &TlsAcceptor,
    stream: Ahead<S>,
    facts: Facts,
) -> io::Result<(Ahead<tokio_rustls::server::TlsStream<Ahead<S>>>, Facts)> {
    let stream = tls.accept(stream).await?;
    let session = Some(Session::of(stream.get_ref().1));
    Ok((Ahead::new(stream), Facts { session, ..facts }))
}

/// Reads the header of the proxy protocol if there is one, and returns the client that it names.
async fn proxy_header(stream: &mut Ahead<Socket>, speaks_first: bool) -> io::Result<Option<SocketAddr>> {
    loop {
        match proxy_protocol::read(&stream.ahead) {
            Header::None => return Ok(None),
            Header::Found { length, source } => {
                stream.ahead.advance(length);
                return Ok(source);
            }
            Header::Short => {}
        }
        let more = if speaks_first && stream.ahead.is_empty() {
            tokio::time::timeout(UNDECIDED, stream.read_more()).await.unwrap_or(Ok(false))?
        } else {
            stream.read_more().await?
        };
        if !more {
            return Ok(None);
        }
    }
}

/// The protocol of a client, from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Tls,
    Other,
}

/// Reads ahead until it is clear what a client speaks.
async fn kind_of<S: AsyncRead + Unpin>(stream: &mut Ahead<S>, phase: &mut watch::Receiver<Phase>) -> io::Result<Kind> {
    loop {
        if let Some(kind) = kind(&stream.ahead) {
            return Ok(kind);
        }
        let undecided = !stream.ahead.is_empty();
        let more = tokio::select! {
            biased;
            more = stream.read_more() => more?,
            () = tokio::time::sleep(UNDECIDED), if undecided => false,
            () = draining(phase) => false,
        };
        if !more {
            return Ok(Kind::Other);
        }
    }
}

/// Returns what the first bytes of a client are, or `None` if more are needed. A request of HTTP begins with a method in
/// capital letters and a target; that of HTTP/2 looks like one.
fn kind(bytes: &[u8]) -> Option<Kind> {
    let (first, rest) = bytes.split_first()?;
    if *first == 0x16 {
        return Some(match rest.first() {
            None => return None,
            Some(3) => Kind::Tls,
            Some(_) => Kind::Other,
        });
    }
    let letters = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    match (letters, bytes.get(letters), bytes.get(letters + 1)) {
        (1..=20, None, _) | (1..=20, Some(b' '), None) => None,
        (1..=20, Some(b' '), Some(b'/' | b'*' | b'h')) => Some(Kind::Http),
        _ => Some(Kind::Other),
    }
}

/// Echoes bytes. When the pod begins to end, what has been received is sent back, and the connection is closed.
async fn raw<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    facts: &Facts,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(16384);
    while !facts.shared.failing.load(Ordering::Relaxed) {
        let read = tokio::select! {
            biased;
            read = stream.read_buf(&mut buffer) => read?,
            () = draining(&mut phase) => break,
        };
        if read == 0 {
            break;
        }
        let bytes: Bytes = buffer.split().freeze();
        stream.write_all(&bytes).await?;
        stream.flush().await?;
    }
    stream.shutdown().await?;
    // What a client has sent meanwhile would make a reset of the close.
    let mut rest = [0; 1024];
    let end = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), end).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_a_client_speaks() {
        let rows: [(&[u8], Option<Kind>); 13] = [
            (b"", None),
            (b"GET", None),
            (b"GET ", None),
            (b"GET /", Some(Kind::Http)),
            (b"OPTIONS * HTTP/1.1", Some(Kind::Http)),
            (b"M-SEARCH /", Some(Kind::Http)),
            (b"PRI * HTTP/2.0", Some(Kind::Http)),
            (b"GET x", Some(Kind::Other)),
            (b"hello", Some(Kind::Other)),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAAA", Some(Kind::Other)),
            (b"\x16", None),
            (b"\x16\x03\x01", Some(Kind::Tls)),
            (b"\x16\x04", Some(Kind::Other)),
        ];
        for (bytes, expected) in rows {
            assert_eq!(kind(bytes), expected, "{}", bytes.escape_ascii());
        }
    }
}
