//! The objects of a world, as users write them.

use serde_json::{Value, json};

use albatross_core::model::QuicServerId;
use albatross_simulation::{aws::SimulatedAws, cluster::SimulatedCluster, random::Random};

pub(crate) const NAMESPACE: &str = "shop";
/// The role of another account, and the external id that it requires.
pub(crate) const ROLE: &str = "arn:aws:iam::111122223333:role/targets";
pub(crate) const EXTERNAL_ID: &str = "worlds";
const CERTIFICATES: [&str; 3] = [
    "arn:aws:acm:us-west-2:123456789012:certificate/one",
    "arn:aws:acm:us-west-2:123456789012:certificate/two",
    "arn:aws:acm:us-west-2:123456789012:certificate/three",
];

const WEB_ACLS: [&str; 2] = [
    "arn:aws:wafv2:us-west-2:123456789012:regional/webacl/edge/0a1b",
    "arn:aws:wafv2:us-west-2:123456789012:regional/webacl/strict/0a1b",
];

fn alb(suffix: &str) -> String {
    format!("alb.ingress.kubernetes.io/{suffix}")
}

fn nlb(suffix: &str) -> String {
    format!("service.beta.kubernetes.io/aws-load-balancer-{suffix}")
}

/// Returns a value for an annotation that an object has from its creation and that may change at any time.
fn value(annotation: &str, random: &mut Random) -> String {
    let number = random.below(4);
    match annotation {
        "healthcheck-path" => format!("/health-{number}"),
        "healthcheck-interval-seconds" => (10 + number * 5).to_string(),
        "success-codes" => format!("200-{}", 200 + number),
        "tags" | "additional-resource-tags" => format!("team=team-{number},kept=always"),
        "target-group-attributes" => format!("deregistration_delay.timeout_seconds={}", 10 * number),
        // AWS shows some of these in another form.
        "load-balancer-attributes" => {
            format!("idle_timeout.timeout_seconds={},routing.http2.enabled=False", 60 + number)
        }
        "inbound-cidrs" => ["0.0.0.0/0", "10.1.2.3/8", "10.0.0.0/8,192.168.0.0/16", "172.16.0.0/12"][number].to_owned(),
        "listen-ports" => [
            r#"[{"HTTP":80}]"#,
            r#"[{"HTTP":80},{"HTTP":8080}]"#,
            r#"[{"HTTP":80},{"HTTPS":443}]"#,
            r#"[{"HTTPS":443},{"HTTPS":8443}]"#,
        ][number]
            .to_owned(),
        "target-type" => ["ip", "instance"][number % 2].to_owned(),
        "actions.answer" => format!(
            r#"{{"type":"fixed-response","fixedResponseConfig":{{"contentType":"text/plain","statusCode":"{}","messageBody":"no"}}}}"#,
            500 + number
        ),
        "certificate-arn" => match number {
            0..3 => CERTIFICATES[number].to_owned(),
            _ => CERTIFICATES.join(","),
        },
        "wafv2-acl-arn" => match number {
            0..2 => WEB_ACLS[number].to_owned(),
            _ => "none".to_owned(),
        },
        "wafv2-acl-name" => ["edge", "strict", "none", "edge"][number].to_owned(),
        "shield-advanced-protection" => number.is_multiple_of(2).to_string(),
        // An empty one asks for none.
        "ipam-ipv4-pool-id" => ["", "ipam-pool-1", "ipam-pool-2", "ipam-pool-1"][number].to_owned(),
        "minimum-load-balancer-capacity" => format!("CapacityUnits={}", 100 * number),
        "inbound-sg-rules-on-private-link-traffic" => ["on", "off"][number % 2].to_owned(),
        "ip-address-type" => ["ipv4", "dualstack"][number % 2].to_owned(),
        "enable-frontend-nlb" => (number > 0).to_string(),
        "frontend-nlb-scheme" => ["internal", "internet-facing"][number % 2].to_owned(),
        "frontend-nlb-listener-port-mapping" => {
            ["80=80", "80=80,443=443", "8081=80,443=443,8443=8443", "80=443,8080=8080"][number].to_owned()
        }
        "frontend-nlb-healthcheck-path" => format!("/up-{number}"),
        "frontend-nlb-tags" => format!("front={number}"),
        other => panic!("no values for {other}"),
    }
}

