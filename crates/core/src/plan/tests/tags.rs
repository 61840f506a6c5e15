//! Tags that the objects request no longer.

use std::collections::BTreeSet;

use super::{aws::Aws, plan, steps::built};
use crate::{
    model::{
        tags::{CLUSTER, INGRESS_STACK},
        *,
    },
    plan::tag_keys,
};

fn manifests(ingress: &str, service: &str) -> String {
    format!(
        r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: shop
  annotations:
    alb.ingress.kubernetes.io/target-type: ip
    {ingress}
spec:
  ingressClassName: alb
  rules:
  - http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}
---
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  uid: 11111111-1111-1111-1111-111111111111
  annotations: {{{service}}}
spec:
  ports: [{{port: 80, targetPort: 8080}}]
"#
    )
}

const INGRESS: &str = "alb.ingress.kubernetes.io/tags: keep=1,drop=2,both=ing";
const SERVICE: &str = "alb.ingress.kubernetes.io/tags: 'svc=1,both=svc'";

fn before() -> Stack {
    built(&manifests(INGRESS, SERVICE))
}

fn after() -> Stack {
    built(&manifests("alb.ingress.kubernetes.io/tags: keep=9", "alb.ingress.kubernetes.io/tags: 'both=svc2'"))
}

/// Returns the tags of each resource other than the tags that name its owner.
fn tagged(aws: &Aws) -> Vec<String> {
    let of = |name: &str, tags: &Tags| {
        let tags =
            tags.iter().filter(|(key, _)| !key.contains(".k8s.aws/")).map(|(key, value)| format!("{key}={value}"));
        format!("{name}: {}", tags.collect::<Vec<_>>().join(","))
    };
    let [balancer] = aws.observed.load_balancers.as_slice() else { panic!() };
    let mut all = vec![of("balancer", &balancer.tags)];
    all.extend(aws.observed.security_groups.iter().map(|group| of("security group", &group.tags)));
    for listener in balancer.known_listeners() {
        all.push(of("listener", &listener.tags));
        all.extend(listener.rules.iter().map(|rule| of("rule", &rule.tags)));
    }
    all.extend(aws.observed.target_groups.iter().map(|group| of("target group", &group.tags)));
    all
}

/// Tags everything by hand, one of the keys being the controller's own elsewhere.
fn tag_by_hand(aws: &mut Aws) {
    let by_hand: Tags = ["by-hand", "svc"].map(|key| (key.to_owned(), "x".to_owned())).into();
    let observed = &mut aws.observed;
    for balancer in &mut observed.load_balancers {
        balancer.tags.extend(by_hand.clone());
        for listener in balancer.listeners.get_or_insert_default().values_mut() {
            listener.tags.extend(by_hand.clone());
            listener.rules.iter_mut().for_each(|rule| rule.tags.extend(by_hand.clone()));
        }
    }
    observed.security_groups.iter_mut().for_each(|group| group.tags.extend(by_hand.clone()));
    observed.target_groups.iter_mut().for_each(|group| drop(group.tags.insert("by-hand".to_owned(), "x".to_owned())));
}

