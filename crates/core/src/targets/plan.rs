//! The targets to register in a target group, and those to deregister.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{HealthState, QuicServerId, Target, TargetHealth};

use super::endpoints::target;

/// The most targets of one RegisterTargets or DeregisterTargets call.
pub const MAX_PER_CALL: usize = 200;

/// The calls that bring a target group to its desired targets, in their order. Registering comes before deregistering what is not
/// desired, so that a rolling update never leaves the group with less than it had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetPlan {
    /// The targets that are registered with another QUIC server id than the desired one, as a successor has the address of a pod; and
    /// those that are not desired and have the id of one to register, as a pod has come to serve at another port. AWS changes no id and
    /// takes each only once, so they are deregistered first.
    pub replaced: Vec<Target>,
    /// The targets to register, one call each.
    pub register: Vec<Vec<Target>>,
    /// The targets that are registered and not desired; [`safe_to_deregister`] returns the targets to deregister now.
    pub surplus: Vec<Target>,
    /// Wanted, but more than the limit allows.
    pub left_out: Vec<Target>,
}

impl TargetPlan {
    /// Returns true if there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replaced.is_empty() && self.register.is_empty() && self.surplus.is_empty()
    }
}

/// Returns true if a target is deregistered and completes its connections: registering it again brings it back.
#[must_use]
pub fn is_draining(health: &TargetHealth) -> bool {
    matches!(health.state, HealthState::Draining | HealthState::UnhealthyDraining)
}

/// The state of a target that is registered and not desired, in the order of what it can still serve, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetState {
    /// The pod or node does not exist.
    Gone,
    /// A pod that finishes its connections.
    Terminating,
    /// A pod or node that may well serve.
    Living,
}

/// The number of desired targets that could not be registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unregistered {
    /// The number that will be registered: AWS was throttling, did not answer, could not be reached.
    pub pending: usize,
    /// AWS said that it will not take them.
    pub refused: usize,
    /// True if no desired target is registered, and deregistering others would make no room.
    pub none_registered: bool,
}

/// Returns the surplus targets to deregister, in one call each.
///
/// A rollout does not wait for AWS: Kubernetes removes old pods as new ones become ready in Kubernetes. So while new ones
/// could not be registered yet, one target of the surplus stands in for each of them, and the controller never takes the
/// count of registered targets below the desired one: the best of the surplus stay, live targets before terminating ones.
/// That may even be a target whose pod is gone. It answers nothing, but health checks take it out by themselves, and it is
/// deregistered as soon as its successor is registered, which is tried again in a second; a group that empties while AWS
/// throttles answers nothing either, and an observer would blame the controller.
///
/// No target stands in for one that AWS refuses permanently, as a target that is gone or going would wait forever. It goes at once,
/// which also makes room where a quota was the reason. A target that lives stays all the same: a changed port, or labels that
/// select other pods, are no reason to empty a group that works. And where no desired target is registered, the best of the
/// surplus stays in any state: a group is never emptied while AWS refuses its desired targets.
#[must_use]
pub fn safe_to_deregister(
    surplus: Vec<Target>,
    unregistered: Unregistered,
    target_state: impl Fn(&Target) -> TargetState,
) -> Vec<Vec<Target>> {
    let Unregistered { pending, refused, none_registered } = unregistered;
    if pending + refused == 0 {
        return batches(surplus);
    }
    let mut surplus: Vec<(TargetState, Target)> =
        surplus.into_iter().map(|target| (target_state(&target), target)).collect();
    surplus.sort();
    let living = surplus.iter().filter(|(target_state, _)| *target_state == TargetState::Living).count();
    let kept = living.min(pending + refused).max(pending).max(usize::from(none_registered));
    surplus.truncate(surplus.len().saturating_sub(kept));
    batches(surplus.into_iter().map(|(_, target)| target).collect())
}

/// Returns targets in calls of at most [`MAX_PER_CALL`].
#[must_use]
pub fn batches(targets: Vec<Target>) -> Vec<Vec<Target>> {
    targets.chunks(MAX_PER_CALL).map(<[Target]>::to_vec).collect()
}

