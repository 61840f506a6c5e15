use super::*;
use crate::{
    dry_run_plan::WrittenPlan,
    model::tags,
    snapshot::{PodPort, PodReference},
};

const SHOP: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  namespace: shop
  name: web
  annotations:
    alb.ingress.kubernetes.io/actions.weighted: '{"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": "cart", "servicePort": 80}]}}'
spec:
  ingressClassName: alb
  defaultBackend:
    service: {name: front, port: {number: 80}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {namespace: other, name: web}
spec:
  defaultBackend:
    service: {name: front, port: {number: 80}}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: TargetGroupBinding
metadata:
  namespace: shop
  name: k8s-shop-front
  labels: {ingress.k8s.aws/stack-namespace: shop, ingress.k8s.aws/stack-name: web}
spec:
  targetGroupARN: arn:one
  serviceRef: {name: front, port: 80}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  namespace: shop
  name: front-1
  labels: {kubernetes.io/service-name: front}
addressType: IPv4
endpoints:
- addresses: [10.0.0.1]
  targetRef: {kind: Pod, name: front-a}
"#;

fn snapshot() -> Snapshot {
    crate::testing::snapshot(SHOP)
}

#[test]
fn only_labels_of_a_namespace_concern_ingresses() {
    let mut snapshot = crate::testing::snapshot(&format!(
        "{SHOP}---
apiVersion: v1
kind: Namespace
metadata: {{name: shop, labels: {{team: a}}}}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: IngressClassParams
metadata: {{name: alb}}
spec: {{namespaceSelector: {{matchLabels: {{team: a}}}}}}
"
    ));
    let mut shop = snapshot.namespaces[&ObjectName::new("", "shop")].clone();
    shop.drain_seconds = Some("5".to_owned());
    let change = snapshot.apply(shop.clone()).unwrap();
    assert_eq!(Namespace::keys(&change, &snapshot), BTreeSet::new());
    shop.labels.insert("team".to_owned(), "b".to_owned());
    let change = snapshot.apply(shop).unwrap();
    assert_eq!(Namespace::keys(&change, &snapshot), BTreeSet::from([group("shop")]));
    let change = snapshot.remove::<Namespace>(&ObjectName::new("", "shop")).unwrap();
    assert_eq!(Namespace::keys(&change, &snapshot), BTreeSet::from([group("shop")]));
}

fn group(namespace: &str) -> Key {
    Key::Stack(StackId::Ingress(ObjectName::new(namespace, "web")))
}

fn binding() -> Key {
    Key::Binding(ObjectName::new("shop", "k8s-shop-front"))
}

fn change<T>(namespace: &str, name: &str) -> Change<T> {
    Change { name: ObjectName::new(namespace, name), before: None, present: true }
}

#[test]
fn a_service_concerns_the_ingresses_that_lead_to_it_and_its_bindings() {
    let snapshot = snapshot();
    assert_eq!(Service::keys(&change("shop", "front"), &snapshot), BTreeSet::from([group("shop"), binding()]));
    assert_eq!(Service::keys(&change("shop", "cart"), &snapshot), BTreeSet::from([group("shop")]));
    assert_eq!(Service::keys(&change("shop", "unused"), &snapshot), BTreeSet::new());
}

/// The target groups of a listener may be those of other Services, which no watch of its own concerns.
#[test]
fn a_service_concerns_the_services_that_forward_to_it() {
    let owner = |namespace: &str, name: &str, key: &str| {
        let action = r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"cart","servicePort":80}]}}"#;
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  namespace: {namespace}\n  name: {name}\n  annotations: {{{key}: '{action}'}}\nspec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n"
        )
    };
    let action = "service.beta.kubernetes.io/actions.TCP-80";
    let snapshot = crate::testing::snapshot(
        &[
            owner("shop", "edge", action),
            owner("other", "edge", action),
            owner("shop", "unread", "service.beta.kubernetes.io/actions.HTTP-80"),
        ]
        .concat(),
    );
    let edge = Key::Stack(StackId::Service(ObjectName::new("shop", "edge")));
    assert_eq!(Service::keys(&change("shop", "cart"), &snapshot), BTreeSet::from([edge.clone()]));
    assert_eq!(Service::keys(&change("shop", "cabinet"), &snapshot), BTreeSet::new());
    assert_eq!(Service::keys(&change("shop", "edge"), &snapshot), BTreeSet::from([edge]));
}

