//! The target groups that listeners forward to: that of the Service, and those of others by weight (reference: service §13).

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::{
    Builder, key, listeners::ListenerPort, load_balancer::Placement, security_group::Access, target_group::Backend,
};
use crate::{
    api::annotations::{
        NetworkBackend, NetworkForward, NetworkForwardTarget, parse_network_action, registry::service as keys,
    },
    desired::diagnostic_sink::Failed,
    diagnostics::{Code, Severity},
    model::{
        Action, ListenerProtocol, ObjectName, PortReference, ResourceId, Stickiness, Tags, TargetGroup, TargetGroupArn,
        TargetGroupProtocol, TargetGroupReference, WeightedTargetGroup,
    },
    snapshot::{Scope, Service, ServicePort},
};

/// The settings that all target groups share, as far as they are valid.
#[derive(Clone, Copy)]
pub(super) struct Settings<'s> {
    pub(super) access: Option<&'s Access>,
    pub(super) placement: Option<&'s Placement>,
    pub(super) user_tags: Option<&'s Tags>,
}

/// The target groups by their ids, and the default actions by the ports of their listeners.
type Forwards = (IndexMap<ResourceId, TargetGroup>, BTreeMap<u16, Action<TargetGroupReference>>);

fn describe(port: &ServicePort) -> String {
    if port.name.is_empty() { port.port.to_string() } else { format!("{} ({})", port.port, port.name) }
}

