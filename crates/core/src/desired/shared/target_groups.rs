//! The ports and health checks of target groups.

use crate::{
    api::annotations::Key,
    desired::diagnostic_sink::Failed,
    model::{HealthCheck, NetworkingPort, ObjectName, PortReference, TargetType, Value},
    snapshot::{Scope, Service, ServicePort},
};

/// The reason why a node port is unknown in a plan of files.
pub(in crate::desired) const NODE_PORT: &str = "the node port that the API server gives the Service";
const POD_PORT: &str = "the port of the Service's pods";
const NAMED_PORT: &str = "the port of that name of the Service";

/// The health check port that stands for the port of the traffic.
pub(in crate::desired) const TRAFFIC_PORT: &str = "traffic-port";

/// Returns a placeholder for a port that is unknown in a plan of files. Such a stack is shown and never applied.
fn port_after_apply(why: &'static str) -> PortReference {
    PortReference::Name(Value::<u16>::AfterApply(why).to_string())
}

/// The error of targets that are instances when the Service's port has no node port.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::desired) struct NoNodePort;

/// Returns true if the API server will assign a node port that is not in the manifests.
pub(in crate::desired) fn gets_node_port(scope: Scope, service: &Service) -> bool {
    scope != Scope::Cluster && (service.assumed || service.gets_node_ports())
}

/// Returns the port on which targets receive traffic.
pub(in crate::desired) fn traffic_port(
    scope: Scope,
    service: &Service,
    port: &ServicePort,
    target_type: TargetType,
) -> Result<Value<u16>, NoNodePort> {
    match (target_type, &port.target_port, port.node_port) {
        (TargetType::Ip, ..) if service.assumed => Ok(Value::AfterApply(POD_PORT)),
        (TargetType::Ip, PortReference::Number(number), _) => Ok(Value::Known(*number)),
        // Each pod decides which number the name means, and each target is registered with its own port.
        (TargetType::Ip, PortReference::Name(_), _) => Ok(Value::Known(1)),
        (TargetType::Instance, _, Some(node_port)) => Ok(Value::Known(node_port)),
        (TargetType::Instance, _, None) if gets_node_port(scope, service) => Ok(Value::AfterApply(NODE_PORT)),
        (TargetType::Instance, _, None) => Err(NoNodePort),
    }
}

/// Returns the port that rules on nodes and pods open for traffic: `port`, or its name in the pods.
pub(in crate::desired) fn opened_port(
    service: &Service,
    service_port: &ServicePort,
    target_type: TargetType,
    port: &Value<u16>,
) -> PortReference {
    match (target_type, port) {
        (TargetType::Ip, Value::Known(_)) if !service.assumed => service_port.target_port.clone(),
        (_, Value::Known(port)) => PortReference::Number(*port),
        (_, Value::AfterApply(why)) => port_after_apply(why),
    }
}

/// Returns the port of health checks, if it is a number.
pub(in crate::desired) fn numbered_check_port(health_check: &HealthCheck) -> Option<PortReference> {
    health_check.port.parse().ok().map(PortReference::Number)
}

/// Returns the ports that unrestricted rules open: all.
pub(in crate::desired) fn unrestricted_ports(udp: bool) -> Vec<NetworkingPort> {
    std::iter::once(NetworkingPort::tcp(None)).chain(udp.then(|| NetworkingPort::udp(None))).collect()
}

/// The reason why the text of a health check port is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::desired) enum CheckPortError {
    /// The text is neither a number nor the name of a port.
    Unknown,
    /// The port maps to the pods' port of this name.
    NamedPodPort(String),
    /// The port has no node port.
    NoNodePort,
}

impl CheckPortError {
    /// Returns the message and the fix. `named` is the Service, if the reader cannot know it from the context.
    pub(in crate::desired) fn explain(&self, written: &str, named: Option<&ObjectName>) -> (String, &'static str) {
        const FIX: &str = "write `traffic-port`, a port number, or the name of a port of the Service";
        let (of_service, of_pods) = match named {
            Some(service) => (format!(" of the Service `{service}`"), "its pods"),
            None => (String::new(), "pods"),
        };
        match self {
            Self::Unknown => {
                let service = named.map_or_else(String::new, |service| format!(" `{service}`"));
                let message =
                    format!("`{written}` is neither a port number nor the name of a port of the Service{service}");
                (message, FIX)
            }
            Self::NamedPodPort(name) => {
                let message = format!(
                    "the port `{written}`{of_service} leads to the named port `{name}` of {of_pods}, which may be another number in each"
                );
                (message, "write the number of the port to check")
            }
            Self::NoNodePort => (format!("the port `{written}`{of_service} has no node port"), FIX),
        }
    }
}

