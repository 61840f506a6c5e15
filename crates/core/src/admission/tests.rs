use serde_json::{Value, json};

use super::{Hook, Rules, answer};
use crate::{
    api::admission::{AdmissionResponse, Request},
    desired::BuildConfig,
    model::{Value as Known, VpcId},
    snapshot::Snapshot,
};

const SHOP: &str = r"
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: cart}
spec: {selector: {app: cart}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: by-hand}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: other, name: cart}
spec: {selector: {app: cart}, ports: [{port: 80}]}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: TargetGroupBinding
metadata: {namespace: shop, name: one}
spec: {targetGroupARN: 'arn:one', targetType: ip, serviceRef: {name: cart, port: 80}}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: TargetGroupBinding
metadata: {namespace: shop, name: two}
spec: {targetGroupARN: 'arn:two', targetType: ip, serviceRef: {name: cart, port: metrics}}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: TargetGroupBinding
metadata: {namespace: shop, name: nodes}
spec: {targetGroupARN: 'arn:nodes', targetType: instance, serviceRef: {name: cart, port: 80}}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: TargetGroupBinding
metadata: {namespace: shop, name: without-selector}
spec: {targetGroupARN: 'arn:without', targetType: ip, serviceRef: {name: by-hand, port: 80}}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: TargetGroupBinding
metadata: {namespace: shop, name: without-service}
spec: {targetGroupARN: 'arn:nothing', targetType: ip, serviceRef: {name: gone, port: 80}}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: TargetGroupBinding
metadata: {namespace: other, name: three}
spec: {targetGroupARN: 'arn:three', targetType: ip, multiClusterTargetGroup: true, serviceRef: {name: cart, port: 80}}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: alb}
spec: {controller: ingress.k8s.aws/alb}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
";

fn snapshot() -> Snapshot {
    crate::testing::snapshot(SHOP)
}

const RULES: Rules =
    Rules { inject_gates: true, no_class_annotation: false, no_group_annotation: false, no_sleep: false };

fn ask_with(hook: Hook, namespace: &str, object: Value, old: Option<Value>, rules: Rules) -> AdmissionResponse {
    let request = Request {
        uid: "u".to_owned(),
        operation: if old.is_some() { "UPDATE" } else { "CREATE" }.to_owned(),
        namespace: namespace.to_owned(),
        object,
        old_object: old.unwrap_or_default(),
    };
    let config = BuildConfig::new("demo", Known::Known(VpcId::new("vpc-0123456789abcdef0")));
    answer(hook, &request, Some(&snapshot()), &config, rules)
}

fn ask(hook: Hook, namespace: &str, object: Value) -> AdmissionResponse {
    ask_with(hook, namespace, object, None, RULES)
}

fn shown(answer: &AdmissionResponse) -> String {
    let denied = answer.denied.iter().map(|why| format!("denied: {why}"));
    let warnings = answer.warnings.iter().map(|warning| format!("warning: {warning}"));
    let lines: Vec<String> = denied.chain(warnings).collect();
    if lines.is_empty() { "allowed".to_owned() } else { lines.join("\n") }
}

fn gates(kinds: &[&str]) -> Value {
    kinds.iter().map(|kind| json!({ "conditionType": kind })).collect()
}

