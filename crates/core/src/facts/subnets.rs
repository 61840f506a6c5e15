//! The subnets of a new load balancer when its objects name none: the auto-discovery of aws-load-balancer-controller, with
//! a verdict on every subnet when it finds none; and the subnets that a user names.

mod named;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
};

pub use named::{UnfitSubnets, resolve_named};

use super::Subnet;
use crate::model::{LoadBalancerKind, RouteTableInfo, Scheme, SubnetId, SubnetInfo, Tags, VpcId, ZoneInfo};

/// The start of the tag keys that say which clusters use a subnet.
const CLUSTER_TAG: &str = "kubernetes.io/cluster/";
/// AWS refuses a load balancer in a subnet with fewer free addresses.
const LEAST_ADDRESSES: i32 = 8;
/// The most subnets that a message lists: an event holds 1,024 characters.
const MAX_LISTED: usize = 8;

/// A subnet of the VPC (EC2 DescribeSubnets).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetCandidate {
    /// Its id.
    pub id: SubnetId,
    /// The name of its zone.
    pub zone: String,
    /// The number of free addresses.
    pub available_addresses: i32,
    /// True if it is on an Outpost.
    pub on_outpost: bool,
    /// Its IPv4 blocks.
    pub ipv4_blocks: Vec<String>,
    /// The IPv6 blocks that are associated with it.
    pub ipv6_blocks: Vec<String>,
    /// All its tags.
    pub tags: Tags,
}

/// A route table of the VPC (EC2 DescribeRouteTables).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    /// True if it applies to the subnets without an associated table.
    pub main: bool,
    /// The subnets it is associated with.
    pub subnets: BTreeSet<SubnetId>,
    /// True if one of its routes leads to an internet gateway.
    pub internet_gateway: bool,
}

/// A zone of the region (EC2 DescribeAvailabilityZones).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// The kind of its location.
    pub locale: LocationKind,
}

impl From<SubnetInfo> for SubnetCandidate {
    fn from(info: SubnetInfo) -> Self {
        let SubnetInfo { id, zone, available_addresses, outpost, tags, cidr, ipv6_blocks } = info;
        let ipv4_blocks = cidr.into_iter().collect();
        Self { id, zone, available_addresses, on_outpost: outpost, ipv4_blocks, ipv6_blocks, tags }
    }
}

impl SubnetCandidate {
    fn locale(&self, zones: &[Zone]) -> LocationKind {
        if self.on_outpost {
            return LocationKind::Outpost;
        }
        zones.iter().find(|zone| zone.name == self.zone).map_or(LocationKind::AvailabilityZone, |zone| zone.locale)
    }

    fn chosen(&self) -> Subnet {
        Subnet { id: self.id.clone(), ipv4_blocks: self.ipv4_blocks.clone(), ipv6_blocks: self.ipv6_blocks.clone() }
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
        Self { locale: LocationKind::of_zone_type(&info.zone_type), name: info.name }
    }
}

/// The kind of a subnet's location. A load balancer stays within one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LocationKind {
    /// `availability-zone`
    AvailabilityZone,
    /// `local-zone`
    LocalZone,
    /// `wavelength-zone`
    WavelengthZone,
    /// An Outpost, in whatever zone.
    Outpost,
}

impl LocationKind {
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

/// The result of the discovery for one subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is eligible.
    Eligible(LocationKind),
    /// Another subnet of its zone goes first.
    AnotherInZone(SubnetId),
    /// It does not have the role tag that others have.
    NotTagged,
    /// It does not have the tags that the user names; the key is the first that is missing.
    OtherTags(String),
    /// It has the role tag with a value other than `1` or nothing.
    RoleTagValue(String),
    /// No subnet has the role tag, and this one leads to an internet gateway, which an internal load balancer must not.
    Public,
    /// No subnet has the role tag, and this one leads to no internet gateway.
    Private,
    /// No subnet has the role tag, and no route table is this one's.
    NoRouteTable,
    /// Its cluster tags name only other clusters.
    OtherCluster(String),
    /// It has too few free addresses.
    TooFewAddresses(i32),
    /// It has no IPv6 block, and the load balancer needs IPv6 addresses.
    NoIpv6,
}

