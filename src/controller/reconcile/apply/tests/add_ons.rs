//! Web ACLs, protections and reserved capacity, whose failures hold up nothing else.

use super::*;
use albatross_core::{
    model::{
        AddOn, AddOns, Association, CapacityUnits, CustomerOwnedPoolId, IpamPoolId, LoadBalancerState, ObservedAddOns,
        ObservedLoadBalancer, PROTECTION_NAME, Protection, Requested, WebAclArn,
    },
    testing::load_balancer,
};

const EDGE: &str = "arn:aws:wafv2:us-west-2:111122223333:regional/webacl/edge/1";

fn web_acl() -> WebAclArn {
    WebAclArn::new(EDGE).unwrap()
}

/// Returns the stack with a web ACL and a protection.
fn protected() -> Stack {
    let mut stack = wanted();
    let balancer = stack.load_balancer.as_mut().unwrap();
    let cause = |field: &str| Cause { field: format!("alb.ingress.kubernetes.io/{field}"), ..balancer.cause.clone() };
    balancer.add_ons = AddOns {
        web_acl: Some(Requested { value: Some(Value::Known(web_acl())), cause: cause("wafv2-acl-arn") }),
        protection: Some(Requested { value: true, cause: cause("shield-advanced-protection") }),
        ..AddOns::default()
    };
    stack
}

fn json_error(code: &str, message: &str) -> (u16, String) {
    (400, json!({ "__type": code, "message": message }).to_string())
}

fn accepted(call: &Call) -> Option<(u16, String)> {
    match call.action.as_str() {
        "CreateProtection" => Some((200, json!({ "ProtectionId": "p-1" }).to_string())),
        "AssociateWebACL" | "DisassociateWebACL" | "DeleteProtection" => Some((200, "{}".to_owned())),
        _ => None,
    }
}

fn told(error: &ApplyError) -> String {
    let fix = error.fix().unwrap_or_else(|| "-".to_owned());
    format!(
        "{error}\nblame: {}\nfix: {fix}\nnot yet: {}, transient: {}, of one member: {}",
        error.blame(),
        error.is_not_yet(),
        error.is_transient(),
        error.is_attributable()
    )
}

/// Returns the planned steps that change add-ons.
fn planned(stack: &Stack, observed: &ObservedStack) -> Vec<&'static str> {
    let plan = plan::plan(stack, observed).ready().unwrap();
    plan.steps().iter().filter(|step| step.action.add_on().is_some()).map(|step| step.action.kind()).collect()
}

/// A load balancer in the inventory.
fn existing(room: &Room, state: LoadBalancerState) -> LoadBalancerArn {
    let arn = LoadBalancerArn::new("arn:b/web");
    let add_ons = ObservedAddOns::of_new();
    let tags = [(tags::CLUSTER, "demo"), (tags::INGRESS_STACK, "shop/web")];
    let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let balancer = load_balancer(arn.as_str(), "web.example.com");
    room.inventory.record_load_balancer(ObservedLoadBalancer { state, add_ons, tags, ..balancer });
    arn
}

fn associate(arn: &LoadBalancerArn) -> StepAction {
    let (load_balancer, name) = (Some(arn.clone()), "web".to_owned());
    StepAction::AssociateWebAcl { load_balancer, name, web_acl: Value::Known(web_acl()) }
}

#[tokio::test]
async fn add_ons_are_made_with_the_load_balancer_and_known_without_a_read() {
    let room = room(accepted).await;
    let (stack, observed) = (protected(), room.observe().await);
    let plan = plan::plan(&stack, &observed).ready().unwrap();
    room.fake.calls();
    let applied = room.apply(&plan).await.unwrap();
    assert!(applied.left_out.is_empty() && applied.carried_out.len() == plan.steps().len());
    let calls = room.fake.calls();
    let place = |action: &str| calls.iter().position(|call| call.action == action).unwrap();
    assert!(
        place("CreateLoadBalancer") < place("AssociateWebACL") && place("AssociateWebACL") < place("CreateListener")
    );
    let arn = room.observe().await.load_balancers.remove(0).arn;
    let body: Json = serde_json::from_str(&calls[place("AssociateWebACL")].body).unwrap();
    assert_eq!(body, json!({ "ResourceArn": arn.as_str(), "WebACLArn": EDGE }));
    let known = room.observe().await.load_balancers.remove(0).add_ons;
    let protection = Protection::Exists { id: "p-1".to_owned(), name: PROTECTION_NAME.to_owned() };
    assert_eq!(
        known,
        ObservedAddOns {
            web_acl: Some(Association::WebAcl(EDGE.to_owned())),
            protection: Some(protection),
            ..ObservedAddOns::of_new()
        }
    );
    assert_eq!(planned(&stack, &room.observe().await), [] as [&str; 0]);
    let remove = [
        StepAction::DisassociateWebAcl { arn: arn.clone(), name: "web".to_owned(), web_acl: EDGE.to_owned() },
        StepAction::DeleteProtection { arn, name: "web".to_owned(), id: "p-1".to_owned() },
    ];
    room.apply(&plan_for_ingress(remove)).await.unwrap();
    assert_eq!(room.observe().await.load_balancers.remove(0).add_ons, ObservedAddOns::of_new());
    assert_eq!(room.fake.actions(), ["DeleteProtection", "DisassociateWebACL"]);
}

