use std::{collections::BTreeSet, time::Duration};

use tokio::{
    net::TcpListener,
    time::{self, timeout},
};

use super::{testing::*, *};
use crate::{account::Instance, health::Standing};

const CLIENT: &str = "127.40.0.1:4000";

fn pick(targets: &Targets, account: &Account) -> Result<String, NoTarget> {
    let picked = targets.pick(account, "tg", CLIENT.parse().unwrap(), None)?;
    Ok(picked.target.id)
}

fn picked(targets: &Targets, account: &Account) -> Picked {
    targets.pick(account, "tg", CLIENT.parse().unwrap(), None).unwrap()
}

fn states(targets: &Targets) -> Vec<String> {
    let health = targets.health();
    health.get("tg").into_iter().flat_map(|group| group.values()).map(|health| health.state.clone()).collect()
}

/// Returns the targets of a node in zone `a`, whose checks a test does by hand.
fn unchecked(account: &Account) -> Arc<Targets> {
    let options = Options { time_scale: 1.0, ..OPTIONS };
    let targets = Targets::new(options, "a".to_owned());
    update(&targets, account);
    targets
}

/// Updates them; no check begins by itself.
fn update(targets: &Arc<Targets>, account: &Account) {
    targets.update(account, "lb");
    for group in targets.state().groups.values_mut() {
        group.members.values_mut().for_each(Member::silence);
    }
}

/// Takes results of checks of a target.
fn check(targets: &Arc<Targets>, id: &str, results: &str) {
    let target = target(id, 80);
    let generation = {
        let state = targets.state();
        (0..=state.generation).find(|number| state.groups["tg"].members[&target].is_checked_by(*number)).unwrap()
    };
    for result in results.chars() {
        let outcome = match result {
            'p' => health::Outcome::Passed,
            _ => health::Outcome::Failed(health::Failure::Broken),
        };
        targets.check_begins("tg", &target, generation);
        targets.check_ends("tg", &target, generation, outcome);
    }
}

#[tokio::test(start_paused = true)]
async fn healthy_targets_get_requests_and_all_do_if_none_is() {
    let account = account(false, &[("10.0.1.1", 80), ("10.0.2.1", 80)]);
    let targets = unchecked(&account);
    let two = |targets: &Targets| [pick(targets, &account).unwrap(), pick(targets, &account).unwrap()];
    assert_eq!(two(&targets), ["10.0.1.1", "10.0.2.1"], "both are initial");
    check(&targets, "10.0.2.1", "p");
    assert_eq!(states(&targets), ["initial", "healthy"]);
    assert_eq!(two(&targets), ["10.0.2.1", "10.0.2.1"]);
    check(&targets, "10.0.1.1", "p");
    assert_eq!(two(&targets), ["10.0.1.1", "10.0.2.1"]);
    check(&targets, "10.0.1.1", "xx");
    check(&targets, "10.0.2.1", "xx");
    assert_eq!(states(&targets), ["unhealthy", "unhealthy"]);
    assert_eq!(two(&targets), ["10.0.1.1", "10.0.2.1"], "fail-open");
    check(&targets, "10.0.1.1", "pp");
    assert_eq!(two(&targets), ["10.0.1.1", "10.0.1.1"]);
}

#[tokio::test(start_paused = true)]
async fn a_cookies_target_is_taken_while_it_is_healthy() {
    let account = account(false, &[("10.0.1.1", 80), ("10.0.1.2", 80)]);
    let targets = unchecked(&account);
    check(&targets, "10.0.1.1", "p");
    check(&targets, "10.0.1.2", "p");
    let sticky = |id: &str| {
        let picked = targets.pick(&account, "tg", CLIENT.parse().unwrap(), Some(&target(id, 80))).unwrap();
        picked.target.id
    };
    for _ in 0..3 {
        assert_eq!(sticky("10.0.1.2"), "10.0.1.2");
    }
    assert_eq!([sticky("10.0.1.9"), sticky("10.0.1.9")], ["10.0.1.1", "10.0.1.2"], "it is unknown");
    check(&targets, "10.0.1.2", "xx");
    assert_eq!(sticky("10.0.1.2"), "10.0.1.1");
}

