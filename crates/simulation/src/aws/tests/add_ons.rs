//! Web ACLs and protections of load balancers.

use super::*;
use albatross_aws::facts::FactStore;
use albatross_core::{
    facts::{Fact, FactQuery, Facts},
    model::{AddOn, Association, Protection, WebAclArn},
    plan::Reads,
};

#[tokio::test(start_paused = true)]
async fn a_load_balancer_has_one_web_acl_and_one_protection_once_it_serves() {
    let world = world();
    let balancer = world.balancer("web").await.arn;
    let facts = FactStore::new(world.aws.reader().clone(), "demo".to_owned(), vpc());
    world.simulation.set_page_size(1);
    let mut found = Facts::default();
    for name in ["edge", "strict", "lost"] {
        facts.answer(&FactQuery::WebAcl(name.to_owned()), &mut found).await;
    }
    let web_acl = |name: &str| match found.web_acl(name) {
        Some(Fact::Known(arn)) => arn,
        other => panic!("{other:?}"),
    };
    assert!(matches!(found.web_acl("lost"), Some(Fact::Absent { .. })));
    let (edge, strict) = (web_acl("edge"), web_acl("strict"));
    assert_eq!(code(world.aws.associate_web_acl(&balancer, &edge).await), "WAFUnavailableEntityException");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let other = WebAclArn::new(edge.as_str().replace("edge", "other")).unwrap();
    assert_eq!(code(world.aws.associate_web_acl(&balancer, &other).await), "WAFNonexistentItemException");
    let nowhere = LoadBalancerArn::new(format!("{balancer}0"));
    assert_eq!(code(world.aws.associate_web_acl(&nowhere, &edge).await), "WAFNonexistentItemException");
    for web_acl in [&edge, &strict] {
        world.aws.associate_web_acl(&balancer, web_acl).await.unwrap();
        assert_eq!(world.simulation.state().load_balancers["web"].web_acl.as_deref(), Some(web_acl.as_str()));
    }
    world.aws.create_protection(&balancer).await.unwrap();
    assert_eq!(code(world.aws.create_protection(&balancer).await), "ResourceAlreadyExistsException");
    // A new process reads both.
    let inventory = Inventory::new(world.aws.reader().clone(), "demo", vpc());
    inventory.observe(&stack()).await.unwrap();
    let add_ons = [AddOn::WebAcl, AddOn::Protection].map(|add_on| (add_on, balancer.clone())).into();
    inventory.read(&stack(), &Reads { add_ons, ..Reads::default() }).await.unwrap();
    let known = inventory.observe(&stack()).await.unwrap().load_balancers.remove(0).add_ons;
    assert_eq!(known.web_acl, Some(Association::WebAcl(strict.to_string())));
    let id = known.protection.as_ref().and_then(Protection::own_id).unwrap().to_owned();
    world.aws.disassociate_web_acl(&balancer).await.unwrap();
    world.aws.delete_protection(&id).await.unwrap();
    let state = world.simulation.state();
    assert_eq!((&state.load_balancers["web"].web_acl, &state.load_balancers["web"].protection), (&None, &None));
    assert!(state.is_sound(), "{:?}", state.not_simulated);
}
