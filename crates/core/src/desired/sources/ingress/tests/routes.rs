//! Paths, hosts, their order, what rules do, and which of them are left out.

use super::{
    super::{listeners::ListenerContext, optimise::optimise},
    *,
};
use crate::model::{Cause, ObjectReference};

fn with_rules(rules: &str) -> String {
    ingress(&[("target-type", "ip")], &format!("  rules:\n{rules}"))
}

#[test]
fn paths_become_patterns() {
    for (kind, path, expected) in [
        ("Exact", "/a", "/a"),
        ("Exact", "/a/", "/a/"),
        ("Exact", "", "/*"),
        ("Prefix", "/", "/*"),
        ("Prefix", "/a", "/a|/a/*"),
        ("Prefix", "/a/", "/a|/a/*"),
        ("Prefix", "/a//", "/a/|/a//*"),
        ("Prefix", "", "/*"),
        ("ImplementationSpecific", "/a", "/a"),
        ("ImplementationSpecific", "/img/*.pn?", "/img/*.pn?"),
        ("ImplementationSpecific", "", "/*"),
        ("", "/*", "/*"),
        ("", "/a/*", "/a/*"),
    ] {
        let stack = stack(&with_rules(&rules("", &[(kind, path, "web", "80")])));
        let expected = format!("HTTP 80: 404 -\n  {expected} -> shop/web-web:80\n");
        assert_eq!(routes(&stack), expected, "{kind} `{path}`");
    }
}

