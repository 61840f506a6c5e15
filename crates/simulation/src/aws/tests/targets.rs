use std::collections::BTreeMap;

use super::*;
use albatross_core::model::{FrontendTargetGroup, QuicServerId, Registration, Target};

fn target(id: &str, port: u16) -> Registration {
    Target { id: id.to_owned(), port }.into()
}

impl World {
    /// Returns the health of each target of a group.
    async fn health(&self, group: &TargetGroupArn) -> BTreeMap<String, String> {
        let health = self.aws.describe_target_health(group).await.unwrap();
        health.into_iter().map(|(target, health)| (target.to_string(), health.state.to_string())).collect()
    }
}

fn states(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(target, state)| ((*target).to_owned(), (*state).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_target_group_is_made_modified_and_deleted_when_nothing_uses_it() {
    let world = world();
    let group = world.target_group("api").await;
    let mut check = target_group(TargetType::Ip).health_check;
    assert_eq!(group.health_check.as_ref(), Some(&check));
    check.interval_seconds = 60;
    check.matcher = Some(Matcher::Http("200-299".to_owned()));
    world.aws.modify_target_group(&group.arn, &check).await.unwrap();
    let observed = world.observed().await;
    assert_eq!(observed.target_groups, [ObservedTargetGroup { health_check: Some(check), ..group.clone() }]);

    let one = world.balancer("one").await;
    let listener = world.listener(&one.arn, 80, &http(forward(&[&group.arn]))).await;
    assert_eq!(code(world.aws.delete_target_group(&group.arn).await), "ResourceInUse");
    let two = world.balancer("two").await;
    let refused = world.aws.create_listener(&two.arn, 80, &http(forward(&[&group.arn])), &Tags::new()).await;
    assert_eq!(code(refused), "TargetGroupAssociationLimit");
    world.aws.modify_listener(&listener.arn, &http(respond("404"))).await.unwrap();
    world.aws.delete_target_group(&group.arn).await.unwrap();
    world.aws.delete_target_group(&group.arn).await.unwrap();
    assert_eq!(code(world.aws.describe_target_health(&group.arn).await), "TargetGroupNotFound");
    assert_eq!(code(world.aws.register_targets(&group.arn, &[target("10.0.0.1", 80)]).await), "TargetGroupNotFound");
    let check = target_group(TargetType::Ip).health_check;
    assert_eq!(code(world.aws.modify_target_group(&group.arn, &check).await), "TargetGroupNotFound");
}

#[tokio::test(start_paused = true)]
async fn grpc_groups_have_codes_of_their_own() {
    let world = world();
    let mut grpc = target_group(TargetType::Instance);
    grpc.protocol_version = Some(ProtocolVersion::Grpc);
    grpc.health_check.matcher = Some(Matcher::Grpc("0-99".to_owned()));
    let name = TargetGroupName::new("grpc").unwrap();
    let group = world.aws.create_target_group(&grpc, &name, &vpc()).await.unwrap();
    assert_eq!(group.health_check, Some(grpc.health_check.clone()));
    assert_eq!(group.protocol_version.as_deref(), Some("GRPC"));
    let balancer = world.balancer("web").await;
    let refused = world.aws.create_listener(&balancer.arn, 80, &http(forward(&[&group.arn])), &Tags::new()).await;
    assert_eq!(code(refused), "InvalidLoadBalancerAction");
    grpc.health_check.matcher = Some(Matcher::Http("200".to_owned()));
    assert_eq!(code(world.aws.modify_target_group(&group.arn, &grpc.health_check).await), "ValidationError");
    grpc.health_check.interval_seconds = 4;
    assert_eq!(code(world.aws.modify_target_group(&group.arn, &grpc.health_check).await), "ValidationError");
}

#[tokio::test(start_paused = true)]
async fn targets_become_healthy_when_they_are_used_and_drain_when_they_go() {
    let world = world();
    let group = world.target_group("api").await.arn;
    let (one, two) = (target("10.0.0.1", 80), target("10.0.0.2", 80));
    world.aws.register_targets(&group, &[one.clone(), two.clone(), target("10.0.0.3", 80)]).await.unwrap();
    world.aws.deregister_targets(&group, &[target("10.0.0.3", 80)]).await.unwrap();
    let unused = states(&[("10.0.0.1:80", "unused"), ("10.0.0.2:80", "unused")]);
    assert_eq!(world.health(&group).await, unused);

    let balancer = world.balancer("web").await;
    world.listener(&balancer.arn, 80, &http(forward(&[&group]))).await;
    assert_eq!(world.health(&group).await, states(&[("10.0.0.1:80", "initial"), ("10.0.0.2:80", "initial")]));
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(world.health(&group).await, states(&[("10.0.0.1:80", "healthy"), ("10.0.0.2:80", "healthy")]));

    world.aws.deregister_targets(&group, std::slice::from_ref(&one)).await.unwrap();
    world.aws.deregister_targets(&group, std::slice::from_ref(&one)).await.unwrap();
    assert_eq!(world.health(&group).await, states(&[("10.0.0.1:80", "draining"), ("10.0.0.2:80", "healthy")]));
    assert_eq!(world.simulation.state().target_groups["api"].targets, ["10.0.0.2:80".to_owned()].into());
    tokio::time::advance(Duration::from_secs(300)).await;
    assert_eq!(world.health(&group).await, states(&[("10.0.0.2:80", "healthy")]));
    world.aws.deregister_targets(&group, std::slice::from_ref(&two)).await.unwrap();
    world.aws.register_targets(&group, &[two]).await.unwrap();
    assert_eq!(world.health(&group).await, states(&[("10.0.0.2:80", "initial")]));
}

#[tokio::test(start_paused = true)]
async fn targets_come_in_batches_and_must_be_of_the_vpc() {
    let world = world();
    let group = world.target_group("api").await.arn;
    let targets: Vec<_> = (0..450).map(|n| target(&format!("10.0.{}.{}", n / 250, n % 250), 80)).collect();
    world.simulation.calls();
    world.aws.register_targets(&group, &targets).await.unwrap();
    assert_eq!(world.operations(), ["RegisterTargets"; 3]);
    assert_eq!(world.health(&group).await.len(), 450);
    world.aws.deregister_targets(&group, &targets[..449]).await.unwrap();
    assert_eq!(world.simulation.state().target_groups["api"].targets.len(), 1);
    let outside = target("192.168.0.1", 80);
    let somewhere = |zone: &str, target: &Registration| Registration { zone: Some(zone.to_owned()), ..target.clone() };
    assert_eq!(code(world.aws.register_targets(&group, std::slice::from_ref(&outside)).await), "ValidationError");
    let inside = somewhere("all", &targets[449]);
    assert_eq!(code(world.aws.register_targets(&group, &[inside]).await), "ValidationError");
    world.aws.register_targets(&group, &[somewhere("all", &outside)]).await.unwrap();
    let health = world.aws.describe_target_health(&group).await.unwrap();
    assert_eq!(health[&outside.target].zone.as_deref(), Some("all"));
    assert_eq!(code(world.aws.register_targets(&group, &[target("i-node0", 80)]).await), "InvalidTarget");
    let name = TargetGroupName::new("nodes").unwrap();
    let nodes = world.aws.create_target_group(&target_group(TargetType::Instance), &name, &vpc()).await.unwrap().arn;
    world.aws.register_targets(&nodes, &[target("i-node0", 31380)]).await.unwrap();
    assert_eq!(code(world.aws.register_targets(&nodes, &[target("i-gone", 31380)]).await), "InvalidTarget");
    world.simulation.set_limits(Limits { targets: 2, ..Limits::default() });
    assert_eq!(code(world.aws.register_targets(&group, &targets[..2]).await), "TooManyTargets");
}

#[tokio::test(start_paused = true)]
async fn targets_of_quic_have_server_ids_that_do_not_change() {
    let world = world();
    let wanted = network_target_group(TargetGroupProtocol::Quic);
    let name = TargetGroupName::new("quic").unwrap();
    let group = world.aws.create_target_group(&wanted, &name, &vpc()).await.unwrap().arn;
    let identified =
        |id: &str, number| Registration { quic_server_id: Some(QuicServerId::new(number)), ..target(id, 443) };
    let register = async |targets: &[Registration]| world.aws.register_targets(&group, targets).await;
    assert_eq!(code(register(&[target("10.0.0.1", 443)]).await), "ValidationError");
    assert_eq!(code(register(&[identified("10.0.0.1", 1), identified("10.0.0.2", 1)]).await), "ValidationError");
    register(&[identified("10.0.0.1", 1), identified("10.0.0.2", 2)]).await.unwrap();
    register(&[identified("10.0.0.1", 1)]).await.unwrap();
    assert_eq!(code(register(&[identified("10.0.0.3", 2)]).await), "ValidationError");
    assert_eq!(code(register(&[identified("10.0.0.1", 3)]).await), "ValidationError");
    let health = world.aws.describe_target_health(&group).await.unwrap();
    let ids: Vec<_> = health.values().map(|health| health.quic_server_id.map(|id| id.to_string())).collect();
    assert_eq!(ids, [Some("0x0000000000000001".to_owned()), Some("0x0000000000000002".to_owned())]);
    assert_eq!(code(world.aws.deregister_targets(&group, &[target("10.0.0.1", 443)]).await), "ValidationError");
    world.aws.deregister_targets(&group, &[identified("10.0.0.1", 1)]).await.unwrap();
    register(&[identified("10.0.0.1", 3)]).await.unwrap();
    let plain = world.target_group("api").await.arn;
    let refused = world.aws.register_targets(&plain, &[identified("10.0.0.9", 9)]).await;
    assert_eq!(code(refused), "ValidationError");
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_is_a_target_when_it_is_active_and_listens() {
    let world = world();
    let plain = target_group(TargetType::Ip);
    let new = FrontendTargetGroup {
        resource: plain.resource,
        name: plain.name,
        second_name: plain.second_name,
        port: 80,
        vpc: plain.vpc,
        health_check: plain.health_check,
        tags: plain.tags,
    };
    let name = TargetGroupName::new("front").unwrap();
    let group = world.aws.create_frontend_target_group(&new, &name, &vpc()).await.unwrap().arn;
    let behind = world.balancer("behind").await.arn;
    let one = target(behind.as_str(), 80);
    let listener = world.listener(&behind, 80, &http(respond("404"))).await;
    assert_eq!(code(world.aws.register_targets(&group, std::slice::from_ref(&one)).await), "InvalidTarget");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(code(world.aws.register_targets(&group, &[target(behind.as_str(), 81)]).await), "InvalidTarget");
    world.aws.register_targets(&group, std::slice::from_ref(&one)).await.unwrap();
    world.aws.register_targets(&group, std::slice::from_ref(&one)).await.unwrap();

    let other = world.balancer("other").await.arn;
    world.listener(&other, 80, &http(respond("404"))).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    let second = world.aws.register_targets(&group, &[target(other.as_str(), 80)]).await;
    assert_eq!(code(second), "InvalidTarget");
    assert_eq!(code(world.aws.delete_load_balancer(&behind).await), "ResourceInUse");
    assert_eq!(code(world.aws.delete_listener(&listener.arn).await), "ResourceInUse");
    world.aws.deregister_targets(&group, &[one]).await.unwrap();
    world.aws.delete_listener(&listener.arn).await.unwrap();
    world.aws.delete_load_balancer(&behind).await.unwrap();
}
