use albatross_core::{model, route};

use super::*;

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn host(values: &[&str], regex_values: &[&str]) -> Condition {
    Condition::HostHeader { values: texts(values), regex_values: texts(regex_values) }
}

fn path(values: &[&str], regex_values: &[&str]) -> Condition {
    Condition::PathPattern { values: texts(values), regex_values: texts(regex_values) }
}

fn header(name: &str, values: &[&str], regex_values: &[&str]) -> Condition {
    Condition::HttpHeader { name: name.to_owned(), values: texts(values), regex_values: texts(regex_values) }
}

fn query(key: Option<&str>, value: &str) -> Condition {
    Condition::QueryString { values: vec![QueryValue { key: key.map(str::to_owned), value: value.to_owned() }] }
}

fn fixed(status: u16) -> Action {
    Action::FixedResponse { status, content_type: None, body: String::new() }
}

fn rule(priority: u32, conditions: Vec<Condition>) -> Rule {
    Rule { arn: format!("rule-{priority}"), priority, conditions, actions: vec![fixed(200)], transforms: vec![] }
}

fn listener(rules: Vec<Rule>) -> Listener {
    Listener {
        arn: "listener".to_owned(),
        protocol: Protocol::Http,
        certificates: vec![],
        alpn: None,
        client_certificates: None,
        attributes: Default::default(),
        default_actions: vec![fixed(404)],
        rules,
    }
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(hyper::header::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    headers
}

#[test]
fn conditions() {
    let headers = headers(&[("X-Env", "Canary-7"), ("x-env", "blue")]);
    let request = RequestParts {
        method: "GET",
        host: "Shop.Example.com",
        path: "/img/Cat.png",
        query: Some("V=2&flag&stars=a*b&e=%41"),
        headers: &headers,
        source: [192, 0, 2, 7].into(),
    };
    for (condition, expected) in [
        (host(&["shop.example.com"], &[]), true),
        (host(&["other.test", "*.com"], &[]), true),
        (host(&["?hop.example.com"], &[]), true),
        (host(&["?shop.example.com"], &[]), false),
        (host(&["example.com"], &[]), false),
        (host(&["*.shop.example.com"], &[]), false),
        (host(&["s*.e*.c*"], &[]), true),
        (host(&[], &["^shop\\."]), true),
        (host(&[], &["^hop\\."]), false),
        (host(&[], &["("]), false),
        (path(&["/img/*.png"], &[]), true),
        (path(&["/img/cat.png"], &[]), false),
        (path(&["/img"], &[]), false),
        (path(&["/img", "/img/*"], &[]), true),
        (path(&["/img/Cat.pn?"], &[]), true),
        (path(&["/img/Cat.png?"], &[]), false),
        (path(&["/img/Cat.png*"], &[]), true),
        (path(&["*g*g"], &[]), true),
        (path(&["*g*g*g*"], &[]), false),
        (path(&["**/**"], &[]), true),
        (path(&["*"], &[]), true),
        (path(&["/img/Cat*at.png"], &[]), false),
        (path(&[""], &[]), false),
        (path(&["\\*"], &[]), false),
        (path(&[], &["^/img/[A-Z]"]), true),
        (path(&[], &["^/img/[a-z]"]), false),
        (header("x-ENV", &["canary-?"], &[]), true),
        (header("x-env", &["*u*"], &[]), true),
        (header("x-env", &["canary"], &[]), false),
        (header("x-env", &[], &["^CANARY-\\d$"]), true),
        (header("accept", &["*"], &[]), false),
        (Condition::HttpRequestMethod { values: texts(&["POST", "GET"]) }, true),
        (Condition::HttpRequestMethod { values: texts(&["get"]) }, false),
        (query(Some("v"), "2"), true),
        (query(Some("v"), "3"), false),
        (query(None, "2"), true),
        (query(Some("FL*"), ""), true),
        (query(Some("stars"), "a\\*b"), true),
        (query(Some("v"), "\\*"), false),
        (query(Some("e"), "%41"), true),
        (query(Some("e"), "A"), false),
        (Condition::SourceIp { values: vec!["192.0.2.0/24".parse().unwrap()] }, true),
        (Condition::SourceIp { values: vec!["198.51.100.0/24".parse().unwrap(), "::/0".parse().unwrap()] }, false),
    ] {
        assert_eq!(meets(&request, &condition), expected, "{condition:?}");
    }
    let with_port = RequestParts { host: "shop.example.com:8443", query: None, ..request };
    assert!(!meets(&with_port, &host(&["shop.example.com"], &[])));
    assert!(meets(&with_port, &host(&[], &["^shop\\.example\\.com:8443$"])));
    assert!(!meets(&with_port, &query(None, "*")));
}

#[test]
fn the_lowest_priority_of_which_all_conditions_hold_takes_a_request() {
    let both = vec![path(&["/a/*"], &[]), host(&["a.test"], &[])];
    let listener = listener(vec![rule(30, vec![]), rule(10, both), rule(20, vec![path(&["/a/*"], &[])])]);
    let headers = HeaderMap::new();
    let taken = |host: &str, path: &str| {
        let source = [192, 0, 2, 7].into();
        let request = RequestParts { method: "GET", host, path, query: None, headers: &headers, source };
        choose(&listener, &request).rule.map(|rule| rule.priority)
    };
    assert_eq!(taken("a.test", "/a/b"), Some(10));
    assert_eq!(taken("b.test", "/a/b"), Some(20));
    assert_eq!(taken("a.test", "/b"), Some(30));
    let empty = super::tests::listener(vec![rule(1, vec![path(&["/x"], &[])])]);
    let request = RequestParts {
        method: "GET",
        host: "a",
        path: "/y",
        query: None,
        headers: &headers,
        source: [192, 0, 2, 7].into(),
    };
    let expected = Chosen { rule: None, actions: &[fixed(404)], transforms: &[] };
    assert_eq!(choose(&empty, &request), expected);
}

#[test]
fn transforms() {
    let headers = HeaderMap::new();
    let result = |transforms: &[Transform]| {
        let request = RequestParts {
            method: "GET",
            host: "mywebsite-Shop.com",
            path: "/dp/B09G3HRMW",
            query: Some("a=1"),
            headers: &headers,
            source: [192, 0, 2, 7].into(),
        };
        transformed(transforms, &request).map(|url| format!("{} {}", url.host, url.path_and_query()))
    };
    let of_host = |regex: &str, replace: &str| Transform::HostHeaderRewrite {
        regex: regex.to_owned(),
        replace: replace.to_owned(),
    };
    let of_url =
        |regex: &str, replace: &str| Transform::UrlRewrite { regex: regex.to_owned(), replace: replace.to_owned() };
    for (transforms, expected) in [
        (vec![], Some("mywebsite-Shop.com /dp/B09G3HRMW?a=1")),
        (
            vec![of_host("^MYWEBSITE-(.+).com$", "internal.dev.$1.test")],
            Some("internal.dev.Shop.test /dp/B09G3HRMW?a=1"),
        ),
        (
            vec![of_url("^/dp/([A-Z0-9]+)\\?", "/product.php?id=$1&")],
            Some("mywebsite-Shop.com /product.php?id=B09G3HRMW&a=1"),
        ),
        (vec![of_url("^/dp/([^?]*)", "/$12")], Some("mywebsite-Shop.com /B09G3HRMW2?a=1")),
        (vec![of_url("^/DP/", "/x/")], Some("mywebsite-Shop.com /dp/B09G3HRMW?a=1")),
        (vec![of_url("\\?.*$", "")], Some("mywebsite-Shop.com /dp/B09G3HRMW")),
        (vec![of_url("dp", "$$")], Some("mywebsite-Shop.com /$$/B09G3HRMW?a=1")),
        (vec![of_url("(x)?dp", "y$1")], Some("mywebsite-Shop.com /y/B09G3HRMW?a=1")),
        (vec![of_host(".*", "b.test"), of_url("^.*$", "/")], Some("b.test /")),
        (vec![of_url("^/dp/", "$2")], None),
        (vec![of_url("^/dp/", "")], None),
        (vec![of_url("^/dp/", "/ /")], None),
        (vec![of_host(".*", "")], None),
        (vec![of_host(".*", "a b")], None),
    ] {
        assert_eq!(result(&transforms).ok().as_deref(), expected, "{transforms:?}");
    }
}

#[test]
fn redirects() {
    let url = |host: &str, path: &str, query: Option<&str>| Url {
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.map(str::to_owned),
    };
    let redirect = |[protocol, port, host, path, query]: [&str; 5]| Action::Redirect {
        protocol: protocol.to_owned(),
        port: port.to_owned(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        status: 301,
    };
    let same = ["#{protocol}", "#{port}", "#{host}", "/#{path}", "#{query}"];
    let to_https = ["HTTPS", "443", "#{host}", "/#{path}", "#{query}"];
    for (action, url, expected) in [
        (to_https, url("example.com", "/", None), "https://example.com:443/"),
        (to_https, url("example.com:80", "/a/b", Some("c=d")), "https://example.com:443/a/b?c=d"),
        (same, url("example.com", "/a", Some("")), "http://example.com:80/a"),
        (
            ["#{protocol}", "8080", "new.#{host}", "/#{host}/#{port}/#{path}", "#{query}&p=#{protocol}&x=#{path}"],
            url("a.test", "/b", Some("q")),
            "http://new.a.test:8080/a.test/80/b?q&p=http&x=b",
        ),
        (["HTTP", "80", "#{nothing}", "/#{", ""], url("a.test", "/b", Some("q")), "http://#{nothing}:80/#{"),
        (same, url("[::1]:80", "/", None), "http://[::1]:80/"),
    ] {
        assert_eq!(location(&redirect(action), &url, Protocol::Http, 80, 0).as_deref(), Some(expected));
    }
    let action = redirect(same);
    let secure = location(&action, &url("a.test", "/", None), Protocol::Https, 443, 10_000);
    assert_eq!(secure.as_deref(), Some("https://a.test:10443/"));
    assert_eq!(location(&fixed(200), &url("a.test", "/", None), Protocol::Http, 80, 0), None);
}

#[test]
fn weights() {
    let groups = |groups: &[(&str, u32)]| -> Vec<WeightedTargetGroup> {
        groups.iter().map(|(arn, weight)| WeightedTargetGroup { arn: (*arn).to_owned(), weight: *weight }).collect()
    };
    let all = groups(&[("a", 1), ("none", 0), ("b", 3)]);
    let drawn: Vec<_> = (0..8).map(|draw| target_group(&all, None, draw).unwrap()).collect();
    assert_eq!(drawn, ["a", "b", "b", "b", "a", "b", "b", "b"]);
    assert_eq!(target_group(&all, Some("a"), 1), Some("a"));
    assert_eq!(target_group(&all, Some("gone"), 1), Some("b"));
    assert_eq!(target_group(&groups(&[("a", 0), ("b", 0)]), None, 7), None);
    assert_eq!(target_group(&groups(&[("a", 0)]), None, 7), Some("a"));
    assert_eq!(target_group(&[], None, 7), None);
}

/// A pattern or a text of few letters, so that patterns often fit.
fn word(random: &mut fastrand::Rng, letters: &[char], most: usize) -> String {
    let length = random.usize(0..=most);
    (0..length).filter_map(|_| random.choice(letters)).collect()
}

const PATTERN: &[char] = &['a', 'b', 'A', '*', '?', '/'];
const TEXT: &[char] = &['a', 'b', 'A', '/'];

fn random_condition(random: &mut fastrand::Rng) -> Condition {
    let count = random.usize(1..=3);
    let values = |random: &mut fastrand::Rng| (0..count).map(|_| word(random, PATTERN, 5)).collect::<Vec<_>>();
    let expressions = ["a", "^a", "b$", "^a*b?$", "^(a|b)/", "[ab]+", "("];
    let regex_values = |random: &mut fastrand::Rng| {
        if random.u8(0..4) == 0 { texts(&[random.choice(expressions).unwrap()]) } else { vec![] }
    };
    match random.u8(0..6) {
        0 => Condition::HostHeader { values: values(random), regex_values: regex_values(random) },
        1 => Condition::PathPattern {
            values: values(random).into_iter().map(|value| format!("/{value}")).collect(),
            regex_values: regex_values(random),
        },
        2 => Condition::HttpHeader {
            name: random.choice(["x-a", "X-B"]).unwrap().to_owned(),
            values: values(random),
            regex_values: regex_values(random),
        },
        3 => Condition::HttpRequestMethod { values: texts(&[random.choice(["GET", "POST", "get"]).unwrap()]) },
        4 => {
            let escaped = &['a', 'b', '*', '?', '\\'];
            let value = |random: &mut fastrand::Rng| QueryValue {
                key: random.bool().then(|| word(random, escaped, 3)),
                value: word(random, escaped, 3),
            };
            Condition::QueryString { values: (0..count).map(|_| value(random)).collect() }
        }
        _ => Condition::SourceIp {
            values: vec![random.choice(["192.0.2.0/24", "192.0.2.7/32", "2001:db8::/32"]).unwrap().parse().unwrap()],
        },
    }
}

/// The same condition for the controller.
fn in_core(condition: &Condition) -> model::Condition {
    match condition.clone() {
        Condition::HostHeader { values, regex_values } => model::Condition::HostHeader { values, regex_values },
        Condition::PathPattern { values, regex_values } => model::Condition::PathPattern { values, regex_values },
        Condition::HttpHeader { name, values, regex_values } => {
            model::Condition::HttpHeader { name, values, regex_values }
        }
        Condition::HttpRequestMethod { values } => model::Condition::HttpRequestMethod { values },
        Condition::QueryString { values } => model::Condition::QueryString {
            values: values
                .into_iter()
                .map(|QueryValue { key, value }| model::QueryStringValue { key, value })
                .collect(),
        },
        Condition::SourceIp { values } => {
            model::Condition::SourceIp { values: values.iter().map(ToString::to_string).collect() }
        }
    }
}

fn listener_in_core(listener: &Listener) -> model::ObservedListener {
    let mut rules: Vec<&Rule> = listener.rules.iter().collect();
    rules.sort_by_key(|rule| rule.priority);
    model::ObservedListener {
        arn: model::ListenerArn::new("listener"),
        port: 80,
        protocol: None,
        default_actions: vec![],
        default_certificate: None,
        certificates: Default::default(),
        ssl_policy: None,
        alpn_policy: None,
        mutual_authentication: None,
        attributes: None,
        tags: Default::default(),
        rules: rules
            .iter()
            .map(|rule| model::ObservedRule {
                arn: model::RuleArn::new(&rule.arn),
                priority: rule.priority,
                conditions: rule.conditions.iter().map(in_core).collect(),
                actions: vec![],
                transforms: vec![],
                tags: Default::default(),
            })
            .collect(),
    }
}

#[test]
fn the_rule_is_the_one_that_the_controller_expects() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut certain, mut by_rule) = (0, 0);
    for _ in 0..3000 {
        let mut rules: Vec<Rule> = (1..=random.u32(1..8))
            .map(|priority| {
                let conditions = (0..random.usize(1..=3)).map(|_| random_condition(&mut random)).collect();
                rule(priority, conditions)
            })
            .collect();
        random.shuffle(&mut rules);
        let listener = listener(rules);
        let expected_of = listener_in_core(&listener);
        for _ in 0..8 {
            let letters = &['a', 'b', 'A', '*'];
            let pairs: Vec<(String, String)> = (0..random.usize(0..3))
                .map(|_| (word(&mut random, letters, 3), word(&mut random, letters, 3)))
                .collect();
            let query: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let query = query.join("&");
            let named: Vec<(String, String)> = (0..random.usize(0..3))
                .map(|_| (random.choice(["x-a", "x-b"]).unwrap().to_owned(), word(&mut random, TEXT, 5)))
                .collect();
            let named_texts: Vec<(&str, &str)> =
                named.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let headers = headers(&named_texts);
            let (host, path) = (word(&mut random, TEXT, 5), format!("/{}", word(&mut random, TEXT, 5)));
            let method = random.choice(["GET", "POST"]).unwrap();
            let source: IpAddr = random.choice(["192.0.2.7", "192.0.2.8", "2001:db8::1"]).unwrap().parse().unwrap();
            let request = RequestParts {
                method,
                host: &host,
                path: &path,
                query: (!pairs.is_empty()).then_some(query.as_str()),
                headers: &headers,
                source,
            };
            let got = choose(&listener, &request).rule.map(|rule| rule.priority as usize - 1);
            let expected_request = route::Request {
                host: host.clone(),
                path: path.clone(),
                method: method.to_owned(),
                headers: named.clone(),
                query: pairs.clone(),
                source: Some(source),
            };
            let routed = route::observed(&expected_of, &expected_request);
            let mut allowed: Vec<Option<usize>> = routed.perhaps.iter().map(|hit| hit.rule).collect();
            allowed.push(routed.hit.rule);
            certain += usize::from(routed.perhaps.is_empty());
            by_rule += usize::from(got.is_some());
            assert!(
                allowed.contains(&got),
                "SEED={seed}: got rule {got:?}, expected one of {allowed:?}\n{request:?}\n{listener:#?}"
            );
        }
    }
    // A comparison in which everything is unknown, or nothing matches, would prove nothing.
    assert!(certain > 5_000 && by_rule > 2_000, "SEED={seed}: {certain} certain, {by_rule} taken by a rule");
}
