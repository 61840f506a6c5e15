use super::*;

const INTERNAL: (&str, &str) = ("kubernetes.io/role/internal-elb", "1");
const ELB: (&str, &str) = ("kubernetes.io/role/elb", "");
const OWN: (&str, &str) = ("kubernetes.io/cluster/demo", "shared");
const OTHER: (&str, &str) = ("kubernetes.io/cluster/other", "owned");

pub(super) fn subnet(id: &str, zone: &str, tags: &[(&str, &str)]) -> SubnetCandidate {
    SubnetCandidate {
        id: SubnetId::new(id),
        zone: zone.to_owned(),
        available_addresses: 100,
        on_outpost: false,
        ipv4_blocks: vec![format!("block of {id}")],
        ipv6_blocks: vec![],
        tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    }
}

fn full(mut candidate: SubnetCandidate, addresses: i32) -> SubnetCandidate {
    candidate.available_addresses = addresses;
    candidate
}

pub(super) fn outpost(mut candidate: SubnetCandidate) -> SubnetCandidate {
    candidate.on_outpost = true;
    candidate
}

pub(super) fn zones() -> Vec<Zone> {
    [("z-a", "availability-zone"), ("z-b", "availability-zone"), ("z-lax", "local-zone"), ("z-las", "local-zone")]
        .map(|(name, kind)| Zone::from(ZoneInfo { name: name.to_owned(), zone_type: kind.to_owned() }))
        .into()
}

/// The ids. Every subnet is to come with its blocks.
pub(super) fn ids(subnets: Vec<Subnet>) -> Vec<String> {
    let id = |subnet: Subnet| {
        let id = subnet.id.to_string();
        assert_eq!(subnet.ipv4_blocks, [format!("block of {id}")]);
        id
    };
    subnets.into_iter().map(id).collect()
}

fn pick_for(
    kind: LoadBalancerKind,
    scheme: Scheme,
    candidates: &[SubnetCandidate],
    tables: &[RouteTable],
) -> Result<Vec<String>, NoSubnets> {
    pick_with(&role(kind, scheme), Gates::default(), candidates, tables)
}

fn role(kind: LoadBalancerKind, scheme: Scheme) -> Choice {
    Choice { kind, by: SelectBy::Role(scheme), ipv6: false }
}

fn pick_with(
    choice: &Choice,
    gates: Gates,
    candidates: &[SubnetCandidate],
    tables: &[RouteTable],
) -> Result<Vec<String>, NoSubnets> {
    choose(&VpcId::new("vpc-1"), choice, gates, "demo", candidates, &zones(), tables).map(ids)
}

fn needs_tables(scheme: Scheme, candidates: &[SubnetCandidate]) -> bool {
    needs_route_tables(&role(LoadBalancerKind::Application, scheme), Gates::default(), candidates)
}

fn pick(scheme: Scheme, candidates: &[SubnetCandidate], tables: &[RouteTable]) -> Result<Vec<String>, NoSubnets> {
    pick_for(LoadBalancerKind::Application, scheme, candidates, tables)
}

fn refusal_for(
    kind: LoadBalancerKind,
    scheme: Scheme,
    candidates: &[SubnetCandidate],
    tables: &[RouteTable],
) -> String {
    let error = pick_for(kind, scheme, candidates, tables).expect_err("subnets were found");
    format!("{error}\nfix: {}", error.fix())
}

fn refusal(scheme: Scheme, candidates: &[SubnetCandidate], tables: &[RouteTable]) -> String {
    refusal_for(LoadBalancerKind::Application, scheme, candidates, tables)
}

fn table(main: bool, subnets: &[&str], internet_gateway: bool) -> RouteTable {
    RouteTable { main, subnets: subnets.iter().map(|s| SubnetId::new(*s)).collect(), internet_gateway }
}