/// The annotations that an Ingress may have from its beginning on, with their probabilities. One that is removed again leaves
/// what it made of attributes, web ACLs and protections in place, so none is but that of tags.
const INGRESS_ANNOTATIONS: [(&str, f64); 11] = [
    ("certificate-arn", 1.0),
    ("actions.answer", 1.0),
    ("target-type", 0.8),
    ("listen-ports", 0.5),
    ("healthcheck-path", 0.4),
    ("healthcheck-interval-seconds", 0.3),
    ("success-codes", 0.2),
    ("tags", 0.4),
    ("target-group-attributes", 0.3),
    ("load-balancer-attributes", 0.3),
    ("inbound-cidrs", 0.3),
];

/// The same for the settings that other services hold.
const ADD_ONS: [(&str, f64); 5] = [
    ("wafv2-acl-arn", 0.3),
    ("wafv2-acl-name", 0.2),
    ("shield-advanced-protection", 0.3),
    ("minimum-load-balancer-capacity", 0.3),
    ("ipam-ipv4-pool-id", 0.3),
];

/// The same for the Network Load Balancer in front.
const FRONTEND: [(&str, f64); 5] = [
    ("enable-frontend-nlb", 0.3),
    ("frontend-nlb-scheme", 0.5),
    ("frontend-nlb-listener-port-mapping", 0.4),
    ("frontend-nlb-healthcheck-path", 0.3),
    ("frontend-nlb-tags", 0.3),
];

/// The same for a Service with a load balancer.
const SERVICE_ANNOTATIONS: [(&str, &str, f64); 6] = [
    ("additional-resource-tags", "tags", 0.5),
    ("target-group-attributes", "target-group-attributes", 0.4),
    ("healthcheck-interval", "healthcheck-interval-seconds", 0.3),
    ("minimum-load-balancer-capacity", "minimum-load-balancer-capacity", 0.3),
    ("inbound-sg-rules-on-private-link-traffic", "inbound-sg-rules-on-private-link-traffic", 0.3),
    ("ip-address-type", "ip-address-type", 0.3),
];

pub(crate) fn backend_name(number: usize) -> String {
    format!("back-{number}")
}

fn backend(random: &mut Random, backends: usize) -> Value {
    if random.chance(0.1) {
        return json!({ "service": { "name": "answer", "port": { "name": "use-annotation" } } });
    }
    let port = if random.chance(0.2) { json!({ "name": "admin" }) } else { json!({ "number": 80 }) };
    json!({ "service": { "name": backend_name(random.below(backends)), "port": port } })
}

/// Rules of an Ingress: hosts with paths, each path once.
fn rules(random: &mut Random, backends: usize) -> Value {
    let host = |number: usize| match number {
        0 => None,
        number => Some(format!("h{number}.example.com")),
    };
    let hosts = 1 + random.below(2);
    let rules: Vec<Value> = (0..hosts)
        .map(|number| {
            let first = random.below(4);
            let paths: Vec<Value> = (0..1 + random.below(3))
                .map(|path| {
                    let kind = *random.pick(&["Prefix", "Exact", "ImplementationSpecific"]).unwrap();
                    let path = format!("/p{}", (first + path) % 5);
                    json!({ "path": path, "pathType": kind, "backend": backend(random, backends) })
                })
                .collect();
            let mut rule = json!({ "http": { "paths": paths } });
            if let Some(host) = host(number + random.below(2) * 2) {
                rule["host"] = json!(host);
            }
            rule
        })
        .collect();
    json!(rules)
}

