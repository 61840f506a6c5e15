//! The simulated AWS with recorded calls, and a fake API server for the tests of this module.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{apimachinery::pkg::util::intstr::IntOrString, jiff::Timestamp};

use super::{Cloud, Cluster, ClusterError, LiveCloud, Settings, TargetGroupFacts, TargetGroupKey, Targets};
use albatross_aws::{AwsError, AwsErrorKind, AwsWriter, Inventory, WritePermit};
use albatross_core::targets::{endpoints::SilentNodes, readiness::Change, role::Role};
pub(super) use albatross_core::testing::{name, node, pod};
use albatross_core::{
    api::crd::{
        TargetGroupBindingSpec, TargetGroupBindingStatus,
        target_group_binding::{IpAddressType, ServiceReference, TargetType},
    },
    model::{
        InstanceInfo, InterfaceInfo, ObjectName, ObservedSecurityGroup, PortReference, Registration, SecurityGroupId,
        SecurityGroupRule, Tags, Target, TargetGroupArn, TargetHealth, VpcBlocks, VpcId, tags::BINDING_FINALIZER,
    },
    snapshot::{
        AddressFamily, EndpointAddress, EndpointSlice, EndpointSlicePort, GateState, PodReference, Service,
        ServicePort, Snapshot, TargetGroupBinding,
    },
};
use albatross_simulation::aws::{GivenTargetGroup, SimulatedAws};

pub(super) const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1";

/// Returns the target group [`ARN`] with this name and type.
pub(super) fn group(name: &str, target_type: &str) -> GivenTargetGroup {
    GivenTargetGroup::new(ARN, name, target_type)
}

pub(super) fn refused(operation: &'static str, code: &str) -> AwsError {
    let (code, message) = (code.to_owned(), "words".to_owned());
    AwsError { operation, kind: AwsErrorKind::Refused { code, message } }
}

pub(super) fn not_found(operation: &'static str, code: &str) -> AwsError {
    let (code, message) = (code.to_owned(), "words".to_owned());
    AwsError { operation, kind: AwsErrorKind::NotFound { code, message } }
}

type Log = Arc<Mutex<Vec<String>>>;

/// An implementation of [`Cloud`] that records its calls to the simulated AWS.
pub(super) struct RecordingCloud {
    live: LiveCloud,
    log: Log,
}

impl RecordingCloud {
    /// Creates an implementation whose inventory is empty.
    fn new(aws: &SimulatedAws, permit: WritePermit, log: Log) -> Self {
        let reader = Arc::new(albatross_aws::testing::over(aws.client()));
        let inventory = Arc::new(Inventory::new(reader.clone(), "demo", VpcId::new("vpc-1")));
        Self { live: LiveCloud::new(AwsWriter::new(reader, permit), inventory), log }
    }

    fn record(&self, name: &str, arguments: impl IntoIterator<Item = impl ToString>) {
        let words = std::iter::once(name.to_owned()).chain(arguments.into_iter().map(|argument| argument.to_string()));
        self.log.lock().unwrap().push(words.collect::<Vec<_>>().join(" "));
    }

    /// Records a call that is made in a role, if it is.
    fn record_in(&self, name: &str, role: Option<&Role>, arguments: impl IntoIterator<Item = impl ToString>) {
        let name =
            role.and_then(|role| role.arn().rsplit('/').next()).map_or(name.to_owned(), |r| format!("{name}@{r}"));
        self.record(&name, arguments);
    }

    fn record_rules(&self, name: &str, id: &SecurityGroupId, rules: &[SecurityGroupRule]) {
        self.record(name, std::iter::once(id.to_string()).chain(rules.iter().map(|rule| format!("[{rule}]"))));
    }
}

const NO_ARGUMENTS: [&str; 0] = [];

impl Cloud for Arc<RecordingCloud> {
    async fn targets(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
    ) -> Result<BTreeMap<Target, TargetHealth>, AwsError> {
        // Not recorded, since the inventory knows the targets.
        self.live.targets(role, group).await
    }

    async fn read_targets(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
    ) -> Result<BTreeMap<Target, TargetHealth>, AwsError> {
        self.record_in("health", role, NO_ARGUMENTS);
        self.live.read_targets(role, group).await
    }

