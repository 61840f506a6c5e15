//! Other users of the account: their own resources, and their changes to the controller's.

use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{
    account::{ACCOUNT, Account, Balancer, Check, Listener, REGION, SecurityGroup, TargetGroup, VPC},
    attributes,
    listeners::is_quic,
};
use albatross_core::model::{
    Action, DELETION_PROTECTION, SecurityGroupRule, Source, Tags,
    names::NODE_RULE_DESCRIPTION,
    tags::{CLUSTER, TRACKING},
};

type Edit = Box<dyn FnOnce(&mut Account)>;

fn others() -> Tags {
    Tags::from([("team".to_owned(), "others".to_owned())])
}

impl Account {
    /// Creates load balancers of other owners, each with a listener, and target groups; the first target groups are in
    /// use.
    pub(super) fn add_foreign(&mut self, load_balancers: usize, target_groups: usize) -> Vec<String> {
        let now = Instant::now();
        let groups: Vec<_> =
            (0..target_groups).map(|_| self.add_foreign_target_group("others", ACCOUNT, now)).collect();
        let security_group = format!("sg-{}", self.id());
        if load_balancers > 0 && !self.security_groups.values().any(|group| group.name == "others") {
            let group = SecurityGroup {
                id: security_group.clone(),
                name: "others".to_owned(),
                description: "Other people's".to_owned(),
                ingress: BTreeSet::new(),
                tags: others(),
                made: now,
            };
            self.security_groups.insert(security_group.clone(), group);
        }
        for number in 0..load_balancers {
            let (name, id) = (format!("others-{}", self.balancers.len()), self.id());
            let arn = format!("arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:loadbalancer/app/{name}/{id}");
            let default_action = match groups.get(number) {
                Some(group) => Action::Forward {
                    target_groups: vec![albatross_core::model::WeightedTargetGroup {
                        group: group.clone(),
                        weight: Some(1),
                    }],
                    stickiness: None,
                },
                None => fixed("404"),
            };
            let listener = Listener {
                arn: format!("{}/{}", arn.replacen(":loadbalancer/", ":listener/", 1), self.id()),
                port: 80,
                protocol: "HTTP".to_owned(),
                default_action,
                default_certificate: None,
                certificates: BTreeSet::new(),
                ssl_policy: None,
                alpn_policy: None,
                attributes: attributes::of_listener("HTTP"),
                tags: others(),
                rules: BTreeMap::new(),
                made: now,
            };
            let group = self.security_groups.values().find(|group| group.name == "others");
            let balancer = Balancer {
                arn: arn.clone(),
                name,
                kind: "application".to_owned(),
                scheme: "internal".to_owned(),
                ip_address_type: "ipv4".to_owned(),
                source_nat: false,
                private_link_rules: true,
                capacity: 0,
                ipam_pool: None,
                customer_owned_pool: None,
                subnets: ["a", "b"]
                    .map(|letter| (format!("subnet-private-{letter}"), super::account::SubnetAddresses::default()))
                    .into(),
                security_groups: group.map(|group| group.id.clone()).into_iter().collect(),
                made_in_groups: true,
                attributes: attributes::of_load_balancer("application"),
                tags: others(),
                listeners: BTreeMap::from([(listener.arn.clone(), listener)]),
                web_acl: None,
                protection: None,
                made: now,
            };
            self.balancers.insert(arn, balancer);
        }
        groups
    }

    /// Enables or disables the deletion protection of a load balancer.
    pub(super) fn protect(&mut self, name: &str, on: bool) -> bool {
        let Some(balancer) = self.balancers.values_mut().find(|balancer| balancer.name == name) else { return false };
        balancer.attributes.insert(DELETION_PROTECTION.to_owned(), on.to_string());
        true
    }

    /// Creates a target group of another owner, in this account or another one.
    pub(super) fn add_foreign_target_group(&mut self, name: &str, account: &str, now: Instant) -> String {
        let (name, id) = (format!("{name}-{}", self.target_groups.len()), self.id());
        let group = TargetGroup {
            arn: format!("arn:aws:elasticloadbalancing:{REGION}:{account}:targetgroup/{name}/{id}"),
            name,
            vpc: VPC.to_owned(),
            ip_address_type: "ipv4".to_owned(),
            target_type: "ip".to_owned(),
            protocol: "HTTP".to_owned(),
            protocol_version: Some("HTTP1".to_owned()),
            port: 80,
            check: Check::of_http(),
            attributes: attributes::of_target_group("HTTP", "ip"),
            tags: others(),
            targets: BTreeMap::from([(("10.0.200.1".to_owned(), 80), now)]),
            zones: BTreeMap::new(),
            server_ids: BTreeMap::new(),
            healths: BTreeMap::new(),
            draining: BTreeMap::new(),
            used_since: None,
            made: now,
        };
        let arn = group.arn.clone();
        self.target_groups.insert(arn.clone(), group);
        arn
    }

