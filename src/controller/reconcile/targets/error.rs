//! The errors of a binding, as its events and its status report them.

use std::fmt;

use albatross_aws::{AwsError, AwsErrorKind};
use albatross_core::model::{ObjectName, SecurityGroupId, Target, TargetGroupArn};

use super::{cluster::ClusterError, network_interfaces::NotLocated};
use albatross_core::targets::{
    binding_owners::Denied, endpoints::UnresolvableBinding, node_rules::InvalidNetworking, role::InvalidRole,
};

/// The maximum number of targets that a message lists.
const MAX_LISTED: usize = 5;

/// The stage of a pass over a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Adding the finalizer.
    AddFinalizer,
    /// Removing the finalizer.
    RemoveFinalizer,
    /// Registering and deregistering targets.
    Reconcile,
    /// Allowing the load balancer's traffic to nodes and pods.
    Network,
    /// Releasing the targets of a deleted binding.
    Cleanup,
    /// Writing the status.
    UpdateStatus,
    /// Writing or removing the checkpoint.
    WriteCheckpoint,
    /// Reading or writing the record of the targets that are the binding's own.
    Record,
    /// Writing the condition of a pod that waits at a readiness gate.
    UpdatePodStatus,
}

impl Stage {
    /// Returns the reason of the event about an error of this stage.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::AddFinalizer => "FailedAddFinalizer",
            Self::RemoveFinalizer => "FailedRemoveFinalizer",
            Self::Reconcile => "FailedReconcile",
            Self::Network => "FailedNetworkReconcile",
            Self::Cleanup => "FailedCleanup",
            Self::UpdateStatus => "FailedUpdateStatus",
            Self::WriteCheckpoint => "FailedWriteCheckpoint",
            Self::Record => "FailedRecordTargets",
            Self::UpdatePodStatus => "FailedUpdatePodStatus",
        }
    }
}

/// The object or resource of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A binding.
    Binding(ObjectName),
    /// A security group of nodes or pods, without a specific binding.
    SecurityGroup(SecurityGroupId),
    /// All rules on the security groups of nodes and pods.
    NodeRules,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binding(name) => write!(f, "TargetGroupBinding {name}"),
            Self::SecurityGroup(id) => write!(f, "security group {id}"),
            Self::NodeRules => f.write_str("rules on the security groups of nodes and pods"),
        }
    }
}

/// An error of a binding or of the node rules, with its subject and stage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {problem}")]
pub struct TargetsError {
    /// The subject of the error.
    pub subject: Subject,
    /// The stage in which the error occurred.
    pub stage: Stage,
    /// The problem.
    pub problem: Problem,
}

