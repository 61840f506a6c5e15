use std::net::IpAddr;

use rcgen::generate_simple_self_signed;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::{
    account::{Action, Certificate, TargetType},
    targets::testing::{self, OPTIONS, change},
};

const SECONDS: Duration = Duration::from_secs(20);

/// A listener of a node, with what changes the node's view.
struct Front {
    node: Arc<Node>,
    view: watch::Sender<Arc<Account>>,
    address: SocketAddr,
    served: JoinSet<()>,
}

impl Front {
    async fn new(account: Account) -> Self {
        let (node, view) = testing::node(account, OPTIONS);
        let listener = TcpListener::bind("127.20.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut served = JoinSet::new();
        served.spawn(serve_tcp(listener, node.clone(), 80));
        Self { node, view, address, served }
    }

    async fn dial(&self, client: &str) -> TcpStream {
        let client: IpAddr = client.parse().unwrap();
        let IpAddr::V4(client) = client else { panic!("{client}") };
        dial(client, self.address).await.unwrap()
    }

    fn change(&self, how: impl FnOnce(&mut Account)) {
        change(&self.node, &self.view, how);
    }
}

/// A target that says who speaks to it, then returns what it gets. It ends when it is dropped.
struct Echo {
    port: u16,
    _served: JoinSet<()>,
}

impl Echo {
    async fn new(address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut served = JoinSet::new();
        let own = address.to_owned();
        served.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, peer)) = listener.accept().await {
                connections.spawn(echo(stream, format!("{own} from {}\n", peer.ip())));
            }
        });
        Self { port, _served: served }
    }
}

async fn echo(mut stream: impl Connection, hello: String) {
    stream.write_all(hello.as_bytes()).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

async fn line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let read = async {
        let mut line = Vec::new();
        loop {
            match stream.read_u8().await? {
                b'\n' => return Ok(String::from_utf8(line).unwrap()),
                byte => line.push(byte),
            }
        }
    };
    timeout(SECONDS, read).await.unwrap()
}

/// Returns how a connection ends, after all that comes.
async fn end(mut stream: TcpStream) -> Result<Vec<u8>, io::ErrorKind> {
    let mut all = Vec::new();
    let read = timeout(SECONDS, stream.read_to_end(&mut all)).await.unwrap();
    read.map(|_| all).map_err(|error| error.kind())
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let echo = Echo::new("127.10.1.51").await;
    let front = Front::new(testing::account(true, &[("10.0.1.51", echo.port)])).await;
    let mut client = front.dial("127.40.0.51").await;
    assert_eq!(line(&mut client).await.unwrap(), "127.10.1.51 from 127.20.0.1");
    let sent: Vec<u8> = (0..200_000u32).map(|number| number.to_le_bytes()[1]).collect();
    let (mut read, mut write) = client.split();
    let mut all = Vec::new();
    let talk = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (_, read) = timeout(SECONDS, async { tokio::join!(talk, read.read_to_end(&mut all)) }).await.unwrap();
    assert_eq!(read.unwrap(), sent.len());
    assert!(all == sent);
}

#[tokio::test]
async fn a_target_sees_the_client_if_its_group_says_so() {
    let echo = Echo::new("127.10.1.52").await;
    let mut account = testing::account(true, &[("10.0.1.52", echo.port)]);
    let group = account.target_groups.get_mut("tg").unwrap();
    group.attributes.insert("preserve_client_ip.enabled".to_owned(), "true".to_owned());
    let listener = account.load_balancers.get_mut("lb").unwrap().listeners.get_mut(&80).unwrap();
    listener.attributes.insert("tcp.idle_timeout.seconds".to_owned(), "60".to_owned());
    let front = Front::new(account).await;
    let mut client = front.dial("127.40.0.52").await;
    assert_eq!(line(&mut client).await.unwrap(), "127.10.1.52 from 127.40.0.52");
    let mut hairpin = front.dial("127.10.1.52").await;
    hairpin.write_all(b"x").await.unwrap();
    assert_eq!(end(hairpin).await, Ok(Vec::new()), "nothing comes until the connection was idle for long");
}

