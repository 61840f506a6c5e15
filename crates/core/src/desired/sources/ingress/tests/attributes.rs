//! Attributes of load balancers, listeners and target groups, and labels of nodes.

use super::*;

fn map(pairs: &[(&str, &str)]) -> Attributes {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn attributes_are_those_that_are_named() {
    let stack = stack(&ingress(
        &[
            ("target-type", "ip"),
            ("listen-ports", r#"[{"HTTP": 80}, {"HTTP": 8080}]"#),
            (
                "load-balancer-attributes",
                "idle_timeout.timeout_seconds=120, access_logs.s3.prefix=, access_logs.s3.bucket=logs",
            ),
            (
                "listener-attributes.HTTP-80",
                "routing.http.response.strict_transport_security.header_value=max-age=31536000",
            ),
            ("listener-attributes.HTTPS-8080", "a=b"),
            ("target-group-attributes", "stickiness.enabled=true"),
        ],
        &everything(),
    ));
    assert_eq!(
        stack.load_balancer.unwrap().attributes,
        map(&[
            ("access_logs.s3.bucket", "logs"),
            ("access_logs.s3.prefix", ""),
            ("idle_timeout.timeout_seconds", "120")
        ])
    );
    let header = ("routing.http.response.strict_transport_security.header_value", "max-age=31536000");
    assert_eq!(stack.listeners[&80].attributes, map(&[header]));
    assert_eq!(stack.listeners[&8080].attributes, map(&[]));
    assert_eq!(stack.target_groups[0].attributes, map(&[("stickiness.enabled", "true")]));
}

#[test]
fn those_of_the_service_stand_in_place_of_those_of_the_ingress_as_a_whole() {
    let services = SERVICES.replacen(
        "name: web,",
        "name: web, annotations: {alb.ingress.kubernetes.io/target-group-attributes: 'a=service', alb.ingress.kubernetes.io/target-node-labels: 'zone=b'},",
        1,
    );
    let paths = [("Exact", "/1", "web", "80"), ("Exact", "/2", "api", "http")];
    for (target_type, labels) in
        [("instance", [("zone", "b"), ("zone", "a")].map(|label| map(&[label]))), ("ip", [map(&[]), map(&[])])]
    {
        let on_ingress = [
            ("target-type", target_type),
            ("target-group-attributes", "a=ingress,b=ingress"),
            ("target-node-labels", "zone=a"),
        ];
        let ingress = ingress(&on_ingress, &format!("  rules:\n{}", rules("", &paths)));
        let stack = build_with(&format!("{services}\n---\n{ingress}"), &config(), &facts()).stack.unwrap();
        let groups = stack.target_groups.values();
        let (attributes, found): (Vec<_>, Vec<_>) =
            groups.map(|group| (group.attributes.clone(), group.binding.node_labels.clone())).unzip();
        assert_eq!(attributes, [map(&[("a", "service")]), map(&[("a", "ingress"), ("b", "ingress")])]);
        assert_eq!(found, labels, "{target_type}");
    }
}

#[test]
fn attributes_that_cannot_be_read() {
    let reported = |key: &str| messages(&built(&ingress(&[("target-type", "ip"), (key, "enabled")], &everything())));
    insta::assert_snapshot!(reported("load-balancer-attributes"), @r"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/load-balancer-attributes` has the value `enabled`: `enabled` is not a pair `key=value`; allowed: pairs `key=value` separated by commas; a comma inside a value is written `\,`");
    insta::assert_snapshot!(reported("listener-attributes.HTTP-80"), @r"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/listener-attributes.HTTP-80` has the value `enabled`: `enabled` is not a pair `key=value`; allowed: pairs `key=value` separated by commas; a comma inside a value is written `\,`");
    insta::assert_snapshot!(reported("target-group-attributes"), @r"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/target-group-attributes` has the value `enabled`: `enabled` is not a pair `key=value`; allowed: pairs `key=value` separated by commas; a comma inside a value is written `\,`");
    insta::assert_snapshot!(reported("target-node-labels"), @r"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/target-node-labels` has the value `enabled`: `enabled` is not a pair `key=value`; allowed: pairs `key=value` separated by commas; a comma inside a value is written `\,`");
}