/// The criterion by which subnets are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectBy {
    /// The tag that says that they are for load balancers of this scheme.
    Role(Scheme),
    /// Tags that a user names: for each key the values of which a subnet has one.
    Tags(BTreeMap<String, Vec<String>>),
}

/// The requirements for the subnets of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The kind of the load balancer.
    pub kind: LoadBalancerKind,
    /// By what.
    pub by: SelectBy,
    /// True if the load balancer needs IPv6 addresses.
    pub ipv6: bool,
}

/// The feature gates that decide over the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gates {
    /// `SubnetsClusterTagCheck`: subnets that are tagged only for other clusters are left out.
    pub cluster_tag_check: bool,
    /// `SubnetDiscoveryByReachability`: where no subnet has the role tag, the route tables decide.
    pub by_reachability: bool,
    /// `ALBSingleSubnet`: an Application Load Balancer can do with one subnet.
    pub single_subnet: bool,
}

impl Default for Gates {
    fn default() -> Self {
        Self { cluster_tag_check: true, by_reachability: true, single_subnet: false }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eligible(LocationKind::AvailabilityZone) => f.write_str("eligible"),
            Self::Eligible(locale) => write!(f, "eligible, in a {}", locale.as_str()),
            Self::AnotherInZone(other) => write!(f, "passed over for {other} in the same zone"),
            Self::NotTagged => f.write_str("no role tag"),
            Self::OtherTags(key) => write!(f, "its tag `{key}` is another, or missing"),
            Self::NoIpv6 => f.write_str("no IPv6 block, which a dualstack load balancer needs"),
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

/// The reason why there are no subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSubnetsReason {
    /// The VPC has no subnets at all.
    EmptyVpc,
    /// None of its subnets is suitable.
    NoneEligible,
    /// All suitable subnets are in one zone, which is not enough for an Application Load Balancer.
    OneZone,
    /// The suitable subnets are in locations of different kinds.
    MixedLocales,
}

/// No subnets for a load balancer, with the reason for each subnet that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSubnets {
    /// The VPC.
    pub vpc: VpcId,
    /// The requirements that could not be met.
    pub choice: Choice,
    /// The reason.
    pub lack: NoSubnetsReason,
    /// Zone and verdict of every subnet.
    pub verdicts: BTreeMap<SubnetId, (String, Verdict)>,
}

impl fmt::Display for NoSubnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vpc, choice, .. } = self;
        let kind = match choice.kind {
            LoadBalancerKind::Application => "load balancer",
            LoadBalancerKind::Network => "Network Load Balancer",
        };
        let one = match &choice.by {
            SelectBy::Role(scheme) => format!("an {scheme} {kind}"),
            SelectBy::Tags(tags) => format!("the {kind} by the tags {}", describe_tags(tags)),
        };
        match self.lack {
            NoSubnetsReason::EmptyVpc => {
                return write!(f, "{vpc} has no subnets, or the controller may not read them, so {one} has no place");
            }
            NoSubnetsReason::NoneEligible => {
                write!(f, "no subnet of {vpc} is suitable for {one}")?;
            }
            NoSubnetsReason::OneZone => {
                let for_one = match &choice.by {
                    SelectBy::Role(scheme) => format!("for an {scheme} one"),
                    SelectBy::Tags(tags) => format!("by the tags {}", describe_tags(tags)),
                };
                write!(
                    f,
                    "an Application Load Balancer needs subnets in two zones, and {vpc} has them {for_one} in a single zone"
                )?;
            }
            NoSubnetsReason::MixedLocales => write!(
                f,
                "the subnets of {vpc} for {one} are in locations of different kinds, and it can be in only one kind"
            )?,
        }
        // The closest candidates come first: a VPC may have hundreds of subnets without any tag.
        let (far, near): (Vec<_>, Vec<_>) =
            self.verdicts.iter().partition(|(_, (_, v))| matches!(v, Verdict::NotTagged | Verdict::OtherTags(_)));
        let total = self.verdicts.len();
        let mut separator = ": ";
        for (id, (zone, verdict)) in near.into_iter().chain(far).take(MAX_LISTED) {
            write!(f, "{separator}{id} ({zone}) {verdict}")?;
            separator = "; ";
        }
        if total > MAX_LISTED {
            write!(f, "; and {} more", total - MAX_LISTED)?;
        }
        Ok(())
    }
}

