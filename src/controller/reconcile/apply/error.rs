//! The reason why a step could not be run, its requester, and the fix.

use std::time::Duration;

use albatross_aws::{AwsError, AwsErrorKind};
use albatross_core::model::{AddOn, Cause, Quota, Requesters, ResourceId};

/// The most time that AWS takes to release the resources of a deleted load balancer.
const RELEASE_TIME: Duration = Duration::from_secs(300);

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct ApplyError {
    /// The step, as plans print it.
    pub step: String,
    /// The cause of the step.
    pub cause: Cause,
    /// The port of the listener that it makes or changes.
    pub port: Option<u16>,
    /// True if it creates or changes a resource that all members of a group share.
    pub of_all: bool,
    /// True if it is about what stands in front of the load balancer: its cause requests that.
    pub in_front: bool,
    /// The add-on that it changes: all other steps were carried out.
    pub add_on: Option<AddOn>,
    /// The steps of the plan that were carried out, by their place in it.
    pub carried_out: Vec<usize>,
    /// The errors of add-ons before it.
    pub left_out: Vec<ApplyError>,
    /// The error.
    pub source: StepError,
}

/// The error of a step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// AWS did not do it.
    #[error(transparent)]
    Aws(AwsError),
    /// AWS cannot delete it yet, because another resource still uses it, or does not know it; or it has not deleted a certificate,
    /// for any reason.
    #[error(transparent)]
    NotYet(AwsError),
    /// A load balancer is protected from deletion, as its attributes, read since, say too. The next plan takes that into account.
    #[error(transparent)]
    Protected(AwsError),
    /// The name that is to be created is taken by something that belongs to others.
    #[error("the {kind} `{name}` exists and belongs to {owner}, not to {claimant}")]
    Taken {
        /// `load balancer` or `target group`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Its owner, in words.
        owner: String,
        /// The owner, in words.
        claimant: String,
    },
    /// AWS has it already, although it was not known: what is known was wrong, and is read again.
    #[error("the {kind} `{name}` already exists")]
    ThereAlready {
        /// The kind of resource.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The step names something that neither exists nor was created before.
    #[error("the {0} does not exist")]
    Unresolved(String),
    /// Several target groups carry the tags of the one that the step names.
    #[error("{} target groups carry the tags of {resource}: {}", names.len(), names.join(", "))]
    Ambiguous {
        /// The resource.
        resource: ResourceId,
        /// The names of the target groups that carry its tags.
        names: Vec<String>,
    },
    /// A TargetGroupBinding was not written, or it is not known if it was.
    #[error("{message}")]
    Kubernetes {
        /// The reason: the API server's words, the lost answer, or the state of the object.
        message: String,
        /// The fix, where a user has to act.
        fix: Option<String>,
    },
    /// The permit to write does not hold.
    #[error("this process does not hold the lease, and another replica may lead")]
    NotLeader,
    /// A forward action names a target group of another owner that is not there.
    #[error(transparent)]
    ForeignTargetGroup(AwsError),
}

impl StepError {
    /// Returns true if the cached state of the group must be read again.
    pub(crate) fn asks_to_read_again(&self) -> bool {
        match self {
            Self::Aws(error) | Self::NotYet(error) => error.asks_to_read_again(),
            Self::ThereAlready { .. } | Self::Unresolved(_) | Self::Ambiguous { .. } => true,
            _ => false,
        }
    }
}

/// Returns the fix where AWS does not delete a thing that something else uses.
fn in_use_fix(error: &AwsError) -> Option<&'static str> {
    if !matches!(error.kind, AwsErrorKind::Dependency { .. }) {
        return None;
    }
    match error.operation {
        "DeleteLoadBalancer" => Some(
            "detach the load balancer from what uses it: a VPC endpoint service, a VPC link of API Gateway, an accelerator, \
             or a target group of another load balancer",
        ),
        "DeleteCertificate" => Some("take the certificate off the listeners and services that ACM shows for it"),
        "DeleteTargetGroup" => Some(
            "remove the listeners and rules of other load balancers, and the services of VPC Lattice or ECS, that use the \
             target group",
        ),
        "DeleteSecurityGroup" => Some(
            "take the security group off the network interfaces that are in it, and out of the rules of other security \
             groups that name it",
        ),
        _ => None,
    }
}

impl ApplyError {
    /// Returns the fix; `None` where the controller only has to try again.
    #[must_use]
    pub(crate) fn fix(&self) -> Option<String> {
        match &self.source {
            StepError::Aws(error) | StepError::Protected(error) => error.fix(),
            StepError::Taken { kind, name, .. } => Some(format!(
                "choose another name, or delete or rename the {kind} `{name}`: it is never taken over by its name"
            )),
            StepError::Ambiguous { .. } => Some("delete all but one of them".to_owned()),
            StepError::Kubernetes { fix, .. } => fix.clone(),
            StepError::ForeignTargetGroup(_) => {
                Some("check the target group's ARN: it must be in the load balancer's account and region".to_owned())
            }
            StepError::NotYet(error) => in_use_fix(error).map(str::to_owned).or_else(|| error.fix()),
            StepError::ThereAlready { .. } | StepError::Unresolved(_) | StepError::NotLeader => None,
        }
    }

