use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use aws_config::{
    meta::credentials::CredentialsProviderChain,
    web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider},
};

use super::*;
use crate::testing::{permit, writer};
use albatross_core::model::{QuicServerId, Registration, SecurityGroupId, Target, TargetGroupArn};
pub(super) use albatross_simulation::fake::{Fake, ec2, ec2_error, elb, elb_error};

#[test]
fn endpoints_are_read_in_the_usual_spellings() {
    let elb = || ("elasticloadbalancingv2".to_owned(), "http://127.0.0.1:1".to_owned());
    for text in [
        "Elastic Load Balancing v2=http://127.0.0.1:1",
        " elbv2=http://127.0.0.1:1,",
        "elasticloadbalancing=http://127.0.0.1:1",
    ] {
        assert_eq!(parse_endpoints(text), Ok(BTreeMap::from([elb()])), "{text}");
    }
    assert_eq!(
        parse_endpoints("EC2=https://ec2.example,ELBv2=http://127.0.0.1:1"),
        Ok(BTreeMap::from([elb(), ("ec2".to_owned(), "https://ec2.example".to_owned())]))
    );
    assert_eq!(parse_endpoints(""), Ok(BTreeMap::new()));
    for entry in ["EC2", "EC2=ec2.example", "=https://ec2.example"] {
        assert_eq!(parse_endpoints(entry), Err(ConnectError::Endpoint { entry: entry.to_owned() }));
    }
}

#[test]
fn waits_are_spread_over_their_upper_half() {
    for _ in 0..1000 {
        let wait = jittered(Duration::from_secs(1));
        assert!((Duration::from_millis(500)..=Duration::from_secs(1)).contains(&wait), "{wait:?}");
    }
}

fn group() -> TargetGroupArn {
    TargetGroupArn::new("arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/a/1")
}

fn targets(count: usize) -> Vec<Registration> {
    (0..count).map(|n| Target { id: format!("10.0.{}.{}", n / 256, n % 256), port: 80 }.into()).collect()
}

#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl CallObserver for Seen {
    fn request(&self, service: &str, operation: &str, seconds: f64, result: Result<(), (u16, &str)>) {
        assert!(seconds >= 0.0);
        self.0.lock().unwrap().push(format!("{service} {operation} {result:?}"));
    }

    fn call(&self, service: &str, operation: &str, seconds: f64, retries: u32, result: Result<(), (u16, &str)>) {
        assert!(seconds >= 0.0);
        self.0.lock().unwrap().push(format!("{service} {operation} {result:?} after {retries} retries"));
    }
}

#[tokio::test]
async fn server_ids_of_quic_are_sent_and_read() {
    const TARGETS: &str = "<TargetHealthDescriptions><member><Target><Id>10.0.0.1</Id><Port>443</Port><QuicServerId>0x0123456789abcdef</QuicServerId></Target></member><member><Target><Id>10.0.0.2</Id><Port>443</Port></Target></member></TargetHealthDescriptions>";
    let fake = Fake::start(|call| {
        let answer = if call.action == "DescribeTargetHealth" { TARGETS } else { "" };
        std::future::ready(elb(&call.action, answer))
    })
    .await;
    let aws = writer(crate::testing::at(&fake.endpoint, None));
    let target = |id: &str| Target { id: id.to_owned(), port: 443 };
    let id = QuicServerId::new(0x0123_4567_89ab_cdef);
    let with_id = Registration { quic_server_id: Some(id), ..target("10.0.0.1").into() };
    let both = [with_id, target("10.0.0.2").into()];
    aws.register_targets(&group(), &both).await.unwrap();
    aws.deregister_targets(&group(), &both).await.unwrap();
    for call in fake.calls() {
        let sent = |number: usize| call.params.get(&format!("Targets.member.{number}.QuicServerId")).cloned();
        assert_eq!([sent(1), sent(2)], [Some("0x0123456789abcdef".to_owned()), None], "{}", call.action);
    }
    let health = aws.describe_target_health(&group()).await.unwrap();
    let ids: Vec<_> = health.into_values().map(|health| health.quic_server_id).collect();
    assert_eq!(ids, [Some(id), None]);
}

