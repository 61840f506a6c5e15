//! Which subnets a new load balancer goes to when nobody names them: the auto-discovery of aws-load-balancer-controller,
//! with a verdict on every subnet when it finds none.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
};

use crate::{
    aws::{RouteTableInfo, SubnetInfo, ZoneInfo},
    model::{Scheme, SubnetId, Tags, VpcId},
};

/// The start of the tag keys that say which clusters use a subnet.
const CLUSTER_TAG: &str = "kubernetes.io/cluster/";
/// AWS refuses a load balancer in a subnet with fewer free addresses.
const LEAST_ADDRESSES: i32 = 8;
/// The most subnets that a message tells of: an event holds 1,024 characters.
const MOST_TOLD: usize = 8;

/// A subnet of the VPC (EC2 DescribeSubnets).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetCandidate {
    /// Its id.
    pub id: SubnetId,
    /// The name of its zone.
    pub zone: String,
    /// How many addresses are free.
    pub available_addresses: i32,
    /// Whether it is on an Outpost.
    pub on_outpost: bool,
    /// All its tags.
    pub tags: Tags,
}

/// A route table of the VPC (EC2 DescribeRouteTables).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    /// Whether it is for the subnets that have no table of their own.
    pub main: bool,
    /// The subnets it is associated with.
    pub subnets: BTreeSet<SubnetId>,
    /// Whether one of its routes has an internet gateway.
    pub internet_gateway: bool,
}

/// A zone of the region (EC2 DescribeAvailabilityZones).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// What kind of place it is.
    pub locale: Locale,
}

impl From<SubnetInfo> for SubnetCandidate {
    fn from(info: SubnetInfo) -> Self {
        let SubnetInfo { id, zone, available_addresses, outpost, tags, .. } = info;
        Self { id, zone, available_addresses, on_outpost: outpost, tags }
    }
}

impl From<RouteTableInfo> for RouteTable {
    fn from(info: RouteTableInfo) -> Self {
        let RouteTableInfo { main, subnets, internet_gateway } = info;
        Self { main, subnets, internet_gateway }
    }
}

impl From<ZoneInfo> for Zone {
    fn from(info: ZoneInfo) -> Self {
        Self { locale: Locale::of_zone_type(&info.zone_type), name: info.name }
    }
}

/// What kind of place a subnet is in. A load balancer stays within one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Locale {
    /// `availability-zone`
    AvailabilityZone,
    /// `local-zone`
    LocalZone,
    /// `wavelength-zone`
    WavelengthZone,
    /// An Outpost, in whatever zone.
    Outpost,
}

impl Locale {
    /// The locale of EC2's `ZoneType`. A word that is not known counts as an ordinary zone: AWS has the last say.
    #[must_use]
    pub fn of_zone_type(word: &str) -> Self {
        match word {
            "local-zone" => Self::LocalZone,
            "wavelength-zone" => Self::WavelengthZone,
            _ => Self::AvailabilityZone,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::AvailabilityZone => "availability zone",
            Self::LocalZone => "local zone",
            Self::WavelengthZone => "Wavelength zone",
            Self::Outpost => "Outpost",
        }
    }
}

/// What the discovery thinks of a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would do.
    Eligible(Locale),
    /// Another subnet of its zone goes first.
    AnotherInZone(SubnetId),
    /// It has not the role tag that others have.
    NotTagged,
    /// It has the role tag with a value other than `1` or nothing.
    RoleTagValue(String),
    /// No subnet has the role tag, and this one leads to an internet gateway, which an internal load balancer must not.
    Public,
    /// No subnet has the role tag, and this one leads to no internet gateway.
    Private,
    /// No subnet has the role tag, and no route table is this one's.
    NoRouteTable,
    /// Its cluster tags name other clusters alone.
    OtherCluster(String),
    /// It has too few free addresses.
    TooFewAddresses(i32),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eligible(Locale::AvailabilityZone) => f.write_str("eligible"),
            Self::Eligible(locale) => write!(f, "eligible, in a {}", locale.as_str()),
            Self::AnotherInZone(other) => write!(f, "passed over for {other} in the same zone"),
            Self::NotTagged => f.write_str("no role tag"),
            Self::RoleTagValue(value) => {
                write!(f, "its role tag has the value `{value}`, not `1`")
            }
            Self::Public => f.write_str("public: its route table leads to an internet gateway"),
            Self::Private => f.write_str("private: its route table leads to no internet gateway"),
            Self::NoRouteTable => f.write_str("no role tag, and no route table to judge it by"),
            Self::OtherCluster(key) => write!(f, "for another cluster, by its tag `{key}`"),
            Self::TooFewAddresses(free) => {
                write!(f, "{free} free addresses, and {LEAST_ADDRESSES} are needed")
            }
        }
    }
}

