//! The document: the desired resources by type and id, each with its `spec`. A value of another resource that is known only
//! when that one exists is a reference, `{"$ref": "#/resources/<type>/<id>/status/<field>"}`. The names are those of
//! aws-load-balancer-controller, its types are like those of CloudFormation.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::actions;
use crate::model::{
    Attributes, Frontend, FrontendListener, HealthCheck, Listener, LoadBalancer, ManagedCertificate,
    ManagedSecurityGroup, Matcher, MutualAuthentication, NetworkingPeer, NetworkingRule, ResourceId,
    SecurityGroupReference, SecurityGroupRule, Source, Stack, SubnetMapping, Tags, TargetGroup, TargetGroupReference,
    TrustStoreArn, Value, tags,
};

const SECURITY_GROUP: &str = "AWS::EC2::SecurityGroup";
const LOAD_BALANCER: &str = "AWS::ElasticLoadBalancingV2::LoadBalancer";
const LISTENER: &str = "AWS::ElasticLoadBalancingV2::Listener";
const RULE: &str = "AWS::ElasticLoadBalancingV2::ListenerRule";
const TARGET_GROUP: &str = "AWS::ElasticLoadBalancingV2::TargetGroup";
const BINDING: &str = "K8S::ElasticLoadBalancingV2::TargetGroupBinding";
const WEB_ACL: &str = "AWS::WAFv2::WebACLAssociation";
const PROTECTION: &str = "AWS::Shield::Protection";
const CERTIFICATE: &str = "AWS::ACM::Certificate";

/// Returns the document of a stack, on one line. The same stack has the same document.
#[must_use]
pub fn document(stack: &Stack) -> String {
    let mut resources = Resources::default();
    if let Some(group) = &stack.security_group {
        resources.add(SECURITY_GROUP, &ResourceId::managed_security_group(), security_group(group));
    }
    if let Some(balancer) = &stack.load_balancer {
        let id = ResourceId::load_balancer();
        resources.add(LOAD_BALANCER, &id, load_balancer(balancer));
        add_ons(&mut resources, balancer);
    }
    for group in stack.target_groups.values() {
        resources.add(TARGET_GROUP, &group.resource, target_group(group));
        resources.add(BINDING, &group.resource, binding(group));
    }
    for (port, listener) in &stack.listeners {
        resources.add(LISTENER, &ResourceId::listener(*port), listener_of_stack(listener));
        for (index, rule) in listener.rules.iter().enumerate() {
            let priority = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let spec = actions::rule(rule, priority, reference(LISTENER, &ResourceId::listener(*port), "listenerARN"));
            resources.add(RULE, &ResourceId::rule(*port, priority), with_tags(spec, &rule.tags));
        }
    }
    if let Some(front) = &stack.frontend {
        frontend(&mut resources, front);
    }
    for certificate in &stack.certificates.wanted {
        resources.add(CERTIFICATE, &certificate.resource, managed_certificate(certificate));
    }
    json!({ "id": stack.id.to_string(), "resources": resources.0 }).to_string()
}

