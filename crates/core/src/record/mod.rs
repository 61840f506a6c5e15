//! The data that is remembered of each stack across restarts: the state of its AWS resources when nothing was left to do. A
//! record is marked clean after the last write of a plan and dirty before the first of the next. It saves reads and decides
//! nothing: it counts only where AWS lists all resources that it names, and a resource without a trusted record is read.
//!
//! Records are stored in ConfigMaps, each compressed, and spread over many: a change costs a write of one of them, and
//! thousands of stacks fit into the limit of the API server (1 MiB each).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    ops::RangeInclusive,
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    model::{
        MemberResources, ObservedCertificate, ObservedFrontend, ObservedLoadBalancer, ObservedStack,
        ObservedTargetGroup, StackId, TagKeys, TargetGroupArn,
    },
    plan::Wait,
};

#[cfg(test)]
mod tests;

/// Counts changes of what records mean. One of another format is not read: everything is read from AWS instead, once.
pub const FORMAT: u32 = 3;

/// The number of ConfigMaps. Each is written whole, so more of them make a write smaller.
pub const SHARDS: usize = 64;

/// The most bytes in one ConfigMap; the API server accepts at most 1 MiB.
const MAX_BYTES: usize = 960 * 1024;

/// The longest text of a record that is read, in bytes: far more than a stack at AWS's quotas has. A value that unpacks to
/// more was not written here.
const LONGEST_TEXT: u64 = 8 * 1024 * 1024;

/// The default of `--leader-election-id`.
const DEFAULT_LEASE: &str = "aws-load-balancer-controller-leader";

/// The key of the header in a ConfigMap's data.
pub const HEADER_KEY: &str = "header";

/// The annotation of a TargetGroupBinding by which its targets can be trusted, as [`in_term`] writes it.
pub const CHECKPOINT: &str = "elbv2.k8s.aws/albatross-checkpoint";

/// The annotations of a TargetGroupBinding with which aws-load-balancer-controller does the same. It skips its work where the
/// first is equal to what it computes, whatever was registered meanwhile.
pub const FOREIGN_CHECKPOINTS: [&str; 2] = ["elbv2.k8s.aws/checkpoint", "elbv2.k8s.aws/checkpoint-timestamp"];

/// The header that all records of a ConfigMap share. They are valid only under a header that [`follows`](Self::follows)
/// it; the keys of tags also in later terms.
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
    /// The process that wrote it last. A process that finds another name here no longer leads.
    pub holder: String,
    /// The term of the lease in which it was written. A process that writes no records (aws-load-balancer-controller, say) may
    /// have led in a term between.
    pub term: i32,
    /// The first of the terms, up to that one, in each of which a process led that writes records.
    pub since: i32,
}

impl Header {
    /// Returns true if records under the other header are valid under this one: it is about the same resources, and no other
    /// process has led since. Without election all terms are one.
    #[must_use]
    pub fn follows(&self, other: &Self) -> bool {
        let next = other.term == self.term || other.term.checked_add(1) == Some(self.term);
        next && self.is_of_the_same(other)
    }

    /// Returns true if the other header describes the same resources.
    fn is_of_the_same(&self, other: &Self) -> bool {
        *other == Self { holder: other.holder.clone(), term: other.term, since: other.since, ..self.clone() }
    }
}

/// The record of one stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StackRecord {
    /// The stack.
    pub stack: StackId,
    /// The state when no changes were left. Absent from the first write of a plan until all is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean: Option<Clean>,
    /// The tags that are the controller's own, those of a plan that is being run among them. Absent until the stack is
    /// in its desired state for the first time. It is valid in later terms too: a leader between takes no tags over from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_keys: Option<TagKeys>,
    /// The waits of the stack that end when their time has passed, each with the time of its beginning in seconds since
    /// 1970, so that a restart does not begin them anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<(Wait, u64)>,
    /// The facts that are remembered without a clean state.
    #[serde(default, skip_serializing_if = "Remembered::is_empty")]
    pub remembered: Remembered,
}

