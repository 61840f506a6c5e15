//! The pools that the IPv4 addresses of a group's load balancer come from.

use super::*;

const IPAM: &str = "ipam-ipv4-pool-id";
const OWNED: &str = "customer-owned-ipv4-pool";
const FACING: (&str, &str) = ("scheme", "internet-facing");

/// Returns the pools, the frozen members and the diagnostics.
fn shown(built: &Built) -> String {
    let mut text = String::new();
    if let Some(balancer) = built.stack.as_ref().and_then(|stack| stack.load_balancer.as_ref()) {
        let AddressPools { ipam, customer_owned } = &balancer.pools;
        writeln!(text, "{ipam:?} {customer_owned:?}").unwrap();
    }
    for name in &built.frozen {
        writeln!(text, "frozen: {name}").unwrap();
    }
    format!("{text}{}", messages(built))
}

fn of(members: &[(&str, &[(&str, &str)])]) -> String {
    let members: Vec<String> = members.iter().map(|(name, annotations)| member(name, annotations)).collect();
    shown(&built_of(&members, &facts()))
}

#[test]
fn members_agree_on_pools() {
    let (first, second) = ((IPAM, "ipam-pool-1"), (IPAM, "ipam-pool-2"));
    let all = [
        of(&[("a", &[FACING]), ("b", &[FACING, first])]),
        of(&[("a", &[FACING, first]), ("b", &[second])]),
        of(&[("a", &[FACING, (IPAM, "")])]),
        of(&[("a", &[FACING, (IPAM, "mine")])]),
        of(&[("a", &[("scheme", "internal"), first])]),
        of(&[("a", &[(OWNED, "ipv4pool-coip-1")]), ("b", &[(OWNED, "ipv4pool-coip-2")])]),
        of(&[("a", &[(OWNED, "")])]),
    ];
    insta::assert_snapshot!(all.join("--\n"), @r#"
    Some(IpamPoolId("ipam-pool-1")) None
    --
    Some(IpamPoolId("ipam-pool-1")) None
    frozen: shop/b
    Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/ipam-ipv4-pool-id: the IPAM pool should be `ipam-pool-2`, but a group has only one: `ipam-pool-1`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    --
    None None
    --
    frozen: shop/a
    Error invalid-value on Ingress shop/a: alb.ingress.kubernetes.io/ipam-ipv4-pool-id: `mine` is not the id of an IPAM pool; write an id such as `ipam-pool-0123456789abcdef0`, or remove the setting
    --
    None None
    Warning no-effect on Ingress shop/a: alb.ingress.kubernetes.io/ipam-ipv4-pool-id: the load balancer is internal, and an IPAM pool gives only public addresses; remove the setting, or make the load balancer internet-facing
    --
    None Some(CustomerOwnedPoolId("ipv4pool-coip-1"))
    frozen: shop/b
    Error conflict on Ingress shop/b: alb.ingress.kubernetes.io/customer-owned-ipv4-pool: the pool of customer-owned addresses should be `ipv4pool-coip-2`, but a group has only one: `ipv4pool-coip-1`, requested by Ingress shop/a, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    --
    frozen: shop/a
    Error invalid-value on Ingress shop/a: alb.ingress.kubernetes.io/customer-owned-ipv4-pool: `` is not the id of a pool of customer-owned addresses; write an id such as `ipv4pool-coip-0123456789abcdef0`, or remove the setting
    "#);
}

#[test]
fn an_existing_load_balancer_keeps_its_pools_where_it_has_to() {
    let change = |observed: &mut ObservedStack| {
        let balancer = &mut observed.load_balancers[0];
        balancer.scheme = Scheme::InternetFacing;
        balancer.pools.ipam = Some("ipam-pool-9".to_owned());
    };
    let mut facts = current(&change);
    let existing = facts.existing.as_mut().unwrap();
    existing.scheme = Scheme::InternetFacing;
    existing.customer_owned_pool = Some("ipv4pool-coip-9".to_owned());
    let built = |members: &[String]| shown(&built_of(members, &facts));
    let mistake = ("inbound-cidrs", "everywhere");
    let all = [
        built(&[member("a", &[FACING, (OWNED, "ipv4pool-coip-1")])]),
        built(&[member("a", &[FACING, (OWNED, "ipv4pool-coip-9")])]),
        // A frozen member may have asked for the pool.
        built(&[member("a", &[FACING, mistake]), member("b", &[FACING])]),
        built(&[member("a", &[FACING, mistake]), member("b", &[FACING, (IPAM, "ipam-pool-1")])]),
        built(&[member("b", &[FACING])]),
    ];
    insta::assert_snapshot!(all.join("--\n"), @r#"
    None Some(CustomerOwnedPoolId("ipv4pool-coip-1"))
    Warning no-effect on Ingress shop/a: alb.ingress.kubernetes.io/customer-owned-ipv4-pool: the load balancer was created with the pool `ipv4pool-coip-9`, and AWS cannot change that; remove the annotation, or move the Ingress to a group whose load balancer is created with the pool
    --
    None Some(CustomerOwnedPoolId("ipv4pool-coip-9"))
    --
    Some(IpamPoolId("ipam-pool-9")) None
    frozen: shop/a
    Error invalid-value on Ingress shop/a: annotation `alb.ingress.kubernetes.io/inbound-cidrs` has the value `everywhere`: `everywhere` is not an address range; allowed: address ranges such as `10.0.0.0/8`, separated by commas
    --
    Some(IpamPoolId("ipam-pool-1")) None
    frozen: shop/a
    Error invalid-value on Ingress shop/a: annotation `alb.ingress.kubernetes.io/inbound-cidrs` has the value `everywhere`: `everywhere` is not an address range; allowed: address ranges such as `10.0.0.0/8`, separated by commas
    --
    None None
    "#);
}