impl std::error::Error for NoSubnets {}

impl NoSubnets {
    /// Returns the message.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// Returns the fix.
    #[must_use]
    pub fn fix(&self) -> String {
        let tag = match &self.choice.by {
            SelectBy::Role(scheme) => format!("{}=1", role_tag(*scheme)),
            SelectBy::Tags(tags) => describe_tags(tags),
        };
        let enough = match self.choice.kind {
            LoadBalancerKind::Application => "a subnet in each of two zones",
            LoadBalancerKind::Network => "a subnet",
        };
        let subnets = |wanted: fn(&Verdict) -> bool| -> Vec<&str> {
            let chosen = self.verdicts.iter().filter(|(_, (_, verdict))| wanted(verdict));
            chosen.map(|(id, _)| id.as_str()).collect()
        };
        let mut fix = match self.lack {
            NoSubnetsReason::EmptyVpc => {
                return format!(
                    "check --aws-vpc-id and that ec2:DescribeSubnets is allowed; then tag {enough} with {tag}"
                );
            }
            NoSubnetsReason::NoneEligible | NoSubnetsReason::OneZone => format!("tag {enough} with {tag}"),
            NoSubnetsReason::MixedLocales => format!("tag only the subnets of one kind with {tag}"),
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
        let without = subnets(|v| matches!(v, Verdict::NoIpv6));
        if !without.is_empty() {
            let _ = write!(fix, "; give IPv6 blocks to {}, or use an address type without IPv6", without.join(", "));
        }
        fix
    }
}

/// `team=web, team=api or tier=front`, for people.
fn describe_tags(tags: &BTreeMap<String, Vec<String>>) -> String {
    let reported = |(key, values): (&String, &Vec<String>)| format!("{key}={}", super::list(values, "or"));
    super::list(tags.iter().map(reported), "and")
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

/// Returns true if [`choose`] depends on the VPC's route tables: only when no subnet carries the role tag.
#[must_use]
pub fn needs_route_tables(choice: &Choice, gates: Gates, candidates: &[SubnetCandidate]) -> bool {
    let SelectBy::Role(scheme) = choice.by else { return false };
    gates.by_reachability && !candidates.is_empty() && !candidates.iter().any(|candidate| has_role(scheme, candidate))
}

/// A suitable subnet, and the kind of its location.
type EligibleSubnet<'a> = (&'a SubnetCandidate, LocationKind);

/// The suitable subnets of one zone, the best first.
type Ranked<'a> = BTreeMap<(bool, &'a SubnetId), EligibleSubnet<'a>>;

/// The least subnets that a load balancer in such a place takes.
fn least(kind: LoadBalancerKind, locale: LocationKind, gates: Gates) -> usize {
    match (kind, locale) {
        (LoadBalancerKind::Application, LocationKind::AvailabilityZone) if !gates.single_subnet => 2,
        _ => 1,
    }
}

