//! The certificates that were requested for stacks. They are read only where one is requested, or may have been.

mod recent;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::time::Instant;

use self::recent::Recent;
use super::{Inventory, State};
use crate::{AwsError, AwsErrorKind, AwsReader, managed_certificates::AnyCertificate};
use albatross_core::model::{
    CertificateArn, CertificateStatus, ObjectReference, ObservedCertificate, RecentCertificates, ResourceId, StackId,
    Tags, ValidationRecord, managed_certificate::removable_records, tags,
};

/// The maximum age of a list that serves several stacks.
const MAXIMUM_AGE_OF_LIST: Duration = Duration::from_secs(60);
/// The most certificates whose tags are read at once.
const AT_ONCE: usize = 4;
/// The shortest and the longest time for which a request that ACM refuses is not repeated. ACM counts the certificates of a year.
const SHORTEST_PAUSE: Duration = Duration::from_secs(600);
const LONGEST_PAUSE: Duration = Duration::from_secs(43_200);
/// The same where a permission is missing, which may be given at any time, or where Route 53 refuses a record.
const PAUSE_WITHOUT_PERMISSION: Duration = Duration::from_secs(60);
/// The shortest and the longest time for which a failed deletion of a certificate is not tried again: an Ingress that is deleted
/// waits for it.
const SHORTEST_PAUSE_OF_DELETION: Duration = Duration::from_secs(60);
const LONGEST_PAUSE_OF_DELETION: Duration = Duration::from_secs(900);
/// The most refusals of a stack that are remembered.
const MOST_REFUSED: usize = 512;
/// The time after which another certificate is requested in place of one that is of no use, and the longest one: each failure in a row
/// doubles it.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(43_200);
const LONGEST_GIVEN_UP_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// The known certificates of stacks.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// Absent for a stack whose certificates are not known.
    known: BTreeMap<StackId, Vec<ObservedCertificate>>,
    /// Those that the controller has deleted, and whose records have yet to go.
    deleted: BTreeMap<StackId, Vec<ObservedCertificate>>,
    /// The names of the records in Route 53 whose creation AWS has confirmed to the controller. No other is deleted.
    created: BTreeSet<String>,
    /// The tags of certificates, which ACM lists one by one. Nobody changes those that name the owner.
    tags: BTreeMap<CertificateArn, Tags>,
    /// The requests that AWS has refused, by token or name of the record, and the deletions, by ARN: for how long they are not repeated,
    /// and since when.
    refused: BTreeMap<(StackId, String), (Duration, Instant)>,
    /// The certificates that are of no use, each with the time when that was first seen.
    unusable: BTreeMap<CertificateArn, Instant>,
    /// The time after which the certificate of a resource that was requested last is given up, where the ones before it were.
    patience: BTreeMap<(StackId, ResourceId), (CertificateArn, Duration)>,
    /// The stacks that had certificates, or may have got some, and were invalidated since.
    uncertain: BTreeSet<StackId>,
    /// Those that were requested or deleted a short time ago, also of stacks that were released since.
    recent: Recent,
    /// Counts the times that certificates were invalidated.
    invalidations: u64,
    /// The certificates whose tags the controller may not read, with the last answer and its time. They are not asked for again for
    /// [`SHORTEST_PAUSE`]: an account may have thousands.
    unreadable: BTreeMap<CertificateArn, (Instant, AwsError)>,
}

/// The list of all certificates, with the time when it was read, and the invalidations until then.
pub(super) type CertificateList = tokio::sync::Mutex<Option<(Vec<AnyCertificate>, Instant, u64)>>;

