use super::*;

fn arn(name: &str) -> TargetGroupArn {
    TargetGroupArn::new(format!("arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/{name}/1"))
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

fn forward(groups: &[(&str, Option<i32>)], stickiness: Option<Stickiness>) -> Action<TargetGroupArn> {
    let target_groups =
        groups.iter().map(|(name, weight)| WeightedTargetGroup { group: arn(name), weight: *weight }).collect();
    Action::Forward { target_groups, stickiness }
}

#[test]
fn actions_come_back_as_they_went() {
    for sent in [
        forward(&[("a", None)], None),
        forward(&[("a", Some(1)), ("b", Some(0))], Some(Stickiness { enabled: true, duration_seconds: Some(60) })),
        Action::Redirect {
            host: None,
            path: Some("/new".into()),
            port: Some("443".into()),
            protocol: Some("HTTPS".into()),
            query: None,
            status_code: "HTTP_301".into(),
        },
        Action::FixedResponse {
            content_type: Some("text/plain".into()),
            message_body: Some("no".into()),
            status_code: "404".into(),
        },
    ] {
        let there = to_action(&sent).unwrap();
        assert_eq!(there.order(), Some(1));
        assert_eq!(there.target_group_arn(), None);
        assert_eq!(action(&there), sent);
    }
    assert_eq!(to_action(&Action::Other("authenticate-oidc".into())), None);
}

#[test]
fn stickiness_is_sent_only_where_it_is_wanted() {
    let sent = to_action(&forward(&[("a", None)], None)).unwrap();
    assert_eq!(sent.forward_config().unwrap().target_group_stickiness_config(), None);
}

#[test]
fn a_lone_target_group_may_stand_outside_the_forward_configuration() {
    let short = elb::Action::builder().r#type(elb::ActionTypeEnum::Forward).target_group_arn(arn("a").as_str()).build();
    assert_eq!(action(&short), forward(&[("a", None)], None));
    // AWS answers with both.
    let tuple = elb::TargetGroupTuple::builder().target_group_arn(arn("a").as_str()).weight(1).build();
    let off = elb::TargetGroupStickinessConfig::builder().enabled(false).build();
    let config = elb::ForwardActionConfig::builder().target_groups(tuple).target_group_stickiness_config(off).build();
    let both = elb::Action::builder()
        .r#type(elb::ActionTypeEnum::Forward)
        .target_group_arn(arn("a").as_str())
        .forward_config(config)
        .build();
    let stickiness = Some(Stickiness { enabled: false, duration_seconds: None });
    assert_eq!(action(&both), forward(&[("a", Some(1))], stickiness));
}

#[test]
fn actions_are_read_in_their_order_and_unknown_ones_keep_their_type() {
    let answer = elb::FixedResponseActionConfig::builder().status_code("200").build();
    let last = elb::Action::builder()
        .r#type(elb::ActionTypeEnum::FixedResponse)
        .order(2)
        .fixed_response_config(answer)
        .build();
    let first = elb::Action::builder().r#type(elb::ActionTypeEnum::AuthenticateOidc).order(1).build();
    assert_eq!(
        actions(&[last, first]),
        [
            Action::Other("authenticate-oidc".into()),
            Action::FixedResponse { content_type: None, message_body: None, status_code: "200".into() },
        ]
    );
}

#[test]
fn conditions_come_back_as_they_went() {
    for sent in [
        Condition::HostHeader { values: texts(&["a.example"]), regex_values: vec![] },
        Condition::PathPattern { values: vec![], regex_values: texts(&["^/a+$"]) },
        Condition::HttpHeader { name: "X-A".into(), values: texts(&["1", "2"]), regex_values: vec![] },
        Condition::HttpRequestMethod { values: texts(&["GET"]) },
        Condition::QueryString {
            values: vec![
                QueryStringValue { key: Some("k".into()), value: "v".into() },
                QueryStringValue { key: None, value: "w".into() },
            ],
        },
        Condition::SourceIp { values: texts(&["10.0.0.0/8"]) },
    ] {
        let there = to_condition(&sent).unwrap();
        assert!(there.values().is_empty());
        assert_eq!(condition(&there), sent);
    }
    assert_eq!(to_condition(&Condition::Other("new-field".into())), None);
}

#[test]
fn transforms_come_back_as_they_went() {
    let rewrites = vec![
        Rewrite { regex: "^/api/(.*)$".into(), replace: "/$1".into() },
        Rewrite { regex: "x".into(), replace: String::new() },
    ];
    for sent in [Transform::HostHeaderRewrite(rewrites.clone()), Transform::UrlRewrite(rewrites)] {
        assert_eq!(transform(&to_transform(&sent).unwrap()), sent);
    }
    assert_eq!(to_transform(&Transform::Other("new-kind".into())), None);
    let unknown = elb::RuleTransform::builder().r#type(elb::TransformTypeEnum::from("new-kind")).build();
    assert_eq!(transform(&unknown), Transform::Other("new-kind".into()));
}

#[test]
fn values_of_old_rules_stand_outside_the_configuration() {
    for (field, expected) in [
        ("host-header", Condition::HostHeader { values: texts(&["v"]), regex_values: vec![] }),
        ("path-pattern", Condition::PathPattern { values: texts(&["v"]), regex_values: vec![] }),
        ("http-request-method", Condition::HttpRequestMethod { values: texts(&["v"]) }),
        ("source-ip", Condition::SourceIp { values: texts(&["v"]) }),
        ("new-field", Condition::Other("new-field".into())),
    ] {
        assert_eq!(condition(&elb::RuleCondition::builder().field(field).values("v").build()), expected);
    }
    // Where AWS answers with both, they are the same values, and not twice as many.
    let config = elb::PathPatternConditionConfig::builder().values("v").build();
    let both = elb::RuleCondition::builder().field("path-pattern").values("v").path_pattern_config(config).build();
    assert_eq!(condition(&both), Condition::PathPattern { values: texts(&["v"]), regex_values: vec![] });
}

#[test]
fn the_default_rule_is_none() {
    let default = elb::Rule::builder().rule_arn("arn:d").priority("default").is_default(true).build();
    assert_eq!(rule(&default), None);
    let transform = elb::RuleTransform::builder().r#type(elb::TransformTypeEnum::UrlRewrite).build();
    let other = elb::Rule::builder().rule_arn("arn:r").priority("7").is_default(false).transforms(transform).build();
    assert_eq!(
        rule(&other),
        Some(ObservedRule {
            arn: RuleArn::new("arn:r"),
            priority: 7,
            conditions: vec![],
            actions: vec![],
            transforms: vec![Transform::UrlRewrite(vec![])],
            tags: Tags::new(),
        })
    );
}

#[test]
fn listeners_without_tls_have_neither_policies_nor_certificate() {
    let answer = |protocol| {
        elb::Listener::builder()
            .listener_arn("arn:l")
            .port(443)
            .protocol(protocol)
            .ssl_policy("ELBSecurityPolicy-2016-08")
            .alpn_policy("HTTP2Only")
            .certificates(elb::Certificate::builder().certificate_arn("arn:c").build())
            .build()
    };
    let expected = |protocol, tls: bool| ObservedListener {
        arn: ListenerArn::new("arn:l"),
        port: 443,
        protocol,
        default_actions: vec![],
        default_certificate: tls.then(|| CertificateArn::new("arn:c")),
        certificates: BTreeSet::new(),
        ssl_policy: tls.then(|| "ELBSecurityPolicy-2016-08".to_owned()),
        mutual_authentication: None,
        alpn_policy: tls.then(|| "HTTP2Only".to_owned()),
        attributes: None,
        tags: Tags::new(),
        rules: vec![],
    };
    for (protocol, read, tls) in [
        (elb::ProtocolEnum::Https, Some(ListenerProtocol::Https), true),
        (elb::ProtocolEnum::Http, Some(ListenerProtocol::Http), false),
        (elb::ProtocolEnum::Tls, Some(ListenerProtocol::Tls), true),
        (elb::ProtocolEnum::Tcp, Some(ListenerProtocol::Tcp), false),
        (elb::ProtocolEnum::Udp, Some(ListenerProtocol::Udp), false),
        (elb::ProtocolEnum::TcpUdp, Some(ListenerProtocol::TcpUdp), false),
        (elb::ProtocolEnum::Quic, Some(ListenerProtocol::Quic), false),
        (elb::ProtocolEnum::TcpQuic, Some(ListenerProtocol::TcpQuic), false),
        // Of what is not known here nothing is left out.
        (elb::ProtocolEnum::from("SCTP"), None, true),
    ] {
        assert_eq!(listener(&answer(protocol)), Some(expected(read, tls)));
    }
}

#[test]
fn application_and_network_load_balancers_are_read() {
    let answer = |kind| {
        let zone = |subnet: &str| elb::AvailabilityZone::builder().zone_name("z").subnet_id(subnet).build();
        elb::LoadBalancer::builder()
            .load_balancer_arn("arn:b")
            .load_balancer_name("b")
            .dns_name("B-1.elb.amazonaws.com")
            .scheme(elb::LoadBalancerSchemeEnum::InternetFacing)
            .r#type(kind)
            .state(elb::LoadBalancerState::builder().code(elb::LoadBalancerStateEnum::Active).build())
            .availability_zones(zone("subnet-2"))
            .availability_zones(zone("subnet-1"))
            .security_groups("sg-1")
            .build()
    };
    let expected = |kind| {
        Some(ObservedLoadBalancer {
            arn: LoadBalancerArn::new("arn:b"),
            kind,
            name: "b".into(),
            dns_name: "B-1.elb.amazonaws.com".into(),
            scheme: Scheme::InternetFacing,
            ip_address_type: IpAddressType::Ipv4,
            network: ObservedNetworkSettings::default(),
            pools: ObservedPools::default(),
            state: LoadBalancerState::Active,
            subnets: ["subnet-1", "subnet-2"].map(SubnetId::new).into(),
            security_groups: [SecurityGroupId::new("sg-1")].into(),
            attributes: None,
            tags: Tags::new(),
            listeners: None,
            add_ons: ObservedAddOns::default(),
        })
    };
    for (kind, read) in [
        (elb::LoadBalancerTypeEnum::Gateway, None),
        (elb::LoadBalancerTypeEnum::Network, expected(LoadBalancerKind::Network)),
        (elb::LoadBalancerTypeEnum::Application, expected(LoadBalancerKind::Application)),
    ] {
        assert_eq!(load_balancer(&answer(kind)), read);
    }
}

#[test]
fn health_checks_are_read_where_they_are_of_our_kind() {
    let answer = |matcher| {
        elb::TargetGroup::builder()
            .target_group_arn("arn:t")
            .target_group_name("t")
            .protocol(elb::ProtocolEnum::Http)
            .protocol_version("GRPC")
            .target_type(elb::TargetTypeEnum::Ip)
            .health_check_enabled(true)
            .health_check_protocol(elb::ProtocolEnum::Http)
            .health_check_port("traffic-port")
            .health_check_path("/a.b/c")
            .health_check_interval_seconds(15)
            .health_check_timeout_seconds(5)
            .healthy_threshold_count(2)
            .unhealthy_threshold_count(3)
            .set_matcher(matcher)
    };
    let check = HealthCheck {
        port: "traffic-port".into(),
        protocol: HealthCheckProtocol::Http,
        path: Some("/a.b/c".into()),
        interval_seconds: 15,
        timeout_seconds: 5,
        healthy_threshold: 2,
        unhealthy_threshold: 3,
        matcher: Some(Matcher::Grpc("12".into())),
    };
    let expected = ObservedTargetGroup {
        arn: TargetGroupArn::new("arn:t"),
        name: "t".into(),
        target_type: "ip".into(),
        protocol: "HTTP".into(),
        protocol_version: Some("GRPC".into()),
        ip_address_type: IpAddressType::Ipv4,
        health_check: Some(check.clone()),
        attributes: None,
        tags: Tags::new(),
    };
    let grpc = check.matcher.as_ref().map(to_matcher);
    assert_eq!(target_group(&answer(grpc.clone()).build()), Some(expected.clone()));
    let http = Some(to_matcher(&Matcher::Http("200-299".into())));
    let check = HealthCheck { matcher: Some(Matcher::Http("200-299".into())), ..check };
    let of_http = ObservedTargetGroup { health_check: Some(check), ..expected.clone() };
    assert_eq!(target_group(&answer(http).build()), Some(of_http));
    let check = expected.health_check.clone().map(|check| HealthCheck { matcher: None, ..check });
    let without_codes = ObservedTargetGroup { health_check: check.clone(), ..expected.clone() };
    assert_eq!(target_group(&answer(None).build()), Some(without_codes));
    let check = check.map(|check| HealthCheck { protocol: HealthCheckProtocol::Tcp, path: None, ..check });
    let connecting = ObservedTargetGroup { health_check: check, ..expected.clone() };
    let tcp = answer(grpc.clone()).health_check_protocol(elb::ProtocolEnum::Tcp);
    assert_eq!(target_group(&tcp.build()), Some(connecting));
    let unknown = answer(grpc).health_check_protocol(elb::ProtocolEnum::from("QUIC"));
    assert_eq!(target_group(&unknown.build()), Some(ObservedTargetGroup { health_check: None, ..expected }));
}

#[test]
fn permissions_are_taken_apart_to_one_source_each_and_go_back() {
    let answer = ec2::IpPermission::builder()
        .ip_protocol("tcp")
        .from_port(80)
        .to_port(81)
        .ip_ranges(ec2::IpRange::builder().cidr_ip("0.0.0.0/0").build())
        .ip_ranges(ec2::IpRange::builder().cidr_ip("10.0.0.0/8").description("inside").build())
        .ipv6_ranges(ec2::Ipv6Range::builder().cidr_ipv6("::/0").build())
        .user_id_group_pairs(ec2::UserIdGroupPair::builder().user_id("1").group_id("sg-1").description("d").build())
        .prefix_list_ids(ec2::PrefixListId::builder().prefix_list_id("pl-1").build())
        .build();
    let all = ec2::IpPermission::builder()
        .ip_protocol("-1")
        .from_port(0)
        .to_port(0)
        .ip_ranges(ec2::IpRange::builder().cidr_ip("10.1.0.0/16").build())
        .build();
    let rule = |source, description: &str| SecurityGroupRule {
        protocol: "tcp".into(),
        from_port: Some(80),
        to_port: Some(81),
        source,
        description: description.into(),
    };
    let expected = BTreeSet::from([
        rule(Source::Ipv4("0.0.0.0/0".into()), ""),
        rule(Source::Ipv4("10.0.0.0/8".into()), "inside"),
        rule(Source::Ipv6("::/0".into()), ""),
        rule(Source::SecurityGroup(SecurityGroupId::new("sg-1")), "d"),
        rule(Source::PrefixList("pl-1".into()), ""),
        SecurityGroupRule {
            protocol: "-1".into(),
            from_port: None,
            to_port: None,
            source: Source::Ipv4("10.1.0.0/16".into()),
            description: String::new(),
        },
    ]);
    assert_eq!(permissions(&[answer, all]), expected);
    let rules: Vec<_> = expected.iter().cloned().collect();
    let there = to_permissions(&rules);
    assert_eq!(there.len(), rules.len());
    assert_eq!(permissions(&there), expected);
}

#[test]
fn an_empty_list_of_tags_is_not_sent() {
    assert_eq!(to_elb_tags(&Tags::new()), None);
    let tags = Tags::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
    assert_eq!(elb_tags(&to_elb_tags(&tags).unwrap()), tags);
    assert_eq!(ec2_tags(&to_ec2_tags(&tags)), tags);
}

#[test]
fn network_settings_and_pools_are_read() {
    let zone = |subnet: &str, prefix: Option<&str>| {
        let prefixes = prefix.map(|prefix| vec![prefix.to_owned()]);
        elb::AvailabilityZone::builder().subnet_id(subnet).set_source_nat_ipv6_prefixes(prefixes).build()
    };
    let answer = |source_nat: &str, rules: Option<&str>| {
        elb::LoadBalancer::builder()
            .load_balancer_arn("arn:b")
            .load_balancer_name("b")
            .scheme(elb::LoadBalancerSchemeEnum::Internal)
            .r#type(elb::LoadBalancerTypeEnum::Network)
            .ip_address_type(elb::IpAddressType::Dualstack)
            .availability_zones(zone("subnet-1", Some("2001:db8::/80")))
            .availability_zones(zone("subnet-2", None))
            .enable_prefix_for_ipv6_source_nat(source_nat.into())
            .set_enforce_security_group_inbound_rules_on_private_link_traffic(rules.map(str::to_owned))
            .ipam_pools(elb::IpamPools::builder().ipv4_ipam_pool_id("ipam-pool-1").build())
            .customer_owned_ipv4_pool("ipv4pool-coip-1")
            .build()
    };
    let prefixes = || [(SubnetId::new("subnet-1"), "2001:db8::/80".to_owned())].into();
    for (source_nat, rules, expected) in [
        ("on", Some("off"), (true, Some(false))),
        ("off", Some("on"), (false, Some(true))),
        ("off", None, (false, None)),
    ] {
        let read = load_balancer(&answer(source_nat, rules)).unwrap();
        let (ipv6_source_nat, private_link_rules) = expected;
        let network = ObservedNetworkSettings { ipv6_source_nat, source_nat_prefixes: prefixes(), private_link_rules };
        assert_eq!(read.network, network);
        assert_eq!(read.pools.ipam.as_deref(), Some("ipam-pool-1"));
        assert_eq!(read.pools.customer_owned.as_deref(), Some("ipv4pool-coip-1"));
    }
}
