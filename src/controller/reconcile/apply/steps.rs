//! Each kind of step.

use super::{Applier, StepError, created_resources::CreatedResources};
use albatross_aws::{AwsError, AwsErrorKind, NewListener, NewLoadBalancer, NewRule, ResourceName, Tagging};
use albatross_core::{
    model::{
        Action, AddOn, Attributes, CapacityUnits, FrontendTargetGroup, IpAddressType, IpamPoolId, Listener,
        LoadBalancer, LoadBalancerArn, LoadBalancerTarget, ManagedSecurityGroup, MutualAuthentication, ObservedAddOns,
        ObservedListener, ObservedLoadBalancer, ObservedSecurityGroup, ObservedTargetGroup, Registration, ResourceId,
        Rule, SecurityGroupReference, StackId, SubnetMapping, Tags, Target, TargetGroup, TargetGroupReference,
        TrustStoreArn, Value, tags,
    },
    plan::{AttributesOf, ListenerChange, ListenerReference, Reads, StepAction, TaggedResource, defaults},
};

/// Returns the error for a plan of files that names a target group whose ARN was not read from AWS.
pub(crate) fn unresolved(name: &str) -> StepError {
    StepError::Unresolved(format!("the ARN of the target group `{name}`"))
}

fn registration(LoadBalancerTarget { load_balancer, port }: &LoadBalancerTarget) -> Registration {
    Target { id: load_balancer.to_string(), port: *port }.into()
}

fn known<'a, T>(value: &'a Value<T>, what: &str) -> Result<&'a T, StepError> {
    value.known().ok_or_else(|| StepError::Unresolved(what.to_owned()))
}

/// With the trust store that is known.
fn trusting(
    wanted: Option<&MutualAuthentication<Value<TrustStoreArn>>>,
) -> Result<Option<MutualAuthentication<TrustStoreArn>>, StepError> {
    wanted.map(|wanted| wanted.try_map(|arn| known(arn, "trust store").cloned())).transpose()
}

/// Returns what a step may have made although it ended without a clear answer.
pub(crate) fn possibly_created(action: &StepAction) -> Option<ResourceName> {
    match action {
        StepAction::CreateLoadBalancer(wanted) => {
            wanted.name.known().map(|name| ResourceName::LoadBalancer(name.to_string()))
        }
        StepAction::CreateTargetGroup(wanted) => {
            wanted.name.known().map(|name| ResourceName::TargetGroup(name.to_string()))
        }
        StepAction::CreateFrontendTargetGroup(wanted) => {
            wanted.name.known().map(|name| ResourceName::TargetGroup(name.to_string()))
        }
        StepAction::CreateSecurityGroup(wanted) => wanted.name.known().cloned().map(ResourceName::SecurityGroup),
        _ => None,
    }
}

/// Returns the load balancer whose add-on a step changes; `None` within for the one that the plan creates.
pub(crate) fn load_balancer_of_add_on(action: &StepAction) -> Option<(AddOn, Option<&LoadBalancerArn>)> {
    let load_balancer = match action {
        StepAction::AssociateWebAcl { load_balancer, .. } | StepAction::CreateProtection { load_balancer, .. } => {
            load_balancer.as_ref()
        }
        StepAction::DisassociateWebAcl { arn, .. }
        | StepAction::DeleteProtection { arn, .. }
        | StepAction::ModifyCapacityReservation { arn, .. } => Some(arn),
        // Requested certificates are the stack's.
        _ => return None,
    };
    Some((action.add_on()?, load_balancer))
}

/// A deletion. What is still used has to wait; and what is said not to be there was perhaps made a moment ago, and AWS does
/// not know it everywhere yet: only a list shows that it is gone.
fn deleted(result: Result<(), AwsError>) -> Result<(), StepError> {
    match result {
        Err(error) if matches!(error.kind, AwsErrorKind::Dependency { .. }) || error.is_not_found() => {
            Err(StepError::NotYet(error))
        }
        result => result.map_err(StepError::Aws),
    }
}

/// A step whose action names target groups: if one of another owner is gone, the author has to fix it.
fn forwarding(error: AwsError, action: &Action<TargetGroupReference>) -> StepError {
    let foreign = action.target_groups().any(|g| matches!(g, TargetGroupReference::Foreign(_)));
    if foreign && error.code() == Some("TargetGroupNotFound") {
        StepError::ForeignTargetGroup(error)
    } else {
        StepError::Aws(error)
    }
}