impl Certificates {
    /// Takes over what a trusted record names.
    pub(super) fn load(&mut self, stack: &StackId, certificates: Vec<ObservedCertificate>) {
        if !certificates.is_empty() {
            self.load_created(certificates.iter().flat_map(|certificate| certificate.created.iter().cloned()));
            let is_deleted = |certificate: &ObservedCertificate| certificate.status == CertificateStatus::Deleted;
            let (deleted, known): (Vec<_>, Vec<_>) = certificates.into_iter().partition(is_deleted);
            self.known.entry(stack.clone()).or_insert(known);
            if !deleted.is_empty() {
                self.deleted.entry(stack.clone()).or_insert(deleted);
            }
        }
    }

    /// Takes over the names of records in Route 53 that the controller has created.
    pub(super) fn load_created(&mut self, created: impl IntoIterator<Item = String>) {
        self.created.extend(created);
    }

    /// Forgets the certificates of a stack. One that had none has none, unless the answer to a request was lost.
    pub(super) fn invalidate(&mut self, stack: &StackId) {
        if self.known.remove(stack).is_some_and(|known| !known.is_empty()) {
            self.look_again(stack);
        }
    }

    fn look_again(&mut self, stack: &StackId) {
        self.uncertain.insert(stack.clone());
        // An older list may lack one that was requested since.
        self.invalidations += 1;
    }

    /// Forgets a stack that has no resources any more.
    fn release(&mut self, stack: &StackId) {
        self.known.remove(stack);
        self.deleted.remove(stack);
        self.uncertain.remove(stack);
        self.refused.retain(|(of, _), _| of != stack);
        self.patience.retain(|(of, _), _| of != stack);
    }

    /// Returns the certificates of a stack, with those whose records have yet to go.
    pub(super) fn of(&self, stack: &StackId) -> Option<Vec<ObservedCertificate>> {
        let known = self.known.get(stack)?.iter();
        Some(known.chain(self.deleted.get(stack).into_iter().flatten()).cloned().collect())
    }

    /// Returns true if a stack had certificates, or may have got some, and they are not known any more.
    pub(super) fn is_uncertain(&self, stack: &StackId) -> bool {
        self.uncertain.contains(stack)
    }

    /// Returns what is not repeated yet, with the time until it is.
    fn pauses(&self, stack: &StackId) -> impl Iterator<Item = (&str, Duration)> {
        let of_stack = self.refused.range((stack.clone(), String::new())..).take_while(move |((of, _), _)| of == stack);
        let pauses = of_stack.map(|((_, what), (pause, at))| (what.as_str(), pause.saturating_sub(at.elapsed())));
        pauses.filter(|(_, left)| !left.is_zero())
    }

    /// Returns the tokens, names of records and certificates of the requests that are not repeated yet.
    pub(super) fn refused(&self, stack: &StackId) -> impl Iterator<Item = String> {
        self.pauses(stack).map(|(what, _)| what.to_owned())
    }

    fn refuse(&mut self, stack: &StackId, what: &str, pause: impl FnOnce(Option<Duration>) -> Duration) {
        self.refused.retain(|_, (_, at)| at.elapsed() < LONGEST_PAUSE * 2);
        let key = (stack.clone(), what.to_owned());
        let pause = pause(self.refused.get(&key).map(|(before, _)| *before));
        self.refused.insert(key, (pause, Instant::now()));
        let of_stack = self.refused.range((stack.clone(), String::new())..).take_while(|((of, _), _)| of == stack);
        // What ends first goes first: what is forgotten during its pause is repeated at once.
        let all: Vec<_> = of_stack.map(|(key, (pause, at))| (*at + *pause, key)).collect();
        if all.len() > MOST_REFUSED
            && let Some(first) = all.into_iter().min().map(|(_, key)| key.clone())
        {
            self.refused.remove(&first);
        }
    }

    /// Returns the certificates of all stacks, with those whose records have yet to go.
    fn all_mut(&mut self) -> impl Iterator<Item = &mut ObservedCertificate> {
        self.known.values_mut().chain(self.deleted.values_mut()).flatten()
    }