impl<'a> Builder<'a> {
    /// Returns the target groups and default actions of all listeners. Every error is reported.
    pub(super) fn forwards(
        &mut self,
        listener_ports: &[ListenerPort<'a>],
        settings: Settings<'_>,
    ) -> Result<Forwards, Failed> {
        let mut target_groups = IndexMap::new();
        let mut actions = BTreeMap::new();
        let mut failed = false;
        for listener_port in listener_ports {
            match self.forward(listener_port, settings, &mut target_groups) {
                Ok(action) => drop(actions.insert(listener_port.port.port, action)),
                Err(Failed) => failed = true,
            }
        }
        if failed { Err(Failed) } else { Ok((target_groups, actions)) }
    }

    /// Returns the ports of other Services that annotations name, by number.
    pub(super) fn ports_of_others(&self) -> BTreeSet<u16> {
        let written = self.service.annotations.iter().filter(|(key, _)| keys::ACTIONS.matches(key));
        let forwards = written.filter_map(|(_, value)| parse_network_action(value).ok());
        let number = |target: NetworkForwardTarget| match target.backend {
            NetworkBackend::Number { port, .. } => Some(port),
            NetworkBackend::Name { service, port } => {
                let service = self.snapshot.services.get(&ObjectName::new(&self.service.name.namespace, &service));
                let named = service.and_then(|service| service.port(&PortReference::Name(port.clone())));
                named.map(|named| named.port).or_else(|| port.parse().ok())
            }
            NetworkBackend::TargetGroupArn(_) => None,
        };
        forwards.flat_map(|forward| forward.target_groups).filter_map(number).collect()
    }

    fn forward(
        &mut self,
        listener_port: &ListenerPort<'a>,
        settings: Settings<'_>,
        target_groups: &mut IndexMap<ResourceId, TargetGroup>,
    ) -> Result<Action<TargetGroupReference>, Failed> {
        let requested = self.requested_forward(listener_port);
        let backend = Backend {
            service: self.service,
            port: listener_port.port,
            protocol: listener_port.target_group,
            field: listener_port.field(),
            is_named: false,
        };
        let own = self.shared_target_group(&backend, settings, target_groups);
        let requested = requested?;
        let Some(NetworkForward { base_weight, target_groups: targets, sticky }) = requested else {
            let group = WeightedTargetGroup { group: TargetGroupReference::Own(own?), weight: None };
            return Ok(Action::Forward { target_groups: vec![group], stickiness: None });
        };
        let field = key(keys::ACTIONS.with(&listener_port.parameter()));
        let mut groups: Vec<WeightedTargetGroup<TargetGroupReference>> = Vec::new();
        let mut outcome = own.map(|own| {
            groups.push(WeightedTargetGroup { group: TargetGroupReference::Own(own), weight: base_weight });
        });
        for target in targets {
            let weight = target.weight;
            match self.forward_target(listener_port, &field, target, settings, target_groups) {
                Ok(group) if groups.iter().any(|earlier| earlier.group == group) => {
                    let what = match &group {
                        TargetGroupReference::Own(id) => id.as_str(),
                        TargetGroupReference::Foreign(arn) => arn.as_str(),
                        TargetGroupReference::Named(name) => name,
                    };
                    let message = format!("the forward names the target group `{what}` twice");
                    let fix = "name it once, with one weight; that of the Service itself has `baseServiceWeight`";
                    outcome = Err(self.error(Code::InvalidValue, &field, &message, fix));
                }
                Ok(group) => groups.push(WeightedTargetGroup { group, weight }),
                Err(Failed) => outcome = Err(Failed),
            }
        }
        outcome?;
        let stickiness = sticky.map(|enabled| Stickiness { enabled, duration_seconds: None });
        Ok(Action::Forward { target_groups: groups, stickiness })
    }

    /// Returns the forward that the annotation of a listener requests.
    fn requested_forward(&mut self, listener_port: &ListenerPort<'a>) -> Result<Option<NetworkForward>, Failed> {
        let parameter = listener_port.parameter();
        let requested = self.value(self.annotations.network_action(&parameter))?;
        if self.config.weighted_target_groups {
            return Ok(requested);
        }
        let Some(NetworkForward { target_groups, .. }) = &requested else { return Ok(None) };
        if target_groups.is_empty() {
            // Without weights and stickiness, the listener forwards as without the annotation.
            return Ok(None);
        }
        let message = "the annotation forwards to several target groups, which the controller's flag `--feature-gates=WeightedTargetGroups=false` forbids";
        let fix = "remove the annotation, or start the controller without the gate";
        Err(self.error(Code::Unsupported, &key(keys::ACTIONS.with(&parameter)), message, fix))
    }

    /// Returns the target group of a backend, made at its first use; all listeners share it.
    fn shared_target_group(
        &mut self,
        backend: &Backend<'_>,
        settings: Settings<'_>,
        target_groups: &mut IndexMap<ResourceId, TargetGroup>,
    ) -> Result<ResourceId, Failed> {
        let resource = ResourceId::service_target_group(&backend.service.name, backend.port.port);
        if let Some(made) = target_groups.get(&resource) {
            if made.protocol == backend.protocol {
                return Ok(resource);
            }
            let message = format!(
                "the target group `{resource}` is requested with the protocol {} here and with {} by `{}`",
                backend.protocol, made.protocol, made.cause.field
            );
            let fix = "let all listeners with that port of the Service use one protocol to its targets";
            return Err(self.error(Code::Unsupported, &backend.field, &message, fix));
        }
        let group = self.target_group(backend, settings.access, settings.placement, settings.user_tags)?;
        target_groups.insert(resource.clone(), group);
        Ok(resource)
    }

    fn forward_target(
        &mut self,
        listener_port: &ListenerPort<'a>,
        field: &str,
        target: NetworkForwardTarget,
        settings: Settings<'_>,
        target_groups: &mut IndexMap<ResourceId, TargetGroup>,
    ) -> Result<TargetGroupReference, Failed> {
        let protocol = match listener_port.listener {
            ListenerProtocol::Tls if !target.decrypt => TargetGroupProtocol::Tls,
            ListenerProtocol::Tls | ListenerProtocol::Tcp => TargetGroupProtocol::Tcp,
            // The target group of the Service itself has the listener's protocol.
            _ => listener_port.target_group,
        };
        let (name, port, as_number) = match target.backend {
            NetworkBackend::TargetGroupArn(arn) => {
                return Ok(TargetGroupReference::Foreign(TargetGroupArn::new(arn)));
            }
            NetworkBackend::Number { service, port } => (service, PortReference::Number(port), None),
            NetworkBackend::Name { service, port } => {
                let number = port.parse().ok().map(PortReference::Number);
                (service, PortReference::Name(port), number)
            }
        };
        let name = ObjectName::new(&self.service.name.namespace, &name);
        let assumed;
        let service = match self.snapshot.services.get(&name) {
            Some(service) => service,
            None => {
                assumed = self.missing_service(&name, as_number.as_ref().unwrap_or(&port), field)?;
                &assumed
            }
        };
        let found = service.port(&port).or_else(|| service.port(as_number.as_ref()?));
        let Some(service_port) = found else { return Err(self.missing_port(service, &port, field)) };
        let field = field.to_owned();
        let backend = Backend { service, port: service_port, protocol, field, is_named: true };
        self.shared_target_group(&backend, settings, target_groups).map(TargetGroupReference::Own)
    }

    /// Reports a Service that does not exist. In files, it is taken for one that is elsewhere, with the port that is asked of it.
    fn missing_service(&mut self, name: &ObjectName, port: &PortReference, field: &str) -> Result<Service, Failed> {
        if self.snapshot.scope == Scope::Files {
            let message =
                format!("the Service `{name}` is in none of the files; its ports and annotations are not known");
            let fix = "add its file to check them";
            let object = self.object();
            let Failed = self.sink.report(Severity::Note, object, Code::MissingService, field, &message, fix);
            return Ok(Service::assumed(name.clone(), port));
        }
        let message = format!(
            "the Service `{}` does not exist in the namespace `{}`; the load balancer stays as it is until it does",
            name.name, name.namespace
        );
        Err(self.error(Code::MissingService, field, &message, "create it, or correct the name"))
    }

    fn missing_port(&mut self, service: &Service, port: &PortReference, field: &str) -> Failed {
        let known: Vec<String> = service.ports.iter().map(describe).collect();
        let (message, fix) = if known.is_empty() {
            (format!("the Service `{}` has no ports", service.name), "name a Service with ports")
        } else {
            let known = known.join(", ");
            (format!("the Service `{}` has no port `{port}`; it has {known}", service.name), "name one of its ports")
        };
        self.error(Code::MissingPort, field, &message, fix)
    }
}
