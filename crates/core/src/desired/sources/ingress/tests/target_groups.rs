//! Target groups, their health checks, bindings, names and tags.

use super::*;

/// Target groups in short.
fn short(stack: &Stack) -> String {
    let mut text = String::new();
    for group in stack.target_groups.values() {
        let check = &group.health_check;
        let matcher = match check.matcher.as_ref().unwrap() {
            Matcher::Http(codes) => format!("HTTP {codes}"),
            Matcher::Grpc(codes) => format!("gRPC {codes}"),
        };
        writeln!(
            text,
            "{}: {} {} {} port {}; check {} {} on {} {}/{} {}/{} {matcher}; bound to {}:{} through {}",
            group.resource,
            group.target_type,
            group.protocol,
            group.protocol_version.unwrap(),
            group.port,
            check.protocol,
            check.path.as_deref().unwrap(),
            check.port,
            check.interval_seconds,
            check.timeout_seconds,
            check.healthy_threshold,
            check.unhealthy_threshold,
            group.binding.service,
            group.binding.service_port,
            networking(&group.binding).1
        )
        .unwrap();
    }
    text
}

/// The Ingress leads to all ports of both Services, one of them twice by number and by name.
fn all_ports(annotations: &[(&str, &str)]) -> String {
    let paths = [
        ("Exact", "/1", "web", "80"),
        ("Exact", "/2", "web", "80"),
        ("Exact", "/3", "api", "80"),
        ("Exact", "/4", "api", "http"),
        ("Exact", "/5", "api", "admin"),
    ];
    ingress(annotations, &format!("  rules:\n{}", rules("", &paths)))
}

/// The usual Services, with annotations under the controller's prefix on `web`.
fn services(annotations: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = annotations
        .iter()
        .map(|(key, value)| format!("alb.ingress.kubernetes.io/{key}: {}", serde_json::Value::from(*value)))
        .collect();
    SERVICES.replacen("name: web,", &format!("name: web, annotations: {{{}}},", pairs.join(", ")), 1)
}

fn with_services(on_service: &[(&str, &str)], ingress: &str) -> Built {
    build_with(&format!("{}\n---\n{ingress}", services(on_service)), &config(), &facts())
}