/// Chooses one subnet in each zone, sorted by id. A zone that is missing from `zones`
/// counts as an availability zone; `route_tables` are those of the VPC, empty where [`needs_route_tables`] says no.
///
/// # Errors
/// When no subnets are suitable.
pub fn choose(
    vpc: &VpcId,
    choice: &Choice,
    gates: Gates,
    cluster: &str,
    candidates: &[SubnetCandidate],
    zones: &[Zone],
    route_tables: &[RouteTable],
) -> Result<Vec<Subnet>, NoSubnets> {
    let own_tag = format!("{CLUSTER_TAG}{cluster}");
    let by_tags = !needs_route_tables(choice, gates, candidates);
    let mut verdicts = BTreeMap::new();
    // The suitable candidates, by zone, in the order of preference: this cluster's own first, then the smallest id.
    let mut eligible: BTreeMap<&str, Ranked<'_>> = BTreeMap::new();
    for candidate in candidates {
        let judged = judge_place(candidate, &choice.by, by_tags, route_tables)
            .or_else(|| judge_fitness(candidate, choice.ipv6, gates, &own_tag));
        let verdict = judged.unwrap_or_else(|| Verdict::Eligible(candidate.locale(zones)));
        if let Verdict::Eligible(locale) = verdict {
            let preference = (!candidate.tags.contains_key(&own_tag), &candidate.id);
            eligible.entry(&candidate.zone).or_default().insert(preference, (candidate, locale));
        }
        verdicts.insert(candidate.id.clone(), (candidate.zone.clone(), verdict));
    }
    let mut chosen: BTreeMap<&SubnetId, EligibleSubnet<'_>> = BTreeMap::new();
    for ranked in eligible.values() {
        let mut ranked = ranked.iter();
        let Some(((_, best), found)) = ranked.next() else { continue };
        chosen.insert(best, *found);
        for ((_, other), _) in ranked {
            if let Some((_, verdict)) = verdicts.get_mut(*other) {
                *verdict = Verdict::AnotherInZone((*best).clone());
            }
        }
    }
    let locales: BTreeSet<LocationKind> = chosen.values().map(|(_, locale)| *locale).collect();
    let lack = if candidates.is_empty() {
        NoSubnetsReason::EmptyVpc
    } else if chosen.is_empty() {
        NoSubnetsReason::NoneEligible
    } else if locales.len() > 1 {
        NoSubnetsReason::MixedLocales
    } else if locales.iter().any(|locale| chosen.len() < least(choice.kind, *locale, gates)) {
        NoSubnetsReason::OneZone
    } else {
        return Ok(chosen.into_values().map(|(candidate, _)| candidate.chosen()).collect());
    };
    Err(NoSubnets { vpc: vpc.clone(), choice: choice.clone(), lack, verdicts })
}

/// Returns the reason why a subnet does not match the question.
fn judge_place(
    candidate: &SubnetCandidate,
    by: &SelectBy,
    by_tags: bool,
    route_tables: &[RouteTable],
) -> Option<Verdict> {
    match by {
        SelectBy::Tags(tags) => {
            let has = |(key, values): &(&String, &Vec<String>)| {
                candidate.tags.get(*key).is_some_and(|value| values.contains(value))
            };
            tags.iter().find(|tag| !has(tag)).map(|(key, _)| Verdict::OtherTags(key.clone()))
        }
        SelectBy::Role(scheme) if by_tags => match candidate.tags.get(role_tag(*scheme)) {
            _ if has_role(*scheme, candidate) => None,
            Some(value) => Some(Verdict::RoleTagValue(value.clone())),
            None => Some(Verdict::NotTagged),
        },
        SelectBy::Role(scheme) => {
            let own = route_tables.iter().find(|table| table.subnets.contains(&candidate.id));
            match (own.or_else(|| route_tables.iter().find(|table| table.main)), scheme) {
                (None, _) => Some(Verdict::NoRouteTable),
                (Some(table), Scheme::Internal) if table.internet_gateway => Some(Verdict::Public),
                (Some(table), Scheme::InternetFacing) if !table.internet_gateway => Some(Verdict::Private),
                _ => None,
            }
        }
    }
}

/// Returns the reason why a subnet that matches the question is not suitable.
fn judge_fitness(candidate: &SubnetCandidate, ipv6: bool, gates: Gates, own_tag: &str) -> Option<Verdict> {
    // A key without a cluster's name counts as another cluster's too, as it does for aws-load-balancer-controller.
    let foreign = candidate.tags.keys().find(|key| key.starts_with("kubernetes.io/cluster"));
    match foreign {
        Some(key) if gates.cluster_tag_check && !candidate.tags.contains_key(own_tag) => {
            return Some(Verdict::OtherCluster(key.clone()));
        }
        _ => {}
    }
    if candidate.available_addresses < LEAST_ADDRESSES {
        return Some(Verdict::TooFewAddresses(candidate.available_addresses));
    }
    (ipv6 && candidate.ipv6_blocks.is_empty()).then_some(Verdict::NoIpv6)
}

#[cfg(test)]
mod tests;
