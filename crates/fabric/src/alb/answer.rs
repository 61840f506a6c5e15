//! The load balancer's own answers. All have `Server: awselb/2.0`, which tells them from a target's.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    ext::ReasonPhrase,
    header::{CONTENT_TYPE, HeaderValue, LOCATION, SERVER},
};

/// An error of a body.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of requests to targets and of answers to clients.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

const OWN: HeaderValue = HeaderValue::from_static("awselb/2.0");

/// Returns a body without any data.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

/// Returns the text of a status on its first line and in its body.
fn texts(status: u16) -> (&'static str, &'static str) {
    match status {
        301 => ("Moved Permanently", "Moved Permanently"),
        302 => ("Moved Temporarily", "Found"),
        400 => ("Bad Request", "Bad Request"),
        405 => ("Not Allowed", "Not Allowed"),
        408 => ("Request Time-out", "Request Time-out"),
        500 => ("Internal Server Error", "Internal Server Error"),
        501 => ("Not Implemented", "Not Implemented"),
        502 => ("Bad Gateway", "Bad Gateway"),
        503 => ("Service Temporarily Unavailable", "Service Temporarily Unavailable"),
        504 => ("Gateway Time-out", "Gateway Time-out"),
        _ => ("", ""),
    }
}

fn page(status: u16) -> String {
    let title = format!("{status} {}", texts(status).1);
    let title = title.trim_end();
    format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n\
         </html>\r\n"
    )
}

fn own(status: u16, body: String) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(SERVER, OWN);
    response
}

/// Returns the answer that has nothing but a status.
pub(super) fn status(status: u16) -> Response<Body> {
    let mut response = own(status, page(status));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    let (reason, _) = texts(status);
    if !reason.is_empty() {
        response.extensions_mut().insert(ReasonPhrase::from_static(reason.as_bytes()));
    }
    response
}

/// Returns a status for a client of gRPC, which looks at its own status.
pub(super) fn grpc(code: u16) -> Response<Body> {
    let mut response = status(code);
    if (502..=504).contains(&code) {
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("14"));
        response.headers_mut().insert("grpc-message", HeaderValue::from_static("unavailable"));
    }
    response
}

/// Returns a redirect.
pub(super) fn redirect(code: u16, location: &str) -> Response<Body> {
    match HeaderValue::from_str(location) {
        Ok(location) => {
            let mut response = status(code);
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Err(_) => status(500),
    }
}

/// Returns a fixed response.
pub(super) fn fixed(code: u16, content_type: Option<&str>, body: &str) -> Response<Body> {
    let mut response = own(code, body.to_owned());
    let content_type = format!("{}; charset=utf-8", content_type.unwrap_or("text/plain"));
    if let Ok(content_type) = HeaderValue::from_str(&content_type) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// Returns the bytes of an answer to what is no request of HTTP/1.1. The connection ends with it.
pub(super) fn bare_bad_request() -> String {
    let page = page(400);
    format!(
        "HTTP/1.1 400 Bad Request\r\nServer: awselb/2.0\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{page}",
        page.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_as_long_as_those_of_aws() {
        let lengths = [301, 302, 502, 503].map(|status| page(status).len());
        assert_eq!(lengths, [134, 110, 122, 162]);
    }
}
