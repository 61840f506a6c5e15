//! Target groups that several clusters share (`spec.multiClusterTargetGroup`). Each binding has a record of the targets that are
//! its own, in a ConfigMap of the name and the format of aws-load-balancer-controller; it deregisters no other target. A target is
//! recorded before it is registered, and forgotten after it is deregistered.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::crd::TargetGroupBindingSpec,
    model::{Target, TargetHealth},
};

use super::{
    endpoints::target,
    plan::{TargetPlan, batches, is_draining},
};

/// The key of the ConfigMap's data that has the targets.
pub const TARGETS_KEY: &str = "targets";

/// The annotation of the ConfigMap with the UID of its binding: the record of a deleted binding says nothing about another one of
/// its name. aws-load-balancer-controller writes none.
pub const BINDING_UID: &str = "elbv2.k8s.aws/albatross-binding-uid";

/// The most targets of a binding whose group is shared. A ConfigMap has 1 MiB, and during a change the record has the old and the
/// new targets.
pub const MAX_RECORDED: usize = 9_000;

/// Returns true if other clusters may have targets in the binding's group.
#[must_use]
pub fn is_shared(spec: &TargetGroupBindingSpec) -> bool {
    spec.multi_cluster_target_group == Some(true)
}

/// Returns the text of a record: `<id>:<port>`, separated by commas.
#[must_use]
pub fn text(targets: &BTreeSet<Target>) -> String {
    targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Reads the text of a record. Words that name no target are ignored.
#[must_use]
pub fn targets(text: &str) -> BTreeSet<Target> {
    let read = |word: &str| {
        let (id, port) = word.trim().rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!id.is_empty()).then(|| target(id, port))
    };
    text.split(',').filter_map(read).collect()
}

/// Removes the registered targets that a binding may not deregister: those that are neither desired nor recorded, and those that
/// another binding of this cluster desires, too. Without a record, only desired targets are left.
pub fn restrict(
    present: &mut BTreeMap<Target, TargetHealth>,
    desired: &BTreeSet<Target>,
    recorded: Option<&BTreeSet<Target>>,
    of_others: &BTreeSet<Target>,
) {
    present.retain(|written, _| {
        let target = target(&written.id, written.port);
        let is_own = recorded.is_some_and(|recorded| recorded.contains(&target)) && !of_others.contains(&target);
        desired.contains(&target) || is_own
    });
}

/// Returns the registered targets that are left to another binding of this cluster which has not recorded them yet, and may never
/// do so: until then, they stay in the record of the binding that has registered them.
#[must_use]
pub fn kept(
    present: &BTreeMap<Target, TargetHealth>,
    desired: &BTreeSet<Target>,
    recorded: Option<&BTreeSet<Target>>,
    unrecorded: &BTreeSet<Target>,
) -> BTreeSet<Target> {
    let registered = present.iter().filter(|(_, health)| !is_draining(health));
    let is_left = |target: &Target| {
        !desired.contains(target)
            && unrecorded.contains(target)
            && recorded.is_some_and(|recorded| recorded.contains(target))
    };
    registered.map(|(written, _)| target(&written.id, written.port)).filter(is_left).collect()
}

/// Adds to a plan the desired targets without a record, although they seem to be registered, and returns them: another cluster may
/// have registered them, and deregister them at any time. Registering a target twice changes nothing.
#[must_use]
pub fn confirm(
    plan: &mut TargetPlan,
    desired: &BTreeSet<Target>,
    recorded: Option<&BTreeSet<Target>>,
) -> BTreeSet<Target> {
    let planned: BTreeSet<Target> = plan.register.concat().into_iter().chain(plan.left_out.iter().cloned()).collect();
    let is_recorded = |target: &Target| recorded.is_some_and(|recorded| recorded.contains(target));
    let unproven: BTreeSet<Target> =
        desired.difference(&planned).filter(|target| !is_recorded(target)).cloned().collect();
    if !unproven.is_empty() {
        let all: BTreeSet<Target> = plan.register.concat().into_iter().chain(unproven.iter().cloned()).collect();
        plan.register = batches(all.into_iter().collect());
    }
    unproven
}

