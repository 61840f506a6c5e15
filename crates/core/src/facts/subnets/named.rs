//! The subnets that a user names.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{Gates, LocationKind, Subnet, SubnetCandidate, Zone, least};
use crate::{
    facts::list,
    model::{LoadBalancerKind, SubnetId, VpcId},
};

/// The most `Name` tags that a fix suggests.
const MAX_SUGGESTED: usize = 3;

/// The reason why the subnets that a user names are not suitable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitSubnets {
    /// The list is empty.
    #[error("no subnet is named, and {} needs {}", with_article(*.kind), count(*.least))]
    NoneNamed {
        /// The kind of the load balancer.
        kind: LoadBalancerKind,
        /// The number of subnets it needs.
        least: usize,
    },
    /// The VPC has no subnets at all.
    #[error("{vpc} has no subnets, or the controller may not read them, and so not {}", list(quoted(.names), "and"))]
    EmptyVpc {
        /// The VPC.
        vpc: VpcId,
        /// The names that were given.
        names: Vec<String>,
    },
    /// Ids and names that nothing in the VPC has.
    #[error("{vpc} has no subnet {}", list(quoted(.missing), "or"))]
    NotFound {
        /// The VPC.
        vpc: VpcId,
        /// In the user's order.
        missing: Vec<String>,
        /// The `Name` tags that are nearest to the names that are missing.
        nearest: Vec<String>,
    },
    /// A name is written more often than there are subnets that have it.
    #[error("the name `{name}` is written {written} times, and {found} of the subnets of {vpc} have it")]
    TooOften {
        /// The VPC.
        vpc: VpcId,
        /// The `Name` tag.
        name: String,
        /// The number of times it is written.
        written: usize,
        /// The number of subnets that have it.
        found: usize,
    },
    /// One subnet is named twice.
    #[error("{}", same(.written))]
    Twice {
        /// The names as they are written, with their meaning.
        written: [String; 2],
    },
    /// Two are in one zone.
    #[error("the subnets {} and {} are both in {zone}, and a load balancer takes one in each zone", .written[0], .written[1])]
    SameZone {
        /// The name of the zone.
        zone: String,
        /// The names as they are written, with their meaning.
        written: [String; 2],
    },
    /// They are in locations of different kinds.
    #[error("the subnets are in locations of different kinds, and a load balancer can be in only one kind: {}", describe_locations(.places))]
    MixedLocales {
        /// Kind and subnets.
        places: BTreeMap<LocationKind, Vec<String>>,
    },
    /// They are too few.
    #[error("{} needs subnets in two zones, and {written} in {zone} is the only one named", with_article(*.kind))]
    TooFew {
        /// The kind of the load balancer.
        kind: LoadBalancerKind,
        /// The subnet as it is written, with its meaning.
        written: String,
        /// Its zone.
        zone: String,
    },
    /// Some have no IPv6 block.
    #[error("a dualstack load balancer needs subnets with IPv6 blocks, and {} no such block", have(.written))]
    NoIpv6 {
        /// The names as they are written, with their meaning.
        written: Vec<String>,
    },
}

impl UnfitSubnets {
    /// Returns the message.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// Returns the fix.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::NoneNamed { least: 2.., .. } => {
                "name a subnet in each of two zones, or remove the annotation to have them found by their tags"
                    .to_owned()
            }
            Self::NoneNamed { .. } => {
                "name a subnet, or remove the annotation to have them found by their tags".to_owned()
            }
            Self::EmptyVpc { .. } => "check --aws-vpc-id and that ec2:DescribeSubnets is allowed".to_owned(),
            Self::NotFound { vpc, nearest, .. } if nearest.is_empty() => {
                format!("name subnets of {vpc}, by id or by the tag `Name`")
            }
            Self::NotFound { vpc, nearest, .. } => {
                let nearest = list(quoted(nearest), "and");
                format!("name subnets of {vpc}, by id or by the tag `Name`; the nearest it has: {nearest}")
            }
            Self::TooOften { .. } => {
                "write the name once for each subnet that has it, or name subnets by id".to_owned()
            }
            Self::Twice { .. } => "name each subnet once".to_owned(),
            Self::SameZone { zone, .. } => format!("name only one subnet in {zone}"),
            Self::MixedLocales { .. } => "name only subnets of one kind".to_owned(),
            Self::TooFew { .. } => "name a subnet in a second zone too".to_owned(),
            Self::NoIpv6 { .. } => "give them one, or use an address type without IPv6".to_owned(),
        }
    }
}

