use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use albatross_core::{api::crd::TargetGroupBindingSpec, model::TargetGroupArn};
use albatross_simulation::fake::{Call, Fake, elb, elb_error};

use super::*;
use crate::{AwsError, AwsErrorKind, DeniedBy};

const ARN: &str = "arn:aws:iam::111122223333:role/targets";

fn role(external_id: Option<&str>) -> Role {
    role_of(ARN, external_id)
}

fn role_of(arn: &str, external_id: Option<&str>) -> Role {
    let spec = TargetGroupBindingSpec {
        iam_role_arn_to_assume: Some(arn.to_owned()),
        assume_role_external_id: external_id.map(str::to_owned),
        ..TargetGroupBindingSpec::default()
    };
    Role::of(&spec).unwrap().unwrap()
}

fn group() -> TargetGroupArn {
    TargetGroupArn::new("arn:aws:elasticloadbalancing:us-west-2:111122223333:targetgroup/a/1")
}

/// Returns STS's answer with credentials that expire after a time.
fn credentials(lifetime: Duration) -> (u16, String) {
    let end = aws_smithy_types::DateTime::from(std::time::SystemTime::now() + lifetime);
    let end = end.fmt(aws_smithy_types::date_time::Format::DateTime).unwrap();
    let credentials = format!(
        "<AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>hidden-key</SecretAccessKey><SessionToken>hidden-token</SessionToken><Expiration>{end}</Expiration>"
    );
    elb("AssumeRole", &format!("<Credentials>{credentials}</Credentials>"))
}

/// Starts a server where STS answers as `assume` says, and ELB answers every call with an empty list.
async fn roles(assume: impl Fn(&Call) -> (u16, String) + Clone + Send + Sync + 'static) -> (Fake, Roles) {
    let fake = Fake::start(move |call| {
        let answer = if call.action == "AssumeRole" { assume(&call) } else { elb(&call.action, "") };
        std::future::ready(answer)
    })
    .await;
    let roles = Roles::new(Arc::new(crate::testing::at(&fake.endpoint, None)), "demo", &VpcId::new("vpc-1"));
    (fake, roles)
}

async fn read(roles: &Roles, role: &Role) -> Result<usize, AwsError> {
    roles.client(role).inventory.read_targets(&group()).await.map(|targets| targets.len())
}

#[tokio::test]
async fn a_role_is_assumed_once_for_many_calls_and_each_external_id_is_a_role_of_its_own() {
    let (fake, roles) = roles(|_| credentials(Duration::from_secs(3600))).await;
    for _ in 0..3 {
        assert_eq!(read(&roles, &role(Some("shop"))).await, Ok(0));
    }
    let calls = fake.calls();
    let named: Vec<&str> = calls.iter().map(|call| call.action.as_str()).collect();
    assert_eq!(named, ["AssumeRole", "DescribeTargetHealth", "DescribeTargetHealth", "DescribeTargetHealth"]);
    let params: Vec<String> = calls[0]
        .params
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "Action" | "Version"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(params, ["ExternalId=shop", &format!("RoleArn={ARN}"), "RoleSessionName=AWS-LBC-demo"]);
    assert_eq!(read(&roles, &role(None)).await, Ok(0));
    let calls = fake.calls();
    assert_eq!((calls[0].action.as_str(), calls[0].params.get("ExternalId")), ("AssumeRole", None));
}

#[tokio::test]
async fn credentials_are_renewed_before_they_expire() {
    // They are renewed two minutes before their end, or up to a minute later.
    let (fake, roles) = roles(|_| credentials(Duration::from_secs(30))).await;
    for _ in 0..2 {
        assert_eq!(read(&roles, &role(None)).await, Ok(0));
    }
    assert_eq!(fake.actions().iter().filter(|action| *action == "AssumeRole").count(), 2);
}

