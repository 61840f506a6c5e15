//! UDP: each address of a client has a flow, which stays with its target.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::UdpSocket,
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    route::{self, Routed},
    stream::Activity,
};
use crate::{
    account::{Account, Listener, LoadBalancer, Protocol},
    node::Node,
    targets::{Picked, scaled},
};

/// In AWS's seconds, the time until a flow without datagrams ends.
const IDLE_SECONDS: f64 = 120.0;

/// Each flow has a socket; with more, the oldest one ends.
const MOST_FLOWS: usize = 1024;

/// Of a datagram.
const LONGEST: usize = 65_535;

/// A flow of a client. It ends when it is dropped.
#[derive(Debug)]
struct Flow {
    picked: Picked,
    socket: Arc<UdpSocket>,
    activity: Arc<Activity>,
    answers: AbortHandle,
}

/// The flows of a listener, `most` at most.
#[derive(Debug)]
struct Flows {
    by_client: HashMap<SocketAddr, Flow>,
    most: usize,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// Serves a UDP listener until the task ends or the listener is not in the node's view. `port` is the listener's port
/// in AWS.
pub async fn serve_udp(socket: UdpSocket, node: Arc<Node>, port: u16) {
    serve(socket, node, port, MOST_FLOWS).await;
}

async fn serve(socket: UdpSocket, node: Arc<Node>, port: u16, most: usize) {
    let mut view = node.view.clone();
    let socket = Arc::new(socket);
    let mut flows = Flows { by_client: HashMap::new(), most };
    let mut buffer = vec![0; LONGEST];
    let idle = scaled(IDLE_SECONDS, node.options.time_scale);
    let mut sweep = interval((idle / 4).max(Duration::from_millis(10)));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while listener_at(&node, &node.account(), port).is_some() {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, client)) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    flows.forward(&socket, &node, port, client, datagram, idle).await;
                }
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            changed = view.changed() => if changed.is_err() { return },
            _ = sweep.tick() => flows.by_client.retain(|_, flow| flow.lives(idle)),
        }
    }
}

fn listener_at<'a>(node: &Node, account: &'a Account, port: u16) -> Option<(&'a LoadBalancer, &'a Listener)> {
    let balancer = node.balancer(account).filter(|balancer| balancer.active)?;
    let listener = balancer.listeners.get(&port)?;
    matches!(listener.protocol, Protocol::Udp | Protocol::TcpUdp).then_some((balancer, listener))
}

impl Flow {
    fn lives(&self, idle: Duration) -> bool {
        !*self.picked.gone.borrow() && self.activity.last().elapsed() < idle
    }
}

impl Flows {
    /// Sends a datagram to the target of its flow; a client without a flow gets one. What has no way is dropped.
    async fn forward(
        &mut self,
        socket: &Arc<UdpSocket>,
        node: &Node,
        port: u16,
        client: SocketAddr,
        datagram: &[u8],
        idle: Duration,
    ) {
        if !self.by_client.get(&client).is_some_and(|flow| flow.lives(idle)) {
            self.by_client.remove(&client);
            let account = node.account();
            let Some((balancer, listener)) = listener_at(node, &account, port) else { return };
            if !route::lets_in(node, &account, balancer, port, true, client) {
                return;
            }
            let Routed::To(route) = route::find(node, &account, balancer, listener, client, true) else { return };
            let Ok(flow) = open(route.picked, socket.clone(), client).await else { return };
            if self.by_client.len() >= self.most {
                let oldest = self.by_client.iter().min_by_key(|(_, flow)| flow.activity.last());
                let oldest = oldest.map(|(client, _)| *client);
                oldest.and_then(|oldest| self.by_client.remove(&oldest));
            }
            self.by_client.insert(client, flow);
        }
        if let Some(flow) = self.by_client.get(&client) {
            flow.activity.note();
            // An error tells of an earlier datagram: nobody listened there. This one is not sent then.
            if flow.socket.send(datagram).await.is_err() {
                let _ = flow.socket.send(datagram).await;
            }
        }
    }
}

/// Opens a flow from the client's own address.
async fn open(picked: Picked, front: Arc<UdpSocket>, client: SocketAddr) -> io::Result<Flow> {
    let socket = Arc::new(UdpSocket::bind(SocketAddr::new(client.ip(), 0)).await?);
    socket.connect(picked.address).await?;
    let activity = Activity::new();
    let answers = tokio::spawn(answer(socket.clone(), front, client, activity.clone())).abort_handle();
    Ok(Flow { picked, socket, activity, answers })
}

/// Sends what a target answers to the client.
async fn answer(back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr, activity: Arc<Activity>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        match back.recv(&mut buffer).await {
            Ok(length) => {
                activity.note();
                let _ = front.send_to(buffer.get(..length).unwrap_or_default(), client).await;
            }
            // Nobody listens at the target's port, for now.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

#[cfg(test)]
mod tests;