/// Returns AWS's name of the kind, with its article.
fn with_article(kind: LoadBalancerKind) -> &'static str {
    match kind {
        LoadBalancerKind::Application => "an Application Load Balancer",
        LoadBalancerKind::Network => "a Network Load Balancer",
    }
}

fn have(written: &[String]) -> String {
    format!("{} {}", list(written, "and"), if written.len() > 1 { "have" } else { "has" })
}

fn count(subnets: usize) -> &'static str {
    if subnets > 1 { "subnets in two zones" } else { "one" }
}

fn same([one, other]: &[String; 2]) -> String {
    if one == other { format!("{one} is named twice") } else { format!("{one} and {other} are the same subnet") }
}

fn describe_locations(places: &BTreeMap<LocationKind, Vec<String>>) -> String {
    let place = |(locale, written): (&LocationKind, &Vec<String>)| {
        let article = match locale {
            LocationKind::AvailabilityZone => "in an",
            LocationKind::LocalZone | LocationKind::WavelengthZone => "in a",
            LocationKind::Outpost => "on an",
        };
        format!("{} {article} {}", list(written, "and"), locale.as_str())
    };
    places.iter().map(place).collect::<Vec<_>>().join("; ")
}

fn name_tag(candidate: &SubnetCandidate) -> Option<&str> {
    candidate.tags.get("Name").map(String::as_str)
}

fn quoted(names: &[String]) -> Vec<String> {
    names.iter().map(|name| format!("`{name}`")).collect()
}

fn is_id(name: &str) -> bool {
    name.starts_with("subnet-")
}

/// The subnets that `names` mean, in their order: ids by the prefix `subnet-`, others by the tag `Name`. A name that is
/// written several times means as many subnets, by ascending id. Free addresses and cluster tags do not count: who
/// names a subnet wants it. A zone that is missing from `zones` counts as an availability zone.
///
/// # Errors
/// When one is not there, or when they cannot be together.
pub fn resolve_named(
    vpc: &VpcId,
    kind: LoadBalancerKind,
    ipv6: bool,
    gates: Gates,
    names: &[String],
    candidates: &[SubnetCandidate],
    zones: &[Zone],
) -> Result<Vec<Subnet>, UnfitSubnets> {
    if names.is_empty() {
        return Err(UnfitSubnets::NoneNamed { kind, least: least(kind, LocationKind::AvailabilityZone, gates) });
    }
    if candidates.is_empty() {
        return Err(UnfitSubnets::EmptyVpc { vpc: vpc.clone(), names: names.to_vec() });
    }
    let found = find(vpc, names, candidates)?;
    let mut by_id: BTreeMap<&SubnetId, &String> = BTreeMap::new();
    for (written, candidate) in &found {
        if let Some(first) = by_id.insert(&candidate.id, written) {
            return Err(UnfitSubnets::Twice { written: [first.clone(), written.clone()] });
        }
    }
    let mut by_zone: BTreeMap<&str, &String> = BTreeMap::new();
    for (written, candidate) in &found {
        if let Some(first) = by_zone.insert(&candidate.zone, written) {
            let zone = candidate.zone.clone();
            return Err(UnfitSubnets::SameZone { zone, written: [first.clone(), written.clone()] });
        }
    }
    let mut places: BTreeMap<LocationKind, Vec<String>> = BTreeMap::new();
    for (written, candidate) in &found {
        places.entry(candidate.locale(zones)).or_default().push(written.clone());
    }
    if places.len() > 1 {
        return Err(UnfitSubnets::MixedLocales { places });
    }
    if let [(written, only)] = found.as_slice()
        && least(kind, only.locale(zones), gates) > 1
    {
        return Err(UnfitSubnets::TooFew { kind, written: written.clone(), zone: only.zone.clone() });
    }
    let without = found.iter().filter(|(_, candidate)| ipv6 && candidate.ipv6_blocks.is_empty());
    let without: Vec<String> = without.map(|(written, _)| written.clone()).collect();
    if !without.is_empty() {
        return Err(UnfitSubnets::NoIpv6 { written: without });
    }
    Ok(found.into_iter().map(|(_, candidate)| candidate.chosen()).collect())
}

