//! Echo of datagrams.

use std::sync::{Arc, atomic::Ordering};

use tokio::{net::UdpSocket, sync::watch};

use super::{
    Phase, Shared, connection,
    plan::{Ready, Serves},
};

/// Answers datagrams until the pod begins to end.
pub(super) async fn serve(
    socket: UdpSocket,
    shared: Arc<Shared>,
    serves: Arc<Ready>,
    mut phase: watch::Receiver<Phase>,
) {
    let mut buffer = vec![0; 65536];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = connection::draining(&mut phase) => return,
        };
        // An error is about an earlier answer that did not arrive.
        let Ok((length, from)) = received else { continue };
        let datagram = buffer.get(..length).unwrap_or_default();
        if shared.failing.load(Ordering::Relaxed) {
            continue;
        }
        let sent = match serves.as_ref() {
            Serves::EchoBasic(server, _) => socket.send_to(&server.datagram(datagram), from).await,
            _ => socket.send_to(datagram, from).await,
        };
        if let Err(error) = sent {
            tracing::debug!("answering a datagram of {from}: {error}");
        }
    }
}
