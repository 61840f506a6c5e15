//! Subnets and security groups that users name, and the sources that may connect.

use super::*;
use crate::facts::{ExistingLoadBalancer, FactQuery};

fn with(annotations: &[(&str, &str)], config: &BuildConfig, facts: &Facts) -> Built {
    let ingress = ingress(&[&[("target-type", "ip")], annotations].concat(), &everything());
    build_with(&format!("{SERVICES}\n---\n{ingress}"), config, facts)
}

fn given(ids: &[&str]) -> Facts {
    let names = vec!["sg-1".to_owned(), "front".to_owned()];
    let ids = ids.iter().map(|id| SecurityGroupId::new(*id)).collect();
    Facts { security_groups: [(names, Fact::Known(ids))].into(), ..facts() }
}

const GIVEN: (&str, &str) = ("security-groups", "sg-1, front");
const MANAGE: (&str, &str) = ("manage-backend-security-group-rules", "true");

#[test]
fn security_groups_of_the_users() {
    let own = |id: &str| SecurityGroupReference::Given(Value::Known(SecurityGroupId::new(id)));
    let shared = SecurityGroupReference::SharedBackend(Value::Known(SecurityGroupId::new("sg-shared")));
    let flag = BuildConfig { enable_manage_backend_security_group_rules: true, ..config() };
    let no_backend = BuildConfig { enable_backend_security_group: false, ..config() };
    let groups = |more: &[&SecurityGroupReference]| {
        ["sg-1", "sg-2", "sg-3"].map(own).into_iter().chain(more.iter().map(|&g| g.clone())).collect::<Vec<_>>()
    };
    let no_rules = ("manage-backend-security-group-rules", "false");
    for (annotations, config, expected, source) in [
        (vec![GIVEN], config(), groups(&[]), None),
        (vec![GIVEN, MANAGE], config(), groups(&[&shared]), Some(&shared)),
        (vec![GIVEN], flag.clone(), groups(&[&shared]), Some(&shared)),
        (vec![GIVEN, no_rules], flag.clone(), groups(&[]), None),
        (vec![GIVEN], no_backend, groups(&[]), None),
        (
            vec![("security-groups", ""), no_rules],
            flag,
            vec![SecurityGroupReference::Managed, shared.clone()],
            Some(&shared),
        ),
    ] {
        let built = with(&annotations, &config, &given(&["sg-1", "sg-2", "sg-3"]));
        assert_eq!(messages(&built), "");
        let stack = built.stack.unwrap();
        assert_eq!(stack.load_balancer.unwrap().security_groups, expected, "{annotations:?}");
        assert_eq!(networking(&stack.target_groups[0].binding).0.as_ref(), source, "{annotations:?}");
        assert_eq!(stack.security_group.is_some(), expected.contains(&SecurityGroupReference::Managed));
    }
}

#[test]
fn security_groups_are_asked_for_and_the_shared_one_only_where_it_is_used() {
    let want = FactQuery::SecurityGroups(vec!["sg-1".to_owned(), "front".to_owned()]);
    let facts = Facts { backend_security_group: None, ..facts() };
    assert_eq!(with(&[GIVEN], &config(), &facts).wants, [want.clone()].into());
    assert_eq!(with(&[GIVEN, MANAGE], &config(), &facts).wants, [want, FactQuery::BackendSecurityGroup].into());
    let offline = with(&[GIVEN], &config(), &Facts::offline()).stack.unwrap().load_balancer.unwrap();
    let unknown = Value::AfterApply("security groups are looked up in the VPC");
    assert_eq!(offline.security_groups, [SecurityGroupReference::Given(unknown)]);
}