#[test]
fn one_tagged_subnet_a_zone_is_chosen() {
    let internal = Scheme::Internal;
    for (case, scheme, candidates, wanted) in [
        (
            "role tag with 1 or nothing, the other scheme's left out, sorted by id",
            internal,
            vec![
                subnet("subnet-4", "z-a", &[("kubernetes.io/role/internal-elb", "")]),
                subnet("subnet-2", "z-b", &[INTERNAL]),
                subnet("subnet-1", "z-a", &[ELB]),
            ],
            vec!["subnet-2", "subnet-4"],
        ),
        (
            "this cluster's own goes before a smaller id, then the smallest id",
            internal,
            vec![
                subnet("subnet-1", "z-a", &[INTERNAL]),
                subnet("subnet-2", "z-a", &[INTERNAL, OWN]),
                subnet("subnet-4", "z-b", &[INTERNAL]),
                subnet("subnet-3", "z-b", &[INTERNAL]),
            ],
            vec!["subnet-2", "subnet-3"],
        ),
        (
            "a subnet of several clusters is this one's too; one of others alone is not",
            Scheme::InternetFacing,
            vec![
                subnet("subnet-1", "z-a", &[ELB, OTHER]),
                subnet("subnet-2", "z-a", &[ELB, OTHER, OWN]),
                subnet("subnet-3", "z-b", &[ELB]),
            ],
            vec!["subnet-2", "subnet-3"],
        ),
        (
            "a full subnet is passed over",
            internal,
            vec![
                full(subnet("subnet-1", "z-a", &[INTERNAL]), 7),
                full(subnet("subnet-2", "z-a", &[INTERNAL]), 8),
                subnet("subnet-3", "z-b", &[INTERNAL]),
            ],
            vec!["subnet-2", "subnet-3"],
        ),
        ("one local zone is enough", internal, vec![subnet("subnet-1", "z-lax", &[INTERNAL])], vec!["subnet-1"]),
        ("one Outpost is enough", internal, vec![outpost(subnet("subnet-1", "z-a", &[INTERNAL]))], vec!["subnet-1"]),
    ] {
        assert!(!needs_tables(scheme, &candidates), "{case}");
        assert_eq!(pick(scheme, &candidates, &[]), Ok(wanted.into_iter().map(str::to_owned).collect()), "{case}");
    }
}

#[test]
fn without_role_tags_the_route_tables_decide() {
    let candidates = [
        subnet("subnet-1", "z-a", &[]),
        subnet("subnet-2", "z-b", &[OWN]),
        subnet("subnet-3", "z-a", &[]),
        subnet("subnet-4", "z-b", &[]),
    ];
    let tables = [table(true, &[], false), table(false, &["subnet-1", "subnet-4"], true)];
    assert!(needs_tables(Scheme::Internal, &candidates));
    assert_eq!(pick(Scheme::InternetFacing, &candidates, &tables), Ok(vec!["subnet-1".into(), "subnet-4".into()]));
    assert_eq!(pick(Scheme::Internal, &candidates, &tables), Ok(vec!["subnet-2".into(), "subnet-3".into()]));
}

