use super::*;
use crate::model::PortReference;

fn load(text: &str) -> Result<Loaded, Problem> {
    let mut loaded = Loaded::default();
    from_documents(&mut loaded, "shop.yaml", text).map(|()| loaded)
}

fn refused(text: &str) -> String {
    load(text).expect_err(text).to_string()
}

/// Loads a text, and returns its messages, a line each, and the names of the Services and Ingresses that are kept all the same.
fn reported(text: &str) -> String {
    let mut loaded = Loaded::default();
    let _ = from_documents(&mut loaded, "shop.yaml", text);
    let snapshot = &loaded.snapshot;
    let kept = snapshot.services.keys().chain(snapshot.ingresses.keys()).map(|name| format!("kept {name}"));
    loaded.problems.iter().map(ToString::to_string).chain(kept).collect::<Vec<_>>().join("\n")
}

fn name(namespace: &str, name: &str) -> ObjectName {
    ObjectName::new(namespace, name)
}

fn service(port: u16) -> Service {
    Service {
        ports: vec![ServicePort {
            name: String::new(),
            port,
            target_port: PortReference::Number(port),
            node_port: None,
            protocol: "TCP".to_owned(),
        }],
        ..crate::testing::bare_service(name("shop", "web"))
    }
}

#[test]
fn what_is_no_yaml_is_refused_with_its_place() {
    assert_eq!(
        refused("apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n bad: indent\n"),
        "shop.yaml:5: it is not valid YAML: while parsing a block mapping, did not find expected key"
    );
    assert_eq!(
        refused("kind: Service\n---\nkind: [Service\n"),
        "shop.yaml:1: Service: apiVersion: it has no `apiVersion`; write `v1`"
    );
    assert_eq!(
        refused("{{ .Values.ingress }}\n"),
        "shop.yaml:1: it has the placeholders of a template, `{{ … }}`; render it first, for example with `helm template`"
    );
    assert_eq!(
        refused("apiVersion: v1\nkind: Service\nmetadata:\n\tname: web\n"),
        "shop.yaml:4: it is indented with a tab, which YAML does not allow; write spaces"
    );
}

#[test]
fn a_key_that_is_written_twice_is_told_with_both_lines() {
    assert_eq!(
        refused("kind: Service\napiVersion: v1\nkind: Service\n"),
        "shop.yaml:3: Service: kind: the key is written twice, in line 1 and in line 3; keep one of them"
    );
    let ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  annotations:\n    a: x\n    b: x\n    a: y\n";
    assert_eq!(
        refused(ingress),
        "shop.yaml:8: Ingress web: metadata.annotations.a: the key is written twice, in line 6 and in line 8; keep one of them"
    );
    // JSON as well, which says no lines by itself.
    let json = "{\"apiVersion\": \"v1\", \"kind\": \"Service\",\n \"metadata\": {\"name\": \"web\",\n \"labels\": {\"a\": \"x\",\n \"a\": \"y\"}}}";
    assert_eq!(
        refused(json),
        "shop.yaml:4: Service web: metadata.labels.a: the key is written twice, in line 3 and in line 4; keep one of them"
    );
}

#[test]
fn what_is_no_object_is_refused() {
    let no_kind = "it is not a Kubernetes object; add `apiVersion` and `kind`, or leave the file out";
    assert_eq!(refused("metadata: {name: web}"), format!("shop.yaml:1: object web: {no_kind}"));
    assert_eq!(refused("just text"), format!("shop.yaml:1: {no_kind}"));
    assert_eq!(refused("[1, 2]"), format!("shop.yaml:1: {no_kind}"));
    let unnamed = "shop.yaml:1: Service: metadata.name: it is missing; write a name";
    assert_eq!(refused("{apiVersion: v1, kind: Service, metadata: {namespace: shop}}"), unnamed);
    assert_eq!(refused("{apiVersion: v1, kind: Service}"), unnamed);
    assert_eq!(refused(r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"generateName": "web-"}}"#), unnamed);
}

