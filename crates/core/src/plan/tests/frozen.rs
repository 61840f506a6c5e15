//! Frozen members of a group: whatever the others do, their resources stay.

use std::collections::BTreeSet;

use super::{aws::Aws, plan};
use crate::{
    desired::{BuildConfig, Membership, sources::ingress},
    facts::{ExistingLoadBalancer, Facts},
    model::*,
    plan::member_resources,
    snapshot::{Loaded, Snapshot, from_documents},
};

fn edge() -> StackId {
    StackId::Group("edge".to_owned())
}

pub(super) fn name(member: &str) -> ObjectName {
    ObjectName::new("shop", member)
}

pub(super) fn owner(member: &str) -> ObjectReference {
    ObjectReference::ingress(&name(member))
}

/// Returns a member with its own action and one forward, and these further annotations.
fn member(name: &str, annotations: &str) -> String {
    format!(
        r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: shop
  annotations:
    alb.ingress.kubernetes.io/group.name: edge
    alb.ingress.kubernetes.io/target-type: ip
    alb.ingress.kubernetes.io/actions.say: '{{"type": "fixed-response", "fixedResponseConfig": {{"statusCode": "200", "messageBody": "{name}"}}}}'
    {annotations}
spec:
  ingressClassName: alb
  rules:
  - http:
      paths:
      - {{path: /{name}, pathType: Exact, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
      - {{path: /{name}/say, pathType: Exact, backend: {{service: {{name: say, port: {{name: use-annotation}}}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop, uid: 11111111-1111-1111-1111-111111111111}}
spec: {{ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: alb}}
spec: {{controller: ingress.k8s.aws/alb}}
"#
    )
}

/// The stack of a group, as the controller builds it when AWS has `observed`.
pub(super) fn built(members: &[(&str, &str)], leaving: &[&str], observed: &ObservedStack) -> Stack {
    let membership = Membership {
        members: members.iter().map(|(member, _)| name(member)).collect(),
        leaving: leaving.iter().map(|member| name(member)).collect(),
        ..Membership::default()
    };
    built_as(members, observed, |_, _| membership)
}

/// As [`built`], with the members of the cluster's objects.
fn built_as(
    members: &[(&str, &str)],
    observed: &ObservedStack,
    membership: impl FnOnce(&Snapshot, &BuildConfig) -> Membership,
) -> Stack {
    let mut loaded = Loaded::default();
    for (member_name, annotations) in members {
        from_documents(&mut loaded, "manifests", &member(member_name, annotations)).unwrap();
    }
    let mut facts = Facts {
        subnets: crate::testing::discovered_subnets(&[SubnetId::new("subnet-a"), SubnetId::new("subnet-b")]),
        backend_security_group: Some(crate::facts::Fact::Known(SecurityGroupId::new(super::aws::BACKEND_GROUP))),
        ..Facts::default()
    };
    if let Some(balancer) = observed.load_balancers.first() {
        facts.existing = Some(ExistingLoadBalancer {
            kind: balancer.kind,
            scheme: balancer.scheme,
            has_security_groups: true,
            has_ipv6: false,
            has_quic: false,
            customer_owned_pool: None,
            subnets: balancer.subnets.clone(),
        });
        facts.current = Some(Box::new(observed.clone()));
        facts.protected = Some(BTreeSet::new());
    }
    let config = BuildConfig::new("demo", Value::Known(VpcId::new("vpc-1")));
    let membership = membership(&loaded.snapshot, &config);
    let built = ingress::build(&loaded.snapshot, &config, &facts, &edge(), &membership);
    built.stack.unwrap_or_else(|| panic!("{:?}", built.diagnostics))
}

/// A group in AWS, with the recorded resources of its members.
pub(super) fn agreed(members: &[(&str, &str)], remembered: bool) -> Aws {
    let stack = built(members, &[], &ObservedStack::default());
    let mut aws = Aws::with(&stack);
    if remembered {
        aws.observed.member_resources = member_resources(&stack, &aws.observed, &BTreeSet::new());
    }
    aws
}

fn rules(observed: &ObservedStack, port: u16) -> Vec<String> {
    let listener = observed.load_balancers[0].listener(port).unwrap();
    let path = |rule: &ObservedRule| match &rule.conditions[0] {
        Condition::PathPattern { values, .. } => values.join("|"),
        other => panic!("{other:?}"),
    };
    listener.rules.iter().map(path).collect()
}

fn target_groups(observed: &ObservedStack) -> BTreeSet<String> {
    observed.target_groups.iter().filter_map(|group| Some(group.resource()?.to_string())).collect()
}

const BROKEN: &str = "alb.ingress.kubernetes.io/scheme: nowhere";
const PORTS: &str = r#"alb.ingress.kubernetes.io/listen-ports: '[{"HTTP": 80}, {"HTTP": 8080}]'"#;

#[test]
fn a_member_that_breaks_changes_nothing() {
    for remembered in [true, false] {
        let aws = agreed(&[("a", ""), ("b", PORTS), ("c", "")], remembered);
        let stack = built(&[("a", ""), ("b", BROKEN), ("c", "")], &[], &aws.observed);
        assert_eq!(stack.frozen.members, [owner("b")].into());
        assert_eq!(plan(&stack, &aws.observed).steps, vec![], "remembered: {remembered}");
        // The owners are known by then, of resources in the stack at least.
        let known = member_resources(&stack, &aws.observed, &BTreeSet::new());
        assert_eq!(known.iter().any(|resources| resources.member == owner("b")), remembered);
        let counts: Vec<usize> = known.iter().map(|resources| resources.rules.len()).collect();
        assert_eq!(counts, if remembered { vec![2, 4, 2] } else { vec![2, 2] });
    }
}

#[test]
fn a_mistake_in_its_order_or_a_move_to_another_group_moves_none_of_its_rules() {
    const FIRST: &str = "alb.ingress.kubernetes.io/group.order: '-5'";
    const MIDDLE: &str = "alb.ingress.kubernetes.io/group.order: '5'";
    const LAST: &str = "alb.ingress.kubernetes.io/group.order: '10'";
    const MISTAKE: &str = "alb.ingress.kubernetes.io/group.order: last";
    let of = |snapshot: &Snapshot, config: &BuildConfig| ingress::membership(snapshot, config, &edge());
    for remembered in [true, false] {
        let aws = agreed(&[("c", FIRST), ("b", MIDDLE), ("a", LAST)], remembered);
        for changed in ["a", "b", "c"] {
            let orders = [("c", FIRST), ("b", MIDDLE), ("a", LAST)];
            let broken = orders.map(|(member, order)| (member, if member == changed { MISTAKE } else { order }));
            let stack = built_as(&broken, &aws.observed, of);
            assert_eq!(stack.frozen.members, [owner(changed)].into());
            assert_eq!(plan(&stack, &aws.observed).steps, vec![], "the order of {changed}, remembered: {remembered}");
            let moving = built_as(&orders, &aws.observed, |snapshot, config| {
                let mut membership = of(snapshot, config);
                membership.members.retain(|member| *member != name(changed));
                membership.leaving.push(name(changed));
                membership.moving.insert(name(changed));
                membership.freeze_moving(&name(changed));
                membership
            });
            assert_eq!(moving.frozen.members, [owner(changed)].into());
            assert_eq!(plan(&moving, &aws.observed).steps, vec![], "{changed} moves, remembered: {remembered}");
        }
    }
    // Others find their places around it.
    let mut aws = agreed(&[("a", FIRST), ("b", MIDDLE), ("c", LAST)], true);
    let now = [("a", LAST), ("b", MISTAKE), ("c", LAST), ("d", "")];
    let stack = built_as(&now, &aws.observed, of);
    aws.settle(&stack, 2);
    assert_eq!(rules(&aws.observed, 80), ["/d", "/d/say", "/a", "/a/say", "/b", "/b/say", "/c", "/c/say"]);
    aws.observed.member_resources = member_resources(&stack, &aws.observed, &BTreeSet::new());
    assert_eq!(plan(&stack, &aws.observed).steps, vec![]);
}

#[test]
fn attributes_that_aws_takes_only_together_are_sent_together() {
    let stack = built(
        &[
            (
                "a",
                "alb.ingress.kubernetes.io/load-balancer-attributes: access_logs.s3.enabled=true,idle_timeout.timeout_seconds=5",
            ),
            ("b", "alb.ingress.kubernetes.io/load-balancer-attributes: access_logs.s3.bucket=logs"),
        ],
        &[],
        &ObservedStack::default(),
    );
    let steps = plan(&stack, &ObservedStack::default()).steps;
    let calls: Vec<(String, Vec<String>)> = steps
        .into_iter()
        .filter_map(|step| match step.action {
            crate::plan::StepAction::ModifyAttributes {
                of: crate::plan::AttributesOf::LoadBalancer(_),
                attributes,
                ..
            } => Some((step.cause.object.name.name, attributes.into_keys().collect())),
            _ => None,
        })
        .collect();
    let call = |member: &str, keys: &[&str]| (member.to_owned(), keys.iter().map(|key| (*key).to_owned()).collect());
    assert_eq!(
        calls,
        [call("a", &["idle_timeout.timeout_seconds"]), call("b", &["access_logs.s3.bucket", "access_logs.s3.enabled"])]
    );
}

#[test]
fn others_come_and_go_beside_it() {
    let mut aws = agreed(&[("a", ""), ("b", PORTS), ("c", "")], true);
    let now = [("a", ""), ("aa", ""), ("b", BROKEN), ("d", "")];
    let stack = built(&now, &["c"], &aws.observed);
    aws.settle(&stack, 2);
    assert_eq!(rules(&aws.observed, 80), ["/a", "/a/say", "/aa", "/aa/say", "/b", "/b/say", "/d", "/d/say"]);
    assert_eq!(rules(&aws.observed, 8080), ["/b", "/b/say"]);
    assert_eq!(target_groups(&aws.observed), ["a", "aa", "b", "d"].map(|m| format!("shop/{m}-web:80")).into());
    // It is fixed, and everything agrees again.
    aws.observed.member_resources = member_resources(&stack, &aws.observed, &BTreeSet::new());
    let stack = built(&[("a", ""), ("aa", ""), ("b", PORTS), ("d", "")], &[], &aws.observed);
    assert_eq!(plan(&stack, &aws.observed).steps, vec![]);
    // Or it goes.
    let stack = built(&[("a", ""), ("aa", ""), ("d", "")], &["b"], &aws.observed);
    aws.settle(&stack, 2);
    assert_eq!(rules(&aws.observed, 80), ["/a", "/a/say", "/aa", "/aa/say", "/d", "/d/say"]);
    assert_eq!(aws.observed.load_balancers[0].known_listeners().count(), 1);
    assert_eq!(target_groups(&aws.observed), ["a", "aa", "d"].map(|m| format!("shop/{m}-web:80")).into());
}

#[test]
fn the_last_others_go_and_it_stays() {
    let mut aws = agreed(&[("a", PORTS), ("b", "")], true);
    let stack = built(&[("b", BROKEN)], &["a"], &aws.observed);
    aws.settle(&stack, 2);
    assert_eq!(rules(&aws.observed, 80), ["/b", "/b/say"]);
    assert_eq!(
        aws.observed.load_balancers[0].known_listeners().count(),
        1,
        "the port that only the other had is closed"
    );
    assert_eq!(target_groups(&aws.observed), ["shop/b-web:80".to_owned()].into());
    assert_eq!(aws.observed.security_groups.len(), 1);
    aws.settle(&Stack::empty(edge()), 2);
    assert!(aws.observed.load_balancers.is_empty() && aws.observed.security_groups.is_empty());
}

#[test]
fn a_listener_stays_with_a_rule_that_nobody_is_remembered_to_have() {
    // `b` is served on 8080, too, since a moment before the process ended: nothing tells that.
    let before = agreed(&[("a", PORTS), ("b", "")], true);
    let mut aws = agreed(&[("a", PORTS), ("b", PORTS)], false);
    let owned = |observed: &ObservedStack, port: u16, path: &str| {
        let rules = &observed.load_balancers[0].listener(port).unwrap().rules;
        let is_its = |rule: &&ObservedRule| matches!(&rule.conditions[0], Condition::PathPattern { values, .. } if values[0].starts_with(path));
        rules.iter().filter(is_its).map(|rule| rule.arn.clone()).collect::<Vec<_>>()
    };
    aws.observed.member_resources.clone_from(&before.observed.member_resources);
    let rules_of_a = [owned(&aws.observed, 80, "/a"), owned(&aws.observed, 8080, "/a")].concat();
    let rules_of_b = owned(&aws.observed, 80, "/b");
    for (resources, rules) in aws.observed.member_resources.iter_mut().zip([rules_of_a, rules_of_b]) {
        resources.rules = rules.into_iter().collect();
    }
    // It breaks, and who is remembered to have the listener goes, alone or beside another.
    for (other, on_80) in [(&[][..], &["/b", "/b/say"][..]), (&[("c", "")], &["/b", "/b/say", "/c", "/c/say"])] {
        let mut aws = aws.clone();
        let stack = built(&[&[("b", BROKEN)], other].concat(), &["a"], &aws.observed);
        aws.settle(&stack, 2);
        assert_eq!(rules(&aws.observed, 80), on_80);
        assert_eq!(rules(&aws.observed, 8080), ["/b", "/b/say"]);
        let open: Vec<Option<i32>> = aws.observed.security_groups[0].ingress.iter().map(|r| r.from_port).collect();
        assert_eq!(open, [Some(80), Some(8080)]);
        // Once it is mended, the listener goes, unless it is requested.
        let stack = built(&[&[("b", "")], other].concat(), &[], &aws.observed);
        aws.settle(&stack, 2);
        assert_eq!(aws.observed.load_balancers[0].known_listeners().count(), 1);
    }
}

#[test]
fn a_rule_like_its_own_is_not_taken_from_it() {
    let mut aws = agreed(&[("a", ""), ("b", "")], true);
    let held = |observed: &ObservedStack, member: &str| {
        let resources = observed.member_resources.iter().find(|resources| resources.member == owner(member));
        resources.map(|resources| resources.rules.clone()).unwrap_or_default()
    };
    let before = held(&aws.observed, "b");
    // A new member before `b` requests exactly the rule that answers `b`.
    let mut stack = built(&[("a", ""), ("aa", ""), ("b", BROKEN)], &[], &aws.observed);
    let taken = aws.observed.load_balancers[0].listener(80).unwrap().rules[3].clone();
    let rules = &mut stack.listeners.get_mut(&80).unwrap().rules;
    let wanted = rules.iter_mut().filter(|rule| rule.cause.object == owner("aa")).nth(1).unwrap();
    wanted.conditions.clone_from(&taken.conditions);
    wanted.action = taken.actions[0].try_map(|_| Err(())).unwrap();
    aws.settle(&stack, 1);
    aws.observed.member_resources = member_resources(&stack, &aws.observed, &BTreeSet::new());
    assert_eq!(held(&aws.observed, "b"), before);
    assert_eq!(aws.observed.load_balancers[0].listener(80).unwrap().rules.len(), 6);
}

#[test]
fn one_set_aside_keeps_nothing_of_another_whose_name_begins_like_its_own() {
    let mut aws = agreed(&[("c", ""), ("web", ""), ("web-admin", "")], true);
    let stack = built(&[("c", ""), ("web", BROKEN)], &["web-admin"], &aws.observed);
    aws.settle(&stack, 2);
    assert_eq!(target_groups(&aws.observed), ["c", "web"].map(|m| format!("shop/{m}-web:80")).into());
}

#[test]
fn a_target_group_is_of_the_ingress_that_its_id_names_before_the_service() {
    let id = |text: &str| ResourceId::of_tag(text);
    for (text, service, expected) in [
        ("shop/web-admin-api:80", "api", Some("web-admin")),
        ("shop/web-admin-api:80", "admin-api", Some("web")),
        ("shop/web-api:http", "api", Some("web")),
        ("shop/web-api:80", "pi", None),
        ("LoadBalancer", "api", None),
    ] {
        assert_eq!(id(text).ingress(service), expected.map(owner), "{text} {service}");
    }
}
