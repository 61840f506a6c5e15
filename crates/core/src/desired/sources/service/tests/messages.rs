//! The messages about Services, word for word.

use super::*;

#[test]
fn annotations_of_classic_load_balancers() {
    let written = [
        IP,
        ("aws-load-balancer-connection-draining-enabled", "true"),
        ("aws-load-balancer-connection-draining-timeout", "60"),
        ("aws-load-balancer-connection-idle-timeout", "60"),
        ("aws-load-balancer-extra-security-groups", "sg-1"),
        ("aws-load-balancer-access-log-emit-interval", "5"),
        ("aws-load-balancer-ssl-cert", "arn:aws:acm:eu-west-1:1:certificate/a"),
        ("aws-load-balancer-ssl-ports", "*"),
        ("aws-load-balancer-sheme", "internal"),
    ];
    let built = build_with(&service(&written, &format!("{CLASS}{TWO_PORTS}")), &config(), &facts());
    insta::assert_snapshot!(messages(&built), @r"
    Warning unknown-annotation on Service shop/web: annotation `service.beta.kubernetes.io/aws-load-balancer-sheme` is not known and has no effect; write `service.beta.kubernetes.io/aws-load-balancer-scheme`, if that is what is meant
    Warning annotation-not-built on Service shop/web: annotation `service.beta.kubernetes.io/aws-load-balancer-access-log-emit-interval` has no effect on a Network Load Balancer; remove it: a Network Load Balancer writes its access logs every 5 minutes, which cannot be changed
    Warning annotation-not-built on Service shop/web: annotation `service.beta.kubernetes.io/aws-load-balancer-connection-draining-enabled` has no effect on a Network Load Balancer; a Network Load Balancer always drains; write `deregistration_delay.timeout_seconds=<seconds>` in `service.beta.kubernetes.io/aws-load-balancer-target-group-attributes` for how long
    Warning annotation-not-built on Service shop/web: annotation `service.beta.kubernetes.io/aws-load-balancer-connection-draining-timeout` has no effect on a Network Load Balancer; write `deregistration_delay.timeout_seconds=<seconds>` in `service.beta.kubernetes.io/aws-load-balancer-target-group-attributes`
    Warning annotation-not-built on Service shop/web: annotation `service.beta.kubernetes.io/aws-load-balancer-connection-idle-timeout` has no effect on a Network Load Balancer; write `tcp.idle_timeout.seconds=<seconds>` in `service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP-<port>`
    Warning annotation-not-built on Service shop/web: annotation `service.beta.kubernetes.io/aws-load-balancer-extra-security-groups` has no effect on a Network Load Balancer; name all security groups in `service.beta.kubernetes.io/aws-load-balancer-security-groups`, which takes the place of the managed one
    Warning invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-ssl-ports: `*` is for Classic Load Balancers; here it is read as every port that is not UDP; remove the annotation, which means the same
    ");
    assert!(built.stack.unwrap().listeners.values().all(|listener| listener.protocol == ListenerProtocol::Tls));
}

#[test]
fn every_mistake_is_told_at_once() {
    let written = [
        ("aws-load-balancer-scheme", "public"),
        ("aws-load-balancer-healthcheck-port", "nowhere"),
        ("aws-load-balancer-ssl-ports", "443,admin"),
        ("aws-load-balancer-ssl-cert", "my-certificate"),
        ("aws-load-balancer-proxy-protocol", "true"),
        ("aws-load-balancer-name", "not_a_name"),
        ("load-balancer-source-ranges", "::/0"),
        ("aws-load-balancer-attributes", "dns_record.client_routing_policy=near"),
        ("aws-load-balancer-target-group-attributes", "preserve_client_ip.enabled=yes"),
    ];
    insta::assert_snapshot!(reported(&written, "  ports: [{port: 80}, {port: 90, protocol: SCTP}]\n"), @r"
    Error invalid-value on Service shop/web: annotation `service.beta.kubernetes.io/aws-load-balancer-scheme` of the Service has the value `public`; allowed: `internal` or `internet-facing`
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-attributes: `dns_record.client_routing_policy=near` is not a policy that AWS knows; write one of `any_availability_zone`, `partial_availability_zone_affinity`, `availability_zone_affinity`
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-name: `not_a_name` is not a valid name: it has a character that is neither letter, digit nor hyphen; a name has 1 to 32 letters, digits and hyphens, neither starts nor ends with a hyphen, and does not start with `internal-`; choose another name
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/load-balancer-source-ranges: `::/0` is a block of IPv6, and the load balancer has only IPv4 addresses; remove it, or write `dualstack` in `service.beta.kubernetes.io/aws-load-balancer-ip-address-type`
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-ssl-cert: `my-certificate` is not the ARN of a certificate; write ARNs of ACM or IAM certificates, separated by commas: arn:aws:acm:<region>:<account>:certificate/<id>
    Error missing-port on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-ssl-ports: `443`, `admin` is not a port of the Service; it has TCP/80, SCTP/90; name its ports by name or number
    Error unsupported on Service shop/web: spec.ports[1].protocol: a Network Load Balancer does not support SCTP; write `TCP` or `UDP`, or move the port to another Service
    Error unsupported on Service shop/web: spec.ports[0].nodePort: port 80 of the Service of type LoadBalancer has no node port, but its targets are instances; write `service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip`, or write the node port that the API server has given it
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-healthcheck-port: `nowhere` is neither a port number nor the name of a port of the Service; write `traffic-port`, a port number, or the name of a port of the Service
    Error invalid-value on Service shop/web: annotation `service.beta.kubernetes.io/aws-load-balancer-proxy-protocol` of the Service has the value `true`; allowed: `*`
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-target-group-attributes: `preserve_client_ip.enabled=yes` is not a boolean; write `true` or `false`
    ");
}

#[test]
fn ports() {
    let one =
        "  ports:\n  - {name: t, port: 53, nodePort: 30053}\n  - {name: u, port: 53, protocol: UDP, nodePort: 30054}\n";
    insta::assert_snapshot!(reported(&[], one), @r#"Warning unsupported on Service shop/web: spec.ports[1]: the ports `t` (TCP/53) and `u` (UDP/53) have the same number; only the first gets a listener, and the second is not served; write `service.beta.kubernetes.io/aws-load-balancer-enable-tcp-udp-listener: "true"` to have TCP and UDP served on one port"#);
    let thrice = format!("{one}  - {{name: x, port: 53, nodePort: 30055}}\n");
    insta::assert_snapshot!(reported(&[("aws-load-balancer-enable-tcp-udp-listener", "true")], &thrice), @"Error unsupported on Service shop/web: spec.ports[0]: the ports `t` (TCP/53) and `u` (UDP/53) and `x` (TCP/53) cannot become one listener; use a number for at most one TCP and one UDP port");
    insta::assert_snapshot!(reported(&[("aws-load-balancer-enable-tcp-udp-listener", "perhaps")], PORT), @"Warning invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-enable-tcp-udp-listener: the value `perhaps` is not a boolean and has no effect; write `true` or `false`");
    insta::assert_snapshot!(reported(&[("aws-load-balancer-nlb-target-type", "IP")], "  ports: [{port: 80}]\n"), @r"
    Warning invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: `IP` is not a target type; the targets are instances; write `ip` or `instance`
    Error unsupported on Service shop/web: spec.ports[0].nodePort: port 80 of the Service of type LoadBalancer has no node port, but its targets are instances; write `service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip`, or write the node port that the API server has given it
    ");
    insta::assert_snapshot!(reported(&[], &format!("{PORT}  externalTrafficPolicy: Local\n")), @"Error missing-port on Service shop/web: spec.healthCheckNodePort: the traffic policy is `Local`, and the Service has no port for health checks; write the port that the API server has given it, or one in `service.beta.kubernetes.io/aws-load-balancer-healthcheck-port`");
    insta::assert_snapshot!(reported(&[IP], &format!("{PORT}  ipFamilies: [IPv4, IPv6]\n")), @"Error unsupported on Service shop/web: spec.ipFamilies: the Service has IPv6 addresses, and its load balancer has only IPv4 addresses; write `dualstack` in `service.beta.kubernetes.io/aws-load-balancer-ip-address-type`, or set `spec.ipFamilies: [IPv4]`");
}

#[test]
fn what_is_written_for_nothing() {
    let written = [
        ("aws-load-balancer-listener-attributes.TCP-80", "tcp.idle_timeout.seconds=60"),
        ("aws-load-balancer-listener-attributes.TLS-443", "tcp.idle_timeout.seconds=60"),
        ("aws-load-balancer-listener-attributes.TCP-443", "tcp.idle_timeout.seconds=60"),
        ("aws-load-balancer-ssl-cert", "arn:aws:acm:eu-west-1:1:certificate/a"),
        ("aws-load-balancer-ssl-ports", "443"),
        ("aws-load-balancer-target-group-attributes.81", "a=b"),
        ("aws-load-balancer-proxy-protocol-per-target-group", "82"),
    ];
    insta::assert_snapshot!(reported(&written, TWO_PORTS), @r"
    Warning missing-port on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP-443: the load balancer has no listener `TCP-443`; the annotation has no effect; name one of its listeners: `TCP-80`, `TLS-443`
    Warning missing-port on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-target-group-attributes.81: the Service has no port 81; what is written for it has no effect; name one of its ports by number
    Warning missing-port on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-proxy-protocol-per-target-group: the Service has no port 82; what is written for it has no effect; name one of its ports by number
    Warning unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TLS-443: a TLS listener has no attributes; the annotation has no effect; remove it
    ");
    insta::assert_snapshot!(reported(&[("aws-load-balancer-ssl-ports", "443")], TWO_PORTS), @"Warning missing-certificate on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-ssl-ports: without a certificate no port gets TLS; they are served without it; name the certificate in `service.beta.kubernetes.io/aws-load-balancer-ssl-cert`, or remove the annotation");
    let given =
        [("aws-load-balancer-security-groups", "my-sg-1"), ("aws-load-balancer-security-group-prefix-lists", "pl-1")];
    insta::assert_snapshot!(reported(&given, &format!("{PORT}  loadBalancerSourceRanges: [10.0.0.0/8]\n")), @r"
    Warning unsupported on Service shop/web: spec.loadBalancerSourceRanges: it has no effect: the load balancer is in security groups of yours, whose rules are yours; write the allowed sources into the rules of a security group of the load balancer
    Warning unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-security-group-prefix-lists: it has no effect: the load balancer is in security groups of yours, whose rules are yours; write the allowed sources into the rules of a security group of the load balancer
    ");
    let none = [IP, ("aws-load-balancer-disable-nlb-sg", "true"), ("aws-load-balancer-security-groups", "my-sg-1")];
    insta::assert_snapshot!(reported(&none, &format!("{PORT}  loadBalancerSourceRanges: [10.0.0.0/8]\n")), @r"
    Warning unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-security-groups: the annotation has no effect: the load balancer is in no security group, as `service.beta.kubernetes.io/aws-load-balancer-disable-nlb-sg` asks; remove one of the two annotations
    Warning unsupported on Service shop/web: spec.loadBalancerSourceRanges: it has no effect: the load balancer is in no security group, and its targets do not see clients' addresses; write `preserve_client_ip.enabled=true` in `service.beta.kubernetes.io/aws-load-balancer-target-group-attributes`
    ");
}

#[test]
fn with_the_gate_off_a_new_load_balancer_is_in_no_security_group() {
    let config = BuildConfig { nlb_security_groups: false, ..config() };
    let given = [("aws-load-balancer-security-groups", "my-sg-1")];
    let built = build_with(&service(&given, &format!("{CLASS}{PORT}")), &config, &facts());
    insta::assert_snapshot!(messages(&built), @"Warning unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-security-groups: the annotation has no effect: the load balancer is in no security group, as the controller's flag `--feature-gates=NLBSecurityGroup=false` asks; remove the annotation, or start the controller without the gate");
    let stack = built.stack.unwrap();
    assert_eq!((stack.load_balancer.unwrap().security_groups, stack.security_group), (vec![], None));
    let built = build_with(&service(&[], &format!("{CLASS}{PORT}")), &config, &existing(Scheme::Internal, true));
    assert_eq!(built.stack, None);
    insta::assert_snapshot!(messages(&built), @"Error replacement-needed on Service shop/web: --feature-gates=NLBSecurityGroup=false: the load balancer is in security groups, and AWS cannot take a Network Load Balancer out of all of them; start the controller without the gate, or make a second Service and delete this one when clients have moved");
    let built = build_with(&service(&[], &format!("{CLASS}{PORT}")), &config, &existing(Scheme::Internal, false));
    insta::assert_snapshot!(messages(&built), @"");
    assert_eq!(built.stack.unwrap().load_balancer.unwrap().security_groups, []);
}

#[test]
fn addresses_and_subnets() {
    insta::assert_snapshot!(reported(&[("aws-load-balancer-eip-allocations", "eipalloc-1")], PORT), @"Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-eip-allocations: the load balancer is internal, and only one that is internet-facing can have such addresses; remove the annotation, or write `internet-facing` in `service.beta.kubernetes.io/aws-load-balancer-scheme`");
    insta::assert_snapshot!(reported(&[("aws-load-balancer-scheme", "internet-facing"), ("aws-load-balancer-eip-allocations", "eipalloc-1")], PORT), @"Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-eip-allocations: the annotation has 1 addresses for 2 subnets (subnet-a, subnet-b); write one a subnet, or choose the subnets with `service.beta.kubernetes.io/aws-load-balancer-subnets`");
    insta::assert_snapshot!(reported(&[("aws-load-balancer-private-ipv4-addresses", "10.0.0.8,10.0.0.9")], PORT), @r"
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-private-ipv4-addresses: 2 of the addresses lie in the subnet `subnet-a` (10.0.0.0/24), and it needs exactly one; write one address of each subnet
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-private-ipv4-addresses: 0 of the addresses lie in the subnet `subnet-b` (10.0.1.0/24), and it needs exactly one; write one address of each subnet
    ");
    insta::assert_snapshot!(reported(&[("aws-load-balancer-private-ipv4-addresses", "10.0.0.8,x")], PORT), @"Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-private-ipv4-addresses: `x` is not an IPv4 address; write addresses such as `10.0.0.5`");
    insta::assert_snapshot!(reported(&[("aws-load-balancer-subnets", "")], PORT), @"Error subnets on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-subnets: the annotation names no subnet; name subnets by id or by their tag `Name`, or remove the annotation");
}

#[test]
fn what_aws_cannot_change_in_place() {
    let reported = |annotations: &[(&str, &str)], facts: &Facts| {
        let built = build_with(&service(annotations, &format!("{CLASS}{PORT}")), &config(), facts);
        assert_eq!(built.stack, None);
        messages(&built)
    };
    let named = [("aws-load-balancer-scheme", "internet-facing"), ("aws-load-balancer-name", "edge")];
    let there = Facts { names: ["edge".to_owned()].into(), ..existing(Scheme::Internal, true) };
    insta::assert_snapshot!(reported(&named, &there), @"Error replacement-needed on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-name: the scheme becomes internet-facing, which needs another load balancer than the one that is internal, and two cannot have the name `edge` while one takes over from the other; give it another name too, or leave the scheme as it is");
    insta::assert_snapshot!(reported(&[("aws-load-balancer-disable-nlb-sg", "true")], &existing(Scheme::Internal, true)), @"Error replacement-needed on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-disable-nlb-sg: the load balancer is in security groups, and AWS cannot take a Network Load Balancer out of all of them; remove the annotation, or make a second Service with it and delete this one when clients have moved");
    let config = BuildConfig {
        external_managed_tags: ["Owner".to_owned()].into(),
        enable_backend_security_group: false,
        ..config()
    };
    let annotations = [
        ("aws-load-balancer-additional-resource-tags", "Owner=me"),
        ("aws-load-balancer-security-groups", "my-sg-1"),
        ("aws-load-balancer-manage-backend-security-group-rules", "true"),
    ];
    let built = build_with(&service(&annotations, &format!("{CLASS}{PORT}")), &config, &facts());
    insta::assert_snapshot!(messages(&built), @r"
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-additional-resource-tags: the tag `Owner` is managed outside of the cluster (--external-managed-tags); remove it from the annotation
    Error unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-manage-backend-security-group-rules: rules on nodes and pods name the shared security group as their source, and --enable-backend-security-group=false does without it; set the annotation to `false` and allow traffic to the targets yourself, or start the controller with the shared security group
    ");
}

#[test]
fn what_must_be_known_is_asked_for_together() {
    let annotations = [("aws-load-balancer-disable-nlb-sg", "true")];
    let built = build_with(&service(&annotations, &format!("{CLASS}{PORT}")), &config(), &Facts::default());
    assert_eq!((built.stack.is_none(), messages(&built)), (true, String::new()));
    let built = build_with(&service(&[], &format!("{CLASS}{PORT}")), &config(), &Facts::default());
    let query = SubnetQuery::Discovered { kind: LoadBalancerKind::Network, scheme: Scheme::Internal, ipv6: false };
    let wanted = [crate::facts::FactQuery::Subnets(query), crate::facts::FactQuery::BackendSecurityGroup];
    assert_eq!(built.wants, wanted.into());
}

#[test]
fn rules_for_private_link() {
    let name = "aws-load-balancer-inbound-sg-rules-on-private-link-traffic";
    insta::assert_snapshot!(reported(&[(name, "true")], PORT), @"Error invalid-value on Service shop/web: annotation `service.beta.kubernetes.io/aws-load-balancer-inbound-sg-rules-on-private-link-traffic` of the Service has the value `true`; allowed: `on` or `off`");
    let none = [(name, "on"), ("aws-load-balancer-disable-nlb-sg", "true")];
    insta::assert_snapshot!(reported(&none, PORT), @"Warning unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-inbound-sg-rules-on-private-link-traffic: it has no effect: the load balancer is in no security group, as `service.beta.kubernetes.io/aws-load-balancer-disable-nlb-sg` asks; remove it");
    for (written, wanted) in [(None, None), (Some("on"), Some(true)), (Some("off"), Some(false))] {
        let written: Vec<_> = written.map(|word| (name, word)).into_iter().collect();
        assert_eq!(stack(&written, PORT).load_balancer.unwrap().network.private_link_rules, wanted);
    }
}

#[test]
fn reserved_capacity() {
    let name = "aws-load-balancer-minimum-load-balancer-capacity";
    let all = ["CapacityUnits=-1", "Units=1", "3000"].map(|written| reported(&[(name, written)], PORT));
    insta::assert_snapshot!(all.join("--\n"), @r"
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-minimum-load-balancer-capacity: `-1` is not a number of capacity units; write `CapacityUnits=<number>`; 0 ends the reservation
    --
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-minimum-load-balancer-capacity: `Units` is not an entry of it; write `CapacityUnits=<number>`; 0 ends the reservation
    --
    Error invalid-value on Service shop/web: annotation `service.beta.kubernetes.io/aws-load-balancer-minimum-load-balancer-capacity` of the Service has the value `3000`: `3000` is not a pair `key=value`; allowed: pairs `key=value` separated by commas; a comma inside a value is written `\,`
    ");
    let gate = BuildConfig { capacity_reservation: false, ..config() };
    let manifest = service(&[(name, "CapacityUnits=3000")], &format!("{CLASS}{PORT}"));
    let built = build_with(&manifest, &gate, &facts());
    insta::assert_snapshot!(messages(&built), @"Warning no-effect on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-minimum-load-balancer-capacity: the controller runs with `--feature-gates=LBCapacityReservation=false`, so that the reserved capacity of the load balancer stays as it is; start the controller with `--feature-gates=LBCapacityReservation=true`, or remove the setting");
    assert_eq!(built.stack.unwrap().load_balancer.unwrap().add_ons.capacity, None);
    let capacity = stack(&[(name, "CapacityUnits=3000")], PORT).load_balancer.unwrap().add_ons.capacity.unwrap();
    assert_eq!((capacity.value.units(), capacity.cause.field.ends_with(name)), (3000, true));
    assert_eq!(stack(&[(name, "")], PORT).load_balancer.unwrap().add_ons.capacity, None);
}
