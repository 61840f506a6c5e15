//! The stacks that were built from each fact, so that a changed answer brings them back into the queue.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use albatross_core::{
    facts::{Fact, FactQuery, Facts},
    model::StackId,
};

/// The last answer to each question, and the stacks that it concerns.
#[derive(Debug, Default)]
pub(crate) struct FactSubscribers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    answers: BTreeMap<FactQuery, SubscribedFact>,
    /// The questions that each stack asked since it was last built.
    facts_of: BTreeMap<StackId, BTreeSet<FactQuery>>,
}

#[derive(Debug)]
struct SubscribedFact {
    answer: String,
    subscribers: BTreeSet<StackId>,
}

impl Known {
    /// Drops a stack from a question; one that no stack asks is forgotten.
    fn leave(&mut self, subscriber: &StackId, want: &FactQuery) {
        if let Some(fact) = self.answers.get_mut(want) {
            fact.subscribers.remove(subscriber);
            if fact.subscribers.is_empty() {
                self.answers.remove(want);
            }
        }
    }
}

/// An answer as text that differs where answers do. `None` while there is none: that changes nothing.
fn answer(want: &FactQuery, facts: &Facts) -> Option<String> {
    fn answer_text<T: std::fmt::Debug>(fact: &Fact<T>) -> Option<String> {
        (!matches!(fact, Fact::Unavailable(_))).then(|| format!("{fact:?}"))
    }
    match want {
        FactQuery::Subnets(query) => facts.subnets.get(query).and_then(answer_text),
        FactQuery::SecurityGroups(names) => facts.security_groups.get(names).and_then(answer_text),
        FactQuery::TargetGroup(name) => facts.target_groups.get(name).and_then(answer_text),
        FactQuery::Certificates(hosts) => facts.certificates.get(hosts).and_then(answer_text),
        FactQuery::TrustStore(name) => facts.trust_stores.get(name).and_then(answer_text),
        FactQuery::WebAcl(name) => facts.web_acls.get(name).and_then(answer_text),
        FactQuery::ShieldSubscription => facts.shield_subscription.as_ref().and_then(answer_text),
        FactQuery::HostedZones => facts.hosted_zones.as_ref().and_then(answer_text),
        FactQuery::VpcBlocks => facts.vpc_blocks.as_ref().and_then(answer_text),
        FactQuery::Limits => facts.limits.as_ref().and_then(answer_text),
        // Readers of a Secret are notified of its changes by its watch.
        FactQuery::Secret(_)
        | FactQuery::BackendSecurityGroup
        | FactQuery::Current
        | FactQuery::CurrentAddOn(_)
        | FactQuery::ManagedCertificates
        | FactQuery::Protection => None,
    }
}

impl FactSubscribers {
    /// Records the answer that `subscriber` received. Returns the other stacks that received a different answer before.
    pub(crate) fn note(&self, subscriber: &StackId, want: &FactQuery, facts: &Facts) -> BTreeSet<StackId> {
        let Some(answer) = answer(want, facts) else { return BTreeSet::new() };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fact = known
            .answers
            .entry(want.clone())
            .or_insert_with(|| SubscribedFact { answer: answer.clone(), subscribers: BTreeSet::new() });
        let mut others = BTreeSet::new();
        if fact.answer != answer {
            fact.answer = answer;
            others = std::mem::take(&mut fact.subscribers);
            others.remove(subscriber);
        }
        fact.subscribers.insert(subscriber.clone());
        known.facts_of.entry(subscriber.clone()).or_default().insert(want.clone());
        others
    }