    async fn checkpoint_is_trusted(&self, role: Option<&Role>, group: &TargetGroupArn) -> Result<bool, AwsError> {
        self.live.checkpoint_is_trusted(role, group).await
    }

    fn invalidate_targets(&self, role: Option<&Role>, group: &TargetGroupArn) {
        self.record_in("forget", role, NO_ARGUMENTS);
        self.live.invalidate_targets(role, group);
    }

    async fn target_group(
        &self,
        role: Option<&Role>,
        key: &TargetGroupKey,
    ) -> Result<Option<TargetGroupFacts>, AwsError> {
        self.record_in("group", role, [format!("{key:?}")]);
        self.live.target_group(role, key).await
    }

    async fn register(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
        registrations: &[Registration],
    ) -> Result<(), AwsError> {
        self.record_in("register", role, registrations);
        self.live.register(role, group, registrations).await
    }

    async fn deregister(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
        targets: &[Registration],
    ) -> Result<(), AwsError> {
        self.record_in("deregister", role, targets);
        self.live.deregister(role, group, targets).await
    }

    async fn tags(&self, group: &TargetGroupArn) -> Result<Option<Tags>, AwsError> {
        self.live.tags(group).await
    }

    fn vpc(&self) -> VpcId {
        self.live.vpc()
    }

    async fn vpc_blocks(&self, vpc: &VpcId) -> Result<Option<VpcBlocks>, AwsError> {
        // Not recorded, since the blocks are read rarely and independently of other calls.
        self.live.vpc_blocks(vpc).await
    }

    async fn instances(&self, ids: &[String]) -> Result<Vec<InstanceInfo>, AwsError> {
        self.record("instances", ids);
        self.live.instances(ids).await
    }

    async fn interfaces_by_address(&self, addresses: &[String]) -> Result<Vec<InterfaceInfo>, AwsError> {
        self.record("interfaces", addresses);
        self.live.interfaces_by_address(addresses).await
    }

    async fn security_groups(&self, ids: &[SecurityGroupId]) -> Result<Vec<ObservedSecurityGroup>, AwsError> {
        self.record("groups", ids);
        self.live.security_groups(ids).await
    }

    async fn cluster_security_groups(&self) -> Result<Vec<ObservedSecurityGroup>, AwsError> {
        self.record("sweep", NO_ARGUMENTS);
        self.live.cluster_security_groups().await
    }

    async fn authorize(&self, id: &SecurityGroupId, rules: &[SecurityGroupRule]) -> Result<(), AwsError> {
        self.record_rules("authorize", id, rules);
        self.live.authorize(id, rules).await
    }

    async fn revoke(&self, id: &SecurityGroupId, rules: &[SecurityGroupRule]) -> Result<(), AwsError> {
        self.record_rules("revoke", id, rules);
        self.live.revoke(id, rules).await
    }
}

#[derive(Clone, Default)]
pub(super) struct FakeCluster {
    pub snapshot: Arc<RwLock<Snapshot>>,
    /// The Services that the API server has and the watches do not show.
    pub services: Arc<Mutex<Vec<Service>>>,
    /// The EndpointSlices that the API server has and the watches do not show.
    pub slices: Arc<Mutex<Vec<EndpointSlice>>>,
    /// The pods that the API server has and the watches do not show, with their UIDs.
    pub pods: Arc<Mutex<BTreeMap<ObjectName, String>>>,
    /// Two flags: true if the API server has nodes, and true if it has bindings, that the watches do not show.
    pub others: Arc<Mutex<(bool, bool)>>,
    /// True if the watches show no writes.
    pub behind: bool,
    /// The number of following writes of a status, checkpoint or record that take effect without an answer.
    pub unanswered: Arc<Mutex<usize>>,
    /// The pods whose status cannot be written.
    pub unwritable: Arc<Mutex<BTreeSet<ObjectName>>>,
    /// True if no record can be written or created, as in a namespace that is being deleted.
    pub terminating: Arc<AtomicBool>,
    /// The records of bindings whose groups are shared.
    pub records: Arc<Mutex<BTreeMap<ObjectName, String>>>,
    log: Log,
}

