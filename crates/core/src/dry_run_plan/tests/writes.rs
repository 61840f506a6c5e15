//! The annotations that the plan is written to, and removed from.

use super::*;

/// Returns the group `edge` of two members, which show these texts as their plan.
fn two(shown: [Option<&str>; 2]) -> (Stack, Membership, Snapshot) {
    let group = [("group.name", "edge"), ("target-type", "ip")];
    let members = [ingress("web", &group, ("/", "web")), ingress("zoo", &group, ("/zoo", "api"))];
    let (stack, membership, mut snapshot) = built(&StackId::Group("edge".to_owned()), &members, &build_config());
    for (ingress, shown) in snapshot.ingresses.values_mut().zip(shown) {
        ingress.written_plan = shown.map(WrittenPlan::of);
    }
    (stack, membership, snapshot)
}

/// Returns the changes as `<name> written` and `<name> removed`.
fn changes(found: &PlanWrites) -> Vec<String> {
    let change =
        |write: &PlanWrite| format!("{} {}", write.name.name, if write.text.is_some() { "written" } else { "removed" });
    found.writes.iter().map(change).collect()
}

#[test]
fn the_first_member_has_the_plan_and_no_other_one() {
    let (stack, ..) = two([None, None]);
    let text = document(&stack);
    let current = Some(text.as_str());
    for (enabled, shown, expected) in [
        (true, [None, None], &["web written"][..]),
        (true, [current, None], &[]),
        (true, [Some("{}"), None], &["web written"]),
        (true, [None, current], &["zoo removed", "web written"]),
        (true, [current, Some("mine")], &["zoo removed"]),
        (false, [None, None], &[]),
        (false, [current, Some("mine")], &["web removed", "zoo removed"]),
    ] {
        let (stack, membership, snapshot) = two(shown);
        let found = writes(enabled, &stack, &membership, &snapshot);
        assert_eq!(changes(&found), expected, "{enabled} {shown:?}");
        assert_eq!(found.too_large, None);
        let written = found.writes.iter().filter_map(|write| write.text.as_deref());
        assert!(written.into_iter().all(|written| written == text));
    }
}

#[test]
fn members_that_leave_lose_it_and_members_of_other_groups_keep_it() {
    let (stack, mut membership, snapshot) = two([None, Some("{}")]);
    let zoo = ObjectName::new("shop", "zoo");
    membership.members.retain(|name| *name != zoo);
    membership.leaving = vec![zoo.clone()];
    let found = |membership: &Membership, enabled| changes(&writes(enabled, &stack, membership, &snapshot));
    assert_eq!(found(&membership, true), ["zoo removed", "web written"]);
    assert_eq!(found(&membership, false), ["zoo removed"]);
    membership.moving.insert(zoo.clone());
    assert_eq!(found(&membership, true), ["web written"]);
    // One that its new group serves stays in the old one for a while.
    membership.followed.insert(zoo.clone());
    membership.freeze_moving(&zoo);
    assert_eq!(found(&membership, true), ["web written"]);
    assert_eq!(found(&membership, false), [""; 0]);
}

#[test]
fn a_plan_without_room_is_not_written_and_an_old_one_goes() {
    let (stack, membership, mut snapshot) = two([Some("{}"), None]);
    let name = ObjectName::new("shop", "web");
    let room = MOST_BYTES - KEY.len() - document(&stack).len();
    let mut with = |others: usize| {
        let written: &mut Ingress = snapshot.ingresses.get_mut(&name).unwrap();
        written.annotations = [("x".to_owned(), "y".repeat(others - 1))].into();
        writes(true, &stack, &membership, &snapshot)
    };
    assert_eq!((changes(&with(room)), with(room).too_large), (vec!["web written".to_owned()], None));
    let found = with(room + 1);
    assert_eq!(changes(&found), ["web removed"]);
    insta::assert_snapshot!(found.too_large.unwrap(), @"alb.ingress.kubernetes.io/dry-run-plan: the plan is not written: with it, the annotations would have 262145 bytes, and an object takes 262144; divide the group, or shorten its other annotations");
}

#[test]
fn services_have_no_plan() {
    let stack = Stack::empty(StackId::Service(ObjectName::new("shop", "web")));
    assert_eq!(writes(true, &stack, &Membership::default(), &Snapshot::default()), PlanWrites::default());
}

#[test]
fn the_annotation_is_no_part_of_what_an_ingress_requests() {
    let plan = "dry-run-plan: mine, alb.ingress.kubernetes.io/";
    let text = ingress("web", &[("target-type", "ip")], ("/", "web"));
    let with = text.replace("alb.ingress.kubernetes.io/", &format!("alb.ingress.kubernetes.io/{plan}"));
    let read = |text: String| snapshot(&[text]).ingresses.into_values().next().unwrap();
    let (without, with) = (read(text), read(with));
    assert_eq!(with.written_plan, Some(WrittenPlan::of("mine")));
    assert_eq!(Ingress { written_plan: None, ..with }, without);
}
