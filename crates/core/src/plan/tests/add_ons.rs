//! The settings of a load balancer that are changed apart from it.

use super::{
    aws::Aws,
    plan,
    replaced::{public, wait},
    steps::built,
};
use crate::{
    model::*,
    plan::{Plan, Planned, Reads, StepAction, Wait, render},
    testing::name,
};

const EDGE: &str = "arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/edge/1";
const STRICT: &str = "arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/strict/2";

fn stack(web_acl: Option<&str>, protection: Option<bool>) -> Stack {
    let mut stack = built(super::steps::MANIFESTS);
    let cause =
        |field: &str| Cause { object: ObjectReference::ingress(&name("web")), generation: 3, field: field.to_owned() };
    let web_acl = web_acl.map(|arn| WebAclArn::new(arn).ok().map(Value::Known));
    stack.load_balancer.as_mut().unwrap().add_ons = AddOns {
        web_acl: web_acl.map(|value| Requested { value, cause: cause("wafv2-acl-arn") }),
        protection: protection.map(|value| Requested { value, cause: cause("shield-advanced-protection") }),
        ..AddOns::default()
    };
    stack
}

fn kinds(plan: &Plan) -> Vec<&'static str> {
    plan.steps().iter().map(|step| step.action.kind()).collect()
}

/// Returns AWS after the stack is in its desired state.
fn settled(stack: &Stack) -> Aws {
    let mut aws = Aws::default();
    aws.settle(stack, 1);
    aws
}

