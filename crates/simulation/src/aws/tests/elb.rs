use std::collections::{BTreeMap, BTreeSet};

use super::*;
use albatross_core::{
    model::{AddOn, CapacityUnits, SourceNatPrefix},
    plan::Reads,
};

#[tokio::test(start_paused = true)]
async fn an_application_load_balancer_is_read_as_it_was_made() {
    let world = world();
    let front = world.security_group("front").await;
    let groups = [front.clone()];
    let mut balancer =
        world.try_balancer(LoadBalancerKind::Application, "web", &["a", "b", "c"], &groups).await.unwrap();
    let api = world.target_group("api").await;
    let secure = NewListener {
        protocol: Some(ListenerProtocol::Https),
        ssl_policy: Some("ELBSecurityPolicy-TLS13-1-2-2021-06".to_owned()),
        default_certificate: Some(certificate("one")),
        alpn_policy: None,
        default_action: Some(respond("404")),
        ..NewListener::default()
    };
    let mut listener = world.listener(&balancer.arn, 443, &secure).await;
    world.aws.add_listener_certificate(&listener.arn, &certificate("two")).await.unwrap();
    listener.certificates = BTreeSet::from([certificate("two")]);
    let conditions = [
        Condition::HostHeader { values: vec!["*.example".to_owned()], regex_values: Vec::new() },
        Condition::HttpHeader { name: "X-A".to_owned(), values: vec!["<&>".to_owned()], regex_values: Vec::new() },
        Condition::HttpRequestMethod { values: vec!["GET".to_owned()] },
        Condition::QueryString {
            values: vec![albatross_core::model::QueryStringValue {
                key: Some("k".to_owned()),
                value: "v w".to_owned(),
            }],
        },
        Condition::SourceIp { values: vec!["10.0.0.0/8".to_owned()] },
    ];
    let tags = tags_of("443:1");
    let rule = world
        .aws
        .create_rule(
            &listener.arn,
            NewRule {
                priority: 1,
                conditions: &conditions,
                before: None,
                action: &forward(&[&api.arn]),
                transforms: &[],
            },
            &tags,
        )
        .await
        .unwrap();
    listener.rules = vec![rule.clone()];
    let plain = http(Action::Redirect {
        host: None,
        path: None,
        port: Some("443".to_owned()),
        protocol: Some("HTTPS".to_owned()),
        query: None,
        status_code: "HTTP_301".to_owned(),
    });
    let redirect = world.listener(&balancer.arn, 80, &plain).await;
    // AWS fills in the parts that the request omits.
    let filled = |part: &str| Some(part.to_owned());
    let expected = Action::Redirect {
        host: filled("#{host}"),
        path: filled("/#{path}"),
        port: filled("443"),
        protocol: filled("HTTPS"),
        query: filled("#{query}"),
        status_code: "HTTP_301".to_owned(),
    };
    assert_eq!(redirect.default_actions, [expected]);
    assert_eq!(rule.conditions, conditions);
    assert_eq!(balancer.security_groups, BTreeSet::from([front.clone()]));

    balancer.listeners = Some(BTreeMap::from([(443, listener), (80, redirect)]));
    let observed = world.observed().await;
    assert_eq!(observed.load_balancers, [balancer.clone()]);
    assert_eq!(observed.target_groups, [api]);
    assert_eq!(observed.security_groups.iter().map(|group| &group.id).collect::<Vec<_>>(), [&front]);

    // The load balancer becomes active after a while.
    tokio::time::advance(Duration::from_secs(61)).await;
    let active = ObservedLoadBalancer { state: albatross_core::model::LoadBalancerState::Active, ..balancer };
    assert_eq!(world.observed().await.load_balancers, [active]);
    assert!(world.simulation.state().is_sound());
}