#[test]
fn a_service_whose_name_is_escaped_in_an_action_concerns_the_ingress() {
    let mut snapshot = snapshot();
    let mut escaped = snapshot.ingresses[&ObjectName::new("shop", "web")].clone();
    for value in escaped.annotations.values_mut() {
        *value = value.replace("cart", r"c\u0061rt");
    }
    snapshot.apply(escaped);
    assert_eq!(Service::keys(&change("shop", "unused"), &snapshot), BTreeSet::new());
    assert_eq!(Service::keys(&change("shop", "cart"), &snapshot), BTreeSet::from([group("shop")]));
}

#[test]
fn the_plan_of_an_ingress_concerns_nothing() {
    let mut snapshot = snapshot();
    let name = ObjectName::new("shop", "web");
    let before = snapshot.ingresses[&name].clone();
    let mut keys = |alter: fn(&mut Ingress)| {
        let mut ingress = before.clone();
        ingress.written_plan = Some(WrittenPlan::of("{}"));
        alter(&mut ingress);
        Ingress::keys(&snapshot.apply(ingress).unwrap(), &snapshot)
    };
    assert_eq!(keys(|_| {}), BTreeSet::new());
    assert_eq!(keys(|ingress| ingress.written_plan = None), BTreeSet::new());
    assert_eq!(keys(|ingress| ingress.generation += 1), BTreeSet::from([group("shop")]));
}

#[test]
fn an_ingress_that_was_let_go_concerns_the_shared_security_group() {
    let mut snapshot = snapshot();
    let name = ObjectName::new("shop", "web");
    let mut held = snapshot.ingresses[&name].clone();
    held.finalizers.push(StackId::Ingress(held.name.clone()).finalizer());
    let change = snapshot.apply(held.clone()).unwrap();
    assert_eq!(Ingress::keys(&change, &snapshot), BTreeSet::from([group("shop")]));
    let both = BTreeSet::from([group("shop"), Key::BackendSecurityGroup]);
    let released = Ingress { finalizers: Vec::new(), ..held.clone() };
    let change = snapshot.apply(released).unwrap();
    assert_eq!(Ingress::keys(&change, &snapshot), both);
    snapshot.apply(held);
    let change = snapshot.remove::<Ingress>(&name).unwrap();
    assert_eq!(Ingress::keys(&change, &snapshot), both);
}

#[test]
fn what_no_ingress_belongs_to_is_left_over() {
    let left = StackId::Ingress(ObjectName::new("shop", "gone"));
    let known = StackId::Ingress(ObjectName::new("shop", "web"));
    let groups = BTreeSet::from([left.clone(), known]);
    assert_eq!(without_object(groups, &snapshot(), ""), BTreeSet::from([left]));
}

#[test]
fn where_one_namespace_is_watched_nothing_outside_of_it_is_left_over() {
    let name = |namespace: &str| ObjectName::new(namespace, "gone");
    let inside = [StackId::Ingress(name("shop")), StackId::Service(name("shop"))];
    let outside =
        [StackId::Ingress(name("other")), StackId::Service(name("other")), StackId::Group("shared".to_owned())];
    let all: BTreeSet<StackId> = inside.iter().chain(&outside).cloned().collect();
    assert_eq!(without_object(all.clone(), &snapshot(), "shop"), BTreeSet::from(inside));
    assert_eq!(without_object(all.clone(), &snapshot(), ""), all);
}

#[test]
fn a_class_concerns_its_ingresses_and_those_without_one() {
    let snapshot = snapshot();
    assert_eq!(IngressClass::keys(&change("", "alb"), &snapshot), BTreeSet::from([group("shop"), group("other")]));
    assert_eq!(IngressClass::keys(&change("", "nginx"), &snapshot), BTreeSet::from([group("other")]));
}

#[test]
fn endpoints_and_pods_concern_the_bindings_of_their_service() {
    let snapshot = snapshot();
    assert_eq!(EndpointSlice::keys(&change("shop", "front-1"), &snapshot), BTreeSet::from([binding()]));
    assert_eq!(Pod::keys(&change("shop", "front-a"), &snapshot), BTreeSet::from([binding()]));
    assert_eq!(Pod::keys(&change("shop", "front-b"), &snapshot), BTreeSet::new());
    assert_eq!(Pod::keys(&change("other", "front-a"), &snapshot), BTreeSet::new());
}

fn pod(name: &str) -> Pod {
    Pod { name: ObjectName::new("shop", name), ..crate::testing::pod(name) }
}

/// Makes the targets of the binding be of this type.
fn bind(snapshot: &mut Snapshot, target_type: TargetType) {
    let mut binding = snapshot.target_group_bindings.values().next().unwrap().clone();
    binding.spec.target_type = Some(target_type);
    snapshot.apply(binding);
}