    /// Changes a resource with a cluster's tag by hand. A controller that knows the desired state can undo every
    /// change, so the tags by which it finds resources stay.
    pub(super) fn tamper(&mut self, random: &mut Random) -> Option<String> {
        let mut edits = self.edits_of_balancers();
        edits.extend(self.edits_of_target_groups());
        edits.extend(self.edits_of_security_groups());
        // Sorted by description, so that ids do not matter. The kind is drawn first, so that the many rules do not
        // crowd out the rest.
        edits.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let kinds: BTreeSet<&str> = edits.iter().map(|(what, _)| kind(what)).collect();
        let kinds: Vec<String> = kinds.into_iter().map(str::to_owned).collect();
        let chosen = kinds.get(usize::try_from(random.below_u64(kinds.len().max(1) as u64)).ok()?)?;
        edits.retain(|(what, _)| kind(what) == chosen);
        let number = usize::try_from(random.below_u64(edits.len() as u64)).ok()?;
        let (what, edit) = edits.swap_remove(number);
        edit(self);
        Some(what)
    }

    fn edits_of_balancers(&self) -> Vec<(String, Edit)> {
        let mut edits: Vec<(String, Edit)> = Vec::new();
        for balancer in self.balancers.values().filter(|balancer| balancer.tags.contains_key(CLUSTER)) {
            let (name, arn) = (&balancer.name, balancer.arn.clone());
            let of_balancer = arn.clone();
            edits.push((
                format!("deletes load balancer: {name}"),
                Box::new(move |account| drop(account.balancers.remove(&of_balancer))),
            ));
            if balancer.web_acl.is_some() {
                let arn = arn.clone();
                edits.push((
                    format!("disassociates web ACL: of {name}"),
                    Box::new(move |account| {
                        if let Some(balancer) = account.balancers.get_mut(&arn) {
                            balancer.web_acl = None;
                        }
                    }),
                ));
            }
            if balancer.made_in_groups {
                let groups = BTreeSet::from([super::network::DEFAULT_GROUP.to_owned()]);
                edits.push((
                    format!("sets security groups: of {name} to the default one"),
                    Box::new(move |account| {
                        if let Some(balancer) = account.balancers.get_mut(&arn) {
                            balancer.security_groups = groups;
                        }
                    }),
                ));
            }
            for listener in balancer.listeners.values() {
                edits.extend(edits_of_listener(name, balancer, listener));
            }
        }
        edits
    }

    fn edits_of_target_groups(&self) -> Vec<(String, Edit)> {
        let mut edits: Vec<(String, Edit)> = Vec::new();
        for group in self.target_groups.values().filter(|group| group.tags.contains_key(CLUSTER)) {
            let name = &group.name;
            for target in group.targets.keys() {
                let (arn, gone) = (group.arn.clone(), target.clone());
                edits.push((
                    format!("deregisters target: {}:{} of {name}", target.0, target.1),
                    Box::new(move |account| {
                        account.target_groups.get_mut(&arn).map(|group| group.targets.remove(&gone));
                    }),
                ));
            }
            if group.target_type == "ip" {
                let arn = group.arn.clone();
                let target = ("10.0.250.250".to_owned(), 9);
                edits.push((
                    format!("registers target: 10.0.250.250:9 of {name}"),
                    Box::new(move |account| {
                        if let Some(group) = account.target_groups.get_mut(&arn) {
                            // AWS takes none of QUIC without a server id.
                            if is_quic(&group.protocol) {
                                group.server_ids.insert(target.clone(), "0x00000000fafafafa".to_owned());
                            }
                            group.targets.insert(target, Instant::now());
                        }
                    }),
                ));
            }
            let arn = group.arn.clone();
            edits.push((
                format!("modifies health check: of {name}"),
                Box::new(move |account| {
                    if let Some(group) = account.target_groups.get_mut(&arn) {
                        group.check.interval = if group.check.interval == 299 { 298 } else { 299 };
                    }
                }),
            ));
            for key in group.tags.keys().filter(|key| !TRACKING.contains(&key.as_str())) {
                let (arn, gone) = (group.arn.clone(), key.clone());
                edits.push((
                    format!("removes tag: {key} of {name}"),
                    Box::new(move |account| {
                        account.target_groups.get_mut(&arn).map(|group| group.tags.remove(&gone));
                    }),
                ));
            }
        }
        edits
    }

