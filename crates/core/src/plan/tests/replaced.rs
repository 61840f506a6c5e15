//! A load balancer of another scheme: the old one continues to serve until the new one does, wherever the change stops.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    aws::Aws,
    plan,
    stacks::{choice, stack},
};
use crate::{
    model::*,
    plan::{AttributesOf, Plan, Planned, StepAction, Wait},
};

/// The same stack with a load balancer that is public.
pub(super) fn public(mut stack: Stack) -> Stack {
    let balancer = stack.load_balancer.as_mut().unwrap();
    balancer.scheme = Scheme::InternetFacing;
    balancer.name = Value::Known(LoadBalancerName::new("public").unwrap());
    for group in stack.target_groups.values_mut() {
        let second = group.second_name.known().unwrap().to_string().replace("second", "public");
        group.second_name = Value::Known(TargetGroupName::new(second).unwrap());
    }
    // Target groups of other owners serve one load balancer too, and no plan can make them serve two.
    let none = || Action::FixedResponse { content_type: None, message_body: None, status_code: "503".to_owned() };
    let foreign = |action: &Action<TargetGroupReference>| {
        action.target_groups().any(|group| matches!(group, TargetGroupReference::Foreign(_)))
    };
    for listener in stack.listeners.values_mut() {
        let actions = listener.rules.iter_mut().map(|rule| &mut rule.action).chain([&mut listener.default_action]);
        actions.filter(|action| foreign(action)).for_each(|action| *action = none());
    }
    stack
}

/// Brings about the thing that a plan waits for.
pub(super) fn wait(aws: &mut Aws, plan: &Plan) {
    aws.observed.expired.clear();
    for wait in &plan.waits {
        match wait {
            Wait::LoadBalancerActive => activate(aws),
            Wait::RetainOld(arn) | Wait::Protected(arn) => drop(aws.observed.expired.insert(arn.clone())),
            // Others are brought about elsewhere.
            _ => {}
        }
    }
}

fn activate(aws: &mut Aws) {
    for balancer in &mut aws.observed.load_balancers {
        balancer.state = LoadBalancerState::Active;
    }
}

/// Returns the serving parts of a load balancer: its listeners, the target groups that they name, and their bindings.
fn serving(aws: &Aws, arn: &LoadBalancerArn) -> Option<(ObservedLoadBalancer, Vec<TargetGroupArn>, Vec<ObjectName>)> {
    let balancer = aws.observed.load_balancers.iter().find(|balancer| balancer.arn == *arn)?;
    let named: BTreeSet<&TargetGroupArn> = balancer.target_groups().collect();
    let groups = aws.observed.target_groups.iter().map(|group| group.arn.clone()).filter(|arn| named.contains(arn));
    let bindings = aws.observed.bindings.iter().filter(|b| named.contains(&b.target_group) && !b.deleting);
    Some((balancer.clone(), groups.collect(), bindings.map(|binding| binding.name.clone()).collect()))
}

/// Plans and runs, at most `stops[n]` steps of the n-th plan, as if the process ended then, until nothing is left to do.
pub(super) fn converge(aws: &mut Aws, wanted: &Stack, stops: &[usize]) {
    let balancer = wanted.load_balancer.as_ref().unwrap();
    let old: Vec<LoadBalancerArn> = aws.observed.replaced(balancer).map(|balancer| balancer.arn.clone()).collect();
    let before: Vec<_> = old.iter().map(|arn| serving(aws, arn)).collect();
    let mut stops = stops.iter();
    for _ in 0..40 {
        let next = plan(wanted, &aws.observed);
        assert_eq!(next, plan(wanted, &aws.observed));
        if next == Plan::empty() {
            return;
        }
        aws.begin_plan(&next);
        let most = stops.next().copied().unwrap_or(usize::MAX);
        for step in next.steps.iter().take(most) {
            if let StepAction::DeleteLoadBalancer { arn, .. } = &step.action {
                let current = aws.observed.current(balancer).expect("one serves");
                assert!(current.is_active() && aws.observed.expired.contains(arn), "{arn} is deleted too early");
            }
            aws.apply(wanted, &step.action).unwrap_or_else(|refused| panic!("{}: {refused}", step.action));
            assert!(aws.observed.published(balancer).is_some(), "clients have no host name");
            for (arn, before) in old.iter().zip(&before) {
                let now = serving(aws, arn);
                assert!(now.is_none() || now == *before, "{arn} is not as it was");
            }
        }
        if most >= next.steps.len() {
            wait(aws, &next);
        }
        aws.observed.bindings.retain(|binding| !binding.deleting);
    }
    panic!("there is no end to it: {:?}", plan(wanted, &aws.observed));
}

