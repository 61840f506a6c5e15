//! Who asked for which fact, so that whoever was told something that is no longer so is looked at again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use crate::{
    facts::{Fact, Facts, Want},
    model::StackId,
};

/// What was answered last to each question, and whom it concerned.
#[derive(Debug, Default)]
pub struct Askers(Mutex<BTreeMap<Want, Answered>>);

#[derive(Debug)]
struct Answered {
    answer: String,
    askers: BTreeSet<StackId>,
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
        Want::Secret(_) | Want::BackendSecurityGroup | Want::InForce => None,
    }
}

impl Askers {
    /// Takes note of what `asker` was told. Answers who was told something else before.
    pub fn note(&self, asker: &StackId, want: &Want, facts: &Facts) -> BTreeSet<StackId> {
        let Some(answer) = answer(want, facts) else { return BTreeSet::new() };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            known.entry(want.clone()).or_insert_with(|| Answered { answer: answer.clone(), askers: BTreeSet::new() });
        let mut others = BTreeSet::new();
        if known.answer != answer {
            known.answer = answer;
            others = std::mem::take(&mut known.askers);
            others.remove(asker);
        }
        known.askers.insert(asker.clone());
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectName;

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
}
