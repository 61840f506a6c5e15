use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::testing::{at, writer};
use albatross_core::model::{Cause, ObjectName, ObjectReference, StackId, VpcId};
use albatross_simulation::fake::{Call, Fake};

const ARN: &str = "arn:aws:acm:us-west-2:111122223333:certificate/a";
const AUTHORITY: &str = "arn:aws:acm-pca:us-west-2:111122223333:certificate-authority/a";

fn wanted(authority: Option<&str>) -> ManagedCertificate {
    ManagedCertificate {
        resource: ResourceId::of_tag("amazon_issued/a.example.com-97375646"),
        domain: "a.example.com".to_owned(),
        hosts: ["b.example.com", "a.example.com"].map(str::to_owned).into(),
        authority: authority.map(|arn| CertificateAuthorityArn::new(arn).unwrap()),
        tags: [("elbv2.k8s.aws/cluster".to_owned(), "demo".to_owned())].into(),
        zones: None,
        cause: Cause {
            object: ObjectReference::ingress(&ObjectName::new("shop", "web")),
            generation: 1,
            field: "create-acm-cert".to_owned(),
        },
    }
}

fn record() -> ValidationRecord {
    let [host, name, value] = ["a.example.com", "_1.a.example.com.", "_2.acm-validations.aws."].map(str::to_owned);
    ValidationRecord { host, name, value }
}

fn refusal(code: &str, message: &str) -> (u16, String) {
    (400, json!({"__type": code, "message": message}).to_string())
}

fn text(error: &AwsError) -> String {
    format!("{error}; {}", error.fix().unwrap_or_else(|| "-".to_owned()))
}