#[tokio::test]
async fn a_throttled_write_is_repeated_and_every_attempt_is_observed() {
    let count = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |call| {
        let count = count.clone();
        async move {
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => elb_error(400, "Throttling", "Rate exceeded"),
                _ => elb(&call.action, ""),
            }
        }
    })
    .await;
    let seen = Arc::new(Seen::default());
    let aws = writer(crate::testing::at(&fake.endpoint, Some(seen.clone())));
    assert_eq!(aws.register_targets(&group(), &targets(1)).await, Ok(()));
    assert_eq!(fake.actions(), ["RegisterTargets", "RegisterTargets"]);
    assert_eq!(
        *seen.0.lock().unwrap(),
        [
            "Elastic Load Balancing v2 RegisterTargets Err((400, \"Throttling\"))",
            "Elastic Load Balancing v2 RegisterTargets Ok(())",
            "Elastic Load Balancing v2 RegisterTargets Ok(()) after 1 retries",
        ]
    );
}

#[tokio::test]
async fn a_write_that_may_have_taken_effect_or_was_refused_is_not_repeated() {
    for (status, code, unclear) in [(500, "InternalFailure", true), (400, "ValidationError", false)] {
        let fake = Fake::start(move |_| async move { elb_error(status, code, "words") }).await;
        let error =
            writer(crate::testing::at(&fake.endpoint, None)).register_targets(&group(), &targets(1)).await.unwrap_err();
        assert_eq!(matches!(error.kind, AwsErrorKind::Unclear { .. }), unclear, "{error:?}");
        assert_eq!(error.is_transient(), unclear);
        assert_eq!(fake.actions(), ["RegisterTargets"]);
    }
}

/// Answers a read with each of these answers in turn, and repeats the last one.
async fn reads(answers: Vec<(u16, String)>) -> (Result<usize, AwsError>, usize, AwsReader) {
    let count = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |_| {
        let at = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let answer = answers[at].clone();
        async move { answer }
    })
    .await;
    let aws = crate::testing::at(&fake.endpoint, None);
    let answer = aws.describe_security_groups(&[SecurityGroupId::new("sg-1")]).await;
    (answer.map(|groups| groups.len()), fake.actions().len(), aws)
}

#[tokio::test]
async fn a_read_is_repeated_where_that_may_help() {
    let found = || ec2("DescribeSecurityGroups", "<securityGroupInfo/>");
    for (status, code) in [(503, "RequestLimitExceeded"), (503, "ServiceUnavailable"), (500, "InternalError")] {
        let (answer, calls, _) = reads(vec![ec2_error(status, code, "words"), found()]).await;
        assert_eq!((answer, calls), (Ok(0), 2), "{code}");
    }
    // No more attempts than `--aws-max-retries` allows.
    let (answer, calls, _) = reads(vec![ec2_error(503, "ServiceUnavailable", "words")]).await;
    let error = answer.unwrap_err();
    assert!(matches!(error.kind, AwsErrorKind::Unclear { .. }) && calls == 2, "{error:?} after {calls} calls");
    for (status, code) in [(400, "InvalidParameterValue"), (403, "UnauthorizedOperation")] {
        let (answer, calls, _) = reads(vec![ec2_error(status, code, "words")]).await;
        assert!(answer.is_err() && calls == 1, "{code}: {answer:?} after {calls} calls");
    }
}

#[tokio::test]
async fn a_throttle_sets_the_budget_of_its_class() {
    let throttle = ec2_error(503, "RequestLimitExceeded", "words");
    let (_, _, aws) = reads(vec![throttle, ec2("DescribeSecurityGroups", "<securityGroupInfo/>")]).await;
    let budgets = aws.budgets();
    let limited: Vec<_> = budgets.iter().filter(|(_, budget)| budget.rate.is_some()).map(|(class, _)| *class).collect();
    assert_eq!(limited, ["ec2_reads"]);
    assert_eq!((budgets["ec2_reads"].throttled, budgets["ec2_reads"].waiting), (1, 0));
}

#[tokio::test]
async fn all_pages_are_read_and_a_page_that_points_to_itself_is_an_error() {
    let page = |token: &str| {
        let item = "<securityGroupInfo><item><groupId>sg-1</groupId></item></securityGroupInfo>";
        ec2("DescribeSecurityGroups", &format!("{item}<nextToken>{token}</nextToken>"))
    };
    let (answer, calls, _) = reads(vec![page("a"), page("b"), page("")]).await;
    assert_eq!((answer, calls), (Ok(3), 3));
    let (answer, calls, _) = reads(vec![page("a")]).await;
    insta::assert_snapshot!(answer.unwrap_err(), @"DescribeSecurityGroups ended without a clear answer and may have taken effect: the answer has no next page");
    assert_eq!(calls, 2);
}