    /// Returns true if the controller may not read the tags of a certificate, as AWS has answered a short time ago.
    fn may_not_be_read(&self, arn: &CertificateArn) -> bool {
        self.unreadable.get(arn).is_some_and(|(at, _)| at.elapsed() < SHORTEST_PAUSE)
    }

    /// Returns the certificates in whose place others are requested.
    pub(super) fn given_up(&self, stack: &StackId) -> Vec<CertificateArn> {
        let known = self.known.get(stack).into_iter().flatten();
        let is_old = |certificate: &&ObservedCertificate| {
            let patience = self.patience(stack, &certificate.resource);
            self.unusable.get(&certificate.arn).is_some_and(|at| at.elapsed() >= patience)
        };
        known.filter(is_old).map(|certificate| certificate.arn.clone()).collect()
    }

    /// Returns the certificates of a stack of a short time ago.
    pub(super) fn recent(&self, stack: &StackId) -> RecentCertificates {
        self.recent.of(stack)
    }

    fn patience(&self, stack: &StackId, resource: &ResourceId) -> Duration {
        self.patience.get(&(stack.clone(), resource.clone())).map_or(GIVEN_UP_AFTER, |(_, patience)| *patience)
    }

    fn set(&mut self, stack: &StackId, mut read: Vec<ObservedCertificate>) {
        let before = self.known.remove(stack).unwrap_or_default();
        for certificate in &mut read {
            if let Some(known) = before.iter().find(|known| known.arn == certificate.arn) {
                certificate.validated.clone_from(&known.validated);
                certificate.created.clone_from(&known.created);
                // Moments after the request, ACM may not show the names yet.
                if certificate.hosts.is_empty() {
                    certificate.hosts.clone_from(&known.hosts);
                }
            }
            let records = certificate.records.iter().map(|record| &record.name);
            certificate.created.extend(records.filter(|name| self.created.contains(*name)).cloned());
            match certificate.status {
                CertificateStatus::Unusable(_) => {
                    let _ = self.unusable.entry(certificate.arn.clone()).or_insert_with(Instant::now);
                }
                _ => drop(self.unusable.remove(&certificate.arn)),
            }
            let key = (stack.clone(), certificate.resource.clone());
            // One that was issued for earlier hosts says nothing of the one that fails.
            if certificate.is_issued() && self.patience.get(&key).is_some_and(|(arn, _)| *arn == certificate.arn) {
                self.patience.remove(&key);
            }
        }
        self.uncertain.remove(stack);
        self.known.insert(stack.clone(), read);
    }

    fn requested(&mut self, stack: &StackId, certificate: ObservedCertificate) {
        self.refused.retain(|(of, _), _| of != stack);
        let Some(known) = self.known.get(stack) else { return };
        let is_unusable = |other: &ObservedCertificate| {
            other.resource == certificate.resource && self.unusable.contains_key(&other.arn)
        };
        // ACM counts the certificates of a year.
        let times = if known.iter().any(is_unusable) { 2 } else { 1 };
        let patience = (self.patience(stack, &certificate.resource) * times).min(LONGEST_GIVEN_UP_AFTER);
        let key = (stack.clone(), certificate.resource.clone());
        if times > 1 || self.patience.contains_key(&key) {
            self.patience.insert(key, (certificate.arn.clone(), patience));
        }
        if let Some(known) = self.known.get_mut(stack) {
            known.retain(|other| other.arn != certificate.arn);
            known.push(certificate);
        }
    }

    fn certificate(&mut self, stack: &StackId, arn: &CertificateArn) -> Option<&mut ObservedCertificate> {
        self.known.get_mut(stack)?.iter_mut().find(|certificate| certificate.arn == *arn)
    }
}

impl State {
    fn certificates_to_read(&self, stack: &StackId) -> Option<Vec<ObservedCertificate>> {
        self.certificates.known.get(stack).cloned()
    }
}