#[test]
fn a_field_of_the_wrong_type_is_refused_with_its_object_line_and_name() {
    let service = |spec: &str| {
        refused(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec:\n{spec}"))
    };
    assert_eq!(
        service("  ports:\n  - port: eighty\n"),
        "shop.yaml:6: Service shop/web: spec.ports[0].port: `eighty` is text, where a whole number without quotes is expected"
    );
    assert_eq!(
        service("  ports:\n  - port: ${PORT}\n"),
        "shop.yaml:6: Service shop/web: spec.ports[0].port: `${PORT}` is a placeholder; write its value"
    );
    assert_eq!(
        service("  ports: {port: 80}\n"),
        "shop.yaml:5: Service shop/web: spec.ports: it is a map, where a list is expected"
    );
    let annotated = |value: &str| {
        refused(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  annotations:\n    alb.ingress.kubernetes.io/x: {value}\n"
        ))
    };
    let field = "shop.yaml:6: Ingress web: metadata.annotations.alb.ingress.kubernetes.io/x";
    assert_eq!(annotated("3000"), format!("{field}: 3000 is a number; quote it: \"3000\""));
    assert_eq!(annotated("true"), format!("{field}: true is a boolean; quote it: \"true\""));
    assert_eq!(annotated("yes"), format!("{field}: yes is a boolean; quote it: \"yes\""));
    assert_eq!(annotated("1.5"), format!("{field}: 1.5 is a number; quote it: \"1.5\""));
    assert_eq!(
        annotated("[{\"HTTP\": 80}]"),
        format!("{field}: it is a list, where text is expected; if it is JSON, quote it: '…'")
    );
    assert_eq!(
        refused("{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: web}, spec: {rules: {host: a}}}"),
        "shop.yaml:1: Ingress web: spec.rules: it is a map, where a list is expected"
    );
    assert_eq!(
        refused(
            "{apiVersion: elbv2.k8s.aws/v1beta1, kind: TargetGroupBinding, metadata: {name: web}, spec: {targetType: pod, serviceRef: {name: a, port: 80}}}"
        ),
        "shop.yaml:1: TargetGroupBinding web: spec.targetType: unknown variant `pod`, expected `instance` or `ip`"
    );
}

#[test]
fn one_object_that_cannot_be_read_keeps_none_of_the_others_away() {
    let text = r#"{"apiVersion": "v1", "kind": "List", "items": [
{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "shop"}},
{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b", "namespace": "shop", "annotations": {"x": 3000}}},
{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c", "namespace": "shop"}}
]}"#;
    let broken = "shop.yaml:3: Service shop/b: metadata.annotations.x: 3000 is a number; quote it: \"3000\"";
    assert_eq!(reported(text), format!("{broken}\nkept shop/a\nkept shop/c"));
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\nkind: [Service\n---\napiVersion: v1\nkind: Service\nmetadata: {name: c}\n";
    let reported = reported(text);
    assert!(reported.starts_with("shop.yaml:"), "{reported}");
    assert!(reported.ends_with("\nkept default/a\nkept default/c"), "{reported}");
}

#[test]
fn versions_that_no_kubernetes_serves_are_named_with_what_to_write() {
    let ingress = "write `networking.k8s.io/v1`, and in each backend `service: {name: …, port: {number: …}}` instead of `serviceName` and `servicePort` (`port: {name: …}` for a name such as `use-annotation`), `defaultBackend` for `backend`, and a `pathType` at each path";
    for version in ["extensions/v1beta1", "networking.k8s.io/v1beta1"] {
        assert_eq!(
            refused(&format!("apiVersion: {version}\nkind: Ingress\nmetadata: {{name: web, namespace: shop}}\n")),
            format!(
                "shop.yaml:1: Ingress shop/web: apiVersion: `{version}` of Ingress has not been served by Kubernetes since 1.22; {ingress}"
            )
        );
    }
    assert_eq!(
        refused("kind: IngressClass\napiVersion: networking.k8s.io/v1beta1\nmetadata: {name: alb}\n"),
        "shop.yaml:2: IngressClass alb: apiVersion: `networking.k8s.io/v1beta1` of IngressClass has not been served by Kubernetes since 1.22; write `networking.k8s.io/v1`; nothing else changes"
    );
    for version in ["networking.k8s.io/v2", "extensions/v1"] {
        assert_eq!(
            refused(&format!("{{apiVersion: {version}, kind: Ingress, metadata: {{name: web}}}}")),
            format!(
                "shop.yaml:1: Ingress web: apiVersion: there is no Ingress of `{version}`; write `networking.k8s.io/v1`"
            )
        );
    }
    assert_eq!(
        refused("{apiVersion: v1, kind: Ingress, metadata: {name: web}}"),
        "shop.yaml:1: Ingress web: apiVersion: there is no Ingress of `v1`; write `networking.k8s.io/v1`"
    );
    assert_eq!(
        load("{apiVersion: config.openshift.io/v1, kind: Ingress, metadata: {name: web}}").unwrap().other_kinds,
        [("Ingress".to_owned(), 1)].into()
    );
}

