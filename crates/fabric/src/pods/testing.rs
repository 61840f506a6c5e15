//! Clients for tests of pods.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::{ContainerPort, ContainerSpec, Pod, PodSpec, Transport};

/// Added to ports, so that tests need no rights.
pub(crate) const OFFSET: u16 = 10_000;
/// For what should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Returns an address of the VPC that no other test has.
pub(crate) fn address() -> IpAddr {
    // Other processes may run tests too.
    [10, 0, fastrand::u8(128..250), fastrand::u8(1..255)].into()
}

pub(crate) fn container(image: &str, ports: &[(u16, Transport)]) -> ContainerSpec {
    let ports = ports.iter().map(|(number, transport)| ContainerPort { number: *number, transport: *transport });
    ContainerSpec { image: image.to_owned(), ports: ports.collect(), ..ContainerSpec::default() }
}

pub(crate) fn start(name: &str, container: ContainerSpec) -> Pod {
    start_at(name, address(), container)
}

pub(crate) fn start_at(name: &str, address: IpAddr, container: ContainerSpec) -> Pod {
    let spec = PodSpec {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        address: Some(address),
        containers: vec![container],
    };
    Pod::start(&spec, OFFSET).unwrap()
}

pub(crate) fn at(pod: &Pod, port: u16) -> SocketAddr {
    (pod.address(), port + OFFSET).into()
}

/// Connects from a client's address.
pub(crate) async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 40, 1, 9), 0).into())?;
    socket.connect(to).await
}

/// An answer of HTTP/1.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Reads one answer; the connection may be used again.
pub(crate) async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Answer> {
    tokio::time::timeout(SOON, async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let pairs = lines.filter_map(|line| line.split_once(": "));
        let headers: BTreeMap<_, _> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(Answer { status, headers, body: String::from_utf8(body).unwrap() })
    })
    .await?
}

/// Sends a request; `headers` end with a line break each.
pub(crate) async fn send<S: AsyncWrite + Unpin>(stream: &mut S, path: &str, headers: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: web.example\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

/// Makes a request on a connection of its own.
pub(crate) async fn get(to: SocketAddr, path: &str, headers: &str) -> io::Result<Answer> {
    let mut stream = connect(to).await?;
    send(&mut stream, path, &format!("connection: close\r\n{headers}")).await;
    answer(&mut stream).await
}

/// Sends bytes and reads as many as are expected.
pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, sent: &[u8], length: usize) -> Vec<u8> {
    stream.write_all(sent).await.unwrap();
    stream.flush().await.unwrap();
    let mut received = vec![0; length];
    tokio::time::timeout(SOON, stream.read_exact(&mut received)).await.unwrap().unwrap();
    received
}

/// Reads to the end, and returns how the connection ended.
pub(crate) async fn end<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, io::ErrorKind> {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap();
    read.map(|_| rest).map_err(|error| error.kind())
}

/// Waits until a connection is refused.
pub(crate) async fn refused(to: SocketAddr) {
    tokio::time::timeout(SOON, async {
        loop {
            match connect(to).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
    .unwrap();
}
