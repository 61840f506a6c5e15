//! The echo server of the Gateway API's conformance tests: what those tests read of its answers.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError, atomic::Ordering},
};

use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri, Version,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    connection::Facts,
    grpc::{self, Status},
    http::{self, Body, Reset},
    tls::Session,
};

const SERVICE: &str = "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/";
/// The most requests whose retries are counted.
const RETRIES: usize = 10_000;
/// The longest line of a client of TCP.
const LINE: u64 = 65536;

/// The place of a server, as its answers tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Context {
    pub(super) namespace: String,
    pub(super) ingress: String,
    pub(super) service: String,
    pub(super) pod: String,
}

/// The protocol of a server of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Http,
    /// HTTP/2 only.
    H2c,
    Grpc,
    Tcp,
    Udp,
}

/// A server of the program.
#[derive(Debug)]
pub(super) struct EchoBasic {
    pub(super) part: Part,
    context: Context,
    /// The ports that it tells: that of HTTP, or those of TCP and TLS.
    ports: Vec<u16>,
    /// The number of tries of each request, by its id.
    attempts: Mutex<BTreeMap<String, u64>>,
}

impl PartialEq for EchoBasic {
    fn eq(&self, other: &Self) -> bool {
        (self.part, &self.context, &self.ports) == (other.part, &other.context, &other.ports)
    }
}

impl Eq for EchoBasic {}

/// Returns the number of a port, or another where the text is none.
pub(super) fn number(text: &str, otherwise: u16) -> u16 {
    text.parse().unwrap_or(otherwise)
}

impl EchoBasic {
    pub(super) fn new(part: Part, context: Context, ports: Vec<u16>) -> Self {
        Self { part, context, ports, attempts: Mutex::default() }
    }

    /// Answers a request.
    pub(super) async fn answer(&self, request: Request<Incoming>, facts: &Facts) -> Result<Response<Body>, Reset> {
        let (parts, body) = request.into_parts();
        if self.part == Part::Grpc {
            let message = grpc::message(body).await;
            let known = ["Echo", "EchoTwo"].into_iter().find(|name| parts.uri.path() == format!("{SERVICE}{name}"));
            let is_call = parts.version == Version::HTTP_2 && grpc::is_call(&parts.headers);
            return Ok(match known {
                _ if !is_call => http::status(StatusCode::UNSUPPORTED_MEDIA_TYPE),
                Some(_) => grpc::answer(message.map(|_| self.message(&parts.uri, &parts.headers, facts))),
                None => grpc::answer(Err(Status::Unimplemented)),
            });
        }
        http::discard(body).await;
        let request = Request::from_parts(parts, ());
        if self.part == Part::H2c {
            return Ok(if request.version() == Version::HTTP_2 {
                self.echo(&request, facts).await
            } else {
                http::text(StatusCode::BAD_REQUEST, "Expected h2c request".to_owned())
            });
        }
        let path = request.uri().path().replace("//", "/");
        Ok(match path.as_str() {
            "/health" => http::text(StatusCode::OK, "OK".to_owned()),
            path if path.starts_with("/status/") => {
                http::status(http::status_of(request.uri().path()).unwrap_or(StatusCode::BAD_REQUEST))
            }
            path if path.starts_with("/retry/") => self.retry(&request, facts).await?,
            // It is answered before, if it is an upgrade.
            "/ws" => http::status(StatusCode::BAD_REQUEST),
            _ => self.echo(&request, facts).await,
        })
    }

