//! Single changes, and the steps that each takes.

use std::{collections::BTreeMap, sync::Mutex};

use super::{
    aws::{Aws, BACKEND_GROUP},
    plan,
};
use crate::{
    desired::{Membership, sources::ingress},
    facts::{Fact, Facts},
    model::*,
    plan::{Plan, StepAction, Wait, render, summary},
    testing::{build_config, snapshot},
};

pub(super) const MANIFESTS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: shop
  generation: 3
  annotations:
    alb.ingress.kubernetes.io/target-type: ip
    alb.ingress.kubernetes.io/scheme: internet-facing
    alb.ingress.kubernetes.io/listen-ports: '[{"HTTP": 80}, {"HTTPS": 443}]'
    alb.ingress.kubernetes.io/certificate-arn: arn:aws:acm:eu-west-1:111122223333:certificate/a
    alb.ingress.kubernetes.io/ssl-redirect: "443"
spec:
  ingressClassName: alb
  defaultBackend: {service: {name: web, port: {number: 80}}}
  rules:
  - host: shop.example.com
    http:
      paths:
      - {path: /api, pathType: Prefix, backend: {service: {name: api, port: {name: http}}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, uid: 11111111-1111-1111-1111-111111111111}
spec:
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop, uid: 22222222-2222-2222-2222-222222222222}
spec:
  ports: [{name: http, port: 8080, targetPort: serve}]
"#;

fn group() -> StackId {
    StackId::Ingress(ObjectName::new("shop", "web"))
}

/// The stack of some manifests, everything known.
///
/// Remembered, because thousands of random stacks begin with the same one.
pub(super) fn built(manifests: &str) -> Stack {
    static BUILT: Mutex<BTreeMap<String, Stack>> = Mutex::new(BTreeMap::new());
    if let Some(stack) = BUILT.lock().unwrap().get(manifests) {
        return stack.clone();
    }
    let stack = build(manifests);
    BUILT.lock().unwrap().insert(manifests.to_owned(), stack.clone());
    stack
}

fn build(manifests: &str) -> Stack {
    let (snapshot, config) = (snapshot(manifests), build_config());
    let facts = Facts {
        subnets: crate::testing::discovered_subnets(&[SubnetId::new("subnet-a"), SubnetId::new("subnet-b")]),
        backend_security_group: Some(Fact::Known(SecurityGroupId::new(BACKEND_GROUP))),
        ..Facts::default()
    };
    let built = ingress::build(
        &snapshot,
        &config,
        &facts,
        &group(),
        &Membership { members: [ObjectName::new("shop", "web")].to_vec(), ..Default::default() },
    );
    assert_eq!(built.diagnostics, []);
    built.stack.unwrap()
}

/// The steps, a line each, and the wait.
fn listed(plan: &Plan) -> String {
    let mut lines: Vec<String> = plan.steps.iter().map(|step| step.action.to_string()).collect();
    let gone = |wait: &Wait| match wait {
        Wait::BindingGone(name) => Some(name.to_string()),
        _ => None,
    };
    let names: Vec<String> = plan.waits.iter().filter_map(gone).collect();
    lines.extend((!names.is_empty()).then(|| format!("wait for {}", names.join(", "))));
    lines.join("\n")
}

/// The steps from the sample stack to a changed one, which are run, and lead there.
fn changed(change: impl FnOnce(&mut Stack)) -> String {
    let mut stack = built(MANIFESTS);
    let mut aws = Aws::with(&stack);
    change(&mut stack);
    let steps = listed(&plan(&stack, &aws.observed));
    aws.settle(&stack, 2);
    steps
}

/// The steps from a changed AWS back to the sample stack.
fn drifted(drift: impl FnOnce(&mut ObservedStack)) -> String {
    let stack = built(MANIFESTS);
    let mut aws = Aws::with(&stack);
    drift(&mut aws.observed);
    let steps = listed(&plan(&stack, &aws.observed));
    aws.settle(&stack, 2);
    steps
}

fn listener(stack: &mut Stack, port: u16) -> &mut Listener {
    stack.listeners.get_mut(&port).unwrap()
}

