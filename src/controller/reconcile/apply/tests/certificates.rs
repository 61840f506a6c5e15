//! Requested certificates, whose failures hold up nothing else.

use super::*;
use albatross_core::model::{
    AddOn, CertificateArn, CertificateAuthorityArn, CertificateStatus, HostedZoneId, ManagedCertificate,
    ObservedCertificate, ValidationRecord,
};

const ARN: &str = "arn:aws:acm:us-west-2:111122223333:certificate/a";

/// Returns the stack with a requested certificate.
fn requesting() -> Stack {
    let mut stack = wanted();
    let cause = stack.load_balancer.as_ref().unwrap().cause.clone();
    let resource = ResourceId::certificate(&ObjectName::new("shop", "web"), "a.example.com", false);
    stack.certificates.enabled = true;
    stack.certificates.wanted.push(ManagedCertificate {
        resource,
        domain: "a.example.com".to_owned(),
        hosts: ["a.example.com".to_owned()].into(),
        authority: None,
        tags: Tags::new(),
        zones: Some([("a.example.com".to_owned(), HostedZoneId::new("Z1"))].into()),
        cause: Cause { field: "alb.ingress.kubernetes.io/create-acm-cert".to_owned(), ..cause },
    });
    stack
}

fn json_error(code: &str, message: &str) -> (u16, String) {
    (400, json!({ "__type": code, "message": message }).to_string())
}

fn acm(call: &Call) -> Option<(u16, String)> {
    let owner = [(tags::CLUSTER, "demo"), (tags::INGRESS_STACK, "shop/web")];
    let owner = owner.map(|(key, value)| json!({ "Key": key, "Value": value }));
    match call.action.as_str() {
        "ListCertificates" => Some((200, json!({ "CertificateSummaryList": [] }).to_string())),
        "RequestCertificate" => Some((200, json!({ "CertificateArn": ARN }).to_string())),
        "ListTagsForCertificate" => Some((200, json!({ "Tags": owner }).to_string())),
        "DeleteCertificate" => Some((200, "{}".to_owned())),
        action if action.starts_with("POST /2013-04-01/hostedzone") => {
            let info = "<ChangeInfo><Id>1</Id><Status>PENDING</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo>";
            Some((200, format!("<ChangeResourceRecordSetsResponse>{info}</ChangeResourceRecordSetsResponse>")))
        }
        action if action.starts_with("GET /2013-04-01/hostedzone") => {
            let zone = "<HostedZone><Id>/hostedzone/Z1</Id><Name>example.com.</Name><CallerReference>1</CallerReference></HostedZone>";
            Some((
                200,
                format!(
                    "<ListHostedZonesResponse><HostedZones>{zone}</HostedZones><Marker></Marker><IsTruncated>false</IsTruncated><MaxItems>100</MaxItems></ListHostedZonesResponse>"
                ),
            ))
        }
        _ => None,
    }
}

async fn known(room: &Room) -> Vec<ObservedCertificate> {
    room.observe().await.certificates.unwrap_or_default()
}

fn certificate(records: Vec<ValidationRecord>) -> ObservedCertificate {
    let wanted = requesting().certificates.wanted.remove(0);
    ObservedCertificate {
        arn: CertificateArn::new(ARN),
        resource: wanted.resource,
        hosts: wanted.hosts,
        authority: None,
        status: CertificateStatus::Issued,
        records,
        validated: std::collections::BTreeSet::new(),
        created: std::collections::BTreeSet::new(),
    }
}

fn record() -> ValidationRecord {
    let [host, name, value] = ["a.example.com", "_1.a.example.com.", "_2.acm-validations.aws."].map(str::to_owned);
    ValidationRecord { host, name, value }
}

fn delete() -> StepAction {
    StepAction::DeleteCertificate { arn: CertificateArn::new(ARN), resource: certificate(Vec::new()).resource }
}

