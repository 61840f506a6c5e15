//! Addresses: those of the VPC and of clients, and the loopback addresses that stand for them.
//!
//! The API server refuses 127.0.0.0/8 in EndpointSlices, so pods and instances keep the addresses that the VPC gives
//! them.

use std::net::{IpAddr, Ipv4Addr};

/// Returns the loopback address that stands for `10.0.A.B`, an address in the VPC: `127.10.A.B`. `None` for others.
#[must_use]
pub fn of_vpc(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => match address.octets() {
            [10, 0, third, fourth] => Some(Ipv4Addr::new(127, 10, third, fourth)),
            _ => None,
        },
        IpAddr::V6(_) => None,
    }
}

/// Returns the address of node `number` of all load balancers of the account.
#[must_use]
pub fn of_node(number: u16) -> Ipv4Addr {
    let [third, fourth] = number.to_be_bytes();
    Ipv4Addr::new(127, 20, third, fourth)
}

/// Returns the address that a client at a loopback address has for load balancers and pods: `198.18.A.B` for
/// `127.40.A.B`, `10.0.A.B` for `127.10.A.B`, else the address itself.
#[must_use]
pub fn as_seen(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(address) => match address.octets() {
            [127, 40, third, fourth] => Ipv4Addr::new(198, 18, third, fourth).into(),
            [127, 10, third, fourth] => Ipv4Addr::new(10, 0, third, fourth).into(),
            _ => client,
        },
        IpAddr::V6(_) => client,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_vpc_and_of_clients_have_loopback_addresses() {
        let of = |text: &str| of_vpc(text.parse().unwrap()).map(|address| address.to_string());
        assert_eq!(of("10.0.100.7").as_deref(), Some("127.10.100.7"));
        assert_eq!(of("10.50.0.1"), None);
        assert_eq!(of("::1"), None);
        assert_eq!(of_node(258), Ipv4Addr::new(127, 20, 1, 2));
        let seen = |text: &str| as_seen(text.parse().unwrap()).to_string();
        assert_eq!(seen("127.40.1.9"), "198.18.1.9");
        assert_eq!(seen("127.10.1.9"), "10.0.1.9");
        assert_eq!(seen("127.0.0.1"), "127.0.0.1");
    }
}
