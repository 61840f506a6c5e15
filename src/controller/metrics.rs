//! What is counted and measured, for Prometheus.
//!
//! Where aws-load-balancer-controller has a metric of the same meaning, its name and labels are used, so that dashboards
//! and alerts keep working. Ours begin with `albatross_`.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::aws::CallObserver;

/// The content type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds of a stage of a reconcile: from reading a cache to waiting for AWS.
const STAGE_SECONDS: [f64; 12] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Upper bounds in seconds of one call of AWS. The Go client's default buckets, and one more.
const CALL_SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// All metrics of the process. Cheap to record to, from any thread.
pub struct Metrics {
    registry: Registry,
    reconcile_errors: Family<ReconcileError, Counter>,
    reconcile_stages: Family<ReconcileStage, Histogram>,
    aws_calls: Family<AwsCall, Counter>,
    aws_call_durations: Family<AwsOperation, Histogram>,
    aws_permission_errors: Family<AwsCall, Counter>,
    aws_service_limit_exceeded_errors: Family<AwsCall, Counter>,
    aws_throttled_errors: Family<AwsCall, Counter>,
    aws_validation_errors: Family<AwsCall, Counter>,
    budget_rates: Family<BudgetClass, Gauge<f64, AtomicU64>>,
    budget_waits: Family<BudgetClass, Counter<f64, AtomicU64>>,
    budget_throttles: Family<BudgetClass, Counter>,
    queue_depth: Gauge,
    plan_steps: Family<PlanStep, Counter>,
    leader: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReconcileError {
    controller: String,
    error_category: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReconcileStage {
    controller: String,
    reconcile_stage: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AwsOperation {
    service: String,
    operation: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BudgetClass {
    class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PlanStep {
    action: String,
}

/// One call of an AWS API and how it ended, as [`CallObserver`] tells it; the error code is empty on success.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AwsCall {
    service: String,
    operation: String,
    status_code: u16,
    error_code: String,
}

/// The kinds of failed calls that have a metric of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AwsErrorKind {
    Permission,
    Throttled,
    ServiceLimitExceeded,
    Validation,
}

impl AwsCall {
    /// What kind of failure the call is, if it is one of those counted.
    ///
    /// Throttling is looked for first: LBC counts EC2's `RequestLimitExceeded`, a throttle, as a service limit.
    fn error_kind(&self) -> Option<AwsErrorKind> {
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

/// The error codes that the AWS SDKs take for throttling, without `LimitExceededException`, which of the services used
/// here means a quota.
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

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that are all zero or, with labels, absent.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            reconcile_errors: Family::default(),
            reconcile_stages: Family::new_with_constructor(|| Histogram::new(STAGE_SECONDS)),
            aws_calls: Family::default(),
            aws_call_durations: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
            aws_permission_errors: Family::default(),
            aws_service_limit_exceeded_errors: Family::default(),
            aws_throttled_errors: Family::default(),
            aws_validation_errors: Family::default(),
            budget_rates: Family::default(),
            budget_waits: Family::default(),
            budget_throttles: Family::default(),
            queue_depth: Gauge::default(),
            plan_steps: Family::default(),
            leader: Gauge::default(),
        };
        // The encoder appends `_total` to the names of counters and a full stop to descriptions.
        let registry = &mut metrics.registry;
        registry.register(
            "awslbc_controller_reconcile_errors",
            "Errors while reconciling, by what failed",
            metrics.reconcile_errors.clone(),
        );
        registry.register(
            "awslbc_controller_reconcile_stage_duration",
            "Seconds that a stage of a reconcile took",
            metrics.reconcile_stages.clone(),
        );
        registry.register(
            "aws_api_calls",
            "Calls of AWS APIs, a retry counting as another call",
            metrics.aws_calls.clone(),
        );
        registry.register(
            "aws_api_call_duration_seconds",
            "Seconds until an AWS API answered a call",
            metrics.aws_call_durations.clone(),
        );
        registry.register(
            "aws_api_call_permission_errors",
            "Calls of AWS APIs that the IAM policy does not allow",
            metrics.aws_permission_errors.clone(),
        );
        registry.register(
            "aws_api_call_service_limit_exceeded_errors",
            "Calls of AWS APIs that a quota of the account does not allow",
            metrics.aws_service_limit_exceeded_errors.clone(),
        );
        registry.register(
            "aws_api_call_throttled_errors",
            "Calls of AWS APIs that were throttled",
            metrics.aws_throttled_errors.clone(),
        );
        registry.register(
            "aws_api_call_validation_errors",
            "Calls of AWS APIs that were refused as invalid",
            metrics.aws_validation_errors.clone(),
        );
        registry.register(
            "albatross_aws_budget_rate",
            "Calls of AWS a second that a class of calls had at its last call; absent where that was no limit",
            metrics.budget_rates.clone(),
        );
        registry.register(
            "albatross_aws_budget_waited_seconds",
            "Seconds that calls of AWS have waited for their turn",
            metrics.budget_waits.clone(),
        );
        registry.register(
            "albatross_aws_budget_throttles",
            "Calls of AWS that were throttled, by the class that AWS counts them in",
            metrics.budget_throttles.clone(),
        );
        registry.register(
            "albatross_queue_depth",
            "Keys that are due and wait for a worker",
            metrics.queue_depth.clone(),
        );
        registry.register(
            "albatross_plan_steps",
            "Steps of plans that were carried out, by action",
            metrics.plan_steps.clone(),
        );
        registry.register("albatross_leader", "1 while this process is the leader, else 0", metrics.leader.clone());
        metrics
    }

    /// Counts an error of a controller (`ingress`, `targetGroupBinding`, …), by category (`build_model_error`, …).
    pub fn reconcile_error(&self, controller: &str, category: &str) {
        self.reconcile_errors
            .get_or_create(&ReconcileError { controller: controller.to_owned(), error_category: category.to_owned() })
            .inc();
    }

    /// Records how long a stage (`build_model`, `deploy_model`, …) of a controller's reconcile took.
    pub fn reconcile_stage(&self, controller: &str, stage: &str, took: Duration) {
        self.reconcile_stages
            .get_or_create(&ReconcileStage { controller: controller.to_owned(), reconcile_stage: stage.to_owned() })
            .observe(took.as_secs_f64());
    }

    /// Counts a call of AWS, also by kind when it failed, and records how long it took.
    fn aws_call(&self, call: &AwsCall, seconds: f64) {
        self.aws_calls.get_or_create(call).inc();
        self.aws_call_durations
            .get_or_create(&AwsOperation { service: call.service.clone(), operation: call.operation.clone() })
            .observe(seconds);
        let errors = match call.error_kind() {
            Some(AwsErrorKind::Permission) => &self.aws_permission_errors,
            Some(AwsErrorKind::Throttled) => &self.aws_throttled_errors,
            Some(AwsErrorKind::ServiceLimitExceeded) => &self.aws_service_limit_exceeded_errors,
            Some(AwsErrorKind::Validation) => &self.aws_validation_errors,
            None => return,
        };
        errors.get_or_create(call).inc();
    }

    /// Records one pass over a key of a controller: how long it took, as the stage `reconcile`, and whether it failed.
    pub fn reconciled(&self, controller: &str, took: Duration, failed: bool) {
        self.reconcile_stage(controller, "reconcile", took);
        if failed {
            self.reconcile_error(controller, "reconcile_error");
        }
    }

    /// Sets the number of keys that are due and wait for a worker.
    pub fn queue_depth(&self, depth: usize) {
        self.queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// Counts a step of a plan, by action.
    pub fn plan_step(&self, action: &str) {
        self.plan_steps.get_or_create(&PlanStep { action: action.to_owned() }).inc();
    }

    /// Sets whether this process is the leader.
    pub fn leader(&self, leader: bool) {
        self.leader.set(i64::from(leader));
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl CallObserver for Metrics {
    fn call(&self, service: &str, operation: &str, seconds: f64, result: Result<(), (u16, &str)>) {
        let (status_code, error_code) = result.err().unwrap_or((200, ""));
        let call = AwsCall {
            service: service.to_owned(),
            operation: operation.to_owned(),
            status_code,
            error_code: error_code.to_owned(),
        };
        self.aws_call(&call, seconds);
    }

    fn budget(&self, class: &'static str, rate: Option<f64>, seconds_waited: f64, throttled: bool) {
        let class = BudgetClass { class };
        match rate {
            Some(rate) => {
                self.budget_rates.get_or_create(&class).set(rate);
            }
            None => {
                self.budget_rates.remove(&class);
            }
        }
        self.budget_waits.get_or_create(&class).inc_by(seconds_waited);
        self.budget_throttles.get_or_create(&class).inc_by(u64::from(throttled));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(status_code: u16, error_code: &str) -> AwsCall {
        AwsCall {
            service: "EC2".to_owned(),
            operation: "DescribeSubnets".to_owned(),
            status_code,
            error_code: error_code.to_owned(),
        }
    }

    #[test]
    fn exposition() {
        let metrics = Metrics::new();
        metrics.reconcile_error("ingress", "build_model_error");
        metrics.reconcile_stage("ingress", "build_model", Duration::from_millis(20));
        metrics.call("EC2", "DescribeSubnets", 0.25, Ok(()));
        metrics.call("EC2", "DescribeSubnets", 16.0, Ok(()));
        for failure in [
            (403, "UnauthorizedOperation"),
            (503, "RequestLimitExceeded"),
            (400, "RulesPerSecurityGroupLimitExceeded"),
            (400, "ValidationError"),
        ] {
            metrics.call("EC2", "DescribeSubnets", 0.25, Err(failure));
        }
        metrics.budget("elb_writes", Some(3.5), 0.0, true);
        metrics.budget("elb_writes", Some(3.25), 1.5, false);
        metrics.queue_depth(3);
        metrics.plan_step("CreateRule");
        metrics.leader(true);
        // Label sets come in any order, and a few of the buckets show enough.
        let text = metrics.encode().unwrap();
        let mut lines: Vec<&str> = text
            .lines()
            .filter(|line| {
                !line.contains("_bucket{") || ["\"0.05\"", "\"0.25\"", "\"+Inf\""].iter().any(|le| line.contains(le))
            })
            .collect();
        lines
            .chunk_by_mut(|one, other| {
                one.starts_with("aws_api_calls_total") && other.starts_with("aws_api_calls_total")
            })
            .for_each(<[_]>::sort_unstable);
        insta::assert_snapshot!(lines.join("\n"), @r#"
        # HELP awslbc_controller_reconcile_errors Errors while reconciling, by what failed.
        # TYPE awslbc_controller_reconcile_errors counter
        awslbc_controller_reconcile_errors_total{controller="ingress",error_category="build_model_error"} 1
        # HELP awslbc_controller_reconcile_stage_duration Seconds that a stage of a reconcile took.
        # TYPE awslbc_controller_reconcile_stage_duration histogram
        awslbc_controller_reconcile_stage_duration_sum{controller="ingress",reconcile_stage="build_model"} 0.02
        awslbc_controller_reconcile_stage_duration_count{controller="ingress",reconcile_stage="build_model"} 1
        awslbc_controller_reconcile_stage_duration_bucket{le="0.05",controller="ingress",reconcile_stage="build_model"} 1
        awslbc_controller_reconcile_stage_duration_bucket{le="+Inf",controller="ingress",reconcile_stage="build_model"} 1
        # HELP aws_api_calls Calls of AWS APIs, a retry counting as another call.
        # TYPE aws_api_calls counter
        aws_api_calls_total{service="EC2",operation="DescribeSubnets",status_code="200",error_code=""} 2
        aws_api_calls_total{service="EC2",operation="DescribeSubnets",status_code="400",error_code="RulesPerSecurityGroupLimitExceeded"} 1
        aws_api_calls_total{service="EC2",operation="DescribeSubnets",status_code="400",error_code="ValidationError"} 1
        aws_api_calls_total{service="EC2",operation="DescribeSubnets",status_code="403",error_code="UnauthorizedOperation"} 1
        aws_api_calls_total{service="EC2",operation="DescribeSubnets",status_code="503",error_code="RequestLimitExceeded"} 1
        # HELP aws_api_call_duration_seconds Seconds until an AWS API answered a call.
        # TYPE aws_api_call_duration_seconds histogram
        aws_api_call_duration_seconds_sum{service="EC2",operation="DescribeSubnets"} 17.25
        aws_api_call_duration_seconds_count{service="EC2",operation="DescribeSubnets"} 6
        aws_api_call_duration_seconds_bucket{le="0.05",service="EC2",operation="DescribeSubnets"} 0
        aws_api_call_duration_seconds_bucket{le="0.25",service="EC2",operation="DescribeSubnets"} 5
        aws_api_call_duration_seconds_bucket{le="+Inf",service="EC2",operation="DescribeSubnets"} 6
        # HELP aws_api_call_permission_errors Calls of AWS APIs that the IAM policy does not allow.
        # TYPE aws_api_call_permission_errors counter
        aws_api_call_permission_errors_total{service="EC2",operation="DescribeSubnets",status_code="403",error_code="UnauthorizedOperation"} 1
        # HELP aws_api_call_service_limit_exceeded_errors Calls of AWS APIs that a quota of the account does not allow.
        # TYPE aws_api_call_service_limit_exceeded_errors counter
        aws_api_call_service_limit_exceeded_errors_total{service="EC2",operation="DescribeSubnets",status_code="400",error_code="RulesPerSecurityGroupLimitExceeded"} 1
        # HELP aws_api_call_throttled_errors Calls of AWS APIs that were throttled.
        # TYPE aws_api_call_throttled_errors counter
        aws_api_call_throttled_errors_total{service="EC2",operation="DescribeSubnets",status_code="503",error_code="RequestLimitExceeded"} 1
        # HELP aws_api_call_validation_errors Calls of AWS APIs that were refused as invalid.
        # TYPE aws_api_call_validation_errors counter
        aws_api_call_validation_errors_total{service="EC2",operation="DescribeSubnets",status_code="400",error_code="ValidationError"} 1
        # HELP albatross_aws_budget_rate Calls of AWS a second that a class of calls had at its last call; absent where that was no limit.
        # TYPE albatross_aws_budget_rate gauge
        albatross_aws_budget_rate{class="elb_writes"} 3.25
        # HELP albatross_aws_budget_waited_seconds Seconds that calls of AWS have waited for their turn.
        # TYPE albatross_aws_budget_waited_seconds counter
        albatross_aws_budget_waited_seconds_total{class="elb_writes"} 1.5
        # HELP albatross_aws_budget_throttles Calls of AWS that were throttled, by the class that AWS counts them in.
        # TYPE albatross_aws_budget_throttles counter
        albatross_aws_budget_throttles_total{class="elb_writes"} 1
        # HELP albatross_queue_depth Keys that are due and wait for a worker.
        # TYPE albatross_queue_depth gauge
        albatross_queue_depth 3
        # HELP albatross_plan_steps Steps of plans that were carried out, by action.
        # TYPE albatross_plan_steps counter
        albatross_plan_steps_total{action="CreateRule"} 1
        # HELP albatross_leader 1 while this process is the leader, else 0.
        # TYPE albatross_leader gauge
        albatross_leader 1
        # EOF
        "#);
    }

    #[test]
    fn a_budget_without_a_limit_has_no_rate() {
        let metrics = Metrics::new();
        for (rate, shown) in [(None, false), (Some(9.0), true), (None, false)] {
            metrics.budget("elb_reads", rate, 0.0, false);
            assert_eq!(metrics.encode().unwrap().contains("albatross_aws_budget_rate{"), shown, "{rate:?}");
        }
    }

    #[test]
    fn a_pass_over_a_key() {
        let metrics = Metrics::new();
        metrics.reconciled("ingress", Duration::from_secs(2), false);
        metrics.reconciled("ingress", Duration::from_secs(1), true);
        let text = metrics.encode().unwrap();
        for line in [
            r#"awslbc_controller_reconcile_errors_total{controller="ingress",error_category="reconcile_error"} 1"#,
            r#"awslbc_controller_reconcile_stage_duration_sum{controller="ingress",reconcile_stage="reconcile"} 3.0"#,
            r#"awslbc_controller_reconcile_stage_duration_count{controller="ingress",reconcile_stage="reconcile"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn kinds_of_errors() {
        let cases = [
            (200, "", None),
            (0, "", None),
            (400, "TargetGroupNotFound", None),
            (401, "", Some(AwsErrorKind::Permission)),
            (403, "UnauthorizedOperation", Some(AwsErrorKind::Permission)),
            (400, "AccessDeniedException", Some(AwsErrorKind::Permission)),
            (400, "AuthFailure", Some(AwsErrorKind::Permission)),
            (400, "Throttling", Some(AwsErrorKind::Throttled)),
            (503, "RequestLimitExceeded", Some(AwsErrorKind::Throttled)),
            (400, "LimitExceededException", Some(AwsErrorKind::ServiceLimitExceeded)),
            (400, "VpcLimitExceeded", Some(AwsErrorKind::ServiceLimitExceeded)),
            (400, "ValidationError", Some(AwsErrorKind::Validation)),
        ];
        for (status, code, expected) in cases {
            assert_eq!(call(status, code).error_kind(), expected, "{status} {code}");
        }
    }
}