#[test]
fn security_groups_that_cannot_be() {
    let no_backend = BuildConfig { enable_backend_security_group: false, ..config() };
    insta::assert_snapshot!(messages(&with(&[GIVEN, MANAGE], &no_backend, &given(&["sg-1"]))), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/manage-backend-security-group-rules: the rules from given security groups to the targets need the shared backend security group, which `--enable-backend-security-group=false` turns off; turn the flag on, or set the annotation to `false` and keep the rules of nodes and pods yourself");
    let absent = Fact::Absent { message: "no group is named `front`".to_owned(), fix: "create it".to_owned() };
    let facts = Facts { security_groups: [(vec!["front".to_owned()], absent)].into(), ..facts() };
    insta::assert_snapshot!(messages(&with(&[("security-groups", "front")], &config(), &facts)), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/security-groups: no group is named `front`; create it");
    let ignored = [GIVEN, ("inbound-cidrs", "10.0.0.0/8"), ("security-group-prefix-lists", "pl-1")];
    insta::assert_snapshot!(messages(&with(&ignored, &config(), &given(&["sg-1"]))), @r"
    Warning unknown-annotation on Ingress shop/web: annotation `alb.ingress.kubernetes.io/inbound-cidrs` has no effect: the rules of the groups in `alb.ingress.kubernetes.io/security-groups` are yours; put these sources into rules of those groups, or remove one of the two annotations
    Warning unknown-annotation on Ingress shop/web: annotation `alb.ingress.kubernetes.io/security-group-prefix-lists` has no effect: the rules of the groups in `alb.ingress.kubernetes.io/security-groups` are yours; put these sources into rules of those groups, or remove one of the two annotations
    ");
}

/// The rules of the managed group.
fn opened(annotations: &[(&str, &str)]) -> String {
    let built = with(annotations, &config(), &facts());
    let rules = built.stack.as_ref().map_or(&[][..], |stack| &stack.security_group.as_ref().unwrap().ingress);
    rules.iter().map(ToString::to_string).chain([messages(&built)]).collect::<Vec<_>>().join("\n")
}

#[test]
fn sources() {
    let ports = ("listen-ports", r#"[{"HTTP": 80}, {"HTTP": 8080}]"#);
    insta::assert_snapshot!(opened(&[]), @"tcp 80 from 0.0.0.0/0");
    insta::assert_snapshot!(opened(&[("inbound-cidrs", ""), ("security-group-prefix-lists", " ,")]), @"tcp 80 from 0.0.0.0/0");
    insta::assert_snapshot!(opened(&[ports, ("inbound-cidrs", "192.0.2.0/24, 10.1.2.3/8,10.0.0.0/8"), ("security-group-prefix-lists", "pl-1,pl-2,pl-1")]), @r"
    tcp 80 from 192.0.2.0/24
    tcp 80 from 10.0.0.0/8
    tcp 80 from pl-1
    tcp 80 from pl-2
    tcp 8080 from 192.0.2.0/24
    tcp 8080 from 10.0.0.0/8
    tcp 8080 from pl-1
    tcp 8080 from pl-2
    ");
    insta::assert_snapshot!(opened(&[("security-group-prefix-lists", "pl-1")]), @"tcp 80 from pl-1");
    insta::assert_snapshot!(opened(&[("inbound-cidrs", "0.0.0.0/0, ::/0, 2001:db8::/32")]), @r"
    tcp 80 from 0.0.0.0/0
    Warning invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/inbound-cidrs: the load balancer has only IPv4 addresses, so it takes no traffic from `::/0`, `2001:db8::/32`; remove it, or keep it until the load balancer has IPv6 addresses
    ");
    insta::assert_snapshot!(opened(&[("inbound-cidrs", "::/0")]), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/inbound-cidrs: the load balancer has only IPv4 addresses, so it takes no traffic from `::/0`; name an IPv4 range too, or give the load balancer IPv6 addresses with `alb.ingress.kubernetes.io/ip-address-type: dualstack`");
    insta::assert_snapshot!(opened(&[("inbound-cidrs", "10.0.0.1")]), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/inbound-cidrs` has the value `10.0.0.1`: `10.0.0.1` is not an address range; allowed: address ranges such as `10.0.0.0/8`, separated by commas");
    insta::assert_snapshot!(opened(&[("security-group-prefix-lists", "office")]), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/security-group-prefix-lists: `office` is not the identifier of a prefix list; write identifiers such as `pl-0123456789abcdef0`, separated by commas");
}

#[test]
fn subnets_that_are_named_win_over_those_that_the_load_balancer_has() {
    let names = || vec!["private-a".to_owned(), "subnet-c".to_owned()];
    let query = SubnetQuery::Named { kind: LoadBalancerKind::Application, names: names(), ipv6: false };
    let annotation = ("subnets", "private-a, subnet-c");
    let existing = ExistingLoadBalancer {
        kind: LoadBalancerKind::Application,
        scheme: Scheme::Internal,
        has_security_groups: true,
        has_ipv6: false,
        has_quic: false,
        customer_owned_pool: None,
        subnets: [SubnetId::new("subnet-old")].into(),
    };
    for existing in [None, Some(existing)] {
        let mut facts = Facts { existing, ..facts() };
        assert_eq!(with(&[annotation], &config(), &facts).wants, [FactQuery::Subnets(query.clone())].into());
        facts.subnets.insert(query.clone(), Fact::Known(vec![subnet("subnet-z"), subnet("subnet-c")]));
        let found = with(&[annotation], &config(), &facts).stack.unwrap().load_balancer.unwrap().subnets;
        assert_eq!(
            found,
            Value::Known(["subnet-z", "subnet-c"].map(|id| SubnetMapping::plain(SubnetId::new(id))).to_vec())
        );
        let absent =
            Fact::Absent { message: "no subnet is named `private-a`".to_owned(), fix: "name another".to_owned() };
        facts.subnets.insert(query.clone(), absent);
        insta::allow_duplicates! {
            insta::assert_snapshot!(messages(&with(&[annotation], &config(), &facts)), @"Error subnets on Ingress shop/web: alb.ingress.kubernetes.io/subnets: no subnet is named `private-a`; name another");
            insta::assert_snapshot!(messages(&with(&[("subnets", " , ")], &config(), &facts)), @"Error subnets on Ingress shop/web: alb.ingress.kubernetes.io/subnets: the list of subnets is empty; name subnets by identifier or `Name` tag, or remove the annotation to have them found by their tags");
        }
    }
    let offline = with(&[annotation], &config(), &Facts::offline()).stack.unwrap().load_balancer.unwrap();
    assert_eq!(offline.subnets, Value::AfterApply("subnets are looked up in the VPC"));
}