    /// Fails as often as a request asks for.
    async fn retry(&self, request: &Request<()>, facts: &Facts) -> Result<Response<Body>, Reset> {
        let value = |name: &str| http::parameter(request.uri().query(), name).filter(|value| !value.is_empty());
        let Some(id) = value("uuid") else {
            return Ok(http::text(StatusCode::BAD_REQUEST, "uuid is required".to_owned()));
        };
        let Some(wanted) = value("succeedAfter").and_then(|value| value.parse::<u64>().ok()) else {
            return Ok(http::text(StatusCode::BAD_REQUEST, "succeedAfter is required".to_owned()));
        };
        if !self.fails(id, wanted) {
            return Ok(self.echo(request, facts).await);
        }
        if let Some(delay) = value("delayRetry") {
            match http::duration(delay) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Ok(no_duration(delay)),
            }
        }
        let code = value("responseCode").and_then(|code| code.parse::<u16>().ok());
        match (code.and_then(|code| StatusCode::from_u16(code).ok()), request.version()) {
            (Some(code), _) => Ok(http::status(code)),
            (None, Version::HTTP_2) => Ok(error("response writer does not support hijacking")),
            (None, _) => {
                facts.reset.store(true, Ordering::Relaxed);
                Err(Reset)
            }
        }
    }

    /// Counts an attempt, and returns true if it is to fail.
    fn fails(&self, id: &str, wanted: u64) -> bool {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.len() >= RETRIES && !attempts.contains_key(id) {
            attempts.clear();
        }
        let made = attempts.entry(id.to_owned()).or_default();
        if *made < wanted {
            *made += 1;
            return true;
        }
        false
    }

    async fn echo(&self, request: &Request<()>, facts: &Facts) -> Response<Body> {
        if let Some(delay) = http::parameter(request.uri().query(), "delay").filter(|delay| !delay.is_empty()) {
            match http::duration(delay) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return no_duration(delay),
            }
        }
        let mut body = json!({
            "path": request.uri().path_and_query().map_or("/", |path| path.as_str()),
            "host": host(request.uri(), request.headers()),
            "method": request.method().as_str(),
            "proto": match request.version() {
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            "headers": headers(request.headers()),
            "httpPort": self.ports.first().map(ToString::to_string),
        });
        add(&mut body, json!(self.context));
        if let Some(session) = &facts.session {
            let tls = json!({
                "version": session.version,
                "serverName": session.server_name,
                "negotiatedProtocol": session.protocol,
                "cipherSuite": session.cipher_suite,
                "peerCertificates": session.peer_certificates,
            });
            add(&mut body, json!({"tls": tls, "sni": session.server_name}));
        }
        let mut response = http::text(StatusCode::OK, format!("{body:#}"));
        set_headers(request.headers(), response.headers_mut());
        json_headers(&mut response);
        response
    }

    /// Returns the answer of gRPC.
    fn message(&self, uri: &Uri, headers: &HeaderMap, facts: &Facts) -> Vec<u8> {
        let authority = host(uri, headers);
        let field = |name: &str, value: &str| grpc::bytes(2, &[grpc::text(1, name), grpc::text(2, value)].concat());
        let mut assertions = grpc::text(1, uri.path());
        assertions.extend(field(":authority", &authority));
        for (name, value) in headers {
            let reserved = name.as_str().starts_with("grpc-") || name == header::TE || name == header::HOST;
            if let (false, Ok(value)) = (reserved, value.to_str()) {
                assertions.extend(field(name.as_str(), value));
            }
        }
        assertions.extend(grpc::text(3, &authority));
        let Context { namespace, ingress, service, pod } = &self.context;
        let context =
            [grpc::text(1, namespace), grpc::text(2, ingress), grpc::text(3, service), grpc::text(4, pod)].concat();
        assertions.extend(grpc::bytes(4, &context));
        if let Some(session) = &facts.session {
            let mut tls = [
                grpc::text(1, &session.version),
                grpc::text(2, &session.protocol),
                grpc::text(3, &session.server_name),
                grpc::text(4, &session.cipher_suite),
            ]
            .concat();
            tls.extend(session.peer_certificates.iter().flat_map(|certificate| grpc::text(5, certificate)));
            assertions.extend(grpc::bytes(5, &tls));
        }
        grpc::bytes(1, &assertions)
    }

    /// Returns the answer to a datagram.
    pub(super) fn datagram(&self, request: &[u8]) -> Vec<u8> {
        let mut body = json!({"request": String::from_utf8_lossy(request)});
        add(&mut body, json!(self.context));
        body.to_string().into_bytes()
    }

    /// Speaks the protocol of the TCP server, of which each line is a request.
    pub(super) async fn lines<S: AsyncBufRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        session: Option<&Session>,
    ) -> io::Result<()> {
        stream.write_all(b"Gateway API Test TCP Server\n").await?;
        stream.flush().await?;
        loop {
            let mut line = Vec::new();
            let length = (&mut *stream).take(LINE).read_until(b'\n', &mut line).await?;
            if length == 0 || (line.last() != Some(&b'\n') && line.len() as u64 == LINE) {
                return Ok(());
            }
            let answer = match line.trim_ascii_end() {
                b"TEST" => format!("{}\n", self.tcp(session)),
                b"IS_TLS" => format!("{}\n", session.is_some()),
                b"PING" => "PONG\n".to_owned(),
                _ => continue,
            };
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await?;
        }
    }

    fn tcp(&self, session: Option<&Session>) -> Value {
        let port = |place: usize| self.ports.get(place).map(ToString::to_string);
        let mut body = json!({"tcpport": port(0), "tlsport": port(1), "isTLS": session.is_some()});
        add(&mut body, json!(self.context));
        if let Some(session) = session {
            let tls = json!({
                "version": session.version.replace("TLSv", "TLS "),
                "serverName": session.server_name,
                "negotiatedProtocol": session.protocol,
                "cipherSuite": session.cipher_suite,
                "curves": session.key_exchange.replace("secp256r1", "CurveP256").replace("secp384r1", "CurveP384"),
            });
            add(&mut body, json!({"tls": tls}));
        }
        body
    }
}

