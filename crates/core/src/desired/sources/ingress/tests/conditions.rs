//! `conditions.<name>`, `transforms.<name>`, `use-regex-path-match`, and rules that exceed what AWS accepts in one.

use super::{
    super::split::{TooMany, split},
    *,
};
use crate::model::{Cause, ObjectReference};

/// An Ingress for `a.example.com` with annotations and one path.
fn one(annotations: &[(&str, &str)], kind: &str, path: &str) -> String {
    let annotations = [&[("target-type", "ip")], annotations].concat();
    ingress(&annotations, &format!("  rules:\n{}", rules("a.example.com", &[(kind, path, "web", "80")])))
}

fn conditions(ingress: &str) -> Vec<Vec<Condition>> {
    stack(ingress).listeners[&80].rules.iter().map(|rule| rule.conditions.clone()).collect()
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn hosts(values: &[&str]) -> Condition {
    Condition::HostHeader { values: texts(values), regex_values: vec![] }
}

fn paths(values: &[&str]) -> Condition {
    Condition::PathPattern { values: texts(values), regex_values: vec![] }
}

fn expressions(regex_values: &[&str]) -> Condition {
    Condition::PathPattern { values: vec![], regex_values: texts(regex_values) }
}

fn header(name: &str, values: &[&str]) -> Condition {
    Condition::HttpHeader { name: name.to_owned(), values: texts(values), regex_values: vec![] }
}

#[test]
fn other_conditions_come_first_then_hosts_then_paths() {
    let annotated = r#"[
        {"field": "path-pattern", "pathPatternConfig": {"values": ["/more"]}},
        {"field": "query-string", "queryStringConfig": {"values": [{"value": "beta"}]}},
        {"field": "host-header", "hostHeaderConfig": {"values": ["b.example.com"]}},
        {"field": "http-request-method", "httpRequestMethodConfig": {"values": ["GET"]}}]"#;
    let beta = Condition::QueryString { values: vec![QueryStringValue { key: None, value: "beta".to_owned() }] };
    assert_eq!(
        conditions(&one(&[("conditions.web", annotated)], "Exact", "/a")),
        // Six values: AWS takes five in a rule.
        [
            vec![
                beta.clone(),
                Condition::HttpRequestMethod { values: texts(&["GET"]) },
                hosts(&["a.example.com", "b.example.com"]),
                paths(&["/a"]),
            ],
            vec![
                beta,
                Condition::HttpRequestMethod { values: texts(&["GET"]) },
                hosts(&["a.example.com", "b.example.com"]),
                paths(&["/more"]),
            ],
        ]
    );
    // Conditions of the same field are one; of headers each is separate.
    let twice = r#"[
        {"field": "path-pattern", "pathPatternConfig": {"values": ["/b"]}},
        {"field": "http-header", "httpHeaderConfig": {"httpHeaderName": "X-A", "values": ["1"]}},
        {"field": "path-pattern", "pathPatternConfig": {"values": ["/c"]}},
        {"field": "http-header", "httpHeaderConfig": {"httpHeaderName": "X-A", "values": ["2"]}}]"#;
    let only = |annotations: &[(&str, &str)], path: &str| {
        let annotations = [&[("target-type", "ip")], annotations].concat();
        ingress(&annotations, &format!("  rules:\n{}", rules("", &[("", path, "web", "80")])))
    };
    assert_eq!(
        conditions(&only(&[("conditions.web", twice)], "/a")),
        [vec![header("X-A", &["1"]), header("X-A", &["2"]), paths(&["/a", "/b", "/c"])]]
    );
    // Without host and path, a rule has only the annotation's conditions.
    let header_alone = r#"[{"field": "http-header", "httpHeaderConfig": {"httpHeaderName": "X-A", "values": ["1"]}}]"#;
    assert_eq!(conditions(&only(&[("conditions.web", header_alone)], "")), [vec![header("X-A", &["1"])]]);
    assert_eq!(conditions(&only(&[("conditions.web", "[]")], "")), [vec![paths(&["/*"])]]);
}