/// The resources by type and id.
#[derive(Default, Serialize)]
struct Resources(BTreeMap<&'static str, BTreeMap<String, Json>>);

impl Resources {
    fn add(&mut self, kind: &'static str, id: &ResourceId, spec: Json) {
        self.0.entry(kind).or_default().insert(id.as_str().to_owned(), json!({ "spec": spec }));
    }
}

/// Returns a reference to a value that a resource has when it exists.
fn reference(kind: &str, id: &ResourceId, field: &str) -> Json {
    json!({ "$ref": format!("#/resources/{kind}/{id}/status/{field}") })
}

/// Returns a value, or the text that says what it depends on.
fn value<T: Serialize>(value: &Value<T>) -> Json {
    match value {
        Value::Known(known) => json!(known),
        Value::AfterApply(why) => json!(Value::<String>::AfterApply(why).to_string()),
    }
}

/// Returns the object without the fields that are null.
pub(super) fn present(object: Json) -> Json {
    match object {
        Json::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into(),
        other => other,
    }
}

/// Adds the tags that users and flags request: those that name the owner are not in the form.
fn with_tags(mut spec: Json, all: &Tags) -> Json {
    let own = all.iter().filter(|(key, _)| !tags::TRACKING.contains(&key.as_str()));
    let own: BTreeMap<_, _> = own.collect();
    if let (Json::Object(fields), false) = (&mut spec, own.is_empty()) {
        fields.insert("tags".to_owned(), json!(own));
    }
    spec
}

fn attributes(attributes: &Attributes) -> Json {
    if attributes.is_empty() {
        return Json::Null;
    }
    attributes.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
}

fn security_group(group: &ManagedSecurityGroup) -> Json {
    let spec = json!({
        "groupName": value(&group.name),
        "description": group.description,
        "ingress": group.ingress.iter().map(permission).collect::<Vec<_>>(),
    });
    with_tags(spec, &group.tags)
}

fn permission(rule: &SecurityGroupRule) -> Json {
    let description = Some(&rule.description).filter(|text| !text.is_empty());
    let with = |field: &str, source: Json| present(json!({ field: source, "description": description }));
    let (kind, source) = match &rule.source {
        Source::Ipv4(block) => ("ipRanges", with("cidrIP", json!(block))),
        Source::Ipv6(block) => ("ipv6Ranges", with("cidrIPv6", json!(block))),
        Source::SecurityGroup(id) => ("userIDGroupPairs", with("groupID", json!(id))),
        Source::PrefixList(id) => ("prefixLists", with("listID", json!(id))),
    };
    present(json!({ "ipProtocol": rule.protocol, "fromPort": rule.from_port, "toPort": rule.to_port, kind: [source] }))
}

fn group_reference(group: &SecurityGroupReference) -> Json {
    match group {
        SecurityGroupReference::Managed => reference(SECURITY_GROUP, &ResourceId::managed_security_group(), "groupID"),
        SecurityGroupReference::SharedBackend(id) | SecurityGroupReference::Given(id) => value(id),
    }
}

fn subnet(mapping: &SubnetMapping) -> Json {
    present(json!({
        "subnetID": mapping.subnet,
        "allocationID": mapping.allocation,
        "privateIPv4Address": mapping.private_ipv4,
        "ipv6Address": mapping.ipv6,
        "sourceNatIpv6Prefix": mapping.source_nat_prefix,
    }))
}

fn load_balancer(balancer: &LoadBalancer) -> Json {
    let subnets = match &balancer.subnets {
        Value::Known(mappings) => mappings.iter().map(subnet).collect(),
        Value::AfterApply(_) => value(&balancer.subnets),
    };
    let groups: Vec<Json> = balancer.security_groups.iter().map(group_reference).collect();
    let private_link = balancer.network.private_link_rules.map(|on| if on { "on" } else { "off" });
    let capacity =
        balancer.add_ons.capacity.as_ref().map(|capacity| json!({ "capacityUnits": capacity.value.units() }));
    let source_nat = balancer.network.ipv6_source_nat.then_some("on");
    let spec = json!({
        "name": value(&balancer.name),
        "type": balancer.kind,
        "scheme": balancer.scheme,
        "ipAddressType": balancer.ip_address_type,
        "subnetMapping": subnets,
        "securityGroups": (!groups.is_empty()).then_some(groups),
        "securityGroupsInboundRulesOnPrivateLink": private_link,
        "enablePrefixForIpv6SourceNat": source_nat,
        "customerOwnedIPv4Pool": balancer.pools.customer_owned,
        "ipv4IPAMPoolId": balancer.pools.ipam,
        "loadBalancerAttributes": attributes(&balancer.attributes),
        "minimumLoadBalancerCapacity": capacity,
    });
    with_tags(present(spec), &balancer.tags)
}

fn add_ons(resources: &mut Resources, balancer: &LoadBalancer) {
    let id = ResourceId::load_balancer();
    let arn = reference(LOAD_BALANCER, &id, "loadBalancerARN");
    if let Some(requested) = &balancer.add_ons.web_acl {
        let web_acl = requested.value.as_ref().map_or_else(|| json!(""), value);
        resources.add(WEB_ACL, &id, json!({ "resourceARN": arn, "webACLARN": web_acl }));
    }
    if let Some(requested) = &balancer.add_ons.protection {
        resources.add(PROTECTION, &id, json!({ "resourceARN": arn, "enabled": requested.value }));
    }
}

fn listener_of_stack(listener: &Listener) -> Json {
    let certificates: Vec<Json> = listener
        .default_certificate
        .iter()
        .chain(&listener.certificates)
        .map(|arn| json!({ "certificateARN": arn }))
        .collect();
    let certificates = match listener.certificates_after_apply {
        Some(why) => json!(Value::<String>::AfterApply(why).to_string()),
        None if certificates.is_empty() => Json::Null,
        None => json!(certificates),
    };
    let spec = json!({
        "loadBalancerARN": reference(LOAD_BALANCER, &ResourceId::load_balancer(), "loadBalancerARN"),
        "port": listener.port,
        "protocol": listener.protocol,
        "defaultActions": actions::actions(listener.default_authentication.as_ref(), &listener.default_action),
        "certificates": certificates,
        "sslPolicy": listener.ssl_policy,
        "alpnPolicy": listener.alpn_policy.as_ref().map(|policy| [policy]),
        "mutualAuthentication": listener.mutual_authentication.as_ref().map(mutual_authentication),
        "listenerAttributes": attributes(&listener.attributes),
    });
    with_tags(present(spec), &listener.tags)
}

fn mutual_authentication(clients: &MutualAuthentication<Value<TrustStoreArn>>) -> Json {
    match clients {
        MutualAuthentication::Off | MutualAuthentication::Passthrough => {
            json!({ "mode": clients.mode(), "trustStoreArn": "" })
        }
        MutualAuthentication::Verify {
            trust_store,
            ignore_client_certificate_expiry,
            advertise_trust_store_ca_names,
        } => {
            json!({
                "mode": clients.mode(),
                "trustStoreArn": value(trust_store),
                "ignoreClientCertificateExpiry": ignore_client_certificate_expiry,
                "advertiseTrustStoreCaNames": if *advertise_trust_store_ca_names { "on" } else { "off" },
            })
        }
    }
}

/// Returns the ARN of a target group that an action names.
pub(super) fn group_arn(group: &TargetGroupReference) -> Json {
    match group {
        TargetGroupReference::Own(resource) => reference(TARGET_GROUP, resource, "targetGroupARN"),
        TargetGroupReference::Foreign(arn) => json!(arn),
        TargetGroupReference::Named(_) => json!(Value::<String>::AfterApply("the ARN of that name").to_string()),
    }
}

/// Returns a port as a number, where it is one.
fn number_or_name(text: &str) -> Json {
    text.parse::<u16>().map_or_else(|_| json!(text), |number| json!(number))
}

fn health_check(check: &HealthCheck) -> Json {
    let matcher = check.matcher.as_ref().map(|matcher| match matcher {
        Matcher::Http(codes) => json!({ "httpCode": codes }),
        Matcher::Grpc(codes) => json!({ "grpcCode": codes }),
    });
    present(json!({
        "port": number_or_name(&check.port),
        "protocol": check.protocol,
        "path": check.path,
        "matcher": matcher,
        "intervalSeconds": check.interval_seconds,
        "timeoutSeconds": check.timeout_seconds,
        "healthyThresholdCount": check.healthy_threshold,
        "unhealthyThresholdCount": check.unhealthy_threshold,
    }))
}

fn target_group(group: &TargetGroup) -> Json {
    let spec = json!({
        "name": value(&group.name),
        "targetType": group.target_type,
        "port": value(&group.port),
        "protocol": group.protocol,
        "protocolVersion": group.protocol_version,
        "ipAddressType": group.ip_address_type,
        "healthCheckConfig": health_check(&group.health_check),
        "targetGroupAttributes": attributes(&group.attributes),
    });
    with_tags(present(spec), &group.tags)
}

fn binding(group: &TargetGroup) -> Json {
    let binding = &group.binding;
    let selector = (!binding.node_labels.is_empty()).then(|| json!({ "matchLabels": binding.node_labels }));
    let networking = binding
        .networking
        .as_ref()
        .map(|rules| json!({ "ingress": rules.iter().map(networking_rule).collect::<Vec<_>>() }));
    let spec = json!({
        "targetGroupARN": reference(TARGET_GROUP, &group.resource, "targetGroupARN"),
        "targetType": group.target_type,
        "targetGroupProtocol": group.protocol,
        "serviceRef": { "name": binding.service, "port": binding.service_port },
        "networking": networking,
        "nodeSelector": selector,
        "ipAddressType": group.ip_address_type,
        "vpcID": value(&group.vpc),
        "multiClusterTargetGroup": binding.multi_cluster.then_some(true),
    });
    let metadata = json!({ "name": value(&group.name), "namespace": binding.namespace });
    json!({ "template": { "metadata": metadata, "spec": present(spec) } })
}

fn networking_rule(rule: &NetworkingRule) -> Json {
    let peer = |peer: &NetworkingPeer| match peer {
        NetworkingPeer::SecurityGroup(group) => json!({ "securityGroup": { "groupID": group_reference(group) } }),
        NetworkingPeer::Cidr(block) => json!({ "ipBlock": { "cidr": block } }),
    };
    let ports = rule
        .ports
        .iter()
        .map(|port| present(json!({ "protocol": if port.udp { "UDP" } else { "TCP" }, "port": port.port })));
    json!({ "from": rule.from.iter().map(peer).collect::<Vec<_>>(), "ports": ports.collect::<Vec<_>>() })
}

fn frontend(resources: &mut Resources, front: &Frontend) {
    resources.add(LOAD_BALANCER, &ResourceId::frontend(), load_balancer(&front.load_balancer));
    for (port, listener) in &front.listeners {
        resources.add(LISTENER, &ResourceId::frontend_listener(*port), frontend_listener(*port, listener));
        let group = &listener.target_group;
        let spec = json!({
            "name": value(&group.name),
            "targetType": "alb",
            "port": group.port,
            "protocol": "TCP",
            "ipAddressType": "ipv4",
            "healthCheckConfig": health_check(&group.health_check),
        });
        resources.add(TARGET_GROUP, &group.resource, with_tags(spec, &group.tags));
    }
}

fn frontend_listener(port: u16, listener: &FrontendListener) -> Json {
    let group = TargetGroupReference::Own(listener.target_group.resource.clone());
    let spec = json!({
        "loadBalancerARN": reference(LOAD_BALANCER, &ResourceId::frontend(), "loadBalancerARN"),
        "port": port,
        "protocol": "TCP",
        "defaultActions": [actions::forward_to(&group)],
    });
    with_tags(spec, &listener.tags)
}

fn managed_certificate(certificate: &ManagedCertificate) -> Json {
    let kind = if certificate.authority.is_some() { "PRIVATE" } else { "AMAZON_ISSUED" };
    let spec = json!({
        "type": kind,
        "domainName": certificate.domain,
        "subjectAlternativeNames": certificate.hosts,
        "validationMethod": certificate.authority.is_none().then_some("DNS"),
        "certificateAuthorityARN": certificate.authority,
    });
    with_tags(present(spec), &certificate.tags)
}