impl Inventory {
    /// Reads the certificates of a stack: all of them if they are not known, or else those that are not issued.
    ///
    /// # Errors
    /// AWS's.
    pub async fn read_certificates(&self, stack: &StackId) -> Result<(), AwsError> {
        let known = self.state().certificates_to_read(stack);
        let mut read = Vec::new();
        match known {
            Some(known) if known.iter().all(ObservedCertificate::is_issued) => return Ok(()),
            Some(known) => {
                for certificate in known {
                    if certificate.is_issued() {
                        read.push(certificate);
                        continue;
                    }
                    read.extend(self.described(stack, &certificate.arn, certificate.resource).await?);
                }
            }
            None => {
                for (arn, carried) in self.tagged_certificates().await? {
                    if self.group_of(&carried).as_ref() == Some(stack)
                        && let Some(resource) = tags::resource_of(&carried)
                    {
                        read.extend(self.described(stack, &arn, resource).await?);
                    }
                }
            }
        }
        let mut state = self.state();
        let is_gone = |certificate: &ObservedCertificate| {
            state.certificates.deleted.get(stack).into_iter().flatten().any(|gone| gone.arn == certificate.arn)
        };
        read.retain(|certificate| !is_gone(certificate));
        state.certificates.set(stack, read);
        Ok(())
    }

    /// Returns a certificate of a stack as ACM has it now; `None` for one that does not exist.
    async fn described(
        &self,
        stack: &StackId,
        arn: &CertificateArn,
        resource: ResourceId,
    ) -> Result<Option<ObservedCertificate>, AwsError> {
        let found = self.aws.managed_certificate(arn, resource.clone()).await?;
        self.state().certificates.recent.described(stack, &resource, arn, found.is_some());
        Ok(found)
    }

