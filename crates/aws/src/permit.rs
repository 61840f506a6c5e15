//! The right to change something in AWS or in the cluster.

use std::{fmt, sync::Arc, time::Duration};

use super::{AwsError, AwsErrorKind};

/// One term as the leader, as its lease knows it.
pub trait LeaderTerm: Send + Sync + 'static {
    /// Returns for how long a write that begins at this moment may take: it has to end before another process may lead. `None`
    /// before the term, from its end on, and while a renewal is late.
    fn left(&self) -> Option<Duration>;
}

/// The right to change something, without which there is no [`AwsWriter`](crate::AwsWriter). It comes from the term of a
/// lease, which is asked right before each change. It answers no before the term, from its end on, and while a renewal
/// is late.
#[derive(Clone)]
pub struct WritePermit(Arc<dyn LeaderTerm>);

impl fmt::Debug for WritePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WritePermit").field(&self.left()).finish()
    }
}

/// The term of a process that no other takes turns with.
struct NoElection;

impl LeaderTerm for NoElection {
    fn left(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }
}

impl WritePermit {
    /// Returns the permit of a term. The lint `disallowed_methods` allows it where the lease is held, and nowhere else.
    #[must_use]
    pub fn of_term(term: Arc<dyn LeaderTerm>) -> Self {
        Self(term)
    }

    /// Returns a permit that never ends: for a command that runs as a single process and takes no part in an election, and for
    /// tests.
    #[must_use]
    pub fn without_election() -> Self {
        Self(Arc::new(NoElection))
    }

    /// Returns for how long a write that begins at this moment may take; `None` where nothing may be written.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.0.left()
    }

    /// Returns true if the controller may write at this moment.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.left().is_some()
    }

    /// Checks that an operation may begin at this moment.
    ///
    /// # Errors
    /// Returns [`AwsErrorKind::Withheld`] while the permit does not hold, as the call itself would.
    pub fn check(&self, operation: &'static str) -> Result<(), AwsError> {
        if self.holds() { Ok(()) } else { Err(AwsError { operation, kind: AwsErrorKind::Withheld }) }
    }
}
