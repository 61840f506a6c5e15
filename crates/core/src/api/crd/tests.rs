use serde_json::{Value, json};

use super::*;

/// Every path of a schema with what constrains a value there, one a line.
fn constraints(schema: &JSONSchemaProps, path: &str, lines: &mut Vec<String>) {
    let mut line = format!("{path}: {}", schema.type_.as_deref().unwrap_or("-"));
    if schema.nullable == Some(true) {
        line += " nullable";
    }
    if let Some(format) = &schema.format {
        line += &format!(" {format}");
    }
    if schema.x_kubernetes_int_or_string == Some(true) {
        line += " int-or-string";
    }
    if let Some(values) = &schema.enum_ {
        line +=
            &format!(" {}", serde_json::to_string(&values.iter().map(|value| &value.0).collect::<Vec<_>>()).unwrap());
    }
    if let Some(pattern) = &schema.pattern {
        line += &format!(" /{pattern}/");
    }
    if let Some(kind) = &schema.x_kubernetes_list_type {
        line += &format!(" {kind}");
    }
    for (name, bound) in
        [("maxItems", schema.max_items), ("maxLength", schema.max_length), ("minProperties", schema.min_properties)]
    {
        line += &bound.map(|bound| format!(" {name}={bound}")).unwrap_or_default();
    }
    if let Some(minimum) = schema.min_items {
        line += &format!(" minItems={minimum}");
    }
    if let Some(required) = &schema.required {
        line += &format!(" requires {}", required.join(","));
    }
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        line += &format!(" CEL {}", rule.rule);
    }
    lines.push(line);
    for (name, property) in schema.properties.iter().flatten() {
        constraints(property, &format!("{path}.{name}"), lines);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        constraints(items, &format!("{path}[]"), lines);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        constraints(values, &format!("{path}{{}}"), lines);
    }
}

fn constraints_of(name: &str) -> String {
    let definition = all().into_iter().find(|definition| definition.metadata.name.as_deref() == Some(name)).unwrap();
    let schema = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
    let mut lines = Vec::new();
    constraints(&schema, "", &mut lines);
    lines.join("\n")
}