#[test]
fn tags_that_leave_annotations_leave_aws_and_those_of_others_stay() {
    let mut aws = Aws::with(&before());
    tag_by_hand(&mut aws);
    assert_eq!(plan(&before(), &aws.observed).steps, []);
    let stack = after();
    let steps: Vec<String> = plan(&stack, &aws.observed).steps.iter().map(|step| step.action.to_string()).collect();
    insta::assert_snapshot!(steps.join("\n"), @"
    tag security group k8s-shop-web-aba6dfbc4e: keep=9
    tag target group k8s-shop-web-8b744f0654: both=svc2, keep=9
    tag load balancer k8s-shop-web-63400ea3d5: keep=9
    tag listener 80: keep=9
    tag rule 1 of listener 80: keep=9
    remove tags of security group k8s-shop-web-aba6dfbc4e: both, drop
    remove tags of target group k8s-shop-web-8b744f0654: drop, svc
    remove tags of load balancer k8s-shop-web-63400ea3d5: both, drop
    remove tags of listener 80: both, drop
    remove tags of rule 1 of listener 80: both, drop
    ");
    aws.settle(&stack, 1);
    insta::assert_snapshot!(tagged(&aws).join("\n"), @"
    balancer: by-hand=x,keep=9,svc=x
    security group: by-hand=x,keep=9,svc=x
    listener: by-hand=x,keep=9,svc=x
    rule: by-hand=x,keep=9,svc=x
    target group: both=svc2,by-hand=x,keep=9
    ");
}

#[test]
fn without_a_record_every_tag_that_nothing_asks_for_goes_but_for_those_that_lbc_leaves() {
    let mut aws = Aws::with(&before());
    tag_by_hand(&mut aws);
    let left = ["aws:cloudformation:stack-id", "kubernetes.io/cluster/demo", "kubernetes.io/service-name", "external"];
    aws.observed.load_balancers[0].tags.extend(left.map(|key| (key.to_owned(), "x".to_owned())));
    aws.observed.tag_keys = None;
    let mut stack = after();
    stack.external_tags = ["external".to_owned()].into();
    aws.settle(&stack, 1);
    insta::assert_snapshot!(tagged(&aws).join("\n"), @"
    balancer: aws:cloudformation:stack-id=x,external=x,keep=9,kubernetes.io/cluster/demo=x,kubernetes.io/service-name=x
    security group: keep=9
    listener: keep=9
    rule: keep=9
    target group: both=svc2,keep=9
    ");
    assert!(aws.observed.load_balancers[0].tags.contains_key(CLUSTER));
    assert!(aws.observed.load_balancers[0].tags.contains_key(INGRESS_STACK));
}

#[test]
fn a_tag_that_others_look_after_from_now_on_stays() {
    let mut aws = Aws::with(&before());
    let mut stack = after();
    stack.external_tags = ["drop".to_owned()].into();
    aws.settle(&stack, 1);
    assert_eq!(aws.observed.load_balancers[0].tags.get("drop").map(String::as_str), Some("2"));
    assert!(!aws.observed.load_balancers[0].tags.contains_key("both"));
}

/// The gate `ListenerRulesTagging`: listeners and rules are not looked at.
#[test]
fn what_is_not_tagged_at_all_keeps_what_it_has() {
    let mut aws = Aws::with(&before());
    aws.observed.tag_keys = None;
    let mut stack = before();
    for listener in stack.listeners.values_mut() {
        listener.tags.clear();
        listener.rules.iter_mut().for_each(|rule| rule.tags.clear());
    }
    assert_eq!(plan(&stack, &aws.observed).steps, []);
}

#[test]
fn tags_that_go_make_room_for_those_that_come() {
    let many = |prefix: &str| (0..47).map(|n| (format!("{prefix}{n}"), "x".to_owned())).collect::<Tags>();
    let mut stack = before();
    let balancer = stack.load_balancer.as_mut().unwrap();
    balancer.tags.retain(|key, _| key.contains(".k8s.aws/"));
    let tracking = balancer.tags.clone();
    balancer.tags.extend(many("old"));
    let mut aws = Aws::with(&stack);
    stack.load_balancer.as_mut().unwrap().tags = tracking.into_iter().chain(many("new")).collect();
    // More than 50 are refused by the AWS of the tests.
    aws.settle(&stack, 1);
    assert_eq!(aws.observed.load_balancers[0].tags, stack.load_balancer.unwrap().tags);
}

/// A tag that was being set when the process ended is known as the controller's own.
#[test]
fn a_tag_of_a_plan_that_was_not_finished_goes_with_the_annotation() {
    let mut aws = Aws::with(&after());
    let mut known = aws.observed.tag_keys.clone().unwrap();
    known.extend(tag_keys(&before(), &aws.observed));
    aws.observed.load_balancers[0].tags.insert("drop".to_owned(), "2".to_owned());
    assert_eq!(plan(&after(), &aws.observed).steps, []);
    aws.observed.tag_keys = Some(known);
    aws.settle(&after(), 1);
    assert!(!aws.observed.load_balancers[0].tags.contains_key("drop"));
}

#[test]
fn a_member_that_is_set_aside_keeps_its_tags_on_what_all_share() {
    let stack = before();
    let mut aws = Aws::with(&stack);
    let mut without = after();
    let owner = |name: &str| ObjectReference::ingress(&ObjectName::new("shop", name));
    without.frozen = FrozenMembers {
        services: BTreeSet::new(),
        order: vec![owner("other"), owner("web")],
        members: [owner("other")].into(),
    };
    aws.settle(&without, 1);
    insta::assert_snapshot!(tagged(&aws).join("\n"), @"
    balancer: both=ing,drop=2,keep=9
    security group: both=ing,drop=2,keep=9
    listener: both=ing,drop=2,keep=9
    rule: keep=9
    target group: both=svc2,keep=9
    ");
    // When it is back without them, they go.
    aws.settle(&after(), 1);
    assert_eq!(aws.observed.load_balancers[0].tags, after().load_balancer.unwrap().tags);
}
