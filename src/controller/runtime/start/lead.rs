//! The work during one term of the lease.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use super::{Settings, StartError, one_ended, until};
use crate::controller::{
    Controller,
    runtime::{lease::Leadership, metrics::Metrics, queue::Queue},
};
use albatross_core::{desired, model::StackId};

/// The time for running passes to end before the lease is released, within the termination grace period of a pod.
const DRAIN_DEADLINE: Duration = Duration::from_secs(7);
const FLUSH_DEADLINE: Duration = Duration::from_secs(3);

/// Works while this process leads and is not asked to stop.
///
/// # Errors
/// Returns [`StartError::LeaseLost`] when the term ends, and [`StartError::TaskEnded`] when the audit or the writer of
/// records ends; the controller of that term must not be used again.
pub async fn lead(
    controller: Arc<Controller>,
    settings: &Settings,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), StartError> {
    let mut leadership = controller.term.leadership();
    let until_stopped = stopped.clone();
    // The senders live in `run` and in the candidate, longer than this function runs.
    tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
        () = async {
            controller.synced.wait().await;
            tracing::info!("every kind has been listed");
            let _ = leadership.wait_for(|l| matches!(l, Leadership::Leader { .. })).await;
        } => {}
    }
    let Leadership::Leader { epoch: term } = *leadership.borrow() else { return Err(StartError::LeaseLost) };
    let over = |leadership: &Leadership| *leadership != Leadership::Leader { epoch: term };
    controller.term.begin(term);
    let _leads = Leads::begin(&controller.metrics);
    tokio::select! {
        () = until(&mut leadership, over) => return Err(StartError::LeaseLost),
        () = until(&mut stopped, |stopped| *stopped) => return Ok(()),
        loaded = controller.records.load(term) => {
            controller.inventory.add_records(loaded.clean);
            controller.inventory.add_remembered(loaded.remembered);
        }
    }
    let there: BTreeSet<StackId> = controller.with_snapshot(|snapshot| desired::possible_stacks(snapshot).collect());
    for (stack, ages) in controller.records.waits() {
        if there.contains(&stack) {
            controller.waits.restore(&stack, ages);
        }
    }
    controller.targets.begin(controller.records.terms());
    controller.queue.begin_term();
    controller.queue_everything();
    let workers = Queue::workers(settings.load_balancers_at_once, settings.bindings_at_once);
    let mut working = JoinSet::new();
    for _ in 0..workers {
        working.spawn(Arc::clone(&controller).work(until_stopped.clone()));
    }
    let mut background = JoinSet::new();
    background.spawn(Arc::clone(&controller).audit(settings.sync_period));
    background.spawn(Arc::clone(&controller).poll_certificates(settings.certificate_poll_interval));
    let keeper = Arc::clone(&controller);
    background.spawn(async move { keeper.records.keep_written().await });
    // The report ends by itself, and nothing depends on it.
    let mut reporting = JoinSet::new();
    let reporter = Arc::clone(&controller);
    reporting.spawn(async move { reporter.report_leftovers().await });
    tokio::select! {
        () = until(&mut leadership, over) => {
            // No other controller may take keys from the queue in the next term. A running pass can change nothing any
            // more.
            working.shutdown().await;
            background.shutdown().await;
            reporting.shutdown().await;
            Err(StartError::LeaseLost)
        }
        () = one_ended(&mut background) => Err(StartError::TaskEnded { task: "the audit, the poll of certificates, or the writer of records," }),
        () = until(&mut stopped, |stopped| *stopped) => {
            if tokio::time::timeout(DRAIN_DEADLINE, async { while working.join_next().await.is_some() {} }).await.is_err() {
                tracing::warn!("stopping in the middle of work; the next start continues it");
            }
            match tokio::time::timeout(FLUSH_DEADLINE, controller.records.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("{error}; the next start reads the state from AWS"),
                Err(_) => tracing::warn!(
                    "the records are not written: no answer from the API server within {} s; the next start reads the state \
                     from AWS",
                    FLUSH_DEADLINE.as_secs()
                ),
            }
            Ok(())
        }
    }
}

/// Sets the metric of leadership while it exists.
struct Leads<'a>(&'a Metrics);

impl<'a> Leads<'a> {
    fn begin(metrics: &'a Metrics) -> Self {
        metrics.leader(true);
        Self(metrics)
    }
}

impl Drop for Leads<'_> {
    fn drop(&mut self) {
        self.0.leader(false);
    }
}
