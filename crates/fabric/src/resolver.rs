//! A DNS server for the names of load balancers.
//!
//! Names of Elastic Load Balancing that no load balancer has do not exist (NXDOMAIN). All other names are REFUSED: a
//! stub resolver that has this server first in `resolv.conf` then asks the next one, while it would believe NXDOMAIN.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{DEFAULT_MAX_PAYLOAD_LEN, Edns, Message, MessageType, Metadata, OpCode, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, SOA},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

/// The address of the server; it has no other use.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 30, 0, 53);
/// For how many seconds a client may keep the addresses of a load balancer.
pub const TTL_SECONDS: u32 = 60;

const PORT: u16 = 53;
const TCP_CLIENTS: usize = 64;
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Without EDNS.
const SHORTEST_PAYLOAD: u16 = 512;

/// Addresses by name, in lower case and without the dot at the end.
pub type Names = BTreeMap<String, Vec<Ipv4Addr>>;

/// The sockets of the server, not served yet.
#[derive(Debug)]
pub struct Resolver {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Resolver {
    /// Binds port 53, with `port_offset` added, of [`ADDRESS`], or a free one where that is not allowed or taken.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// Returns an error if no port can be bound.
    pub fn bind(port_offset: u16) -> io::Result<Self> {
        let port = PORT.saturating_add(port_offset);
        Self::bind_port(port).or_else(|error| {
            tracing::warn!("DNS cannot have port {port} of {ADDRESS}, and has another: {error}");
            // The TCP port of the same number may be taken.
            (0..16).map(|_| Self::bind_port(0)).find(Result::is_ok).unwrap_or_else(|| Self::bind_port(0))
        })
    }

    fn bind_port(port: u16) -> io::Result<Self> {
        let udp = StdUdpSocket::bind((ADDRESS, port))?;
        let address = udp.local_addr()?;
        let tcp = std::net::TcpListener::bind(address)?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp: UdpSocket::from_std(udp)?, tcp: TcpListener::from_std(tcp)?, address })
    }

    /// Returns the address where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped.
    pub async fn serve(self, names: watch::Receiver<Arc<Names>>, ttl: u32) {
        tokio::join!(serve_udp(self.udp, names.clone(), ttl), serve_tcp(self.tcp, names, ttl));
    }
}

