//! Services, arbitrary ones, built as the controller builds them: with the existing load balancer known. A plan leads to
//! the desired stack, and from any Service there is a way to any other, as far as AWS allows it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use self::choice::{
    AccessChoice, AddressChoice, Choice, Placement, PortChoice, PortProtocol, choice, one_port, place, subnet,
};
use super::{
    aws::{Aws, BACKEND_GROUP},
    plan,
    replaced::{converge, made},
};
use crate::{
    desired::sources::service,
    diagnostics::Severity,
    facts::{ExistingLoadBalancer, Fact, FactQuery, Facts, SubnetQuery},
    model::*,
    plan::{Plan, StepAction, Wait, render},
    testing::{build_config, snapshot},
};

mod choice;
mod quic;

/// Returns the stack of a Service whose load balancer may exist already, with every fact answered that the build requests;
/// or the errors.
fn built(manifest: &str, observed: &ObservedStack) -> Result<Stack, String> {
    let (snapshot, config) = (snapshot(manifest), build_config());
    let existing = observed.load_balancers.first().map(|balancer| ExistingLoadBalancer {
        kind: balancer.kind,
        scheme: balancer.scheme,
        has_security_groups: !balancer.security_groups.is_empty(),
        has_ipv6: balancer.ip_address_type.has_ipv6(),
        has_quic: balancer.has_quic(),
        customer_owned_pool: None,
        subnets: balancer.subnets.clone(),
    });
    let mut facts = Facts { existing, ..Facts::default() };
    for _ in 0..4 {
        let built = service::build(&snapshot, &config, &facts, &ObjectName::new("shop", "web"));
        let errors: Vec<_> = built.diagnostics.iter().filter(|d| d.severity == Severity::Error).collect();
        if !errors.is_empty() {
            return Err(errors.iter().map(ToString::to_string).collect());
        }
        if built.wants.is_empty() {
            return Ok(built.stack.unwrap());
        }
        for want in built.wants {
            match want {
                FactQuery::Protection => facts.protected = Some(std::collections::BTreeSet::new()),
                FactQuery::Current
                | FactQuery::CurrentAddOn(_)
                | FactQuery::WebAcl(_)
                | FactQuery::ShieldSubscription
                | FactQuery::ManagedCertificates
                | FactQuery::HostedZones
                | FactQuery::Limits => unreachable!("only groups of Ingresses ask for it"),
                FactQuery::Subnets(query) => {
                    let subnets = match &query {
                        SubnetQuery::Discovered { .. } | SubnetQuery::Tagged { .. } => vec![subnet(0), subnet(1)],
                        SubnetQuery::Named { names, .. } => names
                            .iter()
                            .map(|name| subnet(name.strip_prefix("subnet-").unwrap().parse().unwrap()))
                            .collect(),
                    };
                    facts.subnets.insert(query, Fact::Known(subnets));
                }
                FactQuery::SecurityGroups(names) => {
                    let ids = names.iter().map(SecurityGroupId::new).collect();
                    facts.security_groups.insert(names, Fact::Known(ids));
                }
                FactQuery::Certificates(_) | FactQuery::TrustStore(_) | FactQuery::Secret(_) => {
                    panic!("no Service wants {want:?}")
                }
                FactQuery::VpcBlocks => {
                    let (ipv4, ipv6) = (vec!["10.0.0.0/16".to_owned()], vec!["2001:db8::/56".to_owned()]);
                    facts.vpc_blocks = Some(Fact::Known(VpcBlocks { ipv4, ipv6 }));
                }
                FactQuery::TargetGroup(name) => panic!("no Service names a target group: {name}"),
                FactQuery::BackendSecurityGroup => {
                    facts.backend_security_group = Some(Fact::Known(SecurityGroupId::new(BACKEND_GROUP)));
                }
            }
        }
    }
    panic!("building has no end");
}

fn includes<V: PartialEq>(all: &BTreeMap<String, V>, some: &BTreeMap<String, V>) -> bool {
    some.iter().all(|(key, value)| all.get(key) == Some(value))
}

