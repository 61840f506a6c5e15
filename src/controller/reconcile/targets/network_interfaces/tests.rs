use super::*;
use crate::controller::reconcile::targets::fake::{Lab, instance, interface, name, node, pod, security_group};
use albatross_core::snapshot::Node;

fn on(address: &str) -> InterfaceLookup {
    InterfaceLookup::OnInstance { instance: "i-n1".into(), pod: format!("uid-{address}"), address: address.to_owned() }
}

fn alone(address: &str) -> InterfaceLookup {
    InterfaceLookup::Address { pod: format!("uid-{address}"), address: address.to_owned() }
}

/// Returns the groups in the order of the places, and the calls to AWS.
async fn locate(
    lab: &Lab,
    known: &mut (NetworkInterfaces, KnownGroups),
    places: &[InterfaceLookup],
) -> (Vec<String>, Vec<String>) {
    let wanted = places.iter().cloned().collect();
    let located = known.0.locate(&lab.cloud, &mut known.1, &wanted, "demo", &Tags::new()).await.unwrap();
    let reported = places.iter().map(|place| match &located[place] {
        Ok(group) => group.to_string(),
        Err(error) => error.to_string(),
    });
    (reported.collect(), lab.log())
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn pods_are_looked_for_where_their_interfaces_are() {
    let mut snapshot = Snapshot::default();
    let owner = TargetOwner::Pod { name: name("10.0.0.1"), uid: "uid-10.0.0.1".to_owned(), quic_server_id: None };
    let find = |snapshot: &Snapshot| interface_lookup(snapshot, "10.0.0.1", &owner);
    let labelled = |key: &str, value: &str| Node { labels: [(key.into(), value.into())].into(), ..node("n1") };
    snapshot.apply(pod("10.0.0.1"));
    assert_eq!(find(&snapshot), Some(alone("10.0.0.1")), "its node is not known");
    for (node, place) in [
        (node("n1"), Some(on("10.0.0.1"))),
        (labelled("eks.amazonaws.com/compute-type", "fargate"), Some(alone("10.0.0.1"))),
        (labelled("eks.amazonaws.com/compute-type", "auto"), Some(on("10.0.0.1"))),
        (labelled("sagemaker.amazonaws.com/compute-type", "hyperpod"), Some(alone("10.0.0.1"))),
        (labelled("eks.amazonaws.com/compute-type", "hybrid"), None),
    ] {
        snapshot.apply(node);
        assert_eq!(find(&snapshot), place);
    }
    snapshot.apply(node("n1"));
    let mut branch = pod("10.0.0.1");
    branch.network_interface = Some("[]".into());
    snapshot.apply(branch);
    assert_eq!(find(&snapshot), Some(alone("10.0.0.1")), "it has an interface of its own");
    let node = interface_lookup(&snapshot, "i-n1", &TargetOwner::Node("n1".into()));
    assert_eq!(node, Some(InterfaceLookup::Instance("i-n1".into())));
}

#[tokio::test]
async fn an_instance_is_read_once() {
    let lab = Lab::new();
    let interfaces =
        vec![interface(1, &["10.0.1.1"], &["10.0.2.0/28"], &["sg-b"]), interface(0, &["10.0.0.1"], &[], &["sg-a"])];
    lab.aws.set_instances(vec![instance("n1", interfaces)]);
    let mut known = Default::default();
    let places = [InterfaceLookup::Instance("i-n1".into()), on("10.0.0.1"), on("10.0.1.1"), on("10.0.2.15")];
    let groups = texts(&["sg-a", "sg-a", "sg-b", "sg-b"]);
    assert_eq!(locate(&lab, &mut known, &places).await, (groups.clone(), texts(&["instances i-n1"])));
    assert_eq!(locate(&lab, &mut known, &places).await, (groups, vec![]));
}

#[tokio::test]
async fn an_address_need_not_be_looked_up_where_all_interfaces_are_alike() {
    let lab = Lab::new();
    let both = vec![interface(0, &["10.0.0.1"], &[], &["sg-a"]), interface(1, &["10.0.0.2"], &[], &["sg-a"])];
    lab.aws.set_instances(vec![instance("n1", both)]);
    let mut known = Default::default();
    let calls = texts(&["instances i-n1"]);
    assert_eq!(locate(&lab, &mut known, &[on("10.0.0.77")]).await, (texts(&["sg-a"]), calls));
}

#[tokio::test]
async fn an_unknown_address_has_its_instance_read_again_once() {
    let lab = Lab::new();
    let primary = || interface(0, &["10.0.0.1"], &[], &["sg-a"]);
    lab.aws.set_instances(vec![instance("n1", vec![primary()])]);
    let mut known = Default::default();
    locate(&lab, &mut known, &[on("10.0.0.1")]).await;
    // The pods' interface was attached later, with another group.
    let both = vec![primary(), interface(1, &["10.0.1.1"], &[], &["sg-pods"])];
    lab.aws.set_instances(vec![instance("n1", both)]);
    let groups = texts(&["sg-a", "sg-pods"]);
    let places = [on("10.0.0.1"), on("10.0.1.1")];
    assert_eq!(locate(&lab, &mut known, &places).await, (groups.clone(), texts(&["instances i-n1"])));
    assert_eq!(locate(&lab, &mut known, &places).await, (groups, vec![]));
    // An address without an interface is searched for each time, and does not affect the others.
    let places = [on("10.0.1.1"), on("10.0.9.9")];
    let calls = texts(&["instances i-n1", "interfaces 10.0.9.9"]);
    let reported = texts(&["sg-pods", "no network interface of the VPC has the address 10.0.9.9"]);
    assert_eq!(locate(&lab, &mut known, &places).await, (reported, calls));
}

#[tokio::test]
async fn interfaces_of_their_own_are_found_by_address_and_kept_with_the_pod() {
    let lab = Lab::new();
    lab.aws.set_interfaces(vec![interface(0, &["10.0.3.1"], &[], &["sg-f"])]);
    let mut known = Default::default();
    let place = [alone("10.0.3.1")];
    assert_eq!(locate(&lab, &mut known, &place).await, (texts(&["sg-f"]), texts(&["interfaces 10.0.3.1"])));
    assert_eq!(locate(&lab, &mut known, &place).await, (texts(&["sg-f"]), vec![]));
    // Another pod has the address now.
    lab.aws.set_interfaces(vec![interface(0, &["10.0.3.1"], &[], &["sg-g"])]);
    let place = [InterfaceLookup::Address { pod: "uid-2".into(), address: "10.0.3.1".into() }];
    assert_eq!(locate(&lab, &mut known, &place).await, (texts(&["sg-g"]), texts(&["interfaces 10.0.3.1"])));
    assert_eq!(known.0.found.len(), 1, "the pod that is gone is forgotten");
}

#[tokio::test]
async fn of_several_groups_the_tagged_one_counts_as_soon_as_it_is_tagged() {
    let lab = Lab::new();
    lab.aws.set_instances(vec![instance("n1", vec![interface(0, &["10.0.0.1"], &[], &["sg-a", "sg-b"])])]);
    for id in ["sg-a", "sg-b"] {
        lab.aws.put_security_group(security_group(id, &[], &[]));
    }
    let mut known = Default::default();
    let (reported, calls) = locate(&lab, &mut known, &[on("10.0.0.1")]).await;
    insta::assert_snapshot!(reported.join("\n"), @"its network interface is in the security groups sg-a, sg-b, and none carries the tag kubernetes.io/cluster/demo; exactly one must, for rules are added to it");
    assert_eq!(calls, ["instances i-n1", "groups sg-a sg-b"]);
    let tagged = security_group("sg-b", &[("kubernetes.io/cluster/demo", "owned")], &[]);
    lab.aws.put_security_group(tagged);
    let calls = texts(&["groups sg-a sg-b"]);
    assert_eq!(locate(&lab, &mut known, &[on("10.0.0.1")]).await, (texts(&["sg-b"]), calls));
    assert_eq!(locate(&lab, &mut known, &[on("10.0.0.1")]).await, (texts(&["sg-b"]), vec![]));
}

#[tokio::test]
async fn an_instance_that_is_gone_is_told() {
    let lab = Lab::new();
    let place = [InterfaceLookup::Instance("i-gone".into())];
    let reported = texts(&["EC2 has no instance i-gone with a network interface"]);
    assert_eq!(locate(&lab, &mut Default::default(), &place).await.0, reported);
}
