//! Forwards to several target groups, by weight, to Services and to foreign target groups.

use super::*;
use crate::facts::FactQuery;

fn go(action: &str) -> String {
    let annotations = [("target-type", "ip"), ("actions.go", action)];
    ingress(&annotations, &format!("  rules:\n{}", rules("", &[("Exact", "/", "go", "use-annotation")])))
}

/// `actions.go` that forwards so.
fn forward(target_groups: &str, stickiness: &str) -> String {
    let stickiness =
        if stickiness.is_empty() { String::new() } else { format!(r#", "targetGroupStickinessConfig": {stickiness}"#) };
    go(&format!(r#"{{"type": "forward", "forwardConfig": {{"targetGroups": [{target_groups}]{stickiness}}}}}"#))
}

const BLUE_GREEN: &str = r#"{"serviceName": "web", "servicePort": 80, "weight": 20}, {"serviceName": "api", "servicePort": "http", "weight": 0}"#;

#[test]
fn weights_and_stickiness() {
    let built = stack(&forward(BLUE_GREEN, r#"{"enabled": true, "durationSeconds": 200}"#));
    let group = |id: &str, weight| WeightedTargetGroup {
        group: TargetGroupReference::Own(ResourceId::of_tag(id)),
        weight: Some(weight),
    };
    let mut expected = Action::Forward {
        target_groups: vec![group("shop/web-web:80", 20), group("shop/web-api:http", 0)],
        stickiness: Some(Stickiness { enabled: true, duration_seconds: Some(200) }),
    };
    assert_eq!(built.listeners[&80].rules[0].action, expected);
    let made: Vec<&str> = built.target_groups.keys().map(|id| id.as_str()).collect();
    assert_eq!(made, ["shop/web-web:80", "shop/web-api:http"]);
    // Stickiness that is not switched on is off.
    for (stickiness, read) in [
        ("", None),
        ("{}", Some(Stickiness { enabled: false, duration_seconds: None })),
        (r#"{"durationSeconds": 60}"#, Some(Stickiness { enabled: false, duration_seconds: Some(60) })),
    ] {
        if let Action::Forward { stickiness, .. } = &mut expected {
            *stickiness = read;
        }
        assert_eq!(stack(&forward(BLUE_GREEN, stickiness)).listeners[&80].rules[0].action, expected);
    }
}

#[test]
fn the_default_action_forwards_by_weight_too() {
    let action = format!(r#"{{"type": "forward", "forwardConfig": {{"targetGroups": [{BLUE_GREEN}]}}}}"#);
    let spec = format!("  defaultBackend: {}\n", backend("go", "use-annotation"));
    let built = stack(&ingress(&[("target-type", "ip"), ("actions.go", &action)], &spec));
    assert_eq!(routes(&built), "HTTP 80: 20xshop/web-web:80+0xshop/web-api:http\n");
}

#[test]
fn target_groups_of_others_by_arn_and_by_name() {
    let manifests = forward(
        r#"{"targetGroupName": "blue", "weight": 1}, {"targetGroupARN": "arn:x", "weight": 2}, {"serviceName": "web", "servicePort": 80, "weight": 3}"#,
        "",
    );
    let manifests = format!("{SERVICES}\n---\n{manifests}");
    // The fact is requested, then used.
    let asked = build_with(&manifests, &config(), &facts());
    assert_eq!((asked.wants, asked.stack), ([FactQuery::TargetGroup("blue".to_owned())].into(), None));
    assert!(FactQuery::TargetGroup("blue".to_owned()).is_read());
    let reported = |fact| Facts { target_groups: [("blue".to_owned(), fact)].into(), ..facts() };
    let known = build_with(&manifests, &config(), &reported(Fact::Known(TargetGroupArn::new("arn:blue"))));
    insta::assert_snapshot!(routes(known.stack.as_ref().unwrap()), @"
    HTTP 80: 404 -
      / -> 1xarn:blue+2xarn:x+3xshop/web-web:80
    ");
    // For files the build requests nothing from AWS.
    let offline = build_with(&manifests, &config(), &Facts { offline: true, ..facts() });
    insta::assert_snapshot!(routes(offline.stack.as_ref().unwrap()), @"
    HTTP 80: 404 -
      / -> 1xnamed blue+2xarn:x+3xshop/web-web:80
    ");
    // One that is not there is looked for again; one that cannot be looked up changes nothing.
    let absent =
        Fact::Absent { message: "there is no target group named `blue`".to_owned(), fix: "create it".to_owned() };
    let absent = build_with(&manifests, &config(), &reported(absent));
    insta::assert_snapshot!(messages(&absent), @"Error missing-target-group on Ingress shop/web: alb.ingress.kubernetes.io/actions.go: there is no target group named `blue`; create it");
    assert!(absent.lacking && absent.stack.is_none());
    let unavailable = build_with(&manifests, &config(), &reported(Fact::Unavailable("throttled".to_owned())));
    assert_eq!((unavailable.unavailable, unavailable.stack), (vec!["throttled".to_owned()], None));
}

#[test]
fn a_target_group_that_is_the_same_by_name_and_by_arn_is_named_once() {
    let manifests =
        forward(r#"{"targetGroupName": "blue", "weight": 1}, {"targetGroupARN": "arn:blue", "weight": 2}"#, "");
    let blue = Fact::Known(TargetGroupArn::new("arn:blue"));
    let facts = Facts { target_groups: [("blue".to_owned(), blue)].into(), ..facts() };
    insta::assert_snapshot!(messages(&build_with(&manifests, &config(), &facts)), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/actions.go: the forward names the target group `arn:blue` twice; name it once, with one weight");
}

#[test]
fn what_is_wrong_with_a_forward() {
    let reported = |manifests: &str| messages(&built(manifests));
    // A single target may be missing; one of several may not.
    let nobody = r#"{"serviceName": "nobody", "servicePort": 80, "weight": 1}"#;
    insta::assert_snapshot!(reported(&forward(nobody, "")), @"Warning missing-service on Ingress shop/web: alb.ingress.kubernetes.io/actions.go: the Service `nobody` does not exist in the namespace `shop`; requests are answered with 503 until it does; create it, or correct the name");
    insta::assert_snapshot!(reported(&forward(&format!("{BLUE_GREEN}, {nobody}"), "")), @"Error missing-service on Ingress shop/web: alb.ingress.kubernetes.io/actions.go: the Service `nobody` does not exist in the namespace `shop`; a forward to several target groups needs all of them; create it, or correct the name");
    let twice = r#"{"serviceName": "web", "servicePort": 80, "weight": 1}, {"serviceName": "web", "servicePort": "80", "weight": 1}"#;
    insta::assert_snapshot!(reported(&forward(twice, "")), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/actions.go: the forward names the target group `shop/web-web:80` twice; name it once, with one weight");
    insta::assert_snapshot!(reported(&forward(r#"{"targetGroupName": "my_group"}"#, "")), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/actions.go: `my_group` is not a valid name: it has a character that is neither letter, digit nor hyphen; a name has 1 to 32 letters, digits and hyphens, neither starts nor ends with a hyphen, and does not start with `internal-`; write the name of a target group, or its ARN as `targetGroupARN`");
    insta::assert_snapshot!(reported(&forward(r#"{"serviceName": "web", "servicePort": 80}, {"serviceName": "api", "servicePort": 80, "weight": 1}"#, "")), @r#"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/actions.go` has the value `{"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": "web", "…`: forwardConfig.targetGroups[0].weight is missing; with more than one target group each needs a weight; allowed: a JSON object with `type` `fixed-response`, `redirect` or `forward`, and its configuration"#);
}
