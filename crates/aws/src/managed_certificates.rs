//! The calls that have certificates issued: requests and deletions in ACM, and the records in Route 53 that prove hosts.
//! None of them is made where nobody requests a certificate.

use aws_sdk_acm::types as acm;
use aws_sdk_route53::types as route53;

use super::{AwsError, AwsReader, AwsWriter};
use albatross_core::{
    facts::hosted_zones::HostedZone,
    model::{
        CertificateArn, CertificateAuthorityArn, CertificateStatus, HostedZoneId, ManagedCertificate,
        ObservedCertificate, ResourceId, Tags, ValidationRecord,
    },
};

/// The lifetime of a record, in seconds, as aws-load-balancer-controller writes it: Route 53 deletes a record only for the
/// same.
const TTL: i64 = 60;

/// The path before the id of a hosted zone in answers of Route 53.
const ZONE_PATH: &str = "/hostedzone/";

/// The code with which ACM reports that a certificate does not exist.
const NOT_FOUND: &str = "ResourceNotFoundException";

/// The code with which Route 53 refuses a change, whatever is wrong with it.
const INVALID_CHANGE: &str = "InvalidChangeBatch";

/// A certificate in the list of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AnyCertificate {
    pub(crate) arn: CertificateArn,
    /// The first hundred names.
    pub(crate) names: Vec<String>,
    /// True if ACM did not issue it.
    pub(crate) is_imported: bool,
}

impl AwsReader {
    /// Returns all certificates of the account, whatever their state (ListCertificates).
    pub(crate) async fn all_certificates(&self) -> Result<Vec<AnyCertificate>, AwsError> {
        let keys = acm::KeyAlgorithm::values().iter().map(|key| acm::KeyAlgorithm::from(*key)).collect();
        let call = self.acm.list_certificates().includes(acm::Filters::builder().set_key_types(Some(keys)).build());
        let mut listed = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self.read("ListCertificates", || call.clone().set_next_token(token.clone()).send()).await?;
            listed.extend(page.certificate_summary_list().iter().filter_map(|summary| {
                let mut names = summary.subject_alternative_name_summaries().to_vec();
                names.extend(summary.domain_name().map(str::to_owned));
                Some(AnyCertificate {
                    arn: CertificateArn::new(summary.certificate_arn()?),
                    names,
                    is_imported: summary.r#type() == Some(&acm::CertificateType::Imported),
                })
            }));
            match page.next_token().filter(|next| !next.is_empty()).map(str::to_owned) {
                None => return Ok(listed),
                next if next == token => return Err(AwsError::incomplete("ListCertificates", "next page")),
                next => token = next,
            }
        }
    }

    /// Returns the tags of a certificate (ListTagsForCertificate); `None` for one that does not exist.
    pub(crate) async fn certificate_tags(&self, arn: &CertificateArn) -> Result<Option<Tags>, AwsError> {
        let call = self.acm.list_tags_for_certificate().certificate_arn(arn.as_str());
        match self.read_of("ListTagsForCertificate", arn.as_str(), || call.clone().send()).await {
            Err(error) if error.code() == Some(NOT_FOUND) => Ok(None),
            answer => {
                let tag = |tag: &acm::Tag| (tag.key().to_owned(), tag.value().unwrap_or_default().to_owned());
                Ok(Some(answer?.tags().iter().map(tag).collect()))
            }
        }
    }

    /// Returns a requested certificate (DescribeCertificate); `None` for one that does not exist.
    pub(crate) async fn managed_certificate(
        &self,
        arn: &CertificateArn,
        resource: ResourceId,
    ) -> Result<Option<ObservedCertificate>, AwsError> {
        let operation = "DescribeCertificate";
        let call = self.acm.describe_certificate().certificate_arn(arn.as_str());
        let answer = match self.read(operation, || call.clone().send()).await {
            Err(error) if error.code() == Some(NOT_FOUND) => return Ok(None),
            answer => answer?,
        };
        let detail = answer.certificate().ok_or_else(|| AwsError::incomplete(operation, "certificate"))?;
        let record = |option: &acm::DomainValidation| {
            let record = option.resource_record()?;
            Some(ValidationRecord {
                host: option.domain_name().to_owned(),
                name: record.name().to_owned(),
                value: record.value().to_owned(),
            })
        };
        Ok(Some(ObservedCertificate {
            arn: arn.clone(),
            resource,
            hosts: detail.subject_alternative_names().iter().cloned().collect(),
            authority: detail.certificate_authority_arn().and_then(|arn| CertificateAuthorityArn::new(arn).ok()),
            status: status(detail),
            records: detail.domain_validation_options().iter().filter_map(record).collect(),
            validated: std::collections::BTreeSet::new(),
            created: std::collections::BTreeSet::new(),
        }))
    }

    /// Returns the public hosted zones of the account (ListHostedZones).
    ///
    /// # Errors
    /// AWS's.
    pub async fn public_zones(&self) -> Result<Vec<HostedZone>, AwsError> {
        let operation = "ListHostedZones";
        let call = self.route53.list_hosted_zones();
        let mut zones = Vec::new();
        let mut marker: Option<String> = None;
        loop {
            let page = self.read(operation, || call.clone().set_marker(marker.clone()).send()).await?;
            let public = page.hosted_zones().iter().filter(|zone| !zone.config().is_some_and(|c| c.private_zone()));
            zones.extend(public.map(|zone| HostedZone {
                id: HostedZoneId::new(zone.id().trim_start_matches(ZONE_PATH)),
                name: zone.name().to_owned(),
            }));
            match page.next_marker().filter(|_| page.is_truncated()).map(str::to_owned) {
                None => return Ok(zones),
                next if next == marker => return Err(AwsError::incomplete(operation, "next page")),
                next => marker = next,
            }
        }
    }
}

