//! Target groups that several clusters share (`spec.multiClusterTargetGroup`). Each binding has a record of the targets that are
//! its own, in a ConfigMap of the name and the format of aws-load-balancer-controller; it deregisters no other target. A target is
//! recorded before it is registered, and forgotten after it is deregistered.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::crd::TargetGroupBindingSpec,
    model::{Target, TargetHealth},
};

use super::{endpoints::target, plan::TargetPlan};

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

/// Returns the record for the time in which a plan is carried out: all targets that are registered before or after it.
#[must_use]
pub fn during(plan: &TargetPlan, desired: &BTreeSet<Target>) -> BTreeSet<Target> {
    let kept = desired.iter().filter(|target| !plan.left_out.contains(*target)).cloned();
    kept.chain(plan.surplus.iter().map(|written| target(&written.id, written.port))).collect()
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
        let health = || TargetHealth { state: HealthState::Healthy, reason: None, description: None, zone: None };
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
    fn the_record_has_every_target_that_may_be_registered_at_any_moment_of_a_change() {
        let plan = TargetPlan {
            register: vec![vec![target("new", 80)]],
            surplus: vec![Target { id: "FD00:0::1".to_owned(), port: 80 }, target("old", 80)],
            left_out: vec![target("too-many", 80)],
        };
        let during = during(&plan, &set(&["kept", "new", "too-many"]));
        assert_eq!(during, set(&["kept", "new", "fd00::1", "old"]));
        // What could not be deregistered stays recorded.
        let after = after(during, &[Target { id: "FD00:0::1".to_owned(), port: 80 }]);
        assert_eq!(after, set(&["kept", "new", "old"]));
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