/// Returns the parts of the stack that AWS lacks, judged without the planner.
fn lacking(stack: &Stack, observed: &ObservedStack) -> Vec<String> {
    let mut lacking = Vec::new();
    let mut check = |holds: bool, what: String| lacking.extend((!holds).then_some(what));
    let wanted = stack.load_balancer.as_ref().unwrap();
    let balancer = &observed.load_balancers[0];
    let managed = observed.security_groups.iter().map(|group| group.id.clone()).next();
    let id = |reference: &SecurityGroupReference| match reference {
        SecurityGroupReference::Managed => managed.clone(),
        SecurityGroupReference::SharedBackend(id) | SecurityGroupReference::Given(id) => id.known().cloned(),
    };
    let groups: Option<BTreeSet<_>> = wanted.security_groups.iter().map(id).collect();
    check(groups.as_ref() == Some(&balancer.security_groups), format!("security groups {groups:?}"));
    let subnets: BTreeSet<_> = wanted.subnets.known().unwrap().iter().map(|m| m.subnet.clone()).collect();
    check(subnets == balancer.subnets, format!("subnets {subnets:?}"));
    check(wanted.ip_address_type == balancer.ip_address_type, "address type".to_owned());
    check(wanted.network.ipv6_source_nat == balancer.network.ipv6_source_nat, "source NAT".to_owned());
    let rules = wanted.network.private_link_rules;
    check(rules.is_none() || rules == balancer.network.private_link_rules, "rules for PrivateLink".to_owned());
    for mapping in wanted.subnets.known().unwrap() {
        let prefix = mapping.source_nat_prefix.as_ref().and_then(|prefix| prefix.fixed()).map(ToString::to_string);
        let known = balancer.network.source_nat_prefixes.get(&mapping.subnet);
        check(prefix.is_none() || prefix.as_ref() == known, format!("prefix {prefix:?}"));
    }
    check(includes(balancer.attributes.as_ref().unwrap(), &wanted.attributes), "attributes".to_owned());
    check(includes(&balancer.tags, &wanted.tags), "tags".to_owned());
    let rules = |group: &ManagedSecurityGroup| group.ingress.iter().cloned().collect::<BTreeSet<_>>();
    let opened: Vec<_> = observed.security_groups.iter().map(|group| group.ingress.clone()).collect();
    let open: Vec<_> = stack.security_group.iter().map(rules).collect();
    check(opened == open, format!("rules {open:?}, not {opened:?}"));

    let ports: Vec<_> = stack.listeners.keys().collect();
    check(
        balancer.known_listeners().map(|listener| &listener.port).collect::<Vec<_>>() == ports,
        format!("listeners {ports:?}"),
    );
    for (wanted, listener) in stack.listeners.values().zip(balancer.known_listeners()) {
        let led = listener.default_actions.iter().flat_map(Action::target_groups);
        let led: Vec<_> =
            led.map(|arn| observed.target_groups.iter().find(|g| g.arn == *arn).and_then(|g| g.resource())).collect();
        let to = [Some(ResourceId::of_tag(format!("shop/web:{}", wanted.port)))];
        let same = listener.protocol == Some(wanted.protocol)
            && listener.default_certificate == wanted.default_certificate
            && listener.ssl_policy == wanted.ssl_policy
            && wanted
                .alpn_policy
                .as_ref()
                .is_none_or(|policy| listener.alpn_policy.as_deref().unwrap_or("None") == policy)
            && includes(listener.attributes.as_ref().unwrap(), &wanted.attributes)
            && includes(&listener.tags, &wanted.tags)
            && listener.rules.is_empty()
            && led == to;
        // The certificate that was the default before may stay among the others.
        let certificates = listener.certificates.iter().filter(|c| wanted.default_certificate.as_ref() != Some(*c));
        let certificates: BTreeSet<_> = certificates.cloned().collect();
        check(same && certificates == wanted.certificates, format!("{wanted:?}, but {listener:?}"));
    }
    check(observed.target_groups.len() == stack.target_groups.len(), "number of target groups".to_owned());
    for wanted in stack.target_groups.values() {
        let group = observed.target_groups.iter().find(|g| g.resource().as_ref() == Some(&wanted.resource));
        let same = group.is_some_and(|group| {
            group.protocol == wanted.protocol.as_str()
                && group.target_type == wanted.target_type.as_str()
                && group.ip_address_type == wanted.ip_address_type
                && group.health_check.as_ref() == Some(&wanted.health_check)
                && includes(group.attributes.as_ref().unwrap(), &wanted.attributes)
                && includes(&group.tags, &wanted.tags)
                && observed.bindings.iter().filter(|b| b.target_group == group.arn && !b.deleting).count() == 1
        });
        check(same, format!("{wanted:?}, but {group:?}"));
    }
    check(observed.bindings.len() == stack.target_groups.len(), "number of bindings".to_owned());
    lacking
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_plan_makes_a_service_from_nothing(place in place(), choice in choice()) {
        let stack = built(&choice.manifest(place), &ObservedStack::default()).unwrap();
        let mut aws = Aws::default();
        let made = plan(&stack, &aws.observed);
        prop_assert!(made.steps.iter().all(|step| !step.action.is_destructive()));
        prop_assert_eq!(&made, &plan(&stack, &aws.observed));
        aws.run(&stack, &made);
        prop_assert_eq!(plan(&stack, &aws.observed), Plan::empty());
        prop_assert_eq!(lacking(&stack, &aws.observed), Vec::<String>::new());
        // The build from the created load balancer requests no changes.
        let again = built(&choice.manifest(place), &aws.observed).unwrap();
        prop_assert_eq!(plan(&again, &aws.observed), Plan::empty());
    }

    #[test]
    fn from_any_service_two_rounds_or_three_lead_to_any_other_and_to_nothing(
        place in place(),
        before in choice(),
        after in choice(),
    ) {
        let mut aws = Aws::with(&built(&before.manifest(place), &ObservedStack::default()).unwrap());
        let secured = before.access != AccessChoice::None;
        let private_link = aws.observed.load_balancers[0].network.private_link_rules;
        match built(&after.manifest(place), &aws.observed) {
            Ok(stack) => {
                // Targets allow the new groups before the load balancer is in them, and the old groups until then.
                let rounds = if before.access.in_front() == after.access.in_front() { 2 } else { 3 };
                aws.settle(&stack, rounds);
                // What AWS does not allow with the addresses of before waits for them, and the other way round.
                let stack = built(&after.manifest(place), &aws.observed).unwrap();
                aws.settle(&stack, 2);
                prop_assert_eq!(lacking(&stack, &aws.observed), Vec::<String>::new());
                prop_assert_eq!(aws.observed.load_balancers[0].security_groups.is_empty(), !secured);
                prop_assert_eq!(&built(&after.manifest(place), &aws.observed).unwrap(), &stack);
                // Without the annotation it stays.
                let stays = after.private_link.is_some() || !secured;
                let now = aws.observed.load_balancers[0].network.private_link_rules;
                prop_assert!(stays || now == private_link);
            }
            // AWS takes no Network Load Balancer out of all its security groups.
            Err(refused) => prop_assert!(secured && after.access == AccessChoice::None, "{}", refused),
        }
        aws.settle(&Stack::empty(StackId::Service(ObjectName::new("shop", "web"))), 2);
        prop_assert!(aws.observed.is_empty());
    }

    #[test]
    fn a_service_of_the_other_scheme_is_served_by_the_old_load_balancer_until_the_new_one_serves(
        before in choice(), after in choice(), internal in any::<bool>(),
        addressed in any::<bool>(), stops in prop::collection::vec(0..6_usize, 0..12),
    ) {
        let (first, other) = match internal {
            true => (Scheme::Internal, Scheme::InternetFacing),
            false => (Scheme::InternetFacing, Scheme::Internal),
        };
        // Each has addresses of the kind of its scheme.
        let (first, other) = (Placement { scheme: first, addressed }, Placement { scheme: other, addressed });
        let mut aws = made(&built(&before.manifest(first), &ObservedStack::default()).unwrap());
        let secured = before.access != AccessChoice::None;
        let wanted = match built(&after.manifest(other), &aws.observed) {
            Ok(wanted) => wanted,
            Err(refused) => {
                prop_assert!(secured && after.access == AccessChoice::None, "{}", refused);
                return Ok(());
            }
        };
        converge(&mut aws, &wanted, &stops);
        prop_assert_eq!(aws.observed.load_balancers.len(), 1);
        prop_assert_eq!(aws.observed.load_balancers[0].scheme, other.scheme);
        prop_assert_eq!(lacking(&wanted, &aws.observed), Vec::<String>::new());
        // When only the new load balancer is left, the build requests no changes.
        let again = built(&after.manifest(other), &aws.observed).unwrap();
        prop_assert_eq!(plan(&again, &aws.observed), Plan::empty());
    }
}