/// Returns the port of health checks in the form that AWS returns: `traffic-port`, or a number without a sign and
/// leading zeros.
pub(in crate::desired) fn check_port(
    scope: Scope,
    service: &Service,
    target_type: TargetType,
    written: &str,
) -> Result<String, CheckPortError> {
    if written == TRAFFIC_PORT {
        return Ok(written.to_owned());
    }
    if let Some(number) = written.parse::<u16>().ok().filter(|number| *number > 0) {
        return Ok(number.to_string());
    }
    if service.assumed {
        return Ok(Value::<u16>::AfterApply(NAMED_PORT).to_string());
    }
    let mut ports = service.ports.iter();
    let port = ports.find(|port| !port.name.is_empty() && port.name == written).ok_or(CheckPortError::Unknown)?;
    match (target_type, &port.target_port) {
        (TargetType::Ip, PortReference::Name(name)) => Err(CheckPortError::NamedPodPort(name.clone())),
        _ => traffic_port(scope, service, port, target_type)
            .map(|port| port.to_string())
            .map_err(|NoNodePort| CheckPortError::NoNodePort),
    }
}

/// The numeric settings of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::desired) struct CheckNumbers<T> {
    pub(in crate::desired) interval_seconds: T,
    pub(in crate::desired) timeout_seconds: T,
    pub(in crate::desired) healthy_threshold: T,
    pub(in crate::desired) unhealthy_threshold: T,
}

impl CheckNumbers<Key> {
    /// Reads all four settings, so that every error is reported.
    pub(in crate::desired) fn read(
        self,
        mut read: impl FnMut(Key) -> Result<Option<i32>, Failed>,
    ) -> CheckNumbers<Result<Option<i32>, Failed>> {
        CheckNumbers {
            interval_seconds: read(self.interval_seconds),
            timeout_seconds: read(self.timeout_seconds),
            healthy_threshold: read(self.healthy_threshold),
            unhealthy_threshold: read(self.unhealthy_threshold),
        }
    }
}