/// Resolves each name, and returns it with its form for messages.
fn find<'a>(
    vpc: &VpcId,
    names: &[String],
    candidates: &'a [SubnetCandidate],
) -> Result<Vec<(String, &'a SubnetCandidate)>, UnfitSubnets> {
    // From the greatest id to the smallest, so that the next one is taken from the end.
    let mut by_name: BTreeMap<&str, Vec<&SubnetCandidate>> = BTreeMap::new();
    for candidate in candidates {
        if let Some(name) = name_tag(candidate) {
            by_name.entry(name).or_default().push(candidate);
        }
    }
    by_name.values_mut().for_each(|subnets| subnets.sort_by_key(|subnet| Reverse(&subnet.id)));
    let numbers: BTreeMap<&str, usize> = by_name.iter().map(|(name, subnets)| (*name, subnets.len())).collect();
    let (mut found, mut missing, mut too_often) = (Vec::new(), Vec::new(), None);
    for name in names {
        let candidate = if is_id(name) {
            candidates.iter().find(|candidate| candidate.id.as_str() == name)
        } else {
            by_name.get_mut(name.as_str()).and_then(Vec::pop)
        };
        match (candidate, numbers.get(name.as_str())) {
            (Some(candidate), _) if is_id(name) => found.push((name.clone(), candidate)),
            (Some(candidate), _) => found.push((format!("`{name}` ({})", candidate.id), candidate)),
            (None, Some(&found)) if !is_id(name) => {
                let written = names.iter().filter(|other| *other == name).count();
                too_often = Some(UnfitSubnets::TooOften { vpc: vpc.clone(), name: name.clone(), written, found });
            }
            (None, _) if missing.contains(name) => {}
            (None, _) => missing.push(name.clone()),
        }
    }
    if missing.is_empty() {
        return too_often.map_or(Ok(found), Err);
    }
    let nearest = nearest(&missing, numbers.keys().copied());
    Err(UnfitSubnets::NotFound { vpc: vpc.clone(), missing, nearest })
}

