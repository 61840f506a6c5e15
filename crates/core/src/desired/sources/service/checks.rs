//! The checks of a Service before it is built: annotations that have no effect, a load balancer that would be orphaned, one
//! that must not be deleted (reference: service §4, §5).

use super::{ATTRIBUTES, Builder, key};
use crate::{
    api::annotations::{FindingKind, Key, ObjectKind, SERVICE_PREFIX, Status, check, find, registry::service as keys},
    desired::diagnostic_sink::{Failed, protected_in_aws},
    diagnostics::Code,
    model::{DELETION_PROTECTION, Stack},
};

/// The finalizer of the cloud provider built into Kubernetes.
const CLOUD_PROVIDER_FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
const ACKNOWLEDGE: Key = keys::ALBATROSS_ACKNOWLEDGE_ORPHANED_LOAD_BALANCER;

/// The replacements of annotations that apply only to Classic Load Balancers.
const IN_TREE: &[(Key, &str)] = &[
    (
        keys::EXTRA_SECURITY_GROUPS,
        "name all security groups in `service.beta.kubernetes.io/aws-load-balancer-security-groups`, which takes the place of the managed one",
    ),
    (
        keys::CONNECTION_DRAINING_ENABLED,
        "a Network Load Balancer always drains; write `deregistration_delay.timeout_seconds=<seconds>` in `service.beta.kubernetes.io/aws-load-balancer-target-group-attributes` for how long",
    ),
    (
        keys::CONNECTION_DRAINING_TIMEOUT,
        "write `deregistration_delay.timeout_seconds=<seconds>` in `service.beta.kubernetes.io/aws-load-balancer-target-group-attributes`",
    ),
    (
        keys::CONNECTION_IDLE_TIMEOUT,
        "write `tcp.idle_timeout.seconds=<seconds>` in `service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP-<port>`",
    ),
    (
        keys::ACCESS_LOG_EMIT_INTERVAL,
        "remove it: a Network Load Balancer writes its access logs every 5 minutes, which cannot be changed",
    ),
];

impl Builder<'_> {
    /// Reports annotations that are unknown, have no effect, or must not be ignored. Those for the Ingresses that lead to
    /// the Service are theirs to judge.
    pub(super) fn check_annotations(&mut self) {
        for finding in check(ObjectKind::Service, &self.service.annotations) {
            if finding.key.starts_with(SERVICE_PREFIX) && matches!(finding.kind, FindingKind::Unknown { .. }) {
                self.warning(Code::UnknownAnnotation, &finding.key, &finding.message, &finding.fix);
            }
        }
        let known = self.service.annotations.iter().filter_map(|(key, value)| Some((key, value, find(key)?)));
        for (key, value, annotation) in known.filter(|(.., annotation)| annotation.key.prefix() == SERVICE_PREFIX) {
            let instead = IN_TREE.iter().find(|(key, _)| *key == annotation.key);
            match (annotation.status, instead) {
                (status, _) if status.refuses(value) => {
                    let of_value = match status {
                        Status::BuiltFor(_) => format!(" with the value `{value}`"),
                        _ => String::new(),
                    };
                    let message = format!(
                        "annotation `{key}`{of_value} is known but not built yet; the object is refused, because without it access or routing would not be what it asks for"
                    );
                    let fix = match status {
                        Status::BuiltFor(values) => {
                            let allowed = values.first().copied().unwrap_or_default();
                            format!("write `{allowed}` or remove the annotation, if the object may be served like that")
                        }
                        _ => "remove the annotation, if the object may be served without it".to_owned(),
                    };
                    self.error(Code::Refused, key, &message, &fix);
                }
                (Status::Later, Some((_, fix))) => {
                    let message = format!("annotation `{key}` has no effect on a Network Load Balancer");
                    self.warning(Code::AnnotationNotBuilt, key, &message, fix);
                }
                (Status::Later, None) => {
                    let message = format!("annotation `{key}` is known but its effect is not built yet; it is ignored");
                    let fix = "leave it if the object can do without its effect for now, otherwise do not rely on it";
                    self.warning(Code::AnnotationNotBuilt, key, &message, fix);
                }
                _ => {}
            }
        }
    }

    /// A Service that still has a load balancer of the cloud provider is taken only with the user's consent: no controller
    /// would look after that one any more.
    pub(super) fn not_orphaning(&mut self) -> Result<(), Failed> {
        let has = |wanted: &str| self.service.finalizers.iter().any(|finalizer| finalizer == wanted);
        if has(crate::model::tags::SERVICE_FINALIZER) || !has(CLOUD_PROVIDER_FINALIZER) {
            return Ok(());
        }
        let hostnames = self.service.status.iter().map(|entry| entry.hostname.as_str()).filter(|name| !name.is_empty());
        // The status has the controller's own host name if a user has removed the controller's finalizer.
        let hostnames = hostnames.filter(|name| !self.facts.hostnames.contains(&name.to_lowercase()));
        let hostnames = hostnames.collect::<Vec<_>>().join(",");
        let field = key(ACKNOWLEDGE);
        let acknowledged = self.annotations.value(ACKNOWLEDGE).map(|(_, value)| value.trim());
        if hostnames.is_empty() || acknowledged == Some(hostnames.as_str()) {
            return Ok(());
        }
        let message = format!(
            "the Service still has the load balancer `{hostnames}` of the cloud provider built into Kubernetes (finalizer `{CLOUD_PROVIDER_FINALIZER}`); if this controller took the Service, no controller would manage or delete that load balancer"
        );
        let fix = format!(
            "make a second Service for the Network Load Balancer and delete this one when clients have moved; or write `{field}: {hostnames}` to let this controller take it all the same, then delete the old load balancer in AWS and remove that finalizer yourself"
        );
        Err(self.error(Code::ReplacementNeeded, "status.loadBalancer.ingress", &message, &fix))
    }

    /// Returns the empty stack, unless the Service's annotation or AWS protects the load balancer from deletion.
    pub(super) fn stack_for_leaving(&mut self) -> Result<Stack, Failed> {
        let attributes = self.value(self.annotations.string_map(ATTRIBUTES))?.unwrap_or_default();
        let unprotect = match attributes.get(DELETION_PROTECTION) {
            None => false,
            Some(written) => match crate::api::annotations::values::parse_bool(written) {
                Ok(false) => true,
                Ok(true) => {
                    let message = "the load balancer is protected from deletion, so it stays, and the Service with it";
                    return Err(self.protected(message));
                }
                Err(reason) => {
                    let message = format!("`{DELETION_PROTECTION}={written}`: {reason}, so the load balancer stays");
                    return Err(self.protected(&message));
                }
            },
        };
        let empty = Stack::empty(self.id.clone());
        let Some(names) = self.sink.protected(self.facts).ok_or(Failed)? else { return Ok(empty) };
        if unprotect {
            return Ok(Stack { unprotect, ..empty });
        }
        // Nothing in the cluster shows when the protection is off.
        self.sink.lacking = true;
        let (message, fix) = protected_in_aws(&names, "Service");
        Err(self.error(Code::Refused, &key(ATTRIBUTES), &message, fix))
    }

    fn protected(&mut self, message: &str) -> Failed {
        let fix = format!("write `{DELETION_PROTECTION}=false` in the annotation if it may be deleted");
        self.error(Code::InvalidValue, &key(ATTRIBUTES), message, &fix)
    }
}
