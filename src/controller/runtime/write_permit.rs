//! The right to change something, and a client of the API server that sends no write without it.

use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{Request, Response};
use futures::future::BoxFuture;
use kube::client::Body;
use tokio::sync::watch;

use super::lease::{Leadership, Moment, Tenure};

/// The right to change something: one term of the lease, for as long as the lease is renewed. Work that goes on after the
/// term's end, however late, has lost it for good, also where this process leads again.
pub(crate) struct WritePermit {
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// Until when the lease is held by the clock; `None` without election.
    tenure: Option<Arc<Tenure>>,
    /// The lease's epoch, once the term has begun.
    term: OnceLock<i32>,
}

impl WritePermit {
    pub(crate) fn new(leadership: watch::Receiver<Leadership>, tenure: Option<Arc<Tenure>>) -> Self {
        Self { leadership, tenure, term: OnceLock::new() }
    }

    /// Begins the term. Only the first call counts.
    pub(crate) fn begin(&self, term: i32) {
        let _ = self.term.set(term);
    }

    /// Whether something may be changed at this moment.
    pub(crate) fn holds(&self) -> bool {
        self.left().is_some()
    }

    /// For how long a write that begins at this moment may take: it has to end before another process may take the lease.
    /// `None` where nothing may be written.
    pub(crate) fn left(&self) -> Option<Duration> {
        let term = *self.term.get()?;
        if *self.leadership.borrow() != (Leadership::Leader { epoch: term }) {
            return None;
        }
        match &self.tenure {
            Some(tenure) => tenure.left(term, Moment::now()),
            None => Some(Duration::MAX),
        }
    }
}

/// Why a write to the API server was not sent, or not waited for.
#[derive(Debug, thiserror::Error)]
enum FenceError {
    #[error("not sent: this process does not hold the lease, and another replica may lead")]
    Withheld,
    #[error("no answer within the {} s for which the lease was certain; the write may have taken effect", .0.as_secs())]
    Unanswered(Duration),
}

/// Sends through a client; writes only under a mandate.
#[derive(Clone)]
struct Fenced {
    client: kube::Client,
    write_permit: Arc<WritePermit>,
}

impl tower::Service<Request<Body>> for Fenced {
    type Response = Response<Body>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { client, write_permit } = self.clone();
        Box::pin(async move {
            if request.method().is_safe() {
                return client.send(request).await.map_err(Into::into);
            }
            let left = write_permit.left().ok_or(FenceError::Withheld)?;
            match tokio::time::timeout(left, client.send(request)).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Err(FenceError::Unanswered(left).into()),
            }
        })
    }
}

/// The same way to the API server, on which no write is sent without the mandate, and none is waited for past the moment at
/// which another process may take the lease.
pub(crate) fn fenced(client: kube::Client, write_permit: &Arc<WritePermit>) -> kube::Client {
    let namespace = client.default_namespace().to_owned();
    kube::Client::new(Fenced { client, write_permit: Arc::clone(write_permit) }, namespace)
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

    fn held(term: i32) -> (watch::Sender<Leadership>, Arc<Tenure>, Arc<WritePermit>) {
        let (sender, leads) = watch::channel(Leadership::Leader { epoch: term });
        let tenure = Arc::new(Tenure::new(TIMING));
        tenure.renew(term, Moment::now());
        let write_permit = Arc::new(WritePermit::new(leads, Some(Arc::clone(&tenure))));
        (sender, tenure, write_permit)
    }

    #[test]
    fn a_term_that_has_ended_does_not_begin_again() {
        let (leadership, leads) = watch::channel(Leadership::Leader { epoch: 3 });
        let write_permit = WritePermit::new(leads, None);
        assert!(!write_permit.holds(), "its term has not begun");
        write_permit.begin(3);
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
        let (_leadership, tenure, write_permit) = held(3);
        write_permit.begin(3);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(write_permit.left(), Some(Duration::from_secs(6)));
        // Nobody has run to say that it does not lead any more.
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(*write_permit.leadership.borrow(), Leadership::Leader { epoch: 3 });
        assert_eq!(write_permit.left(), None);
        tenure.renew(3, Moment::now());
        // The wall clock is not paused.
        let left = write_permit.left().expect("a mandate");
        assert!(left > Duration::from_secs(14) && left <= Duration::from_secs(15), "{left:?}");
        tenure.renew(4, Moment::now());
        assert_eq!(write_permit.left(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_write_to_the_api_server_outlives_the_lease_and_reads_go_on() {
        let (_leadership, _tenure, write_permit) = held(3);
        let silent = Router::new().fallback(any(|request: axum::extract::Request| async move {
            if request.method().is_safe() { "{\"metadata\":{}}" } else { std::future::pending().await }
        }));
        let api: Api<ConfigMap> =
            Api::namespaced(fenced(kube::Client::new(silent, "default"), &write_permit), "default");
        let create = async || {
            let begun = tokio::time::Instant::now();
            let result = api.create(&PostParams::default(), &ConfigMap::default()).await;
            let error = crate::controller::cluster::kubernetes::describe(&result.unwrap_err());
            (error, begun.elapsed().as_secs())
        };
        let not_sent = "not sent: this process does not hold the lease, and another replica may lead".to_owned();
        assert_eq!(create().await, (not_sent.clone(), 0), "its term has not begun");
        write_permit.begin(3);
        tokio::time::advance(Duration::from_secs(9)).await;
        let unanswered = "no answer within the 6 s for which the lease was certain; the write may have taken effect";
        assert_eq!(create().await, (unanswered.to_owned(), 6));
        assert_eq!(create().await, (not_sent, 0));
        assert!(api.get("records").await.is_ok());
    }
}
