//! The simulated cluster, called as the controller calls it.

use std::pin::pin;

use futures::StreamExt;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use serde_json::json;

use super::*;
use albatross_core::api::{crd::TargetGroupBinding, kubernetes::Service};

fn service(name: &str) -> Value {
    json!({ "kind": "Service", "metadata": { "name": name, "namespace": "shop" }, "spec": { "type": "ClusterIP" } })
}

fn services(cluster: &SimulatedCluster) -> Api<Service> {
    Api::namespaced(cluster.client(&Life::new("test")), "shop")
}

fn code<T: std::fmt::Debug>(result: kube::Result<T>) -> u16 {
    match result.unwrap_err() {
        kube::Error::Api(status) => status.code,
        error => panic!("{error}"),
    }
}

fn merge(patch: Value) -> Patch<Value> {
    Patch::Merge(patch)
}

#[tokio::test(start_paused = true)]
async fn writes_are_answered_as_an_api_server_does() {
    let cluster = SimulatedCluster::new(1);
    let api = services(&cluster);
    let ours = PatchParams::default();
    assert!(api.get_opt("cart").await.unwrap().is_none());
    cluster.create(service("cart")).unwrap();
    assert_eq!(cluster.create(service("cart")).unwrap_err().reason, "AlreadyExists");
    let first = api.get("cart").await.unwrap();
    let version = first.metadata.resource_version.clone().unwrap();

    // A write of the status changes only the status.
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "hostname": "a" }] } }, "spec": { "type": "X" } });
    let reported = api.patch_status("cart", &ours, &merge(status)).await.unwrap();
    assert_eq!((reported.status.load_balancer.ingress.len(), reported.spec.kind.as_deref()), (1, Some("ClusterIP")));
    let other = json!({ "status": null, "metadata": { "annotations": { "a": "b" } } });
    let patched = api.patch("cart", &ours, &merge(other.clone())).await.unwrap();
    assert_eq!((patched.status.load_balancer.ingress.len(), patched.metadata.uid), (1, first.metadata.uid));
    // A write without a change does not create a new version.
    let before = cluster.version();
    api.patch("cart", &ours, &merge(other)).await.unwrap();
    assert_eq!(cluster.version(), before);

    // An old version, and the UID of another object.
    for metadata in [json!({ "resourceVersion": version, "finalizers": ["x/y"] }), json!({ "uid": "another" })] {
        assert_eq!(code(api.patch("cart", &ours, &merge(json!({ "metadata": metadata }))).await), 409);
    }

    // A finalizer keeps a deleted object; no finalizer can be added to it, and removing the last one deletes it.
    let held = |finalizers: Value| merge(json!({ "metadata": { "finalizers": finalizers } }));
    api.patch("cart", &ours, &held(json!(["x/y"]))).await.unwrap();
    api.delete("cart", &DeleteParams::default()).await.unwrap();
    assert!(api.get("cart").await.unwrap().metadata.deletion_timestamp.is_some());
    assert_eq!(code(api.patch("cart", &ours, &held(json!(["x/y", "z"]))).await), 422);
    api.patch("cart", &ours, &held(json!([]))).await.unwrap();
    assert_eq!(code(api.get("cart").await), 404);
    let verbs: Vec<&str> = cluster.log().iter().map(|change| change.verb).collect();
    assert_eq!(verbs, ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]);
    // The next object with the name has another UID.
    let next = cluster.create(service("cart")).unwrap();
    assert_eq!(next["metadata"]["uid"], "services/shop/cart/2");
}