impl Applier {
    pub(crate) async fn run(
        &self,
        group: &StackId,
        action: &StepAction,
        resources: &mut CreatedResources,
    ) -> Result<(), StepError> {
        let (aws, inventory) = (&self.aws, &*self.inventory);
        match action {
            StepAction::CreateSecurityGroup(wanted) => self.create_security_group(group, wanted, resources).await?,
            StepAction::AuthorizeIngress { group, rules } => {
                let id = resources.security_group_target(group)?;
                aws.authorize_ingress(&id, rules).await.map_err(StepError::Aws)?;
                inventory.record_ingress_authorized(&id, rules);
            }
            StepAction::RevokeIngress { group, rules } => {
                aws.revoke_ingress(group, rules).await.map_err(StepError::Aws)?;
                inventory.record_ingress_revoked(group, rules);
            }
            StepAction::DeleteSecurityGroup(id) => {
                deleted(aws.delete_security_group(id).await)?;
                inventory.record_security_group_deleted(id);
            }
            StepAction::CreateTargetGroup(wanted) => self.create_target_group(group, wanted, resources).await?,
            StepAction::CreateFrontendTargetGroup(wanted) => {
                Box::pin(self.create_frontend_target_group(group, wanted)).await?;
            }
            StepAction::RegisterLoadBalancer { arn, target, .. } => {
                let targets = [registration(target)];
                aws.register_targets(arn, &targets).await.map_err(StepError::Aws)?;
                inventory.record_registered(arn, &targets);
            }
            StepAction::DeregisterLoadBalancer { arn, target, .. } => {
                let targets = [registration(target)];
                deleted(aws.deregister_targets(arn, &targets).await)?;
                inventory.record_deregistered(arn, &targets);
            }
            StepAction::ModifyTargetGroup { arn, health_check, .. } => {
                aws.modify_target_group(arn, health_check).await.map_err(StepError::Aws)?;
                inventory.record_health_check(arn, health_check);
            }
            StepAction::DeleteTargetGroup { arn, .. } => {
                deleted(aws.delete_target_group(arn).await)?;
                inventory.record_target_group_deleted(arn);
            }
            StepAction::CreateBinding(wanted) => self.create_binding(group, wanted, resources).await?,
            StepAction::UpdateBinding { existing, target_group, keeps_networking } => {
                self.update_binding(group, existing, target_group, *keeps_networking, resources).await?;
            }
            StepAction::DeleteBinding(name) => self.delete_binding(name).await?,
            StepAction::CreateLoadBalancer(wanted) => self.create_load_balancer(group, wanted, resources).await?,
            StepAction::SetSecurityGroups { load_balancer, groups, private_link_rules } => {
                let arn = resources.load_balancer(load_balancer.as_ref())?;
                self.set_security_groups(group, &arn, groups, *private_link_rules, resources).await?;
            }
            StepAction::SetSubnets { arn, subnets, ip_address_type, ipv6_source_nat } => {
                self.set_subnets(arn, subnets, *ip_address_type, *ipv6_source_nat).await?;
            }
            StepAction::SetIpAddressType { arn, kind } => self.set_ip_address_type(arn, *kind).await?,
            StepAction::ModifyAttributes { of, attributes, .. } => {
                self.modify_attributes(group, of, attributes, resources).await?;
            }
            StepAction::AssociateWebAcl { load_balancer, web_acl, .. } => {
                let arn = resources.load_balancer(load_balancer.as_ref())?;
                let associated = match aws.associate_web_acl(&arn, known(web_acl, "web ACL")?).await {
                    Err(error) => return Err(self.refused_add_on(group, &arn, error).await),
                    Ok(associated) => associated,
                };
                inventory.record_web_acl(&arn, associated);
            }
            StepAction::DisassociateWebAcl { arn, .. } => {
                let association = aws.disassociate_web_acl(arn).await.map_err(StepError::Aws)?;
                inventory.record_web_acl(arn, association);
            }
            StepAction::CreateProtection { load_balancer, .. } => {
                let arn = resources.load_balancer(load_balancer.as_ref())?;
                let protection = match aws.create_protection(&arn).await {
                    Err(error) => return Err(self.refused_add_on(group, &arn, error).await),
                    Ok(protection) => protection,
                };
                inventory.record_protection(&arn, protection);
            }
            StepAction::DeleteProtection { arn, id, .. } => {
                let protection = aws.delete_protection(id).await.map_err(StepError::Aws)?;
                inventory.record_protection(arn, protection);
            }
            StepAction::ModifyIpPools { arn, pool, .. } => self.modify_ip_pools(arn, pool.as_ref()).await?,
            StepAction::ModifyCapacityReservation { arn, units, .. } => self.reserve(group, arn, *units).await?,
            StepAction::RequestCertificate { certificate, token } => {
                self.request_certificate(group, certificate, token).await?;
            }
            StepAction::CreateValidationRecord { arn, zone, record } => {
                self.create_record(group, arn, zone, record).await?;
            }
            StepAction::DeleteCertificate { arn, .. } => self.delete_certificate(group, arn).await?,
            StepAction::DeleteLoadBalancer { arn, .. } => {
                self.delete_load_balancer(group, arn).await?;
            }
            StepAction::CreateListener { load_balancer, listener } => {
                self.create_listener(group, load_balancer.as_ref(), listener, resources).await?;
            }
            StepAction::ModifyListener { arn, change, .. } => {
                let new = self.changed_listener(group, change, resources)?;
                let answer = aws.modify_listener(arn, &new).await;
                let answer = answer.map_err(|error| match &change.default_action {
                    Some(action) => forwarding(error, action),
                    None => StepError::Aws(error),
                })?;
                inventory.record_listener_modified(answer);
            }
            StepAction::DeleteListener { arn, .. } => {
                deleted(aws.delete_listener(arn).await)?;
                inventory.record_listener_deleted(arn);
            }
            StepAction::AddListenerCertificates { listener, certificates } => {
                let arn = resources.listener(listener)?;
                for certificate in certificates {
                    aws.add_listener_certificate(&arn, certificate).await.map_err(StepError::Aws)?;
                    inventory.record_on_listener(&arn, |l| {
                        l.certificates.insert(certificate.clone());
                    });
                }
            }
            StepAction::RemoveListenerCertificates { arn, certificates, .. } => {
                for certificate in certificates {
                    match aws.remove_listener_certificate(arn, certificate).await {
                        // A certificate that is deleted is on no listener any more.
                        Err(error) if error.code() != Some("CertificateNotFound") => return Err(StepError::Aws(error)),
                        _ => inventory.record_on_listener(arn, |l| {
                            l.certificates.remove(certificate);
                        }),
                    }
                }
            }
            StepAction::CreateRule { listener, port, index, priority, rule } => {
                let arn = self.create_rule(group, listener, *port, *priority, rule, resources).await?;
                resources.rules.insert((*port, *index), arn);
            }
            StepAction::SetRulePriorities { priorities, .. } => {
                let priorities: Vec<_> = priorities
                    .iter()
                    .map(|(rule, priority)| Ok((resources.rule(rule)?, *priority)))
                    .collect::<Result<_, StepError>>()?;
                aws.set_rule_priorities(&priorities).await.map_err(StepError::Aws)?;
                inventory.record_priorities(&priorities);
            }
            StepAction::ModifyRule { arn, rule, reset_transforms, .. } => {
                let action = resources.action(inventory, group, &rule.action)?;
                let before = rule.authentication.as_ref();
                let answer = aws.modify_rule(arn, before, &action, &rule.transforms, *reset_transforms).await;
                let answer = answer.map_err(|error| forwarding(error, &rule.action))?;
                inventory.record_rule_modified(answer);
            }
            StepAction::DeleteRule { arn, .. } => {
                deleted(aws.delete_rule(arn).await)?;
                inventory.record_rule_deleted(arn);
            }
            StepAction::AddTags { resource, tags, .. } => match resource {
                TaggedResource::Elb(arn) => {
                    aws.tag(arn, tags).await.map_err(StepError::Aws)?;
                    inventory.record_tags(arn, tags);
                }
                TaggedResource::SecurityGroup(id) => {
                    aws.tag_security_group(id, tags).await.map_err(StepError::Aws)?;
                    inventory.record_security_group_tags(id, tags);
                }
            },
            StepAction::RemoveTags { resource, keys, .. } => match resource {
                TaggedResource::Elb(arn) => {
                    aws.untag(arn, keys).await.map_err(StepError::Aws)?;
                    inventory.record_tags_removed(arn, keys);
                }
                TaggedResource::SecurityGroup(id) => {
                    aws.untag_security_group(id, keys).await.map_err(StepError::Aws)?;
                    inventory.record_security_group_tags_removed(id, keys);
                }
            },
        }
        Ok(())
    }

