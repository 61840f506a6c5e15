//! The certificates that were requested or deleted a short time ago.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use albatross_core::model::{CertificateArn, ObjectReference, RecentCertificates, ResourceId, StackId};

/// The time for which ACM answers the same token with the same certificate.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// The time after which ACM shows a certificate that was requested.
const SHOWN_AFTER: Duration = Duration::from_secs(10);
/// The most deleted certificates of a resource that are remembered. The pauses between requests let no more be made in the time.
const MOST_DELETED: usize = 64;
/// The number of certificates that are requested for an Ingress without a pause, and the time until the next one, which each further one
/// doubles: ACM counts those of a year, and an Ingress whose hosts change all the time would soon leave none for others.
const WITHOUT_PAUSE: u32 = 2;
const SHORTEST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(43_200);
/// The time without a request after which the earlier ones do not count.
const QUIET: Duration = Duration::from_secs(86_400);
/// The most requests of an Ingress that are told apart from their repetitions.
const MOST_REQUESTS: usize = 16;

/// The requests of an Ingress.
#[derive(Debug)]
struct Requests {
    /// The last ones: the certificate that ACM has answered with, or the token of a refused request.
    last: Vec<String>,
    number: u32,
    at: Instant,
}

impl Requests {
    fn is_quiet(&self) -> bool {
        self.at.elapsed() >= QUIET
    }

    fn is_paused(&self) -> bool {
        let Some(further) = self.number.checked_sub(WITHOUT_PAUSE) else { return false };
        let pause = SHORTEST_PAUSE.saturating_mul(2_u32.saturating_pow(further)).min(LONGEST_PAUSE);
        self.at.elapsed() < pause
    }
}

/// The certificates that were deleted within [`TOKEN_LIFETIME`] and those that were requested since [`QUIET`], and no others.
#[derive(Debug, Default)]
pub(super) struct Recent {
    deleted: BTreeMap<(StackId, ResourceId), Vec<(CertificateArn, Instant)>>,
    /// Those that ACM did not know when they were described, since when.
    missing: BTreeMap<CertificateArn, Instant>,
    /// The requests that ACM has answered or refused, by Ingress, whatever its group is.
    requested: BTreeMap<ObjectReference, Requests>,
}

fn is_recent(at: Instant) -> bool {
    at.elapsed() < TOKEN_LIFETIME
}

impl Recent {
    /// Returns what is known of the certificates of a stack.
    pub(super) fn of(&self, stack: &StackId) -> RecentCertificates {
        let mut recent = RecentCertificates::default();
        let of_stack = self.deleted.range((stack.clone(), ResourceId::of_tag(""))..);
        for ((_, resource), all) in of_stack.take_while(|((of, _), _)| of == stack) {
            let arns = all.iter().filter(|(_, at)| is_recent(*at)).map(|(arn, _)| arn.clone());
            recent.deleted.entry(resource.clone()).or_default().extend(arns);
        }
        recent.paused = self.paused(stack);
        recent
    }

    /// Returns the Ingresses that are paused, for an Ingress alone itself at most; which members a group has is not known here.
    fn paused(&self, stack: &StackId) -> BTreeSet<ObjectReference> {
        match stack {
            StackId::Ingress(name) => {
                let owner = ObjectReference::ingress(name);
                let is_paused = self.requested.get(&owner).is_some_and(Requests::is_paused);
                is_paused.then_some(owner).into_iter().collect()
            }
            StackId::Group(_) => {
                let paused = self.requested.iter().filter(|(_, all)| all.is_paused());
                paused.map(|(owner, _)| owner.clone()).collect()
            }
            StackId::Service(_) => BTreeSet::new(),
        }
    }

    /// ACM has answered a request with a certificate, or refused it; `what` is the certificate or the token. It counts unless an
    /// earlier one was answered so.
    pub(super) fn requested(&mut self, owner: &ObjectReference, what: &str) {
        self.forget_old();
        let new = || Requests { last: Vec::new(), number: 0, at: Instant::now() };
        let all = self.requested.entry(owner.clone()).or_insert_with(new);
        if all.last.iter().all(|known| known != what) {
            all.last.push(what.to_owned());
            all.number = all.number.saturating_add(1);
            all.at = Instant::now();
            if all.last.len() > MOST_REQUESTS {
                all.last.remove(0);
            }
        }
    }

    /// A certificate was deleted.
    pub(super) fn deleted(&mut self, stack: &StackId, resource: &ResourceId, arn: &CertificateArn) {
        self.forget_old();
        let all = self.deleted.entry((stack.clone(), resource.clone())).or_default();
        all.retain(|(known, _)| known != arn);
        all.push((arn.clone(), Instant::now()));
        if all.len() > MOST_DELETED {
            all.remove(0);
        }
    }

    /// ACM was asked for a certificate. One that it does not know for a while is deleted: it may have answered a request with it all
    /// the same.
    pub(super) fn described(&mut self, stack: &StackId, resource: &ResourceId, arn: &CertificateArn, exists: bool) {
        if exists {
            self.missing.remove(arn);
        } else if self.missing.entry(arn.clone()).or_insert_with(Instant::now).elapsed() >= SHOWN_AFTER {
            self.missing.remove(arn);
            self.deleted(stack, resource, arn);
        }
        self.forget_old();
    }