#[tokio::test(start_paused = true)]
async fn generations_count_what_is_wanted_and_replacing_needs_the_version() {
    let cluster = SimulatedCluster::new(1);
    let api: Api<TargetGroupBinding> = Api::namespaced(cluster.client(&Life::new("test")), "shop");
    let new = json!({ "metadata": { "name": "tgb" }, "spec": { "serviceRef": { "name": "cart", "port": 80 } } });
    let new: TargetGroupBinding = serde_json::from_value(new).unwrap();
    let created = api.create(&PostParams::default(), &new).await.unwrap();
    assert_eq!(created.metadata.generation, Some(1));
    let mut changed = created.clone();
    changed.spec.target_group_name = Some("other".to_owned());
    let replaced = api.replace("tgb", &PostParams::default(), &changed).await.unwrap();
    assert_eq!((replaced.metadata.generation, replaced.metadata.uid.is_some()), (Some(2), true));
    assert_eq!(code(api.replace("tgb", &PostParams::default(), &changed).await), 409);
    let labelled = json!({ "metadata": { "labels": { "stack": "a/b" } } });
    assert_eq!(api.patch("tgb", &PatchParams::default(), &merge(labelled)).await.unwrap().metadata.generation, Some(2));
    for (selector, found) in [("stack=a/b", 1), ("stack=a", 0)] {
        assert_eq!(api.list(&ListParams::default().labels(selector)).await.unwrap().items.len(), found);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_brings_everything_however_it_is_broken() {
    for seed in 0..30 {
        let cluster = SimulatedCluster::new(seed);
        for number in 0..5 {
            cluster.create(service(&format!("before-{number}"))).unwrap();
        }
        cluster.set_faults(Faults {
            fails_before: 0.1,
            lost_before: 0.02,
            torn_lists: 0.3,
            breaks: 0.1,
            expires: 0.1,
            duplicates: 0.1,
            latest: Duration::from_secs(3),
            ..Faults::default()
        });
        let mut known = std::collections::BTreeMap::new();
        let mut listed = std::collections::BTreeMap::new();
        let config = watcher::Config::default().page_size(3);
        let mut stream = pin!(watcher(services(&cluster), config).default_backoff());
        let mut wanted = 0;
        let converged = async {
            for number in 0..20 {
                cluster.create(service(&format!("during-{number}"))).unwrap();
                cluster.delete("services", "shop", &format!("before-{number}"));
                match number {
                    7 => cluster.disconnect(),
                    14 => cluster.compact(),
                    _ => {}
                }
                let until = Instant::now() + Duration::from_millis(700);
                while let Ok(Some(event)) = tokio::time::timeout_at(until, stream.next()).await {
                    let version = |o: &Service| o.metadata.resource_version.clone().unwrap();
                    let name = |o: &Service| o.metadata.name.clone().unwrap();
                    match event {
                        Ok(Event::Init) => listed.clear(),
                        Ok(Event::InitApply(o)) => drop(listed.insert(name(&o), version(&o))),
                        Ok(Event::InitDone) => known = std::mem::take(&mut listed),
                        Ok(Event::Apply(o)) => drop(known.insert(name(&o), version(&o))),
                        Ok(Event::Delete(o)) => drop(known.remove(&name(&o))),
                        Err(_) => {}
                    }
                }
                if number == 19 {
                    cluster.set_faults(Faults::default());
                }
            }
            wanted = cluster.list("services").len();
            // All events may have arrived already.
            while known.len() != wanted {
                let Some(event) = stream.next().await else { break };
                match event {
                    Ok(Event::Init) => listed.clear(),
                    Ok(Event::InitApply(o)) => drop(listed.insert(o.metadata.name.clone().unwrap(), String::new())),
                    Ok(Event::InitDone) => known = std::mem::take(&mut listed),
                    Ok(Event::Apply(o)) => drop(known.insert(o.metadata.name.unwrap(), String::new())),
                    Ok(Event::Delete(o)) => drop(known.remove(&o.metadata.name.unwrap())),
                    Err(_) => {}
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(600), converged).await;
        let names: Vec<String> =
            cluster.list("services").iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        assert!(in_time.is_ok() && known.keys().eq(names.iter()), "seed {seed}: {known:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn conditions_of_a_pod_are_changed_one_by_one() {
    let cluster = SimulatedCluster::new(1);
    cluster.create(json!({ "kind": "Pod", "metadata": { "name": "p", "namespace": "shop" } })).unwrap();
    let condition = |kind: &str, status: &str, reason| json!({ "type": kind, "status": status, "reason": reason });
    let patch = |conditions| cluster.set_status("pods", "shop", "p", json!({ "conditions": conditions }));
    patch(json!([condition("a", "False", Some("Waits")), condition("b", "True", None)]));
    patch(json!([condition("a", "True", None), condition("c", "True", None)]));
    let pod = cluster.get("pods", "shop", "p").unwrap();
    let expected = json!([
        { "type": "a", "status": "True" }, { "type": "b", "status": "True" }, { "type": "c", "status": "True" },
    ]);
    assert_eq!(pod["status"]["conditions"], expected);
}