/// Returns the state of a certificate, with ACM's reason where it is of no use.
fn status(detail: &acm::CertificateDetail) -> CertificateStatus {
    let status = detail.status().map_or("no status", acm::CertificateStatus::as_str);
    match status {
        "PENDING_VALIDATION" => CertificateStatus::Pending,
        "ISSUED" => CertificateStatus::Issued,
        status => {
            let reason = detail.failure_reason().map_or(status, acm::FailureReason::as_str);
            CertificateStatus::Unusable(reason.to_owned())
        }
    }
}

fn change(action: route53::ChangeAction, record: &ValidationRecord) -> Option<route53::ChangeBatch> {
    let value = route53::ResourceRecord::builder().value(&record.value).build().ok()?;
    let set = route53::ResourceRecordSet::builder()
        .name(&record.name)
        .r#type(route53::RrType::Cname)
        .ttl(TTL)
        .resource_records(value)
        .build()
        .ok()?;
    let change = route53::Change::builder().action(action).resource_record_set(set).build().ok()?;
    route53::ChangeBatch::builder().changes(change).build().ok()
}

impl AwsWriter {
    /// Asks ACM for a certificate, with its tags (RequestCertificate). The same token within an hour has the same answer.
    ///
    /// # Errors
    /// AWS's.
    pub async fn request_certificate(
        &self,
        wanted: &ManagedCertificate,
        token: &str,
    ) -> Result<CertificateArn, AwsError> {
        let operation = "RequestCertificate";
        let tag = |(key, value): (&String, &String)| acm::Tag::builder().key(key).value(value).build();
        let tags: Result<Vec<acm::Tag>, _> = wanted.tags.iter().map(tag).collect();
        let tags = tags.map_err(|error| AwsError::unsent(operation, &error.to_string()))?;
        let call = self
            .acm
            .request_certificate()
            .domain_name(&wanted.domain)
            .set_subject_alternative_names(Some(wanted.hosts.iter().cloned().collect()))
            .validation_method(acm::ValidationMethod::Dns)
            .idempotency_token(token)
            .set_certificate_authority_arn(wanted.authority.as_ref().map(|authority| authority.as_str().to_owned()))
            .set_tags(Some(tags));
        let answer = self.write(operation, || call.clone().send()).await?;
        answer.certificate_arn().map(CertificateArn::new).ok_or_else(|| AwsError::incomplete(operation, "ARN"))
    }

    /// Deletes a certificate; one that does not exist is deleted (DeleteCertificate).
    ///
    /// # Errors
    /// AWS's; that it has to wait while something uses it.
    pub async fn delete_certificate(&self, arn: &CertificateArn) -> Result<(), AwsError> {
        let call = self.acm.delete_certificate().certificate_arn(arn.as_str());
        match self.write("DeleteCertificate", || call.clone().send()).await {
            Err(error) if error.code() != Some(NOT_FOUND) => Err(error),
            _ => Ok(()),
        }
    }

    /// Creates the record that proves a host; one that exists is left as it is (ChangeResourceRecordSets). Returns true if it was
    /// created, and false if it existed, be it created by this call with an answer that was lost.
    ///
    /// # Errors
    /// AWS's.
    pub async fn create_record(&self, zone: &HostedZoneId, record: &ValidationRecord) -> Result<bool, AwsError> {
        match self.change_record(zone, route53::ChangeAction::Create, record).await {
            // "Tried to create resource record set [...] but it already exists"
            Err(error) if error.code() == Some(INVALID_CHANGE) && error.to_string().contains("exist") => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Deletes the record that proved a host; one that is not there, or is another one, is left (ChangeResourceRecordSets).
    ///
    /// # Errors
    /// AWS's.
    pub async fn delete_record(&self, zone: &HostedZoneId, record: &ValidationRecord) -> Result<(), AwsError> {
        match self.change_record(zone, route53::ChangeAction::Delete, record).await {
            // "... but it was not found", "... but the values provided do not match the current values"
            Err(error) if matches!(error.code(), Some(INVALID_CHANGE | "NoSuchHostedZone")) => Ok(()),
            result => result,
        }
    }

    async fn change_record(
        &self,
        zone: &HostedZoneId,
        action: route53::ChangeAction,
        record: &ValidationRecord,
    ) -> Result<(), AwsError> {
        let operation = "ChangeResourceRecordSets";
        let batch = change(action, record).ok_or_else(|| AwsError::unsent(operation, "the record is not complete"))?;
        let call = self.route53.change_resource_record_sets().hosted_zone_id(zone.as_str()).change_batch(batch);
        self.write(operation, || call.clone().send()).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
