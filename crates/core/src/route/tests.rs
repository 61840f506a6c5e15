use proptest::prelude::*;

use super::*;
use crate::model::*;

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn host(values: &[&str]) -> Condition {
    Condition::HostHeader { values: texts(values), regex_values: vec![] }
}

fn path(values: &[&str]) -> Condition {
    Condition::PathPattern { values: texts(values), regex_values: vec![] }
}

fn path_regex(value: &str) -> Condition {
    Condition::PathPattern { values: vec![], regex_values: texts(&[value]) }
}

fn header(name: &str, values: &[&str]) -> Condition {
    Condition::HttpHeader { name: name.to_owned(), values: texts(values), regex_values: vec![] }
}

fn query(pairs: &[(Option<&str>, &str)]) -> Condition {
    let pair = |(key, value): &(Option<&str>, &str)| QueryStringValue {
        key: key.map(str::to_owned),
        value: (*value).to_owned(),
    };
    Condition::QueryString { values: pairs.iter().map(pair).collect() }
}

fn source(values: &[&str]) -> Condition {
    Condition::SourceIp { values: texts(values) }
}

fn method(values: &[&str]) -> Condition {
    Condition::HttpRequestMethod { values: texts(values) }
}

fn request() -> Request {
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    Request {
        headers: pairs(&[("X-Env", "Canary-7"), ("accept", "text/html"), ("x-env", "blue")]),
        query: pairs(&[("V", "2"), ("flag", ""), ("stars", "a*b")]),
        source: Some([192, 0, 2, 7].into()),
        ..Request::get("Shop.Example.com", "/img/Cat.png")
    }
}

#[test]
fn conditions() {
    use Match::{No, Unknown, Yes};
    for (condition, expected) in [
        // Hosts whatever their case; `*` may be several labels.
        (host(&["shop.example.com"]), Yes),
        (host(&["other.test", "*.com"]), Yes),
        (host(&["?hop.example.com"]), Yes),
        (host(&["example.com"]), No),
        (host(&["*.shop.example.com"]), No),
        (Condition::HostHeader { values: vec![], regex_values: texts(&["Shop\\.Example\\.com"]) }, Yes),
        (Condition::HostHeader { values: vec![], regex_values: texts(&["shop\\.example\\.com"]) }, Unknown),
        (Condition::HostHeader { values: vec![], regex_values: texts(&["shop\\.example\\.org"]) }, No),
        // Paths by case.
        (path(&["/img/*.png"]), Yes),
        (path(&["/img/Cat.png"]), Yes),
        (path(&["/img/cat.png"]), No),
        (path(&["/img"]), No),
        (path(&["/img", "/img/*"]), Yes),
        (path(&["/img/Cat.pn?"]), Yes),
        (path(&["/img/Cat.png?"]), No),
        (path(&["*g*g"]), Yes),
        (path(&["*g*x"]), No),
        (path_regex("/img/[A-Z][a-z]+\\.(png|jpg)"), Yes),
        // Whether the whole path has to match, and whether case counts, is not known.
        (path_regex("^/img"), Unknown),
        (path_regex("/img/cat\\.png"), Unknown),
        (path_regex("^/files"), No),
        (path_regex("("), Unknown),
        (path_regex("(?<=a)b"), Unknown),
        // Headers whatever the case of name and value; of several one is enough.
        (header("x-ENV", &["canary-?"]), Yes),
        (header("X-Env", &["BLUE"]), Yes),
        (header("X-Env", &["green"]), No),
        (header("X-Missing", &["*"]), No),
        (
            Condition::HttpHeader {
                name: "accept".to_owned(),
                values: vec![],
                regex_values: texts(&["text/(html|plain)"]),
            },
            Yes,
        ),
        // Methods exactly.
        (method(&["POST", "GET"]), Yes),
        (method(&["get"]), No),
        // Pairs of the query, whatever the case; without a key any value counts.
        (query(&[(Some("v"), "2")]), Yes),
        (query(&[(Some("v"), "1"), (None, "2")]), Yes),
        (query(&[(Some("v"), "?")]), Yes),
        (query(&[(Some("flag"), "*")]), Yes),
        (query(&[(Some("stars"), "a\\*b")]), Yes),
        (query(&[(Some("stars"), "a\\?b")]), No),
        (query(&[(Some("absent"), "*")]), No),
        (query(&[(Some("v"), "22")]), No),
        // Addresses.
        (source(&["10.0.0.0/8", "192.0.2.0/24"]), Yes),
        (source(&["10.0.0.0/8", "2001:db8::/32"]), No),
        (source(&["here"]), Unknown),
        (Condition::Other("new-field".to_owned()), Unknown),
    ] {
        assert_eq!(matching::all(std::slice::from_ref(&condition), &request()), expected, "{condition:?}");
    }
    let nobody = Request { source: None, ..request() };
    assert_eq!(matching::all(&[source(&["0.0.0.0/0"])], &nobody), Unknown);
    // All conditions have to hold; one that does not decides.
    for (conditions, expected) in [
        (vec![], Yes),
        (vec![host(&["*"]), path(&["/*"])], Yes),
        (vec![host(&["*"]), path_regex("^/img")], Unknown),
        (vec![method(&["PUT"]), path_regex("^/img")], No),
    ] {
        assert_eq!(matching::all(&conditions, &request()), expected, "{conditions:?}");
    }
}

