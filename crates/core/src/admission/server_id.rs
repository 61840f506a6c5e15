//! Pods behind QUIC: the containers that their annotation names get an environment variable with a server id. Whether a namespace
//! asks for it is the API server's to decide, by the selector of the webhook.

use serde_json::{Value, json};

use super::{MAX_WARNINGS, shortened, texts};
use crate::{
    api::admission::{AdmissionResponse, Request},
    model::QuicServerId,
    quic::{CONTAINERS, EnvironmentVariable},
};

/// The lists of containers of a pod.
const LISTS: [&str; 2] = ["containers", "initContainers"];

/// A container that is to get a server id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    /// The place of the container, as a JSON pointer.
    path: String,
    /// True if it has environment variables.
    has_variables: bool,
}

/// The containers of a new pod that are to get a server id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    slots: Vec<Slot>,
    warnings: Vec<String>,
}

fn name(object: &Value) -> &str {
    object.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns the containers that are to get a server id: those that the annotation names, without those that have one.
#[must_use]
pub fn missing(request: &Request, variable: &EnvironmentVariable) -> Missing {
    let mut missing = Missing::default();
    let annotations = texts(&request.object, "/metadata/annotations");
    let Some(named) = annotations.get(CONTAINERS).filter(|_| request.creates()) else { return missing };
    let spec = request.object.get("spec").unwrap_or(&Value::Null);
    let has = |wanted: &str| LISTS.iter().any(|field| list(spec, field).iter().any(|c| name(c) == wanted));
    let named: Vec<&str> = named.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    for field in LISTS {
        for (index, container) in list(spec, field).iter().enumerate().filter(|(_, c)| named.contains(&name(c))) {
            let variables = list(container, "env");
            if !variables.iter().any(|existing| name(existing) == variable.as_str()) {
                let path = format!("/spec/{field}/{index}");
                missing.slots.push(Slot { path, has_variables: !variables.is_empty() });
            }
        }
    }
    let unknown = named.iter().filter(|name| !has(name)).take(MAX_WARNINGS);
    let warning = |name: &&str| {
        shortened(format!(
            "the annotation `{CONTAINERS}` names `{name}`, and the pod has no such container; it gets no QUIC server id"
        ))
    };
    missing.warnings = unknown.map(warning).collect();
    missing
}

impl Missing {
    /// Returns the number of server ids that are needed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// Returns the response that gives each container one of the ids.
    #[must_use]
    pub fn answer(
        self,
        variable: &EnvironmentVariable,
        ids: impl IntoIterator<Item = QuicServerId>,
    ) -> AdmissionResponse {
        let patch = self.slots.iter().zip(ids).map(|(slot, id)| {
            let entry = json!({ "name": variable.as_str(), "value": id.to_base64() });
            match slot.has_variables {
                true => json!({ "op": "add", "path": format!("{}/env/-", slot.path), "value": entry }),
                // `add` replaces an empty list.
                false => json!({ "op": "add", "path": format!("{}/env", slot.path), "value": [entry] }),
            }
        });
        AdmissionResponse { patch: patch.collect(), warnings: self.warnings, ..AdmissionResponse::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(operation: &str, object: Value) -> Request {
        Request {
            uid: "u".to_owned(),
            operation: operation.to_owned(),
            namespace: "shop".to_owned(),
            object,
            old_object: Value::Null,
        }
    }

    fn answered(request: &Request, variable: &EnvironmentVariable) -> AdmissionResponse {
        let missing = missing(request, variable);
        let ids: Vec<QuicServerId> = (1..).take(missing.count()).map(QuicServerId::new).collect();
        missing.answer(variable, ids)
    }

    fn add(path: &str, value: Value) -> Value {
        json!({"op": "add", "path": path, "value": value})
    }

    #[test]
    fn named_containers_get_an_id_each() {
        let (default, own) = (EnvironmentVariable::default(), EnvironmentVariable::new("SERVER_ID").unwrap());
        let value = |id: &str| json!({"name": "AWS_LBC_QUIC_SERVER_ID", "value": id});
        let spec = json!({
            "containers": [
                {"name": "web", "env": [{"name": "A", "value": "b"}]},
                {"name": "sidecar", "env": []},
                {"name": "has", "env": [{"name": "AWS_LBC_QUIC_SERVER_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]},
            ],
            "initContainers": [{"name": "first"}],
        });
        let web = add("/spec/containers/0/env/-", value("AAAAAAAAAAE="));
        for (case, annotation, variable, patch) in [
            ("no annotation", None, &default, vec![]),
            ("an empty one", Some(""), &default, vec![]),
            ("one container", Some("web"), &default, vec![web.clone()]),
            ("blanks and an empty name", Some(" web , "), &default, vec![web.clone()]),
            ("its own id is kept", Some("has"), &default, vec![]),
            (
                "init containers too",
                Some("first,sidecar,web"),
                &default,
                vec![
                    web,
                    add("/spec/containers/1/env", json!([value("AAAAAAAAAAI=")])),
                    add("/spec/initContainers/0/env", json!([value("AAAAAAAAAAM=")])),
                ],
            ),
            (
                "another variable",
                Some("has"),
                &own,
                vec![add("/spec/containers/2/env/-", json!({"name": "SERVER_ID", "value": "AAAAAAAAAAE="}))],
            ),
        ] {
            let annotations = annotation.map_or(json!({}), |names| json!({CONTAINERS: names}));
            let pod = json!({"metadata": {"annotations": annotations}, "spec": spec});
            let expected = AdmissionResponse { patch, ..AdmissionResponse::default() };
            assert_eq!(answered(&request("CREATE", pod.clone()), variable), expected, "{case}");
            assert_eq!(answered(&request("UPDATE", pod), variable), AdmissionResponse::allowed(), "{case}");
        }
    }

    #[test]
    fn names_of_no_container() {
        let pod = |names: &str| json!({"metadata": {"annotations": {CONTAINERS: names}}, "spec": {"containers": [{"name": "web"}]}});
        let answer = answered(&request("CREATE", pod("web,wbe")), &EnvironmentVariable::default());
        insta::assert_snapshot!(answer.warnings.join("\n"), @"the annotation `service.beta.kubernetes.io/aws-load-balancer-quic-enabled-containers` names `wbe`, and the pod has no such container; it gets no QUIC server id");
        assert_eq!(answer.patch.len(), 1);
        let many = answered(&request("CREATE", pod("a,b,c,d,e,f,g")), &EnvironmentVariable::default());
        assert_eq!((many.warnings.len(), many.patch.len()), (MAX_WARNINGS, 0));
    }

    #[test]
    fn odd_pods_are_admitted() {
        for pod in [
            Value::Null,
            json!({"metadata": {"annotations": {CONTAINERS: "web"}}}),
            json!({"metadata": {"annotations": {CONTAINERS: "web"}}, "spec": {"containers": {"name": "web"}}}),
            json!({"metadata": {"annotations": {CONTAINERS: 1}}, "spec": {"containers": [{"name": "web"}]}}),
        ] {
            let answer = answered(&request("CREATE", pod.clone()), &EnvironmentVariable::default());
            assert_eq!((answer.denied, answer.patch), (None, vec![]), "{pod}");
        }
    }
}