#[tokio::test]
async fn a_certificate_is_requested_and_deleted_with_its_record() {
    let room = room(acm).await;
    room.inventory.read_certificates(&group()).await.unwrap();
    let plan = plan::plan(&requesting(), &room.observe().await).ready().unwrap();
    room.fake.calls();
    let applied = room.apply(&plan).await.unwrap();
    assert!(applied.left_out.is_empty() && applied.carried_out.len() == plan.steps().len());
    let tokens = || -> Vec<Json> {
        let calls = room.fake.calls().into_iter().filter(|call| call.action == "RequestCertificate");
        calls.map(|call| serde_json::from_str::<Json>(&call.body).unwrap()["IdempotencyToken"].clone()).collect()
    };
    let [token] = tokens().try_into().unwrap();
    let [requested] = known(&room).await.try_into().unwrap();
    assert_eq!((requested.arn.as_str(), requested.status), (ARN, CertificateStatus::Pending));
    room.inventory.record_certificate(&group(), certificate(vec![record()]));
    let (arn, zone) = (CertificateArn::new(ARN), HostedZoneId::new("Z1"));
    room.step(StepAction::CreateValidationRecord { arn, zone, record: record() }).await.unwrap();
    assert!(known(&room).await[0].missing_records().is_empty());
    room.fake.calls();
    room.step(delete()).await.unwrap();
    let actions: Vec<String> = room.fake.calls().into_iter().map(|call| call.action).collect();
    assert_eq!(
        actions,
        [
            "ListTagsForCertificate",
            "DeleteCertificate",
            "ListCertificates",
            "GET /2013-04-01/hostedzone",
            "POST /2013-04-01/hostedzone/Z1/rrset"
        ]
    );
    assert_eq!(known(&room).await, []);
    // ACM would answer the same token with the deleted certificate.
    let plan = plan::plan(&requesting(), &room.observe().await).ready().unwrap();
    let again = plan.steps().iter().find(|step| step.action.kind() == "RequestCertificate").unwrap();
    room.step(again.action.clone()).await.unwrap();
    let [other] = tokens().try_into().unwrap();
    assert_ne!(other, token);
}

#[tokio::test]
async fn a_certificate_that_something_uses_waits_with_its_records_and_one_of_others_stays() {
    let in_use = room(|call| match call.action.as_str() {
        "DeleteCertificate" => Some(json_error("ResourceInUseException", "Certificate a is in use.")),
        _ => acm(call),
    })
    .await;
    in_use.inventory.read_certificates(&group()).await.unwrap();
    in_use.inventory.record_certificate(&group(), certificate(vec![record()]));
    let [error] = in_use.step(delete()).await.unwrap().left_out.try_into().unwrap();
    assert!(error.is_not_yet() && !error.is_attributable(), "{error}");
    insta::assert_snapshot!(format!("{error}; {}", error.fix().unwrap()), @"delete certificate amazon_issued/a.example.com-97375646 (arn:aws:acm:us-west-2:111122223333:certificate/a) with its records: DeleteCertificate has to wait: Certificate a is in use (ResourceInUseException); take the certificate off the listeners and services that ACM shows for it");
    assert!(in_use.fake.actions().iter().all(|action| !action.starts_with("POST")));
    assert_eq!(known(&in_use).await.len(), 1);

    let foreign = room(|call| match call.action.as_str() {
        "ListTagsForCertificate" => Some((200, json!({ "Tags": [] }).to_string())),
        _ => acm(call),
    })
    .await;
    foreign.inventory.read_certificates(&group()).await.unwrap();
    foreign.inventory.record_certificate(&group(), certificate(vec![record()]));
    foreign.step(delete()).await.unwrap();
    assert!(!foreign.fake.actions().contains(&"DeleteCertificate".to_owned()));
    assert_eq!(known(&foreign).await, []);
}

