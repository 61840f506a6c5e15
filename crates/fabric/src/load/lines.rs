//! Clients of TCP and TLS: they send lines and read them back.

use std::{collections::VecDeque, net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::HeaderMap;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, Lines, ReadHalf, WriteHalf},
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::{
    LINE_EVERY, Shared,
    dial::{self, Watched},
    outcome::{Answer, LostKind, Outcome},
};

/// Opens a connection, sends a line and reads it back.
pub(super) async fn once(shared: &Shared) -> Outcome {
    let exchange = async {
        let mut open = Open::dial(shared).await?;
        open.send(shared, 0).await?;
        open.receive(shared).await
    };
    let done = tokio::time::timeout(shared.spec.timeout, exchange).await;
    done.unwrap_or_else(|_| Err(timed_out(&shared.spec.name))).unwrap_or_else(|outcome| outcome)
}

fn timed_out(whom: &str) -> Outcome {
    Outcome::lost(LostKind::TimedOut, format!("{whom}: no echo"))
}

/// An open connection.
struct Open {
    write: WriteHalf<Watched>,
    lines: Lines<BufReader<ReadHalf<Watched>>>,
    address: Ipv4Addr,
    certificate: Option<Bytes>,
    /// The lines that have not come back: text, and when they were sent by the clock of the book and of the task.
    waiting: VecDeque<(String, Duration, Instant)>,
}

impl Open {
    async fn dial(shared: &Shared) -> Result<Self, Outcome> {
        let connection = shared.dialer.dial(|_| ()).await?;
        let (read, write) = split(connection.stream);
        let (address, certificate) = (connection.address, connection.certificate);
        Ok(Self { write, lines: BufReader::new(read).lines(), address, certificate, waiting: VecDeque::new() })
    }

    async fn send(&mut self, shared: &Shared, number: u64) -> Result<(), Outcome> {
        let line = format!("line {number}");
        let sent = shared.book.elapsed();
        self.waiting.push_back((line.clone(), sent, Instant::now()));
        let written = self.write.write_all(format!("{line}\n").as_bytes()).await;
        written.map_err(|error| dial::lost(self.address, "sending a line", &error))
    }

    /// Reads a line that came back. Safe to be dropped before it is done.
    async fn receive(&mut self, shared: &Shared) -> Result<Outcome, Outcome> {
        let line = self.lines.next_line().await;
        let line = line.map_err(|error| dial::lost(self.address, "reading a line", &error))?;
        let line = line.ok_or_else(|| Outcome::lost(LostKind::Closed, format!("{}: closed", self.address)))?;
        let expected = self.waiting.front().map(|(text, ..)| text.as_str()).unwrap_or_default();
        if !line.contains(expected) {
            return Ok(Outcome::Wrong(format!("{}: `{expected}` came back as `{line}`", self.address)));
        }
        Ok(shared.judged(&Answer {
            status: 0,
            headers: HeaderMap::new(),
            body: line.into_bytes().into(),
            certificate: self.certificate.clone(),
            address: self.address,
            redirected: false,
        }))
    }
}

fn split<T: AsyncRead + AsyncWrite>(stream: T) -> (ReadHalf<T>, WriteHalf<T>) {
    tokio::io::split(stream)
}

/// Keeps a connection and sends a line on it again and again, until the load is stopped and all lines have come back. A
/// connection that the server ends while no line is on its way is opened again and loses nothing.
pub(super) async fn keep(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>, number: u32) {
    let mut clock = tokio::time::interval_at(Instant::now() + LINE_EVERY * (number % 10) / 10, LINE_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open: Option<Open> = None;
    let mut lines = 0_u64;
    let mut stopping = false;
    loop {
        let is_idle = open.as_ref().is_none_or(|open| open.waiting.is_empty());
        if stopping && is_idle {
            return;
        }
        let oldest = open.as_ref().and_then(|open| open.waiting.front()).map(|(_, _, at)| *at + shared.spec.timeout);
        let late = async {
            match oldest {
                Some(time) => tokio::time::sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        let received = async {
            match &mut open {
                Some(open) => open.receive(&shared).await,
                None => std::future::pending().await,
            }
        };
        let failed = tokio::select! {
            () = stop(&mut stopped), if !stopping => {
                stopping = true;
                None
            }
            received = received => match received {
                Ok(outcome) => {
                    if let Some((_, sent, _)) = open.as_mut().and_then(|open| open.waiting.pop_front()) {
                        shared.end(sent, outcome);
                    }
                    None
                }
                Err(outcome) => Some(outcome),
            },
            () = late => Some(timed_out(&shared.spec.name)),
            _ = clock.tick(), if !stopping => {
                lines += 1;
                send(&shared, &mut open, lines).await
            }
        };
        let Some(outcome) = failed else { continue };
        let Some(ended) = open.take() else { continue };
        if ended.waiting.is_empty() {
            shared.book.reopened();
        }
        for (_, sent, _) in ended.waiting {
            shared.end(sent, outcome.clone());
        }
    }
}

/// Waits until the load is stopped.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the load is gone.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Sends a line; first opens the connection if there is none. Returns how the connection failed.
async fn send(shared: &Shared, open: &mut Option<Open>, number: u64) -> Option<Outcome> {
    let sent = shared.book.begin();
    if open.is_none() {
        let dialed = tokio::time::timeout(shared.spec.timeout, Open::dial(shared)).await;
        match dialed.unwrap_or_else(|_| Err(timed_out(&shared.spec.name))) {
            Ok(new) => *open = Some(new),
            Err(outcome) => {
                shared.end(sent, outcome);
                return None;
            }
        }
    }
    open.as_mut()?.send(shared, number).await.err()
}