#[test]
fn pods_get_a_gate_for_each_target_group_that_they_will_be_in() {
    let (one, two) = ("target-health.elbv2.k8s.aws/one", "target-health.elbv2.k8s.aws/two");
    let legacy = "target-health.alb.ingress.k8s.aws/web_cart_80";
    let warm = "example.com/warm";
    let pod = |labels: Value, kinds: Option<&[&str]>| {
        let mut pod = json!({"metadata": {"generateName": "cart-", "labels": labels}, "spec": {"containers": []}});
        if let Some(kinds) = kinds {
            pod["spec"]["readinessGates"] = gates(kinds);
        }
        pod
    };
    let cart = || json!({"app": "cart", "version": "2"});
    for (case, namespace, pod, expected) in [
        ("none before", "shop", pod(cart(), None), Some(vec![one, two])),
        ("others stay", "shop", pod(cart(), Some(&[warm])), Some(vec![warm, one, two])),
        ("one is there", "shop", pod(cart(), Some(&[two, warm])), Some(vec![two, warm, one])),
        ("all are there", "shop", pod(cart(), Some(&[two, one, legacy])), None),
        ("old ones go when new ones come", "shop", pod(cart(), Some(&[legacy, warm])), Some(vec![warm, one, two])),
        ("old ones stay where none come", "shop", pod(json!({"app": "web"}), Some(&[legacy])), None),
        ("no labels", "shop", pod(Value::Null, None), None),
        (
            "the namespace of the request counts",
            "other",
            pod(cart(), None),
            Some(vec!["target-health.elbv2.k8s.aws/three"]),
        ),
        ("no bindings", "third", pod(cart(), None), None),
        ("no pod", "shop", Value::Null, None),
    ] {
        let patch = ask(Hook::Pod, namespace, pod).patch;
        let expected =
            expected.map(|kinds| json!({"op": "add", "path": "/spec/readinessGates", "value": gates(&kinds)}));
        assert_eq!(patch, Vec::from_iter(expected), "{case}");
    }
    let off = Rules { inject_gates: false, ..RULES };
    assert_eq!(ask_with(Hook::Pod, "shop", pod(cart(), None), None, off), AdmissionResponse::allowed());
    assert_eq!(
        ask_with(Hook::Pod, "shop", pod(cart(), None), Some(pod(cart(), None)), RULES),
        AdmissionResponse::allowed()
    );
}

#[test]
fn until_every_kind_is_listed_everything_is_admitted() {
    let config = crate::testing::build_config();
    let request = Request {
        operation: "CREATE".to_owned(),
        namespace: "shop".to_owned(),
        object: json!({"metadata": {"labels": {"app": "cart"}}, "spec": {}}),
        ..Request::default()
    };
    for hook in Hook::ALL {
        assert_eq!(answer(hook, &request, None, &config, RULES), AdmissionResponse::allowed(), "{hook:?}");
    }
}

