//! The target group of an Ingress for one port of a Service, with its health check and binding (reference: ingress §7, §9.3).

use std::collections::BTreeMap;

use super::{Builder, Failed, Member, cause};
use crate::{
    api::annotations::{self, Annotations, registry::ingress as keys},
    diagnostics::Code,
    model::{
        Binding, HealthCheck, HealthCheckProtocol, Matcher, NetworkingPeer, NetworkingPort, NetworkingRule,
        ObjectReference, PortReference, ProtocolVersion, ResourceId, TargetGroup, TargetGroupProtocol, TargetType,
        Value, names,
    },
    snapshot::{Ingress, Scope, Service, ServicePort},
};

/// The reason why a plan of files does not know a port.
pub(in crate::desired) const NODE_PORT: &str = "the node port that the API server gives the Service";
const POD_PORT: &str = "the port of the Service's pods";
const NAMED_PORT: &str = "the port of that name of the Service";

/// The placeholder of a port that a plan of files cannot know; such a stack is shown and never applied.
pub(in crate::desired) fn port_after_apply(why: &'static str) -> PortReference {
    PortReference::Name(Value::<u16>::AfterApply(why).to_string())
}

impl<'a> Builder<'a> {
    /// The target group, made at its first use; all rules and listeners of the Ingress share it.
    pub(super) fn target_group(
        &mut self,
        member: Member<'a>,
        service: &Service,
        service_port: &ServicePort,
        written: &PortReference,
        field: &str,
    ) -> Result<ResourceId, Failed> {
        let Member { ingress, .. } = member;
        let resource = ResourceId::ingress_target_group(&ingress.name, &service.name.name, written);
        if self.target_groups.contains_key(&resource) {
            return Ok(resource);
        }
        let known = self.sink.check_annotations(
            &ObjectReference::service(&service.name),
            annotations::ObjectKind::Service,
            &service.annotations,
        );
        let annotations = member.layered(Some(service));
        let target_type = self.value(ingress, Some(service), member.target_type(service));
        let protocol = self.value(
            ingress,
            Some(service),
            annotations.enumerated(keys::BACKEND_PROTOCOL, TargetGroupProtocol::OF_APPLICATION_LOAD_BALANCERS),
        );
        let version = self.value(
            ingress,
            Some(service),
            annotations.enumerated(keys::BACKEND_PROTOCOL_VERSION, ProtocolVersion::WORDS),
        );
        let user_tags = self.user_tags(member, Some(service));
        let attributes = self.value(ingress, Some(service), annotations.string_map(keys::TARGET_GROUP_ATTRIBUTES));
        let node_labels = self.value(ingress, Some(service), annotations.string_map(keys::TARGET_NODE_LABELS));
        let target_type = target_type?.unwrap_or(self.config.default_target_type);
        if target_type == TargetType::Ip && !self.config.enable_ip_target_type {
            let message =
                format!("the targets of the Service `{}` are pods, which a feature gate turns off", service.name);
            let fix = "set `alb.ingress.kubernetes.io/target-type: instance`, or start the controller without `--feature-gates=EnableIPTargetType=false`";
            return Err(self.error(&ingress.name, Code::Unsupported, field, &message, fix));
        }
        let word = protocol.as_ref().ok().copied().flatten();
        let backend_protocol = word.and_then(TargetGroupProtocol::from_word).unwrap_or(TargetGroupProtocol::Http);
        let word = version.as_ref().ok().copied().flatten();
        let protocol_version = word.and_then(ProtocolVersion::from_word).unwrap_or(ProtocolVersion::Http1);
        let health_check =
            self.health_check(ingress, service, &annotations, target_type, backend_protocol, protocol_version);
        let (Ok(()), Ok(_), Ok(_), Ok(user_tags), Ok(health_check)) =
            (known, protocol, version, user_tags, health_check)
        else {
            return Err(Failed);
        };
        let (attributes, node_labels) = (attributes?.unwrap_or_default(), node_labels?);
        let protocol = backend_protocol;
        let ip_address_type = self.target_addresses(member.name(), service, field)?;
        let port = match (target_type, &service_port.target_port, service_port.node_port) {
            (TargetType::Ip, ..) if service.assumed => Value::AfterApply(POD_PORT),
            (TargetType::Ip, PortReference::Number(number), _) => Value::Known(*number),
            // The pods decide what number the name means, each for itself; every target is registered with its own.
            (TargetType::Ip, PortReference::Name(_), _) => Value::Known(1),
            (TargetType::Instance, _, Some(node_port)) => Value::Known(node_port),
            (TargetType::Instance, _, None) if self.gets_node_port(service) => Value::AfterApply(NODE_PORT),
            (TargetType::Instance, _, None) => {
                let message = format!(
                    "the Service `{}` is of type {} and has no node port, but its targets are instances",
                    service.name, service.kind
                );
                let fix = "set `alb.ingress.kubernetes.io/target-type: ip`, or make the Service of type NodePort";
                return Err(self.error(&ingress.name, Code::Unsupported, field, &message, fix));
            }
        };
        let scheme = self.scheme;
        let after_apply = |why| (Value::AfterApply(why), Value::AfterApply(why));
        let (name, second_name) = if service.uid.is_empty() {
            after_apply("named after the Service's uid")
        } else if let Value::Known(port) = port.clone() {
            match self.named(|cluster| {
                let identity = names::TargetGroupIdentity {
                    cluster,
                    group: self.group,
                    ingress: &ingress.name,
                    service: &service.name,
                    service_uid: &service.uid,
                    service_port: written,
                    port,
                    target_type,
                    protocol,
                    protocol_version,
                };
                names::target_group(identity)
                    .and_then(|name| Ok((name, names::second_target_group(identity, scheme, ip_address_type)?)))
            }) {
                Value::Known(Ok((name, second))) => (Value::Known(name), Value::Known(second)),
                Value::AfterApply(why) => (Value::AfterApply(why), Value::AfterApply(why)),
                Value::Known(Err(invalid)) => {
                    return Err(self.error(
                        &ingress.name,
                        Code::InvalidValue,
                        field,
                        &invalid.to_string(),
                        "rename the Service",
                    ));
                }
            }
        } else {
            after_apply("named after the Service's port")
        };
        // Pods are chosen by the Service alone.
        let node_labels = node_labels.filter(|_| target_type == TargetType::Instance).unwrap_or_default();
        let binding = self.binding(node_labels, service, service_port, written, target_type, &health_check);
        let group = TargetGroup {
            resource: resource.clone(),
            name,
            second_name,
            target_type,
            protocol,
            protocol_version: Some(protocol_version),
            ip_address_type,
            port,
            vpc: self.config.vpc.clone(),
            health_check,
            attributes,
            tags: self.group.resource_tags(&self.config.cluster, &resource, &self.config.default_tags, &user_tags),
            binding,
            cause: cause(ingress, field),
        };
        self.target_groups.insert(resource.clone(), group);
        Ok(resource)
    }

