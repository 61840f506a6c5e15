//! Services with Network Load Balancers: the calls for them, whole, and the inventory afterwards.

mod world;

use super::*;
use albatross_aws::AwsErrorKind;
use albatross_core::{
    desired::sources::service,
    facts::{Subnet, SubnetQuery},
    model::{
        Attributes, CertificateArn, IpAddressType, ListenerArn, ListenerProtocol, LoadBalancerArn, LoadBalancerKind,
        SecurityGroupReference, SourceNatPrefix, SubnetMapping, TargetGroupReference,
    },
    plan::{AttributesOf, ListenerChange, ListenerReference, Planned, Reads},
};
use world::{
    BALANCER_ATTRIBUTES, GROUP_ATTRIBUTES, LISTENER_ATTRIBUTES, PORTS, attribute_list, attributes, made, sent, service,
    there, web,
};

fn set_subnets(
    subnets: Vec<SubnetMapping>,
    ip_address_type: Option<IpAddressType>,
    ipv6_source_nat: Option<bool>,
) -> StepAction {
    StepAction::SetSubnets { arn: balancer(), subnets, ip_address_type, ipv6_source_nat }
}

fn plan_for_service(actions: impl IntoIterator<Item = StepAction>) -> Plan {
    let object = ObjectReference::service(&ObjectName::new("shop", "web"));
    let cause = Cause { object, generation: 2, field: "spec".into() };
    let steps = actions.into_iter().map(|action| Step { action, cause: cause.clone() });
    plan_of(steps.collect(), None)
}

impl Room {
    async fn observe_service(&self) -> ObservedStack {
        self.inventory.observe_whole(&web()).await.unwrap()
    }

    async fn apply_to_service(&self, actions: impl IntoIterator<Item = StepAction>) -> Result<Applied, ApplyError> {
        self.applier.apply(&web(), &plan_for_service(actions)).await
    }
}

fn balancer() -> LoadBalancerArn {
    LoadBalancerArn::new("arn:b/web")
}

fn listener(port: u16) -> ListenerArn {
    ListenerArn::new(format!("arn:l/{port}"))
}

