//! Listeners of QUIC: what AWS does not allow beside them goes first, and their targets are awaited.

use super::*;

/// Returns Services in no security group whose targets are pods, so that UDP can become QUIC where AWS allows it beside the rest; half of
/// them with QUIC.
fn may_be_quic() -> impl Strategy<Value = Choice> {
    (choice(), any::<Option<bool>>()).prop_map(|(mut choice, joined)| {
        (choice.pods, choice.access) = (true, AccessChoice::None);
        let Some(joined) = joined else { return choice };
        choice.addresses = AddressChoice::Ipv4;
        choice.ports.values_mut().for_each(|port| port.protocol = PortProtocol::Tcp);
        for port in choice.ports.values_mut().take(1) {
            (port.protocol, port.quic) = (if joined { PortProtocol::Both } else { PortProtocol::Udp }, true);
        }
        choice
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn to_quic_and_away_from_it_lead_few_rounds(place in place(), before in may_be_quic(), after in may_be_quic()) {
        let mut aws = Aws::with(&built(&before.manifest(place), &ObservedStack::default()).unwrap());
        let first = built(&after.manifest(place), &aws.observed).unwrap();
        aws.settle(&first, 2);
        let stack = built(&after.manifest(place), &aws.observed).unwrap();
        aws.settle(&stack, 2);
        prop_assert_eq!(lacking(&stack, &aws.observed), Vec::<String>::new());
        prop_assert!(!stack.interim && (first.interim || first == stack));
        prop_assert_eq!(built(&after.manifest(place), &aws.observed).unwrap(), stack);
    }
}

#[test]
fn quic_and_ipv6_addresses_take_turns_without_a_gap() {
    let place = Placement { scheme: Scheme::Internal, addressed: false };
    let choice = |protocol, quic, addresses| {
        let port = PortChoice { protocol, quic, idle_timeout: None, ..one_port(false).ports.remove(&443).unwrap() };
        Choice { ports: [(443, port)].into(), addresses, ..one_port(false) }
    };
    let dualstack = |six, translated| AddressChoice::Dualstack { six, translated, prefixes: None };
    let ways = [
        choice(PortProtocol::Udp, false, dualstack(true, true)),
        choice(PortProtocol::Udp, true, AddressChoice::Ipv4),
        choice(PortProtocol::Udp, false, dualstack(true, true)),
        choice(PortProtocol::Both, true, AddressChoice::Ipv4),
        choice(PortProtocol::Tcp, false, dualstack(true, false)),
        choice(PortProtocol::Udp, true, AddressChoice::Ipv4),
        choice(PortProtocol::Tcp, false, dualstack(false, false)),
    ];
    let [first, others @ ..] = ways;
    let mut aws = Aws::with(&built(&first.manifest(place), &ObservedStack::default()).unwrap());
    let mut rounds = Vec::new();
    for choice in others {
        let mut steps = Vec::new();
        for _ in 0..2 {
            let stack = built(&choice.manifest(place), &aws.observed).unwrap();
            let of_interest =
                |step: &String| ["listener ", "addresses", "subnets"].iter().any(|word| step.contains(word));
            let planned = plan(&stack, &aws.observed).steps;
            steps.extend(planned.iter().map(|step| step.action.to_string()).filter(of_interest));
            aws.settle(&stack, 2);
        }
        let stack = built(&choice.manifest(place), &aws.observed).unwrap();
        assert_eq!((lacking(&stack, &aws.observed), plan(&stack, &aws.observed)), (vec![], Plan::empty()));
        rounds.push(steps.join("\n"));
    }
    insta::assert_snapshot!(rounds.join("\n--\n"), @"
    change listener 443: default forward to shop/web:443
    put the load balancer into subnets: subnet-0, subnet-1; addresses: ipv4
    change listener 443: protocol QUIC, default forward to shop/web:443
    --
    change listener 443: protocol UDP, default forward to shop/web:443
    put the load balancer into subnets: subnet-0, subnet-1; addresses: dualstack; IPv6 source translation: on
    change listener 443: default forward to shop/web:443
    --
    change listener 443: protocol TCP_UDP, default forward to shop/web:443
    put the load balancer into subnets: subnet-0, subnet-1; addresses: ipv4
    change listener 443: protocol TCP_QUIC, default forward to shop/web:443
    --
    change listener 443: protocol TCP, default forward to shop/web:443
    give the load balancer addresses: dualstack
    change listener 443: default forward to shop/web:443
    --
    put the load balancer into subnets: subnet-0, subnet-1; IPv6 source translation: on
    change listener 443: protocol UDP, default forward to shop/web:443
    put the load balancer into subnets: subnet-0, subnet-1; addresses: ipv4
    change listener 443: protocol QUIC, default forward to shop/web:443
    --
    change listener 443: protocol TCP, default forward to shop/web:443
    give the load balancer addresses: dualstack
    ");
}

#[test]
fn addresses_wait_for_a_listener_that_waits_for_targets() {
    let place = Placement { scheme: Scheme::Internal, addressed: false };
    let choice = |quic, addresses| Choice { addresses, ..udp(quic) };
    let translated = AddressChoice::Dualstack { six: true, translated: true, prefixes: None };
    for (before, after) in [
        // Its targets have IPv6 addresses.
        (choice(false, translated), choice(false, AddressChoice::Ipv4)),
        // It is QUIC.
        (choice(true, AddressChoice::Ipv4), choice(false, translated)),
    ] {
        let mut aws = made(&built(&before.manifest(place), &ObservedStack::default()).unwrap());
        aws.observed.awaits_health = true;
        aws.observed.bindings.iter_mut().for_each(|b| (b.registered, b.allows_sources) = (Some(3), true));
        let stack = built(&after.manifest(place), &aws.observed).unwrap();
        let sets = |plan: &Plan| {
            let is_set = |action: &StepAction| {
                matches!(action, StepAction::SetSubnets { .. } | StepAction::SetIpAddressType { .. })
            };
            plan.steps.iter().any(|step| is_set(&step.action))
        };
        let first = plan(&stack, &aws.observed);
        let id = stack.target_groups[0].resource.clone();
        assert!(first.waits.contains(&Wait::Ready(id)) && !sets(&first), "{before:?}: {first:?}");
        aws.run(&stack, &first);
        assert!(!sets(&plan(&stack, &aws.observed)));
        aws.observed.bindings.iter_mut().for_each(|b| (b.registered, b.allows_sources) = (Some(3), true));
        let second = plan(&stack, &aws.observed);
        assert!(sets(&second), "{before:?}: {second:?}");
        aws.run(&stack, &second);
    }
}

#[test]
fn a_listener_goes_before_what_aws_does_not_allow_beside_it() {
    use PortProtocol::{Both, Tcp, Udp};
    let place = Placement { scheme: Scheme::Internal, addressed: false };
    let choice = |ports: &[(u16, PortProtocol, bool)]| Choice {
        ports: ports
            .iter()
            .map(|(number, protocol, quic)| {
                let port = one_port(false).ports.remove(&443).unwrap();
                (*number, PortChoice { protocol: *protocol, quic: *quic, idle_timeout: None, ..port })
            })
            .collect(),
        ..one_port(false)
    };
    let ways: [&[(u16, PortProtocol, bool)]; 8] = [
        &[(443, Udp, true)],
        // To another port, and back with TCP.
        &[(444, Udp, true)],
        &[(443, Both, true), (444, Tcp, false)],
        // From QUIC to UDP on two ports, and to QUIC on one of them.
        &[(53, Udp, false), (443, Udp, false)],
        &[(53, Tcp, false), (443, Udp, true)],
        &[(53, Udp, true), (443, Tcp, false)],
        // To one that is new, and away from it.
        &[(80, Both, true)],
        &[(53, Udp, false), (81, Both, false)],
    ];
    let [first, others @ ..] = ways;
    let mut aws = Aws::with(&built(&choice(first).manifest(place), &ObservedStack::default()).unwrap());
    aws.observed.retains_listeners = true;
    let mut rounds = Vec::new();
    for ports in others {
        let stack = built(&choice(ports).manifest(place), &aws.observed).unwrap();
        let plan = plan(&stack, &aws.observed);
        let steps = plan.steps.iter().map(|step| step.action.to_string());
        let steps = steps.filter(|step| step.contains(" listener ")).chain(plan.waits.iter().map(ToString::to_string));
        rounds.push(steps.collect::<Vec<_>>().join("\n"));
        aws.run(&stack, &plan);
        aws.observed.retains_listeners = false;
        aws.settle(&stack, 2);
        aws.observed.retains_listeners = true;
    }
    insta::assert_snapshot!(rounds.join("\n--\n"), @"
    delete listener 443 with its rules
    create listener QUIC 444
    waiting for TargetGroupBinding shop/k8s-shop-web-01012bc214 to be gone
    --
    change listener 444: protocol TCP, default forward to shop/web:444
    create listener TCP_QUIC 443
    waiting for TargetGroupBinding shop/k8s-shop-web-0b99f95d67 to be gone
    --
    change listener 443: protocol UDP, default forward to shop/web:443
    create listener UDP 53
    waiting for TargetGroupBinding shop/k8s-shop-web-196aa5669a to be gone
    waiting for clients to use the new listener before the one on port 444 goes
    --
    change listener 53: protocol TCP, default forward to shop/web:53
    change listener 443: protocol QUIC, default forward to shop/web:443
    waiting for TargetGroupBinding shop/k8s-shop-web-1b91872507 to be gone
    waiting for TargetGroupBinding shop/k8s-shop-web-85c6f8a309 to be gone
    --
    change listener 443: protocol TCP, default forward to shop/web:443
    change listener 53: protocol QUIC, default forward to shop/web:53
    waiting for TargetGroupBinding shop/k8s-shop-web-01012bc214 to be gone
    waiting for TargetGroupBinding shop/k8s-shop-web-304e24232c to be gone
    --
    delete listener 53 with its rules
    create listener TCP_QUIC 80
    waiting for TargetGroupBinding shop/k8s-shop-web-9bb8506213 to be gone
    waiting for clients to use the new listener before the one on port 443 goes
    --
    delete listener 80 with its rules
    create listener UDP 53
    create listener TCP_UDP 81
    waiting for TargetGroupBinding shop/k8s-shop-web-2588f4e03f to be gone
    ");
}

/// Returns a Service with one UDP port, which becomes QUIC or does not.
fn udp(quic: bool) -> Choice {
    let port = one_port(false).ports.remove(&443).unwrap();
    let port = PortChoice { protocol: PortProtocol::Udp, quic, idle_timeout: None, ..port };
    Choice { ports: [(443, port)].into(), ..one_port(false) }
}

#[test]
fn a_listener_becomes_quic_and_udp_again_when_its_targets_are_registered() {
    let place = Placement { scheme: Scheme::Internal, addressed: false };
    for (from, to, protocol) in [(false, true, "QUIC"), (true, false, "UDP")] {
        let before = built(&udp(from).manifest(place), &ObservedStack::default()).unwrap();
        let mut aws = made(&before);
        aws.observed.awaits_health = true;
        aws.observed.bindings.iter_mut().for_each(|b| (b.registered, b.allows_sources) = (Some(3), true));
        let stack = built(&udp(to).manifest(place), &aws.observed).unwrap();
        let id = stack.target_groups[0].resource.clone();
        let old = aws.observed.target_groups[0].arn.clone();
        let first = plan(&stack, &aws.observed);
        let is_about_listener = |step: &crate::plan::Step| step.action.to_string().contains(" listener ");
        assert!(first.waits.contains(&Wait::Ready(id.clone())) && !first.steps.iter().any(is_about_listener));
        aws.run(&stack, &first);
        let new = aws.observed.target_groups.iter().find(|group| group.arn != old).unwrap().arn.clone();
        aws.observed.bindings.iter_mut().for_each(|binding| binding.allows_sources = true);
        let next = |registered: Option<usize>, healthy_before: usize, overdue: bool| {
            let mut observed = aws.observed.clone();
            let of_new = observed.bindings.iter_mut().filter(|binding| binding.target_group == new);
            of_new.for_each(|binding| binding.registered = registered);
            observed.healthy = BTreeMap::from([(old.clone(), Some(healthy_before))]);
            observed.health_overdue.extend(overdue.then(|| id.clone()));
            plan(&stack, &observed)
        };
        let waits = Plan { waits: [Wait::Ready(id.clone())].into(), ..Plan::empty() };
        let steps = |plan: &Plan| plan.steps.iter().map(|step| step.action.to_string()).collect::<Vec<_>>();
        let changes = format!("change listener 443: protocol {protocol}, default forward to shop/web:443");
        for (registered, before, overdue, changed) in [
            (None, 3, false, false),
            (Some(3), 3, false, true),
            (Some(1), 3, false, true),
            // Nothing is a target, where something answered.
            (Some(0), 1, false, false),
            (Some(0), 0, false, true),
            (Some(0), 1, true, true),
            (None, 3, true, true),
        ] {
            let plan = next(registered, before, overdue);
            let case = format!("{protocol} {registered:?} {before} {overdue}: {plan:?}");
            match changed {
                true => assert_eq!(steps(&plan).first(), Some(&changes), "{case}"),
                false => assert_eq!((&plan.waits, steps(&plan)), (&waits.waits, vec![]), "{case}"),
            }
        }
        // What AWS does not allow beside it waits, too.
        let mut more = udp(to);
        let other = PortChoice { protocol: PortProtocol::Tcp, quic: false, ..more.ports[&443].clone() };
        more.ports.insert(80, other);
        let more = built(&more.manifest(place), &aws.observed).unwrap();
        let created = plan(&more, &aws.observed);
        assert!(steps(&created).contains(&"create listener TCP 80".to_owned()), "{created:?}");
        if !to {
            let mut more = udp(to);
            more.ports.insert(53, more.ports[&443].clone());
            let more = built(&more.manifest(place), &aws.observed).unwrap();
            let steps = steps(&plan(&more, &aws.observed));
            assert!(!steps.iter().any(|step| step.contains(" listener ")), "{steps:?}");
        }
        let arrived = next(Some(3), 3, false);
        aws.run(&stack, &arrived);
        aws.settle(&stack, 2);
        assert_eq!(lacking(&stack, &aws.observed), Vec::<String>::new());
    }
}

#[test]
fn a_listener_that_becomes_quic_changes_when_the_other_target_group_is_there() {
    let place = Placement { scheme: Scheme::Internal, addressed: false };
    let choice = |protocol, quic| {
        let port = PortChoice { protocol, quic, ..one_port(false).ports.remove(&443).unwrap() };
        Choice { ports: [(443, port)].into(), ..one_port(false) }
    };
    let mut aws =
        Aws::with(&built(&choice(PortProtocol::Udp, false).manifest(place), &ObservedStack::default()).unwrap());
    let mut rounds = Vec::new();
    for choice in [
        choice(PortProtocol::Udp, true),
        choice(PortProtocol::Both, true),
        choice(PortProtocol::Both, false),
        choice(PortProtocol::Udp, false),
    ] {
        let stack = built(&choice.manifest(place), &aws.observed).unwrap();
        let steps = plan(&stack, &aws.observed).steps;
        rounds.push(steps.iter().map(|step| step.action.to_string()).collect::<Vec<_>>().join("\n"));
        aws.settle(&stack, 2);
    }
    insta::assert_snapshot!(rounds.join("\n--\n"), @r"
    create target group k8s-shop-web-01012bc214 for shop/web:443
    set attributes of target group shop/web:443: proxy_protocol_v2.enabled=false
    create TargetGroupBinding shop/k8s-shop-web-01012bc214
    change listener 443: protocol QUIC, default forward to shop/web:443
    delete TargetGroupBinding shop/k8s-shop-web-1b91872507
    --
    create target group k8s-shop-web-196aa5669a for shop/web:443
    set attributes of target group shop/web:443: proxy_protocol_v2.enabled=false
    create TargetGroupBinding shop/k8s-shop-web-196aa5669a
    change listener 443: protocol TCP_QUIC, default forward to shop/web:443
    delete TargetGroupBinding shop/k8s-shop-web-01012bc214
    --
    create target group k8s-shop-web-dd2b3ed697 for shop/web:443
    set attributes of target group shop/web:443: proxy_protocol_v2.enabled=false
    create TargetGroupBinding shop/k8s-shop-web-dd2b3ed697
    change listener 443: protocol TCP_UDP, default forward to shop/web:443
    set attributes of listener 443: tcp.idle_timeout.seconds=400
    delete TargetGroupBinding shop/k8s-shop-web-196aa5669a
    --
    create target group k8s-shop-web-1b91872507 for shop/web:443
    set attributes of target group shop/web:443: proxy_protocol_v2.enabled=false
    create TargetGroupBinding shop/k8s-shop-web-1b91872507
    change listener 443: protocol UDP, default forward to shop/web:443
    delete TargetGroupBinding shop/k8s-shop-web-dd2b3ed697
    ");
}