/// Returns the targets to register that cannot be yet, because a replaced one with their address or their QUIC server id was not
/// deregistered.
#[must_use]
pub fn blocked(
    plan: &TargetPlan,
    server_id: impl Fn(&Target) -> Option<QuicServerId>,
    present: &BTreeMap<Target, TargetHealth>,
    deregistered: &[Target],
) -> BTreeSet<Target> {
    let left: Vec<&Target> = plan.replaced.iter().filter(|written| !deregistered.contains(written)).collect();
    let addresses: BTreeSet<Target> = left.iter().map(|written| target(&written.id, written.port)).collect();
    let ids: BTreeSet<QuicServerId> = left.iter().filter_map(|written| present.get(*written)?.quic_server_id).collect();
    let is_blocked =
        |target: &&Target| addresses.contains(*target) || server_id(target).is_some_and(|id| ids.contains(&id));
    plan.register.iter().flatten().filter(is_blocked).cloned().collect()
}

/// Compares the desired targets of a group with its observed ones. `server_id` returns the QUIC server id that a target is to have;
/// `most` is the limit on targets in one group, where there is one.
#[must_use]
pub fn plan(
    wanted: &BTreeSet<Target>,
    server_id: impl Fn(&Target) -> Option<QuicServerId>,
    present: &BTreeMap<Target, TargetHealth>,
    most: Option<usize>,
) -> TargetPlan {
    // AWS may write an IPv6 address in another form than Kubernetes does.
    let registered: BTreeMap<Target, (&Target, &TargetHealth)> = present
        .iter()
        .filter(|(_, health)| !is_draining(health))
        .map(|(written, health)| (target(&written.id, written.port), (written, health)))
        .collect();
    // Of a target without a known id it is not assumed that it has another one.
    let has_other_id = |target: &Target, health: &TargetHealth| {
        health.quic_server_id.is_some_and(|has| server_id(target).is_some_and(|wanted| wanted != has))
    };
    let of_predecessors =
        registered.iter().filter(|(target, (_, health))| wanted.contains(*target) && has_other_id(target, health));
    let (mut register, mut replaced): (Vec<Target>, Vec<Target>) =
        of_predecessors.map(|(target, (written, _))| (target.clone(), (*written).clone())).unzip();
    register.extend(wanted.iter().filter(|target| !registered.contains_key(*target)).cloned());
    let kept = wanted.len() - register.len();
    let room = most.map_or(usize::MAX, |most| most.saturating_sub(kept));
    let left_out = register.split_off(room.min(register.len()));
    let claimed: BTreeSet<QuicServerId> = register.iter().filter_map(&server_id).collect();
    let is_claimed = |health: &TargetHealth| health.quic_server_id.is_some_and(|id| claimed.contains(&id));
    let surplus = registered.iter().filter(|(target, _)| !wanted.contains(*target)).map(|(_, found)| *found);
    let (in_the_way, surplus): (Vec<_>, Vec<_>) = surplus.partition(|(_, health)| is_claimed(health));
    let written = |found: Vec<(&Target, _)>| found.into_iter().map(|(written, _)| written.clone()).collect::<Vec<_>>();
    replaced.extend(written(in_the_way));
    TargetPlan { replaced, register: batches(register), surplus: written(surplus), left_out }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(names: &[&str]) -> Vec<Target> {
        names.iter().map(|name| target(name, 80)).collect()
    }

    fn present(names: &[(&str, &str)]) -> BTreeMap<Target, TargetHealth> {
        let health = |state: &str| TargetHealth {
            state: state.into(),
            reason: None,
            description: None,
            zone: None,
            quic_server_id: None,
        };
        names.iter().map(|(name, state)| (Target { id: (*name).to_owned(), port: 80 }, health(state))).collect()
    }

    #[test]
    fn the_difference_is_registered_and_deregistered() {
        let one = |names: &[&str]| if names.is_empty() { vec![] } else { vec![targets(names)] };
        for (case, wanted, has, most, register, deregister, left_out) in [
            ("nothing at all", vec![], vec![], None, vec![], vec![], vec![]),
            ("as it is", vec!["a"], vec![("a", "healthy")], None, vec![], vec![], vec![]),
            (
                "new, kept and old",
                vec!["a", "b"],
                vec![("b", "unhealthy"), ("c", "initial")],
                None,
                vec!["a"],
                vec!["c"],
                vec![],
            ),
            ("one that drains comes back", vec!["a"], vec![("a", "draining")], None, vec!["a"], vec![], vec![]),
            ("and so if unhealthy", vec!["a"], vec![("a", "unhealthy.draining")], None, vec!["a"], vec![], vec![]),
            ("one that drains goes without a call", vec![], vec![("a", "draining")], None, vec![], vec![], vec![]),
            ("the last one goes", vec![], vec![("a", "unused")], None, vec![], vec!["a"], vec![]),
            (
                "a limit keeps what is there",
                vec!["a", "b", "c"],
                vec![("c", "healthy")],
                Some(2),
                vec!["a"],
                vec![],
                vec!["b"],
            ),
            (
                "a limit below what is there takes nothing away",
                vec!["a", "b", "c"],
                vec![("b", "healthy"), ("c", "healthy")],
                Some(1),
                vec![],
                vec![],
                vec!["a"],
            ),
        ] {
            let (register, surplus) = (one(&register), targets(&deregister));
            let expected = TargetPlan { replaced: vec![], register, surplus, left_out: targets(&left_out) };
            let wanted = targets(&wanted).into_iter().collect();
            assert_eq!(plan(&wanted, |_| None, &present(&has), most), expected, "{case}");
        }
    }

    #[test]
    fn another_port_is_another_target() {
        let plan = plan(&[target("a", 81)].into(), |_| None, &present(&[("a", "healthy")]), None);
        assert_eq!((plan.register, plan.surplus), (vec![vec![target("a", 81)]], targets(&["a"])));
    }

    #[test]
    fn another_spelling_of_an_address_is_the_same_target() {
        let has = present(&[("2001:DB8:0::1", "healthy"), ("2001:db8:0:0::2", "healthy")]);
        let plan = plan(&[target("2001:db8::1", 80)].into(), |_| None, &has, None);
        // The targets to remove are named as AWS names them.
        let gone = Target { id: "2001:db8:0:0::2".to_owned(), port: 80 };
        assert_eq!((plan.register, plan.surplus), (vec![], vec![gone]));
    }

    #[test]
    fn another_server_id_is_another_registration() {
        let id = |number: Option<u64>| number.map(QuicServerId::new);
        for (case, state, has, wants, replaced, registers) in [
            ("the same", "healthy", Some(1), Some(1), false, false),
            ("that of another pod", "healthy", Some(1), Some(2), true, true),
            ("the other one drains", "draining", Some(1), Some(2), false, true),
            ("AWS reports none", "healthy", None, Some(2), false, false),
            ("none is wanted", "healthy", Some(1), None, false, false),
        ] {
            let mut present = present(&[("FD00:0::1", state)]);
            present.values_mut().for_each(|health| health.quic_server_id = id(has));
            let wanted = [target("fd00::1", 80)].into();
            let plan = plan(&wanted, |_| id(wants), &present, Some(1));
            let written = Target { id: "FD00:0::1".to_owned(), port: 80 };
            assert_eq!(plan.replaced, if replaced { vec![written] } else { vec![] }, "{case}");
            assert_eq!(plan.register, if registers { vec![targets(&["fd00::1"])] } else { vec![] }, "{case}");
            assert_eq!((plan.surplus, plan.left_out), (vec![], vec![]), "{case}");
        }
    }

    #[test]
    fn a_server_id_is_free_before_another_target_is_registered_with_it() {
        let id = |number: u64| Some(QuicServerId::new(number));
        for (case, state, has, most, replaced, surplus) in [
            ("another port of the pod", "healthy", id(1), None, true, false),
            ("another pod", "healthy", id(2), None, false, true),
            ("AWS reports none", "healthy", None, None, false, true),
            ("it drains", "draining", id(1), None, false, false),
            ("no room for the new one", "healthy", id(1), Some(0), false, true),
        ] {
            let mut present = present(&[("FD00:0::1", state)]);
            present.values_mut().for_each(|health| health.quic_server_id = has);
            let plan = plan(&[target("fd00::1", 81)].into(), |_| id(1), &present, most);
            let written = |is_one: bool| if is_one { present.keys().cloned().collect() } else { vec![] };
            assert_eq!((plan.replaced, plan.surplus), (written(replaced), written(surplus)), "{case}");
            assert_eq!(plan.register.concat().len() + plan.left_out.len(), 1, "{case}");
        }
    }

    #[test]
    fn what_an_old_target_blocks_waits_for_its_deregistration() {
        // "a" is registered at the address of a new one, "c" with its id; "d" is new.
        let mut present = present(&[("FD00:0::A", "healthy"), ("c", "healthy")]);
        for (number, health) in (1..).zip(present.values_mut()) {
            health.quic_server_id = Some(QuicServerId::new(number));
        }
        let old = |id: &str| Target { id: id.to_owned(), port: 80 };
        let plan = TargetPlan {
            replaced: vec![old("FD00:0::A"), old("c")],
            register: vec![targets(&["fd00::a", "b"]), targets(&["d"])],
            ..TargetPlan::default()
        };
        let server_id = |target: &Target| match target.id.as_str() {
            "fd00::a" => Some(QuicServerId::new(3)),
            "b" => Some(QuicServerId::new(2)),
            _ => None,
        };
        for (case, deregistered, expected) in [
            ("both are deregistered", vec!["FD00:0::A", "c"], vec![]),
            ("the address is taken", vec!["c"], vec!["fd00::a"]),
            ("the id is taken", vec!["FD00:0::A"], vec!["b"]),
            ("both are taken", vec![], vec!["fd00::a", "b"]),
        ] {
            let deregistered: Vec<Target> = deregistered.into_iter().map(old).collect();
            let expected: BTreeSet<Target> = targets(&expected).into_iter().collect();
            assert_eq!(blocked(&plan, server_id, &present, &deregistered), expected, "{case}");
        }
    }

    #[test]
    fn a_replaced_target_keeps_its_room() {
        let mut present = present(&[("b", "healthy")]);
        present.values_mut().for_each(|health| health.quic_server_id = Some(QuicServerId::new(1)));
        let wanted = targets(&["a", "b"]).into_iter().collect();
        let plan = plan(&wanted, |_| Some(QuicServerId::new(2)), &present, Some(1));
        let expected = TargetPlan {
            replaced: targets(&["b"]),
            register: vec![targets(&["b"])],
            surplus: vec![],
            left_out: targets(&["a"]),
        };
        assert_eq!(plan, expected);
    }

    #[test]
    fn a_call_names_at_most_two_hundred_targets() {
        let wanted = (0..401).map(|n| target(&format!("i-{n}"), 80)).collect();
        let names: Vec<String> = (0..201).map(|n| format!("i-old-{n}")).collect();
        let has = present(&names.iter().map(|name| (name.as_str(), "healthy")).collect::<Vec<_>>());
        let plan = plan(&wanted, |_| None, &has, None);
        assert_eq!(plan.register.iter().map(Vec::len).collect::<Vec<_>>(), [200, 200, 1]);
        let gone = safe_to_deregister(plan.surplus, Unregistered::default(), |_| TargetState::Gone);
        assert_eq!(gone.iter().map(Vec::len).collect::<Vec<_>>(), [200, 1]);
    }

    #[test]
    fn what_is_not_registered_yet_has_a_stand_in() {
        // By the first letter of its name a target lives, terminates or is gone.
        let target_state = |target: &Target| match target.id.as_bytes().first() {
            Some(b'l') => TargetState::Living,
            Some(b't') => TargetState::Terminating,
            _ => TargetState::Gone,
        };
        for (case, surplus, pending, refused, registered, goes) in [
            ("all is registered", vec!["g", "l", "t"], 0, 0, 3, vec!["g", "l", "t"]),
            ("one is not: what lives stands in", vec!["g", "l", "t"], 1, 0, 1, vec!["g", "t"]),
            ("two are not: what terminates does too", vec!["g", "l", "t"], 2, 0, 1, vec!["g"]),
            ("three are not: nothing goes", vec!["g", "l", "t"], 3, 0, 1, vec![]),
            ("more are not than there is", vec!["t1", "t2"], 5, 0, 1, vec![]),
            ("refused for good: only what lives stays", vec!["g", "l", "t"], 0, 3, 1, vec!["g", "t"]),
            ("and no more of it than is missing", vec!["l1", "l2"], 0, 1, 1, vec!["l1"]),
            ("both", vec!["g", "l", "t"], 1, 1, 1, vec!["g", "t"]),
            ("both, and nothing lives", vec!["g", "t1", "t2"], 1, 1, 1, vec!["g", "t1"]),
            ("nothing to let go", vec![], 1, 1, 0, vec![]),
            (
                "all is refused, and nothing lives: the group keeps one",
                vec!["g1", "g2", "t"],
                0,
                2,
                0,
                vec!["g1", "g2"],
            ),
            ("nothing is wanted", vec!["g", "l"], 0, 0, 0, vec!["g", "l"]),
        ] {
            let gone = safe_to_deregister(
                targets(&surplus),
                Unregistered { pending, refused, none_registered: registered == 0 },
                target_state,
            );
            assert_eq!(gone.concat(), targets(&goes), "{case}");
        }
    }
}