/// The part of a stack's state that nothing in AWS tells, while it is not in its desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    /// The resources of each member of a group, as of the last time when no changes were left but those that wait.
    #[serde(rename = "holdings", default, skip_serializing_if = "Vec::is_empty")]
    pub member_resources: Vec<MemberResources>,
    /// The names of the records in Route 53 that the controller has created for certificates of the stack.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub created: BTreeSet<String>,
}

impl Remembered {
    /// Returns true if there is nothing to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns what a record says.
    #[must_use]
    pub fn of(record: StackRecord) -> Self {
        match record.clean {
            Some(clean) => Self { member_resources: clean.member_resources, created: created_for(&clean.certificates) },
            None => record.remembered,
        }
    }

    /// Returns what is to be remembered of a stack as observed. While its certificates are not known, what was known of them counts.
    #[must_use]
    pub fn with(self, observed: &ObservedStack) -> Self {
        let created = observed.certificates.as_deref().map_or(self.created, created_for);
        Self { member_resources: observed.member_resources.clone(), created }
    }
}

fn created_for(certificates: &[ObservedCertificate]) -> BTreeSet<String> {
    certificates.iter().flat_map(|certificate| certificate.created.iter().cloned()).collect()
}

/// The state of a stack that was in its desired state, as known then. Resources that AWS lists all together are not in here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clean {
    /// All load balancers with its tags: their tags, attributes, listeners and rules.
    pub load_balancers: Vec<ObservedLoadBalancer>,
    /// All target groups with its tags: their tags and attributes.
    pub target_groups: Vec<ObservedTargetGroup>,
    /// The Network Load Balancer in front of the load balancers, with its target groups.
    #[serde(default, skip_serializing_if = "ObservedFrontend::is_empty")]
    pub frontend: ObservedFrontend,
    /// The certificates that were requested for it, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<ObservedCertificate>,
    /// The resources of each member of a group within its load balancer.
    #[serde(rename = "holdings", default, skip_serializing_if = "Vec::is_empty")]
    pub member_resources: Vec<MemberResources>,
}

impl Clean {
    /// Returns the record of a stack that is in its desired state.
    #[must_use]
    pub fn of(observed: &ObservedStack) -> Self {
        Self {
            load_balancers: observed.load_balancers.clone(),
            target_groups: observed.target_groups.clone(),
            frontend: observed.frontend.clone(),
            certificates: observed.certificates.clone().unwrap_or_default(),
            member_resources: observed.member_resources.clone(),
        }
    }

    /// The ARNs of all that it names.
    pub fn arns(&self) -> impl Iterator<Item = &str> {
        let balancers = self.load_balancers.iter().chain(&self.frontend.load_balancers);
        let groups = self.target_groups.iter().chain(&self.frontend.target_groups);
        balancers.map(|balancer| balancer.arn.as_str()).chain(groups.map(|group| group.arn.as_str()))
    }
}

fn hashed(text: &str) -> String {
    let digest = Sha256::digest(text);
    let half: Vec<u8> = digest.iter().take(16).copied().collect();
    hex::encode(half)
}

/// Returns a short text that differs where target groups, or their desired targets, differ.
#[must_use]
pub fn of_targets<T: std::fmt::Display>(group: &TargetGroupArn, targets: impl IntoIterator<Item = T>) -> String {
    let targets: BTreeSet<String> = targets.into_iter().map(|target| target.to_string()).collect();
    hashed(&format!("{FORMAT} {group} {}", targets.into_iter().collect::<Vec<_>>().join(" ")))
}

/// The beginning of the texts of [`of_shared_targets`].
const SHARED: &str = "shared:";

/// The same as [`of_targets`] for a target group that other clusters use too, so that a change of that is no steady state.
#[must_use]
pub fn of_shared_targets<T: std::fmt::Display>(group: &TargetGroupArn, targets: impl IntoIterator<Item = T>) -> String {
    format!("{SHARED}{}", of_targets(group, targets))
}

/// Returns true if a checkpoint is about a target group that other clusters used too.
#[must_use]
pub fn was_shared(checkpoint: &str) -> bool {
    checkpoint.split_once(' ').is_some_and(|(_, digest)| digest.starts_with(SHARED))
}

