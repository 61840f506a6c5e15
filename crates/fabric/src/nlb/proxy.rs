//! The header of the proxy protocol, version 2.

use std::net::SocketAddr;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The header of a connection of the load balancer's own, such as a health check: it names nobody.
pub(crate) const LOCAL: [u8; 16] = {
    let mut header = [0; 16];
    let mut place = 0;
    // A `for` loop is not constant.
    #[expect(clippy::indexing_slicing, reason = "both are longer than 12 bytes, and a constant is made here")]
    while place < SIGNATURE.len() {
        header[place] = SIGNATURE[place];
        place += 1;
    }
    header[12] = 0x20;
    header
};

/// Returns the header of a connection over TCP that a client opened to a listener.
pub(crate) fn header(client: SocketAddr, listener: SocketAddr) -> Vec<u8> {
    let (family, addresses) = match (client, listener) {
        (SocketAddr::V4(client), SocketAddr::V4(listener)) => {
            (0x11, [client.ip().octets(), listener.ip().octets()].concat())
        }
        _ => {
            let wide = |address: SocketAddr| match address {
                SocketAddr::V4(address) => address.ip().to_ipv6_mapped().octets(),
                SocketAddr::V6(address) => address.ip().octets(),
            };
            (0x21, [wide(client), wide(listener)].concat())
        }
    };
    let ports = [client.port().to_be_bytes(), listener.port().to_be_bytes()].concat();
    let length: u16 = if family == 0x11 { 12 } else { 36 };
    [SIGNATURE.as_slice(), &[0x21, family], &length.to_be_bytes(), &addresses, &ports].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_both_ends() {
        let signature = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];
        let with = |rest: &[u8]| [&signature, rest].concat();
        let four = [0x21, 0x11, 0, 12, 198, 18, 1, 2, 127, 20, 0, 3, 0x30, 0x39, 0x01, 0xbb];
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(header(address("198.18.1.2:12345"), address("127.20.0.3:443")), with(&four));
        let six = header(address("[::1]:1"), address("127.0.0.1:2"));
        assert_eq!(six[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(six.len(), 16 + 36);
        assert_eq!(LOCAL.to_vec(), with(&[0x20, 0, 0, 0]));
    }
}