#[test]
fn a_slice_that_loses_an_endpoint_has_targets_depart() {
    let name = ObjectName::new("shop", "front-1");
    let endpoint = |address: &str, ready, terminating| EndpointAddress {
        address: address.to_owned(),
        ready: Some(ready),
        terminating,
        pod: Some(PodReference { name: address.to_owned(), uid: None }),
    };
    let (serves, gated, ends) = ((true, false), (false, false), (false, true));
    // The containers of `a` and `b` are ready, those of `broken` are not, and `gone` is not there.
    for (case, before, after, departs) in [
        ("as it was", vec![("a", serves)], Some(vec![("a", serves)]), false),
        ("one comes", vec![("a", serves)], Some(vec![("a", serves), ("b", serves)]), false),
        ("one becomes ready", vec![("a", gated)], Some(vec![("a", serves)]), false),
        ("one ends", vec![("a", serves), ("b", serves)], Some(vec![("a", serves), ("b", ends)]), true),
        ("one becomes not ready", vec![("broken", serves)], Some(vec![("broken", gated)]), true),
        ("one that is not ready stays so", vec![("broken", gated)], Some(vec![("broken", gated)]), false),
        ("one that is not ready goes", vec![("broken", gated)], Some(vec![]), false),
        ("one waits at its gate again", vec![("a", serves)], Some(vec![("a", gated)]), false),
        ("the node of one falls silent", vec![("silent", serves)], Some(vec![("silent", gated)]), true),
        ("one of a silent node goes", vec![("silent", gated)], Some(vec![]), true),
        ("one of a silent node is heard again", vec![("silent", gated)], Some(vec![("silent", serves)]), false),
        ("one goes after its pod", vec![("gone", serves)], Some(vec![]), false),
        ("one at its gate goes", vec![("a", gated)], Some(vec![]), true),
        ("one at its gate ends", vec![("a", gated)], Some(vec![("a", ends)]), true),
        ("one goes", vec![("a", serves)], Some(vec![]), true),
        ("one that ended goes", vec![("a", ends)], Some(vec![]), false),
        ("another takes its place", vec![("a", serves)], Some(vec![("b", serves)]), true),
        ("the slice goes", vec![("a", serves)], None, true),
    ] {
        let mut snapshot = snapshot();
        snapshot.apply(crate::testing::node("n1"));
        snapshot.apply(pod("a"));
        snapshot.apply(pod("b"));
        let silent = Node { ready: Readiness::Unknown, ..crate::testing::node("n2") };
        snapshot.apply(Pod { node: silent.name.name.clone(), ..pod("silent") });
        snapshot.apply(silent);
        snapshot.apply(Pod { containers_ready: Readiness::NotReady, ..pod("broken") });
        let slice = |endpoints: Vec<(&str, (bool, bool))>| EndpointSlice {
            endpoints: endpoints.into_iter().map(|(a, (ready, ending))| endpoint(a, ready, ending)).collect(),
            ..snapshot.endpoint_slices[&name].clone()
        };
        let (before, after) = (slice(before), after.map(slice));
        snapshot.apply(before.clone());
        let change = match after {
            Some(after) => snapshot.apply(after),
            None => snapshot.remove::<EndpointSlice>(&name),
        };
        let change = change.unwrap_or(Change { name: name.clone(), before: Some(before), present: true });
        let expected = if departs { BTreeSet::from([binding()]) } else { BTreeSet::new() };
        assert_eq!(EndpointSlice::departures(&change, &snapshot), expected, "{case}");
        // The targets are nodes, whatever pods do.
        bind(&mut snapshot, TargetType::Instance);
        assert_eq!(EndpointSlice::departures(&change, &snapshot), BTreeSet::new(), "{case}");
    }
}

#[test]
fn a_slice_that_comes_to_another_service_has_targets_depart() {
    let mut snapshot = snapshot();
    snapshot.apply(crate::testing::node("n1"));
    snapshot.apply(pod("a"));
    let mut slice = snapshot.endpoint_slices[&ObjectName::new("shop", "front-1")].clone();
    slice.endpoints.truncate(1);
    slice.endpoints[0].pod = Some(PodReference { name: "a".to_owned(), uid: None });
    snapshot.apply(slice.clone());
    let change = snapshot.apply(EndpointSlice { service: "other".to_owned(), ..slice }).unwrap();
    assert_eq!(EndpointSlice::departures(&change, &snapshot), BTreeSet::from([binding()]));
}

