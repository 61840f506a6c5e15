//! The labels of metrics.

use prometheus_client::encoding::EncodeLabelSet;

use albatross_aws::RequestResult;

/// The labels of the metrics of a TargetGroupBinding.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Binding {
    pub(super) namespace: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReconcileError {
    pub(super) controller: String,
    pub(super) error_category: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReconcileStage {
    pub(super) controller: String,
    pub(super) reconcile_stage: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReconcileResult {
    pub(super) controller: &'static str,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OfController {
    pub(super) controller: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OfResource {
    pub(super) resource: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OfKind {
    pub(super) kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OfName {
    pub(super) name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct Talker {
    pub(super) controller: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// A target group with a binding.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TargetGroupInfo {
    /// The namespace of the Service.
    pub namespace: String,
    /// The Service.
    pub service: String,
    /// The part of the ARN after its last colon.
    pub target_group: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct AwsOperation {
    pub(super) service: String,
    pub(super) operation: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct BudgetClass {
    pub(super) class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct WebhookFailure {
    pub(super) webhook_name: &'static str,
    pub(super) error_category: &'static str,
}

/// The label of a webhook: its path.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OfWebhook {
    pub(super) webhook: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct WebhookRequest {
    pub(super) webhook: &'static str,
    pub(super) code: u16,
}

/// A request to the API server. The code is that of HTTP, or `<error>` if there was no answer, as in client-go.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ApiRequest {
    pub(super) code: String,
    pub(super) method: String,
    pub(super) host: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct PlanStep {
    pub(super) action: String,
}

/// An AWS call or request and its result, as [`albatross_aws::CallObserver`] reports it; the error code is empty on success.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct AwsCall {
    pub(super) service: String,
    pub(super) operation: String,
    pub(super) status_code: u16,
    pub(super) error_code: String,
}

/// The kinds of failed calls that have a metric each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AwsErrorKind {
    Permission,
    Throttled,
    ServiceLimitExceeded,
    Validation,
}

impl AwsCall {
    pub(super) fn of(service: &str, operation: &str, result: RequestResult<'_>) -> Self {
        let (status_code, error_code) = result.err().unwrap_or((200, ""));
        let [service, operation, error_code] = [service, operation, error_code].map(str::to_owned);
        Self { service, operation, status_code, error_code }
    }

    /// Returns the kind of a failed call, if it has a metric.
    ///
    /// Throttling is checked first: LBC counts EC2's throttling code `RequestLimitExceeded` as a service limit.
    pub(super) fn error_kind(&self) -> Option<AwsErrorKind> {
        let code = self.error_code.as_str();
        if matches!(self.status_code, 401 | 403)
            || matches!(code, "AccessDeniedException" | "AccessDenied" | "AuthFailure")
        {
            Some(AwsErrorKind::Permission)
        } else if THROTTLING_CODES.contains(&code) {
            Some(AwsErrorKind::Throttled)
        } else if code.contains("LimitExceeded") {
            Some(AwsErrorKind::ServiceLimitExceeded)
        } else if code == "ValidationError" {
            Some(AwsErrorKind::Validation)
        } else {
            None
        }
    }
}

/// The error codes that the AWS SDKs treat as throttling, except `LimitExceededException`, which means a quota in one
/// of the services used here.
const THROTTLING_CODES: [&str; 13] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];
