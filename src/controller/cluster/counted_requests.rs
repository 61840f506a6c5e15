//! The requests to the API server, counted for the metrics.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::http::{Request, Response};
use tower::{Layer, Service};

use crate::controller::runtime::metrics::Metrics;

/// The layer of a client that counts its requests.
#[derive(Clone)]
pub(crate) struct CountedRequests {
    metrics: Arc<Metrics>,
}

impl CountedRequests {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        Self { metrics: Arc::clone(metrics) }
    }
}

impl<S> Layer<S> for CountedRequests {
    type Service = CountedClient<S>;

    fn layer(&self, inner: S) -> CountedClient<S> {
        CountedClient { inner, metrics: Arc::clone(&self.metrics) }
    }
}

/// A client whose requests are counted.
#[derive(Clone)]
pub(crate) struct CountedClient<S> {
    inner: S,
    metrics: Arc<Metrics>,
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
        let metrics = Arc::clone(&self.metrics);
        let method = request.method().clone();
        let host = request.uri().authority().map(|host| host.as_str().to_owned()).unwrap_or_default();
        let answering = self.inner.call(request);
        Box::pin(async move {
            let answer = answering.await;
            let status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            metrics.api_request(&host, method.as_str(), status);
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
            "/gone" => Ok(Response::builder().status(StatusCode::NOT_FOUND).body(()).unwrap()),
            _ => Ok(Response::new(())),
        });
        let mut client = CountedRequests::new(&metrics).layer(inner);
        for (method, path) in [("GET", "/here"), ("GET", "/here"), ("PATCH", "/gone"), ("GET", "/away")] {
            let request = Request::builder().method(method).uri(format!("https://10.0.0.1:6443{path}"));
            let _ = client.call(request.body(()).unwrap()).await;
        }
        let text = metrics.encode().unwrap();
        let mut counted: Vec<&str> =
            text.lines().filter(|line| line.starts_with("rest_client_requests_total")).collect();
        counted.sort_unstable();
        let expected = [
            r#"rest_client_requests_total{code="200",method="GET",host="10.0.0.1:6443"} 2"#,
            r#"rest_client_requests_total{code="404",method="PATCH",host="10.0.0.1:6443"} 1"#,
            r#"rest_client_requests_total{code="<error>",method="GET",host="10.0.0.1:6443"} 1"#,
        ];
        assert_eq!(counted, expected);
    }
}
