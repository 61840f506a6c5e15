//! The account as one node of a load balancer sees it: later than it is.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::account::Account;

/// The most changes that may be under way to a node. Beyond it, the newest one takes the place of the one before it.
const UNDER_WAY: usize = 256;

/// Returns a view of the account that is empty at first. Each change arrives after a delay of its own, drawn from
/// `delay_millis`; a change that is overtaken by a newer one does not show. The view lives as long as its receivers do.
///
/// Must be called within a Tokio runtime.
#[must_use]
pub fn view(
    account: watch::Receiver<Arc<Account>>,
    delay_millis: (u64, u64),
    seed: u64,
) -> watch::Receiver<Arc<Account>> {
    let (sender, receiver) = watch::channel(Arc::default());
    tokio::spawn(carry(account, sender, delay_millis, fastrand::Rng::with_seed(seed)));
    receiver
}

async fn carry(
    mut account: watch::Receiver<Arc<Account>>,
    view: watch::Sender<Arc<Account>>,
    (shortest, longest): (u64, u64),
    mut random: fastrand::Rng,
) {
    let mut under_way = UnderWay::default();
    let mut changes = true;
    account.mark_changed();
    loop {
        let next = under_way.next();
        tokio::select! {
            biased;
            () = view.closed() => return,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                if let Some(arrived) = under_way.take() {
                    view.send_replace(arrived);
                }
            }
            changed = account.changed(), if changes => {
                changes = changed.is_ok();
                let delay = Duration::from_millis(random.u64(shortest..=longest.max(shortest)));
                under_way.push(Instant::now() + delay, account.borrow_and_update().clone());
            }
        }
    }
}

/// Changes that have not arrived yet, in the order in which they will.
#[derive(Default)]
struct UnderWay(VecDeque<(Instant, Arc<Account>)>);

impl UnderWay {
    /// Adds a change that is newer than all others. Those that it overtakes go.
    fn push(&mut self, arrival: Instant, account: Arc<Account>) {
        while self.0.back().is_some_and(|(other, _)| *other >= arrival) {
            self.0.pop_back();
        }
        if self.0.len() >= UNDER_WAY {
            self.0.pop_back();
        }
        self.0.push_back((arrival, account));
    }

    fn next(&self) -> Option<Instant> {
        self.0.front().map(|(arrival, _)| *arrival)
    }

    fn take(&mut self) -> Option<Arc<Account>> {
        self.0.pop_front().map(|(_, account)| account)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep, timeout};

    use super::*;

    fn version(version: u64) -> Arc<Account> {
        Arc::new(Account { version, ..Account::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_arrives_after_the_delay_and_not_before() {
        let (sender, receiver) = watch::channel(version(7));
        let mut view = view(receiver, (100, 100), 1);
        let start = Instant::now();
        assert_eq!(view.borrow_and_update().version, 0);
        view.changed().await.unwrap();
        assert_eq!((view.borrow_and_update().version, start.elapsed()), (7, Duration::from_millis(100)));
        sender.send_replace(version(8));
        sleep(Duration::from_millis(40)).await;
        sender.send_replace(version(9));
        view.changed().await.unwrap();
        assert_eq!((view.borrow_and_update().version, start.elapsed()), (8, Duration::from_millis(200)));
        view.changed().await.unwrap();
        assert_eq!((view.borrow_and_update().version, start.elapsed()), (9, Duration::from_millis(240)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_only_goes_forward_and_has_each_state_within_the_longest_delay() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (sender, receiver) = watch::channel(version(1));
        let mut view = view(receiver, (50, 500), seed);
        let mut sent = vec![Instant::now(), Instant::now()];
        let mut last = 0;
        for newest in 2..200_u64 {
            let pause = Instant::now() + Duration::from_millis(random.u64(1..100));
            while let Ok(changed) = tokio::time::timeout_at(pause, view.changed()).await {
                changed.unwrap();
                let seen = view.borrow_and_update().version;
                let took = sent[usize::try_from(seen).unwrap()].elapsed();
                assert!(seen > last && took >= Duration::from_millis(50), "{seen} after {last}, {took:?}");
                assert!(took <= Duration::from_millis(500), "{seen} took {took:?}");
                last = seen;
            }
            sender.send_replace(version(newest));
            sent.push(Instant::now());
        }
        while last < 199 {
            timeout(Duration::from_millis(501), view.changed()).await.unwrap().unwrap();
            last = view.borrow_and_update().version;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_view_of_an_account_that_changes_no_more_stays_and_its_task_ends_with_it() {
        let (sender, receiver) = watch::channel(version(3));
        let mut seen = view(receiver.clone(), (10, 10), 1);
        drop(sender);
        seen.changed().await.unwrap();
        assert_eq!(seen.borrow_and_update().version, 3);
        advance(Duration::from_secs(60)).await;
        assert!(!seen.has_changed().unwrap());
        let (sender, receiver) = watch::channel(version(1));
        let seen = view(receiver, (10, 10), 1);
        drop(seen);
        timeout(Duration::from_secs(1), sender.closed()).await.unwrap();
    }

    #[test]
    fn what_is_under_way_is_bounded_and_the_newest_is_kept() {
        let (mut under_way, start) = (UnderWay::default(), Instant::now());
        for number in 0..1_000_u64 {
            under_way.push(start + Duration::from_millis(number), version(number));
        }
        assert_eq!(under_way.0.len(), UNDER_WAY);
        assert_eq!(under_way.0.back().unwrap().1.version, 999);
        under_way.push(start, version(1_000));
        assert_eq!(under_way.0.iter().map(|(_, account)| account.version).collect::<Vec<_>>(), [1_000]);
    }
}