    /// Returns the sets of host names for which stacks rely on certificates that are found in ACM.
    pub(crate) fn discovered_hosts(&self) -> Vec<BTreeSet<String>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hosts = known.answers.keys().filter_map(|want| match want {
            FactQuery::Certificates(hosts) => Some(hosts.clone()),
            _ => None,
        });
        hosts.collect()
    }

    /// Records the answer that nobody has asked for. Returns the stacks that received a different answer before; they are told the
    /// new one when they ask.
    pub(crate) fn changed(&self, want: &FactQuery, facts: &Facts) -> BTreeSet<StackId> {
        let Some(answer) = answer(want, facts) else { return BTreeSet::new() };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fact = known.answers.get_mut(want).filter(|fact| fact.answer != answer);
        fact.map(|fact| {
            fact.answer = answer;
            fact.subscribers.clone()
        })
        .unwrap_or_default()
    }

    /// Records all facts that a stack requests now; an empty set for a stack that no longer exists. Facts that no stack
    /// requests are removed.
    pub(crate) fn asks(&self, subscriber: &StackId, wants: &BTreeSet<FactQuery>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = known.facts_of.remove(subscriber) else { return };
        let (still, no_longer): (BTreeSet<FactQuery>, BTreeSet<FactQuery>) =
            before.into_iter().partition(|want| wants.contains(want));
        no_longer.iter().for_each(|want| known.leave(subscriber, want));
        if !still.is_empty() {
            known.facts_of.insert(subscriber.clone(), still);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use albatross_core::model::{CertificateArn, ObjectName, VpcBlocks};

    #[test]
    fn whoever_was_told_something_else_is_looked_at_again_once() {
        let subscribers = FactSubscribers::default();
        let [web, api, late] = ["web", "api", "late"].map(|name| StackId::Service(ObjectName::new("shop", name)));
        let reported = |fact| Facts { vpc_blocks: Some(fact), ..Facts::default() };
        let blocks = |blocks: &[&str]| {
            let ipv4 = blocks.iter().map(|block| (*block).to_owned()).collect();
            Fact::Known(VpcBlocks { ipv4, ipv6: Vec::new() })
        };
        let first = reported(blocks(&["10.0.0.0/16"]));
        let second = reported(blocks(&["10.0.0.0/16", "10.1.0.0/16"]));
        let none = BTreeSet::new();
        assert_eq!(subscribers.note(&web, &FactQuery::VpcBlocks, &first), none);
        assert_eq!(subscribers.note(&api, &FactQuery::VpcBlocks, &first), none);
        // Not to know is no news.
        assert_eq!(
            subscribers.note(&api, &FactQuery::VpcBlocks, &reported(Fact::Unavailable("throttled".to_owned()))),
            none
        );
        assert_eq!(subscribers.note(&late, &FactQuery::VpcBlocks, &second), BTreeSet::from([web.clone(), api.clone()]));
        assert_eq!(subscribers.note(&web, &FactQuery::VpcBlocks, &second), none);
        assert_eq!(subscribers.note(&api, &FactQuery::VpcBlocks, &first), BTreeSet::from([late, web]));
    }

    #[test]
    fn news_that_nobody_asked_for_reach_those_whom_they_concern() {
        let subscribers = FactSubscribers::default();
        let [web, api] = ["web", "api"].map(|name| StackId::Ingress(ObjectName::new("shop", name)));
        let hosts = |name: &str| BTreeSet::from([format!("{name}.example.com")]);
        let facts = |arns: &[&str]| {
            let found = Fact::Known(arns.iter().map(|arn| CertificateArn::new(*arn)).collect());
            let all = ["web", "api"].map(|name| (hosts(name), Fact::clone(&found)));
            Facts { certificates: all.into(), ..Facts::default() }
        };
        assert!(subscribers.discovered_hosts().is_empty());
        for (stack, name) in [(&web, "web"), (&api, "api")] {
            subscribers.note(stack, &FactQuery::Certificates(hosts(name)), &facts(&["a"]));
        }
        subscribers.note(&web, &FactQuery::VpcBlocks, &Facts::default());
        assert_eq!(subscribers.discovered_hosts(), [hosts("api"), hosts("web")]);
        let of_web = FactQuery::Certificates(hosts("web"));
        assert_eq!(subscribers.changed(&of_web, &facts(&["a"])), BTreeSet::new());
        assert_eq!(subscribers.changed(&of_web, &facts(&["a", "b"])), BTreeSet::from([web.clone()]));
        assert_eq!(subscribers.changed(&of_web, &facts(&["a", "b"])), BTreeSet::new());
        // It asks, and is told nothing new.
        assert_eq!(subscribers.note(&web, &of_web, &facts(&["a", "b"])), BTreeSet::new());
        assert_eq!(subscribers.changed(&FactQuery::Certificates(hosts("other")), &facts(&[])), BTreeSet::new());
        subscribers.asks(&web, &BTreeSet::new());
        assert_eq!(subscribers.discovered_hosts(), [hosts("api")]);
    }

    #[test]
    fn what_no_stack_asks_any_more_is_forgotten() {
        let subscribers = FactSubscribers::default();
        let [web, api] = ["web", "api"].map(|name| StackId::Service(ObjectName::new("shop", name)));
        let trust_store = |n: usize| FactQuery::TrustStore(n.to_string());
        let facts = Facts {
            vpc_blocks: Some(Fact::Known(VpcBlocks::default())),
            trust_stores: (0..1000)
                .map(|n| (n.to_string(), Fact::Absent { message: "none".to_owned(), fix: String::new() }))
                .collect(),
            ..Facts::default()
        };
        subscribers.note(&api, &trust_store(999), &facts);
        // Edited a thousand times, built or not.
        for n in 0..1000 {
            subscribers.note(&web, &FactQuery::VpcBlocks, &facts);
            subscribers.note(&web, &trust_store(n), &facts);
            subscribers.asks(&web, &BTreeSet::from([FactQuery::VpcBlocks, trust_store(n)]));
        }
        let sizes = |subscribers: &FactSubscribers| {
            let known = subscribers.0.lock().unwrap();
            (known.answers.len(), known.facts_of.len())
        };
        assert_eq!(sizes(&subscribers), (2, 2));
        subscribers.asks(&web, &BTreeSet::new());
        assert_eq!(sizes(&subscribers), (1, 1));
        subscribers.asks(&api, &BTreeSet::new());
        assert_eq!(sizes(&subscribers), (0, 0));
    }
}
