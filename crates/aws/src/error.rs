//! The errors of calls, sorted by their consequence for the next step, with their fixes.

use std::{error::Error, fmt, time::Duration};

use aws_smithy_runtime_api::{
    client::{orchestrator::HttpResponse, result::SdkError},
    http::StatusCode,
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::credentials::NoCredentials;

/// A call to AWS that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsError {
    /// The operation's name in AWS's API.
    pub operation: &'static str,
    /// The kind of the error.
    pub kind: AwsErrorKind,
}

/// The party that denies credentials or a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeniedBy {
    /// The account in which the controller runs.
    OwnAccount,
    /// The account of a role that is assumed.
    OtherAccount,
    /// No party is known: STS was not reached, or did not say.
    Unanswered,
}

/// The result of a call that failed. `code` and `message` are AWS's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsErrorKind {
    /// AWS took no more calls for now. It did not take effect.
    Throttled {
        /// For example `Throttling`.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// AWS refuses the call, however often it is repeated. It did not take effect.
    Refused {
        /// For example `ValidationError`.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// The credentials are good, but lack a permission. It did not take effect.
    Denied {
        /// For example `AccessDenied`.
        code: String,
        /// AWS's words.
        message: String,
        /// The role that lacks it, if it is not the controller's own.
        role: Option<String>,
    },
    /// Another resource still uses this one, or is not ready. The call did not take effect; it will, once that has changed.
    Dependency {
        /// For example `DependencyViolation` or `ResourceInUse`.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// A load balancer, listener, rule, target group or security group that was there is not: what is known must be read again.
    NotFound {
        /// For example `RuleNotFound`.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// The resource exists already: the cached state must be read again.
    Duplicate {
        /// For example `PriorityInUse`.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// There was no answer, or one that does not say whether the call took effect.
    Unclear {
        /// The failure seen instead of an answer.
        message: String,
    },
    /// There are no credentials, or AWS does not accept them. It did not take effect.
    Credentials {
        /// The message; nothing of the credentials themselves.
        message: String,
        /// The fix, where it is known better than in general.
        fix: Option<String>,
        /// The party that denies them.
        denied_by: DeniedBy,
        /// AWS's code, if a service has answered that it does not accept them.
        code: Option<&'static str>,
    },
    /// The connection could not be made, so the call was never sent.
    Unreachable {
        /// The endpoint, as far as it is known.
        endpoint: String,
        /// The network's message.
        message: String,
    },
    /// The lease is not held any more, so the call was not sent.
    Withheld,
    /// The request could not be put together, so the call was never sent.
    Unsent {
        /// The message.
        message: String,
    },
}

/// Codes by which AWS says that it takes no more calls for now.
pub(super) const THROTTLES: [&str; 14] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "Throttled",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "TooManyRequestsException",
    "BandwidthLimitExceeded",
    "TransactionInProgressException",
    "EC2ThrottledException",
    "Client.RequestLimitExceeded",
    "SlowDown",
];

/// Refusals by which ELB v2 reports that an EC2 resource named in the request does not exist (any more): the inventory may
/// be out of date, or the user has named it.
const NAMES_NOTHING: [&str; 3] = ["InvalidSecurityGroup", "SubnetNotFound", "InvalidSubnet"];

/// Codes by which AWS says that it does not take the credentials.
const BAD_CREDENTIALS: [(&str, &str); 10] = [
    ("ExpiredToken", "the session token has expired"),
    ("ExpiredTokenException", "the session token has expired"),
    ("RequestExpired", "the request was signed too long ago, or this machine's clock is wrong"),
    ("InvalidClientTokenId", "AWS does not know the access key"),
    ("UnrecognizedClientException", "AWS does not know the access key"),
    ("InvalidAccessKeyId", "AWS does not know the access key"),
    ("SignatureDoesNotMatch", "the secret key does not belong to the access key, or this machine's clock is wrong"),
    ("IncompleteSignature", "the request's signature is not complete"),
    ("MissingAuthenticationToken", "the request was not signed"),
    ("AuthFailure", "AWS could not validate the credentials"),
];

/// Those by which AWS says that it does not take a session, whoever has it.
const ENDED_SESSIONS: [&str; 5] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
];

/// The quotas of AWS that refuse a step, by code, as Service Quotas calls them.
const QUOTAS: [(&str, &str); 13] = [
    ("TooManyLoadBalancers", "Application Load Balancers per Region"),
    ("TooManyTargetGroups", "Target Groups per Region"),
    ("TooManyListeners", "Listeners per Application Load Balancer"),
    ("TooManyRules", "Rules per Application Load Balancer"),
    ("TooManyTargets", "Targets per Application Load Balancer"),
    ("TooManyCertificates", "Certificates per Application Load Balancer"),
    ("TooManyActions", "Target Groups per Action per Application Load Balancer"),
    ("TooManyUniqueTargetGroupsPerLoadBalancer", "Target Groups per Application Load Balancer"),
    ("TooManyRegistrationsForTargetId", "Number of times a target can be registered per Application Load Balancer"),
    ("SecurityGroupLimitExceeded", "VPC security groups per Region"),
    ("RulesPerSecurityGroupLimitExceeded", "Inbound or outbound rules per security group"),
    ("SecurityGroupsPerInterfaceLimitExceeded", "Security groups per network interface"),
    ("SecurityGroupsPerInstanceLimitExceeded", "Security groups per network interface"),
];

/// The operations of EC2 that are called; an operation that is in none of these lists belongs to ELB v2.
const EC2_OPERATIONS: [&str; 13] = [
    "AuthorizeSecurityGroupIngress",
    "CreateSecurityGroup",
    "CreateTags",
    "DeleteSecurityGroup",
    "DescribeAvailabilityZones",
    "DescribeInstances",
    "DescribeNetworkInterfaces",
    "DescribeRouteTables",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeVpcs",
    "DeleteTags",
    "RevokeSecurityGroupIngress",
];

/// The operations of ACM that are called.
const ACM_OPERATIONS: [&str; 5] =
    ["DeleteCertificate", "DescribeCertificate", "ListCertificates", "ListTagsForCertificate", "RequestCertificate"];
/// The operations of Route 53 that are called.
const ROUTE53_OPERATIONS: [&str; 2] = ["ChangeResourceRecordSets", "ListHostedZones"];

/// The operations of WAFv2 that are called.
const WAFV2_OPERATIONS: [&str; 4] = ["AssociateWebACL", "DisassociateWebACL", "GetWebACLForResource", "ListWebACLs"];

/// The operations of Shield that are called.
const SHIELD_OPERATIONS: [&str; 4] =
    ["CreateProtection", "DeleteProtection", "DescribeProtection", "GetSubscriptionState"];

/// Returns true if an operation is EC2's.
fn is_ec2(operation: &str) -> bool {
    EC2_OPERATIONS.contains(&operation)
}

/// The service of an operation, as `--aws-api-endpoints` and `--aws-api-throttle` are read.
pub(super) fn service_of(operation: &str) -> &'static str {
    match operation {
        operation if is_ec2(operation) => "ec2",
        operation if ACM_OPERATIONS.contains(&operation) => "acm",
        operation if ROUTE53_OPERATIONS.contains(&operation) => "route53",
        operation if WAFV2_OPERATIONS.contains(&operation) => "wafv2",
        operation if SHIELD_OPERATIONS.contains(&operation) => "shield",
        _ => "elasticloadbalancingv2",
    }
}

/// Returns true for a code by which AWS says that it does not take the caller's credentials.
pub(super) fn is_about_own_credentials(code: &str) -> bool {
    BAD_CREDENTIALS.iter().any(|(bad, _)| *bad == code)
}

/// Returns the kind of error for a code that AWS answers an operation with.
fn of_answer(operation: &str, code: &str, message: &str, status: u16) -> AwsErrorKind {
    match of_code(code, message, status) {
        // Route 53 makes the changes of a hosted zone one after the other, and answers this as long as one is under way.
        AwsErrorKind::Dependency { code, message }
            if code == "PriorRequestNotComplete" && service_of(operation) == "route53" =>
        {
            AwsErrorKind::Throttled { code, message }
        }
        // ACM answers this while it changes the certificate, or something that uses it.
        AwsErrorKind::Refused { code, message } if code == "ConflictException" && service_of(operation) == "acm" => {
            AwsErrorKind::Dependency { code, message }
        }
        kind => kind,
    }
}

/// Returns the kind of error for a code of AWS's.
fn of_code(code: &str, message: &str, status: u16) -> AwsErrorKind {
    // EC2 appends a long text that only sts:DecodeAuthorizationMessage can read.
    let message = message.split(" Encoded authorization failure message").next().unwrap_or_default();
    let (code, message) = (code.to_owned(), without_secrets(message.trim().trim_end_matches('.')));
    // AWS's words on a bad signature repeat the signed headers, the session token among them.
    if let Some((code, message)) = BAD_CREDENTIALS.iter().find(|(bad, _)| *bad == code) {
        return AwsErrorKind::Credentials {
            message: format!("{message} ({code})"),
            fix: None,
            denied_by: DeniedBy::OwnAccount,
            code: Some(code),
        };
    }
    match code.as_str() {
        c if THROTTLES.contains(&c) => AwsErrorKind::Throttled { code, message },
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "OptInRequired" | "Unauthorized" => {
            AwsErrorKind::Denied { code, message, role: None }
        }
        // ELB v2 answers the last one while a reservation of capacity is under way.
        "DependencyViolation"
        | "ResourceInUse"
        | "ResourceInUseException"
        | "RequestInProgressException"
        | "WAFUnavailableEntityException"
        | "CapacityReservationPending"
        | "PriorRequestNotComplete" => AwsErrorKind::Dependency { code, message },
        "LoadBalancerNotFound"
        | "ListenerNotFound"
        | "RuleNotFound"
        | "TargetGroupNotFound"
        | "InvalidGroup.NotFound"
        | "InvalidSecurityGroupID.NotFound"
        | "InvalidPermission.NotFound"
        | "InvalidInstanceID.NotFound" => AwsErrorKind::NotFound { code, message },
        "PriorityInUse"
        | "InvalidGroup.Duplicate"
        | "InvalidPermission.Duplicate"
        | "DuplicateLoadBalancerName"
        | "DuplicateTargetGroupName"
        | "DuplicateListener"
        | "ResourceAlreadyExistsException" => AwsErrorKind::Duplicate { code, message },
        _ if status == 429 => AwsErrorKind::Throttled { code, message },
        // AWS answers a definite refusal with 4xx; anything else may have taken effect.
        _ if (400..500).contains(&status) => AwsErrorKind::Refused { code, message },
        _ => AwsErrorKind::Unclear { message: format!("status {status}, {code}: {message}") },
    }
}

/// The text without user names and passwords in URLs.
fn without_secrets(text: &str) -> String {
    text.split(' ')
        .map(|word| match (word.find("//"), word.rfind('@')) {
            (Some(start), Some(end)) if start + 2 < end => format!("{}…{}", &word[..start + 2], &word[end..]),
            _ => word.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// An error and all its sources in one line, each said once.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !text.is_empty() && !words.iter().any(|word| word.contains(&text)) {
            words.push(text);
        }
        next = error.source();
    }
    without_secrets(&words.join(": "))
}

impl AwsError {
    /// Classifies the SDK's error. `endpoint` is in the message when the call could not be sent.
    pub(crate) fn new<E>(operation: &'static str, endpoint: &str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let Some(none) = NoCredentials::cause_of(error) {
            return Self { operation, kind: none.kind() };
        }
        let kind = match error {
            SdkError::ServiceError(context) => of_answer(
                operation,
                context.err().code().unwrap_or("no code"),
                context.err().message().unwrap_or("no message"),
                context.raw().status().as_u16(),
            ),
            SdkError::TimeoutError(_) => AwsErrorKind::Unclear { message: chain(error) },
            SdkError::DispatchFailure(failure) => {
                // The connector's own words are only a class; what happened is below.
                let below = failure.as_connector_error().and_then(Error::source);
                let message = chain(below.unwrap_or(error));
                of_dispatch(endpoint, message)
            }
            SdkError::ResponseError(context) => of_response(context.raw().status(), chain(error)),
            _ => AwsErrorKind::Unsent { message: chain(error) },
        };
        Self { operation, kind }
    }

    /// An answer that lacks what AWS's API says it has.
    pub(crate) fn incomplete(operation: &'static str, what: &str) -> Self {
        Self { operation, kind: AwsErrorKind::Unclear { message: format!("the answer has no {what}") } }
    }

    /// Returns the error of a write that was sent and not answered within the time for which the lease was certain. It may
    /// have taken effect.
    pub(crate) fn unanswered(operation: &'static str, within: Duration) -> Self {
        let message = format!("no answer within the {} s for which the lease was certain", within.as_secs());
        Self { operation, kind: AwsErrorKind::Unclear { message } }
    }

    /// A request that cannot be put together.
    pub(crate) fn unsent(operation: &'static str, what: &str) -> Self {
        Self { operation, kind: AwsErrorKind::Unsent { message: what.to_owned() } }
    }

    /// Returns true if AWS refuses the call, however often it is repeated.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.kind, AwsErrorKind::Refused { .. })
    }

    /// Returns true if a permission is missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self.kind, AwsErrorKind::Denied { .. })
    }

    /// Returns the error of a call that was made in this role.
    #[must_use]
    pub(crate) fn in_role(mut self, arn: &str) -> Self {
        match &mut self.kind {
            AwsErrorKind::Denied { role, .. } => *role = Some(arn.to_owned()),
            AwsErrorKind::Credentials { message, fix, denied_by, code: Some(code) }
                if ENDED_SESSIONS.contains(code) =>
            {
                *message = format!("AWS does not accept the session of the role {arn}: {message}");
                let hint = "check that its account has the region enabled and has not ended its sessions; it is assumed anew after a while";
                *fix = Some(hint.to_owned());
                *denied_by = DeniedBy::OtherAccount;
            }
            _ => {}
        }
        self
    }

    /// Returns true if a session of the role in which the call was made can do no more: a permission is missing, which a later
    /// session may have, or AWS does not accept it.
    #[must_use]
    pub(crate) fn ends_session(&self) -> bool {
        let is_refused =
            matches!(self.kind, AwsErrorKind::Credentials { denied_by: DeniedBy::OtherAccount, code: Some(_), .. });
        is_refused || self.is_denied()
    }

    /// Returns the account whose owner has to let the controller in: its role cannot be assumed or lacks a permission, or the
    /// controller lacks credentials or a permission of its own; `None` if the call failed for another reason.
    #[must_use]
    pub fn denied_by(&self) -> Option<DeniedBy> {
        match &self.kind {
            AwsErrorKind::Denied { role: Some(_), .. } => Some(DeniedBy::OtherAccount),
            AwsErrorKind::Denied { role: None, .. } => Some(DeniedBy::OwnAccount),
            AwsErrorKind::Credentials { denied_by, .. } => Some(*denied_by),
            _ => None,
        }
    }

    /// Returns true if the call can succeed when it is tried again, or after reading again, without a fix by a user: then it is not reported.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            AwsErrorKind::Throttled { .. }
                | AwsErrorKind::Dependency { .. }
                | AwsErrorKind::NotFound { .. }
                | AwsErrorKind::Duplicate { .. }
                | AwsErrorKind::Unclear { .. }
                | AwsErrorKind::Unreachable { .. }
                | AwsErrorKind::Withheld
        )
    }

    /// Returns true if the cached state of AWS may be wrong and must be read again.
    #[must_use]
    pub fn asks_to_read_again(&self) -> bool {
        matches!(
            self.kind,
            AwsErrorKind::NotFound { .. } | AwsErrorKind::Duplicate { .. } | AwsErrorKind::Unclear { .. }
        ) || self.code().is_some_and(|code| NAMES_NOTHING.contains(&code))
    }

    /// Returns true if AWS does not permit the operation in the state of the resource, as DeleteLoadBalancer of a protected
    /// load balancer (OperationNotPermitted). Only its words tell the reason, and they are no interface.
    #[must_use]
    pub fn is_not_permitted(&self) -> bool {
        self.is_refused() && self.code() == Some(NOT_PERMITTED)
    }

    /// Returns true if AWS reports that a security group does not exist.
    #[must_use]
    pub fn names_no_security_group(&self) -> bool {
        self.code().is_some_and(|code| matches!(code, "InvalidSecurityGroup" | "InvalidGroup.NotFound"))
    }

    /// The error with these texts hidden in AWS's words.
    #[must_use]
    pub(super) fn without(mut self, texts: &[&str]) -> Self {
        let message = match &mut self.kind {
            AwsErrorKind::Throttled { message, .. }
            | AwsErrorKind::Refused { message, .. }
            | AwsErrorKind::Denied { message, .. }
            | AwsErrorKind::Dependency { message, .. }
            | AwsErrorKind::NotFound { message, .. }
            | AwsErrorKind::Duplicate { message, .. }
            | AwsErrorKind::Unclear { message }
            | AwsErrorKind::Credentials { message, .. }
            | AwsErrorKind::Unreachable { message, .. }
            | AwsErrorKind::Unsent { message } => message,
            AwsErrorKind::Withheld => return self,
        };
        for text in texts.iter().filter(|text| !text.is_empty()) {
            *message = message.replace(*text, "…");
        }
        self
    }

    /// Returns true if the resource does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self.kind, AwsErrorKind::NotFound { .. })
    }

    /// Returns true if AWS has refused with a message that contains these words, in any case.
    #[must_use]
    pub fn says(&self, words: &str) -> bool {
        matches!(&self.kind, AwsErrorKind::Refused { message, .. } | AwsErrorKind::Dependency { message, .. }
            if message.to_lowercase().contains(&words.to_lowercase()))
    }

    /// AWS's code, where AWS has answered with one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match &self.kind {
            AwsErrorKind::Throttled { code, .. }
            | AwsErrorKind::Refused { code, .. }
            | AwsErrorKind::Denied { code, .. }
            | AwsErrorKind::Dependency { code, .. }
            | AwsErrorKind::NotFound { code, .. }
            | AwsErrorKind::Duplicate { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Returns the fix, as a sentence without a full stop; `None` where the only fix is to wait.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match &self.kind {
            AwsErrorKind::Denied { code, .. } if code == "OptInRequired" => {
                Some("subscribe the account to the service in the AWS console".to_owned())
            }
            AwsErrorKind::Denied { message, role, .. } => {
                let action = self.iam_action(message);
                let role = role.as_ref().map_or("the controller's role".to_owned(), |role| format!("the role {role}"));
                Some(format!("allow the action `{action}` in the IAM policy of {role}"))
            }
            AwsErrorKind::Credentials { fix: Some(fix), .. } => Some(fix.clone()),
            AwsErrorKind::Credentials { .. } => Some(
                "annotate the controller's ServiceAccount with `eks.amazonaws.com/role-arn`, or give it an EKS Pod Identity \
                 association, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                    .to_owned(),
            ),
            AwsErrorKind::Unreachable { .. } => Some(
                "check name resolution, the route to AWS (NAT gateway or VPC endpoint), HTTPS_PROXY and NO_PROXY; \
                 `--aws-api-endpoints` names another endpoint"
                    .to_owned(),
            ),
            AwsErrorKind::Refused { code, message } => refused_fix(self.operation, code, message),
            _ => None,
        }
    }

    /// The IAM action that was denied: the one that AWS's words name, which is not always the operation's own.
    fn iam_action(&self, message: &str) -> String {
        let named = message.split("not authorized to perform: ").nth(1).and_then(|rest| rest.split_whitespace().next());
        named.map_or_else(
            || {
                let prefix = match service_of(self.operation) {
                    "elasticloadbalancingv2" => "elasticloadbalancing",
                    service => service,
                };
                format!("{prefix}:{}", self.operation)
            },
            |action| action.trim_end_matches(['.', ',']).to_owned(),
        )
    }
}

