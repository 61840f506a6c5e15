//! What records vouch for is not read.

use super::*;
use crate::record::Clean;

fn clean(name: &str) -> Clean {
    Clean {
        fingerprint: "1".to_owned(),
        load_balancers: BTreeSet::from([balancer_arn(name)]),
        target_groups: BTreeSet::from([target_group_arn(name)]),
        security_groups: BTreeSet::from([SecurityGroupId::new(format!("sg-{name}"))]),
    }
}

const LISTS: [&str; 3] = ["DescribeLoadBalancers", "DescribeSecurityGroups", "DescribeTargetGroups"];

fn with_tags() -> Vec<&'static str> {
    vec!["DescribeLoadBalancers", "DescribeSecurityGroups", "DescribeTags", "DescribeTargetGroups"]
}

#[tokio::test]
async fn what_a_record_names_costs_the_lists_alone() {
    let world = world(&["a", "b"], &["a", "b"], &["a", "b"]);
    let (fake, inventory) = started(&world).await;
    inventory.claim([(group("a"), clean("a")), (group("b"), clean("b"))]);
    let listed = inventory.listed(&group("a"), &clean("a")).await.unwrap().unwrap();
    assert_eq!(names(&listed), (vec!["a"], vec!["a"], vec!["a"]));
    assert!(inventory.listed(&group("b"), &clean("b")).await.unwrap().is_some());
    assert_eq!(inventory.groups().await.unwrap(), BTreeSet::from([group("a"), group("b")]));
    assert_eq!(fake.actions(), LISTS);
    // Who has to know more reads what belongs to it, and nothing of others.
    let observed = inventory.observe(&group("a")).await.unwrap();
    assert_eq!(observed.load_balancers[0].tags, tags_of_group("a"));
    assert_eq!(observed.load_balancers[0].listeners[&80].rules.len(), 2);
    let calls = fake.calls();
    let tagged: Vec<_> =
        calls.iter().filter(|call| call.action == "DescribeTags").map(|c| c.list("ResourceArns")).collect();
    assert_eq!(tagged[0], [balancer_arn("a").as_str(), target_group_arn("a").as_str()]);
    assert!(calls.iter().all(|call| !LISTS.contains(&call.action.as_str()) && !call.body.contains("%2Fb%2F")));
    assert_eq!(inventory.listed(&group("a"), &clean("a")).await, Ok(None));
    assert!(inventory.listed(&group("b"), &clean("b")).await.unwrap().is_some());
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_record_counts_only_where_aws_lists_just_what_it_names() {
    for (balancers, target_groups, security_groups) in
        [(vec![], vec!["a"], vec!["a"]), (vec!["a"], vec![], vec!["a"]), (vec!["a"], vec!["a"], vec![])]
    {
        let (_fake, inventory) = started(&world(&balancers, &target_groups, &security_groups)).await;
        inventory.claim([(group("a"), clean("a"))]);
        assert_eq!(inventory.listed(&group("a"), &clean("a")).await, Ok(None));
        let observed = inventory.observe(&group("a")).await.unwrap();
        assert_eq!(names(&observed), (balancers, target_groups, security_groups));
    }
    // More than it names, and nothing at all.
    let (fake, inventory) = started(&world(&["a"], &["a"], &["a"])).await;
    let less = Clean { target_groups: BTreeSet::new(), ..clean("a") };
    inventory.claim([(group("a"), less.clone())]);
    assert_eq!(inventory.listed(&group("a"), &less).await, Ok(None));
    assert_eq!(fake.actions(), with_tags());
    let nothing = Clean { load_balancers: BTreeSet::new(), ..less };
    assert_eq!(inventory.listed(&group("a"), &nothing).await, Ok(None));
}

#[tokio::test]
async fn what_is_given_up_is_read_in_spite_of_a_record() {
    let (fake, inventory) = started(&world(&["a", "b"], &["a", "b"], &["a", "b"])).await;
    inventory.claim([(group("a"), clean("a")), (group("b"), clean("b"))]);
    assert!(inventory.listed(&group("a"), &clean("a")).await.unwrap().is_some());
    fake.calls();
    inventory.forget(&group("a"));
    assert_eq!(inventory.listed(&group("a"), &clean("a")).await, Ok(None));
    inventory.observe(&group("a")).await.unwrap();
    assert!(fake.actions().contains(&"DescribeTags".to_owned()));
    inventory.forget_all();
    assert_eq!(inventory.listed(&group("b"), &clean("b")).await, Ok(None));
}

#[tokio::test]
async fn what_is_gone_when_its_tags_are_read_is_listed_again() {
    let world = world(&["a"], &["a"], &["a"]);
    let (fake, inventory) = started(&world).await;
    inventory.claim([(group("a"), clean("a"))]);
    assert!(inventory.listed(&group("a"), &clean("a")).await.unwrap().is_some());
    world.lock().unwrap().vanished.insert(target_group_arn("a").to_string());
    assert!(inventory.observe(&group("a")).await.is_err_and(|error| error.is_not_found()));
    world.lock().unwrap().target_groups.clear();
    fake.calls();
    assert_eq!(names(&inventory.observe(&group("a")).await.unwrap()), (vec!["a"], vec![], vec!["a"]));
    assert!(fake.actions().contains(&"DescribeTargetGroups".to_owned()));
}

#[tokio::test]
async fn a_binding_is_believed_until_its_targets_are_known_or_given_up() {
    let (fake, inventory) = started(&world(&[], &["a", "b"], &[])).await;
    assert_eq!(inventory.takes_word_for_targets(&target_group_arn("a")).await, Ok(true));
    assert_eq!(inventory.takes_word_for_targets(&target_group_arn("gone")).await, Ok(false));
    assert_eq!(fake.actions(), with_tags());
    inventory.forget_targets(&target_group_arn("a"));
    assert_eq!(inventory.takes_word_for_targets(&target_group_arn("a")).await, Ok(false));
    inventory.targets(&target_group_arn("b")).await.unwrap();
    assert_eq!(inventory.takes_word_for_targets(&target_group_arn("b")).await, Ok(false));
    inventory.targets(&target_group_arn("a")).await.unwrap();
    assert_eq!(fake.actions(), ["DescribeTargetHealth", "DescribeTargetHealth"]);
}
