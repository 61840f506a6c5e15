//! The certificates that were requested or deleted a short time ago.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use albatross_core::model::{CertificateArn, RecentCertificates, ResourceId, StackId};

/// The time for which ACM answers the same token with the same certificate.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// The time after which ACM shows a certificate that was requested.
const SHOWN_AFTER: Duration = Duration::from_secs(10);
/// The most deleted certificates of a resource that are remembered. [`PAUSE`] lets no more be requested in the time.
const MOST_DELETED: usize = 64;
/// The number of certificates that are requested for an Ingress without a pause, and the time between any more: ACM counts those of
/// a year, and an Ingress whose hosts change all the time would soon leave none for others.
const WITHOUT_PAUSE: usize = 2;
const PAUSE: Duration = Duration::from_secs(60);

/// The certificates that were requested or deleted within [`TOKEN_LIFETIME`], and no others.
#[derive(Debug, Default)]
pub(super) struct Recent {
    deleted: BTreeMap<(StackId, ResourceId), Vec<(CertificateArn, Instant)>>,
    /// Those that ACM did not know when they were described, since when.
    missing: BTreeMap<CertificateArn, Instant>,
    /// Those that ACM has answered requests with, by the hash of the Ingress, whatever its group is.
    requested: BTreeMap<String, Vec<(CertificateArn, Instant)>>,
}

fn is_recent(at: Instant) -> bool {
    at.elapsed() < TOKEN_LIFETIME
}

impl Recent {
    /// Returns what is known of the certificates of a stack.
    pub(super) fn of(&self, stack: &StackId) -> RecentCertificates {
        let mut recent = RecentCertificates::default();
        for ((_, resource), all) in self.deleted.iter().filter(|((of, _), _)| of == stack) {
            let arns = all.iter().filter(|(_, at)| is_recent(*at)).map(|(arn, _)| arn.clone());
            recent.deleted.entry(resource.clone()).or_default().extend(arns);
        }
        recent.paused = self.paused();
        recent
    }

    fn paused(&self) -> BTreeSet<String> {
        let is_paused = |all: &[(CertificateArn, Instant)]| {
            let is_full = all.iter().filter(|(_, at)| is_recent(*at)).count() >= WITHOUT_PAUSE;
            is_full && all.last().is_some_and(|(_, at)| at.elapsed() < PAUSE)
        };
        self.requested.iter().filter(|(_, all)| is_paused(all)).map(|(owner, _)| owner.clone()).collect()
    }

    /// ACM has answered a request with a certificate, which is a new one unless an earlier request was answered with it.
    pub(super) fn requested(&mut self, resource: &ResourceId, arn: &CertificateArn) {
        self.forget_old();
        let Some(owner) = resource.certificate_owner() else { return };
        let all = self.requested.entry(owner.to_owned()).or_default();
        if all.iter().all(|(known, _)| known != arn) {
            all.push((arn.clone(), Instant::now()));
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
        self.requested.values_mut().for_each(|all| all.retain(|(_, at)| is_recent(*at)));
        self.requested.retain(|_, all| !all.is_empty());
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

    #[tokio::test(start_paused = true)]
    async fn an_ingress_has_one_certificate_requested_in_a_minute_after_the_first_two() {
        let mut recent = Recent::default();
        let request =
            |recent: &mut Recent, domain: &str| recent.requested(&resource(domain), &CertificateArn::new(domain));
        let is_paused = |recent: &Recent| {
            let other = ResourceId::certificate(&ObjectName::new("shop", "other"), "a.example.com", false);
            // It is paused whatever its hosts and its group are.
            let anywhere = recent.of(&StackId::Group("team".to_owned()));
            assert!(!anywhere.is_paused(&other));
            anywhere.is_paused(&resource("new.example.com"))
        };
        request(&mut recent, "a.example.com");
        assert!(!is_paused(&recent));
        // The same answer is the same certificate.
        request(&mut recent, "a.example.com");
        assert!(!is_paused(&recent));
        request(&mut recent, "b.example.com");
        assert!(is_paused(&recent));
        for number in 0..3 {
            pass(59).await;
            assert!(is_paused(&recent));
            pass(1).await;
            assert!(!is_paused(&recent));
            request(&mut recent, &format!("{number}.example.com"));
            assert!(is_paused(&recent));
        }
        pass(3600).await;
        request(&mut recent, "d.example.com");
        assert!(!is_paused(&recent) && recent.requested.values().all(|all| all.len() == 1));
    }
}
