//! ELB v2: load balancers, listeners, rules, target groups and their tags.

mod reads;

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_elasticloadbalancingv2::{
    operation::create_target_group::{CreateTargetGroupOutput, builders::CreateTargetGroupFluentBuilder},
    types as elb,
};

pub(crate) use reads::security_groups_of;

use super::{AwsError, AwsWriter, convert};
use albatross_core::model::{
    Action, AddressPools, Attributes, Authentication, CapacityUnits, CertificateArn, Condition, FrontendTargetGroup,
    HealthCheck, IpAddressType, IpamPoolId, ListenerArn, ListenerProtocol, LoadBalancerArn, LoadBalancerKind,
    LoadBalancerName, MutualAuthentication, NetworkSettings, ObservedListener, ObservedLoadBalancer, ObservedRule,
    ObservedTargetGroup, RuleArn, Scheme, SecurityGroupId, SubnetId, SubnetMapping, Tags, TargetGroup, TargetGroupArn,
    TargetGroupName, Transform, TrustStoreArn, VpcId, authentication::remember_secret,
};

/// The parameters of CreateLoadBalancer.
pub struct NewLoadBalancer<'a> {
    pub kind: LoadBalancerKind,
    pub name: &'a LoadBalancerName,
    pub scheme: Scheme,
    pub ip_address_type: IpAddressType,
    pub network: &'a NetworkSettings,
    pub pools: &'a AddressPools,
    pub subnets: &'a [SubnetMapping],
    pub security_groups: &'a [SecurityGroupId],
    pub tags: &'a Tags,
}

/// The parameters of CreateRule.
#[derive(Clone, Copy)]
pub struct NewRule<'a> {
    pub priority: u32,
    pub conditions: &'a [Condition],
    /// The authentication that precedes the action.
    pub before: Option<&'a Authentication>,
    pub action: &'a Action<TargetGroupArn>,
    pub transforms: &'a [Transform],
}

/// The parameters of CreateListener, or the changes of ModifyListener.
#[derive(Default)]
pub struct NewListener {
    pub protocol: Option<ListenerProtocol>,
    pub ssl_policy: Option<String>,
    pub default_certificate: Option<CertificateArn>,
    pub alpn_policy: Option<String>,
    pub default_action: Option<Action<TargetGroupArn>>,
    /// The authentication that precedes the default action, if there is one.
    pub default_authentication: Option<Authentication>,
    pub mutual_authentication: Option<MutualAuthentication<TrustStoreArn>>,
}

impl NewListener {
    fn certificates(&self) -> Option<Vec<elb::Certificate>> {
        self.default_certificate
            .as_ref()
            .map(|arn| vec![elb::Certificate::builder().certificate_arn(arn.as_str()).build()])
    }

    fn alpn_policy(&self) -> Option<Vec<String>> {
        self.alpn_policy.as_ref().map(|policy| vec![policy.clone()])
    }

    fn protocol(&self) -> Option<elb::ProtocolEnum> {
        self.protocol.map(|p| elb::ProtocolEnum::from(p.as_str()))
    }

    fn actions(&self, operation: &'static str) -> Result<Option<Vec<elb::Action>>, AwsError> {
        let before = self.default_authentication.as_ref();
        self.default_action.as_ref().map(|action| actions(operation, before, action)).transpose()
    }

    fn mutual_authentication(&self) -> Option<elb::MutualAuthenticationAttributes> {
        self.mutual_authentication.as_ref().map(convert::to_mutual_authentication)
    }

    /// Adds the values that were sent and that AWS does not return to an answer.
    fn remembered(&self, mut answer: ObservedListener) -> ObservedListener {
        if self.default_action.is_some() {
            remember_secret(&mut answer.default_actions, self.default_authentication.as_ref());
        }
        answer
    }
}

fn actions(
    operation: &'static str,
    before: Option<&Authentication>,
    action: &Action<TargetGroupArn>,
) -> Result<Vec<elb::Action>, AwsError> {
    convert::to_actions(before, action).ok_or_else(|| AwsError::unsent(operation, "an action of unknown kind"))
}