fn forward(groups: &[(&str, Option<i32>)]) -> Action<TargetGroupArn> {
    let groups =
        groups.iter().map(|(arn, weight)| WeightedTargetGroup { group: TargetGroupArn::new(*arn), weight: *weight });
    Action::Forward { target_groups: groups.collect(), stickiness: None }
}

#[test]
fn shares_of_a_forward() {
    for (groups, expected) in [
        (vec![("a", Some(0))], vec![("a", 1, 1)]),
        (vec![("a", None)], vec![("a", 1, 1)]),
        (vec![("a", Some(20)), ("b", Some(80))], vec![("a", 20, 100), ("b", 80, 100)]),
        (vec![("a", Some(0)), ("b", None), ("c", Some(3))], vec![("b", 1, 4), ("c", 3, 4)]),
        (vec![("a", Some(0)), ("b", Some(0))], vec![]),
        (
            vec![("a", Some(i32::MAX)), ("b", Some(i32::MAX))],
            vec![("a", i32::MAX, i32::MAX), ("b", i32::MAX, i32::MAX)],
        ),
    ] {
        let action = forward(&groups);
        let shares: Vec<_> = shares(&action).iter().map(|s| (s.group.as_str(), s.weight, s.of)).collect();
        assert_eq!(shares, expected, "{groups:?}");
    }
    assert_eq!(shares(&Action::<TargetGroupArn>::Other("new".to_owned())), []);
}

fn rule(priority: u32, conditions: Vec<Condition>, action: Action<TargetGroupArn>) -> ObservedRule {
    ObservedRule {
        arn: RuleArn::new(format!("arn:r/{priority}")),
        priority,
        conditions,
        actions: vec![Action::Other("authenticate-oidc".to_owned()), action],
        transforms: vec![Transform::Other(priority.to_string())],
        tags: Tags::new(),
    }
}

#[test]
fn the_first_rule_that_holds_takes_the_request() {
    let listener = ObservedListener {
        arn: ListenerArn::new("arn:l"),
        port: 80,
        protocol: Some(ListenerProtocol::Http),
        default_actions: vec![forward(&[("default", None)])],
        default_certificate: None,
        certificates: std::collections::BTreeSet::new(),
        ssl_policy: None,
        alpn_policy: None,
        mutual_authentication: None,
        attributes: None,
        tags: Tags::new(),
        rules: vec![
            rule(3, vec![path(&["/admin/*"]), source(&["10.0.0.0/8"])], forward(&[("admin", None)])),
            rule(5, vec![path_regex("^/a")], forward(&[("regex", None)])),
            rule(9, vec![path(&["/a*"])], forward(&[("a", Some(1)), ("b", Some(0))])),
        ],
    };
    let routed = |path: &str, source: Option<IpAddr>| {
        let routed = observed(&listener, &Request { source, ..Request::get("x.test", path) });
        let said = |hit: &Hit<'_, TargetGroupArn>| {
            let groups: Vec<&str> = hit.shares().iter().map(|share| share.group.as_str()).collect();
            let rewritten = hit.transforms.first().map_or("", Transform::kind);
            format!("{:?} {} {rewritten}", hit.rule, groups.join("+"))
        };
        let perhaps: Vec<String> = routed.perhaps.iter().map(said).collect();
        (said(&routed.hit), perhaps.join(", "))
    };
    let outside = Some([192, 0, 2, 1].into());
    let said = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(routed("/", outside), said("None default ", ""));
    assert_eq!(routed("/b", None), said("None default ", ""));
    assert_eq!(routed("/admin/x", Some([10, 0, 0, 1].into())), said("Some(0) admin 3", ""));
    // Here it is not known whether the expression has to match all of the path.
    assert_eq!(routed("/admin/x", outside), said("Some(2) a 9", "Some(1) regex 5"));
    assert_eq!(routed("/admin/x", None), said("Some(2) a 9", "Some(0) admin 3, Some(1) regex 5"));
    assert_eq!(routed("/a", outside), said("Some(1) regex 5", ""));
}

