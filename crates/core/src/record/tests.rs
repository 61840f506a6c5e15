use super::*;
use crate::model::{LoadBalancerArn, ObjectName, ObjectReference, ObservedFrontend};

fn header(holder: &str) -> Header {
    Header {
        format: FORMAT,
        cluster: "demo".to_owned(),
        region: "us-west-2".to_owned(),
        vpc: "vpc-1".to_owned(),
        holder: holder.to_owned(),
        term: 7,
        since: 7,
    }
}

fn web() -> StackId {
    StackId::Ingress(ObjectName::new("shop", "web"))
}

fn record() -> StackRecord {
    let tags = [("team".to_owned(), "a".to_owned())].into();
    let group = ObservedTargetGroup {
        arn: TargetGroupArn::new("arn:tg/1"),
        name: "tg".to_owned(),
        target_type: "ip".to_owned(),
        protocol: "HTTP".to_owned(),
        protocol_version: None,
        ip_address_type: crate::model::IpAddressType::Ipv4,
        health_check: None,
        attributes: Some([("stickiness.enabled".to_owned(), "true".to_owned())].into()),
        tags,
    };
    StackRecord {
        stack: web(),
        clean: Some(Clean {
            load_balancers: Vec::new(),
            target_groups: vec![group],
            frontend: ObservedFrontend::default(),
            certificates: Vec::new(),
            member_resources: Vec::new(),
        }),
        tag_keys: None,
        waits: Vec::new(),
        remembered: Remembered::default(),
    }
}

/// Returns what is remembered of a group with one member.
fn remembered() -> Remembered {
    let held = crate::model::MemberResources {
        member: ObjectReference::ingress(&ObjectName::new("shop", "web")),
        rules: [crate::model::RuleArn::new("arn:rule/1")].into(),
        ports: [(443, crate::model::ListenerResources::default())].into(),
    };
    Remembered { member_resources: vec![held], created: ["_1.example.com.".to_owned()].into() }
}

fn written(header: &Header, records: &BTreeMap<String, StackRecord>) -> Contents {
    let packed: BTreeMap<String, Vec<u8>> = records.iter().map(|(key, record)| (key.clone(), pack(record))).collect();
    write(header, &packed)
}