    async fn modify_attributes(
        &self,
        stack: &StackId,
        of: &AttributesOf,
        attributes: &Attributes,
        resources: &CreatedResources,
    ) -> Result<(), StepError> {
        let (aws, inventory) = (&self.aws, &*self.inventory);
        match of {
            AttributesOf::LoadBalancer(arn) => {
                let arn = resources.load_balancer(arn.as_ref())?;
                let all = aws.modify_load_balancer_attributes(&arn, attributes).await.map_err(StepError::Aws)?;
                inventory.record_load_balancer_attributes(&arn, all);
            }
            AttributesOf::Listener(listener) => {
                let arn = resources.listener(listener)?;
                let all = aws.modify_listener_attributes(&arn, attributes).await.map_err(StepError::Aws)?;
                inventory.record_on_listener(&arn, |listener| listener.attributes = Some(all));
            }
            AttributesOf::TargetGroup(reference) => {
                let arn = match reference {
                    TargetGroupReference::Own(resource) => resources.target_group(inventory, stack, resource)?,
                    TargetGroupReference::Foreign(arn) => arn.clone(),
                    TargetGroupReference::Named(name) => return Err(unresolved(name)),
                };
                let all = aws.modify_target_group_attributes(&arn, attributes).await.map_err(StepError::Aws)?;
                inventory.record_target_group_attributes(&arn, all);
            }
        }
        Ok(())
    }

