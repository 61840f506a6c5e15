use std::collections::BTreeSet;

use tokio::sync::Notify;

use super::*;
use albatross_core::model::{
    Association, Attributes, CapacityUnits, ListenerArn, ListenerProtocol, LoadBalancerKind, LoadBalancerState,
    ObjectName, ObservedListener, ObservedRule, Protection, RuleArn, Scheme, SecurityGroupRule, Source,
};
use albatross_simulation::fake::{Call, Fake, ec2, elb, elb_error};

mod unverified_records;

const CLUSTER: &str = "demo";
const VPC: &str = "vpc-1";
const WEB_ACL: &str = "arn:aws:wafv2:us-west-2:111122223333:regional/webacl/edge/1";

/// AWS as these tests need it: lists of names, each in the group of its name.
#[derive(Default)]
struct World {
    load_balancers: BTreeSet<String>,
    target_groups: BTreeSet<String>,
    security_groups: BTreeSet<String>,
    /// ARNs that are listed, but whose tags are gone.
    vanished: BTreeSet<String>,
    /// The ARNs of load balancers that are protected from deletion.
    protected: BTreeSet<String>,
    /// Another VPC's.
    elsewhere: BTreeSet<String>,
}

type Shared = Arc<Mutex<World>>;

fn balancer_arn(name: &str) -> LoadBalancerArn {
    LoadBalancerArn::new(format!("arn:loadbalancer/app/{name}/1"))
}

fn target_group_arn(name: &str) -> TargetGroupArn {
    TargetGroupArn::new(format!("arn:targetgroup/{name}/1"))
}

fn group(name: &str) -> StackId {
    StackId::Ingress(ObjectName::new("shop", name))
}

