//! The AWS client for calls that change something.

use std::{error::Error, ops::Deref, sync::Arc};

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::{AwsReader, TRIES, is_add_on, is_outage};
use crate::{AwsError, AwsErrorKind, WritePermit, calls::watched, error::service_of};

/// The AWS client for calls that change something. It cannot be created without a permit, and it checks the permit
/// before each attempt.
#[derive(Clone, Debug)]
pub struct AwsWriter {
    reader: Arc<AwsReader>,
    permit: WritePermit,
}

/// A writer can make all calls of a reader.
impl Deref for AwsWriter {
    type Target = AwsReader;

    fn deref(&self) -> &AwsReader {
        &self.reader
    }
}

impl AwsWriter {
    /// Creates a writer with the clients and the budgets of `reader` that writes as long as the permit holds.
    #[must_use]
    pub fn new(reader: Arc<AwsReader>, permit: WritePermit) -> Self {
        Self { reader, permit }
    }

    /// Returns the clients that the writer uses.
    #[must_use]
    pub fn reader(&self) -> &Arc<AwsReader> {
        &self.reader
    }

    /// Returns the permit that the writer checks.
    #[must_use]
    pub fn permit(&self) -> &WritePermit {
        &self.permit
    }

    /// Makes a call that changes something. The call is retried only if AWS says that it has not begun with it. Before
    /// each attempt the permit returns the time for which the lease is certain, and the answer is awaited no longer
    /// than that.
    pub(crate) async fn write<T, E, F>(&self, operation: &'static str, call: impl Fn() -> F) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        self.write_of(operation, "", call).await
    }

    /// As [`Self::write`], of an add-on of this load balancer.
    pub(crate) async fn write_of<T, E, F>(
        &self,
        operation: &'static str,
        of: &str,
        call: impl Fn() -> F,
    ) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let again = |kind: &AwsErrorKind| matches!(kind, AwsErrorKind::Throttled { .. });
        if let Some(error) = self.reader.failure_of_late(operation, of) {
            return Err(self.reader.not_made(&error).unwrap_or(error));
        }
        let attempts = self.reader.attempts(operation, call, TRIES, || self.permit.left(), again);
        let answer = watched(self.reader.observer.as_ref(), operation, attempts).await;
        if is_add_on(service_of(operation)) {
            self.reader.note_failure(operation, of, answer.as_ref().err().filter(|error| is_outage(error)));
        }
        answer
    }
}
