use super::*;
use crate::model::ObjectName;

fn header(holder: &str) -> Header {
    Header {
        format: FORMAT,
        cluster: "demo".to_owned(),
        region: "us-west-2".to_owned(),
        vpc: "vpc-1".to_owned(),
        holder: holder.to_owned(),
        term: 7,
    }
}

fn web() -> StackId {
    StackId::Ingress(ObjectName::new("shop", "web"))
}

fn record() -> Record {
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
    Record {
        stack: web(),
        clean: Some(Clean { load_balancers: Vec::new(), target_groups: vec![group], holdings: Vec::new() }),
    }
}

fn written(header: &Header, records: &BTreeMap<String, Record>) -> BTreeMap<String, String> {
    let texts: BTreeMap<String, String> = records.iter().map(|(key, record)| (key.clone(), text(record))).collect();
    write(header, &texts)
}

#[test]
fn what_is_written_is_read() {
    let dirty = Record { stack: StackId::Group("shared".to_owned()), clean: None };
    let records = BTreeMap::from([(key(&web()), record()), (key(&dirty.stack), dirty)]);
    let data = written(&header("a"), &records);
    insta::assert_snapshot!(serde_json::to_string_pretty(&data).unwrap(), @r#"
    {
      "078763e275631f14f8de96a15092af6e": "{\"stack\":{\"Ingress\":{\"namespace\":\"shop\",\"name\":\"web\"}},\"clean\":{\"loadBalancers\":[],\"targetGroups\":[{\"arn\":\"arn:tg/1\",\"name\":\"tg\",\"target_type\":\"ip\",\"protocol\":\"HTTP\",\"protocol_version\":null,\"ip_address_type\":\"ipv4\",\"health_check\":null,\"attributes\":{\"stickiness.enabled\":\"true\"},\"tags\":{\"team\":\"a\"}}]}}",
      "5ae552ebc32435e6d00bdb8dd4e46a65": "{\"stack\":{\"Group\":\"shared\"}}",
      "header": "{\"format\":2,\"cluster\":\"demo\",\"region\":\"us-west-2\",\"vpc\":\"vpc-1\",\"holder\":\"a\",\"term\":7}"
    }
    "#);
    let read = read(&Header { term: 8, ..header("b") }, &data);
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
        // Somebody else has led meanwhile, or the lease is a new one.
        Header { term: 5, ..header("a") },
        Header { term: 8, ..header("a") },
    ];
    for other in others {
        let read = read(&header("a"), &written(&other, &records));
        assert_eq!(read, Read { header: Some(other), ..Read::default() });
    }
    let without = BTreeMap::from([(key(&web()), serde_json::to_string(&record()).unwrap())]);
    assert_eq!(read(&header("a"), &without), Read::default());
}

#[test]
fn what_cannot_be_read_costs_only_itself() {
    let mut data = written(&header("a"), &BTreeMap::from([(key(&web()), record())]));
    data.insert("0123".to_owned(), "{\"stack\":".to_owned());
    // A copy under another key is about another stack.
    data.insert("4567".to_owned(), data[&key(&web())].clone());
    let read = read(&header("a"), &data);
    assert_eq!(read.records, BTreeMap::from([(key(&web()), record())]));
    assert_eq!(read.unreadable, ["0123", "4567"]);
}

#[test]
fn what_a_config_map_has_no_room_for_is_left_out() {
    let texts: BTreeMap<String, String> = (0..10).map(|n| (n.to_string(), "x".repeat(300 * 1024))).collect();
    let data = write(&header("a"), &texts);
    assert_eq!(data.keys().collect::<Vec<_>>(), ["0", "1", "2", HEADER_KEY]);
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
fn targets_make_the_same_text_in_any_order() {
    let group = TargetGroupArn::new("arn:tg/1");
    let text = of_targets(&group, ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(text, of_targets(&group, ["10.0.0.2:80", "10.0.0.1:80"]));
    assert_ne!(text, of_targets(&group, ["10.0.0.2:80"]));
    assert_ne!(text, of_targets(&TargetGroupArn::new("arn:tg/2"), ["10.0.0.1:80", "10.0.0.2:80"]));
}
