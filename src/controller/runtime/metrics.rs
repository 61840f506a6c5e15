//! The metrics, for Prometheus.
//!
//! A metric that aws-load-balancer-controller has with the same meaning has its name and labels, so that dashboards and
//! alerts keep working. The names of the others begin with `albatross_`.

mod labels;
mod process;
mod queue;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use albatross_aws::{CallObserver, RequestResult};

pub use self::labels::TargetGroupInfo;
pub use self::queue::{QueueMetrics, QueueSize, controller_of};
use self::{
    labels::{
        ApiRequest, AwsCall, AwsErrorKind, AwsOperation, Binding, BudgetClass, OfController, OfKind, OfName,
        OfResource, OfWebhook, PlanStep, ReconcileError, ReconcileResult, ReconcileStage, Talker, WebhookFailure,
        WebhookRequest,
    },
    process::ProcessMetrics,
};

/// The content type of the text of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The upper bounds, in seconds, of the duration of a stage of a reconcile: from reading a cache to waiting for AWS.
const STAGE_SECONDS: [f64; 12] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// The upper bounds, in seconds, of the duration of one AWS call: the default buckets of the Go client, and one more.
const CALL_SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The upper bounds, in seconds, of the time until a webhook has answered: the default buckets of the Go client.
const WEBHOOK_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The upper bounds, in seconds, of the time until a target that departs is deregistered.
const DEREGISTRATION_SECONDS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// The upper bounds of the number of retries of a call.
const RETRIES: [f64; 11] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];

/// The upper bounds, in seconds, of the time that a pod waits at a readiness gate, the same as in
/// aws-load-balancer-controller.
const GATE_SECONDS: [f64; 11] = [10.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 420.0, 480.0, 600.0];

/// The metrics of the process. Recording is cheap and possible from any thread.
pub struct Metrics {
    registry: Registry,
    reconcile_errors: Family<ReconcileError, Counter>,
    reconcile_stages: Family<ReconcileStage, Histogram>,
    reconciles: Family<ReconcileResult, Counter>,
    reconcile_seconds: Family<OfController, Histogram>,
    failed_reconciles: Family<OfController, Counter>,
    queue: QueueMetrics,
    api_requests: Family<ApiRequest, Counter>,
    cached: Family<OfResource, Gauge>,
    top_talkers: Family<Talker, Gauge>,
    talks: Mutex<Talks>,
    target_groups: Family<TargetGroupInfo, Gauge>,
    aws_calls: Family<AwsCall, Counter>,
    aws_call_durations: Family<AwsOperation, Histogram>,
    aws_call_retries: Family<AwsOperation, Histogram>,
    aws_requests: Family<AwsCall, Counter>,
    aws_request_durations: Family<AwsOperation, Histogram>,
    aws_permission_errors: Family<AwsCall, Counter>,
    aws_service_limit_exceeded_errors: Family<AwsCall, Counter>,
    aws_throttled_errors: Family<AwsCall, Counter>,
    aws_validation_errors: Family<AwsCall, Counter>,
    budget_rates: Family<BudgetClass, Gauge<f64, AtomicU64>>,
    budget_waits: Family<BudgetClass, Counter<f64, AtomicU64>>,
    budget_throttles: Family<BudgetClass, Counter>,
    queue_depth: Gauge,
    deregistrations: Histogram,
    events_dropped: Counter,
    watch_silent: Family<OfKind, Gauge>,
    webhook_denials: Family<WebhookFailure, Counter>,
    webhook_requests: Family<WebhookRequest, Counter>,
    webhook_seconds: Family<OfWebhook, Histogram>,
    webhooks_in_flight: Family<OfWebhook, Gauge>,
    plan_steps: Family<PlanStep, Counter>,
    drift_steps: Family<PlanStep, Counter>,
    repeated_steps: Family<PlanStep, Counter>,
    deletions_blocked: Gauge,
    leader: Gauge,
    master: Family<OfName, Gauge>,
    lease: String,
    readiness_gates: Family<Binding, Histogram>,
    without_server_id: Family<Binding, Gauge>,
}

/// The number of passes over each object since a moment.
#[derive(Debug)]
struct Talks {
    since: Instant,
    counts: HashMap<Talker, i64>,
}