    /// Returns the object and field that requested the step.
    #[must_use]
    pub(crate) fn blame(&self) -> &Cause {
        &self.cause
    }

    /// Attributes the error to the member of a group that requests the refused setting, if AWS's error names a setting of a
    /// listener or a new load balancer. A step for all members is attributed to the member that is known to request it.
    #[must_use]
    pub(crate) fn attributed(mut self, requesters: &Requesters) -> Self {
        if !self.in_front
            && let StepError::Aws(error) = &self.source
            && let Some(code) = error.code()
        {
            let cause = match (self.port, error.operation) {
                (Some(port), "CreateListener") => {
                    requesters.of_refusal(port, code).or_else(|| requesters.listeners.get(&port))
                }
                (Some(port), _) => requesters.of_refusal(port, code),
                (None, "CreateLoadBalancer") => requesters.of_refused_load_balancer(code),
                (None, _) => None,
            };
            if let Some(cause) = cause {
                self.cause = cause.clone();
            }
        }
        self.of_all &= !requesters.asks_for_setting(&self.cause);
        self
    }

    /// Returns the quota for which AWS refuses the step, where a change in smaller steps may keep to it.
    #[must_use]
    pub(crate) fn quota(&self) -> Option<Quota> {
        match &self.source {
            StepError::Aws(AwsError { kind: AwsErrorKind::Refused { code, .. }, .. }) => Quota::of_code(code),
            _ => None,
        }
    }

    /// Returns the message for a change that continues in smaller steps for a quota.
    #[must_use]
    pub(crate) fn goes_on_in_steps(&self, quota: Quota) -> String {
        let fix = self.fix().map(|fix| format!("; {fix}, so that changes need no smaller steps")).unwrap_or_default();
        format!(
            "{self}; the change that {} asks for goes on in smaller steps, in which {} that go make room for those that \
             come{fix}",
            self.cause.field,
            quota.counted()
        )
    }

    /// Returns true if AWS permanently refuses a step that only its cause requests: then other members can continue without
    /// it.
    #[must_use]
    pub(crate) fn is_attributable(&self) -> bool {
        let refused = match &self.source {
            StepError::Aws(error) => error.is_refused(),
            StepError::Taken { .. } | StepError::ForeignTargetGroup(_) => true,
            StepError::Kubernetes { fix, .. } => fix.is_some(),
            _ => false,
        };
        // Of an add-on, everything else of its requester is in place.
        refused && !self.of_all && self.add_on.is_none()
    }

    /// Returns true if planning and trying again can succeed without a fix by a user: then the error is not reported.
    #[must_use]
    pub(crate) fn is_transient(&self) -> bool {
        match &self.source {
            StepError::Aws(error) => error.is_transient(),
            StepError::NotYet(_)
            | StepError::Protected(_)
            | StepError::ThereAlready { .. }
            | StepError::Unresolved(_)
            | StepError::NotLeader => true,
            StepError::Taken { .. } | StepError::Ambiguous { .. } | StepError::ForeignTargetGroup(_) => false,
            StepError::Kubernetes { fix, .. } => fix.is_none(),
        }
    }

    /// Returns for how long a deletion that AWS does not carry out is not reported; `None` where the step is no
    /// deletion, or failed otherwise. AWS releases target groups and network interfaces minutes after a load balancer is
    /// deleted; of a load balancer that something else uses it never does by itself.
    #[must_use]
    pub(crate) fn blocked_deletion(&self) -> Option<Duration> {
        let (StepError::Aws(error) | StepError::NotYet(error)) = &self.source else { return None };
        let refused = error.is_refused() || matches!(error.kind, AwsErrorKind::Dependency { .. });
        // The records of a certificate go by another operation.
        if !error.operation.starts_with("Delete") && !self.is_not_yet() {
            return None;
        }
        match error.operation {
            "DeleteLoadBalancer" if refused => Some(Duration::ZERO),
            _ if error.is_refused() || self.is_not_yet() && error.is_denied() => Some(Duration::ZERO),
            _ => self.is_not_yet().then_some(RELEASE_TIME),
        }
    }

    /// Returns for how long the deletion of a certificate that AWS does not carry out is not reported; `None` for every other error.
    #[must_use]
    pub(crate) fn blocked_certificate(&self) -> Option<Duration> {
        self.blocked_deletion().filter(|_| self.add_on == Some(AddOn::Certificates))
    }

    /// Returns true if a deletion has to wait until AWS releases a resource; it will soon, and this is no error.
    #[must_use]
    pub(crate) fn is_not_yet(&self) -> bool {
        matches!(self.source, StepError::NotYet(_))
    }
}
