use serde_json::json;

use super::*;
use crate::testing::{build_config, snapshot};

#[test]
fn seconds_are_whole_numbers_within_their_limits() {
    for (text, expected) in [
        ("1", Some(1)),
        ("25", Some(25)),
        ("0025", Some(25)),
        ("3600", Some(3600)),
        ("3601", None),
        ("0", None),
        ("", None),
        ("+25", None),
        ("-1", None),
        ("25s", None),
        ("5m", None),
        ("2.5", None),
        (" 25", None),
        ("٢٥", None),
        ("99999999999999999999999999", None),
    ] {
        assert_eq!(text.parse::<Seconds>().map(Seconds::get).ok(), expected, "{text}");
    }
    insta::assert_snapshot!(InvalidSeconds, @"write whole seconds from 1 to 3600");
}

#[test]
fn the_label_has_two_values() {
    for (text, expected) in [
        ("enabled", Some(Switch::Enabled)),
        ("disabled", Some(Switch::Disabled)),
        ("Enabled", None),
        ("true", None),
        ("", None),
    ] {
        assert_eq!(text.parse::<Switch>().ok(), expected, "{text}");
    }
    insta::assert_snapshot!(InvalidSwitch, @"allowed: `enabled` or `disabled`");
}

#[test]
fn the_longest_way_decides() {
    for (ways, expected) in [
        (&[][..], 25),
        (&[Way::Nodes], 15),
        (&[Way::Application], 25),
        (&[Way::Network], 135),
        (&[Way::Nodes, Way::Application], 25),
        (&[Way::Application, Way::Network], 135),
    ] {
        assert_eq!(needed(&ways.iter().copied().collect()).get(), expected, "{ways:?}");
    }
}

/// The document for users has the same figures.
#[test]
fn the_document_has_the_figures() {
    let document = include_str!("../../../../docs/webhooks.md");
    let figures = |way: Way| {
        let cell = |seconds: u16| if seconds == 0 { "–".to_owned() } else { seconds.to_string() };
        let [update, propagation, rest] = [UPDATE, way.propagation(), IN_FLIGHT].map(cell);
        format!("| {update} | {propagation} | {rest} | {} |", way.seconds())
    };
    let rows: Vec<&str> = document.lines().filter(|line| line.matches('|').count() == 6).collect();
    for way in [Way::Nodes, Way::Application, Way::Network] {
        let expected = figures(way);
        let found = rows.iter().filter(|row| row.ends_with(&expected)).count();
        assert_eq!(found, 1, "{way:?}: the row of docs/webhooks.md is to end with `{expected}`");
    }
    for text in [LABEL, SECONDS, INJECTED] {
        assert!(document.contains(text), "{text}");
    }
    assert!(document.contains(&format!("from {} to {}", Seconds::MIN, Seconds::MAX)));
}

const SHOP: &str = r"
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: local}
spec: {type: NodePort, externalTrafficPolicy: Local, selector: {app: web, tier: local}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: balanced}
spec: {type: LoadBalancer, loadBalancerClass: service.k8s.aws/nlb, selector: {app: balanced}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: foreign}
spec: {type: LoadBalancer, loadBalancerClass: example.com/other, selector: {app: foreign}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: by-hand}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: other, name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

