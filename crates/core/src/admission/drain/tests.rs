use serde_json::{Value, json};

use crate::{
    admission::{Hook, Rules, answer},
    api::admission::{AdmissionResponse, Request},
    testing::{build_config, snapshot},
};

const CLUSTER: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {elbv2.k8s.aws/albatross-drain: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: slow, labels: {elbv2.k8s.aws/albatross-drain: enabled}, annotations: {elbv2.k8s.aws/albatross-drain-seconds: '90'}}
---
apiVersion: v1
kind: Namespace
metadata: {name: never, labels: {elbv2.k8s.aws/albatross-drain: disabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: odd, labels: {elbv2.k8s.aws/albatross-drain: 'true'}, annotations: {elbv2.k8s.aws/albatross-drain-seconds: forever}}
---
apiVersion: v1
kind: Namespace
metadata: {name: plain}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: direct}
spec: {type: LoadBalancer, loadBalancerClass: service.k8s.aws/nlb, selector: {app: direct}, ports: [{port: 80}]}
";

const LABEL: &str = "elbv2.k8s.aws/albatross-drain";
const SECONDS: &str = "elbv2.k8s.aws/albatross-drain-seconds";
const INJECTED: &str = "elbv2.k8s.aws/albatross-drain-injected";

fn asked(operation: &str, namespace: &str, object: &Value) -> AdmissionResponse {
    let request = Request {
        operation: operation.to_owned(),
        namespace: namespace.to_owned(),
        object: object.clone(),
        ..Request::default()
    };
    answer(Hook::Drain, &request, Some(&snapshot(CLUSTER)), &build_config(), Rules::default())
}

fn ask(namespace: &str, object: &Value) -> AdmissionResponse {
    asked("CREATE", namespace, object)
}

/// Returns a pod as the API server asks about it, with its defaults.
fn pod(labels: &Value, annotations: &Value, spec: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"generateName": "web-", "labels": labels, "annotations": annotations},
        "spec": {
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "app", "image": "example.com/app"}],
        },
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

fn plain() -> Value {
    pod(&json!({"app": "web"}), &json!({}), &json!({}))
}

/// Carries out a patch as an API server does.
fn patched(pod: &Value, answer: &AdmissionResponse) -> Value {
    let mut pod = pod.clone();
    for operation in &answer.patch {
        assert_eq!(operation["op"], "add");
        let (parent, key) = operation["path"].as_str().unwrap().rsplit_once('/').unwrap();
        let map = pod.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        map.insert(key.replace("~1", "/"), operation["value"].clone());
    }
    pod
}

/// Returns what becomes of a pod: the sleep of each container, the grace period and the mark; then the warnings.
fn outcome(namespace: &str, pod: &Value) -> String {
    let answer = ask(namespace, pod);
    assert_eq!(answer.denied, None);
    let patched = patched(pod, &answer);
    let containers = patched["spec"]["containers"].as_array().unwrap().iter();
    let sleeps: Vec<String> = containers
        .map(|container| container["lifecycle"]["preStop"]["sleep"]["seconds"].to_string().replace("null", "-"))
        .collect();
    let mark = patched["metadata"]["annotations"][INJECTED].as_str().unwrap_or("-").to_owned();
    let grace = &patched["spec"]["terminationGracePeriodSeconds"];
    let warnings = answer.warnings.iter().map(|warning| format!("\nwarning: {warning}"));
    let summary = format!("sleep {}, grace {grace}, mark {mark}", sleeps.join(" "));
    warnings.fold(summary, |text, warning| text + &warning)
}