/// A failure below HTTP: without credentials and without a connection nothing was sent.
fn of_dispatch(endpoint: &str, message: String) -> AwsErrorKind {
    // The SDK distinguishes these by types that it does not export; their texts are part of hyper-util and aws-credential-types.
    let credentials = ["credential", "identity"].iter().any(|word| message.contains(word));
    let unsent =
        ["client error (Connect)", "connect timeout", "dns error", "DNS"].iter().any(|word| message.contains(word));
    if credentials {
        AwsErrorKind::Credentials { message, fix: None, denied_by: DeniedBy::OwnAccount, code: None }
    } else if unsent {
        AwsErrorKind::Unreachable { endpoint: without_secrets(endpoint), message }
    } else {
        AwsErrorKind::Unclear { message }
    }
}

/// An answer that could not be read.
fn of_response(status: StatusCode, message: String) -> AwsErrorKind {
    match status.as_u16() {
        429 => AwsErrorKind::Throttled { code: "429".to_owned(), message },
        status => {
            AwsErrorKind::Unclear { message: format!("the answer with status {status} could not be read: {message}") }
        }
    }
}

/// The code with which AWS refuses to delete a protected load balancer, among other things.
const NOT_PERMITTED: &str = "OperationNotPermitted";

fn refused_fix(operation: &str, code: &str, message: &str) -> Option<String> {
    if let Some((_, quota)) = QUOTAS.iter().find(|(refused, _)| *refused == code) {
        return Some(format!("ask AWS to raise the quota `{quota}`, or use fewer"));
    }
    Some(
        match code {
            "CertificateNotFound" => {
                "check the certificate's ARN: it must be in the load balancer's account and region"
            }
            "UnsupportedCertificate" => "use a certificate with a key that Application Load Balancers take",
            "SSLPolicyNotFound" => "name a TLS policy that AWS has in this region",
            "TooManyTags" => "use fewer tags: AWS allows 50 on one resource, and this cannot be raised",
            NOT_PERMITTED if message.contains("eletion protection") => {
                "switch the load balancer's attribute `deletion_protection.enabled` off in AWS if it may be deleted"
            }
            "WAFNonexistentItemException" if operation == "AssociateWebACL" => {
                "check the web ACL's ARN: it must be in the load balancer's account and region"
            }
            "CapacityDecreaseRequestLimitExceeded" => {
                "leave the reserved capacity as it is, or wait: AWS takes only so many decreases a day"
            }
            "CapacityUnitsLimitExceeded" => "reserve less, or ask AWS to raise the quota for reserved capacity",
            "InsufficientCapacity" => "reserve less, or wait: AWS does not have that much now",
            "LimitExceededException" if operation == "RequestCertificate" => {
                "ask AWS to raise ACM's quotas (certificates in the last 365 days, domain names of a certificate), delete certificates that nothing uses, or use fewer hosts"
            }
            "InvalidArnException" if operation == "RequestCertificate" => {
                "check the ARN of the private certificate authority: it must be active, in the load balancer's region, and shared with the account"
            }
            "InvalidDomainValidationOptionsException" => "check the hosts of the Ingress",
            "TargetGroupAssociationLimit" => "use the target group with one load balancer only",
            c if c.starts_with("TooMany") || c.ends_with("LimitExceeded") || c.ends_with("LimitsExceededException") => {
                "ask AWS to raise the quota that it names, or use fewer"
            }
            _ => return None,
        }
        .to_owned(),
    )
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.operation;
        match &self.kind {
            AwsErrorKind::Throttled { code, message } => write!(f, "AWS throttles {operation}: {message} ({code})"),
            AwsErrorKind::Refused { code, message } => write!(f, "AWS refuses {operation}: {message} ({code})"),
            AwsErrorKind::Denied { code, message, .. } => {
                write!(f, "AWS does not allow {operation}: {message} ({code})")
            }
            AwsErrorKind::Dependency { code, message } => write!(f, "{operation} has to wait: {message} ({code})"),
            AwsErrorKind::NotFound { code, message } => {
                write!(f, "{operation} names a resource that does not exist: {message} ({code})")
            }
            AwsErrorKind::Duplicate { code, message } => {
                write!(f, "{operation} found an existing resource: {message} ({code})")
            }
            AwsErrorKind::Unclear { message } => {
                write!(f, "{operation} ended without a clear answer and may have taken effect: {message}")
            }
            AwsErrorKind::Credentials { message, .. } => {
                write!(f, "no valid AWS credentials for {operation}: {message}")
            }
            AwsErrorKind::Unreachable { endpoint, message } => {
                write!(f, "{operation} could not reach {endpoint}: {message}")
            }
            AwsErrorKind::Withheld => write!(
                f,
                "{operation} was not sent: this process does not hold the lease, and another replica may lead"
            ),
            AwsErrorKind::Unsent { message } => write!(f, "{operation} could not be sent: {message}"),
        }
    }
}

impl Error for AwsError {}

#[cfg(test)]
mod tests;