#[test]
fn files_as_editors_and_tools_leave_them_are_read() {
    let service = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n";
    for text in [
        format!("\u{feff}{service}"),
        service.replace('\n', "\r\n"),
        format!("---\n---\n{service}---\n"),
        format!("# A comment.\n---\n# Source: chart/templates/empty.yaml\n---\n{service}...\n"),
        format!("%YAML 1.1\n---\n{service}"),
        format!("\n\n{service}\n\n"),
        service.trim_end().to_owned(),
        "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"web\"}}\n\n".to_owned(),
        "\n{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"web\", \"namespace\": null}}".to_owned(),
        "{\"kind\": \"List\", \"items\": []}\n{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"web\"}}".to_owned(),
    ] {
        assert_eq!(reported(&text), "kept default/web", "{text:?}");
    }
}

#[test]
fn an_object_of_the_cluster_has_no_namespace_whatever_stands_there() {
    let loaded =
        load("{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: alb, namespace: kube-system}}")
            .unwrap();
    assert_eq!(loaded.snapshot.ingress_classes.keys().collect::<Vec<_>>(), [&name("", "alb")]);
}

/// The list of `kubectl get --output json`, which ends with `kind`.
fn large_list(count: usize) -> String {
    let items: Vec<String> = (0..count)
        .map(|i| {
            format!(
                r#"{{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {{"name": "web-{i}", "namespace": "shop", "annotations": {{"alb.ingress.kubernetes.io/scheme": "internal"}}, "managedFields": [{{"manager": "kubectl", "fieldsV1": {{"f:spec": {{"f:rules": {{}}}}}}}}]}}, "spec": {{"rules": [{{"host": "h{i}.example.com", "http": {{"paths": [{{"path": "/", "pathType": "Prefix", "backend": {{"service": {{"name": "web", "port": {{"number": 80}}}}}}}}]}}}}]}}}}"#
            )
        })
        .collect();
    format!(
        "{{\"apiVersion\": \"v1\", \"items\": [\n{}\n], \"kind\": \"List\", \"metadata\": {{\"resourceVersion\": \"\"}}}}\n",
        items.join(",\n")
    )
}

#[test]
fn a_list_of_ten_thousand_objects_is_read_as_json_and_as_yaml() {
    let text = large_list(10_000);
    let loaded = load(&text).unwrap();
    assert_eq!((loaded.snapshot.ingresses.len(), loaded.problems), (10_000, Vec::new()));
    // Text that is not JSON is parsed as YAML.
    let text = format!("# A comment.\n{text}");
    let by_yaml = load(&text).unwrap();
    assert_eq!(by_yaml.snapshot.ingresses, loaded.snapshot.ingresses);
}

#[test]
fn an_object_is_kept_with_its_defaults() {
    let loaded = load(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}, {port: 81, targetPort: web, nodePort: 0}, {port: 82, targetPort: '8080', nodePort: 30080}]}}",
    )
    .unwrap();
    let kept = &loaded.snapshot.services[&name("default", "web")];
    let port = |port, target_port, node_port| ServicePort {
        name: String::new(),
        port,
        target_port,
        node_port,
        protocol: "TCP".to_owned(),
    };
    assert_eq!(
        *kept,
        Service {
            name: name("default", "web"),
            ports: vec![
                port(80, PortReference::Number(80), None),
                port(81, PortReference::Name("web".to_owned()), None),
                port(82, PortReference::Number(8080), Some(30_080)),
            ],
            ..service(80)
        }
    );
}