    fn health_check(
        &mut self,
        ingress: &Ingress,
        service: &Service,
        annotations: &Annotations<'_>,
        target_type: TargetType,
        protocol: TargetGroupProtocol,
        version: ProtocolVersion,
    ) -> Result<HealthCheck, Failed> {
        let service_layer = Some(service);
        let port = self.health_check_port(ingress, service, annotations, target_type);
        let check_protocol = self.value(
            ingress,
            service_layer,
            annotations.enumerated(keys::HEALTHCHECK_PROTOCOL, TargetGroupProtocol::OF_APPLICATION_LOAD_BALANCERS),
        );
        let path = self.value(ingress, service_layer, annotations.string(keys::HEALTHCHECK_PATH));
        let interval = self.value(ingress, service_layer, annotations.i32(keys::HEALTHCHECK_INTERVAL_SECONDS));
        let timeout = self.value(ingress, service_layer, annotations.i32(keys::HEALTHCHECK_TIMEOUT_SECONDS));
        let healthy = self.value(ingress, service_layer, annotations.i32(keys::HEALTHY_THRESHOLD_COUNT));
        let unhealthy = self.value(ingress, service_layer, annotations.i32(keys::UNHEALTHY_THRESHOLD_COUNT));
        let codes = self.value(ingress, service_layer, annotations.string(keys::SUCCESS_CODES));
        let grpc = version == ProtocolVersion::Grpc;
        let codes = codes?;
        Ok(HealthCheck {
            port: port?,
            protocol: check_protocol?.and_then(HealthCheckProtocol::from_word).unwrap_or(match protocol {
                TargetGroupProtocol::Https => HealthCheckProtocol::Https,
                _ => HealthCheckProtocol::Http,
            }),
            path: Some(path?.unwrap_or_else(|| if grpc { "/AWS.ALB/healthcheck" } else { "/" }.to_owned())),
            interval_seconds: interval?.unwrap_or(15),
            timeout_seconds: timeout?.unwrap_or(5),
            healthy_threshold: healthy?.unwrap_or(2),
            unhealthy_threshold: unhealthy?.unwrap_or(2),
            matcher: Some(if grpc {
                Matcher::Grpc(codes.unwrap_or_else(|| "12".to_owned()))
            } else {
                Matcher::Http(codes.unwrap_or_else(|| "200".to_owned()))
            }),
        })
    }

