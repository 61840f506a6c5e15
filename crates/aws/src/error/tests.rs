use super::*;

fn error(operation: &'static str, code: &str, message: &str, status: u16) -> AwsError {
    AwsError { operation, kind: of_code(code, message, status) }
}

/// The text of an error for users.
fn text(error: &AwsError) -> String {
    format!("{error}\nfix: {}\ntransient: {}", error.fix().as_deref().unwrap_or("-"), error.is_transient())
}

#[test]
fn a_missing_permission_names_the_action_to_allow() {
    insta::assert_snapshot!(text(&error(
        "CreateLoadBalancer",
        "AccessDenied",
        "User: arn:aws:sts::123456789012:assumed-role/lbc/x is not authorized to perform: elasticloadbalancing:AddTags on resource: arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/*/* because no identity-based policy allows the elasticloadbalancing:AddTags action",
        403,
    )), @"
    AWS does not allow CreateLoadBalancer: User: arn:aws:sts::123456789012:assumed-role/lbc/x is not authorized to perform: elasticloadbalancing:AddTags on resource: arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/*/* because no identity-based policy allows the elasticloadbalancing:AddTags action (AccessDenied)
    fix: allow the action `elasticloadbalancing:AddTags` in the IAM policy of the controller's role
    transient: false
    ");
    insta::assert_snapshot!(text(&error(
        "CreateSecurityGroup",
        "UnauthorizedOperation",
        "You are not authorized to perform this operation. Encoded authorization failure message: ZbO4kq",
        403,
    )), @"
    AWS does not allow CreateSecurityGroup: You are not authorized to perform this operation (UnauthorizedOperation)
    fix: allow the action `ec2:CreateSecurityGroup` in the IAM policy of the controller's role
    transient: false
    ");
    insta::assert_snapshot!(text(&error("CreateRule", "AccessDenied", "denied by test", 403)), @"
    AWS does not allow CreateRule: denied by test (AccessDenied)
    fix: allow the action `elasticloadbalancing:CreateRule` in the IAM policy of the controller's role
    transient: false
    ");
}

#[test]
fn a_quota_is_named() {
    insta::assert_snapshot!(text(&error("CreateRule", "TooManyRules", "You've reached the limit on the number of rules per load balancer.", 400)), @"
    AWS refuses CreateRule: You've reached the limit on the number of rules per load balancer (TooManyRules)
    fix: ask AWS to raise the quota `Rules per Application Load Balancer`, or use fewer
    transient: false
    ");
    insta::assert_snapshot!(text(&error("CreateTrustStore", "TooManyTrustStores", "Too many.", 400)), @"
    AWS refuses CreateTrustStore: Too many (TooManyTrustStores)
    fix: ask AWS to raise the quota that it names, or use fewer
    transient: false
    ");
}

#[test]
fn nothing_of_the_credentials_is_repeated() {
    insta::assert_snapshot!(text(&error(
        "DescribeLoadBalancers",
        "SignatureDoesNotMatch",
        "The Canonical String for this request should have been 'POST x-amz-security-token:FQoGZXIvYXdzEA'",
        403,
    )), @"
    no valid AWS credentials for DescribeLoadBalancers: the secret key does not belong to the access key, or this machine's clock is wrong (SignatureDoesNotMatch)
    fix: annotate the controller's ServiceAccount with `eks.amazonaws.com/role-arn`, or give it an EKS Pod Identity association, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    transient: false
    ");
    insta::assert_snapshot!(
        without_secrets("tunnel via http://user:pass@word@proxy:3128/ failed, mail me@example.com"),
        @"tunnel via http://…@proxy:3128/ failed, mail me@example.com"
    );
}

#[test]
fn failures_below_http_tell_whether_the_call_was_sent() {
    for (message, kind) in [
        (
            "dispatch failure: io error: client error (Connect): tcp connect error: Connection refused (os error 111)",
            "unreachable",
        ),
        ("timeout: HTTP connect timeout occurred after 3.1s", "unreachable"),
        ("other: the credential provider was not enabled: no providers in chain provided credentials", "credentials"),
        ("io error: client error (SendRequest): connection closed before message completed", "unclear"),
    ] {
        let got = match of_dispatch("https://example", message.to_owned()) {
            AwsErrorKind::Unreachable { .. } => "unreachable",
            AwsErrorKind::Credentials { .. } => "credentials",
            AwsErrorKind::Unclear { .. } => "unclear",
            other => panic!("{other:?}"),
        };
        assert_eq!(got, kind, "{message}");
    }
}

#[test]
fn codes_are_sorted_by_what_they_mean() {
    let kind = |code: &str, status| match of_code(code, "words", status) {
        AwsErrorKind::Throttled { .. } => "throttled",
        AwsErrorKind::Refused { .. } => "refused",
        AwsErrorKind::Denied { .. } => "denied",
        AwsErrorKind::Dependency { .. } => "dependency",
        AwsErrorKind::NotFound { .. } => "not found",
        AwsErrorKind::Duplicate { .. } => "duplicate",
        AwsErrorKind::Unclear { .. } => "unclear",
        AwsErrorKind::Credentials { .. } => "credentials",
        AwsErrorKind::Unreachable { .. } => "unreachable",
        AwsErrorKind::Withheld => "withheld",
        AwsErrorKind::Unsent { .. } => "unsent",
    };
    for (code, status, expected) in [
        ("Throttling", 400, "throttled"),
        ("RequestLimitExceeded", 503, "throttled"),
        ("SomethingNew", 429, "throttled"),
        ("ValidationError", 400, "refused"),
        ("CertificateNotFound", 400, "refused"),
        ("SubnetNotFound", 400, "refused"),
        ("DuplicateTagKeys", 400, "refused"),
        ("TooManyRules", 400, "refused"),
        ("AccessDenied", 403, "denied"),
        ("UnauthorizedOperation", 403, "denied"),
        ("DependencyViolation", 400, "dependency"),
        ("ResourceInUse", 400, "dependency"),
        ("CapacityReservationPending", 400, "dependency"),
        ("PriorRequestNotComplete", 400, "dependency"),
        ("RuleNotFound", 400, "not found"),
        ("InvalidGroup.NotFound", 400, "not found"),
        ("PriorityInUse", 400, "duplicate"),
        ("InvalidPermission.Duplicate", 400, "duplicate"),
        ("DuplicateListener", 400, "duplicate"),
        ("InternalFailure", 500, "unclear"),
        ("ServiceUnavailable", 503, "unclear"),
        ("ExpiredToken", 400, "credentials"),
        ("AuthFailure", 401, "credentials"),
    ] {
        assert_eq!(kind(code, status), expected, "{code} {status}");
    }
}

#[test]
fn a_change_before_in_a_hosted_zone_is_a_throttle() {
    let kind = |operation| of_answer(operation, "PriorRequestNotComplete", "words", 400);
    assert!(matches!(kind("ChangeResourceRecordSets"), AwsErrorKind::Throttled { .. }));
    assert!(matches!(kind("ModifyCapacityReservation"), AwsErrorKind::Dependency { .. }));
}

#[test]
fn a_conflict_in_acm_waits() {
    let kind = |operation| of_answer(operation, "ConflictException", "words", 400);
    assert!(matches!(kind("DeleteCertificate"), AwsErrorKind::Dependency { .. }));
    assert!(matches!(kind("CreateListener"), AwsErrorKind::Refused { .. }));
}

#[test]
fn each_kind_reads_as_one_sentence() {
    let words = || "words".to_owned();
    let kinds = [
        AwsErrorKind::Throttled { code: "Throttling".into(), message: "Rate exceeded".into() },
        AwsErrorKind::Refused { code: "ValidationError".into(), message: words() },
        AwsErrorKind::Dependency {
            code: "DependencyViolation".into(),
            message: "resource sg-1 has a dependent object".into(),
        },
        AwsErrorKind::NotFound { code: "RuleNotFound".into(), message: "One or more rules not found".into() },
        AwsErrorKind::Duplicate { code: "PriorityInUse".into(), message: "Priority '1' is currently in use".into() },
        AwsErrorKind::Unclear { message: "operation attempt timed out after 30 s".into() },
        AwsErrorKind::Credentials {
            message: "no providers in chain provided credentials".into(),
            fix: None,
            denied_by: DeniedBy::OwnAccount,
            code: None,
        },
        AwsErrorKind::Unreachable { endpoint: "ELB v2 in us-west-2".into(), message: "dns error".into() },
        AwsErrorKind::Withheld,
        AwsErrorKind::Unsent { message: "a region is missing".into() },
    ];
    let texts: Vec<_> = kinds.map(|kind| text(&AwsError { operation: "CreateRule", kind })).into();
    insta::assert_snapshot!(texts.join("\n"), @"
    AWS throttles CreateRule: Rate exceeded (Throttling)
    fix: -
    transient: true
    AWS refuses CreateRule: words (ValidationError)
    fix: -
    transient: false
    CreateRule has to wait: resource sg-1 has a dependent object (DependencyViolation)
    fix: -
    transient: true
    CreateRule names a resource that does not exist: One or more rules not found (RuleNotFound)
    fix: -
    transient: true
    CreateRule found an existing resource: Priority '1' is currently in use (PriorityInUse)
    fix: -
    transient: true
    CreateRule ended without a clear answer and may have taken effect: operation attempt timed out after 30 s
    fix: -
    transient: true
    no valid AWS credentials for CreateRule: no providers in chain provided credentials
    fix: annotate the controller's ServiceAccount with `eks.amazonaws.com/role-arn`, or give it an EKS Pod Identity association, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    transient: false
    CreateRule could not reach ELB v2 in us-west-2: dns error
    fix: check name resolution, the route to AWS (NAT gateway or VPC endpoint), HTTPS_PROXY and NO_PROXY; `--aws-api-endpoints` names another endpoint
    transient: true
    CreateRule was not sent: this process does not hold the lease, and another replica may lead
    fix: -
    transient: true
    CreateRule could not be sent: a region is missing
    fix: -
    transient: false
    ");
}

#[test]
fn what_names_nothing_has_what_is_known_read_again_and_is_told() {
    for (operation, code, again) in [
        ("CreateLoadBalancer", "InvalidSecurityGroup", true),
        ("SetSecurityGroups", "InvalidSecurityGroup", true),
        ("CreateTags", "InvalidSecurityGroupID.NotFound", true),
        ("CreateLoadBalancer", "ValidationError", false),
        ("CreateLoadBalancer", "TooManyLoadBalancers", false),
    ] {
        let error = error(operation, code, "words", 400);
        assert_eq!(error.asks_to_read_again(), again, "{code}");
        assert_eq!(error.is_transient(), code.ends_with("NotFound"), "{code}");
    }
}
