//! gRPC, as far as unary calls need it.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::{HeaderMap, Response, body::Incoming, header, header::HeaderValue};

use super::http::Body;

/// The longest message.
const LONGEST: usize = 4 << 20;

/// A status that is not OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    ResourceExhausted = 8,
    Unimplemented = 12,
}

/// Returns true if a request is a call.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Returns the message of a unary call.
pub(super) async fn message(body: Incoming) -> Result<Bytes, Status> {
    let body = Limited::new(body, LONGEST).collect().await.map_err(|_| Status::ResourceExhausted)?;
    unframed(&body.to_bytes()).ok_or(Status::Unimplemented)
}

/// Returns the first message of a body; `None` if it is compressed. A body without a message is an empty one.
fn unframed(body: &Bytes) -> Option<Bytes> {
    let Some([compressed, length @ ..]) = body.get(..5).and_then(|part| <[u8; 5]>::try_from(part).ok()) else {
        return Some(Bytes::new());
    };
    let end = usize::try_from(u32::from_be_bytes(length)).ok()?.checked_add(5)?;
    (compressed == 0 && end <= body.len()).then(|| body.slice(5..end))
}

/// Returns the answer to a call: a message, or a status.
pub(super) fn answer(result: Result<Vec<u8>, Status>) -> Response<Body> {
    let body: Body = match &result {
        Ok(message) => {
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
            let frame = [&[0], length.as_slice(), message].concat();
            let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from(0))]);
            let body = Full::new(Bytes::from(frame)).with_trailers(async move { Some(Ok::<_, Infallible>(trailers)) });
            body.boxed_unsync()
        }
        Err(_) => Empty::new().boxed_unsync(),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Err(status) = result {
        response.headers_mut().insert(GRPC_STATUS, HeaderValue::from(status as u16));
    }
    response
}

const GRPC_STATUS: header::HeaderName = header::HeaderName::from_static("grpc-status");

/// Returns the answer of `grpc-echoserver`, which knows two methods. The messages of both have a text in field 1.
pub(super) fn echo_service(path: &str, message: &[u8], fixed: &str) -> Result<Vec<u8>, Status> {
    match path {
        "/echo.EchoService/Echo" => Ok(message.to_vec()),
        "/echo.EchoService/FixedResponse" => Ok(text(1, fixed)),
        _ => Err(Status::Unimplemented),
    }
}

/// Returns the answer of a server that knows every method. The load balancer's check is not known, as it is not by servers
/// anywhere: AWS expects status 12 of it.
pub(super) fn echo(path: &str, message: &[u8]) -> Result<Vec<u8>, Status> {
    match path {
        // SERVING, the first field.
        "/grpc.health.v1.Health/Check" => Ok(vec![8, 1]),
        "/AWS.ALB/healthcheck" => Err(Status::Unimplemented),
        _ => Ok(message.to_vec()),
    }
}

/// Returns a field with a text, as Protocol Buffers write it. An empty text is left out.
pub(super) fn text(field: u8, text: &str) -> Vec<u8> {
    if text.is_empty() { Vec::new() } else { bytes(field, text.as_bytes()) }
}

/// Returns a field with bytes or a message, as Protocol Buffers write it.
pub(super) fn bytes(field: u8, bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![field << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        all.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    all.push(u8::try_from(length).unwrap_or_default());
    all.extend(bytes);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_from_their_frames() {
        let rows: [(&[u8], Option<&[u8]>); 5] = [
            (b"", Some(b"")),
            (b"\0\0\0\0\x02hi", Some(b"hi")),
            (b"\0\0\0\0\x01hi", Some(b"h")),
            (b"\x01\0\0\0\x02hi", None),
            (b"\0\0\0\0\x03hi", None),
        ];
        for (body, expected) in rows {
            assert_eq!(unframed(&Bytes::copy_from_slice(body)).as_deref(), expected, "{body:?}");
        }
    }

    #[test]
    fn fields_have_their_length_before_them() {
        assert_eq!(text(1, ""), b"");
        assert_eq!(text(2, "hi"), b"\x12\x02hi");
        assert_eq!(bytes(1, &[0; 300])[..3], [0x0a, 0xac, 0x02]);
    }

    #[test]
    fn every_method_but_the_load_balancers_check_is_answered() {
        assert_eq!(echo("/grpc.health.v1.Health/Check", b""), Ok(vec![8, 1]));
        assert_eq!(echo("/AWS.ALB/healthcheck", b""), Err(Status::Unimplemented));
        assert_eq!(echo("/echo.EchoService/FixedResponse", b"x"), Ok(b"x".to_vec()));
    }

    #[test]
    fn the_echo_service_has_two_methods() {
        let call = |path| echo_service(path, b"x", "a");
        assert_eq!(call("/echo.EchoService/Echo"), Ok(b"x".to_vec()));
        assert_eq!(call("/echo.EchoService/FixedResponse"), Ok(b"\x0a\x01a".to_vec()));
        for path in ["/other.EchoService/Echo", "/grpc.health.v1.Health/Check", "/AWS.ALB/healthcheck"] {
            assert_eq!(call(path), Err(Status::Unimplemented), "{path}");
        }
    }
}