#[tokio::test]
async fn all_that_a_service_asks_for_is_sent() {
    let room = room(made).await;
    let stack = service(
        &[
            ("scheme", "internet-facing"),
            ("nlb-target-type", "ip"),
            ("eip-allocations", "eipalloc-1,eipalloc-2"),
            ("enable-tcp-udp-listener", "true"),
            ("ssl-cert", "arn:aws:acm:eu-west-1:1:certificate/a,arn:aws:acm:eu-west-1:1:certificate/b"),
            ("backend-protocol", "ssl"),
            ("alpn-policy", "HTTP2Preferred"),
            ("proxy-protocol-per-target-group", "443"),
            ("target-group-attributes", "deregistration_delay.timeout_seconds=10"),
            ("listener-attributes.TCP_UDP-53", "tcp.idle_timeout.seconds=400"),
            ("cross-zone-load-balancing-enabled", "true"),
        ],
        PORTS,
    );
    let plan = plan::plan(&stack, &room.observe_service().await).ready().unwrap();
    room.fake.calls();
    room.applier.apply(&web(), &plan).await.unwrap();
    insta::assert_snapshot!(sent(&room.fake), @"
    CreateTargetGroup
      HealthCheckEnabled=true
      HealthCheckIntervalSeconds=10
      HealthCheckPort=traffic-port
      HealthCheckProtocol=TCP
      HealthCheckTimeoutSeconds=10
      HealthyThresholdCount=3
      Name=k8s-shop-web-3c7d496cdb
      Port=5353
      Protocol=TCP_UDP
      TargetType=ip
      UnhealthyThresholdCount=3
      VpcId=vpc-1
      tags elbv2.k8s.aws/cluster=demo service.k8s.aws/resource=shop/web:53 service.k8s.aws/stack=shop/web
    ModifyTargetGroupAttributes
      Attributes.member.1.Key=deregistration_delay.timeout_seconds
      Attributes.member.1.Value=10
      Attributes.member.2.Key=proxy_protocol_v2.enabled
      Attributes.member.2.Value=false
      TargetGroupArn=arn:t/k8s-shop-web-3c7d496cdb
    CreateTargetGroup
      HealthCheckEnabled=true
      HealthCheckIntervalSeconds=10
      HealthCheckPort=traffic-port
      HealthCheckProtocol=TCP
      HealthCheckTimeoutSeconds=10
      HealthyThresholdCount=3
      Name=k8s-shop-web-afdbbbdbe8
      Port=8443
      Protocol=TLS
      TargetType=ip
      UnhealthyThresholdCount=3
      VpcId=vpc-1
      tags elbv2.k8s.aws/cluster=demo service.k8s.aws/resource=shop/web:443 service.k8s.aws/stack=shop/web
    ModifyTargetGroupAttributes
      Attributes.member.1.Key=deregistration_delay.timeout_seconds
      Attributes.member.1.Value=10
      Attributes.member.2.Key=proxy_protocol_v2.enabled
      Attributes.member.2.Value=true
      TargetGroupArn=arn:t/k8s-shop-web-afdbbbdbe8
    CreateLoadBalancer
      EnablePrefixForIpv6SourceNat=off
      IpAddressType=ipv4
      Name=k8s-shop-web-ccc2b68921
      Scheme=internet-facing
      SecurityGroups.member.1=sg-made
      SecurityGroups.member.2=sg-backend
      SubnetMappings.member.1.AllocationId=eipalloc-1
      SubnetMappings.member.1.SubnetId=subnet-1
      SubnetMappings.member.2.AllocationId=eipalloc-2
      SubnetMappings.member.2.SubnetId=subnet-2
      Type=network
      tags elbv2.k8s.aws/cluster=demo service.k8s.aws/resource=LoadBalancer service.k8s.aws/stack=shop/web
    ModifyLoadBalancerAttributes
      Attributes.member.1.Key=load_balancing.cross_zone.enabled
      Attributes.member.1.Value=true
      LoadBalancerArn=arn:b/web
    CreateListener
      DefaultActions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn=arn:t/k8s-shop-web-3c7d496cdb
      DefaultActions.member.1.Order=1
      DefaultActions.member.1.Type=forward
      LoadBalancerArn=arn:b/web
      Port=53
      Protocol=TCP_UDP
      tags elbv2.k8s.aws/cluster=demo service.k8s.aws/resource=53 service.k8s.aws/stack=shop/web
    ModifyListenerAttributes
      Attributes.member.1.Key=tcp.idle_timeout.seconds
      Attributes.member.1.Value=400
      ListenerArn=arn:l/53
    CreateListener
      AlpnPolicy.member.1=HTTP2Preferred
      Certificates.member.1.CertificateArn=arn:aws:acm:eu-west-1:1:certificate/a
      DefaultActions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn=arn:t/k8s-shop-web-afdbbbdbe8
      DefaultActions.member.1.Order=1
      DefaultActions.member.1.Type=forward
      LoadBalancerArn=arn:b/web
      Port=443
      Protocol=TLS
      SslPolicy=ELBSecurityPolicy-2016-08
      tags elbv2.k8s.aws/cluster=demo service.k8s.aws/resource=443 service.k8s.aws/stack=shop/web
    AddListenerCertificates
      Certificates.member.1.CertificateArn=arn:aws:acm:eu-west-1:1:certificate/b
      ListenerArn=arn:l/443
    ");

    // Created resources are known without a read, and need no change; attributes are as AWS has answered.
    let observed = ObservedStack { bindings: room.bindings.observed(), ..room.observe_service().await };
    assert_eq!(room.fake.actions(), Vec::<String>::new());
    assert!(matches!(plan::plan(&stack, &observed), Planned::Ready(_)));
    let balancer = &observed.load_balancers[0];
    assert_eq!(balancer.kind, LoadBalancerKind::Network);
    assert_eq!(balancer.subnets, [SubnetId::new("subnet-1"), SubnetId::new("subnet-2")].into());
    assert_eq!(balancer.security_groups, ["sg-made", "sg-backend"].map(SecurityGroupId::new).into());
    assert_eq!(balancer.attributes.as_ref().unwrap()["a.new"], "1");
    let tls = balancer.listener(443).unwrap();
    assert_eq!((tls.protocol, tls.alpn_policy.as_deref()), (Some(ListenerProtocol::Tls), Some("HTTP2Preferred")));
    assert_eq!(tls.certificates, [CertificateArn::new("arn:aws:acm:eu-west-1:1:certificate/b")].into());
    let both = balancer.listener(53).unwrap();
    assert_eq!((both.protocol, both.alpn_policy.as_deref()), (Some(ListenerProtocol::TcpUdp), None));
    assert_eq!(both.attributes.as_ref().unwrap()["a.new"], "3");
}

#[tokio::test]
async fn private_addresses_and_no_security_group_are_sent_as_such() {
    let room = room(made).await;
    let stack = service(
        &[
            ("nlb-target-type", "ip"),
            ("private-ipv4-addresses", "10.0.2.9,10.0.1.9"),
            ("disable-nlb-sg", "true"),
            ("target-group-attributes", "proxy_protocol_v2.enabled="),
        ],
        "[{name: syslog, port: 514, protocol: UDP, targetPort: 5140}]",
    );
    let plan = plan::plan(&stack, &room.observe_service().await).ready().unwrap();
    room.fake.calls();
    room.applier.apply(&web(), &plan).await.unwrap();
    insta::assert_snapshot!(sent(&room.fake), @"
    CreateTargetGroup
      HealthCheckEnabled=true
      HealthCheckIntervalSeconds=10
      HealthCheckPort=traffic-port
      HealthCheckProtocol=TCP
      HealthCheckTimeoutSeconds=10
      HealthyThresholdCount=3
      Name=k8s-shop-web-9e7c90c82b
      Port=5140
      Protocol=UDP
      TargetType=ip
      UnhealthyThresholdCount=3
      VpcId=vpc-1
      tags elbv2.k8s.aws/cluster=demo service.k8s.aws/resource=shop/web:514 service.k8s.aws/stack=shop/web
    CreateLoadBalancer
      EnablePrefixForIpv6SourceNat=off
      IpAddressType=ipv4
      Name=k8s-shop-web-ef5f37364e
      Scheme=internal
      SubnetMappings.member.1.PrivateIPv4Address=10.0.1.9
      SubnetMappings.member.1.SubnetId=subnet-1
      SubnetMappings.member.2.PrivateIPv4Address=10.0.2.9
      SubnetMappings.member.2.SubnetId=subnet-2
      Type=network
      tags elbv2.k8s.aws/cluster=demo service.k8s.aws/resource=LoadBalancer service.k8s.aws/stack=shop/web
    CreateListener
      DefaultActions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn=arn:t/k8s-shop-web-9e7c90c82b
      DefaultActions.member.1.Order=1
      DefaultActions.member.1.Type=forward
      LoadBalancerArn=arn:b/web
      Port=514
      Protocol=UDP
      tags elbv2.k8s.aws/cluster=demo service.k8s.aws/resource=514 service.k8s.aws/stack=shop/web
    ");
    assert_eq!(room.observe_service().await.load_balancers[0].security_groups, [].into());
}

#[tokio::test]
async fn subnets_are_set_with_their_addresses() {
    let room = room(|call| there(call, false)).await;
    room.observe_service().await;
    room.fake.calls();
    let mapping = |n: u8, allocation: Option<&str>, private: Option<&str>| SubnetMapping {
        allocation: allocation.map(str::to_owned),
        private_ipv4: private.map(str::to_owned),
        ..SubnetMapping::plain(SubnetId::new(format!("subnet-{n}")))
    };
    for subnets in [
        vec![mapping(1, None, None)],
        vec![mapping(1, Some("eipalloc-1"), None), mapping(2, Some("eipalloc-2"), None)],
        vec![mapping(2, None, Some("10.0.2.9")), mapping(3, None, Some("10.0.3.9"))],
    ] {
        let ids = subnets.iter().map(|mapping| mapping.subnet.clone()).collect();
        room.apply_to_service([set_subnets(subnets, None, None)]).await.unwrap();
        assert_eq!(room.observe_service().await.load_balancers[0].subnets, ids);
    }
    insta::assert_snapshot!(sent(&room.fake), @"
    SetSubnets
      LoadBalancerArn=arn:b/web
      SubnetMappings.member.1.SubnetId=subnet-1
    SetSubnets
      LoadBalancerArn=arn:b/web
      SubnetMappings.member.1.AllocationId=eipalloc-1
      SubnetMappings.member.1.SubnetId=subnet-1
      SubnetMappings.member.2.AllocationId=eipalloc-2
      SubnetMappings.member.2.SubnetId=subnet-2
    SetSubnets
      LoadBalancerArn=arn:b/web
      SubnetMappings.member.1.PrivateIPv4Address=10.0.2.9
      SubnetMappings.member.1.SubnetId=subnet-2
      SubnetMappings.member.2.PrivateIPv4Address=10.0.3.9
      SubnetMappings.member.2.SubnetId=subnet-3
    ");
}

#[tokio::test]
async fn address_types_are_set_in_place_and_target_groups_made_with_them() {
    let room = room(|call| there(call, false)).await;
    assert_eq!(room.observe_service().await.load_balancers[0].ip_address_type, IpAddressType::Ipv4);
    room.fake.calls();
    for kind in [IpAddressType::Dualstack, IpAddressType::DualstackWithoutPublicIpv4, IpAddressType::Ipv4] {
        room.apply_to_service([StepAction::SetIpAddressType { arn: balancer(), kind }]).await.unwrap();
        assert_eq!(room.observe_service().await.load_balancers[0].ip_address_type, kind);
    }
    insta::assert_snapshot!(sent(&room.fake), @"
    SetIpAddressType
      IpAddressType=dualstack
      LoadBalancerArn=arn:b/web
    SetIpAddressType
      IpAddressType=dualstack-without-public-ipv4
      LoadBalancerArn=arn:b/web
    SetIpAddressType
      IpAddressType=ipv4
      LoadBalancerArn=arn:b/web
    ");
}

#[tokio::test]
async fn security_groups_are_set_all_at_once() {
    let room = room(|call| there(call, false)).await;
    room.observe_service().await;
    room.fake.calls();
    let given = |id: &str| SecurityGroupReference::Given(Value::Known(SecurityGroupId::new(id)));
    let shared = SecurityGroupReference::SharedBackend(Value::Known(SecurityGroupId::new("sg-backend")));
    let groups = vec![given("sg-mine"), given("sg-second"), shared];
    let set = |groups: &[SecurityGroupReference], private_link_rules| {
        let (load_balancer, groups) = (Some(balancer()), groups.to_vec());
        StepAction::SetSecurityGroups { load_balancer, groups, private_link_rules }
    };
    room.apply_to_service([set(&groups, None)]).await.unwrap();
    insta::assert_snapshot!(sent(&room.fake), @"
    SetSecurityGroups
      LoadBalancerArn=arn:b/web
      SecurityGroups.member.1=sg-mine
      SecurityGroups.member.2=sg-second
      SecurityGroups.member.3=sg-backend
    ");
    let known = room.observe_service().await.load_balancers[0].security_groups.clone();
    assert_eq!(known, ["sg-mine", "sg-second", "sg-backend"].map(SecurityGroupId::new).into());
    for on in [false, true] {
        room.apply_to_service([set(&groups[..1], Some(on))]).await.unwrap();
        let observed = room.observe_service().await;
        assert_eq!(observed.load_balancers[0].network.private_link_rules, Some(on));
    }
    insta::assert_snapshot!(sent(&room.fake), @"
    SetSecurityGroups
      EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic=off
      LoadBalancerArn=arn:b/web
      SecurityGroups.member.1=sg-mine
    SetSecurityGroups
      EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic=on
      LoadBalancerArn=arn:b/web
      SecurityGroups.member.1=sg-mine
    ");
}

#[tokio::test]
async fn ipv6_addresses_prefixes_and_address_type_are_set_at_once() {
    let room = room(|call| match call.action.as_str() {
        "SetSubnets" => {
            let zone = "<SubnetId>subnet-2</SubnetId><SourceNatIpv6Prefixes><member>2001:db8:0:2:9::/80</member></SourceNatIpv6Prefixes>";
            Some(elb("SetSubnets", &format!("<AvailabilityZones><member>{zone}</member></AvailabilityZones>")))
        }
        _ => there(call, false),
    })
    .await;
    room.observe_service().await;
    room.fake.calls();
    let mapping = |n: u8, ipv6: &str, prefix: &str| SubnetMapping {
        ipv6: Some(ipv6.to_owned()),
        source_nat_prefix: Some(SourceNatPrefix::new(prefix).unwrap()),
        ..SubnetMapping::plain(SubnetId::new(format!("subnet-{n}")))
    };
    let subnets =
        vec![mapping(1, "2001:db8:0:1::8", "2001:db8:0:1:1::/80"), mapping(2, "2001:db8:0:2::8", "auto_assigned")];
    let plain = |n: u8| SubnetMapping::plain(SubnetId::new(format!("subnet-{n}")));
    let set = set_subnets(subnets, Some(IpAddressType::Dualstack), Some(true));
    room.apply_to_service([set]).await.unwrap();
    let observed = room.observe_service().await.load_balancers.remove(0);
    assert_eq!((observed.ip_address_type, observed.network.ipv6_source_nat), (IpAddressType::Dualstack, true));
    let prefixes = observed.network.source_nat_prefixes.into_iter();
    assert_eq!(
        prefixes.map(|(subnet, prefix)| format!("{subnet} {prefix}")).collect::<Vec<_>>(),
        ["subnet-1 2001:db8:0:1:1::/80", "subnet-2 2001:db8:0:2:9::/80"]
    );
    let back = set_subnets(vec![plain(1), plain(2)], Some(IpAddressType::Ipv4), Some(false));
    room.apply_to_service([back]).await.unwrap();
    let observed = room.observe_service().await.load_balancers.remove(0);
    assert_eq!((observed.ip_address_type, observed.network.is_default()), (IpAddressType::Ipv4, true));
    insta::assert_snapshot!(sent(&room.fake), @"
    SetSubnets
      EnablePrefixForIpv6SourceNat=on
      IpAddressType=dualstack
      LoadBalancerArn=arn:b/web
      SubnetMappings.member.1.IPv6Address=2001:db8:0:1::8
      SubnetMappings.member.1.SourceNatIpv6Prefix=2001:db8:0:1:1::/80
      SubnetMappings.member.1.SubnetId=subnet-1
      SubnetMappings.member.2.IPv6Address=2001:db8:0:2::8
      SubnetMappings.member.2.SourceNatIpv6Prefix=auto_assigned
      SubnetMappings.member.2.SubnetId=subnet-2
    SetSubnets
      EnablePrefixForIpv6SourceNat=off
      IpAddressType=ipv4
      LoadBalancerArn=arn:b/web
      SubnetMappings.member.1.SubnetId=subnet-1
      SubnetMappings.member.2.SubnetId=subnet-2
    ");
}

#[tokio::test]
async fn a_network_load_balancer_is_read_and_its_attributes_where_they_are_asked_for() {
    for bare in [false, true] {
        let room = room(move |call| there(call, bare)).await;
        let observed = room.observe_service().await;
        let actions = room.fake.actions();
        assert!(!actions.iter().any(|action| action.ends_with("Attributes")), "{actions:?}");
        let groups = &observed.load_balancers[0].security_groups;
        assert_eq!(groups.len(), if bare { 0 } else { 2 });
        let shown: Vec<_> = observed.load_balancers[0]
            .known_listeners()
            .map(|l| {
                let certificates: Vec<_> = l.default_certificate.iter().chain(&l.certificates).collect();
                let names: Vec<_> = certificates.iter().map(|c| c.as_str()).collect();
                let (protocol, policy) = (l.protocol.unwrap(), l.ssl_policy.as_deref().unwrap_or("-"));
                let alpn = l.alpn_policy.as_deref().unwrap_or("-");
                format!("{protocol} {} {} {policy} {alpn} {:?}", l.port, names.join(","), l.attributes)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "TCP_UDP 53  - - None",
                "TCP 80  - - None",
                "TLS 443 arn:c/1,arn:c/2 ELBSecurityPolicy-2016-08 HTTP2Preferred None",
                "UDP 514  - - None",
            ]
        );
    }

    // Only one kind at a time, and nothing if nothing is requested.
    let off = ("target-group-attributes", "proxy_protocol_v2.enabled=");
    let base = [("nlb-target-type", "ip"), ("enable-tcp-udp-listener", "true"), off];
    for (asked, read) in [
        (off, ""),
        (("cross-zone-load-balancing-enabled", "false"), "DescribeLoadBalancerAttributes\n  LoadBalancerArn=arn:b/web"),
        (
            ("target-group-attributes.443", "proxy_protocol_v2.enabled=false"),
            "DescribeTargetGroupAttributes\n  TargetGroupArn=arn:t/443",
        ),
        (
            ("listener-attributes.TCP_UDP-53", "tcp.idle_timeout.seconds=60"),
            "DescribeListenerAttributes\n  ListenerArn=arn:l/53",
        ),
    ] {
        let room = room(|call| there(call, false)).await;
        let stack = service(&[base.as_slice(), &[asked]].concat(), PORTS);
        let reads = match plan::plan(&stack, &room.observe_service().await) {
            Planned::Need(reads) => reads,
            Planned::Ready(_) => Reads::default(),
        };
        room.fake.calls();
        room.inventory.read(&web(), &reads).await.unwrap();
        assert_eq!(sent(&room.fake), read);
        let observed = room.observe_service().await;
        let planned = plan::plan(&stack, &observed).ready().unwrap();
        let listener = |port: u16| observed.load_balancers[0].listener(port).unwrap().attributes.clone();
        let known = (
            observed.load_balancers[0].attributes.clone(),
            observed.target_groups.iter().map(|group| group.attributes.clone()).collect::<Vec<_>>(),
            [listener(53), listener(80)],
        );
        let reads = |kind: &str, list: &[(&str, &str)]| read.starts_with(kind).then(|| attributes(list));
        assert_eq!(
            known,
            (
                reads("DescribeLoadBalancer", &BALANCER_ATTRIBUTES),
                vec![reads("DescribeTargetGroup", &GROUP_ATTRIBUTES), None],
                [reads("DescribeListener", &LISTENER_ATTRIBUTES), None],
            )
        );
        // The plan asks only for what differs.
        let changes = |step: &Step| match &step.action {
            StepAction::ModifyAttributes { attributes, .. } => Some(attributes.clone()),
            _ => None,
        };
        let changed: Vec<_> = planned.steps().iter().filter_map(changes).collect();
        let expected = match asked.0 {
            "cross-zone-load-balancing-enabled" => vec![attributes(&[("load_balancing.cross_zone.enabled", "false")])],
            "target-group-attributes.443" => vec![attributes(&[("proxy_protocol_v2.enabled", "false")])],
            "listener-attributes.TCP_UDP-53" => vec![attributes(&[("tcp.idle_timeout.seconds", "60")])],
            _ => vec![],
        };
        assert_eq!(changed, expected);
    }
}

fn attribute_steps() -> [(AttributesOf, Reads); 3] {
    let target_group = TargetGroupArn::new("arn:t/443");
    [
        (AttributesOf::LoadBalancer(Some(balancer())), Reads { load_balancer: Some(balancer()), ..Reads::default() }),
        (
            AttributesOf::TargetGroup(TargetGroupReference::Foreign(target_group.clone())),
            Reads { target_groups: vec![target_group], ..Reads::default() },
        ),
        (
            AttributesOf::Listener(ListenerReference::Existing(listener(80))),
            Reads { listeners: vec![listener(80)], ..Reads::default() },
        ),
    ]
}

/// Returns the known attributes of the three that [`attribute_steps`] change, by their place there.
fn known_attributes(observed: &ObservedStack) -> [Option<Attributes>; 3] {
    let resource = ResourceId::of_tag("shop/web:443");
    let group = observed.target_groups.iter().find(|group| group.resource().as_ref() == Some(&resource)).unwrap();
    let balancer = &observed.load_balancers[0];
    [balancer.attributes.clone(), group.attributes.clone(), balancer.listener(80).unwrap().attributes.clone()]
}

#[tokio::test]
async fn attributes_are_sent_and_believed_as_aws_answers() {
    let room = room(|call| there(call, false)).await;
    assert_eq!(known_attributes(&room.observe_service().await), [None, None, None]);
    room.fake.calls();
    let changed = attributes(&[("a.new", "asked"), ("b.other", "")]);
    let steps = attribute_steps().map(|(of, _)| StepAction::ModifyAttributes {
        of,
        name: "it".to_owned(),
        attributes: changed.clone(),
    });
    room.apply_to_service(steps).await.unwrap();
    insta::assert_snapshot!(sent(&room.fake), @"
    ModifyLoadBalancerAttributes
      Attributes.member.1.Key=a.new
      Attributes.member.1.Value=asked
      Attributes.member.2.Key=b.other
      Attributes.member.2.Value=
      LoadBalancerArn=arn:b/web
    ModifyTargetGroupAttributes
      Attributes.member.1.Key=a.new
      Attributes.member.1.Value=asked
      Attributes.member.2.Key=b.other
      Attributes.member.2.Value=
      TargetGroupArn=arn:t/443
    ModifyListenerAttributes
      Attributes.member.1.Key=a.new
      Attributes.member.1.Value=asked
      Attributes.member.2.Key=b.other
      Attributes.member.2.Value=
      ListenerArn=arn:l/80
    ");
    let answered = |list: &[(&str, &str)], new: &str| Some(attributes(&[list, &[("a.new", new)]].concat()));
    assert_eq!(
        known_attributes(&room.observe_service().await),
        [answered(&BALANCER_ATTRIBUTES, "1"), answered(&GROUP_ATTRIBUTES, "2"), answered(&LISTENER_ATTRIBUTES, "3")]
    );
    assert_eq!(room.fake.actions(), Vec::<String>::new());
}

#[tokio::test]
async fn after_an_unclear_answer_attributes_are_read_again() {
    for (place, (of, reads)) in attribute_steps().into_iter().enumerate() {
        let room = room(|call| {
            let modifies = call.action.starts_with("Modify");
            modifies.then(|| elb_error(500, "InternalFailure", "words")).or_else(|| there(call, false))
        })
        .await;
        room.observe_service().await;
        room.inventory.read(&web(), &reads).await.unwrap();
        let before = known_attributes(&room.observe_service().await);
        assert!(before[place].is_some());
        room.fake.calls();
        let attributes = attributes(&[("a.new", "1")]);
        let modify = StepAction::ModifyAttributes { of, name: "it".to_owned(), attributes };
        let error = room.apply_to_service([modify]).await.unwrap_err();
        assert!(
            matches!(&error.source, StepError::Aws(e) if matches!(e.kind, AwsErrorKind::Unclear { .. })),
            "{error}"
        );
        // The call is sent only once: it is not known whether it has taken effect.
        assert_eq!(room.fake.actions().len(), 1);
        assert_eq!(known_attributes(&room.observe_service().await), [None, None, None]);
        room.inventory.read(&web(), &reads).await.unwrap();
        assert_eq!(known_attributes(&room.observe_service().await), before);
    }
}

#[tokio::test]
async fn alpn_is_changed_switched_off_and_goes_with_tls() {
    let room = room(|call| there(call, false)).await;
    room.observe_service().await;
    room.fake.calls();
    let mut known = Vec::new();
    for change in [
        ListenerChange { alpn_policy: Some("HTTP1Only".to_owned()), ..ListenerChange::default() },
        ListenerChange { alpn_policy: Some("None".to_owned()), ..ListenerChange::default() },
        ListenerChange { protocol: Some(ListenerProtocol::Tcp), ..ListenerChange::default() },
        ListenerChange {
            protocol: Some(ListenerProtocol::Tls),
            ssl_policy: Some("ELBSecurityPolicy-2016-08".to_owned()),
            default_certificate: Some(CertificateArn::new("arn:c/3")),
            alpn_policy: Some("HTTP2Only".to_owned()),
            ..ListenerChange::default()
        },
    ] {
        room.apply_to_service([StepAction::ModifyListener { arn: listener(443), port: 443, change: Box::new(change) }])
            .await
            .unwrap();
        let observed = room.observe_service().await;
        let listener = observed.load_balancers[0].listener(443).unwrap();
        let certificates: Vec<_> = listener.default_certificate.iter().chain(&listener.certificates).cloned().collect();
        known.push((listener.protocol.unwrap(), listener.alpn_policy.clone().unwrap_or_default(), certificates));
    }
    insta::assert_snapshot!(sent(&room.fake), @"
    ModifyListener
      AlpnPolicy.member.1=HTTP1Only
      ListenerArn=arn:l/443
    ModifyListener
      AlpnPolicy.member.1=None
      ListenerArn=arn:l/443
    ModifyListener
      ListenerArn=arn:l/443
      Protocol=TCP
    ModifyListener
      AlpnPolicy.member.1=HTTP2Only
      Certificates.member.1.CertificateArn=arn:c/3
      ListenerArn=arn:l/443
      Protocol=TLS
      SslPolicy=ELBSecurityPolicy-2016-08
    ");
    let certificates = |names: &[&str]| names.iter().map(|name| CertificateArn::new(*name)).collect::<Vec<_>>();
    let (tls, both) = (ListenerProtocol::Tls, certificates(&["arn:c/1", "arn:c/2"]));
    assert_eq!(
        known,
        [
            (tls, "HTTP1Only".to_owned(), both.clone()),
            (tls, "None".to_owned(), both),
            (ListenerProtocol::Tcp, String::new(), vec![]),
            (tls, "HTTP2Only".to_owned(), certificates(&["arn:c/3"])),
        ]
    );
}

#[tokio::test]
async fn attributes_of_a_listener_that_speaks_something_else_now_are_not_known() {
    let room = room(|call| there(call, false)).await;
    room.observe_service().await;
    let reads = Reads { listeners: vec![listener(80)], ..Reads::default() };
    let known = async || known_attributes(&room.observe_service().await)[2].clone();
    for (change, stay) in [
        (ListenerChange { protocol: Some(ListenerProtocol::Tcp), ..ListenerChange::default() }, true),
        (ListenerChange { protocol: Some(ListenerProtocol::Udp), ..ListenerChange::default() }, false),
    ] {
        room.inventory.read(&web(), &reads).await.unwrap();
        // The answer names the port, which the request does not.
        let modify = StepAction::ModifyListener { arn: listener(80), port: 80, change: Box::new(change) };
        room.apply_to_service([modify]).await.unwrap();
        assert_eq!(known().await, stay.then(|| attributes(&LISTENER_ATTRIBUTES)));
    }
}

#[tokio::test]
async fn a_protected_load_balancer_is_not_deleted_and_its_protection_not_touched() {
    let protection = "Load balancer 'arn:b/web' cannot be deleted because deletion protection is enabled";
    let fix = "switch the load balancer's attribute `deletion_protection.enabled` off in AWS if it may be deleted";
    let sends =
        "DeleteLoadBalancer\n  LoadBalancerArn=arn:b/web\nDescribeLoadBalancerAttributes\n  LoadBalancerArn=arn:b/web";
    let used = "Load balancer 'arn:b/web' is used by a VPC endpoint service";
    for (words, enabled, fix, transient) in [
        // The attributes that AWS then has are known to the next plan, which tells the members.
        (protection, Some("true"), Some(fix), true),
        ("It is not allowed", Some("true"), None, true),
        // Switched off meanwhile, another reason, or no way to ask: the refusal is told as it stands.
        (protection, Some("false"), Some(fix), false),
        (used, Some("false"), None, false),
        (protection, None, Some(fix), false),
    ] {
        let room = room(move |call| match call.action.as_str() {
            "DeleteLoadBalancer" => Some(elb_error(400, "OperationNotPermitted", words)),
            action @ "DescribeLoadBalancerAttributes" => Some(match enabled {
                Some(enabled) => elb(action, &attribute_list(&[("deletion_protection.enabled", enabled)])),
                None => elb_error(403, "AccessDenied", "not authorized"),
            }),
            _ => there(call, false),
        })
        .await;
        room.observe_service().await;
        room.fake.calls();
        let delete = StepAction::DeleteLoadBalancer { arn: balancer(), name: "web".to_owned() };
        let error = room.apply_to_service([delete]).await.unwrap_err();
        assert_eq!(sent(&room.fake), sends);
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.is_not_yet());
        assert_eq!(error.is_transient(), transient, "{error}");
        assert_eq!(error.blocked_deletion().is_some(), !transient, "{error}");
        assert_eq!(error.fix().filter(|_| fix.is_some()).as_deref(), fix);
        let known = room.observe_service().await.load_balancers[0].is_protected();
        assert_eq!(known, transient);
    }
}
