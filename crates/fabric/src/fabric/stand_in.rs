//! In the place of the load balancers' own code: connections are copied to a target of the default action, unread.

use std::sync::Arc;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use super::{Directory, attached};
use crate::{account::LoadBalancer, node::Node, targets::Targets};

pub(super) fn set_directory(_targets: &Targets, _directory: Directory) {}

pub(super) async fn alb_serve(listener: TcpListener, node: Arc<Node>, port: u16) {
    serve_tcp(listener, node, port).await;
}

pub(super) async fn serve_tcp(listener: TcpListener, node: Arc<Node>, port: u16) {
    let (mut view, mut connections) = (node.view.clone(), JoinSet::new());
    let is_open = |balancer: &LoadBalancer| balancer.active && balancer.listeners.contains_key(&port);
    while node.balancer(&view.borrow_and_update().clone()).is_some_and(is_open) {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, from)) = accepted {
                let account = node.account();
                let groups = node.balancer(&account).map(attached).unwrap_or_default();
                let picked = groups.first().map(|group| node.targets.pick(&account, group, from, None));
                if let Some(Ok(picked)) = picked {
                    connections.spawn(copy(client, picked.address));
                }
            },
            changed = view.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn copy(mut client: TcpStream, target: std::net::SocketAddr) {
    if let Ok(mut target) = TcpStream::connect(target).await {
        // Either end may break off.
        let _ = copy_bidirectional(&mut client, &mut target).await;
    }
}

pub(super) async fn serve_udp(socket: UdpSocket, node: Arc<Node>, port: u16) {
    let mut view = node.view.clone();
    let is_open = |balancer: &LoadBalancer| balancer.active && balancer.listeners.contains_key(&port);
    let mut buffer = vec![0; 1 << 16];
    while node.balancer(&view.borrow_and_update().clone()).is_some_and(is_open) {
        tokio::select! {
            // Back to the client.
            received = socket.recv_from(&mut buffer) => if let Ok((length, client)) = received {
                let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), client).await;
            },
            changed = view.changed() => if changed.is_err() { return },
        }
    }
}