/// Returns the record for the time in which a plan is carried out: all targets that are registered before or after it, and those
/// that are kept for another binding.
#[must_use]
pub fn during(plan: &TargetPlan, desired: &BTreeSet<Target>, kept: &BTreeSet<Target>) -> BTreeSet<Target> {
    let desired = desired.iter().filter(|target| !plan.left_out.contains(*target)).chain(kept).cloned();
    let departing = plan.surplus.iter().chain(&plan.replaced);
    desired.chain(departing.map(|written| target(&written.id, written.port))).collect()
}

/// Returns the record after some of the targets were deregistered.
#[must_use]
pub fn after(mut record: BTreeSet<Target>, deregistered: &[Target]) -> BTreeSet<Target> {
    for written in deregistered {
        record.remove(&target(&written.id, written.port));
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HealthState;

    fn set(names: &[&str]) -> BTreeSet<Target> {
        names.iter().map(|name| target(name, 80)).collect()
    }

    #[test]
    fn the_text_is_read_back() {
        for (case, text_of_record, expected) in [
            ("nothing", "", vec![]),
            ("one", "10.0.0.1:80", vec![("10.0.0.1", 80)]),
            ("in any order", "i-2:30080,i-1:30080", vec![("i-1", 30080), ("i-2", 30080)]),
            ("an IPv6 address", "fd00::1:8080", vec![("fd00::1", 8080)]),
            ("another spelling of it", "FD00:0::1:8080", vec![("fd00::1", 8080)]),
            ("spaces, and twice the same", " 10.0.0.1:80, 10.0.0.1:80 ", vec![("10.0.0.1", 80)]),
            (
                "words that name no target",
                "10.0.0.1,:80,10.0.0.2:0,10.0.0.3:99999,,x:y,10.0.0.4:4",
                vec![("10.0.0.4", 4)],
            ),
        ] {
            let expected: BTreeSet<Target> = expected.iter().map(|(id, port)| target(id, *port)).collect();
            assert_eq!(targets(text_of_record), expected, "{case}");
            assert_eq!(targets(&text(&expected)), expected, "{case}");
        }
        assert_eq!(text(&set(&["10.0.0.2", "10.0.0.1"])), "10.0.0.1:80,10.0.0.2:80");
    }

    #[test]
    fn only_own_targets_may_go() {
        let health = || TargetHealth {
            state: HealthState::Healthy,
            reason: None,
            description: None,
            zone: None,
            quic_server_id: None,
        };
        for (case, present, desired, recorded, of_others, left) in [
            ("others' targets", vec!["a", "x"], vec!["a"], Some(vec!["a"]), vec![], vec!["a"]),
            ("one of ours that is to go", vec!["a", "b", "x"], vec!["a"], Some(vec!["a", "b"]), vec![], vec!["a", "b"]),
            ("no record yet", vec!["a", "b"], vec!["a"], None, vec![], vec!["a"]),
            ("an empty record", vec!["a", "b"], vec!["a"], Some(vec![]), vec![], vec!["a"]),
            ("another binding desires it", vec!["b"], vec![], Some(vec!["b"]), vec!["b"], vec![]),
            ("and so does this one", vec!["b"], vec!["b"], Some(vec!["b"]), vec!["b"], vec!["b"]),
            (
                "another spelling",
                vec!["FD00:0::1", "fd00:0::2"],
                vec!["fd00::1"],
                Some(vec!["fd00::2"]),
                vec![],
                vec!["FD00:0::1", "fd00:0::2"],
            ),
        ] {
            let written = |names: &[&str]| -> BTreeMap<Target, TargetHealth> {
                names.iter().map(|id| (Target { id: (*id).to_owned(), port: 80 }, health())).collect()
            };
            let mut present = written(&present);
            restrict(&mut present, &set(&desired), recorded.map(|names| set(&names)).as_ref(), &set(&of_others));
            assert_eq!(present, written(&left), "{case}");
        }
    }

    #[test]
    fn what_is_left_to_a_binding_without_a_record_of_it_is_kept() {
        let health = |state: HealthState| TargetHealth {
            state,
            reason: None,
            description: None,
            zone: None,
            quic_server_id: None,
        };
        let written = |id: &str| Target { id: id.to_owned(), port: 80 };
        let mut present: BTreeMap<Target, TargetHealth> =
            ["a", "b", "FD00:0::1", "x"].iter().map(|id| (written(id), health(HealthState::Healthy))).collect();
        present.insert(written("d"), health(HealthState::Draining));
        for (case, desired, recorded, unrecorded, expected) in [
            ("no other binding", vec!["a"], Some(vec!["a", "b"]), vec![], vec![]),
            ("another one desires it", vec!["a"], Some(vec!["a", "b"]), vec!["b"], vec!["b"]),
            ("in another spelling", vec![], Some(vec!["fd00::1"]), vec!["fd00::1"], vec!["fd00::1"]),
            ("both desire it", vec!["b"], Some(vec!["b"]), vec!["b"], vec![]),
            ("it is another cluster's", vec![], Some(vec!["a"]), vec!["x"], vec![]),
            ("it drains, or is gone", vec![], Some(vec!["d", "e"]), vec!["d", "e"], vec![]),
            ("no record", vec![], None, vec!["a"], vec![]),
        ] {
            let recorded = recorded.map(|names| set(&names));
            assert_eq!(kept(&present, &set(&desired), recorded.as_ref(), &set(&unrecorded)), set(&expected), "{case}");
        }
    }

    #[test]
    fn what_another_cluster_may_have_registered_is_registered_again() {
        for (case, register, left_out, recorded, registers, unproven) in [
            ("all is recorded", vec![], vec![], Some(vec!["a", "b", "c"]), vec![], vec![]),
            ("one is another's", vec![], vec![], Some(vec!["a", "c", "x"]), vec!["b"], vec!["b"]),
            ("next to a new one", vec!["c"], vec![], Some(vec!["b"]), vec!["a", "c"], vec!["a"]),
            ("no record yet", vec![], vec![], None, vec!["a", "b", "c"], vec!["a", "b", "c"]),
            ("not those that are too many", vec![], vec!["b"], Some(vec!["a"]), vec!["c"], vec!["c"]),
        ] {
            let one = |names: &[&str]| batches(set(names).into_iter().collect());
            let left_out: Vec<Target> = set(&left_out).into_iter().collect();
            let mut plan =
                TargetPlan { replaced: vec![], register: one(&register), surplus: vec![target("x", 80)], left_out };
            let expected = TargetPlan { register: one(&registers), ..plan.clone() };
            let added = confirm(&mut plan, &set(&["a", "b", "c"]), recorded.map(|names| set(&names)).as_ref());
            assert_eq!((plan, added), (expected, set(&unproven)), "{case}");
        }
    }

    #[test]
    fn the_record_has_every_target_that_may_be_registered_at_any_moment_of_a_change() {
        let plan = TargetPlan {
            replaced: vec![Target { id: "FD00:0::2".to_owned(), port: 80 }],
            register: vec![vec![target("new", 80)]],
            surplus: vec![Target { id: "FD00:0::1".to_owned(), port: 80 }, target("old", 80)],
            left_out: vec![target("too-many", 80)],
        };
        let during = during(&plan, &set(&["kept", "new", "too-many"]), &set(&["left"]));
        assert_eq!(during, set(&["kept", "new", "fd00::1", "fd00::2", "old", "left"]));
        // What could not be deregistered stays recorded.
        let after = after(during, &[Target { id: "FD00:0::1".to_owned(), port: 80 }]);
        assert_eq!(after, set(&["kept", "new", "fd00::2", "old", "left"]));
    }

    #[test]
    fn the_largest_record_fits_into_a_config_map() {
        let longest = |number: usize| {
            target(
                &format!("fd00:1111:2222:3333:4444:5555:{:x}:{:x}", 4096 + number / 9000, 4096 + number % 9000),
                65535,
            )
        };
        let all: BTreeSet<Target> = (0..2 * MAX_RECORDED).map(longest).collect();
        assert_eq!(all.len(), 2 * MAX_RECORDED);
        assert!(text(&all).len() < 960 * 1024, "{}", text(&all).len());
    }
}
