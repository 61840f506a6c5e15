//! The target group of an Ingress for one port of a Service, with its health check and binding (reference: ingress §7, §9.3).

use std::collections::BTreeMap;

use super::{Builder, Failed, Member, cause};
use crate::{
    api::annotations::{self, Annotations, registry::ingress as keys},
    desired::shared::{
        self,
        target_groups::{self, CheckNumbers, NoNodePort, TRAFFIC_PORT},
    },
    diagnostics::Code,
    model::{
        Attributes, Binding, HealthCheck, HealthCheckProtocol, InvalidName, IpAddressType, Matcher, NetworkingPeer,
        NetworkingPort, NetworkingRule, ObjectReference, PortReference, ProtocolVersion, ResourceId, Tags, TargetGroup,
        TargetGroupName, TargetGroupProtocol, TargetType, Value, names,
    },
    snapshot::{Ingress, Service, ServicePort},
};

/// The annotations of a backend that decide over its target group.
struct Requested {
    target_type: TargetType,
    protocol: TargetGroupProtocol,
    version: ProtocolVersion,
    attributes: Attributes,
    node_labels: BTreeMap<String, String>,
    multi_cluster: bool,
    user_tags: Tags,
    health_check: HealthCheck,
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
        let requested = self.requested_target_group(member, service, field)?;
        let ip_address_type = self.target_addresses(member.name(), service, field)?;
        let target_type = requested.target_type;
        let traffic = target_groups::traffic_port(self.snapshot.scope, service, service_port, target_type);
        let port = traffic.map_err(|NoNodePort| {
            let message = format!(
                "the Service `{}` is of type {} and has no node port, but its targets are instances",
                service.name, service.kind
            );
            let fix = "set `alb.ingress.kubernetes.io/target-type: ip`, or make the Service of type NodePort";
            self.error(&ingress.name, Code::Unsupported, field, &message, fix)
        })?;
        let (name, second_name) =
            self.group_names(ingress, service, written, &port, &requested, ip_address_type).map_err(|invalid| {
                let message = invalid.to_string();
                self.error(&ingress.name, Code::InvalidValue, field, &message, "rename the Service")
            })?;
        let opened = target_groups::opened_port(service, service_port, target_type, &port);
        let group = TargetGroup {
            resource: resource.clone(),
            name,
            second_name,
            target_type,
            protocol: requested.protocol,
            protocol_version: Some(requested.version),
            ip_address_type,
            port,
            vpc: self.config.vpc.clone(),
            tags: shared::tags::of_resource(self.config, self.group, &resource, &requested.user_tags),
            binding: Binding {
                namespace: service.name.namespace.clone(),
                labels: self.group.binding_labels(),
                service: service.name.name.clone(),
                service_port: written.clone(),
                node_labels: requested.node_labels,
                multi_cluster: requested.multi_cluster,
                networking: self.networking(opened, &requested.health_check),
            },
            health_check: requested.health_check,
            attributes: requested.attributes,
            cause: cause(ingress, field),
        };
        self.target_groups.insert(resource.clone(), group);
        Ok(resource)
    }

    /// The request for the target group in the annotations of the Service and the Ingress.
    fn requested_target_group(
        &mut self,
        member: Member<'a>,
        service: &Service,
        field: &str,
    ) -> Result<Requested, Failed> {
        let Member { ingress, .. } = member;
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
        let multi_cluster = self.multi_cluster(member, service, &annotations);
        let target_type = target_type?.unwrap_or(self.config.default_target_type);
        if target_type == TargetType::Ip && !self.config.enable_ip_target_type {
            let message = format!(
                "the targets of the Service `{}` are pods, and a feature gate disables the target type `ip`",
                service.name
            );
            let fix = "set `alb.ingress.kubernetes.io/target-type: instance`, or start the controller without `--feature-gates=EnableIPTargetType=false`";
            return Err(self.error(&ingress.name, Code::Unsupported, field, &message, fix));
        }
        let word = protocol.as_ref().ok().copied().flatten();
        let backend_protocol = word.and_then(TargetGroupProtocol::from_word).unwrap_or(TargetGroupProtocol::Http);
        let word = version.as_ref().ok().copied().flatten();
        let backend_version = word.and_then(ProtocolVersion::from_word).unwrap_or(ProtocolVersion::Http1);
        let health_check =
            self.health_check(ingress, service, &annotations, target_type, backend_protocol, backend_version);
        let (Ok(()), Ok(_), Ok(_), Ok(user_tags), Ok(health_check)) =
            (known, protocol, version, user_tags, health_check)
        else {
            return Err(Failed);
        };
        let (attributes, node_labels) = (attributes?.unwrap_or_default(), node_labels?);
        let multi_cluster = multi_cluster?;
        Ok(Requested {
            target_type,
            protocol: backend_protocol,
            version: backend_version,
            attributes,
            // Only the Service selects pods.
            node_labels: node_labels.filter(|_| target_type == TargetType::Instance).unwrap_or_default(),
            multi_cluster,
            user_tags,
            health_check,
        })
    }

    /// Returns true if other clusters register targets in the same group: the Ingress says so, or the Service.
    fn multi_cluster(
        &mut self,
        member: Member<'a>,
        service: &Service,
        layered: &Annotations<'_>,
    ) -> Result<bool, Failed> {
        let key = keys::MULTI_CLUSTER_TARGET_GROUP;
        let of_ingress = self.value(member.ingress, None, member.annotations.bool(key));
        let of_both = self.value(member.ingress, Some(service), layered.bool(key));
        Ok(of_ingress? == Some(true) || of_both? == Some(true))
    }

    /// The name of the target group, and the one where another of the stack has that.
    fn group_names(
        &self,
        ingress: &Ingress,
        service: &Service,
        written: &PortReference,
        port: &Value<u16>,
        requested: &Requested,
        ip_address_type: IpAddressType,
    ) -> Result<(Value<TargetGroupName>, Value<TargetGroupName>), InvalidName> {
        let both = match (shared::names::of_service(&service.uid), port) {
            (Value::AfterApply(why), _) => Value::AfterApply(why),
            (Value::Known(_), Value::AfterApply(_)) => Value::AfterApply("named after the Service's port"),
            (Value::Known(service_uid), Value::Known(port)) => self.named(|cluster| {
                let identity = names::TargetGroupIdentity {
                    cluster,
                    group: self.group,
                    ingress: &ingress.name,
                    service: &service.name,
                    service_uid,
                    service_port: written,
                    port: *port,
                    target_type: requested.target_type,
                    protocol: requested.protocol,
                    protocol_version: requested.version,
                };
                let first = names::target_group(identity)?;
                Ok((first, names::second_target_group(identity, self.scheme, ip_address_type)?))
            }),
        };
        shared::names::valid(both).map(shared::names::unzip)
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
        let numbers = CheckNumbers {
            interval_seconds: keys::HEALTHCHECK_INTERVAL_SECONDS,
            timeout_seconds: keys::HEALTHCHECK_TIMEOUT_SECONDS,
            healthy_threshold: keys::HEALTHY_THRESHOLD_COUNT,
            unhealthy_threshold: keys::UNHEALTHY_THRESHOLD_COUNT,
        };
        let numbers = numbers.read(|key| self.value(ingress, service_layer, annotations.i32(key)));
        let codes = self.value(ingress, service_layer, annotations.string(keys::SUCCESS_CODES));
        let grpc = version == ProtocolVersion::Grpc;
        let (codes, port) = (codes?, port?);
        let defaults =
            CheckNumbers { interval_seconds: 15, timeout_seconds: 5, healthy_threshold: 2, unhealthy_threshold: 2 };
        let CheckNumbers { interval_seconds, timeout_seconds, healthy_threshold, unhealthy_threshold } =
            numbers.or(defaults)?;
        Ok(HealthCheck {
            port,
            protocol: check_protocol?.and_then(HealthCheckProtocol::from_word).unwrap_or(match protocol {
                TargetGroupProtocol::Https => HealthCheckProtocol::Https,
                _ => HealthCheckProtocol::Http,
            }),
            path: Some(path?.unwrap_or_else(|| if grpc { "/AWS.ALB/healthcheck" } else { "/" }.to_owned())),
            interval_seconds,
            timeout_seconds,
            healthy_threshold,
            unhealthy_threshold,
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
            return Ok(TRAFFIC_PORT.to_owned());
        };
        target_groups::check_port(self.snapshot.scope, service, target_type, &written).map_err(|error| {
            let (message, fix) = error.explain(&written, Some(&service.name));
            self.error(&ingress.name, Code::InvalidValue, keys::HEALTHCHECK_PORT.as_str(), &message, fix)
        })
    }

    /// Rules that allow the load balancer, one for each port, as aws-load-balancer-controller writes them. `None` where they
    /// are the user's.
    fn networking(&self, traffic: PortReference, health_check: &HealthCheck) -> Option<Vec<NetworkingRule>> {
        let source = self.backend_source.as_ref()?;
        let ports = if self.config.disable_restricted_rules {
            target_groups::unrestricted_ports(false)
        } else {
            let check = target_groups::numbered_check_port(health_check);
            [Some(traffic), check].into_iter().flatten().map(|port| NetworkingPort::tcp(Some(port))).collect()
        };
        let from = vec![NetworkingPeer::SecurityGroup(source.clone())];
        Some(ports.into_iter().map(|port| NetworkingRule { from: from.clone(), ports: vec![port] }).collect())
    }
}
