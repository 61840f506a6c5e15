//! The rules for targets of shared target groups, which outlast the targets. Others feed the target group too, so its load
//! balancer goes on, and its nodes open connections to a deregistered target until all of them know of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use albatross_core::{
    model::{ObjectName, Source, StackId, tags::BINDING_FINALIZER},
    snapshot::{Snapshot, TargetGroupBinding},
    targets::{node_rules::sources, shared::is_shared},
};

/// The bindings of shared target groups, until their rules may go.
#[derive(Debug, Default)]
pub(super) struct SharedBindings(BTreeMap<ObjectName, SharedBinding>);

#[derive(Debug)]
struct SharedBinding {
    sources: Vec<Source>,
    /// True if a stack made it: its load balancer goes with it.
    is_of_stack: bool,
    /// The time at which it was first seen without targets, or was gone.
    emptied: Option<Instant>,
    is_gone: bool,
}

impl SharedBinding {
    fn of(binding: &TargetGroupBinding) -> Self {
        Self {
            sources: binding.spec.networking.iter().flat_map(sources).collect(),
            is_of_stack: StackId::name_some(&binding.labels),
            emptied: None,
            is_gone: false,
        }
    }
}

/// What stays for now.
pub(super) struct Rest {
    /// The bindings whose rules stay.
    pub(super) bindings: BTreeSet<ObjectName>,
    /// The sources whose rules stay.
    pub(super) sources: Vec<Source>,
    /// The time until the first of them may go.
    pub(super) left: Option<Duration>,
}

impl SharedBindings {
    /// Notes the bindings with targets and the bindings without.
    pub(super) fn note<'a>(
        &mut self,
        snapshot: &Snapshot,
        filled: impl Iterator<Item = &'a TargetGroupBinding>,
        empty: impl Iterator<Item = &'a TargetGroupBinding>,
    ) {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.0);
        for (binding, is_empty) in filled.map(|it| (it, false)).chain(empty.map(|it| (it, true))) {
            let since = before.remove(&binding.name).and_then(|known| known.emptied).unwrap_or(now);
            if is_shared(&binding.spec) {
                let noted = SharedBinding { emptied: is_empty.then_some(since), ..SharedBinding::of(binding) };
                self.0.insert(binding.name.clone(), noted);
            }
        }
        for (name, mut known) in before {
            if !snapshot.target_group_bindings.get(&name).is_some_and(is_in_use) {
                known.emptied.get_or_insert(now);
                known.is_gone = true;
            }
            self.0.insert(name, known);
        }
    }

    /// Returns what stays for now, for a duration after the targets have gone.
    pub(super) fn rest(&mut self, propagation: Duration) -> Rest {
        let left = |since: Instant| propagation.saturating_sub(since.elapsed());
        self.0.retain(|_, known| {
            !known.is_gone || !known.is_of_stack && known.emptied.is_some_and(|it| !left(it).is_zero())
        });
        let emptied = self.0.iter().filter_map(|(name, known)| Some((name, known, left(known.emptied?))));
        let resting: Vec<_> = emptied.filter(|(.., left)| !left.is_zero()).collect();
        Rest {
            bindings: resting.iter().map(|(name, ..)| (*name).clone()).collect(),
            sources: resting.iter().flat_map(|(_, known, _)| known.sources.iter().cloned()).collect(),
            left: resting.iter().map(|(.., left)| *left).min(),
        }
    }
}

fn is_in_use(binding: &TargetGroupBinding) -> bool {
    !binding.deleting || binding.finalizers.iter().any(|finalizer| finalizer == BINDING_FINALIZER)
}