#[test]
fn an_ingress_is_kept_with_what_its_backends_say() {
    let loaded = load(
        r"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop, generation: 4, uid: u, finalizers: [f], deletionTimestamp: '2026-01-01T00:00:00Z'}
spec:
  ingressClassName: alb
  defaultBackend: {resource: {apiGroup: g, kind: Bucket, name: files}}
  tls: [{hosts: [tls.example.com, ''], secretName: unused}, {}]
  rules:
  - host: without-http.example.com
  - http:
      paths:
      - {path: /a, pathType: Exact, backend: {service: {name: a, port: {number: 80}}}}
      - {backend: {service: {name: b, port: {name: http}}}}
      - {backend: {service: {name: c, port: {name: use-annotation}}}}
      - {backend: {service: {name: d}}}
      - {backend: {service: {name: e, port: {number: 70000}}}}
      - {backend: {}}
status:
  loadBalancer: {ingress: [{hostname: h, ports: [{port: 80, protocol: TCP}]}]}
",
    )
    .unwrap();
    let service = |name: &str, port| Backend::Service { name: name.to_owned(), port };
    let path = |backend| HttpPath { path: String::new(), path_type: None, backend };
    let expected = Ingress {
        name: name("shop", "web"),
        uid: "u".to_owned(),
        generation: 4,
        annotations: BTreeMap::new(),
        written_plan: None,
        finalizers: vec!["f".to_owned()],
        deleting: true,
        class: Some("alb".to_owned()),
        hosts: BTreeSet::from(["without-http.example.com".to_owned(), "tls.example.com".to_owned()]),
        default_backend: Some(Backend::Resource("Bucket".to_owned(), "files".to_owned())),
        rules: vec![HttpRule {
            index: 1,
            host: String::new(),
            paths: vec![
                HttpPath {
                    path: "/a".to_owned(),
                    path_type: Some("Exact".to_owned()),
                    backend: service("a", BackendPort::Port(PortReference::Number(80))),
                },
                path(service("b", BackendPort::Port(PortReference::Name("http".to_owned())))),
                path(service("c", BackendPort::UseAnnotation)),
                path(service("d", BackendPort::Missing)),
                path(service("e", BackendPort::OutOfRange(70_000))),
                path(Backend::Nothing),
            ],
        }],
        status: vec![StatusEntry { hostname: "h".to_owned(), ports: vec![80] }],
    };
    assert_eq!(loaded.snapshot.ingresses[&name("shop", "web")], expected);
}

#[test]
fn every_kind_has_its_place_and_others_are_counted() {
    let loaded = load(
        r"
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: alb}, spec: {controller: ingress.k8s.aws/alb}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1}, addressType: IPv4, endpoints: null, ports: null}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1}, spec: {containers: []}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-1}}
---
{apiVersion: elbv2.k8s.aws/v1beta1, kind: TargetGroupBinding, metadata: {name: web}, spec: {serviceRef: {name: web, port: 80}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}
---
{apiVersion: serving.example.com/v1, kind: Service, metadata: {name: web}}
---
{apiVersion: v1, kind: ConfigMap}
",
    )
    .unwrap();
    let snapshot = &loaded.snapshot;
    assert_eq!(snapshot.ingress_classes.keys().collect::<Vec<_>>(), [&name("", "alb")]);
    assert_eq!(snapshot.nodes.keys().collect::<Vec<_>>(), [&name("", "node-1")]);
    assert_eq!(snapshot.endpoint_slices.keys().collect::<Vec<_>>(), [&name("default", "web-1")]);
    assert_eq!(snapshot.pods.keys().collect::<Vec<_>>(), [&name("default", "web-1")]);
    assert_eq!(snapshot.target_group_bindings.keys().collect::<Vec<_>>(), [&name("default", "web")]);
    assert!(snapshot.services.is_empty());
    let others = [("ConfigMap", 1), ("Deployment", 1), ("Service", 1)].map(|(kind, count)| (kind.to_owned(), count));
    assert_eq!(loaded.other_kinds, others.into());
}

