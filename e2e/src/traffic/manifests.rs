//! The objects of scenarios.

use serde_json::{Map, Value, json};

use crate::lab::kubelet::{ON_TERM, READY_AFTER};

/// Until a deregistered target has no more time, in seconds: short, so that what AWS lets go after it goes soon.
pub(super) const DRAIN: u64 = 5;
const PREFIX: &str = "alb.ingress.kubernetes.io/";
const SERVICE_PREFIX: &str = "service.beta.kubernetes.io/aws-load-balancer-";

/// A Deployment whose pods answer to HTTP, TLS, lines and datagrams.
#[derive(Clone)]
pub(super) struct App {
    pub(super) name: &'static str,
    pub(super) replicas: usize,
    /// The port at which the pods answer.
    pub(super) port: u16,
    /// The milliseconds that the pods take to start.
    pub(super) starts_in: u64,
    /// A change of it rolls the Deployment over.
    pub(super) version: &'static str,
    /// The seconds that a preStop hook sleeps; 0 for none.
    pub(super) pre_stop: u64,
    /// True if pods complete what they have on SIGTERM; else they exit at once.
    pub(super) drains: bool,
    /// Conditions that pods wait for before they are ready.
    pub(super) gates: Vec<String>,
}

impl App {
    pub(super) fn new(name: &'static str, replicas: usize, pre_stop: u64) -> Self {
        Self { name, replicas, port: 8080, starts_in: 0, version: "one", pre_stop, drains: true, gates: Vec::new() }
    }

    pub(super) fn objects(&self) -> Vec<Value> {
        vec![self.deployment(), self.service()]
    }

    /// A Service for it, with a node port so that it may be reached through instances too.
    fn service(&self) -> Value {
        let ports = json!([{"name": "http", "port": 80, "targetPort": self.port}]);
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name},
            "spec": {"type": "NodePort", "selector": {"app": self.name}, "ports": ports},
        })
    }

    pub(super) fn deployment(&self) -> Value {
        let gates: Vec<Value> = self.gates.iter().map(|gate| json!({"conditionType": gate})).collect();
        let sleep = |seconds| json!({"preStop": {"sleep": {"seconds": seconds}}});
        let container = json!({
            "name": "app",
            "image": "example.com/app",
            "ports": [{"containerPort": self.port}, {"name": "datagrams", "containerPort": self.port, "protocol": "UDP"}],
            "readinessProbe": {"httpGet": {"path": "/", "port": self.port}, "periodSeconds": 1},
            "lifecycle": (self.pre_stop > 0).then(|| sleep(self.pre_stop)),
        });
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": self.name}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
                "template": {
                    "metadata": {
                        "labels": {"app": self.name, "version": self.version},
                        "annotations": {
                            ON_TERM: if self.drains { "drain" } else { "exit" },
                            READY_AFTER: self.starts_in.to_string(),
                        },
                    },
                    "spec": {
                        "terminationGracePeriodSeconds": self.pre_stop + 30,
                        "readinessGates": gates,
                        "containers": [container],
                    },
                },
            },
        })
    }
}

/// An Ingress.
#[derive(Clone)]
pub(super) struct Ingress {
    name: String,
    class: String,
    annotations: Map<String, Value>,
    /// Host, path, type of the path, backend.
    paths: Vec<(Option<String>, String, &'static str, Value)>,
    tls: Vec<String>,
}

impl Ingress {
    /// An internet-facing Ingress for pods as targets, without a path, whose group drains in [`DRAIN`] seconds.
    pub(super) fn new(name: &str) -> Self {
        let ingress = Self {
            name: name.to_owned(),
            class: "alb".to_owned(),
            annotations: Map::new(),
            paths: Vec::new(),
            tls: Vec::new(),
        };
        ingress
            .with("scheme", "internet-facing")
            .with("target-type", "ip")
            .with("healthcheck-interval-seconds", "5")
            .with("healthcheck-timeout-seconds", "2")
            .with("target-group-attributes", &format!("deregistration_delay.timeout_seconds={DRAIN}"))
    }

    pub(super) fn with(mut self, annotation: &str, value: &str) -> Self {
        self.annotations.insert(format!("{PREFIX}{annotation}"), value.into());
        self
    }

    pub(super) fn without(mut self, annotation: &str) -> Self {
        self.annotations.remove(&format!("{PREFIX}{annotation}"));
        self
    }

    pub(super) fn class(self, class: &str) -> Self {
        Self { class: class.to_owned(), ..self }
    }

    /// A path and what begins with it, to a Service.
    pub(super) fn path(self, path: &str, service: &str) -> Self {
        self.rule(None, path, "Prefix", service)
    }

