use std::collections::BTreeSet;

use http_body_util::Full;
use hyper::Request;

use super::support::*;
use crate::account::*;

/// A load balancer without targets.
fn empty() -> Account {
    account(Protocol::Http, 80, group("HTTP1", &[]))
}

fn redirect() -> Action {
    Action::Redirect {
        protocol: "HTTPS".to_owned(),
        port: "443".to_owned(),
        host: "#{host}".to_owned(),
        path: "/new/#{path}".to_owned(),
        query: "#{query}".to_owned(),
        status: 301,
    }
}

#[tokio::test]
async fn each_action_has_its_answer() {
    let mut account = empty();
    let mut failing = rule(7, path("/transform"), fixed(200, "never"));
    failing.transforms = vec![Transform::UrlRewrite { regex: "^/t".to_owned(), replace: "$9".to_owned() }];
    let mut signed_in = rule(6, path("/auth"), forward(&[("group", 1)]));
    signed_in.actions.insert(0, Action::Authenticate);
    listener(&mut account).rules = vec![
        rule(1, path("/fixed"), fixed(418, "tea")),
        rule(2, path("/redirect"), redirect()),
        rule(3, path("/none"), forward(&[("group", 0), ("other", 0)])),
        rule(4, path("/lost"), forward(&[("lost", 1)])),
        rule(5, path("/bare"), Action::FixedResponse { status: 404, content_type: None, body: String::new() }),
        signed_in,
        failing,
    ];
    let world = World::start(account).await;
    let page = "<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n<body>\r\n\
                <center><h1>503 Service Temporarily Unavailable</h1></center>\r\n</body>\r\n</html>\r\n";
    for (path, status, content_type, length) in [
        ("/", 503, "text/html", 162),
        ("/fixed", 418, "text/plain; charset=utf-8", 3),
        ("/redirect?a=b", 301, "text/html", 134),
        ("/none", 503, "text/html", 162),
        ("/lost", 503, "text/html", 162),
        ("/bare", 404, "text/plain; charset=utf-8", 0),
        ("/auth", 501, "text/html", 130),
        ("/transform", 500, "text/html", 142),
    ] {
        let answer = world.get(path).await;
        assert_eq!(answer.own(), (status, true), "{path}");
        assert_eq!(answer.header("content-type"), Some(content_type), "{path}");
        assert_eq!(answer.body.len(), length, "{path}: {}", answer.body);
        assert!(answer.header("date").is_some());
        let location = (path == "/redirect?a=b").then_some("https://a.test:443/new/redirect?a=b");
        assert_eq!(answer.header("location"), location);
    }
    assert_eq!(world.get("/").await.body, page);
    assert_eq!(world.get("/fixed").await.body, "tea");
}

#[tokio::test]
async fn requests_that_are_refused() {
    let world = World::start(empty()).await;
    let hops = vec!["192.0.2.1"; 31].join(", ");
    let host = ("host", "a.test");
    for (method, headers, status) in
        [("TRACE", vec![host], 405), ("GET", vec![host, ("x-forwarded-for", hops.as_str())], 463), ("GET", vec![], 400)]
    {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = world.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.own(), (status, true));
    }
    let answer = exchange(&world, b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Temporarily Unavailable\r\n"), "{answer}");
    let answer = exchange(&world, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\nServer: awselb/2.0\r\n"), "{answer}");
    let answer = exchange(&world, b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 503 "), "{answer}");
}

#[tokio::test]
async fn each_condition_takes_real_requests() {
    let texts = |values: &[&str]| -> Vec<String> { values.iter().map(ToString::to_string).collect() };
    let mut account = empty();
    let query = QueryValue { key: Some("version".to_owned()), value: "v?".to_owned() };
    let header = |values: &[&str], regex_values: &[&str]| Condition::HttpHeader {
        name: "X-Env".to_owned(),
        values: texts(values),
        regex_values: texts(regex_values),
    };
    let conditions = [
        Condition::HostHeader { values: texts(&["*.shop.test"]), regex_values: vec![] },
        Condition::HostHeader { values: vec![], regex_values: texts(&["^b\\.test:81$"]) },
        path("/img/*.png"),
        Condition::PathPattern { values: vec![], regex_values: texts(&["^/v[0-9]+/"]) },
        header(&["canary*"], &[]),
        header(&[], &["^blue-\\d$"]),
        Condition::HttpRequestMethod { values: texts(&["PURGE"]) },
        Condition::QueryString { values: vec![query] },
        Condition::SourceIp { values: vec!["198.18.0.7/32".parse().unwrap()] },
    ];
    let rules = conditions.into_iter().zip(1..);
    let rules = rules.map(|(condition, priority)| rule(priority, condition, fixed(200, &priority.to_string())));
    listener(&mut account).rules = rules.collect();
    listener(&mut account).rules.reverse();
    let world = World::start(account).await;
    let get = |path: &str| Request::get(path);
    let mut taken = BTreeSet::new();
    for (request, expected) in [
        (get("/").header("host", "WWW.shop.test"), "1"),
        (get("/").header("host", "b.test:81"), "2"),
        (get("/").header("host", "b.test"), "9"),
        (get("/img/a.png").header("host", "a"), "3"),
        (get("/img/a.PNG").header("host", "a"), "9"),
        (get("/v12/x").header("host", "a"), "4"),
        (get("/").header("host", "a").header("x-env", "Canary-1"), "5"),
        (get("/").header("host", "a").header("x-env", "other").header("x-env", "BLUE-1"), "6"),
        (get("/").header("host", "a").method("PURGE"), "7"),
        (get("/?a=b&VERSION=V1").header("host", "a"), "8"),
        (get("/?version=v12").header("host", "a"), "9"),
        // Not by the header that says where it came from.
        (get("/").header("host", "a").header("x-forwarded-for", "192.0.2.1"), "9"),
    ] {
        let answer = world.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.body, expected);
        taken.insert(answer.body);
    }
    assert_eq!(taken.len(), 9);
    // A change of the view is seen by the next request of a kept connection.
    let mut client = Client::new(world.dial().await).await;
    assert_eq!(client.send(request("/")).await.body, "9");
    world.change(|account| listener(account).rules.clear());
    assert_eq!(client.send(request("/")).await.own(), (503, true));
}

#[tokio::test]
async fn the_port_offset_is_not_seen() {
    let mut account = empty();
    let host = Condition::HostHeader { values: vec!["a.test".to_owned()], regex_values: vec![] };
    listener(&mut account).rules = vec![rule(1, host, redirect())];
    let world = World::with(account, 1.0, 10_000).await;
    let request = Request::get("/x").header("host", "a.test:10080").body(Full::default()).unwrap();
    let answer = world.send(request).await;
    assert_eq!(answer.header("location"), Some("https://a.test:10443/new/x"));
}
