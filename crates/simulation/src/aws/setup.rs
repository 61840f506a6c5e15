//! The setup of an account by tests, without calls: resources, and plans for following calls.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{
    Planned, SimulatedAws,
    account::{Check, SecurityGroup, TargetGroup, VPC},
    attributes,
    network::Instance,
    wire::refusal,
};
use albatross_core::model::{
    InstanceInfo, InterfaceInfo, ObservedSecurityGroup, Registration, Tags, Target, TargetGroupArn,
};

/// A target group that a test creates.
#[derive(Clone, Debug)]
pub struct GivenTargetGroup {
    pub arn: TargetGroupArn,
    pub name: String,
    /// The target type: `ip`, `instance`, `lambda` or `alb`.
    pub target_type: String,
    pub vpc: String,
    pub tags: Tags,
}

impl GivenTargetGroup {
    /// Returns a target group in the cluster's VPC, without tags.
    pub fn new(arn: &str, name: &str, target_type: &str) -> Self {
        Self {
            arn: TargetGroupArn::new(arn),
            name: name.to_owned(),
            target_type: target_type.to_owned(),
            vpc: VPC.to_owned(),
            tags: Tags::new(),
        }
    }
}

fn key(target: &Target) -> (String, u16) {
    (target.id.clone(), target.port)
}

impl SimulatedAws {
    /// Makes all following calls take no time.
    pub fn answer_at_once(&self) {
        self.inner().at_once = true;
    }

    /// Refuses `times` calls of an operation, after the first `after` of them.
    pub fn refuse(&self, operation: &'static str, after: usize, times: usize, code: &str, message: &str) {
        let refusal = refusal(code, message);
        self.inner().planned.push(Planned { operation, after, times, refusal });
    }

    /// Refuses registrations of these targets, and only of these. `names_them` decides if the message names them.
    pub fn refuse_targets<'a>(&self, ids: impl IntoIterator<Item = &'a str>, names_them: bool) {
        let account = &mut self.inner().account;
        account.refused_targets = ids.into_iter().map(str::to_owned).collect();
        account.names_refused_targets = names_them;
    }

    /// Sets the CIDR blocks of a VPC. The cluster's VPC is `vpc-1`.
    pub fn put_vpc(&self, id: &str, blocks: &[&str]) {
        let blocks = blocks.iter().map(|block| (*block).to_owned()).collect();
        self.inner().account.network.vpcs.insert(id.to_owned(), blocks);
    }

    /// Makes AWS require a zone for an address of the VPC, as in a Local Zone.
    pub fn put_into_local_zone(&self, address: &str) {
        self.inner().account.network.local_zones.insert(address.to_owned());
    }

    /// Creates a target group, or changes its settings; its targets stay.
    pub fn put_target_group(&self, given: GivenTargetGroup) {
        let groups = &mut self.inner().account.target_groups;
        let arn = given.arn.to_string();
        let group = groups.entry(arn.clone()).or_insert_with(|| TargetGroup {
            arn,
            name: String::new(),
            vpc: String::new(),
            ip_address_type: "ipv4".to_owned(),
            target_type: String::new(),
            protocol: "HTTP".to_owned(),
            protocol_version: Some("HTTP1".to_owned()),
            port: 80,
            check: Check::of_http(),
            attributes: attributes::of_target_group("HTTP", "ip"),
            tags: Tags::new(),
            targets: BTreeMap::new(),
            zones: BTreeMap::new(),
            server_ids: BTreeMap::new(),
            healths: BTreeMap::new(),
            draining: BTreeMap::new(),
            used_since: None,
            made: Instant::now(),
        });
        (group.name, group.target_type) = (given.name, given.target_type);
        (group.vpc, group.tags) = (given.vpc, given.tags);
    }

    /// Sets the protocol of a target group.
    pub fn set_protocol(&self, arn: &str, protocol: &str) {
        if let Some(group) = self.inner().account.target_groups.get_mut(arn) {
            (group.protocol, group.protocol_version) = (protocol.to_owned(), None);
        }
    }

    /// Deletes a target group.
    pub fn remove_target_group(&self, arn: &str) {
        self.inner().account.target_groups.remove(arn);
    }

    /// Sets the registered targets of a group.
    pub fn put_targets(&self, arn: &str, registrations: &[Registration]) {
        let now = Instant::now();
        if let Some(group) = self.inner().account.target_groups.get_mut(arn) {
            group.targets = registrations.iter().map(|registration| (key(&registration.target), now)).collect();
            let zone = |registration: &Registration| Some((key(&registration.target), registration.zone.clone()?));
            group.zones = registrations.iter().filter_map(zone).collect();
            let server_id = |registration: &Registration| {
                Some((key(&registration.target), registration.quic_server_id?.to_string()))
            };
            group.server_ids = registrations.iter().filter_map(server_id).collect();
        }
    }

    /// Sets the health of a target, without a reason.
    pub fn set_health(&self, arn: &str, target: &Target, state: &str) {
        if let Some(group) = self.inner().account.target_groups.get_mut(arn) {
            group.healths.insert(key(target), state.to_owned());
        }
    }

    /// Returns the registered targets of a group, each with the zone and the QUIC server id that it was registered with.
    pub fn registrations(&self, arn: &str) -> Vec<Registration> {
        let account = &self.inner().account;
        let group = account.target_groups.get(arn);
        let registration = |group: &TargetGroup, (id, port): &(String, u16)| Registration {
            target: Target { id: id.clone(), port: *port },
            zone: group.zones.get(&(id.clone(), *port)).cloned(),
            quic_server_id: group.server_ids.get(&(id.clone(), *port)).and_then(|id| id.parse().ok()),
        };
        group.into_iter().flat_map(|group| group.targets.keys().map(move |t| registration(group, t))).collect()
    }

    /// Sets the instances of the VPC.
    pub fn set_instances(&self, instances: Vec<InstanceInfo>) {
        let instance = |info: InstanceInfo| {
            let primary = info.interfaces.first().and_then(|interface| interface.addresses.first());
            let address = primary.cloned().unwrap_or_default();
            (info.id, Instance { address, interfaces: info.interfaces })
        };
        self.inner().account.network.instances = instances.into_iter().map(instance).collect();
    }

    /// Sets the network interfaces without an instance.
    pub fn set_interfaces(&self, interfaces: Vec<InterfaceInfo>) {
        self.inner().account.network.interfaces = interfaces;
    }

    /// Creates a security group, or changes its rules and tags.
    pub fn put_security_group(&self, group: ObservedSecurityGroup) {
        let group = SecurityGroup {
            id: group.id.to_string(),
            description: group.name.clone(),
            name: group.name,
            ingress: group.ingress.into_iter().collect::<BTreeSet<_>>(),
            tags: group.tags,
            made: Instant::now(),
        };
        self.inner().account.security_groups.insert(group.id.clone(), group);
    }
}
