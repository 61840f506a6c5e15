//! Redirects wait for the listeners that they lead to.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    aws::Aws,
    frozen::{self, owner},
    plan,
    retained::listed,
    steps,
};
use crate::{
    model::*,
    plan::{Plan, Planned, Reads, Wait},
};

const BEFORE: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: shop
  annotations:
    alb.ingress.kubernetes.io/target-type: ip
    alb.ingress.kubernetes.io/scheme: internet-facing
spec:
  ingressClassName: alb
  rules:
  - http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, uid: 11111111-1111-1111-1111-111111111111}
spec:
  ports: [{port: 80, targetPort: 8080}, {port: 81, targetPort: 8081}]
"#;

/// The annotations of HTTPS with a redirect from HTTP.
const SECURE: &str = r#"
    alb.ingress.kubernetes.io/listen-ports: '[{"HTTP": 80}, {"HTTPS": 443}]'
    alb.ingress.kubernetes.io/certificate-arn: arn:aws:acm:eu-west-1:111122223333:certificate/a
    alb.ingress.kubernetes.io/ssl-redirect: "443""#;

/// Returns the stack of manifests with more annotations of the Ingress, each after a line break.
fn with(manifests: &str, annotations: &str) -> Stack {
    let scheme = "\n    alb.ingress.kubernetes.io/scheme: internet-facing";
    steps::built(&manifests.replace(scheme, &format!("{scheme}{annotations}")))
}

/// Returns the stack with HTTPS and a redirect.
fn secure(manifests: &str) -> Stack {
    with(manifests, SECURE)
}

/// Returns the manifests with more paths, above that of all.
fn above_all(paths: &str) -> String {
    let all = "      - {path: /, pathType: Prefix";
    BEFORE.replace(all, &format!("{paths}{all}"))
}

fn serving(before: &Stack) -> Aws {
    let mut aws = Aws::with(before);
    aws.observed.awaits_opening = true;
    aws.observed.states_are_read = true;
    aws.observed.load_balancers.iter_mut().for_each(|balancer| balancer.state = LoadBalancerState::Active);
    aws
}

const OPENED: &str = "(waiting for the listener on port 443, as it is now, to be on all nodes of the load balancer before requests \
                      are redirected to it)";

