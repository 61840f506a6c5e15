//! What aws-load-balancer-controller works on and albatross does not: where the cluster has any of it, the log says so, once.

use kube::{
    Api, Client,
    api::ListParams,
    core::{ApiResource, DynamicObject},
};

use crate::answered::answered;

/// The controllers of GatewayClasses that are aws-load-balancer-controller's.
const GATEWAY_CONTROLLERS: [&str; 2] = ["gateway.k8s.aws/alb", "gateway.k8s.aws/nlb"];
/// Objects of one page of a list, and pages that are looked at for one that matters.
const PAGE: u32 = 500;
const MOST_PAGES: usize = 20;

/// A kind that aws-load-balancer-controller serves.
struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
}

const GATEWAY_CLASS: Kind =
    Kind { group: "gateway.networking.k8s.io", version: "v1", kind: "GatewayClass", plural: "gatewayclasses" };
const GATEWAY: Kind = Kind { group: "gateway.networking.k8s.io", version: "v1", kind: "Gateway", plural: "gateways" };
const ACCELERATOR: Kind =
    Kind { group: "aga.k8s.aws", version: "v1beta1", kind: "GlobalAccelerator", plural: "globalaccelerators" };
const TARGET_CONTROL: Kind = Kind {
    group: "elbv2.k8s.aws",
    version: "v1beta1",
    kind: "ALBTargetControlConfig",
    plural: "albtargetcontrolconfigs",
};

/// A label that asks a webhook of aws-load-balancer-controller for something in pods.
struct Label {
    /// The kind that carries it, of the core group.
    kind: &'static str,
    plural: &'static str,
    key: &'static str,
    /// What pods do not get.
    what: &'static str,
}

const LABELS: [Label; 3] = [
    Label {
        kind: "Namespace",
        plural: "namespaces",
        key: "elbv2.k8s.aws/quic-server-id-inject",
        what: "QUIC server id, also where their annotation service.beta.kubernetes.io/aws-load-balancer-quic-enabled-containers asks for one",
    },
    Label {
        kind: "Namespace",
        plural: "namespaces",
        key: "elbv2.k8s.aws/alb-target-control-agent-injection",
        what: "agent of the target optimizer",
    },
    Label {
        kind: "Pod",
        plural: "pods",
        key: "elbv2.k8s.aws/alb-target-control-agent-inject",
        what: "agent of the target optimizer",
    },
];

/// Returns a sentence for each kind and label that is in the cluster and that nothing here serves. What cannot be listed,
/// because its definition is not installed or RBAC does not allow it, is passed over.
pub(super) async fn unserved(client: &Client) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(gateway) = gateway(client).await {
        found.push(not_served("Gateways", &gateway, STAYS));
    }
    for (kind, plural, consequence) in [
        (ACCELERATOR, "GlobalAccelerators", STAYS),
        (TARGET_CONTROL, "ALBTargetControlConfigs", "no pod gets an agent of the target optimizer"),
    ] {
        let listed = list(client, &kind, &ListParams::default().limit(1)).await;
        if let Some(first) = listed.and_then(|(page, _)| page.into_iter().next()) {
            found.push(not_served(plural, &name(&first), consequence));
        }
    }
    for label in LABELS {
        let kind = Kind { group: "", version: "v1", kind: label.kind, plural: label.plural };
        let labelled = ListParams::default().labels(label.key).limit(1);
        if let Some(first) = list(client, &kind, &labelled).await.and_then(|page| page.0.into_iter().next()) {
            found.push(format!(
                "the label {} has no effect, for example on the {} {}: albatross does not serve it, and pods that are created get no {}",
                label.key,
                label.kind,
                name(&first),
                label.what,
            ));
        }
    }
    found
}

const STAYS: &str = "what they have in AWS stays as it is, and one that is deleted waits for aws-load-balancer-controller, whose finalizer it has";

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

/// A Gateway of a class of aws-load-balancer-controller's: those of other controllers are none of its business.
async fn gateway(client: &Client) -> Option<String> {
    let (classes, _) = list(client, &GATEWAY_CLASS, &ListParams::default().limit(PAGE)).await?;
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
    for _ in 0..MOST_PAGES {
        let (gateways, next) = list(client, &GATEWAY, &parameters).await?;
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
async fn list(client: &Client, kind: &Kind, parameters: &ListParams) -> Option<(Vec<DynamicObject>, Option<String>)> {
    let api_version =
        if kind.group.is_empty() { kind.version.to_owned() } else { format!("{}/{}", kind.group, kind.version) };
    let resource = ApiResource {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        api_version,
        kind: kind.kind.to_owned(),
        plural: kind.plural.to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    match answered(api.list(parameters)).await {
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

    /// An API server that lists these, by path, and forbids or does not know all others.
    fn client(lists: BTreeMap<&'static str, Vec<Value>>, otherwise: u16) -> Client {
        let router = Router::new().fallback(move |request: Request<Body>| {
            let listed = lists.get(request.uri().path()).cloned();
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
                vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})],
            ),
            ("/api/v1/pods", vec![object("Pod", "shop", "web-1", &json!({}))]),
        ]);
        insta::assert_snapshot!(unserved(&client(lists, 404)).await.join("\n"), @r"
        the cluster has Gateways, for example shop/outer: albatross does not serve them; what they have in AWS stays as it is, and one that is deleted waits for aws-load-balancer-controller, whose finalizer it has
        the cluster has GlobalAccelerators, for example shop/world: albatross does not serve them; what they have in AWS stays as it is, and one that is deleted waits for aws-load-balancer-controller, whose finalizer it has
        the cluster has ALBTargetControlConfigs, for example shop/agent: albatross does not serve them; no pod gets an agent of the target optimizer
        the label elbv2.k8s.aws/quic-server-id-inject has no effect, for example on the Namespace shop: albatross does not serve it, and pods that are created get no QUIC server id, also where their annotation service.beta.kubernetes.io/aws-load-balancer-quic-enabled-containers asks for one
        the label elbv2.k8s.aws/alb-target-control-agent-injection has no effect, for example on the Namespace shop: albatross does not serve it, and pods that are created get no agent of the target optimizer
        the label elbv2.k8s.aws/alb-target-control-agent-inject has no effect, for example on the Pod shop/web-1: albatross does not serve it, and pods that are created get no agent of the target optimizer
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
        assert_eq!(unserved(&client(lists, 404)).await, [] as [&str; 0]);
    }

    #[tokio::test]
    async fn what_may_not_be_listed_is_passed_over() {
        assert_eq!(unserved(&client(BTreeMap::new(), 403)).await, [] as [&str; 0]);
        assert_eq!(unserved(&client(BTreeMap::new(), 404)).await, [] as [&str; 0]);
    }
}
