//! The reasons that the controller cannot start.

use crate::controller::{
    runtime::{admin::AdminError, flags::FlagError},
    webhooks::WebhookError,
};
use albatross_aws::{AwsError, ConnectError, proxies::ProxyError};

/// The reason that the controller cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A flag cannot be used.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// Neither a kubeconfig nor a ServiceAccount.
    #[error("no access to a cluster: {reason}; outside of a cluster set --kubeconfig or KUBECONFIG")]
    NoCluster {
        /// The attempts, and the reason that each failed.
        reason: String,
    },
    /// The API server does not answer.
    #[error(
        "cannot reach the Kubernetes API server at {url}: {reason}; check the address in the kubeconfig, and that nothing blocks the connection"
    )]
    ApiServer {
        /// Its address.
        url: String,
        /// The failure.
        reason: String,
    },
    /// AWS cannot be set up.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// AWS refused something that is needed to start.
    #[error("{error}{}", fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default())]
    Aws {
        /// The answer.
        error: AwsError,
        /// The fix.
        fix: Option<String>,
    },
    /// A variable names a proxy that is none.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The region is not known.
    #[error("the AWS region is not known: {reason}; set --aws-region or AWS_REGION")]
    Region {
        /// The attempts.
        reason: String,
    },
    /// The cluster's VPC is not known.
    #[error("the VPC of the cluster is not known: {reason}; set --aws-vpc-id or --aws-vpc-tags")]
    Vpc {
        /// The attempts.
        reason: String,
    },
    /// A port is taken, or an address is none.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The webhooks cannot be served.
    #[error(transparent)]
    Webhooks(#[from] WebhookError),
    /// Another replica may lead now. The process continues as a standby.
    #[error("the lease was lost, so another replica may act now")]
    LeaseLost,
    /// The election has ended by itself: the process ends, so that a new one takes part.
    #[error("the leader election has ended by a fault of albatross, please report it; the process ends")]
    ElectionEnded,
    /// A task that goes on for as long as the process has ended by itself: the process ends, so that a new one starts it again.
    #[error("{task} has ended by a fault of albatross, please report it; the process ends")]
    TaskEnded {
        /// The name of the task.
        task: &'static str,
    },
}

pub(crate) fn aws_error(error: AwsError) -> StartError {
    StartError::Aws { fix: error.fix(), error }
}
