//! Deadlines for single requests to the API server: the client has none, and a connection that was dropped in silence
//! would hold a worker, its key and all that waits for it for as long as TCP tries.

use std::{future::Future, time::Duration};

const DEADLINE: Duration = Duration::from_secs(10);

/// The API server's answer, or an error when there is none in time; the request may have taken effect all the same.
pub(crate) async fn with_deadline<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    within(DEADLINE, request).await
}

async fn within<T>(deadline: Duration, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    tokio::time::timeout(deadline, request).await.unwrap_or_else(|_| {
        let text = format!("no answer from the API server within {} s", deadline.as_secs_f64());
        Err(kube::Error::Service(text.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_without_an_answer_ends() {
        assert_eq!(within(DEADLINE, async { Ok(1) }).await.unwrap(), 1);
        let silent = within(Duration::from_millis(1), std::future::pending::<kube::Result<()>>());
        insta::assert_snapshot!(silent.await.unwrap_err(), @"ServiceError: no answer from the API server within 0.001 s");
    }
}
