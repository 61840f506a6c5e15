//! Steps on security groups: the stack's own and the shared one.

use super::*;

#[tokio::test]
async fn a_security_group_of_the_name_is_the_groups_or_told() {
    let mut texts = Vec::new();
    for stack in ["shop/web", "shop/other"] {
        let known = Arc::new(Mutex::new(false));
        let room = room(move |call| match call.action.as_str() {
            "CreateSecurityGroup" => {
                *known.lock().unwrap() = true;
                Some(ec2_error(400, "InvalidGroup.Duplicate", "The security group already exists"))
            }
            "DescribeSecurityGroups" if *known.lock().unwrap() => {
                let tag = |key: &str, value: &str| format!("<item><key>{key}</key><value>{value}</value></item>");
                let tags = [
                    tag(tags::CLUSTER, "demo"),
                    tag(tags::INGRESS_STACK, stack),
                    tag(tags::INGRESS_RESOURCE, ResourceId::managed_security_group().as_str()),
                ];
                let item = format!("<item><groupId>sg-there</groupId><tagSet>{}</tagSet></item>", tags.concat());
                Some(ec2("DescribeSecurityGroups", &format!("<securityGroupInfo>{item}</securityGroupInfo>")))
            }
            _ => None,
        })
        .await;
        room.observe().await;
        let group = wanted().security_group.unwrap();
        texts.push(reported(room.step(StepAction::CreateSecurityGroup(group)).await));
    }
    insta::assert_snapshot!(texts.join("\n"), @"
    create security group k8s-shop-web-aba6dfbc4e: the security group `k8s-shop-web-aba6dfbc4e` already exists
    blame: Ingress shop/web generation 1, spec
    fix: -
    transient: true
    create security group k8s-shop-web-aba6dfbc4e: the security group `k8s-shop-web-aba6dfbc4e` exists and belongs to another owner (it lacks this group's tags), not to shop/web of cluster demo
    blame: Ingress shop/web generation 1, spec
    fix: choose another name, or delete or rename the security group `k8s-shop-web-aba6dfbc4e`: it is never taken over by its name
    transient: false
    ");
}

#[tokio::test]
async fn the_shared_security_group_is_made_once_and_found_by_its_tags() {
    let room = room(|_| None).await;
    let config = build_config();
    let (first, second) = tokio::join!(
        room.applier.ensure_backend_security_group(&config),
        room.applier.ensure_backend_security_group(&config)
    );
    assert_eq!((first.unwrap().as_str(), second.unwrap().as_str()), ("sg-made", "sg-made"));
    assert_eq!(room.fake.actions().iter().filter(|action| *action == "CreateSecurityGroup").count(), 1);
    assert_eq!(room.applier.delete_backend_security_group().await, Ok(true));
    assert_eq!(room.fake.actions(), ["DeleteSecurityGroup"]);
    let given = BuildConfig { backend_security_group: Some(SecurityGroupId::new("sg-given")), ..config };
    assert_eq!(room.applier.ensure_backend_security_group(&given).await.unwrap().as_str(), "sg-given");
    assert!(room.fake.actions().is_empty());
}

#[tokio::test]
async fn where_a_security_group_is_not_there_it_is_looked_for_whether_the_shared_one_is() {
    let room = room(|call| {
        (call.action == "SetSecurityGroups").then(|| elb_error(400, "InvalidSecurityGroup", "It does not exist"))
    })
    .await;
    let config = build_config();
    let shared = room.applier.ensure_backend_security_group(&config).await.unwrap();
    let arn = albatross_core::model::LoadBalancerArn::new("arn:lb");
    let groups = vec![albatross_core::model::SecurityGroupReference::Given(Value::Known(shared))];
    assert!(
        room.step(StepAction::SetSecurityGroups { load_balancer: Some(arn), groups, private_link_rules: None })
            .await
            .is_err()
    );
    room.fake.calls();
    // The fake has none.
    room.applier.ensure_backend_security_group(&config).await.unwrap();
    assert!(room.fake.actions().contains(&"CreateSecurityGroup".to_owned()));
}

#[tokio::test]
async fn the_shared_security_group_gets_default_tags_that_it_lacks_and_keeps_those_of_others() {
    let there = "<securityGroupInfo><item><groupId>sg-there</groupId><groupName>shared</groupName><tagSet>\
        <item><key>elbv2.k8s.aws/cluster</key><value>demo</value></item>\
        <item><key>elbv2.k8s.aws/resource</key><value>backend-sg</value></item>\
        <item><key>Name</key><value>by hand</value></item></tagSet></item></securityGroupInfo>";
    let room =
        room(move |call| (call.action == "DescribeSecurityGroups").then(|| ec2("DescribeSecurityGroups", there))).await;
    let default_tags: Tags = [("team".to_owned(), "platform".to_owned())].into();
    let config = BuildConfig { default_tags, ..build_config() };
    for expected in ["CreateTags ResourceId.1=sg-there Tag.1.Key=team Tag.1.Value=platform", ""] {
        assert_eq!(room.applier.ensure_backend_security_group(&config).await.unwrap().as_str(), "sg-there");
        let writes = room.fake.calls().into_iter().filter(|call| !call.action.starts_with("Describe"));
        let shown = |call: Call| {
            let kept = call.params.iter().filter(|(key, _)| key.as_str() != "Action" && key.as_str() != "Version");
            format!("{}{}", call.action, kept.map(|(key, value)| format!(" {key}={value}")).collect::<String>())
        };
        assert_eq!(writes.map(shown).collect::<Vec<_>>().join("\n"), expected);
    }
}

#[tokio::test]
async fn a_shared_security_group_without_our_tags_is_not_taken() {
    let room = room(|call| {
        (call.action == "CreateSecurityGroup")
            .then(|| ec2_error(400, "InvalidGroup.Duplicate", "The security group exists"))
    })
    .await;
    let config = build_config();
    let error = room.applier.ensure_backend_security_group(&config).await.unwrap_err();
    insta::assert_snapshot!(error, @"AWS refuses CreateSecurityGroup: a security group named `k8s-traffic-demo-2a97516c35` exists and lacks the tags elbv2.k8s.aws/cluster=demo and elbv2.k8s.aws/resource=backend-sg (InvalidGroup.Duplicate)");
}