/// Why there are no subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The VPC has no subnets at all.
    EmptyVpc,
    /// None of its subnets will do.
    NoneEligible,
    /// All that will do are in one zone.
    OneZone,
    /// Those that will do are in places of different kinds.
    MixedLocales,
}

/// No subnets for a load balancer, with the reason for each subnet that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSubnets {
    /// The VPC.
    pub vpc: VpcId,
    /// What the load balancer is.
    pub scheme: Scheme,
    /// Why.
    pub lack: Lack,
    /// Zone and verdict of every subnet.
    pub verdicts: BTreeMap<SubnetId, (String, Verdict)>,
}

impl fmt::Display for NoSubnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vpc, scheme, .. } = self;
        match self.lack {
            Lack::EmptyVpc => {
                return write!(
                    f,
                    "{vpc} has no subnets, or they may not be read, so an {scheme} load balancer has no place"
                );
            }
            Lack::NoneEligible => {
                write!(f, "no subnet of {vpc} will do for an {scheme} load balancer")?;
            }
            Lack::OneZone => write!(
                f,
                "an Application Load Balancer needs subnets in two zones, and {vpc} has them for an {scheme} one in a single zone"
            )?,
            Lack::MixedLocales => write!(
                f,
                "the subnets of {vpc} for an {scheme} load balancer are in places of different kinds, and it can be in one kind alone"
            )?,
        }
        // Those that come closest are told first: a VPC may have hundreds of subnets without any tag.
        let (far, near): (Vec<_>, Vec<_>) =
            self.verdicts.iter().partition(|(_, (_, verdict))| *verdict == Verdict::NotTagged);
        let total = self.verdicts.len();
        let mut separator = ": ";
        for (id, (zone, verdict)) in near.into_iter().chain(far).take(MOST_TOLD) {
            write!(f, "{separator}{id} ({zone}) {verdict}")?;
            separator = "; ";
        }
        if total > MOST_TOLD {
            write!(f, "; and {} more", total - MOST_TOLD)?;
        }
        Ok(())
    }
}

impl std::error::Error for NoSubnets {}

impl NoSubnets {
    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        let tag = role_tag(self.scheme);
        let subnets = |wanted: fn(&Verdict) -> bool| -> Vec<&str> {
            let chosen = self.verdicts.iter().filter(|(_, (_, verdict))| wanted(verdict));
            chosen.map(|(id, _)| id.as_str()).collect()
        };
        let mut fix = match self.lack {
            Lack::EmptyVpc => {
                return format!(
                    "check --aws-vpc-id and that ec2:DescribeSubnets is allowed; then tag a subnet in each of two zones with {tag}=1"
                );
            }
            Lack::NoneEligible | Lack::OneZone => format!("tag a subnet in each of two zones with {tag}=1"),
            Lack::MixedLocales => format!("tag the subnets of one kind alone with {tag}=1"),
        };
        let foreign = subnets(|v| matches!(v, Verdict::OtherCluster(_)));
        if !foreign.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(
                fix,
                "; to share {} with other clusters, remove its kubernetes.io/cluster tags or add this cluster's",
                foreign.join(", ")
            );
        }
        let full = subnets(|v| matches!(v, Verdict::TooFewAddresses(_)));
        if !full.is_empty() {
            let _ = write!(fix, "; release addresses in {}, or tag a subnet that has them", full.join(", "));
        }
        fix
    }
}

fn role_tag(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Internal => "kubernetes.io/role/internal-elb",
        Scheme::InternetFacing => "kubernetes.io/role/elb",
    }
}

fn has_role(scheme: Scheme, candidate: &SubnetCandidate) -> bool {
    candidate.tags.get(role_tag(scheme)).is_some_and(|value| matches!(value.as_str(), "" | "1"))
}

/// Whether [`choose`] depends on the VPC's route tables: only when no subnet carries the role tag.
#[must_use]
pub fn needs_route_tables(scheme: Scheme, candidates: &[SubnetCandidate]) -> bool {
    !candidates.is_empty() && !candidates.iter().any(|candidate| has_role(scheme, candidate))
}

