//! Listeners that stay for a while after others have taken their place.

use std::collections::{BTreeMap, BTreeSet};

use super::{aws::Aws, frozen, plan, stacks::SAMPLE, steps};
use crate::{
    model::*,
    plan::{Plan, StepAction, Wait},
};

/// Returns the stack of the sample, open to all, with these ports.
fn on(ports: &str) -> Stack {
    let settings = format!(
        "alb.ingress.kubernetes.io/target-type: ip, alb.ingress.kubernetes.io/scheme: internet-facing, \
         alb.ingress.kubernetes.io/listen-ports: '[{ports}]'"
    );
    steps::built(&SAMPLE.replace("alb.ingress.kubernetes.io/target-type: ip", &settings))
}

const OLD: &str = r#"{"HTTP": 80}"#;
const NEW: &str = r#"{"HTTP": 8080}"#;

pub(super) fn listed(plan: &Plan) -> String {
    let steps = plan.steps.iter().map(|step| step.action.to_string());
    steps.chain(plan.waits.iter().map(|wait| format!("({wait})"))).collect::<Vec<_>>().join("\n")
}

fn serving(before: &Stack) -> Aws {
    let mut aws = Aws::with(before);
    aws.observed.retains_listeners = true;
    aws.observed.load_balancers.iter_mut().for_each(|balancer| balancer.state = LoadBalancerState::Active);
    aws
}