    /// Returns all certificates of the account that ACM has issued or is to issue, with their tags.
    async fn tagged_certificates(&self) -> Result<Vec<(CertificateArn, Tags)>, AwsError> {
        let mut list = self.certificate_list.lock().await;
        let invalidations = self.state().certificates.invalidations;
        let is_fresh = |at: &Instant, until: u64| at.elapsed() < MAXIMUM_AGE_OF_LIST && until == invalidations;
        let (listed, at) = match list.take().filter(|(_, at, until)| is_fresh(at, *until)) {
            Some((listed, at, _)) => (listed, at),
            None => (self.aws.all_certificates().await?, Instant::now()),
        };
        let known = |arn: &CertificateArn| self.state().certificates.tags.get(arn).cloned();
        let candidates =
            listed.iter().filter(|certificate| !certificate.is_imported).map(|certificate| &certificate.arn);
        let is_paused = |arn: &CertificateArn| self.state().certificates.may_not_be_read(arn);
        let unknown: Vec<CertificateArn> =
            candidates.clone().filter(|arn| known(arn).is_none() && !is_paused(arn)).cloned().collect();
        let aws: &AwsReader = &self.aws;
        let mut answers = stream::iter(unknown)
            .map(async |arn| {
                let tags = aws.certificate_tags(&arn).await;
                (arn, tags)
            })
            .buffer_unordered(AT_ONCE);
        // Answers received before a failure stay known.
        while let Some((arn, answer)) = answers.next().await {
            let mut state = self.state();
            match answer {
                Ok(tags) => {
                    state.certificates.unreadable.remove(&arn);
                    state.certificates.tags.extend(tags.map(|tags| (arn, tags)));
                }
                // A policy may allow only those with the cluster's tags.
                Err(error) if error.is_denied() => {
                    let denied = (Instant::now(), error.clone());
                    if state.certificates.unreadable.insert(arn.clone(), denied).is_none() {
                        tracing::warn!(certificate = %arn, "the controller may not read its tags and treats it as foreign: {error}");
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let found: Vec<(CertificateArn, Tags)> =
            candidates.filter_map(|arn| Some((arn.clone(), known(arn)?))).collect();
        let arns: BTreeSet<&CertificateArn> = listed.iter().map(|certificate| &certificate.arn).collect();
        let mut state = self.state();
        state.certificates.tags.retain(|arn, _| arns.contains(arn));
        state.certificates.unreadable.retain(|arn, _| arns.contains(arn));
        let denied = state.certificates.unreadable.values().next().map(|(_, error)| error.clone());
        drop(state);
        *list = Some((listed, at, invalidations));
        // Where none may be read, the permission is missing, and the stack's own may be among them.
        match denied {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    /// Returns true if the tags of a certificate say, as ACM has them now, that it was requested for the stack.
    ///
    /// # Errors
    /// AWS's.
    pub async fn is_certificate_of(&self, stack: &StackId, arn: &CertificateArn) -> Result<bool, AwsError> {
        let carried = self.aws.certificate_tags(arn).await?;
        // One that does not exist is deleted.
        Ok(carried.is_none_or(|carried| self.group_of(&carried).as_ref() == Some(stack)))
    }

    /// Returns the names of all other certificates of the account.
    ///
    /// # Errors
    /// AWS's.
    pub async fn names_of_other_certificates(&self, arn: &CertificateArn) -> Result<BTreeSet<String>, AwsError> {
        let all = self.aws.all_certificates().await?;
        Ok(all
            .into_iter()
            .filter(|other| other.arn != *arn && !other.is_imported)
            .flat_map(|other| other.names)
            .collect())
    }

    /// Returns a certificate of a stack, one whose records have yet to go among them.
    pub fn certificate(&self, stack: &StackId, arn: &CertificateArn) -> Option<ObservedCertificate> {
        self.state().certificates.of(stack)?.into_iter().find(|certificate| certificate.arn == *arn)
    }

    /// ACM has answered a request for this Ingress with a certificate, or has refused it; `what` is the certificate or the token.
    pub fn count_request(&self, owner: &ObjectReference, what: &str) {
        self.state().certificates.recent.requested(owner, what);
    }

    /// A certificate was requested.
    pub fn record_certificate(&self, stack: &StackId, certificate: ObservedCertificate) {
        self.state().certificates.requested(stack, certificate);
    }

    /// Forgets the certificates of a stack, since it is not known if ACM has one more. Everything else stays known.
    pub fn forget_certificates(&self, stack: &StackId) {
        let mut state = self.state();
        state.certificates.known.remove(stack);
        state.certificates.look_again(stack);
        state.certificates.recent.keep_for_repetition(stack);
    }

    /// Forgets the certificates of a stack that has no resources any more.
    pub fn release_certificates(&self, stack: &StackId) {
        self.state().certificates.release(stack);
    }

    /// ACM has refused a request.
    pub fn record_refused_certificate(&self, stack: &StackId, token: &str) {
        let again = |before: Option<Duration>| before.map_or(SHORTEST_PAUSE, |before| (before * 2).min(LONGEST_PAUSE));
        self.state().certificates.refuse(stack, token, again);
    }

    /// A permission is missing for a request, by token, or for a record, by name; or Route 53 has refused the record.
    pub fn record_denied(&self, stack: &StackId, what: &str) {
        self.state().certificates.refuse(stack, what, |_| PAUSE_WITHOUT_PERMISSION);
    }

    /// AWS has not deleted a certificate, or its records. Where the same answer has to be expected, the deletion is not tried again for a
    /// while, and longer each time.
    pub fn record_certificate_kept(&self, stack: &StackId, arn: &CertificateArn, error: &AwsError) {
        let (AwsErrorKind::Refused { .. } | AwsErrorKind::Denied { .. } | AwsErrorKind::Dependency { .. }) =
            &error.kind
        else {
            return;
        };
        let longer = |before: Duration| (before * 2).min(LONGEST_PAUSE_OF_DELETION);
        let again = |before: Option<Duration>| before.map_or(SHORTEST_PAUSE_OF_DELETION, longer);
        self.state().certificates.refuse(stack, arn.as_str(), again);
    }

    /// Returns the time until the first deletion of one of the stack's certificates is tried again; `None` if none waits for that.
    pub fn next_certificate_deletion(&self, stack: &StackId) -> Option<Duration> {
        let state = self.state();
        let all = &state.certificates;
        let has = |arn: &str| {
            let of_stack = [all.known.get(stack), all.deleted.get(stack)].into_iter().flatten().flatten();
            of_stack.into_iter().any(|certificate| certificate.arn.as_str() == arn)
        };
        all.pauses(stack).filter(|(what, _)| has(what)).map(|(_, left)| left).min()
    }

    /// Returns true if another certificate that the controller knows has this record, or is of its host and will have it: the list of
    /// ACM may be older, or does not show it yet.
    pub fn has_other_certificate_with(&self, arn: &CertificateArn, record: &ValidationRecord) -> bool {
        let state = self.state();
        let mut others = state.certificates.known.values().flatten().filter(|other| other.arn != *arn);
        others.any(|other| {
            let is_public = other.authority.is_none();
            other.records.iter().any(|its| its.name == record.name)
                || is_public && removable_records(std::slice::from_ref(record), &other.hosts).is_empty()
        })
    }

    /// A record that proves a host exists; `is_new` if this controller has created it.
    pub fn record_validation(&self, stack: &StackId, arn: &CertificateArn, name: &str, is_new: bool) {
        let mut state = self.state();
        let all = &mut state.certificates;
        if is_new {
            all.created.insert(name.to_owned());
        }
        // It may have been created for another certificate of the same host.
        let is_ours = all.created.contains(name);
        if let Some(certificate) = all.certificate(stack, arn) {
            certificate.validated.insert(name.to_owned());
            certificate.created.extend(is_ours.then(|| name.to_owned()));
        }
    }

    /// A record that proved a host was deleted. A certificate that was requested meanwhile, of any stack, lacks it.
    pub fn record_validation_deleted(&self, name: &str) {
        let mut state = self.state();
        state.certificates.created.remove(name);
        for certificate in state.certificates.all_mut() {
            certificate.validated.remove(name);
            certificate.created.remove(name);
        }
    }

    /// A certificate was deleted; its records were not.
    pub fn record_certificate_deleted(&self, stack: &StackId, arn: &CertificateArn) {
        let mut state = self.state();
        let all = &mut state.certificates;
        if let Some(known) = all.known.get_mut(stack)
            && let Some(place) = known.iter().position(|certificate| certificate.arn == *arn)
        {
            let certificate = ObservedCertificate { status: CertificateStatus::Deleted, ..known.remove(place) };
            all.recent.deleted(stack, &certificate.resource, arn);
            all.deleted.entry(stack.clone()).or_default().push(certificate);
        }
        all.tags.remove(arn);
        all.refused.remove(&(stack.clone(), arn.to_string()));
    }

    /// A certificate is not the stack's, or nothing is left of it.
    pub fn record_certificate_gone(&self, stack: &StackId, arn: &CertificateArn) {
        let mut state = self.state();
        let Certificates { known, deleted, unusable, refused, .. } = &mut state.certificates;
        refused.remove(&(stack.clone(), arn.to_string()));
        for all in [known.get_mut(stack), deleted.get_mut(stack)].into_iter().flatten() {
            all.retain(|certificate| certificate.arn != *arn);
        }
        deleted.retain(|_, all| !all.is_empty());
        unusable.remove(arn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use albatross_core::model::ObjectName;

    fn certificate(number: usize, status: CertificateStatus) -> ObservedCertificate {
        ObservedCertificate {
            arn: CertificateArn::new(format!("arn:{number}")),
            resource: ResourceId::of_tag("amazon_issued/a.example.com-00000000"),
            hosts: BTreeSet::new(),
            authority: None,
            status,
            records: Vec::new(),
            validated: BTreeSet::new(),
            created: BTreeSet::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_known_of_each_stack_and_no_more_than_a_number() {
        let names = ["a", "b", "c"].map(|name| StackId::Ingress(ObjectName::new("shop", name)));
        let mut all = Certificates::default();
        for stack in [&names[0], &names[2]] {
            all.refuse(stack, "of another stack", |_| SHORTEST_PAUSE);
        }
        // Every second one has a pause that ends at once.
        let pause = |number: usize| Duration::from_secs(if number.is_multiple_of(2) { 60 } else { 0 });
        for number in 0..2 * MOST_REFUSED {
            all.refuse(&names[1], &number.to_string(), |_| pause(number));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(all.refused(&names[1]).count(), MOST_REFUSED);
        all.refuse(&names[1], "one more", |_| Duration::from_secs(120));
        assert_eq!(all.refused(&names[1]).count(), MOST_REFUSED);
        assert!(!all.refused(&names[1]).any(|what| what == "0"));
        assert_eq!(all.refused(&names[0]).collect::<Vec<_>>(), ["of another stack"]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(all.refused(&names[1]).collect::<Vec<_>>(), ["one more"]);
        all.release(&names[1]);
        assert_eq!((all.refused(&names[1]).count(), all.refused(&names[2]).count()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_of_earlier_hosts_does_not_shorten_that_time() {
        let stack = StackId::Ingress(ObjectName::new("shop", "web"));
        let mut all = Certificates::default();
        let failed = || CertificateStatus::Unusable("CAA_ERROR".to_owned());
        let issued = || certificate(0, CertificateStatus::Issued);
        all.set(&stack, vec![issued()]);
        for (number, hours) in [(1, 12), (2, 24), (3, 48)] {
            all.requested(&stack, certificate(number, CertificateStatus::Pending));
            all.set(&stack, vec![issued(), certificate(number, failed())]);
            // Also when all of it is read again.
            all.invalidate(&stack);
            all.set(&stack, vec![issued(), certificate(number, failed())]);
            tokio::time::advance(Duration::from_secs(hours * 3600 - 1)).await;
            assert_eq!(all.given_up(&stack).len(), 0, "{number}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(all.given_up(&stack).len(), 1, "{number}");
        }
        // The one that was requested last makes an end of the row, also where none failed just before.
        all.requested(&stack, certificate(4, CertificateStatus::Pending));
        all.set(&stack, vec![issued(), certificate(4, CertificateStatus::Pending)]);
        all.requested(&stack, certificate(5, CertificateStatus::Pending));
        all.set(&stack, vec![issued(), certificate(5, CertificateStatus::Issued)]);
        assert!(all.patience.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_in_a_row_doubles_the_time_until_the_next_request() {
        let stack = StackId::Ingress(ObjectName::new("shop", "web"));
        let mut all = Certificates::default();
        all.set(&stack, Vec::new());
        let failed = || CertificateStatus::Unusable("CAA_ERROR".to_owned());
        for (number, hours) in [12, 24, 48, 96, 168, 168].into_iter().enumerate() {
            all.requested(&stack, certificate(number, CertificateStatus::Pending));
            // The one before is deleted once the next one is requested.
            all.set(&stack, vec![certificate(number, failed())]);
            tokio::time::advance(Duration::from_secs(hours * 3600 - 1)).await;
            assert_eq!(all.given_up(&stack), [], "{number}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(all.given_up(&stack).len(), 1, "{number}");
        }
        // One that is issued makes an end of the row.
        all.requested(&stack, certificate(6, CertificateStatus::Pending));
        all.set(&stack, vec![certificate(6, CertificateStatus::Issued)]);
        all.set(&stack, vec![certificate(6, failed())]);
        tokio::time::advance(GIVEN_UP_AFTER).await;
        assert_eq!(all.given_up(&stack).len(), 1);
    }
}