#[tokio::test]
async fn codes_of_ec2_are_understood() {
    let fake =
        Fake::start(|_| async { ec2_error(400, "DependencyViolation", "resource sg-1 has a dependent object") }).await;
    let error = writer(crate::testing::at(&fake.endpoint, None))
        .delete_security_group(&SecurityGroupId::new("sg-1"))
        .await
        .unwrap_err();
    insta::assert_snapshot!(error, @"DeleteSecurityGroup has to wait: resource sg-1 has a dependent object (DependencyViolation)");
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = writer(crate::testing::at(&endpoint, None)).register_targets(&group(), &targets(1)).await.unwrap_err();
    assert!(matches!(error.kind, AwsErrorKind::Unreachable { .. }), "{error:?}");
    assert!(error.is_transient() && !error.asks_to_read_again());
}

#[tokio::test]
async fn a_connection_that_is_dropped_leaves_the_outcome_unclear() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The server waits for the request and closes the connection.
            let _ = stream.readable().await;
            drop(stream);
        }
    });
    let error = writer(crate::testing::at(&endpoint, None)).register_targets(&group(), &targets(1)).await.unwrap_err();
    assert!(matches!(error.kind, AwsErrorKind::Unclear { .. }), "{error:?}");
}

#[tokio::test]
async fn nothing_is_written_without_the_lease() {
    let fake = Fake::start(|call| async move { elb(&call.action, "") }).await;
    let aws = AwsWriter::new(Arc::new(crate::testing::at(&fake.endpoint, None)), permit(|| None));
    let error = aws.register_targets(&group(), &targets(1)).await.unwrap_err();
    assert_eq!(error.kind, AwsErrorKind::Withheld);
    assert!(fake.actions().is_empty());
}

#[tokio::test]
async fn no_write_is_waited_for_past_the_lease() {
    let fake = Fake::start(|_| std::future::pending()).await;
    let permit = permit(|| Some(Duration::from_millis(20)));
    let aws = AwsWriter::new(Arc::new(crate::testing::at(&fake.endpoint, None)), permit);
    let error = aws.register_targets(&group(), &targets(1)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "RegisterTargets ended without a clear answer and may have taken effect: no answer within the 0 s for which the lease was certain"
    );
}

#[tokio::test]
async fn targets_go_in_batches_of_200() {
    let fake = Fake::start(|call| async move { elb(&call.action, "") }).await;
    let aws = writer(crate::testing::at(&fake.endpoint, None));
    aws.register_targets(&group(), &targets(450)).await.unwrap();
    aws.deregister_targets(&group(), &targets(201)).await.unwrap();
    let sizes: Vec<_> = fake
        .calls()
        .iter()
        .map(|call| {
            (
                call.action.clone(),
                (1..).take_while(|i| call.params.contains_key(&format!("Targets.member.{i}.Id"))).count(),
            )
        })
        .collect();
    let expected = [
        ("RegisterTargets", 200),
        ("RegisterTargets", 200),
        ("RegisterTargets", 50),
        ("DeregisterTargets", 200),
        ("DeregisterTargets", 1),
    ];
    assert_eq!(sizes, expected.map(|(action, size)| (action.to_owned(), size)));
}

#[tokio::test]
async fn credentials_that_are_missing_are_told_with_their_cure() {
    let fake = Fake::start(|call| async move { elb(&call.action, "") }).await;
    // The same happens with an IRSA annotation whose token is not mounted.
    let irsa = WebIdentityTokenCredentialsProvider::builder()
        .static_configuration(StaticConfiguration {
            web_identity_token_file: "does-not-exist".into(),
            role_arn: "arn:aws:iam::123456789012:role/albatross".to_owned(),
            session_name: "test".to_owned(),
        })
        .build();
    let chain = CredentialsProviderChain::first_try("WebIdentityToken", irsa);
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-west-2"))
        .endpoint_url(&fake.endpoint)
        .credentials_provider(aws_sdk_ec2::config::SharedCredentialsProvider::new(chain))
        .build();
    let aws = writer(AwsReader::with_config(&config, &ConnectOptions::default()));
    let error = aws.register_targets(&group(), &targets(1)).await.unwrap_err();
    insta::assert_snapshot!(format!("{error}\n{}", error.fix().unwrap()), @"
    no valid AWS credentials for RegisterTargets: an error occurred while loading credentials: No such file or directory (os error 2)
    annotate the controller's ServiceAccount with `eks.amazonaws.com/role-arn`, or give it an EKS Pod Identity association, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    ");
    assert!(fake.actions().is_empty());
}
