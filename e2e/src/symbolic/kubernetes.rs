//! The cluster's side: status and finalizers of Ingresses and Services, and the TargetGroupBindings.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{Snapshot, without_hash};
use crate::lab::Lab;
use crate::lab::cluster::{items, text};

pub(super) async fn read(lab: &Lab, snapshot: &Snapshot, namespace: &str) -> Result<Value> {
    let mut state = Map::new();
    for (api_version, kind, label) in [("networking.k8s.io/v1", "Ingress", "ingress"), ("v1", "Service", "service")] {
        for object in lab.cluster.list(api_version, kind, Some(namespace)).await? {
            let entries = items(&object, "/status/loadBalancer/ingress");
            let status: Vec<Value> = entries.iter().map(|entry| status_entry(snapshot, entry)).collect();
            let mut finalizers: Vec<&str> = items(&object, "/metadata/finalizers")
                .iter()
                .filter_map(Value::as_str)
                .filter(|finalizer| finalizer.contains("k8s.aws"))
                .collect();
            finalizers.sort_unstable();
            if !status.is_empty() || !finalizers.is_empty() {
                let name = format!("{label}/{}", text(&object, "/metadata/name"));
                state.insert(name, json!({"status": status, "finalizers": finalizers}));
            }
        }
    }
    for map in lab.cluster.list("v1", "ConfigMap", Some(namespace)).await? {
        let name = text(&map, "/metadata/name");
        if name.starts_with("aws-lbc-targets-") {
            let mut targets: Vec<&str> = text(&map, "/data/targets").split(',').filter(|it| !it.is_empty()).collect();
            targets.sort_unstable();
            let key = format!("configmap/{}", without_hash(name));
            state.insert(key, json!({"targets": targets}));
        }
    }
    for binding in lab.cluster.list("elbv2.k8s.aws/v1beta1", "TargetGroupBinding", Some(namespace)).await? {
        let spec = snapshot.symbols.value(&binding["spec"]);
        let labels = binding.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
        let name = without_hash(text(&binding, "/metadata/name"));
        let key = format!("tgb/{name} -> {}", text(&spec, "/targetGroupARN"));
        state.insert(key, json!({"spec": spec, "labels": labels}));
    }
    Ok(Value::Object(state))
}

/// An entry of `status.loadBalancer.ingress`, the host name replaced by the load balancer's symbol.
fn status_entry(snapshot: &Snapshot, entry: &Value) -> Value {
    let mut fields = entry.as_object().cloned().unwrap_or_default();
    fields.remove("ipMode");
    let host = text(entry, "/hostname");
    let name = snapshot.load_balancers.get(host).map_or(host, String::as_str);
    fields.insert("hostname".to_owned(), format!("lb:{name}").into());
    if let Some(ports) = fields.get_mut("ports") {
        *ports = items(ports, "").iter().map(|port| json!({"port": port["port"]})).collect();
    }
    Value::Object(fields)
}
