//! The time of the API server's last answer to the watch of each kind: taken where the answers arrive, because a watch of a
//! kind that does not change brings no event for hours. The server sends bookmarks about once a minute, and ends each watch
//! after five minutes at most, so that a longer silence is a watch that brings nothing any more.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Bytes, HttpBody},
    http::{Method, Request, Response, Uri},
};
use http_body::Frame;
use tokio::{sync::watch, time::Instant};
use tower::{Layer, Service};

/// Longer silence is a stall: what a server may take to end a watch that nothing happens on, and some more.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(330);
/// The interval at which a stall is repeated in the log.
const REPEAT_AFTER: Duration = Duration::from_secs(300);

/// Kinds that are watched, by the last part of the path of their lists.
const PLURALS: [(&str, &str); 9] = [
    ("ingresses", "Ingress"),
    ("ingressclasses", "IngressClass"),
    ("ingressclassparams", "IngressClassParams"),
    ("namespaces", "Namespace"),
    ("services", "Service"),
    ("endpointslices", "EndpointSlice"),
    ("pods", "Pod"),
    ("nodes", "Node"),
    ("targetgroupbindings", "TargetGroupBinding"),
];

#[derive(Clone, Debug)]
struct Watch {
    activity: Instant,
    reported: Option<Instant>,
    error: Option<String>,
}

/// When each kind was heard of.
#[derive(Clone, Debug, Default)]
pub struct WatchActivity {
    watches: Arc<Mutex<BTreeMap<&'static str, Watch>>>,
    /// Changes when the API server takes a request of a kind whose watch failed.
    works_again: watch::Sender<()>,
}

impl WatchActivity {
    fn watches(&self) -> MutexGuard<'_, BTreeMap<&'static str, Watch>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the silence of these kinds from now on.
    pub fn begin(&self, kinds: impl IntoIterator<Item = &'static str>) {
        let now = Instant::now();
        kinds.into_iter().for_each(|kind| self.answered(kind, now));
    }

    fn answered(&self, kind: &'static str, now: Instant) {
        self.watches().insert(kind, Watch { activity: now, reported: None, error: None });
    }

    /// Notes that the API server takes a request of a kind.
    fn taken(&self, kind: &'static str) {
        let error = self.watches().get_mut(kind).and_then(|watch| watch.error.take());
        if error.is_some() {
            self.works_again.send_replace(());
        }
    }

    /// Returns when a watch that failed is to be tried again: after the pause, or when the API server takes a request of
    /// another one that failed, as it is back for all then. Where kinds are seen at different times, one looks as if nothing
    /// had been done to it.
    pub async fn before_next_try(&self, pause: Duration) {
        let mut works_again = self.works_again.subscribe();
        // The sender lives as long as `self`, so waiting ends by an error only without it.
        let _ = tokio::time::timeout(pause, works_again.changed()).await;
    }

    /// Keeps the last error of a kind's watch, for the report of a stall.
    pub fn failed(&self, kind: &'static str, error: &str) {
        if let Some(watch) = self.watches().get_mut(kind) {
            watch.error = Some(error.to_owned());
        }
    }

    /// Returns the time for which each kind has been silent.
    #[must_use]
    pub fn silent(&self) -> BTreeMap<&'static str, Duration> {
        let now = Instant::now();
        self.watches().iter().map(|(kind, watch)| (*kind, now.duration_since(watch.activity))).collect()
    }

    /// A line for each kind whose watch has stalled, for `/readyz`.
    #[must_use]
    pub fn stalled(&self) -> Vec<String> {
        let now = Instant::now();
        self.watches().iter().filter_map(|(kind, watch)| stalled(kind, watch, now)).collect()
    }

    /// The lines of [`Self::stalled`] that the log has not had for five minutes.
    #[must_use]
    pub fn to_report(&self) -> Vec<String> {
        let now = Instant::now();
        let mut watches = self.watches();
        let due = watches
            .iter_mut()
            .filter(|(_, watch)| watch.reported.is_none_or(|at| now.duration_since(at) >= REPEAT_AFTER));
        due.filter_map(|(kind, watch)| {
            let line = stalled(kind, watch, now)?;
            watch.reported = Some(now);
            Some(line)
        })
        .collect()
    }
}

fn stalled(kind: &str, watch: &Watch, now: Instant) -> Option<String> {
    let silent = now.duration_since(watch.activity);
    let error = watch.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    (silent > STALLED_AFTER).then(|| {
        format!(
            "the watch of {kind} has had no answer from the API server for {} s, so changes of it are not seen{error}",
            silent.as_secs()
        )
    })
}

/// The kind whose objects a request lists or watches.
fn watched(method: &Method, uri: &Uri) -> Option<&'static str> {
    let lists = uri
        .query()
        .is_some_and(|query| query.split('&').any(|part| part.starts_with("watch=") || part.starts_with("limit=")));
    let plural = uri.path().rsplit('/').next()?;
    let kind = PLURALS.iter().find(|(name, _)| *name == plural).map(|(_, kind)| *kind);
    kind.filter(|_| method == Method::GET && lists)
}

impl<S> Layer<S> for WatchActivity {
    type Service = ObservedClient<S>;

    fn layer(&self, inner: S) -> ObservedClient<S> {
        ObservedClient { inner, activity: self.clone() }
    }
}

/// A client that listens to what the API server answers to watches and lists.
#[derive(Clone, Debug)]
pub struct ObservedClient<S> {
    inner: S,
    activity: WatchActivity,
}