    fn edits_of_security_groups(&self) -> Vec<(String, Edit)> {
        let mut edits: Vec<(String, Edit)> = Vec::new();
        for group in self.security_groups.values() {
            let is_ours = group.tags.contains_key(CLUSTER);
            // In the nodes' group, the rules with a description belong to the controller.
            let ours = group.ingress.iter().filter(|rule| is_ours || rule.description == NODE_RULE_DESCRIPTION);
            for rule in ours {
                let (id, gone) = (group.id.clone(), rule.clone());
                let named = SecurityGroupRule {
                    source: match &rule.source {
                        Source::SecurityGroup(id) => Source::Ipv4(
                            self.security_groups.get(id.as_str()).map_or("somebody", |group| &group.name).to_owned(),
                        ),
                        source => source.clone(),
                    },
                    ..rule.clone()
                };
                edits.push((
                    format!("revokes ingress: {named} of {}", group.name),
                    Box::new(move |account| {
                        account.security_groups.get_mut(&id).map(|group| group.ingress.remove(&gone));
                    }),
                ));
            }
        }
        edits
    }
}

/// Returns the kind of a change, the first words of its description.
fn kind(what: &str) -> &str {
    what.split(':').next().unwrap_or_default()
}

fn fixed(status: &str) -> Action<String> {
    Action::FixedResponse {
        content_type: Some("text/plain".to_owned()),
        message_body: None,
        status_code: status.to_owned(),
    }
}

fn edits_of_listener(name: &str, balancer: &Balancer, listener: &Listener) -> Vec<(String, Edit)> {
    let mut edits: Vec<(String, Edit)> = Vec::new();
    let place = format!("{name}:{}", listener.port);
    let (above, arn) = (balancer.arn.clone(), listener.arn.clone());
    edits.push((
        format!("deletes listener: {place}"),
        Box::new(move |account| {
            account.balancers.get_mut(&above).map(|balancer| balancer.listeners.remove(&arn));
        }),
    ));
    if balancer.is_application() {
        let arn = listener.arn.clone();
        edits.push((
            format!("modifies default action: of {place}"),
            Box::new(move |account| {
                if let Some(listener) = account.listener_mut(&arn) {
                    listener.default_action = fixed("599");
                }
            }),
        ));
    }
    for certificate in &listener.certificates {
        let (arn, gone) = (listener.arn.clone(), certificate.clone());
        edits.push((
            format!("removes certificate: {certificate} of {place}"),
            Box::new(move |account| {
                account.listener_mut(&arn).map(|listener| listener.certificates.remove(&gone));
            }),
        ));
    }
    let mut rules: Vec<_> = listener.rules.values().collect();
    rules.sort_by_key(|rule| rule.priority);
    for rule in &rules {
        let (arn, gone) = (listener.arn.clone(), rule.arn.clone());
        edits.push((
            format!("deletes rule: {} of {place}", rule.priority),
            Box::new(move |account| {
                account.listener_mut(&arn).map(|listener| listener.rules.remove(&gone));
            }),
        ));
        let arn = rule.arn.clone();
        edits.push((
            format!("modifies rule: {} of {place}", rule.priority),
            Box::new(move |account| {
                if let Some(rule) = account.rule_mut(&arn) {
                    rule.action = fixed("598");
                }
            }),
        ));
    }
    if let [first, .., last] = rules.as_slice() {
        let (one, other) = ((first.arn.clone(), last.priority), (last.arn.clone(), first.priority));
        edits.push((
            format!("swaps rules: {} and {} of {place}", first.priority, last.priority),
            Box::new(move |account| {
                for (arn, priority) in [one, other] {
                    if let Some(rule) = account.rule_mut(&arn) {
                        rule.priority = priority;
                    }
                }
            }),
        ));
    }
    edits
}