pub(crate) fn ingress(name: &str, random: &mut Random, backends: usize) -> Value {
    let mut annotations = json!({ alb("scheme"): if random.chance(0.5) { "internal" } else { "internet-facing" } });
    for (annotation, probability) in INGRESS_ANNOTATIONS {
        if random.chance(probability) {
            annotations[alb(annotation)] = json!(value(annotation, random));
        }
    }
    let mut of_add_ons = random.fork(31);
    for (annotation, probability) in ADD_ONS {
        if of_add_ons.chance(probability) {
            annotations[alb(annotation)] = json!(value(annotation, &mut of_add_ons));
        }
    }
    let mut of_front = random.fork(37);
    let has_front = of_front.chance(FRONTEND[0].1);
    for (annotation, probability) in FRONTEND.into_iter().filter(|_| has_front) {
        if of_front.chance(probability.max(f64::from(u8::from(annotation == FRONTEND[0].0)))) {
            annotations[alb(annotation)] = json!(value(annotation, &mut of_front));
        }
    }
    // It stays: where it comes or goes while pods do, what is registered depends on the past.
    if random.fork(38).chance(0.2) {
        annotations[alb("multi-cluster-target-group")] = json!("true");
    }
    let mut spec = json!({ "ingressClassName": "alb", "rules": rules(random, backends) });
    if random.chance(0.2) {
        spec["defaultBackend"] = backend(random, backends);
    }
    if random.fork(39).chance(0.25) {
        annotations.as_object_mut().unwrap().remove(&alb("certificate-arn"));
        annotations[alb("create-acm-cert")] = json!("true");
        // Rules may have no host.
        spec["tls"] = json!([{ "hosts": ["*.example.com", format!("{name}.example.org")] }]);
    }
    json!({ "kind": "Ingress", "metadata": { "name": name, "namespace": NAMESPACE, "annotations": annotations }, "spec": spec })
}

/// Makes an Ingress the only user of its target groups.
pub(crate) fn without_other_clusters(object: &mut Value) {
    object["metadata"]["annotations"].as_object_mut().unwrap().remove(&alb("multi-cluster-target-group"));
}

/// Puts an Ingress in a group, in another one or in none, and removes from it what members could differ about: the member that came
/// first would win, and the world would depend on its past.
pub(crate) fn regroup(object: &mut Value, random: &mut Random) {
    object["spec"].as_object_mut().unwrap().remove("defaultBackend");
    let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
    let add_ons = ADD_ONS.iter().chain(&FRONTEND).map(|(annotation, _)| *annotation);
    for suffix in ["tags", "load-balancer-attributes", "inbound-cidrs"].into_iter().chain(add_ons) {
        annotations.remove(&alb(suffix));
    }
    annotations.insert(alb("scheme"), json!("internal"));
    if !annotations.contains_key(&alb("group.order")) || random.chance(0.2) {
        annotations.insert(alb("group.order"), json!(random.below(3).to_string()));
        match random.below(4) {
            0 => drop(annotations.remove(&alb("group.name"))),
            1 => drop(annotations.insert(alb("group.name"), json!("inner"))),
            _ => drop(annotations.insert(alb("group.name"), json!("edge"))),
        }
    }
}

/// A Service behind Ingresses or bindings.
pub(crate) fn backend_service(number: usize) -> Value {
    let port = |name: &str, port: usize, at: usize| json!({ "name": name, "port": port, "targetPort": port + 8000, "nodePort": 30000 + number * 10 + at, "protocol": "TCP" });
    json!({
        "kind": "Service",
        "metadata": { "name": backend_name(number), "namespace": NAMESPACE },
        "spec": { "type": "NodePort", "ports": [port("web", 80, 0), port("admin", 9000, 1)], "ipFamilies": ["IPv4"] },
    })
}

/// The annotation of a Service whose first listener is of QUIC.
const QUIC: &str = "quic-enabled-ports";

/// What UDP needs beside IPv6 addresses.
const UDP_OF_IPV6: [(&str, &str); 2] = [("ip-address-type", "dualstack"), ("enable-prefix-for-ipv6-source-nat", "on")];

