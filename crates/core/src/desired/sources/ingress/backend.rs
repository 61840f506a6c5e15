//! From a backend of an Ingress to an action (reference: ingress §3.4).

use super::{Builder, Failed, Member};
use crate::api::annotations::registry::ingress as keys;
use crate::{
    api::annotations,
    diagnostics::{Code, Severity},
    model::{
        Action, ObjectKind, ObjectName, ObjectReference, PortReference, TargetGroupReference, WeightedTargetGroup,
    },
    snapshot::{Backend, BackendPort, Scope, Service},
};

pub(super) fn unavailable(body: &str) -> Action<TargetGroupReference> {
    Action::FixedResponse {
        content_type: Some("text/plain".to_owned()),
        message_body: Some(body.to_owned()),
        status_code: "503".to_owned(),
    }
}

fn forward_to(group: TargetGroupReference) -> Action<TargetGroupReference> {
    Action::Forward { target_groups: vec![WeightedTargetGroup { group, weight: None }], stickiness: None }
}

impl<'a> Builder<'a> {
    pub(super) fn action(
        &mut self,
        member: Member<'a>,
        backend: &Backend,
        field: &str,
    ) -> Result<Action<TargetGroupReference>, Failed> {
        let Member { ingress, .. } = member;
        match backend {
            Backend::Service { name, port: BackendPort::UseAnnotation } => self.annotated_action(member, name, field),
            Backend::Service { name, port: BackendPort::Port(port) } => {
                self.forward_to_service(member, name, port, &format!("{field}.service"))
            }
            Backend::Service { name, port: BackendPort::Missing } => {
                let message = format!("the backend names no port of the Service `{name}`");
                let fix = "set `port.number` or `port.name`, or the name `use-annotation` for an action annotation";
                Err(self.error(&ingress.name, Code::MissingPort, &format!("{field}.service.port"), &message, fix))
            }
            Backend::Service { name, port: BackendPort::OutOfRange(number) } => {
                let message = format!("{number} is not a port of the Service `{name}`");
                let field = format!("{field}.service.port.number");
                Err(self.error(&ingress.name, Code::MissingPort, &field, &message, "write 1 to 65535"))
            }
            Backend::Resource(kind, name) => {
                let message = format!("the backend is a resource ({kind} `{name}`), which no load balancer can serve");
                Err(self.error(
                    &ingress.name,
                    Code::Unsupported,
                    &format!("{field}.resource"),
                    &message,
                    "name a Service",
                ))
            }
            Backend::Nothing => {
                let fix = "write `service: {name: …, port: {number: …}}`; `serviceName` and `servicePort` are of the versions before `networking.k8s.io/v1`";
                Err(self.error(&ingress.name, Code::Unsupported, field, "the backend names nothing", fix))
            }
        }
    }

    fn annotated_action(
        &mut self,
        member: Member<'a>,
        name: &str,
        field: &str,
    ) -> Result<Action<TargetGroupReference>, Failed> {
        let Member { ingress, annotations, .. } = member;
        let key = keys::ACTIONS.with(name).to_string();
        let Some(action) = self.value(ingress, None, annotations.action(name))? else {
            if self.snapshot.scope == Scope::Files {
                let consequence = if self.config.tolerate_missing_action {
                    "requests are answered with 503"
                } else {
                    "the controller refuses the Ingress (`--tolerate-non-existent-backend-action=false`)"
                };
                let message = format!("the annotation `{key}` is not in the manifest; without it {consequence}");
                let fix = "add it, unless something else does before the manifest is applied";
                let object = ObjectReference::ingress(&ingress.name);
                let field = format!("{field}.service");
                let Failed = self.sink.report(Severity::Note, object, Code::MissingAction, &field, &message, fix);
                return Ok(unavailable("Backend action does not exist"));
            }
            let severity = if self.config.tolerate_missing_action { Severity::Warning } else { Severity::Error };
            let consequence = if severity == Severity::Warning { "; requests are answered with 503" } else { "" };
            let message = format!("the annotation `{key}` does not exist{consequence}");
            let object = ObjectReference::ingress(&ingress.name);
            let failed = self.sink.report(
                severity,
                object,
                Code::MissingAction,
                &format!("{field}.service"),
                &message,
                "add the annotation",
            );
            return if severity == Severity::Warning {
                Ok(unavailable("Backend action does not exist"))
            } else {
                Err(failed)
            };
        };
        match action {
            annotations::Action::FixedResponse { content_type, message_body, status_code } => {
                Ok(Action::FixedResponse { content_type, message_body, status_code })
            }
            annotations::Action::Redirect { host, path, port, protocol, query, status_code } => {
                Ok(Action::Redirect { host, path, port, protocol, query, status_code })
            }
            annotations::Action::Forward { target_groups, stickiness } => {
                self.forward(member, &key, &target_groups, stickiness.as_ref())
            }
        }
    }