/// Adds the fields of one object to another.
fn add(object: &mut Value, fields: Value) {
    if let (Value::Object(object), Value::Object(fields)) = (object, fields) {
        object.extend(fields);
    }
}

fn host(uri: &Uri, headers: &HeaderMap) -> String {
    let authority = uri.authority().map(|authority| authority.as_str().to_owned());
    let header = || headers.get(header::HOST).and_then(|value| value.to_str().ok()).map(str::to_owned);
    authority.or_else(header).unwrap_or_default()
}

/// Returns headers with their names as Go writes them, without `Host`.
fn headers(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in headers.iter().filter(|(name, _)| *name != header::HOST) {
        all.entry(canonical(name.as_str())).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    all
}

/// Returns a header's name with a capital letter at the beginning of each word.
fn canonical(name: &str) -> String {
    let mut first = true;
    let letter = |letter: char| {
        let written = if first { letter.to_ascii_uppercase() } else { letter };
        first = letter == '-';
        written
    };
    name.chars().map(letter).collect()
}

/// Sets the headers that a request asks for: `X-Echo-Set-Header: a:1,b:2`. A header that is named twice has both values.
fn set_headers(request: &HeaderMap, response: &mut HeaderMap) {
    let lists = request.get_all("x-echo-set-header").into_iter().filter_map(|value| value.to_str().ok());
    for pair in lists.flat_map(|list| list.split(',')) {
        let (name, value) = pair.trim().split_once(':').unwrap_or((pair.trim(), ""));
        let Ok(name) = name.parse::<HeaderName>() else { continue };
        let old = response.get(&name).and_then(|old| old.to_str().ok());
        let value = old.map_or_else(|| value.trim().to_owned(), |old| format!("{old},{}", value.trim()));
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.insert(name, value);
        }
    }
}

fn json_headers(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

fn no_duration(text: &str) -> Response<Body> {
    error(&format!("time: invalid duration \"{text}\""))
}

fn error(message: &str) -> Response<Body> {
    let mut response = http::text(StatusCode::INTERNAL_SERVER_ERROR, json!({"message": message}).to_string());
    json_headers(&mut response);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_headers_are_as_go_writes_them() {
        let mut all = HeaderMap::new();
        for (name, value) in [("host", "h"), ("x-a", "1"), ("x-a", "2"), ("user-agent", "curl")] {
            all.append(name, value.parse().unwrap());
        }
        let list = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        let expected = [("User-Agent".to_owned(), list(&["curl"])), ("X-A".to_owned(), list(&["1", "2"]))];
        assert_eq!(headers(&all), expected.into());
    }

    #[test]
    fn headers_that_a_request_asks_for_are_set() {
        let mut request = HeaderMap::new();
        request.append("x-echo-set-header", "X-A:1, x-b: 2,x-a:3".parse().unwrap());
        request.append("x-echo-set-header", "x-b:4,é:5,x-c".parse().unwrap());
        let mut response = HeaderMap::new();
        set_headers(&request, &mut response);
        let value = |name: &str| response.get(name).map(|value| value.to_str().unwrap().to_owned());
        // The second list is not ASCII, so it is not read.
        assert_eq!([value("x-a"), value("x-b"), value("x-c")], [Some("1,3".to_owned()), Some("2".to_owned()), None]);
    }

    #[test]
    fn attempts_are_counted_by_request_and_forgotten_when_there_are_too_many() {
        let server = EchoBasic::new(Part::Http, Context::default(), vec![3000]);
        let fails = |id: &str| server.fails(id, 2);
        assert_eq!([fails("a"), fails("b"), fails("a"), fails("a")], [true, true, true, false]);
        for id in 0..=RETRIES {
            server.fails(&id.to_string(), 1);
        }
        assert!(server.attempts.lock().unwrap().len() <= RETRIES);
    }

    #[test]
    fn an_answer_of_tcp_tells_the_session() {
        let context = Context { pod: "web-1".to_owned(), ..Context::default() };
        let server = EchoBasic::new(Part::Tcp, context, vec![3000, 8443]);
        let session = Session {
            version: "TLSv1.3".to_owned(),
            peer_certificates: Vec::new(),
            server_name: "a.example".to_owned(),
            protocol: String::new(),
            cipher_suite: "TLS_AES_128_GCM_SHA256".to_owned(),
            key_exchange: "secp256r1".to_owned(),
        };
        let expected = json!({
            "namespace": "", "ingress": "", "service": "", "pod": "web-1", "tcpport": "3000", "tlsport": "8443", "isTLS": true,
            "tls": {
                "version": "TLS 1.3", "serverName": "a.example", "negotiatedProtocol": "", "curves": "CurveP256",
                "cipherSuite": "TLS_AES_128_GCM_SHA256",
            },
        });
        assert_eq!(server.tcp(Some(&session)), expected);
        assert_eq!(server.tcp(None)["isTLS"], json!(false));
    }
}
