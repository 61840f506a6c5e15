//! A target group with an Application Load Balancer as its target.

use std::collections::BTreeSet;

use super::*;
use albatross_core::model::{
    FrontendTargetGroup, HealthCheck, HealthCheckProtocol, LoadBalancerTarget, Matcher, ResourceId, TargetGroupName,
};

fn target_group() -> FrontendTargetGroup {
    let resource = ResourceId::frontend_target_group(8080);
    let name = |text: &str| Value::Known(TargetGroupName::new(text).unwrap());
    FrontendTargetGroup {
        tags: group().resource_tags("demo", &resource, &Tags::new(), &Tags::new()),
        resource,
        name: name("front"),
        second_name: name("front-2"),
        port: 8080,
        vpc: Value::Known(VpcId::new("vpc-1")),
        health_check: HealthCheck {
            port: "traffic-port".to_owned(),
            protocol: HealthCheckProtocol::Http,
            path: Some("/up".to_owned()),
            interval_seconds: 15,
            timeout_seconds: 5,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
            matcher: Some(Matcher::Http("200".to_owned())),
        },
    }
}

#[tokio::test]
async fn a_load_balancer_is_registered_and_known_without_a_read() {
    let room = room(|_| None).await;
    room.observe().await;
    room.fake.calls();
    room.step(StepAction::CreateFrontendTargetGroup(Box::new(target_group()))).await.unwrap();
    let calls = room.fake.calls();
    let [create] = calls.as_slice() else { panic!("one call") };
    let params = ["Name", "TargetType", "Protocol", "Port", "VpcId", "HealthCheckProtocol", "HealthCheckPath"];
    assert_eq!(params.map(|key| create.param(key)), ["front", "alb", "TCP", "8080", "vpc-1", "HTTP", "/up"]);
    let arn = TargetGroupArn::new("arn:t/front");
    let front = room.observe().await.frontend;
    assert_eq!((front.target_groups.len(), front.targets.get(&arn)), (1, Some(&BTreeSet::new())));
    assert!(room.observe().await.target_groups.is_empty());

    let target = LoadBalancerTarget { load_balancer: LoadBalancerArn::new("arn:b/web"), port: 80 };
    let (name, registered) = ("front".to_owned(), target.clone());
    room.step(StepAction::RegisterLoadBalancer { arn: arn.clone(), name, target: registered }).await.unwrap();
    let calls = room.fake.calls();
    let [register] = calls.as_slice() else { panic!("one call") };
    let params = ["TargetGroupArn", "Targets.member.1.Id", "Targets.member.1.Port"];
    assert_eq!(register.action, "RegisterTargets");
    assert_eq!(params.map(|key| register.param(key)), ["arn:t/front", "arn:b/web", "80"]);
    assert_eq!(room.observe().await.frontend.targets.get(&arn), Some(&BTreeSet::from([target.clone()])));

    let name = "front".to_owned();
    room.step(StepAction::DeregisterLoadBalancer { arn: arn.clone(), name: name.clone(), target }).await.unwrap();
    let calls = room.fake.calls();
    let [deregister] = calls.as_slice() else { panic!("one call") };
    assert_eq!(deregister.action, "DeregisterTargets");
    assert_eq!(params.map(|key| deregister.param(key)), ["arn:t/front", "arn:b/web", "80"]);
    assert_eq!(room.observe().await.frontend.targets.get(&arn), Some(&BTreeSet::new()));
    room.step(StepAction::DeleteTargetGroup { arn, name }).await.unwrap();
    assert!(room.observe().await.frontend.is_empty());
}