#[tokio::test]
async fn the_proxy_protocols_header_comes_first() {
    let target = TcpListener::bind("127.10.1.53:0").await.unwrap();
    let mut account = testing::account(true, &[("10.0.1.53", target.local_addr().unwrap().port())]);
    let group = account.target_groups.get_mut("tg").unwrap();
    group.attributes.insert("proxy_protocol_v2.enabled".to_owned(), "true".to_owned());
    let front = Front::new(account).await;
    let mut client = front.dial("127.40.0.53").await;
    client.write_all(b"hello").await.unwrap();
    let expected = {
        let seen = SocketAddr::new("198.18.0.53".parse().unwrap(), client.local_addr().unwrap().port());
        [proxy::header(seen, "127.20.0.1:80".parse().unwrap()), b"hello".to_vec()].concat()
    };
    loop {
        let (mut stream, _) = timeout(SECONDS, target.accept()).await.unwrap().unwrap();
        let mut first = vec![0; 16];
        stream.read_exact(&mut first).await.unwrap();
        if first == proxy::LOCAL {
            continue;
        }
        let mut rest = vec![0; expected.len() - first.len()];
        timeout(SECONDS, stream.read_exact(&mut rest)).await.unwrap().unwrap();
        assert_eq!([first, rest].concat(), expected);
        break;
    }
}

#[tokio::test]
async fn a_client_is_reset_if_nobody_takes_it() {
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.10.1.54:0".parse().unwrap()).unwrap();
    let port = deaf.local_addr().unwrap().port();
    let front = Front::new(testing::account(true, &[("10.0.1.54", port)])).await;
    assert_eq!(end(front.dial("127.40.0.54").await).await, Err(io::ErrorKind::ConnectionReset), "refused");
    front.change(|account| account.target_groups.get_mut("tg").unwrap().targets.clear());
    assert_eq!(end(front.dial("127.40.0.54").await).await, Err(io::ErrorKind::ConnectionReset), "no target");
    front.change(|account| {
        for listener in account.load_balancers.get_mut("lb").unwrap().listeners.values_mut() {
            listener.default_actions = vec![Action::Authenticate];
        }
    });
    assert_eq!(end(front.dial("127.40.0.54").await).await, Err(io::ErrorKind::ConnectionReset), "no group");
}