fn certificate(name: &str) -> CertificateArn {
    CertificateArn::new(format!("arn:aws:acm:eu-west-1:111122223333:certificate/{name}"))
}

fn group_of<'a>(stack: &'a mut Stack, id: &str) -> &'a mut TargetGroup {
    stack.target_groups.get_mut(&ResourceId::of_tag(id)).unwrap()
}

#[test]
fn from_nothing() {
    let stack = built(MANIFESTS);
    let planned = plan(&stack, &ObservedStack::default());
    insta::assert_snapshot!(summary(&planned), @"10 to create, 0 to change, 0 to delete");
    insta::assert_snapshot!(render(&planned), @r"
    + create security group k8s-shop-web-aba6dfbc4e
        tags             elbv2.k8s.aws/cluster=demo, ingress.k8s.aws/resource=ManagedLBSecurityGroup, ingress.k8s.aws/stack=shop/web
        because of       Ingress shop/web generation 3, spec
    + create target group k8s-shop-web-8b744f0654 for shop/web-web:80
        targets          ip of Service shop/web port 80, HTTP HTTP1
        health check     HTTP / on traffic-port, every 15 s, timeout 5 s, healthy after 2, unhealthy after 2
        tags             elbv2.k8s.aws/cluster=demo, ingress.k8s.aws/resource=shop/web-web:80, ingress.k8s.aws/stack=shop/web
        because of       Ingress shop/web generation 3, spec.defaultBackend.service
    + create TargetGroupBinding shop/k8s-shop-web-8b744f0654
        because of       Ingress shop/web generation 3, spec.defaultBackend.service
    + create target group k8s-shop-api-0e82ee555c for shop/web-api:http
        targets          ip of Service shop/api port http, HTTP HTTP1
        health check     HTTP / on traffic-port, every 15 s, timeout 5 s, healthy after 2, unhealthy after 2
        tags             elbv2.k8s.aws/cluster=demo, ingress.k8s.aws/resource=shop/web-api:http, ingress.k8s.aws/stack=shop/web
        because of       Ingress shop/web generation 3, spec.rules[0].http.paths[0].backend.service
    + create TargetGroupBinding shop/k8s-shop-api-0e82ee555c
        because of       Ingress shop/web generation 3, spec.rules[0].http.paths[0].backend.service
    + create load balancer k8s-shop-web-17d71bc701
        scheme           internet-facing, ipv4
        subnets          subnet-a, subnet-b
        security groups  its own, the shared backend group sg-shared
        tags             elbv2.k8s.aws/cluster=demo, ingress.k8s.aws/resource=LoadBalancer, ingress.k8s.aws/stack=shop/web
        because of       Ingress shop/web generation 3, spec
    + create listener HTTPS 443
        default          forward to shop/web-web:80
        certificate      arn:aws:acm:eu-west-1:111122223333:certificate/a
        TLS policy       ELBSecurityPolicy-2016-08
        tags             elbv2.k8s.aws/cluster=demo, ingress.k8s.aws/resource=443, ingress.k8s.aws/stack=shop/web
        because of       Ingress shop/web generation 3, alb.ingress.kubernetes.io/listen-ports
    + create rule 1 of listener 443: host is shop.example.com and path is /api or /api/*
        then             forward to shop/web-api:http
        because of       Ingress shop/web generation 3, spec.rules[0].http.paths[0]
    + create listener HTTP 80
        default          redirect to HTTPS://#{host}:443/#{path}?#{query} (HTTP_301)
        tags             elbv2.k8s.aws/cluster=demo, ingress.k8s.aws/resource=80, ingress.k8s.aws/stack=shop/web
        because of       Ingress shop/web generation 3, alb.ingress.kubernetes.io/listen-ports
    ~ open the new security group: tcp 80 from 0.0.0.0/0, tcp 443 from 0.0.0.0/0
        because of       Ingress shop/web generation 3, spec
    ");
    Aws::default().settle(&stack, 1);
}

#[test]
fn what_is_known_after_apply_is_told_so() {
    let mut stack = built(MANIFESTS);
    let balancer = stack.load_balancer.as_mut().unwrap();
    balancer.subnets = Value::AfterApply("subnets are found by their tags in the VPC");
    balancer.name = Value::AfterApply("named after the cluster, see --cluster-name");
    balancer.cause.generation = 0;
    stack.listeners.clear();
    stack.target_groups.clear();
    stack.security_group = None;
    insta::assert_snapshot!(render(&plan(&stack, &ObservedStack::default())), @r"
    + create load balancer (known after apply: named after the cluster, see --cluster-name)
        scheme           internet-facing, ipv4
        subnets          (known after apply: subnets are found by their tags in the VPC)
        security groups  its own, the shared backend group sg-shared
        tags             elbv2.k8s.aws/cluster=demo, ingress.k8s.aws/resource=LoadBalancer, ingress.k8s.aws/stack=shop/web
        because of       Ingress shop/web, spec
    ");
}

#[test]
fn deletion_takes_two_rounds_and_waits_for_the_bindings() {
    let mut aws = Aws::with(&built(MANIFESTS));
    let nothing = Stack::empty(group());
    let first = plan(&nothing, &aws.observed);
    insta::assert_snapshot!(render(&first), @r"
    - delete load balancer k8s-shop-web-17d71bc701 with its listeners and rules
        because of       Ingress shop/web, metadata.deletionTimestamp
    - delete TargetGroupBinding shop/k8s-shop-web-8b744f0654
        because of       Ingress shop/web, metadata.deletionTimestamp
    - delete TargetGroupBinding shop/k8s-shop-api-0e82ee555c
        because of       Ingress shop/web, metadata.deletionTimestamp
    then wait until the TargetGroupBindings are gone: shop/k8s-shop-api-0e82ee555c, shop/k8s-shop-web-8b744f0654
    ");
    insta::assert_snapshot!(summary(&first), @"0 to create, 0 to change, 3 to delete");
    aws.run(&nothing, &first);
    // While the bindings are going there is nothing to do but to wait.
    insta::assert_snapshot!(listed(&plan(&nothing, &aws.observed)), @"wait for shop/k8s-shop-api-0e82ee555c, shop/k8s-shop-web-8b744f0654");
    let last = aws.observed.bindings.pop().unwrap();
    insta::assert_snapshot!(listed(&plan(&nothing, &aws.observed)), @r"
    delete target group k8s-shop-api-0e82ee555c
    wait for shop/k8s-shop-web-8b744f0654
    ");
    aws.observed.bindings = vec![last];
    aws.observed.bindings.clear();
    insta::assert_snapshot!(listed(&plan(&nothing, &aws.observed)), @r"
    delete target group k8s-shop-api-0e82ee555c
    delete target group k8s-shop-web-8b744f0654
    delete security group sg-1
    ");
    aws.settle(&nothing, 1);
    assert!(aws.observed.is_empty());
}

#[test]
fn a_health_check_is_changed_in_place() {
    insta::assert_snapshot!(changed(|stack| group_of(stack, "shop/web-web:80").health_check.path = Some("/ready".to_owned())), @"change the health check of target group shop/web-web:80");
}

#[test]
fn tags_that_miss_or_differ_are_set_and_foreign_ones_stay() {
    insta::assert_snapshot!(changed(|stack| {
        stack.load_balancer.as_mut().unwrap().tags.insert("Owner".to_owned(), "web".to_owned());
        stack.security_group.as_mut().unwrap().tags.insert("Owner".to_owned(), "web".to_owned());
        group_of(stack, "shop/web-api:http").tags.insert("Owner".to_owned(), "api".to_owned());
        listener(stack, 443).tags.insert("Owner".to_owned(), "web".to_owned());
        listener(stack, 443).rules[0].tags.insert("Owner".to_owned(), "web".to_owned());
    }), @r"
    tag security group k8s-shop-web-aba6dfbc4e: Owner=web
    tag target group k8s-shop-api-0e82ee555c: Owner=api
    tag load balancer k8s-shop-web-17d71bc701: Owner=web
    tag listener 443: Owner=web
    tag rule 1 of listener 443: Owner=web
    ");
    insta::assert_snapshot!(drifted(|observed| {
        observed.load_balancers[0].tags.insert("Somebody".to_owned(), "else".to_owned());
        observed.target_groups[0].tags.insert("Somebody".to_owned(), "else".to_owned());
    }), @"");
}

#[test]
fn a_rule_whose_action_and_tags_change_gets_both() {
    insta::assert_snapshot!(changed(|stack| {
        let rule = &mut listener(stack, 443).rules[0];
        rule.action = Action::FixedResponse { content_type: None, message_body: None, status_code: "410".to_owned() };
        rule.tags.insert("Owner".to_owned(), "web".to_owned());
    }), @r"
    change a rule of listener 443 to: answer 410
    tag rule 1 of listener 443: Owner=web
    ");
}

#[test]
fn rules_of_the_security_group_follow() {
    insta::assert_snapshot!(drifted(|observed| {
        let mut rule = observed.security_groups[0].ingress.pop_first().unwrap();
        rule.source = Source::Ipv4("10.0.0.0/8".to_owned());
        observed.security_groups[0].ingress.insert(rule);
    }), @r"
    open security group sg-1: tcp 80 from 0.0.0.0/0
    close security group sg-1: tcp 80 from 10.0.0.0/8
    ");
    // The description is no part of what a rule is.
    insta::assert_snapshot!(drifted(|observed| {
        let mut rule = observed.security_groups[0].ingress.pop_first().unwrap();
        rule.description = "by hand".to_owned();
        observed.security_groups[0].ingress.insert(rule);
    }), @"");
}

/// Lets other blocks in on ports of the sample.
fn open_to(stack: &mut Stack, open: &[(i32, &str)]) {
    let group = stack.security_group.as_mut().unwrap();
    let sample = group.ingress[0].clone();
    let rule = |(port, block): &(i32, &str)| SecurityGroupRule {
        from_port: Some(*port),
        to_port: Some(*port),
        source: Source::Ipv4((*block).to_owned()),
        ..sample.clone()
    };
    group.ingress = open.iter().map(rule).collect();
}

#[test]
fn sources_that_become_fewer_are_kept_out_before_anything_else_that_aws_may_refuse() {
    let fewer = changed(|stack| {
        open_to(stack, &[(80, "203.0.113.0/24"), (443, "203.0.113.0/24")]);
        listener(stack, 443).default_certificate = Some(certificate("b"));
    });
    // Of two blocks one goes, and another port is opened.
    let mut stack = built(MANIFESTS);
    open_to(&mut stack, &[(80, "10.0.0.0/8"), (80, "192.168.0.0/16"), (443, "10.0.0.0/8"), (443, "192.168.0.0/16")]);
    let aws = Aws::with(&stack);
    open_to(&mut stack, &[(80, "10.0.0.0/8"), (443, "10.0.0.0/8"), (8443, "10.0.0.0/8")]);
    let secure = Listener { port: 8443, ..stack.listeners[&443].clone() };
    stack.listeners.insert(8443, secure);
    let one_goes = listed(&plan(&stack, &aws.observed));
    insta::assert_snapshot!([fewer, one_goes].join("\n--\n"), @"
    open security group sg-1: tcp 80 from 203.0.113.0/24, tcp 443 from 203.0.113.0/24
    close security group sg-1: tcp 80 from 0.0.0.0/0, tcp 443 from 0.0.0.0/0
    change listener 443: default certificate arn:aws:acm:eu-west-1:111122223333:certificate/b
    --
    close security group sg-1: tcp 80 from 192.168.0.0/16, tcp 443 from 192.168.0.0/16
    create listener HTTPS 8443
    create rule 1 of listener 8443: host is shop.example.com and path is /api or /api/*
    open security group sg-1: tcp 8443 from 10.0.0.0/8
    ");
}

#[test]
fn sources_that_become_others_or_that_a_redirect_leads_to_a_port_wait_for_their_listeners() {
    // New clients are allowed when the listener is as desired, and some of the old ones are among them.
    let mut stack = built(MANIFESTS);
    open_to(&mut stack, &[(80, "10.0.0.0/16"), (443, "10.0.0.0/16")]);
    let aws = Aws::with(&stack);
    open_to(&mut stack, &[(80, "10.0.0.0/8"), (443, "10.0.0.0/8")]);
    listener(&mut stack, 443).default_certificate = Some(certificate("b"));
    let others = listed(&plan(&stack, &aws.observed));
    // Port 80 redirects to 443 until it changes.
    let led_to = changed(|stack| {
        open_to(stack, &[(80, "0.0.0.0/0"), (443, "203.0.113.0/24")]);
        listener(stack, 80).default_action =
            Action::FixedResponse { content_type: None, message_body: None, status_code: "410".to_owned() };
    });
    // A listener whose protocol changes.
    let protocol = changed(|stack| {
        open_to(stack, &[(80, "203.0.113.0/24"), (443, "203.0.113.0/24")]);
        let listener = listener(stack, 443);
        (listener.protocol, listener.default_certificate, listener.ssl_policy) = (ListenerProtocol::Http, None, None);
    });
    insta::assert_snapshot!([others, led_to, protocol].join("\n--\n"), @"
    open security group sg-1: tcp 443 from 10.0.0.0/8
    change listener 443: default certificate arn:aws:acm:eu-west-1:111122223333:certificate/b
    open security group sg-1: tcp 80 from 10.0.0.0/8
    close security group sg-1: tcp 80 from 10.0.0.0/16, tcp 443 from 10.0.0.0/16
    --
    change listener 80: default answer 410
    open security group sg-1: tcp 443 from 203.0.113.0/24
    close security group sg-1: tcp 443 from 0.0.0.0/0
    --
    open security group sg-1: tcp 80 from 203.0.113.0/24
    close security group sg-1: tcp 80 from 0.0.0.0/0
    open security group sg-1: tcp 443 from 203.0.113.0/24
    change listener 443: protocol HTTP
    close security group sg-1: tcp 443 from 0.0.0.0/0
    ");
}

#[test]
fn security_groups_of_the_load_balancer_are_put_right_once_the_new_one_is_open() {
    insta::assert_snapshot!(drifted(|observed| {
        observed.load_balancers[0].security_groups = [SecurityGroupId::new("sg-by-hand")].into();
        observed.security_groups.clear();
    }), @r"
    create security group k8s-shop-web-aba6dfbc4e
    open the new security group: tcp 80 from 0.0.0.0/0, tcp 443 from 0.0.0.0/0
    put the load balancer into security groups: its own, the shared backend group sg-shared, sg-by-hand
    put the load balancer into security groups: its own, the shared backend group sg-shared
    ");
}

#[test]
fn certificates_are_added_changed_over_and_removed() {
    // Another default certificate.
    insta::assert_snapshot!(changed(|stack| listener(stack, 443).default_certificate = Some(certificate("b"))), @"change listener 443: default certificate arn:aws:acm:eu-west-1:111122223333:certificate/b");
    // One more.
    insta::assert_snapshot!(changed(|stack| {
        listener(stack, 443).certificates.insert(certificate("b"));
    }), @"add certificates to listener arn:listener/443/7: arn:aws:acm:eu-west-1:111122223333:certificate/b");
    // The default becomes one of the others.
    insta::assert_snapshot!(changed(|stack| {
        let listener = listener(stack, 443);
        listener.default_certificate = Some(certificate("b"));
        listener.certificates = [certificate("a"), certificate("c")].into();
    }), @r"
    add certificates to listener arn:listener/443/7: arn:aws:acm:eu-west-1:111122223333:certificate/c, arn:aws:acm:eu-west-1:111122223333:certificate/a
    change listener 443: default certificate arn:aws:acm:eu-west-1:111122223333:certificate/b
    ");
    // Others that are not desired are removed; the default may be among them.
    insta::assert_snapshot!(drifted(|observed| {
        observed.load_balancers[0].listeners.get_or_insert_default().get_mut(&443).unwrap().certificates = [certificate("a"), certificate("z")].into();
    }), @"remove certificates from listener 443: arn:aws:acm:eu-west-1:111122223333:certificate/z");
    // One of the others becomes the default, the old default goes.
    let mut stack = built(MANIFESTS);
    listener(&mut stack, 443).certificates.insert(certificate("b"));
    let mut aws = Aws::with(&stack);
    listener(&mut stack, 443).certificates.clear();
    listener(&mut stack, 443).default_certificate = Some(certificate("b"));
    insta::assert_snapshot!(listed(&plan(&stack, &aws.observed)), @"change listener 443: default certificate arn:aws:acm:eu-west-1:111122223333:certificate/b");
    aws.settle(&stack, 1);
}

#[test]
fn the_tls_policy_is_changed_in_place() {
    insta::assert_snapshot!(changed(|stack| listener(stack, 443).ssl_policy = Some("ELBSecurityPolicy-TLS13-1-2-2021-06".to_owned())), @"change listener 443: TLS policy ELBSecurityPolicy-TLS13-1-2-2021-06");
}

#[test]
fn the_default_action_is_changed_in_place() {
    insta::assert_snapshot!(changed(|stack| {
        listener(stack, 443).default_action =
            Action::FixedResponse { content_type: None, message_body: Some("gone".to_owned()), status_code: "410".to_owned() };
    }), @"change listener 443: default answer 410 `gone`");
}

#[test]
fn a_listener_changes_its_protocol_in_place() {
    insta::assert_snapshot!(changed(|stack| {
        let tls = stack.listeners[&443].clone();
        let listener = listener(stack, 80);
        *listener = Listener { port: 80, tags: listener.tags.clone(), ..tls };
        listener.certificates.insert(certificate("b"));
    }), @r"
    create rule 1 of listener 80: host is shop.example.com and path is /api or /api/*
    change listener 80: protocol HTTPS, TLS policy ELBSecurityPolicy-2016-08, default certificate arn:aws:acm:eu-west-1:111122223333:certificate/a, default forward to shop/web-web:80
    add certificates to listener arn:listener/80/9: arn:aws:acm:eu-west-1:111122223333:certificate/b
    ");
    insta::assert_snapshot!(changed(|stack| {
        let listener = listener(stack, 443);
        listener.protocol = ListenerProtocol::Http;
        listener.default_certificate = None;
        listener.ssl_policy = None;
    }), @"change listener 443: protocol HTTP");
}

#[test]
fn a_new_listener_opens_its_port_last_and_a_removed_one_closes_it_last() {
    let with = format!("{MANIFESTS}\n").replace(r#"{"HTTPS": 443}]"#, r#"{"HTTPS": 443}, {"HTTPS": 8443}]"#);
    let (small, large) = (built(MANIFESTS), built(&with));
    let mut aws = Aws::with(&small);
    let more = plan(&large, &aws.observed);
    insta::assert_snapshot!(listed(&more), @r"
    create listener HTTPS 8443
    create rule 1 of listener 8443: host is shop.example.com and path is /api or /api/*
    open security group sg-1: tcp 8443 from 0.0.0.0/0
    ");
    aws.run(&large, &more);
    let less = plan(&small, &aws.observed);
    insta::assert_snapshot!(listed(&less), @r"
    delete listener 8443 with its rules
    close security group sg-1: tcp 8443 from 0.0.0.0/0
    ");
    aws.run(&small, &less);
    assert_eq!(plan(&small, &aws.observed), Plan::empty());
}

#[test]
fn a_target_group_of_another_protocol_is_a_new_one_and_the_old_one_goes_after_its_binding() {
    let tls = MANIFESTS.replace(
        "namespace: shop, uid: 2",
        "namespace: shop, annotations: {alb.ingress.kubernetes.io/backend-protocol: HTTPS}, uid: 2",
    );
    let stack = built(&tls);
    let mut aws = Aws::with(&built(MANIFESTS));
    let first = plan(&stack, &aws.observed);
    insta::assert_snapshot!(listed(&first), @r"
    create target group k8s-shop-api-8d8c324165 for shop/web-api:http
    create TargetGroupBinding shop/k8s-shop-api-8d8c324165
    create rule 2 of listener 443: host is shop.example.com and path is /api or /api/*
    delete rule 1 of listener 443
    delete TargetGroupBinding shop/k8s-shop-api-0e82ee555c
    wait for shop/k8s-shop-api-0e82ee555c
    ");
    aws.run(&stack, &first);
    insta::assert_snapshot!(listed(&plan(&stack, &aws.observed)), @"wait for shop/k8s-shop-api-0e82ee555c");
    aws.observed.bindings.retain(|binding| !binding.deleting);
    insta::assert_snapshot!(listed(&plan(&stack, &aws.observed)), @"delete target group k8s-shop-api-0e82ee555c");
    aws.settle(&stack, 1);
}

#[test]
fn addresses_change_in_place_and_a_target_group_of_other_addresses_is_a_new_one_with_another_name() {
    insta::assert_snapshot!(changed(|stack| {
        stack.load_balancer.as_mut().unwrap().ip_address_type = IpAddressType::Dualstack;
        group_of(stack, "shop/web-web:80").ip_address_type = IpAddressType::Ipv6;
    }), @"
    create target group k8s-shop-web-9627bb55b1 for shop/web-web:80
    create TargetGroupBinding shop/k8s-shop-web-9627bb55b1
    give the load balancer addresses: dualstack
    change listener 443: default forward to shop/web-web:80
    delete TargetGroupBinding shop/k8s-shop-web-8b744f0654
    wait for shop/k8s-shop-web-8b744f0654
    ");
}

#[test]
fn a_lost_binding_comes_back_and_a_changed_one_is_put_right() {
    insta::assert_snapshot!(drifted(|observed| {
        observed.bindings.remove(0);
    }), @"create TargetGroupBinding shop/k8s-shop-web-8b744f0654");
    insta::assert_snapshot!(drifted(|observed| {
        observed.bindings[0].labels.clear();
        observed.bindings[1].spec.networking = None;
    }), @r"
    update TargetGroupBinding shop/k8s-shop-web-8b744f0654
    update TargetGroupBinding shop/k8s-shop-api-0e82ee555c
    ");
}

#[test]
fn what_aws_shows_in_another_form_is_no_difference() {
    let mut stack = built(MANIFESTS);
    let redirect = Action::Redirect {
        host: None,
        path: None,
        port: None,
        protocol: None,
        query: Some(String::new()),
        status_code: "HTTP_301".to_owned(),
    };
    listener(&mut stack, 443).default_action = redirect;
    let balancer = stack.load_balancer.as_mut().unwrap();
    balancer.attributes.insert("routing.http2.enabled".to_owned(), "False".to_owned());
    let mut aws = Aws::with(&stack);
    let observed = &mut aws.observed.load_balancers[0];
    observed.attributes.as_mut().unwrap().insert("routing.http2.enabled".to_owned(), "false".to_owned());
    for existing in observed.listeners.get_or_insert_default().values_mut().filter(|existing| existing.port == 443) {
        for action in &mut existing.default_actions {
            if let Action::Redirect { query, .. } = action {
                *query = None;
            }
        }
    }
    assert_eq!(listed(&plan(&stack, &aws.observed)), "");
    // A value that is no switch counts as it is written.
    let of = &mut aws.observed.load_balancers[0].attributes;
    of.as_mut().unwrap().insert("routing.http2.enabled".to_owned(), "true".to_owned());
    assert_eq!(plan(&stack, &aws.observed).steps.len(), 1);
}

#[test]
fn labels_that_others_put_on_a_binding_are_no_difference() {
    assert_eq!(
        drifted(|observed| {
            for binding in &mut observed.bindings {
                binding.labels.insert("policy.example.com/team".to_owned(), "shop".to_owned());
            }
        }),
        ""
    );
}

#[test]
fn a_binding_that_is_going_is_made_anew_only_once_it_is_gone() {
    let stack = built(MANIFESTS);
    let mut aws = Aws::with(&stack);
    aws.observed.bindings[0].deleting = true;
    insta::assert_snapshot!(listed(&plan(&stack, &aws.observed)), @"wait for shop/k8s-shop-web-8b744f0654");
    aws.settle(&stack, 2);
    assert_eq!(aws.observed.bindings.len(), 2);
}

#[test]
fn a_binding_that_leads_to_a_target_group_that_is_no_more_goes_before_its_name_is_used_again() {
    let stack = built(MANIFESTS);
    let mut aws = Aws::with(&stack);
    let balancer = &mut aws.observed.load_balancers[0];
    for listener in balancer.listeners.get_or_insert_default().values_mut() {
        listener.rules.clear();
    }
    let gone = aws.observed.target_groups.iter().position(|group| group.name == "k8s-shop-api-0e82ee555c").unwrap();
    aws.observed.target_groups.remove(gone);
    insta::assert_snapshot!(listed(&plan(&stack, &aws.observed)), @r"
    create target group k8s-shop-api-0e82ee555c for shop/web-api:http
    create rule 1 of listener 443: host is shop.example.com and path is /api or /api/*
    delete TargetGroupBinding shop/k8s-shop-api-0e82ee555c
    wait for shop/k8s-shop-api-0e82ee555c
    ");
    aws.settle(&stack, 2);
    assert_eq!(aws.observed.bindings.len(), 2);
}

#[test]
fn a_binding_of_another_name_that_leads_to_the_group_is_its() {
    let stack = built(MANIFESTS);
    let mut aws = Aws::with(&stack);
    for (number, binding) in aws.observed.bindings.iter_mut().enumerate() {
        binding.name.name = format!("renamed-{number}");
    }
    assert_eq!(listed(&plan(&stack, &aws.observed)), "");
    // It is put right under its name, and goes with the stack.
    aws.observed.bindings[0].spec.node_selector = Some(Default::default());
    assert_eq!(listed(&plan(&stack, &aws.observed)), "update TargetGroupBinding shop/renamed-0");
    // A binding with the group's name comes first, and another one with its labels does not change.
    let copy = aws.observed.bindings[1].clone();
    let existing = aws.observed.target_groups.iter().find(|group| group.arn == copy.target_group).unwrap();
    let mut own = copy;
    own.name.name = existing.name.clone();
    aws.observed.bindings[1].spec.node_selector = Some(Default::default());
    aws.observed.bindings.push(own);
    assert_eq!(listed(&plan(&stack, &aws.observed)), "update TargetGroupBinding shop/renamed-0");
}

#[test]
fn a_new_group_does_not_take_the_name_of_a_binding_that_leads_to_another() {
    let stack = built(MANIFESTS);
    let mut aws = Aws::with(&stack);
    // A binding made for the group that would be made now, while the one before has another name and protocol.
    let wanted = stack.target_groups.values().next().unwrap().clone();
    let name = wanted.name.known().unwrap().as_str().to_owned();
    let before = aws.observed.target_groups.iter_mut().find(|group| group.name == name).unwrap();
    (before.name, before.protocol) = ("before".to_owned(), "OTHER".to_owned());
    let plan = plan(&stack, &aws.observed);
    let made: Vec<_> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            StepAction::CreateTargetGroup(made) | StepAction::CreateBinding(made) => Some(made.name.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(made, [wanted.second_name.clone(), wanted.second_name]);
}

#[test]
fn copies_are_left_alone_while_the_stack_lives_and_go_with_it() {
    let stack = built(MANIFESTS);
    let mut observed = Aws::with(&stack).observed;
    let mut copy = observed.load_balancers[0].clone();
    copy.arn = LoadBalancerArn::new("arn:loadbalancer/app/copy/9");
    copy.name = "copy".to_owned();
    observed.load_balancers.push(copy);
    assert_eq!(plan(&stack, &observed), Plan::empty());
    let deleted = plan(&Stack::empty(group()), &observed);
    let lines = listed(&deleted);
    insta::assert_snapshot!(lines.lines().take(2).collect::<Vec<_>>().join("\n"), @r"
    delete load balancer k8s-shop-web-17d71bc701 with its listeners and rules
    delete load balancer copy with its listeners and rules
    ");
}

#[test]
fn only_what_carries_the_tag_of_the_managed_security_group_is_taken_for_it() {
    let stack = built(MANIFESTS);
    let mut observed = Aws::with(&stack).observed;
    let other = ObservedSecurityGroup {
        id: SecurityGroupId::new("sg-0"),
        name: "other".to_owned(),
        tags: Tags::new(),
        ingress: Default::default(),
    };
    observed.security_groups.insert(0, other);
    assert_eq!(listed(&plan(&stack, &observed)), "");
}