    /// A request of a stack without a clear answer is repeated, with the same token: all that belongs to it stays known.
    pub(super) fn keep_for_repetition(&mut self, stack: &StackId) {
        self.forget_old();
        for (_, all) in self.deleted.iter_mut().filter(|((of, _), _)| of == stack) {
            all.iter_mut().for_each(|(_, at)| *at = Instant::now());
        }
    }

    fn forget_old(&mut self) {
        self.missing.retain(|_, at| is_recent(*at));
        self.deleted.values_mut().for_each(|all| all.retain(|(_, at)| is_recent(*at)));
        self.deleted.retain(|_, all| !all.is_empty());
        self.requested.retain(|_, all| !all.is_quiet());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use albatross_core::model::ObjectName;

    fn name() -> ObjectName {
        ObjectName::new("shop", "web")
    }

    fn stack() -> StackId {
        StackId::Ingress(name())
    }

    fn resource(domain: &str) -> ResourceId {
        ResourceId::certificate(&name(), domain, false)
    }

    fn deleted(recent: &Recent) -> Vec<String> {
        let all = recent.of(&stack()).deleted;
        all.values().flatten().map(ToString::to_string).collect()
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_deleted_certificate_is_known_for_an_hour() {
        let (mut recent, resource, arn) = (Recent::default(), resource("a.example.com"), CertificateArn::new("a"));
        recent.deleted(&stack(), &resource, &arn);
        pass(3599).await;
        assert_eq!(deleted(&recent), ["a"]);
        assert_eq!(recent.of(&StackId::Ingress(ObjectName::new("shop", "other"))), RecentCertificates::default());
        pass(1).await;
        assert_eq!(deleted(&recent), [""; 0]);
        recent.forget_old();
        assert!(recent.deleted.is_empty());
        // A request that is to be repeated later is the same then.
        recent.deleted(&stack(), &resource, &arn);
        pass(3599).await;
        recent.keep_for_repetition(&stack());
        pass(3599).await;
        assert_eq!(deleted(&recent), ["a"]);
        for number in 0..100 {
            recent.deleted(&stack(), &resource, &CertificateArn::new(format!("b{number}")));
        }
        assert_eq!(deleted(&recent).len(), MOST_DELETED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_acm_does_not_know_for_a_while_is_deleted() {
        let (mut recent, resource, arn) = (Recent::default(), resource("a.example.com"), CertificateArn::new("a"));
        let mut described = async |seconds: u64, exists: bool| {
            pass(seconds).await;
            recent.described(&stack(), &resource, &arn, exists);
            deleted(&recent).len()
        };
        // ACM may show it a moment later.
        assert_eq!(described(0, false).await, 0);
        assert_eq!(described(5, false).await, 0);
        assert_eq!(described(10, true).await, 0);
        assert_eq!(described(10, false).await, 0);
        assert_eq!(described(10, false).await, 1);
        assert!(recent.missing.is_empty());
    }

    fn is_paused(recent: &Recent, stack: &StackId, owner: &ObjectName) -> bool {
        recent.of(stack).paused.contains(&ObjectReference::ingress(owner))
    }

    #[tokio::test(start_paused = true)]
    async fn each_certificate_of_an_ingress_after_the_first_two_waits_twice_as_long() {
        let (mut recent, owner, other) =
            (Recent::default(), ObjectReference::ingress(&name()), ObjectName::new("shop", "other"));
        let mut number = 0;
        let mut request = |recent: &mut Recent| {
            number += 1;
            recent.requested(&owner, &number.to_string());
            // The same answer is the same certificate.
            recent.requested(&owner, &number.to_string());
        };
        // It is paused whatever its group is, and no other one is.
        let is_paused = |recent: &Recent| {
            let group = StackId::Group("team".to_owned());
            let all = [&stack(), &group].map(|stack| is_paused(recent, stack, &name()));
            assert!(all[0] == all[1] && !self::is_paused(recent, &group, &other));
            assert_eq!(recent.of(&StackId::Ingress(other.clone())), RecentCertificates::default());
            all[0]
        };
        request(&mut recent);
        assert!(!is_paused(&recent));
        request(&mut recent);
        for minutes in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 720, 720, 720, 720, 720, 720, 720, 720] {
            pass(minutes * 60 - 1).await;
            assert!(is_paused(&recent), "{minutes}");
            pass(1).await;
            assert!(!is_paused(&recent), "{minutes}");
            request(&mut recent);
            assert!(is_paused(&recent), "{minutes}");
        }
        assert_eq!(recent.requested[&owner].last.len(), MOST_REQUESTS);
        // What was requested before a quiet day does not count.
        pass(86_400).await;
        request(&mut recent);
        assert!(!is_paused(&recent));
        pass(86_400).await;
        recent.forget_old();
        assert!(recent.requested.is_empty());
    }
}