impl FakeCluster {
    fn change(&self, name: &ObjectName, change: impl FnOnce(&mut TargetGroupBinding)) {
        if let Some(binding) =
            self.snapshot.write().unwrap().target_group_bindings.get_mut(name).filter(|_| !self.behind)
        {
            change(binding);
        }
    }

    fn answer(&self) -> Result<(), ClusterError> {
        let mut unanswered = self.unanswered.lock().unwrap();
        let lost = unanswered.checked_sub(1).map(|left| *unanswered = left);
        lost.map_or(Ok(()), |()| Err(ClusterError::Refused("no answer".to_owned())))
    }
}

impl Cluster for FakeCluster {
    async fn set_finalizer(&self, binding: &TargetGroupBinding, present: bool) -> Result<(), ClusterError> {
        self.log.lock().unwrap().push(format!("finalizer {}", if present { "on" } else { "off" }));
        self.change(&binding.name, |binding| {
            binding.finalizers = if present { vec![BINDING_FINALIZER.to_owned()] } else { vec![] };
        });
        Ok(())
    }

    async fn write_checkpoint(
        &self,
        binding: &TargetGroupBinding,
        checkpoint: Option<&str>,
    ) -> Result<(), ClusterError> {
        // Only a removal is recorded: it precedes changes of the targets that the checkpoint does not cover any more.
        if checkpoint.is_none() {
            self.log.lock().unwrap().push("checkpoint off".to_owned());
        }
        self.change(&binding.name, |binding| {
            binding.checkpoint = checkpoint.map(str::to_owned);
            binding.foreign_checkpoint &= checkpoint.is_some();
        });
        self.answer()
    }

    async fn write_target_type(
        &self,
        binding: &TargetGroupBinding,
        target_type: TargetType,
    ) -> Result<(), ClusterError> {
        self.log.lock().unwrap().push(format!("type {target_type:?}"));
        self.change(&binding.name, |binding| binding.spec.target_type = Some(target_type));
        Ok(())
    }

    async fn own_targets(&self, binding: &TargetGroupBinding) -> Result<Option<String>, ClusterError> {
        self.log.lock().unwrap().push("read record".to_owned());
        Ok(self.records.lock().unwrap().get(&binding.name).cloned())
    }

    async fn write_own_targets(&self, binding: &TargetGroupBinding, text: &str) -> Result<(), ClusterError> {
        if self.terminating.load(Ordering::Acquire) {
            self.log.lock().unwrap().push(format!("no record {text}"));
            return Err(ClusterError::Refused("the namespace is being terminated".to_owned()));
        }
        self.log.lock().unwrap().push(format!("record {text}"));
        self.records.lock().unwrap().insert(binding.name.clone(), text.to_owned());
        self.answer()
    }

    async fn delete_own_targets(&self, binding: &ObjectName) -> Result<(), ClusterError> {
        self.log.lock().unwrap().push("record off".to_owned());
        let was_there = self.records.lock().unwrap().remove(binding).is_some();
        if was_there { self.answer() } else { Err(ClusterError::Gone) }
    }

    async fn write_status(
        &self,
        binding: &TargetGroupBinding,
        status: &TargetGroupBindingStatus,
    ) -> Result<(), ClusterError> {
        let condition = status.conditions.iter().flatten().next().unwrap();
        let observed = status.observed_generation.map_or("-".to_owned(), |generation| generation.to_string());
        let line = format!("status {observed} {} {}: {}", condition.status, condition.reason, condition.message);
        self.log.lock().unwrap().push(line);
        self.change(&binding.name, |binding| binding.status = Some(status.clone()));
        self.answer()
    }

    async fn write_condition(&self, change: &Change, now: Timestamp) -> Result<(), ClusterError> {
        let GateState { status, reason, message, .. } = &change.state;
        let line = format!("condition {} {status:?} {reason} {message}", change.pod);
        self.log.lock().unwrap().push(line.trim_end().to_owned());
        if self.unwritable.lock().unwrap().contains(&change.pod) {
            return Err(ClusterError::Refused("no".to_owned()));
        }
        if let Some(pod) = self.snapshot.write().unwrap().pods.get_mut(&change.pod).filter(|_| !self.behind) {
            for gate in pod.gates.iter_mut().filter(|gate| gate.condition == change.condition) {
                gate.state = Some(GateState { since: Some(now), ..change.state.clone() });
            }
        }
        Ok(())
    }