/// Chooses one subnet in each zone, sorted by id. A zone that is missing from `zones`
/// counts as an availability zone; `route_tables` are those of the VPC, empty where [`needs_route_tables`] says no.
///
/// # Errors
/// When no subnets will do.
pub fn choose(
    vpc: &VpcId,
    scheme: Scheme,
    cluster: &str,
    candidates: &[SubnetCandidate],
    zones: &[Zone],
    route_tables: &[RouteTable],
) -> Result<Vec<SubnetId>, NoSubnets> {
    let own_tag = format!("{CLUSTER_TAG}{cluster}");
    let by_role = !needs_route_tables(scheme, candidates);
    let mut verdicts = BTreeMap::new();
    // The candidates that will do, by zone, in the order of preference: this cluster's own first, then the smallest id.
    let mut eligible: BTreeMap<&str, BTreeMap<(bool, &SubnetId), Locale>> = BTreeMap::new();
    for candidate in candidates {
        let verdict = judge(candidate, scheme, &own_tag, by_role, zones, route_tables);
        if let Verdict::Eligible(locale) = verdict {
            let preference = (!candidate.tags.contains_key(&own_tag), &candidate.id);
            eligible.entry(&candidate.zone).or_default().insert(preference, locale);
        }
        verdicts.insert(candidate.id.clone(), (candidate.zone.clone(), verdict));
    }
    let mut chosen: BTreeMap<&SubnetId, Locale> = BTreeMap::new();
    for ranked in eligible.values() {
        let mut ranked = ranked.iter();
        let Some(((_, best), locale)) = ranked.next() else { continue };
        chosen.insert(best, *locale);
        for ((_, other), _) in ranked {
            if let Some((_, verdict)) = verdicts.get_mut(*other) {
                *verdict = Verdict::AnotherInZone((*best).clone());
            }
        }
    }
    let locales: BTreeSet<Locale> = chosen.values().copied().collect();
    let lack = if candidates.is_empty() {
        Lack::EmptyVpc
    } else if chosen.is_empty() {
        Lack::NoneEligible
    } else if locales.len() > 1 {
        Lack::MixedLocales
    } else if chosen.len() < 2 && locales.contains(&Locale::AvailabilityZone) {
        Lack::OneZone
    } else {
        return Ok(chosen.into_keys().cloned().collect());
    };
    Err(NoSubnets { vpc: vpc.clone(), scheme, lack, verdicts })
}