#[test]
fn a_pod_or_a_node_that_ends_has_targets_depart() {
    let name = ObjectName::new("shop", "front-a");
    let broken = |pod: Pod| Pod { containers_ready: Readiness::NotReady, ..pod };
    let (was, another) = (pod("front-a"), Pod { uid: "another".to_owned(), ..pod("front-a") });
    let ports = vec![PodPort { name: "web".to_owned(), number: 80 }];
    // The EndpointSlice may show the change of the pod earlier or later than the pod itself.
    for (case, before, after, ready, departs) in [
        ("other ports", Some(was.clone()), Some(Pod { ports, ..was.clone() }), true, false),
        ("it comes", None, Some(was.clone()), true, false),
        ("it ends", Some(was.clone()), Some(Pod { deleting: true, ..was.clone() }), true, true),
        ("it ends in a slice, too", Some(was.clone()), Some(Pod { deleting: true, ..was.clone() }), false, true),
        (
            "it ended before",
            Some(Pod { deleting: true, ..was.clone() }),
            Some(Pod { deleting: true, ..broken(was.clone()) }),
            false,
            false,
        ),
        ("another one of the name", Some(was.clone()), Some(another), true, true),
        ("it is not ready, which no slice shows", Some(was.clone()), Some(broken(was.clone())), true, false),
        ("it is not ready", Some(was.clone()), Some(broken(was.clone())), false, true),
        ("it goes", Some(was), None, true, true),
    ] {
        let mut snapshot = snapshot();
        snapshot.apply(crate::testing::node("n1"));
        let mut slice = snapshot.endpoint_slices.values().next().unwrap().clone();
        slice.endpoints[0].ready = Some(ready);
        slice.endpoints[0].pod = Some(PodReference { name: name.name.clone(), uid: Some("uid-front-a".to_owned()) });
        snapshot.apply(slice);
        before.into_iter().for_each(|pod| drop(snapshot.apply(pod)));
        let change = match after {
            Some(pod) => snapshot.apply(pod).unwrap(),
            None => snapshot.remove::<Pod>(&name).unwrap(),
        };
        let expected = if departs { BTreeSet::from([binding()]) } else { BTreeSet::new() };
        assert_eq!(Pod::departures(&change, &snapshot), expected, "{case}");
        bind(&mut snapshot, TargetType::Instance);
        assert_eq!(Pod::departures(&change, &snapshot), BTreeSet::new(), "{case}");
    }

    let mut snapshot = snapshot();
    // The target type of the binding is unknown: its targets may be nodes.
    let node = crate::testing::node("n1");
    let mut departs = |node: Node| Node::departures(&snapshot.apply(node).unwrap(), &snapshot);
    assert_eq!(departs(node.clone()), BTreeSet::new());
    assert_eq!(departs(Node { ready: Readiness::Unknown, ..node.clone() }), BTreeSet::from([binding()]));
    assert_eq!(departs(node.clone()), BTreeSet::new());
    let drained = vec![("ToBeDeletedByClusterAutoscaler".to_owned(), "NoSchedule".to_owned())];
    assert_eq!(departs(Node { taints: drained, ..node.clone() }), BTreeSet::from([binding()]));
    bind(&mut snapshot, TargetType::Ip);
    snapshot.apply(node.clone());
    let change = snapshot.remove::<Node>(&node.name).unwrap();
    assert_eq!(Node::departures(&change, &snapshot), BTreeSet::new());
}

#[test]
fn a_binding_that_went_concerns_its_group_and_the_rules_of_nodes() {
    let mut snapshot = snapshot();
    let gone = snapshot.remove::<TargetGroupBinding>(&ObjectName::new("shop", "k8s-shop-front")).unwrap();
    assert_eq!(TargetGroupBinding::keys(&gone, &snapshot), BTreeSet::from([binding(), Key::NodeRules, group("shop")]));
}