#[test]
fn lists_are_taken_apart_and_empty_documents_passed_over() {
    let loaded = load(
        r"
---
---
# Nothing but a comment.
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a, namespace: shop}}
- apiVersion: v1
  kind: ServiceList
  items:
  - {apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop}}
- null
--- ~
--- {apiVersion: v1, kind: List, items: []}
",
    )
    .unwrap();
    assert_eq!(loaded.snapshot.services.keys().collect::<Vec<_>>(), [&name("shop", "a"), &name("shop", "b")]);
    assert_eq!(loaded.other_kinds, BTreeMap::new());
    assert_eq!(load("").unwrap().snapshot.services.len(), 0);
    insta::assert_snapshot!(refused("{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service}]}"), @"shop.yaml:1: Service: metadata.name: it is missing; write a name");
}

#[test]
fn the_lists_of_the_api_server_name_their_kind_once() {
    let loaded = load("{apiVersion: v1, kind: ServiceList, items: [{metadata: {name: a, namespace: shop}}]}").unwrap();
    assert_eq!(loaded.snapshot.services.keys().collect::<Vec<_>>(), [&name("shop", "a")]);
}

#[test]
fn json_is_yaml_and_of_two_objects_with_one_name_the_later_counts() {
    let text = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}}"#;
    let mut loaded = Loaded::default();
    let later = text.replace("80", "81");
    let reported = from_documents(&mut loaded, "shop.yaml", &format!("{text}\n---\n{later}")).unwrap_err();
    insta::assert_snapshot!(reported, @"shop.yaml:3: Service shop/web: it is also in shop.yaml:1; only this one is planned; remove one of them");
    assert_eq!(loaded.snapshot.services, [(name("shop", "web"), service(81))].into());
}

#[test]
fn two_manifests_of_one_object_are_named_with_both_places() {
    let ingress = "\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web, namespace: shop}\nspec: {ingressClassName: alb}\n";
    let mut loaded = Loaded::default();
    from_documents(&mut loaded, "staging/ingress.yaml", &format!("---\n{ingress}")).unwrap();
    let other = ingress.replace("alb", "internal");
    insta::assert_snapshot!(
        from_documents(&mut loaded, "prod/ingress.yaml", &format!("---\n{other}")).unwrap_err(),
        @"prod/ingress.yaml:3: Ingress shop/web: it is also in staging/ingress.yaml:3; only this one is planned; plan the folders one at a time"
    );
    assert_eq!(loaded.snapshot.ingresses[&name("shop", "web")].class.as_deref(), Some("internal"));
    // The same once more loses nothing.
    from_documents(&mut loaded, "copy.yaml", &other).unwrap();
    let class = "{\n\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"IngressClass\", \"metadata\": {\"name\": \"alb\"}, \"spec\": {\"controller\": \"a\"}}";
    let list = format!("{{\"kind\": \"List\", \"items\": [\n{class},\n{}]}}", class.replace("\"a\"", "\"b\""));
    insta::assert_snapshot!(
        from_documents(&mut loaded, "classes.json", &list).unwrap_err(),
        @"classes.json:4: IngressClass alb: it is also in classes.json:2; only this one is planned; remove one of them"
    );
}

