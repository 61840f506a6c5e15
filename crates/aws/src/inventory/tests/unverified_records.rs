//! Resources that a trusted record names are not read.

use super::*;
use albatross_core::record::Clean;

fn clean(name: &str) -> Clean {
    let mut balancer = created_balancer(name);
    balancer.listeners.get_or_insert_default().insert(8080, created_listener(8080));
    balancer.attributes = Some([("idle_timeout.timeout_seconds".to_owned(), "30".to_owned())].into());
    Clean {
        load_balancers: vec![balancer],
        target_groups: vec![created_target_group(name)],
        frontend: albatross_core::model::ObservedFrontend::default(),
        certificates: vec![],
        member_resources: vec![],
    }
}

const LISTS: [&str; 3] = ["DescribeLoadBalancers", "DescribeSecurityGroups", "DescribeTargetGroups"];

fn with_tags() -> Vec<&'static str> {
    vec!["DescribeLoadBalancers", "DescribeSecurityGroups", "DescribeTags", "DescribeTargetGroups"]
}

#[tokio::test]
async fn what_a_record_names_costs_the_lists_alone() {
    let (fake, inventory) = started(&world(&["a", "b"], &["a", "b"], &["a", "b"])).await;
    inventory.add_records([(group("a"), clean("a")), (group("b"), clean("b"))]);
    let observed = inventory.observe_whole(&group("a")).await.unwrap();
    assert_eq!(names(&observed), (vec!["a"], vec!["a"], vec!["a"]));
    let (found, remembered) = (&observed.load_balancers[0], &clean("a").load_balancers[0]);
    assert_eq!(
        (&found.tags, &found.listeners, &found.attributes),
        (&remembered.tags, &remembered.listeners, &remembered.attributes)
    );
    // Listed resources count as they are listed.
    assert_eq!(
        (found.state, &found.security_groups),
        (LoadBalancerState::Active, &BTreeSet::from([SecurityGroupId::new("sg-a")]))
    );
    assert_eq!(observed.target_groups[0].tags, tags_of_group("a"));
    assert_eq!(names(&inventory.observe_whole(&group("b")).await.unwrap()), (vec!["b"], vec!["b"], vec!["b"]));
    assert_eq!(inventory.groups().await.unwrap(), BTreeSet::from([group("a"), group("b")]));
    assert_eq!(fake.actions(), LISTS);
}

#[tokio::test]
async fn a_record_counts_only_where_aws_lists_all_that_it_names() {
    for (balancers, target_groups) in [(vec![], vec!["a"]), (vec!["a"], vec![])] {
        let (fake, inventory) = started(&world(&balancers, &target_groups, &["a"])).await;
        inventory.add_records([(group("a"), clean("a"))]);
        let observed = inventory.observe_whole(&group("a")).await.unwrap();
        assert_eq!(names(&observed), (balancers, target_groups, vec!["a"]));
        assert!(observed.load_balancers.iter().all(|balancer| balancer.listener(80).is_some()));
        assert!(fake.actions().contains(&"DescribeTags".to_owned()));
    }
    // A resource that it does not name is seen all the same.
    let (_fake, inventory) = started(&world(&["a"], &["a"], &["a"])).await;
    inventory.add_records([(group("a"), Clean { target_groups: Vec::new(), ..clean("a") })]);
    assert_eq!(names(&inventory.observe_whole(&group("a")).await.unwrap()), (vec!["a"], vec!["a"], vec!["a"]));
}

#[tokio::test]
async fn what_is_given_up_is_read_in_spite_of_a_record() {
    let (fake, inventory) = started(&world(&["a"], &["a"], &["a"])).await;
    inventory.add_records([(group("a"), clean("a"))]);
    // Before it was trusted, and after.
    for asked in ["DescribeListeners", "DescribeTags"] {
        inventory.invalidate(&group("a"));
        let observed = inventory.observe_whole(&group("a")).await.unwrap();
        assert_eq!(observed.load_balancers[0].known_listeners().map(|l| l.port).collect::<Vec<_>>(), [80]);
        assert_eq!(observed.load_balancers[0].attributes, None);
        assert!(fake.actions().contains(&asked.to_owned()));
    }
    let (fake, inventory) = started(&world(&["a"], &["a"], &["a"])).await;
    inventory.add_records([(group("a"), clean("a"))]);
    inventory.observe_whole(&group("a")).await.unwrap();
    inventory.invalidate(&group("a"));
    assert_eq!(
        inventory.observe_whole(&group("a")).await.unwrap().load_balancers[0]
            .known_listeners()
            .map(|l| l.port)
            .collect::<Vec<_>>(),
        [80]
    );
    assert!(fake.actions().contains(&"DescribeTags".to_owned()));
}

#[tokio::test]
async fn a_binding_is_believed_until_its_targets_are_known_or_given_up() {
    let (fake, inventory) = started(&world(&[], &["a", "b"], &[])).await;
    assert_eq!(inventory.checkpoint_is_trusted(&target_group_arn("a")).await, Ok(true));
    assert_eq!(inventory.checkpoint_is_trusted(&target_group_arn("gone")).await, Ok(false));
    assert_eq!(fake.actions(), with_tags());
    inventory.invalidate_targets(&target_group_arn("a"));
    assert_eq!(inventory.checkpoint_is_trusted(&target_group_arn("a")).await, Ok(false));
    inventory.targets(&target_group_arn("b")).await.unwrap();
    assert_eq!(inventory.checkpoint_is_trusted(&target_group_arn("b")).await, Ok(false));
    inventory.targets(&target_group_arn("a")).await.unwrap();
    assert_eq!(fake.actions(), ["DescribeTargetHealth", "DescribeTargetHealth"]);
}
