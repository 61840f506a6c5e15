use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::*;
use albatross_core::{
    model::{ObjectName, ObservedTargetGroup, TargetGroupArn},
    record::FORMAT,
};
use albatross_simulation::fake::{Call, Fake};

fn header(holder: &str) -> Header {
    Header {
        format: FORMAT,
        cluster: "demo".to_owned(),
        region: "us-west-2".to_owned(),
        vpc: "vpc-1".to_owned(),
        holder: holder.to_owned(),
        term: 0,
        since: 0,
    }
}

fn stack(name: &str) -> StackId {
    StackId::Ingress(ObjectName::new("shop", name))
}

/// Returns a state of AWS, of which only a name matters here.
fn observed(name: &str) -> ObservedStack {
    let group = ObservedTargetGroup {
        arn: TargetGroupArn::new("arn:tg/1"),
        name: name.to_owned(),
        target_type: "ip".to_owned(),
        protocol: "HTTP".to_owned(),
        protocol_version: None,
        ip_address_type: albatross_core::model::IpAddressType::Ipv4,
        health_check: None,
        attributes: None,
        tags: BTreeMap::new(),
    };
    ObservedStack { target_groups: vec![group], ..ObservedStack::default() }
}

fn promised(name: &str) -> Vec<(StackId, Clean)> {
    vec![(stack("web"), Clean::of(&observed(name)))]
}

/// The ConfigMaps of a namespace, by name.
type Stored = Arc<Mutex<BTreeMap<String, Json>>>;

fn status(code: u16, reason: &str) -> (u16, String) {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "message": format!("answer {code}"), "reason": reason });
    (code, body.to_string())
}

