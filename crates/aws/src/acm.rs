//! ACM: the certificates that are issued, and the names that they are for.

use aws_sdk_acm::types as acm;

use super::{AwsError, AwsReader};
use albatross_core::{facts::certificates::Certificate, model::CertificateArn};

/// A certificate in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedCertificate {
    pub(crate) arn: CertificateArn,
    /// All names that it is for; `None` where the list does not contain them all.
    pub(crate) domains: Option<Vec<String>>,
    /// The time of the import of one that ACM has not issued, in seconds since 1970.
    pub(crate) imported_at: Option<i64>,
}

/// The most names of one certificate that a list contains.
const NAMES_IN_LIST: usize = 100;

impl AwsReader {
    /// ListCertificates: all that are issued, whatever their keys.
    pub(crate) async fn issued_certificates(&self) -> Result<Vec<ListedCertificate>, AwsError> {
        // Without this filter ACM lists only certificates with RSA keys of 1024 and 2048 bits.
        let keys = acm::KeyAlgorithm::values().iter().map(|key| acm::KeyAlgorithm::from(*key)).collect();
        let call = self
            .acm
            .list_certificates()
            .certificate_statuses(acm::CertificateStatus::Issued)
            .includes(acm::Filters::builder().set_key_types(Some(keys)).build());
        let mut listed = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self.read("ListCertificates", || call.clone().set_next_token(token.clone()).send()).await?;
            listed.extend(page.certificate_summary_list().iter().filter_map(of_list));
            match page.next_token().filter(|next| !next.is_empty()).map(str::to_owned) {
                None => return Ok(listed),
                next if next == token => return Err(AwsError::incomplete("ListCertificates", "next page")),
                next => token = next,
            }
        }
    }

    /// DescribeCertificate. `None` for one that is gone.
    pub(crate) async fn certificate(&self, arn: &CertificateArn) -> Result<Option<(Certificate, bool)>, AwsError> {
        let operation = "DescribeCertificate";
        let call = self.acm.describe_certificate().certificate_arn(arn.as_str());
        let answer = match self.read(operation, || call.clone().send()).await {
            Err(error) if error.code() == Some("ResourceNotFoundException") => return Ok(None),
            answer => answer?,
        };
        let detail = answer.certificate().ok_or_else(|| AwsError::incomplete(operation, "certificate"))?;
        let imported = detail.r#type() == Some(&acm::CertificateType::Imported);
        let certificate = Certificate {
            arn: arn.clone(),
            domains: detail.subject_alternative_names().to_vec(),
            authority: detail.certificate_authority_arn().map(str::to_owned),
        };
        Ok(Some((certificate, imported)))
    }
}

fn of_list(summary: &acm::CertificateSummary) -> Option<ListedCertificate> {
    let names = summary.subject_alternative_name_summaries();
    let complete = !names.is_empty()
        && names.len() < NAMES_IN_LIST
        && summary.has_additional_subject_alternative_names() != Some(true);
    Some(ListedCertificate {
        arn: CertificateArn::new(summary.certificate_arn()?),
        domains: complete.then(|| names.to_vec()),
        imported_at: summary.imported_at().map(aws_smithy_types::DateTime::secs),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use albatross_simulation::fake::Fake;

    const ARN: &str = "arn:aws:acm:us-west-2:1:certificate/";

    fn arn(name: &str) -> CertificateArn {
        CertificateArn::new(format!("{ARN}{name}"))
    }

    #[tokio::test]
    async fn every_page_and_every_kind_of_key_is_asked_for() {
        let fake = Fake::start(|call| async move {
            let asked: serde_json::Value = serde_json::from_str(&call.body).unwrap();
            assert_eq!(asked["CertificateStatuses"], json!(["ISSUED"]));
            let keys = asked["Includes"]["keyTypes"].as_array().unwrap();
            assert!(keys.contains(&json!("RSA_4096")) && keys.contains(&json!("EC_prime256v1")), "{keys:?}");
            let names: Vec<String> = (0..100).map(|number| format!("{number}.example.com")).collect();
            let page = match asked["NextToken"].as_str() {
                None => json!({"NextToken": "more", "CertificateSummaryList": [
                    {"CertificateArn": format!("{ARN}a"), "SubjectAlternativeNameSummaries": ["a.example.com", "*.a.example.com"], "ImportedAt": 1700000000},
                    {"CertificateArn": format!("{ARN}b"), "SubjectAlternativeNameSummaries": ["b"], "HasAdditionalSubjectAlternativeNames": true},
                ]}),
                Some(_) => json!({"CertificateSummaryList": [
                    {"CertificateArn": format!("{ARN}c"), "SubjectAlternativeNameSummaries": names},
                    {"CertificateArn": format!("{ARN}d"), "DomainName": "d.example.com"},
                ]}),
            };
            (200, page.to_string())
        })
        .await;
        let listed = crate::testing::at(&fake.endpoint, None).issued_certificates().await.unwrap();
        let complete = vec!["a.example.com".to_owned(), "*.a.example.com".to_owned()];
        assert_eq!(
            listed,
            [("a", Some(complete), Some(1_700_000_000)), ("b", None, None), ("c", None, None), ("d", None, None)]
                .map(|(name, domains, imported_at)| ListedCertificate { arn: arn(name), domains, imported_at })
        );
    }

    #[tokio::test]
    async fn a_certificate_that_went_meanwhile_is_no_error() {
        let fake = Fake::start(|call| async move {
            let asked: serde_json::Value = serde_json::from_str(&call.body).unwrap();
            if asked["CertificateArn"] != json!(format!("{ARN}a")) {
                return (400, json!({"__type": "ResourceNotFoundException", "message": "gone"}).to_string());
            }
            let detail = json!({"SubjectAlternativeNames": ["a"], "Type": "IMPORTED", "CertificateAuthorityArn": "ca"});
            (200, json!({"Certificate": detail}).to_string())
        })
        .await;
        let aws = crate::testing::at(&fake.endpoint, None);
        let certificate =
            Certificate { arn: arn("a"), domains: vec!["a".to_owned()], authority: Some("ca".to_owned()) };
        assert_eq!(aws.certificate(&arn("a")).await, Ok(Some((certificate, true))));
        assert_eq!(aws.certificate(&arn("b")).await, Ok(None));
    }

    #[tokio::test]
    async fn a_permission_that_is_missing_is_named() {
        let fake = Fake::start(|_| async {
            let denied = "User: x is not authorized to perform: acm:ListCertificates because no policy allows it";
            (400, json!({"__type": "com.amazon.coral.service#AccessDeniedException", "Message": denied}).to_string())
        })
        .await;
        let error = crate::testing::at(&fake.endpoint, None).issued_certificates().await.unwrap_err();
        insta::assert_snapshot!(format!("{error}; {}", error.fix().unwrap()), @"AWS does not allow ListCertificates: User: x is not authorized to perform: acm:ListCertificates because no policy allows it (AccessDeniedException); allow the action `acm:ListCertificates` in the IAM policy of the controller's role");
    }
}
