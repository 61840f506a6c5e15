use super::*;
use albatross_core::model::{LoadBalancerKind, Scheme, SubnetId};
use albatross_simulation::fake::{Call, Fake, ec2, ec2_error, elb, elb_error};

const SUBNETS: &str = "<subnetSet><item><subnetId>subnet-1</subnetId><availabilityZone>z-a</availabilityZone>\
    <availableIpAddressCount>100</availableIpAddressCount><cidrBlock>10.0.0.0/24</cidrBlock>\
    <tagSet><item><key>Name</key><value>web</value></item></tagSet></item></subnetSet>";
const ZONES: &str = "<availabilityZoneInfo><item><zoneName>z-a</zoneName><zoneType>availability-zone</zoneType></item>\
    </availabilityZoneInfo>";
const TABLES: &str = "<routeTableSet><item><associationSet><item><main>true</main></item></associationSet></item>\
    </routeTableSet>";
const BLOCKS: &str = "<vpcSet><item><vpcId>vpc-1</vpcId><cidrBlockAssociationSet>\
    <item><cidrBlock>10.0.0.0/16</cidrBlock><cidrBlockState><state>associated</state></cidrBlockState></item>\
    <item><cidrBlock>10.1.0.0/16</cidrBlock><cidrBlockState><state>disassociated</state></cidrBlockState></item>\
    <item><cidrBlock>10.2.0.0/16</cidrBlock><cidrBlockState><state>associated</state></cidrBlockState></item>\
    </cidrBlockAssociationSet></item></vpcSet>";

fn aws(call: &Call) -> (u16, String) {
    let group = |id: &str, name: &str| {
        let tag = format!("<tagSet><item><key>Name</key><value>{name}</value></item></tagSet>");
        format!("<securityGroupInfo><item><groupId>{id}</groupId>{tag}</item></securityGroupInfo>")
    };
    let result = match call.action.as_str() {
        "DescribeSubnets" => SUBNETS.to_owned(),
        "DescribeAvailabilityZones" => ZONES.to_owned(),
        "DescribeRouteTables" => TABLES.to_owned(),
        "DescribeVpcs" => BLOCKS.to_owned(),
        "DescribeSecurityGroups" => match call.param("Filter.2.Name") {
            "group-id" => group("sg-1", "other"),
            _ => group("sg-2", "web"),
        },
        _ => return ec2_error(400, "UnknownAction", &call.action),
    };
    ec2(&call.action, &result)
}

async fn store(answer: fn(&Call) -> (u16, String)) -> (Fake, FactStore) {
    let fake = Fake::start(move |call| async move { answer(&call) }).await;
    let aws = Arc::new(crate::testing::at(&fake.endpoint, None));
    (fake, FactStore::new(aws, "demo".to_owned(), VpcId::new("vpc-1")))
}

fn named(names: &[&str]) -> SubnetQuery {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    SubnetQuery::Named { kind: LoadBalancerKind::Network, names, ipv6: false }
}

async fn subnets(store: &FactStore, query: &SubnetQuery) -> Fact<Vec<Subnet>> {
    let mut facts = Facts::default();
    store.answer(&FactQuery::Subnets(query.clone()), &mut facts).await;
    facts.subnets(query).unwrap()
}

async fn groups(store: &FactStore, names: &[&str]) -> Fact<Vec<SecurityGroupId>> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut facts = Facts::default();
    store.answer(&FactQuery::SecurityGroups(names.clone()), &mut facts).await;
    facts.security_groups(&names).unwrap()
}

fn the_subnet() -> Fact<Vec<Subnet>> {
    let ipv4_blocks = vec!["10.0.0.0/24".to_owned()];
    Fact::Known(vec![Subnet { ipv4_blocks, ..Subnet::of_unknown_blocks(SubnetId::new("subnet-1")) }])
}

#[tokio::test]
async fn one_reading_of_the_vpc_answers_all_questions_about_its_subnets() {
    let (fake, store) = store(aws).await;
    assert_eq!(subnets(&store, &named(&["web"])).await, the_subnet());
    assert_eq!(subnets(&store, &named(&["subnet-1"])).await, the_subnet());
    assert_eq!(fake.actions(), ["DescribeAvailabilityZones", "DescribeSubnets"]);
    // No subnet has a role tag.
    let discovered = SubnetQuery::Discovered { kind: LoadBalancerKind::Network, scheme: Scheme::Internal, ipv6: false };
    assert_eq!(subnets(&store, &discovered).await, the_subnet());
    assert_eq!(subnets(&store, &discovered).await, the_subnet());
    assert_eq!(fake.actions(), ["DescribeRouteTables"]);
    store.invalidate();
    assert_eq!(subnets(&store, &discovered).await, the_subnet());
    assert_eq!(fake.actions(), ["DescribeAvailabilityZones", "DescribeRouteTables", "DescribeSubnets"]);
}