impl<S, Q, B> Service<Request<Q>> for ObservedClient<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    type Response = Response<ObservedBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let kind = watched(request.method(), request.uri());
        let activity = self.activity.clone();
        let answering = self.inner.call(request);
        Box::pin(async move {
            let answer = answering.await?;
            let kind = kind.filter(|_| answer.status().is_success());
            kind.into_iter().for_each(|kind| activity.taken(kind));
            Ok(answer.map(|body| ObservedBody { body: Box::pin(body), kind, activity }))
        })
    }
}

/// The body of an answer; each part of it, and its regular end, is a sign of life.
#[derive(Debug)]
pub struct ObservedBody<B> {
    body: Pin<Box<B>>,
    kind: Option<&'static str>,
    activity: WatchActivity,
}

impl<B: HttpBody<Data = Bytes>> HttpBody for ObservedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = self.body.as_mut().poll_frame(context);
        if let (Poll::Ready(None | Some(Ok(_))), Some(kind)) = (&polled, self.kind) {
            self.activity.answered(kind, Instant::now());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn lists_and_watches_are_told_from_other_requests() {
        let cases = [
            ("/api/v1/pods?limit=200", Some("Pod")),
            ("/api/v1/namespaces/shop/pods?watch=true&timeoutSeconds=290&allowWatchBookmarks=true", Some("Pod")),
            ("/apis/networking.k8s.io/v1/ingresses?&limit=200&resourceVersion=0", Some("Ingress")),
            ("/apis/elbv2.k8s.aws/v1beta1/targetgroupbindings?watch=true", Some("TargetGroupBinding")),
            ("/api/v1/namespaces/shop/secrets?watch=true", None),
            ("/api/v1/namespaces/pods", None),
            ("/api/v1/namespaces/shop/services/web", None),
        ];
        for (uri, expected) in cases {
            assert_eq!(watched(&Method::GET, &uri.parse().unwrap()), expected, "{uri}");
        }
        assert_eq!(watched(&Method::POST, &"/api/v1/pods?limit=1".parse().unwrap()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_without_an_answer_is_reported_every_five_minutes_until_it_answers() {
        let activity = WatchActivity::default();
        activity.begin(["Pod", "Node"]);
        tokio::time::advance(Duration::from_secs(200)).await;
        activity.answered("Node", Instant::now());
        tokio::time::advance(Duration::from_secs(131)).await;
        activity.failed("Pod", "cannot watch Pod: connection refused");
        let line = |seconds: u64| {
            vec![format!(
                "the watch of Pod has had no answer from the API server for {seconds} s, so changes of it are not seen: \
                 cannot watch Pod: connection refused"
            )]
        };
        assert_eq!((activity.to_report(), activity.stalled()), (line(331), line(331)));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((activity.to_report(), activity.stalled()), (Vec::new(), line(391)));
        let seconds: BTreeMap<&str, u64> = activity.silent().into_iter().map(|(kind, d)| (kind, d.as_secs())).collect();
        assert_eq!(seconds, BTreeMap::from([("Node", 191), ("Pod", 391)]));
        activity.answered("Node", Instant::now());
        tokio::time::advance(Duration::from_secs(240)).await;
        assert_eq!(activity.to_report(), line(631));
        activity.answered("Pod", Instant::now());
        assert_eq!((activity.to_report(), activity.stalled()), (Vec::new(), Vec::new()));
    }

    /// A server that answers with this status and body.
    async fn asked(activity: &WatchActivity, uri: &str, status: u16, body: &'static str) {
        let server = tower::service_fn(move |_: Request<()>| async move {
            Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(Body::from(body)).unwrap())
        });
        let answer = activity.layer(server).call(Request::builder().uri(uri).body(()).unwrap()).await.unwrap();
        let mut body = answer.into_body();
        while std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await.is_some() {}
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_answers_ends_the_silence_and_an_error_does_not() {
        let activity = WatchActivity::default();
        activity.begin(["Pod"]);
        let hour = Duration::from_secs(3600);
        tokio::time::advance(hour).await;
        asked(&activity, "/api/v1/pods?watch=true", 503, "no").await;
        asked(&activity, "/api/v1/nodes?watch=true", 200, "").await;
        assert_eq!(activity.silent()["Pod"], hour);
        // The server's regular end of a watch on which nothing happened.
        asked(&activity, "/api/v1/pods?watch=true", 200, "").await;
        assert_eq!(activity.silent()["Pod"], Duration::ZERO);
        tokio::time::advance(hour).await;
        asked(&activity, "/api/v1/pods?watch=true", 200, "{}").await;
        assert_eq!(activity.silent()["Pod"], Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_failed_is_tried_again_when_the_server_takes_another_one_that_failed() {
        let (activity, pause, start) = (WatchActivity::default(), Duration::from_secs(5), Instant::now());
        activity.begin(["Pod", "Node"]);
        activity.before_next_try(pause).await;
        assert_eq!(start.elapsed(), pause);
        let waiting = tokio::spawn({
            let activity = activity.clone();
            async move { activity.before_next_try(pause).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        // This one has not failed: the server answers it as before.
        asked(&activity, "/api/v1/nodes?watch=true", 200, "").await;
        activity.failed("Pod", "cannot watch Pod: connection refused");
        tokio::time::sleep(Duration::from_secs(1)).await;
        asked(&activity, "/api/v1/pods?watch=true", 503, "").await;
        assert!(!waiting.is_finished());
        // Nothing has happened to a pod: the answer has no content yet.
        asked(&activity, "/api/v1/pods?watch=true", 200, "").await;
        waiting.await.unwrap();
        assert_eq!(start.elapsed(), pause + Duration::from_secs(2));
    }
}
