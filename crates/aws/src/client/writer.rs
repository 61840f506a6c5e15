//! The client of calls that change something.

use std::{error::Error, ops::Deref, sync::Arc};

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::{AwsReader, TRIES};
use crate::{AwsError, AwsErrorKind, WritePermit, calls::watched};

/// The way to AWS for calls that change something. There is none without a permit, and each attempt at a call asks for it.
#[derive(Clone, Debug)]
pub struct AwsWriter {
    reader: Arc<AwsReader>,
    permit: WritePermit,
}

/// A writer reads, too.
impl Deref for AwsWriter {
    type Target = AwsReader;

    fn deref(&self) -> &AwsReader {
        &self.reader
    }
}

impl AwsWriter {
    /// Writes through the clients and the budgets of `reader`, for as long as the permit holds.
    #[must_use]
    pub fn new(reader: Arc<AwsReader>, permit: WritePermit) -> Self {
        Self { reader, permit }
    }

    /// The clients that it writes through.
    #[must_use]
    pub fn reader(&self) -> &Arc<AwsReader> {
        &self.reader
    }

    /// The permit under which it writes.
    #[must_use]
    pub fn permit(&self) -> &WritePermit {
        &self.permit
    }

    /// Makes a call that changes something. It is repeated only where AWS says that it has not begun with it. The permit is
    /// asked before each attempt for how long the lease is certain: so long the attempt is waited for at most.
    pub(crate) async fn write<T, E, F>(&self, operation: &'static str, call: impl Fn() -> F) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let again = |kind: &AwsErrorKind| matches!(kind, AwsErrorKind::Throttled { .. });
        let attempts = self.reader.attempts(operation, call, TRIES, || self.permit.left(), again);
        watched(self.reader.observer.as_ref(), operation, attempts).await
    }
}
