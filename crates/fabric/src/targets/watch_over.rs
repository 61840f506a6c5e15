//! Checks and draining: tasks that follow the node's view.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    State, Targets,
    members::{Check, Group, Member, Task, Way},
    probe::Probe,
    scaled,
    settings::{Place, Settings},
};
use crate::{
    account::{Account, LoadBalancer, Target, TargetGroup, TargetType, Transport},
    health::{self, Failure, Outcome, Phase, Thresholds},
    security_groups,
};

/// In AWS's seconds, from when to when the first check of a target begins.
const FIRST_CHECK: (f64, f64) = (0.5, 3.0);

/// However fast time runs, an answer has so long: a busy machine is no target that hangs.
const LEAST_TIMEOUT: Duration = Duration::from_secs(2);

/// However fast time runs, checks do not keep the machine busy.
const LEAST_INTERVAL: Duration = Duration::from_millis(20);

impl Targets {
    /// Takes the node's current view: checks begin and end, and what is no longer registered drains. It is called
    /// within a Tokio runtime.
    pub fn update(self: &Arc<Self>, account: &Account, load_balancer: &str) {
        let balancer = account.load_balancers.get(load_balancer).filter(|balancer| balancer.active);
        let mut state = self.state();
        load_balancer.clone_into(&mut state.load_balancer);
        let mut changed = false;
        if let Some(balancer) = balancer {
            changed |= self.register(&mut state, account, balancer);
        }
        changed |= self.deregister(&mut state, account, balancer);
        drop(state);
        if changed {
            self.tell();
        }
    }

    /// Takes in the targets of the groups that the load balancer forwards to.
    fn register(self: &Arc<Self>, state: &mut State, account: &Account, balancer: &LoadBalancer) -> bool {
        let State { groups, random, generation, .. } = state;
        let mut changed = false;
        for arn in health::groups_of(balancer) {
            let Some(group) = account.target_groups.get(arn) else { continue };
            let settings = Settings::of(group, Some(balancer));
            let known = groups.entry(arn.to_owned()).or_insert_with(|| Group::new(settings.clone()));
            known.settings = settings;
            for target in &group.targets {
                let place = Place::of(account, Some(balancer), group, target);
                let check = self.check_of(account, balancer, group, target, &place);
                let member = known.members.entry(target.clone()).or_insert_with(|| {
                    changed = true;
                    Member::new(place.clone())
                });
                changed |= member.register(place);
                if member.has_check(check.as_ref()) {
                    continue;
                }
                member.set_check(check.map(|check| {
                    *generation = generation.wrapping_add(1);
                    let (shortest, longest) = FIRST_CHECK;
                    let first = shortest + (longest - shortest) * random.f64();
                    let first = scaled(first, self.options.time_scale);
                    let task = self.watch((arn, target), *generation, check.clone(), first);
                    (*generation, check, task)
                }));
            }
        }
        changed
    }

    /// Drains targets that are registered no longer, and forgets those of groups that are not used.
    fn deregister(self: &Arc<Self>, state: &mut State, account: &Account, balancer: Option<&LoadBalancer>) -> bool {
        let used = balancer.map(health::groups_of).unwrap_or_default();
        let State { groups, generation, .. } = state;
        let mut changed = false;
        for (arn, known) in groups.iter_mut() {
            let registered = account.target_groups.get(arn).map(|group| &group.targets);
            let delay = self.scaled(known.settings.draining);
            known.members.retain(|target, member| {
                if registered.is_some_and(|targets| targets.contains(target)) {
                    let kept = used.contains(arn.as_str());
                    changed |= !kept;
                    return kept;
                }
                if !member.is_draining() {
                    changed = true;
                    *generation = generation.wrapping_add(1);
                    let task = self.after(delay, (arn, target), *generation, Self::drained);
                    member.drain(*generation, task);
                }
                true
            });
            known.end_unhealthy(&self.zone);
        }
        groups.retain(|_, group| !group.members.is_empty());
        changed
    }

    /// Returns the check of a target, or `None` for one that is not used.
    fn check_of(
        &self,
        account: &Account,
        balancer: &LoadBalancer,
        group: &TargetGroup,
        target: &Target,
        place: &Place,
    ) -> Option<Check> {
        if place.unused.is_some() {
            return None;
        }
        let port = group.health_check.port.unwrap_or(target.port);
        let in_zone = |id: &&String| account.subnets.get(*id).is_some_and(|subnet| subnet.zone == self.zone);
        let let_in = place.vpc.is_none_or(|vpc| {
            let mut subnets = balancer.subnets.iter().filter(in_zone);
            subnets.any(|id| security_groups::reaches(account, balancer, id, vpc, port, Transport::Tcp, None))
        });
        let way = match (group.target_type, place.address) {
            _ if self.options.security_groups && !let_in => Way::Blocked,
            (TargetType::Alb, _) => Way::LoadBalancer,
            (_, Some(address)) => Way::To(address),
            (_, None) => Way::Blocked,
        };
        let host = place.vpc.map_or_else(|| self.zone.clone(), |vpc| SocketAddr::new(vpc, port).to_string());
        let timeout = group.health_check.timeout_seconds;
        let timeout = self.scaled(timeout).max(LEAST_TIMEOUT.min(Duration::from_secs(timeout.into())));
        let interval = self.scaled(group.health_check.interval_seconds).max(LEAST_INTERVAL);
        Some(Check { way, port: self.port(port), interval, probe: Probe::new(group, host, timeout) })
    }