#[test]
fn services_that_name_no_class_become_ours_when_they_are_made() {
    let service = |spec: Value| json!({"metadata": {"name": "web"}, "spec": spec});
    let ours = json!({"op": "add", "path": "/spec/loadBalancerClass", "value": "service.k8s.aws/nlb"});
    for (spec, expected) in [
        (json!({"type": "LoadBalancer"}), true),
        (json!({"type": "LoadBalancer", "loadBalancerClass": ""}), true),
        (json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/other"}), false),
        (json!({"type": "ClusterIP"}), false),
        (json!({}), false),
    ] {
        let patch = ask(Hook::Service, "shop", service(spec.clone())).patch;
        assert_eq!(patch, Vec::from_iter(expected.then(|| ours.clone())), "{spec}");
    }
}

#[test]
fn an_update_that_leaves_out_the_class_of_a_service_keeps_it() {
    let service = |class: Option<&str>| {
        let mut spec = json!({"type": "LoadBalancer"});
        class.into_iter().for_each(|class| spec["loadBalancerClass"] = class.into());
        json!({"metadata": {"name": "web"}, "spec": spec})
    };
    for (old, new, expected) in [
        (Some("service.k8s.aws/nlb"), None, Some("service.k8s.aws/nlb")),
        (Some("example.com/other"), Some(""), Some("example.com/other")),
        (Some("service.k8s.aws/nlb"), Some("example.com/other"), None),
        // The class can only be set when the Service is made or becomes a LoadBalancer.
        (None, None, None),
        (Some(""), None, None),
    ] {
        let answer = ask_with(Hook::Service, "shop", service(new), Some(service(old)), RULES);
        let patch = |class| json!({"op": "add", "path": "/spec/loadBalancerClass", "value": class});
        assert_eq!(answer.patch, Vec::from_iter(expected.map(patch)), "{old:?} {new:?}");
        assert_eq!(shown(&answer), "allowed");
    }
    let other_type = json!({"metadata": {"name": "web"}, "spec": {"type": "ClusterIP"}});
    let answer = ask_with(Hook::Service, "shop", other_type, Some(service(Some("service.k8s.aws/nlb"))), RULES);
    assert_eq!(answer, AdmissionResponse::allowed());
}

fn ingress(class: &str, annotations: Value, service: &str) -> Value {
    let backend = json!({"service": {"name": service, "port": {"number": 80}}});
    let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
    json!({
        "metadata": {"namespace": "shop", "name": "web", "annotations": annotations},
        "spec": {"ingressClassName": class, "rules": [{"http": {"paths": paths}}]},
    })
}

#[test]
fn ingresses_are_denied_as_by_aws_load_balancer_controller() {
    let conditions = |text: &str| {
        let annotations =
            json!({"alb.ingress.kubernetes.io/conditions.cart": text, "alb.ingress.kubernetes.io/target-type": "ip"});
        let answer = ask(Hook::Ingress, "shop", ingress("alb", annotations, "cart"));
        answer.denied.unwrap_or_else(|| "allowed".to_owned())
    };
    insta::assert_snapshot!(conditions("[{"), @"the annotation `alb.ingress.kubernetes.io/conditions.cart` cannot be used: it is not JSON (EOF while parsing an object at line 1 column 2)");
    insta::assert_snapshot!(conditions("{}"), @"the annotation `alb.ingress.kubernetes.io/conditions.cart` cannot be used: it is not a list of conditions");
    insta::assert_snapshot!(conditions(r#"[{"field": "host-header"}]"#), @"the annotation `alb.ingress.kubernetes.io/conditions.cart` cannot be used: condition 1 on `host-header` needs `hostHeaderConfig`");
    insta::assert_snapshot!(conditions(r#"[{"field": "path-pattern", "pathPatternConfig": {"values": []}}]"#), @"the annotation `alb.ingress.kubernetes.io/conditions.cart` cannot be used: condition 1 on `path-pattern` has no values");
    insta::assert_snapshot!(conditions(r#"[{"field": "http-header", "httpHeaderConfig": {"values": ["a"]}}]"#), @"the annotation `alb.ingress.kubernetes.io/conditions.cart` cannot be used: condition 1 on `http-header` needs `httpHeaderName`");
    // Go ignores the case of letters; and mistakes that only the build finds are warnings, not denials.
    for text in [
        r#"[{"Field": "host-header", "HostHeaderConfig": {"Values": ["a.example.com"]}}]"#,
        r#"[{"field": "source-ip", "sourceIPConfig": {"values": ["10.0.0.1"]}}]"#,
        "null",
    ] {
        assert_eq!(conditions(text), "allowed", "{text}");
    }
    // Of other classes, of other Services, and where it was so before.
    let broken = json!({"alb.ingress.kubernetes.io/conditions.cart": "[{"});
    for (object, old) in [
        (ingress("nginx", broken.clone(), "cart"), None),
        (ingress("alb", broken.clone(), "web"), None),
        (ingress("alb", broken.clone(), "cart"), Some(ingress("alb", broken.clone(), "cart"))),
    ] {
        assert_eq!(ask_with(Hook::Ingress, "shop", object, old, RULES).denied, None);
    }
    let mut going = ingress("alb", broken, "cart");
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(
        ask_with(Hook::Ingress, "shop", going, Some(ingress("alb", json!({}), "cart")), RULES),
        AdmissionResponse::allowed()
    );
}

#[test]
fn annotations_that_are_switched_off_may_stay_and_not_come() {
    let rules = Rules { no_class_annotation: true, no_group_annotation: true, ..RULES };
    let object = |annotations: Value| ingress("alb", annotations, "cart");
    let denied = |new: Value, old: Option<Value>| {
        ask_with(Hook::Ingress, "shop", object(new), old.map(object), rules)
            .denied
            .unwrap_or_else(|| "allowed".to_owned())
    };
    let class = || json!({"kubernetes.io/ingress.class": "alb"});
    let group = |name: &str| json!({"alb.ingress.kubernetes.io/group.name": name});
    insta::assert_snapshot!(denied(class(), None), @"the annotation `kubernetes.io/ingress.class` is switched off (--disable-ingress-class-annotation); set spec.ingressClassName");
    insta::assert_snapshot!(denied(group("a"), Some(group("b"))), @"the annotation `alb.ingress.kubernetes.io/group.name` is switched off (--disable-ingress-group-name-annotation); let the class name the group");
    let mut both = class();
    both["example.com/other"] = "changed".into();
    assert_eq!(denied(both, Some(class())), "allowed");
    assert_eq!(denied(json!({}), Some(group("b"))), "allowed");
}

#[test]
fn ingresses_are_told_what_will_be_found_wrong_with_them() {
    let reported =
        |class: &str, annotations: Value| shown(&ask(Hook::Ingress, "shop", ingress(class, annotations, "cart")));
    insta::assert_snapshot!(reported("alb", json!({"alb.ingress.kubernetes.io/target-type": "ip"})), @"allowed");
    insta::assert_snapshot!(reported("alb", json!({
        "alb.ingress.kubernetes.io/target-type": "ip",
        "alb.ingress.kubernetes.io/shceme": "internal",
    })), @"warning: annotation `alb.ingress.kubernetes.io/shceme` is not known and has no effect; write `alb.ingress.kubernetes.io/scheme`, if that is what is meant");
    insta::assert_snapshot!(reported("alb", json!({
        "alb.ingress.kubernetes.io/target-type": "pod",
        "alb.ingress.kubernetes.io/scheme": "public",
    })), @"
        warning: it will not be served: annotation `alb.ingress.kubernetes.io/scheme` has the value `public`; allowed: `internal` or `internet-facing`
        warning: it will not be served: annotation `alb.ingress.kubernetes.io/target-type` has the value `pod`; allowed: `instance` or `ip`
        ");
    insta::assert_snapshot!(reported("nginx", json!({"alb.ingress.kubernetes.io/scheme": "public"})), @"allowed");
    insta::assert_snapshot!(reported("missing", json!({})), @"warning: it will not be served: spec.ingressClassName: the IngressClass `missing` does not exist; create it, or name another class");
    let many: serde_json::Map<String, Value> = (0..7)
        .map(|n| (format!("alb.ingress.kubernetes.io/nonsense-{n}"), "x".into()))
        .chain([("alb.ingress.kubernetes.io/target-type".to_owned(), "ip".into())])
        .collect();
    insta::assert_snapshot!(reported("alb", many.into()), @"
        warning: annotation `alb.ingress.kubernetes.io/nonsense-0` is not known and has no effect; look it up in the list of annotations, or remove it
        warning: annotation `alb.ingress.kubernetes.io/nonsense-1` is not known and has no effect; look it up in the list of annotations, or remove it
        warning: annotation `alb.ingress.kubernetes.io/nonsense-2` is not known and has no effect; look it up in the list of annotations, or remove it
        warning: annotation `alb.ingress.kubernetes.io/nonsense-3` is not known and has no effect; look it up in the list of annotations, or remove it
        warning: annotation `alb.ingress.kubernetes.io/nonsense-4` is not known and has no effect; look it up in the list of annotations, or remove it
        warning: and 2 more; `albatross plan` shows all
        ");
    // Its Service may be the next object of the same manifest.
    let answer =
        ask(Hook::Ingress, "shop", ingress("alb", json!({"alb.ingress.kubernetes.io/target-type": "ip"}), "later"));
    assert_eq!(shown(&answer), "allowed");
}

#[test]
fn ingress_class_params_are_denied_for_ranges_and_subnets() {
    let reported =
        |spec: Value| shown(&ask(Hook::IngressClassParams, "", json!({"metadata": {"name": "alb"}, "spec": spec})));
    assert_eq!(
        reported(json!({"inboundCIDRs": ["10.0.0.0/8", "2001:db8::/32"], "subnets": {"ids": ["subnet-1"]}})),
        "allowed"
    );
    insta::assert_snapshot!(reported(json!({"inboundCIDRs": ["10.0.0.1/8", "x"]})), @"denied: spec.inboundCIDRs[0]: `10.0.0.1/8` has bits behind its prefix; write `10.0.0.1/32` or `10.0.0.0/8`; spec.inboundCIDRs[1]: `x` is not an address range; write ranges such as `10.0.0.0/8` or `2001:db8::/32`");
    insta::assert_snapshot!(reported(json!({"subnets": {}})), @"denied: spec.subnets: neither `ids` nor `tags` is set; set exactly one of `ids` and `tags`");
    insta::assert_snapshot!(reported(json!({"subnets": {"ids": ["subnet-1", "subnet-1"]}})), @"denied: spec.subnets.ids: `subnet-1` is named twice; name each subnet once");
    insta::assert_snapshot!(reported(json!({"sslRedirectPort": "https"})), @"warning: spec.sslRedirectPort: `https` is not a valid port; write the number of an HTTPS port, such as `443`");
}

#[test]
fn bindings_are_denied_for_what_cannot_be() {
    let binding = |namespace: &str, name: &str, spec: Value| json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
    let with = |fields: Value| {
        let mut spec = json!({"targetGroupARN": "arn:new", "serviceRef": {"name": "cart", "port": 80}});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        spec
    };
    let created = |fields: Value| shown(&ask(Hook::TargetGroupBinding, "shop", binding("shop", "new", with(fields))));
    assert_eq!(created(json!({})), "allowed");
    insta::assert_snapshot!(created(json!({"targetGroupARN": ""})), @"denied: it names no target group; set spec.targetGroupARN or spec.targetGroupName");
    insta::assert_snapshot!(created(json!({"targetType": "ip", "nodeSelector": {}})), @"denied: spec.nodeSelector selects nodes, and with the target type ip the targets are pods; remove it");
    insta::assert_snapshot!(created(json!({"targetType": "instance", "iamRoleArnToAssume": "arn:aws:iam::111122223333:role/targets", "targetGroupProtocol": "QUIC"})), @"denied: spec.iamRoleArnToAssume: nodes cannot be registered in another account; use the target type ip; spec.targetGroupProtocol: QUIC needs the target type ip");
    insta::assert_snapshot!(created(json!({"iamRoleArnToAssume": "arn:role"})), @"denied: spec.iamRoleArnToAssume: `arn:role` is not the ARN of an IAM role; write it as arn:aws:iam::ACCOUNT:role/NAME");
    insta::assert_snapshot!(created(json!({"vpcID": "vpc-1"})), @"denied: spec.vpcID: `vpc-1` is not the id of a VPC; write an id, vpc-…");
    insta::assert_snapshot!(created(json!({"targetGroupARN": "arn:one"})), @"denied: the target group arn:one already has the TargetGroupBinding shop/one; delete that first, or bind another");
    insta::assert_snapshot!(created(json!({"targetGroupARN": "arn:three"})), @"denied: the target group arn:three already has the TargetGroupBinding other/three; delete that first, or bind another");
    // A name is the one in the ARN.
    assert_eq!(created(json!({"targetGroupARN": "", "targetGroupName": "cart"})), "allowed");
    assert_eq!(created(json!({"targetGroupARN": "arn:three", "multiClusterTargetGroup": true})), "allowed");

    // A binding that may be the stack's own is not denied because of a user's object.
    let labelled = |namespace: &str| {
        let mut labelled = binding("shop", "new", with(json!({"targetGroupARN": "arn:one"})));
        labelled["metadata"]["labels"] =
            json!({"ingress.k8s.aws/stack-namespace": namespace, "ingress.k8s.aws/stack-name": "web"});
        shown(&ask(Hook::TargetGroupBinding, "shop", labelled))
    };
    assert_eq!(labelled("shop"), "allowed");
    assert!(labelled("other").starts_with("denied: the target group arn:one already has"));

    let changed = |old: Value, new: Value| {
        let (old, new) = (binding("shop", "one", with(old)), binding("shop", "one", with(new)));
        shown(&ask_with(Hook::TargetGroupBinding, "shop", new, Some(old), RULES))
    };
    let before =
        json!({"targetGroupARN": "arn:one", "targetType": "ip", "ipAddressType": "ipv4", "vpcID": "vpc-01234567"});
    insta::assert_snapshot!(changed(before.clone(), json!({"targetGroupARN": "arn:other", "targetType": "instance", "ipAddressType": "ipv6"})), @"denied: spec.targetGroupARN, spec.targetType, spec.ipAddressType, spec.vpcID cannot be changed; delete the TargetGroupBinding and create another");
    for (case, old, new) in [
        ("nothing changes", before.clone(), before),
        (
            "what was left out is filled in",
            json!({}),
            json!({"targetType": "ip", "ipAddressType": "ipv6", "vpcID": "vpc-0123456789abcdef0"}),
        ),
        ("what is the default goes", json!({"ipAddressType": "ipv4"}), json!({})),
        (
            "its own target group is its own",
            json!({"targetGroupARN": "arn:one"}),
            json!({"targetGroupARN": "arn:one", "targetType": "ip"}),
        ),
        (
            "what was wrong before, and is not changed",
            json!({"targetGroupARN": "arn:two"}),
            json!({"targetGroupARN": "arn:two"}),
        ),
    ] {
        assert_eq!(changed(old, new), "allowed", "{case}");
    }
    insta::assert_snapshot!(changed(json!({}), json!({"vpcID": "vpc-76543210"})), @"denied: spec.vpcID cannot be changed; delete the TargetGroupBinding and create another");
}
