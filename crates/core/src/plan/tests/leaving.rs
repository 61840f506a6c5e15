//! Members that leave a group: each keeps its finalizer until none of its resources is left, and no longer.

use super::{
    frozen::{agreed, built, owner},
    plan,
};
use crate::{
    model::{AddOn, ObjectName, ObservedBinding, ObservedStack, Stack, TagKeys},
    plan::{certificates_are_unknown, delays_release},
};

#[test]
fn who_leaves_is_held_by_what_is_its_own_and_by_nothing_else() {
    let mut aws = agreed(&[("a", ""), ("b", ""), ("c", "")], true);
    let stack = built(&[("a", "")], &["b", "c"], &aws.observed);
    let held = |observed: &crate::model::ObservedStack| {
        ["a", "b", "c"].map(|member| delays_release(&plan(&stack, observed), &stack, observed, &owner(member)))
    };
    assert_eq!(held(&aws.observed), [false, true, true]);
    // All that is done but for the target group of `c`, which others use.
    let before = aws.observed.clone();
    aws.settle(&stack, 2);
    assert_eq!(held(&aws.observed), [false, false, false]);
    let of_c = |group: &&crate::model::ObservedTargetGroup| group.resource().unwrap().as_str().starts_with("shop/c-");
    aws.observed.target_groups.extend(before.target_groups.iter().find(of_c).cloned());
    aws.observed.member_resources = before.member_resources.clone();
    assert_eq!(held(&aws.observed), [false, false, true]);
}

#[test]
fn a_lasting_difference_of_all_or_of_another_holds_nobody_who_leaves() {
    let mut aws = agreed(&[("a", ""), ("b", "")], true);
    let stack = built(&[("a", "")], &["b"], &aws.observed);
    let member_resources = aws.observed.member_resources.clone();
    aws.settle(&stack, 2);
    aws.observed.member_resources = member_resources;
    // A tag that never arrives, attributes that AWS spells in its own way, a binding that a policy changes.
    aws.observed.load_balancers[0].tags.clear();
    aws.observed.target_groups[0].attributes = Some([("stickiness.enabled".to_owned(), "True".to_owned())].into());
    aws.observed.bindings[0].spec.node_selector = Some(Default::default());
    assert_ne!(plan(&stack, &aws.observed).steps, vec![]);
    assert!(!delays_release(&plan(&stack, &aws.observed), &stack, &aws.observed, &owner("b")));
}

#[test]
fn where_nothing_is_remembered_who_leaves_waits_for_all_that_goes() {
    let aws = agreed(&[("a", ""), ("b", "")], false);
    let stack = built(&[("a", "")], &["b"], &aws.observed);
    assert!(delays_release(&plan(&stack, &aws.observed), &stack, &aws.observed, &owner("b")));
}

#[test]
fn who_leaves_is_not_held_by_a_stuck_target_group_of_another_whose_name_begins_alike() {
    let mut aws = agreed(&[("a", ""), ("a-b", ""), ("c", "")], true);
    let before = aws.observed.clone();
    let stack = built(&[("c", "")], &["a", "a-b"], &aws.observed);
    aws.settle(&stack, 2);
    // AWS has yet to release the target group of `a-b`, whose binding is there.
    let stuck =
        before.target_groups.iter().find(|group| group.resource().unwrap().as_str().starts_with("shop/a-b-")).unwrap();
    let binding = before.bindings.iter().find(|binding| binding.target_group == stuck.arn).unwrap();
    aws.observed.target_groups.push(stuck.clone());
    aws.observed.bindings.push(binding.clone());
    aws.observed.member_resources = before.member_resources.clone();
    let held = |observed: &crate::model::ObservedStack| {
        ["a", "a-b"].map(|member| delays_release(&plan(&stack, observed), &stack, observed, &owner(member)))
    };
    assert_eq!(held(&aws.observed), [false, true]);
    // Without the binding it may be of `a` and a Service `b-web`.
    aws.observed.bindings.pop();
    assert_eq!(held(&aws.observed), [true, true]);
}

#[test]
fn a_binding_of_a_target_group_that_is_not_the_stacks_holds_nobody_who_leaves() {
    let mut aws = agreed(&[("a", ""), ("b", "")], true);
    let stack = built(&[("a", "")], &["b"], &aws.observed);
    let mut foreign = aws.observed.bindings[0].clone();
    aws.settle(&stack, 2);
    foreign.name = crate::model::ObjectName::new("evil", "tgb");
    foreign.target_group = crate::model::TargetGroupArn::new("arn:unknown");
    for deleting in [false, true] {
        let observed = crate::model::ObservedStack {
            bindings: aws
                .observed
                .bindings
                .iter()
                .cloned()
                .chain([ObservedBinding { deleting, ..foreign.clone() }])
                .collect(),
            ..aws.observed.clone()
        };
        let planned = plan(&stack, &observed);
        assert!(!planned.waits.is_empty());
        assert!(!delays_release(&planned, &stack, &observed, &owner("b")));
    }
}

/// Whoever goes without its certificate leaves it in ACM for ever.
#[test]
fn nobody_leaves_while_it_is_not_known_which_certificates_were_requested() {
    let mut aws = agreed(&[("a", ""), ("b", "")], true);
    let mut stack = built(&[("a", "")], &["b"], &aws.observed);
    aws.settle(&stack, 2);
    let planned = plan(&stack, &aws.observed);
    let held = |stack: &Stack, observed: &ObservedStack| {
        (certificates_are_unknown(stack, observed), delays_release(&planned, stack, observed, &owner("b")))
    };
    aws.observed.tag_keys = Some(TagKeys::default());
    aws.observed.may_have_certificates = true;
    assert_eq!(held(&stack, &aws.observed), (false, false), "without the gate none is deleted");
    stack.certificates.enabled = true;
    assert_eq!(held(&stack, &aws.observed), (true, true), "a failure has made them unknown");
    aws.observed.may_have_certificates = false;
    assert_eq!(held(&stack, &aws.observed), (false, false), "the record names none");
    stack.certificates.unread = [ObjectName::new("shop", "a")].into();
    assert_eq!(held(&stack, &aws.observed), (true, true), "they could not be read");
    aws.observed.certificates = Some(Vec::new());
    assert_eq!(held(&stack, &aws.observed), (false, false), "there are none");
    (aws.observed.certificates, aws.observed.tag_keys) = (None, None);
    stack.certificates.unread.clear();
    for left_out in [[].into(), [AddOn::Certificates].into()] {
        aws.observed.left_out = left_out;
        assert_eq!(held(&stack, &aws.observed), (true, true), "there is no record");
    }
}