#[test]
fn ports_that_no_api_server_takes_are_named_with_field_and_line() {
    let service = |ports: &str| {
        refused(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec:\n  ports:\n{ports}"
        ))
    };
    let at = |line: usize, field: &str, what: &str| format!("shop.yaml:{line}: Service shop/web: spec.{field}: {what}");
    let invalid = |line, field, port: &str| at(line, field, &format!("{port} is not a valid port; write 1 to 65535"));
    assert_eq!(service("  - name: a\n    port: 70000\n"), invalid(7, "ports[0].port", "70000"));
    assert_eq!(service("  - {port: 80}\n  - port: -1\n"), invalid(7, "ports[1].port", "-1"));
    assert_eq!(service("  - {port: 80}\n  - name: a\n"), at(7, "ports[1].port", "it is missing; write 1 to 65535"));
    let or_name = "write 1 to 65535, or the name of a port of the pods";
    assert_eq!(
        service("  - port: 80\n    targetPort: 70000\n"),
        at(7, "ports[0].targetPort", &format!("70000 is not a valid port; {or_name}"))
    );
    assert_eq!(
        service("  - port: 80\n    targetPort: '70000'\n"),
        at(7, "ports[0].targetPort", &format!("`70000` is not a valid port; {or_name}"))
    );
    let or_none = "write 1 to 65535, or leave it out";
    assert_eq!(
        service("  - port: 80\n    nodePort: 99999\n"),
        at(7, "ports[0].nodePort", &format!("99999 is not a valid port; {or_none}"))
    );
    assert_eq!(
        service("  - port: 80\n  healthCheckNodePort: 99999\n"),
        at(7, "healthCheckNodePort", &format!("99999 is not a valid port; {or_none}"))
    );
    // JSON as well, which is read without lines first.
    let json = "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"web\", \"namespace\": \"shop\"},\n\"spec\": {\"ports\": [\n{\"port\": 70000}]}}";
    assert_eq!(refused(json), invalid(3, "ports[0].port", "70000"));
    // 0 is none to the API server, and a name is a name.
    let sound = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80, targetPort: 0, nodePort: 0}, {port: 81, targetPort: http-1}, {port: 82, targetPort: ''}]}}";
    let ports = &load(sound).unwrap().snapshot.services[&name("shop", "web")].ports;
    assert_eq!(ports[0].target_port, PortReference::Number(80));
    assert_eq!(ports[1].target_port, PortReference::Name("http-1".to_owned()));
    assert_eq!(ports[2].target_port, PortReference::Number(82));
}