#[test]
fn hosts_are_taken_as_they_are_and_a_rule_without_a_path_takes_the_host_alone() {
    let stack = stack(&with_rules(
        &[
            rules("a.example.com", &[("Prefix", "/", "web", "80")]),
            rules("*.example.com", &[("", "", "web", "80")]),
            rules("", &[("", "", "web", "80")]),
            "  - host: no-http.example.com\n".to_owned(),
        ]
        .concat(),
    ));
    insta::assert_snapshot!(routes(&stack), @r"
    HTTP 80: 404 -
      a.example.com /* -> shop/web-web:80
      *.example.com -> shop/web-web:80
      /* -> shop/web-web:80
    ");
}

/// The order that aws-load-balancer-controller gives the same paths.
#[test]
fn exact_paths_come_first_then_the_longest_prefixes_then_patterns() {
    let first = [
        ("Prefix", "/", "web", "80"),
        ("Prefix", "/foo", "web", "80"),
        ("ImplementationSpecific", "/img/*.png", "web", "80"),
        ("Prefix", "/foo/bar/", "api", "http"),
        ("Exact", "/exact", "api", "http"),
        ("", "/any", "web", "80"),
        ("Prefix", "/bar", "web", "80"),
    ];
    let second = [
        ("Prefix", "/longer/prefix", "web", "80"),
        ("Exact", "/z", "api", "http"),
        ("Exact", "/y", "api", "http"),
        ("Prefix", "/long", "web", "80"),
    ];
    let text = [rules("a.example.com", &first), rules("b.example.com", &second), rules("", &[first[0]])].concat();
    let stack = stack(&with_rules(&text));
    insta::assert_snapshot!(routes(&stack), @r"
    HTTP 80: 404 -
      a.example.com /exact -> shop/web-api:http
      a.example.com /foo/bar|/foo/bar/* -> shop/web-api:http
      a.example.com /foo|/foo/* -> shop/web-web:80
      a.example.com /bar|/bar/* -> shop/web-web:80
      a.example.com /* -> shop/web-web:80
      a.example.com /img/*.png -> shop/web-web:80
      a.example.com /any -> shop/web-web:80
      b.example.com /z -> shop/web-api:http
      b.example.com /y -> shop/web-api:http
      b.example.com /longer/prefix|/longer/prefix/* -> shop/web-web:80
      b.example.com /long|/long/* -> shop/web-web:80
      /* -> shop/web-web:80
    ");
    // Whatever the order, each rule says which path it comes from.
    let causes: Vec<&str> = stack.listeners[&80].rules.iter().map(|rule| &*rule.cause.field).collect();
    insta::assert_snapshot!(causes.join("\n"), @r"
    spec.rules[0].http.paths[4]
    spec.rules[0].http.paths[3]
    spec.rules[0].http.paths[1]
    spec.rules[0].http.paths[6]
    spec.rules[0].http.paths[0]
    spec.rules[0].http.paths[2]
    spec.rules[0].http.paths[5]
    spec.rules[1].http.paths[1]
    spec.rules[1].http.paths[2]
    spec.rules[1].http.paths[0]
    spec.rules[1].http.paths[3]
    spec.rules[2].http.paths[0]
    ");
}

#[test]
fn actions_of_annotations_are_taken() {
    let action = |name| format!("actions.{name}");
    let [fixed, bare, redirect, service, named, arn] =
        ["fixed", "bare", "redirect", "service", "named", "arn"].map(action);
    let annotations = [
        ("target-type", "ip"),
        (
            &*fixed,
            r#"{"type": "fixed-response", "fixedResponseConfig": {"contentType": "text/html", "statusCode": "503", "messageBody": "<h1>down</h1>"}}"#,
        ),
        (&*bare, r#"{"type": "fixed-response", "fixedResponseConfig": {"statusCode": "410"}}"#),
        (
            &*redirect,
            r##"{"type": "redirect", "redirectConfig": {"host": "new.example.com", "path": "/new/#{path}", "port": "8443", "protocol": "HTTPS", "query": "a=b&#{query}", "statusCode": "HTTP_302"}}"##,
        ),
        (
            &*service,
            r#"{"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": "web", "servicePort": "80"}]}}"#,
        ),
        (
            &*named,
            r#"{"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": "api", "servicePort": "http"}]}}"#,
        ),
        (&*arn, r#"{"type": "forward", "targetGroupARN": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/x/1"}"#),
    ];
    let paths: Vec<(String, &str)> = ["fixed", "bare", "redirect", "service", "named", "arn"]
        .iter()
        .map(|name| (format!("/{name}"), *name))
        .collect();
    let paths: Vec<_> = paths.iter().map(|(path, name)| ("Exact", &**path, *name, "use-annotation")).collect();
    let stack = stack(&ingress(&annotations, &format!("  rules:\n{}", rules("", &paths))));
    insta::assert_snapshot!(routes(&stack), @r"
    HTTP 80: 404 -
      /fixed -> 503 <h1>down</h1>
      /bare -> 410 -
      /redirect -> HTTP_302 HTTPS new.example.com 8443 /new/#{path} a=b&#{query}
      /service -> shop/web-web:80
      /named -> shop/web-api:http
      /arn -> arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/x/1
    ");
    let kinds: Vec<_> = stack.listeners[&80].rules[..2]
        .iter()
        .map(|rule| match &rule.action {
            Action::FixedResponse { content_type, .. } => content_type.as_deref(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [Some("text/html"), None]);
}

#[test]
fn the_default_backend_answers_what_no_rule_takes() {
    for (spec, expected) in [
        (format!("  defaultBackend: {}\n", backend("web", "80")), "HTTP 80: shop/web-web:80\n"),
        (format!("  defaultBackend: {}\n", backend("gone", "use-annotation")), "HTTP 80: 410 -\n"),
        ("  rules: []\n".to_owned(), "HTTP 80: 404 -\n"),
    ] {
        let gone = r#"{"type": "fixed-response", "fixedResponseConfig": {"statusCode": "410"}}"#;
        let stack = stack(&ingress(&[("target-type", "ip"), ("actions.gone", gone)], &spec));
        assert_eq!(routes(&stack), expected);
        // Nothing is made for a Service that no listener leads to.
        assert_eq!(stack.target_groups.len(), usize::from(expected.contains("web-web")));
    }
}

#[test]
fn what_is_missing_is_answered_with_503_and_told() {
    let manifests = with_rules(&rules(
        "a.example.com",
        &[
            ("Prefix", "/", "web", "80"),
            ("Prefix", "/nosvc", "nosvc", "80"),
            ("Prefix", "/noaction", "noaction", "use-annotation"),
        ],
    ));
    let tolerated = built(&manifests);
    insta::assert_snapshot!(messages(&tolerated), @r"
    Warning missing-action on Ingress shop/web: spec.rules[0].http.paths[2].backend.service: the annotation `alb.ingress.kubernetes.io/actions.noaction` does not exist; requests are answered with 503; add the annotation
    Warning missing-service on Ingress shop/web: spec.rules[0].http.paths[1].backend.service: the Service `nosvc` does not exist in the namespace `shop`; requests are answered with 503 until it does; create it, or correct the name
    ");
    insta::assert_snapshot!(routes(tolerated.stack.as_ref().unwrap()), @r"
    HTTP 80: 404 -
      a.example.com /noaction|/noaction/* -> 503 Backend action does not exist
      a.example.com /nosvc|/nosvc/* -> 503 Backend service does not exist
      a.example.com /* -> shop/web-web:80
    ");
    let missing = ObjectReference { kind: ObjectKind::Service, name: ObjectName::new("shop", "nosvc") };
    assert_eq!(tolerated.absent, [missing].into());
    let strict = BuildConfig { tolerate_missing_service: false, tolerate_missing_action: false, ..config() };
    let refused = build_with(&format!("{SERVICES}\n---\n{manifests}"), &strict, &facts());
    insta::assert_snapshot!(messages(&refused), @r"
    Error missing-action on Ingress shop/web: spec.rules[0].http.paths[2].backend.service: the annotation `alb.ingress.kubernetes.io/actions.noaction` does not exist; add the annotation
    Error missing-service on Ingress shop/web: spec.rules[0].http.paths[1].backend.service: the Service `nosvc` does not exist in the namespace `shop`; create it, or correct the name
    ");
    assert_eq!((refused.stack, refused.absent.len()), (None, 0));
}

const TO_HTTPS: &str =
    r#"{"type": "redirect", "redirectConfig": {"protocol": "HTTPS", "port": "443", "statusCode": "HTTP_301"}}"#;

/// The way to redirect to HTTPS from before there was an annotation for it: first path on both listeners.
#[test]
fn a_redirect_of_everything_stands_alone_on_80_and_is_left_out_on_443() {
    let annotations = [
        ("target-type", "ip"),
        ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#),
        ("certificate-arn", "arn:aws:acm:eu-west-1:1:certificate/a"),
        ("actions.ssl-redirect", TO_HTTPS),
    ];
    let paths =
        [("", "/*", "ssl-redirect", "use-annotation"), ("", "/*", "web", "80"), ("Exact", "/api", "api", "http")];
    // Exact paths come first also before the redirect.
    let stack = stack(&ingress(&annotations, &format!("  rules:\n{}", rules("", &paths))));
    insta::assert_snapshot!(routes(&stack), @r"
    HTTP 80: 404 -
      /api -> shop/web-api:http
      /* -> HTTP_301 HTTPS - 443 - -
    HTTPS 443: 404 -
      /api -> shop/web-api:http
      /* -> shop/web-web:80
    ");
}

fn rule(conditions: Vec<Condition>, action: Action<TargetGroupReference>) -> Rule {
    let cause = Cause { object: ObjectReference::ingress(&web()), generation: 1, field: String::new() };
    Rule { conditions, action, authentication: None, transforms: vec![], tags: Tags::new(), cause }
}

fn hosts(values: &[&str], regex_values: &[&str]) -> Condition {
    let [values, regex_values] = [values, regex_values].map(|v| v.iter().map(ToString::to_string).collect());
    Condition::HostHeader { values, regex_values }
}

fn paths(values: &[&str], regex_values: &[&str]) -> Condition {
    let [values, regex_values] = [values, regex_values].map(|v| v.iter().map(ToString::to_string).collect());
    Condition::PathPattern { values, regex_values }
}

fn method() -> Condition {
    Condition::HttpRequestMethod { values: vec!["GET".to_owned()] }
}

fn header() -> Condition {
    Condition::HttpHeader { name: "X-A".to_owned(), values: vec!["1".to_owned()], regex_values: vec![] }
}

fn rewrite() -> Transform {
    Transform::UrlRewrite(vec![Rewrite { regex: "^/a".to_owned(), replace: "/b".to_owned() }])
}

/// A redirect by its parts: protocol, host, port, path, query.
fn redirect(parts: [Option<&str>; 5]) -> Action<TargetGroupReference> {
    let [protocol, host, port, path, query] = parts.map(|part| part.map(str::to_owned));
    Action::Redirect { host, path, port, protocol, query, status_code: "HTTP_301".to_owned() }
}

const HTTPS: ListenerContext = ListenerContext { port: 443, protocol: ListenerProtocol::Https, awaits_https: false };

#[test]
fn a_redirect_to_the_very_url_that_it_takes_is_left_out() {
    let everything = || vec![paths(&["/*"], &[])];
    let one = || vec![hosts(&["a.example.com"], &[]), paths(&["/a", "/a/*"], &[])];
    let keep = [Some("#{protocol}"), Some("#{host}"), Some("#{port}"), Some("/#{path}"), Some("#{query}")];
    for (what, conditions, parts, left_out) in [
        ("all kept", everything(), [None; 5], true),
        ("all kept, written", everything(), keep, true),
        ("to this listener", everything(), [Some("HTTPS"), None, Some("443"), None, None], true),
        ("to another port", everything(), [Some("HTTPS"), None, Some("8443"), None, None], false),
        ("to another protocol", everything(), [Some("HTTP"), None, Some("443"), None, None], false),
        ("to the rule's host", one(), [None, Some("a.example.com"), None, None, None], true),
        ("to another host", one(), [None, Some("b.example.com"), None, None, None], false),
        ("to a host where none is asked for", everything(), [None, Some("a.example.com"), None, None, None], false),
        ("to one of the rule's paths", one(), [None, None, None, Some("/a"), None], true),
        ("to another path", one(), [None, None, None, Some("/b"), None], false),
        ("with another query", one(), [None, None, None, None, Some("x=y")], false),
        ("path by regular expression", vec![paths(&[], &["^/a"])], [None; 5], false),
        ("host by regular expression", vec![hosts(&[], &["^a"])], [None; 5], true),
        ("to what looks like the expression", vec![hosts(&[], &["^a"])], [None, Some("^a"), None, None, None], false),
        ("with a further condition", vec![paths(&["/*"], &[]), method()], [None; 5], true),
    ] {
        let kept = optimise(vec![rule(conditions, redirect(parts))], HTTPS);
        assert_eq!(kept.is_empty(), left_out, "{what}");
    }
    let answer = Action::FixedResponse { content_type: None, message_body: None, status_code: "200".to_owned() };
    assert_eq!(optimise(vec![rule(everything(), answer)], HTTPS).len(), 1);
    // A rewritten request may lead elsewhere.
    let rewriting =
        Rule { authentication: None, transforms: vec![rewrite()], ..rule(everything(), redirect([None; 5])) };
    assert_eq!(optimise(vec![rewriting], HTTPS).len(), 1);
}

#[test]
fn what_an_earlier_redirect_hides_is_left_out() {
    let elsewhere = || redirect([None, Some("elsewhere.example.com"), None, None, None]);
    let answer = || Action::FixedResponse { content_type: None, message_body: None, status_code: "200".to_owned() };
    let (a, b) = (|| hosts(&["a.example.com"], &[]), || hosts(&["b.example.com"], &[]));
    for (what, earlier, later, hidden) in [
        ("everything hides a path", vec![paths(&["/*"], &[])], vec![paths(&["/a"], &[])], true),
        ("everything hides a host", vec![paths(&["/*"], &[])], vec![a(), paths(&["/a"], &[])], true),
        ("everything hides a method", vec![paths(&["/*"], &[])], vec![method()], true),
        ("a host hides its paths", vec![a()], vec![a(), paths(&["/a"], &[])], true),
        ("a host does not hide another", vec![a()], vec![b(), paths(&["/a"], &[])], false),
        ("a host does not hide all hosts", vec![a()], vec![paths(&["/a"], &[])], false),
        ("a path hides itself", vec![paths(&["/a", "/b"], &[])], vec![a(), paths(&["/a"], &[])], true),
        ("a path does not hide more", vec![paths(&["/a"], &[])], vec![paths(&["/a", "/b"], &[])], false),
        ("a path does not hide all", vec![paths(&["/a"], &[])], vec![a()], false),
        ("patterns are compared as text", vec![paths(&["/a*"], &[])], vec![paths(&["/ab"], &[])], false),
        ("a method hides nothing", vec![paths(&["/*"], &[]), method()], vec![paths(&["/a"], &[])], false),
        ("nor does a header", vec![a(), header()], vec![a(), header()], false),
        ("a host hides what also asks for a header", vec![a()], vec![a(), header()], true),
        ("a regular expression hides no pattern", vec![paths(&[], &["^/"])], vec![paths(&["/a"], &[])], false),
        ("nor does the text of a pattern", vec![paths(&["^/"], &[])], vec![paths(&[], &["^/"])], false),
        ("an expression hides itself", vec![paths(&[], &["^/"])], vec![a(), paths(&[], &["^/"])], true),
        ("an expression of hosts hides no host", vec![hosts(&[], &["^a"])], vec![b()], false),
        ("nor all hosts", vec![hosts(&[], &["^a"])], vec![paths(&["/a"], &[])], false),
        ("it hides itself", vec![hosts(&[], &["^a"])], vec![hosts(&[], &["^a"]), paths(&["/a"], &[])], true),
        (
            "every path of a host hides expressions",
            vec![a(), paths(&["/*"], &[])],
            vec![a(), paths(&[], &["^/"])],
            true,
        ),
    ] {
        let kept = optimise(vec![rule(earlier.clone(), elsewhere()), rule(later.clone(), answer())], HTTPS);
        assert_eq!(kept.len(), if hidden { 1 } else { 2 }, "{what}");
        // The rewrites of the earlier one make no difference, nor those of the later one.
        let rewriting = |rule: Rule| Rule { authentication: None, transforms: vec![rewrite()], ..rule };
        let rules = vec![rewriting(rule(earlier.clone(), elsewhere())), rewriting(rule(later.clone(), answer()))];
        assert_eq!(optimise(rules, HTTPS).len(), if hidden { 1 } else { 2 }, "{what}");
        // Only redirects hide, and only what comes later.
        assert_eq!(
            optimise(vec![rule(earlier.clone(), answer()), rule(later.clone(), answer())], HTTPS).len(),
            2,
            "{what}"
        );
        assert_eq!(optimise(vec![rule(later, answer()), rule(earlier, elsewhere())], HTTPS).len(), 2, "{what}");
    }
}