    /// Checks a target again and again.
    fn watch(self: &Arc<Self>, (arn, target): (&str, &Target), generation: u64, check: Check, first: Duration) -> Task {
        let (targets, arn, target) = (Arc::downgrade(self), arn.to_owned(), target.clone());
        Task::spawn(async move {
            let mut next = Instant::now() + first;
            loop {
                sleep_until(next).await;
                let address = {
                    let Some(targets) = targets.upgrade() else { return };
                    if !targets.check_begins(&arn, &target, generation) {
                        return;
                    }
                    match check.way {
                        Way::Blocked => None,
                        Way::To(address) => Some(address),
                        Way::LoadBalancer => targets.look_up(&target.id),
                    }
                };
                let outcome = check.probe.ask(address.map(|address| (address, check.port).into())).await;
                let Some(targets) = targets.upgrade() else { return };
                targets.check_ends(&arn, &target, generation, outcome);
                // The time that an answer takes does not delay the next check, unless it is longer than the interval.
                next = (next + check.interval).max(Instant::now());
            }
        })
    }

    /// Runs `then` after a time, unless what is returned is dropped.
    fn after(
        self: &Arc<Self>,
        time: Duration,
        (arn, target): (&str, &Target),
        generation: u64,
        then: fn(&Self, &str, &Target, u64),
    ) -> Task {
        let (targets, arn, target) = (Arc::downgrade(self), arn.to_owned(), target.clone());
        Task::spawn(async move {
            sleep(time).await;
            if let Some(targets) = targets.upgrade() {
                then(&targets, &arn, &target, generation);
            }
        })
    }

    fn drained(&self, arn: &str, target: &Target, generation: u64) {
        let mut state = self.state();
        let Some(group) = state.groups.get_mut(arn) else { return };
        let Some(member) = group.members.get_mut(target).filter(|member| member.is_drained_by(generation)) else {
            return;
        };
        if group.settings.ends_drained {
            member.end();
        }
        group.members.remove(target);
        state.groups.retain(|_, group| !group.members.is_empty());
        drop(state);
        self.tell();
    }

    fn stays_unhealthy(&self, arn: &str, target: &Target, generation: u64) {
        let mut state = self.state();
        let member = state.groups.get_mut(arn).and_then(|group| group.members.get_mut(target));
        let ended = member.is_some_and(|member| member.fail_for_good(generation));
        drop(state);
        if ended {
            self.tell();
        }
    }

    /// Notes that a check begins. Returns false if another task checks the target, or none is to.
    pub(super) fn check_begins(&self, arn: &str, target: &Target, generation: u64) -> bool {
        let mut state = self.state();
        let member = state.groups.get_mut(arn).and_then(|group| group.members.get_mut(target));
        let Some(member) = member.filter(|member| member.is_checked_by(generation)) else { return false };
        let changed = member.checked.begin();
        drop(state);
        if changed {
            self.tell();
        }
        true
    }

    pub(super) fn check_ends(self: &Arc<Self>, arn: &str, target: &Target, generation: u64, outcome: Outcome) {
        let mut state = self.state();
        let State { groups, generation: newest, .. } = &mut *state;
        let Some(Group { settings, members, .. }) = groups.get_mut(arn) else { return };
        let slow_start = settings.slow_start.map(|seconds| self.scaled(seconds));
        let now = Instant::now();
        let mut others = members.iter().filter(|(other, _)| *other != target);
        let warm = others.any(|(_, other)| other.is_warm(slow_start, now));
        let Some(member) = members.get_mut(target).filter(|member| member.is_checked_by(generation)) else { return };
        let was_unhealthy = matches!(member.checked.phase(), Phase::Unhealthy(_));
        let failed_with = match &outcome {
            Outcome::Failed(Failure::Code(code)) => Some(*code),
            _ => None,
        };
        let thresholds = Thresholds { healthy: settings.healthy_threshold, unhealthy: settings.unhealthy_threshold };
        if !member.checked.take(outcome, thresholds) {
            return;
        }
        let phase = member.checked.phase();
        tracing::debug!(self.zone, arn, target.id, target.port, ?phase, failed_with, "health");
        match phase {
            Phase::Healthy => member.recover((slow_start.is_some() && warm).then_some(now)),
            Phase::Unhealthy(_) if !was_unhealthy => {
                let seconds = settings.unhealthy_draining.filter(|_| !settings.ends_unhealthy);
                member.fail(seconds.map(|seconds| {
                    *newest = newest.wrapping_add(1);
                    let task = self.after(self.scaled(seconds), (arn, target), *newest, Self::stays_unhealthy);
                    (*newest, task)
                }));
            }
            _ => {}
        }
        if let Some(group) = groups.get_mut(arn) {
            group.end_unhealthy(&self.zone);
        }
        drop(state);
        self.tell();
    }
}