    async fn service(&self, name: &ObjectName) -> Result<Option<Service>, ClusterError> {
        self.log.lock().unwrap().push(format!("read Service {name}"));
        Ok(self.services.lock().unwrap().iter().find(|service| service.name == *name).cloned())
    }

    async fn endpoint_slices(&self, service: &ObjectName) -> Result<Vec<EndpointSlice>, ClusterError> {
        self.log.lock().unwrap().push(format!("read EndpointSlices of {service}"));
        let of_service = |slice: &&EndpointSlice| slice.service == service.name;
        Ok(self.slices.lock().unwrap().iter().filter(of_service).cloned().collect())
    }

    async fn has_pod(&self, namespace: &str, pod: &PodReference) -> Result<bool, ClusterError> {
        let name = ObjectName::new(namespace, &pod.name);
        self.log.lock().unwrap().push(format!("read Pod {name}"));
        Ok(self.pods.lock().unwrap().get(&name).is_some_and(|uid| pod.means(uid)))
    }

    async fn has_nodes(&self) -> Result<bool, ClusterError> {
        self.log.lock().unwrap().push("read a Node".to_owned());
        Ok(self.others.lock().unwrap().0)
    }

    async fn has_bindings(&self) -> Result<bool, ClusterError> {
        self.log.lock().unwrap().push("read a TargetGroupBinding".to_owned());
        Ok(self.others.lock().unwrap().1)
    }
}

/// The simulated AWS and the fake API server, with the tested [`Targets`] between them.
pub(super) struct Lab {
    pub aws: SimulatedAws,
    pub cloud: Arc<RecordingCloud>,
    pub cluster: FakeCluster,
    pub targets: Targets<Arc<RecordingCloud>, FakeCluster>,
    log: Log,
    leads: Arc<AtomicBool>,
}

/// Returns the permit of a term that lasts as long as `leads` is true.
fn permit(leads: &Arc<AtomicBool>) -> WritePermit {
    let leads = Arc::clone(leads);
    albatross_aws::testing::permit(move || leads.load(Ordering::Acquire).then_some(Duration::MAX))
}

impl Lab {
    pub(super) fn new() -> Self {
        Self::behind(false)
    }

    pub(super) fn behind(behind: bool) -> Self {
        let log = Log::default();
        let aws = SimulatedAws::new(1);
        aws.answer_at_once();
        aws.put_vpc("vpc-1", &["10.0.0.0/8"]);
        aws.set_instances(vec![instance("n1", vec![])]);
        aws.put_target_group(group("cart", "ip"));
        let leads = Arc::new(AtomicBool::new(true));
        let cloud = Arc::new(RecordingCloud::new(&aws, permit(&leads), log.clone()));
        let cluster = FakeCluster { log: log.clone(), behind, ..FakeCluster::default() };
        let settings = Settings {
            cluster: "demo".into(),
            restricted_rules: true,
            endpoint_group_tags: Tags::new(),
            max_targets: None,
            gate_pause: super::GATE_PAUSE,
            silent_nodes: SilentNodes::InNeed,
            propagation: Duration::ZERO,
        };
        let targets = Targets::with(cloud.clone(), cluster.clone(), permit(&leads), cluster.snapshot.clone(), settings);
        Self { aws, cloud, cluster, targets, log, leads }
    }

    /// Starts a new process in the same world, without memory.
    pub(super) fn restart(&mut self) {
        let settings = self.targets.settings.clone();
        self.cloud = Arc::new(RecordingCloud::new(&self.aws, permit(&self.leads), self.log.clone()));
        let (cloud, cluster, permit) = (self.cloud.clone(), self.cluster.clone(), permit(&self.leads));
        let snapshot = cluster.snapshot.clone();
        self.targets = Targets::with(cloud, cluster, permit, snapshot, settings);
    }

    /// Ends the term of the lease.
    pub(super) fn lose_lease(&self) {
        self.leads.store(false, Ordering::Release);
    }