pub(super) fn made(stack: &Stack) -> Aws {
    let mut aws = Aws::with(stack);
    activate(&mut aws);
    aws
}

fn schemes(aws: &Aws) -> Vec<Scheme> {
    aws.observed.load_balancers.iter().map(|balancer| balancer.scheme).collect()
}

/// Returns the numbers of resources in AWS, which are the same for a stack that never had another load balancer.
fn shape(aws: &Aws) -> (usize, usize, usize, usize) {
    let ObservedStack { load_balancers, target_groups, security_groups, bindings, .. } = &aws.observed;
    (load_balancers.len(), target_groups.len(), security_groups.len(), bindings.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn wherever_it_stops_the_old_one_serves_until_the_new_one_does(
        before in choice(), after in choice(), stops in prop::collection::vec(0..6_usize, 0..12),
    ) {
        let (before, after) = (stack(&before), public(stack(&after)));
        let mut aws = made(&before);
        converge(&mut aws, &after, &stops);
        prop_assert_eq!(schemes(&aws), [Scheme::InternetFacing]);
        prop_assert_eq!(shape(&aws), shape(&made(&after)));
        let port = |listener: &ObservedListener| listener.port;
        let ports: Vec<u16> = aws.observed.load_balancers[0].known_listeners().map(port).collect();
        prop_assert_eq!(ports, after.listeners.keys().copied().collect::<Vec<_>>());
    }

    #[test]
    fn who_changes_their_mind_keeps_what_serves(
        first in choice(), other in choice(), stop in 0..30_usize, stops in prop::collection::vec(0..6_usize, 0..6),
    ) {
        let (first, other) = (stack(&first), public(stack(&other)));
        let mut aws = made(&first);
        let kept = aws.observed.load_balancers[0].arn.clone();
        let next = plan(&other, &aws.observed);
        aws.begin_plan(&next);
        for step in next.steps.iter().take(stop) {
            aws.apply(&other, &step.action).unwrap();
        }
        converge(&mut aws, &first, &stops);
        prop_assert_eq!(&aws.observed.load_balancers[0].arn, &kept);
        prop_assert_eq!(shape(&aws), shape(&made(&first)));
    }
}

fn listed(plan: &Plan) -> String {
    let steps = plan.steps.iter().map(|step| step.action.to_string());
    steps.chain(plan.waits.iter().map(|wait| format!("({wait})"))).collect::<Vec<_>>().join("\n")
}

#[test]
fn one_step_after_the_other() {
    let before = super::steps::built(super::stacks::SAMPLE);
    let after = public(before.clone());
    let mut aws = made(&before);
    let old = aws.observed.load_balancers[0].arn.clone();
    let first = plan(&after, &aws.observed);
    insta::assert_snapshot!(listed(&first), @"
    create target group k8s-shop-web-69efa7b2f4 for shop/web-web:80
    create TargetGroupBinding shop/k8s-shop-web-69efa7b2f4
    create load balancer public
    create listener HTTP 80
    (waiting for the new load balancer to serve)
    ");
    aws.run(&after, &first);
    let waiting = plan(&after, &aws.observed);
    insta::assert_snapshot!(listed(&waiting), @"(waiting for the new load balancer to serve)");
    let published = |aws: &Aws| aws.observed.published(after.load_balancer.as_ref().unwrap()).unwrap().scheme;
    assert_eq!(published(&aws), Scheme::Internal);
    aws.observed.load_balancers[1].state = LoadBalancerState::Active;
    assert_eq!(published(&aws), Scheme::InternetFacing);
    let holding = plan(&after, &aws.observed);
    assert_eq!(
        holding,
        Plan { passed_over: holding.passed_over.clone(), ..Plan::of(Vec::new(), [Wait::RetainOld(old.clone())]) }
    );
    aws.observed.expired = BTreeSet::from([old]);
    let last = plan(&after, &aws.observed);
    insta::assert_snapshot!(listed(&last), @"
    delete load balancer k8s-shop-web-63400ea3d5 with its listeners and rules
    delete TargetGroupBinding shop/k8s-shop-web-8b744f0654
    (waiting for TargetGroupBinding shop/k8s-shop-web-8b744f0654 to be gone)
    ");
    aws.run(&after, &last);
    aws.observed.bindings.retain(|binding| !binding.deleting);
    let groups = plan(&after, &aws.observed);
    insta::assert_snapshot!(listed(&groups), @"delete target group k8s-shop-web-8b744f0654");
    aws.run(&after, &groups);
    assert_eq!(plan(&after, &aws.observed), Plan::empty());
}

fn protect(aws: &mut Aws, value: &str) {
    let attributes = aws.observed.load_balancers[0].attributes.get_or_insert_default();
    attributes.insert(DELETION_PROTECTION.to_owned(), value.to_owned());
}

#[test]
fn a_protected_load_balancer_that_another_replaces_stays_until_its_protection_is_off() {
    let before = super::steps::built(super::stacks::SAMPLE);
    let mut after = public(before.clone());
    let mut aws = made(&before);
    let old = BTreeSet::from([aws.observed.load_balancers[0].arn.clone()]);
    let first = plan(&after, &aws.observed);
    aws.run(&after, &first);
    activate(&mut aws);
    aws.observed.expired = old.clone();
    protect(&mut aws, "true");
    let kept = Wait::Protected(old.first().unwrap().clone());
    let next = plan(&after, &aws.observed);
    assert_eq!((next.steps, next.waits), (Vec::new(), BTreeSet::from([kept.clone()])));
    assert_eq!(
        kept.to_string(),
        format!("{}, replaced by another load balancer, stays: it is protected from deletion", old.first().unwrap())
    );
    // The members say that it may go.
    let balancer = after.load_balancer.as_mut().unwrap();
    balancer.attributes.insert(DELETION_PROTECTION.to_owned(), "false".to_owned());
    let kinds = |aws: &Aws| {
        let steps = plan(&after, &aws.observed).steps;
        let of_old = steps.iter().filter(|step| match &step.action {
            StepAction::ModifyAttributes { of: AttributesOf::LoadBalancer(Some(arn)), .. } => old.contains(arn),
            StepAction::DeleteLoadBalancer { .. } => true,
            _ => false,
        });
        of_old.map(|step| step.action.kind()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&aws), ["ModifyAttributes", "DeleteLoadBalancer"]);
    protect(&mut aws, "false");
    assert_eq!(kinds(&aws), ["DeleteLoadBalancer"]);
}

#[test]
fn what_a_replaced_load_balancer_does_not_lead_to_goes_before_it() {
    let before = super::steps::built(super::stacks::SAMPLE);
    let after = public(before.clone());
    let mut aws = made(&before);
    let first = plan(&after, &aws.observed);
    aws.run(&after, &first);
    activate(&mut aws);
    aws.observed.expired = BTreeSet::from([aws.observed.load_balancers[0].arn.clone()]);
    // Of a member that has left the group: nothing names it any more.
    let left = ObservedTargetGroup {
        arn: TargetGroupArn::new("arn:left"),
        name: "left".to_owned(),
        ..aws.observed.target_groups[0].clone()
    };
    aws.observed.target_groups.push(left);
    let deletions = |aws: &Aws| {
        let steps = plan(&after, &aws.observed).steps;
        let deletions = steps.iter().filter(|step| step.action.kind().starts_with("Delete"));
        deletions.map(|step| step.action.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        deletions(&aws),
        [
            "delete target group left",
            "delete load balancer k8s-shop-web-63400ea3d5 with its listeners and rules",
            "delete TargetGroupBinding shop/k8s-shop-web-8b744f0654"
        ]
    );
    // What it leads to is read first.
    aws.observed.load_balancers[0].listeners = None;
    assert!(matches!(crate::plan::plan(&after, &aws.observed), Planned::Need(_)));
}

#[test]
fn the_protection_is_switched_off_only_where_who_goes_says_so() {
    let before = super::steps::built(super::stacks::SAMPLE);
    let mut aws = made(&before);
    protect(&mut aws, "true");
    let of = |unprotect: bool| {
        let gone = Stack { unprotect, ..Stack::empty(before.id.clone()) };
        let steps = plan(&gone, &aws.observed).steps;
        steps.iter().take(2).map(|step| step.action.kind()).collect::<Vec<_>>()
    };
    assert_eq!(of(true), ["ModifyAttributes", "DeleteLoadBalancer"]);
    assert_eq!(of(false)[0], "DeleteLoadBalancer");
}

/// Returns the sample with rules that allow these blocks on all ports of its listeners.
fn open_to(mut stack: Stack, blocks: &[&str]) -> Stack {
    let ports: Vec<u16> = stack.listeners.keys().copied().collect();
    let group = stack.security_group.as_mut().unwrap();
    let sample = group.ingress[0].clone();
    let rule = |port: u16, block: &str| SecurityGroupRule {
        from_port: Some(i32::from(port)),
        to_port: Some(i32::from(port)),
        source: Source::Ipv4(block.to_owned()),
        ..sample.clone()
    };
    group.ingress = ports.iter().flat_map(|port| blocks.iter().map(|block| rule(*port, block))).collect();
    stack
}

/// Plans and runs until nothing is left to do but to wait for others; the checks hold after each step.
fn walk(aws: &mut Aws, wanted: &Stack, check: impl Fn(&ObservedStack, &str)) {
    for _ in 0..20 {
        let next = plan(wanted, &aws.observed);
        if next.steps.is_empty() && next.waits.iter().all(|wait| matches!(wait, Wait::Protected(_))) {
            return;
        }
        aws.begin_plan(&next);
        for step in &next.steps {
            aws.apply(wanted, &step.action).unwrap_or_else(|refused| panic!("{}: {refused}", step.action));
            check(&aws.observed, &step.action.to_string());
        }
        wait(aws, &next);
        aws.observed.bindings.retain(|binding| !binding.deleting);
    }
    panic!("there is no end to it: {:?}", plan(wanted, &aws.observed));
}

fn is_public(observed: &ObservedStack) -> bool {
    observed.load_balancers.iter().any(|balancer| balancer.scheme == Scheme::InternetFacing)
}

#[test]
fn no_internet_facing_load_balancer_stands_behind_a_rule_that_the_stack_does_not_want() {
    let sample = super::steps::built(super::stacks::SAMPLE);
    let before = open_to(sample.clone(), &["0.0.0.0/0"]);
    let after = open_to(public(sample.clone()), &["203.0.113.0/24"]);
    let wanted = &after.security_group.as_ref().unwrap().ingress;
    let check = |observed: &ObservedStack, step: &str| {
        let open = &observed.security_groups[0].ingress;
        assert!(!open.is_empty(), "nobody gets in after {step}");
        let surplus: Vec<_> = open.iter().filter(|rule| !wanted.contains(rule)).collect();
        assert!(!is_public(observed) || surplus.is_empty(), "{surplus:?} after {step}");
    };
    for protected in [false, true] {
        let mut aws = made(&before);
        if protected {
            protect(&mut aws, "true");
        }
        walk(&mut aws, &after, check);
        assert_eq!(aws.observed.load_balancers.len(), if protected { 2 } else { 1 });
    }
    // The sources become fewer while the old one is still there.
    let mut aws = made(&before);
    let first = open_to(public(sample), &["0.0.0.0/0"]);
    let flip = plan(&first, &aws.observed);
    aws.run(&first, &flip);
    let narrowed = plan(&after, &aws.observed);
    let kinds: Vec<&str> = narrowed.steps.iter().map(|step| step.action.kind()).collect();
    assert_eq!(kinds, ["AuthorizeIngress", "RevokeIngress"]);
}

#[test]
fn a_port_that_only_the_old_load_balancer_has_stays_open_until_that_is_gone_or_stays_for_its_protection_alone() {
    let sample = super::steps::built(super::stacks::SAMPLE);
    let mut two = sample.clone();
    let second = Listener { port: 8080, ..two.listeners[&80].clone() };
    two.listeners.insert(8080, second);
    let before = open_to(two, &["0.0.0.0/0"]);
    let after = open_to(public(sample), &["0.0.0.0/0"]);
    for protected in [false, true] {
        let mut aws = made(&before);
        if protected {
            protect(&mut aws, "true");
        }
        walk(&mut aws, &after, |observed, step| {
            let serves = |b: &ObservedLoadBalancer| b.listener(8080).is_some() && !observed.expired.contains(&b.arn);
            let is_open = observed.security_groups[0].ingress.iter().any(|rule| rule.from_port == Some(8080));
            assert!(is_open || !observed.load_balancers.iter().any(serves), "closed after {step}");
        });
        assert_eq!(aws.observed.security_groups[0].ingress.len(), 1, "{protected}");
    }
}
