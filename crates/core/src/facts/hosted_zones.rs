//! The choice of the hosted zone in which a host is proved to ACM.

use std::collections::{BTreeMap, BTreeSet};

use super::list;
use crate::model::{HostedZoneId, managed_certificate::without_wildcard};

/// A public hosted zone of Route 53.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostedZone {
    /// Its id.
    pub id: HostedZoneId,
    /// Its name, with or without the dot at the end.
    pub name: String,
}

/// Hosts that are in no hosted zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Route 53 has no public hosted zone for the {} {}, so that ACM is not asked for the certificate", if .hosts.len() == 1 { "host" } else { "hosts" }, list(.hosts.iter().map(|host| format!("`{host}`")), "and"))]
pub struct WithoutZone {
    /// In alphabetical order.
    pub hosts: Vec<String>,
}

impl WithoutZone {
    /// The fix.
    pub const FIX: &str = "create the hosted zone in the controller's account, or name a certificate with `alb.ingress.kubernetes.io/certificate-arn`";
}

/// Returns the zone that a name is in: the one with the longest name, and of several of one name the first by id.
#[must_use]
pub fn zone_of<'z>(name: &str, zones: &'z [HostedZone]) -> Option<&'z HostedZoneId> {
    let name = without_wildcard(name).trim_end_matches('.').to_lowercase();
    let holds = |zone: &&HostedZone| {
        let rest = name.strip_suffix(&zone.name.trim_end_matches('.').to_lowercase());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let longest = |zone: &&HostedZone| (std::cmp::Reverse(zone.name.trim_end_matches('.').len()), zone.id.clone());
    zones.iter().filter(holds).min_by_key(longest).map(|zone| &zone.id)
}

/// Returns the zone of each host.
///
/// # Errors
/// When a host is in none.
pub fn zones_of(hosts: &BTreeSet<String>, zones: &[HostedZone]) -> Result<BTreeMap<String, HostedZoneId>, WithoutZone> {
    let found = |host: &String| zone_of(host, zones).map(|zone| (host.clone(), zone.clone()));
    let without: Vec<String> = hosts.iter().filter(|host| zone_of(host, zones).is_none()).cloned().collect();
    if without.is_empty() { Ok(hosts.iter().filter_map(found).collect()) } else { Err(WithoutZone { hosts: without }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones() -> Vec<HostedZone> {
        [("Z1", "example.com."), ("Z2", "shop.example.com"), ("Z4", "shop.example.com."), ("Z3", "org.")]
            .map(|(id, name)| HostedZone { id: HostedZoneId::new(id), name: name.to_owned() })
            .into()
    }

    #[test]
    fn the_longest_zone_holds_a_name() {
        for (name, zone) in [
            ("example.com", Some("Z1")),
            ("*.example.com", Some("Z1")),
            ("a.b.example.com", Some("Z1")),
            ("Shop.example.com.", Some("Z2")),
            ("_x.a.shop.example.com.", Some("Z2")),
            ("myshop.example.com", Some("Z1")),
            ("a.org", Some("Z3")),
            ("notexample.com", None),
            ("com", None),
        ] {
            assert_eq!(zone_of(name, &zones()).map(HostedZoneId::as_str), zone, "{name}");
        }
    }

    #[test]
    fn hosts_without_a_zone_are_named() {
        let hosts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let error = zones_of(&hosts(&["a.net", "a.org", "b.net"]), &zones()).unwrap_err();
        insta::assert_snapshot!(format!("{error}; {}", WithoutZone::FIX), @"Route 53 has no public hosted zone for the hosts `a.net` and `b.net`, so that ACM is not asked for the certificate; create the hosted zone in the controller's account, or name a certificate with `alb.ingress.kubernetes.io/certificate-arn`");
        let error = zones_of(&hosts(&["a.net"]), &zones()).unwrap_err();
        insta::assert_snapshot!(error, @"Route 53 has no public hosted zone for the host `a.net`, so that ACM is not asked for the certificate");
        let found = zones_of(&hosts(&["a.org", "*.example.com"]), &zones()).unwrap();
        let expected = [("*.example.com", "Z1"), ("a.org", "Z3")];
        assert_eq!(found, expected.map(|(host, zone)| (host.to_owned(), HostedZoneId::new(zone))).into());
    }
}