/// Makes the UDP listener of a Service one of QUIC, or the other way round. Only UDP may have IPv6 addresses beside it.
fn edit_quic(object: &mut Value, random: &mut Random) -> String {
    let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
    if annotations.remove(&nlb(QUIC)).is_some() {
        if random.chance(0.5) {
            annotations.extend(UDP_OF_IPV6.map(|(suffix, value)| (nlb(suffix), json!(value))));
            return "QUIC becomes UDP, with IPv6 addresses".to_owned();
        }
        return "QUIC becomes UDP".to_owned();
    }
    for (suffix, _) in UDP_OF_IPV6 {
        annotations.remove(&nlb(suffix));
    }
    annotations.insert(nlb(QUIC), json!("80"));
    "UDP becomes QUIC".to_owned()
}

/// The annotation with the forward of a Service's first listener.
const FORWARD: &str = "service.beta.kubernetes.io/actions.TCP-80";

/// Returns a forward to the Service itself and to one or two backends, by weight.
fn forward(random: &mut Random, backends: usize) -> String {
    let weight = |random: &mut Random| [0, 1, 50, 999][random.below(4)];
    let first = random.below(backends);
    let targets: Vec<Value> = (0..1 + random.below(2).min(backends - 1))
        .map(|at| {
            let port = if random.chance(0.3) { json!("admin") } else { json!(80) };
            let name = backend_name((first + at) % backends);
            json!({ "serviceName": name, "servicePort": port, "weight": weight(random) })
        })
        .collect();
    let sticky = json!({ "enabled": random.chance(0.3) });
    let config = json!({
        "baseServiceWeight": weight(random), "targetGroups": targets, "targetGroupStickinessConfig": sticky,
    });
    json!({ "type": "forward", "forwardConfig": config }).to_string()
}

/// Returns true if a Service forwards to a backend.
pub(crate) fn forwards_to(service: &Value, backend: &str) -> bool {
    let forward = service["metadata"]["annotations"][FORWARD].as_str();
    forward.is_some_and(|forward| forward.contains(&format!("\"{backend}\"")))
}

/// Returns a Service that requests its own load balancer; its pods are in the EndpointSlice of its name.
pub(crate) fn balanced_service(
    name: &str,
    number: usize,
    random: &mut Random,
    backends: usize,
    may_be_quic: bool,
) -> Value {
    let mut annotations = json!({
        nlb("scheme"): if random.chance(0.5) { "internal" } else { "internet-facing" },
        nlb("nlb-target-type"): if random.chance(0.6) { "ip" } else { "instance" },
    });
    for (annotation, values, probability) in SERVICE_ANNOTATIONS {
        if random.chance(probability) {
            annotations[nlb(annotation)] = json!(value(values, random));
        }
    }
    // Targets of IPv6 need a dualstack load balancer for ever.
    let of_ipv6 = annotations[nlb("nlb-target-type")] == "instance" && random.fork(32).chance(0.3);
    if of_ipv6 {
        annotations[nlb("ip-address-type")] = json!("dualstack");
    }
    let families = if of_ipv6 { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) };
    let mut of_forwards = random.fork(33);
    if of_forwards.chance(0.35) {
        annotations[FORWARD] = json!(forward(&mut of_forwards, backends));
    }
    let mut ports = (0..1 + random.below(2)).map(|port| service_port(number, port)).collect::<Vec<_>>();
    let mut of_quic = random.fork(41);
    if may_be_quic && annotations[nlb("nlb-target-type")] == "ip" && of_quic.chance(0.35) {
        let annotations = annotations.as_object_mut().unwrap();
        // AWS has QUIC in no security group, and UDP on dualstack only with another setting.
        annotations.insert(nlb("disable-nlb-sg"), json!("true"));
        for gone in [nlb("ip-address-type"), nlb("inbound-sg-rules-on-private-link-traffic"), FORWARD.to_owned()] {
            annotations.remove(&gone);
        }
        if of_quic.chance(0.6) {
            annotations.insert(nlb(QUIC), json!("80"));
        }
        ports[0]["protocol"] = json!("UDP");
    }
    json!({
        "kind": "Service",
        "metadata": { "name": name, "namespace": NAMESPACE, "annotations": annotations },
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "service.k8s.aws/nlb", "ports": ports, "ipFamilies": families,
            "allocateLoadBalancerNodePorts": true,
        },
    })
}

