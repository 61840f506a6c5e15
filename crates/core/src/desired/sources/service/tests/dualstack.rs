//! Load balancers and targets with IPv6 addresses.

use super::*;

const DUALSTACK: (&str, &str) = ("aws-load-balancer-ip-address-type", "dualstack");
const SOURCE_NAT: (&str, &str) = ("aws-load-balancer-enable-prefix-for-ipv6-source-nat", "on");
const WITHOUT_GROUPS: (&str, &str) = ("aws-load-balancer-disable-nlb-sg", "true");
const UDP: &str = "  ports: [{port: 53, protocol: UDP, targetPort: 5353, nodePort: 30053}]\n";

#[test]
fn a_service_of_both_families_has_targets_of_ipv6() {
    let written = [DUALSTACK, IP, ("aws-load-balancer-enable-icmp-for-path-mtu-discovery", "on")];
    insta::assert_snapshot!(shown(&stack(&written, &format!("{PORT}  ipFamilies: [IPv4, IPv6]\n"))), @r#"
    security group k8s-shop-web-5c7e143220: tcp 80 from 0.0.0.0/0; icmp 3-4 from 0.0.0.0/0; tcp 80 from ::/0; icmpv6 2-0 from ::/0
    network load balancer k8s-shop-web-c098d5716f internal in managed, shared sg-shared
      dualstack without source NAT
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-5be514aeea ip TCP 8080 ipv6
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from shared sg-shared on tcp 8080
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    "#);
}

#[test]
fn a_dualstack_load_balancer_may_have_targets_of_ipv4() {
    let written = [DUALSTACK, ("load-balancer-source-ranges", "10.0.0.0/8, 2001:DB8:1::1/48")];
    insta::assert_snapshot!(shown(&stack(&written, PORT)), @r#"
    security group k8s-shop-web-5c7e143220: tcp 80 from 10.0.0.0/8; tcp 80 from 2001:db8:1::/48
    network load balancer k8s-shop-web-c098d5716f internal in managed, shared sg-shared
      dualstack without source NAT
      subnet-a
      subnet-b
      attributes
    target group shop/web:80 k8s-shop-web-00612ad8b1 instance TCP 30080
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 80
      reached from shared sg-shared on tcp 30080
    listener TCP 80 to Own(ResourceId("shop/web:80"))
    "#);
}

#[test]
fn udp_is_sent_on_from_prefixes() {
    let written = [
        DUALSTACK,
        SOURCE_NAT,
        ("aws-load-balancer-source-nat-ipv6-prefixes", "2001:db8:0:a:1::/80, auto_assigned"),
        // In any order: each goes to the subnet that it lies in.
        ("aws-load-balancer-ipv6-addresses", "2001:db8:0:b::9, 2001:db8:0:a:0::8"),
    ];
    insta::assert_snapshot!(shown(&stack(&written, UDP)), @r#"
    security group k8s-shop-web-5c7e143220: udp 53 from 0.0.0.0/0; udp 53 from ::/0
    network load balancer k8s-shop-web-c098d5716f internal in managed, shared sg-shared
      dualstack with source NAT
      subnet-a 2001:db8:0:a::8 2001:db8:0:a:1::/80
      subnet-b 2001:db8:0:b::9 auto_assigned
      attributes
    target group shop/web:53 k8s-shop-web-a779d3699b instance UDP 30053
      checked TCP traffic-port - every 10 in 10, 3/3, -
      attributes proxy_protocol_v2.enabled=false
      bound to web 53
      reached from shared sg-shared on udp 30053, tcp 30053
    listener UDP 53 to Own(ResourceId("shop/web:53"))
    "#);
}

#[test]
fn blocks_of_ipv6_reach_targets_of_ipv6_behind_a_load_balancer_without_security_groups() {
    let families = "  ipFamilies: [IPv6]\n";
    let reached = |written: &[(&str, &str)], spec: &str| {
        let written = [&[DUALSTACK, WITHOUT_GROUPS], written].concat();
        let shown = shown(&stack(&written, &format!("{spec}{families}")));
        let lines = shown.lines().filter(|line| line.starts_with("  reached"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let facing = ("aws-load-balancer-scheme", "internet-facing");
    let all = [
        reached(&[], PORT),
        reached(&[facing], PORT),
        reached(&[facing, ("load-balancer-source-ranges", "2001:db8:1::/48, 192.0.2.0/24")], PORT),
        reached(&[IP], PORT),
        reached(&[IP, SOURCE_NAT], UDP),
    ];
    insta::assert_snapshot!(all.join("\n--\n"), @"
      reached from 2001:db8::/56 on tcp 30080
    --
      reached from ::/0 on tcp 30080
    --
      reached from 2001:db8:1::/48, 192.0.2.0/24 on tcp 30080
      reached from 2001:db8:0:a::/64, 2001:db8:0:b::/64 on tcp 30080
    --
      reached from 2001:db8:0:a::/64, 2001:db8:0:b::/64 on tcp 8080
    --
      reached from 2001:db8::/56 on udp 5353
      reached from 2001:db8:0:a::/64, 2001:db8:0:b::/64 on tcp 5353
    ");
}

#[test]
fn wrong_uses() {
    let all = [
        // All that is for IPv6, without it.
        reported(
            &[
                SOURCE_NAT,
                ("aws-load-balancer-ipv6-addresses", "2001:db8:0:a::8,2001:db8:0:b::8"),
                ("aws-load-balancer-source-nat-ipv6-prefixes", "auto_assigned,auto_assigned"),
            ],
            PORT,
        ),
        reported(&[("aws-load-balancer-ip-address-type", "dualstack-without-public-ipv4")], PORT),
        reported(&[("aws-load-balancer-enable-prefix-for-ipv6-source-nat", "true")], PORT),
        reported(&[DUALSTACK], UDP),
        reported(&[DUALSTACK, ("aws-load-balancer-source-nat-ipv6-prefixes", "auto_assigned,auto_assigned")], PORT),
        reported(&[DUALSTACK, SOURCE_NAT, ("aws-load-balancer-source-nat-ipv6-prefixes", "auto_assigned")], PORT),
        reported(
            &[DUALSTACK, SOURCE_NAT, ("aws-load-balancer-source-nat-ipv6-prefixes", "2001:db8:0:a::/64, random")],
            PORT,
        ),
        reported(
            &[
                DUALSTACK,
                SOURCE_NAT,
                ("aws-load-balancer-source-nat-ipv6-prefixes", "2001:db8:0:b:1::/80, 2001:db8:0:b:1::/80"),
            ],
            PORT,
        ),
        reported(&[DUALSTACK, ("aws-load-balancer-ipv6-addresses", "2001:db8:0:a::8")], PORT),
        reported(&[DUALSTACK, ("aws-load-balancer-ipv6-addresses", "2001:db8:0:a::8,10.0.1.9")], PORT),
        reported(&[DUALSTACK, ("aws-load-balancer-ipv6-addresses", "2001:db8:0:a::8,2001:db8:0:a::9")], PORT),
    ];
    insta::assert_snapshot!(all.join("--\n"), @"
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-enable-prefix-for-ipv6-source-nat: the load balancer has only IPv4 addresses, and only a dualstack one can have prefixes for IPv6 source translation; write `dualstack` in `service.beta.kubernetes.io/aws-load-balancer-ip-address-type`, or remove the annotation
    --
    Error invalid-value on Service shop/web: annotation `service.beta.kubernetes.io/aws-load-balancer-ip-address-type` of the Service has the value `dualstack-without-public-ipv4`; allowed: `ipv4` or `dualstack`; write `dualstack`
    --
    Error invalid-value on Service shop/web: annotation `service.beta.kubernetes.io/aws-load-balancer-enable-prefix-for-ipv6-source-nat` of the Service has the value `true`; allowed: `on` or `off`
    --
    Error unsupported on Service shop/web: spec.ports[0].protocol: a dualstack load balancer takes UDP, as port 53 requests, only with IPv6 source translation; write `on` in `service.beta.kubernetes.io/aws-load-balancer-enable-prefix-for-ipv6-source-nat`, or `ipv4` in `service.beta.kubernetes.io/aws-load-balancer-ip-address-type`
    --
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-source-nat-ipv6-prefixes: the prefixes are for IPv6 source translation, which is off; write `on` in `service.beta.kubernetes.io/aws-load-balancer-enable-prefix-for-ipv6-source-nat`, or remove the annotation
    --
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-source-nat-ipv6-prefixes: the annotation has 1 prefixes for 2 subnets (subnet-a, subnet-b); write one a subnet, or choose the subnets with `service.beta.kubernetes.io/aws-load-balancer-subnets`
    --
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-source-nat-ipv6-prefixes: `2001:db8:0:a::/64` has a length other than 80, the only one that AWS takes; write prefixes such as `2001:db8::/80`, or `auto_assigned`
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-source-nat-ipv6-prefixes: `random` is neither an IPv6 prefix nor `auto_assigned`; write prefixes such as `2001:db8::/80`, or `auto_assigned`
    --
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-source-nat-ipv6-prefixes: `2001:db8:0:b:1::/80` is not within the subnet `subnet-a` (2001:db8:0:a::/64); write one prefix of each subnet, in the order of the subnets, or `auto_assigned`
    --
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-ipv6-addresses: the annotation has 1 addresses for 2 subnets (subnet-a, subnet-b); write one a subnet, or choose the subnets with `service.beta.kubernetes.io/aws-load-balancer-subnets`
    --
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-ipv6-addresses: `10.0.1.9` is not an IPv6 address; write addresses such as `2001:db8::5`
    --
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-ipv6-addresses: 2 of the addresses lie in the subnet `subnet-a` (2001:db8:0:a::/64), and it needs exactly one; write one address of each subnet
    Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-ipv6-addresses: 0 of the addresses lie in the subnet `subnet-b` (2001:db8:0:b::/64), and it needs exactly one; write one address of each subnet
    ");
}

#[test]
fn subnets_of_an_existing_load_balancer_are_checked_for_ipv6() {
    let names = ["subnet-a", "subnet-b"].map(str::to_owned).to_vec();
    let query = SubnetQuery::Named { kind: LoadBalancerKind::Network, names, ipv6: true };
    let absent = Fact::Absent { message: "subnet-b has no such block".to_owned(), fix: "give it one".to_owned() };
    let mut facts = existing(Scheme::Internal, true);
    facts.subnets.insert(query, absent);
    let built = build_with(&service(&[DUALSTACK], &format!("{CLASS}{PORT}")), &config(), &facts);
    insta::assert_snapshot!(messages(&built), @"Error subnets on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-ip-address-type: subnet-b has no such block; give it one");
    // They are not looked at without IPv6.
    assert_eq!(messages(&build_with(&service(&[], &format!("{CLASS}{PORT}")), &config(), &facts)), "");
}