/// Removes AWS's message, which may repeat a Secret's content, from the error of a request with such content.
fn without_secret<T>(answer: Result<T, AwsError>, sent: Option<&Authentication>) -> Result<T, AwsError> {
    answer.map_err(|error| match sent.and_then(Authentication::secret) {
        Some(secret) => error.without(&[&secret.client_secret, &secret.client_id.0]),
        None => error,
    })
}

/// Returns transforms in the form of AWS; `None` for no transforms.
fn rewriting(operation: &'static str, transforms: &[Transform]) -> Result<Option<Vec<elb::RuleTransform>>, AwsError> {
    if transforms.is_empty() {
        return Ok(None);
    }
    let transforms: Option<Vec<_>> = transforms.iter().map(convert::to_transform).collect();
    transforms.map(Some).ok_or_else(|| AwsError::unsent(operation, "a transform of unknown kind"))
}

fn ipam_pools(pool: &IpamPoolId) -> elb::IpamPools {
    elb::IpamPools::builder().ipv4_ipam_pool_id(pool.as_str()).build()
}

fn pair(key: Option<&str>, value: Option<&str>) -> Option<(String, String)> {
    Some((key?.to_owned(), value.unwrap_or_default().to_owned()))
}

/// Sets attributes by a call that names their resource, and returns all attributes that the resource has afterwards.
macro_rules! modify_attributes {
    ($aws:expr, $operation:literal, $call:expr, $attribute:ty, $attributes:expr) => {{
        let attributes = $attributes.iter().map(|(key, value)| <$attribute>::builder().key(key).value(value).build());
        let call = $call.set_attributes(Some(attributes.collect()));
        let answer = $aws.write($operation, || call.clone().send()).await?;
        Ok(answer.attributes().iter().filter_map(|a| pair(a.key(), a.value())).collect())
    }};
}

/// Write calls.
impl AwsWriter {
    /// Creates a load balancer (CreateLoadBalancer). If one with that name and these settings exists, AWS returns it.
    pub async fn create_load_balancer(&self, new: &NewLoadBalancer<'_>) -> Result<ObservedLoadBalancer, AwsError> {
        let operation = "CreateLoadBalancer";
        let subnets = new.subnets.iter().map(convert::to_subnet_mapping);
        let groups: Vec<_> = new.security_groups.iter().map(|id| id.as_str().to_owned()).collect();
        let of_network = new.kind == LoadBalancerKind::Network;
        let source_nat = of_network.then(|| convert::to_source_nat(new.network.ipv6_source_nat));
        let call = self
            .elb
            .create_load_balancer()
            .name(new.name.as_str())
            .r#type(elb::LoadBalancerTypeEnum::from(new.kind.as_str()))
            .scheme(elb::LoadBalancerSchemeEnum::from(new.scheme.as_str()))
            .ip_address_type(elb::IpAddressType::from(new.ip_address_type.as_str()))
            .set_enable_prefix_for_ipv6_source_nat(source_nat)
            .set_ipam_pools(new.pools.ipam.as_ref().map(ipam_pools))
            .set_customer_owned_ipv4_pool(new.pools.customer_owned.as_ref().map(|pool| pool.as_str().to_owned()))
            .set_subnet_mappings(Some(subnets.collect()))
            .set_security_groups((!groups.is_empty()).then_some(groups))
            .set_tags(convert::to_elb_tags(new.tags));
        let answer = self.write(operation, || call.clone().send()).await?;
        let mut balancer = answer
            .load_balancers()
            .first()
            .and_then(convert::load_balancer)
            .ok_or_else(|| AwsError::incomplete(operation, "load balancer"))?;
        balancer.tags = new.tags.clone();
        Ok(balancer)
    }

    /// Sets the security groups of a load balancer, and if their rules apply to PrivateLink, for which AWS takes its default
    /// if it is not given (SetSecurityGroups).
    pub async fn set_security_groups(
        &self,
        balancer: &LoadBalancerArn,
        groups: &[SecurityGroupId],
        private_link_rules: Option<bool>,
    ) -> Result<(), AwsError> {
        let groups = groups.iter().map(|id| id.as_str().to_owned()).collect();
        let rules = private_link_rules.map(|on| {
            elb::EnforceSecurityGroupInboundRulesOnPrivateLinkTrafficEnum::from(if on { "on" } else { "off" })
        });
        let call = self
            .elb
            .set_security_groups()
            .load_balancer_arn(balancer.as_str())
            .set_security_groups(Some(groups))
            .set_enforce_security_group_inbound_rules_on_private_link_traffic(rules);
        self.write("SetSecurityGroups", || call.clone().send()).await.map(drop)
    }