#[tokio::test]
async fn a_role_that_is_refused_is_asked_for_seldom_and_heals_by_itself() {
    let allowed = Arc::new(AtomicBool::new(false));
    let is_allowed = allowed.clone();
    let (fake, roles) = roles(move |_| match is_allowed.load(Ordering::SeqCst) {
        true => credentials(Duration::from_secs(3600)),
        false => elb_error(
            403,
            "AccessDenied",
            "User: arn:aws:iam::1:user/x is not authorized to perform: sts:AssumeRole on resource: y with shop",
        ),
    })
    .await;
    let (error, fix) = {
        let error = read(&roles, &role(Some("shop"))).await.unwrap_err();
        (error.clone(), error.fix().unwrap())
    };
    assert_eq!((error.denied_by(), error.is_transient()), (Some(DeniedBy::OtherAccount), false));
    insta::assert_snapshot!(format!("{error}\n{fix}"), @r"
    no valid AWS credentials for DescribeTargetHealth: the controller may not assume the role arn:aws:iam::111122223333:role/targets: User: arn:aws:iam::1:user/x is not authorized to perform: sts:AssumeRole on resource: y with … (AccessDenied)
    let the role's trust policy allow `sts:AssumeRole` to the controller's identity with the external id of spec.assumeRoleExternalId, and allow the controller `sts:AssumeRole` on the role; check the role's name and account, too
    ");
    let without = read(&roles, &role(None)).await.unwrap_err();
    insta::assert_snapshot!(without.fix().unwrap(), @"let the role's trust policy allow `sts:AssumeRole` to the controller's identity, and allow the controller `sts:AssumeRole` on the role; where the trust policy requires an external id, set spec.assumeRoleExternalId; check the role's name and account, too");
    fake.calls();
    // Many bindings of the role ask no more often than one.
    for _ in 0..20 {
        assert_eq!(read(&roles, &role(Some("shop"))).await, Err(error.clone()));
    }
    assert_eq!(fake.actions(), [""; 0]);
    allowed.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(read(&roles, &role(Some("shop"))).await, Ok(0));
}

#[tokio::test]
async fn answers_of_sts_are_told_with_what_to_do() {
    let mut texts = Vec::new();
    for (status, code, message) in [
        (400, "ValidationError", "1 validation error detected"),
        (403, "RegionDisabledException", "STS is not activated in this region"),
        (403, "InvalidClientTokenId", "The security token included in the request is invalid"),
        (403, "SignatureDoesNotMatch", "hidden-token was signed"),
        (400, "Odd", "words"),
        (500, "InternalFailure", "out of order"),
        (400, "Throttling", "Rate exceeded"),
        (
            403,
            "AccessDenied",
            "User: x is not authorized to perform: sts:AssumeRole on resource: y because no identity-based policy allows the sts:AssumeRole action",
        ),
    ] {
        let (_fake, roles) = roles(move |_| elb_error(status, code, message)).await;
        let error = read(&roles, &role(None)).await.unwrap_err();
        texts.push(format!("{error}; {}; denied by {:?}", error.fix().unwrap(), error.denied_by()));
    }
    let text = texts.join("\n");
    assert!(!text.contains("hidden"), "{text}");
    insta::assert_snapshot!(text, @r"
    no valid AWS credentials for DescribeTargetHealth: STS does not accept the role arn:aws:iam::111122223333:role/targets: 1 validation error detected (ValidationError); correct spec.iamRoleArnToAssume and spec.assumeRoleExternalId; denied by Some(OtherAccount)
    no valid AWS credentials for DescribeTargetHealth: STS is switched off in region us-west-2: STS is not activated in this region (RegionDisabledException); switch it on in the account settings of IAM; denied by Some(OwnAccount)
    no valid AWS credentials for DescribeTargetHealth: STS does not accept the controller's own credentials, with which it assumes the role arn:aws:iam::111122223333:role/targets: The security token included in the request is invalid (InvalidClientTokenId); check the controller's credentials and the clock of its node; denied by Some(OwnAccount)
    no valid AWS credentials for DescribeTargetHealth: STS does not accept the controller's own credentials, with which it assumes the role arn:aws:iam::111122223333:role/targets (SignatureDoesNotMatch); check the controller's credentials and the clock of its node; denied by Some(OwnAccount)
    no valid AWS credentials for DescribeTargetHealth: STS gives the controller no credentials for the role arn:aws:iam::111122223333:role/targets: words (Odd); check spec.iamRoleArnToAssume and the role's trust policy; denied by Some(OwnAccount)
    no valid AWS credentials for DescribeTargetHealth: STS gives no credentials for the role arn:aws:iam::111122223333:role/targets at present: out of order (InternalFailure); wait: it is asked again; denied by Some(Unanswered)
    no valid AWS credentials for DescribeTargetHealth: STS gives no credentials for the role arn:aws:iam::111122223333:role/targets at present: Rate exceeded (Throttling); wait: it is asked again; denied by Some(Unanswered)
    no valid AWS credentials for DescribeTargetHealth: the controller's own policy does not allow it to assume the role arn:aws:iam::111122223333:role/targets: User: x is not authorized to perform: sts:AssumeRole on resource: y because no identity-based policy allows the sts:AssumeRole action (AccessDenied); allow the controller `sts:AssumeRole` on the role, in the IAM policy of the controller's own identity; denied by Some(OwnAccount)
    ");
}

#[tokio::test]
async fn a_permission_that_the_role_lacks_is_named_with_the_role() {
    let fake = Fake::start(move |call| {
        std::future::ready(match call.action.as_str() {
            "AssumeRole" => credentials(Duration::from_secs(3600)),
            _ => elb_error(403, "AccessDenied", "no"),
        })
    })
    .await;
    let aws = Arc::new(crate::testing::at(&fake.endpoint, None));
    let roles = Roles::new(Arc::clone(&aws), "demo", &VpcId::new("vpc-1"));
    let error = roles
        .client(&role(None))
        .writer(&WritePermit::without_election())
        .deregister_targets(&group(), &[albatross_core::model::Target { id: "10.0.0.1".into(), port: 80 }.into()])
        .await
        .unwrap_err();
    assert_eq!(error.denied_by(), Some(DeniedBy::OtherAccount));
    insta::assert_snapshot!(format!("{error}; {}", error.fix().unwrap()), @"AWS does not allow DeregisterTargets: no (AccessDenied); allow the action `elasticloadbalancing:DeregisterTargets` in the IAM policy of the role arn:aws:iam::111122223333:role/targets");
    // The same of the controller's own role is for the account's owner.
    let error = aws.describe_target_health(&group()).await.unwrap_err();
    assert_eq!(error.denied_by(), Some(DeniedBy::OwnAccount));
}

#[tokio::test]
async fn nothing_is_written_in_a_role_without_the_lease() {
    let fake = Fake::start(|call| std::future::ready(elb(&call.action, ""))).await;
    let reader = Arc::new(crate::testing::at(&fake.endpoint, None));
    let roles = Roles::new(reader, "demo", &VpcId::new("vpc-1"));
    let target = albatross_core::model::Target { id: "10.0.0.1".into(), port: 80 };
    let error = roles
        .client(&role(None))
        .writer(&crate::testing::permit(|| None))
        .register_targets(&group(), &[target.into()])
        .await
        .unwrap_err();
    assert_eq!((error.kind, fake.actions()), (AwsErrorKind::Withheld, vec![]));
}

#[tokio::test]
async fn the_throttling_of_another_account_holds_up_no_call_of_this_one() {
    let count = Arc::new(AtomicUsize::new(0));
    let (fake, roles) = {
        let fake = Fake::start(move |call| {
            let in_role = call.action == "DescribeTargetHealth" && count.fetch_add(1, Ordering::SeqCst) == 0;
            std::future::ready(match call.action.as_str() {
                "AssumeRole" => credentials(Duration::from_secs(3600)),
                _ if in_role => elb_error(400, "Throttling", "Rate exceeded"),
                action => elb(action, ""),
            })
        })
        .await;
        let aws = Arc::new(crate::testing::at(&fake.endpoint, None));
        let roles = Roles::new(Arc::clone(&aws), "demo", &VpcId::new("vpc-1"));
        ((fake, aws), roles)
    };
    assert_eq!(read(&roles, &role(None)).await, Ok(0));
    let limited = |aws: &AwsReader| aws.budgets()["elb_reads"].rate.is_some();
    assert!(limited(&roles.client(&role(None)).aws));
    assert!(!limited(&fake.1));
}

#[tokio::test]
async fn a_limited_number_of_clients_is_kept() {
    let (fake, roles) = roles(|_| credentials(Duration::from_secs(3600))).await;
    let numbered = |number: usize| role_of(&format!("{ARN}-{number}"), None);
    for number in 0..=MAX_ROLES {
        read(&roles, &numbered(number)).await.unwrap();
        // This one is used all the time.
        read(&roles, &numbered(0)).await.unwrap();
    }
    assert_eq!(roles.kept.lock().unwrap().len(), MAX_ROLES);
    fake.calls();
    read(&roles, &numbered(0)).await.unwrap();
    assert_eq!(fake.actions(), ["DescribeTargetHealth"]);
    read(&roles, &numbered(1)).await.unwrap();
    assert_eq!(fake.actions(), ["AssumeRole", "DescribeTargetHealth"]);
}

/// Otherwise STS would be asked for each call.
#[tokio::test]
async fn with_more_roles_than_clients_are_kept_for_sts_is_asked_no_more_often() {
    let (fake, roles) = roles(|_| elb_error(403, "AccessDenied", "no")).await;
    let all: Vec<Role> = (0..MAX_ROLES + 20).map(|number| role_of(&format!("{ARN}-{number}"), None)).collect();
    let (first, others) = all.split_at(20);
    for role in first {
        read(&roles, role).await.unwrap_err();
    }
    // However long the others take on this machine.
    roles.pauses.lengthen(Duration::from_secs(600));
    for role in others.iter().chain(first) {
        read(&roles, role).await.unwrap_err();
    }
    assert_eq!(fake.calls().len(), all.len());
    assert_eq!(roles.pauses.len(), all.len());
}

#[tokio::test]
async fn sts_has_to_answer_in_time() {
    let fake = Fake::start(|call| async move {
        if call.action == "AssumeRole" {
            std::future::pending::<()>().await;
        }
        elb(&call.action, "")
    })
    .await;
    let roles = Roles::new(Arc::new(crate::testing::at(&fake.endpoint, None)), "demo", &VpcId::new("vpc-1"));
    let error = read(&roles, &role(None)).await.unwrap_err();
    insta::assert_snapshot!(format!("{error}; {}; denied by {:?}", error.fix().unwrap(), error.denied_by()), @"no valid AWS credentials for DescribeTargetHealth: STS in region us-west-2 gave no credentials for the role arn:aws:iam::111122223333:role/targets: there was no answer within 10 s; check name resolution, the route to STS (NAT gateway, or a VPC endpoint for `sts`), HTTPS_PROXY and NO_PROXY; denied by Some(Unanswered)");
    let again = tokio::time::Instant::now();
    read(&roles, &role(None)).await.unwrap_err();
    assert!(again.elapsed() < Duration::from_secs(1), "there is no pause");
}

/// A policy that revokes older sessions denies each call of theirs.
#[tokio::test]
async fn a_session_that_may_do_nothing_more_is_given_up_once() {
    let (fake, roles) = roles(|_| credentials(Duration::from_secs(3600))).await;
    read(&roles, &role(None)).await.unwrap();
    let client = roles.client(&role(None));
    let denied = || -> Result<(), AwsError> {
        let kind = AwsErrorKind::Denied { code: "AccessDenied".into(), message: "no".into(), role: Some(ARN.into()) };
        Err(AwsError { operation: "RegisterTargets", kind })
    };
    roles.drop_ended_session(&role(None), &denied());
    assert!(Arc::ptr_eq(&roles.client(&role(None)), &client), "a new session is kept");
    tokio::time::pause();
    tokio::time::advance(SESSION_KEPT).await;
    roles.drop_ended_session(&role(Some("shop")), &denied());
    roles.drop_ended_session(&role(None), &Ok(()));
    assert!(Arc::ptr_eq(&roles.client(&role(None)), &client));
    roles.drop_ended_session(&role(None), &denied());
    tokio::time::resume();
    fake.calls();
    read(&roles, &role(None)).await.unwrap();
    assert_eq!(fake.actions(), ["AssumeRole", "DescribeTargetHealth"]);
    assert_eq!(roles.kept.lock().unwrap().len(), 1);
}

/// So answers AWS when the keys of a session were deactivated with the role, or its region.
#[tokio::test]
async fn a_session_that_aws_does_not_accept_is_given_up_and_is_the_other_accounts_matter() {
    let is_over = Arc::new(AtomicBool::new(true));
    let refuses = Arc::clone(&is_over);
    let fake = Fake::start(move |call| {
        let is_over = refuses.load(Ordering::SeqCst);
        std::future::ready(match call.action.as_str() {
            "AssumeRole" => credentials(Duration::from_secs(3600)),
            "DescribeTargetHealth" if is_over => {
                elb_error(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
            }
            action => elb(action, ""),
        })
    })
    .await;
    let aws = Arc::new(crate::testing::at(&fake.endpoint, None));
    let roles = Roles::new(Arc::clone(&aws), "demo", &VpcId::new("vpc-1"));
    let answer = read(&roles, &role(None)).await;
    let error = answer.clone().unwrap_err();
    insta::assert_snapshot!(format!("{error}; {}; denied by {:?}", error.fix().unwrap(), error.denied_by()), @"no valid AWS credentials for DescribeTargetHealth: AWS does not accept the session of the role arn:aws:iam::111122223333:role/targets: AWS does not know the access key (InvalidClientTokenId); check that its account has the region enabled and has not ended its sessions; it is assumed anew after a while; denied by Some(OtherAccount)");
    // Of the controller's own keys it is the account's own matter.
    let own = aws.describe_target_health(&group()).await.unwrap_err();
    assert_eq!(own.denied_by(), Some(DeniedBy::OwnAccount));
    roles.drop_ended_session(&role(None), &answer);
    fake.calls();
    let _ = read(&roles, &role(None)).await;
    assert_eq!(fake.actions(), ["DescribeTargetHealth"], "a new session is kept");
    tokio::time::pause();
    tokio::time::advance(SESSION_KEPT).await;
    roles.drop_ended_session(&role(None), &Err::<(), _>(own));
    assert_eq!(roles.kept.lock().unwrap().len(), 1);
    roles.drop_ended_session(&role(None), &answer);
    tokio::time::resume();
    is_over.store(false, Ordering::SeqCst);
    assert_eq!(read(&roles, &role(None)).await, Ok(0));
    assert_eq!(fake.actions(), ["AssumeRole", "DescribeTargetHealth"]);
}

#[test]
fn nothing_secret_is_shown() {
    let shown = format!("{:?}", role(Some("shop")));
    assert!(!shown.contains("shop"), "{shown}");
}
