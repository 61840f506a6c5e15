//! Certificates that are looked for, and certificates on request that AWS does not delete.

use super::*;

/// Returns ACM's answer to a list: certificates, each with a name.
fn listed_certificates(certificates: &[(String, String)]) -> (u16, String) {
    let summary = |(arn, name): &(String, String)| serde_json::json!({ "CertificateArn": arn, "SubjectAlternativeNameSummaries": [name] });
    let list: Vec<_> = certificates.iter().map(summary).collect();
    (200, serde_json::json!({ "CertificateSummaryList": list }).to_string())
}

#[tokio::test]
async fn certificates_are_polled_with_one_list_and_only_while_stacks_rely_on_them() {
    let certificate =
        |number: usize| (format!("arn:aws:acm:us-west-2:1:certificate/{number}"), format!("h{number}.example.com"));
    let known = Arc::new(std::sync::Mutex::new((0..5).map(certificate).collect::<Vec<_>>()));
    let in_acm = Arc::clone(&known);
    let (fake, controller) = controller(manifests(), None, move |call| {
        (call.action == "ListCertificates").then(|| listed_certificates(&in_acm.lock().unwrap()))
    })
    .await;
    let lists = |fake: &Fake| {
        let actions = fake.actions();
        assert!(actions.iter().all(|action| action == "ListCertificates"), "{actions:?}");
        actions.len()
    };
    let minutes = async |count: u64| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(60 * count)).await;
        tokio::time::resume();
    };
    // Nobody relies on discovery: no call in an hour.
    for _ in 0..12 {
        minutes(5).await;
        controller.look_at_certificates().await;
    }
    assert_eq!(lists(&fake), 0);
    let stack = |number: usize| StackId::Ingress(ObjectName::new("shop", format!("web-{number}")));
    for number in 0..5 {
        let (want, mut facts) = (FactQuery::Certificates([certificate(number).1].into()), Facts::default());
        controller.facts.answer(&want, &mut facts).await;
        controller.fact_subscribers.note(&stack(number), &want, &facts);
    }
    assert_eq!(lists(&fake), 1);
    // In an hour one list for all in each five minutes, however many stacks there are, and nobody is queued.
    for _ in 0..12 {
        minutes(5).await;
        controller.look_at_certificates().await;
    }
    assert_eq!((lists(&fake), controller.queue.snapshot().waiting.len()), (12, 0));
    // One appears and another one leaves.
    known.lock().unwrap().push(("arn:aws:acm:us-west-2:1:certificate/new".to_owned(), "*.example.org".to_owned()));
    known.lock().unwrap().push(("arn:aws:acm:us-west-2:1:certificate/second".to_owned(), "h1.example.com".to_owned()));
    known.lock().unwrap().remove(3);
    minutes(5).await;
    controller.look_at_certificates().await;
    let mut queued = Vec::new();
    for _ in 0..2 {
        queued.push(tokio::time::timeout(Duration::from_secs(10), controller.queue.next()).await.unwrap().0);
    }
    queued.sort();
    assert_eq!(queued, [1, 3].map(|number| Key::Stack(stack(number))));
    minutes(5).await;
    controller.look_at_certificates().await;
    assert_eq!((lists(&fake), controller.queue.snapshot().waiting.len()), (2, 0));
}

/// ACM with a certificate of the Ingress that it does not delete, for this reason, and an API server with ConfigMaps.
fn keeps_certificate(call: &Call, reason: (&str, &str)) -> Option<(u16, String)> {
    let owner = [(tags::CLUSTER, "demo"), (tags::INGRESS_STACK, "shop/web")];
    let owner = owner.map(|(key, value)| json!({ "Key": key, "Value": value }));
    let missing = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
    Some(match call.action.as_str() {
        "ListCertificates" => (200, json!({ "CertificateSummaryList": [] }).to_string()),
        "ListTagsForCertificate" => (200, json!({ "Tags": owner }).to_string()),
        "DeleteCertificate" => (400, json!({ "__type": reason.0, "message": reason.1 }).to_string()),
        action if action.ends_with("/ingresses/web/status") => (200, json!({ "metadata": {}, "spec": {} }).to_string()),
        action if action.contains("/configmaps") => match action.split_once(' ').unwrap().0 {
            "GET" => (404, missing.to_string()),
            _ => (200, call.body.clone()),
        },
        _ => return None,
    })
}