    /// Sets all subnets of a load balancer, and its address type and the source NAT of IPv6 if they are given (SetSubnets).
    /// Returns the prefixes for source NAT that AWS reports.
    pub async fn set_subnets(
        &self,
        arn: &LoadBalancerArn,
        subnets: &[SubnetMapping],
        ip_address_type: Option<IpAddressType>,
        ipv6_source_nat: Option<bool>,
    ) -> Result<BTreeMap<SubnetId, String>, AwsError> {
        let mappings = subnets.iter().map(convert::to_subnet_mapping).collect();
        let call = self
            .elb
            .set_subnets()
            .load_balancer_arn(arn.as_str())
            .set_subnet_mappings(Some(mappings))
            .set_ip_address_type(ip_address_type.map(|kind| elb::IpAddressType::from(kind.as_str())))
            .set_enable_prefix_for_ipv6_source_nat(ipv6_source_nat.map(convert::to_source_nat));
        let answer = self.write("SetSubnets", || call.clone().send()).await?;
        Ok(convert::source_nat_prefixes(answer.availability_zones()))
    }

    /// Sets the IPAM pool of a load balancer, or removes it (ModifyIpPools).
    pub async fn modify_ip_pools(&self, arn: &LoadBalancerArn, pool: Option<&IpamPoolId>) -> Result<(), AwsError> {
        let removed = pool.is_none().then(|| vec![elb::RemoveIpamPoolEnum::Ipv4]);
        let call = self
            .elb
            .modify_ip_pools()
            .load_balancer_arn(arn.as_str())
            .set_ipam_pools(pool.map(ipam_pools))
            .set_remove_ipam_pools(removed);
        self.write("ModifyIpPools", || call.clone().send()).await.map(drop)
    }

    /// Sets the capacity that is reserved for a load balancer, or ends the reservation (ModifyCapacityReservation).
    pub async fn modify_capacity_reservation(
        &self,
        arn: &LoadBalancerArn,
        units: CapacityUnits,
    ) -> Result<(), AwsError> {
        let ends = units == CapacityUnits::NONE;
        let minimum = elb::MinimumLoadBalancerCapacity::builder().capacity_units(units.units()).build();
        let call = self
            .elb
            .modify_capacity_reservation()
            .load_balancer_arn(arn.as_str())
            .set_minimum_load_balancer_capacity((!ends).then_some(minimum))
            .set_reset_capacity_reservation(ends.then_some(true));
        self.write("ModifyCapacityReservation", || call.clone().send()).await.map(drop)
    }

    /// Sets the address type of a load balancer (SetIpAddressType).
    pub async fn set_ip_address_type(&self, arn: &LoadBalancerArn, kind: IpAddressType) -> Result<(), AwsError> {
        let kind = elb::IpAddressType::from(kind.as_str());
        let call = self.elb.set_ip_address_type().load_balancer_arn(arn.as_str()).ip_address_type(kind);
        self.write("SetIpAddressType", || call.clone().send()).await.map(drop)
    }

    /// Changes attributes of a load balancer (ModifyLoadBalancerAttributes) and returns all of them.
    pub async fn modify_load_balancer_attributes(
        &self,
        arn: &LoadBalancerArn,
        attributes: &Attributes,
    ) -> Result<Attributes, AwsError> {
        let call = self.elb.modify_load_balancer_attributes().load_balancer_arn(arn.as_str());
        modify_attributes!(self, "ModifyLoadBalancerAttributes", call, elb::LoadBalancerAttribute, attributes)
    }

    /// Changes attributes of a target group (ModifyTargetGroupAttributes) and returns all of them.
    pub async fn modify_target_group_attributes(
        &self,
        arn: &TargetGroupArn,
        attributes: &Attributes,
    ) -> Result<Attributes, AwsError> {
        let call = self.elb.modify_target_group_attributes().target_group_arn(arn.as_str());
        modify_attributes!(self, "ModifyTargetGroupAttributes", call, elb::TargetGroupAttribute, attributes)
    }