fn service_port(number: usize, port: usize) -> Value {
    json!({
        "name": format!("port-{port}"), "port": 80 + port, "targetPort": 8080 + port,
        "nodePort": 31000 + number * 10 + port, "protocol": "TCP",
    })
}

/// A binding that a user writes for a target group of another owner, who may have targets in it too.
pub(crate) fn own_binding(
    name: &str,
    target_group: &str,
    (shared, in_role): (bool, bool),
    backends: usize,
    random: &mut Random,
) -> Value {
    let (role, external_id) = if in_role { (ROLE, EXTERNAL_ID) } else { ("", "") };
    json!({
        "kind": "TargetGroupBinding",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "targetGroupARN": target_group, "targetType": "ip", "ipAddressType": "ipv4",
            "multiClusterTargetGroup": shared, "iamRoleArnToAssume": role, "assumeRoleExternalId": external_id,
            "serviceRef": { "name": backend_name(random.below(backends)), "port": 80 },
        },
    })
}

/// The pods behind a Service, and its EndpointSlice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pods {
    /// The Service.
    pub(crate) service: String,
    /// Its place among all Services, which its addresses are made from.
    pub(crate) number: usize,
    /// Number and readiness.
    pub(crate) pods: Vec<(usize, bool)>,
    next: usize,
}

impl Pods {
    pub(crate) fn new(service: &str, number: usize) -> Self {
        Self { service: service.to_owned(), number, ..Self::default() }
    }

    fn pod_name(&self, pod: usize) -> String {
        format!("{}-pod-{pod}", self.service)
    }

    fn address(&self, pod: usize) -> String {
        format!("10.0.{}.{}", self.number + 1, pod + 1)
    }

    /// A pod comes; the EndpointSlice is still to be written.
    pub(crate) fn add(&mut self, cluster: &SimulatedCluster, aws: &SimulatedAws) {
        let pod = self.next;
        self.next += 1;
        let address = self.address(pod);
        aws.add_pod_address(&address, pod % 3);
        self.pods.push((pod, true));
        let id = QuicServerId::new((self.number as u64) << 32 | pod as u64).to_base64();
        let server_id = json!({ "name": "AWS_LBC_QUIC_SERVER_ID", "value": id });
        cluster
            .create(json!({
                "kind": "Pod",
                "metadata": { "name": self.pod_name(pod), "namespace": NAMESPACE },
                "spec": { "nodeName": format!("node-{}", pod % 3), "containers": [{ "ports": [], "env": [server_id] }] },
            }))
            .unwrap();
        let name = self.pod_name(pod);
        cluster.set_status(
            "pods",
            NAMESPACE,
            &name,
            json!({
                "podIP": address, "podIPs": [{ "ip": address }],
                "conditions": [{ "type": "Ready", "status": "True" }, { "type": "ContainersReady", "status": "True" }],
            }),
        );
    }

    /// A pod goes.
    pub(crate) fn remove(&mut self, cluster: &SimulatedCluster, at: usize) {
        if at < self.pods.len() {
            let (pod, _) = self.pods.remove(at);
            cluster.delete("pods", NAMESPACE, &self.pod_name(pod));
        }
    }

