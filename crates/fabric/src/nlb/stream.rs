//! Bytes from one connection to another.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    net::TcpStream,
    time::{Instant, sleep_until},
};

/// A connection over TCP, with or without TLS.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {
    /// Returns the socket below.
    fn tcp(&self) -> &TcpStream;

    /// Returns the protocol that TLS has agreed on.
    fn alpn(&self) -> Option<Vec<u8>>;
}

impl Connection for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }

    fn alpn(&self) -> Option<Vec<u8>> {
        None
    }
}

impl Connection for tokio_rustls::server::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn alpn(&self) -> Option<Vec<u8>> {
        self.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    }
}

impl Connection for tokio_rustls::client::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn alpn(&self) -> Option<Vec<u8>> {
        self.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    }
}

/// Carries bytes both ways until both sides have ended, each on its own.
///
/// # Errors
/// Returns an error if a side breaks off, or if nothing comes from either for `idle`.
pub(super) async fn carry(
    front: &mut Box<dyn Connection>,
    back: &mut Box<dyn Connection>,
    idle: Duration,
) -> io::Result<()> {
    let activity = Activity::new();
    let mut front = Watched { inner: front, activity: activity.clone() };
    let mut back = Watched { inner: back, activity: activity.clone() };
    tokio::select! {
        over = copy_bidirectional(&mut front, &mut back) => over.map(|_| ()),
        () = activity.silence(idle) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// When something came last.
#[derive(Debug)]
pub(super) struct Activity {
    begin: Instant,
    /// In milliseconds.
    last: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { begin: Instant::now(), last: AtomicU64::new(0) })
    }

    /// Notes that something came.
    pub(super) fn note(&self) {
        let elapsed = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }

    /// Returns when something came last.
    pub(super) fn last(&self) -> Instant {
        self.begin + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Waits until nothing came for a time.
    pub(super) async fn silence(&self, time: Duration) {
        loop {
            let last = self.last();
            sleep_until(last + time).await;
            if self.last() == last {
                return;
            }
        }
    }
}

struct Watched<'a> {
    inner: &'a mut Box<dyn Connection>,
    activity: Arc<Activity>,
}

impl AsyncRead for Watched<'_> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = ready!(Pin::new(&mut this.inner).poll_read(context, buffer));
        this.activity.note();
        Poll::Ready(match read {
            // Many close a connection without telling TLS.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            read => read,
        })
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_begins_anew_with_each_byte() {
        let activity = Activity::new();
        let begin = Instant::now();
        let noise = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(200)).await;
                activity.note();
            }
        };
        tokio::join!(noise, activity.silence(Duration::from_secs(350)));
        assert_eq!(begin.elapsed().as_secs(), 600 + 350);
    }
}