    /// Changes attributes of a listener (ModifyListenerAttributes) and returns all of them.
    pub async fn modify_listener_attributes(
        &self,
        arn: &ListenerArn,
        attributes: &Attributes,
    ) -> Result<Attributes, AwsError> {
        let call = self.elb.modify_listener_attributes().listener_arn(arn.as_str());
        modify_attributes!(self, "ModifyListenerAttributes", call, elb::ListenerAttribute, attributes)
    }

    /// Deletes a load balancer with its listeners and rules (DeleteLoadBalancer). AWS accepts the call for a deleted
    /// one.
    pub async fn delete_load_balancer(&self, arn: &LoadBalancerArn) -> Result<(), AwsError> {
        let call = self.elb.delete_load_balancer().load_balancer_arn(arn.as_str());
        self.write("DeleteLoadBalancer", || call.clone().send()).await.map(drop)
    }

    /// Creates a listener (CreateListener). If the port has one with these settings, AWS returns it.
    pub async fn create_listener(
        &self,
        balancer: &LoadBalancerArn,
        port: u16,
        new: &NewListener,
        tags: &Tags,
    ) -> Result<ObservedListener, AwsError> {
        let operation = "CreateListener";
        let call = self
            .elb
            .create_listener()
            .load_balancer_arn(balancer.as_str())
            .port(i32::from(port))
            .set_protocol(new.protocol())
            .set_ssl_policy(new.ssl_policy.clone())
            .set_alpn_policy(new.alpn_policy())
            .set_certificates(new.certificates())
            .set_default_actions(new.actions(operation)?)
            .set_mutual_authentication(new.mutual_authentication())
            .set_tags(convert::to_elb_tags(tags));
        let answer = self.write(operation, || call.clone().send()).await;
        let answer = without_secret(answer, new.default_authentication.as_ref())?;
        let mut listener = answer
            .listeners()
            .first()
            .and_then(convert::listener)
            .ok_or_else(|| AwsError::incomplete(operation, "listener"))?;
        listener.tags = tags.clone();
        Ok(new.remembered(listener))
    }

    /// Changes a listener (ModifyListener); settings that `change` does not have stay.
    pub async fn modify_listener(&self, arn: &ListenerArn, change: &NewListener) -> Result<ObservedListener, AwsError> {
        let operation = "ModifyListener";
        let call = self
            .elb
            .modify_listener()
            .listener_arn(arn.as_str())
            .set_protocol(change.protocol())
            .set_ssl_policy(change.ssl_policy.clone())
            .set_alpn_policy(change.alpn_policy())
            .set_certificates(change.certificates())
            .set_default_actions(change.actions(operation)?)
            .set_mutual_authentication(change.mutual_authentication());
        let answer = self.write(operation, || call.clone().send()).await;
        let answer = without_secret(answer, change.default_authentication.as_ref())?;
        let listener = answer.listeners().first().and_then(convert::listener);
        listener.map(|l| change.remembered(l)).ok_or_else(|| AwsError::incomplete(operation, "listener"))
    }

    /// Deletes a listener (DeleteListener).
    pub async fn delete_listener(&self, arn: &ListenerArn) -> Result<(), AwsError> {
        let call = self.elb.delete_listener().listener_arn(arn.as_str());
        self.write("DeleteListener", || call.clone().send()).await.map(drop)
    }

    /// Adds a certificate to a listener (AddListenerCertificates).
    pub async fn add_listener_certificate(
        &self,
        arn: &ListenerArn,
        certificate: &CertificateArn,
    ) -> Result<(), AwsError> {
        let certificate = elb::Certificate::builder().certificate_arn(certificate.as_str()).build();
        let call = self.elb.add_listener_certificates().listener_arn(arn.as_str()).certificates(certificate);
        self.write("AddListenerCertificates", || call.clone().send()).await.map(drop)
    }

    /// Removes a certificate from a listener (RemoveListenerCertificates).
    pub async fn remove_listener_certificate(
        &self,
        arn: &ListenerArn,
        certificate: &CertificateArn,
    ) -> Result<(), AwsError> {
        let certificate = elb::Certificate::builder().certificate_arn(certificate.as_str()).build();
        let call = self.elb.remove_listener_certificates().listener_arn(arn.as_str()).certificates(certificate);
        self.write("RemoveListenerCertificates", || call.clone().send()).await.map(drop)
    }