#[test]
fn add_ons_come_before_what_is_served_and_go_after_it() {
    let mut aws = Aws::default();
    let first = plan(&stack(Some(EDGE), Some(true)), &aws.observed);
    let kinds_of_new = kinds(&first);
    let place = |kind: &str| kinds_of_new.iter().position(|known| *known == kind).unwrap();
    assert_eq!(place("AssociateWebAcl"), place("CreateLoadBalancer") + 1);
    assert!(place("CreateProtection") < place("CreateListener"));
    let shown: Vec<String> = first
        .steps()
        .iter()
        .filter(|step| step.action.add_on().is_some())
        .map(|step| step.action.to_string())
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @"
    associate web ACL arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/edge/1 with load balancer k8s-shop-web-17d71bc701
    create the protection of Shield Advanced for load balancer k8s-shop-web-17d71bc701
    ");
    aws.settle(&stack(Some(EDGE), Some(true)), 1);
    let change = |wanted: &Stack, aws: &mut Aws| {
        let made = plan(wanted, &aws.observed);
        let shown = render(&made);
        aws.settle(wanted, 1);
        assert_eq!(kinds(&plan(wanted, &aws.observed)), [] as [&str; 0]);
        shown
    };
    insta::assert_snapshot!(change(&stack(Some(EDGE), Some(true)), &mut aws), @"");
    insta::assert_snapshot!(change(&stack(Some(STRICT), Some(true)), &mut aws), @"
      ~ associate web ACL arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/strict/2 with load balancer k8s-shop-web-17d71bc701
          because of       Ingress shop/web generation 3, wafv2-acl-arn
    ");
    // What is not requested any more stays.
    insta::assert_snapshot!(change(&stack(None, None), &mut aws), @"");
    insta::assert_snapshot!(change(&stack(Some("none"), Some(false)), &mut aws), @"
      - disassociate web ACL arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/strict/2 from load balancer k8s-shop-web-17d71bc701
          because of       Ingress shop/web generation 3, wafv2-acl-arn
      - delete the protection of Shield Advanced of load balancer k8s-shop-web-17d71bc701
          because of       Ingress shop/web generation 3, shield-advanced-protection
    ");
    insta::assert_snapshot!(change(&stack(Some("none"), Some(false)), &mut aws), @"");
}

#[test]
fn only_what_is_requested_is_read_and_what_is_left_out_stays() {
    let aws = settled(&stack(Some(EDGE), Some(true)));
    let mut unread = aws.observed.clone();
    unread.load_balancers[0].add_ons = ObservedAddOns::default();
    let arn = unread.load_balancers[0].arn.clone();
    let needs = |wanted: &Stack, observed: &ObservedStack| match crate::plan::plan(wanted, observed) {
        Planned::Need(Reads { add_ons, .. }) => add_ons,
        Planned::Ready(plan) => {
            assert_eq!(kinds(&plan), [] as [&str; 0]);
            [].into()
        }
    };
    let both = [(AddOn::WebAcl, arn.clone()), (AddOn::Protection, arn.clone())].into();
    assert_eq!(needs(&stack(Some(STRICT), Some(false)), &unread), both);
    assert_eq!(needs(&stack(Some("none"), None), &unread), [(AddOn::WebAcl, arn.clone())].into());
    assert_eq!(needs(&stack(None, None), &unread), [].into());
    unread.left_out = [AddOn::WebAcl, AddOn::Protection].into();
    assert_eq!(needs(&stack(Some(STRICT), Some(false)), &unread), [].into());
    // AWS has not accepted a change, and nothing else is to be done.
    let refused = ObservedStack { left_out: [AddOn::WebAcl].into(), ..aws.observed };
    assert_eq!(needs(&stack(Some(STRICT), Some(true)), &refused), [].into());
}

#[test]
fn a_protection_of_others_is_not_deleted() {
    let mut aws = settled(&stack(None, Some(true)));
    for (name, deleted) in [
        ("by hand", false),
        ("managed by aws-load-balancer-controller", true),
        ("managed by aws-alb-ingress-controller", true),
    ] {
        let (id, name) = ("1".to_owned(), name.to_owned());
        aws.observed.load_balancers[0].add_ons.protection = Some(Protection::Exists { id, name: name.clone() });
        let kinds = kinds(&plan(&stack(None, Some(false)), &aws.observed));
        assert_eq!(kinds == ["DeleteProtection"], deleted, "{name}: {kinds:?}");
    }
}

#[test]
fn a_load_balancer_that_takes_over_is_published_with_its_web_acl() {
    let before = stack(Some(EDGE), None);
    let mut aws = settled(&before);
    for balancer in &mut aws.observed.load_balancers {
        balancer.state = LoadBalancerState::Active;
    }
    let mut wanted = public(before);
    wanted.load_balancer.as_mut().unwrap().scheme = Scheme::Internal;
    let wanted_balancer = wanted.load_balancer.clone().unwrap();
    let old = aws.observed.load_balancers[0].arn.clone();
    // WAF does not know the new load balancer yet.
    aws.observed.left_out = [AddOn::WebAcl].into();
    for _ in 0..4 {
        let made = plan(&wanted, &aws.observed);
        assert!(!kinds(&made).contains(&"DeleteLoadBalancer"));
        aws.run(&wanted, &made);
        wait(&mut aws, &made);
        aws.observed.left_out = [AddOn::WebAcl].into();
        assert!(aws.observed.current(&wanted_balancer).is_none() || aws.observed.is_exposed(&wanted_balancer));
    }
    let made = plan(&wanted, &aws.observed);
    assert!(made.waits().contains(&Wait::Mended(old.clone())), "{:?}", made.waits());
    aws.observed.left_out.clear();
    let made = plan(&wanted, &aws.observed);
    assert_eq!(kinds(&made), ["AssociateWebAcl"]);
    assert!(
        matches!(&made.steps()[0].action, StepAction::AssociateWebAcl { load_balancer: Some(arn), .. } if *arn != old)
    );
    aws.run(&wanted, &made);
    assert!(!aws.observed.is_exposed(&wanted_balancer));
    // A change of the web ACL, or one that cannot be read, sends nobody back.
    assert_ne!(aws.observed.published(&wanted_balancer).unwrap().arn, old);
    for balancer in &mut aws.observed.load_balancers {
        balancer.add_ons = ObservedAddOns::default();
    }
    assert_ne!(aws.observed.published(&wanted_balancer).unwrap().arn, old);
    for balancer in &mut aws.observed.load_balancers {
        balancer.add_ons.web_acl = Some(Association::WebAcl(EDGE.to_owned()));
    }
    assert!(plan(&wanted, &aws.observed).waits().contains(&Wait::RetainOld(old)));
}

fn reserving(units: i32) -> Stack {
    let mut stack = stack(None, None);
    let balancer = stack.load_balancer.as_mut().unwrap();
    let cause = Cause { field: "minimum-load-balancer-capacity".to_owned(), ..balancer.cause.clone() };
    balancer.add_ons.capacity = Some(Requested { value: CapacityUnits::new(units).unwrap(), cause });
    stack
}

#[test]
fn capacity_is_reserved_once_the_load_balancer_serves() {
    let mut aws = Aws::default();
    let first = plan(&reserving(1000), &aws.observed);
    assert!(!kinds(&first).contains(&"ModifyCapacityReservation"));
    assert_eq!(first.waits(), &[Wait::LoadBalancerActive].into());
    aws.run(&reserving(1000), &first);
    let needed = |stack: &Stack, observed: &ObservedStack| match crate::plan::plan(stack, observed) {
        Planned::Need(reads) => Some((reads.states, reads.add_ons)),
        Planned::Ready(_) => None,
    };
    assert_eq!(needed(&reserving(1000), &aws.observed), Some((true, [].into())));
    // What it has already, and what is not requested, is not waited for.
    assert_eq!(plan(&reserving(0), &aws.observed), Plan::empty());
    assert_eq!(plan(&stack(None, None), &aws.observed), Plan::empty());
    aws.observed.states_are_read = true;
    let waits = plan(&reserving(1000), &aws.observed);
    assert!(waits.steps().is_empty() && waits.waits().contains(&Wait::LoadBalancerActive));
    aws.observed.load_balancers[0].state = LoadBalancerState::Active;
    aws.observed.states_are_read = false;
    let mut steps = Vec::new();
    for units in [1000, 2500, 0] {
        let plan = plan(&reserving(units), &aws.observed);
        steps.extend(plan.steps().iter().map(|step| step.action.to_string()));
        aws.run(&reserving(units), &plan);
        assert_eq!(super::plan(&reserving(units), &aws.observed), Plan::empty());
        // Without the request it stays, and is not read.
        assert_eq!(super::plan(&stack(None, None), &aws.observed), Plan::empty());
    }
    insta::assert_snapshot!(steps.join("\n"), @"
    reserve 1000 capacity units for load balancer k8s-shop-web-17d71bc701
    reserve 2500 capacity units for load balancer k8s-shop-web-17d71bc701
    end the reservation of capacity for load balancer k8s-shop-web-17d71bc701
    ");
    let arn = aws.observed.load_balancers[0].arn.clone();
    aws.observed.load_balancers[0].add_ons = ObservedAddOns::default();
    assert_eq!(needed(&stack(None, None), &aws.observed), None);
    assert_eq!(needed(&reserving(0), &aws.observed), Some((false, [(AddOn::Capacity, arn)].into())));
    let refused = ObservedStack { left_out: [AddOn::Capacity].into(), ..aws.observed };
    assert_eq!(plan(&reserving(3000), &refused), Plan::empty());
}

#[test]
fn an_ipam_pool_goes_first_and_comes_last() {
    let with = |pool: Option<&str>| {
        let mut stack = stack(None, None);
        let balancer = stack.load_balancer.as_mut().unwrap();
        balancer.scheme = Scheme::InternetFacing;
        balancer.pools.ipam = pool.map(|pool| IpamPoolId::new(pool).unwrap());
        stack
    };
    let mut aws = settled(&with(Some("ipam-pool-1")));
    assert_eq!(aws.observed.load_balancers[0].pools.ipam.as_deref(), Some("ipam-pool-1"));
    let mut steps = Vec::new();
    for pool in [Some("ipam-pool-2"), None, Some("ipam-pool-1")] {
        let mut stack = with(pool);
        stack.load_balancer.as_mut().unwrap().tags.insert("pool".to_owned(), pool.unwrap_or_default().to_owned());
        let plan = plan(&stack, &aws.observed);
        steps.extend(plan.steps().iter().map(|step| step.action.to_string()));
        aws.settle(&stack, 1);
    }
    insta::assert_snapshot!(steps.join("\n"), @"
    tag load balancer k8s-shop-web-17d71bc701: pool=ipam-pool-2
    take the public addresses of load balancer k8s-shop-web-17d71bc701 from IPAM pool ipam-pool-2
    take the public addresses of load balancer k8s-shop-web-17d71bc701 from Amazon's
    tag load balancer k8s-shop-web-17d71bc701: pool=
    tag load balancer k8s-shop-web-17d71bc701: pool=ipam-pool-1
    take the public addresses of load balancer k8s-shop-web-17d71bc701 from IPAM pool ipam-pool-1
    ");
}