    async fn create_security_group(
        &self,
        stack: &StackId,
        wanted: &ManagedSecurityGroup,
        resources: &mut CreatedResources,
    ) -> Result<(), StepError> {
        let name = known(&wanted.name, "security group's name")?;
        let vpc = self.inventory.vpc();
        let id = match self.aws.create_security_group(name, wanted.description, vpc, &wanted.tags).await {
            Ok(id) => id,
            Err(error) if error.code() == Some("InvalidGroup.Duplicate") => {
                self.inventory.invalidate(stack);
                let (kind, name) = ("security group", name.clone());
                self.inventory.observe(stack).await.map_err(StepError::Aws)?;
                // Only groups with the cluster's tag are listed, so the owner of another is not known.
                return Err(match self.inventory.managed_security_group(stack) {
                    Some(_) => StepError::ThereAlready { kind, name },
                    None => StepError::Taken {
                        kind,
                        name,
                        owner: "another owner (it lacks this group's tags)".to_owned(),
                        claimant: format!("{stack} of cluster {}", self.inventory.cluster()),
                    },
                });
            }
            Err(error) => return Err(StepError::Aws(error)),
        };
        self.inventory.record_security_group(ObservedSecurityGroup {
            id: id.clone(),
            name: name.clone(),
            tags: wanted.tags.clone(),
            ingress: std::collections::BTreeSet::new(),
        });
        resources.security_group = Some(id);
        Ok(())
    }

    async fn create_target_group(
        &self,
        stack: &StackId,
        wanted: &TargetGroup,
        resources: &mut CreatedResources,
    ) -> Result<(), StepError> {
        let kind = "target group";
        let name = known(&wanted.name, "target group's name")?;
        let vpc = known(&wanted.vpc, "VPC")?;
        known(&wanted.port, "target group's port")?;
        let created = match self.aws.create_target_group(wanted, name, vpc).await {
            Ok(created) => created,
            Err(error) if error.code() == Some("DuplicateTargetGroupName") => {
                let named = ResourceName::TargetGroup(name.to_string());
                return Err(self.duplicate(kind, name.as_str(), named, stack).await);
            }
            Err(error) => return Err(StepError::Aws(error)),
        };
        self.check_created(kind, name.as_str(), created.arn.as_str(), stack)?;
        resources.target_groups.insert(wanted.resource.clone(), created.arn.clone());
        self.inventory.record_target_group(ObservedTargetGroup {
            attributes: Some(defaults::target_group(wanted.protocol)),
            ..created
        });
        Ok(())
    }

