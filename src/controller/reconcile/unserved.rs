//! Features of aws-load-balancer-controller that albatross does not serve: where the cluster uses one, the log names it,
//! once.

use kube::{
    Api, Client,
    api::ListParams,
    core::{ApiResource, DynamicObject},
};

use crate::controller::cluster::deadline::with_deadline;

/// The controllers of GatewayClasses that are aws-load-balancer-controller's.
const GATEWAY_CONTROLLERS: [&str; 2] = ["gateway.k8s.aws/alb", "gateway.k8s.aws/nlb"];
/// Objects of one page of a list, and pages that are looked at for one that matters.
const PAGE: u32 = 500;
const MAX_PAGES: usize = 20;
/// A kind that aws-load-balancer-controller serves.
struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    of_cluster: bool,
}

const NAMESPACE: Kind = Kind { group: "", version: "v1", kind: "Namespace", plural: "namespaces", of_cluster: true };
const POD: Kind = Kind { group: "", version: "v1", kind: "Pod", plural: "pods", of_cluster: false };
const GATEWAY_CLASS: Kind = Kind {
    group: "gateway.networking.k8s.io",
    version: "v1",
    kind: "GatewayClass",
    plural: "gatewayclasses",
    of_cluster: true,
};
const GATEWAY: Kind =
    Kind { group: "gateway.networking.k8s.io", version: "v1", kind: "Gateway", plural: "gateways", of_cluster: false };
const ACCELERATOR: Kind = Kind {
    group: "aga.k8s.aws",
    version: "v1beta1",
    kind: "GlobalAccelerator",
    plural: "globalaccelerators",
    of_cluster: false,
};
const TARGET_CONTROL: Kind = Kind {
    group: "elbv2.k8s.aws",
    version: "v1beta1",
    kind: "ALBTargetControlConfig",
    plural: "albtargetcontrolconfigs",
    of_cluster: false,
};

/// A label that asks a webhook of aws-load-balancer-controller for something in pods.
struct Label {
    /// The kind that carries it.
    kind: Kind,
    key: &'static str,
    /// The value that requests it; any other value requests nothing.
    value: &'static str,
    /// The feature that pods do not get.
    what: &'static str,
}

const LABELS: [Label; 2] = [
    Label {
        kind: NAMESPACE,
        key: "elbv2.k8s.aws/alb-target-control-agent-injection",
        value: "enabled",
        what: "agent of the target optimizer",
    },
    Label {
        kind: POD,
        key: "elbv2.k8s.aws/alb-target-control-agent-inject",
        value: "true",
        what: "agent of the target optimizer",
    },
];

/// The namespaces in which the objects are looked for.
#[derive(Clone, Copy)]
struct Reader<'a> {
    client: &'a Client,
    /// The one namespace that is watched; empty is all.
    namespace: &'a str,
}

/// Returns a sentence for each kind and label that is in the cluster, or in the one namespace that is watched, and that nothing
/// here serves. Kinds that cannot be listed, because their definition is not installed or RBAC does not allow it, are skipped.
pub(crate) async fn unserved(client: &Client, namespace: &str) -> Vec<String> {
    let reader = Reader { client, namespace };
    let mut found = Vec::new();
    if let Some(gateway) = gateway(reader).await {
        found.push(not_served("Gateways", &gateway, STAYS));
    }
    for (kind, plural, consequence) in [
        (ACCELERATOR, "GlobalAccelerators", STAYS),
        (TARGET_CONTROL, "ALBTargetControlConfigs", "no pod gets an agent of the target optimizer"),
    ] {
        let listed = list(reader, &kind, &ListParams::default().limit(1)).await;
        if let Some(first) = listed.and_then(|(page, _)| page.into_iter().next()) {
            found.push(not_served(plural, &name(&first), consequence));
        }
    }
    for label in LABELS {
        let Label { kind, key, value, what } = label;
        let mut labelled = ListParams::default().labels(&format!("{key}={value}")).limit(1);
        if kind.kind == NAMESPACE.kind && !namespace.is_empty() {
            labelled = labelled.fields(&format!("metadata.name={namespace}"));
        }
        if let Some(first) = list(reader, &kind, &labelled).await.and_then(|page| page.0.into_iter().next()) {
            found.push(format!(
                "the label {key}={value} has no effect, for example on the {} {}: albatross does not serve it, and pods that are created get no {what}",
                kind.kind,
                name(&first),
            ));
        }
    }
    found
}

