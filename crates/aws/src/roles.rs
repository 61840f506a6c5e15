//! Roles in other accounts: for each one a client with its credentials, a budget of calls of its own, and the targets of its
//! target groups.

mod assumed;

pub(crate) use assumed::{AssumedRole, Pauses};

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use albatross_core::{
    model::VpcId,
    targets::role::{Role, session_name},
};

use super::{AwsError, AwsReader, AwsWriter, CallObserver, Inventory, RequestResult, WritePermit};

/// The most roles whose clients are kept. The one that was used longest ago is dropped; its next use costs a call of STS and
/// reads of its target groups.
const MAX_ROLES: usize = 100;
/// The least age of a session that is given up when it can do no more.
const SESSION_KEPT: Duration = Duration::from_secs(300);

/// The observer of a role's calls, whose budget is not the account's.
pub(crate) struct OfRole(pub(crate) Arc<dyn CallObserver>);

impl CallObserver for OfRole {
    fn request(&self, service: &str, operation: &str, seconds: f64, result: RequestResult<'_>) {
        self.0.request(service, operation, seconds, result);
    }

    fn call(&self, service: &str, operation: &str, seconds: f64, retries: u32, result: RequestResult<'_>) {
        self.0.call(service, operation, seconds, retries, result);
    }
}

/// The clients of all roles that bindings name.
pub struct Roles {
    reader: Arc<AwsReader>,
    cluster: String,
    vpc: VpcId,
    /// The last used one comes last.
    kept: Mutex<Vec<(Role, Arc<RoleClient>)>>,
    pauses: Arc<Pauses>,
}

/// A role's client, and the known targets of the target groups that it is for.
pub struct RoleClient {
    /// The client. Its calls wait in a budget of their own, so that another account's throttling holds up no calls of this one.
    pub aws: Arc<AwsReader>,
    /// The inventory of which only targets are used: nothing is listed in another account.
    pub inventory: Inventory,
    created: Instant,
}

impl RoleClient {
    /// Returns the client with the right to change something.
    #[must_use]
    pub fn writer(&self, permit: &WritePermit) -> AwsWriter {
        AwsWriter::new(Arc::clone(&self.aws), permit.clone())
    }
}

impl Roles {
    /// Creates the clients of roles at their first use, which assume them with the credentials of `reader`.
    #[must_use]
    pub fn new(reader: Arc<AwsReader>, cluster: &str, vpc: &VpcId) -> Self {
        Self { reader, cluster: cluster.to_owned(), vpc: vpc.clone(), kept: Mutex::default(), pauses: Arc::default() }
    }

    /// Returns the client of a role.
    #[must_use]
    pub fn client(&self, role: &Role) -> Arc<RoleClient> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match kept.iter().position(|(known, _)| known == role) {
            Some(at) => kept.remove(at).1,
            None => Arc::new(self.create(role)),
        };
        kept.push((role.clone(), Arc::clone(&client)));
        if kept.len() > MAX_ROLES {
            kept.remove(0);
        }
        client
    }

    /// Has the role assumed anew before its next call if the answer says that a permission is missing, or that AWS does not accept the
    /// session: the sessions of a role can be revoked, and what a new session may do then is another matter. A client that is new
    /// itself is kept.
    pub fn drop_ended_session<T>(&self, role: &Role, answer: &Result<T, AwsError>) {
        if answer.as_ref().is_err_and(AwsError::ends_session) {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|(known, client)| known != role || client.created.elapsed() < SESSION_KEPT);
        }
    }

    fn create(&self, role: &Role) -> RoleClient {
        let aws = Arc::new(self.reader.in_role(role, &session_name(&self.cluster), &self.pauses));
        let inventory = Inventory::new(Arc::clone(&aws), &self.cluster, self.vpc.clone());
        RoleClient { aws, inventory, created: Instant::now() }
    }
}

#[cfg(test)]
mod tests;
