//! The term of the lease, which issues the permit to write, and a client of the API server that needs a permit for each
//! write.

use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{Request, Response};
use futures::future::BoxFuture;
use kube::client::Body;
use tokio::sync::watch;

use albatross_aws::{LeaderTerm, WritePermit};

use super::lease::{Leadership, Moment, Tenure};

/// One term of the lease, which lasts as long as the lease is renewed. Work that outlives its term can never write
/// again, even if this process leads again.
pub(crate) struct Term {
    leadership: watch::Receiver<Leadership>,
    /// The time until which the lease is held by the clock; `None` without leader election.
    tenure: Option<Arc<Tenure>>,
    /// The lease's epoch, once the term has begun.
    epoch: OnceLock<i32>,
}

impl Term {
    pub(crate) fn new(leadership: watch::Receiver<Leadership>, tenure: Option<Arc<Tenure>>) -> Arc<Self> {
        Arc::new(Self { leadership, tenure, epoch: OnceLock::new() })
    }

    /// Returns the channel that publishes the current leadership.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Begins the term. Only the first call has an effect.
    pub(crate) fn begin(&self, epoch: i32) {
        let _ = self.epoch.set(epoch);
    }

    /// Returns the permit to write in this term.
    #[expect(clippy::disallowed_methods, reason = "this is where the lease is held")]
    pub(crate) fn permit(self: &Arc<Self>) -> WritePermit {
        WritePermit::of_term(Arc::clone(self) as _)
    }
}

impl LeaderTerm for Term {
    fn left(&self) -> Option<Duration> {
        let epoch = *self.epoch.get()?;
        if *self.leadership.borrow() != (Leadership::Leader { epoch }) {
            return None;
        }
        match &self.tenure {
            Some(tenure) => tenure.left(epoch, Moment::now()),
            None => Some(Duration::MAX),
        }
    }
}

/// The reason why a write to the API server was not sent, or its answer not awaited.
#[derive(Debug, thiserror::Error)]
enum FenceError {
    #[error("not sent: this process does not hold the lease, and another replica may lead")]
    Withheld,
    #[error("no answer within the {} s for which the lease was certain; the write may have taken effect", .0.as_secs())]
    Unanswered(Duration),
}

/// A service that sends through a client, and writes only under a permit.
#[derive(Clone)]
struct Fenced {
    client: kube::Client,
    permit: WritePermit,
}

impl tower::Service<Request<Body>> for Fenced {
    type Response = Response<Body>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { client, permit } = self.clone();
        Box::pin(async move {
            if request.method().is_safe() {
                return client.send(request).await.map_err(Into::into);
            }
            let left = permit.left().ok_or(FenceError::Withheld)?;
            match tokio::time::timeout(left, client.send(request)).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Err(FenceError::Unanswered(left).into()),
            }
        })
    }
}

/// The client of the API server for writes. It cannot be created without a permit: no write is sent after the permit
/// has ended, and no answer is awaited beyond the time at which another process may take the lease.
#[derive(Clone)]
pub struct WriteClient(kube::Client);

impl WriteClient {
    /// Creates a client that sends writes as long as the permit holds.
    #[must_use]
    pub fn new(client: kube::Client, permit: WritePermit) -> Self {
        let namespace = client.default_namespace().to_owned();
        Self(kube::Client::new(Fenced { client, permit }, namespace))
    }

    /// Returns the client, whose writes need the permit.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::any};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Api, api::PostParams};

    use super::*;
    use crate::controller::runtime::lease::Timing;

    const TIMING: Timing = Timing {
        lease_duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
        standby_period: Duration::from_secs(1),
    };

    fn held(epoch: i32) -> (watch::Sender<Leadership>, Arc<Tenure>, Arc<Term>) {
        let (sender, leads) = watch::channel(Leadership::Leader { epoch });
        let tenure = Arc::new(Tenure::new(TIMING));
        tenure.renew(epoch, Moment::now());
        let term = Term::new(leads, Some(Arc::clone(&tenure)));
        (sender, tenure, term)
    }

    #[test]
    fn a_term_that_has_ended_does_not_begin_again() {
        let (leadership, leads) = watch::channel(Leadership::Leader { epoch: 3 });
        let term = Term::new(leads, None);
        let write_permit = term.permit();
        assert!(!write_permit.holds(), "its term has not begun");
        term.begin(3);
        assert!(write_permit.holds());
        for (after, holds) in [
            (Leadership::Standby, false),
            (Leadership::Leader { epoch: 4 }, false),
            (Leadership::Leader { epoch: 3 }, true),
        ] {
            leadership.send_replace(after);
            assert_eq!(write_permit.holds(), holds, "{after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_frozen_may_not_write_before_it_has_renewed_the_lease() {
        let (_leadership, tenure, term) = held(3);
        let write_permit = term.permit();
        term.begin(3);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(write_permit.left(), Some(Duration::from_secs(6)));
        // No task has run yet to publish the loss of the lease.
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(*term.leadership.borrow(), Leadership::Leader { epoch: 3 });
        assert_eq!(write_permit.left(), None);
        tenure.renew(3, Moment::now());
        // The test does not pause the wall clock.
        let left = write_permit.left().expect("a permit");
        assert!(left > Duration::from_secs(14) && left <= Duration::from_secs(15), "{left:?}");
        tenure.renew(4, Moment::now());
        assert_eq!(write_permit.left(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_write_to_the_api_server_outlives_the_lease_and_reads_go_on() {
        let (_leadership, _tenure, term) = held(3);
        let silent = Router::new().fallback(any(|request: axum::extract::Request| async move {
            if request.method().is_safe() { "{\"metadata\":{}}" } else { std::future::pending().await }
        }));
        let api: Api<ConfigMap> =
            Api::namespaced(WriteClient::new(kube::Client::new(silent, "default"), term.permit()).client(), "default");
        let create = async || {
            let begun = tokio::time::Instant::now();
            let result = api.create(&PostParams::default(), &ConfigMap::default()).await;
            let error = crate::controller::cluster::kubernetes::describe(&result.unwrap_err());
            (error, begun.elapsed().as_secs())
        };
        let not_sent = "not sent: this process does not hold the lease, and another replica may lead".to_owned();
        assert_eq!(create().await, (not_sent.clone(), 0), "its term has not begun");
        term.begin(3);
        tokio::time::advance(Duration::from_secs(9)).await;
        let unanswered = "no answer within the 6 s for which the lease was certain; the write may have taken effect";
        assert_eq!(create().await, (unanswered.to_owned(), 6));
        assert_eq!(create().await, (not_sent, 0));
        assert!(api.get("records").await.is_ok());
    }
}