    fn health_check_port(
        &mut self,
        ingress: &Ingress,
        service: &Service,
        annotations: &Annotations<'_>,
        target_type: TargetType,
    ) -> Result<String, Failed> {
        let Some(written) = self.value(ingress, Some(service), annotations.string(keys::HEALTHCHECK_PORT))? else {
            return Ok("traffic-port".to_owned());
        };
        if written == "traffic-port" {
            return Ok(written);
        }
        // Written as AWS gives it back: without a sign and leading zeros.
        if let Some(number) = written.parse::<u16>().ok().filter(|number| *number > 0) {
            return Ok(number.to_string());
        }
        let key = keys::HEALTHCHECK_PORT.as_str();
        let fix = "write `traffic-port`, a port number, or the name of a port of the Service";
        if service.assumed {
            return Ok(Value::<u16>::AfterApply(NAMED_PORT).to_string());
        }
        let Some(port) = service.ports.iter().find(|p| !p.name.is_empty() && p.name == written) else {
            let message = format!(
                "`{written}` is neither a port number nor the name of a port of the Service `{}`",
                service.name
            );
            return Err(self.error(&ingress.name, Code::InvalidValue, key, &message, fix));
        };
        match (target_type, &port.target_port, port.node_port) {
            (TargetType::Ip, PortReference::Number(number), _) => Ok(number.to_string()),
            (TargetType::Instance, _, Some(node_port)) => Ok(node_port.to_string()),
            (TargetType::Ip, PortReference::Name(name), _) => {
                let message = format!(
                    "the port `{written}` of the Service `{}` leads to the named port `{name}` of its pods, which may be another number in each",
                    service.name
                );
                Err(self.error(
                    &ingress.name,
                    Code::InvalidValue,
                    key,
                    &message,
                    "write the number of the port to check",
                ))
            }
            (TargetType::Instance, _, None) if self.gets_node_port(service) => {
                Ok(Value::<u16>::AfterApply(NODE_PORT).to_string())
            }
            (TargetType::Instance, _, None) => {
                let message = format!("the port `{written}` of the Service `{}` has no node port", service.name);
                Err(self.error(&ingress.name, Code::InvalidValue, key, &message, fix))
            }
        }
    }

    /// Returns whether a port without a node port gets one from the API server, which manifests have not seen yet.
    fn gets_node_port(&self, service: &Service) -> bool {
        self.snapshot.scope != Scope::Cluster && (service.assumed || service.gets_node_ports())
    }

    fn binding(
        &self,
        node_labels: BTreeMap<String, String>,
        service: &Service,
        service_port: &ServicePort,
        written: &PortReference,
        target_type: TargetType,
        health_check: &HealthCheck,
    ) -> Binding {
        let traffic = match (target_type, service_port.node_port) {
            (TargetType::Instance, Some(node_port)) => PortReference::Number(node_port),
            (TargetType::Instance, None) => port_after_apply(NODE_PORT),
            (TargetType::Ip, _) if service.assumed => port_after_apply(POD_PORT),
            (TargetType::Ip, _) => service_port.target_port.clone(),
        };
        let mut ports = Vec::new();
        if self.config.disable_restricted_rules {
            ports.push(NetworkingPort::tcp(None));
        } else {
            ports.push(NetworkingPort::tcp(Some(traffic)));
            let check = health_check.port.parse().ok().map(PortReference::Number);
            ports.extend(check.map(|port| NetworkingPort::tcp(Some(port))));
        }
        Binding {
            namespace: service.name.namespace.clone(),
            labels: self.group.binding_labels(),
            service: service.name.name.clone(),
            service_port: written.clone(),
            node_labels,
            // One rule a port, as aws-load-balancer-controller writes it.
            networking: self.backend_source.as_ref().map(|source| {
                let from = vec![NetworkingPeer::SecurityGroup(source.clone())];
                ports.into_iter().map(|port| NetworkingRule { from: from.clone(), ports: vec![port] }).collect()
            }),
        }
    }
}