#[test]
fn an_empty_vpc_asks_for_its_id_and_rights() {
    assert!(!needs_tables(Scheme::Internal, &[]));
    insta::assert_snapshot!(refusal(Scheme::Internal, &[], &[]), @"
    vpc-1 has no subnets, or the controller may not read them, so an internal load balancer has no place
    fix: check --aws-vpc-id and that ec2:DescribeSubnets is allowed; then tag a subnet in each of two zones with kubernetes.io/role/internal-elb=1
    ");
}

#[test]
fn untagged_subnets_are_told_with_where_they_lead() {
    let candidates = [subnet("subnet-1", "z-a", &[]), subnet("subnet-2", "z-b", &[])];
    insta::assert_snapshot!(refusal(Scheme::InternetFacing, &candidates, &[table(true, &[], false)]), @"
    no subnet of vpc-1 is suitable for an internet-facing load balancer: subnet-1 (z-a) private: its route table leads to no internet gateway; subnet-2 (z-b) private: its route table leads to no internet gateway
    fix: tag a subnet in each of two zones with kubernetes.io/role/elb=1
    ");
    insta::assert_snapshot!(refusal(Scheme::Internal, &candidates, &[]), @"
    no subnet of vpc-1 is suitable for an internal load balancer: subnet-1 (z-a) no role tag, and no route table to judge it by; subnet-2 (z-b) no role tag, and no route table to judge it by
    fix: tag a subnet in each of two zones with kubernetes.io/role/internal-elb=1
    ");
}

#[test]
fn tagged_subnets_that_will_not_do_are_told_one_by_one() {
    let mut candidates = vec![
        full(subnet("subnet-1", "z-a", &[INTERNAL]), 3),
        subnet("subnet-2", "z-b", &[INTERNAL, OTHER]),
        subnet("subnet-0", "z-b", &[]),
        subnet("subnet-3", "z-b", &[("kubernetes.io/role/internal-elb", "yes")]),
    ];
    insta::assert_snapshot!(refusal(Scheme::Internal, &candidates, &[]), @"
    no subnet of vpc-1 is suitable for an internal load balancer: subnet-1 (z-a) 3 free addresses, and 8 are needed; subnet-2 (z-b) for another cluster, by its tag `kubernetes.io/cluster/other`; subnet-3 (z-b) its role tag has the value `yes`, not `1`; subnet-0 (z-b) no role tag
    fix: tag a subnet in each of two zones with kubernetes.io/role/internal-elb=1; to share subnet-2 with other clusters, remove its kubernetes.io/cluster tags or add this cluster's; release addresses in subnet-1, or tag a subnet that has them
    ");
    candidates.extend((4..12).map(|n| subnet(&format!("subnet-x{n:02}"), "z-a", &[])));
    assert!(refusal(Scheme::Internal, &candidates, &[]).contains("; and 4 more\n"));
}

#[test]
fn one_zone_is_not_enough() {
    let candidates = [subnet("subnet-1", "z-a", &[INTERNAL]), subnet("subnet-2", "z-a", &[INTERNAL])];
    insta::assert_snapshot!(refusal(Scheme::Internal, &candidates, &[]), @"
    an Application Load Balancer needs subnets in two zones, and vpc-1 has them for an internal one in a single zone: subnet-1 (z-a) eligible; subnet-2 (z-a) passed over for subnet-1 in the same zone
    fix: tag a subnet in each of two zones with kubernetes.io/role/internal-elb=1
    ");
}

#[test]
fn zones_of_different_kinds_do_not_mix() {
    let candidates = [
        subnet("subnet-1", "z-a", &[INTERNAL]),
        subnet("subnet-2", "z-b", &[INTERNAL]),
        subnet("subnet-3", "z-lax", &[INTERNAL]),
    ];
    insta::assert_snapshot!(refusal(Scheme::Internal, &candidates, &[]), @"
    the subnets of vpc-1 for an internal load balancer are in locations of different kinds, and it can be in only one kind: subnet-1 (z-a) eligible; subnet-2 (z-b) eligible; subnet-3 (z-lax) eligible, in a local zone
    fix: tag only the subnets of one kind with kubernetes.io/role/internal-elb=1
    ");
}

#[test]
fn a_network_load_balancer_can_do_with_one_subnet() {
    let one = [subnet("subnet-1", "z-a", &[INTERNAL]), subnet("subnet-2", "z-a", &[INTERNAL])];
    assert_eq!(pick_for(LoadBalancerKind::Network, Scheme::Internal, &one, &[]), Ok(vec!["subnet-1".to_owned()]));
}

#[test]
fn a_network_load_balancer_is_told_of_by_its_name() {
    let refused = |candidates: &[SubnetCandidate]| {
        refusal_for(LoadBalancerKind::Network, Scheme::InternetFacing, candidates, &[table(true, &[], false)])
    };
    insta::assert_snapshot!(refused(&[]), @"
    vpc-1 has no subnets, or the controller may not read them, so an internet-facing Network Load Balancer has no place
    fix: check --aws-vpc-id and that ec2:DescribeSubnets is allowed; then tag a subnet with kubernetes.io/role/elb=1
    ");
    insta::assert_snapshot!(refused(&[subnet("subnet-1", "z-a", &[])]), @"
    no subnet of vpc-1 is suitable for an internet-facing Network Load Balancer: subnet-1 (z-a) private: its route table leads to no internet gateway
    fix: tag a subnet with kubernetes.io/role/elb=1
    ");
    insta::assert_snapshot!(refused(&[subnet("subnet-1", "z-a", &[ELB]), subnet("subnet-2", "z-lax", &[ELB])]), @"
    the subnets of vpc-1 for an internet-facing Network Load Balancer are in locations of different kinds, and it can be in only one kind: subnet-1 (z-a) eligible; subnet-2 (z-lax) eligible, in a local zone
    fix: tag only the subnets of one kind with kubernetes.io/role/elb=1
    ");
}

#[test]
fn subnets_are_chosen_by_the_tags_that_a_user_names() {
    let wanted = |pairs: &[(&str, &[&str])]| {
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        SelectBy::Tags(pairs.iter().map(|(key, list)| ((*key).to_owned(), values(list))).collect())
    };
    let by = |by: SelectBy| Choice { kind: LoadBalancerKind::Application, by, ipv6: false };
    let candidates = [
        subnet("subnet-1", "z-a", &[("team", "web"), ("tier", "front")]),
        subnet("subnet-2", "z-a", &[("team", "web"), ("tier", "front"), OWN]),
        subnet("subnet-3", "z-b", &[("team", "api"), ("tier", "front")]),
        subnet("subnet-4", "z-b", &[("team", "web"), ("tier", "back")]),
        subnet("subnet-5", "z-lax", &[("team", "edge"), ("tier", "front"), OTHER]),
    ];
    let choice = by(wanted(&[("team", &["web", "api"]), ("tier", &["front"])]));
    assert!(!needs_route_tables(&choice, Gates::default(), &candidates));
    assert_eq!(pick_with(&choice, Gates::default(), &candidates, &[]), Ok(vec!["subnet-2".into(), "subnet-3".into()]));
    let refused = |choice: &Choice| {
        let error = pick_with(choice, Gates::default(), &candidates, &[]).expect_err("subnets were found");
        format!("{error}\nfix: {}", error.fix())
    };
    insta::assert_snapshot!(refused(&by(wanted(&[("team", &["web"]), ("tier", &["front"])]))), @"
    an Application Load Balancer needs subnets in two zones, and vpc-1 has them by the tags team=web and tier=front in a single zone: subnet-1 (z-a) passed over for subnet-2 in the same zone; subnet-2 (z-a) eligible; subnet-3 (z-b) its tag `team` is another, or missing; subnet-4 (z-b) its tag `tier` is another, or missing; subnet-5 (z-lax) its tag `team` is another, or missing
    fix: tag a subnet in each of two zones with team=web and tier=front
    ");
    insta::assert_snapshot!(refused(&by(wanted(&[("team", &["edge"])]))), @"
    no subnet of vpc-1 is suitable for the load balancer by the tags team=edge: subnet-5 (z-lax) for another cluster, by its tag `kubernetes.io/cluster/other`; subnet-1 (z-a) its tag `team` is another, or missing; subnet-2 (z-a) its tag `team` is another, or missing; subnet-3 (z-b) its tag `team` is another, or missing; subnet-4 (z-b) its tag `team` is another, or missing
    fix: tag a subnet in each of two zones with team=edge; to share subnet-5 with other clusters, remove its kubernetes.io/cluster tags or add this cluster's
    ");
    let open = Gates { cluster_tag_check: false, ..Gates::default() };
    assert_eq!(pick_with(&by(wanted(&[("team", &["edge"])])), open, &candidates, &[]), Ok(vec!["subnet-5".into()]));
}

#[test]
fn a_dualstack_load_balancer_goes_to_subnets_with_ipv6_blocks() {
    let six = |id: &str, zone: &str| SubnetCandidate {
        ipv6_blocks: vec!["2001:db8::/64".to_owned()],
        ..subnet(id, zone, &[INTERNAL])
    };
    let mut candidates = vec![subnet("subnet-1", "z-a", &[INTERNAL]), six("subnet-2", "z-a"), six("subnet-3", "z-b")];
    let choice = Choice { ipv6: true, ..role(LoadBalancerKind::Application, Scheme::Internal) };
    assert_eq!(pick_with(&choice, Gates::default(), &candidates, &[]), Ok(vec!["subnet-2".into(), "subnet-3".into()]));
    candidates.truncate(1);
    let error = pick_with(&choice, Gates::default(), &candidates, &[]).unwrap_err();
    insta::assert_snapshot!(format!("{error}\nfix: {}", error.fix()), @"
    no subnet of vpc-1 is suitable for an internal load balancer: subnet-1 (z-a) no IPv6 block, which a dualstack load balancer needs
    fix: tag a subnet in each of two zones with kubernetes.io/role/internal-elb=1; give IPv6 blocks to subnet-1, or use an address type without IPv6
    ");
}

#[test]
fn gates_decide_over_route_tables_and_the_least_number() {
    let candidates = [subnet("subnet-1", "z-a", &[])];
    let internal = role(LoadBalancerKind::Application, Scheme::Internal);
    let single = Gates { single_subnet: true, ..Gates::default() };
    assert_eq!(pick_with(&internal, single, &candidates, &[table(true, &[], false)]), Ok(vec!["subnet-1".into()]));
    let by_tags_alone = Gates { by_reachability: false, ..Gates::default() };
    assert!(!needs_route_tables(&internal, by_tags_alone, &candidates));
    let error = pick_with(&internal, by_tags_alone, &candidates, &[]).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"no subnet of vpc-1 is suitable for an internal load balancer: subnet-1 (z-a) no role tag");
}
