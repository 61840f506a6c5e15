//! The header of the proxy protocol, version 2, as a server reads it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The kind of the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// No header.
    None,
    /// Too few to tell.
    Short,
    /// A header.
    Found {
        /// Its bytes.
        length: usize,
        /// The client, unless the proxy speaks for itself.
        source: Option<SocketAddr>,
    },
}

/// Looks for a header at the start of a connection.
pub(super) fn read(bytes: &[u8]) -> Header {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes.get(..known) != SIGNATURE.get(..known) {
        return Header::None;
    }
    let Some([version, family, high, low]) = bytes.get(12..16).and_then(|part| <[u8; 4]>::try_from(part).ok()) else {
        return Header::Short;
    };
    if version >> 4 != 2 {
        return Header::None;
    }
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    let Some(body) = bytes.get(16..length) else {
        return Header::Short;
    };
    let proxied = version & 0xf == 1;
    Header::Found { length, source: if proxied { source(family, body) } else { None } }
}

fn source(family: u8, body: &[u8]) -> Option<SocketAddr> {
    let (address, port): (IpAddr, usize) = match family >> 4 {
        1 => (Ipv4Addr::from(<[u8; 4]>::try_from(body.get(..4)?).ok()?).into(), 8),
        2 => (Ipv6Addr::from(<[u8; 16]>::try_from(body.get(..16)?).ok()?).into(), 32),
        _ => return None,
    };
    let port = u16::from_be_bytes(<[u8; 2]>::try_from(body.get(port..port + 2)?).ok()?);
    Some((address, port).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_whole_or_not_at_all() {
        let header = |command: u8, family: u8, body: &[u8]| {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            [SIGNATURE, &[0x20 | command, family], &length, body, b"GET /"].concat()
        };
        let v4 = [198, 18, 1, 9, 10, 0, 0, 1, 0x30, 0x39, 0, 80];
        // Behind the addresses there may be more, as AWS sends the id of an endpoint.
        let longer = [v4.as_slice(), &[0xEA, 0, 1, 7]].concat();
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[33] = 80;
        let found =
            |length, source: Option<&str>| Header::Found { length, source: source.map(|it| it.parse().unwrap()) };
        let rows = [
            (b"GET / HTTP/1.1".to_vec(), Header::None),
            (b"\r\n\r\nx".to_vec(), Header::None),
            (b"".to_vec(), Header::Short),
            (b"\r\n\r\n\0".to_vec(), Header::Short),
            (header(1, 0x11, &v4)[..27].to_vec(), Header::Short),
            (header(1, 0x11, &v4), found(28, Some("198.18.1.9:12345"))),
            (header(1, 0x11, &longer), found(32, Some("198.18.1.9:12345"))),
            (header(1, 0x21, &v6), found(52, Some("[::1]:80"))),
            (header(0, 0, &[]), found(16, None)),
            (header(1, 0x11, &[1, 2]), found(18, None)),
        ];
        for (bytes, expected) in rows {
            assert_eq!(read(&bytes), expected, "{bytes:?}");
        }
    }
}