    async fn create_frontend_target_group(
        &self,
        stack: &StackId,
        wanted: &FrontendTargetGroup,
    ) -> Result<(), StepError> {
        let kind = "target group";
        let name = known(&wanted.name, "target group's name")?;
        let created = self.aws.create_frontend_target_group(wanted, name, known(&wanted.vpc, "VPC")?).await;
        let created = match created {
            Ok(created) => created,
            Err(error) if error.code() == Some("DuplicateTargetGroupName") => {
                let named = ResourceName::TargetGroup(name.to_string());
                return Err(self.duplicate(kind, name.as_str(), named, stack).await);
            }
            Err(error) => return Err(StepError::Aws(error)),
        };
        self.check_created(kind, name.as_str(), created.arn.as_str(), stack)?;
        self.inventory.record_target_group(created);
        Ok(())
    }

    async fn create_load_balancer(
        &self,
        stack: &StackId,
        wanted: &LoadBalancer,
        resources: &mut CreatedResources,
    ) -> Result<(), StepError> {
        let kind = "load balancer";
        let name = known(&wanted.name, "load balancer's name")?;
        let groups = wanted.security_groups.iter();
        let security_groups: Vec<_> = groups
            .map(|reference| resources.security_group(&self.inventory, stack, reference))
            .collect::<Result<_, _>>()?;
        let new = NewLoadBalancer {
            kind: wanted.kind,
            name,
            scheme: wanted.scheme,
            ip_address_type: wanted.ip_address_type,
            network: &wanted.network,
            pools: &wanted.pools,
            subnets: known(&wanted.subnets, "subnets")?,
            security_groups: &security_groups,
            tags: &wanted.tags,
        };
        let created = match self.aws.create_load_balancer(&new).await {
            Ok(created) => created,
            Err(error) if error.code() == Some("DuplicateLoadBalancerName") => {
                let named = ResourceName::LoadBalancer(name.to_string());
                return Err(self.duplicate(kind, name.as_str(), named, stack).await);
            }
            Err(error) => return Err(StepError::Aws(error)),
        };
        self.check_created(kind, name.as_str(), created.arn.as_str(), stack)?;
        resources.load_balancer = Some(created.arn.clone());
        self.inventory.record_load_balancer(ObservedLoadBalancer {
            attributes: Some(defaults::load_balancer(wanted.kind)),
            listeners: Some(std::collections::BTreeMap::new()),
            add_ons: ObservedAddOns::of_new(),
            ..created
        });
        Ok(())
    }

    /// Returns the error of a creation that AWS refused because a resource has this name.
    async fn duplicate(&self, kind: &'static str, name: &str, named: ResourceName, stack: &StackId) -> StepError {
        match self.inventory.tags_of_named(stack, named).await {
            Ok(found) => self.there_already(kind, name, found.as_ref(), stack),
            Err(error) => StepError::Aws(error),
        }
    }