#[test]
fn what_is_written_is_read() {
    let mut tag_keys = TagKeys::default();
    tag_keys.add(&crate::model::ResourceId::of_tag("443"), ["team".to_owned()]);
    let waits = vec![
        (Wait::RetainOld(LoadBalancerArn::new("arn:old")), 1_800_000_000),
        (Wait::Ready(crate::model::ResourceId::of_tag("shop/web-api:80")), 1_800_000_030),
    ];
    let stack = StackId::Group("shared".to_owned());
    let dirty = StackRecord { stack, clean: None, tag_keys: Some(tag_keys), waits, remembered: remembered() };
    let records = BTreeMap::from([(key(&web()), record()), (key(&dirty.stack), dirty)]);
    let contents = written(&header("a"), &records);
    insta::assert_snapshot!(contents.data[HEADER_KEY], @r#"{"format":3,"cluster":"demo","region":"us-west-2","vpc":"vpc-1","holder":"a","term":7,"since":7}"#);
    let texts: Vec<String> = contents
        .packed
        .iter()
        .map(|(key, packed)| {
            let mut text = String::new();
            DeflateDecoder::new(&**packed).read_to_string(&mut text).unwrap();
            format!("{key} {text}")
        })
        .collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    078763e275631f14f8de96a15092af6e {"stack":{"Ingress":{"namespace":"shop","name":"web"}},"clean":{"loadBalancers":[],"targetGroups":[{"arn":"arn:tg/1","name":"tg","target_type":"ip","protocol":"HTTP","protocol_version":null,"ip_address_type":"ipv4","health_check":null,"attributes":{"stickiness.enabled":"true"},"tags":{"team":"a"}}]}}
    5ae552ebc32435e6d00bdb8dd4e46a65 {"stack":{"Group":"shared"},"tagKeys":{"443":["team"]},"waits":[[{"Hold":"arn:old"},1800000000],[{"Ready":"shop/web-api:80"},1800000030]],"remembered":{"holdings":[{"member":{"namespace":"shop","name":"web"},"rules":["arn:rule/1"],"ports":{"443":{"certificates":[],"default_action":false}}}],"created":["_1.example.com."]}}
    "#);
    let read = read(&Header { term: 8, ..header("b") }, &contents);
    assert_eq!(read, Read { header: Some(header("a")), records, unreadable: Vec::new() });
}

#[test]
fn records_of_something_else_count_for_nothing() {
    let records = BTreeMap::from([(key(&web()), record())]);
    let others = [
        Header { format: FORMAT + 1, ..header("a") },
        Header { cluster: "other".to_owned(), ..header("a") },
        Header { region: "eu-west-1".to_owned(), ..header("a") },
        Header { vpc: "vpc-2".to_owned(), ..header("a") },
        // Another process has led meanwhile, or the lease is a new one.
        Header { term: 5, ..header("a") },
        Header { term: 8, ..header("a") },
    ];
    for other in others {
        let read = read(&header("a"), &written(&other, &records));
        assert_eq!(read, Read { header: Some(other), ..Read::default() });
    }
    let without = Contents { data: BTreeMap::new(), ..written(&header("a"), &records) };
    assert_eq!(read(&header("a"), &without), Read::default());
    // As releases before this format wrote them.
    let old = Header { format: 2, ..header("a") };
    let data = BTreeMap::from([
        (HEADER_KEY.to_owned(), serde_json::to_string(&old).unwrap()),
        (key(&web()), serde_json::to_string(&record()).unwrap()),
    ]);
    let old_contents = Contents { data, packed: BTreeMap::new() };
    assert_eq!(read(&header("a"), &old_contents), Read { header: Some(old), ..Read::default() });
}

#[test]
fn which_tags_are_ours_and_what_was_waited_for_counts_in_later_terms_too() {
    let mut tag_keys = TagKeys::default();
    tag_keys.add(&crate::model::ResourceId::of_tag("443"), ["team".to_owned()]);
    let tagged = StackRecord { tag_keys: Some(tag_keys), ..record() };
    let waits = vec![(Wait::RetainListener(80), 1_800_000_000)];
    let old = Header { term: 5, ..header("a") };
    // Who has what may have changed meanwhile.
    let both = StackRecord { waits: waits.clone(), remembered: remembered(), ..tagged.clone() };
    for known in [tagged.clone(), StackRecord { waits, ..record() }, both] {
        let records = BTreeMap::from([(key(&web()), known.clone())]);
        let remembered = Remembered::default();
        let kept = BTreeMap::from([(key(&web()), StackRecord { clean: None, remembered, ..known })]);
        assert_eq!(read(&header("b"), &written(&old, &records)).records, kept);
    }
    let records = BTreeMap::from([(key(&web()), record())]);
    assert_eq!(read(&header("b"), &written(&old, &records)).records, BTreeMap::new());
    let records = BTreeMap::from([(key(&web()), tagged)]);
    let elsewhere = Header { vpc: "vpc-2".to_owned(), ..old };
    assert_eq!(read(&header("b"), &written(&elsewhere, &records)).records, BTreeMap::new());
}

#[test]
fn what_is_remembered_is_the_same_with_a_clean_state_and_without() {
    let certificate = |created: &[&str]| ObservedCertificate {
        arn: crate::model::CertificateArn::new("arn:certificate/1"),
        resource: crate::model::ResourceId::of_tag("amazon_issued/a.example.com-00000000"),
        hosts: BTreeSet::new(),
        authority: None,
        status: crate::model::CertificateStatus::Pending,
        records: Vec::new(),
        validated: BTreeSet::new(),
        created: created.iter().map(|name| (*name).to_owned()).collect(),
    };
    let Remembered { member_resources, .. } = remembered();
    let certificates = Some(vec![certificate(&[]), certificate(&["_1.example.com."])]);
    let mut observed = ObservedStack { member_resources, certificates, ..ObservedStack::default() };
    let clean = StackRecord { clean: Some(Clean::of(&observed)), ..record() };
    let dirty = StackRecord { clean: None, remembered: Remembered::default().with(&observed), ..record() };
    assert_eq!((Remembered::of(clean), Remembered::of(dirty)), (remembered(), remembered()));
    // Certificates that are not known now had the records that they had.
    observed.certificates = None;
    assert_eq!(remembered().with(&observed), remembered());
    observed.certificates = Some(Vec::new());
    assert_eq!(remembered().with(&observed), Remembered { created: BTreeSet::new(), ..remembered() });
}

#[test]
fn what_cannot_be_read_costs_only_itself() {
    let mut contents = written(&header("a"), &BTreeMap::from([(key(&web()), record())]));
    let deflated = |bytes: &[u8]| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    contents.packed.insert("0123".to_owned(), deflated(b"{\"stack\":"));
    contents.packed.insert("1234".to_owned(), b"nothing packed".to_vec());
    // A copy under another key is about another stack.
    contents.packed.insert("4567".to_owned(), contents.packed[&key(&web())].clone());
    // A bomb: 64 MiB of spaces in front of a record.
    let mut bomb = vec![b' '; 64 * 1024 * 1024];
    bomb.extend(serde_json::to_vec(&record()).unwrap());
    contents.packed.insert("5678".to_owned(), deflated(&bomb));
    let read = read(&header("a"), &contents);
    assert_eq!(read.records, BTreeMap::from([(key(&web()), record())]));
    assert_eq!(read.unreadable, ["0123", "1234", "4567", "5678"]);
}

#[test]
fn what_a_config_map_has_no_room_for_is_left_out() {
    let packed: BTreeMap<String, Vec<u8>> = (0..10).map(|n| (n.to_string(), vec![1; 300 * 1024])).collect();
    let contents = write(&header("a"), &packed);
    assert_eq!(contents.packed.keys().collect::<Vec<_>>(), ["0", "1", "2"]);
}

/// A part of a typical stack: two target groups with all their attributes and tags, and the owners of four rules. The
/// load balancer itself is not in it; with one, a record is some 1.4 kB packed instead of 0.6 kB.
fn usual(number: usize) -> StackRecord {
    let stack = StackId::Ingress(ObjectName::new(format!("team-{}", number % 97), format!("service-{number}")));
    // As hard to compress as AWS's.
    let seed = |what: &str| what.bytes().fold(number as u64, |seed, byte| seed.wrapping_mul(131) + u64::from(byte));
    let id = |what: &str| format!("{:016x}", fastrand::Rng::with_seed(seed(what)).u64(..));
    let tags = |resource: &str| {
        serde_json::json!({
            "elbv2.k8s.aws/cluster": "production", "ingress.k8s.aws/stack": stack.to_string(),
            "ingress.k8s.aws/resource": resource, "team": format!("team-{}", number % 97), "cost-center": "4711",
        })
    };
    let account = "arn:aws:elasticloadbalancing:eu-central-1:111122223333";
    let balancer = format!("k8s-team{}-service{number}-{}/{}", number % 97, &id("name")[..10], id("balancer"));
    let groups: Vec<_> = ["web", "api"].iter().map(|name| {
        serde_json::json!({
            "arn": format!("{account}:targetgroup/k8s-team{}-{name}-{}/{}", number % 97, &id(name)[..10], id(&format!("{name} group"))),
            "name": format!("k8s-team{}-{name}-{}", number % 97, &id(name)[..10]), "target_type": "ip", "protocol": "HTTP",
            "protocol_version": "HTTP1", "ip_address_type": "ipv4", "health_check": null,
            "attributes": {
                "deregistration_delay.timeout_seconds": "300", "load_balancing.algorithm.type": "round_robin",
                "load_balancing.algorithm.anomaly_mitigation": "off", "load_balancing.cross_zone.enabled": "use_load_balancer_configuration",
                "slow_start.duration_seconds": "0", "stickiness.enabled": "false", "stickiness.type": "lb_cookie",
                "stickiness.lb_cookie.duration_seconds": "86400", "stickiness.app_cookie.cookie_name": "",
                "stickiness.app_cookie.duration_seconds": "86400", "target_group_health.dns_failover.minimum_healthy_targets.count": "1",
                "target_group_health.dns_failover.minimum_healthy_targets.percentage": "off",
                "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": "1",
                "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off",
            },
            "tags": tags(&format!("team/service-{name}:80")),
        })
    }).collect();
    let text = serde_json::json!({ "stack": stack, "clean": { "loadBalancers": [], "targetGroups": groups } });
    let mut record: StackRecord = serde_json::from_value(text).unwrap();
    record.clean.as_mut().unwrap().member_resources = vec![MemberResources {
        member: ObjectReference::ingress(&ObjectName::new("shop", format!("service-{number}"))),
        rules: (0..4)
            .map(|rule| {
                crate::model::RuleArn::new(format!(
                    "{account}:listener-rule/app/{balancer}/{}/{}",
                    id("listener"),
                    id(&format!("rule {rule}"))
                ))
            })
            .collect(),
        ports: BTreeMap::new(),
    }];
    record
}

#[test]
fn ten_thousand_stacks_fit_and_a_change_of_one_writes_little() {
    let mut shards: Vec<BTreeMap<String, Vec<u8>>> = vec![BTreeMap::new(); SHARDS];
    for number in 0..10_000 {
        let record = usual(number);
        let key = key(&record.stack);
        shards[shard(&key)].insert(key, pack(&record));
    }
    let bytes = |shard: &BTreeMap<String, Vec<u8>>| shard.iter().map(|(key, packed)| key.len() + packed.len()).sum();
    let sizes: Vec<usize> = shards.iter().map(bytes).collect();
    let (largest, all) = (sizes.iter().max().unwrap(), sizes.iter().sum::<usize>());
    println!("10,000 stacks: {all} bytes; the largest of {SHARDS} ConfigMaps has {largest}");
    assert!(*largest < MAX_BYTES / 4, "{largest} bytes");
    for shard in &shards {
        assert_eq!(write(&header("a"), shard).packed.len(), shard.len());
    }
}

#[test]
fn keys_are_what_a_config_map_takes_and_differ_by_kind() {
    let name = ObjectName::new("n".repeat(63), "x".repeat(253));
    let stacks = [StackId::Ingress(name.clone()), StackId::Service(name), StackId::Group("g".to_owned())];
    let keys: BTreeSet<String> = stacks.iter().map(key).collect();
    assert_eq!(keys.len(), 3);
    for key in keys {
        assert!(key.len() == 32 && key.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
        assert!(shard(&key) < SHARDS);
    }
    assert_eq!(shard_name(DEFAULT_LEASE, 7), "albatross-records-7");
    assert_eq!(shard_name("internal", 15), "internal-records-15");
}

#[test]
fn a_checkpoint_counts_in_the_terms_that_are_given() {
    let written = in_term(7, "abc");
    assert_eq!(written, "7 abc");
    let counted = [5..=6, 5..=7, 7..=7, 7..=9, 8..=9].map(|terms| counts(&written, &terms, "abc"));
    assert_eq!(counted, [false, true, true, true, false]);
    for (checkpoint, targets) in
        [("7 abc", "abd"), ("abc", "abc"), ("", ""), ("x abc", "abc"), ("2147483647 abc", "abc")]
    {
        assert!(!counts(checkpoint, &(5..=9), targets), "{checkpoint}");
    }
}

#[test]
fn targets_make_the_same_text_in_any_order() {
    let group = TargetGroupArn::new("arn:tg/1");
    let text = of_targets(&group, ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(text, of_targets(&group, ["10.0.0.2:80", "10.0.0.1:80"]));
    assert_ne!(text, of_targets(&group, ["10.0.0.2:80"]));
    assert_ne!(text, of_targets(&TargetGroupArn::new("arn:tg/2"), ["10.0.0.1:80", "10.0.0.2:80"]));
}

#[test]
fn owners_of_records_without_kinds_are_ingresses_and_are_written_as_before() {
    let old = r#"{"member":{"namespace":"shop","name":"web"},"rules":["arn:r"],"ports":{"80":{"certificates":[],"default_action":true}}}"#;
    let read: MemberResources = serde_json::from_str(old).unwrap();
    let web = ObjectName::new("shop", "web");
    assert_eq!(read.member, ObjectReference::ingress(&web));
    assert_eq!(serde_json::to_string(&read).unwrap(), old);
    assert_eq!(TagKeys::of_rules(&read.member).to_string(), "rules of shop/web");
    // A Service of the same name is another owner.
    let of_service = MemberResources { member: ObjectReference::service(&web), ..read };
    let written = serde_json::to_string(&of_service).unwrap();
    assert!(written.starts_with(r#"{"member":{"namespace":"shop","name":"web","kind":"Service"},"#), "{written}");
    assert_eq!(serde_json::from_str::<MemberResources>(&written).unwrap(), of_service);
    assert_eq!(TagKeys::of_rules(&of_service.member).to_string(), "rules of Service shop/web");
}
