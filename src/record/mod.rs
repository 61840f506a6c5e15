//! What is remembered of each stack across restarts: that AWS had what it shall have, and by which ARNs. A record is a
//! promise that nothing is left to do, made after the last write of a plan and taken back before the first of the next.
//! It spares calls and decides nothing: whatever it does not vouch for is read from AWS.
//!
//! Records stand in ConfigMaps, spread over a few so that none outgrows what the API server takes (1 MiB).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{LoadBalancerArn, ObservedBinding, ObservedStack, SecurityGroupId, Stack, StackId, TargetGroupArn};

#[cfg(test)]
mod tests;

/// Counts changes of what records mean. One of another format is not read: everything is read from AWS instead.
pub const FORMAT: u32 = 1;

/// How many ConfigMaps there are: one for each hexadecimal digit.
pub const SHARDS: usize = 16;

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
    /// The process that wrote it last. Whoever finds another's than it left or took over does not lead any more.
    pub holder: String,
}

impl Header {
    /// Whether records under this header are about the same resources as those under the other.
    #[must_use]
    pub fn is_about_the_same(&self, other: &Self) -> bool {
        Self { holder: String::new(), ..self.clone() } == Self { holder: String::new(), ..other.clone() }
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

/// A stack that is as it shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clean {
    /// [`fingerprint`] of what it shall be.
    pub fingerprint: String,
    /// All load balancers with its tags.
    pub load_balancers: BTreeSet<LoadBalancerArn>,
    /// All target groups with its tags.
    pub target_groups: BTreeSet<TargetGroupArn>,
    /// All security groups with its tags.
    pub security_groups: BTreeSet<SecurityGroupId>,
}

impl Clean {
    /// Vouches for what AWS has of a stack that is as it shall be.
    #[must_use]
    pub fn of(stack: &Stack, observed: &ObservedStack) -> Self {
        Self { fingerprint: fingerprint(stack, &observed.bindings), ..Self::named(observed) }
    }

    /// The resources alone.
    fn named(observed: &ObservedStack) -> Self {
        Self {
            fingerprint: String::new(),
            load_balancers: observed.load_balancers.iter().map(|balancer| balancer.arn.clone()).collect(),
            target_groups: observed.target_groups.iter().map(|group| group.arn.clone()).collect(),
            security_groups: observed.security_groups.iter().map(|group| group.id.clone()).collect(),
        }
    }

    /// Whether AWS lists exactly these resources.
    #[must_use]
    pub fn names_all_of(&self, observed: &ObservedStack) -> bool {
        *self == Self { fingerprint: self.fingerprint.clone(), ..Self::named(observed) }
    }

    /// The ARNs of everything that is listed without its tags.
    pub fn arns(&self) -> impl Iterator<Item = &str> {
        let balancers = self.load_balancers.iter().map(LoadBalancerArn::as_str);
        balancers.chain(self.target_groups.iter().map(TargetGroupArn::as_str))
    }
}

fn hashed(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..16])
}

/// A short text that differs where stacks, or their bindings, differ.
#[must_use]
pub fn fingerprint(stack: &Stack, bindings: &[ObservedBinding]) -> String {
    // The version changes with whatever is written beside the spec, our own checkpoint among it.
    let bindings: Vec<_> =
        bindings.iter().map(|b| (&b.name, &b.target_group, &b.labels, &b.spec, b.deleting)).collect();
    // Only maps with keys that are no text fail to become JSON. A fingerprint of nothing would be everybody's.
    match serde_json::to_string(&(FORMAT, stack, bindings)) {
        Ok(text) => hashed(&text),
        Err(_) => String::new(),
    }
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
    if !read.header.as_ref().is_some_and(|found| found.is_about_the_same(header)) {
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

/// A ConfigMap's data.
#[must_use]
pub fn write(header: &Header, records: &BTreeMap<String, Record>) -> BTreeMap<String, String> {
    let text = |record: &Record| serde_json::to_string(record).unwrap_or_default();
    let header = serde_json::to_string(header).unwrap_or_default();
    let records = records.iter().map(|(key, record)| (key.clone(), text(record)));
    records.chain([(HEADER_KEY.to_owned(), header)]).collect()
}
