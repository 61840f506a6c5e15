use super::*;
use crate::model::PortReference;

fn load(text: &str) -> Result<Loaded, FileError> {
    let mut loaded = Loaded::default();
    from_documents(&mut loaded, "shop.yaml", text).map(|()| loaded)
}

fn refused(text: &str) -> String {
    load(text).expect_err(text).to_string()
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
        ..Service::bare(name("shop", "web"))
    }
}

#[test]
fn what_is_no_yaml_is_refused_with_its_place() {
    insta::assert_snapshot!(refused("apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n bad: indent\n"), @r"
    `shop.yaml` is not valid YAML: error: line 5 column 2: while parsing a block mapping, did not find expected key
     --> <input>:5:2
      |
    3 | metadata:
    4 |   name: web
    5 |  bad: indent
      |  ^ while parsing a block mapping, did not find expected key
    ");
    insta::assert_snapshot!(refused("kind: Service\n---\nkind: [Service\n"), @r"
    `shop.yaml` is not valid YAML: error: line 3 column 7: unclosed bracket '['
     --> <input>:3:7
      |
    1 | kind: Service
    2 | ---
    3 | kind: [Service
      |       ^ unclosed bracket '['
    ");
    insta::assert_snapshot!(refused("kind: Service\nkind: Service\n"), @r"
    `shop.yaml` is not valid YAML: error: line 2 column 1: duplicate mapping key: kind, set DuplicateKeyPolicy in Options if acceptable
     --> <input>:2:1
      |
    1 | kind: Service
    2 | kind: Service
      | ^ duplicate mapping key: kind, set DuplicateKeyPolicy in Options if acceptable
    ");
    insta::assert_snapshot!(refused("{{ .Values.ingress }}\n"), @r"
    `shop.yaml` is not valid YAML: error: line 1 column 2: expected string scalar
     --> <input>:1:2
      |
    1 | {{ .Values.ingress }}
      |  ^ expected string scalar
    ");
}

#[test]
fn what_is_no_object_is_refused() {
    insta::assert_snapshot!(refused("metadata: {name: web}"), @"`shop.yaml`: a document `web` is not valid: it has no `kind`, so it is no Kubernetes object");
    insta::assert_snapshot!(refused("just text"), @"`shop.yaml`: a document is not valid: it has no `kind`, so it is no Kubernetes object");
    insta::assert_snapshot!(refused("[1, 2]"), @"`shop.yaml`: a document is not valid: it has no `kind`, so it is no Kubernetes object");
    insta::assert_snapshot!(refused("{apiVersion: v1, kind: Service, metadata: {namespace: shop}}"), @"`shop.yaml`: Service is not valid: it has no `metadata.name`");
    insta::assert_snapshot!(refused("{apiVersion: v1, kind: Service}"), @"`shop.yaml`: Service is not valid: it has no `metadata.name`");
}

#[test]
fn a_field_of_the_wrong_type_is_refused_with_its_object() {
    insta::assert_snapshot!(refused("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: eighty}]}}"), @r#"`shop.yaml`: Service `web` is not valid: invalid type: string "eighty", expected i32"#);
    insta::assert_snapshot!(refused("{apiVersion: v1, kind: Service, metadata: {name: web, annotations: {a: 1}}}"), @"`shop.yaml`: Service `web` is not valid: invalid type: integer `1`, expected a string");
    insta::assert_snapshot!(refused("{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: web}, spec: {rules: {host: a}}}"), @"`shop.yaml`: Ingress `web` is not valid: invalid type: map, expected a sequence");
    insta::assert_snapshot!(refused("{apiVersion: elbv2.k8s.aws/v1beta1, kind: TargetGroupBinding, metadata: {name: web}, spec: {targetType: pod, serviceRef: {name: a, port: 80}}}"), @"`shop.yaml`: TargetGroupBinding `web` is not valid: unknown variant `pod`, expected `instance` or `ip`");
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
    assert_eq!(loaded.other_kinds, 3);
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
    assert_eq!(loaded.other_kinds, 0);
    assert_eq!(load("").unwrap().snapshot.services.len(), 0);
    insta::assert_snapshot!(refused("{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service}]}"), @"`shop.yaml`: Service is not valid: it has no `metadata.name`");
}

#[test]
fn the_lists_of_the_api_server_name_their_kind_once() {
    let loaded = load("{apiVersion: v1, kind: ServiceList, items: [{metadata: {name: a, namespace: shop}}]}").unwrap();
    assert_eq!(loaded.snapshot.services.keys().collect::<Vec<_>>(), [&name("shop", "a")]);
}

#[test]
fn json_is_yaml_and_of_two_objects_with_one_name_the_later_counts() {
    let text = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}}"#;
    let loaded = load(&format!("{text}\n---\n{}", text.replace("80", "81"))).unwrap();
    assert_eq!(loaded.snapshot.services, [(name("shop", "web"), service(81))].into());
}

#[test]
fn applying_tells_what_changed() {
    let mut snapshot = Snapshot::default();
    let told = |change: Option<Change<Service>>| change.map(|c| (c.name, c.before, c.present));
    let web = || name("shop", "web");
    assert_eq!(told(snapshot.apply(service(80))), Some((web(), None, true)));
    assert_eq!(told(snapshot.apply(service(80))), None);
    assert_eq!(told(snapshot.apply(service(81))), Some((web(), Some(service(80)), true)));
    assert_eq!(told(snapshot.remove::<Service>(&web())), Some((web(), Some(service(81)), false)));
    assert_eq!(told(snapshot.remove::<Service>(&web())), None);
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
    let told: Vec<(String, Option<Service>, bool)> =
        changes.into_iter().map(|change| (change.name.name, change.before, change.present)).collect();
    assert_eq!(
        told,
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