#[test]
fn a_list_without_a_list_of_objects_is_refused() {
    let items = "shop.yaml:1: List: items: it is not a list; write the list of the objects";
    assert_eq!(refused("{apiVersion: v1, kind: List, items: {a: b}}"), items);
    assert_eq!(refused(r#"{"apiVersion": "v1", "kind": "List", "items": "a"}"#), items);
    assert_eq!(
        refused(r#"{"apiVersion": "v1", "kind": "ServiceList"}"#),
        "shop.yaml:1: ServiceList: items: it is missing; write the list of the objects"
    );
    let deep = (0..6).fold("[]".to_owned(), |items, _| format!("[{{kind: List, items: {items}}}]"));
    assert_eq!(
        refused(&format!("{{kind: List, items: {deep}}}")),
        "shop.yaml:1: List: items: lists are nested deeper than 4 levels; write their objects in one list"
    );
    // An empty list of a program in Go, and a kind of others that only ends so.
    assert_eq!(reported(r#"{"apiVersion": "v1", "kind": "List", "items": null}"#), "");
    let other = load("{apiVersion: example.com/v1, kind: AllowList, metadata: {name: a}, spec: {}}").unwrap();
    assert_eq!(other.other_kinds, [("AllowList".to_owned(), 1)].into());
}

#[test]
fn an_anchor_of_another_document_is_named() {
    assert_eq!(
        refused("a: &common {b: c}\nkind: ConfigMap\n---\nkind: Service\nmetadata: *common\n"),
        "shop.yaml:5: the anchor `common` is not defined in this document; anchors end at `---`"
    );
}

/// A folder for one test, which goes with it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("albatross-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn links_to_folders_are_not_followed_and_what_cannot_be_read_keeps_nothing_away() {
    let folder = Folder::new("manifests");
    let at = |path: &str| folder.0.join(path);
    let service = |name: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n");
    for folder in ["all/below", "elsewhere", "empty"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    std::fs::write(at("all/below/a.yaml"), service("a")).unwrap();
    std::fs::write(at("elsewhere/b.yaml"), service("b")).unwrap();
    std::os::unix::fs::symlink(at("all"), at("all/below/back")).unwrap();
    std::os::unix::fs::symlink(at("elsewhere"), at("all/other")).unwrap();
    std::os::unix::fs::symlink(at("elsewhere/b.yaml"), at("all/file.yaml")).unwrap();
    std::os::unix::fs::symlink(at("elsewhere"), at("link")).unwrap();
    let kept = |paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(|path| at(path)).collect();
        let loaded = from_paths(&paths, Scope::Files);
        let prefix = format!("{}/", folder.0.display());
        let reported: Vec<String> =
            loaded.problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect();
        let names: Vec<String> = loaded.snapshot.services.keys().map(ToString::to_string).collect();
        assert_eq!(loaded.snapshot.scope, Scope::Files);
        (names.join(" "), reported.join("\n"))
    };
    assert_eq!(kept(&["all"]), ("shop/a shop/b".to_owned(), String::new()));
    assert_eq!(kept(&["link"]), ("shop/b".to_owned(), String::new()));
    let (names, reported) = kept(&["missing.yaml", "empty", "all/below"]);
    assert_eq!(names, "shop/a");
    insta::assert_snapshot!(reported, @r"
    missing.yaml: it cannot be read: No such file or directory (os error 2); correct the path, or leave it out
    empty: it has no manifests, files that end in .yaml, .yml or .json (links to folders are not followed); name another folder
    ");
}

#[test]
fn applying_tells_what_changed() {
    let mut snapshot = Snapshot::default();
    let reported = |change: Option<Change<Service>>| change.map(|c| (c.name, c.before, c.present));
    let web = || name("shop", "web");
    assert_eq!(reported(snapshot.apply(service(80))), Some((web(), None, true)));
    assert_eq!(reported(snapshot.apply(service(80))), None);
    assert_eq!(reported(snapshot.apply(service(81))), Some((web(), Some(service(80)), true)));
    assert_eq!(reported(snapshot.remove::<Service>(&web())), Some((web(), Some(service(81)), false)));
    assert_eq!(reported(snapshot.remove::<Service>(&web())), None);
    assert!(snapshot.services.is_empty());
}

#[test]
fn replacing_tells_the_difference_and_touches_no_other_kind() {
    let named = |object: &str, port| Service { name: name("shop", object), ..service(port) };
    let mut snapshot = Snapshot::default();
    for object in [named("gone", 80), named("same", 80), named("other", 80)] {
        snapshot.apply(object);
    }
    snapshot.apply(IngressClass { name: name("", "alb"), controller: String::new(), parameters: None, default: true });
    let changes = snapshot.replace(vec![named("same", 80), named("other", 81), named("new", 80)]);
    let reported: Vec<(String, Option<Service>, bool)> =
        changes.into_iter().map(|change| (change.name.name, change.before, change.present)).collect();
    assert_eq!(
        reported,
        [
            ("gone".to_owned(), Some(named("gone", 80)), false),
            ("other".to_owned(), Some(named("other", 80)), true),
            ("new".to_owned(), None, true),
        ]
    );
    assert_eq!(snapshot.services.values().map(|s| &*s.name.name).collect::<Vec<_>>(), ["new", "other", "same"]);
    assert_eq!(snapshot.ingress_classes.len(), 1);
    assert_eq!(snapshot.replace::<Service>(vec![]).len(), 3);
}

#[test]
fn a_namespace_has_its_own_objects_only() {
    let mut snapshot = Snapshot::default();
    for (namespace, object) in [("a", "z"), ("shop", "a"), ("shop", "b"), ("shop-2", "a"), ("", "x")] {
        snapshot.apply(Service { name: name(namespace, object), ..service(80) });
    }
    let names = |namespace| in_namespace(&snapshot.services, namespace).map(|(n, _)| n.to_string()).collect::<Vec<_>>();
    assert_eq!(names("shop"), ["shop/a", "shop/b"]);
    assert_eq!(names("shop-"), Vec::<String>::new());
    assert_eq!(names(""), ["/x"]);
}
