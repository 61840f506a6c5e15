use std::collections::BTreeSet;

use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::*;
use crate::{
    node::Options,
    targets::testing::{self, OPTIONS, change},
};

const SECONDS: Duration = Duration::from_secs(20);

/// Time does not run faster: flows live for two minutes.
const SLOW: Options = Options { time_scale: 1.0, ..OPTIONS };

/// Returns an account whose group is for UDP. Nothing answers its checks, so the node fails open.
fn account(targets: &[(&str, u16)]) -> Account {
    let mut account = testing::account(true, targets);
    let group = account.target_groups.get_mut("tg").unwrap();
    group.protocol = Protocol::Udp;
    group.attributes.insert("deregistration_delay.timeout_seconds".to_owned(), "0".to_owned());
    for listener in account.load_balancers.get_mut("lb").unwrap().listeners.values_mut() {
        listener.protocol = Protocol::Udp;
    }
    account
}

struct Front {
    node: Arc<Node>,
    view: watch::Sender<Arc<Account>>,
    address: SocketAddr,
    served: JoinSet<()>,
}

impl Front {
    async fn new(account: Account, most: usize, options: Options) -> Self {
        let (node, view) = testing::node(account, options);
        let socket = UdpSocket::bind("127.20.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut served = JoinSet::new();
        served.spawn(serve(socket, node.clone(), 80, most));
        Self { node, view, address, served }
    }

    async fn client(&self, address: &str) -> UdpSocket {
        let socket = UdpSocket::bind((address, 0)).await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket
    }
}

/// Starts a target that answers with its own address, the sender's, and the datagram.
async fn echo(tasks: &mut JoinSet<()>, address: &str) -> u16 {
    let socket = UdpSocket::bind((address, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let own = address.to_owned();
    tasks.spawn(async move {
        let mut buffer = [0; 100];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            socket.send_to(format!("{own} {from} {text}").as_bytes(), from).await.unwrap();
        }
    });
    port
}

/// Asks, and returns the target, the address and the port that it saw.
async fn ask(client: &UdpSocket, text: &str) -> (String, String, u16) {
    let mut buffer = [0; 100];
    client.send(text.as_bytes()).await.unwrap();
    let length = timeout(SECONDS, client.recv(&mut buffer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let parts: Vec<&str> = answer.split(' ').collect();
    assert_eq!(parts[2], text);
    let from: SocketAddr = parts[1].parse().unwrap();
    (parts[0].to_owned(), from.ip().to_string(), from.port())
}

#[tokio::test]
async fn a_flow_stays_with_its_target_until_that_is_gone() {
    let mut tasks = JoinSet::new();
    let one = echo(&mut tasks, "127.10.1.71").await;
    let two = echo(&mut tasks, "127.10.1.72").await;
    let mut front = Front::new(account(&[("10.0.1.71", one), ("10.0.1.72", two)]), 100, SLOW).await;
    let mut reached = BTreeSet::new();
    let mut on_one = None;
    for number in 0..40 {
        let client = front.client("127.40.0.71").await;
        let first = ask(&client, "a").await;
        assert_eq!(ask(&client, "b").await, first, "{number}");
        assert_eq!(first.1, "127.40.0.71");
        if first.0 == "127.10.1.71" {
            on_one = Some(client);
        }
        reached.insert(first.0);
    }
    assert_eq!(reached.len(), 2);
    let client = on_one.unwrap();
    change(&front.node, &front.view, |account| {
        account.target_groups.get_mut("tg").unwrap().targets = [testing::target("10.0.1.72", two)].into();
    });
    let moved = async { while ask(&client, "c").await.0 != "127.10.1.72" {} };
    timeout(SECONDS, moved).await.unwrap();
    change(&front.node, &front.view, |account| account.load_balancers.clear());
    timeout(SECONDS, front.served.join_next()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_oldest_flow_ends_when_there_are_too_many() {
    let mut tasks = JoinSet::new();
    let port = echo(&mut tasks, "127.10.1.73").await;
    let front = Front::new(account(&[("10.0.1.73", port)]), 2, SLOW).await;
    let (one, two, three) =
        (front.client("127.40.0.73").await, front.client("127.40.0.74").await, front.client("127.40.0.75").await);
    let first = ask(&one, "a").await;
    sleep(Duration::from_millis(2)).await;
    let second = ask(&two, "b").await;
    sleep(Duration::from_millis(2)).await;
    ask(&three, "c").await;
    assert_eq!(ask(&two, "d").await, second);
    assert_ne!(ask(&one, "e").await, first, "it has a new socket");
}

#[tokio::test]
async fn a_flow_without_datagrams_ends() {
    let mut tasks = JoinSet::new();
    let port = echo(&mut tasks, "127.10.1.76").await;
    let front = Front::new(account(&[("10.0.1.76", port)]), 2, OPTIONS).await;
    let client = front.client("127.40.0.76").await;
    let first = ask(&client, "a").await;
    // 120 s of AWS are 2.4 s here.
    sleep(Duration::from_millis(2500)).await;
    assert_ne!(ask(&client, "b").await, first, "it has a new socket");
}