#[tokio::test]
async fn a_refused_request_holds_up_no_other_step_and_is_not_repeated_at_once() {
    let room = room(|call| match call.action.as_str() {
        "RequestCertificate" => Some(json_error(
            "LimitExceededException",
            "Error: you have reached your limit of 2500 certificates in the last year.",
        )),
        _ => acm(call),
    })
    .await;
    room.inventory.read_certificates(&group()).await.unwrap();
    let stack = requesting();
    let plan = plan::plan(&stack, &room.observe().await).ready().unwrap();
    let applied = room.apply(&plan).await.unwrap();
    assert_eq!(applied.carried_out.len(), plan.steps().len() - 1);
    let [error] = applied.left_out.as_slice() else { panic!("{applied:?}") };
    assert_eq!(error.add_on, Some(AddOn::Certificates));
    insta::assert_snapshot!(format!("{error}; {}", error.fix().unwrap()), @"request certificate amazon_issued/a.example.com-97375646: AWS refuses RequestCertificate: Error: you have reached your limit of 2500 certificates in the last year (LimitExceededException); ask AWS to raise ACM's quotas (certificates in the last 365 days, domain names of a certificate), delete certificates that nothing uses, or use fewer hosts");
    let again = plan::plan(&stack, &room.observe().await).ready().unwrap();
    assert!(!again.steps().iter().any(|step| step.action.kind() == "RequestCertificate"), "{again:?}");
    // Other hosts are another request.
    let mut fewer = stack;
    fewer.certificates.wanted[0].hosts = ["b.example.com".to_owned()].into();
    let again = plan::plan(&fewer, &room.observe().await).ready().unwrap();
    assert!(again.steps().iter().any(|step| step.action.kind() == "RequestCertificate"));
}

#[tokio::test]
async fn a_request_without_a_clear_answer_makes_the_certificates_unknown() {
    let room = room(|call| match call.action.as_str() {
        "RequestCertificate" => Some((500, "{}".to_owned())),
        _ => acm(call),
    })
    .await;
    room.inventory.read_certificates(&group()).await.unwrap();
    let plan = plan::plan(&requesting(), &room.observe().await).ready().unwrap();
    let applied = room.apply(&plan).await.unwrap();
    assert_eq!((applied.left_out.len(), applied.carried_out.len()), (1, plan.steps().len() - 1));
    let observed = room.observe().await;
    assert!(observed.certificates.is_none() && observed.may_have_certificates);
}

fn route53_error(code: &str, message: &str) -> (u16, String) {
    (400, format!("<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"))
}

#[tokio::test]
async fn only_records_that_this_controller_has_created_are_deleted() {
    for is_there in [true, false] {
        let room = room(move |call| match call.action.as_str() {
            action if is_there && action.starts_with("POST") && call.body.contains("<Action>CREATE</Action>") => {
                let message = "[Tried to create resource record set [name='_1.a.example.com.', type='CNAME'] but it already exists]";
                Some(route53_error("InvalidChangeBatch", message))
            }
            _ => acm(call),
        })
        .await;
        room.inventory.read_certificates(&group()).await.unwrap();
        room.inventory.record_certificate(&group(), certificate(vec![record()]));
        let (arn, zone) = (CertificateArn::new(ARN), HostedZoneId::new("Z1"));
        room.step(StepAction::CreateValidationRecord { arn, zone, record: record() }).await.unwrap();
        let [known_one] = known(&room).await.try_into().unwrap();
        assert_eq!((known_one.missing_records().len(), known_one.created.is_empty()), (0, is_there));
        room.fake.calls();
        room.step(delete()).await.unwrap();
        let deleted = room.fake.calls().iter().any(|call| call.body.contains("<Action>DELETE</Action>"));
        assert_eq!(deleted, !is_there);
        assert_eq!(known(&room).await, []);
    }
    // One known from a record of an earlier release, or from ACM: nothing says who has created it.
    let room = room(acm).await;
    room.inventory.read_certificates(&group()).await.unwrap();
    let validated = [record().name].into();
    room.inventory.record_certificate(&group(), ObservedCertificate { validated, ..certificate(vec![record()]) });
    room.fake.calls();
    room.step(delete()).await.unwrap();
    // Nor is the account listed for it.
    assert_eq!(room.fake.actions(), ["DeleteCertificate", "ListTagsForCertificate"]);
}