#[test]
fn a_binding_is_a_stacks_by_its_place_and_not_by_its_labels() {
    let stack = StackId::Ingress(ObjectName::new("shop", "web"));
    let edge = StackId::Group("edge".to_owned());
    let arn = |name: &str| format!("arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/{name}/1");
    let made = |stack: &StackId, namespace: &str, name: &str, group: &str| {
        let mut wire = crate::api::crd::TargetGroupBinding::default();
        wire.metadata.namespace = Some(namespace.to_owned());
        wire.metadata.name = Some(name.to_owned());
        wire.metadata.labels = Some(stack.binding_labels());
        wire.spec.target_group_arn = Some(arn(group));
        TargetGroupBinding::from(wire)
    };
    let of_aws = |group: &str, resource: &str| ObservedTargetGroup {
        arn: crate::model::TargetGroupArn::new(arn(group)),
        name: group.to_owned(),
        tags: [(tags::INGRESS_RESOURCE.to_owned(), resource.to_owned())].into(),
        target_type: "ip".to_owned(),
        protocol: "HTTP".to_owned(),
        protocol_version: None,
        ip_address_type: crate::model::IpAddressType::Ipv4,
        health_check: None,
        attributes: None,
    };
    let observed = ObservedStack {
        target_groups: vec![of_aws("k8s-shop", "shop/web-cart:80"), of_aws("k8s-new", "shop/web-new:80")],
        ..ObservedStack::default()
    };
    let mut snapshot = snapshot();
    let mut member = snapshot.ingresses[&ObjectName::new("shop", "web")].clone();
    member.name = ObjectName::new("team", "site");
    member.finalizers = vec![edge.finalizer()];
    member.status = vec![crate::snapshot::StatusEntry { hostname: "edge.example".to_owned(), ports: vec![80] }];
    snapshot.apply(member.clone());
    member.name = ObjectName::new("evil", "site");
    member.status.clear();
    snapshot.apply(member);
    let second = TargetGroupBinding { created: "2026-01-02".to_owned(), ..made(&stack, "shop", "second", "k8s-new") };
    for binding in [
        made(&stack, "shop", "k8s-shop", "k8s-shop"),
        made(&stack, "shop", "mine", "k8s-shop"),
        TargetGroupBinding { created: "2026-01-01".to_owned(), ..made(&stack, "shop", "renamed", "k8s-new") },
        made(&stack, "evil", "renamed", "k8s-new"),
        second.clone(),
    ] {
        snapshot.apply(binding);
    }
    for (case, stack, binding, expected) in [
        ("its own", &stack, made(&stack, "shop", "k8s-shop", "k8s-shop"), true),
        ("of another namespace", &stack, made(&stack, "evil", "k8s-shop", "k8s-shop"), false),
        ("of another name beside its own", &stack, made(&stack, "shop", "mine", "k8s-shop"), false),
        ("of another name, with the labels and the ARN", &stack, made(&stack, "shop", "renamed", "k8s-new"), true),
        ("as that, of another namespace", &stack, made(&stack, "evil", "renamed", "k8s-new"), false),
        ("as that, and younger", &stack, second, false),
        ("of another stack", &stack, made(&edge, "shop", "k8s-shop", "k8s-shop"), false),
        ("its group is gone", &stack, made(&stack, "shop", "k8s-gone", "k8s-gone"), true),
        ("foreign, its group is gone", &stack, made(&stack, "evil", "k8s-gone", "k8s-gone"), false),
        ("of a member's namespace", &edge, made(&edge, "team", "k8s-team", "k8s-team"), true),
        ("of no member's namespace", &edge, made(&edge, "other", "k8s-team", "k8s-team"), false),
        ("finalizer written by hand", &edge, made(&edge, "evil", "k8s-team", "k8s-team"), false),
    ] {
        assert_eq!(is_binding_of(stack, &binding, &observed, &snapshot), expected, "{case}");
    }
    let resources = crate::model::MemberResources {
        member: crate::model::ObjectReference::ingress(&ObjectName::new("evil", "site")),
        rules: BTreeSet::new(),
        ports: std::collections::BTreeMap::new(),
    };
    let remembered = ObservedStack { member_resources: vec![resources], ..ObservedStack::default() };
    let of_member = made(&edge, "evil", "k8s-team", "k8s-team");
    assert!(is_binding_of(&edge, &of_member, &remembered, &snapshot), "of a member that is remembered");
}

#[test]
fn a_strangers_binding_with_a_stacks_labels_concerns_no_stack() {
    let mut snapshot = snapshot();
    let own = snapshot.target_group_bindings[&ObjectName::new("shop", "k8s-shop-front")].clone();
    let stranger = ObjectName::new("evil", "k8s-shop-front");
    let change = snapshot.apply(TargetGroupBinding { name: stranger.clone(), ..own.clone() }).unwrap();
    // Both name one target group.
    let both = BTreeSet::from([binding(), Key::Binding(stranger)]);
    assert_eq!(TargetGroupBinding::keys(&change, &snapshot), both);
    let mut of_group = own;
    of_group.name = ObjectName::new("evil", "edge");
    of_group.labels = StackId::Group("edge".to_owned()).binding_labels();
    of_group.spec.target_group_arn = Some("arn:two".to_owned());
    let change = snapshot.apply(of_group).unwrap();
    let itself = BTreeSet::from([Key::Binding(ObjectName::new("evil", "edge"))]);
    assert_eq!(TargetGroupBinding::keys(&change, &snapshot), itself);
}
