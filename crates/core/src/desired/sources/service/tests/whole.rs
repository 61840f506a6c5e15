//! Whole stacks: one for each kind of Service that users write.

use super::*;

const CERTIFICATE: &str = "arn:aws:acm:eu-west-1:1:certificate/a";
const CERTIFICATES: &str = "arn:aws:acm:eu-west-1:1:certificate/b,arn:aws:acm:eu-west-1:1:certificate/a";

#[test]
fn by_class_with_two_ports() {
    insta::assert_snapshot!(shown(&stack(&[IP, ("aws-load-balancer-scheme", "internet-facing")], TWO_PORTS)), @r#"
    security group k8s-shop-web-5c7e143220: tcp 80 from 0.0.0.0/0; tcp 443 from 0.0.0.0/0
    network load balancer k8s-shop-web-5f72a1141d internet-facing in managed, shared sg-shared
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-5be514aeea ip TCP 8080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from shared sg-shared on tcp 8080
    target group shop/web:443 k8s-shop-web-476bc582f2 ip TCP 8443
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 443
      reached from shared sg-shared on tcp 8443
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    listener TCP 443 to Own(ResourceId("shop/web:443"))
    "#);
}

#[test]
fn by_the_old_type() {
    let manifest = service(&[("aws-load-balancer-type", "nlb-ip")], &format!("  type: LoadBalancer\n{PORT}"));
    let built = build_with(&manifest, &config(), &facts());
    assert_eq!(messages(&built), "");
    assert_eq!(built.stack.unwrap(), stack(&[IP], PORT));
}

#[test]
fn internal_by_the_former_annotation() {
    assert_eq!(stack(&[("aws-load-balancer-internal", "true")], PORT), stack(&[], PORT));
    let outside = stack(&[("aws-load-balancer-internal", "false")], PORT);
    assert_eq!(outside, stack(&[("aws-load-balancer-scheme", "internet-facing")], PORT));
    assert_eq!(outside.load_balancer.unwrap().scheme, Scheme::InternetFacing);
}

#[test]
fn elastic_and_private_addresses() {
    let elastic = [
        ("aws-load-balancer-scheme", "internet-facing"),
        ("aws-load-balancer-eip-allocations", "eipalloc-1,eipalloc-2"),
        ("aws-load-balancer-subnets", "public-a,public-b"),
    ];
    insta::assert_snapshot!(shown(&stack(&elastic, PORT)), @r#"
    security group k8s-shop-web-5c7e143220: tcp 80 from 0.0.0.0/0
    network load balancer k8s-shop-web-5f72a1141d internet-facing in managed, shared sg-shared
      subnet-a eipalloc-1
      subnet-b eipalloc-2
      attributes
    target group shop/web:80 k8s-shop-web-00612ad8b1 instance TCP 30080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from shared sg-shared on tcp 30080
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    "#);
    // In any order: each goes to the subnet that it lies in.
    let private = stack(&[("aws-load-balancer-private-ipv4-addresses", "10.0.1.9, 10.0.0.8")], PORT);
    let mapping = |subnet: &str, address: &str| SubnetMapping {
        private_ipv4: Some(address.to_owned()),
        ..SubnetMapping::plain(SubnetId::new(subnet))
    };
    let expected = vec![mapping("subnet-a", "10.0.0.8"), mapping("subnet-b", "10.0.1.9")];
    assert_eq!(private.load_balancer.unwrap().subnets, Value::Known(expected));
}

#[test]
fn health_checks() {
    let written = [
        IP,
        ("aws-load-balancer-healthcheck-protocol", "http"),
        ("aws-load-balancer-healthcheck-port", "8081"),
        ("aws-load-balancer-healthcheck-path", "/ready"),
        ("aws-load-balancer-healthcheck-interval", "30"),
        ("aws-load-balancer-healthcheck-timeout", "7"),
        ("aws-load-balancer-healthcheck-healthy-threshold", "4"),
        ("aws-load-balancer-healthcheck-unhealthy-threshold", "5"),
        ("aws-load-balancer-healthcheck-success-codes", "200"),
    ];
    insta::assert_snapshot!(shown(&stack(&written, PORT)), @r#"
    security group k8s-shop-web-5c7e143220: tcp 80 from 0.0.0.0/0
    network load balancer k8s-shop-web-c098d5716f internal in managed, shared sg-shared
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-eb08cdc6c5 ip TCP 8080
      checked HTTP 8081 /ready every 30 in 7, 4/5, 200
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from shared sg-shared on tcp 8080, tcp 8081
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    "#);
    let config = BuildConfig { nlb_health_check_details: false, ..config() };
    let built = build_with(&service(&written, &format!("{CLASS}{PORT}")), &config, &facts());
    insta::assert_snapshot!(messages(&built), @"
    Warning no-effect on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-healthcheck-timeout: the controller runs with `--feature-gates=NLBHealthCheckAdvancedConfig=false`, so that the setting has no effect; start the controller with `--feature-gates=NLBHealthCheckAdvancedConfig=true`, or remove the setting
    Warning no-effect on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-healthcheck-success-codes: the controller runs with `--feature-gates=NLBHealthCheckAdvancedConfig=false`, so that the setting has no effect; start the controller with `--feature-gates=NLBHealthCheckAdvancedConfig=true`, or remove the setting
    ");
    let undetailed = shown(&built.stack.unwrap());
    insta::assert_snapshot!(undetailed.lines().find(|line| line.contains("checked")).unwrap().trim(), @"checked HTTP 8081 /ready every 30 in 10, 4/5, -");
    let local = format!("{PORT}  externalTrafficPolicy: Local\n  healthCheckNodePort: 31301\n");
    insta::assert_snapshot!(shown(&stack(&[], &local)), @r#"
    security group k8s-shop-web-5c7e143220: tcp 80 from 0.0.0.0/0
    network load balancer k8s-shop-web-c098d5716f internal in managed, shared sg-shared
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-f33924c4a4 instance TCP 30080
      checked HTTP 31301 /healthz every 10 in 6, 2/2, 200-399
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from shared sg-shared on tcp 30080, tcp 31301
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    "#);
    // The addresses of pods are checked themselves, whatever the traffic policy.
    assert_eq!(stack(&[IP], &local), stack(&[IP], PORT));
    let named = |annotations: &[(&str, &str)]| stack(annotations, TWO_PORTS).target_groups[0].health_check.port.clone();
    let by_name = ("aws-load-balancer-healthcheck-port", "https");
    assert_eq!((named(&[by_name]), named(&[by_name, IP])), ("30443".to_owned(), "8443".to_owned()));
}

#[test]
fn attributes_of_the_load_balancer() {
    let written = [
        ("aws-load-balancer-access-log-enabled", "true"),
        ("aws-load-balancer-access-log-s3-bucket-name", "logs"),
        ("aws-load-balancer-access-log-s3-bucket-prefix", "nlb"),
        ("aws-load-balancer-cross-zone-load-balancing-enabled", "true"),
        ("aws-load-balancer-attributes", "deletion_protection.enabled=false,access_logs.s3.bucket=other"),
    ];
    let attributes = pairs(&stack(&written, PORT).load_balancer.unwrap().attributes);
    insta::assert_snapshot!(attributes, @"access_logs.s3.bucket=logs access_logs.s3.enabled=true access_logs.s3.prefix=nlb deletion_protection.enabled=false load_balancing.cross_zone.enabled=true");
}

#[test]
fn attributes_of_target_groups() {
    let of = |annotations: &[(&str, &str)]| {
        let stack = stack(annotations, TWO_PORTS);
        stack.target_groups.values().map(|group| pairs(&group.attributes)).collect::<Vec<_>>()
    };
    const ALL: &str = "aws-load-balancer-target-group-attributes";
    let base = "preserve_client_ip.enabled=true,deregistration_delay.timeout_seconds=60";
    let second = (
        "aws-load-balancer-target-group-attributes.443",
        "deregistration_delay.timeout_seconds=5,preserve_client_ip.enabled=",
    );
    let (off, on) = ("proxy_protocol_v2.enabled=false", "proxy_protocol_v2.enabled=true");
    for (annotations, expected) in [
        (&[][..], [off.to_owned(), off.to_owned()]),
        (
            &[(ALL, base), second],
            [60, 5].map(|seconds| {
                format!("deregistration_delay.timeout_seconds={seconds} preserve_client_ip.enabled=true {off}")
            }),
        ),
        (&[("aws-load-balancer-proxy-protocol", "*"), (ALL, off)], [on.to_owned(), on.to_owned()]),
        (&[("aws-load-balancer-proxy-protocol-per-target-group", "443"), (ALL, on)], [off.to_owned(), on.to_owned()]),
        (&[(ALL, "proxy_protocol_v2.enabled=")], [String::new(), String::new()]),
    ] {
        assert_eq!(of(annotations), expected, "{annotations:?}");
    }
}

#[test]
fn who_may_come_in() {
    let rules = |annotations: &[(&str, &str)], spec: &str| {
        let group = stack(annotations, spec).security_group.unwrap();
        group.ingress.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    const RANGES: (&str, &str) = ("load-balancer-source-ranges", "203.0.113.7/24");
    const LISTS: (&str, &str) = ("aws-load-balancer-security-group-prefix-lists", "pl-1");
    let spec = format!("{TWO_PORTS}  loadBalancerSourceRanges: [10.0.0.0/8, 192.0.2.0/24]\n");
    for (annotations, spec, expected) in [
        (&[][..], TWO_PORTS, &["tcp 80 from 0.0.0.0/0", "tcp 443 from 0.0.0.0/0"][..]),
        (
            &[RANGES],
            &*spec,
            &[
                "tcp 80 from 10.0.0.0/8",
                "tcp 80 from 192.0.2.0/24",
                "tcp 443 from 10.0.0.0/8",
                "tcp 443 from 192.0.2.0/24",
            ],
        ),
        (&[RANGES, LISTS], PORT, &["tcp 80 from 203.0.113.0/24", "tcp 80 from pl-1"]),
        (&[LISTS], PORT, &["tcp 80 from pl-1"]),
        (
            &[("aws-load-balancer-enable-icmp-for-path-mtu-discovery", "on")],
            TWO_PORTS,
            &["tcp 80 from 0.0.0.0/0", "icmp 3-4 from 0.0.0.0/0", "tcp 443 from 0.0.0.0/0"],
        ),
    ] {
        assert_eq!(rules(annotations, spec), expected, "{annotations:?}");
    }
}

#[test]
fn security_groups_of_the_users() {
    const GIVEN: (&str, &str) = ("aws-load-balancer-security-groups", "my-sg-1");
    insta::assert_snapshot!(shown(&stack(&[GIVEN], PORT)), @r#"
    network load balancer k8s-shop-web-c098d5716f internal in given sg-mine
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-00612ad8b1 instance TCP 30080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached as the user says
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    "#);
    let managed = [GIVEN, ("aws-load-balancer-manage-backend-security-group-rules", "true")];
    insta::assert_snapshot!(shown(&stack(&managed, PORT)), @r#"
    network load balancer k8s-shop-web-c098d5716f internal in given sg-mine, shared sg-shared
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-00612ad8b1 instance TCP 30080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from shared sg-shared on tcp 30080
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    "#);
}

#[test]
fn without_security_groups() {
    const NONE: (&str, &str) = ("aws-load-balancer-disable-nlb-sg", "true");
    let ranges = format!("{PORT}  loadBalancerSourceRanges: [192.0.2.0/24]\n");
    insta::assert_snapshot!(shown(&stack(&[NONE], PORT)), @r#"
    network load balancer k8s-shop-web-c098d5716f internal in
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-00612ad8b1 instance TCP 30080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from 10.0.0.0/16 on tcp 30080
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    "#);
    insta::assert_snapshot!(shown(&stack(&[NONE, IP], PORT)), @r#"
    network load balancer k8s-shop-web-c098d5716f internal in
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-5be514aeea ip TCP 8080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from 10.0.0.0/24, 10.0.1.0/24 on tcp 8080
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    "#);
    insta::assert_snapshot!(shown(&stack(&[NONE], &ranges)), @r#"
    network load balancer k8s-shop-web-c098d5716f internal in
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-00612ad8b1 instance TCP 30080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from 192.0.2.0/24 on tcp 30080
      reached from 10.0.0.0/24, 10.0.1.0/24 on tcp 30080
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    "#);
    // One that was made without stays without.
    let kept = stack_with(&[], PORT, &existing(Scheme::Internal, false));
    assert_eq!(kept, stack(&[NONE], PORT));
    let own = [NONE, ("aws-load-balancer-manage-backend-security-group-rules", "false")];
    assert_eq!(stack(&own, PORT).target_groups[0].binding.networking, None);
}

#[test]
fn tls() {
    let some = [
        ("aws-load-balancer-ssl-cert", CERTIFICATE),
        ("aws-load-balancer-ssl-ports", "https"),
        ("aws-load-balancer-backend-protocol", "http"),
        ("aws-load-balancer-scheme", "internet-facing"),
        ("external-dns.alpha.kubernetes.io/hostname", "app.example.org"),
    ];
    insta::assert_snapshot!(shown(&stack(&some, TWO_PORTS)), @r#"
    security group k8s-shop-web-5c7e143220: tcp 80 from 0.0.0.0/0; tcp 443 from 0.0.0.0/0
    network load balancer k8s-shop-web-5f72a1141d internet-facing in managed, shared sg-shared
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-00612ad8b1 instance TCP 30080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from shared sg-shared on tcp 30080
    target group shop/web:443 k8s-shop-web-a19d2d6a9a instance TCP 30443
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 443
      reached from shared sg-shared on tcp 30443
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    listener TLS 443 to Own(ResourceId("shop/web:443")), arn:aws:acm:eu-west-1:1:certificate/a and [], ELBSecurityPolicy-2016-08, ALPN -
    "#);
    let tls = ("aws-load-balancer-ssl-cert", CERTIFICATES);
    let config = BuildConfig { resets_listeners: true, ..config() };
    let policies = |annotations: &[(&str, &str)]| {
        let built = build_with(&service(annotations, &format!("{CLASS}{PORT}")), &config, &facts());
        built.stack.unwrap().listeners.into_values().map(|listener| listener.alpn_policy).collect::<Vec<_>>()
    };
    assert_eq!(policies(&[tls]), [Some("None".to_owned())]);
    assert_eq!(policies(&[tls, ("aws-load-balancer-alpn-policy", "HTTP1Only")]), [Some("HTTP1Only".to_owned())]);
    assert_eq!(policies(&[]), [None]);
    let all = [
        ("aws-load-balancer-ssl-cert", CERTIFICATES),
        ("aws-load-balancer-backend-protocol", "ssl"),
        ("aws-load-balancer-ssl-negotiation-policy", "ELBSecurityPolicy-TLS13-1-2-2021-06"),
        ("aws-load-balancer-alpn-policy", "HTTP2Preferred"),
    ];
    insta::assert_snapshot!(shown(&stack(&all, TWO_PORTS)), @r#"
    security group k8s-shop-web-5c7e143220: tcp 80 from 0.0.0.0/0; tcp 443 from 0.0.0.0/0
    network load balancer k8s-shop-web-c098d5716f internal in managed, shared sg-shared
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-0a61b6ee24 instance TLS 30080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from shared sg-shared on tcp 30080
    target group shop/web:443 k8s-shop-web-22ac5b555b instance TLS 30443
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 443
      reached from shared sg-shared on tcp 30443
    listener TLS 80 to Own(ResourceId("shop/web:80")), arn:aws:acm:eu-west-1:1:certificate/b and [arn:aws:acm:eu-west-1:1:certificate/a], ELBSecurityPolicy-TLS13-1-2-2021-06, ALPN HTTP2Preferred
    listener TLS 443 to Own(ResourceId("shop/web:443")), arn:aws:acm:eu-west-1:1:certificate/b and [arn:aws:acm:eu-west-1:1:certificate/a], ELBSecurityPolicy-TLS13-1-2-2021-06, ALPN HTTP2Preferred
    "#);
}

#[test]
fn udp_and_both() {
    let apart = "  ports:\n  - {name: u, port: 53, protocol: UDP, targetPort: 5353}\n  - {name: t, port: 8053, targetPort: 5353}\n";
    insta::assert_snapshot!(shown(&stack(&[IP], apart)), @r#"
    security group k8s-shop-web-5c7e143220: udp 53 from 0.0.0.0/0; tcp 8053 from 0.0.0.0/0
    network load balancer k8s-shop-web-c098d5716f internal in managed, shared sg-shared
      subnet-a
      subnet-b
      attributes
    target group shop/web:53 k8s-shop-web-7eb6b7e269 ip UDP 5353
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 53
      reached from shared sg-shared on udp 5353, tcp 5353
    target group shop/web:8053 k8s-shop-web-54798af330 ip TCP 5353
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 8053
      reached from shared sg-shared on tcp 5353
    listener UDP 53 to Own(ResourceId("shop/web:53"))
    listener TCP 8053 to Own(ResourceId("shop/web:8053"))
    "#);
    let one = "  ports:\n  - {name: t, port: 53, targetPort: 5353}\n  - {name: u, port: 53, protocol: UDP, targetPort: 5354}\n";
    let joined = [
        IP,
        ("aws-load-balancer-enable-tcp-udp-listener", "true"),
        ("aws-load-balancer-listener-attributes.TCP_UDP-53", "tcp.idle_timeout.seconds=60"),
    ];
    insta::assert_snapshot!(shown(&stack(&joined, one)), @r#"
    security group k8s-shop-web-5c7e143220: tcp 53 from 0.0.0.0/0; udp 53 from 0.0.0.0/0
    network load balancer k8s-shop-web-c098d5716f internal in managed, shared sg-shared
      subnet-a
      subnet-b
      attributes
    target group shop/web:53 k8s-shop-web-bdaddf1b7c ip TCP_UDP 5353
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 53
      reached from shared sg-shared on udp 5353, tcp 5353
    listener TCP_UDP 53 to Own(ResourceId("shop/web:53")) tcp.idle_timeout.seconds=60
    "#);
}

#[test]
fn tags_name_and_labels() {
    let written = [
        ("aws-load-balancer-additional-resource-tags", r"Environment=dev,Team=a\,b"),
        ("aws-load-balancer-name", "my-nlb"),
        ("aws-load-balancer-target-node-labels", "pool=front"),
    ];
    let stack = stack(&written, PORT);
    let balancer = stack.load_balancer.unwrap();
    assert_eq!(balancer.name, Value::Known(LoadBalancerName::new("my-nlb").unwrap()));
    insta::assert_snapshot!(pairs(&balancer.tags), @"Environment=dev Team=a,b elbv2.k8s.aws/cluster=demo service.k8s.aws/resource=LoadBalancer service.k8s.aws/stack=shop/web");
    for (tags, resource) in [
        (&stack.security_group.unwrap().tags, "ManagedLBSecurityGroup"),
        (&stack.target_groups[0].tags, "shop/web:80"),
        (&stack.listeners[&80].tags, "80"),
    ] {
        let mut expected = balancer.tags.clone();
        expected.insert("service.k8s.aws/resource".to_owned(), resource.to_owned());
        assert_eq!(*tags, expected);
    }
    let binding = &stack.target_groups[0].binding;
    assert_eq!(pairs(&binding.node_labels), "pool=front");
    assert_eq!(pairs(&binding.labels), "service.k8s.aws/stack-name=web service.k8s.aws/stack-namespace=shop");
}

#[test]
fn an_existing_load_balancer_keeps_its_scheme_and_subnets() {
    let facts = existing(Scheme::InternetFacing, true);
    assert_eq!(stack_with(&[], PORT, &facts), stack(&[("aws-load-balancer-scheme", "internet-facing")], PORT));
}

/// The gate `ListenerRulesTagging`.
#[test]
fn listeners_are_tagged_unless_the_gate_says_otherwise() {
    let tags = |tagged| {
        let config = BuildConfig { tag_listeners_and_rules: tagged, ..config() };
        let built = build_with(&service(&[], &format!("{CLASS}{PORT}")), &config, &facts());
        built.stack.unwrap().listeners[&80].tags.len()
    };
    assert_eq!((tags(true), tags(false)), (3, 0));
}

#[test]
fn a_load_balancer_of_another_scheme_replaces_the_one_that_serves() {
    const PUBLIC: (&str, &str) = ("aws-load-balancer-scheme", "internet-facing");
    let there = |scheme, groups| existing(scheme, groups).existing.unwrap();
    // Nothing is taken over from the old one but that it is in no security group, which its successor is neither.
    assert_eq!(stack_with(&[PUBLIC], PORT, &existing(Scheme::Internal, true)), stack(&[PUBLIC], PORT));
    let ungrouped = stack_with(&[PUBLIC], PORT, &existing(Scheme::Internal, false));
    assert_eq!(ungrouped.load_balancer.as_ref().unwrap().security_groups, []);
    assert_eq!(ungrouped, stack_with(&[PUBLIC], PORT, &existing(Scheme::InternetFacing, false)));
    // When both are there, the new one is as it was made, whatever the old one is.
    let both = |new_is_in_groups| Facts {
        other_existing: vec![there(Scheme::InternetFacing, new_is_in_groups)],
        names: ["edge".to_owned()].into(),
        ..existing(Scheme::Internal, !new_is_in_groups)
    };
    assert_eq!(stack_with(&[PUBLIC], PORT, &both(true)), stack(&[PUBLIC], PORT));
    assert_eq!(stack_with(&[PUBLIC], PORT, &both(false)), ungrouped);
    stack_with(&[PUBLIC, ("aws-load-balancer-name", "edge")], PORT, &both(true));
    // A Service without annotations has the scheme of the load balancer that clients are sent to.
    assert_eq!(stack_with(&[], PORT, &both(false)).load_balancer.unwrap().scheme, Scheme::Internal);
}

#[test]
fn the_target_groups_of_both_schemes_have_names_of_their_own() {
    let names = |scheme| {
        let stack = stack(&[("aws-load-balancer-scheme", scheme)], PORT);
        let group = &stack.target_groups[0];
        (group.name.clone(), group.second_name.clone())
    };
    let ((name, internal), (same, public)) = (names("internal"), names("internet-facing"));
    assert_eq!(name, same, "aws-load-balancer-controller's name does not know the scheme");
    assert!(name != internal && name != public && internal != public);
    assert_eq!(internal.known().unwrap().as_str().len(), name.known().unwrap().as_str().len());
}

#[test]
fn names_wait_for_the_uid_and_subnets_for_aws() {
    let manifest =
        service(&[IP], &format!("{CLASS}{PORT}")).replace("  uid: 11111111-1111-1111-1111-111111111111\n", "");
    let built = build_with(&manifest, &config(), &Facts::offline());
    assert_eq!(messages(&built), "");
    insta::assert_snapshot!(shown(&built.stack.unwrap()), @r#"
    security group (known after apply: named after the Service's uid): tcp 80 from 0.0.0.0/0
    network load balancer (known after apply: named after the Service's uid) internal in managed, shared (known after apply: shared by all load balancers of the cluster)
      subnets after apply: subnets are found by their tags in the VPC
      attributes
    target group shop/web:80 (known after apply: named after the Service's uid) ip TCP 8080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from shared (known after apply: shared by all load balancers of the cluster) on tcp 8080
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    "#);
}

#[test]
fn target_groups_that_other_clusters_use_too() {
    for (value, shared) in [("true", true), ("false", false)] {
        let stack = stack(&[("aws-load-balancer-multi-cluster-target-group", value)], PORT);
        assert_eq!(stack.target_groups[0].binding.multi_cluster, shared);
    }
    assert!(!self::stack(&[], PORT).target_groups[0].binding.multi_cluster);
}
