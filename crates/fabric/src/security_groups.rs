//! Security groups: who may open a connection to whom. Answers to a connection always pass, and all that leaves is
//! allowed.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::account::{Account, LoadBalancer, Permission, SecurityGroup, Transport};

/// The source of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address; or the subnet, for an address in it that is not told.
    pub network: IpNet,
    /// The security groups of the interface that it comes from.
    pub groups: BTreeSet<String>,
}

/// Returns true if one of the groups has a rule that allows it.
#[must_use]
pub fn allows(account: &Account, groups: &BTreeSet<String>, transport: Transport, port: u16, source: &Source) -> bool {
    let rules = groups.iter().filter_map(|group| account.security_groups.get(group));
    rules.flat_map(|SecurityGroup { ingress }| ingress).any(|rule| permits(account, rule, transport, port, source))
}

/// Returns true if a load balancer takes a connection to one of its ports from a client. `client` is the address as
/// [`crate::address::as_seen`] gives it.
#[must_use]
pub fn lets_in(account: &Account, balancer: &LoadBalancer, port: u16, transport: Transport, client: IpAddr) -> bool {
    let groups = account.addresses.get(&client).cloned().unwrap_or_default();
    let source = Source { network: client.into(), groups };
    balancer.security_groups.is_empty() || allows(account, &balancer.security_groups, transport, port, &source)
}

/// Returns true if a target, an address in the VPC, takes a connection from a load balancer's node in a subnet.
/// `preserved_client` is the address that the connection has instead of the node's own, as
/// [`crate::address::as_seen`] gives it. The target's rules may name the load balancer's groups either way.
#[must_use]
pub fn reaches(
    account: &Account,
    balancer: &LoadBalancer,
    node_subnet: &str,
    target: IpAddr,
    port: u16,
    transport: Transport,
    preserved_client: Option<IpAddr>,
) -> bool {
    // An address that is on no interface of the account has no security groups.
    let Some(groups) = account.addresses.get(&target) else {
        return true;
    };
    let node = || account.subnets.get(node_subnet).map(|subnet| subnet.cidr);
    let Some(network) = preserved_client.map(IpNet::from).or_else(node) else {
        return false;
    };
    allows(account, groups, transport, port, &Source { network, groups: balancer.security_groups.clone() })
}