/// The time for which passes over objects are counted, and the number of objects that are shown.
const TALK_WINDOW: Duration = Duration::from_secs(180);
const TOP: usize = 3;

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Returns metrics in their initial state: zero, or absent if they have labels.
    pub fn new() -> Self {
        Self::of_lease("")
    }

    /// Returns metrics in their initial state, with the name of the leader election's lease.
    pub fn of_lease(lease: &str) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            reconcile_errors: Family::default(),
            reconcile_stages: Family::new_with_constructor(|| Histogram::new(STAGE_SECONDS)),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(|| Histogram::new(STAGE_SECONDS)),
            failed_reconciles: Family::default(),
            queue: QueueMetrics::default(),
            api_requests: Family::default(),
            cached: Family::default(),
            top_talkers: Family::default(),
            talks: Mutex::new(Talks { since: Instant::now(), counts: HashMap::new() }),
            target_groups: Family::default(),
            aws_calls: Family::default(),
            aws_call_durations: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
            aws_call_retries: Family::new_with_constructor(|| Histogram::new(RETRIES)),
            aws_requests: Family::default(),
            aws_request_durations: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
            aws_permission_errors: Family::default(),
            aws_service_limit_exceeded_errors: Family::default(),
            aws_throttled_errors: Family::default(),
            aws_validation_errors: Family::default(),
            budget_rates: Family::default(),
            budget_waits: Family::default(),
            budget_throttles: Family::default(),
            queue_depth: Gauge::default(),
            deregistrations: Histogram::new(DEREGISTRATION_SECONDS),
            events_dropped: Counter::default(),
            watch_silent: Family::default(),
            webhook_denials: Family::default(),
            webhook_requests: Family::default(),
            webhook_seconds: Family::new_with_constructor(|| Histogram::new(WEBHOOK_SECONDS)),
            webhooks_in_flight: Family::default(),
            plan_steps: Family::default(),
            drift_steps: Family::default(),
            repeated_steps: Family::default(),
            deletions_blocked: Gauge::default(),
            leader: Gauge::default(),
            master: Family::default(),
            lease: lease.to_owned(),
            readiness_gates: Family::new_with_constructor(|| Histogram::new(GATE_SECONDS)),
            without_server_id: Family::default(),
        };
        // The encoder appends `_total` to the names of counters and a full stop to descriptions.
        metrics.register_passes();
        metrics.register_aws();
        metrics.register_controller();
        metrics.register_program();
        metrics
    }

    /// Registers the metrics of passes and of the objects that they are about.
    fn register_passes(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "awslbc_controller_reconcile_errors",
            "Errors while reconciling, by what failed",
            self.reconcile_errors.clone(),
        );
        registry.register(
            "awslbc_controller_reconcile_stage_duration",
            "Seconds that a stage of a reconcile took",
            self.reconcile_stages.clone(),
        );
        registry.register(
            "controller_runtime_reconcile",
            "Passes over objects, by how they ended",
            self.reconciles.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_time_seconds",
            "Seconds that a pass over an object took",
            self.reconcile_seconds.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_errors",
            "Passes over objects that ended with an error",
            self.failed_reconciles.clone(),
        );
        // The name ends in `_total` although the metric is a gauge, as in aws-load-balancer-controller.
        registry.register(
            "awslbc_controller_cache_object_total",
            "Objects of the cluster that are known",
            self.cached.clone(),
        );
        registry.register(
            "awslbc_controller_top_talkers",
            "Passes over the objects that were worked on most, in the last full three minutes",
            self.top_talkers.clone(),
        );
        registry.register("aws_target_group_info", "1 for each target group of a binding", self.target_groups.clone());
    }

    /// Registers the metrics of calls to AWS.
    fn register_aws(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "aws_api_calls",
            "Calls of AWS APIs, by how their last request ended",
            self.aws_calls.clone(),
        );
        registry.register(
            "aws_api_call_duration_seconds",
            "Seconds that a call of an AWS API took, with its retries and waits",
            self.aws_call_durations.clone(),
        );
        registry.register(
            "aws_api_call_retries",
            "Requests of a call of an AWS API beyond the first",
            self.aws_call_retries.clone(),
        );
        registry.register("aws_api_requests", "Requests to AWS APIs", self.aws_requests.clone());
        registry.register(
            "aws_api_request_duration_seconds",
            "Seconds until an AWS API answered a request",
            self.aws_request_durations.clone(),
        );
        registry.register(
            "aws_api_call_permission_errors",
            "Requests to AWS APIs that the IAM policy does not allow",
            self.aws_permission_errors.clone(),
        );
        registry.register(
            "aws_api_call_service_limit_exceeded_errors",
            "Requests to AWS APIs that a quota of the account does not allow",
            self.aws_service_limit_exceeded_errors.clone(),
        );
        registry.register(
            "aws_api_call_throttled_errors",
            "Requests to AWS APIs that were throttled",
            self.aws_throttled_errors.clone(),
        );
        registry.register(
            "aws_api_call_validation_errors",
            "Requests to AWS APIs that were refused as invalid",
            self.aws_validation_errors.clone(),
        );
        registry.register(
            "albatross_aws_budget_rate",
            "Calls of AWS a second that a class of calls had at its last call; absent where that was no limit",
            self.budget_rates.clone(),
        );
        registry.register(
            "albatross_aws_budget_waited_seconds",
            "Seconds that calls of AWS have waited for their turn",
            self.budget_waits.clone(),
        );
        registry.register(
            "albatross_aws_budget_throttles",
            "Calls of AWS that were throttled, by the class that AWS counts them in",
            self.budget_throttles.clone(),
        );
    }

    /// Registers the metrics of the controller's own state and actions.
    fn register_controller(&mut self) {
        let registry = &mut self.registry;
        registry.register("albatross_queue_depth", "Keys that are due and wait for a worker", self.queue_depth.clone());
        registry.register(
            "albatross_deregistration_seconds",
            "Seconds from a change by which a target departs until AWS has accepted its deregistration",
            self.deregistrations.clone(),
        );
        registry.register(
            "albatross_events_dropped",
            "Kubernetes events that were not written: an object had too many, or too many waited",
            self.events_dropped.clone(),
        );
        registry.register(
            "albatross_watch_silent_seconds",
            "Seconds since the API server last answered the watch of a kind: an event, a bookmark, a list or its end",
            self.watch_silent.clone(),
        );
        registry.register(
            "albatross_plan_steps",
            "Steps of plans that were carried out, by action",
            self.plan_steps.clone(),
        );
        registry.register(
            "awslbc_webhook_validation_failure",
            "Objects that a webhook has not admitted",
            self.webhook_denials.clone(),
        );
        registry.register(
            "albatross_drift_steps",
            "Steps that corrected changes found in AWS when it was compared again, by action",
            self.drift_steps.clone(),
        );
        registry.register(
            "albatross_repeated_steps",
            "Steps that were planned again after they were carried out, and now wait, by action",
            self.repeated_steps.clone(),
        );
        registry.register(
            "albatross_deletion_blocked",
            "Ingress groups and Services with a deletion that AWS does not carry out, and that was reported",
            self.deletions_blocked.clone(),
        );
        registry.register("albatross_leader", "1 while this process is the leader, else 0", self.leader.clone());
        registry.register(
            "leader_election_master_status",
            "1 while this process holds the lease, else 0",
            self.master.clone(),
        );
        registry.register(
            "awslbc_readiness_gate_ready_seconds",
            "Seconds that a pod waited at its readiness gate until AWS found it healthy",
            self.readiness_gates.clone(),
        );
        registry.register(
            "awslbc_quic_target_missing_server_id",
            "Pods that are not registered as targets of a binding because they have no QUIC server id; absent where there are none",
            self.without_server_id.clone(),
        );
        self.leader(false);
    }

    /// Registers the metrics that client-go, controller-runtime and Prometheus's library have for each program.
    fn register_program(&mut self) {
        let registry = &mut self.registry;
        self.queue.register(registry);
        registry.register(
            "rest_client_requests",
            "Requests to the API server, by the status of the answer",
            self.api_requests.clone(),
        );
        registry.register(
            "controller_runtime_webhook_requests",
            "Requests to the webhooks, by the status of the answer",
            self.webhook_requests.clone(),
        );
        registry.register(
            "controller_runtime_webhook_latency_seconds",
            "Seconds that a webhook took for an answer",
            self.webhook_seconds.clone(),
        );
        registry.register(
            "controller_runtime_webhook_requests_in_flight",
            "Requests that a webhook is answering",
            self.webhooks_in_flight.clone(),
        );
        registry.register_collector(Box::new(ProcessMetrics));
    }

    /// Returns the metrics of the queue.
    pub fn of_queue(&self) -> QueueMetrics {
        self.queue.clone()
    }

    /// Counts a request to the API server. There is no status if there was no answer.
    pub fn api_request(&self, host: &str, method: &str, status: Option<u16>) {
        let code = status.map_or_else(|| "<error>".to_owned(), |status| status.to_string());
        let request = ApiRequest { code, method: method.to_owned(), host: host.to_owned() };
        self.api_requests.get_or_create(&request).inc();
    }

    /// Counts a request that a webhook is answering, until its answer is given to [`AnsweringWebhook::answered`].
    pub fn webhook_asked(&self, path: &'static str) -> AnsweringWebhook<'_> {
        let in_flight = self.webhooks_in_flight.get_or_create(&OfWebhook { webhook: path }).clone();
        in_flight.inc();
        AnsweringWebhook { metrics: self, path, began: Instant::now(), in_flight }
    }

    /// Removes the metrics of a deleted TargetGroupBinding.
    pub fn remove_binding(&self, namespace: &str, name: &str) {
        let binding = Binding { namespace: namespace.to_owned(), name: name.to_owned() };
        self.readiness_gates.remove(&binding);
        self.without_server_id.remove(&binding);
    }

    /// Shows the number of pods that are no targets of a TargetGroupBinding because they have no QUIC server id.
    pub fn quic_targets_without_server_id(&self, namespace: &str, name: &str, pods: usize) {
        let binding = Binding { namespace: namespace.to_owned(), name: name.to_owned() };
        if pods == 0 {
            self.without_server_id.remove(&binding);
        } else {
            self.without_server_id.get_or_create(&binding).set(i64::try_from(pods).unwrap_or(i64::MAX));
        }
    }

    /// Records how long a pod waited at its readiness gate for a TargetGroupBinding.
    pub fn readiness_gate_ready(&self, namespace: &str, name: &str, waited: Duration) {
        let binding = Binding { namespace: namespace.to_owned(), name: name.to_owned() };
        self.readiness_gates.get_or_create(&binding).observe(waited.as_secs_f64());
    }

    /// Counts an error of a controller (`ingress`, `targetGroupBinding`, …), by category (`build_model_error`, …).
    pub fn reconcile_error(&self, controller: &str, category: &str) {
        self.reconcile_errors
            .get_or_create(&ReconcileError { controller: controller.to_owned(), error_category: category.to_owned() })
            .inc();
    }

    /// Records the duration of a stage (`build_model`, `deploy_model`, …) of a controller's reconcile.
    pub fn reconcile_stage(&self, controller: &str, stage: &str, took: Duration) {
        self.reconcile_stages
            .get_or_create(&ReconcileStage { controller: controller.to_owned(), reconcile_stage: stage.to_owned() })
            .observe(took.as_secs_f64());
    }

    /// Counts a request to AWS, a failed one also by kind, and records its duration.
    fn aws_request(&self, request: &AwsCall, seconds: f64) {
        self.aws_requests.get_or_create(request).inc();
        self.aws_request_durations
            .get_or_create(&AwsOperation { service: request.service.clone(), operation: request.operation.clone() })
            .observe(seconds);
        let errors = match request.error_kind() {
            Some(AwsErrorKind::Permission) => &self.aws_permission_errors,
            Some(AwsErrorKind::Throttled) => &self.aws_throttled_errors,
            Some(AwsErrorKind::ServiceLimitExceeded) => &self.aws_service_limit_exceeded_errors,
            Some(AwsErrorKind::Validation) => &self.aws_validation_errors,
            None => return,
        };
        errors.get_or_create(request).inc();
    }

    /// Records one pass over a key of a controller: its duration and its result (`success`, `error`, `requeue_after`).
    /// `object` is the namespace and name of its object, if it has one.
    pub fn reconciled(
        &self,
        controller: &'static str,
        object: Option<(&str, &str)>,
        took: Duration,
        result: &'static str,
    ) {
        self.reconcile_stage(controller, "reconcile", took);
        self.reconciles.get_or_create(&ReconcileResult { controller, result }).inc();
        self.failed_reconciles.get_or_create(&OfController { controller }).inc_by(u64::from(result == "error"));
        self.reconcile_seconds.get_or_create(&OfController { controller }).observe(took.as_secs_f64());
        if let Some((namespace, name)) = object {
            self.talk(Talker { controller, namespace: namespace.to_owned(), name: name.to_owned() }, Instant::now());
        }
    }

    fn talk(&self, talker: Talker, now: Instant) {
        let mut talks = self.talks.lock().unwrap_or_else(PoisonError::into_inner);
        self.end_window(&mut talks, now);
        *talks.counts.entry(talker).or_default() += 1;
    }

    /// Publishes the objects with the most passes, once the counting window has ended.
    fn end_window(&self, talks: &mut Talks, now: Instant) {
        let over = now.duration_since(talks.since);
        if over < TALK_WINDOW {
            return;
        }
        self.top_talkers.clear();
        // After a longer time without a pass, the last window has no passes.
        if over < TALK_WINDOW * 2 {
            let mut all: Vec<(&Talker, &i64)> = talks.counts.iter().collect();
            all.sort_by(|one, other| other.1.cmp(one.1).then_with(|| one.0.cmp(other.0)));
            for (talker, count) in all.into_iter().take(TOP) {
                self.top_talkers.get_or_create(talker).set(*count);
            }
        }
        *talks = Talks { since: now, counts: HashMap::new() };
    }

    /// Sets the number of known objects of a kind (`ingress`, `service`, `targetgroupbinding`).
    pub fn cached(&self, resource: &'static str, objects: usize) {
        self.cached.get_or_create(&OfResource { resource }).set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    /// Sets the existing target groups.
    pub fn target_groups(&self, all: impl IntoIterator<Item = TargetGroupInfo>) {
        self.target_groups.clear();
        for info in all {
            self.target_groups.get_or_create(&info).set(1);
        }
    }

    /// Sets the number of keys that are due and wait for a worker.
    pub fn queue_depth(&self, depth: usize) {
        self.queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// Records the time from a change by which targets depart until AWS has accepted their deregistration.
    pub fn deregistered(&self, waited: Duration) {
        self.deregistrations.observe(waited.as_secs_f64());
    }

    /// Counts events that were not written.
    pub fn events_dropped(&self, events: u64) {
        self.events_dropped.inc_by(events);
    }

    /// Sets the time since the API server last answered the watch of a kind.
    pub fn watch_silent(&self, kind: &'static str, silent: Duration) {
        self.watch_silent.get_or_create(&OfKind { kind }).set(i64::try_from(silent.as_secs()).unwrap_or(i64::MAX));
    }

    /// Counts a step of a plan, by action.
    pub fn plan_step(&self, action: &str) {
        self.plan_steps.get_or_create(&PlanStep { action: action.to_owned() }).inc();
    }

    /// Counts an object that a webhook has rejected.
    pub fn webhook_denied(&self, webhook_name: &'static str) {
        self.webhook_denials.get_or_create(&WebhookFailure { webhook_name, error_category: "denied" }).inc();
    }

    /// Counts a step that corrected a change made in AWS by another party, by action.
    pub fn drift_step(&self, action: &str) {
        self.drift_steps.get_or_create(&PlanStep { action: action.to_owned() }).inc();
    }

    /// Counts a step that is planned again after it was carried out, by action.
    pub fn repeated_step(&self, action: &str) {
        self.repeated_steps.get_or_create(&PlanStep { action: action.to_owned() }).inc();
    }

    /// Sets the number of deletions that AWS does not carry out.
    pub fn deletions_blocked(&self, count: usize) {
        self.deletions_blocked.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the gauge that is 1 while this process is the leader.
    pub fn leader(&self, leader: bool) {
        self.leader.set(i64::from(leader));
        if !self.lease.is_empty() {
            self.master.get_or_create(&OfName { name: self.lease.clone() }).set(i64::from(leader));
        }
    }

    /// Returns all metrics in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        self.end_window(&mut self.talks.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// A request that a webhook is answering. It counts as in flight until this is dropped.
pub struct AnsweringWebhook<'m> {
    metrics: &'m Metrics,
    path: &'static str,
    began: Instant,
    in_flight: Gauge,
}

impl AnsweringWebhook<'_> {
    /// Records the status of the answer, and how long it took.
    pub fn answered(self, status: u16) {
        let webhook = self.path;
        self.metrics.webhook_requests.get_or_create(&WebhookRequest { webhook, code: status }).inc();
        self.metrics.webhook_seconds.get_or_create(&OfWebhook { webhook }).observe(self.began.elapsed().as_secs_f64());
    }
}

impl Drop for AnsweringWebhook<'_> {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

impl CallObserver for Metrics {
    fn request(&self, service: &str, operation: &str, seconds: f64, result: RequestResult<'_>) {
        self.aws_request(&AwsCall::of(service, operation, result), seconds);
    }

    fn call(&self, service: &str, operation: &str, seconds: f64, retries: u32, result: RequestResult<'_>) {
        self.aws_calls.get_or_create(&AwsCall::of(service, operation, result)).inc();
        let operation = AwsOperation { service: service.to_owned(), operation: operation.to_owned() };
        self.aws_call_durations.get_or_create(&operation).observe(seconds);
        self.aws_call_retries.get_or_create(&operation).observe(f64::from(retries));
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
mod tests;
