//! The changes to the headers of a request on its way to a target, and of the answer on its way back. Pure.

use std::{collections::BTreeMap, net::SocketAddr};

use hyper::{
    HeaderMap, Version,
    header::{CONNECTION, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE},
};

use super::is_on;
use crate::{account::Protocol, matching::without_port};

/// A request above this many addresses in `X-Forwarded-For` is refused.
const MOST_FORWARDED: usize = 30;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const TRACE: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// The facts about a request that its headers tell the target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop<'a> {
    /// The client, as AWS sees it.
    pub(super) client: SocketAddr,
    /// The listener's protocol.
    pub(super) protocol: Protocol,
    /// The listener's port.
    pub(super) port: u16,
    /// The load balancer's attributes.
    pub(super) attributes: &'a BTreeMap<String, String>,
    /// Headers about the client's certificate; `None` if none is asked for.
    pub(super) certificate: Option<&'a [(HeaderName, HeaderValue)]>,
    /// The second, for the trace.
    pub(super) now: i64,
    /// A random number, for the trace.
    pub(super) random: u128,
}

/// Returns true if the client asks for another protocol on this connection.
pub(super) fn wants_upgrade(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && headers.contains_key(UPGRADE)
        && tokens(headers, &CONNECTION).any(|token| token == "upgrade")
}

/// Returns true if the request names too many addresses that it was forwarded for.
pub(super) fn has_too_many_hops(headers: &HeaderMap) -> bool {
    tokens(headers, &FORWARDED_FOR).count() > MOST_FORWARDED
}

fn tokens<'a>(headers: &'a HeaderMap, name: &'a HeaderName) -> impl Iterator<Item = String> + 'a {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.trim().to_ascii_lowercase())
        .filter(|token| !token.is_empty())
}