#[tokio::test]
async fn a_deletion_that_fails_holds_up_nothing_and_is_tried_again() {
    for (failing, expected) in [
        ("DeleteCertificate", "AccessDeniedException"),
        ("ListCertificates", "AccessDeniedException"),
        ("ListTagsForCertificate", "AccessDeniedException"),
        ("DeleteCertificate", "ConflictException"),
        ("POST /2013-04-01/hostedzone/Z1/rrset", "AccessDenied"),
    ] {
        let fails = Arc::new(AtomicBool::new(false));
        let is_on = Arc::clone(&fails);
        let room = room(move |call| {
            if call.action != failing || !is_on.load(Ordering::SeqCst) {
                return acm(call);
            }
            Some(match failing.starts_with("POST") {
                true => route53_error(expected, "User: x is not authorized to access this resource"),
                false => json_error(expected, "words"),
            })
        })
        .await;
        room.inventory.read_certificates(&group()).await.unwrap();
        let created = [record().name].into();
        room.inventory.record_certificate(&group(), ObservedCertificate { created, ..certificate(vec![record()]) });
        fails.store(true, Ordering::SeqCst);
        let applied = room.step(delete()).await.unwrap();
        assert_eq!(applied.carried_out, Vec::<usize>::new());
        let [error] = applied.left_out.try_into().unwrap();
        assert!(error.is_not_yet() && !error.is_attributable() && error.is_transient(), "{error}");
        let told_at_once = error.blocked_deletion() == Some(Duration::ZERO);
        assert_eq!(
            (error.blocked_certificate().is_some(), told_at_once),
            (true, expected != "ConflictException"),
            "{error}"
        );
        assert!(error.fix().is_some(), "{error}");
        assert_eq!(known(&room).await.len(), 1, "{failing}");
        fails.store(false, Ordering::SeqCst);
        if expected == "ConflictException" {
            room.step(delete()).await.unwrap();
            assert_eq!(known(&room).await, []);
        }
    }
}

#[tokio::test]
async fn a_deletion_that_fails_is_paused_for_longer_each_time() {
    let deny = |code: &'static str| {
        room(move |call| match call.action.as_str() {
            "DeleteCertificate" if code.is_empty() => Some((500, "{}".to_owned())),
            "DeleteCertificate" => Some(json_error(code, "words")),
            _ => acm(call),
        })
    };
    for (code, minutes) in [
        ("AccessDeniedException", vec![1, 2, 4, 8, 15, 15]),
        ("InvalidArnException", vec![1, 2]),
        ("ResourceInUseException", vec![1, 2, 4, 8, 15, 15]),
        ("ConflictException", vec![1, 2]),
        // Nothing says that the answer will be the same.
        ("", vec![]),
    ] {
        let room = deny(code).await;
        room.inventory.read_certificates(&group()).await.unwrap();
        room.inventory.record_certificate(&group(), certificate(vec![record()]));
        let next = || room.inventory.next_certificate_deletion(&group()).map(|left| left.as_secs().div_ceil(60));
        for expected in &minutes {
            room.step(delete()).await.unwrap();
            assert_eq!(next(), Some(*expected), "{code}");
        }
        if minutes.is_empty() {
            room.step(delete()).await.unwrap();
            assert_eq!(next(), None);
        }
        assert_eq!(room.observe().await.refused_requests.contains(ARN), !minutes.is_empty());
        // It is deleted by somebody else.
        room.inventory.record_certificate_gone(&group(), &CertificateArn::new(ARN));
        assert!(next().is_none() && room.observe().await.refused_requests.is_empty());
    }
}

