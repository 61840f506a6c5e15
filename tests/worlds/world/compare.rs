//! Two worlds, compared by their resources and objects, with the lines that differ.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use albatross_core::{dry_run_plan, model::tags};
use albatross_simulation::{
    aws::State,
    cluster::{SimulatedCluster, finalizers, is_deleting},
};

/// Names of target groups and of load balancers in front of others, and what they are for. A name counts at creation only, and is
/// made from UIDs among other things; and one that takes over from another has another name.
pub(crate) type Names = BTreeMap<String, String>;

pub(crate) fn names(state: &State) -> Names {
    let mut names = Names::new();
    let in_front = |tags: &albatross_core::model::Tags| tags::resource_of(tags).is_some_and(|id| id.is_of_frontend());
    let balancers = state.load_balancers.iter().map(|(name, balancer)| (name, &balancer.tags));
    let balancers = balancers.filter(|(_, tags)| in_front(tags));
    for (name, tags) in balancers.chain(state.target_groups.iter().map(|(name, group)| (name, &group.tags))) {
        let value = |keys: [&str; 2]| keys.iter().find_map(|key| tags.get(*key)).cloned();
        let stack = value([tags::INGRESS_STACK, tags::SERVICE_STACK]);
        if let (Some(stack), Some(resource)) = (stack, value([tags::INGRESS_RESOURCE, tags::SERVICE_RESOURCE])) {
            let mut identity = format!("{resource} of {stack}");
            while names.values().any(|other| *other == identity) {
                identity.push_str(" again");
            }
            names.insert(name.clone(), identity);
        }
    }
    names
}

/// The beginning of the name of the security group that load balancers share.
const SHARED: &str = "k8s-traffic-";

fn renamed(value: Value, names: &Names) -> Value {
    let rename = |name: String| names.get(&name).cloned().unwrap_or(name);
    match value {
        Value::String(text) => Value::String(rename(text)),
        Value::Array(items) => items.into_iter().map(|item| renamed(item, names)).collect(),
        Value::Object(fields) => {
            // In the order of the new names.
            let fields: BTreeMap<String, Value> =
                fields.into_iter().map(|(key, value)| (rename(key), renamed(value, names))).collect();
            Value::Object(fields.into_iter().collect())
        }
        other => other,
    }
}

/// Returns the state of AWS, as text. The security group that load balancers share stays as long as one of them could be in it, as
/// that of aws-load-balancer-controller does. So whether it is there while none is in it depends on the past.
pub(crate) fn text_of(state: &State) -> String {
    let mut state = state.clone();
    let is_used = |group: &str| state.load_balancers.values().any(|it| it.security_groups.iter().any(|id| id == group));
    let unused: Vec<String> =
        state.security_groups.keys().filter(|name| name.starts_with(SHARED) && !is_used(name)).cloned().collect();
    if !state.load_balancers.is_empty() {
        unused.iter().for_each(|name| drop(state.security_groups.remove(name)));
    }
    text(renamed(serde_json::to_value(&state).unwrap(), &names(&state)))
}

fn text(value: Value) -> String {
    serde_json::to_string_pretty(&value).unwrap()
}

/// Returns true if the controller has created the object.
pub(crate) fn is_made(object: &Value) -> bool {
    object["metadata"]["labels"].as_object().is_some_and(|labels| {
        labels.keys().any(|key| key.starts_with("ingress.k8s.aws/") || key.starts_with("service.k8s.aws/"))
    })
}

