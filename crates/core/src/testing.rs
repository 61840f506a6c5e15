//! Fixtures for the tests of this crate and of those above.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    api::{crd, kubernetes as wire},
    desired::BuildConfig,
    facts::{Fact, Subnet, SubnetQuery},
    model::{
        Action, Attributes, Cause, IpAddressType, Listener, ListenerProtocol, LoadBalancerArn, LoadBalancerKind,
        LoadBalancerState, ObjectName, ObjectReference, ObservedLoadBalancer, ResourceId, Scheme, SubnetId, Tags,
        TargetHealth, Value, VpcId,
    },
    plan::{Plan, Step, Wait},
    snapshot::{Loaded, Node, Pod, Readiness, Service, Snapshot, TargetGroupBinding, from_documents},
};

/// Returns the objects of these manifests.
///
/// # Panics
/// When one of them cannot be read.
#[must_use]
pub fn snapshot(manifests: &str) -> Snapshot {
    let mut loaded = Loaded::default();
    if let Err(error) = from_documents(&mut loaded, "test", manifests) {
        panic!("{error:?}");
    }
    loaded.snapshot
}

/// Returns the settings of the cluster `demo` in the VPC `vpc-1`.
#[must_use]
pub fn build_config() -> BuildConfig {
    BuildConfig::new("demo", Value::Known(VpcId::new("vpc-1")))
}

/// Returns the answers that find the same subnets for every load balancer that names none.
#[must_use]
pub fn discovered_subnets(ids: &[SubnetId]) -> BTreeMap<SubnetQuery, Fact<Vec<Subnet>>> {
    let found: Vec<Subnet> = ids.iter().map(|id| Subnet::of_unknown_blocks(id.clone())).collect();
    let mut subnets = BTreeMap::new();
    for kind in [LoadBalancerKind::Application, LoadBalancerKind::Network] {
        for scheme in [Scheme::Internal, Scheme::InternetFacing] {
            subnets.insert(SubnetQuery::Discovered { kind, scheme, ipv6: false }, Fact::Known(found.clone()));
        }
    }
    subnets
}

/// Returns a Service with only a name.
#[must_use]
pub fn bare_service(name: ObjectName) -> Service {
    Service::from(wire::Service {
        metadata: ObjectMeta { namespace: Some(name.namespace), name: Some(name.name), ..ObjectMeta::default() },
        ..wire::Service::default()
    })
}

/// Returns a binding in its first generation with only a name.
#[must_use]
pub fn bare_binding(name: ObjectName) -> TargetGroupBinding {
    let metadata = ObjectMeta {
        namespace: Some(name.namespace),
        name: Some(name.name),
        generation: Some(1),
        ..ObjectMeta::default()
    };
    TargetGroupBinding::from(crd::TargetGroupBinding { metadata, ..crd::TargetGroupBinding::default() })
}

/// Returns a ready node on the instance `i-` with its name.
#[must_use]
pub fn node(name: &str) -> Node {
    Node {
        name: ObjectName::new("", name),
        provider_id: format!("aws:///us-west-2a/i-{name}"),
        labels: BTreeMap::new(),
        taints: vec![],
        ready: Readiness::Ready,
    }
}

/// Returns the name of an object in the namespace `shop`.
#[must_use]
pub fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

/// Returns a ready pod on the node `n1`, with its address for a name.
#[must_use]
pub fn pod(address: &str) -> Pod {
    Pod {
        name: name(address),
        uid: format!("uid-{address}"),
        deleting: false,
        node: "n1".into(),
        addresses: vec![address.to_owned()],
        containers_ready: Readiness::Ready,
        ports: vec![],
        network_interface: None,
        gates: Box::default(),
        server_ids: Box::default(),
    }
}

/// Returns the health of a target in this state.
#[must_use]
pub fn health(state: &str) -> TargetHealth {
    TargetHealth { state: state.into(), reason: None, description: None, zone: None, quic_server_id: None }
}

/// Returns a load balancer that serves, without anything in it.
#[must_use]
pub fn load_balancer(arn: &str, dns_name: &str) -> ObservedLoadBalancer {
    ObservedLoadBalancer {
        arn: LoadBalancerArn::new(arn),
        name: "web".to_owned(),
        kind: LoadBalancerKind::Application,
        dns_name: dns_name.to_owned(),
        scheme: Scheme::Internal,
        ip_address_type: IpAddressType::Ipv4,
        network: crate::model::ObservedNetworkSettings::default(),
        pools: crate::model::ObservedPools::default(),
        state: LoadBalancerState::Active,
        subnets: BTreeSet::new(),
        security_groups: BTreeSet::new(),
        attributes: None,
        tags: Tags::new(),
        listeners: None,
        add_ons: crate::model::ObservedAddOns::default(),
    }
}

/// Returns a listener of a load balancer that answers 404.
#[must_use]
pub fn listener(port: u16) -> Listener {
    let object = ObjectReference::ingress(&name("web"));
    Listener {
        port,
        protocol: ListenerProtocol::Http,
        default_action: Action::FixedResponse { content_type: None, message_body: None, status_code: "404".to_owned() },
        default_authentication: None,
        default_certificate: None,
        certificates: BTreeSet::new(),
        certificates_after_apply: None,
        mutual_authentication: None,
        ssl_policy: None,
        alpn_policy: None,
        attributes: Attributes::new(),
        attribute_causes: BTreeMap::new(),
        rules: Vec::new(),
        shares: BTreeMap::new(),
        tags: Tags::new(),
        cause: Cause { object, generation: 1, field: "spec".to_owned() },
    }
}

/// Returns a plan that no planner has made, whose rules come to lead to target groups that are not healthy.
#[must_use]
pub fn plan_in_spite_of(
    unhealthy: impl IntoIterator<Item = ResourceId>,
    waits: impl IntoIterator<Item = Wait>,
) -> Plan {
    let mut plan = Plan::of(Vec::new(), waits);
    plan.unhealthy = unhealthy.into_iter().collect();
    plan
}

/// Returns a plan that no planner has made.
#[must_use]
pub fn plan_of(steps: Vec<Step>, waits: impl IntoIterator<Item = Wait>) -> Plan {
    Plan::of(steps, waits)
}
