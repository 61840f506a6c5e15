//! Roles of other accounts.

use super::*;
use albatross_aws::Roles;
use albatross_core::{
    api::crd::TargetGroupBindingSpec,
    model::Target,
    targets::{TargetGroupKey, role::Role},
};

const ROLE: &str = "arn:aws:iam::111122223333:role/targets";

fn role(external_id: &str) -> Role {
    let spec = TargetGroupBindingSpec {
        iam_role_arn_to_assume: Some(ROLE.to_owned()),
        assume_role_external_id: Some(external_id.to_owned()),
        ..TargetGroupBindingSpec::default()
    };
    Role::of(&spec).unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_target_group_of_another_account_is_reached_only_in_a_role_of_it() {
    let world = world();
    let arn = world.simulation.add_abroad(ROLE, Some("shop"), 1).remove(0);
    let (group, own) = (TargetGroupArn::new(arn), world.target_group("web").await.arn);
    let roles = Roles::new(world.aws.reader().clone(), "demo", &vpc());
    let writer = |external_id: &str| roles.client(&role(external_id)).writer(world.aws.permit());
    let target = || [Target { id: "10.0.0.1".to_owned(), port: 80 }.into()];
    assert_eq!(code(world.aws.register_targets(&group, &target()).await), "AccessDenied");
    assert_eq!(world.aws.describe_target_group(&TargetGroupKey::Arn(group.clone())).await, Ok(None));
    let error = writer("other").register_targets(&group, &target()).await.unwrap_err();
    assert_eq!(error.denied_by(), Some(albatross_aws::DeniedBy::OtherAccount));
    let client = writer("shop");
    assert_eq!(client.register_targets(&group, &target()).await, Ok(()));
    assert_eq!(code(client.register_targets(&own, &target()).await), "AccessDenied");
    let named = TargetGroupKey::Name(world.simulation.state().target_groups.keys().next().unwrap().clone());
    assert_eq!(client.describe_target_group(&named).await.unwrap().map(|facts| facts.arn), Some(group));
    assert!(world.simulation.state().is_sound(), "{:?}", world.simulation.state().not_simulated);
}
