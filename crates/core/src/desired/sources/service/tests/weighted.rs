//! Weighted target groups: forwards to other Services of the namespace and to existing target groups.

use super::*;

const ARN: &str = "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/mine/1";
const CERTIFICATE: (&str, &str) = ("aws-load-balancer-ssl-cert", "arn:aws:acm:eu-west-1:1:certificate/a");

/// A Service `shop/<name>` that serves as a backend.
fn backend(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop, uid: {name}-uid}}\nspec:\n  type: NodePort\n{spec}"
    )
}

fn blue_and_green() -> String {
    backend("blue", "  ports: [{name: http, port: 8000, targetPort: 8080, nodePort: 31080}]\n")
        + &backend("green", "  ports: [{name: web, port: 80, targetPort: web, nodePort: 32080}]\n")
}

/// The action of a listener with a share for the Service itself and entries.
fn action(weight: i32, entries: &str) -> String {
    format!(r#"{{"type":"forward","forwardConfig":{{"baseServiceWeight":{weight},"targetGroups":[{entries}]}}}}"#)
}

fn built(annotations: &[(&str, &str)], spec: &str, others: &str, config: &BuildConfig) -> Built {
    let mut manifests = service(annotations, &format!("{CLASS}{spec}"));
    manifests.push_str(others);
    let snapshot = snapshot(&manifests);
    assert_eq!(snapshot.scope, Scope::Cluster);
    build(&snapshot, config, &facts(), &web())
}

/// Returns the actions of a stack as `<port>: <target group>=<weight>`; there must be no diagnostics.
fn forwards(built: Built) -> Vec<String> {
    assert_eq!(messages(&built), "");
    let stack = built.stack.unwrap();
    let of = |listener: &Listener| {
        let Action::Forward { target_groups, stickiness } = &listener.default_action else { panic!("a forward") };
        let group = |group: &WeightedTargetGroup<TargetGroupReference>| {
            let name = match &group.group {
                TargetGroupReference::Own(id) => format!("{id} {}", stack.target_groups[id].protocol),
                TargetGroupReference::Foreign(arn) => arn.to_string(),
                TargetGroupReference::Named(name) => name.clone(),
            };
            format!("{name}={}", group.weight.map_or("-".to_owned(), |weight| weight.to_string()))
        };
        let sticky = if stickiness.as_ref().is_some_and(|stickiness| stickiness.enabled) { " sticky" } else { "" };
        let groups: Vec<String> = target_groups.iter().map(group).collect();
        format!("{}: {}{sticky}", listener.port, groups.join(" "))
    };
    stack.listeners.values().map(of).collect()
}

#[test]
fn a_listener_forwards_to_the_service_and_to_others_by_weight() {
    let entries = format!(
        r#"{{"serviceName":"blue","servicePort":"http","weight":20}},{{"serviceName":"green","servicePort":80,"weight":0}},{{"targetGroupARN":"{ARN}","weight":70}}"#
    );
    let annotation = ("actions.TCP-80", &*action(10, &entries));
    let built = built(&[IP, annotation], TWO_PORTS, &blue_and_green(), &config());
    insta::assert_snapshot!(shown(built.stack.as_ref().unwrap()), @r#"
    security group k8s-shop-web-5c7e143220: tcp 80 from 0.0.0.0/0; tcp 443 from 0.0.0.0/0
    network load balancer k8s-shop-web-c098d5716f internal in managed, shared sg-shared
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-5be514aeea ip TCP 8080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from shared sg-shared on tcp 8080
    target group shop/blue:8000 k8s-shop-blue-0d274b283a ip TCP 8080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to blue 8000
      reached from shared sg-shared on tcp 8080
    target group shop/green:80 k8s-shop-green-86ec2edf63 ip TCP 1
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to green 80
      reached from shared sg-shared on tcp web
    target group shop/web:443 k8s-shop-web-476bc582f2 ip TCP 8443
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 443
      reached from shared sg-shared on tcp 8443
    listener TCP 80 to Own(ResourceId("shop/web:80")), Own(ResourceId("shop/blue:8000")), Own(ResourceId("shop/green:80")), Foreign(TargetGroupArn("arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/mine/1"))
    listener TCP 443 to Own(ResourceId("shop/web:443"))
    "#);
    assert_eq!(
        forwards(built),
        [
            format!("80: shop/web:80 TCP=10 shop/blue:8000 TCP=20 shop/green:80 TCP=0 {ARN}=70"),
            "443: shop/web:443 TCP=-".to_owned()
        ]
    );
}

#[test]
fn a_tls_listener_sends_tls_or_what_decrypt_says() {
    let entries = r#"{"serviceName":"blue","servicePort":8000,"weight":1},{"serviceName":"green","servicePort":80,"weight":1,"decrypt":true}"#;
    let tls = action(1, entries);
    let sticky = tls.replace("}]}", "}],\"targetGroupStickinessConfig\":{\"enabled\":true}}");
    let spec = "  ports: [{port: 443, targetPort: 8443, nodePort: 30443}]\n";
    assert_eq!(
        forwards(built(&[CERTIFICATE, ("actions.TLS-443", &sticky)], spec, &blue_and_green(), &config())),
        ["443: shop/web:443 TCP=1 shop/blue:8000 TLS=1 shop/green:80 TCP=1 sticky"]
    );
}

#[test]
fn a_name_of_digits_is_a_name_and_else_a_number() {
    let entry = r#"{"serviceName":"blue","servicePort":"80"}"#;
    for (ports, expected) in [
        (
            "[{name: '80', port: 8000, targetPort: 1, nodePort: 31080}, {name: b, port: 80, nodePort: 31081}]",
            "blue:8000",
        ),
        ("[{name: a, port: 8000, targetPort: 1, nodePort: 31080}, {name: b, port: 80, nodePort: 31081}]", "blue:80"),
    ] {
        let blue = backend("blue", &format!("  ports: {ports}\n"));
        assert_eq!(
            forwards(built(&[("actions.TCP-80", &action(1, entry))], PORT, &blue, &config())),
            [format!("80: shop/web:80 TCP=1 shop/{expected} TCP=-")]
        );
    }
}

#[test]
fn udp_listeners_and_ports_of_the_service_itself() {
    let spec = "  ports: [{name: a, port: 53, protocol: UDP, nodePort: 30053}, {name: b, port: 54, protocol: UDP, nodePort: 30054}]\n";
    let entries =
        r#"{"serviceName":"web","servicePort":"b","weight":5},{"serviceName":"blue","servicePort":8000,"weight":0}"#;
    assert_eq!(
        forwards(built(&[("actions.UDP-53", &action(1, entries))], spec, &blue_and_green(), &config())),
        ["53: shop/web:53 UDP=1 shop/web:54 UDP=5 shop/blue:8000 UDP=0", "54: shop/web:54 UDP=-"]
    );
}

#[test]
fn attributes_and_checks_are_those_of_the_load_balancers_service() {
    let written = [
        ("aws-load-balancer-target-group-attributes", "deregistration_delay.timeout_seconds=30"),
        ("aws-load-balancer-target-group-attributes.8000", "preserve_client_ip.enabled=false"),
        ("aws-load-balancer-proxy-protocol-per-target-group", "8000"),
        ("aws-load-balancer-healthcheck-port", "http"),
        ("actions.TCP-80", &*action(1, r#"{"serviceName":"blue","servicePort":8000}"#)),
    ];
    let stack = built(&written, TWO_PORTS, &blue_and_green(), &config());
    assert_eq!(messages(&stack), "");
    let stack = stack.stack.unwrap();
    let of = |id: &str| {
        let group = &stack.target_groups[&ResourceId::of_tag(id)];
        format!("{} {}", group.health_check.port, pairs(&group.attributes))
    };
    assert_eq!(of("shop/web:80"), "30080 deregistration_delay.timeout_seconds=30 proxy_protocol_v2.enabled=false");
    assert_eq!(
        of("shop/blue:8000"),
        "31080 deregistration_delay.timeout_seconds=30 preserve_client_ip.enabled=false proxy_protocol_v2.enabled=true"
    );
}

/// A node without a pod of the Service itself may have one of another, so that each is checked at its own port.
#[test]
fn with_the_traffic_policy_local_each_service_is_checked_at_its_own_port() {
    let spec = format!("  externalTrafficPolicy: Local\n  healthCheckNodePort: 30001\n{PORT}");
    let local = "  type: LoadBalancer\n  externalTrafficPolicy: Local\n  healthCheckNodePort: 30002\n  ports: [{port: 80, nodePort: 32080}]\n";
    let local = backend("green", local).replace("  type: NodePort\n", "");
    let entries =
        r#"{"serviceName":"blue","servicePort":8000,"weight":1},{"serviceName":"green","servicePort":80,"weight":1}"#;
    let others = blue_and_green().split("---\n").nth(1).map(|blue| format!("---\n{blue}{local}")).unwrap();
    let stack = built(&[("actions.TCP-80", &action(1, entries))], &spec, &others, &config());
    assert_eq!(messages(&stack), "");
    let checks: Vec<String> = stack
        .stack
        .unwrap()
        .target_groups
        .values()
        .map(|group| format!("{} {} {}", group.resource, group.health_check.protocol, group.health_check.port))
        .collect();
    assert_eq!(checks, ["shop/web:80 HTTP 30001", "shop/blue:8000 TCP traffic-port", "shop/green:80 HTTP 30002"]);
}

#[test]
fn what_is_wrong_with_a_forward() {
    let told =
        |entry: &str, others: &str| messages(&built(&[("actions.TCP-80", &action(1, entry))], PORT, others, &config()));
    insta::assert_snapshot!(told(r#"{"serviceName":"gone","servicePort":80}"#, ""), @"Error missing-service on Service shop/web: service.beta.kubernetes.io/actions.TCP-80: the Service `gone` does not exist in the namespace `shop`; the load balancer stays as it is until it does; create it, or correct the name");
    insta::assert_snapshot!(told(r#"{"serviceName":"blue","servicePort":81}"#, &blue_and_green()), @"Error missing-port on Service shop/web: service.beta.kubernetes.io/actions.TCP-80: the Service `shop/blue` has no port `81`; it has 8000 (http); name one of its ports");
    insta::assert_snapshot!(told(r#"{"serviceName":"blue","servicePort":"8001"}"#, &blue_and_green()), @"Error missing-port on Service shop/web: service.beta.kubernetes.io/actions.TCP-80: the Service `shop/blue` has no port `8001`; it has 8000 (http); name one of its ports");
    insta::assert_snapshot!(told(r#"{"serviceName":"bare","servicePort":80}"#, &backend("bare", "  ports: []\n")), @"Error missing-port on Service shop/web: service.beta.kubernetes.io/actions.TCP-80: the Service `shop/bare` has no ports; name a Service with ports");
    insta::assert_snapshot!(told(r#"{"serviceName":"web","servicePort":80}"#, ""), @"Error invalid-value on Service shop/web: service.beta.kubernetes.io/actions.TCP-80: the forward names the target group `shop/web:80` twice; name it once, with one weight; that of the Service itself has `baseServiceWeight`");
    insta::assert_snapshot!(told(r#"{"serviceName":"blue","servicePort":80,"weight":1000}"#, &blue_and_green()), @r#"Error invalid-value on Service shop/web: annotation `service.beta.kubernetes.io/actions.TCP-80` of the Service has the value `{"type":"forward","forwardConfig":{"baseServiceWeight":1,"targetGroups":[{"serv…`: forwardConfig.targetGroups[0].weight is 1000, and AWS takes 0 to 999; allowed: a JSON object with `type` `forward` and a `forwardConfig`"#);
    insta::assert_snapshot!(told(r#"{"serviceName":"blue"}"#, &blue_and_green()), @r#"Error invalid-value on Service shop/web: annotation `service.beta.kubernetes.io/actions.TCP-80` of the Service has the value `{"type":"forward","forwardConfig":{"baseServiceWeight":1,"targetGroups":[{"serv…`: forwardConfig.targetGroups[0].servicePort is missing; allowed: a JSON object with `type` `forward` and a `forwardConfig`"#);
    let inside = backend("inside", "  ports: [{port: 80}]\n").replace("NodePort", "ClusterIP");
    insta::assert_snapshot!(told(r#"{"serviceName":"inside","servicePort":80}"#, &inside), @"Error unsupported on Service shop/web: service.beta.kubernetes.io/actions.TCP-80: port 80 of the Service `shop/inside` of type ClusterIP has no node port, but its targets are instances; write `service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip`, or make that Service of type NodePort");
    let no_config = [("actions.TCP-80", r#"{"type":"forward"}"#)];
    insta::assert_snapshot!(messages(&built(&no_config, PORT, "", &config())), @r#"Error invalid-value on Service shop/web: annotation `service.beta.kubernetes.io/actions.TCP-80` of the Service has the value `{"type":"forward"}`: forwardConfig is missing; allowed: a JSON object with `type` `forward` and a `forwardConfig`"#);
}

#[test]
fn listeners_that_do_not_exist_and_protocols_that_differ() {
    let forward = action(1, r#"{"serviceName":"blue","servicePort":8000}"#);
    let unused = [("actions.TCP-81", &*forward), ("actions.TLS-80", &forward)];
    insta::assert_snapshot!(messages(&built(&unused, PORT, &blue_and_green(), &config())), @r"
    Warning missing-port on Service shop/web: service.beta.kubernetes.io/actions.TCP-81: the load balancer has no listener `TCP-81`; the annotation has no effect; name one of its listeners: `TCP-80`
    Warning missing-port on Service shop/web: service.beta.kubernetes.io/actions.TLS-80: the load balancer has no listener `TLS-80`; the annotation has no effect; name one of its listeners: `TCP-80`
    ");
    let both = [
        CERTIFICATE,
        ("aws-load-balancer-ssl-ports", "443"),
        ("actions.TCP-80", &*forward),
        ("actions.TLS-443", &forward),
    ];
    insta::assert_snapshot!(messages(&built(&both, TWO_PORTS, &blue_and_green(), &config())), @"Error unsupported on Service shop/web: service.beta.kubernetes.io/actions.TLS-443: the target group `shop/blue:8000` is requested with the protocol TLS here and with TCP by `service.beta.kubernetes.io/actions.TCP-80`; let all listeners with that port of the Service use one protocol to its targets");
}

#[test]
fn without_the_gate() {
    let config = BuildConfig { weighted_target_groups: false, ..config() };
    let forward = action(1, r#"{"serviceName":"blue","servicePort":8000}"#);
    insta::assert_snapshot!(messages(&built(&[("actions.TCP-80", &forward)], PORT, &blue_and_green(), &config)), @"Error unsupported on Service shop/web: service.beta.kubernetes.io/actions.TCP-80: the annotation forwards to several target groups, which the controller's flag `--feature-gates=WeightedTargetGroups=false` forbids; remove the annotation, or start the controller without the gate");
    assert_eq!(forwards(built(&[("actions.TCP-80", &action(5, ""))], PORT, "", &config)), ["80: shop/web:80 TCP=-"]);
}

/// Manifests may be in other files, so a plan of them shows what it can.
#[test]
fn in_files_a_service_may_be_elsewhere() {
    let forward = action(1, r#"{"serviceName":"blue","servicePort":8000}"#);
    let manifest = service(&[IP, ("actions.TCP-80", &forward)], &format!("{CLASS}{PORT}"));
    let snapshot = Snapshot { scope: Scope::Files, ..snapshot(&manifest) };
    let built = build(&snapshot, &config(), &facts(), &web());
    insta::assert_snapshot!(messages(&built), @"Note missing-service on Service shop/web: service.beta.kubernetes.io/actions.TCP-80: the Service `shop/blue` is in none of the files; its ports and annotations are not known; add its file to check them");
    insta::assert_snapshot!(shown(&built.stack.unwrap()), @r#"
    security group k8s-shop-web-5c7e143220: tcp 80 from 0.0.0.0/0
    network load balancer k8s-shop-web-c098d5716f internal in managed, shared sg-shared
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-5be514aeea ip TCP 8080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from shared sg-shared on tcp 8080
    target group shop/blue:8000 (known after apply: named after the Service's uid) ip TCP (known after apply: the port of the Service's pods)
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to blue 8000
      reached from shared sg-shared on tcp (known after apply: the port of the Service's pods)
    listener TCP 80 to Own(ResourceId("shop/web:80")), Own(ResourceId("shop/blue:8000"))
    "#);
}