const STAYS: &str = "their AWS resources stay unchanged, and one with aws-load-balancer-controller's finalizer is not deleted without that controller";

fn not_served(kind: &str, example: &str, consequence: &str) -> String {
    format!("the cluster has {kind}, for example {example}: albatross does not serve them; {consequence}")
}

fn name(object: &DynamicObject) -> String {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    match &object.metadata.namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// A Gateway of a class of aws-load-balancer-controller; Gateways of other controllers are ignored.
async fn gateway(reader: Reader<'_>) -> Option<String> {
    let (classes, _) = list(reader, &GATEWAY_CLASS, &ListParams::default().limit(PAGE)).await?;
    let theirs: Vec<String> = classes
        .into_iter()
        .filter(|class| {
            class
                .data
                .pointer("/spec/controllerName")
                .and_then(serde_json::Value::as_str)
                .is_some_and(|c| GATEWAY_CONTROLLERS.contains(&c))
        })
        .filter_map(|class| class.metadata.name)
        .collect();
    if theirs.is_empty() {
        return None;
    }
    let mut parameters = ListParams::default().limit(PAGE);
    for _ in 0..MAX_PAGES {
        let (gateways, next) = list(reader, &GATEWAY, &parameters).await?;
        let of_theirs = |gateway: &&DynamicObject| {
            let class = gateway.data.pointer("/spec/gatewayClassName").and_then(serde_json::Value::as_str);
            class.is_some_and(|class| theirs.iter().any(|name| name == class))
        };
        if let Some(gateway) = gateways.iter().find(of_theirs) {
            return Some(name(gateway));
        }
        parameters = parameters.continue_token(&next?);
    }
    None
}

/// A page of objects, and the token of the next; nothing where they cannot be listed.
async fn list(
    reader: Reader<'_>,
    kind: &Kind,
    parameters: &ListParams,
) -> Option<(Vec<DynamicObject>, Option<String>)> {
    let api_version =
        if kind.group.is_empty() { kind.version.to_owned() } else { format!("{}/{}", kind.group, kind.version) };
    let resource = ApiResource {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        api_version,
        kind: kind.kind.to_owned(),
        plural: kind.plural.to_owned(),
    };
    let client = reader.client.clone();
    let api: Api<DynamicObject> = if kind.of_cluster || reader.namespace.is_empty() {
        Api::all_with(client, &resource)
    } else {
        Api::namespaced_with(client, reader.namespace, &resource)
    };
    match with_deadline(api.list(parameters)).await {
        Ok(list) => Some((list.items, list.metadata.continue_.filter(|token| !token.is_empty()))),
        Err(error) => {
            tracing::debug!(kind = kind.kind, %error, "cannot tell whether the cluster has any");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::{
        Router,
        body::Body,
        http::{Request, Response},
    };
    use serde_json::{Value, json};

    use super::*;

    /// Returns true if an object has the label that the query of a list requests.
    fn selected(object: &Value, query: &str) -> bool {
        let mut parameters = query.split('&').filter_map(|parameter| parameter.split_once('='));
        let Some((_, selector)) = parameters.find(|(key, _)| *key == "labelSelector") else { return true };
        let selector = selector.replace("%2F", "/").replace("%3D", "=");
        let (key, value) = selector.split_once('=').unwrap();
        object["metadata"]["labels"][key] == value
    }

    /// An API server that lists these, by path, and denies or does not know all others.
    fn client(lists: BTreeMap<&'static str, Vec<Value>>, otherwise: u16) -> Client {
        let router = Router::new().fallback(move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let listed = lists.get(request.uri().path()).cloned();
            let listed = listed.map(|mut items| {
                items.retain(|item| selected(item, &query));
                items
            });
            async move {
                let (code, body) = match listed {
                    Some(items) => (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})),
                    None => {
                        (otherwise, json!({"kind": "Status", "status": "Failure", "code": otherwise, "message": "no"}))
                    }
                };
                Response::builder().status(code).body(Body::from(body.to_string())).unwrap()
            }
        });
        Client::new(router, "default")
    }

    fn labelled(mut object: Value, key: &str, value: &str) -> Value {
        object["metadata"]["labels"][key] = value.into();
        object
    }

    fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"namespace": namespace, "name": name}, "spec": spec})
    }

    #[tokio::test]
    async fn what_the_cluster_has_and_nothing_serves_is_named_once_each() {
        let class = |name: &str, controller: &str| json!({"apiVersion": "v1", "kind": "GatewayClass", "metadata": {"name": name}, "spec": {"controllerName": controller}});
        let gateway = |name: &str, class: &str| object("Gateway", "shop", name, &json!({"gatewayClassName": class}));
        let lists = BTreeMap::from([
            (
                "/apis/gateway.networking.k8s.io/v1/gatewayclasses",
                vec![class("mesh", "istio.io/gateway-controller"), class("edge", "gateway.k8s.aws/alb")],
            ),
            ("/apis/gateway.networking.k8s.io/v1/gateways", vec![gateway("inner", "mesh"), gateway("outer", "edge")]),
            (
                "/apis/aga.k8s.aws/v1beta1/globalaccelerators",
                vec![object("GlobalAccelerator", "shop", "world", &json!({}))],
            ),
            (
                "/apis/elbv2.k8s.aws/v1beta1/albtargetcontrolconfigs",
                vec![object("ALBTargetControlConfig", "shop", "agent", &json!({}))],
            ),
            (
                "/api/v1/namespaces",
                vec![
                    labelled(namespace("off"), AGENT, "disabled"),
                    labelled(labelled(namespace("shop"), QUIC, "enabled"), AGENT, "enabled"),
                ],
            ),
            (
                "/api/v1/pods",
                vec![
                    labelled(object("Pod", "shop", "web-0", &json!({})), POD_AGENT, "false"),
                    labelled(object("Pod", "shop", "web-1", &json!({})), POD_AGENT, "true"),
                ],
            ),
        ]);
        insta::assert_snapshot!(unserved(&client(lists, 404), "").await.join("\n"), @r"
        the cluster has Gateways, for example shop/outer: albatross does not serve them; their AWS resources stay unchanged, and one with aws-load-balancer-controller's finalizer is not deleted without that controller
        the cluster has GlobalAccelerators, for example shop/world: albatross does not serve them; their AWS resources stay unchanged, and one with aws-load-balancer-controller's finalizer is not deleted without that controller
        the cluster has ALBTargetControlConfigs, for example shop/agent: albatross does not serve them; no pod gets an agent of the target optimizer
        the label elbv2.k8s.aws/alb-target-control-agent-injection=enabled has no effect, for example on the Namespace shop: albatross does not serve it, and pods that are created get no agent of the target optimizer
        the label elbv2.k8s.aws/alb-target-control-agent-inject=true has no effect, for example on the Pod shop/web-1: albatross does not serve it, and pods that are created get no agent of the target optimizer
        ");
    }

    #[tokio::test]
    async fn gateways_of_other_controllers_are_not_named() {
        let class = json!({"apiVersion": "v1", "kind": "GatewayClass", "metadata": {"name": "mesh"}, "spec": {"controllerName": "istio.io/gateway-controller"}});
        let lists = BTreeMap::from([
            ("/apis/gateway.networking.k8s.io/v1/gatewayclasses", vec![class]),
            (
                "/apis/gateway.networking.k8s.io/v1/gateways",
                vec![object("Gateway", "shop", "inner", &json!({"gatewayClassName": "mesh"}))],
            ),
        ]);
        assert_eq!(unserved(&client(lists, 404), "").await, [] as [&str; 0]);
    }

    #[tokio::test]
    async fn what_may_not_be_listed_is_passed_over() {
        assert_eq!(unserved(&client(BTreeMap::new(), 403), "").await, [] as [&str; 0]);
        assert_eq!(unserved(&client(BTreeMap::new(), 404), "").await, [] as [&str; 0]);
    }

    /// A label that is served.
    const QUIC: &str = "elbv2.k8s.aws/quic-server-id-inject";
    const AGENT: &str = "elbv2.k8s.aws/alb-target-control-agent-injection";
    const POD_AGENT: &str = "elbv2.k8s.aws/alb-target-control-agent-inject";

    fn namespace(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    }

    #[tokio::test]
    async fn with_a_namespace_that_is_watched_no_other_one_is_listed() {
        let accelerator = |name: &str| vec![object("GlobalAccelerator", "shop", name, &json!({}))];
        let lists = BTreeMap::from([
            ("/apis/aga.k8s.aws/v1beta1/globalaccelerators", accelerator("of-all")),
            ("/apis/aga.k8s.aws/v1beta1/namespaces/shop/globalaccelerators", accelerator("of-shop")),
        ]);
        let reported = unserved(&client(lists, 403), "shop").await;
        assert_eq!(reported.len(), 1);
        assert!(reported[0].contains("shop/of-shop"), "{}", reported[0]);
    }
}