/// Returns a binding in the namespace `shop`, with fields of its spec.
fn binding(service: &str, fields: &str) -> String {
    format!(
        "
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: TargetGroupBinding
metadata: {{namespace: shop, name: {service}}}
spec: {{targetGroupARN: 'arn:{service}', serviceRef: {{name: {service}, port: 80}}{fields}}}
"
    )
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn ways_are_those_of_bindings_and_of_services_that_will_have_some() {
    let web = &[("app", "web")][..];
    let local = &[("app", "web"), ("tier", "local")][..];
    let balanced = &[("app", "balanced")][..];
    let ip = |protocol: &str| format!(", targetType: ip, targetGroupProtocol: {protocol}");
    let instance = |protocol: &str| format!(", targetType: instance, targetGroupProtocol: {protocol}");
    for (case, labels_of_pod, bindings, expected) in [
        ("nothing is bound", web, String::new(), &[][..]),
        ("HTTP", web, binding("web", &ip("HTTP")), &[Way::Application]),
        ("HTTPS", web, binding("web", &ip("HTTPS")), &[Way::Application]),
        ("TCP", web, binding("web", &ip("TCP")), &[Way::Network]),
        ("UDP", web, binding("web", &ip("TCP_UDP")), &[Way::Network]),
        ("the protocol is not known", web, binding("web", ", targetType: ip"), &[Way::Network]),
        ("nodes", web, binding("web", &instance("TCP")), &[Way::Nodes]),
        ("nodes with a pod", local, binding("local", &instance("TCP")), &[Way::Network]),
        ("nodes with a pod, HTTP", local, binding("local", &instance("HTTP")), &[Way::Application]),
        (
            "two Services",
            local,
            binding("web", &instance("HTTP")) + &binding("local", &ip("TCP")),
            &[Way::Nodes, Way::Network],
        ),
        ("not selected", &[("app", "other")], binding("web", &ip("HTTP")), &[]),
        ("no selector", web, binding("by-hand", &ip("HTTP")), &[]),
        ("no Service", web, binding("gone", &ip("HTTP")), &[]),
        ("a load balancer to come", balanced, String::new(), &[Way::Network]),
        ("its bindings say more", balanced, binding("balanced", &instance("TCP")), &[Way::Nodes]),
        ("a load balancer of others", &[("app", "foreign")], String::new(), &[]),
    ] {
        let snapshot = snapshot(&format!("{SHOP}{bindings}"));
        let found = ways(&snapshot, &build_config(), "shop", &labels(labels_of_pod));
        assert_eq!(found, expected.iter().copied().collect(), "{case}");
        assert_eq!(ways(&snapshot, &build_config(), "other", &labels(labels_of_pod)), BTreeSet::new(), "{case}");
    }
    let without = BuildConfig { enable_services: false, ..build_config() };
    assert_eq!(ways(&snapshot(SHOP), &without, "shop", &labels(balanced)), BTreeSet::new());
    let mut deleted = snapshot(&format!("{SHOP}{}", binding("web", &ip("HTTP"))));
    deleted.target_group_bindings.values_mut().for_each(|binding| binding.deleting = true);
    assert_eq!(ways(&deleted, &build_config(), "shop", &labels(web)), BTreeSet::new());
}

#[test]
fn a_shortfall_names_containers_that_do_not_sleep_long_enough() {
    let exec = |command: &[&str]| json!({"preStop": {"exec": {"command": command}}});
    let sleep = |seconds: i64| json!({"preStop": {"sleep": {"seconds": seconds}}});
    for (lifecycle, expected) in [
        (json!(null), "none"),
        (json!({}), "none"),
        (json!({"preStop": null, "postStart": {"exec": {"command": ["true"]}}}), "none"),
        (sleep(25), "long enough"),
        (sleep(i64::MAX), "long enough"),
        (sleep(24), "own"),
        (sleep(0), "own"),
        (exec(&["sleep", "30"]), "long enough"),
        (exec(&["/bin/sleep", "30s"]), "long enough"),
        (exec(&["/bin/sh", "-c", "sleep 30"]), "long enough"),
        (exec(&["sh", "-c", "nginx -s quit; sleep 5"]), "own"),
        (exec(&["sleep", "1m"]), "own"),
        (exec(&["sleep"]), "own"),
        (exec(&[]), "own"),
        (json!({"preStop": {"httpGet": {"port": 8080}}}), "own"),
        (json!({"preStop": {}}), "own"),
    ] {
        let spec = json!({"containers": [{"name": "app", "lifecycle": lifecycle}], "initContainers": [{"name": "proxy", "restartPolicy": "Always"}]});
        let app = || vec![Container { index: 0, name: "app" }];
        let expected = match expected {
            "none" => Shortfall { without_hook: app(), own_hook: Vec::new() },
            "own" => Shortfall { without_hook: Vec::new(), own_hook: app() },
            _ => Shortfall::default(),
        };
        assert_eq!(shortfall(&spec, Way::Application.seconds()), expected, "{lifecycle}");
    }
    assert_eq!(shortfall(&Value::Null, Seconds::MIN), Shortfall::default());
}

#[test]
fn a_grace_period_has_its_default() {
    for (spec, expected) in [
        (json!({}), 30),
        (json!({"terminationGracePeriodSeconds": null}), 30),
        (json!({"terminationGracePeriodSeconds": 0}), 0),
        (json!({"terminationGracePeriodSeconds": 90}), 90),
        (json!({"terminationGracePeriodSeconds": -5}), 0),
        (json!({"terminationGracePeriodSeconds": i64::MAX}), i64::MAX),
    ] {
        assert_eq!(grace(&spec), expected, "{spec}");
    }
}