#[test]
fn the_patch_has_the_sleep_the_grace_period_and_a_mark() {
    let with_lifecycle = json!({"name": "log", "lifecycle": {"postStart": {"exec": {"command": ["true"]}}}});
    let spec = json!({"containers": [{"name": "app"}, with_lifecycle]});
    let lines = |pod: &Value| {
        let patch = ask("shop", pod).patch;
        patch.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(lines(&pod(&json!({"app": "web"}), &json!({"a": "b"}), &spec)), @r#"
    {"op":"add","path":"/spec/containers/0/lifecycle","value":{"preStop":{"sleep":{"seconds":25}}}}
    {"op":"add","path":"/spec/containers/1/lifecycle/preStop","value":{"sleep":{"seconds":25}}}
    {"op":"add","path":"/spec/terminationGracePeriodSeconds","value":55}
    {"op":"add","path":"/metadata/annotations/elbv2.k8s.aws~1albatross-drain-injected","value":"25"}
    "#);
    insta::assert_snapshot!(lines(&json!({"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "app"}]}})), @r#"
    {"op":"add","path":"/spec/containers/0/lifecycle","value":{"preStop":{"sleep":{"seconds":25}}}}
    {"op":"add","path":"/spec/terminationGracePeriodSeconds","value":55}
    {"op":"add","path":"/metadata/annotations","value":{"elbv2.k8s.aws/albatross-drain-injected":"25"}}
    "#);
}

#[test]
fn the_label_of_the_pod_wins_over_that_of_its_namespace() {
    let (yes, no) = ("sleep 25, grace 55, mark 25", "sleep -, grace 30, mark -");
    for (namespace, label, expected) in [
        ("shop", None, yes),
        ("shop", Some("enabled"), yes),
        ("shop", Some("disabled"), no),
        ("never", None, no),
        ("never", Some("enabled"), yes),
        ("plain", None, no),
        ("plain", Some("enabled"), yes),
        ("plain", Some("disabled"), no),
        ("unknown", None, no),
        ("unknown", Some("enabled"), yes),
        ("slow", None, "sleep 90, grace 120, mark 90"),
    ] {
        let mut pod = plain();
        if let Some(label) = label {
            pod["metadata"]["labels"][LABEL] = label.into();
        }
        assert_eq!(outcome(namespace, &pod), expected, "{namespace} {label:?}");
    }
}

#[test]
fn the_time_is_that_of_the_annotation_or_of_the_ways() {
    let of = |namespace: &str, app: &str, seconds: Option<&str>| {
        let annotations = seconds.map_or(json!({}), |seconds| json!({ SECONDS: seconds }));
        outcome(namespace, &pod(&json!({"app": app}), &annotations, &json!({})))
    };
    for (namespace, app, seconds, expected) in [
        ("shop", "direct", None, "sleep 135, grace 165, mark 135"),
        ("shop", "direct", Some("60"), "sleep 60, grace 90, mark 60"),
        ("slow", "web", Some("5"), "sleep 5, grace 35, mark 5"),
        ("shop", "web", Some("3600"), "sleep 3600, grace 3630, mark 3600"),
    ] {
        assert_eq!(of(namespace, app, seconds), expected, "{namespace} {app} {seconds:?}");
    }
    insta::assert_snapshot!(of("shop", "web", Some("5m")), @"
    sleep 25, grace 55, mark 25
    warning: the annotation `elbv2.k8s.aws/albatross-drain-seconds` of the pod has the value `5m`; write whole seconds from 1 to 3600; the pod gets the computed 25 seconds
    ");
    insta::assert_snapshot!(of("shop", "direct", Some("999999999999")), @"
    sleep 135, grace 165, mark 135
    warning: the annotation `elbv2.k8s.aws/albatross-drain-seconds` of the pod has the value `999999999999`; write whole seconds from 1 to 3600; the pod gets the computed 135 seconds
    ");
    insta::assert_snapshot!(of("slow", "web", Some("0")), @"
    sleep 25, grace 55, mark 25
    warning: the annotation `elbv2.k8s.aws/albatross-drain-seconds` of the pod has the value `0`; write whole seconds from 1 to 3600; the pod gets the computed 25 seconds
    ");
    insta::assert_snapshot!(of("shop", "web", Some(&"9".repeat(10_000))), @"
    sleep 25, grace 55, mark 25
    warning: the annotation `elbv2.k8s.aws/albatross-drain-seconds` of the pod has the value `9999999999999999999999999999999999999999…`; write whole seconds from 1 to 3600; the pod gets the computed 25 seconds
    ");
}

#[test]
fn a_label_that_is_not_understood_changes_nothing_and_is_told() {
    let labelled = |namespace: &str, label: &str| {
        let mut pod = plain();
        pod["metadata"]["labels"][LABEL] = label.into();
        outcome(namespace, &pod)
    };
    insta::assert_snapshot!(labelled("shop", "on"), @"
    sleep -, grace 30, mark -
    warning: the label `elbv2.k8s.aws/albatross-drain` of the pod has the value `on`, so the pod ends without a wait for its load balancers; allowed: `enabled` or `disabled`
    ");
    insta::assert_snapshot!(labelled("plain", ""), @"
    sleep -, grace 30, mark -
    warning: the label `elbv2.k8s.aws/albatross-drain` of the pod has the value ``, so the pod ends without a wait for its load balancers; allowed: `enabled` or `disabled`
    ");
    insta::assert_snapshot!(outcome("odd", &plain()), @"
    sleep -, grace 30, mark -
    warning: the label `elbv2.k8s.aws/albatross-drain` of Namespace odd has the value `true`, so the pod ends without a wait for its load balancers; allowed: `enabled` or `disabled`
    ");
    // The seconds of the namespace are not understood either.
    insta::assert_snapshot!(labelled("odd", "enabled"), @"
    sleep 25, grace 55, mark 25
    warning: the annotation `elbv2.k8s.aws/albatross-drain-seconds` of Namespace odd has the value `forever`; write whole seconds from 1 to 3600; the pod gets the computed 25 seconds
    ");
    assert_eq!(labelled("odd", "disabled"), "sleep -, grace 30, mark -");
}

#[test]
fn grace_periods_grow_and_never_shrink() {
    for (grace, expected) in [
        (json!(null), json!(55)),
        (json!(0), json!(25)),
        (json!(1), json!(26)),
        (json!(3600), json!(3625)),
        (json!(-1), json!(25)),
        (json!(i64::MAX - 3), json!(i64::MAX)),
        (json!(i64::MAX), json!(i64::MAX)),
    ] {
        let pod = pod(&json!({}), &json!({}), &json!({"terminationGracePeriodSeconds": grace}));
        let found = patched(&pod, &ask("shop", &pod))["spec"]["terminationGracePeriodSeconds"].clone();
        assert_eq!(found, expected, "{grace}");
    }
}

#[test]
fn hooks_that_pods_have_stay_and_short_ones_are_told() {
    let hooked = |hooks: &[Value]| {
        let containers: Vec<Value> = hooks
            .iter()
            .enumerate()
            .map(|(number, hook)| json!({"name": format!("c{number}"), "lifecycle": {"preStop": hook}}))
            .collect();
        outcome("shop", &pod(&json!({}), &json!({}), &json!({ "containers": containers })))
    };
    let (enough, short, own) =
        (json!({"sleep": {"seconds": 40}}), json!({"sleep": {"seconds": 5}}), json!({"exec": {"command": ["/drain"]}}));
    assert_eq!(hooked(std::slice::from_ref(&enough)), "sleep 40, grace 30, mark -");
    insta::assert_snapshot!(hooked(&[Value::Null, short, own.clone(), enough]), @"
    sleep 25 5 - 40, grace 55, mark 25
    warning: spec.containers[1].lifecycle.preStop: the container `c1` has a hook of its own, which stays; let it take 25 seconds or more, or load balancers still send requests when the container ends
    warning: spec.containers[2].lifecycle.preStop: the container `c2` has a hook of its own, which stays; let it take 25 seconds or more, or load balancers still send requests when the container ends
    ");
    insta::assert_snapshot!(hooked(&vec![own; 8]), @"
    sleep - - - - - - - -, grace 30, mark -
    warning: spec.containers[0].lifecycle.preStop: the container `c0` has a hook of its own, which stays; let it take 25 seconds or more, or load balancers still send requests when the container ends
    warning: spec.containers[1].lifecycle.preStop: the container `c1` has a hook of its own, which stays; let it take 25 seconds or more, or load balancers still send requests when the container ends
    warning: spec.containers[2].lifecycle.preStop: the container `c2` has a hook of its own, which stays; let it take 25 seconds or more, or load balancers still send requests when the container ends
    warning: and 5 more containers with hooks of their own
    ");
}

/// The API server may call again after another webhook has added a container.
#[test]
fn a_second_call_gives_the_sleep_to_new_containers_and_no_more_grace() {
    let first = patched(&plain(), &ask("shop", &plain()));
    assert_eq!(ask("shop", &first), AdmissionResponse::allowed());
    let mut second = first.clone();
    second["spec"]["containers"].as_array_mut().unwrap().insert(0, json!({"name": "proxy"}));
    assert_eq!(outcome("shop", &second), "sleep 25 25, grace 55, mark 25");
    // Its Service came meanwhile: the time stays that of the first call.
    second["metadata"]["labels"]["app"] = "direct".into();
    assert_eq!(outcome("shop", &second), "sleep 25 25, grace 55, mark 25");
    // A mark that a template has copied does not stand for a sleep.
    let copied = pod(&json!({}), &json!({ INJECTED: "25" }), &json!({}));
    assert_eq!(outcome("shop", &copied), "sleep 25, grace 55, mark 25");
    let foreign = pod(&json!({}), &json!({ INJECTED: "much" }), &json!({}));
    assert_eq!(outcome("shop", &foreign), "sleep 25, grace 55, mark 25");
}

#[test]
fn pods_that_no_load_balancer_can_reach_are_left_alone() {
    let job = |label: Value| {
        let labels = json!({"app": label["app"], LABEL: label["drain"]});
        pod(&labels, &json!({}), &json!({"restartPolicy": "Never"}))
    };
    let no = "sleep -, grace 30, mark -";
    assert_eq!(outcome("shop", &job(json!({"app": "once"}))), no);
    assert_eq!(outcome("shop", &job(json!({"app": "direct"}))), "sleep 135, grace 165, mark 135");
    assert_eq!(outcome("shop", &job(json!({"app": "once", "drain": "enabled"}))), "sleep 25, grace 55, mark 25");
    let mirror = pod(&json!({ LABEL: "enabled" }), &json!({"kubernetes.io/config.mirror": "hash"}), &json!({}));
    assert_eq!(outcome("shop", &mirror), no);
    // Sidecars end after the others.
    let spec = json!({"initContainers": [{"name": "proxy", "restartPolicy": "Always"}]});
    let with_sidecar = pod(&json!({}), &json!({}), &spec);
    let patched = patched(&with_sidecar, &ask("shop", &with_sidecar));
    assert_eq!(patched["spec"]["initContainers"], spec["initContainers"]);
}

#[test]
fn only_pods_that_are_created_change() {
    for operation in ["UPDATE", "DELETE", "CONNECT", ""] {
        assert_eq!(asked(operation, "shop", &plain()), AdmissionResponse::allowed(), "{operation}");
    }
    for object in [Value::Null, json!({}), json!({"metadata": 1, "spec": 2}), json!({"spec": {"containers": {}}})] {
        assert_eq!(ask("shop", &object), AdmissionResponse::allowed(), "{object}");
    }
}

#[test]
fn before_kubernetes_1_30_pods_end_as_they_are_with_a_warning() {
    let asks = pod(&json!({"app": "web", LABEL: "enabled"}), &json!({}), &json!({}));
    let ask = |object: &Value, rules| {
        let request = Request {
            operation: "CREATE".to_owned(),
            namespace: "shop".to_owned(),
            object: object.clone(),
            ..Request::default()
        };
        answer(Hook::Drain, &request, Some(&snapshot(CLUSTER)), &build_config(), rules)
    };
    let old = Rules { no_sleep: true, ..Rules::default() };
    let expected = "the pod ends without a wait for its load balancers: its containers cannot sleep in `preStop` hooks before Kubernetes 1.30; upgrade the cluster, or give them a hook that runs `sleep`";
    let answered = ask(&asks, old);
    assert_eq!((answered.warnings, answered.patch), (vec![expected.to_owned()], vec![]));
    assert!(!ask(&asks, Rules::default()).patch.is_empty());
    // Pods that do not ask are told nothing.
    let quiet = pod(&json!({"app": "web", LABEL: "disabled"}), &json!({}), &json!({}));
    assert_eq!(ask(&quiet, old), AdmissionResponse::allowed());
}

#[test]
fn the_version_tells_if_hooks_can_sleep() {
    for (major, minor, expected) in [
        ("1", "22", true),
        ("1", "29+", true),
        ("1", "30", false),
        ("1", "36+", false),
        ("2", "1", false),
        ("1", "", false),
    ] {
        assert_eq!(crate::drain::is_without_sleep(major, minor), expected, "{major}.{minor}");
    }
}