/// Removes the headers that are of one connection only.
pub(super) fn strip(headers: &mut HeaderMap, keep_upgrade: bool) {
    let named: Vec<String> = tokens(headers, &CONNECTION).collect();
    let upgrade = headers.get(UPGRADE).filter(|_| keep_upgrade).cloned();
    for name in named {
        headers.remove(&name);
    }
    let trailers = tokens(headers, &TE).any(|token| token == "trailers");
    for name in [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        headers.remove(name);
    }
    // gRPC asks for it, and HTTP/2 allows it.
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// Changes the headers of a request for the target. The host is set apart.
pub(super) fn to_target(headers: &mut HeaderMap, hop: &Hop<'_>, keep_upgrade: bool) {
    strip(headers, keep_upgrade);
    headers.remove(HOST);
    if is_on(hop.attributes, "routing.http.drop_invalid_header_fields.enabled") {
        let valid = |name: &HeaderName| name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let invalid: Vec<HeaderName> = headers.keys().filter(|name| !valid(name)).cloned().collect();
        for name in invalid {
            headers.remove(name);
        }
    }
    match hop.attributes.get("routing.http.xff_header_processing.mode").map(String::as_str) {
        Some("preserve") => {}
        Some("remove") => {
            headers.remove(FORWARDED_FOR);
        }
        _ => {
            let with_port = is_on(hop.attributes, "routing.http.xff_client_port.enabled");
            let client = if with_port { hop.client.to_string() } else { hop.client.ip().to_string() };
            let known: Vec<&str> =
                headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
            let all = known.into_iter().chain([client.as_str()]).collect::<Vec<_>>().join(", ");
            insert(headers, FORWARDED_FOR, &all);
        }
    }
    insert(headers, FORWARDED_PROTO, if hop.protocol == Protocol::Https { "https" } else { "http" });
    insert(headers, FORWARDED_PORT, &hop.port.to_string());
    let trace = traced(headers.get(TRACE).and_then(|value| value.to_str().ok()), hop.now, hop.random);
    insert(headers, TRACE, &trace);
    if let Some(certificate) = hop.certificate {
        // Only the load balancer may tell a target who the client is.
        let pretended: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with("x-amzn-mtls-clientcert")).cloned().collect();
        for name in pretended {
            headers.remove(name);
        }
        for (name, value) in certificate {
            headers.insert(name.clone(), value.clone());
        }
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Returns the trace of a request: a new root, or the client's root and fields with an own part before it.
fn traced(known: Option<&str>, now: i64, random: u128) -> String {
    let id = format!("1-{now:08x}-{:024x}", random & (u128::MAX >> 32));
    let fields: Vec<&str> =
        known.unwrap_or_default().split(';').map(str::trim).filter(|field| !field.is_empty()).collect();
    if !fields.iter().any(|field| field.starts_with("Root=")) {
        let root = format!("Root={id}");
        return std::iter::once(root.as_str()).chain(fields).collect::<Vec<_>>().join(";");
    }
    let own = format!("Self={id}");
    let others = fields.into_iter().filter(|field| !field.starts_with("Self="));
    std::iter::once(own.as_str()).chain(others).collect::<Vec<_>>().join(";")
}

/// Returns the host that a target is told: without the port on the default ports, else with the listener's port, unless
/// the host is kept as the client sent it.
pub(super) fn host_for_target(host: &str, port: u16, attributes: &BTreeMap<String, String>) -> String {
    if host.is_empty() || is_on(attributes, "routing.http.preserve_host_header.enabled") {
        return host.to_owned();
    }
    let name = without_port(host);
    match port {
        80 | 443 => name.to_owned(),
        _ if name != host => host.to_owned(),
        _ => format!("{host}:{port}"),
    }
}

/// Returns the host that a client would have sent if the port offset of the lab did not exist.
pub(super) fn host_without_offset(host: &str, protocol: Protocol, port: u16, offset: u16) -> String {
    let name = without_port(host);
    let own = host.strip_prefix(name).and_then(|port| port.strip_prefix(':'));
    if offset == 0 || own.and_then(|port| port.parse().ok()) != Some(port.saturating_add(offset)) {
        return host.to_owned();
    }
    match (protocol, port) {
        (Protocol::Http, 80) | (Protocol::Https, 443) => name.to_owned(),
        _ => format!("{name}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn sent(given: &[(&str, &str)], attributes: &BTreeMap<String, String>, keep_upgrade: bool) -> Vec<String> {
        let mut headers = headers(given);
        let hop = Hop {
            client: "198.18.0.7:4711".parse().unwrap(),
            protocol: Protocol::Https,
            port: 8443,
            attributes,
            certificate: None,
            now: 0x5833_7262,
            random: 0x36d2_28ad_5d99_9231_22bb_e354,
        };
        to_target(&mut headers, &hop, keep_upgrade);
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    const OWN: [&str; 4] = [
        "x-amzn-trace-id: Root=1-58337262-36d228ad5d99923122bbe354",
        "x-forwarded-for: 198.18.0.7",
        "x-forwarded-port: 8443",
        "x-forwarded-proto: https",
    ];

    #[test]
    fn a_target_is_told_about_the_client() {
        let none = attributes(&[]);
        assert_eq!(sent(&[("host", "a")], &none, false), OWN);
        let [trace, _, port, proto] = OWN;
        let forwarded = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "5.6.7.8"), ("x-forwarded-proto", "ftp")];
        let mode = |mode: &str| attributes(&[("routing.http.xff_header_processing.mode", mode)]);
        let appended = [trace, "x-forwarded-for: 1.2.3.4, 5.6.7.8, 198.18.0.7", port, proto];
        assert_eq!(sent(&forwarded, &mode("append"), false), appended);
        let preserved = [trace, "x-forwarded-for: 1.2.3.4", "x-forwarded-for: 5.6.7.8", port, proto];
        assert_eq!(sent(&forwarded, &mode("preserve"), false), preserved);
        assert_eq!(sent(&forwarded, &mode("remove"), false), [trace, port, proto]);
        let with_port = attributes(&[("routing.http.xff_client_port.enabled", "true")]);
        assert_eq!(sent(&[], &with_port, false), [trace, "x-forwarded-for: 198.18.0.7:4711", port, proto]);
    }

    #[test]
    fn headers_of_the_connection_end_with_it() {
        let given = [
            ("connection", "close, X-Own"),
            ("x-own", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
        ];
        let none = attributes(&[]);
        let [trace, client, port, proto] = OWN;
        assert_eq!(sent(&given, &none, false), ["te: trailers", trace, client, port, proto]);
        let given = [("connection", "Upgrade"), ("upgrade", "websocket")];
        let kept = ["connection: Upgrade", "upgrade: websocket", trace, client, port, proto];
        assert_eq!(sent(&given, &none, true), kept);
    }

    #[test]
    fn invalid_names_are_dropped_if_asked() {
        let given = [("x_a", "1"), ("x-b", "2")];
        let [trace, client, port, proto] = OWN;
        let kept = [trace, "x-b: 2", client, port, proto, "x_a: 1"];
        assert_eq!(sent(&given, &attributes(&[]), false), kept);
        let dropping = attributes(&[("routing.http.drop_invalid_header_fields.enabled", "true")]);
        assert_eq!(sent(&given, &dropping, false), [trace, "x-b: 2", client, port, proto]);
    }

    #[test]
    fn traces() {
        let new = "1-00000001-000000000000000000000002";
        for (known, expected) in [
            (None, format!("Root={new}")),
            (Some("Root=r"), format!("Self={new};Root=r")),
            (Some("Self=s; Root=r;Field=f"), format!("Self={new};Root=r;Field=f")),
            (Some("Field=f"), format!("Root={new};Field=f")),
        ] {
            assert_eq!(traced(known, 1, 2), expected);
        }
    }

    #[test]
    fn hosts() {
        let (none, kept) = (attributes(&[]), attributes(&[("routing.http.preserve_host_header.enabled", "true")]));
        for (host, port, attributes, expected) in [
            ("a.test", 80, &none, "a.test"),
            ("a.test:80", 80, &none, "a.test"),
            ("a.test:99", 443, &none, "a.test"),
            ("a.test", 8080, &none, "a.test:8080"),
            ("a.test:99", 8080, &none, "a.test:99"),
            ("a.test:80", 80, &kept, "a.test:80"),
            ("a.test", 8080, &kept, "a.test"),
            ("", 8080, &none, ""),
        ] {
            assert_eq!(host_for_target(host, port, attributes), expected);
        }
        for (host, protocol, port, offset, expected) in [
            ("a:10080", Protocol::Http, 80, 10_000, "a"),
            ("a:10443", Protocol::Https, 443, 10_000, "a"),
            ("a:10443", Protocol::Http, 443, 10_000, "a:443"),
            ("a:18080", Protocol::Http, 8080, 10_000, "a:8080"),
            ("a:80", Protocol::Http, 80, 10_000, "a:80"),
            ("a", Protocol::Http, 80, 10_000, "a"),
            ("a:80", Protocol::Http, 80, 0, "a:80"),
        ] {
            assert_eq!(host_without_offset(host, protocol, port, offset), expected);
        }
    }

    #[test]
    fn too_many_hops() {
        let hops = |count: usize| headers(&[("x-forwarded-for", &vec!["1.2.3.4"; count].join(","))]);
        assert!(!has_too_many_hops(&hops(30)));
        assert!(has_too_many_hops(&hops(31)));
    }
}