impl CheckNumbers<Result<Option<i32>, Failed>> {
    /// Returns the numbers, with defaults for the numbers that are not set.
    pub(in crate::desired) fn or(self, defaults: CheckNumbers<i32>) -> Result<CheckNumbers<i32>, Failed> {
        Ok(CheckNumbers {
            interval_seconds: self.interval_seconds?.unwrap_or(defaults.interval_seconds),
            timeout_seconds: self.timeout_seconds?.unwrap_or(defaults.timeout_seconds),
            healthy_threshold: self.healthy_threshold?.unwrap_or(defaults.healthy_threshold),
            unhealthy_threshold: self.unhealthy_threshold?.unwrap_or(defaults.unhealthy_threshold),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PortReference::{Name, Number};
    use TargetType::{Instance, Ip};

    fn port(name: &str, target: PortReference, node_port: Option<u16>) -> ServicePort {
        let assumed = Service::assumed(ObjectName::new("shop", "web"), &Number(80));
        ServicePort { name: name.to_owned(), target_port: target, node_port, ..assumed.ports[0].clone() }
    }

    fn service(kind: &str) -> Service {
        let ports = vec![
            port("numbered", Number(8080), Some(30080)),
            port("named", Name("http".to_owned()), None),
            port("", Number(1), None),
        ];
        let assumed = Service::assumed(ObjectName::new("shop", "web"), &Number(80));
        Service { ports, kind: kind.to_owned(), assumed: false, ..assumed }
    }

    #[test]
    fn traffic() {
        let (cluster_ip, node_port) = (service("ClusterIP"), service("NodePort"));
        let assumed = Service::assumed(ObjectName::new("shop", "web"), &Number(80));
        for (scope, service, index, target_type, expected, opened) in [
            (Scope::Cluster, &cluster_ip, 0, Ip, Ok(Value::Known(8080)), Some(Number(8080))),
            (Scope::Cluster, &cluster_ip, 1, Ip, Ok(Value::Known(1)), Some(Name("http".to_owned()))),
            (Scope::Cluster, &cluster_ip, 0, Instance, Ok(Value::Known(30080)), Some(Number(30080))),
            (Scope::Cluster, &node_port, 1, Instance, Err(NoNodePort), None),
            (Scope::Files, &cluster_ip, 1, Instance, Err(NoNodePort), None),
            (
                Scope::Files,
                &node_port,
                1,
                Instance,
                Ok(Value::AfterApply(NODE_PORT)),
                Some(port_after_apply(NODE_PORT)),
            ),
            (Scope::Files, &assumed, 0, Instance, Ok(Value::AfterApply(NODE_PORT)), Some(port_after_apply(NODE_PORT))),
            (Scope::Files, &assumed, 0, Ip, Ok(Value::AfterApply(POD_PORT)), Some(port_after_apply(POD_PORT))),
        ] {
            let port = &service.ports[index];
            let found = traffic_port(scope, service, port, target_type);
            assert_eq!(found, expected, "{scope:?} {target_type:?} {port:?}");
            assert_eq!(found.ok().map(|found| opened_port(service, port, target_type, &found)), opened);
        }
    }

    #[test]
    fn health_checks() {
        let (cluster_ip, node_port) = (service("ClusterIP"), service("NodePort"));
        let assumed = Service::assumed(ObjectName::new("shop", "web"), &Number(80));
        let after = |why| Ok(Value::<u16>::AfterApply(why).to_string());
        let known = |text: &str| Ok(text.to_owned());
        for (scope, service, target_type, written, expected) in [
            (Scope::Cluster, &cluster_ip, Ip, "traffic-port", known("traffic-port")),
            (Scope::Cluster, &cluster_ip, Ip, "+080", known("80")),
            (Scope::Cluster, &cluster_ip, Ip, "0", Err(CheckPortError::Unknown)),
            (Scope::Cluster, &cluster_ip, Ip, "", Err(CheckPortError::Unknown)),
            (Scope::Cluster, &cluster_ip, Ip, "numbered", known("8080")),
            (Scope::Cluster, &cluster_ip, Instance, "numbered", known("30080")),
            (Scope::Cluster, &cluster_ip, Ip, "named", Err(CheckPortError::NamedPodPort("http".to_owned()))),
            (Scope::Cluster, &node_port, Instance, "named", Err(CheckPortError::NoNodePort)),
            (Scope::Files, &node_port, Instance, "named", after(NODE_PORT)),
            (Scope::Files, &assumed, Instance, "named", after(NAMED_PORT)),
        ] {
            assert_eq!(check_port(scope, service, target_type, written), expected, "{scope:?} {written}");
        }
    }

    #[test]
    fn explanations() {
        let web = ObjectName::new("shop", "web");
        let named = CheckPortError::NamedPodPort("http".to_owned());
        for (error, service, expected) in [
            (CheckPortError::Unknown, None, "`x` is neither a port number nor the name of a port of the Service"),
            (
                CheckPortError::Unknown,
                Some(&web),
                "`x` is neither a port number nor the name of a port of the Service `shop/web`",
            ),
            (
                named.clone(),
                None,
                "the port `x` leads to the named port `http` of pods, which may be another number in each",
            ),
            (
                named,
                Some(&web),
                "the port `x` of the Service `shop/web` leads to the named port `http` of its pods, which may be another number in each",
            ),
            (CheckPortError::NoNodePort, None, "the port `x` has no node port"),
            (CheckPortError::NoNodePort, Some(&web), "the port `x` of the Service `shop/web` has no node port"),
        ] {
            assert_eq!(error.explain("x", service).0, expected);
        }
    }

    #[test]
    fn numbers() {
        fn all<T: Copy>(value: T) -> CheckNumbers<T> {
            CheckNumbers {
                interval_seconds: value,
                timeout_seconds: value,
                healthy_threshold: value,
                unhealthy_threshold: value,
            }
        }
        let key = crate::api::annotations::registry::ingress::HEALTHCHECK_INTERVAL_SECONDS;
        let mut reads = 0;
        let read = all(key).read(|_| {
            reads += 1;
            if reads == 2 { Ok(Some(7)) } else { Ok(None) }
        });
        assert_eq!(read.or(all(3)).unwrap(), CheckNumbers { timeout_seconds: 7, ..all(3) });
        assert_eq!(reads, 4);
        assert!(all(key).read(|_| Err(Failed)).or(all(3)).is_err());
    }
}