#[tokio::test]
async fn a_subnet_that_is_not_there_is_looked_for_again() {
    let (fake, store) = store(aws).await;
    for calls in [&["DescribeAvailabilityZones", "DescribeSubnets"][..], &["DescribeSubnets"]] {
        let Fact::Absent { message, fix } = subnets(&store, &named(&["wbe"])).await else { panic!("it was found") };
        assert_eq!(fake.actions(), calls);
        insta::allow_duplicates! {
            insta::assert_snapshot!(format!("{message}\nfix: {fix}"), @"
            vpc-1 has no subnet `wbe`
            fix: name subnets of vpc-1, by id or by the tag `Name`; the nearest it has: `web`
            ");
        }
    }
    // The data read for the one serves the other.
    assert_eq!(subnets(&store, &named(&["web"])).await, the_subnet());
    assert_eq!(fake.actions(), [""; 0]);
}

#[tokio::test]
async fn security_groups_are_asked_for_by_filter_and_kept() {
    let (fake, store) = store(aws).await;
    let known = Fact::Known(vec![SecurityGroupId::new("sg-1"), SecurityGroupId::new("sg-2")]);
    assert_eq!(groups(&store, &["web", "sg-1"]).await, known);
    let calls = fake.calls();
    let filters = calls.iter().map(|call| {
        let filter = |n: u8| (call.param(&format!("Filter.{n}.Name")), call.param(&format!("Filter.{n}.Value.1")));
        [filter(1), filter(2)]
    });
    assert_eq!(
        filters.collect::<Vec<_>>(),
        [[("vpc-id", "vpc-1"), ("group-id", "sg-1")], [("vpc-id", "vpc-1"), ("tag:Name", "web")]]
    );
    assert_eq!(groups(&store, &["web", "sg-1"]).await, known);
    assert_eq!(fake.actions(), [""; 0]);
    store.invalidate();
    assert_eq!(groups(&store, &["web", "sg-1"]).await, known);
    assert_eq!(fake.actions(), ["DescribeSecurityGroups", "DescribeSecurityGroups"]);
}

#[tokio::test]
async fn a_security_group_that_is_not_there_is_looked_for_again() {
    let (fake, store) = store(aws).await;
    for _ in 0..2 {
        let Fact::Absent { message, fix } = groups(&store, &["db", "sg-9"]).await else { panic!("it was found") };
        assert_eq!(fake.actions(), ["DescribeSecurityGroups", "DescribeSecurityGroups"]);
        insta::allow_duplicates! {
            insta::assert_snapshot!(format!("{message}\nfix: {fix}"), @"
            vpc-1 has no security group `db` or `sg-9`
            fix: name security groups of vpc-1, by id or by the tag `Name` (the group's own name does not count)
            ");
        }
    }
}

#[tokio::test]
async fn the_blocks_of_the_vpc_are_those_that_are_associated() {
    let (fake, store) = store(aws).await;
    let ipv4 = vec!["10.0.0.0/16".to_owned(), "10.2.0.0/16".to_owned()];
    let known = Some(Fact::Known(VpcBlocks { ipv4, ipv6: vec![] }));
    let mut facts = Facts::default();
    for calls in [&["DescribeVpcs"][..], &[]] {
        store.answer(&FactQuery::VpcBlocks, &mut facts).await;
        assert_eq!(facts.vpc_blocks, known);
        assert_eq!(fake.actions(), calls);
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_allow_and_is_not_kept() {
    let (fake, store) = store(|_| ec2_error(403, "UnauthorizedOperation", "You are not authorized")).await;
    let mut facts = Facts::default();
    store.answer(&FactQuery::VpcBlocks, &mut facts).await;
    let answers = [
        format!("{:?}", subnets(&store, &named(&["web"])).await),
        format!("{:?}", groups(&store, &["sg-1"]).await),
        format!("{:?}", facts.vpc_blocks),
    ];
    insta::assert_snapshot!(answers.join("\n"), @r#"
    Unavailable("AWS does not allow DescribeSubnets: You are not authorized (UnauthorizedOperation); allow the action `ec2:DescribeSubnets` in the IAM policy of the controller's role")
    Unavailable("AWS does not allow DescribeSecurityGroups: You are not authorized (UnauthorizedOperation); allow the action `ec2:DescribeSecurityGroups` in the IAM policy of the controller's role")
    Some(Unavailable("AWS does not allow DescribeVpcs: You are not authorized (UnauthorizedOperation); allow the action `ec2:DescribeVpcs` in the IAM policy of the controller's role"))
    "#);
    fake.calls();
    subnets(&store, &named(&["web"])).await;
    groups(&store, &["sg-1"]).await;
    store.answer(&FactQuery::VpcBlocks, &mut facts).await;
    assert_eq!(fake.actions(), ["DescribeSecurityGroups", "DescribeSubnets", "DescribeVpcs"]);
}

#[tokio::test]
async fn a_target_group_is_found_by_its_name_and_kept_for_a_while() {
    let answer = |call: &Call| match call.param("Names.member.1") {
        "blue" => elb(
            &call.action,
            "<TargetGroups><member><TargetGroupArn>arn:blue</TargetGroupArn><TargetGroupName>blue</TargetGroupName></member></TargetGroups>",
        ),
        "gone" => elb_error(400, "TargetGroupNotFound", "One or more target groups not found"),
        _ => elb_error(400, "AccessDenied", "denied by test"),
    };
    let (fake, store) = store(answer).await;
    let ask = async |name: &str| {
        let mut facts = Facts::default();
        store.answer(&FactQuery::TargetGroup(name.to_owned()), &mut facts).await;
        facts.target_group(name).unwrap()
    };
    assert_eq!(ask("blue").await, Fact::Known(TargetGroupArn::new("arn:blue")));
    assert_eq!(ask("blue").await, Fact::Known(TargetGroupArn::new("arn:blue")));
    assert_eq!(fake.actions(), ["DescribeTargetGroups"]);
    // A resource that does not exist is looked up every time.
    let absent = Fact::Absent {
        message: "there is no target group named `gone` in the account and region".to_owned(),
        fix: "create it, or name another by `targetGroupName` or `targetGroupARN`".to_owned(),
    };
    assert_eq!(ask("gone").await, absent);
    assert_eq!(ask("gone").await, absent);
    assert_eq!(fake.actions(), ["DescribeTargetGroups", "DescribeTargetGroups"]);
    assert!(matches!(ask("secret").await, Fact::Unavailable(_)));
    fake.calls();
    store.invalidate();
    assert_eq!(ask("blue").await, Fact::Known(TargetGroupArn::new("arn:blue")));
    assert_eq!(fake.actions(), ["DescribeTargetGroups"]);
}

/// ACM with these certificates, by name: the names that they are for, and whether a list contains them.
fn acm(call: &Call) -> (u16, String) {
    let request: serde_json::Value = serde_json::from_str(&call.body).unwrap();
    let arn = |name: &str| format!("arn:aws:acm:us-west-2:1:certificate/{name}");
    let body = match request["CertificateArn"].as_str() {
        None => serde_json::json!({"CertificateSummaryList": [
            {"CertificateArn": arn("listed"), "SubjectAlternativeNameSummaries": ["a.example.com"]},
            {"CertificateArn": arn("imported")},
            {"CertificateArn": arn("issued")},
        ]}),
        Some(asked) => {
            let name = asked.rsplit('/').next().unwrap();
            let kind = if name == "imported" { "IMPORTED" } else { "AMAZON_ISSUED" };
            let names = [format!("{name}.example.org")];
            let detail =
                serde_json::json!({"SubjectAlternativeNames": names, "Type": kind, "CertificateAuthorityArn": name});
            serde_json::json!({"Certificate": detail})
        }
    };
    (200, body.to_string())
}

async fn certificates(store: &FactStore, hosts: &[&str]) -> Result<Vec<String>, String> {
    let hosts: BTreeSet<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut facts = Facts::default();
    store.answer(&FactQuery::Certificates(hosts.clone()), &mut facts).await;
    match facts.certificates(&hosts).unwrap() {
        Fact::Known(arns) => Ok(arns.iter().map(|arn| arn.as_str().rsplit('/').next().unwrap().to_owned()).collect()),
        Fact::Absent { message, .. } => Err(message),
        other => panic!("{other:?}"),
    }
}

/// Returns the number of calls of ACM: lists, and descriptions of one certificate.
fn asked(fake: &Fake) -> (usize, usize) {
    let calls = fake.calls();
    let lists = calls.iter().filter(|call| call.body.contains("CertificateStatuses")).count();
    (lists, calls.len() - lists)
}

#[tokio::test]
async fn one_list_of_certificates_serves_all_who_ask_within_a_minute() {
    let (fake, store) = store(acm).await;
    assert_eq!(certificates(&store, &["a.example.com"]).await, Ok(vec!["listed".to_owned()]));
    assert_eq!(asked(&fake), (1, 2), "what a list tells is not asked for");
    let both = ["imported.example.org", "issued.example.org"];
    assert_eq!(certificates(&store, &both).await, Ok(vec!["imported".to_owned(), "issued".to_owned()]));
    store.invalidate();
    let none = certificates(&store, &["b.example.com"]).await.unwrap_err();
    assert_eq!(none, "ACM has no issued certificate for the host `b.example.com`");
    assert_eq!(asked(&fake), (0, 0), "what is missing in one place is no reason to list again");
}

#[tokio::test]
async fn what_is_known_of_certificates_ages() {
    let (fake, store) = store(acm).await;
    certificates(&store, &["a.example.com"]).await.unwrap();
    asked(&fake);
    for (seconds, expected) in [(30, (0, 0)), (31, (1, 0)), (240, (1, 1)), (36_000, (1, 2))] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
        certificates(&store, &["a.example.com"]).await.unwrap();
        assert_eq!(asked(&fake), expected, "{seconds} s later");
    }
}

#[tokio::test]
async fn certificates_of_allowed_authorities_alone_count() {
    let (fake, store) = store(acm).await;
    let store = store.with_certificate_authorities(["issued".to_owned()].into());
    assert_eq!(certificates(&store, &["issued.example.org"]).await, Ok(vec!["issued".to_owned()]));
    assert_eq!(asked(&fake), (1, 3), "a list does not tell who has issued a certificate");
    for host in ["a.example.com", "imported.example.org"] {
        assert!(certificates(&store, &[host]).await.is_err(), "{host}");
    }
}

#[tokio::test]
async fn an_imported_certificate_is_described_again_when_the_list_shows_another_import() {
    use std::sync::atomic::{AtomicI64, Ordering};
    static IMPORTED_AT: AtomicI64 = AtomicI64::new(1);
    let (fake, store) = store(|call| {
        let arn = "arn:aws:acm:us-west-2:1:certificate/imported";
        let body = if call.action == "ListCertificates" {
            let at = IMPORTED_AT.load(Ordering::SeqCst);
            serde_json::json!({ "CertificateSummaryList": [{ "CertificateArn": arn, "ImportedAt": at }] })
        } else {
            let names = ["a.example.com"];
            serde_json::json!({ "Certificate": { "SubjectAlternativeNames": names, "Type": "IMPORTED" } })
        };
        (200, body.to_string())
    })
    .await;
    for (imported_at, expected) in [(1, (1, 1)), (1, (1, 0)), (2, (1, 1)), (2, (1, 0))] {
        IMPORTED_AT.store(imported_at, Ordering::SeqCst);
        certificates(&store, &["a.example.com"]).await.unwrap();
        assert_eq!(asked(&fake), expected, "imported at {imported_at}");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(3600)).await;
        tokio::time::resume();
    }
}

#[tokio::test]
async fn certificates_that_were_requested_for_ingresses_are_not_found_by_host_name() {
    let (fake, store) = store(|call| {
        let arn = |name: &str| format!("arn:aws:acm:us-west-2:1:certificate/{name}");
        let names = serde_json::json!(["a.example.com"]);
        let summary =
            |name: &str| serde_json::json!({ "CertificateArn": arn(name), "SubjectAlternativeNameSummaries": names });
        let other =
            serde_json::json!({ "CertificateArn": arn("other"), "SubjectAlternativeNameSummaries": ["b.example.com"] });
        let body = match call.action.as_str() {
            "ListCertificates" => {
                serde_json::json!({ "CertificateSummaryList": [summary("own"), summary("requested"), other] })
            }
            _ if call.body.contains("requested") => {
                let tag = |key: &str| serde_json::json!({ "Key": key, "Value": "any" });
                serde_json::json!({ "Tags": [tag("elbv2.k8s.aws/cluster"), tag("ingress.k8s.aws/stack")] })
            }
            _ => serde_json::json!({ "Tags": [{ "Key": "elbv2.k8s.aws/cluster", "Value": "any" }] }),
        };
        (200, body.to_string())
    })
    .await;
    assert_eq!(certificates(&store, &["a.example.com"]).await, Ok(vec!["own".to_owned(), "requested".to_owned()]));
    assert_eq!(asked(&fake), (1, 0), "without the feature gate no tags are read");
    let store = store.without_requested_certificates(true);
    for calls in [(0, 2), (0, 0)] {
        assert_eq!(certificates(&store, &["a.example.com"]).await, Ok(vec!["own".to_owned()]));
        assert_eq!(asked(&fake), calls, "only of certificates for the host, and once");
    }
}

#[tokio::test]
async fn a_trust_store_is_found_by_its_name() {
    let (fake, store) = store(|call| {
        let arn =
            "<TrustStores><member><Name>partners</Name><TrustStoreArn>arn:store</TrustStoreArn></member></TrustStores>";
        match call.param("Names.member.1") {
            "partners" => albatross_simulation::fake::elb(&call.action, arn),
            _ => albatross_simulation::fake::elb_error(400, "TrustStoreNotFound", "not found"),
        }
    })
    .await;
    for _ in 0..2 {
        let mut facts = Facts::default();
        for name in ["partners", "nobodys"] {
            store.answer(&FactQuery::TrustStore(name.to_owned()), &mut facts).await;
        }
        assert_eq!(facts.trust_store("partners"), Some(Fact::Known(TrustStoreArn::new("arn:store"))));
        assert!(matches!(facts.trust_store("nobodys"), Some(Fact::Absent { .. })));
    }
    let asked: Vec<String> = fake.calls().iter().map(|call| call.param("Names.member.1").to_owned()).collect();
    assert_eq!(asked, ["partners", "nobodys", "nobodys"], "what is not found is asked for anew");
}

#[tokio::test]
async fn web_acls_are_listed_once_and_a_name_that_is_not_found_is_looked_for_again() {
    let (fake, store) = store(|call| match call.action.as_str() {
        "ListWebACLs" => {
            let arn = "arn:aws:wafv2:us-west-2:111122223333:regional/webacl/edge/1";
            (200, serde_json::json!({ "WebACLs": [{ "Name": "edge", "ARN": arn }] }).to_string())
        }
        _ => (200, serde_json::json!({ "SubscriptionState": "INACTIVE" }).to_string()),
    })
    .await;
    let mut facts = Facts::default();
    for name in ["edge", "edge", "lost"] {
        store.answer(&FactQuery::WebAcl(name.to_owned()), &mut facts).await;
    }
    assert!(matches!(facts.web_acl("edge"), Some(Fact::Known(arn)) if arn.name() == "edge"));
    let Some(Fact::Absent { message, fix }) = facts.web_acl("lost") else { panic!("{facts:?}") };
    insta::assert_snapshot!(format!("{message}; {fix}"), @"there is no regional web ACL `lost`; create it with the scope REGIONAL in the load balancer's account and region, or name another");
    assert_eq!(fake.actions(), ["ListWebACLs"], "the list is only a moment old");
    tokio::time::pause();
    tokio::time::advance(SHORTEST_AGE).await;
    tokio::time::resume();
    for name in ["lost", "gone", "lost", "edge"] {
        store.answer(&FactQuery::WebAcl(name.to_owned()), &mut facts).await;
    }
    assert_eq!(fake.actions(), ["ListWebACLs"], "one for all that are not found, and the others stay known");
    for _ in 0..2 {
        store.answer(&FactQuery::ShieldSubscription, &mut facts).await;
    }
    assert_eq!(facts.shield_subscription(), Some(Fact::Known(false)));
    assert_eq!(fake.actions(), ["GetSubscriptionState"]);
}

#[tokio::test]
async fn without_the_permission_a_web_acl_is_unavailable_and_the_action_is_named() {
    let (_fake, store) =
        store(|_| (400, serde_json::json!({ "__type": "AccessDeniedException", "message": "no" }).to_string())).await;
    let mut facts = Facts::default();
    store.answer(&FactQuery::WebAcl("edge".to_owned()), &mut facts).await;
    store.answer(&FactQuery::ShieldSubscription, &mut facts).await;
    let Some(Fact::Unavailable(why)) = facts.web_acl("edge") else { panic!("{facts:?}") };
    insta::assert_snapshot!(why, @"AWS does not allow ListWebACLs: no (AccessDeniedException); allow the action `wafv2:ListWebACLs` in the IAM policy of the controller's role");
    let Some(Fact::Unavailable(why)) = facts.shield_subscription() else { panic!("{facts:?}") };
    insta::assert_snapshot!(why, @"AWS does not allow GetSubscriptionState: no (AccessDeniedException); allow the action `shield:GetSubscriptionState` in the IAM policy of the controller's role");
}