    /// Writes the EndpointSlice, as the cluster's own controller does.
    pub(crate) fn write(&self, cluster: &SimulatedCluster) {
        let endpoints: Vec<Value> = self
            .pods
            .iter()
            .map(|(pod, ready)| {
                let name = self.pod_name(*pod);
                let uid = cluster.get("pods", NAMESPACE, &name).map(|pod| pod["metadata"]["uid"].clone());
                json!({
                    "addresses": [self.address(*pod)],
                    "conditions": { "ready": ready, "serving": ready, "terminating": false },
                    "nodeName": format!("node-{}", pod % 3),
                    "targetRef": { "kind": "Pod", "namespace": NAMESPACE, "name": name, "uid": uid },
                })
            })
            .collect();
        let name = format!("{}-slice", self.service);
        let service = cluster.get("services", NAMESPACE, &self.service);
        let ports: Vec<Value> = service
            .iter()
            .flat_map(|service| service["spec"]["ports"].as_array().cloned().unwrap_or_default())
            .map(|port| json!({ "name": port["name"], "port": port["targetPort"], "protocol": port["protocol"] }))
            .collect();
        let slice = json!({
            "kind": "EndpointSlice",
            "metadata": {
                "name": name, "namespace": NAMESPACE, "labels": { "kubernetes.io/service-name": self.service },
            },
            "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
        });
        if service.is_none() {
            cluster.delete("endpointslices", NAMESPACE, &name);
        } else if cluster.get("endpointslices", NAMESPACE, &name).is_none() {
            cluster.create(slice).unwrap();
        } else {
            cluster.edit("endpointslices", NAMESPACE, &name, |old| {
                old["endpoints"] = slice["endpoints"].clone();
                old["ports"] = slice["ports"].clone();
            });
        }
    }
}

/// Creates the objects that exist before any object requests a load balancer.
pub(crate) fn foundation(cluster: &SimulatedCluster) {
    cluster
        .create(json!({
            "kind": "IngressClass", "metadata": { "name": "alb" }, "spec": { "controller": "ingress.k8s.aws/alb" },
        }))
        .unwrap();
    for node in 0..3 {
        let name = format!("node-{node}");
        let provider = format!("aws:///us-west-2a/i-node{node}");
        let object = json!({ "kind": "Node", "metadata": { "name": name }, "spec": { "providerID": provider } });
        cluster.create(object).unwrap();
        cluster.set_status("nodes", "", &name, json!({ "conditions": [{ "type": "Ready", "status": "True" }] }));
    }
}

/// Changes what stands in front of an Ingress's load balancer, sometimes.
fn edit_front(object: &mut Value, random: &mut Random) {
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else { return };
    if !annotations.contains_key(&alb(FRONTEND[0].0)) {
        return;
    }
    for (annotation, _) in FRONTEND {
        if random.chance(0.25) {
            annotations.insert(alb(annotation), json!(value(annotation, random)));
        }
    }
    if random.chance(0.15) {
        annotations.remove(&alb(FRONTEND[2].0));
    }
}

/// Changes web ACLs and protections that an Ingress has, sometimes.
fn edit_add_ons(object: &mut Value, random: &mut Random) {
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else { return };
    for (annotation, _) in ADD_ONS {
        if annotations.contains_key(&alb(annotation)) && random.chance(0.4) {
            annotations.insert(alb(annotation), json!(value(annotation, random)));
        }
    }
}

/// Changes something about an Ingress that it may change at any time, and says what.
pub(crate) fn edit_ingress(object: &mut Value, random: &mut Random, backends: usize) -> String {
    edit_add_ons(object, &mut random.fork(31));
    edit_front(object, &mut random.fork(37));
    match random.below(5) {
        0 => {
            object["spec"]["rules"] = rules(random, backends);
            "rules".to_owned()
        }
        1 => {
            // One path among others, so that the rest stays as it is.
            let rules = object["spec"]["rules"].as_array_mut().unwrap();
            let at = random.below(rules.len());
            let paths = rules[at]["http"]["paths"].as_array_mut().unwrap();
            let at = random.below(paths.len() + 1);
            if paths.len() > 1 && random.chance(0.4) {
                paths.remove(at % paths.len());
            } else if paths.len() < 6 {
                let path = format!("/q{}", random.below(100));
                paths.insert(at, json!({ "path": path, "pathType": "Prefix", "backend": backend(random, backends) }));
            }
            "one path".to_owned()
        }
        2 => {
            let rules = object["spec"]["rules"].as_array_mut().unwrap();
            let at = random.below(rules.len());
            let paths = rules[at]["http"]["paths"].as_array_mut().unwrap();
            let at = random.below(paths.len());
            paths[at]["backend"] = backend(random, backends);
            "one backend".to_owned()
        }
        3 => {
            if object["spec"]["defaultBackend"].is_object() {
                object["spec"].as_object_mut().unwrap().remove("defaultBackend");
            } else {
                object["spec"]["defaultBackend"] = backend(random, backends);
            }
            "default backend".to_owned()
        }
        _ => {
            let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
            let has = |suffix: &&str| annotations.contains_key(&alb(suffix));
            let changeable: Vec<&str> = INGRESS_ANNOTATIONS.iter().map(|(suffix, _)| *suffix).filter(has).collect();
            let Some(suffix) = random.pick(&changeable) else { return "nothing".to_owned() };
            if *suffix == "tags" && random.chance(0.4) {
                return without_tags(annotations, &alb(suffix));
            }
            annotations.insert(alb(suffix), json!(value(suffix, random)));
            format!("annotation {suffix}")
        }
    }
}