    /// Makes AWS refuse the next call of an operation.
    pub(super) fn refuse(&self, operation: &'static str, code: &str) {
        self.aws.refuse(operation, 0, 1, code, "words");
    }

    /// Makes AWS throttle a registration, after `after` calls, until the client stops retrying.
    pub(super) fn throttle(&self, after: usize) {
        self.aws.refuse("RegisterTargets", after, albatross_aws::testing::TRIES, "Throttling", "words");
    }

    /// Returns the targets that are registered in [`ARN`].
    pub(super) fn registered(&self) -> Vec<String> {
        self.aws.registrations(ARN).iter().map(ToString::to_string).collect()
    }

    /// Invalidates the cached targets of [`ARN`].
    pub(super) fn invalidate(&self) {
        self.cloud.live.invalidate_targets(None, &TargetGroupArn::new(ARN));
    }

    /// Returns the calls since the last call of this function.
    pub(super) fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.cluster.snapshot.write().unwrap());
    }

    /// Creates a Service `shop/cart` with port 80 and a ready pod at each of the addresses, on the node `n1`.
    pub(super) fn serve(&self, addresses: &[&str]) {
        self.change(|snapshot| {
            snapshot.apply(service("cart"));
            snapshot.apply(node("n1"));
            for address in addresses {
                snapshot.apply(pod(address));
            }
            snapshot.apply(slice("cart", addresses));
        });
    }
}

pub(super) fn service(called: &str) -> Service {
    Service {
        kind: "NodePort".into(),
        ports: vec![ServicePort {
            name: "http".into(),
            port: 80,
            target_port: PortReference::Number(8080),
            node_port: Some(30_080),
            protocol: "TCP".into(),
        }],
        ..albatross_core::testing::bare_service(name(called))
    }
}

pub(super) fn slice(service: &str, addresses: &[&str]) -> EndpointSlice {
    let endpoint = |address: &&str| EndpointAddress {
        address: (*address).to_owned(),
        ready: Some(true),
        terminating: false,
        pod: Some(PodReference { name: (*address).to_owned(), uid: Some(format!("uid-{address}")) }),
    };
    EndpointSlice {
        name: name(&format!("{service}-1")),
        service: service.to_owned(),
        family: AddressFamily::Ipv4,
        ports: vec![EndpointSlicePort { name: "http".into(), number: 8080 }],
        endpoints: addresses.iter().map(endpoint).collect(),
    }
}

/// Returns a binding of `shop/cart` to [`ARN`], without networking.
pub(super) fn binding(called: &str, target_type: Option<TargetType>) -> TargetGroupBinding {
    let spec = TargetGroupBindingSpec {
        target_group_arn: Some(ARN.into()),
        target_type,
        ip_address_type: Some(IpAddressType::Ipv4),
        service_ref: ServiceReference { name: "cart".into(), port: IntOrString::Int(80) },
        ..TargetGroupBindingSpec::default()
    };
    TargetGroupBinding {
        uid: format!("uid-{called}"),
        resource_version: "1".into(),
        created: "2026-01-01T00:00:00Z".into(),
        spec,
        ..albatross_core::testing::bare_binding(name(called))
    }
}

pub(super) fn interface(index: i32, addresses: &[&str], prefixes: &[&str], groups: &[&str]) -> InterfaceInfo {
    InterfaceInfo {
        id: format!("eni-{index}"),
        device_index: Some(index),
        addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        ipv4_prefixes: prefixes.iter().map(|p| (*p).to_owned()).collect(),
        ipv6_prefixes: vec![],
        security_groups: groups.iter().map(|g| SecurityGroupId::new(*g)).collect(),
    }
}

pub(super) fn instance(node: &str, interfaces: Vec<InterfaceInfo>) -> InstanceInfo {
    InstanceInfo { id: format!("i-{node}"), interfaces }
}

pub(super) fn security_group(id: &str, tags: &[(&str, &str)], ingress: &[SecurityGroupRule]) -> ObservedSecurityGroup {
    ObservedSecurityGroup {
        id: SecurityGroupId::new(id),
        name: id.to_owned(),
        tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ingress: ingress.iter().cloned().collect(),
    }
}