/// Returns the value of [`CHECKPOINT`] for a term of the lease and the text of [`of_targets`].
#[must_use]
pub fn in_term(term: i32, targets: &str) -> String {
    format!("{term} {targets}")
}

/// Returns true if a checkpoint is valid for these targets: it was written in one of the given terms, in which no controller
/// without checkpoints led.
#[must_use]
pub fn counts(checkpoint: &str, terms: &RangeInclusive<i32>, targets: &str) -> bool {
    let Some((written, digest)) = checkpoint.split_once(' ') else { return false };
    digest == targets && written.parse().is_ok_and(|written: i32| terms.contains(&written))
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

/// Returns the index of the ConfigMap that holds a key.
#[must_use]
pub fn shard(key: &str) -> usize {
    usize::from_str_radix(key.get(..2).unwrap_or_default(), 16).unwrap_or_default() % SHARDS
}

/// A ConfigMap's name. Controllers that take turns share a Lease. Controllers that do not, because they serve different
/// classes, must not write each other's records.
#[must_use]
pub fn shard_name(lease: &str, shard: usize) -> String {
    let prefix = if lease == DEFAULT_LEASE { "albatross" } else { lease };
    format!("{prefix}-records-{shard}")
}

/// The records read from a ConfigMap's data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Its header, where it has one that can be read.
    pub header: Option<Header>,
    /// The records, by key: none if the header is for other resources, and no clean ones if its term is too old.
    pub records: BTreeMap<String, StackRecord>,
    /// Keys whose values cannot be read.
    pub unreadable: Vec<String>,
}

/// The contents of a ConfigMap: the header as text, and the records by key, as [`pack`] writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// `data`: under [`HEADER_KEY`] the header.
    pub data: BTreeMap<String, String>,
    /// `binaryData`: the records.
    pub packed: BTreeMap<String, Vec<u8>>,
}

/// Reads what a ConfigMap holds. What cannot be read counts for nothing.
#[must_use]
pub fn read(header: &Header, contents: &Contents) -> Read {
    let found: Option<Header> = contents.data.get(HEADER_KEY).and_then(|text| serde_json::from_str(text).ok());
    let mut read = Read { header: found, ..Read::default() };
    let Some(found) = read.header.as_ref().filter(|found| header.is_of_the_same(found)) else { return read };
    let counts = header.follows(found);
    for (name, packed) in &contents.packed {
        match unpack(packed) {
            // A record that was copied to another place is not valid here.
            Some(record) if key(&record.stack) == *name => {
                if counts {
                    read.records.insert(name.clone(), record);
                } else if record.tag_keys.is_some() || !record.waits.is_empty() {
                    // Times do not depend on who wrote them.
                    let remembered = Remembered::default();
                    read.records.insert(name.clone(), StackRecord { clean: None, remembered, ..record });
                }
            }
            _ => read.unreadable.push(name.clone()),
        }
    }
    read
}

/// Encodes a record: JSON in raw DEFLATE. One that cannot be encoded is never trusted.
#[must_use]
pub fn pack(record: &StackRecord) -> Vec<u8> {
    let mut packed = DeflateEncoder::new(Vec::new(), Compression::best());
    let written = serde_json::to_vec(record).map_err(Into::into).and_then(|text| packed.write_all(&text));
    written.and_then(|()| packed.finish()).unwrap_or_default()
}

/// Returns the record that [`pack`] has written, or nothing where it was something else.
#[must_use]
pub fn unpack(packed: &[u8]) -> Option<StackRecord> {
    let mut text = Vec::new();
    DeflateDecoder::new(packed).take(LONGEST_TEXT).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Returns the contents of a ConfigMap from records by key. Records for which there is no room are left out.
#[must_use]
pub fn write<'a>(header: &Header, records: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) -> Contents {
    let mut room = MAX_BYTES;
    let data = BTreeMap::from([(HEADER_KEY.to_owned(), serde_json::to_string(header).unwrap_or_default())]);
    let mut contents = Contents { data, packed: BTreeMap::new() };
    for (key, packed) in records {
        let bytes = key.len() + packed.len();
        if bytes <= room {
            room -= bytes;
            contents.packed.insert(key.clone(), packed.clone());
        }
    }
    contents
}
