//! Target groups of other accounts, which a role reaches.

use albatross_core::api::crd::TargetGroupBindingSpec;

use super::*;

const ROLE: &str = "arn:aws:iam::111122223333:role/targets";
const FOREIGN: &str = "arn:aws:elasticloadbalancing:us-west-2:111122223333:targetgroup/cart/1";

fn edit(lab: &Lab, change: impl FnOnce(&mut TargetGroupBinding)) {
    lab.change(|snapshot| change(snapshot.target_group_bindings.get_mut(&name("tgb")).unwrap()));
}

/// Returns a lab like [`lab`] whose binding names a target group of another account, and a role there.
fn foreign_lab(addresses: &[&str]) -> Lab {
    let lab = lab(addresses);
    lab.aws.refuse_role(ROLE);
    lab.aws.put_target_group(albatross_simulation::aws::GivenTargetGroup::new(FOREIGN, "cart", "ip"));
    edit(&lab, |binding| {
        binding.spec.target_group_arn = Some(FOREIGN.to_owned());
        binding.spec.iam_role_arn_to_assume = Some(ROLE.to_owned());
        binding.spec.assume_role_external_id = Some("shop".to_owned());
    });
    lab
}

fn registered(lab: &Lab) -> Vec<String> {
    lab.aws.registrations(FOREIGN).iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn a_refused_role_is_told_and_heals_by_itself() {
    let lab = foreign_lab(&["10.0.0.1"]);
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @r"
    FailedReconcile: TargetGroupBinding shop/tgb: no valid AWS credentials for DescribeTargetHealth: the controller may not assume the role arn:aws:iam::111122223333:role/targets: User: controller is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::111122223333:role/targets (AccessDenied)
    fix: let the role's trust policy allow `sts:AssumeRole` to the controller's identity with the external id of spec.assumeRoleExternalId, and allow the controller `sts:AssumeRole` on the role; check the role's name and account, too
    transient: false
    ");
    // The wrong external id does not help.
    lab.aws.allow_role(ROLE, Some("other"));
    tokio::time::advance(Duration::from_secs(60)).await;
    reconcile(&lab, "tgb").await.unwrap_err();
    lab.aws.allow_role(ROLE, Some("shop"));
    tokio::time::advance(Duration::from_secs(60)).await;
    lab.log();
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["finalizer on", "register@targets 10.0.0.1:8080", READY]);
    assert_eq!(registered(&lab), ["10.0.0.1:8080"]);
}

#[tokio::test]
async fn targets_follow_pods_and_go_with_the_binding() {
    let mut lab = foreign_lab(&["10.0.0.1"]);
    lab.aws.allow_role(ROLE, Some("shop"));
    reconcile(&lab, "tgb").await.unwrap();
    assert!(!reconcile(&lab, "tgb").await.unwrap().checkpoint_pending);
    lab.log();
    lab.serve(&["10.0.0.2"]);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["checkpoint off", "register@targets 10.0.0.2:8080", "deregister@targets 10.0.0.1:8080"]);
    reconcile(&lab, "tgb").await.unwrap();
    // A new process trusts the checkpoint and does not call the other account.
    lab.restart();
    lab.log();
    lab.aws.calls();
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), [""; 0]);
    assert!(lab.aws.calls().iter().all(|call| call.operation != "AssumeRole"));
    edit(&lab, |binding| binding.deleting = true);
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["deregister@targets 10.0.0.2:8080", "finalizer off"]);
    assert_eq!(registered(&lab), [""; 0]);
}

#[tokio::test]
async fn what_the_binding_leaves_out_comes_from_the_other_account() {
    let lab = foreign_lab(&["10.0.0.1"]);
    lab.aws.allow_role(ROLE, Some("shop"));
    edit(&lab, |binding| {
        (binding.spec.target_group_arn, binding.spec.target_type) = (None, None);
        binding.spec.target_group_name = Some("cart".to_owned());
    });
    reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log()[0], "group@targets Name(\"cart\")");
    assert_eq!((registered(&lab), lab.registered()), (vec!["10.0.0.1:8080".to_owned()], vec![]));
}

