//! The metrics of the work queue, with the names, labels and buckets of client-go's `workqueue` and of
//! controller-runtime.
//!
//! There is one queue for all controllers, so both labels name the controller of a key.

use std::{collections::BTreeMap, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use albatross_core::{dependents::Key, model::StackId};

/// The controllers, as aws-load-balancer-controller names them in metrics.
const CONTROLLERS: [&str; 3] = ["ingress", "service", "targetGroupBinding"];

/// Returns the name of the controller that a key belongs to in metrics.
pub fn controller_of(key: &Key) -> &'static str {
    match key {
        Key::Stack(StackId::Service(_)) => "service",
        Key::Stack(StackId::Group(_) | StackId::Ingress(_)) | Key::BackendSecurityGroup => "ingress",
        Key::Binding(_) | Key::NodeRules => "targetGroupBinding",
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfQueue {
    name: &'static str,
    controller: &'static str,
}

impl OfQueue {
    fn of(controller: &'static str) -> Self {
        Self { name: controller, controller }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfController {
    controller: &'static str,
}

/// The metrics of a queue; clones share them.
#[derive(Clone, Debug)]
pub struct QueueMetrics {
    adds: Family<OfQueue, Counter>,
    retries: Family<OfQueue, Counter>,
    depth: Family<OfQueue, Gauge>,
    waited: Family<OfQueue, Histogram>,
    worked: Family<OfQueue, Histogram>,
    unfinished: Family<OfQueue, Gauge<f64, AtomicU64>>,
    longest: Family<OfQueue, Gauge<f64, AtomicU64>>,
    active: Family<OfController, Gauge>,
}

/// The keys of one controller at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueueSize {
    /// The keys that are due and wait for a worker.
    pub waiting: usize,
    /// The keys that are running.
    pub running: usize,
    /// The time for which they have run, in total.
    pub unfinished: Duration,
    /// The time for which the longest of them has run.
    pub longest: Duration,
}

impl Default for QueueMetrics {
    fn default() -> Self {
        // From 10 ns to 1,000 s.
        let durations = || Histogram::new(exponential_buckets(10e-9, 10.0, 12));
        Self {
            adds: Family::default(),
            retries: Family::default(),
            depth: Family::default(),
            waited: Family::new_with_constructor(durations),
            worked: Family::new_with_constructor(durations),
            unfinished: Family::default(),
            longest: Family::default(),
            active: Family::default(),
        }
    }
}

impl QueueMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("workqueue_adds", "Keys that became due, by controller", self.adds.clone());
        registry.register("workqueue_depth", "Keys that are due and wait for a worker", self.depth.clone());
        registry.register(
            "workqueue_queue_duration_seconds",
            "Seconds for which a key that was due waited for a worker",
            self.waited.clone(),
        );
        registry.register(
            "workqueue_work_duration_seconds",
            "Seconds that a pass over a key took",
            self.worked.clone(),
        );
        registry.register(
            "workqueue_retries",
            "Passes that are repeated because they failed or because AWS was not ready",
            self.retries.clone(),
        );
        registry.register(
            "workqueue_unfinished_work_seconds",
            "Seconds for which the keys that are running have run, in total",
            self.unfinished.clone(),
        );
        registry.register(
            "workqueue_longest_running_processor_seconds",
            "Seconds for which the longest running pass has run",
            self.longest.clone(),
        );
        registry.register("controller_runtime_active_workers", "Keys that are running", self.active.clone());
    }

    /// Counts a key that became due.
    pub fn added(&self, key: &Key) {
        self.adds.get_or_create(&OfQueue::of(controller_of(key))).inc();
    }

    /// Records the time for which a key waited until a worker took it.
    pub fn taken(&self, key: &Key, waited: Duration) {
        self.waited.get_or_create(&OfQueue::of(controller_of(key))).observe(waited.as_secs_f64());
    }

    /// Records the duration of a pass, and if it is to be repeated.
    pub fn worked(&self, key: &Key, took: Duration, is_retried: bool) {
        let queue = OfQueue::of(controller_of(key));
        self.worked.get_or_create(&queue).observe(took.as_secs_f64());
        self.retries.get_or_create(&queue).inc_by(u64::from(is_retried));
    }

    /// Sets the metrics that show the queue's state: of every controller, also of one without keys.
    pub fn measured(&self, sizes: &BTreeMap<&'static str, QueueSize>) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for controller in CONTROLLERS {
            let size = sizes.get(controller).copied().unwrap_or_default();
            let queue = OfQueue::of(controller);
            self.depth.get_or_create(&queue).set(count(size.waiting));
            self.unfinished.get_or_create(&queue).set(size.unfinished.as_secs_f64());
            self.longest.get_or_create(&queue).set(size.longest.as_secs_f64());
            self.active.get_or_create(&OfController { controller }).set(count(size.running));
        }
    }
}