#[test]
fn conditions_and_transforms_belong_to_the_backend_of_their_name() {
    let rewrite =
        r#"[{"type": "url-rewrite", "urlRewriteConfig": {"rewrites": [{"regex": "^/a/(.*)$", "replace": "/$1"}]}}]"#;
    let get = r#"[{"field": "http-request-method", "httpRequestMethodConfig": {"values": ["GET"]}}]"#;
    let gone = r#"{"type": "fixed-response", "fixedResponseConfig": {"statusCode": "410"}}"#;
    let annotations = [
        ("target-type", "ip"),
        ("conditions.gone", get),
        ("transforms.api", rewrite),
        ("transforms.nobody", rewrite),
        ("actions.gone", gone),
    ];
    let paths =
        [("Exact", "/a", "api", "http"), ("Exact", "/b", "gone", "use-annotation"), ("Exact", "/c", "web", "80")];
    let spec = format!("  defaultBackend: {}\n  rules:\n{}", backend("api", "http"), rules("", &paths));
    let built = stack(&ingress(&annotations, &spec));
    let rules: Vec<(usize, Vec<Transform>)> =
        built.listeners[&80].rules.iter().map(|rule| (rule.conditions.len(), rule.transforms.clone())).collect();
    let transform = Transform::UrlRewrite(vec![Rewrite { regex: "^/a/(.*)$".to_owned(), replace: "/$1".to_owned() }]);
    assert_eq!(rules, [(1, vec![transform]), (2, vec![]), (1, vec![])]);
}

#[test]
fn paths_by_regular_expression() {
    let regular = |kind, path| one(&[("use-regex-path-match", "true")], kind, path);
    for (kind, path, expected) in [
        ("ImplementationSpecific", "/^\\/api\\/[0-9]+$", expressions(&["^\\/api\\/[0-9]+$"])),
        ("", "/api/.*", expressions(&["api/.*"])),
        // Other types of paths stay what they are.
        ("Exact", "/a", paths(&["/a"])),
        ("Prefix", "/a", paths(&["/a", "/a/*"])),
    ] {
        assert_eq!(conditions(&regular(kind, path)), [vec![hosts(&["a.example.com"]), expected]], "{kind} {path}");
    }
    assert_eq!(conditions(&regular("", "")), [vec![hosts(&["a.example.com"])]]);
    let without = one(&[("use-regex-path-match", "false")], "", "/api/.*");
    assert_eq!(conditions(&without), [vec![hosts(&["a.example.com"]), paths(&["/api/.*"])]]);
    // Expressions of the annotation are alternatives.
    let more = r#"[{"field": "path-pattern", "pathPatternConfig": {"regexValues": ["^/b$"]}}]"#;
    let both = one(&[("use-regex-path-match", "true"), ("conditions.web", more)], "", "/^/a$");
    assert_eq!(conditions(&both), [vec![hosts(&["a.example.com"]), expressions(&["^/a$", "^/b$"])]]);
}