#[test]
fn a_redirect_waits_until_its_new_listener_is_everywhere() {
    let after = secure(BEFORE);
    let mut aws = serving(&steps::built(BEFORE));
    let first = plan(&after, &aws.observed);
    insta::assert_snapshot!(listed(&first), @"
    create listener HTTPS 443
    create rule 1 of listener 443: path is /*
    open security group sg-1: tcp 443 from 0.0.0.0/0
    (waiting for the listener on port 443, as it is now, to be on all nodes of the load balancer before requests are redirected to it)
    ");
    aws.run(&after, &first);
    // A restart without the record: it has been there for long.
    assert!(!plan(&after, &aws.observed).waits.contains(&Wait::Opened(443)));
    aws.observed.opened_ports = BTreeMap::from([(443, Opening::OnItsWay)]);
    assert_eq!(listed(&plan(&after, &aws.observed)), OPENED);
    aws.observed.opened_ports = BTreeMap::from([(443, Opening::Everywhere)]);
    let last = plan(&after, &aws.observed);
    insta::assert_snapshot!(listed(&last), @"
    change listener 80: default redirect to HTTPS://#{host}:443/#{path}?#{query} (HTTP_301)
    delete rule 1 of listener 80
    ");
    aws.run(&after, &last);
    aws.observed.opened_ports.clear();
    assert_eq!(plan(&after, &aws.observed), Plan::empty());
}

#[test]
fn a_redirect_waits_for_nothing_that_is_not_new_or_not_wished_or_has_no_room() {
    let after = secure(BEFORE);
    let waits = |change: &dyn Fn(&mut ObservedStack)| {
        let mut aws = serving(&steps::built(BEFORE));
        change(&mut aws.observed);
        plan(&after, &aws.observed).waits
    };
    assert_eq!(waits(&|_| {}), BTreeSet::from([Wait::Opened(443)]));
    assert_eq!(waits(&|observed| observed.awaits_opening = false), BTreeSet::new());
    assert_eq!(waits(&|observed| observed.room.rules = Some(1)), BTreeSet::new());
    let provisioning = LoadBalancerState::Provisioning;
    let is_new = |observed: &mut ObservedStack| observed.load_balancers.iter_mut().for_each(|b| b.state = provisioning);
    assert_eq!(waits(&is_new), BTreeSet::new());
    // Nothing exists.
    assert_eq!(
        plan(&after, &ObservedStack { awaits_opening: true, ..ObservedStack::default() }).waits,
        BTreeSet::new()
    );
}

#[test]
fn a_redirect_waits_for_the_targets_that_its_listener_leads_to() {
    let after = secure(&BEFORE.replace("number: 80", "number: 81"));
    let mut aws = serving(&steps::built(BEFORE));
    aws.observed.awaits_health = true;
    let first = plan(&after, &aws.observed);
    aws.run(&after, &first);
    aws.observed.bindings.iter_mut().for_each(|binding| binding.registered = Some(2));
    aws.observed.opened_ports = BTreeMap::from([(443, Opening::Everywhere)]);
    let group = |number: &str| {
        let id = ResourceId::of_tag(format!("shop/web-web:{number}"));
        let mut groups = aws.observed.target_groups.iter();
        (groups.find(|group| group.resource().as_ref() == Some(&id)).unwrap().arn.clone(), id)
    };
    let ((old, _), (new, id)) = (group("80"), group("81"));
    let Planned::Need(reads) = super::super::plan(&after, &aws.observed) else { panic!("it does not ask") };
    assert_eq!(reads, Reads { health: BTreeSet::from([new.clone()]), ..Reads::default() });
    aws.observed.healthy = BTreeMap::from([(new.clone(), Some(1)), (old.clone(), Some(2))]);
    let waiting = plan(&after, &aws.observed);
    assert_eq!((waiting.steps, waiting.waits), (Vec::new(), BTreeSet::from([Wait::Ready(id), Wait::Opened(443)])));
    aws.observed.healthy = BTreeMap::from([(new, Some(2)), (old, Some(2))]);
    insta::assert_snapshot!(listed(&plan(&after, &aws.observed)), @"
    change listener 80: default redirect to HTTPS://#{host}:443/#{path}?#{query} (HTTP_301)
    delete rule 1 of listener 80
    delete TargetGroupBinding shop/k8s-shop-web-8b744f0654
    (waiting for TargetGroupBinding shop/k8s-shop-web-8b744f0654 to be gone)
    ");
}

#[test]
fn all_members_keep_what_they_have_on_a_listener_that_waits_to_redirect() {
    let built = |members: &[(&str, &str)]| frozen::built(members, &[], &ObservedStack::default());
    let before = built(&[("a", ""), ("b", "")]);
    let mut aws = serving(&before);
    let after = built(&[("a", SECURE), ("b", "")]);
    let held = plan(&after, &aws.observed);
    assert_eq!(held.waits, BTreeSet::from([Wait::Opened(443)]));
    assert_eq!(held.held_members, BTreeSet::from([owner("a"), owner("b")]));
    let http = |aws: &Aws| aws.observed.load_balancers[0].listener(80).unwrap().clone();
    let is_now = http(&aws);
    aws.run(&after, &held);
    assert_eq!(http(&aws), is_now);
    aws.observed.opened_ports = BTreeMap::from([(443, Opening::Everywhere)]);
    let last = plan(&after, &aws.observed);
    aws.run(&after, &last);
    assert!(http(&aws).rules.is_empty());
    // What only HTTP led to goes.
    aws.settle(&after, 2);
}

#[test]
fn a_redirect_waits_for_the_rules_of_a_listener_that_was_there_before() {
    let path = "      - {path: /new, pathType: Exact, backend: {service: {name: web, port: {number: 80}}}}\n";
    let mut before = secure(BEFORE);
    let plain = steps::built(BEFORE);
    *before.listeners.get_mut(&80).unwrap() = plain.listeners[&80].clone();
    let after = secure(&above_all(path));
    let mut aws = serving(&before);
    let first = plan(&after, &aws.observed);
    insta::assert_snapshot!(listed(&first), @"
    create rule 2 of listener 443: path is /new
    put 2 rules of listener 443 in order (1 of them new)
    (waiting for the listener on port 443, as it is now, to be on all nodes of the load balancer before requests are redirected to it)
    ");
    aws.run(&after, &first);
    aws.observed.opened_ports = BTreeMap::from([(443, Opening::Everywhere)]);
    assert!(plan(&after, &aws.observed).waits.is_empty());
}

#[test]
fn the_port_that_a_waiting_listener_redirects_to_stays() {
    let moved = SECURE.replace("{\"HTTPS\": 443}", "{\"HTTPS\": 8443}").replace("\"443\"", "\"8443\"");
    let after = with(BEFORE, &moved);
    let mut aws = serving(&secure(BEFORE));
    let first = plan(&after, &aws.observed);
    insta::assert_snapshot!(listed(&first), @"
    create listener HTTPS 8443
    create rule 1 of listener 8443: path is /*
    open security group sg-1: tcp 8443 from 0.0.0.0/0
    (waiting for the listener on port 8443, as it is now, to be on all nodes of the load balancer before requests are redirected to it)
    ");
    aws.run(&after, &first);
    aws.observed.opened_ports = BTreeMap::from([(8443, Opening::Everywhere)]);
    insta::assert_snapshot!(listed(&plan(&after, &aws.observed)), @"
    change listener 80: default redirect to HTTPS://#{host}:8443/#{path}?#{query} (HTTP_301)
    delete listener 443 with its rules
    close security group sg-1: tcp 443 from 0.0.0.0/0
    ");
}

#[test]
fn who_arrives_from_another_load_balancer_waits_for_its_targets_and_the_load_balancer() {
    let after = secure(BEFORE);
    let mut aws = serving(&steps::built(BEFORE));
    aws.observed.awaits_opening = false;
    aws.observed.awaits_health = true;
    let member = ObjectReference::ingress(&frozen::name("web"));
    aws.observed.arriving = BTreeSet::from([member.clone()]);
    aws.observed.bindings.iter_mut().for_each(|binding| binding.registered = Some(2));
    let group = aws.observed.target_groups[0].arn.clone();
    let planned = |observed: &ObservedStack| plan(&after, observed).held_members;
    aws.observed.healthy = BTreeMap::from([(group.clone(), Some(0))]);
    assert_eq!(planned(&aws.observed), BTreeSet::from([member.clone()]));
    aws.observed.healthy = BTreeMap::from([(group, Some(2))]);
    assert_eq!(planned(&aws.observed), BTreeSet::new());
    // Its own rules are there, and it is not published yet.
    let first = plan(&after, &aws.observed);
    aws.run(&after, &first);
    aws.observed.healthy.values_mut().for_each(|healthy| *healthy = Some(0));
    assert_eq!(planned(&aws.observed), BTreeSet::from([member]));
    aws.observed.load_balancers.iter_mut().for_each(|balancer| balancer.state = LoadBalancerState::Provisioning);
    assert_eq!(plan(&after, &aws.observed).waits, BTreeSet::from([Wait::LoadBalancerActive]));
    aws.observed.states_are_read = false;
    let reads = Reads { states: true, ..Reads::default() };
    assert_eq!(super::super::plan(&after, &aws.observed), Planned::Need(reads));
}

#[test]
fn who_arrives_needs_as_many_healthy_targets_as_it_had_and_no_more() {
    let after = secure(BEFORE);
    let mut aws = serving(&after);
    (aws.observed.awaits_opening, aws.observed.awaits_health) = (false, true);
    let member = ObjectReference::ingress(&frozen::name("web"));
    aws.observed.arriving = BTreeSet::from([member.clone()]);
    aws.observed.bindings.iter_mut().for_each(|binding| binding.registered = Some(10));
    let new = aws.observed.target_groups[0].arn.clone();
    let held = |observed: &ObservedStack, new_healthy, old_healthy| {
        let healthy = [(new.clone(), Some(new_healthy)), (TargetGroupArn::new("arn:old"), Some(old_healthy))];
        let observed = ObservedStack { healthy: BTreeMap::from(healthy), ..observed.clone() };
        plan(&after, &observed).held_members == BTreeSet::from([member.clone()])
    };
    // From another stack, whose health is not known here.
    assert!(held(&aws.observed, 0, 0) && !held(&aws.observed, 1, 0));
    // The load balancer that is replaced had a target group of its own.
    let old = ObservedTargetGroup { arn: TargetGroupArn::new("arn:old"), ..aws.observed.target_groups[0].clone() };
    aws.observed.target_groups.push(old);
    assert!(held(&aws.observed, 7, 8) && !held(&aws.observed, 8, 8) && !held(&aws.observed, 10, 11));
}

#[test]
fn of_two_listeners_that_come_to_redirect_to_each_other_neither_waits_for_rules() {
    let action = |to: &str| {
        format!(r#"'{{"type": "redirect", "redirectConfig": {{"port": "{to}", "statusCode": "HTTP_302"}}}}'"#)
    };
    let ports = "\n    alb.ingress.kubernetes.io/listen-ports: '[{\"HTTP\": 80}, {\"HTTP\": 8080}]'";
    let path = |name: &str| {
        format!(
            "      - {{path: /{name}, pathType: Exact, backend: {{service: {{name: {name}, port: {{name: use-annotation}}}}}}}}\n"
        )
    };
    let annotations = ["red", "blue"]
        .iter()
        .zip(["80", "8080"])
        .map(|(name, to)| format!("\n    alb.ingress.kubernetes.io/actions.{name}: {}", action(to)));
    let annotations = format!("{ports}{}", annotations.collect::<String>());
    let after = with(&above_all(&format!("{}{}", path("red"), path("blue"))), &annotations);
    let mut aws = serving(&with(BEFORE, ports));
    let first = plan(&after, &aws.observed);
    assert_eq!(first.waits, BTreeSet::new());
    aws.run(&after, &first);
    assert_eq!(plan(&after, &aws.observed), Plan::empty());
}

#[test]
fn a_redirect_waits_no_longer_than_it_may_and_for_nothing_that_serves_already() {
    let path = "      - {path: /new, pathType: Exact, backend: {service: {name: web, port: {number: 81}}}}\n";
    let mut before = secure(BEFORE);
    *before.listeners.get_mut(&80).unwrap() = steps::built(BEFORE).listeners[&80].clone();
    // Another path, whose targets are not healthy, comes to HTTPS while HTTP comes to redirect there.
    let after = secure(&above_all(path));
    let mut aws = serving(&before);
    aws.observed.awaits_health = true;
    aws.observed.bindings.iter_mut().for_each(|binding| binding.registered = Some(2));
    let first = plan(&after, &aws.observed);
    let waits = BTreeSet::from([Wait::Opened(443), Wait::Ready(ResourceId::of_tag("shop/web-web:81"))]);
    assert_eq!(first.waits, waits);
    let redirects = |plan: &Plan| plan.steps.iter().any(|step| step.action.to_string().contains("default redirect"));
    for (opening, expected) in [(Opening::OnItsWay, false), (Opening::Everywhere, false), (Opening::Overdue, true)] {
        aws.observed.opened_ports = BTreeMap::from([(443, opening)]);
        assert_eq!(redirects(&plan(&after, &aws.observed)), expected, "{opening:?}");
    }
    // What HTTPS has led to for long is no reason to wait, however healthy it is.
    aws.observed.opened_ports.clear();
    aws.observed.healthy = aws.observed.target_groups.iter().map(|group| (group.arn.clone(), Some(0))).collect();
    assert!(redirects(&plan(&secure(BEFORE), &aws.observed)));
}

#[test]
fn a_redirect_that_has_waited_as_long_as_it_may_leads_to_targets_that_are_not_healthy_and_says_so() {
    let after = secure(&BEFORE.replace("number: 80", "number: 81"));
    let mut aws = serving(&steps::built(BEFORE));
    aws.observed.awaits_health = true;
    // However long it took: as long as the listener is not there, nothing leads to it.
    aws.observed.opened_ports = BTreeMap::from([(443, Opening::Overdue)]);
    let first = plan(&after, &aws.observed);
    assert!(first.waits.contains(&Wait::Opened(443)), "{:?}", first.waits);
    aws.run(&after, &first);
    aws.observed.bindings.iter_mut().for_each(|binding| binding.registered = Some(2));
    aws.observed.healthy = aws.observed.target_groups.iter().map(|group| (group.arn.clone(), Some(0))).collect();
    let old = aws.observed.load_balancers[0].listener(80).unwrap().target_groups().next().unwrap().clone();
    aws.observed.healthy.insert(old, Some(2));
    let last = plan(&after, &aws.observed);
    assert_eq!(last.unhealthy, BTreeSet::from([ResourceId::of_tag("shop/web-web:81")]));
    assert!(listed(&last).starts_with("change listener 80: default redirect to HTTPS"), "{}", listed(&last));
}

#[test]
fn a_member_whose_rule_waits_to_redirect_keeps_no_other_from_changing() {
    const PORTS: &str = r#"alb.ingress.kubernetes.io/listen-ports: '[{"HTTP": 80}, {"HTTP": 8080}]'"#;
    const ONLY_HTTP: &str = r#"alb.ingress.kubernetes.io/listen-ports: '[{"HTTP": 80}]'"#;
    let built = |ports: &str| {
        frozen::built(&[("a", ports), ("b", ONLY_HTTP), ("c", ONLY_HTTP)], &[], &ObservedStack::default())
    };
    let before = built(ONLY_HTTP);
    let mut aws = serving(&before);
    aws.observed.member_resources = crate::plan::member_resources(&before, &aws.observed, &BTreeSet::new());
    let mut after = built(PORTS);
    let to_other = secure(BEFORE).listeners[&80].default_action.clone();
    for rule in &mut after.listeners.get_mut(&80).unwrap().rules {
        match (&mut rule.action, &rule.cause.object) {
            (action @ Action::FixedResponse { .. }, member) if *member == owner("a") => {
                let Action::Redirect { mut port, protocol, host, path, query, status_code } = to_other.clone() else {
                    panic!("{to_other:?}")
                };
                port = port.map(|_| "8080".to_owned());
                *action = Action::Redirect { port, protocol, host, path, query, status_code };
            }
            (Action::FixedResponse { message_body, .. }, member) if *member == owner("b") => {
                *message_body = Some("new".to_owned());
            }
            _ => {}
        }
    }
    let first = plan(&after, &aws.observed);
    assert_eq!(first.held_members, BTreeSet::from([owner("a")]));
    assert_eq!(first.waits, BTreeSet::from([Wait::Opened(8080)]));
    aws.run(&after, &first);
    let said = |aws: &Aws| {
        let rules = aws.observed.load_balancers[0].listener(80).unwrap().rules.clone();
        let of = |action: &Action<TargetGroupArn>| match action {
            Action::FixedResponse { message_body, .. } => message_body.clone(),
            Action::Redirect { .. } => Some("redirect".to_owned()),
            _ => None,
        };
        rules.iter().flat_map(|rule| &rule.actions).filter_map(of).collect::<BTreeSet<_>>()
    };
    assert_eq!(said(&aws), ["a", "new", "c"].map(str::to_owned).into());
    aws.observed.opened_ports = BTreeMap::from([(8080, Opening::Everywhere)]);
    let last = plan(&after, &aws.observed);
    assert_eq!(last.held_members, BTreeSet::new());
    aws.run(&after, &last);
    assert_eq!(said(&aws), ["redirect", "new", "c"].map(str::to_owned).into());
}
