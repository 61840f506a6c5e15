//! The Network Load Balancer in front of an Application Load Balancer.

use std::collections::{BTreeMap, BTreeSet};

use super::{aws::Aws, plan, rules};
use crate::{
    model::*,
    plan::{Plan, StepAction, Wait},
};

/// A stack with these listeners, with or without a front that has these ports, each with the one behind.
fn stack(listeners: &[u16], front: Option<&[(u16, u16)]>) -> Stack {
    let answer = || Action::FixedResponse { content_type: None, message_body: None, status_code: "404".to_owned() };
    let mut stack = rules::stack(Vec::new(), answer());
    let listener = stack.listeners.values().next().cloned().unwrap();
    stack.listeners = listeners.iter().map(|port| (*port, Listener { port: *port, ..listener.clone() })).collect();
    let behind = stack.load_balancer.as_ref().unwrap();
    stack.frontend = front.map(|ports| {
        let name = |text: &str| Value::Known(LoadBalancerName::new(text).unwrap());
        let load_balancer = LoadBalancer {
            kind: LoadBalancerKind::Network,
            name: name("front"),
            tags: tags(&ResourceId::frontend()),
            scheme: Scheme::Internal,
            attributes: Attributes::new(),
            ..behind.clone()
        };
        let listeners = ports.iter().map(|(port, target_port)| (*port, front_listener(*port, *target_port, behind)));
        let listeners = listeners.collect();
        Box::new(Frontend { load_balancer, second_name: name("front-2"), listeners })
    });
    stack
}

fn tags(resource: &ResourceId) -> Tags {
    StackId::Ingress(ObjectName::new("shop", "web")).resource_tags("demo", resource, &Tags::new(), &Tags::new())
}

fn front_listener(port: u16, target_port: u16, behind: &LoadBalancer) -> FrontendListener {
    let name = |text: String| Value::Known(TargetGroupName::new(text).unwrap());
    let resource = ResourceId::frontend_target_group(port);
    let target_group = FrontendTargetGroup {
        tags: tags(&resource),
        resource,
        name: name(format!("front-{port}")),
        second_name: name(format!("front-{port}-second")),
        port,
        vpc: Value::Known(VpcId::new("vpc-1")),
        health_check: check("/"),
    };
    FrontendListener {
        target_port,
        tags: tags(&ResourceId::frontend_listener(port)),
        target_group,
        cause: behind.cause.clone(),
    }
}

fn check(path: &str) -> HealthCheck {
    HealthCheck {
        port: "traffic-port".to_owned(),
        protocol: HealthCheckProtocol::Http,
        path: Some(path.to_owned()),
        interval_seconds: 15,
        timeout_seconds: 5,
        healthy_threshold: 2,
        unhealthy_threshold: 2,
        matcher: Some(Matcher::Http("200".to_owned())),
    }
}

/// Returns the ports in front, each with the load balancer and the port that it leads to.
fn leads_to(aws: &Aws) -> BTreeMap<(Scheme, u16), (Scheme, u16)> {
    let front = &aws.observed.frontend;
    let mut all = BTreeMap::new();
    for balancer in &front.load_balancers {
        for listener in balancer.known_listeners() {
            let group = listener.target_groups().next().unwrap();
            let target = front.targets[group].iter().next().expect("a listener leads to a target");
            let behind = aws.observed.load_balancers.iter().find(|b| b.arn == target.load_balancer);
            let behind = behind.expect("a target exists");
            assert!(behind.is_active() && behind.listener(target.port).is_some(), "a target serves");
            all.insert((balancer.scheme, listener.port), (behind.scheme, target.port));
        }
    }
    all
}

fn activate(aws: &mut Aws) {
    let ObservedStack { load_balancers, frontend, .. } = &mut aws.observed;
    for balancer in load_balancers.iter_mut().chain(&mut frontend.load_balancers) {
        balancer.state = LoadBalancerState::Active;
    }
}