/// Takes one tag out of an annotation, or all with the annotation.
fn without_tags(annotations: &mut serde_json::Map<String, Value>, key: &str) -> String {
    let one_goes = annotations[key].as_str().is_some_and(|tags| tags.contains(','));
    if one_goes {
        annotations.insert(key.to_owned(), json!("kept=always"));
        return "a tag goes".to_owned();
    }
    annotations.remove(key);
    "all tags go".to_owned()
}

/// The same for a Service with a load balancer.
pub(crate) fn edit_service(object: &mut Value, number: usize, random: &mut Random, backends: usize) -> String {
    let is_udp = object["spec"]["ports"][0]["protocol"] == "UDP";
    let mut of_quic = random.fork(41);
    if is_udp && of_quic.chance(0.4) {
        return edit_quic(object, &mut of_quic);
    }
    let mut of_forwards = random.fork(33);
    if !is_udp && of_forwards.chance(0.3) {
        let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
        if of_forwards.chance(0.2) {
            annotations.remove(FORWARD);
            return "its forward goes".to_owned();
        }
        let forward = forward(&mut of_forwards, backends);
        annotations.insert(FORWARD.to_owned(), json!(forward));
        return format!("forward {forward}");
    }
    if random.chance(0.4) {
        let ports = object["spec"]["ports"].as_array_mut().unwrap();
        if ports.len() > 1 {
            ports.pop();
        } else {
            ports.push(service_port(number, 1));
        }
        return "ports".to_owned();
    }
    let of_ipv6 = object["spec"]["ipFamilies"].as_array().unwrap().len() > 1;
    let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
    if random.chance(0.2) {
        let other = if annotations[&nlb("scheme")] == "internal" { "internet-facing" } else { "internal" };
        annotations.insert(nlb("scheme"), json!(other));
        return format!("scheme {other}");
    }
    let fixed = if of_ipv6 || is_udp { "ip-address-type" } else { "" };
    let has = |(suffix, _): &(&str, &str)| annotations.contains_key(&nlb(suffix)) && *suffix != fixed;
    let changeable: Vec<(&str, &str)> = SERVICE_ANNOTATIONS.iter().map(|(s, v, _)| (*s, *v)).filter(has).collect();
    let Some((suffix, values)) = random.pick(&changeable) else { return "nothing".to_owned() };
    if *values == "tags" && random.chance(0.4) {
        return without_tags(annotations, &nlb(suffix));
    }
    annotations.insert(nlb(suffix), json!(value(values, random)));
    format!("annotation {suffix}")
}

/// An annotation that makes a load balancer impossible and has no other effect.
pub(crate) fn break_object(object: &mut Value) {
    let key =
        if object["kind"] == "Ingress" { alb("healthy-threshold-count") } else { nlb("healthcheck-healthy-threshold") };
    object["metadata"]["annotations"][key] = json!("often");
}

pub(crate) fn mend_object(object: &mut Value) {
    let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.remove(&alb("healthy-threshold-count"));
    annotations.remove(&nlb("healthcheck-healthy-threshold"));
}