#[tokio::test]
async fn connections_outlive_their_targets_registration_and_their_listener() {
    let (old, new) = (Echo::new("127.10.1.55").await, Echo::new("127.10.1.56").await);
    let mut front = Front::new(testing::account(true, &[("10.0.1.55", old.port)])).await;
    let mut client = front.dial("127.40.0.55").await;
    assert_eq!(line(&mut client).await.unwrap(), "127.10.1.55 from 127.20.0.1");
    front.change(|account| {
        let group = account.target_groups.get_mut("tg").unwrap();
        group.targets = [testing::target("10.0.1.56", new.port)].into();
        group.attributes.insert("deregistration_delay.timeout_seconds".to_owned(), "0".to_owned());
    });
    let mut other = front.dial("127.40.0.55").await;
    assert_eq!(line(&mut other).await.unwrap(), "127.10.1.56 from 127.20.0.1");
    testing::wait_for(&front.node.targets, "healthy").await;
    client.write_all(b"still here\n").await.unwrap();
    assert_eq!(line(&mut client).await.unwrap(), "still here");
    front.change(|account| account.load_balancers.get_mut("lb").unwrap().listeners.clear());
    let closed = async {
        while TcpStream::connect(front.address).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SECONDS, closed).await.unwrap();
    client.write_all(b"and here\n").await.unwrap();
    assert_eq!(line(&mut client).await.unwrap(), "and here");
    drop((client, other));
    timeout(SECONDS, front.served.join_next()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn connections_end_with_draining_if_they_are_to() {
    let echo = Echo::new("127.10.1.57").await;
    let mut account = testing::account(true, &[("10.0.1.57", echo.port)]);
    let group = account.target_groups.get_mut("tg").unwrap();
    for (key, value) in [
        ("deregistration_delay.timeout_seconds", "100"),
        ("deregistration_delay.connection_termination.enabled", "true"),
    ] {
        group.attributes.insert(key.to_owned(), value.to_owned());
    }
    let front = Front::new(account).await;
    let mut client = front.dial("127.40.0.57").await;
    line(&mut client).await.unwrap();
    front.change(|account| account.target_groups.get_mut("tg").unwrap().targets.clear());
    client.write_all(b"drains\n").await.unwrap();
    assert_eq!(line(&mut client).await.unwrap(), "drains");
    assert_eq!(end(client).await, Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let echo = Echo::new("127.10.1.58").await;
    let mut account = testing::account(true, &[("10.0.1.58", echo.port)]);
    for listener in account.load_balancers.get_mut("lb").unwrap().listeners.values_mut() {
        listener.attributes.insert("tcp.idle_timeout.seconds".to_owned(), "60".to_owned());
    }
    let front = Front::new(account).await;
    let mut client = front.dial("127.40.0.58").await;
    line(&mut client).await.unwrap();
    let begin = std::time::Instant::now();
    assert_eq!(end(client).await, Err(io::ErrorKind::ConnectionReset));
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn tls_ends_at_the_listener_and_begins_anew_to_the_target() {
    let certificate = |name: &str| {
        let made = generate_simple_self_signed([name.to_owned()]).unwrap();
        Certificate { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    };
    let plain = Echo::new("127.10.1.59").await;
    let mut account = testing::account(true, &[("10.0.1.59", plain.port)]);
    account.certificates.insert("certificate".to_owned(), certificate("example.org"));
    account.certificates.insert("target".to_owned(), certificate("target"));
    let listener = account.load_balancers.get_mut("lb").unwrap().listeners.get_mut(&80).unwrap();
    listener.protocol = Protocol::Tls;
    listener.certificates = vec!["certificate".to_owned()];
    listener.alpn = Some("HTTP2Preferred".to_owned());
    let mut of_target = listener.clone();
    of_target.certificates = vec!["target".to_owned()];
    let target_config = crate::tls::Settings::of(&account, &of_target, &[b"h2"]).unwrap().config().unwrap();
    let front = Front::new(account).await;
    let hello = async |alpn: &[&[u8]]| {
        let connector = TlsConnector::from(crate::tls::any_certificate(alpn).unwrap());
        let name = ServerName::try_from("example.org").unwrap();
        let mut client = connector.connect(name, front.dial("127.40.0.59").await).await.unwrap();
        let agreed = client.get_ref().1.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap());
        let said = line(&mut client).await.unwrap();
        client.write_all(b"echo\n").await.unwrap();
        assert_eq!(line(&mut client).await.unwrap(), "echo");
        (agreed, said)
    };
    let said = "127.10.1.59 from 127.20.0.1".to_owned();
    assert_eq!(hello(&[b"http/1.1", b"h2"]).await, (Some("h2".to_owned()), said.clone()));
    assert_eq!(hello(&[b"http/1.1"]).await, (Some("http/1.1".to_owned()), said.clone()));
    assert_eq!(hello(&[]).await, (None, said));

    let target = TcpListener::bind("127.10.1.60:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    front.change(|account| {
        let group = account.target_groups.get_mut("tg").unwrap();
        group.protocol = Protocol::Tls;
        group.targets = [testing::target("10.0.1.60", port)].into();
    });
    let acceptor = TlsAcceptor::from(target_config);
    let served = async {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = target.accept().await.unwrap();
            // A health check closes it.
            if let Ok(stream) = acceptor.accept(stream).await {
                let alpn = String::from_utf8(stream.alpn().unwrap_or_default()).unwrap();
                connections.spawn(echo(stream, format!("over {alpn}\n")));
            }
        }
    };
    tokio::select! {
        hello = hello(&[b"h2"]) => assert_eq!(hello, (Some("h2".to_owned()), "over h2".to_owned())),
        () = served => {}
    }
}

#[tokio::test]
async fn a_load_balancer_is_a_target_that_sees_the_client() {
    let echo = Echo::new("127.20.9.61").await;
    let mut account = testing::account(true, &[("alb", echo.port)]);
    account.target_groups.get_mut("tg").unwrap().target_type = TargetType::Alb;
    let front = Front::new(account).await;
    front.node.targets.set_directory(Arc::new(|arn| (arn == "alb").then_some(Ipv4Addr::new(127, 20, 9, 61))));
    let mut client = front.dial("127.40.0.61").await;
    assert_eq!(line(&mut client).await.unwrap(), "127.20.9.61 from 127.40.0.61");
    testing::wait_for(&front.node.targets, "healthy").await;
}