#[test]
fn constraints_of_target_group_binding() {
    insta::assert_snapshot!(constraints_of("targetgroupbindings.elbv2.k8s.aws"), @r#"
    : object
    .spec: object requires serviceRef
    .spec.assumeRoleExternalId: string
    .spec.iamRoleArnToAssume: string
    .spec.ipAddressType: string ["ipv4","ipv6"]
    .spec.multiClusterTargetGroup: boolean
    .spec.networking: object
    .spec.networking.ingress: array
    .spec.networking.ingress[]: object requires from,ports
    .spec.networking.ingress[].from: array
    .spec.networking.ingress[].from[]: object
    .spec.networking.ingress[].from[].ipBlock: object requires cidr
    .spec.networking.ingress[].from[].ipBlock.cidr: string
    .spec.networking.ingress[].from[].securityGroup: object requires groupID
    .spec.networking.ingress[].from[].securityGroup.groupID: string
    .spec.networking.ingress[].ports: array
    .spec.networking.ingress[].ports[]: object
    .spec.networking.ingress[].ports[].port: - int-or-string
    .spec.networking.ingress[].ports[].protocol: string ["TCP","UDP"]
    .spec.nodeSelector: object
    .spec.nodeSelector.matchExpressions: array
    .spec.nodeSelector.matchExpressions[]: object requires key,operator
    .spec.nodeSelector.matchExpressions[].key: string
    .spec.nodeSelector.matchExpressions[].operator: string
    .spec.nodeSelector.matchExpressions[].values: array
    .spec.nodeSelector.matchExpressions[].values[]: string
    .spec.nodeSelector.matchLabels: object
    .spec.nodeSelector.matchLabels{}: string
    .spec.serviceRef: object requires name,port
    .spec.serviceRef.name: string
    .spec.serviceRef.port: - int-or-string
    .spec.targetGroupARN: string
    .spec.targetGroupName: string
    .spec.targetGroupProtocol: string ["HTTP","HTTPS","TCP","TLS","UDP","TCP_UDP","QUIC","TCP_QUIC"]
    .spec.targetType: string ["instance","ip"]
    .spec.vpcID: string
    .status: object
    .status.conditions: array
    .status.conditions[]: object requires lastTransitionTime,message,reason,status,type
    .status.conditions[].lastTransitionTime: string date-time
    .status.conditions[].message: string
    .status.conditions[].observedGeneration: integer int64
    .status.conditions[].reason: string
    .status.conditions[].status: string
    .status.conditions[].type: string
    .status.observedGeneration: integer int64
    "#);
}

#[test]
fn constraints_of_ingress_class_params() {
    insta::assert_snapshot!(constraints_of("ingressclassparams.elbv2.k8s.aws"), @r#"
    : object
    .spec: object CEL !(has(self.prefixListsIDs) && has(self.PrefixListsIDs))
    .spec.PrefixListsIDs: array
    .spec.PrefixListsIDs[]: string
    .spec.certificateArn: array
    .spec.certificateArn[]: string
    .spec.group: object requires name
    .spec.group.name: string
    .spec.inboundCIDRs: array
    .spec.inboundCIDRs[]: string /^[0-9A-Fa-f.:]+/[0-9]{1,3}$/
    .spec.ipAddressType: string ["ipv4","dualstack","dualstack-without-public-ipv4"]
    .spec.ipamConfiguration: object
    .spec.ipamConfiguration.ipv4IPAMPoolId: string
    .spec.listeners: array
    .spec.listeners[]: object
    .spec.listeners[].listenerAttributes: array
    .spec.listeners[].listenerAttributes[]: object requires key,value
    .spec.listeners[].listenerAttributes[].key: string
    .spec.listeners[].listenerAttributes[].value: string
    .spec.listeners[].port: integer int32
    .spec.listeners[].protocol: string
    .spec.loadBalancerAttributes: array
    .spec.loadBalancerAttributes[]: object requires key,value
    .spec.loadBalancerAttributes[].key: string
    .spec.loadBalancerAttributes[].value: string
    .spec.loadBalancerName: string
    .spec.minimumLoadBalancerCapacity: object requires capacityUnits
    .spec.minimumLoadBalancerCapacity.capacityUnits: integer int32
    .spec.namespaceSelector: object
    .spec.namespaceSelector.matchExpressions: array
    .spec.namespaceSelector.matchExpressions[]: object requires key,operator
    .spec.namespaceSelector.matchExpressions[].key: string
    .spec.namespaceSelector.matchExpressions[].operator: string
    .spec.namespaceSelector.matchExpressions[].values: array
    .spec.namespaceSelector.matchExpressions[].values[]: string
    .spec.namespaceSelector.matchLabels: object
    .spec.namespaceSelector.matchLabels{}: string
    .spec.prefixListsIDs: array
    .spec.prefixListsIDs[]: string
    .spec.scheme: string ["internal","internet-facing"]
    .spec.sslPolicy: string
    .spec.sslRedirectPort: string
    .spec.subnets: object CEL has(self.ids) != has(self.tags)
    .spec.subnets.ids: array set minItems=1
    .spec.subnets.ids[]: string /subnet-[0-9a-f]+/
    .spec.subnets.tags: object minProperties=1
    .spec.subnets.tags{}: array set
    .spec.subnets.tags{}[]: string
    .spec.tags: array
    .spec.tags[]: object requires key,value
    .spec.tags[].key: string
    .spec.tags[].value: string
    .spec.targetType: string ["instance","ip"]
    .spec.wafv2AclArn: string
    .spec.wafv2AclName: string
    "#);
}

#[test]
fn names_and_versions() {
    let summary: Vec<Value> = all()
        .iter()
        .map(|definition| {
            let spec = &definition.spec;
            json!({
                "names": spec.names,
                "scope": spec.scope,
                "versions": spec.versions.iter().map(|version| json!({
                    "name": version.name,
                    "served": version.served,
                    "storage": version.storage,
                    "status": version.subresources.is_some(),
                    "columns": version.additional_printer_columns.iter().flatten()
                        .map(|column| format!("{} {}", column.name, column.priority.unwrap_or_default()))
                        .collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    let binding_columns = json!(["SERVICE-NAME 0", "SERVICE-PORT 0", "TARGET-TYPE 0", "ARN 1", "NAME 2", "AGE 0"]);
    assert_eq!(
        Value::from(summary),
        json!([
            {
                "names": {
                    "kind": "IngressClassParams",
                    "plural": "ingressclassparams",
                    "singular": "ingressclassparam",
                },
                "scope": "Cluster",
                "versions": [{
                    "name": "v1beta1", "served": true, "storage": true, "status": false,
                    "columns": ["GROUP-NAME 0", "SCHEME 0", "IP-ADDRESS-TYPE 0", "AGE 0"],
                }],
            },
            {
                "names": {
                    "kind": "TargetGroupBinding",
                    "plural": "targetgroupbindings",
                    "singular": "targetgroupbinding",
                },
                "scope": "Namespaced",
                "versions": [
                    {"name": "v1beta1", "served": true, "storage": true, "status": true, "columns": &binding_columns},
                    {"name": "v1alpha1", "served": true, "storage": false, "status": true, "columns": &binding_columns},
                ],
            },
        ])
    );
}

/// An API server refuses a definition with a rule that calls what it does not know. It knows macros since it knows rules, and
/// the functions for addresses came six versions later.
#[test]
fn rules_call_only_what_every_api_server_with_rules_knows() {
    let mut called = Vec::new();
    for definition in all() {
        let name = definition.metadata.name.unwrap();
        for line in constraints_of(&name).lines() {
            let rules = line.split(" CEL ").skip(1);
            for (before, _) in rules.flat_map(|rule| rule.match_indices('(').map(|(at, _)| rule.split_at(at))) {
                let start = before.rfind(|letter: char| !letter.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
                called.push(before[start..].to_owned());
            }
        }
    }
    called.retain(|function| !function.is_empty());
    called.sort();
    called.dedup();
    assert_eq!(called, ["has"]);
}

/// A binding as LBC writes it is read whole and written back as it was.
#[test]
fn target_group_binding_reads_and_writes_every_field() {
    let written = json!({
        "apiVersion": "elbv2.k8s.aws/v1beta1",
        "kind": "TargetGroupBinding",
        "metadata": {
            "name": "k8s-shop-web-0123456789",
            "namespace": "shop",
            "labels": {"ingress.k8s.aws/stack-name": "web", "ingress.k8s.aws/stack-namespace": "shop"},
        },
        "spec": {
            "targetGroupARN": "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/k8s-shop-web/0123456789abcdef",
            "targetGroupName": "k8s-shop-web",
            "multiClusterTargetGroup": true,
            "targetType": "ip",
            "targetGroupProtocol": "TCP_UDP",
            "serviceRef": {"name": "web", "port": "http"},
            "networking": {"ingress": [
                {
                    "from": [{"securityGroup": {"groupID": "sg-0123"}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}],
                    "ports": [{"protocol": "TCP", "port": 8080}, {"protocol": "UDP", "port": "dns"}, {}],
                },
            ]},
            "nodeSelector": {"matchLabels": {"pool": "web"}},
            "ipAddressType": "ipv6",
            "vpcID": "vpc-0123456789abcdef0",
            "iamRoleArnToAssume": "arn:aws:iam::444455556666:role/targets",
            "assumeRoleExternalId": "shop",
        },
        "status": {
            "observedGeneration": 3,
            "conditions": [{
                "type": "Ready", "status": "False", "reason": "FailedCleanup", "message": "throttled",
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            }],
        },
    });
    let read: TargetGroupBinding = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), written);
}

#[test]
fn ingress_class_params_reads_and_writes_every_field() {
    let written = json!({
        "apiVersion": "elbv2.k8s.aws/v1beta1",
        "kind": "IngressClassParams",
        "metadata": {"name": "alb"},
        "spec": {
            "loadBalancerName": "shop",
            "certificateArn": ["arn:aws:acm:eu-west-1:111122223333:certificate/a"],
            "namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["shop"]}]},
            "group": {"name": "shop"},
            "scheme": "internet-facing",
            "inboundCIDRs": ["10.0.0.0/8"],
            "sslPolicy": "ELBSecurityPolicy-TLS13-1-2-2021-06",
            "sslRedirectPort": "443",
            "subnets": {"ids": ["subnet-0a"], "tags": {"tier": ["public", "edge"]}},
            "ipAddressType": "dualstack-without-public-ipv4",
            "tags": [{"key": "team", "value": "shop"}],
            "targetType": "instance",
            "loadBalancerAttributes": [{"key": "idle_timeout.timeout_seconds", "value": "30"}],
            "listeners": [{
                "protocol": "HTTPS", "port": 443,
                "listenerAttributes": [{"key": "routing.http.response.server.enabled", "value": "false"}],
            }],
            "minimumLoadBalancerCapacity": {"capacityUnits": 100},
            "ipamConfiguration": {"ipv4IPAMPoolId": "ipam-pool-0a"},
            "prefixListsIDs": ["pl-0a"],
            "PrefixListsIDs": ["pl-0b"],
            "wafv2AclArn": "arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/shop/0a",
            "wafv2AclName": "shop",
        },
    });
    let read: IngressClassParams = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), written);
}

#[test]
fn an_object_without_a_spec_reads_as_an_empty_one() {
    let params: IngressClassParams = serde_json::from_value(json!({"metadata": {"name": "alb"}})).unwrap();
    assert_eq!(params.spec, IngressClassParamsSpec::default());
    let binding: TargetGroupBinding = serde_json::from_value(json!({"metadata": {"name": "web"}})).unwrap();
    assert_eq!((binding.spec, binding.status), (TargetGroupBindingSpec::default(), None));
}

/// The constants that objects are written with are those of the definitions.
#[test]
fn written_names_are_the_definitions_names() {
    let names = |resource: kube::core::ApiResource| (resource.api_version, resource.kind);
    assert_eq!(
        names(TargetGroupBindingDefinition::api_resource()),
        (TargetGroupBinding::API_VERSION.to_owned(), TargetGroupBinding::KIND.to_owned())
    );
    assert_eq!(
        names(IngressClassParamsDefinition::api_resource()),
        (IngressClassParams::API_VERSION.to_owned(), IngressClassParams::KIND.to_owned())
    );
}