#[test]
fn a_network_load_balancer_from_nothing_as_people_read_it() {
    let place = Placement { scheme: Scheme::Internal, addressed: true };
    let stack = built(&one_port(true).manifest(place), &ObservedStack::default()).unwrap();
    insta::assert_snapshot!(render(&plan(&stack, &ObservedStack::default())), @"
    + create target group k8s-shop-web-476bc582f2 for shop/web:443
        targets          ip of Service shop/web port 443, TCP
        health check     TCP on traffic-port, every 10 s, timeout 10 s, healthy after 3, unhealthy after 3
        tags             elbv2.k8s.aws/cluster=demo, service.k8s.aws/resource=shop/web:443, service.k8s.aws/stack=shop/web
        because of       Service shop/web generation 1, spec.ports[0]
    ~ set attributes of target group shop/web:443: proxy_protocol_v2.enabled=false
        because of       Service shop/web generation 1, spec.ports[0]
    + create TargetGroupBinding shop/k8s-shop-web-476bc582f2
        because of       Service shop/web generation 1, spec.ports[0]
    + create load balancer k8s-shop-web-c098d5716f
        scheme           internal, ipv4
        subnets          subnet-0 (10.0.0.9), subnet-1 (10.0.1.9)
        security groups  none
        tags             elbv2.k8s.aws/cluster=demo, service.k8s.aws/resource=LoadBalancer, service.k8s.aws/stack=shop/web
        because of       Service shop/web generation 1, spec
    + create listener TLS 443
        default          forward to shop/web:443
        certificate      arn:aws:acm:eu-west-1:111122223333:certificate/0
        TLS policy       ELBSecurityPolicy-2016-08
        ALPN policy      HTTP2Preferred
        tags             elbv2.k8s.aws/cluster=demo, service.k8s.aws/resource=443, service.k8s.aws/stack=shop/web
        because of       Service shop/web generation 1, spec.ports[0]
    ");
}

#[test]
fn success_codes_that_are_not_requested_stay_as_they_are() {
    let place = Placement { scheme: Scheme::Internal, addressed: false };
    let mut stack = built(&one_port(false).manifest(place), &ObservedStack::default()).unwrap();
    let mut codes = |written: Option<&str>| {
        let check = &mut stack.target_groups[0].health_check;
        (check.protocol, check.path) = (HealthCheckProtocol::Http, Some("/".to_owned()));
        check.matcher = written.map(|codes| Matcher::Http(codes.to_owned()));
        stack.clone()
    };
    let aws = Aws::with(&codes(Some("200-399")));
    let mut steps = |written| {
        let steps = plan(&codes(written), &aws.observed).steps;
        steps.iter().map(|step| step.action.to_string()).collect::<Vec<_>>().join("\n")
    };
    assert_eq!([steps(None), steps(Some("200-399"))], [""; 2]);
    insta::assert_snapshot!(steps(Some("200")), @"change the health check of target group shop/web:443");
}

/// Returns the steps for a listener with a policy when no annotation requests one under `EnhancedDefaultBehavior`, and those
/// for the same listener once AWS shows no policy.
fn resets_alpn() -> [String; 2] {
    let place = Placement { scheme: Scheme::Internal, addressed: false };
    let mut aws = Aws::with(&built(&one_port(true).manifest(place), &ObservedStack::default()).unwrap());
    let mut stack = built(&Choice { alpn: None, ..one_port(true) }.manifest(place), &aws.observed).unwrap();
    stack.listeners.values_mut().for_each(|listener| listener.alpn_policy = Some("None".to_owned()));
    let steps = |aws: &Aws| {
        let steps: Vec<_> = plan(&stack, &aws.observed).steps.iter().map(|step| step.action.to_string()).collect();
        steps.join("\n")
    };
    let reset = steps(&aws);
    aws.settle(&stack, 1);
    let listeners = aws.observed.load_balancers.iter_mut().flat_map(|balancer| balancer.listeners.iter_mut().flatten());
    listeners.for_each(|(_, listener)| listener.alpn_policy = None);
    [reset, steps(&aws)]
}

#[test]
fn a_listener_has_attributes_without_tls_and_alpn_with_it() {
    let place = Placement { scheme: Scheme::Internal, addressed: false };
    let mut aws = Aws::with(&built(&one_port(true).manifest(place), &ObservedStack::default()).unwrap());
    let mut steps = |choice: &Choice| {
        let stack = built(&choice.manifest(place), &aws.observed).unwrap();
        let steps: Vec<_> = plan(&stack, &aws.observed).steps.iter().map(|step| step.action.to_string()).collect();
        aws.settle(&stack, 1);
        steps.join("\n")
    };
    insta::assert_snapshot!(steps(&one_port(false)), @"
    change listener 443: protocol TCP
    set attributes of listener 443: tcp.idle_timeout.seconds=400
    ");
    insta::assert_snapshot!(steps(&one_port(true)), @"change listener 443: protocol TLS, TLS policy ELBSecurityPolicy-2016-08, ALPN policy HTTP2Preferred, default certificate arn:aws:acm:eu-west-1:111122223333:certificate/0");
    insta::assert_snapshot!(steps(&Choice { alpn: Some("None"), ..one_port(true) }), @"change listener 443: ALPN policy None");
    // The word for none is `None`; without the annotation the policy stays.
    insta::assert_snapshot!(steps(&Choice { alpn: None, ..one_port(true) }), @"");
    // Under the gate it is switched off, and AWS may show nothing then.
    assert_eq!(resets_alpn(), ["change listener 443: ALPN policy None", ""]);
    // It does not come back with what it had before.
    insta::assert_snapshot!(steps(&one_port(false)), @"
    change listener 443: protocol TCP
    set attributes of listener 443: tcp.idle_timeout.seconds=400
    ");
}

/// Returns the rounds from one access to another, with one step a line. Targets allow the sources of their bindings one
/// round later.
fn rounds(before: AccessChoice, after: AccessChoice) -> String {
    let place = Placement { scheme: Scheme::Internal, addressed: false };
    let choice = |access| Choice { access, ..one_port(false) };
    let mut aws = Aws::with(&built(&choice(before).manifest(place), &ObservedStack::default()).unwrap());
    let stack = built(&choice(after).manifest(place), &aws.observed).unwrap();
    let mut rounds = Vec::new();
    for _ in 0..8 {
        let next = plan(&stack, &aws.observed);
        if next == Plan::empty() {
            assert_eq!(lacking(&stack, &aws.observed), Vec::<String>::new());
            return rounds.join("\n--\n");
        }
        let steps = next.steps.iter().map(|step| match &step.action {
            StepAction::UpdateBinding { keeps_networking: true, .. } => {
                format!("{}, who was let in still", step.action)
            }
            action => action.to_string(),
        });
        rounds.push(steps.chain(next.waits.iter().map(|wait| format!("({wait})"))).collect::<Vec<_>>().join("\n"));
        aws.run(&stack, &next);
        let is_new = next.steps.iter().any(|step| matches!(step.action, StepAction::UpdateBinding { .. }));
        aws.observed.bindings.iter_mut().for_each(|binding| binding.allows_sources = !is_new);
    }
    panic!("{}", rounds.join("\n--\n"));
}

#[test]
fn a_network_load_balancer_changes_its_groups_when_its_targets_let_the_new_ones_in() {
    let given = |manage| AccessChoice::Given { second: false, manage };
    let managed = AccessChoice::Managed { restricted: false };
    let all = [
        rounds(managed, given(true)),
        rounds(given(true), managed),
        // The targets are opened first, by the controller that others have opened them for until now.
        rounds(given(false), managed),
        // If others open the targets to the new groups, the old groups are allowed until the load balancer has left them.
        rounds(managed, given(false)),
        rounds(given(true), given(false)),
    ];
    insta::assert_snapshot!(all.join("\n====\n"), @"
    put the load balancer into security groups: sg-mine, the shared backend group sg-shared
    delete security group sg-1
    ====
    create security group k8s-shop-web-5c7e143220
    open the new security group: tcp 443 from 0.0.0.0/0
    put the load balancer into security groups: its own, the shared backend group sg-shared
    ====
    create security group k8s-shop-web-5c7e143220
    update TargetGroupBinding shop/k8s-shop-web-476bc582f2, who was let in still
    open the new security group: tcp 443 from 0.0.0.0/0
    (waiting for the targets of TargetGroupBinding shop/k8s-shop-web-476bc582f2 to allow the load balancer's new security groups)
    --
    (waiting for the targets of TargetGroupBinding shop/k8s-shop-web-476bc582f2 to allow the load balancer's new security groups)
    --
    put the load balancer into security groups: its own, the shared backend group sg-shared
    ====
    put the load balancer into security groups: sg-mine
    delete security group sg-1
    --
    update TargetGroupBinding shop/k8s-shop-web-476bc582f2
    ====
    put the load balancer into security groups: sg-mine
    --
    update TargetGroupBinding shop/k8s-shop-web-476bc582f2
    ");
}

#[test]
fn who_is_let_in_already_or_by_others_is_not_waited_for() {
    let given = |manage| AccessChoice::Given { second: false, manage };
    let managed = AccessChoice::Managed { restricted: false };
    for (before, after) in [(managed, given(false)), (given(true), managed), (managed, given(true))] {
        let place = Placement { scheme: Scheme::Internal, addressed: false };
        let choice = |access| Choice { access, ..one_port(false) };
        let mut aws = Aws::with(&built(&choice(before).manifest(place), &ObservedStack::default()).unwrap());
        let stack = built(&choice(after).manifest(place), &aws.observed).unwrap();
        // Something of another binding keeps EC2 from taking rules of that source.
        aws.observed.bindings.iter_mut().for_each(|binding| binding.allows_sources = false);
        let next = plan(&stack, &aws.observed);
        let regroups = next.steps.iter().any(|step| matches!(step.action, StepAction::SetSecurityGroups { .. }));
        assert!(regroups, "{before:?} to {after:?}: {next:?}");
    }
}

#[test]
fn who_arrives_behind_a_network_load_balancer_waits_for_as_many_healthy_targets_as_before() {
    let place = Placement { scheme: Scheme::Internal, addressed: true };
    let stack = built(&one_port(false).manifest(place), &ObservedStack::default()).unwrap();
    let mut aws = made(&stack);
    aws.observed.awaits_health = true;
    aws.observed.bindings.iter_mut().for_each(|b| (b.registered, b.allows_sources) = (Some(3), true));
    let new = aws.observed.target_groups[0].clone();
    let old = ObservedTargetGroup { arn: TargetGroupArn::new("arn:old"), ..new.clone() };
    aws.observed.target_groups.push(old.clone());
    let waits = |observed: &ObservedStack, healthy: usize| {
        let healthy = BTreeMap::from([(new.arn.clone(), Some(healthy)), (old.arn.clone(), Some(2))]);
        plan(&stack, &ObservedStack { healthy, ..observed.clone() })
            .waits
            .contains(&Wait::Ready(new.resource().unwrap()))
    };
    // Who is published already is not looked at.
    assert!(!waits(&aws.observed, 0));
    aws.observed.arriving = BTreeSet::from([stack.id.object()]);
    assert_eq!([0, 1, 2, 3].map(|healthy| waits(&aws.observed, healthy)), [true, true, false, false]);
    // Nothing tells the health of targets that let nothing in.
    aws.observed.bindings.iter_mut().for_each(|binding| binding.allows_sources = false);
    assert!(waits(&aws.observed, 3));
}

#[test]
fn address_families_and_source_nat_change_in_the_order_that_aws_takes() {
    let place = Placement { scheme: Scheme::Internal, addressed: false };
    let port = |protocol| PortChoice { protocol, ..one_port(false).ports.remove(&443).unwrap() };
    let choice = |protocol, addresses| Choice { ports: [(53, port(protocol))].into(), addresses, ..one_port(false) };
    let dualstack = |six, translated, prefixes| AddressChoice::Dualstack { six, translated, prefixes };
    let ways = [
        choice(PortProtocol::Tcp, AddressChoice::Ipv4),
        choice(PortProtocol::Tcp, dualstack(true, false, None)),
        choice(PortProtocol::Udp, dualstack(true, true, Some(0))),
        choice(PortProtocol::Udp, dualstack(true, true, Some(1))),
        choice(PortProtocol::Udp, AddressChoice::Ipv4),
        // The listener of UDP goes after there are IPv6 addresses, and AWS takes both only with source NAT.
        choice(PortProtocol::Tcp, dualstack(false, false, None)),
        choice(PortProtocol::Tcp, AddressChoice::Ipv4),
    ];
    let [first, others @ ..] = ways;
    let mut aws = Aws::with(&built(&first.manifest(place), &ObservedStack::default()).unwrap());
    let mut rounds = Vec::new();
    for choice in others {
        let stack = built(&choice.manifest(place), &aws.observed).unwrap();
        let steps = plan(&stack, &aws.observed).steps;
        let steps = steps.iter().map(|step| step.action.to_string());
        let of_interest = |step: &String| {
            ["listener", "addresses", "subnets", "create target"].iter().any(|word| step.contains(word))
        };
        rounds.push(steps.filter(of_interest).collect::<Vec<_>>().join("\n"));
        aws.settle(&stack, 2);
    }
    insta::assert_snapshot!(rounds.join("\n--\n"), @"
    create target group k8s-shop-web-9944723028 for shop/web:53
    give the load balancer addresses: dualstack
    change listener 53: default forward to shop/web:53
    --
    create target group k8s-shop-web-85c6f8a309 for shop/web:53
    put the load balancer into subnets: subnet-0 (source translation 2001:db8::/80), subnet-1 (source translation 2001:db8:0:1::/80); IPv6 source translation: on
    change listener 53: protocol UDP, default forward to shop/web:53
    --
    put the load balancer into subnets: subnet-0 (source translation auto_assigned), subnet-1 (source translation 2001:db8:0:1:1::/80); IPv6 source translation: on
    --
    create target group k8s-shop-web-21be36047a for shop/web:53
    change listener 53: default forward to shop/web:53
    put the load balancer into subnets: subnet-0, subnet-1; addresses: ipv4
    --
    create target group k8s-shop-web-304e24232c for shop/web:53
    put the load balancer into subnets: subnet-0, subnet-1; addresses: dualstack; IPv6 source translation: on
    change listener 53: protocol TCP, default forward to shop/web:53
    set attributes of listener 53: tcp.idle_timeout.seconds=400
    put the load balancer into subnets: subnet-0, subnet-1
    --
    give the load balancer addresses: ipv4
    ");
}

#[test]
fn rules_for_private_link_are_kept_where_security_groups_change() {
    let place = Placement { scheme: Scheme::Internal, addressed: false };
    let (managed, given) =
        (AccessChoice::Managed { restricted: false }, AccessChoice::Given { second: false, manage: true });
    let choice = |access, private_link| Choice { access, private_link, ..one_port(false) };
    let mut aws = Aws::default();
    let mut rounds = Vec::new();
    for choice in [
        choice(managed, Some(false)),
        choice(given, None),
        choice(given, Some(true)),
        choice(given, None),
        choice(managed, Some(false)),
    ] {
        let stack = built(&choice.manifest(place), &aws.observed).unwrap();
        let steps = plan(&stack, &aws.observed).steps;
        let steps = steps.iter().filter(|step| matches!(step.action, StepAction::SetSecurityGroups { .. }));
        rounds.push(steps.map(|step| step.action.to_string()).collect::<Vec<_>>().join("\n"));
        aws.settle(&stack, 3);
    }
    insta::assert_snapshot!(rounds.join("\n--\n"), @"
    put the load balancer into security groups: its own, the shared backend group sg-shared; rules for PrivateLink: off
    --
    put the load balancer into security groups: sg-mine, the shared backend group sg-shared; rules for PrivateLink: off
    --
    put the load balancer into security groups: sg-mine, the shared backend group sg-shared; rules for PrivateLink: on
    --

    --
    put the load balancer into security groups: its own, the shared backend group sg-shared; rules for PrivateLink: off
    ");
}
