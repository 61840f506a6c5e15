//! Clients of UDP: they send datagrams and wait for their echo, with sockets of their own and with kept ones, which are the
//! same flow again.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hyper::HeaderMap;
use tokio::{net::UdpSocket, time::Instant};

use super::{
    Shared, dial,
    outcome::{Answer, LostKind, Outcome},
};

/// The kept sockets.
#[derive(Default)]
pub(super) struct Client {
    kept: Mutex<VecDeque<Flow>>,
    next: AtomicU64,
}

struct Flow {
    socket: UdpSocket,
    address: Ipv4Addr,
    opened: Instant,
}

impl Client {
    fn kept(&self) -> MutexGuard<'_, VecDeque<Flow>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, shared: &Shared) -> Option<Flow> {
        let mut kept = self.kept();
        if let Some(time) = shared.spec.kept_for {
            kept.retain(|flow| flow.opened.elapsed() < time);
        }
        kept.pop_front()
    }

    /// Sends a datagram and waits for it to come back.
    pub(super) async fn request(&self, shared: &Shared, new: bool) -> Outcome {
        match self.exchange(shared, new).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    async fn exchange(&self, shared: &Shared, new: bool) -> Result<Outcome, Outcome> {
        let kept = if new { None } else { self.take(shared) };
        let flow = match kept {
            Some(flow) => flow,
            None => {
                let (socket, address) = shared.dialer.datagrams(|_| ()).await?;
                Flow { socket, address, opened: Instant::now() }
            }
        };
        let address = flow.address;
        let text = format!("datagram {};", self.next.fetch_add(1, Ordering::Relaxed));
        let exchange = async {
            let failed = |error| dial::lost(address, "datagram", &error);
            flow.socket.send(text.as_bytes()).await.map_err(failed)?;
            let mut buffer = [0; 2048];
            let length = flow.socket.recv(&mut buffer).await.map_err(failed)?;
            Ok(buffer.get(..length).unwrap_or_default().to_vec())
        };
        let echo = tokio::time::timeout(shared.spec.datagram_timeout, exchange).await;
        let echo = echo.unwrap_or_else(|_| Err(Outcome::lost(LostKind::TimedOut, format!("{address}: no echo"))))?;
        let came = String::from_utf8_lossy(&echo);
        if !came.contains(&text) {
            return Ok(Outcome::Wrong(format!("{address}: `{text}` came back as `{came}`")));
        }
        if !new && self.kept().len() < shared.spec.kept_connections {
            self.kept().push_back(flow);
        }
        Ok(shared.judged(&Answer {
            status: 0,
            headers: HeaderMap::new(),
            body: echo.into(),
            certificate: None,
            address,
            redirected: false,
        }))
    }
}