/// The problem of an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The binding names no target group.
    #[error("it names no target group")]
    NoTargetGroup,
    /// The target group of the binding does not exist.
    #[error("there is no target group `{0}` in this account and region")]
    TargetGroupMissing(String),
    /// The target group has a type that accepts neither pods nor nodes.
    #[error("the target group {arn} is of type {target_type}, which takes neither pods nor nodes")]
    TargetType {
        /// The target group.
        arn: TargetGroupArn,
        /// The type as AWS writes it.
        target_type: String,
    },
    /// Another binding has the target group.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The role of the spec cannot be assumed.
    #[error("{}", not_valid(.0))]
    Role(#[from] InvalidRole),
    /// The binding cannot have any targets.
    #[error(transparent)]
    Unresolvable(#[from] UnresolvableBinding),
    /// The API server has an object that the watches do not show yet.
    #[error("{0} has just appeared")]
    Behind(String),
    /// AWS accepts some targets and refuses others.
    #[error("{}", refused(.0))]
    RefusedTargets(Vec<(Target, AwsError)>),
    /// The location of a target cannot be determined.
    #[error("{what}: {problem}")]
    NotLocated {
        /// The pod or node.
        what: String,
        /// The reason.
        problem: NotLocated,
    },
    /// A security group that should get rules does not exist.
    #[error("the security group {0} is gone")]
    SecurityGroupGone(SecurityGroupId),
    /// The networking of the binding is not valid.
    #[error(transparent)]
    Networking(#[from] InvalidNetworking),
    /// An AWS call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// A request to the API server failed.
    #[error("the API server: {0}")]
    Cluster(#[from] ClusterError),
}

fn not_valid(role: &InvalidRole) -> String {
    format!("spec.{}: {role}; nothing is registered or deregistered", role.field())
}

fn refused(targets: &[(Target, AwsError)]) -> String {
    let reported: Vec<String> =
        targets.iter().take(MAX_LISTED).map(|(target, error)| format!("{target} ({error})")).collect();
    let more = targets.len().saturating_sub(MAX_LISTED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("AWS does not accept these targets; all others are registered: {}{more}", reported.join(", "))
}

impl Problem {
    /// Returns true if the error stays until a user fixes an object of the cluster, which queues the binding again.
    #[must_use]
    pub fn needs_correction(&self) -> bool {
        matches!(
            self,
            Self::NoTargetGroup | Self::Denied(_) | Self::Role(_) | Self::Unresolvable(_) | Self::Networking(_)
        )
    }
}

impl TargetsError {
    /// Returns the reason of the event, the same as in aws-load-balancer-controller.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.stage.reason()
    }

    /// Returns the binding of the event, if there is one.
    #[must_use]
    pub fn binding(&self) -> Option<&ObjectName> {
        match &self.subject {
            Subject::Binding(name) => Some(name),
            Subject::SecurityGroup(_) | Subject::NodeRules => None,
        }
    }

    /// Returns true if the error may pass without a fix by a user. Such an error is not reported.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match &self.problem {
            Problem::Aws(_) if self.names_a_group_that_is_gone() => false,
            Problem::Aws(error) => error.is_transient(),
            Problem::Cluster(error) => !matches!(error, ClusterError::Refused(_)),
            Problem::Behind(_) | Problem::SecurityGroupGone(_) => true,
            _ => false,
        }
    }

    /// Returns true if AWS refused a rule because its source does not exist: the group of the rule has just been read.
    fn names_a_group_that_is_gone(&self) -> bool {
        let gone = matches!(&self.problem, Problem::Aws(error) if error.code() == Some("InvalidGroup.NotFound"));
        gone && self.stage == Stage::Network && self.binding().is_some()
    }

    /// Returns true if the lease was lost during the work.
    #[must_use]
    pub fn is_withheld(&self) -> bool {
        matches!(&self.problem, Problem::Aws(AwsError { kind: AwsErrorKind::Withheld, .. }))
    }

    /// Returns the fix as a sentence without a full stop; `None` if the only fix is to wait, or the message contains
    /// it.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match &self.problem {
            Problem::NoTargetGroup => Some("set spec.targetGroupARN or spec.targetGroupName".to_owned()),
            Problem::TargetGroupMissing(_) => Some("correct the name, or create the target group".to_owned()),
            Problem::TargetType { .. } => Some("bind a target group of type instance or ip".to_owned()),
            Problem::Denied(Denied::Taken { .. }) => {
                Some("delete one of the two, give each a target group of its own, or set spec.multiClusterTargetGroup on both".to_owned())
            }
            Problem::Denied(Denied::OfStack { object, .. }) => {
                Some(format!("bind a target group of your own, or route to the Service in {object}"))
            }
            Problem::Role(error) => Some(error.fix().to_owned()),
            Problem::Unresolvable(error) => Some(error.fix().to_owned()),
            Problem::RefusedTargets(targets) => targets.first().map(|(_, error)| {
                error
                    .fix()
                    .unwrap_or_else(|| "instances must run, and addresses be, in the target group's VPC".to_owned())
            }),
            Problem::NotLocated { problem, .. } => Some(problem.fix()),
            Problem::Aws(error) => error.fix().or_else(|| {
                let fix = "name security groups in spec.networking that exist in the VPC";
                self.names_a_group_that_is_gone().then(|| fix.to_owned())
            }),
            Problem::Cluster(ClusterError::Refused(message)) if message.contains(" is forbidden: ") => {
                Some("give the controller's ServiceAccount the ClusterRole of config/rbac or of the chart".to_owned())
            }
            Problem::Networking(_) | Problem::Behind(_) | Problem::SecurityGroupGone(_) | Problem::Cluster(_) => None,
        }
    }

    /// Returns the problem and the fix in one text, for the status.
    #[must_use]
    pub fn text(&self) -> String {
        match self.fix() {
            Some(fix) => format!("{}; {fix}", self.problem),
            None => self.problem.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_that_is_missing_is_told_with_who_gives_it() {
        let message = r#"pods "web-1" is forbidden: User "albatross" cannot patch resource "pods/status" in API group "" in the namespace "shop""#;
        let error = TargetsError {
            subject: Subject::Binding(ObjectName::new("shop", "web")),
            stage: Stage::UpdatePodStatus,
            problem: ClusterError::Refused(message.to_owned()).into(),
        };
        insta::assert_snapshot!(error.text(), @r#"the API server: pods "web-1" is forbidden: User "albatross" cannot patch resource "pods/status" in API group "" in the namespace "shop"; give the controller's ServiceAccount the ClusterRole of config/rbac or of the chart"#);
    }
}