fn permits(account: &Account, rule: &Permission, transport: Transport, port: u16, source: &Source) -> bool {
    let of_transport = match rule.protocol.as_str() {
        "-1" => true,
        protocol => {
            let name = match transport {
                Transport::Tcp => "tcp",
                Transport::Udp => "udp",
            };
            protocol == name
                && rule.from_port.is_none_or(|first| first <= port)
                && rule.to_port.is_none_or(|last| port <= last)
        }
    };
    let mut lists = rule.prefix_lists.iter().filter_map(|list| account.prefix_lists.get(list)).flatten();
    of_transport
        && (rule.cidrs.iter().any(|cidr| cidr.contains(&source.network))
            || rule.groups.iter().any(|group| source.groups.contains(group))
            || lists.any(|cidr| cidr.contains(&source.network)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::account::{Kind, Subnet};

    fn rule(protocol: &str, ports: Option<(u16, u16)>, sources: &[&str]) -> Permission {
        let of = |prefix: &str| {
            let all = sources.iter().filter(|source| source.starts_with(prefix));
            all.map(ToString::to_string).collect::<Vec<_>>()
        };
        Permission {
            protocol: protocol.to_owned(),
            from_port: ports.map(|(first, _)| first),
            to_port: ports.map(|(_, last)| last),
            cidrs: sources.iter().filter_map(|source| source.parse().ok()).collect(),
            groups: of("sg-"),
            prefix_lists: of("pl-"),
        }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn account(groups: &[(&str, Vec<Permission>)]) -> Account {
        let group = |(name, ingress): &(&str, Vec<Permission>)| {
            ((*name).to_owned(), SecurityGroup { ingress: ingress.clone() })
        };
        Account {
            security_groups: groups.iter().map(group).collect(),
            prefix_lists: BTreeMap::from([("pl-1".to_owned(), ["198.51.100.0/24".parse().unwrap()].into())]),
            subnets: BTreeMap::from([(
                "subnet-a".to_owned(),
                Subnet { cidr: "10.0.0.0/24".parse().unwrap(), zone: "a".to_owned() },
            )]),
            addresses: BTreeMap::from([
                ("10.0.100.4".parse().unwrap(), names(&["sg-node"])),
                ("10.0.100.5".parse().unwrap(), names(&["sg-client"])),
            ]),
            ..Account::default()
        }
    }

    fn balancer(groups: &[&str]) -> LoadBalancer {
        LoadBalancer {
            name: "lb".to_owned(),
            dns_name: "lb.elb.amazonaws.com".to_owned(),
            kind: Kind::Network,
            active: true,
            public: true,
            subnets: names(&["subnet-a"]),
            security_groups: names(groups),
            attributes: BTreeMap::new(),
            listeners: BTreeMap::new(),
        }
    }

    #[test]
    fn a_rule_allows_its_protocol_its_ports_and_its_sources() {
        use Transport::{Tcp, Udp};
        let web = Some((80, 443));
        for (rule, transport, port, source, expected) in [
            (rule("tcp", web, &["0.0.0.0/0"]), Tcp, 80, "198.18.0.1/32", true),
            (rule("tcp", web, &["0.0.0.0/0"]), Tcp, 443, "198.18.0.1/32", true),
            (rule("tcp", web, &["0.0.0.0/0"]), Tcp, 79, "198.18.0.1/32", false),
            (rule("tcp", web, &["0.0.0.0/0"]), Tcp, 444, "198.18.0.1/32", false),
            (rule("tcp", web, &["0.0.0.0/0"]), Udp, 80, "198.18.0.1/32", false),
            (rule("udp", web, &["0.0.0.0/0"]), Udp, 80, "198.18.0.1/32", true),
            (rule("-1", None, &["0.0.0.0/0"]), Udp, 1, "198.18.0.1/32", true),
            (rule("tcp", None, &["0.0.0.0/0"]), Tcp, 1, "198.18.0.1/32", true),
            (rule("icmp", None, &["0.0.0.0/0"]), Tcp, 80, "198.18.0.1/32", false),
            (rule("tcp", web, &["0.0.0.0/0"]), Tcp, 80, "2001:db8::1/128", false),
            (rule("tcp", web, &["::/0"]), Tcp, 80, "2001:db8::1/128", true),
            (rule("tcp", web, &["198.18.0.0/24"]), Tcp, 80, "198.18.0.9/32", true),
            (rule("tcp", web, &["198.18.0.0/24"]), Tcp, 80, "198.18.1.9/32", false),
            (rule("tcp", web, &["198.18.1.9/32", "198.18.0.0/24"]), Tcp, 80, "198.18.1.9/32", true),
            (rule("tcp", web, &["pl-1"]), Tcp, 80, "198.51.100.9/32", true),
            (rule("tcp", web, &["pl-1"]), Tcp, 80, "198.51.101.9/32", false),
            (rule("tcp", web, &["pl-2"]), Tcp, 80, "198.51.100.9/32", false),
            (rule("tcp", web, &["sg-from"]), Tcp, 80, "198.18.0.1/32", true),
            (rule("tcp", web, &["sg-other"]), Tcp, 80, "198.18.0.1/32", false),
            (rule("tcp", web, &[]), Tcp, 80, "198.18.0.1/32", false),
            // All of the subnet must be within.
            (rule("tcp", web, &["10.0.0.0/16"]), Tcp, 80, "10.0.0.0/24", true),
            (rule("tcp", web, &["10.0.0.0/25"]), Tcp, 80, "10.0.0.0/24", false),
        ] {
            let account = account(&[("sg-1", vec![rule.clone()])]);
            let from = Source { network: source.parse().unwrap(), groups: names(&["sg-from"]) };
            let allowed = allows(&account, &names(&["sg-1"]), transport, port, &from);
            assert_eq!(allowed, expected, "{rule:?} {transport:?} {port} {source}");
        }
    }

    #[test]
    fn one_group_of_several_is_enough_and_none_allows_nothing() {
        let account = account(&[
            ("sg-1", vec![rule("tcp", None, &["198.18.0.0/24"])]),
            ("sg-2", vec![rule("tcp", None, &["198.18.1.0/24"])]),
        ]);
        let from = Source { network: "198.18.1.1/32".parse().unwrap(), groups: BTreeSet::new() };
        for (groups, expected) in
            [(vec!["sg-1", "sg-2"], true), (vec!["sg-1"], false), (vec![], false), (vec!["sg-gone"], false)]
        {
            assert_eq!(allows(&account, &names(&groups), Transport::Tcp, 80, &from), expected, "{groups:?}");
        }
    }

    #[test]
    fn a_load_balancer_lets_in_whom_its_groups_allow_and_everyone_without_groups() {
        let account = account(&[
            ("sg-lb", vec![rule("tcp", Some((80, 80)), &["198.18.0.0/24"])]),
            ("sg-inside", vec![rule("tcp", Some((80, 80)), &["sg-client"])]),
        ]);
        for (groups, port, client, expected) in [
            (vec![], 80, "198.18.7.1", true),
            (vec!["sg-lb"], 80, "198.18.0.1", true),
            (vec!["sg-lb"], 80, "198.18.7.1", false),
            (vec!["sg-lb"], 443, "198.18.0.1", false),
            (vec!["sg-inside"], 80, "10.0.100.5", true),
            (vec!["sg-inside"], 80, "10.0.100.4", false),
            (vec!["sg-inside"], 80, "198.18.0.1", false),
        ] {
            let allowed = lets_in(&account, &balancer(&groups), port, Transport::Tcp, client.parse().unwrap());
            assert_eq!(allowed, expected, "{groups:?} {port} {client}");
        }
    }

    #[test]
    fn a_target_is_reached_by_group_by_subnet_or_by_the_client_whose_address_is_kept() {
        let by_group = rule("tcp", Some((8080, 8080)), &["sg-lb"]);
        let by_subnet = rule("tcp", Some((8080, 8080)), &["10.0.0.0/24"]);
        let by_client = rule("tcp", Some((8080, 8080)), &["198.18.0.0/16"]);
        let client_group = rule("tcp", Some((8080, 8080)), &["sg-client"]);
        let outside = Some("198.18.0.1");
        for (rule, groups, client, expected) in [
            (&by_group, vec!["sg-lb"], None, true),
            (&by_group, vec!["sg-lb"], outside, true),
            (&by_group, vec![], None, false),
            (&by_group, vec![], outside, false),
            (&by_subnet, vec![], None, true),
            (&by_subnet, vec!["sg-lb"], None, true),
            (&by_subnet, vec![], outside, false),
            (&by_client, vec![], outside, true),
            (&by_client, vec![], None, false),
            // A group of the client does not count behind a load balancer.
            (&client_group, vec![], Some("10.0.100.5"), false),
        ] {
            let account = account(&[("sg-node", vec![rule.clone()])]);
            let reach = |subnet: &str, target: &str| {
                let (target, client) = (target.parse().unwrap(), client.map(|client| client.parse().unwrap()));
                reaches(&account, &balancer(&groups), subnet, target, 8080, Transport::Tcp, client)
            };
            assert_eq!(reach("subnet-a", "10.0.100.4"), expected, "{rule:?} {groups:?} {client:?}");
            assert!(reach("subnet-a", "10.50.0.1"), "an address that is on no interface");
            if client.is_none() {
                assert!(!reach("subnet-gone", "10.0.100.4"));
            }
        }
    }
}