/// The certificate that was requested for the Ingress.
async fn with_certificate(controller: &Controller) {
    controller.inventory.read_certificates(&group()).await.unwrap();
    let certificate = albatross_core::model::ObservedCertificate {
        arn: albatross_core::model::CertificateArn::new("arn:aws:acm:us-west-2:1:certificate/a"),
        resource: ResourceId::certificate(&web(), "a.example.com", false),
        hosts: ["a.example.com".to_owned()].into(),
        authority: None,
        status: albatross_core::model::CertificateStatus::Issued,
        records: Vec::new(),
        validated: std::collections::BTreeSet::new(),
        created: std::collections::BTreeSet::new(),
    };
    controller.inventory.record_certificate(&group(), certificate);
}

const IN_USE: (&str, &str) = ("ResourceInUseException", "Certificate a is in use.");
const NOT_ALLOWED: (&str, &str) = ("AccessDeniedException", "no");

#[tokio::test]
async fn a_certificate_that_is_not_deleted_holds_up_nothing_of_its_stack() {
    for reason in [IN_USE, NOT_ALLOWED] {
        let (mut snapshot, ingress) = unheld();
        snapshot.ingresses.get_mut(&web()).unwrap().finalizers.push("ingress.k8s.aws/resources".to_owned());
        let (fake, mut controller) =
            controller(snapshot, Some(ingress), move |call| keeps_certificate(call, reason).or_else(|| settled(call)))
                .await;
        controller.config.enable_backend_security_group = false;
        controller.config.manage_certificates = true;
        controller.records.load(1).await;
        with_certificate(&controller).await;
        // The records of a new cluster are written at the start.
        fake.calls();
        let writes = |calls: &[Call]| {
            calls.iter().filter(|call| call.action.contains("/configmaps") && !call.action.starts_with("GET")).count()
        };
        for is_first in [true, false, false] {
            let outcome = controller.reconcile(&Key::Stack(group())).await;
            let outcome_is_done = outcome == Outcome::Done;
            match outcome {
                Outcome::NotYet => assert_eq!(reason, IN_USE),
                Outcome::Failed(message) => {
                    assert_eq!(reason, NOT_ALLOWED);
                    insta::allow_duplicates! {
                        insta::assert_snapshot!(message, @"Deletion is blocked: delete certificate amazon_issued/a.example.com-97375646 (arn:aws:acm:us-west-2:1:certificate/a) with its records: AWS does not allow DeleteCertificate: no (AccessDeniedException); allow the action `acm:DeleteCertificate` in the IAM policy of the controller's role");
                    }
                }
                Outcome::Done => {}
                outcome => panic!("{outcome:?}"),
            }
            assert_eq!(outcome_is_done, !is_first);
            assert!(controller.records.is_clean(&group()));
            // It is not tried again, and nothing is written, until the pause ends, at which the stack comes back.
            let next = controller.inventory.next_certificate_deletion(&group()).unwrap().as_secs();
            assert_eq!(next.div_ceil(60), 1);
        }
        assert_eq!(controller.waits.count_blocked(), usize::from(reason == NOT_ALLOWED));
        let calls = fake.calls();
        assert_eq!(calls.iter().filter(|call| call.action == "DeleteCertificate").count(), 1);
        assert_eq!(writes(&calls), 0);
        assert!(calls.iter().any(|call| call.action.ends_with("/ingresses/web/status")));
    }
}

#[tokio::test]
async fn an_ingress_waits_for_the_deletion_of_its_certificate_without_haste() {
    for reason in [IN_USE, NOT_ALLOWED] {
        let (snapshot, gone) = deleted();
        let (fake, mut controller) =
            controller(snapshot, Some(gone), move |call| keeps_certificate(call, reason)).await;
        controller.config.enable_backend_security_group = false;
        controller.config.manage_certificates = true;
        with_certificate(&controller).await;
        let outcome = controller.reconcile(&Key::Stack(group())).await;
        assert!(matches!(outcome, Outcome::NotYet | Outcome::Failed(_)), "{outcome:?}");
        assert_eq!(matches!(outcome, Outcome::Failed(_)), reason == NOT_ALLOWED);
        fake.calls();
        assert_eq!(controller.reconcile(&Key::Stack(group())).await, Outcome::Done);
        assert!(controller.inventory.next_certificate_deletion(&group()).is_some());
        assert_eq!(controller.waits.count_blocked(), usize::from(reason == NOT_ALLOWED));
        let calls = fake.calls();
        assert!(calls.iter().all(|call| !call.action.contains("Certificate")), "{calls:?}");
        assert_eq!(patches(&fake), Vec::<serde_json::Value>::new());
    }
}