/// An API server's ConfigMaps, with the check of versions.
fn answer(stored: &Stored, call: &Call) -> (u16, String) {
    let (method, path) = call.action.split_once(' ').unwrap();
    let path = path.strip_prefix("/api/v1/namespaces/kube-system/configmaps").unwrap();
    let mut stored = stored.lock().unwrap();
    let mut object: Json = serde_json::from_str(&call.body).unwrap_or_default();
    let name =
        object["metadata"]["name"].as_str().map_or_else(|| path.trim_start_matches('/').to_owned(), str::to_owned);
    let version = stored.get(&name).map(|object| object["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
    match (method, version) {
        ("GET", Some(_)) => return (200, stored[&name].to_string()),
        ("POST", None) => object["metadata"]["resourceVersion"] = json!("1"),
        ("PUT", Some(version)) if object["metadata"]["resourceVersion"] == json!(version) => {
            object["metadata"]["resourceVersion"] = json!((version.parse::<u32>().unwrap() + 1).to_string());
        }
        ("POST" | "PUT", Some(_)) => return status(409, "Conflict"),
        _ => return status(404, "NotFound"),
    }
    stored.insert(name, object.clone());
    (200, object.to_string())
}

async fn server(
    stored: &Stored,
    special: impl Fn(&Call) -> Option<(u16, String)> + Clone + Send + Sync + 'static,
) -> Fake {
    // The HTTP stack is built for TLS, too, though none is used here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let stored = Arc::clone(stored);
    Fake::start(move |call| {
        let answered = special(&call).unwrap_or_else(|| answer(&stored, &call));
        async move { answered }
    })
    .await
}

async fn records(fake: &Fake, holder: &str) -> Records {
    loaded(fake, holder).await.0
}

async fn loaded(fake: &Fake, holder: &str) -> (Records, Vec<(StackId, Clean)>) {
    let client = kube::Client::try_from(kube::Config::new(fake.endpoint.parse().unwrap())).unwrap();
    let client = WriteClient::new(client, albatross_aws::WritePermit::without_election());
    let records = Records::new(&client, "kube-system", "aws-load-balancer-controller-leader", header(holder));
    let promises = records.load(7).await.clean;
    fake.calls();
    (records, promises)
}

fn writes(fake: &Fake) -> Vec<String> {
    fake.actions().into_iter().filter(|action| !action.starts_with("GET")).collect()
}

#[tokio::test]
async fn a_promise_outlives_the_process_and_is_taken_back_before_anything_is_changed() {
    let stored = Stored::default();
    let fake = server(&stored, |_| None).await;
    let first = records(&fake, "first").await;
    first.mark_clean(&stack("web"), &observed("1"), TagKeys::default());
    assert!(!first.is_written());
    first.flush().await.unwrap();
    assert!(first.is_written());
    let name = format!("albatross-records-{}", record::shard(&record::key(&stack("web"))));
    assert_eq!(writes(&fake), [format!("PUT /api/v1/namespaces/kube-system/configmaps/{name}")]);

    let (second, promises) = loaded(&fake, "second").await;
    assert_eq!(promises, promised("1"));
    second.mark_dirty(&stack("web"), &ObservedStack::default(), TagKeys::default()).await.unwrap();
    assert_eq!(writes(&fake), [format!("PUT /api/v1/namespaces/kube-system/configmaps/{name}")]);
    let third = records(&fake, "third").await;
    assert_eq!((third.is_clean(&stack("web")), third.counts()), (false, (1, 0)));

    // Marking dirty a stack without a clean record costs no write, and the same clean record no second one.
    third.mark_dirty(&stack("web"), &ObservedStack::default(), TagKeys::default()).await.unwrap();
    third.mark_clean(&stack("web"), &observed("2"), TagKeys::default());
    third.flush().await.unwrap();
    third.mark_clean(&stack("web"), &observed("2"), TagKeys::default());
    third.flush().await.unwrap();
    assert_eq!(writes(&fake).len(), 1);
    third.remove(&stack("web"));
    third.flush().await.unwrap();
    assert_eq!(records(&fake, "fourth").await.counts(), (0, 0));
}

fn keys(names: &[&str]) -> TagKeys {
    let mut keys = TagKeys::default();
    keys.add(&albatross_core::model::ResourceId::of_tag("LoadBalancer"), names.iter().map(|name| (*name).to_owned()));
    keys
}

#[tokio::test]
async fn tags_that_are_about_to_be_set_are_known_as_ours_before_they_are_even_after_a_crash() {
    let stored = Stored::default();
    let fake = server(&stored, |_| None).await;
    let first = records(&fake, "first").await;
    // Before a stack is in its desired state for the first time, nothing is known: it may belong to another owner until then.
    first.mark_dirty(&stack("web"), &ObservedStack::default(), keys(&["team"])).await.unwrap();
    assert_eq!(first.tag_keys(&stack("web")), None);
    first.mark_clean(&stack("web"), &observed("1"), keys(&["team"]));
    assert_eq!(first.tag_keys(&stack("web")), Some(keys(&["team"])));
    first.mark_dirty(&stack("web"), &ObservedStack::default(), keys(&["cost"])).await.unwrap();

    // It crashes while it writes.
    let second = records(&fake, "second").await;
    assert_eq!(second.tag_keys(&stack("web")), Some(keys(&["team", "cost"])));
    assert!(!second.is_clean(&stack("web")));
    second.mark_clean(&stack("web"), &observed("1"), keys(&["cost"]));
    second.flush().await.unwrap();
    assert_eq!(records(&fake, "third").await.tag_keys(&stack("web")), Some(keys(&["cost"])));
    second.remove(&stack("web"));
    assert_eq!(second.tag_keys(&stack("web")), None);
}

#[tokio::test]
async fn whoever_was_deposed_can_promise_nothing_and_change_nothing() {
    let stored = Stored::default();
    let fake = server(&stored, |_| None).await;
    let first = records(&fake, "first").await;
    first.mark_clean(&stack("web"), &observed("1"), TagKeys::default());
    first.flush().await.unwrap();
    let _second = records(&fake, "second").await;
    let error = RecordError::Deposed("second".to_owned());
    let deposed = Err(error.clone());
    assert_eq!(first.mark_dirty(&stack("web"), &ObservedStack::default(), TagKeys::default()).await, deposed);
    first.mark_clean(&stack("web"), &observed("2"), TagKeys::default());
    assert_eq!(first.flush().await, deposed);
    assert_eq!(loaded(&fake, "third").await.1, promised("1"));
    insta::assert_snapshot!(error, @"another process (second) writes the records by now, so this one does not lead any more");
}

#[tokio::test]
async fn a_lost_answer_and_a_deleted_config_map_are_no_obstacle() {
    let stored = Stored::default();
    let lost = Arc::new(Mutex::new(false));
    let (lose, behind) = (Arc::clone(&lost), Arc::clone(&stored));
    let fake = server(&stored, move |call| {
        let lose = call.action.starts_with("PUT") && std::mem::take(&mut *lose.lock().unwrap());
        lose.then(|| {
            answer(&behind, call);
            status(500, "InternalError")
        })
    })
    .await;
    let records = records(&fake, "first").await;
    records.mark_clean(&stack("web"), &observed("1"), TagKeys::default());
    records.flush().await.unwrap();
    *lost.lock().unwrap() = true;
    insta::assert_snapshot!(records.mark_dirty(&stack("web"), &ObservedStack::default(), TagKeys::default()).await.unwrap_err(), @r"cannot write the ConfigMap albatross-records-7 in namespace kube-system, which holds the records: answer 500");
    // It has taken effect, so that the version is another now; the holder is still this process.
    records.mark_dirty(&stack("web"), &ObservedStack::default(), TagKeys::default()).await.unwrap();
    assert!(records.is_written());

    stored.lock().unwrap().clear();
    records.mark_clean(&stack("web"), &observed("2"), TagKeys::default());
    records.flush().await.unwrap();
    assert_eq!(stored.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn whoever_led_before_is_overwritten_although_it_writes_in_the_last_moment() {
    let stored = Stored::default();
    let meddled = Arc::new(Mutex::new(0));
    let (meddle, behind) = (Arc::clone(&meddled), Arc::clone(&stored));
    let fake = server(&stored, move |call| {
        // Between the reading of the next and its writing.
        let write = call.action.starts_with("POST") && call.body.contains("albatross-records-0");
        let mut meddle = meddle.lock().unwrap();
        if write && *meddle == 0 {
            *meddle += 1;
            let body = call.body.replace("second", "first");
            answer(&behind, &Call { body, ..call.clone() });
        }
        None
    })
    .await;
    let second = records(&fake, "second").await;
    assert!(second.are_kept());
    assert_eq!(*meddled.lock().unwrap(), 1);
    let text = stored.lock().unwrap()["albatross-records-0"]["data"]["header"].to_string();
    assert!(text.contains("second"), "{text}");
}

#[tokio::test]
async fn records_are_waited_for_while_the_api_server_fails_and_do_not_count_after_a_strangers_term() {
    let stored = Stored::default();
    let failures = Arc::new(Mutex::new(0));
    let fail = Arc::clone(&failures);
    let fake = server(&stored, move |_| {
        let mut left = fail.lock().unwrap();
        *left -= i32::from(*left > 0);
        (*left > 0).then(|| status(500, "InternalError"))
    })
    .await;
    let first = records(&fake, "first").await;
    first.mark_clean(&stack("web"), &observed("1"), TagKeys::default());
    first.flush().await.unwrap();
    *failures.lock().unwrap() = 4;
    let (second, promises) = loaded(&fake, "second").await;
    assert_eq!((second.are_kept(), promises), (true, promised("1")));
    let client = kube::Client::try_from(kube::Config::new(fake.endpoint.parse().unwrap())).unwrap();
    let client = WriteClient::new(client, albatross_aws::WritePermit::without_election());
    let third = Records::new(&client, "kube-system", "aws-load-balancer-controller-leader", header("third"));
    assert_eq!(third.load(9).await, Loaded::default());
}

#[tokio::test]
async fn without_the_permission_there_are_no_records_and_work_goes_on() {
    let fake = server(&Stored::default(), |_| Some(status(403, "Forbidden"))).await;
    let records = records(&fake, "first").await;
    assert!(!records.are_kept());
    records.mark_clean(&stack("web"), &observed("1"), TagKeys::default());
    assert_eq!(
        (records.mark_dirty(&stack("web"), &ObservedStack::default(), TagKeys::default()).await, records.flush().await),
        (Ok(()), Ok(()))
    );
    assert_eq!(records.counts(), (0, 0));
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_change_waits_for_no_promise_of_others() {
    let stored = Stored::default();
    let fake = server(&stored, |_| None).await;
    let records = records(&fake, "first").await;
    let shard = |name: &str| record::shard(&record::key(&stack(name)));
    let other = (0..10_000).map(|number| format!("other-{number}")).find(|name| shard(name) == shard("web")).unwrap();
    records.mark_clean(&stack("web"), &observed("1"), TagKeys::default());
    records.mark_dirty(&stack(&other), &ObservedStack::default(), TagKeys::default()).await.unwrap();
    assert_eq!(writes(&fake), Vec::<String>::new());
    // The stack's own mark is removed, and that is written, with the mark of the other stack.
    records.mark_clean(&stack(&other), &observed("1"), TagKeys::default());
    records.mark_dirty(&stack(&other), &ObservedStack::default(), TagKeys::default()).await.unwrap();
    assert_eq!(writes(&fake).len(), 1);
    assert!(records.is_written());
}

#[test]
fn promises_are_written_at_a_rate_that_the_api_server_can_take() {
    let pauses = [0, 1024, 256 * 1024, 960 * 1024].map(pause);
    assert_eq!(pauses, [0, 3906, 1_000_000, 3_750_000].map(Duration::from_micros));
}

#[tokio::test]
async fn who_waits_for_aws_is_dirty_before_anything_is_changed_and_who_waits_for_clients_is_clean() {
    let stored = Stored::default();
    let fake = server(&stored, |_| None).await;
    let first = records(&fake, "first").await;
    let age = |wait| BTreeMap::from([(wait, Duration::from_secs(10))]);
    let moved = || age(Wait::Moved(ObjectName::new("shop", "a")));
    first.note_waits(&stack("web"), &moved());
    first.mark_clean(&stack("web"), &observed("1"), TagKeys::default());
    first.note_waits(&stack("web"), &moved());
    assert!(first.is_clean(&stack("web")));
    first.flush().await.unwrap();
    writes(&fake);
    // Neither a plan nor a pass of it changes what is recorded.
    first.mark_clean(&stack("web"), &observed("1"), TagKeys::default());
    first.note_waits(&stack("web"), &moved());
    first.flush().await.unwrap();
    assert_eq!(writes(&fake).len(), 0);
    let (second, promises) = loaded(&fake, "second").await;
    assert_eq!((promises, second.waits().len()), (promised("1"), 1));
    writes(&fake);
    // A plan that waits for something in AWS begins: the promise is taken back before its first step.
    second.note_waits(&stack("web"), &age(Wait::Opened(443)));
    second.mark_dirty(&stack("web"), &ObservedStack::default(), TagKeys::default()).await.unwrap();
    assert_eq!(writes(&fake).len(), 1);
    let third = records(&fake, "third").await;
    assert_eq!((third.is_clean(&stack("web")), third.waits().len()), (false, 1));
    // Nobody waits any more.
    third.mark_clean(&stack("web"), &observed("1"), TagKeys::default());
    third.note_waits(&stack("web"), &moved());
    third.note_waits(&stack("web"), &BTreeMap::new());
    third.flush().await.unwrap();
    let (fourth, promises) = loaded(&fake, "fourth").await;
    assert_eq!((promises, fourth.waits().len()), (promised("1"), 0));
}

#[tokio::test]
async fn waits_outlive_the_process_also_of_a_stack_that_was_in_its_desired_state() {
    let stored = Stored::default();
    let fake = server(&stored, |_| None).await;
    let first = records(&fake, "first").await;
    first.mark_clean(&stack("web"), &observed("1"), TagKeys::default());
    first.flush().await.unwrap();
    let ready = |name: &str| Wait::Ready(albatross_core::model::ResourceId::of_tag(name));
    let aged = |wait: Wait, seconds| BTreeMap::from([(wait, Duration::from_secs(seconds))]);
    first.note_waits(&stack("web"), &aged(ready("shop/a-a:80"), 100));
    assert!(!first.is_clean(&stack("web")), "a change waits");
    first.flush().await.unwrap();
    writes(&fake);
    // The same wait, a moment later, is no other; with another beginning it is.
    first.note_waits(&stack("web"), &aged(ready("shop/a-a:80"), 101));
    first.flush().await.unwrap();
    assert_eq!(writes(&fake).len(), 0);
    first.note_waits(&stack("web"), &aged(ready("shop/a-a:80"), 40));
    first.flush().await.unwrap();
    assert_eq!(writes(&fake).len(), 1);

    let second = records(&fake, "second").await;
    let [(of, waits)] = second.waits().try_into().unwrap();
    let [(wait, age)] = waits.try_into().unwrap();
    assert_eq!((of, wait), (stack("web"), ready("shop/a-a:80")));
    assert!((40..60).contains(&age.as_secs()), "{age:?}");
    second.mark_clean(&stack("web"), &observed("1"), TagKeys::default());
    second.flush().await.unwrap();
    assert_eq!(records(&fake, "third").await.waits(), vec![]);
}

#[tokio::test]
async fn who_has_what_outlives_a_process_that_ends_before_the_stack_is_in_its_desired_state() {
    let stored = Stored::default();
    let fake = server(&stored, |_| None).await;
    let group = StackId::Group("shared".to_owned());
    let of = |port: u16, name: &str| {
        let held = albatross_core::model::MemberResources {
            member: albatross_core::model::ObjectReference::ingress(&ObjectName::new("shop", "web")),
            rules: std::collections::BTreeSet::new(),
            ports: [(port, albatross_core::model::ListenerResources::default())].into(),
        };
        let certificate = albatross_core::model::ObservedCertificate {
            arn: albatross_core::model::CertificateArn::new("arn:certificate/1"),
            resource: albatross_core::model::ResourceId::of_tag("amazon_issued/a.example.com-00000000"),
            hosts: std::collections::BTreeSet::new(),
            authority: None,
            status: albatross_core::model::CertificateStatus::Pending,
            records: Vec::new(),
            validated: std::collections::BTreeSet::new(),
            created: [name.to_owned()].into(),
        };
        let certificates = Some(vec![certificate]);
        ObservedStack { member_resources: vec![held], certificates, ..ObservedStack::default() }
    };
    let expected = |port: u16, name: &str| {
        let remembered = Remembered::default().with(&of(port, name));
        Loaded { clean: Vec::new(), remembered: vec![(group.clone(), remembered)] }
    };
    let again = async || {
        let client = kube::Client::try_from(kube::Config::new(fake.endpoint.parse().unwrap())).unwrap();
        let client = WriteClient::new(client, albatross_aws::WritePermit::without_election());
        let records = Records::new(&client, "kube-system", "aws-load-balancer-controller-leader", header("again"));
        let loaded = records.load(7).await;
        (records, loaded)
    };
    // It was never in its desired state.
    let (first, loaded) = again().await;
    assert_eq!(loaded, Loaded::default());
    first.remember(&group, &of(80, "_1."));
    first.flush().await.unwrap();
    let (second, loaded) = again().await;
    assert_eq!(loaded, expected(80, "_1."));
    fake.calls();
    // The same costs no second write.
    second.remember(&group, &of(80, "_1."));
    second.mark_dirty(&group, &of(80, "_1."), TagKeys::default()).await.unwrap();
    second.flush().await.unwrap();
    assert_eq!(writes(&fake), Vec::<String>::new());
    // A change begins, or a wait, after which it is not clean any more.
    second.mark_clean(&group, &of(443, "_2."), TagKeys::default());
    second.mark_dirty(&group, &of(443, "_2."), TagKeys::default()).await.unwrap();
    let (third, loaded) = again().await;
    assert_eq!(loaded, expected(443, "_2."));
    third.mark_clean(&group, &of(8443, "_3."), TagKeys::default());
    third.note_waits(&group, &BTreeMap::from([(Wait::Opened(443), Duration::ZERO)]));
    third.flush().await.unwrap();
    let (fourth, loaded) = again().await;
    assert_eq!(loaded, expected(8443, "_3."));
    fourth.note_waits(&group, &BTreeMap::new());
    // Certificates that are not known yet.
    let unknown = ObservedStack { certificates: None, ..of(8443, "") };
    fourth.mark_dirty(&group, &unknown, TagKeys::default()).await.unwrap();
    fourth.flush().await.unwrap();
    let (fifth, loaded) = again().await;
    assert_eq!(loaded, expected(8443, "_3."));
    fifth.remove(&group);
    fifth.flush().await.unwrap();
    assert_eq!(again().await.1, Loaded::default());
}
