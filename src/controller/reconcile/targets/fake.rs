//! An AWS and an API server of the tests' own, which record their calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;

use super::{Cloud, Cluster, ClusterError, Settings, TargetGroupFacts, TargetGroupKey, Targets};
use albatross_aws::{AwsError, AwsErrorKind, WritePermit};
use albatross_core::targets::readiness::Change;
pub(super) use albatross_core::testing::{health, name, pod};
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
        AddressFamily, EndpointAddress, EndpointSlice, EndpointSlicePort, GateState, Node, Readiness, Service,
        ServicePort, Snapshot, TargetGroupBinding,
    },
};

/// The VPC of the cluster.
pub(super) const VPC: &str = "vpc-1";
pub(super) const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1";

/// Returns the facts of a target group of this type, with the ARN [`ARN`].
pub(super) fn facts(target_type: &str) -> TargetGroupFacts {
    TargetGroupFacts {
        arn: TargetGroupArn::new(ARN),
        target_type: target_type.to_owned(),
        ip_address_type: IpAddressType::Ipv4,
        vpc: None,
    }
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

#[derive(Default)]
pub(super) struct World {
    pub targets: BTreeMap<TargetGroupArn, BTreeMap<Target, TargetHealth>>,
    pub groups: Vec<(String, TargetGroupFacts)>,
    pub instances: Vec<InstanceInfo>,
    pub interfaces: Vec<InterfaceInfo>,
    pub security_groups: BTreeMap<SecurityGroupId, ObservedSecurityGroup>,
    /// Targets that AWS does not take.
    pub bad_targets: BTreeSet<String>,
    /// The number of registering calls before the failures are answered.
    pub after: usize,
    /// The answers to the next calls of a name.
    pub failures: Vec<(&'static str, AwsError)>,
    /// True if AWS's message names the targets that it refuses.
    pub names_bad_targets: bool,
    /// Groups that rules from which are refused.
    pub bad_sources: BTreeSet<String>,
    /// True if a binding's checkpoint is trusted.
    pub takes_word: bool,
    /// The address blocks of VPCs other than the cluster's, which has 10.0.0.0/8; by id.
    pub vpcs: BTreeMap<String, Vec<String>>,
    /// The number of times that the CIDR blocks of a VPC were read.
    pub vpcs_read: usize,
    /// The VPCs of groups that are not in the cluster's.
    pub elsewhere: BTreeMap<TargetGroupArn, String>,
    /// An address of the VPC for which AWS requires a zone all the same, as in a Local Zone.
    pub wants_zone: BTreeSet<String>,
    /// The tags of groups.
    pub tags: BTreeMap<TargetGroupArn, Tags>,
}

impl World {
    fn blocks(&self, vpc: &str) -> Option<Vec<String>> {
        if vpc == VPC { Some(vec!["10.0.0.0/8".to_owned()]) } else { self.vpcs.get(vpc).cloned() }
    }

    /// Refuses an address outside of the group's VPC without a zone, and one inside with `all`, as AWS does.
    fn check_zones(&self, group: &TargetGroupArn, registrations: &[Registration]) -> Result<(), AwsError> {
        let vpc = self.elsewhere.get(group).map_or(VPC, String::as_str);
        let blocks: Vec<IpNet> = self.blocks(vpc).into_iter().flatten().map(|block| block.parse().unwrap()).collect();
        for Registration { target, zone } in registrations {
            let Ok(address) = target.id.parse::<IpAddr>() else { continue };
            let inside = blocks.iter().any(|block| block.contains(&address));
            let message = match zone.as_deref() {
                None if !inside => {
                    format!("The Availability Zone is required for IP address '{address}' because it is not in the VPC")
                }
                None if self.wants_zone.contains(&target.id) => {
                    format!("For '{address}' you must specify an Availability Zone")
                }
                Some("all") if inside => format!(
                    "The IP address '{address}' is within the VPC, and cannot have its Availability Zone overridden to 'all'"
                ),
                _ => continue,
            };
            let kind = AwsErrorKind::Refused { code: "ValidationError".to_owned(), message };
            return Err(AwsError { operation: "RegisterTargets", kind });
        }
        Ok(())
    }
}

#[derive(Clone, Default)]
pub(super) struct FakeCloud {
    pub world: Arc<Mutex<World>>,
    log: Log,
}

impl FakeCloud {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn call(&self, name: &'static str, what: impl IntoIterator<Item = impl ToString>) -> Result<(), AwsError> {
        let what: Vec<String> = what.into_iter().map(|w| w.to_string()).collect();
        self.log.lock().unwrap().push(format!("{name} {}", what.join(" ")).trim_end().to_owned());
        let mut world = self.world();
        if name == "register" && world.after > 0 {
            world.after -= 1;
            return Ok(());
        }
        match world.failures.iter().position(|(call, _)| *call == name) {
            Some(at) => Err(world.failures.remove(at).1),
            None => Ok(()),
        }
    }
}

impl Cloud for FakeCloud {
    async fn targets(&self, group: &TargetGroupArn) -> Result<BTreeMap<Target, TargetHealth>, AwsError> {
        // Not written down: the inventory knows them.
        let known = self.world().targets.get(group).cloned();
        known.ok_or_else(|| not_found("DescribeTargetHealth", "TargetGroupNotFound"))
    }

    async fn read_targets(&self, group: &TargetGroupArn) -> Result<BTreeMap<Target, TargetHealth>, AwsError> {
        self.call("health", [""])?;
        self.targets(group).await
    }

    async fn checkpoint_is_trusted(&self, group: &TargetGroupArn) -> Result<bool, AwsError> {
        Ok(self.world().takes_word && self.world().targets.contains_key(group))
    }

    fn invalidate_targets(&self, _: &TargetGroupArn) {
        self.log.lock().unwrap().push("forget".to_owned());
    }

    async fn target_group(&self, key: &TargetGroupKey) -> Result<Option<TargetGroupFacts>, AwsError> {
        self.call("group", [format!("{key:?}")])?;
        let world = self.world();
        let found = world.groups.iter().find(|(name, facts)| match key {
            TargetGroupKey::Arn(arn) => facts.arn == *arn,
            TargetGroupKey::Name(wanted) => name == wanted,
        });
        Ok(found.map(|(_, facts)| facts.clone()))
    }

    async fn register(&self, group: &TargetGroupArn, registrations: &[Registration]) -> Result<(), AwsError> {
        self.call("register", registrations)?;
        let mut world = self.world();
        world.check_zones(group, registrations)?;
        let targets: Vec<Target> = registrations.iter().map(|registration| registration.target.clone()).collect();
        if targets.iter().any(|target| world.bad_targets.contains(&target.id)) {
            let bad: Vec<String> =
                targets.iter().filter(|t| world.bad_targets.contains(&t.id)).map(|t| format!("'{}'", t.id)).collect();
            let mut error = refused("RegisterTargets", "InvalidTarget");
            if let (AwsErrorKind::Refused { message, .. }, true) = (&mut error.kind, world.names_bad_targets) {
                *message = format!("The following targets are not in a running state: {}", bad.join(", "));
            }
            return Err(error);
        }
        let known = world.targets.get_mut(group).ok_or_else(|| not_found("RegisterTargets", "TargetGroupNotFound"))?;
        known.extend(registrations.iter().map(|registration| {
            let zone = registration.zone.clone();
            (registration.target.clone(), TargetHealth { zone, ..health("initial") })
        }));
        Ok(())
    }

    async fn deregister(&self, group: &TargetGroupArn, targets: &[Registration]) -> Result<(), AwsError> {
        self.call("deregister", targets)?;
        let unzoned = |registration: &&Registration| {
            let world = self.world();
            let known = world.targets.get(group).and_then(|known| known.get(&registration.target));
            registration.zone.is_none() && known.is_some_and(|health| health.zone.is_some())
        };
        // As with registering, AWS requires the zone.
        if targets.iter().any(|registration| unzoned(&registration)) {
            return Err(refused("DeregisterTargets", "ValidationError"));
        }
        if let Some(known) = self.world().targets.get_mut(group) {
            known.retain(|target, _| !targets.iter().any(|registration| registration.target == *target));
        }
        Ok(())
    }

    async fn tags(&self, group: &TargetGroupArn) -> Result<Option<Tags>, AwsError> {
        Ok(self.world().tags.get(group).cloned())
    }

    fn vpc(&self) -> VpcId {
        VpcId::new(VPC)
    }

    async fn vpc_blocks(&self, vpc: &VpcId) -> Result<Option<VpcBlocks>, AwsError> {
        // Not written down: it is read once in a while, whatever else is asked.
        self.world().vpcs_read += 1;
        let world = self.world();
        Ok(world.blocks(vpc.as_str()).map(|ipv4| VpcBlocks { ipv4, ipv6: vec![] }))
    }

    async fn instances(&self, ids: &[String]) -> Result<Vec<InstanceInfo>, AwsError> {
        self.call("instances", ids)?;
        Ok(self.world().instances.iter().filter(|i| ids.contains(&i.id)).cloned().collect())
    }

    async fn interfaces_by_address(&self, addresses: &[String]) -> Result<Vec<InterfaceInfo>, AwsError> {
        self.call("interfaces", addresses)?;
        let has = |i: &&InterfaceInfo| addresses.iter().any(|address| i.addresses.contains(address));
        Ok(self.world().interfaces.iter().filter(has).cloned().collect())
    }

    async fn security_groups(&self, ids: &[SecurityGroupId]) -> Result<Vec<ObservedSecurityGroup>, AwsError> {
        self.call("groups", ids)?;
        Ok(ids.iter().filter_map(|id| self.world().security_groups.get(id).cloned()).collect())
    }

    async fn cluster_security_groups(&self) -> Result<Vec<ObservedSecurityGroup>, AwsError> {
        self.call("sweep", [""])?;
        let tagged = |g: &&ObservedSecurityGroup| g.tags.contains_key("kubernetes.io/cluster/demo");
        Ok(self.world().security_groups.values().filter(tagged).cloned().collect())
    }

    async fn authorize(&self, id: &SecurityGroupId, rules: &[SecurityGroupRule]) -> Result<(), AwsError> {
        self.call("authorize", std::iter::once(id.to_string()).chain(rules.iter().map(|r| format!("[{r}]"))))?;
        let mut world = self.world();
        if rules.iter().any(|rule| world.bad_sources.contains(&rule.source.to_string())) {
            return Err(not_found("AuthorizeSecurityGroupIngress", "InvalidGroup.NotFound"));
        }
        if let Some(group) = world.security_groups.get_mut(id) {
            group.ingress.extend(rules.iter().cloned());
        }
        Ok(())
    }

    async fn revoke(&self, id: &SecurityGroupId, rules: &[SecurityGroupRule]) -> Result<(), AwsError> {
        self.call("revoke", std::iter::once(id.to_string()).chain(rules.iter().map(|r| format!("[{r}]"))))?;
        if let Some(group) = self.world().security_groups.get_mut(id) {
            group.ingress.retain(|rule| !rules.contains(rule));
        }
        Ok(())
    }
}

#[derive(Clone, Default)]
pub(super) struct FakeCluster {
    pub snapshot: Arc<RwLock<Snapshot>>,
    /// The Services that the API server has, and the watches have not.
    pub services: Arc<Mutex<Vec<Service>>>,
    /// The same.
    pub slices: Arc<Mutex<Vec<EndpointSlice>>>,
    /// The same: names of pods.
    pub pods: Arc<Mutex<BTreeSet<ObjectName>>>,
    /// The same: whether there are nodes, and whether there are bindings.
    pub others: Arc<Mutex<(bool, bool)>>,
    /// True if the watches show no writes.
    pub behind: bool,
    /// The number of next writes of a status or checkpoint that take effect and are not answered.
    pub unanswered: Arc<Mutex<usize>>,
    /// Pods whose status cannot be written.
    pub unwritable: Arc<Mutex<BTreeSet<ObjectName>>>,
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
        // Only its removal is among the calls: it comes before the targets that it no longer covers.
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

    async fn has_pod(&self, name: &ObjectName) -> Result<bool, ClusterError> {
        self.log.lock().unwrap().push(format!("read Pod {name}"));
        Ok(self.pods.lock().unwrap().contains(name))
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

/// Both, with the room between them.
pub(super) struct Lab {
    pub cloud: FakeCloud,
    pub cluster: FakeCluster,
    pub targets: Targets<FakeCloud, FakeCluster>,
    log: Log,
    leads: Arc<AtomicBool>,
}

/// Returns the permit of a term that goes on as long as `leads` says so.
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
        let cloud = FakeCloud { log: log.clone(), ..FakeCloud::default() };
        let cluster = FakeCluster { log: log.clone(), behind, ..FakeCluster::default() };
        cloud.world().targets.insert(TargetGroupArn::new(ARN), BTreeMap::new());
        let settings = Settings {
            cluster: "demo".into(),
            restricted_rules: true,
            endpoint_group_tags: Tags::new(),
            max_targets: None,
            gate_pause: super::GATE_PAUSE,
        };
        let leads = Arc::new(AtomicBool::new(true));
        let targets = Targets::with(cloud.clone(), cluster.clone(), permit(&leads), cluster.snapshot.clone(), settings);
        Self { cloud, cluster, targets, log, leads }
    }

    /// The same world before a process that knows nothing.
    pub(super) fn restart(&mut self) {
        let settings = self.targets.settings.clone();
        let (cloud, cluster, permit) = (self.cloud.clone(), self.cluster.clone(), permit(&self.leads));
        let snapshot = cluster.snapshot.clone();
        self.targets = Targets::with(cloud, cluster, permit, snapshot, settings);
    }

    /// Ends the term of the lease.
    pub(super) fn lose_lease(&self) {
        self.leads.store(false, Ordering::Release);
    }

    /// Returns the calls since the last time.
    pub(super) fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.cluster.snapshot.write().unwrap());
    }

    /// A Service `shop/cart`, port 80, with a ready pod at each of the addresses, on the node `n1`.
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

pub(super) fn node(called: &str) -> Node {
    Node {
        name: ObjectName::new("", called),
        provider_id: format!("aws:///us-west-2a/i-{called}"),
        labels: BTreeMap::new(),
        taints: vec![],
        ready: Readiness::Ready,
    }
}

pub(super) fn slice(service: &str, addresses: &[&str]) -> EndpointSlice {
    let endpoint = |address: &&str| EndpointAddress {
        address: (*address).to_owned(),
        ready: Some(true),
        terminating: false,
        pod: Some((*address).to_owned()),
    };
    EndpointSlice {
        name: name(&format!("{service}-1")),
        service: service.to_owned(),
        family: AddressFamily::Ipv4,
        ports: vec![EndpointSlicePort { name: "http".into(), number: 8080 }],
        endpoints: addresses.iter().map(endpoint).collect(),
    }
}

/// A binding of `shop/cart` to [`ARN`], without networking.
pub(super) fn binding(called: &str, target_type: Option<TargetType>) -> TargetGroupBinding {
    TargetGroupBinding {
        name: name(called),
        uid: format!("uid-{called}"),
        generation: 1,
        resource_version: "1".into(),
        created: "2026-01-01T00:00:00Z".into(),
        labels: BTreeMap::new(),
        finalizers: vec![],
        deleting: false,
        checkpoint: None,
        foreign_checkpoint: false,
        spec: TargetGroupBindingSpec {
            target_group_arn: Some(ARN.into()),
            target_type,
            ip_address_type: Some(albatross_core::api::crd::target_group_binding::IpAddressType::Ipv4),
            service_ref: ServiceReference {
                name: "cart".into(),
                port: k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(80),
            },
            ..TargetGroupBindingSpec::default()
        },
        status: None,
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