#[tokio::test(start_paused = true)]
async fn the_state_is_told_by_name() {
    let world = world();
    let front = world.security_group("front").await;
    let balancer = world
        .try_balancer(LoadBalancerKind::Application, "web", &["a", "b"], std::slice::from_ref(&front))
        .await
        .unwrap();
    let api = world.target_group("api").await;
    let listener = world.listener(&balancer.arn, 80, &http(forward(&[&api.arn]))).await;
    world.rule(&listener.arn, 7).await.unwrap();
    let off = Tags::from([
        ("idle_timeout.timeout_seconds".to_owned(), "61".to_owned()),
        ("routing.http2.enabled".to_owned(), "true".to_owned()),
    ]);
    world.aws.modify_load_balancer_attributes(&balancer.arn, &off).await.unwrap();
    let target = albatross_core::model::Target { id: "10.0.3.4".to_owned(), port: 8080 };
    world.aws.register_targets(&api.arn, &[target.into()]).await.unwrap();
    let mut state = world.simulation.state();
    state.security_groups.retain(|name, _| name == "front");
    insta::assert_snapshot!(serde_json::to_string_pretty(&state).unwrap(), @r#"
    {
      "load_balancers": {
        "web": {
          "kind": "application",
          "scheme": "internal",
          "ip_address_type": "ipv4",
          "private_link_rules": true,
          "capacity": 0,
          "subnets": {
            "subnet-private-a": {},
            "subnet-private-b": {}
          },
          "security_groups": [
            "front"
          ],
          "attributes": {
            "idle_timeout.timeout_seconds": "61"
          },
          "tags": {
            "elbv2.k8s.aws/cluster": "demo",
            "ingress.k8s.aws/resource": "LoadBalancer",
            "ingress.k8s.aws/stack": "shop/web"
          },
          "listeners": {
            "80": {
              "protocol": "HTTP",
              "default_action": {
                "Forward": {
                  "target_groups": [
                    {
                      "group": "api",
                      "weight": 1
                    }
                  ],
                  "stickiness": {
                    "enabled": false,
                    "duration_seconds": null
                  }
                }
              },
              "default_certificate": null,
              "certificates": [],
              "ssl_policy": null,
              "alpn_policy": null,
              "attributes": {},
              "tags": {
                "elbv2.k8s.aws/cluster": "demo",
                "ingress.k8s.aws/resource": "80",
                "ingress.k8s.aws/stack": "shop/web"
              },
              "rules": [
                {
                  "conditions": [
                    {
                      "PathPattern": {
                        "values": [
                          "/7"
                        ],
                        "regex_values": []
                      }
                    }
                  ],
                  "action": {
                    "FixedResponse": {
                      "content_type": "text/plain",
                      "message_body": null,
                      "status_code": "200"
                    }
                  },
                  "tags": {
                    "elbv2.k8s.aws/cluster": "demo",
                    "ingress.k8s.aws/resource": "80:…",
                    "ingress.k8s.aws/stack": "shop/web"
                  }
                }
              ]
            }
          }
        }
      },
      "target_groups": {
        "api": {
          "target_type": "ip",
          "ip_address_type": "ipv4",
          "protocol": "HTTP",
          "protocol_version": "HTTP1",
          "port": 80,
          "health_check": "HTTP traffic-port/healthz HttpCode 200, every 15 s within 5 s, up after 2, down after 2",
          "attributes": {},
          "tags": {
            "elbv2.k8s.aws/cluster": "demo",
            "ingress.k8s.aws/resource": "shop/web-api:80",
            "ingress.k8s.aws/stack": "shop/web"
          },
          "targets": [
            "10.0.3.4:8080"
          ],
          "used_by": [
            "web"
          ]
        }
      },
      "security_groups": {
        "front": {
          "description": "a test",
          "ingress": [],
          "tags": {
            "elbv2.k8s.aws/cluster": "demo",
            "ingress.k8s.aws/resource": "ManagedLBSecurityGroup",
            "ingress.k8s.aws/stack": "shop/web"
          }
        }
      },
      "not_simulated": []
    }
    "#);
}

#[tokio::test(start_paused = true)]
async fn names_and_ports_that_are_taken_answer_with_what_is_there_or_refuse() {
    let world = world();
    let balancer = world.balancer("web").await;
    assert_eq!(world.balancer("web").await, balancer);
    let other = world.try_balancer(LoadBalancerKind::Application, "web", &["a", "c"], &[]).await;
    assert_eq!(code(other), "DuplicateLoadBalancerName");

    let group = world.target_group("api").await;
    assert_eq!(world.target_group("api").await, group);
    let name = TargetGroupName::new("api").unwrap();
    let other = world.aws.create_target_group(&target_group(TargetType::Instance), &name, &vpc()).await;
    assert_eq!(code(other), "DuplicateTargetGroupName");

    let listener = world.listener(&balancer.arn, 80, &http(respond("404"))).await;
    assert_eq!(world.listener(&balancer.arn, 80, &http(respond("404"))).await, listener);
    let other = world.aws.create_listener(&balancer.arn, 80, &http(respond("503")), &Tags::new()).await;
    assert_eq!(code(other), "DuplicateListener");
    assert_eq!(world.simulation.state().load_balancers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn listeners_are_modified_and_deleted() {
    let world = world();
    let balancer = world.balancer("web").await;
    let listener = world.listener(&balancer.arn, 80, &http(respond("404"))).await;
    let https = NewListener {
        protocol: Some(ListenerProtocol::Https),
        default_certificate: Some(certificate("one")),
        ..NewListener::default()
    };
    let modified = world.aws.modify_listener(&listener.arn, &https).await.unwrap();
    assert_eq!(modified.protocol, Some(ListenerProtocol::Https));
    assert_eq!(modified.default_certificate, Some(certificate("one")));
    assert_eq!(modified.default_actions, [respond("404")]);
    assert!(modified.ssl_policy.is_some());
    world.aws.add_listener_certificate(&listener.arn, &certificate("two")).await.unwrap();
    world.aws.add_listener_certificate(&listener.arn, &certificate("three")).await.unwrap();
    world.aws.remove_listener_certificate(&listener.arn, &certificate("two")).await.unwrap();
    let missing = world.aws.add_listener_certificate(&listener.arn, &certificate("missing")).await;
    assert_eq!(code(missing), "CertificateNotFound");
    let observed =
        world.observed().await.load_balancers.remove(0).listeners.get_or_insert_default().remove(&80).unwrap();
    assert_eq!(observed.certificates, BTreeSet::from([certificate("three")]));

    let plain = world.aws.modify_listener(&listener.arn, &http(respond("200"))).await.unwrap();
    assert_eq!((plain.default_certificate, plain.ssl_policy), (None, None));
    let naked = NewListener { protocol: Some(ListenerProtocol::Https), ..NewListener::default() };
    assert_eq!(code(world.aws.modify_listener(&listener.arn, &naked).await), "ValidationError");
    let tcp = NewListener { protocol: Some(ListenerProtocol::Tcp), ..NewListener::default() };
    assert_eq!(code(world.aws.modify_listener(&listener.arn, &tcp).await), "ValidationError");

    world.aws.delete_listener(&listener.arn).await.unwrap();
    assert_eq!(code(world.aws.delete_listener(&listener.arn).await), "ListenerNotFound");
    assert_eq!(code(world.aws.modify_listener(&listener.arn, &https).await), "ListenerNotFound");
    assert_eq!(code(world.rule(&listener.arn, 1).await), "ListenerNotFound");
    let gone = LoadBalancerArn::new(balancer.arn.as_str().replace("/web/", "/gone/"));
    let orphan = world.aws.create_listener(&gone, 80, &http(respond("404")), &Tags::new()).await;
    assert_eq!(code(orphan), "LoadBalancerNotFound");
}

#[tokio::test(start_paused = true)]
async fn priorities_of_rules_are_taken_swapped_and_freed() {
    let world = world();
    let balancer = world.balancer("web").await;
    let listener = world.listener(&balancer.arn, 80, &http(respond("404"))).await;
    let one = world.rule(&listener.arn, 1).await.unwrap();
    let two = world.rule(&listener.arn, 2).await.unwrap();
    let three = world.rule(&listener.arn, 3).await.unwrap();
    assert_eq!(code(world.rule(&listener.arn, 2).await), "PriorityInUse");
    let set = async |pairs: &[(&ObservedRule, u32)]| {
        let pairs: Vec<_> = pairs.iter().map(|(rule, priority)| (rule.arn.clone(), *priority)).collect();
        world.aws.set_rule_priorities(&pairs).await
    };
    let order = async || -> Vec<_> {
        let listener =
            world.observed().await.load_balancers.remove(0).listeners.get_or_insert_default().remove(&80).unwrap();
        listener.rules.into_iter().map(|rule| (rule.priority, rule.arn)).collect()
    };
    set(&[(&one, 2), (&two, 1)]).await.unwrap();
    assert_eq!(code(set(&[(&one, 5), (&two, 3)]).await), "PriorityInUse");
    assert_eq!(code(set(&[(&one, 5), (&two, 5)]).await), "PriorityInUse");
    assert_eq!(order().await, [(1, two.arn.clone()), (2, one.arn.clone()), (3, three.arn.clone())]);
    let modified = world.aws.modify_rule(&three.arn, None, &respond("503"), &[], false).await.unwrap();
    assert_eq!(modified.actions, [respond("503")]);
    assert_eq!(modified.conditions, three.conditions);
    world.aws.delete_rule(&two.arn).await.unwrap();
    assert_eq!(code(world.aws.delete_rule(&two.arn).await), "RuleNotFound");
    assert_eq!(code(world.aws.modify_rule(&two.arn, None, &respond("503"), &[], false).await), "RuleNotFound");
    assert_eq!(code(set(&[(&two, 9)]).await), "RuleNotFound");
    assert_eq!(order().await, [(2, one.arn), (3, three.arn)]);

    world.simulation.set_limits(Limits { rules: 3, ..Limits::default() });
    world.rule(&listener.arn, 10).await.unwrap();
    assert_eq!(code(world.rule(&listener.arn, 11).await), "TooManyRules");
    let values: Vec<_> = (0..6).map(|n| format!("/{n}")).collect();
    let many = [Condition::PathPattern { values, regex_values: Vec::new() }];
    let many = world
        .aws
        .create_rule(
            &listener.arn,
            NewRule { priority: 20, conditions: &many, before: None, action: &respond("200"), transforms: &[] },
            &Tags::new(),
        )
        .await;
    assert_eq!(code(many), "ValidationError");
}

#[tokio::test(start_paused = true)]
async fn deleting_a_load_balancer_takes_its_listeners_along_unless_it_is_protected() {
    let world = world();
    let balancer = world.balancer("web").await;
    let listener = world.listener(&balancer.arn, 80, &http(respond("404"))).await;
    let rule = world.rule(&listener.arn, 1).await.unwrap();
    let protection = |word: &str| Tags::from([("deletion_protection.enabled".to_owned(), word.to_owned())]);
    world.aws.modify_load_balancer_attributes(&balancer.arn, &protection("true")).await.unwrap();
    let refused = world.aws.delete_load_balancer(&balancer.arn).await.unwrap_err();
    assert_eq!(refused.code(), Some("OperationNotPermitted"));
    assert!(refused.says("deletion protection"));
    world.aws.modify_load_balancer_attributes(&balancer.arn, &protection("false")).await.unwrap();
    world.aws.delete_load_balancer(&balancer.arn).await.unwrap();
    world.aws.delete_load_balancer(&balancer.arn).await.unwrap();
    assert_eq!(code(world.aws.modify_rule(&rule.arn, None, &respond("200"), &[], false).await), "RuleNotFound");
    assert!(world.observed().await.is_empty());
    assert_eq!(world.simulation.state().load_balancers, BTreeMap::new());
}

#[tokio::test(start_paused = true)]
async fn network_load_balancers_have_no_rules_and_keep_without_security_groups() {
    let world = world();
    let network = LoadBalancerKind::Network;
    let bare = world.try_balancer(network, "bare", &["a"], &[]).await.unwrap();
    let front = world.security_group("front").await;
    let refused = world.aws.set_security_groups(&bare.arn, std::slice::from_ref(&front), None).await;
    assert_eq!(code(refused), "InvalidConfigurationRequest");
    let fenced = world.try_balancer(network, "fenced", &["a"], &[front]).await.unwrap();
    let back = world.security_group("back").await;
    world.aws.set_security_groups(&fenced.arn, &[back], None).await.unwrap();
    let subnets = ["a", "b"].map(|zone| SubnetMapping::plain(SubnetId::new(format!("subnet-private-{zone}"))));
    world.aws.set_subnets(&fenced.arn, &subnets, None, Some(false)).await.unwrap();

    let tcp = network_target_group(TargetGroupProtocol::Tcp);
    let name = TargetGroupName::new("tcp").unwrap();
    let group = world.aws.create_target_group(&tcp, &name, &vpc()).await.unwrap();
    assert_eq!(group.health_check.as_ref(), Some(&tcp.health_check));
    let new = |protocol, action| NewListener { default_action: Some(action), ..protocol };
    let plain = || NewListener { protocol: Some(ListenerProtocol::Tcp), ..NewListener::default() };
    let tls = NewListener {
        protocol: Some(ListenerProtocol::Tls),
        default_certificate: Some(certificate("one")),
        alpn_policy: Some("HTTP2Preferred".to_owned()),
        ..NewListener::default()
    };
    let listener = world.listener(&fenced.arn, 53, &new(plain(), forward(&[&group.arn]))).await;
    let secure = world.listener(&fenced.arn, 443, &new(tls, forward(&[&group.arn]))).await;
    assert_eq!(secure.alpn_policy.as_deref(), Some("HTTP2Preferred"));
    assert_eq!(code(world.rule(&listener.arn, 1).await), "OperationNotPermitted");
    let timeout = Tags::from([("tcp.idle_timeout.seconds".to_owned(), "60".to_owned())]);
    assert_eq!(world.aws.modify_listener_attributes(&listener.arn, &timeout).await.unwrap(), timeout);
    let refused = world.aws.modify_listener_attributes(&secure.arn, &timeout).await;
    assert_eq!(code(refused), "InvalidConfigurationRequest");
    let answer = world.aws.create_listener(&fenced.arn, 80, &new(plain(), respond("404")), &Tags::new()).await;
    assert_eq!(code(answer), "InvalidLoadBalancerAction");
    let web = world.target_group("web").await;
    let answer = world.aws.create_listener(&fenced.arn, 80, &new(plain(), forward(&[&web.arn])), &Tags::new()).await;
    assert_eq!(code(answer), "IncompatibleProtocols");

    let state = world.simulation.state();
    assert_eq!(state.load_balancers["fenced"].security_groups, BTreeSet::from(["back".to_owned()]));
    assert_eq!(state.load_balancers["fenced"].subnets.len(), 2);
    assert_eq!(state.load_balancers["bare"].security_groups, BTreeSet::new());
    let observed = world.observed().await;
    let fenced = observed.load_balancers.iter().find(|balancer| balancer.name == "fenced").unwrap();
    assert_eq!(*fenced.listener(443).unwrap(), ObservedListener { tags: tags_of("443"), ..secure });
}

#[tokio::test(start_paused = true)]
async fn what_a_load_balancer_names_must_be_there() {
    let world = world();
    let kind = LoadBalancerKind::Application;
    assert_eq!(code(world.try_balancer(kind, "web", &["a"], &[]).await), "ValidationError");
    assert_eq!(code(world.try_balancer(kind, "web", &["a", "z"], &[]).await), "SubnetNotFound");
    let groups = [SecurityGroupId::new("sg-gone")];
    assert_eq!(code(world.try_balancer(kind, "web", &["a", "b"], &groups).await), "InvalidSecurityGroup");
    let balancer = world.balancer("web").await;
    let gone = TargetGroupArn::new("arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/gone/1");
    let listener = world.aws.create_listener(&balancer.arn, 80, &http(forward(&[&gone])), &Tags::new()).await;
    assert_eq!(code(listener), "TargetGroupNotFound");
    world.simulation.set_limits(Limits { load_balancers: 1, ..Limits::default() });
    assert_eq!(code(world.try_balancer(kind, "more", &["a", "b"], &[]).await), "TooManyLoadBalancers");
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_and_tags_in_twenties() {
    let world = world();
    let balancer = world.balancer("web").await;
    let listener = world.listener(&balancer.arn, 80, &http(respond("404"))).await;
    for number in 0..45 {
        world.target_group(&format!("group-{number}")).await;
        world.rule(&listener.arn, number + 1).await.unwrap();
    }
    world.simulation.calls();
    let observed = world.observed().await;
    assert_eq!(observed.target_groups.len(), 45);
    let priorities: Vec<_> =
        observed.load_balancers[0].listener(80).unwrap().rules.iter().map(|rule| rule.priority).collect();
    assert_eq!(priorities, (1..=45).collect::<Vec<_>>());
    assert_eq!(observed.load_balancers[0].listener(80).unwrap().rules[44].tags, tags_of("80:45"));
    let mut counts = BTreeMap::new();
    for operation in world.operations() {
        *counts.entry(operation).or_insert(0) += 1;
    }
    let expected = [
        ("DescribeListeners", 1),
        ("DescribeLoadBalancers", 1),
        ("DescribeRules", 3),
        ("DescribeSecurityGroups", 1),
        ("DescribeTags", 6),
        ("DescribeTargetGroups", 3),
    ];
    assert_eq!(counts, expected.map(|(operation, count)| (operation.to_owned(), count)).into());

    world.simulation.set_page_size(7);
    assert_eq!(world.observed().await, observed);
    assert_eq!(world.operations().iter().filter(|operation| *operation == "DescribeTargetGroups").count(), 7);
    let arns: Vec<_> = observed.target_groups.iter().take(21).map(|group| group.arn.as_str().to_owned()).collect();
    let call = albatross_aws::testing::elb(&world.aws).describe_tags().set_resource_arns(Some(arns));
    assert_eq!(code(world.aws.read("DescribeTags", || call.clone().send()).await), "ValidationError");
}

#[tokio::test(start_paused = true)]
async fn tags_are_added_changed_and_removed() {
    let world = world();
    let group = world.target_group("api").await;
    let more = Tags::from([("team".to_owned(), "a".to_owned()), (tags::CLUSTER.to_owned(), "other".to_owned())]);
    world.aws.tag(group.arn.as_str(), &more).await.unwrap();
    assert_eq!(world.simulation.state().target_groups["api"].tags["team"], "a");
    assert_eq!(world.simulation.state().target_groups["api"].tags[tags::CLUSTER], "other");
    let keys = albatross_aws::testing::elb(&world.aws).remove_tags().resource_arns(group.arn.as_str()).tag_keys("team");
    keys.send().await.unwrap();
    assert!(!world.simulation.state().target_groups["api"].tags.contains_key("team"));
    let many: Tags = (0..51).map(|number| (format!("key-{number}"), String::new())).collect();
    assert_eq!(code(world.aws.tag(group.arn.as_str(), &many).await), "TooManyTags");
    world.aws.delete_target_group(&group.arn).await.unwrap();
    assert_eq!(code(world.aws.tag(group.arn.as_str(), &more).await), "TargetGroupNotFound");
}

#[tokio::test(start_paused = true)]
async fn attributes_are_those_of_aws_and_those_that_were_set() {
    let world = world();
    let balancer = world.balancer("web").await;
    let listener = world.listener(&balancer.arn, 80, &http(respond("404"))).await;
    let group = world.target_group("api").await;
    let pair = |key: &str, value: &str| Tags::from([(key.to_owned(), value.to_owned())]);
    let (idle, slow) = (pair("idle_timeout.timeout_seconds", "61"), pair("slow_start.duration_seconds", "30"));
    let server = pair("routing.http.response.server.enabled", "false");
    world.aws.modify_load_balancer_attributes(&balancer.arn, &idle).await.unwrap();
    world.aws.modify_target_group_attributes(&group.arn, &slow).await.unwrap();
    world.aws.modify_listener_attributes(&listener.arn, &server).await.unwrap();
    let odd = world.aws.modify_load_balancer_attributes(&balancer.arn, &pair("odd", "1")).await;
    assert_eq!(code(odd), "InvalidConfigurationRequest");

    let inventory = Inventory::new(world.aws.reader().clone(), "demo", vpc());
    inventory.observe_whole(&stack()).await.unwrap();
    let reads = albatross_core::plan::Reads {
        load_balancer: Some(balancer.arn.clone()),
        listeners: vec![listener.arn.clone()],
        target_groups: vec![group.arn.clone()],
        ..albatross_core::plan::Reads::default()
    };
    inventory.read(&stack(), &reads).await.unwrap();
    let observed = inventory.observe_whole(&stack()).await.unwrap();
    let read = observed.load_balancers[0].attributes.as_ref().unwrap();
    // The planner's defaults equal those of AWS.
    let mut expected = albatross_core::plan::defaults::load_balancer(LoadBalancerKind::Application);
    expected.extend(idle.clone());
    assert_eq!(expected.iter().filter(|(key, value)| read.get(*key) != Some(value)).collect::<Vec<_>>(), []);
    let read = observed.target_groups[0].attributes.as_ref().unwrap();
    let mut expected = albatross_core::plan::defaults::target_group(TargetGroupProtocol::Http);
    expected.extend(slow.clone());
    assert_eq!(expected.iter().filter(|(key, value)| read.get(*key) != Some(value)).collect::<Vec<_>>(), []);
    assert_eq!(observed.load_balancers[0].listener(80).unwrap().attributes.as_ref(), Some(&server));

    let state = world.simulation.state();
    assert_eq!(state.load_balancers["web"].attributes, idle);
    assert_eq!(state.target_groups["api"].attributes, slow);
    assert_eq!(state.load_balancers["web"].listeners[&80].attributes, server);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_simulated_is_told() {
    let world = world();
    let elb = albatross_aws::testing::elb(&world.aws);
    assert!(elb.describe_account_limits().send().await.is_err());
    assert!(!world.simulation.state().is_sound());
    let resource = "arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/gone/1";
    let group = world.target_group("api").await;
    let target = aws_sdk_elasticloadbalancingv2::types::TargetDescription::builder().id("10.0.0.1").build();
    let one = elb.describe_target_health().target_group_arn(group.arn.as_str()).targets(target).send().await;
    assert!(one.is_err());
    assert!(elb.describe_target_health().target_group_arn(resource).send().await.is_err());
    insta::assert_snapshot!(world.simulation.state().not_simulated.join("\n"), @"
    DescribeAccountLimits: operation 'DescribeAccountLimits'
    DescribeTargetHealth: parameters Targets.member.1.Id
    ");
    let calls = world.simulation.calls();
    assert!(calls.first().unwrap().outcome.is_not_simulated());
    assert_eq!(calls.last().unwrap().outcome, Outcome::Refused("TargetGroupNotFound".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn capacity_is_reserved_for_a_load_balancer_that_serves() {
    let world = world();
    let balancer = world.balancer("web").await.arn;
    let units = |units| CapacityUnits::new(units).unwrap();
    let refused = world.aws.modify_capacity_reservation(&balancer, units(100)).await;
    assert_eq!(code(refused), "InvalidConfigurationRequest");
    tokio::time::sleep(Duration::from_secs(60)).await;
    for number in [100, 200, 0] {
        world.aws.modify_capacity_reservation(&balancer, units(number)).await.unwrap();
        assert_eq!(world.simulation.state().load_balancers["web"].capacity, number);
        let inventory = Inventory::new(world.aws.reader().clone(), "demo", vpc());
        inventory.observe(&stack()).await.unwrap();
        let reads = Reads { add_ons: [(AddOn::Capacity, balancer.clone())].into(), ..Reads::default() };
        inventory.read(&stack(), &reads).await.unwrap();
        let known = inventory.observe(&stack()).await.unwrap().load_balancers.remove(0).add_ons;
        assert_eq!(known.capacity, Some(units(number)));
    }
    assert_eq!(
        code(world.aws.modify_capacity_reservation(&LoadBalancerArn::new("arn:x"), units(1)).await),
        "ValidationError"
    );
}

#[tokio::test(start_paused = true)]
async fn dualstack_network_load_balancers_have_ipv6_addresses_source_nat_and_targets_of_ipv6() {
    let world = world();
    let network = LoadBalancerKind::Network;
    let front = world.security_group("front").await;
    let balancer = world.try_balancer(network, "web", &["a"], std::slice::from_ref(&front)).await.unwrap();
    assert_eq!(balancer.network.private_link_rules, Some(true));
    world.aws.set_security_groups(&balancer.arn, &[front], Some(false)).await.unwrap();
    let (four, dual) = (Some(IpAddressType::Ipv4), Some(IpAddressType::Dualstack));
    let subnet = SubnetId::new("subnet-private-a");
    let mapping = |ipv6: Option<&str>, prefix: Option<&str>| SubnetMapping {
        ipv6: ipv6.map(str::to_owned),
        source_nat_prefix: prefix.map(|prefix| SourceNatPrefix::new(prefix).unwrap()),
        ..SubnetMapping::plain(subnet.clone())
    };
    let set = async |mapping, kind, nat| world.aws.set_subnets(&balancer.arn, &[mapping], kind, Some(nat)).await;
    for (mapping, kind, nat) in [
        (mapping(Some("2001:db8::9"), None), four, false),
        (mapping(Some("2001:db8:1::9"), None), dual, false),
        (mapping(None, Some("2001:db8::/80")), dual, false),
        (mapping(None, Some("2001:db8:1::/80")), dual, true),
        (mapping(None, None), four, true),
    ] {
        assert_eq!(code(set(mapping, kind, nat).await), "InvalidConfigurationRequest");
    }
    let answered = set(mapping(Some("2001:db8::9"), None), dual, true).await.unwrap();
    assert_eq!(answered, [(subnet.clone(), "2001:db8:0:0:ffff::/80".to_owned())].into());
    let known = async || {
        let inventory = Inventory::new(world.aws.reader().clone(), "demo", vpc());
        inventory.observe(&stack()).await.unwrap().load_balancers.remove(0)
    };
    let after = known().await;
    assert_eq!((after.ip_address_type, after.network.ipv6_source_nat), (IpAddressType::Dualstack, true));
    assert_eq!((after.network.source_nat_prefixes, after.network.private_link_rules), (answered, Some(false)));
    // It cannot go back while a listener of UDP is there, or one that leads to targets of IPv6.
    let udp = TargetGroup { ip_address_type: IpAddressType::Ipv6, ..network_target_group(TargetGroupProtocol::Udp) };
    let made = world.aws.create_target_group(&udp, &TargetGroupName::new("udp").unwrap(), &vpc()).await.unwrap();
    assert_eq!(made.ip_address_type, IpAddressType::Ipv6);
    let listener = NewListener {
        protocol: Some(ListenerProtocol::Udp),
        default_action: Some(forward(&[&made.arn])),
        ..NewListener::default()
    };
    world.aws.create_listener(&balancer.arn, 53, &listener, &Tags::new()).await.unwrap();
    assert_eq!(code(set(mapping(None, None), None, false).await), "InvalidConfigurationRequest");
    assert_eq!(code(set(mapping(None, None), four, false).await), "InvalidConfigurationRequest");
    let four = world.aws.set_ip_address_type(&balancer.arn, IpAddressType::Ipv4).await;
    assert_eq!(code(four), "InvalidConfigurationRequest");
}