proptest! {
    #[test]
    fn globs_are_regular_expressions(pattern in "[ab*?]{0,8}", text in "[abc]{0,8}") {
        let expression: String = pattern.chars().map(|c| match c { '*' => ".*".to_owned(), '?' => ".".to_owned(), c => c.to_string() }).collect();
        let expected = regex_lite::Regex::new(&format!("^{expression}$")).unwrap().is_match(&text);
        let conditions = [path(&[&pattern])];
        prop_assert_eq!(matching::all(&conditions, &Request::get("x", text)), Match::from(expected));
    }

    #[test]
    fn nothing_panics(value in any::<String>(), text in any::<String>(), near in r"[\[\](){}*+?|^$\\a-c0-9,]{0,12}") {
        let request = Request {
            headers: vec![("x".to_owned(), text.clone())],
            query: vec![(text.clone(), text.clone())],
            ..Request::get(text.clone(), text)
        };
        for value in [value, near] {
            let values = vec![value];
            for condition in [
                Condition::HostHeader { values: values.clone(), regex_values: values.clone() },
                Condition::PathPattern { values: values.clone(), regex_values: values.clone() },
                Condition::HttpHeader { name: "x".to_owned(), values: values.clone(), regex_values: values.clone() },
                Condition::HttpRequestMethod { values: values.clone() },
                query(&[(Some(&values[0]), &values[0]), (None, &values[0])]),
                Condition::SourceIp { values: values.clone() },
            ] {
                let _ = matching::all(&[condition], &request);
            }
        }
    }
}

#[test]
fn conditions_are_apart_only_where_no_request_meets_both() {
    let host = |values: &[&str]| {
        vec![Condition::HostHeader { values: values.iter().map(ToString::to_string).collect(), regex_values: vec![] }]
    };
    let source =
        |values: &[&str]| vec![Condition::SourceIp { values: values.iter().map(ToString::to_string).collect() }];
    for (one, other, expected) in [
        (host(&["a.test"]), host(&["b.test"]), true),
        (host(&["a.test"]), host(&["A.test", "b.test"]), false),
        (host(&["*.test"]), host(&["a.te?t"]), false),
        (host(&["a*"]), host(&["*b"]), false),
        (host(&["a*c"]), host(&["b*c"]), true),
        (vec![path(&["/a"])], vec![path(&["/A"])], true),
        (vec![path(&["/a/*"])], vec![path(&["/a"])], true),
        (vec![path(&["/a*"])], vec![path(&["/a"])], false),
        (host(&["a.test"]), vec![path(&["/a"])], false),
        ([host(&["a.test"]), vec![path(&["/a"])]].concat(), [host(&["a.test"]), vec![path(&["/b"])]].concat(), true),
        (source(&["10.0.0.0/8"]), source(&["10.1.0.0/16"]), false),
        (source(&["10.0.0.0/8"]), source(&["192.0.2.0/24"]), true),
        (source(&["10.0.0.0/8"]), source(&["no address"]), false),
        (vec![], host(&["a.test"]), false),
    ] {
        assert_eq!(are_apart(&one, &other), expected, "{one:?} {other:?}");
        assert_eq!(are_apart(&other, &one), expected, "{other:?} {one:?}");
    }
}

proptest! {
    #[test]
    fn what_is_apart_no_request_meets(one in "[ab*?]{0,5}", other in "[ab*?]{0,5}", text in "[abc]{0,5}") {
        let request = Request::get("x", text);
        let (one, other) = ([path(&[&one])], [path(&[&other])]);
        let both = matching::all(&one, &request) == Match::Yes && matching::all(&other, &request) == Match::Yes;
        prop_assert!(!(both && are_apart(&one, &other)));
    }
}