    /// Refuses a resource that AWS answered a creation with and that was there before.
    fn check_created(&self, kind: &'static str, name: &str, arn: &str, stack: &StackId) -> Result<(), StepError> {
        match self.inventory.tags_of(arn) {
            Some(Tagging::Read(tags)) => Err(self.there_already(kind, name, Some(&tags), stack)),
            // AWS has not returned its owner yet: most likely the controller created it, and the answer was lost.
            Some(Tagging::Unread) => Err(StepError::ThereAlready { kind, name: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// Returns the error of a create that has met a resource of the same name: one of this stack is read again, and one of
    /// another owner is not touched.
    fn there_already(&self, kind: &'static str, name: &str, tags: Option<&Tags>, stack: &StackId) -> StepError {
        let name = name.to_owned();
        let cluster = self.inventory.cluster();
        match owner(tags, cluster, stack) {
            None => StepError::ThereAlready { kind, name },
            Some(owner) => StepError::Taken { kind, name, owner, claimant: format!("{stack} of cluster {cluster}") },
        }
    }

    /// Deletes a load balancer. If AWS does not permit it, the attributes are read, so that the next plan knows a
    /// protection, and the members are told. Where they cannot be read, the refusal is what is told.
    async fn delete_load_balancer(&self, stack: &StackId, arn: &LoadBalancerArn) -> Result<(), StepError> {
        let answer = self.aws.delete_load_balancer(arn).await;
        if answer.as_ref().is_err_and(AwsError::is_not_permitted) {
            let reads = Reads { load_balancer: Some(arn.clone()), ..Reads::default() };
            match self.inventory.read(stack, &reads).await {
                Ok(()) if self.inventory.was_protected(arn) => return answer.map_err(StepError::Protected),
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(group = %stack, "the attributes of the load balancer are not known: {error}");
                }
            }
        }
        deleted(answer)?;
        self.inventory.record_load_balancer_deleted(arn);
        Ok(())
    }

    /// Returns the error of a service that does not give a load balancer what is requested. Such a service does not know one that
    /// is being set up, for minutes.
    async fn refused_add_on(&self, stack: &StackId, arn: &LoadBalancerArn, error: AwsError) -> StepError {
        if matches!(error.kind, AwsErrorKind::Dependency { .. }) {
            return StepError::NotYet(error);
        }
        let is_unknown = matches!(error.code(), Some("WAFNonexistentItemException" | "ResourceNotFoundException"));
        if !is_unknown || self.inventory.is_active(arn) {
            return StepError::Aws(error);
        }
        match self.inventory.read_states(stack).await {
            Ok(()) if self.inventory.is_active(arn) => StepError::Aws(error),
            Ok(()) => StepError::NotYet(error),
            Err(unread) => StepError::Aws(unread),
        }
    }

    async fn set_subnets(
        &self,
        arn: &LoadBalancerArn,
        subnets: &[SubnetMapping],
        kind: Option<IpAddressType>,
        source_nat: Option<bool>,
    ) -> Result<(), StepError> {
        let prefixes = self.aws.set_subnets(arn, subnets, kind, source_nat).await.map_err(StepError::Aws)?;
        self.inventory.record_subnets(arn, subnets, kind, source_nat, prefixes);
        Ok(())
    }

    async fn set_ip_address_type(&self, arn: &LoadBalancerArn, kind: IpAddressType) -> Result<(), StepError> {
        self.aws.set_ip_address_type(arn, kind).await.map_err(StepError::Aws)?;
        self.inventory.record_ip_address_type(arn, kind);
        Ok(())
    }

    async fn modify_ip_pools(&self, arn: &LoadBalancerArn, pool: Option<&IpamPoolId>) -> Result<(), StepError> {
        self.aws.modify_ip_pools(arn, pool).await.map_err(StepError::Aws)?;
        self.inventory.record_ipam_pool(arn, pool);
        Ok(())
    }

    async fn reserve(&self, stack: &StackId, arn: &LoadBalancerArn, units: CapacityUnits) -> Result<(), StepError> {
        if let Err(error) = self.aws.modify_capacity_reservation(arn, units).await {
            return Err(self.refused_add_on(stack, arn, error).await);
        }
        self.inventory.record_capacity(arn, units);
        Ok(())
    }

    async fn set_security_groups(
        &self,
        stack: &StackId,
        arn: &LoadBalancerArn,
        references: &[SecurityGroupReference],
        private_link_rules: Option<bool>,
        resources: &CreatedResources,
    ) -> Result<(), StepError> {
        let references = references.iter();
        let ids: Vec<_> = references
            .map(|reference| resources.security_group(&self.inventory, stack, reference))
            .collect::<Result<_, _>>()?;
        self.aws.set_security_groups(arn, &ids, private_link_rules).await.map_err(StepError::Aws)?;
        self.inventory.record_security_groups(arn, ids.into_iter().collect(), private_link_rules);
        Ok(())
    }

    async fn create_listener(
        &self,
        stack: &StackId,
        balancer: Option<&LoadBalancerArn>,
        wanted: &Listener,
        resources: &mut CreatedResources,
    ) -> Result<(), StepError> {
        let balancer = resources.load_balancer(balancer)?;
        let new = NewListener {
            protocol: Some(wanted.protocol),
            ssl_policy: wanted.ssl_policy.clone(),
            alpn_policy: wanted.alpn_policy.clone(),
            default_certificate: wanted.default_certificate.clone(),
            default_action: Some(resources.action(&self.inventory, stack, &wanted.default_action)?),
            default_authentication: wanted.default_authentication.clone(),
            mutual_authentication: trusting(wanted.mutual_authentication.as_ref())?,
        };
        let created = self.aws.create_listener(&balancer, wanted.port, &new, &wanted.tags).await;
        let created = created.map_err(|error| forwarding(error, &wanted.default_action))?;
        resources.listeners.insert(wanted.port, created.arn.clone());
        self.inventory.record_listener(
            &balancer,
            ObservedListener { attributes: Some(defaults::listener(wanted.protocol)), ..created },
        );
        Ok(())
    }

    fn changed_listener(
        &self,
        stack: &StackId,
        change: &ListenerChange,
        resources: &CreatedResources,
    ) -> Result<NewListener, StepError> {
        let action = change.default_action.as_ref();
        Ok(NewListener {
            protocol: change.protocol,
            ssl_policy: change.ssl_policy.clone(),
            alpn_policy: change.alpn_policy.clone(),
            default_certificate: change.default_certificate.clone(),
            default_action: action.map(|action| resources.action(&self.inventory, stack, action)).transpose()?,
            default_authentication: change.default_authentication.clone(),
            mutual_authentication: trusting(change.mutual_authentication.as_ref())?,
        })
    }

    async fn create_rule(
        &self,
        stack: &StackId,
        listener: &ListenerReference,
        port: u16,
        priority: u32,
        rule: &Rule,
        resources: &CreatedResources,
    ) -> Result<albatross_core::model::RuleArn, StepError> {
        let listener = resources.listener(listener)?;
        let action = resources.action(&self.inventory, stack, &rule.action)?;
        let mut tags = rule.tags.clone();
        // If rules are not tagged, not with this either.
        if !tags.is_empty() {
            tags.extend([stack.resource_tag(&ResourceId::rule(port, priority))]);
        }
        let (before, transforms) = (rule.authentication.as_ref(), &rule.transforms);
        let new = NewRule { priority, conditions: &rule.conditions, before, action: &action, transforms };
        let created = self.aws.create_rule(&listener, new, &tags).await;
        let created = created.map_err(|error| forwarding(error, &rule.action))?;
        let arn = created.arn.clone();
        self.inventory.record_rule(&listener, created);
        Ok(arn)
    }
}

/// Returns the owner of a resource with these tags, in words; `None` where it is the group's own.
fn owner(tags: Option<&Tags>, cluster: &str, group: &StackId) -> Option<String> {
    let Some(tags) = tags else { return Some("something outside this VPC".to_owned()) };
    let Some(owner) = tags.get(tags::CLUSTER) else {
        return Some(format!("an unknown owner: it has no tag {}", tags::CLUSTER));
    };
    if owner == cluster && StackId::of_tags(tags).as_ref() == Some(group) {
        return None;
    }
    match tags::stack_name(tags) {
        Some(stack) => Some(format!("{stack} of cluster {owner}")),
        None => Some(format!("cluster {owner}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use albatross_core::model::ObjectName;

    #[test]
    fn an_owner_is_named_unless_it_is_the_group_itself() {
        let group = StackId::Ingress(ObjectName::new("shop", "web"));
        let tags = |pairs: &[(&str, &str)]| -> Tags {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        for (carried, expected) in [
            (Some(tags(&[(tags::CLUSTER, "demo"), (tags::INGRESS_STACK, "shop/web")])), None),
            (
                Some(tags(&[(tags::CLUSTER, "demo"), (tags::INGRESS_STACK, "shop/other")])),
                Some("shop/other of cluster demo"),
            ),
            (
                Some(tags(&[(tags::CLUSTER, "prod"), (tags::INGRESS_STACK, "shop/web")])),
                Some("shop/web of cluster prod"),
            ),
            (
                Some(tags(&[(tags::CLUSTER, "demo"), (tags::SERVICE_STACK, "shop/web")])),
                Some("shop/web of cluster demo"),
            ),
            (Some(tags(&[(tags::CLUSTER, "demo")])), Some("cluster demo")),
            (Some(tags(&[("Owner", "team")])), Some("an unknown owner: it has no tag elbv2.k8s.aws/cluster")),
            (None, Some("something outside this VPC")),
        ] {
            assert_eq!(owner(carried.as_ref(), "demo", &group).as_deref(), expected, "{carried:?}");
        }
    }
}
