//! The requests to the API server, counted for the metrics.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::http::{Method, Request, Response, Uri};
use tower::{Layer, Service};

use crate::controller::runtime::metrics::Metrics;

/// The layer of a client that counts its requests.
#[derive(Clone)]
pub(crate) struct CountedRequests {
    metrics: Arc<Metrics>,
    host: Arc<str>,
}

impl CountedRequests {
    /// Returns the layer of a client of the API server at this URL; a request names only its path.
    pub(crate) fn new(metrics: &Arc<Metrics>, url: &Uri) -> Self {
        let host = url.authority().map(|host| host.as_str()).unwrap_or_default();
        Self { metrics: Arc::clone(metrics), host: host.into() }
    }
}

impl<S> Layer<S> for CountedRequests {
    type Service = CountedClient<S>;

    fn layer(&self, inner: S) -> CountedClient<S> {
        CountedClient { inner, counts: self.clone() }
    }
}

/// A client whose requests are counted.
#[derive(Clone)]
pub(crate) struct CountedClient<S> {
    inner: S,
    counts: CountedRequests,
}

/// A request without an answer yet. It is counted when this is dropped, also where its caller does not wait any longer.
struct Asking {
    counts: CountedRequests,
    method: Method,
    status: Option<u16>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.counts.metrics.api_request(&self.counts.host, self.method.as_str(), self.status);
    }
}

impl<S, Q, B> Service<Request<Q>> for CountedClient<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let asking = Asking { counts: self.counts.clone(), method: request.method().clone(), status: None };
        let answering = self.inner.call(request);
        Box::pin(async move {
            // The whole of it, so that it is dropped with this future.
            let mut asking = asking;
            let answer = answering.await;
            asking.status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use tower::service_fn;

    use super::*;

    #[tokio::test]
    async fn requests_are_counted_by_their_answers() {
        let metrics = Arc::new(Metrics::new());
        let inner = service_fn(async |request: Request<()>| match request.uri().path() {
            "/away" => Err("connection refused"),
            "/slow" => std::future::pending().await,
            "/gone" => Ok(Response::builder().status(StatusCode::NOT_FOUND).body(()).unwrap()),
            _ => Ok(Response::new(())),
        });
        let url = Uri::from_static("https://10.0.0.1:6443/cluster");
        let mut client = CountedRequests::new(&metrics, &url).layer(inner);
        for (method, path) in
            [("GET", "/here"), ("GET", "/here"), ("PATCH", "/gone"), ("GET", "/away"), ("PUT", "/slow")]
        {
            let answering = client.call(Request::builder().method(method).uri(path).body(()).unwrap());
            let _ = tokio::time::timeout(std::time::Duration::from_millis(10), answering).await;
        }
        let text = metrics.encode().unwrap();
        let mut counted: Vec<&str> =
            text.lines().filter(|line| line.starts_with("rest_client_requests_total")).collect();
        counted.sort_unstable();
        let expected = [
            r#"rest_client_requests_total{code="200",method="GET",host="10.0.0.1:6443"} 2"#,
            r#"rest_client_requests_total{code="404",method="PATCH",host="10.0.0.1:6443"} 1"#,
            r#"rest_client_requests_total{code="<error>",method="GET",host="10.0.0.1:6443"} 1"#,
            r#"rest_client_requests_total{code="<error>",method="PUT",host="10.0.0.1:6443"} 1"#,
        ];
        assert_eq!(counted, expected);
    }
}