    /// A host, to a Service.
    pub(super) fn host(self, host: &str, service: &str) -> Self {
        self.rule(Some(host), "/", "Prefix", service)
    }

    pub(super) fn rule(self, host: Option<&str>, path: &str, kind: &'static str, service: &str) -> Self {
        self.backend(host, path, kind, json!({"name": service, "port": {"number": 80}}))
    }

    /// A path to an action of the annotation `actions.NAME`.
    pub(super) fn action(self, path: &str, name: &str) -> Self {
        self.backend(None, path, "Prefix", json!({"name": name, "port": {"name": "use-annotation"}}))
    }

    fn backend(mut self, host: Option<&str>, path: &str, kind: &'static str, service: Value) -> Self {
        self.paths.push((host.map(str::to_owned), path.to_owned(), kind, service));
        self
    }

    pub(super) fn tls(mut self, host: &str) -> Self {
        self.tls.push(host.to_owned());
        self
    }

    pub(super) fn object(&self) -> Value {
        let rules = self.paths.iter().map(|(host, path, kind, service)| {
            let path = json!({"path": path, "pathType": kind, "backend": {"service": service}});
            json!({"host": host, "http": {"paths": [path]}})
        });
        let tls = (!self.tls.is_empty()).then(|| json!([{"hosts": self.tls}]));
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": self.name, "annotations": self.annotations},
            "spec": {"ingressClassName": self.class, "rules": rules.collect::<Vec<_>>(), "tls": tls},
        })
    }
}

/// A Service of type LoadBalancer.
#[derive(Clone)]
pub(super) struct Balanced {
    name: String,
    app: &'static str,
    annotations: Map<String, Value>,
    /// Port and protocol.
    ports: Vec<(u16, &'static str)>,
}

impl Balanced {
    /// An internet-facing one for the pods of a Deployment as targets.
    pub(super) fn new(name: &str, app: &'static str) -> Self {
        let service = Self { name: name.to_owned(), app, annotations: Map::new(), ports: Vec::new() };
        service
            .with("scheme", "internet-facing")
            .with("nlb-target-type", "ip")
            .with("healthcheck-interval", "5")
            .with("healthcheck-timeout", "2")
            .with("attributes", "load_balancing.cross_zone.enabled=true")
            .with("target-group-attributes", &format!("deregistration_delay.timeout_seconds={DRAIN}"))
    }

    pub(super) fn with(mut self, annotation: &str, value: &str) -> Self {
        self.annotations.insert(format!("{SERVICE_PREFIX}{annotation}"), value.into());
        self
    }

    /// With the action of a listener, such as `TCP-80`.
    pub(super) fn with_action(mut self, listener: &str, action: &str) -> Self {
        self.annotations.insert(format!("service.beta.kubernetes.io/actions.{listener}"), action.into());
        self
    }

    pub(super) fn port(mut self, port: u16, protocol: &'static str) -> Self {
        self.ports.push((port, protocol));
        self
    }

    pub(super) fn object(&self) -> Value {
        let ports = self.ports.iter().map(|(port, protocol)| {
            let name = format!("p{port}-{}", protocol.to_ascii_lowercase());
            json!({"name": name, "port": port, "protocol": protocol, "targetPort": 8080})
        });
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name, "annotations": self.annotations},
            "spec": {
                "type": "LoadBalancer",
                "loadBalancerClass": "service.k8s.aws/nlb",
                "selector": {"app": self.app},
                "ports": ports.collect::<Vec<_>>(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ingress_has_its_paths_in_order_and_a_service_its_ports() {
        let ingress = Ingress::new("web").path("/a", "one").action("/b", "go").host("h.example.com", "two").object();
        let rules = ingress["spec"]["rules"].as_array().unwrap();
        let paths: Vec<_> = rules.iter().map(|rule| &rule["http"]["paths"][0]["path"]).collect();
        assert_eq!(paths, ["/a", "/b", "/"]);
        assert_eq!(rules[1]["http"]["paths"][0]["backend"]["service"]["port"]["name"], "use-annotation");
        assert_eq!(rules[2]["host"], "h.example.com");
        assert_eq!(ingress["metadata"]["annotations"]["alb.ingress.kubernetes.io/target-type"], "ip");
        let service = Balanced::new("direct", "web").port(80, "TCP").port(80, "UDP").object();
        let names: Vec<_> = service["spec"]["ports"].as_array().unwrap().iter().map(|port| &port["name"]).collect();
        assert_eq!(names, ["p80-tcp", "p80-udp"]);
    }
}