async fn serve_udp(socket: UdpSocket, names: watch::Receiver<Arc<Names>>, ttl: u32) {
    let mut buffer = [0; 4096];
    for turn in (0..usize::MAX).cycle() {
        // An error is of a datagram that was sent before: its client is gone.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let names = names.borrow().clone();
        let query = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = reply(&names, query, Limit::Payload, ttl, turn) {
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, names: watch::Receiver<Arc<Names>>, ttl: u32) {
    let (places, mut clients) = (Arc::new(Semaphore::new(TCP_CLIENTS)), JoinSet::new());
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let names = names.clone();
                clients.spawn(async move {
                    // A client that breaks off is no concern of others.
                    let _ = serve_client(stream, &names, ttl).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("DNS over TCP: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_client(mut stream: TcpStream, names: &watch::Receiver<Arc<Names>>, ttl: u32) -> io::Result<()> {
    for turn in 0.. {
        let length = timeout(TCP_IDLE, stream.read_u16()).await??;
        let mut query = vec![0; length.into()];
        timeout(TCP_IDLE, stream.read_exact(&mut query)).await??;
        let names = names.borrow().clone();
        let Some(answer) = reply(&names, &query, Limit::None, ttl, turn) else { break };
        let Ok(length) = u16::try_from(answer.len()) else { break };
        timeout(TCP_IDLE, stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())).await??;
    }
    Ok(())
}

/// The longest answer that the transport takes.
#[derive(Clone, Copy)]
enum Limit {
    /// As long as the client says.
    Payload,
    /// Any.
    None,
}

/// Returns the answer's bytes, or `None` where none is due: to what is no query.
fn reply(names: &Names, bytes: &[u8], limit: Limit, ttl: u32, turn: usize) -> Option<Vec<u8>> {
    let Ok(query) = Message::from_vec(bytes) else {
        let (id, flags) = (bytes.first_chunk::<2>()?, bytes.get(2)?);
        let is_answer = flags & 0x80 != 0;
        let error = Message::error_msg(u16::from_be_bytes(*id), OpCode::Query, ResponseCode::FormErr);
        return if is_answer { None } else { error.to_vec().ok() };
    };
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let message = answer(names, &query, ttl, turn);
    let bytes = message.to_vec().ok()?;
    let longest = query.edns.as_ref().map_or(SHORTEST_PAYLOAD, |edns| edns.max_payload().max(SHORTEST_PAYLOAD));
    match limit {
        Limit::Payload if bytes.len() > usize::from(longest) => message.truncate().to_vec().ok(),
        Limit::Payload | Limit::None => Some(bytes),
    }
}

/// Returns the answer to a query. `turn` says with which of several addresses it begins.
fn answer(names: &Names, query: &Message, ttl: u32, turn: usize) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&query.metadata);
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(DEFAULT_MAX_PAYLOAD_LEN);
        answer.set_edns(edns);
    }
    answer.metadata.response_code = if query.metadata.op_code == OpCode::Query {
        match query.queries.as_slice() {
            [question] => {
                answer.add_query(question.clone());
                let of_class = matches!(question.query_class(), DNSClass::IN | DNSClass::ANY);
                if of_class {
                    records(names, question.name(), question.query_type(), ttl, turn, &mut answer)
                } else {
                    ResponseCode::Refused
                }
            }
            _ => ResponseCode::FormErr,
        }
    } else {
        ResponseCode::NotImp
    };
    answer
}

fn records(
    names: &Names,
    name: &Name,
    record: RecordType,
    ttl: u32,
    turn: usize,
    answer: &mut Message,
) -> ResponseCode {
    let text = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let addresses = names.get(&text);
    let Some(zone) = zone(&text).or(addresses.map(|_| text.as_str())) else {
        return ResponseCode::Refused;
    };
    answer.metadata.authoritative = true;
    if let Some(addresses) = addresses
        && matches!(record, RecordType::A | RecordType::ANY)
    {
        let (after, first) = addresses.split_at(turn.checked_rem(addresses.len()).unwrap_or_default());
        for address in first.iter().chain(after) {
            answer.add_answer(Record::from_rdata(name.clone(), ttl, RData::A(A(*address))));
        }
        return ResponseCode::NoError;
    }
    // A client may keep that there is nothing for as long as the SOA record says.
    if let (Ok(zone), Ok(server), Ok(mailbox)) =
        (Name::from_ascii(zone), Name::from_ascii("ns.invalid."), Name::from_ascii("hostmaster.invalid."))
    {
        let soa = SOA::new(server, mailbox, 1, 7_200, 900, 1_209_600, ttl);
        answer.add_authority(Record::from_rdata(zone, ttl, RData::SOA(soa)));
    }
    // Above a name that exists there is no name that does not.
    let is_above =
        |zone: &str| names.keys().any(|known| known.strip_suffix(zone).is_some_and(|own| own.ends_with('.')));
    if addresses.is_some() || text == zone || is_above(&text) { ResponseCode::NoError } else { ResponseCode::NXDomain }
}

/// Returns the zone of Elastic Load Balancing that a name is in: `elb.amazonaws.com`, `elb.REGION.amazonaws.com` or
/// `REGION.elb.amazonaws.com`.
fn zone(name: &str) -> Option<&str> {
    let before = match name.strip_suffix("amazonaws.com")? {
        "" => return None,
        before => before.strip_suffix('.')?,
    };
    let mut labels = before.rsplit('.');
    let (last, region) = (labels.next()?, labels.next());
    let kept = match (last, region) {
        ("elb", _) => last.len(),
        (_, Some("elb")) => "elb.".len() + last.len(),
        _ => return None,
    };
    name.get(before.len().checked_sub(kept)?..)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;

    use super::*;

    const LB: &str = "lb-1.eu-west-1.elb.amazonaws.com";
    const NLB: &str = "lb-0123456789abcdef.elb.eu-west-1.amazonaws.com";

    fn names() -> Names {
        let addresses = (1..=3).map(|last| Ipv4Addr::new(127, 20, 0, last)).collect();
        let zonal = (format!("eu-west-1a.{LB}"), vec![Ipv4Addr::new(127, 20, 0, 1)]);
        let network = (NLB.to_owned(), vec![Ipv4Addr::new(127, 20, 0, 4)]);
        BTreeMap::from([(LB.to_owned(), addresses), zonal, network, ("none.elb.amazonaws.com".to_owned(), vec![])])
    }

    fn query(name: &str, record: RecordType) -> Message {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), record));
        query
    }

    /// The code, whether the answer is authoritative, the addresses and the owners of SOA records.
    fn summary(answer: &Message) -> (ResponseCode, bool, Vec<String>, Vec<String>) {
        let address = |record: &Record| match &record.data {
            RData::A(address) => format!("{} {}", record.ttl, address.0),
            other => format!("{other:?}"),
        };
        (
            answer.metadata.response_code,
            answer.metadata.authoritative,
            answer.answers.iter().map(address).collect(),
            answer.authorities.iter().map(|record| record.name.to_ascii()).collect(),
        )
    }

    #[test]
    fn names_of_load_balancers_have_addresses_and_all_others_have_none() {
        use RecordType::{A, AAAA, ANY, HTTPS};
        use ResponseCode::{NXDomain, NoError, Refused};
        let three = ["60 127.20.0.1", "60 127.20.0.2", "60 127.20.0.3"].as_slice();
        let zone = ["elb.amazonaws.com"].as_slice();
        for (name, record, code, authoritative, addresses, soa) in [
            (LB, A, NoError, true, three, [].as_slice()),
            ("lb-1.eu-west-1.elb.amazonaws.com.", A, NoError, true, three, &[]),
            ("LB-1.eu-West-1.ELB.amazonaws.COM", A, NoError, true, three, &[]),
            (LB, ANY, NoError, true, three, &[]),
            (LB, AAAA, NoError, true, &[], zone),
            (LB, HTTPS, NoError, true, &[], zone),
            ("eu-west-1a.lb-1.eu-west-1.elb.amazonaws.com", A, NoError, true, &["60 127.20.0.1"], &[]),
            ("eu-west-1b.lb-1.eu-west-1.elb.amazonaws.com", A, NXDomain, true, &[], zone),
            ("gone-1.eu-west-1.elb.amazonaws.com", A, NXDomain, true, &[], zone),
            (NLB, A, NoError, true, &["60 127.20.0.4"], &[]),
            ("gone-1.elb.eu-west-1.amazonaws.com", A, NXDomain, true, &[], &["elb.eu-west-1.amazonaws.com"]),
            ("none.elb.amazonaws.com", A, NoError, true, &[], &[]),
            ("elb.amazonaws.com", A, NoError, true, &[], zone),
            ("eu-west-1.elb.amazonaws.com", A, NoError, true, &[], zone),
            ("s3.eu-west-1.amazonaws.com", A, Refused, false, &[], &[]),
            ("amazonaws.com", A, Refused, false, &[], &[]),
            ("elbamazonaws.com", A, Refused, false, &[], &[]),
            ("elb.notamazonaws.com", A, Refused, false, &[], &[]),
            ("example.com", A, Refused, false, &[], &[]),
            (".", A, Refused, false, &[], &[]),
        ] {
            let query = query(name, record);
            let answer = answer(&names(), &query, 60, 0);
            let soa: Vec<_> = soa.iter().map(ToString::to_string).collect();
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            assert_eq!(summary(&answer), (code, authoritative, addresses, soa), "{name} {record}");
            assert_eq!((answer.metadata.id, &answer.queries), (query.metadata.id, &query.queries));
            assert!(answer.metadata.recursion_desired && answer.metadata.message_type == MessageType::Response);
        }
    }

    #[test]
    fn each_turn_begins_with_another_address() {
        let first = |turn| summary(&answer(&names(), &query(LB, RecordType::A), 60, turn)).2[0].clone();
        assert_eq!([0, 1, 2, 3].map(first), ["60 127.20.0.1", "60 127.20.0.2", "60 127.20.0.3", "60 127.20.0.1"]);
    }

    #[test]
    fn what_is_no_question_is_answered_with_an_error_or_not_at_all() {
        let mut update = query(LB, RecordType::A);
        update.metadata.op_code = OpCode::Update;
        assert_eq!(answer(&names(), &update, 60, 0).metadata.response_code, ResponseCode::NotImp);
        let mut two = query(LB, RecordType::A);
        two.add_query(two.queries[0].clone());
        assert_eq!(answer(&names(), &two, 60, 0).metadata.response_code, ResponseCode::FormErr);
        let mut chaos = query(LB, RecordType::A);
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(answer(&names(), &chaos, 60, 0).metadata.response_code, ResponseCode::Refused);
        let response = answer(&names(), &query(LB, RecordType::A), 60, 0).to_vec().unwrap();
        for (bytes, expected) in [
            (response.as_slice(), None),
            (&[], None),
            (&[1, 2], None),
            (&[1, 2, 0x80], None),
            (&[1, 2, 0, 0, 0, 1], Some((0x102, ResponseCode::FormErr))),
        ] {
            let bytes = reply(&names(), bytes, Limit::Payload, 60, 0);
            let answer = bytes.map(|bytes| Message::from_vec(&bytes).unwrap().metadata);
            assert_eq!(answer.map(|answer| (answer.id, answer.response_code)), expected);
        }
    }

    #[test]
    fn an_answer_that_is_too_long_says_so() {
        let addresses = (0..100).map(|last| Ipv4Addr::new(127, 20, 0, last)).collect();
        let names = BTreeMap::from([(LB.to_owned(), addresses)]);
        let mut with_edns = query(LB, RecordType::A);
        with_edns.set_edns(Edns::new().set_max_payload(4_096).clone());
        for (query, limit, expected) in [
            (query(LB, RecordType::A), Limit::Payload, (true, 0, false)),
            (query(LB, RecordType::A), Limit::None, (false, 100, false)),
            (with_edns, Limit::Payload, (false, 100, true)),
        ] {
            let answer = reply(&names, &query.to_vec().unwrap(), limit, 60, 0).unwrap();
            let answer = Message::from_vec(&answer).unwrap();
            assert_eq!((answer.metadata.truncation, answer.answers.len(), answer.edns.is_some()), expected);
        }
    }

    #[tokio::test]
    async fn it_answers_over_udp_and_tcp() {
        let resolver = Resolver::bind(0).unwrap();
        let address = resolver.address();
        let (sender, receiver) = watch::channel(Arc::new(names()));
        let server = tokio::spawn(resolver.serve(receiver, 60));
        let limit = Duration::from_secs(10);
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut buffer = [0; 1_024];
        for (name, code) in [(LB, ResponseCode::NoError), ("example.com", ResponseCode::Refused)] {
            client.send_to(b"?", address).await.unwrap();
            client.send_to(&query(name, RecordType::A).to_vec().unwrap(), address).await.unwrap();
            let (length, from) = timeout(limit, client.recv_from(&mut buffer)).await.unwrap().unwrap();
            let answer = Message::from_vec(&buffer[..length]).unwrap();
            assert_eq!((from, answer.metadata.response_code), (address, code));
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        for (names, code) in [(names(), ResponseCode::NoError), (Names::new(), ResponseCode::NXDomain)] {
            sender.send_replace(Arc::new(names));
            let query = query(LB, RecordType::A).to_vec().unwrap();
            client.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
            client.write_all(&query).await.unwrap();
            let length = timeout(limit, client.read_u16()).await.unwrap().unwrap();
            let mut answer = vec![0; length.into()];
            timeout(limit, client.read_exact(&mut answer)).await.unwrap().unwrap();
            assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, code);
        }
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        UdpSocket::bind(address).await.unwrap();
    }
}