    /// Creates a rule (CreateRule).
    pub async fn create_rule(
        &self,
        listener: &ListenerArn,
        rule: NewRule<'_>,
        tags: &Tags,
    ) -> Result<ObservedRule, AwsError> {
        let NewRule { priority, conditions, before, action, transforms } = rule;
        let operation = "CreateRule";
        let conditions: Option<Vec<_>> = conditions.iter().map(convert::to_condition).collect();
        let conditions = conditions.ok_or_else(|| AwsError::unsent(operation, "a condition on an unknown field"))?;
        let call = self
            .elb
            .create_rule()
            .listener_arn(listener.as_str())
            .priority(i32::try_from(priority).unwrap_or(i32::MAX))
            .set_conditions(Some(conditions))
            .set_actions(Some(actions(operation, before, action)?))
            .set_transforms(rewriting(operation, transforms)?)
            .set_tags(convert::to_elb_tags(tags));
        let answer = without_secret(self.write(operation, || call.clone().send()).await, before)?;
        let mut rule =
            answer.rules().first().and_then(convert::rule).ok_or_else(|| AwsError::incomplete(operation, "rule"))?;
        rule.tags = tags.clone();
        remember_secret(&mut rule.actions, before);
        Ok(rule)
    }

    /// Changes the actions and transforms of a rule (ModifyRule). Without transforms, existing ones stay, unless they
    /// are to be reset.
    pub async fn modify_rule(
        &self,
        arn: &RuleArn,
        before: Option<&Authentication>,
        action: &Action<TargetGroupArn>,
        transforms: &[Transform],
        reset_transforms: bool,
    ) -> Result<ObservedRule, AwsError> {
        let operation = "ModifyRule";
        let actions = actions(operation, before, action)?;
        let call = self
            .elb
            .modify_rule()
            .rule_arn(arn.as_str())
            .set_actions(Some(actions))
            .set_transforms(rewriting(operation, transforms)?)
            .set_reset_transforms(reset_transforms.then_some(true));
        let answer = without_secret(self.write(operation, || call.clone().send()).await, before)?;
        let rule = answer.rules().first().and_then(convert::rule);
        let mut rule = rule.ok_or_else(|| AwsError::incomplete(operation, "rule"))?;
        remember_secret(&mut rule.actions, before);
        Ok(rule)
    }

    /// Sets the priorities of rules in one call (SetRulePriorities).
    pub async fn set_rule_priorities(&self, priorities: &[(RuleArn, u32)]) -> Result<(), AwsError> {
        let pairs = priorities.iter().map(|(arn, priority)| {
            elb::RulePriorityPair::builder()
                .rule_arn(arn.as_str())
                .priority(i32::try_from(*priority).unwrap_or(i32::MAX))
                .build()
        });
        let call = self.elb.set_rule_priorities().set_rule_priorities(Some(pairs.collect()));
        self.write("SetRulePriorities", || call.clone().send()).await.map(drop)
    }

    /// Deletes a rule (DeleteRule).
    pub async fn delete_rule(&self, arn: &RuleArn) -> Result<(), AwsError> {
        let call = self.elb.delete_rule().rule_arn(arn.as_str());
        self.write("DeleteRule", || call.clone().send()).await.map(drop)
    }

    /// Creates a target group (CreateTargetGroup). If one with that name and these settings exists, AWS returns it.
    pub async fn create_target_group(
        &self,
        new: &TargetGroup,
        name: &TargetGroupName,
        vpc: &VpcId,
    ) -> Result<ObservedTargetGroup, AwsError> {
        let of_six = new.ip_address_type == IpAddressType::Ipv6;
        let call = self
            .elb
            .create_target_group()
            .protocol(elb::ProtocolEnum::from(new.protocol.as_str()))
            .set_protocol_version(new.protocol_version.map(|version| version.as_str().to_owned()))
            .set_port(new.port.known().map(|port| i32::from(*port)))
            .set_ip_address_type(of_six.then_some(elb::TargetGroupIpAddressTypeEnum::Ipv6))
            .target_type(elb::TargetTypeEnum::from(new.target_type.as_str()));
        let call = with_settings(call, name, vpc, &new.health_check, &new.tags);
        let answer = self.write("CreateTargetGroup", || call.clone().send()).await?;
        created_target_group(&answer, &new.tags)
    }

