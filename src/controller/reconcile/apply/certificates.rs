//! The steps of requested certificates.

use std::collections::BTreeSet;

use super::{Applier, StepError};
use albatross_aws::AwsError;
use albatross_core::{
    facts::hosted_zones::zone_of,
    model::{
        CertificateArn, CertificateStatus, HostedZoneId, ManagedCertificate, ObservedCertificate, StackId,
        ValidationRecord, managed_certificate::removable_records,
    },
};

impl Applier {
    /// Asks ACM for a certificate. A refusal is remembered, since ACM counts the certificates of a year.
    pub(super) async fn request_certificate(
        &self,
        stack: &StackId,
        wanted: &ManagedCertificate,
        token: &str,
    ) -> Result<(), StepError> {
        let arn = self.aws.request_certificate(wanted, token).await.map_err(|error| {
            if error.is_refused() {
                self.inventory.record_refused_certificate(stack, token);
                self.inventory.count_request(&wanted.cause.object, token);
            } else if error.is_denied() {
                self.inventory.record_denied(stack, token);
            }
            StepError::Aws(error)
        })?;
        self.inventory.count_request(&wanted.cause.object, arn.as_str());
        let requested = ObservedCertificate {
            arn,
            resource: wanted.resource.clone(),
            hosts: wanted.hosts.clone(),
            authority: wanted.authority.clone(),
            status: CertificateStatus::Pending,
            records: Vec::new(),
            validated: BTreeSet::new(),
            created: BTreeSet::new(),
        };
        self.inventory.record_certificate(stack, requested);
        Ok(())
    }

    /// Creates the record that proves a host of a certificate.
    pub(super) async fn create_record(
        &self,
        stack: &StackId,
        arn: &CertificateArn,
        zone: &HostedZoneId,
        record: &ValidationRecord,
    ) -> Result<(), StepError> {
        let is_new = self.aws.create_record(zone, record).await.map_err(|error| {
            if error.is_refused() || error.is_denied() {
                self.inventory.record_denied(stack, &record.name);
            }
            StepError::Aws(error)
        })?;
        self.inventory.record_validation(stack, arn, &record.name, is_new);
        Ok(())
    }

    /// Deletes a certificate that the controller has requested, and then the records that the controller has created and that no other
    /// one needs. As long as something uses it, its records stay, and it is renewed. Nothing else depends on this deletion, so whatever
    /// AWS answers holds up nothing: it is tried again, later where the same answer has to be expected.
    pub(super) async fn delete_certificate(&self, stack: &StackId, arn: &CertificateArn) -> Result<(), StepError> {
        self.delete_with_records(stack, arn).await.map_err(|error| {
            self.inventory.record_certificate_kept(stack, arn, &error);
            StepError::NotYet(error)
        })
    }

    async fn delete_with_records(&self, stack: &StackId, arn: &CertificateArn) -> Result<(), AwsError> {
        let (aws, inventory) = (&self.aws, &*self.inventory);
        let Some(known) = inventory.certificate(stack, arn) else { return Ok(()) };
        if known.status != CertificateStatus::Deleted {
            if !inventory.is_certificate_of(stack, arn).await? {
                tracing::warn!(%stack, certificate = %arn, "it does not carry the stack's tags any more, so it stays");
                inventory.record_certificate_gone(stack, arn);
                return Ok(());
            }
            aws.delete_certificate(arn).await?;
            inventory.record_certificate_deleted(stack, arn);
        }
        self.delete_records(&known).await?;
        inventory.record_certificate_gone(stack, arn);
        Ok(())
    }

    async fn delete_records(&self, certificate: &ObservedCertificate) -> Result<(), AwsError> {
        let (ours, unsure): (Vec<ValidationRecord>, Vec<_>) =
            certificate.records.iter().cloned().partition(|record| certificate.created.contains(&record.name));
        // The list of the whole account is read only if there may be something to delete.
        if !ours.is_empty() {
            let others = self.inventory.names_of_other_certificates(&certificate.arn).await?;
            let removable = removable_records(&ours, &others);
            let zones = if removable.is_empty() { Vec::new() } else { self.aws.public_zones().await? };
            for record in removable {
                // Another stack may have requested one since ACM was listed.
                if self.inventory.has_other_certificate_with(&certificate.arn, record) {
                    continue;
                }
                // Without a zone there is no record.
                if let Some(zone) = zone_of(&record.name, &zones) {
                    self.aws.delete_record(zone, record).await?;
                }
                self.inventory.record_validation_deleted(&record.name);
            }
        }
        if !unsure.is_empty() {
            let records: BTreeSet<&str> = unsure.iter().map(|record| record.name.as_str()).collect();
            tracing::warn!(
                certificate = %certificate.arn,
                "records in Route 53 that proved hosts of a deleted certificate stay, since it is not known that this controller has \
                 created them: {}",
                records.into_iter().collect::<Vec<_>>().join(", ")
            );
        }
        Ok(())
    }
}
