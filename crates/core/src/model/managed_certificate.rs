//! The certificates that the controller requests from ACM for Ingresses, and their validation through Route 53.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Cause, CertificateArn, CertificateAuthorityArn, HostedZoneId, ObjectName, ObjectReference, ObservedListener,
    ResourceId, Tags, names,
};

/// The longest first name of a certificate (RFC 5280: the common name).
pub const LONGEST_DOMAIN: usize = 64;

/// The most names that ACM puts into one certificate, with the highest quota.
pub const MOST_HOSTS: usize = 100;

/// A certificate that ACM is to issue for the hosts of an Ingress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManagedCertificate {
    /// The id of the resource, which names the first domain and the Ingress.
    pub resource: ResourceId,
    /// The first name.
    pub domain: String,
    /// All names.
    pub hosts: BTreeSet<String>,
    /// The private certificate authority that issues it; `None` for Amazon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<CertificateAuthorityArn>,
    /// The tags, those that name the owner among them.
    pub tags: Tags,
    /// The hosted zone of each host where it has to be validated, and is not yet; `None` while that cannot be: no such
    /// certificate is requested.
    #[serde(skip)]
    pub zones: Option<BTreeMap<String, HostedZoneId>>,
    /// The cause.
    pub cause: Cause,
}

impl ManagedCertificate {
    /// Returns true if the observed certificate is this one. ACM may not show the names of one that was requested a moment ago; it
    /// may be this one.
    #[must_use]
    pub fn is(&self, observed: &ObservedCertificate) -> bool {
        let is_new = observed.hosts.is_empty() && observed.status == CertificateStatus::Pending;
        let for_the_same = observed.hosts == self.hosts || is_new;
        observed.resource == self.resource && for_the_same && observed.authority == self.authority
    }

    /// Returns the token with which ACM recognises a repeated request (32 characters at most, for an hour). The certificates of the
    /// resource that exist, and those that were deleted in that time, belong to it, so that one in place of a failed or deleted one
    /// is another request. After a lost answer it is the same, whichever of them was deleted meanwhile.
    #[must_use]
    pub fn token(&self, before: &BTreeSet<CertificateArn>) -> String {
        let mut parts = vec![self.resource.as_str()];
        parts.extend(self.hosts.iter().map(String::as_str));
        parts.extend(["authority"].into_iter().chain(self.authority.as_ref().map(CertificateAuthorityArn::as_str)));
        parts.extend(self.tags.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]));
        parts.extend(["before"].into_iter().chain(before.iter().map(CertificateArn::as_str)));
        names::token(&parts)
    }
}

/// The certificates of a stack that ACM is to issue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DesiredCertificates {
    /// True if the controller requests certificates, and deletes those that it has requested: the feature gate
    /// `EnableCertificateManagement`.
    pub enabled: bool,
    /// In the order of the members.
    pub wanted: Vec<ManagedCertificate>,
    /// The Ingresses whose certificates stay as they are, since they cannot be read now.
    pub unread: BTreeSet<ObjectName>,
}

impl DesiredCertificates {
    /// Returns true if none is requested, and nothing is deleted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unread.is_empty()
    }
}

/// A certificate that was requested for a stack, as ACM has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedCertificate {
    /// The ARN.
    pub arn: CertificateArn,
    /// The id of the resource, from its tags.
    pub resource: ResourceId,
    /// All names.
    pub hosts: BTreeSet<String>,
    /// The private certificate authority that issues it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<CertificateAuthorityArn>,
    /// The state.
    pub status: CertificateStatus,
    /// The records that prove to ACM who has the hosts; none until ACM has determined them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<ValidationRecord>,
    /// The names of the records that the controller knows to exist.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub validated: BTreeSet<String>,
    /// The names of those that the controller has created. No other is deleted: the same record proves a host in every region and
    /// account, and may belong to another owner.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub created: BTreeSet<String>,
}

impl ObservedCertificate {
    /// Returns true if it can be put on a listener.
    #[must_use]
    pub fn is_issued(&self) -> bool {
        self.status == CertificateStatus::Issued
    }

    /// Returns the records that are not known to exist, once each: a wildcard has the record of its domain.
    #[must_use]
    pub fn missing_records(&self) -> Vec<&ValidationRecord> {
        let mut missing: Vec<&ValidationRecord> = Vec::new();
        for record in self.records.iter().filter(|record| !self.validated.contains(&record.name)) {
            if !missing.iter().any(|other| other.name == record.name) {
                missing.push(record);
            }
        }
        missing
    }
}

/// The certificates of a stack of a short time ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentCertificates {
    /// Those that were deleted, by resource: ACM may answer a request with the token of an earlier one with one of them.
    pub deleted: BTreeMap<ResourceId, BTreeSet<CertificateArn>>,
    /// The Ingresses for which no other certificate is requested for the moment.
    pub paused: BTreeSet<ObjectReference>,
}

/// The state of a certificate (ACM API: CertificateStatus).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CertificateStatus {
    /// ACM waits for the proof of who has the hosts, or for the private authority.
    Pending,
    /// It can be used.
    Issued,
    /// It never will be, or no more; with ACM's reason, or else its word for the state.
    Unusable(String),
    /// The controller has deleted it. Its records in Route 53 have yet to go.
    Deleted,
}

