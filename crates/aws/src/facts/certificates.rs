//! The certificates in ACM. One list serves all stacks that ask within a minute; details that the list does not have are
//! read certificate by certificate, once in a long while.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use crate::{AwsError, AwsReader, ListedCertificate};
use albatross_core::{
    facts::{
        Fact,
        certificates::{Certificate, is_for, matching},
    },
    model::{CertificateArn, tags},
};

/// The maximum age of a list. A host without a certificate is looked for again at this interval.
const MAXIMUM_AGE_OF_LIST: Duration = Duration::from_secs(60);
/// An imported certificate can be replaced by another one under the same ARN.
const MAXIMUM_AGE_OF_IMPORTED: Duration = Duration::from_secs(300);
/// The names of one that ACM has issued itself stay.
const MAXIMUM_AGE_OF_ISSUED: Duration = Duration::from_secs(36_000);
/// The most certificates that are read at once.
const AT_ONCE: usize = 4;

/// The cached state of ACM.
#[derive(Debug, Default)]
pub(crate) struct CertificateStore {
    /// The authorities whose certificates count; all if empty.
    allowed: BTreeSet<String>,
    /// True if certificates that were requested for Ingresses do not count.
    excludes_requested: bool,
    /// One reader at a time: the others wait and find the answer.
    known: tokio::sync::Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// All that are issued, and when they were listed.
    issued: Option<(Vec<Certificate>, Instant)>,
    /// The certificates that were described one by one, with the time until when they are valid.
    described: BTreeMap<CertificateArn, Described>,
    /// The listed certificates of which it is known if they were requested for Ingresses.
    requested: BTreeMap<CertificateArn, bool>,
}

#[derive(Debug)]
struct Described {
    certificate: Certificate,
    until: Instant,
    /// The time of the import, from the list: another one under the same ARN has another time.
    imported_at: Option<i64>,
}

impl CertificateStore {
    /// Only certificates of these authorities count, where there are any.
    pub(crate) fn of_authorities(allowed: BTreeSet<String>) -> Self {
        Self { allowed, ..Self::default() }
    }

    /// Certificates that were requested for Ingresses do not count, if `excludes`.
    pub(crate) fn without_requested(self, excludes: bool) -> Self {
        Self { excludes_requested: excludes, ..self }
    }

    /// The certificates for these hosts.
    pub(crate) async fn answer(
        &self,
        aws: &AwsReader,
        hosts: &BTreeSet<String>,
    ) -> Result<Fact<Vec<CertificateArn>>, AwsError> {
        let mut known = self.known.lock().await;
        let old = known.issued.take().filter(|(_, at)| at.elapsed() < MAXIMUM_AGE_OF_LIST);
        let (issued, at) = match old {
            Some(issued) => issued,
            None => {
                let at = Instant::now();
                (self.read(aws, &mut known.described).await?, at)
            }
        };
        let found = if self.excludes_requested {
            self.classify(aws, hosts, &issued, &mut known.requested).await;
            let is_requested = |certificate: &&Certificate| known.requested.get(&certificate.arn) == Some(&true);
            let others: Vec<Certificate> = issued.iter().filter(|one| !is_requested(one)).cloned().collect();
            matching(hosts, &others, &self.allowed)
        } else {
            matching(hosts, &issued, &self.allowed)
        };
        known.issued = Some((issued, at));
        Ok(match found {
            Ok(found) => Fact::Known(found),
            Err(uncovered) => Fact::Absent { message: uncovered.to_string(), fix: uncovered.fix() },
        })
    }

    /// Finds out which certificates for the hosts were requested for Ingresses: their tags are read once. That they cannot be
    /// read holds up nothing: such a certificate counts.
    async fn classify(
        &self,
        aws: &AwsReader,
        hosts: &BTreeSet<String>,
        issued: &[Certificate],
        requested: &mut BTreeMap<CertificateArn, bool>,
    ) {
        let arns: BTreeSet<&CertificateArn> = issued.iter().map(|certificate| &certificate.arn).collect();
        requested.retain(|arn, _| arns.contains(arn));
        let unknown = issued.iter().filter(|certificate| is_for(certificate, hosts));
        for certificate in unknown {
            if requested.contains_key(&certificate.arn) {
                continue;
            }
            match aws.certificate_tags(&certificate.arn).await {
                Ok(tags) => {
                    let is_requested = tags.as_ref().is_some_and(tags::is_requested_certificate);
                    requested.insert(certificate.arn.clone(), is_requested);
                }
                Err(error) => tracing::warn!(
                    certificate = %certificate.arn,
                    "it is not known if it was requested for an Ingress, so it counts for all: {error}"
                ),
            }
        }
    }

    async fn read(
        &self,
        aws: &AwsReader,
        described: &mut BTreeMap<CertificateArn, Described>,
    ) -> Result<Vec<Certificate>, AwsError> {
        let listed = aws.issued_certificates().await?;
        let now = Instant::now();
        let imports: BTreeMap<&CertificateArn, Option<i64>> =
            listed.iter().map(|certificate| (&certificate.arn, certificate.imported_at)).collect();
        described.retain(|arn, known| known.until > now && imports.get(arn) == Some(&known.imported_at));
        // A list does not contain the issuer of a certificate.
        let as_certificate = |listed: &ListedCertificate| match (&listed.domains, self.allowed.is_empty()) {
            (Some(domains), true) => {
                Some(Certificate { arn: listed.arn.clone(), domains: domains.clone(), authority: None })
            }
            _ => None,
        };
        let unknown: Vec<CertificateArn> = listed
            .iter()
            .filter(|listed| as_certificate(listed).is_none() && !described.contains_key(&listed.arn))
            .map(|listed| listed.arn.clone())
            .collect();
        let mut answers = stream::iter(unknown).map(async |arn| aws.certificate(&arn).await).buffer_unordered(AT_ONCE);
        // Answers received before a failure stay known.
        while let Some(answer) = answers.try_next().await? {
            let Some((certificate, imported)) = answer else { continue };
            let imported_at = imports.get(&certificate.arn).copied().flatten();
            // The list shows when one is replaced.
            let age = match imported && imported_at.is_none() {
                true => MAXIMUM_AGE_OF_IMPORTED,
                false => MAXIMUM_AGE_OF_ISSUED,
            };
            let arn = certificate.arn.clone();
            described.insert(arn, Described { certificate, until: now + age, imported_at });
        }
        Ok(listed
            .iter()
            .filter_map(|listed| {
                as_certificate(listed).or_else(|| described.get(&listed.arn).map(|known| known.certificate.clone()))
            })
            .collect())
    }
}
