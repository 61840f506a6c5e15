use std::collections::BTreeSet;

use super::*;
use crate::random::Random;
use albatross_aws::AwsErrorKind;

const ALWAYS: f64 = 1.0;

#[tokio::test(start_paused = true)]
async fn each_fault_is_seen_as_what_it_is() {
    for (faults, took_effect, outcome) in [
        (Faults { fails_before: ALWAYS, ..Faults::default() }, false, Outcome::ServerError),
        (Faults { fails_after: ALWAYS, ..Faults::default() }, true, Outcome::ServerError),
        (Faults { lost_before: ALWAYS, ..Faults::default() }, false, Outcome::Lost),
        (Faults { lost_after: ALWAYS, ..Faults::default() }, true, Outcome::Lost),
    ] {
        let world = world();
        world.simulation.set_faults(faults.clone());
        let name = TargetGroupName::new("api").unwrap();
        let result = world.aws.create_target_group(&target_group(TargetType::Ip), &name, &vpc()).await;
        let error = result.unwrap_err();
        assert!(matches!(error.kind, AwsErrorKind::Unclear { .. }), "{faults:?}: {error}");
        assert_eq!(world.simulation.state().target_groups.len(), usize::from(took_effect), "{faults:?}");
        let mut calls = world.simulation.calls();
        assert_eq!(calls.len(), 1);
        let call = calls.remove(0);
        assert_eq!((call.took_effect, call.is_write, call.outcome), (took_effect, true, outcome), "{faults:?}");
        assert_eq!(call.params["Name"], "api");
        let ec2 = world.aws.create_security_group("front", "a test", &vpc(), &Tags::new()).await.unwrap_err();
        assert!(matches!(ec2.kind, AwsErrorKind::Unclear { .. }), "{faults:?}: {ec2}");
        assert_eq!(world.simulation.state().security_groups.len(), 2 + usize::from(took_effect), "{faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_call_does_nothing() {
    let world = world();
    world.simulation.set_faults(Faults { throttle: ALWAYS, ..Faults::default() });
    let name = TargetGroupName::new("api").unwrap();
    let result = world.aws.create_target_group(&target_group(TargetType::Ip), &name, &vpc()).await;
    assert_eq!(code(result), "Throttling");
    let outcomes: Vec<_> = world.simulation.calls().into_iter().map(|call| call.outcome).collect();
    assert_eq!(outcomes, vec![Outcome::Throttled; 12]);
    assert_eq!(code(world.aws.describe_subnets(&vpc()).await), "RequestLimitExceeded");
    assert_eq!(world.simulation.state().target_groups.len(), 0);
    world.simulation.set_faults(Faults { throttle: 0.3, ..Faults::default() });
    for number in 0..20 {
        world.target_group(&format!("group-{number}")).await;
    }
    let calls = world.simulation.calls();
    assert_eq!(calls.iter().filter(|call| call.took_effect).count(), 20);
    assert!(calls.len() > 21, "{}", calls.len());
}

#[tokio::test(start_paused = true)]
async fn a_crash_leaves_the_call_without_an_answer() {
    for takes_effect in [false, true] {
        let world = world();
        let crashed = world.simulation.crash_at(1, takes_effect);
        let aws = world.aws.clone();
        let caller = tokio::spawn(async move {
            let name = |name: &str| TargetGroupName::new(name).unwrap();
            let settings = target_group(TargetType::Ip);
            aws.create_target_group(&settings, &name("first"), &vpc()).await.unwrap();
            aws.describe_subnets(&vpc()).await.unwrap();
            let second = aws.create_target_group(&settings, &name("second"), &vpc()).await;
            // The SDK's timeout ends the call thirty seconds later.
            assert!(matches!(second.unwrap_err().kind, AwsErrorKind::Unclear { .. }));
            aws.create_target_group(&settings, &name("third"), &vpc()).await.unwrap();
        });
        let begin = Instant::now();
        crashed.await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(1));
        let groups = |world: &World| world.simulation.state().target_groups.into_keys().collect::<Vec<_>>();
        let expected: &[&str] = if takes_effect { &["first", "second"] } else { &["first"] };
        assert_eq!(groups(&world), expected);
        let calls = world.simulation.calls();
        let last = calls.last().unwrap();
        assert_eq!((last.took_effect, &last.outcome), (takes_effect, &Outcome::Lost));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(groups(&world), expected, "nothing happens after a crash");
        caller.await.unwrap();
        assert!(groups(&world).contains(&"third".to_owned()), "once only");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_early_never_arrives() {
    let world = world();
    let settings = target_group(TargetType::Ip);
    let mut arrived = 0;
    for number in 0..40 {
        let name = TargetGroupName::new(format!("group-{number}")).unwrap();
        let vpc = vpc();
        let call = world.aws.create_target_group(&settings, &name, &vpc);
        let _ = tokio::time::timeout(Duration::from_millis(5), call).await;
        let carried_out = world.simulation.calls().len();
        assert!(carried_out <= 1);
        arrived += carried_out;
        assert_eq!(world.simulation.state().target_groups.len(), arrived);
    }
    assert!((1..40).contains(&arrived), "{arrived}");
}

#[tokio::test(start_paused = true)]
async fn what_is_fresh_is_not_there_for_every_call() {
    let world = world();
    let minute = Duration::from_secs(60);
    world.simulation.set_faults(Faults { fresh_for: minute, ..Faults::default() });
    let group = world.target_group("api").await;
    let front = world.security_group("front").await;
    let seen = async || {
        let mut answers = BTreeSet::new();
        for _ in 0..20 {
            answers.insert(
                world
                    .aws
                    .describe_target_health(&group.arn)
                    .await
                    .map_or_else(|error| error.code().unwrap_or("no code").to_owned(), |_| "found".to_owned()),
            );
        }
        answers
    };
    assert_eq!(seen().await, ["TargetGroupNotFound".to_owned(), "found".to_owned()].into());
    // The tags of new resources can still be changed.
    for number in 0..20 {
        let tags = Tags::from([("number".to_owned(), number.to_string())]);
        world.aws.tag(group.arn.as_str(), &tags).await.unwrap();
        world.aws.tag_security_group(&front, &tags).await.unwrap();
    }
    tokio::time::advance(minute).await;
    assert_eq!(seen().await, ["found".to_owned()].into());

    world.simulation.set_faults(Faults { unlisted_for: minute, ..Faults::default() });
    let listed = async || {
        let mut counts = BTreeSet::new();
        for _ in 0..20 {
            counts.insert(world.aws.security_groups_tagged(&vpc(), tags::CLUSTER, &["demo"]).await.unwrap().len());
        }
        counts
    };
    assert_eq!(listed().await, [1].into());
    world.security_group("back").await;
    assert_eq!(listed().await, [1, 2].into());
    tokio::time::advance(minute).await;
    assert_eq!(listed().await, [2].into());
}

#[tokio::test(start_paused = true)]
async fn the_same_calls_meet_the_same_faults_and_the_state_says_nothing_of_seeds() {
    let run = async |seed| {
        let simulation = SimulatedAws::new(seed);
        simulation.set_faults(Faults { fails_after: 0.2, lost_before: 0.2, ..Faults::default() });
        let world = World {
            aws: Arc::new(albatross_aws::testing::writer(albatross_aws::testing::over(simulation.client()))),
            simulation,
        };
        let begin = Instant::now();
        for number in 0..20 {
            let name = TargetGroupName::new(format!("group-{number}")).unwrap();
            let _ = world.aws.create_target_group(&target_group(TargetType::Ip), &name, &vpc()).await;
        }
        let calls = world.simulation.calls().into_iter();
        let calls: Vec<_> = calls.map(|call| (call.at - begin, call.params, call.took_effect, call.outcome)).collect();
        (calls, begin.elapsed(), world)
    };
    let (one, two, other) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(one.0, two.0);
    assert_eq!(one.1, two.1);
    assert_ne!(one.0, other.0);
    for world in [&one.2, &other.2] {
        world.simulation.set_faults(Faults::default());
        for number in 0..20 {
            world.target_group(&format!("group-{number}")).await;
        }
    }
    assert_eq!(one.2.simulation.state(), other.2.simulation.state());
}

#[tokio::test(start_paused = true)]
async fn others_have_their_own() {
    let world = world();
    world.simulation.add_foreign(3, 2);
    world.simulation.add_foreign(1, 1);
    assert!(world.observed().await.is_empty());
    let state = world.simulation.state();
    assert_eq!((state.load_balancers.len(), state.target_groups.len()), (4, 3));
    assert_eq!(state.target_groups["others-0"].used_by, ["others-0".to_owned()].into());
    assert_eq!(state.load_balancers["others-3"].security_groups, ["others".to_owned()].into());
    assert_eq!(world.simulation.tamper(&mut Random::new(1)), None, "nobody touches them");
    assert_eq!(world.simulation.state(), state);
}

#[tokio::test(start_paused = true)]
async fn somebody_changes_one_thing_at_a_time() {
    let mut seen = BTreeSet::new();
    for seed in 0..120 {
        let world = world();
        let front = world.security_group("front").await;
        let balancer = world
            .try_balancer(LoadBalancerKind::Application, "web", &["a", "b"], std::slice::from_ref(&front))
            .await
            .unwrap();
        let api = world.target_group("api").await;
        world.aws.tag(api.arn.as_str(), &Tags::from([("team".to_owned(), "a".to_owned())])).await.unwrap();
        let target = albatross_core::model::Target { id: "10.0.3.4".to_owned(), port: 8080 };
        world.aws.register_targets(&api.arn, &[target.into()]).await.unwrap();
        let new = NewListener {
            protocol: Some(ListenerProtocol::Https),
            default_certificate: Some(certificate("one")),
            default_action: Some(forward(&[&api.arn])),
            ..NewListener::default()
        };
        let listener = world.listener(&balancer.arn, 443, &new).await;
        world.aws.add_listener_certificate(&listener.arn, &certificate("two")).await.unwrap();
        world.rule(&listener.arn, 1).await.unwrap();
        world.rule(&listener.arn, 2).await.unwrap();
        let node = SecurityGroupId::new("sg-node");
        let rule = albatross_core::model::SecurityGroupRule {
            protocol: "tcp".to_owned(),
            from_port: Some(1),
            to_port: Some(2),
            source: albatross_core::model::Source::SecurityGroup(front),
            description: albatross_core::model::names::NODE_RULE_DESCRIPTION.to_owned(),
        };
        world.aws.authorize_ingress(&node, &[rule]).await.unwrap();
        let before = world.simulation.state();
        let reported = world.simulation.tamper(&mut Random::new(seed)).unwrap();
        assert_ne!(world.simulation.state(), before, "{reported}");
        seen.insert(reported);
    }
    insta::assert_snapshot!(seen.into_iter().collect::<Vec<_>>().join("\n"), @"
    deletes listener: web:443
    deletes load balancer: web
    deletes rule: 1 of web:443
    deletes rule: 2 of web:443
    deregisters target: 10.0.3.4:8080 of api
    modifies default action: of web:443
    modifies health check: of api
    modifies rule: 1 of web:443
    modifies rule: 2 of web:443
    registers target: 10.0.250.250:9 of api
    removes certificate: arn:aws:acm:us-west-2:123456789012:certificate/two of web:443
    removes tag: team of api
    revokes ingress: tcp 1-2 from front of node
    sets security groups: of web to the default one
    swaps rules: 1 and 2 of web:443
    ");
}