#[tokio::test(start_paused = true)]
async fn a_group_without_a_usable_target_says_why() {
    let none = account(false, &[]);
    assert_eq!(pick(&unchecked(&none), &none), Err(NoTarget::NoneRegistered));
    let far = account(false, &[("10.0.3.1", 80)]);
    assert_eq!(pick(&unchecked(&far), &far), Err(NoTarget::NoneUsed));
    let other = account(true, &[("10.0.2.1", 80)]);
    assert_eq!(pick(&unchecked(&other), &other), Err(NoTarget::NoneInZone));
    let mut cross = other.clone();
    let balancer = cross.load_balancers.get_mut("lb").unwrap();
    balancer.attributes.insert("load_balancing.cross_zone.enabled".to_owned(), "true".to_owned());
    assert_eq!(pick(&unchecked(&cross), &cross).unwrap(), "10.0.2.1");
    let gone = unchecked(&other).pick(&other, "gone", CLIENT.parse().unwrap(), None);
    assert_eq!(gone.map(|picked| picked.target), Err(NoTarget::NoneRegistered));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_no_update_knows_yet_may_be_picked() {
    let before = account(false, &[]);
    let after = account(false, &[("10.0.1.1", 80)]);
    assert_eq!(pick(&unchecked(&before), &after).unwrap(), "10.0.1.1");
}

#[tokio::test(start_paused = true)]
async fn a_load_balancers_target_is_where_the_directory_says() {
    let mut account = account(true, &[]);
    let group = account.target_groups.get_mut("tg").unwrap();
    group.target_type = TargetType::Alb;
    group.targets.insert(target("alb", 8080));
    let options = Options { port_offset: 10_000, ..OPTIONS };
    let targets = Targets::new(options, "a".to_owned());
    update(&targets, &account);
    assert_eq!(pick(&targets, &account), Err(NoTarget::NoAddress));
    targets.set_directory(Arc::new(|arn| (arn == "alb").then_some(Ipv4Addr::new(127, 20, 0, 7))));
    assert_eq!(picked(&targets, &account).address, "127.20.0.7:18080".parse().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_deregistered_target_drains_and_is_forgotten() {
    let full = account(false, &[("10.0.1.1", 80), ("10.0.1.2", 80)]);
    let less = account(false, &[("10.0.1.2", 80)]);
    let targets = unchecked(&full);
    check(&targets, "10.0.1.1", "p");
    let held = picked(&targets, &full);
    assert_eq!(held.target.id, "10.0.1.1");
    update(&targets, &less);
    assert_eq!(states(&targets), ["draining", "initial"]);
    assert_eq!([pick(&targets, &less).unwrap(), pick(&targets, &less).unwrap()], ["10.0.1.2", "10.0.1.2"]);
    time::sleep(Duration::from_secs(299)).await;
    assert!(!*held.gone.borrow());
    time::sleep(Duration::from_secs(2)).await;
    assert!(*held.gone.borrow(), "300 s are over");
    assert_eq!(targets.health()["tg"].keys().cloned().collect::<Vec<_>>(), [target("10.0.1.2", 80)]);
}

#[tokio::test(start_paused = true)]
async fn draining_ends_when_the_target_is_registered_again() {
    let full = account(false, &[("10.0.1.1", 80)]);
    let none = account(false, &[]);
    let targets = unchecked(&full);
    check(&targets, "10.0.1.1", "p");
    let held = picked(&targets, &full);
    update(&targets, &none);
    assert_eq!(pick(&targets, &none), Err(NoTarget::NoneRegistered));
    time::sleep(Duration::from_secs(200)).await;
    update(&targets, &full);
    assert_eq!(states(&targets), ["healthy"]);
    assert_eq!(pick(&targets, &full).unwrap(), "10.0.1.1");
    time::sleep(Duration::from_secs(1)).await;
    assert!(!*held.gone.borrow());
    update(&targets, &none);
    time::sleep(Duration::from_secs(301)).await;
    assert!(*held.gone.borrow());
}

#[tokio::test(start_paused = true)]
async fn connections_outlive_draining_at_a_network_load_balancer_unless_they_are_to_end() {
    for (attribute, ended) in [(None, false), (Some("false"), false), (Some("true"), true)] {
        let of = |targets: &[(&str, u16)]| {
            let mut account = account(true, targets);
            let group = account.target_groups.get_mut("tg").unwrap();
            group.attributes.insert("deregistration_delay.timeout_seconds".to_owned(), "5".to_owned());
            if let Some(value) = attribute {
                let key = "deregistration_delay.connection_termination.enabled";
                group.attributes.insert(key.to_owned(), value.to_owned());
            }
            account
        };
        let (full, none) = (of(&[("10.0.1.1", 80)]), of(&[]));
        let targets = unchecked(&full);
        let held = picked(&targets, &full);
        update(&targets, &none);
        time::sleep(Duration::from_secs(4)).await;
        assert_eq!(states(&targets), ["draining"]);
        time::sleep(Duration::from_secs(2)).await;
        assert_eq!((*held.gone.borrow(), held.gone.has_changed().is_ok()), (ended, true), "{attribute:?}");
        assert_eq!(targets.health(), BTreeMap::new(), "nothing is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_end_with_an_unhealthy_target_unless_all_are_unhealthy() {
    let account = account(true, &[("10.0.1.1", 80), ("10.0.1.2", 80)]);
    let targets = unchecked(&account);
    check(&targets, "10.0.1.1", "p");
    let held = picked(&targets, &account);
    check(&targets, "10.0.1.1", "xx");
    assert_eq!((held.target.id.as_str(), *held.gone.borrow()), ("10.0.1.1", false), "it fails open");
    check(&targets, "10.0.1.2", "p");
    assert!(*held.gone.borrow());
    check(&targets, "10.0.1.1", "pp");
    check(&targets, "10.0.1.2", "xx");
    let held = picked(&targets, &account);
    assert_eq!((held.target.id.as_str(), *held.gone.borrow()), ("10.0.1.1", false), "it is another connection");
}

#[tokio::test(start_paused = true)]
async fn connections_to_an_unhealthy_target_may_have_some_time() {
    let mut account = account(true, &[("10.0.1.1", 80), ("10.0.1.2", 80)]);
    let group = account.target_groups.get_mut("tg").unwrap();
    for (key, value) in [
        ("target_health_state.unhealthy.connection_termination.enabled", "false"),
        ("target_health_state.unhealthy.draining_interval_seconds", "60"),
    ] {
        group.attributes.insert(key.to_owned(), value.to_owned());
    }
    let targets = unchecked(&account);
    check(&targets, "10.0.1.1", "p");
    let held = picked(&targets, &account);
    check(&targets, "10.0.1.2", "p");
    check(&targets, "10.0.1.1", "xx");
    assert_eq!((states(&targets), *held.gone.borrow()), (vec!["unhealthy.draining".into(), "healthy".into()], false));
    let end = |targets: &Arc<Targets>| {
        let state = targets.state();
        state.groups["tg"].members[&target("10.0.1.1", 80)].standing() == Standing::UnhealthyDraining
    };
    assert!(end(&targets));
    let mut gone = held.gone.clone();
    timeout(Duration::from_secs(61), gone.wait_for(|gone| *gone)).await.unwrap().unwrap();
    assert!(!end(&targets));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_no_longer_used_is_forgotten_but_its_connections_stay() {
    let account = account(true, &[("10.0.1.1", 80)]);
    let targets = unchecked(&account);
    let held = picked(&targets, &account);
    let mut unused = account.clone();
    unused.load_balancers.get_mut("lb").unwrap().listeners.clear();
    update(&targets, &unused);
    assert_eq!(targets.health(), BTreeMap::new());
    let mut gone = held.gone.clone();
    assert!(timeout(Duration::from_secs(3600), gone.wait_for(|gone| *gone)).await.is_err());
    update(&targets, &account);
    assert_eq!(states(&targets), ["initial"]);
    let mut deleted = account.clone();
    deleted.target_groups.clear();
    update(&targets, &deleted);
    assert_eq!(states(&targets), ["draining"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_used_is_told_and_not_checked() {
    let mut account = account(false, &[("10.0.1.1", 80)]);
    let group = account.target_groups.get_mut("tg").unwrap();
    group.target_type = TargetType::Instance;
    group.targets = BTreeSet::from([target("i-1", 80)]);
    let instance = Instance { address: "10.0.1.1".parse().unwrap(), zone: "a".to_owned(), running: true };
    account.instances.insert("i-1".to_owned(), instance);
    let targets = unchecked(&account);
    check(&targets, "i-1", "p");
    assert_eq!(states(&targets), ["healthy"]);
    let mut stopped = account.clone();
    stopped.instances.get_mut("i-1").unwrap().running = false;
    let mut changed = targets.changed();
    update(&targets, &stopped);
    assert!(changed.has_changed().unwrap());
    assert_eq!(states(&targets), ["unused"]);
    assert_eq!(pick(&targets, &stopped), Err(NoTarget::NoneUsed));
    changed.mark_unchanged();
    update(&targets, &stopped);
    assert!(!changed.has_changed().unwrap(), "nothing changed");
    update(&targets, &account);
    assert_eq!(states(&targets), ["initial"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_target_starts_slowly_beside_others() {
    let of = |targets: &[(&str, u16)]| {
        let mut account = account(false, targets);
        let group = account.target_groups.get_mut("tg").unwrap();
        group.attributes.insert("slow_start.duration_seconds".to_owned(), "100".to_owned());
        account
    };
    let (one, two) = (of(&[("10.0.1.1", 80)]), of(&[("10.0.1.1", 80), ("10.0.1.2", 80)]));
    let targets = unchecked(&one);
    let share = |targets: &Targets| (0..200).filter(|_| pick(targets, &two).unwrap() == "10.0.1.2").count();
    check(&targets, "10.0.1.1", "p");
    update(&targets, &two);
    check(&targets, "10.0.1.2", "p");
    assert_eq!(share(&targets), 0);
    time::advance(Duration::from_secs(25)).await;
    assert_eq!(share(&targets), 40, "a fifth: a quarter of the other's share");
    time::advance(Duration::from_secs(75)).await;
    assert_eq!(share(&targets), 100);
    check(&targets, "10.0.1.2", "xxpp");
    assert_eq!(share(&targets), 0, "anew after it was unhealthy");
}

#[tokio::test(start_paused = true)]
async fn the_first_targets_do_not_start_slowly() {
    let mut account = account(false, &[("10.0.1.1", 80), ("10.0.1.2", 80)]);
    let group = account.target_groups.get_mut("tg").unwrap();
    group.attributes.insert("slow_start.duration_seconds".to_owned(), "100".to_owned());
    let targets = unchecked(&account);
    check(&targets, "10.0.1.2", "p");
    assert_eq!([pick(&targets, &account).unwrap(), pick(&targets, &account).unwrap()], ["10.0.1.2", "10.0.1.2"]);
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_counted() {
    let mut account = account(false, &[("10.0.1.1", 80), ("10.0.1.2", 80)]);
    let group = account.target_groups.get_mut("tg").unwrap();
    group.attributes.insert("load_balancing.algorithm.type".to_owned(), "least_outstanding_requests".to_owned());
    let targets = unchecked(&account);
    let first = picked(&targets, &account);
    let second = picked(&targets, &account);
    assert_ne!(first.target, second.target);
    drop(first);
    let third = picked(&targets, &account);
    assert_ne!(third.target, second.target);
    drop(second);
    assert_ne!(picked(&targets, &account).target, third.target);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_in_dns_while_each_group_has_healthy_targets_for_it() {
    let mut account = account(true, &[("10.0.1.1", 80), ("10.0.2.1", 80)]);
    let targets = unchecked(&account);
    assert!(!targets.in_dns(&account));
    check(&targets, "10.0.2.1", "p");
    assert!(!targets.in_dns(&account), "it is another zone's");
    check(&targets, "10.0.1.1", "p");
    assert!(targets.in_dns(&account));
    check(&targets, "10.0.1.1", "xx");
    assert!(!targets.in_dns(&account));
    let group = account.target_groups.get_mut("tg").unwrap();
    group.attributes.insert("load_balancing.cross_zone.enabled".to_owned(), "true".to_owned());
    update(&targets, &account);
    assert!(targets.in_dns(&account));
    let key = "target_group_health.dns_failover.minimum_healthy_targets.percentage";
    account.target_groups.get_mut("tg").unwrap().attributes.insert(key.to_owned(), "51".to_owned());
    update(&targets, &account);
    assert!(!targets.in_dns(&account));
}

#[tokio::test]
async fn checks_over_sockets_find_a_target_that_comes_and_goes() {
    let listener = TcpListener::bind("127.10.1.31:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let account = account(true, &[("10.0.1.31", port)]);
    let targets = Targets::new(OPTIONS, "a".to_owned());
    targets.update(&account, "lb");
    assert_eq!(
        targets.health()["tg"][&target("10.0.1.31", port)].reason.as_deref(),
        Some("Elb.RegistrationInProgress")
    );
    wait_for(&targets, "healthy").await;
    drop(listener);
    wait_for(&targets, "unhealthy").await;
    let listener = TcpListener::bind(("127.10.1.31", port)).await.unwrap();
    wait_for(&targets, "healthy").await;
    let weak = Arc::downgrade(&targets);
    drop(targets);
    // A check that is under way holds the targets for a moment.
    timeout(Duration::from_secs(20), async {
        while weak.upgrade().is_some() {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    drop(listener);
}

#[tokio::test]
async fn another_health_check_is_used_at_once() {
    let listener = TcpListener::bind("127.10.1.32:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut account = account(true, &[("10.0.1.32", port)]);
    let targets = Targets::new(OPTIONS, "a".to_owned());
    targets.update(&account, "lb");
    wait_for(&targets, "healthy").await;
    // A port where nobody listens: this one is bound, and does not listen.
    let deaf = tokio::net::TcpSocket::new_v4().unwrap();
    deaf.bind("127.10.1.32:0".parse().unwrap()).unwrap();
    account.target_groups.get_mut("tg").unwrap().health_check.port = Some(deaf.local_addr().unwrap().port());
    targets.update(&account, "lb");
    assert_eq!(states(&targets), ["healthy"], "until checks have failed");
    wait_for(&targets, "unhealthy").await;
    let again: BTreeSet<String> = states(&targets).into_iter().collect();
    assert_eq!(again, BTreeSet::from(["unhealthy".to_owned()]));
}