/// A CNAME that proves to ACM who has a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidationRecord {
    /// The host.
    pub host: String,
    /// The name of the record.
    pub name: String,
    /// The value of the record.
    pub value: String,
}

/// Returns the name that a wildcard is for, or else the name itself: ACM proves both with one record.
#[must_use]
pub fn without_wildcard(host: &str) -> &str {
    host.strip_prefix("*.").unwrap_or(host)
}

/// Returns the records of a deleted certificate that no other certificate of the account needs: ACM has one record for a
/// host, whatever the certificate, and renews with it. `others` are the names of all other certificates.
#[must_use]
pub fn removable_records<'r>(records: &'r [ValidationRecord], others: &BTreeSet<String>) -> Vec<&'r ValidationRecord> {
    let needed: BTreeSet<&str> = others.iter().map(|name| without_wildcard(name)).collect();
    let mut removable: Vec<&ValidationRecord> = Vec::new();
    for record in records.iter().filter(|record| !needed.contains(without_wildcard(&record.host))) {
        if !removable.iter().any(|other| other.name == record.name) {
            removable.push(record);
        }
    }
    removable
}

/// Returns all certificates of a listener, the default one first.
pub fn on_listener(listener: &ObservedListener) -> impl Iterator<Item = &CertificateArn> {
    let default = listener.default_certificate.as_ref();
    default.into_iter().chain(listener.certificates.iter().filter(move |other| Some(*other) != default))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(host: &str, name: &str) -> ValidationRecord {
        ValidationRecord { host: host.to_owned(), name: name.to_owned(), value: "v".to_owned() }
    }

    fn observed(arn: &str) -> ObservedCertificate {
        ObservedCertificate {
            arn: CertificateArn::new(arn),
            resource: ResourceId::of_tag("amazon_issued/a.example.com-00000000"),
            hosts: ["a.example.com".to_owned()].into(),
            authority: None,
            status: CertificateStatus::Pending,
            records: vec![record("a.example.com", "_1"), record("*.a.example.com", "_1"), record("b.org", "_2")],
            validated: BTreeSet::new(),
            created: BTreeSet::new(),
        }
    }

    #[test]
    fn each_record_is_made_once() {
        let mut certificate = observed("c");
        let names = |certificate: &ObservedCertificate| {
            certificate.missing_records().iter().map(|record| record.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&certificate), ["_1", "_2"]);
        certificate.validated = ["_1".to_owned()].into();
        assert_eq!(names(&certificate), ["_2"]);
    }

    #[test]
    fn a_record_that_another_certificate_needs_stays() {
        let certificate = observed("c");
        for (others, expected) in [
            (&[][..], &["_1", "_2"][..]),
            (&["*.a.example.com"], &["_2"]),
            (&["a.example.com", "b.org"], &[]),
            (&["x.a.example.com", "*.org"], &["_1", "_2"]),
        ] {
            let others = others.iter().map(|name| (*name).to_owned()).collect();
            let names: Vec<&str> =
                removable_records(&certificate.records, &others).iter().map(|record| record.name.as_str()).collect();
            assert_eq!(names, expected, "{others:?}");
        }
    }

    #[test]
    fn a_token_is_of_one_request() {
        let cause = Cause {
            object: ObjectReference::ingress(&ObjectName::new("shop", "web")),
            generation: 1,
            field: "spec".to_owned(),
        };
        let one = ManagedCertificate {
            resource: ResourceId::of_tag("amazon_issued/a.example.com-00000000"),
            domain: "a.example.com".to_owned(),
            hosts: ["a.example.com".to_owned()].into(),
            authority: None,
            tags: Tags::new(),
            zones: None,
            cause,
        };
        let before = |arns: &[&str]| arns.iter().map(|arn| CertificateArn::new(*arn)).collect();
        let token = one.token(&before(&[]));
        assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{token}");
        let later = ManagedCertificate { cause: Cause { generation: 2, ..one.cause.clone() }, ..one.clone() };
        assert_eq!(later.token(&before(&[])), token);
        let mut others = [one.clone(), one.clone(), one.clone()];
        others[0].hosts.insert("b.org".to_owned());
        others[1].tags.insert("team".to_owned(), "web".to_owned());
        let arn = "arn:aws:acm-pca:us-west-2:1:certificate-authority/a";
        others[2].authority = Some(CertificateAuthorityArn::new(arn).unwrap());
        let mut tokens: BTreeSet<String> = others.iter().map(|other| other.token(&before(&[]))).collect();
        tokens.extend([token, one.token(&before(&["c"])), one.token(&before(&["c", "d"]))]);
        assert_eq!(tokens.len(), 6);
        assert!(one.is(&observed("c")) && !others[0].is(&observed("c")));
        let mut new = ObservedCertificate { hosts: BTreeSet::new(), ..observed("c") };
        assert!(one.is(&new) && others[0].is(&new) && !others[2].is(&new));
        new.status = CertificateStatus::Unusable("FAILED".to_owned());
        assert!(!one.is(&new));
    }
}