/// The certificate of another stack for the same host.
fn of_another_stack(records: Vec<ValidationRecord>) -> (StackId, ObservedCertificate) {
    let other = ObservedCertificate {
        arn: CertificateArn::new("arn:aws:acm:us-west-2:111122223333:certificate/b"),
        resource: ResourceId::certificate(&ObjectName::new("shop", "other"), "a.example.com", false),
        status: CertificateStatus::Pending,
        ..certificate(records)
    };
    (StackId::Ingress(ObjectName::new("shop", "other")), other)
}

#[tokio::test]
async fn a_record_that_another_stack_needs_stays_although_acm_does_not_list_its_certificate() {
    for (records, authority, stays) in [
        (vec![record()], None, true),
        // ACM does not show yet which record it will have.
        (Vec::new(), None, true),
        (Vec::new(), Some("arn:aws:acm-pca:us-west-2:111122223333:certificate-authority/a"), false),
    ] {
        let room = room(acm).await;
        let (stack, other) = of_another_stack(records);
        room.inventory.read_certificates(&group()).await.unwrap();
        room.inventory.read_certificates(&stack).await.unwrap();
        let created = [record().name].into();
        room.inventory.record_certificate(&group(), ObservedCertificate { created, ..certificate(vec![record()]) });
        let authority = authority.map(|arn| CertificateAuthorityArn::new(arn).unwrap());
        room.inventory.record_certificate(&stack, ObservedCertificate { authority, ..other });
        room.fake.calls();
        room.step(delete()).await.unwrap();
        let deleted = room.fake.calls().iter().any(|call| call.body.contains("<Action>DELETE</Action>"));
        assert_eq!(deleted, !stays);
        assert_eq!(known(&room).await, []);
    }
}

#[tokio::test]
async fn a_record_that_is_deleted_is_missing_wherever_it_was_there() {
    let room = room(acm).await;
    let (stack, other) = of_another_stack(vec![record()]);
    room.inventory.read_certificates(&stack).await.unwrap();
    room.inventory.record_certificate(&stack, other.clone());
    room.inventory.record_validation(&stack, &other.arn, &record().name, true);
    let known = || room.inventory.certificate(&stack, &other.arn).unwrap();
    assert_eq!((known().missing_records().len(), known().created.len()), (0, 1));
    room.inventory.record_validation_deleted("_2.b.example.com.");
    assert_eq!((known().missing_records().len(), known().created.len()), (0, 1));
    room.inventory.record_validation_deleted(&record().name);
    assert_eq!((known().missing_records().len(), known().created.len()), (1, 0));
}

#[tokio::test]
async fn requests_and_refusals_count_for_the_ingress_that_asks() {
    for is_refused in [false, true] {
        let room = room(move |call| match call.action.as_str() {
            "RequestCertificate" if is_refused => Some(json_error("LimitExceededException", "words")),
            "RequestCertificate" => {
                let token = serde_json::from_str::<Json>(&call.body).unwrap()["IdempotencyToken"].clone();
                let arn = format!("arn:aws:acm:us-west-2:1:certificate/{}", token.as_str().unwrap());
                Some((200, json!({ "CertificateArn": arn }).to_string()))
            }
            _ => acm(call),
        })
        .await;
        room.inventory.read_certificates(&group()).await.unwrap();
        let mut stack = requesting();
        let mut requests = async |host: &str| {
            stack.certificates.wanted[0].hosts = [host.to_owned()].into();
            let plan = plan::plan(&stack, &room.observe().await).ready().unwrap();
            let request = plan.steps().iter().find(|step| step.action.kind() == "RequestCertificate").cloned();
            if let Some(step) = &request {
                room.step(step.action.clone()).await.unwrap();
            }
            request.is_some()
        };
        // The same once more is not another one.
        for (host, expected) in [("a", true), ("a", false), ("b", true), ("c", false)] {
            assert_eq!(requests(&format!("{host}.example.com")).await, expected, "{host} {is_refused}");
        }
    }
}