/// Plans and runs until nothing is left to do, and returns the steps. After each step, whatever leads somewhere leads to a load
/// balancer that serves.
fn converge(aws: &mut Aws, wanted: &Stack) -> Vec<String> {
    let mut steps = Vec::new();
    for _ in 0..20 {
        aws.observed.states_are_read = true;
        let next = plan(wanted, &aws.observed);
        if next == Plan::empty() {
            return steps;
        }
        aws.begin_plan(&next);
        for step in &next.steps {
            aws.apply(wanted, &step.action).unwrap_or_else(|refused| panic!("{}: {refused}", step.action));
            leads_to(aws);
            steps.push(step.action.kind().to_owned());
        }
        aws.observed.expired.clear();
        for wait in &next.waits {
            match wait {
                Wait::LoadBalancerActive => activate(aws),
                Wait::RetainOld(arn) => drop(aws.observed.expired.insert(arn.clone())),
                _ => {}
            }
        }
    }
    panic!("there is no end to it: {:?}", plan(wanted, &aws.observed));
}

fn made(wanted: &Stack) -> Aws {
    let mut aws = Aws::default();
    converge(&mut aws, wanted);
    activate(&mut aws);
    assert_eq!(plan(wanted, &aws.observed), Plan::empty());
    aws
}

#[test]
fn it_comes_behind_and_leads_to_a_load_balancer_that_serves() {
    let wanted = stack(&[80, 443], Some(&[(8080, 80), (443, 443)]));
    let mut aws = Aws::default();
    let steps = converge(&mut aws, &wanted);
    let of_front: Vec<&str> =
        steps.iter().map(String::as_str).skip_while(|kind| *kind != "CreateFrontendTargetGroup").collect();
    assert_eq!(
        of_front,
        [
            "CreateFrontendTargetGroup",
            "CreateFrontendTargetGroup",
            "CreateLoadBalancer",
            "RegisterLoadBalancer",
            "RegisterLoadBalancer",
            "CreateListener",
            "CreateListener"
        ]
    );
    let internal = |port| (Scheme::Internal, port);
    assert_eq!(leads_to(&aws), BTreeMap::from([(internal(443), internal(443)), (internal(8080), internal(80))]));
    // As a controller that has just started sees it.
    aws.settle(&wanted, 1);
}

#[test]
fn a_port_that_leads_elsewhere_gets_another_target_group_first() {
    let mut aws = made(&stack(&[80, 443], Some(&[(8080, 80)])));
    let steps = converge(&mut aws, &stack(&[80, 443], Some(&[(8080, 443)])));
    assert_eq!(
        steps,
        [
            "CreateFrontendTargetGroup",
            "RegisterLoadBalancer",
            "ModifyListener",
            "DeregisterLoadBalancer",
            "DeleteTargetGroup"
        ]
    );
    assert_eq!(leads_to(&aws), BTreeMap::from([((Scheme::Internal, 8080), (Scheme::Internal, 443))]));
}

#[test]
fn ports_come_after_their_listeners_and_go_before_them() {
    let mut aws = made(&stack(&[80], Some(&[(80, 80)])));
    let steps = converge(&mut aws, &stack(&[80, 443], Some(&[(80, 80), (443, 443)])));
    assert_eq!(steps.iter().filter(|kind| *kind == "CreateListener").count(), 2);
    assert_eq!(leads_to(&aws).len(), 2);
    let steps = converge(&mut aws, &stack(&[80], Some(&[(80, 80)])));
    assert_eq!(steps, ["DeleteListener", "DeleteListener", "DeregisterLoadBalancer", "DeleteTargetGroup"]);
    assert_eq!(leads_to(&aws).len(), 1);
}

#[test]
fn health_checks_and_tags_change_in_place() {
    let mut wanted = stack(&[80], Some(&[(80, 80)]));
    let mut aws = made(&wanted);
    let front = wanted.frontend.as_mut().unwrap();
    let listener = front.listeners.get_mut(&80).unwrap();
    listener.target_group.health_check = check("/up");
    listener.target_group.tags.insert("team".to_owned(), "a".to_owned());
    listener.tags.insert("team".to_owned(), "a".to_owned());
    front.load_balancer.tags.insert("team".to_owned(), "a".to_owned());
    assert_eq!(converge(&mut aws, &wanted), ["AddTags", "ModifyTargetGroup", "AddTags", "AddTags"]);
}

