//! QUIC: which ports become it, and what the load balancer and its targets need for it.

use super::*;

const NONE: (&str, &str) = ("aws-load-balancer-disable-nlb-sg", "true");
const BOTH: (&str, &str) = ("aws-load-balancer-enable-tcp-udp-listener", "true");
const PORTS: &str = "  ports:\n  - {name: http, port: 80, targetPort: 8080}\n  - {name: h3, port: 443, targetPort: 8443, protocol: UDP}\n";
const WEB: &str = "  ports:\n  - {name: https, port: 443, targetPort: 8443}\n  - {name: h3, port: 443, targetPort: 8443, protocol: UDP}\n  - {name: http, port: 80, targetPort: 8080}\n";

fn quic(ports: &str) -> (&'static str, &str) {
    ("aws-load-balancer-quic-enabled-ports", ports)
}

#[test]
fn a_udp_port_becomes_quic() {
    insta::assert_snapshot!(shown(&stack(&[IP, NONE, quic("h3")], PORTS)), @r#"
    network load balancer k8s-shop-web-c098d5716f internal in
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-5be514aeea ip TCP 8080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from 10.0.0.0/24, 10.0.1.0/24 on tcp 8080
    target group shop/web:443 k8s-shop-web-01012bc214 ip QUIC 8443
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 443
      reached from 10.0.0.0/16 on udp 8443
      reached from 10.0.0.0/24, 10.0.1.0/24 on tcp 8443
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    listener QUIC 443 to Own(ResourceId("shop/web:443"))
    "#);
    assert_eq!(stack(&[IP, NONE, quic("443")], PORTS), stack(&[IP, NONE, quic("h3")], PORTS));
    assert_eq!(stack(&[IP, NONE, quic(" h3 , 443")], PORTS), stack(&[IP, NONE, quic("h3")], PORTS));
}

#[test]
fn tcp_and_udp_of_one_port_become_tcp_and_quic() {
    insta::assert_snapshot!(shown(&stack(&[IP, NONE, BOTH, quic("443")], WEB)), @r#"
    network load balancer k8s-shop-web-c098d5716f internal in
      subnet-a
      subnet-b
      attributes
    target group shop/web:443 k8s-shop-web-196aa5669a ip TCP_QUIC 8443
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 443
      reached from 10.0.0.0/16 on tcp 8443, udp 8443
    target group shop/web:80 k8s-shop-web-5be514aeea ip TCP 8080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from 10.0.0.0/24, 10.0.1.0/24 on tcp 8080
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    listener TCP_QUIC 443 to Own(ResourceId("shop/web:443"))
    "#);
    // Of the two ports' names, the first one is that of the listener.
    assert_eq!(stack(&[IP, NONE, BOTH, quic("https")], WEB), stack(&[IP, NONE, BOTH, quic("443")], WEB));
    assert_eq!(stack(&[IP, NONE, BOTH, quic("h3,https")], WEB), stack(&[IP, NONE, BOTH, quic("443")], WEB));
    let second = build_with(&service(&[IP, NONE, BOTH, quic("h3")], &format!("{CLASS}{WEB}")), &config(), &facts());
    assert_eq!(second.stack, Some(stack(&[IP, NONE, BOTH], WEB)));
    insta::assert_snapshot!(messages(&second), @"Warning no-effect on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: port `h3` (UDP/443) is the second one of its number, whose listener is named after the first, so that its name has no effect; write the number, `443`");
}

#[test]
fn health_checks_of_quic_reach_the_targets() {
    let reached = |annotations: &[(&str, &str)]| {
        let all = [&[IP, quic("h3")], annotations].concat();
        let built = build_with(&service(&all, &format!("{CLASS}{PORTS}")), &config(), &facts());
        let groups = built.stack.unwrap().target_groups;
        let group = groups.values().find(|group| group.protocol == TargetGroupProtocol::Quic).unwrap();
        let rules = group.binding.networking.iter().flatten();
        let from = |peer: &NetworkingPeer| match peer {
            NetworkingPeer::Cidr(block) => block.clone(),
            NetworkingPeer::SecurityGroup(_) => unreachable!("the load balancer is in none"),
        };
        let ports =
            |port: &NetworkingPort| format!("{} {}", if port.udp { "udp" } else { "tcp" }, port.port.as_ref().unwrap());
        let rule = |rule: &NetworkingRule| {
            let from: Vec<String> = rule.from.iter().map(from).collect();
            let ports: Vec<String> = rule.ports.iter().map(ports).collect();
            format!("{}: {}", from.join(" "), ports.join(" "))
        };
        rules.map(rule).collect::<Vec<_>>().join("; ")
    };
    let checked = ("aws-load-balancer-healthcheck-port", "8181");
    let ranges = ("load-balancer-source-ranges", "192.0.2.0/24");
    for (annotations, expected) in [
        (vec![NONE], "10.0.0.0/16: udp 8443; 10.0.0.0/24 10.0.1.0/24: tcp 8443"),
        (vec![NONE, ranges], "192.0.2.0/24: udp 8443; 10.0.0.0/24 10.0.1.0/24: tcp 8443"),
        (vec![NONE, checked], "10.0.0.0/16: udp 8443; 10.0.0.0/24 10.0.1.0/24: tcp 8181"),
    ] {
        assert_eq!(reached(&annotations), expected, "{annotations:?}");
    }
}

#[test]
fn messages_about_quic() {
    insta::assert_snapshot!(reported(&[IP, NONE, quic("h3,h4,81")], PORTS), @"Warning missing-port on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: `h4`, `81` is not a port of the Service and has no effect; it has `http` (TCP/80), `h3` (UDP/443); name its UDP ports by name or number");
    // Only what exists gets into a listener.
    insta::assert_snapshot!(reported(&[IP, NONE, quic("http")], WEB), @r#"
    Warning unsupported on Service shop/web: spec.ports[1]: the ports `https` (TCP/443) and `h3` (UDP/443) have the same number; only the first gets a listener, and the second is not served; write `service.beta.kubernetes.io/aws-load-balancer-enable-tcp-udp-listener: "true"` to have TCP and UDP served on one port
    Error unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: port `http` (TCP/80) gets a TCP listener, and only UDP can become QUIC; name only UDP ports; for TCP and QUIC on one port, give the Service a UDP port of the same number too and write `service.beta.kubernetes.io/aws-load-balancer-enable-tcp-udp-listener: "true"`
    "#);
    // Without the annotation for both, only the first port of the number is served.
    insta::assert_snapshot!(reported(&[IP, NONE, quic("443")], WEB), @r#"
    Warning unsupported on Service shop/web: spec.ports[1]: the ports `https` (TCP/443) and `h3` (UDP/443) have the same number; only the first gets a listener, and the second is not served; write `service.beta.kubernetes.io/aws-load-balancer-enable-tcp-udp-listener: "true"` to have TCP and UDP served on one port
    Error unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: port `https` (TCP/443) gets a TCP listener, and only UDP can become QUIC; name only UDP ports; for TCP and QUIC on one port, give the Service a UDP port of the same number too and write `service.beta.kubernetes.io/aws-load-balancer-enable-tcp-udp-listener: "true"`
    "#);
    insta::assert_snapshot!(reported(&[NONE, quic("h3")], &PORTS.replace("port:", "nodePort: 30053, port:")), @"Error unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: port `h3` (UDP/443) becomes QUIC, and AWS takes its targets only with a QUIC server id each, which pods can have and instances cannot; write `service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip`, or remove the port from the annotation");
    insta::assert_snapshot!(reported(&[IP, quic("h3")], PORTS), @r#"Error unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: port 443 becomes QUIC, and AWS allows that only on a Network Load Balancer in no security group, while this one is in some; write `service.beta.kubernetes.io/aws-load-balancer-disable-nlb-sg: "true"`, or start the controller with `--feature-gates=NLBSecurityGroup=false`"#);
    let built = build_with(
        &service(&[IP, quic("h3")], &format!("{CLASS}{PORTS}")),
        &config(),
        &existing(Scheme::Internal, true),
    );
    insta::assert_snapshot!(messages(&built), @r#"Error unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: port 443 becomes QUIC, and AWS allows that only on a Network Load Balancer in no security group, while this one is in some; make a second Service with `service.beta.kubernetes.io/aws-load-balancer-disable-nlb-sg: "true"` and delete this one when clients have moved; AWS cannot take a load balancer out of all security groups"#);
    assert!(built.stack.is_none());
    let built = build_with(
        &service(&[IP, quic("h3")], &format!("{CLASS}{PORTS}")),
        &config(),
        &existing(Scheme::Internal, false),
    );
    assert_eq!(messages(&built), "");
    let gate = BuildConfig { nlb_security_groups: false, ..config() };
    assert_eq!(messages(&build_with(&service(&[IP, quic("h3")], &format!("{CLASS}{PORTS}")), &gate, &facts())), "");
    let tls = ("aws-load-balancer-ssl-cert", "arn:aws:acm:eu-west-1:1:certificate/a");
    insta::assert_snapshot!(reported(&[IP, NONE, tls, quic("http")], WEB), @r#"
    Warning unsupported on Service shop/web: spec.ports[1]: the ports `https` (TCP/443) and `h3` (UDP/443) have the same number; only the first gets a listener, and the second is not served; write `service.beta.kubernetes.io/aws-load-balancer-enable-tcp-udp-listener: "true"` to have TCP and UDP served on one port
    Error unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: port `http` (TCP/80) gets a TLS listener, and only UDP can become QUIC; name only UDP ports; for TCP and QUIC on one port, give the Service a UDP port of the same number too and write `service.beta.kubernetes.io/aws-load-balancer-enable-tcp-udp-listener: "true"`
    "#);
}

#[test]
fn what_aws_does_not_allow_with_quic_is_refused() {
    let udp = "  ports:\n  - {name: dns, port: 53, targetPort: 5353, protocol: UDP}\n  - {name: h3, port: 443, targetPort: 8443, protocol: UDP}\n";
    insta::assert_snapshot!(reported(&[IP, NONE, quic("h3")], udp), @"Error unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: port 443 becomes QUIC, and AWS allows no listener of QUIC or TCP_QUIC beside those of UDP or TCP_UDP, which the Service gets on 53; move port 443 to another Service, or remove it from the annotation");
    insta::assert_snapshot!(reported(&[IP, NONE, quic("53,h3")], udp), @"Error unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: the ports 53, 443 become QUIC, and AWS allows one listener of QUIC or TCP_QUIC on a load balancer; name one port, and serve the others by Services of their own");
    let joined = format!("{WEB}  - {{name: dns, port: 53, protocol: UDP}}\n  - {{name: dns-tcp, port: 53}}\n");
    insta::assert_snapshot!(reported(&[IP, NONE, BOTH, quic("https")], &joined), @"Error unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: port 443 becomes QUIC, and AWS allows no listener of QUIC or TCP_QUIC beside those of UDP or TCP_UDP, which the Service gets on 53; move port 443 to another Service, or remove it from the annotation");
    assert_eq!(reported(&[IP, NONE, BOTH, quic("https")], WEB), "");
    let dual = [IP, NONE, quic("h3"), ("aws-load-balancer-ip-address-type", "dualstack")];
    insta::assert_snapshot!(reported(&dual, PORTS), @"Error unsupported on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: port 443 becomes QUIC, and AWS allows that only on a load balancer without IPv6; write `ipv4` in `service.beta.kubernetes.io/aws-load-balancer-ip-address-type`, or remove the port from the annotation");
}

#[test]
fn a_port_becomes_quic_when_the_load_balancer_has_no_ipv6_addresses_any_more() {
    let before = existing(Scheme::Internal, false);
    let there = before.existing.clone().unwrap();
    let with =
        |has_ipv6| Facts { existing: Some(ExistingLoadBalancer { has_ipv6, ..there.clone() }), ..before.clone() };
    let listeners = |annotations: &[(&str, &str)], ports: &str, facts: &Facts| {
        let built = build_with(&service(annotations, &format!("{CLASS}{ports}")), &config(), facts);
        assert_eq!(messages(&built), "");
        let stack = built.stack.unwrap();
        assert_eq!(stack.interim, !stack.listeners.values().any(|listener| listener.protocol.is_quic()));
        let group =
            |port: &u16| stack.target_groups.values().find(|g| g.resource.as_str().ends_with(&format!(":{port}")));
        let shown = |(port, listener): (&u16, &Listener)| {
            format!("{} to {}", listener.protocol, group(port).unwrap().protocol.as_str())
        };
        stack.listeners.iter().map(shown).collect::<Vec<_>>().join(", ")
    };
    for (annotations, ports, meanwhile, then) in [
        (vec![IP, NONE, quic("h3")], PORTS, "TCP to TCP, UDP to UDP", "TCP to TCP, QUIC to QUIC"),
        (vec![IP, NONE, BOTH, quic("443")], WEB, "TCP to TCP, TCP_UDP to TCP_UDP", "TCP to TCP, TCP_QUIC to TCP_QUIC"),
    ] {
        assert_eq!(listeners(&annotations, ports, &with(true)), meanwhile);
        assert_eq!(listeners(&annotations, ports, &with(false)), then);
        // Another one takes its place.
        let other = [annotations.as_slice(), &[("aws-load-balancer-scheme", "internet-facing")]].concat();
        assert_eq!(listeners(&other, ports, &with(true)), then);
    }
}

#[test]
fn targets_get_ipv6_addresses_when_the_listener_is_no_longer_quic() {
    let before = existing(Scheme::Internal, false);
    let there = before.existing.clone().unwrap();
    let annotations = [IP, NONE, ("aws-load-balancer-ip-address-type", "dualstack")];
    let ports = "  ipFamilies: [IPv4, IPv6]\n  ports:\n  - {name: http, port: 80, targetPort: 8080}\n";
    for (has_quic, expected) in [(true, IpAddressType::Ipv4), (false, IpAddressType::Ipv6)] {
        let facts = Facts { existing: Some(ExistingLoadBalancer { has_quic, ..there.clone() }), ..before.clone() };
        let built = build_with(&service(&annotations, &format!("{CLASS}{ports}")), &config(), &facts);
        let stack = built.stack.unwrap();
        assert_eq!(stack.interim, has_quic);
        assert_eq!(stack.load_balancer.unwrap().ip_address_type, IpAddressType::Dualstack);
        assert_eq!(stack.target_groups[0].ip_address_type, expected);
    }
}
