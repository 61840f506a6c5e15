//! The steps of a plan, as AWS and the API server carry them out or refuse them.

use super::*;

impl Aws {
    fn certificate(&mut self, arn: &CertificateArn) -> Result<&mut ObservedCertificate, String> {
        let mut all = self.observed.certificates.iter_mut().flatten();
        all.find(|certificate| certificate.arn == *arn).ok_or_else(|| "ResourceNotFoundException".to_owned())
    }

    #[allow(clippy::too_many_lines, reason = "one arm a step")]
    pub(super) fn call(&mut self, stack: &Stack, action: &StepAction) -> Outcome {
        let number = self.number();
        self.wanted.clone_from(&stack.load_balancer);
        match action {
            StepAction::CreateSecurityGroup(group) => {
                let name = group.name.known().ok_or("the name is not known")?.clone();
                let duplicate = self.observed.security_groups.iter().any(|g| g.name == name);
                refuse(duplicate, || "InvalidGroup.Duplicate".to_owned())?;
                let id = SecurityGroupId::new(format!("sg-{number}"));
                self.created_security_group = Some(id.clone());
                let made = ObservedSecurityGroup { id, name, tags: group.tags.clone(), ingress: BTreeSet::new() };
                self.observed.security_groups.push(made);
            }
            StepAction::AuthorizeIngress { group, rules } => {
                let id = match group {
                    SecurityGroupTarget::Existing(id) => id.clone(),
                    SecurityGroupTarget::Created => {
                        self.created_security_group.clone().ok_or("the plan created no security group")?
                    }
                };
                refuse(rules.is_empty(), || "MissingParameter".to_owned())?;
                let group = self.security_group(&id)?;
                for rule in rules {
                    let duplicate = group.ingress.iter().any(|r| r.identity() == rule.identity());
                    refuse(duplicate, || "InvalidPermission.Duplicate".to_owned())?;
                    group.ingress.insert(rule.clone());
                }
                let count = group.ingress.len();
                refuse(count > self.most.security_group_rules, || "RulesPerSecurityGroupLimitExceeded".to_owned())?;
            }
            StepAction::RevokeIngress { group, rules } => {
                refuse(rules.is_empty(), || "MissingParameter".to_owned())?;
                let group = self.security_group(group)?;
                for rule in rules {
                    refuse(!group.ingress.remove(rule), || "InvalidPermission.NotFound".to_owned())?;
                }
            }
            StepAction::DeleteSecurityGroup(id) => {
                self.security_group(id)?;
                let used = self.observed.load_balancers.iter().any(|b| b.security_groups.contains(id));
                refuse(used, || "DependencyViolation".to_owned())?;
                self.observed.security_groups.retain(|g| g.id != *id);
            }
            StepAction::RequestCertificate { certificate, .. } => {
                let arn = CertificateArn::new(format!("arn:certificate/{number}"));
                let record = |host: &String| ValidationRecord {
                    host: host.clone(),
                    name: format!("_{}", without_wildcard(host)),
                    value: "proof".to_owned(),
                };
                self.observed.certificates.get_or_insert_default().push(ObservedCertificate {
                    arn,
                    resource: certificate.resource.clone(),
                    hosts: certificate.hosts.clone(),
                    authority: certificate.authority.clone(),
                    status: CertificateStatus::Pending,
                    records: certificate.hosts.iter().map(record).collect(),
                    validated: BTreeSet::new(),
                    created: BTreeSet::new(),
                });
            }
            StepAction::CreateValidationRecord { arn, record, .. } => {
                let certificate = self.certificate(arn)?;
                let duplicate = !certificate.validated.insert(record.name.clone());
                refuse(duplicate, || "InvalidChangeBatch: it already exists".to_owned())?;
                if certificate.missing_records().is_empty() {
                    certificate.status = CertificateStatus::Issued;
                }
            }
            StepAction::DeleteCertificate { arn, .. } => {
                self.certificate(arn)?;
                let listeners = self.observed.load_balancers.iter().flat_map(|balancer| balancer.known_listeners());
                let used = listeners.flat_map(on_listener).any(|certificate| certificate == arn);
                refuse(used, || "ResourceInUseException".to_owned())?;
                self.observed.certificates.iter_mut().for_each(|all| all.retain(|certificate| certificate.arn != *arn));
            }
            StepAction::CreateTargetGroup(group) => {
                let name = group.name.known().ok_or("the name is not known")?.to_string();
                let duplicate = self.observed.target_groups.iter().any(|g| g.name == name);
                refuse(duplicate, || "DuplicateTargetGroupName".to_owned())?;
                let http = matches!(group.protocol, TargetGroupProtocol::Http | TargetGroupProtocol::Https);
                let check = &group.health_check;
                let connects = check.protocol == HealthCheckProtocol::Tcp;
                refuse(
                    http != group.protocol_version.is_some() || (connects && (http || check.path.is_some())),
                    || "ValidationError: protocol version or health check".to_owned(),
                )?;
                let arn = TargetGroupArn::new(format!("arn:targetgroup/{name}/{number}"));
                self.created_groups.insert(group.resource.clone(), arn.clone());
                self.observed.target_groups.push(ObservedTargetGroup {
                    arn,
                    name,
                    target_type: group.target_type.to_string(),
                    protocol: group.protocol.to_string(),
                    protocol_version: group.protocol_version.map(|version| version.to_string()),
                    ip_address_type: group.ip_address_type,
                    health_check: Some(group.health_check.clone()),
                    attributes: Some(defaults::target_group(group.protocol)),
                    tags: group.tags.clone(),
                });
                self.observed.target_groups.sort_by(|a, b| a.arn.cmp(&b.arn));
            }
            StepAction::CreateFrontendTargetGroup(group) => {
                let name = group.name.known().ok_or("the name is not known")?.to_string();
                let duplicate = self.observed.target_groups.iter().any(|g| g.name == name);
                refuse(duplicate, || "DuplicateTargetGroupName".to_owned())?;
                let arn = TargetGroupArn::new(format!("arn:targetgroup/{name}/{number}"));
                self.observed.frontend.targets.insert(arn.clone(), BTreeSet::new());
                self.observed.target_groups.push(ObservedTargetGroup {
                    arn,
                    name,
                    target_type: "alb".to_owned(),
                    protocol: "TCP".to_owned(),
                    protocol_version: None,
                    ip_address_type: IpAddressType::Ipv4,
                    health_check: Some(group.health_check.clone()),
                    attributes: None,
                    tags: group.tags.clone(),
                });
            }
            StepAction::RegisterLoadBalancer { arn, target, .. } => {
                let balancer = self.observed.load_balancers.iter().find(|b| b.arn == target.load_balancer);
                let is_ready = balancer.is_some_and(|b| b.is_active() && b.listener(target.port).is_some());
                refuse(!is_ready, || "InvalidTarget".to_owned())?;
                let targets = self.observed.frontend.targets.get_mut(arn).ok_or("TargetGroupNotFound")?;
                refuse(!targets.insert(target.clone()) || targets.len() > 1, || "TooManyTargets".to_owned())?;
            }
            StepAction::DeregisterLoadBalancer { arn, target, .. } => {
                let front = &self.observed.frontend;
                let serves = front.load_balancers.iter().any(|b| b.target_groups().any(|named| named == arn));
                refuse(serves, || "its target would be deregistered while it serves".to_owned())?;
                let targets = self.observed.frontend.targets.get_mut(arn).ok_or("TargetGroupNotFound")?;
                refuse(!targets.remove(target), || "InvalidTarget".to_owned())?;
            }
            StepAction::ModifyTargetGroup { arn, health_check, .. } => {
                let group = self.observed.target_groups.iter_mut().find(|g| g.arn == *arn);
                group.ok_or("TargetGroupNotFound")?.health_check = Some(health_check.clone());
            }
            StepAction::DeleteTargetGroup { arn, .. } => {
                let before = self.observed.target_groups.len();
                refuse(self.target_group_in_use(arn), || "ResourceInUse".to_owned())?;
                let bound = self.observed.bindings.iter().any(|b| b.target_group == *arn);
                refuse(bound, || "targets of a binding are still registered".to_owned())?;
                self.observed.target_groups.retain(|g| g.arn != *arn);
                self.observed.frontend.targets.remove(arn);
                refuse(self.observed.target_groups.len() == before, || "TargetGroupNotFound".to_owned())?;
            }
            StepAction::CreateBinding(group) => {
                let made = self.binding(stack, group)?;
                let exists = self.observed.bindings.iter().any(|b| b.name == made.name);
                refuse(exists, || "AlreadyExists".to_owned())?;
                self.observed.bindings.push(ObservedBinding { resource_version: number.to_string(), ..made });
            }
            StepAction::UpdateBinding { existing, target_group, keeps_networking } => {
                let mut made = self.binding(stack, target_group)?;
                if *keeps_networking {
                    made.spec = binding::widened(made.spec, &existing.spec);
                }
                let found = self.observed.bindings.iter_mut().find(|b| b.name == existing.name).ok_or("NotFound")?;
                refuse(found.resource_version != existing.resource_version, || "Conflict".to_owned())?;
                found.labels.extend(made.labels);
                (found.spec, found.allows_sources) = (made.spec, false);
                found.resource_version = number.to_string();
            }
            StepAction::DeleteBinding(name) => {
                let found = self.observed.bindings.iter().position(|b| b.name == *name).ok_or("NotFound")?;
                let serving = self.target_group_in_use(&self.observed.bindings[found].target_group);
                refuse(serving, || "its targets would be deregistered while they serve".to_owned())?;
                self.observed.bindings[found].deleting = true;
            }
            StepAction::CreateLoadBalancer(balancer) => {
                let name = balancer.name.known().ok_or("the name is not known")?.to_string();
                let second = self.observed.load_balancers.iter().any(|b| b.name == name || balancer.can_be(b));
                refuse(second, || "a second load balancer".to_owned())?;
                let groups = balancer.security_groups.iter().map(|g| self.security_group_id(g));
                let security_groups = groups.collect::<Outcome<BTreeSet<_>>>()?;
                let bare = balancer.kind == LoadBalancerKind::Application && security_groups.is_empty();
                refuse(bare, || "ValidationError: no security group".to_owned())?;
                let subnets = balancer.subnets.known().ok_or("the subnets are not known")?;
                self.mappings =
                    mapped(balancer.kind, balancer.scheme, balancer.ip_address_type, &balancer.network, subnets)?;
                self.created_balancer = true;
                self.observed.load_balancers.push(ObservedLoadBalancer {
                    arn: LoadBalancerArn::new(format!("arn:loadbalancer/app/{name}/{number}")),
                    dns_name: format!("{name}.elb.amazonaws.com"),
                    name,
                    kind: balancer.kind,
                    attributes: Some(defaults::load_balancer(balancer.kind)),
                    scheme: balancer.scheme,
                    ip_address_type: balancer.ip_address_type,
                    network: ObservedNetworkSettings {
                        private_link_rules: (balancer.kind == LoadBalancerKind::Network && !security_groups.is_empty())
                            .then_some(true),
                        ..ObservedNetworkSettings::default()
                    }
                    .placed(
                        balancer.network.ipv6_source_nat,
                        subnets,
                        assigned_prefixes(balancer.network.ipv6_source_nat, subnets),
                    ),
                    pools: ObservedPools {
                        ipam: balancer.pools.ipam.as_ref().map(ToString::to_string),
                        customer_owned: balancer.pools.customer_owned.as_ref().map(ToString::to_string),
                    },
                    state: LoadBalancerState::Provisioning,
                    subnets: self.mappings.keys().cloned().collect(),
                    security_groups,
                    tags: balancer.tags.clone(),
                    listeners: Some(BTreeMap::new()),
                    add_ons: ObservedAddOns::of_new(),
                });
            }
            StepAction::AssociateWebAcl { web_acl, .. } => {
                let web_acl = web_acl.known().ok_or("the web ACL is not known")?;
                let known = &mut self.balancer()?.add_ons.web_acl;
                let again = known.as_ref().is_some_and(|known| known.is(web_acl));
                refuse(again, || "a call for nothing".to_owned())?;
                *known = Some(Association::WebAcl(web_acl.to_string()));
            }
            StepAction::DisassociateWebAcl { arn, .. } => {
                let balancer = self.balancer()?;
                let again = balancer.add_ons.web_acl == Some(Association::None);
                refuse(balancer.arn != *arn || again, || "a call for nothing".to_owned())?;
                balancer.add_ons.web_acl = Some(Association::None);
            }
            StepAction::CreateProtection { .. } => {
                let balancer = self.balancer()?;
                let again = balancer.add_ons.protection != Some(Protection::None);
                refuse(again, || "ResourceAlreadyExistsException".to_owned())?;
                let (id, name) = (format!("protection-{number}"), PROTECTION_NAME.to_owned());
                balancer.add_ons.protection = Some(Protection::Exists { id, name });
            }
            StepAction::DeleteProtection { arn, id, .. } => {
                let balancer = self.balancer()?;
                let own = balancer.add_ons.protection.as_ref().and_then(Protection::own_id);
                refuse(balancer.arn != *arn || own != Some(id), || "ResourceNotFoundException".to_owned())?;
                balancer.add_ons.protection = Some(Protection::None);
            }
            StepAction::ModifyIpPools { arn, pool, .. } => {
                let balancer = self.balancer()?;
                let facing = balancer.scheme == Scheme::InternetFacing;
                refuse(balancer.arn != *arn || !facing, || "InvalidConfigurationRequest".to_owned())?;
                refuse(balancer.pools.has_ipam(pool.as_ref()), || "a call for nothing".to_owned())?;
                balancer.pools.ipam = pool.as_ref().map(ToString::to_string);
            }
            StepAction::ModifyCapacityReservation { arn, units, .. } => {
                let balancer = self.balancer()?;
                refuse(balancer.arn != *arn || !balancer.is_active(), || "InvalidConfigurationRequest".to_owned())?;
                refuse(balancer.add_ons.capacity == Some(*units), || "a call for nothing".to_owned())?;
                balancer.add_ons.capacity = Some(*units);
            }
            StepAction::SetSecurityGroups { load_balancer, groups, private_link_rules } => {
                let groups: BTreeSet<_> = groups.iter().map(|g| self.security_group_id(g)).collect::<Outcome<_>>()?;
                let balancer = self.balancer()?;
                let arn = load_balancer.as_ref().unwrap_or(&balancer.arn);
                let of_network = balancer.kind == LoadBalancerKind::Network;
                let rules = of_network.then(|| private_link_rules.unwrap_or(true));
                let same = (&balancer.security_groups, balancer.network.private_link_rules) == (&groups, rules);
                refuse(of_network && same, || "a call for nothing".to_owned())?;
                // A Network Load Balancer that was made without security groups stays without.
                let bare = balancer.security_groups.is_empty();
                refuse(balancer.arn != *arn || groups.is_empty() || bare, || "InvalidConfigurationRequest".to_owned())?;
                balancer.security_groups = groups;
                balancer.network.private_link_rules = rules;
            }
            StepAction::SetIpAddressType { arn, kind } => {
                let balancer = self.balancer()?;
                refuse(balancer.arn != *arn || balancer.ip_address_type == *kind, || "a call for nothing".to_owned())?;
                balancer.ip_address_type = *kind;
            }
            StepAction::SetSubnets { arn, subnets, ip_address_type, ipv6_source_nat } => {
                let balancer = self.balancer()?;
                refuse(balancer.arn != *arn, || "LoadBalancerNotFound".to_owned())?;
                let network = NetworkSettings {
                    ipv6_source_nat: ipv6_source_nat.unwrap_or_default(),
                    ..NetworkSettings::default()
                };
                let of_network = balancer.kind == LoadBalancerKind::Network;
                refuse(ipv6_source_nat.is_some() != of_network, || "InvalidConfigurationRequest".to_owned())?;
                let before = balancer.ip_address_type;
                let kind = ip_address_type.unwrap_or(before);
                let after = mapped(balancer.kind, balancer.scheme, kind, &network, subnets)?;
                let assigned = assigned_prefixes(network.ipv6_source_nat, subnets);
                let network = balancer.network.placed(network.ipv6_source_nat, subnets, assigned);
                let subnets: BTreeSet<SubnetId> = after.keys().cloned().collect();
                let same =
                    (balancer.ip_address_type, &balancer.network, &balancer.subnets) == (kind, &network, &subnets);
                refuse(same, || "a call for nothing".to_owned())?;
                (balancer.ip_address_type, balancer.network, balancer.subnets) = (kind, network, subnets);
                let was_dualstack = before.has_ipv6() && kind.has_ipv6();
                let stays = |before: &SubnetMapping, after: &SubnetMapping| {
                    (&before.allocation, &before.private_ipv4) == (&after.allocation, &after.private_ipv4)
                        && (!was_dualstack || after.ipv6.is_none() || before.ipv6 == after.ipv6)
                };
                let moved = self.mappings.values().any(|m| after.get(&m.subnet).is_some_and(|after| !stays(m, after)));
                refuse(moved, || "InvalidConfigurationRequest: the address of a subnet that stays".to_owned())?;
                self.mappings = after;
            }
            StepAction::ModifyAttributes { of, attributes, .. } => {
                refuse(attributes.is_empty(), || "MissingParameter".to_owned())?;
                let (http, known) = match of {
                    AttributesOf::LoadBalancer(_) => {
                        let balancer = self.balancer()?;
                        (balancer.kind == LoadBalancerKind::Application, &mut balancer.attributes)
                    }
                    AttributesOf::Listener(reference) => {
                        let listener = self.listener(reference)?;
                        let without = matches!(listener.protocol, Some(ListenerProtocol::Tls | ListenerProtocol::Udp));
                        refuse(without, || "InvalidConfigurationRequest: no attributes".to_owned())?;
                        let http = listener.protocol.is_some_and(|p| speaks(LoadBalancerKind::Application, p));
                        (http, &mut listener.attributes)
                    }
                    AttributesOf::TargetGroup(reference) => {
                        let arn = self.resolve(stack, reference)?;
                        let group = self.observed.target_groups.iter_mut().find(|g| g.arn == arn);
                        let group = group.ok_or("TargetGroupNotFound")?;
                        (group.protocol.starts_with("HTTP"), &mut group.attributes)
                    }
                };
                let strange = attributes.keys().find(|key| !attribute_fits(key, http));
                refuse(strange.is_some(), || format!("InvalidConfigurationRequest: {strange:?}"))?;
                known.get_or_insert_default().extend(attributes.clone());
            }
            StepAction::DeleteLoadBalancer { arn, .. } => {
                refuse(self.observed.frontend.leads_to(arn), || "ResourceInUse: it is a target".to_owned())?;
                let before = self.observed.load_balancers.len();
                self.observed.load_balancers.retain(|b| b.arn != *arn);
                refuse(self.observed.load_balancers.len() == before, || "LoadBalancerNotFound".to_owned())?;
            }
            StepAction::CreateListener { load_balancer, listener } => {
                let default_actions =
                    self.action(stack, listener.default_authentication.as_ref(), &listener.default_action)?;
                self.leading(Some(listener.protocol), &default_actions)?;
                self.beside_others(listener.port, Some(listener.protocol))?;
                let created = self.created_balancer;
                let balancer = self.balancer()?;
                refuse(load_balancer.as_ref().map_or(!created, |arn| balancer.arn != *arn), || {
                    "LoadBalancerNotFound".to_owned()
                })?;
                let tls = listener.protocol.is_secure();
                refuse(tls != listener.default_certificate.is_some() || tls != listener.ssl_policy.is_some(), || {
                    "certificate and policy go with TLS".to_owned()
                })?;
                refuse(listener.alpn_policy.is_some() && listener.protocol != ListenerProtocol::Tls, || {
                    "ALPN goes with TLS".to_owned()
                })?;
                refuse(!speaks(balancer.kind, listener.protocol), || "UnsupportedProtocol".to_owned())?;
                let port = listener.port;
                refuse(balancer.listeners.get_or_insert_default().contains_key(&port), || {
                    "DuplicateListener".to_owned()
                })?;
                let count = balancer.listeners.get_or_insert_default().len();
                refuse(count >= self.most.listeners, || "TooManyListeners".to_owned())?;
                let balancer = self.balancer()?;
                balancer.listeners.get_or_insert_default().insert(
                    port,
                    ObservedListener {
                        arn: ListenerArn::new(format!("arn:listener/{port}/{number}")),
                        port,
                        protocol: Some(listener.protocol),
                        default_actions,
                        default_certificate: listener.default_certificate.clone(),
                        certificates: BTreeSet::new(),
                        ssl_policy: listener.ssl_policy.clone(),
                        alpn_policy: listener.alpn_policy.clone(),
                        mutual_authentication: listener.mutual_authentication.as_ref().map(trusting),
                        attributes: Some(defaults::listener(listener.protocol)),
                        tags: listener.tags.clone(),
                        rules: Vec::new(),
                    },
                );
                self.created_listeners.insert(port);
            }
            StepAction::ModifyListener { arn, change, .. } => {
                let default_actions = change
                    .default_action
                    .as_ref()
                    .map(|a| self.action(stack, change.default_authentication.as_ref(), a))
                    .transpose()?;
                let listener = self.listener(&ListenerReference::Existing(arn.clone()))?;
                let mut after = listener.clone();
                after.protocol = change.protocol.or(listener.protocol);
                if after.protocol != listener.protocol {
                    after.attributes = after.protocol.map(defaults::listener);
                }
                if after.protocol != Some(ListenerProtocol::Tls) {
                    refuse(change.alpn_policy.is_some(), || "ALPN goes with TLS".to_owned())?;
                    after.alpn_policy = None;
                }
                after.alpn_policy = change.alpn_policy.clone().or(after.alpn_policy);
                if let Some(clients) = &change.mutual_authentication {
                    after.mutual_authentication = Some(trusting(clients));
                }
                if after.protocol.is_some_and(|protocol| !protocol.is_secure()) {
                    refuse(change.default_certificate.is_some() || change.ssl_policy.is_some(), || {
                        "a listener without TLS has neither certificate nor policy".to_owned()
                    })?;
                    (after.default_certificate, after.ssl_policy) = (None, None);
                    after.certificates.clear();
                } else {
                    after.default_certificate = change.default_certificate.clone().or(after.default_certificate);
                    after.ssl_policy = change.ssl_policy.clone().or(after.ssl_policy);
                    refuse(after.default_certificate.is_none() || after.ssl_policy.is_none(), || {
                        "ValidationError: no certificate or policy".to_owned()
                    })?;
                }
                if let Some(actions) = default_actions {
                    after.default_actions = actions;
                }
                *listener = after.clone();
                let kind = self.balancer()?.kind;
                refuse(after.protocol.is_some_and(|protocol| !speaks(kind, protocol)), || {
                    "UnsupportedProtocol".to_owned()
                })?;
                self.leading(after.protocol, &after.default_actions)?;
                self.beside_others(after.port, after.protocol)?;
            }
            StepAction::DeleteListener { arn, .. } => {
                let port = self.listener(&ListenerReference::Existing(arn.clone()))?.port;
                let target = LoadBalancerTarget { load_balancer: self.balancer()?.arn.clone(), port };
                let is_target = self.observed.frontend.targets.values().any(|targets| targets.contains(&target));
                refuse(is_target, || format!("ResourceInUse: Listener port '{port}' is in use by registered target"))?;
                self.balancer()?.listeners.get_or_insert_default().remove(&port);
            }
            StepAction::AddListenerCertificates { listener, certificates } => {
                let listener = self.listener(listener)?;
                refuse(!listener.protocol.is_some_and(ListenerProtocol::is_secure), || {
                    "only an HTTPS listener has certificates".to_owned()
                })?;
                refuse(certificates.is_empty(), || "no certificates".to_owned())?;
                let port = listener.port;
                // One call each.
                for certificate in certificates {
                    let listeners = self.balancer()?.listeners.get_or_insert_default();
                    let count: usize = listeners.values().map(|listener| listener.certificates.len()).sum();
                    let known = listeners[&port].certificates.contains(certificate);
                    refuse(!known && count >= self.most.certificates, || "TooManyCertificates".to_owned())?;
                    let listener =
                        self.balancer()?.listeners.get_or_insert_default().get_mut(&port).ok_or("ListenerNotFound")?;
                    listener.certificates.insert(certificate.clone());
                }
            }
            StepAction::RemoveListenerCertificates { arn, certificates, .. } => {
                let listener = self.listener(&ListenerReference::Existing(arn.clone()))?;
                for certificate in certificates {
                    refuse(listener.default_certificate.as_ref() == Some(certificate), || {
                        "OperationNotPermitted: the default certificate".to_owned()
                    })?;
                    refuse(!listener.certificates.remove(certificate), || "CertificateNotFound".to_owned())?;
                }
            }
            StepAction::CreateRule { listener, port, index, priority, rule } => {
                let actions = self.action(stack, rule.authentication.as_ref(), &rule.action)?;
                let network = self.balancer()?.kind == LoadBalancerKind::Network;
                refuse(network, || {
                    "UnsupportedOperation: listeners of a Network Load Balancer have no rules".to_owned()
                })?;
                let listeners = self.balancer()?.listeners.get_or_insert_default();
                let count: usize = listeners.values().map(|listener| listener.rules.len()).sum();
                refuse(count >= self.most.rules, || "TooManyRules".to_owned())?;
                let found = self.listener(listener)?;
                refuse(found.port != *port, || "the step names another port".to_owned())?;
                refuse(!(1..=50_000).contains(priority), || format!("ValidationError: priority {priority}"))?;
                refuse(found.rules.iter().any(|r| r.priority == *priority), || format!("PriorityInUse: {priority}"))?;
                refuse(rule.conditions.is_empty(), || "ValidationError: no conditions".to_owned())?;
                let protocol = found.protocol;
                self.leading(protocol, &actions)?;
                let found = self.listener(listener)?;
                let arn = RuleArn::new(format!("arn:rule/{port}/{number}"));
                let mut conditions = rule.conditions.clone();
                // AWS does not guarantee the order of conditions.
                conditions.reverse();
                found.rules.push(ObservedRule {
                    arn: arn.clone(),
                    priority: *priority,
                    conditions,
                    actions,
                    transforms: rule.transforms.clone(),
                    tags: rule.tags.clone(),
                });
                found.rules.sort_by_key(|r| r.priority);
                let twice = self.created_rules.insert((*port, *index), arn).is_some();
                refuse(twice, || "the plan creates one rule twice".to_owned())?;
            }
            StepAction::SetRulePriorities { priorities, .. } => {
                refuse(priorities.is_empty(), || "ValidationError: nothing to set".to_owned())?;
                let mut wanted: BTreeMap<RuleArn, u32> = BTreeMap::new();
                for (reference, priority) in priorities {
                    let arn = match reference {
                        RuleReference::Existing(arn) => arn.clone(),
                        RuleReference::Created(port, index) => {
                            self.created_rules.get(&(*port, *index)).ok_or("the plan created no such rule")?.clone()
                        }
                    };
                    refuse(!(1..=50_000).contains(priority), || format!("ValidationError: priority {priority}"))?;
                    refuse(wanted.insert(arn, *priority).is_some(), || "a rule is named twice".to_owned())?;
                }
                let first = wanted.keys().next().cloned().ok_or("nothing to set")?;
                let (listener, _) = self.rule(&first)?;
                let known: BTreeSet<&RuleArn> = listener.rules.iter().map(|r| &r.arn).collect();
                refuse(!wanted.keys().all(|arn| known.contains(arn)), || "RuleNotFound".to_owned())?;
                let after: Vec<u32> =
                    listener.rules.iter().map(|r| wanted.get(&r.arn).copied().unwrap_or(r.priority)).collect();
                let distinct: BTreeSet<u32> = after.iter().copied().collect();
                refuse(distinct.len() != after.len(), || "PriorityInUse".to_owned())?;
                for (rule, priority) in listener.rules.iter_mut().zip(after) {
                    rule.priority = priority;
                }
                listener.rules.sort_by_key(|r| r.priority);
            }
            StepAction::ModifyRule { arn, rule, reset_transforms, .. } => {
                let actions = self.action(stack, rule.authentication.as_ref(), &rule.action)?;
                refuse(*reset_transforms && !rule.transforms.is_empty(), || {
                    "ValidationError: transforms and their reset".to_owned()
                })?;
                let protocol = self.rule(arn)?.0.protocol;
                self.leading(protocol, &actions)?;
                let (listener, index) = self.rule(arn)?;
                listener.rules[index].actions = actions;
                // Transforms that are not named stay.
                if *reset_transforms || !rule.transforms.is_empty() {
                    listener.rules[index].transforms = rule.transforms.clone();
                }
            }
            StepAction::DeleteRule { arn, .. } => {
                let (listener, index) = self.rule(arn)?;
                listener.rules.remove(index);
            }
            StepAction::AddTags { resource, tags: added, .. } => {
                let found = self.tags(resource).ok_or("the resource to tag does not exist")?;
                found.extend(added.clone());
                refuse(found.len() > 50, || "TooManyTags".to_owned())?;
            }
            StepAction::RemoveTags { resource, keys, .. } => {
                let found = self.tags(resource).ok_or("the resource to untag does not exist")?;
                found.retain(|key, _| !keys.contains(key));
            }
        }
        Ok(())
    }

    fn tags(&mut self, resource: &TaggedResource) -> Option<&mut Tags> {
        match resource {
            TaggedResource::SecurityGroup(id) => {
                self.observed.security_groups.iter_mut().find(|g| g.id == *id).map(|g| &mut g.tags)
            }
            TaggedResource::Elb(arn) => {
                if let Some(group) = self.observed.target_groups.iter_mut().find(|g| g.arn.as_str() == arn) {
                    return Some(&mut group.tags);
                }
                for balancer in &mut self.observed.load_balancers {
                    if balancer.arn.as_str() == arn {
                        return Some(&mut balancer.tags);
                    }
                    for listener in balancer.listeners.get_or_insert_default().values_mut() {
                        if listener.arn.as_str() == arn {
                            return Some(&mut listener.tags);
                        }
                        if let Some(rule) = listener.rules.iter_mut().find(|r| r.arn.as_str() == arn) {
                            return Some(&mut rule.tags);
                        }
                    }
                }
                None
            }
        }
    }
}

fn trusting(clients: &MutualAuthentication<Value<TrustStoreArn>>) -> MutualAuthentication<TrustStoreArn> {
    clients.try_map(|arn| arn.known().cloned().ok_or("the trust store is not known")).unwrap()
}
