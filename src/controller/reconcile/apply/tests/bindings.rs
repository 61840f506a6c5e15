//! Steps on TargetGroupBindings, and what they lead to.

use super::*;

#[tokio::test]
async fn the_only_target_group_is_named_also_while_its_binding_goes() {
    let room = room(|_| None).await;
    let (stack, nothing) = (wanted(), room.observe().await);
    room.apply(&plan::plan(&stack, &nothing).ready().unwrap()).await.unwrap();
    let rule = StepAction::CreateRule {
        listener: plan::ListenerReference::Existing(albatross_core::model::ListenerArn::new("arn:l/80")),
        port: 80,
        index: 0,
        priority: 2,
        rule: Box::new(stack.listeners[&80].rules[0].clone()),
    };
    let going = room.observe().await.bindings.into_iter().map(|binding| plan::Wait::BindingGone(binding.name));
    let plan = plan_of(plan_for_ingress([rule]).steps().to_vec(), going);
    room.fake.calls();
    room.apply(&plan).await.unwrap();
    assert_eq!(room.fake.actions(), ["CreateRule"]);
}

#[tokio::test]
async fn a_foreign_target_group_that_is_gone_is_the_authors_to_mend() {
    let room = room(|call| {
        (call.action == "CreateRule")
            .then(|| elb_error(400, "TargetGroupNotFound", "One or more target groups not found"))
    })
    .await;
    let stack = wanted();
    let mut rule = stack.listeners[&80].rules[0].clone();
    rule.action = rule
        .action
        .try_map(|_| {
            Ok::<_, ()>(albatross_core::model::TargetGroupReference::Foreign(TargetGroupArn::new("arn:t/theirs")))
        })
        .unwrap();
    let create = StepAction::CreateRule {
        listener: plan::ListenerReference::Existing(albatross_core::model::ListenerArn::new("arn:l/80")),
        port: 80,
        index: 0,
        priority: 1,
        rule: Box::new(rule),
    };
    insta::assert_snapshot!(reported(room.step(create).await), @"
    create rule 1 of listener 80: host is shop.example and path is /api or /api/*: CreateRule names a resource that does not exist: One or more target groups not found (TargetGroupNotFound)
    blame: Ingress shop/web generation 1, spec
    fix: check the target group's ARN: it must be in the load balancer's account and region
    transient: false
    ");
}

#[tokio::test]
async fn bindings_are_replaced_only_where_they_are_the_groups() {
    let room = room(|_| None).await;
    let stack = wanted();
    let target_group = Box::new(stack.target_groups[0].clone());
    let name = target_group.name.known().unwrap().as_str().to_owned();
    let path = format!("{PATH}/{name}");
    let create = || {
        plan_for_ingress([
            StepAction::CreateTargetGroup(target_group.clone()),
            StepAction::CreateBinding(target_group.clone()),
        ])
    };
    room.apply(&create()).await.unwrap();

    // Made already, though not seen yet: replaced, and what its own worker keeps there stays.
    room.bindings.0.lock().unwrap().get_mut(&path).unwrap()["metadata"]["finalizers"] =
        json!(["elbv2.k8s.aws/resources"]);
    room.bindings.0.lock().unwrap().get_mut(&path).unwrap()["spec"]["serviceRef"]["name"] = json!("old");
    room.bindings.0.lock().unwrap().get_mut(&path).unwrap()["metadata"]["labels"]["team"] = json!("shop");
    room.bindings.0.lock().unwrap().get_mut(&path).unwrap()["metadata"]["annotations"] = json!({"team": "shop"});
    room.step(StepAction::CreateBinding(target_group.clone())).await.unwrap();
    let binding = room.bindings.0.lock().unwrap()[&path].clone();
    assert_eq!(binding["metadata"]["finalizers"], json!(["elbv2.k8s.aws/resources"]));
    assert_eq!(
        binding["metadata"]["labels"],
        json!({"ingress.k8s.aws/stack-name": "web", "ingress.k8s.aws/stack-namespace": "shop", "team": "shop"})
    );
    assert_eq!(binding["metadata"]["annotations"], json!({"team": "shop"}));
    assert_eq!(binding["spec"]["serviceRef"], json!({"name": "api", "port": 80}));

    // Changed since it was seen.
    let seen = room.bindings.observed().remove(0);
    let update = StepAction::UpdateBinding {
        existing: Box::new(seen),
        target_group: target_group.clone(),
        keeps_networking: false,
    };
    room.step(update.clone()).await.unwrap();
    room.bindings.0.lock().unwrap().get_mut(&path).unwrap()["spec"]["serviceRef"]["name"] = json!("other");
    let changed = reported(room.step(update).await);

    // Another owner's.
    room.bindings.0.lock().unwrap().get_mut(&path).unwrap()["metadata"]["labels"] = json!({});
    let foreign = reported(room.step(StepAction::CreateBinding(target_group)).await);
    insta::assert_snapshot!(format!("{changed}\n{foreign}"), @"
    update TargetGroupBinding shop/k8s-shop-api-33b1a54ac0: the TargetGroupBinding shop/k8s-shop-api-33b1a54ac0 has changed meanwhile
    blame: Ingress shop/web generation 1, spec
    fix: -
    transient: true
    create TargetGroupBinding shop/k8s-shop-api-33b1a54ac0: the TargetGroupBinding `k8s-shop-api-33b1a54ac0` exists and is not this group's: it lacks its labels
    blame: Ingress shop/web generation 1, spec
    fix: delete or rename the TargetGroupBinding `k8s-shop-api-33b1a54ac0`
    transient: false
    ");

    let delete = StepAction::DeleteBinding(ObjectName::new("shop", name));
    room.step(delete.clone()).await.unwrap();
    assert!(room.bindings.0.lock().unwrap().is_empty());
    room.step(delete).await.unwrap();
}