#[test]
fn messages() {
    let reported =
        |annotations: &[(&str, &str)], kind: &str, path: &str| super::messages(&built(&one(annotations, kind, path)));
    let path_expression = r#"[{"field": "path-pattern", "pathPatternConfig": {"regexValues": ["^/b$"]}}]"#;
    insta::assert_snapshot!(reported(&[("conditions.web", path_expression)], "Prefix", "/a"), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/conditions.web: the rule of spec.rules[0].http.paths[0] has paths as patterns (`/a`, `/a/*`) and as regular expressions (`^/b$`), and AWS takes one of the two; write all paths of the rule as patterns, or all as regular expressions");
    let host_expression = r#"[{"field": "host-header", "hostHeaderConfig": {"regexValues": ["^b"]}}]"#;
    insta::assert_snapshot!(reported(&[("conditions.web", host_expression)], "Prefix", "/a"), @"Error invalid-value on Ingress shop/web: alb.ingress.kubernetes.io/conditions.web: the rule of spec.rules[0].http.paths[0] has hosts as patterns (`a.example.com`) and as regular expressions (`^b`), and AWS takes one of the two; write all hosts of the rule as patterns, or all as regular expressions");
    insta::assert_snapshot!(reported(&[("use-regex-path-match", "true")], "", "/"), @r"Error invalid-value on Ingress shop/web: spec.rules[0].http.paths[0].path: with `alb.ingress.kubernetes.io/use-regex-path-match` the path `/` is the empty regular expression; write the expression after the slash (`/^\/api\/.*`), or use pathType Prefix");
    insta::assert_snapshot!(reported(&[("conditions.web", r#"[{"field": "cookie"}]"#)], "Prefix", "/a"), @r#"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/conditions.web` has the value `[{"field": "cookie"}]`: [0].field `cookie` is none of `host-header`, `path-pattern`, `http-header`, `http-request-method`, `query-string` and `source-ip`; allowed: a JSON array of rule conditions, each with its `field` and configuration"#);
    insta::assert_snapshot!(reported(&[("transforms.web", r#"[{"type": "body-rewrite"}]"#)], "Prefix", "/a"), @r#"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/transforms.web` has the value `[{"type": "body-rewrite"}]`: [0].type `body-rewrite` is not `url-rewrite` or `host-header-rewrite`; allowed: a JSON array of rewrites, each with its `type` and configuration"#);
    insta::assert_snapshot!(reported(&[("use-regex-path-match", "yes")], "Prefix", "/a"), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/use-regex-path-match` has the value `yes`; allowed: `true` or `false`; write `true`");
    // The default action has neither, but mistakes are reported.
    let default = format!("  defaultBackend: {}\n", backend("web", "80"));
    let told_of_default =
        |annotation| super::messages(&built(&ingress(&[("target-type", "ip"), annotation], &default)));
    insta::assert_snapshot!(told_of_default(("conditions.web", "{}")), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/conditions.web` has the value `{}`: the value is an object, not an array; allowed: a JSON array of rule conditions, each with its `field` and configuration");
    insta::assert_snapshot!(told_of_default(("transforms.web", "{}")), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/transforms.web` has the value `{}`: the value is an object, not an array; allowed: a JSON array of rewrites, each with its `type` and configuration");
    let headers: Vec<String> = (1..=4)
        .map(|n| {
            format!(r#"{{"field": "http-header", "httpHeaderConfig": {{"httpHeaderName": "X-{n}", "values": ["1"]}}}}"#)
        })
        .collect();
    insta::assert_snapshot!(reported(&[("conditions.web", &format!("[{}]", headers.join(",")))], "Exact", "/a"), @"Error unsupported on Ingress shop/web: spec.rules[0].http.paths[0]: the rule has 6 conditions, and AWS takes 5 values of conditions in one rule; leave out conditions, or let the targets distinguish such requests");
    insta::assert_snapshot!(reported(&[], "", "/*a*b*c*d*e*f*"), @"Error unsupported on Ingress shop/web: spec.rules[0].http.paths[0]: the rule has 7 wildcards (`*`, `?`), and AWS takes 6 in one rule; write patterns with fewer wildcards");
}

fn rule(conditions: Vec<Condition>) -> Rule {
    let cause = Cause { object: ObjectReference::ingress(&web()), generation: 1, field: "spec".to_owned() };
    let action = Action::FixedResponse { content_type: None, message_body: None, status_code: "200".to_owned() };
    Rule { conditions, action, authentication: None, transforms: vec![], tags: Tags::new(), cause }
}

#[test]
fn a_rule_with_too_many_values_is_several_rules() {
    let numbered = |count: usize| -> Vec<String> { (1..=count).map(|n| format!("h{n}")).collect() };
    let many = |count| Condition::HostHeader { values: numbered(count), regex_values: vec![] };
    let expressions = |count| Condition::PathPattern { values: vec![], regex_values: numbered(count) };
    let wild = |values: &[&str]| Condition::PathPattern { values: texts(values), regex_values: vec![] };
    let sizes = |rules: &[Rule]| -> Vec<Vec<usize>> {
        let size = |condition: &Condition| match condition {
            Condition::HostHeader { values, regex_values }
            | Condition::PathPattern { values, regex_values }
            | Condition::HttpHeader { values, regex_values, .. } => values.len() + regex_values.len(),
            Condition::HttpRequestMethod { values } | Condition::SourceIp { values } => values.len(),
            Condition::QueryString { values } => values.len(),
            Condition::Other(_) => 1,
        };
        rules.iter().map(|rule| rule.conditions.iter().map(size).collect()).collect()
    };
    for (conditions, expected) in [
        (vec![many(5)], Ok(vec![vec![5]])),
        (vec![many(3), wild(&["/a", "/a/*"])], Ok(vec![vec![3, 2]])),
        (vec![many(6)], Ok(vec![vec![5], vec![1]])),
        // As few rules as can be.
        (vec![many(4), wild(&["/a", "/a/*"])], Ok(vec![vec![4, 1], vec![4, 1]])),
        (vec![many(10), wild(&["/a", "/a/*"])], Ok(vec![vec![3, 2], vec![3, 2], vec![3, 2], vec![1, 2]])),
        (vec![many(20), wild(&["/a"])], Ok(vec![vec![4, 1]; 5])),
        (vec![many(4), expressions(4)], Ok(vec![vec![4, 1]; 4])),
        (vec![many(2), header("a", &["1", "2"]), wild(&["/a", "/a/*"])], Ok(vec![vec![2, 2, 1], vec![2, 2, 1]])),
        // Five conditions have room for one value each.
        (
            vec![many(1), header("a", &["1"]), header("b", &["1"]), header("c", &["1"]), wild(&["/a", "/b"])],
            Ok(vec![vec![1, 1, 1, 1, 1], vec![1, 1, 1, 1, 1]]),
        ),
        (vec![header("a", &["1"]); 6], Err(TooMany::Conditions(6))),
        // Six wildcards.
        (vec![wild(&["/*?*", "/?*?"])], Ok(vec![vec![2]])),
        (vec![wild(&["/*?*", "/?*?", "/*"])], Ok(vec![vec![2], vec![1]])),
        (vec![wild(&["/*?*?", "/?*?"])], Ok(vec![vec![1], vec![1]])),
        (vec![wild(&["/*?*?*?*"])], Err(TooMany::Wildcards(7))),
        (vec![header("a", &["*a*b*", "a"]), wild(&["*a*b*c*"])], Err(TooMany::Wildcards(7))),
        (vec![Condition::Other("new".to_owned())], Ok(vec![vec![1]])),
    ] {
        let made = split(rule(conditions.clone()));
        assert_eq!(made.as_deref().map(sizes).map_err(|many| *many), expected, "{conditions:?}");
    }
    // An expression's stars are none, nor is an escaped one in a query.
    let value = |value: &str| QueryStringValue { key: None, value: value.to_owned() };
    let escaped = Condition::QueryString { values: vec![value("\\*\\*\\*\\*"), value("\\?\\?\\?\\?")] };
    let stars = Condition::PathPattern { values: vec![], regex_values: texts(&["/.*?.*?.*?.*?"]) };
    assert_eq!(split(rule(vec![escaped.clone(), stars.clone()])), Ok(vec![rule(vec![escaped, stars])]));
}

/// The parts of a rule take what the rule takes, and have its values once each.
#[test]
fn split_rules_take_the_same_requests() {
    let all = rule(vec![header("x", &["1", "2", "3"]), hosts(&["a", "b", "c"]), paths(&["/p", "/q", "/r*"])]);
    let parts = split(all.clone()).unwrap();
    assert!(parts.len() > 1);
    let listener = |rules: Vec<Rule>| {
        let mut listener = stack(&one(&[], "Exact", "/a")).listeners.remove(&80).unwrap();
        listener.rules = rules;
        listener
    };
    let (whole, split) = (listener(vec![all]), listener(parts));
    let mut taken = 0;
    for value in ["1", "2", "3", "4"] {
        for host in ["a", "b", "c", "d"] {
            for path in ["/p", "/q", "/rest", "/s"] {
                let headers = vec![("X".to_owned(), value.to_owned())];
                let request = crate::route::Request { headers, ..crate::route::Request::get(host, path) };
                let routed = |listener| crate::route::wanted(listener, &request).hit.rule.is_some();
                assert_eq!(routed(&whole), routed(&split), "{value} {host} {path}");
                taken += usize::from(routed(&split));
            }
        }
    }
    assert_eq!(taken, 27);
}
