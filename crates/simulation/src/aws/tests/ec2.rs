use super::*;
use albatross_core::model::{SecurityGroupRule, Source, VpcBlocks};

fn rule(port: i32, source: Source) -> SecurityGroupRule {
    SecurityGroupRule {
        protocol: "tcp".to_owned(),
        from_port: Some(port),
        to_port: Some(port),
        source,
        description: "a <test>".to_owned(),
    }
}

fn everybody() -> Source {
    Source::Ipv4("0.0.0.0/0".to_owned())
}

#[tokio::test(start_paused = true)]
async fn the_network_is_there() {
    let world = world();
    let subnets = world.aws.describe_subnets(&vpc()).await.unwrap();
    let reported: Vec<_> = subnets
        .iter()
        .map(|subnet| format!("{} {} {}", subnet.id, subnet.zone, subnet.cidr.as_deref().unwrap_or("none")))
        .collect();
    insta::assert_snapshot!(reported.join("\n"), @"
    subnet-private-a us-west-2a 10.0.0.0/20
    subnet-private-b us-west-2b 10.0.16.0/20
    subnet-private-c us-west-2c 10.0.32.0/20
    subnet-public-a us-west-2a 10.0.128.0/20
    subnet-public-b us-west-2b 10.0.144.0/20
    subnet-public-c us-west-2c 10.0.160.0/20
    ");
    assert_eq!(subnets[3].tags["kubernetes.io/role/elb"], "1");
    assert_eq!(subnets[0].tags["kubernetes.io/role/internal-elb"], "1");
    let (ipv4, ipv6) = (vec!["10.0.0.0/16".to_owned()], vec!["2001:db8::/56".to_owned()]);
    assert_eq!(world.aws.vpc_blocks(&vpc()).await.unwrap(), Some(VpcBlocks { ipv4, ipv6 }));
    assert_eq!(world.aws.vpc_blocks(&VpcId::new("vpc-2")).await.unwrap(), None);
    let tags = Tags::from([("Name".to_owned(), "demo".to_owned())]);
    assert_eq!(world.aws.vpcs_tagged(&tags).await.unwrap(), [vpc()]);
    let zones = world.aws.describe_availability_zones().await.unwrap();
    let names: Vec<_> = zones.iter().map(|zone| (zone.name.as_str(), zone.zone_type.as_str())).collect();
    let zone = "availability-zone";
    assert_eq!(names, [("us-west-2a", zone), ("us-west-2b", zone), ("us-west-2c", zone)]);
    let tables = world.aws.describe_route_tables(&vpc()).await.unwrap();
    let public: BTreeSet<_> = tables.iter().filter(|table| table.internet_gateway).flat_map(|t| &t.subnets).collect();
    let expected = ["a", "b", "c"].map(|letter| SubnetId::new(format!("subnet-public-{letter}")));
    assert_eq!(public, expected.iter().collect());
    assert_eq!(tables.iter().filter(|table| table.main).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn pods_are_found_at_the_interfaces_of_their_nodes() {
    let world = world();
    world.simulation.add_pod_address("10.0.17.1", 1);
    world.simulation.add_pod_address("10.0.33.1", 2);
    let ids = ["i-node1".to_owned(), "i-gone".to_owned()];
    let instances = world.aws.describe_instances(&ids).await.unwrap();
    assert_eq!(instances.len(), 1);
    let interface = &instances[0].interfaces[0];
    assert_eq!((interface.id.as_str(), interface.device_index), ("eni-node1", Some(0)));
    assert_eq!(interface.addresses, ["10.0.16.10".to_owned(), "10.0.17.1".to_owned()].into());
    assert_eq!(interface.security_groups, [SecurityGroupId::new("sg-node")]);
    let addresses = ["10.0.33.1".to_owned(), "10.0.0.10".to_owned(), "10.0.99.99".to_owned()];
    let found = world.aws.describe_network_interfaces_by_ip(&vpc(), &addresses).await.unwrap();
    assert_eq!(found.iter().map(|interface| interface.id.as_str()).collect::<Vec<_>>(), ["eni-node0", "eni-node2"]);
    assert!(world.simulation.state().is_sound());
}

#[tokio::test(start_paused = true)]
async fn security_groups_are_found_by_id_name_and_tag() {
    let world = world();
    let front = world.security_group("front").await;
    let same = world.aws.create_security_group("front", "a test", &vpc(), &Tags::new()).await;
    assert_eq!(code(same), "InvalidGroup.Duplicate");
    let other = world.aws.create_security_group("other", "a test", &VpcId::new("vpc-2"), &Tags::new()).await;
    assert_eq!(code(other), "InvalidVpcID.NotFound");
    let names = |groups: Vec<albatross_core::model::ObservedSecurityGroup>| -> Vec<String> {
        groups.into_iter().map(|group| group.name).collect()
    };
    let ids = [front.clone(), SecurityGroupId::new("sg-gone")];
    assert_eq!(names(world.aws.describe_security_groups(&ids).await.unwrap()), ["front"]);
    let named = world.aws.security_groups_of_vpc(&vpc(), &["sg-node"], &["no*"]).await.unwrap();
    assert_eq!(names(named), ["node", "node"]);
    let tagged = world.aws.security_groups_tagged(&vpc(), tags::CLUSTER, &["demo"]).await.unwrap();
    assert_eq!(names(tagged), ["front"]);
    let key = "kubernetes.io/cluster/demo";
    assert_eq!(names(world.aws.security_groups_tagged(&vpc(), key, &[]).await.unwrap()), ["node"]);
    let more = Tags::from([(key.to_owned(), "shared".to_owned())]);
    world.aws.tag_security_group(&front, &more).await.unwrap();
    assert_eq!(world.aws.security_groups_tagged(&vpc(), key, &["owned", "shared"]).await.unwrap().len(), 2);
    let tag = aws_sdk_ec2::types::Tag::builder().key(key).build();
    albatross_aws::testing::ec2(&world.aws).delete_tags().resources(front.as_str()).tags(tag).send().await.unwrap();
    assert_eq!(world.aws.security_groups_tagged(&vpc(), key, &["owned", "shared"]).await.unwrap().len(), 1);
    let gone = SecurityGroupId::new("sg-gone");
    assert_eq!(code(world.aws.tag_security_group(&gone, &more).await), "InvalidGroup.NotFound");
}

#[tokio::test(start_paused = true)]
async fn rules_are_authorized_and_revoked_all_or_none() {
    let world = world();
    let front = world.security_group("front").await;
    let back = world.security_group("back").await;
    let all = BTreeSet::from([
        rule(80, everybody()),
        rule(443, everybody()),
        rule(443, Source::Ipv6("::/0".to_owned())),
        rule(443, Source::PrefixList("pl-1".to_owned())),
        rule(443, Source::SecurityGroup(back.clone())),
        SecurityGroupRule { protocol: "-1".to_owned(), from_port: None, to_port: None, ..rule(0, everybody()) },
    ]);
    let rules: Vec<_> = all.iter().cloned().collect();
    world.aws.authorize_ingress(&front, &rules).await.unwrap();
    let read = async || world.aws.describe_security_groups(std::slice::from_ref(&front)).await.unwrap().remove(0);
    assert_eq!(read().await.ingress, all);
    let mixed = [rule(81, everybody()), SecurityGroupRule { description: String::new(), ..rule(80, everybody()) }];
    assert_eq!(code(world.aws.authorize_ingress(&front, &mixed).await), "InvalidPermission.Duplicate");
    assert_eq!(code(world.aws.revoke_ingress(&front, &mixed).await), "InvalidPermission.NotFound");
    let stranger = [rule(1, Source::SecurityGroup(SecurityGroupId::new("sg-gone")))];
    assert_eq!(code(world.aws.authorize_ingress(&front, &stranger).await), "InvalidGroup.NotFound");
    let nowhere = [rule(1, Source::Ipv4("everywhere".to_owned()))];
    assert_eq!(code(world.aws.authorize_ingress(&front, &nowhere).await), "InvalidParameterValue");
    assert_eq!(read().await.ingress, all);
    let state = world.simulation.state();
    insta::assert_snapshot!(state.security_groups["front"].ingress.iter().cloned().collect::<Vec<_>>().join("\n"), @"
    all every port from 0.0.0.0/0 (a <test>)
    tcp 443 from 0.0.0.0/0 (a <test>)
    tcp 443 from ::/0 (a <test>)
    tcp 443 from back (a <test>)
    tcp 443 from pl-1 (a <test>)
    tcp 80 from 0.0.0.0/0 (a <test>)
    ");
    world.aws.revoke_ingress(&front, &mixed[1..]).await.unwrap();
    assert_eq!(read().await.ingress.len(), 5);
    world.simulation.set_limits(Limits { security_group_rules: 5, ..Limits::default() });
    let one_more = [rule(82, everybody())];
    assert_eq!(code(world.aws.authorize_ingress(&front, &one_more).await), "RulesPerSecurityGroupLimitExceeded");
}

#[tokio::test(start_paused = true)]
async fn a_security_group_stays_while_something_uses_it() {
    let world = world();
    let front = world.security_group("front").await;
    let back = world.security_group("back").await;
    let groups = [front.clone()];
    let balancer = world.try_balancer(LoadBalancerKind::Application, "web", &["a", "b"], &groups).await.unwrap();
    let node = SecurityGroupId::new("sg-node");
    let from_back = [rule(80, Source::SecurityGroup(back.clone()))];
    world.aws.authorize_ingress(&node, &from_back).await.unwrap();
    for id in [&front, &back, &node] {
        assert_eq!(code(world.aws.delete_security_group(id).await), "DependencyViolation", "{id}");
    }
    world.aws.revoke_ingress(&node, &from_back).await.unwrap();
    world.aws.delete_security_group(&back).await.unwrap();
    world.aws.delete_load_balancer(&balancer.arn).await.unwrap();
    // The network interfaces disappear after a while.
    tokio::time::advance(Duration::from_secs(20)).await;
    world.aws.delete_security_group(&front).await.unwrap();
    assert_eq!(code(world.aws.delete_security_group(&front).await), "InvalidGroup.NotFound");
    assert_eq!(code(world.aws.revoke_ingress(&front, &from_back).await), "InvalidGroup.NotFound");
}