    /// Creates a target group for an Application Load Balancer, which is still to be registered (CreateTargetGroup).
    pub async fn create_frontend_target_group(
        &self,
        new: &FrontendTargetGroup,
        name: &TargetGroupName,
        vpc: &VpcId,
    ) -> Result<ObservedTargetGroup, AwsError> {
        let call = self
            .elb
            .create_target_group()
            .protocol(elb::ProtocolEnum::Tcp)
            .port(i32::from(new.port))
            .target_type(elb::TargetTypeEnum::Alb);
        let call = with_settings(call, name, vpc, &new.health_check, &new.tags);
        let answer = self.write("CreateTargetGroup", || call.clone().send()).await?;
        created_target_group(&answer, &new.tags)
    }

    /// Sets the whole health check of a target group (ModifyTargetGroup).
    pub async fn modify_target_group(&self, arn: &TargetGroupArn, check: &HealthCheck) -> Result<(), AwsError> {
        let call = self
            .elb
            .modify_target_group()
            .target_group_arn(arn.as_str())
            .health_check_enabled(true)
            .health_check_protocol(elb::ProtocolEnum::from(check.protocol.as_str()))
            .health_check_port(&check.port)
            .set_health_check_path(check.path.clone())
            .health_check_interval_seconds(check.interval_seconds)
            .health_check_timeout_seconds(check.timeout_seconds)
            .healthy_threshold_count(check.healthy_threshold)
            .unhealthy_threshold_count(check.unhealthy_threshold)
            .set_matcher(check.matcher.as_ref().map(convert::to_matcher));
        self.write("ModifyTargetGroup", || call.clone().send()).await.map(drop)
    }

    /// Deletes a target group (DeleteTargetGroup). AWS accepts the call for a deleted one.
    pub async fn delete_target_group(&self, arn: &TargetGroupArn) -> Result<(), AwsError> {
        let call = self.elb.delete_target_group().target_group_arn(arn.as_str());
        self.write("DeleteTargetGroup", || call.clone().send()).await.map(drop)
    }

    /// Adds tags or changes their values (ELB v2 AddTags).
    pub async fn tag(&self, arn: &str, tags: &Tags) -> Result<(), AwsError> {
        let call = self.elb.add_tags().resource_arns(arn).set_tags(convert::to_elb_tags(tags));
        self.write("AddTags", || call.clone().send()).await.map(drop)
    }

    /// Removes tags (ELB v2 RemoveTags); AWS ignores keys that the resource does not have.
    pub async fn untag(&self, arn: &str, keys: &BTreeSet<String>) -> Result<(), AwsError> {
        let call = self.elb.remove_tags().resource_arns(arn).set_tag_keys(Some(keys.iter().cloned().collect()));
        self.write("RemoveTags", || call.clone().send()).await.map(drop)
    }
}

/// Returns the call that creates a target group, with what all of them have.
fn with_settings(
    call: CreateTargetGroupFluentBuilder,
    name: &TargetGroupName,
    vpc: &VpcId,
    check: &HealthCheck,
    tags: &Tags,
) -> CreateTargetGroupFluentBuilder {
    call.name(name.as_str())
        .vpc_id(vpc.as_str())
        .health_check_enabled(true)
        .health_check_protocol(elb::ProtocolEnum::from(check.protocol.as_str()))
        .health_check_port(&check.port)
        .set_health_check_path(check.path.clone())
        .health_check_interval_seconds(check.interval_seconds)
        .health_check_timeout_seconds(check.timeout_seconds)
        .healthy_threshold_count(check.healthy_threshold)
        .unhealthy_threshold_count(check.unhealthy_threshold)
        .set_matcher(check.matcher.as_ref().map(convert::to_matcher))
        .set_tags(convert::to_elb_tags(tags))
}

fn created_target_group(answer: &CreateTargetGroupOutput, tags: &Tags) -> Result<ObservedTargetGroup, AwsError> {
    let group = answer.target_groups().first().and_then(convert::target_group);
    let group = group.ok_or_else(|| AwsError::incomplete("CreateTargetGroup", "target group"))?;
    Ok(ObservedTargetGroup { tags: tags.clone(), ..group })
}
