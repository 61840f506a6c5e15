//! Which stacks asked for which fact, so that those that were given an answer that is no longer so are looked at again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use albatross_core::{
    facts::{Fact, Facts, Want},
    model::StackId,
};

/// The last answer to each question, and the stacks that it concerns.
#[derive(Debug, Default)]
pub struct Askers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    answers: BTreeMap<Want, Answered>,
    /// The questions that each stack asked since it was last built.
    asked: BTreeMap<StackId, BTreeSet<Want>>,
}

#[derive(Debug)]
struct Answered {
    answer: String,
    askers: BTreeSet<StackId>,
}

impl Known {
    /// Drops a stack from a question; one that no stack asks is forgotten.
    fn leave(&mut self, asker: &StackId, want: &Want) {
        if let Some(answered) = self.answers.get_mut(want) {
            answered.askers.remove(asker);
            if answered.askers.is_empty() {
                self.answers.remove(want);
            }
        }
    }
}

/// An answer as text that differs where answers do. `None` while there is none: that changes nothing.
fn answer(want: &Want, facts: &Facts) -> Option<String> {
    fn told<T: std::fmt::Debug>(fact: &Fact<T>) -> Option<String> {
        (!matches!(fact, Fact::Unavailable(_))).then(|| format!("{fact:?}"))
    }
    match want {
        Want::Subnets(query) => facts.subnets.get(query).and_then(told),
        Want::SecurityGroups(names) => facts.security_groups.get(names).and_then(told),
        Want::TargetGroup(name) => facts.target_groups.get(name).and_then(told),
        Want::Certificates(hosts) => facts.certificates.get(hosts).and_then(told),
        Want::TrustStore(name) => facts.trust_stores.get(name).and_then(told),
        Want::VpcBlocks => facts.vpc_blocks.as_ref().and_then(told),
        Want::Limits => facts.limits.as_ref().and_then(told),
        // Who reads a Secret is told of its changes by its watch.
        Want::Secret(_) | Want::BackendSecurityGroup | Want::InForce | Want::Protection => None,
    }
}

impl Askers {
    /// Takes note of the answer that `asker` was given. Returns the stacks that were given another before.
    pub fn note(&self, asker: &StackId, want: &Want, facts: &Facts) -> BTreeSet<StackId> {
        let Some(answer) = answer(want, facts) else { return BTreeSet::new() };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = known
            .answers
            .entry(want.clone())
            .or_insert_with(|| Answered { answer: answer.clone(), askers: BTreeSet::new() });
        let mut others = BTreeSet::new();
        if answered.answer != answer {
            answered.answer = answer;
            others = std::mem::take(&mut answered.askers);
            others.remove(asker);
        }
        answered.askers.insert(asker.clone());
        known.asked.entry(asker.clone()).or_default().insert(want.clone());
        others
    }

    /// Takes note of all that a stack asks by now; an empty set for one that is gone. What no stack asks is forgotten.
    pub fn asks(&self, asker: &StackId, wants: &BTreeSet<Want>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = known.asked.remove(asker) else { return };
        let (still, no_longer): (BTreeSet<Want>, BTreeSet<Want>) =
            before.into_iter().partition(|want| wants.contains(want));
        no_longer.iter().for_each(|want| known.leave(asker, want));
        if !still.is_empty() {
            known.asked.insert(asker.clone(), still);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use albatross_core::model::ObjectName;

    #[test]
    fn whoever_was_told_something_else_is_looked_at_again_once() {
        let askers = Askers::default();
        let [web, api, late] = ["web", "api", "late"].map(|name| StackId::Service(ObjectName::new("shop", name)));
        let told = |fact| Facts { vpc_blocks: Some(fact), ..Facts::default() };
        let first = told(Fact::Known(vec!["10.0.0.0/16".to_owned()]));
        let second = told(Fact::Known(vec!["10.0.0.0/16".to_owned(), "10.1.0.0/16".to_owned()]));
        let none = BTreeSet::new();
        assert_eq!(askers.note(&web, &Want::VpcBlocks, &first), none);
        assert_eq!(askers.note(&api, &Want::VpcBlocks, &first), none);
        // Not to know is no news.
        assert_eq!(askers.note(&api, &Want::VpcBlocks, &told(Fact::Unavailable("throttled".to_owned()))), none);
        assert_eq!(askers.note(&late, &Want::VpcBlocks, &second), BTreeSet::from([web.clone(), api.clone()]));
        assert_eq!(askers.note(&web, &Want::VpcBlocks, &second), none);
        assert_eq!(askers.note(&api, &Want::VpcBlocks, &first), BTreeSet::from([late, web]));
    }

    #[test]
    fn what_no_stack_asks_any_more_is_forgotten() {
        let askers = Askers::default();
        let [web, api] = ["web", "api"].map(|name| StackId::Service(ObjectName::new("shop", name)));
        let trust_store = |n: usize| Want::TrustStore(n.to_string());
        let facts = Facts {
            vpc_blocks: Some(Fact::Known(Vec::new())),
            trust_stores: (0..1000)
                .map(|n| (n.to_string(), Fact::Absent { message: "none".to_owned(), fix: String::new() }))
                .collect(),
            ..Facts::default()
        };
        askers.note(&api, &trust_store(999), &facts);
        // Edited a thousand times, built or not.
        for n in 0..1000 {
            askers.note(&web, &Want::VpcBlocks, &facts);
            askers.note(&web, &trust_store(n), &facts);
            askers.asks(&web, &BTreeSet::from([Want::VpcBlocks, trust_store(n)]));
        }
        let sizes = |askers: &Askers| {
            let known = askers.0.lock().unwrap();
            (known.answers.len(), known.asked.len())
        };
        assert_eq!(sizes(&askers), (2, 2));
        askers.asks(&web, &BTreeSet::new());
        assert_eq!(sizes(&askers), (1, 1));
        askers.asks(&api, &BTreeSet::new());
        assert_eq!(sizes(&askers), (0, 0));
    }
}
