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
        certificates::{Certificate, matching},
    },
    model::CertificateArn,
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
    /// One reader at a time: the others wait and find the answer.
    known: tokio::sync::Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// All that are issued, and when they were listed.
    issued: Option<(Vec<Certificate>, Instant)>,
    /// The certificates that were described one by one, with the time until when they are valid.
    described: BTreeMap<CertificateArn, (Certificate, Instant)>,
}

impl CertificateStore {
    /// Only certificates of these authorities count, where there are any.
    pub(crate) fn of_authorities(allowed: BTreeSet<String>) -> Self {
        Self { allowed, ..Self::default() }
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
        let found = matching(hosts, &issued, &self.allowed);
        known.issued = Some((issued, at));
        Ok(match found {
            Ok(found) => Fact::Known(found),
            Err(uncovered) => Fact::Absent { message: uncovered.to_string(), fix: uncovered.fix() },
        })
    }

    async fn read(
        &self,
        aws: &AwsReader,
        described: &mut BTreeMap<CertificateArn, (Certificate, Instant)>,
    ) -> Result<Vec<Certificate>, AwsError> {
        let listed = aws.issued_certificates().await?;
        let now = Instant::now();
        let is_listed: BTreeSet<&CertificateArn> = listed.iter().map(|certificate| &certificate.arn).collect();
        described.retain(|arn, (_, until)| *until > now && is_listed.contains(arn));
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
            let age = if imported { MAXIMUM_AGE_OF_IMPORTED } else { MAXIMUM_AGE_OF_ISSUED };
            described.insert(certificate.arn.clone(), (certificate, now + age));
        }
        Ok(listed
            .iter()
            .filter_map(|listed| {
                as_certificate(listed).or_else(|| described.get(&listed.arn).map(|(known, _)| known.clone()))
            })
            .collect())
    }
}