#[tokio::test]
async fn a_certificate_is_requested_read_and_deleted() {
    let fake = Fake::start(|call: Call| async move {
        match call.action.as_str() {
            "RequestCertificate" => (200, json!({"CertificateArn": ARN}).to_string()),
            "ListTagsForCertificate" => {
                (200, json!({"Tags": [{"Key": "team", "Value": "web"}, {"Key": "empty"}]}).to_string())
            }
            "DescribeCertificate" => {
                let record = json!({"Name": "_1.a.example.com.", "Type": "CNAME", "Value": "_2.acm-validations.aws."});
                let option = |host: &str, record: &Value| json!({"DomainName": host, "ResourceRecord": record});
                let detail = json!({"CertificateArn": ARN, "Status": "PENDING_VALIDATION",
                    "SubjectAlternativeNames": ["a.example.com", "b.example.com"],
                    "DomainValidationOptions": [option("a.example.com", &record), {"DomainName": "b.example.com"}]});
                (200, json!({"Certificate": detail}).to_string())
            }
            _ => refusal("ResourceNotFoundException", "there is none"),
        }
    })
    .await;
    let aws = writer(at(&fake.endpoint, None));
    let arn = CertificateArn::new(ARN);
    assert_eq!(aws.request_certificate(&wanted(None), "token").await, Ok(arn.clone()));
    assert_eq!(aws.request_certificate(&wanted(Some(AUTHORITY)), "other").await, Ok(arn.clone()));
    let sent: Vec<Value> = fake.calls().iter().map(|call| serde_json::from_str(&call.body).unwrap()).collect();
    let public = json!({"DomainName": "a.example.com", "ValidationMethod": "DNS", "IdempotencyToken": "token",
        "SubjectAlternativeNames": ["a.example.com", "b.example.com"],
        "Tags": [{"Key": "elbv2.k8s.aws/cluster", "Value": "demo"}]});
    let mut private = public.clone();
    private["IdempotencyToken"] = json!("other");
    private["CertificateAuthorityArn"] = json!(AUTHORITY);
    assert_eq!(sent, [public, private]);
    let tags = [("team", "web"), ("empty", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(aws.certificate_tags(&arn).await, Ok(Some(tags.into())));
    let resource = wanted(None).resource;
    let expected = ObservedCertificate {
        arn: arn.clone(),
        resource: resource.clone(),
        hosts: wanted(None).hosts,
        authority: None,
        status: CertificateStatus::Pending,
        // ACM determines them one by one.
        records: vec![record()],
        validated: std::collections::BTreeSet::new(),
        created: std::collections::BTreeSet::new(),
    };
    assert_eq!(aws.managed_certificate(&arn, resource).await, Ok(Some(expected)));
    // It is gone already.
    assert_eq!(aws.delete_certificate(&arn).await, Ok(()));
}

#[tokio::test]
async fn states_have_acms_reasons() {
    let status = |detail: Value| async move {
        let body = json!({"Certificate": detail}).to_string();
        let fake = Fake::start(move |_| {
            let body = body.clone();
            async move { (200, body) }
        })
        .await;
        let found =
            at(&fake.endpoint, None).managed_certificate(&CertificateArn::new(ARN), wanted(None).resource).await;
        found.unwrap().unwrap().status
    };
    let unusable = |reason: &str| CertificateStatus::Unusable(reason.to_owned());
    assert_eq!(status(json!({"Status": "ISSUED"})).await, CertificateStatus::Issued);
    assert_eq!(status(json!({"Status": "FAILED", "FailureReason": "CAA_ERROR"})).await, unusable("CAA_ERROR"));
    assert_eq!(status(json!({"Status": "VALIDATION_TIMED_OUT"})).await, unusable("VALIDATION_TIMED_OUT"));
    assert_eq!(status(json!({})).await, unusable("no status"));
}

const ANSWER: &str = r#"<ChangeResourceRecordSetsResponse><ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>"#;

fn route53_error(code: &str, message: &str) -> (u16, String) {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    (400, format!("<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"))
}

#[tokio::test]
async fn records_are_created_and_deleted_once() {
    let there = Arc::new(Mutex::new(false));
    let state = Arc::clone(&there);
    let fake = Fake::start(move |call: Call| {
        let mut there = state.lock().unwrap();
        let creates = call.body.contains("<Action>CREATE</Action>");
        let answer = match (creates, *there) {
            (true, true) => route53_error(
                "InvalidChangeBatch",
                "[Tried to create resource record set [name='_1.a.example.com.', type='CNAME'] but it already exists]",
            ),
            (false, false) => route53_error(
                "InvalidChangeBatch",
                "[Tried to delete resource record set [name='_1.a.example.com.', type='CNAME'] but it was not found]",
            ),
            _ => (200, ANSWER.to_owned()),
        };
        *there = creates;
        async move { answer }
    })
    .await;
    let (aws, zone) = (writer(at(&fake.endpoint, None)), HostedZoneId::new("Z1"));
    for is_new in [true, false] {
        assert_eq!(aws.create_record(&zone, &record()).await, Ok(is_new));
    }
    for _ in 0..2 {
        assert_eq!(aws.delete_record(&zone, &record()).await, Ok(()));
    }
    let calls = fake.calls();
    assert_eq!(calls[0].action, "POST /2013-04-01/hostedzone/Z1/rrset");
    insta::assert_snapshot!(calls[0].body, @r#"<ChangeResourceRecordSetsRequest xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><ChangeBatch><Changes><Change><Action>CREATE</Action><ResourceRecordSet><Name>_1.a.example.com.</Name><Type>CNAME</Type><TTL>60</TTL><ResourceRecords><ResourceRecord><Value>_2.acm-validations.aws.</Value></ResourceRecord></ResourceRecords></ResourceRecordSet></Change></Changes></ChangeBatch></ChangeResourceRecordSetsRequest>"#);
}

#[tokio::test]
async fn zones_are_listed_page_by_page_without_private_ones() {
    let fake = Fake::start(|call: Call| async move {
        let zone = |id: &str, name: &str, private: bool| {
            let config = format!("<Config><PrivateZone>{private}</PrivateZone></Config>");
            format!("<HostedZone><Id>/hostedzone/{id}</Id><Name>{name}</Name><CallerReference>1</CallerReference>{config}</HostedZone>")
        };
        let page = |zones: String, next: &str| {
            let more = if next.is_empty() { "<IsTruncated>false</IsTruncated>".to_owned() } else { format!("<IsTruncated>true</IsTruncated><NextMarker>{next}</NextMarker>") };
            (200, format!("<ListHostedZonesResponse><HostedZones>{zones}</HostedZones><Marker></Marker>{more}<MaxItems>2</MaxItems></ListHostedZonesResponse>"))
        };
        let _ = call;
        static PAGES: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        match PAGES.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => page(zone("Z1", "example.com.", false) + &zone("Z2", "example.com.", true), "Z3"),
            _ => page(zone("Z3", "example.org.", false), ""),
        }
    })
    .await;
    let found = at(&fake.endpoint, None).public_zones().await.unwrap();
    let expected = [("Z1", "example.com."), ("Z3", "example.org.")];
    assert_eq!(found, expected.map(|(id, name)| HostedZone { id: HostedZoneId::new(id), name: name.to_owned() }));
}

#[tokio::test]
async fn errors_have_their_fixes() {
    let request = |code: &'static str, message: &'static str| async move {
        let fake = Fake::start(move |_| async move { refusal(code, message) }).await;
        writer(at(&fake.endpoint, None)).request_certificate(&wanted(None), "token").await.unwrap_err()
    };
    let error =
        request("LimitExceededException", "Error: you have reached your limit of 2500 certificates in the last year.")
            .await;
    assert!(error.is_refused());
    insta::assert_snapshot!(text(&error), @"AWS refuses RequestCertificate: Error: you have reached your limit of 2500 certificates in the last year (LimitExceededException); ask AWS to raise ACM's quotas (certificates in the last 365 days, domain names of a certificate), delete certificates that nothing uses, or use fewer hosts");
    let error = request("InvalidArnException", "The certificate authority is not active").await;
    insta::assert_snapshot!(text(&error), @"AWS refuses RequestCertificate: The certificate authority is not active (InvalidArnException); check the ARN of the private certificate authority: it must be active, in the load balancer's region, and shared with the account");
    let error = request(
        "AccessDeniedException",
        "User: x is not authorized to perform: acm:RequestCertificate because no policy allows it",
    )
    .await;
    insta::assert_snapshot!(text(&error), @"AWS does not allow RequestCertificate: User: x is not authorized to perform: acm:RequestCertificate because no policy allows it (AccessDeniedException); allow the action `acm:RequestCertificate` in the IAM policy of the controller's role");
    let fake = Fake::start(|_| async { refusal("ResourceInUseException", "Certificate a is in use.") }).await;
    let error = writer(at(&fake.endpoint, None)).delete_certificate(&CertificateArn::new(ARN)).await.unwrap_err();
    assert!(matches!(error.kind, crate::AwsErrorKind::Dependency { .. }));
    let fake =
        Fake::start(|_| async { route53_error("AccessDenied", "User: x is not authorized to access this resource") })
            .await;
    let error = writer(at(&fake.endpoint, None)).create_record(&HostedZoneId::new("Z1"), &record()).await.unwrap_err();
    insta::assert_snapshot!(text(&error), @"AWS does not allow ChangeResourceRecordSets: User: x is not authorized to access this resource (AccessDenied); allow the action `route53:ChangeResourceRecordSets` in the IAM policy of the controller's role");
}

#[tokio::test]
async fn certificates_whose_tags_may_not_be_read_are_skipped_unless_that_is_all_of_them() {
    let stack = StackId::Ingress(ObjectName::new("shop", "web"));
    for readable in [true, false] {
        let fake = Fake::start(move |call: Call| async move {
            let asked: Value = serde_json::from_str(&call.body).unwrap();
            let is_own = asked["CertificateArn"] == json!(ARN);
            match call.action.as_str() {
                "ListCertificates" => {
                    let listed = ["x", "a", "y"].map(|name| json!({"CertificateArn": format!("{}{name}", &ARN[..ARN.len() - 1])}));
                    (200, json!({"CertificateSummaryList": listed}).to_string())
                }
                "ListTagsForCertificate" if is_own && readable => {
                    let tags = [
                        ("elbv2.k8s.aws/cluster", "demo"),
                        ("ingress.k8s.aws/stack", "shop/web"),
                        ("ingress.k8s.aws/resource", "amazon_issued/a.example.com-97375646"),
                    ];
                    let tags = tags.map(|(key, value)| json!({"Key": key, "Value": value}));
                    (200, json!({"Tags": tags}).to_string())
                }
                "DescribeCertificate" if is_own => {
                    let detail = json!({"CertificateArn": ARN, "Status": "ISSUED", "SubjectAlternativeNames": ["a.example.com"]});
                    (200, json!({"Certificate": detail}).to_string())
                }
                _ => refusal("AccessDeniedException", "User: x is not authorized to perform this"),
            }
        })
        .await;
        let aws = std::sync::Arc::new(at(&fake.endpoint, None));
        let inventory = crate::Inventory::new(aws, "demo", VpcId::new("vpc-1"));
        let read = inventory.read_certificates(&stack).await;
        let found = inventory.certificate(&stack, &CertificateArn::new(ARN));
        assert_eq!((read.is_ok(), found.is_some()), (readable, readable), "{read:?}");
        // The list serves others, and what is denied is not asked again at once.
        fake.calls();
        let other = StackId::Ingress(ObjectName::new("shop", "other"));
        assert_eq!(inventory.read_certificates(&other).await.is_ok(), readable);
        let expected: &[&str] = &[];
        assert_eq!(fake.calls().into_iter().map(|call| call.action).collect::<Vec<_>>(), expected);
        // Nor when ACM is listed anew, for ten minutes.
        for (seconds, asked) in [(0, 0), (500, 0), (101, if readable { 2 } else { 3 })] {
            tokio::time::pause();
            tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
            tokio::time::resume();
            inventory.forget_certificates(&other);
            let answer = inventory.read_certificates(&other).await;
            assert_eq!(answer.is_ok(), readable);
            if let Err(error) = answer {
                assert!(error.is_denied() && error.operation == "ListTagsForCertificate", "{error}");
            }
            let mut expected = vec!["ListCertificates"];
            expected.extend(vec!["ListTagsForCertificate"; asked]);
            assert_eq!(fake.actions(), expected, "after {seconds} more seconds");
        }
        // Nor does ACM have to be listed again for a stack that has none; for one that has some, it does.
        inventory.invalidate(&other);
        let _ = inventory.read_certificates(&other).await;
        assert_eq!(fake.calls().len(), 0);
        inventory.invalidate(&stack);
        let _ = inventory.read_certificates(&stack).await;
        assert_eq!(fake.calls().iter().any(|call| call.action == "ListCertificates"), readable);
        // A stack that is released has none that are known.
        inventory.release_certificates(&stack);
        assert_eq!(inventory.certificate(&stack, &CertificateArn::new(ARN)), None);
    }
}
