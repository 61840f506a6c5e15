//! The reasons why the controller cannot start.

use crate::controller::{
    runtime::{admin::AdminError, flags::FlagError},
    webhooks::WebhookError,
};
use albatross_aws::{AwsError, ConnectError, proxies::ProxyError};

/// The reason why the controller cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A flag cannot be used.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// There is neither a kubeconfig nor a ServiceAccount.
    #[error("no access to a cluster: {reason}; outside of a cluster set --kubeconfig or KUBECONFIG")]
    NoCluster {
        /// The attempts, each with the reason of its failure.
        reason: String,
    },
    /// The API server does not answer.
    #[error(
        "cannot reach the Kubernetes API server at {url}: {reason}; check the address in the kubeconfig, and that nothing blocks the connection"
    )]
    ApiServer {
        /// The address of the API server.
        url: String,
        /// The failure.
        reason: String,
    },
    /// The AWS clients cannot be set up.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// AWS refused a call that is needed to start.
    #[error("{error}{}", fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default())]
    Aws {
        /// The error.
        error: AwsError,
        /// The fix.
        fix: Option<String>,
    },
    /// An environment variable has a value that is not a valid proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The region is unknown.
    #[error("the AWS region is not known: {reason}; set --aws-region or AWS_REGION")]
    Region {
        /// The attempts.
        reason: String,
    },
    /// The VPC of the cluster is unknown.
    #[error("the VPC of the cluster is not known: {reason}; set --aws-vpc-id or --aws-vpc-tags")]
    Vpc {
        /// The attempts.
        reason: String,
    },
    /// A port is in use, or an address is not valid.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The webhooks cannot be served.
    #[error(transparent)]
    Webhooks(#[from] WebhookError),
    /// The lease was lost, so another replica may lead. The process continues as a standby.
    #[error("the lease was lost, so another replica may act now")]
    LeaseLost,
    /// The election has ended unexpectedly: the process ends, so that a new one takes part in the election.
    #[error("the leader election has ended by a fault of albatross, please report it; the process ends")]
    ElectionEnded,
    /// A task that should run as long as the process has ended: the process ends, so that a new one starts the task
    /// again.
    #[error("{task} has ended by a fault of albatross, please report it; the process ends")]
    TaskEnded {
        /// The name of the task.
        task: &'static str,
    },
}

pub(crate) fn aws_error(error: AwsError) -> StartError {
    StartError::Aws { fix: error.fix(), error }
}