    fn forward_to_service(
        &mut self,
        member: Member<'a>,
        name: &str,
        port: &PortReference,
        field: &str,
    ) -> Result<Action<TargetGroupReference>, Failed> {
        let group = self.target_group_of_service(member, name, port, field, true)?;
        Ok(group.map_or_else(|| unavailable("Backend service does not exist"), forward_to))
    }

    /// The target group for a port of a Service. `None` where the Service is missing and that is tolerated, which is so only
    /// for the single target of an action.
    pub(super) fn target_group_of_service(
        &mut self,
        member: Member<'a>,
        name: &str,
        port: &PortReference,
        field: &str,
        alone: bool,
    ) -> Result<Option<TargetGroupReference>, Failed> {
        let Member { ingress, .. } = member;
        let name = ObjectName::new(&ingress.name.namespace, name);
        let known = self.snapshot.services.get(&name);
        if known.is_none() && self.snapshot.scope == Scope::Files {
            let message =
                format!("the Service `{name}` is in none of the files; its ports and annotations are not known");
            let fix = "add its file to check them";
            let object = ObjectReference::ingress(&ingress.name);
            let Failed = self.sink.report(Severity::Note, object, Code::MissingService, field, &message, fix);
            let service = Service::assumed(name, port);
            let Some(service_port) = service.port(port) else { return Err(Failed) };
            let group = self.target_group(member, &service, service_port, port, field);
            return group.map(|id| Some(TargetGroupReference::Own(id)));
        }
        let Some(service) = known else {
            let reference = ObjectReference { kind: ObjectKind::Service, name: name.clone() };
            let tolerated = alone && self.config.tolerate_missing_service;
            let severity = if tolerated { Severity::Warning } else { Severity::Error };
            let consequence = match (tolerated, alone) {
                (true, _) => "; requests are answered with 503 until it does",
                (false, true) => "",
                (false, false) => "; a forward to several target groups needs all of them",
            };
            let message = format!(
                "the Service `{}` does not exist in the namespace `{}`{consequence}",
                name.name, name.namespace
            );
            let object = ObjectReference::ingress(&ingress.name);
            let failed = self.sink.report(
                severity,
                object,
                Code::MissingService,
                field,
                &message,
                "create it, or correct the name",
            );
            return if severity == Severity::Warning {
                self.sink.absent.insert(reference);
                Ok(None)
            } else {
                Err(failed)
            };
        };
        let Some(service_port) = service.port(port) else {
            let known: Vec<String> = service
                .ports
                .iter()
                .map(|p| if p.name.is_empty() { p.port.to_string() } else { format!("{} ({})", p.port, p.name) })
                .collect();
            let (message, fix) = if known.is_empty() {
                (format!("the Service `{}` has no ports", service.name), "name a Service with ports")
            } else {
                let known = known.join(", ");
                (
                    format!("the Service `{}` has no port `{port}`; it has {known}", service.name),
                    "name one of its ports",
                )
            };
            return Err(self.error(&ingress.name, Code::MissingPort, field, &message, fix));
        };
        self.target_group(member, service, service_port, port, field).map(|id| Some(TargetGroupReference::Own(id)))
    }
}