#[test]
fn a_listener_and_its_sources_stay_until_clients_use_the_one_on_the_other_port() {
    let (before, after) = (on(OLD), on(NEW));
    let mut aws = serving(&before);
    let first = plan(&after, &aws.observed);
    insta::assert_snapshot!(listed(&first), @"
    create listener HTTP 8080
    open security group sg-1: tcp 8080 from 0.0.0.0/0
    (waiting for clients to use the new listener before the one on port 80 goes)
    ");
    aws.run(&after, &first);
    aws.observed.retained_ports = BTreeMap::from([(80, false)]);
    let holding = plan(&after, &aws.observed);
    insta::assert_snapshot!(listed(&holding), @"(waiting for clients to use the new listener before the one on port 80 goes)");
    aws.observed.retained_ports = BTreeMap::from([(80, true)]);
    let last = plan(&after, &aws.observed);
    insta::assert_snapshot!(listed(&last), @"
    delete listener 80 with its rules
    close security group sg-1: tcp 80 from 0.0.0.0/0
    ");
    aws.run(&after, &last);
    aws.observed.retained_ports.clear();
    assert_eq!(plan(&after, &aws.observed), Plan::empty());
}

#[test]
fn the_time_of_a_listener_counts_from_when_the_other_one_is_there() {
    let mut aws = serving(&on(OLD));
    // Creating the other one has failed for that long.
    aws.observed.retained_ports = BTreeMap::from([(80, true)]);
    let planned = plan(&on(NEW), &aws.observed);
    assert!(
        planned.steps.iter().any(|step| step.action.creates_on() == Some(8080))
            && planned.waits.contains(&Wait::RetainListener(80))
    );
    assert!(!planned.steps.iter().any(|step| matches!(step.action, StepAction::DeleteListener { .. })));
}

#[test]
fn a_listener_that_nothing_replaces_goes_at_once() {
    let aws = serving(&on(&format!("{OLD}, {NEW}")));
    let only = plan(&on(OLD), &aws.observed);
    assert!(only.steps.iter().any(|step| matches!(step.action, StepAction::DeleteListener { port: 8080, .. })));
    assert!(only.waits.is_empty());
}

#[test]
fn where_aws_has_no_room_for_another_listener_none_is_retained() {
    let mut aws = serving(&on(OLD));
    aws.observed.room.listeners = Some(1);
    let planned = plan(&on(NEW), &aws.observed);
    assert!(planned.steps.iter().any(|step| matches!(step.action, StepAction::DeleteListener { port: 80, .. })));
}

#[test]
fn a_quota_that_is_reached_closes_no_port_before_its_listener_is_gone() {
    let mut aws = serving(&on(OLD));
    aws.observed.room.rules = Some(100);
    insta::assert_snapshot!(listed(&plan(&on(NEW), &aws.observed)), @"
    create listener HTTP 8080
    open security group sg-1: tcp 8080 from 0.0.0.0/0
    delete listener 80 with its rules
    close security group sg-1: tcp 80 from 0.0.0.0/0
    ");
}

#[test]
fn a_replaced_load_balancer_keeps_its_time_until_no_member_is_frozen() {
    let members = |scheme: &str, broken: &str| {
        let scheme = format!("alb.ingress.kubernetes.io/scheme: {scheme}");
        [("a", scheme.clone()), ("b", if broken.is_empty() { scheme } else { broken.to_owned() })]
    };
    fn borrowed<'a>(members: &'a [(&'a str, String); 2]) -> [(&'a str, &'a str); 2] {
        members.each_ref().map(|(name, annotations)| (*name, annotations.as_str()))
    }
    let before = members("internal", "");
    let mut aws = frozen::agreed(&borrowed(&before), true);
    aws.observed.load_balancers.iter_mut().for_each(|balancer| balancer.state = LoadBalancerState::Active);
    let old = aws.observed.load_balancers[0].arn.clone();
    // It breaks when the other load balancer exists already.
    let public = members("internet-facing", "");
    let stack = frozen::built(&borrowed(&public), &[], &aws.observed);
    let first = plan(&stack, &aws.observed);
    aws.run(&stack, &first);
    aws.observed.load_balancers.iter_mut().for_each(|balancer| balancer.state = LoadBalancerState::Active);
    // As facts have it: first the one whose host name is published.
    aws.observed.load_balancers.reverse();
    let broken = members("internet-facing", "alb.ingress.kubernetes.io/listen-ports: nonsense");
    let stack = frozen::built(&borrowed(&broken), &[], &aws.observed);
    assert!(!stack.frozen.is_empty());
    let kept = |waits: &BTreeSet<Wait>| {
        let of_old = |wait: &&Wait| matches!(wait, Wait::Mended(arn) | Wait::RetainOld(arn) if *arn == old);
        waits.iter().filter(of_old).cloned().collect::<Vec<_>>()
    };
    // However long it takes.
    aws.observed.expired = BTreeSet::from([old.clone()]);
    let waiting = plan(&stack, &aws.observed);
    assert_eq!(kept(&waiting.waits), [Wait::Mended(old.clone())]);
    aws.observed.expired.clear();
    let mended = frozen::built(&borrowed(&public), &[], &aws.observed);
    let planned = plan(&mended, &aws.observed);
    let deletes =
        |plan: &Plan| plan.steps.iter().any(|step| matches!(step.action, StepAction::DeleteLoadBalancer { .. }));
    assert!(!deletes(&planned));
    assert_eq!(kept(&planned.waits), [Wait::RetainOld(old.clone())]);
}

#[test]
fn a_port_stays_while_something_redirects_to_it_and_its_time_begins_after_that() {
    let secure = r#"{"HTTP": 80}, {"HTTPS": 443}]', alb.ingress.kubernetes.io/ssl-redirect: '443',
        alb.ingress.kubernetes.io/certificate-arn: 'arn:aws:acm:eu-west-1:111122223333:certificate/a'"#;
    let built = |settings: &str| {
        let text =
            format!("alb.ingress.kubernetes.io/target-type: ip, alb.ingress.kubernetes.io/listen-ports: '[{settings}");
        steps::built(&SAMPLE.replace("alb.ingress.kubernetes.io/target-type: ip", &text))
    };
    let (before, after) = (built(secure), built(r#"{"HTTP": 80}]'"#));
    let mut aws = serving(&before);
    let first = plan(&after, &aws.observed);
    assert_eq!((first.waits.clone(), first.led_to.clone()), ([Wait::RetainListener(443)].into(), [443].into()));
    let kept = |plan: &Plan| !plan.steps.iter().any(|step| matches!(step.action, StepAction::DeleteListener { .. }));
    assert!(kept(&first));
    aws.run(&after, &first);
    aws.observed.retained_ports = BTreeMap::from([(443, false)]);
    let waiting = plan(&after, &aws.observed);
    assert_eq!((waiting.steps.len(), waiting.waits, waiting.led_to), (0, first.waits, BTreeSet::new()));
    aws.observed.retained_ports = BTreeMap::from([(443, true)]);
    assert!(!kept(&plan(&after, &aws.observed)));
}

#[test]
fn a_port_that_a_listener_goes_on_to_redirect_to_goes_at_once() {
    let away = r#", alb.ingress.kubernetes.io/actions.away: '{"type": "redirect", "redirectConfig": {"port": "8080", "statusCode": "HTTP_302"}}'"#;
    let path =
        "      - {path: /away, pathType: Exact, backend: {service: {name: away, port: {name: use-annotation}}}}\n";
    let built = |ports: &str| {
        let settings = format!(
            "alb.ingress.kubernetes.io/target-type: ip, alb.ingress.kubernetes.io/listen-ports: '[{ports}]'{away}"
        );
        let manifests = SAMPLE.replace("alb.ingress.kubernetes.io/target-type: ip", &settings);
        steps::built(&manifests.replacen("      paths:\n", &format!("      paths:\n{path}"), 1))
    };
    let mut aws = serving(&built(r#"{"HTTP": 80}, {"HTTP": 8080}"#));
    let after = built(OLD);
    let planned = plan(&after, &aws.observed);
    assert!(planned.steps.iter().any(|step| matches!(step.action, StepAction::DeleteListener { port: 8080, .. })));
    assert_eq!((planned.waits.clone(), planned.led_to.clone()), (BTreeSet::new(), BTreeSet::new()));
    aws.run(&after, &planned);
    assert_eq!(plan(&after, &aws.observed), Plan::empty());
}
