//! The choice of certificates in ACM for host names (reference: ingress §4.4).

use std::collections::BTreeSet;

use super::list;
use crate::model::CertificateArn;

/// A certificate that ACM has issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its ARN.
    pub arn: CertificateArn,
    /// The names that it is for, wildcards among them.
    pub domains: Vec<String>,
    /// The private certificate authority that issued it, if there is one and ACM has reported it.
    pub authority: Option<String>,
}

/// Host names that no certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ACM has no issued certificate for the {} {}", if .hosts.len() == 1 { "host" } else { "hosts" }, list(.hosts.iter().map(|host| format!("`{host}`")), "and"))]
pub struct Uncovered {
    /// In alphabetical order.
    pub hosts: Vec<String>,
    /// True if only certificates of the allowed certificate authorities count.
    pub restricted: bool,
}

impl Uncovered {
    /// Returns the fix.
    #[must_use]
    pub fn fix(&self) -> String {
        let mut fix = "request or import one in the load balancer's region, or name certificates with `alb.ingress.kubernetes.io/certificate-arn`".to_owned();
        if self.restricted {
            fix.push_str("; only those of the authorities in --allowed-certificate-authority-arns count");
        }
        fix
    }
}

/// Returns true if a certificate's name covers a host name. The `*` of a wildcard stands for exactly one label, the first.
fn covers(domain: &str, host: &str) -> bool {
    if domain == host {
        return true;
    }
    let behind = |name: &str| name.split_once('.').map(|(_, rest)| rest.to_owned());
    domain.starts_with("*.") && behind(domain) == behind(host)
}

/// Returns true if a certificate is for one of the hosts.
#[must_use]
pub fn is_for(certificate: &Certificate, hosts: &BTreeSet<String>) -> bool {
    hosts.iter().any(|host| certificate.domains.iter().any(|domain| covers(domain, host)))
}

/// All certificates that are for one of the hosts, by ARN; the first is the default. Where authorities are `allowed`, only theirs
/// count.
///
/// # Errors
/// When a host has none.
pub fn matching(
    hosts: &BTreeSet<String>,
    certificates: &[Certificate],
    allowed: &BTreeSet<String>,
) -> Result<Vec<CertificateArn>, Uncovered> {
    let counts = |c: &&Certificate| allowed.is_empty() || c.authority.as_ref().is_some_and(|a| allowed.contains(a));
    let certificates: Vec<&Certificate> = certificates.iter().filter(counts).collect();
    let mut found = BTreeSet::new();
    let mut uncovered = Vec::new();
    for host in hosts {
        let fits = certificates.iter().filter(|c| c.domains.iter().any(|domain| covers(domain, host)));
        let mut fits = fits.peekable();
        if fits.peek().is_none() {
            uncovered.push(host.clone());
        }
        found.extend(fits.map(|certificate| certificate.arn.clone()));
    }
    if uncovered.is_empty() {
        Ok(found.into_iter().collect())
    } else {
        Err(Uncovered { hosts: uncovered, restricted: !allowed.is_empty() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn certificate(arn: &str, domains: &[&str], authority: Option<&str>) -> Certificate {
        Certificate {
            arn: CertificateArn::new(arn),
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            authority: authority.map(str::to_owned),
        }
    }

    fn found(hosts: &[&str], allowed: &[&str]) -> Result<Vec<String>, String> {
        let certificates = [
            certificate("c", &["example.com", "*.example.com"], None),
            certificate("b", &["www.example.com"], Some("ca-1")),
            certificate("a", &["*.example.com"], Some("ca-2")),
        ];
        let set = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
        let found = matching(&set(hosts), &certificates, &set(allowed)).map_err(|e| format!("{e}; {}", e.fix()))?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn all_that_fit_are_taken() {
        for (hosts, allowed, expected) in [
            (&["example.com"][..], &[][..], &["c"][..]),
            (&["www.example.com"], &[], &["a", "b", "c"]),
            (&["api.example.com", "example.com"], &[], &["a", "c"]),
            (&["*.example.com"], &[], &["a", "c"]),
            (&["www.example.com"], &["ca-1", "ca-3"], &["b"]),
            (&[], &[], &[]),
        ] {
            assert_eq!(found(hosts, allowed), Ok(expected.iter().map(|arn| (*arn).to_owned()).collect()), "{hosts:?}");
        }
    }

    #[test]
    fn hosts_without_one_are_named() {
        insta::assert_snapshot!(found(&["a.b.example.com"], &[]).unwrap_err(), @"ACM has no issued certificate for the host `a.b.example.com`; request or import one in the load balancer's region, or name certificates with `alb.ingress.kubernetes.io/certificate-arn`");
        insta::assert_snapshot!(found(&["other.org", "example.com", "Example.com"], &["ca-2"]).unwrap_err(), @"ACM has no issued certificate for the hosts `Example.com`, `example.com` and `other.org`; request or import one in the load balancer's region, or name certificates with `alb.ingress.kubernetes.io/certificate-arn`; only those of the authorities in --allowed-certificate-authority-arns count");
    }

    proptest! {
        #[test]
        fn a_star_stands_for_one_label(labels in proptest::collection::vec("[a-z*]{1,3}", 1..5), more in "[a-z]{1,3}") {
            let host = labels.join(".");
            let parent = labels[1..].join(".");
            prop_assert!(covers(&host, &host));
            prop_assert_eq!(covers(&format!("*.{parent}"), &host), labels.len() > 1 || host == "*.");
            let deeper = format!("{more}.{host}");
            let wildcard = format!("*.{parent}");
            prop_assert!(!covers(&wildcard, &deeper) || deeper == wildcard);
        }
    }
}