#[tokio::test]
async fn a_denied_add_on_holds_up_no_other_step() {
    let room = room(|call| match call.action.as_str() {
        "AssociateWebACL" => Some(json_error(
            "AccessDeniedException",
            "User: x is not authorized to perform: wafv2:AssociateWebACL on resource: y",
        )),
        "CreateProtection" => Some(json_error("LimitsExceededException", "too many")),
        _ => None,
    })
    .await;
    let stack = protected();
    let plan = plan::plan(&stack, &room.observe().await).ready().unwrap();
    let applied = room.apply(&plan).await.unwrap();
    assert_eq!(applied.carried_out.len(), plan.steps().len() - 2);
    let told: Vec<String> = applied.left_out.iter().map(told).collect();
    insta::assert_snapshot!(told.join("\n"), @"
    associate web ACL arn:aws:wafv2:us-west-2:111122223333:regional/webacl/edge/1 with load balancer k8s-shop-web-63400ea3d5: AWS does not allow AssociateWebACL: User: x is not authorized to perform: wafv2:AssociateWebACL on resource: y (AccessDeniedException)
    blame: Ingress shop/web, alb.ingress.kubernetes.io/wafv2-acl-arn
    fix: allow the action `wafv2:AssociateWebACL` in the IAM policy of the controller's role
    not yet: false, transient: false, of one member: false
    create the protection of Shield Advanced for load balancer k8s-shop-web-63400ea3d5: AWS refuses CreateProtection: too many (LimitsExceededException)
    blame: Ingress shop/web, alb.ingress.kubernetes.io/shield-advanced-protection
    fix: ask AWS to raise the quota that it names, or use fewer
    not yet: false, transient: false, of one member: false
    ");
    // The rest of the pass leaves them as they are; the next one tries again.
    let mut observed = room.observe().await;
    assert_eq!(planned(&stack, &observed), ["AssociateWebAcl", "CreateProtection"]);
    observed.left_out = [AddOn::WebAcl, AddOn::Protection].into();
    assert_eq!(planned(&stack, &observed), [] as [&str; 0]);
}

#[tokio::test]
async fn a_service_that_does_not_know_a_new_load_balancer_yet_is_asked_again() {
    for (code, state, not_yet) in [
        ("WAFUnavailableEntityException", LoadBalancerState::Active, true),
        ("WAFNonexistentItemException", LoadBalancerState::Provisioning, true),
        ("WAFNonexistentItemException", LoadBalancerState::Active, false),
        ("WAFInvalidParameterException", LoadBalancerState::Provisioning, false),
    ] {
        let room = room(move |call| (call.action == "AssociateWebACL").then(|| json_error(code, "words"))).await;
        room.observe().await;
        let applied = room.step(associate(&existing(&room, state))).await.unwrap();
        let [error] = applied.left_out.as_slice() else { panic!("{applied:?}") };
        assert_eq!(error.is_not_yet(), not_yet, "{code} {state:?}: {error}");
    }
}

fn reserve(arn: &LoadBalancerArn, units: i32) -> StepAction {
    let units = CapacityUnits::new(units).unwrap();
    StepAction::ModifyCapacityReservation { arn: arn.clone(), name: "web".to_owned(), units }
}

#[tokio::test]
async fn capacity_is_reserved_changed_and_released() {
    let room = room(|call| match call.action.as_str() {
        action @ "ModifyCapacityReservation" => Some(elb(action, "")),
        action @ "DescribeCapacityReservation" => Some(elb(
            action,
            "<MinimumLoadBalancerCapacity><CapacityUnits>70</CapacityUnits></MinimumLoadBalancerCapacity>",
        )),
        _ => None,
    })
    .await;
    room.observe().await;
    let arn = existing(&room, LoadBalancerState::Active);
    room.fake.calls();
    for units in [1000, 2500, 0] {
        let applied = room.step(reserve(&arn, units)).await.unwrap();
        assert!(applied.left_out.is_empty(), "{applied:?}");
        let known = room.observe().await.load_balancers.remove(0).add_ons.capacity;
        assert_eq!(known, CapacityUnits::new(units));
    }
    let changes = room.fake.calls().into_iter().filter(|call| call.action == "ModifyCapacityReservation");
    let sent = changes.map(|call| {
        let params = call.params.into_iter().filter(|(key, _)| !["Action", "Version"].contains(&key.as_str()));
        params.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    });
    assert_eq!(
        sent.collect::<Vec<_>>(),
        [
            "LoadBalancerArn=arn:b/web MinimumLoadBalancerCapacity.CapacityUnits=1000",
            "LoadBalancerArn=arn:b/web MinimumLoadBalancerCapacity.CapacityUnits=2500",
            "LoadBalancerArn=arn:b/web ResetCapacityReservation=true",
        ]
    );
    // One that the controller has not set is read.
    room.inventory.invalidate(&group());
    let reads = albatross_core::plan::Reads { add_ons: [(AddOn::Capacity, arn.clone())].into(), ..Default::default() };
    let arn = existing(&room, LoadBalancerState::Active);
    room.inventory.read(&group(), &reads).await.unwrap();
    assert!(room.fake.actions().contains(&"DescribeCapacityReservation".to_owned()));
    let known = room.observe().await.load_balancers.into_iter().find(|balancer| balancer.arn == arn).unwrap();
    assert_eq!(known.add_ons.capacity, CapacityUnits::new(70));
}

#[tokio::test]
async fn a_refused_reservation_leaves_everything_else_in_place() {
    for (code, expected) in [
        (
            "CapacityDecreaseRequestsLimitExceeded",
            "leave the reserved capacity as it is, or wait: AWS takes only so many decreases a day",
        ),
        ("CapacityUnitsLimitExceeded", "reserve less, or ask AWS to raise the quota for reserved capacity"),
        ("InsufficientCapacity", "reserve less, or wait: AWS does not have that much now"),
        ("CapacityReservationPending", "-"),
    ] {
        let room =
            room(move |call| (call.action == "ModifyCapacityReservation").then(|| elb_error(400, code, "words"))).await;
        room.observe().await;
        let arn = existing(&room, LoadBalancerState::Active);
        let applied = room.step(reserve(&arn, 10)).await.unwrap();
        let [error] = applied.left_out.as_slice() else { panic!("{applied:?}") };
        assert_eq!(error.fix().unwrap_or_else(|| "-".to_owned()), expected);
        assert_eq!((error.add_on, error.is_not_yet()), (Some(AddOn::Capacity), expected == "-"), "{code}");
    }
}

#[tokio::test]
async fn an_ipam_pool_is_created_with_changed_and_removed() {
    let room = room(|call| (call.action == "ModifyIpPools").then(|| elb("ModifyIpPools", ""))).await;
    let mut stack = wanted();
    let balancer = stack.load_balancer.as_mut().unwrap();
    balancer.pools.ipam = Some(IpamPoolId::new("ipam-pool-1").unwrap());
    balancer.pools.customer_owned = Some(CustomerOwnedPoolId::new("ipv4pool-coip-1").unwrap());
    let plan = plan::plan(&stack, &room.observe().await).ready().unwrap();
    room.fake.calls();
    room.apply(&plan).await.unwrap();
    let calls = room.fake.calls();
    let made = calls.iter().find(|call| call.action == "CreateLoadBalancer").unwrap();
    assert_eq!(made.param("IpamPools.Ipv4IpamPoolId"), "ipam-pool-1");
    assert_eq!(made.param("CustomerOwnedIpv4Pool"), "ipv4pool-coip-1");
    let arn = room.observe().await.load_balancers.remove(0).arn;
    let modify = |pool: Option<&str>| StepAction::ModifyIpPools {
        arn: arn.clone(),
        name: "web".to_owned(),
        pool: pool.map(|pool| IpamPoolId::new(pool).unwrap()),
    };
    for pool in [Some("ipam-pool-2"), None] {
        room.step(modify(pool)).await.unwrap();
        assert_eq!(room.observe().await.load_balancers.remove(0).pools.ipam.as_deref(), pool);
    }
    let changes = room.fake.calls().into_iter().filter(|call| call.action == "ModifyIpPools");
    let sent = changes.map(|call| {
        let params = call.params.into_iter().filter(|(key, _)| key.contains("Ipam"));
        params.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    });
    assert_eq!(sent.collect::<Vec<_>>(), ["IpamPools.Ipv4IpamPoolId=ipam-pool-2", "RemoveIpamPools.member.1=ipv4"]);
}