/// Returns the known names that are most similar to the names that find nothing, the most similar first.
fn nearest<'a>(missing: &[String], known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted: Vec<String> = missing.iter().filter(|name| !is_id(name)).map(|name| name.to_lowercase()).collect();
    let distance = |name: &str| {
        let name = name.to_lowercase();
        wanted.iter().map(|wanted| strsim::damerau_levenshtein(wanted, &name)).min()
    };
    let mut ranked: Vec<(usize, &str)> = known.filter_map(|name| Some((distance(name)?, name))).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(MAX_SUGGESTED).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{ids, outpost, subnet, zones},
        *,
    };
    use LoadBalancerKind::{Application, Network};

    fn vpc() -> Vec<SubnetCandidate> {
        vec![
            subnet("subnet-3", "z-b", &[("Name", "web")]),
            subnet("subnet-1", "z-a", &[("Name", "web")]),
            subnet("subnet-2", "z-b", &[("Name", "public-b")]),
            subnet("subnet-4", "z-a", &[]),
            subnet("subnet-5", "z-lax", &[("Name", "edge")]),
            outpost(subnet("subnet-6", "z-b", &[("Name", "rack")])),
        ]
    }

    fn resolve(kind: LoadBalancerKind, names: &[&str]) -> Result<Vec<String>, UnfitSubnets> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        resolve_named(&VpcId::new("vpc-1"), kind, false, Gates::default(), &names, &vpc(), &zones()).map(ids)
    }

    fn refusal(kind: LoadBalancerKind, names: &[&str]) -> String {
        let error = resolve(kind, names).expect_err("they will do");
        format!("{}\nfix: {}", error.message(), error.fix())
    }

    #[test]
    fn ids_and_names_keep_their_order() {
        for (kind, names, wanted) in [
            (Application, &["subnet-2", "subnet-1"][..], &["subnet-2", "subnet-1"][..]),
            (Application, &["public-b", "subnet-4"], &["subnet-2", "subnet-4"]),
            // One name for both: by ascending id.
            (Application, &["web", "web"], &["subnet-1", "subnet-3"]),
            (Application, &["public-b", "web"], &["subnet-2", "subnet-1"]),
            (Application, &["edge"], &["subnet-5"]),
            (Application, &["rack"], &["subnet-6"]),
            (Network, &["web"], &["subnet-1"]),
            (Network, &["subnet-4"], &["subnet-4"]),
        ] {
            let wanted = wanted.iter().map(|id| (*id).to_owned()).collect();
            assert_eq!(resolve(kind, names), Ok(wanted), "{kind} {names:?}");
        }
    }

    #[test]
    fn nothing_named_is_not_nothing_wanted() {
        insta::assert_snapshot!(refusal(Application, &[]), @"
        no subnet is named, and an Application Load Balancer needs subnets in two zones
        fix: name a subnet in each of two zones, or remove the annotation to have them found by their tags
        ");
        insta::assert_snapshot!(refusal(Network, &[]), @"
        no subnet is named, and a Network Load Balancer needs one
        fix: name a subnet, or remove the annotation to have them found by their tags
        ");
    }

    #[test]
    fn an_empty_vpc_has_none_of_them() {
        let names = ["subnet-1".to_owned(), "web".to_owned()];
        let error =
            resolve_named(&VpcId::new("vpc-1"), Network, false, Gates::default(), &names, &[], &zones()).unwrap_err();
        insta::assert_snapshot!(format!("{error}\nfix: {}", error.fix()), @"
        vpc-1 has no subnets, or the controller may not read them, and so not `subnet-1` and `web`
        fix: check --aws-vpc-id and that ec2:DescribeSubnets is allowed
        ");
    }

    #[test]
    fn what_is_missing_is_told_with_what_is_near() {
        insta::assert_snapshot!(refusal(Application, &["subnet-9", "subnet-1"]), @"
        vpc-1 has no subnet `subnet-9`
        fix: name subnets of vpc-1, by id or by the tag `Name`
        ");
        insta::assert_snapshot!(refusal(Application, &["pubilc-b", "subnet-1", "subnet-9", "Web"]), @"
        vpc-1 has no subnet `pubilc-b`, `subnet-9` or `Web`
        fix: name subnets of vpc-1, by id or by the tag `Name`; the nearest it has: `web`, `public-b` and `edge`
        ");
        insta::assert_snapshot!(refusal(Network, &["web", "web", "web", "web"]), @"
        the name `web` is written 4 times, and 2 of the subnets of vpc-1 have it
        fix: write the name once for each subnet that has it, or name subnets by id
        ");
    }

    #[test]
    fn a_subnet_is_taken_once() {
        insta::assert_snapshot!(refusal(Network, &["subnet-1", "subnet-1"]), @"
        subnet-1 is named twice
        fix: name each subnet once
        ");
        insta::assert_snapshot!(refusal(Network, &["subnet-1", "web"]), @"
        subnet-1 and `web` (subnet-1) are the same subnet
        fix: name each subnet once
        ");
    }

    #[test]
    fn a_zone_takes_one_subnet() {
        insta::assert_snapshot!(refusal(Application, &["public-b", "subnet-3"]), @"
        the subnets `public-b` (subnet-2) and subnet-3 are both in z-b, and a load balancer takes one in each zone
        fix: name only one subnet in z-b
        ");
    }

    #[test]
    fn kinds_of_places_do_not_mix() {
        insta::assert_snapshot!(refusal(Network, &["subnet-1", "edge", "rack"]), @"
        the subnets are in locations of different kinds, and a load balancer can be in only one kind: subnet-1 in an availability zone; `edge` (subnet-5) in a local zone; `rack` (subnet-6) on an Outpost
        fix: name only subnets of one kind
        ");
    }

    #[test]
    fn a_dualstack_load_balancer_needs_ipv6_blocks_and_a_gate_makes_one_subnet_enough() {
        let vpc_id = VpcId::new("vpc-1");
        let mut candidates = vpc();
        let single = Gates { single_subnet: true, ..Gates::default() };
        let named = |names: &[&str], candidates: &[SubnetCandidate], gates| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            resolve_named(&vpc_id, Application, true, gates, &names, candidates, &zones()).map(ids)
        };
        let refused = named(&["web", "public-b"], &candidates, Gates::default()).unwrap_err();
        insta::assert_snapshot!(format!("{refused}\nfix: {}", refused.fix()), @"
        a dualstack load balancer needs subnets with IPv6 blocks, and `web` (subnet-1) and `public-b` (subnet-2) have no such block
        fix: give them one, or use an address type without IPv6
        ");
        candidates.iter_mut().for_each(|candidate| candidate.ipv6_blocks = vec!["2001:db8::/64".to_owned()]);
        let both = ["subnet-1".to_owned(), "subnet-2".to_owned()];
        assert_eq!(named(&["web", "public-b"], &candidates, Gates::default()), Ok(both.to_vec()));
        assert_eq!(named(&["web"], &candidates, single), Ok(both[..1].to_vec()));
    }

    #[test]
    fn an_application_load_balancer_wants_two() {
        insta::assert_snapshot!(refusal(Application, &["web"]), @"
        an Application Load Balancer needs subnets in two zones, and `web` (subnet-1) in z-a is the only one named
        fix: name a subnet in a second zone too
        ");
    }
}
