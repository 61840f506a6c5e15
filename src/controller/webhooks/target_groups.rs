//! Reads of target groups for the webhook that fills in what new TargetGroupBindings leave out.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use albatross_aws::{AwsReader, Priority, Roles, with_priority};
use albatross_core::{
    admission::binding_defaults::{self, Lookup},
    api::admission::{AdmissionResponse, Request},
    model::VpcId,
};

/// The time for a read: the API server waits five seconds for the answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most reads at a time: whoever may create bindings, without storing them too, causes one each.
const AT_ONCE: usize = 4;

/// Reads target groups.
pub(crate) struct TargetGroups {
    aws: Arc<AwsReader>,
    roles: Roles,
    turns: Semaphore,
}

impl TargetGroups {
    pub(crate) fn new(aws: Arc<AwsReader>, cluster: &str, vpc: &VpcId) -> Self {
        let roles = Roles::new(Arc::clone(&aws), cluster, vpc);
        Self { aws, roles, turns: Semaphore::new(AT_ONCE) }
    }

    /// Returns the response to a request. A target group that cannot be read soon holds up nobody.
    pub(crate) async fn answer(&self, request: &Request) -> AdmissionResponse {
        let Some(lookup) = binding_defaults::lookup(request) else { return AdmissionResponse::allowed() };
        let Ok(_turn) = self.turns.try_acquire() else {
            return binding_defaults::unread("too many others are read at the moment");
        };
        // Who only tries to create bindings may not hold up what the controller has to do: it fills in the same later.
        let read = with_priority(Priority::Audit, self.read(&lookup));
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(Ok(found)) => binding_defaults::answer(request, &lookup, found.as_ref()),
            Ok(Err(error)) => {
                let fix = error.fix().map_or_else(String::new, |fix| format!("; {fix}"));
                binding_defaults::unread(&format!("{error}{fix}"))
            }
            Err(_) => binding_defaults::unread(&format!("AWS gave no answer within {} s", PATIENCE.as_secs())),
        }
    }

    async fn read(
        &self,
        lookup: &Lookup,
    ) -> Result<Option<albatross_core::targets::TargetGroupFacts>, albatross_aws::AwsError> {
        match &lookup.role {
            Some(role) => self.roles.client(role).aws.describe_target_group(&lookup.key).await,
            None => self.aws.describe_target_group(&lookup.key).await,
        }
    }
}