/// Returns the controller's results for the objects of a cluster, without values that depend on chance: identifiers, times, versions.
pub(crate) fn made_of(cluster: &SimulatedCluster, names: &Names) -> String {
    let mut made = Map::new();
    for plural in ["ingresses", "services", "targetgroupbindings"] {
        let mut of_kind = Map::new();
        for object in cluster.list(plural) {
            let status = object["status"]["loadBalancer"]["ingress"].as_array();
            let ports: Vec<&Value> = status.into_iter().flatten().map(|entry| &entry["ports"]).collect();
            let spec = &object["spec"];
            let spec = is_made(&object).then(|| {
                json!([spec["serviceRef"], spec["targetType"], spec["ipAddressType"], object["metadata"]["labels"]])
            });
            let reported = json!({
                "finalizers": finalizers(&object), "deleting": is_deleting(&object), "ports": ports, "made": spec,
                "ready": object["status"]["conditions"][0]["status"],
                "planned": object["metadata"]["annotations"][dry_run_plan::KEY].is_string(),
            });
            // A binding has the name that its target group would be given now, which may not be the one that it has.
            let group = object["spec"]["targetGroupARN"].as_str().and_then(|arn| arn.split('/').nth(1));
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            of_kind.insert(group.filter(|_| is_made(&object)).unwrap_or(name).to_owned(), reported);
        }
        made.insert(plural.to_owned(), Value::Object(of_kind));
    }
    made.insert("own targets".to_owned(), own_targets(cluster));
    text(renamed(Value::Object(made), names))
}

/// Returns the binding whose own targets a ConfigMap records; `None` if it is another one.
pub(crate) fn record_of(map: &Value) -> Option<&str> {
    map["metadata"]["name"].as_str()?.strip_prefix("aws-lbc-targets-")
}

/// Returns the records of the targets that are the bindings' own, by the names of the target groups.
fn own_targets(cluster: &SimulatedCluster) -> Value {
    let mut own = Map::new();
    let bindings = cluster.list("targetgroupbindings");
    for map in cluster.list("configmaps") {
        let Some(name) = record_of(&map) else { continue };
        let binding = bindings.iter().find(|binding| binding["metadata"]["name"] == name);
        let group = binding.and_then(|binding| binding["spec"]["targetGroupARN"].as_str()?.split('/').nth(1));
        // A binding that has had targets keeps an empty record, which says the same as none.
        if group.is_some() && map["data"]["targets"] == "" {
            continue;
        }
        own.insert(group.unwrap_or(name).to_owned(), map["data"]["targets"].clone());
    }
    Value::Object(own)
}

pub(crate) fn compared(what: &str, is: &str, shall_be: &str) -> Result<(), String> {
    if is == shall_be {
        return Ok(());
    }
    let (is, shall_be): (Vec<&str>, Vec<&str>) = (is.lines().collect(), shall_be.lines().collect());
    Err(format!("{what} differs (- is, + shall be):\n{}", difference(&is, &shall_be)))
}

/// The lines that differ, with the last lines of each lesser indentation before them, which say where they are.
fn difference(is: &[&str], shall_be: &[&str]) -> String {
    let width = shall_be.len() + 1;
    // The number of lines that the rests of both have in common.
    let mut common = vec![0_u32; (is.len() + 1) * width];
    for left in (0..is.len()).rev() {
        for right in (0..shall_be.len()).rev() {
            common[left * width + right] = if is[left] == shall_be[right] {
                common[(left + 1) * width + right + 1] + 1
            } else {
                common[(left + 1) * width + right].max(common[left * width + right + 1])
            };
        }
    }
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let (mut reported, mut around): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    let (mut left, mut right) = (0, 0);
    while left < is.len() || right < shall_be.len() {
        if left < is.len() && right < shall_be.len() && is[left] == shall_be[right] {
            around.retain(|line| indentation(line) < indentation(is[left]));
            around.push(is[left]);
            (left, right) = (left + 1, right + 1);
            continue;
        }
        reported.extend(around.drain(..).map(|line| format!("  {line}")));
        let down = common.get((left + 1) * width + right).copied().unwrap_or_default();
        if right == shall_be.len() || (left < is.len() && down >= common[left * width + right + 1]) {
            reported.push(format!("- {}", is[left]));
            left += 1;
        } else {
            reported.push(format!("+ {}", shall_be[right]));
            right += 1;
        }
    }
    reported.join("\n")
}