#[test]
fn another_scheme_in_front_is_another_load_balancer_that_takes_over() {
    let mut wanted = stack(&[80], Some(&[(80, 80)]));
    let mut aws = made(&wanted);
    wanted.frontend.as_mut().unwrap().load_balancer.scheme = Scheme::InternetFacing;
    let old = aws.observed.frontend.load_balancers[0].arn.clone();
    let steps = converge(&mut aws, &wanted);
    assert_eq!(
        steps,
        [
            "CreateFrontendTargetGroup",
            "CreateLoadBalancer",
            "RegisterLoadBalancer",
            "CreateListener",
            "DeleteLoadBalancer",
            "DeregisterLoadBalancer",
            "DeleteTargetGroup"
        ]
    );
    assert!(aws.observed.frontend.load_balancers.iter().all(|balancer| balancer.arn != old));
    assert_eq!(leads_to(&aws), BTreeMap::from([((Scheme::InternetFacing, 80), (Scheme::Internal, 80))]));
}

/// It leads to the one whose host name is published, and the old one is not deleted before.
#[test]
fn another_scheme_behind_is_led_to_when_it_is_published() {
    let mut wanted = stack(&[80], Some(&[(80, 80)]));
    let mut aws = made(&wanted);
    let behind = wanted.load_balancer.as_mut().unwrap();
    behind.scheme = Scheme::InternetFacing;
    behind.name = Value::Known(LoadBalancerName::new("public").unwrap());
    let member = wanted.load_balancer.as_ref().unwrap().cause.object.clone();
    aws.observed.arriving = BTreeSet::from([member]);
    for _ in 0..4 {
        aws.observed.states_are_read = true;
        let next = plan(&wanted, &aws.observed);
        aws.run(&wanted, &next);
        activate(&mut aws);
        aws.observed.expired = aws.observed.load_balancers.iter().map(|balancer| balancer.arn.clone()).collect();
        let old = BTreeMap::from([((Scheme::Internal, 80), (Scheme::Internal, 80))]);
        assert_eq!(leads_to(&aws), old, "it is not published yet");
    }
    aws.observed.arriving.clear();
    aws.observed.expired.clear();
    // The plan that takes the old one out knows that its hold begins: no other one follows by itself.
    let last = loop {
        let next = plan(&wanted, &aws.observed);
        aws.run(&wanted, &next);
        if next.steps.iter().any(|step| step.action.kind() == "DeregisterLoadBalancer") {
            break next;
        }
    };
    let old = aws.observed.load_balancers.iter().find(|balancer| balancer.scheme == Scheme::Internal).unwrap();
    assert_eq!(last.waits, BTreeSet::from([Wait::RetainOld(old.arn.clone())]));
    let steps = converge(&mut aws, &wanted);
    assert_eq!(steps, ["DeleteLoadBalancer"]);
    assert_eq!(leads_to(&aws), BTreeMap::from([((Scheme::Internal, 80), (Scheme::InternetFacing, 80))]));
    assert_eq!(aws.observed.load_balancers.len(), 1);
}

#[test]
fn it_is_switched_off_and_on_and_deleted_before_what_is_behind() {
    let (with, without) = (stack(&[80], Some(&[(80, 80)])), stack(&[80], None));
    let mut aws = made(&with);
    assert_eq!(converge(&mut aws, &without), ["DeleteLoadBalancer", "DeregisterLoadBalancer", "DeleteTargetGroup"]);
    assert!(aws.observed.frontend.is_empty() && aws.observed.load_balancers.len() == 1);
    converge(&mut aws, &with);
    assert_eq!(leads_to(&aws).len(), 1);
    let steps = converge(&mut aws, &Stack::empty(with.id.clone()));
    assert_eq!(
        &steps[..4],
        ["DeleteLoadBalancer", "DeregisterLoadBalancer", "DeleteTargetGroup", "DeleteLoadBalancer"]
    );
    assert!(aws.observed.is_empty());
}

/// What a frozen member may have requested stays.
#[test]
fn while_a_member_is_frozen_nothing_goes_in_front() {
    let with = stack(&[80, 443], Some(&[(80, 80), (443, 443)]));
    let aws = made(&with);
    let other = ObjectReference::ingress(&ObjectName::new("shop", "other"));
    let frozen = FrozenMembers { members: [other.clone()].into(), order: vec![other], ..FrozenMembers::default() };
    for front in [None, Some(&[(80_u16, 80_u16)][..])] {
        let wanted = Stack { frozen: frozen.clone(), ..stack(&[80, 443], front) };
        let next = plan(&wanted, &aws.observed);
        let destructive = |action: &StepAction| action.is_destructive();
        assert!(!next.steps.iter().any(|step| destructive(&step.action)), "{next:?}");
    }
}