#[test]
fn addresses_use_the_pods_ports_and_instances_the_node_ports() {
    insta::assert_snapshot!(short(&stack(&all_ports(&[("target-type", "ip")]))), @r"
    shop/web-web:80: ip HTTP HTTP1 port 8080; check HTTP / on traffic-port 15/5 2/2 HTTP 200; bound to web:80 through 8080
    shop/web-api:80: ip HTTP HTTP1 port 1; check HTTP / on traffic-port 15/5 2/2 HTTP 200; bound to api:80 through serve
    shop/web-api:http: ip HTTP HTTP1 port 1; check HTTP / on traffic-port 15/5 2/2 HTTP 200; bound to api:http through serve
    shop/web-api:admin: ip HTTP HTTP1 port 9001; check HTTP / on traffic-port 15/5 2/2 HTTP 200; bound to api:admin through 9001
    ");
    insta::assert_snapshot!(short(&stack(&all_ports(&[]))), @r"
    shop/web-web:80: instance HTTP HTTP1 port 30080; check HTTP / on traffic-port 15/5 2/2 HTTP 200; bound to web:80 through 30080
    shop/web-api:80: instance HTTP HTTP1 port 30081; check HTTP / on traffic-port 15/5 2/2 HTTP 200; bound to api:80 through 30081
    shop/web-api:http: instance HTTP HTTP1 port 30081; check HTTP / on traffic-port 15/5 2/2 HTTP 200; bound to api:http through 30081
    shop/web-api:admin: instance HTTP HTTP1 port 30082; check HTTP / on traffic-port 15/5 2/2 HTTP 200; bound to api:admin through 30082
    ");
    let config = BuildConfig { default_target_type: TargetType::Ip, disable_restricted_rules: true, ..config() };
    let built = build_with(&format!("{SERVICES}\n---\n{}", ingress(&[], &everything())), &config, &facts());
    insta::assert_snapshot!(short(&built.stack.unwrap()), @"shop/web-web:80: ip HTTP HTTP1 port 8080; check HTTP / on traffic-port 15/5 2/2 HTTP 200; bound to web:80 through every port");
}

#[test]
fn an_ingress_names_a_target_group_once_in_all_its_listeners() {
    let annotations = [("target-type", "ip"), ("listen-ports", r#"[{"HTTP": 80}, {"HTTP": 8080}]"#)];
    let spec = format!("  defaultBackend: {}\n{}", backend("api", "http"), everything());
    let stack = stack(&ingress(&annotations, &spec));
    let ids: Vec<&str> = stack.target_groups.keys().map(|id| id.as_str()).collect();
    assert_eq!(ids, ["shop/web-api:http", "shop/web-web:80"]);
}

#[test]
fn the_service_wins_over_the_ingress() {
    let on_ingress = [
        ("target-type", "ip"),
        ("backend-protocol", "HTTPS"),
        ("healthcheck-path", "/ingress"),
        ("healthcheck-port", "8081"),
        ("healthcheck-protocol", "HTTP"),
        ("healthcheck-interval-seconds", "20"),
        ("healthcheck-timeout-seconds", "6"),
        ("healthy-threshold-count", "3"),
        ("unhealthy-threshold-count", "4"),
        ("success-codes", "200,301"),
    ];
    let on_service = [("healthcheck-path", "/service"), ("success-codes", "200-299"), ("backend-protocol", "HTTP")];
    let paths = [("Exact", "/1", "web", "80"), ("Exact", "/2", "api", "http")];
    let built = with_services(&on_service, &ingress(&on_ingress, &format!("  rules:\n{}", rules("", &paths))));
    assert_eq!(messages(&built), "");
    insta::assert_snapshot!(short(&built.stack.unwrap()), @r"
    shop/web-web:80: ip HTTP HTTP1 port 8080; check HTTP /service on 8081 20/6 3/4 HTTP 200-299; bound to web:80 through 8080,8081
    shop/web-api:http: ip HTTPS HTTP1 port 1; check HTTP /ingress on 8081 20/6 3/4 HTTP 200,301; bound to api:http through serve,8081
    ");
}

#[test]
fn grpc_has_other_defaults_and_the_check_speaks_as_the_backend() {
    let with = |annotations: &[(&str, &str)]| {
        let all = [&[("target-type", "ip")], annotations].concat();
        short(&stack(&ingress(&all, &everything())))
    };
    insta::assert_snapshot!(with(&[("backend-protocol-version", "GRPC")]), @"shop/web-web:80: ip HTTP GRPC port 8080; check HTTP /AWS.ALB/healthcheck on traffic-port 15/5 2/2 gRPC 12; bound to web:80 through 8080");
    insta::assert_snapshot!(with(&[("backend-protocol-version", "GRPC"), ("success-codes", "0"), ("healthcheck-path", "/grpc.health.v1.Health/Check")]), @"shop/web-web:80: ip HTTP GRPC port 8080; check HTTP /grpc.health.v1.Health/Check on traffic-port 15/5 2/2 gRPC 0; bound to web:80 through 8080");
    insta::assert_snapshot!(with(&[("backend-protocol-version", "HTTP2"), ("backend-protocol", "HTTPS")]), @"shop/web-web:80: ip HTTPS HTTP2 port 8080; check HTTPS / on traffic-port 15/5 2/2 HTTP 200; bound to web:80 through 8080");
}

#[test]
fn the_health_check_port_may_be_named() {
    let with = |kind: &str, port: &str, service: &str| {
        let spec = format!("  rules:\n{}", rules("", &[("Exact", "/", service, "80")]));
        stack(&ingress(&[("target-type", kind), ("healthcheck-port", port)], &spec)).target_groups[0].clone()
    };
    for (kind, port, service, expected, through) in [
        ("ip", "traffic-port", "web", "traffic-port", "8080"),
        ("ip", "8081", "web", "8081", "8080 8081"),
        ("ip", "admin", "api", "9001", "serve 9001"),
        ("instance", "admin", "api", "30082", "30081 30082"),
        ("instance", "http", "api", "30081", "30081 30081"),
        // A number is written as AWS gives it back, or it would differ for ever.
        ("ip", "08081", "web", "8081", "8080 8081"),
        ("ip", "+8081", "web", "8081", "8080 8081"),
    ] {
        let group = with(kind, port, service);
        let ports = networking(&group.binding).1.replace(',', " ");
        assert_eq!((&*group.health_check.port, &*ports), (expected, through), "{kind} {port}");
    }
}

#[test]
fn target_groups_that_cannot_be_are_refused() {
    let reported = |annotations: &[(&str, &str)], service: &str, manifests: &str| {
        let spec = format!("  rules:\n{}", rules("", &[("Exact", "/", service, "80")]));
        messages(&build_with(&format!("{manifests}\n---\n{}", ingress(annotations, &spec)), &config(), &facts()))
    };
    let cluster = SERVICES.replace("type: NodePort", "type: ClusterIP");
    let cluster =
        cluster.replace(", nodePort: 30080", "").replace(", nodePort: 30082", "").replace(", nodePort: 30081", "");
    insta::assert_snapshot!(reported(&[], "web", &cluster), @"Error unsupported on Ingress shop/web: spec.rules[0].http.paths[0].backend.service: the Service `shop/web` is of type ClusterIP and has no node port, but its targets are instances; set `alb.ingress.kubernetes.io/target-type: ip`, or make the Service of type NodePort");
    insta::assert_snapshot!(reported(&[("target-type", "ip")], "web", &SERVICES.replace("type: NodePort", "ipFamilies: [IPv4, IPv6]")), @"Error unsupported on Ingress shop/web: spec.rules[0].http.paths[0].backend.service: the Service `shop/web` has IPv6 addresses, and its load balancer has only IPv4 addresses; set `alb.ingress.kubernetes.io/ip-address-type: dualstack`, or `spec.ipFamilies: [IPv4]` on the Service");
    insta::assert_snapshot!(reported(&[("target-type", "ip"), ("healthcheck-port", "http")], "api", SERVICES), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/healthcheck-port: the port `http` of the Service `shop/api` leads to the named port `serve` of its pods, which may be another number in each; write the number of the port to check");
    insta::assert_snapshot!(reported(&[("target-type", "ip"), ("healthcheck-port", "metrics")], "api", SERVICES), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/healthcheck-port: `metrics` is neither a port number nor the name of a port of the Service `shop/api`; write `traffic-port`, a port number, or the name of a port of the Service");
    insta::assert_snapshot!(reported(&[("target-type", "ip"), ("healthcheck-port", "0")], "web", SERVICES), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/healthcheck-port: `0` is neither a port number nor the name of a port of the Service `shop/web`; write `traffic-port`, a port number, or the name of a port of the Service");
    let without = SERVICES.replace(", nodePort: 30082", "");
    insta::assert_snapshot!(reported(&[("healthcheck-port", "admin")], "api", &without), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/healthcheck-port: the port `admin` of the Service `shop/api` has no node port; write `traffic-port`, a port number, or the name of a port of the Service");
    insta::assert_snapshot!(reported(&[("target-type", "pod"), ("backend-protocol", "http"), ("backend-protocol-version", "HTTP/2")], "web", SERVICES), @r"
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/target-type` has the value `pod`; allowed: `instance` or `ip`
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/backend-protocol` has the value `http`; allowed: `HTTP` or `HTTPS`; write `HTTP`
    Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/backend-protocol-version` has the value `HTTP/2`; allowed: `HTTP1`, `HTTP2` or `GRPC`; write `HTTP2`
    ");
    insta::assert_snapshot!(reported(&[("target-type", "ip"), ("healthcheck-interval-seconds", "15s"), ("success-codes", "")], "web", SERVICES), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/healthcheck-interval-seconds` has the value `15s`; allowed: a whole number");
}

#[test]
fn a_mistake_on_the_service_is_told_of_the_service() {
    let built = with_services(&[("target-type", "ips")], &ingress(&[("target-type", "ip")], &everything()));
    insta::assert_snapshot!(messages(&built), @"Error invalid-value on Service shop/web: annotation `alb.ingress.kubernetes.io/target-type` of the Service has the value `ips`; allowed: `instance` or `ip`; write `ip`");
    let built = with_services(
        &[("healthcheck-paths", "/"), ("scheme", "internal"), ("load-balancer-name", "x")],
        &ingress(&[("target-type", "ip")], &everything()),
    );
    insta::assert_snapshot!(messages(&built), @r"
    Warning unknown-annotation on Service shop/web: annotation `alb.ingress.kubernetes.io/healthcheck-paths` is not known and has no effect; write `alb.ingress.kubernetes.io/healthcheck-path`, if that is what is meant
    Warning unknown-annotation on Service shop/web: annotation `alb.ingress.kubernetes.io/load-balancer-name` has no effect on a Service: it is read on an Ingress; set it on the Ingress, or remove it from the Service
    Warning unknown-annotation on Service shop/web: annotation `alb.ingress.kubernetes.io/scheme` has no effect on a Service: it is read on an Ingress; set it on the Ingress, or remove it from the Service
    ");
    assert!(built.stack.is_some());
}

fn tags_of(tags: &Tags) -> Vec<(&str, &str)> {
    tags.iter().filter(|(key, _)| !key.contains("k8s.aws/")).map(|(key, value)| (&**key, &**value)).collect()
}

#[test]
fn tags_of_flags_win_over_those_of_services_and_those_over_the_ingress() {
    let config = BuildConfig {
        default_tags: Tags::from([("Stage".to_owned(), "flag".to_owned()), ("Extra".to_owned(), "flag".to_owned())]),
        ..config()
    };
    let on_ingress =
        [("target-type", "ip"), ("tags", r"Owner=team\,a,Cost Center=42,Stage=ingress,elbv2.k8s.aws/cluster=other")];
    let manifests = format!(
        "{}\n---\n{}",
        services(&[("tags", "Owner=service,Extra=service")]),
        ingress(&on_ingress, &everything())
    );
    let stack = build_with(&manifests, &config, &facts()).stack.unwrap();
    let of_ingress = [("Cost Center", "42"), ("Extra", "flag"), ("Owner", "team,a"), ("Stage", "flag")];
    let of_service = [("Cost Center", "42"), ("Extra", "flag"), ("Owner", "service"), ("Stage", "flag")];
    assert_eq!(tags_of(&stack.load_balancer.as_ref().unwrap().tags), of_ingress);
    assert_eq!(tags_of(&stack.security_group.as_ref().unwrap().tags), of_ingress);
    assert_eq!(tags_of(&stack.listeners[&80].tags), of_ingress);
    assert_eq!(tags_of(&stack.listeners[&80].rules[0].tags), of_ingress);
    assert_eq!(tags_of(&stack.target_groups[0].tags), of_service);
    assert_eq!(stack.load_balancer.unwrap().tags["elbv2.k8s.aws/cluster"], "demo");
}

#[test]
fn tags_managed_outside_are_refused_of_whomever_has_them() {
    let config = BuildConfig { external_managed_tags: ["Owner".to_owned()].into(), ..config() };
    let reported = |on_service: &[(&str, &str)], on_ingress: &[(&str, &str)]| {
        let ingress = ingress(&[&[("target-type", "ip")], on_ingress].concat(), &everything());
        messages(&build_with(&format!("{}\n---\n{ingress}", services(on_service)), &config, &facts()))
    };
    insta::assert_snapshot!(reported(&[], &[("tags", "Owner=me")]), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/tags: the tag `Owner` is managed outside of the cluster (--external-managed-tags); remove it from the annotation");
    insta::assert_snapshot!(reported(&[("tags", "Owner=me")], &[]), @"Error invalid-value on Service shop/web: alb.ingress.kubernetes.io/tags: the tag `Owner` is managed outside of the cluster (--external-managed-tags); remove it from the annotation");
}

#[test]
fn the_load_balancer_takes_the_name_that_it_is_given() {
    let stack = stack(&ingress(&[("load-balancer-name", "front-door")], "  rules: []\n"));
    assert_eq!(stack.load_balancer.unwrap().name.to_string(), "front-door");
    let reported = |name: &str| messages(&built(&ingress(&[("load-balancer-name", name)], "  rules: []\n")));
    insta::assert_snapshot!(reported("front_door"), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/load-balancer-name: `front_door` is not a valid name: it has a character that is neither letter, digit nor hyphen; a name has 1 to 32 letters, digits and hyphens, neither starts nor ends with a hyphen, and does not start with `internal-`; choose another name");
    insta::assert_snapshot!(reported("internal-door"), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/load-balancer-name: `internal-door` is not a valid name: it starts with `internal-`; a name has 1 to 32 letters, digits and hyphens, neither starts nor ends with a hyphen, and does not start with `internal-`; choose another name");
    insta::assert_snapshot!(reported(""), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/load-balancer-name: `` is not a valid name: it is empty; a name has 1 to 32 letters, digits and hyphens, neither starts nor ends with a hyphen, and does not start with `internal-`; choose another name");
    insta::assert_snapshot!(reported("a-name-that-is-longer-than-aws-takes"), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/load-balancer-name` has the value `a-name-that-is-longer-than-aws-takes`; allowed: text of at most 32 characters");
}

#[test]
fn a_target_group_is_shared_where_the_ingress_or_the_service_says_so() {
    let key = "multi-cluster-target-group";
    for (on_ingress, on_service, shared) in [
        (None, None, [false, false]),
        (Some("true"), None, [true, true]),
        (None, Some("true"), [true, false]),
        (Some("true"), Some("false"), [true, true]),
        (Some("false"), Some("true"), [true, false]),
        (Some("false"), Some("false"), [false, false]),
    ] {
        let annotation = |value: Option<&'static str>| value.map(|value| (key, value)).into_iter().collect::<Vec<_>>();
        let paths = [("Exact", "/1", "web", "80"), ("Exact", "/2", "api", "http")];
        let on_ingress = [annotation(on_ingress), vec![("target-type", "ip")]].concat();
        let ingress = ingress(&on_ingress, &format!("  rules:\n{}", rules("", &paths)));
        let stack = with_services(&annotation(on_service), &ingress).stack.unwrap();
        let found: Vec<bool> = stack.target_groups.values().map(|group| group.binding.multi_cluster).collect();
        assert_eq!(found, shared, "{on_ingress:?} {on_service:?}");
    }
    let wrong = ingress(&[("target-type", "ip"), (key, "yes")], &everything());
    insta::assert_snapshot!(messages(&built(&wrong)), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/multi-cluster-target-group` has the value `yes`; allowed: `true` or `false`; write `true`");
}