fn tags_of_group(name: &str) -> Tags {
    let pairs = [(tags::CLUSTER, CLUSTER.to_owned()), (tags::INGRESS_STACK, format!("shop/{name}"))];
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

/// The tags of the security group in front of its load balancer.
fn managed_tags(name: &str) -> Tags {
    let mut tags = tags_of_group(name);
    tags.insert(tags::INGRESS_RESOURCE.to_owned(), ResourceId::managed_security_group().to_string());
    tags
}

fn joined(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect()
}

fn answer(world: &World, call: &Call) -> (u16, String) {
    let vpc = |name: &str| if world.elsewhere.contains(name) { "vpc-2" } else { VPC };
    let tag_list =
        |tags: Tags| joined(tags.iter().map(|(k, v)| format!("<member><Key>{k}</Key><Value>{v}</Value></member>")));
    match call.action.as_str() {
        "DescribeLoadBalancers" => {
            let asked = call.list("LoadBalancerArns");
            let has = |arn: &str| world.load_balancers.iter().any(|name| balancer_arn(name).as_str() == arn);
            let named = call.list("Names");
            if !asked.iter().all(|arn| has(arn)) || !named.iter().all(|name| world.load_balancers.contains(*name)) {
                return elb_error(400, "LoadBalancerNotFound", "One or more load balancers not found");
            }
            let is_asked = |name: &&String| {
                (asked.is_empty() || asked.contains(&balancer_arn(name).as_str()))
                    && (named.is_empty() || named.contains(&name.as_str()))
            };
            let members = joined(world.load_balancers.iter().filter(is_asked).map(|name| {
                let (arn, vpc) = (balancer_arn(name), vpc(name));
                format!("<member><LoadBalancerArn>{arn}</LoadBalancerArn><LoadBalancerName>{name}</LoadBalancerName><Scheme>internal</Scheme><Type>application</Type><VpcId>{vpc}</VpcId><State><Code>active</Code></State><SecurityGroups><member>sg-{name}</member></SecurityGroups></member>")
            }));
            elb(&call.action, &format!("<LoadBalancers>{members}</LoadBalancers>"))
        }
        "DescribeTargetGroups" => {
            let asked = call.list("TargetGroupArns");
            let has = |arn: &str| world.target_groups.iter().any(|name| target_group_arn(name).as_str() == arn);
            let named = call.list("Names");
            if !asked.iter().all(|arn| has(arn)) || !named.iter().all(|name| world.target_groups.contains(*name)) {
                return elb_error(400, "TargetGroupNotFound", "One or more target groups not found");
            }
            let is_asked = |name: &&String| {
                (asked.is_empty() || asked.contains(&target_group_arn(name).as_str()))
                    && (named.is_empty() || named.contains(&name.as_str()))
            };
            let members = joined(world.target_groups.iter().filter(is_asked).map(|name| {
                let (arn, vpc) = (target_group_arn(name), vpc(name));
                format!("<member><TargetGroupArn>{arn}</TargetGroupArn><TargetGroupName>{name}</TargetGroupName><Protocol>HTTP</Protocol><TargetType>ip</TargetType><VpcId>{vpc}</VpcId></member>")
            }));
            elb(&call.action, &format!("<TargetGroups>{members}</TargetGroups>"))
        }
        "DescribeSecurityGroups" => {
            let items = joined(world.security_groups.iter().map(|name| {
                let tags = managed_tags(name);
                let tags = joined(tags.iter().map(|(k, v)| format!("<item><key>{k}</key><value>{v}</value></item>")));
                format!("<item><groupId>sg-{name}</groupId><groupName>{name}</groupName><tagSet>{tags}</tagSet></item>")
            }));
            ec2(&call.action, &format!("<securityGroupInfo>{items}</securityGroupInfo>"))
        }
        "DescribeTags" => {
            let arns = call.list("ResourceArns");
            assert!((1..=20).contains(&arns.len()), "{} ARNs at once", arns.len());
            if arns.iter().any(|arn| world.vanished.contains(*arn)) {
                return elb_error(400, "TargetGroupNotFound", "One or more target groups not found");
            }
            let members = joined(arns.iter().map(|arn| {
                let name = arn.split('/').rev().nth(1).unwrap();
                let tags = tag_list(tags_of_group(name));
                format!("<member><ResourceArn>{arn}</ResourceArn><Tags>{tags}</Tags></member>")
            }));
            elb(&call.action, &format!("<TagDescriptions>{members}</TagDescriptions>"))
        }
        "DescribeListeners" => {
            let name = call.param("LoadBalancerArn").split('/').nth(2).unwrap();
            let actions = "<DefaultActions><member><Type>fixed-response</Type><FixedResponseConfig><StatusCode>404</StatusCode></FixedResponseConfig></member></DefaultActions>";
            elb(
                &call.action,
                &format!(
                    "<Listeners><member><ListenerArn>arn:listener/app/{name}/1</ListenerArn><Port>80</Port><Protocol>HTTP</Protocol>{actions}</member></Listeners>"
                ),
            )
        }
        "DescribeRules" => elb(
            &call.action,
            "<Rules><member><RuleArn>arn:listener-rule/app/x/r2</RuleArn><Priority>2</Priority><IsDefault>false</IsDefault></member><member><RuleArn>arn:listener-rule/app/x/r1</RuleArn><Priority>1</Priority><IsDefault>false</IsDefault></member><member><RuleArn>arn:d</RuleArn><Priority>default</Priority><IsDefault>true</IsDefault></member></Rules>",
        ),
        "DescribeLoadBalancerAttributes" | "DescribeTargetGroupAttributes" | "DescribeListenerAttributes" => {
            let arn = ["LoadBalancerArn", "TargetGroupArn", "ListenerArn"].map(|name| call.param(name)).concat();
            if world.vanished.contains(&arn) {
                return elb_error(400, "LoadBalancerNotFound", "One or more load balancers not found");
            }
            let protection = match world.protected.contains(&arn) {
                true => "<member><Key>deletion_protection.enabled</Key><Value>true</Value></member>",
                false => "",
            };
            let attribute = format!("<member><Key>of</Key><Value>{arn}</Value></member>{protection}");
            elb(&call.action, &format!("<Attributes>{attribute}<member><Key>empty</Key></member></Attributes>"))
        }
        "GetWebACLForResource" => (
            200,
            serde_json::json!({ "WebACL": { "ARN": WEB_ACL, "Name": "edge", "Id": "1", "DefaultAction": {},
                "VisibilityConfig": { "SampledRequestsEnabled": false, "CloudWatchMetricsEnabled": false, "MetricName": "m" } } })
            .to_string(),
        ),
        "DescribeProtection" => (400, serde_json::json!({ "__type": "ResourceNotFoundException" }).to_string()),
        "DescribeTargetHealth" => elb(
            &call.action,
            "<TargetHealthDescriptions><member><Target><Id>10.0.0.1</Id><Port>80</Port></Target><TargetHealth><State>healthy</State></TargetHealth></member></TargetHealthDescriptions>",
        ),
        other => panic!("{other} was not expected"),
    }
}

fn world(load_balancers: &[&str], target_groups: &[&str], security_groups: &[&str]) -> Shared {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(Mutex::new(World {
        load_balancers: set(load_balancers),
        target_groups: set(target_groups),
        security_groups: set(security_groups),
        ..World::default()
    }))
}

async fn started(world: &Shared) -> (Fake, Inventory) {
    let world = world.clone();
    let fake = Fake::start(move |call| {
        let answer = answer(&world.lock().unwrap(), &call);
        async move { answer }
    })
    .await;
    let inventory = inventory(&fake);
    (fake, inventory)
}

fn inventory(fake: &Fake) -> Inventory {
    Inventory::new(Arc::new(crate::testing::at(&fake.endpoint, None)), CLUSTER, VpcId::new(VPC))
}

fn created_balancer(name: &str) -> ObservedLoadBalancer {
    ObservedLoadBalancer {
        arn: balancer_arn(name),
        name: name.to_owned(),
        kind: LoadBalancerKind::Application,
        dns_name: String::new(),
        scheme: Scheme::Internal,
        ip_address_type: albatross_core::model::IpAddressType::Ipv4,
        network: albatross_core::model::ObservedNetworkSettings::default(),
        pools: albatross_core::model::ObservedPools::default(),
        state: LoadBalancerState::Provisioning,
        subnets: BTreeSet::new(),
        security_groups: BTreeSet::new(),
        attributes: None,
        tags: tags_of_group(name),
        listeners: Some(BTreeMap::new()),
        add_ons: ObservedAddOns::default(),
    }
}

fn created_listener(port: u16) -> ObservedListener {
    ObservedListener {
        arn: ListenerArn::new(format!("arn:listener/{port}")),
        port,
        protocol: Some(ListenerProtocol::Http),
        default_actions: vec![],
        default_certificate: None,
        certificates: BTreeSet::new(),
        ssl_policy: None,
        mutual_authentication: None,
        alpn_policy: None,
        attributes: None,
        tags: Tags::new(),
        rules: vec![],
    }
}

fn created_rule(name: &str, priority: u32) -> ObservedRule {
    ObservedRule {
        arn: RuleArn::new(name),
        priority,
        conditions: vec![],
        actions: vec![],
        transforms: vec![],
        tags: Tags::new(),
    }
}

fn created_target_group(name: &str) -> ObservedTargetGroup {
    ObservedTargetGroup {
        arn: target_group_arn(name),
        name: name.to_owned(),
        target_type: "ip".into(),
        protocol: "HTTP".into(),
        protocol_version: None,
        ip_address_type: albatross_core::model::IpAddressType::Ipv4,
        health_check: None,
        attributes: None,
        tags: tags_of_group(name),
    }
}

fn names(stack: &ObservedStack) -> (Vec<&str>, Vec<&str>, Vec<&str>) {
    (
        stack.load_balancers.iter().map(|b| b.name.as_str()).collect(),
        stack.target_groups.iter().map(|t| t.name.as_str()).collect(),
        stack.security_groups.iter().map(|s| s.name.as_str()).collect(),
    )
}

#[tokio::test]
async fn one_sweep_serves_all_and_what_is_known_is_not_read_again() {
    let world = world(&["a", "b"], &["a"], &["a"]);
    let (fake, inventory) = started(&world).await;
    let (of_a, of_b) = (group("a"), group("b"));
    let (a, b) = tokio::join!(inventory.observe_whole(&of_a), inventory.observe_whole(&of_b));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(names(&a), (vec!["a"], vec!["a"], vec!["a"]));
    assert_eq!(names(&b), (vec!["b"], vec![], vec![]));
    let listener = a.load_balancers[0].listener(80).unwrap();
    let rules: Vec<_> = listener.rules.iter().map(|rule| (rule.arn.as_str(), rule.priority)).collect();
    assert_eq!(rules, [("arn:listener-rule/app/x/r1", 1), ("arn:listener-rule/app/x/r2", 2)]);
    assert_eq!(
        fake.actions(),
        [
            "DescribeListeners",
            "DescribeListeners",
            "DescribeLoadBalancers",
            "DescribeRules",
            "DescribeRules",
            "DescribeSecurityGroups",
            "DescribeTags",
            "DescribeTags",
            "DescribeTags",
            "DescribeTargetGroups",
        ]
    );
    assert_eq!(inventory.observe_whole(&of_a).await.unwrap(), a);
    assert_eq!(inventory.groups().await.unwrap(), BTreeSet::from([of_a, of_b]));
    assert!(inventory.load_balancer_uses(&SecurityGroupId::new("sg-b")).await.unwrap());
    assert!(!inventory.load_balancer_uses(&SecurityGroupId::new("sg-c")).await.unwrap());
    assert!(fake.actions().is_empty());
}

#[tokio::test]
async fn what_we_make_and_change_ourselves_needs_no_read() {
    let (fake, inventory) = started(&world(&[], &[], &[])).await;
    let of_a = group("a");
    assert!(inventory.observe_whole(&of_a).await.unwrap().is_empty());
    fake.calls();

    inventory.record_load_balancer(created_balancer("a"));
    inventory.record_listener(&balancer_arn("a"), created_listener(80));
    inventory.record_listener(&balancer_arn("a"), created_listener(81));
    for (name, priority) in [("r2", 2), ("r1", 1), ("r3", 3)] {
        inventory.record_rule(&ListenerArn::new("arn:listener/80"), created_rule(name, priority));
    }
    inventory.record_priorities(&[(RuleArn::new("r1"), 2), (RuleArn::new("r2"), 1)]);
    inventory.record_rule_deleted(&RuleArn::new("r3"));
    let modified = ObservedRule {
        transforms: vec![albatross_core::model::Transform::Other("new".to_owned())],
        ..created_rule("r1", 2)
    };
    inventory.record_tags("r1", &tags_of_group("a"));
    inventory.record_rule_modified(modified.clone());
    inventory.record_listener_deleted(&ListenerArn::new("arn:listener/81"));
    let policy = ObservedListener { ssl_policy: Some("p".into()), ..created_listener(80) };
    inventory.record_listener_modified(policy.clone());
    inventory.record_target_group(created_target_group("a"));

    let rules = vec![created_rule("r2", 1), ObservedRule { tags: tags_of_group("a"), ..modified }];
    let listeners = Some(BTreeMap::from([(80, ObservedListener { rules, ..policy })]));
    let expected = ObservedStack {
        load_balancers: vec![ObservedLoadBalancer { listeners, ..created_balancer("a") }],
        target_groups: vec![created_target_group("a")],
        ..ObservedStack::default()
    };
    assert_eq!(inventory.observe_whole(&of_a).await.unwrap(), expected);
    assert!(inventory.targets(&target_group_arn("a")).await.unwrap().is_empty());

    inventory.record_load_balancer_deleted(&balancer_arn("a"));
    inventory.record_target_group_deleted(&target_group_arn("a"));
    assert!(inventory.observe_whole(&of_a).await.unwrap().is_empty());
    assert!(fake.actions().is_empty());
}

#[tokio::test]
async fn a_forgotten_group_is_read_again_and_no_other() {
    let world = world(&["a", "b"], &["a", "b"], &[]);
    let (fake, inventory) = started(&world).await;
    inventory.observe_whole(&group("a")).await.unwrap();
    inventory.observe_whole(&group("b")).await.unwrap();
    fake.calls();
    inventory.invalidate(&group("a"));
    // Others wait for nothing.
    inventory.observe_whole(&group("b")).await.unwrap();
    assert!(fake.actions().is_empty());

    world.lock().unwrap().load_balancers.insert("c".into());
    world.lock().unwrap().target_groups.remove("a");
    let a = inventory.observe_whole(&group("a")).await.unwrap();
    assert_eq!(names(&a), (vec!["a"], vec![], vec![]));
    let calls = fake.calls();
    let tags: Vec<_> =
        calls.iter().filter(|call| call.action == "DescribeTags").map(|call| call.list("ResourceArns")).collect();
    assert_eq!(
        tags,
        [
            vec!["arn:loadbalancer/app/a/1", "arn:loadbalancer/app/c/1"],
            vec!["arn:listener/app/a/1", "arn:listener-rule/app/x/r1", "arn:listener-rule/app/x/r2"],
        ]
    );
    assert_eq!(calls.iter().filter(|call| call.action == "DescribeListeners").count(), 1);
    inventory.observe_whole(&group("b")).await.unwrap();
    assert!(fake.actions().is_empty());
}

#[tokio::test]
async fn what_others_deleted_is_missed_once_the_group_is_given_up() {
    let world = world(&["a"], &["a"], &["a"]);
    let (_fake, inventory) = started(&world).await;
    inventory.observe_whole(&group("a")).await.unwrap();
    *world.lock().unwrap() = World::default();
    assert!(!inventory.observe_whole(&group("a")).await.unwrap().is_empty());
    inventory.invalidate(&group("a"));
    assert!(inventory.observe_whole(&group("a")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_write_during_a_sweep_is_not_lost() {
    let world = world(&["old"], &["old"], &["old"]);
    let (listed, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (said, waited, shared) = (listed.clone(), go_on.clone(), world.clone());
    let fake = Fake::start(move |call| {
        let (said, waited) = (said.clone(), waited.clone());
        let answer = answer(&shared.lock().unwrap(), &call);
        async move {
            // The sweep has seen the lists, and hangs at the tags.
            if call.action == "DescribeTags" && call.list("ResourceArns").len() == 2 {
                said.notify_one();
                waited.notified().await;
            }
            answer
        }
    })
    .await;
    let inventory = Arc::new(inventory(&fake));
    let sweeping = tokio::spawn({
        let inventory = inventory.clone();
        async move { inventory.groups().await }
    });
    listed.notified().await;
    inventory.record_load_balancer(created_balancer("new"));
    inventory.record_target_group(created_target_group("new"));
    inventory.record_security_group(ObservedSecurityGroup {
        id: SecurityGroupId::new("sg-new"),
        name: "new".into(),
        tags: managed_tags("new"),
        ingress: BTreeSet::new(),
    });
    inventory.record_load_balancer_deleted(&balancer_arn("old"));
    inventory.record_target_group_deleted(&target_group_arn("old"));
    inventory.record_security_group_deleted(&SecurityGroupId::new("sg-old"));
    go_on.notify_one();
    assert_eq!(sweeping.await.unwrap().unwrap(), BTreeSet::from([group("new")]));
    let new = inventory.observe_whole(&group("new")).await.unwrap();
    assert_eq!(names(&new), (vec!["new"], vec!["new"], vec!["new"]));
    assert!(inventory.observe_whole(&group("old")).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_forgotten_during_a_sweep_is_swept_once_more() {
    let world = world(&["a"], &["a"], &[]);
    let (listed, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (said, waited, shared) = (listed.clone(), go_on.clone(), world.clone());
    let first = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let fake = Fake::start(move |call| {
        let (said, waited) = (said.clone(), waited.clone());
        let hang = call.action == "DescribeTags" && first.swap(false, std::sync::atomic::Ordering::SeqCst);
        let answer = answer(&shared.lock().unwrap(), &call);
        async move {
            if hang {
                said.notify_one();
                waited.notified().await;
            }
            answer
        }
    })
    .await;
    let inventory = Arc::new(inventory(&fake));
    let observing = tokio::spawn({
        let inventory = inventory.clone();
        async move { inventory.observe_whole(&group("a")).await }
    });
    listed.notified().await;
    // A write of the group had no answer, and did take effect after the lists were made.
    world.lock().unwrap().target_groups.clear();
    inventory.invalidate(&group("a"));
    go_on.notify_one();
    let a = observing.await.unwrap().unwrap();
    assert_eq!(names(&a), (vec!["a"], vec![], vec![]));
    // By its ARN the target group is not found, and the list shows that it is gone.
    let lists = fake.calls().into_iter().filter(|call| call.action == "DescribeTargetGroups").collect::<Vec<_>>();
    assert_eq!(lists.iter().filter(|call| call.list("TargetGroupArns").is_empty()).count(), 2);
}

#[tokio::test]
async fn a_group_that_is_given_up_is_read_by_its_arns_and_nothing_is_listed() {
    let all = ["a", "b", "c"];
    let (fake, inventory) = started(&world(&all, &all, &all)).await;
    for name in all {
        inventory.observe_whole(&group(name)).await.unwrap();
    }
    for name in all {
        inventory.invalidate(&group(name));
    }
    fake.calls();
    let a = inventory.observe(&group("a")).await.unwrap();
    assert_eq!(names(&a), (vec!["a"], vec!["a"], vec!["a"]));
    let mut calls = fake.calls();
    calls.sort_by(|one, other| one.action.cmp(&other.action));
    let asked: Vec<(&str, Vec<&str>)> = calls
        .iter()
        .map(|call| {
            let lists = ["LoadBalancerArns", "TargetGroupArns", "ResourceArns"];
            let filters = (1..).map_while(|n| call.params.get(&format!("Filter.{n}.Value.1"))).map(String::as_str);
            (call.action.as_str(), lists.iter().flat_map(|name| call.list(name)).chain(filters).collect())
        })
        .collect();
    assert_eq!(
        asked,
        [
            ("DescribeLoadBalancers", vec!["arn:loadbalancer/app/a/1"]),
            ("DescribeSecurityGroups", vec![VPC, "shop/a"]),
            ("DescribeTags", vec!["arn:loadbalancer/app/a/1", "arn:targetgroup/a/1"]),
            ("DescribeTargetGroups", vec!["arn:targetgroup/a/1"]),
        ]
    );
    // Questions about everything are answered by what is known.
    inventory.groups().await.unwrap();
    assert!(fake.actions().is_empty());
}

#[tokio::test]
async fn what_a_lost_answer_may_have_made_is_found_by_its_name() {
    let world = world(&[], &[], &[]);
    let (fake, inventory) = started(&world).await;
    assert!(inventory.observe(&group("a")).await.unwrap().is_empty());
    world.lock().unwrap().load_balancers.insert("a".into());
    world.lock().unwrap().target_groups.insert("a".into());
    inventory.invalidate_and_find(&group("a"), Some(ResourceName::LoadBalancer("a".to_owned())));
    inventory.invalidate_and_find(&group("a"), Some(ResourceName::TargetGroup("a".to_owned())));
    inventory.invalidate_and_find(&group("a"), Some(ResourceName::TargetGroup("nobody".to_owned())));
    fake.calls();
    let a = inventory.observe(&group("a")).await.unwrap();
    assert_eq!(names(&a), (vec!["a"], vec!["a"], vec![]));
    let lists = fake.calls().into_iter().filter(|call| call.action.starts_with("DescribeTargetG"));
    assert_eq!(lists.map(|call| call.list("Names").concat()).collect::<Vec<_>>(), ["a", "nobody"]);
}

#[tokio::test]
async fn what_is_not_found_by_its_name_at_once_is_looked_for_once_more() {
    let world = world(&[], &[], &[]);
    let (fake, inventory) = started(&world).await;
    inventory.invalidate_and_find(&group("a"), Some(ResourceName::TargetGroup("a".to_owned())));
    inventory.observe(&group("a")).await.unwrap();
    let left = inventory.uncertain_for(&group("a")).expect("a doubt");
    assert!(left <= UNCERTAIN_FOR && left > UNCERTAIN_FOR - Duration::from_secs(10), "{left:?}");
    // AWS shows it later.
    world.lock().unwrap().target_groups.insert("a".into());
    let since = Instant::now().checked_sub(UNCERTAIN_FOR).expect("a machine that has run for longer");
    inventory.state().uncertain.values_mut().flat_map(BTreeMap::values_mut).for_each(|at| *at = since);
    assert_eq!(inventory.uncertain_for(&group("a")), Some(Duration::ZERO));
    fake.calls();
    assert_eq!(names(&inventory.observe(&group("a")).await.unwrap()).1, ["a"]);
    assert_eq!(inventory.uncertain_for(&group("a")), None);
}

#[tokio::test]
async fn a_doubt_about_a_group_that_nobody_asks_about_ends_with_the_next_list() {
    let (_fake, inventory) = started(&world(&[], &[], &[])).await;
    inventory.invalidate_and_find(&group("a"), Some(ResourceName::TargetGroup("a".to_owned())));
    inventory.observe(&group("a")).await.unwrap();
    let list = async || {
        inventory.invalidate_list();
        inventory.groups().await.unwrap();
        inventory.state().uncertain.len()
    };
    assert_eq!(list().await, 1, "AWS may show it later");
    let since = Instant::now().checked_sub(UNCERTAIN_FOR).expect("a machine that has run for longer");
    inventory.state().uncertain.values_mut().flat_map(BTreeMap::values_mut).for_each(|at| *at = since);
    assert_eq!(list().await, 0);
}

#[tokio::test]
async fn a_security_group_that_may_have_been_made_is_looked_for_once_more_too() {
    let world = world(&[], &[], &[]);
    let (_fake, inventory) = started(&world).await;
    inventory.observe(&group("a")).await.unwrap();
    inventory.invalidate_and_find(&group("a"), Some(ResourceName::SecurityGroup("a".to_owned())));
    inventory.observe(&group("a")).await.unwrap();
    assert!(inventory.uncertain_for(&group("a")).is_some(), "it may be shown later");
    world.lock().unwrap().security_groups.insert("a".into());
    inventory.invalidate_and_find(&group("a"), Some(ResourceName::SecurityGroup("a".to_owned())));
    assert_eq!(names(&inventory.observe(&group("a")).await.unwrap()).2, ["a"]);
}

#[tokio::test]
async fn what_others_have_made_is_listed_when_the_list_is_given_up() {
    let world = world(&["a"], &[], &[]);
    let (_fake, inventory) = started(&world).await;
    assert_eq!(inventory.groups().await.unwrap(), BTreeSet::from([group("a")]));
    world.lock().unwrap().target_groups.insert("b".into());
    inventory.invalidate_list();
    assert_eq!(inventory.groups().await.unwrap(), BTreeSet::from([group("a"), group("b")]));
}

#[tokio::test]
async fn what_was_deleted_is_remembered_for_reads_that_run_and_no_longer() {
    let (_fake, inventory) = started(&world(&["a", "b"], &[], &[])).await;
    inventory.observe(&group("a")).await.unwrap();
    inventory.record_load_balancer_deleted(&balancer_arn("a"));
    assert_eq!(inventory.state().deleted.len(), 0);
    let reading = Reading::begin(&inventory);
    inventory.record_load_balancer_deleted(&balancer_arn("b"));
    assert_eq!(inventory.state().deleted.len(), 1);
    drop(reading);
    let state = inventory.state();
    assert_eq!((state.deleted.len(), state.reading.len()), (0, 0));
}

#[tokio::test]
async fn what_goes_between_list_and_tags_does_no_harm() {
    let world = world(&["a"], &["a", "b"], &[]);
    world.lock().unwrap().vanished.insert(target_group_arn("b").as_str().to_owned());
    let (_fake, inventory) = started(&world).await;
    assert_eq!(inventory.groups().await.unwrap(), BTreeSet::from([group("a")]));
}

#[tokio::test]
async fn other_vpcs_have_no_part_in_it() {
    let world = world(&["a", "far"], &["a", "far"], &[]);
    world.lock().unwrap().elsewhere.insert("far".into());
    let (fake, inventory) = started(&world).await;
    assert_eq!(inventory.groups().await.unwrap(), BTreeSet::from([group("a")]));
    let calls = fake.calls();
    let tags: Vec<_> = calls.iter().filter(|c| c.action == "DescribeTags").map(|c| c.list("ResourceArns")).collect();
    assert_eq!(tags, [vec!["arn:loadbalancer/app/a/1", "arn:targetgroup/a/1"]]);
    // A binding may name a target group of another VPC all the same.
    let far = inventory.tags_of_named(&group("a"), ResourceName::TargetGroup("far".to_owned())).await.unwrap();
    assert_eq!(far, Some(Tags::new()));
}

#[tokio::test]
async fn targets_are_read_once_and_then_as_registered() {
    let (fake, inventory) = started(&world(&[], &["a"], &[])).await;
    let arn = target_group_arn("a");
    let target = |id: &str| Target { id: id.to_owned(), port: 80 };
    let ids = |targets: BTreeMap<Target, TargetHealth>| -> Vec<String> {
        targets.iter().map(|(target, health)| format!("{target} {}", health.state)).collect()
    };
    assert_eq!(ids(inventory.targets(&arn).await.unwrap()), ["10.0.0.1:80 healthy"]);
    inventory.record_registered(&arn, &[target("10.0.0.2").into()]);
    assert_eq!(ids(inventory.targets(&arn).await.unwrap()), ["10.0.0.1:80 healthy", "10.0.0.2:80 initial"]);
    inventory.record_deregistered(&arn, &[target("10.0.0.1").into()]);
    assert_eq!(ids(inventory.targets(&arn).await.unwrap()), ["10.0.0.2:80 initial"]);
    assert_eq!(fake.actions(), ["DescribeTargetHealth"]);
    inventory.invalidate_targets(&arn);
    assert_eq!(ids(inventory.targets(&arn).await.unwrap()), ["10.0.0.1:80 healthy"]);
    assert_eq!(fake.actions(), ["DescribeTargetHealth"]);
}

#[tokio::test]
async fn rules_of_security_groups_follow_our_writes() {
    let (fake, inventory) = started(&world(&[], &[], &["a"])).await;
    inventory.groups().await.unwrap();
    fake.calls();
    let id = SecurityGroupId::new("sg-a");
    let rule = |port, description: &str| SecurityGroupRule {
        protocol: "tcp".into(),
        from_port: Some(port),
        to_port: Some(port),
        source: Source::Ipv4("0.0.0.0/0".into()),
        description: description.into(),
    };
    inventory.record_ingress_authorized(&id, &[rule(80, ""), rule(81, "")]);
    // The description is no part of what a rule is.
    inventory.record_ingress_revoked(&id, &[rule(80, "other words")]);
    inventory.record_security_group_tags(&id, &Tags::from([("Owner".into(), "team".into())]));
    let found = inventory.observe_whole(&group("a")).await.unwrap().security_groups;
    assert_eq!(found[0].ingress, BTreeSet::from([rule(81, "")]));
    assert_eq!(found[0].tags.get("Owner").map(String::as_str), Some("team"));
    assert_eq!(inventory.managed_security_group(&group("a")), Some(id));
    assert!(fake.actions().is_empty());
}

#[tokio::test]
async fn a_listener_that_gives_up_tls_has_no_certificates() {
    let world = world(&[], &[], &[]);
    let (_fake, inventory) = started(&world).await;
    inventory.observe_whole(&group("a")).await.unwrap();
    inventory.record_load_balancer(created_balancer("a"));
    let certificates = BTreeSet::from([albatross_core::model::CertificateArn::new("arn:b")]);
    let https = |certificates| ObservedListener {
        protocol: Some(ListenerProtocol::Https),
        certificates,
        ..created_listener(443)
    };
    inventory.record_listener(&balancer_arn("a"), https(certificates.clone()));
    inventory.record_listener_modified(https(BTreeSet::new()));
    let known = async || {
        let observed = inventory.observe_whole(&group("a")).await.unwrap();
        observed.load_balancers[0].listener(443).unwrap().certificates.clone()
    };
    assert_eq!(known().await, certificates);
    inventory.record_listener_modified(created_listener(443));
    assert_eq!(known().await, BTreeSet::new());
}

#[tokio::test]
async fn tags_that_aws_does_not_know_yet_are_asked_for_again() {
    let world = world(&["a"], &["a"], &[]);
    world.lock().unwrap().vanished.insert(target_group_arn("a").to_string());
    let (_fake, inventory) = started(&world).await;
    assert_eq!(inventory.observe_whole(&group("a")).await.unwrap().target_groups, []);
    world.lock().unwrap().vanished.clear();
    // A second creation is refused because the name is taken, and the owner is looked up.
    let named = ResourceName::TargetGroup("a".to_owned());
    assert_eq!(inventory.tags_of_named(&group("a"), named).await.unwrap(), Some(tags_of_group("a")));
    assert_eq!(names(&inventory.observe_whole(&group("a")).await.unwrap()).1, ["a"]);
}

#[tokio::test]
async fn a_copy_of_a_security_group_is_not_the_groups() {
    let world = world(&[], &[], &["a"]);
    let (_fake, inventory) = started(&world).await;
    let mut copy = tags_of_group("a");
    copy.insert(tags::INGRESS_RESOURCE.to_owned(), "Copy".to_owned());
    inventory.groups().await.unwrap();
    inventory.record_security_group(ObservedSecurityGroup {
        id: SecurityGroupId::new("sg-copy"),
        name: "copy".to_owned(),
        tags: copy,
        ingress: BTreeSet::new(),
    });
    let ids: Vec<_> = inventory
        .observe_whole(&group("a"))
        .await
        .unwrap()
        .security_groups
        .into_iter()
        .map(|s| s.id.to_string())
        .collect();
    assert_eq!(ids, ["sg-a"]);
}

#[tokio::test]
async fn attributes_are_known_until_they_are_given_up() {
    let world = world(&["a", "b"], &["a", "b"], &[]);
    let (fake, inventory) = started(&world).await;
    let listener = ListenerArn::new("arn:listener/app/a/1");
    let reads = Reads {
        load_balancer: Some(balancer_arn("a")),
        listeners: vec![listener.clone()],
        target_groups: vec![target_group_arn("a")],
        ..Reads::default()
    };
    let known = async || {
        let observed = inventory.observe_whole(&group("a")).await.unwrap();
        let balancer = &observed.load_balancers[0];
        [&balancer.attributes, &balancer.listener(80).unwrap().attributes, &observed.target_groups[0].attributes]
            .map(Clone::clone)
    };
    let of = |arn: &str| Some([("empty", ""), ("of", arn)].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let read = [of(balancer_arn("a").as_str()), of(listener.as_str()), of(target_group_arn("a").as_str())];
    assert_eq!(known().await, [None, None, None]);
    inventory.read(&group("a"), &reads).await.unwrap();
    assert_eq!(known().await, read);

    // The sweep of another stack leaves them, and what was not requested is not read.
    inventory.invalidate(&group("b"));
    let b = inventory.observe_whole(&group("b")).await.unwrap();
    assert_eq!((&b.load_balancers[0].attributes, &b.target_groups[0].attributes), (&None, &None));
    assert_eq!(known().await, read);
    let attributes = fake.actions().into_iter().filter(|action| action.ends_with("Attributes")).collect::<Vec<_>>();
    assert_eq!(
        attributes,
        ["DescribeListenerAttributes", "DescribeLoadBalancerAttributes", "DescribeTargetGroupAttributes"]
    );

    inventory.invalidate(&group("a"));
    assert_eq!(known().await, [None, None, None]);

    // A resource that is gone meanwhile is listed again.
    world.lock().unwrap().vanished.insert(balancer_arn("a").to_string());
    world.lock().unwrap().load_balancers.remove("a");
    assert!(inventory.read(&group("a"), &reads).await.unwrap_err().is_not_found());
    assert_eq!(inventory.observe_whole(&group("a")).await.unwrap().load_balancers, []);
}

#[tokio::test]
async fn protection_from_deletion_is_known_longer_than_attributes() {
    let world = world(&["a"], &[], &[]);
    let (_fake, inventory) = started(&world).await;
    let (of_a, arn) = (group("a"), balancer_arn("a"));
    inventory.observe(&of_a).await.unwrap();
    let reads = Reads { load_balancer: Some(arn.clone()), ..Reads::default() };
    let read = async |on: bool| {
        let set = |protected: &mut BTreeSet<String>| match on {
            true => protected.insert(arn.to_string()),
            false => protected.remove(arn.as_str()),
        };
        set(&mut world.lock().unwrap().protected);
        inventory.read(&of_a, &reads).await.unwrap();
        inventory.was_protected(&arn)
    };
    assert!(!read(false).await && read(true).await && !read(false).await && read(true).await);
    inventory.invalidate(&of_a);
    let observed = inventory.observe(&of_a).await.unwrap();
    assert!(inventory.was_protected(&arn) && observed.load_balancers[0].attributes.is_none());
    // The controller's own change.
    inventory.record_load_balancer_attributes(&arn, Attributes::from([protection("false")]));
    assert!(!inventory.was_protected(&arn));
    inventory.record_load_balancer_attributes(&arn, Attributes::from([protection("true")]));
    assert!(inventory.was_protected(&arn));
    // What is deleted is forgotten: by the controller at once, by others when another one's attributes come.
    inventory.record_load_balancer_deleted(&arn);
    assert!(!inventory.was_protected(&arn));
    inventory.record_load_balancer_attributes(&arn, Attributes::from([protection("true")]));
    assert!(!inventory.was_protected(&arn), "there is no such load balancer");
}

fn protection(value: &str) -> (String, String) {
    (albatross_core::model::DELETION_PROTECTION.to_owned(), value.to_owned())
}

#[tokio::test]
async fn add_ons_are_known_once_read_and_by_the_controllers_own_writes() {
    let world = world(&["a"], &[], &[]);
    let (fake, inventory) = started(&world).await;
    let (of_a, arn) = (group("a"), balancer_arn("a"));
    let known = async || inventory.observe(&of_a).await.unwrap().load_balancers.remove(0).add_ons;
    assert!(known().await.is_unread());
    fake.calls();
    let reads = Reads { add_ons: [(AddOn::WebAcl, arn.clone())].into(), ..Reads::default() };
    inventory.read(&of_a, &reads).await.unwrap();
    let web_acl = Some(Association::WebAcl(WEB_ACL.to_owned()));
    assert_eq!(known().await, ObservedAddOns { web_acl: web_acl.clone(), ..ObservedAddOns::default() });
    let reads = Reads { add_ons: [(AddOn::Protection, arn.clone())].into(), ..Reads::default() };
    inventory.read(&of_a, &reads).await.unwrap();
    let both = ObservedAddOns { web_acl, protection: Some(Protection::None), capacity: None };
    assert_eq!(known().await, both);
    assert_eq!(fake.actions(), ["DescribeProtection", "GetWebACLForResource"]);
    // A list does not show them, and leaves them.
    inventory.record_web_acl(&arn, Association::None);
    let protection = Protection::Exists { id: "1".to_owned(), name: "n".to_owned() };
    inventory.record_protection(&arn, protection.clone());
    inventory.invalidate_list();
    inventory.groups().await.unwrap();
    let capacity = CapacityUnits::new(100);
    inventory.record_capacity(&arn, capacity.unwrap());
    let own = ObservedAddOns { web_acl: Some(Association::None), protection: Some(protection), capacity };
    assert_eq!(known().await, own);
    // A record holds them.
    let record = serde_json::to_string(&inventory.observe_whole(&of_a).await.unwrap().load_balancers[0]).unwrap();
    assert_eq!(serde_json::from_str::<ObservedLoadBalancer>(&record).unwrap().add_ons, own);
    inventory.invalidate(&of_a);
    assert!(known().await.is_unread());
}