#[tokio::test]
async fn a_role_that_is_not_valid_and_nodes_are_refused() {
    for (change, expected) in [
        (
            (|binding| binding.spec.iam_role_arn_to_assume = Some("targets".to_owned())) as fn(&mut TargetGroupBinding),
            "spec.iamRoleArnToAssume: `targets` is not the ARN of an IAM role; nothing is registered or deregistered; write it as arn:aws:iam::ACCOUNT:role/NAME",
        ),
        (
            |binding| binding.spec.assume_role_external_id = Some("x".to_owned()),
            "spec.assumeRoleExternalId: an external id has 2 to 1224 characters, each a letter, a digit or one of `_+=,.@:/-`; nothing is registered or deregistered; write the id that the role's trust policy requires",
        ),
        (
            |binding| binding.spec.target_type = Some(TargetType::Instance),
            "spec.iamRoleArnToAssume: nodes cannot be registered in another account; nothing is registered or deregistered; use a target group of type ip",
        ),
    ] {
        let lab = foreign_lab(&["10.0.0.1"]);
        lab.aws.allow_role(ROLE, Some("shop"));
        edit(&lab, change);
        let error = reconcile(&lab, "tgb").await.unwrap_err();
        assert!(error.problem.needs_correction());
        assert_eq!((error.reason(), error.text().as_str()), ("FailedReconcile", expected));
        assert_eq!(lab.log(), [format!("status - False FailedReconcile: {expected}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_binding_waits_for_its_role_but_not_for_ever() {
    let mut lab = foreign_lab(&["10.0.0.1"]);
    lab.aws.allow_role(ROLE, Some("shop"));
    reconcile(&lab, "tgb").await.unwrap();
    lab.aws.refuse_role(ROLE);
    lab.restart();
    edit(&lab, |binding| binding.deleting = true);
    let error = reconcile(&lab, "tgb").await.unwrap_err();
    assert_eq!(error.reason(), "FailedCleanup");
    // A role that comes back in time has its targets deregistered.
    tokio::time::advance(Duration::from_secs(200)).await;
    reconcile(&lab, "tgb").await.unwrap_err();
    assert_eq!(registered(&lab), ["10.0.0.1:8080"]);
    lab.log();
    tokio::time::advance(Duration::from_secs(200)).await;
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert!(outcome.gone);
    assert_eq!(lab.log(), ["finalizer off"]);
    let notices: Vec<_> =
        outcome.notices.iter().map(|notice| format!("{}: {}", notice.reason, notice.message)).collect();
    insta::assert_snapshot!(notices.join("\n"), @"FailedCleanup: its targets may still be registered in arn:aws:elasticloadbalancing:us-west-2:111122223333:targetgroup/cart/1, and the binding is released without them: no valid AWS credentials for DescribeTargetHealth: the controller may not assume the role arn:aws:iam::111122223333:role/targets: User: controller is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::111122223333:role/targets (AccessDenied); deregister them in the account of the target group");
}

#[tokio::test]
async fn a_deleted_binding_whose_role_was_made_invalid_goes_at_once() {
    let lab = foreign_lab(&["10.0.0.1"]);
    lab.aws.allow_role(ROLE, Some("shop"));
    reconcile(&lab, "tgb").await.unwrap();
    lab.log();
    edit(&lab, |binding| {
        binding.deleting = true;
        binding.spec.iam_role_arn_to_assume = Some("targets".to_owned());
    });
    let outcome = reconcile(&lab, "tgb").await.unwrap();
    assert_eq!(lab.log(), ["finalizer off"]);
    assert_eq!(outcome.notices.len(), 1);
}

#[tokio::test]
async fn a_group_of_the_same_name_in_another_account_is_another_one() {
    let lab = foreign_lab(&["10.0.0.1"]);
    lab.aws.allow_role(ROLE, Some("shop"));
    edit(&lab, |binding| {
        binding.spec.target_group_arn = None;
        binding.spec.target_group_name = Some("cart".to_owned());
    });
    lab.change(|snapshot| drop(snapshot.apply(binding("own", Some(TargetType::Ip)))));
    reconcile(&lab, "own").await.unwrap();
    assert_eq!((registered(&lab), lab.registered()), (vec![], vec!["10.0.0.1:8080".to_owned()]));
}

/// An outage is waited for, longer than a refusal.
#[tokio::test(start_paused = true)]
async fn a_deleted_binding_waits_out_an_outage_of_sts() {
    let mut lab = foreign_lab(&["10.0.0.1"]);
    lab.aws.allow_role(ROLE, Some("shop"));
    reconcile(&lab, "tgb").await.unwrap();
    lab.restart();
    edit(&lab, |binding| binding.deleting = true);
    let fails =
        |status, code: &str, message: &str| lab.aws.fail_sts(Some((status, code.to_owned(), message.to_owned())));
    fails(503, "ServiceUnavailable", "out of order");
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(3600)).await;
        reconcile(&lab, "tgb").await.unwrap_err();
    }
    assert_eq!(registered(&lab), ["10.0.0.1:8080"]);
    // An outage in between does not stop the clock of a refusal.
    for (status, code) in [(403, "AccessDenied"), (503, "ServiceUnavailable")] {
        fails(status, code, "no");
        tokio::time::advance(Duration::from_secs(120)).await;
        reconcile(&lab, "tgb").await.unwrap_err();
    }
    lab.aws.fail_sts(None);
    tokio::time::advance(Duration::from_secs(100)).await;
    assert!(reconcile(&lab, "tgb").await.unwrap().gone);
    assert_eq!(registered(&lab), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_permission_that_the_controller_itself_lacks_is_waited_for_longer() {
    let mut lab = foreign_lab(&["10.0.0.1"]);
    lab.aws.allow_role(ROLE, Some("shop"));
    reconcile(&lab, "tgb").await.unwrap();
    lab.restart();
    edit(&lab, |binding| binding.deleting = true);
    let message = "User: controller is not authorized to perform: sts:AssumeRole on resource: role because no identity-based policy allows the sts:AssumeRole action";
    lab.aws.fail_sts(Some((403, "AccessDenied".to_owned(), message.to_owned())));
    for _ in 0..2 {
        reconcile(&lab, "tgb").await.unwrap_err();
        tokio::time::advance(Duration::from_secs(1799)).await;
    }
    insta::assert_snapshot!(text(&reconcile(&lab, "tgb").await.unwrap_err()), @r"
    FailedCleanup: TargetGroupBinding shop/tgb: no valid AWS credentials for DescribeTargetHealth: the controller's own policy does not allow it to assume the role arn:aws:iam::111122223333:role/targets: User: controller is not authorized to perform: sts:AssumeRole on resource: role because no identity-based policy allows the sts:AssumeRole action (AccessDenied)
    fix: allow the controller `sts:AssumeRole` on the role, in the IAM policy of the controller's own identity
    transient: false
    ");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(reconcile(&lab, "tgb").await.unwrap().gone);
}

/// The own group is found by its name as long as AWS has not said which one it is.
#[tokio::test]
async fn the_account_of_a_group_that_is_found_by_name_is_known_once_aws_has_said_it() {
    let lab = foreign_lab(&["10.0.0.1"]);
    lab.aws.allow_role(ROLE, Some("shop"));
    let own = TargetGroupBinding {
        spec: TargetGroupBindingSpec {
            target_group_arn: None,
            target_group_name: Some("cart".to_owned()),
            ..binding("own", Some(TargetType::Ip)).spec
        },
        created: "2020-01-01T00:00:00Z".into(),
        ..binding("own", Some(TargetType::Ip))
    };
    lab.change(|snapshot| drop(snapshot.apply(own)));
    for name in ["own", "tgb"] {
        reconcile(&lab, name).await.unwrap();
    }
    assert_eq!(
        (registered(&lab), lab.registered()),
        (vec!["10.0.0.1:8080".to_owned()], vec!["10.0.0.1:8080".to_owned()])
    );
}

#[tokio::test]
async fn what_is_known_of_groups_that_no_binding_names_is_dropped() {
    let lab = foreign_lab(&["10.0.0.1"]);
    lab.aws.allow_role(ROLE, None);
    for number in 0..300 {
        edit(&lab, |binding| {
            binding.spec.ip_address_type = None;
            binding.spec.assume_role_external_id = Some(format!("id-{number}"));
        });
        reconcile(&lab, "tgb").await.unwrap();
    }
    let known = lab.targets.groups().len();
    assert!((1..=66).contains(&known), "{known}");
}

/// ELB takes no ARN of another region, and text that is none: nothing can be registered there.
#[tokio::test]
async fn a_deleted_binding_with_an_arn_that_elb_does_not_take_goes_at_once() {
    let lab = lab(&["10.0.0.1"]);
    edit(&lab, |binding| {
        binding.finalizers = vec![BINDING_FINALIZER.to_owned()];
        binding.spec.target_group_arn = Some("arn:aws:elasticloadbalancing:us-west-2:1:group/cart".to_owned());
        binding.deleting = true;
    });
    assert!(reconcile(&lab, "tgb").await.unwrap().gone);
    assert_eq!(lab.log(), ["forget", "finalizer off"]);
}