fn judge(
    candidate: &SubnetCandidate,
    scheme: Scheme,
    own_tag: &str,
    by_role: bool,
    zones: &[Zone],
    route_tables: &[RouteTable],
) -> Verdict {
    if by_role {
        if !has_role(scheme, candidate) {
            return match candidate.tags.get(role_tag(scheme)) {
                Some(value) => Verdict::RoleTagValue(value.clone()),
                None => Verdict::NotTagged,
            };
        }
    } else {
        let own = route_tables.iter().find(|table| table.subnets.contains(&candidate.id));
        match (own.or_else(|| route_tables.iter().find(|table| table.main)), scheme) {
            (None, _) => return Verdict::NoRouteTable,
            (Some(table), Scheme::Internal) if table.internet_gateway => return Verdict::Public,
            (Some(table), Scheme::InternetFacing) if !table.internet_gateway => return Verdict::Private,
            _ => {}
        }
    }
    // A key without a cluster's name counts as another cluster's too, as it does for aws-load-balancer-controller.
    let foreign = candidate.tags.keys().find(|key| key.starts_with("kubernetes.io/cluster"));
    match foreign {
        Some(key) if !candidate.tags.contains_key(own_tag) => return Verdict::OtherCluster(key.clone()),
        _ => {}
    }
    if candidate.available_addresses < LEAST_ADDRESSES {
        return Verdict::TooFewAddresses(candidate.available_addresses);
    }
    Verdict::Eligible(if candidate.on_outpost {
        Locale::Outpost
    } else {
        zones.iter().find(|zone| zone.name == candidate.zone).map_or(Locale::AvailabilityZone, |zone| zone.locale)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERNAL: (&str, &str) = ("kubernetes.io/role/internal-elb", "1");
    const ELB: (&str, &str) = ("kubernetes.io/role/elb", "");
    const OWN: (&str, &str) = ("kubernetes.io/cluster/demo", "shared");
    const OTHER: (&str, &str) = ("kubernetes.io/cluster/other", "owned");

    fn subnet(id: &str, zone: &str, tags: &[(&str, &str)]) -> SubnetCandidate {
        SubnetCandidate {
            id: SubnetId::new(id),
            zone: zone.to_owned(),
            available_addresses: 100,
            on_outpost: false,
            tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn full(mut candidate: SubnetCandidate, addresses: i32) -> SubnetCandidate {
        candidate.available_addresses = addresses;
        candidate
    }

    fn outpost(mut candidate: SubnetCandidate) -> SubnetCandidate {
        candidate.on_outpost = true;
        candidate
    }

    fn pick(scheme: Scheme, candidates: &[SubnetCandidate], tables: &[RouteTable]) -> Result<Vec<String>, NoSubnets> {
        let zones = [("z-a", "availability-zone"), ("z-b", "availability-zone"), ("z-lax", "local-zone")];
        let zones =
            zones.map(|(name, kind)| ZoneInfo { name: name.to_owned(), zone_type: kind.to_owned() }).map(Zone::from);
        choose(&VpcId::new("vpc-1"), scheme, "demo", candidates, &zones, tables)
            .map(|ids| ids.iter().map(ToString::to_string).collect())
    }

    fn refusal(scheme: Scheme, candidates: &[SubnetCandidate], tables: &[RouteTable]) -> String {
        let error = pick(scheme, candidates, tables).expect_err("subnets were found");
        format!("{error}\nfix: {}", error.fix())
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
            (
                "one Outpost is enough",
                internal,
                vec![outpost(subnet("subnet-1", "z-a", &[INTERNAL]))],
                vec!["subnet-1"],
            ),
        ] {
            assert!(!needs_route_tables(scheme, &candidates), "{case}");
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
        assert!(needs_route_tables(Scheme::Internal, &candidates));
        assert_eq!(pick(Scheme::InternetFacing, &candidates, &tables), Ok(vec!["subnet-1".into(), "subnet-4".into()]));
        assert_eq!(pick(Scheme::Internal, &candidates, &tables), Ok(vec!["subnet-2".into(), "subnet-3".into()]));
    }

    #[test]
    fn an_empty_vpc_asks_for_its_id_and_rights() {
        assert!(!needs_route_tables(Scheme::Internal, &[]));
        insta::assert_snapshot!(refusal(Scheme::Internal, &[], &[]), @"
        vpc-1 has no subnets, or they may not be read, so an internal load balancer has no place
        fix: check --aws-vpc-id and that ec2:DescribeSubnets is allowed; then tag a subnet in each of two zones with kubernetes.io/role/internal-elb=1
        ");
    }

    #[test]
    fn untagged_subnets_are_told_with_where_they_lead() {
        let candidates = [subnet("subnet-1", "z-a", &[]), subnet("subnet-2", "z-b", &[])];
        insta::assert_snapshot!(refusal(Scheme::InternetFacing, &candidates, &[table(true, &[], false)]), @"
        no subnet of vpc-1 will do for an internet-facing load balancer: subnet-1 (z-a) private: its route table leads to no internet gateway; subnet-2 (z-b) private: its route table leads to no internet gateway
        fix: tag a subnet in each of two zones with kubernetes.io/role/elb=1
        ");
        insta::assert_snapshot!(refusal(Scheme::Internal, &candidates, &[]), @"
        no subnet of vpc-1 will do for an internal load balancer: subnet-1 (z-a) no role tag, and no route table to judge it by; subnet-2 (z-b) no role tag, and no route table to judge it by
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
        no subnet of vpc-1 will do for an internal load balancer: subnet-1 (z-a) 3 free addresses, and 8 are needed; subnet-2 (z-b) for another cluster, by its tag `kubernetes.io/cluster/other`; subnet-3 (z-b) its role tag has the value `yes`, not `1`; subnet-0 (z-b) no role tag
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
        the subnets of vpc-1 for an internal load balancer are in places of different kinds, and it can be in one kind alone: subnet-1 (z-a) eligible; subnet-2 (z-b) eligible; subnet-3 (z-lax) eligible, in a local zone
        fix: tag the subnets of one kind alone with kubernetes.io/role/internal-elb=1
        ");
    }
}
