//! What is remembered of each stack across restarts: what AWS had of it when nothing was left to do. A record is a promise,
//! made after the last write of a plan and taken back before the first of the next. It spares reads and decides nothing: it
//! counts only where AWS lists all that it names, and whatever no record vouches for is read.
//!
//! Records stand in ConfigMaps, spread over a few so that none outgrows what the API server takes (1 MiB).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{Holding, ObservedLoadBalancer, ObservedStack, ObservedTargetGroup, StackId, TargetGroupArn};

#[cfg(test)]
mod tests;

/// Counts changes of what records mean. One of another format is not read: everything is read from AWS instead.
pub const FORMAT: u32 = 2;

/// How many ConfigMaps there are: one for each hexadecimal digit.
pub const SHARDS: usize = 16;

/// What one ConfigMap holds at most; the API server takes no more than 1 MiB.
const MOST_BYTES: usize = 960 * 1024;

/// The default of `--leader-election-id`.
const DEFAULT_LEASE: &str = "aws-load-balancer-controller-leader";

/// Where the header stands among a ConfigMap's data.
pub const HEADER_KEY: &str = "header";

/// The annotation of a TargetGroupBinding that vouches for its targets, as [`of_targets`] writes it.
pub const CHECKPOINT: &str = "elbv2.k8s.aws/albatross-checkpoint";

/// What all records of a ConfigMap have in common. Under another one they count for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// [`FORMAT`]
    pub format: u32,
    /// `--cluster-name`
    pub cluster: String,
    /// The region that AWS is called in.
    pub region: String,
    /// The cluster's VPC.
    pub vpc: String,
    /// The process that wrote it last. Whoever finds another's than it took over does not lead any more.
    pub holder: String,
    /// The term of the lease in which it was written. Somebody who writes no records (aws-load-balancer-controller, say) may
    /// have led in a term between.
    pub term: i32,
}

impl Header {
    /// Whether what was promised under the other header counts under this one: it is about the same resources, and nobody
    /// has led since. Without election all terms are one.
    #[must_use]
    pub fn follows(&self, other: &Self) -> bool {
        let next = other.term == self.term || other.term.checked_add(1) == Some(self.term);
        next && *other == Self { holder: other.holder.clone(), term: other.term, ..self.clone() }
    }
}

/// What is remembered of one stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Whose stack it is.
    pub stack: StackId,
    /// What it was like when nothing was left to do. Absent from the first write of a plan until all is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean: Option<Clean>,
}

/// A stack that is as it shall be, as it was believed to be then. What AWS lists all of together is not in here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clean {
    /// All load balancers with its tags: their tags, attributes, listeners and rules.
    pub load_balancers: Vec<ObservedLoadBalancer>,
    /// All target groups with its tags: their tags and attributes.
    pub target_groups: Vec<ObservedTargetGroup>,
    /// Who of a group has what of its load balancer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holdings: Vec<Holding>,
}

impl Clean {
    /// What AWS has of a stack that is as it shall be.
    #[must_use]
    pub fn of(observed: &ObservedStack) -> Self {
        Self {
            load_balancers: observed.load_balancers.clone(),
            target_groups: observed.target_groups.clone(),
            holdings: observed.holdings.clone(),
        }
    }

    /// The ARNs of all that it names.
    pub fn arns(&self) -> impl Iterator<Item = &str> {
        let balancers = self.load_balancers.iter().map(|balancer| balancer.arn.as_str());
        balancers.chain(self.target_groups.iter().map(|group| group.arn.as_str()))
    }
}

fn hashed(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..16])
}

/// A short text that differs where target groups, or the targets that they shall have, differ. The value of [`CHECKPOINT`].
#[must_use]
pub fn of_targets<T: std::fmt::Display>(group: &TargetGroupArn, targets: impl IntoIterator<Item = T>) -> String {
    let targets: BTreeSet<String> = targets.into_iter().map(|target| target.to_string()).collect();
    hashed(&format!("{FORMAT} {group} {}", targets.into_iter().collect::<Vec<_>>().join(" ")))
}

/// The key of a stack's record within its ConfigMap. Names may be longer than such keys, so that it is a hash.
#[must_use]
pub fn key(stack: &StackId) -> String {
    let kind = match stack {
        StackId::Group(_) => "group",
        StackId::Ingress(_) => "ingress",
        StackId::Service(_) => "service",
    };
    hashed(&format!("{kind} {stack}"))
}

/// Which ConfigMap a key belongs to.
#[must_use]
pub fn shard(key: &str) -> usize {
    usize::from_str_radix(key.get(..1).unwrap_or_default(), 16).unwrap_or_default()
}

/// A ConfigMap's name. Controllers that take turns have a Lease in common, and those that do not, because each looks after
/// other classes, must not write each other's records.
#[must_use]
pub fn shard_name(lease: &str, shard: usize) -> String {
    let prefix = if lease == DEFAULT_LEASE { "albatross" } else { lease };
    format!("{prefix}-records-{shard}")
}

/// What a ConfigMap's data say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Its header, where it has one that can be read.
    pub header: Option<Header>,
    /// The records, by key; none under another header.
    pub records: BTreeMap<String, Record>,
    /// Keys whose values cannot be read.
    pub unreadable: Vec<String>,
}

/// Reads a ConfigMap's data. What cannot be read counts for nothing.
#[must_use]
pub fn read(header: &Header, data: &BTreeMap<String, String>) -> Read {
    let found: Option<Header> = data.get(HEADER_KEY).and_then(|text| serde_json::from_str(text).ok());
    let mut read = Read { header: found, ..Read::default() };
    if !read.header.as_ref().is_some_and(|found| header.follows(found)) {
        return read;
    }
    for (name, text) in data.iter().filter(|(name, _)| *name != HEADER_KEY) {
        match serde_json::from_str::<Record>(text) {
            // One that somebody has copied to another place is about nothing here.
            Ok(record) if key(&record.stack) == *name => {
                read.records.insert(name.clone(), record);
            }
            _ => read.unreadable.push(name.clone()),
        }
    }
    read
}

/// A record as it is written. What cannot be written vouches for nothing.
#[must_use]
pub fn text(record: &Record) -> String {
    serde_json::to_string(record).unwrap_or_default()
}

/// A ConfigMap's data, from records by key as [`text`] writes them. Those for which there is no room are left out.
#[must_use]
pub fn write<'a>(
    header: &Header,
    records: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> BTreeMap<String, String> {
    let mut room = MOST_BYTES;
    let mut data = BTreeMap::from([(HEADER_KEY.to_owned(), serde_json::to_string(header).unwrap_or_default())]);
    for (key, text) in records {
        let bytes = key.len() + text.len();
        if bytes <= room {
            room -= bytes;
            data.insert(key.clone(), text.clone());
        }
    }
    data
}
